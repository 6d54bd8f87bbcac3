/*
 * Many descriptors on one loop: the cost of an event, and that no event is lost. One descriptor for all of them
 * (chr_loop_fd).
 */
#include "fault.h"
#include "chardev.h"
#include "counted.h"
#include "rig.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

/* As many descriptors as can be had; fewer than needed skip the test. */
static void need_descriptors(int count)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < (rlim_t)count + 100) SKIP("the limit of descriptors is too low");
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* ---- frontends without room -------------------------------------------------------------------------------------- */

enum { STARVED = 2000 };

typedef struct mouth {
    chr_frontend fe;
    int          fd, room, got;
} mouth;

static mouth mouths[STARVED];
static int   asked;

static int mouth_can_read(void *opaque)
{
    asked++;
    return ((mouth *)opaque)->room;
}

static void mouth_read(void *opaque, const void *buf, size_t len)
{
    (void)buf;
    ((mouth *)opaque)->got += (int)len;
}

static void open_mouths(rig *r)
{
    static const chr_handlers handlers = { mouth_can_read, mouth_read, NULL, NULL };
    char                      options[80];
    int                       i;
    need_descriptors(STARVED);
    rig_open(r);
    for (i = 0; i < STARVED; i++) {
        memset(&mouths[i], 0, sizeof mouths[i]);
        REQUIRE((mouths[i].fd = eventfd(1, EFD_NONBLOCK)) >= 0); /* 8 bytes wait there */
        snprintf(options, sizeof options, "fd,id=m%d,in=%d", i, mouths[i].fd);
        REQUIRE(chr_fe_init(&mouths[i].fe, make(r, options), NULL) == 0);
        chr_fe_set_handlers(&mouths[i].fe, &handlers, &mouths[i]);
    }
    chr_loop_step(r->ctx, 0);
}

static void close_mouths(rig *r)
{
    int  i;
    char id[20];
    for (i = 0; i < STARVED; i++) {
        chr_fe_deinit(&mouths[i].fe);
        snprintf(id, sizeof id, "m%d", i);
        CHECK_INT(chr_remove(r->ctx, id, NULL), 0);
    }
    rig_close(r);
}

TEST(starved_frontends_cost_nothing_until_they_ask)
{
    int i;
    rig r;
    open_mouths(&r);
    CHECK(asked >= STARVED);
    asked = 0;
    for (i = 0; i < 50; i++) chr_loop_step(r.ctx, 0);
    CHECK(asked <= 50 * 20 + 2 * STARVED); /* a few a step, and all once in a while */
    mouths[STARVED / 2].room = 100;
    chr_fe_accept_input(&mouths[STARVED / 2].fe);
    chr_loop_step(r.ctx, 0);
    CHECK_INT(mouths[STARVED / 2].got, 8);
    close_mouths(&r);
}

TEST(starved_frontend_that_does_not_ask_is_late_not_deaf)
{
    int64_t start = real_ms();
    rig     r;
    open_mouths(&r);
    chr_loop_step(r.ctx, 0);
    mouths[0].room = mouths[STARVED / 2].room = mouths[STARVED - 1].room = 100;
    while (mouths[0].got + mouths[STARVED / 2].got + mouths[STARVED - 1].got < 24 && real_ms() - start < RIG_PATIENCE_MS)
        chr_loop_step(r.ctx, 10);
    CHECK_INT(mouths[0].got + mouths[STARVED / 2].got + mouths[STARVED - 1].got, 24);
    close_mouths(&r);
}

/* They go from any place in the queue. */
TEST(starved_chardevs_are_removed_in_any_order)
{
    static int order[STARVED];
    char       id[20];
    int        i, other, swap;
    rig        r;
    open_mouths(&r);
    for (i = 0; i < STARVED; i++) order[i] = i;
    for (i = STARVED - 1; i > 0; i--) other = (i * 7919) % (i + 1), swap = order[i], order[i] = order[other], order[other] = swap;
    for (i = 0; i < STARVED; i++) {
        chr_fe_deinit(&mouths[order[i]].fe);
        snprintf(id, sizeof id, "m%d", order[i]);
        CHECK_INT(chr_remove(r.ctx, id, NULL), 0);
        if (i % 3 == 0) chr_loop_step(r.ctx, 0);
        if (i % 5 == 0 && i + 7 < STARVED) chr_fe_accept_input(&mouths[order[i + 7]].fe);
    }
    rig_close(&r);
}

/* ---- the kernel's set -------------------------------------------------------------------------------------------- */

enum { LOTS = 100 }; /* more than poll() is asked for */

typedef struct eye {
    chr_watch watch;
    rig      *r;
    int       fds[2]; /* a socket pair: watched is the first */
    int       count, events;
    void    (*then)(struct eye *);
    struct eye *other;
} eye;

static eye eyes[500];

static void eye_ready(void *opaque, int events)
{
    eye *e = (eye *)opaque;
    e->count++;
    e->events = events;
    if (e->then) e->then(e);
}

static void eye_start(eye *e, int fd, int events)
{
    CHECK_INT(chr_watch_start(e->r->ctx, &e->watch, fd, events, eye_ready, e), 0);
}

static void eye_init(eye *e, rig *r)
{
    memset(e, 0, sizeof *e);
    e->r = r;
    e->fds[0] = e->fds[1] = -1;
}

static void open_eyes(rig *r, int count)
{
    int i;
    need_descriptors(2 * count);
    for (i = 0; i < count; i++) {
        eye_init(&eyes[i], r);
        socket_pair(eyes[i].fds);
        eye_start(&eyes[i], eyes[i].fds[0], CHR_IN);
    }
}

static void close_eyes(int count)
{
    int i;
    for (i = 0; i < count; i++) {
        chr_watch_stop(&eyes[i].watch);
        close(eyes[i].fds[0]), close(eyes[i].fds[1]);
    }
}

static void open_many(rig *r)
{
    rig_open(r);
    open_eyes(r, LOTS);
    CHECK_INT(chr_loop_step(r->ctx, 0), 0);
    fault_arm(FAULT_access, 0, 0, 0); /* counts from here */
}

static void close_many(rig *r)
{
    fault_disarm();
    close_eyes(LOTS);
    rig_close(r);
}

static long calls(fault_call call) { return fault_plan.counts[call]; }

TEST(few_descriptors_are_polled)
{
    rig r;
    fault_arm(FAULT_access, 0, 0, 0);
    rig_open(&r);
    open_eyes(&r, 20);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    CHECK_INT(calls(FAULT_epoll_create1), 0);
    CHECK_INT(calls(FAULT_poll), 1);
    close_eyes(20);
    rig_close(&r);
}

