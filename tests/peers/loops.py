#!/usr/bin/python3
"""The programs of examples/loops: a chardev on a foreign loop. Bytes both ways, more than all buffers hold, that loop's own timer, and
both ends: the peer disconnects, or types Ctrl-A x."""
import errno
import os
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from probing import Tally  # noqa: E402

BUILD = os.environ.get("BUILD", "build")
LIMIT = 60
tally = Tally()


class Program:
    """One of them as a server on a unix socket, and its peer."""

    def __init__(self, directory, loop, options=""):
        path = os.path.join(directory, "s")
        self.process = subprocess.Popen([f"{BUILD}/loops/{loop}", f"socket,id=s,path={path},server=on,wait=off{options}"],
                                        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        end = time.monotonic() + LIMIT
        while not os.path.exists(path) and time.monotonic() < end:
            time.sleep(0.01)
        self.peer = socket.socket(socket.AF_UNIX)
        self.peer.settimeout(LIMIT)
        while self.peer.connect_ex(path) == errno.ECONNREFUSED and time.monotonic() < end:  # it is there before it listens
            time.sleep(0.01)

    def exchange(self, data):
        """Sends it all, and returns what comes back meanwhile."""
        thread = threading.Thread(target=self.peer.sendall, args=(data,), daemon=True)
        thread.start()
        back = b""
        while len(back) < len(data):
            piece = self.peer.recv(65536)
            if not piece:
                break
            back += piece
        thread.join(LIMIT)
        return back

    def ended(self):
        """Its exit status; it ends by itself."""
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            return "it runs on"

    def close(self):
        self.peer.close()
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


def bytes_and_timer(directory, loop):
    program = Program(directory, loop)
    many = os.urandom(1 << 20)
    try:
        assert program.exchange(b"hello\n") == b"hello\n", "a line comes back"
        assert program.exchange(many) == many, "a megabyte comes back"
        lines = [program.process.stderr.readline() for _ in range(2)]
        assert lines[1] == b"%d bytes\n" % (len(many) + 6), "the timer of the loop runs, but says %r" % lines
        assert program.exchange(b"more\n") == b"more\n", "and then bytes again"
        program.peer.close()
        assert program.ended() == 0, "it ends with its peer"
    finally:
        program.close()


def escape(directory, loop):
    program = Program(directory, loop, ",mux=on")
    try:
        assert program.exchange(b"hello\n") == b"hello\n", "a line comes back through a mux"
        program.peer.sendall(b"\x01x")
        assert program.ended() == 0, "it ends with Ctrl-A x"
    finally:
        program.close()


for name in ("epoll", "libuv", "glib"):
    for case in (bytes_and_timer, escape):
        if os.path.exists(f"{BUILD}/loops/{name}"):
            tally.run(case, name)
        else:
            tally.skip(case, f"{name}'s library is not installed")
tally.end()
