/*
 * hub: several chardevs behind one frontend. The members are a backend of the test, so that each can be as slow as the
 * test needs.
 */
#include "chardev.h"
#define RIG_WITHOUT_SOCKETS
#include "rig.h"

/* ---- the member: takes so much, keeps what it got, says what it is told to --------------------------------------- */

typedef struct port {
    chr_dev  dev;
    int      room;          /* writes use it up */
    char    *got;           /* since it was opened last */
    size_t   length;
    long     while_closed;  /* bytes that were offered when nobody was there */
    int      last_ioctl, ioctl_answer, frontend_open, fails, opens_at_write;
    chr_idle act;
    int      event;         /* for act: an event, -1 = input, -2 = tell writable */
    char     input[64];
    size_t   input_length;
} port;

static int port_open(chr_dev *dev, chr_error *err)
{
    (void)err;
    ((port *)dev)->got = (char *)malloc(1 << 20);
    return 0;
}

static void port_close(chr_dev *dev)
{
    chr_idle_stop(&((port *)dev)->act);
    free(((port *)dev)->got);
}

static int port_write(chr_dev *dev, const void *buf, size_t len)
{
    port  *p = (port *)dev;
    size_t n = len < (size_t)p->room ? len : (size_t)p->room;
    CHECK(len > 0);
    if (p->opens_at_write && !dev->be_open) chr_be_event(dev, CHR_EVENT_OPENED); /* as a pty does: the event comes later */
    if (!dev->be_open) {
        p->while_closed += (long)len;
        return CHR_ERR_DISCONNECTED;
    }
    if (p->fails) return CHR_ERR_IO;
    if (n == 0) return CHR_ERR_WOULD_BLOCK;
    REQUIRE(p->length + n <= 1 << 20);
    memcpy(p->got + p->length, buf, n);
    p->length += n;
    p->room -= (int)n;
    return (int)n;
}

static void port_act(void *opaque)
{
    port *p = (port *)opaque;
    if (p->event >= 0) {
        chr_be_event(&p->dev, p->event);
    } else if (p->event == -2) {
        if (p->room > 0 && chr_be_wants_writable(&p->dev)) chr_be_writable(&p->dev);
    } else {
        int can = chr_be_can_write(&p->dev);
        if (can > 0 && p->input_length > 0) {
            size_t n = p->input_length < (size_t)can ? p->input_length : (size_t)can;
            chr_be_write(&p->dev, p->input, n);
            memmove(p->input, p->input + n, p->input_length - n);
            p->input_length -= n;
        }
    }
}

static void port_update(chr_dev *dev)
{
    port *p = (port *)dev;
    if (dev->be_open && p->room > 0 && chr_be_wants_writable(dev)) {
        p->event = -2;
        chr_idle_start(dev->ctx, &p->act, port_act, p);
    }
}

static int port_ioctl(chr_dev *dev, int command, void *arg)
{
    port *p = (port *)dev;
    p->last_ioctl = command;
    if (p->ioctl_answer >= 0) *(int *)arg = p->ioctl_answer;
    return p->ioctl_answer >= 0 ? 0 : CHR_ERR_NOT_SUPPORTED;
}

static void port_set_open(chr_dev *dev, int is_open)
{
    ((port *)dev)->frontend_open = is_open;
}

CHR_TABLE(chr_io, port_io,
    CHR_SET(write,  port_write)
    CHR_SET(update, port_update));
CHR_TABLE(chr_backend, port_kind,
    CHR_SET(name,         "port")
    CHR_SET(help,         "the test is the far side")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(port))
    CHR_SET(open,         port_open)
    CHR_SET(close,        port_close)
    CHR_SET(io,           &port_io)
    CHR_SET(ioctl,        port_ioctl)
    CHR_SET(set_open,     port_set_open));

/* From the loop, as a backend does. */
static void act(rig *r, port *p, int event)
{
    p->event = event;
    chr_idle_start(r->ctx, &p->act, port_act, p);
    settle(r);
}

static void let_in(rig *r, port *p, const char *text, size_t len)
{
    REQUIRE(p->input_length + len <= sizeof p->input);
    memcpy(p->input + p->input_length, text, len);
    p->input_length += len;
    act(r, p, -1);
}