TEST(event_among_many_is_one_call)
{
    int i;
    rig r;
    open_many(&r);
    for (i = 0; i < 10; i++) {
        say(eyes[i * 7].fds[1], "x");
        CHECK_INT(chr_loop_step(r.ctx, -1), 1);
        CHECK_INT(eyes[i * 7].count, 1);
        CHECK_INT(eyes[i * 7].events, CHR_IN);
        hear(eyes[i * 7].fds[0]);
    }
    CHECK_INT(calls(FAULT_epoll_wait), 10);
    CHECK_INT(calls(FAULT_poll), 0);
    CHECK_INT(calls(FAULT_epoll_ctl), 0);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    say(eyes[50].fds[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK_INT(chr_loop_step(r.ctx, 0), 1); /* it is a level, not an edge */
    close_many(&r);
}

/* In steps: it is the same whatever else the machine does. */
static uint64_t cost_of_events(int idle)
{
    static chr_watch watches[4000];
    static int       fds[4000];
    uint64_t         before;
    int              i, round;
    eye              e;
    rig              r;
    rig_open(&r);
    for (i = 0; i < idle; i++) {
        memset(&watches[i], 0, sizeof watches[i]);
        REQUIRE((fds[i] = eventfd(0, EFD_NONBLOCK)) >= 0);
        CHECK_INT(chr_watch_start(r.ctx, &watches[i], fds[i], CHR_IN, eye_ready, &e), 0);
    }
    eye_init(&e, &r);
    socket_pair(e.fds);
    eye_start(&e, e.fds[0], CHR_IN);
    chr_loop_step(r.ctx, 0);
    before = counted_steps;
    for (round = 0; round < 200; round++) {
        say(e.fds[1], "x");
        CHECK_INT(chr_loop_step(r.ctx, -1), 1);
        hear(e.fds[0]);
    }
    before = counted_steps - before;
    chr_watch_stop(&e.watch);
    close(e.fds[0]), close(e.fds[1]);
    for (i = 0; i < idle; i++) chr_watch_stop(&watches[i]), close(fds[i]);
    rig_close(&r);
    return before;
}

/* No system call gets the list of all descriptors: see event_among_many_is_one_call. */
TEST(event_among_many_costs_as_among_few)
{
    uint64_t few, many;
    need_descriptors(4000);
    few = cost_of_events(400);
    many = cost_of_events(4000);
    if (!counted_steps) SKIP("the implementation is not built with counters");
    if (!CHECK(few > 0 && many < 2 * few)) NOTE("%d steps among 400, %d among 4000", (int)few, (int)many);
}

TEST(interest_that_comes_and_goes_costs_no_call)
{
    int i;
    rig r;
    open_many(&r);
    for (i = 0; i < 20; i++) {
        chr_watch_set(&eyes[3].watch, CHR_HUP);
        chr_watch_set(&eyes[3].watch, CHR_IN);
        chr_watch_set(&eyes[4].watch, 0);
        chr_watch_set(&eyes[4].watch, CHR_IN | CHR_OUT);
        chr_watch_set(&eyes[4].watch, CHR_IN);
        CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    }
    for (i = 0; i < 20; i++) { /* nor between steps, as long as nothing comes */
        chr_watch_set(&eyes[3].watch, i % 2 ? CHR_IN : 0);
        CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    }
    CHECK_INT(calls(FAULT_epoll_ctl), 0);
    chr_watch_set(&eyes[3].watch, 0);
    say(eyes[3].fds[1], "x");
    for (i = 0; i < 5; i++) CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    CHECK_INT(eyes[3].count, 0);
    CHECK_INT(calls(FAULT_epoll_ctl), 1); /* out it goes, */
    chr_watch_set(&eyes[3].watch, CHR_IN);
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK_INT(eyes[3].count, 1);
    CHECK_INT(calls(FAULT_epoll_ctl), 2); /* and in again */
    close_many(&r);
}

TEST(hang_ups_among_many)
{
    rig r;
    open_many(&r);
    chr_watch_set(&eyes[0].watch, CHR_HUP);
    chr_watch_set(&eyes[1].watch, CHR_IN);
    chr_watch_set(&eyes[2].watch, 0);
    chr_watch_set(&eyes[3].watch, CHR_OUT);
    chr_watch_set(&eyes[4].watch, 8); /* the full hang-up alone, as the library has it */
    shutdown(eyes[0].fds[1], SHUT_WR), shutdown(eyes[1].fds[1], SHUT_WR), shutdown(eyes[2].fds[1], SHUT_WR);
    shutdown(eyes[3].fds[1], SHUT_WR), shutdown(eyes[4].fds[1], SHUT_WR);
    CHECK_INT(chr_loop_step(r.ctx, 0), 3);
    CHECK_INT(eyes[0].events, CHR_HUP);
    CHECK_INT(eyes[1].events, CHR_IN);
    CHECK_INT(eyes[3].events, CHR_OUT);
    CHECK_INT(chr_loop_step(r.ctx, 0), 3);
    close(eyes[2].fds[1]), close(eyes[3].fds[1]), close(eyes[4].fds[1]);
    eyes[2].fds[1] = eyes[3].fds[1] = eyes[4].fds[1] = -1;
    CHECK_INT(chr_loop_step(r.ctx, 0), 4);
    CHECK_INT(eyes[2].count, 0);
    CHECK_INT(eyes[3].events, CHR_OUT | CHR_HUP);
    CHECK_INT(eyes[4].events, CHR_HUP);
    close_many(&r);
}

/* epoll takes no regular file; for poll() it is always ready. The others go on in the set. */
TEST(files_among_many)
{
    char    path[] = "/tmp/chardev-loop-XXXXXX";
    eye     file;
    int     i;
    int64_t start;
    rig     r;
    open_many(&r);
    eye_init(&file, &r);
    file.fds[0] = mkstemp(path);
    REQUIRE(file.fds[0] >= 0);
    unlink(path);
    eye_start(&file, file.fds[0], CHR_IN | CHR_OUT);
    for (i = 0; i < 3; i++) {
        say(eyes[90 + i].fds[1], "x");
        CHECK_INT(chr_loop_step(r.ctx, -1), 2 + i);
        CHECK_INT(file.count, i + 1);
        CHECK_INT(file.events, CHR_IN | CHR_OUT);
        CHECK_INT(eyes[90 + i].count, 1);
    }
    for (i = 0; i < 3; i++) hear(eyes[90 + i].fds[0]);
    chr_watch_set(&file.watch, CHR_HUP);
    start = real_ms();
    CHECK_INT(chr_loop_step(r.ctx, 50), 0);
    CHECK(real_ms() - start >= 45);
    say(eyes[7].fds[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 50), 1);
    hear(eyes[7].fds[0]);
    chr_watch_stop(&file.watch);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    close(file.fds[0]);
    close_many(&r);
}

/* One of two files goes: what poll() waited for in its place doesn't hide the others. */
TEST(one_of_two_files_goes_among_many)
{
    char path[] = "/tmp/chardev-loop-XXXXXX";
    eye  files[2];
    int  i;
    rig  r;
    open_many(&r);
    for (i = 0; i < 2; i++) {
        eye_init(&files[i], &r);
        files[i].fds[0] = i ? dup(files[0].fds[0]) : mkstemp(path);
        REQUIRE(files[i].fds[0] >= 0);
        eye_start(&files[i], files[i].fds[0], CHR_OUT);
    }
    unlink(path);
    CHECK_INT(chr_loop_step(r.ctx, 0), 2);
    chr_watch_stop(&files[1].watch);
    say(eyes[7].fds[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 0), 2);
    CHECK_INT(files[0].count, 2);
    CHECK_INT(files[1].count, 1);
    CHECK_INT(eyes[7].count, 1);
    hear(eyes[7].fds[0]);
    chr_watch_stop(&files[0].watch);
    close(files[0].fds[0]), close(files[1].fds[0]);
    close_many(&r);
}

TEST(closed_descriptor_among_many)
{
    eye e;
    int i;
    rig r;
    open_many(&r);
    eye_init(&e, &r);
    eye_start(&e, 19000, CHR_IN);
    for (i = 1; i < 4; i++) {
        CHECK_INT(chr_loop_step(r.ctx, -1), 1);
        CHECK_INT(e.count, i);
        CHECK_INT(e.events, CHR_HUP);
    }
    chr_watch_stop(&e.watch);
    close_many(&r);
}

TEST(descriptor_watched_twice)
{
    eye second, third;
    rig r;
    open_many(&r);
    eye_init(&second, &r), eye_init(&third, &r);
    eye_start(&second, eyes[5].fds[0], CHR_OUT);
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK_INT(second.events, CHR_OUT);
    eye_start(&third, eyes[5].fds[0], CHR_IN);
    say(eyes[5].fds[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 0), 3);
    CHECK_INT(eyes[5].count, 1);
    CHECK_INT(eyes[5].events, CHR_IN);
    CHECK_INT(third.events, CHR_IN);
    CHECK_INT(second.count, 2);
    chr_watch_stop(&eyes[5].watch); /* the first of them had the entry */
    CHECK_INT(chr_loop_step(r.ctx, 0), 2);
    CHECK_INT(third.count, 2);
    chr_watch_stop(&second.watch);
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    chr_watch_stop(&third.watch);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    close_many(&r);
}

/* The descriptor number is reused while the old watch still exists, or was stopped too late. */
static void check_reuse(int stop_before)
{
    eye old, fresh;
    int other[2], number;
    rig r;
    open_many(&r);
    eye_init(&old, &r), eye_init(&fresh, &r);
    socket_pair(old.fds);
    number = old.fds[0];
    eye_start(&old, number, CHR_IN);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    close(number);
    socket_pair(other);
    REQUIRE(dup2(other[0], number) == number);
    if (stop_before == 0) chr_watch_stop(&old.watch);
    eye_start(&fresh, number, CHR_IN);
    if (stop_before == 1) chr_watch_stop(&old.watch);
    say(other[1], "x");
    CHECK(chr_loop_step(r.ctx, 0) >= 1);
    CHECK_INT(fresh.count, 1);
    if (stop_before == 2) chr_watch_stop(&old.watch);
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK_INT(fresh.count, 2);
    chr_watch_stop(&fresh.watch);
    close(number), close(old.fds[1]), close(other[0]), close(other[1]);
    close_many(&r);
}

TEST(number_reused_behind_the_stop) { check_reuse(0); }
TEST(number_reused_stopped_behind_the_start) { check_reuse(1); }
TEST(number_reused_stopped_late) { check_reuse(2); }

/* Closed first and stopped then, while a copy keeps the description: its entry can't be taken out any more. */
TEST(entry_that_lives_on_with_a_copy_does_not_spin)
{
    eye     e;
    int     i, copy;
    int64_t start;
    rig     r;
    open_many(&r);
    eye_init(&e, &r);
    socket_pair(e.fds);
    eye_start(&e, e.fds[0], CHR_IN);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    copy = dup(e.fds[0]);
    close(e.fds[0]);
    chr_watch_stop(&e.watch);
    say(e.fds[1], "x");
    for (i = 0; i < 3; i++) chr_loop_step(r.ctx, 10);
    start = real_ms();
    CHECK_INT(chr_loop_step(r.ctx, 50), 0);
    CHECK(real_ms() - start >= 45);
    say(eyes[9].fds[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 1000), 1); /* the others are there still */
    CHECK_INT(eyes[9].count, 1);
    close(copy), close(e.fds[1]);
    close_many(&r);
}

/* Closed while watched, and the watch was not stopped: input of the duplicate is not that of the descriptor that has
 * the number now. */
TEST(entry_that_lives_on_is_not_that_of_the_number)
{
    eye     old, fresh;
    int     i, copy, other[2], number;
    int64_t start;
    rig     r;
    open_many(&r);
    eye_init(&old, &r), eye_init(&fresh, &r);
    socket_pair(old.fds);
    number = old.fds[0];
    eye_start(&old, number, CHR_IN);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    copy = dup(number);
    socket_pair(other);
    REQUIRE(dup2(other[0], number) == number);
    eye_start(&fresh, number, CHR_IN);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    say(old.fds[1], "x");
    for (i = 0; i < 3; i++) CHECK_INT(chr_loop_step(r.ctx, 10), 0);
    start = real_ms();
    CHECK_INT(chr_loop_step(r.ctx, 50), 0);
    CHECK(real_ms() - start >= 45);
    CHECK_INT(fresh.count, 0);
    say(other[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 1000), 2); /* both watch the number */
    CHECK_INT(fresh.count, 1);
    chr_watch_stop(&old.watch), chr_watch_stop(&fresh.watch);
    close(number), close(copy), close(old.fds[1]), close(other[0]), close(other[1]);
    close_many(&r);
}

/* Several entries of that kind are one new set, not one each. */
TEST(entries_that_live_on_cost_one_new_set)
{
    eye  e[8];
    int  i, copies[8];
    long before;
    rig  r;
    open_many(&r);
    for (i = 0; i < 8; i++) {
        eye_init(&e[i], &r);
        socket_pair(e[i].fds);
        eye_start(&e[i], e[i].fds[0], CHR_IN);
    }
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    for (i = 0; i < 8; i++) {
        copies[i] = dup(e[i].fds[0]);
        close(e[i].fds[0]);
        chr_watch_stop(&e[i].watch);
        say(e[i].fds[1], "x");
    }
    before = fault_plan.counts[FAULT_epoll_create1];
    for (i = 0; i < 5; i++) CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    CHECK_INT(fault_plan.counts[FAULT_epoll_create1] - before, 1);
    for (i = 0; i < 8; i++) close(copies[i]), close(e[i].fds[1]);
    close_many(&r);
}

TEST(more_are_ready_than_fit)
{
    int i, total = 0;
    rig r;
    rig_open(&r);
    open_eyes(&r, 300);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    for (i = 0; i < 300; i++) say(eyes[i].fds[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 0), 300);
    for (i = 0; i < 300; i++) {
        CHECK_INT(eyes[i].count, 1);
        hear(eyes[i].fds[0]);
    }
    for (i = 0; i < 10; i++) total += chr_loop_step(r.ctx, 0);
    CHECK_INT(total, 0);
    close_eyes(300);
    rig_close(&r);
}

static void stop_the_other(eye *e)
{
    chr_watch_stop(&e->other->watch);
    eye_start(e->other, e->other->fds[0], CHR_IN); /* a new watch: not in this step */
}

TEST(watch_stopped_among_many_that_are_ready)
{
    rig r;
    open_many(&r);
    eyes[10].other = &eyes[20], eyes[20].other = &eyes[10];
    eyes[10].then = eyes[20].then = stop_the_other;
    say(eyes[10].fds[1], "x"), say(eyes[20].fds[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK_INT(eyes[10].count + eyes[20].count, 1);
    eyes[10].then = eyes[20].then = NULL;
    CHECK_INT(chr_loop_step(r.ctx, 0), 2);
    close_many(&r);
}

/* ---- what may fail ----------------------------------------------------------------------------------------------- */

static void check_fault(fault_call call, int error, long at, int for_good)
{
    int i, n;
    rig r;
    rig_open(&r);
    open_eyes(&r, LOTS);
    fault_arm(call, error, at, for_good);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    CHECK(fault_plan.fired > 0);
    if (!for_good) fault_disarm();
    for (i = 0; i < LOTS; i++) say(eyes[i].fds[1], "x");
    n = chr_loop_step(r.ctx, 1000);
    CHECK_INT(n, LOTS);
    for (i = 0; i < LOTS; i++) {
        CHECK_INT(eyes[i].count, 1);
        hear(eyes[i].fds[0]);
    }
    CHECK_INT(chr_loop_step(r.ctx, 10), 0);
    chr_watch_set(&eyes[3].watch, CHR_OUT);
    CHECK_INT(chr_loop_step(r.ctx, 10), 1);
    fault_disarm();
    close_eyes(LOTS);
    rig_close(&r);
}

TEST(without_a_set_poll_does)
{
    check_fault(FAULT_epoll_create1, EMFILE, 1, 1);
    check_fault(FAULT_epoll_create1, ENOSYS, 1, 1);
    check_fault(FAULT_mmap, ENOMEM, 1, 1);
    check_fault(FAULT_madvise, EINVAL, 1, 1);
}

TEST(descriptors_that_the_set_refuses_are_polled)
{
    int at;
    check_fault(FAULT_epoll_ctl, ENOMEM, 1, 1);
    check_fault(FAULT_epoll_ctl, ENOSPC, 50, 1);
    for (at = 1; at <= LOTS; at += 20) check_fault(FAULT_epoll_ctl, ENOMEM, at, 0);
}

/* Out of memory for the events of the set. */
TEST(set_without_memory)
{
    int at, i;
    for (at = 1; at <= 2; at++) {
        rig r;
        rig_open(&r);
        open_eyes(&r, LOTS);
        r.fail_at = r.calls + at;
        CHECK_INT(chr_loop_step(r.ctx, 0), 0);
        for (i = 0; i < LOTS; i++) say(eyes[i].fds[1], "x");
        CHECK_INT(chr_loop_step(r.ctx, 0), LOTS);
        close_eyes(LOTS);
        rig_close(&r);
    }
}

TEST(wait_that_fails_is_an_error_of_the_step)
{
    rig r;
    open_many(&r);
    fault_arm(FAULT_epoll_wait, EINTR, 1, 0);
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    fault_arm(FAULT_epoll_wait, EIO, 1, 0);
    CHECK_INT(chr_loop_step(r.ctx, 0), CHR_ERR_IO);
    fault_disarm();
    CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    close_many(&r);
}

/* ---- fork -------------------------------------------------------------------------------------------------------- */

/* What the child does with its copy of the context is no business of the parent's, and the other way round. */
TEST(child_leaves_the_parents_set_alone)
{
    int   i, status;
    pid_t child;
    rig   r;
    open_many(&r);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        for (i = 0; i < LOTS; i += 2) chr_watch_stop(&eyes[i].watch);
        for (i = 1; i < LOTS; i += 2) chr_watch_set(&eyes[i].watch, CHR_OUT);
        i = chr_loop_step(r.ctx, 1000);
        chr_context_free(r.ctx);
        _exit(i == LOTS / 2 ? 0 : 1);
    }
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK_INT(status, 0);
    for (i = 0; i < LOTS; i++) {
        say(eyes[i].fds[1], "x");
        CHECK_INT(chr_loop_step(r.ctx, 1000), 1);
        CHECK_INT(eyes[i].count, 1);
        hear(eyes[i].fds[0]);
    }
    close_many(&r);
}

/* A program that goes into the background: the parent frees what it has, and the child goes on. */
TEST(child_goes_on_with_the_context)
{
    int   i, fds[2], status;
    pid_t child;
    char  go;
    rig   r;
    open_many(&r);
    REQUIRE(pipe(fds) == 0);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        i = read(fds[0], &go, 1) == 1 ? chr_loop_step(r.ctx, 1000) : -1;
        _exit(i == 1 && eyes[33].count == 1 ? 0 : 1);
    }
    for (i = 0; i < LOTS; i++) chr_watch_stop(&eyes[i].watch);
    chr_loop_step(r.ctx, 0);
    chr_context_free(r.ctx);
    say(eyes[33].fds[1], "x");
    REQUIRE(write(fds[1], "g", 1) == 1);
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK_INT(status, 0);
    CHECK_INT(r.live, 0);
    close_eyes(0);
}

/* ---- the same as poll(), whatever happens ------------------------------------------------------------------------ */

static uint64_t random_state;

static int random_below(int n)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (int)((random_state >> 33) % (unsigned)n);
}

static void random_op(rig *r, int count)
{
    static const int wants[] = { 0, CHR_IN, CHR_OUT, CHR_IN | CHR_OUT, CHR_HUP, CHR_IN | CHR_HUP, CHR_OUT | CHR_HUP };
    eye             *e = &eyes[random_below(count)], *f = &eyes[random_below(count)];
    char             buf[64];
    switch (random_below(9)) {
    case 0: chr_watch_stop(&e->watch); break;
    case 1: eye_start(e, e->fds[0], wants[random_below(7)]); break;
    case 2: eye_start(e, f->fds[0], wants[random_below(7)]); break; /* two of one, maybe */
    case 3: (void)!send(e->fds[1], "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL); break;
    case 4: (void)!recv(e->fds[0], buf, sizeof buf, MSG_DONTWAIT); break;
    case 5:
        if (random_below(20) == 0) shutdown(e->fds[1], random_below(2) ? SHUT_WR : SHUT_RDWR);
        break;
    case 6:
        if (random_below(4)) break; /* other sockets under the same numbers */
        for (f = eyes; f < eyes + count; f++)
            if (f->watch.slot && f->watch.fd == e->fds[0]) chr_watch_stop(&f->watch);
        close(e->fds[0]), close(e->fds[1]);
        socket_pair(e->fds);
        break;
    default: chr_watch_set(&e->watch, wants[random_below(7)]); break;
    }
    (void)r;
}

/* One step, compared with what poll() reports for each watch. */
static void compare_step(rig *r, int count, int seed)
{
    int i, expected = 0, ran;
    for (i = 0; i < count; i++) eyes[i].count = eyes[i].events = 0;
    ran = chr_loop_step(r->ctx, 0);
    for (i = 0; i < count; i++) {
        struct pollfd one;
        int           w = eyes[i].watch.slot ? eyes[i].watch.events : 0, said;
        one.fd = w ? eyes[i].watch.fd : -1;
        one.events = (short)((w & CHR_IN ? POLLIN : 0) | (w & CHR_OUT ? POLLOUT : 0) | ((w & (CHR_IN | CHR_HUP)) == CHR_HUP ? POLLRDHUP : 0));
        one.revents = 0;
        poll(&one, 1, 0);
        said = (one.revents & POLLIN ? CHR_IN : 0) | (one.revents & POLLOUT ? CHR_OUT : 0) | (one.revents & (POLLHUP | POLLERR | POLLRDHUP) ? CHR_HUP : 0);
        expected += said != 0;
        if (!CHECK_INT(eyes[i].events, said) || !CHECK_INT(eyes[i].count, said != 0)) NOTE("seed %d, watch %d of descriptor %d for %d", seed, i, eyes[i].watch.fd, w);
    }
    CHECK_INT(ran, expected);
}

TEST(random_operations_say_what_poll_says)
{
    int i, seed, steps;
    for (seed = 1; seed <= 30 && !test_failures; seed++) {
        rig r;
        rig_open(&r);
        random_state = (unsigned long)seed;
        open_eyes(&r, 60);
        settle(&r);
        for (steps = 0; steps < 60 && !test_failures; steps++) {
            for (i = random_below(20); i > 0; i--) random_op(&r, 60);
            compare_step(&r, 60, seed);
        }
        close_eyes(60);
        rig_close(&r);
    }
}

/* ---- one descriptor for another loop ----------------------------------------------------------------------------- */

static int readable(int fd, int timeout_ms)
{
    struct pollfd one;
    one.fd = fd;
    one.events = POLLIN;
    one.revents = 0;
    return poll(&one, 1, timeout_ms) == 1;
}

/* Steps while the descriptor is readable. */
static void serve(rig *r, int fd)
{
    int i;
    for (i = 0; i < 100 && readable(fd, 0); i++) chr_loop_step(r->ctx, 0);
    if (!CHECK(i < 100)) NOTE("the descriptor stays readable");
}

static void count_up(void *opaque) { (*(int *)opaque)++; }

TEST(loop_fd_is_readable_when_there_is_work)
{
    chr_idle  idle;
    chr_timer timer;
    int64_t   start;
    int       fd, count = 0;
    rig       r;
    rig_open(&r);
    memset(&idle, 0, sizeof idle), memset(&timer, 0, sizeof timer);
    open_eyes(&r, 3);
    fd = chr_loop_fd(r.ctx);
    REQUIRE(fd > 2);
    CHECK_INT(chr_loop_fd(r.ctx), fd);
    CHECK(!readable(fd, 20));
    say(eyes[1].fds[1], "x");
    CHECK(readable(fd, 1000));
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK(readable(fd, 0));
    hear(eyes[1].fds[0]);
    serve(&r, fd);
    CHECK(!readable(fd, 20));
    chr_idle_start(r.ctx, &idle, count_up, &count);
    CHECK(readable(fd, 0));
    serve(&r, fd);
    CHECK_INT(count, 1);
    start = real_ms();
    chr_timer_start(r.ctx, &timer, 50, count_up, &count);
    while (count < 2 && real_ms() - start < RIG_PATIENCE_MS)
        if (readable(fd, 1000)) chr_loop_step(r.ctx, 0);
    CHECK(real_ms() - start >= 50);
    CHECK_INT(count, 2);
    serve(&r, fd);
    CHECK(!readable(fd, 20));
    chr_loop_wake(r.ctx);
    CHECK(readable(fd, 0));
    serve(&r, fd);
    chr_loop_stop(r.ctx);
    CHECK(readable(fd, 0));
    CHECK_INT(chr_loop_step(r.ctx, 0), CHR_ERR_STOPPED);
    serve(&r, fd);
    CHECK(!readable(fd, 20));
    close_eyes(3);
    rig_close(&r);
}

/* A timer that is far, one that is nearer, the near one stopped. */
TEST(loop_fd_follows_the_timers)
{
    chr_timer far_one, near_one;
    int64_t   start = real_ms();
    int       fd, count = 0;
    rig       r;
    rig_open(&r);
    memset(&far_one, 0, sizeof far_one), memset(&near_one, 0, sizeof near_one);
    fd = chr_loop_fd(r.ctx);
    chr_timer_start(r.ctx, &far_one, 200, count_up, &count);
    serve(&r, fd);
    chr_timer_start(r.ctx, &near_one, 20, count_up, &count);
    serve(&r, fd);
    CHECK(readable(fd, 190));
    serve(&r, fd);
    CHECK_INT(count, 1);
    chr_timer_start(r.ctx, &near_one, 0, count_up, &count);
    CHECK(readable(fd, 0));
    serve(&r, fd);
    CHECK_INT(count, 2);
    chr_timer_start(r.ctx, &near_one, 10, count_up, &count);
    serve(&r, fd);
    chr_timer_stop(&near_one);
    while (count < 3 && real_ms() - start < RIG_PATIENCE_MS)
        if (readable(fd, 1000)) chr_loop_step(r.ctx, 0);
    CHECK(real_ms() - start >= 200);
    serve(&r, fd);
    CHECK(!readable(fd, 30));
    rig_close(&r);
}

static chr_idle thread_idle;
static int      thread_count;

static void *post_an_idle(void *opaque)
{
    usleep(20000);
    chr_idle_start((chr_context *)opaque, &thread_idle, count_up, &thread_count);
    return NULL;
}

TEST(loop_fd_hears_of_other_threads)
{
    pthread_t thread;
    int       fd;
    rig       r;
    rig_open(&r);
    fd = chr_loop_fd(r.ctx);
    REQUIRE(pthread_create(&thread, NULL, post_an_idle, r.ctx) == 0);
    CHECK(readable(fd, RIG_PATIENCE_MS));
    pthread_join(thread, NULL);
    serve(&r, fd);
    CHECK_INT(thread_count, 1);
    rig_close(&r);
}

static void echo(recorder *rec, int what)
{
    if (what != 'r') return;
    chr_fe_write(&rec->fe, rec->input, rec->length);
    rec->length = 0;
}

/* A chardev that is made, removed and starved between steps; the outer loop is epoll, of either kind. */
static void check_nested(unsigned mode)
{
    struct epoll_event event;
    char               options[100];
    int                fds[2], fd, outer, i, turns;
    int64_t            start;
    recorder           rec;
    rig                r;
    rig_open(&r);
    fd = chr_loop_fd(r.ctx);
    outer = epoll_create1(EPOLL_CLOEXEC);
    memset(&event, 0, sizeof event);
    event.events = EPOLLIN | mode;
    CHECK_INT(epoll_ctl(outer, EPOLL_CTL_ADD, fd, &event), 0);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    attach(&rec, make(&r, options));
    rec.then = echo;
    for (i = 0; i < 20; i++) {
        char   buf[16] = "";
        size_t have = 0;
        start = real_ms();
        say(fds[1], "ping");
        for (turns = 0; have < 4 && real_ms() - start < RIG_PATIENCE_MS; turns++) {
            ssize_t n;
            if (epoll_wait(outer, &event, 1, 1000) == 1)
                while (chr_loop_step(r.ctx, 0) > 0) {}
            n = recv(fds[1], buf + have, sizeof buf - have, MSG_DONTWAIT);
            if (n > 0) have += (size_t)n;
        }
        CHECK_STR(buf, "ping");
        CHECK(turns < 10);
    }
    rec.then = NULL;
    rec.room = 0;
    say(fds[1], "more");
    for (i = 0; i < 5; i++)
        if (epoll_wait(outer, &event, 1, 10) == 1)
            while (chr_loop_step(r.ctx, 0) > 0) {}
    CHECK_INT(rec.length, 0);
    rec.room = 100; /* without a word: the rare look finds it */
    for (start = real_ms(); rec.length < 4 && real_ms() - start < RIG_PATIENCE_MS; )
        if (epoll_wait(outer, &event, 1, 1000) == 1)
            while (chr_loop_step(r.ctx, 0) > 0) {}
    CHECK_INPUT(&rec, "more");
    rec.room = 0;
    say(fds[1], "last");
    for (i = 0; i < 5; i++)
        if (epoll_wait(outer, &event, 1, 10) == 1)
            while (chr_loop_step(r.ctx, 0) > 0) {}
    rec.room = 100;
    chr_fe_accept_input(&rec.fe);
    CHECK_INT(epoll_wait(outer, &event, 1, 50), 1);
    while (chr_loop_step(r.ctx, 0) > 0) {}
    CHECK_INPUT(&rec, "morelast");
    close(outer);
    close(fds[1]);
    serve(&r, fd);
    detach(&rec);
    chr_remove(r.ctx, "s", NULL);
    serve(&r, fd);
    CHECK(!readable(fd, 150)); /* nothing is left to look for */
    rig_close(&r);
}

TEST(loop_fd_in_epoll) { check_nested(0); }
TEST(loop_fd_in_edge_triggered_epoll) { check_nested(EPOLLET); }

/* What the set refuses is ready for poll() all the time. */
TEST(loop_fd_and_files)
{
    char path[] = "/tmp/chardev-loop-XXXXXX";
    int  fd, i;
    eye  file;
    rig  r;
    rig_open(&r);
    fd = chr_loop_fd(r.ctx);
    eye_init(&file, &r);
    file.fds[0] = mkstemp(path);
    REQUIRE(file.fds[0] >= 0);
    unlink(path);
    eye_start(&file, file.fds[0], CHR_IN);
    for (i = 1; i <= 3; i++) {
        CHECK(readable(fd, 1000));
        chr_loop_step(r.ctx, 0);
    }
    CHECK(file.count >= 2);
    chr_watch_stop(&file.watch);
    serve(&r, fd);
    CHECK(!readable(fd, 20));
    close(file.fds[0]);
    rig_close(&r);
}

/* A context whose clock is its user's: what is due now is seen. */
TEST(loop_fd_with_a_virtual_clock)
{
    chr_timer timer;
    int       fd, count = 0;
    rig       r;
    rig_open_virtual(&r);
    memset(&timer, 0, sizeof timer);
    fd = chr_loop_fd(r.ctx);
    chr_timer_start(r.ctx, &timer, 0, count_up, &count);
    CHECK(readable(fd, 1000));
    serve(&r, fd);
    CHECK_INT(count, 1);
    rig_close(&r);
}

static void ask_for_the_fd(eye *e)
{
    e->fds[1] = chr_loop_fd(e->r->ctx);
    hear(e->fds[0]);
}

static void start_and_stop_another(eye *e)
{
    hear(e->fds[0]);
    chr_watch_set(&e->other->watch, CHR_IN | CHR_OUT);
    chr_watch_set(&e->other->watch, CHR_IN);
}

/* What callbacks change is settled when the step ends: no second step for it. */
TEST(loop_fd_is_quiet_after_a_step_that_changed_something)
{
    int fd, i;
    rig r;
    rig_open(&r);
    open_eyes(&r, 3);
    eyes[0].then = start_and_stop_another;
    eyes[0].other = &eyes[1];
    fd = chr_loop_fd(r.ctx);
    serve(&r, fd);
    for (i = 0; i < 5; i++) {
        say(eyes[0].fds[1], "x");
        CHECK(readable(fd, 1000));
        CHECK_INT(chr_loop_step(r.ctx, 0), 1);
        CHECK(!readable(fd, 0));
    }
    close_eyes(3);
    rig_close(&r);
}

TEST(loop_fd_inside_a_handler)
{
    eye e;
    int fds[2];
    rig r;
    rig_open(&r);
    open_eyes(&r, 20);
    eye_init(&e, &r);
    socket_pair(fds);
    e.fds[0] = fds[0];
    e.then = ask_for_the_fd;
    eye_start(&e, fds[0], CHR_IN);
    say(fds[1], "x");
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    REQUIRE(e.fds[1] > 2);
    CHECK(!readable(e.fds[1], 0));
    say(eyes[7].fds[1], "x");
    CHECK(readable(e.fds[1], 1000));
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    chr_watch_stop(&e.watch);
    close(fds[0]), close(fds[1]);
    close_eyes(20);
    rig_close(&r);
}

TEST(loop_fd_that_fails)
{
    static const fault_call failing[] = { FAULT_epoll_create1, FAULT_mmap, FAULT_madvise, FAULT_timerfd_create, FAULT_epoll_ctl };
    size_t                  i;
    for (i = 0; i < sizeof failing / sizeof failing[0]; i++) {
        rig r;
        int fds, n;
        rig_open(&r);
        open_eyes(&r, 3);
        fds = count_fds();
        fault_arm(failing[i], ENOMEM, 1, 1);
        CHECK_INT(chr_loop_fd(r.ctx), CHR_ERR_NO_MEMORY);
        CHECK_INT(chr_loop_step(r.ctx, 0), 0);
        say(eyes[2].fds[1], "x");
        CHECK_INT(chr_loop_step(r.ctx, 0), 1); /* the loop goes on all the same */
        fault_disarm();
        hear(eyes[2].fds[0]);
        n = chr_loop_fd(r.ctx);
        CHECK(n > 2);
        CHECK(!readable(n, 0));
        say(eyes[2].fds[1], "x");
        CHECK(readable(n, 1000));
        CHECK(count_fds() <= fds + 2);
        close_eyes(3);
        rig_close(&r);
    }
}

TEST(loop_fd_after_fork)
{
    int   fd, status;
    pid_t child;
    rig   r;
    rig_open(&r);
    open_eyes(&r, 3);
    fd = chr_loop_fd(r.ctx);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        chr_watch_stop(&eyes[1].watch);
        chr_loop_step(r.ctx, 0);
        say(eyes[2].fds[1], "x");
        status = readable(fd, 1000) && chr_loop_step(r.ctx, 0) == 1 && eyes[2].count == 1;
        hear(eyes[2].fds[0]);
        _exit(!status);
    }
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK_INT(status, 0);
    serve(&r, fd);
    CHECK(!readable(fd, 0));
    say(eyes[1].fds[1], "x");
    CHECK(readable(fd, 1000));
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK_INT(eyes[1].count, 1);
    close_eyes(3);
    rig_close(&r);
}

/* As daemon() does it: the parent goes, the child stays, with an epoll of its own. */
static int serve_in_background(rig *r, int fd)
{
    struct epoll_event event;
    chr_timer          timer;
    int                epoll = epoll_create1(EPOLL_CLOEXEC), count = 0, i;
    memset(&event, 0, sizeof event);
    event.events = EPOLLIN;
    if (chr_loop_fd(r->ctx) != fd || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) return 1;
    memset(&timer, 0, sizeof timer);
    chr_timer_start(r->ctx, &timer, 20, count_up, &count);
    for (i = 0; i < 20 && !count; i++)
        if (epoll_wait(epoll, &event, 1, 1000) == 1) chr_loop_step(r->ctx, 0);
    if (!count) return 2;
    say(eyes[1].fds[1], "x");
    for (i = 0; i < 20 && !eyes[1].count; i++)
        if (epoll_wait(epoll, &event, 1, 1000) == 1) chr_loop_step(r->ctx, 0);
    return eyes[1].count == 1 ? 0 : 3;
}

TEST(loop_fd_in_the_background)
{
    int   fd, status, fds[2];
    char  result;
    pid_t child;
    rig   r;
    REQUIRE(pipe(fds) == 0);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        rig_open(&r);
        open_eyes(&r, 3);
        fd = chr_loop_fd(r.ctx);
        chr_loop_step(r.ctx, 0);
        if (fork() == 0) {
            usleep(20000);
            result = (char)serve_in_background(&r, fd);
            (void)!write(fds[1], &result, 1);
        }
        _exit(0);
    }
    REQUIRE(waitpid(child, &status, 0) == child);
    close(fds[1]);
    REQUIRE(read(fds[0], &result, 1) == 1);
    CHECK_INT(result, 0);
    close(fds[0]);
}

