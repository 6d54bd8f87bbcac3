#!/usr/bin/python3
"""Large amounts under Wine: a stream through relay.exe intact (WINDOWS_MIB=1024 for a GiB; 256 MiB by default), 1000 sockets in one process,
2000 connects, resets and removals that leave the count of handles as it was."""
import hashlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from vm import Qmp  # noqa: E402
from windows import COMPILER, LIMIT, ROOT, WINE, Program, Skipped, Thread, call, exe, free_port, has_backend, need_exes, run_all, skip, until  # noqa: E402

need_exes("relay", "tinyvm")
if not has_backend("socket"):
    skip("relay.exe has no socket")

MIB = int(os.environ.get("WINDOWS_MIB", "256"))
RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER of 0 seconds
HANDLES = os.path.join(os.path.dirname(exe("relay")), "tests", "windows_handles.exe")


def stream(_):
    """From one TCP connection to the other, by sha256."""
    ports = free_port(), free_port()
    block = os.urandom(1 << 20)
    with Program("relay", *["tcp:127.0.0.1:%d,server=on,wait=off" % port for port in ports]) as relay:
        for port in ports:
            relay.listens(port)
        a, b = (call(port, 600) for port in ports)

        def send():
            sent = hashlib.sha256()
            for number in range(MIB):
                data = number.to_bytes(8, "little") + block[8:]
                sent.update(data)
                a.sendall(data)
            return sent.digest()

        def receive():
            got, left, data = hashlib.sha256(), MIB << 20, bytearray(1 << 20)
            while left:
                n = b.recv_into(data, min(left, len(data)))
                assert n, "the end came %d bytes early" % left
                got.update(memoryview(data)[:n])
                left -= n
            return got.digest()

        started = time.monotonic()
        sender, receiver = Thread(send), Thread(receive)
        assert sender.result(600) == receiver.result(600), "the bytes differ"
        print("%d MiB, %.0f MiB/s" % (MIB, MIB / (time.monotonic() - started)))
        a.close(), b.close()


def monitor(port, *args):
    """tinyvm.exe with a control monitor on that port."""
    vm = Program("tinyvm", "-S", "-serial", "none", "-chardev", "socket,id=mon,host=127.0.0.1,port=%d,server=on,wait=off" % port, "-mon",
                 "chardev=mon,mode=control", *args)
    try:
        vm.listens(port)
        qmp = Qmp(call(port))
        qmp.greet()
    except BaseException:
        vm.kill()
        raise
    return vm, qmp


def quit_vm(vm, qmp):
    qmp.ok("quit")
    vm.ends(0)
    qmp.close()
    vm.kill()


def inet(port, **more):
    return dict({"addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": str(port)}}}, **more)


def thousand_sockets(_):
    """500 servers with a peer each, all made over the monitor: half of the peers leave, then the servers are removed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    vm, qmp = monitor(free_port())
    with vm:
        peers = []
        for number in range(500):
            port = free_port()
            qmp.ok("chardev-add", id="s%d" % number, backend={"type": "socket", "data": inet(port, wait=False)})
            peers.append(call(port))
        until(lambda: sum("<->" in c["filename"] for c in qmp.ok("query-chardev")) >= 500, "500 peers are connected")
        vm.rests()
        for peer in peers[::2]:
            peer.close()
        until(lambda: sum("<->" in c["filename"] for c in qmp.ok("query-chardev") if c["label"].startswith("s")) == 250, "half of them have gone")
        for number in range(500):
            qmp.ok("chardev-remove", id="s%d" % number)
        for peer in peers[1::2]:
            peer.settimeout(LIMIT)
            assert peer.recv(1) == b"", "a removed one's peer"
        vm.rests()
        quit_vm(vm, qmp)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- handles ----


def build_handles():
    source = os.path.join(ROOT, "tests", "peers", "lib", "windows_handles.c")
    if os.path.exists(HANDLES) and os.path.getmtime(HANDLES) > os.path.getmtime(source):
        return
    if not shutil.which(COMPILER):
        raise Skipped("there is no " + COMPILER)
    os.makedirs(os.path.dirname(HANDLES), exist_ok=True)
    subprocess.run([COMPILER, "-std=c99", "-O1", "-Wall", "-Wextra", "-o", HANDLES, source], check=True)


def handles_of(name):
    done = subprocess.run([WINE, HANDLES, name], stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=True)
    return int(done.stdout)


def settled(name):
    """Lingering closes and threads that end take their time."""
    counts = [handles_of(name)]
    for _ in range(20):
        time.sleep(0.3)
        counts.append(handles_of(name))
        if counts[-1] == counts[-2]:
            break
    return counts[-1]


def flat(name, vm, once, turns):
    """Handles and the descriptors behind them, after a few turns and after all."""
    once(turns // 10)
    before = settled(name), len(os.listdir("/proc/%d/fd" % vm.process.pid))
    once(turns)
    after = settled(name), len(os.listdir("/proc/%d/fd" % vm.process.pid))
    assert after[0] <= before[0] + 2 and after[1] <= before[1] + 2, "%d turns: (handles, descriptors) %s before, %s after" % (turns, before, after)


def connects_and_resets(directory):
    """One server; its peers close, reset, or leave unread bytes behind."""
    build_handles()
    name = "relay_%d.exe" % os.getpid()
    program = shutil.copy(exe("relay"), os.path.join(directory, name))
    port = free_port()
    with Program(program, "--keep", "tcp:127.0.0.1:%d,server=on,wait=off" % port, "null") as relay:
        relay.listens(port)

        def once(turns):
            for turn in range(turns):
                peer = call(port)
                if turn % 4 < 2:
                    peer.sendall(b"hello")
                if turn % 2:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                else:
                    peer.shutdown(socket.SHUT_WR)
                    assert peer.recv(1) == b""  # it has been served: the backlog doesn't fill
                peer.close()

        flat(name, relay, once, 2000)
        relay.rests()


def removals(directory):
    """Servers, clients, clients that are refused, and udp, made and removed over the monitor, with and without a peer."""
    build_handles()
    name = "tinyvm_%d.exe" % os.getpid()
    program = shutil.copy(exe("tinyvm"), os.path.join(directory, name))
    port = free_port()
    vm = Program(program, "-S", "-serial", "none", "-chardev", "socket,id=mon,host=127.0.0.1,port=%d,server=on,wait=off" % port, "-mon",
                 "chardev=mon,mode=control")
    with vm, socket.create_server(("127.0.0.1", 0), backlog=100) as there:
        vm.listens(port)
        qmp = Qmp(call(port))
        qmp.greet()
        free, other = free_port(), there.getsockname()[1]

        def once(turns):
            for turn in range(turns // 4):
                qmp.ok("chardev-add", id="server", backend={"type": "socket", "data": inet(free, wait=False)})
                if turn % 2:
                    call(free).close()
                qmp.ok("chardev-remove", id="server")
                qmp.ok("chardev-add", id="client", backend={"type": "socket", "data": inet(other, server=False)})
                qmp.ok("chardev-remove", id="client")
                there.accept()[0].close()
                qmp.ok("chardev-add", id="refused", backend={"type": "socket", "data": inet(1, server=False, reconnect=1)})
                qmp.ok("chardev-remove", id="refused")
                qmp.ok("chardev-add", id="udp", backend={"type": "udp", "data": {"remote": {"type": "inet", "data": {"host": "127.0.0.1", "port": "9"}}}})
                qmp.ok("chardev-remove", id="udp")

        flat(name, vm, once, 2000)
        quit_vm(vm, qmp)


run_all([stream, thousand_sockets, connects_and_resets, removals])
