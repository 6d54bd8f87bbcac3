/*
 * Buffered frontends: input is read ahead and pulled or delivered, small writes are gathered; no byte or event is lost
 * or reordered.
 */
#include "chardev.h"
#include "fault.h"

#include "rig.h"

static const chr_handlers pull_handlers = { NULL, NULL, recorder_event, NULL };

typedef struct desk { /* a frontend with buffers on one end of a socket pair */
    rig      r;
    int      far;
    recorder rec;
} desk;

static int pair_options(char *options, const char *more)
{
    int fds[2];
    socket_pair(fds);
    snprintf(options, 200, "socket,id=s,fd=%d%s", fds[1], more);
    return fds[0];
}

static void desk_open(desk *d, const chr_handlers *handlers, size_t in, size_t out)
{
    char options[200];
    rig_open_virtual(&d->r);
    d->far = pair_options(options, "");
    memset(&d->rec, 0, sizeof d->rec);
    d->rec.room = UNLIMITED;
    REQUIRE(chr_fe_init(&d->rec.fe, make(&d->r, options), NULL) == 0);
    if (handlers) chr_fe_set_handlers(&d->rec.fe, handlers, &d->rec);
    CHECK_INT(chr_fe_set_buffers(&d->rec.fe, in, out), 0);
}

static void desk_close(desk *d)
{
    detach(&d->rec);
    close(d->far);
    rig_close(&d->r);
}

/* The bytes that chr_fe_read() returns until it returns an error, then the error: '.' would block, '!' disconnected,
 * '-' not supported. */
static const char *pull(chr_frontend *fe)
{
    static char text[70000];
    size_t      len = 0;
    int         n;
    while (len < sizeof text - 2 && (n = chr_fe_read(fe, text + len, sizeof text - 2 - len)) > 0) len += (size_t)n;
    text[len++] = n == CHR_ERR_WOULD_BLOCK ? '.' : n == CHR_ERR_DISCONNECTED ? '!' : n == CHR_ERR_NOT_SUPPORTED ? '-' : '?';
    text[len] = 0;
    return text;
}

static void put(chr_frontend *fe, const char *text)
{
    CHECK_INT(chr_fe_write(fe, text, strlen(text)), strlen(text));
}

/* ---- pull -------------------------------------------------------------------------------------------------------- */

TEST(pull_without_any_handler)
{
    desk d;
    desk_open(&d, NULL, 100, 0);
    CHECK_STR(pull(&d.rec.fe), ".");
    say(d.far, "hello");
    CHECK_INT(chr_fe_readable(&d.rec.fe), 0);
    settle(&d.r);
    CHECK_INT(chr_fe_readable(&d.rec.fe), 5);
    CHECK_STR(pull(&d.rec.fe), "hello.");
    CHECK_INT(chr_fe_readable(&d.rec.fe), 0);
    put(&d.rec.fe, "back"); /* unbuffered: at once */
    CHECK_STR(hear(d.far), "back");
    desk_close(&d);
}

TEST(readable_tells_that_bytes_came_into_an_empty_buffer)
{
    desk d;
    char c;
    desk_open(&d, &pull_handlers, 100, 0);
    CHECK_STR(d.rec.events, "O");
    say(d.far, "ab");
    settle(&d.r);
    CHECK_STR(d.rec.events, "OR");
    say(d.far, "c");
    settle(&d.r);
    CHECK_STR(d.rec.events, "OR");
    CHECK_INT(chr_fe_read(&d.rec.fe, &c, 1), 1);
    say(d.far, "d");
    settle(&d.r);
    CHECK_STR(d.rec.events, "OR");
    CHECK_STR(pull(&d.rec.fe), "bcd.");
    say(d.far, "e");
    settle(&d.r);
    CHECK_STR(d.rec.events, "ORR");
    desk_close(&d);
}

/* New handlers get the current state. */
TEST(readable_comes_again_for_new_handlers)
{
    desk d;
    desk_open(&d, &pull_handlers, 100, 0);
    say(d.far, "ab");
    settle(&d.r);
    d.rec.events[0] = 0;
    memset(d.rec.events, 0, sizeof d.rec.events);
    d.rec.open = 0;
    chr_fe_set_handlers(&d.rec.fe, &pull_handlers, &d.rec);
    CHECK_STR(d.rec.events, "O");
    settle(&d.r);
    CHECK_STR(d.rec.events, "OR");
    CHECK_STR(pull(&d.rec.fe), "ab.");
    desk_close(&d);
}

TEST(a_step_that_sleeps_returns_with_what_it_has_told)
{
    desk d;
    desk_open(&d, &pull_handlers, 100, 0);
    say(d.far, "ab");
    settle(&d.r);
    memset(d.rec.events, 0, sizeof d.rec.events);
    d.rec.open = 0;
    chr_fe_set_handlers(&d.rec.fe, &pull_handlers, &d.rec);
    CHECK(chr_loop_step(d.r.ctx, -1) > 0); /* would sleep for ever */
    CHECK_STR(d.rec.events, "OR");
    desk_close(&d);
}

TEST(at_most_so_much_is_taken_from_the_peer)
{
    static char block[100000];
    desk        d;
    ssize_t     sent;
    size_t      got = 0, seen = 0;
    desk_open(&d, &pull_handlers, 1000, 0);
    memset(block, 'x', sizeof block);
    fcntl(d.far, F_SETFL, O_NONBLOCK);
    sent = write(d.far, block, sizeof block);
    REQUIRE(sent > 2000);
    settle(&d.r);
    CHECK_INT(chr_fe_readable(&d.rec.fe), 1000);
    while (got < (size_t)sent) {
        int n = chr_fe_read(&d.rec.fe, block, 300);
        if (n > 0) got += (size_t)n;
        settle(&d.r);
        CHECK(chr_fe_readable(&d.rec.fe) <= 1000);
        if (++seen > (size_t)sent) break;
    }
    CHECK_INT(got, sent);
    CHECK_STR(pull(&d.rec.fe), ".");
    desk_close(&d);
}

TEST(bytes_first_then_closed)
{
    desk d;
    char c;
    desk_open(&d, &pull_handlers, 4, 0);
    say(d.far, "abcdefg");
    settle(&d.r);
    shutdown(d.far, SHUT_RDWR);
    settle(&d.r);
    CHECK_INT(chr_fe_read(&d.rec.fe, &c, 1), 1);
    CHECK_STR(d.rec.events, "OR");
    CHECK_STR(pull(&d.rec.fe), "bcd.");
    settle(&d.r);
    CHECK_STR(pull(&d.rec.fe), "efg!");
    CHECK_STR(pull(&d.rec.fe), "!");
    settle(&d.r);
    CHECK_STR(d.rec.events, "ORRC");
    CHECK_STR(pull(&d.rec.fe), "!");
    desk_close(&d);
}

/* ---- delivered --------------------------------------------------------------------------------------------------- */

TEST(a_read_handler_gets_what_can_read_allows)
{
    desk d;
    desk_open(&d, &recorder_handlers, 100, 100);
    d.rec.room = 2;
    say(d.far, "abcdefgh");
    settle(&d.r);
    CHECK_INPUT(&d.rec, "ab");
    give_room(&d.rec, 3);
    settle(&d.r);
    CHECK_INPUT(&d.rec, "abcde");
    d.rec.room = 1; /* forgotten accept_input: late, not deaf */
    settle(&d.r);
    CHECK_INPUT(&d.rec, "abcdef");
    CHECK_STR(d.rec.events, "O");
    CHECK_INT(chr_fe_readable(&d.rec.fe), 2);
    CHECK_STR(pull(&d.rec.fe), "gh."); /* may be pulled as well */
    desk_close(&d);
}

/* ---- gathered ---------------------------------------------------------------------------------------------------- */

TEST(small_writes_leave_together_before_the_loop_sleeps)
{
    desk d;
    desk_open(&d, &recorder_handlers, 0, 100);
    CHECK_INT(chr_fe_writable(&d.rec.fe), 100);
    put(&d.rec.fe, "a");
    put(&d.rec.fe, "b");
    put(&d.rec.fe, "c");
    CHECK_INT(chr_fe_writable(&d.rec.fe), 97);
    CHECK_STR(hear(d.far), "");
    chr_loop_step(d.r.ctx, 0);
    CHECK_STR(hear(d.far), "abc");
    CHECK_INT(chr_fe_writable(&d.rec.fe), 100);
    desk_close(&d);
}

TEST(flush_sends)
{
    desk d;
    desk_open(&d, &recorder_handlers, 0, 100);
    put(&d.rec.fe, "abc");
    CHECK_INT(chr_fe_flush(&d.rec.fe, 0), 0);
    CHECK_STR(hear(d.far), "abc");
    CHECK_INT(chr_fe_flush(&d.rec.fe, -1), 0);
    desk_close(&d);
}

TEST(a_full_buffer_sends)
{
    desk d;
    desk_open(&d, &recorder_handlers, 0, 4);
    put(&d.rec.fe, "abc");
    put(&d.rec.fe, "de");
    CHECK_STR(hear(d.far), "abc");
    put(&d.rec.fe, "0123456789"); /* larger than the buffer */
    CHECK_STR(hear(d.far), "de0123456789");
    desk_close(&d);
}

TEST(a_slow_peer_fills_the_buffer_and_no_more)
{
    desk   d;
    size_t taken;
    int    i;
    desk_open(&d, &recorder_handlers, 0, 1000);
    taken = fill_up(&d.rec.fe);
    CHECK_INT(chr_fe_writable(&d.rec.fe), 0);
    CHECK_INT(chr_fe_write(&d.rec.fe, "y", 1), CHR_ERR_WOULD_BLOCK);
    CHECK_INT(chr_fe_flush(&d.rec.fe, 0), CHR_ERR_TIMEOUT);
    chr_fe_add_watch(&d.rec.fe, recorder_writable, &d.rec);
    for (i = 0; i < 10; i++) settle(&d.r);
    CHECK_INT(d.rec.writable, 0);
    CHECK_INT(drain(&d.r, d.far, taken), taken);
    settle(&d.r);
    CHECK_INT(d.rec.writable, 1);
    CHECK_INT(chr_fe_writable(&d.rec.fe), 1000);
    CHECK_STR(hear(d.far), "");
    desk_close(&d);
}

TEST(nothing_is_lost_at_the_end)
{
    desk d;
    desk_open(&d, &recorder_handlers, 10, 100);
    put(&d.rec.fe, "last");
    detach(&d.rec);
    CHECK_STR(hear(d.far), "last");
    close(d.far);
    rig_close(&d.r);
}

