#!/usr/bin/python3
"""relay -v and -x, tinyvm -trace, and the probes of a program that is built with CHARDEV_USDT."""
import os
import re
import shutil
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from relaying import RELAY, Tally, until  # noqa: E402

TINYVM = os.path.join(os.path.dirname(RELAY), "tinyvm")
STAMP = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6}"


def run(args, **more):
    return subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30, **more)


def names():
    """Of all events, as the table has them."""
    lines = run([TINYVM, "-trace", "help"]).stdout.decode().splitlines()
    assert len(lines) > 90, lines
    return [line.split()[0] for line in lines]


def talk(directory, *options):
    """What relay says on stderr about 20 bytes from A to B and 2 back."""
    path = os.path.join(directory, "s")
    script = os.path.join(directory, "script")
    with open(script, "w", encoding="ascii") as file:
        file.write('expect "twenty bytes, though"\nsend "ok"\n')
    relay = subprocess.Popen([RELAY, *options, "unix:" + path + ",server=on,wait=off", "script:" + script], stderr=subprocess.PIPE)
    try:
        until(lambda: os.path.exists(path), "the socket", 10)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(path)
            peer.sendall(b"twenty bytes, though\x00")
            assert peer.recv(10) == b"ok"
        said = relay.communicate(timeout=20)[1].decode()
        assert relay.returncode == 0, said
        return said
    finally:
        relay.kill()
        relay.stderr.close()


def relay_says_what_happens(directory):
    said = talk(directory, "-v")
    for what in ("a socket_listen address=", "a socket_accept peer=", "a event_told event=OPENED", "b script_result result=0"):
        assert re.search("^" + STAMP + " " + re.escape(what), said, re.M), (what, said)
    assert "data_in" not in said and "\n>" not in said, said


def relay_dumps(directory):
    said = talk(directory, "-x")
    want = ("^> " + STAMP + "  length=21 from=0 to=20\n"
            r" 74 77 65 6e 74 79 20 62 79 74 65 73 2c 20 74 68 twenty bytes, th" "\n"
            r" 6f 75 67 68 00                                  ough\." "\n"
            "--\n"
            "< " + STAMP + "  length=2 from=0 to=1\n"
            r" 6f 6b                                           ok" "\n"
            "--\n$")
    assert re.match(want, said), said


def relay_does_both(directory):
    said = talk(directory, "-x", "-log-reopen-on-hup", "-v")
    assert re.search("^> " + STAMP, said, re.M) and re.search("^" + STAMP + " a socket_up", said, re.M), said


def relay_is_silent(directory):
    assert talk(directory) == ""


def relay_tells_why_it_fails(_):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    said = run([RELAY, "-v", "null", "tcp:127.0.0.1:%d" % port]).stderr.decode()
    assert 'b socket_connect address="127.0.0.1:%d"' % port in said, said
    assert re.search(r"b socket_connect_failed result=\w+ why=.cannot connect to 127\.0\.0\.1:%d: Connection refused" % port, said), said


def tinyvm_traces(directory):
    path = os.path.join(directory, "log")
    with open(os.path.join(directory, "script"), "w", encoding="ascii") as file:
        file.write('expect "> "\nsend "poweroff\\r"\n')
    serial = ["-serial", "script:" + os.path.join(directory, "script")]
    done = run([TINYVM, "-trace", "script_*", *serial])
    lines = done.stderr.decode().splitlines()
    assert lines and all(re.match(r"\d+\.\d{6} serial0 script_(step|result) ", line) for line in lines), lines
    assert lines[-1].endswith("script_result result=0"), lines
    done = run([TINYVM, "-trace", "*,-script_*,file=" + path, *serial])
    assert done.stderr == b"", done.stderr
    with open(path, encoding="utf-8") as file:
        text = file.read()
    assert " serial0 data_in len=9 \"poweroff\\r\"\n" in text and "script_" not in text, text
    assert " serial0 data_out " in text and text.endswith('chardev_close kind="script"\n'), text[-300:]
    done = run([TINYVM, "-trace", *serial])  # all
    assert b"script_step" in done.stderr and b"data_out" in done.stderr
    done = run([TINYVM, "-trace", "enable=event", "-trace", "script_result", *serial])
    kinds = {line.split()[2] for line in done.stderr.decode().splitlines()}
    assert kinds == {"event", "script_result"}, kinds
    done = run([TINYVM, *serial])
    assert done.stderr == b"", done.stderr


def tinyvm_knows_what_there_is(directory):
    help_text = run([TINYVM, "-trace", "help"])
    assert help_text.returncode == 0
    assert re.search(r"^socket_listen address:text +socket: a server listens$", help_text.stdout.decode(), re.M)
    assert len(set(names())) == len(names())
    for pattern, why in (("sokcet_*", "no event is named 'sokcet_*'"), ("data_in,-nothing", "no event is named 'nothing'"),
                         ("*,file=" + directory + "/none/x", "can't be written")):
        done = run([TINYVM, "-trace", pattern])
        assert done.returncode == 1 and why in done.stderr.decode(), (pattern, done.stderr)
        assert len(done.stderr.splitlines()) == 1


def probes(directory):
    """One of each event; they cost nothing but a no-operation where nobody looks."""
    source = '#define CHARDEV_IMPLEMENTATION\n#include "chardev.h"\nint main(void) { return !chr_context_new(NULL); }\n'
    program = os.path.join(directory, "probed")
    for flags in ([], ["-DCHARDEV_THREADS", "-pthread"]):
        subprocess.run(["gcc", "-std=c99", "-O0", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I.", "-DCHARDEV_USDT", *flags, "-x", "c", "-",
                        "-o", program], input=source.encode(), check=True, timeout=120)
        notes = run(["readelf", "-n", program]).stdout.decode()
        assert "Provider: chardev" in notes
        assert sorted(re.findall(r"^ +Name: (\w+)$", notes, re.M)) == sorted(names())
        assert run([program]).returncode == 0
    subprocess.run(["gcc", "-std=c99", "-O0", "-I.", "-x", "c", "-", "-o", program], input=source.encode(), check=True, timeout=120)
    assert "Provider: chardev" not in run(["readelf", "-n", program]).stdout.decode()


def why_no_probes():
    if not shutil.which("gcc") or not shutil.which("readelf"):
        return "there is no gcc or no readelf"
    if run(["gcc", "-E", "-include", "sys/sdt.h", "-x", "c", "/dev/null"]).returncode != 0:
        return "sys/sdt.h is missing: systemtap-sdt-dev"
    return None


tally = Tally()
for case in (relay_says_what_happens, relay_dumps, relay_does_both, relay_is_silent, relay_tells_why_it_fails, tinyvm_traces,
             tinyvm_knows_what_there_is):
    tally.run(case.__name__, case)
missing = why_no_probes()
if missing:
    print("probes: skipped: " + missing)
    print("%d passed, %d failed, 1 skipped" % (tally.passed, tally.failed))
    sys.exit(1 if tally.failed else 0)
tally.run("probes", probes)
tally.end()
