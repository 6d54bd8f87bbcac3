#!/usr/bin/python3
"""pty: cat, picocom, a shell and a script open the terminal, and read the greeting that comes when they do.
Without an opener it uses no CPU time, and a stale link of a killed process is replaced."""
import os
import select
import signal
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from relaying import RELAY, Tally, until  # noqa: E402

HELLO = os.path.join(os.path.dirname(RELAY), "hello")
SOON = 0.03   # seconds between the opening and the greeting, on a machine that has nothing else to do
TRIES = 50    # a tenth of them must be as quick, whatever else the machine does: who looks once a second is so quick 3 times of 100


class Greeter:
    """hello on a pty."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "tty")
        self.process = subprocess.Popen([HELLO, "pty,id=con,path=" + self.path])
        until(lambda: os.path.exists(self.path) or self.process.poll() is not None, "the link to the terminal", 10)
        time.sleep(0.2)

    def cpu_ticks(self):
        with open("/proc/%d/stat" % self.process.pid) as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def wakes(self):
        with open("/proc/%d/status" % self.process.pid) as file:
            return sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        os.unlink(self.path)


def hear(fd, seconds=20):
    """What comes first."""
    ready, _, _ = select.select([fd], [], [], seconds)
    return os.read(fd, 4096) if ready else b""


def greeted_at_once(directory):
    with Greeter(directory) as greeter:
        times = []
        for _ in range(TRIES):
            started = time.monotonic()
            fd = os.open(greeter.path, os.O_RDWR | os.O_NOCTTY)
            words = hear(fd)
            times.append(time.monotonic() - started)
            assert words.startswith(b"hello"), words
            os.close(fd)
        assert sorted(times)[TRIES // 10] <= SOON, "%.0f ms until the greeting" % (sorted(times)[TRIES // 10] * 1000)


def cat_is_greeted(directory):
    with Greeter(directory) as greeter:
        for _ in range(5):
            with subprocess.Popen(["cat", greeter.path], stdout=subprocess.PIPE) as cat:
                words = hear(cat.stdout.fileno())
                cat.kill()
            assert words.startswith(b"hello"), words


def picocom_is_echoed(directory):
    """It drops what came before it has set the terminal, and so maybe the greeting; what is typed comes back."""
    with Greeter(directory) as greeter:
        with subprocess.Popen(["picocom", "-q", "--nolock", "--noreset", greeter.path], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, bufsize=0) as picocom:
            said, words = b"ping", b""
            deadline = time.monotonic() + 20
            while said not in words and time.monotonic() < deadline:
                picocom.stdin.write(said)
                words += hear(picocom.stdout.fileno(), 0.5)
            picocom.stdin.write(b"\x01\x11")
            picocom.stdin.close()
            picocom.wait(10)
            assert said in words, words


def shell_in_passing(directory):
    """Each opens it the moment after the one before has gone."""
    with Greeter(directory) as greeter:
        script = "exec 3<>%s; read a <&3; echo %d >&3; read b <&3; echo \"$a $b\""
        for number in range(20):
            said = subprocess.run(["sh", "-c", script % (greeter.path, number)], stdout=subprocess.PIPE, timeout=20, check=True).stdout
            assert said.startswith(b"hello") and said.endswith(b" %d\n" % number), said


def nobody_costs_nothing(directory):
    with Greeter(directory) as greeter:
        os.close(os.open(greeter.path, os.O_RDWR | os.O_NOCTTY))
        time.sleep(0.5)
        ticks, wakes = greeter.cpu_ticks(), greeter.wakes()
        time.sleep(2)
        assert greeter.cpu_ticks() == ticks, "%d ticks" % (greeter.cpu_ticks() - ticks)
        assert greeter.wakes() - wakes <= 2, "%d wake-ups" % (greeter.wakes() - wakes)


def killed_and_started_again(directory):
    path, before = os.path.join(directory, "link"), None
    for _ in range(3):
        process = subprocess.Popen([HELLO, "pty,id=con,path=" + path])
        until(lambda: os.path.islink(path) and os.lstat(path).st_mtime_ns != before or process.poll() is not None, "the link to the terminal", 10)
        assert process.poll() is None
        second = subprocess.run([HELLO, "pty,id=con,path=" + path], stderr=subprocess.PIPE, timeout=20)
        assert second.returncode == 2 and b"in use" in second.stderr, second.stderr
        process.kill()
        process.wait(10)
        before = os.lstat(path).st_mtime_ns


def main():
    if not shutil.which("picocom"):
        print("needs picocom")
        sys.exit(77)
    tally = Tally()
    for case in (greeted_at_once, cat_is_greeted, picocom_is_echoed, shell_in_passing, nobody_costs_nothing,
                 killed_and_started_again):
        tally.run(case.__name__, case)
    tally.end()


main()
