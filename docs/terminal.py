#!/usr/bin/python3
"""docs/terminal.py: runs the sessions of docs/terminal.svg and writes the picture on stdout; `docs/terminal.py check` says whether the
programs still print what the picture shows. It needs build/tinyvm, picocom and telnet."""
import os
import pty
import re
import select
import socket
import subprocess
import sys
import tempfile
import time
from xml.sax.saxutils import escape, unescape

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("BUILD", "build")
PICTURE = os.path.join(HERE, "terminal.svg")
ROW, LEFT, WIDTH, NOTES = 19, 16, 760, 500

# Programs by terminal: the command, what its screen ends with when it is ready, and what is typed then: the keys, a note for the margin, and
# what the screen ends with after that.
SESSIONS = [
    ("A pty: the machine, and picocom in another terminal", [
        ("build/tinyvm -chardev pty,id=con,path=/tmp/console -serial chardev:con", "/dev/pts/", []),
        ("picocom --quiet /tmp/console", "", [("hello\r", "typed: hello; the guest echoes it", "hello\n> "),
                                             ("\x01\x18", "Ctrl-A Ctrl-X: picocom ends", "")]),
    ]),
    ("Telnet: serial port and monitor on one connection", [
        ("build/tinyvm -serial mon:telnet:127.0.0.1:4444,server=on,wait=off,history=4K", "", []),
        ("telnet 127.0.0.1 4444", "\n> ", [("hello\r", "typed: hello", "hello\n> "), ("\x01c", "Ctrl-A c: to the monitor", "(tinyvm) "),
                                          ("info status\r", "typed: info status", "(tinyvm) "),
                                          ("\x01x", "Ctrl-A x: the machine ends", "closed by foreign host.")]),
    ]),
]


class Terminal:
    """A program on a terminal of its own, and what it has printed."""

    def __init__(self, command):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(["setsid", "-c", "sh", "-c", "exec " + command], stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.text = ""

    def read(self, end, start=0):
        """Until the screen ends with that and nothing more comes; False when it doesn't within some seconds."""
        deadline, quiet = time.monotonic() + 5, 0
        while time.monotonic() < deadline and quiet < 5:
            if not select.select([self.master], [], [], 0.1)[0]:
                quiet = quiet + 1 if end in self.text[start:] else 0
                continue
            quiet = 0
            try:
                self.text += os.read(self.master, 4096).decode(errors="replace").replace("\r", "")
            except OSError:
                return end in self.text[start:]
        return quiet == 5

    def close(self):
        self.process.terminate()
        self.process.wait()
        os.close(self.master)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def play(programs, directory, port):
    """The lines of one session, or None when a program was not ready for what was typed (picocom flushes its line when it starts)."""
    lines, running, complete = [], [], True
    try:
        for command, ready, typed in programs:
            terminal = Terminal(command.replace("/tmp/", directory + "/").replace("4444", port).replace("build/", BUILD + "/"))
            running.append(terminal)
            complete = terminal.read(ready) and complete
            notes = {}
            for keys, note, end in typed:
                start = len(terminal.text)
                notes[terminal.text.count("\n")] = note
                os.write(terminal.master, keys.encode())
                complete = terminal.read(end, start) and complete
            lines.append(("command", command, ""))
            text = re.sub(r"/dev/pts/\d+", "/dev/pts/3", terminal.text.replace(port, "4444").replace(directory, "/tmp"))
            lines += [("output", line.rstrip(), notes.get(number, "")) for number, line in enumerate(text.split("\n"))]
            while not any(lines[-1][1:]):
                lines.pop()
    finally:
        for terminal in reversed(running):
            terminal.close()
    return lines if complete else None


def record():
    """[(kind, text, note)], kind is title, command or output, for each line of the picture."""
    found = []
    for title, programs in SESSIONS:
        for _ in range(5):
            with tempfile.TemporaryDirectory() as directory:
                lines = play(programs, directory, str(free_port()))
            if lines:
                break
        else:
            sys.exit("docs/terminal.py: no answer: " + title)
        found += [("title", title, "")] + lines
    return found


STYLE = """
    .page { fill: #ffffff } .screen { fill: #f6f8fa; stroke: #d1d9e0 } text { fill: #1f2328 }
    .command { font-weight: 600 } text.note { fill: #59636e }
    @media (prefers-color-scheme: dark) {
        .page { fill: #0d1117 } .screen { fill: #151b23; stroke: #3d444d } text { fill: #f0f6fc } text.note { fill: #9198a1 }
    }
"""


def svg(lines):
    y, parts, top = 8, [], None

    def close_screen():
        if top is not None:
            parts.insert(screen, '<rect class="screen" fill="#f6f8fa" stroke="#d1d9e0" x="1" y="%d" width="%d" height="%d" rx="6"/>' %
                         (top, WIDTH - 2, y - top + 10))
    screen = 0
    for number, (kind, text, note) in enumerate(lines):
        if kind == "title":
            close_screen()
            y += 34 if number else 16
            parts.append('<text class="note" fill="#59636e" font-family="system-ui, sans-serif" x="4" y="%d">%s</text>' % (y, escape(text)))
            top, screen = y + 12, len(parts)
            y += 18
            continue
        if kind == "command" and lines[number - 1][0] != "title":
            y += 8
        y += ROW
        shown = ("$ " if kind == "command" else "") + text
        parts.append('<text class="%s" x="%d" y="%d" xml:space="preserve">%s</text>' % (kind, LEFT, y, escape(shown)))
        if note:
            parts.append('<text class="note" fill="#59636e" font-family="system-ui, sans-serif" font-style="italic" x="%d" y="%d">%s</text>' %
                         (NOTES, y, escape(note)))
    close_screen()
    height = y + 20
    return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-labelledby="title desc" '
            'fill="#1f2328"\n     font-family="ui-monospace, \'DejaVu Sans Mono\', Menlo, Consolas, monospace" font-size="14">\n'
            '<title id="title">Two sessions with tinyvm</title>\n'
            '<desc id="desc">What tinyvm, picocom and telnet print, recorded by docs/terminal.py. In the first session tinyvm has its serial port on a pty,\n'
            'and picocom opens it. In the second, telnet shows the guest and, after Ctrl-A c, the monitor.</desc>\n'
            '<style>%s</style>\n<rect class="page" fill="#ffffff" width="%d" height="%d"/>\n%s\n</svg>\n') % (
                WIDTH, height, WIDTH, height, STYLE, WIDTH, height, "\n".join(parts))


def texts(picture):
    return [unescape(line) for line in re.findall(r"<text [^>]*>([^<]*)</text>", picture)]


def unversioned(picture):
    return [re.sub(r"[0-9]+\.[0-9]+\.[0-9]+ monitor", "VERSION monitor", line) for line in texts(picture)]


def main():
    os.chdir(os.path.dirname(HERE))
    now = svg(record())
    if sys.argv[1:] != ["check"]:
        sys.stdout.write(now)
        return
    with open(PICTURE) as f:
        kept = f.read()
    if unversioned(kept) != unversioned(now):
        print("docs/terminal.svg shows\n%s\n\nbut the programs print\n%s" % ("\n".join(texts(kept)), "\n".join(texts(now))))
        sys.exit(1)


main()
