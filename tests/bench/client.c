/*
 * client compare ROUNDS SLICE_MS NAME=PATH...: measures round trip and stream against each echo server in turn, round
 * after
 *     round, so that whatever else the machine does hits all of them alike. The first one is what the others are compared
 *     with. Prints "NAME roundtrip_us stream_mib_s roundtrip_ratio stream_ratio", medians over the rounds.
 * client roundtrips COUNT PATH: that many round trips, for a counter that looks at the server.
 * Built with BENCH_TLS it speaks TLS to all of them, and is in every other way the same.
 */
#ifdef BENCH_TLS
#include "tls.h"
#else
#include "bench.h"
#endif

/* The connection to one server. */
typedef struct line {
    int        fd;
#ifdef BENCH_TLS
    bench_tls *tls;
#endif
} line;

typedef struct server {
    const char *name;
    line        line;
    double     *roundtrip, *stream; /* one per round: round trips and MiB a second */
} server;

static char sent[BENCH_CHUNK], got[BENCH_CHUNK];

#ifdef BENCH_TLS
static ssize_t line_read(line *l, void *buf, size_t len) { return bench_tls_read(l->tls, buf, len); }
static ssize_t line_write(line *l, const void *buf, size_t len) { return bench_tls_write(l->tls, buf, len); }
#else
static ssize_t line_read(line *l, void *buf, size_t len) { return read(l->fd, buf, len); }
static ssize_t line_write(line *l, const void *buf, size_t len) { return write(l->fd, buf, len); }
#endif

static line open_line(const char *path)
{
    line l = { .fd = bench_connect(path) };
#ifdef BENCH_TLS
    l.tls = bench_tls_new(l.fd, NULL);
#endif
    return l;
}

static void roundtrip(line *l)
{
    size_t n = 0;
    if (line_write(l, sent, BENCH_MESSAGE) != BENCH_MESSAGE) bench_die("write");
    while (n < BENCH_MESSAGE) {
        ssize_t more = line_read(l, got + n, BENCH_MESSAGE - n);
        if (more <= 0) bench_die("the echo server went away");
        n += (size_t)more;
    }
}

static double roundtrips_a_second(line *l, int64_t slice)
{
    int64_t start = bench_now(), end;
    int64_t count = 0;
    do {
        for (int i = 0; i < 50; i++) roundtrip(l);
        count += 50;
        end = bench_now();
    } while (end - start < slice);
    return (double)count * 1e9 / (double)(end - start);
}

/* Full duplex traffic. Of what comes back every byte of `each` is compared: that shows whether some were lost or
 * doubled. */
typedef struct traffic {
    uint64_t out, in;
    ssize_t  each;
} traffic;

/* One turn: takes all that is there, gives as much as goes in. */
static void exchange(line *l, traffic *t, int more)
{
    struct pollfd item = { .fd = l->fd, .events = (short)(more ? POLLIN | POLLOUT : POLLIN) };
    ssize_t n;
    if (poll(&item, 1, 10000) <= 0) bench_die("the echo server sleeps");
    if (item.revents & (POLLIN | POLLHUP)) {
        n = line_read(l, got, sizeof got);
        if (n == 0 || (n < 0 && errno != EAGAIN)) bench_die("the echo server went away");
        for (ssize_t i = 0; i < n; i += t->each)
            if (got[i] != sent[(t->in + (uint64_t)i) % sizeof sent]) bench_die("a wrong echo");
        if (n > 0) t->in += (uint64_t)n;
    }
    if (more && (item.revents & POLLOUT)) {
        size_t at = t->out % sizeof sent;
        n = line_write(l, sent + at, sizeof sent - at);
        if (n > 0) t->out += (uint64_t)n;
        else if (errno != EAGAIN) bench_die("write");
    }
}

static double stream_mib_a_second(line *l, int64_t slice)
{
    traffic t = { 0, 0, 4096 };
    int64_t start = bench_now(), end;
    fcntl(l->fd, F_SETFL, O_NONBLOCK);
    while (bench_now() - start < slice) exchange(l, &t, 1);
    while (t.out % sizeof sent) exchange(l, &t, 1); /* so that the next stream begins with sent[0] */
    while (t.in < t.out) exchange(l, &t, 0);
    end = bench_now();
    fcntl(l->fd, F_SETFL, 0);
    return (double)t.in / 1048576 * 1e9 / (double)(end - start);
}

/* Every byte of two MiB is compared before anything is timed. */
static void verify(line *l)
{
    traffic t = { 0, 0, 1 };
    fcntl(l->fd, F_SETFL, O_NONBLOCK);
    while (t.out < 32 * sizeof sent) exchange(l, &t, 1);
    while (t.in < t.out) exchange(l, &t, 0);
    fcntl(l->fd, F_SETFL, 0);
}

static void open_server(server *s, char *argument, int rounds)
{
    char *path = strchr(argument, '=');
    if (!path) bench_die("NAME=PATH was expected");
    *path++ = '\0';
    s->name = argument;
    s->line = open_line(path);
    s->roundtrip = (double *)calloc((size_t)rounds, sizeof(double));
    s->stream = (double *)calloc((size_t)rounds, sizeof(double));
    if (!s->roundtrip || !s->stream) bench_die("calloc");
    verify(&s->line);
}

/* The median of the ratios within each round: a slow second of the machine hits both sides of a ratio. */
static double ratio(const double *mine, const double *limit, int rounds)
{
    double values[BENCH_ROUNDS];
    for (int i = 0; i < rounds; i++) values[i] = mine[i] / limit[i];
    return bench_median(values, rounds);
}

static int compare(int rounds, int64_t slice, char **arguments, int count)
{
    server *servers = (server *)calloc((size_t)count, sizeof *servers);
    if (!servers || rounds < 1 || rounds > BENCH_ROUNDS) bench_die("arguments");
    for (int i = 0; i < count; i++) open_server(&servers[i], arguments[i], rounds);
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < count; i++) { /* Each round begins with another one. */
            server *s = &servers[(i + round) % count];
            s->roundtrip[round] = roundtrips_a_second(&s->line, slice);
            s->stream[round] = stream_mib_a_second(&s->line, slice);
        }
    }
    for (int i = 0; i < count; i++) {
        const server *s = &servers[i];
        printf("%s %.3f %.1f %.3f %.3f\n", s->name, 1e6 / bench_median(s->roundtrip, rounds), bench_median(s->stream, rounds),
               ratio(s->roundtrip, servers[0].roundtrip, rounds), ratio(s->stream, servers[0].stream, rounds));
    }
    return 0;
}

int main(int argc, char **argv)
{
    /* No byte is 1: that is the escape character of a mux. */
    for (size_t i = 0; i < sizeof sent; i++) sent[i] = (char)('a' + (i * 7 + i / 4096) % 26);
    if (argc > 4 && strcmp(argv[1], "compare") == 0)
        return compare(atoi(argv[2]), atoll(argv[3]) * 1000000, argv + 4, argc - 4);
    if (argc == 4 && strcmp(argv[1], "roundtrips") == 0) {
        line l = open_line(argv[3]);
        for (int left = atoi(argv[2]); left > 0; left--) roundtrip(&l);
        return 0;
    }
    fprintf(stderr, "usage: client compare ROUNDS SLICE_MS NAME=PATH... | client roundtrips COUNT PATH\n");
    return 2;
}
