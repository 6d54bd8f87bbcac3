/*
 * Misuse and bad timing: handlers that remove the objects that call them, errors at critical moments, values at the
 * limits.
 */
#define _GNU_SOURCE 1
#include "chardev.h"
#include "fault.h"
#include "private.h"
#include "rig.h"

#include <pthread.h>
#include <stdlib.h>

/* ---- probe: a backend whose slots note what happens, and do as the test says ------------------------------------- */

static struct {
    int     set_opens, is_open; /* of the frontend's side */
    int     answer;             /* of write; 0 is an answer, too */
    int     reads_event;        /* an event that comes inside a read */
    int64_t number;
} probe;

static int probe_open(chr_dev *dev, chr_error *err)
{
    (void)err;
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

static int probe_write(chr_dev *dev, const void *buf, size_t len)
{
    (void)dev, (void)buf;
    return probe.answer < 0 || (size_t)probe.answer < len ? probe.answer : (int)len;
}

static int probe_read(chr_dev *dev, void *buf, size_t len)
{
    if (probe.reads_event) chr_be_event(dev, CHR_EVENT_BREAK);
    memset(buf, 'r', len);
    return (int)len;
}

static void probe_set_open(chr_dev *dev, int is_open)
{
    (void)dev;
    probe.set_opens++;
    probe.is_open = is_open;
}

static int probe_ioctl(chr_dev *dev, int command, void *arg)
{
    chr_terminal_size size = { 132, 43 };
    (void)dev;
    if (command != CHR_IOCTL_GET_TERMINAL_SIZE) return CHR_ERR_NOT_SUPPORTED;
    *(chr_terminal_size *)arg = size;
    return 0;
}

CHR_TABLE(chr_io, probe_io,
    CHR_SET(write, probe_write)
    CHR_SET(read,  probe_read));

CHR_TABLE(chr_backend, probe_backend,
    CHR_SET(name,         "probe")
    CHR_SET(help,         "the test is the far side")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(chr_dev))
    CHR_SET(open,         probe_open)
    CHR_SET(io,           &probe_io)
    CHR_SET(ioctl,        probe_ioctl)
    CHR_SET(set_open,     probe_set_open));

static void open_probe_rig(rig *r)
{
    chr_error err;
    rig_open_virtual(r);
    memset(&probe, 0, sizeof probe);
    probe.answer = 1 << 20;
    REQUIRE(chr_backend_register(r->ctx, &probe_backend, &err) == 0);
}

/* ---- hot swap under a frontend that goes away -------------------------------------------------------------------- */

static void deinit_at_closed(recorder *rec, int what)
{
    if (what == 'e' && rec->last_event == CHR_EVENT_CLOSED) chr_fe_deinit(&rec->fe);
}

TEST(a_frontend_that_leaves_at_closed_stops_the_change)
{
    chr_error err;
    recorder  rec;
    rig       r;
    open_probe_rig(&r);
    attach(&rec, make(&r, "probe,id=x"));
    settle(&r);
    rec.then = deinit_at_closed;
    CHECK_INT(chr_change(r.ctx, "x", "null", &err), CHR_ERR_BUSY);
    CHECK_HAS(err.text, "'x'");
    CHECK_INT(rec.changes, 0);
    CHECK(rec.fe.dev == NULL);
    CHECK(chr_find(r.ctx, "x") && chr_find(r.ctx, "x")->frontend == NULL);
    CHECK_INT(chr_remove(r.ctx, "x", &err), 0);
    free(rec.input);
    rig_close(&r);
}

static void drop_handlers_at_closed(recorder *rec, int what)
{
    if (what == 'e' && rec->last_event == CHR_EVENT_CLOSED) chr_fe_set_handlers(&rec->fe, NULL, NULL);
}

TEST(a_frontend_that_drops_its_handlers_at_closed_stops_the_change)
{
    chr_error err;
    recorder  rec;
    rig       r;
    open_probe_rig(&r);
    attach(&rec, make(&r, "probe,id=x"));
    settle(&r);
    rec.then = drop_handlers_at_closed;
    CHECK_INT(chr_change(r.ctx, "x", "null", &err), CHR_ERR_BUSY);
    CHECK_INT(rec.changes, 0);
    CHECK(rec.fe.dev == chr_find(r.ctx, "x"));
    detach(&rec);
    rig_close(&r);
}

static void leave_and_remove_at_closed(recorder *rec, int what)
{
    chr_context *ctx = rec->fe.dev ? rec->fe.dev->ctx : NULL;
    if (what != 'e' || rec->last_event != CHR_EVENT_CLOSED) return;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(ctx, "x", NULL), 0);
}

TEST(a_frontend_that_removes_its_chardev_at_closed_stops_the_change)
{
    chr_error err;
    recorder  rec;
    rig       r;
    open_probe_rig(&r);
    attach(&rec, make(&r, "probe,id=x"));
    settle(&r);
    rec.then = leave_and_remove_at_closed;
    CHECK(chr_change(r.ctx, "x", "null", &err) < 0);
    CHECK(chr_find(r.ctx, "x") == NULL);
    free(rec.input);
    rig_close(&r);
}

static void leave_and_refuse(recorder *rec, int what)
{
    if (what == 'c') chr_fe_deinit(&rec->fe);
}

TEST(a_frontend_that_leaves_and_refuses_is_not_attached_again)
{
    chr_error err;
    recorder  rec;
    rig       r;
    open_probe_rig(&r);
    attach(&rec, make(&r, "probe,id=x"));
    settle(&r);
    rec.then = leave_and_refuse;
    rec.change_answer = -1;
    CHECK_INT(chr_change(r.ctx, "x", "null", &err), CHR_ERR_BUSY);
    CHECK(chr_find(r.ctx, "x")->frontend == NULL);
    CHECK_INT(chr_remove(r.ctx, "x", &err), 0);
    free(rec.input);
    rig_close(&r);
}

static int nested_code;

static void change_again(recorder *rec, int what)
{
    chr_context *ctx = rec->fe.dev->ctx;
    rec->then = NULL;
    if (what == 'c') nested_code = chr_change(ctx, "x", "ringbuf", NULL);
}

