/* fault: stacked on another chardev, it injects faults. Faults of system calls are in test_faults.c. */
#include "chardev.h"
#include "rig.h"

/* The chardev below: a backend of the test's own, whose far side is the test. */
typedef struct below {
    chr_dev  dev;
    char     got[65536];
    size_t   got_len;
    int      room;   /* bytes that it takes; the rest would block */
    int      ioctls, disconnects, is_open;
    chr_idle idle;
} below;

static below *base;

static int below_open(chr_dev *dev, chr_error *err)
{
    (void)err;
    base = (below *)dev;
    base->room = UNLIMITED;
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

static int below_write(chr_dev *dev, const void *buf, size_t len)
{
    below *b = (below *)dev;
    if (b->room == 0) return CHR_ERR_WOULD_BLOCK;
    if (len > (size_t)b->room) len = (size_t)b->room;
    REQUIRE(b->got_len + len <= sizeof b->got);
    memcpy(b->got + b->got_len, buf, len);
    b->got_len += len;
    if (b->room < UNLIMITED) b->room -= (int)len;
    return (int)len;
}

static void below_writable(void *opaque)
{
    if (chr_be_wants_writable((chr_dev *)opaque)) chr_be_writable((chr_dev *)opaque);
}

static void below_update(chr_dev *dev)
{
    if (((below *)dev)->room > 0 && chr_be_wants_writable(dev)) chr_idle_start(dev->ctx, &((below *)dev)->idle, below_writable, dev);
}

static void below_close(chr_dev *dev)
{
    chr_idle_stop(&((below *)dev)->idle);
}

static int below_ioctl(chr_dev *dev, int command, void *arg)
{
    (void)arg;
    ((below *)dev)->ioctls++;
    return command == CHR_IOCTL_SET_ECHO ? 0 : CHR_ERR_NOT_SUPPORTED;
}

static void below_set_open(chr_dev *dev, int is_open)
{
    ((below *)dev)->is_open = is_open;
}

static int below_disconnect(chr_dev *dev)
{
    ((below *)dev)->disconnects++;
    return 0;
}

CHR_TABLE(chr_io, below_io,
    CHR_SET(write,  below_write)
    CHR_SET(update, below_update));
CHR_TABLE(chr_peer_slots, below_peer,
    CHR_SET(disconnect, below_disconnect));
CHR_TABLE(chr_backend, below_kind,
    CHR_SET(name,         "below")
    CHR_SET(help,         "")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(below))
    CHR_SET(open,         below_open)
    CHR_SET(close,        below_close)
    CHR_SET(io,           &below_io)
    CHR_SET(ioctl,        below_ioctl)
    CHR_SET(set_open,     below_set_open)
    CHR_SET(peer,         &below_peer));

typedef struct stage {
    rig              r;
    recorder         rec;
    chr_dev         *dev;
    chr_error        err;
    chr_fault_counts counts;
} stage;

static void open_stage(stage *s)
{
    chr_config config = rig_config(&s->r);
    config.virtual_clock = 1;
    rig_init(&s->r);
    s->r.ctx = chr_context_new(&config);
    REQUIRE(s->r.ctx != NULL);
    REQUIRE(chr_backend_register(s->r.ctx, &below_kind, NULL) == 0);
}

static void stack(stage *s, const char *options)
{
    open_stage(s);
    make(&s->r, "below,id=b");
    s->dev = make(&s->r, options);
    attach(&s->rec, s->dev);
    settle(&s->r);
    CHECK_STR(s->rec.events, "O");
}

static void end_stage(stage *s)
{
    detach(&s->rec);
    rig_close(&s->r);
}

static void feed(stage *s, const char *bytes, size_t len)
{
    CHECK_INT(chr_fault_feed(s->dev, bytes, len), len);
}

static const chr_fault_counts *counts(stage *s)
{
    CHECK_INT(chr_fault_query(s->dev, &s->counts), 0);
    return &s->counts;
}

static int write_to(stage *s, const char *text)
{
    return chr_fe_write(&s->rec.fe, text, strlen(text));
}

/* As a real backend does: delivers no more than there is room for. Returns the number of bytes. */
static size_t come(stage *s, const char *text)
{
    size_t len = strlen(text);
    int    room = chr_be_can_write(&base->dev);
    if (room <= 0) return 0;
    if (len > (size_t)room) len = (size_t)room;
    chr_be_write(&base->dev, text, len);
    settle(&s->r);
    return len;
}

static void until_ms(stage *s, int64_t ms)
{
    CHECK(chr_loop_run_until(s->r.ctx, ms * 1000000) >= 0);
}

#define CHECK_GOT(text) CHECK_MEM(base->got, base->got_len, (text), strlen(text))

/* ---- each fault, by given bytes ---------------------------------------------------------------------------------- */

TEST(without_bytes_and_seed_nothing_goes_wrong)
{
    stage    s;
    chr_info info;
    int      echo = 1;
    stack(&s, "fault,id=f,chardev=b");
    CHECK_INT(write_to(&s, "hello"), 5);
    CHECK_GOT("hello");
    CHECK_INT(come(&s, "input"), 5);
    CHECK_INPUT(&s.rec, "input");
    chr_be_event(&base->dev, CHR_EVENT_BREAK);
    chr_be_event(&base->dev, CHR_EVENT_RESIZED);
    chr_be_event(&base->dev, CHR_EVENT_INPUT_END);
    chr_be_event(&base->dev, CHR_EVENT_CLOSED);
    CHECK_STR(s.rec.events, "OB?EC");
    CHECK_INT(chr_fe_set_echo(&s.rec.fe, echo), 0);
    CHECK_INT(base->ioctls, 1);
    CHECK_INT(chr_fe_disconnect(&s.rec.fe), 0);
    CHECK_INT(base->disconnects, 1);
    CHECK_INT(base->is_open, 1);
    chr_fe_set_open(&s.rec.fe, 0);
    CHECK_INT(base->is_open, 0);
    chr_query(s.dev, &info);
    CHECK_STR(info.filename, "fault:b,short=0,block=0,delay=0,disconnect=0,break=0,error=0,reorder=0");
    CHECK_INT(counts(&s)->bytes_used, 0);
    end_stage(&s);
}

