#!/usr/bin/python3
"""pyserial's rfc2217:// is the client of our com-port server: a program under a script's control, the relay with a serial line
behind it, and a guest's 16550."""
import os
import signal
import struct
import subprocess
import sys
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from probing import BUILD, LIMIT, Tally, build_probe, need, free_port, server, skip, wait_for_port  # noqa: E402

try:
    import serial
except ImportError:
    skip("there is no python3-serial")

EVERY_BYTE = bytes(range(256)) + b"\xff\xff\r\0\r\n\xff"


def open_port(port, **settings):
    return serial.serial_for_url("rfc2217://127.0.0.1:%d?timeout=10" % port, timeout=LIMIT, **settings)


def until(condition, what):
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "waited in vain: " + what
        time.sleep(0.01)


def settings(directory):
    """Each setting arrives, and pyserial is content with each answer (it compares); two clients, one after the other."""
    probe, port = server("telnet", ",com-port=on")
    for _ in range(2):
        with open_port(port, baudrate=9600, bytesize=7, parity="E", stopbits=2) as client:
            probe.expect("opened")
            probe.until("serial 9600 E 7 2 0 160")
            client.baudrate = 65535  # holds 0xff
            probe.until("serial 65535 E 7 2 0 160")
            client.parity = "O"
            probe.until("serial 65535 O 7 2 0 160")
            client.parity = "M"
            probe.until("serial 65535 M 7 2 0 160")
            client.parity = "S"
            probe.until("serial 65535 S 7 2 0 160")
            client.bytesize, client.stopbits, client.parity = 5, 1.5, "N"
            probe.until("serial 65535 N 5 15 0 160")
            client.stopbits = 1
            probe.until("serial 65535 N 5 1 0 160")
            client.rtscts = True
            probe.until("serial 65535 N 5 1 2 160")
            client.rtscts = False
            client.xonxoff = True
            probe.until("serial 65535 N 5 1 1 160")
            client.dtr = False
            probe.until("serial 65535 N 5 1 1 20")
            client.rts = False
            probe.until("serial 65535 N 5 1 1 0")
            client.dtr = True
            probe.until("serial 65535 N 5 1 1 140")
            client.send_break(0.01)
            probe.expect("break")
            client.reset_input_buffer()
            probe.expect("purged receive")
            client.reset_output_buffer()
            probe.expect("purged transmit")
            client.write(EVERY_BYTE)
            probe.data(EVERY_BYTE)
            probe.write(EVERY_BYTE)
            assert client.read(len(EVERY_BYTE)) == EVERY_BYTE
            client.xonxoff = False
        probe.expect("serial 65535 N 5 1 0 140")
        probe.expect("closed")
    probe.close()


def refuse(client, name, value):
    before = getattr(client, name)
    try:
        setattr(client, name, value)
        raise AssertionError("%s=%s was not refused" % (name, value))
    except ValueError:
        setattr(client, name, before)


def refused_settings(directory):
    """What a chardev can't have is answered with what it has, which pyserial calls an error."""
    probe, port = server("telnet", ",com-port=on")
    with open_port(port) as client:
        refuse(client, "baudrate", 5000000)
        client.baudrate = 300
        probe.until("serial 300 N 8 1 0 160")
    probe.close()


def modem_state(directory):
    """Told when it changes, and read back by a poll."""
    probe, port = server("telnet", ",com-port=on")
    probe.say("lines 6")
    for url in ("rfc2217://127.0.0.1:%d?timeout=10", "rfc2217://127.0.0.1:%d?timeout=10&poll_modem"):
        with serial.serial_for_url(url % port, timeout=LIMIT) as client:
            seen = lambda: (client.cts, client.dsr, client.ri, client.cd)
            until(lambda: seen() == (True, True, False, True), "DTR and RTS through a null modem")
            for lines, want in (("2", (False, True, False, True)), ("80", (False, False, True, False)), ("120", (True, True, False, False)),
                                ("0", (False, False, False, False)), ("6", (True, True, False, True))):
                probe.say("lines " + lines)
                until(lambda: seen() == want, "lines " + lines)
    probe.close()