TEST(a_change_inside_a_change_is_refused)
{
    chr_error err;
    recorder  rec;
    chr_dev  *dev;
    int       count = 0;
    rig       r;
    open_probe_rig(&r);
    attach(&rec, make(&r, "probe,id=x"));
    settle(&r);
    rec.then = NULL;
    rec.events[0] = 0;
    rec.then = change_again;
    nested_code = 1;
    CHECK_INT(chr_change(r.ctx, "x", "ringbuf,size=4K", &err), 0);
    CHECK_INT(nested_code, CHR_ERR_BUSY);
    for (dev = chr_next(r.ctx, NULL); dev; dev = chr_next(r.ctx, dev)) count++;
    CHECK_INT(count, 1);
    CHECK(rec.fe.dev == chr_find(r.ctx, "x"));
    detach(&rec);
    rig_close(&r);
}

TEST(the_new_backend_learns_that_the_frontend_is_open)
{
    chr_error err;
    recorder  rec;
    rig       r;
    open_probe_rig(&r);
    attach(&rec, make(&r, "ringbuf,id=x"));
    settle(&r);
    CHECK_INT(chr_change(r.ctx, "x", "probe", &err), 0);
    CHECK_INT(probe.set_opens, 1);
    CHECK_INT(probe.is_open, 1);
    detach(&rec);
    CHECK_INT(probe.is_open, 0);
    rig_close(&r);
}

TEST(who_waits_to_write_is_not_forgotten_by_a_change)
{
    chr_error err;
    recorder  rec;
    rig       r;
    open_probe_rig(&r);
    attach(&rec, make(&r, "ringbuf,id=x"));
    settle(&r);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    CHECK_INT(chr_change(r.ctx, "x", "null", &err), 0);
    settle(&r);
    CHECK_INT(rec.writable, 1);
    detach(&rec);
    rig_close(&r);
}

/* ---- descriptors after errors ------------------------------------------------------------------------------------ */

TEST(a_refused_change_leaves_the_descriptor_with_its_giver)
{
    chr_error err;
    recorder  rec;
    char      options[80];
    int       fds[2];
    rig       r;
    open_probe_rig(&r);
    socket_pair(fds);
    attach(&rec, make(&r, "probe,id=x"));
    settle(&r);
    rec.change_answer = -1;
    snprintf(options, sizeof options, "socket,fd=%d", fds[0]);
    CHECK_INT(chr_change(r.ctx, "x", options, &err), CHR_ERR_BUSY);
    CHECK(fcntl(fds[0], F_GETFD) >= 0);
    say(fds[1], "still there");
    CHECK_STR(hear(fds[0]), "still there");
    close(fds[0]);
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}

TEST(a_refused_change_leaves_a_name_that_still_means_its_descriptor)
{
    chr_error err;
    recorder  rec;
    int       fds[2], stranger;
    rig       r;
    open_probe_rig(&r);
    socket_pair(fds);
    attach(&rec, make(&r, "probe,id=x"));
    settle(&r);
    rec.change_answer = -1;
    CHECK_INT(chr_fd_put(r.ctx, "peer", fds[0], &err), 0);
    CHECK_INT(chr_change_from(r.ctx, CHR_REMOTE, "x", "fd,in=peer,out=peer", &err), CHR_ERR_BUSY);
    stranger = open("/dev/null", O_RDONLY); /* takes the number, if that is free now */
    CHECK_INT(chr_fd_close(r.ctx, "peer", &err), 0);
    CHECK(fcntl(stranger, F_GETFD) >= 0);
    close(stranger);
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}

TEST(a_given_listener_stays_the_givers_when_waiting_fails)
{
    chr_error err;
    char      options[80];
    int       fd;
    rig       r;
    rig_open(&r);
    fd = unix_listen(scratch("s"));
    snprintf(options, sizeof options, "socket,id=s,fd=%d,server=on,wait=on", fd);
    CHECK(unix_connect(scratch("s")) >= 0);
    fault_arm(FAULT_accept, EMFILE, 1, 1);
    CHECK(chr_new(r.ctx, options, &err) == NULL);
    CHECK_INT(fault_plan.fired, 1);
    fault_disarm();
    CHECK(fcntl(fd, F_GETFD) >= 0);
    close(fd);
    scratch_clean();
    chr_context_free(r.ctx);
}

TEST(descriptors_on_their_way_are_not_inherited)
{
    recorder rec;
    char     options[60];
    int      fds[2], fd, open_before, was_open[100];
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    attach(&rec, make(&r, options));
    settle(&r);
    open_before = count_fds();
    for (fd = 0; fd < 100; fd++) was_open[fd] = fcntl(fd, F_GETFD) >= 0;
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, &fds[1], 1), 0);
    CHECK_INT(count_fds(), open_before + 1);
    for (fd = 3; was_open[fd] || fcntl(fd, F_GETFD) < 0; fd++) REQUIRE(fd < 99);
    CHECK(flag_set(fd, F_GETFD, FD_CLOEXEC));
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}

TEST(a_client_of_another_family_does_not_change_the_server)
{
    chr_error err;
    recorder  rec;
    char      options[400];
    int       port, listener, guest, peer, fd;
    rig       r;
    rig_open(&r);
    snprintf(options, sizeof options, "socket,id=s,path=%s,server=on,wait=off", scratch("s"));
    attach(&rec, make(&r, options));
    listener = tcp_listen(&port);
    peer = tcp_connect(port);
    guest = accept(listener, NULL, NULL);
    CHECK_INT(chr_add_client(r.ctx, "s", guest, &err), 0);
    settle(&r);
    close(peer);
    PUMP(&r, strcmp(rec.events, "OC") == 0);
    peer = unix_connect(scratch("s"));
    PUMP(&r, strcmp(rec.events, "OCO") == 0);
    fd = listener;
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, &fd, 1), 0);
    close(peer);
    close(listener);
    detach(&rec);
    chr_context_free(r.ctx);
    scratch_clean();
}

TEST(a_descriptor_has_one_name)
{
    chr_error err;
    int       fds[2];
    rig       r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    CHECK_INT(chr_fd_put(r.ctx, "one", fds[0], &err), 0);
    CHECK_INT(chr_fd_put(r.ctx, "one", fds[0], &err), 0);
    CHECK_INT(chr_fd_put(r.ctx, "two", fds[0], &err), CHR_ERR_EXISTS);
    CHECK_HAS(err.text, "'one'");
    CHECK_INT(chr_fd_close(r.ctx, "one", &err), 0);
    close(fds[1]);
    rig_close(&r);
}

