/*
 * The ring between an interrupt handler and a program: sizes, wrapping, spans, and two threads that never lose a byte.
 * Run the last one under the thread sanitizer, too.
 */
#include "chardev.h"
#include "test.h"

#include <pthread.h>

TEST(sizes)
{
    static unsigned char bytes[64];
    chr_isr_ring         ring;

    CHECK_INT(chr_isr_ring_init(&ring, bytes, 0), CHR_ERR_INVALID);
    CHECK_INT(chr_isr_ring_init(&ring, bytes, 48), CHR_ERR_INVALID);
    CHECK_INT(chr_isr_ring_init(&ring, NULL, 64), CHR_ERR_INVALID);
    CHECK_INT(chr_isr_ring_init(&ring, bytes, (size_t)-1), CHR_ERR_INVALID);
    CHECK_INT(chr_isr_ring_put(&ring, "x", 1), 0); /* one that was refused takes nothing */
    CHECK_INT(chr_isr_ring_get(&ring, bytes, 1), 0);
    CHECK_INT(chr_isr_ring_init(&ring, bytes, 1), 0);
    CHECK_INT(chr_isr_ring_put(&ring, "xy", 2), 1);
    CHECK_INT(chr_isr_ring_init(&ring, bytes, 64), 0);
    CHECK_INT(chr_isr_ring_count(&ring), 0);
}

TEST(full_and_empty)
{
    unsigned char bytes[8], got[16];
    chr_isr_ring  ring;

    REQUIRE(chr_isr_ring_init(&ring, bytes, sizeof bytes) == 0);
    ring.put = ring.got = (chr_isr_index)-3; /* the counters wrap soon */
    CHECK_INT(chr_isr_ring_get(&ring, got, sizeof got), 0);
    CHECK_INT(chr_isr_ring_put(&ring, "0123456789", 10), 8);
    CHECK_INT(chr_isr_ring_count(&ring), 8);
    CHECK_INT(chr_isr_ring_put(&ring, "x", 1), 0);
    CHECK_INT(chr_isr_ring_get(&ring, got, 3), 3);
    CHECK_MEM(got, 3, "012", 3);
    CHECK_INT(chr_isr_ring_put(&ring, "abcd", 4), 3);
    CHECK_INT(chr_isr_ring_get(&ring, got, sizeof got), 8);
    CHECK_MEM(got, 8, "34567abc", 8);
    CHECK_INT(chr_isr_ring_count(&ring), 0);
}

/* Over the end of the memory, into a buffer that is larger. */
TEST(bytes_go_where_they_belong)
{
    unsigned char bytes[8], got[30];
    chr_isr_ring  ring;
    size_t        at, len, i;

    for (at = 0; at < 8; at++)
        for (len = 1; len <= 8; len++) {
            REQUIRE(chr_isr_ring_init(&ring, bytes, sizeof bytes) == 0);
            ring.put = ring.got = (chr_isr_index)at;
            memset(got, '.', sizeof got);
            CHECK_INT(chr_isr_ring_put(&ring, "abcdefgh", len), len);
            CHECK_INT(chr_isr_ring_get(&ring, got + 10, len), len);
            CHECK_MEM(got + 10, len, "abcdefgh", len);
            for (i = 0; i < sizeof got; i++) CHECK(got[i] == '.' || (i >= 10 && i < 10 + len));
        }
}

/* One without memory takes and has nothing. */
TEST(no_memory)
{
    unsigned char got[4];
    chr_isr_ring  ring;
    size_t        len = 7;

    CHECK(chr_isr_ring_init(&ring, NULL, 8) == CHR_ERR_INVALID);
    CHECK(chr_isr_ring_put_span(&ring, &len) == NULL);
    CHECK_INT(len, 0);
    len = 7;
    CHECK(chr_isr_ring_get_span(&ring, &len) == NULL);
    CHECK_INT(len, 0);
    CHECK_INT(chr_isr_ring_put(&ring, "abcd", 4), 0);
    CHECK_INT(chr_isr_ring_get(&ring, got, 4), 0);
    CHECK_INT(chr_isr_ring_count(&ring), 0);
}

