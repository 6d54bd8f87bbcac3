#!/usr/bin/python3
"""relay's start and end: errors, exit status, messages, and what it leaves behind."""
import fcntl
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from relaying import LIMIT, RELAY, Receiver, Relay, Sender, Tally, exactly, listens, until  # noqa: E402


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


def call(path):
    """Once the file is there, it may be a moment until somebody listens."""
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(LIMIT)
    until(lambda: peer.connect_ex(path) == 0, "a listener")
    return peer


def answering(listening, delay):
    """Answers how many bytes came, a while after their end."""
    def serve():
        while True:
            peer = accept(listening)
            question = read_to_end(peer)
            time.sleep(delay)
            peer.sendall(b"%d\n" % len(question))
            peer.close()

    threading.Thread(target=serve, daemon=True).start()


def question_and_answer(directory, family, delay):
    """Input ends at once: the server sees that, as with socat, and what it answers still comes back, however long that takes."""
    if family == "tcp":
        listening = socket.create_server(("127.0.0.1", 0))
        listening.settimeout(LIMIT)
        argument = "tcp:127.0.0.1:%d" % listening.getsockname()[1]
    else:
        listening = listener(os.path.join(directory, "s"))
        argument = "unix:%s/s" % directory
    answering(listening, delay)
    started = time.monotonic()
    got = output_of("stdio", argument, stdin=b"question\n")
    assert got == (0, "9\n", ""), "the relay says %r" % (got,)
    assert time.monotonic() - started < delay + 20, "it went on after both had ended"


def with_socat(directory):
    if not shutil.which("socat"):
        return ", skipped: no socat"
    path = os.path.join(directory, "s")
    with subprocess.Popen(["socat", "UNIX-LISTEN:" + path, "SYSTEM:wc -c"]) as server:
        until(lambda: listens(path), "socat's socket")
        got = output_of("stdio", "unix:" + path, stdin=b"hello\n")
        assert (got[0], got[1].strip()) == (0, "6"), "the relay says %r" % (got,)
        server.wait(LIMIT)
    return None


def server_ends_first(directory):
    """It says all it has to say and reads on; what is piped into us goes on, and ends the relay."""
    listening = listener(os.path.join(directory, "s"))
    relay = Relay("stdio", "unix:%s/s" % directory, stdio=True)
    try:
        peer = accept(listening)
        peer.sendall(b"greeting")
        peer.shutdown(socket.SHUT_WR)
        assert exactly_from(relay.process.stdout, 8) == b"greeting"
        time.sleep(1)  # twice the quiet time
        relay.rests(0.3)
        relay.process.stdin.write(b"more")
        assert exactly(peer, 4) == b"more"
        relay.process.stdin.close()
        assert read_to_end(peer) == b"", "the end of input is not passed on"
        relay.ends(0)
    finally:
        relay.kill()


def exactly_from(pipe, size):
    data = b""
    while len(data) < size:
        more = os.read(pipe.fileno(), size - len(data))
        assert more, "end of file after %r" % data
        data += more
    return data


def both_are_sockets(directory):
    """The end of each is passed on to the other; the relay ends with the second one."""
    one, two = listener(os.path.join(directory, "1")), listener(os.path.join(directory, "2"))
    relay = Relay("unix:%s/1" % directory, "unix:%s/2" % directory)
    try:
        a, b = accept(one), accept(two)
        a.sendall(b"question")
        a.shutdown(socket.SHUT_WR)
        assert read_to_end(b) == b"question"
        time.sleep(0.8)  # longer than the quiet time
        relay.runs()
        b.sendall(b"answer")
        b.shutdown(socket.SHUT_WR)
        assert read_to_end(a) == b"answer"
        relay.ends(0)
    finally:
        relay.kill()


def server_side_asked_to(directory):
    """A server comes back, and so keeps the other side; with half-close=on it passes ends on as well."""
    path = os.path.join(directory, "a")
    listening = listener(os.path.join(directory, "s"))
    answering(listening, 0.7)
    relay = Relay("socket,path=%s,server=on,wait=off,half-close=on" % path, "unix:%s/s" % directory)
    try:
        until(lambda: listens(path) or relay.runs(), "the socket")
        peer = call(path)
        peer.sendall(b"12345")
        peer.shutdown(socket.SHUT_WR)
        assert read_to_end(peer) == b"5\n"
        relay.ends(0)
    finally:
        relay.kill()


