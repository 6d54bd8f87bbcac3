/* Queued output: history= for later peers, obuf= for a slow peer. */
#include "chardev.h"
#include "rig.h"

/* A server `s` on a unix socket in the scratch folder, with a frontend. */
typedef struct line {
    rig      r;
    recorder rec;
    chr_dev *dev;
} line;

static void line_open(line *l, const char *more)
{
    char options[300];
    rig_open(&l->r);
    snprintf(options, sizeof options, "socket,id=s,path=%s,server=on,wait=off,%s", scratch("s"), more);
    l->dev = make(&l->r, options);
    attach(&l->rec, l->dev);
}

static void line_close(line *l)
{
    detach(&l->rec);
    rig_close(&l->r);
}

static int line_connect(line *l)
{
    int fd = unix_connect(scratch("s"));
    settle(&l->r);
    return fd;
}

static int line_write(line *l, const char *text)
{
    return chr_fe_write(&l->rec.fe, text, strlen(text));
}

/* ---- history ----------------------------------------------------------------------------------------------------- */

TEST(history_reaches_a_late_peer_first)
{
    line l;
    int  fd;
    line_open(&l, "history=64");
    CHECK_INT(line_write(&l, "boot "), CHR_ERR_DISCONNECTED);
    CHECK_INT(line_write(&l, "ok\n"), CHR_ERR_DISCONNECTED);
    fd = line_connect(&l);
    line_write(&l, "now\n");
    settle(&l.r);
    CHECK_STR(hear(fd), "boot ok\nnow\n");
    close(fd);
    line_close(&l);
}

TEST(history_comes_again_for_each_peer)
{
    line l;
    int  first, second;
    line_open(&l, "history=64");
    first = line_connect(&l);
    CHECK_INT(line_write(&l, "one "), 4);
    CHECK_STR(hear(first), "one ");
    close(first);
    settle(&l.r);
    line_write(&l, "two ");
    second = line_connect(&l);
    CHECK_STR(hear(second), "one two ");
    close(second);
    line_close(&l);
}

TEST(history_keeps_the_newest)
{
    line l;
    int  fd;
    line_open(&l, "history=8");
    line_write(&l, "0123456789");
    line_write(&l, "ab");
    fd = line_connect(&l);
    CHECK_STR(hear(fd), "456789ab");
    close(fd);
    line_close(&l);
}

TEST(without_history_nothing_is_kept)
{
    line l;
    int  fd;
    line_open(&l, "obuf=64");
    CHECK_INT(line_write(&l, "lost"), CHR_ERR_DISCONNECTED);
    fd = line_connect(&l);
    line_write(&l, "kept");
    CHECK_STR(hear(fd), "kept");
    close(fd);
    line_close(&l);
}

/* A history larger than the socket's buffer comes whole and before what is written meanwhile. */
TEST(large_history_goes_out_in_order)
{
    static unsigned char big[1 << 20], got[1 << 20];
    line   l;
    size_t at, have = 0;
    int    fd, n;
    line_open(&l, "history=1M");
    for (at = 0; at < sizeof big; at++) big[at] = (unsigned char)(at * 2654435761u >> 24);
    CHECK_INT(chr_fe_write(&l.rec.fe, big, sizeof big), CHR_ERR_DISCONNECTED);
    fd = line_connect(&l);
    CHECK_INT(line_write(&l, "later"), CHR_ERR_WOULD_BLOCK);
    while (have < sizeof got) {
        chr_loop_step(l.r.ctx, 0);
        n = (int)recv(fd, got + have, sizeof got - have, MSG_DONTWAIT);
        if (n > 0) have += (size_t)n;
    }
    CHECK_MEM(got, have, big, sizeof big);
    settle(&l.r);
    CHECK_INT(line_write(&l, "later"), 5);
    CHECK_STR(hear(fd), "later");
    close(fd);
    line_close(&l);
}

/* ---- obuf -------------------------------------------------------------------------------------------------------- */

