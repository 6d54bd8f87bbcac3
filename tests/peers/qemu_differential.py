#!/usr/bin/python3
"""tinyvm compared with QEMU 7.2: the same command lines, the same peers, the same guest (tinyvm's firmware, on QEMU's RISC-V virt board); option
errors, replies, events, file names and bytes are compared. Intended differences are listed in qemu_differences.txt. Arguments: parts of the
titles of the scenarios to run."""
import array
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import termios

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from beside import Peer, add_option_lines, run_all_beside, scenario, shape
from vm import Failure, Skipped, Stream, check, terminal, until

# ---- option lines: is it taken, what is left in the directory; behind a |, what our error names ----

add_option_lines("""
-chardev null,id=c
-chardev null | id
-chardev null,id=1c | id
-chardev null,id= | id
-chardev null,id=a,id=b
-chardev null,id=c -chardev null,id=c | id c
-chardev nosuch,id=c | nosuch
-chardev id=c | backend
-chardev id=c,backend=null
-chardev null,id=c,foo=1 | null foo
-chardev null,id=c,path=x | null path
-chardev null,id=c,mux=maybe | mux maybe
-chardev null,id=c,mux=yes
-chardev null,id=c,logfile={dir}/log
-chardev null,id=c,logfile={dir}/no/log | no/log
-chardev null,id=c,logfile={dir}/log,logappend=maybe | logappend
-chardev memory,id=c
-chardev ringbuf,id=c,size=100 | size 100
-chardev ringbuf,id=c,size=0 | size
-chardev ringbuf,id=c,size=0.5K
-chardev ringbuf,id=c,size=0x40
-chardev ringbuf,id=c,size=64X | size 64X
-chardev ringbuf,id=c,size=-1 | size -1
-chardev ringbuf,id=c,size= | size
-chardev file,id=c | path
-chardev file,id=c,path={dir}/out
-chardev file,id=c,path={dir}/file
-chardev file,id=c,path={dir}/no/out | no/out
-chardev file,id=c,path={dir}/folder | folder
-chardev file,id=c,path={dir}/file,append=on
-chardev file,id=c,path={dir}/out,append=maybe | append
-chardev file,id=c,path={dir}/out,input-path={dir}/file
-chardev pipe,id=c | path
-chardev pipe,id=c,path={dir}/fifo
-chardev pipe,id=c,path={dir}/none | none
-chardev pty,id=c
-chardev pty,id=c,path={dir}/link
-chardev serial,id=c | path
-chardev serial,id=c,path={dir}/none | none
-chardev serial,id=c,path={dir}/file | path
-chardev serial,id=c,path=/dev/null
-chardev tty,id=c,path=/dev/null
-chardev parallel,id=c | path
-chardev parallel,id=c,path={dir}/none | none
-chardev parallel,id=c,path=/dev/null | parallel
-chardev parport,id=c,path=/dev/null | parallel
-chardev stdio,id=c
-chardev stdio,id=c -chardev stdio,id=d | stdio
-chardev stdio,id=c,signal=off
-chardev stdio,id=c,signal=maybe | signal
-chardev udp,id=c | port
-chardev udp,id=c,port=5
-chardev udp,id=c,host=127.0.0.1 | port
-chardev udp,id=c,port=99999 | port 99999
-chardev udp,id=c,port=nosuchservice | nosuchservice
-chardev udp,id=c,port=5,ipv4=off,ipv6=off | ipv4 ipv6
-chardev udp,id=c,port=5,ipv4=maybe | ipv4
-chardev udp,id=c,port=5,localaddr=127.0.0.1,localport=0
-chardev udp,id=c,port=5,localaddr=192.0.2.1,localport=7 | 192.0.2.1
-chardev msmouse,id=c
-chardev wctablet,id=c
-chardev testdev,id=c
-chardev braille,id=c
-chardev vc,id=c | vc
-chardev qemu-vdagent,id=c | qemu-vdagent
-chardev console,id=c | console
-chardev mux,id=c | chardev
-chardev mux,id=c,chardev=nosuch | chardev nosuch
-chardev null,id=n -chardev mux,id=c,chardev=n
-chardev null,id=n -chardev null,id=m -chardev hub,id=c,chardevs.0=n,chardevs.1=m
-chardev | chardev
-nosuch | nosuch

-chardev socket,id=c | path host fd
-chardev socket,id=c,path={dir}/s,server=on,wait=off
-chardev socket,id=c,path={dir}/s,server,nowait
-chardev socket,id=c,path={dir}/s | /s
-chardev socket,id=c,path={dir}/s,reconnect=1
-chardev socket,id=c,path={dir}/s,reconnect=1.5 | reconnect
-chardev socket,id=c,path={dir}/s,reconnect=1,server=on,wait=off | reconnect server
-chardev socket,id=c,path={dir}/s,host=127.0.0.1,port=1 | path host
-chardev socket,id=c,path={dir}/s,fd=3 | path fd
-chardev socket,id=c,path={dir}/file,server=on,wait=off | /file
-chardev socket,id=c,path={dir}/folder,server=on,wait=off | /folder
-chardev socket,id=c,path={dir}/no/s,server=on,wait=off | no/s
-chardev socket,id=c,path=,server=on,wait=off | path
-chardev socket,id=c,path={dir}/s,,t,server=on,wait=off
-chardev socket,id=c,path=/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx,server=on,wait=off | path 107
-chardev socket,id=c,path={dir}/s,server=on,wait=maybe | wait
-chardev socket,id=c,path={dir}/s,server=maybe | server
-chardev socket,id=c,path={dir}/s,wait=on | wait server
-chardev socket,id=c,path={dir}/s,wait=off | wait server
-chardev socket,id=c,path={dir}/s,server=on,wait=off,size=5 | size
-chardev socket,id=c,path={dir}/s,server=on,wait=off,tight=maybe | tight
-chardev socket,id=c,host=127.0.0.1 | port
-chardev socket,id=c,port=0,server=on,wait=off
-chardev socket,id=c,host=,port=0,server=on,wait=off
-chardev socket,id=c,host=127.0.0.1,port=1 | 127.0.0.1:1
-chardev socket,id=c,host=127.0.0.1,port=1,reconnect=1
-chardev socket,id=c,host=127.0.0.1,port=99999,server=on,wait=off | port
-chardev socket,id=c,host=127.0.0.1,port=nosuch,server=on,wait=off | nosuch
-chardev socket,id=c,host=127.0.0.1,port=40000,to=39000,server=on,wait=off | to
-chardev socket,id=c,host=127.0.0.1,port=0,to=maybe,server=on,wait=off | to
-chardev socket,id=c,host=127.0.0.1,port=0,ipv4=on,ipv6=on,server=on,wait=off
-chardev socket,id=c,host=127.0.0.1,port=0,ipv4=off,ipv6=off,server=on,wait=off | ipv4 ipv6
-chardev socket,id=c,host=127.0.0.1,port=0,ipv6=on,server=on,wait=off | 127.0.0.1
-chardev socket,id=c,host=::1,port=0,server=on,wait=off
-chardev socket,id=c,host=127.0.0.1,port=0,delay=off,server=on,wait=off
-chardev socket,id=c,host=127.0.0.1,port=0,nodelay=on,delay=on,server=on,wait=off | nodelay delay
-chardev socket,id=c,path={dir}/s,server=on,wait=off,telnet=on,tn3270=on | telnet tn3270
-chardev socket,id=c,path={dir}/s,server=on,wait=off,telnet=on,websocket=on | telnet websocket
-chardev socket,id=c,path={dir}/s,reconnect=1,websocket=on
-chardev socket,id=c,path={dir}/s,reconnect=1,telnet=on
-chardev socket,id=c,path={dir}/s,server=on,wait=off,tls-creds=nosuch | tls-creds nosuch
-chardev socket,id=c,host=127.0.0.1,port=0,server=on,wait=off,tls-authz=nosuch | tls-authz tls-creds
-chardev socket,id=c,fd=77 | fd 77
-chardev socket,id=c,fd=nosuch | fd nosuch
-chardev socket,id=c,fd=-1 | fd -1
-chardev socket,id=c,fd=0 | fd 0
-chardev socket,id=c,fd= | fd
-chardev socket,id=c,fd=77,reconnect=1 | reconnect fd

-object nosuch,id=t | nosuch
-object tls-creds-x509 | id
-object tls-creds-x509,id=t,dir={dir}/none,endpoint=server | none
-object tls-creds-x509,id=t,dir={dir}/folder,endpoint=neither | endpoint neither
-object tls-creds-x509,id=t,dir={dir}/folder,endpoint=server,nosuch=1 | nosuch
-object tls-creds-psk,id=t,dir={dir}/none,endpoint=server | none
-object authz-list,id=a,policy=deny
-object authz-list,id=a,policy=maybe | policy maybe

-serial null
-serial none
-serial pty
-serial stdio
-serial mon:stdio
-serial mon:pty
-serial stdio -serial mon:stdio | stdio
-serial tcp::0,server=on,wait=off
-serial tcp:127.0.0.1:0,server,nowait
-serial tcp:127.0.0.1:1 | 127.0.0.1:1
-serial tcp:127.0.0.1:1,reconnect=1
-serial tcp:127.0.0.1 | port
-serial tcp: | port
-serial tcp:[::1]:0,server=on,wait=off
-serial tcp::0,server=on,wait=off,foo=1 | foo
-serial telnet::0,server=on,wait=off
-serial tn3270::0,server=on,wait=off
-serial websocket:127.0.0.1:0,server=on,wait=off
-serial unix:{dir}/s,server=on,wait=off
-serial unix:{dir}/s | /s
-serial unix: | path
-serial udp::5
-serial udp:127.0.0.1:5@127.0.0.1:0
-serial udp:127.0.0.1:5@:0
-serial udp:5 | port
-serial file:{dir}/out
-serial file:{dir}/no/out | no/out
-serial file: | file
-serial pipe:{dir}/fifo
-serial pipe:{dir}/none | none
-serial chardev:nosuch | nosuch
-chardev null,id=n -serial chardev:n
-serial nosuch:x | nosuch:x
-serial /dev/null
-serial /dev/nosuch | /dev/nosuch
-serial COM1 | COM1
-serial con: | con
-serial vc | vc
-serial msmouse
-serial testdev
-serial fd:3 | fd:3
-serial null,logfile={dir}/log
-serial mon:nosuch | nosuch
-serial mon:unix:{dir}/s,server=on,wait=off
-serial | serial

-mon chardev=nosuch | nosuch
-mon nosuch | nosuch
-mon chardev=mon | mon
-mon mode=control | chardev
-chardev null,id=n -mon n
-chardev null,id=n -mon chardev=n,mode=readline
-chardev null,id=n -mon chardev=n,mode=foo | mode foo
-chardev null,id=n -mon chardev=n,foo=1 | foo
-chardev null,id=n -mon chardev=n,mode=control,pretty=on
-chardev null,id=n,mux=on -mon chardev=n -mon chardev=n -serial chardev:n
-chardev null,id=n,mux=on -mon n -mon n -mon n -mon n -mon n
-monitor null
-monitor none
-monitor pty
-monitor unix:{dir}/s,server=on,wait=off
-monitor chardev:mon | mon
-monitor nosuch | nosuch
-qmp null
-qmp unix:{dir}/s,server=on,wait=off
-qmp tcp:127.0.0.1:0,server=on,wait=off -monitor tcp:127.0.0.1:0,server=on,wait=off
-qmp nosuch: | nosuch
-qmp chardev:nosuch | nosuch
""")

