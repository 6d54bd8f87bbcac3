/*
 * Half-close of the output (chr_fe_shutdown) and of the input (half-close=on), and what is drained before the end
 * (chr_drain).
 */
#include "chardev.h"
#include "rig.h"

typedef struct line {
    rig      r;
    recorder rec;
    chr_dev *dev;
    int      fd; /* the peer's end */
} line;

static char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *text(const char *format, ...)
{
    static char result[600];
    va_list     args;
    va_start(args, format);
    vsnprintf(result, sizeof result, format, args);
    va_end(args);
    return result;
}

static void line_connect(line *l)
{
    l->fd = unix_connect(scratch("s"));
    REQUIRE(l->fd >= 0);
}

/* A unix server with these options, and a peer. */
static void line_open(line *l, const char *options)
{
    rig_open(&l->r);
    l->dev = make(&l->r, text("socket,id=s,path=%s,server=on,wait=off%s", scratch("s"), options));
    attach(&l->rec, l->dev);
    line_connect(l);
    PUMP(&l->r, l->rec.open || strstr(options, "websocket"));
}

static void line_close(line *l)
{
    if (l->fd >= 0) close(l->fd);
    detach(&l->rec);
    rig_close(&l->r);
    scratch_clean();
}

/* Reads at the far side until its end of file, while the loop runs; returns the bytes that came, their last ones in
 * tail[8]. */
static size_t hear_to_end(line *l, char *tail)
{
    static char   block[65536];
    struct pollfd p = { l->fd, POLLIN, 0 };
    int64_t       end = real_ms() + RIG_PATIENCE_MS * test_time_scale();
    size_t        total = 0;
    ssize_t       got = 1;
    while (got > 0 && real_ms() < end) {
        chr_loop_step(l->r.ctx, 0);
        if (poll(&p, 1, 1) <= 0) continue;
        got = read(l->fd, block, sizeof block);
        if (got >= 8) memcpy(tail, block + got - 8, 8);
        if (got > 0) total += (size_t)got;
    }
    CHECK_INT(got, 0);
    return total;
}

/* All that the far side receives, in the format of hear(). */
static void far_end_gets(line *l, const char *want)
{
    const char *got = "";
    PUMP(&l->r, *got || *(got = hear(l->fd)));
    CHECK_STR(got, want);
}

/* ---- the end of output ------------------------------------------------------------------------------------------- */

TEST(peer_sees_the_end_and_its_answer_still_comes)
{
    line l;
    line_open(&l, "");
    CHECK_INT(chr_fe_write(&l.rec.fe, "question", 8), 8);
    CHECK_INT(chr_fe_shutdown(&l.rec.fe), 0);
    CHECK_STR(hear(l.fd), "question");
    CHECK_STR(hear(l.fd), "(eof)");
    CHECK_INT(chr_fe_write(&l.rec.fe, "more", 4), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_shutdown(&l.rec.fe), 0);
    settle(&l.r);
    CHECK_STR(l.rec.events, "O");
    say(l.fd, "answer");
    settle(&l.r);
    CHECK_INPUT(&l.rec, "answer");
    shutdown(l.fd, SHUT_WR);
    PUMP(&l.r, !l.rec.open);
    CHECK_STR(l.rec.events, "OC");
    line_close(&l);
}

TEST(next_peer_begins_anew)
{
    line l;
    line_open(&l, "");
    CHECK_INT(chr_fe_shutdown(&l.rec.fe), 0);
    close(l.fd);
    PUMP(&l.r, !l.rec.open);
    CHECK_INT(chr_fe_shutdown(&l.rec.fe), CHR_ERR_DISCONNECTED);
    line_connect(&l);
    PUMP(&l.r, l.rec.open);
    CHECK_INT(chr_fe_write(&l.rec.fe, "hello", 5), 5);
    CHECK_STR(hear(l.fd), "hello");
    CHECK_STR(hear(l.fd), "");
    line_close(&l);
}

