/*
 * What any thread may call, on every kind of chardev, while its owner thread runs the loop, swaps the chardev, removes
 * it and makes it again, or loses its peer. Made for the thread sanitizer (make test SAN=thread), which finds a race
 * whether or not it bites; without it a crash, a hang, a leak and a byte that is lost or out of order are found.
 *
 *     MATRIX_MS=n    how long each combination lasts, in milliseconds
 */
#include "chardev.h"
#include "rig.h"

#include <pthread.h>
#include <sched.h>

enum { MOST_THREADS = 12, PATTERN = 251 };

typedef struct combination combination;

typedef struct device {
    const char *name, *before, *text; /* options of a chardev that has to be made before, or NULL; its own */
    int         far;                  /* how the far side comes: 'p' pty, 'c' it connects, 'l' it listens, 'f' it has descriptors, 0 none */
    int         is_lossless;          /* what was taken arrives, in order */
} device;

/* $u a unix socket's path, $a $b connected sockets, $p a fresh path */
static const device devices[] = {
    { "pty",       NULL,                                       "pty,path=$p",                                               'p', 0 },
    { "client",    NULL,                                       "socket,path=$u,reconnect-ms=1",                             'l', 1 },
    { "server",    NULL,                                       "socket,path=$u,server=on,wait=off",                         'c', 1 },
    { "fd",        NULL,                                       "fd,in=$a,out=$b",                                           'f', 1 },
    { "socket_fd", NULL,                                       "socket,fd=$a",                                              'f', 1 },
    { "ringbuf",   NULL,                                       "ringbuf,size=4K",                                           0,   0 },
    { "mux",       NULL,                                       "socket,fd=$a,mux=on",                                       'f', 1 },
    { "hub",       "socket,id=h,fd=$b",                        "hub,chardevs.0=h",                                          'f', 1 },
    { "stdio",     NULL,                                       "stdio",                                                     'f', 1 },
    { "telnet",    NULL,                                       "socket,path=$u,server=on,wait=off,telnet=on",               'c', 0 },
    { "com_port",  NULL,                                       "socket,path=$u,reconnect-ms=1,telnet=on,com-port=on",       'l', 0 },
    { "websocket", "socket,id=h,path=$u,server=on,wait=off,websocket=on", "socket,path=$u,reconnect-ms=1,websocket=on",     0,   0 },
    { "obuf",      NULL,                                       "socket,path=$u,server=on,wait=off,obuf=1K",                 'c', 1 },
    { "history",   NULL,                                       "socket,path=$u,server=on,wait=off,history=1K,obuf=64",      'c', 0 },
    { "log",       NULL,                                       "socket,path=$u,server=on,wait=off,logfile=$p,logtimestamp=on", 'c', 1 },
    { "record",    NULL,                                       "socket,path=$u,server=on,wait=off",                         'c', 1 },
    { "udp",       NULL,                                       "udp,host=127.0.0.1,port=9,localaddr=127.0.0.1,localport=0", 0,   0 },
    { "null",      NULL,                                       "null",                                                      0,   0 },
    { "tablet",    NULL,                                       "wctablet",                                                  0,   0 },
};

typedef struct call_thread {
    pthread_t    thread;
    combination *of;
    void       (*call)(struct call_thread *);
    chr_idle     idle;
    long         taken, wrong, turns;
} call_thread;

struct combination {
    const device     *kind;
    const struct owner_kind *owner;
    rig               r;
    chr_frontend      fe, second;
    char              text[300];
    int               given[2], far, listener;    /* far: what it has from the start */
    int               stop, done, far_is_over;    /* atomic: for the callers, for the far side; by that */
    int               comes_and_goes;
    long              heard, out_of_order;        /* atomic: by the far side */
    call_thread       threads[MOST_THREADS];
    int               count, saved[2];
    long              read, writable, opened, idles;
    pthread_t         far_thread;
    char              buffer[1 << 14];            /* of stdout, while it is the chardev's */
};

static int is_over(combination *c)
{
    return __atomic_load_n(&c->stop, __ATOMIC_RELAXED);
}

