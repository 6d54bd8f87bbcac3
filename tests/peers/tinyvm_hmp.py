#!/usr/bin/python3
"""tinyvm used interactively: a terminal with serial port and monitor on it, consoles on ptys, the command line and its errors."""
import array
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from vm import Monitored, Skipped, Stream, Vm, check, connect, listener, open_tty, run_all, terminal, until

PROMPT = "(tinyvm) "


class Terminal:
    """tinyvm with a terminal of its own, as from a shell: it is the controlling terminal, too."""

    def __init__(self, *args):
        self.screen, self.slave = terminal()
        self.before = termios.tcgetattr(self.slave)
        self.flags = fcntl.fcntl(self.slave, fcntl.F_GETFL)
        take = lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        self.vm = Vm(*args, stdin=self.slave, stdout=self.slave, preexec_fn=take)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.vm.__exit__()
        os.close(self.screen.fd)
        os.close(self.slave)

    def restored(self):
        check(termios.tcgetattr(self.slave) == self.before, "the terminal's settings aren't put back")
        check(fcntl.fcntl(self.slave, fcntl.F_GETFL) == self.flags, "the terminal's flags aren't put back")

    def ask(self, line, prompt=PROMPT):
        self.screen.send(line + "\r")
        answer = self.screen.expect(prompt).decode().replace("\r", "")
        first, _, rest = answer.partition("\n")
        check(first == line, "the line is echoed as", first)
        return rest


def mon_stdio(directory):
    """Serial port first; Ctrl-A h, c, b, Ctrl-A and x do what they do in QEMU."""
    with Terminal("-serial", "mon:stdio") as t:
        first = t.screen.expect("> ")
        check(b"tinyvm: RV32IM" in first and b"monitor" not in first, "the serial port has the focus first", first)
        now = termios.tcgetattr(t.slave)
        check(not now[3] & (termios.ECHO | termios.ICANON | termios.ISIG) and now[1] & termios.OPOST, "raw, no signals, OPOST stays", now[:4])
        t.screen.send("one\r")
        t.screen.expect("one\r\r\none\r\r\n> ")
        t.screen.send("\x01h")
        t.screen.expect("Ctrl-A")
        t.screen.send("\r")
        t.screen.expect("> ")
        t.screen.send("\x01c")
        banner = t.screen.expect(PROMPT)
        check(b"tinyvm 0." in banner and b"monitor" in banner, "banner", banner)
        check(t.ask("info status") == "VM status: running\n", "info status")
        check("serial0: filename=mux" in t.ask("info chardev") and "stdio" in t.ask("info chardev"), "info chardev")
        t.screen.send("\x01c")
        t.screen.expect("\r\n")
        t.screen.send("two\r")
        t.screen.expect("two\r\r\ntwo\r\r\n> ")
        t.screen.send("\x01\x01\r")
        t.screen.expect("\x01\r\r\n\x01\r\r\n> ")
        t.screen.send("\x01b")
        t.screen.expect("<break>\r\r\n> ")
        t.screen.send("\x01c")
        check(t.screen.expect(PROMPT).strip() == b"", "the second time only the prompt")
        check(t.ask("stop") == "" and t.ask("info status") == "VM status: paused\n", "stop")
        t.screen.send("\x01c")
        t.screen.send("three\r")
        t.screen.send("\x01c")
        check(b"three" not in t.screen.expect(PROMPT), "a stopped guest echoes")
        t.screen.send("cont\r")
        t.screen.expect("three\r\r\nthree\r\r\n> ")
        t.screen.send("\x01x")
        check(t.vm.status() == 0, "exit status", t.vm.stderr())
        t.restored()


def nographic(directory):
    """-nographic and no options at all are the same as -serial mon:stdio."""
    for args in (("-nographic",), (), ("-m", "16", "-nographic")):
        with Terminal(*args) as t:
            t.screen.expect("> ")
            t.screen.send("\x03\r")
            t.screen.expect("\x03\r\r\n\x03\r\r\n> ")
            t.screen.send("\x01c")
            t.screen.expect(PROMPT)
            t.screen.send("quit\r")
            check(t.vm.status() == 0, "quit")
            t.restored()


def signals(directory):
    """However it ends, the terminal is as before; -serial stdio leaves Ctrl-C to be a signal."""
    with Terminal("-serial", "stdio") as t:
        t.screen.expect("> ")
        t.screen.send("\x03")
        check(t.vm.status() == 0, "Ctrl-C")
        t.restored()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with Terminal("-serial", "mon:stdio") as t:
            t.screen.expect("> ")
            t.vm.signal(number)
            check(t.vm.status() == 0, "signal", number)
            t.restored()
    with Terminal("-serial", "stdio") as t:  # the guest ends it
        t.screen.expect("> ")
        t.screen.send("poweroff\r")
        check(t.vm.status() == 0, "poweroff")
        t.restored()


