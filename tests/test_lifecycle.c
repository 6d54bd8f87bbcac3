/*
 * Which calls are allowed when: handlers that remove everything, slots that must not call handlers, and rejected calls
 * that change nothing.
 */
#include "chardev.h"
#include "rig.h"

#include <sys/resource.h>

/* ---- a backend whose slots do what a test asks for --------------------------------------------------------------- */

static chr_dev *odd_dev;
static int      odd_room, odd_closes, odd_updates;
static void   (*odd_in_open)(chr_dev *), (*odd_in_write)(chr_dev *);

static int odd_open(chr_dev *dev, chr_error *err)
{
    (void)err;
    odd_dev = dev;
    if (odd_in_open) odd_in_open(dev);
    return 0;
}

static void odd_close(chr_dev *dev)
{
    odd_closes++;
    chr_be_event(dev, CHR_EVENT_CLOSED);
}

static int odd_write(chr_dev *dev, const void *buf, size_t len)
{
    (void)buf;
    if (odd_in_write) odd_in_write(dev);
    return (int)len;
}

static void odd_update(chr_dev *dev)
{
    odd_updates++;
    odd_room = chr_be_can_write(dev);
}

static int odd_ioctl(chr_dev *dev, int command, void *arg)
{
    (void)command, (void)arg;
    if (odd_in_write) odd_in_write(dev);
    return 0;
}

CHR_TABLE(chr_io, odd_io,
    CHR_SET(write,  odd_write)
    CHR_SET(update, odd_update));

CHR_TABLE(chr_backend, odd_backend,
    CHR_SET(name,         "odd")
    CHR_SET(help,         "does what the test asks for")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(chr_dev))
    CHR_SET(open,         odd_open)
    CHR_SET(close,        odd_close)
    CHR_SET(io,           &odd_io)
    CHR_SET(ioctl,        odd_ioctl));

static void open_odd_rig(rig *r)
{
    chr_error err;
    rig_open(r);
    odd_in_open = odd_in_write = NULL;
    REQUIRE(chr_backend_register(r->ctx, &odd_backend, &err) == 0);
}

static void tell_all(chr_dev *dev)
{
    chr_be_event(dev, CHR_EVENT_OPENED);
    chr_be_event(dev, CHR_EVENT_BREAK);
    chr_be_event(dev, 4711);
    chr_be_writable(dev);
    CHECK_INT(chr_be_can_write(dev), 0);
}

/* ---- slots are quiet --------------------------------------------------------------------------------------------- */

TEST(what_slots_tell_comes_from_the_loop)
{
    recorder rec;
    rig      r;
    open_odd_rig(&r);
    odd_in_open = tell_all;
    attach(&rec, make(&r, "odd,id=o"));
    CHECK_STR(rec.events, "O"); /* setting handlers on an open one */
    settle(&r);
    CHECK_STR(rec.events, "OB?");
    CHECK_INT(rec.last_event, 4711);
    odd_in_write = tell_all;
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    odd_updates = 0;
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    CHECK_INT(chr_fe_ioctl(&rec.fe, 1, NULL), 0);
    CHECK_INT(chr_fe_write_all(&rec.fe, "x", 1, 0), 1);
    CHECK_STR(rec.events, "OB?");
    CHECK_INT(rec.writable, 0);
    CHECK_INT(odd_updates, 0);
    settle(&r);
    CHECK_STR(rec.events, "OB?B?");
    CHECK_INT(rec.writable, 1);
    CHECK(odd_updates > 0);
    CHECK_INT(odd_room, UNLIMITED);
    detach(&rec);
    odd_in_write = NULL;
    rig_close(&r);
}

/* A write that returns CHR_ERR_DISCONNECTED and posts the event, below obuf= and history=: the queue is not flushed
 * from inside that write. */
static int write_depth, write_deepest;

static int shy_write(chr_dev *dev, const void *buf, size_t len)
{
    (void)buf, (void)len;
    write_depth++;
    write_deepest = write_depth > write_deepest ? write_depth : write_deepest;
    if (dev->be_open) chr_be_event(dev, CHR_EVENT_CLOSED);
    write_depth--;
    return CHR_ERR_DISCONNECTED;
}