/* ---- what any thread may call ------------------------------------------------------------------------------------ */

static void fill(call_thread *t, unsigned char *bytes, int len)
{
    int i;
    for (i = 0; i < len; i++) bytes[i] = (unsigned char)((t->taken + i) % PATTERN);
}

static void took(call_thread *t, int n, int len)
{
    if (n > len || (n < 0 && n != CHR_ERR_WOULD_BLOCK && n != CHR_ERR_DISCONNECTED && n != CHR_ERR_IO && n != CHR_ERR_TIMEOUT)) t->wrong++;
    if (n > 0) t->taken += n;
}

static void call_write(call_thread *t)
{
    unsigned char bytes[100];
    fill(t, bytes, 100);
    took(t, chr_fe_write(&t->of->fe, bytes, 100), 100);
}

static void call_write_all(call_thread *t)
{
    unsigned char bytes[500];
    fill(t, bytes, 500);
    took(t, chr_fe_write_all(&t->of->fe, bytes, 500, 1), 500);
}

static void call_read_all(call_thread *t)
{
    char bytes[50];
    int  n = chr_fe_read_all(&t->of->fe, bytes, sizeof bytes, 1);
    if (n > 50 || n < CHR_ERR_HELP) t->wrong++;
}

static void call_printf(call_thread *t)
{
    took(t, chr_fe_printf(&t->of->fe, "%*d", t->turns % 2 ? 20 : 900, 1), 900);
}

static void call_accept_input(call_thread *t)
{
    chr_fe_accept_input(&t->of->fe);
}

static void on_writable(void *opaque)
{
    ((combination *)opaque)->writable++;
}

static void call_add_watch(call_thread *t)
{
    chr_fe_add_watch(&t->of->fe, t->turns % 4 ? on_writable : NULL, t->of);
}

static void call_backend_open(call_thread *t)
{
    int is_open = chr_fe_backend_open(&t->of->fe);
    if (is_open != 0 && is_open != 1) t->wrong++;
}

static void call_stop(call_thread *t)
{
    chr_loop_stop(t->of->r.ctx);
}

static void call_wake(call_thread *t)
{
    chr_loop_wake(t->of->r.ctx);
}

static void on_idle(void *opaque)
{
    ((combination *)opaque)->idles++; /* on the owner's thread: nobody else counts */
}

static void call_idle(call_thread *t)
{
    if (t->turns % 3) chr_idle_start(t->of->r.ctx, &t->idle, on_idle, t->of);
    else chr_idle_stop(&t->idle);
}

/* The owner locks once in a while; so may others. */
static void call_lock(call_thread *t)
{
    chr_loop_lock(t->of->r.ctx);
    chr_loop_unlock(t->of->r.ctx);
}

static const struct call_kind {
    const char *name;
    void      (*call)(call_thread *);
} calls[] = {
    { "write", call_write },               { "write_all", call_write_all },   { "read_all", call_read_all },
    { "printf", call_printf },             { "accept_input", call_accept_input }, { "add_watch", call_add_watch },
    { "backend_open", call_backend_open }, { "loop_stop", call_stop },        { "loop_wake", call_wake },
    { "loop_lock", call_lock },            { "idle_start", call_idle },
};
enum { CALLS = sizeof calls / sizeof *calls };

static void *call_often(void *opaque)
{
    call_thread *t = (call_thread *)opaque;
    do {
        t->call(t);
        if (t->turns % 8 == 0) sched_yield();
        t->turns++;
    } while (!is_over(t->of));
    return NULL;
}

/* ---- the far side: a thread that reads, writes, and may come and go ---------------------------------------------- */

static int far_comes(combination *c)
{
    int fd = -1;
    switch (c->kind->far) {
    case 'p': fd = open(scratch("link"), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC); break;
    case 'c': fd = unix_connect(scratch("s")); break;
    case 'l': fd = accept(c->listener, NULL, NULL); break;
    default:  return c->far;
    }
    if (fd >= 0) fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
    return fd;
}

