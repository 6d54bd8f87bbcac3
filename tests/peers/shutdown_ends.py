#!/usr/bin/python3
"""Half-close in TLS and websocket with real peers: relay passes EOF of its input on, and still prints the peer's output after it."""
import os
import socket
import ssl
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from probing import has_tls  # noqa: E402
from relaying import LIMIT, RELAY, Tally  # noqa: E402
from tls import make_certs  # noqa: E402


def server(serve):
    """One peer, in a thread; returns the port and what ends with the thread."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(LIMIT)
    said = []

    def run():
        peer = listening.accept()[0]
        peer.settimeout(LIMIT)
        try:
            said.append(serve(peer))
        except OSError as error:
            said.append(repr(error))
        peer.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return listening.getsockname()[1], thread, said


def relay(*args):
    return subprocess.run([RELAY, *args], input=b"question\n", capture_output=True, timeout=LIMIT, check=False)


def tls(directory, version):
    """close_notify is seen (without it Python raises an error), our side of the session stays open, and FIN comes behind it."""
    if not has_tls():
        return ", skipped: no TLS in this build"
    make_certs(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory + "/server-cert.pem", directory + "/server-key.pem")
    context.maximum_version = version

    def serve(raw):
        peer = context.wrap_socket(raw, server_side=True, suppress_ragged_eofs=False)
        question = b""
        while True:
            more = peer.recv(100)
            if not more:
                break
            question += more
        peer.sendall(b"%d\n" % len(question))
        peer.unwrap()
        return question

    port, thread, said = server(serve)
    done = relay("-object", "tls-creds-x509,id=t,endpoint=client,cafile=%s/ca-cert.pem" % directory, "stdio",
                 "socket,host=127.0.0.1,port=%d,tls-creds=t,tls-hostname=localhost" % port)
    thread.join(LIMIT)
    assert said == [b"question\n"], said
    assert (done.returncode, done.stdout, done.stderr) == (0, b"9\n", b""), done
    return None


def openssl(directory):
    """s_server prints what it got and ends with our close_notify; -rev sends each line back reversed."""
    if not has_tls():
        return ", skipped: no TLS in this build"
    make_certs(directory)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with subprocess.Popen(["openssl", "s_server", "-accept", "127.0.0.1:%d" % port, "-cert", directory + "/server-cert.pem", "-key",
                           directory + "/server-key.pem", "-rev", "-naccept", "1", "-msg"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as peer:
        try:
            while b"ACCEPT" not in peer.stdout.readline():
                pass
            done = relay("-object", "tls-creds-x509,id=t,endpoint=client,cafile=%s/ca-cert.pem" % directory, "stdio",
                         "socket,host=127.0.0.1,port=%d,tls-creds=t,tls-hostname=localhost" % port)
            out = peer.communicate(timeout=LIMIT)[0]
        finally:
            peer.kill()
    assert b"close_notify" in out, out[-2000:]
    assert done.stdout == b"noitseuq\n", done
    return None


def websocket(directory):
    """A Close frame behind the last data; data that comes after it is printed; the connection goes with the peer's own Close."""
    try:
        import websockets.server
        from websockets.frames import Frame, Opcode
    except ImportError:
        return ", skipped: no python3-websockets"
    newer = getattr(websockets.server, "ServerProtocol", None)
    make = newer or websockets.server.ServerConnection  # its name before 11.0

    def serve(peer):
        protocol, question, closed = make(subprotocols=["binary"]), b"", False
        while not closed:
            data = peer.recv(4096)
            assert data, "the connection went before its Close frame"
            protocol.receive_data(data)
            for event in protocol.events_received():
                if not isinstance(event, Frame):
                    protocol.send_response(protocol.accept(event))
                elif event.opcode is Opcode.BINARY:
                    question += event.data
                elif event.opcode is Opcode.CLOSE:
                    closed = event.data[:2] == b"\x03\xe8"
            if closed:  # before our answer to it, which the protocol has ready
                peer.sendall(b"\x82\x02" + b"%d\n" % len(question))
            for out in protocol.data_to_send():
                if out:
                    peer.sendall(out)
        return question

    port, thread, said = server(serve)
    done = relay("stdio", "websocket:127.0.0.1:%d" % port)
    thread.join(LIMIT)
    assert said == [b"question\n"], said
    assert (done.returncode, done.stdout, done.stderr) == (0, b"9\n", b""), done
    return None


def main():
    tally = Tally()
    tally.run("TLS 1.2", tls, ssl.TLSVersion.TLSv1_2)
    tally.run("TLS, the highest version", tls, ssl.TLSVersion.MAXIMUM_SUPPORTED)
    tally.run("openssl s_server", openssl)
    tally.run("websocket", websocket)
    tally.end()


main()