TEST(a_short_write)
{
    stage s;
    stack(&s, "fault,id=f,chardev=b");
    feed(&s, "\x80\x02\x80\xff\x7f", 5); /* kinds of a write: short block delay disconnect break error */
    CHECK_INT(write_to(&s, "hello"), 3); /* 1 + 2 % 4 */
    CHECK_INT(write_to(&s, "lo"), 1);
    CHECK_INT(write_to(&s, "o"), 1);
    CHECK_GOT("hello");
    CHECK_INT(counts(&s)->short_writes, 2);
    CHECK_INT(counts(&s)->bytes_used, 5);
    feed(&s, "\x80", 1);
    CHECK_INT(write_to(&s, "x"), 1); /* one byte can't be shorter */
    CHECK_INT(counts(&s)->short_writes, 2);
    end_stage(&s);
}

TEST(a_storm_of_would_blocks)
{
    stage s;
    int   i;
    stack(&s, "fault,id=f,chardev=b");
    feed(&s, "\x81\x03", 2);
    for (i = 0; i < 4; i++) {
        CHECK_INT(write_to(&s, "x"), CHR_ERR_WOULD_BLOCK);
        chr_fe_add_watch(&s.rec.fe, recorder_writable, &s.rec);
        settle(&s.r);
        CHECK_INT(s.rec.writable, i + 1);
    }
    CHECK_INT(write_to(&s, "x"), 1);
    CHECK_INT(counts(&s)->blocks, 1);
    feed(&s, "\x81\x07", 2); /* who waits for it gets through */
    CHECK_INT(chr_fe_write_all(&s.rec.fe, "yz", 2, -1), 2);
    CHECK_GOT("xyz");
    end_stage(&s);
}

TEST(delays)
{
    stage s;
    stack(&s, "fault,id=f,chardev=b,delay=100");
    feed(&s, "\x82\x18", 2); /* 1 + 24 ms */
    CHECK_INT(write_to(&s, "x"), CHR_ERR_WOULD_BLOCK);
    chr_fe_add_watch(&s.rec.fe, recorder_writable, &s.rec);
    until_ms(&s, 24);
    CHECK_INT(write_to(&s, "x"), CHR_ERR_WOULD_BLOCK);
    CHECK_INT(s.rec.writable, 0);
    until_ms(&s, 25);
    CHECK_INT(s.rec.writable, 1);
    CHECK_INT(write_to(&s, "x"), 1);
    feed(&s, "\x82\x63", 2); /* time does not pass for who blocks: it is over */
    CHECK_INT(chr_fe_write_all(&s.rec.fe, "y", 1, -1), 1);
    CHECK_INT(chr_loop_now(s.r.ctx), 25000000);
    feed(&s, "\x81\x09", 2); /* of input: short delay disconnect break */
    CHECK_INT(come(&s, "one"), 3);
    CHECK_INT(come(&s, "two"), 0);
    until_ms(&s, 34);
    CHECK_INT(come(&s, "two"), 0);
    until_ms(&s, 35);
    CHECK_INT(come(&s, "two"), 3);
    CHECK_INPUT(&s.rec, "onetwo");
    CHECK_INT(counts(&s)->delays, 3);
    end_stage(&s);
}

/* The one below takes output again, but the fault delays it: nothing is to be done until then. */
TEST(a_delay_behind_an_obuf_does_not_spin)
{
    stage s;
    int   ran, steps = 0;
    stack(&s, "fault,id=f,chardev=b,delay=100,obuf=16");
    base->room = 0;
    feed(&s, "\x01", 1); /* the first attempt is the base's to refuse */
    CHECK_INT(write_to(&s, "x"), 1);
    feed(&s, "\x82\x18", 2); /* the second waits 1 + 24 ms */
    base->room = UNLIMITED;
    chr_be_writable(&base->dev);
    do
        ran = chr_loop_step(s.r.ctx, 0);
    while (ran > 0 && ++steps < 50);
    CHECK_INT(ran, 0);
    CHECK_INT(counts(&s)->delays, 1);
    CHECK_INT(base->got_len, 0);
    until_ms(&s, 25);
    CHECK_INT(base->got_len, 1);
    end_stage(&s);
}

TEST(short_input)
{
    stage s;
    stack(&s, "fault,id=f,chardev=b");
    feed(&s, "\x80\x01", 2);
    CHECK_INT(come(&s, "first"), 5);
    CHECK_INT(come(&s, "second"), 2);
    CHECK_INT(come(&s, "cond"), 4);
    CHECK_INPUT(&s.rec, "firstsecond");
    CHECK_INT(counts(&s)->short_reads, 1);
    end_stage(&s);
}

