#!/usr/bin/python3
"""Guests tested by a script, and tinyvm's virtual clock stepped from outside."""
import os
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from vm import BUILD, LIMIT, Monitored, Qmp, Stream, Vm, check, connect, listener, run_all, until

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
FIRMWARE = os.path.join(TOP, "examples", "tinyvm", "firmware.script")


def script(directory, text, name="play"):
    path = os.path.join(directory, name)
    with open(path, "w", encoding="latin-1", newline="") as file:
        file.write(text)
    return path


def run(*args):
    with Vm(*args) as vm:
        status = vm.status()
        return status, vm.stderr()


def firmware(directory):
    """The built-in firmware does what it promises."""
    status, errors = run("-serial", "script:" + FIRMWARE)
    check(status == 0 and errors == "", status, errors)


def verdicts(directory):
    """The exit status is the verdict; one line says where, and what came instead."""
    path = script(directory, 'expect "> "\nsend "hi\\r"\nexpect "ho" within 300ms\n')
    status, errors = run("-serial", "script:" + path)
    want = 'tinyvm: chardev serial0: %s: line 3: expect "ho": timed out; what came instead: "hi\\r\\nhi\\r\\n> "\n' % path
    check(status == 1 and errors == want, status, errors, want)
    path = script(directory, 'reject "> "\nwait 10s')
    status, errors = run("-serial", "script:" + path)
    check(status == 1 and "line 1: reject" in errors and "it came" in errors, status, errors)
    path = script(directory, 'send "poweroff\\r"\nexpect "never"')
    status, errors = run("-serial", "script:" + path)
    check(status == 1 and "line 2" in errors and "the machine has ended" in errors, status, errors)
    status, errors = run("-serial", "script:" + script(directory, 'expect "> "; sned "x"'))
    check(status == 1 and "line 1: none of expect" in errors and "'sned'" in errors and errors.count("\n") == 1, status, errors)
    status, errors = run("-serial", "script:/nonexistent/play")
    check(status == 1 and "/nonexistent/play" in errors, status, errors)


def two_ports(directory):
    """Two scripts: the last one to pass ends it, the first one to fail too. The second port has no firmware: nothing is read there."""
    good = script(directory, 'expect "> "; wait 100ms', "good")
    status, errors = run("-serial", "script:" + good, "-serial", "script,text=wait 300ms")
    check(status == 0 and errors == "", status, errors)
    status, errors = run("-serial", "script:" + good, "-serial", "script,text=expect \"x\" within 200ms")
    check(status == 1 and "serial1" in errors, status, errors)
    status, errors = run("-chardev", "script,id=s,exit=off,text=wait 1ms", "-serial", "chardev:s", "-serial", "script:" +
                         script(directory, "wait 200ms", "slow"))
    check(status == 0, status, errors)


def faults_in_between(directory):
    """The same firmware passes behind a line on which things go wrong, but for its breaks and disconnections."""
    for seed in (1, 2, 3):
        status, errors = run("-chardev", "script,id=s,file=" + FIRMWARE, "-chardev",
                             "fault,id=f,chardev=s,seed=%d,rate=40,delay=3,faults=short+block+delay" % seed, "-serial", "chardev:f")
        check(status == 0 and errors == "", seed, status, errors)


def relayed(directory):
    """A script against another process, over a socket."""
    path = os.path.join(directory, "socket")
    play = script(directory, 'expect "login: "; send "root\\n"; expect "bye"')
    for last, wanted in (b"bye", 0), (b"by", 1):
        with listener(path) as server:
            relay = subprocess.Popen([os.path.join(BUILD, "relay"), "unix:" + path, "script:" + play], stderr=subprocess.PIPE)
            peer = server.accept()[0]
            peer.sendall(b"login: ")
            check(peer.recv(100) == b"root\n", "what it says")
            peer.sendall(last)
            peer.close()
            errors = relay.communicate(timeout=LIMIT)[1].decode()
        os.unlink(path)
        check(relay.returncode == wanted and ("line 1" in errors) == bool(wanted), relay.returncode, errors)


def example(directory):
    """The rig of examples/."""
    done = subprocess.run([sys.executable, os.path.join(TOP, "examples", "clock_step.py")], capture_output=True, text=True, timeout=LIMIT,
                          env=dict(os.environ, BUILD=os.path.abspath(BUILD)))
    check(done.returncode == 0 and done.stdout.startswith("{'time': 1000000}\n{'time': 2000000}\n"), done.stdout, done.stderr)


def serial(directory, *args):
    """A VM on a virtual clock with a monitor, and our end of its serial port."""
    path = os.path.join(directory, "tty")
    with listener(path) as server:
        vm = Monitored(directory, "-clock", "virtual", "-serial", "unix:" + path, *args)
        return vm, Stream(server.accept()[0].detach())


