/*
 * test_loop_corners.c - corner cases of the loop's bookkeeping: descriptors in the same hash bucket, watches that are
 * stopped and started while others are ready, and nothing left queued at the end.
 */
#include "chardev.h"
#include "private.h"
#include "rig.h"

#ifndef _WIN32
#include <sys/ioctl.h>
#endif

typedef struct spot { /* a watch that counts */
    rig      *r;
    chr_watch watch;
    chr_idle  idle;
    int       count, events;
    void    (*then)(struct spot *);
    struct spot *other;
    int       fd; /* for `then` */
} spot;

static void spot_ready(void *opaque, int events)
{
    spot *s = (spot *)opaque;
    s->count++;
    s->events = events;
    if (s->then) s->then(s);
}

static void spot_idle(void *opaque)
{
    spot_ready(opaque, 0);
}

static void spot_start(spot *s, rig *r, int fd, int events)
{
    s->r = r;
    CHECK_INT(chr_watch_start(r->ctx, &s->watch, fd, events, spot_ready, s), 0);
}

static void no_watch_changed(void *opaque, chr_watch *watch, int fd, int events) { (void)opaque, (void)watch, (void)fd, (void)events; }
static void no_timeout_changed(void *opaque) { (void)opaque; }

/* A context with hooks: a foreign loop gets each watch. */
static void rig_open_hooked(rig *r)
{
    chr_config config = rig_config(r);
    rig_init(r);
    config.watch_changed = no_watch_changed;
    config.timeout_changed = no_timeout_changed;
    r->ctx = chr_context_new(&config);
    REQUIRE(r->ctx != NULL);
}

/* ---- descriptors that share a bucket ----------------------------------------------------------------------------- */

enum { SHARING = 16 }; /* numbers that differ by this are in one bucket, as long as there are few watches */

#ifdef _WIN32
TEST(entries_of_one_bucket_are_kept_apart) { SKIP("numbers of descriptors are chosen by fcntl()"); }
#else
static void spot_move(spot *s)
{
    s->then = NULL;
    spot_start(s, s->r, s->fd, CHR_IN);
}

/* A pair of sockets; in[0] and its copy `SHARING` numbers later are ready for input. */
static void ready_pair(int in[2], int *twin)
{
    socket_pair(in);
    say(in[1], "x");
    *twin = fcntl(in[0], F_DUPFD, in[0] + SHARING);
    while (*twin >= 0 && (*twin - in[0]) % SHARING != 0) *twin = fcntl(in[0], F_DUPFD, *twin + 1);
    REQUIRE(*twin >= 0);
}

/* The foreign loop reports new readiness: a watch that its callback has moved is registered there, not called again
 * by our loop. */
TEST(a_watch_that_moves_itself_is_not_called_again)
{
    int  fds[2], twin;
    spot s;
    rig  r;
    rig_open_hooked(&r);
    memset(&s, 0, sizeof s);
    ready_pair(fds, &twin);
    spot_start(&s, &r, fds[0], CHR_IN);
    s.fd = twin;
    s.then = spot_move;
    chr_watch_ready(&s.watch, CHR_IN);
    CHECK_INT(s.count, 1);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    CHECK_INT(chr_loop_dispatch(r.ctx, NULL, 0), 0);
    CHECK_INT(s.count, 1);
    chr_watch_ready(&s.watch, CHR_IN); /* and one that stays is, while it is ready */
    CHECK_INT(s.count, 2);
    CHECK_INT(chr_loop_timeout(r.ctx), 0);
    CHECK_INT(chr_loop_dispatch(r.ctx, NULL, 0), 1);
    CHECK_INT(s.count, 3);
    chr_watch_stop(&s.watch);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    close(twin);
    close(fds[0]);
    close(fds[1]);
    rig_close(&r);
}

