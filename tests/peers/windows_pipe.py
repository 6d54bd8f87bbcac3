#!/usr/bin/python3
"""Under Wine: a named pipe between two .exe, files, standard input and output, a console for several people."""
import hashlib
import os
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from windows import LIMIT, WINE, Program, Thread, call, exactly, exe, free_port, has_backend, need_exes, run, run_all, skip, until, up_to  # noqa: E402

need_exes("relay", "console_share", "hello")
if not has_backend("pipe"):
    skip("relay.exe has no pipe")

SERVER = "tcp:127.0.0.1:%d,server=on,wait=off"


class End:
    """relay.exe between a pipe and a TCP server that the script is connected to: `near`."""

    def __init__(self, pipe):
        port = free_port()
        self.relay = Program("relay", pipe, SERVER % port)
        self.relay.listens(port)
        self.near = call(port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.near.close()
        self.relay.kill()


def exchange(a, b, size):
    for x, y in ((a, b), (b, a)):
        data = os.urandom(size)
        sending = Thread(x.near.sendall, data)
        assert exactly(y.near, size) == data, "the bytes differ"
        sending.result()


def pipe_between(_):
    """A server and its client; the client is killed, the next one is served, with nothing of the first one's; then the server is killed, and
    the client comes back to the next server."""
    name = "chardev.%d" % os.getpid()
    client = "pipe,path=%s,server=off,reconnect-ms=100" % name
    with End("pipe,path=" + name) as server:
        for size in (1, 100000, 1 << 20):
            with End(client) as peer:
                exchange(server, peer, size)
        peer = End(client)
        exchange(server, peer, 1000)
    with peer, End("pipe,path=" + name) as server:
        exchange(server, peer, 100000)
        server.relay.rests()
        peer.relay.rests()


def pipe_errors(_):
    """A second server, and a client of no server, are errors in one line that names the pipe."""
    name = "chardev.%d" % os.getpid()
    status, _, text = run("relay", "pipe,server=off,path=" + name, "null")
    assert status == 2 and name in text and text.count("\n") == 1, text
    port = free_port()
    with Program("relay", "pipe,path=" + name, SERVER % port) as server:
        server.listens(port)
        status, _, text = run("relay", "pipe,path=" + name, "null")
        assert status == 2 and name in text and text.count("\n") == 1, text


def files(directory):
    """One is read into another, whole; append; a log, rotated; a name beyond ASCII."""
    source, copy, log = (os.path.join(directory, name) for name in ("source", "k\u00f6pie", "log"))
    data = os.urandom(3 << 20)
    with open(source, "wb") as file:
        file.write(data)
    for turn in (1, 2):
        more = ",append=on" if turn == 2 else ""
        status, _, text = run("relay", "file,path=NUL,input-path=" + source, "file,path=%s%s,logfile=%s,logsize=1M,logfiles=3" % (copy, more, log))
        assert status == 0, text
        with open(copy, "rb") as file:
            assert hashlib.sha256(file.read()).digest() == hashlib.sha256(data * turn).digest(), "the copy differs"
    assert sorted(name for name in os.listdir(directory) if name.startswith("log")) == ["log", "log.1", "log.2"]
    status, _, text = run("relay", "file,path=" + os.path.join(directory, "none", "x"), "null")
    assert status == 2 and "none" in text and text.count("\n") == 1, text


def standard_streams(_):
    """hello.exe with pipes: all but CR comes back, which Windows' lines have and stdio drops; the end of input is the end."""
    data = bytes(range(256)).replace(b"\r", b"") * 2000 + b"the end\n"
    done = subprocess.run([WINE, exe("hello")], input=data, capture_output=True, timeout=LIMIT, check=False)
    assert done.returncode == 0 and done.stdout == b"hello\r\n" + data, (done.returncode, done.stdout[:100], done.stderr)


def through_stdio(_):
    """`echo question | relay stdio tcp:...`, with an answer behind the end of input."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(LIMIT)

    def serve():
        peer = listener.accept()[0]
        peer.settimeout(LIMIT)
        question = b""
        while more := peer.recv(100):
            question += more
        peer.sendall(b"answer to " + question)
        peer.close()

    serving = Thread(serve)
    done = subprocess.run([WINE, exe("relay"), "stdio", "tcp:127.0.0.1:%d" % listener.getsockname()[1]], input=b"question\n", capture_output=True,
                          timeout=LIMIT, check=False)
    serving.result()
    listener.close()
    assert done.returncode == 0 and done.stdout == b"answer to question\n", (done.returncode, done.stdout, done.stderr)


def idle_stdio(_):
    """A reader that waits for its standard input costs nothing, and ends with it."""
    port = free_port()
    with Program("relay", "stdio", SERVER % port, stdio=True) as relay:
        relay.listens(port)
        far = call(port)
        relay.process.stdin.write(b"hello")
        assert exactly(far, 5) == b"hello"
        relay.rests()
        far.sendall(b"welcome")
        assert relay.process.stdout.read(7) == b"welcome"
        relay.process.stdin.close()
        far.close()
        relay.ends(0)


def shared_console(directory):
    """console_share.exe: two on the port, one on the pipe, and the log; the late one gets what was said before."""
    port, name, log = free_port(), "share.%d" % os.getpid(), os.path.join(directory, "log")
    with Program("console_share", name, str(port), log) as share:
        share.listens(port)
        a = call(port)
        up_to(a, b"one console for all\r\n")
        a.sendall(b"first\r")
        up_to(a, b"first\r\n")
        b = call(port)
        up_to(b, b"one console for all\r\nfirst\r\n")
        with End("pipe,server=off,path=" + name) as c:
            up_to(c.near, b"one console for all\r\nfirst\r\n")
            c.near.sendall(b"by the pipe\r")
            for peer in (a, b, c.near):
                up_to(peer, b"by the pipe\r\n")
        until(lambda: open(log, "rb").read() == b"one console for all\r\nfirst\r\nby the pipe\r\n", "the log")
        share.rests()
        a.close(), b.close()


def signals(_):
    """SIGINT to Wine's process is Ctrl-C there: what was read is sent, and the relay ends with 0. A second one isn't needed."""
    import signal
    port = free_port()
    with Program("relay", "null", SERVER % port) as relay:
        relay.listens(port)
        far = call(port)
        time.sleep(0.2)
        relay.process.send_signal(signal.SIGINT)
        assert far.recv(1) == b""
        relay.ends(0)


run_all([pipe_between, pipe_errors, files, standard_streams, through_stdio, idle_stdio, shared_console, signals])
