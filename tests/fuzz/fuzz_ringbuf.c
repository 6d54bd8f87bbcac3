/* The ring buffer against a slow reference: a plain array, and one-character-at-a-time UTF-8 and base64. */
#include "fuzz.h"

enum { RING_SIZE = 32, RING_MOST = 48 };

static uint8_t ring_bytes[RING_SIZE]; /* what must be in it, oldest first */
static size_t  ring_len;

static void ring_push(const uint8_t *bytes, size_t len)
{
    size_t i;
    for (i = 0; i < len; i++) {
        if (ring_len == RING_SIZE) memmove(ring_bytes, ring_bytes + 1, --ring_len);
        ring_bytes[ring_len++] = bytes[i];
    }
}

/* The length of the character that begins here, 0 where none does. */
static size_t ring_character(const uint8_t *p, size_t len)
{
    static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
    size_t   need = len == 0 ? 0 : p[0] < 0x80 ? 1 : (p[0] & 0xe0) == 0xc0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : (p[0] & 0xf8) == 0xf0 ? 4 : 0;
    uint32_t code = 0;
    size_t   i;
    if (need == 0 || need > len) return 0;
    code = need == 1 ? p[0] : (uint32_t)(p[0] & (0x7f >> need));
    for (i = 1; i < need; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    if (code < smallest[need] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return 0;
    return need;
}

/* Bytes as text in which each run of broken ones, long or short, is one U+FFFD. */
static size_t ring_collapse(const uint8_t *p, size_t len, char *out)
{
    size_t at = 0, i, n;
    int    broken = 0;
    for (i = 0; i < len; i += n ? n : 1) {
        n = ring_character(p + i, len - i);
        if (n == 3 && memcmp(p + i, "\xef\xbf\xbd", 3) == 0) {
            if (!broken) memcpy(out + at, p + i, 3), at += 3;
            broken = 1;
        } else if (n) {
            memcpy(out + at, p + i, n);
            at += n;
            broken = 0;
        } else if (!broken) {
            memcpy(out + at, "\xef\xbf\xbd", 3);
            at += 3;
            broken = 1;
        }
    }
    return at;
}

/* Whether a character lies across `at`. */
static int ring_splits(size_t at)
{
    size_t i, n;
    for (i = 0; i < at; i += n ? n : 1) {
        n = ring_character(ring_bytes + i, ring_len - i);
        if (i + n > at) return 1;
    }
    return 0;
}

static void ring_drop(size_t len)
{
    FUZZ_CHECK(len <= ring_len);
    memmove(ring_bytes, ring_bytes + len, ring_len - len);
    ring_len -= len;
}

static void ring_read_utf8(chr_dev *dev, size_t size, size_t capacity)
{
    char   out[RING_MOST * 3], got[RING_MOST * 9], want[RING_SIZE * 3 + 3];
    int    len = chr_ringbuf_read(dev, size, CHR_UTF8, out, capacity, NULL);
    size_t taken = ring_len - (size_t)chr_ringbuf_count(dev), got_len, want_len;
    FUZZ_CHECK(len >= 0 && (size_t)len <= capacity);
    FUZZ_CHECK(taken <= size);
    FUZZ_CHECK(!ring_splits(taken));
    got_len = ring_collapse((const uint8_t *)out, (size_t)len, got);
    want_len = ring_collapse(ring_bytes, taken, want);
    FUZZ_CHECK(got_len == want_len && memcmp(got, want, got_len) == 0);
    if (ring_len >= 4 && size >= 4 && capacity >= 4) FUZZ_CHECK(taken > 0);
    ring_drop(taken);
}

static const char ring_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Bit by bit. */
static size_t ring_encode(const uint8_t *p, size_t len, char *out)
{
    size_t bits = len * 8, at = 0, bit, k;
    for (bit = 0; bit < bits; bit += 6) {
        unsigned value = 0;
        for (k = bit; k < bit + 6; k++) value = value << 1 | (k < bits ? (unsigned)p[k / 8] >> (7 - k % 8) & 1u : 0u);
        out[at++] = ring_digits[value];
    }
    while (at % 4) out[at++] = '=';
    return at;
}

static void ring_read_base64(chr_dev *dev, size_t size, size_t capacity)
{
    char   out[RING_MOST * 2], want[RING_MOST * 2];
    int    len = chr_ringbuf_read(dev, size, CHR_BASE64, out, capacity, NULL);
    size_t taken = ring_len - (size_t)chr_ringbuf_count(dev);
    FUZZ_CHECK(len >= 0 && (size_t)len <= capacity && taken <= size);
    FUZZ_CHECK(ring_encode(ring_bytes, taken, want) == (size_t)len && memcmp(out, want, (size_t)len) == 0);
    if (ring_len && size && capacity >= 4) FUZZ_CHECK(taken > 0);
    ring_drop(taken);
}

/* Decodes by encoding again: good are only texts that come out the same. Returns the length, or -1. */
static int ring_decode(const char *text, size_t len, uint8_t *out)
{
    size_t i, bits = 0, at = 0;
    char   again[RING_MOST * 2];
    if (len % 4) return -1;
    memset(out, 0, RING_MOST);
    for (i = 0; i < len && text[i] != '='; i++) {
        const char *found = text[i] ? strchr(ring_digits, text[i]) : NULL;
        int         k;
        if (!found) return -1;
        for (k = 5; k >= 0; k--, bits++) out[bits / 8] |= (uint8_t)(((found - ring_digits) >> k & 1) << (7 - bits % 8));
    }
    at = bits / 8;
    if (ring_encode(out, at, again) != len) return -1;
    for (i = 0; i < len; i++) /* the last digit's unused bits may be anything */
        if (again[i] != text[i] && !(i + 1 < len ? text[i + 1] == '=' && text[i] != '=' : 0)) return -1;
    return (int)at;
}

/* Of more than fits the last bytes stay. */
static int ring_stored(size_t len)
{
    return (int)(len < RING_SIZE ? len : RING_SIZE);
}

static void ring_write_base64(chr_dev *dev, fuzz_bytes *in, size_t len, int tidy)
{
    char    text[RING_MOST];
    uint8_t bytes[RING_MOST];
    int     want, got;
    size_t  i;
    for (i = 0; i < len; i++) {
        text[i] = (char)fuzz_byte(in);
        if (tidy) text[i] = (unsigned char)text[i] > 250 ? '=' : ring_digits[(unsigned char)text[i] % 64];
    }
    want = ring_decode(text, len, bytes);
    got = chr_ringbuf_write(dev, text, len, CHR_BASE64, NULL);
    if (want < 0) {
        FUZZ_CHECK(got == CHR_ERR_INVALID);
        return;
    }
    if (got == CHR_ERR_INVALID) { /* a strict decoder may refuse unused bits that are not zero */
        char again[RING_MOST * 2];
        FUZZ_CHECK(ring_encode(bytes, (size_t)want, again) == len && memcmp(again, text, len) != 0);
        return;
    }
    FUZZ_CHECK(got == ring_stored((size_t)want));
    ring_push(bytes, (size_t)want);
}

static void ring_write(chr_dev *dev, fuzz_bytes *in, size_t len)
{
    uint8_t bytes[RING_MOST];
    size_t  i;
    for (i = 0; i < len; i++) bytes[i] = fuzz_byte(in);
    FUZZ_CHECK(chr_ringbuf_write(dev, (const char *)bytes, len, CHR_UTF8, NULL) == ring_stored(len));
    ring_push(bytes, len);
}

int FUZZ_TARGET(const uint8_t *data, size_t size)
{
    chr_context *ctx = fuzz_context(data, size);
    chr_dev     *dev = chr_new(ctx, "ringbuf,id=r,size=32", NULL);
    fuzz_bytes   in;
    in.data = data;
    in.size = size;
    ring_len = 0;
    FUZZ_CHECK(dev != NULL);
    while (in.size) {
        uint8_t op = fuzz_byte(&in);
        size_t  a = fuzz_byte(&in) % RING_MOST;
        switch (op % 6) {
        case 0:
        case 1: ring_write(dev, &in, a); break;
        case 2: ring_write_base64(dev, &in, a, 1); break;
        case 3: ring_write_base64(dev, &in, a, 0); break;
        case 4: ring_read_utf8(dev, a, fuzz_byte(&in) % RING_MOST); break;
        default: ring_read_base64(dev, a, fuzz_byte(&in) % RING_MOST); break;
        }
        FUZZ_CHECK((size_t)chr_ringbuf_count(dev) == ring_len);
    }
    fuzz_end(ctx);
    return 0;
}
