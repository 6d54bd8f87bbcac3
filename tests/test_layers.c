/*
 * test_layers.c - a stream with a layer that buffers (telnet), over a local socket: read-ahead while the frontend has
 * no room, unsent output, and how both end.
 */
#include "chardev.h"
#include "fault.h"
#include "rig.h"

enum { IAC = 255, DONT = 254, DO = 253, WONT = 252, WILL = 251, BRK = 243, BOX = 16384, RESERVE = 1024 };

typedef struct line {
    rig      r;
    recorder rec;
    int      far;
} line;

static void line_open(line *l, const char *more, int room)
{
    char options[200];
    int  fds[2];
    memset(l, 0, sizeof *l);
    memset(&fault_plan, 0, sizeof fault_plan);
    rig_open_virtual(&l->r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d,telnet=on%s", fds[0], more);
    l->far = fds[1];
    attach_with_room(&l->rec, make(&l->r, options), room);
    settle(&l->r);
    CHECK_STR(l->rec.events, "O");
    (void)hear(l->far); /* its offers */
}

static void line_close(line *l)
{
    if (l->far >= 0) close(l->far);
    detach(&l->rec);
    rig_close(&l->r);
}

static void say_bytes(line *l, const void *bytes, size_t len)
{
    CHECK_INT(write(l->far, bytes, len), len);
}

/* The loop has nothing to do. */
static void check_rest(line *l)
{
    int i, steps = 0;
    for (i = 0; i < 5; i++) steps += chr_loop_step(l->r.ctx, 1) > 0;
    CHECK_INT(steps, 0);
}

static uint64_t queued(line *l)
{
    chr_info info;
    chr_query(chr_find(l->r.ctx, "s"), &info);
    return info.bytes_queued;
}

/* Writes digits, "0123456789012...", until nothing more is accepted. */
static size_t fill_with_digits(line *l)
{
    static char block[65536];
    size_t      sent = 0, i;
    int         n;
    do {
        for (i = 0; i < sizeof block; i++) block[i] = (char)('0' + (sent + i) % 10);
        n = chr_fe_write(&l->rec.fe, block, sizeof block);
        if (n > 0) sent += (size_t)n;
    } while (n > 0);
    CHECK_INT(n, CHR_ERR_WOULD_BLOCK);
    CHECK(queued(l) <= BOX - RESERVE && queued(l) >= BOX - RESERVE - 2); /* a byte may need two */
    return sent;
}

/* What the far side can take now, which are all bytes of a count: "0123456789012..." from *at on. */
static void take_digits(line *l, size_t *at)
{
    const char *text = hear(l->far);
    size_t      i;
    for (i = 0; text[i] && text[0] != '('; i++, ++*at)
        if (!CHECK_INT(text[i], '0' + (int)(*at % 10))) return;
}

/* Answers go out while the frontend takes nothing; what was read with them is kept, with its events, and comes in
 * its order. */
TEST(layers_answer_while_the_frontend_has_no_room)
{
    static const unsigned char asked[] = { 'a', 'b', IAC, DO, 99, 'c', IAC, BRK, 'd', IAC, IAC, IAC, DO, 98, 'e' };
    static const unsigned char answer[] = { IAC, WONT, 99, 0 }, second[] = { IAC, WONT, 98, 0 };
    line l;
    line_open(&l, "", 0);
    say_bytes(&l, asked, sizeof asked);
    settle(&l.r);
    CHECK_STR(hear(l.far), (const char *)answer);
    check_rest(&l);
    CHECK_INT(l.rec.length, 0);
    CHECK_STR(l.rec.events, "O");
    give_room(&l.rec, 2);
    settle(&l.r);
    CHECK_INPUT(&l.rec, "ab");
    CHECK_STR(l.rec.events, "O");
    give_room(&l.rec, 1);
    settle(&l.r);
    CHECK_INPUT(&l.rec, "abc");
    check_rest(&l);
    give_room(&l.rec, UNLIMITED);
    settle(&l.r);
    CHECK_STR(l.rec.events, "OB");
    CHECK_INPUT(&l.rec, "abcd\377e");
    CHECK_STR(hear(l.far), (const char *)second);
    line_close(&l);
}

/* The read-ahead is bounded; the peer's end of file is delivered after it. */
TEST(layers_read_ahead_so_much)
{
    static char text[3 * BOX];
    size_t      i, first;
    line        l;
    for (i = 0; i < sizeof text; i++) text[i] = (char)('a' + i % 26);
    line_open(&l, "", 0);
    say_bytes(&l, text, sizeof text);
    close(l.far);
    l.far = -1;
    settle(&l.r);
    check_rest(&l);
    CHECK_STR(l.rec.events, "O");
    give_room(&l.rec, 7);
    settle(&l.r);
    CHECK_MEM(l.rec.input, l.rec.length, text, 7);
    give_room(&l.rec, 40000); /* more than a box */
    settle(&l.r);
    first = l.rec.length;
    CHECK_INT(first, 40007);
    CHECK_STR(l.rec.events, "O");
    give_room(&l.rec, UNLIMITED);
    settle(&l.r);
    CHECK_MEM(l.rec.input, l.rec.length, text, sizeof text);
    CHECK_STR(l.rec.events, "OC");
    CHECK_INT(chr_fe_write(&l.rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    line_close(&l);
}

/* A peer that reads nothing: so much is taken for it; its questions are answered until the reserve is full, then it
 * goes. */
TEST(layers_keep_so_much_for_a_slow_peer)
{
    unsigned char question[] = { IAC, DO, 99 };
    size_t        sent, heard = 0, kept;
    int           i, answers;
    line          l;
    NEED_LITTLE_ROOM();
    line_open(&l, "", UNLIMITED);
    sent = fill_with_digits(&l);
    kept = (size_t)queued(&l);
    answers = (int)(BOX - kept) / 3;
    chr_fe_add_watch(&l.rec.fe, recorder_writable, &l.rec);
    for (i = 0; i < answers; i++) {
        say_bytes(&l, question, sizeof question);
        settle(&l.r);
    }
    CHECK_STR(l.rec.events, "O");
    CHECK_INT(queued(&l), kept + 3 * (size_t)answers);
    CHECK_INT(l.rec.writable, 0);
    check_rest(&l);
    for (i = 0; i < 1000 && heard < sent; i++) { /* it reads again: all comes, and there is room */
        const char *text = hear(l.far);
        size_t      k;
        for (k = 0; text[k] && heard < sent; k++, heard++)
            if (!CHECK_INT(text[k], '0' + (int)(heard % 10))) break;
        settle(&l.r);
    }
    CHECK_INT(heard, sent);
    CHECK_INT(l.rec.writable, 1);
    settle(&l.r);
    (void)hear(l.far);
    settle(&l.r);
    CHECK_INT(queued(&l), 0);
    CHECK_INT(chr_fe_write(&l.rec.fe, "on", 2), 2);
    CHECK_STR(hear(l.far), "on");
    fill_with_digits(&l);
    for (i = 0; i <= answers + 1; i++) {
        if (send(l.far, question, sizeof question, MSG_NOSIGNAL) < 0) break;
        settle(&l.r);
        CHECK_STR(l.rec.events, i < answers ? "O" : "OC");
    }
    line_close(&l);
}

/* Half-close: queued output is sent first; no replies are sent after FIN, and the peer's input is still delivered. */
TEST(layers_send_what_they_have_before_the_end)
{
    unsigned char question[] = { IAC, DO, 99, 'y', 'e', 's' };
    size_t        sent, heard = 0;
    int           i;
    line          l;
    NEED_LITTLE_ROOM();
    line_open(&l, ",half-close=on", UNLIMITED);
    sent = fill_with_digits(&l);
    CHECK_INT(chr_fe_shutdown(&l.rec.fe), 0);
    CHECK_INT(chr_fe_write(&l.rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    settle(&l.r);
    check_rest(&l);
    for (i = 0; i < 1000 && heard < sent; i++) {
        take_digits(&l, &heard);
        settle(&l.r);
    }
    CHECK_INT(heard, sent);
    CHECK_STR(hear(l.far), "(eof)");
    CHECK_INT(queued(&l), 0);
    say_bytes(&l, question, sizeof question);
    settle(&l.r);
    CHECK_INPUT(&l.rec, "yes");
    CHECK_STR(l.rec.events, "O");
    say_bytes(&l, question, sizeof question);
    settle(&l.r);
    CHECK_INPUT(&l.rec, "yesyes");
    CHECK_STR(l.rec.events, "O");
    check_rest(&l);
    shutdown(l.far, SHUT_WR);
    settle(&l.r);
    CHECK_STR(l.rec.events, "OC");
    line_close(&l);
}

/* The chardev goes while a slow peer has not had all: it still gets it; or, when it takes nothing for 2 seconds, the
 * log says how many bytes were lost. */
TEST(layers_linger)
{
    size_t sent, heard;
    int    takes, kept;
    char   want[200];
    line   l;
    NEED_LITTLE_ROOM();
    for (takes = 0; takes < 2; takes++) {
        line_open(&l, "", UNLIMITED);
        sent = fill_with_digits(&l);
        kept = (int)queued(&l);
        detach(&l.rec);
        fault_plan.haste = takes ? 0 : 100;
        CHECK_INT(chr_remove(l.r.ctx, "s", NULL), 0);
        settle(&l.r);
        CHECK_INT(chr_drain(l.r.ctx, 0), CHR_ERR_TIMEOUT);
        if (takes) {
            heard = drain(&l.r, l.far, sent);
            CHECK_INT(heard, sent);
            settle(&l.r);
            CHECK_STR(hear(l.far), "(eof)");
            CHECK_STR(l.r.log, "");
        } else {
            pass_real_time(&l.r, 1500);
            CHECK_STR(l.r.log, "");
            pass_real_time(&l.r, 1500);
            fault_plan.haste = 0;
            snprintf(want, sizeof want, "chardev s: the peer has not taken the last %d bytes: they are lost\n", kept);
            CHECK_STR(l.r.log, want);
        }
        CHECK_INT(chr_drain(l.r.ctx, 100), 0);
        close(l.far);
        settle(&l.r);
        rig_close(&l.r);
    }
}

/* Blocking calls see through the layers: events among the bytes, what was read ahead, what waits to be sent. */
TEST(layers_under_blocking_calls)
{
    static const unsigned char some[] = { 'a', IAC, BRK, IAC, DO, 99, 'b', 'c', IAC, BRK };
    char   buf[20];
    size_t sent;
    line   l;
    NEED_LITTLE_ROOM();
    line_open(&l, "", 0);
    say_bytes(&l, some, sizeof some);
    CHECK_INT(chr_fe_read_all(&l.rec.fe, buf, 3, 1000), 3);
    CHECK_MEM(buf, 3, "abc", 3);
    settle(&l.r);
    CHECK_STR(l.rec.events, "OB"); /* equal ones that are posted are one */
    say_bytes(&l, "ahead", 5);
    settle(&l.r); /* it is read ahead */
    CHECK_INT(chr_fe_read_all(&l.rec.fe, buf, 5, 0), 5);
    CHECK_MEM(buf, 5, "ahead", 5);
    CHECK_INT(chr_fe_read_all(&l.rec.fe, buf, 5, 0), CHR_ERR_TIMEOUT);
    (void)hear(l.far);
    sent = fill_up(&l.rec.fe);
    CHECK_INT(chr_fe_write_all(&l.rec.fe, "x", 1, 1), CHR_ERR_TIMEOUT);
    CHECK_INT(chr_fe_flush(&l.rec.fe, 1), CHR_ERR_TIMEOUT);
    CHECK_INT(drain(&l.r, l.far, sent - 100), sent - 100);
    CHECK_INT(chr_fe_flush(&l.rec.fe, 10000), 0);
    CHECK_INT(queued(&l), 0);
    CHECK_INT(strlen(hear(l.far)), 100);
    close(l.far);
    l.far = -1;
    CHECK_INT(chr_fe_read_all(&l.rec.fe, buf, 5, -1), CHR_ERR_DISCONNECTED);
    line_close(&l);
}

/* Memory: an idle connection has none for its layers beyond what the context keeps, and traffic allocates nothing. */
TEST(layers_memory_when_idle)
{
    enum { LINES = 5 };
    recorder rec[LINES];
    char     options[100];
    int      fds[2], i, round;
    int      far[LINES];
    size_t   idle, before;
    long     calls;
    rig      r;
    NEED_LITTLE_ROOM();
    rig_open_virtual(&r);
    before = r.bytes;
    for (i = 0; i < LINES; i++) {
        socket_pair(fds);
        far[i] = fds[1];
        snprintf(options, sizeof options, "socket,id=s%d,fd=%d,telnet=on", i, fds[0]);
        attach_with_room(&rec[i], make(&r, options), 0);
    }
    settle(&r);
    idle = r.bytes;
    CHECK(idle - before > 4 * BOX); /* spare ones, for all */
    for (round = 0; round < 3; round++) {
        for (i = 0; i < LINES; i++) {
            say(far[i], "ahead");
            fill_up(&rec[i].fe);
        }
        settle(&r);
        CHECK(r.bytes >= idle + (2 * LINES - 4) * BOX);
        for (i = 0; i < LINES; i++) {
            give_room(&rec[i], UNLIMITED);
            settle(&r);
            CHECK_MEM(rec[i].input, rec[i].length, "ahead", 5);
            forget_input(&rec[i]);
            give_room(&rec[i], 0);
            while (*hear(far[i])) settle(&r);
        }
        CHECK_INT(r.bytes, idle);
    }
    calls = r.calls;
    for (round = 0; round < 20; round++) {
        say(far[round % LINES], "ping");
        settle(&r);
        give_room(&rec[round % LINES], UNLIMITED);
        settle(&r);
        CHECK_MEM(rec[round % LINES].input, rec[round % LINES].length, "ping", 4);
        forget_input(&rec[round % LINES]);
        give_room(&rec[round % LINES], 0);
        CHECK_INT(chr_fe_write(&rec[round % LINES].fe, "pong", 4), 4);
        CHECK_STR(hear(far[round % LINES]), "pong");
    }
    CHECK_INT(r.calls, calls);
    for (i = 0; i < LINES; i++) {
        detach(&rec[i]);
        close(far[i]);
    }
    settle(&r);
    rig_close(&r);
}

/* Without memory: a write is not taken, and input that can't be kept ends the connection. */
TEST(layers_without_memory)
{
    enum { LINES = 5 };
    recorder rec[LINES];
    char     options[100];
    int      fds[2], i, far[LINES];
    size_t   sent = 0;
    rig      r;
    NEED_LITTLE_ROOM();
    rig_open_virtual(&r);
    for (i = 0; i < LINES; i++) {
        socket_pair(fds);
        far[i] = fds[1];
        snprintf(options, sizeof options, "socket,id=s%d,fd=%d,telnet=on,half-close=on", i, fds[0]);
        attach_with_room(&rec[i], make(&r, options), 0);
    }
    settle(&r);
    for (i = 0; i < 2; i++) { /* these have the spare memory */
        (void)hear(far[i]);
        say(far[i], "ahead");
        sent = fill_up(&rec[i].fe);
    }
    settle(&r);
    fill_up(&rec[3].fe);
    (void)hear(far[2]);
    give_room(&rec[4], UNLIMITED);
    settle(&r);
    r.fail_at = r.calls + 1;
    r.for_good = 1;
    CHECK_INT(chr_fe_write(&rec[2].fe, "x", 1), CHR_ERR_WOULD_BLOCK);
    CHECK_STR(hear(far[2]), "");
    CHECK_STR(rec[2].events, "O");
    say(far[2], "in");
    settle(&r);
    give_room(&rec[2], UNLIMITED);
    settle(&r);
    CHECK_INT(rec[2].length, 0);
    CHECK_STR(rec[2].events, "OC");
    say(far[4], "in"); /* the same for a frontend that has room */
    settle(&r);
    CHECK_INT(rec[4].length, 0);
    CHECK_STR(rec[4].events, "OC");
    r.fail_at = 0;
    for (i = 0; i < 2; i++) { /* nobody else was harmed */
        give_room(&rec[i], UNLIMITED);
        settle(&r);
        CHECK_MEM(rec[i].input, rec[i].length, "ahead", 5);
        CHECK_INT(drain(&r, far[i], sent), sent);
        CHECK_STR(rec[i].events, "O");
    }
    for (i = 0; i < LINES; i++) {
        detach(&rec[i]);
        close(far[i]);
    }
    settle(&r);
    rig_close(&r);
}

/* An HTTP head that comes in pieces, larger than what a layer keeps: it is refused, and nothing is written behind
 * the memory for it. */
TEST(layers_of_websocket_and_a_long_head)
{
    static char head[40000];
    const char *answer;
    recorder    rec;
    char        options[500];
    const char *path = scratch("s");
    int         far;
    rig         r;
    rig_open_virtual(&r);
    snprintf(options, sizeof options, "socket,id=s,path=%s,server=on,wait=off,websocket=on", path);
    attach(&rec, make(&r, options));
    far = unix_connect(path);
    settle(&r);
    memset(head, 'a', sizeof head);
    memcpy(head, "GET / HTTP/1.1\r\nX: ", 19);
    CHECK_INT(write(far, head, 5000), 5000);
    settle(&r);
    CHECK_STR(hear(far), "");
    memset(head, 'a', sizeof head);
    CHECK_INT(write(far, head, sizeof head), sizeof head);
    settle(&r);
    answer = hear(far);
    CHECK_INT(strncmp(answer, "HTTP/1.1 4", 10), 0);
    CHECK_STR(rec.events, "");
    close(far);
    detach(&rec);
    settle(&r);
    rig_close(&r);
    scratch_clean();
}

/* A blocking write to a hub waits for its slow member, and for no other. */
TEST(layers_below_a_hub)
{
    recorder hub;
    char     options[100];
    int      fds[2], fast[2], value;
    size_t   sent;
    rig      r;
    NEED_LITTLE_ROOM();
    memset(&fault_plan, 0, sizeof fault_plan);
    rig_open_virtual(&r);
    socket_pair(fast);
    snprintf(options, sizeof options, "socket,id=f,fd=%d", fast[0]);
    make(&r, options);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d,telnet=on", fds[0]);
    make(&r, options);
    attach(&hub, make(&r, "hub,id=h,chardevs.0=f,chardevs.1=s"));
    settle(&r);
    (void)hear(fds[1]);
    for (sent = 0; (value = chr_fe_write(&hub.fe, "0123456789", 10)) > 0; sent += (size_t)value) (void)hear(fast[1]);
    CHECK_INT(value, CHR_ERR_WOULD_BLOCK);
    CHECK_INT(chr_fe_write_all(&hub.fe, "x", 1, 1), CHR_ERR_TIMEOUT);
    CHECK_INT(drain(&r, fds[1], sent), sent);
    CHECK_INT(chr_fe_write_all(&hub.fe, "x", 1, 10000), 1);
    CHECK_STR(hear(fds[1]), "x");
    CHECK_INT(chr_fe_read_all(&hub.fe, options, 1, 1), CHR_ERR_NOT_SUPPORTED);
    detach(&hub);
    close(fast[1]);
    close(fds[1]);
    settle(&r);
    rig_close(&r);
}
