"""QEMU and tinyvm side by side: a scenario is run with each, what is seen is noted step by step, and the two transcripts are compared.

A difference is a failure unless tests/peers/qemu_differences.txt lists it with its reason; one that is listed and isn't there is a failure
too. An error's wording may differ: its class may not, and what QEMU's error puts in quotes, an option's name or its value, ours must name."""
import concurrent.futures
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback

from vm import TINYVM, Failure, Monitored, Process, Qmp, Skipped, Stream, check, connect, listener, skip, until

QEMU, BOARD = shutil.which("qemu-system-x86_64"), shutil.which("qemu-system-riscv32")
START_SECONDS = 15  # QEMU may deadlock when a client speaks before its main loop runs: it is started again then
PARALLEL = 4  # scenarios at a time: most of them wait
SCENARIOS = []


def scenario(title):
    """The function gets a Side, once QEMU's and once ours."""
    def add(function):
        SCENARIOS.append((title, function))
        return function
    return add


class Refusal(str):
    """An error: as a text, what must be equal; beside it, the whole message, and what it must name by the scenario."""
    words, names = "", ()


def named(message):
    """The words in quotes."""
    return [word.replace("_", "-") for word in re.findall(r"['\"]([^'\" ]*\w[^'\" ]*)['\"]", message)]