def layered(directory, option):
    """The end comes behind what telnet and websocket hold: relay to relay, into a file, the first reader in no hurry."""
    path, data = os.path.join(directory, "s"), os.urandom(1 << 20)
    with open(os.path.join(directory, "in"), "wb") as f:
        f.write(data)
    server = Relay("file,path=/dev/null,input-path=%s/in" % directory, "socket,path=%s,server=on,wait=off,%s=on" % (path, option))
    try:
        until(lambda: listens(path) or server.runs(), "the socket")
        client = Relay("socket,path=%s,%s=on" % (path, option), "file,path=%s/out" % directory)
        client.process.send_signal(signal.SIGSTOP)
        time.sleep(0.7)
        client.process.send_signal(signal.SIGCONT)
        client.ends(0)
        server.ends(0)
        with open(os.path.join(directory, "out"), "rb") as f:
            assert f.read() == data, "the bytes differ"
    finally:
        server.kill()


def told_to_end(directory, number):
    """What was read goes out first, to a reader that is slow but reads on; the socket's file goes."""
    path = os.path.join(directory, "s")
    relay = Relay("fd,in=0,out=1", "socket,path=%s,server=on,wait=off,obuf=1M" % path, stdio=True)
    try:
        until(lambda: listens(path) or relay.runs(), "the socket")
        reader = call(path)
        data = os.urandom(600000)
        sender = threading.Thread(target=relay.process.stdin.write, args=(data,), daemon=True)
        sender.start()
        sender.join(LIMIT)
        time.sleep(0.3)
        relay.process.send_signal(number)
        got = b""
        while True:
            more = reader.recv(20000)
            if not more:
                break
            got += more
            time.sleep(0.1)
        relay.ends(0)
        assert got == data, "%d bytes of %d" % (len(got), len(data))
        assert not os.path.exists(path), "the socket is left behind"
    finally:
        relay.kill()


def nobody_reads(directory):
    """Two seconds, then it says that there was a rest."""
    path = os.path.join(directory, "s")
    relay = Relay("fd,in=0,out=1", "socket,path=%s,server=on,wait=off,obuf=1M" % path, stdio=True)
    try:
        until(lambda: listens(path) or relay.runs(), "the socket")
        reader = call(path)
        relay.process.stdin.write(os.urandom(600000))
        started = time.monotonic()
        relay.process.send_signal(signal.SIGTERM)
        relay.ends(0)
        assert time.monotonic() - started > 1.5
        assert "not taken" in relay.stderr(), relay.stderr()
    finally:
        relay.kill()


def nohup(directory):
    """What is ignored at the start stays ignored."""
    process = subprocess.Popen([RELAY, "null", "pty"], preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    try:
        time.sleep(0.5)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert process.poll() is None, "SIGHUP ended it"
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0
    finally:
        process.kill()
        process.wait()


def full_disk(directory):
    status, _, err = output_of("stdio", "file:/dev/full", stdin=b"hello\n")
    assert status == 2 and "No space left on device" in err and err.count("\n") == 1 and "/dev/full" in err, (status, err)


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
        until(lambda: listens(path) or relay.runs(), "the socket")
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
        until(lambda: listens(path + ".b") or relay.runs(), "the socket")
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
        until(lambda: listens(path + ".b") or relay.runs(), "the socket")
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
        until(lambda: listens(path + ".b") or relay.runs(), "the socket")
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
    for case in (help_text, errors, ends_when_asked, failed_start_leaves_nothing, with_socat, server_ends_first, both_are_sockets,
                 server_side_asked_to, nobody_reads, nohup, full_disk, file_goes_out_whole,
                 file_waits_for_the_first_peer, last_words_arrive, last_words_wait, ends_under_a_flood, keep_goes_on, idle_costs_nothing):
        tally.run(case.__name__.replace("_", " "), case)
    for family, delay in (("unix", 0), ("unix", 1.2), ("tcp", 0), ("tcp", 1.2)):
        tally.run("question and answer, %s, after %g s" % (family, delay), question_and_answer, family, delay)
    for option in ("telnet", "websocket"):
        tally.run("the end behind " + option, layered, option)
    for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT"), (signal.SIGHUP, "SIGHUP")):
        tally.run("told to end by " + name, told_to_end, number)
    for sink in ("null", "ringbuf", "ringbuf,size=1K"):
        tally.run("into " + sink, with_a_sink, sink)
    for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT"), (signal.SIGHUP, "SIGHUP"), (None, "^C")):
        tally.run("terminal is put back after " + name, terminal_is_put_back, number)
    tally.end()


main()