TEST(nothing_is_lost_when_the_context_goes)
{
    desk d;
    desk_open(&d, &recorder_handlers, 10, 100);
    put(&d.rec.fe, "last");
    chr_context_free(d.r.ctx);
    CHECK_STR(hear(d.far), "last");
    CHECK_INT(d.r.live, 0);
    CHECK_STR(d.rec.events, "OC");
    CHECK_INT(chr_fe_write(&d.rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    CHECK_STR(pull(&d.rec.fe), "!");
    close(d.far);
}

/* ---- a backend in the hands of the test -------------------------------------------------------------------------- */

typedef struct wire {
    chr_dev dev;
    char    sent[4096];
    size_t  length, writes;
    int     room;   /* bytes that it takes until it blocks; -1 = any number */
    int     answer; /* what a write returns instead; 0 = nothing of that kind */
    int     closes_itself;
    chr_frontend *meanwhile; /* writes "meanwhile" during the next write, as a log hook may */
    chr_frontend *goes;      /* goes away during the next write, likewise */
    void        (*during)(struct wire *w); /* runs during the next write */
} wire;

static wire *last_wire; /* that was opened */

static int wire_write(chr_dev *dev, const void *buf, size_t len)
{
    wire *w = (wire *)dev;
    if (w->answer) return w->answer;
    if (w->room == 0) return CHR_ERR_WOULD_BLOCK;
    if (w->room > 0 && len > (size_t)w->room) len = (size_t)w->room;
    if (w->room > 0) w->room -= (int)len;
    REQUIRE(w->length + len < sizeof w->sent);
    memcpy(w->sent + w->length, buf, len);
    w->length += len;
    w->sent[w->length] = 0;
    w->writes++;
    if (w->meanwhile) {
        chr_frontend *fe = w->meanwhile;
        w->meanwhile = NULL;
        CHECK_INT(chr_fe_write(fe, "meanwhile", 9), 9);
    }
    if (w->goes) chr_fe_deinit(w->goes);
    w->goes = NULL;
    if (w->during) {
        void (*during)(wire *) = w->during;
        w->during = NULL;
        during(w);
    }
    return (int)len;
}

static void wire_update(chr_dev *dev)
{
    wire *w = (wire *)dev;
    if (chr_be_wants_writable(dev) && (w->room != 0 || w->answer)) chr_be_writable(dev);
}

static int wire_open(chr_dev *dev, chr_error *err)
{
    (void)err;
    last_wire = (wire *)dev;
    last_wire->room = -1;
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

static int wire_disconnect(chr_dev *dev)
{
    chr_be_event(dev, CHR_EVENT_CLOSED);
    return 0;
}

static int wire_ioctl(chr_dev *dev, int command, void *arg)
{
    (void)arg;
    if (command != CHR_IOCTL_SERIAL_SET_BREAK) return 0;
    return wire_write(dev, "<break>", 7) > 0 ? 0 : CHR_ERR_IO;
}

CHR_TABLE(chr_io, wire_io,
    CHR_SET(write,  wire_write)
    CHR_SET(update, wire_update));
CHR_TABLE(chr_peer_slots, wire_peer,
    CHR_SET(disconnect, wire_disconnect));
static const chr_backend    wire_kind = { .name = "wire", .help = "a test's", .options_size = sizeof(chr_common_options),
                                          .state_size = sizeof(wire), .open = wire_open, .io = &wire_io,
                                          .ioctl = wire_ioctl, .peer = &wire_peer };

typedef struct bench {
    rig      r;
    wire    *w;
    recorder rec;
} bench;

static void bench_open_on(bench *b, const char *options, const chr_handlers *handlers, size_t in, size_t out)
{
    rig_open_virtual(&b->r);
    REQUIRE(chr_backend_register(b->r.ctx, &wire_kind, NULL) == 0);
    memset(&b->rec, 0, sizeof b->rec);
    b->rec.room = UNLIMITED;
    b->rec.early_input_allowed = 1;
    REQUIRE(chr_fe_init(&b->rec.fe, make(&b->r, options), NULL) == 0);
    b->w = last_wire;
    settle(&b->r);
    CHECK_INT(chr_fe_set_buffers(&b->rec.fe, in, out), 0);
    if (handlers) chr_fe_set_handlers(&b->rec.fe, handlers, &b->rec);
    settle(&b->r);
}

static void bench_open(bench *b, const chr_handlers *handlers, size_t in, size_t out)
{
    bench_open_on(b, "wire,id=w", handlers, in, out);
}

static void bench_close(bench *b)
{
    detach(&b->rec);
    rig_close(&b->r);
}

static void send_in(bench *b, const char *text)
{
    size_t len = strlen(text);
    int    room = chr_be_can_write(&b->w->dev);
    if (!CHECK(room >= (int)len)) NOTE("room for %d of %d", room, (int)len);
    chr_be_write(&b->w->dev, text, len);
}

/* Capital letters are events: B break, C closed, O opened, E input end, L line error; the others are bytes. */
static void play(bench *b, const char *script)
{
    for (; *script; script++) {
        char byte[2] = { *script, 0 };
        switch (*script) {
        case 'B': chr_be_event(&b->w->dev, CHR_EVENT_BREAK); break;
        case 'C': chr_be_event(&b->w->dev, CHR_EVENT_CLOSED); break;
        case 'O': chr_be_event(&b->w->dev, CHR_EVENT_OPENED); break;
        case 'E': chr_be_event(&b->w->dev, CHR_EVENT_INPUT_END); break;
        case 'L': chr_be_event(&b->w->dev, CHR_EVENT_LINE_ERROR); break;
        case '7': chr_be_event(&b->w->dev, 4711); break;
        default: send_in(b, byte); break;
        }
    }
}

/* ---- what is found out once holds until something changes -------------------------------------------------------- */

static int questions;

static int counting_can_read(void *opaque)
{
    questions++;
    return recorder_can_read(opaque);
}

TEST(a_frontend_that_reads_is_asked_once_a_piece)
{
    static const chr_handlers counting = { counting_can_read, recorder_read, recorder_event, NULL };
    bench                     b;
    int                       i;
    bench_open(&b, &counting, 100, 100);
    questions = 0;
    for (i = 0; i < 5; i++) send_in(&b, "piece");
    CHECK_INT(questions, 5);
    CHECK_INT(b.rec.length, 25);
    bench_close(&b);
}

TEST(an_answer_about_room_is_for_one_piece)
{
    bench b;
    bench_open(&b, &recorder_handlers, 100, 0);
    send_in(&b, "-"); /* from here on the short way is known to do */
    b.rec.length = 0;
    b.rec.room = 4;
    CHECK_INT(chr_be_can_write(&b.w->dev), 100);
    chr_be_write(&b.w->dev, "abcd", 4);
    chr_be_write(&b.w->dev, "efgh", 4);
    CHECK_INT(b.rec.length, 4);
    b.rec.room = 4;
    chr_fe_accept_input(&b.rec.fe);
    settle(&b.r);
    CHECK_INT(b.rec.length, 8);
    CHECK(memcmp(b.rec.input, "abcdefgh", 8) == 0);
    bench_close(&b);
}

TEST(an_answer_about_room_is_not_for_other_handlers)
{
    bench    b;
    recorder other;
    bench_open(&b, &recorder_handlers, 100, 0);
    memset(&other, 0, sizeof other);
    send_in(&b, "-");
    b.rec.length = 0;
    CHECK_INT(chr_be_can_write(&b.w->dev), 100);
    chr_fe_set_handlers(&b.rec.fe, &recorder_handlers, &other); /* it has no room */
    chr_be_write(&b.w->dev, "ab", 2);
    CHECK_INT(b.rec.length + other.length, 0);
    other.room = 2;
    chr_fe_accept_input(&b.rec.fe);
    settle(&b.r);
    CHECK_INT(other.length, 2);
    free(other.input);
    bench_close(&b);
}

TEST(the_frontend_goes_while_its_buffer_is_sent)
{
    bench b;
    bench_open(&b, &recorder_handlers, 0, 100);
    put(&b.rec.fe, "first,");
    settle(&b.r);
    b.w->goes = &b.rec.fe;
    put(&b.rec.fe, "second");
    settle(&b.r);
    CHECK_STR(b.w->sent, "first,second");
    CHECK_INT(chr_fe_write(&b.rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    bench_close(&b);
}

/* obuf-full=drop-oldest: as many of the oldest bytes are dropped as needed, even across the wrap of the ring. */
TEST(a_full_queue_drops_what_it_must)
{
    bench b;
    bench_open_on(&b, "wire,id=w,obuf=8,obuf-full=drop-oldest", &recorder_handlers, 0, 0);
    b.w->room = 0;
    CHECK_INT(chr_fe_write(&b.rec.fe, "12345678", 8), 8);
    settle(&b.r);
    b.w->room = 5;
    chr_be_writable(&b.w->dev);
    settle(&b.r);
    CHECK_STR(b.w->sent, "12345");
    CHECK_INT(chr_fe_write(&b.rec.fe, "ABCDE", 5), 5);
    CHECK_INT(chr_fe_write(&b.rec.fe, "uvwxyz", 6), 6);
    b.w->room = -1;
    chr_be_writable(&b.w->dev);
    settle(&b.r);
    CHECK_STR(b.w->sent, "12345DEuvwxyz");
    bench_close(&b);
}

static chr_frontend *sized;
static int           sized_answers[3];

static void size_buffers(wire *w)
{
    (void)w;
    sized_answers[0] = chr_fe_set_buffers(sized, 10, 10);
    sized_answers[1] = chr_fe_set_buffers(sized, 0, 0);
    sized_answers[2] = chr_fe_flush(sized, 0);
}

/* What is being sent can't be moved. */
TEST(buffers_keep_their_size_while_they_are_sent)
{
    bench b;
    bench_open(&b, &recorder_handlers, 0, 100);
    sized = &b.rec.fe;
    put(&b.rec.fe, "first");
    b.w->during = size_buffers;
    settle(&b.r);
    CHECK_INT(sized_answers[0], CHR_ERR_BUSY);
    CHECK_INT(sized_answers[1], CHR_ERR_BUSY);
    CHECK_STR(b.w->sent, "first");
    put(&b.rec.fe, "second");
    settle(&b.r);
    CHECK_STR(b.w->sent, "firstsecond");
    CHECK_INT(chr_fe_set_buffers(&b.rec.fe, 10, 10), 0);
    CHECK_INT(chr_fe_set_buffers(&b.rec.fe, 0, 0), 0);
    bench_close(&b);
}

static int numbers[100], number_count;

static void note_number(void *opaque, int event)
{
    (void)opaque;
    if (event >= 1000 || event == CHR_EVENT_CLOSED || event == CHR_EVENT_OPENED) numbers[number_count++ % 100] = event;
}

/* More events behind one byte than there are marks: the first ones are delivered, and CLOSED replaces the last of
 * them. */
TEST(more_events_than_have_place)
{
    static const chr_handlers handlers = { NULL, NULL, note_number, NULL };
    char                      byte[4];
    bench                     b;
    int                       i;
    bench_open(&b, NULL, 100, 0);
    chr_fe_set_handlers(&b.rec.fe, &handlers, NULL);
    settle(&b.r);
    number_count = 0;
    send_in(&b, "x");
    for (i = 0; i < 40; i++) chr_be_event(&b.w->dev, 1000 + i);
    CHECK_INT(number_count, 0);
    chr_be_event(&b.w->dev, CHR_EVENT_CLOSED);
    CHECK_INT(chr_fe_read(&b.rec.fe, byte, sizeof byte), 1);
    settle(&b.r);
    CHECK_INT(number_count, 32);
    for (i = 0; i < 31; i++) CHECK_INT(numbers[i], 1000 + i);
    CHECK_INT(numbers[31], CHR_EVENT_CLOSED);
    chr_be_event(&b.w->dev, CHR_EVENT_OPENED);
    settle(&b.r);
    CHECK_INT(number_count, 33);
    bench_close(&b);
}

/* Equal ones become one when there are many. */
TEST(equal_events_among_many_are_one)
{
    static const chr_handlers handlers = { NULL, NULL, note_number, NULL };
    char                      byte[4];
    bench                     b;
    int                       i;
    bench_open(&b, NULL, 100, 0);
    chr_fe_set_handlers(&b.rec.fe, &handlers, NULL);
    settle(&b.r);
    number_count = 0;
    send_in(&b, "x");
    for (i = 0; i < 15; i++) chr_be_event(&b.w->dev, 1001);
    CHECK_INT(chr_fe_read(&b.rec.fe, byte, sizeof byte), 1);
    settle(&b.r);
    CHECK_INT(number_count, 15);
    number_count = 0;
    send_in(&b, "x");
    for (i = 0; i < 16; i++) chr_be_event(&b.w->dev, 1001 + i);
    chr_be_event(&b.w->dev, 1001);
    chr_be_event(&b.w->dev, 1017);
    chr_be_event(&b.w->dev, 1002);
    CHECK_INT(chr_fe_read(&b.rec.fe, byte, sizeof byte), 1);
    settle(&b.r);
    CHECK_INT(number_count, 17);
    CHECK_INT(numbers[0], 1003);
    CHECK_INT(numbers[13], 1016);
    CHECK_INT(numbers[14], 1001);
    CHECK_INT(numbers[15], 1017);
    CHECK_INT(numbers[16], 1002);
    bench_close(&b);
}

static chr_frontend *asked_fe;
static int           ask_what;

static int changing_can_read(void *opaque)
{
    (void)opaque;
    if (ask_what == 1) chr_fe_set_buffers(asked_fe, 0, 0);
    if (ask_what == 2) chr_fe_deinit(asked_fe);
    if (ask_what == 3) chr_fe_set_handlers(asked_fe, NULL, NULL);
    if (ask_what == 4) chr_fe_set_buffers(asked_fe, 50, 0);
    if (ask_what) ask_what = -1;
    return 100;
}

/* The question for room may take the buffers away, or change them, or the frontend goes: nothing that was there is
 * lost or comes twice. */
TEST(the_question_for_room_changes_the_buffers)
{
    static const chr_handlers handlers = { changing_can_read, recorder_read, recorder_event, NULL };
    int                       what, buffered;
    for (what = 1; what <= 4; what++)
        for (buffered = 0; buffered < 2; buffered++) {
            bench b;
            char  text[20];
            int   got;
            bench_open(&b, NULL, 100, 0);
            asked_fe = &b.rec.fe;
            ask_what = 0;
            if (buffered) send_in(&b, "one"); /* it lies there as the handlers come */
            b.rec.open = 0;
            chr_fe_set_handlers(&b.rec.fe, &handlers, &b.rec);
            ask_what = what;
            if (!buffered) {
                settle(&b.r);
                chr_be_write(&b.w->dev, "one", chr_be_can_write(&b.w->dev) >= 3 ? 3 : 0);
            }
            settle(&b.r);
            got = (int)b.rec.length;
            if (b.rec.fe.dev && got == 0) {
                ask_what = 0;
                got = chr_fe_read(&b.rec.fe, text, sizeof text);
                b.rec.open = 0;
                if (got <= 0) chr_fe_set_handlers(&b.rec.fe, &handlers, &b.rec), settle(&b.r), got = (int)b.rec.length;
            }
            if (!CHECK(got == 3 || what == 2 || !buffered)) NOTE("what %d, buffered %d: %d", what, buffered, got);
            if (b.rec.fe.dev) detach(&b.rec);
            else free(b.rec.input), b.rec.input = NULL;
            rig_close(&b.r);
        }
}

TEST(a_buffer_that_shrinks_below_what_it_holds_takes_nothing)
{
    static char block[50];
    bench       b;
    memset(block, 'x', sizeof block);
    bench_open(&b, &recorder_handlers, 0, 100);
    put(&b.rec.fe, "0");
    settle(&b.r);
    b.w->room = 0;
    CHECK_INT(chr_fe_write(&b.rec.fe, block, sizeof block), sizeof block);
    settle(&b.r);
    CHECK_INT(chr_fe_set_buffers(&b.rec.fe, 0, 10), 0);
    settle(&b.r);
    CHECK_INT(chr_fe_write(&b.rec.fe, "y", 1), CHR_ERR_WOULD_BLOCK);
    CHECK_INT(chr_fe_writable(&b.rec.fe), 0);
    b.w->room = -1;
    chr_be_writable(&b.w->dev);
    put(&b.rec.fe, "y");
    settle(&b.r);
    CHECK_INT(strlen(b.w->sent), 52);
    CHECK_STR(b.w->sent + 50, "xy");
    bench_close(&b);
}

/* ---- events keep their place, wherever the reads end ------------------------------------------------------------- */

typedef struct transcript {
    recorder rec;
    char     text[4000];
} transcript;

static void write_down(transcript *t, const char *text, size_t len)
{
    size_t used = strlen(t->text);
    if (used + len < sizeof t->text) memcpy(t->text + used, text, len), t->text[used + len] = 0;
}

static int script_can_read(void *opaque)
{
    return ((transcript *)opaque)->rec.room;
}

static void script_read(void *opaque, const void *buf, size_t len)
{
    transcript *t = (transcript *)opaque;
    CHECK(len <= (size_t)t->rec.room);
    write_down(t, (const char *)buf, len);
    t->rec.room -= (int)len;
}

static void script_event(void *opaque, int event)
{
    char letter = event == 4711 ? '7' : recorder_letter(event);
    if (event != CHR_EVENT_READABLE) write_down((transcript *)opaque, &letter, 1);
}

typedef struct split {
    const char *script, *expected;
    int         pulls, piece, all_at_once;
} split;

static void run_split(const void *arg)
{
    static const chr_handlers delivered = { script_can_read, script_read, script_event, NULL };
    static const chr_handlers pulled = { NULL, NULL, script_event, NULL };
    const split *row = (const split *)arg;
    transcript   t;
    bench        b;
    char         piece[16];
    const char  *at;
    int          n, i;
    memset(&t, 0, sizeof t);
    bench_open(&b, NULL, 64, 0);
    chr_fe_set_handlers(&b.rec.fe, row->pulls ? &pulled : &delivered, &t);
    for (at = row->script; *at; at++) {
        char one[2] = { *at, 0 };
        play(&b, one);
        if (row->all_at_once && at[1]) continue;
        for (i = 0; i < (row->all_at_once ? 60 : 1); i++) {
            if (row->pulls) {
                n = chr_fe_read(&b.rec.fe, piece, (size_t)row->piece);
                if (n > 0) write_down(&t, piece, (size_t)n);
            } else {
                t.rec.room = row->piece;
                chr_fe_accept_input(&b.rec.fe);
            }
            settle(&b.r);
        }
    }
    for (i = 0; i < 60; i++) {
        if (row->pulls && (n = chr_fe_read(&b.rec.fe, piece, (size_t)row->piece)) > 0) write_down(&t, piece, (size_t)n);
        if (!row->pulls) t.rec.room = row->piece, chr_fe_accept_input(&b.rec.fe);
        settle(&b.r);
    }
    CHECK_STR(t.text, row->expected);
    bench_close(&b);
}

TEST_FAMILY(splits)
{
    static const char *const scripts[][2] = {
        { "abBcd", "OabBcd" },       { "BabB", "OBabB" },     { "abCOcd", "OabCOcd" },  { "abCOCOcdC", "OabCOCOcdC" },
        { "aBBBb", "OaBBBb" },       { "abEC", "OabEC" },     { "abLcBdLL", "OabLcBdLL" }, { "a7b7", "Oa7b7" },
        { "abcdefghijklmnopB", "OabcdefghijklmnopB" },        { "aBcBdBeBfBgBhBiBj", "OaBcBdBeBfBgBhBiBj" },
        { "abECOxyEC", "OabECOxyEC" },                         { "CObCOd", "OCObCOd" },
    };
    static const int pieces[] = { 1, 2, 3, 5, 16 };
    size_t           i, k;
    int              pulls, all;
    for (i = 0; i < sizeof scripts / sizeof *scripts; i++)
        for (k = 0; k < sizeof pieces / sizeof *pieces; k++)
            for (pulls = 0; pulls < 2; pulls++)
                for (all = 0; all < 2; all++) {
                    char   name[80];
                    split *row = (split *)calloc(1, sizeof *row);
                    if (!row) abort();
                    row->script = scripts[i][0];
                    row->expected = scripts[i][1];
                    row->piece = pieces[k];
                    row->pulls = pulls;
                    row->all_at_once = all;
                    snprintf(name, sizeof name, "split_%s_%s_by_%d_%s", scripts[i][0], pulls ? "pulled" : "delivered", pieces[k],
                             all ? "at_once" : "bit_by_bit");
                    test_add_case(name, run_split, row, TEST_SECONDS);
                }
}

/* The number of queued events is bounded: when it is reached no more bytes are read, and no event or byte is lost. */
TEST(the_end_of_the_input_is_told_with_the_last_byte)
{
    bench b;
    char  c;
    bench_open(&b, &pull_handlers, 100, 0);
    send_in(&b, "z");
    chr_be_event(&b.w->dev, CHR_EVENT_CLOSED);
    settle(&b.r);
    CHECK_INT(chr_fe_eof(&b.rec.fe), 0);
    CHECK_INT(chr_fe_read(&b.rec.fe, &c, 1), 1);
    CHECK_INT(chr_fe_read(&b.rec.fe, &c, 1), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_eof(&b.rec.fe), 1); /* no step in between */
    CHECK_STR(b.rec.events, "OR");
    bench_close(&b);
}

TEST(many_events_hold_the_bytes_back)
{
    char        expected[400] = "O", got[400] = "";
    bench       b;
    int         i, k;
    transcript  t;
    static const chr_handlers pulled = { NULL, NULL, script_event, NULL };
    memset(&t, 0, sizeof t);
    bench_open(&b, NULL, 1000, 0);
    chr_fe_set_handlers(&b.rec.fe, &pulled, &t);
    for (i = 0; i < 100; i++) {
        while (chr_be_can_write(&b.w->dev) == 0) {
            char c[8];
            k = chr_fe_read(&b.rec.fe, c, sizeof c);
            if (k > 0) write_down(&t, c, (size_t)k);
            chr_loop_step(b.r.ctx, 0);
        }
        send_in(&b, "x");
        chr_be_event(&b.w->dev, CHR_EVENT_BREAK);
        strcat(expected, "xB");
    }
    for (i = 0; i < 300; i++) {
        char c[8];
        k = chr_fe_read(&b.rec.fe, c, sizeof c);
        if (k > 0) write_down(&t, c, (size_t)k);
        settle(&b.r);
    }
    (void)got;
    CHECK_STR(t.text, expected);
    bench_close(&b);
}

/* A peer connects and disconnects while nothing is read: OPENED and CLOSED alternate, and its input is kept. */
TEST(comes_and_goes_while_nobody_reads)
{
    bench b;
    int   i;
    bench_open(&b, &pull_handlers, 10, 0);
    send_in(&b, "abc");
    for (i = 0; i < 1000; i++) play(&b, "CO");
    send_in(&b, i < 0 ? "" : chr_be_can_write(&b.w->dev) > 0 ? "d" : "");
    settle(&b.r);
    CHECK_STR(pull(&b.rec.fe), "abc!");
    settle(&b.r);
    CHECK_STR(b.rec.events[0] == 'O' && b.rec.events[1] == 'R' && b.rec.events[2] == 'C' ? "ok" : b.rec.events, "ok");
    CHECK(b.rec.open);
    bench_close(&b);
}

TEST(what_is_a_state_is_told_at_once)
{
    bench b;
    bench_open(&b, &pull_handlers, 10, 0);
    send_in(&b, "abc");
    chr_be_event(&b.w->dev, CHR_EVENT_SERIAL);
    chr_be_event(&b.w->dev, CHR_EVENT_BREAK);
    CHECK_STR(b.rec.events, "ORS");
    CHECK_STR(pull(&b.rec.fe), "abc.");
    CHECK_STR(b.rec.events, "ORS"); /* no handler from inside a call */
    settle(&b.r);
    CHECK_STR(b.rec.events, "ORSB");
    bench_close(&b);
}

/* ---- output: what meets whom ------------------------------------------------------------------------------------- */

TEST(one_write_for_many)
{
    bench b;
    int   i;
    bench_open(&b, &pull_handlers, 0, 2000);
    for (i = 0; i < 1000; i++) CHECK_INT(chr_fe_write(&b.rec.fe, "x", 1), 1);
    CHECK_INT(b.w->writes, 0);
    settle(&b.r);
    CHECK_INT(b.w->writes, 1);
    CHECK_INT(b.w->length, 1000);
    bench_close(&b);
}

TEST(a_ring_that_wraps_keeps_the_order)
{
    char  expected[1200] = "";
    bench b;
    int   i;
    bench_open(&b, &pull_handlers, 0, 10);
    b.w->room = 0;
    for (i = 0; i < 200; i++) {
        char  text[8];
        char *at = text;
        snprintf(text, sizeof text, "%d,", i);
        strcat(expected, text);
        while (*at) {
            int n = chr_fe_write(&b.rec.fe, at, strlen(at));
            if (n > 0) at += n;
            b.w->room += 3;
            (void)chr_fe_flush(&b.rec.fe, 0);
        }
    }
    b.w->room = -1;
    CHECK_INT(chr_fe_flush(&b.rec.fe, 0), 0);
    CHECK_STR(b.w->sent, expected);
    bench_close(&b);
}

TEST(output_goes_before_commands)
{
    bench b;
    int   on = 1;
    bench_open(&b, &pull_handlers, 0, 100);
    put(&b.rec.fe, "abc");
    CHECK_INT(chr_fe_ioctl(&b.rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on), 0);
    put(&b.rec.fe, "def");
    settle(&b.r);
    CHECK_STR(b.w->sent, "abc<break>def");
    bench_close(&b);
}

TEST(a_purge_drops_what_is_buffered)
{
    chr_info info;
    bench    b;
    int      what = CHR_PURGE_RECEIVE;
    bench_open(&b, &pull_handlers, 10, 10);
    send_in(&b, "abc");
    put(&b.rec.fe, "def");
    CHECK_INT(chr_fe_ioctl(&b.rec.fe, CHR_IOCTL_SERIAL_PURGE, &what), 0);
    CHECK_STR(pull(&b.rec.fe), ".");
    CHECK_INT(chr_fe_writable(&b.rec.fe), 7);
    send_in(&b, "ghi");
    chr_be_event(&b.w->dev, CHR_EVENT_BREAK);
    chr_be_event(&b.w->dev, CHR_EVENT_PURGE_RECEIVE); /* on their way to the client */
    CHECK_INT(chr_fe_writable(&b.rec.fe), 10);
    chr_be_event(&b.w->dev, CHR_EVENT_PURGE_TRANSMIT); /* and from it */
    settle(&b.r);
    CHECK_STR(pull(&b.rec.fe), ".");
    CHECK_STR(b.rec.events, "ORRPQB");
    settle(&b.r);
    CHECK_STR(b.w->sent, "");
    chr_query(&b.w->dev, &info);
    CHECK_INT(info.bytes_dropped, 9);
    bench_close(&b);
}

TEST(a_purge_among_events_leaves_an_empty_buffer)
{
    bench b;
    bench_open(&b, &pull_handlers, 100, 0);
    send_in(&b, "ab");
    chr_be_event(&b.w->dev, CHR_EVENT_BREAK);
    send_in(&b, "cd");
    CHECK_STR(b.rec.events, "OR");
    chr_be_event(&b.w->dev, CHR_EVENT_PURGE_TRANSMIT);
    settle(&b.r);
    CHECK_STR(b.rec.events, "ORQB");
    send_in(&b, "ef");
    CHECK_STR(b.rec.events, "ORQBR");
    CHECK_STR(pull(&b.rec.fe), "ef.");
    bench_close(&b);
}

TEST(what_is_written_during_a_send_comes_after_it)
{
    bench b;
    bench_open(&b, &pull_handlers, 0, 100);
    put(&b.rec.fe, "abc");
    b.w->meanwhile = &b.rec.fe;
    settle(&b.r);
    put(&b.rec.fe, "d");
    settle(&b.r);
    CHECK_STR(b.w->sent, "abcmeanwhiled");
    bench_close(&b);
}

TEST(one_peers_bytes_do_not_go_to_the_next)
{
    bench b;
    bench_open(&b, &pull_handlers, 0, 100);
    put(&b.rec.fe, "old");
    b.w->answer = CHR_ERR_DISCONNECTED;
    play(&b, "C");
    b.w->answer = 0;
    play(&b, "O");
    put(&b.rec.fe, "new");
    settle(&b.r);
    CHECK_STR(b.w->sent, "new");
    bench_close(&b);
}

TEST(errors_come_with_the_flush_and_then_at_once)
{
    chr_info info;
    bench    b;
    bench_open(&b, &pull_handlers, 0, 100);
    b.w->answer = CHR_ERR_NO_SPACE;
    put(&b.rec.fe, "abc");
    settle(&b.r);
    CHECK_INT(chr_fe_writable(&b.rec.fe), 100);
    chr_query(&b.w->dev, &info);
    CHECK_INT(info.bytes_dropped, 3);
    CHECK_INT(chr_fe_flush(&b.rec.fe, 0), CHR_ERR_NO_SPACE);
    CHECK_INT(chr_fe_flush(&b.rec.fe, 0), 0);
    CHECK_INT(chr_fe_write(&b.rec.fe, "d", 1), CHR_ERR_NO_SPACE);
    b.w->answer = 0;
    put(&b.rec.fe, "e"); /* straight there */
    CHECK_STR(b.w->sent, "e");
    put(&b.rec.fe, "f"); /* and gathered again */
    CHECK_STR(b.w->sent, "e");
    settle(&b.r);
    CHECK_STR(b.w->sent, "ef");
    bench_close(&b);
}

TEST(nobody_is_there)
{
    chr_info info;
    bench    b;
    bench_open(&b, &pull_handlers, 10, 100);
    b.w->answer = CHR_ERR_DISCONNECTED;
    play(&b, "C");
    put(&b.rec.fe, "abc");
    CHECK_STR(pull(&b.rec.fe), "!");
    settle(&b.r);
    CHECK_INT(chr_fe_write(&b.rec.fe, "de", 2), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_writable(&b.rec.fe), 100);
    chr_query(&b.w->dev, &info);
    CHECK_INT(info.bytes_dropped, 5);
    CHECK_INT(chr_fe_flush(&b.rec.fe, -1), CHR_ERR_DISCONNECTED);
    b.w->answer = 0;
    play(&b, "O");
    put(&b.rec.fe, "f");
    CHECK_STR(b.w->sent, "");
    settle(&b.r);
    CHECK_STR(b.w->sent, "f");
    bench_close(&b);
}

TEST(the_watch_tells_of_room)
{
    bench b;
    bench_open(&b, &pull_handlers, 0, 4);
    chr_fe_add_watch(&b.rec.fe, recorder_writable, &b.rec);
    CHECK_INT(b.rec.writable, 0);
    settle(&b.r);
    CHECK_INT(b.rec.writable, 1); /* there is room */
    b.w->room = 0;
    put(&b.rec.fe, "abcd");
    settle(&b.r);
    chr_fe_add_watch(&b.rec.fe, recorder_writable, &b.rec);
    settle(&b.r);
    CHECK_INT(b.rec.writable, 1);
    b.w->room = 2;
    chr_be_writable(&b.w->dev);
    CHECK_INT(b.rec.writable, 2);
    CHECK_INT(chr_fe_writable(&b.rec.fe), 2);
    chr_fe_add_watch(&b.rec.fe, recorder_writable, &b.rec);
    chr_fe_add_watch(&b.rec.fe, NULL, NULL);
    settle(&b.r);
    CHECK_INT(b.rec.writable, 2);
    b.w->room = -1;
    chr_be_writable(&b.w->dev);
    CHECK_STR(b.w->sent, "abcd");
    bench_close(&b);
}

/* A pending watch is called when the far side disconnects. */
TEST(a_watch_without_an_output_buffer_can_be_taken_away)
{
    bench b;
    bench_open(&b, &pull_handlers, 10, 0);
    b.w->room = 0;
    chr_fe_add_watch(&b.rec.fe, recorder_writable, &b.rec);
    settle(&b.r);
    chr_fe_add_watch(&b.rec.fe, NULL, NULL);
    b.w->room = -1;
    wire_update(&b.w->dev);
    settle(&b.r);
    CHECK_INT(b.rec.writable, 0);
    bench_close(&b);
}

TEST(a_watch_lives_through_other_sizes)
{
    static const size_t sizes[][2] = { { 0, 0 }, { 10, 10 }, { 20, 0 } };
    bench b;
    int   i;
    for (i = 0; i < 3; i++) {
        bench_open(&b, &pull_handlers, 10, 0);
        b.w->room = 0;
        CHECK_INT(chr_fe_write(&b.rec.fe, "x", 1), CHR_ERR_WOULD_BLOCK);
        chr_fe_add_watch(&b.rec.fe, recorder_writable, &b.rec);
        settle(&b.r);
        CHECK_INT(b.rec.writable, 0);
        CHECK_INT(chr_fe_set_buffers(&b.rec.fe, sizes[i][0], sizes[i][1]), 0);
        if (sizes[i][1] > 0) CHECK_INT(chr_fe_write(&b.rec.fe, "0123456789", 10), 10);
        settle(&b.r);
        CHECK_INT(b.rec.writable, 0);
        b.w->room = -1;
        wire_update(&b.w->dev);
        settle(&b.r);
        CHECK_INT(b.rec.writable, 1);
        bench_close(&b);
    }
}

TEST(the_watch_tells_of_the_end)
{
    bench b;
    bench_open(&b, &pull_handlers, 0, 4);
    b.w->room = 0;
    put(&b.rec.fe, "abcd");
    settle(&b.r);
    chr_fe_add_watch(&b.rec.fe, recorder_writable, &b.rec);
    b.w->answer = CHR_ERR_DISCONNECTED;
    play(&b, "C");
    settle(&b.r);
    CHECK_INT(b.rec.writable, 1);
    CHECK_INT(chr_fe_write(&b.rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    bench_close(&b);
}

/* It is gathered too, as long as it fits. */
TEST(write_all_goes_behind_what_is_gathered)
{
    bench b;
    bench_open(&b, &pull_handlers, 0, 8);
    put(&b.rec.fe, "abc");
    CHECK_INT(chr_fe_write_all(&b.rec.fe, "def", 3, -1), 3);
    CHECK_STR(b.w->sent, "");
    CHECK_INT(chr_fe_write_all(&b.rec.fe, "ghi", 3, -1), 3);
    CHECK_STR(b.w->sent, "abcdefghi");
    bench_close(&b);
}

/* What cannot go now waits with obuf=, and is counted. */
TEST(write_all_goes_behind_what_others_have_gathered)
{
    desk     d;
    recorder other;
    char     options[200];
    int      i;
    rig_open_virtual(&d.r);
    d.far = pair_options(options, ",mux=on");
    memset(&d.rec, 0, sizeof d.rec);
    memset(&other, 0, sizeof other);
    REQUIRE(chr_fe_init(&d.rec.fe, make(&d.r, options), NULL) == 0);
    CHECK_INT(chr_fe_set_buffers(&d.rec.fe, 0, 100), 0);
    REQUIRE(chr_fe_init(&other.fe, chr_find(d.r.ctx, "s"), NULL) == 0);
    for (i = 0; i < 2; i++) { /* the other one without buffers, and with */
        CHECK_INT(chr_fe_set_buffers(&other.fe, 0, i ? 2 : 0), 0);
        put(&d.rec.fe, "first,");
        CHECK_INT(chr_fe_write_all(&other.fe, "then", 4, 1000), 4);
        CHECK_STR(hear(d.far), "first,then");
    }
    detach(&other);
    desk_close(&d);
}

TEST(a_break_goes_behind_what_others_have_gathered)
{
    desk     d;
    recorder other;
    char     options[200];
    int      on = 1;
    rig_open_virtual(&d.r);
    d.far = pair_options(options, ",telnet=on,mux=on");
    memset(&d.rec, 0, sizeof d.rec);
    memset(&other, 0, sizeof other);
    REQUIRE(chr_fe_init(&d.rec.fe, make(&d.r, options), NULL) == 0);
    CHECK_INT(chr_fe_set_buffers(&d.rec.fe, 0, 100), 0);
    REQUIRE(chr_fe_init(&other.fe, chr_find(d.r.ctx, "s"), NULL) == 0);
    settle(&d.r);
    hear(d.far); /* the negotiation */
    put(&d.rec.fe, "abc");
    CHECK_INT(chr_fe_ioctl(&other.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on), 0); /* this one has no buffers */
    CHECK_STR(hear(d.far), "abc\377\363");
    detach(&other);
    desk_close(&d);
}

TEST(after_an_error_write_all_gathers_again)
{
    bench b;
    int   i;
    bench_open(&b, &pull_handlers, 0, 100);
    b.w->answer = CHR_ERR_NO_SPACE;
    put(&b.rec.fe, "lost");
    settle(&b.r);
    b.w->answer = 0;
    for (i = 0; i < 20; i++) CHECK_INT(chr_fe_write_all(&b.rec.fe, "y", 1, 1000), 1);
    settle(&b.r);
    CHECK_STR(b.w->sent, "yyyyyyyyyyyyyyyyyyyy");
    CHECK_INT(b.w->writes, 2); /* the first one tries */
    bench_close(&b);
}

TEST(what_is_left_behind_is_sent_later)
{
    chr_info info;
    bench    b;
    bench_open(&b, &pull_handlers, 0, 100);
    b.w->room = 3;
    put(&b.rec.fe, "abcdef");
    settle(&b.r);
    CHECK_STR(b.w->sent, "abc");
    chr_query(&b.w->dev, &info);
    CHECK_INT(info.bytes_queued, 3);
    CHECK_INT(chr_drain(b.r.ctx, 20), CHR_ERR_TIMEOUT);
    detach(&b.rec);
    chr_query(&b.w->dev, &info);
    CHECK_INT(info.bytes_queued, 3);
    b.w->room = -1;
    settle(&b.r);
    chr_be_writable(&b.w->dev);
    CHECK_STR(b.w->sent, "abcdef");
    CHECK_INT(chr_drain(b.r.ctx, 100), 0);
    rig_close(&b.r);
}

TEST(history_and_log_see_what_leaves)
{
    char        options[200];
    const char *log = scratch("log");
    bench       b;
    snprintf(options, sizeof options, "wire,id=w,history=100,obuf=100,logfile=%s", log);
    bench_open_on(&b, options, &pull_handlers, 0, 100);
    put(&b.rec.fe, "one ");
    CHECK_STR(read_file(log), "");
    settle(&b.r);
    CHECK_STR(read_file(log), "one ");
    b.w->answer = CHR_ERR_DISCONNECTED;
    play(&b, "C");
    put(&b.rec.fe, "two ");
    settle(&b.r);
    CHECK_STR(read_file(log), "one two ");
    b.w->answer = 0;
    play(&b, "O");
    put(&b.rec.fe, "three");
    settle(&b.r);
    CHECK_STR(b.w->sent, "one one two three");
    CHECK_STR(read_file(log), "one two three");
    bench_close(&b);
    scratch_clean();
}

/* ---- other sizes, other memory ----------------------------------------------------------------------------------- */

TEST(other_sizes_keep_what_there_is)
{
    bench b;
    bench_open(&b, &pull_handlers, 10, 10);
    send_in(&b, "abcdef");
    b.w->room = 0;
    put(&b.rec.fe, "ghijkl");
    CHECK_INT(chr_fe_set_buffers(&b.rec.fe, 3, 3), 0);
    CHECK_INT(chr_fe_readable(&b.rec.fe), 6);
    CHECK_INT(chr_fe_writable(&b.rec.fe), 0);
    CHECK_INT(chr_be_can_write(&b.w->dev), 0);
    CHECK_INT(chr_fe_write(&b.rec.fe, "x", 1), CHR_ERR_WOULD_BLOCK);
    CHECK_INT(chr_fe_set_buffers(&b.rec.fe, 0, 0), 0);
    CHECK_INT(chr_fe_readable(&b.rec.fe), 6);
    CHECK_INT(chr_fe_write(&b.rec.fe, "x", 1), CHR_ERR_WOULD_BLOCK);
    CHECK_STR(pull(&b.rec.fe), "abcdef-");
    b.w->room = -1;
    settle(&b.r);
    chr_be_writable(&b.w->dev);
    CHECK_STR(b.w->sent, "ghijkl");
    put(&b.rec.fe, "m"); /* nothing is gathered any more */
    CHECK_STR(b.w->sent, "ghijklm");
    CHECK_INT(chr_be_can_write(&b.w->dev), 0); /* nobody reads */
    CHECK_INT(chr_fe_set_buffers(&b.rec.fe, 0, 0), 0);
    CHECK_INT(chr_fe_set_buffers(&b.rec.fe, 20, 20), 0);
    CHECK_INT(chr_be_can_write(&b.w->dev), 20);
    CHECK_INT(chr_fe_writable(&b.rec.fe), 20);
    bench_close(&b);
}

/* Buffered bytes are delivered to the handler first; then its own can_read is called. */
TEST(without_buffers_again_nothing_is_out_of_order)
{
    bench b;
    bench_open(&b, &recorder_handlers, 10, 0);
    b.rec.room = 2;
    chr_be_write(&b.w->dev, "abcdef", 6);
    CHECK_INPUT(&b.rec, "ab");
    CHECK_INT(chr_fe_set_buffers(&b.rec.fe, 0, 0), 0);
    CHECK_INT(chr_be_can_write(&b.w->dev), 0);
    give_room(&b.rec, 3);
    settle(&b.r);
    CHECK_INPUT(&b.rec, "abcde");
    CHECK_INT(chr_be_can_write(&b.w->dev), 0);
    give_room(&b.rec, 5);
    settle(&b.r);
    CHECK_INPUT(&b.rec, "abcdef");
    CHECK_INT(chr_be_can_write(&b.w->dev), 4);
    chr_be_write(&b.w->dev, "ghij", 4);
    CHECK_INPUT(&b.rec, "abcdefghij");
    CHECK_INT(chr_be_can_write(&b.w->dev), 0);
    bench_close(&b);
}

TEST(sizes_that_are_none)
{
    bench b;
    bench_open(&b, &pull_handlers, 10, 10);
    CHECK_INT(chr_fe_set_buffers(&b.rec.fe, (size_t)-1, 0), CHR_ERR_INVALID);
    CHECK_INT(chr_fe_set_buffers(&b.rec.fe, 0, (size_t)1 << 31), CHR_ERR_INVALID);
    CHECK_INT(chr_fe_writable(&b.rec.fe), 10);
    bench_close(&b);
}

TEST(memory_of_the_callers_own)
{
    static unsigned char memory[CHR_BUFFERS_MEMORY(16, 16) + 1], small[CHR_BUFFERS_MEMORY(2, 2)];
    bench b;
    long  live;
    bench_open(&b, &pull_handlers, 0, 0);
    live = b.r.live;
    CHECK_INT(chr_fe_set_buffers_at(&b.rec.fe, memory + 1, 16, 16), 0); /* aligned by itself */
    CHECK_INT(b.r.live, live);
    send_in(&b, "abcd");
    b.w->room = 0;
    put(&b.rec.fe, "efgh");
    CHECK_INT(chr_fe_set_buffers_at(&b.rec.fe, small, 2, 2), CHR_ERR_BUSY);
    CHECK_INT(chr_fe_set_buffers_at(&b.rec.fe, memory, 16, 16), CHR_ERR_BUSY); /* there they are */
    CHECK_INT(chr_fe_readable(&b.rec.fe), 4);
    CHECK_INT(chr_fe_set_buffers(&b.rec.fe, 8, 8), 0);
    memset(memory, 0x5a, sizeof memory);
    CHECK_STR(pull(&b.rec.fe), "abcd.");
    b.w->room = -1;
    CHECK_INT(chr_fe_flush(&b.rec.fe, 0), 0);
    CHECK_STR(b.w->sent, "efgh");
    CHECK_INT(chr_fe_set_buffers_at(&b.rec.fe, small, 2, 2), 0);
    CHECK_INT(b.r.live, live);
    put(&b.rec.fe, "i");
    bench_close(&b);
    CHECK_INT(memory[0], 0x5a);
}

TEST(out_of_memory_changes_nothing)
{
    bench b;
    bench_open(&b, &pull_handlers, 0, 0);
    b.r.fail_at = b.r.calls + 1;
    CHECK_INT(chr_fe_set_buffers(&b.rec.fe, 10, 10), CHR_ERR_NO_MEMORY);
    put(&b.rec.fe, "a");
    CHECK_STR(b.w->sent, "a");
    CHECK_INT(chr_fe_set_buffers(&b.rec.fe, 10, 10), 0);
    send_in(&b, "xyz");
    b.r.fail_at = b.r.calls + 1;
    CHECK_INT(chr_fe_set_buffers(&b.rec.fe, 20, 20), CHR_ERR_NO_MEMORY);
    CHECK_STR(pull(&b.rec.fe), "xyz.");
    /* what is left behind needs memory: without it is lost, and counted */
    b.w->room = 0;
    put(&b.rec.fe, "bcd");
    b.r.fail_at = b.r.calls + 1;
    b.r.for_good = 1;
    detach(&b.rec);
    CHECK_INT(b.w->dev.bytes_dropped, 3);
    b.r.fail_at = 0;
    rig_close(&b.r);
}

TEST(without_chardev)
{
    chr_frontend fe;
    char         c;
    memset(&fe, 0, sizeof fe);
    CHECK_INT(chr_fe_init(&fe, NULL, NULL), 0);
    CHECK_INT(chr_fe_set_buffers(&fe, 10, 10), 0);
    CHECK_INT(chr_fe_read(&fe, &c, 1), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_readable(&fe), 0);
    CHECK_INT(chr_fe_writable(&fe), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_flush(&fe, 0), CHR_ERR_DISCONNECTED);
    chr_fe_deinit(&fe);
}

TEST(without_buffers)
{
    bench b;
    char  c;
    bench_open(&b, &recorder_handlers, 0, 0);
    CHECK_INT(chr_fe_read(&b.rec.fe, &c, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_readable(&b.rec.fe), 0);
    CHECK_INT(chr_fe_writable(&b.rec.fe), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_flush(&b.rec.fe, 0), 0);
    bench_close(&b);
}

/* ---- hot swap ---------------------------------------------------------------------------------------------------- */

static const chr_handlers pull_with_change = { NULL, NULL, recorder_event, recorder_change };

TEST(both_buffers_move_in_a_hot_swap)
{
    bench     b;
    chr_error err;
    bench_open(&b, &pull_with_change, 10, 10);
    send_in(&b, "abc");
    b.w->room = 2;
    put(&b.rec.fe, "defg");
    CHECK_INT(chr_change(b.r.ctx, "w", "wire", &err), 0);
    CHECK_STR(pull(&b.rec.fe), "abc.");
    b.w = last_wire;
    settle(&b.r);
    CHECK_STR(b.w->sent, "fg");
    send_in(&b, "hi");
    CHECK_STR(pull(&b.rec.fe), "hi.");
    put(&b.rec.fe, "j");
    settle(&b.r);
    CHECK_STR(b.w->sent, "fgj");
    bench_close(&b);
}

TEST(a_swap_that_is_refused_loses_nothing)
{
    bench     b;
    chr_error err;
    bench_open(&b, &pull_with_change, 10, 10);
    send_in(&b, "abc");
    b.w->room = 2;
    put(&b.rec.fe, "defg");
    b.rec.change_answer = -1;
    CHECK_INT(chr_change(b.r.ctx, "w", "wire", &err), CHR_ERR_BUSY);
    CHECK_STR(pull(&b.rec.fe), "abc.");
    b.w->room = -1;
    settle(&b.r);
    CHECK_STR(b.w->sent, "defg");
    send_in(&b, "x");
    CHECK_INT(chr_change(b.r.ctx, "w", "null", &err), CHR_ERR_BUSY);
    send_in(&b, "hi");
    CHECK_STR(pull(&b.rec.fe), "x!"); /* CLOSED and OPENED come before the rest */
    settle(&b.r);
    CHECK_STR(pull(&b.rec.fe), "hi.");
    CHECK_STR(b.rec.events, "ORRCOR");
    bench_close(&b);
}

TEST(a_swap_to_nobody)
{
    bench     b;
    chr_error err;
    bench_open(&b, &pull_with_change, 10, 10);
    send_in(&b, "abc");
    CHECK_INT(chr_change(b.r.ctx, "w", "null", &err), 0);
    CHECK_STR(b.rec.events, "OR");
    CHECK_STR(pull(&b.rec.fe), "abc!");
    settle(&b.r);
    CHECK_STR(b.rec.events, "ORC");
    CHECK_INT(chr_change(b.r.ctx, "w", "wire", &err), 0);
    settle(&b.r);
    CHECK_STR(b.rec.events, "ORCO");
    bench_close(&b);
}

/* ---- handlers that do anything ----------------------------------------------------------------------------------- */

typedef struct mischief {
    bench       *b;
    char         when;  /* in which handler: r read, e event, R readable, w writable, a can_read */
    const char  *what;
    int          done;
    transcript   t;
} mischief;

static void do_mischief(mischief *m, char when)
{
    chr_frontend *fe = &m->b->rec.fe;
    chr_error     err;
    char          bytes[4];
    static const chr_handlers none = { NULL, NULL, NULL, NULL };
    if (m->done || when != m->when) return;
    m->done = 1;
    switch (m->what[0]) {
    case 'd': chr_fe_deinit(fe); break;
    case 'x': chr_fe_deinit(fe); CHECK_INT(chr_remove(m->b->r.ctx, "w", &err), 0); break;
    case '0': chr_fe_set_buffers(fe, 0, 0); break;
    case 's': CHECK_INT(chr_fe_set_buffers(fe, 3, 3), 0); break;
    case 'l': CHECK_INT(chr_fe_set_buffers(fe, 3000, 3000), 0); break;
    case 'n': chr_fe_set_handlers(fe, NULL, NULL); break;
    case 'h': chr_fe_set_handlers(fe, &none, NULL); break;
    case 'p': chr_fe_read(fe, bytes, sizeof bytes); break;
    case 'w': chr_fe_write(fe, "mischief", 8); chr_fe_flush(fe, 0); break;
    case 'c': chr_fe_disconnect(fe); break;
    case 'b': chr_send_break(m->b->r.ctx, "w", NULL); break;
    case 'i': chr_inject(fe->dev, "inj", 3); break;
    case 'm': chr_change(m->b->r.ctx, "w", "wire", &err); break;
    case 'f': CHECK_INT(chr_fe_init(fe, NULL, NULL), CHR_ERR_BUSY); break;
    case 'r': chr_fe_deinit(fe); CHECK_INT(chr_fe_init(fe, chr_find(m->b->r.ctx, "w"), NULL), 0);
              CHECK_INT(chr_fe_set_buffers(fe, 5, 5), 0); break;
    }
}

static int mischief_can_read(void *opaque)
{
    do_mischief((mischief *)opaque, 'a');
    return 2;
}

static void mischief_read(void *opaque, const void *buf, size_t len)
{
    char copy[64];
    REQUIRE(len <= sizeof copy);
    do_mischief((mischief *)opaque, 'r');
    memcpy(copy, buf, len); /* is it still there? */
}

static void mischief_event(void *opaque, int event)
{
    do_mischief((mischief *)opaque, event == CHR_EVENT_READABLE ? 'R' : 'e');
}

static int mischief_change(void *opaque)
{
    do_mischief((mischief *)opaque, 'c');
    return 0;
}

static void mischief_writable(void *opaque)
{
    do_mischief((mischief *)opaque, 'w');
}

static void run_mischief(const void *arg)
{
    static const chr_handlers pulled = { NULL, NULL, mischief_event, mischief_change };
    static const chr_handlers delivered = { mischief_can_read, mischief_read, mischief_event, mischief_change };
    bench    b;
    mischief m;
    int      i;
    memset(&m, 0, sizeof m);
    m.when = ((const char *)arg)[0];
    m.what = (const char *)arg + 1;
    m.b = &b;
    last_wire = NULL;
    bench_open(&b, NULL, 8, 8);
    chr_fe_set_handlers(&b.rec.fe, m.when == 'R' || m.when == 'e' ? &pulled : &delivered, &m);
    if (chr_find(b.r.ctx, "w")) last_wire->room = m.when == 'w' ? 0 : -1;
    (void)chr_fe_write(&b.rec.fe, "12345678", 8);
    settle(&b.r);
    chr_fe_add_watch(&b.rec.fe, mischief_writable, &m);
    for (i = 0; i < 12; i++) {
        chr_dev *dev = chr_find(b.r.ctx, "w");
        char     c[3];
        if (dev && chr_be_can_write(dev) >= 3) chr_be_write(dev, "abc", 3);
        dev = chr_find(b.r.ctx, "w");
        if (dev && i == 3) chr_be_event(dev, CHR_EVENT_BREAK);
        if (i == 6 && chr_find(b.r.ctx, "w") && chr_find(b.r.ctx, "w")->frontend) chr_change(b.r.ctx, "w", "wire", NULL);
        if (last_wire && chr_find(b.r.ctx, "w")) last_wire->room = -1;
        if (m.when == 'R') chr_fe_read(&b.rec.fe, c, i == 5 ? 3 : 1);
        settle(&b.r);
    }
    CHECK(m.done);
    chr_fe_deinit(&b.rec.fe);
    chr_fe_deinit(&b.rec.fe); /* twice is harmless */
    rig_close(&b.r);
}

TEST_FAMILY(mischiefs)
{
    static const char whens[] = "reRwac", whats[] = "dx0slnhpwcbimfr";
    size_t            i, k;
    for (i = 0; whens[i]; i++)
        for (k = 0; whats[k]; k++) {
            char *arg, name[60];
            if (whens[i] == 'c' && strchr("xmr", whats[k])) continue; /* refused while it is being changed */
            arg = (char *)calloc(1, 4);
            if (!arg) abort();
            arg[0] = whens[i];
            arg[1] = whats[k];
            snprintf(name, sizeof name, "mischief_%c_in_%c", whats[k], whens[i]);
            test_add_case(name, run_mischief, arg, TEST_SECONDS);
        }
}

/* ---- on real backends -------------------------------------------------------------------------------------------- */

typedef struct real {
    const char *name, *options; /* of one end; %d is a descriptor */
    const char *upper;          /* a chardev on top of it, or "" */
} real;

static const real reals[] = {
    { "unix", "socket,id=s,fd=%d", "" },
    { "mux", "socket,id=s,fd=%d,mux=on", "" },
    { "hub", "socket,id=m,fd=%d", "hub,id=s,chardevs.0=m" },
    { "fd", "fd,id=s,in=%d,out=%d", "" },
    { "obuf", "socket,id=s,fd=%d,obuf=64", "" },
    { "history", "socket,id=s,fd=%d,history=64", "" },
    { "telnet", "socket,id=s,fd=%d,telnet=on", "" },
};

enum { MUCH = 200000 };

/* Whatever is between: all bytes come, in order, both ways, however slow the two ends are. */
static void run_both_ways(const void *arg)
{
    const real *row = (const real *)arg;
    char        options[200], byte, echo[64];
    rig         r;
    recorder    rec;
    int         fds[2];
    size_t      in = 0, out = 0, said = 0, heard = 0, i;
    int64_t     end = real_ms() + RIG_PATIENCE_MS * test_time_scale();
    rig_open_virtual(&r);
    socket_pair(fds);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    snprintf(options, sizeof options, row->options, fds[1], fds[1]);
    make(&r, options);
    if (row->upper[0]) make(&r, row->upper);
    memset(&rec, 0, sizeof rec);
    REQUIRE(chr_fe_init(&rec.fe, chr_find(r.ctx, "s"), NULL) == 0);
    CHECK_INT(chr_fe_set_buffers(&rec.fe, 1000, 700), 0);
    chr_fe_set_handlers(&rec.fe, &pull_handlers, &rec);
    settle(&r);
    (void)hear(fds[0]); /* telnet's first words */
    fault_arm(FAULT_poll, 0, 0, 0);
    while ((in < MUCH || heard < MUCH) && real_ms() < end) {
        for (; said < MUCH; said++) {
            byte = (char)(said % 97 + ' ');
            if (write(fds[0], &byte, 1) != 1) break;
        }
        for (i = 0; i < 300 && (chr_fe_read(&rec.fe, &byte, 1)) == 1; i++, in++)
            if (byte != (char)(in % 97 + ' ')) REQUIRE(!"the byte that was sent");
        for (i = 0; i < 300 && out < MUCH && chr_fe_writable(&rec.fe) > 0; i++, out++) {
            byte = (char)(out % 89 + ' ');
            if (!CHECK_INT(chr_fe_write(&rec.fe, &byte, 1), 1)) break;
        }
        chr_loop_step(r.ctx, 0);
        while (heard < MUCH && (i = (size_t)read(fds[0], echo, sizeof echo)) <= sizeof echo && i > 0) {
            size_t k;
            for (k = 0; k < i; k++, heard++)
                if (echo[k] != (char)(heard % 89 + ' ')) REQUIRE(!"the byte that was written");
        }
    }
    CHECK_INT(in, MUCH);
    CHECK_INT(heard, MUCH);
    {
        long calls = fault_plan.counts[FAULT_send] + fault_plan.counts[FAULT_sendmsg] + fault_plan.counts[FAULT_write];
        long reads = fault_plan.counts[FAULT_recv] + fault_plan.counts[FAULT_recvmsg] + fault_plan.counts[FAULT_read];
        if (!CHECK(calls < MUCH / 100)) NOTE("%ld calls", calls);
        if (!CHECK(reads < MUCH / 100)) NOTE("%ld calls", reads);
    }
    close(fds[0]);
    settle(&r);
    CHECK_STR(pull(&rec.fe), "!");
    settle(&r);
    CHECK(!rec.open);
    detach(&rec);
    rig_close(&r);
}

TEST_FAMILY(both_ways)
{
    size_t i;
    for (i = 0; i < sizeof reals / sizeof *reals; i++) {
        char name[60];
        snprintf(name, sizeof name, "both_ways_%s", reals[i].name);
        test_add_case(name, run_both_ways, &reals[i], TEST_SECONDS);
    }
}

/* What was written before the end arrives, whatever ends it, and though the peer is slow. */
static void run_end(const void *arg)
{
    const char *how = (const char *)arg;
    char        options[200], block[5000];
    rig         r;
    recorder    rec;
    int         far, n;
    size_t      taken = 0, got = 0;
    ssize_t     k;
    rig_open(&r);
    far = pair_options(options, "");
    memset(&rec, 0, sizeof rec);
    REQUIRE(chr_fe_init(&rec.fe, make(&r, options), NULL) == 0);
    chr_fe_set_handlers(&rec.fe, &pull_with_change, &rec);
    CHECK_INT(chr_fe_set_buffers(&rec.fe, 100, 3000), 0);
    memset(block, 'x', sizeof block);
    while ((n = chr_fe_write(&rec.fe, block, sizeof block)) > 0) taken += (size_t)n;
    CHECK_INT(chr_fe_writable(&rec.fe), 0);
    if (strcmp(how, "disconnect") == 0) CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
    if (strcmp(how, "shutdown") == 0) {
        CHECK_INT(chr_fe_shutdown(&rec.fe), 0);
        CHECK_INT(chr_fe_write(&rec.fe, "late", 4), CHR_ERR_DISCONNECTED);
    }
    if (strcmp(how, "remove") == 0) {
        detach(&rec);
        CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    }
    if (strcmp(how, "flush") == 0) {
        CHECK_INT(chr_fe_flush(&rec.fe, 10), CHR_ERR_TIMEOUT);
    }
    if (strcmp(how, "free") == 0) {
        pid_t child = fork();
        if (child == 0) {
            while ((k = read(far, block, sizeof block)) > 0) got += (size_t)k;
            _exit(got == taken ? 0 : 1);
        }
        close(far);
        chr_context_free(r.ctx);
        CHECK(waitpid(child, &n, 0) == child);
        CHECK_INT(n, 0);
        CHECK_INT(r.live, 0);
        return;
    }
    if (strcmp(how, "flush") == 0) {
        CHECK_INT(drain(&r, far, taken), taken);
        CHECK_INT(chr_fe_flush(&rec.fe, 1000), 0);
        shutdown(far, SHUT_WR);
    } else {
        fcntl(far, F_SETFL, O_NONBLOCK);
        while (got < taken && (k = read(far, block, sizeof block)) != 0) {
            if (k > 0) got += (size_t)k;
            chr_loop_step(r.ctx, 0);
        }
        CHECK_INT(got, taken);
    }
    chr_fe_deinit(&rec.fe);
    close(far);
    settle(&r);
    rig_close(&r);
}

TEST_FAMILY(ends)
{
    static const char *const hows[] = { "disconnect", "shutdown", "remove", "flush", "free" };
    size_t                   i;
    for (i = 0; i < sizeof hows / sizeof *hows; i++) {
        char name[60];
        snprintf(name, sizeof name, "a_slow_peer_gets_all_before_%s", hows[i]);
        test_add_case(name, run_end, hows[i], TEST_SECONDS);
    }
}

TEST(half_close_comes_in_its_place)
{
    char     options[200];
    rig      r;
    recorder rec;
    int      far;
    rig_open_virtual(&r);
    far = pair_options(options, ",half-close=on");
    memset(&rec, 0, sizeof rec);
    REQUIRE(chr_fe_init(&rec.fe, make(&r, options), NULL) == 0);
    CHECK_INT(chr_fe_set_buffers(&rec.fe, 4, 100), 0);
    chr_fe_set_handlers(&rec.fe, &pull_handlers, &rec);
    say(far, "abcdef");
    shutdown(far, SHUT_WR);
    settle(&r);
    CHECK_STR(pull(&rec.fe), "abcd.");
    CHECK_INT(chr_fe_eof(&rec.fe), 0);
    settle(&r);
    CHECK_STR(pull(&rec.fe), "ef!");
    CHECK_STR(rec.events, "ORR");
    settle(&r);
    CHECK_STR(rec.events, "ORRE");
    CHECK_INT(chr_fe_eof(&rec.fe), 1);
    put(&rec.fe, "still");
    settle(&r);
    CHECK_STR(hear(far), "still");
    detach(&rec);
    close(far);
    rig_close(&r);
}

TEST(the_next_peer_waits_behind_the_last_ones_bytes)
{
    const char *path = scratch("s");
    char        options[200];
    rig         r;
    recorder    rec;
    int         far, i;
    rig_open(&r);
    snprintf(options, sizeof options, "socket,id=s,path=%s,server=on,wait=off", path);
    memset(&rec, 0, sizeof rec);
    REQUIRE(chr_fe_init(&rec.fe, make(&r, options), NULL) == 0);
    CHECK_INT(chr_fe_set_buffers(&rec.fe, 100, 100), 0);
    chr_fe_set_handlers(&rec.fe, &pull_handlers, &rec);
    CHECK_STR(pull(&rec.fe), "!");
    for (i = 0; i < 3; i++) {
        far = unix_connect(path);
        say(far, "abc");
        settle(&r);
        close(far);
        settle(&r);
    }
    CHECK_STR(rec.events, "OR");
    CHECK_STR(pull(&rec.fe), "abc!");
    settle(&r);
    CHECK_STR(rec.events, "ORCOR");
    CHECK_STR(pull(&rec.fe), "abc!");
    settle(&r);
    CHECK_STR(pull(&rec.fe), "abc!");
    settle(&r);
    CHECK_STR(pull(&rec.fe), "!");
    CHECK_STR(rec.events, "ORCORCORC");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(read_all_takes_what_was_read_ahead_first)
{
    desk d;
    char text[10] = "";
    desk_open(&d, &pull_handlers, 4, 10);
    say(d.far, "abcdefgh");
    settle(&d.r);
    CHECK_INT(chr_fe_readable(&d.rec.fe), 4);
    CHECK_INT(chr_fe_read_all(&d.rec.fe, text, 6, 1000), 6);
    CHECK_STR(text, "abcdef");
    settle(&d.r);
    CHECK_STR(pull(&d.rec.fe), "gh.");
    desk_close(&d);
}

TEST(descriptors_end_the_reading_ahead)
{
    static const chr_handlers pulled = { NULL, NULL, recorder_event, NULL };
    struct iovec   part = { (void *)(uintptr_t)"two", 3 };
    union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int))]; } control;
    struct msghdr  message;
    struct cmsghdr *header;
    int            got[4], null = open("/dev/null", O_RDONLY);
    desk           d;
    char           c[8];
    desk_open(&d, &pulled, 100, 100);
    memset(&message, 0, sizeof message);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &null, sizeof(int));
    CHECK_INT(sendmsg(d.far, &message, 0), 3);
    settle(&d.r);
    CHECK_INT(chr_fe_readable(&d.rec.fe), 3);
    CHECK_INT(sendmsg(d.far, &message, 0), 3);
    settle(&d.r);
    CHECK_INT(chr_fe_readable(&d.rec.fe), 3); /* not before all of that is taken */
    CHECK_HAS(d.r.log, "descriptors (SCM_RIGHTS)");
    CHECK_INT(chr_fe_get_msgfds(&d.rec.fe, got, 4), 1);
    close(got[0]);
    CHECK_INT(chr_fe_read(&d.rec.fe, c, 2), 2);
    settle(&d.r);
    CHECK_INT(chr_fe_readable(&d.rec.fe), 1);
    CHECK_INT(chr_fe_get_msgfds(&d.rec.fe, got, 4), 0);
    CHECK_INT(chr_fe_read(&d.rec.fe, c, 2), 1);
    settle(&d.r);
    CHECK_INT(chr_fe_readable(&d.rec.fe), 3);
    CHECK_INT(chr_fe_get_msgfds(&d.rec.fe, got, 4), 1);
    close(got[0]);
    CHECK_INT(chr_fe_set_buffers(&d.rec.fe, 50, 50), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_set_buffers(&d.rec.fe, 0, 50), 0);
    /* and out: with the first byte of the next write */
    put(&d.rec.fe, "before");
    CHECK_INT(chr_fe_set_msgfds(&d.rec.fe, &null, 1), 0);
    CHECK_STR(hear(d.far), "before");
    put(&d.rec.fe, "with");
    settle(&d.r);
    message.msg_controllen = sizeof control.bytes;
    part.iov_base = c;
    part.iov_len = sizeof c;
    CHECK_INT(recvmsg(d.far, &message, 0), 4);
    CHECK(message.msg_controllen > 0);
    if (message.msg_controllen > 0) {
        memcpy(got, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
        close(got[0]);
    }
    desk_close(&d);
    close(null);
}

/* The same for a frontend with can_read: from then on no more is read than it accepts. */
TEST(descriptors_end_the_reading_ahead_of_a_reader)
{
    struct iovec   part = { (void *)(uintptr_t)"two", 3 };
    union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int))]; } control;
    struct msghdr  message;
    struct cmsghdr *header;
    int            got[4], i, null = open("/dev/null", O_RDONLY);
    desk           d;
    desk_open(&d, &recorder_handlers, 100, 0);
    for (i = 0; i < 3; i++) {
        say(d.far, "a");
        settle(&d.r);
    }
    CHECK_INPUT(&d.rec, "aaa");
    memset(&message, 0, sizeof message);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &null, sizeof(int));
    CHECK_INT(sendmsg(d.far, &message, 0), 3);
    settle(&d.r);
    CHECK_INPUT(&d.rec, "aaatwo");
    CHECK_INT(chr_fe_get_msgfds(&d.rec.fe, got, 4), 1);
    close(got[0]);
    give_room(&d.rec, 2);
    settle(&d.r);
    CHECK_HAS(d.r.log, "descriptors (SCM_RIGHTS)");
    say(d.far, "more than that");
    settle(&d.r);
    CHECK_INPUT(&d.rec, "aaatwomo");
    CHECK_INT(chr_fe_readable(&d.rec.fe), 0); /* the rest is with the system still */
    give_room(&d.rec, 100);
    settle(&d.r);
    CHECK_INPUT(&d.rec, "aaatwomore than that");
    desk_close(&d);
    close(null);
}

