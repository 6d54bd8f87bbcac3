/* Option texts: no input crashes or leaks, each failure has a one-line error, and values are read as written. */
#include "fuzz.h"

#include <ctype.h>

typedef struct sink_options {
    chr_common_options common;
    chr_bool           flag;
    int64_t            number, size;
    const char        *text;
} sink_options;

static sink_options sink_got;
static char        *sink_text;

static int sink_open(chr_dev *dev, chr_error *err)
{
    (void)err;
    memcpy(&sink_got, dev->options, sizeof sink_got);
    free(sink_text);
    sink_text = sink_got.text ? fuzz_text((const uint8_t *)sink_got.text, strlen(sink_got.text)) : NULL;
    return 0;
}

static const chr_option sink_table[] = {
    { "flag", CHR_OPTION_BOOL, offsetof(sink_options, flag), "off", 0, 0, "a flag" },
    { "number", CHR_OPTION_NUMBER, offsetof(sink_options, number), NULL, INT64_MIN, INT64_MAX, "a number" },
    { "size", CHR_OPTION_SIZE, offsetof(sink_options, size), NULL, 0, INT64_MAX, "a size" },
    { "text", CHR_OPTION_TEXT, offsetof(sink_options, text), NULL, 0, 0, "a text" },
    { NULL, CHR_OPTION_BOOL, 0, NULL, 0, 0, NULL }
};

static const chr_io sink_io = { NULL, NULL, NULL, NULL };

CHR_TABLE(chr_backend, sink_backend,
    CHR_SET(name,         "sink")
    CHR_SET(help,         "remembers its options")
    CHR_SET(options,      sink_table)
    CHR_SET(options_size, sizeof(sink_options))
    CHR_SET(state_size,   sizeof(chr_dev))
    CHR_SET(open,         sink_open)
    CHR_SET(io,           &sink_io));

/* "sink,id=x,KEY=VALUE", with the commas of VALUE doubled where it is a text. Returns the code. */
static int options_try(chr_context *ctx, const char *key, const char *value)
{
    static const char head[] = "sink,id=x,";
    chr_error         err;
    char             *text = (char *)malloc(sizeof head + strlen(key) + 2 * strlen(value) + 2), *p;
    chr_dev          *dev;
    FUZZ_CHECK(text != NULL);
    p = text + sprintf(text, "%s%s=", head, key);
    for (; *value; value++) {
        *p++ = *value;
        if (*value == ',') *p++ = ',';
    }
    *p = 0;
    memset(&sink_got, 0, sizeof sink_got);
    dev = chr_new(ctx, text, &err);
    free(text);
    if (!dev) fuzz_check_error(ctx, &err);
    else chr_remove(ctx, "x", NULL);
    return dev ? 0 : err.code;
}

/* The slow truth: digits, or 0x and hex digits, one sign. Returns 0 where it is no number in 64 bits. */
static int options_number(const char *text, int64_t *value)
{
    const char *digits = "0123456789abcdef";
    uint64_t    sum = 0, digit, base = 10;
    int         negative = *text == '-';
    if (negative) text++;
    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
        base = 16;
        text += 2;
    }
    if (!*text) return 0;
    for (; *text; text++) {
        const char *found = strchr(digits, tolower((unsigned char)*text));
        digit = found ? (uint64_t)(found - digits) : base;
        if (digit >= base || sum > (UINT64_MAX - digit) / base) return 0;
        sum = sum * base + digit;
    }
    if (sum > (uint64_t)INT64_MAX + (uint64_t)negative) return 0;
    *value = (int64_t)(negative ? 0 - sum : sum);
    return 1;
}

static void options_check_number(chr_context *ctx, const char *value)
{
    int64_t want = 0;
    int     good = options_number(value, &want), code = options_try(ctx, "number", value);
    if (*value == '+') return; /* either way will do */
    FUZZ_CHECK(good == (code == 0));
    if (good) FUZZ_CHECK(sink_got.number == want);
}

/* Whole sizes with a suffix, by the same truth. */
static void options_check_size(chr_context *ctx, char *value)
{
    static const char suffixes[] = "BKMGT";
    size_t            len = strlen(value);
    const char       *suffix = len ? strchr(suffixes, value[len - 1]) : NULL;
    int               code = options_try(ctx, "size", value), good, shift;
    int64_t           want = 0;
    if (strpbrk(value, ".+-xX") || *value == 0) return; /* fractions, and B as a hex digit, are for the other tests */
    shift = suffix ? (int)(suffix - suffixes) * 10 : 0;
    if (suffix) value[len - 1] = 0;
    good = options_number(value, &want) && want < INT64_MAX >> shift;
    if (strpbrk(value, "bkmgt")) return;
    FUZZ_CHECK(good ? code == 0 : code < 0 || want == INT64_MAX >> shift); /* the very last one may go either way */
    if (good) FUZZ_CHECK(sink_got.size == want << shift);
}

static void options_check_text(chr_context *ctx, const char *value)
{
    FUZZ_CHECK(options_try(ctx, "text", value) == 0 || *value == 0);
    if (*value) FUZZ_CHECK(sink_text && strcmp(sink_text, value) == 0);
    free(sink_text);
    sink_text = NULL;
}

static void options_check_raw(chr_context *ctx, const char *text)
{
    chr_error err;
    chr_dev  *dev;
    fault_deny(1); /* "file,path=..." must not do what it says */
    dev = chr_new(ctx, text, &err);
    if (!dev) fuzz_check_error(ctx, &err);
    chr_change(ctx, "x", text, &err);
    while ((dev = chr_next(ctx, NULL)) != NULL && chr_remove(ctx, dev->id, &err) == 0) {}
    dev = chr_new_from(ctx, CHR_REMOTE, text, &err);
    fault_deny(0);
}

int FUZZ_TARGET(const uint8_t *data, size_t size)
{
    chr_context *ctx = fuzz_context(data, size);
    char        *text = fuzz_text(size ? data + 1 : data, size ? size - 1 : 0);
    FUZZ_CHECK(chr_backend_register(ctx, &sink_backend, NULL) == 0);
    switch (size ? data[0] % 4 : 0) {
    case 0: options_check_text(ctx, text); break;
    case 1: options_check_number(ctx, text); break;
    case 2: options_check_size(ctx, text); break;
    default: options_check_raw(ctx, text); break;
    }
    free(sink_text);
    sink_text = NULL;
    free(text);
    fuzz_end(ctx);
    return 0;
}
