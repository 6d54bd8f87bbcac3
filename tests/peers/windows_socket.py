#!/usr/bin/python3
"""relay.exe under Wine with Linux programs: socat, telnet, websockets, pyserial, udp."""
import asyncio
import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from windows import LIMIT, ROOT, Program, Skipped, Thread, call, exactly, free_port, has_backend, listens, need_exes, run, run_all, skip, until, up_to  # noqa: E402

need_exes("relay")
if not has_backend("socket"):
    skip("relay.exe has no socket")

EVERY_BYTE = bytes(range(256)) * 400 + b"\xff\xff\r\0\r\n\xff"
SERVER = "tcp:127.0.0.1:PORT,server=on,wait=off"


def on_port(text, port):
    return text.replace("PORT", str(port))


class Joined:
    """relay.exe between what is tested, `far` with PORT for a free one, and a TCP server that the script is connected to: `near`."""

    def __init__(self, far, *objects, listens=True):
        self.port, inner = free_port(), free_port()
        self.relay = Program("relay", *objects, on_port(far, self.port), on_port(SERVER, inner))
        try:
            self.relay.listens(inner)
            if listens:
                self.relay.listens(self.port)
            self.near = call(inner)
        except BaseException:
            self.relay.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.near.close()
        self.relay.kill()

    def exchange(self, far, data=EVERY_BYTE):
        """The same both ways; `far` has sendall() and recv()."""
        sending = Thread(far.sendall, data)
        assert exactly(self.near, len(data)) == data, "what came from the far side differs"
        sending.result()
        sending = Thread(self.near.sendall, data)
        assert exactly(far, len(data)) == data, "what went to the far side differs"
        sending.result()


def need(program):
    if not shutil.which(program):
        raise Skipped("there is no " + program)


# ---- raw TCP ----


def raw(_):
    """Four peers, one after the other; the server goes on."""
    with Joined(SERVER) as j:
        for _ in range(4):
            far = call(j.port)
            j.exchange(far)
            far.close()


def no_lost_wake_up(_):
    """A byte at a time, this way and that, while both sides are asked for anew all the time: none waits for the next one."""
    with Joined(SERVER) as j:
        for _ in range(100):
            far = call(j.port)
            far.settimeout(LIMIT)
            for _ in range(5):
                far.sendall(b"x")
                assert j.near.recv(1) == b"x"
                j.near.sendall(b"y")
                assert far.recv(1) == b"y"
            far.close()


def socat_through(directory):
    """A file, from one socat through the relay into another; the end of input too, which ends all three."""
    need("socat")
    source, copy, ports = os.path.join(directory, "source"), os.path.join(directory, "copy"), (free_port(), free_port())
    with open(source, "wb") as file:
        file.write(os.urandom(8 << 20))
    socats = [subprocess.Popen(["socat", "-u", "FILE:" + source, "TCP-LISTEN:%d,bind=127.0.0.1" % ports[0]]),
              subprocess.Popen(["socat", "-u", "TCP-LISTEN:%d,bind=127.0.0.1" % ports[1], "OPEN:%s,creat" % copy])]
    try:
        until(lambda: all(listens(port) for port in ports), "both socats listen")
        with Program("relay", *["tcp:127.0.0.1:%d" % port for port in ports]) as relay:
            for program in socats:
                assert program.wait(LIMIT) == 0
            relay.ends(0)
        with open(source, "rb") as a, open(copy, "rb") as b:
            assert hashlib.sha256(a.read()).digest() == hashlib.sha256(b.read()).digest(), "the copy differs"
    finally:
        for program in socats:
            program.kill()
            program.wait()


