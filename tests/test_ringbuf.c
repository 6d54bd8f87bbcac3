/* ringbuf: the newest bytes are kept, and read as text without broken sequences. */
#include "chardev.h"
#include "rig.h"

static char text[4096]; /* what was read last */

static int take(chr_dev *dev, size_t size, chr_format format, size_t capacity)
{
    chr_error err;
    int       len = chr_ringbuf_read(dev, size, format, text, capacity, &err);
    CHECK(len <= (int)capacity);
    text[len > 0 ? len : 0] = 0;
    return len;
}

static const char *take_all(chr_dev *dev, chr_format format)
{
    take(dev, 1 << 20, format, sizeof text - 1);
    return text;
}

static void put(chr_dev *dev, const char *bytes)
{
    CHECK_INT(chr_ringbuf_write(dev, bytes, strlen(bytes), CHR_UTF8, NULL), strlen(bytes));
}

static chr_dev *make_ring(rig *r, int size)
{
    char options[50];
    rig_open_virtual(r);
    snprintf(options, sizeof options, "ringbuf,id=r,size=%d", size);
    return make(r, options);
}

TEST(sizes_that_are_none)
{
    static const char *const table[] = { "0", "3", "1000", "65535", "1.5K", "65537", "0x30" };
    size_t                   i;
    rig                      r;
    rig_open_virtual(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        chr_error err;
        char      options[50];
        snprintf(options, sizeof options, "ringbuf,id=r,size=%s", table[i]);
        if (!CHECK_INT(refuse(&r, options, &err), CHR_ERR_INVALID) || !CHECK_HAS(err.text, "must be a power of two")) NOTE("for %s", options);
    }
    CHECK(refuse(&r, "ringbuf,id=r,size=-4", &(chr_error){ 0, "" }) < 0);
    rig_close(&r);
}

TEST(sizes_that_are_powers_of_two)
{
    static const char *const table[] = { "1", "2", "16", "4K", "1M" };
    size_t                   i;
    rig                      r;
    rig_open_virtual(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        char options[50];
        snprintf(options, sizeof options, "ringbuf,id=r%d,size=%s", (int)i, table[i]);
        make(&r, options);
    }
    rig_close(&r);
}

TEST(default_size_is_64K)
{
    static char big[100000];
    recorder    rec;
    rig         r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "ringbuf,id=r"));
    CHECK_INT(chr_fe_write(&rec.fe, big, sizeof big), sizeof big);
    CHECK_INT(chr_ringbuf_count(rec.fe.dev), 65536);
    detach(&rec);
    rig_close(&r);
}

/* Every write length into every fill of a small ring, against the plain truth: the newest 8 bytes. */
TEST(the_oldest_are_overwritten)
{
    int first, second;
    for (first = 0; first <= 20; first++)
        for (second = 0; second <= 20; second++) {
            char     all[64];
            int      i, total = first + second, kept = total < 8 ? total : 8;
            recorder rec;
            rig      r;
            attach(&rec, make_ring(&r, 8));
            for (i = 0; i < total; i++) all[i] = (char)('A' + i);
            CHECK_INT(chr_fe_write(&rec.fe, all, (size_t)first), first);
            CHECK_INT(chr_fe_write(&rec.fe, all + first, (size_t)second), second);
            CHECK_INT(chr_ringbuf_count(rec.fe.dev), kept);
            take_all(rec.fe.dev, CHR_UTF8);
            if (!CHECK_MEM(text, strlen(text), all + total - kept, kept)) NOTE("%d and %d", first, second);
            CHECK_INT(chr_ringbuf_count(rec.fe.dev), 0);
            detach(&rec);
            rig_close(&r);
        }
}

TEST(reading_in_parts)
{
    rig      r;
    chr_dev *dev = make_ring(&r, 16);
    put(dev, "abcdefghij");
    CHECK_INT(take(dev, 3, CHR_UTF8, 100), 3);
    CHECK_STR(text, "abc");
    CHECK_INT(take(dev, 100, CHR_UTF8, 2), 2);
    CHECK_STR(text, "de");
    CHECK_INT(take(dev, 0, CHR_UTF8, 100), 0);
    CHECK_INT(take(dev, 100, CHR_UTF8, 0), 0);
    CHECK_STR(take_all(dev, CHR_UTF8), "fghij");
    CHECK_INT(take(dev, 100, CHR_UTF8, 100), 0);
    rig_close(&r);
}

#define BAD "\xef\xbf\xbd" /* U+FFFD */

