/* A chardev on an epoll loop of your own (chr_loop_fd). Copy it when your program has such a loop already. Input is
 * echoed, and a timer of that loop prints the number of bytes. */
#include "chardev.h"
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

static chr_context *ctx;
static chr_frontend fe;
static long count;
static int room(void *opaque) { return (void)opaque, chr_fe_writable(&fe); } /* back-pressure: what can be sent back */
static void more(void *opaque) { (void)opaque, chr_fe_accept_input(&fe); }
static void got(void *opaque, const void *buf, size_t len)
{
    count += (long)len;
    chr_fe_write(&fe, buf, len);
    chr_fe_add_watch(&fe, more, opaque);
}
static void happened(void *opaque, int event) { if (!opaque && event == CHR_EVENT_CLOSED) chr_loop_stop(ctx); }
int main(int argc, char **argv)
{
    const chr_handlers handlers = { room, got, happened, NULL };
    chr_error          err = { CHR_ERR_NO_MEMORY, "out of memory" };
    chr_dev           *dev = chr_new(ctx = chr_context_new(NULL), argc > 1 ? argv[1] : "stdio,id=con", &err);
    const struct itimerspec each_second = { { 1, 0 }, { 1, 0 } };
    struct epoll_event      event = { EPOLLIN, { 0 } };
    uint64_t                seconds = 0;
    int                     loop = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    if (!dev || chr_fe_init(&fe, dev, &err) < 0 || chr_fe_set_buffers(&fe, 0, 4096) < 0 || chr_loop_fd(ctx) < 0)
        return fprintf(stderr, "%s\n", err.text), 2;
    chr_fe_set_handlers(&fe, &handlers, NULL);
    timerfd_settime(timer, 0, &each_second, NULL);
    if (epoll_ctl(loop, EPOLL_CTL_ADD, event.data.fd = chr_loop_fd(ctx), &event) < 0 ||
        epoll_ctl(loop, EPOLL_CTL_ADD, event.data.fd = timer, &event) < 0) return perror("epoll_ctl"), 2;
    while (epoll_wait(loop, &event, 1, -1) == 1)
        if (event.data.fd == timer && read(timer, &seconds, sizeof seconds) > 0) fprintf(stderr, "%ld bytes\n", count);
        else if (event.data.fd != timer && chr_loop_step(ctx, 0) < 0) break; /* CHR_ERR_STOPPED */
    return chr_context_free(ctx), 0;
}