TEST(no_options_do_not_mean_descriptor_0)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    CHECK(chr_open(r.ctx, "s", chr_backend_find(r.ctx, "socket"), NULL, &err) == NULL);
    CHECK_HAS(err.text, "needs exactly one of");
    CHECK(chr_open(r.ctx, "f", chr_backend_find(r.ctx, "fd"), NULL, &err) == NULL);
    CHECK_HAS(err.text, "needs in= or out=");
    rig_close(&r);
}

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

TEST(a_stopped_loop_that_is_stepped_still_sleeps)
{
    rig r;
    rig_open(&r);
    chr_loop_stop(r.ctx);
    chr_loop_step(r.ctx, 0); /* the wake-up */
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    rig_close(&r);
}

TEST(a_stop_before_the_run_still_ends_it)
{
    rig r;
    rig_open(&r);
    chr_loop_stop(r.ctx);
    CHECK_INT(chr_loop_run(r.ctx), 0);
    rig_close(&r);
}

static int       fired;
static chr_timer again_timer;

static void count_firing(void *opaque)
{
    (void)opaque;
    fired++;
}

TEST(a_timer_that_is_due_at_the_end_of_time_does_not_fire)
{
    chr_timer timer;
    rig       r;
    rig_open_virtual(&r);
    memset(&timer, 0, sizeof timer);
    fired = 0;
    chr_timer_start(r.ctx, &timer, INT64_MAX, count_firing, NULL);
    settle(&r);
    chr_timer_start(r.ctx, &timer, INT64_MAX / 1000000, count_firing, NULL);
    settle(&r);
    CHECK_INT(fired, 0);
    chr_timer_stop(&timer);
    rig_close(&r);
}

static void start_again(void *opaque)
{
    if (++fired < 1000) chr_timer_start((chr_context *)opaque, &again_timer, -1000, start_again, opaque);
}

TEST(a_timer_in_the_past_gives_the_others_their_turn)
{
    rig r;
    rig_open_virtual(&r);
    fired = 0;
    chr_timer_start(r.ctx, &again_timer, -1000, start_again, r.ctx);
    CHECK_INT(chr_loop_step(r.ctx, 0), 1);
    CHECK_INT(fired, 1);
    chr_timer_stop(&again_timer);
    rig_close(&r);
}

static void ignore_ready(void *opaque, int events)
{
    (void)opaque, (void)events;
}

TEST(what_a_loop_held_can_be_stopped_after_it)
{
    chr_timer timer;
    chr_idle  idle;
    chr_watch watch;
    int       fds[2];
    rig       r;
    REQUIRE(pipe(fds) == 0);
    rig_open(&r);
    memset(&timer, 0, sizeof timer);
    memset(&idle, 0, sizeof idle);
    memset(&watch, 0, sizeof watch);
    chr_timer_start(r.ctx, &timer, 1000, count_firing, NULL);
    chr_idle_start(r.ctx, &idle, count_firing, NULL);
    CHECK_INT(chr_watch_start(r.ctx, &watch, fds[0], CHR_IN, ignore_ready, NULL), 0);
    rig_close(&r);
    CHECK(timer.next == NULL && idle.next == NULL && watch.slot == 0);
    chr_timer_stop(&timer);
    chr_idle_stop(&idle);
    chr_watch_stop(&watch);
    close(fds[0]);
    close(fds[1]);
}

static chr_watch moved_watch;
static int       moved_to, moved_fired;

static void moved_ready(void *opaque, int events)
{
    (void)opaque, (void)events;
    moved_fired++;
}

static void move_the_other(void *opaque, int events)
{
    (void)events;
    chr_watch_start((chr_context *)opaque, &moved_watch, moved_to, CHR_IN, moved_ready, NULL);
}

TEST(a_foreign_loop_does_not_report_an_old_descriptor_to_a_moved_watch)
{
    chr_watch first;
    chr_poll  polls[8];
    int       a[2], b[2], c[2], count, timeout, i;
    rig       r;
    rig_open(&r);
    REQUIRE(pipe(a) == 0 && pipe(b) == 0 && pipe(c) == 0);
    memset(&first, 0, sizeof first);
    moved_to = c[0];
    CHECK_INT(chr_watch_start(r.ctx, &first, a[0], CHR_IN, move_the_other, r.ctx), 0);
    CHECK_INT(chr_watch_start(r.ctx, &moved_watch, b[0], CHR_IN, moved_ready, NULL), 0);
    count = chr_loop_prepare(r.ctx, polls, 8, &timeout);
    for (i = 0; i < count; i++) polls[i].events = polls[i].fd == a[0] || polls[i].fd == b[0] ? CHR_IN : 0;
    chr_loop_dispatch(r.ctx, polls, count);
    CHECK_INT(moved_fired, 0);
    chr_watch_stop(&first);
    chr_watch_stop(&moved_watch);
    for (i = 0; i < 2; i++) close(a[i]), close(b[i]), close(c[i]);
    rig_close(&r);
}

/* A write from elsewhere, between prepare and the foreign poll, must wake that. */
TEST(a_foreign_poll_is_woken_by_what_changes_meanwhile)
{
    recorder      rec;
    char          options[80];
    struct pollfd fds[8];
    chr_poll      polls[8];
    int           pair[2], count, timeout, i;
    size_t        full;
    rig           r;
    rig_open(&r);
    socket_pair(pair);
    snprintf(options, sizeof options, "socket,id=s,obuf=64K,fd=%d", pair[0]);
    attach(&rec, make(&r, options));
    settle(&r);
    count = chr_loop_prepare(r.ctx, polls, 8, &timeout);
    for (i = 0; i < count; i++) {
        fds[i].fd = polls[i].fd;
        fds[i].events = (short)((polls[i].events & CHR_IN ? POLLIN : 0) | (polls[i].events & CHR_OUT ? POLLOUT : 0));
    }
    full = fill_up(&rec.fe); /* as another thread might */
    CHECK(full > 65536);
    CHECK(poll(fds, (nfds_t)count, 0) > 0);
    detach(&rec);
    close(pair[1]);
    rig_close(&r);
}

