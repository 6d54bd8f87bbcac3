/*
 * mux on a base of the test's own, which accepts exactly as much output, and delivers exactly as much input, as the
 * test sets.
 */
#include "chardev.h"
#include "rig.h"

/* ---- tap: the base ----------------------------------------------------------------------------------------------- */

static struct {
    chr_dev *dev;
    long     budget;  /* bytes that it accepts until it would block; -1 = no limit */
    size_t   most;    /* in one write; 0 = no limit */
    int      failure; /* what a write returns instead; 0 = none */
    int      failures; /* how often; 0 = from now on */
    char     out[200000];
    size_t   length;
    int      shutdowns, commands, last_command, waits;
    long     grants; /* how many bytes waiting for its descriptor lets it accept more */
} tap;

static int tap_open(chr_dev *dev, chr_error *err)
{
    (void)err;
    tap.dev = dev;
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

static int tap_write(chr_dev *dev, const void *buf, size_t len)
{
    (void)dev;
    if (tap.failure) {
        int failure = tap.failure;
        if (tap.failures > 0 && --tap.failures == 0) tap.failure = 0;
        return failure;
    }
    if (tap.most && len > tap.most) len = tap.most;
    if (tap.budget >= 0 && (long)len > tap.budget) len = (size_t)tap.budget;
    if (len == 0) return CHR_ERR_WOULD_BLOCK;
    if (tap.budget >= 0) tap.budget -= (long)len;
    REQUIRE(tap.length + len < sizeof tap.out);
    memcpy(tap.out + tap.length, buf, len);
    tap.length += len;
    return (int)len;
}

static void tap_update(chr_dev *dev)
{
    if (tap.budget != 0 && chr_be_wants_writable(dev)) chr_be_writable(dev);
}

static int tap_wait_fd(chr_dev *dev, int *events)
{
    (void)dev;
    CHECK_INT(*events, CHR_OUT);
    tap.waits++;
    tap.budget += tap.grants;
    *events = 0; /* at once */
    return 0;
}

static int tap_shutdown(chr_dev *dev)
{
    (void)dev;
    tap.shutdowns++;
    return 0;
}

static int tap_ioctl(chr_dev *dev, int command, void *arg)
{
    (void)dev;
    tap.commands++;
    tap.last_command = command;
    *(int *)arg = 7;
    return 5;
}

static void tap_describe(const chr_dev *dev, chr_info *info)
{
    (void)dev;
    info->comes_back = 1;
    snprintf(info->filename, sizeof info->filename, "tap:0");
}

CHR_TABLE(chr_io, tap_io,
    CHR_SET(write,   tap_write)
    CHR_SET(update,  tap_update)
    CHR_SET(wait_fd, tap_wait_fd));

CHR_TABLE(chr_peer_slots, tap_peer,
    CHR_SET(shutdown, tap_shutdown));

CHR_TABLE(chr_backend, tap_backend,
    CHR_SET(name,         "tap")
    CHR_SET(help,         "the test is the far side")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(chr_dev))
    CHR_SET(open,         tap_open)
    CHR_SET(io,           &tap_io)
    CHR_SET(ioctl,        tap_ioctl)
    CHR_SET(peer,         &tap_peer)
    CHR_SET(describe,     tap_describe));

/* ---- the bench: a mux on it, and frontends that note input and events in one text -------------------------------- */

enum { MOST = 6 };

typedef struct bench {
    rig      r;
    chr_dev *mux;
    recorder fe[MOST];
    int      count;
} bench;

static char  stories[MOST][200000]; /* of each frontend: its input, and events in <> */
static int   noted[MOST];           /* how much of the input is in it */
static bench *here;

static void tell(recorder *rec, int what)
{
    int    who = (int)(rec - here->fe);
    char  *story = stories[who];
    size_t used = strlen(story);
    if (what == 'r') {
        memcpy(story + used, rec->input + noted[who], rec->length - (size_t)noted[who]);
        story[used + rec->length - (size_t)noted[who]] = 0;
        noted[who] = (int)rec->length;
    } else if (what == 'e') {
        snprintf(story + used, 4, "<%c>", recorder_letter(rec->last_event));
    }
}

static void open_bench_context(bench *b)
{
    chr_error err;
    memset(b, 0, sizeof *b);
    memset(&tap, 0, sizeof tap);
    memset(stories, 0, sizeof stories);
    memset(noted, 0, sizeof noted);
    tap.budget = -1;
    here = b;
    rig_open_virtual(&b->r);
    REQUIRE(chr_backend_register(b->r.ctx, &tap_backend, &err) == 0);
}

static void come(bench *b, int who)
{
    free(b->fe[who].input);
    memset(&b->fe[who], 0, sizeof b->fe[who]);
    noted[who] = 0;
    b->fe[who].room = UNLIMITED;
    b->fe[who].then = tell;
    REQUIRE(chr_fe_init(&b->fe[who].fe, b->mux, NULL) == 0);
    listen_to(&b->fe[who]);
}

static void forget(bench *b)
{
    (void)b;
    memset(stories, 0, sizeof stories);
    tap.length = 0;
}

static void open_bench_with(bench *b, const char *options, int frontends)
{
    open_bench_context(b);
    b->mux = make(&b->r, options);
    for (; b->count < frontends; b->count++) come(b, b->count);
    settle(&b->r);
    forget(b);
}

static void open_bench(bench *b, int frontends) { open_bench_with(b, "tap,id=m,mux=on", frontends); }

static void close_bench(bench *b)
{
    int i;
    for (i = 0; i < b->count; i++) detach(&b->fe[i]);
    rig_close(&b->r);
}

/* Delivers input as far as there is room now. Returns how much. */
static size_t feed(const char *bytes, size_t len)
{
    size_t done = 0;
    int    room;
    while (done < len && (room = chr_be_can_write(tap.dev)) > 0) {
        size_t count = len - done < (size_t)room ? len - done : (size_t)room;
        chr_be_write(tap.dev, bytes + done, count);
        done += count;
    }
    return done;
}

/* The same, in one piece if there is room for anything; and all that follows from it. */
static void type(bench *b, const char *text)
{
    size_t len = strlen(text);
    CHECK_INT(feed(text, len), len);
    settle(&b->r);
}

static void happen(bench *b, int event)
{
    chr_be_event(tap.dev, event);
    settle(&b->r);
}

#define CHECK_OUT(text) CHECK_MEM(tap.out, tap.length, (text), strlen(text))

/* ---- time stamps ------------------------------------------------------------------------------------------------- */

#define STAMP "[02:40:00.000] "

