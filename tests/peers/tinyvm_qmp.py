#!/usr/bin/python3
"""tinyvm's control monitor used by a QMP client: sessions, errors, chardevs added and changed, descriptors passed, events."""
import base64
import array
import json
import os
import signal
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from vm import LIMIT, Monitored, Qmp, Stream, Vm, check, connect, listener, open_tty, run_all, until


def null(**more):
    return {"type": "null", "data": more}


def unix_socket(path, **more):
    return {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": path}}, **more}}


def fd_socket(name, **more):
    return {"type": "socket", "data": {"addr": {"type": "fd", "data": {"str": name}}, **more}}


def labels(qmp):
    return {c["label"]: c for c in qmp.ok("query-chardev")}


def session(directory):
    """Greeting, negotiation, ids of any shape, the next peer begins anew."""
    with Monitored(directory, greet=False) as vm:
        greeting = vm.qmp.receive()
        version = greeting["QMP"]["version"]["qemu"]
        check(sorted(version) == ["major", "micro", "minor"] and greeting["QMP"]["capabilities"] == ["oob"], greeting)
        desc = vm.qmp.fails("query-status", error_class="CommandNotFound")
        check("qmp_capabilities" in desc, desc)
        check("nonsense" in vm.qmp.fails("qmp_capabilities", enable=["nonsense"]), "which one")
        check("'enable[1]', expected: string" in vm.qmp.fails("qmp_capabilities", enable=["oob", 1]), "which one")
        vm.qmp.ok("qmp_capabilities", enable=[])
        vm.qmp.fails("qmp_capabilities", error_class="CommandNotFound")
        desc = vm.qmp.fails("no-such-thing", error_class="CommandNotFound")
        check("no-such-thing" in desc, desc)
        for identity in (1, -7, 2.5, "x\u00e9\u20ac\U0001f600\"\\\n", None, True, [1, {"a": []}], {"k": {}}, 10 ** 30):
            answer = vm.qmp.raw(json.dumps({"execute": "query-version", "id": identity}))
            check(answer["id"] == identity and "return" in answer, identity, answer)
        answer = vm.qmp.raw(json.dumps({"execute": "nope", "id": "e"}))
        check(answer["id"] == "e" and answer["error"]["class"] == "CommandNotFound", answer)
        path = vm.path
        with open("/proc/net/unix") as sockets:
            check(path in sockets.read(), "the listening socket is gone")
        vm.qmp.socket.sendall(b'{"execute": "query-ver')
        vm.qmp.close()
        vm.qmp = Qmp(connect(path))
        check("QMP" in vm.qmp.receive(), "the second peer gets a greeting")
        check("qmp_capabilities" in vm.qmp.fails("query-status", error_class="CommandNotFound"), "it must negotiate anew")
        vm.qmp.ok("qmp_capabilities")


def out_of_band(directory):
    """As clients do that pass files: oob is offered and enabled, then getfd comes as exec-oob with the descriptor. Worded as QEMU does."""
    with Monitored(directory, "-serial", "none", greet=False) as vm:
        vm.qmp.receive()
        check("exec-oob" in vm.qmp.raw('{"exec-oob": "query-status"}\n')["error"]["desc"], "before it is enabled")
        vm.qmp.ok("qmp_capabilities", enable=["oob"])
        ours, theirs = socket.socketpair()
        data = b'{"exec-oob": "getfd", "arguments": {"fdname": "pair"}, "id": 7}\n'
        vm.qmp.socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))])
        answer = vm.qmp.answer()
        check(answer == {"return": {}, "id": 7}, answer)
        theirs.close()
        vm.qmp.ok("chardev-add", id="c", backend=fd_socket("pair", server=False))
        check(labels(vm.qmp)["c"]["filename"] == "unix:", labels(vm.qmp))
        ours.close()
        for text, desc in (('{"exec-oob": 1}', "QMP input member 'exec-oob' must be a string"),
                           ('{"exec-oob": "query-status", "execute": "query-status"}', "QMP input member 'execute' clashes with 'exec-oob'"),
                           ('{"exec-oob": "getfd", "arguments": {"fdname": "x"}}', "No file descriptor supplied via SCM_RIGHTS"),
                           ('{"execute": "getfd", "arguments": {"fdname": 1}}', "Invalid parameter type for 'fdname', expected: string")):
            answer = vm.qmp.raw(text + "\n")
            check(answer["error"]["desc"] == desc, text, answer)
        check("return" in vm.qmp.raw('{"exec-oob": "query-status"}\n'), "a command as well")
        vm.qmp.close()
        vm.qmp = Qmp(connect(vm.path))
        vm.qmp.receive()
        vm.qmp.ok("qmp_capabilities")
        check("unexpected" in vm.qmp.raw('{"exec-oob": "query-status"}\n')["error"]["desc"], "the next session has not enabled it")