TEST(over_tcp)
{
    line l;
    int  port, listener = tcp_listen(&port);
    rig_open(&l.r);
    attach(&l.rec, make(&l.r, text("socket,id=s,host=127.0.0.1,port=%d", port)));
    l.fd = accept(listener, NULL, NULL);
    CHECK_INT(chr_fe_shutdown(&l.rec.fe), 0);
    far_end_gets(&l, "(eof)");
    say(l.fd, "answer");
    PUMP(&l.r, l.rec.length == 6);
    CHECK(l.rec.open);
    close(l.fd);
    PUMP(&l.r, !l.rec.open);
    l.fd = -1;
    line_close(&l);
    close(listener);
}

/* Output queued in obuf= and layers is sent first, and a pending shutdown accepts no more bytes. */
static void queued_goes_first(const void *arg)
{
    chr_info info;
    size_t   taken, got;
    char     tail[8];
    line     l;
    line_open(&l, (const char *)arg);
    taken = fill_up(&l.rec.fe);
    CHECK_INT(chr_fe_shutdown(&l.rec.fe), 0);
    CHECK_INT(chr_fe_write(&l.rec.fe, "more", 4), CHR_ERR_DISCONNECTED);
    chr_query(l.dev, &info);
    CHECK_INT(info.bytes_dropped, 4);
    got = hear_to_end(&l, tail);
    CHECK(got >= taken && got < taken + 100); /* telnet greets */
    CHECK_MEM(tail, 8, "xxxxxxxx", 8);
    CHECK(l.rec.open);
    chr_query(l.dev, &info);
    CHECK_INT(info.bytes_queued, 0);
    CHECK_INT(chr_fe_write(&l.rec.fe, "more", 4), CHR_ERR_DISCONNECTED);
    line_close(&l);
}

TEST_FAMILY(queued)
{
    test_add_case("queued_goes_first_raw", queued_goes_first, "", TEST_SECONDS);
    test_add_case("queued_goes_first_obuf", queued_goes_first, ",obuf=256K", TEST_SECONDS);
    test_add_case("queued_goes_first_telnet", queued_goes_first, ",telnet=on", TEST_SECONDS);
    test_add_case("queued_goes_first_telnet_obuf", queued_goes_first, ",telnet=on,obuf=256K", TEST_SECONDS);
}

/* A telnet peer still negotiates: our answers have nowhere to go, and that ends nothing. */
TEST(layers_that_answer_after_the_end)
{
    line l;
    line_open(&l, ",telnet=on");
    CHECK_INT(chr_fe_shutdown(&l.rec.fe), 0);
    settle(&l.r);
    say(l.fd, "a\377\375\052b\377\366c"); /* DO 42, AYT */
    PUMP(&l.r, l.rec.length == 3);
    CHECK_INPUT(&l.rec, "abc");
    settle(&l.r);
    CHECK(l.rec.open);
    line_close(&l);
}

/* ---- websocket: a Close frame ------------------------------------------------------------------------------------ */