/* ---- frontends that go away where bytes are counted -------------------------------------------------------------- */

typedef struct leaver {
    chr_frontend fe;
    int          leaves, answer, reads;
    chr_context *ctx;
} leaver;

static int leaver_can_read(void *opaque)
{
    leaver *l = (leaver *)opaque;
    if (l->leaves == 1) chr_fe_deinit(&l->fe);
    if (l->leaves == 2) chr_fe_set_handlers(&l->fe, NULL, NULL);
    if (l->leaves == 3) {
        l->leaves = 0; /* deinit asks once more */
        chr_fe_deinit(&l->fe);
        CHECK_INT(chr_remove(l->ctx, "x", NULL), 0);
    }
    l->leaves = 0;
    return l->answer;
}

static void leaver_read(void *opaque, const void *buf, size_t len)
{
    (void)buf, (void)len;
    ((leaver *)opaque)->reads++;
}

static const chr_handlers leaver_handlers = { leaver_can_read, leaver_read, NULL, NULL };

static void check_leaver_on_mux(int how, int answer)
{
    chr_error err;
    leaver    one, two;
    char      options[80];
    int       fds[2], i;
    rig       r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=m,mux=on,fd=%d", fds[0]);
    make(&r, options);
    memset(&one, 0, sizeof one);
    memset(&two, 0, sizeof two);
    REQUIRE(chr_fe_init(&one.fe, chr_find(r.ctx, "m"), &err) == 0);
    REQUIRE(chr_fe_init(&two.fe, chr_find(r.ctx, "m"), &err) == 0);
    chr_fe_set_handlers(&two.fe, &leaver_handlers, &two);
    chr_fe_set_handlers(&one.fe, &leaver_handlers, &one);
    settle(&r);
    say(fds[1], "abc"); /* held: nobody has room */
    settle(&r);
    one.answer = answer;
    one.leaves = how;
    for (i = 0; i < 4; i++) chr_loop_step(r.ctx, 0);
    chr_fe_deinit(&one.fe);
    chr_fe_deinit(&two.fe);
    close(fds[1]);
    rig_close(&r);
}

TEST(a_frontend_of_a_mux_may_leave_when_it_is_asked_for_room) { check_leaver_on_mux(1, 10); }
TEST(a_frontend_of_a_mux_without_room_may_leave_when_it_is_asked) { check_leaver_on_mux(1, 0); }
TEST(a_frontend_of_a_mux_may_drop_its_handlers_when_it_is_asked_for_room) { check_leaver_on_mux(2, 10); }

TEST(an_emulated_device_may_be_removed_when_room_is_asked_for)
{
    static const int  on = CHR_TIOCM_DTR;
    chr_error         err;
    leaver            one;
    int               lines = on;
    rig               r;
    rig_open_virtual(&r);
    memset(&one, 0, sizeof one);
    REQUIRE(chr_fe_init(&one.fe, make(&r, "msmouse,id=x"), &err) == 0);
    chr_fe_set_handlers(&one.fe, &leaver_handlers, &one);
    chr_fe_ioctl(&one.fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines);
    settle(&r);
    one.leaves = 3;
    one.answer = 5;
    one.ctx = r.ctx;
    chr_fe_accept_input(&one.fe);
    settle(&r);
    CHECK(chr_find(r.ctx, "x") == NULL);
    rig_close(&r);
}

TEST(a_mux_with_stamps_gives_up_on_a_backend_that_takes_nothing)
{
    recorder  rec;
    chr_error err;
    rig       r;
    open_probe_rig(&r);
    make(&r, "probe,id=m,mux=on");
    attach(&rec, chr_find(r.ctx, "m"));
    settle(&r);
    chr_be_write(chr_find(r.ctx, "m-base"), "\001t", 2);
    settle(&r);
    CHECK_INT(chr_fe_write(&rec.fe, "a\nb", 3), 3);
    probe.answer = 0;
    CHECK(chr_fe_write(&rec.fe, "c", 1) <= 0);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "m", &err), 0);
    rig_close(&r);
}

static void remember_focus(recorder *rec, chr_dev *mux)
{
    memset(rec, 0, sizeof *rec);
    REQUIRE(chr_fe_init(&rec->fe, mux, NULL) == 0);
    chr_fe_set_handlers(&rec->fe, &recorder_handlers, rec);
}

/* The frontend that inherits the focus loses it before MUX_IN is delivered. */
TEST(focus_comes_and_goes_once_for_each)
{
    recorder a, b, c;
    rig      r;
    open_probe_rig(&r);
    make(&r, "null,id=m,mux=on");
    remember_focus(&a, chr_find(r.ctx, "m"));
    remember_focus(&b, chr_find(r.ctx, "m"));
    remember_focus(&c, chr_find(r.ctx, "m"));
    chr_fe_take_focus(&a.fe);
    settle(&r);
    a.events[0] = 0;
    memset(b.events, 0, sizeof b.events);
    memset(c.events, 0, sizeof c.events);
    chr_fe_deinit(&a.fe);
    chr_fe_take_focus(&c.fe);
    settle(&r);
    CHECK_STR(b.events, "");
    CHECK_STR(c.events, "I");
    detach(&b);
    detach(&c);
    rig_close(&r);
}

TEST(resuming_opens_does_not_send_the_history_again)
{
    chr_error err;
    recorder  rec;
    char      text[64];
    int       n;
    rig       r;
    rig_open_virtual(&r);
    make(&r, "ringbuf,id=b");
    make(&r, "mux,id=m,chardev=b,history=1K");
    settle(&r);
    attach(&rec, chr_find(r.ctx, "m"));
    CHECK_INT(chr_fe_write(&rec.fe, "once", 4), 4);
    chr_mux_suspend_open(r.ctx);
    chr_mux_resume_open(r.ctx);
    settle(&r);
    n = chr_ringbuf_read(chr_find(r.ctx, "b"), 64, CHR_UTF8, text, sizeof text, &err);
    CHECK_MEM(text, n, "once", 4);
    detach(&rec);
    rig_close(&r);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

TEST(events_inside_a_read_wait_for_the_loop)
{
    recorder rec;
    char     text[4];
    rig      r;
    open_probe_rig(&r);
    attach(&rec, make(&r, "probe,id=x"));
    settle(&r);
    probe.reads_event = 1;
    CHECK_INT(chr_fe_read_all(&rec.fe, text, 4, 0), 4);
    CHECK_STR(rec.events, "O");
    settle(&r);
    CHECK_STR(rec.events, "OB");
    detach(&rec);
    rig_close(&r);
}

static void leave_and_remove(recorder *rec, int what)
{
    chr_context *ctx = rec->fe.dev->ctx;
    if (what != 'e') return;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(ctx, "x", NULL), 0);
}

