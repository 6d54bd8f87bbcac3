#!/usr/bin/python3
"""Spelling (codespell), links between the files of the project, the man pages (mandoc), and that each function has one."""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

passed = failed = skipped = 0


def case(name, wrong):
    """`wrong` says what is, a line each; nothing: it passes."""
    global passed, failed
    print("%s: %s" % (name, "FAIL" if wrong else "ok"))
    for line in wrong[:20]:
        print("    " + line)
    passed, failed = passed + (not wrong), failed + bool(wrong)


def missing(name, program):
    global skipped
    if shutil.which(program):
        return False
    print("%s: skipped: %s is not installed" % (name, program))
    skipped += 1
    return True


def lines_of(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=300)
    return [line for line in (done.stdout + done.stderr).splitlines() if line]


def text_of(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def anchors(path):
    """Those that a heading of Markdown makes, as the usual viewers do it."""
    titles = re.findall(r"^#+ +(.*)$", re.sub(r"^```.*?^```", "", text_of(path), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(path):
    wrong = []
    text = re.sub(r"^```.*?^```", "", text_of(path), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|href|srcset)=\"([^\"]+)\"", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        file = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
        if not os.path.exists(file):
            wrong.append("%s: %s: no such file" % (path, target))
        elif anchor and file.endswith(".md") and anchor not in anchors(file):
            wrong.append("%s: %s: no such heading" % (path, target))
    return wrong


def unknown_names(path, header):
    """Functions, types and tags that a document names and the header does not have."""
    text = text_of(path)
    names = set(re.findall(r"\bchr__?\w+\b", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))) | set(re.findall(r">>[a-z_]\w*", text))
    return ["%s: %s" % (path, name) for name in sorted(names) if "NAME" not in name and not re.search(re.escape(name) + (r"" if name.endswith("_") else r"\b"), header)]


def declared(header):
    """The functions of the public part."""
    return re.findall(r"^CHARDEV_API .*?\b(chr_\w+)\(", header[:header.index("#endif /* CHARDEV_H */")], re.M)


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
    header = text_of("chardev.h")
    version = re.search(r'#define CHARDEV_VERSION "(.*)"', header).group(1)
    if not missing("spelling", "codespell"):
        case("spelling", lines_of("codespell"))
    for path in sorted(glob.glob("*.md") + glob.glob("docs/*.md") + glob.glob("tests/*.md")):
        case("links of " + path, broken_links(path))
    case("the names in documents", [line for path in glob.glob("*.md") + glob.glob("docs/*.md") + glob.glob("tests/*.md") if path != "CHANGELOG.md"
                                    for line in unknown_names(path, header)])
    with tempfile.TemporaryDirectory() as directory:
        man3 = os.path.join(directory, "man3")
        os.mkdir(man3)
        case("man pages from the header", lines_of("awk", "-v", "format=man", "-v", "out=" + man3, "-v", "version=" + version, "-v",
                                                   "date=2026-01-01", "-f", "man/reference.awk", "chardev.h", "chardev.h"))
        case("a man page for each function", [name for name in declared(header) if not os.path.exists("%s/%s.3" % (man3, name))])
        if not missing("mandoc -T lint", "mandoc"):
            case("mandoc -T lint", [line for line in lines_of("mandoc", "-T", "lint", "-W", "warning", *sorted(glob.glob("man/*.1")),
                                                              *sorted(glob.glob(man3 + "/chardev*.3")))])
    case("the version stands everywhere", [path for path, text in (("man/relay.1", '"chardev %s"' % version),
                                                                   ("man/tinyvm.1", '"chardev %s"' % version),
                                                                   ("CHANGELOG.md", "## %s (" % version)) if text not in text_of(path)])
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return failed > 0


sys.exit(main())