TEST(loop_fd_ends_with_a_reset)
{
    int fd;
    rig r;
    rig_open(&r);
    fd = chr_loop_fd(r.ctx);
    REQUIRE(fd > 2);
    CHECK_INT(chr_context_reset(r.ctx), 0);
    fd = chr_loop_fd(r.ctx);
    REQUIRE(fd > 2);
    CHECK(!readable(fd, 0));
    chr_loop_wake(r.ctx);
    CHECK(readable(fd, 0));
    rig_close(&r);
}

/* ---- chr_poll is struct pollfd ----------------------------------------------------------------------------------- */

TEST(entries_are_what_poll_takes)
{
    CHECK_INT(sizeof(chr_poll), sizeof(struct pollfd));
    CHECK_INT(offsetof(chr_poll, fd), offsetof(struct pollfd, fd));
    CHECK_INT(offsetof(chr_poll, events), offsetof(struct pollfd, events));
    CHECK_INT(offsetof(chr_poll, revents), offsetof(struct pollfd, revents));
    CHECK_INT(CHR_IN, POLLIN);
    CHECK_INT(CHR_OUT, POLLOUT);
    CHECK_INT(CHR_HUP, POLLHUP);
}

static int find_entry(const chr_poll *polls, int count, int fd)
{
    int i;
    for (i = 0; i < count; i++)
        if (polls[i].fd == fd) return i;
    return -1;
}

