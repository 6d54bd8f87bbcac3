/*
 * test_clock.c - time-outs on the system's clock, to the millisecond: only the test advances the clock here. Retries of
 * frontends without room, lingering connections, steps at an interval, time-outs.
 */
#include "chardev.h"
#include "fault.h"
#include "rig.h"

#include <pthread.h>
#include <sys/syscall.h>

static int64_t frozen;      /* the monotonic clock, in nanoseconds; 0 = as it is */
static int64_t each_look;   /* it advances by so much at each look */
static long    looks;

/* In place of the library's. */
int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (!frozen || clock != CLOCK_MONOTONIC) return (int)syscall(SYS_clock_gettime, clock, now);
    looks++;
    frozen += each_look;
    now->tv_sec = (time_t)(frozen / 1000000000);
    now->tv_nsec = (long)(frozen % 1000000000);
    return 0;
}

static void freeze(void)
{
    frozen = INT64_C(5000) * 1000000000;
}

static void pass(rig *r, int64_t ms)
{
    frozen += ms * 1000000;
    settle(r);
}

static char *optionsf(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *optionsf(const char *format, ...)
{
    static char text[600];
    va_list     args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return text;
}

/* ---- lingering connections --------------------------------------------------------------------------------------- */

static struct {
    int64_t begun, sent;    /* values of the events; -1 = none has come */
    int64_t other, ends;
} linger_trace;

static void note_linger(void *opaque, const chr_trace *event)
{
    (void)opaque;
    if (strcmp(event->name, "linger") == 0) {
        linger_trace.begun = event->value[0];
        linger_trace.other += event->value[1];
    }
    if (strcmp(event->name, "linger_end") == 0) {
        linger_trace.sent = event->value[0];
        linger_trace.other += event->value[1];
        linger_trace.ends++;
    }
}

static char block[400000];

/* A chardev with output that its peer does not take: *taken of it, and the rest is in obuf=. */
static void stall(rig *r, recorder *rec, int fds[2], const char *more, size_t *taken)
{
    chr_info info;
    int      n;
    memset(&linger_trace, 0, sizeof linger_trace);
    linger_trace.begun = linger_trace.sent = -1;
    rig_traced = note_linger;
    freeze();
    rig_open(r);
    socket_pair(fds);
    attach(rec, make(r, optionsf("socket,id=s,fd=%d%s", fds[0], more)));
    settle(r);
    for (*taken = 0; (n = chr_fe_write(&rec->fe, block, sizeof block)) > 0;) *taken += (size_t)n;
    chr_query(rec->fe.dev, &info);
    CHECK((size_t)info.bytes_queued > 0);
}

static size_t queued_of(const recorder *rec)
{
    chr_info info;
    chr_query(rec->fe.dev, &info);
    return (size_t)info.bytes_queued;
}

static void end_stall(rig *r, int far)
{
    if (far >= 0) close(far);
    settle(r);
    CHECK_INT(linger_trace.other, 0);
    rig_traced = NULL;
    rig_close(r);
}

static void check_lost(rig *r, size_t bytes)
{
    char text[80];
    snprintf(text, sizeof text, "the peer has not taken the last %zu bytes: they are lost", bytes);
    CHECK_HAS(r->log, text);
    CHECK_INT(r->logs, 1);
    CHECK_INT(linger_trace.ends, 1);
    CHECK_INT(linger_trace.sent, 0);
}

static size_t read_some(int fd, size_t most)
{
    size_t  total = 0;
    ssize_t n;
    size_t  left;
    while ((left = most - total) > 0 && (n = recv(fd, block, left < sizeof block ? left : sizeof block, MSG_DONTWAIT)) > 0)
        total += (size_t)n;
    return total;
}

/* Two seconds without progress, and not one millisecond less. */
TEST(lingers_for_two_seconds)
{
    int      fds[2];
    size_t   taken, left;
    recorder rec;
    rig      r;
    stall(&r, &rec, fds, ",obuf=50000", &taken);
    left = queued_of(&rec);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    settle(&r);
    CHECK_INT(linger_trace.begun, left);
    CHECK_INT(linger_trace.ends, 0);
    CHECK_INT(chr_drain(r.ctx, 0), CHR_ERR_TIMEOUT);
    pass(&r, 1900);
    pass(&r, 99);
    CHECK_INT(linger_trace.ends, 0);
    CHECK_INT(r.logs, 0);
    pass(&r, 1);
    check_lost(&r, left);
    CHECK_INT(chr_drain(r.ctx, 0), 0);
    CHECK_INT(read_some(fds[1], sizeof block), taken - left);
    end_stall(&r, fds[1]);
}

/* Progress begins them anew, as the next look finds it. */
TEST(lingers_on_while_there_is_progress)
{
    int      fds[2], i;
    size_t   taken, heard = 0;
    recorder rec;
    rig      r;
    stall(&r, &rec, fds, ",obuf=1000000", &taken);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    pass(&r, 1900);
    heard += read_some(fds[1], 1000000);
    settle(&r);
    pass(&r, 100);
    CHECK_INT(linger_trace.ends, 0);
    for (i = 0; i < 19; i++) pass(&r, 100);
    CHECK_INT(linger_trace.ends, 0);
    pass(&r, 100);
    CHECK_INT(linger_trace.ends, 1);
    heard += read_some(fds[1], sizeof block);
    check_lost(&r, taken - heard);
    end_stall(&r, fds[1]);
}

/* Progress counts from the first look on, a tenth of a second after the beginning. */
TEST(the_first_look_sees_progress)
{
    int      fds[2], i;
    size_t   taken;
    recorder rec;
    rig      r;
    stall(&r, &rec, fds, ",obuf=1000000", &taken);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    CHECK(read_some(fds[1], 1000000) > 0);
    settle(&r);
    for (i = 0; i < 20; i++) pass(&r, 100);
    CHECK_INT(linger_trace.ends, 0);
    pass(&r, 100);
    CHECK_INT(linger_trace.ends, 1);
    end_stall(&r, fds[1]);
}

/* Ten seconds in all, however much progress there is. */
TEST(lingers_for_ten_seconds_at_most)
{
    int      fds[2], i;
    size_t   taken, heard = 0;
    recorder rec;
    rig      r;
    stall(&r, &rec, fds, ",obuf=4000000", &taken);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    for (i = 0; i < 99; i++) {
        if (i % 10 == 0) heard += read_some(fds[1], 1000000);
        pass(&r, 100);
        if (!CHECK_INT(linger_trace.ends, 0)) break;
    }
    pass(&r, 100);
    heard += read_some(fds[1], sizeof block);
    check_lost(&r, taken - heard);
    end_stall(&r, fds[1]);
}

/* All output is sent, then FIN; the peer's input is discarded meanwhile, a limited amount in each step. */
TEST(lingers_until_all_is_sent)
{
    int      fds[2];
    size_t   taken, heard = 0, more;
    char     byte;
    recorder rec;
    rig      r;
    stall(&r, &rec, fds, ",obuf=300000", &taken);
    detach(&rec);
    CHECK(send(fds[1], block, 150000, MSG_DONTWAIT) >= 100000);
    memset(&fault_plan, 0, sizeof fault_plan);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    CHECK(fault_plan.counts[FAULT_recv] > 10 && fault_plan.counts[FAULT_recv] <= 32);
    while ((more = read_some(fds[1], 30000)) > 0) {
        heard += more;
        settle(&r);
    }
    CHECK_INT(heard, taken);
    CHECK_INT(recv(fds[1], &byte, 1, MSG_DONTWAIT), 0);
    settle(&r);
    CHECK_INT(r.logs, 0);
    close(fds[1]);
    settle(&r);
    CHECK_INT(linger_trace.ends, 1);
    CHECK_INT(linger_trace.sent, 1);
    CHECK_INT(chr_drain(r.ctx, 0), 0);
    end_stall(&r, -1);
}

/* The peer goes: what it has not taken is lost at once. */
TEST(lingers_no_longer_than_the_peer_is_there)
{
    int      fds[2];
    size_t   taken, left;
    recorder rec;
    rig      r;
    stall(&r, &rec, fds, ",obuf=50000", &taken);
    left = queued_of(&rec);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    close(fds[1]);
    settle(&r);
    check_lost(&r, left);
    end_stall(&r, -1);
}

/* One connection after the other: the chardev counts what each has lost. */
TEST(losses_of_each_connection_add_up)
{
    int      far, turn, n;
    size_t   lost = 0;
    recorder rec;
    chr_info info;
    rig      r;
    freeze();
    rig_open(&r);
    attach(&rec, make(&r, optionsf("socket,id=s,path=%s,server=on,wait=off,obuf=50000", scratch("s"))));
    for (turn = 0; turn < 3; turn++) {
        far = unix_connect(scratch("s"));
        settle(&r);
        CHECK(rec.open);
        while ((n = chr_fe_write(&rec.fe, block, sizeof block)) > 0) {}
        lost += queued_of(&rec);
        CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
        settle(&r);
        pass(&r, 1999);
        pass(&r, 1);
        pass(&r, 100);
        chr_query(rec.fe.dev, &info);
        CHECK_INT(info.bytes_dropped, lost);
        close(far);
        settle(&r);
    }
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* Over TCP bytes may have left for the peer's system: all that is acknowledged is not lost, and nothing is waited
 * for any more. */
TEST(lingers_over_tcp_until_the_peer_closes)
{
    int      port, listener = tcp_listen(&port), far;
    size_t   heard = 0, more;
    recorder rec;
    rig      r;
    memset(&linger_trace, 0, sizeof linger_trace);
    rig_traced = note_linger;
    rig_open(&r);
    attach(&rec, make(&r, optionsf("socket,id=s,host=127.0.0.1,port=%d", port)));
    far = accept(listener, NULL, NULL);
    PUMP(&r, rec.open);
    freeze();
    CHECK_INT(chr_fe_write(&rec.fe, block, 100000), 100000);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    settle(&r);
    CHECK_INT(linger_trace.ends, 0); /* a reset could destroy what the peer has not read */
    pass(&r, 1900);
    CHECK_INT(linger_trace.ends, 0);
    while (heard < 100000 && (more = read_some(far, 100000)) > 0) heard += more;
    CHECK_INT(heard, 100000);
    close(far);
    frozen = 0;
    PUMP(&r, linger_trace.ends == 1);
    CHECK_INT(linger_trace.sent, 1);
    CHECK_INT(r.logs, 0);
    rig_traced = NULL;
    close(listener);
    chr_context_free(r.ctx);
    CHECK_INT(r.live, 0);
}

/* The time to the next check of a connection: an eighth of the shortest time that matters, of 8 s at most. */
TEST(signs_of_life_are_looked_for_each_second)
{
    static const struct { const char *options; int ms; } cases[] = {
        { "idle-timeout=8", 1000 }, { "idle-timeout=7", 875 }, { "idle-timeout=9", 1000 }, { "idle-timeout=1", 125 }, { "idle-timeout=300", 1000 },
    };
    size_t   i;
    int      fds[2];
    recorder rec;
    rig      r;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        freeze();
        rig_open(&r);
        socket_pair(fds);
        attach(&rec, make(&r, optionsf("socket,id=s,fd=%d,%s", fds[0], cases[i].options)));
        settle(&r);
        CHECK_STR(rec.events, "O");
        CHECK_INT(chr_loop_timeout(r.ctx), cases[i].ms);
        pass(&r, cases[i].ms / 2);
        CHECK_INT(chr_loop_timeout(r.ctx), cases[i].ms - cases[i].ms / 2);
        pass(&r, cases[i].ms - cases[i].ms / 2);
        CHECK_INT(chr_loop_timeout(r.ctx), cases[i].ms);
        detach(&rec);
        close(fds[1]);
        rig_close(&r);
    }
}

/* The peer is gone when the time is over, and not a millisecond before. */
TEST(a_silent_peer_is_closed_after_the_time)
{
    int      fds[2], i, more;
    recorder rec;
    rig      r;
    for (more = 0; more < 2; more++) {
        freeze();
        rig_open(&r);
        socket_pair(fds);
        attach(&rec, make(&r, optionsf("socket,id=s,fd=%d,idle-timeout=8", fds[0])));
        settle(&r);
        if (more) {
            for (i = 0; i < 3; i++) pass(&r, 1000);
            say(fds[1], "x");
            settle(&r);
            pass(&r, 1000); /* this check sees it */
        }
        for (i = 0; i < 7; i++) pass(&r, 1000);
        pass(&r, 999);
        CHECK_STR(rec.events, "O");
        pass(&r, 1);
        CHECK_STR(rec.events, "OC");
        CHECK_STR(r.log, "chardev s: the peer has sent nothing for 8 seconds: it is closed\n");
        detach(&rec);
        close(fds[1]);
        rig_close(&r);
    }
}

/* The end of a context waits for nobody who has had everything: neither for an acknowledgement that has come, nor
 * for the peer to close. */
TEST(the_end_of_a_context_does_not_wait)
{
    int      port, listener = tcp_listen(&port), over_tcp, removed, far, fds[2];
    recorder rec;
    rig      r;
    for (over_tcp = 0; over_tcp < 2; over_tcp++)
        for (removed = 0; removed < 2; removed++) {
            rig_open(&r);
            if (over_tcp) {
                attach(&rec, make(&r, optionsf("socket,id=s,host=127.0.0.1,port=%d", port)));
                far = accept(listener, NULL, NULL);
            } else {
                socket_pair(fds);
                far = fds[1];
                attach(&rec, make(&r, optionsf("socket,id=s,fd=%d", fds[0])));
            }
            PUMP(&r, rec.open);
            CHECK_INT(chr_fe_write(&rec.fe, "all of it", 9), 9);
            CHECK_INT(drain(&r, far, 9), 9);
            detach(&rec);
            if (removed) CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
            settle(&r);
            memset(&fault_plan, 0, sizeof fault_plan);
            chr_context_free(r.ctx);
            if (!CHECK(fault_plan.counts[FAULT_poll] < 20))
                NOTE("tcp %d, removed %d: %ld", over_tcp, removed, fault_plan.counts[FAULT_poll]);
            CHECK_INT(r.live, 0);
            CHECK_INT(r.logs, 0);
            close(far);
        }
    close(listener);
}

/* ---- frontends without room -------------------------------------------------------------------------------------- */

static int asked, room;

static int count_can_read(void *opaque) { return (void)opaque, asked++, room; }
static void count_read(void *opaque, const void *buf, size_t len) { (void)opaque, (void)buf, (void)len; }

static int timeout_changes;

static void count_timeout_changes(void *opaque) { (void)opaque, timeout_changes++; }

static int     last_events;
static long    watch_changes;
static chr_watch *first_watch; /* the first that the hook is told of, and its descriptor */
static int        first_fd;

static void note_watch_change(void *opaque, chr_watch *watch, int fd, int events)
{
    (void)opaque;
    last_events = events;
    watch_changes++;
    if (!first_watch) first_watch = watch, first_fd = fd;
}

static void open_hooked(rig *r)
{
    chr_config config = rig_config(r);
    rig_init(r);
    config.watch_changed = note_watch_change;
    config.timeout_changed = count_timeout_changes;
    r->ctx = chr_context_new(&config);
    REQUIRE(r->ctx != NULL);
}

/* One turn of a foreign loop with poll(), without waiting. Returns what the dispatch does. */
static int turn_of(rig *r, int *timeout)
{
    static chr_poll polls[100];
    int             count = chr_loop_prepare(r->ctx, polls, 100, timeout);
    REQUIRE(count <= 100 && sizeof(chr_poll) == sizeof(struct pollfd));
    REQUIRE(poll((struct pollfd *)(void *)polls, (nfds_t)count, 0) >= 0);
    return chr_loop_dispatch(r->ctx, polls, count);
}

static const chr_handlers count_handlers = { count_can_read, count_read, NULL, NULL };

/* A loop with hooks asks each 100 ms, and not between; a nested one as well. */
static void ask_by_time(int nested)
{
    int          fds[2], i, timeout = -2;
    chr_frontend fe;
    rig          r;
    freeze();
    asked = room = 0;
    if (nested) rig_open(&r);
    else open_hooked(&r);
    socket_pair(fds);
    memset(&fe, 0, sizeof fe);
    CHECK_INT(chr_fe_init(&fe, make(&r, optionsf("socket,id=s,fd=%d", fds[0])), NULL), 0);
    chr_fe_set_handlers(&fe, &count_handlers, NULL);
    for (i = 0; i < 5; i++) nested ? chr_loop_step(r.ctx, 0) : turn_of(&r, &timeout);
    say(fds[1], "x");
    for (i = 0; i < 5; i++) nested ? chr_loop_step(r.ctx, 0) : turn_of(&r, &timeout);
    if (nested) CHECK(chr_loop_fd(r.ctx) > 2);
    CHECK(asked > 0);
    CHECK_INT(chr_loop_timeout(r.ctx), 100);
    if (!nested) {
        asked = 0;
        for (i = 0; i < 10; i++) turn_of(&r, &timeout);
        CHECK_INT(asked, 0);
        CHECK_INT(timeout, 100);
        frozen += 99000000;
        turn_of(&r, &timeout);
        CHECK_INT(asked, 0);
        CHECK_INT(timeout, 1);
        frozen += 1000000;
        turn_of(&r, &timeout);
        CHECK_INT(asked, 1);
        for (i = 0; i < 10; i++) turn_of(&r, &timeout);
        CHECK_INT(asked, 1);
        frozen += 100000000;
        room = 1;
        for (i = 0; i < 4; i++) turn_of(&r, &timeout);
    } else {
        frozen += 99000000;
        CHECK_INT(chr_loop_timeout(r.ctx), 1);
        frozen += 1000000;
        CHECK_INT(chr_loop_timeout(r.ctx), 0);
        room = 1;
        settle(&r);
    }
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    chr_fe_deinit(&fe);
    close(fds[1]);
    rig_close(&r);
}

TEST(asks_each_100_ms_with_hooks) { ask_by_time(0); }
TEST(asks_each_100_ms_when_nested) { ask_by_time(1); }

/* Buffered frontends without room: a share of them in each step, in turn, and all each 100 ms. */
TEST(buffered_ones_are_asked_in_turn)
{
    enum { HUNGRY = 40 };
    static chr_frontend fes[HUNGRY];
    static int          counts[HUNGRY];
    int                 fds[HUNGRY][2], i, step, before, total;
    rig                 r;
    freeze();
    rig_open(&r);
    asked = room = 0;
    for (i = 0; i < HUNGRY; i++) {
        socket_pair(fds[i]);
        REQUIRE(chr_fe_init(&fes[i], make(&r, optionsf("socket,id=s%d,fd=%d", i, fds[i][0])), NULL) == 0);
        REQUIRE(chr_fe_set_buffers(&fes[i], 64, 64) == 0);
        chr_fe_set_handlers(&fes[i], &count_handlers, &counts[i]);
        say(fds[i][1], "abc");
    }
    settle(&r);
    for (total = step = 0; step < 10; step++) {
        before = asked;
        chr_loop_step(r.ctx, 0);
        CHECK(asked - before >= 16 && asked - before <= HUNGRY);
        total += asked - before;
    }
    CHECK(total <= 10 * 20);
    before = asked;
    frozen += 100000000;
    chr_loop_step(r.ctx, 0);
    CHECK(asked - before >= HUNGRY);
    before = asked;
    chr_loop_step(r.ctx, 0);
    CHECK(asked - before <= 20);
    room = 10; /* nobody tells: three steps are enough for all */
    for (step = 0; step < 4; step++) chr_loop_step(r.ctx, 0);
    for (i = 0; i < HUNGRY; i++) CHECK_INT(chr_fe_readable(&fes[i]), 0);
    for (i = 0; i < HUNGRY; i++) chr_fe_deinit(&fes[i]), close(fds[i][1]);
    rig_close(&r);
}

/* ---- steps at an interval ---------------------------------------------------------------------------------------- */

static void step_ready(void *opaque, int events) { (void)events, ++*(int *)opaque; }

/* Calls that are so far apart. The clock is looked at some four times an interval, and a step comes once in each. */
static void step_at_pace(rig *r, int *steps, int64_t apart, int64_t ns, long most_looks)
{
    const int64_t total = 400 * ns;
    int64_t       began, at, last, late = 0;
    int           before;
    for (began = frozen; frozen - began < 20 * ns; frozen += apart) /* it finds the pace */
        chr_loop_step_every(r->ctx, ns);
    looks = 0;
    before = *steps;
    for (began = last = frozen; frozen - began < total; frozen += apart) {
        at = *steps;
        chr_loop_step_every(r->ctx, ns);
        if (*steps == at) continue;
        late = frozen - last > late ? frozen - last : late;
        CHECK(frozen == last || frozen - last >= ns || last == began);
        last = frozen;
    }
    if (!CHECK(*steps - before <= 401) || !CHECK(*steps - before >= (apart > ns ? 400 * ns / apart - 1 : 250)) ||
        !CHECK(looks <= most_looks) ||
        !CHECK(late <= ns + ns / 2 + apart))
        NOTE("apart %lld of %lld: %d steps, %ld looks, %lld late", (long long)apart, (long long)ns, *steps - before,
            looks, (long long)late);
}

TEST(steps_at_each_pace)
{
    static const struct {
        int64_t apart, ns;
        long    looks;
    } table[] = {
        { 100, 1000000, 400 * 10000 / 64 + 500 }, { 10000, 1000000, 400 * 8 }, { 50000, 1000000, 400 * 8 },
        { 200000, 1000000, 400 * 6 },
        { 600000, 1000000, 400 * 4 }, { 3000000, 1000000, 400 * 2 }, { 10000, 1000000, 400 * 8 },
        { 1000, 100000, 400 * 8 },
    };
    size_t    i;
    int       fds[2], steps = 0;
    chr_watch watch;
    rig       r;
    rig_open(&r);
    freeze();
    memset(&watch, 0, sizeof watch);
    REQUIRE(pipe(fds) == 0);
    CHECK_INT(chr_watch_start(r.ctx, &watch, fds[0], CHR_IN, step_ready, &steps), 0);
    say(fds[1], "x");
    for (i = 0; i < sizeof table / sizeof *table; i++)
        step_at_pace(&r, &steps, table[i].apart, table[i].ns, table[i].looks);
    steps = 0; /* a clock too coarse to tell: each call that looks is a step */
    for (i = 0; i < 1000; i++) chr_loop_step_every(r.ctx, 1000000);
    CHECK(steps >= 1000 / 64 - 1 && steps <= 1000);
    chr_watch_stop(&watch);
    close(fds[0]), close(fds[1]);
    frozen = 0;
    rig_close(&r);
}

/* How many calls there are from one look at the clock to the next. */
static int calls_between_looks(rig *r)
{
    long before = looks;
    int  calls = 0;
    do {
        chr_loop_step_every(r->ctx, 1000000);
        calls++;
    } while (looks == before && calls < 1000);
    return calls;
}

/* At each look the clock has advanced by so much that any number of calls is come to; then it stands still. */
TEST(one_look_in_64_calls_at_least)
{
    int64_t passed;
    int     i, most = 0;
    rig     r;
    rig_open(&r);
    freeze();
    for (passed = 251000; passed < 600000; passed += 1000) {
        for (i = 0; i < 10; i++) calls_between_looks(&r);
        frozen += passed;
        for (i = 0; i < 10; i++) {
            int calls = calls_between_looks(&r);
            most = calls > most ? calls : most;
        }
    }
    CHECK_INT(most, 64);
    frozen = 0;
    rig_close(&r);
}

/* However quick its calls become, at most 64 of them pass without a look at the clock. */
TEST(steps_at_a_pace_that_becomes_quick)
{
    int64_t apart, ns = 1000000;
    int     i, blind, most;
    long    before;
    rig     r;
    rig_open(&r);
    freeze();
    for (apart = 3000; apart < 12000; apart += 250) {
        for (i = 0; i < 2000; i++, frozen += apart) chr_loop_step_every(r.ctx, ns);
        for (most = blind = i = 0; i < 1000; i++, frozen++) {
            before = looks;
            chr_loop_step_every(r.ctx, ns);
            blind = looks == before ? blind + 1 : 0;
            most = blind > most ? blind : most;
        }
        if (!CHECK(most < 64)) NOTE("%d calls after a pace of %lld", most, (long long)apart);
    }
    frozen = 0;
    rig_close(&r);
}

/* ---- time-outs --------------------------------------------------------------------------------------------------- */

static void *say_later(void *opaque)
{
    usleep(30000);
    say(*(int *)opaque, "late");
    return NULL;
}

/* A call without a time limit sleeps until there is something. */
TEST(no_limit_is_one_sleep)
{
    int       fds[2];
    char      got[4];
    pthread_t thread;
    recorder  rec;
    rig       r;
    rig_open(&r);
    socket_pair(fds);
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d", fds[0])));
    settle(&r);
    memset(&fault_plan, 0, sizeof fault_plan);
    REQUIRE(pthread_create(&thread, NULL, say_later, &fds[1]) == 0);
    CHECK_INT(chr_fe_read_all(&rec.fe, got, 4, -1), 4);
    pthread_join(thread, NULL);
    CHECK_MEM(got, 4, "late", 4);
    CHECK(fault_plan.counts[FAULT_poll] <= 4);
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}

/* ---- a foreign loop and its hooks -------------------------------------------------------------------------------- */

static void count_run(void *opaque) { ++*(int *)opaque; }

/* timeout_changed is called once when the next deadline becomes earlier. */
TEST(hooks_hear_of_gathered_output)
{
    int      fds[2], timeout, before;
    recorder rec, other;
    rig      r;
    freeze();
    open_hooked(&r);
    socket_pair(fds);
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d", fds[0])));
    attach(&other, make(&r, "ringbuf,id=b"));
    REQUIRE(chr_fe_set_buffers(&rec.fe, 0, 100) == 0);
    REQUIRE(chr_fe_set_buffers(&other.fe, 0, 100) == 0);
    turn_of(&r, &timeout);
    turn_of(&r, &timeout);
    before = timeout_changes;
    CHECK_INT(chr_fe_write(&rec.fe, "one", 3), 3);
    CHECK_INT(timeout_changes, before + 1);
    CHECK_INT(chr_loop_timeout(r.ctx), 0);
    CHECK_INT(chr_fe_write(&rec.fe, "two", 3), 3);
    CHECK_INT(chr_fe_write(&other.fe, "xyz", 3), 3);
    CHECK_INT(timeout_changes, before + 1);
    turn_of(&r, &timeout);
    CHECK_STR(hear(fds[1]), "onetwo");
    CHECK_INT(chr_fe_write(&other.fe, "xyz", 3), 3);
    CHECK(timeout_changes > before + 1);
    detach(&rec);
    detach(&other);
    close(fds[1]);
    rig_close(&r);
}

/* Each change of a watch, the last one at its end included. */
TEST(hooks_hear_of_each_watch)
{
    int       fds[2], count = 0, events;
    chr_watch watch;
    long      before;
    rig       r;
    open_hooked(&r);
    memset(&watch, 0, sizeof watch);
    socket_pair(fds);
    for (events = 1; events < 32; events = events == 1 ? 4 : events == 4 ? 5 : events == 5 ? 16 : 32) {
        if (events & ~(CHR_IN | CHR_OUT | CHR_HUP)) break;
        before = watch_changes;
        CHECK_INT(chr_watch_start(r.ctx, &watch, fds[0], events, step_ready, &count), 0);
        CHECK_INT(watch_changes, before + 1);
        CHECK_INT(last_events, events);
        chr_watch_set(&watch, events); /* no change */
        CHECK_INT(watch_changes, before + 1);
        chr_watch_set(&watch, events ^ CHR_IN);
        CHECK_INT(last_events, events ^ CHR_IN);
        chr_watch_stop(&watch);
        CHECK_INT(last_events, 0);
        before = watch_changes;
        chr_watch_stop(&watch);
        chr_watch_set(&watch, CHR_IN);
        CHECK_INT(watch_changes, before);
    }
    close(fds[0]), close(fds[1]);
    rig_close(&r);
}

static int watch_stops;

/* A stopped watch is the caller's memory again, whatever it holds: here what it held before. */
static void stop_and_keep(void *opaque, int events)
{
    chr_watch *watch = (chr_watch *)opaque, before = *watch;
    (void)events;
    watch_stops++;
    chr_watch_stop(watch);
    *watch = before;
}

TEST(a_watch_that_stops_itself_is_not_looked_at)
{
    int       fds[2], timeout;
    chr_watch watch;
    rig       r;
    open_hooked(&r);
    memset(&watch, 0, sizeof watch);
    socket_pair(fds);
    say(fds[1], "x");
    CHECK_INT(chr_watch_start(r.ctx, &watch, fds[0], CHR_IN, stop_and_keep, &watch), 0);
    watch_stops = 0;
    chr_watch_ready(&watch, CHR_IN);
    CHECK_INT(watch_stops, 1);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    turn_of(&r, &timeout);
    CHECK_INT(watch_stops, 1);
    close(fds[0]), close(fds[1]);
    rig_close(&r);
}

/* Setting the same events again neither wakes the loop nor calls a hook. */
TEST(a_change_to_the_same_is_none)
{
    int       fds[2], count = 0;
    chr_watch watch;
    rig       r;
    rig_open(&r);
    memset(&watch, 0, sizeof watch);
    socket_pair(fds);
    CHECK_INT(chr_watch_start(r.ctx, &watch, fds[0], CHR_IN, step_ready, &count), 0);
    settle(&r);
    memset(&fault_plan, 0, sizeof fault_plan);
    chr_watch_set(&watch, CHR_IN);
    chr_watch_stop(&watch);
    CHECK_INT(fault_plan.counts[FAULT_write], 0);
    close(fds[0]), close(fds[1]);
    rig_close(&r);
}

static chr_idle  posted_idle;
static chr_timer posted_timer;
static int       posted_runs;

static void *post_idle(void *opaque)
{
    chr_idle_start((chr_context *)opaque, &posted_idle, count_run, &posted_runs);
    return NULL;
}

static void *post_timer(void *opaque)
{
    chr_timer_start((chr_context *)opaque, &posted_timer, 0, count_run, &posted_runs);
    return NULL;
}

/* Another thread wakes a foreign loop each time, through the descriptor that it polls; the hook is not called there. */
TEST(a_foreign_loop_is_woken_by_threads)
{
    static chr_poll polls[10];
    int             i, timeout, count, before;
    pthread_t       thread;
    rig             r;
    open_hooked(&r);
    for (i = 0; i < 6; i++) {
        count = chr_loop_prepare(r.ctx, polls, 10, &timeout);
        CHECK_INT(count, 1);
        CHECK_INT(timeout, -1);
        CHECK_INT(poll((struct pollfd *)(void *)polls, (nfds_t)count, 0), 0);
        before = timeout_changes;
        REQUIRE(pthread_create(&thread, NULL, i % 2 ? post_idle : post_timer, r.ctx) == 0);
        pthread_join(thread, NULL);
        CHECK_INT(timeout_changes, before);
        CHECK_INT(poll((struct pollfd *)(void *)polls, (nfds_t)count, 0), 1);
        CHECK(chr_loop_dispatch(r.ctx, polls, count) >= 2); /* the waker and what was posted */
        CHECK_INT(posted_runs, i + 1);
    }
    rig_close(&r);
}

/* A loop that only follows the hooks, without a prepare: the first watch it is told of is the one that wakes it. */
TEST(a_loop_of_hooks_is_woken_by_threads)
{
    int           i, before;
    struct pollfd waker = { -1, POLLIN, 0 };
    pthread_t     thread;
    rig           r;
    first_watch = NULL;
    open_hooked(&r);
    REQUIRE(first_watch != NULL);
    waker.fd = first_fd;
    posted_runs = 0;
    for (i = 0; i < 6; i++) {
        CHECK_INT(poll(&waker, 1, 0), 0);
        before = timeout_changes;
        REQUIRE(pthread_create(&thread, NULL, i % 2 ? post_idle : post_timer, r.ctx) == 0);
        pthread_join(thread, NULL);
        CHECK_INT(timeout_changes, before);
        CHECK_INT(poll(&waker, 1, 0), 1);
        chr_watch_ready(first_watch, CHR_IN);
        CHECK_INT(poll(&waker, 1, 0), 0);
        CHECK_INT(chr_loop_timeout(r.ctx), 0);
        CHECK(chr_loop_dispatch(r.ctx, NULL, 0) >= 1);
        CHECK_INT(posted_runs, i + 1);
    }
    rig_close(&r);
}

/* What a dispatch returns: the callbacks of all kinds. */
TEST(a_dispatch_counts_its_callbacks)
{
    int       fds[2], timeout, counts[3] = { 0, 0, 0 };
    chr_watch watch;
    chr_timer timer;
    chr_idle  idle;
    rig       r;
    memset(&watch, 0, sizeof watch);
    memset(&timer, 0, sizeof timer);
    memset(&idle, 0, sizeof idle);
    rig_open_virtual(&r);
    socket_pair(fds);
    say(fds[1], "x");
    CHECK_INT(chr_watch_start(r.ctx, &watch, fds[0], CHR_IN, step_ready, &counts[0]), 0);
    chr_timer_start(r.ctx, &timer, 0, count_run, &counts[1]);
    chr_idle_start(r.ctx, &idle, count_run, &counts[2]);
    CHECK_INT(turn_of(&r, &timeout), 3);
    CHECK_INT(turn_of(&r, &timeout), 1);
    chr_idle_start(r.ctx, &idle, count_run, &counts[2]);
    CHECK_INT(turn_of(&r, &timeout), 2);
    chr_watch_stop(&watch);
    CHECK_INT(turn_of(&r, &timeout), 0);
    CHECK(counts[0] == 3 && counts[1] == 1 && counts[2] == 2);
    close(fds[0]), close(fds[1]);
    rig_close(&r);
}

/* The events of an entry are those of all its watches. */
TEST(an_entry_has_the_events_of_its_watches)
{
    static const int  sets[][2] = { { CHR_IN, 0 }, { CHR_OUT, 0 }, { CHR_HUP, 0 }, { CHR_IN | CHR_OUT, 0 },
                                    { CHR_IN, CHR_OUT }, { CHR_OUT, CHR_HUP },
                                    { CHR_IN | CHR_HUP, CHR_OUT }, { 0, CHR_IN }, { 0, 0 } };
    size_t            i;
    int               fds[2], timeout, count = 0, want, at, found;
    chr_watch         watches[2];
    chr_poll          polls[10];
    rig               r;
    rig_open(&r);
    socket_pair(fds);
    memset(watches, 0, sizeof watches);
    for (i = 0; i < sizeof sets / sizeof *sets; i++) {
        CHECK_INT(chr_watch_start(r.ctx, &watches[0], fds[0], sets[i][0], step_ready, &count), 0);
        CHECK_INT(chr_watch_start(r.ctx, &watches[1], fds[0], sets[i][1], step_ready, &count), 0);
        want = sets[i][0] | sets[i][1];
        found = chr_loop_prepare(r.ctx, polls, 10, &timeout);
        CHECK_INT(found, want ? 2 : 1); /* the waker is the other */
        for (at = 0; at < found; at++)
            if (polls[at].fd == fds[0] && !CHECK_INT(polls[at].events & (CHR_IN | CHR_OUT | CHR_HUP), want))
                NOTE("row %zu", i);
        chr_loop_dispatch(r.ctx, NULL, 0);
    }
    chr_watch_stop(&watches[0]);
    chr_watch_stop(&watches[1]);
    close(fds[0]), close(fds[1]);
    rig_close(&r);
}

/* ---- timers, in any order ---------------------------------------------------------------------------------------- */

enum { TIMERS = 40 };

static struct random_timer {
    chr_timer timer;
    int64_t   due; /* 0 = not started */
    int       fired;
} timers[TIMERS];

static rig *timers_rig;

static void timer_fired(void *opaque)
{
    struct random_timer *t = (struct random_timer *)opaque;
    if (!CHECK(t->due && t->due <= timers_rig->now)) NOTE("due at %lld", (long long)t->due);
    t->fired++;
    t->due = 0;
}

/* Started, stopped and started anew: each runs once when it is due, in order, and memory of one that is stopped is
 * not touched. */
TEST(timers_in_any_order)
{
    unsigned random = 1;
    int      op, i, earliest_known;
    int64_t  earliest;
    rig      r;
    rig_open_virtual(&r);
    timers_rig = &r;
    for (op = 0; op < 20000; op++) {
        random = random * 1103515245u + 12345u;
        i = (int)(random >> 16) % TIMERS;
        if ((random >> 8) % 4 == 0) {
            chr_timer_stop(&timers[i].timer);
            memset(&timers[i], (int)(random & 0xff), sizeof timers[i]);
            memset(&timers[i], 0, sizeof timers[i]);
        } else if ((random >> 8) % 4 < 3) {
            int ms = (int)(random >> 20) % 60;
            chr_timer_start(r.ctx, &timers[i].timer, ms, timer_fired, &timers[i]);
            timers[i].due = r.now + ms * INT64_C(1000000);
        } else {
            pass_time(&r, (random >> 24) % 9);
            for (i = 0; i < TIMERS; i++) CHECK(!timers[i].due || timers[i].due > r.now);
        }
        for (earliest = INT64_MAX, earliest_known = i = 0; i < TIMERS; i++)
            if (timers[i].due && timers[i].due < earliest) earliest = timers[i].due, earliest_known = 1;
        CHECK_INT(chr_loop_deadline(r.ctx), earliest_known ? earliest : INT64_MAX);
        if (test_failures > 5) break;
    }
    for (i = 0; i < TIMERS; i++) chr_timer_stop(&timers[i].timer);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    rig_close(&r);
}
