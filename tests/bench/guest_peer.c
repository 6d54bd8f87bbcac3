/*
 * guest_peer compare ROUNDS OUT IN NAME=PATH=PID...: the far side of the serial port of machines that run guest.c.
 * Round after round
 *     each writes OUT bytes and reads IN bytes. Prints "NAME out_mb_s in_mb_s out_cpu_ns in_cpu_ns out_ratio in_ratio", medians over the
 *     rounds: bytes by the clock, CPU time a byte of the machine's process, and how much faster it is than the first.
 * guest_peer w|r COUNT PATH: that many bytes, then the end of the machine, for a counter that looks at it.
 */
#include "bench.h"

#include <signal.h>

typedef struct machine {
    const char *name;
    int         fd;
    pid_t       pid;
    double      speed[2][BENCH_ROUNDS], cpu[2][BENCH_ROUNDS]; /* out, in: bytes a second, nanoseconds a byte */
} machine;

static unsigned char buffer[BENCH_CHUNK];

static void command(int fd, char letter, uint32_t count)
{
    unsigned char text[5] = { (unsigned char)letter };
    for (int i = 0; i < 4; i++) text[1 + i] = (unsigned char)(count >> (8 * i));
    if (write(fd, text, sizeof text) != sizeof text) bench_die("the command");
}

static void take_output(int fd, uint32_t count)
{
    uint32_t got = 0;
    command(fd, 'w', count);
    while (got < count) {
        ssize_t n = read(fd, buffer, sizeof buffer);
        if (n <= 0) bench_die("the machine went away");
        for (ssize_t i = 0; i < n; i++)
            if (buffer[i] != (unsigned char)((got + (uint32_t)i) * 7)) bench_die("a wrong byte of output");
        got += (uint32_t)n;
    }
}

static uint32_t answer(int fd)
{
    unsigned char text[4];
    size_t        got = 0;
    while (got < sizeof text) {
        ssize_t n = read(fd, text + got, sizeof text - got);
        if (n <= 0) bench_die("the machine went away");
        got += (size_t)n;
    }
    return (uint32_t)text[0] | (uint32_t)text[1] << 8 | (uint32_t)text[2] << 16 | (uint32_t)text[3] << 24;
}

static void give_input(int fd, uint32_t count)
{
    uint32_t sum = 0;
    command(fd, 'r', count);
    for (uint32_t left = count; left > 0;) {
        uint32_t len = left < sizeof buffer ? left : (uint32_t)sizeof buffer;
        for (uint32_t i = 0; i < len; i++) sum += buffer[i] = (unsigned char)(left + i * 3);
        if (write(fd, buffer, len) != (ssize_t)len) bench_die("write");
        left -= len;
    }
    if (answer(fd) != sum) bench_die("input was lost");
}

/* The others stand still meanwhile: a guest that polls would take a CPU away. */
static void measure(machine *m, int way, int round, uint32_t count)
{
    int64_t cpu = bench_cpu(m->pid), start, end;
    kill(m->pid, SIGCONT);
    start = bench_now();
    (way == 0 ? take_output : give_input)(m->fd, count);
    end = bench_now();
    kill(m->pid, SIGSTOP);
    m->speed[way][round] = (double)count * 1e3 / (double)(end - start);
    m->cpu[way][round] = (double)(bench_cpu(m->pid) - cpu) / (double)count;
}

/* Connected, and the program runs. */
static int open_port(const char *path)
{
    int  fd = bench_connect(path);
    char greeting;
    if (read(fd, &greeting, 1) != 1 || greeting != '!') bench_die("the machine doesn't start");
    return fd;
}

/* Not before the command has arrived: what comes with the end of a connection is easily lost. */
static void end_machine(int fd)
{
    command(fd, 'q', 0);
    if (read(fd, buffer, sizeof buffer) > 0) bench_die("the machine goes on");
}

static void open_machine(machine *m, char *argument)
{
    char *path = strchr(argument, '='), *pid = path ? strchr(path + 1, '=') : NULL;
    if (!pid) bench_die("NAME=PATH=PID was expected");
    *path++ = *pid++ = '\0';
    m->name = argument;
    m->fd = open_port(path);
    m->pid = (pid_t)atoi(pid);
    kill(m->pid, SIGSTOP);
}

static double ratio(const double *mine, const double *limit, int rounds)
{
    double values[BENCH_ROUNDS];
    for (int i = 0; i < rounds; i++) values[i] = mine[i] / limit[i];
    return bench_median(values, rounds);
}

static int compare(int rounds, uint32_t out, uint32_t in, char **arguments, int count)
{
    machine *machines = (machine *)calloc((size_t)count, sizeof *machines);
    if (!machines || rounds < 1 || rounds > BENCH_ROUNDS) bench_die("arguments");
    for (int i = 0; i < count; i++) open_machine(&machines[i], arguments[i]);
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < count; i++) {
            measure(&machines[i], 0, round, out);
            measure(&machines[i], 1, round, in);
        }
    }
    for (int i = 0; i < count; i++) {
        const machine *m = &machines[i];
        printf("%s %.3f %.3f %.1f %.1f %.1f %.1f\n", m->name, bench_median(m->speed[0], rounds), bench_median(m->speed[1], rounds),
               bench_median(m->cpu[0], rounds), bench_median(m->cpu[1], rounds), ratio(m->speed[0], machines[0].speed[0], rounds),
               ratio(m->speed[1], machines[0].speed[1], rounds));
        kill(m->pid, SIGCONT);
        end_machine(m->fd);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 5 && strcmp(argv[1], "compare") == 0)
        return compare(atoi(argv[2]), (uint32_t)atol(argv[3]), (uint32_t)atol(argv[4]), argv + 5, argc - 5);
    if (argc == 4 && (strcmp(argv[1], "w") == 0 || strcmp(argv[1], "r") == 0)) {
        int fd = open_port(argv[3]);
        (argv[1][0] == 'w' ? take_output : give_input)(fd, (uint32_t)atol(argv[2]));
        end_machine(fd);
        return 0;
    }
    fprintf(stderr, "usage: guest_peer compare ROUNDS OUT IN NAME=PATH=PID... | guest_peer w|r COUNT PATH\n");
    return 2;
}
