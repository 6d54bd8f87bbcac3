/*
 * inproc rates ROUNDS: what a 64-byte message costs inside one process, against a bare loop that does the same copying.
 *     Prints "NAME bare_ns chardev_ns ratio".
 * inproc idle COUNT ROUNDS: what a wake-up costs with that many idle socket chardevs beside the one that has a byte to
 * deliver,
 *     against poll() on the same descriptors. Prints "COUNT plain_ns chardev_ns bytes": the last is the memory of each of the idle ones.
 * inproc limit: how many descriptors this process may have.
 * inproc wakes plain|chardev COUNT WAKES: the same without a clock, for an instruction counter.
 * inproc allocations: how often the allocator is called while messages flow. Prints "NAME calls".
 */
#define CHARDEV_IMPLEMENTATION
#include "../../chardev.h"

#include "bench.h"

#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

enum { RING = 65536, BATCH = 20000, WAKES = 200, DESCRIPTORS_BESIDE = 100 };

static char message[BENCH_MESSAGE];
static char device_memory[BENCH_MESSAGE];
static uint64_t device_bytes;
static long allocator_calls;
static size_t allocator_bytes; /* in use, with what malloc() rounds up */

static void *counting_allocate(void *opaque, void *ptr, size_t size)
{
    (void)opaque;
    allocator_calls++;
    if (ptr) allocator_bytes -= malloc_usable_size(ptr);
    ptr = size ? realloc(ptr, size) : (free(ptr), NULL);
    if (ptr) allocator_bytes += malloc_usable_size(ptr);
    return ptr;
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

/* ---- the device that gets input: it copies the message, in the bare loop as in chardev.h ------------------------- */

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

/* ---- a backend that always has input ----------------------------------------------------------------------------- */

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

/* Backends deliver from the loop: all messages of a batch come in one idle callback, so that the loop is not
 * measured. */
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

CHR_TABLE(chr_io, source_io,
    CHR_SET(write,  source_write)
    CHR_SET(update, source_update));
CHR_TABLE(chr_backend, source_kind,
    CHR_SET(name,         "source")
    CHR_SET(help,         "always has input")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(source))
    CHR_SET(open,         source_open)
    CHR_SET(close,        source_close)
    CHR_SET(io,           &source_io));

/* ---- what chardev.h does, a batch of messages at a time ---------------------------------------------------------- */

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

/* ---- the bare loops: a call through a pointer, as any device model has it, and the copying ----------------------- */

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

/* ---- rates ------------------------------------------------------------------------------------------------------- */

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

/* ---- wake-ups among idle chardevs -------------------------------------------------------------------------------- */

typedef struct crowd {
    int            count;  /* with the one that is not idle: the last */
    struct pollfd *items;
    chr_frontend  *fes;
    int            feed;   /* a byte written here wakes it */
    size_t         bytes_each; /* what the context's allocator gave for each idle one */
} crowd;

/* One descriptor apiece: the limit is raised as far as the system lets us. */
static void raise_limit(int count)
{
    struct rlimit limit, wanted;
    getrlimit(RLIMIT_NOFILE, &limit);
    wanted.rlim_cur = (rlim_t)count + DESCRIPTORS_BESIDE;
    wanted.rlim_max = limit.rlim_max > wanted.rlim_cur ? limit.rlim_max : wanted.rlim_cur;
    if (limit.rlim_cur < wanted.rlim_cur && setrlimit(RLIMIT_NOFILE, &wanted) < 0) bench_die("RLIMIT_NOFILE");
}

static void crowd_add(crowd *c, int at, int fd)
{
    char options[100];
    snprintf(options, sizeof options, "socket,id=c%d,fd=%d", at, fd);
    attach(context, options, &c->fes[at]);
    c->items[at].fd = fd;
    c->items[at].events = POLLIN;
}

/* The other ends of the idle connections are another process's: it opens them, and says nothing. */
static int silent_peers(int count)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int                listener = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "bench-%ld", (long)getpid()); /* a name that is no file's */
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 1000) < 0) bench_die("listen");
    if (fork() != 0) return listener;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (count-- > 0)
        if (connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address) < 0) bench_die("connect");
    for (;;) pause();
}

static void settle(void)
{
    while (chr_loop_step(context, 0) > 0)
        ;
}

static void crowd_open(crowd *c, int idle)
{
    int    active[2], listener;
    size_t before;
    raise_limit(idle);
    listener = silent_peers(idle);
    context = new_context();
    c->count = idle + 1;
    c->items = (struct pollfd *)calloc((size_t)c->count, sizeof *c->items);
    c->fes = (chr_frontend *)calloc((size_t)c->count, sizeof *c->fes);
    if (!c->items || !c->fes || socketpair(AF_UNIX, SOCK_STREAM, 0, active) < 0) bench_die("crowd");
    crowd_add(c, idle, active[1]);
    settle();
    before = allocator_bytes;
    for (int i = 0; i < idle; i++) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) bench_die("accept");
        crowd_add(c, i, fd);
    }
    settle();
    close(listener);
    c->feed = active[0];
    c->bytes_each = (allocator_bytes - before) / (size_t)idle;
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
    double plain[BENCH_ROUNDS], mine[BENCH_ROUNDS];
    int wakes = count > 2000 ? WAKES / 10 : WAKES;
    crowd c;
    crowd_open(&c, count);
    chardev_wakes(&c, wakes);
    for (int i = 0; i < rounds; i++) {
        plain[i] = wake_ns(plain_wakes, &c, wakes);
        mine[i] = wake_ns(chardev_wakes, &c, wakes);
    }
    printf("%d %.0f %.0f %zu\n", count, bench_median(plain, rounds), bench_median(mine, rounds), c.bytes_each);
    chr_context_free(context);
    return 0;
}

static int limit(void)
{
    struct rlimit most;
    getrlimit(RLIMIT_NOFILE, &most);
    if (most.rlim_max < 1048576 && geteuid() == 0) { /* who may raise the hard limit does */
        struct rlimit more = { 1048576, 1048576 };
        if (setrlimit(RLIMIT_NOFILE, &more) == 0) most = more;
    }
    printf("%lu\n", (unsigned long)(most.rlim_max > 1048576 ? 1048576 : most.rlim_max) - DESCRIPTORS_BESIDE);
    return 0;
}

static int wakes_only(const char *which, int count, int wakes)
{
    crowd c;
    crowd_open(&c, count);
    wake_ns(strcmp(which, "plain") == 0 ? plain_wakes : chardev_wakes, &c, wakes);
    return 0;
}

/* ---- allocations ------------------------------------------------------------------------------------------------- */

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
    if (argc == 2 && strcmp(argv[1], "limit") == 0) return limit();
    if (argc == 2 && strcmp(argv[1], "allocations") == 0) return allocations();
    fprintf(stderr, "usage: inproc rates ROUNDS | idle COUNT ROUNDS | limit | wakes plain|chardev COUNT WAKES | allocations\n");
    return 2;
}
