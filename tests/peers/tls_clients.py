#!/usr/bin/python3
"""Our TLS server with openssl s_client and gnutls-cli."""
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from probing import Probe, Tally  # noqa: E402
from tls import EVERY_BYTE, Peer, cert_arguments, creds, make_certs, prepare, wait_log  # noqa: E402


def serve(*objects, more=""):
    """A probe that listens on a free port, and that port."""
    listening = socket.create_server(("127.0.0.1", 0))
    fd = listening.fileno()
    probe = Probe("socket,id=p,fd=%d,server=on,wait=off,tls-creds=t%s" % (fd, more), fds=(fd,), objects=objects)
    port = listening.getsockname()[1]
    listening.close()
    return probe, port


def openssl(directory, port, name="client", *more):
    return Peer("openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-CAfile", directory + "/ca-cert.pem", "-verify_hostname",
                "localhost", "-verify_return_error", "-quiet", "-no_ign_eof", *cert_arguments(directory, name), *more)


def gnutls(directory, port, name="client", *more):
    own = ["--x509certfile=%s/%s-cert.pem" % (directory, name), "--x509keyfile=%s/%s-key.pem" % (directory, name)] if name else []
    return Peer("gnutls-cli", "--logfile=/dev/null", "--x509cafile=" + directory + "/ca-cert.pem", "--verify-hostname=localhost", "--port=%d" % port,
                *own, *more, "127.0.0.1")


CLIENTS = {"openssl": openssl, "gnutls": gnutls}


def both_ways(directory, name):
    client = CLIENTS[name]
    make_certs(directory)
    probe, port = serve(creds(directory, "server"))
    peer = client(directory, port)
    probe.expect("opened")
    peer.write(EVERY_BYTE)
    probe.data(EVERY_BYTE)
    probe.write(EVERY_BYTE[::-1])
    assert peer.read(len(EVERY_BYTE)) == EVERY_BYTE[::-1]
    peer.ends()
    probe.expect("closed")
    assert probe.log == [], probe.log  # they say goodbye
    peer = client(directory, port)
    probe.expect("opened")
    probe.write(b"last words")
    probe.say("disconnect")
    probe.expect("closed")
    assert peer.read(10) == b"last words"
    peer.ends()
    probe.close()


def without_asking(directory, name):
    client = CLIENTS[name]
    make_certs(directory)
    probe, port = serve(creds(directory, "server", more=",verify-peer=off"))
    peer = client(directory, port, None)
    probe.expect("opened")
    peer.write(b"anybody")
    probe.data(b"anybody")
    peer.kill()
    probe.close()


def bad_client(directory, name, text):
    """It hears of its failure, the log has the reason, and the next one gets in."""
    make_certs(directory)
    probe, port = serve(creds(directory, "server", more=",crlfile=%s/crl.pem" % directory))
    peer = openssl(directory, port, name)
    wait_log(probe, "chardev p: TLS: " + text)
    peer.kill()
    peer = openssl(directory, port)
    probe.expect("opened")
    peer.kill()
    probe.close()


def bad_gnutls_client(directory, name, text):
    make_certs(directory)
    probe, port = serve(creds(directory, "server"))
    peer = gnutls(directory, port, name)
    wait_log(probe, "chardev p: TLS: " + text)
    peer.kill()
    probe.close()


def bad_server(directory, client_name, name):
    """The client doesn't trust us, and says so with an alert."""
    client = CLIENTS[client_name]
    make_certs(directory)
    probe, port = serve(creds(directory, "server", name))
    peer = client(directory, port)
    wait_log(probe, "chardev p: TLS: the peer")
    peer.ends()
    probe.close()


def lists(directory, name, match, is_in):
    client = CLIENTS[name]
    make_certs(directory)
    probe, port = serve(creds(directory, "server"), "authz-list,id=who,match=" + match, more=",tls-authz=who")
    peer = client(directory, port)
    if is_in:
        probe.expect("opened")
    else:
        wait_log(probe, "chardev p: TLS: the peer 'CN=fred,O=Example,C=DE' is not on the list tls-authz=who")
    peer.kill()
    probe.close()


