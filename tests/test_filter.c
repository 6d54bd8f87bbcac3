/*
 * A stacked backend outside of the header, written with its public part only: examples/filter_rot13.c, and one here
 * that makes two bytes of some.
 */
#define FILTER_ROT13_ALONE
#include "../examples/filter_rot13.c"
#include "rig.h"

#include <pthread.h>
#include <termios.h>

/* ---- crlf: a newline goes out as two bytes, of which the second may have to wait --------------------------------- */

typedef struct crlf {
    chr_stacked stacked;
    int         owes_newline; /* its '\r' is out */
} crlf;

static void crlf_writable(void *opaque);

static int crlf_flush(crlf *state)
{
    int n = state->owes_newline ? chr_stacked_write(&state->stacked.dev, "\n", 1) : 1;
    if (n == CHR_ERR_WOULD_BLOCK) chr_fe_add_watch(&state->stacked.below, crlf_writable, state);
    else state->owes_newline = 0;
    return n;
}

static int crlf_write(chr_dev *dev, const void *buf, size_t len)
{
    crlf       *state = (crlf *)(void *)dev;
    const char *text = (const char *)buf;
    size_t      done = 0;
    int         n = crlf_flush(state);
    while (done < len && n > 0) {
        if (text[done] == '\n') {
            n = chr_stacked_write(dev, "\r", 1);
            if (n <= 0) break;
            done++;
            state->owes_newline = 1;
            n = crlf_flush(state);
        } else {
            n = chr_stacked_write(dev, text + done, 1);
            done += n > 0;
        }
    }
    return done > 0 ? (int)done : n;
}

static void crlf_writable(void *opaque)
{
    crlf    *state = (crlf *)opaque;
    chr_dev *dev = &state->stacked.dev;
    if (crlf_flush(state) == CHR_ERR_WOULD_BLOCK) return;
    chr_be_writable(dev);
    if (!dev->removed && chr_be_wants_writable(dev)) chr_fe_add_watch(&state->stacked.below, crlf_writable, state);
}

static void crlf_update(chr_dev *dev)
{
    crlf *state = (crlf *)(void *)dev;
    if (chr_be_wants_writable(dev)) chr_fe_add_watch(&state->stacked.below, crlf_writable, state);
    chr_fe_accept_input(&state->stacked.below);
}

static size_t crlf_queued(const chr_dev *dev)
{
    return (size_t)((const crlf *)(const void *)dev)->owes_newline + chr_stacked_queued(dev);
}

static int crlf_open(chr_dev *dev, chr_error *err)
{
    return chr_stacked_open(dev, ((const rot13_options *)dev->options)->chardev, NULL, err);
}

CHR_TABLE(chr_io, crlf_io,
    CHR_SET(write,   crlf_write)
    CHR_SET(update,  crlf_update)
    CHR_SET(wait_fd, chr_stacked_wait_fd));
CHR_TABLE(chr_peer_slots, crlf_peer,
    CHR_SET(queued, crlf_queued));
CHR_TABLE(chr_backend, crlf_backend,
    CHR_SET(name,         "crlf")
    CHR_SET(help,         "newlines as two bytes")
    CHR_SET(options,      rot13_rows)
    CHR_SET(options_size, sizeof(rot13_options))
    CHR_SET(state_size,   sizeof(crlf))
    CHR_SET(open,         crlf_open)
    CHR_SET(close,        chr_stacked_close)
    CHR_SET(io,           &crlf_io)
    CHR_SET(describe,     chr_stacked_describe)
    CHR_SET(ioctl,        chr_stacked_ioctl)
    CHR_SET(set_open,     chr_stacked_set_open)
    CHR_SET(peer,         &crlf_peer));

/* ---- the rig ----------------------------------------------------------------------------------------------------- */

static void open_filter_rig(rig *r)
{
    rig_open(r);
    REQUIRE(chr_backend_register(r->ctx, &rot13_backend, NULL) == 0);
    REQUIRE(chr_backend_register(r->ctx, &crlf_backend, NULL) == 0);
}

/* A connected socket as chardev `id`; returns the peer's end. */
static int make_socket(rig *r, const char *id)
{
    char text[100];
    int  pair[2], size = 4096;
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    snprintf(text, sizeof text, "socket,id=%s,fd=%d,half-close=on", id, pair[0]);
    make(r, text);
    return pair[1];
}

static void take(rig *r, int fd, char *buf, size_t len)
{
    size_t at = 0;
    while (at < len) {
        ssize_t n = recv(fd, buf + at, len - at, MSG_DONTWAIT);
        if (n > 0) at += (size_t)n;
        else if (!CHECK(n < 0 && errno == EAGAIN)) return;
        chr_loop_step(r->ctx, n > 0 ? 0 : 5);
    }
}