/* As DMA uses it: pieces end where the memory does. */
TEST(spans)
{
    unsigned char bytes[16], *at;
    chr_isr_ring  ring;
    size_t        len;

    REQUIRE(chr_isr_ring_init(&ring, bytes, sizeof bytes) == 0);
    at = (unsigned char *)chr_isr_ring_put_span(&ring, &len);
    CHECK(at == bytes && len == 16);
    memcpy(at, "0123456789", 10);
    CHECK_INT(chr_isr_ring_count(&ring), 0); /* nothing is there before it is committed */
    chr_isr_ring_put_commit(&ring, 10);
    at = (unsigned char *)(uintptr_t)chr_isr_ring_get_span(&ring, &len);
    CHECK(at == bytes && len == 10);
    chr_isr_ring_get_commit(&ring, 8);
    at = (unsigned char *)chr_isr_ring_put_span(&ring, &len);
    CHECK(at == bytes + 10 && len == 6); /* up to the end, */
    memcpy(at, "abcdef", 6);
    chr_isr_ring_put_commit(&ring, 6);
    at = (unsigned char *)chr_isr_ring_put_span(&ring, &len);
    CHECK(at == bytes && len == 8); /* then from the start */
    chr_isr_ring_put_commit(&ring, 8);
    (void)chr_isr_ring_put_span(&ring, &len);
    CHECK_INT(len, 0);
    at = (unsigned char *)(uintptr_t)chr_isr_ring_get_span(&ring, &len);
    CHECK(at == bytes + 8 && len == 8);
    CHECK_MEM(at, 8, "89abcdef", 8);
    chr_isr_ring_get_commit(&ring, len);
    (void)chr_isr_ring_get_span(&ring, &len);
    CHECK_INT(len, 8);
}

/* ---- two threads ------------------------------------------------------------------------------------------------- */

enum { TOTAL = 3000000 };

static chr_isr_ring shared;

static unsigned char byte_at(size_t n) { return (unsigned char)(n * 7 ^ n >> 8); }

static void *produce(void *arg)
{
    unsigned char piece[37];
    size_t        sent = 0, n, i, len;

    (void)arg;
    while (sent < TOTAL) {
        if (sent % 3 == 0) { /* by spans, as DMA does */
            unsigned char *at = (unsigned char *)chr_isr_ring_put_span(&shared, &len);
            len = len < TOTAL - sent ? len : TOTAL - sent;
            for (i = 0; i < len; i++) at[i] = byte_at(sent + i);
            chr_isr_ring_put_commit(&shared, len);
            n = len;
        } else {
            len = sizeof piece < TOTAL - sent ? sizeof piece : TOTAL - sent;
            for (i = 0; i < len; i++) piece[i] = byte_at(sent + i);
            n = chr_isr_ring_put(&shared, piece, len);
        }
        sent += n;
        if (n == 0) sched_yield();
    }
    return NULL;
}

TEST(two_threads)
{
    static unsigned char bytes[64];
    unsigned char        piece[29];
    pthread_t            thread;
    size_t               got = 0, n, i, bad = 0;

    REQUIRE(chr_isr_ring_init(&shared, bytes, sizeof bytes) == 0);
    REQUIRE(pthread_create(&thread, NULL, produce, NULL) == 0);
    while (got < TOTAL) {
        CHECK(chr_isr_ring_count(&shared) <= sizeof bytes);
        n = chr_isr_ring_get(&shared, piece, 1 + got % sizeof piece);
        for (i = 0; i < n; i++) bad += piece[i] != byte_at(got + i);
        got += n;
        if (n == 0) sched_yield();
    }
    pthread_join(thread, NULL);
    CHECK_INT(bad, 0);
    CHECK_INT(chr_isr_ring_count(&shared), 0);
}