TEST(a_chardev_may_go_at_an_event_that_a_test_sends_from_outside)
{
    recorder rec;
    chr_dev *dev;
    rig      r;
    open_probe_rig(&r);
    dev = make(&r, "probe,id=x"); /* OPENED waits for the loop */
    attach(&rec, dev);
    rec.then = NULL;
    CHECK_STR(rec.events, "O"); /* set_handlers gave it; the one that waits is told nobody twice */
    chr_fe_set_handlers(&rec.fe, NULL, NULL);
    listen_to(&rec);
    rec.then = leave_and_remove;
    dev->pending |= 1u << CHR_EVENT_BREAK;
    chr_be_event(dev, CHR_EVENT_BREAK);
    CHECK(chr_find(r.ctx, "x") == NULL);
    free(rec.input);
    rig_close(&r);
}

TEST(no_handlers_at_all_close_the_frontend)
{
    static const chr_handlers none = { NULL, NULL, NULL, NULL };
    recorder                  rec;
    rig                       r;
    open_probe_rig(&r);
    attach(&rec, make(&r, "probe,id=x"));
    CHECK_INT(probe.is_open, 1);
    chr_fe_set_handlers(&rec.fe, &none, NULL);
    CHECK_INT(probe.is_open, 0);
    CHECK_INT(rec.fe.is_open, 0);
    detach(&rec);
    rig_close(&r);
}

/* ---- a far side that is gone ------------------------------------------------------------------------------------- */

static void check_told_when_gone(const char *options)
{
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, options));
    settle(&r);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    settle(&r);
    if (!CHECK_INT(rec.writable, 1)) NOTE("for %s", options);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(who_waits_to_write_to_nobody_is_told_on_a_socket)
{
    char options[400];
    snprintf(options, sizeof options, "socket,id=s,path=%s,server=on,wait=off", scratch("s"));
    check_told_when_gone(options);
}

TEST(who_waits_to_write_to_nobody_is_told_on_a_pty) { check_told_when_gone("pty,id=p"); }

TEST(who_waits_to_write_to_nobody_is_told_through_a_mux)
{
    char options[400];
    snprintf(options, sizeof options, "socket,id=s,path=%s,server=on,wait=off,mux=on", scratch("s"));
    check_told_when_gone(options);
}

TEST(a_datagram_socket_with_a_broken_write_comes_to_rest)
{
    recorder rec;
    int      i, ran = 0;
    rig      r;
    rig_open(&r);
    attach(&rec, make(&r, "udp,id=u,host=127.0.0.1,port=9"));
    settle(&r);
    fault_arm(FAULT_send, EPIPE, 1, 1);
    CHECK(chr_fe_write(&rec.fe, "x", 1) < 0);
    fault_disarm();
    for (i = 0; i < 100; i++) ran = chr_loop_step(r.ctx, 0);
    CHECK_INT(ran, 0);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    detach(&rec);
    rig_close(&r);
}

/* The slave goes while a writer waits: poll() answers at once for ever. */
TEST(write_all_to_a_terminal_that_is_left_does_not_spin)
{
    recorder rec;
    chr_info info;
    int      slave, n;
    rig      r;
    rig_open(&r);
    attach(&rec, make(&r, "pty,id=p"));
    chr_query(rec.fe.dev, &info);
    slave = open(info.filename + 4, O_RDWR | O_NOCTTY);
    REQUIRE(slave >= 0);
    PUMP(&r, rec.open);
    close(slave);
    fill_up(&rec.fe);
    fault_arm(FAULT_poll, 0, 0, 0);
    n = chr_fe_write_all(&rec.fe, "x", 1, 300);
    if (n >= 0) PUMP(&r, !rec.open); /* noticed meanwhile: what is written to nobody is dropped */
    if (!CHECK(fault_plan.counts[FAULT_poll] < 20)) NOTE("%ld polls", fault_plan.counts[FAULT_poll]);
    detach(&rec);
    rig_close(&r);
}

/* After a hang-up, with unread input and a frontend that waits to write: no progress is possible, and poll() must
 * not become a busy loop. */
static void check_hung_up_at_rest(recorder *rec, rig *r)
{
    int i, ran = 0;
    for (i = 0; i < 50; i++) ran = chr_loop_step(r->ctx, 0);
    if (!CHECK_INT(ran, 0)) NOTE("events %s, told writable %d times", rec->events, rec->writable);
}

TEST(a_hung_up_terminal_with_waiting_input_and_output_comes_to_rest)
{
    recorder rec;
    chr_info info;
    int      slave;
    rig      r;
    rig_open(&r);
    attach_with_room(&rec, make(&r, "pty,id=p"), 0);
    chr_query(rec.fe.dev, &info);
    slave = open(info.filename + 4, O_RDWR | O_NOCTTY);
    REQUIRE(slave >= 0);
    PUMP(&r, rec.open);
    say(slave, "abc");
    fill_up(&rec.fe);
    close(slave);
    fill_up(&rec.fe);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    check_hung_up_at_rest(&rec, &r);
    detach(&rec);
    rig_close(&r);
}

static void check_hung_up_socket(const char *more, int how)
{
    recorder rec;
    char     options[80];
    int      fds[2];
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d%s", fds[0], more);
    attach_with_room(&rec, make(&r, options), 0);
    settle(&r);
    say(fds[1], "abc");
    fill_up(&rec.fe);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    if (how < 0) close(fds[1]);
    else shutdown(fds[1], how);
    check_hung_up_at_rest(&rec, &r);
    give_room(&rec, 100);
    settle(&r);
    if (how != SHUT_RD) PUMP(&r, strcmp(rec.events, "OC") == 0);
    CHECK_INPUT(&rec, "abc");
    detach(&rec);
    if (how >= 0) close(fds[1]);
    rig_close(&r);
}