TEST(obuf_takes_what_would_block_and_drains_in_order)
{
    static unsigned char sent[3 << 20], got[3 << 20];
    line   l;
    size_t out = 0, have = 0;
    int    fd, n;
    line_open(&l, "obuf=1M");
    fd = line_connect(&l);
    for (n = 1; n > 0 && out < sizeof sent; out += n > 0 ? (size_t)n : 0) {
        memset(sent + out, (int)(out / 1000 % 251), 1000 < sizeof sent - out ? 1000 : sizeof sent - out);
        n = chr_fe_write(&l.rec.fe, sent + out, 1000);
    }
    CHECK_INT(n, CHR_ERR_WOULD_BLOCK);
    CHECK(out >= 1 << 20);
    while (have < out) {
        chr_loop_step(l.r.ctx, 0);
        n = (int)recv(fd, got + have, sizeof got - have, MSG_DONTWAIT);
        if (n > 0) have += (size_t)n;
    }
    CHECK_MEM(got, have, sent, out);
    close(fd);
    line_close(&l);
}

TEST(obuf_that_is_full_tells_when_there_is_room)
{
    line   l;
    size_t written;
    int    fd;
    line_open(&l, "obuf=4K");
    fd = line_connect(&l);
    written = fill_up(&l.rec.fe);
    chr_fe_add_watch(&l.rec.fe, recorder_writable, &l.rec);
    CHECK_INT(chr_loop_step(l.r.ctx, 20), 0);
    drain(&l.r, fd, written - 4096);
    settle(&l.r);
    CHECK(l.rec.fe.writable == NULL);
    CHECK(line_write(&l, "more") == 4);
    close(fd);
    line_close(&l);
}

/* What a peer that goes has not had counts as dropped; with a history the next one gets it. */
TEST(obuf_of_a_peer_that_goes)
{
    chr_info info;
    line     l;
    int      fd;
    line_open(&l, "obuf=4K,history=4K");
    fd = line_connect(&l);
    fill_up(&l.rec.fe);
    close(fd);
    settle(&l.r);
    chr_query(l.dev, &info);
    CHECK_INT(info.bytes_dropped, 4096);
    CHECK_INT(info.be_open, 0);
    fd = line_connect(&l);
    CHECK_INT(drain(&l.r, fd, 4096), 4096);
    close(fd);
    line_close(&l);
}

