#!/usr/bin/python3
"""stack.py FILE.ci [--object FILE.o] [--most N]: the worst chains of calls, in bytes of stack, from what gcc -fcallgraph-info=su writes.

A call through a pointer is counted as the deepest slot or handler of the library's that calls nothing through a pointer itself: that of
a chardev with nothing below it. One that stands on another, as a mux does, adds the second number: its deepest way down. The hooks of
chr_config (log, timeout_changed) are the program's own, and not counted. In the object (Thumb, -ffunction-sections) a call that is a
jump leaves no frame behind. Prints the chains of the public functions, deepest first, and with --most N fails when the first, with one
chardev that stands on another, is deeper."""

import re
import subprocess
import sys

HOOKS = ("chr__loop_timeout_changed", "chr__log_hook", "chr__free_removed")


def read(path):
    frames, calls = {}, {}
    with open(path, encoding="utf-8") as ci:
        for line in ci:
            node = re.match(r'node: \{ title: "([^"]+)" label: "[^"]*?\\n(\d+) bytes', line)
            edge = re.match(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"', line)
            if node:
                frames[node.group(1)] = int(node.group(2))
            elif edge:
                calls.setdefault(edge.group(1), set()).add(edge.group(2))
    return frames, calls


def read_calls(path):
    """What each function calls with its frame in place: {name: {callee}}; through a pointer: __indirect_call."""
    listing = subprocess.run(["arm-none-eabi-objdump", "-d", "-r", path], check=True, capture_output=True, text=True).stdout
    calls, name = {}, None
    for line in listing.splitlines():
        begin = re.match(r"[0-9a-f]+ <([^>]+)>:", line)
        called = re.search(r"R_ARM_(?:THM_)?(?:PC22|CALL)\s+([\w.]+)", line)
        if begin:
            name = begin.group(1)
            calls[name] = set()
        elif called:
            calls[name].add(called.group(1))
        elif re.search(r"\bblx\s+(r\d+|ip)", line):
            calls[name].add("__indirect_call")
    return calls


class Depths:
    def __init__(self, frames, calls, kept):
        self.frames, self.calls, self.kept, self.known, self.indirect = frames, calls, kept, {}, 0

    def frame_under(self, name, callee):
        """What of its own frame is in place while the callee runs."""
        kept = self.kept.get(name.split(":")[-1])
        return self.frames.get(name, 0) if kept is None or callee.split(":")[-1] in kept else 0

    def of(self, name, under=()):
        """(bytes, chain): own frame and the deepest callee. A function that comes back to itself is counted once."""
        if name == "__indirect_call":
            return (0, ("hook",)) if short(under[-1]) in HOOKS else (self.indirect, ("*",))
        if name in self.known:
            return self.known[name]
        deepest, whole = (self.frames.get(name, 0), ()), True
        for callee in self.calls.get(name, ()):
            if callee == name or callee in under:
                whole = False
                continue
            below, chain = self.of(callee, under + (name,))
            deepest = max(deepest, (self.frame_under(name, callee) + below, chain))
        result = (deepest[0], (name,) + deepest[1])
        if whole or not under:
            self.known[name] = result
        return result


def goes_on(name, calls, seen):
    """Whether it calls through a pointer, itself or further down."""
    if name == "__indirect_call":
        return True
    if name in seen:
        return False
    seen.add(name)
    return any(goes_on(each, calls, seen) for each in calls.get(name, ()))


def short(name):
    return re.sub(r"\.(isra|constprop|part)\.\d+|\.\d+", "", name.split(":")[-1])


def argument(name):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else None


def main():
    most = int(argument("--most") or 0)
    frames, calls = read(sys.argv[1])
    kept = read_calls(argument("--object")) if argument("--object") else {}
    called = {c for each in calls.values() for c in each}
    slots = [n for n in frames if n not in called and short(n).startswith("chr__")]
    public = [n for n in frames if short(n).startswith("chr_") and not short(n).startswith("chr__")]
    if not slots or not public:
        sys.exit("no functions in " + sys.argv[1])
    plain = Depths(frames, calls, kept)
    leaf = max(plain.of(n) for n in slots if not goes_on(n, calls, set()))
    stacked = max(plain.of(n) for n in slots)
    full = Depths(frames, calls, kept)
    full.indirect = leaf[0]
    worst = sorted((full.of(n) for n in public), reverse=True)
    for depth, chain in worst[:5]:
        print("%5d bytes: %s" % (depth, " ".join(short(n) for n in chain)))
    print("%5d of them: the deepest slot, %s" % (leaf[0], " ".join(short(n) for n in leaf[1])))
    print("%5d more for each chardev that stands on another: %s" % (stacked[0], " ".join(short(n) for n in stacked[1])))
    total = worst[0][0] + stacked[0]
    print("%5d bytes of stack, %d with one chardev that stands on another" % (worst[0][0], total))
    if most and total > most:
        sys.exit("deeper than %d bytes" % most)


main()
