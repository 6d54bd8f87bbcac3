#!/usr/bin/python3
"""Our com-port client with other servers: ser2net with a terminal behind it, and pyserial's PortManager with all modem lines."""
import os
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import tty

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from probing import BUILD, LIMIT, Probe, Tally, build_probe, find, free_port, need, skip, wait_for_port  # noqa: E402

try:
    import serial
    import serial.rfc2217
except ImportError:
    skip("there is no python3-serial")

EVERY_BYTE = bytes(range(256)) + b"\xff\xff\r\0\r\n\xff"


def until(condition, what):
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "waited in vain: " + what
        time.sleep(0.01)


class Ser2net:
    """It serves a terminal; `far` is the other end of that."""

    def __init__(self, directory):
        self.port = free_port()
        self.far, self.near = os.openpty()
        tty.setraw(self.near)
        self.config = os.path.join(directory, "ser2net.yaml")
        with open(self.config, "w", encoding="ascii") as f:
            f.write("connection: &c\n  accepter: telnet(rfc2217,mode=server),tcp,127.0.0.1,%d\n  connector: serialdev,%s,9600n81,local,nobreak\n"
                    "  options:\n    kickolduser: true\n" % (self.port, os.ttyname(self.near)))
        self.daemon = None
        self.begin()

    def begin(self):
        self.daemon = subprocess.Popen([find("ser2net"), "-n", "-c", self.config])
        wait_for_port(self.port)

    def look(self):
        settings = termios.tcgetattr(self.near)
        return settings[5], bool(settings[2] & termios.CSTOPB), bool(settings[2] & termios.CRTSCTS)

    def hear(self, size):
        got = b""
        while len(got) < size:
            got += os.read(self.far, size - len(got))
        return got

    def stop(self):
        self.daemon.terminate()
        self.daemon.wait(LIMIT)

    def end(self):
        self.stop()
        os.close(self.far)
        os.close(self.near)


def client(port, more=""):
    return Probe("socket,id=p,host=127.0.0.1,port=%d,telnet=on,com-port=on,reconnect-ms=100%s" % (port, more))


def ser2net(directory):
    """What we set is the terminal's; bytes and break pass; a server that comes back is told again."""
    server = Ser2net(directory)
    try:
        probe = client(server.port)
        probe.say("params 19200 N 8 2")
        probe.expect("opened")
        until(lambda: server.look() == (termios.B19200, True, False), "the first settings")
        probe.say("params 2400 N 8 1")
        until(lambda: server.look() == (termios.B2400, False, False), "other settings")
        probe.say("flow 2")
        until(lambda: server.look()[2], "flow control")
        probe.say("flow 0")
        until(lambda: not server.look()[2], "no flow control")
        probe.say("lines 6")
        probe.say("break")
        probe.write(EVERY_BYTE)
        assert server.hear(len(EVERY_BYTE)) == EVERY_BYTE
        os.write(server.far, EVERY_BYTE)
        probe.data_until(EVERY_BYTE)
        server.stop()
        probe.until("closed")
        probe.say("params 4800 N 8 2")
        server.begin()
        probe.until("opened")
        until(lambda: server.look() == (termios.B4800, True, False), "the settings after a reconnect")
        probe.write(b"after")
        assert server.hear(5) == b"after"
        probe.close()
    finally:
        server.end()


def open_when_it_listens(url, **settings):
    """To look with a connection of its own whether it listens would be a client that comes and goes, of a line that has room for one."""
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            return serial.serial_for_url(url, **settings)
        except serial.SerialException as error:
            if "refused" not in str(error) or time.monotonic() >= deadline:
                raise
            time.sleep(0.02)


def relay_between(directory):
    """pyserial speaks to our server, the relay takes that to our client, and that to ser2net: the settings arrive at the far end."""
    server, port = Ser2net(directory), free_port()
    relay = subprocess.Popen([os.path.join(BUILD, "relay"), "--keep", "telnet:127.0.0.1:%d,server=on,wait=off,com-port=on" % port,
                              "telnet:127.0.0.1:%d,com-port=on,reconnect-ms=100" % server.port])
    try:
        with open_when_it_listens("rfc2217://127.0.0.1:%d?timeout=%d" % (port, LIMIT), baudrate=57600, stopbits=2, timeout=LIMIT) as port_client:
            until(lambda: server.look() == (termios.B57600, True, False), "the settings at the far end")
            port_client.baudrate, port_client.stopbits = 1200, 1
            until(lambda: server.look() == (termios.B1200, False, False), "other settings at the far end")
            port_client.write(b"there\xff")
            assert server.hear(6) == b"there\xff"
            os.write(server.far, b"and back\xff")
            assert port_client.read(9) == b"and back\xff"
    finally:
        relay.terminate()
        relay.wait(LIMIT)
        server.end()