TEST(filter_turns_both_ways)
{
    recorder rec;
    char     buf[20];
    rig      r;
    int      peer;
    open_filter_rig(&r);
    peer = make_socket(&r, "s");
    attach(&rec, make(&r, "rot13,id=f,chardev=s"));
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_write(&rec.fe, "Hello, World!\n", 14), 14);
    take(&r, peer, buf, 14);
    CHECK_MEM(buf, 14, "Uryyb, Jbeyq!\n", 14);
    CHECK_INT(write(peer, "Jrypbzr.", 8), 8);
    PUMP(&r, rec.length == 8);
    CHECK_INPUT(&rec, "Welcome.");
    CHECK_INT(shutdown(peer, SHUT_WR), 0);
    PUMP(&r, strlen(rec.events) == 2);
    close(peer);
    if (RIG_OVER_TCP) write_to_nobody(&rec.fe); /* TCP tells of a close after a half-close when something is written */
    PUMP(&r, !rec.open);
    CHECK_STR(rec.events, "OEC");
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    detach(&rec);
    rig_close(&r);
}

TEST(filter_options_and_help)
{
    chr_error err;
    rig       r;
    open_filter_rig(&r);
    make(&r, "null,id=n");
    CHECK(chr_new(r.ctx, "rot13,id=f", &err) == NULL);
    CHECK_STR(err.text, "rot13: needs chardev=");
    CHECK(chr_new(r.ctx, "rot13,id=f,chardev=n,rot=26", &err) == NULL);
    CHECK_HAS(err.text, "rot13: rot=26: out of range, 1 to 25");
    CHECK(chr_new(r.ctx, "rot13,id=f,chardev=n,colour=red", &err) == NULL);
    CHECK_HAS(err.text, "'colour=red' (allowed: id, chardev, rot, logfile");
    CHECK(chr_new(r.ctx, "rot13,id=f,chardev=m", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_NOT_FOUND);
    CHECK_STR(err.text, "rot13: chardev=m: there is no chardev with that id");
    CHECK(chr_new(r.ctx, "rot13,id=f,chardev=f", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_NOT_FOUND);
    CHECK(chr_new_any(r.ctx, "f", "rot13,help", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_HELP);
    make(&r, "rot13,id=f,chardev=n");
    CHECK(chr_new(r.ctx, "rot13,id=g,chardev=n", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_BUSY);
    CHECK_STR(err.text, "rot13: chardev 'n' has a frontend already");
    CHECK_INT(chr_remove(r.ctx, "n", &err), CHR_ERR_BUSY);
    CHECK_INT(chr_remove(r.ctx, "f", &err), 0);
    CHECK_INT(chr_remove(r.ctx, "n", &err), 0); /* it has let go, those that failed too */
    rig_close(&r);
}

/* One megabyte against a reader that takes a little now and then; no byte is lost or comes twice. */
static void check_output(const char *kind, const char *text, const char *shown)
{
    enum { ROUNDS = 40000 };
    static char want[ROUNDS * 16], got[ROUNDS * 16];
    size_t      len = strlen(text), out = strlen(shown), i, sent = 0, at = 0;
    int         blocked = 0;
    char        options[60];
    recorder    rec;
    rig         r;
    int         peer;
    open_filter_rig(&r);
    peer = make_socket(&r, "s");
    snprintf(options, sizeof options, "%s,id=f,chardev=s", kind);
    attach(&rec, make(&r, options));
    settle(&r);
    for (i = 0; i < ROUNDS; i++) memcpy(want + i * out, shown, out);
    while (at < ROUNDS * out) {
        if (sent < ROUNDS * len) {
            char piece[700];
            int  n;
            for (i = 0; i < sizeof piece && sent + i < ROUNDS * len; i++) piece[i] = text[(sent + i) % len];
            n = chr_fe_write(&rec.fe, piece, i);
            if (n > 0) {
                sent += (size_t)n;
                continue;
            }
            REQUIRE(n == CHR_ERR_WOULD_BLOCK);
            blocked++;
            rec.writable = 0;
            chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
            settle(&r);
            CHECK_INT(rec.writable, 0); /* nobody has read */
        }
        while (at < ROUNDS * out) {
            ssize_t n = recv(peer, got + at, 3000, MSG_DONTWAIT);
            if (n <= 0) break;
            at += (size_t)n;
        }
        settle(&r);
        if (sent < ROUNDS * len) PUMP(&r, rec.writable);
    }
    CHECK(memcmp(got, want, at) == 0);
    CHECK(blocked > 10);
    detach(&rec);
    close(peer);
    rig_close(&r);
}

TEST(filter_output_with_back_pressure) { check_output("rot13", "Hello, world", "Uryyb, jbeyq"); }
TEST(filter_output_that_grows_with_back_pressure) { check_output("crlf", "a\n\nbc\n", "a\r\n\r\nbc\r\n"); }

/* What the filter holds itself goes out without another write, and counts until then. */
TEST(filter_output_that_it_holds_itself)
{
    static char waste[1 << 20];
    recorder    rec;
    chr_info    info;
    char        last = 0;
    int         i, n;
    ssize_t     got;
    rig         r;
    int         peer, seen = 0;
    open_filter_rig(&r);
    peer = make_socket(&r, "s");
    attach(&rec, make(&r, "crlf,id=f,chardev=s"));
    settle(&r);
    do { /* until the socket is full between the two bytes of a newline */
        do n = chr_fe_write(&rec.fe, "\n", 1);
        while (n == 1);
        chr_query(chr_find(r.ctx, "f"), &info);
        if (info.bytes_queued == 0) {
            got = recv(peer, waste, 1, MSG_DONTWAIT);
            CHECK(got == 1);
            settle(&r);
        }
        seen++;
    } while (info.bytes_queued == 0 && seen < 5000);
    CHECK_INT(info.bytes_queued, 1);
    for (i = 0; i < 1000; i++) {
        got = recv(peer, waste, sizeof waste, MSG_DONTWAIT);
        if (got > 0) last = waste[got - 1];
        chr_loop_step(r.ctx, 0);
    }
    CHECK_INT(last, '\n');
    chr_query(chr_find(r.ctx, "f"), &info);
    CHECK_INT(info.bytes_queued, 0);
    detach(&rec);
    close(peer);
    rig_close(&r);
}

/* Three bytes at a time: never more, and the peer is held up meanwhile. */
TEST(filter_input_with_back_pressure)
{
    static char block[300000];
    recorder    rec;
    size_t      sent = 0, i;
    rig         r;
    int         peer;
    open_filter_rig(&r);
    peer = make_socket(&r, "s");
    attach_with_room(&rec, make(&r, "rot13,id=f,chardev=s,rot=1"), 3);
    memset(block, 'b', sizeof block);
    fcntl(peer, F_SETFL, O_NONBLOCK);
    for (;;) {
        ssize_t n = write(peer, block, sizeof block - sent);
        if (n < 0) break;
        sent += (size_t)n;
        settle(&r);
        if (sent == sizeof block) break;
    }
    CHECK_INT((long long)rec.length, 3);
    CHECK(sent < sizeof block);
    give_room(&rec, 4);
    PUMP(&r, rec.length == 7);
    settle(&r);
    CHECK_INT((long long)rec.length, 7);
    give_room(&rec, UNLIMITED);
    PUMP(&r, rec.length == sent);
    for (i = 0; i < rec.length && rec.input[i] == 'a'; i++) {}
    CHECK_INT((long long)i, (long long)sent);
    detach(&rec);
    close(peer);
    rig_close(&r);
}

/* Its frontend may go, or remove all, inside of a read. */
static void remove_both(recorder *rec, int what)
{
    chr_context *context = rec->fe.ctx;
    if (what != 'r') return;
    rec->then = NULL;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(context, "f", NULL), 0);
    CHECK_INT(chr_remove(context, "s", NULL), 0);
}

TEST(filter_removed_by_its_reader)
{
    recorder rec;
    char     block[2000];
    rig      r;
    int      peer;
    open_filter_rig(&r);
    peer = make_socket(&r, "s");
    attach(&rec, make(&r, "rot13,id=f,chardev=s"));
    settle(&r);
    rec.then = remove_both;
    memset(block, 'n', sizeof block);
    CHECK_INT(write(peer, block, sizeof block), (long long)sizeof block);
    PUMP(&r, rec.then == NULL);
    settle(&r);
    CHECK_INT((long long)rec.length, 512); /* the first piece of the filter's; the rest had no taker */
    CHECK(chr_next(r.ctx, NULL) == NULL);
    free(rec.input);
    close(peer);
    rig_close(&r);
}

TEST(filter_passes_events_and_ioctls)
{
    recorder          rec;
    chr_info          info;
    chr_terminal_size size = { 90, 30 }, now = { 0, 0 };
    struct termios    raw;
    rig               r;
    int               fd;
    open_filter_rig(&r);
    make(&r, "pty,id=p");
    attach(&rec, make(&r, "rot13,id=f,chardev=p"));
    settle(&r);
    CHECK_STR(rec.events, "");
    chr_query(chr_find(r.ctx, "f"), &info);
    CHECK_STR(info.backend, "rot13");
    CHECK(strncmp(info.filename, "rot13:pty:/dev/", 15) == 0);
    CHECK_INT(info.comes_back, 1);
    fd = open(info.filename + 10, O_RDWR | O_NOCTTY);
    REQUIRE(fd >= 0);
    tcgetattr(fd, &raw);
    cfmakeraw(&raw);
    tcsetattr(fd, TCSANOW, &raw);
    PUMP(&r, rec.open);
    CHECK_INT(chr_send_break(r.ctx, "p", NULL), 0);
    CHECK_INT(chr_send_break(r.ctx, "f", NULL), 0);
    CHECK_STR(rec.events, "OBB");
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SET_TERMINAL_SIZE, &size), 0);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_PARAMS, &now), CHR_ERR_NOT_SUPPORTED);
    close(fd);
    PUMP(&r, !rec.open);
    detach(&rec);
    rig_close(&r);
}