static void shake_hands(line *l)
{
    say(l->fd, "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
    PUMP(&l->r, l->rec.open);
    CHECK_HAS(hear(l->fd), "101");
}

TEST(websocket_says_close_and_waits_for_the_answer)
{
    static const char data[] = { '\x82', '\x83', 0, 0, 0, 0, 'a', 'b', 'c' }, ping[] = { '\x89', '\x80', 0, 0, 0, 0 };
    static const char goodbye[] = { '\x88', '\x82', 0, 0, 0, 0, '\x03', '\xe8' };
    char              bytes[16];
    line              l;
    line_open(&l, ",websocket=on");
    shake_hands(&l);
    CHECK_INT(chr_fe_write(&l.rec.fe, "hi", 2), 2);
    CHECK_INT(chr_fe_shutdown(&l.rec.fe), 0);
    CHECK_INT(recv(l.fd, bytes, sizeof bytes, MSG_DONTWAIT), 8);
    CHECK_MEM(bytes, 8, "\x82\x02hi\x88\x02\x03\xe8", 8);
    CHECK_INT(chr_fe_write(&l.rec.fe, "more", 4), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_shutdown(&l.rec.fe), 0);
    CHECK_INT(write(l.fd, ping, sizeof ping), sizeof ping);
    CHECK_INT(write(l.fd, data, sizeof data), sizeof data);
    PUMP(&l.r, l.rec.length == 3);
    CHECK_INPUT(&l.rec, "abc");
    settle(&l.r);
    CHECK(l.rec.open);
    CHECK_STR(hear(l.fd), ""); /* no pong, no second Close, no end */
    CHECK_INT(write(l.fd, goodbye, sizeof goodbye), sizeof goodbye);
    PUMP(&l.r, !l.rec.open);
    CHECK_STR(hear(l.fd), "(eof)");
    line_close(&l);
}

TEST(websocket_close_comes_behind_what_is_queued)
{
    size_t taken, got;
    char   tail[8];
    line   l;
    line_open(&l, ",websocket=on,obuf=64K");
    shake_hands(&l);
    taken = fill_up(&l.rec.fe);
    CHECK_INT(chr_fe_shutdown(&l.rec.fe), 0);
    for (got = 0; got < taken; got += drain(&l.r, l.fd, taken - got < 65536 ? taken - got : 65536)) settle(&l.r);
    settle(&l.r);
    shutdown(l.fd, SHUT_WR);
    (void)hear_to_end(&l, tail);
    CHECK_INT(l.rec.open, 0);
    line_close(&l);
}

/* ---- other kinds ------------------------------------------------------------------------------------------------- */

TEST(descriptors_of_their_own_are_closed)
{
    recorder rec;
    rig      r;
    int      in[2], out[2], fds;
    REQUIRE(pipe(in) == 0 && pipe(out) == 0);
    rig_open(&r);
    attach(&rec, make(&r, text("fd,id=p,in=%d,out=%d", dup(in[0]), dup(out[1]))));
    close(out[1]);
    close(in[0]);
    CHECK_INT(chr_fe_write(&rec.fe, "last", 4), 4);
    fds = count_fds();
    CHECK_INT(chr_fe_shutdown(&rec.fe), 0);
    CHECK(count_fds() < fds); /* a pipe that others have too was opened anew: then it is two */
    CHECK_STR(hear(out[0]), "last");
    CHECK_STR(hear(out[0]), "(eof)");
    CHECK_INT(chr_fe_write(&rec.fe, "more", 4), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_shutdown(&rec.fe), 0);
    say(in[1], "answer");
    settle(&r);
    CHECK_INPUT(&rec, "answer");
    CHECK_STR(rec.events, "O");
    close(in[1]);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    close(out[0]);
    detach(&rec);
    r.fds -= 2; /* in[0] and out[1] were open when it was counted */
    r.fds -= 2;
    rig_close(&r);
}

TEST(socket_as_fd_gets_its_fin)
{
    recorder rec;
    rig      r;
    int      pair[2];
    rig_open(&r);
    socket_pair(pair);
    attach(&rec, make(&r, text("fd,id=p,in=%d,out=%d", pair[0], pair[0])));
    CHECK_INT(chr_fe_shutdown(&rec.fe), 0);
    CHECK_STR(hear(pair[1]), "(eof)");
    say(pair[1], "answer");
    settle(&r);
    CHECK_INPUT(&rec, "answer");
    close(pair[1]);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

TEST(file_and_pipe_are_closed)
{
    recorder rec;
    rig      r;
    int      reader, fds;
    NEED_POSIX("handles of files and pipes have events beside them");
    rig_open(&r);
    attach(&rec, make(&r, text("file,id=f,path=%s", scratch("f"))));
    fds = count_fds();
    CHECK_INT(chr_fe_shutdown(&rec.fe), 0);
    CHECK_INT(count_fds(), fds - 1);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    detach(&rec);
    REQUIRE(mkfifo(scratch("p.in"), 0600) == 0 && mkfifo(scratch("p.out"), 0600) == 0);
    attach(&rec, make(&r, text("pipe,id=p,path=%s", scratch("p"))));
    reader = open(scratch("p.out"), O_RDONLY | O_NONBLOCK);
    CHECK_INT(chr_fe_write(&rec.fe, "last", 4), 4);
    CHECK_INT(chr_fe_shutdown(&rec.fe), 0);
    CHECK_STR(hear(reader), "last");
    CHECK_STR(hear(reader), "(eof)");
    close(reader);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(where_there_is_no_end_of_output)
{
    static const char *const table[] = { "null,id=x", "ringbuf,id=x", "pty,id=x", "testdev,id=x", "msmouse,id=x", "stdio,id=x",
                                         "udp,id=x,host=127.0.0.1,port=9" };
    chr_frontend             fe;
    recorder                 rec;
    rig                      r;
    size_t                   i;
    rig_open(&r);
    for (i = 0; i < sizeof table / sizeof table[0]; i++) {
        attach(&rec, make(&r, table[i]));
        if (!CHECK_INT(chr_fe_shutdown(&rec.fe), CHR_ERR_NOT_SUPPORTED)) NOTE("for %s", table[i]);
        CHECK(chr_fe_write(&rec.fe, "\n", 1) == 1 || !chr_fe_backend_open(&rec.fe)); /* output goes on */
        detach(&rec);
        CHECK_INT(chr_remove(r.ctx, "x", NULL), 0);
    }
    REQUIRE(chr_fe_init(&fe, NULL, NULL) == 0);
    CHECK_INT(chr_fe_shutdown(&fe), CHR_ERR_DISCONNECTED);
    rig_close(&r);
}

/* ---- mux and hub ------------------------------------------------------------------------------------------------- */

TEST(mux_passes_it_on_from_its_only_frontend)
{
    chr_error err;
    recorder  one, two;
    rig       r;
    int       pair[2];
    rig_open(&r);
    socket_pair(pair);
    attach(&one, make(&r, text("socket,id=s,fd=%d,mux=on,half-close=on", pair[0])));
    memset(&two, 0, sizeof two);
    two.room = UNLIMITED;
    REQUIRE(chr_fe_init(&two.fe, chr_find(r.ctx, "s"), &err) == 0);
    listen_to(&two);
    CHECK_INT(chr_fe_shutdown(&one.fe), CHR_ERR_NOT_SUPPORTED);
    shutdown(pair[1], SHUT_WR);
    settle(&r);
    CHECK_HAS(one.events, "E"); /* it is so for all, whoever has the focus */
    CHECK_HAS(two.events, "E");
    detach(&two);
    CHECK_INT(chr_fe_write(&one.fe, "last", 4), 4);
    CHECK_INT(chr_fe_shutdown(&one.fe), 0);
    CHECK_STR(hear(pair[1]), "last");
    CHECK_STR(hear(pair[1]), "(eof)");
    settle(&r);
    CHECK_INT(one.open, 0);
    close(pair[1]);
    detach(&one);
    rig_close(&r);
}

TEST(hub_passes_it_to_all_and_counts_the_speakers)
{
    recorder rec;
    rig      r;
    int      a[2], b[2];
    rig_open(&r);
    socket_pair(a);
    socket_pair(b);
    (void)make(&r, text("socket,id=a,fd=%d,half-close=on", a[0]));
    (void)make(&r, text("socket,id=b,fd=%d,half-close=on", b[0]));
    (void)make(&r, "null,id=n");
    attach(&rec, make(&r, "hub,id=h,chardevs.0=a,chardevs.1=b,chardevs.2=n"));
    settle(&r);
    shutdown(a[1], SHUT_WR);
    settle(&r);
    CHECK_STR(rec.events, "O"); /* b may still say something */
    say(b[1], "b");
    shutdown(b[1], SHUT_WR);
    settle(&r);
    CHECK_STR(rec.events, "OE");
    CHECK_INPUT(&rec, "b");
    CHECK_INT(chr_fe_write(&rec.fe, "last", 4), 4);
    CHECK_INT(chr_fe_shutdown(&rec.fe), 0);
    CHECK_STR(hear(a[1]), "last");
    CHECK_STR(hear(a[1]), "(eof)");
    CHECK_STR(hear(b[1]), "last");
    CHECK_STR(hear(b[1]), "(eof)");
    settle(&r);
    CHECK_STR(rec.events, "OEC");
    close(a[1]);
    close(b[1]);
    detach(&rec);
    rig_close(&r);
}

/* The one that went without a half-close was the last that could speak. */
TEST(hub_input_ends_when_the_last_speaker_goes)
{
    recorder rec;
    rig      r;
    int      a[2], b[2];
    NEED_UNIX();
    rig_open(&r);
    socket_pair(a);
    socket_pair(b);
    (void)make(&r, text("socket,id=a,fd=%d,half-close=on", a[0]));
    (void)make(&r, text("socket,id=b,fd=%d", b[0]));
    attach(&rec, make(&r, "hub,id=h,chardevs.0=a,chardevs.1=b"));
    shutdown(a[1], SHUT_WR);
    settle(&r);
    CHECK_STR(rec.events, "O");
    close(b[1]);
    settle(&r);
    CHECK_STR(rec.events, "OE");
    close(a[1]);
    settle(&r);
    CHECK_STR(rec.events, "OEC");
    detach(&rec);
    rig_close(&r);
}

/* ---- the end of input alone -------------------------------------------------------------------------------------- */

TEST(without_half_close_the_end_of_input_is_closed)
{
    line l;
    line_open(&l, "");
    shutdown(l.fd, SHUT_WR);
    PUMP(&l.r, !l.rec.open);
    CHECK_STR(l.rec.events, "OC");
    line_close(&l);
}

static void output_goes_on(line *l)
{
    say(l->fd, "question");
    shutdown(l->fd, SHUT_WR);
    PUMP(&l->r, strchr(l->rec.events, 'E') != NULL);
    CHECK_INPUT(&l->rec, "question");
    settle(&l->r);
    CHECK_INT(chr_loop_step(l->r.ctx, 20), 0); /* it does not spin */
    CHECK_STR(l->rec.events, "OE");
    CHECK_INT(chr_fe_write(&l->rec.fe, "answer", 6), 6);
    far_end_gets(l, "answer");
}

TEST(half_close_lets_output_go_on)
{
    size_t taken;
    line   l;
    NEED_UNIX();
    line_open(&l, ",half-close=on");
    output_goes_on(&l);
    taken = fill_up(&l.rec.fe);
    chr_fe_add_watch(&l.rec.fe, recorder_writable, &l.rec);
    CHECK_INT(drain(&l.r, l.fd, taken), taken);
    PUMP(&l.r, l.rec.writable == 1);
    close(l.fd); /* altogether */
    PUMP(&l.r, !l.rec.open);
    CHECK_STR(l.rec.events, "OEC");
    line_connect(&l);
    PUMP(&l.r, l.rec.open);
    say(l.fd, "next");
    settle(&l.r);
    CHECK_MEM(l.rec.input + 8, l.rec.length - 8, "next", 4);
    line_close(&l);
}

TEST(half_close_over_tcp)
{
    line l;
    int  port, listener = tcp_listen(&port), i;
    rig_open(&l.r);
    attach(&l.rec, make(&l.r, text("socket,id=s,host=127.0.0.1,port=%d,half-close=on", port)));
    l.fd = accept(listener, NULL, NULL);
    output_goes_on(&l);
    close(l.fd);
    l.fd = -1;
    for (i = 0; i < 1000 && l.rec.open; i++) { /* a peer that has closed altogether is told apart by its reset */
        (void)chr_fe_write(&l.rec.fe, "x", 1);
        chr_loop_step(l.r.ctx, 10);
    }
    CHECK_STR(l.rec.events, "OEC");
    line_close(&l);
    close(listener);
}

TEST(half_close_under_telnet)
{
    line l;
    line_open(&l, ",half-close=on,telnet=on");
    settle(&l.r);
    (void)hear(l.fd);
    output_goes_on(&l);
    line_close(&l);
}

TEST(both_ends_make_closed)
{
    line l;
    line_open(&l, ",half-close=on");
    output_goes_on(&l);
    CHECK_INT(chr_fe_shutdown(&l.rec.fe), 0);
    CHECK_STR(l.rec.events, "OE"); /* from the loop only */
    CHECK_STR(hear(l.fd), "(eof)");
    settle(&l.r);
    CHECK_STR(l.rec.events, "OEC");
    line_close(&l);
    line_open(&l, ",half-close=on");
    CHECK_INT(chr_fe_shutdown(&l.rec.fe), 0);
    settle(&l.r);
    shutdown(l.fd, SHUT_WR);
    PUMP(&l.r, !l.rec.open);
    CHECK_STR(l.rec.events, "OC"); /* no output is left that could go on */
    line_close(&l);
}

TEST(peer_that_closes_altogether_is_closed_at_once)
{
    line l;
    NEED_UNIX();
    line_open(&l, ",half-close=on");
    say(l.fd, "last");
    close(l.fd);
    l.fd = -1;
    PUMP(&l.r, !l.rec.open);
    CHECK_INPUT(&l.rec, "last");
    CHECK_STR(l.rec.events, "OC");
    line_close(&l);
}

/* What the frontend has no room for comes before the end. */
TEST(input_end_waits_for_room)
{
    line l;
    line_open(&l, ",half-close=on");
    l.rec.room = 0;
    say(l.fd, "held");
    shutdown(l.fd, SHUT_WR);
    settle(&l.r);
    CHECK_STR(l.rec.events, "O");
    CHECK_INT(chr_fe_write(&l.rec.fe, "answer", 6), 6);
    give_room(&l.rec, 4);
    settle(&l.r);
    CHECK_INPUT(&l.rec, "held");
    PUMP(&l.r, strchr(l.rec.events, 'E') != NULL);
    CHECK_STR(l.rec.events, "OE");
    line_close(&l);
}

/* New handlers get the state, as with OPENED. */
TEST(late_handlers_are_told)
{
    line l;
    line_open(&l, ",half-close=on");
    shutdown(l.fd, SHUT_WR);
    settle(&l.r);
    CHECK_STR(l.rec.events, "OE");
    listen_to(&l.rec);
    CHECK_STR(l.rec.events, "OEOE");
    line_close(&l);
}

static void leave_in_handler(recorder *rec, int what)
{
    if (what == 'e' && rec->last_event == CHR_EVENT_INPUT_END && strcmp((const char *)rec->user, "disconnect") == 0) chr_fe_disconnect(&rec->fe);
    else if (what == 'e' && rec->last_event == CHR_EVENT_INPUT_END && strcmp((const char *)rec->user, "shutdown") == 0)
        CHECK_INT(chr_fe_shutdown(&rec->fe), 0);
    else if (what == 'e' && rec->last_event == CHR_EVENT_INPUT_END) {
        chr_context *ctx = rec->fe.dev->ctx;
        chr_fe_deinit(&rec->fe);
        CHECK_INT(chr_remove(ctx, "s", NULL), 0);
    }
}

TEST(anything_inside_the_handler)
{
    static const char *const ways[] = { "disconnect", "shutdown", "remove" };
    size_t                   i;
    line                     l;
    for (i = 0; i < 3; i++) {
        line_open(&l, ",half-close=on");
        l.rec.then = leave_in_handler;
        l.rec.user = (void *)(uintptr_t)ways[i];
        shutdown(l.fd, SHUT_WR);
        settle(&l.r);
        far_end_gets(&l, "(eof)");
        if (!CHECK_STR(l.rec.events, i == 2 ? "OE" : "OEC")) NOTE("for %s", ways[i]);
        line_close(&l);
    }
}

TEST(half_close_needs_halves)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    CHECK_INT(refuse(&r, "socket,id=s,path=/x,server=on,wait=off,websocket=on,half-close=on", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "half-close=on");
    rig_close(&r);
}

/* ---- recorded ---------------------------------------------------------------------------------------------------- */

static void talk_and_end(recorder *rec)
{
    CHECK_INT(chr_fe_write(&rec->fe, "last", 4), 4);
    CHECK_INT(chr_fe_shutdown(&rec->fe), 0);
    CHECK_INT(chr_fe_write(&rec->fe, "more", 4), CHR_ERR_DISCONNECTED);
}

TEST(shutdown_is_replayed)
{
    chr_error err;
    line      l;
    rig_open_virtual(&l.r);
    REQUIRE(chr_record_start(l.r.ctx, scratch("tape"), &err) == 0);
    attach(&l.rec, make(&l.r, text("socket,id=s,path=%s,server=on,wait=off,half-close=on", scratch("s"))));
    line_connect(&l);
    settle(&l.r);
    CHECK(l.rec.open);
    l.r.now += 1000000;
    talk_and_end(&l.rec);
    l.r.now += 1000000;
    say(l.fd, "answer");
    settle(&l.r);
    l.r.now += 1000000;
    shutdown(l.fd, SHUT_WR);
    settle(&l.r);
    CHECK_STR(l.rec.events, "OC");
    close(l.fd);
    l.fd = -1;
    detach(&l.rec);
    CHECK_INT(chr_record_stop(l.r.ctx), 0);
    rig_close(&l.r);

    rig_open_virtual(&l.r);
    REQUIRE(chr_replay_open(l.r.ctx, scratch("tape"), &err) == 0);
    attach(&l.rec, make(&l.r, "socket,id=s,path=/nowhere,server=on,wait=off,half-close=on"));
    settle(&l.r);
    CHECK(l.rec.open);
    l.r.now += 1000000;
    talk_and_end(&l.rec);
    pass_time(&l.r, 1);
    CHECK_INPUT(&l.rec, "answer");
    pass_time(&l.r, 1);
    CHECK_STR(l.rec.events, "OC");
    CHECK_INT(l.r.logs, 0);
    line_close(&l);
}

/* ---- chr_drain --------------------------------------------------------------------------------------------------- */

static void drain_in_handler(recorder *rec, int what)
{
    if (what == 'e') CHECK_INT(chr_drain(rec->fe.dev->ctx, 0), CHR_ERR_IN_HANDLER);
}

TEST(drain_of_nothing)
{
    line l;
    line_open(&l, ",obuf=64K");
    CHECK_INT(chr_drain(l.r.ctx, 0), 0);
    CHECK_INT(chr_drain(l.r.ctx, -1), 0);
    l.rec.then = drain_in_handler;
    close(l.fd);
    PUMP(&l.r, !l.rec.open);
    l.fd = -1;
    line_close(&l);
}

/* A child that reads all, with pauses; its exit status is whether the expected number of bytes arrived. */
static pid_t slow_reader(int fd, size_t want)
{
    static char block[8192];
    size_t      total = 0;
    ssize_t     got;
    pid_t       pid = fork();
    int         other;

    if (pid != 0) return pid;
    for (other = 3; other < 64; other++)
        if (other != fd) close(other); /* our end of it */
    while ((got = read(fd, block, sizeof block)) > 0) {
        total += (size_t)got;
        usleep(30000);
    }
    _exit(total == want ? 0 : 1);
}

static int status_of(pid_t pid)
{
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
}

/* It takes longer in all than the limit without progress. */
TEST(drain_waits_for_a_slow_reader)
{
    int64_t started;
    size_t  taken;
    pid_t   child;
    line    l;
    line_open(&l, ",obuf=1M");
    taken = fill_up(&l.rec.fe);
    child = slow_reader(l.fd, taken);
    close(l.fd);
    l.fd = -1;
    started = real_ms();
    CHECK_INT(chr_drain(l.r.ctx, 2500), 0);
    CHECK(real_ms() - started > 2700);
    line_close(&l);
    CHECK_INT(status_of(child), 0);
}

/* Whatever holds it: telnet counts what it has encoded. */
static void drain_gives_up(const void *arg)
{
    chr_info info;
    int64_t  started;
    line     l;
    line_open(&l, (const char *)arg);
    if (strstr((const char *)arg, "websocket")) shake_hands(&l);
    (void)fill_up(&l.rec.fe);
    chr_query(l.dev, &info);
    CHECK(info.bytes_queued > 0);
    started = real_ms();
    CHECK_INT(chr_drain(l.r.ctx, 100), CHR_ERR_TIMEOUT);
    CHECK(real_ms() - started >= 100);
    CHECK(real_ms() - started < 30000 * test_time_scale());
    while (hear(l.fd)[0]) settle(&l.r);
    CHECK_INT(chr_drain(l.r.ctx, 5000), 0);
    chr_query(l.dev, &info);
    CHECK_INT(info.bytes_queued, 0);
    line_close(&l);
}

TEST_FAMILY(gives_up)
{
    test_add_case("drain_gives_up_obuf", drain_gives_up, ",obuf=64K", TEST_SECONDS);
    test_add_case("drain_gives_up_telnet", drain_gives_up, ",telnet=on", TEST_SECONDS);
    test_add_case("drain_gives_up_websocket", drain_gives_up, ",websocket=on", TEST_SECONDS);
}

/* An end that waits is waited for. */
/* One time limit: time that chr_drain() has waited without progress counts. */
static int64_t free_after_drain(const void *arg)
{
    int64_t started;
    line    l;
    line_open(&l, (const char *)arg);
    if (strstr((const char *)arg, "websocket")) shake_hands(&l);
    (void)fill_up(&l.rec.fe);
    CHECK_INT(chr_drain(l.r.ctx, 1500), CHR_ERR_TIMEOUT);
    detach(&l.rec);
    started = real_ms();
    chr_context_free(l.r.ctx);
    started = real_ms() - started;
    CHECK(started >= 400);
    close(l.fd);
    scratch_clean();
    return started;
}

static void drain_and_free(const void *arg)
{
    NEED_LITTLE_ROOM();
    CHECK(least_ms(1900, free_after_drain, arg) < 1900);
}

static int64_t free_after_write(const void *arg)
{
    static char much[65536];
    chr_info    info;
    int64_t     started;
    int         fd;
    recorder    rec;
    rig         r;
    (void)arg;
    rig_open(&r);
    attach(&rec, make(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off"));
    chr_query(rec.fe.dev, &info);
    fd = tcp_connect(atoi(strrchr(info.address, ':') + 1));
    PUMP(&r, rec.open);
    while (chr_fe_write_all(&rec.fe, much, sizeof much, 1500) >= 0) continue;
    detach(&rec);
    started = real_ms();
    chr_context_free(r.ctx);
    started = real_ms() - started;
    close(fd);
    scratch_clean();
    return started;
}

/* The same when a write has waited, and for TCP, where the system's buffers count, too. */
TEST(write_in_vain_and_free)
{
    CHECK(least_ms(1900, free_after_write, NULL) < 1900);
}

/* But after new progress, it is. */
TEST(drain_in_vain_and_then_progress)
{
    size_t  taken;
    int64_t started;
    line    l;
    line_open(&l, ",obuf=64K");
    taken = fill_up(&l.rec.fe);
    CHECK(taken > 0);
    CHECK_INT(chr_drain(l.r.ctx, 600), CHR_ERR_TIMEOUT);
    while (hear(l.fd)[0]) settle(&l.r);
    (void)fill_up(&l.rec.fe);
    detach(&l.rec);
    started = real_ms();
    chr_context_free(l.r.ctx);
    CHECK(real_ms() - started >= 1800);
    close(l.fd);
    scratch_clean();
}

TEST_FAMILY(drain_and_free)
{
    test_add_case("drain_and_free_obuf", drain_and_free, ",obuf=64K", TEST_SECONDS);
    test_add_case("drain_and_free_telnet", drain_and_free, ",telnet=on", TEST_SECONDS);
    test_add_case("drain_and_free_websocket", drain_and_free, ",websocket=on", TEST_SECONDS);
}

TEST(drain_and_shutdown)
{
    size_t taken;
    pid_t  child;
    line   l;
    line_open(&l, ",obuf=64K");
    taken = fill_up(&l.rec.fe);
    CHECK_INT(chr_fe_shutdown(&l.rec.fe), 0);
    child = slow_reader(l.fd, taken);
    CHECK_INT(chr_drain(l.r.ctx, 2000), 0);
    CHECK_INT(status_of(child), 0); /* it has seen the end */
    CHECK(l.rec.open);
    line_close(&l);
}

TEST(drain_ends_with_a_peer_that_goes)
{
    line l;
    line_open(&l, ",obuf=64K");
    (void)fill_up(&l.rec.fe);
    close(l.fd);
    l.fd = -1;
    CHECK_INT(chr_drain(l.r.ctx, -1), 0);
    line_close(&l);
}
