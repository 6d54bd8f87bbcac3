/*
 * test_stacked.c - the default slots (chr_stacked_...) for a user's own backend: a spy below records each call with its
 * arguments and returns what the test sets; the one in the middle consists of default slots only.
 */
#include "chardev.h"
#include "middle.h"
#include "rig.h"

/* ---- the spy ----------------------------------------------------------------------------------------------------- */

static struct {
    char   calls[2000];  /* "write(abc) update " ... */
    int    answer;       /* of each call but those below */
    size_t most;         /* how many bytes it takes in all; then it would block */
    int    read_answer;
    int    fd, events;   /* of wait_fd */
    size_t queued;
    int    rooms, wants; /* at the last update: what chr_be_can_write() and chr_be_wants_writable() said */
} spy;

static void spy_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void spy_note(const char *format, ...)
{
    size_t  used = strlen(spy.calls);
    va_list args;
    va_start(args, format);
    vsnprintf(spy.calls + used, sizeof spy.calls - used, format, args);
    va_end(args);
}

static int spy_write(chr_dev *dev, const void *buf, size_t len)
{
    size_t n = len < spy.most ? len : spy.most;
    (void)dev;
    if (spy.answer < 0) return spy.answer;
    if (n == 0) return CHR_ERR_WOULD_BLOCK;
    spy.most -= n;
    spy_note("write(%.*s) ", (int)n, (const char *)buf);
    return (int)n;
}

static int spy_read(chr_dev *dev, void *buf, size_t len)
{
    int n = spy.read_answer;
    (void)dev;
    spy_note("read(%d) ", (int)len);
    if (n > (int)len) n = (int)len;
    if (n > 0) memset(buf, 'r', (size_t)n);
    if (n < 0) spy.read_answer = 100; /* the next time there is something */
    return n;
}

static void spy_update(chr_dev *dev)
{
    spy.rooms = chr_be_can_write(dev);
    spy.wants = chr_be_wants_writable(dev);
}

static int spy_wait_fd(chr_dev *dev, int *events)
{
    (void)dev;
    spy_note("wait_fd(%s) ", *events == CHR_IN ? "in" : *events == CHR_OUT ? "out" : "?");
    *events = spy.events;
    return spy.fd;
}

static int spy_open(chr_dev *dev, chr_error *err)
{
    (void)err;
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

static void spy_describe(const chr_dev *dev, chr_info *info)
{
    (void)dev;
    snprintf(info->filename, sizeof info->filename, "spy:here");
    snprintf(info->address, sizeof info->address, "address");
    snprintf(info->peer, sizeof info->peer, "peer");
    info->comes_back = 1;
}

static int spy_ioctl(chr_dev *dev, int command, void *arg)
{
    (void)dev;
    spy_note("ioctl(%d,%d) ", command, *(int *)arg);
    *(int *)arg = 77;
    return spy.answer;
}

static void spy_set_open(chr_dev *dev, int is_open)
{
    (void)dev;
    spy_note("set_open(%d) ", is_open);
}

static int spy_disconnect(chr_dev *dev)
{
    (void)dev;
    spy_note("disconnect ");
    return spy.answer;
}

static int spy_wait_connected(chr_dev *dev, chr_error *err)
{
    (void)dev;
    spy_note("wait_connected ");
    if (spy.answer < 0) chr_error_set(err, spy.answer, "the spy says no");
    return spy.answer;
}

static int spy_add_client(chr_dev *dev, int fd, chr_error *err)
{
    (void)dev;
    spy_note("add_client(%d) ", fd);
    if (spy.answer < 0) chr_error_set(err, spy.answer, "the spy says no");
    return spy.answer;
}

static int spy_set_msgfds(chr_dev *dev, const int *fds, int count)
{
    (void)dev;
    spy_note("set_msgfds(%d of %d) ", fds[0], count);
    return spy.answer;
}

static int spy_get_msgfds(chr_dev *dev, int *fds, int count)
{
    (void)dev;
    spy_note("get_msgfds(%d) ", count);
    fds[0] = 5;
    return spy.answer;
}

static int spy_shutdown(chr_dev *dev)
{
    (void)dev;
    spy_note("shutdown ");
    return spy.answer;
}

static size_t spy_queued(const chr_dev *dev)
{
    (void)dev;
    return spy.queued;
}

CHR_TABLE(chr_io, spy_io,
    CHR_SET(write,   spy_write)
    CHR_SET(read,    spy_read)
    CHR_SET(update,  spy_update)
    CHR_SET(wait_fd, spy_wait_fd));
CHR_TABLE(chr_peer_slots, spy_peer,
    CHR_SET(disconnect,     spy_disconnect)
    CHR_SET(wait_connected, spy_wait_connected)
    CHR_SET(add_client,     spy_add_client)
    CHR_SET(set_msgfds,     spy_set_msgfds)
    CHR_SET(get_msgfds,     spy_get_msgfds)
    CHR_SET(shutdown,       spy_shutdown)
    CHR_SET(queued,         spy_queued));
CHR_TABLE(chr_backend, spy_backend,
    CHR_SET(name,         "spy")
    CHR_SET(help,         "notes what it is asked for")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(chr_dev))
    CHR_SET(open,         spy_open)
    CHR_SET(io,           &spy_io)
    CHR_SET(describe,     spy_describe)
    CHR_SET(ioctl,        spy_ioctl)
    CHR_SET(set_open,     spy_set_open)
    CHR_SET(peer,         &spy_peer));

