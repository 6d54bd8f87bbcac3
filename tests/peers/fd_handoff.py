#!/usr/bin/python3
"""fd_handoff with tinyvm and with the real QEMU: all steps succeed, with one connect() per start and no sleep."""
import os
import re
import shutil
import subprocess
import sys
import tempfile

BUILD = os.environ.get("BUILD", "build")
MANAGER = os.path.join(BUILD, "fd_handoff")
QEMU = ["qemu-system-x86_64", "-M", "none", "-display", "none", "-nodefaults"]
passed = failed = skipped = 0


def check(name, ok, detail=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("%s: FAIL\n%s" % (name, detail))


def skip(reason):
    global skipped
    skipped += 1
    print("skipped: " + reason)


def run(*args):
    return subprocess.run(args, capture_output=True, text=True, timeout=60, check=False)


def story(name, command):
    done = run(MANAGER, *command)
    out = done.stdout
    bad = out.partition("* A start that fails")[2]
    directory = re.search("listening on (.*)/", out).group(1)
    failed_before = failed
    check(name + ": exit status", done.returncode == 0)
    check(name + ": greeting", '<- {"QMP"' in out)
    check(name + ": every command is answered", out.count("  -> ") == out.count('"return"'))
    check(name + ": good start ends with 0", "exit status: 0" in out)
    check(name + ": bad start fails", re.search(r"exit status: [1-9]", bad))
    check(name + ": its one connect", "refused" in bad or "then end-of-file" in bad)
    check(name + ": its error text", re.search("its stderr: .*pth", bad))
    check(name + ": nothing left behind", not os.path.exists(directory))
    if failed > failed_before:
        print(out + done.stderr)
    return out


def shortest():
    """manager: the same in sixty lines, with a VM that starts and with one that does not."""
    options = ["-chardev", "socket,id=mon,fd=3,server=on,wait=off", "-mon", "chardev=mon,mode=control"]
    manager, tinyvm = os.path.join(BUILD, "manager"), os.path.join(BUILD, "tinyvm")
    done = run(manager, tinyvm, *options)
    check("manager: greeted, exit status 0", done.returncode == 0 and done.stdout.startswith('{"QMP"'), done.stdout + done.stderr)
    done = run(manager, tinyvm, *options, "-chardev", "nonsense,id=x")
    check("manager: a VM that fails", done.returncode == 1 and "nonsense" in done.stderr, done.stdout + done.stderr)
    done = run(manager, "/nonexistent/vm")
    check("manager: no VM at all", done.returncode == 1 and "No such file" in done.stderr, done.stdout + done.stderr)


def system_calls():
    """The manager's own system calls: three sockets to connect to, three connects, no sleep."""
    with tempfile.NamedTemporaryFile("r") as log:
        done = run("strace", "-o", log.name, MANAGER)
        trace = log.read()
    if not trace:
        return skip("strace can't trace here: " + done.stderr.strip())
    check("strace: connects once per socket", len(re.findall(r"^connect\(", trace, re.M)) == 3, trace)
    check("strace: no sleep", not re.search(r"^(clock_)?nanosleep\(|^select\(", trace, re.M), trace)


def unusable_vm():
    done = run(MANAGER, "--", "/nonexistent/vm")
    check("no such VM", done.returncode == 1 and "the VM is not there" in done.stderr, done.stdout + done.stderr)


def main():
    for i in range(20):  # the failing start is a race with two good outcomes: see both come out right
        done = run(MANAGER)
        if done.returncode != 0:
            break
    check("twenty times", done.returncode == 0, done.stdout + done.stderr)
    check("tinyvm: the guest answers", "no guest answers" not in story("tinyvm", []))
    unusable_vm()
    shortest()
    if shutil.which(QEMU[0]):
        story("qemu", ["--", *QEMU])
    else:
        skip("no " + QEMU[0])
    if shutil.which("strace"):
        system_calls()
    else:
        skip("no strace")
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    sys.exit(1 if failed else 0)


main()