/* Each frontend of a mux has its own; what they write keeps its order. */
TEST(several_on_a_mux)
{
    char     options[200];
    rig      r;
    recorder a, b;
    int      far;
    rig_open_virtual(&r);
    far = pair_options(options, ",mux=on");
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    REQUIRE(chr_fe_init(&a.fe, make(&r, options), NULL) == 0);
    REQUIRE(chr_fe_init(&b.fe, chr_find(r.ctx, "s"), NULL) == 0);
    chr_fe_set_handlers(&a.fe, &pull_handlers, &a);
    CHECK_INT(chr_fe_set_buffers(&a.fe, 100, 100), 0);
    chr_fe_set_handlers(&b.fe, &pull_handlers, &b);
    CHECK_INT(chr_fe_set_buffers(&b.fe, 100, 100), 0);
    settle(&r);
    say(far, "to b\1cto a\1cto b");
    settle(&r);
    CHECK_STR(pull(&b.fe), "to bto b.");
    CHECK_STR(pull(&a.fe), "to a.");
    put(&a.fe, "1");
    put(&b.fe, "2");
    put(&a.fe, "3");
    put(&a.fe, "4");
    put(&b.fe, "5");
    settle(&r);
    CHECK_STR(hear(far), "12345");
    say(far, "rest");
    settle(&r);
    detach(&b);
    say(far, "more");
    settle(&r);
    CHECK_STR(pull(&a.fe), "more.");
    detach(&a);
    close(far);
    rig_close(&r);
}