# ---- QMP: the conversation itself ----

@scenario("QMP: greeting, capabilities, what comes before them")
def greeting(side):
    side.start("", greet=False)
    hello = side.qmp.receive()
    hello["QMP"]["capabilities"].sort()
    side.see("greeting", [shape(hello), hello["QMP"]["capabilities"]])
    side.ask("query-status")
    side.ask("qmp_capabilities", enable=["nonsense"], names=["nonsense"])
    side.ask("qmp_capabilities")
    side.ask("qmp_capabilities")
    side.ask("no-such-command")


@scenario("QMP: queries, arguments that they don't have, ids of all types")
def queries(side):
    side.start("-S")
    for name in ("query-version", "query-commands", "query-status", "query-chardev", "query-chardev-backends"):
        side.ask(name)
        side.ask(name, unexpected=1)
    for text in ('{"execute": "query-status", "id": "x"}', '{"execute": "query-status", "id": {"a": [1, 2.5, null, true]}}'):
        answer = side.qmp.raw(text)
        side.see(text, [shape(answer), answer["id"]])
    side.see("status", side.qmp.ok("query-status"))
    side.see("the monitor's own chardev", side.chardevs()["mon"])


@scenario("QMP: malformed messages are one error each, and the session goes on")
def malformed(side):
    side.start("")
    for text in ("nonsense\n", '{"execute": }', "[1]", "{}", '{"foo": 1}', '{"execute": 1}', '{"execute": "query-status", "arguments": 1}',
                 '{"execute": "query-status", "more": 1}', '{"execute": "query-status" "id": 1}', '{"execute": "\\q"}', "[[[[}\n",
                 b'{"execute": "\xff', "{'execute': 'query-status'}"):
        side.see(str(text), side.outline(side.qmp.raw(text)))
    side.ask("query-status")


@scenario("QMP: kinds of backends that query-chardev-backends lists")
def backends(side):
    side.start("")
    names = {entry["name"] for entry in side.qmp.ok("query-chardev-backends")}
    for name in ("braille", "console", "fault", "fd", "file", "hub", "memory", "msmouse", "mux", "null", "parallel", "pipe", "pty", "qemu-vdagent",
                 "ringbuf", "script", "serial", "socket", "stdio", "testdev", "udp", "vc", "wctablet"):
        side.see(name, name in names)


@scenario("QMP: chardev-add, arguments that are missing, wrong or unknown")
def add_errors(side):
    side.start("")
    side.add("null", label="n")
    side.add("null", label="n", names=["n"])
    side.add("nulll", names=["nulll"])
    side.ask("chardev-add", id="x", backend={"type": "null"}, names=["data"])
    side.ask("chardev-add", id="x", backend={}, names=["type"])
    side.ask("chardev-add", id="x", names=["backend"])
    side.ask("chardev-add", id=1, backend={"type": "null", "data": {}}, names=["id"])
    side.ask("chardev-add", backend={"type": "null", "data": {}}, names=["id"])
    side.add("null", label="1x", names=["1x"])
    side.add("null", label="", names=["id"])
    side.add("null", foo=1, names=["foo"])
    side.see("chardevs", sorted(side.chardevs()))


@scenario("QMP: file")
def qmp_file(side):
    side.start("")
    side.add("file", names=["out"])
    side.add("file", out=1, names=["out"])
    side.add("file", out=side.path("o"), zzz=1, names=["zzz"])
    side.add("file", out=side.path("no/such/folder"), names=["folder"])
    side.add("file", out=side.path("o"), append="yes", names=["append"])
    side.add("file", out=side.path("out"), append=True)
    side.see_filename("c")
    side.add("file", label="d", **{"in": side.path("none"), "out": side.path("out2")}, names=["none"])
    side.add("file", label="d", **{"in": side.path("out"), "out": side.path("out2")})
    side.ask("chardev-remove", id="c")
    side.see("files", side.files())


