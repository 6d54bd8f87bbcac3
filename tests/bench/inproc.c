/*
 * inproc rates ROUNDS: what a 64-byte message costs inside one process, against a bare loop that does the same copying.
 *     Prints "NAME bare_ns chardev_ns ratio".
 * inproc idle COUNT ROUNDS: what a wake-up costs with that many idle chardevs beside the one that has a byte to deliver,
 *     against poll() on the same descriptors. Prints "COUNT plain_ns chardev_ns difference_ns".
 * inproc wakes plain|chardev COUNT WAKES: the same without a clock, for an instruction counter.
 * inproc allocations: how often the allocator is called while messages flow. Prints "NAME calls".
 */
#define CHARDEV_IMPLEMENTATION
#include "../../chardev.h"

#include "bench.h"

#include <sys/resource.h>

enum { RING = 65536, BATCH = 20000, WAKES = 200 };

static char message[BENCH_MESSAGE];
static char device_memory[BENCH_MESSAGE];
static uint64_t device_bytes;
static long allocator_calls;

static void *counting_allocate(void *opaque, void *ptr, size_t size)
{
    (void)opaque;
    allocator_calls++;
    if (size) return realloc(ptr, size);
    free(ptr);
    return NULL;
}

static chr_context *new_context(void)
{
    chr_config config = { 0 };
    chr_context *ctx;
    config.allocate = counting_allocate;
    ctx = chr_context_new(&config);
    if (!ctx) bench_die("chr_context_new");
    return ctx;
}

/* ---- the device that gets input: it copies the message, in the bare loop as in chardev.h -------------------------- */

static int device_can_read(void *opaque)
{
    (void)opaque;
    return BENCH_MESSAGE;
}

static void device_read(void *opaque, const void *buf, size_t len)
{
    (void)opaque;
    memcpy(device_memory, buf, len);
    device_bytes += len;
}

static const chr_handlers device = { device_can_read, device_read, NULL, NULL };

static chr_frontend *attach(chr_context *ctx, const char *options, chr_frontend *fe)
{
    chr_error err;
    chr_dev *dev = chr_new(ctx, options, &err);
    if (!dev || chr_fe_init(fe, dev, &err) < 0) {
        fprintf(stderr, "%s: %s\n", options, err.text);
        exit(1);
    }
    chr_fe_set_handlers(fe, &device, NULL);
    return fe;
}

/* ---- a backend that always has input ------------------------------------------------------------------------------ */

typedef struct source {
    chr_dev  base;
    chr_idle flow;
    long     left; /* messages */
} source;

static int source_write(chr_dev *dev, const void *buf, size_t len)
{
    (void)dev;
    (void)buf;
    return (int)len;
}

static void source_update(chr_dev *dev)
{
    (void)dev;
}

/* Backends deliver from the loop: all messages of a batch come in one idle callback, so that the loop is not measured. */
static void source_flow(void *opaque)
{
    source *s = (source *)opaque;
    for (; s->left > 0; s->left--)
        if (chr_be_can_write(&s->base) >= BENCH_MESSAGE) chr_be_write(&s->base, message, sizeof message);
}

static void source_close(chr_dev *dev)
{
    chr_idle_stop(&((source *)dev)->flow);
}

static int source_open(chr_dev *dev, chr_error *err)
{
    (void)dev;
    (void)err;
    return 0;
}

static const chr_io source_io = { source_write, NULL, source_update, NULL };
static const chr_backend source_kind = {
    "source", NULL, "always has input", NULL, sizeof(chr_common_options), sizeof(source), NULL, source_open, source_close,
    &source_io, NULL, NULL, NULL, NULL, NULL, 0, NULL
};

/* ---- what chardev.h does, a batch of messages at a time ----------------------------------------------------------- */

static chr_context *context;
static chr_frontend null_fe, ring_fe, mux_out_fe, mux_in_fe;
static source *input;

static void write_batch(chr_frontend *fe)
{
    for (int i = 0; i < BATCH; i++) {
        message[0] = (char)(i | 64);
        if (chr_fe_write(fe, message, sizeof message) != BENCH_MESSAGE) bench_die("a short write");
    }
}

static void chardev_null(void) { write_batch(&null_fe); }
static void chardev_ring(void) { write_batch(&ring_fe); }
static void chardev_mux_out(void) { write_batch(&mux_out_fe); }

static void chardev_mux_in(void)
{
    uint64_t before = device_bytes;
    input->left = BATCH;
    chr_idle_start(context, &input->flow, source_flow, input);
    chr_loop_step(context, 0);
    if (device_bytes - before != (uint64_t)BATCH * BENCH_MESSAGE) bench_die("input was lost");
}

static void open_all(void)
{
    context = new_context();
    if (chr_backend_register(context, &source_kind, NULL) < 0) bench_die("chr_backend_register");
    attach(context, "null,id=null", &null_fe);
    attach(context, "ringbuf,id=ring,size=64K", &ring_fe);
    attach(context, "ringbuf,id=out,size=64K,mux=on", &mux_out_fe);
    attach(context, "source,id=in,mux=on", &mux_in_fe);
    input = (source *)chr_find(context, "in-base");
    if (!input) bench_die("in-base");
    while (chr_loop_step(context, 0) > 0) /* OPENED and the like are over before anything is measured */
        ;
}

