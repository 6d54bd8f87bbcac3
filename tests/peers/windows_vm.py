#!/usr/bin/python3
"""tinyvm.exe and fd_handoff.exe under Wine: QMP over TCP, the guest's serial port over TCP, a stepped clock, a recording and its
replay, and a manager that passes a SOCKET."""
import os
import re
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from vm import Qmp  # noqa: E402
from windows import LIMIT, Program, Skipped, call, exactly, exe, free_port, has_backend, need_exes, run, run_all, skip, until, up_to  # noqa: E402

need_exes("tinyvm", "fd_handoff")
if not has_backend("socket"):
    skip("tinyvm.exe has no socket")


def server(port):
    return "host=127.0.0.1,port=%d,server=on,wait=off" % port


class Machine:
    """With a control monitor, and its serial port on a connection: `console`."""

    def __init__(self, *args):
        ports = free_port(), free_port()
        self.vm = Program("tinyvm", "-chardev", "socket,id=mon," + server(ports[0]), "-mon", "chardev=mon,mode=control", "-chardev",
                          "socket,id=con," + server(ports[1]), "-serial", "chardev:con", *args)
        try:
            for port in ports:
                self.vm.listens(port)
            self.console = call(ports[1])
            self.qmp = Qmp(call(ports[0]))
            self.qmp.greet()
        except BaseException:
            self.vm.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.console.close()
        self.qmp.close()
        self.vm.kill()

    def quit(self):
        self.qmp.ok("quit")
        assert self.qmp.event("SHUTDOWN")["data"] == {"guest": False, "reason": "host-qmp-quit"}
        assert self.qmp.socket.recv(1) == b"", "the monitor's connection ends behind the last event"
        self.vm.ends(0)


def prompt(peer):
    """The firmware's own has gone to nobody when it came before the peer."""
    peer.sendall(b"\r")
    up_to(peer, b"> ")


def qmp(_):
    """What a management program asks for; a session after a reset connection; errors keep it alive."""
    with Machine("-S") as m:
        assert m.qmp.ok("query-status")["status"] == "prelaunch"
        m.qmp.ok("cont")
        m.qmp.event("RESUME")
        m.qmp.ok("stop")
        m.qmp.event("STOP")
        m.qmp.ok("chardev-add", id="ring", backend={"type": "ringbuf", "data": {"size": 1024}})
        m.qmp.ok("ringbuf-write", device="ring", data="hello")
        assert m.qmp.ok("ringbuf-read", device="ring", size=100) == "hello"
        assert m.qmp.fails("getfd", fdname="x")
        assert "WSADuplicateSocketW" in m.qmp.fails("get-win32-socket", fdname="x", info="bm90IG9uZQ==")
        assert m.qmp.fails("nonsense", error_class="CommandNotFound")
        names = {backend["name"] for backend in m.qmp.ok("query-chardev-backends")}
        assert {"null", "ringbuf", "socket", "mux"} <= names and "pty" not in names, names
        where = m.qmp.socket.getpeername()
        m.qmp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        m.qmp.close()
        m.qmp = Qmp(call(where[1]))
        m.qmp.greet()
        assert m.qmp.ok("query-status")["status"] == "paused"
        m.quit()


def console(_):
    """The built-in firmware echoes; its machine ends when it says so."""
    with Machine() as m:
        prompt(m.console)
        for line in (b"hello", b"x" * 200):
            m.console.sendall(line + b"\r")
            up_to(m.console, line + b"\r\n" + line + b"\r\n> ")
        m.console.sendall(b"poweroff\r")
        assert m.qmp.event("SHUTDOWN")["data"]["guest"] is True
        m.vm.ends(0)


def serial_uri(_):
    """-serial tcp:..., and a monitor for people behind it: Ctrl-A c."""
    port = free_port()
    with Program("tinyvm", "-serial", "mon:tcp:127.0.0.1:%d,server=on,wait=off" % port) as vm:
        vm.listens(port)
        peer = call(port)
        prompt(peer)
        peer.sendall(b"hello\r")
        up_to(peer, b"hello\r\nhello\r\n> ")
        vm.rests()
        peer.sendall(b"\1c")
        up_to(peer, b"(tinyvm) ")
        peer.sendall(b"info status\r")
        assert b"running" in up_to(peer, b"(tinyvm) ")
        peer.sendall(b"quit\r")
        vm.ends(0)


def idle(_):
    """A machine that waits for input costs no CPU time, with a peer and without one."""
    with Machine() as m:
        prompt(m.console)
        m.vm.rests()
        m.console.close()
        m.vm.rests()
        m.quit()


def clock(_):
    """-clock virtual: a millisecond at a time."""
    with Machine("-clock", "virtual", "-S") as m:
        assert m.qmp.ok("clock_step", ns=0) == {"time": 0}
        assert m.qmp.ok("clock_step", ns=998990) == {"time": 998990}
        m.qmp.ok("cont")
        for said, heard in ((b"", b"\r\n> "), (b"hello\r", b"hello\r\nhello\r\n> "), (b"poweroff\r", b"poweroff\r\n")):
            m.console.sendall(said)
            time.sleep(0.2)
            m.qmp.ok("clock_step", ns=2000000)
            up_to(m.console, heard)
        m.vm.ends(0)


def digest(text):
    return re.search(r"tinyvm: (\d+ instructions, \d+ ns, registers \w+, memory \w+)", text).group(1)


def replay(directory):
    """The same instructions again, with nobody there."""
    if not has_backend("file"):
        raise Skipped("tinyvm.exe has no files")
    tape, port = os.path.join(directory, "tape"), free_port()
    arguments = "-m", "4", "-digest", "-chardev", "socket,id=con," + server(port), "-serial", "chardev:con"
    with Program("tinyvm", *arguments, "-record", tape) as vm:
        vm.listens(port)
        peer = call(port)
        prompt(peer)
        for word in (b"hello\r", b"again\r"):
            peer.sendall(word)
            up_to(peer, b"> ")
        peer.sendall(b"poweroff\r")
        vm.ends(0)
        recorded = digest(vm.stderr())
    status, _, text = run("tinyvm", *arguments, "-replay", tape)
    assert status == 0 and digest(text) == recorded, "%s replayed as %s" % (recorded, text)


# ---- a manager that hands down a SOCKET ----


def story(_):
    status, out, errors = run("fd_handoff", limit=120)
    text = out + errors
    bad = out.partition("* A start that fails")[2]
    assert status == 0, text
    assert '<- {"QMP"' in out and out.count("  -> ") == out.count('"return"'), text
    assert "one connect() to it: connected" in out and "<- hello" in out and "no guest answers" not in out, text
    assert "the VM removed it: our connection has ended" in out, text
    assert "exit status: 0" in out and re.search(r"exit status: [1-9]", bad), text
    assert bad.count("one connect()") == 1 and ("refused" in bad or "then end-of-file" in bad), text
    assert re.search("its stderr: .*pth", bad), text


def failing_starts(_):
    """A VM that is not there, and one that ends before it has looked at the socket: the one connect() fails, and nothing waits."""
    status, out, errors = run("fd_handoff", "--", "Z:\\nonexistent\\vm.exe")
    assert status == 1 and "the VM is not there" in errors, out + errors
    for _ in range(5):
        started = time.monotonic()
        status, out, errors = run("fd_handoff", "--", exe("tinyvm"), "-nonsense")
        assert status == 1 and "-nonsense: unknown option" in errors and "the VM is not there" in errors, out + errors
        assert out.count("listening on") == 1 and time.monotonic() - started < 30, out + errors


run_all([qmp, console, serial_uri, idle, clock, replay, story, failing_starts])