TEST(a_frontend_that_only_pulls_has_the_focus)
{
    char         options[200];
    rig          r;
    chr_frontend fe;
    int          far;
    rig_open_virtual(&r);
    far = pair_options(options, ",mux=on");
    memset(&fe, 0, sizeof fe);
    REQUIRE(chr_fe_init(&fe, make(&r, options), NULL) == 0);
    CHECK_INT(chr_fe_set_buffers(&fe, 100, 100), 0);
    say(far, "abc");
    settle(&r);
    CHECK_STR(pull(&fe), "abc.");
    put(&fe, "x");
    chr_fe_deinit(&fe);
    CHECK_STR(hear(far), "x");
    close(far);
    rig_close(&r);
}

/* ---- recorded and replayed --------------------------------------------------------------------------------------- */

/* A device that echoes what it pulls; everything it does is written down. */
static void run_device(rig *r, chr_frontend *fe, transcript *t, int far, int ticks)
{
    int  i, n, k;
    char bytes[8], note[40];
    for (i = 0; i < ticks; i++) {
        if (far >= 0 && i < 40 && i % 3 == 0) {
            snprintf(note, sizeof note, "line %d.", i);
            say(far, note);
        }
        if (far >= 0 && i == 40) shutdown(far, SHUT_RDWR);
        chr_loop_step(r->ctx, 0);
        n = chr_fe_read(fe, bytes, 5);
        k = n > 0 ? chr_fe_write(fe, bytes, (size_t)n) : chr_fe_writable(fe);
        snprintf(note, sizeof note, "[%d %d %d]", n, k, chr_fe_readable(fe));
        write_down(t, note, strlen(note));
        r->now += 1000;
    }
}

