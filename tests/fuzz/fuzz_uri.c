/* URIs: no input crashes, leaks or touches anything outside, and failures are told well. */
#include "fuzz.h"

int FUZZ_TARGET(const uint8_t *data, size_t size)
{
    chr_context *ctx = fuzz_context();
    char        *text = fuzz_text(data, size);
    chr_error    err;
    chr_dev     *dev;
    fault_deny(1);
    dev = chr_new_uri(ctx, "u", text, &err);
    if (!dev) {
        fuzz_check_error(ctx, &err);
    } else {
        chr_info info;
        FUZZ_CHECK(chr_find(ctx, "u") == dev);
        chr_query(dev, &info);
        FUZZ_CHECK(memchr(info.filename, 0, sizeof info.filename) != NULL);
    }
    fuzz_end(ctx);
    fault_deny(0);
    free(text);
    return 0;
}
