/* Numbers, base64, UTF-8 and messages, each compared with a simpler implementation. */
#include "chardev.h"
#include "rig.h"
#include "private.h"

/* ---- numbers on the wire ----------------------------------------------------------------------------------------- */

TEST(numbers_of_each_length)
{
    static const unsigned char sample[8] = { 0x01, 0x82, 0x03, 0x84, 0x05, 0x86, 0x07, 0x88 };
    int                        bytes, is_big, i;
    for (is_big = 0; is_big < 2; is_big++)
        for (bytes = 0; bytes <= 8; bytes++) {
            unsigned char to[10];
            uint64_t      value = 0;
            memset(to, 0x55, sizeof to);
            for (i = 0; i < bytes; i++) value += (uint64_t)sample[i] << 8 * (is_big ? bytes - 1 - i : i);
            CHECK(private_get_number(sample, bytes, is_big) == value);
            private_put_number(to, value, bytes, is_big);
            if (!CHECK_MEM(to, bytes, sample, bytes)) NOTE("%d bytes, %s", bytes, is_big ? "big" : "little");
            CHECK_INT(to[bytes], 0x55);
        }
}

/* ---- UTF-8 ------------------------------------------------------------------------------------------------------- */

/* As the table of RFC 3629 has it. */
static size_t encode(unsigned long letter, unsigned char *to)
{
    if (letter > 0x10ffff || (letter >= 0xd800 && letter <= 0xdfff)) return 0;
    if (letter <= 0x7f) return to[0] = (unsigned char)letter, 1;
    if (letter <= 0x7ff) return to[0] = (unsigned char)(192 + letter / 64), to[1] = (unsigned char)(128 + letter % 64), 2;
    if (letter <= 0xffff) {
        to[0] = (unsigned char)(224 + letter / 4096);
        to[1] = (unsigned char)(128 + letter / 64 % 64);
        to[2] = (unsigned char)(128 + letter % 64);
        return 3;
    }
    to[0] = (unsigned char)(240 + letter / 262144);
    to[1] = (unsigned char)(128 + letter / 4096 % 64);
    to[2] = (unsigned char)(128 + letter / 64 % 64);
    to[3] = (unsigned char)(128 + letter % 64);
    return 4;
}

TEST(utf8_of_each_character)
{
    unsigned long letter;
    for (letter = 0; letter <= 0x110100; letter++) {
        unsigned char want[4] = { 0, 0, 0, 0 }, got[4] = { 0, 0, 0, 0 };
        size_t        count = encode(letter, want);
        int           left;
        if (!CHECK_INT(private_utf8_put(letter, got), count) || !CHECK_MEM(got, count, want, count)) NOTE("U+%lX", letter);
        if (count > 0 && (!CHECK_INT(private_utf8_length(want, count), count) || !CHECK_INT(private_utf8_is_good(want, count, &left), 1) ||
                          !CHECK_INT(left, 0))) NOTE("U+%lX", letter);
        if (test_failures > 10) return;
    }
    CHECK_INT(private_utf8_put(0xffffffff, (unsigned char[4]){ 0 }), 0);
}

/* What is the beginning of some character: found by encoding all. */
static unsigned char begins[4][1 << 21]; /* a bit for each sequence of one to three bytes */

static unsigned long number_of(const unsigned char *bytes, size_t len)
{
    unsigned long number = 0;
    while (len-- > 0) number = number << 8 | *bytes++;
    return number;
}

static void note_all(void)
{
    unsigned long letter, number;
    for (letter = 0; letter <= 0x10ffff; letter++) {
        unsigned char bytes[4];
        size_t        count = encode(letter, bytes), len;
        for (len = 1; len < count; len++) {
            number = number_of(bytes, len);
            begins[len][number >> 3] |= (unsigned char)(1 << (number & 7));
        }
    }
}

static int is_character(const unsigned char *bytes, size_t len)
{
    unsigned long letter = len == 1 ? bytes[0] : len == 2 ? bytes[0] & 31u : len == 3 ? bytes[0] & 15u : bytes[0] & 7u;
    unsigned char again[4];
    size_t        i;
    for (i = 1; i < len; i++) letter = letter * 64 + (bytes[i] & 63u);
    return encode(letter, again) == len && memcmp(again, bytes, len) == 0;
}