TEST(entry_for_two_watches_of_a_descriptor)
{
    static chr_poll polls[8];
    eye             second;
    int             timeout, count, i;
    rig             r;
    rig_open(&r);
    open_eyes(&r, 2);
    eye_init(&second, &r);
    eye_start(&second, eyes[0].fds[0], CHR_OUT);
    count = chr_loop_prepare(r.ctx, polls, 8, &timeout);
    CHECK_INT(count, 3); /* two, and the waker */
    i = find_entry(polls, count, eyes[0].fds[0]);
    REQUIRE(i >= 0);
    CHECK_INT(polls[i].events & (CHR_IN | CHR_OUT), CHR_IN | CHR_OUT);
    poll((struct pollfd *)polls, (nfds_t)count, 0);
    CHECK_INT(chr_loop_dispatch(r.ctx, polls, count), 1);
    CHECK_INT(second.count, 1);
    CHECK_INT(eyes[0].count, 0);
    say(eyes[0].fds[1], "x");
    count = chr_loop_prepare(r.ctx, polls, 8, &timeout);
    poll((struct pollfd *)polls, (nfds_t)count, 0);
    CHECK_INT(chr_loop_dispatch(r.ctx, polls, count), 2);
    CHECK_INT(eyes[0].events, CHR_IN);
    CHECK_INT(second.events, CHR_OUT);
    chr_watch_stop(&second.watch);
    close_eyes(2);
    rig_close(&r);
}