@scenario("QMP: pty")
def qmp_pty(side):
    side.start("")
    answer = side.add("pty")
    path = answer["return"]["pty"]
    side.see("its path", path)
    check(os.path.exists(path), path)
    side.see_filename("c")
    side.ask("chardev-change", id="c", backend={"type": "pty", "data": {}})
    side.ask("chardev-remove", id="c")
    until(lambda: not os.path.exists(path) or not side.is_qemu, "the end of the pty")


@scenario("QMP: pipe")
def qmp_pipe(side):
    side.start("")
    side.fifo("fifo")
    side.add("pipe", names=["device"])
    side.add("pipe", device=side.path("none"), names=["none"])
    side.add("pipe", device=side.path("fifo"))
    side.see_filename("c")
    side.ask("chardev-remove", id="c")


@scenario("QMP: ring buffers, UTF-8 and base64, sizes and errors")
def qmp_ringbuf(side):
    side.start("-chardev null,id=n")
    side.add("ringbuf", size=100, names=["100"])
    side.add("ringbuf", label="r", size=64)
    side.add("memory", label="m")
    side.see_filename("r")
    side.ask("ringbuf-write", device="r", data="h\u00e9llo")
    side.see("three bytes", side.ask("ringbuf-read", device="r", size=3)["return"])
    side.ask("ringbuf-write", device="r", data="AP+A", format="base64")
    side.see("the rest", side.qmp.ok("ringbuf-read", device="r", size=100, format="base64"))
    side.ask("ringbuf-write", device="r", data="0123456789" * 10)
    side.see("the last 64", side.qmp.ok("ringbuf-read", device="r", size=100))
    side.ask("ringbuf-write", device="r", data="AAAA", format="hex", names=["format", "hex"])
    side.ask("ringbuf-write", device="r", data="!", format="base64")
    side.ask("ringbuf-read", device="r", size=0, names=["size"])
    side.ask("ringbuf-read", device="r", size=-1, names=["size"])
    side.ask("ringbuf-read", device="r", size=1, format="hex", names=["format"])
    side.ask("ringbuf-read", device="n", size=1, names=["n"])
    side.ask("ringbuf-read", device="zz", size=1, names=["zz"])
    side.ask("ringbuf-write", device="zz", data="x", names=["zz"])
    side.see("nothing is left", side.qmp.ok("ringbuf-read", device="r", size=1))


@scenario("QMP: socket addresses, and errors in them")
def qmp_sockets(side):
    side.start("")
    side.add_socket("unix", {"path": side.path("u")}, label="u")
    side.add_socket("unix", {"path": side.path("u")}, label="uc", server=False)
    side.add_socket("unix", {"path": side.path("nobody")}, server=False, names=["nobody"])
    side.add_socket("unix", {"path": side.path("nobody")}, label="ur", server=False, reconnect=100)
    side.add_socket("inet", {"host": "127.0.0.1", "port": "0"}, label="t", nodelay=True)
    side.add_socket("inet", {"host": "127.0.0.1"}, names=["port"])
    side.add_socket("inet", {"host": "127.0.0.1", "port": "0", "ipv6": True})
    side.add_socket("carrier", {"pigeon": 1}, names=["carrier"])
    side.add_socket("fd", {"str": "3"}, names=["3"])
    side.add_socket("fd", {"str": "nobody"}, names=["nobody"])
    side.add_socket("fd", {}, names=["str"])
    side.add("socket", names=["addr"])
    side.add_socket("unix", {"path": side.path("w")}, server=False, wait=True, names=["wait"])
    side.add_socket("unix", {"path": side.path("w")}, reconnect=1, names=["reconnect"])
    side.connected("uc")
    side.connected("u")
    for label in ("ur", "t"):
        side.see_filename(label)
    side.see("chardevs", sorted((c["label"], c["frontend-open"]) for c in side.chardevs().values()))
    for label in ("uc", "u", "ur", "t"):
        side.ask("chardev-remove", id=label)
    side.see("files", side.files())


