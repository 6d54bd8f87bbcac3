/* Output that waits: history= for the peers to come, obuf= for a peer that is slow. */
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

/* ---- history ---------------------------------------------------------------------------------------------------------- */

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

/* ---- obuf ------------------------------------------------------------------------------------------------------------- */

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

/* ---- options ---------------------------------------------------------------------------------------------------------- */

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