/* All that only sockets have. */
TEST(filter_on_a_server)
{
    struct sockaddr_un address;
    recorder           rec;
    chr_error          err;
    chr_info           info;
    char               text[300], buf[8];
    rig                r;
    int                peer, pair[2], pipe_ends[2], fds[2];
    open_filter_rig(&r);
    snprintf(text, sizeof text, "socket,id=s,path=%s,server=on,wait=off,half-close=on", scratch("s"));
    make(&r, text);
    attach(&rec, make(&r, "rot13,id=f,chardev=s"));
    chr_query(rec.fe.dev, &info);
    snprintf(text, sizeof text, "rot13:disconnected:unix:%s,server=on", scratch("s"));
    CHECK_STR(info.filename, text);
    CHECK_STR(info.address, scratch("s"));
    peer = socket(AF_UNIX, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof address.sun_path, "%.100s", scratch("s"));
    REQUIRE(connect(peer, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK_INT(chr_fe_wait_connected(&rec.fe, &err), 0);
    settle(&r);
    CHECK_STR(rec.events, "O");
    REQUIRE(pipe(pipe_ends) == 0);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, &pipe_ends[1], 1), 0);
    CHECK_INT(chr_fe_write_all(&rec.fe, "n", 1, 1000), 1);
    CHECK_INT(chr_fe_get_msgfds(&rec.fe, fds, 2), 0);
    CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    CHECK_INT(read(peer, buf, 8), 1);
    CHECK_INT(buf[0], 'a');
    CHECK_INT(read(peer, buf, 8), 0);
    close(peer);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK_INT(chr_add_client(r.ctx, "f", pair[0], &err), 0);
    settle(&r);
    CHECK_STR(rec.events, "OCO");
    CHECK_INT(chr_fe_write(&rec.fe, "b", 1), 1);
    CHECK_INT(chr_fe_shutdown(&rec.fe), 0);
    CHECK_INT(chr_fe_write(&rec.fe, "b", 1), CHR_ERR_DISCONNECTED);
    CHECK_INT(recv(pair[1], buf, 8, 0), 1);
    CHECK_INT(recv(pair[1], buf, 8, 0), 0);
    CHECK_INT(write(pair[1], "bx", 2), 2);
    PUMP(&r, rec.length == 2);
    CHECK_INPUT(&rec, "ok");
    close(pair[1]);
    PUMP(&r, !rec.open);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* Blocking calls wait for the descriptor of the chardev below. */
static void *slow_peer(void *opaque)
{
    int    fd = *(int *)opaque;
    char   buf[4096];
    size_t total = 0;
    usleep(50000);
    while (total < 200000) {
        ssize_t n = read(fd, buf, sizeof buf);
        if (n <= 0) break;
        total += (size_t)n;
    }
    usleep(50000);
    if (write(fd, "qbar", 4) != 4) return NULL;
    return opaque;
}

TEST(filter_calls_that_block)
{
    static char block[200000];
    recorder    rec;
    pthread_t   thread;
    void       *result = NULL;
    char        buf[8];
    rig         r;
    int         peer;
    open_filter_rig(&r);
    peer = make_socket(&r, "s");
    attach_with_room(&rec, make(&r, "rot13,id=f,chardev=s"), 0);
    settle(&r);
    REQUIRE(pthread_create(&thread, NULL, slow_peer, &peer) == 0);
    CHECK_INT(chr_fe_write_all(&rec.fe, block, sizeof block, 20000), (long long)sizeof block);
    CHECK_INT(chr_fe_read_all(&rec.fe, buf, 4, 20000), 4);
    CHECK_MEM(buf, 4, "done", 4);
    pthread_join(thread, &result);
    CHECK(result == &peer);
    CHECK_INT(chr_fe_read_all(&rec.fe, buf, 1, 20), CHR_ERR_TIMEOUT);
    detach(&rec);
    close(peer);
    rig_close(&r);
}

TEST(filter_under_a_mux_and_a_hub)
{
    recorder  one, two;
    chr_error err;
    char      buf[20];
    rig       r;
    int       peer, other;
    open_filter_rig(&r);
    peer = make_socket(&r, "s");
    make(&r, "rot13,id=f,chardev=s,mux=on");
    attach(&one, chr_find(r.ctx, "f"));
    attach(&two, chr_find(r.ctx, "f"));
    settle(&r);
    CHECK_STR(one.events, "IOU");
    CHECK_INT(chr_fe_write(&one.fe, "one ", 4), 4);
    CHECK_INT(chr_fe_write(&two.fe, "two", 3), 3);
    take(&r, peer, buf, 7);
    CHECK_MEM(buf, 7, "bar gjb", 7);
    CHECK_INT(write(peer, "a\1pb", 4), 4); /* Ctrl-A c, as the filter turns it: to the other one */
    PUMP(&r, one.length == 1 && two.length == 1);
    CHECK_INPUT(&two, "n");
    CHECK_INPUT(&one, "o");
    CHECK_INT(chr_remove(r.ctx, "s", &err), CHR_ERR_BUSY);
    CHECK_INT(chr_remove(r.ctx, "f", &err), CHR_ERR_BUSY);
    CHECK_INT(chr_remove(r.ctx, "f-base", &err), CHR_ERR_BUSY);
    detach(&one);
    detach(&two);
    CHECK_INT(chr_remove(r.ctx, "f", &err), 0);
    CHECK(chr_find(r.ctx, "f-base") == NULL);
    other = make_socket(&r, "t");
    make(&r, "rot13,id=f,chardev=s");
    make(&r, "hub,id=h,chardevs.0=f,chardevs.1=t");
    make(&r, "rot13,id=g,chardev=h,rot=1"); /* and one on the hub */
    attach(&one, chr_find(r.ctx, "g"));
    settle(&r);
    CHECK_INT(chr_fe_write(&one.fe, "aa", 2), 2);
    take(&r, peer, buf, 2);
    CHECK_MEM(buf, 2, "oo", 2);
    take(&r, other, buf, 2);
    CHECK_MEM(buf, 2, "bb", 2);
    CHECK_INT(write(peer, "o", 1), 1);
    CHECK_INT(write(other, "b", 1), 1);
    PUMP(&r, one.length == 2);
    CHECK_INPUT(&one, "aa");
    detach(&one);
    close(peer);
    close(other);
    rig_close(&r);
}

/* On a mux it is one of the frontends. Three on each other cancel out. */
TEST(filter_on_a_mux_and_on_filters)
{
    recorder rec;
    char     buf[20];
    rig      r;
    int      peer;
    open_filter_rig(&r);
    peer = make_socket(&r, "s");
    make(&r, "mux,id=m,chardev=s");
    make(&r, "rot13,id=a,chardev=m,rot=1");
    make(&r, "rot13,id=b,chardev=a,rot=2");
    attach(&rec, make(&r, "rot13,id=c,chardev=b,rot=23"));
    settle(&r);
    CHECK(strchr(rec.events, 'O') != NULL);
    CHECK_INT(chr_fe_write(&rec.fe, "the same", 8), 8);
    take(&r, peer, buf, 8);
    CHECK_MEM(buf, 8, "the same", 8);
    CHECK_INT(write(peer, "and back", 8), 8);
    PUMP(&r, rec.length == 8);
    CHECK_INPUT(&rec, "and back");
    CHECK_INT(chr_remove(r.ctx, "b", NULL), CHR_ERR_BUSY);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "c", NULL), 0);
    CHECK_INT(chr_remove(r.ctx, "b", NULL), 0);
    CHECK_INT(chr_remove(r.ctx, "a", NULL), 0);
    close(peer);
    rig_close(&r);
}