TEST(a_replay_is_the_same)
{
    static const chr_handlers pulled = { NULL, NULL, script_event, NULL };
    static transcript first, second;
    const char       *path = scratch("recording");
    char              options[200];
    rig               r;
    chr_frontend      fe;
    int               far, round;
    for (round = 0; round < 2; round++) {
        transcript *t = round ? &second : &first;
        rig_open_virtual(&r);
        if (round) REQUIRE(chr_replay_open(r.ctx, path, NULL) == 0);
        else REQUIRE(chr_record_start(r.ctx, path, NULL) == 0);
        if (round) snprintf(options, sizeof options, "null,id=s"), far = -1;
        else far = pair_options(options, "");
        memset(&fe, 0, sizeof fe);
        REQUIRE(chr_fe_init(&fe, make(&r, options), NULL) == 0);
        CHECK_INT(chr_fe_set_buffers(&fe, 20, 30), 0);
        chr_fe_set_handlers(&fe, &pulled, t);
        run_device(&r, &fe, t, far, 80);
        chr_fe_deinit(&fe);
        CHECK_STR(r.log, "");
        if (far >= 0) close(far);
        rig_close(&r);
    }
    CHECK_STR(second.text, first.text);
    CHECK_HAS(first.text, "C");
    scratch_clean();
}