static int blocked_write(chr_dev *dev, const void *buf, size_t len) { return (void)dev, (void)buf, (void)len, CHR_ERR_WOULD_BLOCK; }

static int  shy;
static int  odd_or_shy(chr_dev *dev, const void *buf, size_t len) { return shy ? shy_write(dev, buf, len) : blocked_write(dev, buf, len); }
static int  shy_open(chr_dev *dev, chr_error *err) { (void)err; chr_be_event(dev, CHR_EVENT_OPENED); return 0; }
static void shy_update(chr_dev *dev) { if (chr_be_wants_writable(dev)) chr_be_writable(dev); }

CHR_TABLE(chr_io, shy_io,
    CHR_SET(write,  odd_or_shy)
    CHR_SET(update, shy_update));

CHR_TABLE(chr_backend, shy_backend,
    CHR_SET(name,         "shy")
    CHR_SET(help,         "tells CLOSED in write")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(chr_dev))
    CHR_SET(open,         shy_open)
    CHR_SET(io,           &shy_io));

TEST(a_slot_that_tells_closed_is_not_entered_again)
{
    recorder  rec;
    chr_error err;
    rig       r;
    rig_open(&r);
    REQUIRE(chr_backend_register(r.ctx, &shy_backend, &err) == 0);
    attach(&rec, make(&r, "shy,id=s,history=64,obuf=64"));
    CHECK_INT(chr_fe_write(&rec.fe, "abc", 3), 3); /* it waits in obuf= */
    settle(&r);
    CHECK_STR(rec.events, "O");
    shy = 1;
    chr_fe_accept_input(&rec.fe); /* the loop drains, and finds nobody */
    settle(&r);
    CHECK_STR(rec.events, "OC");
    CHECK_INT(write_deepest, 1);
    detach(&rec);
    rig_close(&r);
}

static int asked_in_call, asked;

static int count_can_read(void *opaque)
{
    (void)opaque;
    asked++;
    return 100;
}

static void take_input(void *opaque, const void *buf, size_t len) { (void)opaque, (void)buf, (void)len; }

TEST(room_is_asked_from_the_loop_only)
{
    static const chr_handlers handlers = { count_can_read, take_input, NULL, NULL };
    char                      options[60];
    chr_frontend              fe;
    chr_error                 err;
    int                       fds[2];
    rig                       r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    memset(&fe, 0, sizeof fe);
    REQUIRE(chr_fe_init(&fe, make(&r, options), &err) == 0);
    chr_fe_set_handlers(&fe, &handlers, NULL);
    chr_fe_accept_input(&fe);
    CHECK_INT(chr_fe_write(&fe, "x", 1), 1);
    chr_fe_add_watch(&fe, NULL, NULL);
    asked_in_call = asked;
    CHECK_INT(asked_in_call, 0);
    settle(&r);
    CHECK(asked > 0);
    chr_fe_deinit(&fe);
    close(fds[1]);
    rig_close(&r);
}

/* ---- outside of slots and of the loop ---------------------------------------------------------------------------- */

static void remove_it(recorder *rec, int what)
{
    chr_context *ctx = rec->fe.dev->ctx;
    (void)what;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(ctx, "o", NULL), 0);
}

TEST(backend_calls_outside_of_the_loop_deliver_at_once)
{
    recorder rec;
    chr_dev *dev;
    rig      r;
    open_odd_rig(&r);
    attach(&rec, dev = make(&r, "odd,id=o"));
    chr_be_event(dev, CHR_EVENT_OPENED);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_be_can_write(dev), UNLIMITED);
    chr_be_write(dev, "abc", 3);
    CHECK_INT(rec.length, 3);
    rec.then = remove_it;
    chr_be_event(dev, CHR_EVENT_BREAK);
    CHECK_INT(dev->removed, 1); /* its memory is there still */
    CHECK(chr_find(r.ctx, "o") == NULL);
    CHECK_INT(odd_closes, 1);
    CHECK_STR(rec.events, "OB");
    free(rec.input);
    rig_close(&r);
}

/* ---- what waits comes in order, and first ------------------------------------------------------------------------ */