TEST(stamps_are_the_time_of_the_day)
{
    static const struct { int64_t ms; const char *text; } table[] = {
        { 0, "[02:40:00.000] " },        { 1, "[02:40:00.001] " },         { 999, "[02:40:00.999] " },
        { 1000, "[02:40:01.000] " },     { 59999, "[02:40:59.999] " },     { 60000, "[02:41:00.000] " },
        { 1200000, "[03:00:00.000] " },  { 76799999, "[23:59:59.999] " },  { 76800000, "[00:00:00.000] " },
        { 163200000, "[00:00:00.000] " },
    };
    size_t i;
    bench  b;
    open_bench(&b, 1);
    type(&b, "\1t");
    for (i = 0; i < sizeof table / sizeof table[0]; i++) {
        char want[40];
        b.r.wall = (INT64_C(1500000000000) + table[i].ms) * 1000000 + 999999;
        forget(&b);
        CHECK_INT(chr_fe_write(&b.fe[0].fe, "x\n", 2), 2);
        snprintf(want, sizeof want, "%sx\n", table[i].text);
        CHECK_OUT(want);
    }
    close_bench(&b);
}

/* One before each line that begins while they are on; also before the rest of the line in which they are switched
 * on. */
TEST(stamps_begin_with_the_next_byte)
{
    bench b;
    open_bench(&b, 2);
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "a", 1), 1);
    type(&b, "\1t");
    CHECK_OUT("a");
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "b", 1), 1);
    CHECK_INT(chr_fe_write(&b.fe[1].fe, "c\n\nd", 4), 4); /* the line is everybody's */
    CHECK_OUT("a" STAMP "bc\n" STAMP "\n" STAMP "d");
    type(&b, "\1t");
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "e\nf", 3), 3);
    CHECK_OUT("a" STAMP "bc\n" STAMP "\n" STAMP "de\nf");
    type(&b, "\1t");
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "g\n", 2), 2);
    CHECK_OUT("a" STAMP "bc\n" STAMP "\n" STAMP "de\nf" STAMP "g\n");
    close_bench(&b);
}

/* How many of the guest's bytes are among the first `count` of what goes out. */
static int guest_bytes(const char *out, const char *stamps, size_t count)
{
    int    n = 0;
    size_t i;
    for (i = 0; i < count && out[i]; i++) n += stamps[i] == '.';
    return n;
}

/* The base would block at each place in turn: the answer counts the guest's bytes alone, and the rest follows where
 * it was cut. */
TEST(stamps_and_a_base_that_would_block_at_each_place)
{
    static const char text[] = "one\n\ntwo\nth";
    static const char want[] = STAMP "one\n" STAMP "\n" STAMP "two\n" STAMP "th";
    static const char mask[] = "sssssssssssssss....sssssssssssssss.sssssssssssssss....sssssssssssssss..";
    size_t            cut, most;
    for (cut = 0; cut < sizeof want - 1; cut++)
        for (most = 0; most < 18; most++) {
            int   first, n;
            bench b;
            open_bench(&b, 1);
            type(&b, "\1t");
            tap.budget = (long)cut;
            tap.most = most;
            first = guest_bytes(want, mask, cut);
            n = chr_fe_write(&b.fe[0].fe, text, sizeof text - 1);
            if (!CHECK_INT(n, first ? first : CHR_ERR_WOULD_BLOCK)) NOTE("cut %zu, at most %zu", cut, most);
            CHECK_MEM(tap.out, tap.length, want, cut);
            tap.budget = -1;
            CHECK_INT(chr_fe_write(&b.fe[0].fe, text + first, sizeof text - 1 - (size_t)first), (long long)(sizeof text - 1) - first);
            CHECK_OUT(want);
            close_bench(&b);
        }
}

/* A stamp that is half out when they are switched off is completed: a terminal shows whole stamps. */
TEST(a_stamp_is_completed_after_they_are_off)
{
    bench b;
    open_bench(&b, 1);
    type(&b, "\1t");
    tap.budget = 4;
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "x\ny\n", 4), CHR_ERR_WOULD_BLOCK);
    type(&b, "\1t");
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "x\ny\n", 4), CHR_ERR_WOULD_BLOCK);
    tap.budget = -1;
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "x\ny\n", 4), 4);
    CHECK_OUT(STAMP "x\ny\n");
    close_bench(&b);
}

/* Errors are those of the base; bytes written before one are the result, and the error is returned by the next
 * write. */
TEST(stamps_and_a_base_that_fails)
{
    bench b;
    open_bench(&b, 1);
    type(&b, "\1t");
    tap.failure = CHR_ERR_IO;
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "a\nb", 3), CHR_ERR_IO);
    tap.failure = CHR_ERR_DISCONNECTED;
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "a\nb", 3), CHR_ERR_DISCONNECTED);
    tap.failure = 0;
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "\n", 1), 1); /* the line that is lost has lost its stamp, too */
    CHECK_OUT("\n");
    forget(&b);
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "c\n", 2), 2);
    CHECK_OUT(STAMP "c\n");
    close_bench(&b);
}

TEST(half_a_stamp_is_dropped_with_its_peer)
{
    bench b;
    open_bench(&b, 1);
    type(&b, "\1t");
    tap.budget = 4;
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "x\n", 2), CHR_ERR_WOULD_BLOCK);
    tap.failure = CHR_ERR_DISCONNECTED;
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "x\n", 2), CHR_ERR_DISCONNECTED);
    tap.failure = 0;
    tap.budget = -1;
    forget(&b);
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "y\n", 2), 2);
    CHECK_OUT(STAMP "y\n");
    close_bench(&b);
}