class Side:
    """One of the two programs, and the directory, peers and transcript of a scenario with it."""

    def __init__(self, is_qemu, directory):
        self.is_qemu, self.directory, self.transcript, self.ends = is_qemu, directory, [], []
        self.vm = self.process = self.qmp = None

    def path(self, name):
        return os.path.join(self.directory, name)

    # ---- what is seen ----

    def plain(self, text):
        """Without what differs from run to run: directories, port numbers, ptys."""
        text = text.replace(self.directory, "DIR")
        text = re.sub(r"/dev/pts/\d+", "/dev/pts/N", text)
        text = re.sub(r"(monitor\.|beside-|disconnected:fd:)\d+", r"\1N", text)
        return re.sub(r"(?<=:)\d{4,5}\b", "PORT", text)

    def see(self, step, value):
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        if not isinstance(value, Refusal):
            value = self.plain(value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=lambda b: b.decode("latin-1")))
        self.transcript.append((step, value))

    def refusal(self, kind, message, names=()):
        refusal = Refusal(kind)
        refusal.words, refusal.names = self.plain(message), names
        return refusal

    # ---- the program ----

    def program(self, guest):
        if not self.is_qemu:
            return (os.path.abspath(TINYVM),)
        if guest and not BOARD:
            raise Skipped("qemu-system-riscv32 is not installed")
        return (BOARD, "-M", "virt", "-display", "none", "-nodefaults") if guest else (QEMU, "-M", "none", "-display", "none", "-nodefaults")

    def fill(self, text):
        return text.replace("{dir}", self.directory)

    def start(self, options, guest=False, greet=True, fds=(), **more):
        """With a control monitor `mon`. A guest is the firmware that sends lines back; -S: it doesn't run yet."""
        args = [self.fill(word) for word in options.split()]
        if guest:
            args += ["-bios", firmware()]
        if "stdout" not in more:
            more["stdout"] = self.keep(open(self.path("stdout"), "wb"))
        for attempt in range(3):
            try:
                self.vm = Monitored(self.directory, *args, program=self.program(guest), greet=greet, fds=fds, limit=START_SECONDS, **more)
                break
            except Failure:
                if not self.is_qemu or attempt == 2:
                    raise
        self.ends.append(self.vm.__exit__)
        self.process, self.qmp = self.vm.vm, self.vm.qmp

    def end(self):
        for end in reversed(self.ends):
            try:
                end()
            except OSError:
                pass

    # ---- its monitors ----

    def outline(self, answer, names=()):
        """What a client would look at: the shape of a success, the class of an error."""
        if "error" not in answer:
            return json.dumps(shape(answer["return"]))
        check(set(answer) <= {"error", "id"} and set(answer["error"]) == {"class", "desc"}, answer)
        message = re.sub(r"^Failed to add chardev '.*?': ", "", answer["error"]["desc"])
        return self.refusal("error " + answer["error"]["class"], message, names)

    def ask(self, execute, *fds, names=(), **arguments):
        """A QMP command whose outcome is noted."""
        answer = self.qmp.ask(execute, *fds, **arguments)
        step = execute + " " + json.dumps(arguments) if arguments else execute
        self.see(self.plain(step), self.outline(answer, names))
        return answer

    def add(self, kind, names=(), label="c", **data):
        return self.ask("chardev-add", id=label, backend={"type": kind, "data": data}, names=names)

    def add_socket(self, kind, address, names=(), label="c", **data):
        return self.add("socket", names, label, addr={"type": kind, "data": address}, **data)

    def hmp(self, line):
        """The same of the monitor for people. "Error: ..." and usage texts are refusals."""
        said = self.qmp.ok("human-monitor-command", command_line=line).replace("\r", "")
        is_error = re.search(r"^(Error: |unknown command|usage: |.*Try \"help )", said, re.M)
        self.see(self.plain(line), self.refusal("refused", said) if is_error else said)
        return said

    def chardevs(self):
        return {c["label"]: c for c in self.qmp.ok("query-chardev")}

    def filename(self, label):
        return self.chardevs()[label]["filename"]

    def see_filename(self, label):
        self.see("filename of " + label, self.filename(label))

    def connected(self, label, is_connected=True):
        """Waits for it, and notes the filename then."""
        until(lambda: self.filename(label).startswith("disconnected:") != is_connected, "connected = %s of %s" % (is_connected, label))
        self.see_filename(label)

    def qmp_session(self, name, greet=True):
        """Another one, over the socket of that name."""
        session = Qmp(self.keep(connect(self.path(name))))
        if greet:
            session.greet()
        return session

    def qmp_says_anything(self):
        return bool(select.select([self.qmp.socket], [], [], 0)[0])

    def qmp_rest(self):
        try:
            return self.qmp.socket.recv(1)
        except ConnectionResetError:  # QEMU may leave our last newline unread
            return b""

    def said(self):
        """On the terminal: QEMU says some of it on stdout."""
        return self.process.stderr() + (self.file("stdout").decode() if os.path.exists(self.path("stdout")) else "")

    def see_event(self, name):
        message = self.qmp.event(name)
        self.see(name, [shape(message), message.get("data")])

    def port(self, label="c"):
        """Of a server on any port."""
        return int(re.search(r":(\d+)(?:,|$)", self.filename(label)).group(1))

    # ---- peers ----

    def keep(self, sock):
        self.ends.append(sock.close)
        return sock

    def unix(self, name):
        return Peer(self.keep(connect(self.path(name))))

    def tcp(self, label="c"):
        return Peer(self.keep(socket.create_connection(("127.0.0.1", self.port(label)))))

    def listens(self, name):
        return self.keep(listener(self.path(name), 8))

    def accept(self, server):
        server.settimeout(60)
        return Peer(self.keep(server.accept()[0]))

    def fifo(self, name):
        os.mkfifo(self.path(name))

    def file(self, name, text=None):
        if text is not None:
            with open(self.path(name), "w") as file:
                file.write(text)
            return text
        with open(self.path(name), "rb") as file:
            return file.read()

    def files(self):
        return sorted(name for name in os.listdir(self.directory) if not name.startswith(("monitor.", "stdout")))


class Peer(Stream):
    """A socket's far side."""

    def __init__(self, sock):
        super().__init__(sock.fileno())
        sock.setblocking(True)
        self.socket = sock

    def take(self, count):
        """So many bytes."""
        deadline = time.monotonic() + 60
        while len(self.seen) < count:
            check(time.monotonic() < deadline, "only", self.seen, "came")
            self.read_some(deadline - time.monotonic())
        data, self.seen = self.seen[:count], self.seen[count:]
        return data

    def rest(self):
        """All up to the end of file, or a reset."""
        check(self.ended(), "no end of file after", self.seen)
        data, self.seen = self.seen, b""
        return data

    def close(self):
        self.socket.close()