/* The kernel's part is read first: so there is room for the queue when the chardev goes. */
TEST(obuf_drains_at_close)
{
    static char bytes[1 << 20];
    line        l;
    size_t      written, have;
    ssize_t     n;
    int         fd;
    line_open(&l, "obuf=64K");
    fd = line_connect(&l);
    written = fill_up(&l.rec.fe);
    detach(&l.rec);
    have = written - 65536;
    for (n = 1; n > 0 && have > 0; have -= n > 0 ? (size_t)n : 0) n = recv(fd, bytes, have < sizeof bytes ? have : sizeof bytes, MSG_DONTWAIT);
    CHECK_INT(have, 0);
    CHECK_INT(chr_remove(l.r.ctx, "s", NULL), 0);
    for (have = 0; (n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0; ) have += (size_t)n;
    CHECK_INT(have, 65536);
    close(fd);
    rig_close(&l.r);
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

TEST(sizes_are_checked)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    refuse(&r, "null,id=n,history=2G", &err);
    CHECK_HAS(err.text, "history=2G");
    refuse(&r, "null,id=n,obuf=x", &err);
    CHECK_HAS(err.text, "obuf=x");
    rig_close(&r);
}

TEST(through_a_mux)
{
    recorder rec;
    rig      r;
    int      fd;
    char     options[300];
    rig_open(&r);
    snprintf(options, sizeof options, "socket,id=s,path=%s,server=on,wait=off,mux=on,history=100", scratch("s"));
    attach(&rec, make(&r, options));
    chr_fe_write(&rec.fe, "early ", 6);
    fd = unix_connect(scratch("s"));
    settle(&r);
    chr_fe_write(&rec.fe, "late", 4);
    CHECK_STR(hear(fd), "early late");
    close(fd);
    detach(&rec);
    rig_close(&r);
}
/* ---- obuf-full --------------------------------------------------------------------------------------------------- */

enum { LINES = 100000, LINE_SIZE = 8 };

/* Numbered lines, each in one write, one after the other until `last`. */
static int write_lines(rig *r, chr_frontend *fe, int first, int last)
{
    char text[20];
    int  i, n = LINE_SIZE;
    for (i = first; i < last && n == LINE_SIZE; i++) {
        snprintf(text, sizeof text, "%07d\n", i);
        n = chr_fe_write(fe, text, LINE_SIZE);
        if (i % 1000 == 0) settle(r);
    }
    return n == LINE_SIZE ? i : i - 1;
}

/* All that comes, into one static buffer, until nothing more does. */
static char   heard[LINES * LINE_SIZE * 2];
static size_t hear_lines(rig *r, int fd)
{
    size_t  length = 0;
    ssize_t n = 1;
    int     idle;
    for (idle = 0; idle < 3; idle = n > 0 ? 0 : idle + 1) {
        settle(r);
        n = read(fd, heard + length, sizeof heard - length);
        if (n > 0) length += (size_t)n;
        if (n <= 0) usleep(1000);
    }
    return length;
}

/* They grow, none comes twice or torn but where some were lost. Returns the number of the last one. */
static int check_lines(size_t length)
{
    int    last = -1, torn = 0;
    size_t at = 0;
    while (at < length) {
        char  *end = (char *)memchr(heard + at, '\n', length - at);
        size_t size = end ? (size_t)(end - heard) + 1 - at : length - at;
        if (size == LINE_SIZE && atoi(heard + at) > last) last = atoi(heard + at);
        else torn++;
        at += size;
    }
    CHECK(torn <= 2);
    return last;
}

static uint64_t dropped_of(const chr_dev *dev)
{
    chr_info info;
    chr_query(dev, &info);
    return info.bytes_dropped;
}

static void nonblocking(int fd)
{
    REQUIRE(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
}

/* The writer never waits. The peer gets the beginning and the newest, and what lies between is counted. */
TEST(obuf_full_drops_the_oldest)
{
    static const char *const table[] = { "obuf=1000,obuf-full=drop-oldest", "obuf=1000,obuf-full=drop-oldest,history=5000",
                                         "obuf=7,obuf-full=drop-oldest", "obuf=1000,obuf-full=drop-oldest,telnet=on" };
    size_t   i, length;
    chr_info info;
    line     l;
    int      fd;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        line_open(&l, table[i]);
        fd = line_connect(&l);
        nonblocking(fd);
        PUMP(&l.r, l.rec.open);
        if (strstr(table[i], "telnet")) while (read(fd, heard, sizeof heard) > 0) continue;
        CHECK_INT(write_lines(&l.r, &l.rec.fe, 0, LINES), LINES);
        chr_query(l.dev, &info);
        CHECK_INT(info.bytes_out, LINES * LINE_SIZE);
        CHECK(info.bytes_dropped > 0);
        CHECK(info.bytes_queued <= 1000 || strstr(table[i], "telnet"));
        length = hear_lines(&l.r, fd);
        CHECK_INT(length, LINES * LINE_SIZE - dropped_of(l.dev));
        if (!strstr(table[i], "obuf=7")) CHECK_INT(check_lines(length), LINES - 1);
        CHECK_STR(l.rec.events, "O");
        CHECK_INT(line_write(&l, "on"), 2);
        settle(&l.r);
        CHECK_STR(hear(fd), "on");
        close(fd);
        line_close(&l);
        scratch_clean();
    }
}

/* More in one write than there is room for in all. */
TEST(obuf_full_and_a_write_larger_than_it)
{
    static char big[2000000];
    size_t      length, i;
    line        l;
    int         fd;
    for (i = 0; i < sizeof big; i++) big[i] = (char)('a' + i % 26);
    line_open(&l, "obuf=100,obuf-full=drop-oldest,history=50");
    fd = line_connect(&l);
    nonblocking(fd);
    CHECK_INT(chr_fe_write(&l.rec.fe, big, sizeof big), sizeof big);
    length = hear_lines(&l.r, fd);
    CHECK_INT(length, sizeof big - dropped_of(l.dev));
    CHECK_MEM(heard, length - 100, big, length - 100);
    CHECK_MEM(heard + length - 100, 100, big + sizeof big - 100, 100);
    close(fd);
    settle(&l.r);
    fd = line_connect(&l);
    CHECK_MEM(hear(fd), 50, big + sizeof big - 50, 50);
    close(fd);
    line_close(&l);
}

/* A newcomer that reads nothing, with more history than it takes: the oldest of all that waits is lost, and nothing
 * is told twice. */
TEST(obuf_full_behind_a_long_history)
{
    size_t   length;
    uint64_t before;
    line     l;
    int      fd;
    line_open(&l, "obuf=1000,obuf-full=drop-oldest,history=600000");
    write_lines(&l.r, &l.rec.fe, 0, 1); /* nobody is there: remembered */
    {
        int  i;
        char text[20];
        for (i = 1; i < 75000; i++) {
            snprintf(text, sizeof text, "%07d\n", i);
            CHECK_INT(chr_fe_write(&l.rec.fe, text, LINE_SIZE), CHR_ERR_DISCONNECTED);
        }
    }
    before = dropped_of(l.dev);
    fd = line_connect(&l);
    nonblocking(fd);
    CHECK_INT(write_lines(&l.r, &l.rec.fe, 75000, LINES), LINES);
    length = hear_lines(&l.r, fd);
    CHECK_INT(length, (uint64_t)LINES * LINE_SIZE - (dropped_of(l.dev) - before));
    CHECK_INT(check_lines(length), LINES - 1);
    close(fd);
    line_close(&l);
}

/* obuf-full=disconnect: the slow peer is disconnected, with one event; the next one can connect. All bytes not sent
 * to it are counted. */
TEST(obuf_full_disconnects)
{
    static const char *const table[] = { "obuf=1000,obuf-full=disconnect", "obuf=1000,obuf-full=disconnect,history=20" };
    size_t   i, length;
    line     l;
    int      fd, written;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        line_open(&l, table[i]);
        fd = line_connect(&l);
        nonblocking(fd);
        written = write_lines(&l.r, &l.rec.fe, 0, LINES);
        CHECK(written < LINES);
        settle(&l.r);
        CHECK_STR(l.rec.events, "OC");
        CHECK_INT(l.r.logs, 1);
        CHECK_HAS(l.r.log, "chardev s");
        CHECK_INT(line_write(&l, "nobody\n"), CHR_ERR_DISCONNECTED);
        length = hear_lines(&l.r, fd);
        CHECK_INT(length, (uint64_t)(written + 1) * LINE_SIZE + 7 - dropped_of(l.dev));
        CHECK_INT(read(fd, heard, 1), 0);
        close(fd);
        settle(&l.r);
        fd = line_connect(&l);
        CHECK_INT(line_write(&l, "next\n"), 5);
        settle(&l.r);
        CHECK_HAS(hear(fd), i ? "nobody\nnext\n" : "next\n");
        CHECK_STR(l.rec.events, "OCO");
        close(fd);
        line_close(&l);
        scratch_clean();
    }
}

