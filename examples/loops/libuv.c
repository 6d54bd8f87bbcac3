/* A chardev on a libuv loop (chr_loop_fd). Copy it when your program has such a loop already. Input is
 * echoed, and a timer of that loop prints the number of bytes. */
#include "chardev.h"
#include <stdio.h>
#include <uv.h>

static chr_context *ctx;
static chr_frontend fe;
static long count;
static int room(void *opaque) { return (void)opaque, chr_fe_writable(&fe); } /* back-pressure: what can be sent back */
static void more(void *opaque) { (void)opaque, chr_fe_accept_input(&fe); }
static void got(void *opaque, const void *buf, size_t len)
{
    count += (long)len;
    chr_fe_write(&fe, buf, len);
    chr_fe_add_watch(&fe, more, opaque);
}
static void happened(void *opaque, int event) { if (!opaque && event == CHR_EVENT_CLOSED) chr_loop_stop(ctx); }
static void step(uv_poll_t *handle, int status, int events)
{
    (void)status, (void)events;
    if (chr_loop_step(ctx, 0) < 0) uv_stop(handle->loop); /* CHR_ERR_STOPPED */
}
static void tick(uv_timer_t *timer) { (void)timer, fprintf(stderr, "%ld bytes\n", count); }

int main(int argc, char **argv)
{
    const chr_handlers handlers = { room, got, happened, NULL };
    chr_error          err = { CHR_ERR_NO_MEMORY, "out of memory" };
    chr_dev           *dev = chr_new(ctx = chr_context_new(NULL), argc > 1 ? argv[1] : "stdio,id=con", &err);
    uv_poll_t chardevs; uv_timer_t timer;
    if (!dev || chr_fe_init(&fe, dev, &err) < 0 || chr_fe_set_buffers(&fe, 0, 4096) < 0 || chr_loop_fd(ctx) < 0)
        return fprintf(stderr, "%s\n", err.text), 2;
    chr_fe_set_handlers(&fe, &handlers, NULL);
    if (uv_poll_init(uv_default_loop(), &chardevs, chr_loop_fd(ctx)) < 0) return fprintf(stderr, "uv_poll_init\n"), 2;
    uv_poll_start(&chardevs, UV_READABLE, step);
    uv_timer_init(uv_default_loop(), &timer);
    uv_timer_start(&timer, tick, 1000, 1000);
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
    return chr_context_free(ctx), 0;
}