static recorder *make_server(rig *r, recorder *rec, int *fd)
{
    char      options[200];
    chr_error err;
    int       fds[2];
    snprintf(options, sizeof options, "socket,id=o,path=%s,server=on,wait=off", scratch("s"));
    attach(rec, make(r, options));
    socket_pair(fds);
    REQUIRE(chr_add_client(r->ctx, "o", fds[0], &err) == 0);
    *fd = fds[1];
    return rec;
}

TEST(break_comes_behind_what_waits)
{
    recorder rec;
    int      fd;
    rig      r;
    rig_open(&r);
    make_server(&r, &rec, &fd);
    settle(&r);
    chr_fe_disconnect(&rec.fe);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_send_break(r.ctx, "o", NULL), 0);
    CHECK_STR(rec.events, "OCB");
    detach(&rec);
    close(fd);
    rig_close(&r);
    scratch_clean();
}

TEST(removed_in_an_event_that_send_break_delivers)
{
    recorder rec;
    int      fd;
    rig      r;
    rig_open(&r);
    make_server(&r, &rec, &fd);
    settle(&r);
    chr_fe_disconnect(&rec.fe);
    rec.then = remove_it;
    CHECK_INT(chr_send_break(r.ctx, "o", NULL), 0);
    CHECK_STR(rec.events, "OC");
    CHECK(chr_find(r.ctx, "o") == NULL);
    close(fd);
    rig_close(&r);
    scratch_clean();
}

TEST(context_free_delivers_a_pending_closed)
{
    recorder rec;
    int      fd;
    rig      r;
    rig_open(&r);
    make_server(&r, &rec, &fd);
    settle(&r);
    chr_fe_disconnect(&rec.fe);
    close(fd);
    rig_close(&r);
    CHECK_STR(rec.events, "OC");
    CHECK(rec.fe.dev == NULL);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    chr_fe_deinit(&rec.fe);
    scratch_clean();
}

TEST(context_free_delivers_a_pending_opened)
{
    recorder rec;
    int      fd;
    rig      r;
    rig_open(&r);
    make_server(&r, &rec, &fd);
    close(fd);
    rig_close(&r);
    CHECK_STR(rec.events, "OC");
    scratch_clean();
}

/* All frontends of a mux get it. */
TEST(context_free_with_a_mux)
{
    recorder recs[2];
    chr_dev *dev;
    rig      r;
    rig_open(&r);
    dev = make(&r, "ringbuf,id=m,mux=on");
    chr_mux_suspend_open(r.ctx);
    attach(&recs[0], dev);
    attach(&recs[1], dev);
    chr_mux_resume_open(r.ctx);
    rig_close(&r);
    CHECK(strstr(recs[0].events, "O") && strstr(recs[0].events, "C"));
    CHECK(strstr(recs[1].events, "O") && strstr(recs[1].events, "C"));
}

/* The last CLOSED opens another chardev, whose OPENED disconnects it and opens the first one again. */
static void turn_about(recorder *rec, int what)
{
    chr_dev *server = chr_find(rec->fe.ctx, "o");
    if (what != 'e') return;
    if (rec->last_event == CHR_EVENT_OPENED) chr_fe_disconnect(&rec->fe);
    if (rec->last_event == CHR_EVENT_CLOSED) chr_be_event(rec->fe.dev, CHR_EVENT_OPENED);
    if (rec->last_event == CHR_EVENT_CLOSED && server) chr_be_event(server, CHR_EVENT_OPENED);
}

/* Whichever of them is freed first, each OPENED has its CLOSED. */
TEST(context_free_ends_with_closed_whatever_the_handlers_do)
{
    recorder recs[3];
    int      fd, i;
    rig      r;
    rig_open(&r);
    attach(&recs[0], make(&r, "ringbuf,id=before"));
    make_server(&r, &recs[1], &fd);
    attach(&recs[2], make(&r, "ringbuf,id=after"));
    settle(&r);
    for (i = 0; i < 3; i++) recs[i].then = turn_about;
    close(fd);
    rig_close(&r);
    for (i = 0; i < 3; i++) CHECK_INT(recs[i].events[strlen(recs[i].events) - 1], 'C');
    scratch_clean();
}

