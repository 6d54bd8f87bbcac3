#!/usr/bin/python3
"""udp against real programs: socat, nc, QEMU's own udp chardev, Python's sockets, and chardev.h's own udp."""
import os
import shutil
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from relaying import RELAY, Tally, until  # noqa: E402

NEEDED = ("socat", "nc", "qemu-system-x86_64")


def free_port(family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        return probe.getsockname()[1]


def is_bound(port):
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        with open(table) as lines:
            if any(line.split()[1].endswith(":%04X" % port) for line in list(lines)[1:]):
                return True
    return False


class Program:
    """Something with a standard input and output, ended by its pid."""

    def __init__(self, *args, port=None):
        self.process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        if port:
            until(lambda: is_bound(port) or self.has_ended(), "%s on port %d" % (args[0], port), 10)

    def has_ended(self):
        assert self.process.poll() is None, "%s has ended with %s" % (self.process.args[0], self.process.returncode)

    def say(self, data):
        self.process.stdin.write(data)

    def hear(self, size):
        """Exactly so many bytes."""
        data = b""
        while len(data) < size:
            assert wait_readable(self.process.stdout), "heard only %r" % data
            more = self.process.stdout.read(size - len(data))
            assert more, "it ended after %r" % data
            data += more
        return data

    def hear_until(self, word):
        data = b""
        while word not in data:
            data += self.hear(1)
        return data

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def wait_readable(file, seconds=10):
    import select
    return bool(select.select([file], [], [], seconds)[0])


def nc_listens(_):
    port, local = free_port(), free_port()
    with Program("nc", "-u", "-l", "127.0.0.1", str(port), port=port) as nc, \
            Program(RELAY, "stdio", "udp:127.0.0.1:%d@127.0.0.1:%d" % (port, local), port=local) as relay:
        relay.say(b"to nc\n")
        assert nc.hear(6) == b"to nc\n"
        nc.say(b"from nc\n")
        assert relay.hear(8) == b"from nc\n"


def nc_calls(_):
    """nc knocks first: our local port is where it finds us."""
    port, local = free_port(), free_port()
    with Program(RELAY, "stdio", "udp:127.0.0.1:%d@:%d" % (port, local), port=local) as relay, \
            Program("nc", "-u", "-p", str(port), "127.0.0.1", str(local), port=port) as nc:
        nc.say(b"knock\n")
        assert relay.hear(6) == b"knock\n"
        relay.say(b"come in\n")
        assert nc.hear(8) == b"come in\n"


def socat_echoes(_):
    """Every size of datagram, through the kernel and socat and back."""
    port, local = free_port(), free_port()
    with Program("socat", "-b65536", "UDP4-LISTEN:%d,bind=127.0.0.1" % port, "PIPE", port=port), \
            Program(RELAY, "stdio", "udp:127.0.0.1:%d@:%d" % (port, local), port=local) as relay:
        for size in (1, 2, 255, 1500, 4096, 9000, 32768):
            data = os.urandom(size)
            relay.say(data)
            assert relay.hear(size) == data, "%d bytes" % size


def boundaries_at_socat(directory):
    """UDP4-RECVFROM,fork runs its program once per datagram."""
    port, local, out = free_port(), free_port(), os.path.join(directory, "out")
    with Program("socat", "-u", "UDP4-RECVFROM:%d,bind=127.0.0.1,fork" % port, "SYSTEM:(cat; echo '|') >> %s" % out, port=port), \
            Program(RELAY, "stdio", "udp:127.0.0.1:%d@:%d" % (port, local), port=local) as relay:
        for number, word in enumerate((b"one", b"two", b"three")):
            relay.say(word)
            until(lambda n=number: os.path.exists(out) and open(out).read().count("|") == n + 1, "datagram %d" % number, 10)
        assert open(out).read().split("|\n")[:3] == ["one", "two", "three"]


def python_ipv6(_):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        peer.bind(("::1", 0))
        peer.settimeout(60)
        local = free_port(socket.AF_INET6)
        with Program(RELAY, "stdio", "udp:[::1]:%d@[::1]:%d" % (peer.getsockname()[1], local), port=local) as relay:
            relay.say(b"six")
            data, source = peer.recvfrom(100)
            assert data == b"six" and source[1] == local
            for word in (b"", b"a", b"", b"bc"):
                peer.sendto(word, source)
            assert relay.hear(3) == b"abc"


def peer_goes_and_returns(_):
    """While nobody is at the port the kernel is told so (ICMP); who comes there later is heard and hears."""
    local = free_port()
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind(("127.0.0.1", 0))
    port = peer.getsockname()[1]
    with Program(RELAY, "stdio", "udp:127.0.0.1:%d@127.0.0.1:%d" % (port, local), port=local) as relay:
        for turn in range(5):
            peer.settimeout(60)
            relay.say(b"hello")
            assert peer.recv(100) == b"hello", "turn %d" % turn
            peer.sendto(b"answer", ("127.0.0.1", local))
            assert relay.hear(6) == b"answer", "turn %d" % turn
            peer.close()
            for _ in range(3):
                relay.say(b"lost")
                until(lambda: queued(relay) == 0, "the relay to read")
            relay.has_ended()
            peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            peer.bind(("127.0.0.1", port))
            peer.settimeout(0.2)
            try:  # the last one may have been on its way still
                peer.recv(100)
            except socket.timeout:
                pass
        assert ticks(relay) < 50, "it spins"
        peer.close()


def queued(program):
    """What it hasn't read yet of its standard input."""
    import fcntl
    import struct
    import termios
    return struct.unpack("i", fcntl.ioctl(program.process.stdin, termios.FIONREAD, b"\0" * 4))[0]


def ticks(program):
    with open("/proc/%d/stat" % program.process.pid) as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def qemu_monitor(_):
    """QEMU's human monitor on its udp chardev, driven through ours."""
    theirs, ours = free_port(), free_port()
    qemu = ("qemu-system-x86_64", "-M", "none", "-display", "none", "-nodefaults", "-chardev",
            "udp,id=m,host=127.0.0.1,port=%d,localaddr=127.0.0.1,localport=%d" % (ours, theirs), "-mon", "chardev=m")
    with Program(RELAY, "stdio", "udp:127.0.0.1:%d@127.0.0.1:%d" % (theirs, ours), port=ours) as relay, \
            Program(*qemu, port=theirs):
        relay.say(b"info chardev\n")  # it greets nobody on udp
        assert b"\nm: filename=udp" in relay.hear_until(b"\n(qemu) ")


def us_to_us(directory):
    """Two relays, a unix socket at each outer end, datagrams between."""
    one, two = free_port(), free_port()
    left, right = os.path.join(directory, "left"), os.path.join(directory, "right")
    with Program(RELAY, "--keep", "unix:%s,server=on,wait=off" % left, "udp:127.0.0.1:%d@127.0.0.1:%d" % (two, one), port=one), \
            Program(RELAY, "--keep", "unix:%s,server=on,wait=off" % right, "udp:127.0.0.1:%d@127.0.0.1:%d" % (one, two), port=two):
        a, b = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        a.connect(left), b.connect(right)
        for size in (1, 100, 5000, 30000):
            for sender, receiver in ((a, b), (b, a)):
                data = os.urandom(size)
                sender.sendall(data)
                receiver.settimeout(10)
                got = b""
                while len(got) < size:
                    got += receiver.recv(size - len(got))
                assert got == data, "%d bytes" % size
        a.close(), b.close()


def main():
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing:
        print("needs " + ", ".join(missing))
        sys.exit(77)
    tally = Tally()
    for case in (nc_listens, nc_calls, socat_echoes, boundaries_at_socat, python_ipv6, peer_goes_and_returns, qemu_monitor, us_to_us):
        tally.run(case.__name__, case)
    tally.end()


main()
