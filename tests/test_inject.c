/*
 * The building blocks of tests and fuzzers: virtual clock, running until a time, chr_context_reset(), injected input.
 */
#include "chardev.h"
#include "rig.h"

/* ---- chr_loop_run_until ------------------------------------------------------------------------------------------ */

typedef struct ticker {
    chr_context *ctx;
    chr_timer    timer;
    chr_idle     idle;
    int64_t      at[16]; /* when it came */
    int          count, most;
} ticker;

static void rig_open_own_clock(rig *r)
{
    chr_config config = rig_config(r);
    config.virtual_clock = 1;
    rig_init(r);
    r->ctx = chr_context_new(&config);
    REQUIRE(r->ctx != NULL);
}

static void tick(void *opaque)
{
    ticker *t = (ticker *)opaque;
    REQUIRE(t->count < 16);
    t->at[t->count++] = chr_loop_now(t->ctx);
    if (t->count < t->most) chr_timer_start(t->ctx, &t->timer, 10, tick, t);
}

TEST(time_jumps_from_deadline_to_deadline)
{
    rig     r;
    ticker  t;
    int64_t begun = real_ms();
    memset(&t, 0, sizeof t);
    rig_open_own_clock(&r);
    t.ctx = r.ctx;
    t.most = 3;
    CHECK_INT(chr_loop_now(r.ctx), 0);
    chr_timer_start(r.ctx, &t.timer, 3600000, tick, &t);
    CHECK_INT(chr_loop_run_until(r.ctx, 3599999999999), 0);
    CHECK_INT(t.count, 0);
    CHECK_INT(chr_loop_now(r.ctx), 3599999999999);
    CHECK_INT(chr_loop_run_until(r.ctx, INT64_C(3600000000000)), 1); /* what is due at the end belongs to it */
    CHECK_INT(t.count, 1);
    CHECK_INT(chr_loop_run_until(r.ctx, INT64_C(3600000000000) + 25000000), 2);
    CHECK_INT(t.at[0], INT64_C(3600000000000));
    CHECK_INT(t.at[1], INT64_C(3600010000000));
    CHECK_INT(t.at[2], INT64_C(3600020000000));
    CHECK_INT(chr_loop_now(r.ctx), INT64_C(3600025000000));
    CHECK_INT(chr_loop_run_until(r.ctx, 0), 0); /* time does not go back */
    CHECK_INT(chr_loop_now(r.ctx), INT64_C(3600025000000));
    CHECK(real_ms() - begun < 50000 * test_time_scale());
    rig_close(&r);
}

static void idle_for_ever(void *opaque)
{
    ticker *t = (ticker *)opaque;
    t->count++;
    chr_idle_start(t->ctx, &t->idle, idle_for_ever, t);
}

static void stop_the_loop(void *opaque)
{
    chr_loop_stop(((ticker *)opaque)->ctx);
}

static void run_inside(void *opaque)
{
    ticker *t = (ticker *)opaque;
    t->count = chr_loop_run_until(t->ctx, INT64_MAX);
    t->most = chr_context_reset(t->ctx);
}

TEST(what_keeps_itself_ready_does_not_hold_time)
{
    rig    r;
    ticker t;
    memset(&t, 0, sizeof t);
    rig_open_own_clock(&r);
    t.ctx = r.ctx;
    chr_idle_start(r.ctx, &t.idle, idle_for_ever, &t);
    CHECK_INT(chr_loop_run_until(r.ctx, 5), 1000);
    CHECK_INT(chr_loop_now(r.ctx), 5);
    chr_idle_stop(&t.idle);
    chr_idle_start(r.ctx, &t.idle, run_inside, &t);
    CHECK_INT(chr_loop_run_until(r.ctx, 6), 1);
    CHECK_INT(t.count, CHR_ERR_IN_HANDLER);
    CHECK_INT(t.most, CHR_ERR_IN_HANDLER);
    chr_timer_start(r.ctx, &t.timer, 1, stop_the_loop, &t);
    CHECK_INT(chr_loop_run_until(r.ctx, 2000006), CHR_ERR_STOPPED);
    CHECK_INT(chr_loop_now(r.ctx), 1000006);
    CHECK(chr_loop_run_until(r.ctx, 2000006) >= 0);
    CHECK_INT(chr_loop_now(r.ctx), 2000006);
    rig_close(&r);
}

