#!/usr/bin/python3
"""make install and uninstall; hello built against what is installed, by pkg-config and by CMake, in a folder whose name has a space."""
import os
import re
import shutil
import subprocess
import sys
import tempfile

VERSION = re.search(r'#define CHARDEV_VERSION "(.*)"', open("chardev.h").read()).group(1)
passed = failed = skipped = 0


def case(name, good, why=""):
    global passed, failed
    print("%s: %s%s" % (name, "ok" if good else "FAIL", " (%s)" % why if why and not good else ""))
    passed, failed = passed + bool(good), failed + (not good)


def run(*command, **more):
    """What make has told its children is not for the make that is tried here."""
    more["env"] = {name: value for name, value in more.get("env", os.environ).items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **more)
    return done.returncode == 0, (done.stdout + done.stderr)[-1500:]


def missing(name, *programs):
    """Whether one of them is, which is told."""
    global skipped
    for program in programs:
        if not shutil.which(program):
            print("%s: skipped: %s is not installed" % (name, program))
            skipped += 1
            return True
    return False


def make(target, **where):
    good, output = run("make", "-s", target, *["%s=%s" % pair for pair in where.items()])
    case("make " + target, good and not output, output)


def files(directory):
    return sorted(os.path.relpath(os.path.join(path, name), directory) for path, _, names in os.walk(directory) for name in names)


def echoes(program):
    """hello greets and sends back what it gets."""
    done = subprocess.run([program], input="across\n", capture_output=True, text=True, timeout=60)
    return done.returncode == 0 and "hello" in done.stdout and "across" in done.stdout


def by_pkg_config(directory, prefix):
    if missing("hello by pkg-config", "pkg-config"):
        return
    env = dict(os.environ, PKG_CONFIG_PATH=os.path.join(prefix, "lib/pkgconfig"))
    good, flags = run("pkg-config", "--cflags", "--libs", "chardev", env=env)
    case("pkg-config finds it", good, flags)
    good, version = run("pkg-config", "--modversion", "chardev", env=env)
    case("pkg-config: the version", version.strip() == VERSION, version)
    program = os.path.join(directory, "hello")
    shutil.copy("examples/hello.c", os.path.join(directory, "hello.c"))
    good, output = run("cc", "hello.c", "-o", program, *flags.split(), cwd=directory)
    case("hello by pkg-config", good and echoes(program), output)


def by_cmake(directory, prefix):
    if missing("hello by CMake", "cmake"):
        return
    source, build = os.path.join(directory, "source"), os.path.join(directory, "build")
    os.mkdir(source)
    shutil.copy("examples/hello.c", source)
    with open(os.path.join(source, "CMakeLists.txt"), "w") as lists:
        lists.write("cmake_minimum_required(VERSION 3.10)\nproject(hello C)\nfind_package(chardev %s REQUIRED)\n"
                    "add_executable(hello hello.c)\ntarget_link_libraries(hello chardev::chardev)\n" % VERSION)
    good, output = run("cmake", "-S", source, "-B", build, "-DCMAKE_PREFIX_PATH=" + prefix)
    case("CMake: find_package(chardev %s)" % VERSION, good, output)
    good, output = run("cmake", "--build", build)
    case("hello by CMake", good and echoes(os.path.join(build, "hello")), output)
    for wanted, found in (("9.0", False), ("0.0.1", False), ("", True)):
        with open(os.path.join(source, "CMakeLists.txt"), "w") as lists:
            lists.write("cmake_minimum_required(VERSION 3.10)\nproject(hello C)\nfind_package(chardev %s REQUIRED)\n" % wanted)
        good, output = run("cmake", "-S", source, "-B", build + wanted, "-DCMAKE_PREFIX_PATH=" + prefix)
        case("CMake: find_package(chardev %s) %s" % (wanted, "works" if found else "is refused"), good == found, output)


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
    with tempfile.TemporaryDirectory() as directory:
        prefix = os.path.join(directory, "a prefix")
        make("install", PREFIX=prefix)
        installed = files(prefix)
        wanted = ["include/chardev.h", "lib/cmake/chardev/chardevConfig.cmake", "lib/pkgconfig/chardev.pc", "share/man/man1/relay.1"]
        case("what is installed", all(name in installed for name in wanted), ", ".join(installed))
        by_cmake(directory, prefix)
        make("uninstall", PREFIX=prefix)
        case("uninstall leaves nothing", not files(prefix), ", ".join(files(prefix)))
        make("uninstall", PREFIX=prefix)
        staged = os.path.join(directory, "stage")
        make("install", DESTDIR=staged, PREFIX="/opt/it")
        case("DESTDIR", sorted(files(os.path.join(staged, "opt/it"))) == installed, ", ".join(files(staged)))
        case("DESTDIR is not in the files", staged not in open(staged + "/opt/it/lib/pkgconfig/chardev.pc").read())
        plain = os.path.join(directory, "plain")
        make("install", PREFIX=plain)
        by_pkg_config(directory, plain)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return failed > 0


sys.exit(main())