/* Whether it goes on. */
static int far_hears(combination *c, int fd)
{
    unsigned char bytes[8192];
    long          i, wrong = 0, heard = c->heard;
    ssize_t       n = read(fd, bytes, sizeof bytes);
    for (i = 0; i < n; i++) wrong += bytes[i] != (heard + i) % PATTERN;
    if (n <= 0) return n < 0 && errno == EAGAIN;
    __atomic_add_fetch(&c->out_of_order, wrong, __ATOMIC_RELAXED);
    __atomic_add_fetch(&c->heard, n, __ATOMIC_RELEASE);
    return 1;
}

static int far_writes(int fd)
{
    ssize_t n = send(fd, "some input", 10, MSG_NOSIGNAL);
    if (n < 0 && errno == ENOTSOCK) n = write(fd, "some input", 10);
    return n >= 0 || errno == EAGAIN;
}

static void *far_main(void *opaque)
{
    combination  *c = (combination *)opaque;
    struct pollfd p = { -1, POLLIN, 0 };
    long          turns;
    int           may_go;
    for (turns = 0; !__atomic_load_n(&c->done, __ATOMIC_RELAXED); turns++) {
        if (p.fd < 0) p.fd = far_comes(c);
        p.revents = 0;
        may_go = p.fd != c->far && !is_over(c);
        if (poll(&p, 1, 1) > 0 && !far_hears(c, p.fd) && may_go) p.fd = (close(p.fd), -1);
        if (p.fd >= 0 && turns % 4 == 0 && !far_writes(p.fd) && may_go) p.fd = (close(p.fd), -1);
        if (p.fd >= 0 && turns % 16 == 15 && may_go && c->comes_and_goes) p.fd = (close(p.fd), -1);
    }
    if (p.fd >= 0 && p.fd != c->far) close(p.fd);
    __atomic_store_n(&c->far_is_over, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* ---- the owner --------------------------------------------------------------------------------------------------- */

static int on_can_read(void *opaque)
{
    return ((combination *)opaque)->read % 3 ? 20 : 5;
}

static void on_read(void *opaque, const void *buf, size_t len)
{
    (void)buf;
    ((combination *)opaque)->read += (long)len;
}

static void on_event(void *opaque, int event)
{
    combination *c = (combination *)opaque;
    if (event == CHR_EVENT_OPENED) c->opened++;
    if (event == CHR_EVENT_OPENED && c->kind->far == 'p') (void)chr_fe_backend_open(&c->fe);
}

static int on_change(void *opaque)
{
    (void)opaque;
    return 0;
}

static const chr_handlers handlers = { on_can_read, on_read, on_event, on_change };

static void owner_makes(combination *c)
{
    chr_error err;
    chr_dev  *dev = chr_new(c->r.ctx, c->text, &err);
    if (!dev) printf("    %s: %s\n", c->text, err.text);
    if (!dev && is_left_out(&err)) SKIP(strstr(err.text, "built without"));
    REQUIRE(dev && chr_fe_init(&c->fe, dev, &err) == 0);
    chr_fe_set_handlers(&c->fe, &handlers, c);
    if (!strstr(c->text, "mux=on")) return;
    REQUIRE(chr_fe_init(&c->second, dev, &err) == 0);
}

static void owner_runs(combination *c) { (void)c; }

/* To another backend and back. */
static void owner_swaps(combination *c)
{
    chr_error err;
    int       code = chr_change(c->r.ctx, "d", "ringbuf,size=64", &err);
    CHECK(code == 0 || code == CHR_ERR_NOT_SUPPORTED || code == CHR_ERR_BUSY);
    if (code < 0 || c->kind->far == 'f') return; /* its descriptors are gone with it */
    chr_loop_step(c->r.ctx, 0);
    if (!CHECK_INT(chr_change(c->r.ctx, "d", c->text, &err), 0)) NOTE("%s", err.text);
}

static void owner_removes(combination *c)
{
    chr_error err;
    if (c->second.dev == c->fe.dev) chr_fe_deinit(&c->second);
    chr_fe_deinit(&c->fe);
    CHECK_INT(chr_remove(c->r.ctx, "d", &err), 0);
    if (c->kind->far == 'f') snprintf(c->text, sizeof c->text, "ringbuf,id=d,size=64"); /* its descriptors are gone */
    owner_makes(c);
}

static void owner_disconnects(combination *c)
{
    (void)chr_fe_disconnect(&c->fe);
    chr_send_break(c->r.ctx, "d", NULL);
}

static const struct owner_kind {
    const char *name;
    void      (*acts)(combination *);
    int         loses_bytes;
} owners[] = {
    { "runs", owner_runs, 0 }, { "swaps", owner_swaps, 1 }, { "removes", owner_removes, 1 }, { "disconnects", owner_disconnects, 1 },
};
enum { OWNERS = sizeof owners / sizeof *owners };

static void owner_main(combination *c, int ms)
{
    int64_t end = real_ms() + ms;
    int     turn;
    for (turn = 0; real_ms() < end; turn++) {
        chr_loop_step(c->r.ctx, turn % 2);
        if (turn % 8 == 7) c->owner->acts(c);
        if (turn % 16 == 3) { /* as one: nobody is in between */
            chr_loop_lock(c->r.ctx);
            c->owner->acts(c);
            chr_loop_unlock(c->r.ctx);
        }
        if (turn % 5 == 4) {
            chr_loop_stop(c->r.ctx);
            CHECK_INT(chr_loop_run(c->r.ctx), 0);
        }
    }
}

/* ---- one combination --------------------------------------------------------------------------------------------- */

static void fill_in(const combination *c, char *out, size_t size, const char *pattern)
{
    size_t used = 0;
    out[0] = 0;
    for (; *pattern; pattern++) {
        if (*pattern != '$') snprintf(out + used, size - used, "%c", *pattern);
        else if (*++pattern == 'u') snprintf(out + used, size - used, "%s", scratch("s"));
        else if (*pattern == 'p') snprintf(out + used, size - used, "%s", scratch("link"));
        else snprintf(out + used, size - used, "%d", c->given[*pattern == 'b']);
        used += strlen(out + used);
    }
}

/* Both descriptors lead to one far side, which gets the output of either. */
static void give_descriptors(combination *c)
{
    char byte;
    int  fds[2], i;
    socket_pair(fds);
    c->given[0] = fds[0];
    c->given[1] = fcntl(fds[0], F_DUPFD_CLOEXEC, 3);
    c->far = fds[1];
    if (strcmp(c->kind->name, "stdio") == 0) {
        for (i = 0; i < 2; i++) {
            c->saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 50);
            dup2(c->given[i], i);
        }
        setvbuf(stdout, c->buffer, _IOFBF, sizeof c->buffer); /* what is printed meanwhile comes out at the end */
        putchar('\n');
        fflush(stdout);
        (void)read(c->far, &byte, 1);
    }
    fcntl(c->far, F_SETFL, O_RDWR | O_NONBLOCK);
    if (!strstr(c->kind->text, "$a")) close(c->given[0]);
    if (!strstr(c->kind->text, "$b") && !(c->kind->before && strstr(c->kind->before, "$b"))) close(c->given[1]);
}

static void prepare(combination *c)
{
    const device *kind = c->kind;
    char          text[300];
    unlink(scratch("s"));
    unlink(scratch("link"));
    if (kind->far == 'f') give_descriptors(c);
    if (kind->far == 'l') fcntl(c->listener = unix_listen(scratch("s")), F_SETFL, O_NONBLOCK);
    if (kind->before) {
        fill_in(c, text, sizeof text, kind->before);
        make(&c->r, text);
    }
    fill_in(c, text, sizeof text, kind->text);
    snprintf(c->text, sizeof c->text, "%.*s,id=d%s", (int)strcspn(text, ","), text, text + strcspn(text, ","));
    if (strcmp(kind->name, "record") == 0) CHECK_INT(chr_record_start(c->r.ctx, scratch("record"), NULL), 0);
    owner_makes(c);
    if (strcmp(kind->name, "websocket") != 0) return;
    REQUIRE(chr_fe_init(&c->second, chr_find(c->r.ctx, "h"), NULL) == 0);
    chr_fe_set_handlers(&c->second, &handlers, c);
}

static void start_callers(combination *c, int only)
{
    int i;
    for (i = 0; i < CALLS; i++) {
        call_thread *t = &c->threads[c->count];
        if (only >= 0 && only != i) continue;
        t->of = c;
        t->call = calls[i].call;
        c->count++;
        REQUIRE(pthread_create(&t->thread, NULL, call_often, t) == 0);
    }
}

/* The callers end; returns what was taken from them. */
static long join_callers(combination *c)
{
    long taken = 0;
    int  i;
    __atomic_store_n(&c->stop, 1, __ATOMIC_RELAXED);
    for (i = 0; i < c->count; i++) {
        pthread_join(c->threads[i].thread, NULL);
        taken += c->threads[i].taken;
        CHECK_INT(c->threads[i].wrong, 0);
    }
    return taken;
}

static void finish(combination *c, int only)
{
    long     taken = join_callers(c);
    int      is_strict = c->kind->is_lossless && !c->owner->loses_bytes, i;
    if (is_strict) {
        PUMP(&c->r, __atomic_load_n(&c->heard, __ATOMIC_ACQUIRE) >= taken);
        CHECK_INT(c->heard, taken);
        if (only == 0 || only == 1) CHECK_INT(c->out_of_order, 0);
    }
    __atomic_store_n(&c->done, 1, __ATOMIC_RELAXED);
    if (c->kind->far) {
        PUMP(&c->r, __atomic_load_n(&c->far_is_over, __ATOMIC_ACQUIRE)); /* it may wait in connect() to be accepted */
        pthread_join(c->far_thread, NULL);
    }
    chr_fe_deinit(&c->second);
    chr_fe_deinit(&c->fe);
    chr_context_free(c->r.ctx);
    for (i = 0; i < 2; i++)
        if (c->saved[i] >= 0) dup2(c->saved[i], i), close(c->saved[i]);
    if (c->saved[1] >= 0) fflush(stdout);
    if (c->listener >= 0) close(c->listener);
    if (c->far >= 0) close(c->far);
    CHECK_INT(c->r.live, 0);
    CHECK_INT(count_fds(), c->r.fds);
}

/* only: the call that is made, or -1 for all. */
static void combine(const device *kind, const struct owner_kind *owner, int only, int ms)
{
    static combination one;
    combination       *c = &one;
    int                failures = test_failures;
    memset(c, 0, sizeof *c);
    c->kind = kind;
    c->owner = owner;
    c->comes_and_goes = owner->loses_bytes;
    c->far = c->listener = c->saved[0] = c->saved[1] = -1;
    rig_open(&c->r);
    prepare(c);
    if (kind->far) REQUIRE(pthread_create(&c->far_thread, NULL, far_main, c) == 0);
    PUMP(&c->r, kind->far == 0 || c->opened > 0);
    start_callers(c, only);
    owner_main(c, ms);
    finish(c, only);
    if (test_failures > failures) NOTE("%s, the owner %s, call: %s", kind->name, owner->name, only < 0 ? "all" : calls[only].name);
}

typedef struct pair {
    const device            *kind;
    const struct owner_kind *owner;
} pair;

static void run_pair(const void *arg)
{
    const pair *of = (const pair *)arg;
    const char *text = getenv("MATRIX_MS");
    int         ms = text ? atoi(text) : 5, only;
    combine(of->kind, of->owner, -1, 6 * ms);
    for (only = 0; only < CALLS; only++) combine(of->kind, of->owner, only, ms);
    scratch_clean();
}

TEST_FAMILY(pairs)
{
    static pair all[sizeof devices / sizeof *devices][OWNERS];
    size_t      d, o;
    char        name[80];
    for (d = 0; d < sizeof devices / sizeof *devices; d++)
        for (o = 0; o < OWNERS; o++) {
            all[d][o].kind = &devices[d];
            all[d][o].owner = &owners[o];
            snprintf(name, sizeof name, "%s_owner_%s", devices[d].name, owners[o].name);
            test_add_case(name, run_pair, &all[d][o], TEST_SECONDS);
        }
}
