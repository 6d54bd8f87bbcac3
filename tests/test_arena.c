/*
 * A context in a block of memory: all allocations come from it, freed memory is reused, and CHR_ERR_NO_MEMORY when it
 * is used up.
 */
#include "chardev.h"
#include "test.h"

enum { SIZE = 65536, GUARD = 64 };

static unsigned char memory[GUARD + SIZE + GUARD];

/* A block that begins anywhere, with guards around it. */
static chr_context *begin(size_t gap, size_t size)
{
    memset(memory, 0xa5, sizeof memory);
    return chr_context_init(memory + GUARD + gap, size);
}

static void check_guards(size_t gap, size_t size)
{
    size_t i, bad = 0;

    for (i = 0; i < GUARD + gap; i++) bad += memory[i] != 0xa5;
    for (i = GUARD + gap + size; i < sizeof memory; i++) bad += memory[i] != 0xa5;
    CHECK_INT(bad, 0);
}

static chr_memory usage(chr_context *ctx)
{
    chr_memory info;

    memset(&info, 0, sizeof info);
    CHECK_INT(chr_context_memory(ctx, &info), 0);
    CHECK(info.used > 0 && info.used <= info.most && info.most <= info.size && info.largest <= info.size - info.used);
    return info;
}

TEST(bad_blocks_are_refused)
{
    chr_context *ctx = chr_context_new(NULL);
    chr_memory   info;

    CHECK(!chr_context_init(NULL, SIZE));
    CHECK(!chr_context_init(NULL, 0));
    CHECK(!chr_context_init(memory, 0));
    CHECK(!chr_context_init(memory, 1));
    CHECK(!chr_context_init(memory, 100));
    CHECK_INT(chr_context_memory(ctx, &info), CHR_ERR_NOT_SUPPORTED);
    chr_context_free(ctx);
}

/* Whatever the size is and wherever the block begins: it does, or it fails; and nothing around it is touched. */
TEST(every_size)
{
    chr_context *ctx;
    chr_dev     *dev;
    chr_error    err;
    size_t       size, gap;
    int          made = 0, failed = 0;

    for (size = 0; size < 12000; size += 41)
        for (gap = 0; gap < 20; gap += 3) {
            ctx = begin(gap, size);
            if (!ctx) {
                failed++;
                check_guards(gap, size);
                continue;
            }
            dev = chr_new(ctx, "ringbuf,id=r,size=1K,history=512", &err);
            made += dev != NULL;
            if (!dev) CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
            chr_context_free(ctx);
            check_guards(gap, size);
        }
    CHECK(made > 0 && failed > 0);
}

TEST(used_up)
{
    chr_context *ctx = begin(1, SIZE);
    chr_error    err;
    chr_memory   empty, full;
    char         text[64];
    int          count = 0, code = 0;

    REQUIRE(ctx);
    empty = usage(ctx);
    CHECK(empty.size <= SIZE && empty.size > SIZE - 256 && empty.largest > SIZE / 2);
    while (code == 0 && count < 1000) {
        snprintf(text, sizeof text, "ringbuf,id=r%d,size=4K", count);
        code = chr_new(ctx, text, &err) ? 0 : err.code;
        count += code == 0;
    }
    CHECK_INT(code, CHR_ERR_NO_MEMORY);
    CHECK_HAS(err.text, "out of memory");
    CHECK(count >= 5 && count < 16);
    full = usage(ctx);
    CHECK(full.used > empty.used && full.most >= full.used && full.largest < 4096);
    CHECK_INT(chr_remove(ctx, "r2", &err), 0); /* in the middle */
    CHECK(chr_new(ctx, "ringbuf,id=again,size=4K", &err) != NULL);
    CHECK(!chr_new(ctx, "ringbuf,id=more,size=4K", &err));
    CHECK_INT(usage(ctx).used, full.used);
    chr_context_free(ctx);
    check_guards(1, SIZE);
}

