#!/usr/bin/python3
"""One console on a pty, a TCP port and in a file: all get all output, any may type, a reader that stalls loses nothing and stalls no other."""
import os
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from vm import BUILD, Process, Stream, check, open_tty, run_all, until

PROGRAM = os.path.join(BUILD, "console_share")


def share(directory):
    link, log = os.path.join(directory, "pty"), os.path.join(directory, "log")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Process([PROGRAM, link, str(port), log]) as program:
        until(lambda: os.path.exists(log), "the log file")
        here = open_tty(link)
        here.expect("one console for all\r\n")
        there = Stream(socket.create_connection(("localhost", port)).detach())
        there.expect("one console for all\r\n")
        there.send("typed there\r")
        here.expect("typed there\r\n")
        there.expect("typed there\r\n")
        here.send("typed here\r")
        there.expect("typed here\r\n")
        here.expect("typed here\r\n")
        there.send("x" * 50000 + "\r")  # the pty doesn't read meanwhile
        there.expect("x" * 50000 + "\r\n")
        here.expect("x" * 50000 + "\r\n")
        os.close(there.fd)
        here.send("alone\r")
        here.expect("alone\r\n")
        again = Stream(socket.create_connection(("localhost", port)).detach())
        again.expect("xxx\r\nalone\r\n")  # what came last, also while nobody was there
        until(lambda: os.path.getsize(log) > 50000 + 40, "the log")
        with open(log, "rb") as file:
            text = file.read().decode()
        check(text == "one console for all\r\ntyped there\r\ntyped here\r\n" + "x" * 50000 + "\r\nalone\r\n", "the log: %d bytes, %.80r" % (len(text), text))
        os.close(again.fd)
        os.close(here.fd)
        program.signal(15)


def loses_nothing(directory):
    """Ten thousand lines and a reader in no hurry: back-pressure. SIGTERM ends it with status 0, and the link is gone."""
    link, log = os.path.join(directory, "pty"), os.path.join(directory, "log")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Process([PROGRAM, link, str(port), log]) as program:
        until(lambda: os.path.exists(log), "the log file")
        there = Stream(socket.create_connection(("localhost", port)).detach())
        there.expect("one console for all\r\n")
        typed = "".join("line %d\r" % i for i in range(200000))
        threading.Thread(target=there.send, args=(typed,), daemon=True).start()
        time.sleep(0.5)
        there.expect(typed.replace("\r", "\r\n"))
        program.signal(15)
        check(program.status() == 0, "status %d: %s" % (program.status(), program.stderr()))
        check(not os.path.lexists(link), "the link is left behind")
        check(os.path.getsize(log) == len("one console for all\r\n") + len(typed) + 200000, "the log has %d bytes" % os.path.getsize(log))
        os.close(there.fd)


if __name__ == "__main__":
    run_all([share, loses_nothing])
