#!/usr/bin/python3
"""relay as a job of real shells (bash, dash), and next to other processes on the same terminal and pipes: their settings, flags and jobs are unchanged."""
import fcntl
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from relaying import LIMIT, RELAY, Tally, listens, until  # noqa: E402

PROMPT = b"PROMPT> "


class Shell:
    """An interactive shell on a terminal of its own; `master` is what its user holds."""

    def __init__(self, directory, *command):
        self.directory = directory
        self.master, slave = pty.openpty()
        env = dict(os.environ, PS1=PROMPT.decode(), TERM="dumb", RELAY=os.path.abspath(RELAY), HISTFILE="")
        env.pop("ENV", None)
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=directory, env=env, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        self.expect(PROMPT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in self.children():
            os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    def expect(self, text, limit=LIMIT):
        seen, over = b"", time.monotonic() + limit
        while text not in seen:
            left = over - time.monotonic()
            assert left > 0 and select.select([self.master], [], [], left)[0], "%r never came after %r" % (text, seen[-300:])
            seen += os.read(self.master, 65536)
        return seen

    def type(self, text):
        os.write(self.master, text.encode())

    def run(self, line):
        """A command line, up to the next prompt."""
        self.type(line + "\r")
        return self.expect(PROMPT)

    def children(self):
        with open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)) as children:
            return [int(pid) for pid in children.read().split()]

    def file(self, name):
        with open(os.path.join(self.directory, name)) as file:
            return file.read()

    def settings(self):
        """What a program sees that this shell starts now."""
        self.run("stty -a >settings")
        return self.file("settings")

    def is_raw(self):
        return not termios.tcgetattr(self.master)[3] & termios.ICANON

    def start_relay(self, more=""):
        """In the foreground, with the terminal made raw; its process."""
        self.run("rm -f there")
        self.type("$RELAY %s stdio unix:there,server=on,wait=off\r" % more)
        until(lambda: listens("there"), "relay's socket")
        until(self.no_echo, "a raw terminal")
        return self.children()[-1]

    def no_echo(self):
        return not termios.tcgetattr(self.master)[3] & termios.ECHO and self.is_raw()

    def echoes_once(self):
        """Twice, when the terminal echoes beside readline."""
        seen = self.run("echo mar''ker")
        assert seen.count(b"mar''ker") == 1, "typed once, echoed: %r" % seen


BASH = ("bash", "--norc", "--noprofile", "-i")
DASH = ("dash", "-i")


def killed(directory, shell, whole_job):
    with Shell(directory, *shell) as sh:
        before = sh.settings()
        for _ in range(8):
            pid = sh.start_relay()
            (os.killpg if whole_job else os.kill)(pid, signal.SIGKILL)
            sh.expect(PROMPT)
            if shell == DASH:  # it sets nothing by itself
                until(lambda: not sh.is_raw(), "settings put back")
            sh.echoes_once()
            time.sleep(0.05)
            sh.echoes_once()
            after = sh.settings()
            assert after == before, "%s became %s" % (before, after)


def stopped_and_continued(directory, end):
    with Shell(directory, *BASH) as sh:
        before = sh.settings()
        pid = sh.start_relay()
        for _ in range(2):
            sh.type("\x1a")
            sh.expect(PROMPT)
            sh.echoes_once()
            assert sh.settings() == before
            sh.type("fg\r")
            until(sh.no_echo, "raw mode again")
            time.sleep(0.7)
            assert sh.no_echo(), "raw mode does not last"
        if end:
            os.kill(pid, end)
        else:
            sh.type("\x03")
        sh.expect(PROMPT)
        sh.echoes_once()
        assert sh.settings() == before


def in_the_background(directory, end):
    """It runs on while the shell is used, and ends without a trace; it is never stopped."""
    with Shell(directory, *BASH) as sh:
        before = sh.settings()
        sh.type("\r")
        sh.expect(PROMPT)
        sh.run("$RELAY stdio unix:there,server=on,wait=off 2>errors &")
        until(lambda: os.path.exists(os.path.join(directory, "there")), "relay's socket")
        pid = sh.children()[-1]
        time.sleep(0.7)
        assert sh.settings() == before
        with open("/proc/%d/stat" % pid) as stat:
            assert stat.read().rsplit(")", 1)[1].split()[0] != "T", "the job is stopped"
        os.kill(pid, end)
        until(lambda: pid not in sh.children(), "an end of the job")
        sh.echoes_once()
        assert sh.settings() == before


def stopped_job_is_killed(directory):
    """^Z, then kill -9: the shell's settings stay."""
    with Shell(directory, *BASH) as sh:
        before = sh.settings()
        sh.start_relay()
        sh.type("\x1a")
        sh.expect(PROMPT)
        sh.run("kill -9 %1")
        time.sleep(0.1)
        sh.echoes_once()
        assert sh.settings() == before


