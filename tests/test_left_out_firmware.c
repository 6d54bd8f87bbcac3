/*
 * A build as small as firmware needs: chardevs are opened by struct, errors are numbers, and functions that are left
 * out are not declared.
 */
#undef CHARDEV_THREADS
#define CHARDEV_FREESTANDING
#define CHARDEV_NO_HELP
#define CHARDEV_NO_OPTIONS
#define CHARDEV_NO_WAIT
#define CHARDEV_NO_PRINTF
#define CHARDEV_NO_BASE64
#define CHARDEV_NO_BUFFERS
#define CHARDEV_ERROR_SIZE 96
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include "test.h"

/* Each of these would be declared twice. */
enum { chr_new, chr_new_from, chr_new_any, chr_new_uri, chr_options_add, chr_help, chr_change, chr_change_from, chr_drain,
       chr_fe_write_all, chr_fe_read_all, chr_fe_flush, chr_fe_printf, chr_fe_set_buffers, chr_fe_read };

static uint64_t memory[8192];

static chr_context *start(void)
{
    chr_config config;
    memset(&config, 0, sizeof config);
    config.virtual_clock = 1;
    return chr_context_init_with(&config, memory, sizeof memory);
}

static chr_dev *make(chr_context *ctx, const char *id, const char *kind, const void *options, chr_error *err)
{
    return chr_open(ctx, id, chr_backend_find(ctx, kind), options, err);
}