/* A pending watch is called when the peer is disconnected, also by our side. */
TEST(obuf_full_disconnects_and_tells_who_waits)
{
    line l;
    int  fd;
    line_open(&l, "obuf=1000,obuf-full=disconnect");
    fd = line_connect(&l);
    while (line_write(&l, "0123456789abcdef") > 0) continue;
    chr_fe_add_watch(&l.rec.fe, recorder_writable, &l.rec);
    settle(&l.r);
    CHECK_STR(l.rec.events, "OC");
    CHECK_INT(l.rec.writable, 1);
    close(fd);
    line_close(&l);
    scratch_clean();
}

/* The peer goes by itself, or the chardev, between the write that found it too slow and the loop. */
TEST(obuf_full_disconnects_who_has_gone)
{
    line l;
    int  fd, again;
    line_open(&l, "obuf=10,obuf-full=disconnect");
    fd = line_connect(&l);
    while (line_write(&l, "0123456789abcdef") > 0) continue;
    close(fd);
    again = line_connect(&l);
    settle(&l.r);
    CHECK_STR(l.rec.events, "OCO");
    while (line_write(&l, "0123456789abcdef") > 0) continue;
    detach(&l.rec);
    CHECK_INT(chr_remove(l.r.ctx, "s", NULL), 0);
    settle(&l.r);
    close(again);
    rig_close(&l.r);
}