/* ---- the bare loops: a call through a pointer, as any device model has it, and the copying ------------------------- */

typedef struct bare {
    char     memory[RING];
    uint64_t head, tail;
} bare;

static bare bare_ring;

static int null_put(bare *r, const char *buf, size_t len)
{
    (void)buf;
    r->head += len;
    return (int)len;
}

static int ring_put(bare *r, const char *buf, size_t len)
{
    size_t at = r->head % RING, first = len < RING - at ? len : RING - at;
    memcpy(r->memory + at, buf, first);
    memcpy(r->memory, buf + first, len - first);
    r->head += len;
    if (r->head - r->tail > RING) r->tail = r->head - RING;
    return (int)len;
}

static int device_put(bare *r, const char *buf, size_t len)
{
    if (device_can_read(r) < (int)len || memchr(buf, 1, len)) return 0; /* the escape character is looked for here too */
    device_read(r, buf, len);
    return (int)len;
}

static void bare_batch(int (*volatile put)(bare *, const char *, size_t))
{
    for (int i = 0; i < BATCH; i++) {
        message[0] = (char)(i | 64);
        if (put(&bare_ring, message, sizeof message) != BENCH_MESSAGE) bench_die("a short write");
    }
}

static void bare_null(void) { bare_batch(null_put); }
static void bare_copy(void) { bare_batch(ring_put); }
static void bare_device(void) { bare_batch(device_put); }

/* ---- rates --------------------------------------------------------------------------------------------------------- */

typedef struct pair {
    const char *name;
    void      (*bare)(void);
    void      (*chardev)(void);
} pair;

static const pair pairs[] = {
    { "null", bare_null, chardev_null },
    { "ringbuf", bare_copy, chardev_ring },
    { "mux_out", bare_copy, chardev_mux_out },
    { "mux_in", bare_device, chardev_mux_in },
};
enum { PAIRS = sizeof pairs / sizeof *pairs };

static double timed(void (*batch)(void))
{
    int64_t start = bench_now();
    batch();
    return (double)(bench_now() - start) / BATCH;
}

static void rate(const pair *p, int rounds)
{
    double plain[BENCH_ROUNDS], mine[BENCH_ROUNDS], ratio[BENCH_ROUNDS];
    p->bare();
    p->chardev();
    for (int i = 0; i < rounds; i++) {
        plain[i] = timed(p->bare);
        mine[i] = timed(p->chardev);
        ratio[i] = mine[i] / plain[i];
    }
    printf("%s %.2f %.2f %.3f\n", p->name, bench_median(plain, rounds), bench_median(mine, rounds), bench_median(ratio, rounds));
}

static int rates(int rounds)
{
    open_all();
    for (int i = 0; i < PAIRS; i++) rate(&pairs[i], rounds);
    chr_context_free(context);
    return 0;
}

/* ---- wake-ups among idle chardevs ---------------------------------------------------------------------------------- */

typedef struct crowd {
    int            count;  /* with the one that is not idle: the last */
    struct pollfd *items;
    chr_frontend  *fes;
    int            feed;   /* a byte written here wakes it */
} crowd;

/* One descriptor apiece: the limit is raised as far as the system lets us. */
static void raise_limit(int count)
{
    struct rlimit limit, wanted;
    getrlimit(RLIMIT_NOFILE, &limit);
    wanted.rlim_cur = (rlim_t)count + 100;
    wanted.rlim_max = limit.rlim_max > wanted.rlim_cur ? limit.rlim_max : wanted.rlim_cur;
    if (limit.rlim_cur < wanted.rlim_cur && setrlimit(RLIMIT_NOFILE, &wanted) < 0) bench_die("RLIMIT_NOFILE");
}

static void crowd_add(crowd *c, int at, int fd)
{
    chr_fd_options options = { 0 };
    chr_error err;
    chr_dev *dev;
    char id[32];
    options.in = fd;
    options.out = -1;
    snprintf(id, sizeof id, "c%d", at);
    dev = chr_open(context, id, chr_backend_find(context, "fd"), &options, &err);
    if (!dev || chr_fe_init(&c->fes[at], dev, &err) < 0) bench_die(err.text);
    chr_fe_set_handlers(&c->fes[at], &device, NULL);
    c->items[at].fd = fd;
    c->items[at].events = POLLIN;
}

static void crowd_open(crowd *c, int idle)
{
    int quiet[2], active[2];
    raise_limit(idle);
    context = new_context();
    c->count = idle + 1;
    c->items = (struct pollfd *)calloc((size_t)c->count, sizeof *c->items);
    c->fes = (chr_frontend *)calloc((size_t)c->count, sizeof *c->fes);
    if (!c->items || !c->fes || pipe(quiet) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, active) < 0) bench_die("crowd");
    for (int i = 0; i < idle; i++) {
        int fd = dup(quiet[0]);
        if (fd < 0) bench_die("dup");
        crowd_add(c, i, fd);
    }
    crowd_add(c, idle, active[1]);
    c->feed = active[0];
    while (chr_loop_step(context, 0) > 0)
        ;
}