def half_close(_):
    """Two clients: the end of input of one is passed on, the other still answers, and then the relay ends."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    with Program("relay", *["tcp:127.0.0.1:%d" % s.getsockname()[1] for s in servers]) as relay:
        peers = []
        for s in servers:
            s.settimeout(LIMIT)
            peers.append(s.accept()[0])
        peers[0].settimeout(LIMIT), peers[1].settimeout(LIMIT)
        peers[0].sendall(b"a question")
        peers[0].shutdown(socket.SHUT_WR)
        assert exactly(peers[1], 10) == b"a question" and peers[1].recv(1) == b""
        peers[1].sendall(b"its answer")
        peers[1].close()
        assert exactly(peers[0], 10) == b"its answer" and peers[0].recv(1) == b""
        relay.ends(0)


def reconnects(_):
    """A client comes back to a server that went away, was not there, or reset it."""
    port = free_port()
    with Joined("tcp:127.0.0.1:%d,reconnect-ms=100" % port, listens=False) as j:
        for turn in range(4):
            time.sleep(0.2)  # it is refused meanwhile
            with socket.create_server(("127.0.0.1", port)) as listener:
                listener.settimeout(LIMIT)
                far = listener.accept()[0]
            far.settimeout(LIMIT)
            j.exchange(far, b"turn %d" % turn * 100)
            if turn % 2:
                far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            far.close()


def ipv6(_):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        raise Skipped("no IPv6 here: %s" % error) from None
    with Joined("socket,host=::1,port=PORT,server=on,wait=off", listens=False) as j:
        far = None
        until(lambda: j.relay.runs() and ":%04X 0000" % j.port in open("/proc/net/tcp6", encoding="ascii").read(), "it listens")
        far = socket.create_connection(("::1", j.port), LIMIT)
        j.exchange(far)
        far.close()


def both_families(_):
    """A server with an empty host listens to both families, as on Unix."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        raise Skipped("no IPv6 here: %s" % error) from None
    with Joined("socket,port=PORT,server=on,wait=off", listens=False) as j:
        for host in ("127.0.0.1", "::1", "127.0.0.1"):
            until(lambda: j.relay.runs() and ":%04X 0000" % j.port in open("/proc/net/tcp6", encoding="ascii").read(), "it listens")
            far = socket.create_connection((host, j.port), LIMIT)
            j.exchange(far, b"over " + host.encode())
            far.close()


def busy_port(_):
    """A port that is taken is an error in one line that names it, on both sides of the border; nobody shares it."""
    with socket.create_server(("127.0.0.1", 0)) as mine:
        port = mine.getsockname()[1]
        status, _, text = run("relay", on_port(SERVER, port), "null")
        assert status == 2 and str(port) in text and text.count("\n") == 1, text
    with Joined(SERVER) as j:
        status, _, text = run("relay", on_port(SERVER, j.port), "null")
        assert status == 2 and str(j.port) in text and text.count("\n") == 1, text


def errors(_):
    """One line each, as on Unix; unix sockets say why."""
    status, _, text = run("relay", "unix:/tmp/x,server=on,wait=off", "null")
    assert status == 2 and text.count("\n") == 1 and "unix" in text.lower(), text
    status, _, text = run("relay", "socket,port=1,pth=2", "null")
    assert status == 2 and text.count("\n") == 1 and "pth" in text, text
    port = free_port()
    status, _, text = run("relay", "tcp:127.0.0.1:%d" % port, "null")
    assert status == 2 and text.count("\n") == 1 and str(port) in text, text
    status, _, text = run("relay", "tcp:no.such.host.invalid:1", "null")
    assert status == 2 and text.count("\n") == 1 and "no.such.host.invalid" in text, text


# ---- telnet ----


def inetutils_telnet(_):
    """Both ways, 0xFF and CR included, and a second client after the first."""
    need("telnet")
    try:
        import pexpect
    except ImportError:
        raise Skipped("there is no python3-pexpect") from None
    with Joined("telnet:127.0.0.1:PORT,server=on,wait=off") as j:
        for _ in range(2):
            client = pexpect.spawn("telnet", ["-e", "^]", "127.0.0.1", str(j.port)], timeout=LIMIT, dimensions=(24, 80))
            j.near.sendall(b"login: ")
            client.expect_exact(b"login: ")
            client.send(b"root\r")
            assert up_to(j.near, b"root\r") == b"root\r"
            j.near.sendall(b"<\xff\r\n>")
            client.expect_exact(b"<\xff\r\n>")
            client.send(b"\x1d")
            client.expect_exact(b"telnet> ")
            client.send(b"quit\r")
            client.expect(pexpect.EOF)
            client.close()


