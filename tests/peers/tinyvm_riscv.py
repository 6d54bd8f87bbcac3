#!/usr/bin/python3
"""tinyvm's CPU, timer, interrupts, UART and finisher: one bare-metal program, run here and on QEMU's virt board, prints the same on
both; its arithmetic is also compared with Python's."""
import os
import re
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "lib"))
from vm import TINYVM, Monitored, Process, Skipped, Stream, check, connect, listener, run_all, skip

PREFIX = "riscv64-unknown-elf-"
QEMU = shutil.which("qemu-system-riscv32")
FLAGS = ("-march=rv32im_zicsr_zifencei -mabi=ilp32 -O1 -Wall -Werror -ffreestanding -nostdlib -static "
         "-Wl,-Ttext=0x80000000,--no-relax").split()
COMMANDS = ("arith", "traps", "csr", "uart", "plic", "clint")
M = 0xffffffff

if not shutil.which(PREFIX + "gcc"):
    skip(PREFIX + "gcc is not installed")


def build(directory):
    """The program as ELF and as a raw image."""
    elf, raw = os.path.join(directory, "guest.elf"), os.path.join(directory, "guest.bin")
    subprocess.run([PREFIX + "gcc", *FLAGS, "-o", elf, os.path.join(HERE, "lib", "tinyvm_guest.c")], check=True, timeout=300)
    subprocess.run([PREFIX + "objcopy", "-O", "binary", elf, raw], check=True, timeout=300)
    return elf, raw


