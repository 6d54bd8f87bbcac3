#!/usr/bin/python3
"""Our telnet and tn3270 client with other servers: inetutils' telnetd, ser2net on a pty, Hercules' 3270 console; and s3270 goes
through the relay to that, by our server and our client."""
import os
import re
import select
import signal
import subprocess
import sys
import time
import tty

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from probing import BUILD, LIMIT, Probe, Tally, build_probe, find, free_port, need, skip, wait_for_port  # noqa: E402

try:
    import pexpect
except ImportError:
    skip("there is no python3-pexpect")


def client(port, more="telnet=on"):
    """It tries until the server listens: ser2net serves one at a time, and would be busy yet with whoever tried before."""
    return Probe("socket,id=p,host=127.0.0.1,port=%d,reconnect-ms=50,%s" % (port, more))


def read_exactly(fd, size):
    got = b""
    while len(got) < size:
        assert select.select([fd], [], [], LIMIT)[0], "%d of %d bytes have come" % (len(got), size)
        got += os.read(fd, size - len(got))
    return got


def talk_to_login(probe):
    """What stands for login prints a line, reads one, prints it changed, and ends when another has come."""
    probe.expect("opened")
    probe.data_until(b"who? ")
    probe.write(b"me\r")
    assert b"hello me" in probe.data_until(b"hello me")
    probe.data_until(b"bye")
    probe.write(b"\r")
    probe.expect("closed")
    probe.close()


def login_script(directory):
    """It waits before it ends: when its child has gone, telnetd hangs up and forgets what it has not yet read of its words."""
    path = os.path.join(directory, "login")
    with open(path, "w", encoding="ascii") as script:
        script.write("#!/bin/sh\nprintf 'who? '\nread -r name\necho \"hello $name\"\nprintf bye\nread -r enough\n")
    os.chmod(path, 0o755)
    return path


def inetutils(directory):
    """telnetd serves one connection on its standard input, as inetd starts it; socat is the inetd."""
    port = free_port()
    inetd = subprocess.Popen(["socat", "TCP4-LISTEN:%d,bind=127.0.0.1,reuseaddr" % port,
                              "EXEC:%s -h -E %s,nofork" % (find("telnetd"), login_script(directory))])
    try:
        talk_to_login(client(port))
    finally:
        inetd.terminate()
        inetd.wait(LIMIT)


class Telnetd:
    """telnetd whose login tells what terminal it has, again for each line that it reads."""

    def __init__(self, directory):
        path = os.path.join(directory, "login")
        with open(path, "w", encoding="ascii") as script:
            script.write('#!/bin/sh\nprintf "ready. "\nwhile read -r line; do echo "$line: $TERM $(stty size)."; done\n')
        os.chmod(path, 0o755)
        self.port = free_port()
        self.inetd = subprocess.Popen(["socat", "TCP4-LISTEN:%d,bind=127.0.0.1,reuseaddr" % self.port,
                                       "EXEC:%s -h -E %s,nofork" % (find("telnetd"), path)])

    def end(self):
        self.inetd.terminate()
        self.inetd.wait(LIMIT)


def terminal(directory):
    """The terminal's type and size, and each change of that."""
    server = Telnetd(directory)
    try:
        probe = client(server.port, "telnet=on,terminal-type=VT220")
        probe.say("size 132 50")
        probe.data_until(b"ready. ")
        probe.write(b"one\r")
        assert probe.data_until(b".").split(b": ")[-1].lower() == b"vt220 50 132."
        probe.say("size 255 65535")
        probe.write(b"two\r")
        assert probe.data_until(b".").split(b": ")[-1].lower() == b"vt220 65535 255."
        probe.close()
    finally:
        server.end()


def relay_passes_the_size(directory):
    """What the relay's own terminal has, is what its server hears, at first and after a change."""
    server = Telnetd(directory)
    try:
        relay = pexpect.spawn(os.path.join(BUILD, "relay"), ["stdio", "telnet:127.0.0.1:%d,reconnect-ms=50" % server.port],
                              timeout=LIMIT, dimensions=(24, 80))
        relay.expect_exact(b"ready. ")
        relay.send(b"one\r")
        relay.expect_exact(b"one: unknown 24 80.")
        relay.setwinsize(43, 100)
        for number in range(int(10 * LIMIT)):  # it is noticed within half a second
            relay.send(b"%d\r" % number)
            relay.expect(rb"\d+: unknown (\d+ \d+)\.")
            if relay.match.group(1) == b"43 100":
                break
        else:
            raise AssertionError("the size is still " + relay.match.group(1).decode())
        relay.close(force=True)
    finally:
        server.end()