/* Under it, instead of it, and it instead of another. */
TEST(filter_and_hot_swap)
{
    recorder  rec;
    chr_error err;
    char      buf[20];
    rig       r;
    int       peer, other;
    char      text[100];
    int       pair[2];
    open_filter_rig(&r);
    peer = make_socket(&r, "s");
    attach(&rec, make(&r, "rot13,id=f,chardev=s"));
    settle(&r);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    snprintf(text, sizeof text, "socket,fd=%d", pair[0]);
    CHECK_INT(chr_change(r.ctx, "s", text, &err), 0);
    settle(&r);
    CHECK_STR(rec.events, "O"); /* from an open one to an open one */
    CHECK_INT(chr_fe_write(&rec.fe, "a", 1), 1);
    take(&r, pair[1], buf, 1);
    CHECK_INT(buf[0], 'n');
    CHECK_INT(chr_change(r.ctx, "s", "null", &err), 0);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    other = make_socket(&r, "t");
    CHECK_INT(chr_change(r.ctx, "s", "rot13,chardev=t", &err), 0); /* a filter under the filter */
    settle(&r);
    CHECK_STR(rec.events, "OCO");
    CHECK_INT(chr_fe_write(&rec.fe, "a", 1), 1);
    take(&r, other, buf, 1);
    CHECK_INT(buf[0], 'a');
    CHECK_INT(chr_change(r.ctx, "s", "null", &err), 0);
    settle(&r);
    CHECK_STR(rec.events, "OCOC");
    CHECK_INT(chr_change(r.ctx, "f", "rot13,chardev=t,rot=1", &err), 0); /* another filter, on another one */
    settle(&r);
    CHECK_STR(rec.events, "OCOCO");
    CHECK_INT(rec.changes, 1);
    CHECK_INT(chr_fe_write(&rec.fe, "a", 1), 1);
    take(&r, other, buf, 1);
    CHECK_INT(buf[0], 'b');
    CHECK_INT(chr_remove(r.ctx, "s", &err), 0); /* the old one has let go of it */
    CHECK_INT(chr_change(r.ctx, "f", "ringbuf,size=16", &err), 0);
    CHECK_INT(chr_change(r.ctx, "f", "rot13,chardev=t", &err), 0);
    rec.change_answer = -1;
    CHECK_INT(chr_change(r.ctx, "f", "null", &err), CHR_ERR_BUSY);
    rec.change_answer = 0;
    CHECK_INT(chr_fe_write(&rec.fe, "a", 1), 1); /* and works on */
    take(&r, other, buf, 1);
    CHECK_INT(buf[0], 'n');
    detach(&rec);
    close(peer);
    close(other);
    close(pair[1]);
    rig_close(&r);
}

