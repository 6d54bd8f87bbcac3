#!/usr/bin/python3
"""A console of tinyvm for several clients at once (clients=3): two nc; two python websockets; two openssl s_client. Each gets all
output, each may type, the second does not disturb the first, and keep-alive is set in the kernel."""
import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from vm import Process, Skipped, Stream, Vm, check, run_all, until

CERTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tls_certs.sh")


def need(program):
    if not shutil.which(program):
        raise Skipped("there is no " + program)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def console(port, more=""):
    """The guest sends back what it gets."""
    return "socket,id=c,host=127.0.0.1,port=%d,server=on,wait=off,clients=3,history=1K,keep-alive=on,keep-alive-idle=30%s" % (port, more)


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


class Typist(Process):
    """A program whose input is typed, and whose output is read."""

    def __init__(self, *arguments):
        super().__init__(list(arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.out = Stream(self.process.stdout.fileno())

    def type(self, text):
        self.process.stdin.write(text.encode())


def share(first, second):
    """Both are there, and see what either types."""
    first.type("from the first\n")
    first.out.expect("from the first")
    second.out.expect("from the first")
    second.type("from the second\n")
    first.out.expect("from the second")
    second.out.expect("from the second")


def two_nc(_):
    need("nc")
    port = free_port()
    with Vm("-chardev", console(port), "-serial", "chardev:c"):
        until(lambda: listens(port), "the port")
        with Typist("nc", "127.0.0.1", str(port)) as first:
            first.type("early\n")
            first.out.expect("early")
            with Typist("nc", "127.0.0.1", str(port)) as second:
                second.out.expect("early")  # history
                share(first, second)
            first.type("alone again\n")
            first.out.expect("alone again")


def two_openssl(directory):
    need("openssl")
    subprocess.run(["sh", CERTS, directory], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    port = free_port()
    creds = "tls-creds-x509,id=t,endpoint=server,verify-peer=off,certfile=%s/server-cert.pem,keyfile=%s/server-key.pem" % (directory, directory)
    client = ["openssl", "s_client", "-quiet", "-verify_quiet", "-connect", "127.0.0.1:%d" % port]
    with Vm("-object", creds, "-chardev", console(port, ",tls-creds=t"), "-serial", "chardev:c") as vm:
        until(lambda: listens(port) or vm.process.poll() is not None, "the port")
        if "built without" in vm.stderr():
            raise Skipped("tinyvm was built without TLS")
        with Typist(*client) as first, Typist(*client) as second:
            first.type("early\n")
            first.out.expect("early")
            second.out.expect("early")
            share(first, second)


async def talk(port):
    import websockets

    async def until_seen(peer, text):
        seen = b""
        while text not in seen:
            seen += await asyncio.wait_for(peer.recv(), 60)

    url = "ws://127.0.0.1:%d/" % port
    async with websockets.connect(url) as first, websockets.connect(url) as second:
        for here, text in ((first, b"from the first"), (second, b"from the second")):
            await here.send(text + b"\n")
            await until_seen(first, text)
            await until_seen(second, text)
        await second.close()
        await first.send(b"alone again\n")
        await until_seen(first, b"alone again")


def two_websockets(_):
    try:
        import websockets  # noqa: F401
    except ImportError:
        raise Skipped("there is no python3-websockets") from None
    port = free_port()
    with Vm("-chardev", console(port, ",websocket=on"), "-serial", "chardev:c"):
        until(lambda: listens(port), "the port")
        asyncio.run(talk(port))


def silent_peers_keep_nobody_out(_):
    """Ten connections that say nothing; the eleventh shakes hands at once."""
    try:
        import websockets  # noqa: F401
    except ImportError:
        raise Skipped("there is no python3-websockets") from None
    port = free_port()
    with Vm("-chardev", console(port, ",websocket=on"), "-serial", "chardev:c"):
        until(lambda: listens(port), "the port")
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(10)]
        asyncio.run(asyncio.wait_for(talk(port), 5))
        for peer in silent:
            peer.close()
    check(True, "")


def a_newcomer_takes_the_place(_):
    """replace=on: the one that came before sees the end, the new one has the console."""
    need("socat")
    port = free_port()
    options = "socket,id=c,host=127.0.0.1,port=%d,server=on,wait=off,replace=on" % port
    with Vm("-chardev", options, "-serial", "chardev:c"):
        until(lambda: listens(port), "the port")
        with Typist("socat", "STDIO", "TCP:127.0.0.1:%d" % port) as first:
            first.type("the first\n")
            first.out.expect("the first")
            with Typist("socat", "STDIO", "TCP:127.0.0.1:%d" % port) as second:
                check(first.status() == 0, "the first socat sees the end")
                second.type("the second\n")
                second.out.expect("the second")


def a_silent_one_is_closed(_):
    """idle-timeout=1: not while it types, and then after a second."""
    need("socat")
    port = free_port()
    options = "socket,id=c,host=127.0.0.1,port=%d,server=on,wait=off,idle-timeout=1" % port
    with Vm("-chardev", options, "-serial", "chardev:c"):
        until(lambda: listens(port), "the port")
        with Typist("socat", "STDIO", "TCP:127.0.0.1:%d" % port) as peer:
            for i in range(6):
                peer.type("line %d\n" % i)
                peer.out.expect("line %d" % i)
                time.sleep(0.3)
            started = time.monotonic()
            check(peer.status() == 0, "socat sees the end")
            check(0.3 < time.monotonic() - started < 20, "after a second or so")


if __name__ == "__main__":
    run_all([two_nc, two_openssl, two_websockets, silent_peers_keep_nobody_out, a_newcomer_takes_the_place, a_silent_one_is_closed])
