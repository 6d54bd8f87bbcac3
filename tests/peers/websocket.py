#!/usr/bin/python3
"""Our websocket server and client meet python3-websockets, curl and (when it is here) npm ws, in both roles."""
import asyncio
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from probing import LIMIT, Probe, Tally, build_probe, find, need, server, skip  # noqa: E402

try:
    import websockets
except ImportError:
    skip("there is no python3-websockets")


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


async def as_client(port, probe, closer):
    async with websockets.connect("ws://127.0.0.1:%d/" % port, subprotocols=["chat", "binary"], max_size=None) as peer:
        await later(probe.expect, "opened")
        await converse(probe, peer)
        if closer == "we close":
            probe.say("disconnect")
            try:
                await with_limit(peer.recv())
                raise AssertionError("no close came")
            except websockets.ConnectionClosed as closed:
                assert closed.code == 1000, closed
    await later(probe.expect, "closed")


def client_of_ours(directory, closer):
    """Twice, so that the second peer is seen to come after the first."""
    probe, port = server("websocket")
    for _ in range(2):
        asyncio.run(as_client(port, probe, closer))
    probe.close()


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


def server_of_ours(directory, closer):
    """We are the client; with reconnect the second connection comes by itself."""
    async def talk():
        peers = asyncio.Queue()

        async def handler(peer):
            await peers.put(peer)
            await peer.wait_closed()

        async with websockets.serve(handler, "127.0.0.1", 0, subprotocols=["binary"], max_size=None) as serving:
            port = serving.sockets[0].getsockname()[1]
            probe = await later(Probe, "socket,id=p,host=127.0.0.1,port=%d,websocket=on,reconnect-ms=50" % port)
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


def refusals(directory):
    """curl asks wrongly, and sees why."""
    probe, port = server("websocket")
    url = "http://127.0.0.1:%d" % port
    for args, status in ((["/"], "426"), (["/other"], "404"), (["/", "-X", "POST"], "400"),
                         (["/", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 12"], "426"),
                         (["/", "-H", "Upgrade: websocket", "-H", "Connection: Upgrade", "-H", "Sec-WebSocket-Version: 13"], "400")):
        done = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url + args[0], *args[1:]],
                              capture_output=True, timeout=LIMIT, check=False)
        assert done.stdout.decode() == status, (args, done.stdout)
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
const W = require('ws');
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
if (process.argv[2] === 'client') {
  const ws = new W('ws://127.0.0.1:' + process.argv[3] + '/', ['binary']);
  ws.on('error', (e) => done(String(e)));
  ws.on('open', () => talk(ws));
} else {
  const s = new W.Server({ host: '127.0.0.1', port: 0 }, () => console.log(s.address().port));
  s.on('connection', talk);
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


def node_client_of_ours(directory):
    probe, port = server("websocket")
    talk_to_node(probe, start_node(directory, "client", str(port)))


def node_server_of_ours(directory):
    node = start_node(directory, "server")
    port = int(node.stdout.readline())
    talk_to_node(Probe("socket,id=p,host=127.0.0.1,port=%d,websocket=on" % port), node)


need("curl")
os.environ["NODE_PATH"] = os.environ.get("NODE_PATH", "") + ":/usr/share/nodejs:/usr/lib/nodejs"  # where Debian has it
signal.alarm(int(8 * LIMIT))  # whatever hangs
build_probe()
tally = Tally()
for who in ("we close", "they close"):
    tally.run(client_of_ours, who)
    tally.run(server_of_ours, who)
for each in (text_is_refused, text_passes, refusals, wrong_server):
    tally.run(each)
for each in (node_client_of_ours, node_server_of_ours):
    if node_has_ws():
        tally.run(each)
    else:
        tally.skip(each, "there is no node with its package ws")
tally.end()