@scenario("QMP: udp, serial, parallel, stdio, null and the emulated devices")
def qmp_others(side):
    side.start("")
    side.add("udp", names=["remote"])
    side.add("udp", label="u", remote={"type": "inet", "data": {"host": "127.0.0.1", "port": "9"}})
    side.add("udp", label="v", remote={"type": "inet", "data": {"host": "127.0.0.1", "port": "9"}},
             local={"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}})
    side.add("udp", remote={"type": "unix", "data": {"path": "x"}}, names=["remote"])
    side.add("serial", names=["device"])
    side.add("serial", device=side.path("none"), names=["none"])
    side.add("stdio", label="s", signal=False)
    side.add("stdio", names=["stdio"])
    side.add("parallel", names=["device"])
    for kind in ("null", "msmouse", "wctablet", "testdev"):
        side.add(kind, label=kind)
    for label in ("u", "s", "null", "msmouse", "wctablet", "testdev"):
        side.see_filename(label)
    side.see("chardevs", sorted(side.chardevs()))
    for label in ("u", "v", "s", "null", "msmouse", "wctablet", "testdev"):
        side.ask("chardev-remove", id=label)
    side.see("chardevs", sorted(side.chardevs()))


@scenario("a parallel port that can't be opened leaves standard input alone")
def parallel_error(side):
    side.start("")
    side.add("parallel", device="/dev/null", names=["parallel"])
    side.add("stdio")


@scenario("QMP: mux")
def qmp_mux(side):
    side.start("-chardev null,id=n")
    side.add("mux", names=["chardev"])
    side.add("mux", chardev="zz", names=["zz"])
    side.add("mux", chardev="n")
    side.add("mux", label="d", chardev="n", names=["n"])
    side.see_filename("c")
    side.ask("chardev-change", id="c", backend={"type": "null", "data": {}}, names=["c"])
    side.ask("chardev-remove", id="n", names=["n"])
    side.ask("chardev-remove", id="c")
    side.see("chardevs", sorted(side.chardevs()))


@scenario("QMP: chardev-change, chardev-remove and chardev-send-break of what isn't there or is in use")
def busy(side):
    side.start("-chardev null,id=n")
    side.ask("chardev-change", id="zz", backend={"type": "null", "data": {}}, names=["zz"])
    side.ask("chardev-change", id="mon", backend={"type": "null", "data": {}}, names=["mon"])
    side.ask("chardev-change", id="n", backend={"type": "ringbuf", "data": {"size": 100}}, names=["100"])
    side.see("after wrong options", sorted(side.chardevs()))
    side.ask("chardev-add", id="n", backend={"type": "null", "data": {}})
    side.ask("chardev-change", id="n", backend={"type": "file", "data": {"out": side.path("no/out")}}, names=["no/out"])
    side.see("after one that can't be opened", sorted(side.chardevs()))
    side.ask("chardev-add", id="n", backend={"type": "null", "data": {}})
    side.ask("chardev-change", id="n", backend={"type": "ringbuf", "data": {}})
    side.see_filename("n")
    side.ask("chardev-send-break", id="n")
    side.ask("chardev-send-break", id="zz", names=["zz"])
    side.ask("chardev-remove", id="zz", names=["zz"])
    side.ask("chardev-remove", id="mon", names=["mon"])
    side.ask("chardev-remove", id="n")
    side.ask("chardev-remove", id="n", names=["n"])
    side.see("no event came", len(side.qmp.events))


# ---- descriptors: on the command line, and over SCM_RIGHTS ----

@scenario("getfd: names, replacement, closefd, a listening socket")
def named_listener(side):
    side.start("")
    side.ask("getfd", fdname="a")
    sock = side.listens("passed")
    side.ask("getfd", sock.fileno(), fdname="1a", names=["1a"])
    side.ask("getfd", sock.fileno(), fdname="a")
    side.ask("getfd", sock.fileno(), fdname="a")
    sock.close()
    side.ask("closefd", fdname="b", names=["b"])
    side.add_socket("fd", {"str": "a"})
    side.ask("closefd", fdname="a", names=["a"])
    side.see_filename("c")
    side.unix("passed")
    side.connected("c")
    side.ask("chardev-remove", id="c")
    side.see("files", side.files())


@scenario("getfd: a connected socket")
def named_connection(side):
    side.start("")
    ours, theirs = socket.socketpair()
    side.keep(ours)
    side.ask("getfd", theirs.fileno(), fdname="pair")
    side.add_socket("fd", {"str": "pair"}, server=False)
    theirs.close()
    side.see_filename("c")
    side.ask("chardev-remove", id="c")
    side.see("end of file", ours.recv(1))


@scenario("getfd: what is no stream socket, or not the right one")
def wrong_descriptors(side):
    side.start("")
    with open(os.devnull) as device, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        side.ask("getfd", device.fileno(), fdname="file")
        side.add_socket("fd", {"str": "file"}, names=["file"])
        side.ask("getfd", datagrams.fileno(), fdname="datagrams")
        side.add_socket("fd", {"str": "datagrams"}, names=["datagrams"])
        with side.listens("l") as server:
            side.ask("getfd", server.fileno(), fdname="server")
            side.add_socket("fd", {"str": "server"}, server=False, names=["server"])
        pair = socket.socketpair()
        side.ask("getfd", pair[0].fileno(), fdname="client")
        side.add_socket("fd", {"str": "client"}, server=True, names=["client"])
        for end in pair:
            end.close()


@scenario("fd= on the command line: a listening unix socket, its file stays")
def inherited_listener(side):
    sock = side.listens("s")
    side.start("-chardev socket,id=c,fd=%d,server=on,wait=off" % sock.fileno(), fds=(sock.fileno(),))
    sock.close()
    side.see_filename("c")
    peer = side.unix("s")
    side.connected("c")
    peer.close()
    side.connected("c", False)
    side.ask("chardev-remove", id="c")
    side.see("files", side.files())


@scenario("fd= on the command line: a listening TCP socket")
def inherited_tcp(side):
    sock = side.keep(socket.create_server(("127.0.0.1", 0)))
    side.start("-S -chardev socket,id=c,fd=%d,server=on,wait=off -serial chardev:c" % sock.fileno(), guest=True, fds=(sock.fileno(),))
    side.see_filename("c")
    peer = Peer(side.keep(socket.create_connection(sock.getsockname())))
    side.connected("c")
    peer.close()
    side.connected("c", False)


@scenario("fd= on the command line: a connected socket, and its end")
def inherited_connection(side):
    ours, theirs = socket.socketpair()
    side.keep(ours)
    side.start("-chardev socket,id=c,fd=%d" % theirs.fileno(), fds=(theirs.fileno(),))
    theirs.close()
    side.see_filename("c")
    ours.close()
    side.ask("query-status")
    side.connected("c", False)


# ---- a guest behind each kind of far side ----

BANNER, PROMPT = "tinyvm: RV32IM", "\r\n> "


def echoes(side, peer, *lines):
    """The guest's answers to lines."""
    for line in lines:
        peer.send(line + "\r")
        side.see("answer to " + line, peer.expect(PROMPT))


def run_guest(side, peer):
    """Its first words, and an answer."""
    side.ask("cont")
    peer.expect(BANNER)
    side.see("first words", peer.expect(PROMPT))
    echoes(side, peer, "hello")


@scenario("unix server: a peer leaves, the next one comes")
def unix_server(side):
    side.start("-S -chardev socket,id=c,path={dir}/s,server=on,wait=off -serial chardev:c", guest=True)
    side.see_filename("c")
    peer = side.unix("s")
    side.connected("c")
    run_guest(side, peer)
    peer.close()
    side.connected("c", False)
    peer = side.unix("s")
    side.connected("c")
    echoes(side, peer, "again", "x" * 100)
    side.ask("quit")
    side.see("rest", peer.rest())
    side.see("status", side.process.status())
    side.see("files", side.files())


@scenario("unix server: the second peer waits in the backlog, its bytes too")
def backlog(side):
    side.start("-S -chardev socket,id=c,path={dir}/s,server=on,wait=off -serial chardev:c", guest=True)
    first = side.unix("s")
    side.connected("c")
    run_guest(side, first)
    second = side.unix("s")
    second.send("early\r")
    echoes(side, first, "still first")
    first.close()
    side.see("then", second.expect("early" + PROMPT))


@scenario("TCP server on any port")
def tcp_server(side):
    side.start("-S -chardev socket,id=c,host=127.0.0.1,port=0,server=on,wait=off -serial chardev:c", guest=True)
    side.see_filename("c")
    peer = side.tcp()
    side.connected("c")
    run_guest(side, peer)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()  # a reset
    side.connected("c", False)
    echoes(side, side.tcp(), "after a reset")


@scenario("TCP server on IPv6")
def tcp_server_ipv6(side):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        raise Skipped("there is no IPv6 here") from None
    side.start("-S -chardev socket,id=c,host=::1,port=0,server=on,wait=off -serial chardev:c "
               "-chardev socket,id=d,host=localhost,port=0,ipv4=on,server=on,wait=off", guest=True)
    side.see_filename("c")
    side.see_filename("d")
    peer = side.keep(socket.create_connection(("::1", side.port())))
    side.connected("c")
    peer.close()
    side.connected("c", False)


@scenario("TCP client without reconnect: the end of the connection is the end")
def tcp_client(side):
    server = side.keep(socket.create_server(("127.0.0.1", 0)))
    side.start("-S -chardev socket,id=c,host=127.0.0.1,port=%d -serial chardev:c" % server.getsockname()[1], guest=True)
    peer = side.accept(server)
    side.connected("c")
    run_guest(side, peer)
    peer.close()
    side.connected("c", False)
    side.ask("query-status")


@scenario("TCP client with reconnect=1: a server that refuses, then one that takes it")
def reconnect_tcp(side):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    side.start("-S -serial tcp:127.0.0.1:%d,reconnect=1" % port, guest=True)
    side.see_filename("serial0")
    peer = side.accept(side.keep(socket.create_server(("127.0.0.1", port))))
    side.connected("serial0")
    run_guest(side, peer)


@scenario("chardev-add of a server with wait: true")
def add_waits(side):
    side.start("")
    backend = {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": side.path("w")}}, "wait": True}}
    side.qmp.socket.sendall(json.dumps({"execute": "chardev-add", "arguments": {"id": "c", "backend": backend}}).encode())
    until(lambda: "w" in side.files() or side.qmp_says_anything(), "the socket's file, or an error")
    if not side.qmp_says_anything():
        side.unix("w")
    side.see("the answer", side.outline(side.qmp.answer(), names=["wait"]))


@scenario("unix client with reconnect=1: nobody is there, somebody comes, leaves, comes again")
def reconnect(side):
    side.start("-S -chardev socket,id=c,path={dir}/s,reconnect=1 -serial chardev:c", guest=True)
    side.see_filename("c")
    server = side.listens("s")
    peer = side.accept(server)
    side.connected("c")
    run_guest(side, peer)
    peer.close()
    peer = side.accept(server)
    side.connected("c")
    echoes(side, peer, "again")
    said = side.process.stderr().splitlines()
    side.see("failures that were reported", len([line for line in said if "onnect" in line and "/s: " in line.replace("'", "")]))


@scenario("server with wait=on: nothing starts before the peer has come")
def wait_on(side):
    side.start("-S -chardev socket,id=c,path={dir}/s,server=on -serial chardev:c", guest=True, greet=False)
    until(lambda: "s" in side.files(), "the socket's file")
    side.see("the monitor is silent", not side.qmp_says_anything())
    until(lambda: re.search("wait.*unix:", side.process.stderr()), "a word about it")
    peer = side.unix("s")
    side.qmp.greet()
    side.see_filename("c")
    run_guest(side, peer)


@scenario("what is written while nobody is there is lost")
def nobody(side):
    side.start("-S -chardev socket,id=c,path={dir}/s,server=on,wait=off,logfile={dir}/log -serial chardev:c", guest=True)
    side.ask("cont")
    until(lambda: side.file("log").endswith(b"> "), "the banner in the log")
    side.see("log", side.file("log"))
    echoes(side, side.unix("s"), "first seen")
    until(lambda: side.file("log").endswith(b"first seen\r\n> "), "the answer in the log")
    side.see("log then", side.file("log"))


@scenario("what a peer sends just before the end of its output arrives")
def last_words(side):
    side.start("-S -chardev socket,id=c,path={dir}/s,server=on,wait=off,logfile={dir}/log -serial chardev:c", guest=True)
    peer = side.unix("s")
    side.connected("c")
    run_guest(side, peer)
    peer.send("last words\r")
    peer.socket.shutdown(socket.SHUT_WR)
    until(lambda: side.file("log").count(b"last words") == 2, "the guest's answer in the log")
    side.see("log", side.file("log"))


@scenario("half-close: a peer that ends its output alone has left")
def half_close(side):
    side.start("-S -chardev socket,id=c,path={dir}/s,server=on,wait=off -serial chardev:c", guest=True)
    peer = side.unix("s")
    side.connected("c")
    run_guest(side, peer)
    peer.socket.shutdown(socket.SHUT_WR)
    side.connected("c", False)
    side.see("rest", peer.rest())


@scenario("a hundred lines at once: back-pressure, nothing is lost")
def many_lines(side):
    side.start("-S -chardev socket,id=c,host=127.0.0.1,port=0,server=on,wait=off -serial chardev:c", guest=True)
    peer = side.tcp()
    side.connected("c")
    run_guest(side, peer)
    lines = ["line %d %s" % (i, "x" * (i % 80)) for i in range(100)]
    peer.send("".join(line + "\r" for line in lines))
    side.see("all answers", "".join(peer.expect(PROMPT).decode() for _ in lines))


@scenario("abstract unix sockets")
def abstract(side):
    name = "beside-%d" % os.getpid()
    side.start("-chardev socket,id=c,path=%s,abstract=on,server=on,wait=off -chardev socket,id=d,path=%s,abstract=on,reconnect=1" % (name, name))
    side.connected("c")
    side.connected("d")


@scenario("a stale socket file is replaced, and removed at the end")
def stale(side):
    side.listens("s").close()
    side.start("-chardev socket,id=c,path={dir}/s,server=on,wait=off")
    side.unix("s")
    side.connected("c")
    side.ask("quit")
    side.see("status", side.process.status())
    side.see("files", side.files())


@scenario("to=: the next port, when one is taken")
def next_port(side):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        side.start("-chardev socket,id=c,host=127.0.0.1,port=%d,to=%d,server=on,wait=off" % (port, port + 20))
        side.see("it is another", port < side.port() <= port + 20)
        side.see_filename("c")


@scenario("telnet: negotiation, IAC IAC, BREAK, two-byte commands, options")
def telnet(side):
    side.start("-S -chardev socket,id=c,host=127.0.0.1,port=0,server=on,wait=off,telnet=on -serial chardev:c", guest=True)
    side.see_filename("c")
    peer = side.tcp()
    side.see("negotiation", peer.take(12))
    side.connected("c")
    run_guest(side, peer)
    peer.send(b"a\xff\xf1b\xff\xfd\x03c\r")
    side.see("commands are taken out", peer.expect(PROMPT))
    peer.send(b"\xff\xf3")
    side.see("BREAK", peer.expect(PROMPT))
    peer.send(b"\xff\xff\r")
    side.see("IAC IAC", peer.expect(PROMPT))


@scenario("tn3270: what a terminal is asked for")
def tn3270(side):
    side.start("-chardev socket,id=c,host=127.0.0.1,port=0,server=on,wait=off,tn3270=on")
    side.see_filename("c")
    peer = side.tcp()
    side.see("negotiation", peer.take(21))
    side.connected("c")


def handshake(peer, *headers, refused=False):
    request = ["GET / HTTP/1.1", "Host: localhost", *headers]
    peer.send("\r\n".join(request) + "\r\n\r\n")
    lines = (peer.rest() if refused else peer.expect("\r\n\r\n")).decode().split("\r\n")
    fields = (line.split(": ", 1) for line in lines[1:] if ": " in line)
    return lines[0], {name.lower(): value for name, value in fields}


UPGRADE = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")


def frame(opcode, data):
    mask = b"\x01\x02\x03\x04"
    return bytes([0x80 | opcode, 0x80 | len(data)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data))


def read_frame(peer):
    first, length = peer.take(2)
    if length == 126:
        length, = struct.unpack(">H", peer.take(2))
    return first, peer.take(length)


def read_answer(peer):
    """The payload of binary frames up to the guest's prompt."""
    data = b""
    while not data.endswith(PROMPT.encode()):
        first, more = read_frame(peer)
        check(first == 0x82, "frame", first)
        data += more
    return data


@scenario("websocket: handshake, frames, ping, close")
def websocket(side):
    side.start("-S -chardev socket,id=c,host=127.0.0.1,port=0,server=on,wait=off,websocket=on -serial chardev:c", guest=True)
    side.see_filename("c")
    peer = side.tcp()
    status, headers = handshake(peer, *UPGRADE, "Sec-WebSocket-Protocol: binary")
    side.see("status", status.split()[1])
    side.see("headers", {name: headers.get("sec-websocket-" + name) for name in ("accept", "protocol")})
    side.connected("c")
    side.ask("cont")
    side.see("first words", read_answer(peer).partition(BANNER.encode())[2])
    peer.send(frame(2, b"hel") + frame(2, b"lo\r"))
    side.see("answer", read_answer(peer))
    peer.send(frame(9, b"are you there"))
    side.see("pong", read_frame(peer))
    peer.send(frame(8, struct.pack(">H", 1000)))
    first, data = read_frame(peer)
    side.see("close", [first, data[:2].hex()])
    side.see("end of file", peer.rest())
    side.connected("c", False)


def refused_handshake(title, *headers):
    @scenario("websocket: a handshake " + title)
    def refused(side):
        side.start("-chardev socket,id=c,path={dir}/s,server=on,wait=off,websocket=on")
        peer = side.unix("s")
        status, fields = handshake(peer, *headers, refused=True)
        side.see("status", status.split()[1])
        side.see("upgrade", fields.get("upgrade"))


refused_handshake("without Upgrade", *UPGRADE[1:])
refused_handshake("without a key", *UPGRADE[:3], "Sec-WebSocket-Protocol: binary")
refused_handshake("of version 12", *UPGRADE[:2], "Sec-WebSocket-Version: 12", UPGRADE[3], "Sec-WebSocket-Protocol: binary")


@scenario("websocket: a handshake for another protocol")
def other_protocol(side):
    side.start("-chardev socket,id=c,path={dir}/s,server=on,wait=off,websocket=on")
    peer = side.unix("s")
    peer.send("GET / HTTP/1.1\r\nHost: localhost\r\n%s\r\nSec-WebSocket-Protocol: chat\r\n\r\n" % "\r\n".join(UPGRADE))
    lines = peer.expect("Connection: ").decode().split("\r\n")
    side.see("status", lines[0].split()[1])


def open_raw(path):
    """As it is: without flushing what has come."""
    return Stream(os.open(path, os.O_RDWR | os.O_NOCTTY))


@scenario("pty: a terminal program comes, leaves, comes again")
def pty_guest(side):
    side.start("-S -serial pty", guest=True)
    side.see_filename("serial0")
    path = side.filename("serial0")
    path = path[path.index("/dev/"):]
    until(lambda: path in side.said(), "its name on the terminal")
    side.ask("cont")
    for line in ("hello", "again"):
        screen = open_raw(path)
        screen.send(line + "\r")
        screen.expect(line + "\r\n" + line + PROMPT)
        os.close(screen.fd)
        side.see("answered", line)


@scenario("udp: a datagram each way")
def udp(side):
    peer = side.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    peer.bind(("127.0.0.1", 0))
    peer.settimeout(60)
    side.start("-S -serial udp:127.0.0.1:%d@127.0.0.1:0" % peer.getsockname()[1], guest=True)
    side.see_filename("serial0")
    side.ask("cont")
    said, where = peer.recvfrom(65536)
    while not said.endswith(PROMPT.encode()):
        said += peer.recv(65536)
    side.see("first words", said)
    for line in (b"hello\r", b"x" * 200 + b"\r"):
        peer.sendto(line, where)
        answer = b""
        while not answer.endswith(PROMPT.encode()):
            answer += peer.recv(65536)
        side.see("answer", answer)


@scenario("file: written from its beginning, or behind what is there")
def file_guest(side):
    side.file("old", "old text, longer than what comes now: " + "x" * 200)
    side.file("more", "more: ")
    side.start("-S -chardev file,id=c,path={dir}/old -serial chardev:c", guest=True)
    side.see_filename("c")
    side.ask("cont")
    until(lambda: side.file("old").endswith(b"> "), "the banner")
    side.see("old", side.file("old"))
    side.ask("chardev-change", id="c", backend={"type": "file", "data": {"out": side.path("more"), "append": True}})
    side.ask("system_reset")
    until(lambda: side.file("more").endswith(b"> "), "the banner again")
    side.see("more", side.file("more"))


@scenario("pipe: PATH.in and PATH.out")
def pipe_guest(side):
    side.fifo("p.in")
    side.fifo("p.out")
    side.start("-S -serial pipe:{dir}/p", guest=True)
    side.see_filename("serial0")
    out, to = os.open(side.path("p.out"), os.O_RDWR), os.open(side.path("p.in"), os.O_RDWR)
    said, given = Stream(out), Stream(to)
    side.ask("cont")
    side.see("first words", said.expect(PROMPT))
    given.send("hello\r")
    side.see("answer", said.expect(PROMPT))
    os.close(out), os.close(to)


@scenario("serial: the line's settings and bytes, as its far side sees them")
def serial_guest(side):
    line, slave = terminal()
    side.start("-S -serial " + os.ttyname(slave), guest=True)
    side.see_filename("serial0")
    now = termios.tcgetattr(slave)
    side.see("speed", now[4:6])
    side.see("raw", [bool(now[3] & flag) for flag in (termios.ECHO, termios.ICANON, termios.ISIG, termios.IEXTEN)] +
             [bool(now[0] & flag) for flag in (termios.ICRNL, termios.IXON, termios.ISTRIP, termios.INLCR)] + [bool(now[1] & termios.OPOST)])
    side.see("frame", now[2] & (termios.CSIZE | termios.PARENB | termios.CSTOPB | termios.CREAD | termios.CRTSCTS))
    run_guest(side, line)
    os.close(slave), os.close(line.fd)


@scenario("stdio: pipes, and the end of the input")
def stdio_pipes(side):
    side.start("-S -serial stdio", guest=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    side.see_filename("serial0")
    screen = Stream(side.process.process.stdout.fileno())
    side.ask("cont")
    screen.expect(BANNER)
    side.see("first words", screen.expect(PROMPT))
    side.process.process.stdin.write(b"hello\r")
    side.see("answer", screen.expect(PROMPT))
    side.process.process.stdin.close()
    side.process.process.stdin = None
    side.ask("query-status")
    side.ask("quit")
    side.see("status", side.process.status())


@scenario("stdio: a terminal is raw meanwhile, and as before at the end")
def stdio_terminal(side):
    screen, slave = terminal()
    before = termios.tcgetattr(slave)
    side.start("-S -serial mon:stdio", guest=True, stdin=slave, stdout=slave)
    now = termios.tcgetattr(slave)
    side.see("raw", [bool(now[3] & flag) for flag in (termios.ECHO, termios.ICANON, termios.ISIG)] + [bool(now[1] & termios.OPOST)])
    side.ask("cont")
    screen.expect(BANNER)
    screen.expect("> ")
    screen.send("\x01x")
    side.see("status", side.process.status())
    side.see("restored", termios.tcgetattr(slave) == before)
    os.close(slave), os.close(screen.fd)


@scenario("ringbuf: what a guest has said, the last of it when it is more")
def ringbuf_guest(side):
    side.start("-S -chardev ringbuf,id=r,size=32 -serial chardev:r", guest=True)
    side.ask("cont")
    until(lambda: side.qmp.ok("ringbuf-read", device="r", size=100).endswith("> "), "the banner")
    side.ask("ringbuf-write", device="r", data="not for the guest")
    side.see("comes back here", side.qmp.ok("ringbuf-read", device="r", size=100))


@scenario("null: the guest runs, and nothing comes back")
def null_guest(side):
    side.start("-S -chardev null,id=c,logfile={dir}/log -serial chardev:c", guest=True)
    side.see_filename("c")
    side.ask("cont")
    until(lambda: side.file("log").endswith(b"> "), "the banner in the log")
    side.see("log", side.file("log"))


# ---- log files ----

@scenario("logfile: begun anew, or with logappend=on behind what is there")
def logs(side):
    side.file("new", "old text, longer than what comes now: " + "x" * 200)
    side.file("more", "more: ")
    side.start("-S -chardev socket,id=c,path={dir}/s,server=on,wait=off,logfile={dir}/new -serial chardev:c "
               "-chardev socket,id=d,path={dir}/t,server=on,wait=off,logfile={dir}/more,logappend=on", guest=True)
    peer = side.unix("s")
    side.connected("c")
    run_guest(side, peer)
    until(lambda: side.file("new").endswith(b"hello\r\n> "), "the log")
    side.see("new", side.file("new"))
    side.see("more", side.file("more"))


@scenario("logfile of a mux: what all its frontends say")
def mux_log(side):
    side.start("-S -chardev socket,id=c,path={dir}/s,server=on,wait=off,mux=on,logfile={dir}/log -serial chardev:c", guest=True)
    peer = side.unix("s")
    side.connected("c-base")
    run_guest(side, peer)
    until(lambda: side.file("log").endswith(b"hello\r\n> "), "the log")
    side.see("log", side.file("log"))


# ---- mux keys ----

def shared(side):
    """Serial port and monitor on one socket."""
    side.start("-S -chardev socket,id=c,path={dir}/s,server=on,wait=off,mux=on -mon c -serial chardev:c", guest=True)
    peer = side.unix("s")
    side.connected("c-base")
    side.ask("cont")
    peer.expect(BANNER)
    peer.expect("> ")
    return peer


def monitor_prompt(side):
    return "(qemu) " if side.is_qemu else "(tinyvm) "


@scenario("mux: Ctrl-A c to the monitor and back, the guest goes on")
def mux_focus(side):
    peer = shared(side)
    side.see("names", sorted((label, c["filename"], c["frontend-open"]) for label, c in side.chardevs().items()))
    echoes(side, peer, "to the guest")
    peer.send("\x01c")
    peer.expect(monitor_prompt(side))
    peer.send("info status\r")
    side.see("info status", b"VM status: running" in peer.expect("\n" + monitor_prompt(side)))
    peer.send("\x01c")
    peer.send("back\r")
    side.see("the guest again", peer.expect("back\r\nback" + PROMPT).strip())


@scenario("mux: Ctrl-A b is a BREAK, Ctrl-A Ctrl-A is Ctrl-A, other keys are dropped")
def mux_keys(side):
    peer = shared(side)
    peer.send("\x01b")
    side.see("BREAK", peer.expect(PROMPT))
    peer.send("a\x01\x01b\r")
    side.see("Ctrl-A Ctrl-A", peer.expect(PROMPT))
    peer.send("a\x01jb\r")
    side.see("Ctrl-A j", peer.expect(PROMPT))


@scenario("mux: Ctrl-A h lists the keys, Ctrl-A ? too")
def mux_help(side):
    peer = shared(side)
    for key in ("h", "?"):
        peer.send("\x01" + key + "\r")
        text = peer.expect(PROMPT).decode()
        side.see("Ctrl-A " + key, [letter for letter in "hxsbtc" if re.search(r"(C-a|Ctrl-A) %s\b" % letter, text, re.I)])


@scenario("mux: Ctrl-A t is the time before each line, and no time again")
def mux_time(side):
    peer = shared(side)
    peer.send("\x01t\r")
    peer.send("timed\r")
    said = peer.expect("timed\r\n")
    said = peer.expect("> ")
    side.see("a line", re.sub(rb"\d", b"0", said))
    peer.send("\x01t")
    peer.send("bare\r")
    peer.expect("bare\r\n")
    side.see("no time", peer.expect(PROMPT))


@scenario("mux: Ctrl-A x ends it")
def mux_exit(side):
    peer = shared(side)
    peer.send("\x01x")
    side.see_event("SHUTDOWN")
    side.see("status", side.process.status())
    peer.rest()


@scenario("mux: two serial ports' worth of frontends on one chardev; bytes go to the one in focus")
def mux_monitors(side):
    side.start("-chardev socket,id=c,path={dir}/s,server=on,wait=off,mux=on -mon c -mon c,mode=readline")
    peer = side.unix("s")
    side.connected("c-base")
    peer.expect(monitor_prompt(side))
    for _ in range(3):
        peer.send("\x01c")
        peer.send("info status\r")
        side.see("answers", b"VM status" in peer.expect("\n" + monitor_prompt(side)))


# ---- hot swap, removal, break under a guest ----

@scenario("hot swap: from a socket to a ring buffer and back; a backend that can't be opened changes nothing")
def hot_swap(side):
    side.start("-S -chardev socket,id=c,path={dir}/s,server=on,wait=off -serial chardev:c", guest=True)
    peer = side.unix("s")
    side.connected("c")
    run_guest(side, peer)
    side.ask("chardev-change", id="c", backend={"type": "file", "data": {"out": side.path("no/out")}}, names=["no/out"])
    echoes(side, peer, "still here")
    side.ask("chardev-change", id="c", backend={"type": "ringbuf", "data": {"size": 1024}})
    side.see("end of file", peer.rest())
    side.see_filename("c")
    side.ask("system_reset")
    until(lambda: side.qmp.ok("ringbuf-read", device="c", size=1024).endswith("> "), "the banner in the ring buffer")
    side.ask("chardev-change", id="c", backend={"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": side.path("t")}}}})
    peer = side.unix("t")
    echoes(side, peer, "a socket again")
    side.ask("chardev-remove", id="c", names=["c"])
    side.see("files", side.files())


@scenario("chardev-send-break reaches the guest")
def send_break(side):
    side.start("-S -chardev socket,id=c,path={dir}/s,server=on,wait=off -serial chardev:c", guest=True)
    peer = side.unix("s")
    side.connected("c")
    run_guest(side, peer)
    side.ask("chardev-send-break", id="c")
    side.see("BREAK", peer.expect(PROMPT))


@scenario("chardev-remove of an open socket: its peer sees the end, its file goes")
def removal(side):
    side.start("-chardev socket,id=c,path={dir}/s,server=on,wait=off")
    peer = side.unix("s")
    side.connected("c")
    side.ask("chardev-remove", id="c")
    side.see("end of file", peer.rest())
    side.see("files", side.files())
    side.add_socket("unix", {"path": side.path("s")})
    side.unix("s")
    side.connected("c")


# ---- life and events ----

@scenario("stop, cont, reset, quit: states and events")
def life(side):
    def status():
        answer = side.qmp.ok("query-status")
        side.see("status", [answer["status"], answer["running"]])

    side.start("-S")
    status()
    side.ask("stop")
    side.see("stop is no event here", len(side.qmp.events))
    side.ask("cont")
    side.see_event("RESUME")
    status()
    side.ask("stop")
    side.see_event("STOP")
    status()
    side.ask("system_reset")
    side.see_event("RESET")
    status()
    side.ask("cont")
    side.see_event("RESUME")
    side.ask("system_reset")
    side.see_event("RESET")
    status()
    side.hmp("info status")
    side.ask("quit")
    side.see_event("SHUTDOWN")
    side.see("end of file", side.qmp_rest())
    side.see("exit status", side.process.status())


@scenario("SIGTERM: event, end of file, exit status")
def by_signal(side):
    side.start("")
    side.process.signal(signal.SIGTERM)
    side.see("SHUTDOWN", side.qmp.event("SHUTDOWN")["data"])
    side.see("end of file", side.qmp_rest())
    side.see("exit status", side.process.status())


@scenario("a guest that resets and powers off: events and their reasons")
def guest_ends(side):
    side.start("-S -chardev socket,id=c,path={dir}/s,server=on,wait=off -serial chardev:c", guest=True)
    peer = side.unix("s")
    side.connected("c")
    run_guest(side, peer)
    side.see_event("RESUME")
    peer.send("reboot\r")
    side.see_event("RESET")
    peer.expect(BANNER)
    peer.expect(PROMPT)
    side.see("the connection stays", not side.filename("c").startswith("disconnected"))
    peer.send("poweroff\r")
    try:
        side.see("SHUTDOWN", side.qmp.event("SHUTDOWN")["data"])
    except Failure:
        side.see("SHUTDOWN", "no event, but the end of the session")
    side.see("exit status", side.process.status())


@scenario("events go to all sessions that have left the negotiation")
def two_sessions(side):
    side.start("-S -qmp unix:{dir}/q,server=on,wait=off -chardev socket,id=d,path={dir}/r,server=on,wait=off -mon d,mode=control")
    second, third = side.qmp_session("q"), side.qmp_session("r", greet=False)
    third.receive()
    side.ask("cont")
    side.see_event("RESUME")
    side.see("the second", second.event("RESUME")["event"])
    third.socket.sendall(b'{"execute": "qmp_capabilities"}')
    side.see("the third, which negotiated later", sorted(third.receive()))
    side.see("chardevs", sorted(side.chardevs()))


@scenario("a QMP session that breaks off: the next one begins with a greeting")
def next_session(side):
    side.start("-qmp unix:{dir}/q,server=on,wait=off")
    first = side.qmp_session("q")
    first.socket.sendall(b'{"execute": "query-st')
    first.close()
    side.connected("compat_monitor0", False)
    second = side.qmp_session("q", greet=False)
    side.see("greeting", sorted(second.receive()))
    second.socket.sendall(b'{"execute": "query-status"}')
    side.see("negotiation", second.receive()["error"]["class"])


# ---- QMP and the monitor for people through other far sides ----

def qmp_through(side, read, write):
    """read() gives the next line, without telnet's or the terminal's own bytes."""
    def answer():
        return json.loads(read())
    side.see("greeting", sorted(answer()))
    write(b'{"execute": "qmp_capabilities", "id": 1}\n')
    side.see("answer", answer())
    write(b'{"execute": "query-status", "id": 2}\n')
    side.see("status", shape(answer()))


def line_reader(stream, skip=b""):
    def read():
        return stream.expect("\n").replace(skip, b"") if skip else stream.expect("\n")
    return read


@scenario("QMP over TCP")
def qmp_tcp(side):
    side.start("-qmp tcp:127.0.0.1:0,server=on,wait=off")
    peer = side.tcp("compat_monitor0")
    qmp_through(side, line_reader(peer), peer.send)


@scenario("QMP over telnet")
def qmp_telnet(side):
    side.start("-qmp telnet:127.0.0.1:0,server=on,wait=off")
    peer = side.tcp("compat_monitor0")
    peer.take(12)
    qmp_through(side, line_reader(peer), peer.send)


@scenario("the monitor for people over a websocket")
def monitor_websocket(side):
    side.start("-monitor websocket:127.0.0.1:0,server=on,wait=off")
    peer = side.tcp("compat_monitor0")
    handshake(peer, *UPGRADE, "Sec-WebSocket-Protocol: binary")

    def said():
        data = b""
        while not data.endswith(monitor_prompt(side).encode()):
            data += read_frame(peer)[1]
        return data
    said()
    peer.send(frame(2, b"info status\r"))
    side.see("info status", b"VM status: running" in said())


@scenario("QMP over a pty")
def qmp_over_pty(side):
    side.start("-qmp pty")
    path = side.filename("compat_monitor0")
    screen = open_raw(path[path.index("/dev/"):])
    qmp_through(side, line_reader(screen), screen.send)
    os.close(screen.fd)


@scenario("QMP over pipes")
def qmp_over_pipes(side):
    side.fifo("p.in")
    side.fifo("p.out")
    out, to = os.open(side.path("p.out"), os.O_RDWR), os.open(side.path("p.in"), os.O_RDWR)
    side.start("-qmp pipe:{dir}/p")
    qmp_through(side, line_reader(Stream(out)), Stream(to).send)
    os.close(out), os.close(to)


@scenario("QMP over stdio")
def qmp_over_stdio(side):
    side.start("-qmp stdio", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    qmp_through(side, line_reader(Stream(side.process.process.stdout.fileno())), side.process.process.stdin.write)


def person(side, option="-monitor"):
    side.start(option + " unix:{dir}/m,server=on,wait=off -chardev ringbuf,id=r,size=64 -chardev null,id=n -S")
    peer = side.unix("m")
    peer.expect(monitor_prompt(side))
    return peer


def types(side, peer, line):
    """What the monitor answers, without the echo and the terminal's escapes."""
    peer.send(line + "\r")
    said = peer.expect("\n" + monitor_prompt(side)).decode()
    said = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", said).replace("\r", "")
    return said.partition("\n")[2]


@scenario("a person at the monitor: prompt, commands, what is unknown")
def human(side):
    peer = person(side)
    for line in ("info status", "", "chardev-add null,id=x", "chardev-remove x", "ringbuf_write r text", "ringbuf_read r 10"):
        side.see(line, types(side, peer, line))
    for line in ("nosuch", "chardev-remove nosuch", "chardev-add nosuch,id=x"):
        side.see(line + " is named", "nosuch" in types(side, peer, line))
    peer.send("quit\r")
    side.see("status", side.process.status())


@scenario("a person at the monitor: a descriptor comes along with getfd")
def human_getfd(side):
    peer = person(side)
    ours, theirs = socket.socketpair()
    side.keep(ours)
    peer.socket.sendmsg([b"getfd pair\r"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))])
    peer.expect("\n" + monitor_prompt(side))
    theirs.close()
    side.see("chardev-add", types(side, peer, "chardev-add socket,id=c,fd=pair"))
    side.see_filename("c")
    side.see("closefd", "pair" in types(side, peer, "closefd pair"))
    side.see("chardev-remove", types(side, peer, "chardev-remove c"))
    side.see("end of file", ours.recv(1))