/* Room that comes between two attempts changes nothing: no text goes out before its stamp. */
TEST(no_text_without_its_stamp)
{
    static const int failures[] = { CHR_ERR_WOULD_BLOCK, CHR_ERR_IO };
    int              i, begun;
    for (i = 0; i < 2; i++)
        for (begun = 0; begun < 2; begun++) {
            bench b;
            open_bench(&b, 1);
            type(&b, "\1t");
            if (begun) {
                tap.budget = 4;
                CHECK_INT(chr_fe_write(&b.fe[0].fe, "a\nb\n", 4), CHR_ERR_WOULD_BLOCK);
                tap.budget = -1;
            }
            tap.failure = failures[i];
            tap.failures = 1;
            CHECK_INT(chr_fe_write(&b.fe[0].fe, "a\nb\n", 4), failures[i]);
            CHECK_INT(tap.length, begun ? 4 : 0);
            CHECK_INT(chr_fe_write(&b.fe[0].fe, "a\nb\n", 4), 4);
            CHECK_OUT(STAMP "a\n" STAMP "b\n");
            close_bench(&b);
        }
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

static void open_mux_with_escape(bench *b, const char *escape)
{
    char options[100];
    open_bench_context(b);
    make(&b->r, "tap,id=base");
    snprintf(options, sizeof options, "mux,id=m,chardev=base%s", escape);
    b->mux = make(&b->r, options);
    come(b, b->count++);
    settle(&b->r);
    forget(b);
}

TEST(help)
{
    static const char want[] = "\r\n"
                               "Ctrl-A h    this help\r\n"
                               "Ctrl-A x    exit\r\n"
                               "Ctrl-A s    snapshot\r\n"
                               "Ctrl-A t    time stamps on or off\r\n"
                               "Ctrl-A b    send BREAK\r\n"
                               "Ctrl-A c    next frontend\r\n"
                               "Ctrl-A Ctrl-A    send Ctrl-A\r\n";
    bench b;
    open_bench(&b, 1);
    type(&b, "a\1hb");
    CHECK_OUT(want);
    CHECK_STR(stories[0], "ab");
    forget(&b);
    type(&b, "\1?");
    CHECK_OUT(want);
    close_bench(&b);
}

TEST(help_with_other_escape_characters)
{
    static const struct { const char *option; const char *typed, *first; } table[] = {
        { ",escape=20", "\x14h", "\r\nCtrl-T h    this help\r\n" },
        { ",escape=31", "\x1fh", "\r\nCtrl-_ h    this help\r\n" },
        { ",escape=32", " h", "\r\n  h    this help\r\n" },
        { ",escape=126", "~?", "\r\n~ h    this help\r\n" },
        { ",escape=0", "\1?", "\r\nCtrl-A h    this help\r\n" },
        { ",escape=255", "\xffh", "\r\n\xff h    this help\r\n" },
    };
    size_t i;
    for (i = 0; i < sizeof table / sizeof table[0]; i++) {
        bench b;
        open_mux_with_escape(&b, table[i].option);
        type(&b, table[i].typed);
        CHECK(tap.length > strlen(table[i].first));
        CHECK_MEM(tap.out, strlen(table[i].first), table[i].first, strlen(table[i].first));
        CHECK_STR(stories[0], "");
        close_bench(&b);
    }
}

TEST(escape_characters_that_are_none)
{
    chr_error err;
    bench     b;
    open_bench_context(&b);
    make(&b.r, "tap,id=base");
    CHECK_INT(refuse(&b.r, "mux,id=m,chardev=base,escape=256", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "escape");
    CHECK_INT(refuse(&b.r, "mux,id=m,chardev=base,escape=-1", &err), CHR_ERR_INVALID);
    close_bench(&b);
}

/* The context's own is the default of all its muxes; one mux may have another. */
TEST(escape_character_of_the_context_and_of_a_mux)
{
    int own;
    for (own = 0; own < 2; own++) {
        chr_config config;
        chr_error  err;
        bench      b;
        open_bench_context(&b);
        chr_context_free(b.r.ctx);
        config = rig_config(&b.r);
        config.clock = rig_clock;
        config.mux_escape = 2;
        b.r.ctx = chr_context_new(&config);
        REQUIRE(chr_backend_register(b.r.ctx, &tap_backend, &err) == 0);
        make(&b.r, "tap,id=base");
        b.mux = make(&b.r, own ? "mux,id=m,chardev=base,escape=3" : "mux,id=m,chardev=base");
        come(&b, b.count++);
        settle(&b.r);
        forget(&b);
        type(&b, "a\1\2\2b\3\3c");
        CHECK_STR(stories[0], own ? "a\1\2\2b\3c" : "a\1\2b\3\3c");
        close_bench(&b);
    }
}

TEST(exit_says_so_to_the_peer)
{
    bench b;
    open_bench(&b, 1);
    type(&b, "a\1xb");
    CHECK_OUT("\r\nterminated\r\n");
    CHECK_INT(b.r.exits, 1);
    CHECK_INT(b.r.exit_code, 0);
    CHECK_STR(stories[0], "ab");
    close_bench(&b);
}

/* Without hooks a snapshot is nothing, and exit stops the loop. */
TEST(commands_without_hooks)
{
    recorder     rec;
    chr_error    err;
    chr_context *ctx = chr_context_new(NULL);
    memset(&tap, 0, sizeof tap);
    tap.budget = -1;
    REQUIRE(chr_backend_register(ctx, &tap_backend, &err) == 0);
    attach(&rec, chr_new(ctx, "tap,id=m,mux=on", &err));
    CHECK(chr_loop_step(ctx, 0) >= 0);
    CHECK_INT(feed("a\1sb", 4), 4);
    CHECK_INPUT(&rec, "ab");
    CHECK(chr_loop_step(ctx, 0) >= 0);
    CHECK_INT(feed("\1x", 2), 2);
    CHECK_INT(chr_loop_step(ctx, 0), CHR_ERR_STOPPED);
    detach(&rec);
    chr_context_free(ctx);
}

/* ---- the focus --------------------------------------------------------------------------------------------------- */

/* In a circle, past those without handlers. */
TEST(next_goes_round_past_those_without_handlers)
{
    chr_frontend dumb[3];
    int          i;
    bench        b;
    open_bench_with(&b, "tap,id=m,mux=on", 0);
    memset(dumb, 0, sizeof dumb);
    REQUIRE(chr_fe_init(&dumb[0], b.mux, NULL) == 0);
    come(&b, 0), come(&b, 1);
    REQUIRE(chr_fe_init(&dumb[1], b.mux, NULL) == 0);
    come(&b, 2);
    REQUIRE(chr_fe_init(&dumb[2], b.mux, NULL) == 0);
    b.count = 3;
    settle(&b.r);
    forget(&b);
    type(&b, "a\1cb\1cc\1cd\1ce");
    CHECK_STR(stories[2], "a<U><I>d<U>");
    CHECK_STR(stories[0], "<I>b<U><I>e");
    CHECK_STR(stories[1], "<I>c<U>");
    for (i = 0; i < 3; i++) chr_fe_deinit(&dumb[i]);
    close_bench(&b);
}

/* With no other frontend the next one is the same, and nothing has changed. */
TEST(next_of_one_is_the_same)
{
    chr_frontend dumb;
    bench        b;
    open_bench(&b, 1);
    type(&b, "a\1cb");
    CHECK_STR(stories[0], "ab");
    memset(&dumb, 0, sizeof dumb);
    REQUIRE(chr_fe_init(&dumb, b.mux, NULL) == 0);
    type(&b, "\1cc");
    CHECK_STR(stories[0], "abc");
    chr_fe_take_focus(&b.fe[0].fe);
    settle(&b.r);
    CHECK_STR(stories[0], "abc");
    chr_fe_deinit(&dumb);
    close_bench(&b);
}

static void take_back(recorder *rec, int what)
{
    tell(rec, what);
    if (what == 'e' && rec->last_event == CHR_EVENT_MUX_OUT && !rec->user) {
        rec->user = rec;
        chr_fe_take_focus(&rec->fe);
    }
}

/* What happens on the line between the escape character and its command does not end the command. */
TEST(events_between_escape_and_command)
{
    static const int events[] = { CHR_EVENT_BREAK, CHR_EVENT_SERIAL, CHR_EVENT_RESIZED };
    size_t i;
    bench  b;
    open_bench(&b, 2);
    for (i = 0; i < 3; i++) {
        type(&b, "\x01");
        happen(&b, events[i]);
        forget(&b);
        type(&b, "cy");
        CHECK_STR(stories[i % 2], "<I>y");
        CHECK_STR(stories[1 - i % 2], "<U>");
    }
    close_bench(&b);
}

TEST(focus_taken_back_at_mux_out)
{
    bench b;
    open_bench(&b, 2);
    b.fe[1].then = take_back;
    type(&b, "a\1cb");
    CHECK_STR(stories[1], "a<U><I>b");
    CHECK_STR(stories[0], "");
    type(&b, "\1cc");
    CHECK_STR(stories[1], "a<U><I>b<U>");
    CHECK_STR(stories[0], "<I>c");
    close_bench(&b);
}

/* The first frontend with handlers in the list gets the focus of one that is detached; it gets MUX_IN before its
 * input, and not inside the call. */
TEST(focus_of_one_that_leaves)
{
    int leaves;
    for (leaves = 0; leaves < 3; leaves++) {
        int          heir = leaves == 1 ? 2 : 1;
        chr_frontend dumb;
        bench        b;
        open_bench(&b, 0);
        memset(&dumb, 0, sizeof dumb);
        come(&b, 0);
        REQUIRE(chr_fe_init(&dumb, b.mux, NULL) == 0);
        come(&b, 1), come(&b, 2);
        b.count = 3;
        chr_fe_take_focus(&b.fe[leaves].fe);
        settle(&b.r);
        forget(&b);
        if (leaves != 0) heir = 0;
        detach(&b.fe[leaves]);
        CHECK_STR(stories[heir], "");
        CHECK_INT(feed("a", 1), 1);
        CHECK_STR(stories[heir], "<I>a");
        CHECK_STR(stories[leaves], "");
        CHECK_STR(stories[3 - heir - leaves], "");
        settle(&b.r);
        CHECK_STR(stories[heir], "<I>a");
        chr_fe_deinit(&dumb);
        close_bench(&b);
    }
}

/* One that leaves without the focus takes nothing along. */
TEST(one_that_leaves_without_the_focus)
{
    int leaves;
    for (leaves = 0; leaves < 2; leaves++) {
        bench b;
        open_bench(&b, 3);
        detach(&b.fe[leaves]);
        type(&b, "a\1cb\1cc");
        CHECK_STR(stories[2], "a<U><I>c");
        CHECK_STR(stories[!leaves], "<I>b<U>");
        CHECK_STR(stories[leaves], "");
        close_bench(&b);
    }
}

/* When no frontend has handlers the peer is not read: its input is for the next one. */
TEST(nobody_listens)
{
    chr_frontend dumb;
    bench        b;
    open_bench(&b, 1);
    memset(&dumb, 0, sizeof dumb);
    REQUIRE(chr_fe_init(&dumb, b.mux, NULL) == 0);
    detach(&b.fe[0]);
    settle(&b.r);
    CHECK_INT(feed("a", 1), 0);
    CHECK_INT(chr_send_break(b.r.ctx, "m", NULL), 0); /* an event for the one in focus: there is none */
    settle(&b.r);
    come(&b, 0);
    settle(&b.r);
    type(&b, "b");
    CHECK_STR(stories[0], "<I><O>b");
    chr_fe_deinit(&dumb);
    close_bench(&b);
}

static void leave(recorder *rec, int what)
{
    tell(rec, what);
    if (what == 'r') chr_fe_deinit(&rec->fe);
}

/* The only frontend detaches in its read handler, before a command that moves the focus: there is no next one. The
 * rest is for a later one. */
TEST(the_only_one_leaves_before_a_command)
{
    bench b;
    open_bench(&b, 1);
    b.fe[0].then = leave;
    b.fe[0].room = 1;
    CHECK_INT(feed("a", 1), 1);
    settle(&b.r);
    come(&b, 0);
    settle(&b.r);
    forget(&b);
    b.fe[0].then = leave;
    chr_be_write(tap.dev, "\1c\1cb\1cc", 8);
    CHECK_STR(stories[0], "b");
    settle(&b.r);
    come(&b, 0);
    settle(&b.r);
    CHECK_STR(stories[0], "b<I><O>c");
    close_bench(&b);
}

static void pass_focus_on(recorder *rec, int what)
{
    tell(rec, what);
    if (what == 'e' && rec->last_event == CHR_EVENT_MUX_IN) chr_fe_take_focus(&here->fe[2].fe);
}

/* The new focus gets MUX_IN before the next input, and passes the focus on: then the room of that frontend counts. */
TEST(focus_given_away_at_mux_in)
{
    bench b;
    open_bench(&b, 4);
    b.fe[0].then = pass_focus_on;
    b.fe[2].room = 7;
    detach(&b.fe[3]);
    CHECK_INT(chr_be_can_write(tap.dev), 7);
    CHECK_INT(feed("a", 1), 1);
    CHECK_STR(stories[0], "<I><U>");
    CHECK_STR(stories[2], "<I>a");
    close_bench(&b);
}

static void leave_at_mux_in(recorder *rec, int what)
{
    tell(rec, what);
    if (what == 'e' && rec->last_event == CHR_EVENT_MUX_IN) chr_fe_deinit(&rec->fe);
}

TEST(heir_that_leaves_at_mux_in)
{
    bench b;
    open_bench(&b, 3);
    b.fe[0].then = leave_at_mux_in;
    b.fe[1].room = 7;
    detach(&b.fe[2]);
    CHECK_INT(feed("a", 1), 0); /* the next heir is told first */
    CHECK_STR(stories[0], "<I>");
    CHECK_STR(stories[1], "");
    settle(&b.r);
    CHECK_STR(stories[1], "<I>");
    CHECK_INT(feed("a", 1), 1);
    CHECK_STR(stories[1], "<I>a");
    close_bench(&b);
}

static void detach_the_last(void *opaque)
{
    bench *b = (bench *)opaque;
    detach(&b->fe[2]);
}

/* An event that is posted comes before the input that was queued, also when the loop is about to deliver that. */
TEST(posted_events_come_before_queued_input)
{
    chr_idle idle;
    bench    b;
    open_bench(&b, 3);
    memset(&idle, 0, sizeof idle);
    b.fe[2].room = b.fe[0].room = 0;
    chr_fe_take_focus(&b.fe[0].fe);
    type(&b, "abc");
    chr_fe_take_focus(&b.fe[2].fe);
    forget(&b);
    chr_idle_start(b.r.ctx, &idle, detach_the_last, &b);
    give_room(&b.fe[0], UNLIMITED);
    settle(&b.r);
    CHECK_STR(stories[0], "<I>abc");
    close_bench(&b);
}

/* ---- room -------------------------------------------------------------------------------------------------------- */

/* The base may deliver what the frontend has room for; when that is nothing, a bounded part more, which is queued. */
TEST(room_of_the_one_in_focus_is_the_room_of_the_base)
{
    static char block[70000];
    size_t      queued;
    bench       b;
    open_bench(&b, 2);
    memset(block, 'x', sizeof block);
    b.fe[1].room = 10;
    CHECK_INT(chr_be_can_write(tap.dev), 10);
    b.fe[1].room = 1;
    CHECK_INT(chr_be_can_write(tap.dev), 1);
    b.fe[1].room = -1;
    CHECK(chr_be_can_write(tap.dev) > 100);
    b.fe[1].room = 0;
    queued = (size_t)chr_be_can_write(tap.dev);
    CHECK(queued > 100 && queued < sizeof block);
    CHECK_INT(feed(block, 10), 10);
    CHECK_INT(chr_be_can_write(tap.dev), (long long)queued - 10);
    b.fe[1].room = 5; /* still behind what is queued */
    CHECK_INT(chr_be_can_write(tap.dev), (long long)queued - 10);
    b.fe[1].room = 0;
    CHECK_INT(feed(block, sizeof block), queued - 10);
    CHECK_INT(chr_be_can_write(tap.dev), 0);
    chr_fe_take_focus(&b.fe[0].fe);
    b.fe[0].room = 3;
    CHECK_INT(chr_be_can_write(tap.dev), 3);
    b.fe[0].room = UNLIMITED;
    CHECK(chr_be_can_write(tap.dev) >= 4096);
    give_room(&b.fe[1], UNLIMITED);
    settle(&b.r);
    CHECK_INT(b.fe[1].length, queued);
    CHECK_INT(b.fe[0].length, 0);
    close_bench(&b);
}

/* One byte that is queued is as good as many: it comes first, and before the peer's end. */
TEST(a_single_byte_is_queued)
{
    bench b;
    open_bench(&b, 2);
    b.fe[1].room = 0;
    type(&b, "a");
    happen(&b, CHR_EVENT_CLOSED);
    CHECK_STR(stories[0], "<C>");
    CHECK_STR(stories[1], "");
    CHECK_INT(chr_fe_eof(&b.fe[1].fe), 0);
    give_room(&b.fe[1], 1);
    settle(&b.r);
    CHECK_STR(stories[1], "a<C>");
    close_bench(&b);
}

static int reading_only_length;

static void reading_only(void *opaque, const void *buf, size_t len)
{
    (void)opaque, (void)buf;
    reading_only_length += (int)len;
}

/* A frontend that has a read handler alone always has room. */
TEST(frontend_without_can_read)
{
    static const chr_handlers handlers = { NULL, reading_only, NULL, NULL };
    chr_frontend              fe;
    bench                     b;
    open_bench(&b, 1);
    memset(&fe, 0, sizeof fe);
    REQUIRE(chr_fe_init(&fe, b.mux, NULL) == 0);
    chr_fe_set_handlers(&fe, &handlers, &fe);
    settle(&b.r);
    type(&b, "abc");
    CHECK_INT(reading_only_length, 3);
    chr_fe_deinit(&fe);
    type(&b, "d");
    CHECK_INT(reading_only_length, 3);
    CHECK_STR(stories[0], "<U><I>d");
    close_bench(&b);
}

static char events_only_seen[20];

static void events_only(void *opaque, int event)
{
    size_t used = strlen(events_only_seen);
    (void)opaque;
    events_only_seen[used] = recorder_letter(event);
}

/* One without a read handler has no room; what is typed to it waits until it has one, but no end of the peer waits
 * for that. */
TEST(frontend_without_read)
{
    static const chr_handlers handlers = { NULL, NULL, events_only, NULL };
    bench                     b;
    open_bench(&b, 2);
    chr_fe_set_handlers(&b.fe[0].fe, &handlers, &b.fe[0]);
    settle(&b.r);
    type(&b, "abc");
    happen(&b, CHR_EVENT_CLOSED);
    CHECK_STR(events_only_seen, "IOC");
    CHECK_STR(stories[0], "");
    happen(&b, CHR_EVENT_OPENED);
    CHECK_STR(events_only_seen, "IOCO");
    listen_to(&b.fe[0]);
    settle(&b.r);
    CHECK_STR(stories[0], "<O>abc");
    close_bench(&b);
}

/* What is queued comes in order and in pieces that fit, whatever room there is at a time, and more of it than one
 * piece. */
TEST(queued_input_in_pieces_of_every_size)
{
    static char text[1001], typed[1100];
    int         room;
    size_t      i;
    for (i = 0; i < sizeof text - 1; i++) text[i] = (char)('A' + i % 53);
    for (room = 1; room < 300; room += room < 20 ? 1 : 17) {
        bench b;
        open_bench(&b, 2);
        b.fe[1].room = 0;
        snprintf(typed, sizeof typed, "%s\1cfor zero", text);
        type(&b, typed);
        CHECK_STR(stories[0], "<I>for zero");
        for (i = 0; i < 1000 && b.fe[1].length < sizeof text - 1; i++) {
            size_t before = b.fe[1].length, left = sizeof text - 1 - before;
            give_room(&b.fe[1], room);
            settle(&b.r);
            CHECK_INT(b.fe[1].length - before, left < (size_t)room ? left : (size_t)room);
        }
        CHECK_STR(stories[1] + 3, text);
        CHECK_INT(chr_fe_eof(&b.fe[1].fe), 0);
        close_bench(&b);
    }
}

/* Input is counted once, however it comes to its frontend. */
TEST(input_is_counted_once)
{
    chr_info info;
    bench    b;
    open_bench(&b, 2);
    type(&b, "ab");
    b.fe[1].room = 0;
    type(&b, "cde");
    give_room(&b.fe[1], UNLIMITED);
    settle(&b.r);
    chr_query(b.mux, &info);
    CHECK_INT(info.bytes_in, 5);
    close_bench(&b);
}

/* When there is room again for the one in focus, or the focus goes to one that has some, the base reads on at once. */
TEST(room_comes_with_the_focus)
{
    static char block[70000];
    size_t      sent;
    bench       b;
    open_bench(&b, 2);
    b.fe[1].room = 0;
    memset(block, 'x', sizeof block);
    sent = feed(block, sizeof block);
    settle(&b.r);
    CHECK_INT(feed("y", 1), 0);
    chr_fe_take_focus(&b.fe[0].fe);
    CHECK_INT(feed("y", 1), 1);
    CHECK_STR(stories[0], "<I>y");
    CHECK_INT(b.fe[1].length, 0);
    give_room(&b.fe[1], UNLIMITED);
    settle(&b.r);
    CHECK_INT(b.fe[1].length, sent);
    close_bench(&b);
}

/* Queued input and new input are delivered to a frontend together, when it has room again and has not reported it. */
TEST(room_found_when_more_comes)
{
    bench b;
    open_bench(&b, 2);
    b.fe[1].room = 0;
    type(&b, "a");
    b.fe[1].room = UNLIMITED;
    CHECK_INT(feed("b", 1), 1);
    CHECK_STR(stories[1], "ab");
    close_bench(&b);
}

/* ---- a frontend that does something when it is asked ------------------------------------------------------------- */

static int  asked, asked_at;
static void (*when_asked)(recorder *rec);

static int asked_can_read(void *opaque)
{
    recorder *rec = (recorder *)opaque;
    int       room = rec->room;
    if (++asked == asked_at) when_asked(rec);
    return room;
}

static int no_room_at_all(void *opaque)
{
    (void)opaque;
    return 0;
}

static const chr_handlers asked_handlers = { asked_can_read, recorder_read, recorder_event, NULL };
static const chr_handlers full_handlers = { no_room_at_all, recorder_read, recorder_event, NULL };
static const chr_handlers deaf_handlers = { asked_can_read, NULL, recorder_event, NULL };

static void same_again(recorder *rec) { rec->open = 0, chr_fe_set_handlers(&rec->fe, &asked_handlers, rec); }
static void full_now(recorder *rec) { rec->open = 0, chr_fe_set_handlers(&rec->fe, &full_handlers, rec); }
static void deaf_now(recorder *rec) { rec->open = 0, chr_fe_set_handlers(&rec->fe, &deaf_handlers, rec); }
static void focus_away(recorder *rec) { (void)rec, chr_fe_take_focus(&here->fe[0].fe); }

static void open_asked(bench *b, int at, void (*then)(recorder *rec))
{
    open_bench(b, 2);
    b->fe[1].open = 0;
    chr_fe_set_handlers(&b->fe[1].fe, &asked_handlers, &b->fe[1]);
    settle(&b->r);
    forget(b);
    asked = 0;
    asked_at = at;
    when_asked = then;
}

/* can_read replaces the handlers: its result holds for the old ones. The new ones get input when they have room. */
TEST(handlers_set_while_they_are_asked)
{
    int at;
    for (at = 1; at < 3; at++) {
        bench b;
        open_asked(&b, at, same_again);
        CHECK_INT(feed("ab", 2), 2);
        CHECK_STR(stories[1], "<O>ab");
        close_bench(&b);
        open_asked(&b, at, full_now);
        CHECK_INT(feed("ab", 2), 2);
        settle(&b.r);
        CHECK_STR(stories[1], "<O>");
        listen_to(&b.fe[1]);
        settle(&b.r);
        CHECK_STR(stories[1], "<O><O>ab");
        close_bench(&b);
        open_asked(&b, at, deaf_now);
        CHECK_INT(feed("ab", 2), 2);
        settle(&b.r);
        CHECK_STR(stories[1], "<O>");
        listen_to(&b.fe[1]);
        settle(&b.r);
        CHECK_STR(stories[1], "<O><O>ab");
        close_bench(&b);
    }
}

/* can_read moves the focus: new input is for the other frontend. */
TEST(focus_moves_while_it_is_asked)
{
    int at;
    for (at = 1; at < 3; at++) {
        bench b;
        open_asked(&b, at, focus_away);
        if (chr_be_can_write(tap.dev) == 0) CHECK_INT(chr_be_can_write(tap.dev) >= 2, 1);
        chr_be_write(tap.dev, "ab", 2);
        settle(&b.r);
        CHECK_STR(stories[0], "<I>ab");
        CHECK_STR(stories[1], "<U>");
        close_bench(&b);
    }
}

/* ---- a frontend that is not told OPENED yet ---------------------------------------------------------------------- */

/* While OPENED is suspended, a frontend that waits for it gets no input; one without an event handler does, and one
 * that got it before. */
TEST(no_input_before_opened)
{
    static const chr_handlers handlers = { NULL, reading_only, NULL, NULL };
    chr_frontend              fe;
    bench                     b;
    open_bench(&b, 1);
    chr_mux_suspend_open(b.r.ctx);
    type(&b, "a");
    CHECK_STR(stories[0], "a");
    come(&b, 1);
    b.count = 2;
    settle(&b.r);
    type(&b, "b");
    CHECK_STR(stories[1], "<I>");
    memset(&fe, 0, sizeof fe);
    REQUIRE(chr_fe_init(&fe, b.mux, NULL) == 0);
    chr_fe_set_handlers(&fe, &handlers, &fe);
    type(&b, "c");
    CHECK_INT(reading_only_length, 1);
    CHECK_STR(stories[1], "<I><U>");
    happen(&b, CHR_EVENT_INPUT_END);
    CHECK_STR(stories[0], "a<U>");
    CHECK_STR(stories[1], "<I><U>");
    chr_mux_resume_open(b.r.ctx);
    settle(&b.r);
    CHECK_STR(stories[0], "a<U><E>");
    CHECK_STR(stories[1], "<I><U><O>b<E>");
    chr_fe_deinit(&fe);
    close_bench(&b);
}

/* CLOSED and OPENED wait behind queued input; OPENED then waits until it is resumed. */
TEST(opened_behind_queued_input_is_suspended_too)
{
    bench b;
    open_bench(&b, 2);
    b.fe[1].room = 0;
    type(&b, "a");
    happen(&b, CHR_EVENT_CLOSED);
    chr_mux_suspend_open(b.r.ctx);
    happen(&b, CHR_EVENT_OPENED);
    give_room(&b.fe[1], UNLIMITED);
    settle(&b.r);
    CHECK_STR(stories[0], "<C>");
    CHECK_STR(stories[1], "a<C>");
    chr_mux_resume_open(b.r.ctx);
    settle(&b.r);
    CHECK_STR(stories[0], "<C><O>");
    CHECK_STR(stories[1], "a<C><O>");
    close_bench(&b);
}

/* A peer that connects and disconnects meanwhile causes no events; its input is delivered. */
TEST(peers_that_come_and_go_while_opened_is_suspended)
{
    bench b;
    open_bench(&b, 1);
    happen(&b, CHR_EVENT_CLOSED);
    chr_mux_suspend_open(b.r.ctx);
    happen(&b, CHR_EVENT_OPENED);
    CHECK_STR(stories[0], "<C>");
    happen(&b, CHR_EVENT_CLOSED);
    chr_mux_resume_open(b.r.ctx);
    settle(&b.r);
    CHECK_STR(stories[0], "<C>");
    happen(&b, CHR_EVENT_OPENED);
    CHECK_STR(stories[0], "<C><O>");
    close_bench(&b);
}

/* OPENED is delivered to all frontends that have not got it, once; without a peer to none. */
TEST(opens_are_resumed_once)
{
    bench b;
    open_bench(&b, 1);
    chr_mux_suspend_open(b.r.ctx);
    come(&b, 1);
    b.count = 2;
    settle(&b.r);
    chr_mux_resume_open(b.r.ctx);
    settle(&b.r);
    CHECK_STR(stories[0], "<U>");
    CHECK_STR(stories[1], "<I><O>");
    chr_mux_suspend_open(b.r.ctx);
    chr_mux_resume_open(b.r.ctx);
    settle(&b.r);
    CHECK_STR(stories[0], "<U>");
    CHECK_STR(stories[1], "<I><O>");
    close_bench(&b);
}

/* ---- events behind input ----------------------------------------------------------------------------------------- */

/* Several peers come and go while one frontend has no room: it gets the input first, then one CLOSED and what holds
 * now. */
TEST(events_behind_queued_input_are_those_that_hold)
{
    static const struct { const char *events, *want; } table[] = {
        { "C", "a<C>" }, { "CO", "a<C><O>" }, { "COC", "a<C>" }, { "E", "a<E>" }, { "EC", "a<C>" }, { "ECO", "a<C><O>" }, { "COE", "a<C><O><E>" },
    };
    size_t      i;
    const char *at;
    for (i = 0; i < sizeof table / sizeof table[0]; i++) {
        bench b;
        open_bench(&b, 2);
        b.fe[1].room = 0;
        type(&b, "a");
        for (at = table[i].events; *at; at++) happen(&b, *at == 'C' ? CHR_EVENT_CLOSED : *at == 'O' ? CHR_EVENT_OPENED : CHR_EVENT_INPUT_END);
        CHECK_STR(stories[1], "");
        CHECK_INT(b.fe[0].length, 0);
        if (!CHECK_INT(strlen(stories[0]), 3 * strlen(table[i].events))) NOTE("%s: %s", table[i].events, stories[0]);
        CHECK_INT(chr_be_can_write(tap.dev), 0); /* the next peer's input would come before the end of the last one's */
        happen(&b, CHR_EVENT_BREAK); /* is no state: it is told at once */
        CHECK_STR(stories[1], "<B>");
        give_room(&b.fe[1], 1);
        settle(&b.r);
        if (!CHECK_STR(stories[1] + 3, table[i].want)) NOTE("for %s", table[i].events);
        close_bench(&b);
    }
}

/* A frontend that has lost the focus gets the event after its queued input; the others don't wait for it. */
TEST(events_behind_input_of_one_without_the_focus)
{
    bench b;
    open_bench(&b, 2);
    b.fe[1].room = 0;
    type(&b, "a\1cb");
    happen(&b, CHR_EVENT_CLOSED);
    happen(&b, CHR_EVENT_OPENED);
    CHECK_STR(stories[0], "<I>b<C><O>");
    CHECK_STR(stories[1], "<U>");
    type(&b, "c");
    CHECK_STR(stories[0], "<I>b<C><O>c");
    type(&b, "\1cd");
    CHECK_STR(stories[1], "<U><I>");
    give_room(&b.fe[1], 2);
    settle(&b.r);
    CHECK_STR(stories[1], "<U><I>a<C><O>d");
    close_bench(&b);
}

/* ---- the output's side ------------------------------------------------------------------------------------------- */

static void write_again(recorder *rec, int what)
{
    tell(rec, what);
    if (what != 'w') return;
    rec->user = (char *)rec->user - 1;
    CHECK_INT(chr_fe_write(&rec->fe, "x", 1), 1);
    if (rec->user) chr_fe_add_watch(&rec->fe, recorder_writable, rec);
}

/* Each pending watch is called once; one that is added again is called again. */
TEST(all_that_wait_to_write_are_told)
{
    bench b;
    open_bench(&b, 3);
    tap.budget = 0;
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "a", 1), CHR_ERR_WOULD_BLOCK);
    b.fe[1].then = write_again;
    b.fe[1].user = (char *)NULL + 3;
    chr_fe_add_watch(&b.fe[0].fe, recorder_writable, &b.fe[0]);
    chr_fe_add_watch(&b.fe[1].fe, recorder_writable, &b.fe[1]);
    settle(&b.r);
    CHECK_INT(b.fe[0].writable + b.fe[1].writable, 0);
    tap.budget = -1;
    chr_be_writable(tap.dev);
    settle(&b.r);
    CHECK_INT(b.fe[0].writable, 1);
    CHECK_INT(b.fe[1].writable, 3);
    CHECK_INT(b.fe[2].writable, 0);
    CHECK_OUT("xxx");
    close_bench(&b);
}

