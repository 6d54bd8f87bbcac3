/* fuzz_line.h - a socket chardev that speaks some protocol, and the fuzzer as its peer: what the protocol targets share. */
#ifndef CHARDEV_FUZZ_LINE_H
#define CHARDEV_FUZZ_LINE_H

#include "fuzz.h"

#ifdef FUZZ_UNCOUNTED
#pragma clang attribute push(__attribute__((no_sanitize("coverage"))), apply_to = function)
#endif

enum { LINE_MOST = 1 << 16 };

typedef struct fuzz_line {
    chr_context  *ctx;
    chr_frontend  fe;
    int           peer, room;
    int           opened, closed, may_stop; /* may_stop: the peer can say that it wants no output */
    unsigned char data[LINE_MOST]; /* what the frontend got; an event stands in it as the byte pair of `events` */
    size_t        length;
    size_t        event_at[LINE_MOST]; /* how much had come before each BREAK */
    size_t        events;
    unsigned char heard[2 * LINE_MOST]; /* what came back */
    size_t        heard_length;
} fuzz_line;

static inline int fuzz_line_can_read(void *opaque)
{
    return ((fuzz_line *)opaque)->room;
}

static inline void fuzz_line_read(void *opaque, const void *buf, size_t len)
{
    fuzz_line *l = (fuzz_line *)opaque;
    FUZZ_CHECK(len > 0 && len <= (size_t)l->room && l->opened && !l->closed);
    FUZZ_CHECK(l->length + len <= LINE_MOST);
    memcpy(l->data + l->length, buf, len);
    l->length += len;
    l->room -= (int)len;
}

static inline void fuzz_line_event(void *opaque, int event)
{
    fuzz_line *l = (fuzz_line *)opaque;
    if (event == CHR_EVENT_OPENED) {
        FUZZ_CHECK(!l->opened);
        l->opened = 1;
    } else if (event == CHR_EVENT_CLOSED) {
        FUZZ_CHECK(l->opened && !l->closed);
        l->closed = 1;
    } else if (event == CHR_EVENT_BREAK) {
        FUZZ_CHECK(l->opened && !l->closed && l->events < LINE_MOST);
        l->event_at[l->events++] = l->length;
    }
}

static inline void fuzz_line_hear(fuzz_line *l)
{
    ssize_t n;
    if (l->peer < 0) return;
    while ((n = wire_hear(l->peer, l->heard + l->heard_length, sizeof l->heard - l->heard_length)) > 0) l->heard_length += (size_t)n;
    FUZZ_CHECK(l->heard_length < sizeof l->heard);
}

/* Until nothing happens any more; endless work is a finding. */
static inline void fuzz_line_settle(fuzz_line *l)
{
    int i;
    for (i = 0; i < 20000; i++) {
        fuzz_line_hear(l);
        if (chr_loop_step(l->ctx, 0) <= 0) return;
    }
    FUZZ_CHECK(i < 20000); /* else the loop never comes to rest */
}

/* One of few, so that none has to be cleared as a whole. */
static inline fuzz_line *fuzz_line_new(void)
{
    static fuzz_line lines[2];
    fuzz_line       *l = lines[0].ctx ? &lines[1] : &lines[0];
    FUZZ_CHECK(!l->ctx);
    l->peer = -1;
    l->room = l->opened = l->closed = l->may_stop = 0;
    l->length = l->events = l->heard_length = 0;
    memset(&l->fe, 0, sizeof l->fe);
    return l;
}

