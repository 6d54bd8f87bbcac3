/* telnet_line.h - a telnet chardev with a test as its peer, and tables of streams that are fed to it whole and split at every byte. */
#ifndef CHARDEV_TELNET_LINE_H
#define CHARDEV_TELNET_LINE_H

#include "rig.h"

/* ---- a telnet chardev, and the peer's end of its connection -------------------------------------------------------- */

typedef struct line {
    rig      r;
    recorder rec;
    chr_dev *dev;
    int      peer;
    int      is_server;
} line;

static char hear_text[70000];
static int  hear_length;

/* What the peer can read now: may hold zeros. */
static inline void listen_in(line *l)
{
    struct pollfd p = { 0, POLLIN, 0 };
    ssize_t       got;
    p.fd = l->peer;
    hear_length = 0;
    while (hear_length < (int)sizeof hear_text && poll(&p, 1, 0) > 0) {
        got = read(l->peer, hear_text + hear_length, sizeof hear_text - (size_t)hear_length);
        if (got <= 0) return;
        hear_length += (int)got;
    }
}

#define CHECK_HEARD(l, text, len)                           \
    do {                                                    \
        listen_in(l);                                       \
        CHECK_MEM(hear_text, hear_length, (text), (len));   \
    } while (0)

static inline void say_bytes(line *l, const void *bytes, size_t len)
{
    CHECK_INT(write(l->peer, bytes, len), len);
}

static inline chr_dev *open_server(rig *r, const char *protocol)
{
    static int will_clean;
    char       options[300];
    if (!will_clean) atexit(scratch_clean);
    will_clean = 1;
    snprintf(options, sizeof options, "socket,id=t,path=%s,server=on,wait=off,%s=on", scratch("s"), protocol);
    return make(r, options);
}

static inline void connect_peer(line *l)
{
    int       fds[2];
    chr_error err;
    socket_pair(fds);
    l->peer = fds[0];
    if (!CHECK_INT(chr_add_client(l->r.ctx, "t", fds[1], &err), 0)) NOTE("%s", err.text);
    settle(&l->r);
}

static inline void line_open_with_room(line *l, const char *protocol, int is_server, int room)
{
    memset(l, 0, sizeof *l);
    rig_open_virtual(&l->r);
    l->is_server = is_server;
    if (is_server) {
        l->dev = open_server(&l->r, protocol);
        attach_with_room(&l->rec, l->dev, room);
        connect_peer(l);
    } else {
        char options[100];
        int  fds[2];
        socket_pair(fds);
        l->peer = fds[0];
        snprintf(options, sizeof options, "socket,id=t,fd=%d,%s=on", fds[1], protocol);
        l->dev = make(&l->r, options);
        attach_with_room(&l->rec, l->dev, room);
        settle(&l->r);
    }
    CHECK_STR(l->rec.events, "O");
    listen_in(l);
}

static inline void line_open(line *l, const char *protocol, int is_server)
{
    line_open_with_room(l, protocol, is_server, UNLIMITED);
}

static inline void line_close(line *l)
{
    if (l->rec.fe.dev) detach(&l->rec);
    if (l->peer >= 0) close(l->peer);
    rig_close(&l->r);
}

/* ---- input, whole and split ---------------------------------------------------------------------------------------- */

typedef struct stream {
    const char *name, *protocol;
    int         is_server;
    const char *wire;
    size_t      wire_length;
    const char *data;
    size_t      data_length;
    const char *events; /* after O */
    const char *answer;
    size_t      answer_length;
} stream;

#define S(text) (text), sizeof(text) - 1

/* The recorder writes '?' for an event that it doesn't know. */
static inline void check_events(line *l, const char *events)
{
    char   want[64] = "O";
    size_t i;
    strcat(want, events);
    for (i = 0; want[i]; i++)
        if (want[i] == 'R') want[i] = '?';
    CHECK_STR(l->rec.events, want);
}

static inline void feed(const stream *s, size_t split, int room)
{
    line l;
    line_open_with_room(&l, s->protocol, s->is_server, room);
    if (split > 0) say_bytes(&l, s->wire, split);
    settle(&l.r);
    if (split < s->wire_length) say_bytes(&l, s->wire + split, s->wire_length - split);
    settle(&l.r);
    while (room < UNLIMITED && l.rec.room == 0) {
        give_room(&l.rec, room);
        settle(&l.r);
    }
    if (!CHECK_MEM(l.rec.input, l.rec.length, s->data, s->data_length)) NOTE("split at %zu, room %d", split, room);
    check_events(&l, s->events);
    listen_in(&l);
    if (!CHECK_MEM(hear_text, hear_length, s->answer, s->answer_length)) NOTE("the answers, split at %zu, room %d", split, room);
    line_close(&l);
}

static inline void feed_split(const void *arg)
{
    const stream *s = (const stream *)arg;
    size_t        split;
    for (split = 0; split <= s->wire_length; split++) feed(s, split, UNLIMITED);
}

static inline void feed_into_little_room(const void *arg)
{
    const stream *s = (const stream *)arg;
    size_t        split;
    for (split = 0; split <= s->wire_length; split++) {
        feed(s, split, 1);
        feed(s, split, 2);
    }
}

/* One byte at a time, each in its own packet. */
static inline void feed_bytewise(const void *arg)
{
    const stream *s = (const stream *)arg;
    size_t        i;
    line          l;
    line_open(&l, s->protocol, s->is_server);
    for (i = 0; i < s->wire_length; i++) {
        say_bytes(&l, s->wire + i, 1);
        settle(&l.r);
    }
    CHECK_MEM(l.rec.input, l.rec.length, s->data, s->data_length);
    check_events(&l, s->events);
    line_close(&l);
}

static inline void add_streams(const stream *streams, size_t count)
{
    char   name[100];
    size_t i;
    for (i = 0; i < count; i++) {
        snprintf(name, sizeof name, "in_%s", streams[i].name);
        test_add_case(name, feed_split, &streams[i], TEST_SECONDS);
        snprintf(name, sizeof name, "in_%s_bytewise", streams[i].name);
        test_add_case(name, feed_bytewise, &streams[i], TEST_SECONDS);
        snprintf(name, sizeof name, "in_%s_little_room", streams[i].name);
        test_add_case(name, feed_into_little_room, &streams[i], TEST_SECONDS);
    }
}

#endif