class Guest(Process):
    def __init__(self, *command, fds=()):
        super().__init__(command, fds=fds, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.console = Stream(self.process.stdout.fileno())
        self.console.expect("ready\n")

    def ask(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        return self.console.expect("done\n").decode()

    def everything(self):
        said = {line: self.ask(line) for line in COMMANDS}
        self.process.stdin.write(b"timeout\n")
        self.console.expect("send seven\n")
        self.process.stdin.write(b"abcdefg")
        said["timeout"] = self.console.expect("done\n").decode()
        said["echo"] = self.ask("a line comes back")
        return said


def tinyvm(program):
    return Guest(TINYVM, "-bios", program, "-serial", "stdio")


def qemu(elf):
    if not QEMU:
        raise Skipped("qemu-system-riscv32 is not installed")
    return Guest(QEMU, "-M", "virt", "-cpu", "rv32,c=false", "-bios", "none", "-kernel", elf, "-display", "none", "-serial", "stdio",
                 "-monitor", "none")


def signed(x):
    return x - (1 << 32) if x >> 31 else x


def truncated(a, b):
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


MODEL = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "xor": lambda a, b: a ^ b, "or": lambda a, b: a | b, "and": lambda a, b: a & b,
    "sll": lambda a, b: a << (b & 31), "srl": lambda a, b: a >> (b & 31), "sra": lambda a, b: signed(a) >> (b & 31),
    "slt": lambda a, b: signed(a) < signed(b), "sltu": lambda a, b: a < b,
    "mul": lambda a, b: a * b, "mulh": lambda a, b: signed(a) * signed(b) >> 32, "mulhsu": lambda a, b: signed(a) * b >> 32,
    "mulhu": lambda a, b: a * b >> 32,
    "div": lambda a, b: truncated(signed(a), signed(b)) if b else -1, "divu": lambda a, b: a // b if b else -1,
    "rem": lambda a, b: signed(a) - signed(b) * truncated(signed(a), signed(b)) if b else a, "remu": lambda a, b: a % b if b else a,
}


def arithmetic(directory):
    with tinyvm(build(directory)[0]) as guest:
        lines = guest.ask("arith").splitlines()
    check(len(lines) == 18 * 14 * 14, "lines of arithmetic:", len(lines))
    for line in lines:
        name, *numbers = line.split()
        a, b, result = (int(n, 16) for n in numbers)
        check(int(MODEL[name](a, b)) & M == result, "wrong:", line)


def expected(said, name, *lines):
    for line in lines:
        check("\n" + line + "\n" in "\n" + said[name], name, "lacks", line, "but has", said[name])


def behaviour(directory):
    """What the architecture and the 16550's data sheet say, without a machine to compare with."""
    with tinyvm(build(directory)[1]) as guest:
        said = guest.everything()
    expected(said, "traps", "illegal cause 00000002 value ffffffff count 00000001", "load cause 00000005 value 00800000 count 00000005",
             "store cause 00000007 value 00800004 count 00000006", "fetch cause 00000001 value 00800000 count 00000007",
             "misaligned jump cause 00000000 value 80000002 count 00000008", "register kept 5a5a5a5a", "misaligned word 05840302")
    expected(said, "csr", "csrrs 00000ff0", "csrrc 0000fff0", "csrrwi 0000ff00", "csrrsi 00000015", "csrrci 0000001f", "mscratch 0000001e",
             "misa 40001100", "cycles pass 00000001", "time is mtime 00000001", "mret enables 00000088")
    expected(said, "uart", "divisor 00001234", "idle lsr 00000060", "idle iir 000000c1", "loop overrun lsr 00000003", "loop first 00000040",
             "trigger iir 00010401", "thre iir 00c2c1c2", "sent by interrupts", "tx interrupts 00000001")
    values = [int(line.split()[1], 16) for line in said["plic"].splitlines()]
    check(values == [1 << 10, 0, 1 << 11, 10, 0, 10, 0], "plic:", said["plic"])
    expected(said, "clint", "timer 00000003", "30 ms passed 00000001", "software 00000001", "vectored 00000101")
    expected(said, "timeout", "timeouts 00000001", "below the trigger 00000001", "source 0000000a")
    check(said["echo"] == "a line comes back\n", said["echo"])


def same_as_qemu(directory):
    elf, raw = build(directory)
    with qemu(elf) as guest:
        there = guest.everything()
    for program in (elf, raw):
        with tinyvm(program) as guest:
            here = guest.everything()
        for name in there:
            # A level that is still up after it was completed is pending again: so says the PLIC's specification, QEMU waits for an edge.
            theirs, ours = ([line for line in said[name].splitlines() if not line.startswith("again")] for said in (there, here))
            for a, b in zip(theirs, ours):
                check(a == b, name, "- QEMU:", a, "- tinyvm:", b)
            check(len(theirs) == len(ours), name, "has another length")


def endings(directory):
    """The finisher's exit statuses, and its reset, on both."""
    elf, _ = build(directory)
    makers = [lambda: tinyvm(elf)] + ([lambda: qemu(elf)] if QEMU else [])
    for make in makers:
        for command, status in (("pass", 0), ("fail", 7)):
            with make() as guest:
                guest.process.stdin.write(command.encode() + b"\n")
                check(guest.status() == status, command, guest.status())
        with make() as guest:
            check(guest.ask("hello") == "hello\n", "before")
            guest.process.stdin.write(b"reset\n")
            guest.console.expect("ready\n")
            check(guest.ask("hello again") == "hello again\n", "after a reset")


def input_under_load(directory):
    """A long input, faster than the guest takes it: pushed back, not lost."""
    with tinyvm(build(directory)[0]) as guest:
        line = "".join(chr(33 + i % 90) for i in range(100))
        for _ in range(200):
            guest.process.stdin.write(line.encode() + b"\n")
        for _ in range(200):
            check(guest.console.expect("done\n") == line.encode() + b"\n", "a line that isn't the one that was sent")


def second_port(directory):
    """Another port has its own registers and its own interrupt."""
    path = os.path.join(directory, "s")
    with listener(path) as sock:
        command = [TINYVM, "-bios", build(directory)[0], "-chardev", "socket,id=s,fd=%d,server=on,wait=off" % sock.fileno(),
                   "-serial", "stdio", "-serial", "chardev:s"]
        guest = Guest(*command, fds=(sock.fileno(),))
    with guest, connect(path) as peer:
        guest.process.stdin.write(b"second\n")
        guest.console.expect("send five\n")
        peer.sendall(b"Hello")
        Stream(peer.fileno()).expect("hELLO")
        check(guest.console.expect("done\n") == b"source 0000000b\n", "the interrupt's source")


def line_break(directory):
    """A BREAK that the monitor sends arrives as a line status interrupt, in its place among the bytes."""
    with Monitored(directory, "-bios", build(directory)[0], "-chardev", "stdio,id=s", "-serial", "chardev:s", stdin=subprocess.PIPE,
                   stdout=subprocess.PIPE) as vm:
        console = Stream(vm.vm.process.stdout.fileno())
        console.expect("ready\n")
        vm.vm.process.stdin.write(b"break\n")
        console.expect("send break\n")
        vm.qmp.ok("chardev-send-break", id="s")
        said = console.expect("done\n").decode()
        check(said == "line errors 00000010\nits byte 00000000\nlsr after it 00000060\n", said)


def clock_stops(directory):
    """A paused machine's clock stands still; timers go on after `cont`."""
    with Monitored(directory, "-bios", build(directory)[0], "-serial", "stdio", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as vm:
        console, stdin = Stream(vm.vm.process.stdout.fileno()), vm.vm.process.stdin
        console.expect("ready\n")
        started = time.monotonic()
        stdin.write(b"stopwatch\n")
        console.expect("stop me\n")
        vm.qmp.ok("stop")
        stopped = time.monotonic()
        check(console.silent(0.3), "a stopped machine says", console.seen)
        stopped = time.monotonic() - stopped
        vm.qmp.ok("cont")
        stdin.write(b"x")
        ticks = int(console.expect("done\n").split()[1], 16)
        passed = time.monotonic() - started
        check(ticks / 1e7 <= passed - stopped, "the clock went on:", ticks / 1e7, "of", passed, "seconds,", stopped, "of them stopped")
        stdin.write(b"clint\n")
        check(b"30 ms passed 00000001" in console.expect("done\n"), "timers")


def firmware_is_built_from_its_source(directory):
    """The bytes in firmware.c are what firmware.S assembles to; QEMU runs them, too."""
    source = os.path.join(HERE, "..", "..", "examples", "tinyvm", "firmware")
    elf, raw = os.path.join(directory, "f.elf"), os.path.join(directory, "f.bin")
    subprocess.run([PREFIX + "gcc", "-march=rv32im_zicsr", "-mabi=ilp32", "-nostdlib", "-Wl,-Ttext=0x80000000", "-o", elf, source + ".S"],
                   check=True, timeout=300)
    subprocess.run([PREFIX + "objcopy", "-O", "binary", elf, raw], check=True, timeout=300)
    with open(source + ".c") as f:
        array = bytes(int(n, 16) for n in re.findall(r"0x[0-9a-f]{2}", f.read()))
    with open(raw, "rb") as f:
        check(f.read() == array, "firmware.c isn't what firmware.S makes")
    if not QEMU:
        raise Skipped("qemu-system-riscv32 is not installed")
    for command in ([TINYVM, "-serial", "stdio"], [QEMU, "-M", "virt", "-bios", raw, "-display", "none", "-serial", "stdio", "-monitor", "none"]):
        with Process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as vm:
            console = Stream(vm.process.stdout.fileno())
            console.expect("> ")
            vm.process.stdin.write(b"xyz\x7f\n")
            console.expect("xyz\b \b\r\nxy\r\n> ")
            vm.process.stdin.write(b"poweroff\r")
            check(vm.status() == 0, "poweroff")


run_all([arithmetic, behaviour, same_as_qemu, endings, input_under_load, second_port, line_break, clock_stops, firmware_is_built_from_its_source])