/* The older interface: ready events overwrite the requested ones. A poll() that failed has reported nothing. */
TEST(entries_that_say_in_events_what_is_ready)
{
    static chr_poll polls[8];
    int             timeout, count, i;
    rig             r;
    rig_open(&r);
    open_eyes(&r, 2);
    count = chr_loop_prepare(r.ctx, polls, 8, &timeout);
    CHECK_INT(chr_loop_dispatch(r.ctx, polls, count), 0);
    count = chr_loop_prepare(r.ctx, polls, 8, &timeout);
    for (i = 0; i < count; i++) polls[i].events = polls[i].fd == eyes[1].fds[0] ? CHR_IN : 0;
    CHECK_INT(chr_loop_dispatch(r.ctx, polls, count), 1);
    CHECK_INT(eyes[1].count, 1);
    count = chr_loop_prepare(r.ctx, polls, 8, &timeout);
    i = find_entry(polls, count, eyes[0].fds[0]);
    polls[i].revents = POLLIN | POLLHUP;
    CHECK_INT(chr_loop_dispatch(r.ctx, &polls[i], 1), 1);
    CHECK_INT(eyes[0].events, CHR_IN | CHR_HUP);
    close_eyes(2);
    rig_close(&r);
}

/* A half-close by the peer is a hang-up for a watch of CHR_HUP alone, through a plain poll() too. */
TEST(half_close_through_a_plain_poll)
{
    static chr_poll polls[8];
    int             timeout, count;
    rig             r;
    rig_open(&r);
    open_eyes(&r, 2);
    chr_watch_set(&eyes[0].watch, CHR_HUP);
    shutdown(eyes[0].fds[1], SHUT_WR);
    count = chr_loop_prepare(r.ctx, polls, 8, &timeout);
    CHECK_INT(poll((struct pollfd *)polls, (nfds_t)count, 0), 1);
    CHECK_INT(chr_loop_dispatch(r.ctx, polls, count), 1);
    CHECK_INT(eyes[0].events, CHR_HUP);
    close_eyes(2);
    rig_close(&r);
}