static void give(rig *r, port *p, int room)
{
    p->room = room;
    act(r, p, -2);
}

enum { PORTS = 4 };

static port *ports[PORTS];

static const char *port_options = ""; /* of each */

static chr_dev *make_hub(rig *r, int count)
{
    char options[200] = "hub,id=h";
    int  i;
    rig_open_virtual(r);
    REQUIRE(chr_backend_register(r->ctx, &port_kind, NULL) == 0);
    for (i = 0; i < count; i++) {
        char id[40];
        snprintf(id, sizeof id, "port,id=p%d%s", i, port_options);
        ports[i] = (port *)make(r, id);
        ports[i]->ioctl_answer = -1;
        snprintf(options + strlen(options), sizeof options - strlen(options), ",chardevs.%d=p%d", i, i);
    }
    return make(r, options);
}

#define CHECK_GOT(p, text) CHECK_MEM((p)->got, (p)->length, (text), strlen(text))

/* ---- one thing at a time ----------------------------------------------------------------------------------------- */

TEST(output_goes_to_all_that_are_open)
{
    chr_info info;
    recorder rec;
    rig      r;
    attach(&rec, make_hub(&r, 3));
    CHECK_INT(chr_fe_write(&rec.fe, "lost", 4), CHR_ERR_DISCONNECTED);
    ports[0]->room = ports[1]->room = ports[2]->room = 1000;
    act(&r, ports[0], CHR_EVENT_OPENED);
    CHECK_INT(chr_fe_write(&rec.fe, "one", 3), 3);
    act(&r, ports[2], CHR_EVENT_OPENED);
    CHECK_INT(chr_fe_write(&rec.fe, "both", 4), 4);
    CHECK_GOT(ports[0], "oneboth");
    CHECK_GOT(ports[1], "");
    CHECK_GOT(ports[2], "both");
    CHECK_INT(ports[1]->while_closed, 11); /* it may log or remember what it could not send */
    chr_query(rec.fe.dev, &info);
    CHECK_INT(info.bytes_out, 7);
    CHECK_INT(info.bytes_dropped, 4);
    detach(&rec);
    rig_close(&r);
}

TEST(first_opened_and_last_closed)
{
    recorder rec;
    rig      r;
    attach(&rec, make_hub(&r, 3));
    settle(&r);
    CHECK_STR(rec.events, "");
    act(&r, ports[1], CHR_EVENT_OPENED);
    CHECK_STR(rec.events, "O");
    act(&r, ports[0], CHR_EVENT_OPENED);
    act(&r, ports[1], CHR_EVENT_CLOSED);
    act(&r, ports[1], CHR_EVENT_OPENED);
    act(&r, ports[0], CHR_EVENT_BREAK);
    CHECK_STR(rec.events, "OB");
    act(&r, ports[0], CHR_EVENT_CLOSED);
    CHECK_STR(rec.events, "OB");
    act(&r, ports[1], CHR_EVENT_CLOSED);
    CHECK_STR(rec.events, "OBC");
    act(&r, ports[2], CHR_EVENT_OPENED);
    CHECK_STR(rec.events, "OBCO");
    detach(&rec);
    rig_close(&r);
}

TEST(a_slow_member_makes_the_write_partial)
{
    recorder rec;
    rig      r;
    attach(&rec, make_hub(&r, 3));
    act(&r, ports[0], CHR_EVENT_OPENED);
    act(&r, ports[1], CHR_EVENT_OPENED);
    ports[0]->room = 1000;
    ports[1]->room = 4;
    CHECK_INT(chr_fe_write(&rec.fe, "abcdefgh", 8), 4);
    CHECK_GOT(ports[1], "abcd");
    CHECK_INT(chr_fe_write(&rec.fe, "efgh", 4), CHR_ERR_WOULD_BLOCK);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    settle(&r);
    CHECK_INT(rec.writable, 0);
    give(&r, ports[1], 1000);
    CHECK_INT(rec.writable, 1);
    CHECK_INT(chr_fe_write(&rec.fe, "efghij", 6), 6);
    CHECK_GOT(ports[0], "abcdefghij");
    CHECK_GOT(ports[1], "abcdefghij");
    detach(&rec);
    rig_close(&r);
}