/* What would be a ring is refused, and all stays as it was. */
TEST(filter_not_on_itself)
{
    static const struct { const char *id, *options; int code; } table[] = {
        { "s", "rot13,chardev=f", CHR_ERR_NOT_SUPPORTED },
        { "s", "rot13,chardev=s", CHR_ERR_NOT_SUPPORTED }, /* itself */
        { "s", "rot13,chardev=free", CHR_ERR_NOT_SUPPORTED },
        { "s", "rot13,chardev=m", CHR_ERR_NOT_SUPPORTED },
        { "t", "rot13,chardev=onmux", CHR_ERR_NOT_SUPPORTED },
        { "u", "rot13,chardev=onhub", CHR_ERR_NOT_SUPPORTED },
        { "f", "rot13,chardev=f", CHR_ERR_NOT_SUPPORTED },
    };
    recorder  rec;
    chr_error err;
    char      buf[4];
    size_t    i;
    rig       r;
    int       peer;
    open_filter_rig(&r);
    peer = make_socket(&r, "s");
    make(&r, "ringbuf,id=t");
    make(&r, "ringbuf,id=u");
    make(&r, "hub,id=h,chardevs=u");
    make(&r, "rot13,id=onhub,chardev=h");
    make(&r, "mux,id=m,chardev=t");
    make(&r, "rot13,id=onmux,chardev=m");
    attach(&rec, make(&r, "rot13,id=f,chardev=s"));
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        if (i == 2) { /* two on each other, the upper one free */
            detach(&rec);
            make(&r, "rot13,id=free,chardev=f");
        }
        if (i == 3) {
            CHECK_INT(chr_remove(r.ctx, "free", &err), 0);
            attach(&rec, chr_find(r.ctx, "f"));
        }
        memset(&err, 0, sizeof err);
        if (!CHECK_INT(chr_change(r.ctx, table[i].id, table[i].options, &err), table[i].code)) NOTE("%s into %s: %s", table[i].id, table[i].options, err.text);
    }
    settle(&r);
    CHECK_INT(chr_fe_write(&rec.fe, "aa", 2), 2);
    take(&r, peer, buf, 2);
    CHECK_MEM(buf, 2, "nn", 2);
    detach(&rec);
    close(peer);
    rig_close(&r);
}

