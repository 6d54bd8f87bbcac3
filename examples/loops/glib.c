/* A chardev on a GLib main loop (chr_loop_fd). Copy it when your program has such a loop already. Input is
 * echoed, and a timer of that loop prints the number of bytes. */
#include "chardev.h"
#include <glib-unix.h>
#include <stdio.h>

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
static gboolean step(gint fd, GIOCondition condition, gpointer loop)
{
    (void)fd, (void)condition;
    if (chr_loop_step(ctx, 0) < 0) g_main_loop_quit((GMainLoop *)loop); /* CHR_ERR_STOPPED */
    return G_SOURCE_CONTINUE;
}
static gboolean tick(gpointer loop) { return (void)loop, fprintf(stderr, "%ld bytes\n", count), G_SOURCE_CONTINUE; }

int main(int argc, char **argv)
{
    const chr_handlers handlers = { room, got, happened, NULL };
    chr_error          err = { CHR_ERR_NO_MEMORY, "out of memory" };
    chr_dev           *dev = chr_new(ctx = chr_context_new(NULL), argc > 1 ? argv[1] : "stdio,id=con", &err);
    GMainLoop         *loop = g_main_loop_new(NULL, FALSE);
    if (!dev || chr_fe_init(&fe, dev, &err) < 0 || chr_fe_set_buffers(&fe, 0, 4096) < 0 || chr_loop_fd(ctx) < 0)
        return fprintf(stderr, "%s\n", err.text), 2;
    chr_fe_set_handlers(&fe, &handlers, NULL);
    g_unix_fd_add(chr_loop_fd(ctx), G_IO_IN, step, loop);
    g_timeout_add(1000, tick, loop);
    g_main_loop_run(loop);
    return chr_context_free(ctx), 0;
}