TEST(a_slow_member_that_goes_holds_nobody_up)
{
    recorder rec;
    rig      r;
    attach(&rec, make_hub(&r, 2));
    act(&r, ports[0], CHR_EVENT_OPENED);
    act(&r, ports[1], CHR_EVENT_OPENED);
    ports[0]->room = 1000;
    CHECK_INT(chr_fe_write(&rec.fe, "abc", 3), CHR_ERR_WOULD_BLOCK);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    settle(&r);
    CHECK_INT(rec.writable, 0);
    act(&r, ports[1], CHR_EVENT_CLOSED);
    CHECK_INT(rec.writable, 1);
    CHECK_INT(chr_fe_write(&rec.fe, "abcd", 4), 4);
    CHECK_GOT(ports[0], "abcd");
    detach(&rec);
    rig_close(&r);
}

TEST(a_member_that_opens_when_it_is_written_to)
{
    recorder rec;
    rig      r;
    attach(&rec, make_hub(&r, 2));
    ports[0]->opens_at_write = 1;
    ports[0]->room = 4;
    CHECK_INT(chr_fe_write(&rec.fe, "abcdef", 6), 4);
    ports[0]->room = 100;
    CHECK_INT(chr_fe_write(&rec.fe, "ef", 2), 2);
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_write(&rec.fe, "gh", 2), 2);
    CHECK_GOT(ports[0], "abcdefgh");
    detach(&rec);
    rig_close(&r);
}

TEST(its_event_comes_when_it_is_ahead_already)
{
    recorder rec;
    rig      r;
    attach(&rec, make_hub(&r, 2));
    ports[0]->opens_at_write = 1;
    ports[0]->room = 100;
    act(&r, ports[1], CHR_EVENT_OPENED);
    ports[1]->room = 2;
    CHECK_INT(chr_fe_write(&rec.fe, "abcd", 4), 2);
    CHECK_INT(chr_fe_write(&rec.fe, "cd", 2), CHR_ERR_WOULD_BLOCK);
    settle(&r);
    give(&r, ports[1], 100);
    CHECK_INT(chr_fe_write(&rec.fe, "cd", 2), 2);
    CHECK_GOT(ports[0], "abcd");
    CHECK_GOT(ports[1], "abcd");
    CHECK_STR(rec.events, "O");
    detach(&rec);
    rig_close(&r);
}

TEST(a_failing_member_holds_nobody_up)
{
    recorder rec;
    rig      r;
    attach(&rec, make_hub(&r, 2));
    act(&r, ports[0], CHR_EVENT_OPENED);
    act(&r, ports[1], CHR_EVENT_OPENED);
    ports[0]->room = 3;
    ports[1]->fails = 1;
    CHECK_INT(chr_fe_write(&rec.fe, "abcde", 5), 3);
    ports[0]->room = 2;
    CHECK_INT(chr_fe_write(&rec.fe, "de", 2), 2);
    CHECK_GOT(ports[0], "abcde");
    ports[0]->fails = 1;
    CHECK_INT(chr_fe_write(&rec.fe, "f", 1), CHR_ERR_DISCONNECTED);
    detach(&rec);
    rig_close(&r);
}

TEST(input_from_any_member)
{
    recorder rec;
    rig      r;
    attach_with_room(&rec, make_hub(&r, 2), 5);
    act(&r, ports[0], CHR_EVENT_OPENED);
    act(&r, ports[1], CHR_EVENT_OPENED);
    let_in(&r, ports[0], "abc", 3);
    let_in(&r, ports[1], "defg", 4);
    CHECK_INPUT(&rec, "abcde");
    give_room(&rec, 100);
    act(&r, ports[1], -1);
    CHECK_INPUT(&rec, "abcdefg");
    detach(&rec);
    rig_close(&r);
}