static void change_another(recorder *rec, int what)
{
    chr_error err;
    if (what == 'e' && rec->last_event == CHR_EVENT_CLOSED) CHECK_INT(chr_change(rec->fe.ctx, "other", "ringbuf", &err), CHR_ERR_BUSY);
}

TEST(nothing_is_changed_while_the_context_is_freed)
{
    recorder recs[2];
    int      i;
    rig      r;
    rig_open(&r);
    attach(&recs[0], make(&r, "ringbuf,id=one"));
    attach(&recs[1], make(&r, "ringbuf,id=other"));
    for (i = 0; i < 2; i++) recs[i].then = change_another;
    rig_close(&r);
    CHECK_STR(recs[1].events, "OC");
}

static rig *made_in;
static int  made_code;

static void make_anew(recorder *rec, int what)
{
    chr_error err;
    if (what != 'e' || rec->last_event != CHR_EVENT_CLOSED) return;
    err.code = 0;
    CHECK(chr_new(made_in->ctx, "ringbuf,id=again", &err) == NULL);
    made_code = err.code;
    chr_context_free(made_in->ctx); /* inside a handler: nothing but a line in the log */
}

TEST(nothing_is_made_while_the_context_is_freed)
{
    recorder rec;
    rig      r;
    rig_open(&r);
    attach(&rec, make(&r, "ringbuf,id=o"));
    rec.then = make_anew;
    made_in = &r;
    rig_close(&r);
    CHECK_STR(rec.events, "OC");
    CHECK_INT(made_code, CHR_ERR_BUSY);
    CHECK_HAS(r.log, "inside a handler");
}

static void lower_room(recorder *rec, int what)
{
    if (what == 'e') rec->room = 3;
}

/* The recorder complains about more than it has room for. */
TEST(opened_lowers_the_room_for_what_comes_behind_it)
{
    recorder rec;
    int      fd;
    rig      r;
    rig_open(&r);
    make_server(&r, &rec, &fd);
    rec.room = 10;
    rec.then = lower_room;
    say(fd, "0123456789");
    settle(&r);
    CHECK_INT(rec.length, 3);
    give_room(&rec, 20);
    settle(&r);
    CHECK_INT(rec.length, 10);
    detach(&rec);
    close(fd);
    rig_close(&r);
    scratch_clean();
}

/* OPENED of a mux that was held back comes before input. */
TEST(opened_of_a_mux_comes_before_input)
{
    recorder rec;
    char     options[80];
    int      fds[2];
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "fd,id=m,in=%d,out=%d,mux=on", fds[0], fds[0]);
    chr_mux_suspend_open(r.ctx);
    attach(&rec, make(&r, options));
    say(fds[1], "abc");
    settle(&r);
    CHECK_INT(rec.length, 0);
    CHECK_STR(strchr(rec.events, 'O') ? "O" : "", "");
    chr_mux_resume_open(r.ctx);
    settle(&r); /* the recorder complains about input before OPENED */
    CHECK_INT(rec.length, 3);
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}

static recorder other;

static void give_up_place(recorder *rec)
{
    chr_dev *dev = rec->fe.dev;
    chr_fe_deinit(&rec->fe);
    attach_with_room(&other, dev, 2);
}

static int leave_in_can_read(void *opaque)
{
    give_up_place((recorder *)opaque);
    return 1000;
}

/* can_read of one frontend attaches another: that gets no more than its own can_read allows. */
TEST(room_of_one_is_not_that_of_the_next)
{
    static const chr_handlers handlers = { leave_in_can_read, recorder_read, recorder_event, NULL };
    char                      options[60];
    recorder                  rec;
    int                       fds[2];
    rig                       r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "fd,id=f,in=%d,out=%d", fds[0], fds[0]);
    say(fds[1], "0123456789");
    attach(&rec, make(&r, options));
    rec.open = 0;
    chr_fe_set_handlers(&rec.fe, &handlers, &rec);
    settle(&r);
    CHECK_INT(rec.length, 0);
    CHECK_INT(other.length, 2);
    detach(&other);
    close(fds[1]);
    rig_close(&r);
}

