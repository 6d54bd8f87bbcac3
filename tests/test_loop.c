/* The loop: watches, timers, idle callbacks, wake-ups, and running it inside another loop. */
#include "chardev.h"
#include "rig.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/resource.h>

/* One watch, timer or idle callback that counts, and may do something more. */
typedef struct thing {
    rig       *r;
    chr_watch  watch;
    chr_timer  timer;
    chr_idle   idle;
    int        count, events, order;
    void     (*then)(struct thing *);
    struct thing *other;
} thing;

static int turn; /* counts callbacks, to see in which order they came */

static void came(thing *t)
{
    t->count++;
    t->order = ++turn;
    if (t->then) t->then(t);
}

static void ready(void *opaque, int events)
{
    thing *t = (thing *)opaque;
    t->events = events;
    came(t);
}

static void fired(void *opaque)
{
    came((thing *)opaque);
}

static void thing_init(thing *t, rig *r)
{
    memset(t, 0, sizeof *t);
    t->r = r;
}

static void start_watch(thing *t, int fd, int events)
{
    CHECK_INT(chr_watch_start(t->r->ctx, &t->watch, fd, events, ready, t), 0);
}

static void start_timer(thing *t, int64_t ms)
{
    chr_timer_start(t->r->ctx, &t->timer, ms, fired, t);
}

static void start_idle(thing *t)
{
    chr_idle_start(t->r->ctx, &t->idle, fired, t);
}

/* ---- watches ----------------------------------------------------------------------------------------------------- */

TEST(step_with_nothing_to_do)
{
    rig r;
    rig_open(&r);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    CHECK_INT(chr_loop_step(r.ctx, 1), 0);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    rig_close(&r);
}

TEST(step_waits_no_longer_than_told)
{
    int64_t start;
    rig     r;
    rig_open(&r);
    start = real_ms();
    CHECK_INT(chr_loop_step(r.ctx, 50), 0);
    CHECK(real_ms() - start >= 45);
    CHECK(real_ms() - start < RIG_PATIENCE_MS);
    rig_close(&r);
}