/* Each entry is for its own descriptor, and each watch for what it wants. */
TEST(entries_of_one_bucket_are_kept_apart)
{
    int      fds[2], twin, i, timeout;
    spot     s[2];
    chr_poll polls[8];
    rig      r;
    rig_open(&r);
    memset(s, 0, sizeof s);
    ready_pair(fds, &twin);
    spot_start(&s[0], &r, fds[0], CHR_IN);
    spot_start(&s[1], &r, twin, CHR_IN);
    for (i = 0; i < 2; i++) {
        chr_poll only;
        REQUIRE(chr_loop_prepare(r.ctx, polls, 8, &timeout) >= 2);
        memset(&only, 0, sizeof only);
        only.fd = i ? twin : fds[0];
        only.events = CHR_IN; /* in place of poll()'s answer */
        CHECK_INT(chr_loop_dispatch(r.ctx, &only, 1), 1);
        CHECK_INT(s[i].count, 1);
        CHECK_INT(s[!i].count, i);
    }
    for (i = 0; i < 2; i++) chr_watch_stop(&s[i].watch);
    close(twin);
    close(fds[0]);
    close(fds[1]);
    rig_close(&r);
}

#endif

/* ---- watches that go and come ------------------------------------------------------------------------------------ */

static void take_its_place(spot *s)
{
    s->then = NULL;
    chr_watch_stop(&s->other[0].watch);
    spot_start(&s->other[1], s->r, s->fd, CHR_IN);
}

/* What the descriptor before it was ready for is nothing to a watch that gets its place. */
TEST(a_watch_in_the_place_of_a_ready_one_is_not_ready)
{
    int  ready[2], quiet[2];
    spot first, others[2];
    rig  r;
    rig_open(&r);
    memset(&first, 0, sizeof first);
    memset(others, 0, sizeof others);
    socket_pair(ready);
    socket_pair(quiet);
    say(ready[1], "x");
    spot_start(&first, &r, ready[0], CHR_IN);
    spot_start(&others[0], &r, ready[0], CHR_IN);
    first.other = others;
    first.fd = quiet[0];
    first.then = take_its_place;
    CHECK_INT(chr_loop_step(r.ctx, 1000), 1);
    CHECK_INT(first.count, 1);
    CHECK_INT(others[0].count, 0);
    CHECK_INT(others[1].count, 0);
    chr_watch_stop(&first.watch);
    chr_watch_stop(&others[1].watch);
    close(ready[0]), close(ready[1]), close(quiet[0]), close(quiet[1]);
    rig_close(&r);
}

/* A watch is still ready, and is stopped before its next call: its memory may be freed by then. */
TEST(a_watch_that_was_to_run_again_is_stopped)
{
    int  fds[3][2], i;
    spot s[3];
    rig  r;
    rig_open_hooked(&r);
    memset(s, 0, sizeof s);
    for (i = 0; i < 3; i++) {
        socket_pair(fds[i]);
        say(fds[i][1], "x");
        spot_start(&s[i], &r, fds[i][0], CHR_IN);
        chr_watch_ready(&s[i].watch, CHR_IN);
        CHECK_INT(s[i].count, 1);
    }
    CHECK_INT(chr_loop_timeout(r.ctx), 0);
    chr_watch_stop(&s[1].watch);
    memset(&s[1].watch, 0, sizeof s[1].watch);
    CHECK_INT(chr_loop_dispatch(r.ctx, NULL, 0), 2);
    CHECK_INT(s[0].count, 2);
    CHECK_INT(s[1].count, 1);
    CHECK_INT(s[2].count, 2);
    chr_watch_stop(&s[2].watch);
    memset(&s[2].watch, 0, sizeof s[2].watch);
    CHECK_INT(chr_loop_dispatch(r.ctx, NULL, 0), 1);
    chr_watch_stop(&s[0].watch);
    memset(&s[0].watch, 0, sizeof s[0].watch);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    CHECK_INT(chr_loop_dispatch(r.ctx, NULL, 0), 0);
    for (i = 0; i < 3; i++) close(fds[i][0]), close(fds[i][1]);
    rig_close(&r);
}

/* ---- time-outs --------------------------------------------------------------------------------------------------- */

