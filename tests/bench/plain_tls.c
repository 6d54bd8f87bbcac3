/*
 * plain_tls PATH DIR: the echo server that one would write by hand over mbed TLS, with the certificate in DIR: poll(),
 * and mbedtls_ssl_read() and mbedtls_ssl_write() as long as they go on. Serves one peer, then ends.
 */
#include "tls.h"

static char buffer[BENCH_CHUNK];

int main(int argc, char **argv)
{
    struct pollfd item = { .fd = bench_accept(argc > 1 ? argv[1] : "plain.sock"), .events = POLLIN };
    bench_tls    *tls = bench_tls_new(item.fd, argc > 2 ? argv[2] : ".");
    ssize_t       sent = 0, held = 0; /* the bytes of the buffer that are to be written: sent .. held */
    fcntl(item.fd, F_SETFL, O_NONBLOCK);
    for (;;) {
        ssize_t n = 1;
        if (poll(&item, 1, -1) < 0) bench_die("poll");
        if (!held) {
            n = bench_tls_read(tls, buffer, sizeof buffer);
            if (n == 0 || (n < 0 && errno != EAGAIN)) return 0;
            if (n > 0) held = n;
        }
        for (; n > 0 && sent < held; sent += n > 0 ? n : 0) n = bench_tls_write(tls, buffer + sent, (size_t)(held - sent));
        if (n < 0 && errno != EAGAIN) return 0;
        if (sent == held) sent = held = 0;
        item.events = held ? POLLOUT : POLLIN;
    }
}