TEST(a_closed_socket_with_waiting_input_and_output_comes_to_rest) { check_hung_up_socket("", -1); }
TEST(a_half_closed_socket_with_waiting_input_and_output_comes_to_rest) { check_hung_up_socket("", SHUT_WR); }
TEST(a_deaf_socket_with_waiting_input_and_output_comes_to_rest) { check_hung_up_socket("", SHUT_RD); }
TEST(a_closed_socket_with_a_queue_comes_to_rest) { check_hung_up_socket(",obuf=4K", -1); }
TEST(a_half_closed_socket_with_a_queue_comes_to_rest) { check_hung_up_socket(",obuf=4K", SHUT_WR); }
TEST(a_deaf_socket_with_a_queue_comes_to_rest) { check_hung_up_socket(",obuf=4K", SHUT_RD); }

static char pty_slave[64];
static int  pty_slave_fd = -1;

static int reopen_can_read(void *opaque)
{
    recorder *rec = (recorder *)opaque;
    if (rec->user && pty_slave_fd < 0) pty_slave_fd = open(pty_slave, O_RDWR | O_NOCTTY);
    return rec->user ? 0 : UNLIMITED;
}

TEST(a_terminal_that_is_opened_again_at_once_ends_as_open)
{
    static const chr_handlers handlers = { reopen_can_read, recorder_read, recorder_event, NULL };
    chr_error                 err;
    recorder                  rec;
    chr_info                  info;
    int                       slave;
    rig                       r;
    rig_open(&r);
    memset(&rec, 0, sizeof rec);
    rec.room = UNLIMITED;
    REQUIRE(chr_fe_init(&rec.fe, make(&r, "pty,id=p,obuf=64K"), &err) == 0);
    chr_fe_set_handlers(&rec.fe, &handlers, &rec);
    chr_query(rec.fe.dev, &info);
    snprintf(pty_slave, sizeof pty_slave, "%.60s", info.filename + 4);
    slave = open(pty_slave, O_RDWR | O_NOCTTY);
    PUMP(&r, rec.open);
    fill_up(&rec.fe);
    rec.user = &rec;
    close(slave);
    PUMP(&r, pty_slave_fd >= 0 && strlen(rec.events) >= 2);
    PUMP(&r, rec.open);
    CHECK_INT(chr_fe_backend_open(&rec.fe), rec.open);
    close(pty_slave_fd);
    detach(&rec);
    rig_close(&r);
}

/* ---- other threads write while the owner is outside its loop ----------------------------------------------------- */

static void *write_on(void *opaque)
{
    int i;
    for (i = 0; i < 300000; i++) chr_fe_write((chr_frontend *)opaque, "x", 1);
    return NULL;
}

/* Proven by the thread sanitizer. */
TEST_WITHIN(the_owner_may_use_its_chardevs_while_others_write, 60)
{
    pthread_t thread;
    recorder  a, b;
    chr_error err;
    int       i;
    rig       r;
    open_probe_rig(&r);
    attach(&a, make(&r, "ringbuf,id=a,history=1K"));
    attach(&b, make(&r, "probe,id=b"));
    settle(&r);
    REQUIRE(pthread_create(&thread, NULL, write_on, &a.fe) == 0);
    for (i = 0; i < 100000; i++) {
        chr_loop_lock(r.ctx);
        chr_fe_set_open(&b.fe, i & 1);
        chr_fe_set_echo(&b.fe, 1);
        chr_fe_disconnect(&b.fe);
        if (i % 100 == 0) {
            CHECK_INT(chr_send_break(r.ctx, "b", &err), 0);
            chr_fe_add_watch(&b.fe, recorder_writable, &b);
            make(&r, "null,id=c");
            CHECK_INT(chr_change(r.ctx, "c", "ringbuf", &err), 0);
            CHECK_INT(chr_remove(r.ctx, "c", &err), 0);
        }
        chr_loop_unlock(r.ctx);
    }
    pthread_join(thread, NULL);
    CHECK_INT(private_quiet(r.ctx), 0);
    CHECK_INT(private_depth(r.ctx), 0);
    settle(&r);
    detach(&a);
    detach(&b);
    rig_close(&r);
}

/* ---- texts ------------------------------------------------------------------------------------------------------- */

static char long_help[600];
static const chr_option long_rows[] = {
    { "key", CHR_OPTION_TEXT, sizeof(chr_common_options), "default", 0, 0, long_help },
    { NULL,  CHR_OPTION_TEXT, 0,                          NULL,      0, 0, NULL }
};
static chr_backend long_backend;
static size_t      longest_line;

static void measure(void *opaque, const char *line)
{
    (void)opaque;
    if (strlen(line) > longest_line) longest_line = strlen(line);
}

TEST(help_of_any_length_stays_inside_its_line)
{
    chr_error err;
    size_t    i;
    rig       r;
    rig_open(&r);
    long_backend = probe_backend;
    long_backend.name = "long";
    long_backend.help = long_help;
    long_backend.options = long_rows;
    long_backend.options_size = sizeof(chr_common_options) + sizeof(char *);
    REQUIRE(chr_backend_register(r.ctx, &long_backend, &err) == 0);
    for (i = 100; i < sizeof long_help; i += 3) {
        memset(long_help, 'h', i);
        long_help[i] = 0;
        CHECK_INT(chr_help(r.ctx, "long", measure, NULL), 0);
        CHECK_INT(chr_help(r.ctx, NULL, measure, NULL), 0);
    }
    CHECK(longest_line > 100 && longest_line < 256);
    rig_close(&r);
}