/* ---- foreign loops ----------------------------------------------------------------------------------------------- */

static int timeouts_changed;

static void hook_watch(void *opaque, chr_watch *watch, int fd, int events)
{
    (void)opaque, (void)watch, (void)fd, (void)events;
}

static void hook_timeout(void *opaque)
{
    (void)opaque;
    timeouts_changed++;
}

TEST(with_hooks_the_timeout_says_that_output_waits)
{
    chr_config   config;
    rig          r;
    char         options[200];
    chr_frontend fe;
    int          far;
    config = rig_config(&r);
    config.watch_changed = hook_watch;
    config.timeout_changed = hook_timeout;
    rig_init(&r);
    r.ctx = chr_context_new(&config);
    REQUIRE(r.ctx != NULL);
    far = pair_options(options, "");
    memset(&fe, 0, sizeof fe);
    REQUIRE(chr_fe_init(&fe, make(&r, options), NULL) == 0);
    CHECK_INT(chr_fe_set_buffers(&fe, 20, 30), 0);
    while (chr_loop_timeout(r.ctx) == 0) chr_loop_dispatch(r.ctx, NULL, 0);
    timeouts_changed = 0;
    put(&fe, "abc");
    CHECK(timeouts_changed > 0);
    CHECK_INT(chr_loop_timeout(r.ctx), 0);
    chr_loop_dispatch(r.ctx, NULL, 0);
    CHECK_STR(hear(far), "abc");
    CHECK(chr_loop_timeout(r.ctx) != 0);
    chr_fe_deinit(&fe);
    close(far);
    rig_close(&r);
}