/* A write that blocks waits for the base's descriptor. */
TEST(write_all_waits_for_the_base)
{
    bench b;
    open_bench(&b, 1);
    tap.budget = 1;
    tap.grants = 1;
    CHECK_INT(chr_fe_write_all(&b.fe[0].fe, "abcd", 4, -1), 4);
    CHECK_OUT("abcd");
    CHECK_INT(tap.waits, 3);
    close_bench(&b);
}

/* Half-close: with one frontend, behind the stamp that is half out. */
TEST(half_close_from_the_only_frontend)
{
    bench b;
    open_bench(&b, 2);
    CHECK_INT(chr_fe_shutdown(&b.fe[0].fe), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(tap.shutdowns, 0);
    detach(&b.fe[1]);
    type(&b, "\1t");
    tap.budget = 4;
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "x", 1), CHR_ERR_WOULD_BLOCK);
    CHECK_INT(chr_fe_shutdown(&b.fe[0].fe), 0);
    settle(&b.r);
    CHECK_INT(tap.shutdowns, 0);
    tap.budget = -1;
    chr_be_writable(tap.dev);
    settle(&b.r);
    CHECK_OUT(STAMP);
    CHECK_INT(tap.shutdowns, 1);
    close_bench(&b);
}

/* ioctls are passed to the base; the description is the mux's own. */
TEST(ioctl_and_query_reach_the_base)
{
    chr_info info;
    int      value = 0;
    bench    b;
    open_bench(&b, 2);
    CHECK_INT(chr_fe_ioctl(&b.fe[0].fe, CHR_IOCTL_SERIAL_GET_TIOCM, &value), 5);
    CHECK_INT(value, 7);
    CHECK_INT(tap.commands, 1);
    CHECK_INT(tap.last_command, CHR_IOCTL_SERIAL_GET_TIOCM);
    chr_query(b.mux, &info);
    CHECK_STR(info.filename, "mux");
    CHECK_INT(info.comes_back, 1);
    close_bench(&b);
}

