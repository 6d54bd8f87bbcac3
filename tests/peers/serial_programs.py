#!/usr/bin/python3
"""serial on a pair of terminals that socat joins: pyserial, picocom and stty query its settings and transfer bytes."""
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from relaying import RELAY, Tally, until  # noqa: E402

NEEDED = ("socat", "picocom", "stty")
EVERY_BYTE = bytes(range(256)) + b"\xff\xff\x00\x00\xff\x00\x00"


class Program:
    def __init__(self, *args, **more):
        self.process = subprocess.Popen(args, bufsize=0, **more)

    def runs(self):
        assert self.process.poll() is None, "%s has ended with %s" % (self.process.args[0], self.process.returncode)

    def end(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end(signal.SIGKILL)


class Cable(Program):
    """Two terminals, joined."""

    def __init__(self, directory):
        self.a, self.b = os.path.join(directory, "a"), os.path.join(directory, "b")
        super().__init__("socat", "pty,raw,echo=0,link=" + self.a, "pty,raw,echo=0,link=" + self.b)
        until(lambda: os.path.exists(self.a) and os.path.exists(self.b) or self.runs(), "socat's terminals", 10)


class Relay(Program):
    """Between a terminal and our pipes."""

    def __init__(self, path, more=""):
        super().__init__(RELAY, "--keep", "stdio", "serial,path=%s%s" % (path, more), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def say(self, data):
        self.process.stdin.write(data)

    def hear(self, size):
        return hear(self.process.stdout.fileno(), size)

    def __exit__(self, *_):
        super().__exit__()
        self.process.stdin.close()
        self.process.stdout.close()


def hear(fd, size, seconds=60):
    data = b""
    while len(data) < size:
        assert select.select([fd], [], [], seconds)[0], "heard only %r" % data
        more = os.read(fd, size - len(data))
        assert more, "it ended after %r" % data
        data += more
    return data


def hear_until(fd, word, seconds=10):
    data = b""
    while word not in data:
        data += hear(fd, 1, seconds)
    return data


def is_raw(path):
    """Whether the chardev has made the terminal its own: it alone marks what comes in."""
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        return bool(termios.tcgetattr(fd)[0] & termios.PARMRK)
    finally:
        os.close(fd)


def with_pyserial(directory):
    import serial
    with Cable(directory) as cable, Relay(cable.a) as relay:
        until(lambda: is_raw(cable.a), "the line's settings", 10)
        with serial.Serial(cable.b, 115200, timeout=60) as port:
            port.write(EVERY_BYTE)
            assert relay.hear(len(EVERY_BYTE)) == EVERY_BYTE
            relay.say(EVERY_BYTE)
            assert port.read(len(EVERY_BYTE)) == EVERY_BYTE
            data = os.urandom(50000)
            for at in range(0, len(data), 1000):
                port.write(data[at:at + 1000])
                assert relay.hear(1000) == data[at:at + 1000], "from byte %d on" % at
                relay.say(data[at:at + 1000])
                assert port.read(1000) == data[at:at + 1000], "from byte %d on, back" % at


def with_picocom(directory):
    """A person at the other end, at a terminal of their own."""
    with Cable(directory) as cable, Relay(cable.a) as relay:
        until(lambda: is_raw(cable.a), "the line's settings", 10)
        keyboard, slave = pty.openpty()
        with Program("picocom", "-q", "-b", "115200", cable.b, stdin=slave, stdout=slave, stderr=slave) as picocom:
            os.close(slave)
            until(lambda: not termios.tcgetattr(keyboard)[3] & termios.ICANON or picocom.runs(), "picocom's terminal", 10)
            relay.say(b"login: ")
            hear_until(keyboard, b"login: ")
            os.write(keyboard, b"root\r")
            assert relay.hear(5) == b"root\r"
            os.write(keyboard, b"\x01\x18")
            picocom.process.wait(10)
        os.close(keyboard)


def as_stty_sees_it(directory):
    with Cable(directory) as cable:
        subprocess.run(["stty", "-F", cable.a, "300", "cooked", "echo", "ixon", "crtscts", "-parmrk"], check=True)
        with Relay(cable.a):
            until(lambda: is_raw(cable.a), "the line's settings", 10)
            said = subprocess.run(["stty", "-F", cable.a, "-a"], check=True, stdout=subprocess.PIPE).stdout.decode()
            assert "speed 115200 baud" in said, said
            words = said.replace(";", " ").split()
            for word in "cs8 cread clocal -parenb -cstopb -crtscts -ixon -ixoff -icrnl -inlcr -igncr -istrip -ignbrk -brkint parmrk inpck " \
                        "-opost -isig -icanon -iexten -echo".split():
                assert word in words, word + " is not among " + said


def unplugged_and_back(directory):
    with Cable(directory) as cable, Relay(cable.a, ",reconnect-ms=50") as relay:
        for turn in range(3):
            until(lambda: os.path.exists(cable.a) and is_raw(cable.a), "the line's settings", 10)
            with open(cable.b, "r+b", buffering=0) as port:
                relay.say(b"out %d" % turn)
                assert hear(port.fileno(), 5) == b"out %d" % turn
                port.write(b"in %d" % turn)
                assert relay.hear(4) == b"in %d" % turn
            cable.end()
            until(lambda: not os.path.lexists(cable.a), "socat's links to go", 10)
            time.sleep(0.2)
            relay.runs()
            cable = Cable(directory)
        cable.end()


def unplugged_for_good(directory):
    """Without reconnect-ms the line is gone, and the relay with it."""
    with Cable(directory) as cable:
        relay = Program(RELAY, "serial,path=" + cable.a, "null")
        until(lambda: is_raw(cable.a) or relay.runs(), "the line's settings", 10)
        cable.end()
        assert relay.process.wait(10) == 0


def at_both_ends(directory):
    """A serial line on a serial line: what goes into the far end of the one comes out of the far end of the other."""
    os.mkdir(os.path.join(directory, "1")), os.mkdir(os.path.join(directory, "2"))
    with Cable(os.path.join(directory, "1")) as one, Cable(os.path.join(directory, "2")) as two, \
            Program(RELAY, "serial,path=" + one.a, "serial,path=" + two.a):
        until(lambda: is_raw(one.a) and is_raw(two.a), "the lines' settings", 10)
        with open(one.b, "r+b", buffering=0) as left, open(two.b, "r+b", buffering=0) as right:
            for sender, receiver in ((left, right), (right, left)):
                sender.write(EVERY_BYTE)
                assert hear(receiver.fileno(), len(EVERY_BYTE)) == EVERY_BYTE


def main():
    missing = [name for name in NEEDED if not shutil.which(name)]
    try:
        import serial  # noqa: F401
    except ImportError:
        missing.append("python3-serial")
    if missing:
        print("needs " + ", ".join(missing))
        sys.exit(77)
    tally = Tally()
    for case in (with_pyserial, with_picocom, as_stty_sees_it, unplugged_and_back, unplugged_for_good, at_both_ends):
        tally.run(case.__name__, case)
    tally.end()


main()
