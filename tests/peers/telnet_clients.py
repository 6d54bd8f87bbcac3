#!/usr/bin/python3
"""Our telnet and tn3270 server with other clients: inetutils' telnet, putty's plink, busybox' telnet, s3270."""
import os
import signal
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from probing import LIMIT, Tally, build_probe, need, server, skip  # noqa: E402

try:
    import pexpect
except ImportError:
    skip("there is no python3-pexpect")


def inetutils(directory):
    """Both ways, 0xFF and CR included; BREAK; Synch; the window's size; and a second client after the first."""
    probe, port = server("telnet")
    for _ in range(2):
        client = pexpect.spawn("telnet", ["-e", "^]", "127.0.0.1", str(port)], timeout=LIMIT, dimensions=(24, 80))
        probe.expect("opened")
        probe.expect("resized 80 24")
        probe.write(b"login: ")
        client.expect_exact(b"login: ")
        client.send(b"root\r")
        probe.data(b"root\r")
        probe.write(b"<\xff\r\n>")
        client.expect_exact(b"<\xff\r\n>")
        client.send(b"\x1d")
        client.expect_exact(b"telnet> ")
        client.send(b"send brk\r")
        probe.expect("break")
        for sent in (b"before", b"after"):  # a Synch takes nothing away and leaves nothing
            client.send(b"\x1d")
            client.expect_exact(b"telnet> ")
            client.send(b"send synch\r")
            client.send(sent)
            probe.data(sent)
        client.setwinsize(50, 132)
        probe.expect("resized 132 50")
        client.send(b"\x1d")
        client.expect_exact(b"telnet> ")
        client.send(b"quit\r")
        client.expect(pexpect.EOF)
        client.close()
        probe.expect("closed")
    probe.close()


def plink(directory):
    probe, port = server("telnet")
    client = pexpect.spawn("plink", ["-telnet", "-P", str(port), "127.0.0.1"], timeout=LIMIT, dimensions=(25, 100))
    probe.expect("opened")
    probe.write(b"login: ")
    client.expect_exact(b"login: ")
    client.send(b"root\r")
    assert probe.data_until(b"root") == b"root"
    probe.data_until(b"\r")
    probe.write(b"<\xff\r\n>")
    client.expect_exact(b"<\xff\r\n>")
    probe.say("disconnect")
    client.expect(pexpect.EOF)
    client.close()
    probe.expect("closed")
    probe.close()


def busybox(directory):
    """A client that knows little more than ECHO and SGA."""
    probe, port = server("telnet")
    client = pexpect.spawn("busybox", ["telnet", "127.0.0.1", str(port)], timeout=LIMIT, dimensions=(30, 90))
    probe.expect("opened")
    probe.expect("resized 90 30")
    client.send(b"root\r")
    assert probe.data_until(b"root") == b"root"
    probe.write(b"<\xff\r\n>")
    client.expect_exact(b"<\xff\r\n>")
    probe.say("disconnect")
    client.expect(pexpect.EOF)
    client.close()
    probe.expect("closed")
    probe.close()


def mute(directory):
    """A peer that knows nothing of telnet is greeted and served."""
    probe, port = server("telnet")
    peer = socket.create_connection(("127.0.0.1", port), LIMIT)
    probe.expect("opened")
    assert peer.recv(100) == b"\xff\xfb\x01\xff\xfb\x03\xff\xfb\x00\xff\xfd\x00"
    peer.sendall(b"plain\n")
    probe.data(b"plain\n")
    peer.close()
    probe.expect("closed")
    probe.close()


def answer(client, text):
    lines = []
    while True:
        line = client.stdout.readline().decode()
        assert line, "s3270 has ended after " + text
        if line.startswith("data: "):
            lines.append(line[6:].rstrip("\n"))
        elif line.startswith(("ok", "error")):
            assert line.startswith("ok"), "s3270: %s: %s" % (text, lines)
            return "\n".join(lines)


def action(client, text):
    client.stdin.write(text.encode() + b"\n")
    return answer(client, text)


def s3270(directory):
    """3270 mode is reached, a screen is shown, what is typed and Enter come back; in a second record Clear."""
    probe, port = server("tn3270")
    client = subprocess.Popen(["s3270", "-model", "3279-4-E"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    client.stdin.write(b"Connect(127.0.0.1:%d)\n" % port)  # it answers when it has got a screen
    probe.expect("opened")
    assert probe.data_until(b"\xff\xf0") == b"\xff\xfa\x18\x00IBM-3279-4-E\xff\xf0"
    text = "HELLO".encode("cp037")
    probe.write(b"\xf5\xc3\x11\x40\x40" + text + b"\x1d\x40\x13\xff\xef")
    answer(client, "Connect")
    action(client, "Wait(5,InputField)")
    assert action(client, "Query(ConnectionState)") == "connected-3270"
    assert "HELLO" in action(client, "Ascii()")
    action(client, 'String("ab")')
    client.stdin.write(b"Enter()\n")
    record = probe.data_until(b"\xff\xef")
    assert record[0] == 0x7d and "ab".encode("cp037") in record, record
    probe.write(b"\xf5\xc3\x11\x40\x40" + "AGAIN".encode("cp037") + b"\x1d\x40\x13\xff\xef")
    answer(client, "Enter")
    assert "AGAIN" in action(client, "Ascii()")
    client.stdin.write(b"Quit()\n")
    client.wait(LIMIT)
    probe.expect("closed")
    probe.close()


signal.alarm(int(8 * LIMIT))  # whatever hangs
need("telnet", "plink", "busybox", "s3270")
build_probe()
tally = Tally()
for each in (inetutils, plink, busybox, mute, s3270):
    tally.run(each)
tally.end()
