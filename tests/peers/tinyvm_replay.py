#!/usr/bin/python3
"""tinyvm -record and -replay: a session over sockets, with timers and typed input, and then the same run without peers: the same
output bytes, the same number of instructions, the same registers and memory. And a run that diverges is detected."""
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "lib"))
from vm import Qmp, Skipped, Stream, Vm, check, connect, run_all, until

PREFIX = "riscv64-unknown-elf-"
FLAGS = ("-march=rv32im_zicsr_zifencei -mabi=ilp32 -O1 -Wall -Werror -ffreestanding -nostdlib -static "
         "-Wl,-Ttext=0x80000000,--no-relax").split()


def guest(directory):
    if not shutil.which(PREFIX + "gcc"):
        raise Skipped(PREFIX + "gcc is not installed")
    elf = os.path.join(directory, "guest.elf")
    subprocess.run([PREFIX + "gcc", *FLAGS, "-o", elf, os.path.join(HERE, "lib", "replay_guest.c")], check=True, timeout=300)
    return elf


def socket_at(path):
    def ready():
        try:
            return connect(path)
        except OSError:
            return None
    found = []
    until(lambda: found or found.append(ready()) or found[0] or found.clear(), "a socket at " + path)
    return found[0]


def read(path):
    with open(path, "rb") as file:
        return file.read()


def digest(text):
    found = re.findall(r"^tinyvm: (\d+ instructions, \d+ ns, registers \w+, memory \w+)$", text, re.M)
    check(len(found) == 1, "one digest:", text)
    return found[0]


def arguments(directory, log, *more):
    path = os.path.join(directory, "con")
    return ("-m", "4", "-digest", "-chardev", "socket,id=con,server=on,wait=off,history=1K,path=%s,logfile=%s" % (path, os.path.join(directory, log)),
            "-serial", "chardev:con", *more)


def record(directory, name, session, *more):
    """Returns the digest and what the guest said, by the log."""
    tape = os.path.join(directory, name)
    with Vm(*arguments(directory, name + ".log", "-record", tape, *more)) as vm:
        sock = socket_at(os.path.join(directory, "con"))
        console = Stream(sock.fileno())
        session(console, vm)
        check(console.ended(), "the console doesn't end")
        vm.status()
        sock.close()
        return digest(vm.stderr()), read(os.path.join(directory, name + ".log"))


def replay(directory, name, *more):
    began = time.monotonic()
    with Vm(*arguments(directory, name + ".again", "-replay", os.path.join(directory, name), *more)) as vm:
        check(vm.status() == 0, "status", vm.status(), vm.stderr())
        said = vm.stderr()
    return digest(said), read(os.path.join(directory, name + ".again")), said, time.monotonic() - began


def same(directory, name, then, *more):
    """The replay comes to the same; and a second one, too."""
    for _ in range(2):
        sums, output, said, _ = replay(directory, name, *more)
        check(output == then[1], "output differs: %d and %d bytes, first at %d" % (
            len(output), len(then[1]), len(os.path.commonprefix([output, then[1]]))), said)
        check(sums == then[0], "digest:", sums, "not", then[0])
        check("diverges" not in said, said)
    check(not os.path.exists(os.path.join(directory, "con")), "the replay made a socket")


def type_slowly(console, vm, seed):
    generator = random.Random(seed)
    console.expect("\n")
    for _ in range(60):
        console.send(bytes(generator.choice(b"abcdefghijk") for _ in range(generator.choice((1, 1, 2, 5, 14, 40)))))
        console.read_some(generator.choice((0, 0.0003, 0.001, 0.004)))
        if generator.random() < 0.2:
            console.expect(".")
    console.expect(".")
    console.send("q")


def timers_and_typing(directory):
    """Ticks each 0.7 ms, input at any moment, below and above the FIFO's trigger: every line of output holds a cycle count."""
    elf = guest(directory)
    for seed in range(3):
        then = record(directory, "tape%d" % seed, lambda console, vm: type_slowly(console, vm, seed), "-bios", elf)
        check(then[1].count(b"\n") > 200, "a long session", then[1][-200:])
        same(directory, "tape%d" % seed, then, "-bios", elf)


