#!/usr/bin/python3
"""The same QMP conversation with tinyvm and with QEMU: the answers have the same shape, errors the same class, events the same data."""
import os
import shutil
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from vm import TINYVM, Monitored, check, connect, listener, run_all, skip, until

QEMU = shutil.which("qemu-system-x86_64")
if not QEMU:
    skip("qemu-system-x86_64 is not installed")
PROGRAMS = ((QEMU, "-M", "none", "-display", "none", "-nodefaults"), (TINYVM, "-serial", "none"))


def shape(value):
    """Types and member names, without the values; of a list its distinct elements."""
    if isinstance(value, dict):
        return {key: shape(member) for key, member in sorted(value.items())}
    if isinstance(value, list):
        return sorted({repr(shape(element)) for element in value})
    return type(value).__name__


def outline(answer):
    """What a client would look at: the shape of a success, the class of an error."""
    if "error" in answer:
        check(set(answer) <= {"error", "id"} and set(answer["error"]) == {"class", "desc"}, answer)
        return "error", answer["error"]["class"]
    return "return", shape(answer["return"])


def both(directory, conversation, *args, greet=True):
    """Has it with each of them; the outlines must be equal, step by step."""
    results = []
    for program in PROGRAMS:
        folder = os.path.join(directory, str(len(results)))
        os.mkdir(folder)
        with Monitored(folder, *args, program=program, greet=greet) as vm:
            results.append(list(conversation(vm, folder)))
    for (step, theirs), (_, ours) in zip(*results):
        check(theirs == ours, step, "- QEMU:", theirs, "- tinyvm:", ours)
    check(len(results[0]) == len(results[1]), "one has said more")


def asks(vm, name, *fds, **arguments):
    return (name, arguments), outline(vm.qmp.ask(name, *fds, **arguments))


def greeting(directory):
    def talk(vm, _):
        hello = vm.qmp.receive()
        hello["QMP"]["capabilities"] = []  # ours has no out-of-band execution to offer
        yield "greeting", shape(hello)
        yield asks(vm, "query-status")
        yield asks(vm, "qmp_capabilities", enable=["nonsense"])
        yield asks(vm, "qmp_capabilities")
        yield asks(vm, "qmp_capabilities")
        yield asks(vm, "no-such-command")
    both(directory, talk, greet=False)


def queries(directory):
    def talk(vm, _):
        for name in ("query-version", "query-commands", "query-status", "query-chardev", "query-chardev-backends"):
            yield asks(vm, name)
            yield asks(vm, name, unexpected=1)
        for text in ('{"execute": "query-status", "id": "x"}', '{"execute": "query-status", "id": {"a": [1, 2.5, null, true]}}'):
            answer = vm.qmp.raw(text)
            yield text, (outline(answer), answer["id"])
        status = vm.qmp.ok("query-status")
        yield "values", (status["status"], status["running"])
        yield "the monitor's own line", [(c["label"], c["frontend-open"]) for c in vm.qmp.ok("query-chardev") if c["label"] == "mon"]
    both(directory, talk, "-S")


def malformed(directory):
    """One error each (QEMU gives one per stray word), and the session goes on."""
    def talk(vm, _):
        for text in ("nonsense\n", '{"execute": }', "[1]", "{}", '{"foo": 1}', '{"execute": 1}', '{"execute": "query-status", "arguments": 1}',
                     '{"execute": "query-status", "more": 1}', '{"execute": "query-status" "id": 1}', '{"execute": "\\q"}', "[[[[}\n",
                     b'{"execute": "\xff', "{'execute': 'query-status'}"):
            yield text, outline(vm.qmp.raw(text))
        yield asks(vm, "query-status")
    both(directory, talk)


