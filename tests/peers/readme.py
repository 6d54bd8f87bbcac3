#!/usr/bin/python3
"""Keeps README.md and docs/ correct: README's program compiles without a warning and works, console blocks run and print the output shown below
each command, C blocks of docs/ compile, the pictures show what the programs print, tables are complete.

A console block is one shell: lines that begin with `$ ` are run (a backslash at the end continues one), what follows is the expected output,
errors included. `...` stands for any text in a line, and alone on a line for any lines. /tmp and ports of four digits are replaced by a
folder and ports of its own. Each command has to succeed, unless `echo $?` comes next. A C block whose first line is `/* NAME */` is the
file /tmp/NAME of the page's commands."""
import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

BUILD = os.environ.get("BUILD", "build")
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]
passed = failed = skipped = 0


def check(name, ok, detail=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("%s: FAIL\n%s" % (name, detail))


def has_tls():
    done = subprocess.run([BUILD + "/relay", "-object", "tls-creds-psk,id=t", "null", "null"], capture_output=True, text=True, check=False)
    return "built without TLS" not in done.stderr


COMPILER = next((name for name in ("gcc", "clang") if shutil.which(name)), "cc")
OPTIONAL = "openssl curl gcc arm-none-eabi-gcc qemu-system-arm".split()


def missing(block):
    """What the block needs and this machine doesn't have, or None."""
    if ("tls-creds" in block or "_MBEDTLS" in block) and not (has_tls() and shutil.which("openssl")):
        return "no TLS in this build, or no openssl"
    if "import serial" in block and subprocess.run(["/usr/bin/python3", "-c", "import serial"], capture_output=True, check=False).returncode != 0:
        return "no python3-serial"
    for program in OPTIONAL:
        if re.search(r"(^\$|[|;&]) *%s " % re.escape(program), block, re.M) and not shutil.which(program):
            return "no " + program
    return None


def run_shell(script, seconds=60):
    """(exit status, output); what it leaves running is ended."""
    with tempfile.TemporaryFile("w+", errors="replace") as out:
        shell = subprocess.Popen(["sh", "-c", script], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = shell.wait(seconds)
        except subprocess.TimeoutExpired:
            status = "none within %d s" % seconds
        try:
            os.killpg(shell.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        shell.wait()
        out.seek(0)
        return status, out.read()


def steps_of(text):
    """[(command, expected lines)]"""
    steps, goes_on = [], False
    for line in text.splitlines():
        if goes_on:
            steps[-1][0] += "\n" + line
        elif line.startswith("$ "):
            steps.append([line[2:], []])
        else:
            steps[-1][1].append(line)
        goes_on = (goes_on or line.startswith("$ ")) and line.endswith("\\")
    return steps


def matches(expected, output):
    pattern = "".join(r"(?:.*\n)*" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + "\n" for line in expected)
    return re.fullmatch(pattern, "".join(line.rstrip() + "\n" for line in output.replace("\r", "").splitlines())) is not None


PORT = re.compile(r"(?:(?<=:)|(?<=port=)|(?<=127\.0\.0\.1 ))[0-9]{4}\b")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def console(page, text, files):
    global skipped
    if missing(text):
        print("%s: %s: skipped: %s" % (page, text.splitlines()[0], missing(text)))
        skipped += 1
        return
    steps = steps_of(text)
    ports = {port: free_port() for port in PORT.findall(text)}
    mark = "%d-end-of-command-" % os.getpid()
    with tempfile.TemporaryDirectory() as directory:
        for name, content in files:
            with open(os.path.join(directory, name), "w") as f:
                f.write(content)

        def local(command):
            command = PORT.sub(lambda found: ports[found.group()], command)
            return re.sub(r"(?<![\w/])/tmp\b", directory, re.sub(r"(?<![\w/.])build/", BUILD + "/", command))
        script = "say() { status=$?; echo; echo %s$status; return $status; }\n" % mark
        for command, _ in steps:
            script += (":" if command == "make" else local(command)) + "\nsay\n"
        status, out = run_shell(script)
        for port, own in ports.items():
            out = out.replace(own, port)
        parts = re.split(r"\n?%s(\S+)\n" % mark, out.replace(directory, "/tmp").replace(BUILD + "/", "build/"))
    for number, (command, expected) in enumerate(steps):
        output, ended = (parts[2 * number], parts[2 * number + 1]) if 2 * number + 1 < len(parts) else ("", "none: %s" % status)
        asked = number + 1 < len(steps) and steps[number + 1][0] == "echo $?"
        check("%s: $ %s" % (page, command), matches(expected, output) and (ended == "0" or asked), "exit status %s, printed:\n%s\nexpected:\n%s" %
              (ended, output, "\n".join(expected)))


# What a block of C in docs/ may use without a declaration.
PRELUDE = """
#define CHARDEV_THREADS
%s
#include "chardev.h"
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
%s
int block(chr_context *ctx, chr_dev *dev, chr_frontend *fe, const char *text, unsigned char *buf, size_t len);
int block(chr_context *ctx, chr_dev *dev, chr_frontend *fe, const char *text, unsigned char *buf, size_t len)
{
    chr_error err;
    (void)ctx, (void)dev, (void)fe, (void)text, (void)buf, (void)len, (void)err;
%s
    return 0;
}
"""


def fragment(page, text, directory):
    """A block of C compiles: as a file where it has functions, else inside one. Lines with # and typedefs come before that."""
    whole = re.search(r"^[a-z].*\)\n\{", text, re.M)
    head = "".join(line + "\n" for line in text.splitlines() if line.startswith("#"))
    body = "".join(line + "\n" for line in text.splitlines() if not line.startswith("#"))
    source = os.path.join(directory, "block.c")
    with open(source, "w") as f:
        f.write(PRELUDE % (head, body if whole else "", "" if whole else body))
    done = subprocess.run([COMPILER, "-std=c11", "-D_GNU_SOURCE", "-I.", "-Iexamples/tinyvm", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-unused",
                           "-Wno-misleading-indentation", source], capture_output=True, text=True, check=False)
    check("%s: C: %s" % (page, text.splitlines()[0]), done.returncode == 0, done.stderr)


def program(text, directory):
    for compiler, standard, name in (("gcc", "-std=c99", "readme.c"), ("g++", "-std=c++17", "readme.cpp")):
        if not shutil.which(compiler):
            continue
        source, binary = os.path.join(directory, name), os.path.join(directory, name + ".out")
        with open(source, "w") as f:
            f.write(text)
        done = subprocess.run([compiler, standard, "-I.", *WARNINGS, "-o", binary, source], capture_output=True, text=True, check=False)
        check("the program, " + compiler, done.returncode == 0, done.stderr)
        if done.returncode == 0:
            lives(binary, directory, compiler, b"")


def lives(binary, directory, name, greeting):
    talk(binary, directory, name, greeting)
    slow_reader(binary, directory, name, greeting)
    ends_with_its_input(binary, directory, name, greeting)


def quick_start():
    """The program in the comment at the top of the header."""
    with open("chardev.h") as f:
        comment = f.read().split("QUICK START.", 1)[1].split("CONTENTS.", 1)[0]
    return "".join(line[7:] + "\n" for line in comment.splitlines() if line.startswith(" *     ") or line == " *").lstrip("\n")


def statements(text):
    """Without comments and layout."""
    return re.sub(r"\s+", " ", re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.S)).strip()


def without_greeting(text):
    """Without the event handler and the lines that name it."""
    text = re.sub(r"static void happened.*?^}\n", "", text, flags=re.S | re.M)
    return "".join(line + "\n" for line in text.splitlines() if "handlers" not in line and "happened" not in line)


def same_everywhere(text):
    """Whoever copies it gets the same program from the header and from examples/; README's has no greeting."""
    with open("examples/hello.c") as f:
        hello = f.read()
    check("examples/hello.c is the header's quick start", statements(hello) == statements(quick_start()), hello)
    check("examples/hello.c without its greeting is README's program", statements(without_greeting(hello)) == statements(text), hello)


def slow_reader(binary, directory, name, greeting):
    """Far more than the kernel holds goes there and comes back, to a peer that is in no hurry."""
    path, data = os.path.join(directory, name + ".slow"), os.urandom(1 << 16) * 48
    server = subprocess.Popen([binary, "socket,id=con,path=%s,server=on,wait=off" % path])
    try:
        peer = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + 30
        while peer.connect_ex(path) != 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        threading.Thread(target=lambda: peer.sendall(data), daemon=True).start()
        time.sleep(0.5)
        got, want = bytearray(), greeting + data
        peer.settimeout(20)
        while len(got) < len(want):
            more = peer.recv(1 << 16)
            if not more:
                break
            got += more
            time.sleep(0.001)
        check("the program, %s, loses nothing" % name, got == want, "%d bytes of %d" % (len(got), len(want)))
        peer.close()
        time.sleep(0.2)
        check("the program, %s, serves the next peer" % name, server.poll() is None, "exit status %s" % server.returncode)
    except OSError as error:
        check("the program, %s, loses nothing" % name, False, repr(error))
    finally:
        server.kill()
        server.wait()


def ends_with_its_input(binary, directory, name, greeting):
    """Also when the reader is late, and when the server that it was connected to goes. What can't be written is an error."""
    text = b"".join(b"%d\n" % i for i in range(30000))
    for options in ("stdio", "stdio,id=con", "stdio,obuf=64K", "mon:stdio"):
        done = subprocess.run("%s %s | (sleep 0.5; cat)" % (binary, options), shell=True, input=text, capture_output=True, timeout=60, check=False)
        check("the program, %s, ends with its input, %s" % (name, options), done.stdout == greeting + text, "%d bytes" % len(done.stdout))
    done = subprocess.run("echo x | %s >/dev/full" % binary, shell=True, timeout=60, check=False)
    check("the program, %s, tells that it couldn't write" % name, done.returncode == 1, "exit status %d" % done.returncode)
    path = os.path.join(directory, name + ".end")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        client = subprocess.Popen([binary, "socket,id=con,path=" + path])
        peer = listener.accept()[0]
        while greeting and greeting not in peer.recv(100):
            pass
        peer.close()
    try:
        check("the program, %s, ends with its server" % name, client.wait(20) == 0)
    except subprocess.TimeoutExpired:
        check("the program, %s, ends with its server" % name, False, "it goes on")
        client.kill()


def talk(binary, directory, name, greeting):
    path = os.path.join(directory, name + ".sock")
    script = "%s socket,id=con,path=%s,server=on,wait=off & while [ ! -S %s ]; do sleep 0.05; done; (echo there; sleep 1) | %s/relay stdio unix:%s; kill $!"
    status, out = run_shell(script % (binary, path, path, BUILD, path))
    check("the program, %s, talks" % name, greeting.decode().strip() in out and "there" in out, "%s %s" % (status, out))


def documented(readme, pages):
    """Each backend that the help names stands in README, and each of its options there or in docs/."""
    backends = subprocess.run([BUILD + "/relay", "help"], capture_output=True, text=True, check=True).stdout
    for name in re.findall(r"^\s+([a-z][\w-]*)", backends, re.M):
        check("backend %s is in README" % name, "`%s`" % name in readme, backends)
    for backend in re.findall(r"^\s+([a-z][\w-]*)", backends, re.M) + ["tls-creds-x509", "tls-creds-psk", "authz-list"]:
        options = subprocess.run([BUILD + "/relay", backend + ",help"], capture_output=True, text=True, check=True).stdout
        for name in re.findall(r"^\s+([a-z][\w-]*)(?:\.N)?=", options, re.M):
            check("option %s of %s is documented" % (name, backend), re.search(r"[`, ]%s(=|`|\.0)" % name, pages), options)


def pictures():
    global skipped
    lacking = [name for name in ("picocom", "telnet") if not shutil.which(name)]
    if lacking:
        print("docs/terminal.svg: skipped: no " + lacking[0])
        skipped += 1
        return
    done = subprocess.run([sys.executable, "docs/terminal.py", "check"], capture_output=True, text=True, check=False)
    check("docs/terminal.svg", done.returncode == 0, done.stdout + done.stderr)


FILE = r"/\* ([\w.]+) \*/\n"


def main():
    pages = {}
    for page in ["README.md"] + sorted(glob.glob("docs/*.md")):
        with open(page) as f:
            pages[page] = f.read()
    only = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        for page, text in pages.items():
            if only and page not in only:
                continue
            for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
                if kind == "c" and page == "README.md":
                    program(block, directory)
                    same_everywhere(block)
                elif kind == "c" and not re.match(FILE, block):
                    fragment(page, block, directory)
                elif kind == "console":
                    console(page, block, [(re.match(FILE, code).group(1), code) for code in re.findall(r"^```c\n(.*?)^```$", text, re.M | re.S)
                                          if re.match(FILE, code)])
                elif kind != "c":  # README's commands are what runs this, and bare.sh
                    check("%s: a block of a kind that isn't tested" % page, kind == "sh" and re.fullmatch(r"(make.*\n)+", block), block)
        if not only:
            lives(BUILD + "/hello", directory, "hello.c", b"hello\r\n")
            pictures()
            documented(pages["README.md"], "".join(pages.values()))
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    sys.exit(1 if failed else 0)


main()