TEST(commands_and_the_frontends_state_go_to_all)
{
    int      value = 0;
    recorder rec;
    rig      r;
    chr_dev *dev = make_hub(&r, 3);
    CHECK_INT(ports[1]->frontend_open, 0);
    attach(&rec, dev);
    CHECK_INT(ports[0]->frontend_open && ports[1]->frontend_open && ports[2]->frontend_open, 1);
    CHECK_INT(chr_fe_ioctl(&rec.fe, 77, &value), CHR_ERR_NOT_SUPPORTED);
    ports[1]->ioctl_answer = 11;
    ports[2]->ioctl_answer = 22;
    CHECK_INT(chr_fe_ioctl(&rec.fe, 78, &value), 0);
    CHECK_INT(value, 11); /* the first that knows */
    CHECK_INT(ports[0]->last_ioctl, 78);
    CHECK_INT(ports[2]->last_ioctl, 78);
    detach(&rec);
    CHECK_INT(ports[2]->frontend_open, 0);
    rig_close(&r);
}

TEST(a_member_is_swapped)
{
    chr_error err;
    recorder  rec;
    rig       r;
    attach(&rec, make_hub(&r, 2));
    act(&r, ports[0], CHR_EVENT_OPENED);
    act(&r, ports[1], CHR_EVENT_OPENED);
    ports[0]->room = 2;
    ports[1]->room = 100;
    CHECK_INT(chr_fe_write(&rec.fe, "abcd", 4), 2);
    CHECK_INT(chr_change(r.ctx, "p0", "ringbuf,size=64", &err), 0);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_write(&rec.fe, "cd", 2), 2);
    CHECK_INT(chr_ringbuf_count(chr_find(r.ctx, "p0")), 2);
    CHECK_GOT(ports[1], "abcd");
    CHECK_INT(chr_change(r.ctx, "p1", "null", &err), 0);
    CHECK_STR(rec.events, "O"); /* the ring buffer is open */
    CHECK_INT(chr_change(r.ctx, "p0", "null", &err), 0);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

TEST(refusals)
{
    static const struct { const char *options; int code; const char *error; } table[] = {
        { "hub,id=x", CHR_ERR_INVALID, "hub: needs chardevs.0=" },
        { "hub,id=x,chardevs=nobody", CHR_ERR_NOT_FOUND, "chardevs.0=nobody: there is no chardev" },
        { "hub,id=x,chardevs.1=a", CHR_ERR_INVALID, "there is no chardevs.0" },
        { "hub,id=x,chardevs.0=a,chardevs.1=nobody", CHR_ERR_NOT_FOUND, "chardevs.1=nobody: there is no chardev" },
        { "hub,id=x,chardevs.0=a,chardevs.1=a", CHR_ERR_BUSY, "'a' has a frontend" },
        { "hub,id=x,chardevs.0=a,chardevs.1=m", CHR_ERR_NOT_SUPPORTED, "chardevs.1=m: a mux can't be stacked" },
        { "hub,id=x,chardevs.0=h", CHR_ERR_NOT_SUPPORTED, "chardevs.0=h: a hub can't be stacked" },
        { "mux,id=x,chardev=h", CHR_ERR_NOT_SUPPORTED, "a hub can't be shared" },
        { "hub,id=x,chardevs.0=a,mux=on", CHR_ERR_NOT_SUPPORTED, "a hub can't be shared" },
    };
    size_t    i;
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open_virtual(&r);
    make(&r, "ringbuf,id=a");
    make(&r, "ringbuf,id=b");
    make(&r, "null,id=m,mux=on");
    make(&r, "hub,id=h,chardevs.0=b");
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        memset(&err, 0, sizeof err);
        CHECK(chr_new(r.ctx, table[i].options, &err) == NULL);
        if (!CHECK_INT(err.code, table[i].code) || !CHECK_HAS(err.text, table[i].error)) NOTE("for %s", table[i].options);
        CHECK(chr_find(r.ctx, "x") == NULL && chr_find(r.ctx, "x-base") == NULL);
        attach(&rec, chr_find(r.ctx, "a")); /* let go of again */
        detach(&rec);
    }
    CHECK_INT(chr_remove(r.ctx, "b", &err), CHR_ERR_BUSY);
    CHECK_INT(chr_change(r.ctx, "h", "null", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_remove(r.ctx, "h", &err), 0);
    CHECK_INT(chr_remove(r.ctx, "b", &err), 0);
    rig_close(&r);
}