TEST(a_message_is_one_line)
{
    chr_error err;
    rig       r;
    CHECK_INT(chr_error_set(&err, CHR_ERR_IO, "%s", "a\nb\rc\td\x1f" "e f"), CHR_ERR_IO);
    CHECK_STR(err.text, "a?b?c?d?e f");
    rig_open(&r);
    CHECK_INT(refuse(&r, "ringbuf,id=x,size=1\n2\x01k", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "1?2?k");
    CHECK_INT(refuse(&r, "file,id=x,path=/nowhere\n/file", &err), CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, "/nowhere?/file");
    rig_close(&r);
}

TEST(a_long_name_of_a_backend_is_cut_where_it_is_shown)
{
    static char     name[1000];
    static struct { chr_info info; char after[16]; } got;
    chr_backend     kind = probe_backend;
    chr_error       err;
    rig             r;
    open_probe_rig(&r);
    memset(name, 'n', sizeof name - 1);
    kind.name = name;
    REQUIRE(chr_backend_register(r.ctx, &kind, &err) == 0);
    memset(&got, 'x', sizeof got);
    chr_query(chr_open(r.ctx, "a", &kind, NULL, &err), &got.info);
    CHECK_MEM(got.info.filename, strlen(got.info.filename), name, sizeof got.info.filename - 1);
    CHECK_MEM(got.after, sizeof got.after, "xxxxxxxxxxxxxxxx", 16);
    rig_close(&r);
}

TEST(an_over_long_value_does_not_hide_what_is_wrong_with_it)
{
    static char options[4000];
    chr_error   err;
    rig         r;
    rig_open(&r);
    strcpy(options, "ringbuf,id=x,size=");
    memset(options + strlen(options), 'z', 3000);
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "ringbuf: size=zzz");
    CHECK_HAS(err.text, "not a size");
    strcpy(options, "socket,id=x,reconnect=");
    memset(options + strlen(options), '7', 3000);
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "not a number");
    rig_close(&r);
}

TEST(a_message_that_only_begins_like_the_backend_gets_its_name)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    refuse(&r, "file,id=f,path=/nowhere/at/all", &err);
    CHECK_HAS(err.text, "file: ");
    refuse(&r, "pipe,id=f,path=/nowhere/at/all", &err);
    CHECK_HAS(err.text, "pipe: ");
    CHECK(chr_new_uri(r.ctx, NULL, "null", &err) == NULL);
    CHECK_HAS(err.text, "needs id=");
    rig_close(&r);
}

/* ---- recordings -------------------------------------------------------------------------------------------------- */

TEST(the_terminal_size_is_played_again)
{
    chr_terminal_size size = { 0, 0 };
    chr_error         err;
    recorder          rec;
    rig               r;
    open_probe_rig(&r);
    REQUIRE(chr_record_start(r.ctx, scratch("record"), &err) == 0);
    attach(&rec, make(&r, "probe,id=x"));
    settle(&r);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), 0);
    CHECK_INT(size.columns, 132);
    detach(&rec);
    rig_close(&r);
    open_probe_rig(&r);
    REQUIRE(chr_replay_open(r.ctx, scratch("record"), &err) == 0);
    attach(&rec, make(&r, "probe,id=x"));
    settle(&r);
    memset(&size, 0, sizeof size);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), 0);
    CHECK_INT(size.columns, 132);
    CHECK_INT(size.rows, 43);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

static chr_context *replay_ctx;

static int close_replay_can_read(void *opaque)
{
    (void)opaque;
    if (private_replays(replay_ctx) && private_depth(replay_ctx) > 0) chr_replay_close(replay_ctx);
    return 100;
}

TEST(a_replay_may_be_closed_when_room_is_asked_for)
{
    static const chr_handlers handlers = { close_replay_can_read, leaver_read, NULL, NULL };
    chr_error                 err;
    recorder                  rec;
    leaver                    one;
    rig                       r;
    open_probe_rig(&r);
    REQUIRE(chr_record_start(r.ctx, scratch("record"), &err) == 0);
    attach(&rec, make(&r, "probe,id=x"));
    settle(&r);
    chr_be_write(rec.fe.dev, "hello", 5);
    detach(&rec);
    rig_close(&r);
    open_probe_rig(&r);
    replay_ctx = r.ctx;
    REQUIRE(chr_replay_open(r.ctx, scratch("record"), &err) == 0);
    memset(&one, 0, sizeof one);
    REQUIRE(chr_fe_init(&one.fe, make(&r, "probe,id=x"), &err) == 0);
    one.fe.handlers = handlers;
    one.fe.opaque = &one;
    settle(&r);
    pass_time(&r, 1); /* input of a moment comes behind its calls */
    CHECK(!private_replays(r.ctx));
    chr_fe_deinit(&one.fe);
    rig_close(&r);
    scratch_clean();
}

/* fstat() doesn't reveal the type of these pipes: reads still don't block, and a write without a reader raises no
 * signal. */
TEST(a_descriptor_of_unknown_type_neither_blocks_nor_raises_a_signal)
{
    recorder rec;
    char     options[60], bytes[10];
    int      in[2], out[2];
    rig      r;
    rig_open(&r);
    REQUIRE(pipe(in) == 0 && pipe(out) == 0);
    snprintf(options, sizeof options, "fd,id=x,in=%d,out=%d", in[0], out[1]);
    fault_arm(FAULT_fstat, EIO, 1, 1);
    attach(&rec, make(&r, options));
    CHECK(fault_plan.fired > 0);
    fault_disarm();
    say(in[1], "1234567");
    CHECK_INT(chr_fe_read_all(&rec.fe, bytes, sizeof bytes, 20), 7);
    close(out[0]);
    CHECK(chr_fe_write(&rec.fe, "x", 1) < 0);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "x", NULL), 0);
    close(in[1]);
    rig_close(&r);
}

/* At the question number `changes`. */
static int leave_when_asked(void *opaque)
{
    recorder    *rec = (recorder *)opaque;
    chr_context *ctx = rec->fe.dev->ctx;
    if (--rec->changes != 0) return 0;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(ctx, "s", NULL), 0);
    return 0;
}

/* A peer connects: can_read is called before OPENED, and removes the chardev, which has history=. */
TEST(can_read_removes_a_chardev_with_history_as_its_peer_comes)
{
    static const chr_handlers handlers = { leave_when_asked, recorder_read, recorder_event, NULL };
    recorder rec;
    char     options[200];
    int      fd, question, asked = 0;
    rig      r;
    rig_open(&r);
    snprintf(options, sizeof options, "socket,id=s,path=%s,server=on,wait=off,history=64,idle-timeout=9", scratch("s"));
    for (question = 1; question <= 3; question++) {
        attach(&rec, make(&r, options));
        chr_fe_set_handlers(&rec.fe, &handlers, &rec);
        rec.changes = question;
        fd = unix_connect(scratch("s"));
        settle(&r);
        asked += rec.fe.dev == NULL;
        if (rec.fe.dev) detach(&rec);
        chr_remove(r.ctx, "s", NULL);
        close(fd);
    }
    CHECK(asked > 0);
    rig_close(&r);
    scratch_clean();
}

