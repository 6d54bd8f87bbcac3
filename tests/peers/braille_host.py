#!/usr/bin/python3
"""braille's host side against brltty, whose Virtual driver makes it a BrlAPI server with a display that the script reads. The
guest is this script: it uses the Baum protocol at the other end of a relay."""
import os
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from brltty import BRLTTY, LIMIT, Display, Process, free_number, run  # noqa: E402
from relaying import RELAY, exactly, until  # noqa: E402

DOTS = {"h": 0x13, "e": 0x11, "l": 0x07, "o": 0x15, "a": 0x01, "g": 0x1b, "i": 0x0a, "n": 0x1d, "A": 0x41, " ": 0}


class Guest:
    """Between this script and the display server: a relay."""

    def __init__(self, directory, options):
        path = os.path.join(directory, "guest")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(LIMIT)
        self.relay = Process([RELAY, "braille," + options, "unix:" + path])
        self.socket = listener.accept()[0]
        listener.close()

    def say(self, code, data=b""):
        self.socket.sendall(b"\x1b" + bytes([code]) + data.replace(b"\x1b", b"\x1b\x1b"))

    def row(self, text, cursor=0, cells=40):
        row = bytearray(DOTS[c] for c in text.ljust(cells))
        if cursor:
            row[cursor - 1] |= 0xc0
        self.say(1, bytes(row))

    def hears(self, expected):
        self.socket.settimeout(LIMIT)
        got = exactly(self.socket, len(expected))
        assert got == expected, "the guest hears %r, not %r" % (got, expected)

    def finds_a_device(self):
        """As a driver does: asks until somebody is there."""
        identity = b"\x1b\x84Baum Vario 40   "
        self.socket.settimeout(0.1)
        deadline = time.monotonic() + LIMIT
        got = b""
        while not got:
            assert time.monotonic() < deadline, "no device"
            self.say(0x84)
            try:
                got = self.socket.recv(1)
            except socket.timeout:
                pass
        self.hears(identity[1:])

    def close(self):
        self.socket.close()
        self.relay.kill()


def shows_rows_and_hears_keys(directory):
    number = free_number()
    display, guest = Display(directory, "auth=none,host=127.0.0.1:%d" % number), Guest(directory, "host=127.0.0.1:%d" % number)
    try:
        guest.finds_a_device()
        guest.row("hello")
        display.shows("hello")
        assert display.last("Braille").startswith("125|15|123|123|135| |"), display.last("Braille")
        guest.row("hello again A", cursor=3)
        display.shows("hello again A")
        dots = display.last("Braille").split("|")
        assert dots[12] == "17" and dots[2] in ("12378", "123"), dots  # the cursor may blink
        for line, hears in (("LnUp", b"\x1b\x24\x08"), ("LnDn", b"\x1b\x24\x20"), ("FwinLt", b"\x1b\x24\x02"), ("FwinRt", b"\x1b\x24\x10"),
                            ("Home", b"\x1b\x24\x2a"), ("Top", b"\x1b\x24\x09"), ("Bot", b"\x1b\x24\x24"), ("PrefMenu", b"\x1b\x24\x0d"),
                            ("Route 1", b"\x1b\x27\x02"), ("Route 26", b"\x1b\x27\x1b\x1b"), ("Route 39", b"\x1b\x27\x28"),
                            ("PassChar 65", b"\x1b\x33\x00\x41"), ("PassDots 13", b"\x1b\x33\x00\x0d")):
            display.tell(line)
            guest.hears(hears)
            guest.hears(hears[:2] + b"\0" * (2 if hears[1] == 0x33 else 1))
    finally:
        guest.close()
        display.close()


def display_of_another_size(directory):
    number = free_number()
    display, guest = Display(directory, "auth=none,host=127.0.0.1:%d" % number), Guest(directory, "host=127.0.0.1:%d" % number)
    try:
        guest.finds_a_device()
        guest.row("hello")
        display.shows("hello")
        display.tell("Cells 20 1")
        guest.hears(b"\x1b\x01\x14")
        guest.row("hello again", cells=20)
        display.shows("hello again")
    finally:
        guest.close()
        display.close()


def server_that_goes_and_comes_back(directory):
    number = free_number()
    api = "auth=none,host=127.0.0.1:%d" % number
    guest = Guest(directory, "host=127.0.0.1:%d" % number)  # it is there before its server
    display = Display(directory, api)
    try:
        guest.finds_a_device()
        guest.row("hello")
        display.shows("hello")
        display.close()
        for _ in range(100):
            guest.row("again")
        guest.row("alone")
        guest.say(0x05)
        guest.hears(b"\x1b\x05\x01")  # the device is still there
        display = Display(directory, api)
        display.shows("alone")
        guest.row("again")
        display.shows("again")
        display.tell("LnDn")
        guest.hears(b"\x1b\x24\x20\x1b\x24\x00")
        assert guest.relay.said().count("chardev") <= 2, guest.relay.said()
    finally:
        guest.close()
        display.close()


def local_socket_and_key(directory):
    if os.geteuid() != 0:
        return "brltty makes its local socket for root alone"
    number, key = free_number(), os.path.join(directory, "key")
    with open(key, "w") as file:
        file.write("open sesame\n")
    display = Display(directory, "auth=keyfile:%s,host=:%d" % (key, number))
    guest = Guest(directory, "host=:%d,key=%s" % (number, key))
    try:
        guest.finds_a_device()
        guest.row("hello")
        display.shows("hello")
    finally:
        guest.close()
        display.close()
    return None


def wrong_key(directory):
    number, key, other = free_number(), os.path.join(directory, "key"), os.path.join(directory, "other")
    for path, text in ((key, "open sesame\n"), (other, "open barley\n")):
        with open(path, "w") as file:
            file.write(text)
    display = Display(directory, "auth=keyfile:%s,host=127.0.0.1:%d" % (key, number))
    guest = Guest(directory, "host=127.0.0.1:%d,key=%s" % (number, other))
    try:
        until(lambda: "let us in" in guest.relay.said(), "the relay's word about its key", LIMIT)
    finally:
        guest.close()
        display.close()


if __name__ == "__main__":
    if not BRLTTY:
        print("brltty is not installed")
        sys.exit(77)
    sys.exit(run((shows_rows_and_hears_keys, display_of_another_size, server_that_goes_and_comes_back, local_socket_and_key, wrong_key)))