TEST(disconnections)
{
    stage    s;
    chr_info info;
    stack(&s, "fault,id=f,chardev=b");
    feed(&s, "\x83\x04", 2);
    CHECK_INT(write_to(&s, "lost"), CHR_ERR_DISCONNECTED);
    CHECK_STR(s.rec.events, "O"); /* from the loop */
    CHECK_INT(come(&s, "not yet"), 0);
    chr_query(s.dev, &info);
    CHECK_INT(info.be_open, 0);
    CHECK_INT(info.comes_back, 1);
    CHECK_INT(info.bytes_dropped, 4);
    settle(&s.r);
    CHECK_STR(s.rec.events, "OC");
    CHECK_INT(write_to(&s, "lost"), CHR_ERR_DISCONNECTED);
    until_ms(&s, 4);
    CHECK_STR(s.rec.events, "OC");
    until_ms(&s, 5);
    CHECK_STR(s.rec.events, "OCO");
    CHECK_INT(come(&s, "now"), 3);
    CHECK_INT(base->disconnects, 0);
    feed(&s, "\x82\x00", 2); /* behind a piece of input */
    CHECK_INT(come(&s, "in"), 2);
    CHECK_STR(s.rec.events, "OCOC");
    chr_be_event(&base->dev, CHR_EVENT_CLOSED); /* its peer goes meanwhile, */
    until_ms(&s, 20);
    CHECK_STR(s.rec.events, "OCOC");
    chr_be_event(&base->dev, CHR_EVENT_OPENED); /* and comes again */
    CHECK_STR(s.rec.events, "OCOCO");
    feed(&s, "\x83\x00", 2);
    CHECK_INT(write_to(&s, "x"), CHR_ERR_DISCONNECTED);
    settle(&s.r);
    chr_be_event(&base->dev, CHR_EVENT_INPUT_END); /* it has ended its output: told when the frontend is there again */
    CHECK_STR(s.rec.events, "OCOCOC");
    until_ms(&s, 30);
    CHECK_STR(s.rec.events, "OCOCOCOE");
    CHECK_INT(counts(&s)->disconnects, 3);
    CHECK_INPUT(&s.rec, "nowin");
    end_stage(&s);
}

/* Its description has the count of each fault in the documented order, and the description of the lower chardev. */
TEST(all_that_has_happened_is_told)
{
    stage    s;
    chr_info info;
    int      i;
    stack(&s, "fault,id=f,chardev=b");
    feed(&s, "\x80\x00\x80\x00", 4); /* short: 2 in output, 1 in input */
    CHECK_INT(write_to(&s, "ab"), 1);
    CHECK_INT(write_to(&s, "ab"), 1);
    feed(&s, "\x80\x00", 2);
    come(&s, "x");
    feed(&s, "\x81\x00", 2);
    CHECK_INT(write_to(&s, "x"), CHR_ERR_WOULD_BLOCK);
    for (i = 0; i < 2; i++) feed(&s, "\x82\x00", 2), CHECK_INT(write_to(&s, "x"), CHR_ERR_WOULD_BLOCK), until_ms(&s, 10 + 10 * i);
    for (i = 0; i < 4; i++) feed(&s, "\x83\x00", 2), CHECK_INT(write_to(&s, "x"), CHR_ERR_DISCONNECTED), until_ms(&s, 40 + 10 * i);
    for (i = 0; i < 5; i++) feed(&s, "\x84", 1), CHECK_INT(write_to(&s, "x"), 1);
    for (i = 0; i < 6; i++) feed(&s, "\x85", 1), CHECK_INT(write_to(&s, "x"), CHR_ERR_IO);
    for (i = 0; i < 7; i++) feed(&s, "\x80\x00", 2), chr_be_event(&base->dev, CHR_EVENT_BREAK), until_ms(&s, 100 + 10 * i);
    chr_query(s.dev, &info);
    CHECK_STR(info.filename, "fault:b,short=3,block=1,delay=2,disconnect=4,break=5,error=6,reorder=7");
    CHECK_STR(info.address, "");
    CHECK_STR(info.peer, "");
    end_stage(&s);
}

TEST(where_the_one_below_is_is_told)
{
    stage    s;
    chr_info info, of_base;
    chr_dev *dev;
    open_stage(&s);
    dev = make(&s.r, "udp,id=u,host=127.0.0.1,port=9,localaddr=127.0.0.1");
    s.dev = make(&s.r, "fault,id=f,chardev=u");
    attach(&s.rec, s.dev);
    settle(&s.r);
    chr_query(dev, &of_base);
    chr_query(s.dev, &info);
    CHECK(of_base.address[0] && of_base.peer[0]);
    CHECK_STR(info.address, of_base.address);
    CHECK_STR(info.peer, of_base.peer);
    CHECK_INT(info.comes_back, 0);
    end_stage(&s);
}

/* At the end of the given bytes nothing more goes wrong: what they have begun is as short as it can be. */
TEST(given_bytes_that_end_early)
{
    stage s;
    int   i;
    stack(&s, "fault,id=f,chardev=b");
    feed(&s, "\x81", 1); /* would block, once */
    CHECK_INT(write_to(&s, "x"), CHR_ERR_WOULD_BLOCK);
    for (i = 0; i < 100; i++) CHECK_INT(write_to(&s, "x"), 1);
    feed(&s, "\x80", 1); /* one byte */
    CHECK_INT(write_to(&s, "abcdef"), 1);
    feed(&s, "\x82", 1); /* one millisecond */
    CHECK_INT(write_to(&s, "x"), CHR_ERR_WOULD_BLOCK);
    until_ms(&s, 1);
    for (i = 0; i < 100; i++) CHECK_INT(write_to(&s, "x"), 1);
    CHECK_INT(counts(&s)->bytes_used, 3);
    CHECK_INT(counts(&s)->blocks, 1);
    end_stage(&s);
}

/* During an injected disconnect: pending watches are called at once, waits for input return, and no call blocks for
 * ever. */
TEST(nobody_waits_for_one_that_is_disconnected)
{
    stage s;
    char  byte;
    stack(&s, "fault,id=f,chardev=b");
    base->room = 0;
    CHECK_INT(write_to(&s, "x"), CHR_ERR_WOULD_BLOCK);
    chr_fe_add_watch(&s.rec.fe, recorder_writable, &s.rec);
    settle(&s.r);
    CHECK_INT(s.rec.writable, 0);
    feed(&s, "\x82\x09", 2); /* of input: short delay disconnect break */
    CHECK_INT(come(&s, "in"), 2);
    CHECK_STR(s.rec.events, "OC");
    CHECK_INT(s.rec.writable, 1);
    CHECK_INT(write_to(&s, "x"), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_read_all(&s.rec.fe, &byte, 1, 0), CHR_ERR_DISCONNECTED);
    chr_fe_add_watch(&s.rec.fe, recorder_writable, &s.rec);
    settle(&s.r);
    CHECK_INT(s.rec.writable, 2);
    end_stage(&s);
}

