#!/usr/bin/python3
"""The header built by compilers that the system's headers don't support (tcc, for which glibc defines __attribute__ away): many descriptors in
epoll, each of which is reported to its own watch, and the smallest example."""
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COMPILERS = ["tcc"]
PROGRAM = r"""
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { COUNT = 200 };
static int told[COUNT], near_fds[COUNT];

static void ready(void *opaque, int events)
{
    char byte;
    told[(int *)opaque - told] += events == CHR_IN ? 1 : 100;
    (void)!read(near_fds[(int *)opaque - told], &byte, 1);
}

int main(void)
{
    static int       far[COUNT];
    static chr_watch watches[COUNT];
    chr_context     *ctx = chr_context_new(NULL);
    struct pollfd    outer = { -1, POLLIN, 0 };
    int              i, j, fds[2];
    if (!ctx || (outer.fd = chr_loop_fd(ctx)) < 0) return puts("no kernel set"), 1;
    for (i = 0; i < COUNT; i++) {
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0) return perror("socketpair"), 1;
        far[i] = fds[1];
        if (chr_watch_start(ctx, &watches[i], fds[0], CHR_IN, ready, &told[i]) < 0) return puts("no watch"), 1;
        near_fds[i] = fds[0];
    }
    for (i = 0; i < COUNT; i++) {
        for (j = 0; j < 10 && poll(&outer, 1, 0) != 0; j++) chr_loop_step(ctx, 0);
        if (j == 10) return printf("ready before %d\n", i), 1;
        if (write(far[i], "x", 1) != 1 || poll(&outer, 1, 1000) != 1) return printf("not ready for %d\n", i), 1;
        chr_loop_step(ctx, 0);
        for (j = 0; j < COUNT; j++)
            if (told[j] != (j <= i)) return printf("watch %d was told %d times, after number %d\n", j, told[j], i), 1;
    }
    chr_context_free(ctx);
    puts("each its own");
    return 0;
}
"""


def run(command, **more):
    """Its output, or None and why."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
                          check=False, **more)
    return done.returncode, done.stdout


def main():
    passed = failed = 0
    found = [name for name in COMPILERS if shutil.which(name)]
    if not found:
        print(f"skipped: none of {', '.join(COMPILERS)} is here")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "set.c")
        with open(source, "w", encoding="ascii") as file:
            file.write(PROGRAM)
        for name in found:
            for what, path, command, wanted in [("kernel set", source, [], "each its own\n"),
                                                ("hello", os.path.join(ROOT, "examples/hello.c"), ["script,text=expect \"hello\""], "")]:
                program = os.path.join(folder, "program")
                code, text = run([name, "-std=c99", "-D_DEFAULT_SOURCE", f"-I{ROOT}", path, "-o", program, "-lpthread"])
                if code == 0:
                    code, text = run([program] + command)
                if code == 0 and text == wanted:
                    passed += 1
                else:
                    failed += 1
                    print(f"{name}, {what}: status {code}: {text}")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