TEST(utf8_reads)
{
    static const struct { const char *in, *out; } table[] = {
        { "plain", "plain" },
        { "\xc3\xa4", "\xc3\xa4" },
        { "\xe2\x82\xac", "\xe2\x82\xac" },
        { "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80" },
        { "\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf" },
        { "a\x80z", "a" BAD "z" },
        { "a\xffz", "a" BAD "z" },
        { "\xc3(", BAD "(" },
        { "\xe2\x82(", BAD "(" },
        { "\xc0\x41", BAD "A" },                /* overlong lead */
        { "\xf5z", BAD "z" },                   /* beyond U+10FFFF */
        { "\xe2\xe2\x82\xac", BAD "\xe2\x82\xac" }, /* a lead where a continuation should be */
    };
    size_t i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        rig      r;
        chr_dev *dev = make_ring(&r, 64);
        put(dev, table[i].in);
        if (!CHECK_STR(take_all(dev, CHR_UTF8), table[i].out)) NOTE("row %d", (int)i);
        rig_close(&r);
    }
}

/* Sequences that decode to no character are not passed on, whatever number of replacement characters stands for
 * them. */
TEST(utf8_never_passes_what_is_no_character)
{
    static const char *const table[] = { "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf",
                                         "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf7\xbf\xbf\xbf", "\xf8\x88\x80\x80\x80" };
    size_t i, k;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        rig      r;
        chr_dev *dev = make_ring(&r, 64);
        put(dev, table[i]);
        put(dev, "z");
        take_all(dev, CHR_UTF8);
        for (k = 0; k + 3 < strlen(text); k += 3)
            if (!CHECK(memcmp(text + k, BAD, 3) == 0)) NOTE("row %d", (int)i);
        CHECK(k >= 3 && text[k] == 'z');
        rig_close(&r);
    }
}

/* A sequence is never split between two reads, however the size and the capacity fall. */
TEST(utf8_is_never_split)
{
    static const char whole[] = "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80z";
    size_t            size, capacity;
    for (size = 4; size < 12; size++)
        for (capacity = 4; capacity < 12; capacity++) {
            char     sum[64] = "";
            int      len, reads = 0;
            rig      r;
            chr_dev *dev = make_ring(&r, 64);
            put(dev, whole);
            while ((len = take(dev, size, CHR_UTF8, capacity)) > 0 && reads++ < 20) {
                CHECK((text[0] & 0xc0) != 0x80);
                strcat(sum, text);
            }
            if (!CHECK_STR(sum, whole)) NOTE("size %zu, capacity %zu", size, capacity);
            rig_close(&r);
        }
}

/* What is not a character takes the room of U+FFFD in the answer, and its own bytes of `size`. */
TEST(utf8_replacements_fit_or_wait)
{
    size_t size, capacity;
    for (size = 0; size < 5; size++)
        for (capacity = 0; capacity < 12; capacity++) {
            size_t   want = size < 3 ? size : 3, left = 4;
            rig      r;
            chr_dev *dev = make_ring(&r, 16);
            put(dev, "\x80\xff\xc3z");
            if (want > capacity / 3) want = capacity / 3;
            left -= want;
            if (want == 3 && size > 3 && capacity > 9) left--;
            CHECK_INT(take(dev, size, CHR_UTF8, capacity), 3 * want + (left == 0));
            if (!CHECK_MEM(text, 3 * want, BAD BAD BAD, 3 * want)) NOTE("size %zu, capacity %zu", size, capacity);
            CHECK_INT(chr_ringbuf_count(dev), left);
            rig_close(&r);
        }
}

/* The overwritten end cuts a character: its rest is not passed on. */
TEST(utf8_cut_by_overwriting)
{
    int extra;
    for (extra = 1; extra <= 3; extra++) {
        const char *after;
        rig         r;
        chr_dev    *dev = make_ring(&r, 8);
        put(dev, "\xf0\x9f\x98\x80" "abcd");
        put(dev, &"xyz"[3 - extra]);
        after = take_all(dev, CHR_UTF8);
        while (strncmp(after, BAD, 3) == 0) after += 3;
        CHECK(strncmp(after, "abcd", 4) == 0);
        CHECK_STR(after + 4, &"xyz"[3 - extra]);
        rig_close(&r);
    }
}

/* A sequence whose rest has not come yet waits for it. */
TEST(utf8_incomplete_at_the_end)
{
    rig      r;
    chr_dev *dev = make_ring(&r, 16);
    put(dev, "a\xe2\x82");
    take_all(dev, CHR_UTF8);
    if (strcmp(text, "a") == 0) {
        put(dev, "\xac");
        CHECK_STR(take_all(dev, CHR_UTF8), "\xe2\x82\xac");
    } else {
        CHECK_STR(text, "a" BAD); /* the other reading: all is taken out, and broken ones are replaced */
    }
    rig_close(&r);
}

TEST(base64_of_rfc_4648)
{
    static const struct { const char *plain, *coded; } table[] = {
        { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" }, { "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" },
        { "foobar", "Zm9vYmFy" }, { "\xff\xfe\xfb\xef", "//777w==" },
    };
    size_t i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        rig      r;
        chr_dev *dev = make_ring(&r, 16);
        put(dev, table[i].plain);
        CHECK_STR(take_all(dev, CHR_BASE64), table[i].coded);
        CHECK_INT(chr_ringbuf_write(dev, table[i].coded, strlen(table[i].coded), CHR_BASE64, NULL), strlen(table[i].plain));
        CHECK_INT(chr_ringbuf_count(dev), strlen(table[i].plain));
        CHECK_STR(take_all(dev, CHR_BASE64), table[i].coded);
        rig_close(&r);
    }
}