TEST(defaults_and_ranges_of_structs)
{
    chr_context        *ctx = start();
    chr_ringbuf_options options;
    chr_error           err;
    chr_frontend        fe;
    char                text[8];
    CHECK(make(ctx, "r", "ringbuf", NULL, &err) == NULL); /* 64K do not fit */
    CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
    memset(&options, 0, sizeof options);
    options.size = 3;
    CHECK(make(ctx, "r", "ringbuf", &options, &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_INVALID);
    CHECK_STR(err.text, "error -3");
    options.size = -4;
    CHECK(make(ctx, "r", "ringbuf", &options, &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_INVALID);
    options.size = 4;
    CHECK(make(ctx, "0r", "ringbuf", &options, &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_INVALID);
    CHECK(make(ctx, "r", "ringbuf", &options, &err) != NULL);
    CHECK(make(ctx, "r", "ringbuf", &options, &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_EXISTS);
    CHECK(make(ctx, "s", "nothing", NULL, &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_NOT_FOUND);
    CHECK(chr_fe_init(&fe, chr_find(ctx, "r"), &err) == 0);
    CHECK_INT(chr_fe_write(&fe, "abcdef", 6), 6);
    CHECK_INT(chr_ringbuf_read(fe.dev, 8, CHR_BASE64, text, sizeof text, &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(err.code, CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_ringbuf_write(fe.dev, "AAAA", 4, CHR_BASE64, &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_ringbuf_read(fe.dev, 8, CHR_UTF8, text, sizeof text, &err), 4);
    CHECK(memcmp(text, "cdef", 4) == 0);
    options.common.obuf = 16;
    CHECK(make(ctx, "o", "ringbuf", &options, &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_NOT_SUPPORTED);
    chr_context_free(ctx);
}

TEST(an_error_is_its_number)
{
    chr_error err;
    CHECK_INT(chr_error_set(&err, CHR_ERR_IO, "%s is on fire", "lp0"), CHR_ERR_IO);
    CHECK_INT(err.code, CHR_ERR_IO);
    CHECK(strstr(err.text, "lp0") == NULL && strncmp(err.text, "error ", 6) == 0);
    CHECK_INT(chr_error_set(NULL, CHR_ERR_IO, "nobody asks"), CHR_ERR_IO);
}

/* Ids are in a list here, however many there are. */
TEST(many_ids)
{
    chr_context *ctx = start();
    char         id[4] = "aa";
    int          i;
    for (i = 0; i < 100; i++) {
        id[0] = (char)('a' + i / 10);
        id[1] = (char)('a' + i % 10);
        if (!CHECK(make(ctx, id, "null", NULL, NULL) != NULL)) break;
        CHECK_STR(chr_find(ctx, id)->id, id);
    }
    for (i = 0; i < 100; i += 2) {
        id[0] = (char)('a' + i / 10);
        id[1] = (char)('a' + i % 10);
        CHECK_INT(chr_remove(ctx, id, NULL), 0);
        CHECK(chr_find(ctx, id) == NULL);
        id[1]++;
        CHECK(chr_find(ctx, id) != NULL);
    }
    chr_context_free(ctx);
}

static char   heard[2][16];
static size_t heard_count[2];

static int hear_room(void *opaque) { return (int)(sizeof heard[0] - heard_count[*(int *)opaque]); }

static void hear(void *opaque, const void *buf, size_t len)
{
    int which = *(int *)opaque;
    memcpy(heard[which] + heard_count[which], buf, len);
    heard_count[which] += len;
}

/* A mux on a ring buffer, and a hub whose members are named in a struct. */
TEST(mux_and_hub_by_struct)
{
    static const chr_handlers handlers = { hear_room, hear, NULL, NULL };
    static int                which[2] = { 0, 1 };
    const char               *members[3] = { "left", "right", NULL };
    chr_context              *ctx = start();
    chr_ringbuf_options       options;
    chr_hub_options           hub;
    chr_frontend              fe[2], out;
    chr_dev                  *mux;
    char                      text[16];
    int                       i;
    memset(&options, 0, sizeof options);
    memset(&hub, 0, sizeof hub);
    options.size = 16;
    CHECK(make(ctx, "left", "ringbuf", &options, NULL) && make(ctx, "right", "ringbuf", &options, NULL));
    hub.chardevs = members;
    CHECK(make(ctx, "hub", "hub", &hub, NULL) != NULL);
    members[0] = members[1] = "gone"; /* they were copied */
    CHECK(chr_fe_init(&out, chr_find(ctx, "hub"), NULL) == 0);
    while (chr_loop_step(ctx, 0) > 0)
        ;
    CHECK_INT(chr_fe_write(&out, "both", 4), 4);
    CHECK_INT(chr_ringbuf_read(chr_find(ctx, "left"), 8, CHR_UTF8, text, sizeof text, NULL), 4);
    CHECK_INT(chr_ringbuf_read(chr_find(ctx, "right"), 8, CHR_UTF8, text, sizeof text, NULL), 4);
    options.common.mux = CHR_ON;
    mux = make(ctx, "m", "ringbuf", &options, NULL);
    CHECK(mux && chr_find(ctx, "m-base"));
    for (i = 0; i < 2; i++) {
        CHECK(chr_fe_init(&fe[i], mux, NULL) == 0);
        chr_fe_set_handlers(&fe[i], &handlers, &which[i]);
    }
    chr_fe_take_focus(&fe[0]);
    chr_be_write(chr_find(ctx, "m-base"), "one\001ctwo", 8);
    CHECK_INT((int)heard_count[0], 3);
    CHECK_INT((int)heard_count[1], 3);
    CHECK(memcmp(heard[0], "one", 3) == 0 && memcmp(heard[1], "two", 3) == 0);
    chr_context_free(ctx);
}

/* There is no clock to wait by. */
TEST(no_run_without_a_clock)
{
    chr_context *ctx = chr_context_init(memory, sizeof memory);
    CHECK_INT(chr_loop_run_until(ctx, 1000000), CHR_ERR_NOT_SUPPORTED);
    chr_context_free(ctx);
}

static void count(void *opaque) { ++*(int *)opaque; }

TEST(timers_and_idles)
{
    chr_context *ctx = start();
    chr_timer    timers[5];
    chr_idle     idle;
    int          fired[5] = { 0 }, idles = 0, i;
    memset(timers, 0, sizeof timers);
    memset(&idle, 0, sizeof idle);
    for (i = 0; i < 5; i++) {
        chr_timer_start(ctx, &timers[i], 5 - i, count, &fired[i]);
    }
    chr_idle_start(ctx, &idle, count, &idles);
    chr_timer_stop(&timers[3]);
    CHECK(chr_loop_run_until(ctx, chr_loop_now(ctx) + 3000000) >= 0);
    CHECK(fired[4] == 1 && fired[3] == 0 && fired[2] == 1 && fired[1] == 0 && fired[0] == 0 && idles > 0);
    chr_idle_stop(&idle);
    CHECK(chr_loop_run_until(ctx, chr_loop_now(ctx) + 2000000) >= 0);
    CHECK(fired[1] == 1 && fired[0] == 1);
    chr_context_free(ctx);
}