TEST(by_its_kind)
{
    static const char *const ids[] = { "a", "b", NULL };
    chr_hub_options          options;
    chr_info                 info;
    recorder                 rec;
    rig                      r;
    rig_open_virtual(&r);
    make(&r, "ringbuf,id=a");
    make(&r, "ringbuf,id=b");
    memset(&options, 0, sizeof options);
    options.chardevs = ids;
    attach(&rec, chr_open(r.ctx, "h", chr_backend_find(r.ctx, "hub"), &options, NULL));
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_write(&rec.fe, "xy", 2), 2);
    CHECK_INT(chr_ringbuf_count(chr_find(r.ctx, "a")), 2);
    CHECK_INT(chr_ringbuf_count(chr_find(r.ctx, "b")), 2);
    chr_query(rec.fe.dev, &info);
    CHECK_STR(info.filename, "hub");
    CHECK_INT(info.comes_back, 0);
    detach(&rec);
    rig_close(&r);
}

/* One member has had what the whole has not taken yet, and keeps it for its next peer; then it goes. The same bytes,
 * written once more, are in its history already. */
TEST(history_of_a_member_that_was_ahead)
{
    static const char *const heard[] = { "abcdef", "abcdefgh" };
    recorder rec;
    rig      r;
    int      again;
    for (again = 0; again < 2; again++) {
        port_options = ",history=100";
        attach(&rec, make_hub(&r, 2));
        port_options = "";
        settle(&r);
        act(&r, ports[0], CHR_EVENT_OPENED);
        act(&r, ports[1], CHR_EVENT_OPENED);
        ports[0]->room = 1000;
        ports[1]->room = 2;
        CHECK_INT(chr_fe_write(&rec.fe, "abcdef", 6), 2);
        CHECK_INT(chr_fe_write(&rec.fe, "cdef", 4), CHR_ERR_WOULD_BLOCK);
        CHECK_GOT(ports[0], "abcdef");
        act(&r, ports[0], CHR_EVENT_CLOSED);
        if (again == 0) { /* nobody is there when it is written again; */
            act(&r, ports[1], CHR_EVENT_CLOSED);
            CHECK_INT(chr_fe_write(&rec.fe, "cdef", 4), CHR_ERR_DISCONNECTED);
        } else {          /* or the other is, and the next peer too */
            ports[1]->room = 1000;
        }
        ports[0]->length = 0;
        act(&r, ports[0], CHR_EVENT_OPENED);
        CHECK_GOT(ports[0], "abcdef");
        if (again) CHECK_INT(chr_fe_write(&rec.fe, "cdefgh", 6), 6);
        CHECK_GOT(ports[0], heard[again]);
        if (again) CHECK_GOT(ports[1], heard[again]);
        detach(&rec);
        rig_close(&r);
    }
}

/* The member is closed when the rest is written, and one more piece: its next peer gets all of it, each byte once. */
TEST(history_of_a_member_that_was_ahead_and_is_closed)
{
    recorder rec;
    rig      r;
    port_options = ",history=100";
    attach(&rec, make_hub(&r, 2));
    port_options = "";
    act(&r, ports[0], CHR_EVENT_OPENED);
    act(&r, ports[1], CHR_EVENT_OPENED);
    ports[0]->room = 4;
    ports[1]->room = 2;
    CHECK_INT(chr_fe_write(&rec.fe, "abcdef", 6), 2);
    CHECK_GOT(ports[0], "abcd");
    act(&r, ports[0], CHR_EVENT_CLOSED);
    ports[0]->length = 0;
    ports[0]->room = 1000;
    ports[1]->room = 3;
    CHECK_INT(chr_fe_write(&rec.fe, "cdefgh", 6), 3);
    ports[1]->room = 1000;
    CHECK_INT(chr_fe_write(&rec.fe, "fgh", 3), 3);
    CHECK_GOT(ports[1], "abcdefgh");
    act(&r, ports[0], CHR_EVENT_OPENED);
    CHECK_GOT(ports[0], "abcdefgh");
    CHECK_INT(chr_fe_write(&rec.fe, "i", 1), 1);
    CHECK_GOT(ports[0], "abcdefghi");
    CHECK_GOT(ports[1], "abcdefghi");
    detach(&rec);
    rig_close(&r);
}

