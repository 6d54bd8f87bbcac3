/*
 * console_share - one guest console for several people at once: on a pty, on a TCP port and in a log file. Copy it for
 * a console with several far sides (a hub).
 *
 *     build/console_share PTY_LINK PORT LOGFILE
 *     build/console_share /tmp/console 4444 /tmp/console.log
 *     picocom /tmp/console                                        in other terminals, at the same time
 *     nc localhost 4444
 *     tail -f /tmp/console.log
 *
 * Windows has no ptys; there the first argument names the pipe \\.\pipe\PIPE:
 *
 *     console_share PIPE PORT LOGFILE
 *
 * The port takes up to eight clients. The guest here only prints a greeting and echoes its input; every reader sees
 * all output. A new client gets the last 4 KiB first (history=). Each reader has a queue of 64 KiB (obuf=); when that
 * of a slow reader is full, the guest is stopped until there is room (back-pressure), so that no reader loses a byte.
 * Ctrl-C or SIGTERM ends the program: queued output is sent first, and the link is removed.
 */
#ifndef CHARDEV_LINKED /* the Makefile compiles the implementation once for several programs */
#define CHARDEV_IMPLEMENTATION
#endif
#include "chardev.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#ifdef _WIN32
#define HERE      "pipe"
#define HERE_PATH "PIPE"
#else
#define HERE      "pty"
#define HERE_PATH "PTY_LINK"
#endif

static chr_context *ctx;
static chr_frontend console;
static char         text[8192]; /* pending output: text[at] up to text[end] */
static size_t       at, end;

static void write_pending(void *opaque)
{
    int n = chr_fe_write(&console, text + at, end - at);

    if (n > 0) at += (size_t)n;
    else if (n != CHR_ERR_WOULD_BLOCK) at = end; /* disconnected: log and history have the bytes */
    if (at < end) chr_fe_add_watch(&console, write_pending, opaque);
    else chr_fe_accept_input(&console);
}

/* The echo of a byte is up to two bytes. */
static int can_read(void *opaque)
{
    (void)opaque;
    return at < end ? 0 : (int)sizeof text / 2;
}

/* Echoes input as a terminal driver does: CR becomes CR LF. */
static void on_read(void *opaque, const void *buf, size_t len)
{
    const char *from = (const char *)buf;
    size_t      i;

    for (at = end = i = 0; i < len; i++) {
        text[end++] = from[i];
        if (from[i] == '\r') text[end++] = '\n';
    }
    write_pending(opaque);
}

static int make(const char *format, const char *value)
{
    char      options[4300];
    chr_error err;

    if (snprintf(options, sizeof options, format, value) >= (int)sizeof options)
        return fprintf(stderr, "console_share: too long\n"), 0;
    if (chr_new(ctx, options, &err)) return 1;
    fprintf(stderr, "console_share: %s\n", err.text);
    return 0;
}

static int make_all(char **argv)
{
    chr_error err;

    if (!make(HERE ",id=here,path=%s,history=4K,obuf=64K", argv[1]) ||
        !make("socket,id=there,host=localhost,port=%s,server=on,wait=off,clients=8,history=4K,obuf=64K", argv[2]) ||
        !make("file,id=log,path=%s", argv[3]) ||
        !make("%s", "hub,id=console,chardevs.0=here,chardevs.1=there,chardevs.2=log"))
        return 0;
    if (chr_fe_init(&console, chr_find(ctx, "console"), &err) == 0) return 1;
    fprintf(stderr, "console_share: %s\n", err.text);
    return 0;
}

static void on_signal(int number)
{
    signal(number, on_signal);
    chr_loop_stop(ctx);
}

int main(int argc, char **argv)
{
    static const chr_handlers handlers = { .can_read = can_read, .read = on_read };
    int                       status = 2;

    if (argc != 4) return fprintf(stderr, "usage: console_share " HERE_PATH " PORT LOGFILE\n"), 2;
    ctx = chr_context_new(NULL);
    if (!ctx) return fprintf(stderr, "console_share: out of memory or descriptors\n"), 2;
    if (make_all(argv)) {
        signal(SIGINT, on_signal);
        signal(SIGTERM, on_signal);
#ifdef SIGHUP
        signal(SIGHUP, on_signal);
#endif
        chr_fe_set_handlers(&console, &handlers, NULL);
        on_read(NULL, "one console for all\r", 20);
        status = chr_loop_run(ctx) < 0;
        chr_drain(ctx, 2000);
    }
    chr_context_free(ctx);
    return status;
}