def chardevs(directory):
    def talk(vm, folder):
        def add(name, kind, **data):
            return asks(vm, "chardev-add", id=name, backend={"type": kind, "data": data})

        def add_socket(name, kind, address, **data):
            return add(name, "socket", addr={"type": kind, "data": address}, **data)

        path = lambda name: os.path.join(folder, name)
        os.mkfifo(path("fifo"))
        yield add("n", "null")
        yield add("n", "null")
        yield add("x", "nulll")
        yield asks(vm, "chardev-add", id="x", backend={"type": "null"})
        yield asks(vm, "chardev-add", id="x", backend={})
        yield asks(vm, "chardev-add", id="x")
        yield asks(vm, "chardev-add", id=1, backend={"type": "null", "data": {}})
        yield add("x", "file")
        yield add("x", "file", out=1)
        yield add("x", "file", out=path("o"), zzz=1)
        yield add("x", "file", out=path("no/such/folder"))
        yield add("f", "file", out=path("out"), append=True)
        yield add("p", "pty")
        yield add("pi", "pipe", device=path("fifo"))
        yield add("x", "pipe", device=path("none"))
        yield add("r", "ringbuf", size=100)
        yield add("r", "ringbuf", size=64)
        yield add("m", "memory")
        yield add("x", "mux")
        yield add("x", "mux", chardev="zz")
        yield add("mux", "mux", chardev="n")
        yield add_socket("u", "unix", {"path": path("u")})
        yield add_socket("uc", "unix", {"path": path("u")}, server=False)
        yield add_socket("x", "unix", {"path": path("nobody")}, server=False)
        yield add_socket("ur", "unix", {"path": path("nobody")}, server=False, reconnect=100)
        yield add_socket("t", "inet", {"host": "127.0.0.1", "port": "0"}, nodelay=True)
        yield add_socket("x", "inet", {"host": "127.0.0.1"})
        yield add_socket("x", "carrier", {"pigeon": 1})
        yield add_socket("x", "fd", {"str": "3"})
        yield add_socket("x", "fd", {"str": "nobody"})
        # A mux is a frontend of its chardev here; there it counts as one only while it has frontends itself.
        yield "chardevs", sorted((c["label"], c["label"] == "n" or c["frontend-open"]) for c in vm.qmp.ok("query-chardev"))
        yield asks(vm, "ringbuf-write", device="r", data="h\u00e9llo")
        yield asks(vm, "ringbuf-read", device="r", size=3)
        yield asks(vm, "ringbuf-write", device="r", data="AP+A", format="base64")
        yield "what is read", vm.qmp.ok("ringbuf-read", device="r", size=100, format="base64")
        yield asks(vm, "ringbuf-read", device="r", size=0)
        yield asks(vm, "ringbuf-read", device="r", size=-1)
        yield asks(vm, "ringbuf-read", device="r", size=1, format="hex")
        yield asks(vm, "ringbuf-read", device="n", size=1)
        yield asks(vm, "ringbuf-read", device="zz", size=1)
        yield asks(vm, "ringbuf-write", device="zz", data="x")
        yield asks(vm, "chardev-change", id="p", backend={"type": "null", "data": {}})
        yield asks(vm, "chardev-change", id="p", backend={"type": "pty", "data": {}})
        yield asks(vm, "chardev-change", id="zz", backend={"type": "null", "data": {}})
        yield asks(vm, "chardev-change", id="mon", backend={"type": "null", "data": {}})
        yield asks(vm, "chardev-change", id="mux", backend={"type": "null", "data": {}})
        yield asks(vm, "chardev-send-break", id="n")
        yield asks(vm, "chardev-send-break", id="zz")
        yield asks(vm, "chardev-remove", id="zz")
        yield asks(vm, "chardev-remove", id="mon")
        for name in ("f", "p", "pi", "r", "m", "uc", "u", "ur", "t"):
            yield asks(vm, "chardev-remove", id=name)
        yield "left", sorted(c["label"] for c in vm.qmp.ok("query-chardev"))  # QEMU never lets go of a mux
    both(directory, talk)


