/*
 * URIs, and other texts of a user: no input crashes, leaks or accesses anything outside, each failure has a one-line
 * error.
 */
#include "fuzz.h"

static void uri_help_line(void *opaque, const char *line)
{
    (void)opaque;
    FUZZ_CHECK(line[0] && !strpbrk(line, "\r\n"));
}

static void uri_check(chr_context *ctx, chr_dev *dev, const chr_error *err)
{
    chr_info info;
    if (!dev) {
        fuzz_check_error(ctx, err);
        return;
    }
    chr_query(dev, &info);
    FUZZ_CHECK(chr_find(ctx, info.id) == dev);
    FUZZ_CHECK(memchr(info.filename, 0, sizeof info.filename) != NULL);
    FUZZ_CHECK(chr_remove(ctx, info.id, NULL) == 0);
    FUZZ_CHECK(chr_next(ctx, NULL) == NULL);
}

/* What is a URI for chr_new_uri() is the same for chr_new_any(). */
int FUZZ_TARGET(const uint8_t *data, size_t size)
{
    chr_context *ctx = fuzz_context(data, size);
    char        *text = fuzz_text(data, size);
    chr_error    err;
    chr_dev     *dev;
    int          is_uri, code;
    FUZZ_CHECK(chr_trace_match(text, "socket_accept") >= 0 && chr_trace_help(text, uri_help_line, NULL) <= CHR_TRACE_COUNT);
    fault_deny(1);
    dev = chr_new_uri(ctx, "u", text, &err);
    is_uri = dev != NULL;
    FUZZ_CHECK(!dev || chr_find(ctx, "u") == dev);
    uri_check(ctx, dev, &err);
    dev = chr_new_any(ctx, "u", text, &err);
    FUZZ_CHECK(dev || !is_uri || strstr(text, "id"));
    code = dev ? 0 : err.code;
    uri_check(ctx, dev, &err);
    if (code == CHR_ERR_HELP) {
        code = chr_help(ctx, text, uri_help_line, NULL);
        FUZZ_CHECK(code == 0 || code == CHR_ERR_NOT_FOUND);
    }
    fuzz_end(ctx);
    fault_deny(0);
    free(text);
    return 0;
}