def twice(directory):
    """A key given twice is an error at any depth; the next command is done."""
    with Monitored(directory) as vm:
        for text in ('{"execute": "query-status", "execute": "query-chardev"}', '{"execute": "query-status", "id": 1, "id": 2}',
                     '{"execute": "query-status", "id": [{"a": 1, "b": 2, "a": 3}]}', '{"execute": "query-status", "id": {"x": {"": 1, "": 2}}}',
                     '{"execute": "chardev-remove", "arguments": {"id": "a", "\\u0069d": "b"}}'):
            answer = vm.qmp.raw(text + "\n")
            check(answer["error"] == {"class": "GenericError", "desc": "JSON parse error, duplicate key"} and "id" not in answer, text, answer)
            check("return" in vm.qmp.raw('{"execute": "query-status"}\n'), "the session goes on after", text)
        answer = vm.qmp.raw('{"execute": "query-status", "id": [{"a": 1}, {"a": 1, "A": 2}]}\n')
        check("return" in answer and answer["id"] == [{"a": 1}, {"a": 1, "A": 2}], answer)


def malformed(directory):
    """Whatever comes, there is an error, and the next command works."""
    with Monitored(directory) as vm:
        for text in ('{"execute": }', '{"execute": "query-status",}', '{"execute" "query-status"}', "{execute: 1}", '{"a": tru}',
                     '{"a": 01}', '{"a": 1.}', '{"a": -}', '{"a": "\\x"}', '{"a": "\\ud800"}', '{"a": "\\u12g4"}', '{"a": nul}',
                     '{"a": [1, 2}', '{"a": 1]', '{"a": "unclosed\n', "garbage and more of it\n", "}\n", "]\n", '"text"\n', "12\n",
                     '{"a": "\ttab"}\n', "{" * 500 + "\n", '{"a":' * 500 + "\n", "[" * 500 + "\n", '{,}', '{"a":1,,"b":2}'):
            answer = vm.qmp.raw(text)
            check(answer["error"]["class"] == "GenericError" and "JSON parse error" in answer["error"]["desc"], text, answer)
            check("return" in vm.qmp.raw('\n{"execute": "query-status"}'), "the session goes on after", text)
        for data in (b'{"a": "\x80"}', b'{"a": "\xc0\x80"}', b'{"a": "\xed\xa0\x80"}', b'{"a": "\xf5\x80\x80\x80"}', b'{"execute": "que\xff'):
            check("JSON parse error" in vm.qmp.raw(data)["error"]["desc"], data)
            check("return" in vm.qmp.raw('\n{"execute": "query-status"}'), "the session goes on after", data)
        for text, word in (("[1]", "object"), ('{"foo": 1}', "foo"), ("{}", "execute"), ('{"execute": 1}', "string"),
                           ('{"execute": "query-status", "arguments": 1}', "arguments"), ('{"execute": "query-status", "x": 1}', "x"),
                           ('{"execute": "query-status", "arguments": {"x": 1}}', "x"), ('{"execute": "chardev-remove"}', "id"),
                           ('{"execute": "chardev-remove", "arguments": {"id": 1}}', "id")):
            answer = vm.qmp.raw(text)
            check(answer["error"]["class"] == "GenericError" and word in answer["error"]["desc"], text, answer)