static int listen_and_ask_in_can_read(void *opaque)
{
    recorder *rec = (recorder *)opaque;
    if (asked++ == 0) return 1000; /* whether to poll; with the next answer it is read */
    listen_to(rec);
    CHECK_INT(chr_be_can_write(rec->fe.dev), 2);
    return 1000;
}

/* New handlers are set and their can_read is called inside the old can_read: the old result is still stale. */
TEST(room_of_old_handlers_is_not_that_of_new_ones)
{
    static const chr_handlers handlers = { listen_and_ask_in_can_read, recorder_read, recorder_event, NULL };
    char                      options[60];
    recorder                  rec;
    int                       fds[2];
    rig                       r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "fd,id=f,in=%d,out=%d", fds[0], fds[0]);
    say(fds[1], "0123456789");
    attach_with_room(&rec, make(&r, options), 2);
    rec.open = asked = 0;
    chr_fe_set_handlers(&rec.fe, &handlers, &rec);
    settle(&r);
    CHECK_INT(asked, 2);
    CHECK_INT(rec.length, 2);
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}

static void listen_again(recorder *rec, int what)
{
    if (what == 'e' && rec->last_event == CHR_EVENT_CLOSED && rec->then) {
        rec->then = NULL;
        listen_to(rec);
    }
}

/* The CLOSED of a change makes the frontend set its handlers again: these get OPENED of the old backend, and then
 * CLOSED. */
TEST(handlers_that_are_set_during_a_change_know_that_the_new_backend_is_closed)
{
    char      options[200];
    recorder  rec;
    chr_error err;
    rig       r;
    rig_open(&r);
    attach(&rec, make(&r, "ringbuf,id=r"));
    settle(&r);
    rec.then = listen_again;
    snprintf(options, sizeof options, "socket,path=%s,server=on,wait=off", scratch("later"));
    REQUIRE(chr_change(r.ctx, "r", options, &err) == 0);
    settle(&r);
    CHECK_STR(rec.events, "OCOC");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* ---- frontends that are attached already ------------------------------------------------------------------------- */

static void check_init_again(const char *options, const char *second)
{
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open(&r);
    attach(&rec, make(&r, options));
    CHECK_INT(chr_fe_init(&rec.fe, second ? make(&r, second) : rec.fe.dev, &err), CHR_ERR_BUSY);
    CHECK_HAS(err.text, "attached");
    CHECK_INT(chr_fe_init(&rec.fe, NULL, &err), CHR_ERR_BUSY);
    CHECK_INT(chr_fe_write(&rec.fe, "hello", 5), 5);
    chr_send_break(r.ctx, "a", NULL);
    CHECK(strchr(rec.events, 'B') != NULL);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "a", &err), 0);
    rig_close(&r);
}

TEST(init_of_an_attached_frontend) { check_init_again("ringbuf,id=a", NULL); }
TEST(init_of_an_attached_frontend_on_another) { check_init_again("ringbuf,id=a", "null,id=b"); }
TEST(init_of_an_attached_frontend_on_a_mux) { check_init_again("ringbuf,id=a,mux=on", NULL); }
TEST(init_from_a_mux_on_another_mux) { check_init_again("ringbuf,id=a,mux=on", "null,id=b,mux=on"); }

TEST(init_of_any_memory_that_is_not_attached)
{
    chr_frontend fe, copy;
    chr_error    err;
    rig          r;
    rig_open(&r);
    memset(&fe, 0xa5, sizeof fe);
    CHECK_INT(chr_fe_init(&fe, make(&r, "ringbuf,id=a"), &err), 0);
    copy = fe;
    CHECK_INT(chr_fe_init(&copy, make(&r, "ringbuf,id=b"), &err), 0);
    CHECK_INT(chr_fe_write(&copy, "x", 1), 1);
    chr_fe_deinit(&copy);
    chr_fe_deinit(&fe);
    CHECK_INT(chr_fe_init(&fe, chr_find(r.ctx, "a"), &err), 0);
    chr_fe_deinit(&fe);
    rig_close(&r);
}

/* Taking the focus calls a handler of another frontend, which removes the new one: it gets no more events. */
static recorder *newcomer;

