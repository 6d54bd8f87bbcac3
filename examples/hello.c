/* The smallest program on chardev.h: it greets each peer, echoes its input, and ends at end of file or at Ctrl-A x of
 * mon:stdio.
 *     build/hello pty,path=/tmp/console
 *     build/hello unix:/tmp/hello,server=on,wait=off */
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include <stdio.h>

static void happened(void *con, int event)
{
    if (event == CHR_EVENT_OPENED) chr_fe_write((chr_frontend *)con, "hello\r\n", 7);
}

int main(int argc, char **argv)
{
    const chr_handlers  handlers = { NULL, NULL, happened, NULL };
    static chr_frontend con;
    char                text[4096];
    int                 n;
    chr_error           err = { CHR_ERR_NO_MEMORY, "out of memory" };
    chr_context        *ctx = chr_context_new(NULL);
    chr_fe_init(&con, chr_new_any(ctx, "con", argc > 1 ? argv[1] : "stdio", &err), &err);
    if (!con.dev || chr_fe_set_buffers(&con, 4096, 4096) < 0) return fprintf(stderr, "%s\n", err.text), 2;
    chr_fe_set_handlers(&con, &handlers, &con);
    while (!chr_fe_eof(&con) && chr_loop_step(ctx, -1) >= 0)     // a server waits for its next peer
        while ((n = chr_fe_read(&con, text, sizeof text)) > 0)
            chr_fe_write_all(&con, text, (size_t)n, -1);         // blocks while the peer is slow
    n = chr_fe_flush(&con, -1);                                  // sends the rest; returns the error of a failed write
    chr_context_free(ctx);
    return n < 0;
}