def pieces(directory):
    """Split anywhere or many in one write; single quotes; answers come in order."""
    with Monitored(directory) as vm:
        text = b'{"execute": "query-status", "id": "\\u00e9 } ] \\" { \xc3\xa9"}'
        for at in range(1, len(text)):
            vm.qmp.socket.sendall(text[:at])
            answer = vm.qmp.raw(text[at:])
            check(answer["id"] == "\u00e9 } ] \" { \u00e9", at, answer)
        vm.qmp.socket.sendall(b"".join(b'{"execute":"query-status","id":%d}' % i for i in range(500)))
        check([vm.qmp.answer()["id"] for _ in range(500)] == list(range(500)), "order")
        check("return" in vm.qmp.raw("{'execute': 'query-status'}"), "single quotes")


def pushback(directory):
    """A client that sends and sends without reading is pushed back; the guest goes on; nothing is lost."""
    with Monitored(directory, "-serial", "stdio", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as vm:
        console = Stream(vm.vm.process.stdout.fileno())
        console.expect("> ")
        command = b'{"execute":"query-commands","id":%d}\n'
        sent, pending = 0, b""
        vm.qmp.socket.setblocking(False)
        vm.qmp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        stuck = 0
        while stuck < 50 and sent < 200000:
            if not pending:
                pending, sent = command % sent, sent + 1
            try:
                pending, stuck = pending[vm.qmp.socket.send(pending):], 0
            except BlockingIOError:
                stuck += 1
                vm.vm.process.stdin.write(b"still here\n")
                console.expect("still here\r\nstill here\r\n> ")
        check(stuck == 50, "the monitor took", sent, "commands without pushing back")
        with open("/proc/%d/status" % vm.vm.pid) as status:
            resident = int(next(line for line in status if line.startswith("VmHWM")).split()[1])
        check(resident < 150 * 1024, "it holds", resident, "KiB")
        vm.qmp.socket.setblocking(True)
        vm.qmp.socket.settimeout(LIMIT)
        last = sent if not pending else sent - 1
        for i in range(last):
            check(vm.qmp.answer()["id"] == i, "answer", i)
        if pending:
            check(vm.qmp.raw(pending)["id"] == last, "the last one")


def queries(directory):
    with Monitored(directory, "-S") as vm:
        check(vm.qmp.ok("query-version")["qemu"]["major"] >= 0, "version")
        names = {c["name"] for c in vm.qmp.ok("query-commands")}
        check(names >= {"qmp_capabilities", "query-version", "query-commands", "query-status", "query-chardev", "query-chardev-backends",
                        "chardev-add", "chardev-change", "chardev-remove", "chardev-send-break", "getfd", "closefd", "ringbuf-read",
                        "ringbuf-write", "stop", "cont", "system_reset", "quit"}, names)
        kinds = {b["name"] for b in vm.qmp.ok("query-chardev-backends")}
        check(kinds >= {"null", "ringbuf", "memory", "fd", "file", "pipe", "pty", "stdio", "mux", "socket"}, kinds)
        status = vm.qmp.ok("query-status")
        check(status["status"] == "prelaunch" and status["running"] is False, status)
        mon = labels(vm.qmp)["mon"]
        check(sorted(mon) == ["filename", "frontend-open", "label"] and mon["frontend-open"] is True, mon)


def run_state(directory):
    """STOP, RESUME, RESET, SHUTDOWN reach all negotiated monitors, with a time; a stopped guest stands still."""
    other = os.path.join(directory, "other")
    with Monitored(directory, "-chardev", "socket,id=o,path=%s,server=on,wait=off" % other, "-mon", "o,mode=control",
                   "-serial", "stdio", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as vm:
        second, third = Qmp(connect(other)), vm.vm.process.stdout.fileno()
        second.greet()
        console = Stream(third)
        console.expect("> ")
        vm.qmp.ok("stop")
        event = second.event("STOP")
        check(event["timestamp"]["seconds"] > 1600000000 and 0 <= event["timestamp"]["microseconds"] < 1000000, event)
        vm.qmp.event("STOP")
        check(vm.qmp.ok("query-status")["status"] == "paused", "paused")
        vm.qmp.ok("stop")
        vm.vm.process.stdin.write(b"hi\n")
        for _ in range(20):
            vm.qmp.ok("query-status")
        check(not vm.qmp.events, "a second stop is no event", vm.qmp.events)
        check(not console.seen, "a stopped guest says", console.seen)
        vm.qmp.ok("cont")
        vm.qmp.event("RESUME")
        second.event("RESUME")
        console.expect("hi\r\nhi\r\n> ")
        vm.qmp.ok("system_reset")
        check(vm.qmp.event("RESET")["data"] == {"guest": False, "reason": "host-qmp-system-reset"}, "RESET's data")
        second.event("RESET")
        console.expect("tinyvm: RV32IM")
        console.expect("> ")
        vm.vm.process.stdin.write(b"reboot\n")
        check(vm.qmp.event("RESET")["data"] == {"guest": True, "reason": "guest-reset"}, "the guest's RESET")
        console.expect("tinyvm: RV32IM")
        vm.qmp.ok("quit")
        check(vm.qmp.event("SHUTDOWN")["data"] == {"guest": False, "reason": "host-qmp-quit"}, "SHUTDOWN's data")
        check(second.event("SHUTDOWN")["data"]["reason"] == "host-qmp-quit", "SHUTDOWN elsewhere")
        check(vm.vm.status() == 0, "exit status")
        second.close()


def endings(directory):
    """By the guest and by a signal: the event comes before the end of the connection."""
    with Monitored(directory, "-serial", "stdio", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as vm:
        vm.vm.process.stdin.write(b"poweroff\r")
        check(vm.qmp.event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-shutdown"}, "by the guest")
        check(vm.qmp.socket.recv(1) == b"" and vm.vm.status() == 0, "then the end")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with Monitored(directory) as vm:
            vm.vm.signal(number)
            check(vm.qmp.event("SHUTDOWN")["data"] == {"guest": False, "reason": "host-signal"}, "by signal", number)
            check(vm.vm.status() == 0, "exit status after signal", number)


def add_and_remove(directory):
    """chardev-add in QMP's words for each kind of backend; what is wrong is named."""
    out, link = os.path.join(directory, "out,with comma"), os.path.join(directory, "link")
    sock = os.path.join(directory, "sock")
    fifo = os.path.join(directory, "fifo")
    os.mkfifo(fifo)
    with Monitored(directory) as vm:
        add = lambda name, backend: vm.qmp.ok("chardev-add", id=name, backend=backend)
        bad = lambda name, backend: vm.qmp.fails("chardev-add", id=name, backend=backend)
        check(add("n", null()) == {}, "null")
        check("n" in bad("n", null()), "twice the same id")
        bad("1n", null()), bad("", null()), bad("a,b=c", null())
        check("nulll" in bad("x", {"type": "nulll", "data": {}}), "unknown type")
        check("data" in bad("x", {"type": "null"}), "no data")
        check("type" in bad("x", {"data": {}}), "no type")
        check("out" in bad("x", {"type": "file", "data": {}}), "a required member")
        check("out" in bad("x", {"type": "file", "data": {"out": 1}}), "a member's type")
        check("zzz" in bad("x", {"type": "file", "data": {"out": out, "zzz": 1}}), "an unknown member")
        check("addr" in bad("x", {"type": "socket", "data": {}}), "no address")
        check("carrier" in bad("x", {"type": "socket", "data": {"addr": {"type": "carrier", "data": {}}}}), "address type")
        check("power of two" in bad("x", {"type": "ringbuf", "data": {"size": 100}}), "ringbuf size")
        check("help" not in labels(vm.qmp) and bad("x", {"type": "help", "data": {}}), "no help here")
        add("f", {"type": "file", "data": {"out": out, "append": True}})
        check(os.path.exists(out), "the file with a comma in its name")
        answer = add("p", {"type": "pty", "data": {}})
        check(answer["pty"].startswith("/dev/") and os.path.exists(answer["pty"]), answer)
        check(add("p2", {"type": "pty", "data": {"path": link}})["pty"] == os.readlink(link), "pty with a link")
        add("pi", {"type": "pipe", "data": {"device": fifo}})
        add("r", {"type": "ringbuf", "data": {"size": 1024}})
        add("m", {"type": "memory", "data": {}})
        add("mux", {"type": "mux", "data": {"chardev": "n"}})
        add("u", unix_socket(sock, server=True, wait=False, nodelay=False))
        add("u2", unix_socket(sock + "2"))
        add("t", {"type": "socket", "data": {"addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": "0", "ipv4": True}}}})
        check(vm.qmp.fails("chardev-add", id="w", backend=unix_socket(sock + "3", wait=True)), "it would block")
        check(not os.path.exists(sock + "3"), "a failed creation leaves a socket behind")
        all_of_them = labels(vm.qmp)
        check("server=on" in all_of_them["u"]["filename"] and all_of_them["u"]["frontend-open"] is False, all_of_them["u"])
        port = int(all_of_them["t"]["filename"].split(",")[0].rsplit(":", 1)[1])
        check(port > 0, "the actual port", all_of_them["t"])
        add("c", {"type": "socket", "data": {"addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": str(port)}}, "server": False}})
        check("busy" in vm.qmp.fails("chardev-remove", id="mon"), "busy")
        check("zz" in vm.qmp.fails("chardev-remove", id="zz"), "unknown")
        check("n" in vm.qmp.fails("chardev-remove", id="n"), "in use by a mux")
        for name in ("f", "p", "p2", "pi", "r", "m", "mux", "n", "u", "u2", "c", "t"):
            vm.qmp.ok("chardev-remove", id=name)
        check(set(labels(vm.qmp)) == {"mon"}, "left over", labels(vm.qmp))
        check(not os.path.exists(sock) and not os.path.exists(link), "left over files")


