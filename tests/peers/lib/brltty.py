"""brltty in both of its roles, the display that its Virtual driver has, and a BrlAPI client of our own to look at it from outside."""
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import traceback

from relaying import until

BRLTTY = shutil.which("brltty") or shutil.which("brltty", path="/usr/sbin:/sbin")
LIMIT = 60


def free_number():
    """Of a BrlAPI server: its port less 4101."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            number = listener.getsockname()[1] - 4101
        if number >= 0:
            return number


class Process:
    def __init__(self, args, **more):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, **more)

    def said(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def runs(self):
        assert self.process.poll() is None, "%s has ended: %s" % (self.process.args[0], self.said())

    def kill(self):
        self.process.kill()  # brltty can be deaf to SIGTERM
        self.process.wait()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


class Brltty(Process):
    """Without screen and speech: what a BrlAPI client writes is all that it shows. `api` is what it serves, as host=..."""

    def __init__(self, directory, driver, device, api):
        self.directory = tempfile.mkdtemp(dir=directory)
        empty = self.file("empty")
        open(empty, "w").close()
        super().__init__([BRLTTY, "-n", "-e", "-q", "-f", empty, "-Z", "-P", self.file("pid"), "-U", self.file("u"), "-W", self.file("w"),
                          "-x", "no", "-s", "no", "-b", driver, "-d", device, "-A", api])

    def file(self, name):
        return os.path.join(self.directory, name)


class Display:
    """brltty as server, and the display that hangs on it: text over a socket."""

    def __init__(self, directory, api, cells=40):
        self.path = os.path.join(tempfile.mkdtemp(dir=directory), "display")
        self.brltty = Brltty(directory, "vr", "server:" + self.path, api)
        self.shown, self.rest = [], b""
        until(lambda: os.path.exists(self.path) or self.brltty.runs(), "brltty's socket", LIMIT)
        self.socket = socket.socket(socket.AF_UNIX)
        until(self.connect, "a connection to brltty", LIMIT)
        self.tell("Cells %d 1" % cells)

    def connect(self):
        return self.socket.connect_ex(self.path) == 0

    def tell(self, line):
        self.socket.sendall(line.encode() + b"\n")

    def look(self):
        self.socket.settimeout(0.05)
        try:
            self.rest += self.socket.recv(65536)
        except socket.timeout:
            pass
        lines = self.rest.split(b"\n")
        self.rest = lines.pop()
        self.shown += [line.decode() for line in lines]

    def last(self, what):
        self.look()
        lines = [line for line in self.shown if line.startswith(what + ' "')]
        return lines[-1][len(what) + 2:-1] if lines else ""

    def shows(self, text):
        until(lambda: self.last("Visual").rstrip() == text, "%r on the display, which shows %r" % (text, self.last("Visual")), LIMIT)

    def close(self):
        self.socket.close()
        self.brltty.kill()


class Client:
    """BrlAPI, protocol 8, without authorization."""

    def __init__(self, number):
        self.socket = socket.create_connection(("127.0.0.1", 4101 + number))
        self.socket.settimeout(LIMIT)
        assert self.get("v") == struct.pack(">I", 8)
        self.send("v", struct.pack(">I", 8))
        assert self.get("a") == struct.pack(">I", ord("N"))

    def send(self, kind, data=b""):
        self.socket.sendall(struct.pack(">II", len(data), ord(kind)) + data)

    def exactly(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            assert more, "brltty has hung up"
            data += more
        return data

    def get(self, kind):
        size, got = struct.unpack(">II", self.exactly(8))
        data = self.exactly(size)
        assert got == ord(kind), "%r came instead of %r: %r" % (chr(got), kind, data)
        return data

    def ask(self, kind, data=b"", answer=None):
        self.send(kind, data)
        return self.get(answer or kind)

    def driver(self):
        return self.ask("n").rstrip(b"\0").decode()

    def size(self):
        return struct.unpack(">II", self.ask("s"))

    def enter(self):
        self.ask("t", struct.pack(">IB", 0, 0), "A")
        self.ask("u", struct.pack(">QQ", 0, (1 << 64) - 1), "A")

    def write(self, text, cursor=0):
        text = text.encode("latin-1")
        self.send("w", struct.pack(">IIiI", 0x66, 1, -len(text), len(text)) + text + struct.pack(">IB", cursor, 10) + b"ISO-8859-1")

    def key(self):
        return struct.unpack(">Q", self.get("k"))[0]

    def close(self):
        self.socket.close()


def run(cases):
    """Each case in a directory of its own; ends with the line that counts them."""
    passed = failed = skipped = 0
    for case in cases:
        directory = tempfile.mkdtemp(prefix="braille.")
        try:
            reason = case(directory)
            if reason:
                skipped += 1
                print("%s: skipped: %s" % (case.__name__, reason))
            else:
                passed += 1
        except Exception:
            failed += 1
            print("%s: FAIL" % case.__name__)
            traceback.print_exc(file=sys.stdout)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return 1 if failed else 0