class Stubborn(threading.Thread):
    """Has one speed, whatever it is asked for."""

    def __init__(self, speed):
        super().__init__(daemon=True)
        self.answer = b"\xff\xfa\x2c\x65" + speed.to_bytes(4, "big") + b"\xff\xf0"
        self.asked = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        with self.listener, self.listener.accept()[0] as peer:
            peer.sendall(b"\xff\xfd\x2c")
            while data := peer.recv(4096):
                questions = data.count(b"\xff\xfa\x2c\x01")
                self.asked += questions
                peer.sendall(self.answer * questions)


def relay_between_stubborn_servers(directory):
    """Each corrects what the relay passes on from the other: they don't do that forever."""
    servers = Stubborn(9600), Stubborn(19200)
    relay = subprocess.Popen([os.path.join(BUILD, "relay")] + ["telnet:127.0.0.1:%d,com-port=on" % server.port for server in servers])
    try:
        until(lambda: sum(server.asked for server in servers) > 2, "a question to each, and what one has passed to the other")
        time.sleep(0.5)
        assert all(server.asked < 10 for server in servers), [server.asked for server in servers]
    finally:
        relay.terminate()
        relay.wait(LIMIT)


class PortManager(threading.Thread):
    """pyserial's server, on a port whose output is its input: DTR comes back as DSR, RTS as CTS."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.serial = serial.serial_for_url("loop://", timeout=0)
        self.done = False

    def write(self, data):
        self.peer.sendall(data)

    def run(self):
        self.peer = self.listener.accept()[0]
        self.peer.settimeout(0.02)
        manager = serial.rfc2217.PortManager(self.serial, self)
        while not self.done:
            try:
                data = self.peer.recv(1024)
                if not data:
                    break
                self.serial.write(b"".join(manager.filter(data)))
            except socket.timeout:
                pass
            manager.check_modem_lines()
            echo = self.serial.read(self.serial.in_waiting)
            if echo:
                self.write(b"".join(manager.escape(echo)))
        self.peer.close()

    def end(self):
        self.done = True
        self.join(LIMIT)
        self.listener.close()


def port_manager(directory):
    manager = PortManager()
    manager.start()
    try:
        probe = client(manager.port)
        probe.say("params 9600 E 7 2")
        probe.say("lines 0")
        probe.expect("opened")
        until(lambda: (manager.serial.baudrate, manager.serial.parity, manager.serial.bytesize, manager.serial.stopbits) == (9600, "E", 7, 2),
              "the settings")
        probe.say("params 9600 M 5 15")
        until(lambda: (manager.serial.parity, manager.serial.bytesize, manager.serial.stopbits) == ("M", 5, 1.5), "mark parity, one and a half stop bits")
        probe.say("params 9600 E 7 2")
        until(lambda: not manager.serial.dtr and not manager.serial.rts, "DTR and RTS")
        for ours, theirs in (("2", "140"), ("4", "60"), ("6", "160"), ("0", "40")):
            probe.say("lines " + ours)
            probe.until("serial 9600 E 7 2 0 " + theirs)
        probe.write(EVERY_BYTE)
        probe.data_until(EVERY_BYTE)
        purged = []
        manager.serial.reset_input_buffer = lambda: purged.append(1)
        manager.serial.reset_output_buffer = lambda: purged.append(2)
        probe.say("purge 1")
        probe.say("purge 2")
        until(lambda: purged == [1, 2], "PURGE-DATA")
        probe.close()
    finally:
        manager.end()


signal.alarm(int(8 * LIMIT))  # whatever hangs
need("ser2net")
build_probe()
tally = Tally()
for each in (ser2net, relay_between, relay_between_stubborn_servers, port_manager):
    tally.run(each)
tally.end()
