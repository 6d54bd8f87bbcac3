#!/usr/bin/python3
"""picture.py RESULTS [PART...]: the results of run.sh as an SVG picture on stdout, for a light or a dark page. Parts: guest relays echo
inproc idle counts (default: all)."""
import sys
from xml.sax.saxutils import escape

WIDTH, LEFT, BAR, ROW, GAP = 700, 170, 340, 22, 16
STYLE = """
    .page { fill: #ffffff }
    text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 }
    .head { font-weight: 600 }
    .note { fill: #59636e; font-size: 12px }
    .own { fill: #0969da } .other { fill: #afb8c1 }
    .target { stroke: #cf222e; stroke-width: 2 }
    @media (prefers-color-scheme: dark) {
        .page { fill: #0d1117 }
        text { fill: #f0f6fc } .note { fill: #9198a1 }
        .own { fill: #4493f8 } .other { fill: #656c76 }
        .target { stroke: #f85149 }
    }
"""


def read(path):
    """SECTION NAME KEY VALUE lines."""
    found = {}
    with open(path) as lines:
        for line in lines:
            section, name, key, value = line.split()
            found.setdefault(section, {}).setdefault(name, {})[key] = value
    return found


def rows_of(section, key, own, labels=None):
    """(label, value, whether it is ours)"""
    return [((labels or {}).get(name, name), float(values[key]), name in own) for name, values in section.items() if key in values]


def with_ratio(section, key, own, other, label):
    """Of the two values that the bars show."""
    values = [float(section.get(name, {}).get(key, 0)) for name in (own, other)]
    return ": %.0f times %s's" % (values[0] / values[1], label) if all(values) else ""


class Picture:
    def __init__(self):
        self.parts, self.y = [], 8

    def text(self, x, y, words, kind="", anchor="start"):
        self.parts.append('<text x="%g" y="%g" class="%s" text-anchor="%s">%s</text>' % (x, y, kind, anchor, escape(words)))

    def panel(self, title, note, rows, form, target=None):
        """Bars from zero. The target is a line across them."""
        if not rows:
            return
        self.y += ROW
        self.text(8, self.y, title, "head")
        self.y += ROW - 5
        self.text(8, self.y, note, "note")
        self.y += 7
        longest = max([value for _, value, _ in rows] + [target or 0]) or 1
        top = self.y
        for label, value, is_own in rows:
            self.text(LEFT - 8, self.y + 15, label, anchor="end")
            self.parts.append('<rect x="%d" y="%g" width="%.1f" height="%d" rx="2" class="%s" fill="%s"/>' %
                              (LEFT, self.y + 3, max(value / longest * BAR, 1), ROW - 6, *(("own", "#0969da") if is_own else ("other", "#afb8c1"))))
            self.text(LEFT + value / longest * BAR + 8, self.y + 15, form(value))
            self.y += ROW
        if target:
            x = LEFT + target / longest * BAR
            self.parts.append('<line x1="%.1f" x2="%.1f" y1="%g" y2="%g" class="target" stroke="#cf222e"/>' % (x, x, top, self.y))
        self.y += GAP

    def table(self, title, note, rows):
        if not rows:
            return
        self.y += ROW
        self.text(8, self.y, title, "head")
        self.y += ROW - 5
        self.text(8, self.y, note, "note")
        self.y += 7
        for label, value in rows:
            self.text(24, self.y + 15, label)
            self.text(LEFT + BAR, self.y + 15, value)
            self.y += ROW
        self.y += GAP

    def svg(self, foot):
        self.y += ROW
        self.text(8, self.y, foot, "note")
        return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" '
                'aria-label="Benchmarks of chardev.h" fill="#1f2328" font-family="system-ui, sans-serif" font-size="13">\n<style>%s</style>\n'
                '<rect class="page" fill="#ffffff" width="%d" height="%d"/>\n%s\n</svg>\n') % (
                    (WIDTH, self.y + 12) * 2 + (STYLE, WIDTH, self.y + 12, "\n".join(self.parts)))