TEST(prepare_sends)
{
    desk     d;
    chr_poll polls[8];
    int      timeout;
    desk_open(&d, &pull_handlers, 10, 10);
    put(&d.rec.fe, "abc");
    chr_loop_prepare(d.r.ctx, polls, 8, &timeout);
    CHECK_STR(hear(d.far), "abc");
    chr_loop_dispatch(d.r.ctx, polls, 0);
    desk_close(&d);
}

/* CLOSED was queued behind bytes that were not read. */
TEST(the_context_tells_what_waited)
{
    desk d;
    desk_open(&d, &pull_handlers, 10, 10);
    say(d.far, "abc");
    settle(&d.r);
    shutdown(d.far, SHUT_RDWR);
    settle(&d.r);
    CHECK_STR(d.rec.events, "OR");
    chr_context_free(d.r.ctx);
    CHECK_STR(d.rec.events, "ORC");
    CHECK_INT(d.r.live, 0);
    close(d.far);
}

/* Without an output buffer the backend reports room, and a watch that was removed is not called. */
TEST(a_watch_without_an_output_buffer)
{
    bench b;
    bench_open(&b, &pull_handlers, 10, 0);
    b.w->room = 0;
    CHECK_INT(chr_fe_write(&b.rec.fe, "x", 1), CHR_ERR_WOULD_BLOCK);
    chr_fe_add_watch(&b.rec.fe, recorder_writable, &b.rec);
    settle(&b.r);
    CHECK_INT(b.rec.writable, 0);
    chr_fe_add_watch(&b.rec.fe, NULL, NULL);
    b.w->room = -1;
    chr_be_writable(&b.w->dev);
    settle(&b.r);
    CHECK_INT(b.rec.writable, 0);
    b.w->room = 0;
    chr_fe_add_watch(&b.rec.fe, recorder_writable, &b.rec);
    settle(&b.r);
    CHECK_INT(chr_fe_set_buffers(&b.rec.fe, 0, 0), 0); /* it goes on without buffers */
    b.w->room = -1;
    settle(&b.r);
    chr_be_writable(&b.w->dev);
    CHECK_INT(b.rec.writable, 1);
    bench_close(&b);
}