def ringbuf(directory):
    with Monitored(directory, "-chardev", "ringbuf,id=r,size=16") as vm:
        write = lambda **more: vm.qmp.ok("ringbuf-write", device="r", **more)
        read = lambda **more: vm.qmp.ok("ringbuf-read", device="r", **more)
        check(write(data="hello") == {} and read(size=3) == "hel" and read(size=100) == "lo" and read(size=1) == "", "text")
        write(data=base64.b64encode(b"\x00\xff\x80abc").decode(), format="base64")
        check(base64.b64decode(read(size=100, format="base64")) == b"\x00\xff\x80abc", "base64")
        write(data="\u20ac\u00e9\U0001f600")
        check(read(size=100) == "\u20ac\u00e9\U0001f600", "utf8")
        write(data="0123456789abcdefXYZ")
        check(read(size=100) == "3456789abcdefXYZ", "the oldest goes")
        write(data="a\x00b")
        check(read(size=100) == "a\x00b", "a zero is a character")
        for arguments in ({"device": "nn", "size": 1}, {"device": "mon", "size": 1}, {"device": "r", "size": 0}, {"device": "r", "size": -1},
                          {"device": "r", "size": 1, "format": "xx"}, {"device": "r", "size": 1.5}, {"device": "r", "size": "1"}, {"device": "r"}):
            vm.qmp.fails("ringbuf-read", **arguments)
        vm.qmp.fails("ringbuf-write", device="r", data="?", format="base64")
        vm.qmp.fails("ringbuf-write", device="nn", data="x")