/* A slow member disconnects, or is swapped: a pending watch is called, and no other member misses bytes. */
TEST(a_slow_member_is_swapped_while_it_is_waited_for)
{
    static const char *const others[] = { "ringbuf,size=64", "null" };
    chr_error err;
    size_t    i;
    for (i = 0; i < 2; i++) {
        recorder rec;
        rig      r;
        attach(&rec, make_hub(&r, 2));
        act(&r, ports[0], CHR_EVENT_OPENED);
        act(&r, ports[1], CHR_EVENT_OPENED);
        ports[0]->room = 0;
        ports[1]->room = 100;
        CHECK_INT(chr_fe_write(&rec.fe, "abcd", 4), CHR_ERR_WOULD_BLOCK);
        chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
        settle(&r);
        CHECK_INT(rec.writable, 0);
        CHECK_INT(chr_change(r.ctx, "p0", others[i], &err), 0);
        settle(&r);
        CHECK_INT(rec.writable, 1);
        CHECK_INT(chr_fe_write(&rec.fe, "abcdef", 6), 6);
        CHECK_GOT(ports[1], "abcdef");
        if (i == 0) CHECK_INT(chr_ringbuf_count(chr_find(r.ctx, "p0")), 6);
        detach(&rec);
        rig_close(&r);
    }
}

/* comes_back is set if it is set for any member. */
TEST(comes_back_with_any_of_them)
{
    char     options[200];
    chr_info info;
    int      i, which;
    rig      r;
    for (which = -1; which < 3; which++) {
        rig_open_virtual(&r);
        for (i = 0; i < 3; i++) {
            snprintf(options, sizeof options, i == which ? "msmouse,id=m%d" : "null,id=m%d", i);
            make(&r, options);
        }
        chr_query(make(&r, "hub,id=h,chardevs.0=m0,chardevs.1=m1,chardevs.2=m2"), &info);
        CHECK_INT(info.comes_back, which >= 0);
        CHECK_STR(info.filename, "hub");
        rig_close(&r);
    }
}

/* The frontend removes its hub in an event handler. */
static void remove_hub(recorder *rec, int what)
{
    chr_context *ctx = rec->fe.dev->ctx;
    (void)what;
    rec->then = NULL;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(ctx, "h", NULL), 0);
}

TEST(removed_inside_its_handlers)
{
    int i;
    for (i = 0; i < 4; i++) {
        recorder rec;
        rig      r;
        attach(&rec, make_hub(&r, 2));
        if (i > 0) act(&r, ports[0], CHR_EVENT_OPENED);
        rec.then = remove_hub;
        if (i == 0) act(&r, ports[0], CHR_EVENT_OPENED);
        if (i == 1) act(&r, ports[0], CHR_EVENT_CLOSED);
        if (i == 2) let_in(&r, ports[0], "x", 1);
        if (i == 3) {
            CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_WOULD_BLOCK);
            chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
            give(&r, ports[0], 1);
        }
        CHECK(chr_find(r.ctx, "h") == NULL);
        free(rec.input);
        rig_close(&r);
    }
}

/* A hub with a queue of its own drains it as the slowest member allows. */
TEST(obuf_on_a_hub)
{
    recorder rec;
    rig      r;
    chr_dev *dev;
    make_hub(&r, 2);
    CHECK_INT(chr_remove(r.ctx, "h", NULL), 0);
    attach(&rec, dev = make(&r, "hub,id=h,chardevs.0=p0,chardevs.1=p1,obuf=64"));
    act(&r, ports[0], CHR_EVENT_OPENED);
    act(&r, ports[1], CHR_EVENT_OPENED);
    ports[0]->room = 100;
    CHECK_INT(chr_fe_write(&rec.fe, "0123456789", 10), 10);
    settle(&r);
    give(&r, ports[1], 4);
    CHECK_GOT(ports[1], "0123");
    give(&r, ports[1], 4);
    give(&r, ports[1], 4);
    CHECK_GOT(ports[0], "0123456789");
    CHECK_GOT(ports[1], "0123456789");
    detach(&rec);
    rig_close(&r);
}