/* It removes no more than fits: no byte is lost when the buffer is small. */
TEST(base64_into_a_small_buffer)
{
    size_t capacity;
    for (capacity = 4; capacity < 16; capacity++) {
        int      left = 10, len, reads = 0;
        rig      r;
        chr_dev *dev = make_ring(&r, 16);
        put(dev, "0123456789");
        while ((len = take(dev, 100, CHR_BASE64, capacity)) > 0 && reads++ < 20) {
            int pads = (text[len - 1] == '=') + (text[len - 2] == '=');
            CHECK_INT(len % 4, 0);
            left -= len / 4 * 3 - pads;
            CHECK_INT(chr_ringbuf_count(dev), left);
        }
        CHECK_INT(left, 0);
        rig_close(&r);
    }
}

/* As many bytes as requested, and as available. */
TEST(base64_of_a_part)
{
    static const char *const want[] = { "", "MA==", "MDE=", "MDEy", "MDEyMw==", "MDEyMzQ=", "MDEyMzQ=", "MDEyMzQ=" };
    size_t                   size, capacity;
    for (size = 0; size < 8; size++)
        for (capacity = 0; capacity < 12; capacity++) {
            size_t   fits = capacity / 4 * 3, count = size < 5 ? size : 5;
            rig      r;
            chr_dev *dev = make_ring(&r, 8);
            put(dev, "01234");
            if (count > fits) count = fits;
            CHECK_INT(take(dev, size, CHR_BASE64, capacity), strlen(want[count]));
            if (!CHECK_STR(text, want[count])) NOTE("size %zu, capacity %zu", size, capacity);
            CHECK_INT(chr_ringbuf_count(dev), 5 - count);
            CHECK_STR(take_all(dev, CHR_UTF8), &"01234"[count]);
            rig_close(&r);
        }
}

TEST(base64_that_is_none)
{
    static const char *const table[] = { "Z", "Zg", "Zg=", "Z===", "====", "Zg==Zg==", "Zm9v!", "Zm 9v", "Zh==x", "=g==", "Zg=a", "Zm9v\n", "Zm9vY" };
    size_t                   i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        chr_error err;
        rig       r;
        chr_dev  *dev = make_ring(&r, 16);
        put(dev, "kept");
        if (!CHECK_INT(chr_ringbuf_write(dev, table[i], strlen(table[i]), CHR_BASE64, &err), CHR_ERR_INVALID)) NOTE("for %s", table[i]);
        CHECK_STR(take_all(dev, CHR_UTF8), "kept"); /* nothing of it was stored */
        rig_close(&r);
    }
}

TEST(zero_bytes_are_bytes)
{
    rig      r;
    chr_dev *dev = make_ring(&r, 16);
    CHECK_INT(chr_ringbuf_write(dev, "a\0b", 3, CHR_UTF8, NULL), 3);
    CHECK_INT(take(dev, 10, CHR_UTF8, 10), 3);
    CHECK_MEM(text, 3, "a\0b", 3);
    rig_close(&r);
}

TEST(ringbuf_calls_on_others)
{
    chr_error err;
    char      buf[4];
    chr_dev  *dev;
    rig       r;
    rig_open_virtual(&r);
    dev = make(&r, "null,id=n");
    CHECK_INT(chr_ringbuf_write(dev, "x", 1, CHR_UTF8, &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_HAS(err.text, "n");
    CHECK_INT(chr_ringbuf_read(dev, 1, CHR_UTF8, buf, sizeof buf, &err), CHR_ERR_NOT_SUPPORTED);
    CHECK(chr_ringbuf_count(dev) <= 0);
    rig_close(&r);
}

TEST(write_returns_what_is_stored)
{
    char     longer[101];
    chr_dev *dev;
    rig      r;
    rig_open(&r);
    dev = make(&r, "ringbuf,id=r,size=8");
    memset(longer, 'a', sizeof longer);
    CHECK_INT(chr_ringbuf_write(dev, longer, 5, CHR_UTF8, NULL), 5);
    CHECK_INT(chr_ringbuf_write(dev, longer, 100, CHR_UTF8, NULL), 8);
    CHECK_INT(chr_ringbuf_count(dev), 8);
    CHECK_INT(chr_ringbuf_write(dev, "QUFBQUFBQUFBQUFB", 16, CHR_BASE64, NULL), 8); /* 12 bytes */
    CHECK_INT(chr_ringbuf_write(dev, "QUE=", 4, CHR_BASE64, NULL), 2);
    CHECK_INT(chr_ringbuf_count(dev), 8);
    rig_close(&r);
}