/* As much is free after a thousand lives as before them, and in one piece. */
TEST(made_and_removed)
{
    static const char *const lines[] = { "ringbuf,id=a,size=2K", "null,id=b", "ringbuf,id=c,size=512,obuf=2K", "msmouse,id=d" };
    chr_context *ctx = begin(0, SIZE);
    chr_memory   before, after;
    size_t       i, k;
    chr_error    err;

    REQUIRE(ctx);
    before = usage(ctx);
    for (i = 0; i < 1000; i++) {
        for (k = 0; k < 4; k++) CHECK(chr_new(ctx, lines[(i + k) % 4], &err) != NULL);
        for (k = 0; k < 4; k++) {
            char id[2] = { (char)('a' + (i * 3 + k) % 4), 0 };
            CHECK_INT(chr_remove(ctx, id, &err), 0);
        }
    }
    chr_loop_step(ctx, 0);
    after = usage(ctx);
    CHECK_INT(after.used, before.used);
    CHECK_INT(after.largest, before.largest);
    CHECK(after.most > after.used);
    chr_context_free(ctx);
}

TEST(buffers_come_from_it)
{
    chr_context *ctx = begin(5, SIZE);
    chr_frontend fe;
    chr_memory   before;
    char         text[3000], got[3000];

    REQUIRE(ctx);
    memset(&fe, 0, sizeof fe);
    memset(text, 'x', sizeof text);
    REQUIRE(chr_fe_init(&fe, chr_new(ctx, "ringbuf,id=r,size=4K", NULL), NULL) == 0);
    before = usage(ctx);
    CHECK_INT(chr_fe_set_buffers(&fe, 60000, 60000), CHR_ERR_NO_MEMORY);
    CHECK_INT(usage(ctx).used, before.used);
    CHECK_INT(chr_fe_set_buffers(&fe, 1024, 4096), 0);
    CHECK(usage(ctx).used >= before.used + 1024 + 4096);
    CHECK_INT(chr_fe_write(&fe, text, sizeof text), sizeof text);
    chr_loop_step(ctx, 0);
    CHECK_INT(chr_ringbuf_read(fe.dev, sizeof got, CHR_UTF8, got, sizeof got, NULL), sizeof got);
    CHECK_MEM(got, sizeof got, text, sizeof text);
    chr_fe_deinit(&fe);
    CHECK_INT(usage(ctx).used, before.used);
    chr_context_free(ctx);
}

/* Allocates the smallest pieces until none is left: the whole block is in use then. All of it is available again
 * after freeing. */
TEST(used_up_to_the_last_piece)
{
    chr_context *ctx = begin(0, SIZE);
    chr_dev     *dev = ctx ? chr_new(ctx, "null,id=n", NULL) : NULL;
    chr_memory   before, full;
    void        *last = NULL, *each;
    int          count = 0;

    REQUIRE(dev);
    before = usage(ctx);
    while ((each = chr_be_allocate(dev, NULL, sizeof last)) != NULL) {
        memcpy(each, &last, sizeof last);
        last = each;
        count++;
    }
    full = usage(ctx);
    CHECK(count > 1000);
    CHECK_INT(full.largest, 0);
    CHECK_INT(full.used, full.size);
    CHECK_INT(full.most, full.size);
    for (; last; last = each) {
        memcpy(&each, last, sizeof each);
        (void)chr_be_allocate(dev, last, 0);
    }
    CHECK_INT(usage(ctx).used, before.used);
    CHECK_INT(usage(ctx).largest, before.largest);
    CHECK_INT(usage(ctx).most, full.most);
    CHECK((each = chr_be_allocate(dev, NULL, before.largest)) != NULL); /* what is said to be there is there */
    CHECK(usage(ctx).largest < before.largest);
    (void)chr_be_allocate(dev, each, 0);
    CHECK(!chr_be_allocate(dev, NULL, before.largest + 1));
    chr_context_free(ctx);
    check_guards(0, SIZE);
}

/* Pieces of many sizes, grown and freed in any order: none overlaps another, all are aligned, and in the end all is
 * one again. */