/* One that has the required slots alone. */
CHR_TABLE(chr_io, bare_io,
    CHR_SET(write, spy_write));
CHR_TABLE(chr_backend, bare_backend,
    CHR_SET(name,         "bare")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(chr_dev))
    CHR_SET(open,         spy_open)
    CHR_SET(io,           &bare_io));

static void open_spies(rig *r)
{
    memset(&spy, 0, sizeof spy);
    spy.most = (size_t)-1;
    spy.fd = -1;
    middle_handlers = NULL;
    rig_open_virtual(r);
    REQUIRE(chr_backend_register(r->ctx, &spy_backend, NULL) == 0);
    REQUIRE(chr_backend_register(r->ctx, &bare_backend, NULL) == 0);
    REQUIRE(chr_backend_register(r->ctx, &middle_backend, NULL) == 0);
}

/* The arguments of the spy's calls since the last query. */
static const char *calls(void)
{
    static char last[sizeof spy.calls];
    memcpy(last, spy.calls, sizeof last);
    spy.calls[0] = 0;
    return last;
}

static chr_dev *make_stack(rig *r)
{
    make(r, "spy,id=s");
    return make(r, "middle,id=m,chardev=s");
}

/* ---- down -------------------------------------------------------------------------------------------------------- */

TEST(stacked_calls_go_down)
{
    static const int answers[] = { 0, CHR_ERR_IO, CHR_ERR_BUSY };
    chr_error        err;
    chr_dev         *dev;
    recorder         rec;
    rig              r;
    size_t           i;
    int              fds[2] = { 42, 43 }, value;
    open_spies(&r);
    dev = make_stack(&r);
    attach(&rec, dev);
    settle(&r);
    calls();
    for (i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        spy.answer = answers[i];
        CHECK_INT(chr_fe_write(&rec.fe, "abc", 3), spy.answer < 0 ? spy.answer : 3);
        CHECK_STR(calls(), spy.answer < 0 ? "" : "write(abc) ");
        value = 6;
        CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_FLOW, &value), spy.answer);
        CHECK_INT(value, 77);
        CHECK_STR(calls(), "ioctl(7,6) ");
        CHECK_INT(chr_fe_disconnect(&rec.fe), spy.answer);
        CHECK_STR(calls(), "disconnect ");
        CHECK_INT(chr_wait_connected(dev, &err), spy.answer);
        CHECK_STR(calls(), "wait_connected ");
        if (spy.answer) CHECK_STR(err.text, "the spy says no");
        CHECK_INT(chr_add_client(r.ctx, "m", 99, &err), spy.answer);
        CHECK_STR(calls(), "add_client(99) ");
        if (spy.answer) CHECK_STR(err.text, "the spy says no");
        CHECK_INT(chr_fe_set_msgfds(&rec.fe, fds, 2), spy.answer);
        CHECK_STR(calls(), "set_msgfds(42 of 2) ");
        fds[0] = 1;
        CHECK_INT(chr_fe_get_msgfds(&rec.fe, fds, 2), spy.answer);
        CHECK_STR(calls(), "get_msgfds(2) ");
        CHECK_INT(fds[0], 5);
        fds[0] = 42;
        CHECK_INT(chr_fe_shutdown(&rec.fe), spy.answer);
        CHECK_STR(calls(), "shutdown ");
    }
    spy.answer = 0;
    chr_fe_set_open(&rec.fe, 0);
    CHECK_STR(calls(), "set_open(0) ");
    chr_fe_set_open(&rec.fe, 1);
    CHECK_STR(calls(), "set_open(1) ");
    detach(&rec);
    rig_close(&r);
}

