/* The smallest program on chardev.h: it greets whoever comes, sends back what they type, and ends with its input.
 *     build/hello pty,id=con,path=/tmp/console
 *     build/hello socket,id=con,path=/tmp/hello,server=on,wait=off */
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include <stdio.h>
#include <string.h>

static chr_context *ctx;
static chr_frontend con;
static char text[4096];
static size_t at, end; // text[at..end) is not sent yet

static void send_rest(void *opaque)
{
    int n = chr_fe_write(&con, text + at, end - at);
    at = n > 0 ? at + (size_t)n : n == CHR_ERR_WOULD_BLOCK ? at : end; // another error: nobody is there
    if (at < end) chr_fe_add_watch(&con, send_rest, opaque);           // short write: wait for room
    else chr_fe_accept_input(&con);                                    // all is sent: more may come
}
static int can_read(void *opaque) { return (void)opaque, at < end ? 0 : (int)sizeof text; } // back-pressure
static void got(void *opaque, const void *buf, size_t len)
{
    memcpy(text, buf, len);
    at = 0, end = len;
    send_rest(opaque);
}
static void happened(void *opaque, int event)
{
    chr_info info;
    chr_query(con.dev, &info);
    if (event == CHR_EVENT_OPENED) got(opaque, "hello\r\n", 7);
    if (event == CHR_EVENT_CLOSED && !info.comes_back) chr_loop_stop(ctx); // a server goes on with its next peer
}
int main(int argc, char **argv)
{
    const chr_handlers handlers = { can_read, got, happened, NULL };
    const char *options = argc > 1 ? argv[1] : "stdio,id=con";
    chr_error err = { CHR_ERR_NO_MEMORY, "out of memory" };
    chr_dev *dev = (ctx = chr_context_new(NULL)) != NULL ? chr_new(ctx, options, &err) : NULL;
    if (!dev || chr_fe_init(&con, dev, &err) < 0) return fprintf(stderr, "%s\n", err.text), 2;
    chr_fe_set_handlers(&con, &handlers, NULL);
    chr_loop_run(ctx);
    chr_fe_write_all(&con, text + at, end - at, -1); // what still waits here,
    chr_drain(ctx, 2000);                            // and in the chardev, for two seconds without progress
    chr_context_free(ctx);
    return 0;
}
