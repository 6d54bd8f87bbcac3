#!/usr/bin/python3
"""The guest's last line arrives: power-off, quit and Ctrl-A x wait for a slow reader that makes progress, and for no other."""
import os
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from vm import Qmp, Vm, check, connect, run_all, until

COUNT = 0x40000
POWER_OFF = [0x00100737, 0x000057b7, 0x55578793, 0x00f72023]  # the finisher gets 0x5555
FOREVER = [0x0000006f]
WRITES = [
    0x10000537,          # lui  a0, 0x10000       the UART
    0x000005b7 | COUNT,  # lui  a1, COUNT >> 12
    0x07800613,          # li   a2, 'x'
    0x00554683,          # again: lbu a3, 5(a0)
    0x0206f693,          # andi a3, a3, 0x20      room for a byte?
    0xfe068ce3,          # beqz a3, again
    0x00c50023,          # sb   a2, 0(a0)
    0xfff58593,          # addi a1, a1, -1
    0xfe0596e3,          # bnez a1, again
]


def guest(directory, words):
    path = os.path.join(directory, "guest")
    with open(path, "wb") as file:
        file.write(b"".join(struct.pack("<I", word) for word in words))
    return path


def read_slowly(peer, rate=400000):
    """All until the end, in longer than the two seconds that are waited without progress only when there is much."""
    got = bytearray()
    while True:
        data = peer.recv(8192)
        if not data:
            return bytes(got)
        got += data
        time.sleep(len(data) / rate)


def power_off(directory, options):
    path = os.path.join(directory, "s")
    with Vm("-bios", guest(directory, WRITES + POWER_OFF + FOREVER), "-serial", "unix:%s,server=on%s" % (path, options)) as vm:
        until(lambda: os.path.exists(path), "the socket")
        peer = connect(path)
        got = read_slowly(peer)
        check(got.count(b"x") == COUNT, "%d of %d bytes, %s" % (got.count(b"x"), COUNT, options))
        check(vm.status() == 0, vm.stderr())


def power_off_of_all(directory):
    for number, options in enumerate(("", ",obuf=64K", ",obuf=1M", ",telnet=on", ",telnet=on,obuf=1M")):
        sub = os.path.join(directory, str(number))
        os.mkdir(sub)
        power_off(sub, options)


def quit_with_output_waiting(directory):
    """The guest has written all of it into obuf= when the monitor says quit."""
    path, mon = os.path.join(directory, "s"), os.path.join(directory, "mon")
    with Vm("-bios", guest(directory, WRITES + FOREVER), "-serial", "unix:%s,server=on,obuf=1M" % path,
            "-chardev", "socket,id=m,path=%s,server=on,wait=off" % mon, "-mon", "chardev=m,mode=control") as vm:
        until(lambda: os.path.exists(path), "the socket")
        peer = connect(path)
        until(lambda: os.path.exists(mon), "the monitor")
        qmp = Qmp(connect(mon))
        qmp.greet()
        time.sleep(0.5)
        qmp.ok("quit")
        got = read_slowly(peer)
        check(len(got) == COUNT, "%d of %d bytes" % (len(got), COUNT))
        check(vm.status() == 0, vm.stderr())


def nobody_reads(directory, options=",obuf=1M"):
    """Two seconds and a half in all, and a word about it."""
    path = os.path.join(directory, "s%d" % len(options))
    with Vm("-bios", guest(directory, WRITES + POWER_OFF + FOREVER), "-serial", "unix:%s,server=on%s" % (path, options)) as vm:
        until(lambda: os.path.exists(path), "the socket")
        peer = connect(path)
        if "64K" in options:
            time.sleep(0.5)
            vm.process.terminate()
        started = time.monotonic()
        check(vm.status() == 0, vm.stderr())
        check(1.5 < time.monotonic() - started < 9, "it took %.1f s" % (time.monotonic() - started))
        check("not taken" in vm.stderr(), vm.stderr())
        peer.close()


def nobody_reads_and_the_queue_is_full(directory):
    """Neither is the UART's last byte taken: the waits do not add up."""
    nobody_reads(directory, ",obuf=64K")


run_all([power_off_of_all, quit_with_output_waiting, nobody_reads, nobody_reads_and_the_queue_is_full])