/* Below it is open as long as the upper one has a frontend. */
TEST(stacked_is_open_while_it_has_a_frontend)
{
    recorder rec;
    rig      r;
    chr_dev *dev;
    open_spies(&r);
    make(&r, "spy,id=s");
    CHECK_STR(calls(), "");
    dev = make(&r, "middle,id=m,chardev=s");
    CHECK_STR(calls(), "set_open(1) set_open(0) ");
    attach(&rec, dev);
    CHECK_STR(calls(), "set_open(1) ");
    detach(&rec);
    CHECK_STR(calls(), "set_open(0) ");
    CHECK_INT(chr_remove(r.ctx, "m", NULL), 0);
    CHECK_STR(calls(), "");
    rig_close(&r);
}

TEST(stacked_counts_what_it_has_queued)
{
    chr_info info;
    rig      r;
    chr_dev *dev;
    open_spies(&r);
    dev = make_stack(&r);
    spy.queued = 7;
    chr_query(dev, &info);
    CHECK_INT(info.bytes_queued, 7);
    CHECK_INT(chr_drain(r.ctx, 0), CHR_ERR_TIMEOUT);
    spy.queued = 0;
    chr_query(dev, &info);
    CHECK_INT(info.bytes_queued, 0);
    rig_close(&r);
}

/* A blocking read asks the lower one, which counts the bytes, too. */
TEST(stacked_blocking_read)
{
    recorder rec;
    chr_info info;
    char     buf[10];
    chr_dev *dev;
    rig      r;
    int      ends[2];
    NEED_POSIX("what wakes a loop is no pipe on this system");
    open_spies(&r);
    dev = make_stack(&r);
    attach(&rec, dev);
    settle(&r);
    calls();
    spy.read_answer = 4;
    CHECK_INT(chr_fe_read_all(&rec.fe, buf, 7, 0), 7);
    CHECK_STR(calls(), "read(7) read(3) ");
    CHECK_MEM(buf, 7, "rrrrrrr", 7);
    chr_query(chr_find(r.ctx, "s"), &info);
    CHECK_INT(info.bytes_in, 7);
    chr_query(dev, &info);
    CHECK_INT(info.bytes_in, 7);
    spy.read_answer = CHR_ERR_IO;
    CHECK_INT(chr_fe_read_all(&rec.fe, buf, 7, 0), CHR_ERR_IO);
    chr_query(chr_find(r.ctx, "s"), &info);
    CHECK_INT(info.bytes_in, 7);
    calls();
    spy.read_answer = CHR_ERR_WOULD_BLOCK; /* and nothing to wait on */
    CHECK_INT(chr_fe_read_all(&rec.fe, buf, 7, -1), CHR_ERR_WOULD_BLOCK);
    CHECK_STR(calls(), "read(7) wait_fd(in) ");
    REQUIRE(pipe(ends) == 0);
    spy.fd = ends[0];
    spy.events = CHR_IN;
    spy.read_answer = CHR_ERR_WOULD_BLOCK;
    CHECK_INT(write(ends[1], "x", 1), 1);
    CHECK_INT(chr_fe_read_all(&rec.fe, buf, 7, -1), 7);
    CHECK_STR(calls(), "read(7) wait_fd(in) read(7) ");
    spy.most = 0;
    CHECK_INT(read(ends[0], buf, 1), 1);
    CHECK_INT(chr_fe_write_all(&rec.fe, "abc", 3, 1), CHR_ERR_TIMEOUT);
    CHECK_HAS(calls(), "wait_fd(out) ");
    close(ends[0]);
    close(ends[1]);
    detach(&rec);
    rig_close(&r);
}