/* What was begun with one peer is forgotten with it. */
TEST(would_blocks_and_pieces_end_with_the_peer)
{
    stage s;
    stack(&s, "fault,id=f,chardev=b");
    feed(&s, "\x80\x00\x81\x07", 4); /* input in pieces of 1; output would block, and 7 more times */
    CHECK_INT(come(&s, "a"), 1);
    CHECK_INT(write_to(&s, "x"), CHR_ERR_WOULD_BLOCK);
    CHECK_INT(write_to(&s, "x"), CHR_ERR_WOULD_BLOCK);
    CHECK_INT(come(&s, "bcd"), 1);
    feed(&s, "\x82\x00", 2);
    CHECK_INT(come(&s, "cd"), 2);
    until_ms(&s, 50);
    CHECK_INT(write_to(&s, "x"), 1);
    CHECK_INT(come(&s, "efgh"), 4);
    end_stage(&s);
}

#ifndef _WIN32
/* Who blocks waits for nothing else: not for a descriptor that has nothing to do with it. */
TEST(blocked_calls_do_not_wait_for_descriptor_0)
{
    int   fds[2];
    stage s;
    REQUIRE(pipe(fds) == 0 && dup2(fds[0], 0) == 0); /* it will never be writable */
    stack(&s, "fault,id=f,chardev=b,delay=100");
    feed(&s, "\x81\x07\x82\x63", 4);
    CHECK_INT(chr_fe_write_all(&s.rec.fe, "xyz", 3, 20000), 3);
    CHECK_GOT("xyz");
    close(fds[0]), close(fds[1]);
    detach(&s.rec);
    chr_context_free(s.r.ctx);
}
#endif

/* INPUT_END is delivered to each new frontend, until the lower chardev has another peer. */
TEST(the_end_of_input_is_told_again)
{
    stage s;
    stack(&s, "fault,id=f,chardev=b");
    chr_be_event(&base->dev, CHR_EVENT_INPUT_END);
    chr_be_event(&base->dev, CHR_EVENT_BREAK); /* changes nothing in it */
    CHECK_STR(s.rec.events, "OEB");
    feed(&s, "\x83\x00", 2);
    CHECK_INT(write_to(&s, "x"), CHR_ERR_DISCONNECTED);
    until_ms(&s, 10);
    CHECK_STR(s.rec.events, "OEBCOE");
    chr_be_event(&base->dev, CHR_EVENT_CLOSED);
    chr_be_event(&base->dev, CHR_EVENT_OPENED);
    CHECK_STR(s.rec.events, "OEBCOECO");
    feed(&s, "\x83\x00", 2);
    CHECK_INT(write_to(&s, "x"), CHR_ERR_DISCONNECTED);
    until_ms(&s, 20);
    CHECK_STR(s.rec.events, "OEBCOECOCO");
    end_stage(&s);
}

/* An error found while draining obuf= is returned by the next write, once, and only while the same peer is
 * connected. */
TEST(an_error_behind_an_obuf_is_told_once)
{
    int   another_peer;
    stage s;
    for (another_peer = 0; another_peer < 2; another_peer++) {
        chr_info info;
        stack(&s, "fault,id=f,chardev=b,obuf=16");
        base->room = 0;
        CHECK_INT(write_to(&s, "abc"), 3); /* waits */
        feed(&s, "\x85", 1);
        base->room = UNLIMITED;
        chr_be_writable(&base->dev);
        settle(&s.r);
        CHECK_INT(base->got_len, 0);
        chr_query(s.dev, &info);
        CHECK_INT(info.bytes_dropped, 3);
        CHECK_INT(info.bytes_queued, 0);
        if (another_peer) {
            chr_be_event(&base->dev, CHR_EVENT_CLOSED);
            chr_be_event(&base->dev, CHR_EVENT_OPENED);
            settle(&s.r);
        } else {
            CHECK_INT(write_to(&s, "d"), CHR_ERR_IO);
        }
        CHECK_INT(write_to(&s, "e"), 1);
        CHECK_GOT("e");
        end_stage(&s);
    }
}

TEST(errors_and_breaks)
{
    stage s;
    stack(&s, "fault,id=f,chardev=b");
    feed(&s, "\x85", 1);
    CHECK_INT(write_to(&s, "x"), CHR_ERR_IO);
    CHECK_INT(base->got_len, 0);
    feed(&s, "\x84", 1);
    CHECK_INT(write_to(&s, "x"), 1);
    settle(&s.r);
    CHECK_STR(s.rec.events, "OB");
    feed(&s, "\x83", 1);
    CHECK_INT(come(&s, "y"), 1);
    CHECK_STR(s.rec.events, "OBB");
    CHECK_INT(counts(&s)->errors, 1);
    CHECK_INT(counts(&s)->breaks, 2);
    end_stage(&s);
}

TEST(events_out_of_order)
{
    stage s;
    stack(&s, "fault,id=f,chardev=b");
    feed(&s, "\x80\x05\x80\x05", 4);
    chr_be_event(&base->dev, CHR_EVENT_BREAK);
    chr_be_event(&base->dev, CHR_EVENT_SERIAL);
    chr_be_event(&base->dev, CHR_EVENT_LINE_ERROR); /* has its place before the next byte */
    CHECK_STR(s.rec.events, "OL");
    CHECK_INT(come(&s, "x"), 1);
    CHECK_STR(s.rec.events, "OLSB");
    feed(&s, "\x80\x05", 2); /* at the latest after a while */
    chr_be_event(&base->dev, CHR_EVENT_BREAK);
    until_ms(&s, 5);
    CHECK_STR(s.rec.events, "OLSB");
    until_ms(&s, 6);
    CHECK_STR(s.rec.events, "OLSBB");
    feed(&s, "\x80\x05", 2); /* and before the peer goes */
    chr_be_event(&base->dev, CHR_EVENT_BREAK);
    chr_be_event(&base->dev, CHR_EVENT_CLOSED);
    CHECK_STR(s.rec.events, "OLSBBBC");
    CHECK_INT(counts(&s)->reorders, 4);
    end_stage(&s);
}

