#!/usr/bin/python3
"""relay.exe under Wine on a serial line that is a Linux pty: its settings, hang-up, and reopening."""
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
import tty

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from windows import LIMIT, PREFIX, STARTED, WINE, Program, Skipped, free_port, has_backend, need_exes, run, run_all, skip, until  # noqa: E402

need_exes("relay")
if not has_backend("serial"):
    skip("relay.exe has no serial")

EVERY_BYTE = bytes(range(256)) * 40 + b"\xff\0\0\xff\xff\r\n\x11\x13"


class Line:
    """A pty with a link to its slave: the port. `far` is its other end."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "port")
        self.far = self.slave = None
        self.plug()

    def plug(self):
        self.far, self.slave = pty.openpty()
        tty.setraw(self.slave)
        # It is a session's terminal already: Wine's server would take it as its own, and end when it hangs up.
        STARTED.append(subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL, preexec_fn=self.own))
        os.set_blocking(self.far, False)
        if os.path.lexists(self.path):
            os.unlink(self.path)
        os.symlink(os.ttyname(self.slave), self.path)

    def own(self):
        os.setsid()
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

    def unplug(self):
        os.unlink(self.path)
        os.close(self.slave)
        os.close(self.far)

    def port(self):
        return "\\\\?\\unix" + self.path.replace("/", "\\")

    def settings(self):
        return termios.tcgetattr(self.slave)

    def hear(self, size):
        data, deadline = b"", time.monotonic() + LIMIT
        while len(data) < size:
            assert time.monotonic() < deadline, "%d bytes of %d came" % (len(data), size)
            if select.select([self.far], [], [], 0.1)[0]:
                data += os.read(self.far, size - len(data))
        return data

    def say(self, data):
        while data:
            select.select([], [self.far], [], LIMIT)
            data = data[os.write(self.far, data[:1000]):]


def both_ways(directory):
    """Every byte, and what the line is set to."""
    line = Line(directory)
    with Program("relay", "serial,path=" + line.port(), "stdio", stdio=True) as relay:
        relay.process.stdin.write(b"first")
        assert line.hear(5) == b"first"
        iflag, oflag, cflag, lflag, ispeed, ospeed, _ = line.settings()
        assert ospeed == termios.B115200, "speed code %d" % ospeed
        assert not lflag & (termios.ECHO | termios.ICANON | termios.ISIG), "lflag %o" % lflag
        assert not oflag & termios.OPOST and not iflag & (termios.IXON | termios.IXOFF | termios.ICRNL), "iflag %o" % iflag
        assert cflag & termios.CSIZE == termios.CS8
        line.say(EVERY_BYTE)
        got = b""
        while len(got) < len(EVERY_BYTE):
            got += relay.process.stdout.read(len(EVERY_BYTE) - len(got))
        assert got == EVERY_BYTE, "what came in differs"
        data = EVERY_BYTE.replace(b"\r", b"")  # standard input is text here
        relay.process.stdin.write(data)
        assert line.hear(len(data)) == data, "what went out differs"
        relay.rests()


def by_its_number(directory):
    """COM77 and \\\\.\\COM77, as the registry says which line that is; another number is no port."""
    line = Line(directory)
    link = os.path.join(PREFIX, "dosdevices", "com77")
    if os.path.lexists(link):
        os.unlink(link)
    os.symlink(line.path, link)
    try:
        for name in ("COM77", "com77", "\\\\.\\COM77", "serial,path=COM77"):
            with Program("relay", name, "stdio", stdio=True) as relay:
                relay.process.stdin.write(b"by name")
                assert line.hear(7) == b"by name", name
    finally:
        os.unlink(link)
    status, _, said = run("relay", "COM78", "null")
    assert status == 2 and said == "relay: COM78: serial: cannot open COM78: there is no such port\n", said


def hang_up(directory):
    """The last words come, then the end; the status is that of an ordinary end."""
    line = Line(directory)
    with Program("relay", line.port(), "stdio", stdio=True) as relay:
        relay.process.stdin.write(b"x")
        assert line.hear(1) == b"x"
        line.say(b"last words")
        until(lambda: not unread(line.slave), "the last words are read")
        line.unplug()
        got = relay.process.stdout.read()
        assert got == b"last words", "%r came: %s" % (got, relay.stderr())


def hang_up_while_the_line_is_waited_for(directory):
    """The waits of a line that goes are over before their memory is freed: the driver would write into it."""
    for _ in range(12):
        line = Line(directory)
        with Program("relay", line.port(), "stdio", stdio=True) as relay:
            relay.process.stdin.write(b"x")
            assert line.hear(1) == b"x"
            line.say(b"cut off")
            line.unplug()
            relay.process.stdout.read()
            assert relay.process.wait(LIMIT) == 0 and relay.stderr() == "", relay.stderr()


def unread(fd):
    select.select([fd], [], [], 0)  # what the far side has written is on its way in the kernel until somebody looks for it
    return struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, struct.pack("i", 0)))[0]


def comes_back(directory):
    """With reconnect-ms; it waits without spinning, and says once why."""
    line = Line(directory)
    with Program("relay", "--keep", "serial,reconnect-ms=100,path=" + line.port(), "stdio", stdio=True) as relay:
        for turn in range(3):
            data = b"turn %d" % turn
            relay.process.stdin.write(data)
            assert line.hear(len(data)) == data
            line.say(data)
            assert relay.process.stdout.read(len(data)) == data
            line.unplug()
            time.sleep(0.4)
            if turn == 0:
                relay.rests(most=10)
            line.plug()
            until(lambda: line.settings()[5] == termios.B115200 and not line.settings()[3] & termios.ECHO and opened(line), "it is open again")
        assert relay.stderr().count("there is no such port") <= 3, relay.stderr()


def opened(line):
    """Whether another process has the slave open."""
    target = os.ttyname(line.slave)
    for process in filter(str.isdigit, os.listdir("/proc")):
        if int(process) == os.getpid():
            continue
        try:
            for fd in os.listdir("/proc/%s/fd" % process):
                if os.readlink("/proc/%s/fd/%s" % (process, fd)) == target:
                    return True
        except OSError:
            pass
    return False


def settings(directory):
    """pyserial sets the port over the network (RFC 2217); the line has what it asks for, as far as a pty can."""
    try:
        import serial
    except ImportError:
        raise Skipped("there is no python3-serial") from None
    line, port = Line(directory), free_port()
    with Program("relay", "--keep", "telnet:127.0.0.1:%d,server=on,wait=off,com-port=on" % port, line.port()) as relay:
        relay.listens(port)
        with serial.serial_for_url("rfc2217://127.0.0.1:%d?timeout=10" % port, timeout=LIMIT, baudrate=9600, stopbits=2) as client:
            until(lambda: line.settings()[5] == termios.B9600, "9600 bits a second")
            until(lambda: line.settings()[2] & termios.CSTOPB, "two stop bits")
            client.baudrate = 57600
            until(lambda: line.settings()[5] == termios.B57600, "57600 bits a second")
            client.stopbits = 1
            until(lambda: not line.settings()[2] & termios.CSTOPB, "one stop bit")
            client.xonxoff = True
            until(lambda: line.settings()[0] & termios.IXON and line.settings()[0] & termios.IXOFF, "XON/XOFF")
            client.xonxoff = False
            until(lambda: not line.settings()[0] & (termios.IXON | termios.IXOFF), "no flow control")
            client.write(b"over the network")
            assert line.hear(16) == b"over the network"
            line.say(b"and back")
            assert client.read(8) == b"and back"
            client.break_condition = True
            client.break_condition = False
            line.say(b"!")
            assert client.read(1) == b"!"


def what_is_none(directory):
    """A file is no line, nor is nothing; one line of text each."""
    path = os.path.join(directory, "file")
    open(path, "w").close()
    for name, text in ((path, "is not a terminal or another character device"), (path + "x", "there is no such port")):
        status, _, said = run("relay", "serial,path=\\\\?\\unix" + name.replace("/", "\\"), "null")
        assert status == 2 and text in said and said.count("\n") == 1, said


if subprocess.run([WINE, "--version"], stdout=subprocess.DEVNULL, check=False).returncode != 0:
    skip("Wine does not start")
run_all([both_ways, by_its_number, hang_up, hang_up_while_the_line_is_waited_for, comes_back, settings, what_is_none])