def hot_swap(directory):
    """The serial port gets another backend, and goes on where it was; a failing change changes nothing."""
    first, second = os.path.join(directory, "first"), os.path.join(directory, "second")
    with Monitored(directory, "-chardev", "socket,id=s,path=%s,server=on,wait=off" % first, "-serial", "chardev:s") as vm:
        old = connect(first)
        console = Stream(old.fileno())
        console.send("one\n")
        console.expect("one\r\none\r\n> ")
        vm.qmp.fails("chardev-change", id="s", backend={"type": "file", "data": {"out": directory + "/no/such/dir"}})
        vm.qmp.fails("chardev-change", id="zz", backend=null())
        vm.qmp.fails("chardev-change", id="mon", backend=null())
        console.send("two\n")
        console.expect("two\r\ntwo\r\n> ")
        check(vm.qmp.ok("chardev-change", id="s", backend=unix_socket(second)) == {}, "change")
        check(console.ended(), "the old peer is let go")
        new = connect(second)
        console = Stream(new.fileno())
        console.send("three\n")
        console.expect("three\r\nthree\r\n> ")
        answer = vm.qmp.ok("chardev-change", id="s", backend={"type": "pty", "data": {}})
        console = open_tty(answer["pty"])
        console.send("four\n")
        console.expect("four\r\nfour\r\n> ")
        check(labels(vm.qmp)["s"]["filename"] == "pty:" + answer["pty"], labels(vm.qmp))
        vm.qmp.ok("chardev-send-break", id="s")
        console.expect("<break>\r\n> ")
        vm.qmp.fails("chardev-send-break", id="zz")
        old.close(), new.close(), os.close(console.fd)