static void send_away(recorder *rec, int what)
{
    (void)rec;
    if (what != 'e' || rec->last_event != CHR_EVENT_MUX_OUT) return;
    chr_fe_deinit(&newcomer->fe);
    memset(&newcomer->fe, 0xee, sizeof newcomer->fe); /* its memory may go */
}

TEST(who_loses_the_focus_detaches_who_gets_it)
{
    recorder first, second;
    rig      r;
    rig_open(&r);
    attach(&first, make(&r, "ringbuf,id=m,mux=on"));
    settle(&r);
    first.then = send_away;
    newcomer = &second;
    memset(&second, 0, sizeof second);
    REQUIRE(chr_fe_init(&second.fe, chr_find(r.ctx, "m"), NULL) == 0);
    listen_to(&second);
    settle(&r);
    CHECK_STR(second.events, "");
    detach(&first);
    rig_close(&r);
}

/* ---- hot swaps --------------------------------------------------------------------------------------------------- */

TEST(change_into_what_stands_on_others)
{
    static const char *const bad[] = { "mux,chardev=base", "mux,chardev=x", "hub,chardevs.0=base", "ringbuf,mux=on" };
    chr_error                err;
    recorder                 rec;
    size_t                   i;
    rig                      r;
    rig_open(&r);
    make(&r, "ringbuf,id=base");
    attach(&rec, make(&r, "ringbuf,id=x"));
    make(&r, "ringbuf,id=alone");
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_INT(chr_change(r.ctx, "x", bad[i], &err), CHR_ERR_NOT_SUPPORTED);
        CHECK_HAS(err.text, i < 2 ? "mux" : i < 3 ? "hub" : "mux=on");
        CHECK_INT(chr_change(r.ctx, "alone", bad[i], &err), CHR_ERR_NOT_SUPPORTED);
    }
    CHECK(chr_find(r.ctx, "alone") != NULL);
    CHECK_INT(rec.changes, 0);
    CHECK_INT(chr_fe_write(&rec.fe, "abc", 3), 3);
    CHECK_INT(chr_ringbuf_count(chr_find(r.ctx, "x")), 3);
    detach(&rec);
    rig_close(&r);
}

/* Outside of handlers a new backend may wait for its peer, as with chr_new(). */
TEST(change_to_one_that_waits)
{
    chr_error err;
    recorder  rec;
    int       fd, peer;
    char      options[60];
    rig       r;
    rig_open(&r);
    fd = unix_listen(scratch("s"));
    peer = unix_connect(scratch("s"));
    attach(&rec, make(&r, "null,id=x"));
    snprintf(options, sizeof options, "socket,fd=%d,server=on", fd);
    CHECK_INT(chr_change(r.ctx, "x", options, &err), 0);
    settle(&r);
    CHECK_STR(rec.events, "O");
    detach(&rec);
    close(peer);
    rig_close(&r);
    scratch_clean();
}

/* What waits for the old one comes before the swap: it won't come any more after it. */
TEST(pending_events_come_before_a_swap)
{
    chr_error err;
    recorder  rec;
    int       fd;
    rig       r;
    rig_open(&r);
    make_server(&r, &rec, &fd);
    settle(&r);
    chr_fe_disconnect(&rec.fe);
    CHECK_INT(chr_change(r.ctx, "o", "ringbuf", &err), 0);
    CHECK_STR(rec.events, "OCO");
    detach(&rec);
    close(fd);
    rig_close(&r);
    scratch_clean();
}

/* ---- descriptors that are refused are as they were --------------------------------------------------------------- */

typedef struct flags {
    int fd, number, description;
} flags;

static flags flags_of(int fd)
{
    flags f = { fd, fcntl(fd, F_GETFD), fcntl(fd, F_GETFL) };
    return f;
}

static void check_flags(const flags *f, const char *what)
{
    if (!CHECK_INT(fcntl(f->fd, F_GETFD), f->number) || !CHECK_INT(fcntl(f->fd, F_GETFL), f->description)) NOTE("after %s", what);
}

