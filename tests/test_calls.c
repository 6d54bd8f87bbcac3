/*
 * test_calls.c - what passes between a backend and its frontend through the core alone: each call, event and byte,
 * recorded on both sides in order. No descriptors, no time, no other backend.
 */
#include "chardev.h"
#include "fault.h"
#include "private.h"
#include "rig.h"

#include <limits.h>

static char noted[4000]; /* "write(abc) event(1) ..." */
static int  was_write;    /* the last note is one of bytes */

static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *format, ...)
{
    size_t  used = strlen(noted);
    va_list args;
    va_start(args, format);
    vsnprintf(noted + used, sizeof noted - used, format, args);
    va_end(args);
    was_write = 0;
}

static const char *notes(void)
{
    static char last[sizeof noted];
    memcpy(last, noted, sizeof last);
    noted[0] = 0;
    return last;
}

/* ---- the backend ------------------------------------------------------------------------------------------------ */

static struct {
    int  most;                    /* how many bytes it still takes; then it would block */
    int  failure;                 /* of write, when it is not 0 */
    int  shutdown;                /* what shutdown says */
    int  comes_back;
    void (*in_write)(chr_dev *dev); /* called in the slot */
    void (*in_set_open)(chr_dev *dev);
} back;

/* In how many pieces they come does not matter. */
static void note_bytes(int len, const char *bytes)
{
    size_t used = strlen(noted);
    if (was_write && used > 2 && noted[used - 2] == ')') noted[used - 2] = 0;
    else note("write(");
    note("%.*s) ", len, bytes);
}

/* Of each by the first letter of its id: its own `most` and `failure`; without those it has the common ones. */
static struct {
    int is_own, most, failure;
} of_id[128];

static int back_write(chr_dev *dev, const void *buf, size_t len)
{
    int  own = of_id[(int)dev->id[0]].is_own;
    int *most = own ? &of_id[(int)dev->id[0]].most : &back.most;
    int  failure = own ? of_id[(int)dev->id[0]].failure : back.failure;
    int  n = failure ? failure : *most == 0 ? CHR_ERR_WOULD_BLOCK : (int)len < *most ? (int)len : *most;
    if (n > 0) *most -= n;
    if (own) note("%s.", dev->id);
    if (n > 0) note_bytes(n, (const char *)buf);
    else note("write:%s ", n == CHR_ERR_WOULD_BLOCK ? "wait" : "fails");
    was_write = n > 0;
    if (back.in_write) back.in_write(dev);
    return n;
}

static void back_update(chr_dev *dev)
{
    int space = chr_be_can_write(dev);
    if (dev->removed) return;
    note("update(%d,%d) ", space, chr_be_wants_writable(dev));
}

static int back_open(chr_dev *dev, chr_error *err)
{
    (void)dev, (void)err;
    return 0;
}

static void back_close(chr_dev *dev)
{
    (void)dev;
    note("close ");
}

static void back_describe(const chr_dev *dev, chr_info *info)
{
    (void)dev;
    info->comes_back = back.comes_back;
}

static void back_set_open(chr_dev *dev, int is_open)
{
    note("set_open(%d) ", is_open);
    if (back.in_set_open) back.in_set_open(dev);
}

static int back_read(chr_dev *dev, void *buf, size_t len)
{
    (void)dev;
    if (back.failure) return back.failure;
    memset(buf, 'r', len < 4 ? len : 4);
    return len < 4 ? (int)len : 4;
}

/* Each answer is another one, small and large, positive and negative. */
static int back_ioctl(chr_dev *dev, int command, void *arg)
{
    static const chr_serial_params params = { 115200, 'E', 7, 2 };
    static const chr_terminal_size size = { 0x12345678, -0x1234567 };
    switch (command) {
    case CHR_IOCTL_SERIAL_GET_PARAMS: memcpy(arg, &params, sizeof params); return 0;
    case CHR_IOCTL_GET_TERMINAL_SIZE: memcpy(arg, &size, sizeof size); return 0;
    case CHR_IOCTL_PP_READ_DATA: *(unsigned char *)arg = 0xa7; return 0;
    case CHR_IOCTL_PP_EPP_READ: memcpy(((chr_parallel_epp *)arg)->buf, "cycles", 6); return 0;
    case CHR_IOCTL_SERIAL_SET_BREAK: return dev->id[0] == 'g' ? *(int *)arg = dev->id[1], 0 : CHR_ERR_IO;
    case CHR_IOCTL_SET_TERMINAL_SIZE: return CHR_ERR_NOT_SUPPORTED;
    default: *(int *)arg = command % 2 ? command * 0x1010101 : command * -0x1010101; return 0;
    }
}

static int back_wait_connected(chr_dev *dev, chr_error *err)
{
    if (!back.failure) return 0;
    return chr_error_set(err, back.failure, "%s waits in vain", dev->id), back.failure;
}

static int back_disconnect(chr_dev *dev)
{
    note("disconnect ");
    chr_be_event(dev, CHR_EVENT_CLOSED);
    return 0;
}

static int back_shutdown(chr_dev *dev)
{
    (void)dev;
    note("shutdown ");
    return back.shutdown;
}

CHR_TABLE(chr_io, back_io,
    CHR_SET(write,  back_write)
    CHR_SET(read,   back_read)
    CHR_SET(update, back_update));
CHR_TABLE(chr_io, plain_io,
    CHR_SET(write, back_write));
CHR_TABLE(chr_peer_slots, back_peer,
    CHR_SET(disconnect,     back_disconnect)
    CHR_SET(wait_connected, back_wait_connected)
    CHR_SET(shutdown,       back_shutdown));
CHR_TABLE(chr_backend, back_kind,
    CHR_SET(name,         "back")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(chr_dev))
    CHR_SET(open,         back_open)
    CHR_SET(close,        back_close)
    CHR_SET(io,           &back_io)
    CHR_SET(describe,     back_describe)
    CHR_SET(ioctl,        back_ioctl)
    CHR_SET(set_open,     back_set_open)
    CHR_SET(peer,         &back_peer));
CHR_TABLE(chr_backend, plain_kind, /* the required slots alone */
    CHR_SET(name,         "plain")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(chr_dev))
    CHR_SET(open,         back_open)
    CHR_SET(io,           &plain_io));

/* One that is open from its beginning, and one that can't be. */
static int ready_open(chr_dev *dev, chr_error *err)
{
    (void)err;
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

static int broken_open(chr_dev *dev, chr_error *err)
{
    (void)dev;
    return chr_error_set(err, CHR_ERR_IO, "it is broken"), CHR_ERR_IO;
}

static void ready_close(chr_dev *dev)
{
    (void)dev;
    note("close_ready ");
}

CHR_TABLE(chr_backend, ready_kind,
    CHR_SET(name,         "ready")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(chr_dev))
    CHR_SET(open,         ready_open)
    CHR_SET(close,        ready_close)
    CHR_SET(io,           &back_io)
    CHR_SET(set_open,     back_set_open));
CHR_TABLE(chr_backend, broken_kind,
    CHR_SET(name,         "broken")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(chr_dev))
    CHR_SET(open,         broken_open)
    CHR_SET(io,           &back_io));

/* ---- the frontend ----------------------------------------------------------------------------------------------- */

static chr_frontend front;
static int          asks_are_noted;
static int          room;                /* what can_read says */
static int          change_answer;
static void       (*then)(int what);     /* called last in each handler: the event, or 'c', 'r', 'x', 'w' */

static int front_can_read(void *opaque)
{
    int now = room;
    (void)opaque;
    if (asks_are_noted) note("ask ");
    if (then) then('c');
    return now;
}

static void front_read(void *opaque, const void *buf, size_t len)
{
    (void)opaque;
    note("read(%.*s) ", (int)len, (const char *)buf);
    if (then) then('r');
}

static void front_event(void *opaque, int event)
{
    (void)opaque;
    note("event(%d) ", event);
    if (then) then(event);
}

static int front_change(void *opaque)
{
    (void)opaque;
    note("change ");
    if (then) then('x');
    return change_answer;
}

static void front_writable(void *opaque)
{
    note("writable(%s) ", (const char *)opaque);
    if (then) then('w');
}

/* A line for the log: a backend may log inside a slot, and the hook may do what a handler may. */
static void (*logged)(void);

static void log_hook(void *opaque, const char *line)
{
    void (*now)(void) = logged;
    (void)opaque, (void)line;
    logged = NULL;
    if (now) now();
}

static void log_a_line(chr_dev *dev)
{
    back.in_write = NULL;
    chr_be_log(dev, "something has happened");
}

static const chr_handlers all_handlers = { front_can_read, front_read, front_event, front_change };

static chr_dev *start(rig *r, const char *options)
{
    chr_config config;
    chr_dev   *dev;
    memset(&back, 0, sizeof back);
    memset(of_id, 0, sizeof of_id);
    memset(&fault_plan, 0, sizeof fault_plan);
    logged = NULL;
    back.most = 1000;
    room = 100;
    asks_are_noted = 1;
    change_answer = 0;
    then = NULL;
    noted[0] = 0;
    config = rig_config(r);
    config.log = log_hook;
    config.clock = rig_clock;
    rig_init(r);
    r->ctx = chr_context_new(&config);
    REQUIRE(r->ctx != NULL);
    REQUIRE(chr_backend_register(r->ctx, &back_kind, NULL) == 0);
    REQUIRE(chr_backend_register(r->ctx, &plain_kind, NULL) == 0);
    REQUIRE(chr_backend_register(r->ctx, &ready_kind, NULL) == 0);
    REQUIRE(chr_backend_register(r->ctx, &broken_kind, NULL) == 0);
    dev = make(r, options);
    memset(&front, 0, sizeof front);
    REQUIRE(chr_fe_init(&front, dev, NULL) == 0);
    CHECK_STR(notes(), "");
    return dev;
}

static void finish(rig *r)
{
    if (front.dev) chr_fe_deinit(&front);
    rig_close(r);
}

static void set_handlers(const chr_handlers *handlers) { chr_fe_set_handlers(&front, handlers, NULL); }

/* ---- events ----------------------------------------------------------------------------------------------------- */

static const int many[] = { CHR_EVENT_INPUT_END, CHR_EVENT_MUX_OUT, CHR_EVENT_MUX_IN, CHR_EVENT_PURGE_TRANSMIT, CHR_EVENT_PURGE_RECEIVE,
                            CHR_EVENT_LINE_ERROR, CHR_EVENT_SERIAL, CHR_EVENT_RESIZED, CHR_EVENT_BREAK, -7, CHR_EVENT_READABLE };

static void post_many(chr_dev *dev)
{
    size_t i;
    back.in_write = NULL;
    chr_be_writable(dev);
    for (i = 0; i < sizeof many / sizeof many[0]; i++) chr_be_event(dev, many[i]);
    chr_be_event(dev, CHR_EVENT_OPENED);
}

static void post_opened_and_closed(chr_dev *dev)
{
    back.in_write = NULL;
    chr_be_event(dev, CHR_EVENT_OPENED);
    chr_be_event(dev, CHR_EVENT_INPUT_END);
    chr_be_event(dev, CHR_EVENT_BREAK);
    chr_be_event(dev, CHR_EVENT_BREAK);
    chr_be_event(dev, CHR_EVENT_CLOSED);
    CHECK_INT(dev->be_open, 0);
}

static void post_closed_and_opened(chr_dev *dev)
{
    back.in_write = NULL;
    chr_be_event(dev, CHR_EVENT_CLOSED);
    CHECK_INT(dev->be_open, 0);
    chr_be_event(dev, CHR_EVENT_OPENED);
    CHECK_INT(dev->be_open, 1);
}

static void post_break(chr_dev *dev)
{
    back.in_write = NULL;
    chr_be_event(dev, CHR_EVENT_BREAK);
}

static void remove_at_break(int what)
{
    chr_context *ctx = front.ctx;
    if (what != CHR_EVENT_BREAK) return;
    then = NULL;
    chr_fe_deinit(&front);
    CHECK_INT(chr_remove(ctx, "b", NULL), 0);
}

