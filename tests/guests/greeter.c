/* Greets whoever opens its pty, and sends back what they type: for tests/peers/pty_openers.py.
 *     greeter pty,id=con,path=/tmp/console */
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include <stdio.h>

static void greet(void *opaque, int event)
{
    if (event == CHR_EVENT_OPENED) chr_fe_write((chr_frontend *)opaque, "hello\r\n", 7);
}

int main(int argc, char **argv)
{
    static const chr_handlers handlers = { NULL, NULL, greet, NULL };
    static chr_frontend       con;
    char                      text[4096];
    int                       n;
    chr_error                 err = { CHR_ERR_NO_MEMORY, "out of memory" };
    chr_context              *ctx = chr_context_new(NULL);
    chr_fe_init(&con, chr_new_any(ctx, "con", argc > 1 ? argv[1] : "pty", &err), &err);
    if (!con.dev || chr_fe_set_buffers(&con, 4096, 4096) < 0) return fprintf(stderr, "%s\n", err.text), 2;
    chr_fe_set_handlers(&con, &handlers, &con);
    while (chr_loop_step(ctx, -1) >= 0)
        while ((n = chr_fe_read(&con, text, sizeof text)) > 0)
            chr_fe_write_all(&con, text, (size_t)n, -1);
    chr_context_free(ctx);
    return 0;
}