TEST(what_makes_the_timeout_0)
{
    static chr_timer timer;
    recorder         rec;
    spot             s;
    chr_poll         polls[8];
    int              timeout = -2;
    rig              r;
    rig_open_virtual(&r);
    memset(&s, 0, sizeof s);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    chr_idle_start(r.ctx, &s.idle, spot_idle, &s);
    CHECK_INT(chr_loop_timeout(r.ctx), 0);
    settle(&r);
    CHECK_INT(s.count, 1);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    attach(&rec, make(&r, "ringbuf,id=b"));
    settle(&r);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    REQUIRE(chr_fe_set_buffers(&rec.fe, 0, 100) == 0);
    CHECK_INT(chr_fe_write(&rec.fe, "gathered", 8), 8);
    CHECK_INT(chr_loop_timeout(r.ctx), 0); /* it goes with the next step */
    settle(&r);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    chr_loop_stop(r.ctx);
    CHECK_INT(chr_loop_timeout(r.ctx), 0);
    CHECK_INT(chr_loop_step(r.ctx, 0), CHR_ERR_STOPPED);
    settle(&r);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    chr_timer_start(r.ctx, &timer, 5, spot_idle, &s);
    CHECK_INT(chr_loop_timeout(r.ctx), 5);
    r.now += 1;
    CHECK_INT(chr_loop_timeout(r.ctx), 5); /* rounded up */
    r.now += 999999;
    CHECK_INT(chr_loop_timeout(r.ctx), 4);
    r.now += 3000001;
    CHECK_INT(chr_loop_timeout(r.ctx), 1);
    r.now += 999999;
    CHECK_INT(chr_loop_timeout(r.ctx), 0);
    r.now += 5000000;
    CHECK_INT(chr_loop_timeout(r.ctx), 0);
    chr_timer_start(r.ctx, &timer, 86400000, spot_idle, &s);
    CHECK_INT(chr_loop_timeout(r.ctx), 86400000);
    chr_timer_start(r.ctx, &timer, 86400001, spot_idle, &s);
    CHECK_INT(chr_loop_timeout(r.ctx), 86400000); /* a day, and then it is asked again */
    chr_timer_start(r.ctx, &timer, 7, spot_idle, &s);
    CHECK(chr_loop_prepare(r.ctx, polls, 8, &timeout) >= 0);
    CHECK_INT(timeout, 7);
    chr_timer_stop(&timer);
    CHECK(chr_loop_prepare(r.ctx, polls, 8, &timeout) >= 0);
    CHECK_INT(timeout, -1);
    detach(&rec);
    rig_close(&r);
}

/* A frontend without room that does not call chr_fe_accept_input(): a foreign loop retries at least every 100 ms. */
TEST(who_starves_makes_the_timeout_shorter)
{
    static chr_timer timer;
    recorder         rec;
    spot             s;
    chr_poll         polls[8];
    char             options[80];
    int              timeout = -2, fds[2];
    rig              r;
    rig_open_virtual(&r);
    memset(&s, 0, sizeof s);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    attach_with_room(&rec, make(&r, options), 0);
    settle(&r);
    say(fds[1], "abc");
    settle(&r);
    CHECK(chr_loop_prepare(r.ctx, polls, 8, &timeout) >= 0);
    CHECK_INT(timeout, 100);
    chr_timer_start(r.ctx, &timer, 150, spot_idle, &s);
    CHECK(chr_loop_prepare(r.ctx, polls, 8, &timeout) >= 0);
    CHECK_INT(timeout, 100);
    chr_timer_start(r.ctx, &timer, 99, spot_idle, &s);
    CHECK(chr_loop_prepare(r.ctx, polls, 8, &timeout) >= 0);
    CHECK_INT(timeout, 99);
    chr_timer_stop(&timer);
    rec.room = 10;
    settle(&r);
    CHECK_INPUT(&rec, "abc");
    CHECK(chr_loop_prepare(r.ctx, polls, 8, &timeout) >= 0);
    CHECK_INT(timeout, -1);
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}

/* ---- how many are asked for room --------------------------------------------------------------------------------- */

enum { HUNGRY = 40, ASKED_A_STEP = 16 };

static int hungry_asked[HUNGRY];

static int hungry_can_read(void *opaque)
{
    hungry_asked[(int *)opaque - hungry_asked]++;
    return 0;
}

