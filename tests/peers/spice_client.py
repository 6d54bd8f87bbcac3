#!/usr/bin/python3
"""spiceport and spicevmc with a real client: spice-gtk's SpiceClientGLib. The server is libspice-server in the probe, on the
probe's own loop."""
import concurrent.futures
import ctypes
import os
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from probing import LIMIT, PROBE, Probe, Tally, build_probe, skip, spice_flags  # noqa: E402

try:
    import gi
    gi.require_version("SpiceClientGLib", "2.0")
    from gi.repository import GLib, GObject, SpiceClientGLib as Spice
    library = ctypes.CDLL("libspice-client-glib-2.0.so.8")
except (ImportError, ValueError, OSError) as missing:
    skip("there is no SpiceClientGLib for python: %s" % missing)

FLAGS = spice_flags()
BREAK = 2  # SPICE_PORT_EVENT_BREAK
PORT = "org.example.console"


def turn(condition, what):
    """GLib's loop until the condition holds."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "never came: " + what
        if not GLib.MainContext.default().iteration(False):
            time.sleep(0.001)


workers = concurrent.futures.ThreadPoolExecutor(1)


def beside(call, *args):
    """The probe's lines are waited for in a thread, so that the client's loop goes on."""
    future = workers.submit(call, *args)
    turn(future.done, "the probe's answer")
    return future.result()


class Client:
    """A session; `port` is its channel of the class in question once it is open."""

    def __init__(self, number, kind=Spice.PortChannel, name=PORT):
        self.kind = kind
        self.name = name
        self.port = None
        self.main = None
        self.received = bytearray()
        self.events = []
        self.states = []
        self.kept = []  # what is written must live until it is sent
        self.session = Spice.Session()
        self.session.props.uri = "spice://127.0.0.1:%d" % number
        self.session.props.enable_audio = False
        self.session.props.enable_usbredir = False
        self.session.props.enable_smartcard = False
        GObject.Object.connect(self.session, "channel-new", self.on_channel)
        Spice.Session.connect(self.session)

    def on_channel(self, _, channel):
        if isinstance(channel, Spice.MainChannel):
            self.main = channel
            GObject.Object.connect(channel, "main-agent-update", self.on_agent)
        if not isinstance(channel, self.kind):
            return
        if issubclass(self.kind, Spice.PortChannel):
            GObject.Object.connect(channel, "notify::port-opened", self.on_opened)
            GObject.Object.connect(channel, "port-data", self.on_data)
            GObject.Object.connect(channel, "port-event", self.on_event)
        GObject.Object.connect(channel, "channel-event", self.on_state)
        Spice.Channel.connect(channel)

    def on_agent(self, _):
        self.events.append("agent" if self.main.props.agent_connected else "no agent")

    def on_state(self, channel, state):
        self.states.append(state)
        if state == Spice.ChannelEvent.CLOSED and channel == self.port:
            self.port = None

    def on_opened(self, channel, _):
        if channel.props.port_name == self.name:
            self.port = channel
            self.events.append("opened" if channel.props.port_opened else "closed")

    def on_data(self, channel, data, size):
        if channel == self.port:
            self.received += ctypes.string_at(data, size) if isinstance(data, int) else bytes(data)

    def on_event(self, channel, event):
        if channel == self.port and event == BREAK:
            self.events.append("break")

    def finds(self):
        turn(lambda: self.port is not None, "the port; states are %s" % self.states)

    def write(self, data):
        self.kept.append(data)
        library.spice_port_channel_write_async(ctypes.c_void_p(hash(self.port)), data, ctypes.c_size_t(len(data)), None, None, None)

    def tell(self, event):
        self.port.event(event)

    def gets(self, data):
        turn(lambda: len(self.received) >= len(data), "%d bytes at the client; %d are there" % (len(data), len(self.received)))
        assert bytes(self.received) == data, "%r came, not %r" % (bytes(self.received[:200]), data[:200])
        self.received.clear()

    def hears(self, *events):
        turn(lambda: len(self.events) >= len(events), "%s at the client; it has %s" % (events, self.events))
        assert self.events == list(events), "the client heard %s, not %s" % (self.events, events)

    def close(self):
        self.session.disconnect()
        for _ in range(20):
            GLib.MainContext.default().iteration(False)


def start(options):
    """A probe with that chardev on a server, and the server's port."""
    listening = socket.create_server(("127.0.0.1", 0))
    fd = listening.fileno()
    probe = Probe(options, fds=(fd,), objects=["spice,fd=%d" % fd], program=PROBE + "_spice", more=FLAGS)
    number = listening.getsockname()[1]
    listening.close()
    return probe, number