static void tick_without_delay(void *opaque)
{
    ticker *t = (ticker *)opaque;
    t->count++;
    chr_timer_start(t->ctx, &t->timer, 0, tick_without_delay, t);
}

/* Nor does a timer that starts itself anew without delay; others are at most a millisecond late. */
TEST(timer_without_delay_does_not_hold_time)
{
    rig    r;
    ticker t, other;
    memset(&t, 0, sizeof t);
    memset(&other, 0, sizeof other);
    rig_open_own_clock(&r);
    t.ctx = other.ctx = r.ctx;
    chr_timer_start(r.ctx, &t.timer, 0, tick_without_delay, &t);
    chr_timer_start(r.ctx, &other.timer, 5, tick, &other);
    CHECK(chr_loop_run_until(r.ctx, 9500000) >= 5000);
    CHECK_INT(chr_loop_now(r.ctx), 9500000);
    CHECK_INT(other.count, 1);
    CHECK(other.at[0] >= 5000000 && other.at[0] < 6000000);
    CHECK(t.count <= 20000);
    chr_timer_stop(&t.timer);
    rig_close(&r);
}

TEST(to_the_ends_of_time)
{
    rig    r;
    ticker t;
    memset(&t, 0, sizeof t);
    rig_open_own_clock(&r);
    t.ctx = r.ctx;
    chr_timer_start(r.ctx, &t.timer, 7, tick, &t);
    CHECK_INT(chr_loop_run_until(r.ctx, INT64_MIN), 0);
    CHECK_INT(chr_loop_now(r.ctx), 0);
    CHECK_INT(chr_loop_run_until(r.ctx, INT64_MAX - 1), 1);
    CHECK_INT(chr_loop_now(r.ctx), INT64_MAX - 1);
    CHECK_INT(t.at[0], 7000000);
    chr_timer_start(r.ctx, &t.timer, 1000, tick, &t); /* as late as there is */
    CHECK_INT(chr_loop_deadline(r.ctx), INT64_MAX);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    CHECK_INT(chr_loop_run_until(r.ctx, INT64_MAX), 1);
    CHECK_INT(chr_loop_now(r.ctx), INT64_MAX);
    CHECK_INT(chr_loop_run_until(r.ctx, INT64_MAX), 0);
    rig_close(&r);
    rig_open(&r);
    CHECK_INT(chr_loop_run_until(r.ctx, INT64_MIN), 0); /* has passed on the system's clock too */
    rig_close(&r);
}

TEST(other_clocks)
{
    rig    r;
    ticker t;
    int64_t begun;
    memset(&t, 0, sizeof t);
    rig_open_virtual(&r); /* the test's own: nobody else can move it */
    CHECK_INT(chr_loop_run_until(r.ctx, r.now + 1), CHR_ERR_NOT_SUPPORTED);
    rig_close(&r);
    rig_open(&r);
    t.ctx = r.ctx;
    chr_timer_start(r.ctx, &t.timer, 30, tick, &t);
    begun = chr_loop_now(r.ctx);
    CHECK(chr_loop_run_until(r.ctx, begun + 60000000) >= 1);
    CHECK_INT(t.count, 1);
    CHECK(t.at[0] - begun >= 30000000);
    CHECK(chr_loop_now(r.ctx) - begun >= 60000000);
    rig_close(&r);
}