TEST(only_those_that_are_wanted)
{
    stage    s;
    chr_info info;
    stack(&s, "fault,id=f,chardev=b,faults=error+break");
    feed(&s, "\x80\x81\x82", 3);
    CHECK_INT(write_to(&s, "x"), 1);
    CHECK_INT(write_to(&s, "x"), CHR_ERR_IO);
    CHECK_INT(come(&s, "y"), 1);
    CHECK_STR(s.rec.events, "OBB");
    chr_query(s.dev, &info);
    CHECK_STR(info.filename, "fault:b,short=0,block=0,delay=0,disconnect=0,break=2,error=1,reorder=0");
    end_stage(&s);
}

/* ---- by a seed --------------------------------------------------------------------------------------------------- */

/* Writes a text until all of it is accepted, with input and time in between; returns a line that describes the
 * events. */
static const char *story(const char *options, chr_fault_counts *all)
{
    static char lines[3][65536];
    static int  turn;
    char       *line = lines[turn++ % 3];
    size_t      len = 0, at = 0;
    int         i;
    stage       s;
    stack(&s, options);
    line[0] = 0;
    for (i = 0; i < 400; i++) {
        char text[32];
        int  n = write_to(&s, "the quick brown fox jumps over the lazy dog" + at % 40);
        at += n > 0 ? (size_t)n : 0;
        snprintf(text, sizeof text, "input %d", i);
        come(&s, text);
        if (i % 7 == 0) chr_be_event(&base->dev, CHR_EVENT_BREAK);
        if (chr_fe_backend_open(&s.rec.fe)) CHECK_INT(chr_loop_run_until(s.r.ctx, i * INT64_C(3000000)) >= 0, 1);
        else CHECK(chr_loop_run_until(s.r.ctx, chr_loop_now(s.r.ctx) + 10000000) >= 0);
        len += (size_t)snprintf(line + len, sizeof lines[0] - len, "%d,%zu,%s;", n, s.rec.length, s.rec.events + strlen(s.rec.events) / 2);
        memset(s.rec.events, 0, sizeof s.rec.events);
    }
    CHECK_INT(base->got_len, at);
    *all = *counts(&s);
    end_stage(&s);
    return line;
}

TEST(the_same_seed_does_the_same)
{
    chr_fault_counts one, two, other;
    const char      *first = story("fault,id=f,chardev=b,seed=42,rate=40", &one);
    const char      *second = story("fault,id=f,chardev=b,seed=42,rate=40", &two);
    CHECK_STR(second, first);
    CHECK(memcmp(&one, &two, sizeof one) == 0);
    CHECK(one.short_writes > 5 && one.short_reads > 5 && one.blocks > 5 && one.delays > 5 && one.disconnects > 5 && one.breaks > 5 &&
          one.errors > 5 && one.reorders > 5);
    CHECK_INT(one.bytes_used, 0);
    CHECK(strcmp(story("fault,id=f,chardev=b,seed=43,rate=40", &other), first) != 0);
}

TEST(as_often_as_the_rate_says)
{
    stage s;
    int   i;
    stack(&s, "fault,id=f,chardev=b,seed=7,rate=25,faults=error");
    for (i = 0; i < 4000; i++) write_to(&s, "x");
    CHECK(counts(&s)->errors > 900 && s.counts.errors < 1100);
    end_stage(&s);
    stack(&s, "fault,id=f,chardev=b,seed=7,rate=100,faults=error");
    for (i = 0; i < 100; i++) CHECK_INT(write_to(&s, "x"), CHR_ERR_IO);
    feed(&s, "\0", 1); /* given bytes come first */
    CHECK_INT(write_to(&s, "x"), 1);
    CHECK_INT(write_to(&s, "x"), CHR_ERR_IO);
    end_stage(&s);
}

/* ---- what it is stacked on, and what on it ----------------------------------------------------------------------- */

TEST(options_that_are_wrong)
{
    static const struct { const char *options, *error; } table[] = {
        { "fault,id=f", "fault: needs chardev=" },
        { "fault,id=f,chardev=nobody", "fault: chardev=nobody: there is no chardev with that id" },
        { "fault,id=f,chardev=f", "fault: chardev=f: there is no chardev with that id" },
        { "fault,id=f,chardev=b,rate=101", "fault: rate=101: out of range, 1 to 100" },
        { "fault,id=f,chardev=b,rate=10", "fault: rate=10: needs seed=" },
        { "fault,id=f,chardev=b,faults=short,,block", "fault: faults=: 'short,block' is none of short, block, delay, disconnect, break, error, reorder, with a '+' between them" },
        { "fault,id=f,chardev=b,faults=short+", "fault: faults=: '' is none of short, block, delay, disconnect, break, error, reorder, with a '+' between them" },
        { "fault,id=g,chardev=taken", "fault: chardev 'taken' has a frontend already" } };
    size_t   i;
    stage    s;
    recorder rec;
    open_stage(&s);
    make(&s.r, "below,id=b");
    attach(&rec, make(&s.r, "null,id=taken"));
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        CHECK(chr_new(s.r.ctx, table[i].options, &s.err) == NULL);
        CHECK_HAS(s.err.text, table[i].error);
    }
    CHECK_INT(chr_fault_feed(chr_find(s.r.ctx, "b"), "x", 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fault_query(chr_find(s.r.ctx, "b"), &s.counts), CHR_ERR_NOT_SUPPORTED);
    CHECK(chr_new(s.r.ctx, "fault,id=f,chardev=b", &s.err) != NULL);
    CHECK_INT(chr_remove(s.r.ctx, "b", &s.err), CHR_ERR_BUSY); /* the fault is its frontend */
    CHECK_INT(chr_remove(s.r.ctx, "f", &s.err), 0);
    CHECK_INT(chr_remove(s.r.ctx, "b", &s.err), 0);
    detach(&rec);
    rig_close(&s.r);
}

