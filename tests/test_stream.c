/*
 * What all backends on descriptors have in common: end of file and hang-up while the frontend has no room, or waits to
 * write.
 */
#include "chardev.h"
#include "rig.h"
#include "hosted.h"

typedef struct line {
    rig      r;
    recorder rec;
    int      far;
} line;

/* A connected socket with these options, and a frontend with so much room. */
static void line_open(line *l, const char *more, int room)
{
    char options[200];
    int  fds[2];
    memset(l, 0, sizeof *l);
    rig_open_virtual(&l->r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d%s", fds[0], more);
    l->far = fds[1];
    attach_with_room(&l->rec, make(&l->r, options), room);
    settle(&l->r);
    CHECK_STR(l->rec.events, "O");
}

static void line_close(line *l)
{
    if (l->far >= 0) close(l->far);
    detach(&l->rec);
    rig_close(&l->r);
}

/* The peer sends input, which the frontend does not take, and disconnects: a pending watch is called, though CLOSED
 * has to wait. */
TEST(hang_up_behind_unread_input_while_output_waits)
{
    static const char *const options[] = { "", ",telnet=on" };
    size_t                   i;
    int                      steps, k;
    line                     l;
    NEED_LITTLE_ROOM();
    for (i = 0; i < 2; i++) {
        line_open(&l, options[i], 0);
        (void)hear(l.far);
        fill_up(&l.rec.fe);
        say(l.far, "last words");
        chr_fe_add_watch(&l.rec.fe, recorder_writable, &l.rec);
        settle(&l.r);
        CHECK_INT(l.rec.writable, 0);
        close(l.far);
        l.far = -1;
        settle(&l.r);
        CHECK_INT(l.rec.writable, 1);
        CHECK_STR(l.rec.events, "O"); /* there is still something to be read */
        CHECK_INT(chr_fe_write(&l.rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
        settle(&l.r);
        for (steps = k = 0; k < 5; k++) steps += chr_loop_step(l.r.ctx, 1) > 0;
        CHECK_INT(steps, 0);
        give_room(&l.rec, 4);
        settle(&l.r);
        CHECK_INPUT(&l.rec, "last");
        CHECK_STR(l.rec.events, "O");
        give_room(&l.rec, 100);
        settle(&l.r);
        CHECK_INPUT(&l.rec, "last words");
        CHECK_STR(l.rec.events, "OC");
        line_close(&l);
    }
}

/* The peer shuts both directions down and takes nothing more: what layers still have for it is not tried again and
 * again, though the frontend neither reads nor writes. */
TEST(output_that_nobody_takes_wakes_nobody)
{
    int  i, steps;
    line l;
    NEED_LITTLE_ROOM();
    line_open(&l, ",telnet=on", 0);
    fill_up(&l.rec.fe);
    say(l.far, "last words");
    settle(&l.r);
    shutdown(l.far, SHUT_RDWR);
    settle(&l.r);
    for (steps = i = 0; i < 5; i++) steps += chr_loop_step(l.r.ctx, 1) > 0;
    CHECK_INT(steps, 0);
    CHECK_STR(l.rec.events, "O");
    give_room(&l.rec, UNLIMITED);
    settle(&l.r);
    CHECK_INPUT(&l.rec, "last words");
    CHECK_STR(l.rec.events, "OC");
    line_close(&l);
}

/* A frontend whose can_read returns 0 from then on still gets CLOSED when the peer hangs up. */
TEST(hang_up_when_room_has_gone)
{
    line l;
    line_open(&l, "", UNLIMITED);
    give_room(&l.rec, 0);
    settle(&l.r);
    close(l.far);
    l.far = -1;
    settle(&l.r);
    CHECK_STR(l.rec.events, "OC");
    line_close(&l);
}

/* Input that comes is no room for output. */
TEST(input_while_output_waits)
{
    size_t sent;
    int    i;
    line   l;
    NEED_LITTLE_ROOM();
    line_open(&l, "", UNLIMITED);
    sent = fill_up(&l.rec.fe);
    chr_fe_add_watch(&l.rec.fe, recorder_writable, &l.rec);
    for (i = 1; i <= 3; i++) {
        say(l.far, "x");
        settle(&l.r);
        CHECK_INT(l.rec.length, i);
        CHECK_INT(l.rec.writable, 0);
    }
    CHECK_INT(drain(&l.r, l.far, sent), sent);
    say(l.far, "y"); /* both at once */
    settle(&l.r);
    CHECK_INT(l.rec.length, 4);
    CHECK_INT(l.rec.writable, 1);
    line_close(&l);
}

/* The same in another one's loop, where nothing is looked at again but for a reason. */
TEST(hang_up_behind_unread_input_in_another_loop)
{
    char     options[60];
    int      fds[2];
    recorder rec;
    rig      r;
    NEED_LITTLE_ROOM();
    rig_open_hosted(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    attach_with_room(&rec, make(&r, options), 0);
    host_turns(&r, 10);
    fill_up(&rec.fe);
    say(fds[1], "last words");
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    host_turns(&r, 10);
    CHECK_INT(rec.writable, 0);
    close(fds[1]);
    host_turns(&r, 10);
    CHECK_INT(rec.writable, 1);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    give_room(&rec, 100);
    host_turns(&r, 10);
    CHECK_INPUT(&rec, "last words");
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

/* Half-close by the peer, which still reads: output continues. */
TEST(output_flows_on_behind_the_end_of_input)
{
    size_t sent;
    int    i;
    line   l;
    NEED_LITTLE_ROOM();
    line_open(&l, ",half-close=on", UNLIMITED);
    shutdown(l.far, SHUT_WR);
    settle(&l.r);
    CHECK_STR(l.rec.events, "OE");
    for (i = 1; i <= 3; i++) {
        sent = fill_up(&l.rec.fe);
        chr_fe_add_watch(&l.rec.fe, recorder_writable, &l.rec);
        settle(&l.r);
        CHECK_INT(l.rec.writable, i - 1);
        CHECK_INT(drain(&l.r, l.far, sent), sent);
        settle(&l.r);
        CHECK_INT(l.rec.writable, i);
        CHECK_STR(l.rec.events, "OE");
    }
    CHECK_INT(chr_fe_write(&l.rec.fe, "x", 1), 1);
    CHECK_STR(hear(l.far), "x");
    close(l.far);
    l.far = -1;
    settle(&l.r);
    CHECK_STR(l.rec.events, "OEC");
    line_close(&l);
}

/* Both directions end, each at its time, in either order. */
TEST(both_directions_end)
{
    int  ours_first, i, steps;
    line l;
    for (ours_first = 0; ours_first < 2; ours_first++) {
        line_open(&l, ",half-close=on", UNLIMITED);
        if (ours_first) CHECK_INT(chr_fe_shutdown(&l.rec.fe), 0);
        else shutdown(l.far, SHUT_WR);
        settle(&l.r);
        CHECK_STR(l.rec.events, ours_first ? "O" : "OE");
        for (steps = i = 0; i < 5; i++) steps += chr_loop_step(l.r.ctx, 1) > 0;
        CHECK_INT(steps, 0);
        if (ours_first) {
            CHECK_INT(chr_fe_write(&l.rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
            CHECK_INT(chr_fe_shutdown(&l.rec.fe), 0); /* as before */
            CHECK_INT(chr_drain(l.r.ctx, 0), 0); /* and nothing is left to do for it */
            say(l.far, "still in");
            settle(&l.r);
            CHECK_INPUT(&l.rec, "still in");
            shutdown(l.far, SHUT_WR);
        } else {
            CHECK_INT(chr_fe_write(&l.rec.fe, "x", 1), 1);
            CHECK_INT(chr_fe_shutdown(&l.rec.fe), 0);
            CHECK_STR(hear(l.far), "x");
        }
        settle(&l.r);
        CHECK_STR(l.rec.events, ours_first ? "OC" : "OEC");
        CHECK_INT(chr_fe_shutdown(&l.rec.fe), CHR_ERR_DISCONNECTED);
        line_close(&l);
    }
}

/* A pending watch is called once when the output ends, and there is no busy loop. */
TEST(output_ends_while_somebody_waits_for_it)
{
    int  i, steps;
    line l;
    NEED_LITTLE_ROOM();
    line_open(&l, ",half-close=on", UNLIMITED);
    fill_up(&l.rec.fe);
    chr_fe_add_watch(&l.rec.fe, recorder_writable, &l.rec);
    settle(&l.r);
    CHECK_INT(l.rec.writable, 0);
    CHECK_INT(chr_fe_shutdown(&l.rec.fe), 0);
    settle(&l.r);
    for (steps = i = 0; i < 5; i++) steps += chr_loop_step(l.r.ctx, 1) > 0;
    CHECK_INT(steps, 0);
    chr_fe_add_watch(&l.rec.fe, recorder_writable, &l.rec);
    settle(&l.r);
    CHECK(l.rec.writable >= 1);
    CHECK_INT(chr_fe_write(&l.rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    line_close(&l);
}

/* A watch that is added before a peer has connected, or after its end, is called at once: the next write returns the
 * error. */
TEST(nobody_there_is_writable)
{
    line l;
    line_open(&l, "", UNLIMITED);
    close(l.far);
    l.far = -1;
    settle(&l.r);
    CHECK_STR(l.rec.events, "OC");
    chr_fe_add_watch(&l.rec.fe, recorder_writable, &l.rec);
    settle(&l.r);
    CHECK_INT(l.rec.writable, 1);
    CHECK_INT(chr_fe_write(&l.rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    line_close(&l);
}

/* A busy peer has its share of a turn: 256 KiB, and 64 KiB in one read; then the others have theirs. */
TEST(a_busy_peer_has_its_share_of_a_turn)
{
    enum { SIZE = 3 << 20 };
    static char path[400];
    char        options[500];
    FILE       *file;
    size_t      before = 0, most = 0;
    int         turns = 0;
    recorder    rec;
    rig         r;
    rig_open_virtual(&r);
    snprintf(path, sizeof path, "%s", scratch("in"));
    file = fopen(path, "w");
    REQUIRE(file && ftruncate(fileno(file), SIZE) == 0 && fclose(file) == 0);
    snprintf(options, sizeof options, "file,id=f,path=%s,input-path=%s", scratch("out"), path);
    attach(&rec, make(&r, options));
    while (rec.length < SIZE && turns++ < 1000) {
        chr_loop_step(r.ctx, 0);
        if (rec.length - before > most) most = rec.length - before;
        before = rec.length;
    }
    CHECK_INT(rec.length, SIZE);
    CHECK_INT(most, 4 * 65536);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* There are 64 connections that linger at most. One more ends the oldest that only waits for its peer to close, not
 * one that still has bytes to send. */
TEST(those_that_still_send_linger_on)
{
    enum { MORE = 70 };
    static int far[MORE];
    char       options[100];
    size_t     sent;
    int        i, fds[2], over = 0;
    line       l;
    NEED_LITTLE_ROOM();
    line_open(&l, ",obuf=4K", UNLIMITED);
    sent = fill_up(&l.rec.fe);
    detach(&l.rec);
    CHECK_INT(chr_remove(l.r.ctx, "s", NULL), 0);
    for (i = 0; i < MORE; i++) {
        recorder rec;
        socket_pair(fds);
        far[i] = fds[1];
        snprintf(options, sizeof options, "socket,id=t,fd=%d,telnet=on", fds[0]);
        attach(&rec, make(&l.r, options));
        settle(&l.r);
        detach(&rec);
        CHECK_INT(chr_remove(l.r.ctx, "t", NULL), 0);
        (void)hear(far[i]);
    }
    settle(&l.r);
    for (i = 0; i < MORE; i++) {
        over += send(far[i], "x", 1, MSG_NOSIGNAL) < 0; /* it is closed, and not only shut down */
        CHECK_INT(over, i < MORE - 63 ? i + 1 : MORE - 63); /* the oldest ones */
    }
    CHECK_STR(l.r.log, "");
    CHECK_INT(drain(&l.r, l.far, sent), sent);
    settle(&l.r);
    for (i = 0; i < MORE; i++) close(far[i]);
    settle(&l.r);
    CHECK_STR(l.r.log, "");
    close(l.far);
    rig_close(&l.r);
}