/* What the lower one has not, the upper one has not. */
TEST(stacked_on_one_that_has_nothing)
{
    chr_error err;
    recorder  rec;
    chr_info  info;
    chr_dev  *dev;
    rig       r;
    int       value = 0, fds[1] = { 0 };
    open_spies(&r);
    make(&r, "bare,id=b");
    dev = make(&r, "middle,id=m,chardev=b");
    attach(&rec, dev);
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_write(&rec.fe, "abc", 3), 3);
    CHECK_INT(chr_fe_read_all(&rec.fe, &value, 1, 0), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SET_ECHO, &value), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_disconnect(&rec.fe), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_shutdown(&rec.fe), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, fds, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_get_msgfds(&rec.fe, fds, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_add_client(r.ctx, "m", 99, &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_wait_connected(dev, &err), 0); /* it is open */
    chr_be_event(chr_find(r.ctx, "b"), CHR_EVENT_CLOSED);
    CHECK_STR(rec.events, "OC");
    CHECK_INT(chr_wait_connected(dev, &err), CHR_ERR_NOT_SUPPORTED);
    spy.most = 2;
    CHECK_INT(chr_fe_write_all(&rec.fe, "abc", 3, 1000), 2); /* nothing to wait on */
    chr_query(dev, &info);
    CHECK_STR(info.filename, "middle:bare");
    CHECK_STR(info.address, "");
    CHECK_INT(info.comes_back, 0);
    CHECK_INT(info.bytes_queued, 0);
    detach(&rec);
    rig_close(&r);
}

/* Without a lower chardev (yet) each call returns its error. */
TEST(stacked_on_nothing)
{
    chr_error err;
    recorder  rec;
    chr_info  info;
    chr_dev  *dev;
    rig       r;
    int       value = 0, fds[1] = { 0 };
    open_spies(&r);
    dev = make(&r, "middle,id=m");
    attach(&rec, dev);
    settle(&r);
    CHECK_STR(rec.events, "");
    CHECK_INT(chr_fe_write(&rec.fe, "abc", 3), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_write_all(&rec.fe, "abc", 3, -1), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_read_all(&rec.fe, &value, 1, -1), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SET_ECHO, &value), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_disconnect(&rec.fe), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_shutdown(&rec.fe), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, fds, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_get_msgfds(&rec.fe, fds, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_add_client(r.ctx, "m", 99, &err), CHR_ERR_DISCONNECTED);
    CHECK_STR(err.text, "the chardev below is gone");
    CHECK_INT(chr_wait_connected(dev, &err), CHR_ERR_DISCONNECTED);
    CHECK_STR(err.text, "the frontend has no chardev");
    chr_fe_set_open(&rec.fe, 0);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    chr_fe_accept_input(&rec.fe);
    settle(&r);
    chr_query(dev, &info);
    CHECK_STR(info.filename, "middle");
    CHECK_INT(info.bytes_queued, 0);
    CHECK_INT(chr_drain(r.ctx, 0), 0);
    value = CHR_OUT;
    CHECK_INT(chr_stacked_wait_fd(dev, &value), -1);
    detach(&rec);
    rig_close(&r);
}