TEST(descriptors_of_a_refused_swap)
{
    chr_error     err;
    recorder      rec;
    char          options[4][80];
    int           fds[2], sockets[2], listening, i, round;
    flags         f[4];
    struct rlimit limit, tight;
    rig           r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
    listening = unix_listen(scratch("s"));
    fcntl(listening, F_SETFL, 0);
    fcntl(listening, F_SETFD, 0);
    f[0] = flags_of(fds[0]);
    f[1] = flags_of(fds[1]);
    f[2] = flags_of(sockets[0]);
    f[3] = flags_of(listening);
    snprintf(options[0], sizeof options[0], "fd,in=%d,out=%d", fds[0], fds[1]);
    snprintf(options[1], sizeof options[1], "socket,fd=%d", sockets[0]);
    snprintf(options[2], sizeof options[2], "socket,fd=%d,server=on,wait=off", listening);
    snprintf(options[3], sizeof options[3], "socket,fd=%d,server=on,wait=off,websocket=on", listening);
    attach(&rec, make(&r, "null,id=x"));
    rec.change_answer = -1;
    getrlimit(RLIMIT_NOFILE, &limit);
    tight = limit;
    tight.rlim_cur = (rlim_t)listening + 1;
    for (round = 0; round < 2; round++) {
        if (round) setrlimit(RLIMIT_NOFILE, &tight);
        for (i = 0; i < 4; i++) {
            int k;
            CHECK_INT(chr_change(r.ctx, "x", options[i], &err), CHR_ERR_BUSY);
            for (k = 0; k < 4; k++) check_flags(&f[k], options[i]);
        }
    }
    setrlimit(RLIMIT_NOFILE, &limit);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    rec.change_answer = 0;
    CHECK_INT(chr_change(r.ctx, "x", options[0], &err), 0); /* and from success on they are the chardev's */
    detach(&rec);
    chr_remove(r.ctx, "x", NULL);
    CHECK_INT(fcntl(fds[0], F_GETFD), -1);
    CHECK_INT(fcntl(fds[1], F_GETFD), -1);
    close(sockets[0]);
    close(sockets[1]);
    close(listening);
    rig_close(&r);
    scratch_clean();
}

TEST(descriptors_of_a_failed_creation)
{
    chr_error err;
    char      options[100];
    int       fds[2], sockets[2], i;
    flags     f[3];
    rig       r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
    f[0] = flags_of(fds[0]);
    f[1] = flags_of(fds[1]);
    f[2] = flags_of(sockets[0]);
    snprintf(options, sizeof options, "fd,id=y,in=%d,out=%d", sockets[0], 999);
    CHECK(chr_new(r.ctx, options, &err) == NULL);
    check_flags(&f[2], options);
    for (i = 2; i < 60; i++) { /* each allocation fails in turn */
        chr_dev *dev;
        snprintf(options, sizeof options, i % 2 ? "fd,id=x,in=%d,out=%d,mux=on" : "socket,id=x,fd=%d", i % 2 ? fds[0] : sockets[0], fds[1]);
        r.fail_at = r.calls + i / 2;
        dev = chr_new(r.ctx, options, &err);
        r.fail_at = 0;
        if (dev) break;
        check_flags(&f[0], options);
        check_flags(&f[1], options);
        check_flags(&f[2], options);
    }
    CHECK(i > 4);
    CHECK_INT(chr_remove(r.ctx, "x", NULL), 0);
    for (i = 0; i < 2; i++) { /* whichever it was that took them in the end */
        close(fds[i]);
        close(sockets[i]);
    }
    rig_close(&r);
}