TEST(the_virtual_clock_stamps_logs)
{
    rig          r;
    recorder     rec;
    chr_config   config;
    char         options[500];
    const char  *path = scratch("log");
    memset(&config, 0, sizeof config);
    config.virtual_clock = 1;
    rig_init(&r);
    r.ctx = chr_context_new(&config);
    REQUIRE(r.ctx != NULL);
    snprintf(options, sizeof options, "null,id=n,logfile=%s,logtimestamp=on", path);
    attach(&rec, make(&r, options));
    chr_loop_run_until(r.ctx, INT64_C(1500000000));
    CHECK_INT(chr_fe_write(&rec.fe, "x\n", 2), 2);
    CHECK_STR(read_file(path), "1970-01-01T00:00:01.500Z x\n");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* ---- chr_context_reset ------------------------------------------------------------------------------------------- */

static int kind_open(chr_dev *dev, chr_error *err)
{
    (void)dev, (void)err;
    return 0;
}

static int kind_write(chr_dev *dev, const void *buf, size_t len)
{
    (void)dev, (void)buf;
    return (int)len;
}

TEST(a_context_as_new)
{
    CHR_TABLE(chr_io, io,
        CHR_SET(write, kind_write));
    CHR_TABLE(chr_backend, kind,
        CHR_SET(name,         "mine")
        CHR_SET(help,         "")
        CHR_SET(options_size, sizeof(chr_common_options))
        CHR_SET(state_size,   sizeof(chr_dev))
        CHR_SET(open,         kind_open)
        CHR_SET(io,           &io));
    int       fds[2], i;
    long      live = 0, calls = 0;
    rig       r;
    recorder  rec;
    ticker    t;
    chr_watch watch;
    char      options[400];
    rig_open_own_clock(&r);
    memset(&watch, 0, sizeof watch);
    for (i = 0; i < 4; i++) {
        socket_pair(fds);
        memset(&t, 0, sizeof t);
        t.ctx = r.ctx;
        CHECK_INT(chr_loop_now(r.ctx), 0);
        CHECK_INT(chr_backend_register(r.ctx, &kind, NULL), 0);
        CHECK_INT(chr_fd_put(r.ctx, "name", dup(fds[0]), NULL), 0);
        make(&r, "mine,id=m");
        snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
        make(&r, options);
        attach(&rec, make(&r, "ringbuf,id=r,size=1K,mux=on"));
        CHECK_INT(chr_watch_start(r.ctx, &watch, fds[1], CHR_IN, NULL, NULL), 0);
        chr_timer_start(r.ctx, &t.timer, 5, tick, &t);
        chr_idle_start(r.ctx, &t.idle, tick, &t);
        chr_loop_stop(r.ctx);
        chr_mux_suspend_open(r.ctx);
        CHECK_INT(chr_context_reset(r.ctx), 0);
        CHECK_INT(t.count, 0);
        CHECK(chr_next(r.ctx, NULL) == NULL);
        CHECK(chr_backend_find(r.ctx, "mine") == NULL);
        CHECK_INT(chr_fd_close(r.ctx, "name", NULL), CHR_ERR_NOT_FOUND);
        CHECK(rec.fe.dev == NULL);
        CHECK_STR(hear(fds[1]), "(eof)");
        CHECK_INT(watch.slot, 0);
        CHECK_INT(chr_loop_run_until(r.ctx, INT64_C(1000000000)), 0);
        CHECK_INT(t.count, 0);
        detach(&rec);
        attach(&rec, make(&r, "ringbuf,id=r,size=1K,mux=on")); /* nothing is suspended any more */
        settle(&r);
        CHECK_STR(rec.events, "IO");
        CHECK_INT(chr_context_reset(r.ctx), 0);
        CHECK_STR(rec.events, "IOC");
        detach(&rec);
        close(fds[1]);
        if (i == 0) live = r.live; /* what the loop has, it keeps */
        CHECK_INT(r.live, live);
        if (i == 1) calls = r.calls;
        if (i == 2) calls = r.calls - calls;
    }
    CHECK(calls > 0);
    rig_close(&r);
}

/* Another loop that waits for this one asks for its descriptor anew. */
TEST(a_loop_in_a_loop_as_new)
{
    rig           r;
    ticker        t;
    struct pollfd p;
    int           i;
    rig_open(&r);
    for (i = 0; i < 3; i++) {
        memset(&t, 0, sizeof t);
        t.ctx = r.ctx;
        p.fd = chr_loop_fd(r.ctx);
        p.events = POLLIN;
        if (p.fd == CHR_ERR_NOT_SUPPORTED) SKIP("there is no such descriptor on this system");
        CHECK(p.fd > 2);
        chr_loop_step(r.ctx, 0);
        chr_timer_start(r.ctx, &t.timer, 20, tick, &t);
        chr_loop_step(r.ctx, 0);
        CHECK_INT(poll(&p, 1, 10000), 1);
        PUMP(&r, t.count == 1);
        CHECK_INT(chr_context_reset(r.ctx), 0);
    }
    rig_close(&r);
}

/* ---- chr_inject -------------------------------------------------------------------------------------------------- */

TEST(input_out_of_nowhere)
{
    static const char *const kinds[] = { "null,id=x", "ringbuf,id=x,size=16", "testdev,id=x", "msmouse,id=x", "udp,id=x,port=9,host=127.0.0.1", "fd,id=x,in=0" };
    size_t                   i;
    for (i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        rig      r;
        recorder rec;
        chr_dev *dev;
        chr_info info;
        int      pipe_ends[2];
        char     options[64];
        rig_open_own_clock(&r);
        REQUIRE(pipe(pipe_ends) == 0);
        if (!strncmp(kinds[i], "fd", 2)) snprintf(options, sizeof options, "fd,id=x,in=%d", pipe_ends[0]);
        else {
            snprintf(options, sizeof options, "%s", kinds[i]);
            close(pipe_ends[0]);
        }
        dev = make(&r, options);
        CHECK_INT(chr_inject(dev, "early", 5), CHR_ERR_WOULD_BLOCK); /* nobody reads */
        attach_with_room(&rec, dev, 0);
        rec.early_input_allowed = 1;
        settle(&r);
        CHECK_INT(chr_inject(dev, "none", 4), CHR_ERR_WOULD_BLOCK);
        CHECK_INT(rec.length, 0);
        give_room(&rec, 3);
        CHECK_INT(chr_inject(dev, "hello", 5), 3);
        CHECK_INPUT(&rec, "hel");
        CHECK_INT(chr_inject(dev, "lo", 2), CHR_ERR_WOULD_BLOCK);
        give_room(&rec, UNLIMITED);
        CHECK_INT(chr_inject(dev, "lo", 2), 2);
        CHECK_INT(chr_inject(dev, "", 0), 0);
        if (!CHECK_INPUT(&rec, "hello")) NOTE("on %s", options);
        chr_query(dev, &info);
        CHECK_INT(info.bytes_in, 5);
        detach(&rec);
        close(pipe_ends[1]);
        rig_close(&r);
    }
}

TEST(injected_with_bad_arguments)
{
    static const char *const kinds[] = { "null,id=x", "null,id=x,mux=on" };
    size_t                   i;
    for (i = 0; i < 2; i++) {
        rig      r;
        recorder rec;
        chr_dev *dev;
        rig_open_own_clock(&r);
        dev = make(&r, kinds[i]);
        attach(&rec, dev);
        rec.early_input_allowed = 1;
        CHECK_INT(chr_inject(NULL, "x", 1), CHR_ERR_INVALID);
        CHECK_INT(chr_inject(NULL, NULL, 0), CHR_ERR_INVALID);
        CHECK_INT(chr_inject(dev, NULL, 1), CHR_ERR_INVALID);
        CHECK_INT(chr_inject(dev, NULL, 0), 0);
        CHECK_INT(rec.length, 0);
        CHECK_INT(chr_inject(dev, "x", 1), 1);
        detach(&rec);
        rig_close(&r);
    }
}

TEST(injected_on_a_mux_it_meets_the_escape)
{
    rig      r;
    recorder a, b;
    chr_dev *dev;
    rig_open_own_clock(&r);
    dev = make(&r, "ringbuf,id=x,size=1K,mux=on");
    attach(&a, dev);
    attach(&b, dev); /* has the focus */
    settle(&r);
    CHECK_INT(chr_inject(dev, "one\1c", 5), 5);
    CHECK_INT(chr_inject(chr_find(r.ctx, "x-base"), "two\1b", 5), 5);
    CHECK_INPUT(&b, "one");
    CHECK_INPUT(&a, "two");
    CHECK_STR(a.events, "IOUIB");
    detach(&a);
    detach(&b);
    rig_close(&r);
}

TEST(injected_on_a_hub)
{
    rig      r;
    recorder rec;
    chr_dev *dev;
    rig_open_own_clock(&r);
    make(&r, "ringbuf,id=a,size=16");
    make(&r, "ringbuf,id=b,size=16");
    dev = make(&r, "hub,id=h,chardevs.0=a,chardevs.1=b");
    attach(&rec, dev);
    settle(&r);
    CHECK_INT(chr_inject(dev, "whole", 5), 5);
    CHECK_INT(chr_inject(chr_find(r.ctx, "b"), "part", 4), 4);
    CHECK_INPUT(&rec, "wholepart");
    detach(&rec);
    rig_close(&r);
}

static void answer_itself(recorder *rec, int what)
{
    if (what == 'r' && rec->length < 4) CHECK_INT(chr_inject(rec->fe.dev, "x", 1), 1);
}

static void remove_itself(recorder *rec, int what)
{
    if (what != 'r') return;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(((rig *)rec->user)->ctx, "x", NULL), 0);
}