/* ---- anything, in any order, against a model
 * --------------------------------------------------------------------------- The frontend writes an endless stream,
 * and goes on where the last write ended. The model knows for each member from which place in the stream on it has
 * been open, and so what it must have got: without a gap, at least all that the hub has taken. */

static uint32_t seed;

static int pick(int below)
{
    seed = seed * 1664525 + 1013904223;
    return (int)(seed >> 8) % below;
}

static char stream_byte(size_t at)
{
    return (char)(at * 31 + (at >> 8) * 7);
}

typedef struct model {
    rig      r;
    recorder rec;
    size_t   position;          /* of the stream: what the hub has taken */
    size_t   joined[PORTS];     /* where in it the member came; what it got follows from there */
    int      open[PORTS];
    long     while_closed[PORTS];
    int      waiting;           /* for writable */
    int      opens, closes;     /* that the frontend must have been told */
    char     last_in[PORTS];    /* the number in the last byte each member let in */
    size_t   checked;           /* of the frontend's input */
} model;

static int open_count(const model *m)
{
    int i, count = 0;
    for (i = 0; i < PORTS; i++) count += m->open[i];
    return count;
}

static int expected_answer(const model *m, size_t len)
{
    size_t taken = len;
    int    i;
    for (i = 0; i < PORTS; i++) {
        size_t ahead = m->joined[i] + ports[i]->length - m->position, more;
        if (!m->open[i]) continue;
        more = ahead < len ? len - ahead : 0;
        if (more > (size_t)ports[i]->room) more = (size_t)ports[i]->room;
        if (ahead + more < taken) taken = ahead + more;
    }
    return open_count(m) == 0 ? CHR_ERR_DISCONNECTED : taken == 0 ? CHR_ERR_WOULD_BLOCK : (int)taken;
}

static void model_write(model *m)
{
    char   buf[40];
    size_t len = 1 + (size_t)pick(sizeof buf), i;
    int    expected = expected_answer(m, len), answer, p;
    for (i = 0; i < len; i++) buf[i] = stream_byte(m->position + i);
    answer = chr_fe_write(&m->rec.fe, buf, len);
    CHECK_INT(answer, expected);
    for (p = 0; p < PORTS; p++)
        if (!m->open[p] && answer != CHR_ERR_WOULD_BLOCK) m->while_closed[p] += answer > 0 ? answer : (int)len;
    m->position += answer > 0 ? (size_t)answer : answer == CHR_ERR_DISCONNECTED ? len : 0;
    if (answer == CHR_ERR_WOULD_BLOCK && !m->waiting) {
        m->waiting = m->rec.writable + 1;
        chr_fe_add_watch(&m->rec.fe, recorder_writable, &m->rec);
    }
}

static void model_check_output(const model *m)
{
    int    p;
    size_t i;
    for (p = 0; p < PORTS; p++) {
        CHECK_INT(ports[p]->while_closed, m->while_closed[p]);
        if (!m->open[p]) continue;
        CHECK(m->joined[p] + ports[p]->length >= m->position);
        for (i = 0; i < ports[p]->length; i++)
            if (ports[p]->got[i] != stream_byte(m->joined[p] + i)) {
                CHECK(0 && "lost, doubled or changed");
                return;
            }
    }
}

static void model_open_or_close(model *m, int p)
{
    int before = open_count(m);
    m->open[p] = !m->open[p];
    ports[p]->length = 0;
    ports[p]->room = pick(30);
    m->joined[p] = m->position;
    act(&m->r, ports[p], m->open[p] ? CHR_EVENT_OPENED : CHR_EVENT_CLOSED);
    m->opens += before == 0;
    m->closes += open_count(m) == 0;
}

/* The upper bits identify the member, the lower ones count. */
static void model_input(model *m, int p)
{
    if (!m->open[p] || ports[p]->input_length > 20) return;
    m->last_in[p] = (char)((m->last_in[p] + 1) & 31);
    let_in(&m->r, ports[p], &(char){ (char)(p << 5 | m->last_in[p]) }, 1);
}

