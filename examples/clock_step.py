#!/usr/bin/python3
"""A test rig outside of the process: tinyvm on a virtual clock, stepped over QMP, and its guest at a socket. After `make`."""
import json, os, socket, subprocess, tempfile

with tempfile.TemporaryDirectory() as tmp:
    servers = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    for server, name in zip(servers, ("/qmp", "/tty")):  # our ends are there before the machine: nothing to wait for
        server.bind(tmp + name)
        server.listen()
    vm = subprocess.Popen([os.environ.get("BUILD", "build") + "/tinyvm", "-clock", "virtual", "-chardev",
                           "socket,id=q,path=%s/qmp" % tmp, "-mon", "q,mode=control", "-serial", "unix:%s/tty" % tmp])
    qmp, tty = (server.accept()[0] for server in servers)
    answers = map(json.loads, qmp.makefile())
    def command(name, **arguments):
        qmp.sendall(json.dumps({"execute": name, "arguments": arguments}).encode())
        return next(answer["return"] for answer in answers if "return" in answer)
    command("qmp_capabilities")
    for said, heard in ("", "\r\n> "), ("hello\r", "hello\r\nhello\r\n> "), ("poweroff\r", "poweroff\r\n"):
        tty.sendall(said.encode())
        print(command("clock_step", ns=1000000))  # a millisecond: 100,000 instructions, or less and the wait for the rest
        assert tty.recv(4096).decode().endswith(heard)
    assert vm.wait(60) == 0
