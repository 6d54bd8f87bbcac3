#!/usr/bin/python3
"""relay's edges: how it starts, how it ends, what it says, and what it leaves behind."""
import fcntl
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from relaying import LIMIT, RELAY, Receiver, Relay, Sender, Tally, exactly, until  # noqa: E402


def listener(path):
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(1)
    listening.settimeout(LIMIT)
    return listening


def accept(listening):
    peer = listening.accept()[0]
    peer.settimeout(LIMIT)
    return peer


def output_of(*args, stdin=b""):
    done = subprocess.run([RELAY, *args], input=stdin, capture_output=True, timeout=LIMIT, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def read_to_end(peer):
    data = b""
    while True:
        more = peer.recv(65536)
        if not more:
            return data
        data += more


def help_text(directory):
    status, out, err = output_of("help")
    assert (status, err) == (0, ""), (status, err)
    for name in ("null", "ringbuf", "mux", "fd", "file", "pipe", "pty", "stdio", "socket"):
        assert any(line.split()[:1] == [name] for line in out.splitlines()), "help lacks " + name
    status, out, err = output_of("socket,help")
    assert (status, err) == (0, ""), (status, err)
    for key in ("path", "host", "port", "fd", "server", "wait", "reconnect-ms", "logfile"):
        assert key in out, "socket,help lacks " + key
    assert output_of("nonsense,help")[0] == 2


def errors(directory):
    """Each is one line that names what was wrong, and status 2."""
    missing = os.path.join(directory, "missing")
    for args, word in (
        (("null", "nonsense"), "nonsense"),
        (("socket,path=/x,pth=1", "null"), "pth"),
        (("socket,server=on", "null"), "path"),
        (("stdio", "stdio"), "stdio"),
        (("ringbuf,size=3", "null"), "power of two"),
        (("unix:" + missing, "null"), missing),
        (("pipe:" + missing, "null"), missing),
        (("tcp:127.0.0.1:1x", "null"), "1x"),
        (("socket,fd=77,server=on", "null"), "77"),
        (("null", "socket,fd=name,server=on"), "name"),
    ):
        status, out, err = output_of(*args)
        assert status == 2 and out == "", "%s: status %d, printed %r" % (args, status, out)
        assert err.count("\n") == 1 and word in err, "%s: it says %r" % (args, err)
    for args in ((), ("null",), ("null", "null", "null")):
        status, _, err = output_of(*args)
        assert status == 2 and "usage" in err, args
    for word in ("-h", "--help"):
        status, out, err = output_of(word)
        assert status == 0 and "usage" in out and err == "", word


def ends_when_asked(directory):
    """Its input stays open meanwhile."""
    for typed, args, expected in ((b"1q", ("stdio", "testdev"), 3), (b"\x01x", ("stdio,mux=on", "null"), 0)):
        with subprocess.Popen([RELAY, *args], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            process.stdin.write(typed)
            process.stdin.flush()
            try:
                assert process.wait(LIMIT) == expected, "%s: exit status %d" % (args, process.returncode)
            finally:
                process.kill()


def failed_start_leaves_nothing(directory):
    path = os.path.join(directory, "s")
    status, _, _ = output_of("socket,path=%s,server=on,wait=off" % path, "nonsense")
    assert status == 2 and not os.path.exists(path), "the socket is left behind"


def question_and_answer(directory):
    """Input ends at once; the answer still comes back, as with socat. Half a second for that can be too little on a busy machine."""
    path = os.path.join(directory, "s")
    listening = listener(path)

    def answer():
        while True:
            peer = accept(listening)
            assert peer.recv(100) == b"question\n"
            peer.sendall(b"answer\n")
            peer.recv(100)
            peer.close()

    threading.Thread(target=answer, daemon=True).start()
    for _ in range(5):
        started = time.monotonic()
        got = output_of("stdio", "unix:" + path, stdin=b"question\n")
        assert time.monotonic() - started >= 0.4, "it didn't wait for more"
        if got == (0, "answer\n", ""):
            return
    raise AssertionError("the relay says %r" % (got,))


def file_goes_out_whole(directory):
    """The file's end ends the relay, though the reader starts late; and not before the last byte is out."""
    path, data = os.path.join(directory, "s"), os.urandom(3 << 20)
    with open(os.path.join(directory, "in"), "wb") as f:
        f.write(data)
    listening = listener(path)
    relay = Relay("file,path=/dev/null,input-path=%s/in" % directory, "unix:" + path)
    try:
        peer = accept(listening)
        time.sleep(0.8)  # longer than the quiet time: held data isn't quiet
        relay.runs()
        assert read_to_end(peer) == data, "the bytes differ"
        relay.ends(0)
    finally:
        relay.kill()


def file_waits_for_the_first_peer(directory):
    path, data = os.path.join(directory, "s"), os.urandom(200000)
    with open(os.path.join(directory, "in"), "wb") as f:
        f.write(data)
    relay = Relay("file,path=/dev/null,input-path=%s/in" % directory, "socket,path=%s,server=on,wait=off" % path)
    try:
        until(lambda: os.path.exists(path) or relay.runs(), "the socket")
        time.sleep(0.8)  # nobody comes; a relay that dropped the file would end now
        relay.runs()
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(LIMIT)
        peer.connect(path)
        assert read_to_end(peer) == data, "the bytes differ"
        relay.ends(0)
        assert not os.path.exists(path), "the socket is left behind"
    finally:
        relay.kill()


def last_words_arrive(directory):
    path, data = os.path.join(directory, "s"), os.urandom(300000)
    listening = listener(path)
    relay = Relay("unix:" + path, "file,path=%s/out" % directory)
    try:
        peer = accept(listening)
        peer.sendall(data)
        peer.close()
        relay.ends(0)
        with open(os.path.join(directory, "out"), "rb") as f:
            assert f.read() == data, "the bytes differ"
    finally:
        relay.kill()


def last_words_wait(directory):
    """The speaker has gone before the listener comes; until then it costs nothing."""
    path, data = os.path.join(directory, "s"), os.urandom(100000)
    listening = listener(path)
    relay = Relay("unix:" + path, "socket,path=%s.b,server=on,wait=off" % path)
    try:
        peer = accept(listening)
        peer.sendall(data)
        peer.close()
        until(lambda: os.path.exists(path + ".b") or relay.runs(), "the socket")
        relay.rests(0.8)  # longer than the quiet time
        relay.runs()
        reader = socket.socket(socket.AF_UNIX)
        reader.settimeout(LIMIT)
        reader.connect(path + ".b")
        assert read_to_end(reader) == data, "the bytes differ"
        relay.ends(0)
    finally:
        relay.kill()


def ends_under_a_flood(directory):
    """One side leaves for good; the other never stops talking, to nobody."""
    one, two = listener(os.path.join(directory, "1")), listener(os.path.join(directory, "2"))
    relay = Relay("unix:%s/1" % directory, "unix:%s/2" % directory)
    try:
        a, b = accept(one), accept(two)
        b.setblocking(True)

        def flood():
            try:
                while True:
                    b.send(bytes(4096))
            except OSError:
                pass

        threading.Thread(target=flood, daemon=True).start()
        exactly(a, 100000)
        a.close()
        relay.ends(0)
    finally:
        relay.kill()


def with_a_sink(directory, sink):
    """null and ringbuf take everything and say nothing."""
    path = os.path.join(directory, "s")
    listening = listener(path)
    relay = Relay(sink, "unix:" + path)
    try:
        peer = accept(listening)
        peer.setblocking(True)
        sender = Sender(peer.fileno(), 4 << 20)
        sender.start()
        sender.join(LIMIT)
        assert sender.count == sender.size, "stuck after %d bytes" % sender.count
        peer.close()
        relay.ends(0)
    finally:
        relay.kill()


def keep_goes_on(directory):
    path = os.path.join(directory, "s")
    listening = listener(path)
    relay = Relay("--keep", "unix:" + path, "socket,path=%s.b,server=on,wait=off" % path)
    try:
        accept(listening).close()
        until(lambda: os.path.exists(path + ".b") or relay.runs(), "the socket")
        time.sleep(1)  # twice the quiet time
        relay.runs()
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(path + ".b")
        relay.terminate()
        assert not os.path.exists(path + ".b"), "the socket is left behind"
    finally:
        relay.kill()


def idle_costs_nothing(directory):
    """One side away, the other with input that nobody may read yet: no busy loop."""
    path = os.path.join(directory, "s")
    listening = listener(path)
    relay = Relay("unix:" + path, "socket,path=%s.b,server=on,wait=off" % path)
    try:
        peer = accept(listening)
        peer.setblocking(True)
        until(lambda: os.path.exists(path + ".b") or relay.runs(), "the socket")
        sender = Sender(peer.fileno(), 4 << 20)
        sender.start()
        relay.rests(0.7)
        reader = socket.socket(socket.AF_UNIX)
        reader.connect(path + ".b")
        receiver = Receiver(reader.fileno(), 4 << 20)
        receiver.start()
        receiver.join(LIMIT)
        assert receiver.hash.digest() == sender.hash.digest(), "the bytes differ"
        relay.terminate()
    finally:
        relay.kill()


def terminal_is_put_back(directory, number):
    """Raw while it runs; after a signal, or ^C typed on it, as before."""
    path = os.path.join(directory, "s")
    listening = listener(path)
    master, slave = pty.openpty()
    before, flags = termios.tcgetattr(slave), fcntl.fcntl(slave, fcntl.F_GETFL)
    process = subprocess.Popen([RELAY, "stdio", "unix:" + path], stdin=slave, stdout=slave, stderr=subprocess.DEVNULL,
                               start_new_session=True, preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0))
    try:
        peer = accept(listening)
        until(lambda: not termios.tcgetattr(slave)[3] & termios.ICANON, "raw mode")
        os.write(master, b"typed")
        assert exactly(peer, 5) == b"typed"
        peer.sendall(b"shown")
        assert os.read(master, 100) == b"shown", "the terminal echoes"
        if number:
            process.send_signal(number)
        else:
            os.write(master, b"\x03")
        assert process.wait(LIMIT) == 0, "exit status %d" % process.returncode
        assert termios.tcgetattr(slave) == before, "the terminal's settings are changed"
        assert fcntl.fcntl(slave, fcntl.F_GETFL) == flags, "the descriptor's flags are changed"
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


def main():
    tally = Tally()
    for case in (help_text, errors, ends_when_asked, failed_start_leaves_nothing, question_and_answer, file_goes_out_whole,
                 file_waits_for_the_first_peer, last_words_arrive, last_words_wait, ends_under_a_flood, keep_goes_on, idle_costs_nothing):
        tally.run(case.__name__.replace("_", " "), case)
    for sink in ("null", "ringbuf", "ringbuf,size=1K"):
        tally.run("into " + sink, with_a_sink, sink)
    for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT"), (None, "^C")):
        tally.run("terminal is put back after " + name, terminal_is_put_back, number)
    tally.end()


main()
