#!/usr/bin/python3
"""Our TLS client with openssl s_server and gnutls-serv."""
import os
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from probing import Probe, Tally, free_port, wait_for_port  # noqa: E402
from tls import EVERY_BYTE, Peer, cert_arguments, creds, fails, make_certs, prepare, wait_log  # noqa: E402


def openssl(directory, port, name="server", *more):
    peer = Peer("openssl", "s_server", "-accept", "127.0.0.1:%d" % port, "-CAfile", directory + "/ca-cert.pem", "-quiet", "-no_ign_eof",
                *cert_arguments(directory, name), *more)
    wait_for_port(port)
    return peer


def talking_openssl(directory, port, *more):
    """One that knows the words Q and R, and tells a lot."""
    peer = Peer("openssl", "s_server", "-accept", "127.0.0.1:%d" % port, *cert_arguments(directory, "server"), *more)
    wait_for_port(port)
    return peer


def asking_openssl(directory, port, name="server"):
    return openssl(directory, port, name, "-Verify", "1", "-verify_return_error")


def gnutls(directory, port, name="server", mode="--echo"):
    peer = Peer("gnutls-serv", mode, "--quiet", "--x509cafile=" + directory + "/ca-cert.pem", "--require-client-cert", "--verify-client-cert",
                "--x509certfile=%s/%s-cert.pem" % (directory, name), "--x509keyfile=%s/%s-key.pem" % (directory, name), "--port=%d" % port)
    wait_for_port(port)
    return peer


def address(port, host="localhost", more=""):
    return "socket,id=p,host=%s,port=%d,ipv6=off,tls-creds=t%s" % (host, port, more)


def both_ways(directory):
    make_certs(directory)
    port = free_port()
    peer = asking_openssl(directory, port)
    probe = Probe(address(port), objects=[creds(directory, "client")])
    probe.expect("opened")
    probe.write(EVERY_BYTE)
    assert peer.read(len(EVERY_BYTE)) == EVERY_BYTE
    peer.write(EVERY_BYTE[::-1])
    probe.data(EVERY_BYTE[::-1])
    probe.say("disconnect")
    probe.expect("closed")
    peer.kill()
    probe.close()


def close_notify(directory):
    """A page, and a goodbye behind it. (openssl s_server says none.)"""
    make_certs(directory)
    port = free_port()
    peer = gnutls(directory, port, "server", "--http")
    probe = Probe(address(port), objects=[creds(directory, "client")])
    probe.expect("opened")
    probe.write(b"GET / HTTP/1.0\r\n\r\n")
    probe.data_until(b"</HTML>")
    probe.expect("closed")
    assert probe.log == [], probe.log
    peer.kill()
    probe.close()


def echo(directory):
    make_certs(directory)
    port = free_port()
    peer = gnutls(directory, port)
    probe = Probe(address(port, "127.0.0.1"), objects=[creds(directory, "client")])
    probe.expect("opened")
    line = b"x" * 900 + b"\n"
    for _ in range(20):
        probe.write(line)
        probe.data(line)
    probe.say("disconnect")
    probe.expect("closed")
    probe.close()
    peer.kill()


def bad_server(directory, name, text):
    """Creation fails, and says why; with reconnect that is logged, and it goes on trying."""
    make_certs(directory)
    port = free_port()
    peer = openssl(directory, port, name)
    why = fails(address(port), creds(directory, "client"))
    assert why == "socket: TLS: " + text, why
    probe = Probe(address(port, more=",reconnect-ms=50"), objects=[creds(directory, "client")])
    wait_log(probe, "chardev p: TLS: " + text)
    peer.kill()
    peer = openssl(directory, port)
    probe.expect("opened")
    peer.kill()
    probe.close()


def another_name(directory):
    make_certs(directory)
    port = free_port()
    peer = openssl(directory, port, "elsewhere")
    probe = Probe(address(port, more=",tls-hostname=elsewhere"), objects=[creds(directory, "client")])
    probe.expect("opened")
    peer.kill()
    probe.close()


