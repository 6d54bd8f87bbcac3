/*
 * test_socket_faults.c - sockets where a system call fails, and options with a late effect: a port in TIME_WAIT, a
 * machine without IPv6, datagrams after an ICMP error.
 */
#include "chardev.h"
#include "fault.h"
#include "rig.h"

static char *optionsf(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *optionsf(const char *format, ...)
{
    static char text[600];
    va_list     args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return text;
}

static int port_of(const chr_dev *dev)
{
    chr_info info;
    chr_query(dev, &info);
    REQUIRE(strrchr(info.address, ':') != NULL);
    return atoi(strrchr(info.address, ':') + 1);
}

/* The side that closes first keeps the connection for a minute (TIME_WAIT): the port is free for a server
 * nevertheless. */
TEST(a_port_that_was_just_left_is_taken_again)
{
    recorder  rec;
    chr_error err;
    char      byte;
    int       port, fd, turn;
    rig       r;
    rig_open(&r);
    attach(&rec, make(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off"));
    port = port_of(rec.fe.dev);
    for (turn = 0; turn < 3; turn++) {
        fd = tcp_connect(port);
        PUMP(&r, rec.open);
        CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
        settle(&r);
        CHECK_INT(read(fd, &byte, 1), 0);
        close(fd);
        settle(&r);
        detach(&rec);
        CHECK_INT(chr_remove(r.ctx, "s", &err), 0);
        settle(&r);
        attach(&rec, make(&r, optionsf("socket,id=s,host=127.0.0.1,port=%d,server=on,wait=off", port)));
    }
    detach(&rec);
    rig_close(&r);
}

/* All interfaces are those of IPv6, and where the system has none, those of IPv4. */
TEST(a_server_without_ipv6_is_one_of_ipv4)
{
    recorder rec;
    chr_info info;
    int      fd;
    rig      r;
    if (!has_ipv6_loopback()) SKIP("this machine has no IPv6");
    rig_open(&r);
    fault_arm(FAULT_socket, EAFNOSUPPORT, 1, 0);
    attach(&rec, make(&r, "socket,id=s,host=,port=0,server=on,wait=off"));
    CHECK(fault_plan.fired == 1);
    fault_disarm();
    chr_query(rec.fe.dev, &info);
    CHECK_INT(strncmp(info.address, "0.0.0.0:", 8), 0);
    fd = tcp_connect(port_of(rec.fe.dev));
    CHECK(fd >= 0);
    PUMP(&r, rec.open);
    close(fd);
    detach(&rec);
    rig_close(&r);
}

static const char datagrams[] = "udp,id=u,host=127.0.0.1,port=%d,localaddr=127.0.0.1,localport=0";

/* The error of an earlier datagram (ICMP) is returned by the next call instead of its own result: that call is
 * repeated once. */
TEST(a_datagram_after_an_error_is_sent)
{
    recorder rec;
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    char     text[20];
    int      fd = socket(AF_INET, SOCK_DGRAM, 0);
    rig      r;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    rig_open(&r);
    attach(&rec, make(&r, optionsf(datagrams, ntohs(address.sin_port))));
    settle(&r);
    fault_arm(FAULT_send, ECONNREFUSED, 1, 0);
    CHECK_INT(chr_fe_write(&rec.fe, "one", 3), 3);
    CHECK_INT(fault_plan.counts[FAULT_send], 2);
    CHECK_INT(recv(fd, text, sizeof text, 0), 3);
    fault_arm(FAULT_send, ECONNREFUSED, 1, 1);
    (void)chr_fe_write(&rec.fe, "two", 3);
    CHECK_INT(fault_plan.counts[FAULT_send], 2);
    fault_arm(FAULT_send, EAGAIN, 1, 0);
    CHECK_INT(chr_fe_write(&rec.fe, "three", 5), CHR_ERR_WOULD_BLOCK);
    CHECK_INT(fault_plan.counts[FAULT_send], 1);
    fault_arm(FAULT_send, EINTR, 1, 0);
    CHECK_INT(chr_fe_write(&rec.fe, "four", 4), 4);
    CHECK_INT(fault_plan.counts[FAULT_send], 2);
    fault_disarm();
    CHECK_INT(recv(fd, text, sizeof text, 0), 4);
    detach(&rec);
    rig_close(&r);
    close(fd);
}

/* An IPv6 peer's chardev leaves its port to others in IPv4. */
TEST(datagrams_of_ipv6_leave_the_port_to_ipv4)
{
    struct sockaddr_in address;
    int                fd, tries, port, is_free = 0;
    rig                r;
    if (!has_ipv6_loopback()) SKIP("this machine has no IPv6");
    for (tries = 0; tries < 5 && !is_free; tries++) { /* somebody else may have it there */
        chr_error err;
        port = 20000 + (int)(getpid() * 7 + tries * 1009) % 30000;
        rig_open(&r);
        memset(&address, 0, sizeof address);
        address.sin_family = AF_INET;
        address.sin_port = htons((uint16_t)port);
        if (chr_new(r.ctx, optionsf("udp,id=u,host=::1,port=9,localaddr=::,localport=%d", port), &err)) {
            fd = socket(AF_INET, SOCK_DGRAM, 0);
            is_free = bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
            close(fd);
        }
        rig_close(&r);
    }
    CHECK(is_free);
}

/* ---- the end of output, and draining ----------------------------------------------------------------------------- */

/* One byte that waits behind a slow peer is worth waiting for, also when the end of output waits behind it. */
TEST(draining_waits_for_the_last_byte_before_the_end)
{
    recorder rec;
    chr_info info;
    int      fds[2], size = 1, n = 0, tries;
    char     block[4096];
    rig      r;
    NEED_LITTLE_ROOM();
    rig_open(&r);
    socket_pair(fds);
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d,half-close=on,obuf=4096", fds[0])));
    settle(&r);
    for (tries = 0; tries < 100000; tries++) {
        CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
        n++;
        chr_query(rec.fe.dev, &info);
        if (info.bytes_queued > 0) break;
    }
    CHECK_INT(info.bytes_queued, 1);
    CHECK_INT(chr_fe_shutdown(&rec.fe), 0);
    CHECK_INT(chr_fe_shutdown(&rec.fe), 0);
    CHECK_INT(chr_drain(r.ctx, 1), CHR_ERR_TIMEOUT);
    while (n > 0) {
        ssize_t got = read(fds[1], block, sizeof block);
        if (!CHECK(got > 0)) break;
        n -= (int)got;
        settle(&r);
    }
    CHECK_INT(chr_drain(r.ctx, 1000), 0);
    CHECK_INT(read(fds[1], block, 1), 0);
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}

TEST(draining_ends_with_an_error_of_the_loop)
{
    recorder rec;
    chr_info info;
    int      fds[2], size = 1, tries;
    rig      r;
    NEED_LITTLE_ROOM();
    rig_open(&r);
    socket_pair(fds);
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d,obuf=4096", fds[0])));
    settle(&r);
    for (tries = 0; tries < 100000; tries++) {
        chr_fe_write(&rec.fe, "x", 1);
        chr_query(rec.fe.dev, &info);
        if (info.bytes_queued > 0) break;
    }
    fault_arm(FAULT_poll, ENOMEM, 1, 1);
    CHECK(chr_drain(r.ctx, 1000) < 0);
    CHECK(chr_drain(r.ctx, 1000) != CHR_ERR_TIMEOUT);
    fault_disarm();
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}

/* ---- memory that holds anything ---------------------------------------------------------------------------------- */

/* chr_fe_init() makes a frontend of whatever was there before. */
TEST(a_frontend_in_memory_that_was_something_else)
{
    chr_frontend fe;
    char         text[20];
    int          fds[2];
    rig          r;
    NEED_POSIX("fd= is there on POSIX systems");
    rig_open(&r);
    memset(&fe, 0x5a, sizeof fe);
    socket_pair(fds);
    make(&r, optionsf("socket,id=s,fd=%d", fds[0]));
    REQUIRE(chr_fe_init(&fe, chr_find(r.ctx, "s"), NULL) == 0);
    settle(&r);
    say(fds[1], "abc");
    settle(&r);
    CHECK_INT(chr_fe_backend_open(&fe), 1);
    CHECK_INT(chr_fe_eof(&fe), 0);
    CHECK_INT(chr_fe_readable(&fe), 0);
    CHECK_INT(chr_fe_write(&fe, "def", 3), 3);
    CHECK_STR(hear(fds[1]), "def");
    CHECK_INT(chr_fe_set_buffers(&fe, 10, 10), 0);
    settle(&r);
    CHECK_INT(chr_fe_read(&fe, text, sizeof text), 3);
    CHECK_MEM(text, 3, "abc", 3);
    chr_fe_deinit(&fe);
    chr_fe_deinit(&fe);
    close(fds[1]);
    rig_close(&r);
}

/* ---- a swap that is refused -------------------------------------------------------------------------------------- */

static void goes_when_asked(recorder *rec, int what)
{
    if (what == 'c') chr_fe_deinit(&rec->fe);
}

/* Who refuses and goes, or only refuses, leaves a chardev that others can have. */
TEST(after_a_refused_swap_the_chardev_is_free)
{
    int goes;
    for (goes = 0; goes < 2; goes++) {
        recorder  rec, other;
        chr_error err;
        rig       r;
        rig_open_virtual(&r);
        attach(&rec, make(&r, "ringbuf,id=x"));
        settle(&r);
        rec.change_answer = -1;
        rec.then = goes ? goes_when_asked : NULL;
        CHECK_INT(chr_change(r.ctx, "x", "ringbuf", &err), CHR_ERR_BUSY);
        CHECK_STR(err.text, "the frontend of 'x' refuses the new backend");
        if (!goes) CHECK_INT(chr_remove(r.ctx, "x", &err), CHR_ERR_BUSY);
        if (!goes) detach(&rec);
        else free(rec.input);
        attach(&other, chr_find(r.ctx, "x"));
        CHECK_INT(chr_change(r.ctx, "x", "null", &err), 0);
        detach(&other);
        CHECK_INT(chr_remove(r.ctx, "x", &err), 0);
        rig_close(&r);
    }
}

/* ---- wake-ups ---------------------------------------------------------------------------------------------------- */

/* Room that came silently is found before the loop sleeps: to look for input from then on needs no wake-up, which
 * would be a byte written to a pipe. */
TEST(what_a_step_does_itself_wakes_nobody)
{
    recorder rec;
    int      fds[2], i;
    rig      r;
    NEED_POSIX("there is no descriptor of the loop on this system");
    rig_open(&r);
    if (chr_loop_fd(r.ctx) < 0) SKIP("there is no descriptor of the loop on this system");
    socket_pair(fds);
    attach_with_room(&rec, make(&r, optionsf("socket,id=s,fd=%d", fds[0])), 0);
    say(fds[1], "abc");
    for (i = 0; i < 5; i++) chr_loop_step(r.ctx, 0);
    CHECK_INT(rec.length, 0);
    fault_arm(FAULT_write, EIO, 1 << 30, 0); /* to count them */
    rec.room = 10;
    for (i = 0; i < 5; i++) chr_loop_step(r.ctx, 0);
    CHECK_INPUT(&rec, "abc");
    CHECK_INT(fault_plan.counts[FAULT_write], 0);
    fault_disarm();
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}