/* The end of the context: CLOSED once, whoever is freed first. */
TEST(filter_at_the_end_of_the_context)
{
    recorder rec;
    rig      r;
    int      peer;
    open_filter_rig(&r);
    peer = make_socket(&r, "s");
    make(&r, "rot13,id=g,chardev=s");
    attach(&rec, make(&r, "rot13,id=f,chardev=g,history=1K,obuf=1K,logfile=/dev/null"));
    settle(&r);
    close(peer);
    chr_context_free(r.ctx);
    CHECK_STR(rec.events, "OC");
    CHECK(rec.fe.dev == NULL);
    free(rec.input);
    CHECK_INT(r.live, 0);
    CHECK_INT(count_fds(), r.fds);
}

/* Its options are the common ones too: obuf= takes what the chardev below doesn't. */
TEST(filter_with_history_and_obuf)
{
    static char block[65536], got[65536 + 4];
    recorder    rec;
    chr_info    info;
    rig         r;
    int         peer;
    open_filter_rig(&r);
    peer = make_socket(&r, "s");
    attach(&rec, make(&r, "rot13,id=f,chardev=s,history=4,obuf=64K"));
    CHECK_INT(chr_fe_write(&rec.fe, "efgh", 4), 4);
    settle(&r);
    memset(block, 'a', sizeof block);
    CHECK_INT(chr_fe_write(&rec.fe, block, sizeof block), (long long)sizeof block);
    chr_query(rec.fe.dev, &info);
    CHECK(info.bytes_queued > 0);
    take(&r, peer, got, 4);
    CHECK_MEM(got, 4, "rstu", 4);
    take(&r, peer, got, sizeof block);
    CHECK(memchr(got, 'a', sizeof block) == NULL && got[0] == 'n' && memcmp(got, got + 1, sizeof block - 1) == 0);
    PUMP(&r, (chr_query(rec.fe.dev, &info), info.bytes_queued == 0));
    detach(&rec);
    close(peer);
    rig_close(&r);
}