TEST(stacked_descriptions)
{
    chr_info info;
    rig      r;
    chr_dev *dev;
    open_spies(&r);
    dev = make_stack(&r);
    chr_query(dev, &info);
    CHECK_STR(info.filename, "middle:spy:here");
    CHECK_STR(info.address, "address");
    CHECK_STR(info.peer, "peer");
    CHECK_INT(info.comes_back, 1);
    dev = make(&r, "middle,id=mm,chardev=m");
    chr_query(dev, &info);
    CHECK_STR(info.filename, "middle:middle:spy:here");
    rig_close(&r);
}

/* ---- up ---------------------------------------------------------------------------------------------------------- */

TEST(stacked_input_and_events_come_up)
{
    recorder rec;
    rig      r;
    chr_dev *below;
    open_spies(&r);
    attach_with_room(&rec, make_stack(&r), 5);
    below = chr_find(r.ctx, "s");
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INT(spy.rooms, 5);
    CHECK_INT(chr_be_can_write(below), 5);
    chr_be_write(below, "input", 5);
    CHECK_INPUT(&rec, "input");
    CHECK_INT(chr_be_can_write(below), 0);
    give_room(&rec, 3);
    settle(&r);
    CHECK_INT(spy.rooms, 3); /* it was asked again */
    chr_be_event(below, CHR_EVENT_BREAK);
    chr_be_event(below, CHR_EVENT_INPUT_END);
    chr_be_event(below, CHR_EVENT_CLOSED);
    CHECK_STR(rec.events, "OBEC");
    detach(&rec);
    rig_close(&r);
}

/* A pending watch of the upper chardev adds one to the lower chardev, until all queued output of the upper one is
 * sent. */
TEST(stacked_writability_comes_up)
{
    recorder rec;
    chr_info info;
    rig      r;
    chr_dev *below, *dev;
    open_spies(&r);
    make(&r, "spy,id=s");
    dev = make(&r, "middle,id=m,chardev=s,obuf=16");
    below = chr_find(r.ctx, "s");
    attach(&rec, dev);
    settle(&r);
    calls();
    CHECK_INT(spy.wants, 0);
    spy.most = 0;
    CHECK_INT(chr_fe_write(&rec.fe, "0123456789abcdef!", 17), 16);
    settle(&r);
    CHECK_INT(spy.wants, 1);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    settle(&r);
    CHECK_INT(rec.writable, 0); /* obuf= is full */
    spy.most = 10;
    chr_be_writable(below);
    settle(&r);
    CHECK_STR(calls(), "write(0123456789) ");
    CHECK_INT(rec.writable, 1);
    CHECK_INT(spy.wants, 1); /* still: there are more bytes */
    chr_query(dev, &info);
    CHECK_INT(info.bytes_queued, 6);
    spy.most = 100;
    chr_be_writable(below);
    settle(&r);
    CHECK_STR(calls(), "write(abcdef) ");
    CHECK_INT(chr_be_wants_writable(below), 0);
    CHECK_INT(rec.writable, 1);
    detach(&rec);
    rig_close(&r);
}

static void remove_from_writable(void *opaque)
{
    recorder    *rec = (recorder *)opaque;
    chr_context *ctx = rec->fe.ctx;
    rec->writable++;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(ctx, "m", NULL), 0);
}

TEST(stacked_removed_while_it_is_told_of_writability)
{
    recorder rec;
    rig      r;
    chr_dev *below;
    open_spies(&r);
    attach(&rec, make_stack(&r));
    below = chr_find(r.ctx, "s");
    settle(&r);
    spy.most = 0;
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_WOULD_BLOCK);
    chr_fe_add_watch(&rec.fe, remove_from_writable, &rec);
    settle(&r);
    CHECK_INT(spy.wants, 1);
    chr_be_writable(below);
    settle(&r);
    CHECK_INT(rec.writable, 1);
    CHECK(chr_find(r.ctx, "m") == NULL);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    free(rec.input);
    rig_close(&r);
}

