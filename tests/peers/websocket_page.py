#!/usr/bin/python3
"""A guest's console in a browser: examples/console.html, served by ws-page=, in headless Chromium; and noVNC's own websocket client there."""
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from probing import BUILD, LIMIT, ROOT, Tally, find, free_port, need, skip  # noqa: E402

try:
    from selenium import webdriver
    from selenium.webdriver.common.keys import Keys
except ImportError:
    skip("there is no python3-selenium")
need("chromium", "chromedriver")

NOVNC = "/usr/share/novnc"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
RELAY = os.path.join(ROOT, BUILD, "relay")
TINYVM = os.path.join(ROOT, BUILD, "tinyvm")
PAGE = os.path.join(ROOT, "examples", "console.html")


def browser(directory):
    options = webdriver.ChromeOptions()
    options.binary_location = find("chromium")
    for flag in FLAGS + ["--user-data-dir=" + directory + "/profile", "--window-size=1000,600"]:
        options.add_argument(flag)
    service = webdriver.chrome.service.Service(find("chromedriver"))
    return webdriver.Chrome(options=options, service=service)


def wait(what, condition):
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "%s has not come" % what
        time.sleep(0.05)


def console(port, *arguments):
    return subprocess.Popen([*arguments, "websocket:127.0.0.1:%d,server=on,wait=off,ws-page=%s" % (port, PAGE)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, bufsize=0)


def end(process):
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def screen(page):
    return page.execute_script("return document.getElementById('screen').innerText")


def state(page):
    return page.execute_script("return document.getElementById('state').className")


def open_console(page, port):
    def answers():
        try:
            page.get("http://127.0.0.1:%d/" % port)
        except Exception:  # the server is not there yet
            return False
        return page.title == "console"
    wait("the page", answers)
    wait("the connection", lambda: state(page) == "open")
    return page.find_element("id", "screen")


def typed_and_read_back(directory, page):
    """The guest echoes what it gets; the page comes back to a new guest by itself."""
    port = free_port()
    guest = console(port, TINYVM, "-serial")
    keys = open_console(page, port)
    keys.send_keys("hello, guest")
    wait("the echo", lambda: "hello, guest" in screen(page))
    end(guest)
    wait("the end", lambda: state(page) == "")
    guest = console(port, TINYVM, "-serial")
    wait("the next connection", lambda: state(page) == "open")
    keys.send_keys("again")
    wait("the echo", lambda: "again" in screen(page))
    end(guest)


def bytes_of_keys(directory, page):
    """What a VT100 sends, and what is pasted."""
    port = free_port()
    far = console(port, RELAY, "stdio")
    keys = open_console(page, port)
    keys.send_keys("a", Keys.ENTER, Keys.BACKSPACE, Keys.ARROW_UP, Keys.CONTROL + "d" + Keys.NULL, Keys.TAB)
    page.execute_script("""const data = new DataTransfer();
        data.setData('text', 'two\\nlines');
        document.getElementById('screen').dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }));""")
    want = b"a\r\x7f\x1b[A\x04\ttwo\rlines"
    got = b""
    while len(got) < len(want):
        more = os.read(far.stdout.fileno(), 100)
        assert more, got
        got += more
    assert got == want, got
    end(far)


def colours_and_lines(directory, page):
    port = free_port()
    far = console(port, RELAY, "stdio")
    open_console(page, port)
    far.stdin.write(b"plain \x1b[1;32mgreen\x1b[0m \x1b[38;5;196mred\x1b[0m \x1b[7minverse\x1b[m\r\n")
    far.stdin.write(b"50%\r100%\r\nabX\bc\x1b[K\r\n\x1b]0;a title\x07\xe2\x82")
    far.stdin.write(b"\xac end\r\n" + b"".join(b"line %d\r\n" % i for i in range(300)))
    wait("the last line", lambda: "line 299" in screen(page))
    text = screen(page)
    for part in ("plain green red inverse", "100%", "abc", "\u20ac end"):
        assert part in text, (part, text[:300])
    assert "title" not in text
    colour = page.execute_script("""return getComputedStyle([...document.querySelectorAll('#screen span')]
        .find(span => span.textContent === 'green')).color""")
    assert colour == "rgb(152, 195, 121)", colour
    assert page.execute_script("const s = document.getElementById('screen'); return s.scrollTop + s.clientHeight >= s.scrollHeight - 2")
    for width in (1000, 420):
        page.set_window_size(width, 600)
        assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), "too wide at %d" % width
        page.save_screenshot(directory + "/console-%d.png" % width)
    if os.environ.get("KEEP_PICTURES"):
        for width in (1000, 420):
            shutil.copy(directory + "/console-%d.png" % width, os.environ["KEEP_PICTURES"])
    end(far)


NOVNC_PAGE = """<!DOCTYPE html><title>noVNC</title><script type="module">
import Websock from '/core/websock.js';
const sock = new Websock();
sock.on('open', () => sock.send(new TextEncoder().encode('from noVNC').reduce((all, byte) => (all.push(byte), all), [])));
sock.on('message', () => { document.title = new TextDecoder().decode(new Uint8Array(sock.rQshiftBytes())); });
sock.open('ws://127.0.0.1:%d/websockify', ['binary']);
</script>"""


def novnc(directory, page):
    """Its page comes from another port of the same host."""
    port = free_port()
    far = console(port, RELAY, "stdio")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/":
                super().do_GET()
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write((NOVNC_PAGE % port).encode())

        def log_message(self, *arguments):
            pass

    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=NOVNC))
    threading.Thread(target=site.serve_forever, daemon=True).start()
    page.get("http://127.0.0.1:%d/" % site.server_address[1])
    got = b""
    while len(got) < 10:
        got += os.read(far.stdout.fileno(), 100)
    assert got == b"from noVNC", got
    far.stdin.write(b"to noVNC")
    wait("the answer", lambda: page.title == "to noVNC")
    page.get("http://localhost:%d/" % site.server_address[1])  # another name for the same host is another site
    time.sleep(0.5)
    assert page.title == "noVNC", page.title
    site.shutdown()
    end(far)


tally = Tally()
for case in (typed_and_read_back, bytes_of_keys, colours_and_lines, novnc):
    def run(directory, case=case):
        page = browser(directory)
        try:
            case(directory, page)
        finally:
            page.quit()
    run.__name__ = case.__name__
    if case is novnc and not os.path.exists(NOVNC + "/core/websock.js"):
        tally.skip(case, "there is no novnc")
    else:
        tally.run(run)
tally.end()