TEST(pieces)
{
    enum { MOST = 40 };
    struct piece { unsigned char *at; size_t size; } pieces[MOST];
    chr_context *ctx = begin(7, SIZE);
    chr_dev     *dev = ctx ? chr_new(ctx, "null,id=n", NULL) : NULL;
    chr_memory   before, after;
    unsigned     seed = 1, i, k, refused = 0;
    size_t       at, size, bad = 0;

    REQUIRE(dev);
    memset(pieces, 0, sizeof pieces);
    before = usage(ctx);
    for (i = 0; i < 200000; i++) {
        unsigned char *fresh;
        seed = seed * 1103515245u + 12345u;
        k = seed >> 16 & 0x7fff;
        size = seed >> 8 & 1 ? k % 4000 : k % 40;
        k %= MOST;
        for (at = 0; at < pieces[k].size; at++) bad += pieces[k].at[at] != (unsigned char)k;
        fresh = (unsigned char *)chr_be_allocate(dev, pieces[k].at, size);
        if (size > 0 && !fresh) {
            refused++;
            continue;
        }
        for (at = 0; at < (size < pieces[k].size ? size : pieces[k].size); at++) bad += fresh[at] != (unsigned char)k;
        if (fresh) memset(fresh, (int)k, size);
        bad += (uintptr_t)fresh % sizeof(int64_t) != 0;
        pieces[k].at = fresh;
        pieces[k].size = size;
    }
    CHECK_INT(bad, 0);
    CHECK(refused > 0);
    CHECK(!chr_be_allocate(dev, NULL, (size_t)-1));
    CHECK(!chr_be_allocate(dev, NULL, (size_t)-8));
    for (k = 0; k < MOST; k++) (void)chr_be_allocate(dev, pieces[k].at, 0);
    after = usage(ctx);
    CHECK_INT(after.used, before.used);
    CHECK_INT(after.largest, before.largest);
    chr_context_free(ctx);
    check_guards(7, SIZE);
}

static void count_line(void *opaque, const char *line)
{
    *(int *)opaque += line[0] != 0;
}

static int64_t fixed_clock(void *opaque)
{
    return *(int *)opaque + 41;
}

/* The hooks of the config are used, with its opaque pointer; its allocator is not called. */
TEST(hooks_stay)
{
    chr_config   config;
    chr_context *ctx;
    chr_dev     *dev;
    int          lines = 0;

    memset(&config, 0, sizeof config);
    config.opaque = &lines;
    config.log = count_line;
    config.clock = fixed_clock;
    ctx = chr_context_init_with(&config, memory, SIZE);
    REQUIRE(ctx);
    CHECK_INT(chr_loop_now(ctx), 41);
    dev = chr_new(ctx, "null,id=n", NULL);
    REQUIRE(dev);
    chr_be_log(dev, "a line");
    CHECK_INT(lines, 1);
    CHECK_INT(chr_loop_now(ctx), 42);
    chr_context_free(ctx);
}

/* A block that still fits where it is stays there, with what it holds. */
TEST(a_block_grows_in_its_place)
{
    chr_memory        before, after;
    chr_fault_counts  counts;
    chr_context      *ctx = chr_context_init_with(NULL, memory, SIZE);
    chr_dev          *dev;
    int               i;

    REQUIRE(ctx);
    REQUIRE(chr_new(ctx, "null,id=n", NULL));
    dev = chr_new(ctx, "fault,id=f,chardev=n", NULL);

    REQUIRE(dev);
    CHECK_INT(chr_fault_feed(dev, "a", 1), 1);
    chr_context_memory(ctx, &before);
    for (i = 0; i < 7; i++) CHECK_INT(chr_fault_feed(dev, "b", 1), 1);
    chr_context_memory(ctx, &after);
    CHECK_INT(after.used, before.used);
    for (i = 0; i < 1000; i++) CHECK_INT(chr_fault_feed(dev, "c", 1), 1);
    CHECK_INT(chr_fault_query(dev, &counts), 0);
    chr_context_free(ctx);
}
