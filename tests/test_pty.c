/* pty: a new pseudo terminal; the far side is whoever opens the slave. Virtual time: the poll each second needs no waiting. */
#include "chardev.h"
#include "rig.h"

#include <termios.h>

static const char *slave_of(const chr_dev *dev)
{
    static chr_info info;
    chr_query(dev, &info);
    CHECK(strncmp(info.filename, "pty:/dev/pts/", 13) == 0);
    return info.filename + 4;
}

static int open_slave(const chr_dev *dev)
{
    int fd = open(slave_of(dev), O_RDWR | O_NOCTTY);
    REQUIRE(fd >= 0);
    return fd;
}

/* A pty with a recorder and somebody who has opened the slave and been noticed. */
static int connected_pty(rig *r, recorder *rec)
{
    int slave;
    rig_open_virtual(r);
    attach(rec, make(r, "pty,id=p"));
    settle(r);
    slave = open_slave(rec->fe.dev);
    pass_time(r, 1500);
    CHECK_STR(rec->events, "O");
    return slave;
}

TEST(pty_is_closed_until_the_slave_is_opened)
{
    int      slave, i;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "pty,id=p"));
    for (i = 0; i < 5; i++) pass_time(&r, 1000);
    CHECK_STR(rec.events, "");
    slave = open_slave(rec.fe.dev);
    pass_time(&r, 1500);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_backend_open(&rec.fe), 1);
    close(slave);
    PUMP(&r, !rec.open);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

/* Nobody there: about one wake-up a second, not more, and no more than that late. */
TEST(pty_poll_is_quiet)
{
    int      wakes = 0, i;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "pty,id=p"));
    settle(&r);
    for (i = 0; i < 1000; i++) {
        int timeout = chr_loop_timeout(r.ctx);
        CHECK(timeout > 0 && timeout <= 1500);
        r.now += 10000000;
        wakes += chr_loop_step(r.ctx, 0) > 0;
    }
    CHECK(wakes >= 5 && wakes <= 25); /* in ten seconds */
    detach(&rec);
    rig_close(&r);
}

TEST(pty_carries_both_ways)
{
    recorder rec;
    rig      r;
    int      slave = connected_pty(&r, &rec);
    say(slave, "to guest\r\n\x03\x04\x7f");
    PUMP(&r, rec.length == 13);
    CHECK_INPUT(&rec, "to guest\r\n\x03\x04\x7f");
    CHECK_INT(chr_fe_write(&rec.fe, "from guest\n", 11), 11);
    {
        struct pollfd p = { 0, POLLIN, 0 };
        p.fd = slave;
        CHECK_INT(poll(&p, 1, RIG_PATIENCE_MS), 1);
    }
    CHECK_STR(hear(slave), "from guest\n"); /* raw: no carriage return added */
    detach(&rec);
    close(slave);
    rig_close(&r);
}

TEST(pty_slave_is_raw)
{
    struct termios t;
    recorder       rec;
    rig            r;
    int            slave = connected_pty(&r, &rec);
    REQUIRE(tcgetattr(slave, &t) == 0);
    CHECK(!(t.c_lflag & (ECHO | ICANON | ISIG | IEXTEN)));
    CHECK(!(t.c_iflag & (ICRNL | INLCR | IGNCR | IXON | ISTRIP)));
    CHECK(!(t.c_oflag & OPOST));
    detach(&rec);
    close(slave);
    rig_close(&r);
}

TEST(pty_guest_write_looks_at_once)
{
    int      slave;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "pty,id=p"));
    settle(&r);
    CHECK_INT(chr_fe_write(&rec.fe, "nobody", 6), CHR_ERR_DISCONNECTED);
    slave = open_slave(rec.fe.dev);
    chr_fe_write(&rec.fe, "first", 5); /* no time passes */
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_write(&rec.fe, "second", 6), 6);
    detach(&rec);
    close(slave);
    rig_close(&r);
}

/* Data written just before the slave closes arrives before CLOSED. */
TEST(pty_last_words)
{
    int      i;
    recorder rec;
    rig      r;
    int      slave = connected_pty(&r, &rec);
    for (i = 0; i < 20; i++) {
        forget_input(&rec);
        memset(rec.events, 0, sizeof rec.events);
        say(slave, "last words");
        close(slave);
        PUMP(&r, !rec.open);
        CHECK_INPUT(&rec, "last words");
        CHECK_STR(rec.events, "C");
        slave = open_slave(rec.fe.dev);
        pass_time(&r, 1500);
        CHECK_STR(rec.events, "CO");
    }
    detach(&rec);
    close(slave);
    rig_close(&r);
}