def shape(value):
    """Types and member names, without the values; of a list its distinct elements."""
    if isinstance(value, dict):
        return {key: shape(member) for key, member in sorted(value.items())}
    if isinstance(value, list):
        return sorted({repr(shape(element)) for element in value})
    return type(value).__name__


def firmware():
    """tinyvm's own, as a file that both machines run."""
    return FIRMWARE.name


def extract_firmware():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    with open(os.path.join(root, "examples", "tinyvm", "firmware.c")) as source:
        text = source.read().split("firmware[] =", 1)[1].split("}", 1)[0]
    file = tempfile.NamedTemporaryFile(prefix="firmware.", suffix=".bin")
    file.write(bytes(int(word, 16) for word in re.findall(r"0x[0-9a-f]{2}\b", text)))
    file.flush()
    return file


# ---- option lines ----

def option_line(line, names):
    """A scenario of its own: is it taken? Ends by `quit` then. What is in the directory at the end counts too."""
    def run(side):
        os.mkdir(side.path("folder"))
        side.fifo("fifo")
        side.file("file", "text")
        args = [side.fill(word) for word in line.split()]
        status, said = try_start(side, args)
        if status == "taken":
            side.see("", status)
        else:
            side.see("", side.refusal(status, error_of(side, said, args), names))
        side.see("files", side.files())
    return run


def try_start(side, args):
    with listener(side.path("monitor.0")) as sock:
        chardev = "socket,fd=%d,server=on,wait=off,id=mon" % sock.fileno()
        command = [*side.program(False), "-S", "-chardev", chardev, "-mon", "chardev=mon,mode=control", *args]
        qmp = Qmp(connect(side.path("monitor.0")), START_SECONDS)
        with Process(command, fds=(sock.fileno(),), cwd=side.directory) as process:
            sock.close()
            return is_taken(qmp, process), process.stderr()


def is_taken(qmp, process):
    try:
        qmp.greet()
        qmp.ok("quit")
        check(process.status() == 0, "status after quit", process.status())
        return "taken"
    except (Failure, OSError):  # end of file: it is not there any more
        return "refused, exit status %d" % process.status()
    finally:
        qmp.close()


def error_of(side, said, args):
    """The message itself, without the option that it repeats, and without what follows."""
    lines = [line for line in said.splitlines() if "warning:" not in line]
    line = lines[0] if lines else ""
    for name, value in zip(args, args[1:] + [""]):
        line = line.replace("%s %s: " % (name, value), "")
        if side.is_qemu:
            line = line.replace("'%s'" % value, "this")
    return re.sub(r"^[\w./-]+: ", "", line)


def add_option_lines(table):
    """A line each: LINE | what our error names."""
    for row in filter(None, (row.strip() for row in table.splitlines())):
        if not row.startswith("#"):
            line, _, names = row.partition(" | ")
            SCENARIOS.append((line.strip(), option_line(line.strip(), names.split())))


# ---- comparison ----

class Meant:
    """The list of differences that are meant, by scenario and step."""

    def __init__(self, path):
        self.entries, self.used = [], set()
        with open(path) as file:
            blocks = re.split(r"\n\s*\n", file.read())
        for block in blocks:
            lines = [line for line in block.splitlines() if not line.startswith("#")]
            if lines:
                self.add(lines)

    def add(self, lines):
        fields = dict(line.split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in lines[1:])
        check(lines[0].startswith("= ") and set(fields) - {"step"} == {"QEMU", "ours", "why"}, "what is", lines)
        entry = lines[0][2:], fields.get("step", ""), fields["QEMU"], fields["ours"]
        check(entry not in self.entries and fields["why"], "listed twice, or without a reason:", entry)
        self.entries.append(entry)

    def take(self, *entry):
        self.used.add(entry)
        return entry in self.entries

    def idle(self, not_run):
        return [entry for entry in self.entries if entry[0] not in not_run and entry not in self.used]