TEST(a_mux_on_it_and_it_on_a_mux)
{
    stage    s;
    recorder b;
    open_stage(&s);
    make(&s.r, "below,id=b");
    make(&s.r, "mux,id=m,chardev=b");
    make(&s.r, "fault,id=f,chardev=m");
    s.dev = make(&s.r, "fault,id=g,chardev=f,mux=on");
    attach(&s.rec, s.dev);
    attach(&b, s.dev);
    settle(&s.r);
    CHECK_INT(come(&s, "one\1\1cone"), 9); /* the lower mux takes one escape away */
    CHECK_INPUT(&b, "one");
    CHECK_INPUT(&s.rec, "one");
    CHECK_INT(write_to(&s, "out"), 3);
    CHECK_GOT("out");
    CHECK_INT(chr_fault_feed(chr_find(s.r.ctx, "f"), "\x83\x00", 2), 2);
    CHECK_INT(write_to(&s, "out"), CHR_ERR_DISCONNECTED);
    until_ms(&s, 5);
    CHECK_STR(b.events, "IOIUCO");
    CHECK_STR(s.rec.events, "IOUIICO");
    detach(&b);
    end_stage(&s);
}

/* The focus goes to what is stacked on it; who had it is not called before chr_new() returns. */
TEST(stacked_on_a_mux_in_use)
{
    stage    s;
    recorder a, b;
    open_stage(&s);
    attach(&a, make(&s.r, "below,id=b,mux=on"));
    settle(&s.r);
    CHECK_STR(a.events, "IO");
    s.dev = make(&s.r, "fault,id=f,chardev=b");
    CHECK_STR(a.events, "IO");
    attach(&s.rec, s.dev);
    settle(&s.r);
    CHECK_STR(a.events, "IOU");
    CHECK_STR(s.rec.events, "OI");
    CHECK_INT(come(&s, "x"), 1);
    CHECK_INPUT(&s.rec, "x");
    attach(&b, chr_find(s.r.ctx, "b")); /* taken back, and lost again, before anybody hears of it */
    CHECK_STR(s.rec.events, "OIU");
    CHECK_STR(b.events, "IO");
    make(&s.r, "fault,id=g,chardev=b");
    chr_fe_take_focus(&b.fe);
    settle(&s.r);
    CHECK_STR(b.events, "IO");
    CHECK_STR(a.events, "IOU");
    detach(&a);
    detach(&b);
    end_stage(&s);
}

TEST(in_a_hub)
{
    stage s;
    open_stage(&s);
    make(&s.r, "below,id=b");
    make(&s.r, "ringbuf,id=r,size=16");
    make(&s.r, "fault,id=f,chardev=b");
    s.dev = chr_find(s.r.ctx, "f");
    CHECK_INT(base->is_open, 0);
    make(&s.r, "hub,id=h,chardevs.0=f,chardevs.1=r");
    CHECK_INT(base->is_open, 0);
    attach(&s.rec, chr_find(s.r.ctx, "h"));
    CHECK_INT(base->is_open, 1);
    settle(&s.r);
    feed(&s, "\x80\x01", 2);
    CHECK_INT(write_to(&s, "abcd"), 2);
    CHECK_INT(write_to(&s, "cd"), 2);
    CHECK_GOT("abcd");
    CHECK_INT(chr_ringbuf_count(chr_find(s.r.ctx, "r")), 4);
    end_stage(&s);
}

TEST(back_pressure_of_the_one_below)
{
    stage s;
    stack(&s, "fault,id=f,chardev=b");
    base->room = 3;
    CHECK_INT(write_to(&s, "hello"), 3);
    CHECK_INT(write_to(&s, "lo"), CHR_ERR_WOULD_BLOCK);
    chr_fe_add_watch(&s.rec.fe, recorder_writable, &s.rec);
    settle(&s.r);
    CHECK_INT(s.rec.writable, 0);
    CHECK(chr_be_wants_writable(&base->dev));
    base->room = 9;
    chr_be_writable(&base->dev);
    CHECK_INT(s.rec.writable, 1);
    CHECK_INT(write_to(&s, "lo"), 2);
    s.rec.room = 0;
    CHECK_INT(come(&s, "x"), 0);
    give_room(&s.rec, 2);
    settle(&s.r);
    CHECK_INT(come(&s, "xyz"), 2);
    end_stage(&s);
}

TEST(hot_swaps)
{
    stage s;
    stack(&s, "fault,id=f,chardev=b");
    CHECK_INT(chr_change(s.r.ctx, "b", "null", &s.err), 0); /* below it: not open */
    CHECK_STR(s.rec.events, "OC");
    CHECK_INT(write_to(&s, "x"), 1);
    CHECK_INT(chr_change(s.r.ctx, "b", "below", &s.err), 0);
    CHECK_STR(s.rec.events, "OCO");
    CHECK_INT(write_to(&s, "y"), 1);
    CHECK_GOT("y");
    make(&s.r, "ringbuf,id=r,size=16");
    make(&s.r, "hub,id=h,chardevs.0=r");
    CHECK_INT(chr_change(s.r.ctx, "b", "fault,chardev=r", &s.err), CHR_ERR_BUSY);
    CHECK_INT(chr_change(s.r.ctx, "b", "fault,chardev=h", &s.err), CHR_ERR_NOT_SUPPORTED); /* the hub could be on it */
    CHECK_INT(chr_change(s.r.ctx, "b", "fault,chardev=f", &s.err), CHR_ERR_NOT_SUPPORTED); /* a circle */
    CHECK_HAS(s.err.text, "would be stacked on 'b', which it replaces");
    CHECK_INT(chr_remove(s.r.ctx, "h", &s.err), 0);
    CHECK_INT(chr_change(s.r.ctx, "b", "fault,chardev=r", &s.err), 0);
    CHECK_INT(write_to(&s, "z"), 1);
    CHECK_INT(chr_ringbuf_count(chr_find(s.r.ctx, "r")), 1);
    CHECK_INT(chr_change(s.r.ctx, "f", "null", &s.err), 0); /* the fault itself goes */
    CHECK_INT(chr_remove(s.r.ctx, "b", &s.err), 0);
    CHECK_INT(chr_remove(s.r.ctx, "r", &s.err), 0);
    CHECK_STR(s.rec.events, "OCOC");
    end_stage(&s);
}

