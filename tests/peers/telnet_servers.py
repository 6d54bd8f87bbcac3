#!/usr/bin/python3
"""Our telnet client meets other people's servers: inetutils' telnetd, ser2net on a pty."""
import os
import select
import signal
import subprocess
import sys
import tty

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from probing import LIMIT, Probe, Tally, build_probe, find, free_port, need  # noqa: E402


def client(port):
    """It tries until the server listens: ser2net serves one at a time, and would be busy yet with whoever tried before."""
    return Probe("socket,id=p,host=127.0.0.1,port=%d,telnet=on,reconnect-ms=50" % port)


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


need("socat", "telnetd", "ser2net")
signal.alarm(int(6 * LIMIT))  # whatever hangs
build_probe()
tally = Tally()
for each in (inetutils, ser2net):
    tally.run(each)
tally.end()