/* The length of the character that bytes[count] begin with, 0: they may become one, else minus how many are to be
 * dropped. */
static int length_of(const unsigned char *bytes, size_t count)
{
    size_t        len;
    unsigned long number;
    for (len = 1; len <= count; len++) {
        if (is_character(bytes, len)) return (int)len;
        number = number_of(bytes, len);
        if (len == 4 || !(begins[len][number >> 3] >> (number & 7) & 1)) return len > 1 ? -(int)(len - 1) : -1;
    }
    return 0;
}

TEST(utf8_of_each_sequence_at_the_bounds)
{
    static const unsigned char bounds[] = { 0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0,
                                            0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff };
    enum { COUNT = sizeof bounds };
    unsigned long i, most = COUNT * COUNT * COUNT * COUNT;
    note_all();
    for (i = 0; i < most && test_failures < 10; i++) {
        unsigned char bytes[4] = { bounds[i % COUNT], bounds[i / COUNT % COUNT], bounds[i / COUNT / COUNT % COUNT], bounds[i / COUNT / COUNT / COUNT] };
        size_t        count, at;
        for (count = i ? 4 : 0; count <= 4; count++)
            if (!CHECK_INT(private_utf8_length(bytes, count), length_of(bytes, count))) NOTE("%08lx, %d bytes", number_of(bytes, 4), (int)count);
        for (at = 0; at < 4 && length_of(bytes + at, 4 - at) > 0; at += (size_t)length_of(bytes + at, 4 - at)) {}
        {
            int left, good = at == 4 || length_of(bytes + at, 4 - at) == 0;
            if (!CHECK_INT(private_utf8_is_good(bytes, 4, &left), good)) NOTE("%08lx", number_of(bytes, 4));
            if (good && at == 4) CHECK_INT(left, 0);
            if (good && at < 4) CHECK(left > 0);
        }
    }
}

TEST(utf8_that_is_cut)
{
    static const struct { const char *text; int left; } table[] = {
        { "", 0 }, { "a", 0 }, { "a\xc3", 1 }, { "\xe2", 2 }, { "\xe2\x82", 1 }, { "\xf0", 3 }, { "\xf0\x9f", 2 }, { "\xf0\x9f\x98", 1 },
        { "\xf0\x9f\x98\x80", 0 }, { "\xf4\x8f\xbf", 1 },
    };
    size_t i;
    int    left;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        CHECK_INT(private_utf8_is_good((const unsigned char *)table[i].text, strlen(table[i].text), &left), 1);
        if (!CHECK_INT(left, table[i].left)) NOTE("row %d", (int)i);
    }
}

/* ---- base64 ------------------------------------------------------------------------------------------------------ */

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int is_taken(rig *r, const char *text)
{
    return chr_ringbuf_write(chr_find(r->ctx, "r"), text, strlen(text), CHR_BASE64, NULL) >= 0;
}

/* A last group of one byte has four bits, one of two bytes two bits that mean nothing: only zeros are good. */
TEST(base64_bits_behind_the_end)
{
    char text[9];
    int  i, k;
    rig  r;
    rig_open(&r);
    make(&r, "ringbuf,id=r");
    for (i = 0; i < 64; i++)
        for (k = 0; k < 64; k++) {
            snprintf(text, sizeof text, "%c%c==", letters[i], letters[k]);
            if (!CHECK_INT(is_taken(&r, text), k % 16 == 0)) NOTE("%s", text);
            snprintf(text, sizeof text, "A%c%c=", letters[i], letters[k]);
            if (!CHECK_INT(is_taken(&r, text), k % 4 == 0)) NOTE("%s", text);
            snprintf(text, sizeof text, "A%cA%c", letters[i], letters[k]);
            CHECK_INT(is_taken(&r, text), 1);
        }
    rig_close(&r);
}

TEST(base64_characters_that_are_none)
{
    char text[9];
    int  c, at;
    rig  r;
    rig_open(&r);
    make(&r, "ringbuf,id=r");
    for (c = 1; c < 256; c++)
        for (at = 0; at < 8; at++) {
            snprintf(text, sizeof text, "AAAAAAAA");
            text[at] = (char)c;
            if (!CHECK_INT(is_taken(&r, text), strchr(letters, c) != NULL || (c == '=' && at == 7))) NOTE("%d at %d", c, at);
        }
    rig_close(&r);
}

