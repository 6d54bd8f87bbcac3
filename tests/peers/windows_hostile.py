#!/usr/bin/python3
"""Hostile peers of relay.exe under Wine: silent in a handshake, reset in it, floods, slow readers. The next peer is served, memory stays
bounded, and no CPU time is used afterwards."""
import os
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from windows import LIMIT, Program, Thread, call, exactly, free_port, has_backend, need_exes, run_all, skip, until, up_to  # noqa: E402

need_exes("relay")
if not has_backend("socket"):
    skip("relay.exe has no socket")

RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER of 0 seconds
UPGRADE = (b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
           b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: binary\r\n\r\n")


class Server:
    """relay.exe with what is attacked on one port, and a plain TCP server on another that the script is connected to: `near`."""

    def __init__(self, text):
        self.port, inner = free_port(), free_port()
        self.relay = Program("relay", text.replace("PORT", str(self.port)), "tcp:127.0.0.1:%d,server=on,wait=off" % inner)
        self.relay.listens(inner)
        self.relay.listens(self.port)
        self.near = call(inner)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.near.close()
        self.relay.kill()

    def resident(self):
        with open("/proc/%d/statm" % self.relay.process.pid, encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def reset(peer):
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    peer.close()


def websocket(port):
    peer = call(port)
    peer.sendall(UPGRADE)
    assert b" 101 " in up_to(peer, b"\r\n\r\n")
    return peer


def silent_handshakes(_):
    """Ten that say nothing keep nobody out, and are closed when another has completed its handshake."""
    with Server("websocket:127.0.0.1:PORT,server=on,wait=off") as s:
        silent = [call(s.port) for _ in range(10)]
        silent[0].sendall(UPGRADE[:30])
        peer = websocket(s.port)
        peer.sendall(b"\x82\x85\0\0\0\0hello")
        assert exactly(s.near, 5) == b"hello"
        s.relay.rests()
        for one in silent:
            one.settimeout(LIMIT)
            while one.recv(1000):  # it may be told why
                pass
        s.near.sendall(b"still")
        assert exactly(peer, 7) == b"\x82\5still"


def resets_in_handshakes(_):
    """At each point of it; telnet too. The next one is served."""
    for text, words in (("websocket:127.0.0.1:PORT,server=on,wait=off", UPGRADE), ("telnet:127.0.0.1:PORT,server=on,wait=off", b"\xff\xfd\x01\xff\xfa\x1f\0")):
        with Server(text) as s:
            for turn in range(60):
                peer = call(s.port)
                peer.sendall(words[:turn * len(words) // 60])
                if turn % 3 == 0:
                    time.sleep(0.005)
                reset(peer)
            if text.startswith("web"):
                peer = websocket(s.port)
                peer.sendall(b"\x82\x85\0\0\0\0hello")
            else:
                peer = call(s.port)
                peer.sendall(b"hello")
            assert exactly(s.near, 5) == b"hello"
            s.relay.rests()
            peer.close()


def floods(_):
    """What is no protocol, without end: it is closed, or costs no memory."""
    for text, words in (("websocket:127.0.0.1:PORT,server=on,wait=off", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200000),
                        ("telnet:127.0.0.1:PORT,server=on,wait=off", b"\xff\xfa\x1f" + b"x" * 2000000),
                        ("telnet:127.0.0.1:PORT,server=on,wait=off", b"\xff\xfd\x01\xff\xfe\x01" * 100000)):
        with Server(text) as s:
            before, peer = s.resident(), call(s.port)
            peer.settimeout(5)
            try:
                peer.sendall(words)
            except OSError:
                pass
            assert s.resident() < before + (16 << 20), "%d MiB more" % ((s.resident() - before) >> 20)
            reset(peer)
            time.sleep(0.1)
            s.relay.runs()
            s.relay.rests()


def slow_readers(_):
    """Back-pressure: a reader that sleeps stops the writer, costs neither memory nor time, and gets all in the end."""
    with Server("tcp:127.0.0.1:PORT,server=on,wait=off") as s:
        data, peer = os.urandom(32 << 20), call(s.port)
        before = s.resident()
        sending = Thread(s.near.sendall, data)
        time.sleep(1)
        assert sending.is_alive(), "32 MiB were taken for a reader that sleeps"
        s.relay.rests()
        assert s.resident() < before + (8 << 20), "%d MiB more" % ((s.resident() - before) >> 20)
        assert exactly(peer, len(data)) == data, "the bytes differ"
        sending.result()
        s.relay.rests()


def connects_at_once(_):
    """300 peers of a server for one: each is served in turn, or turned away, and the server goes on."""
    with Server("tcp:127.0.0.1:PORT,server=on,wait=off") as s:
        peers = []
        for _ in range(300):
            peer = socket.socket()
            peer.setblocking(False)
            peer.connect_ex(("127.0.0.1", s.port))
            peers.append(peer)
        time.sleep(0.5)
        for peer in peers:
            reset(peer)

        def served():
            with call(s.port) as peer:
                peer.settimeout(1)
                try:
                    peer.sendall(b"hello")
                    s.near.settimeout(1)
                    return s.near.recv(5) == b"hello"
                except OSError:
                    return False

        until(served, "the next one is served")
        s.relay.rests()


run_all([silent_handshakes, resets_in_handshakes, floods, slow_readers, connects_at_once])
