"""The probe: one chardev under a script's control (lib/probe.c), and what the scripts that use it share."""
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BUILD = os.environ.get("BUILD", "build")
PROBE = os.path.join(ROOT, BUILD, "tests", "probe")
LIMIT = float(os.environ.get("PEER_SECONDS", "60"))  # for anything that is waited for


def skip(reason):
    print(reason)
    sys.exit(77)


def need(*programs):
    for program in programs:
        if not shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
            skip("there is no " + program)


def find(program):
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def has_tls():
    compiler = os.environ.get("CC", "gcc")
    need(compiler)
    return subprocess.run([compiler, "-E", "-xc", "-"], input=b"#include <mbedtls/ssl.h>\n", capture_output=True).returncode == 0


def spice_flags():
    """What pkg-config says; None without spice-server."""
    if not shutil.which("pkg-config"):
        return None
    done = subprocess.run(["pkg-config", "--cflags", "--libs", "spice-server"], capture_output=True, check=False)
    return ["-DCHARDEV_SPICE"] + done.stdout.decode().split() if done.returncode == 0 else None


def build_probe(program=PROBE, more=()):
    source = os.path.join(ROOT, "tests", "peers", "lib", "probe.c")
    header = os.path.join(ROOT, "chardev.h")
    if os.path.exists(program) and os.path.getmtime(program) > max(os.path.getmtime(source), os.path.getmtime(header)):
        return
    compiler = os.environ.get("CC", "gcc")
    need(compiler)
    tls = ["-DCHARDEV_MBEDTLS", "-lmbedtls", "-lmbedx509", "-lmbedcrypto"] if has_tls() else []
    os.makedirs(os.path.dirname(program), exist_ok=True)
    fresh = "%s.%d" % (program, os.getpid())  # other scripts may want it at the same time
    subprocess.run([compiler, "-std=c99", "-D_GNU_SOURCE", "-DCHARDEV_THREADS", "-O1", "-g", "-I" + ROOT, "-I" + os.path.join(ROOT, "tests"), "-o", fresh,
                    source, "-pthread", *tls, *more], check=True)
    os.replace(fresh, program)


class Probe:
    """`made`: the address that it says it has. Its lines are waited for with next() and data()."""

    def __init__(self, options, fds=(), objects=(), program=PROBE, more=()):
        build_probe(program, more)
        self.process = subprocess.Popen([program, options, *objects], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=fds, bufsize=0)
        self.text = b""
        self.held = b""
        self.log = []
        first = self.line()
        assert first.startswith("made"), "the probe says: " + first
        self.made = first[5:]

    def line(self, limit=LIMIT):
        deadline = time.monotonic() + limit
        while b"\n" not in self.text:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self.process.stdout], [], [], left)[0], "the probe is silent"
            more = os.read(self.process.stdout.fileno(), 1 << 20)
            assert more, "the probe has ended"
            self.text += more
        line, self.text = self.text.split(b"\n", 1)
        line = line.decode()
        if line.startswith("log "):
            self.log.append(line[4:])
            return self.line(limit)
        return line

    def expect(self, what):
        """The next thing that is neither data nor the account of a write."""
        while True:
            line = self.line()
            if line.startswith("data "):
                self.held += bytes.fromhex(line[5:])
            elif not line.startswith(("wrote ", "ioctl 0")):
                assert line == what, "the probe says '%s', not '%s'; its data are %r, its log %r" % (line, what, self.held, self.log)
                return

    def until(self, what):
        """Something that comes, whatever else does before it."""
        lines = []
        while not lines or lines[-1] != what:
            try:
                lines.append(self.line())
            except AssertionError as error:
                raise AssertionError("%s: it has said %s, and not '%s'" % (error, lines, what)) from None
            if lines[-1].startswith("data "):
                self.held += bytes.fromhex(lines[-1][5:])

    def take(self, length):
        """The next bytes, when so many have come."""
        while len(self.held) < length:
            line = self.line()
            if line.startswith("data "):
                self.held += bytes.fromhex(line[5:])
            else:
                assert line.startswith(("wrote ", "ioctl 0")), "the probe says '%s' and has %r" % (line, self.held[-200:])
        got, self.held = self.held[:length], self.held[length:]
        return got

    def data(self, want):
        """Waits for exactly these bytes."""
        got = self.take(len(want))
        assert got == want, "%r came, not %r" % (got[:400], want[:400])

    def wrote(self):
        """What became of the last write, when it is over."""
        while True:
            line = self.line()
            if line.startswith("wrote "):
                return int(line[6:])
            assert line.startswith("data "), "the probe says '%s'" % line
            self.held += bytes.fromhex(line[5:])

    def data_until(self, end):
        while end not in self.held:
            line = self.line()
            assert line != "closed", "the far side has gone, and %r has not come; the data are %r" % (end, self.held)
            if line.startswith("data "):
                self.held += bytes.fromhex(line[5:])
        at = self.held.index(end) + len(end)
        got, self.held = self.held[:at], self.held[at:]
        return got

    def say(self, line):
        self.process.stdin.write(line.encode() + b"\n")

    def write(self, data):
        self.say("write " + data.hex())

    def close(self):
        self.process.stdin.close()
        try:
            assert self.process.wait(LIMIT) == 0, "the probe's exit status is %d" % self.process.returncode
        finally:
            if self.process.returncode is None:
                self.process.kill()
                self.process.wait()


def server(protocol, more="", objects=()):
    """A probe that listens on a free port of 127.0.0.1, and that port."""
    listening = socket.create_server(("127.0.0.1", 0))
    fd = listening.fileno()
    probe = Probe("socket,id=p,fd=%d,server=on,wait=off,%s=on%s" % (fd, protocol, more), fds=(fd,), objects=objects)
    port = listening.getsockname()[1]
    listening.close()
    return probe, port


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def wait_for_port(port):
    """Somebody else's server: there is no other way to know when it listens than to try."""
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, "nobody listens on port %d" % port
            time.sleep(0.02)


class Tally:
    """Runs cases, prints what fails, ends with the summary line."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def run(self, case, *args):
        name = case.__name__ + "".join(" " + str(arg) for arg in args)
        directory = tempfile.mkdtemp(prefix="chardev.")
        try:
            case(directory, *args)
            self.passed += 1
            print("%s: ok" % name, flush=True)
        except Exception as error:  # pylint: disable=broad-except
            self.failed += 1
            print("%s: FAIL: %s: %s" % (name, type(error).__name__, error), flush=True)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def skip(self, case, reason):
        self.skipped += 1
        print("%s: skipped: %s" % (case.__name__, reason))

    def end(self):
        print("%d passed, %d failed, %d skipped" % (self.passed, self.failed, self.skipped))
        sys.exit(1 if self.failed else 0)