/* Buffers at the frontend: what is pulled has been turned, what is gathered is turned when it leaves. */
TEST(filter_under_a_buffered_frontend)
{
    chr_frontend fe;
    char         buf[600];
    size_t       got = 0;
    int          n, i;
    rig          r;
    int          peer;
    open_filter_rig(&r);
    memset(&fe, 0, sizeof fe);
    peer = make_socket(&r, "s");
    REQUIRE(chr_fe_init(&fe, make(&r, "rot13,id=f,chardev=s"), NULL) == 0);
    CHECK_INT(chr_fe_set_buffers(&fe, 16, 600), 0);
    settle(&r);
    for (i = 0; i < 100; i++) CHECK_INT(chr_fe_write(&fe, "hello ", 6), 6);
    CHECK_INT(recv(peer, buf, sizeof buf, MSG_DONTWAIT), -1);
    CHECK_INT(chr_fe_flush(&fe, 1000), 0);
    CHECK_INT(recv(peer, buf, sizeof buf, 0), 600);
    for (i = 0; i < 600; i += 6) CHECK_MEM(buf + i, 6, "uryyb ", 6);
    CHECK_INT(write(peer, "gur dhvpx oebja sbk whzcf", 25), 25);
    settle(&r);
    CHECK_INT(chr_fe_readable(&fe), 16);
    while (got < 25) {
        n = chr_fe_read(&fe, buf + got, 3);
        if (n > 0) got += (size_t)n;
        else if (!CHECK_INT(n, CHR_ERR_WOULD_BLOCK)) break;
        settle(&r);
    }
    CHECK_MEM(buf, got, "the quick brown fox jumps", 25);
    CHECK_INT(write(peer, "raq", 3), 3);
    close(peer);
    settle(&r);
    CHECK_INT(chr_fe_read(&fe, buf, 8), 3);
    CHECK_INT(chr_fe_read(&fe, buf, 8), CHR_ERR_DISCONNECTED);
    chr_fe_deinit(&fe);
    rig_close(&r);
}

/* It lives again from a recording, with nothing below it. */
TEST(filter_recorded_and_replayed)
{
    recorder rec;
    rig      r;
    int      peer, turn;
    for (turn = 0; turn < 2; turn++) {
        open_filter_rig(&r);
        if (turn == 0) CHECK_INT(chr_record_start(r.ctx, scratch("record"), NULL), 0);
        else CHECK_INT(chr_replay_open(r.ctx, scratch("record"), NULL), 0);
        peer = make_socket(&r, "s");
        attach(&rec, make(&r, "rot13,id=f,chardev=s"));
        PUMP(&r, rec.open);
        CHECK_INT(chr_fe_write(&rec.fe, "Hello", 5), 5);
        if (turn == 0) CHECK_INT(write(peer, "Jrypbzr.", 8), 8);
        PUMP(&r, rec.length == 8);
        CHECK_INPUT(&rec, "Welcome.");
        detach(&rec);
        close(peer);
        rig_close(&r);
        if (!CHECK_INT(r.logs, 0)) NOTE("turn %d: %s", turn, r.log);
        if (turn == 0) continue;
        scratch_clean();
    }
}