/* ---- found by random lives --------------------------------------------------------------------------------------- */

static int other_can_read(void *opaque)
{
    (void)opaque;
    return 3;
}

static void other_read(void *opaque, const void *buf, size_t len)
{
    (void)buf;
    CHECK(len <= 3);
    *(size_t *)opaque += len;
}

static size_t other_has;

static int hand_over_when_asked(void *opaque)
{
    static const chr_handlers others = { other_can_read, other_read, NULL, NULL };
    recorder                 *rec = (recorder *)opaque;
    if (!rec->user) return 0;
    chr_fe_set_handlers(&rec->fe, &others, &other_has);
    return 100;
}

/* The room was reported by handlers that have been replaced; can_read of the new ones has not been called. */
static void check_handover_in_can_read(const char *more)
{
    static const chr_handlers handlers = { hand_over_when_asked, recorder_read, recorder_event, NULL };
    recorder rec;
    char     options[80];
    int      fds[2];
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d%s", fds[0], more);
    attach(&rec, make(&r, options));
    rec.open = 0;
    chr_fe_set_handlers(&rec.fe, &handlers, &rec);
    settle(&r);
    other_has = 0;
    rec.user = &r;
    say(fds[1], "0123456789");
    settle(&r);
    CHECK_INT(rec.length, 0);
    CHECK_INT(other_has, 10);
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}

TEST(can_read_that_sets_other_handlers_has_not_answered_for_them)
{
    check_handover_in_can_read("");
    check_handover_in_can_read(",mux=on");
}

static void disconnect_in_change(recorder *rec, int what)
{
    if (what == 'c') CHECK_INT(rec->user ? chr_fe_shutdown(&rec->fe) : chr_fe_disconnect(&rec->fe), 0);
}

/* The new backend's descriptor still belongs to the caller during the `change` handler: it is closed at commit, not
 * before. */
TEST(a_change_handler_that_disconnects_its_new_backend)
{
    recorder rec;
    char     options[80];
    int      fds[2], refuse;
    rig      r;
    rig_open(&r);
    for (refuse = 0; refuse < 2; refuse++) {
        attach(&rec, make(&r, "null,id=x"));
        rec.then = disconnect_in_change;
        rec.change_answer = -refuse;
        socket_pair(fds);
        snprintf(options, sizeof options, "socket,fd=%d", fds[0]);
        CHECK_INT(chr_change(r.ctx, "x", options, NULL), refuse ? CHR_ERR_BUSY : 0);
        CHECK_STR(hear(fds[1]), refuse ? "" : "(eof)");
        if (refuse) close(fds[0]);
        close(fds[1]);
        detach(&rec);
        CHECK_INT(chr_remove(r.ctx, "x", NULL), 0);
    }
    rig_close(&r);
}

TEST(a_change_handler_that_ends_the_output_of_its_new_backend)
{
    recorder rec;
    char     options[80];
    int      in[2], out[2];
    rig      r;
    rig_open(&r);
    REQUIRE(pipe(in) == 0 && pipe(out) == 0);
    attach(&rec, make(&r, "null,id=x"));
    rec.then = disconnect_in_change;
    rec.user = &r;
    rec.change_answer = -1;
    snprintf(options, sizeof options, "fd,in=%d,out=%d", in[0], out[1]);
    CHECK_INT(chr_change(r.ctx, "x", options, NULL), CHR_ERR_BUSY);
    CHECK(fcntl(out[1], F_GETFD) >= 0); /* refused: it is the giver's again */
    rec.change_answer = 0;
    CHECK_INT(chr_change(r.ctx, "x", options, NULL), 0);
    CHECK_STR(hear(out[0]), "(eof)");
    close(in[1]);
    close(out[0]);
    detach(&rec);
    rig_close(&r);
}

/* Its flags can't be read: it still belongs to the caller. */
TEST(a_refused_change_leaves_a_descriptor_open_whose_flags_are_unknown)
{
    recorder rec;
    char     options[80];
    int      fds[2], at, refused = 0;
    rig      r;
    rig_open(&r);
    attach(&rec, make(&r, "null,id=x"));
    rec.change_answer = -1;
    for (at = 1; at < 6; at++) {
        socket_pair(fds);
        snprintf(options, sizeof options, "fd,in=%d", fds[0]);
        fault_arm(FAULT_fcntl, EIO, at, 0);
        refused += chr_change(r.ctx, "x", options, NULL) == CHR_ERR_BUSY;
        fault_disarm();
        CHECK(fcntl(fds[0], F_GETFD) >= 0);
        close(fds[0]);
        close(fds[1]);
    }
    CHECK(refused > 0);
    detach(&rec);
    rig_close(&r);
}

static int prepare_and_refuse(void *opaque)
{
    recorder *rec = (recorder *)opaque;
    chr_poll  polls[8];
    int       timeout;
    (void)chr_loop_prepare((chr_context *)rec->user, polls, 8, &timeout); /* asks the new backend for its state */
    return -1;
}

/* The old backend is closed, the new one is open and has delivered OPENED: after the rollback the frontend gets
 * CLOSED. */
TEST(a_refused_backend_that_was_open_is_closed_again)
{
    static const chr_handlers handlers = { recorder_can_read, recorder_read, recorder_event, prepare_and_refuse };
    recorder rec;
    char     options[80];
    int      fds[2];
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=x,fd=%d", fds[0]);
    attach(&rec, make(&r, options));
    close(fds[1]);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    rec.user = r.ctx;
    chr_fe_set_handlers(&rec.fe, &handlers, &rec);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,fd=%d", fds[0]);
    CHECK_INT(chr_change(r.ctx, "x", options, NULL), CHR_ERR_BUSY);
    settle(&r);
    CHECK(!rec.open && !rec.fe.opened_delivered);
    CHECK_STR(rec.events + strlen(rec.events) - 2, "OC");
    CHECK_INT(strlen(rec.events), 4);
    close(fds[0]);
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}
