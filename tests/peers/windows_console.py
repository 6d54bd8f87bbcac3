#!/usr/bin/python3
"""relay.exe under Wine in a terminal, which tmux types into and reads: input from keys, and the screen. What Wine's
console doesn't pass on (Ctrl-C without a signal, a new size) is in test_stdio_windows.c, where the events are posted."""
import os
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from windows import LIMIT, PREFIX, WINE, call, exactly, exe, free_port, has_backend, listens, need_exes, run_all, skip, until  # noqa: E402

need_exes("relay")
if not has_backend("stdio"):
    skip("relay.exe has no stdio")
if not shutil.which("tmux"):
    skip("there is no tmux")


class Terminal:
    """relay.exe between the terminal and a TCP server that we are connected to: `far`."""

    def __init__(self, directory, chardev, before=""):
        self.server, port = os.path.join(directory, "tmux"), free_port()
        relay = "'%s' '%s' '%s' tcp:127.0.0.1:%d,server=on,wait=off" % (WINE, exe("relay"), chardev, port)
        environment = dict(os.environ, WINEPREFIX=PREFIX, WINEDEBUG="-all", LC_ALL="C.UTF-8")
        done = subprocess.run(["tmux", "-u", "-S", self.server, "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24",
                               "%s%s; echo ended $?; sleep 1000" % (before, relay)], env=environment, timeout=LIMIT, check=False)
        assert done.returncode == 0, "tmux doesn't start"
        until(lambda: listens(port), "relay.exe listens")
        self.far = call(port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.far.close()
        self.tmux("kill-server")

    def tmux(self, *words):
        return subprocess.run(["tmux", "-u", "-S", self.server, *words], capture_output=True, timeout=LIMIT, check=False).stdout.decode()

    def press(self, *keys):
        for key in keys:  # one at a time: together they are what Wine takes for one sequence
            self.tmux("send-keys", key)
            time.sleep(0.05)

    def type(self, text):
        self.tmux("send-keys", "-l", text)

    def comes(self, data):
        got = exactly(self.far, len(data))
        assert got == data, "%r came, not %r" % (got, data)

    def shows(self, text):
        until(lambda: text in self.screen(), "%r on the screen, which is %r" % (text, self.screen()))

    def screen(self):
        return "\n".join(line.rstrip() for line in self.tmux("capture-pane", "-p").split("\n")).rstrip()


def keys(directory):
    """Letters, control characters, arrows and function keys, UTF-8."""
    with Terminal(directory, "stdio,signal=off", before="stty -isig; ") as terminal:  # else ^Z would stop Wine itself
        terminal.type("ls -l")
        terminal.press("Enter", "Tab", "BSpace", "C-a", "C-z")
        terminal.comes(b"ls -l\r\t\x7f\x01\x1a")
        terminal.press("Up", "Down", "Right", "Left", "F1", "F5", "F12", "PPage", "NPage", "DC", "IC")
        terminal.comes(b"\x1b[A\x1b[B\x1b[C\x1b[D\x1bOP\x1b[15~\x1b[24~\x1b[5~\x1b[6~\x1b[3~\x1b[2~")
        terminal.press("C-Up", "S-Left", "M-x")
        terminal.comes(b"\x1b[1;5A\x1b[1;2D\x1bx")
        terminal.type("é€😀")
        terminal.comes("é€😀".encode())
        assert terminal.screen() == "", "nothing is echoed: " + terminal.screen()


def screen(directory):
    """UTF-8 in pieces, colours and movements of the cursor."""
    with Terminal(directory, "stdio") as terminal:
        for byte in "café €\r\n".encode():
            terminal.far.sendall(bytes([byte]))
            time.sleep(0.01)
        terminal.far.sendall(b"\x1b[31mred\x1b[0m\x1b[5;10Hfar\x1b[1;1H>")
        terminal.shows(">afé €\nred\n\n\n         far")


def control_c(directory):
    """With signals Ctrl-C ends it, and the terminal is as it was."""
    with Terminal(directory, "stdio", before="stty -echo; ") as terminal:
        before = subprocess.run(["stty", "-a", "-F", terminal.tmux("list-panes", "-F", "#{pane_tty}").strip()], capture_output=True, check=False).stdout
        assert b"-icanon" in before, before
        terminal.press("C-c")
        terminal.shows("ended")
        after = subprocess.run(["stty", "-a", "-F", terminal.tmux("list-panes", "-F", "#{pane_tty}").strip()], capture_output=True, check=False).stdout
        assert b"-icanon" not in after, after


def rests(directory):
    """Nothing typed, nothing done: no CPU time; and with keys that bring no bytes."""
    with Terminal(directory, "stdio,signal=off") as terminal:
        terminal.press("Home")  # tmux's sequence for this is none that Wine knows: an event without key and character
        pane = terminal.tmux("list-panes", "-F", "#{pane_pid}").strip()
        pids = subprocess.run(["pgrep", "-P", pane], capture_output=True, check=False).stdout.decode().split()
        assert pids, "relay.exe runs"
        ticks = [0, 0]
        for i in range(2):
            with open("/proc/%s/stat" % pids[0], encoding="ascii") as stat:
                ticks[i] = sum(map(int, stat.read().rsplit(")", 1)[1].split()[11:13]))
            time.sleep(1 - i)
        assert ticks[1] - ticks[0] <= 5, "it is busy: %d ticks in a second" % (ticks[1] - ticks[0])


run_all([keys, screen, control_c, rests])