static void model_check_input(model *m)
{
    static char next[PORTS];
    int         p;
    if (m->checked == 0) memset(next, 0, sizeof next);
    for (; m->checked < m->rec.length; m->checked++) {
        p = m->rec.input[m->checked] >> 5 & 3;
        next[p] = (char)((next[p] + 1) & 31);
        CHECK_INT(m->rec.input[m->checked] & 31, next[p]);
    }
}

static void model_check_waiting(model *m)
{
    int p, blocked = 0;
    for (p = 0; p < PORTS; p++) blocked |= m->open[p] && ports[p]->room == 0;
    if (m->waiting && !blocked) CHECK_INT(m->rec.writable, m->waiting);
    if (m->waiting && m->rec.writable >= m->waiting) m->waiting = 0;
}

static void model_step(model *m)
{
    int p = pick(PORTS);
    switch (pick(8)) {
    case 0: model_open_or_close(m, p); break;
    case 1: give(&m->r, ports[p], m->open[p] ? pick(50) : 0); break;
    case 2: model_input(m, p); break;
    case 3:
        give_room(&m->rec, pick(10));
        for (p = 0; p < PORTS; p++) act(&m->r, ports[p], -1);
        break;
    default: model_write(m); break;
    }
    settle(&m->r);
}

static void model_run(const void *arg)
{
    model m;
    int   step, opens, closes;
    char *at;
    memset(&m, 0, sizeof m);
    seed = (uint32_t)(uintptr_t)arg;
    attach(&m.rec, make_hub(&m.r, PORTS));
    m.rec.early_input_allowed = 1;
    for (step = 0; step < 3000 && !test_failures; step++) {
        model_step(&m);
        model_check_output(&m);
        model_check_input(&m);
        model_check_waiting(&m);
        for (opens = closes = 0, at = m.rec.events; *at; at++) opens += *at == 'O', closes += *at == 'C';
        CHECK_INT(opens, m.opens);
        CHECK_INT(closes, m.closes);
        CHECK_INT(m.rec.open, open_count(&m) > 0);
        m.opens = m.closes = 0;
        memset(m.rec.events, 0, sizeof m.rec.events);
        if (test_failures) NOTE("step %d of seed %u", step, (unsigned)(uintptr_t)arg);
    }
    CHECK(m.position > 1000);
    detach(&m.rec);
    rig_close(&m.r);
}

TEST_FAMILY(models)
{
    static char names[30][20];
    uintptr_t   i;
    for (i = 0; i < 30; i++) {
        snprintf(names[i], sizeof names[i], "model_%d", (int)i);
        test_add_case(names[i], model_run, (const void *)(i * 7919 + 1), TEST_SECONDS);
    }
}

/* Each allocation of its creation fails in turn, once and for good: an error, and the members are let go of. */
TEST(out_of_memory)
{
    int at, for_good, done = 0;
    for (for_good = 0; for_good < 2; for_good++)
        for (at = 1, done = 0; !done && at < 100; at++) {
            chr_error err;
            recorder  rec;
            rig       r;
            make_hub(&r, 2);
            CHECK_INT(chr_remove(r.ctx, "h", NULL), 0);
            r.fail_at = r.calls + at;
            r.for_good = for_good;
            done = chr_new(r.ctx, "hub,id=h,chardevs.0=p0,chardevs.1=p1", &err) != NULL;
            r.fail_at = 0;
            if (!done) {
                CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
                attach(&rec, chr_find(r.ctx, "p1"));
                detach(&rec);
            }
            rig_close(&r);
        }
    CHECK(done && at > 3);
}

/* A hub has a member at least, also when it is asked for by a struct. */
TEST(hub_of_no_members)
{
    static const char *const none[] = { NULL, "a", NULL };
    chr_hub_options          options;
    chr_error                err;
    rig                      r;
    rig_open_virtual(&r);
    make(&r, "null,id=a");
    memset(&options, 0, sizeof options);
    options.chardevs = none;
    CHECK(chr_open(r.ctx, "h", chr_backend_find(r.ctx, "hub"), &options, &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_INVALID);
    CHECK_STR(err.text, "hub: needs chardevs.0=");
    rig_close(&r);
}