class Hercules:
    """A mainframe whose console is a 3270."""

    def __init__(self, directory):
        self.port = free_port()
        config = os.path.join(directory, "hercules.cnf")
        with open(config, "w", encoding="ascii") as f:
            f.write("ARCHMODE S/390\nCPUSERIAL 000001\nCPUMODEL 3090\nMAINSIZE 2\nNUMCPU 1\nCNSLPORT 127.0.0.1:%d\n0009 3270\n" % self.port)
        self.process = subprocess.Popen([find("hercules"), "-d", "-f", config], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, cwd=directory)
        wait_for_port(self.port)

    def end(self):
        self.process.kill()
        self.process.wait(LIMIT)
        self.process.stdin.close()


def hercules(directory):
    """OPENED after the negotiation; its greeting is a screen, and what is typed and Enter is answered."""
    host = Hercules(directory)
    try:
        probe = client(host.port, "tn3270=on,terminal-type=IBM-3278-2")
        probe.expect("opened")
        record = probe.data_until(b"\xff\xef")
        assert record[0] in (0xf1, 0xf5, 0x7e) and b"\xff\xfa" not in record, record
        text = record.decode("cp037", "replace")
        assert "Hercules" in text, text
        assert "0009" in text, text
        probe.say("disconnect")
        probe.expect("closed")
        probe.expect("opened")
        probe.close()
    finally:
        host.end()


def wait_for_listener(port):
    """Without a connection, which would get the greeting."""
    deadline = time.monotonic() + LIMIT
    while " 0100007F:%04X 00000000:0000 0A " % port not in open("/proc/net/tcp", encoding="ascii").read():
        assert time.monotonic() < deadline, "nobody listens on port %d" % port
        time.sleep(0.02)


def s3270_by_relay(directory):
    """s3270 speaks to our server, the relay takes that to our client, and that to Hercules: its greeting is on the screen."""
    host, port = Hercules(directory), free_port()
    relay = subprocess.Popen([os.path.join(BUILD, "relay"), "--keep", "tn3270:127.0.0.1:%d,server=on,wait=off" % port,
                              "tn3270:127.0.0.1:%d,reconnect-ms=50" % host.port])
    try:
        wait_for_listener(port)
        screen = subprocess.Popen(["s3270", "-model", "3278-2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        out, _ = screen.communicate(b"Connect(127.0.0.1:%d)\nWait(10,InputField)\nQuery(ConnectionState)\nAscii()\nQuit()\n" % port, LIMIT)
        assert b"connected-3270" in out, out
        assert re.search(rb"data: .*Hercules", out), out
    finally:
        relay.terminate()
        relay.wait(LIMIT)
        host.end()


def ser2net(directory):
    """All 256 bytes both ways through a serial line, and BREAK is taken."""
    port = free_port()
    far, near = os.openpty()
    tty.setraw(near)
    config = os.path.join(directory, "ser2net.yaml")
    with open(config, "w", encoding="ascii") as f:
        f.write("connection: &c\n  accepter: telnet,tcp,127.0.0.1,%d\n  connector: serialdev,%s,9600n81,local,nobreak\n"
                % (port, os.ttyname(near)))
    daemon = subprocess.Popen([find("ser2net"), "-n", "-c", config])
    try:
        probe = client(port)
        probe.expect("opened")
        every = bytes(range(256)) + b"\r\0\r\n\xff\xff"
        probe.write(every)
        got = read_exactly(far, len(every))
        assert got == every, got
        os.write(far, every)
        probe.data(every)
        probe.say("break")
        probe.write(b"after")
        assert read_exactly(far, 5) == b"after"
    finally:
        daemon.terminate()
        daemon.wait(LIMIT)
    probe.expect("closed")
    probe.close()
    os.close(far)
    os.close(near)


need("socat", "telnetd", "ser2net", "hercules", "s3270")
signal.alarm(int(8 * LIMIT))  # whatever hangs
build_probe()
tally = Tally()
for each in (inetutils, terminal, relay_passes_the_size, hercules, s3270_by_relay, ser2net):
    tally.run(each)
tally.end()
