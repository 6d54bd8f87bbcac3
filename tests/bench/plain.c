/*
 * plain PATH: the echo server that one would write by hand: poll(), read(), write(), nothing else. It is the limit that
 * the others are compared with. Serves one peer, then ends.
 */
#include "bench.h"

#include <fcntl.h>

static char buffer[BENCH_CHUNK];

static int accept_one(const char *path)
{
    struct sockaddr_un address = bench_address(path);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), peer;
    unlink(path);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 1) < 0) bench_die(path);
    peer = accept(listener, NULL, NULL);
    if (peer < 0 || fcntl(peer, F_SETFL, O_NONBLOCK) < 0) bench_die("accept");
    close(listener);
    return peer;
}

int main(int argc, char **argv)
{
    struct pollfd item = { .fd = accept_one(argc > 1 ? argv[1] : "plain.sock"), .events = POLLIN };
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