@scenario("HMP: info chardev, a line for each")
def info_chardev(side):
    side.start("-chardev null,id=n -chardev ringbuf,id=r -chardev socket,id=s,path={dir}/s,server=on,wait=off -chardev file,id=f,path={dir}/f "
               "-chardev null,id=m,mux=on -chardev msmouse,id=mouse -chardev testdev,id=t -chardev wctablet,id=w")
    lines = side.qmp.ok("human-monitor-command", command_line="info chardev").replace("\r", "").splitlines()
    side.see("info chardev", sorted(lines))


@scenario("HMP: chardev commands and their errors")
def hmp_commands(side):
    side.start("-chardev null,id=n -chardev ringbuf,id=r,size=64")
    for line in ("chardev-add null,id=a", "chardev-add null,id=a", "chardev-add nosuch,id=b", "chardev-add null", "chardev-add",
                 "chardev-add null,id=b,nosuch=1", "chardev-change a ringbuf", "chardev-change nosuch null", "chardev-change a file", "chardev-change a",
                 "chardev-send-break a", "chardev-send-break nosuch", "chardev-remove a", "chardev-remove a", "chardev-remove mon", "chardev-remove",
                 "ringbuf_write r hello", "ringbuf_read r 3", "ringbuf_read r 100", "ringbuf_read r", "ringbuf_read nosuch 1", "ringbuf_read n 1",
                 "ringbuf_write nosuch x", 'ringbuf_write r "two words\\nand more"', "ringbuf_read r 0x40", "closefd nosuch", "getfd a",
                 "info status", "stop", "info status", "cont", "info status", "nosuch", "info nosuch", "system_reset"):
        side.hmp(line)
    side.see("chardevs", sorted(side.chardevs()))


@scenario("chardevs of the two meet: each is server and client once")
def meet(side):
    """The other program is the far side."""
    other = type(side)(not side.is_qemu, side.path("other"))
    os.mkdir(other.directory)
    side.ends.append(other.end)
    side.start("")
    other.start("")
    address = {"addr": {"type": "unix", "data": {"path": side.path("link")}}}
    other.qmp.ok("chardev-add", id="link", backend={"type": "socket", "data": {**address, "server": False, "reconnect": 1}})
    side.qmp.ok("chardev-add", id="link", backend={"type": "socket", "data": address})
    for one in (side, other):
        until(lambda qmp=one: not qmp.filename("link").startswith("disconnected:"), "the connection of the two")
    side.see_filename("link")
    side.ask("chardev-remove", id="link")
    until(lambda: other.filename("link").startswith("disconnected:"), "the end of the connection")


run_all_beside(os.path.join(os.path.dirname(os.path.abspath(__file__)), "qemu_differences.txt"))