class Cable:
    """Two terminals that socat joins; the relay has one end."""

    def __init__(self, directory):
        self.a, self.b = os.path.join(directory, "a"), os.path.join(directory, "b")
        self.socat = subprocess.Popen(["socat", "pty,raw,echo=0,link=" + self.a, "pty,raw,echo=0,link=" + self.b])
        until(lambda: os.path.exists(self.a) and os.path.exists(self.b), "socat's terminals")

    def look(self):
        """Speed, two stop bits, hardware flow control, software flow control."""
        fd = os.open(self.a, os.O_RDWR | os.O_NOCTTY)
        try:
            iflag, _, cflag, _, _, speed, _ = termios.tcgetattr(fd)
            return speed, bool(cflag & termios.CSTOPB), bool(cflag & termios.CRTSCTS), bool(iflag & termios.IXON)
        finally:
            os.close(fd)

    def end(self):
        self.socat.terminate()
        self.socat.wait(LIMIT)


def relay_to_a_serial_line(directory):
    """The client's settings are the terminal's behind the relay."""
    port = free_port()
    cable = Cable(directory)
    relay = subprocess.Popen([os.path.join(BUILD, "relay"), "--keep", "telnet:127.0.0.1:%d,server=on,wait=off,com-port=on" % port,
                              "serial,path=" + cable.a])
    try:
        wait_for_port(port)
        with open_port(port, baudrate=9600, stopbits=2, rtscts=True) as client, open(cable.b, "r+b", buffering=0) as far:
            until(lambda: cable.look() == (termios.B9600, True, True, False), "the first settings")
            client.baudrate, client.stopbits, client.rtscts, client.xonxoff = 57600, 1, False, True
            until(lambda: cable.look() == (termios.B57600, False, False, True), "other settings")
            client.xonxoff = False
            for name, value in (("bytesize", 5), ("bytesize", 6), ("bytesize", 7), ("parity", "E"), ("parity", "M"), ("stopbits", 1.5)):
                for _ in range(3):
                    refuse(client, name, value)  # a pty has none of these, and says so each time
            client.send_break(0.01)
            client.write(b"there\xff")
            got = b""
            while len(got) < 6:
                got += far.read(6 - len(got))
            assert got == b"there\xff", got
            far.write(b"and back\xff")
            assert client.read(9) == b"and back\xff"
            assert relay.poll() is None
    finally:
        relay.terminate()
        relay.wait(LIMIT)
        cable.end()


def purge(directory):
    """What waits in the relay and in the terminal goes; what is written after it arrives."""
    port = free_port()
    far, near = os.openpty()
    relay = subprocess.Popen([os.path.join(BUILD, "relay"), "--keep", "telnet:127.0.0.1:%d,server=on,wait=off,com-port=on" % port,
                              "serial,path=" + os.ttyname(near)])
    try:
        wait_for_port(port)
        with open_port(port) as client:
            client.write(b"x" * 50000)  # the terminal takes a few thousand
            client.reset_output_buffer()
            client.write(b"new")
            got = b""
            while not got.endswith(b"new"):
                got += os.read(far, 65536)
            assert len(got) < 20000, len(got)
            assert not got.strip(b"x").strip(b"new"), got
    finally:
        relay.terminate()
        relay.wait(LIMIT)
        os.close(far)
        os.close(near)


