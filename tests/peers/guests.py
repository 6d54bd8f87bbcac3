#!/usr/bin/python3
"""Emulators that were not written for chardev.h, tests/guests/*.c: one whose console is kbhit() and getch(), one with a 16550 that its
guest polls. What each needs for -serial TEXT, *_serial.c, is 15 lines at most, and then it works on whatever TEXT says. And so do the
manual's recipes for such emulators, taken out of chardev.h as they stand there."""
import difflib
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
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
HEADER = os.environ.get("CHARDEV_DIR", ROOT)
GUESTS = os.path.join(ROOT, "tests", "guests")
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror", "-Wno-unused-function"]
LINES = 15
LIMIT = 60
passed = failed = skipped = 0


def check(name, ok, detail=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("%s: FAIL\n%s" % (name, detail))


def read(name):
    with open(os.path.join(GUESTS, name)) as file:
        return file.read().splitlines()


def compile_c(directory, name, *flags):
    source, binary = os.path.join(GUESTS, name + ".c"), os.path.join(directory, name + str(len(flags)))
    compiler = ["g++", "-x", "c++", "-std=c++17", "-fsyntax-only"] if "c++" in flags else [os.environ.get("CC", "gcc"), "-std=c99", "-D_DEFAULT_SOURCE"]
    done = subprocess.run([*compiler, *WARNINGS, *[flag for flag in flags if flag != "c++"], "-O0", "-I", HEADER, "-I", directory, "-pthread",
                           "-o", binary, source], capture_output=True, text=True, check=False)
    check("%s compiles %s" % (name, " ".join(flags)), done.returncode == 0, done.stderr)
    return binary if done.returncode == 0 else None


def extract_recipe(directory, name):
    """Out of the manual, as a reader copies it: the code behind its name."""
    with open(os.path.join(ROOT, "chardev.h")) as file:
        lines = file.read().split(" * RECIPE %s" % name, 1)[1].split("\n")
    code = [line[7:] for line in lines[:lines.index(" */")] if line.startswith(" *     ") or line == " *"]
    code = "\n".join(code).strip("\n").split("\n\n")[0] + "\n"
    with open(os.path.join(directory, "recipe.h"), "w") as file:
        file.write(code)
    print("recipe %s: %d lines" % (name, code.count("\n")))


def count_lines(name):
    """As `git diff --numstat` counts: lines of the converted one that the other doesn't have."""
    diff = list(difflib.unified_diff(read(name + ".c"), read(name + "_serial.c"), lineterm="", n=0))[2:]
    added = [line for line in diff if line.startswith("+")]
    check("%s: %d lines are enough" % (name, LINES), 0 < len(added) <= LINES, "%d:\n%s" % (len(added), "\n".join(diff)))
    check("%s is what a small emulator is" % name, len(read(name + ".c")) <= 70 and "chr_" not in "\n".join(read(name + ".c")))
    print("%s: %d lines of %d" % (name, len(added), len(read(name + "_serial.c"))))


class Far:
    """The far side of a console: a descriptor to talk over."""

    def __init__(self, fd):
        self.fd, self.got = fd, b""

    def send(self, data):
        while data:
            data = data[os.write(self.fd, data):]

    def expect(self, want, seconds=LIMIT):
        deadline = time.monotonic() + seconds
        while want not in self.got and time.monotonic() < deadline:
            if not select.select([self.fd], [], [], 0.2)[0]:
                continue
            try:
                more = os.read(self.fd, 65536)
            except OSError:
                break
            if not more:
                break
            self.got += more
        found = want in self.got
        if found:
            self.got = self.got[self.got.index(want) + len(want):]
        return found


def start(binary, text, **more):
    return subprocess.Popen([binary, "-serial", text], **{"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, **more})


def ends(name, process, status=0):
    try:
        got = process.wait(LIMIT)
        check(name + " ends", got == status, "status %s: %s" % (got, process.stderr and process.stderr.read()))
    except subprocess.TimeoutExpired:
        check(name + " ends", False, "it goes on")
        process.kill()
        process.wait()


def converse(name, process, far, greets=True):
    """Hello, some bytes, many, and the dot that ends it."""
    check(name + " is there", not greets or far.expect(b"ok"), far.got)
    far.send(b"abcXYZ")
    check(name + " answers", far.expect(b"ABCxyz"), far.got)
    text = b"".join(b"%dq" % i for i in range(20000))
    threading.Thread(target=far.send, args=(text,), daemon=True).start()
    check(name + " loses nothing", far.expect(text.upper()), "%d bytes left over" % len(far.got))
    far.send(b".")
    ends(name, process)


def connect(family, address):
    """A socket that is there soon."""
    deadline = time.monotonic() + LIMIT
    while True:
        peer = socket.socket(family)
        if peer.connect_ex(address) == 0 or time.monotonic() > deadline:
            return peer
        peer.close()
        time.sleep(0.02)


def open_tty(path):
    deadline = time.monotonic() + LIMIT
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.02)
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    raw = termios.tcgetattr(fd)
    raw[0] = raw[1] = raw[3] = 0
    termios.tcsetattr(fd, termios.TCSANOW, raw)
    return fd


def on_pipes(name, binary):
    data = b"Hello, world: " * 2000
    for more in (b".", b""):  # the guest ends, or its input does
        done = subprocess.run([binary, "-serial", "stdio"], input=data + more, capture_output=True, timeout=LIMIT, check=False)
        want = b"ok\n" + bytes(c ^ 32 if c > 64 else c for c in data)
        check(name + " on pipes", done.returncode == 0 and done.stdout == want, "%s: %d bytes" % (done.returncode, len(done.stdout)))


def on_terminal(name, binary, text):
    """Raw while it runs, and as it was at the end."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(["setsid", "-c", binary, "-serial", text], stdin=slave, stdout=slave, stderr=subprocess.PIPE)
    far = Far(master)
    name = "%s on %s" % (name, text)
    check(name + " is there", far.expect(b"ok"), far.got)
    check(name + ": raw", not termios.tcgetattr(slave)[3] & (termios.ICANON | termios.ECHO))
    far.send(b"ab")
    check(name + " answers", far.expect(b"AB"), far.got)
    far.send(b"\x01x" if text.startswith("mon:") else b".")
    ends(name, process)
    check(name + ": put back", termios.tcgetattr(slave) == before, termios.tcgetattr(slave))
    os.close(master)
    os.close(slave)


def on_pty(name, binary, directory):
    path = os.path.join(directory, "tty")
    process = start(binary, "pty,path=" + path)
    fd = open_tty(path)
    converse(name + " on a pty", process, Far(fd), greets=False)  # what was said before somebody came is lost
    os.close(fd)


def on_servers(name, binary, directory):
    """A peer goes, and the next one comes: the guest goes on."""
    path = os.path.join(directory, "socket")
    process = start(binary, "unix:%s,server=on,wait=off" % path)
    first = connect(socket.AF_UNIX, path)
    first.sendall(b"zz")
    check(name + " with a first peer", Far(first.fileno()).expect(b"ZZ"))
    first.close()
    second = connect(socket.AF_UNIX, path)
    converse(name + " with a second peer", process, Far(second.fileno()), greets=False)
    second.close()


def on_telnet(name, binary):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = start(binary, "telnet:127.0.0.1:%d" % listener.getsockname()[1])
        peer = listener.accept()[0]
    converse(name + " as a telnet client", process, Far(peer.fileno()))
    peer.close()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = start(binary, "telnet:127.0.0.1:%d,server=on,wait=on" % port)
    peer = connect(socket.AF_INET, ("127.0.0.1", port))
    converse(name + " as a telnet server", process, Far(peer.fileno()))
    peer.close()


def on_descriptors(name, binary):
    ours, its = socket.socketpair()
    process = start(binary, "socket,fd=%d" % its.fileno(), pass_fds=[its.fileno()])
    its.close()
    converse(name + " on a socket that was handed over", process, Far(ours.fileno()))
    ours.close()
    (to_read, to_send), (to_get, to_write) = os.pipe(), os.pipe()
    process = start(binary, "fd,in=%d,out=%d" % (to_read, to_write), pass_fds=[to_read, to_write])
    os.close(to_read)
    os.close(to_write)
    os.write(to_send, b"abc.")
    check(name + " on two pipes", Far(to_get).expect(b"ok\nABC"))
    ends(name + " on two pipes", process)
    os.close(to_get)
    os.close(to_send)


def on_nonsense(name, binary):
    done = subprocess.run([binary, "-serial", "socket,prot=1"], capture_output=True, text=True, timeout=LIMIT, check=False)
    check(name + " says what is wrong", done.returncode != 0 and "prot" in done.stderr and done.stderr.count("\n") == 1, done)


def killed(name, binary):
    """Its terminal is put back even so."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(["setsid", "-c", binary, "-serial", "stdio"], stdin=slave, stdout=slave, stderr=subprocess.PIPE)
    Far(master).expect(b"ok")
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + LIMIT
    while termios.tcgetattr(slave) != before and time.monotonic() < deadline:
        time.sleep(0.02)
    check(name + " killed: its terminal is put back", termios.tcgetattr(slave) == before)
    os.close(master)
    os.close(slave)


def everywhere(name, binary, directory):
    on_pipes(name, binary)
    for text in ("stdio", "stdio,signal=off", "mon:stdio"):
        on_terminal(name, binary, text)
    on_pty(name, binary, directory)
    on_servers(name, binary, directory)
    on_telnet(name, binary)
    on_descriptors(name, binary)
    on_nonsense(name, binary)
    killed(name, binary)


def main():
    if not shutil.which(os.environ.get("CC", "gcc")):
        print("there is no compiler")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as directory:
        for name in ("getch", "polled"):
            count_lines(name)
            plain = compile_c(directory, name)
            if plain:
                on_pipes(name + " as it was", plain)
        extract_recipe(directory, "getch")
        for name, flags in (("getch_serial", ()), ("polled_serial", ()), ("recipe_getch", ()), ("recipe_16550", ()),
                            ("recipe_16550", ("-DCHARDEV_THREADS",))):
            if os.environ.get("GUEST", name) != name:
                continue
            if name == "recipe_16550":
                extract_recipe(directory, "16550")
            if shutil.which("g++"):
                compile_c(directory, name, "c++", *flags)
            binary = compile_c(directory, name, *flags)
            if binary:
                everywhere(" ".join([name, *flags]), binary, directory)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    sys.exit(1 if failed else 0)


main()
