#!/usr/bin/python3
"""gpm's drivers decode what msmouse and wctablet send over a pty; they repeat it on /dev/gpmdata in a protocol of five bytes."""
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUTTONS = {7: set(), 3: {"left"}, 5: {"middle"}, 6: {"right"}, 1: {"left", "middle"}, 2: {"left", "right"}}


def skip(why):
    print("skipped: " + why)
    sys.exit(77)


class Driver:
    """One gpm on the pty behind one device, and the hand on that device."""

    def __init__(self, folder, device, protocol):
        self.log_path = os.path.join(folder, device + "-" + protocol + ".log")
        link = os.path.join(folder, device + "-" + protocol)
        self.hand = subprocess.Popen([os.path.join(folder, "hand"), device, link], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        assert self.hand.stdout.readline() == "ready\n"
        self.log = open(self.log_path, "w")
        self.gpm = subprocess.Popen(["gpm", "-m", os.readlink(link), "-t", protocol, "-R", "msc", "-a", "1", "-F", "-D", "-V", "9"], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.data = self.wait(self.open_data, "/dev/gpmdata")
        self.wait(lambda: "Screen size" in self.text(), "gpm's start")

    def wait(self, condition, what):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            assert self.gpm.poll() is None, "gpm has ended: " + self.text()
            time.sleep(0.05)
        raise AssertionError("never came: " + what + "\n" + self.text())

    def open_data(self):
        return os.open("/dev/gpmdata", os.O_RDONLY | os.O_NONBLOCK) if os.path.exists("/dev/gpmdata") else 0

    def text(self):
        with open(self.log_path) as log:
            return log.read()

    def say(self, *lines):
        for line in lines:
            self.hand.stdin.write(line + "\n")
            answer = self.hand.stdout.readline().strip()
            assert answer == "0", line + " gives " + answer

    def packets(self):
        """The first bytes of each packet that gpm has read, as its log shows them."""
        return re.findall(r"Data ([0-9a-f ]{8})", self.text())

    def see(self, way, buttons):
        """Reads /dev/gpmdata until the pointer has gone that way and the buttons are so."""
        x = y = 0
        down, rest, end = None, b"", time.monotonic() + 10
        while (x, y) != way or down != buttons:
            left = end - time.monotonic()
            assert left > 0, "went %d, %d with %s, not %s with %s\n%s" % (x, y, down, way, buttons, self.text())
            if not select.select([self.data], [], [], left)[0]:
                continue
            try:
                rest += os.read(self.data, 4096)
            except BlockingIOError:
                continue
            while len(rest) >= 5:
                packet, rest = rest[:5], rest[5:]
                assert packet[0] & 0xf8 == 0x80, packet.hex()
                step = [byte - 256 if byte > 127 else byte for byte in packet[1:]]
                x, y = x + step[0] + step[2], y - step[1] - step[3]
                down = BUTTONS[packet[0] & 7]

    def close(self):
        os.close(self.data)
        self.hand.stdin.close()
        self.hand.wait(10)
        self.gpm.terminate()
        try:
            self.gpm.wait(5)
        except subprocess.TimeoutExpired:
            self.gpm.kill()
            self.gpm.wait()
        self.log.close()


# gpm hides the way of a packet in which a button changes: each comes by itself here.
def mouse(driver, has_middle):
    driver.say("rel 5 -3", "sync")
    driver.see((5, -3), set())
    driver.say("button 0 1", "sync")
    driver.see((0, 0), {"left"})
    driver.say("button 2 1", "sync")
    driver.see((0, 0), {"left", "right"})
    driver.say("rel -20 40", "sync")
    driver.see((-20, 40), {"left", "right"})
    driver.say("button 0 0", "button 2 0", "sync")
    driver.see((0, 0), set())
    driver.say("rel 1000 -700", "sync")
    driver.see((1000, -700), set())
    if has_middle:
        driver.say("button 1 1", "sync")
        driver.see((0, 0), {"middle"})
        driver.say("rel 9 9", "sync")
        driver.see((9, 9), {"middle"})
        driver.say("button 1 0", "sync")
        driver.see((0, 0), set())


def tablet(driver):
    driver.wait(lambda: "e0 00 00" in driver.packets(), "the place of the pen after the start")
    for x, down in ((16384, 0), (16600, 0), (32767, 0), (32767, 1), (0, 1), (100, 0)):
        seen = len(driver.packets())
        position = x * 1537 // 10000
        first = "%02x %02x %02x" % (0xa0 if down else 0xe0, position >> 7, position & 127)
        driver.say("abs %d %d" % (x, 16384), "button 0 %d" % down, "sync")
        driver.wait(lambda: first in driver.packets()[seen:], first)


def prepare(folder):
    if not shutil.which("gpm"):
        skip("there is no gpm")
    if os.geteuid() != 0 or not os.path.exists("/dev/tty0"):
        skip("gpm needs root and /dev/tty0")
    if os.path.exists("/run/gpm.pid"):
        skip("another gpm runs")
    source = os.path.join(ROOT, "tests", "peers", "lib", "hand.c")
    compiler = os.environ.get("CC") or "cc"
    subprocess.run([compiler, "-I", ROOT, "-D_GNU_SOURCE", "-o", os.path.join(folder, "hand"), source], check=True)


def main():
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder)
        for device, protocol, judge in (("msmouse", "ms", lambda d: mouse(d, False)), ("msmouse", "mman", lambda d: mouse(d, True)), ("wctablet", "wacom", tablet)):
            driver = Driver(folder, device, protocol)
            try:
                try:
                    judge(driver)
                finally:
                    driver.close()
                if device == "wctablet":  # gpm says so when it ends
                    assert "Modell: PenPartner (Answer: CT-0045R,V1.3-5,)" in driver.text(), driver.text()
                passed += 1
                print("%s as %s: ok" % (device, protocol))
            except AssertionError as error:
                failed += 1
                print("%s as %s: %s" % (device, protocol, error))
    print("%d passed, %d failed, 0 skipped" % (passed, failed))
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
