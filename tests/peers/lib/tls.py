"""What the TLS scripts share: certificates, peers on pipes, and how a refusal looks from the probe."""
import atexit
import os
import shutil
import subprocess
import tempfile
import time

from probing import LIMIT, PROBE, ROOT, build_probe, has_tls, need, skip

EVERY_BYTE = b"a" + bytes(range(256)) * 300  # in several records


def prepare(*programs):
    need("openssl", *programs)
    if not has_tls():
        skip("mbedtls/ssl.h is missing")
    build_probe()


MADE = []  # where this script's certificates are


def make_certs(directory):
    """They are made once; each case has a copy."""
    if not MADE:
        made = tempfile.mkdtemp(prefix="chardev.")
        atexit.register(shutil.rmtree, made, ignore_errors=True)
        subprocess.run(["sh", os.path.join(ROOT, "tests", "tls_certs.sh"), made], check=True)
        MADE.append(made)
    shutil.copytree(MADE[0], directory, dirs_exist_ok=True)


def creds(directory, role, name=None, more=""):
    """With the usual certificate, or an odd one by its name; '' = none."""
    name = role if name is None else name
    own = ",certfile=%s/%s-cert.pem,keyfile=%s/%s-key.pem" % (directory, name, directory, name) if name else ""
    return "tls-creds-x509,id=t,endpoint=%s,cafile=%s/ca-cert.pem%s%s" % (role, directory, own, more)


def cert_arguments(directory, name):
    return ["-cert", "%s/%s-cert.pem" % (directory, name), "-key", "%s/%s-key.pem" % (directory, name)] if name else []


class Peer:
    """A program with its standard input and output on pipes."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)

    def write(self, data):
        self.process.stdin.write(data)

    def read(self, size):
        got = b""
        while len(got) < size:
            more = self.process.stdout.read(size - len(got))
            assert more, "the peer has ended after %d bytes" % len(got)
            got += more
        return got

    def kill(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()

    def ends(self):
        """Its standard input ends, and then the program. What it said on standard error."""
        if not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            self.process.wait(LIMIT)
        finally:
            self.process.kill()
        text = self.process.stderr.read().decode(errors="replace")
        self.process.stdout.close()
        self.process.stderr.close()
        return text


def wait_log(probe, text):
    """Until the probe has logged that, and nothing has opened meanwhile."""
    deadline = time.monotonic() + LIMIT
    while not any(text in line for line in probe.log):
        assert time.monotonic() < deadline, "no log line '%s' in %r" % (text, probe.log)
        try:
            line = probe.line(0.05)
        except AssertionError as error:
            if "silent" not in str(error):
                raise
        else:
            raise AssertionError("the probe says '%s' instead of logging '%s'" % (line, text))


def fails(options, *objects):
    """A client that can't be made: why."""
    done = subprocess.run([PROBE, options, *objects], stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT)
    text = done.stdout.decode()
    assert text.startswith("failed ") and done.returncode == 1, "the probe says: " + text
    return text[7:].strip()