/* ---- handlers of its own ----------------------------------------------------------------------------------------- */

static int half_the_room(void *opaque)
{
    return chr_be_can_write((chr_dev *)opaque) / 2;
}

static void doubled(void *opaque, const void *buf, size_t len)
{
    char two[20];
    CHECK(len <= 10);
    memcpy(two, buf, len);
    memcpy(two + len, buf, len);
    chr_be_write((chr_dev *)opaque, two, 2 * len);
}

static void breaks_only(void *opaque, int event)
{
    if (event == CHR_EVENT_BREAK || event == CHR_EVENT_OPENED) chr_be_event((chr_dev *)opaque, event);
}

static int no_change(void *opaque)
{
    (void)opaque;
    return -1;
}

/* Each of the four alone: the other three pass on. */
TEST(stacked_handlers_of_its_own)
{
    static const chr_handlers sets[] = { { half_the_room, NULL, NULL, NULL }, { NULL, doubled, NULL, NULL },
                                         { NULL, NULL, breaks_only, NULL }, { NULL, NULL, NULL, no_change } };
    chr_error err;
    recorder  rec;
    rig       r;
    size_t    i;
    for (i = 0; i < 4; i++) {
        open_spies(&r);
        middle_handlers = &sets[i];
        attach_with_room(&rec, make_stack(&r), 20);
        settle(&r);
        CHECK_STR(rec.events, "O");
        CHECK_INT(chr_be_can_write(chr_find(r.ctx, "s")), i == 0 ? 10 : 20);
        chr_be_write(chr_find(r.ctx, "s"), "abc", 3);
        CHECK_INPUT(&rec, i == 1 ? "abcabc" : "abc");
        chr_be_event(chr_find(r.ctx, "s"), CHR_EVENT_BREAK);
        chr_be_event(chr_find(r.ctx, "s"), CHR_EVENT_SERIAL);
        CHECK_STR(rec.events, i == 2 ? "OB" : "OBS");
        CHECK_INT(chr_change(r.ctx, "s", "null", &err), i == 3 ? CHR_ERR_BUSY : 0);
        settle(&r);
        detach(&rec);
        rig_close(&r);
    }
}

/* ---- what it can be stacked on ----------------------------------------------------------------------------------- */

