#!/usr/bin/python3
"""relay between each pair of unix socket, tcp, pty, serial line, file, pipe and stdio: random bytes both ways at once arrive intact (sha256).

RELAY_BYTES   how many each way (default 8 MiB)          RELAY_PAIRS   only these, e.g. unix-tcp,pty-file
"""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from relaying import KINDS, Relay, Tally, move  # noqa: E402

SIZE = int(os.environ.get("RELAY_BYTES", 8 << 20))
CHOSEN = [pair for pair in os.environ.get("RELAY_PAIRS", "").split(",") if pair]


def start(directory, kinds, size):
    a = KINDS[kinds[0]](directory, "a", size, serve=True)
    b = KINDS[kinds[1]](directory, "b", size, serve=False)
    keep = ["--keep"] if a.keeps or b.keeps else []
    return a, b, Relay(*keep, a.arg, b.arg, fds=a.fds + b.fds, stdio=a.stdio or b.stdio)


def finish(a, b, relay):
    """Without --keep the relay ends by itself when a side is gone for good; else it is told to."""
    by_itself = (a.closes_for_good or b.closes_for_good) and not (a.keeps or b.keeps)
    a.close()
    b.close()
    if by_itself:
        relay.ends(0)
    else:
        relay.terminate()
    assert relay.stderr() == "", "it says: " + relay.stderr()


def pairing(directory, kinds):
    a, b, relay = start(directory, kinds, SIZE)
    try:
        a.open(relay)
        b.open(relay)
        started = time.monotonic()
        move(a, b, relay)
        seconds = time.monotonic() - started
        finish(a, b, relay)
        return ", %.0f MiB/s each way" % (SIZE / seconds / (1 << 20))
    finally:
        relay.kill()


def stalled(directory, kinds):
    """b's reader stalls until everything from b has arrived: it holds up its own direction alone, and costs no CPU time."""

    def is_idle(lane):
        assert lane[1].count == 0 and lane[0].count < SIZE, "it didn't stall"
        relay.rests(0.5)

    a, b, relay = start(directory, kinds, SIZE)
    try:
        a.open(relay)
        b.open(relay)
        move(a, b, relay, stall=True, while_stalled=is_idle)
        finish(a, b, relay)
    finally:
        relay.kill()


def main():
    tally = Tally()
    names = list(KINDS)
    for i, first in enumerate(names):
        for second in names[i:]:
            pair = first + "-" + second
            if pair == "stdio-stdio" or (CHOSEN and pair not in CHOSEN):
                continue
            tally.run(pair, pairing, (first, second))
    for pair in [] if CHOSEN else ["tcp-unix", "unix-tcp", "unix-pty", "unix-pipe", "pty-stdio", "unix-serial"]:
        tally.run(pair + ", the reader stalls", stalled, pair.split("-"))
    tally.end()


main()