TEST(base64_there_and_back)
{
    unsigned char bytes[60];
    char          text[90], again[90];
    size_t        len, i;
    rig           r;
    rig_open(&r);
    make(&r, "ringbuf,id=r");
    for (len = 0; len < sizeof bytes; len++) {
        for (i = 0; i < len; i++) bytes[i] = (unsigned char)(i * 37 + len * 101);
        memset(text, 'x', sizeof text);
        private_base64(bytes, len, text);
        CHECK_INT(strlen(text), (len + 2) / 3 * 4);
        CHECK_INT(strspn(text, letters) + (3 - len % 3) % 3, strlen(text));
        CHECK_INT(chr_ringbuf_write(chr_find(r.ctx, "r"), text, strlen(text), CHR_BASE64, NULL), len);
        for (i = 0; i < len; i++) { /* bit by bit */
            size_t bit;
            for (bit = 0; bit < 8; bit++) {
                size_t at = i * 8 + bit;
                int    want = bytes[i] >> (7 - bit) & 1, got = (int)(strchr(letters, text[at / 6]) - letters) >> (5 - at % 6) & 1;
                if (!CHECK_INT(got, want)) return;
            }
        }
        CHECK_INT(chr_ringbuf_read(chr_find(r.ctx, "r"), len, CHR_BASE64, again, sizeof again, NULL), strlen(text));
        CHECK_MEM(again, strlen(text), text, strlen(text));
    }
    rig_close(&r);
}

/* A ring buffer's bytes, read in pieces of each size into room of each size: as much as goes, and the rest stays. */
TEST(base64_read_into_any_room)
{
    size_t  count, size, capacity, i, taken;
    rig     r;
    chr_dev *dev;
    rig_open(&r);
    dev = make(&r, "ringbuf,id=r,size=16");
    for (count = 0; count <= 16; count++)
        for (size = 0; size <= 18; size++)
            for (capacity = 0; capacity <= 26; capacity++) {
                unsigned char bytes[16];
                char          out[32], want[32];
                (void)chr_ringbuf_read(dev, 100, CHR_BASE64, out, sizeof out, NULL);
                for (i = 0; i < count; i++) bytes[i] = (unsigned char)(i * 29 + count);
                if (count) CHECK_INT(chr_ringbuf_write(dev, (const char *)bytes, count, CHR_UTF8, NULL), count);
                memset(out, '#', sizeof out);
                taken = size < count ? size : count;
                if (taken > capacity / 4 * 3) taken = capacity / 4 * 3;
                private_base64(bytes, taken, want);
                if (!CHECK_INT(chr_ringbuf_read(dev, size, CHR_BASE64, out, capacity, NULL), strlen(want)) ||
                    !CHECK_MEM(out, strlen(want), want, strlen(want)) || !CHECK_INT(out[strlen(want)], '#') ||
                    !CHECK_INT(chr_ringbuf_count(dev), count - taken))
                    NOTE("%d bytes, %d wanted, room for %d", (int)count, (int)size, (int)capacity);
                if (test_failures > 10) return;
            }
    rig_close(&r);
}