TEST(events_in_their_order)
{
    chr_dev *dev;
    rig      r;
    dev = start(&r, "back,id=b");
    set_handlers(&all_handlers);
    CHECK_STR(notes(), "set_open(1) ");
    settle(&r);
    CHECK_STR(notes(), "ask update(100,0) ");
    /* at once */
    chr_be_event(dev, CHR_EVENT_CLOSED);
    CHECK_STR(notes(), ""); /* OPENED is the first */
    chr_be_event(dev, CHR_EVENT_OPENED);
    chr_be_event(dev, CHR_EVENT_OPENED);
    CHECK_STR(notes(), "event(1) ");
    CHECK_INT(chr_fe_backend_open(&front), 1);
    chr_be_event(dev, 4711);
    CHECK_STR(notes(), "event(4711) ");
    chr_be_event(dev, CHR_EVENT_CLOSED);
    chr_be_event(dev, CHR_EVENT_CLOSED);
    CHECK_STR(notes(), "event(4) ");
    CHECK_INT(chr_fe_backend_open(&front), 0);
    /* from a slot: one of each, by the loop, before what comes later */
    back.in_write = post_many;
    chr_fe_add_watch(&front, front_writable, (void *)"now");
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    CHECK_STR(notes(), "write(x) ");
    settle(&r);
    CHECK_STR(notes(), "event(1) event(0) event(5) event(6) event(7) event(8) event(9) event(2) event(3) event(10) event(11) writable(now) "
              "ask update(100,0) ");
    back.in_write = post_opened_and_closed;
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    settle(&r);
    CHECK_STR(notes(), "write(x) event(4) event(0) ");
    back.in_write = post_opened_and_closed; /* nobody learns of a peer that has gone again */
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    settle(&r);
    CHECK_STR(notes(), "write(x) event(0) ");
    chr_be_event(dev, CHR_EVENT_OPENED);
    notes();
    back.in_write = post_closed_and_opened;
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    CHECK_INT(chr_fe_backend_open(&front), 1);
    settle(&r);
    CHECK_STR(notes(), "write(x) event(4) event(1) ");
    back.in_write = post_break; /* what is posted comes first */
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    chr_be_event(dev, CHR_EVENT_SERIAL);
    CHECK_STR(notes(), "write(x) event(0) event(6) ");
    back.in_write = post_break;
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    chr_be_write(dev, "input", 5);
    CHECK_STR(notes(), "write(x) event(0) read(input) ");
    back.in_write = post_break;
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    CHECK_INT(chr_be_can_write(dev), 100);
    CHECK_STR(notes(), "write(x) event(0) ask ");
    back.in_write = post_break;
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    chr_fe_add_watch(&front, front_writable, (void *)"later");
    chr_be_writable(dev);
    CHECK_STR(notes(), "write(x) event(0) writable(later) ");
    settle(&r);
    CHECK_STR(notes(), "ask update(100,0) ");
    /* removed in the midst of them */
    back.in_write = post_many;
    then = remove_at_break;
    chr_fe_add_watch(&front, front_writable, (void *)"never");
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    settle(&r);
    CHECK_STR(notes(), "write(x) event(0) set_open(0) close ");
    finish(&r);
}

static void deinit_at_opened(int what)
{
    if (what == CHR_EVENT_OPENED) chr_fe_deinit(&front);
}

static const chr_handlers events_alone = { NULL, NULL, front_event, NULL };
static const chr_handlers bytes_alone = { NULL, front_read, NULL, NULL };

/* The state that new handlers get at once. */
TEST(state_is_told_to_new_handlers)
{
    chr_dev *dev;
    rig      r;
    dev = start(&r, "back,id=b");
    chr_be_event(dev, CHR_EVENT_OPENED);
    CHECK_STR(notes(), "");
    set_handlers(&all_handlers);
    CHECK_STR(notes(), "set_open(1) event(1) ");
    set_handlers(&all_handlers);
    CHECK_STR(notes(), "event(1) ");
    chr_be_event(dev, CHR_EVENT_INPUT_END);
    CHECK_STR(notes(), "event(10) ");
    set_handlers(&all_handlers);
    CHECK_STR(notes(), "event(1) event(10) ");
    set_handlers(&bytes_alone);
    CHECK_STR(notes(), "");
    chr_be_event(dev, CHR_EVENT_BREAK);
    CHECK_STR(notes(), "");
    set_handlers(NULL);
    CHECK_STR(notes(), "set_open(0) ");
    set_handlers(&all_handlers);
    CHECK_STR(notes(), "set_open(1) event(1) event(10) ");
    chr_be_event(dev, CHR_EVENT_OPENED); /* the next peer: its input has not ended */
    CHECK_STR(notes(), "");
    set_handlers(&all_handlers);
    CHECK_STR(notes(), "event(1) ");
    chr_be_event(dev, CHR_EVENT_INPUT_END);
    chr_be_event(dev, CHR_EVENT_CLOSED);
    CHECK_STR(notes(), "event(10) event(4) ");
    set_handlers(&all_handlers);
    CHECK_STR(notes(), "");
    settle(&r);
    notes();
    chr_be_event(dev, CHR_EVENT_OPENED);
    chr_be_event(dev, CHR_EVENT_INPUT_END);
    set_handlers(NULL);
    notes();
    then = deinit_at_opened;
    set_handlers(&all_handlers);
    CHECK_STR(notes(), "set_open(1) event(1) set_open(0) ");
    then = NULL;
    CHECK(front.dev == NULL);
    set_handlers(&all_handlers); /* without a chardev: nothing */
    chr_be_tell_event(&front, CHR_EVENT_BREAK);
    chr_be_tell_writable(&front);
    CHECK_STR(notes(), "");
    settle(&r);
    CHECK_STR(notes(), "update(0,0) ");
    REQUIRE(chr_fe_init(&front, dev, NULL) == 0);
    set_handlers(&events_alone);
    CHECK_STR(notes(), "set_open(1) event(1) event(10) ");
    settle(&r);
    CHECK_STR(notes(), "update(0,0) ");
    finish(&r);
}

/* ---- room and input --------------------------------------------------------------------------------------------- */

static void set_others(int what)
{
    if (what != 'c') return;
    then = NULL;
    set_handlers(&events_alone);
}

static void deinit_when_asked(int what)
{
    if (what == 'c') chr_fe_deinit(&front);
}

static void event_when_asked(int what)
{
    if (what == 'c') chr_be_event(front.dev, CHR_EVENT_CLOSED);
}

static int asked_in_slot;
static void ask_in_slot(chr_dev *dev)
{
    back.in_write = NULL;
    asked_in_slot = chr_be_can_write(dev);
}

TEST(room_and_input)
{
    chr_info info;
    chr_dev *dev;
    rig      r;
    dev = start(&r, "back,id=b");
    CHECK_INT(chr_be_can_write(dev), 0);
    chr_be_write(dev, "nobody", 6);
    set_handlers(&events_alone);
    CHECK_INT(chr_be_can_write(dev), 0);
    chr_be_write(dev, "nobody", 6);
    set_handlers(&bytes_alone);
    CHECK_INT(chr_be_can_write(dev), 65536);
    CHECK_STR(notes(), "set_open(1) ");
    chr_be_write(dev, "all", 3);
    CHECK_STR(notes(), "read(all) ");
    set_handlers(&all_handlers);
    for (room = -1; room <= 2; room++) {
        CHECK_INT(chr_be_can_write(dev), room);
        CHECK_STR(notes(), "ask ");
    }
    chr_query(dev, &info);
    CHECK_INT(info.bytes_in, 15);
    /* inside a slot nobody is asked, but later */
    settle(&r);
    notes();
    back.in_write = ask_in_slot;
    asked_in_slot = -1;
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    CHECK_INT(asked_in_slot, 0);
    CHECK_STR(notes(), "write(x) ");
    settle(&r);
    CHECK_STR(notes(), "ask update(3,0) ");
    chr_fe_accept_input(&front);
    CHECK_STR(notes(), "");
    settle(&r);
    CHECK_STR(notes(), "ask update(3,0) ");
    settle(&r);
    CHECK_STR(notes(), "");
    /* an answer of handlers that are none any more */
    chr_be_event(dev, CHR_EVENT_OPENED);
    notes();
    then = event_when_asked;
    CHECK_INT(chr_be_can_write(dev), 3); /* an event is no reason */
    CHECK_STR(notes(), "ask event(4) ");
    then = set_others;
    CHECK_INT(chr_be_can_write(dev), 0);
    set_handlers(&all_handlers);
    then = deinit_when_asked;
    CHECK_INT(chr_be_can_write(dev), 0);
    CHECK_STR(notes(), "ask ask set_open(0) ");
    finish(&r);
}

static void none_and_all(void)
{
    set_handlers(NULL);
    set_handlers(&all_handlers);
}

static void post_and_set(void)
{
    back.in_write = post_break;
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    set_handlers(&all_handlers);
}

static void buffers_and_none(void)
{
    CHECK_INT(chr_fe_set_buffers(&front, 8, 8), 0);
    CHECK_INT(chr_fe_set_buffers(&front, 0, 0), 0);
}

static void swap_in_vain(void)
{
    change_answer = -1;
    CHECK_INT(chr_change(front.ctx, "b", "back", NULL), CHR_ERR_BUSY);
}

static void (*doing)(void);
static void do_when_asked(int what)
{
    if (what != 'c') return;
    then = NULL;
    doing();
}

/* Two changes make no answer good again. */
TEST(room_that_changes_twice)
{
    static void (*const doings[])(void) = { none_and_all, post_and_set, buffers_and_none, swap_in_vain };
    chr_dev *dev;
    rig      r;
    size_t   i;
    int      buffered;
    for (i = 0; i < sizeof doings / sizeof doings[0]; i++) {
        dev = start(&r, "back,id=b");
        set_handlers(&all_handlers);
        chr_be_event(dev, CHR_EVENT_OPENED);
        settle(&r);
        doing = doings[i];
        then = do_when_asked;
        CHECK_INT(chr_be_can_write(dev), 0);
        CHECK(then == NULL);
        CHECK_INT(chr_be_can_write(dev), 100);
        finish(&r);
    }
    for (buffered = 0; buffered <= 1; buffered++) { /* the same with buffers, empty or not */
        dev = start(&r, "back,id=b");
        set_handlers(&all_handlers);
        chr_be_event(dev, CHR_EVENT_OPENED);
        CHECK_INT(chr_fe_set_buffers(&front, 8, 0), 0);
        settle(&r);
        room = 0;
        if (buffered) chr_be_write(dev, "bytes", 5);
        settle(&r);
        notes();
        doing = none_and_all;
        then = do_when_asked;
        room = 3;
        if (buffered) {
            chr_fe_accept_input(&front);
            chr_loop_step(r.ctx, 0);
            CHECK(strstr(notes(), "ask set_open(0) set_open(1) event(1) read") == NULL); /* not before it is asked again */
            settle(&r);
            CHECK_INT(chr_fe_readable(&front), 0);
        } else {
            then = NULL;
            CHECK_INT(chr_be_can_write(dev), 8); /* so that it is asked the next time */
            then = do_when_asked;
            CHECK_INT(chr_be_can_write(dev), 0);
        }
        then = NULL;
        finish(&r);
    }
}

/* ---- output ----------------------------------------------------------------------------------------------------- */

static void post_writable(chr_dev *dev)
{
    back.in_write = NULL;
    chr_be_writable(dev);
}

/* A backend without `update` is always writable; another one when it calls chr_be_writable(), once per request. */
TEST(who_waits_to_write)
{
    chr_dev *dev;
    rig      r;
    dev = start(&r, "plain,id=p");
    chr_fe_add_watch(&front, front_writable, (void *)"plain");
    CHECK_STR(notes(), "");
    settle(&r);
    CHECK_STR(notes(), "writable(plain) ");
    chr_fe_accept_input(&front);
    settle(&r);
    CHECK_STR(notes(), "");
    CHECK_INT(chr_be_wants_writable(dev), 0);
    finish(&r);

    dev = start(&r, "back,id=b");
    set_handlers(&all_handlers);
    settle(&r);
    notes();
    chr_fe_add_watch(&front, front_writable, (void *)"first");
    chr_fe_add_watch(&front, front_writable, (void *)"second");
    CHECK_INT(chr_be_wants_writable(dev), 1);
    settle(&r);
    CHECK_STR(notes(), "ask update(100,1) ");
    chr_be_writable(dev);
    CHECK_STR(notes(), "writable(second) ");
    chr_be_writable(dev);
    CHECK_STR(notes(), "");
    chr_fe_add_watch(&front, front_writable, (void *)"third");
    chr_fe_add_watch(&front, NULL, NULL);
    CHECK_INT(chr_be_wants_writable(dev), 0);
    chr_be_writable(dev);
    CHECK_STR(notes(), "");
    chr_fe_add_watch(&front, front_writable, (void *)"from a slot");
    back.in_write = post_writable;
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    CHECK_STR(notes(), "write(x) ");
    settle(&r);
    CHECK_HAS(notes(), "writable(from a slot) ");
    chr_fe_add_watch(&front, front_writable, (void *)"posted, then an event");
    back.in_write = post_writable;
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    chr_be_event(dev, CHR_EVENT_BREAK);
    CHECK_STR(notes(), "write(x) event(0) ");
    settle(&r);
    CHECK_HAS(notes(), "writable(posted, then an event) ");
    /* the peer goes: the backend is asked to look */
    chr_be_event(dev, CHR_EVENT_OPENED);
    settle(&r);
    notes();
    chr_be_event(dev, CHR_EVENT_CLOSED);
    settle(&r);
    CHECK_STR(notes(), "event(4) ");
    chr_be_event(dev, CHR_EVENT_OPENED);
    chr_fe_add_watch(&front, front_writable, (void *)"gone");
    settle(&r);
    notes();
    chr_be_event(dev, CHR_EVENT_CLOSED);
    CHECK_STR(notes(), "event(4) ");
    settle(&r);
    CHECK_STR(notes(), "ask update(100,1) ");
    finish(&r);
}

