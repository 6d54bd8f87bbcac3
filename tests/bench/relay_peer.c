/*
 * relay_peer compare ROUNDS MIB NAME=FROM=TO=PID...: sends as many MiB into one end of each relay and takes them from
 * the other, round
 *     after round. FROM and TO are paths of unix sockets, or tcp:PORT. Prints "NAME cpu_s_gib mib_s cpu_ratio": medians of the CPU
 *     seconds (user and system) that the relay's process uses for a GiB, and how many times as many those of the first are.
 * relay_peer both ROUNDS MIB TRIPS NAME=FROM=TO=PID...: the same, and round trips of 64 bytes: there one way, back the
 * other. Prints "NAME
 *     roundtrip_us mib_s roundtrip_ratio speed_ratio": how many times as fast as the first, medians of the ratios within each round.
 * relay_peer port: a TCP port that is free.
 */
#include "bench.h"

typedef struct relay {
    const char *name;
    int         from, to;
    pid_t       pid;
    double      cpu[BENCH_ROUNDS], speed[BENCH_ROUNDS], trips[BENCH_ROUNDS]; /* CPU s a GiB, MiB/s, round trips a second */
} relay;

static unsigned char sent[BENCH_CHUNK], got[BENCH_CHUNK];

static void check(uint64_t at, ssize_t len)
{
    for (ssize_t i = 0; i < len; i += 4096)
        if (got[i] != sent[(at + (uint64_t)i) % sizeof sent]) bench_die("a wrong byte");
}

/* Both ends are served by turns, as they are ready. */
static void transfer(const relay *r, uint64_t bytes)
{
    uint64_t in = 0, out = 0;
    while (out < bytes) {
        struct pollfd items[2] = { { .fd = r->to, .events = POLLIN }, { .fd = in < bytes ? r->from : -1, .events = POLLOUT } };
        ssize_t       n;
        if (poll(items, 2, 10000) <= 0) bench_die("the relay sleeps");
        if (items[0].revents) {
            n = read(r->to, got, sizeof got);
            if (n <= 0) bench_die("the relay went away");
            check(out, n);
            out += (uint64_t)n;
        }
        if (items[1].revents) {
            size_t at = in % sizeof sent;
            n = write(r->from, sent + at, sizeof sent - at);
            if (n <= 0 && errno != EAGAIN) bench_die("write");
            if (n > 0) in += (uint64_t)n;
        }
    }
}

static void measure(relay *r, int round, uint64_t bytes)
{
    int64_t cpu = bench_cpu(r->pid), start = bench_now(), end;
    transfer(r, bytes);
    end = bench_now();
    r->speed[round] = (double)bytes / 1048576 * 1e9 / (double)(end - start);
    r->cpu[round] = (double)(bench_cpu(r->pid) - cpu) / 1e9 / ((double)bytes / 1073741824);
}

static void open_relay(relay *r, char *argument)
{
    char *from = strchr(argument, '='), *to = from ? strchr(from + 1, '=') : NULL, *pid = to ? strchr(to + 1, '=') : NULL;
    if (!pid) bench_die("NAME=FROM=TO=PID was expected");
    *from++ = *to++ = *pid++ = '\0';
    r->name = argument;
    r->from = bench_connect(from);
    r->to = bench_connect(to);
    r->pid = (pid_t)atoi(pid);
    fcntl(r->from, F_SETFL, O_NONBLOCK);
    transfer(r, sizeof sent);
}

static double ratio(const double *mine, const double *limit, int rounds)
{
    double values[BENCH_ROUNDS];
    for (int i = 0; i < rounds; i++) values[i] = mine[i] / limit[i];
    return bench_median(values, rounds);
}

static int compare(int rounds, uint64_t bytes, char **arguments, int count)
{
    relay *relays = (relay *)calloc((size_t)count, sizeof *relays);
    if (!relays || rounds < 1 || rounds > BENCH_ROUNDS) bench_die("arguments");
    for (int i = 0; i < count; i++) open_relay(&relays[i], arguments[i]);
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < count; i++) measure(&relays[(i + round) % count], round, bytes);
    for (int i = 0; i < count; i++)
        printf("%s %.3f %.0f %.3f\n", relays[i].name, bench_median(relays[i].cpu, rounds), bench_median(relays[i].speed, rounds),
               ratio(relays[i].cpu, relays[0].cpu, rounds));
    return 0;
}

static void pass(int from, int to)
{
    size_t        n = 0;
    struct pollfd item = { .fd = to, .events = POLLIN };
    if (write(from, sent, BENCH_MESSAGE) != BENCH_MESSAGE) bench_die("write");
    while (n < BENCH_MESSAGE) {
        ssize_t more = poll(&item, 1, 10000) > 0 ? read(to, got + n, BENCH_MESSAGE - n) : 0;
        if (more <= 0) bench_die("the relay sleeps");
        n += (size_t)more;
    }
}

static void measure_trips(relay *r, int round, int trips)
{
    int64_t start = bench_now();
    for (int i = 0; i < trips; i++) {
        pass(r->from, r->to);
        pass(r->to, r->from);
    }
    r->trips[round] = trips * 1e9 / (double)(bench_now() - start);
}

static int both(int rounds, uint64_t bytes, int trips, char **arguments, int count)
{
    relay *relays = (relay *)calloc((size_t)count, sizeof *relays);
    if (!relays || rounds < 1 || rounds > BENCH_ROUNDS) bench_die("arguments");
    for (int i = 0; i < count; i++) open_relay(&relays[i], arguments[i]);
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < count; i++) {
            measure_trips(&relays[(i + round) % count], round, trips);
            measure(&relays[(i + round) % count], round, bytes);
        }
    for (int i = 0; i < count; i++)
        printf("%s %.1f %.0f %.3f %.3f\n", relays[i].name, 1e6 / bench_median(relays[i].trips, rounds), bench_median(relays[i].speed, rounds),
               ratio(relays[i].trips, relays[0].trips, rounds), ratio(relays[i].speed, relays[0].speed, rounds));
    return 0;
}

static int free_port(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t          len = sizeof address;
    int                fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&address, len) < 0 || getsockname(fd, (struct sockaddr *)&address, &len) < 0) bench_die("bind");
    return ntohs(address.sin_port);
}

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof sent; i++) sent[i] = (unsigned char)(i * 7 + i / 4096);
    if (argc > 4 && strcmp(argv[1], "compare") == 0)
        return compare(atoi(argv[2]), (uint64_t)atoi(argv[3]) << 20, argv + 4, argc - 4);
    if (argc > 5 && strcmp(argv[1], "both") == 0)
        return both(atoi(argv[2]), (uint64_t)atoi(argv[3]) << 20, atoi(argv[4]), argv + 5, argc - 5);
    if (argc == 2 && strcmp(argv[1], "port") == 0) return printf("%d\n", free_port()) < 0;
    fprintf(stderr, "usage: relay_peer compare ROUNDS MIB NAME=FROM=TO=PID... | relay_peer both ROUNDS MIB TRIPS NAME=FROM=TO=PID... | relay_peer port\n");
    return 2;
}