/* The same when the frontend has little room. */
TEST(pty_last_words_without_room)
{
    int      i;
    recorder rec;
    rig      r;
    int      slave = connected_pty(&r, &rec);
    rec.room = 0;
    say(slave, "last words");
    close(slave);
    for (i = 0; i < 5; i++) pass_time(&r, 300);
    for (i = 0; i < 50 && rec.length < 10; i++) {
        give_room(&rec, 3);
        chr_loop_step(r.ctx, 5);
    }
    CHECK_INPUT(&rec, "last words");
    for (i = 0; i < 10; i++) {
        give_room(&rec, 3);
        pass_time(&r, 500);
    }
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

TEST(pty_hang_up_without_room_does_not_spin)
{
    int      i, steps = 0;
    recorder rec;
    rig      r;
    int      slave = connected_pty(&r, &rec);
    rec.room = 0;
    close(slave);
    for (i = 0; i < 20; i++) steps += chr_loop_step(r.ctx, 10) > 0;
    CHECK(steps < 10);
    detach(&rec);
    rig_close(&r);
}

TEST(pty_link)
{
    char     options[200], target[100];
    ssize_t  len;
    chr_dev *dev;
    rig      r;
    rig_open_virtual(&r);
    snprintf(options, sizeof options, "pty,id=p,path=%s", scratch("link"));
    dev = make(&r, options);
    len = readlink(scratch("link"), target, sizeof target - 1);
    REQUIRE(len > 0);
    target[len] = 0;
    CHECK_STR(target, slave_of(dev));
    rig_close(&r);
    CHECK(!exists(scratch("link")));
    scratch_clean();
}

TEST(pty_link_that_exists_is_refused_and_stays)
{
    chr_error err;
    char      options[200];
    rig       r;
    rig_open_virtual(&r);
    write_file(scratch("link"), "not ours");
    snprintf(options, sizeof options, "pty,id=p,path=%s", scratch("link"));
    CHECK(refuse(&r, options, &err) < 0);
    CHECK_HAS(err.text, scratch("link"));
    CHECK_STR(read_file(scratch("link")), "not ours");
    CHECK(refuse(&r, "pty,id=p,path=/nonexistent/dir/link", &err) < 0);
    CHECK_HAS(err.text, "/nonexistent/dir/link");
    rig_close(&r);
    CHECK(exists(scratch("link")));
    scratch_clean();
}

TEST(pty_back_pressure)
{
    size_t   sent;
    recorder rec;
    rig      r;
    int      slave = connected_pty(&r, &rec);
    sent = fill_up(&rec.fe);
    CHECK(sent > 0);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    CHECK_INT(drain(&r, slave, sent), sent);
    PUMP(&r, rec.writable == 1);
    PUMP(&r, chr_fe_write(&rec.fe, "y", 1) == 1);
    detach(&rec);
    close(slave);
    rig_close(&r);
}

TEST(pty_filename_and_comes_back)
{
    chr_info info;
    rig      r;
    rig_open_virtual(&r);
    chr_query(make(&r, "pty,id=p"), &info);
    CHECK(strncmp(info.filename, "pty:/dev/pts/", 13) == 0);
    CHECK_INT(info.comes_back, 1);
    CHECK_INT(info.be_open, 0);
    rig_close(&r);
}

TEST(two_ptys)
{
    recorder a, b;
    int      one, two;
    rig      r;
    rig_open_virtual(&r);
    attach(&a, make(&r, "pty,id=a"));
    attach(&b, make(&r, "pty,id=b"));
    one = open_slave(a.fe.dev);
    two = open_slave(b.fe.dev);
    pass_time(&r, 1500);
    say(one, "1");
    say(two, "2");
    PUMP(&r, a.length == 1 && b.length == 1);
    CHECK_INPUT(&a, "1");
    CHECK_INPUT(&b, "2");
    detach(&a), detach(&b);
    close(one), close(two);
    rig_close(&r);
}