/* Queued output, its half-close behind it, and what each result of a write counts as. */
TEST(queued_output_and_its_end)
{
    chr_info info;
    chr_dev *dev;
    rig      r;
    dev = start(&r, "back,id=b,obuf=8,history=4");
    set_handlers(&all_handlers);
    chr_be_event(dev, CHR_EVENT_OPENED);
    settle(&r);
    CHECK_STR(notes(), "set_open(1) event(1) ask update(100,0) ");
    back.most = 3;
    CHECK_INT(chr_fe_write(&front, "abcdef", 6), 6);
    CHECK_STR(notes(), "write(abc) ");
    CHECK_INT(chr_be_wants_writable(dev), 1);
    CHECK_INT(chr_fe_write(&front, "ghijklmn", 8), 5);
    CHECK_STR(notes(), "write:wait ");
    CHECK_INT(chr_fe_write(&front, "lmn", 3), CHR_ERR_WOULD_BLOCK);
    CHECK_STR(notes(), "write:wait ");
    chr_query(dev, &info);
    CHECK_INT(info.bytes_out, 11);
    CHECK_INT(info.bytes_queued, 8);
    CHECK_INT(info.bytes_dropped, 0);
    chr_fe_add_watch(&front, front_writable, (void *)"room");
    chr_be_writable(dev); /* still no room: nobody is told */
    CHECK_STR(notes(), "write:wait ");
    back.most = 4;
    chr_be_writable(dev);
    CHECK_STR(notes(), "write(defg) write:wait writable(room) ");
    CHECK_INT(chr_fe_shutdown(&front), 0); /* waits for the rest */
    CHECK_STR(notes(), "write:wait ");
    CHECK_INT(chr_be_wants_writable(dev), 1);
    CHECK_INT(chr_fe_write(&front, "x", 1), CHR_ERR_DISCONNECTED);
    CHECK_STR(notes(), "");
    settle(&r);
    CHECK_STR(notes(), "ask update(100,1) ");
    back.most = 4;
    back.shutdown = CHR_ERR_WOULD_BLOCK;
    chr_be_writable(dev);
    CHECK_STR(notes(), "write(hijk) shutdown ");
    CHECK_INT(chr_be_wants_writable(dev), 1);
    back.shutdown = 0;
    chr_be_writable(dev);
    CHECK_STR(notes(), "shutdown ");
    CHECK_INT(chr_be_wants_writable(dev), 0);
    chr_be_writable(dev);
    CHECK_STR(notes(), "");
    chr_query(dev, &info);
    CHECK_INT(info.bytes_out, 11);
    CHECK_INT(info.bytes_queued, 0);
    CHECK_INT(info.bytes_dropped, 1);
    /* the next peer gets the last bytes first; one that was lost, too */
    chr_be_event(dev, CHR_EVENT_CLOSED);
    back.most = 100;
    chr_be_event(dev, CHR_EVENT_OPENED);
    CHECK_STR(notes(), "event(4) event(1) ");
    CHECK_INT(chr_fe_write(&front, "new", 3), 3);
    CHECK_STR(notes(), "write(hijknew) ");
    /* without a peer, and with another error */
    back.failure = CHR_ERR_DISCONNECTED;
    CHECK_INT(chr_fe_write(&front, "lost", 4), CHR_ERR_DISCONNECTED);
    back.failure = CHR_ERR_IO;
    CHECK_INT(chr_fe_write(&front, "kept", 4), CHR_ERR_IO);
    CHECK_STR(notes(), "write:fails write:fails ");
    chr_query(dev, &info);
    CHECK_INT(info.bytes_out, 14);
    CHECK_INT(info.bytes_dropped, 5);
    /* an error that meets queued bytes is the next write's */
    back.failure = back.most = 0;
    CHECK_INT(chr_fe_write(&front, "queued", 6), 6);
    CHECK_STR(notes(), "write:wait ");
    back.failure = CHR_ERR_IO;
    chr_be_writable(dev);
    CHECK_STR(notes(), "write:fails ");
    back.failure = 0;
    back.most = 100;
    CHECK_INT(chr_fe_write(&front, "x", 1), CHR_ERR_IO);
    CHECK_STR(notes(), "");
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    CHECK_STR(notes(), "write(x) ");
    chr_query(dev, &info);
    CHECK_INT(info.bytes_out, 21);
    CHECK_INT(info.bytes_dropped, 11);
    chr_be_event(dev, CHR_EVENT_OPENED);
    settle(&r);
    notes();
    chr_be_writable(dev);
    CHECK_STR(notes(), "write(uedx) ");
    /* a peer that goes while something is queued: it is still tried */
    back.most = 0;
    CHECK_INT(chr_fe_write(&front, "tail", 4), 4);
    back.most = 100;
    notes();
    chr_be_event(dev, CHR_EVENT_CLOSED);
    CHECK_STR(notes(), "write(tail) event(4) ");
    /* a new peer ends a half-close that waits */
    chr_be_event(dev, CHR_EVENT_OPENED);
    back.most = 4;
    chr_be_writable(dev);
    CHECK_INT(chr_fe_write(&front, "left", 4), 4);
    CHECK_INT(chr_fe_shutdown(&front), 0);
    chr_be_event(dev, CHR_EVENT_OPENED);
    CHECK_STR(notes(), "event(1) write(tail) write:wait write:wait ");
    back.most = 100;
    CHECK_INT(chr_fe_write(&front, "on", 2), 2);
    CHECK_STR(notes(), "write(taillefton) ");
    chr_fe_deinit(&front);
    CHECK_STR(notes(), "set_open(0) ");
    CHECK_INT(chr_remove(r.ctx, "b", NULL), 0);
    CHECK_STR(notes(), "close ");
    finish(&r);
}

/* ---- buffers ---------------------------------------------------------------------------------------------------- */

static chr_dev *start_buffered(rig *r, const chr_handlers *handlers, size_t in, size_t out)
{
    chr_dev *dev = start(r, "back,id=b");
    asks_are_noted = 0; /* how often is not what is looked at here */
    set_handlers(handlers);
    chr_be_event(dev, CHR_EVENT_OPENED);
    settle(r);
    notes();
    CHECK_INT(chr_fe_readable(&front), 0);
    CHECK_INT(chr_fe_writable(&front), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_set_buffers(&front, in, out), 0);
    settle(r);
    return dev;
}

TEST(gathered_output)
{
    chr_info info;
    chr_dev *dev;
    rig      r;
    dev = start_buffered(&r, &all_handlers, 8, 6);
    CHECK_STR(notes(), "update(8,0) ");
    CHECK_INT(chr_fe_writable(&front), 6);
    CHECK_INT(chr_fe_write(&front, "ab", 2), 2);
    CHECK_INT(chr_fe_writable(&front), 4);
    CHECK_INT(chr_fe_write(&front, "", 0), 0);
    CHECK_INT(chr_fe_write(&front, "cd", 2), 2);
    chr_query(dev, &info);
    CHECK_INT(info.bytes_out, 0);
    CHECK_INT(info.bytes_queued, 4);
    CHECK_STR(notes(), "");
    settle(&r);
    CHECK_STR(notes(), "write(abcd) ");
    chr_query(dev, &info);
    CHECK_INT(info.bytes_out, 4);
    CHECK_INT(info.bytes_queued, 0);
    /* what does not fit sends what is there */
    CHECK_INT(chr_fe_write(&front, "abcd", 4), 4);
    CHECK_INT(chr_fe_write(&front, "efg", 3), 3);
    CHECK_STR(notes(), "write(abcd) ");
    CHECK_INT(chr_fe_writable(&front), 3);
    CHECK_INT(chr_fe_write(&front, "hij", 3), 3); /* fits exactly */
    CHECK_STR(notes(), "");
    CHECK_INT(chr_fe_writable(&front), 0);
    CHECK_INT(chr_fe_flush(&front, 0), 0);
    CHECK_STR(notes(), "write(efghij) ");
    CHECK_INT(chr_fe_write(&front, "ab", 2), 2);
    CHECK_INT(chr_fe_write(&front, "0123456789", 10), 10); /* larger than the buffer: at once */
    CHECK_STR(notes(), "write(ab0123456789) ");
    CHECK_INT(chr_fe_write(&front, "012345", 6), 6);
    settle(&r);
    CHECK_STR(notes(), "write(012345) ");
    /* a slow peer */
    back.most = 3;
    CHECK_INT(chr_fe_write(&front, "abcd", 4), 4);
    settle(&r);
    CHECK_STR(notes(), "write(abc) write:wait update(8,1) ");
    CHECK_INT(chr_fe_write(&front, "efghij", 6), 5);
    CHECK_INT(chr_fe_write(&front, "x", 1), CHR_ERR_WOULD_BLOCK);
    CHECK_INT(chr_fe_writable(&front), 0);
    chr_fe_add_watch(&front, front_writable, (void *)"room");
    settle(&r);
    CHECK_STR(notes(), "update(8,1) "); /* not tried before it says so */
    back.most = 2;
    chr_be_writable(dev);
    CHECK_STR(notes(), "write(de) write:wait writable(room) ");
    CHECK_INT(chr_fe_writable(&front), 2);
    back.most = 100;
    chr_be_writable(dev);
    CHECK_STR(notes(), "write(fghi) ");
    settle(&r);
    notes();
    back.most = 7; /* a large write that is cut: what is left is gathered */
    CHECK_INT(chr_fe_write(&front, "0123456789", 10), 10);
    CHECK_STR(notes(), "write(0123456) ");
    back.most = 100;
    settle(&r);
    CHECK_STR(notes(), "write(789) ");
    chr_query(dev, &info);
    CHECK_INT(info.bytes_dropped, 0);
    /* an error that nobody could be told: the flush tells it, once; then writes are told at once */
    back.failure = CHR_ERR_IO;
    CHECK_INT(chr_fe_write(&front, "ab", 2), 2);
    settle(&r);
    CHECK_STR(notes(), "write:fails ");
    CHECK_INT(chr_fe_write(&front, "c", 1), CHR_ERR_IO);
    CHECK_INT(chr_fe_flush(&front, 0), CHR_ERR_IO);
    CHECK_INT(chr_fe_flush(&front, 0), 0);
    CHECK_STR(notes(), "write:fails ");
    chr_query(dev, &info);
    CHECK_INT(info.bytes_dropped, 2);
    back.failure = CHR_ERR_DISCONNECTED;
    CHECK_INT(chr_fe_write(&front, "d", 1), CHR_ERR_DISCONNECTED);
    CHECK_STR(notes(), "write:fails ");
    back.failure = 0;
    CHECK_INT(chr_fe_write(&front, "e", 1), 1);
    CHECK_STR(notes(), "write(e) ");
    CHECK_INT(chr_fe_write(&front, "f", 1), 1);
    CHECK_STR(notes(), "");
    settle(&r);
    CHECK_STR(notes(), "write(f) ");
    back.failure = CHR_ERR_IO; /* or a new peer comes */
    CHECK_INT(chr_fe_write(&front, "g", 1), 1);
    settle(&r);
    back.failure = 0;
    chr_be_event(dev, CHR_EVENT_CLOSED);
    chr_be_event(dev, CHR_EVENT_OPENED);
    notes();
    CHECK_INT(chr_fe_write(&front, "h", 1), 1);
    CHECK_STR(notes(), "");
    chr_be_event(dev, CHR_EVENT_CLOSED); /* before it is told */
    CHECK_STR(notes(), "write(h) event(4) ");
    chr_query(dev, &info);
    CHECK_INT(info.bytes_dropped, 4);
    CHECK_INT(chr_fe_write(&front, "last", 4), 4);
    chr_fe_deinit(&front);
    CHECK_STR(notes(), "write(last) set_open(0) ");
    finish(&r);
}