def has_log(path, text):
    with open(path, "rb") as f:
        return text in f.read()


def history(directory):
    """What the guest said before anybody came is there for whoever comes."""
    path = os.path.join(directory, "s")
    with Monitored(directory, "-S", "-chardev", "null,id=s", "-serial", "chardev:s") as vm:
        backend = unix_socket(path)
        backend["data"].update(history=4096, logfile=path + ".log")
        vm.qmp.ok("chardev-change", id="s", backend=backend)
        vm.qmp.ok("cont")
        until(lambda: has_log(path + ".log", b"> "), "what the guest says, in the log")
        with connect(path) as peer:
            console = Stream(peer.fileno())
            check(b"tinyvm: RV32IM" in console.expect("> "), "the banner")


def descriptors(directory):
    """getfd, closefd, chardev-add fd: names are descriptors, numbers are not; nothing leaks."""
    with Monitored(directory, "-serial", "none") as vm:
        before = len(vm.vm.descriptors())
        count = lambda: len(vm.vm.descriptors()) - before
        path = os.path.join(directory, "passed")
        vm.qmp.fails("getfd", fdname="a")
        with listener(path) as sock:
            vm.qmp.fails("getfd", sock.fileno(), fdname="1a")
            check(count() == 0, "a refused descriptor stays open")
            vm.qmp.ok("getfd", sock.fileno(), fdname="a")
            check(count() == 1, "one descriptor more", count())
            vm.qmp.ok("getfd", sock.fileno(), fdname="a")
            check(count() == 1, "the second of that name replaces the first", count())
            vm.qmp.ok("closefd", fdname="a")
            check(count() == 0, "closed", count())
            check("a" in vm.qmp.fails("closefd", fdname="a"), "closed once only")
            vm.qmp.ok("getfd", sock.fileno(), fdname="a")
            for number in (0, 1, 2, 3, sock.fileno()):
                vm.qmp.fails("chardev-add", id="x", backend=fd_socket(str(number)))
            check("nn" in vm.qmp.fails("chardev-add", id="x", backend=fd_socket("nn")), "no such name")
            vm.qmp.fails("chardev-add", id="x", backend=fd_socket("a", server=False))
            check(count() == 1, "after an error the name is still there", count())
            vm.qmp.ok("chardev-add", id="x", backend=fd_socket("a", server=True, wait=False))
            vm.qmp.fails("closefd", fdname="a")
        check("server=on" in labels(vm.qmp)["x"]["filename"], labels(vm.qmp))
        vm.qmp.ok("chardev-remove", id="x")
        check(count() == 0 and os.path.exists(path), "removed, and the path isn't ours to unlink", count())
        ours, theirs = socket.socketpair()
        vm.qmp.ok("getfd", theirs.fileno(), fdname="pair")
        theirs.close()
        vm.qmp.ok("chardev-add", id="client", backend=fd_socket("pair", server=False))
        vm.qmp.ok("chardev-add", id="m2", backend=null())
        vm.qmp.ok("chardev-remove", id="client")
        check(ours.recv(1) == b"", "the chardev owned it")
        ours.close()
        with open(os.devnull) as a, open(os.devnull) as b:
            vm.qmp.ok("getfd", a.fileno(), b.fileno(), fdname="many")
        check(count() == 1, "of two that came one is taken and one closed", count())
        check("not" in vm.qmp.fails("chardev-add", id="y", backend=fd_socket("many")), "no socket")
        vm.qmp.ok("closefd", fdname="many")