/* ---- what a wait for room meets ---------------------------------------------------------------------------------- */

/* Who waited for room before there were buffers has it now. */
TEST(buffers_for_a_frontend_that_waits_for_room)
{
    bench b;
    bench_open(&b, NULL, 0, 0);
    b.w->room = 0;
    chr_fe_add_watch(&b.rec.fe, recorder_writable, &b.rec);
    settle(&b.r);
    CHECK_INT(b.rec.writable, 0);
    CHECK_INT(chr_fe_set_buffers(&b.rec.fe, 0, 10), 0);
    settle(&b.r);
    CHECK_INT(b.rec.writable, 1);
    settle(&b.r);
    CHECK_INT(b.rec.writable, 1);
    bench_close(&b);
}

static int taken_away;

static void writable_takes_buffers_away(void *opaque)
{
    taken_away++;
    CHECK_INT(chr_fe_set_buffers((chr_frontend *)opaque, 0, 0), 0);
}

static void writable_goes(void *opaque)
{
    taken_away++;
    chr_fe_deinit((chr_frontend *)opaque);
}

/* Its handler takes the buffers away, or the frontend. */
TEST(room_whose_handler_takes_the_buffers_away)
{
    bench b;
    int   goes;
    for (goes = 0; goes < 2; goes++) {
        taken_away = 0;
        bench_open(&b, NULL, 0, 10);
        chr_fe_add_watch(&b.rec.fe, goes ? writable_goes : writable_takes_buffers_away, &b.rec.fe);
        settle(&b.r);
        CHECK_INT(taken_away, 1);
        CHECK(goes ? !b.rec.fe.dev : b.rec.fe.dev != NULL);
        if (!goes) CHECK_INT(chr_fe_write(&b.rec.fe, "direct", 6), 6);
        CHECK_STR(b.w->sent, goes ? "" : "direct");
        bench_close(&b);
    }
}

/* A read of all that goes past an event takes no more than was asked for. */
TEST(a_read_of_all_past_an_event)
{
    bench b;
    char  text[13] = "............";
    bench_open(&b, &pull_handlers, 100, 0);
    send_in(&b, "ab");
    chr_be_event(&b.w->dev, CHR_EVENT_BREAK);
    send_in(&b, "cdefgh");
    CHECK_INT(chr_fe_read_all(&b.rec.fe, text, 4, 0), 4);
    CHECK_STR(text, "abcd........");
    settle(&b.r);
    CHECK_STR(pull(&b.rec.fe), "efgh.");
    bench_close(&b);
}
