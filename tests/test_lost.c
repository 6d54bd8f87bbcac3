/*
 * Output that meets an error, or no peer: accepted bytes are lost once, and history=, the log file and bytes_dropped
 * have them once.
 */
#include "chardev.h"
#include "fault.h"
#include "rig.h"

static const char *logged(void) { return exists(scratch("log")) ? read_file(scratch("log")) : ""; }

static uint64_t dropped(rig *r, const char *id)
{
    chr_info info;
    chr_query(chr_find(r->ctx, id), &info);
    return info.bytes_dropped;
}

/* A server on a unix socket, with history=64 and a log file. */
static chr_dev *make_server(rig *r, const char *id, const char *more)
{
    char options[400];
    snprintf(options, sizeof options, "socket,id=%s,path=%s,server=on,wait=off,history=64,logfile=%s%s", id, scratch(id), scratch("log"), more);
    return make(r, options);
}

static int meet(rig *r, const char *id)
{
    int fd = unix_connect(scratch(id));
    settle(r);
    return fd;
}

/* The next write to a peer fails, with an error that does not mean that the peer has disconnected. */
static void fail_next_write(void) { fault_arm(FAULT_send, EIO, 1, 0); }

/* Each of two seats has the history of its own. */
TEST(a_client_that_fails_has_it_in_its_history)
{
    rig      r;
    recorder rec;
    int      first, second, third;
    rig_open(&r);
    attach(&rec, make_server(&r, "s", ",clients=2"));
    first = meet(&r, "s");
    CHECK_INT(chr_fe_write(&rec.fe, "one ", 4), 4);
    fail_next_write();
    CHECK_INT(chr_fe_write(&rec.fe, "two ", 4), CHR_ERR_DISCONNECTED);
    CHECK_INT(fault_plan.fired, 1);
    fault_disarm();
    second = meet(&r, "s");
    CHECK_STR(hear(second), "one two ");
    close(first);
    settle(&r);
    third = meet(&r, "s");
    CHECK_STR(hear(third), "one two ");
    close(second);
    close(third);
    detach(&rec);
    rig_close(&r);
}

/* The other members have it now; this one's next peer gets it from the history. */
TEST(a_member_of_a_hub_that_fails_has_it_in_its_history)
{
    rig      r;
    recorder rec;
    int      a, b;
    rig_open(&r);
    make_server(&r, "a", "");
    make(&r, "ringbuf,id=b,size=64");
    attach(&rec, make(&r, "hub,id=h,chardevs.0=a,chardevs.1=b"));
    a = meet(&r, "a");
    CHECK_INT(chr_fe_write(&rec.fe, "one ", 4), 4);
    fail_next_write();
    CHECK_INT(chr_fe_write(&rec.fe, "two ", 4), 4);
    CHECK_INT(fault_plan.fired, 1);
    fault_disarm();
    CHECK_INT((int)dropped(&r, "a"), 4);
    CHECK_STR(logged(), "one two ");
    close(a);
    settle(&r);
    CHECK_INT(chr_fe_write(&rec.fe, "three", 5), 5);
    b = meet(&r, "a");
    CHECK_STR(hear(b), "one two three");
    close(b);
    detach(&rec);
    rig_close(&r);
}

static void check_gathered(const char *mux)
{
    rig      r;
    recorder rec;
    int      first, second;
    rig_open(&r);
    make_server(&r, "s", "");
    if (mux) make(&r, mux);
    attach(&rec, chr_find(r.ctx, mux ? "m" : "s"));
    CHECK_INT(chr_fe_set_buffers(&rec.fe, 0, 32), 0);
    first = meet(&r, "s");
    CHECK_INT(chr_fe_write(&rec.fe, "one ", 4), 4);
    fail_next_write();
    settle(&r);
    CHECK_INT(fault_plan.fired, 1);
    fault_disarm();
    CHECK_INT(chr_fe_flush(&rec.fe, 0), CHR_ERR_IO);
    CHECK_INT((int)dropped(&r, "s"), 4);
    CHECK_STR(logged(), "one ");
    close(first);
    settle(&r);
    second = meet(&r, "s");
    CHECK_STR(hear(second), "one ");
    close(second);
    detach(&rec);
    rig_close(&r);
}