TEST(watch_for_input)
{
    int   fds[2];
    thing t;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    REQUIRE(pipe(fds) == 0);
    start_watch(&t, fds[0], CHR_IN);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    CHECK_INT(t.count, 0);
    say(fds[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK_INT(t.count, 1);
    CHECK_INT(t.events, CHR_IN);
    CHECK_INT(chr_loop_step(r.ctx, 0), 1); /* it is a level, not an edge */
    CHECK_INT(t.count, 2);
    hear(fds[0]);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    chr_watch_stop(&t.watch);
    say(fds[1], "y");
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    CHECK_INT(t.count, 2);
    close(fds[0]);
    close(fds[1]);
    rig_close(&r);
}

TEST(watch_for_output)
{
    int   fds[2];
    thing t;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    socket_pair(fds);
    start_watch(&t, fds[0], CHR_OUT);
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK_INT(t.events, CHR_OUT);
    chr_watch_set(&t.watch, CHR_IN | CHR_OUT);
    say(fds[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK_INT(t.events, CHR_IN | CHR_OUT);
    close(fds[1]);
    chr_watch_stop(&t.watch);
    close(fds[0]);
    rig_close(&r);
}

TEST(watch_for_hang_up_alone)
{
    int   fds[2];
    thing t;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    socket_pair(fds);
    start_watch(&t, fds[0], CHR_HUP);
    say(fds[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
#ifdef _WIN32 /* Wine notices the end only behind what is unread; Windows itself need not be asked so */
    CHECK_STR(hear(fds[0]), "x");
#endif
    close(fds[1]);
    CHECK_INT(chr_loop_step(r.ctx, 1000), 1);
    CHECK(t.events & CHR_HUP);
    chr_watch_stop(&t.watch);
    close(fds[0]);
    rig_close(&r);
}

/* A watch without events does not even report hang-ups, and so can't cause a busy loop. */
TEST(watch_for_nothing)
{
    int   fds[2];
    thing t;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    socket_pair(fds);
    start_watch(&t, fds[0], 0);
    say(fds[1], "x");
    close(fds[1]);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    CHECK_INT(chr_loop_step(r.ctx, 20), 0);
    CHECK_INT(t.count, 0);
    chr_watch_set(&t.watch, CHR_IN);
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    chr_watch_stop(&t.watch);
    close(fds[0]);
    rig_close(&r);
}

TEST(starting_a_started_watch_moves_it)
{
    int   a[2], b[2];
    thing t;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    REQUIRE(pipe(a) == 0 && pipe(b) == 0);
    start_watch(&t, a[0], CHR_IN);
    start_watch(&t, b[0], CHR_IN);
    say(a[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    say(b[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    chr_watch_stop(&t.watch);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    close(a[0]), close(a[1]), close(b[0]), close(b[1]);
    rig_close(&r);
}

TEST(stopping_what_is_not_started)
{
    thing t;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    chr_watch_stop(&t.watch);
    chr_timer_stop(&t.timer);
    chr_idle_stop(&t.idle);
    start_timer(&t, 1);
    chr_timer_stop(&t.timer);
    chr_timer_stop(&t.timer);
    start_idle(&t);
    chr_idle_stop(&t.idle);
    chr_idle_stop(&t.idle);
    CHECK_INT(chr_loop_step(r.ctx, 5), 0);
    rig_close(&r);
}

static void stop_other_watch(thing *t)
{
    chr_watch_stop(&t->other->watch);
}

/* Two are ready; whichever comes first stops the other, whose callback then must not come any more. */
TEST(watch_stopped_while_ready_stays_silent)
{
    int   a[2], b[2];
    thing first, second;
    rig   r;
    rig_open(&r);
    thing_init(&first, &r);
    thing_init(&second, &r);
    first.then = second.then = stop_other_watch;
    first.other = &second;
    second.other = &first;
    REQUIRE(pipe(a) == 0 && pipe(b) == 0);
    start_watch(&first, a[0], CHR_IN);
    start_watch(&second, b[0], CHR_IN);
    say(a[1], "x");
    say(b[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK_INT(first.count + second.count, 1);
    chr_watch_stop(&first.watch);
    chr_watch_stop(&second.watch);
    close(a[0]), close(a[1]), close(b[0]), close(b[1]);
    rig_close(&r);
}

static void stop_itself(thing *t)
{
    chr_watch_stop(&t->watch);
    memset(&t->watch, 0xee, sizeof t->watch); /* its memory may go at once */
}

TEST(watch_stops_itself)
{
    int   fds[2];
    thing t;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    t.then = stop_itself;
    REQUIRE(pipe(fds) == 0);
    start_watch(&t, fds[0], CHR_IN);
    say(fds[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    close(fds[0]), close(fds[1]);
    rig_close(&r);
}

static void start_other_watch(thing *t)
{
    start_watch(t->other, t->other->events, CHR_IN); /* the descriptor is kept in `events` */
    chr_watch_stop(&t->watch);
}

/* Started in a handler: it gets only what is found ready after that. */
TEST(watch_started_in_a_handler)
{
    int   a[2], b[2];
    thing first, second;
    rig   r;
    rig_open(&r);
    thing_init(&first, &r);
    thing_init(&second, &r);
    REQUIRE(pipe(a) == 0 && pipe(b) == 0);
    first.then = start_other_watch;
    first.other = &second;
    second.events = b[0];
    start_watch(&first, a[0], CHR_IN);
    say(a[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK_INT(second.count, 0);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    say(b[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK_INT(second.count, 1);
    chr_watch_stop(&second.watch);
    close(a[0]), close(a[1]), close(b[0]), close(b[1]);
    rig_close(&r);
}

static int many[300][2];

/* A slot that is freed and taken again in one round must not get the old one's readiness. */
TEST(watches_restarted_among_many)
{
    static thing things[300];
    int          i, sum = 0;
    rig          r;
    rig_open(&r);
    for (i = 0; i < 300; i++) {
        thing_init(&things[i], &r);
        REQUIRE(pipe(many[i]) == 0);
        start_watch(&things[i], many[i][0], CHR_IN);
    }
    for (i = 0; i < 300; i += 3) chr_watch_stop(&things[i].watch);
    for (i = 0; i < 300; i += 6) start_watch(&things[i], many[i][0], CHR_IN);
    for (i = 0; i < 300; i++) say(many[i][1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 0), 250);
    for (i = 0; i < 300; i++) {
        int stopped = i % 3 == 0 && i % 6 != 0;
        CHECK_INT(things[i].count, !stopped);
        sum += things[i].count;
        chr_watch_stop(&things[i].watch);
        close(many[i][0]), close(many[i][1]);
    }
    CHECK_INT(sum, 250);
    rig_close(&r);
}

static void shuffle(thing *t)
{
    hear(t->watch.fd);
    chr_watch_stop(&t->other->watch);
    start_watch(t->other, t->other->watch.fd, CHR_IN);
}

/* Each callback stops and starts its neighbour; none may be called twice, and none may be lost. */
TEST(handlers_restart_their_neighbours)
{
    static thing things[50];
    int          i, round;
    rig          r;
    rig_open(&r);
    for (i = 0; i < 50; i++) {
        thing_init(&things[i], &r);
        things[i].then = shuffle;
        things[i].other = &things[(i + 1) % 50];
        REQUIRE(pipe(many[i]) == 0);
        start_watch(&things[i], many[i][0], CHR_IN);
    }
    for (i = 0; i < 50; i++) say(many[i][1], "x");
    for (round = 0; round < 60; round++) chr_loop_step(r.ctx, 0);
    for (i = 0; i < 50; i++) {
        CHECK_INT(things[i].count, 1);
        chr_watch_stop(&things[i].watch);
        close(many[i][0]), close(many[i][1]);
    }
    rig_close(&r);
}

TEST(no_allocation_per_step)
{
    int   fds[2], i;
    long  calls;
    thing t;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    REQUIRE(pipe(fds) == 0);
    start_watch(&t, fds[0], CHR_IN);
    say(fds[1], "x");
    chr_loop_step(r.ctx, 0);
    calls = r.calls;
    for (i = 0; i < 1000; i++) {
        start_timer(&t, 0);
        start_idle(&t);
        chr_watch_set(&t.watch, CHR_IN | CHR_OUT);
        chr_watch_set(&t.watch, CHR_IN);
        chr_loop_step(r.ctx, 0);
    }
    CHECK_INT(r.calls, calls);
    CHECK(t.count >= 3000);
    chr_watch_stop(&t.watch);
    close(fds[0]), close(fds[1]);
    rig_close(&r);
}

TEST(context_may_go_before_its_watches)
{
    int   fds[2];
    thing t;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    REQUIRE(pipe(fds) == 0);
    start_watch(&t, fds[0], CHR_IN);
    start_timer(&t, 1);
    start_idle(&t);
    close(fds[0]), close(fds[1]);
    rig_close(&r);
    CHECK_INT(t.count, 0);
}

/* ---- timers ------------------------------------------------------------------------------------------------------ */

TEST(timer_fires_once_when_due)
{
    thing t;
    rig   r;
    rig_open_virtual(&r);
    thing_init(&t, &r);
    start_timer(&t, 100);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    CHECK_INT(chr_loop_timeout(r.ctx), 100);
    r.now += 99 * 1000000;
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    CHECK_INT(chr_loop_timeout(r.ctx), 1);
    r.now += 1000000;
    CHECK_INT(chr_loop_timeout(r.ctx), 0);
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK_INT(t.count, 1);
    pass_time(&r, 1000);
    CHECK_INT(t.count, 1);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    rig_close(&r);
}

/* A part of a millisecond that is left counts as a whole one: no timer comes early, none makes the loop spin. */
TEST(timeout_is_rounded_up)
{
    thing t;
    rig   r;
    rig_open_virtual(&r);
    thing_init(&t, &r);
    start_timer(&t, 10);
    r.now += 9 * 1000000 + 1;
    CHECK_INT(chr_loop_timeout(r.ctx), 1);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    r.now += 999998;
    CHECK_INT(chr_loop_timeout(r.ctx), 1);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    r.now += 1;
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    rig_close(&r);
}

TEST(timers_fire_in_order_of_their_deadlines)
{
    static const int delays[] = { 50, 10, 30, 10, 70, 20, 0, 60 };
    thing            t[8];
    int              i, k;
    rig              r;
    rig_open_virtual(&r);
    for (i = 0; i < 8; i++) {
        thing_init(&t[i], &r);
        start_timer(&t[i], delays[i]);
    }
    r.now += INT64_C(1000) * 1000000;
    settle(&r);
    for (i = 0; i < 8; i++) {
        CHECK_INT(t[i].count, 1);
        for (k = 0; k < 8; k++)
            if (delays[i] < delays[k]) CHECK(t[i].order < t[k].order);
    }
    CHECK(t[1].order < t[3].order); /* equal ones in the order in which they were started */
    rig_close(&r);
}

TEST(starting_a_started_timer_moves_it)
{
    thing t;
    rig   r;
    rig_open_virtual(&r);
    thing_init(&t, &r);
    start_timer(&t, 10);
    start_timer(&t, 100);
    pass_time(&r, 50);
    CHECK_INT(t.count, 0);
    start_timer(&t, 10);
    pass_time(&r, 10);
    CHECK_INT(t.count, 1);
    pass_time(&r, 1000);
    CHECK_INT(t.count, 1);
    rig_close(&r);
}

static void stop_other_timer(thing *t)
{
    chr_timer_stop(&t->other->timer);
}

TEST(timer_stopped_by_another_that_is_due_too)
{
    thing first, second;
    rig   r;
    rig_open_virtual(&r);
    thing_init(&first, &r);
    thing_init(&second, &r);
    first.then = stop_other_timer;
    first.other = &second;
    start_timer(&first, 1);
    start_timer(&second, 1);
    pass_time(&r, 5);
    CHECK_INT(first.count, 1);
    CHECK_INT(second.count, 0);
    rig_close(&r);
}

static void start_again_at_once(thing *t)
{
    start_timer(t, 0);
}

/* A timer that starts itself with no delay fires once a step: the loop gets to its other work. */
TEST(timer_that_restarts_itself_does_not_starve_the_loop)
{
    thing t;
    rig   r;
    rig_open_virtual(&r);
    thing_init(&t, &r);
    t.then = start_again_at_once;
    start_timer(&t, 0);
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK_INT(t.count, 2);
    rig_close(&r);
}

static void start_again_in_10(thing *t)
{
    start_timer(t, 10);
}

TEST(periodic_timer)
{
    thing t;
    int   i;
    rig   r;
    rig_open_virtual(&r);
    thing_init(&t, &r);
    t.then = start_again_in_10;
    start_timer(&t, 10);
    for (i = 0; i < 100; i++) pass_time(&r, 1);
    CHECK_INT(t.count, 10);
    rig_close(&r);
}

TEST(many_timers)
{
    static thing t[1000];
    int          i;
    rig          r;
    rig_open_virtual(&r);
    for (i = 0; i < 1000; i++) {
        thing_init(&t[i], &r);
        start_timer(&t[i], (i * 7919) % 1000);
    }
    for (i = 0; i < 1000; i += 2) chr_timer_stop(&t[i].timer);
    for (i = 0; i < 1000; i++) pass_time(&r, 1);
    for (i = 0; i < 1000; i++) CHECK_INT(t[i].count, i % 2);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    rig_close(&r);
}

/* On the real clock a step sleeps until the timer is due, and not past it. */
TEST(step_wakes_for_a_timer)
{
    int64_t start;
    thing   t;
    rig     r;
    rig_open(&r);
    thing_init(&t, &r);
    start = real_ms();
    start_timer(&t, 30);
    while (!t.count && real_ms() - start < RIG_PATIENCE_MS) chr_loop_step(r.ctx, -1);
    CHECK(real_ms() - start >= 29);
    CHECK(real_ms() - start < RIG_PATIENCE_MS);
    CHECK_INT(t.count, 1);
    rig_close(&r);
}

TEST(now_is_the_hooks_clock)
{
    rig r;
    rig_open_virtual(&r);
    CHECK(chr_loop_now(r.ctx) == r.now);
    r.now += 12345;
    CHECK(chr_loop_now(r.ctx) == r.now);
    rig_close(&r);
}

TEST(far_timers_do_not_overflow)
{
    thing t;
    rig   r;
    rig_open_virtual(&r);
    thing_init(&t, &r);
    start_timer(&t, INT64_C(1000) * 60 * 60 * 24 * 365);
    CHECK(chr_loop_timeout(r.ctx) > 0);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    pass_time(&r, INT64_C(1000) * 60 * 60 * 24 * 365);
    CHECK_INT(t.count, 1);
    rig_close(&r);
}

/* ---- idle -------------------------------------------------------------------------------------------------------- */

TEST(idle_runs_once)
{
    thing t;
    rig   r;
    rig_open_virtual(&r);
    thing_init(&t, &r);
    start_idle(&t);
    CHECK_INT(chr_loop_timeout(r.ctx), 0);
    CHECK_INT(chr_loop_step(r.ctx, -1), 1); /* does not sleep while something is to be done */
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    CHECK_INT(t.count, 1);
    rig_close(&r);
}

TEST(idle_runs_in_the_order_started)
{
    thing a, b;
    rig   r;
    rig_open_virtual(&r);
    thing_init(&a, &r);
    thing_init(&b, &r);
    start_idle(&a);
    start_idle(&b);
    start_idle(&a);
    settle(&r);
    CHECK_INT(a.count, 1);
    CHECK_INT(b.count, 1);
    rig_close(&r);
}

static void start_idle_again(thing *t)
{
    start_idle(t);
}

TEST(idle_that_restarts_itself_runs_once_a_step)
{
    int   before;
    thing t;
    rig   r;
    rig_open_virtual(&r);
    thing_init(&t, &r);
    t.then = start_idle_again;
    start_idle(&t);
    chr_loop_step(r.ctx, 0);
    before = t.count;
    CHECK(before >= 1 && before <= 2);
    chr_loop_step(r.ctx, 0);
    CHECK_INT(t.count, before + 1);
    rig_close(&r);
}

static void stop_other_idle(thing *t)
{
    chr_idle_stop(&t->other->idle);
}

TEST(idle_stopped_by_another)
{
    thing first, second;
    rig   r;
    rig_open_virtual(&r);
    thing_init(&first, &r);
    thing_init(&second, &r);
    first.then = stop_other_idle;
    first.other = &second;
    start_idle(&first);
    start_idle(&second);
    settle(&r);
    CHECK_INT(first.count + second.count, 1);
    rig_close(&r);
}

/* ---- run, stop, wake --------------------------------------------------------------------------------------------- */

static void stop_the_loop(thing *t)
{
    chr_loop_stop(t->r->ctx);
}

TEST(run_until_stopped_by_a_handler)
{
    thing t;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    t.then = stop_the_loop;
    start_timer(&t, 5);
    CHECK_INT(chr_loop_run(r.ctx), 0);
    CHECK_INT(t.count, 1);
    start_idle(&t);
    CHECK_INT(chr_loop_run(r.ctx), 0); /* and it can be run again */
    CHECK_INT(t.count, 2);
    rig_close(&r);
}

TEST(stop_before_run)
{
    rig r;
    rig_open(&r);
    chr_loop_stop(r.ctx);
    CHECK_INT(chr_loop_run(r.ctx), 0);
    rig_close(&r);
}

static void step_inside(thing *t)
{
    t->events = chr_loop_step(t->r->ctx, 0);
    t->order = chr_loop_run(t->r->ctx);
}

TEST(step_inside_a_handler_is_refused)
{
    thing t;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    t.then = step_inside;
    start_timer(&t, 0);
    chr_loop_step(r.ctx, 10);
    CHECK_INT(t.count, 1);
    CHECK_INT(t.events, CHR_ERR_IN_HANDLER);
    CHECK_INT(t.order, CHR_ERR_IN_HANDLER);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    rig_close(&r);
}

TEST(wake_before_the_step)
{
    int64_t start = real_ms();
    int     i;
    rig     r;
    rig_open(&r);
    for (i = 0; i < 100000; i++) chr_loop_wake(r.ctx); /* never blocks, however often */
    CHECK(chr_loop_step(r.ctx, RIG_PATIENCE_MS) >= 0);
    CHECK(real_ms() - start < RIG_PATIENCE_MS);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    start = real_ms();
    CHECK_INT(chr_loop_step(r.ctx, 30), 0); /* and it is over then */
    CHECK(real_ms() - start >= 25);
    rig_close(&r);
}

static void *wake_from_thread(void *opaque)
{
    usleep(20000);
    chr_loop_wake((chr_context *)opaque);
    return NULL;
}

TEST(wake_from_a_thread)
{
    int64_t   start;
    pthread_t thread;
    rig       r;
    rig_open(&r);
    start = real_ms();
    REQUIRE(pthread_create(&thread, NULL, wake_from_thread, r.ctx) == 0);
    CHECK(chr_loop_step(r.ctx, -1) >= 0); /* without a wake it would sleep for good */
    CHECK(real_ms() - start < RIG_PATIENCE_MS);
    pthread_join(thread, NULL);
    rig_close(&r);
}

static chr_context *signal_context;
static int          signal_errno;

static void wake_from_signal(int number)
{
    (void)number;
    errno = 12345;
    chr_loop_wake(signal_context);
    signal_errno = errno;
}

TEST(wake_from_a_signal_handler)
{
    struct sigaction action;
    rig              r;
    rig_open(&r);
    signal_context = r.ctx;
    memset(&action, 0, sizeof action);
    action.sa_handler = wake_from_signal;
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    CHECK(chr_loop_step(r.ctx, -1) >= 0);
    CHECK_INT(signal_errno, 12345); /* a handler must not disturb errno */
    rig_close(&r);
}

static void nothing(int number)
{
    (void)number;
}

/* A signal that interrupts the wait is not an error. */
TEST(signals_during_the_wait)
{
    struct sigaction action;
    thing            t;
    int              code = 0;
    int64_t          start;
    rig              r;
    rig_open(&r);
    thing_init(&t, &r);
    memset(&action, 0, sizeof action);
    action.sa_handler = nothing;
    sigaction(SIGUSR1, &action, NULL);
    start_timer(&t, 50);
    if (fork() == 0) {
        int i;
        for (i = 0; i < 200; i++) {
            kill(getppid(), SIGUSR1);
            usleep(500);
        }
        _exit(0);
    }
    start = real_ms();
    while (!t.count && code >= 0 && real_ms() - start < RIG_PATIENCE_MS) code = chr_loop_step(r.ctx, -1);
    CHECK(code >= 0);
    CHECK_INT(t.count, 1);
    while (wait(NULL) < 0 && errno == EINTR) {}
    rig_close(&r);
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* With idle chardevs of every kind the loop sleeps: no polling, no busy waiting. */
TEST(idle_chardevs_cost_nothing)
{
    recorder a, b, c, d;
    double   before;
    char     options[200];
    int      steps = 0;
    int64_t  end;
    rig      r;
    rig_open(&r);
    attach(&a, make(&r, "null,id=null"));
    attach(&b, make(&r, "ringbuf,id=ring"));
    snprintf(options, sizeof options, "socket,id=s,path=%s,server=on,wait=off", scratch("s"));
    attach(&c, make(&r, options));
    attach(&d, make(&r, "pty,id=pty"));
    settle(&r);
    before = cpu_seconds();
    for (end = real_ms() + 500; real_ms() < end; steps++) chr_loop_step(r.ctx, 500);
    CHECK(steps < 20);
    CHECK(cpu_seconds() - before < 0.1);
    detach(&a), detach(&b), detach(&c), detach(&d);
    rig_close(&r);
    scratch_clean();
}

/* ---- other loops ------------------------------------------------------------------------------------------------- */

static void poll_entries(chr_poll *polls, int count, int timeout_ms)
{
#ifdef _WIN32 /* its poll() has other values for the bits, and the entries can't be cast */
    struct pollfd items[16];
    int           i;
    for (i = 0; i < count; i++) {
        items[i].fd = polls[i].fd;
        items[i].events = (short)((polls[i].events & CHR_IN ? POLLIN : 0) | (polls[i].events & CHR_OUT ? POLLOUT : 0));
    }
    poll(items, (nfds_t)count, timeout_ms);
    for (i = 0; i < count; i++)
        polls[i].revents = (short)((items[i].revents & POLLIN ? CHR_IN : 0) | (items[i].revents & POLLOUT ? CHR_OUT : 0) |
                                   (items[i].revents & (POLLHUP | POLLERR) ? CHR_HUP : 0));
#else
    poll((struct pollfd *)polls, (nfds_t)count, timeout_ms);
#endif
}

/* One turn of a foreign poll() loop. */
static int foreign_turn(chr_context *ctx, int most_ms)
{
    chr_poll polls[16];
    int      timeout_ms = -2, count = chr_loop_prepare(ctx, polls, 16, &timeout_ms);
    REQUIRE(count >= 0 && count <= 16);
    CHECK(timeout_ms >= -1);
    if (timeout_ms < 0 || timeout_ms > most_ms) timeout_ms = most_ms;
    poll_entries(polls, count, timeout_ms);
    return chr_loop_dispatch(ctx, polls, count);
}

TEST(prepare_and_dispatch)
{
    int   fds[2];
    thing t;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    socket_pair(fds);
    start_watch(&t, fds[0], CHR_IN);
    CHECK_INT(foreign_turn(r.ctx, 0), 0);
    say(fds[1], "x");
    CHECK_INT(foreign_turn(r.ctx, 1000), 1);
    CHECK_INT(t.events, CHR_IN);
    hear(fds[0]);
    start_timer(&t, 5);
    while (t.count < 2) foreign_turn(r.ctx, 1000);
    start_idle(&t);
    CHECK_INT(foreign_turn(r.ctx, 1000), 1);
    CHECK_INT(t.count, 3);
    chr_watch_stop(&t.watch);
    close(fds[0]), close(fds[1]);
    rig_close(&r);
}

TEST(prepare_with_too_little_room)
{
    chr_poll polls[12];
    int      i, timeout_ms, needed;
    thing    t[10];
    rig      r;
    rig_open(&r);
    for (i = 0; i < 10; i++) {
        thing_init(&t[i], &r);
        REQUIRE(pipe(many[i]) == 0);
        start_watch(&t[i], many[i][0], CHR_IN);
    }
    needed = chr_loop_prepare(r.ctx, NULL, 0, &timeout_ms);
    CHECK(needed >= 10 && needed <= 12); /* the loop's own waker may be among them */
    memset(polls, 0x55, sizeof polls);
    CHECK_INT(chr_loop_prepare(r.ctx, polls, 3, &timeout_ms), needed);
    CHECK_INT(polls[3].fd, 0x55555555);
    CHECK_INT(chr_loop_prepare(r.ctx, polls, 12, &timeout_ms), needed);
    for (i = 0; i < 10; i++) {
        chr_watch_stop(&t[i].watch);
        close(many[i][0]), close(many[i][1]);
    }
    rig_close(&r);
}

TEST(prepare_tells_of_the_waker)
{
    rig r;
    rig_open(&r);
    chr_loop_wake(r.ctx);
    foreign_turn(r.ctx, 5000);
    CHECK_INT(foreign_turn(r.ctx, 0), 0);
    rig_close(&r);
}

/* An echo chardev that lives wholly on the foreign loop. */
static void echo_back(recorder *rec, int what)
{
    if (what != 'r') return;
    chr_fe_write(&rec->fe, rec->input, rec->length);
    rec->length = 0;
}

TEST(chardev_on_a_foreign_poll_loop)
{
    char     options[100];
    int      fds[2], i;
    recorder rec;
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    attach(&rec, make(&r, options));
    rec.then = echo_back;
    for (i = 0; i < 20; i++) {
        say(fds[1], "ping");
        while (foreign_turn(r.ctx, 0) > 0) {}
        CHECK_STR(hear(fds[1]), "ping");
    }
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}

/* The same through the hooks, with epoll. */
typedef struct foreign {
    int epoll, timeouts;
} foreign;

static foreign *host;

static void host_watch_changed(void *opaque, chr_watch *watch, int fd, int events)
{
    struct epoll_event event;
    (void)opaque;
    memset(&event, 0, sizeof event);
    event.events = (events & CHR_IN ? (uint32_t)EPOLLIN : 0) | (events & CHR_OUT ? (uint32_t)EPOLLOUT : 0);
    event.data.ptr = watch;
    if (events == 0) {
        epoll_ctl(host->epoll, EPOLL_CTL_DEL, fd, &event);
    } else if (epoll_ctl(host->epoll, EPOLL_CTL_MOD, fd, &event) < 0) {
        CHECK_INT(epoll_ctl(host->epoll, EPOLL_CTL_ADD, fd, &event), 0);
    }
}

static void host_timeout_changed(void *opaque)
{
    (void)opaque;
    host->timeouts++;
}

static void host_turn(chr_context *ctx, int most_ms)
{
    struct epoll_event ready_now[8];
    int                timeout_ms = chr_loop_timeout(ctx), i, count;
    if (timeout_ms < 0 || timeout_ms > most_ms) timeout_ms = most_ms;
    count = epoll_wait(host->epoll, ready_now, 8, timeout_ms);
    for (i = 0; i < count; i++) {
        uint32_t e = ready_now[i].events;
        chr_watch_ready((chr_watch *)ready_now[i].data.ptr, (e & EPOLLIN ? CHR_IN : 0) | (e & EPOLLOUT ? CHR_OUT : 0) |
                                                               (e & (EPOLLHUP | EPOLLERR) ? CHR_HUP : 0));
    }
    if (chr_loop_timeout(ctx) == 0) chr_loop_dispatch(ctx, NULL, 0);
}

TEST(chardev_on_epoll_through_hooks)
{
    chr_config config;
    foreign    f;
    recorder   rec;
    thing      t;
    char       options[100];
    int        fds[2], i;
    rig        r;
    rig_init(&r);
    f.timeouts = 0;
    f.epoll = epoll_create1(EPOLL_CLOEXEC);
    host = &f;
    config = rig_config(&r);
    config.watch_changed = host_watch_changed;
    config.timeout_changed = host_timeout_changed;
    r.ctx = chr_context_new(&config);
    REQUIRE(r.ctx != NULL);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    attach(&rec, make(&r, options));
    rec.then = echo_back;
    for (i = 0; i < 20; i++) {
        say(fds[1], "ping");
        host_turn(r.ctx, 1000);
        host_turn(r.ctx, 0);
        CHECK_STR(hear(fds[1]), "ping");
    }
    thing_init(&t, &r);
    i = f.timeouts;
    start_timer(&t, 10);
    CHECK(f.timeouts > i);
    while (!t.count) host_turn(r.ctx, 1000);
    close(fds[1]);
    for (i = 0; i < 10 && rec.open; i++) host_turn(r.ctx, 1000);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    chr_context_free(r.ctx);
    close(f.epoll);
    CHECK_INT(r.live, 0);
    CHECK_INT(count_fds(), r.fds);
}

TEST(two_contexts_do_not_see_each_other)
{
    recorder a, b;
    rig      r, s;
    rig_open(&r);
    rig_open(&s);
    attach(&a, make(&r, "ringbuf,id=x"));
    attach(&b, make(&s, "ringbuf,id=x"));
    CHECK(chr_find(r.ctx, "x") != chr_find(s.ctx, "x"));
    chr_fe_write(&a.fe, "only here", 9);
    CHECK_INT(chr_ringbuf_count(chr_find(s.ctx, "x")), 0);
    detach(&a);
    chr_context_free(r.ctx);
    CHECK(chr_find(s.ctx, "x") != NULL);
    detach(&b);
    s.fds = r.fds;
    rig_close(&s);
    CHECK_INT(r.live, 0);
}

TEST(context_free_of_null)
{
    chr_context_free(NULL);
}

TEST(context_with_defaults)
{
    chr_context *ctx = chr_context_new(NULL);
    int          fds = count_fds();
    int64_t      now;
    REQUIRE(ctx != NULL);
    now = chr_loop_now(ctx);
    CHECK(now > 0);
    CHECK(chr_loop_now(ctx) >= now);
    CHECK_INT(chr_loop_step(ctx, 0), 0);
    chr_context_free(ctx);
    CHECK(count_fds() <= fds);
}

static void enter_again(thing *t)
{
    t->events = chr_loop_dispatch(t->r->ctx, NULL, 0);
    chr_context_free(t->r->ctx); /* not from inside a handler: nothing happens */
}

TEST(dispatch_inside_a_handler_is_refused)
{
    thing t;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    t.then = enter_again;
    start_idle(&t);
    chr_loop_step(r.ctx, 0);
    CHECK_INT(t.events, CHR_ERR_IN_HANDLER);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    rig_close(&r);
}

TEST(ready_of_a_stopped_watch_is_harmless)
{
    int   fds[2];
    thing t;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    REQUIRE(pipe(fds) == 0);
    start_watch(&t, fds[0], CHR_IN);
    chr_watch_stop(&t.watch);
    chr_watch_ready(&t.watch, CHR_IN);
    CHECK_INT(t.count, 0);
    close(fds[0]), close(fds[1]);
    rig_close(&r);
}

/* A foreign loop hands back what is ready after the watch was stopped or moved meanwhile. */
TEST(dispatch_of_stale_entries)
{
    chr_poll polls[8];
    int      a[2], b[2], i, count, timeout_ms;
    thing    t, u;
    rig      r;
    rig_open(&r);
    thing_init(&t, &r);
    thing_init(&u, &r);
    REQUIRE(pipe(a) == 0 && pipe(b) == 0);
    start_watch(&t, a[0], CHR_IN);
    start_watch(&u, b[0], CHR_IN);
    count = chr_loop_prepare(r.ctx, polls, 8, &timeout_ms);
    chr_watch_stop(&t.watch);
    start_watch(&t, b[0], CHR_IN); /* another descriptor, and not ready */
    chr_watch_stop(&u.watch);
    for (i = 0; i < count; i++) polls[i].events = polls[i].fd == a[0] || polls[i].fd == b[0] ? CHR_IN : 0;
    chr_loop_dispatch(r.ctx, polls, count);
    CHECK_INT(u.count, 0);
    CHECK(t.count <= 1);
    chr_watch_stop(&t.watch);
    close(a[0]), close(a[1]), close(b[0]), close(b[1]);
    rig_close(&r);
}

/* can_read is called again when a foreign loop calls chr_loop_prepare(). */
TEST(starved_chardev_on_a_foreign_loop)
{
    char     options[100];
    int      fds[2], timeout_ms;
    recorder rec;
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    attach_with_room(&rec, make(&r, options), 0);
    say(fds[1], "abc");
    foreign_turn(r.ctx, 0);
    foreign_turn(r.ctx, 0);
    CHECK_INT(rec.length, 0);
    (void)chr_loop_prepare(r.ctx, NULL, 0, &timeout_ms); /* and that soon, whatever else is to come */
    CHECK(timeout_ms >= 0 && timeout_ms <= 100);
    CHECK_INT(chr_loop_dispatch(r.ctx, NULL, 0), 0);
    rec.room = 10;
    foreign_turn(r.ctx, 0);
    foreign_turn(r.ctx, 0);
    CHECK_INPUT(&rec, "abc");
    (void)chr_loop_prepare(r.ctx, NULL, 0, &timeout_ms);
    CHECK_INT(timeout_ms, -1);
    CHECK_INT(chr_loop_dispatch(r.ctx, NULL, 0), 0);
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}

/* ---- stops, and foreign loops that are told of what is new only -------------------------------------------------- */

static int nested_code;

static void stop_and_run(void *opaque)
{
    chr_loop_stop((chr_context *)opaque);
    nested_code = chr_loop_run((chr_context *)opaque);
}

static void run_in_vain(void *opaque) { (*(int *)opaque)++; }

TEST(run_inside_a_handler_leaves_the_stop)
{
    chr_timer first, second;
    int       late = 0;
    rig       r;
    rig_open(&r);
    memset(&first, 0, sizeof first);
    memset(&second, 0, sizeof second);
    chr_timer_start(r.ctx, &first, 0, stop_and_run, r.ctx);
    chr_timer_start(r.ctx, &second, 2000, run_in_vain, &late);
    CHECK_INT(chr_loop_run(r.ctx), 0);
    CHECK_INT(nested_code, CHR_ERR_IN_HANDLER);
    CHECK_INT(late, 0);
    chr_timer_stop(&second);
    chr_loop_stop(r.ctx);
    CHECK_INT(chr_loop_run(r.ctx), 0); /* one stop ends one run */
    rig_close(&r);
}

static void edge_watch_changed(void *opaque, chr_watch *watch, int fd, int events)
{
    struct epoll_event event;
    (void)opaque;
    memset(&event, 0, sizeof event);
    event.events = (events & CHR_IN ? (uint32_t)EPOLLIN : 0) | (events & CHR_OUT ? (uint32_t)EPOLLOUT : 0) |
                   (events & CHR_HUP ? (uint32_t)EPOLLRDHUP : 0) | (uint32_t)EPOLLET;
    event.data.ptr = watch;
    if (events == 0) epoll_ctl(host->epoll, EPOLL_CTL_DEL, fd, &event);
    else if (epoll_ctl(host->epoll, EPOLL_CTL_MOD, fd, &event) < 0) CHECK_INT(epoll_ctl(host->epoll, EPOLL_CTL_ADD, fd, &event), 0);
}

static void open_edge_rig(rig *r, foreign *f)
{
    chr_config config = rig_config(r);
    rig_init(r);
    memset(f, 0, sizeof *f);
    f->epoll = epoll_create1(EPOLL_CLOEXEC);
    r->fds = count_fds();
    host = f;
    config.watch_changed = edge_watch_changed;
    config.timeout_changed = host_timeout_changed;
    r->ctx = chr_context_new(&config);
    REQUIRE(r->ctx != NULL);
}

/* More than one turn reads, a frontend with room for a few bytes at a time, and the end right behind it. */
static void check_edges(int room, size_t size)
{
    static char bytes[200000];
    recorder    rec;
    char        options[80];
    int         fds[2];
    int64_t     end = real_ms() + RIG_PATIENCE_MS;
    size_t      sent = 0;
    ssize_t     n;
    foreign     f;
    rig         r;
    open_edge_rig(&r, &f);
    socket_pair(fds);
    snprintf(options, sizeof options, "fd,id=x,in=%d,out=%d", fds[0], fds[0]);
    attach_with_room(&rec, make(&r, options), room);
    host_turn(r.ctx, 0);
    while (sent < size && (n = send(fds[1], bytes, size - sent, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0) sent += (size_t)n;
    shutdown(fds[1], SHUT_WR);
    while (!strchr(rec.events, 'C') && real_ms() < end) {
        host_turn(r.ctx, 20);
        if (rec.room == 0) rec.room = room; /* without a word */
    }
    CHECK_INT(rec.length, sent);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    close(fds[1]);
    chr_remove(r.ctx, "x", NULL);
    close(f.epoll);
    r.fds--;
    rig_close(&r);
}

TEST(edge_triggered_loop_loses_nothing) { check_edges(UNLIMITED, 200000); }
TEST(edge_triggered_loop_hears_the_end_behind_a_few_bytes) { check_edges(UNLIMITED, 5); }
TEST(edge_triggered_loop_and_little_room) { check_edges(4, 12); }

TEST(foreign_loop_asks_again_for_room)
{
    recorder rec;
    char     options[80];
    int      fds[2], i, timeout;
    foreign  f;
    rig      r;
    open_edge_rig(&r, &f);
    socket_pair(fds);
    snprintf(options, sizeof options, "fd,id=x,in=%d,out=%d", fds[0], fds[0]);
    attach_with_room(&rec, make(&r, options), 0);
    say(fds[1], "hello");
    for (i = 0; i < 10; i++) host_turn(r.ctx, 0);
    timeout = chr_loop_timeout(r.ctx);
    CHECK(timeout > 0 && timeout <= 100);
    rec.room = 100;
    for (i = 0; i < 1000 && rec.length < 5; i++) host_turn(r.ctx, 20);
    CHECK_INT(rec.length, 5);
    for (i = 0; i < 10; i++) host_turn(r.ctx, 0);
    CHECK_INT(chr_loop_timeout(r.ctx), -1); /* and then it rests */
    detach(&rec);
    chr_remove(r.ctx, "x", NULL);
    close(fds[1]);
    close(f.epoll);
    r.fds--;
    rig_close(&r);
}

/* ---- a stop is told once ----------------------------------------------------------------------------------------- */

TEST(stop_is_told_once_by_a_step)
{
    rig r;
    rig_open(&r);
    chr_loop_stop(r.ctx);
    chr_loop_stop(r.ctx); /* two are one */
    CHECK_INT(chr_loop_timeout(r.ctx), 0);
    CHECK_INT(chr_loop_step(r.ctx, -1), CHR_ERR_STOPPED);
    CHECK(chr_loop_step(r.ctx, 0) >= 0);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    CHECK_STR(chr_error_text(CHR_ERR_STOPPED), "the loop was stopped");
    rig_close(&r);
}

static void stop_from_handler(thing *t)
{
    chr_loop_stop(t->r->ctx);
}

TEST(stop_in_a_handler_is_told_by_its_step)
{
    thing t, later;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    thing_init(&later, &r);
    t.then = stop_from_handler;
    start_idle(&t);
    start_idle(&later);
    CHECK_INT(chr_loop_step(r.ctx, -1), CHR_ERR_STOPPED);
    CHECK_INT(t.count, 1);
    CHECK_INT(later.count, 1); /* what was under way is done */
    CHECK(chr_loop_step(r.ctx, 0) >= 0);
    rig_close(&r);
}

/* A stop that a step has reported is not reported again by chr_loop_run(). */
TEST(run_after_a_stop_that_was_told)
{
    thing t;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    chr_loop_stop(r.ctx);
    CHECK_INT(chr_loop_step(r.ctx, 0), CHR_ERR_STOPPED);
    t.then = stop_from_handler;
    start_timer(&t, 5);
    CHECK_INT(chr_loop_run(r.ctx), 0);
    CHECK_INT(t.count, 1);
    CHECK(chr_loop_step(r.ctx, 0) >= 0); /* and the other way round */
    rig_close(&r);
}

static void *stop_from_thread(void *opaque)
{
    usleep(20000);
    chr_loop_stop((chr_context *)opaque);
    return NULL;
}

static void stop_from_signal(int number)
{
    (void)number;
    chr_loop_stop(signal_context);
}

TEST(stop_from_outside_ends_a_sleeping_step)
{
    struct sigaction action;
    pthread_t        thread;
    int              n;
    rig              r;
    rig_open(&r);
    REQUIRE(pthread_create(&thread, NULL, stop_from_thread, r.ctx) == 0);
    do
        n = chr_loop_step(r.ctx, -1);
    while (n >= 0);
    CHECK_INT(n, CHR_ERR_STOPPED);
    pthread_join(thread, NULL);
    signal_context = r.ctx;
    memset(&action, 0, sizeof action);
    action.sa_handler = stop_from_signal;
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    CHECK_INT(chr_loop_step(r.ctx, -1), CHR_ERR_STOPPED);
    rig_close(&r);
}

TEST(stop_on_a_foreign_loop)
{
    thing t, u;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    thing_init(&u, &r);
    t.then = stop_from_handler;
    start_idle(&t);
    CHECK_INT(foreign_turn(r.ctx, 0), CHR_ERR_STOPPED);
    CHECK(foreign_turn(r.ctx, 0) >= 0);
    start_idle(&u);
    chr_loop_stop(r.ctx);
    CHECK_INT(foreign_turn(r.ctx, 0), CHR_ERR_STOPPED);
    CHECK_INT(u.count, 0);
    CHECK(foreign_turn(r.ctx, 0) >= 1);
    CHECK_INT(u.count, 1);
    rig_close(&r);
}

/* Output queued before the stop is sent, whoever requested the stop. */
TEST(drain_leaves_the_stop)
{
    char     options[100];
    int      fds[2];
    recorder rec;
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d,obuf=1M", fds[0]);
    attach(&rec, make(&r, options));
    settle(&r);
    CHECK_INT(chr_fe_write(&rec.fe, options, 10), 10);
    chr_loop_stop(r.ctx);
    CHECK_INT(chr_drain(r.ctx, 1000), 0);
    CHECK_INT(chr_loop_step(r.ctx, -1), CHR_ERR_STOPPED);
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}

/* Ctrl-A x without an exit hook, in a program that steps. */
TEST(escape_ends_steps)
{
    chr_config config;
    recorder   rec;
    char       options[100];
    int        fds[2], i, n = 0;
    rig        r;
    rig_init(&r);
    config = rig_config(&r);
    config.exit = NULL;
    r.ctx = chr_context_new(&config);
    REQUIRE(r.ctx != NULL);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d,mux=on", fds[0]);
    attach(&rec, make(&r, options));
    say(fds[1], "\001x");
    for (i = 0; i < 20 && n >= 0; i++) n = chr_loop_step(r.ctx, 20);
    CHECK_INT(n, CHR_ERR_STOPPED);
    CHECK(chr_loop_step(r.ctx, 0) >= 0);
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}

/* ---- stepping from a CPU loop ------------------------------------------------------------------------------------ */

static const int64_t never = INT64_C(3600) * 1000000000;

TEST(step_every_waits_for_its_time)
{
    int     fds[2], calls = 0;
    int64_t start;
    thing   t;
    rig     r;
    rig_open(&r);
    thing_init(&t, &r);
    REQUIRE(pipe(fds) == 0);
    start_watch(&t, fds[0], CHR_IN);
    while (chr_loop_step_every(r.ctx, never) > 0) {}
    say(fds[1], "x");
    for (calls = 0; calls < 10000; calls++) CHECK_INT(chr_loop_step_every(r.ctx, never), 0);
    CHECK_INT(chr_loop_step_every(r.ctx, 0) + chr_loop_step(r.ctx, 0) > 0, 1);
    CHECK(t.count > 0);
    t.count = 0;
    start = real_ms();
    while (!t.count) chr_loop_step_every(r.ctx, 50000000);
    CHECK(real_ms() - start < RIG_PATIENCE_MS);
    for (t.count = 0, start = real_ms(); t.count < 5; calls++) {
        chr_loop_step_every(r.ctx, 20000000);
        REQUIRE(real_ms() - start < RIG_PATIENCE_MS);
    }
    CHECK(real_ms() - start >= 4 * 20 - 2);
    chr_watch_stop(&t.watch);
    close(fds[0]), close(fds[1]);
    rig_close(&r);
}

/* Slow calls behind quick ones: at most 64 of them pass before it notices. */
static void step_every_count(void *opaque) { (*(int *)opaque)++; }

/* No interval, or what is less than none: each call is a step, whatever the calls before had for an interval. */
TEST(step_every_without_an_interval)
{
    static const int64_t none[] = { 0, -1, -1000000, -1000000000, INT64_MIN };
    unsigned             i;
    int                  calls, count;
    chr_timer            timer;
    rig                  r;
    memset(&timer, 0, sizeof timer);
    rig_open(&r);
    for (i = 0; i < sizeof none / sizeof none[0]; i++) {
        for (calls = 0; calls < 500; calls++) chr_loop_step_every(r.ctx, 1000000000);
        for (calls = count = 0; calls < 500; calls++) {
            chr_timer_start(r.ctx, &timer, 0, step_every_count, &count);
            chr_loop_step_every(r.ctx, none[i]);
        }
        if (!CHECK_INT(count, 500)) NOTE("of %lld", (long long)none[i]);
    }
    rig_close(&r);
}

TEST(step_every_follows_the_pace_of_its_calls)
{
    int   i, calls;
    int64_t began;
    thing t;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    for (i = 0; i < 100000; i++) chr_loop_step_every(r.ctx, 1000000);
    start_timer(&t, 0);
    for (i = 0; i < 70; i++) { /* it finds the pace */
        usleep(1000);
        chr_loop_step_every(r.ctx, 1000000);
    }
    CHECK_INT(t.count, 1);
    for (i = 0; i < 20; i++) {
        start_timer(&t, 0);
        t.count = 0;
        for (began = chr_loop_now(r.ctx), calls = 0; calls < 3 || chr_loop_now(r.ctx) - began < 4500000; calls++) { /* a sleep may be short */
            usleep(1500);
            chr_loop_step_every(r.ctx, 1000000);
        }
        CHECK_INT(t.count, 1);
    }
    rig_close(&r);
}

static void *post_from_thread(void *opaque)
{
    thing *t = (thing *)opaque;
    usleep(5000);
    start_idle(t);
    return NULL;
}

TEST(step_every_sees_at_once_what_was_posted)
{
    char      options[100];
    int       fds[2], i;
    int64_t   start = real_ms();
    pthread_t thread;
    recorder  rec;
    thing     t;
    rig       r;
    rig_open(&r);
    thing_init(&t, &r);
    while (chr_loop_step_every(r.ctx, never) > 0) {}
    start_idle(&t);
    CHECK_INT(chr_loop_step_every(r.ctx, never), 1);
    CHECK_INT(chr_loop_step_every(r.ctx, never), 0);
    chr_loop_wake(r.ctx);
    CHECK_INT(chr_loop_step_every(r.ctx, never), 1);
    chr_loop_stop(r.ctx);
    CHECK_INT(chr_loop_step_every(r.ctx, never), CHR_ERR_STOPPED);
    for (i = 0; i < 3; i++) chr_loop_step_every(r.ctx, never);
    REQUIRE(pthread_create(&thread, NULL, post_from_thread, &t) == 0);
    while (t.count < 2 && real_ms() - start < RIG_PATIENCE_MS) chr_loop_step_every(r.ctx, never);
    pthread_join(thread, NULL);
    CHECK_INT(t.count, 2);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    attach_with_room(&rec, make(&r, options), 0);
    say(fds[1], "abc");
    settle(&r);
    for (i = 0; i < 100; i++) chr_loop_step_every(r.ctx, never);
    rec.room = 10;
    chr_fe_accept_input(&rec.fe);
    chr_loop_step_every(r.ctx, never);
    CHECK_INPUT(&rec, "abc");
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}

static void step_every_inside(thing *t)
{
    t->events = chr_loop_step_every(t->r->ctx, 0);
}

TEST(step_every_inside_a_handler_is_refused)
{
    thing t;
    rig   r;
    rig_open(&r);
    thing_init(&t, &r);
    t.then = step_every_inside;
    start_idle(&t);
    chr_loop_step(r.ctx, 0);
    CHECK_INT(t.events, CHR_ERR_IN_HANDLER);
    rig_close(&r);
}

/* A clock hook that stands still, or returns nothing useful, does not affect intervals in real time. */
TEST(step_every_counts_in_real_time)
{
    int64_t start = real_ms();
    thing   t;
    int     fds[2];
    rig     r;
    rig_open_virtual(&r);
    thing_init(&t, &r);
    REQUIRE(pipe(fds) == 0);
    start_watch(&t, fds[0], CHR_IN);
    say(fds[1], "x");
    while (t.count < 3 && real_ms() - start < RIG_PATIENCE_MS) chr_loop_step_every(r.ctx, 1000000);
    CHECK_INT(t.count, 3);
    chr_watch_stop(&t.watch);
    close(fds[0]), close(fds[1]);
    rig_close(&r);
}

/* 30 ns in an optimized program on a quiet machine, where a step takes 500. */
TEST(step_every_is_cheap_between_its_steps)
{
    int64_t began, best = INT64_MAX;
    int     round, i;
    rig     r;
    rig_open(&r);
    for (round = 0; round < 50; round++) {
        began = chr_loop_now(r.ctx);
        for (i = 0; i < 1000; i++) chr_loop_step_every(r.ctx, never);
        if (chr_loop_now(r.ctx) - began < best) best = chr_loop_now(r.ctx) - began;
    }
    if (!CHECK(best < 1000 * 150)) NOTE("%d ns a call", (int)(best / 1000));
    rig_close(&r);
}

/* ---- a virtual clock behind a timer that starts itself again ----------------------------------------------------- */

typedef struct ticks {
    chr_context *ctx;
    chr_timer    timer;
    int64_t      start, last;
    int          times;
} ticks;

static void tick_again(void *opaque)
{
    ticks  *t = (ticks *)opaque;
    int64_t now = chr_loop_now(t->ctx) - t->start;
    if (now != t->last) {
        CHECK_INT(now - t->last, 1000000);
        t->times++;
    }
    t->last = now;
    chr_timer_start(t->ctx, &t->timer, 0, tick_again, t);
}

TEST(virtual_time_goes_on_by_milliseconds_behind_a_timer_without_delay)
{
    chr_config config;
    ticks      t;
    memset(&config, 0, sizeof config);
    memset(&t, 0, sizeof t);
    config.virtual_clock = 1;
    t.ctx = chr_context_new(&config);
    REQUIRE(t.ctx != NULL);
    t.start = chr_loop_now(t.ctx);
    chr_timer_start(t.ctx, &t.timer, 0, tick_again, &t);
    CHECK(chr_loop_run_until(t.ctx, t.start + 10000000) >= 0);
    CHECK_INT(chr_loop_now(t.ctx) - t.start, 10000000);
    CHECK(t.times >= 9);
    chr_timer_stop(&t.timer);
    chr_context_free(t.ctx);
}
