#!/usr/bin/python3
"""Our websocket server and client with python3-websockets, curl and (if installed) npm ws, in both roles, plain and over TLS."""
import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from probing import LIMIT, Probe, Tally, build_probe, find, free_port, has_tls, need, server, skip, wait_for_port  # noqa: E402
from tls import creds, make_certs  # noqa: E402

try:
    import websockets
except ImportError:
    skip("there is no python3-websockets")


def our_server(directory, scheme, more=""):
    """Listens for ws or wss; the probe and its URL."""
    objects = ()
    if scheme == "wss":
        make_certs(directory)
        objects, more = (creds(directory, "server", more=",verify-peer=off"),), more + ",tls-creds=t"
    probe, port = server("websocket", more, objects)
    return probe, "%s://127.0.0.1:%d/" % (scheme, port)


def our_client(directory, scheme, port, more=""):
    """Its certificates are there already: the server needed them."""
    if scheme == "ws":
        return Probe("socket,id=p,host=127.0.0.1,port=%d,websocket=on%s" % (port, more))
    return Probe("socket,id=p,host=127.0.0.1,port=%d,websocket=on,tls-creds=t%s" % (port, more), objects=(creds(directory, "client"),))


def their_tls(directory, scheme, is_server):
    """What Python's ssl needs; None without TLS."""
    if scheme == "ws":
        return None
    if is_server:
        make_certs(directory)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory + "/server-cert.pem", directory + "/server-key.pem")
        return context
    return ssl.create_default_context(cafile=directory + "/ca-cert.pem")


async def with_limit(coroutine):
    return await asyncio.wait_for(coroutine, LIMIT)


async def later(call, *args):
    """The probe's lines are waited for in a thread, so that the peer's loop goes on."""
    return await asyncio.get_running_loop().run_in_executor(None, call, *args)


async def converse(probe, peer):
    """The same for both roles: short and long messages, fragments, ping, every byte."""
    assert peer.subprotocol == "binary", peer.subprotocol
    probe.write(b"login: ")
    assert await with_limit(peer.recv()) == b"login: "
    await peer.send(b"root\r")
    await later(probe.data, b"root\r")
    for size in (125, 126, 65535, 65536, 300000):
        message = bytes(i * 7 % 256 for i in range(size))
        await peer.send(message)
        await later(probe.data, message)
    await peer.send([b"in ", b"three ", b"fragments"])
    await later(probe.data, b"in three fragments")
    await with_limit(await peer.ping(b"there?"))
    out = bytes(range(256)) * 300
    probe.write(out)
    got = b""
    while len(got) < len(out):
        got += await with_limit(peer.recv())
    assert got == out


async def as_client(url, probe, closer, tls):
    async with websockets.connect(url, subprotocols=["chat", "binary"], max_size=None, ssl=tls) as peer:
        await later(probe.expect, "opened")
        await converse(probe, peer)
        if closer == "we close":
            probe.say("disconnect")
            try:
                await with_limit(peer.recv())
                raise AssertionError("no close came")
            except websockets.ConnectionClosed as closed:
                assert closed.code == 1000, closed
        else:
            await peer.close(4321, "because")
            assert peer.close_code == 4321, peer.close_code  # what came back
    await later(probe.expect, "closed")


def client_of_ours(directory, closer, scheme):
    """Twice, so that the second peer is seen to come after the first."""
    probe, url = our_server(directory, scheme)
    for _ in range(2):
        asyncio.run(as_client(url, probe, closer, their_tls(directory, scheme, False)))
    probe.close()
    assert probe.log == [], probe.log


def text_is_refused(directory):
    async def talk(port, probe):
        async with websockets.connect("ws://127.0.0.1:%d/" % port) as peer:
            await later(probe.expect, "opened")
            await peer.send("text")
            try:
                await with_limit(peer.recv())
                raise AssertionError("no close came")
            except websockets.ConnectionClosed as closed:
                assert closed.code == 1003, closed
        await later(probe.expect, "closed")

    probe, port = server("websocket")
    asyncio.run(talk(port, probe))
    probe.close()


def text_passes(directory):
    async def talk(port, probe):
        async with websockets.connect("ws://127.0.0.1:%d/" % port) as peer:
            assert peer.subprotocol is None
            await later(probe.expect, "opened")
            await peer.send("h\u00e9llo \u20ac")
            await later(probe.data, "h\u00e9llo \u20ac".encode())
        await later(probe.expect, "closed")

    probe, port = server("websocket", ",websocket-text=on")
    asyncio.run(talk(port, probe))
    probe.close()


