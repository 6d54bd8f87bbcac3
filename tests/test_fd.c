/* fd: two descriptors of any kind that poll() supports. */
#include "chardev.h"
#include "rig.h"

static chr_dev *open_fd(rig *r, int in, int out)
{
    chr_fd_options options;
    chr_error      err;
    chr_dev       *dev;
    memset(&options, 0, sizeof options);
    options.in = in;
    options.out = out;
    dev = chr_open(r->ctx, "f", chr_backend_find(r->ctx, "fd"), &options, &err);
    if (!dev) NOTE("%s", err.text);
    REQUIRE(dev != NULL);
    return dev;
}

TEST(fd_both_ways)
{
    int      in[2], out[2];
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(pipe(in) == 0 && pipe(out) == 0);
    attach(&rec, open_fd(&r, in[0], out[1]));
    settle(&r);
    CHECK_STR(rec.events, "O");
    say(in[1], "in");
    settle(&r);
    CHECK_INPUT(&rec, "in");
    CHECK_INT(chr_fe_write(&rec.fe, "out", 3), 3);
    CHECK_STR(hear(out[0]), "out");
    CHECK(flag_set(in[0], F_GETFD, FD_CLOEXEC) && !flag_set(in[0], F_GETFL, O_NONBLOCK)); /* others may have the same pipe */
    CHECK(flag_set(out[1], F_GETFD, FD_CLOEXEC) && !flag_set(out[1], F_GETFL, O_NONBLOCK));
    detach(&rec);
    close(in[1]), close(out[0]);
    rig_close(&r); /* the other two were owned and are closed */
}

TEST(fd_one_descriptor_for_both)
{
    int      fds[2];
    recorder rec;
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    attach(&rec, open_fd(&r, fds[0], fds[0]));
    settle(&r);
    say(fds[1], "ping");
    settle(&r);
    CHECK_INPUT(&rec, "ping");
    CHECK_INT(chr_fe_write(&rec.fe, "pong", 4), 4);
    CHECK_STR(hear(fds[1]), "pong");
    detach(&rec);
    close(fds[1]);
    rig_close(&r); /* closed once, not twice */
}

TEST(fd_output_only)
{
    int      fds[2];
    char     byte;
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    attach(&rec, open_fd(&r, -1, fds[1]));
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    CHECK(chr_fe_read_all(&rec.fe, &byte, 1, 10) < 0);
    CHECK_STR(hear(fds[0]), "x");
    detach(&rec);
    close(fds[0]);
    rig_close(&r);
}

/* The half-close of a pipe is its close. */
TEST(fd_half_close)
{
    int      in[2], out[2];
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(pipe(in) == 0 && pipe(out) == 0);
    attach(&rec, open_fd(&r, in[0], out[1]));
    settle(&r);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    CHECK_INT(chr_fe_shutdown(&rec.fe), 0);
    CHECK_STR(hear(out[0]), "x");
    CHECK_STR(hear(out[0]), "(eof)");
    CHECK_INT(chr_drain(r.ctx, 0), 0);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_shutdown(&rec.fe), 0); /* as before */
    say(in[1], "still in");
    settle(&r);
    CHECK_INPUT(&rec, "still in");
    CHECK_STR(rec.events, "O");
    detach(&rec);
    close(in[1]), close(out[0]);
    rig_close(&r);
}

TEST(fd_input_only)
{
    int      fds[2];
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    attach(&rec, open_fd(&r, fds[0], -1));
    say(fds[1], "x");
    settle(&r);
    CHECK_INPUT(&rec, "x");
    CHECK(chr_fe_write(&rec.fe, "x", 1) < 0);
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}

TEST(fd_end_of_input_is_closed)
{
    int      fds[2], i, steps = 0;
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    attach(&rec, open_fd(&r, fds[0], -1));
    say(fds[1], "last");
    close(fds[1]);
    settle(&r);
    CHECK_INPUT(&rec, "last");
    CHECK_STR(rec.events, "OC");
    for (i = 0; i < 5; i++) steps += chr_loop_step(r.ctx, 5) > 0;
    CHECK_INT(steps, 0);
    detach(&rec);
    rig_close(&r);
}

TEST(fd_broken_pipe_gives_an_error_and_no_signal)
{
    int      fds[2];
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    attach(&rec, open_fd(&r, -1, fds[1]));
    settle(&r);
    close(fds[0]);
    CHECK(chr_fe_write(&rec.fe, "x", 1) < 0);
    settle(&r);
    CHECK(chr_fe_write_all(&rec.fe, "x", 1, -1) < 0);
    detach(&rec);
    rig_close(&r);
}