/* The number is reused within one dispatch: the old readiness is not the new watch's. */
static void restart_the_other(eye *e)
{
    chr_watch_stop(&e->other->watch);
    eye_start(e->other, e->other->fds[0], CHR_IN);
}

TEST(watch_started_in_a_dispatch_does_not_inherit)
{
    static chr_poll polls[8];
    int             timeout, count;
    rig             r;
    rig_open(&r);
    open_eyes(&r, 2);
    eyes[0].other = &eyes[1], eyes[1].other = &eyes[0];
    eyes[0].then = eyes[1].then = restart_the_other;
    say(eyes[0].fds[1], "x"), say(eyes[1].fds[1], "x");
    count = chr_loop_prepare(r.ctx, polls, 8, &timeout);
    poll((struct pollfd *)polls, (nfds_t)count, 0);
    CHECK_INT(chr_loop_dispatch(r.ctx, polls, count), 1);
    CHECK_INT(eyes[0].count + eyes[1].count, 1);
    close_eyes(2);
    rig_close(&r);
}

/* ---- many on a foreign loop with hooks, edge-triggered ----------------------------------------------------------- */

static int host_epoll;

static void host_watch_changed(void *opaque, chr_watch *watch, int fd, int events)
{
    struct epoll_event event;
    (void)opaque;
    memset(&event, 0, sizeof event);
    event.events = (events & CHR_IN ? (uint32_t)EPOLLIN : 0) | (events & CHR_OUT ? (uint32_t)EPOLLOUT : 0) |
                   (events & CHR_HUP ? (uint32_t)EPOLLRDHUP : 0) | (uint32_t)EPOLLET;
    event.data.ptr = watch;
    if (events == 0) epoll_ctl(host_epoll, EPOLL_CTL_DEL, fd, &event);
    else if (epoll_ctl(host_epoll, EPOLL_CTL_MOD, fd, &event) < 0) CHECK_INT(epoll_ctl(host_epoll, EPOLL_CTL_ADD, fd, &event), 0);
}