def editing(directory):
    """Backspace, Ctrl-U, Ctrl-W, Ctrl-C, Up, Down; CR LF is one Enter; UTF-8 is one character."""
    path = os.path.join(directory, "m")
    with Vm("-S", "-chardev", "socket,id=m,fd=%d,server=on,wait=off" % (sock := listener(path)).fileno(), "-mon", "m", fds=(sock.fileno(),)):
        peer = connect(path)
        s = Stream(peer.fileno())
        s.expect(PROMPT)
        s.send("info statuX\x7fs\n")
        s.expect("info statuX\b \bs\r\nVM status: paused (prelaunch)\r\n" + PROMPT)
        s.send("garbage\x15info status\r\n")
        s.expect("VM status: paused (prelaunch)\r\n" + PROMPT)
        s.send("info chardev\x17status\r")
        s.expect("VM status: paused (prelaunch)\r\n" + PROMPT)
        s.send("quit\x03")
        s.expect("^C\r\n" + PROMPT)
        s.send("foo\r")
        s.expect("unknown command: 'foo'\r\n" + PROMPT)
        s.send("bar\r")
        s.expect("unknown command: 'bar'\r\n" + PROMPT)
        s.send("\x1b[A\x1b[A\r")
        s.expect("unknown command: 'foo'\r\n" + PROMPT)
        s.send("\x10\x10\x1b[B\x7fz\r")
        s.expect("unknown command: 'foz'\r\n" + PROMPT)
        s.send("a\u00e9\x7fb\r")
        s.expect("unknown command: 'ab'\r\n" + PROMPT)
        s.send("\x1b[3~\x1b[C\x1bOHinfo status\r")
        s.expect("VM status: paused (prelaunch)\r\n" + PROMPT)
        s.send("x" * 3000 + "\r")
        s.expect("unknown command: '" + "x" * 1023 + "'\r\n" + PROMPT)
        s.send("\r\r   \r")
        s.expect(PROMPT), s.expect(PROMPT), s.expect(PROMPT)
        check(s.silent(0.05), "nothing else comes", s.seen)
        peer.close()
        peer = connect(path)  # the next one gets a banner of its own, and no half-typed line
        s = Stream(peer.fileno())
        check(b"monitor" in s.expect(PROMPT), "banner for the next one")
        peer.close()
    sock.close()


def commands(directory):
    """All commands of the readline monitor, with their errors."""
    out = os.path.join(directory, "out")
    with Terminal("-S", "-serial", "mon:stdio", "-chardev", "ringbuf,id=r,size=64") as t:
        t.screen.send("\x01c")
        t.screen.expect(PROMPT)
        text = t.ask("help")
        for name in ("help", "quit", "stop", "cont", "system_reset", "info", "chardev-add", "chardev-change", "chardev-remove",
                     "chardev-send-break", "getfd", "closefd", "ringbuf_read", "ringbuf_write"):
            check("\n" + name in "\n" + text, name, "is not in", text)
        check(t.ask("help quit").startswith("quit") and "chardev" in t.ask("info"), "help for one, info for none")
        check(t.ask("info nothing") == "unknown command: 'info nothing'\n", "info nothing")
        check(t.ask("ringbuf_write r hello") == "" and t.ask("ringbuf_read r 100") == "hello\n", "ringbuf")
        check("0" in t.ask("ringbuf_read r 0") and "Error" in t.ask("ringbuf_read nn 1"), "ringbuf errors")
        check("Error" in t.ask("ringbuf_read serial0 1"), "not a ringbuf")
        check("usage" in t.ask("ringbuf_read r") and "usage" in t.ask("stop now"), "usage")
        check(t.ask("chardev-add file,id=f,path=" + out) == "" and os.path.exists(out), "chardev-add")
        check("f: filename=" in t.ask("info chardev"), "it is there")
        check("Error" in t.ask("chardev-add null,id=f"), "twice")
        check("Error" in t.ask("chardev-add null"), "no id")
        check("path" in t.ask("chardev-add file,id=g"), "required")
        check("Error" in t.ask("chardev-add socket,fd=0,id=x"), "a number is no descriptor here")
        check("socket" in t.ask("chardev-add help") and "reconnect" in t.ask("chardev-add socket,help"), "help")
        check(t.ask("chardev-change f null") == "" and "f: filename=null" in t.ask("info chardev"), "chardev-change")
        check("Error" in t.ask("chardev-change serial0 null") and "Error" in t.ask("chardev-change zz null"), "change errors")
        check(t.ask("chardev-send-break f") == "" and "Error" in t.ask("chardev-send-break zz"), "break")
        check(t.ask("chardev-remove f") == "" and "Error" in t.ask("chardev-remove f"), "chardev-remove")
        check("Error" in t.ask("chardev-remove serial0"), "busy")
        check("Error" in t.ask("getfd a") and "Error" in t.ask("closefd a"), "no descriptor came")
        t.screen.send("c\r")
        t.screen.expect("tinyvm: RV32IM")  # what the guest says shows here, too
        t.screen.expect("> ")
        check(t.ask("s") == "" and t.ask("info status") == "VM status: paused\n", "short names")
        check(t.ask("cont") == "" and t.ask("info status") == "VM status: running\n", "cont")
        t.screen.send("system_reset\r")
        t.screen.expect("tinyvm: RV32IM")
        t.screen.send("\rquit\r")
        check(t.vm.status() == 0, "quit")
        t.restored()


