/*
 * chardev [-b] OPTIONS [CREDENTIALS]: an echo frontend on any chardev, e.g. "socket,id=e,path=S,server=on,wait=off" or
 * the same with mux=on, or with the id of the TLS credentials. With -b the frontend has buffers of 64 KiB, in and out.
 * What the far side does not take at once is kept, and nothing more is read until it is gone. Serves one peer, then
 * ends.
 */
#define CHARDEV_IMPLEMENTATION
#include "../../chardev.h"

#include <stdio.h>
#include <string.h>

typedef struct echo {
    chr_context *ctx;
    chr_frontend fe;
    char         held[65536]; /* what was read and not yet written: first .. last */
    size_t       first, last;
} echo;

static int echo_room(void *opaque)
{
    const echo *e = (const echo *)opaque;
    return e->first == e->last ? (int)sizeof e->held : 0;
}

static void echo_writable(void *opaque)
{
    echo *e = (echo *)opaque;
    int n = chr_fe_write(&e->fe, e->held + e->first, e->last - e->first);
    if (n > 0) e->first += (size_t)n;
    if (e->first == e->last) chr_fe_accept_input(&e->fe);
    else chr_fe_add_watch(&e->fe, echo_writable, e);
}

static void echo_read(void *opaque, const void *buf, size_t len)
{
    echo *e = (echo *)opaque;
    int n = chr_fe_write(&e->fe, buf, len);
    size_t taken = n > 0 ? (size_t)n : 0;
    if (taken == len || (n < 0 && n != CHR_ERR_WOULD_BLOCK)) return;
    memcpy(e->held, (const char *)buf + taken, len - taken);
    e->first = 0;
    e->last = len - taken;
    chr_fe_add_watch(&e->fe, echo_writable, e);
}

static void echo_event(void *opaque, int event)
{
    echo *e = (echo *)opaque;
    if (event == CHR_EVENT_CLOSED) chr_loop_stop(e->ctx);
}

static echo server;

int main(int argc, char **argv)
{
    static const chr_handlers handlers = { echo_room, echo_read, echo_event, NULL };
    chr_error err = { 0, "" };
    chr_dev *dev;
    int buffers = argc > 1 && strcmp(argv[1], "-b") == 0 ? (int)sizeof server.held : 0;
    if (buffers) argc--, argv++;
    server.ctx = chr_context_new(NULL);
    if (argc > 2 && chr_tls_creds_add(server.ctx, argv[2], &err) < 0) return fprintf(stderr, "chardev: %s\n", err.text), 1;
    dev = server.ctx && argc > 1 ? chr_new(server.ctx, argv[1], &err) : NULL;
    if (!dev || chr_fe_init(&server.fe, dev, &err) < 0) return fprintf(stderr, "chardev: %s\n", err.text), 1;
    if (buffers && chr_fe_set_buffers(&server.fe, (size_t)buffers, (size_t)buffers) < 0) return fprintf(stderr, "no buffers\n"), 1;
    chr_fe_set_handlers(&server.fe, &handlers, &server);
    chr_loop_run(server.ctx);
    chr_context_free(server.ctx);
    return 0;
}