static void host_timeout_changed(void *opaque) { (void)opaque; }

static void eat_one(eye *e)
{
    char c;
    (void)!read(e->fds[0], &c, 1);
}

static void stop_itself_at_three(eye *e)
{
    eat_one(e);
    if (e->count == 3) chr_watch_stop(&e->watch);
}

/* Each reads a byte per turn, and edge-triggered readiness is reported once: it is called again while input is left. */
TEST(edge_triggered_host_and_many_that_stay_ready)
{
    chr_config         config;
    struct epoll_event events[16];
    int64_t            start = real_ms();
    int                i, n, left = 1;
    rig                r;
    rig_init(&r);
    config = rig_config(&r);
    config.watch_changed = host_watch_changed;
    config.timeout_changed = host_timeout_changed;
    host_epoll = epoll_create1(EPOLL_CLOEXEC);
    r.ctx = chr_context_new(&config);
    REQUIRE(r.ctx != NULL);
    open_eyes(&r, 200);
    for (i = 0; i < 200; i++) {
        eyes[i].then = i % 10 ? eat_one : stop_itself_at_three;
        say(eyes[i].fds[1], "hello");
    }
    while (left && real_ms() - start < RIG_PATIENCE_MS) {
        int timeout = chr_loop_timeout(r.ctx);
        n = epoll_wait(host_epoll, events, 16, timeout < 0 || timeout > 20 ? 20 : timeout);
        for (i = 0; i < n; i++)
            chr_watch_ready((chr_watch *)events[i].data.ptr, events[i].events & EPOLLIN ? CHR_IN : 0);
        if (chr_loop_timeout(r.ctx) == 0) chr_loop_dispatch(r.ctx, NULL, 0);
        for (left = i = 0; i < 200; i++) left += eyes[i].count < (i % 10 ? 5 : 3);
    }
    for (i = 0; i < 200; i++) CHECK_INT(eyes[i].count, i % 10 ? 5 : 3);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    close_eyes(200);
    close(host_epoll);
    rig_close(&r);
}
