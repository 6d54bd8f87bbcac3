#!/usr/bin/python3
"""A guest with a mouse or a tablet on its second serial port; the monitor moves it. And a hub of consoles."""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from vm import Monitored, Stream, check, connect, run_all


def guest(directory):
    """Switches DTR and RTS of the second port on and copies what comes there to the first one, byte by byte."""
    t0, t1, t2, t3 = 5, 6, 7, 28
    lbu = lambda rd, at, base: at << 20 | base << 15 | 4 << 12 | rd << 7 | 0x03
    sb = lambda rs, at, base: (at >> 5) << 25 | rs << 20 | base << 15 | (at & 31) << 7 | 0x23
    addi = lambda rd, base, value: (value & 0xfff) << 20 | base << 15 | rd << 7 | 0x13
    andi = lambda rd, base, value: value << 20 | base << 15 | 7 << 12 | rd << 7 | 0x13

    def beqz(rs, by):
        by &= 0x1fff
        return (by >> 12) << 31 | (by >> 5 & 63) << 25 | rs << 15 | (by >> 1 & 15) << 8 | (by >> 11 & 1) << 7 | 0x63

    code = [0x10000000 | t0 << 7 | 0x37, addi(t1, t0, 0x100), addi(t2, 0, 3), sb(t2, 4, t1)]
    code += [lbu(t3, 5, t1), andi(t3, t3, 1), beqz(t3, -8)]         # something has come
    code += [lbu(t2, 0, t1)]
    code += [lbu(t3, 5, t0), andi(t3, t3, 0x20), beqz(t3, -8)]      # the other port has sent what was before
    code += [sb(t2, 0, t0), beqz(0, -32)]
    path = os.path.join(directory, "copy.bin")
    with open(path, "wb") as file:
        file.write(struct.pack("<%dI" % len(code), *code))
    return path


class Console:
    """The guest's first port, on a unix socket that is there before the guest starts."""

    def __init__(self, directory, *more):
        path = os.path.join(directory, "console")
        self.vm = Monitored(directory, "-S", "-bios", guest(directory), "-serial", "unix:" + path + ",server=on,wait=off", *more)
        self.path = path

    def __enter__(self):
        self.vm.__enter__()
        self.stream = Stream(connect(self.path).detach())
        self.vm.qmp.ok("cont")
        return self

    def __exit__(self, *_):
        os.close(self.stream.fd)
        self.vm.__exit__()

    def hmp(self, line, answer=""):
        got = self.vm.qmp.ok("human-monitor-command", **{"command-line": line})
        check(answer in got if answer else got == "", line, got)


def mouse(directory):
    with Console(directory, "-chardev", "msmouse,id=m", "-serial", "chardev:m") as guest_console:
        guest_console.stream.expect(b"M3\x08\x01\x24")
        guest_console.stream.expect(b"\x09")
        guest_console.hmp("mouse_move 5 -3")
        guest_console.stream.expect(b"\x4c\x05\x3d")
        guest_console.hmp("mouse_button 1")
        guest_console.stream.expect(b"\x60\x00\x00")
        guest_console.hmp("mouse_button 2")
        guest_console.stream.expect(b"\x40\x00\x00\x40\x00\x00\x20")
        guest_console.hmp("mouse_move x 1", "'x' is not a number")
        guest_console.hmp("tablet_move 1 1", "there is no tablet")


def tablet(directory):
    with Console(directory, "-chardev", "wctablet,id=w", "-serial", "chardev:w") as guest_console:
        guest_console.stream.expect(b"\\96,N,8,1(\x01\x24WAC0045\\\\PEN\\WAC0000\\Tablet\r\nCT-0045R,V1.3-5\r\nE7)")
        guest_console.hmp("tablet_move 100 100")
        guest_console.hmp("mouse_move 1 1", "there is no mouse")
        check(guest_console.stream.silent(0.2), "nobody has started the tablet")


def hub(directory):
    """One guest, three consoles: what it says goes to all, what any types comes in."""
    one, two = os.path.join(directory, "one"), os.path.join(directory, "two")
    options = ("-chardev", "socket,id=a,path=" + one + ",server=on,wait=off", "-chardev", "ringbuf,id=b")
    with Monitored(directory, *options, "-chardev", "hub,id=h,chardevs.0=a,chardevs.1=b", "-serial", "chardev:h") as vm:
        first = Stream(connect(one).detach())
        first.send("through the hub\r")
        first.expect("through the hub\r\nthrough the hub\r\n> ")
        check("through the hub" in vm.qmp.ok("ringbuf-read", device="b", size=65536), "the ring buffer lacks it")
        vm.qmp.ok("chardev-add", id="c", backend={"type": "ringbuf", "data": {}})
        vm.qmp.ok("chardev-add", id="h2", backend={"type": "hub", "data": {"chardevs": ["c"]}})
        vm.qmp.fails("chardev-add", id="h3", backend={"type": "hub", "data": {"chardevs": ["h2"]}})
        vm.qmp.fails("chardev-add", id="h3", backend={"type": "hub", "data": {"chardevs": "c"}})
        os.close(first.fd)


if __name__ == "__main__":
    run_all([mouse, tablet, hub])
