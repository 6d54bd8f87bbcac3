/*
 * bench.h - the few things that all benchmark programs share.
 */
#ifndef BENCH_H
#define BENCH_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { BENCH_CHUNK = 65536, BENCH_MESSAGE = 64 }; /* every server reads into a buffer of the first size */

__attribute__((unused)) static void bench_die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, errno ? strerror(errno) : "failed");
    exit(1);
}

__attribute__((unused)) static int64_t bench_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

__attribute__((unused)) static struct sockaddr_un bench_address(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof address.sun_path) {
        fprintf(stderr, "%s: too long for a unix socket\n", path);
        exit(1);
    }
    strcpy(address.sun_path, path);
    return address;
}

/* The only peer of a plain server. */
__attribute__((unused)) static int bench_accept(const char *path)
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

/* A server that has just been started may need a moment until it listens. PATH, or tcp:PORT on this machine. */
__attribute__((unused)) static int bench_connect(const char *where)
{
    int                 inet = strncmp(where, "tcp:", 4) == 0;
    struct sockaddr_in  port = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_un  path = bench_address(inet ? "" : where);
    struct sockaddr    *address = inet ? (struct sockaddr *)&port : (struct sockaddr *)&path;
    int64_t             deadline = bench_now() + 20 * (int64_t)1000000000;
    int                 fd = socket(address->sa_family, SOCK_STREAM, 0);
    port.sin_port = htons((uint16_t)(inet ? atoi(where + 4) : 0));
    while (connect(fd, address, inet ? sizeof port : sizeof path) < 0) {
        if ((errno != ENOENT && errno != ECONNREFUSED) || bench_now() > deadline) bench_die(where);
        poll(NULL, 0, 2);
    }
    return fd;
}

/* What a process has used of the processor, in nanoseconds. */
__attribute__((unused)) static int64_t bench_cpu(pid_t pid)
{
    clockid_t       clock;
    struct timespec used;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) < 0) bench_die("the server's CPU time");
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}

static inline int bench_compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

enum { BENCH_ROUNDS = 1000 }; /* at most */

__attribute__((unused)) static double bench_median(const double *values, int count)
{
    double sorted[BENCH_ROUNDS];
    memcpy(sorted, values, (size_t)count * sizeof *values);
    qsort(sorted, (size_t)count, sizeof *sorted, bench_compare);
    return count % 2 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
}

#endif
