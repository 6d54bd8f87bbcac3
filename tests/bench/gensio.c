/*
 * gensio PATH: the same echo server on gensio (2.6). What is not written stays in gensio's read buffer. Serves one
 * peer.
 */
#include "bench.h"

#include <gensio/gensio.h>

static struct gensio_os_funcs *os;
static struct gensio_waiter *ended;

/* What the write does not take is left unread: gensio keeps it and offers it again once reading is enabled. */
static int echo(struct gensio *io, unsigned char *buf, gensiods *buflen)
{
    gensiods taken = 0;
    if (gensio_write(io, &taken, buf, *buflen, NULL)) return GE_REMCLOSE;
    if (taken < *buflen) {
        gensio_set_read_callback_enable(io, false);
        gensio_set_write_callback_enable(io, true);
    }
    *buflen = taken;
    return 0;
}

static int on_event(struct gensio *io, void *opaque, int event, int err, unsigned char *buf, gensiods *buflen,
                    const char *const *info)
{
    (void)opaque;
    (void)info;
    if (event == GENSIO_EVENT_WRITE_READY) {
        gensio_set_write_callback_enable(io, false);
        gensio_set_read_callback_enable(io, true);
        return 0;
    }
    if (event != GENSIO_EVENT_READ) return GE_NOTSUP;
    if (!err) return echo(io, buf, buflen);
    gensio_set_read_callback_enable(io, false);
    gensio_os_funcs_wake(os, ended);
    return 0;
}

static int on_connection(struct gensio_accepter *accepter, void *opaque, int event, void *data)
{
    struct gensio *io = (struct gensio *)data;
    (void)accepter;
    (void)opaque;
    if (event != GENSIO_ACC_EVENT_NEW_CONNECTION) return GE_NOTSUP;
    gensio_set_callback(io, on_event, NULL);
    gensio_set_read_callback_enable(io, true);
    return 0;
}

int main(int argc, char **argv)
{
    struct gensio_accepter *accepter;
    char name[256];
    snprintf(name, sizeof name, "unix(readbuf=%d),%s", BENCH_CHUNK, argc > 1 ? argv[1] : "gensio.sock");
    if (gensio_default_os_hnd(0, &os)) bench_die("gensio");
    ended = gensio_os_funcs_alloc_waiter(os);
    if (str_to_gensio_accepter(name, os, on_connection, NULL, &accepter) || gensio_acc_startup(accepter)) bench_die(name);
    gensio_os_funcs_wait(os, ended, 1, NULL);
    gensio_acc_shutdown_s(accepter);
    return 0;
}