static void remove_it(recorder *rec, int what)
{
    stage *s = (stage *)rec->user;
    if (what == 'e' && rec->last_event == CHR_EVENT_OPENED) return;
    rec->then = NULL;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(s->r.ctx, "f", NULL), 0);
    CHECK_INT(chr_remove(s->r.ctx, "b", NULL), 0);
}

/* Input, a break out of nowhere, a late one, a disconnection, its end, writability: from each the frontend takes it
 * all away. */
TEST(removed_in_every_handler)
{
    int what;
    for (what = 0; what < 7; what++) {
        stage s;
        stack(&s, "fault,id=f,chardev=b");
        s.rec.then = remove_it;
        s.rec.user = &s;
        if (what == 1) feed(&s, "\x84", 1);
        if (what == 2) feed(&s, "\x80\x01\x80\x01", 4);
        if (what == 3 || what == 4) feed(&s, "\x83\x01", 2);
        if (what == 5) feed(&s, "\x82\x01", 2);
        if (what == 6) feed(&s, "\x81\x03", 2);
        if (what == 2) {
            chr_be_event(&base->dev, CHR_EVENT_BREAK);
            chr_be_event(&base->dev, CHR_EVENT_SERIAL);
        } else if (what == 0) {
            CHECK_INT(come(&s, "x"), 1);
        } else {
            write_to(&s, "x");
            if (what == 4 || what == 5 || what == 6) chr_fe_add_watch(&s.rec.fe, recorder_writable, &s.rec);
        }
        until_ms(&s, 1000);
        if (!CHECK(chr_next(s.r.ctx, NULL) == NULL)) NOTE("case %d", what);
        end_stage(&s);
    }
}

TEST(freed_in_any_state)
{
    static const char *const feeds[] = { "", "\x82\x7f", "\x83\x7f", "\x81\x07", "\x84", "\x80\x01\x80\x01rest" };
    size_t i;
    for (i = 0; i < 6; i++) {
        stage s;
        stack(&s, "fault,id=f,chardev=b,history=16,obuf=16");
        feed(&s, feeds[i], strlen(feeds[i]));
        chr_be_event(&base->dev, CHR_EVENT_BREAK);
        write_to(&s, "hello");
        chr_fe_add_watch(&s.rec.fe, recorder_writable, &s.rec);
        if (i % 2) {
            CHECK_INT(chr_context_reset(s.r.ctx), 0);
            CHECK(strchr(s.rec.events, 'C') != NULL);
        }
        end_stage(&s);
    }
}

/* It is removed while a retry of a blocked write, or of one in a disconnect, is posted: between the two halves of a
 * step, in a loop of the program's own. */
TEST(removed_while_a_retry_waits)
{
    static const char *const feeds[] = { "\x81\x01", "\x83\x7f" };
    chr_poll polls[8];
    int      timeout, count;
    size_t   i;
    for (i = 0; i < 2; i++) {
        stage s;
        stack(&s, "fault,id=f,chardev=b");
        feed(&s, feeds[i], strlen(feeds[i]));
        CHECK_INT(write_to(&s, "hello"), i ? CHR_ERR_DISCONNECTED : CHR_ERR_WOULD_BLOCK);
        chr_fe_add_watch(&s.rec.fe, recorder_writable, &s.rec);
        count = chr_loop_prepare(s.r.ctx, polls, 8, &timeout);
        CHECK_INT(timeout, 0);
        detach(&s.rec);
        CHECK_INT(chr_remove(s.r.ctx, "f", NULL), 0);
        CHECK(count >= 0 && count <= 8);
        CHECK(chr_loop_dispatch(s.r.ctx, polls, 0) >= 0);
        settle(&s.r);
        CHECK_INT(s.rec.writable, 0);
        CHECK_INT(base->got_len, 0);
        rig_close(&s.r);
    }
}

/* Where none of the chosen faults can happen, none does, and no byte is used for it. */
TEST(faults_that_do_not_fit)
{
    stage s;
    stack(&s, "fault,id=f,chardev=b,faults=reorder");
    feed(&s, "\xff\x80\x03", 3);
    CHECK_INT(write_to(&s, "abc"), 3);
    CHECK_INT(come(&s, "defg"), 4);
    CHECK_INPUT(&s.rec, "defg");
    CHECK_GOT("abc");
    CHECK_INT(counts(&s)->bytes_used, 0);
    CHECK_INT(counts(&s)->short_writes, 0);
    chr_be_event(&base->dev, CHR_EVENT_BREAK); /* this is one */
    CHECK_STR(s.rec.events, "O");
    CHECK_INT(counts(&s)->reorders, 1);
    end_stage(&s);
    stack(&s, "fault,id=f,chardev=b,faults=error");
    feed(&s, "\xff", 1);
    CHECK_INT(come(&s, "de"), 2);
    CHECK_INT(counts(&s)->bytes_used, 0);
    CHECK_INT(write_to(&s, "abc"), CHR_ERR_IO);
    CHECK_INT(counts(&s)->errors, 1);
    end_stage(&s);
}

/* A read that waits for all its bytes: in pieces as short as the given bytes say, and nothing else goes wrong with
 * it. */
