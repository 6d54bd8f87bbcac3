/*
 * What the freestanding profile implements itself instead of using the system: text is formatted as printf() does it.
 */
#undef CHARDEV_THREADS
#define CHARDEV_FREESTANDING
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include "test.h"

#include <limits.h>

#define CHECK_FORMAT(...)                                            \
    do {                                                             \
        char want[400], got[400];                                    \
        int  length = snprintf(want, sizeof want, __VA_ARGS__);      \
        CHECK_INT(chr__format(got, sizeof got, __VA_ARGS__), length); \
        CHECK_STR(got, want);                                        \
    } while (0)

TEST(numbers_as_printf_has_them)
{
    CHECK_FORMAT("%d %d %d", 0, 7, -7);
    CHECK_FORMAT("%d..%d", INT_MIN, INT_MAX);
    CHECK_FORMAT("[%5d] [%05d] [%2d]", 42, 42, 12345);
    CHECK_FORMAT("%u %x %02x %08x", 4000000000u, 0xbeefu, 7u, UINT_MAX);
    CHECK_FORMAT("%lld %lld %llu %llx", LLONG_MIN, LLONG_MAX, ULLONG_MAX, 0x123456789abcdefull);
    CHECK_FORMAT("%c%c%%", 'a', 'z');
}

TEST(texts_as_printf_has_them)
{
    const char unended[3] = { 'a', 'b', 'c' };
    CHECK_FORMAT("plain");
    CHECK_FORMAT("%s", "");
    CHECK_FORMAT("<%s|%10s|%2s>", "one", "two", "three");
    CHECK_FORMAT("%.*s and %.2s", 3, unended, unended);
    CHECK_FORMAT("%.*s", 10, "short");
}

TEST(text_without_room_is_cut)
{
    char small[6] = "xxxxx", none[1] = { 'x' };
    CHECK_INT(chr__format(small, sizeof small, "%s", "too long"), 8);
    CHECK_STR(small, "too l");
    CHECK_INT(chr__format(none, 1, "%d", 12), 2);
    CHECK_STR(none, "");
    none[0] = 'x';
    CHECK_INT(chr__format(none, 0, "%d", 12), 2);
    CHECK_INT(none[0], 'x');
}

/* The same through the door: a long text from outside doesn't push the reason out of the message. */
TEST(errors_say_what_was_wrong)
{
    static uint64_t memory[8192];
    static char     options[600] = "null,id=";
    chr_error       err;
    chr_context    *ctx = chr_context_init(memory, sizeof memory);
    REQUIRE(ctx != NULL);
    CHECK(!chr_new(ctx, "ringbuf,id=r,size=24", &err));
    CHECK_STR(err.text, "ringbuf: size=24: must be a power of two");
    memset(options + 8, '!', sizeof options - 9);
    CHECK(!chr_new(ctx, options, &err));
    CHECK(strlen(err.text) < sizeof err.text);
    CHECK(strstr(err.text, "id") != NULL);
    CHECK(!chr_new(ctx, "socket,id=s,path=/x", &err));
    CHECK_HAS(err.text, "socket");
    chr_context_free(ctx);
}