/* Other threads write and read through it, while the owner swaps what is below. */
static void *write_through(void *opaque)
{
    recorder *rec = (recorder *)opaque;
    int       i;
    for (i = 0; i < 2000; i++) {
        chr_fe_write_all(&rec->fe, "some text ", 10, 1000);
        if (i % 100 == 0) usleep(1000);
    }
    return NULL;
}

TEST(filter_written_by_other_threads)
{
    static char waste[65536];
    pthread_t   threads[2];
    recorder    rec;
    char        text[60];
    int         i, pair[2], peer, done = 0;
    rig         r;
    open_filter_rig(&r);
    peer = make_socket(&r, "s");
    attach(&rec, make(&r, "rot13,id=f,chardev=s"));
    for (i = 0; i < 2; i++) REQUIRE(pthread_create(&threads[i], NULL, write_through, &rec) == 0);
    for (i = 0; i < 300; i++) {
        while (recv(peer, waste, sizeof waste, MSG_DONTWAIT) > 0) {}
        chr_loop_step(r.ctx, 1);
        if (i % 50 == 25) {
            REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
            snprintf(text, sizeof text, "socket,fd=%d", pair[0]);
            CHECK_INT(chr_change(r.ctx, "s", text, NULL), 0);
            close(peer);
            peer = pair[1];
            done++;
        }
    }
    CHECK_INT(chr_change(r.ctx, "s", "null", NULL), 0); /* what they have still to say is dropped */
    for (i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    CHECK_INT(done, 6);
    close(peer);
    detach(&rec);
    rig_close(&r);
}

/* ---- each allocation fails in turn ------------------------------------------------------------------------------- */

TEST(filter_without_memory)
{
    long at;
    for (at = 1; at < 200; at++) {
        chr_error err;
        chr_dev  *dev;
        rig       r;
        open_filter_rig(&r);
        make(&r, "ringbuf,id=b");
        r.fail_at = r.calls + at;
        dev = chr_new(r.ctx, "rot13,id=f,chardev=b,mux=on,history=16", &err);
        r.fail_at = 0;
        if (r.failed) {
            CHECK(dev == NULL);
            CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
            CHECK_INT(chr_remove(r.ctx, "b", &err), 0); /* it is free again */
        }
        at = r.failed ? at : 200;
        rig_close(&r);
    }
    CHECK(at > 200);
}

/* ---- what belongs to backends beside it -------------------------------------------------------------------------- */

TEST(errors_filled_by_a_backend)
{
    char      filler[3000];
    chr_error err;
    memset(filler, 'x', sizeof filler);
    filler[sizeof filler - 1] = 0;
    CHECK_INT(chr_error_set(&err, CHR_ERR_IO, "%s: line %d\nis %s", "a", 7, "bad\r"), CHR_ERR_IO);
    CHECK_INT(err.code, CHR_ERR_IO);
    CHECK_STR(err.text, "a: line 7?is bad?");
    CHECK_INT(chr_error_set(NULL, CHR_ERR_BUSY, "%d", 1), CHR_ERR_BUSY);
    chr_error_set(&err, CHR_ERR_IO, "%s is too long%%, %5d %.2s", filler, 3, "abc");
    CHECK_INT((long long)strlen(err.text), 300 + 23);
    CHECK_HAS(err.text, "xx is too long%,     3 ab");
    chr_error_set(&err, CHR_ERR_IO, filler, 0);
    CHECK_INT((long long)strlen(err.text), (long long)sizeof err.text - 1);
}

TEST(log_and_memory_of_a_backend)
{
    chr_dev *dev;
    char    *block;
    rig      r;
    open_filter_rig(&r);
    dev = make(&r, "null,id=n");
    chr_be_log(dev, "%d of %s", 3, "four");
    CHECK_HAS(r.log, "n: 3 of four\n");
    block = (char *)chr_be_allocate(dev, NULL, 10);
    REQUIRE(block != NULL);
    memcpy(block, "123456789", 10);
    block = (char *)chr_be_allocate(dev, block, 1000);
    REQUIRE(block != NULL);
    CHECK_STR(block, "123456789");
    CHECK(chr_be_allocate(dev, block, 0) == NULL);
    rig_close(&r);
}