TEST(inside_the_handler_that_gets_it)
{
    rig      r;
    recorder rec;
    chr_dev *dev;
    rig_open_own_clock(&r);
    dev = make(&r, "ringbuf,id=x,size=16");
    attach(&rec, dev);
    settle(&r);
    rec.then = answer_itself;
    CHECK_INT(chr_inject(dev, "x", 1), 1);
    CHECK_INPUT(&rec, "xxxx");
    rec.then = remove_itself;
    rec.user = &r;
    CHECK_INT(chr_inject(dev, "bye", 3), 3);
    CHECK_INPUT(&rec, "xxxxbye");
    CHECK(dev->removed); /* the memory is there until the loop has turned */
    settle(&r);
    detach(&rec);
    rig_close(&r);
}

static int ask_and_inject(void *opaque)
{
    recorder *rec = (recorder *)opaque;
    if (rec->room > 0 && rec->changes < 3) {
        rec->changes++;
        rec->changes += chr_inject(chr_find(((rig *)rec->user)->ctx, "x"), "INJECTED", 8) == CHR_ERR_WOULD_BLOCK ? 100 : 0;
    }
    return rec->room;
}

static void read_and_inject(void *opaque, const void *buf, size_t len)
{
    recorder *rec = (recorder *)opaque;
    recorder_read(opaque, buf, len);
    if (rec->length < 40) chr_inject(chr_find(((rig *)rec->user)->ctx, "x"), "more", 4);
}

