/* A second file of the same program, which uses what portable.c emits (or, with CHARDEV_STATIC, a copy of its own). */
#ifdef CHARDEV_STATIC
#define CHARDEV_IMPLEMENTATION
#endif
#include "../../chardev.h"

#ifdef __cplusplus
extern "C"
#endif
int second_file(chr_context *ctx);

int second_file(chr_context *ctx)
{
    chr_frontend fe;
    chr_dev     *dev = chr_open(ctx, "second", chr_backend_find(ctx, "null"), NULL, NULL);
    int          taken;

    if (!dev || chr_fe_init(&fe, dev, NULL) < 0) return 0;
    taken = chr_fe_write(&fe, "gone", 4);
    chr_fe_deinit(&fe);
    return taken == 4 && chr_remove(ctx, "second", NULL) >= 0;
}