def inetutils_telnetd(directory):
    """As a client: telnetd serves one connection on its standard input, as inetd starts it; socat is the inetd."""
    telnetd = shutil.which("telnetd", path=os.environ["PATH"] + ":/usr/sbin")
    if not telnetd:
        raise Skipped("there is no telnetd")
    need("socat")
    port, login = free_port(), os.path.join(directory, "login")
    with open(login, "w", encoding="ascii") as file:
        file.write("#!/bin/sh\nprintf 'who? '\nread -r name\necho \"hello $name\"\nprintf bye\nread -r enough\n")
    os.chmod(login, 0o755)
    inetd = subprocess.Popen(["socat", "TCP4-LISTEN:%d,bind=127.0.0.1" % port, "EXEC:%s -h -E %s,nofork" % (telnetd, login)])
    try:
        with Joined("telnet:127.0.0.1:%d,reconnect-ms=200" % port, listens=False) as j:
            up_to(j.near, b"who? ")
            j.near.sendall(b"me\r")
            up_to(j.near, b"hello me\r\nbye")
            j.near.sendall(b"\r")
    finally:
        inetd.kill()
        inetd.wait()


# ---- websocket ----


def make_certs(directory):
    if not shutil.which("openssl"):
        raise Skipped("there is no openssl")
    subprocess.run(["sh", os.path.join(ROOT, "tests", "tls_certs.sh"), directory], check=True)


async def talk(j, url, **options):
    import websockets
    loop = asyncio.get_running_loop()
    async with websockets.connect(url, subprotocols=["binary"], max_size=None, **options) as peer:
        for size in (1, 125, 126, 65535, 65536, 300000):
            message = os.urandom(size)
            await peer.send(message)
            assert await loop.run_in_executor(None, exactly, j.near, size) == message
        await peer.send([b"in ", b"three ", b"fragments"])
        assert await loop.run_in_executor(None, exactly, j.near, 18) == b"in three fragments"
        await asyncio.wait_for(await peer.ping(b"there?"), LIMIT)
        sending, got = Thread(j.near.sendall, EVERY_BYTE), b""
        while len(got) < len(EVERY_BYTE):
            got += await asyncio.wait_for(peer.recv(), LIMIT)
        sending.result()
        assert got == EVERY_BYTE
        await peer.close()
        assert peer.close_code == 1000, peer.close_code


def need_websockets():
    try:
        import websockets  # noqa: F401
    except ImportError:
        raise Skipped("there is no python3-websockets") from None


def websocket_server(_):
    need_websockets()
    with Joined("websocket:127.0.0.1:PORT,server=on,wait=off") as j:
        for _ in range(2):
            asyncio.run(talk(j, "ws://127.0.0.1:%d/" % j.port))


def wss_server(directory):
    need_websockets()
    make_certs(directory)
    with Joined("websocket:127.0.0.1:PORT,server=on,wait=off,tls-creds=t", "-object",
                "tls-creds-x509,id=t,endpoint=server,dir=%s/server,verify-peer=off" % directory) as j:
        for _ in range(2):
            asyncio.run(talk(j, "wss://localhost:%d/" % j.port, ssl=ssl.create_default_context(cafile=directory + "/ca-cert.pem"), host="127.0.0.1"))


def websocket_client(_):
    """relay.exe asks Python's server."""
    need_websockets()
    import websockets
    got, port = [], free_port()

    async def serve(peer, *_):
        assert peer.subprotocol == "binary"
        await peer.send(b"welcome")
        while sum(map(len, got)) < 70000:
            got.append(await peer.recv())

    async def host(stop):
        async with websockets.serve(serve, "127.0.0.1", port, subprotocols=["binary"]):
            await stop

    loop = asyncio.new_event_loop()
    stop = loop.create_future()
    serving = Thread(loop.run_until_complete, host(stop))
    try:
        with Joined("websocket:127.0.0.1:%d,reconnect-ms=200" % port, listens=False) as j:
            assert exactly(j.near, 7) == b"welcome"
            data = os.urandom(70000)
            j.near.sendall(data)
            until(lambda: sum(map(len, got)) >= 70000, "the bytes")
            assert b"".join(got) == data
    finally:
        loop.call_soon_threadsafe(stop.set_result, None)
        serving.result()