def guest(picture, found):
    section = found.get("guest", {})
    labels = {"qemu": "QEMU", "tinyvm": "tinyvm (chardev.h)"}
    for way, title in (("out", "A guest writes, byte by byte"), ("in", "A guest reads, byte by byte")):
        picture.panel(title, "MB/s through a polled 16550, the same bare-metal program on both; longer is better"
                      + with_ratio(section, way + "_mb_s", "tinyvm", "qemu", "QEMU"),
                      rows_of(section, way + "_mb_s", ("tinyvm",), labels), lambda v: "%.3g" % v)


def relays(picture, found):
    rows = [("%s, %s" % (label, kind), value, own) for kind, name in (("unix", "relay_unix"), ("TCP", "relay_tcp"))
            for label, value, own in rows_of(found.get(name, {}), "cpu_s_gib", ("relay",), {"socat": "socat -b 65536"})]
    picture.panel("A relay between two sockets", "CPU seconds for a GiB, user and system; shorter is better", rows, lambda v: "%.3f" % v)


def echo(picture, found):
    labels = {"plain": "plain poll loop", "chardev-mux": "chardev, mux=on", "chardev-buffers": "chardev, buffers"}
    section = found.get("echo", {})
    picture.panel("Echo of 64 bytes over a unix socket", "microseconds a round trip, both ends on one CPU; shorter is better",
                  rows_of(section, "roundtrip_us", ("chardev", "chardev-mux", "chardev-buffers"), labels), lambda v: "%.2f" % v)


def inproc(picture, found):
    labels = {"mux_out": "through a mux, out", "mux_in": "through a mux, in"}
    picture.panel("64 bytes inside one process", "times a bare loop that does the same copying; shorter is better",
                  rows_of(found.get("inproc", {}), "ratio", ("null", "ringbuf", "mux_out", "mux_in"), labels), lambda v: "%.2f" % v)


def idle(picture, found):
    section = found.get("idle", {})
    rows = []
    for name, values in section.items():
        rows += [("%s idle" % name, float(values["chardev_ns"]) / 1000, True), ("poll() and read()", float(values["poll_ns"]) / 1000, False)]
    picture.panel("One byte among idle connections", "microseconds until it is delivered; shorter is better", rows,
                  lambda v: "%.2f" % v if v < 100 else "%.0f" % v)


def counts(picture, found):
    echoes, port, crowd = found.get("echo", {}), found.get("guest", {}).get("tinyvm", {}), found.get("idle", {})
    rows = []
    for name, what in (("chardev", ""), ("chardev-buffers", ", with buffers")):
        values = echoes.get(name, {})
        rows += [("system calls a round trip" + what, "%.0f" % float(values["calls"]))] if "calls" in values else []
        rows += [("instructions a round trip, user mode" + what, "%.0f" % float(values["instructions"]))] if "instructions" in values else []
    for key, what in (("out_calls", "written"), ("in_calls", "read")):
        rows += [("system calls a byte that a guest has " + what, port[key])] if key in port else []
    if crowd:
        rows.append(("bytes of memory for an idle socket chardev", list(crowd.values())[-1]["bytes"]))
    picture.table("Counted", "the same on every machine", rows)


def main():
    found = read(sys.argv[1])
    picture = Picture()
    parts = {part.__name__: part for part in (guest, relays, echo, inproc, idle, counts)}
    for name in sys.argv[2:] or parts:
        parts[name](picture, found)
    machine = {key: value.replace("_", " ") for key, value in found.get("machine", {}).get("cpu", {}).items()}
    sys.stdout.write(picture.svg("%s, %s CPUs, %s" % (machine.get("model") or "unknown CPU", machine.get("count"), machine.get("date"))))


if __name__ == "__main__":
    main()