def guest(directory):
    """Sets its second port to 4800 7E2 with DTR, and whenever the upper half of MSR changes writes it to the first port; then it sends a break."""
    t0, t1, t2, t3, t4 = 5, 6, 7, 28, 29
    lbu = lambda rd, at, base: at << 20 | base << 15 | 4 << 12 | rd << 7 | 0x03
    sb = lambda rs, at, base: (at >> 5) << 25 | rs << 20 | base << 15 | (at & 31) << 7 | 0x23
    addi = lambda rd, base, value: (value & 0xfff) << 20 | base << 15 | rd << 7 | 0x13
    andi = lambda rd, base, value: value << 20 | base << 15 | 7 << 12 | rd << 7 | 0x13
    put = lambda value, reg: [addi(t2, 0, value), sb(t2, reg, t1)]

    def beq(one, other, by):
        by &= 0x1fff
        return (by >> 12) << 31 | (by >> 5 & 63) << 25 | other << 20 | one << 15 | (by >> 1 & 15) << 8 | (by >> 11 & 1) << 7 | 0x63

    code = [0x10000000 | t0 << 7 | 0x37, addi(t1, t0, 0x100)]
    code += put(0x80, 3) + put(24, 0) + put(0, 1) + put(0x1e, 3) + put(1, 4) + [addi(t4, 0, 0)]
    loop = [lbu(t3, 6, t1), andi(t3, t3, 0xf0), beq(t3, t4, -8), addi(t4, t3, 0), lbu(t2, 5, t0), andi(t2, t2, 0x20), beq(t2, 0, -8),
            sb(t3, 0, t0)] + put(0x5e, 3) + put(0x1e, 3)
    code += loop + [beq(0, 0, -4 * len(loop))]
    path = os.path.join(directory, "lines.bin")
    with open(path, "wb") as file:
        file.write(struct.pack("<%dI" % len(code), *code))
    return path


def tinyvm_is_the_port(directory):
    """A guest sees the client's DTR and RTS in MSR, and what it sets is in force: its own settings answer a question, and its DTR is told."""
    port = free_port()
    vm = subprocess.Popen([os.path.join(BUILD, "tinyvm"), "-bios", guest(directory), "-serial", "stdio",
                           "-serial", "telnet:127.0.0.1:%d,server=on,wait=off,com-port=on" % port],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    msr = lambda: vm.stdout.read(1)[0]
    try:
        wait_for_port(port)
        with open_port(port) as client:
            until(lambda: (client.cts, client.dsr, client.cd) == (False, True, True), "the guest's DTR")
            client.rts = False
            while msr() != 0xa0:  # what was before: nobody, somebody who went, both of the client's lines
                pass
            client.dtr = False
            assert msr() == 0
            client.rts = True
            assert msr() == 0x10
            client.rts = client.dtr = True
            assert msr() == 0xb0
    finally:
        vm.terminate()
        vm.wait(LIMIT)
        vm.stdin.close()
        vm.stdout.close()


def tinyvm_has_its_port_elsewhere(directory):
    """The other way round: divisor, LCR and MCR of the guest arrive at a server, its break too, and the server's lines come back."""
    probe, port = server("telnet", ",com-port=on")
    probe.say("lines 0")
    vm = subprocess.Popen([os.path.join(BUILD, "tinyvm"), "-bios", guest(directory), "-serial", "stdio",
                           "-serial", "telnet:127.0.0.1:%d,com-port=on" % port], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    msr = lambda: vm.stdout.read(1)[0]
    try:
        probe.expect("opened")
        probe.until("serial 4800 E 7 2 0 140")
        got = -1
        while got != 0:  # ready at first, as long as it is not known
            got = msr()
        probe.say("lines 4")
        assert msr() == 0x10
        probe.until("break")
        probe.say("lines e0")
        assert msr() == 0xd0
        probe.until("break")
    finally:
        vm.terminate()
        vm.wait(LIMIT)
        vm.stdin.close()
        vm.stdout.close()
    probe.close()


signal.alarm(int(8 * LIMIT))  # whatever hangs
need("socat")
build_probe()
tally = Tally()
for each in (settings, refused_settings, modem_state, relay_to_a_serial_line, purge, tinyvm_is_the_port, tinyvm_has_its_port_elsewhere):
    tally.run(each)
tally.end()