TEST(what_was_gathered_and_meets_an_error_is_in_the_history) { check_gathered(NULL); }
TEST(so_it_is_below_a_mux) { check_gathered("mux,id=m,chardev=s"); }

/* A write that is refused is the frontend's still: it may offer it again. */
TEST(what_was_not_taken_is_in_no_history)
{
    rig      r;
    recorder rec;
    int      first, second;
    rig_open(&r);
    attach(&rec, make_server(&r, "s", ""));
    first = meet(&r, "s");
    fail_next_write();
    CHECK_INT(chr_fe_write(&rec.fe, "one ", 4), CHR_ERR_IO);
    fault_disarm();
    CHECK_STR(logged(), "");
    CHECK_INT((int)dropped(&r, "s"), 0);
    CHECK_INT(chr_fe_write(&rec.fe, "one ", 4), 4);
    close(first);
    settle(&r);
    second = meet(&r, "s");
    CHECK_STR(hear(second), "one ");
    close(second);
    detach(&rec);
    rig_close(&r);
}

/* The end of the output waits for what the peer has not taken, in the layer; and after that. */
TEST(what_comes_behind_the_end_is_for_the_next_peer)
{
    rig      r;
    recorder rec;
    int      first, second, n;
    size_t   waits;
    char     heard[100];
    rig_open(&r);
    attach(&rec, make_server(&r, "s", ",telnet=on"));
    first = meet(&r, "s");
    waits = fill_up(&rec.fe);
    CHECK_INT(chr_fe_shutdown(&rec.fe), 0);
    CHECK_INT(chr_fe_write(&rec.fe, "one ", 4), CHR_ERR_DISCONNECTED);
    drain(&r, first, waits);
    for (n = 0; n < 100 && strcmp(hear(first), "(eof)") != 0; n++) settle(&r);
    CHECK(n < 100);
    CHECK_INT(chr_fe_write(&rec.fe, "two ", 4), CHR_ERR_DISCONNECTED);
    close(first);
    settle(&r);
    second = meet(&r, "s");
    n = (int)read(second, heard, sizeof heard);
    CHECK(n > 8 && memcmp(heard + n - 8, "one two ", 8) == 0);
    close(second);
    detach(&rec);
    rig_close(&r);
}

/* Each line has its stamp, once, and all lines are there. */
TEST(stamped_lines_to_nobody_are_in_the_history)
{
    rig      r;
    recorder rec;
    int      fd;
    rig_open_virtual(&r);
    make_server(&r, "s", "");
    attach(&rec, make(&r, "mux,id=m,chardev=s"));
    fd = meet(&r, "s");
    say(fd, "\1t");
    settle(&r);
    close(fd);
    settle(&r);
    CHECK_INT(chr_fe_write(&rec.fe, "one\ntwo\n", 8), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_write(&rec.fe, "thr", 3), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_write(&rec.fe, "ee\n", 3), CHR_ERR_DISCONNECTED);
    fd = meet(&r, "s");
    CHECK_STR(hear(fd), "[02:40:00.000] one\n[02:40:00.000] two\n[02:40:00.000] three\n");
    CHECK_STR(logged(), "[02:40:00.000] one\n[02:40:00.000] two\n[02:40:00.000] three\n");
    close(fd);
    detach(&rec);
    rig_close(&r);
}

/* The second line fails: the first was taken, and neither is there twice. */
TEST(a_stamped_line_that_meets_an_error_is_lost_once)
{
    rig      r;
    recorder rec;
    int      fd;
    rig_open_virtual(&r);
    make_server(&r, "s", "");
    attach(&rec, make(&r, "mux,id=m,chardev=s"));
    CHECK_INT(chr_fe_set_buffers(&rec.fe, 0, 32), 0);
    fd = meet(&r, "s");
    say(fd, "\1t");
    settle(&r);
    CHECK_INT(chr_fe_write(&rec.fe, "one\ntwo\n", 8), 8);
    fault_arm(FAULT_send, EIO, 4, 0);
    settle(&r);
    CHECK_INT(fault_plan.fired, 1);
    fault_disarm();
    CHECK_STR(logged(), "[02:40:00.000] one\n[02:40:00.000] two\n");
    close(fd);
    detach(&rec);
    rig_close(&r);
}