TEST(read_all_in_pieces)
{
    char  got[8], options[60];
    int   fds[2], first;
    stage s;
    for (first = 0; first < 2; first++) {
        open_stage(&s);
        socket_pair(fds);
        snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
        make(&s.r, options);
        s.dev = make(&s.r, "fault,id=f,chardev=s");
        memset(&s.rec, 0, sizeof s.rec);
        REQUIRE(chr_fe_init(&s.rec.fe, s.dev, NULL) == 0);
        say(fds[1], "abcdef");
        feed(&s, first ? "\x80\x01\x83\x00\x7f\xff" : "\x00\xff\x03", first ? 6 : 3);
        CHECK_INT(chr_fe_read_all(&s.rec.fe, got, 6, 1000), 6);
        CHECK_MEM(got, 6, "abcdef", 6);
        CHECK_INT(counts(&s)->short_reads, first ? 2 : 0); /* 2 bytes, 1, and the rest; or all of them at once */
        CHECK_INT(counts(&s)->bytes_used, first ? 5 : 1);
        CHECK_INT(counts(&s)->short_writes, 0);
        say(fds[1], "x");
        CHECK_INT(chr_fe_read_all(&s.rec.fe, got, 1, 1000), 1); /* one byte can't be shorter: nothing is decided */
        CHECK_INT(counts(&s)->bytes_used, first ? 5 : 1);
        chr_fe_deinit(&s.rec.fe);
        close(fds[1]);
        rig_close(&s.r);
    }
}

/* Two bytes can come one by one; a single one can't be shorter. */
TEST(read_all_of_two_bytes)
{
    char  got[2], options[60];
    int   fds[2];
    stage s;
    open_stage(&s);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    make(&s.r, options);
    s.dev = make(&s.r, "fault,id=f,chardev=s");
    memset(&s.rec, 0, sizeof s.rec);
    REQUIRE(chr_fe_init(&s.rec.fe, s.dev, NULL) == 0);
    say(fds[1], "ab");
    feed(&s, "\x80\x00\x80\x00", 4);
    CHECK_INT(chr_fe_read_all(&s.rec.fe, got, 2, 1000), 2);
    CHECK_MEM(got, 2, "ab", 2);
    CHECK_INT(counts(&s)->short_reads, 1);
    CHECK_INT(counts(&s)->bytes_used, 2);
    chr_fe_deinit(&s.rec.fe);
    close(fds[1]);
    rig_close(&s.r);
}

/* While a disconnect lasts there is nobody to be read from. */
TEST(read_all_while_it_is_down)
{
    char  got[4], options[60];
    int   fds[2];
    stage s;
    open_stage(&s);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    make(&s.r, options);
    s.dev = make(&s.r, "fault,id=f,chardev=s");
    memset(&s.rec, 0, sizeof s.rec);
    REQUIRE(chr_fe_init(&s.rec.fe, s.dev, NULL) == 0);
    settle(&s.r);
    say(fds[1], "ab");
    feed(&s, "\x83\x09", 2);
    CHECK_INT(write_to(&s, "x"), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_read_all(&s.rec.fe, got, 2, 0), CHR_ERR_DISCONNECTED);
    until_ms(&s, 10);
    CHECK_INT(chr_fe_read_all(&s.rec.fe, got, 2, 1000), 2);
    CHECK_MEM(got, 2, "ab", 2);
    chr_fe_deinit(&s.rec.fe);
    close(fds[1]);
    rig_close(&s.r);
}

TEST(bytes_without_end)
{
    static char bytes[(1 << 20) + 7];
    stage       s;
    int         i;
    stack(&s, "fault,id=f,chardev=b");
    CHECK_INT(chr_fault_feed(s.dev, bytes, sizeof bytes), 1 << 20);
    CHECK_INT(chr_fault_feed(s.dev, bytes, 1), 0);
    for (i = 0; i < 5; i++) CHECK_INT(write_to(&s, "x"), 1);
    CHECK_INT(chr_fault_feed(s.dev, "\xff\xff\xff\xff\xff\xff", 6), 5);
    CHECK_INT(counts(&s)->bytes_used, 5);
    s.r.fail_at = s.r.calls + 1;
    CHECK_INT(write_to(&s, "x"), 1);
    CHECK_INT(chr_fault_feed(s.dev, "x", 1), CHR_ERR_NO_MEMORY);
    CHECK_INT(write_to(&s, "x"), 1);
    CHECK_INT(counts(&s)->bytes_used, 7);
    end_stage(&s);
}

/* A socket below, real time, and a far side that sends back what it gets. */
typedef struct echo {
    recorder rec;
    int      fd;
    size_t   at, heard;
    char     out[30000], in[30000];
} echo;

static int echo_is_done(echo *e)
{
    size_t  left = sizeof e->out - e->at;
    int     n = left > 0 ? chr_fe_write(&e->rec.fe, e->out + e->at, left < 777 ? left : 777) : 0;
    ssize_t more = read(e->fd, e->in + e->heard, sizeof e->in - e->heard);
    e->at += n > 0 ? (size_t)n : 0;
    if (more > 0) CHECK_INT(write(e->fd, e->in + e->heard, (size_t)more), more);
    e->heard += more > 0 ? (size_t)more : 0;
    return e->heard == sizeof e->out && e->rec.length == sizeof e->out;
}

TEST(nothing_is_lost_on_a_socket)
{
    static echo e;
    rig         r;
    int         fds[2], i;
    char        options[100];
    for (i = 0; i < (int)sizeof e.out; i++) e.out[i] = (char)(i * 7 % 251);
    rig_open(&r);
    socket_pair(fds);
    e.fd = fds[1];
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    make(&r, options);
    attach(&e.rec, make(&r, "fault,id=f,chardev=s,seed=5,rate=50,delay=2,faults=short+block+delay+break+reorder"));
    fcntl(e.fd, F_SETFL, O_NONBLOCK);
    PUMP(&r, echo_is_done(&e));
    CHECK(memcmp(e.in, e.out, sizeof e.out) == 0);
    CHECK(e.rec.length == sizeof e.out && memcmp(e.rec.input, e.out, sizeof e.out) == 0);
    detach(&e.rec);
    close(e.fd);
    rig_close(&r);
}