def no_list(directory, name):
    client = CLIENTS[name]
    make_certs(directory)
    probe, port = serve(creds(directory, "server"), more=",tls-authz=who")
    peer = client(directory, port)
    wait_log(probe, "chardev p: TLS: the peer 'CN=fred,O=Example,C=DE' is not on the list tls-authz=who")
    peer.kill()
    probe.close()


def truncation(directory, name):
    client = CLIENTS[name]
    make_certs(directory)
    probe, port = serve(creds(directory, "server"))
    peer = client(directory, port)
    probe.expect("opened")
    peer.write(b"half a sen")
    probe.data(b"half a sen")
    peer.kill()
    probe.expect("closed")
    assert probe.log == ["chardev p: TLS: the connection ended without close_notify: the input may be truncated"], probe.log
    probe.close()


def renegotiation(directory):
    """It is refused: openssl takes that as the end."""
    make_certs(directory)
    probe, port = serve(creds(directory, "server"))
    peer = openssl(directory, port, "client", "-tls1_2")
    probe.expect("opened")
    peer.write(b"before\n")
    probe.data(b"before\n")
    peer.write(b"R\n")
    probe.expect("closed")
    assert "no renegotiation" in peer.ends()
    probe.close()


def old_version(directory):
    make_certs(directory)
    probe, port = serve(creds(directory, "server"))
    peer = openssl(directory, port, "client", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
    wait_log(probe, "chardev p: TLS: ")
    assert "alert protocol version" in peer.ends()
    probe.close()


def plaintext(directory):
    make_certs(directory)
    probe, port = serve(creds(directory, "server"))
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(b"hello\r\n" * 10)
        wait_log(probe, "chardev p: TLS: what the peer sends is not TLS")
    probe.close()


def shared_keys(directory):
    make_certs(directory)
    probe, port = serve("tls-creds-psk,id=t,endpoint=server,dir=" + directory)
    key = "00112233445566778899aabbccddeeff"
    peer = openssl(directory, port, None, "-tls1_2", "-psk_identity", "fred", "-psk", key)
    probe.expect("opened")
    peer.write(b"hello")
    probe.data(b"hello")
    peer.ends()
    probe.expect("closed")
    peer = openssl(directory, port, None, "-tls1_2", "-psk_identity", "eve", "-psk", key)
    wait_log(probe, "chardev p: TLS: the peer's name is not among those that have a key")
    peer.kill()
    peer = Peer("gnutls-cli", "--logfile=/dev/null", "--pskusername=fred", "--pskkey=" + key, "--port=%d" % port, "--priority",
                "NORMAL:-VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:+PSK", "127.0.0.1")
    probe.expect("opened")  # no more: gnutls-cli 3.7.9 crashes behind such a handshake
    peer.kill()
    probe.expect("closed")
    probe.close()


prepare("gnutls-cli")
tally = Tally()
for program in CLIENTS:
    tally.run(both_ways, program)
    tally.run(without_asking, program)
    tally.run(truncation, program)
    tally.run(lists, program, "CN=fred,,O=Example,,C=DE", True)
    tally.run(lists, program, "CN=*,,O=Example,,C=DE,format=glob", True)
    tally.run(lists, program, "CN=ana,,O=Example,,C=DE", False)
    tally.run(no_list, program)
    for certificate in ("elsewhere", "expired", "future", "foreign"):
        tally.run(bad_server, program, certificate)
for certificate, reason in (("expired", "the peer's certificate has expired"), ("future", "the peer's certificate is not valid yet"),
                            ("foreign", "the peer's certificate is not signed by a CA that is trusted here"),
                            ("revoked", "the peer's certificate has been revoked"), (None, "the peer shows no certificate")):
    tally.run(bad_client, certificate, reason)
    if certificate != "revoked":
        tally.run(bad_gnutls_client, certificate, reason)
tally.run(renegotiation)
tally.run(old_version)
tally.run(plaintext)
tally.run(shared_keys)
tally.end()
