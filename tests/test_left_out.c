/* A build with no backend but null: an error names what was left out, by name, alias and URI. */
#define CHARDEV_NO_RINGBUF
#define CHARDEV_NO_TESTDEV
#define CHARDEV_NO_SCRIPT
#define CHARDEV_NO_FAULT
#define CHARDEV_NO_MSMOUSE
#define CHARDEV_NO_WCTABLET
#define CHARDEV_NO_BRAILLE
#define CHARDEV_NO_MUX
#define CHARDEV_NO_HUB
#define CHARDEV_NO_FD
#define CHARDEV_NO_WIN
#define CHARDEV_NO_FILE
#define CHARDEV_NO_PIPE
#define CHARDEV_NO_PTY
#define CHARDEV_NO_STDIO
#define CHARDEV_NO_CONSOLE
#define CHARDEV_NO_SERIAL
#define CHARDEV_NO_PARALLEL
#define CHARDEV_NO_UDP
#define CHARDEV_NO_SOCKET
#define CHARDEV_NO_SPICE
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include "rig.h"

static void check_left_out(rig *r, const char *text, int is_uri)
{
    chr_error err;
    chr_dev  *dev;
    char      options[100];
    memset(&err, 0, sizeof err);
    snprintf(options, sizeof options, "%s,id=x", text);
    dev = is_uri ? chr_new_uri(r->ctx, "x", text, &err) : chr_new(r->ctx, options, &err);
    if (!CHECK(dev == NULL) || !CHECK_INT(err.code, CHR_ERR_NOT_SUPPORTED) || !CHECK_HAS(err.text, "built without")) NOTE("for %s", text);
    CHECK_HAS(err.text, text);
}

TEST(names_of_what_is_left_out)
{
    static const char *const names[] = { "ringbuf", "memory", "testdev", "msmouse", "wctablet", "braille", "mux", "hub", "script", "fault", "fd", "win", "file", "pipe",
                                         "pty", "stdio", "console", "serial", "tty", "parallel", "parport", "udp", "socket", "spicevmc", "spiceport" };
    static const char *const uris[] = { "pty", "stdio", "msmouse", "testdev", "script:x", "file:x", "pipe:x", "/dev/ttyS9", "/dev/parport9", "udp::1", "tcp::1",
                                        "unix:x", "telnet:h:1", "tn3270::1", "websocket::1", "pty:x", "pty,path=x", "stdio,signal=off" };
    size_t                   i;
    rig                      r;
    rig_open(&r);
    for (i = 0; i < sizeof names / sizeof *names; i++) check_left_out(&r, names[i], 0);
    for (i = 0; i < sizeof uris / sizeof *uris; i++) check_left_out(&r, uris[i], 1);
    CHECK(chr_new_any(r.ctx, "x", "mon:stdio,signal=off", NULL) == NULL);
    rig_close(&r);
}

TEST(names_of_nothing)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    CHECK(chr_new(r.ctx, "stdoi,id=x", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_NOT_FOUND);
    CHECK(chr_new_uri(r.ctx, "x", "ptyx", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_NOT_FOUND);
    make(&r, "null,id=x");
    CHECK_INT(chr_change(r.ctx, "x", "pty", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_HAS(err.text, "built without");
    CHECK(chr_new(r.ctx, "null,id=y,mux=on", &err) == NULL);
    CHECK_HAS(err.text, "built without mux");
    rig_close(&r);
}
