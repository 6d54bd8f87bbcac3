/* The smallest program on chardev.h: it greets whoever comes, and sends back what they type.
 *     build/hello pty,id=con,path=/tmp/console
 *     build/hello socket,id=con,path=/tmp/hello,server=on,wait=off */
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include <stdio.h>

static chr_frontend con;

static void got(void *opaque, const void *buf, size_t len)
{
    (void)opaque;
    chr_fe_write(&con, buf, len);
}

static void happened(void *opaque, int event)
{
    (void)opaque;
    if (event == CHR_EVENT_OPENED) chr_fe_printf(&con, "hello. I send back what you type.\r\n");
}

int main(int argc, char **argv)
{
    static const chr_handlers handlers = { NULL, got, happened, NULL };
    chr_error    err;
    chr_context *ctx = chr_context_new(NULL);
    chr_dev     *dev = chr_new(ctx, argc > 1 ? argv[1] : "stdio,id=con", &err);

    if (!dev || chr_fe_init(&con, dev, &err) < 0) {
        fprintf(stderr, "hello: %s\n", err.text);
        return 2;
    }
    chr_fe_set_handlers(&con, &handlers, NULL);
    chr_loop_run(ctx);
    chr_context_free(ctx);
    return 0;
}