# ---- TLS ----


def tls_server(directory):
    """It asks for a certificate: a client without one is turned away, and the next comes in."""
    make_certs(directory)
    with Joined("tcp:127.0.0.1:PORT,server=on,wait=off,tls-creds=t", "-object", "tls-creds-x509,id=t,endpoint=server,dir=%s/server" % directory) as j:
        for is_certified in (True, False, True):
            context = ssl.create_default_context(cafile=directory + "/ca-cert.pem")
            if is_certified:
                context.load_cert_chain(directory + "/client/client-cert.pem", directory + "/client/client-key.pem")
            try:
                with context.wrap_socket(call(j.port), server_hostname="localhost") as far:
                    got = far.recv(1) if not is_certified else b""
                    if is_certified:
                        j.exchange(far)
                    assert not got, "a stranger was let in"
            except (ssl.SSLError, ConnectionResetError):
                assert not is_certified


# ---- pyserial ----


def need_pyserial():
    try:
        import serial  # noqa: F401
    except ImportError:
        raise Skipped("there is no python3-serial") from None


def pyserial_socket(_):
    need_pyserial()
    import serial
    with Joined(SERVER) as j:
        with serial.serial_for_url("socket://127.0.0.1:%d" % j.port, timeout=LIMIT) as line:
            line.write(b"hello")
            assert exactly(j.near, 5) == b"hello"
            j.near.sendall(EVERY_BYTE)
            assert line.read(len(EVERY_BYTE)) == EVERY_BYTE


def pyserial_rfc2217(_):
    """Its client sets a com-port up and compares each answer; data goes both ways, and a second one comes in after the first."""
    need_pyserial()
    import serial
    with Joined("telnet:127.0.0.1:PORT,server=on,wait=off,com-port=on") as j:
        for _ in range(2):
            with serial.serial_for_url("rfc2217://127.0.0.1:%d?timeout=20" % j.port, 9600, bytesize=7, parity="E", stopbits=2, timeout=LIMIT) as line:
                line.baudrate, line.parity, line.bytesize, line.stopbits = 115200, "N", 8, 1
                line.rtscts, line.dtr, line.rts = True, False, True
                line.write(EVERY_BYTE[-300:])
                assert exactly(j.near, 300) == EVERY_BYTE[-300:]
                j.near.sendall(EVERY_BYTE)
                assert line.read(len(EVERY_BYTE)) == EVERY_BYTE
                line.reset_input_buffer()
                line.send_break(0.01)


# ---- udp ----


def udp(_):
    """Datagrams both ways, and one from somebody else, which is dropped."""
    if not has_backend("udp"):
        raise Skipped("relay.exe has no udp")
    far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    far.bind(("127.0.0.1", 0))
    far.settimeout(LIMIT)
    port = free_port(socket.SOCK_DGRAM)
    with Joined("udp:127.0.0.1:%d@127.0.0.1:%d" % (far.getsockname()[1], port), listens=False) as j:
        for size in (1, 1000, 60000):
            data, got = os.urandom(size), b""
            j.near.sendall(data)
            while len(got) < size:
                got += far.recv(65536)
            assert got == data
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stranger.sendto(b"not me", ("127.0.0.1", port))
        far.sendto(b"hello", ("127.0.0.1", port))
        assert exactly(j.near, 5) == b"hello"
        stranger.close()
    far.close()


if __name__ == "__main__":  # tests/windows/tls_peers.py runs those with TLS
    run_all([raw, no_lost_wake_up, socat_through, half_close, reconnects, ipv6, both_families, busy_port, errors, inetutils_telnet, inetutils_telnetd, websocket_server,
              websocket_client, pyserial_socket, pyserial_rfc2217, udp])
