/*
 * plain PATH: the echo server that one would write by hand: poll(), read(), write(), nothing else. It is the limit that
 * the others are compared with. Serves one peer, then ends.
 */
#include "bench.h"

static char buffer[BENCH_CHUNK];

int main(int argc, char **argv)
{
    struct pollfd item = { .fd = bench_accept(argc > 1 ? argv[1] : "plain.sock"), .events = POLLIN };
    ssize_t sent = 0, held = 0; /* the bytes of the buffer that are to be written: sent .. held */
    for (;;) {
        ssize_t n;
        if (poll(&item, 1, -1) < 0) bench_die("poll");
        if (!held) {
            n = read(item.fd, buffer, sizeof buffer);
            if (n == 0) return 0;
            if (n > 0) held = n;
        }
        n = write(item.fd, buffer + sent, (size_t)(held - sent));
        if (n < 0 && errno != EAGAIN) return 0;
        if (n > 0) sent += n;
        if (sent == held) sent = held = 0;
        item.events = held ? POLLOUT : POLLIN;
    }
}
