#!/usr/bin/python3
"""examples/filter_rot13: a backend outside of chardev.h, used on the command line."""
import os
import socket
import subprocess
import sys
import tempfile
import time

FILTER = os.environ.get("BUILD", "build") + "/filter_rot13"
passed = failed = 0


def check(name, ok, detail=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("%s: FAIL\n%s" % (name, detail))


def run(text, *chardevs):
    done = subprocess.run([FILTER, *chardevs], input=text, capture_output=True, timeout=30, check=False)
    return done.returncode, done.stdout, done.stderr.decode()


def expect(name, got, status, out=None, err=""):
    check(name, got[0] == status and (out is None or got[1] == out) and err in got[2], got)


def over_a_socket(directory):
    """Two kinds of it on each other, and a peer in between that speaks the code."""
    path = os.path.join(directory, "s")
    server = subprocess.Popen([FILTER, "socket,id=s,path=%s,server=on,wait=off" % path, "rot13,id=a,chardev=s,rot=1", "rot13,chardev=a,rot=2"],
                              stdout=subprocess.PIPE)
    peer, deadline = socket.socket(socket.AF_UNIX), time.monotonic() + 20
    while peer.connect_ex(path) != 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    peer.settimeout(20)
    got = b""
    while len(got) < 6:
        got += peer.recv(100)
    check("both turn what goes out", got == b"khoor\n", got)
    peer.sendall(b"dqg edfn\n" * 20000)
    peer.close()
    out = server.communicate(timeout=30)[0]
    check("both turn what comes in", out == b"and back\n" * 20000 and server.returncode == 0, out[:200])


def main():
    expect("both ways", run(b"uryyb\n", "stdio,id=tty", "rot13,chardev=tty"), 0, b"uryyb\nhello\n")
    expect("its own option", run(b"ifmmp\n", "stdio,id=tty", "rot13,chardev=tty,rot=1"), 0, b"ifmmp\nhello\n")
    got = run(b"\x01ib\n", "stdio,id=tty", "rot13,chardev=tty,rot=1,mux=on")
    check("the keys of a mux on it", got[0] == 0 and b"time stamps" in got[1].translate(bytes.maketrans(b"bcdefghijklmnopqrstuvwxyzaBCDEFGHIJKLMNOPQRSTUVWXYZA",
          b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")), got)
    status, out, err = run(b"", "rot13,help")
    check("its help", status == 0 and b"rot=<number>" in out and b"(default: 13)" in out and b"mux=<on|off>" in out, (out, err))
    status, out, err = run(b"", "help")
    check("it is among the backends", status == 0 and b"\n  rot13 " in out, out)
    expect("a number that is none", run(b"", "stdio,id=tty", "rot13,chardev=tty,rot=x"), 2, b"", "rot13: rot=x: not a number")
    expect("an option that is none", run(b"", "stdio,id=tty", "rot13,chardev=tty,colour=red"), 2, b"", "allowed: id, chardev, rot, logfile")
    expect("a chardev that is none", run(b"", "rot13,chardev=tty"), 2, b"", "rot13: chardev=tty: there is no chardev with that id")
    expect("no chardev", run(b"", "rot13"), 2, b"", "rot13: needs chardev=")
    expect("a chardev that is taken", run(b"", "stdio,id=tty", "rot13,chardev=tty", "rot13,chardev=tty"), 2, None, "has a frontend already")
    expect("no argument", run(b""), 2, b"", "usage")
    with tempfile.TemporaryDirectory() as directory:
        over_a_socket(directory)
    print("%d passed, %d failed, 0 skipped" % (passed, failed))
    sys.exit(1 if failed else 0)


main()