def seq_beside_it(directory):
    with Shell(directory, *BASH) as sh:
        sh.run("$RELAY stdio unix:nobody,reconnect=1 2>/dev/null &")
        time.sleep(0.3)
        sh.type("seq 30000 2>errors; echo $? >status; echo do''ne\r")
        over, seen = time.monotonic() + LIMIT, b""
        while b"done" not in seen and time.monotonic() < over:
            select.select([sh.master], [], [], 1)
            seen = (seen + os.read(sh.master, 2000))[-3000:]
            time.sleep(0.001)
        assert sh.file("status").strip() == "0", sh.file("errors")


def python_parent_on_the_same_pipes(directory):
    """The parent's own ends of what the child has as 0 and 1 go on blocking."""
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    flags = [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in (in_read, out_write)]
    path = os.path.join(directory, "socket")
    child = subprocess.Popen([RELAY, "stdio", "unix:%s,server=on,wait=off" % path], stdin=in_read, stdout=out_write, stderr=subprocess.PIPE)
    try:
        until(lambda: os.path.exists(path), "relay's socket")
        assert [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in (in_read, out_write)] == flags, "O_NONBLOCK hits the parent"
        with open(os.path.join(directory, "copy"), "wb") as copy:
            reader = subprocess.Popen(["cat"], stdin=out_read, stdout=copy)
        os.close(out_read)
        text = b"x" * (1 << 20)
        assert os.write(out_write, text) == len(text)  # waits for the reader instead of failing
        child.terminate()
        assert child.wait(LIMIT) == 0, child.stderr.read()
        assert [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in (in_read, out_write)] == flags
        os.close(out_write)
        reader.wait(LIMIT)
        with open(os.path.join(directory, "copy"), "rb") as copy:
            assert copy.read() == text
    finally:
        child.kill()
        child.wait()
        for fd in (in_read, in_write):
            os.close(fd)


def nothing_is_held_open(directory):
    """Who reads relay's output, or any other descriptor that it inherited, sees its end when relay is killed on a terminal."""
    with Shell(directory, *BASH) as sh:
        sh.run("mkfifo end; (cat end; echo o''ver) &")
        sh.type("$RELAY stdio unix:there,server=on,wait=off 9>end\r")
        until(lambda: os.path.exists(os.path.join(directory, "there")), "relay's socket")
        until(sh.no_echo, "a raw terminal")
        for pid in sh.children():
            if os.path.exists("/proc/%d/exe" % pid) and os.path.basename(os.readlink("/proc/%d/exe" % pid)) == "relay":
                os.kill(pid, signal.SIGKILL)
        sh.expect(b"over")


def log_on_a_fifo(directory):
    """The reader of a log leaves: the traffic goes on."""
    fifo, path = os.path.join(directory, "log"), os.path.join(directory, "socket")
    os.mkfifo(fifo)
    log = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    child = subprocess.Popen([RELAY, "--keep", "stdio,id=s,logfile=%s" % fifo, "unix:%s,server=on,wait=off" % path], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    peer = socket.socket(socket.AF_UNIX)
    try:
        until(lambda: peer.connect_ex(path) == 0, "a connection")
        for text in (b"one\n", b"two\n", b"three\n"):
            peer.sendall(text)
            assert child.stdout.readline() == text
            if log is not None:
                assert select.select([log], [], [], LIMIT)[0] and os.read(log, 100) == text
                os.close(log)
                log = None
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
        peer.close()


def nobody_reads_stderr(directory):
    """What relay has to say goes nowhere; it goes on."""
    read, write = os.pipe()
    os.close(read)
    child = subprocess.Popen([RELAY, "stdio", "unix:%s,reconnect-ms=20" % os.path.join(directory, "nobody")], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=write)
    try:
        os.close(write)
        listening = socket.socket(socket.AF_UNIX)
        time.sleep(0.2)
        listening.bind(os.path.join(directory, "nobody"))
        listening.listen(1)
        listening.settimeout(LIMIT)
        peer = listening.accept()[0]
        child.stdin.write(b"on")
        child.stdin.flush()
        assert peer.recv(2) == b"on"
    finally:
        child.kill()
        child.wait()


def main():
    tally = Tally()
    shells = [shell for shell in (BASH, DASH) if shutil.which(shell[0])]
    for shell in shells:
        tally.run("%s: killed" % shell[0], killed, shell, False)
        tally.run("%s: the whole job killed" % shell[0], killed, shell, True)
    if BASH in shells:
        for end, name in ((signal.SIGKILL, "SIGKILL"), (signal.SIGTERM, "SIGTERM"), (None, "^C")):
            tally.run("bash: stopped, continued, ended by " + name, stopped_and_continued, end)
        for end in (signal.SIGKILL, signal.SIGTERM):
            tally.run("bash: in the background until " + end.name, in_the_background, end)
        for case in (stopped_job_is_killed, seq_beside_it, nothing_is_held_open):
            tally.run("bash: " + case.__name__.replace("_", " "), case)
    for case in (python_parent_on_the_same_pipes, log_on_a_fifo, nobody_reads_stderr):
        tally.run(case.__name__.replace("_", " "), case)
    tally.end()


main()