def peer_goes_and_comes(directory):
    """Closed in the middle; what the guest says meanwhile is lost then, and lost again."""
    elf = guest(directory)

    def session(console, vm):
        console.expect("\n")
        console.send("abc")
        console.expect("c0")
        os.dup2(os.open(os.devnull, os.O_RDONLY), console.fd)  # the peer is gone
        time.sleep(0.1)
        again = socket_at(os.path.join(directory, "con"))
        second = Stream(again.fileno())
        second.expect(".")
        second.send("xyzq")
        check(second.ended(), "the second console doesn't end")
        again.close()

    then = record(directory, "tape", session, "-bios", elf)
    check(b"\nz" in then[1] or b"z0" in then[1], "the second peer was heard")
    same(directory, "tape", then, "-bios", elf)


def slow_reader(directory):
    """A peer that doesn't read: the guest meets a full line, and the same full line again."""
    elf = guest(directory)

    def session(console, vm):
        console.expect("\n")
        for _ in range(40):
            console.send("k" * 40)
        time.sleep(0.3)  # the guest has said all that the line takes
        console.send("q")

    then = record(directory, "tape", session, "-bios", elf)
    same(directory, "tape", then, "-bios", elf)


def firmware_sleeps(directory):
    """The built-in firmware: nothing but wfi and typed lines, and a BREAK-less poweroff."""
    def session(console, vm):
        console.expect("> ")
        for line in ("one", "two", "a longer line, typed at once"):
            console.send(line + "\r")
            console.expect("> ")
            time.sleep(0.05)
        console.send("poweroff\r")

    then = record(directory, "tape", session)
    same(directory, "tape", then)
    check(replay(directory, "tape")[3] < 100, "a replay doesn't wait")


def ended_by_a_signal(directory):
    """A run that was cut short is as short again, to the instruction."""
    elf = guest(directory)

    def session(console, vm):
        console.expect("\n")
        console.send("abc")
        console.expect(".")
        vm.signal(signal.SIGTERM)

    then = record(directory, "tape", session, "-bios", elf)
    same(directory, "tape", then, "-bios", elf)


def monitor_too(directory):
    """A QMP session is part of the recording: stop, cont and reset come again at the same instructions."""
    elf, path = guest(directory), os.path.join(directory, "qmp")
    monitor = ("-chardev", "socket,id=mon,server=on,wait=off,path=%s,logfile=%s" % (path, path + ".log"), "-mon", "chardev=mon,mode=control")

    def session(console, vm):
        qmp = Qmp(socket_at(path))
        qmp.greet()
        console.expect("\n")
        for command in ("stop", "cont", "system_reset", "stop", "query-status", "cont"):
            console.send("abc")
            time.sleep(0.01)
            qmp.ok(command)
        console.expect(".")
        qmp.ok("quit")
        qmp.close()

    then = record(directory, "tape", session, "-bios", elf, *monitor)
    said = read(path + ".log")
    check(said.count(b"timestamp") >= 6, "events", said)
    same(directory, "tape", then, "-bios", elf, *monitor)
    check(read(path + ".log") == said, "QMP answers differ", read(path + ".log"), said)


def another_guest_diverges(directory):
    """The recording of one program, played to another, is noticed and told in one line."""
    elf = guest(directory)
    record(directory, "tape", lambda console, vm: type_slowly(console, vm, 9), "-bios", elf)
    said = replay(directory, "tape")[2]
    check(len(re.findall(r"chardev con: the replay diverges at [\d.]+ s, at byte \d+ of the output \(file offset \d+\): ", said)) == 1, said)


def bad_files(directory):
    tape = os.path.join(directory, "tape")
    for data, what in ((b"", "cut off"), (b"x" * 100, "not a recording"), (b"chardevR" + bytes(16), "version 0")):
        with open(tape, "wb") as file:
            file.write(data)
        with Vm("-replay", tape) as vm:
            check(vm.status() == 1 and what in vm.stderr() and "offset" in vm.stderr(), vm.stderr())
    with Vm("-record", os.path.join(directory, "no", "where")) as vm:
        check(vm.status() == 1 and "-record" in vm.stderr(), vm.stderr())


run_all((timers_and_typing, peer_goes_and_comes, slow_reader, firmware_sleeps, ended_by_a_signal, monitor_too, another_guest_diverges,
         bad_files))
