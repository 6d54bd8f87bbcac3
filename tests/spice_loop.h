/*
 * spice_loop.h - a spice server whose main loop is a chr_context's: what a program needs that has no GLib. The functions of a
 * SpiceCoreInterface are not told for which loop they are called, so that it is a global here. Include it after chardev.h.
 */
#ifndef CHARDEV_SPICE_LOOP_H
#define CHARDEV_SPICE_LOOP_H

#include <spice.h>
#include <stdio.h>
#include <stdlib.h>

static chr_context *spice_loop;

struct SpiceTimer {
    chr_timer      timer;
    SpiceTimerFunc func;
    void          *opaque;
};

struct SpiceWatch {
    chr_watch      watch;
    SpiceWatchFunc func;
    void          *opaque;
};

static void *spice_loop_new(size_t size)
{
    void *fresh = calloc(1, size);
    if (!fresh) abort();
    return fresh;
}

static SpiceTimer *spice_loop_timer_add(SpiceTimerFunc func, void *opaque)
{
    SpiceTimer *timer = (SpiceTimer *)spice_loop_new(sizeof *timer);
    timer->func = func;
    timer->opaque = opaque;
    return timer;
}

static void spice_loop_timer_start(SpiceTimer *timer, uint32_t ms)
{
    chr_timer_start(spice_loop, &timer->timer, ms, timer->func, timer->opaque);
}

static void spice_loop_timer_cancel(SpiceTimer *timer)
{
    chr_timer_stop(&timer->timer);
}

static void spice_loop_timer_remove(SpiceTimer *timer)
{
    chr_timer_stop(&timer->timer);
    free(timer);
}

static int spice_loop_events(int mask)
{
    return (mask & SPICE_WATCH_EVENT_READ ? CHR_IN : 0) | (mask & SPICE_WATCH_EVENT_WRITE ? CHR_OUT : 0);
}

/* A hang-up shows in what read() says. */
static void spice_loop_ready(void *opaque, int events)
{
    SpiceWatch *watch = (SpiceWatch *)opaque;
    watch->func(watch->watch.fd, (events & (CHR_IN | CHR_HUP) ? SPICE_WATCH_EVENT_READ : 0) | (events & CHR_OUT ? SPICE_WATCH_EVENT_WRITE : 0),
                watch->opaque);
}

static SpiceWatch *spice_loop_watch_add(int fd, int mask, SpiceWatchFunc func, void *opaque)
{
    SpiceWatch *watch = (SpiceWatch *)spice_loop_new(sizeof *watch);
    watch->func = func;
    watch->opaque = opaque;
    if (chr_watch_start(spice_loop, &watch->watch, fd, spice_loop_events(mask), spice_loop_ready, watch) < 0) abort();
    return watch;
}

static void spice_loop_watch_update_mask(SpiceWatch *watch, int mask)
{
    chr_watch_set(&watch->watch, spice_loop_events(mask));
}

static void spice_loop_watch_remove(SpiceWatch *watch)
{
    chr_watch_stop(&watch->watch);
    free(watch);
}

static void spice_loop_channel_event(int event, SpiceChannelEventInfo *info)
{
    (void)event, (void)info;
}

/* A server without a password that listens nowhere: it is given its clients by spice_server_add_client(). */
static inline SpiceServer *spice_loop_server(chr_context *ctx)
{
    static SpiceCoreInterface core = {
        { SPICE_INTERFACE_CORE, "spice_loop", SPICE_INTERFACE_CORE_MAJOR, SPICE_INTERFACE_CORE_MINOR },
        spice_loop_timer_add, spice_loop_timer_start, spice_loop_timer_cancel, spice_loop_timer_remove,
        spice_loop_watch_add, spice_loop_watch_update_mask, spice_loop_watch_remove, spice_loop_channel_event
    };
    SpiceServer *server = spice_server_new();
    spice_loop = ctx;
    spice_server_set_noauth(server);
    if (spice_server_init(server, &core) < 0) abort();
    return server;
}

#endif