def second_monitor(directory):
    """The running-monitor case to its end: a listener passed in becomes a chardev that a serial port is changed to."""
    path = os.path.join(directory, "passed")
    with Monitored(directory, "-chardev", "null,id=s", "-serial", "chardev:s") as vm:
        with listener(path) as sock:
            vm.qmp.ok("getfd", sock.fileno(), fdname="later")
        peer = connect(path)  # before anybody serves it: waits in the backlog
        vm.qmp.ok("chardev-change", id="s", backend=fd_socket("later", server=True, wait=False))
        console = Stream(peer.fileno())
        console.send("over a passed descriptor\n")
        console.expect("over a passed descriptor\r\nover a passed descriptor\r\n> ")
        peer.close()


def human(directory):
    with Monitored(directory, "-S") as vm:
        ask = lambda line: vm.qmp.ok("human-monitor-command", command_line=line)
        check(ask("info status") == "VM status: paused (prelaunch)\r\n", ask("info status"))
        check("mon: filename=" in ask("info chardev"), ask("info chardev"))
        check("foo" in ask("foo"), "unknown")
        check(ask("chardev-add ringbuf,id=r") == "" and ask('ringbuf_write r "a b\\n"') == "", "words in quotes")
        check(ask("ringbuf_read r 10") == "a b\r\n\r\n", ask("ringbuf_read r 10"))
        with open(os.devnull) as null_device:
            check(vm.qmp.ok("human-monitor-command", null_device.fileno(), command_line="getfd n") == "", "getfd")
        check(ask("closefd n") == "", "closefd")


def long_messages(directory):
    """Big ones pass whole, too big ones are refused, and the session goes on."""
    with Monitored(directory, "-chardev", "ringbuf,id=r,size=1M") as vm:
        text = "0123456789abcdef" * 32768
        vm.qmp.ok("ringbuf-write", device="r", data=text)
        check(vm.qmp.ok("ringbuf-read", device="r", size=len(text)) == text, "half a megabyte and back")
        answer = vm.qmp.raw(json.dumps({"execute": "ringbuf-write", "arguments": {"device": "r", "data": "x" * 2000000}}) + "\n")
        check("too long" in answer["error"]["desc"], answer)
        vm.qmp.ok("query-status")


def inherited(directory):
    """On the command line numbers are descriptors; a bad one is one line and no start."""
    path = os.path.join(directory, "m")
    with listener(path) as sock:
        dup = os.dup(sock.fileno())
    for options, word in (("socket,fd=999,id=m,server=on,wait=off", "999"), ("socket,fd=name,id=m,server=on,wait=off", "name"),
                          ("socket,fd=%d,id=m" % dup, str(dup)), ("socket,fd=%d,path=x,id=m" % dup, "path")):
        with Vm("-chardev", options, fds=(dup,)) as vm:
            status, errors = vm.status(), vm.stderr()
            check(status == 1 and word in errors and errors.count("\n") == 1, options, status, errors)
    os.close(dup)


run_all([session, out_of_band, twice, malformed, pieces, pushback, queries, run_state, endings, add_and_remove, ringbuf, hot_swap, history, descriptors,
         second_monitor, human, long_messages, inherited])
