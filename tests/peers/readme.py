#!/usr/bin/python3
"""README.md doesn't rot: its program compiles without a warning and works, its sh and console blocks run as they stand, its tables are
complete."""
import os
import pty
import re
import select
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


def missing(block):
    """What the block needs and this machine doesn't have, or None."""
    if "tls-creds" in block and not (has_tls() and shutil.which("openssl")):
        return "no TLS in this build, or no openssl"
    if "import serial" in block and subprocess.run(["/usr/bin/python3", "-c", "import serial"], capture_output=True, check=False).returncode != 0:
        return "no python3-serial"
    return None


def run_shell(script):
    """In a process group of its own, so that what it leaves running can be ended."""
    shell = subprocess.Popen(["sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             start_new_session=True)
    try:
        out = shell.communicate(timeout=300)[0]
        return shell.returncode, out
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)
        return "none within 300 s", shell.communicate()[0]


def read_terminal(master, seconds):
    """What comes out of a terminal in that time."""
    out, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.05)[0]:
            try:
                out += os.read(master, 65536)
            except OSError:
                break
    return out.decode(errors="replace")


def console(text):
    """Each command has a terminal of its own and the ones before it still beside it; it goes on, or ends without an error."""
    global skipped
    running = []
    for line in text.splitlines():
        command = line[2:].split(" #")[0].strip()
        if command == "make":
            continue
        if not shutil.which(command.split()[0]):
            print("%s: skipped: not installed" % command)
            skipped += 1
            continue
        master, slave = pty.openpty()
        shell = subprocess.Popen(["setsid", "-c", "sh", "-c", "exec " + command.replace("build/", BUILD + "/")], stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        running.append((shell, master))
        if "relay stdio" in command:
            time.sleep(0.5)
            os.write(master, b"hello\n")
        out = read_terminal(master, 1.5)
        check("console: " + command, shell.poll() in (None, 0) and "rror" not in out, "exit status %s\n%s" % (shell.poll(), out))
        if "relay stdio" in command:
            check("console: %s talks" % command, "hello" in out, out)
        if "ws-page" in command:
            page = subprocess.run(["curl", "-s", "http://127.0.0.1:8080/"], capture_output=True, text=True, check=False) if shutil.which("curl") else None
            check("console: the page is served", page is None or "</html>" in page.stdout, page)
    for shell, master in reversed(running):
        shell.terminate()
        try:
            shell.wait(5)
        except subprocess.TimeoutExpired:
            shell.kill()
            shell.wait()
        os.close(master)


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
            talk(binary, directory, compiler)
            slow_reader(binary, directory, compiler)
            ends_with_its_input(binary, directory, compiler)


def quick_start():
    """The program in the comment at the top of the header."""
    with open("chardev.h") as f:
        comment = f.read().split("QUICK START.", 1)[1].split("CONTENTS.", 1)[0]
    return "".join(line[7:] + "\n" for line in comment.splitlines() if line.startswith(" *     ") or line == " *").lstrip("\n")


def statements(text):
    """Without comments and layout."""
    return re.sub(r"\s+", " ", re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.S)).strip()


def same_everywhere(text):
    """Whoever copies it gets the same program from README, from the header and from examples/."""
    with open("examples/hello.c") as f:
        hello = f.read()
    check("the header's quick start is README's program", statements(quick_start()) == statements(text), quick_start())
    check("examples/hello.c is README's program", statements(hello) == statements(text), hello)


def slow_reader(binary, directory, name):
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
        got, want = bytearray(), b"hello\r\n" + data
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


def ends_with_its_input(binary, directory, name):
    """Also when the reader is late, and when the server that it was connected to goes."""
    text = b"".join(b"%d\n" % i for i in range(30000))
    for options in ("stdio", "stdio,id=con", "stdio,obuf=64K", "mon:stdio"):
        done = subprocess.run("%s %s | (sleep 0.5; cat)" % (binary, options), shell=True, input=text, capture_output=True, timeout=60, check=False)
        check("the program, %s, ends with its input, %s" % (name, options), done.stdout == b"hello\r\n" + text, "%d bytes" % len(done.stdout))
    path = os.path.join(directory, name + ".end")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        client = subprocess.Popen([binary, "socket,id=con,path=" + path])
        listener.accept()[0].close()
    try:
        check("the program, %s, ends with its server" % name, client.wait(20) == 0)
    except subprocess.TimeoutExpired:
        check("the program, %s, ends with its server" % name, False, "it goes on")
        client.kill()


def talk(binary, directory, name):
    path = os.path.join(directory, name + ".sock")
    script = "%s socket,id=con,path=%s,server=on,wait=off & while [ ! -S %s ]; do sleep 0.05; done; (echo there; sleep 1) | %s/relay stdio unix:%s; kill $!"
    status, out = run_shell(script % (binary, path, path, BUILD, path))
    check("the program, %s, talks" % name, "hello" in out and "there" in out, "%s %s" % (status, out))


def documented(readme):
    """Each backend and each option of every backend that the help names stands in README."""
    backends = subprocess.run([BUILD + "/relay", "help"], capture_output=True, text=True, check=True).stdout
    for name in re.findall(r"^\s+([a-z][\w-]*)", backends, re.M):
        check("backend %s is in README" % name, "`%s`" % name in readme, backends)
    for backend in re.findall(r"^\s+([a-z][\w-]*)", backends, re.M) + ["tls-creds-x509", "tls-creds-psk", "authz-list"]:
        options = subprocess.run([BUILD + "/relay", backend + ",help"], capture_output=True, text=True, check=True).stdout
        for name in re.findall(r"^\s+([a-z][\w-]*)(?:\.N)?=", options, re.M):
            check("option %s of %s is in README" % (name, backend), re.search(r"[`, ]%s(=|`|\.0)" % name, readme), options)


def main():
    global skipped
    with open("README.md") as f:
        readme = f.read()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", readme, re.M | re.S)
    with tempfile.TemporaryDirectory() as directory:
        for kind, text in blocks:
            if kind == "c":
                program(text, directory)
                same_everywhere(text)
            elif kind == "console":
                console(text)
            elif kind == "sh" and missing(text):
                print("block %r: skipped: %s" % (text.splitlines()[0], missing(text)))
                skipped += 1
            elif kind == "sh" and not text.startswith("make"):
                status, out = run_shell("set -e\n" + text.replace("build/", BUILD + "/"))
                check("block %r" % text.splitlines()[0], status == 0 and "rror" not in out, "exit status %s\n%s" % (status, out))
    documented(readme)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    sys.exit(1 if failed else 0)


main()
