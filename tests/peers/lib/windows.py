"""What the windows_*.py scripts share: the .exe files under Wine, and peers of theirs on this side."""
import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build/win"))
PREFIX = os.environ.setdefault("WINEPREFIX", os.path.join(ROOT, "build", "wine"))
os.environ.setdefault("WINEDEBUG", "-all")
LIMIT = float(os.environ.get("PEER_SECONDS", "60"))  # for anything that is waited for
COMPILER = os.environ.get("WIN_CC", "x86_64-w64-mingw32-gcc")


def skip(reason):
    print("skipped: " + reason)
    sys.exit(77)


def find_wine():
    for name in (os.environ.get("WINE"), "wine64", "/usr/lib/wine/wine64", "wine"):
        if name and shutil.which(name):
            return shutil.which(name)
    return None


WINE = find_wine()


def need_exes(*names):
    """Programs that `make windows` has built, and Wine with its prefix."""
    if not WINE:
        skip("there is no Wine (wine64)")
    for name in names:
        if not os.path.exists(exe(name)):
            skip("there is no %s: make windows" % exe(name))
    if not os.path.exists(os.path.join(PREFIX, "system.reg")):
        subprocess.run([WINE, "wineboot", "-i"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300, check=False)


def exe(name):
    return name if os.path.isabs(name) else os.path.join(BUILD, name + ".exe")


def has_backend(name):
    """Whether the library has that backend on Windows."""
    done = subprocess.run([WINE, exe("relay"), name + ",help"], stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=False)
    return done.returncode == 0


def until(condition, what, limit=LIMIT):
    """Waits for a condition that nothing announces; a failure names it."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "waited in vain: " + what
        time.sleep(0.01)


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def call(port, limit=LIMIT):
    """A connection to a server that may not listen yet."""
    deadline = time.monotonic() + limit
    while True:
        try:
            peer = socket.create_connection(("127.0.0.1", port), limit)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return peer
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "nobody listens on port %d" % port
            time.sleep(0.02)


def listens(port):
    """Whether somebody listens there, without a connection."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        return any(":%04X 00000000:0000 0A" % port in line for line in table)


def exactly(peer, size):
    """That many bytes from a socket with a time limit; fewer are an error."""
    data = bytearray()
    while len(data) < size:
        more = peer.recv(min(1 << 20, size - len(data)))
        assert more, "the end came after %r" % bytes(data[-200:])
        data += more
    return bytes(data)


def up_to(peer, end, limit=LIMIT):
    """What comes up to and with these bytes."""
    data = b""
    peer.settimeout(limit)
    while not data.endswith(end):
        try:
            more = peer.recv(1)
        except socket.timeout:
            more = b""
        assert more, "%r came, and not %r" % (data, end)
        data += more
    return data


class Program:
    """An .exe under Wine. Its standard input and output are pipes when `stdio` says so; its stderr goes to a file. `where` replaces Wine's
    working directory."""

    def __init__(self, name, *args, stdio=False, where=None):
        self.errors = tempfile.TemporaryFile()
        pipe = subprocess.PIPE if stdio else subprocess.DEVNULL
        self.process = subprocess.Popen([WINE, exe(name), *args], stdin=pipe, stdout=pipe, stderr=self.errors, bufsize=0, cwd=where)
        STARTED.append(self.process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace").replace("\r\n", "\n")

    def runs(self):
        assert self.process.poll() is None, "it has ended with %s: %s" % (self.process.returncode, self.stderr())
        return True

    def ends(self, status=0, limit=LIMIT):
        try:
            got = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError("it doesn't end; it said: " + self.stderr()) from None
        assert status is None or got == status, "the exit status is %s, not %s: %s" % (got, status, self.stderr())
        return got

    def ticks(self):
        with open("/proc/%d/stat" % self.process.pid, encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    def rests(self, seconds=1, most=3):
        """Costs no CPU time (ticks of 10 ms); what it had to do before may take a moment yet."""
        for _ in range(10):
            before = self.ticks()
            time.sleep(seconds)
            spent = self.ticks() - before
            if spent <= most:
                return
        raise AssertionError("it is busy: %d ticks in %g s" % (spent, seconds))

    def listens(self, port):
        until(lambda: self.runs() and listens(port), "it listens on port %d" % port)

    def kill(self):
        end(self.process)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                try:
                    pipe.close()
                except OSError:
                    pass
        self.errors.close()


def end(process):
    """By Ctrl-C, which closes its sockets: wineserver 8 may crash, and every program with it, when a process dies that waits for some."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


STARTED = []


@atexit.register
def end_all():
    for process in STARTED:
        end(process)


def run(name, *args, given=b"", limit=LIMIT):
    """To its end: status, what it printed, what it said on stderr; the CRs of text lines are left out."""
    done = subprocess.run([WINE, exe(name), *args], input=given, capture_output=True, timeout=limit, check=False)
    return done.returncode, done.stdout.replace(b"\r\n", b"\n").decode(errors="replace"), done.stderr.replace(b"\r\n", b"\n").decode(errors="replace")


class Thread(threading.Thread):
    """Its function's result, or what it raised, comes from result()."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self.function, self.args, self.value, self.error = function, args, None, None
        self.start()

    def run(self):
        try:
            self.value = self.function(*self.args)
        except Exception as error:  # pylint: disable=broad-except
            self.error = error

    def result(self, limit=LIMIT):
        self.join(limit)
        assert not self.is_alive(), "%s doesn't end" % self.function.__name__
        if self.error:
            raise self.error
        return self.value


class Skipped(Exception):
    pass


def run_all(cases):
    """Each case gets a directory of its own. Prints what fails and the summary line, and exits. Arguments name the only cases to run."""
    passed = failed = skipped = 0
    for case in cases:
        if len(sys.argv) > 1 and case.__name__ not in sys.argv[1:]:
            continue
        directory, started = tempfile.mkdtemp(prefix="chardev."), time.monotonic()
        try:
            case(directory)
            passed += 1
            print("%s: ok, %.1f s" % (case.__name__, time.monotonic() - started), flush=True)
        except Skipped as reason:
            skipped += 1
            print("%s: skipped: %s" % (case.__name__, reason), flush=True)
        except Exception as error:  # pylint: disable=broad-except
            failed += 1
            print("%s: FAIL: %s: %.2000s" % (case.__name__, type(error).__name__, error), flush=True)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    sys.exit(1 if failed else 0)