TEST(stacked_in_a_change)
{
    chr_error err;
    recorder  rec;
    rig       r;
    open_spies(&r);
    make(&r, "null,id=n");
    make(&r, "middle,id=on-n,chardev=n");
    make(&r, "middle,id=on-on-n,chardev=on-n");
    make(&r, "spy,id=free");
    make(&r, "middle,id=on-free,chardev=free");
    make(&r, "null,id=shared,mux=on");
    make(&r, "null,id=h1");
    make(&r, "hub,id=hub,chardevs.0=h1");
    make(&r, "bare,id=b");
    attach(&rec, chr_find(r.ctx, "on-on-n"));
    CHECK_INT(chr_change(r.ctx, "on-on-n", "middle,chardev=shared", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "middle: chardev=shared: 'shared' is a mux: it can't be the lower layer in a change");
    CHECK_INT(chr_change(r.ctx, "on-on-n", "middle,chardev=hub", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "middle: chardev=hub: 'hub' is a hub: it can't be the lower layer in a change");
    CHECK_INT(chr_change(r.ctx, "on-on-n", "middle,chardev=gone", &err), CHR_ERR_NOT_FOUND);
    CHECK_STR(err.text, "middle: chardev=gone: there is no chardev with that id");
    CHECK_INT(chr_change(r.ctx, "on-on-n", "middle,chardev=on-on-n", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "middle: chardev=on-on-n: would be stacked on 'on-on-n', which it replaces");
    CHECK_INT(chr_change(r.ctx, "n", "middle,chardev=on-on-n", &err), CHR_ERR_NOT_SUPPORTED); /* two floors up */
    CHECK_STR(err.text, "middle: chardev=on-on-n: would be stacked on 'n', which it replaces");
    CHECK_INT(chr_change(r.ctx, "on-on-n", "middle,chardev=n", &err), CHR_ERR_BUSY);
    CHECK_STR(err.text, "middle: chardev 'n' has a frontend already");
    CHECK_INT(rec.changes, 0);
    CHECK_INT(chr_change(r.ctx, "on-on-n", "middle,chardev=on-free", &err), 0);
    CHECK_INT(rec.changes, 1);
    settle(&r);
    calls();
    CHECK_INT(chr_fe_write(&rec.fe, "through", 7), 7);
    CHECK_STR(calls(), "write(through) ");
    detach(&rec);
    attach(&rec, make(&r, "middle,id=new,chardev=shared")); /* a new one may be stacked on a mux or a hub */
    detach(&rec);
    attach(&rec, make(&r, "middle,id=new2,chardev=hub"));
    detach(&rec);
    rig_close(&r);
}

/* ---- what backends have besides ---------------------------------------------------------------------------------- */

static char        traced[2000];
static const char *traced_name;

static void note_trace(void *opaque, const chr_trace *event)
{
    size_t used = strlen(traced);
    (void)opaque;
    if (strcmp(event->name, traced_name) != 0) return;
    snprintf(traced + used, sizeof traced - used, "%s:%.*s;", event->id ? event->id : "", (int)(event->bytes ? event->len : 99),
             event->bytes ? (const char *)event->bytes : event->text ? event->text : "");
}

TEST(a_backends_log_lines)
{
    char     text[1000];
    rig      r;
    chr_dev *dev;
    size_t   len;
    open_spies(&r);
    dev = make(&r, "spy,id=s");
    chr_be_log(dev, "%d of %s", 7, "nine");
    CHECK_STR(r.log, "chardev s: 7 of nine\n");
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    r.log[0] = 0;
    chr_be_log(dev, "%s", text); /* is cut, and no worse */
    len = strlen(r.log);
    CHECK(len > 250 && len < sizeof text);
    CHECK_INT(strncmp(r.log, "chardev s: xxx", 14), 0);
    CHECK_INT(strspn(r.log + 11, "x"), len - 12);
    CHECK_STR(r.log + len - 1, "\n");
    rig_close(&r);
}

TEST(a_backends_memory)
{
    rig      r;
    chr_dev *dev;
    char    *block;
    long     live;
    open_spies(&r);
    dev = make(&r, "spy,id=s");
    live = r.live;
    block = (char *)chr_be_allocate(dev, NULL, 10);
    REQUIRE(block != NULL);
    CHECK_INT(r.live, live + 1);
    memcpy(block, "0123456789", 10);
    block = (char *)chr_be_allocate(dev, block, 1000);
    CHECK_MEM(block, 10, "0123456789", 10);
    r.fail_at = r.calls + 1;
    CHECK(chr_be_allocate(dev, block, 2000) == NULL);
    CHECK_MEM(block, 10, "0123456789", 10); /* still there */
    r.fail_at = 0;
    CHECK(chr_be_allocate(dev, block, 0) == NULL);
    CHECK_INT(r.live, live);
    rig_close(&r);
}

TEST(stacked_reads_are_traced)
{
    char     buf[4];
    recorder rec;
    rig      r;
    traced_name = "data_in";
    rig_traced = note_trace;
    open_spies(&r);
    attach(&rec, make_stack(&r));
    settle(&r);
    spy.read_answer = 3;
    CHECK_INT(chr_fe_read_all(&rec.fe, buf, 3, 0), 3);
    CHECK_STR(traced, "s:rrr;m:rrr;");
    traced[0] = 0;
    spy.read_answer = CHR_ERR_IO;
    CHECK_INT(chr_fe_read_all(&rec.fe, buf, 3, 0), CHR_ERR_IO);
    CHECK_STR(traced, "");
    detach(&rec);
    rig_close(&r);
}