TEST(fd_back_pressure)
{
    int      fds[2];
    size_t   sent;
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    attach(&rec, open_fd(&r, -1, fds[1]));
    settle(&r);
    sent = fill_up(&rec.fe);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    settle(&r);
    CHECK_INT(rec.writable, 0);
    CHECK_INT(drain(&r, fds[0], sent), sent);
    settle(&r);
    CHECK_INT(rec.writable, 1);
    detach(&rec);
    close(fds[0]);
    rig_close(&r);
}

TEST(fd_that_is_none)
{
    static const struct { int in, out; } table[] = { { 900, -1 }, { -1, 900 }, { 900, 900 }, { -1, -1 } };
    size_t i;
    rig    r;
    rig_open(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        chr_fd_options options;
        chr_error      err;
        memset(&options, 0, sizeof options);
        options.in = table[i].in;
        options.out = table[i].out;
        err.text[0] = 0;
        if (!CHECK(chr_open(r.ctx, "f", chr_backend_find(r.ctx, "fd"), &options, &err) == NULL) || !CHECK(err.text[0])) NOTE("row %d", (int)i);
        if (table[i].in == 900 || table[i].out == 900) CHECK_HAS(err.text, "900");
    }
    rig_close(&r);
}

/* 0 is a descriptor like others, also when it is the only one; and it is looked at like others. */
TEST(fd_descriptor_0)
{
    static const struct { int in, out; } table[] = { { 0, -1 }, { -1, 0 }, { 0, 0 } };
    size_t i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        chr_fd_options options;
        chr_error      err;
        int            fds[2];
        recorder       rec;
        rig            r;
        rig_open(&r);
        r.fds -= fcntl(0, F_GETFD) >= 0;
        close(0);
        memset(&options, 0, sizeof options);
        options.in = table[i].in;
        options.out = table[i].out;
        CHECK(chr_open(r.ctx, "f", chr_backend_find(r.ctx, "fd"), &options, &err) == NULL);
        CHECK_STR(err.text, table[i].in == 0 ? "fd: in=0: is not an open descriptor" : "fd: out=0: is not an open descriptor");
        socket_pair(fds); /* one of them is 0 now */
        CHECK_INT(fds[0], 0);
        attach(&rec, open_fd(&r, table[i].in, table[i].out));
        settle(&r);
        CHECK_STR(rec.events, "O");
        if (table[i].in == 0) {
            say(fds[1], "in");
            settle(&r);
            CHECK_INPUT(&rec, "in");
        }
        CHECK_INT(chr_fe_write(&rec.fe, "out", 3), table[i].out == 0 ? 3 : (int)CHR_ERR_DISCONNECTED);
        CHECK_STR(hear(fds[1]), table[i].out == 0 ? "out" : "");
        detach(&rec);
        close(fds[1]);
        rig_close(&r);
    }
}

/* Shutdown closes the output descriptor. Another file that gets its number stays open. */
TEST(fd_closed_early_is_closed_once)
{
    int      in[2], out[2], other;
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(pipe(in) == 0 && pipe(out) == 0);
    attach(&rec, open_fd(&r, in[0], out[1]));
    settle(&r);
    CHECK_INT(chr_fe_shutdown(&rec.fe), 0);
    CHECK_STR(hear(out[0]), "(eof)");
    other = fcntl(0, F_DUPFD_CLOEXEC, out[1]);
    CHECK_INT(other, out[1]);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_shutdown(&rec.fe), 0); /* it is over already */
    say(in[1], "in");
    settle(&r);
    CHECK_INPUT(&rec, "in");
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "f", NULL), 0);
    CHECK(fcntl(other, F_GETFD) >= 0);
    close(other), close(in[1]), close(out[0]);
    rig_close(&r);
}

/* After an error the caller still owns what was good. */
TEST(fd_good_and_bad)
{
    chr_fd_options options;
    chr_error      err;
    int            fds[2], before;
    rig            r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    before = fcntl(fds[0], F_GETFL);
    memset(&options, 0, sizeof options);
    options.in = fds[0];
    options.out = 900;
    CHECK(chr_open(r.ctx, "f", chr_backend_find(r.ctx, "fd"), &options, &err) == NULL);
    CHECK_INT(fcntl(fds[0], F_GETFL), before);
    close(fds[0]), close(fds[1]);
    rig_close(&r);
}

TEST(fd_read_all)
{
    int      fds[2];
    char     buf[4];
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    attach(&rec, open_fd(&r, fds[0], -1));
    say(fds[1], "abcdef");
    CHECK_INT(chr_fe_read_all(&rec.fe, buf, 4, 1000), 4);
    CHECK_MEM(buf, 4, "abcd", 4);
    settle(&r);
    CHECK_INPUT(&rec, "ef");
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}
