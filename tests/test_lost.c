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


/* A connection that takes no output ends with its input: there is nothing to be half-closed. */
TEST(the_end_of_input_behind_failed_output_ends_both)
{
    char     options[80];
    int      fds[2];
    recorder rec;
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d,half-close=on", fds[0]);
    attach_with_room(&rec, make(&r, options), 3);
    settle(&r);
    say(fds[1], "before");
    fault_arm(FAULT_send, EPIPE, 1, 0);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    CHECK_INT(fault_plan.fired, 1);
    fault_disarm();
    shutdown(fds[1], SHUT_WR);
    settle(&r);
    CHECK_INPUT(&rec, "bef");
    CHECK_STR(rec.events, "O");
    give_room(&rec, 10);
    settle(&r);
    CHECK_INPUT(&rec, "before");
    CHECK_STR(rec.events, "OC");
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}

/* How many bytes of a websocket's client have come, without the heads of their frames; the last one may be cut. */
static size_t take_frames(int fd)
{
    static unsigned char bytes[4 << 20];
    size_t               len = 0, at = 0, head, size, count = 0;
    ssize_t              n;
    while (len < sizeof bytes && (n = recv(fd, bytes + len, sizeof bytes - len, MSG_DONTWAIT)) > 0) len += (size_t)n;
    CHECK(len > 0 && len < sizeof bytes);
    for (; at + 4 <= len; at += head + size) {
        CHECK(bytes[at + 1] < 127);
        head = bytes[at + 1] == 126 ? 4 : 2;
        size = head == 4 ? (size_t)bytes[at + 2] << 8 | bytes[at + 3] : bytes[at + 1];
        count += at + head + size <= len ? size : len - at - head;
    }
    return count;
}

/* What is lost when a connection ends are the frontend's bytes, without the frame that closes it. */
TEST(a_close_frame_is_no_loss)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    char     options[200], want[100];
    int      fd;
    recorder rec;
    size_t   lost;
    rig      r;
    NEED_LITTLE_ROOM();
    rig_open(&r);
    snprintf(options, sizeof options, "socket,id=s,path=%s,server=on,wait=off,websocket=on", scratch("s"));
    attach(&rec, make(&r, options));
    fd = unix_connect(scratch("s"));
    settle(&r);
    say(fd, request);
    settle(&r);
    CHECK_STR(rec.events, "O");
    (void)hear(fd);
    lost = fill_up(&rec.fe);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    settle(&r);
    CHECK_STR(r.log, "");
    lost -= take_frames(fd);
    CHECK(lost > 0);
    close(fd);
    settle(&r);
    snprintf(want, sizeof want, "the last %lu bytes", (unsigned long)lost);
    CHECK_HAS(r.log, want);
    rig_close(&r);
    scratch_clean();
}

/* What was read ahead of the last peer, and its end, is not for the next one. */
TEST(the_end_that_was_read_ahead_is_that_of_its_peer)
{
    int      fd;
    recorder rec;
    rig      r;
    rig_open(&r);
    attach_with_room(&rec, make_server(&r, "s", ",telnet=on"), 0);
    fd = meet(&r, "s");
    say(fd, "of the first");
    close(fd);
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    fd = meet(&r, "s");
    CHECK_STR(rec.events, "OCO");
    give_room(&rec, 100);
    say(fd, "of the second");
    settle(&r);
    CHECK_INPUT(&rec, "of the second");
    CHECK_STR(rec.events, "OCO");
    close(fd);
    settle(&r);
    CHECK_STR(rec.events, "OCOC");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* ---- the end of a context ---------------------------------------------------------------------------------------- */

/* All is sent, the end of the layer's stream included: the end of a context does not wait until the peer closes, too. */
static void end_beside(const char *more, int removed)
{
    char     options[100], bytes[100];
    int      fds[2];
    recorder rec;
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d%s", fds[0], more);
    attach(&rec, make(&r, options));
    settle(&r);
    CHECK(rec.open);
    CHECK_INT(chr_fe_write(&rec.fe, "all of it", 9), 9);
    detach(&rec);
    if (removed) CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    settle(&r);
    memset(&fault_plan, 0, sizeof fault_plan);
    chr_context_free(r.ctx);
    CHECK_INT(fault_plan.counts[FAULT_poll], 0);
    CHECK(recv(fds[1], bytes, sizeof bytes, MSG_DONTWAIT) >= 9);
    CHECK_INT(r.live, 0);
    CHECK_INT(r.logs, 0);
    close(fds[1]);
}

TEST(the_end_beside_a_telnet_peer_that_stays) { end_beside(",telnet=on", 1); }
TEST(the_end_of_a_telnet_connection_whose_peer_stays) { end_beside(",telnet=on", 0); }
TEST(the_end_of_a_connection_whose_peer_stays) { end_beside("", 0); }