/* A line in a context that may have others. */
static inline fuzz_line *fuzz_line_join(chr_context *ctx, const char *id, int is_server, const char *protocol)
{
    static const chr_handlers handlers = { fuzz_line_can_read, fuzz_line_read, fuzz_line_event, NULL };
    char                      options[200];
    int                       fds[2];
    chr_error                 err;
    chr_dev                  *dev;
    fuzz_line                *l = fuzz_line_new();
    FUZZ_CHECK(wire_pair(WIRE_STREAM, fds) == 0);
    l->ctx = ctx;
    l->peer = fds[0];
    if (is_server) snprintf(options, sizeof options, "socket,id=%s,path=fuzz.%s,abstract=on,server=on,wait=off,%s", id, id, protocol);
    else snprintf(options, sizeof options, "socket,id=%s,fd=%d,%s", id, fds[1], protocol);
    dev = chr_new(l->ctx, options, &err);
    if (!dev) fprintf(stderr, "%s: %s\n", options, err.text);
    FUZZ_CHECK(dev != NULL && chr_fe_init(&l->fe, dev, &err) == 0);
    chr_fe_set_handlers(&l->fe, &handlers, l);
    if (is_server) FUZZ_CHECK(chr_add_client(l->ctx, id, fds[1], &err) == 0);
    fuzz_line_settle(l);
    return l;
}

static inline fuzz_line *fuzz_line_open(const fuzz_bytes *in, int is_server, const char *protocol)
{
    return fuzz_line_join(fuzz_context(in->data, in->size), "l", is_server, protocol);
}

static inline void fuzz_line_give_room(fuzz_line *l, int room)
{
    l->room = room;
    chr_fe_accept_input(&l->fe);
    fuzz_line_settle(l);
}

/* Some of the peer's bytes, in one packet; false when nobody is there any more. Many small packets fill the line: then it takes room. */
static inline int fuzz_line_say(fuzz_line *l, const void *bytes, size_t len)
{
    const uint8_t *from = (const uint8_t *)bytes;
    int            tries;
    for (tries = 0; len > 0;) {
        ssize_t n = wire_say(l->peer, from, len);
        if (n < 0 && (errno != EAGAIN || l->closed || ++tries > 3)) return 0;
        if (n < 0) fuzz_line_give_room(l, LINE_MOST);
        from += n < 0 ? 0 : n;
        len -= n < 0 ? 0 : (size_t)n;
    }
    fuzz_line_settle(l);
    return 1;
}

/* The peer's bytes: in one packet, or cut as `cuts` says: a packet of any length, some short ones, and the rest. With an odd number the
 * frontend has little room, or none; in the end there is room for all. */
static inline void fuzz_line_feed(fuzz_line *l, const uint8_t *bytes, size_t len, uint8_t cuts)
{
    static const uint8_t spreads[4] = { 2, 5, 23, 120 };
    uint32_t             random = cuts * 2654435761u;
    size_t               at = 0, some;
    int                  packet;
    for (packet = 0; at < len && !l->closed; at += some, packet++) {
        random = random * 1664525u + 1013904223u;
        some = cuts == 0 || packet > 8 ? len - at : packet == 0 ? 1 + (random >> 8) % len : 1 + (random >> 20) % spreads[cuts >> 6];
        if (some > len - at) some = len - at;
        l->room = cuts & 1 ? (int)((random >> 12) % 5) : LINE_MOST;
        if (cuts & 1) chr_fe_accept_input(&l->fe);
        if (!fuzz_line_say(l, bytes + at, some)) break;
    }
    fuzz_line_give_room(l, LINE_MOST);
}

/* Writing goes on as long as the line is open, and is over when it is not. */
static inline void fuzz_line_leave(fuzz_line *l)
{
    int n = chr_fe_write(&l->fe, "x\xff\r", 3);
    FUZZ_CHECK(n == 3 || n == CHR_ERR_DISCONNECTED || (l->may_stop && n == CHR_ERR_WOULD_BLOCK));
    FUZZ_CHECK(!l->closed || n == CHR_ERR_DISCONNECTED);
    wire_shut(l->peer);
    l->peer = -1;
    fuzz_line_settle(l);
    FUZZ_CHECK(!l->opened || l->closed);
    chr_fe_deinit(&l->fe);
    l->ctx = NULL;
}

static inline void fuzz_line_close(fuzz_line *l)
{
    chr_context *ctx = l->ctx;
    fuzz_line_leave(l);
    fuzz_end(ctx);
}

#ifdef FUZZ_UNCOUNTED
#pragma clang attribute pop
#endif

#endif