def console():
    probe, number = start("spiceport,id=p,name=" + PORT)
    client = Client(number)
    client.finds()
    beside(probe.expect, "opened")
    return probe, number, client


def port_both_ways(_):
    probe, _, client = console()
    probe.write(b"login: ")
    client.gets(b"login: ")
    client.write(b"root\r")
    beside(probe.data, b"root\r")
    every = bytes(range(256))
    client.write(every)
    beside(probe.data, every)
    probe.write(every)
    client.gets(every)
    client.close()
    beside(probe.expect, "closed")
    probe.close()


def port_events_both_ways(_):
    probe, _, client = console()
    client.hears("opened")
    probe.say("break")
    client.hears("opened", "break")
    probe.say("close")
    client.hears("opened", "break", "closed")
    probe.say("open")
    client.hears("opened", "break", "closed", "opened")
    client.tell(BREAK)  # of its own events this client sends no other
    beside(probe.expect, "break")
    client.write(b"before")
    client.tell(BREAK)
    client.write(b"behind")
    beside(probe.data, b"before")
    beside(probe.expect, "break")
    beside(probe.data, b"behind")
    client.close()
    probe.close()


def a_mebibyte_both_ways(_):
    probe, _, client = console()
    block = bytes(i * 2654435761 >> 13 & 255 for i in range(1 << 20))
    client.write(block)
    beside(probe.data, block)
    probe.say("room 1000")
    client.write(block[:100000])
    beside(probe.data, block[:1000])
    probe.say("room -1")
    beside(probe.data, block[1000:100000])
    for at in range(0, 1 << 20, 1 << 16):  # as long as the probe's lines may be
        beside(probe.write, block[at:at + (1 << 16)])
        assert beside(probe.wrote) == 1 << 16
    client.gets(block)
    client.close()
    probe.close()


def clients_come_and_go(_):
    probe, number, client = console()
    for _ in range(3):
        client.write(b"last words")
        beside(probe.data, b"last words")
        client.close()
        beside(probe.expect, "closed")
        client = Client(number)
        client.finds()
        beside(probe.expect, "opened")
        probe.write(b"welcome")
        client.gets(b"welcome")
    client.close()
    probe.close()


def history_for_a_late_client(_):
    probe, number = start("spiceport,id=p,history=1K,name=" + PORT)
    probe.write(b"booting\n")
    client = Client(number)
    client.finds()
    client.gets(b"booting\n")
    client.close()
    probe.close()


def webdav_is_a_port(_):
    """The server makes a channel of its own kind out of a port of this name."""
    name = "org.spice-space.webdav.0"
    probe, number = start("spiceport,id=p,name=" + name)
    client = Client(number, Spice.WebdavChannel, name)
    client.finds()
    client.hears("opened")
    beside(probe.expect, "opened")
    probe.say("close")
    client.hears("opened", "closed")
    client.close()
    beside(probe.expect, "closed")
    probe.close()


def agent(_):
    """A client's first word to an agent is what it can do: a chunk of the VDI port to the client's port, with a VDAgentMessage."""
    probe, number = start("spicevmc,id=p,name=vdagent")
    beside(probe.expect, "opened")
    client = Client(number, Spice.MainChannel)
    turn(lambda: client.events, "the agent")
    client.hears("agent")

    def announces():
        port, size = struct.unpack("<II", beside(probe.take, 8))
        message = beside(probe.take, size)
        assert port == 1 and message[:8] == struct.pack("<II", 1, 6), "port %d, %s" % (port, message.hex())  # VD_AGENT_ANNOUNCE_CAPABILITIES
    announces()
    probe.say("close")
    beside(probe.expect, "closed")
    client.hears("agent", "no agent")
    probe.say("open")
    beside(probe.expect, "opened")
    client.hears("agent", "no agent", "agent")
    announces()
    client.close()
    probe.close()


if FLAGS is None:
    skip("pkg-config knows no spice-server")
signal.alarm(int(8 * LIMIT))  # whatever hangs
build_probe(PROBE + "_spice", FLAGS)
tally = Tally()
for each in (port_both_ways, port_events_both_ways, a_mebibyte_both_ways, clients_come_and_go, history_for_a_late_client, webdav_is_a_port,
             agent):
    tally.run(each)
tally.end()