TEST(what_cannot_be_shared_again)
{
    chr_error err;
    bench     b;
    open_bench(&b, 0);
    CHECK_INT(refuse(&b.r, "mux,id=n,chardev=m", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "mux: chardev=m: a mux can't be shared once more");
    make(&b.r, "null,id=a");
    make(&b.r, "hub,id=h,chardevs.0=a");
    CHECK_INT(refuse(&b.r, "mux,id=n,chardev=h", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "mux: chardev=h: a hub can't be shared once more");
    CHECK_INT(refuse(&b.r, "mux,id=n,chardev=none", &err), CHR_ERR_NOT_FOUND);
    CHECK_STR(err.text, "mux: chardev=none: there is no chardev with that id");
    close_bench(&b);
}

/* ---- handlers that remove the mux -------------------------------------------------------------------------------- */

static int  removes_at; /* 'r', or an event */
static void remove_all(recorder *rec, int what)
{
    int i;
    tell(rec, what);
    if (what == 'e' ? rec->last_event != removes_at : what != removes_at) return;
    for (i = 0; i < here->count; i++) chr_fe_deinit(&here->fe[i].fe);
    CHECK_INT(chr_remove(here->r.ctx, "m", NULL), 0);
}

/* Whatever is under way then, nothing more is delivered, and nothing is left. */
TEST(the_mux_is_removed_by_a_handler)
{
    static const int at[] = { 'r', CHR_EVENT_BREAK, CHR_EVENT_CLOSED, CHR_EVENT_MUX_IN, CHR_EVENT_MUX_OUT, 'w' };
    size_t           i;
    int              queued;
    for (i = 0; i < sizeof at / sizeof at[0]; i++)
        for (queued = 0; queued < 2; queued++) {
            int   k, room;
            bench b;
            open_bench(&b, 2);
            removes_at = at[i];
            b.fe[0].then = b.fe[1].then = remove_all;
            b.fe[0].room = b.fe[1].room = queued ? 0 : UNLIMITED;
            if (at[i] == 'w') {
                chr_fe_add_watch(&b.fe[0].fe, recorder_writable, &b.fe[0]);
                chr_fe_add_watch(&b.fe[1].fe, recorder_writable, &b.fe[1]);
                settle(&b.r);
            }
            if ((room = at[i] == 'w' ? 0 : chr_be_can_write(tap.dev)) > 0) chr_be_write(tap.dev, "a\1bb\1cc\1hd", room < 11 ? (size_t)room : 11);
            if (chr_find(b.r.ctx, "m")) chr_be_event(tap.dev, CHR_EVENT_CLOSED);
            for (k = 0; k < 2; k++)
                if (b.fe[k].fe.dev) give_room(&b.fe[k], UNLIMITED);
            settle(&b.r);
            CHECK(chr_find(b.r.ctx, "m") == NULL);
            if (at[i] != CHR_EVENT_CLOSED && !queued) { /* all others come before the end of what is typed */
                CHECK(!strchr(stories[0], 'd') && !strchr(stories[1], 'd'));
                CHECK_OUT("");
            }
            close_bench(&b);
        }
}

static int ended_with_the_context;

static void ask_at_the_end(recorder *rec, int what)
{
    chr_info info;
    int      value = 0;
    tell(rec, what);
    if (what != 'e' || rec->last_event != CHR_EVENT_CLOSED || !rec->fe.dev) return;
    chr_query(rec->fe.dev, &info);
    CHECK_STR(info.filename, "mux");
    CHECK(chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_GET_TIOCM, &value) < 0 || value == 7);
    CHECK(chr_fe_shutdown(&rec->fe) < 0);
    ended_with_the_context++;
}

/* Who asks while the context goes gets answers, whichever of the two is closed first; input that is queued is lost. */
TEST(asked_while_the_context_goes)
{
    int base_first;
    for (base_first = 0; base_first < 2; base_first++) {
        int   i;
        bench b;
        if (base_first) open_mux_with_escape(&b, "");
        else open_bench(&b, 1);
        come(&b, 1);
        settle(&b.r);
        b.fe[0].then = b.fe[1].then = ask_at_the_end;
        b.fe[1].room = 0;
        type(&b, "abc");
        ended_with_the_context = 0;
        rig_close(&b.r);
        CHECK_STR(stories[0] + strlen(stories[0]) - 3, "<C>");
        CHECK_STR(stories[1] + strlen(stories[1]) - 3, "<C>");
        CHECK(ended_with_the_context > 0);
        for (i = 0; i < 2; i++) detach(&b.fe[i]);
    }
}

/* ---- traces ------------------------------------------------------------------------------------------------------ */

static char traces[20000];

static void note_trace(void *opaque, const chr_trace *event)
{
    size_t used = strlen(traces);
    char   line[400];
    (void)opaque;
    chr_trace_format(event, line, sizeof line);
    snprintf(traces + used, sizeof traces - used, "%s\n", strchr(line, ' ') + 1);
}

TEST(input_and_commands_are_traced)
{
    bench b;
    rig_traced = note_trace;
    open_bench(&b, 2);
    traces[0] = 0;
    type(&b, "a\1cb\1qd");
    CHECK_HAS(traces, "m data_in len=7 \"a\\x01cb\\x01qd\"\n");
    CHECK_HAS(traces, "m mux_command key=c\n");
    CHECK_HAS(traces, "m mux_command key=q\n");
    close_bench(&b);
    rig_traced = NULL;
}

/* ---- random: each byte comes once, in order, to the one that had the focus --------------------------------------- */

static unsigned chance_state;

static unsigned chance(unsigned below)
{
    chance_state = chance_state * 1664525u + 1013904223u;
    return (chance_state >> 8) % below;
}

static char   wanted[MOST][200000];
static size_t wanted_length[MOST];

/* The model: what becomes of the bytes that a peer has sent. */
typedef struct model {
    int focus, escaped, count;
} model;

static void model_byte(model *m, char c)
{
    if (m->escaped ? c == 1 : c != 1) wanted[m->focus][wanted_length[m->focus]++] = c;
    else if (m->escaped && c == 'c') m->focus = (m->focus + 1) % m->count;
    m->escaped = !m->escaped && c == 1;
}

static void random_room(bench *b)
{
    int who = (int)chance((unsigned)b->count);
    give_room(&b->fe[who], chance(4) ? (int)chance(40) : (int)chance(9000));
}

static void random_input(bench *b, model *m, int peer)
{
    static char text[9000];
    size_t      len = chance(3) ? chance(30) : chance(sizeof text), i, at;
    for (i = 0; i < len; i++) text[i] = (char)(chance(12) ? '0' + peer % 10 : chance(3) ? 1 : 'c');
    for (at = 0; at < len;) {
        size_t n = feed(text + at, len - at);
        for (i = 0; i < n; i++) model_byte(m, text[at + i]);
        at += n;
        if (n == 0) random_room(b);
        if (chance(2)) settle(&b->r);
    }
}

static void random_life(const void *arg)
{
    int   step, i, peer = 0;
    model m = { 0, 0, 0 };
    bench b;
    chance_state = (unsigned)(size_t)arg;
    memset(wanted_length, 0, sizeof wanted_length);
    m.count = 2 + (int)chance(4);
    open_bench(&b, m.count);
    m.focus = m.count - 1;
    for (step = 0; step < 40; step++) {
        switch (chance(5)) {
        case 0: random_room(&b); break;
        case 1: settle(&b.r); break;
        case 2:
            if (tap.dev->be_open && !tap.dev->input_ended && chance(2)) chr_be_event(tap.dev, CHR_EVENT_INPUT_END);
            else chr_be_event(tap.dev, tap.dev->be_open ? CHR_EVENT_CLOSED : CHR_EVENT_OPENED);
            m.escaped = 0;
            peer += tap.dev->be_open && !tap.dev->input_ended;
            break;
        default:
            if (tap.dev->be_open && !tap.dev->input_ended) random_input(&b, &m, peer);
        }
    }
    if (!tap.dev->be_open) chr_be_event(tap.dev, CHR_EVENT_OPENED);
    for (i = 0; i < m.count; i++) give_room(&b.fe[i], UNLIMITED);
    settle(&b.r);
    for (i = 0; i < m.count; i++) {
        CHECK_MEM(b.fe[i].input, b.fe[i].length, wanted[i], wanted_length[i]);
        CHECK_INT(b.fe[i].open, 1);
    }
    close_bench(&b);
}

TEST_FAMILY(random_lives)
{
    static char names[60][40];
    size_t      i;
    for (i = 0; i < 60; i++) {
        snprintf(names[i], sizeof names[i], "random_life_%zu", i);
        test_add_case(names[i], random_life, (const void *)i, 20);
    }
}