static void plain_wakes(const crowd *c, int wakes)
{
    for (int i = 0; i < wakes; i++) {
        int left;
        if (write(c->feed, "x", 1) != 1) bench_die("write");
        left = poll(c->items, (nfds_t)c->count, 0);
        for (int at = 0; left > 0; at++) {
            if (!c->items[at].revents) continue;
            left--;
            if (read(c->items[at].fd, message, sizeof message) == 1) device_read(NULL, message, 1);
        }
    }
}

static void chardev_wakes(const crowd *c, int wakes)
{
    for (int i = 0; i < wakes; i++) {
        if (write(c->feed, "x", 1) != 1) bench_die("write");
        chr_loop_step(context, 0);
    }
}

static double wake_ns(void (*run)(const crowd *, int), const crowd *c, int wakes)
{
    uint64_t before = device_bytes;
    int64_t start = bench_now(), end;
    run(c, wakes);
    end = bench_now();
    if (device_bytes - before != (uint64_t)wakes) bench_die("a byte did not come");
    return (double)(end - start) / wakes;
}

static int idle(int count, int rounds)
{
    double plain[BENCH_ROUNDS], mine[BENCH_ROUNDS], difference[BENCH_ROUNDS];
    int wakes = count > 2000 ? WAKES / 10 : WAKES;
    crowd c;
    crowd_open(&c, count);
    for (int i = 0; i < rounds; i++) {
        plain[i] = wake_ns(plain_wakes, &c, wakes);
        mine[i] = wake_ns(chardev_wakes, &c, wakes);
        difference[i] = mine[i] - plain[i];
    }
    printf("%d %.0f %.0f %.0f\n", count, bench_median(plain, rounds), bench_median(mine, rounds), bench_median(difference, rounds));
    chr_context_free(context);
    return 0;
}

static int wakes_only(const char *which, int count, int wakes)
{
    crowd c;
    crowd_open(&c, count);
    wake_ns(strcmp(which, "plain") == 0 ? plain_wakes : chardev_wakes, &c, wakes);
    return 0;
}

/* ---- allocations --------------------------------------------------------------------------------------------------- */

static chr_frontend echo_fe;

static void echo_read(void *opaque, const void *buf, size_t len)
{
    (void)opaque;
    if (chr_fe_write(&echo_fe, buf, len) != (int)len) bench_die("the echo");
}

static int echo_room(void *opaque)
{
    (void)opaque;
    return BENCH_CHUNK;
}

static const chr_handlers echo_handlers = { echo_room, echo_read, NULL, NULL };
static int echo_peer;

static void echo_batch(void)
{
    for (int i = 0; i < 1000; i++) {
        if (write(echo_peer, message, sizeof message) != BENCH_MESSAGE) bench_die("write");
        chr_loop_step(context, 0);
        if (read(echo_peer, message, sizeof message) != BENCH_MESSAGE) bench_die("read");
    }
}

static void echo_open(const char *format)
{
    int ends[2];
    char options[100];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0) bench_die("socketpair");
    context = new_context();
    memset(&echo_fe, 0, sizeof echo_fe);
    snprintf(options, sizeof options, format, ends[1]);
    attach(context, options, &echo_fe);
    chr_fe_set_handlers(&echo_fe, &echo_handlers, NULL);
    while (chr_loop_step(context, 0) > 0)
        ;
    echo_peer = ends[0];
}

static void count_allocations(const char *name, void (*batch)(void))
{
    long before;
    batch();
    before = allocator_calls;
    batch();
    printf("%s %ld\n", name, allocator_calls - before);
}

static int allocations(void)
{
    open_all();
    if (!allocator_calls) bench_die("the allocator hook is not called at all");
    for (int i = 0; i < PAIRS; i++) count_allocations(pairs[i].name, pairs[i].chardev);
    chr_context_free(context);
    echo_open("socket,id=e,fd=%d");
    count_allocations("socket", echo_batch);
    chr_context_free(context);
    close(echo_peer);
    echo_open("socket,id=e,fd=%d,mux=on");
    count_allocations("socket_mux", echo_batch);
    chr_context_free(context);
    return 0;
}

static int rounds_of(const char *text)
{
    int n = atoi(text);
    if (n < 1 || n > BENCH_ROUNDS) bench_die("ROUNDS");
    return n;
}

int main(int argc, char **argv)
{
    memset(message, 'a', sizeof message);
    if (argc == 3 && strcmp(argv[1], "rates") == 0) return rates(rounds_of(argv[2]));
    if (argc == 4 && strcmp(argv[1], "idle") == 0) return idle(atoi(argv[2]), rounds_of(argv[3]));
    if (argc == 5 && strcmp(argv[1], "wakes") == 0) return wakes_only(argv[2], atoi(argv[3]), atoi(argv[4]));
    if (argc == 2 && strcmp(argv[1], "allocations") == 0) return allocations();
    fprintf(stderr, "usage: inproc rates ROUNDS | idle COUNT ROUNDS | wakes plain|chardev COUNT WAKES | allocations\n");
    return 2;
}