def stands_still(directory):
    """Without a step nothing happens, and a step is exact; the next timer is a step without a number."""
    vm, tty = serial(directory)
    with vm:
        check(tty.silent(0.2), "it has run by itself")
        check(vm.qmp.ok("clock_step", ns=0) == {"time": 0}, "time is 0")
        check(vm.qmp.ok("clock_step", ns=1001) == {"time": 1010}, "whole instructions")
        check("no timer" in vm.qmp.fails("clock_step"), "there is no timer")
        for bad in -1, 1.5, 2 ** 63:
            check("ns must be" in vm.qmp.fails("clock_step", ns=bad), bad)
        check(vm.qmp.ok("clock_step", ns=998990) == {"time": 1000000}, "exact")
        tty.expect("> ")
        vm.qmp.ok("stop")
        tty.send("hello\r")
        check(vm.qmp.ok("clock_step", ns=5000000) == {"time": 6000000}, "time goes by in a machine that is stopped")
        check(tty.silent(0.1), "it has run though it is stopped")
        vm.qmp.ok("cont")
        check(tty.silent(0.1), "it has run by itself")
        vm.qmp.ok("clock_step", ns=1000000)
        tty.expect("hello\r\nhello\r\n> ")
        vm.vm.rests(5, lambda: tty.silent(0.5))
        vm.qmp.ok("quit")
        check(vm.vm.status() == 0, "status")
    with Monitored(directory) as vm:
        check("-clock virtual" in vm.qmp.fails("clock_step", ns=1), "needs it")
    for args in ("-record", os.path.join(directory, "tape")), ("-replay", FIRMWARE):
        status, errors = run("-clock", "virtual", *args)
        check(status == 1 and "neither" in errors, status, errors)
    status, errors = run("-clock", "wall")
    check(status == 1 and "'wall'" in errors, status, errors)


def a_script_on_it(directory):
    """A script's waits are stepped over, too; the same steps do the same, instruction for instruction."""
    digests = []
    for _ in range(2):
        play = script(directory, 'expect "> "; wait 5s; send "hello\\r"; expect "> "; wait 100s; send "poweroff\\r"; expect "poweroff\\r\\n"')
        with Monitored(directory, "-clock", "virtual", "-digest", "-serial", "script:" + play) as vm:
            first = vm.qmp.ok("clock_step", ns=1000000)["time"]
            check(first == 1000000, first)
            second = vm.qmp.ok("clock_step")["time"]
            check(5000000000 < second < 5001000000, second)
            vm.qmp.ok("clock_step", ns=1000000)
            third = vm.qmp.ok("clock_step")["time"]
            check(105000000000 < third < 105002000000, third)
            vm.qmp.socket.sendall(b'{"execute": "clock_step", "arguments": {"ns": 10000000}, "id": "last"}')
            answer = vm.qmp.answer()
            check(answer["id"] == "last" and third < answer["return"]["time"] < third + 10000000, answer)
            vm.qmp.event("SHUTDOWN")
            check(vm.vm.status() == 0, "status", vm.vm.stderr())
            digests.append(vm.vm.stderr())
    check(digests[0] == digests[1] and "instructions" in digests[0], digests)


def two_monitors(directory):
    """One step at a time; commands behind it wait for it; a session that ends does not hold it."""
    path = os.path.join(directory, "other")
    vm, tty = serial(directory, "-chardev", "socket,id=o,path=%s,server=on,wait=off" % path, "-mon", "o,mode=control")
    with vm:
        other = Qmp(connect(path))
        other.greet()
        step = b'{"execute": "clock_step", "arguments": {"ns": %d}}'
        vm.qmp.socket.sendall(step % 2000000000 + b'{"execute": "query-status"}{"execute": "clock_step", "arguments": {"ns": 5}}')
        # two seconds of a guest that sleeps are over at once: no way to meet another step under way, but for its answer's order
        check(vm.qmp.answer()["return"] == {"time": 2000000000}, "first the step")
        check("status" in vm.qmp.answer()["return"], "then the next command")
        check(vm.qmp.answer()["return"] == {"time": 2000000005}, "a guest that sleeps is sent exactly so far")
        other.socket.sendall(step % 1000)
        other.close()
        vm.qmp.ok("query-status")
        tty.expect("> ")
        tty.send("x\r")
        until(lambda: "return" in vm.qmp.ask("clock_step", ns=1000000), "the other's step is over")
        tty.expect("x\r\nx\r\n> ")


run_all([firmware, verdicts, two_ports, faults_in_between, relayed, example, stands_still, a_script_on_it, two_monitors])
