#!/usr/bin/python3
"""relay while peers disconnect and reconnect: input for a disconnected side is kept, and no byte is lost or duplicated.

RELAY_BYTES   how many in all the rounds of a case (default 24 MiB: each burst is more than all the buffers on the way)
"""
import hashlib
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from relaying import LIMIT, Receiver, Relay, Sender, Tally, exactly, until  # noqa: E402

ROUNDS = 8
BURST = int(os.environ.get("RELAY_BYTES", 24 << 20)) // ROUNDS


def unix_listener(directory, name):
    path = os.path.join(directory, name)
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    listener.settimeout(LIMIT)
    return listener


def tcp_listener(port):
    listener = socket.create_server(("127.0.0.1", port))
    listener.settimeout(LIMIT)
    return listener


def accept(listener):
    peer = listener.accept()[0]
    peer.setblocking(True)
    listener.close()
    return peer


def leave(peer):
    """Says goodbye, and waits until the relay has closed its end: from now on it knows that nobody is there."""
    peer.shutdown(socket.SHUT_WR)
    peer.settimeout(LIMIT)
    assert peer.recv(1) == b"", "bytes after the last one"
    peer.close()


def exchange(sender_end, receiver_end, digests):
    """Takes one burst, of a sender that may have started before its receiver came."""
    sender = sender_end
    receiver = Receiver(receiver_end.fileno(), BURST)
    receiver.start()
    receiver.join(LIMIT)
    sender.join(LIMIT)
    assert receiver.count == BURST, "%d of %d bytes" % (receiver.count, BURST)
    digests[0].update(sender.hash.digest())
    digests[1].update(receiver.hash.digest())


def start_burst(peer):
    sender = Sender(peer.fileno(), BURST)
    sender.start()
    return sender


def client_reconnects(directory, listen, argument):
    """b is a client with reconnect-ms; its server closes, listener and all, and comes back in each round."""
    first = unix_listener(directory, "a")
    listener = listen()
    relay = Relay("socket,fd=%d,server=on,wait=off" % first.fileno(), argument, fds=(first.fileno(),))
    digests = hashlib.sha256(), hashlib.sha256()
    try:
        a = socket.socket(socket.AF_UNIX)
        a.connect(os.path.join(directory, "a"))
        for _ in range(ROUNDS):
            sender = start_burst(a)  # nobody is there, except in the first round
            b = accept(listener)
            exchange(sender, b, digests)
            leave(b)
            listener = listen()
        assert digests[0].digest() == digests[1].digest(), "the bytes differ"
        relay.terminate()
    finally:
        relay.kill()


def sends_and_leaves(directory, family):
    """Each peer of b's server sends its burst and closes at once; a gets every byte of all of them."""
    a_listener = unix_listener(directory, "a")
    b_listener = unix_listener(directory, "b") if family == "unix" else tcp_listener(0)
    relay = Relay("unix:" + os.path.join(directory, "a"), "socket,fd=%d,server=on,wait=off" % b_listener.fileno(),
                  fds=(b_listener.fileno(),))
    sent = hashlib.sha256()
    try:
        a = accept(a_listener)
        receiver = Receiver(a.fileno(), ROUNDS * BURST)
        receiver.start()
        for _ in range(ROUNDS):
            b = socket.socket(b_listener.family)
            b.connect(b_listener.getsockname())
            sender = Sender(b.fileno(), BURST)
            sender.hash = sent
            sender.run()
            b.close()
        receiver.join(LIMIT)
        assert receiver.count == ROUNDS * BURST, "%d of %d bytes" % (receiver.count, ROUNDS * BURST)
        assert receiver.hash.digest() == sent.digest(), "the bytes differ"
        a.close()
        relay.ends(0)
    finally:
        relay.kill()


def pty_comes_and_goes(directory):
    """A terminal program opens the pty, types, reads, and leaves; what is sent meanwhile waits for the next one."""
    listener = unix_listener(directory, "a")
    link = os.path.join(directory, "tty")
    relay = Relay("unix:" + os.path.join(directory, "a"), "pty,path=" + link)
    try:
        a = accept(listener)
        a.settimeout(LIMIT)
        until(lambda: os.path.exists(link) or relay.runs(), "the pty's link")
        for i in range(3):
            line = b"round %d\n" % i
            a.sendall(line)
            tty = os.open(link, os.O_RDWR | os.O_NOCTTY)
            got = b""
            while len(got) < len(line):
                got += os.read(tty, 100)
            assert got == line, "the terminal got %r" % got
            os.write(tty, b"typed " + line)
            os.close(tty)
            got = exactly(a, 6 + len(line))
            assert got == b"typed " + line, "from the terminal: %r" % got
        a.close()
        relay.ends(0)
        assert not os.path.lexists(link), "the link is left behind"
    finally:
        relay.kill()


def pty_seen_too_late(directory):
    """Somebody types a line and leaves before the relay has noticed that they came; and again at once, while it reads that."""
    listener = unix_listener(directory, "a")
    link = os.path.join(directory, "tty")
    relay = Relay("unix:" + os.path.join(directory, "a"), "pty,path=" + link)
    try:
        a = accept(listener)
        a.settimeout(LIMIT)
        until(lambda: os.path.exists(link) or relay.runs(), "the pty's link")
        for i in range(40):
            tty = os.open(link, os.O_RDWR | os.O_NOCTTY)
            os.write(tty, b"%03d\n" % i)
            os.close(tty)
            if i % 10 == 9:
                got = exactly(a, 40)
                assert got == b"".join(b"%03d\n" % n for n in range(i - 9, i + 1)), "%r arrived" % got
        relay.terminate()
    finally:
        relay.kill()


def main():
    tally = Tally()
    tally.run("unix client with reconnect-ms", lambda d: client_reconnects(
        d, lambda: unix_listener(d, "b"), "socket,path=%s/b,reconnect-ms=50" % d))
    probe = tcp_listener(0)
    port = probe.getsockname()[1]
    probe.close()
    tally.run("tcp client with reconnect-ms", lambda d: client_reconnects(
        d, lambda: tcp_listener(port), "socket,host=127.0.0.1,port=%d,reconnect-ms=50" % port))
    tally.run("unix peers send and leave", sends_and_leaves, "unix")
    tally.run("tcp peers send and leave", sends_and_leaves, "tcp")
    tally.run("pty comes and goes", pty_comes_and_goes)
    tally.run("pty is opened and closed between two looks", pty_seen_too_late)
    tally.end()


main()