def getfd(directory):
    """A descriptor that comes with a line of text, and is then a serial port's far side."""
    path = os.path.join(directory, "m")
    with listener(path) as sock:
        vm = Vm("-chardev", "socket,id=m,fd=%d,server=on,wait=off" % sock.fileno(), "-mon", "chardev=m,mode=readline",
                "-chardev", "null,id=s", "-serial", "chardev:s", fds=(sock.fileno(),))
    with vm:
        peer = connect(path)
        s = Stream(peer.fileno())
        s.expect(PROMPT)
        ours, theirs = socket.socketpair()
        peer.sendmsg([b"getfd pair\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))])
        check(s.expect(PROMPT) == b"getfd pair\r\n", "getfd")
        theirs.close()
        s.send("chardev-change s socket,fd=pair\n")
        s.expect("fd=pair\r\n" + PROMPT)
        console = Stream(ours.fileno())
        console.send("hello\n")
        console.expect("hello\r\nhello\r\n> ")
        ours.close(), peer.close()


def pty_console(directory):
    """A serial port on a pty: comes and goes with whoever opens it; the link goes at the end."""
    link = os.path.join(directory, "console")
    with Monitored(directory, "-chardev", "pty,id=c,path=" + link, "-serial", "chardev:c") as vm:
        for word in ("first", "second", "third"):
            console = open_tty(link)
            console.send(word + "\r")
            console.expect(word + "\r\n" + word + "\r\n> ")
            os.close(console.fd)
        vm.qmp.ok("quit")
        check(vm.vm.status() == 0 and not os.path.lexists(link), "the link is left behind")


def picocom(directory):
    """A real terminal program on that pty."""
    program = shutil.which("picocom")
    if not program:
        raise Skipped("picocom is not installed")
    link = os.path.join(directory, "console")
    with Monitored(directory, "-chardev", "pty,id=c,path=" + link, "-serial", "chardev:c"):
        screen, slave = terminal()
        client = subprocess.Popen([program, "--quiet", "--nolock", link], stdin=slave, stdout=slave, stderr=slave,
                                  preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)))
        try:
            until(lambda: not termios.tcgetattr(slave)[3] & termios.ICANON, "picocom's raw mode")
            screen.send("through picocom\r")
            screen.expect("through picocom\r\nthrough picocom\r\n> ")
            screen.send("\x01\x1c")  # C-a C-\: sends a BREAK; a pty swallows it
            screen.send("\x01\x18")  # C-a C-x: ends it
            check(client.wait(10) == 0, "picocom's end")
        finally:
            if client.poll() is None:
                client.kill()
            client.wait()
            os.close(slave), os.close(screen.fd)


def two_ports_and_log(directory):
    """More serial ports than one; a log of what the guest said."""
    log = os.path.join(directory, "log")
    with Vm("-chardev", "stdio,id=a,logfile=" + log, "-serial", "chardev:a", "-serial", "null", "-serial", "none", stdin=subprocess.PIPE,
            stdout=subprocess.PIPE) as vm:
        console = Stream(vm.process.stdout.fileno())
        console.expect("> ")
        vm.process.stdin.write(b"x\rpoweroff\r")
        check(vm.status() == 0, "poweroff")
    with open(log, "rb") as f:
        check(f.read().endswith(b"> x\r\nx\r\n> poweroff\r\n"), "the log")