TEST(descriptors_of_refused_clients_and_names)
{
    chr_error err;
    int       sockets[2], i, code = -1;
    flags     f;
    char      options[200];
    rig       r;
    rig_open(&r);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
    f = flags_of(sockets[0]);
    snprintf(options, sizeof options, "socket,id=s,path=%s,server=on,wait=off,websocket=on", scratch("s"));
    make(&r, options);
    make(&r, "null,id=n");
    make(&r, "socket,id=c,host=127.0.0.1,port=1,reconnect=60");
    CHECK_INT(chr_add_client(r.ctx, "n", sockets[0], &err), CHR_ERR_NOT_SUPPORTED);
    check_flags(&f, "a kind that takes no clients");
    for (i = 1; code < 0 && i < 20; i++) {
        r.fail_at = r.calls + i;
        code = chr_add_client(r.ctx, "s", sockets[0], &err);
        r.fail_at = 0;
        if (code < 0) check_flags(&f, "an allocation that fails");
    }
    CHECK(i > 2);
    f = flags_of(sockets[1]);
    CHECK_INT(chr_add_client(r.ctx, "c", sockets[1], &err), CHR_ERR_NOT_SUPPORTED);
    check_flags(&f, "a client that takes no clients");
    CHECK_INT(chr_fd_put(r.ctx, "1x", sockets[1], &err), CHR_ERR_INVALID);
    check_flags(&f, "a bad name");
    r.fail_at = r.calls + 1;
    CHECK_INT(chr_fd_put(r.ctx, "x", sockets[1], &err), CHR_ERR_NO_MEMORY);
    r.fail_at = 0;
    check_flags(&f, "a name without memory");
    close(sockets[1]);
    rig_close(&r);
    scratch_clean();
}

/* ---- writers and the end of the far side ------------------------------------------------------------------------- */

static void check_watch_of_the_gone(rig *r, const char *options, int peer, int room)
{
    recorder rec;
    attach_with_room(&rec, make(r, options), room);
    settle(r);
    if (peer >= 0) {
        if (room == 0) say(peer, "unread");
        settle(r);
        close(peer);
        settle(r);
        CHECK(chr_fe_write(&rec.fe, "x", 1) < 0);
    }
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    settle(r);
    if (!CHECK_INT(rec.writable, 1)) NOTE("for %s", options);
    detach(&rec);
    chr_remove(r->ctx, "x", NULL);
}

TEST(add_watch_when_the_peer_has_gone)
{
    char options[200];
    int  fds[2], room;
    rig  r;
    rig_open(&r);
    for (room = 0; room < 2; room++) {
        socket_pair(fds);
        snprintf(options, sizeof options, "fd,id=x,in=%d,out=%d", fds[0], fds[0]);
        check_watch_of_the_gone(&r, options, fds[1], room ? UNLIMITED : 0);
        socket_pair(fds);
        snprintf(options, sizeof options, "socket,id=x,fd=%d", fds[0]);
        check_watch_of_the_gone(&r, options, fds[1], room ? UNLIMITED : 0);
    }
    snprintf(options, sizeof options, "socket,id=x,path=%s,server=on,wait=off", scratch("s"));
    check_watch_of_the_gone(&r, options, -1, UNLIMITED);
    check_watch_of_the_gone(&r, "pty,id=x", -1, UNLIMITED);
    check_watch_of_the_gone(&r, "null,id=x", -1, UNLIMITED);
    rig_close(&r);
    scratch_clean();
}

/* ---- the log hook may call too, also from inside a slot ---------------------------------------------------------- */

static recorder *logging;
static int       log_calls, log_run;

static void log_and_remove(void *opaque, const char *line)
{
    chr_context *ctx = logging->fe.ctx;
    (void)opaque, (void)line;
    if (log_calls++ > 0) return;
    CHECK_INT(chr_fe_write(&logging->fe, "again", 5), 5); /* no second line, no recursion */
    log_run = chr_loop_run(ctx);
    chr_context_free(ctx);
    chr_fe_deinit(&logging->fe);
    CHECK_INT(chr_remove(ctx, "o", NULL), 0);
}

TEST(log_hook_writes_to_and_removes_the_chardev_that_logs)
{
    recorder    rec;
    rig         r;
    chr_config  config;
    if (access("/dev/full", W_OK) < 0) SKIP("there is no /dev/full");
    config = rig_config(&r);
    config.log = log_and_remove;
    rig_init(&r);
    r.ctx = chr_context_new(&config);
    REQUIRE(r.ctx != NULL);
    attach(&rec, make(&r, "ringbuf,id=o,logfile=/dev/full"));
    logging = &rec;
    CHECK_INT(chr_fe_write(&rec.fe, "abc", 3), 3);
    CHECK(log_calls > 0);
    CHECK_INT(log_run, CHR_ERR_IN_HANDLER);
    CHECK(chr_find(r.ctx, "o") == NULL);
    rig_close(&r);
}
