"""What the relay tests share: the program under test, the peers at its two ends, and senders and receivers that count and hash."""
import hashlib
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import time

BUILD = os.environ.get("BUILD", "build")
RELAY = os.path.join(BUILD, "relay")
LIMIT = float(os.environ.get("RELAY_SECONDS", "60"))  # for anything that is waited for
CHUNK = 1 << 18


def until(condition, what, limit=LIMIT):
    """Waits for a condition that nothing announces; a failure names it."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("waited in vain: " + what)
        time.sleep(0.005)


def listens(path):
    """Whether a server listens there: the path exists from bind() on, but until listen() a connection is refused."""
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as sockets:
        entries = [line.split() for line in sockets]
    return any(entry[7:] == [path] and entry[3] == "00010000" for entry in entries)


def exactly(peer, size):
    """That many bytes from a socket with a time limit, or fewer at its end."""
    data = b""
    while len(data) < size:
        more = peer.recv(size - len(data))
        if not more:
            break
        data += more
    return data


def scratch():
    return tempfile.mkdtemp(prefix="relay.")


class Relay:
    """The program, with its descriptors 0, 1 (pipes, when an end is stdio) and 2 (a file)."""

    def __init__(self, *args, fds=(), stdio=False):
        self.errors = tempfile.TemporaryFile()
        pipe = subprocess.PIPE if stdio else subprocess.DEVNULL
        self.process = subprocess.Popen([RELAY, *args], stdin=pipe, stdout=pipe, stderr=self.errors, pass_fds=fds, bufsize=0)

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")

    def ticks(self):
        with open("/proc/%d/stat" % self.process.pid) as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    def rests(self, seconds, most=3):
        """Costs no CPU time; what it had to do before may take a moment yet."""
        for _ in range(10):
            before = self.ticks()
            time.sleep(seconds)
            spent = self.ticks() - before
            if spent <= most:
                return
        raise AssertionError("the relay is busy: %d ticks" % spent)

    def ends(self, status=0, limit=LIMIT):
        try:
            got = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError("the relay doesn't end") from None
        assert got == status, "the relay's exit status is %s, not %s: %s" % (got, status, self.stderr())

    def runs(self):
        assert self.process.poll() is None, "the relay has ended with %s: %s" % (self.process.returncode, self.stderr())

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        self.ends(0)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.errors.close()


class Sender(threading.Thread):
    """Writes random bytes, and knows their hash."""

    def __init__(self, fd, size):
        super().__init__(daemon=True)
        self.fd, self.size, self.count, self.hash = fd, size, 0, hashlib.sha256()

    def run(self):
        while self.count < self.size:
            data = memoryview(os.urandom(min(CHUNK, self.size - self.count)))
            self.hash.update(data)
            while data:
                n = os.write(self.fd, data)
                self.count += n
                data = data[n:]


class Receiver(threading.Thread):
    """Reads exactly as many; `start_when` is an event that it stalls for."""

    def __init__(self, fd, size, start_when=None, grows=False):
        super().__init__(daemon=True)
        self.fd, self.size, self.count, self.hash = fd, size, 0, hashlib.sha256()
        self.start_when, self.grows = start_when, grows

    def run(self):
        if self.start_when:
            self.start_when.wait()
        while self.count < self.size:
            data = os.read(self.fd, min(CHUNK, self.size - self.count))
            if not data and not self.grows:
                return
            if not data:
                time.sleep(0.002)  # a file that the relay is still writing
            self.hash.update(data)
            self.count += len(data)


class End:
    """One side of the relay, seen from outside. `serve`: the relay listens; else it calls."""

    keeps = False           # the relay would end by itself too early: run it with --keep
    stdio = False
    closes_for_good = False  # when this peer leaves, the relay has lost its side

    def __init__(self, directory, name, size, serve):
        self.path = os.path.join(directory, name)
        self.size, self.serve, self.fds = size, serve, ()
        self.prepare()

    def prepare(self):
        pass

    def sender(self):
        return Sender(self.w, self.size)

    def receiver(self, start_when=None):
        return Receiver(self.r, self.size, start_when)

    def close(self):
        for fd in {self.r, self.w}:
            os.close(fd)


class SocketEnd(End):
    """Whoever listens does so before the relay starts, so that nobody has to wait for anybody."""

    def prepare(self):
        self.closes_for_good = not self.serve
        self.listener = self.listen()
        if self.serve:
            self.fds = (self.listener.fileno(),)
            self.arg = "socket,fd=%d,server=on,wait=off" % self.listener.fileno()

    def open(self, relay):
        if self.serve:
            self.socket = self.call()
            self.listener.close()
        else:
            self.listener.settimeout(LIMIT)
            self.socket = self.listener.accept()[0]
        self.socket.setblocking(True)
        self.r = self.w = self.socket.fileno()

    def close(self):
        self.socket.close()
        self.listener.close()


class Unix(SocketEnd):
    def listen(self):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(1)
        self.arg = "unix:" + self.path
        return listener

    def call(self):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(self.path)
        return peer


class Tcp(SocketEnd):
    def listen(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.arg = "socket,host=127.0.0.1,port=%d,nodelay=on" % self.port
        return listener

    def call(self):
        return socket.create_connection(("127.0.0.1", self.port))


class Pty(End):
    def prepare(self):
        self.arg = "pty,path=" + self.path

    def open(self, relay):
        until(lambda: os.path.exists(self.path) or relay.runs(), "the pty's link")
        self.r = self.w = os.open(self.path, os.O_RDWR | os.O_NOCTTY)


class Serial(End):
    """A line whose far end is the master of a pty."""

    closes_for_good = True

    def prepare(self):
        self.r, self.slave = pty.openpty()
        self.w = self.r
        self.arg = "serial,path=" + os.ttyname(self.slave)

    def open(self, relay):
        until(lambda: termios.tcgetattr(self.r)[0] & termios.PARMRK or relay.runs(), "the line's settings")
        os.close(self.slave)


class File(End):
    keeps = True  # its input ends while the other direction may still be under way

    def prepare(self):
        self.arg = "file,path=%s.out,input-path=%s.in" % (self.path, self.path)
        with open(self.path + ".in", "wb") as f:
            self.sent = Sender(f.fileno(), self.size)
            self.sent.run()

    def open(self, relay):
        until(lambda: os.path.exists(self.path + ".out") or relay.runs(), "the output file")
        self.r = self.w = os.open(self.path + ".out", os.O_RDONLY)

    def sender(self):
        self.sent.run = lambda: None
        return self.sent

    def receiver(self, start_when=None):
        return Receiver(self.r, self.size, start_when, grows=True)


class Pipe(End):
    def prepare(self):
        self.arg = "pipe:" + self.path
        os.mkfifo(self.path + ".in")
        os.mkfifo(self.path + ".out")

    def open(self, relay):
        self.w = os.open(self.path + ".in", os.O_WRONLY)  # blocks until the relay has opened it
        self.r = os.open(self.path + ".out", os.O_RDONLY)


class Stdio(End):
    stdio = closes_for_good = True
    arg = "stdio"

    def open(self, relay):
        self.w = relay.process.stdin.fileno()
        self.r = relay.process.stdout.fileno()
        self.relay = relay

    def close(self):
        self.relay.process.stdin.close()
        self.relay.process.stdout.close()


KINDS = {"unix": Unix, "tcp": Tcp, "pty": Pty, "serial": Serial, "file": File, "pipe": Pipe, "stdio": Stdio}


def move(a, b, relay, stall=False, while_stalled=None):
    """Full duplex between two open ends; with `stall` b reads nothing until all of its own bytes have arrived at a."""
    go = threading.Event()
    lanes = [(a.sender(), b.receiver(go if stall else None)), (b.sender(), a.receiver())]
    for sender, receiver in lanes:
        sender.start()
        receiver.start()
    if stall:
        wait_for(lanes[1], "b to a, while b stalls", relay)
        while_stalled(lanes[0])
        go.set()
    wait_for(lanes[0], "a to b", relay)
    wait_for(lanes[1], "b to a", relay)


def wait_for(lane, name, relay):
    sender, receiver = lane
    last, since = -1, time.monotonic()
    while sender.is_alive() or receiver.is_alive():
        (sender if sender.is_alive() else receiver).join(0.2)
        if receiver.count != last:
            last, since = receiver.count, time.monotonic()
        if time.monotonic() - since > LIMIT:
            relay.runs()
            raise AssertionError("%s stands still: %d sent, %d received" % (name, sender.count, receiver.count))
    assert receiver.count == sender.size, "%s: %d of %d bytes" % (name, receiver.count, sender.size)
    assert receiver.hash.digest() == sender.hash.digest(), name + ": the bytes differ"


class Tally:
    """Runs cases, prints what fails, ends with the summary line."""

    def __init__(self):
        self.passed = self.failed = 0

    def run(self, name, case, *args):
        directory = scratch()
        started = time.monotonic()
        try:
            note = case(directory, *args)
            self.passed += 1
            print("%s: ok, %.2f s%s" % (name, time.monotonic() - started, note or ""), flush=True)
        except (AssertionError, OSError) as error:
            self.failed += 1
            print("%s: FAIL: %s" % (name, error), flush=True)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def end(self):
        print("%d passed, %d failed, 0 skipped" % (self.passed, self.failed))
        sys.exit(1 if self.failed else 0)