def nothing_stalls(directory):
    """Nobody reads the serial port: the guest waits for it without burning time, the monitor answers, and nothing was lost."""
    with Monitored(directory, "-serial", "stdio", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as vm:
        out, into = vm.vm.process.stdout.fileno(), vm.vm.process.stdin.fileno()
        fcntl.fcntl(out, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(into, False)
        line, sent, quiet = b"0123456789abcdefghijklmnopqrstuvwxyz!\n", b"", 0
        while quiet < 20:
            try:
                sent += line[:os.write(into, line)]
                quiet = 0
            except BlockingIOError:
                quiet += 1
                vm.qmp.ok("query-status")
                time.sleep(0.005)
        check(len(sent) % len(line) == 0, "a pipe takes small writes whole")

        def asking():
            for _ in range(20):
                vm.qmp.ok("query-status")
                time.sleep(0.02)

        vm.vm.rests(4, asking)
        console, text = Stream(out), line.decode().strip()
        console.expect("> ")
        for _ in range(len(sent) // len(line)):
            console.expect(text + "\r\n" + text + "\r\n> ")


def idle(directory):
    """A guest in wfi costs nothing, with a dead peer behind the port, too."""
    with Monitored(directory, "-serial", "null") as vm:
        vm.qmp.ok("query-status")
        vm.vm.rests(2, lambda: time.sleep(0.5))


def help_texts(directory):
    for args, words in ((["-h"], ["-chardev", "-serial", "-mon", "-bios", "-m ", "-S", "-nographic"]), (["--help"], ["usage"]),
                        (["-version"], ["tinyvm 0."]), (["-chardev", "help"], ["socket", "pty", "ringbuf"]), (["-chardev", "?"], ["socket"]),
                        (["-chardev", "socket,help"], ["server", "reconnect-ms", "fd"])):
        with Vm(*args, stdout=subprocess.PIPE) as vm:
            text = vm.process.stdout.read().decode()
            check(vm.status() == 0 and not vm.stderr(), args, vm.stderr())
            for word in words:
                check(word in text, args, "lacks", word, text)


def bad_options(directory):
    """One line that names what was wrong, status 1, nothing left behind."""
    big = os.path.join(directory, "big")
    with open(big, "wb") as f:
        f.truncate(17 << 20)
    elf = os.path.join(directory, "elf")
    with open(elf, "wb") as f:
        f.write(b"\x7fELF\x02\x01" + bytes(100))
    free, taken = os.path.join(directory, "free"), os.path.join(directory, "taken")
    with open(taken, "w") as f:
        f.write("precious")
    for args, words in ((["-nonsense"], ["-nonsense"]), (["word"], ["word"]), (["-chardev"], ["-chardev"]), (["-m", "x"], ["-m", "x"]),
                        (["-m", "0"], ["-m", "0"]), (["-m", "5G"], ["5G"]), (["-m", "-1"], ["-1"]), (["-bios", "/no/such"], ["/no/such", "No such file"]),
                        (["-m", "16", "-bios", big], [big, "fit"]), (["-bios", elf], [elf, "32-bit"]), (["-bios", directory], [directory]),
                        (["-chardev", "nosuch,id=a"], ["nosuch"]), (["-chardev", "nosuch,help"], ["nosuch"]), (["-chardev", "null"], ["id"]),
                        (["-chardev", "socket,id=a,pth=x"], ["pth"]), (["-chardev", "null,id=a", "-chardev", "null,id=a"], ["a"]),
                        (["-chardev", "file,id=a"], ["path"]), (["-chardev", "ringbuf,id=r,size=3"], ["size"]),
                        (["-chardev", "pty,id=p,path=" + taken], [taken]), (["-chardev", "socket,id=s,path=" + taken + ",server=on,wait=off"], [taken]),
                        (["-mon", "chardev=zz"], ["zz"]), (["-mon", "mode=control"], ["chardev"]), (["-chardev", "null,id=a", "-mon", "a,mode=x"], ["x"]),
                        (["-chardev", "null,id=a", "-mon", "a,fast=1"], ["fast"]), (["-serial", "bogus:1"], ["bogus:1"]),
                        (["-serial", "chardev:zz"], ["zz"]), (["-chardev", "null,id=a", "-serial", "chardev:a", "-serial", "chardev:a"], ["a"]),
                        (["-chardev", "null,id=a", "-mon", "a", "-serial", "chardev:a"], ["a"]), (["-serial", "null"] * 9, ["serial"]),
                        (["-serial", "stdio", "-serial", "stdio"], ["stdio"]), (["-serial", "unix:%s,fd=3" % free], ["fd"])):
        args = [x for a in args for x in a.split("\0")] if isinstance(args, list) else args
        good = ["-chardev", "socket,id=good,path=%s,server=on,wait=off" % free]
        with Vm(*(args if args[0] == "-serial" and "unix:" in args[1] else good + args), stdin=subprocess.DEVNULL) as vm:
            status, errors = vm.status(), vm.stderr()
            check(status == 1 and errors.count("\n") == 1 and errors.startswith("tinyvm: "), args, status, errors)
            for word in words:
                check(word in errors, args, "error lacks", word, errors)
            check(not os.path.exists(free), args, "leaves a socket behind")
    with open(taken) as f:
        check(f.read() == "precious", "a file was overwritten")


run_all([mon_stdio, nographic, signals, editing, commands, getfd, pty_console, picocom, two_ports_and_log, nothing_stalls, idle, help_texts,
         bad_options])
