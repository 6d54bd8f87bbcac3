/* Buffered frontends: input is read ahead and pulled or delivered, small writes are gathered; nothing is lost, nothing overtakes. */
#include "chardev.h"
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

/* What chr_fe_read() gives until it gives no more, and at the end why: '.' would block, '!' disconnected, '-' not supported. */
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

/* ---- pull ------------------------------------------------------------------------------------------------------------ */

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

/* New handlers learn of what is there. */
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

/* ---- delivered ------------------------------------------------------------------------------------------------------- */

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

/* ---- gathered -------------------------------------------------------------------------------------------------------- */

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