def no_certificate(directory, program):
    """In TLS 1.2 the server says so before anything opens."""
    make_certs(directory)
    port = free_port()
    peer = gnutls(directory, port) if program == "gnutls" else openssl(directory, port, "server", "-tls1_2", "-Verify", "1", "-verify_return_error")
    why = fails(address(port), creds(directory, "client", ""))
    assert why.startswith("socket: TLS: the peer "), why
    peer.kill()


def truncation(directory):
    make_certs(directory)
    port = free_port()
    peer = openssl(directory, port)
    probe = Probe(address(port), objects=[creds(directory, "client")])
    probe.expect("opened")
    peer.write(b"half a sen")
    probe.data(b"half a sen")
    peer.kill()
    probe.expect("closed")
    assert probe.log == ["chardev p: TLS: the connection ended without close_notify: the input may be truncated"], probe.log
    probe.close()


def renegotiation(directory):
    """The server asks for another handshake: it gets none."""
    make_certs(directory)
    port = free_port()
    peer = talking_openssl(directory, port, "-tls1_2")
    probe = Probe(address(port), objects=[creds(directory, "client")])
    probe.expect("opened")
    peer.write(b"before\n")
    probe.data(b"before\n")
    peer.write(b"R\n")
    probe.expect("closed")
    peer.kill()
    probe.close()


def too_new(directory):
    make_certs(directory)
    port = free_port()
    peer = openssl(directory, port, "server", "-tls1_3")
    probe = Probe(address(port, more=",reconnect-ms=50"), objects=[creds(directory, "client")])
    try:
        wait_log(probe, "chardev p: TLS: the peer has refused us")
    except AssertionError as error:
        assert "'opened'" in str(error)  # an mbed TLS that has 1.3
    peer.kill()
    probe.close()


def too_old(directory):
    make_certs(directory)
    port = free_port()
    peer = openssl(directory, port, "server", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
    why = fails(address(port), creds(directory, "client"))
    assert why.startswith("socket: TLS: "), why
    peer.kill()


def plaintext(directory):
    make_certs(directory)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        def greet():
            peer = listening.accept()[0]
            peer.sendall(b"220 mail.example ready\r\n")
            peer.recv(1000)
            peer.close()
        greeter = threading.Thread(target=greet)
        greeter.start()
        why = fails(address(listening.getsockname()[1]), creds(directory, "client"))
        assert why == "socket: TLS: what the peer sends is not TLS", why
        greeter.join()


def shared_keys(directory):
    make_certs(directory)
    port = free_port()
    peer = openssl(directory, port, None, "-nocert", "-tls1_2", "-psk_identity", "fred", "-psk", "00112233445566778899aabbccddeeff")
    client = "tls-creds-psk,id=t,dir=%s,username=%%s" % directory
    why = fails(address(port), client % "ana")
    assert why.startswith("socket: TLS: the peer "), why
    probe = Probe(address(port), objects=[client % "fred"])
    probe.expect("opened")
    probe.write(b"hello")
    assert peer.read(5) == b"hello"
    peer.kill()
    probe.close()


prepare("gnutls-serv")
tally = Tally()
tally.run(both_ways)
tally.run(close_notify)
tally.run(echo)
for certificate, reason in (("elsewhere", "the peer's certificate is for another name; expected was localhost"),
                            ("expired", "the peer's certificate has expired"),
                            ("future", "the peer's certificate is not valid yet"),
                            ("foreign", "the peer's certificate is not signed by a CA that is trusted here"),
                            ("only-client", "the peer's certificate is not for this role (extended key usage)")):
    tally.run(bad_server, certificate, reason)
for case in (another_name, truncation, renegotiation, too_new, too_old, plaintext, shared_keys):
    tally.run(case)
tally.run(no_certificate, "gnutls")
tally.run(no_certificate, "openssl")
tally.end()