/* Of many frontends that don't call chr_fe_accept_input(), a part is polled in each step, round-robin. */
TEST(the_hungry_are_asked_in_turn)
{
    static const chr_handlers handlers = { hungry_can_read, NULL, NULL, NULL };
    static chr_frontend       fes[HUNGRY];
    int                       fds[HUNGRY][2], i, step, before[HUNGRY], asked;
    char                      options[80];
    rig                       r;
    chr_handlers              reads = handlers;
    reads.read = recorder_read;
    rig_open_virtual(&r);
    for (i = 0; i < HUNGRY; i++) {
        socket_pair(fds[i]);
        say(fds[i][1], "x");
        snprintf(options, sizeof options, "socket,id=s%d,fd=%d", i, fds[i][0]);
        REQUIRE(chr_fe_init(&fes[i], make(&r, options), NULL) == 0);
        chr_fe_set_handlers(&fes[i], &reads, &hungry_asked[i]);
    }
    settle(&r);
    for (i = 0; i < 20; i++) usleep(1000), chr_loop_step(r.ctx, 0); /* over TCP bytes arrive when they do */
    for (step = 0; step < 10; step++) {
        memcpy(before, hungry_asked, sizeof before);
        chr_loop_step(r.ctx, 0);
        for (asked = i = 0; i < HUNGRY; i++) {
            CHECK(hungry_asked[i] - before[i] <= 1);
            asked += hungry_asked[i] - before[i];
        }
        CHECK_INT(asked, ASKED_A_STEP);
    }
    for (asked = 0, i = 1; i < HUNGRY; i++) asked += hungry_asked[i] > hungry_asked[0] + 1 || hungry_asked[i] < hungry_asked[0] - 1;
    CHECK_INT(asked, 0);
    for (i = 0; i < HUNGRY; i++) chr_fe_deinit(&fes[i]), close(fds[i][1]);
    rig_close(&r);
}

/* ---- at rest nothing waits --------------------------------------------------------------------------------------- */

static void check_rest(rig *r, const char *after)
{
    settle(r);
    if (!CHECK_INT(private_waiting(r->ctx), 0)) NOTE("after %s", after);
}

/* What is done before the loop sleeps is counted: with nothing in line a step takes the short way. */
TEST(at_rest_nothing_waits)
{
    recorder  rec, other;
    chr_error err;
    char      options[80];
    int       fds[2], i;
    rig       r;
    rig_open_virtual(&r);
    check_rest(&r, "nothing");
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    attach_with_room(&rec, make(&r, options), 0);
    settle(&r);
    say(fds[1], "abc");
    settle(&r);
    CHECK(private_waiting(r.ctx) > 0);
    give_room(&rec, 10);
    check_rest(&r, "room");
    CHECK_INPUT(&rec, "abc");
    REQUIRE(chr_fe_set_buffers(&rec.fe, 4, 100) == 0);
    CHECK_INT(chr_fe_write(&rec.fe, "one", 3), 3);
    CHECK(private_waiting(r.ctx) > 0);
    check_rest(&r, "gathered output");
    CHECK_STR(hear(fds[1]), "one");
    attach(&other, make(&r, "ringbuf,id=b"));
    REQUIRE(chr_fe_set_buffers(&other.fe, 4, 100) == 0);
    for (i = 0; i < 3; i++) {
        CHECK_INT(chr_fe_write(&rec.fe, "two", 3), 3);
        CHECK_INT(chr_fe_write(&other.fe, "two", 3), 3);
        if (i == 1) chr_fe_flush(&rec.fe, 0);
        if (i == 2) chr_fe_flush(&other.fe, 0);
        check_rest(&r, "gathered output of two");
    }
    rec.room = 0;
    say(fds[1], "more than the buffer has");
    settle(&r);
    chr_fe_accept_input(&rec.fe);
    settle(&r);
    detach(&other);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", &err), 0);
    CHECK_INT(chr_remove(r.ctx, "b", &err), 0);
    check_rest(&r, "removal");
    close(fds[1]);
    rig_close(&r);
}

/* ---- wake-ups ---------------------------------------------------------------------------------------------------- */

/* However much changes while a loop sleeps, one byte wakes it. */
TEST(a_sleeping_loop_is_woken_once)
{
#ifndef _WIN32
    static spot     s[5];
    chr_poll        polls[4];
    int             timeout, i, bytes = -1;
    rig             r;
    rig_open_virtual(&r);
    REQUIRE(chr_loop_prepare(r.ctx, polls, 4, &timeout) == 1);
    for (i = 0; i < 5; i++) chr_idle_start(r.ctx, &s[i].idle, spot_idle, &s[i]);
    REQUIRE(ioctl(polls[0].fd, FIONREAD, &bytes) == 0);
    CHECK_INT(bytes, 1);
    settle(&r);
    for (i = 0; i < 5; i++) CHECK_INT(s[i].count, 1);
    rig_close(&r);
#else
    SKIP("what wakes a loop is no pipe on this system");
#endif
}