TEST(buffers_of_other_sizes)
{
    chr_dev *dev;
    rig      r;
    long     live;
    dev = start_buffered(&r, &all_handlers, 8, 6);
    notes();
    live = r.live;
    CHECK_INT(chr_fe_set_buffers(&front, (size_t)INT_MAX / 4 + 1, 0), CHR_ERR_INVALID);
    CHECK_INT(chr_fe_set_buffers(&front, 0, (size_t)INT_MAX / 4 + 1), CHR_ERR_INVALID);
    CHECK_INT(chr_fe_write(&front, "abcdef", 6), 6);
    CHECK_INT(chr_fe_set_buffers(&front, 8, 7), 0);
    CHECK_INT(chr_fe_writable(&front), 1);
    CHECK_STR(notes(), "");
    CHECK_INT(chr_fe_set_buffers(&front, 8, 2), 0); /* a smaller one: what is there is sent */
    CHECK_STR(notes(), "write(abcdef) ");
    CHECK_INT(chr_fe_writable(&front), 2);
    settle(&r);
    CHECK_STR(notes(), "update(8,0) ");
    back.most = 0;
    CHECK_INT(chr_fe_set_buffers(&front, 8, 6), 0);
    CHECK_INT(chr_fe_write(&front, "ghijkl", 6), 6);
    CHECK_INT(chr_fe_set_buffers(&front, 8, 2), 0);
    CHECK_INT(chr_fe_writable(&front), 0);
    CHECK_INT(chr_fe_write(&front, "m", 1), CHR_ERR_WOULD_BLOCK);
    CHECK_INT(chr_fe_set_buffers(&front, 0, 0), 0); /* used up first */
    CHECK_INT(chr_fe_writable(&front), CHR_ERR_NOT_SUPPORTED);
    back.most = 100;
    chr_be_writable(dev);
    settle(&r);
    CHECK_HAS(notes(), "write(ghijkl) ");
    CHECK_INT(chr_fe_set_buffers(&front, 0, 0), 0);
    CHECK_INT(r.live, live - 1);
    CHECK_INT(chr_fe_write(&front, "m", 1), 1);
    CHECK_STR(notes(), "write(m) ");
    settle(&r);
    CHECK_STR(notes(), "update(100,0) "); /* the frontend itself is asked again */
    chr_be_write(dev, "in", 2);
    chr_be_event(dev, CHR_EVENT_BREAK);
    CHECK_STR(notes(), "read(in) event(0) ");
    /* both are gone at once when they are empty */
    CHECK_INT(chr_fe_set_buffers(&front, 8, 8), 0);
    CHECK_INT(chr_fe_read(&front, NULL, 0), CHR_ERR_WOULD_BLOCK);
    CHECK_INT(r.live, live);
    CHECK_INT(chr_fe_set_buffers(&front, 0, 0), 0);
    CHECK_INT(chr_fe_set_buffers(&front, 0, 0), 0);
    CHECK_INT(r.live, live - 1);
    CHECK_INT(chr_fe_read(&front, NULL, 0), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_writable(&front), CHR_ERR_NOT_SUPPORTED);
    settle(&r);
    notes();
    /* one that nobody listens to: open while it has a buffer for input */
    set_handlers(NULL);
    CHECK_STR(notes(), "set_open(0) ");
    CHECK_INT(chr_fe_set_buffers(&front, 0, 5), 0);
    CHECK_STR(notes(), "");
    CHECK_INT(chr_fe_set_buffers(&front, 5, 0), 0);
    CHECK_STR(notes(), "set_open(1) ");
    settle(&r);
    CHECK_STR(notes(), "update(5,0) ");
    chr_be_write(dev, "bytes", 5);
    CHECK_INT(chr_fe_readable(&front), 5);
    CHECK_INT(chr_be_can_write(dev), 0);
    CHECK_INT(chr_fe_set_buffers(&front, 2, 0), 0); /* fewer than there are */
    CHECK_INT(chr_fe_readable(&front), 5);
    CHECK_INT(chr_be_can_write(dev), 0);
    {
        char buf[5];
        CHECK_INT(chr_fe_read(&front, buf, 4), 4);
        CHECK_MEM(buf, 4, "byte", 4);
        settle(&r);
        CHECK_INT(chr_be_can_write(dev), 1);
        CHECK_INT(chr_fe_read(&front, buf, 4), 1);
        CHECK_INT(chr_be_can_write(dev), 2);
    }
    notes();
    CHECK_INT(chr_fe_set_buffers(&front, 0, 0), 0);
    CHECK_STR(notes(), "set_open(0) ");
    settle(&r);
    CHECK_STR(notes(), "update(0,0) ");
    finish(&r);
}

static char taken[20];
static const char *take(size_t len)
{
    int n = chr_fe_read(&front, taken, len);
    taken[n > 0 ? n : 0] = 0;
    return n >= 0 ? taken : n == CHR_ERR_WOULD_BLOCK ? "(wait)" : n == CHR_ERR_DISCONNECTED ? "(end)" : "(?)";
}

/* Events keep their place among bytes that are taken by calls. */
TEST(pulled_input)
{
    chr_info info;
    chr_dev *dev;
    rig      r;
    dev = start_buffered(&r, &events_alone, 8, 0);
    CHECK_STR(notes(), "update(8,0) ");
    CHECK_STR(take(5), "(wait)");
    chr_be_write(dev, "abc", 3);
    CHECK_STR(notes(), "event(11) ");
    chr_be_write(dev, "de", 2);
    CHECK_STR(notes(), "");
    CHECK_INT(chr_fe_readable(&front), 5);
    CHECK_INT(chr_be_can_write(dev), 3);
    chr_be_event(dev, CHR_EVENT_BREAK);
    chr_be_event(dev, CHR_EVENT_SERIAL); /* a state: at once */
    CHECK_STR(notes(), "event(6) ");
    chr_be_write(dev, "fg", 2);
    CHECK_INT(chr_fe_readable(&front), 5);
    CHECK_STR(take(2), "ab");
    CHECK_STR(take(9), "cde");
    CHECK_INT(chr_fe_readable(&front), 0);
    CHECK_STR(take(9), "(wait)"); /* the event comes first */
    CHECK_STR(notes(), "");
    settle(&r);
    CHECK_STR(notes(), "event(0) event(11) ");
    CHECK_STR(take(1), "f");
    chr_be_event(dev, CHR_EVENT_INPUT_END);
    chr_be_event(dev, CHR_EVENT_CLOSED);
    chr_be_event(dev, CHR_EVENT_OPENED);
    CHECK_INT(chr_fe_eof(&front), 0);
    chr_be_write(dev, "next", 4);
    CHECK_STR(take(9), "g");
    CHECK_STR(take(9), "(end)");
    settle(&r);
    CHECK_STR(notes(), "event(10) event(4) event(1) event(11) ");
    CHECK_STR(take(9), "next");
    CHECK_STR(take(9), "(wait)");
    /* a full one is filled again when half of it is free */
    settle(&r);
    notes();
    chr_be_write(dev, "12345678", 8);
    CHECK_INT(chr_be_can_write(dev), 0);
    CHECK_STR(take(3), "123");
    CHECK_INT(chr_be_can_write(dev), 0);
    settle(&r);
    CHECK_STR(notes(), "event(11) ");
    CHECK_STR(take(1), "4");
    settle(&r);
    CHECK_STR(notes(), "update(4,0) ");
    chr_be_write(dev, "too much", 8); /* a backend that gives more than it was asked for */
    CHECK_STR(take(9), "5678too ");
    chr_query(dev, &info);
    CHECK_INT(info.bytes_dropped, 4);
    CHECK_INT(info.bytes_in, 27);
    /* a purge takes the bytes and leaves the events */
    settle(&r);
    chr_be_write(dev, "gone", 4);
    chr_be_event(dev, CHR_EVENT_BREAK);
    chr_be_write(dev, "too", 3);
    notes();
    chr_be_event(dev, CHR_EVENT_PURGE_TRANSMIT);
    CHECK_STR(notes(), "event(9) ");
    settle(&r);
    CHECK_STR(notes(), "event(0) ");
    CHECK_STR(take(9), "(wait)");
    chr_be_write(dev, "here", 4);
    chr_be_event(dev, CHR_EVENT_PURGE_RECEIVE); /* the other direction */
    CHECK_STR(notes(), "event(11) event(8) ");
    CHECK_STR(take(9), "here");
    chr_query(dev, &info);
    CHECK_INT(info.bytes_dropped, 11);
    /* the end, at its place */
    chr_be_write(dev, "end", 3);
    chr_be_event(dev, CHR_EVENT_CLOSED);
    CHECK_INT(chr_fe_eof(&front), 0);
    notes();
    CHECK_STR(take(9), "end");
    CHECK_INT(chr_fe_eof(&front), 1);
    CHECK_STR(take(9), "(end)");
    settle(&r);
    CHECK_STR(notes(), "event(4) ");
    CHECK_STR(take(9), "(end)");
    finish(&r);
}

/* Buffers that are added later take over the events that the frontend has got, and the state of a chardev without an
 * event handler. */
TEST(buffers_take_the_state_over)
{
    chr_dev *dev;
    rig      r;
    int      hears;
    for (hears = 0; hears <= 1; hears++) {
        dev = start(&r, "back,id=b");
        if (hears) set_handlers(&events_alone);
        CHECK_INT(chr_fe_set_buffers(&front, 8, 0), 0);
        CHECK_STR(take(9), "(end)"); /* it is closed */
        CHECK_INT(chr_fe_set_buffers(&front, 0, 0), 0);
        chr_be_event(dev, CHR_EVENT_OPENED);
        notes();
        CHECK_INT(chr_fe_set_buffers(&front, 8, 0), 0);
        settle(&r);
        CHECK(strstr(notes(), "event") == NULL);
        CHECK_STR(take(9), "(wait)");
        chr_be_write(dev, "abc", 3);
        settle(&r);
        CHECK_INT(chr_fe_set_buffers(&front, 16, 0), 0);
        CHECK_STR(take(9), "abc");
        CHECK_INT(chr_fe_set_buffers(&front, 0, 0), 0);
        chr_be_event(dev, CHR_EVENT_INPUT_END);
        notes();
        CHECK_INT(chr_fe_set_buffers(&front, 8, 0), 0);
        settle(&r);
        CHECK(strstr(notes(), "event") == NULL);
        CHECK_STR(take(9), "(end)");
        chr_be_event(dev, CHR_EVENT_CLOSED);
        settle(&r);
        CHECK(!hears == !strstr(notes(), "event(4)"));
        set_handlers(&events_alone);
        CHECK(strstr(notes(), "event") == NULL);
        chr_be_event(dev, CHR_EVENT_OPENED);
        chr_be_event(dev, CHR_EVENT_INPUT_END);
        settle(&r);
        CHECK_HAS(notes(), "event(1) event(10) ");
        set_handlers(&events_alone);
        CHECK_STR(notes(), "event(1) event(10) ");
        finish(&r);
    }
}

/* Other sizes begin anew: a full buffer that grows has room, and one whose handlers were taken away is filled again. */
TEST(buffers_that_grow)
{
    chr_dev *dev;
    rig      r;
    dev = start_buffered(&r, &events_alone, 8, 8);
    chr_be_write(dev, "12345678", 8);
    CHECK_INT(chr_be_can_write(dev), 0);
    CHECK_INT(chr_fe_set_buffers(&front, 20, 8), 0);
    CHECK_INT(chr_be_can_write(dev), 12);
    set_handlers(NULL);
    CHECK_INT(chr_be_can_write(dev), 0);
    CHECK_INT(chr_fe_set_buffers(&front, 30, 8), 0);
    CHECK_INT(chr_be_can_write(dev), 22);
    CHECK_STR(take(9), "12345678");
    finish(&r);
}

/* With a read handler they are delivered as it has room. */
TEST(input_read_ahead)
{
    chr_dev *dev;
    rig      r;
    dev = start_buffered(&r, &all_handlers, 8, 0);
    CHECK_STR(notes(), "update(8,0) ");
    CHECK_INT(chr_be_can_write(dev), 8);
    CHECK_STR(notes(), "");
    chr_be_write(dev, "abc", 3);
    CHECK_STR(notes(), "read(abc) "); /* the answer was for these */
    chr_be_write(dev, "def", 3);
    CHECK_STR(notes(), "read(def) ");
    room = 2;
    chr_be_write(dev, "ghi", 3);
    room = 0;
    CHECK_STR(notes(), "read(gh) read(i) ");
    chr_be_write(dev, "jkl", 3);
    CHECK_STR(notes(), "");
    CHECK_INT(chr_be_can_write(dev), 5);
    chr_be_event(dev, CHR_EVENT_BREAK);
    chr_be_write(dev, "mn", 2);
    notes();
    settle(&r);
    CHECK_STR(notes(), "");
    room = 100;
    chr_fe_accept_input(&front);
    settle(&r);
    CHECK_STR(notes(), "read(jkl) event(0) read(mn) update(8,0) ");
    /* new handlers are asked for themselves, and told */
    room = 0;
    chr_be_write(dev, "wait", 4);
    set_handlers(&all_handlers);
    CHECK_STR(notes(), "event(1) ");
    room = 100;
    settle(&r);
    CHECK_HAS(notes(), "read(wait) ");
    set_handlers(NULL);
    CHECK_HAS(notes(), "set_open(0) ");
    chr_be_write(dev, "kept", 4);
    settle(&r);
    CHECK_STR(notes(), "update(0,0) ");
    set_handlers(&bytes_alone);
    settle(&r);
    CHECK_HAS(notes(), "set_open(1) read(kept) ");
    then = deinit_at_opened;
    set_handlers(&all_handlers);
    CHECK_STR(notes(), "event(1) set_open(0) ");
    finish(&r);
}

/* ---- the log hook, while a buffer is sent ----------------------------------------------------------------------- */

static void detach_now(void) { chr_fe_deinit(&front); }
static void write_now(void) { CHECK_INT(chr_fe_write(&front, "more", 4), 4); }

static int buffers_answer;
static void set_buffers_now(void) { buffers_answer = chr_fe_set_buffers(&front, 1, 1); }

static int call_flush(void) { return chr_fe_flush(&front, 0); }
static int call_write(void) { return chr_fe_write(&front, "too long for it", 15); }
static int call_write_all(void) { return chr_fe_write_all(&front, "too long for it", 15, 0); }
static int call_smaller(void) { return chr_fe_set_buffers(&front, 8, 1); }
static int call_none(void) { return chr_fe_set_buffers(&front, 0, 0); }
static int call_ioctl(void) { int on = 1; return chr_fe_ioctl(&front, CHR_IOCTL_SERIAL_SET_BREAK, &on); }
static int call_deinit(void) { return chr_fe_deinit(&front), 0; }
static int call_closed(void) { return chr_be_event(front.dev, CHR_EVENT_CLOSED), 0; }
static int call_step(void) { return chr_loop_step(front.ctx, 0) >= 0 ? 0 : -1; }

