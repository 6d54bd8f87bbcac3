"""What the tinyvm tests share: the program under test (or QEMU in its place), a QMP client, a terminal, and a tally."""
import array
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
import traceback
import tty

BUILD = os.environ.get("BUILD", "build")
TINYVM = os.path.join(BUILD, "tinyvm")
LIMIT = 60  # seconds for anything that is waited for


class Failure(Exception):
    pass


class Skipped(Exception):
    """This case can't run here; the text says why."""


def check(condition, *what):
    if not condition:
        raise Failure(" ".join(str(w) for w in what))


def until(condition, what, limit=LIMIT):
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise Failure("waited in vain: " + what)
        time.sleep(0.005)


class Process:
    """Runs a program with chosen descriptors; stderr goes to a file. Ends it by its pid, whatever happens."""

    def __init__(self, args, fds=(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **more):
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(args, stdin=stdin, stdout=stdout, stderr=self.errors, pass_fds=fds, bufsize=0, **more)
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")

    def status(self):
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise Failure("it doesn't end") from None

    def signal(self, number):
        self.process.send_signal(number)

    def cpu_ticks(self):
        with open("/proc/%d/stat" % self.pid) as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    def rests(self, most, meanwhile):
        """Whether it costs no more CPU time than that while something goes on; what it had to do before may take a moment yet."""
        for _ in range(10):
            before = self.cpu_ticks()
            meanwhile()
            spent = self.cpu_ticks() - before
            if spent <= most:
                return
        raise Failure("it is busy: %d ticks" % spent)

    def descriptors(self):
        return {fd: os.readlink("/proc/%d/fd/%s" % (self.pid, fd)) for fd in os.listdir("/proc/%d/fd" % self.pid)}


class Vm(Process):
    def __init__(self, *args, **more):
        super().__init__([TINYVM, *args], **more)


class Stream:
    """Bytes from a descriptor, with a memory: expect() takes everything up to what it looked for."""

    def __init__(self, fd):
        self.fd, self.seen = fd, b""

    def read_some(self, seconds):
        if not select.select([self.fd], [], [], max(seconds, 0))[0]:
            return b""
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: the far side of a pty is gone
            data = b""
        if not data:
            raise Failure("end of file after %r" % self.seen[-200:])
        self.seen += data
        return data

    def expect(self, what, limit=LIMIT):
        what = what.encode() if isinstance(what, str) else what
        deadline = time.monotonic() + limit
        while what not in self.seen:
            if time.monotonic() > deadline:
                raise Failure("%r didn't come, but %r" % (what, self.seen[-400:]))
            self.read_some(deadline - time.monotonic())
        before, _, self.seen = self.seen.partition(what)
        return before

    def send(self, data):
        data = data.encode() if isinstance(data, str) else data
        while data:
            data = data[os.write(self.fd, data):]

    def ended(self, limit=LIMIT):
        deadline = time.monotonic() + limit
        try:
            while time.monotonic() < deadline:
                self.read_some(deadline - time.monotonic())
        except Failure:
            return True
        return False

    def silent(self, seconds):
        """Nothing comes for that long: the only thing that has to be waited for."""
        return not self.seen and not self.read_some(seconds)


def terminal():
    """A pty pair: our side as a Stream, the other to be given to a program."""
    master, slave = pty.openpty()
    return Stream(master), slave


def open_tty(path):
    """The slave of a pty chardev, as a terminal program opens it."""
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(fd, termios.TCSANOW)  # without dropping what has come already
    return Stream(fd)


class Qmp:
    """A QMP client on a connected socket. Events are collected aside."""

    def __init__(self, sock, limit=LIMIT):
        self.socket, self.buffer, self.events = sock, b"", []
        sock.settimeout(limit)

    def receive(self):
        while b"\n" not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise Failure("end of file on the monitor")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def answer(self):
        while True:
            message = self.receive()
            if "event" not in message:
                return message
            self.events.append(message)

    def event(self, name):
        while True:
            for message in self.events:
                if message["event"] == name:
                    self.events.remove(message)
                    return message
            message = self.receive()
            check("event" in message, "an answer came instead of the event", name, message)
            self.events.append(message)

    def raw(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())
        return self.answer()

    def ask(self, execute, *fds, **arguments):
        """The whole answer. Descriptors go along with the command."""
        message = {"execute": execute}
        if arguments:
            message["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
        data = json.dumps(message).encode() + b"\n"
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        data = data[self.socket.sendmsg([data], rights):]
        if data:
            self.socket.sendall(data)
        return self.answer()

    def ok(self, execute, *fds, **arguments):
        answer = self.ask(execute, *fds, **arguments)
        check("return" in answer, execute, arguments, "->", answer)
        return answer["return"]

    def fails(self, execute, *fds, error_class="GenericError", **arguments):
        answer = self.ask(execute, *fds, **arguments)
        check("error" in answer, execute, arguments, "should fail ->", answer)
        check(answer["error"]["class"] == error_class, "class of", answer)
        check(answer["error"]["desc"], "no description in", answer)
        return answer["error"]["desc"]

    def greet(self):
        greeting = self.receive()
        check("QMP" in greeting, "greeting:", greeting)
        self.ok("qmp_capabilities")
        return greeting

    def close(self):
        self.socket.close()


def listener(path, backlog=1):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(backlog)
    return sock


def connect(path):
    """A server's path is there before it listens: it is tried again until then."""
    deadline = time.monotonic() + LIMIT
    while True:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
            return sock
        except ConnectionRefusedError:
            sock.close()
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)


class Monitored:
    """A VM (or QEMU) with a QMP session over an inherited listening socket: one connect(), no waiting. `limit`: for the greeting."""

    def __init__(self, directory, *args, program=(TINYVM,), greet=True, fds=(), limit=LIMIT, **more):
        self.path = os.path.join(directory, "monitor.%d" % time.monotonic_ns())
        with listener(self.path) as sock:
            chardev = "socket,fd=%d,server=on,wait=off,id=mon" % sock.fileno()
            peer = connect(self.path)
            self.vm = Process([*program, "-chardev", chardev, "-mon", "chardev=mon,mode=control", *args], fds=(sock.fileno(), *fds), **more)
        self.qmp = Qmp(peer, limit)
        if greet:
            try:
                self.qmp.greet()
            except (Failure, OSError) as error:
                self.vm.__exit__()
                raise Failure("%s; it said: %s" % (error, self.vm.stderr())) from None
        self.qmp.socket.settimeout(LIMIT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.qmp.close()
        self.vm.__exit__()


def skip(reason):
    print("skipped: " + reason)
    sys.exit(77)


def run_all(cases):
    """Each case gets a directory of its own. Prints what fails and the summary line, and exits."""
    passed = failed = skipped = 0
    only = sys.argv[1:]
    for case in cases:
        if only and case.__name__ not in only:
            continue
        directory, started = tempfile.mkdtemp(prefix="tinyvm."), time.monotonic()
        try:
            case(directory)
            passed += 1
            print("%s: ok, %.2f s" % (case.__name__, time.monotonic() - started), flush=True)
        except Skipped as reason:
            skipped += 1
            print("%s: skipped: %s" % (case.__name__, reason), flush=True)
        except (Failure, OSError, subprocess.SubprocessError) as error:
            failed += 1
            lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
            print("%s: FAIL at line %s: %s: %.1000s" % (case.__name__, lines, type(error).__name__, error), flush=True)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    sys.exit(1 if failed else 0)