/* On whatever there is; where there is no peer to be disconnected, that is an error. */
TEST(obuf_full_of_other_backends)
{
    chr_error err;
    recorder  rec;
    char      options[300];
    int       fds[2];
    size_t    length;
    rig       r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    nonblocking(fds[0]);
    snprintf(options, sizeof options, "fd,id=f,out=%d,obuf=1000,obuf-full=drop-oldest", fds[1]);
    attach(&rec, make(&r, options));
    CHECK_INT(write_lines(&r, &rec.fe, 0, LINES), LINES);
    length = hear_lines(&r, fds[0]);
    CHECK_INT(check_lines(length), LINES - 1);
    CHECK_INT(length, LINES * LINE_SIZE - dropped_of(rec.fe.dev));
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "f", NULL), 0);
    close(fds[0]);
    CHECK_INT(refuse(&r, "pty,id=p,obuf=1K,obuf-full=disconnect", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_HAS(err.text, "obuf-full=disconnect");
    CHECK_HAS(err.text, "pty");
    CHECK_INT(refuse(&r, "null,id=p,obuf=1K,obuf-full=forget", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "obuf-full=forget");
    CHECK_INT(refuse(&r, "null,id=p,obuf-full=drop-oldest", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "needs obuf=");
    make(&r, "null,id=n,obuf-full=wait");
    rig_close(&r);
}

/* One slow member stops no other: each member of a hub has its own queue. */
static void check_hub_with_sleeper(const char *policy, const char *events)
{
    char     options[300];
    recorder rec;
    chr_dev *one;
    size_t   length = 0;
    int      sleeper[2], reader[2], i;
    rig      r;
    rig_open(&r);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, sleeper) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, reader) == 0);
    nonblocking(reader[0]);
    snprintf(options, sizeof options, "socket,id=one,fd=%d,obuf=1000,obuf-full=%s", sleeper[1], policy);
    one = make(&r, options);
    snprintf(options, sizeof options, "socket,id=two,fd=%d,obuf=64K", reader[1]);
    make(&r, options);
    attach(&rec, make(&r, "hub,id=h,chardevs.0=one,chardevs.1=two"));
    settle(&r);
    for (i = 0; i < LINES; i += 1000) {
        ssize_t n;
        CHECK_INT(write_lines(&r, &rec.fe, i, i + 1000), i + 1000);
        settle(&r);
        while ((n = read(reader[0], heard + length, sizeof heard - length)) > 0) length += (size_t)n, settle(&r);
    }
    CHECK_INT(length, LINES * LINE_SIZE);
    CHECK_INT(check_lines(length), LINES - 1);
    CHECK_STR(rec.events, events);
    CHECK(dropped_of(one) > 0);
    CHECK_INT(one->be_open, strcmp(policy, "disconnect") != 0);
    detach(&rec);
    close(sleeper[0]), close(reader[0]);
    rig_close(&r);
}

TEST(obuf_full_of_one_hub_member_drops) { check_hub_with_sleeper("drop-oldest", "O"); }
TEST(obuf_full_of_one_hub_member_disconnects) { check_hub_with_sleeper("disconnect", "O"); }


