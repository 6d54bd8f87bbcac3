/*
 * hosted.h - a context in another one's loop, which the library tells what to wait for (watch_changed). Nothing happens but in turns;
 * what found no room asks by itself only after a while. Include it after rig.h.
 */
#ifndef CHARDEV_HOSTED_H
#define CHARDEV_HOSTED_H

static struct {
    chr_watch *watch;
    int        fd, events;
} hosted[64];

static inline void host_watch(void *opaque, chr_watch *watch, int fd, int events)
{
    size_t i, at = 64;
    (void)opaque;
    for (i = 0; i < 64; i++)
        if (hosted[i].watch ? hosted[i].fd == fd : at == 64) at = i;
    REQUIRE(at < 64);
    hosted[at].watch = events ? watch : NULL;
    hosted[at].fd = fd;
    hosted[at].events = events;
}

static inline void host_timeout(void *opaque) { (void)opaque; }

static inline void host_turn(rig *r)
{
    size_t i;
    for (i = 0; i < 64; i++) {
        int           wanted = hosted[i].events; /* not everywhere are the bits those of poll() */
        struct pollfd p = { hosted[i].fd, (short)((wanted & CHR_IN ? POLLIN : 0) | (wanted & CHR_OUT ? POLLOUT : 0)), 0 };
        if (hosted[i].watch && poll(&p, 1, 0) > 0)
            chr_watch_ready(hosted[i].watch, (p.revents & POLLIN ? CHR_IN : 0) | (p.revents & POLLOUT ? CHR_OUT : 0) | (p.revents & POLLHUP ? CHR_HUP : 0));
    }
    if (chr_loop_timeout(r->ctx) == 0) CHECK(chr_loop_dispatch(r->ctx, NULL, 0) >= 0);
}

static inline void host_turns(rig *r, int count)
{
    while (count-- > 0) host_turn(r);
}

static inline void rig_open_hosted(rig *r)
{
    chr_config config = rig_config(r);
    memset(hosted, 0, sizeof hosted);
    config.watch_changed = host_watch;
    config.timeout_changed = host_timeout;
    config.clock = rig_clock;
    rig_init(r);
    r->ctx = chr_context_new(&config);
    REQUIRE(r->ctx != NULL);
}

#endif
