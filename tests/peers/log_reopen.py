#!/usr/bin/python3
"""relay and tinyvm with -log-reopen-on-hup: a log file that was renamed is reopened on SIGHUP, as for logrotate."""
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from relaying import RELAY, Tally, until  # noqa: E402

TINYVM = os.path.join(os.path.dirname(RELAY), "tinyvm")


def text_of(path):
    if not os.path.exists(path):
        return b""
    with open(path, "rb") as file:
        return file.read()


def rotated_by_hand(directory):
    log, old = os.path.join(directory, "log"), os.path.join(directory, "log.old")
    relay = subprocess.Popen([RELAY, "--keep", "-log-reopen-on-hup", "stdio", "null,logfile=" + log], stdin=subprocess.PIPE)
    try:
        for number in range(3):
            relay.stdin.write(b"before %d\n" % number)
            relay.stdin.flush()
            until(lambda: text_of(log) == b"before %d\n" % number, "the line in the log", 10)
            os.rename(log, old)
            relay.send_signal(signal.SIGHUP)
            until(lambda: os.path.exists(log), "the new log file", 10)
            assert text_of(old) == b"before %d\n" % number
        assert relay.poll() is None
    finally:
        relay.kill()
        relay.wait(10)
        relay.stdin.close()


def tinyvm_goes_on(directory):
    log = os.path.join(directory, "log")
    vm = subprocess.Popen([TINYVM, "-log-reopen-on-hup", "-S", "-chardev", "null,id=n,logfile=" + log, "-serial", "chardev:n"])
    try:
        until(lambda: os.path.exists(log), "the log file", 10)
        for _ in range(3):
            os.rename(log, log + ".old")
            vm.send_signal(signal.SIGHUP)
            until(lambda: os.path.exists(log), "the new log file", 10)
        assert vm.poll() is None
        vm.send_signal(signal.SIGTERM)
        vm.wait(20)
    finally:
        vm.kill()
        vm.wait(10)


def hung_up_without_the_option(directory):
    log = os.path.join(directory, "log")
    relay = subprocess.Popen([RELAY, "stdio", "null,logfile=" + log], stdin=subprocess.PIPE)
    until(lambda: os.path.exists(log), "the log file", 10)
    relay.send_signal(signal.SIGHUP)
    relay.wait(10)
    relay.stdin.close()


tally = Tally()
for case in (rotated_by_hand, tinyvm_goes_on, hung_up_without_the_option):
    tally.run(case.__name__, case)
tally.end()