def server_of_ours(directory, closer, scheme):
    """We are the client; with reconnect the second connection comes by itself."""
    async def talk():
        peers = asyncio.Queue()

        async def handler(peer):
            await peers.put(peer)
            await peer.wait_closed()

        async with websockets.serve(handler, "127.0.0.1", 0, subprotocols=["binary"], max_size=None,
                                    ssl=their_tls(directory, scheme, True)) as serving:
            port = serving.sockets[0].getsockname()[1]
            probe = await later(our_client, directory, scheme, port, ",reconnect-ms=50")
            for _ in range(2):
                peer = await with_limit(peers.get())
                await later(probe.expect, "opened")
                assert peer.request_headers["Host"] == "127.0.0.1:%d" % port
                await converse(probe, peer)
                if closer == "we close":
                    probe.say("disconnect")
                    await with_limit(peer.wait_closed())
                    assert peer.close_code == 1000, peer.close_code
                else:
                    await peer.close(1001, "going")
                await later(probe.expect, "closed")
            await later(probe.close)

    asyncio.run(talk())


UPGRADE = ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13",
           "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]


def curl(directory, url, *args):
    trust = ["--cacert", directory + "/ca-cert.pem"] if url.startswith("wss:") else []
    return ["curl", "--http1.1", "-s", "--max-time", str(int(LIMIT)), *trust, *args, url.replace("ws", "http", 1)]


def refusals(directory, scheme):
    """curl asks wrongly, and sees why."""
    probe, url = our_server(directory, scheme, ",ws-path=/")
    for path, args, status in (("", [], "426"), ("other", [], "404"), ("", ["-X", "POST"], "400"), ("", ["--http1.0", *UPGRADE], "400"),
                               ("other", UPGRADE, "404"), ("", UPGRADE[2:], "400"), ("", UPGRADE[:6], "400"),
                               ("", [*UPGRADE[:4], "-H", "Sec-WebSocket-Version: 12", *UPGRADE[6:]], "426")):
        done = subprocess.run(curl(directory, url + path, "-i", *args), capture_output=True, timeout=LIMIT, check=False)
        head = done.stdout.decode().lower()
        assert done.returncode == 0 and head.startswith("http/1.1 %s " % status), (args, done)
        assert ("sec-websocket-version: 13" in head) == (status == "426"), head
    probe.close()


def curl_upgrades(directory, scheme):
    """It gets its 101, and frames are what it takes for the body."""
    probe, url = our_server(directory, scheme)
    peer = subprocess.Popen(curl(directory, url, "-i", "-N", *UPGRADE), stdout=subprocess.PIPE)
    probe.expect("opened")
    probe.write(b"hello")
    probe.say("disconnect")
    probe.expect("closed")
    out = peer.communicate(timeout=LIMIT)[0]
    assert out.startswith(b"HTTP/1.1 101 ") and b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in out, out
    assert out.endswith(b"\r\n\r\n\x82\x05hello\x88\x02\x03\xe8"), out
    probe.close()


def wrong_server(directory):
    """Our client meets a plain web server: no OPENED, one log line."""
    import http.server
    import threading
    httpd = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    httpd.RequestHandlerClass.log_message = lambda *args: None
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        Probe("socket,id=p,host=127.0.0.1,port=%d,websocket=on" % httpd.server_port)
        raise AssertionError("it came into being")
    except AssertionError as error:
        assert "refuses the upgrade" in str(error), error
    finally:
        httpd.shutdown()


NODE = """
const W = require('ws'), fs = require('fs');
const [role, scheme, where, port] = process.argv.slice(2);
const done = (text) => { console.log(text); process.exit(text === 'ok' ? 0 : 1); };
setTimeout(() => done('time is over'), 10000);
const talk = (ws) => {
  const parts = [];
  ws.on('message', (data, isBinary) => {
    if (!isBinary) done('a text frame');
    parts.push(data);
    const all = Buffer.concat(parts);
    if (all.length === 5) { ws.send(Buffer.alloc(70000, 'n')); ws.ping('p'); }
  });
  ws.on('pong', (data) => { if (data.toString() !== 'p') done('a wrong pong'); ws.close(1000, 'bye'); });
  ws.on('close', (code) => done(code === 1000 ? 'ok' : 'close ' + code));
};
if (role === 'client') {
  const ws = new W(scheme + '://127.0.0.1:' + port + '/', ['binary'], scheme === 'wss' ? { ca: fs.readFileSync(where + '/ca-cert.pem') } : {});
  ws.on('error', (e) => done(String(e)));
  ws.on('open', () => talk(ws));
} else {
  const web = scheme === 'ws' ? require('http').createServer() : require('https').createServer({
    cert: fs.readFileSync(where + '/server-cert.pem'), key: fs.readFileSync(where + '/server-key.pem') });
  new W.Server({ server: web }).on('connection', talk);
  web.listen(0, '127.0.0.1', () => console.log(web.address().port));
}
"""


