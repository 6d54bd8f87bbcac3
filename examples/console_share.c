/*
 * console_share - one guest console for several people at once: on a pty, on a TCP port and in a log file.
 *
 *     build/console_share PTY_LINK PORT LOGFILE
 *     build/console_share /tmp/console 4444 /tmp/console.log      then: picocom /tmp/console, nc localhost 4444, tail -f /tmp/console.log
 *
 * The guest here only greets and sends back what anybody types; all see all of it. Who comes late gets the last 4 KiB first.
 */
#ifndef CHARDEV_LINKED /* the Makefile compiles the implementation once for several programs */
#define CHARDEV_IMPLEMENTATION
#endif
#include "chardev.h"

#include <stdio.h>

static chr_frontend console;

/* As a terminal driver does: a line ends with CR and LF. */
static void typed(void *opaque, const void *buf, size_t len)
{
    const char *text = (const char *)buf;
    size_t      i;
    (void)opaque;
    for (i = 0; i < len; i++) chr_fe_write(&console, text[i] == '\r' ? "\r\n" : &text[i], text[i] == '\r' ? 2 : 1);
}

static int make(chr_context *ctx, const char *format, const char *value)
{
    char      options[400];
    chr_error err;
    snprintf(options, sizeof options, format, value);
    if (chr_new(ctx, options, &err)) return 1;
    fprintf(stderr, "console_share: %s\n", err.text);
    return 0;
}

static int make_all(chr_context *ctx, char **argv)
{
    return make(ctx, "pty,id=here,path=%s,history=4K,obuf=64K", argv[1]) &&
           make(ctx, "socket,id=there,host=localhost,port=%s,server=on,wait=off,history=4K,obuf=64K", argv[2]) &&
           make(ctx, "file,id=log,path=%s", argv[3]) &&
           make(ctx, "%s", "hub,id=console,chardevs.0=here,chardevs.1=there,chardevs.2=log");
}

int main(int argc, char **argv)
{
    static const chr_handlers handlers = { NULL, typed, NULL, NULL };
    chr_context              *ctx = chr_context_new(NULL);

    if (argc != 4) return fprintf(stderr, "usage: console_share PTY_LINK PORT LOGFILE\n"), 2;
    if (!ctx || !make_all(ctx, argv) || chr_fe_init(&console, chr_find(ctx, "console"), NULL) < 0) return 2;
    chr_fe_set_handlers(&console, &handlers, NULL);
    chr_fe_printf(&console, "one console for all\r\n");
    chr_loop_run(ctx);
    chr_context_free(ctx);
    return 0;
}
