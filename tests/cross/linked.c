/* The least that a firmware calls: a mux on a ring buffer, opened by struct in a static block, two frontends, and the loop. What it
 * does not call is dropped by the linker. Never run: its size is looked at. */
#define CHARDEV_IMPLEMENTATION
#include "../../chardev.h"

static uint64_t memory[512];

static void got(void *opaque, const void *buf, size_t len) { (void)chr_fe_write((chr_frontend *)opaque, buf, len); }

static int room(void *opaque) { return (void)opaque, 16; }

int main(void)
{
    static const chr_handlers handlers = { room, got, NULL, NULL };
    static chr_frontend       fe[2];
    chr_ringbuf_options       options;
    chr_context              *ctx = chr_context_init(memory, sizeof memory);
    chr_dev                  *dev;
    int                       i;

    memset(&options, 0, sizeof options);
    options.size = 256;
    options.common.mux = CHR_ON;
    dev = chr_open(ctx, "console", chr_backend_find(ctx, "ringbuf"), &options, NULL);
    for (i = 0; i < 2; i++)
        if (chr_fe_init(&fe[i], dev, NULL) == 0)
            chr_fe_set_handlers(&fe[i], &handlers, &fe[i]);
    for (;;)
        chr_loop_step(ctx, 0);
}