def passed_descriptors(directory):
    def talk(vm, folder):
        path = os.path.join(folder, "passed")
        yield asks(vm, "getfd", fdname="a")
        with listener(path) as sock:
            yield asks(vm, "getfd", sock.fileno(), fdname="1a")
            yield asks(vm, "getfd", sock.fileno(), fdname="a")
            yield asks(vm, "getfd", sock.fileno(), fdname="a")
        yield asks(vm, "closefd", fdname="b")
        yield asks(vm, "chardev-add", id="s", backend={"type": "socket", "data": {"addr": {"type": "fd", "data": {"str": "a"}}}})
        yield asks(vm, "closefd", fdname="a")
        with connect(path):
            yield "chardevs", sorted((c["label"], c["frontend-open"]) for c in vm.qmp.ok("query-chardev"))
        yield asks(vm, "chardev-remove", id="s")
        ours, theirs = socket.socketpair()
        with ours, theirs:
            yield asks(vm, "getfd", theirs.fileno(), fdname="pair")
            yield asks(vm, "chardev-add", id="c", backend={"type": "socket", "data": {"addr": {"type": "fd", "data": {"str": "pair"}}, "server": False}})
            theirs.close()
            yield asks(vm, "chardev-remove", id="c")
            yield "end of file", ours.recv(1)
        with open(os.devnull) as device:
            yield asks(vm, "getfd", device.fileno(), fdname="file")
            yield asks(vm, "chardev-add", id="x", backend={"type": "socket", "data": {"addr": {"type": "fd", "data": {"str": "file"}}}})
    both(directory, talk)


def last_byte(vm):
    try:
        return vm.qmp.socket.recv(1)
    except ConnectionResetError:  # QEMU may leave our last newline unread
        return b""


def life(directory):
    """stop, cont, reset, quit: states and events."""
    def talk(vm, _):
        def status():
            answer = vm.qmp.ok("query-status")
            return answer["status"], answer["running"]

        def event(name):
            message = vm.qmp.event(name)
            return shape(message), message.get("data")

        yield "at first", status()
        yield asks(vm, "stop")
        yield "stop is no event here", (len(vm.qmp.events), status())
        yield asks(vm, "cont")
        yield "RESUME", (event("RESUME"), status())
        yield asks(vm, "stop")
        yield "STOP", (event("STOP"), status())
        yield asks(vm, "system_reset")
        yield "RESET", event("RESET")
        yield "after it", status()
        yield asks(vm, "cont")
        yield "RESUME again", event("RESUME")
        yield asks(vm, "system_reset")
        yield "RESET again", (event("RESET"), status())
        yield asks(vm, "human-monitor-command", command_line="info status")
        yield "in words", vm.qmp.ok("human-monitor-command", command_line="info status")
        yield asks(vm, "quit")
        yield "SHUTDOWN", event("SHUTDOWN")
        yield "the end", (last_byte(vm), vm.vm.status())
    both(directory, talk, "-S")


def by_signal(directory):
    def talk(vm, _):
        vm.vm.signal(signal.SIGTERM)
        yield "SHUTDOWN", vm.qmp.event("SHUTDOWN")["data"]
        yield "the end", (last_byte(vm), vm.vm.status())
    both(directory, talk)


def filename(qmp, label):
    return next(c["filename"] for c in qmp.ok("query-chardev") if c["label"] == label)


def client_and_server(directory):
    """QEMU's chardev is the client of ours, and ours of QEMU's: QMP through both."""
    for server, client in (PROGRAMS, PROGRAMS[::-1]):
        path = os.path.join(directory, os.path.basename(server[0]))
        first, second = os.path.join(directory, "1" + os.path.basename(server[0])), os.path.join(directory, "2" + os.path.basename(server[0]))
        os.mkdir(first), os.mkdir(second)
        with Monitored(first, program=server) as a, Monitored(second, program=client) as b:
            address = {"addr": {"type": "unix", "data": {"path": path}}}
            b.qmp.ok("chardev-add", id="link", backend={"type": "socket", "data": {**address, "server": False, "reconnect": 1}})
            a.qmp.ok("chardev-add", id="link", backend={"type": "socket", "data": address})
            for vm in (a, b):  # they meet within the second of `reconnect`
                until(lambda qmp=vm.qmp: not filename(qmp, "link").startswith("disconnected:"), "the connection of the two")
            a.qmp.ok("chardev-remove", id="link")
            until(lambda: filename(b.qmp, "link").startswith("disconnected:"), "the end of the connection")


run_all([greeting, queries, malformed, chardevs, passed_descriptors, life, by_signal, client_and_server])