def node_has_ws():
    return find("node") and subprocess.run(["node", "-e", "require('ws')"], capture_output=True, check=False).returncode == 0


def start_node(directory, *args):
    path = os.path.join(directory, "peer.js")
    with open(path, "w", encoding="ascii") as script:
        script.write(NODE)
    return subprocess.Popen(["node", path, *args], stdout=subprocess.PIPE)


def talk_to_node(probe, node):
    probe.expect("opened")
    probe.write(b"hello")
    probe.data(b"n" * 70000)
    probe.expect("closed")
    out = node.communicate(timeout=LIMIT)[0].decode().split()
    assert out == ["ok"], out
    probe.close()


def node_client_of_ours(directory, scheme):
    probe, url = our_server(directory, scheme)
    talk_to_node(probe, start_node(directory, "client", scheme, directory, url.rsplit(":", 1)[1].strip("/")))


def node_server_of_ours(directory, scheme):
    if scheme == "wss":
        make_certs(directory)
    node = start_node(directory, "server", scheme, directory)
    port = int(node.stdout.readline())
    talk_to_node(our_client(directory, scheme, port), node)


def websockify_in_front(directory):
    """A proxy that finds its TCP target by the token in the path."""
    target = socket.create_server(("127.0.0.1", 0))
    target.settimeout(LIMIT)
    with open(os.path.join(directory, "tokens"), "w", encoding="ascii") as tokens:
        tokens.write("x: 127.0.0.1:%d\n" % target.getsockname()[1])
    port = free_port()
    with open(os.path.join(directory, "log"), "wb") as log:
        proxy = subprocess.Popen(["websockify", "--token-plugin", "TokenFile", "--token-source", directory + "/tokens",
                                  "127.0.0.1:%d" % port], stdout=log, stderr=log)
    try:
        wait_for_port(port)
        probe = our_client(directory, "ws", port, ",ws-path=/websockify?token=x")
        far = target.accept()[0]
        far.settimeout(LIMIT)
        probe.expect("opened")
        probe.write(bytes(range(256)))
        got = b""
        while len(got) < 256:
            got += far.recv(256)
        assert got == bytes(range(256)), got
        far.sendall(b"back")
        probe.data(b"back")
        far.close()
        probe.expect("closed")
        probe.close()
    finally:
        proxy.kill()
        proxy.wait()
        target.close()


def websockify_as_client(directory):
    """It can't send: Debian's has an error in its masks."""
    from websockify.websocket import WebSocket
    probe, url = our_server(directory, "ws")
    peer = WebSocket()
    peer.connect(url + "websockify", protocols=["binary"])
    probe.expect("opened")
    probe.write(b"back")
    while True:  # it raises when nothing has come yet
        try:
            got = peer.recvmsg()
            break
        except Exception as error:  # pylint: disable=broad-except
            assert "Want" in type(error).__name__, error
    assert got == b"back", got
    peer.socket.close()
    probe.expect("closed")
    probe.close()


need("curl")
os.environ["NODE_PATH"] = os.environ.get("NODE_PATH", "") + ":/usr/share/nodejs:/usr/lib/nodejs"  # where Debian has it
signal.alarm(int(12 * LIMIT))  # whatever hangs
build_probe()
tally = Tally()
with_node = node_has_ws()
for each in (text_is_refused, text_passes, wrong_server):
    tally.run(each)
for each in (websockify_in_front, websockify_as_client):
    if find("websockify"):
        tally.run(each)
    else:
        tally.skip(each, "there is no websockify")
for kind in ("ws", "wss"):
    if kind == "wss" and not (has_tls() and find("openssl")):
        tally.skip(our_server, "wss: mbedtls/ssl.h or openssl is missing")
        continue
    for who in ("we close", "they close"):
        tally.run(client_of_ours, who, kind)
        tally.run(server_of_ours, who, kind)
    for each in (refusals, curl_upgrades):
        tally.run(each, kind)
    for each in (node_client_of_ours, node_server_of_ours):
        if with_node:
            tally.run(each, kind)
        else:
            tally.skip(each, "there is no node with its package ws")
tally.end()