/* Whatever sends it: the frontend may go meanwhile, and what was gathered for it goes with it, after what was sent. */
TEST(the_log_hook_takes_the_frontend_away)
{
    static const struct {
        int (*call)(void);
        int answer;
    } all[] = { { call_flush, CHR_ERR_DISCONNECTED }, { call_write, CHR_ERR_DISCONNECTED }, { call_write_all, CHR_ERR_DISCONNECTED },
                { call_smaller, CHR_ERR_DISCONNECTED }, { call_none, CHR_ERR_DISCONNECTED }, { call_ioctl, CHR_ERR_NOT_SUPPORTED },
                { call_deinit, 0 }, { call_closed, 0 }, { call_step, 0 } };
    const char *told;
    rig         r;
    size_t      i;
    int         most;
    for (i = 0; i < sizeof all / sizeof all[0]; i++)
        for (most = 2; most <= 4; most += 2) { /* in one piece, and in two */
            start_buffered(&r, &all_handlers, 8, 6);
            settle(&r);
            notes();
            CHECK_INT(chr_fe_write(&front, "abcd", 4), 4);
            back.most = most;
            back.in_write = log_a_line;
            logged = detach_now;
            CHECK_INT(all[i].call(), all[i].answer);
            told = notes();
            CHECK_HAS(told, most == 4 ? "write(abcd) set_open(0) " : "write(ab) set_open(0) ");
            CHECK(strstr(told, "event") == NULL);
            CHECK(front.dev == NULL);
            CHECK_INT(private_locks(r.ctx), 0);
            CHECK_INT(chr_fe_write(&front, "x", 1), CHR_ERR_DISCONNECTED);
            settle(&r);
            finish(&r);
        }
}

TEST(the_log_hook_writes_and_asks_for_other_buffers)
{
    chr_dev *dev;
    rig      r;
    dev = start_buffered(&r, &all_handlers, 8, 6);
    notes();
    CHECK_INT(chr_fe_write(&front, "ab", 2), 2);
    back.in_write = log_a_line;
    logged = write_now;
    settle(&r);
    CHECK_STR(notes(), "write(abmore) ");
    CHECK_INT(chr_fe_write(&front, "cd", 2), 2);
    back.in_write = log_a_line;
    logged = set_buffers_now;
    buffers_answer = 0;
    settle(&r);
    CHECK_STR(notes(), "write(cd) ");
    CHECK_INT(buffers_answer, CHR_ERR_BUSY);
    CHECK_INT(chr_fe_writable(&front), 6);
    chr_be_event(dev, CHR_EVENT_CLOSED);
    finish(&r);
}

/* ---- hot swap --------------------------------------------------------------------------------------------------- */

static int swap(const char *options, chr_error *err)
{
    return chr_change(front.ctx, "b", options, err);
}

/* The events of each side, for each state of the old and the new backend. */
TEST(swaps_told_to_both_sides)
{
    chr_error err;
    chr_dev  *dev;
    rig       r;
    dev = start(&r, "back,id=b");
    asks_are_noted = 0;
    set_handlers(&all_handlers);
    settle(&r);
    notes();
    CHECK_INT(swap("back", &err), 0); /* closed to closed */
    CHECK_STR(notes(), "set_open(0) set_open(1) change close ");
    CHECK(chr_find(r.ctx, "b") == front.dev && front.dev != dev);
    CHECK(chr_next(r.ctx, NULL) == front.dev);
    CHECK(chr_next(r.ctx, front.dev) == NULL);
    settle(&r);
    CHECK_STR(notes(), "update(100,0) ");
    CHECK_INT(swap("ready", &err), 0); /* to open */
    CHECK_STR(notes(), "set_open(0) set_open(1) change close event(1) ");
    settle(&r);
    CHECK_STR(notes(), "update(100,0) ");
    CHECK_INT(swap("ready,id=other", &err), 0); /* to open again: nothing is told */
    CHECK_STR(notes(), "set_open(0) set_open(1) change close_ready ");
    CHECK(chr_find(r.ctx, "other") == NULL);
    settle(&r);
    CHECK_INT(swap("back", &err), 0); /* to closed */
    notes();
    chr_be_event(front.dev, CHR_EVENT_OPENED);
    chr_be_event(front.dev, CHR_EVENT_INPUT_END);
    CHECK_STR(notes(), "event(1) event(10) ");
    CHECK_INT(swap("plain", &err), 0);
    CHECK_STR(notes(), "event(4) set_open(0) change close ");
    chr_be_write(front.dev, "input", 5);
    CHECK_STR(notes(), "read(input) ");
    /* without handlers that hear it, and with none but `change` */
    back.in_write = post_opened_and_closed;
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    CHECK_INT(swap("back", &err), 0); /* what is posted comes first */
    CHECK_STR(notes(), "write(x) event(0) set_open(1) change ");
    chr_fe_set_open(&front, 0);
    CHECK_STR(notes(), "set_open(0) ");
    CHECK_INT(swap("back", &err), 0); /* a frontend that is closed stays so */
    CHECK_STR(notes(), "change close ");
    finish(&r);
}

static void swap_again(int what)
{
    chr_error err;
    if (what != 'x') return;
    then = NULL;
    CHECK_INT(swap("plain", &err), CHR_ERR_BUSY);
    CHECK_STR(err.text, "chardev 'b' is busy: it has several frontends, or is being changed");
    CHECK_INT(chr_remove(front.ctx, "b", &err), CHR_ERR_BUSY);
}

static void detach_in_change(int what)
{
    if (what == 'x') chr_fe_deinit(&front);
}

static void detach_at_closed(int what)
{
    if (what == CHR_EVENT_CLOSED) chr_fe_deinit(&front);
}

static void detach_at_break(int what)
{
    if (what == CHR_EVENT_BREAK) chr_fe_deinit(&front);
}

static int swapped_code;
static void swap_when_asked(int what)
{
    chr_error err;
    if (what != 'c') return;
    then = NULL;
    swapped_code = swap("ready", &err);
}