TEST(utf8_read_into_any_room)
{
    static const char *const texts[] = { "abc", "\xc3\xa4" "b\xe2\x82\xac", "\xff\xfe" "a", "\xe2\x82", "a\xf0\x9f\x98\x80\xf0\x9f", "\xe2\x28\xa1\x80", "\xf0\x9f\x98z" };
    size_t   k, size, capacity;
    rig      r;
    chr_dev *dev;
    note_all();
    rig_open(&r);
    dev = make(&r, "ringbuf,id=r,size=16");
    for (k = 0; k < sizeof texts / sizeof *texts; k++)
        for (size = 0; size <= 10; size++)
            for (capacity = 0; capacity <= 20; capacity++) {
                const unsigned char *bytes = (const unsigned char *)texts[k];
                size_t               count = strlen(texts[k]), at = 0, len = 0;
                char                 out[32], want[32];
                while (chr_ringbuf_count(dev) > 0) (void)chr_ringbuf_read(dev, 100, CHR_BASE64, out, sizeof out, NULL);
                CHECK_INT(chr_ringbuf_write(dev, texts[k], count, CHR_UTF8, NULL), count);
                memset(out, '#', sizeof out);
                while (at < count && at < size) {
                    int    length = length_of(bytes + at, count - at < 4 ? count - at : 4);
                    size_t used = (size_t)(length < 0 ? -length : length), makes = length < 0 ? 3 : used;
                    if (length == 0 || at + used > size || len + makes > capacity) break;
                    memcpy(want + len, length < 0 ? "\xef\xbf\xbd" : texts[k] + at, makes);
                    at += used;
                    len += makes;
                }
                if (!CHECK_INT(chr_ringbuf_read(dev, size, CHR_UTF8, out, capacity, NULL), len) || !CHECK_MEM(out, len, want, len) ||
                    !CHECK_INT(out[len], '#') || !CHECK_INT(chr_ringbuf_count(dev), count - at))
                    NOTE("text %d, %d wanted, room for %d", (int)k, (int)size, (int)capacity);
                if (test_failures > 10) return;
            }
    rig_close(&r);
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

TEST(texts_are_cut_where_they_do_not_fit)
{
    size_t size, len, before;
    for (size = 1; size < 12; size++)
        for (len = 0; len < 16; len++) {
            char text[20] = "", to[20];
            memset(text, 'a', len);
            memset(to, '#', sizeof to);
            private_put_text(to, size, text);
            CHECK_INT(strlen(to), len < size ? len : size - 1);
            CHECK_MEM(to, strlen(to), text, strlen(to));
            CHECK_INT(to[size], '#');
            for (before = 0; before < size; before++) {
                size_t now;
                memset(to, '#', sizeof to);
                memset(to, 'b', before);
                to[before] = 0;
                now = private_append(to, size, before, text);
                CHECK_INT(now, before + len < size ? before + len : size - 1);
                CHECK_INT(strlen(to), now);
                CHECK_INT(strspn(to, "b"), before);
                CHECK_INT(to[size], '#');
            }
        }
}

/* Control characters become '?', all others stay. */
TEST(a_message_is_one_line)
{
    chr_error err;
    int       c;
    for (c = 1; c < 256; c++) {
        char text[2] = { (char)c, 0 }, want[20];
        CHECK_INT(private_fail(&err, "<%s> %d", text, c), CHR_ERR_INVALID);
        CHECK_INT(err.code, CHR_ERR_INVALID);
        snprintf(want, sizeof want, "<%c> %d", c < 32 ? '?' : c, c);
        CHECK_STR(err.text, want);
    }
    CHECK_INT(private_fail(NULL, "%s %d", "x", 1), CHR_ERR_INVALID);
}

/* A long value is cut at 300 bytes, so that what is wrong with it is still to be read. */
TEST(a_message_does_not_hide_behind_its_values)
{
    static const size_t lengths[] = { 0, 1, 299, 300, 301, 1000, 5000 };
    static char         text[6000], want[400];
    chr_error           err;
    size_t              i, k;
    for (i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memset(text, 'v', sizeof text - 1);
        text[lengths[i]] = 0;
        CHECK_INT(private_fail(&err, "100%% of '%s': is %d too much", text, 7), CHR_ERR_INVALID);
        memset(want, 'v', 300);
        snprintf(want + (lengths[i] < 300 ? lengths[i] : 300), 60, "': is 7 too much");
        CHECK(strncmp(err.text, "100% of '", 9) == 0);
        if (!CHECK_STR(err.text + 9, want)) NOTE("%d bytes", (int)lengths[i]);
    }
    for (k = 280; k < 310; k++) { /* a message that is as long itself */
        char format[320];
        memset(format, 'f', k);
        snprintf(format + k, sizeof format - k, "%%s%%d");
        CHECK_INT(private_fail(&err, format, "text", 42), CHR_ERR_INVALID);
        CHECK_INT(strlen(err.text), k + 6);
        CHECK_STR(err.text + k, "text42");
    }
    CHECK_INT(private_fail(&err, "%%%s%d%%", "x", 1), CHR_ERR_INVALID);
    CHECK_STR(err.text, "%x1%");
}
