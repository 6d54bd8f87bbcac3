#!/usr/bin/python3
"""braille's guest side with a real driver: brltty with its Baum driver is the guest, on a pty that a relay joins with our device.
The device's display is that of a second brltty, which the script reads. It controls the first one as a BrlAPI client."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from brltty import BRLTTY, LIMIT, Brltty, Client, Display, Process, free_number, run  # noqa: E402
from relaying import RELAY, until  # noqa: E402


class Machine:
    """client -> brltty (Baum) -> pty -> relay, braille -> brltty (Virtual) -> display"""

    def __init__(self, directory, cells=40):
        inner, outer = free_number(), free_number()
        line = os.path.join(directory, "line")
        self.client = None
        self.display = Display(directory, "auth=none,host=127.0.0.1:%d" % outer, cells)
        self.relay = Process([RELAY, "--keep", "pty,path=" + line, "braille,host=127.0.0.1:%d" % outer])
        until(lambda: os.path.exists(line) or self.relay.runs(), "the relay's pty", LIMIT)
        self.guest = Brltty(directory, "bm", "serial:" + line, "auth=none,host=127.0.0.1:%d" % inner)
        self.number = inner

    def detects(self, cells):
        """brltty serves clients before it has found its device; then the size is 0."""
        def found():
            self.guest.runs()
            try:
                self.client = self.client or Client(self.number)
            except ConnectionRefusedError:
                return False
            return self.client.size() == (cells, 1)
        until(found, "the Baum driver's display; brltty says %s" % self.guest.said(), LIMIT)
        assert self.client.driver() == "Baum", self.client.driver()
        self.client.enter()

    def close(self):
        if self.client:
            self.client.close()
        self.guest.kill()
        self.relay.kill()
        self.display.close()


def detects_shows_and_types(directory):
    machine = Machine(directory)
    try:
        machine.detects(40)
        machine.client.write("hello world")
        machine.display.shows("hello world")
        assert machine.display.last("Braille").startswith("125|15|123|123|135| |2456|135|1235|123|145| |"), machine.display.last("Braille")
        text = "The Quick Brown Fox, 12345 {67890} [A]"  # among its cells is one that is ESC on the line: g is 0x1b
        machine.client.write(text + "g!")
        machine.display.shows(text + "g!")
        for line, key in (("FwinLt", 0x20000017), ("FwinRt", 0x20000018), ("LnUp", 0x20000001), ("LnDn", 0x20000002), ("Home", 0x2000001d),
                          ("Top", 0x20000009), ("Bot", 0x2000000a), ("Top_Left", 0x2000000b), ("Bot_Left", 0x2000000c),
                          ("ChrLt", 0x20000013), ("ChrRt", 0x20000014), ("LnBeg", 0x2000001b), ("LnEnd", 0x2000001c),
                          ("PrDifLn", 0x20000005), ("NxDifLn", 0x20000006), ("AttrUp", 0x20000007), ("AttrDn", 0x20000008),
                          ("PrPgrph", 0x2000000d), ("NxPgrph", 0x2000000e), ("PrPrompt", 0x2000000f), ("NxPrompt", 0x20000010),
                          ("PrSearch", 0x20000011), ("NxSearch", 0x20000012), ("Back", 0x2000001e), ("PrefMenu", 0x20000034),
                          ("Route 1", 0x20010001), ("Route 26", 0x2001001a), ("Route 39", 0x20010027)):
            machine.display.tell(line)
            got = machine.client.key() & 0xffffffff
            while got == 0x20000000:  # nothing yet: the first of several keys is down
                got = machine.client.key() & 0xffffffff
            assert got == key, "%s arrives as %x, not %x" % (line, got, key)
    finally:
        machine.close()


def detects_a_display_whose_size_is_esc(directory):
    machine = Machine(directory, cells=27)
    try:
        machine.detects(27)
        machine.client.write("twenty-seven cells are here")
        machine.display.shows("twenty-seven cells are here")
    finally:
        machine.close()


if __name__ == "__main__":
    if not BRLTTY:
        print("brltty is not installed")
        sys.exit(77)
    sys.exit(run((detects_shows_and_types, detects_a_display_whose_size_is_esc)))