/* What waits in the mux keeps its order, and no handler is called with nothing. */
TEST(injected_while_a_mux_asks_and_delivers)
{
    static const chr_handlers handlers = { ask_and_inject, read_and_inject, recorder_event, NULL };
    rig      r;
    recorder rec;
    chr_dev *dev;
    rig_open_own_clock(&r);
    dev = make(&r, "ringbuf,id=x,size=16,mux=on");
    attach_with_room(&rec, dev, 0);
    settle(&r);
    CHECK_INT(chr_inject(dev, "held", 4), 4);
    rec.user = &r;
    rec.changes = 0;
    rec.open = 0;
    chr_fe_set_handlers(&rec.fe, &handlers, &rec);
    give_room(&rec, UNLIMITED);
    settle(&r);
    CHECK(rec.length >= 4 && memcmp(rec.input, "held", 4) == 0);
    rec.changes = 0;
    forget_input(&rec);
    CHECK_INT(chr_inject(chr_find(r.ctx, "x-base"), "one\1\1two", 8), 8);
    CHECK(rec.length >= 6);
    detach(&rec);
    rig_close(&r);
}

/* No more than its buffer has room for. */
TEST(into_a_buffered_frontend)
{
    rig          r;
    chr_frontend fe;
    chr_dev     *dev;
    char         bytes[32];
    rig_open_own_clock(&r);
    memset(&fe, 0, sizeof fe);
    dev = make(&r, "null,id=x");
    CHECK_INT(chr_fe_init(&fe, dev, NULL), 0);
    CHECK_INT(chr_fe_set_buffers(&fe, 16, 16), 0);
    settle(&r);
    CHECK_INT(chr_inject(dev, "0123456789", 10), 10);
    CHECK_INT(chr_fe_readable(&fe), 10);
    CHECK_INT(chr_inject(dev, "abcdefghij", 10), 6);
    CHECK_INT(chr_inject(dev, "x", 1), CHR_ERR_WOULD_BLOCK);
    CHECK_INT(chr_fe_read(&fe, bytes, sizeof bytes), 16);
    CHECK_MEM(bytes, 16, "0123456789abcdef", 16);
    CHECK_INT(chr_inject(dev, "x", 1), 1);
    chr_fe_deinit(&fe);
    rig_close(&r);
}

/* Pending events are delivered before injected input; a program that plays a recording injects it again. */
TEST(injected_among_events_and_recordings)
{
    rig         r;
    recorder    rec;
    const char *path = scratch("tape");
    int         round;
    for (round = 0; round < 2; round++) {
        rig_open_own_clock(&r);
        CHECK_INT(round == 0 ? chr_record_start(r.ctx, path, NULL) : chr_replay_open(r.ctx, path, NULL), 0);
        attach(&rec, make(&r, "ringbuf,id=x,size=16"));
        settle(&r);
        CHECK_STR(rec.events, "O");
        chr_loop_run_until(r.ctx, 1000);
        CHECK_INT(chr_inject(rec.fe.dev, "once", 4), 4);
        chr_loop_run_until(r.ctx, 2000);
        CHECK_INPUT(&rec, "once");
        CHECK_STR(r.log, "");
        detach(&rec);
        rig_close(&r);
    }
    scratch_clean();
}