TEST(swaps_that_are_refused)
{
    static const char refused[] = "the frontend of 'b' refuses the new backend";
    static const chr_handlers no_change = { front_can_read, front_read, front_event, NULL };
    chr_error err;
    chr_dev  *dev;
    rig       r;
    int       pass;
    dev = start(&r, "back,id=b");
    asks_are_noted = 0;
    set_handlers(&all_handlers);
    chr_be_event(dev, CHR_EVENT_OPENED);
    chr_be_event(dev, CHR_EVENT_INPUT_END);
    settle(&r);
    notes();
    change_answer = -1;
    CHECK_INT(swap("ready", &err), CHR_ERR_BUSY);
    CHECK_STR(err.text, refused);
    CHECK_STR(notes(), "set_open(0) set_open(1) change set_open(0) set_open(1) close_ready event(10) ");
    CHECK(front.dev == dev && chr_find(r.ctx, "b") == dev);
    CHECK_INT(swap("plain", &err), CHR_ERR_BUSY);
    CHECK_STR(notes(), "event(4) set_open(0) change set_open(1) event(1) event(10) ");
    CHECK_INT(swap("plain", NULL), CHR_ERR_BUSY);
    settle(&r);
    CHECK_HAS(notes(), "update(100,0) "); /* it is asked for input again */
    chr_be_write(dev, "on", 2);
    CHECK_INT(chr_fe_write(&front, "and on", 6), 6);
    CHECK_STR(notes(), "read(on) write(and on) ");
    change_answer = 0;
    CHECK_INT(swap("broken", &err), CHR_ERR_IO);
    CHECK_STR(err.text, "broken: it is broken");
    CHECK_STR(notes(), "");
    CHECK_INT(swap("broken,colour=red", &err), CHR_ERR_INVALID);
    CHECK_INT(swap("gone", &err), CHR_ERR_NOT_FOUND);
    CHECK_INT(swap("gone", NULL), CHR_ERR_NOT_FOUND);
    CHECK_INT(swap("plain,help", &err), CHR_ERR_HELP);
    CHECK_INT(swap("plain,mux=on", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "plain: mux=on can't be used in a change");
    CHECK_INT(swap("mux,chardev=b", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "mux: chardev 'b' can't be changed into a mux");
    CHECK_INT(swap("hub,chardevs.0=b", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "hub: chardev 'b' can't be changed into a hub");
    CHECK_INT(chr_change(r.ctx, "x", "plain", &err), CHR_ERR_NOT_FOUND);
    CHECK_STR(err.text, "there is no chardev 'x'");
    CHECK_INT(chr_change(r.ctx, NULL, "plain", &err), CHR_ERR_NOT_FOUND);
    CHECK_STR(err.text, "there is no chardev ''");
    make(&r, "plain,id=shared,mux=on");
    CHECK_INT(chr_change(r.ctx, "shared", "plain", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "chardev 'shared' is a mux: that can't be changed");
    for (pass = 1; pass < 30; pass++) { /* out of memory: as before */
        r.fail_at = r.calls + pass;
        r.failed = 0;
        if (swap("plain,obuf=10,history=10", &err) == 0) break;
        CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
        CHECK(front.dev == dev);
    }
    CHECK(pass > 3 && !r.failed);
    r.fail_at = 0;
    CHECK_INT(swap("back", &err), 0);
    dev = front.dev;
    then = swap_again;
    CHECK_INT(swap("back", &err), 0);
    CHECK(then == NULL);
    set_handlers(&no_change);
    CHECK_INT(swap("plain", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "the frontend of 'b' does not support chardev hotswap");
    finish(&r);
}

/* The frontend goes meanwhile: the old chardev stays, without it; the new one, when that was accepted. */
TEST(swaps_whose_frontend_goes)
{
    static void (*const ways[])(int) = { detach_in_change, detach_at_closed, detach_at_break };
    chr_error err;
    chr_dev  *dev;
    rig       r;
    size_t    i;
    for (i = 0; i < 3; i++) {
        dev = start(&r, "back,id=b");
        set_handlers(&all_handlers);
        chr_be_event(dev, CHR_EVENT_OPENED);
        settle(&r);
        back.in_write = post_break;
        CHECK_INT(chr_fe_write(&front, "x", 1), 1);
        then = ways[i];
        CHECK_INT(swap("plain", &err), i == 0 ? 0 : CHR_ERR_BUSY); /* the first has accepted it before */
        if (i > 0) CHECK_STR(err.text, "the frontend of 'b' refuses the new backend");
        then = NULL;
        CHECK(front.dev == NULL);
        CHECK_STR(chr_find(r.ctx, "b")->kind->name, i == 0 ? "plain" : "back");
        if (i == 0) dev = chr_find(r.ctx, "b");
        CHECK(chr_find(r.ctx, "b") == dev);
        REQUIRE(chr_fe_init(&front, dev, &err) == 0);
        chr_fe_deinit(&front);
        CHECK_INT(chr_remove(r.ctx, "b", &err), 0);
        finish(&r);
    }
    /* what can_read says of the old one is not for the new one */
    dev = start(&r, "back,id=b");
    set_handlers(&all_handlers);
    then = swap_when_asked;
    swapped_code = -1;
    CHECK_INT(chr_be_can_write(dev), 0);
    CHECK_INT(swapped_code, 0);
    CHECK(front.dev != dev);
    CHECK_INT(chr_be_can_write(front.dev), 100);
    change_answer = -1;
    then = swap_when_asked;
    CHECK_INT(chr_be_can_write(front.dev), 0);
    CHECK_INT(swapped_code, CHR_ERR_BUSY);
    finish(&r);
}

/* Without a frontend the old one goes first; wrong options are found before. */
TEST(swaps_without_a_frontend)
{
    chr_error err;
    rig       r;
    long      at;
    start(&r, "back,id=b");
    chr_fe_deinit(&front);
    CHECK_INT(chr_change(r.ctx, "b", "ready", &err), 0);
    CHECK_STR(notes(), "close ");
    CHECK_STR(chr_find(r.ctx, "b")->kind->name, "ready");
    CHECK_INT(chr_change(r.ctx, "b", "null,colour=red", &err), CHR_ERR_INVALID);
    CHECK_INT(chr_change(r.ctx, "b", "mux,chardev=b", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(notes(), "");
    for (at = 1; at <= 30; at++) { /* without memory for what comes before it */
        r.fail_at = r.calls + at;
        CHECK_INT(chr_change(r.ctx, "b", "back,obuf=9", &err), CHR_ERR_NO_MEMORY);
        if (!chr_find(r.ctx, "b")) break;
        CHECK_STR(notes(), "");
    }
    CHECK(at > 2 && !chr_find(r.ctx, "b"));
    r.fail_at = 0;
    CHECK_STR(notes(), "close_ready ");
    make(&r, "back,id=b");
    CHECK_INT(chr_change(r.ctx, "b", "broken", &err), CHR_ERR_IO);
    CHECK_STR(err.text, "broken: it is broken");
    CHECK_STR(notes(), "close ");
    CHECK(chr_find(r.ctx, "b") == NULL);
    finish(&r);
}

/* Buffers stay with the frontend, and what a slow peer has not taken goes to the new backend. */
TEST(swaps_with_buffers)
{
    chr_error err;
    chr_dev  *dev;
    rig       r;
    int       answer;
    for (answer = -1; answer <= 0; answer++) {
        dev = start_buffered(&r, &all_handlers, 8, 6);
        room = 0;
        chr_be_write(dev, "wait", 4);
        notes();
        CHECK_INT(chr_fe_write(&front, "gone", 4), 4);
        change_answer = answer;
        CHECK_INT(swap("ready", &err), answer < 0 ? CHR_ERR_BUSY : 0);
        CHECK_STR(notes(), answer < 0 ? "write(gone) set_open(0) set_open(1) change set_open(0) set_open(1) close_ready " :
                                        "write(gone) set_open(0) set_open(1) change close ");
        CHECK_INT(chr_fe_readable(&front), 4);
        CHECK_INT(chr_fe_writable(&front), 6);
        back.most = 0;
        CHECK_INT(chr_fe_write(&front, "stay", 4), 4);
        settle(&r);
        notes();
        CHECK_INT(swap("ready", &err), answer < 0 ? CHR_ERR_BUSY : 0); /* not tried on the old one again */
        CHECK(strstr(notes(), "write") == NULL);
        back.most = 100;
        room = 100;
        settle(&r);
        {
            const char *told = notes();
            CHECK_HAS(told, "write(stay)");
            CHECK_HAS(told, "read(wait)");
        }
        finish(&r);
    }
}

/* ---- the rest of a life ----------------------------------------------------------------------------------------- */

static void free_nothing(int what)
{
    if (what == CHR_EVENT_CLOSED) chr_context_free(front.ctx);
}

static void remove_at_closed(int what)
{
    chr_context *ctx = front.ctx;
    if (what != CHR_EVENT_CLOSED) return;
    chr_fe_deinit(&front);
    CHECK_INT(chr_remove(ctx, "b", NULL), 0);
}

static void make_another(int what)
{
    chr_error err;
    if (what != CHR_EVENT_CLOSED) return;
    CHECK(chr_new(front.ctx, "null,id=late", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_BUSY);
    chr_be_event(front.dev, CHR_EVENT_OPENED); /* it is too late for that */
}

TEST(contexts_that_end)
{
    static void (*const doings[])(int) = { NULL, free_nothing, remove_at_closed, make_another };
    static const char *const  want[] = { "event(4) close ", "event(4) close ", "event(4) set_open(0) close ", "event(4) close " };
    chr_dev *dev;
    rig      r;
    size_t   i;
    for (i = 0; i < 4; i++) {
        dev = start(&r, "back,id=b");
        set_handlers(&all_handlers);
        chr_be_event(dev, CHR_EVENT_OPENED);
        notes();
        then = doings[i];
        chr_context_free(r.ctx);
        r.ctx = NULL;
        CHECK_STR(notes(), want[i]);
        CHECK(front.dev == NULL);
        CHECK_INT(r.live, 0);
        then = NULL;
        chr_be_tell_event(&front, CHR_EVENT_BREAK); /* of what is gone nothing is looked at */
        chr_be_tell_writable(&front);
        set_handlers(NULL);
        set_handlers(&all_handlers);
        CHECK_INT(chr_fe_write(&front, "x", 1), CHR_ERR_DISCONNECTED);
        CHECK_INT(chr_fe_printf(&front, "%300d", 1), CHR_ERR_DISCONNECTED);
        CHECK_INT(chr_fe_eof(&front), 1);
        chr_fe_deinit(&front);
        CHECK_STR(notes(), "");
    }
    /* one that is closed, one that has posted, and one that nobody has */
    dev = start(&r, "back,id=b");
    set_handlers(&all_handlers);
    notes();
    chr_context_free(r.ctx);
    CHECK_STR(notes(), "close ");
    start(&r, "back,id=b");
    set_handlers(&all_handlers);
    back.in_write = post_break;
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    notes();
    chr_context_free(r.ctx);
    CHECK_STR(notes(), "event(0) close ");
    dev = start(&r, "back,id=b");
    set_handlers(&all_handlers);
    chr_be_event(dev, CHR_EVENT_OPENED);
    back.in_write = post_closed_and_opened;
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    notes();
    chr_context_free(r.ctx);
    CHECK_STR(notes(), "event(4) event(1) event(4) close ");
    dev = start(&r, "back,id=b");
    chr_be_event(dev, CHR_EVENT_OPENED);
    chr_fe_deinit(&front);
    make(&r, "ready,id=c");
    notes();
    chr_context_free(r.ctx);
    CHECK_STR(notes(), "close close_ready ");
    CHECK_INT(r.live, 0);
}

static int code_in_slot;
static void inject_in_slot(chr_dev *dev)
{
    back.in_write = NULL;
    code_in_slot = chr_inject(dev, "in", 2);
}

static void remove_at_read(int what)
{
    chr_context *ctx = front.ctx;
    if (what != 'r') return;
    chr_fe_deinit(&front);
    CHECK_INT(chr_remove(ctx, "b", NULL), 0);
}

TEST(break_and_input_of_ones_own)
{
    chr_error err;
    chr_info  info;
    chr_dev  *dev;
    rig       r;
    dev = start(&r, "back,id=b");
    CHECK_INT(chr_send_break(r.ctx, "x", &err), CHR_ERR_NOT_FOUND);
    CHECK_STR(err.text, "there is no chardev 'x'");
    CHECK_INT(chr_send_break(r.ctx, "b", &err), 0);
    CHECK_INT(chr_inject(dev, "x", 1), CHR_ERR_WOULD_BLOCK);
    set_handlers(&all_handlers);
    notes();
    CHECK_INT(chr_send_break(r.ctx, "b", &err), 0);
    CHECK_STR(notes(), "event(0) ");
    back.in_write = post_opened_and_closed;
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    CHECK_INT(chr_send_break(r.ctx, "b", &err), 0); /* behind what is posted */
    CHECK_STR(notes(), "write(x) event(0) event(0) ");
    asks_are_noted = 0;
    CHECK_INT(chr_inject(NULL, "x", 1), CHR_ERR_INVALID);
    CHECK_INT(chr_inject(dev, NULL, 1), CHR_ERR_INVALID);
    CHECK_INT(chr_inject(dev, NULL, 0), 0);
    room = 0;
    CHECK_INT(chr_inject(dev, "x", 1), CHR_ERR_WOULD_BLOCK);
    room = 3;
    CHECK_INT(chr_inject(dev, "abcde", 5), 3);
    CHECK_INT(chr_inject(dev, "fg", 2), 2);
    CHECK_STR(notes(), "read(abc) read(fg) ");
    chr_query(dev, &info);
    CHECK_INT(info.bytes_in, 5);
    CHECK_STR(info.id, "b");
    CHECK_STR(info.backend, "back");
    CHECK_INT(info.frontend_open, 1);
    CHECK_INT(info.be_open, 0);
    code_in_slot = 0;
    back.in_write = inject_in_slot;
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    CHECK_INT(code_in_slot, CHR_ERR_WOULD_BLOCK);
    then = set_others;
    CHECK_INT(chr_inject(dev, "x", 1), CHR_ERR_WOULD_BLOCK); /* they have no `read` */
    set_handlers(&all_handlers);
    notes();
    then = remove_at_read;
    CHECK_INT(chr_inject(dev, "xyz", 3), 3);
    CHECK_STR(notes(), "read(xyz) set_open(0) close ");
    CHECK(chr_find(r.ctx, "b") == NULL);
    settle(&r);
    finish(&r);
}

/* A pipe is written and read, with an end of file of each direction: chr_fe_eof() in each state. */
TEST(end_of_file_in_each_state)
{
    chr_dev *dev;
    rig      r;
    int      comes_back;
    for (comes_back = 0; comes_back <= 1; comes_back++) {
        dev = start(&r, "back,id=b");
        back.comes_back = comes_back;
        set_handlers(&all_handlers);
        CHECK_INT(chr_fe_eof(&front), 0); /* it has never been open */
        chr_be_event(dev, CHR_EVENT_OPENED);
        CHECK_INT(chr_fe_eof(&front), 0);
        chr_be_event(dev, CHR_EVENT_INPUT_END);
        CHECK_INT(chr_fe_eof(&front), !comes_back);
        CHECK_INT(chr_fe_eof(&front), !comes_back);
        chr_be_event(dev, CHR_EVENT_OPENED);
        CHECK_INT(chr_fe_eof(&front), 0);
        chr_be_event(dev, CHR_EVENT_CLOSED);
        CHECK_INT(chr_fe_eof(&front), !comes_back);
        CHECK_INT(chr_fe_eof(&front), !comes_back);
        finish(&r);
        CHECK_INT(chr_fe_eof(&front), 1);
    }
}

TEST(printed_output)
{
    char     text[1000];
    chr_dev *dev;
    rig      r;
    size_t   len;
    int      n;
    dev = start(&r, "back,id=b");
    CHECK_INT(chr_fe_printf(&front, "%s", ""), 0);
    CHECK_STR(notes(), "");
    CHECK_INT(chr_fe_printf(&front, "%d of %s", 7, "nine"), 9);
    CHECK_STR(notes(), "write(7 of nine) ");
    for (len = 1; len < sizeof text; len++) { /* no length is a special one */
        back.most = 2000;
        memset(text, 'x', len);
        text[len] = 0;
        CHECK_INT(chr_fe_printf(&front, "%s", text), len);
        CHECK_INT(strlen(notes()), len + 8);
        r.fail_at = r.calls + 1; /* a long one needs memory */
        r.failed = 0;
        n = chr_fe_printf(&front, "%s", text);
        CHECK_INT(n, r.failed ? (int)CHR_ERR_NO_MEMORY : (int)len);
        r.fail_at = 0;
        notes();
    }
    CHECK(dev->bytes_out > 400000);
    chr_fe_deinit(&front);
    CHECK_INT(chr_fe_printf(&front, "%s", "x"), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_printf(&front, "%s", text), CHR_ERR_DISCONNECTED);
    memset(&front, 0, sizeof front);
    CHECK_INT(chr_fe_printf(&front, "%s", "x"), CHR_ERR_DISCONNECTED);
    finish(&r);
}

/* ---- record and replay ------------------------------------------------------------------------------------------ */

static char story[8000]; /* what the frontend has met */

static void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void tell(const char *format, ...)
{
    size_t  used = strlen(story);
    va_list args;
    va_start(args, format);
    vsnprintf(story + used, sizeof story - used, format, args);
    va_end(args);
}

static void tell_read(void *opaque, const void *buf, size_t len)
{
    tell("%lld read(%.*s)\n", (long long)((rig *)opaque)->now / 1000000, (int)len, (const char *)buf);
    room -= (int)len;
}

static void tell_event(void *opaque, int event)
{
    tell("%lld event(%d) eof=%d\n", (long long)((rig *)opaque)->now / 1000000, event, chr_fe_eof(&front));
}

static void tell_writable(void *opaque) { tell("%lld writable\n", (long long)((rig *)opaque)->now / 1000000); }

static void tell_ioctl(int command)
{
    union { int ints[4]; unsigned char bytes[16]; chr_parallel_epp epp; } arg;
    char  cycles[8] = "";
    int   code;
    memset(&arg, 0, sizeof arg);
    if (command >= CHR_IOCTL_PP_EPP_READ_ADDRESS && command <= CHR_IOCTL_PP_EPP_WRITE) {
        arg.epp.buf = cycles;
        arg.epp.count = 6;
    }
    code = chr_fe_ioctl(&front, command, &arg);
    if (arg.epp.buf == cycles) memset(&arg.epp, 0, sizeof arg.epp);
    tell("ioctl(%d)=%d %d,%d,%d,%d,%d %s\n", command, code, arg.ints[0], arg.ints[1], arg.ints[2], arg.ints[3], arg.bytes[0], cycles);
}

static const char hundred[] = "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";

/* All that belongs to this moment is done, then the next one begins. */
static void later(rig *r)
{
    settle(r);
    pass_time(r, 5);
}

/* What the frontend does. What the far side does is done only when it is `live`: else the recording does it. */
static void live_through(rig *r, chr_dev *dev, int live)
{
    static const chr_handlers handlers = { front_can_read, tell_read, tell_event, front_change };
    static const int commands[] = { CHR_IOCTL_SET_ECHO, CHR_IOCTL_SERIAL_GET_PARAMS, CHR_IOCTL_SERIAL_SET_BREAK, CHR_IOCTL_SERIAL_GET_TIOCM,
        CHR_IOCTL_SERIAL_SET_FLOW, CHR_IOCTL_SERIAL_GET_FLOW, CHR_IOCTL_PP_READ_DATA, CHR_IOCTL_PP_EPP_READ, CHR_IOCTL_PP_DATA_DIR,
        CHR_IOCTL_SERIAL_PURGE, CHR_IOCTL_SERIAL_GET_ERRORS, CHR_IOCTL_SERIAL_SET_ERRORS, CHR_IOCTL_GET_TERMINAL_SIZE,
        CHR_IOCTL_SET_TERMINAL_SIZE, CHR_IOCTL_SERIAL_SET_TIOCM };
    chr_error err;
    char      buf[10];
    size_t    i;
    int       n;
    story[0] = 0;
    room = 1000;
    REQUIRE(chr_fe_init(&front, dev, NULL) == 0);
    chr_fe_set_handlers(&front, &handlers, r);
    later(r);
    if (live) chr_be_event(dev, CHR_EVENT_OPENED);
    later(r);
    if (live) chr_be_write(dev, "hello", 5);
    later(r);
    if (live) chr_be_event(dev, -7);
    if (live) chr_be_event(dev, CHR_EVENT_BREAK);
    if (live) chr_be_write(dev, hundred, 60);
    later(r);
    back.most = 2;
    tell("write=%d\n", chr_fe_write(&front, "abc", 3));
    tell("write=%d\n", chr_fe_write(&front, "c", 1));
    chr_fe_add_watch(&front, tell_writable, r);
    later(r);
    back.most = 1000;
    if (live) chr_be_writable(dev);
    later(r);
    tell("write=%d\n", chr_fe_write(&front, hundred, 100));
    tell("write=%d\n", chr_fe_write_all(&front, hundred, 50, 10));
    for (i = 0; i < sizeof commands / sizeof commands[0]; i++) tell_ioctl(commands[i]);
    later(r);
    memset(buf, 0, sizeof buf);
    n = chr_fe_read_all(&front, buf, 9, 10);
    tell("read_all=%d %s\n", n, buf);
    n = chr_fe_read_all(&front, buf, 2, 10);
    tell("read_all=%d %s\n", n, buf);
    back.failure = CHR_ERR_IO;
    n = chr_fe_read_all(&front, buf, 2, 10);
    tell("read_all=%d\n", n);
    tell("write=%d\n", chr_fe_write(&front, "x", 1));
    memset(&err, 0, sizeof err);
    n = chr_wait_connected(dev, &err);
    tell("wait=%d %s\n", n, err.text);
    back.failure = CHR_ERR_DISCONNECTED;
    tell("write=%d\n", chr_fe_write(&front, "lost", 4));
    back.failure = 0;
    tell("wait=%d\n", chr_wait_connected(dev, &err));
    chr_fe_set_open(&front, 0);
    chr_fe_set_open(&front, 1);
    later(r);
    tell("disconnect=%d\n", chr_fe_disconnect(&front)); /* CLOSED comes from inside it */
    later(r);
    back.comes_back = 1;
    if (live) chr_be_event(dev, CHR_EVENT_OPENED);
    later(r);
    if (live) chr_be_event(dev, CHR_EVENT_INPUT_END);
    later(r);
    tell("shutdown=%d\n", chr_fe_shutdown(&front));
    later(r);
    if (live) chr_be_event(dev, CHR_EVENT_CLOSED);
    later(r);
    if (live) chr_be_event(dev, CHR_EVENT_OPENED);
    back.comes_back = 0;
    if (live) chr_be_event(dev, CHR_EVENT_INPUT_END);
    later(r);
    back.shutdown = CHR_ERR_DISCONNECTED;
    tell("shutdown=%d\n", chr_fe_shutdown(&front));
    back.shutdown = 0;
    tell("write=%d\n", chr_fe_write(&front, "last", 4));
    if (live) chr_be_event(dev, CHR_EVENT_CLOSED);
    later(r);
}

TEST(lives_that_are_played_again)
{
    static char first[sizeof story];
    static char path[400];
    chr_error   err;
    chr_dev    *dev;
    rig         r;
    snprintf(path, sizeof path, "%s", scratch("life"));
    start(&r, "plain,id=other");
    asks_are_noted = 0;
    chr_fe_deinit(&front);
    CHECK_INT(chr_replay_over(r.ctx), 0);
    CHECK_INT(chr_record_start(r.ctx, path, &err), 0);
    CHECK_INT(chr_record_start(r.ctx, path, &err), CHR_ERR_BUSY);
    dev = make(&r, "back,id=b");
    live_through(&r, dev, 1);
    CHECK_HAS(story, "1015 read(012345");
    CHECK_HAS(story, "read_all=9 rrrrrrrrr\n");
    CHECK_HAS(story, "disconnect=0\n1040 event(4) eof=1\n");
    CHECK_HAS(story, "eof=0\nshutdown=0\n");
    memcpy(first, story, sizeof first);
    CHECK_INT(chr_record_stop(r.ctx), 0);
    CHECK_INT(chr_record_stop(r.ctx), CHR_ERR_NOT_FOUND);
    finish(&r);

    start(&r, "plain,id=stranger"); /* which is not in the recording, and works as ever */
    asks_are_noted = 0;
    CHECK_INT(chr_replay_open(r.ctx, path, &err), 0);
    CHECK_INT(chr_replay_open(r.ctx, path, &err), CHR_ERR_BUSY);
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    CHECK_STR(notes(), "write(x) ");
    chr_fe_deinit(&front);
    make(&r, "plain,id=new-one");
    dev = make(&r, "back,id=b,history=10,obuf=10"); /* their effects are in the recording */
    CHECK_STR(dev->kind->name, "replay");
    logged = NULL;
    live_through(&r, dev, 0);
    CHECK_STR(story, first);
    CHECK(strstr(notes(), "write") == NULL);
    CHECK_INT(chr_replay_over(r.ctx), 1);
    chr_replay_close(r.ctx);
    CHECK_INT(chr_replay_over(r.ctx), 0);
    finish(&r);
    scratch_clean();
}

/* What the file says: "kind:number " for each record, from number `from` of a chardev on. */
static const char *kinds_in(const char *path)
{
    static char   text[2000];
    unsigned char head[28];
    FILE         *file = fopen(path, "rb");
    REQUIRE(file != NULL && fseek(file, 24, SEEK_SET) == 0);
    text[0] = 0;
    while (fread(head, 1, sizeof head, file) == sizeof head) {
        snprintf(text + strlen(text), sizeof text - strlen(text), "%d:%d ", head[10], head[8]);
        REQUIRE(fseek(file, head[0] | head[1] << 8, SEEK_CUR) == 0);
    }
    fclose(file);
    return text;
}

/* A mux is not recorded: only what is below it. And what the end of the context tells is no part of it. */
TEST(what_is_in_a_recording)
{
    static char path[400];
    chr_error   err;
    chr_dev    *dev;
    rig         r;
    int         value = 1;
    snprintf(path, sizeof path, "%s", scratch("record"));
    start(&r, "plain,id=other");
    chr_fe_deinit(&front);
    dev = make(&r, "back,id=b,mux=on");
    CHECK_INT(chr_record_start(r.ctx, path, &err), 0);
    REQUIRE(chr_fe_init(&front, dev, NULL) == 0);
    set_handlers(&all_handlers);
    CHECK_INT(chr_fe_disconnect(&front), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_ioctl(&front, CHR_IOCTL_SERIAL_GET_FLOW, &value), 0);
    CHECK_INT(chr_wait_connected(dev, &err), CHR_ERR_NOT_SUPPORTED);
    chr_be_event(chr_find(r.ctx, "b-base"), CHR_EVENT_OPENED);
    CHECK_INT(chr_fe_write(&front, "x", 1), 1);
    chr_fe_set_open(&front, 0);
    CHECK_INT(chr_record_stop(r.ctx), 0);
    CHECK_STR(kinds_in(path), "1:0 2:0 1:1 2:1 8:1 4:1 6:1 12:0 ");
    CHECK_INT(chr_record_start(r.ctx, path, &err), 0);
    finish(&r);
    CHECK_STR(kinds_in(path), "1:0 2:0 1:1 4:1 2:1 12:0 ");
    scratch_clean();
}

/* What begins while a frontend gathers its output sees that, too. */
TEST(recordings_and_buffers)
{
    static char path[400];
    chr_error   err;
    rig         r;
    int         i;
    snprintf(path, sizeof path, "%s", scratch("record"));
    start_buffered(&r, &all_handlers, 8, 8);
    for (i = 0; i < 3; i++) {
        CHECK_INT(chr_fe_write(&front, "x", 1), 1);
        settle(&r);
    }
    CHECK_INT(chr_record_start(r.ctx, path, &err), 0);
    CHECK_INT(chr_fe_write(&front, "y", 1), 1);
    settle(&r);
    CHECK_INT(chr_record_stop(r.ctx), 0);
    CHECK_INT(chr_fe_write(&front, "z", 1), 1);
    settle(&r);
    CHECK_STR(kinds_in(path), "1:0 4:0 2:0 6:0 12:0 ");
    finish(&r);
    scratch_clean();
}

/* A frontend that takes one byte at a time gets all of a recorded piece. */
TEST(recorded_input_byte_by_byte)
{
    static char path[400];
    chr_dev    *dev;
    rig         r;
    int         played, i;
    snprintf(path, sizeof path, "%s", scratch("record"));
    for (played = 0; played <= 1; played++) {
        start(&r, "plain,id=other");
        CHECK_INT(played ? chr_replay_open(r.ctx, path, NULL) : chr_record_start(r.ctx, path, NULL), 0);
        chr_fe_deinit(&front);
        dev = make(&r, "back,id=b");
        REQUIRE(chr_fe_init(&front, dev, NULL) == 0);
        asks_are_noted = 0;
        room = played ? 1 : 100;
        set_handlers(&all_handlers);
        if (!played) chr_be_event(dev, CHR_EVENT_OPENED);
        if (!played) chr_be_write(dev, "input", 5);
        for (i = 0; i < 10; i++) pass_time(&r, 1);
        CHECK_HAS(notes(), played ? "read(i) read(n) read(p) read(u) read(t) " : "read(input) ");
        finish(&r);
    }
    scratch_clean();
}

/* Output that waits for a blocked backend goes to the one that replaces it. */
TEST(gathered_output_that_waits_is_moved)
{
    rig r;
    start_buffered(&r, &all_handlers, 8, 8);
    notes();
    back.most = 0;
    CHECK_INT(chr_fe_write(&front, "abc", 3), 3);
    settle(&r);
    CHECK(strstr(notes(), "abc") == NULL);
    CHECK_INT(chr_change(r.ctx, "b", "back", NULL), 0);
    notes();
    back.most = 100;
    settle(&r);
    CHECK_HAS(notes(), "write(abc) ");
    finish(&r);
}

TEST(a_backend_without_anything_to_wait_on)
{
    rig r;
    start(&r, "plain,id=b");
    back.most = 0;
    CHECK_INT(chr_fe_write_all(&front, "abc", 3, 1000), CHR_ERR_WOULD_BLOCK);
    finish(&r);
}

static void close_replay(void) { chr_replay_close(front.ctx); }

/* Reading the recording fails at any place: calls get errors, and nobody gets what is not in it. */
TEST(recordings_that_can_not_be_read_any_more)
{
    static char path[400];
    char        text[100];
    chr_error   err;
    chr_dev    *dev;
    rig         r;
    long        at, fired = 1;
    int         n;
    snprintf(path, sizeof path, "%s", scratch("life"));
    start(&r, "plain,id=other");
    CHECK_INT(chr_record_start(r.ctx, path, &err), 0);
    CHECK(chr_new(r.ctx, "broken,id=x", &err) == NULL);
    dev = make(&r, "back,id=b");
    chr_fe_deinit(&front);
    REQUIRE(chr_fe_init(&front, dev, NULL) == 0);
    set_handlers(&all_handlers);
    chr_be_event(dev, CHR_EVENT_OPENED);
    chr_be_write(dev, "input", 5);
    CHECK_INT(chr_fe_write(&front, "abc", 3), 3);
    CHECK_INT(chr_fe_read_all(&front, text, 4, 0), 4);
    back.failure = CHR_ERR_IO;
    CHECK_INT(chr_wait_connected(dev, &err), CHR_ERR_IO);
    back.failure = 0;
    CHECK_INT(chr_record_stop(r.ctx), 0);
    finish(&r);
    for (at = 1; fired && at < 200; at++) {
        start(&r, "plain,id=other");
        CHECK_INT(chr_replay_open(r.ctx, path, &err), 0);
        chr_fe_deinit(&front);
        fault_arm(FAULT_pread, EIO, at, 1);
        memset(&err, 'x', sizeof err);
        CHECK(chr_new(r.ctx, "broken,id=x", &err) == NULL);
        CHECK(strstr("broken: it is broken", err.text) || strstr(err.text, "broken: ") == err.text);
        CHECK(strchr(err.text, 'x') == NULL || strstr(err.text, "'x'") != NULL);
        dev = chr_new(r.ctx, "back,id=b", &err);
        if (dev && strcmp(dev->kind->name, "replay") == 0) { /* else it was not found, and is one as ever */
            REQUIRE(chr_fe_init(&front, dev, NULL) == 0);
            set_handlers(&all_handlers);
            pass_time(&r, 1);
            n = chr_fe_write(&front, "abc", 3);
            CHECK(n == 3);
            memset(text, 0, sizeof text);
            n = chr_fe_read_all(&front, text, 4, 0);
            CHECK(n == 4 ? strcmp(text, "rrrr") == 0 : n < 0);
            memset(&err, 'x', sizeof err);
            n = chr_wait_connected(dev, &err);
            CHECK(n < 0);
            CHECK(strstr(err.text, "xx") == NULL);
            if (n == CHR_ERR_IO && err.text[0]) CHECK_STR(err.text, "b waits in vain");
            pass_time(&r, 1);
            settle(&r);
        }
        if (strstr(noted, "read(") && !strstr(noted, "write")) CHECK_HAS(noted, "read(input) ");
        CHECK(dev == NULL || !strstr(noted, "close"));
        fired = fault_plan.fired;
        fault_disarm();
        if (front.dev) chr_fe_deinit(&front);
        finish(&r);
    }
    CHECK(at > 10 && !fired);
    /* the replay is closed while a chardev is made for it */
    start(&r, "plain,id=other");
    CHECK_INT(chr_replay_open(r.ctx, path, &err), 0);
    CHECK_INT(chr_record_start(r.ctx, scratch("another"), &err), 0);
    fault_arm(FAULT_write, ENOSPC, 1, 1);
    logged = close_replay;
    CHECK(chr_new(r.ctx, "back,id=b", &err) == NULL);
    CHECK_STR(err.text, "back: chardev 'b' is not in the recording");
    fault_disarm();
    CHECK(logged == NULL);
    finish(&r);
    scratch_clean();
}

/* Another command than then is not answered with what belongs to that one. */
TEST(commands_that_were_not_given_then)
{
    static char path[400];
    chr_error   err;
    chr_dev    *dev;
    rig         r;
    int         value = 5, played;
    snprintf(path, sizeof path, "%s", scratch("life"));
    for (played = 0; played <= 1; played++) {
        start(&r, "plain,id=other");
        CHECK_INT(played ? chr_replay_open(r.ctx, path, &err) : chr_record_start(r.ctx, path, &err), 0);
        chr_fe_deinit(&front);
        dev = make(&r, "back,id=b");
        REQUIRE(chr_fe_init(&front, dev, NULL) == 0);
        value = 5;
        CHECK_INT(chr_fe_ioctl(&front, played ? CHR_IOCTL_SERIAL_GET_TIOCM : CHR_IOCTL_SERIAL_GET_FLOW, &value),
                  played ? (int)CHR_ERR_NOT_SUPPORTED : 0);
        CHECK_INT(value, played ? 5 : CHR_IOCTL_SERIAL_GET_FLOW * -0x1010101);
        CHECK_INT(chr_fe_ioctl(&front, CHR_IOCTL_SERIAL_GET_FLOW, &value), 0); /* it is still there */
        CHECK_INT(value, CHR_IOCTL_SERIAL_GET_FLOW * -0x1010101);
        finish(&r);
    }
    scratch_clean();
}

/* ---- arguments in traces ---------------------------------------------------------------------------------------- */

static void tell_ioctl_trace(void *opaque, const chr_trace *event)
{
    (void)opaque;
    if (event->number == CHR_TRACE_ioctl) tell("%d=%d %s;", (int)event->value[0], (int)event->value[1], event->text ? event->text : "-");
}

TEST(arguments_in_traces)
{
    rig r;
    int command;
    rig_traced = tell_ioctl_trace;
    start(&r, "back,id=b");
    story[0] = 0;
    for (command = CHR_IOCTL_SET_ECHO; command <= CHR_IOCTL_SET_TERMINAL_SIZE; command++) {
        size_t used = strlen(story);
        if (command == CHR_IOCTL_SERIAL_SET_PARAMS || command == CHR_IOCTL_PP_EPP_READ_ADDRESS || command == CHR_IOCTL_PP_EPP_WRITE_ADDRESS ||
            command == CHR_IOCTL_PP_EPP_WRITE) continue;
        tell_ioctl(command);
        *strstr(story + used, "ioctl(") = 0; /* what it prints itself */
    }
    CHECK_HAS(story, "1=0 16843009;3=-5 -;4=0 -67372036;5=0 84215045;6=0 115200,E,7,2;7=0 117901063;8=0 -134744072;9=0 -;10=0 167;");
    CHECK_HAS(story, ";11=0 11;12=0 244;13=0 13;14=0 242;15=0 252645135;17=0 -;20=0 -336860180;21=0 353703189;22=0 -370546198;");
    CHECK_HAS(story, ";40=0 305419896,-19088743;41=-9 -;");
    CHECK_INT(chr_fe_ioctl(&front, CHR_IOCTL_SERIAL_SET_BREAK, &command), CHR_ERR_IO);
    rig_traced = NULL;
    finish(&r);
}

/* ---- several at once: a hub ------------------------------------------------------------------------------------- */

static void own(const char *id, int most, int failure)
{
    of_id[(int)id[0]].is_own = 1;
    of_id[(int)id[0]].most = most;
    of_id[(int)id[0]].failure = failure;
}

static chr_dev *start_hub(rig *r)
{
    chr_dev *dev;
    start(r, "back,id=a");
    asks_are_noted = 0;
    chr_fe_deinit(&front);
    make(r, "back,id=b,history=4");
    make(r, "back,id=c");
    dev = make(r, "hub,id=h,chardevs.0=a,chardevs.1=b,chardevs.2=c");
    REQUIRE(chr_fe_init(&front, dev, NULL) == 0);
    set_handlers(&all_handlers);
    own("a", 100, 0);
    own("b", 100, 0);
    own("c", 100, 0);
    settle(r);
    notes();
    return dev;
}

static uint64_t dropped_by(rig *r, const char *id)
{
    chr_info info;
    chr_query(chr_find(r->ctx, id), &info);
    return info.bytes_dropped;
}

TEST(hubs_and_slow_members)
{
    chr_dev *a, *b, *c, *h;
    rig      r;
    h = start_hub(&r);
    a = chr_find(r.ctx, "a");
    b = chr_find(r.ctx, "b");
    c = chr_find(r.ctx, "c");
    chr_be_event(a, CHR_EVENT_OPENED);
    chr_be_event(b, CHR_EVENT_OPENED);
    CHECK_STR(notes(), "event(1) ");
    CHECK_INT(chr_fe_write(&front, "one", 3), 3);
    CHECK_STR(notes(), "a.write(one) b.write(one) c.write(one) ");
    own("b", 2, 0); /* a slow one: the others have more, and are not sent it again */
    CHECK_INT(chr_fe_write(&front, "four", 4), 2);
    CHECK_STR(notes(), "a.write(four) b.write(fo) c.write(fo) ");
    CHECK_INT(chr_fe_write(&front, "ur", 2), CHR_ERR_WOULD_BLOCK);
    CHECK_STR(notes(), "b.write:wait ");
    CHECK_INT(chr_fe_write_all(&front, "ur", 2, 1000), CHR_ERR_WOULD_BLOCK); /* it has nothing to wait on */
    CHECK_STR(notes(), "b.write:wait ");
    chr_fe_add_watch(&front, front_writable, (void *)"room");
    settle(&r);
    notes();
    chr_be_writable(a); /* not the one that is waited for */
    CHECK_STR(notes(), "");
    own("b", 100, 0);
    chr_be_writable(b);
    CHECK_HAS(notes(), "writable(room) ");
    CHECK_INT(chr_fe_write(&front, "urns", 4), 4);
    CHECK_STR(notes(), "a.write(ns) b.write(urns) c.write(urns) ");
    own("b", 100, CHR_ERR_IO); /* one that fails: it does not hold the others up, and does not get that again */
    CHECK_INT(chr_fe_write(&front, "gone", 4), 4);
    CHECK_STR(notes(), "a.write(gone) b.write:fails c.write(gone) ");
    CHECK_INT(dropped_by(&r, "b"), 4);
    own("b", 100, 0);
    CHECK_INT(chr_fe_write(&front, "on", 2), 2);
    CHECK_STR(notes(), "a.write(on) b.write(on) c.write(on) ");
    /* a slow one that goes, and comes back: it is sent what is written from then on */
    own("a", 1, 0);
    CHECK_INT(chr_fe_write(&front, "slow", 4), 1);
    chr_fe_add_watch(&front, front_writable, (void *)"gone");
    settle(&r);
    notes();
    chr_be_event(a, CHR_EVENT_CLOSED);
    settle(&r);
    CHECK_HAS(notes(), "writable(gone) ");
    CHECK_INT(chr_fe_write(&front, "low", 3), 3);
    CHECK_STR(notes(), "a.write:wait c.write(low) ");
    own("a", 100, 0);
    chr_be_event(a, CHR_EVENT_OPENED);
    CHECK_INT(chr_fe_write(&front, "new", 3), 3);
    CHECK_STR(notes(), "a.write(new) b.write(new) c.write(new) ");
    /* none is open */
    chr_be_event(a, CHR_EVENT_CLOSED);
    CHECK_STR(notes(), "");
    chr_be_event(b, CHR_EVENT_CLOSED);
    CHECK_STR(notes(), "event(4) ");
    own("a", 0, CHR_ERR_DISCONNECTED);
    own("b", 0, CHR_ERR_DISCONNECTED);
    own("c", 0, CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_write(&front, "lost", 4), CHR_ERR_DISCONNECTED);
    CHECK_INT(dropped_by(&r, "c"), 4);
    CHECK_INT(dropped_by(&r, "b"), 8);
    /* an error elsewhere is no loss: its caller may try again */
    chr_fe_deinit(&front);
    CHECK_INT(chr_remove(r.ctx, "h", NULL), 0);
    REQUIRE(chr_fe_init(&front, c, NULL) == 0);
    own("c", 0, CHR_ERR_IO);
    CHECK_INT(chr_fe_write(&front, "kept", 4), CHR_ERR_IO);
    CHECK_INT(dropped_by(&r, "c"), 4);
    (void)h;
    finish(&r);
}

TEST(hubs_and_the_ends_of_their_members)
{
    chr_dev *a, *b, *c;
    rig      r;
    start_hub(&r);
    a = chr_find(r.ctx, "a");
    b = chr_find(r.ctx, "b");
    c = chr_find(r.ctx, "c");
    chr_be_event(a, CHR_EVENT_OPENED);
    chr_be_event(b, CHR_EVENT_OPENED);
    chr_be_event(a, CHR_EVENT_INPUT_END);
    chr_be_event(a, CHR_EVENT_INPUT_END);
    CHECK_STR(notes(), "event(1) ");
    chr_be_event(b, CHR_EVENT_INPUT_END);
    CHECK_STR(notes(), "event(10) ");
    chr_be_event(c, CHR_EVENT_OPENED); /* one that says something: it is told no more of ends than one */
    chr_be_write(c, "in", 2);
    chr_be_event(c, CHR_EVENT_INPUT_END);
    CHECK_STR(notes(), "read(in) ");
    chr_be_event(c, CHR_EVENT_BREAK);
    chr_be_event(a, CHR_EVENT_CLOSED);
    chr_be_event(b, CHR_EVENT_CLOSED);
    CHECK_STR(notes(), "event(0) ");
    chr_be_event(c, CHR_EVENT_CLOSED);
    CHECK_STR(notes(), "event(4) ");
    /* the only one that has not ended goes: then all have */
    chr_be_event(a, CHR_EVENT_OPENED);
    chr_be_event(b, CHR_EVENT_OPENED);
    chr_be_event(a, CHR_EVENT_INPUT_END);
    CHECK_STR(notes(), "event(1) ");
    chr_be_event(b, CHR_EVENT_CLOSED);
    CHECK_STR(notes(), "event(10) ");
    chr_be_event(a, CHR_EVENT_CLOSED);
    /* half-close: of those that are open, and 0 when one can do it */
    CHECK_INT(chr_fe_shutdown(&front), CHR_ERR_DISCONNECTED);
    chr_be_event(a, CHR_EVENT_OPENED);
    notes();
    CHECK_INT(chr_fe_shutdown(&front), 0);
    CHECK_STR(notes(), "shutdown ");
    finish(&r);
}

/* A member's backend is replaced: what the old one had had ahead of the others is for the new one, too. */
TEST(hubs_whose_members_are_swapped)
{
    chr_error err;
    rig       r;
    int       b;
    start_hub(&r);
    chr_be_event(chr_find(r.ctx, "a"), CHR_EVENT_OPENED);
    chr_be_event(chr_find(r.ctx, "b"), CHR_EVENT_OPENED);
    for (b = 0; b <= 1; b++) { /* the fast one, then the slow one */
        own("b", 2, 0);
        CHECK_INT(chr_fe_write(&front, "four", 4), 2);
        notes();
        CHECK_INT(chr_change(r.ctx, b ? "b" : "a", "ready", &err), 0);
        own("b", 100, 0);
        settle(&r);
        notes();
        CHECK_INT(chr_fe_write(&front, "ur", 2), 2);
        CHECK_STR(notes(), b ? "b.write(ur) c.write(ur) " : "a.write(ur) b.write(ur) c.write(ur) ");
        CHECK_INT(chr_fe_write(&front, "on", 2), 2);
        CHECK_STR(notes(), "a.write(on) b.write(on) c.write(on) ");
    }
    finish(&r);
}

static int ioctl_of(const char *members, int *value)
{
    char options[100];
    rig  r;
    int  code, i;
    start(&r, "plain,id=other");
    chr_fe_deinit(&front);
    snprintf(options, sizeof options, "hub,id=h");
    for (i = 0; members[i]; i++) {
        char one[30];
        snprintf(one, sizeof one, "%s,id=%c%d", members[i] == 'r' ? "ready" : "back", members[i], i);
        make(&r, one);
        snprintf(options + strlen(options), sizeof options - strlen(options), ",chardevs.%d=%c%d", i, members[i], i);
    }
    REQUIRE(chr_fe_init(&front, make(&r, options), NULL) == 0);
    *value = 1;
    code = chr_fe_ioctl(&front, CHR_IOCTL_SERIAL_SET_BREAK, value);
    finish(&r);
    return code;
}

/* g... can do it, b... fails, r... has no such command: one that can is enough, and the first one's answer counts. */
TEST(hubs_and_commands)
{
    int value;
    CHECK_INT(ioctl_of("gb", &value), 0);
    CHECK_INT(value, '0');
    CHECK_INT(ioctl_of("bg", &value), 0);
    CHECK_INT(value, '1');
    CHECK_INT(ioctl_of("gg", &value), 0);
    CHECK_INT(value, '0');
    CHECK_INT(ioctl_of("bb", &value), CHR_ERR_IO);
    CHECK_INT(ioctl_of("rb", &value), CHR_ERR_IO);
    CHECK_INT(ioctl_of("br", &value), CHR_ERR_IO);
    CHECK_INT(ioctl_of("rg", &value), 0);
    CHECK_INT(ioctl_of("gr", &value), 0);
    CHECK_INT(ioctl_of("rr", &value), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(value, 1);
}