def one_line(text):
    return text.encode("unicode_escape").decode()


def compare(title, qemu, ours, meant):
    """What is wrong, as lines."""
    wrong = []
    for (step, theirs), (our_step, mine) in zip(qemu, ours):
        if step != our_step:
            return wrong + ["the steps differ: %r and %r" % (step, our_step)]
        names = list(getattr(mine, "names", ()))
        if theirs != mine:
            if not meant.take(title, one_line(step), one_line(theirs), one_line(mine)):
                wrong.append("step: %s\n    QEMU: %s\n    ours: %s%s" % (one_line(step), one_line(theirs), one_line(mine), said_by(theirs, mine)))
            if not step:
                break  # what a refused line leaves is no question where the other is taken
            continue
        if isinstance(theirs, Refusal):
            names += named(theirs.words)
        for name in names:
            text = mine.words.replace("_", "-")
            if name not in text and not meant.take(title, one_line(step), "names " + name, "doesn't"):
                wrong.append("step: %s\n    our error doesn't name %r%s" % (one_line(step), name, said_by(theirs, mine)))
    if len(qemu) != len(ours):
        wrong.append("%d steps with QEMU, %d with ours" % (len(qemu), len(ours)))
    return wrong


def said_by(*refusals):
    return "".join("\n    (%s)" % one_line(r.words) for r in refusals if isinstance(r, Refusal))


def run_side(function, is_qemu):
    directory = tempfile.mkdtemp(prefix="beside.")
    side = Side(is_qemu, directory)
    try:
        function(side)
        return side.transcript
    except (Failure, OSError, subprocess.SubprocessError, KeyError, AttributeError) as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith("qemu_differential.py")]
        said = side.process.stderr() if side.process else ""
        steps = "".join("\n    %s: %s" % (step, one_line(value)) for step, value in side.transcript[-3:])
        raise Failure("with %s, line %s: %s: %.1500s %s%s" % ("QEMU" if is_qemu else "ours", lines, type(error).__name__, error, said, steps)) from error
    finally:
        side.end()
        shutil.rmtree(directory, ignore_errors=True)


def run_scenario(title, function, meant):
    """Returns the word for it, and the lines that explain it."""
    started = time.monotonic()
    try:
        wrong = compare(title, run_side(function, True), run_side(function, False), meant)
    except Skipped as reason:
        return "skipped", ["skipped: %s" % reason], 0
    except Failure as error:
        wrong = [str(error)]
    return ("FAIL" if wrong else "ok"), wrong, time.monotonic() - started


def run_all_beside(differences):
    global FIRMWARE
    if not QEMU:
        skip("qemu-system-x86_64 is not installed")
    FIRMWARE = extract_firmware()
    meant = Meant(differences)
    chosen = [(title, function) for title, function in SCENARIOS if len(sys.argv) < 2 or any(word in title for word in sys.argv[1:])]
    count = {"ok": 0, "FAIL": 0, "skipped": 0}
    not_run = {title for title, function in SCENARIOS if (title, function) not in chosen}
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        for (title, _), (word, lines, seconds) in zip(chosen, pool.map(lambda s: run_scenario(*s, meant), chosen)):
            count[word] += 1
            if word == "skipped":
                not_run.add(title)
            print("%s: %s, %.2f s" % (title, word, seconds), *lines, sep="\n  ", flush=True)
    stale = meant.idle(not_run)
    for entry in stale:
        print("listed in %s, but there is no such difference: %s" % (os.path.basename(differences), ": ".join(entry)))
    print("%d passed, %d failed, %d skipped" % (count["ok"], count["FAIL"] + len(stale), count["skipped"]))
    sys.exit(1 if count["FAIL"] or stale else 0)
