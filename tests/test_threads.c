/*
 * Other threads: they write, they wake the loop, each has a context of its own. Run it under the thread sanitizer, too.
 */
#include "chardev.h"
#include "rig.h"

#include <pthread.h>

enum { WRITERS = 4, LINES = 2000 };

typedef struct writer {
    pthread_t     thread;
    chr_frontend *fe;
    int           number;
    long          taken; /* bytes */
    int           all;   /* write_all() in place of write() */
} writer;

static void *write_lines(void *opaque)
{
    writer *w = (writer *)opaque;
    char    line[17];
    int     i, n;
    for (i = 0; i < LINES; i++) {
        snprintf(line, sizeof line, "%d:%012d\n", w->number, i);
        if (w->all) {
            n = chr_fe_write_all(w->fe, line, 15, -1);
        } else {
            while ((n = chr_fe_write(w->fe, line, 15)) == CHR_ERR_WOULD_BLOCK) sched_yield();
        }
        if (n > 0) w->taken += n;
    }
    return NULL;
}

static void start_writers(writer *writers, chr_frontend *fe, int all)
{
    int i;
    for (i = 0; i < WRITERS; i++) {
        memset(&writers[i], 0, sizeof writers[i]);
        writers[i].fe = fe;
        writers[i].number = i;
        writers[i].all = all;
        REQUIRE(pthread_create(&writers[i].thread, NULL, write_lines, &writers[i]) == 0);
    }
}

static long join_writers(writer *writers)
{
    long taken = 0;
    int  i;
    for (i = 0; i < WRITERS; i++) {
        pthread_join(writers[i].thread, NULL);
        taken += writers[i].taken;
    }
    return taken;
}

typedef struct reader {
    pthread_t thread;
    int       fd;
    long      bytes;
    int       broken; /* a line that no writer wrote, or one out of order */
} reader;

/* Lines of 15 bytes: those of each writer must come whole and in order. */
static void *read_lines(void *opaque)
{
    reader *rd = (reader *)opaque;
    char    line[16] = "";
    size_t  have = 0;
    int     next[WRITERS] = { 0 };
    ssize_t n;
    while ((n = read(rd->fd, line + have, 15 - have)) > 0) {
        int who;
        rd->bytes += (long)n;
        have += (size_t)n;
        if (have < 15) continue;
        have = 0;
        who = line[0] - '0';
        if (who < 0 || who >= WRITERS || line[1] != ':' || line[14] != '\n' || atoi(line + 2) != next[who]++) rd->broken++;
    }
    return NULL;
}

static void check_writers(int all)
{
    writer   writers[WRITERS];
    reader   rd;
    recorder rec;
    chr_info info;
    char     options[100];
    int      fds[2], i;
    long     taken;
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    attach(&rec, make(&r, options));
    settle(&r);
    memset(&rd, 0, sizeof rd);
    rd.fd = fds[1];
    REQUIRE(pthread_create(&rd.thread, NULL, read_lines, &rd) == 0);
    start_writers(writers, &rec.fe, all);
    for (i = 0; i < 200; i++) chr_loop_step(r.ctx, 1); /* the owner goes on with its loop meanwhile */
    taken = join_writers(writers);
    chr_query(rec.fe.dev, &info);
    CHECK_INT(info.bytes_out, taken);
    CHECK_INT(taken, WRITERS * LINES * 15);
    detach(&rec);
    chr_remove(r.ctx, "s", NULL);
    pthread_join(rd.thread, NULL);
    CHECK_INT(rd.bytes, taken);
    CHECK_INT(rd.broken, 0);
    close(fds[1]);
    rig_close(&r);
}

TEST(writers_on_a_socket)
{
    check_writers(0);
}

TEST(writers_of_all_on_a_socket)
{
    check_writers(1);
}

TEST(writers_on_a_ringbuf)
{
    writer   writers[WRITERS];
    recorder rec;
    rig      r;
    int      i;
    rig_open(&r);
    attach(&rec, make(&r, "ringbuf,id=r,size=256K"));
    start_writers(writers, &rec.fe, 0);
    for (i = 0; i < 100; i++) chr_loop_step(r.ctx, 0);
    CHECK_INT(join_writers(writers), WRITERS * LINES * 15);
    CHECK_INT(chr_ringbuf_count(rec.fe.dev), WRITERS * LINES * 15);
    detach(&rec);
    rig_close(&r);
}

/* Each writer has a frontend of its own on one mux. */
TEST(writers_on_a_mux)
{
    writer   writers[WRITERS];
    recorder recs[WRITERS];
    rig      r;
    int      i;
    rig_open(&r);
    make(&r, "ringbuf,id=m,size=256K,mux=on");
    for (i = 0; i < WRITERS; i++) attach(&recs[i], chr_find(r.ctx, "m"));
    settle(&r);
    for (i = 0; i < WRITERS; i++) {
        memset(&writers[i], 0, sizeof writers[i]);
        writers[i].fe = &recs[i].fe;
        writers[i].number = i;
        REQUIRE(pthread_create(&writers[i].thread, NULL, write_lines, &writers[i]) == 0);
    }
    for (i = 0; i < 100; i++) chr_loop_step(r.ctx, 0);
    CHECK_INT(join_writers(writers), WRITERS * LINES * 15);
    CHECK_INT(chr_ringbuf_count(chr_find(r.ctx, "m-base")), WRITERS * LINES * 15);
    for (i = 0; i < WRITERS; i++) detach(&recs[i]);
    rig_close(&r);
}

/* Peers come and go while others write: nothing crashes, and the owner sees each end once. */
TEST(writers_while_peers_come_and_go)
{
    writer   writers[WRITERS];
    recorder rec;
    char     options[200];
    int      i;
    rig      r;
    rig_open(&r);
    snprintf(options, sizeof options, "socket,id=s,path=%s,server=on,wait=off", scratch("s"));
    attach(&rec, make(&r, options));
    start_writers(writers, &rec.fe, 0);
    for (i = 0; i < 10; i++) {
        int fd = unix_connect(scratch("s"));
        PUMP(&r, rec.open);
        hear(fd);
        close(fd);
        PUMP(&r, !rec.open);
        memset(rec.events, 0, sizeof rec.events);
    }
    join_writers(writers);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* The owner reads and echoes while another thread writes. */
TEST(reading_while_another_writes)
{
    writer   w;
    recorder rec;
    char     options[100];
    int      fds[2];
    long     heard = 0;
    int64_t  end = real_ms() + 30000;
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    attach(&rec, make(&r, options));
    settle(&r);
    memset(&w, 0, sizeof w);
    w.fe = &rec.fe;
    REQUIRE(pthread_create(&w.thread, NULL, write_lines, &w) == 0);
    while ((heard < LINES * 15 || rec.length < 1000) && real_ms() < end) {
        if (rec.length < 1000) say(fds[1], "to the owner");
        chr_loop_step(r.ctx, 0);
        heard += (long)strlen(hear(fds[1]));
    }
    pthread_join(w.thread, NULL);
    CHECK_INT(heard, LINES * 15);
    CHECK(rec.length >= 1000);
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}

static void *wake_often(void *opaque)
{
    int i;
    for (i = 0; i < 20000; i++) chr_loop_wake((chr_context *)opaque);
    return NULL;
}

TEST(wakes_from_many_threads)
{
    pthread_t threads[4];
    int       i;
    rig       r;
    rig_open(&r);
    for (i = 0; i < 4; i++) REQUIRE(pthread_create(&threads[i], NULL, wake_often, r.ctx) == 0);
    for (i = 0; i < 2000; i++) CHECK(chr_loop_step(r.ctx, 0) >= 0);
    for (i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    settle(&r);
    rig_close(&r);
}

/* One context in each thread, all with the same ids: they never meet. */
static void *own_context(void *opaque)
{
    long         failures = 0;
    int          i;
    chr_error    err;
    chr_context *ctx = chr_context_new(NULL);
    (void)opaque;
    if (!ctx) return (void *)1;
    for (i = 0; i < 200; i++) {
        chr_frontend fe;
        chr_dev     *dev = chr_new(ctx, "ringbuf,id=same,size=64,mux=on", &err);
        memset(&fe, 0, sizeof fe);
        if (!dev || chr_fe_init(&fe, dev, &err) < 0 || chr_fe_write(&fe, "abc", 3) != 3) failures++;
        chr_loop_step(ctx, 0);
        chr_fe_deinit(&fe);
        if (chr_remove(ctx, "same", &err) < 0 || chr_find(ctx, "same-base") != NULL) failures++;
    }
    chr_context_free(ctx);
    return (void *)(intptr_t)failures;
}

TEST(a_context_in_each_thread)
{
    pthread_t threads[4];
    void     *failures;
    int       i;
    for (i = 0; i < 4; i++) REQUIRE(pthread_create(&threads[i], NULL, own_context, NULL) == 0);
    for (i = 0; i < 4; i++) {
        pthread_join(threads[i], &failures);
        CHECK_INT((intptr_t)failures, 0);
    }
}

/* Names are looked up in the background; removal and the end of the context don't wait for them, nor crash. */
TEST(lookups_outlived)
{
    int i;
    for (i = 0; i < 20; i++) {
        rig r;
        rig_open(&r);
        make(&r, "socket,id=s,host=no-such-host.invalid,port=1,reconnect-ms=1");
        if (i % 2) chr_loop_step(r.ctx, 1);
        if (i % 4 == 2) CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
        chr_context_free(r.ctx);
        CHECK_INT(r.live, 0);
    }
}

/* ---- swaps, removal and the owner thread ------------------------------------------------------------------------- */

typedef struct shared {
    rig          r;
    chr_frontend fe;
    pthread_t    owner;
    int          is_over;  /* atomic: set by the owner */
    int          strays;   /* atomic: handlers that ran on another thread */
    int          swaps;
} shared;

static void note_thread(shared *s)
{
    if (!pthread_equal(pthread_self(), s->owner)) __atomic_add_fetch(&s->strays, 1, __ATOMIC_RELAXED);
}

static int  shared_can_read(void *opaque) { note_thread((shared *)opaque); return 100; }
static void shared_read(void *opaque, const void *buf, size_t len) { (void)buf, (void)len; note_thread((shared *)opaque); }
static void shared_event(void *opaque, int event) { (void)event; note_thread((shared *)opaque); }
static int  shared_change(void *opaque) { note_thread((shared *)opaque); return 0; }
static void shared_writable(void *opaque) { note_thread((shared *)opaque); }

static const chr_handlers shared_handlers = { shared_can_read, shared_read, shared_event, shared_change };

/* Everything that any thread may call, round and round. */
static void *call_all(void *opaque)
{
    shared     *s = (shared *)opaque;
    static char big[40000];
    char        two[2];
    int         i;
    for (i = 0; !__atomic_load_n(&s->is_over, __ATOMIC_ACQUIRE); i++) {
        switch (i % 7) {
        case 0: chr_fe_write(&s->fe, "abc", 3); break;
        case 1: if (chr_fe_write(&s->fe, big, sizeof big) < 0) chr_fe_add_watch(&s->fe, shared_writable, s); break;
        case 2: chr_fe_printf(&s->fe, "%0700d", i); break;
        case 3: chr_fe_write_all(&s->fe, big, 2000, 1); break;
        case 4: chr_fe_read_all(&s->fe, two, sizeof two, 1); break;
        case 5: chr_fe_accept_input(&s->fe); break;
        default:
            (void)chr_fe_backend_open(&s->fe);
            chr_loop_lock(s->r.ctx);
            chr_loop_unlock(s->r.ctx);
            chr_loop_stop(s->r.ctx);
            break;
        }
    }
    return NULL;
}

static const char *const swap_kinds[] = { "pty", "ringbuf", "null,obuf=4K", "pty,history=1K,obuf=1K", "socket", "msmouse", "braille", "testdev" };

enum { SWAP_KINDS = sizeof swap_kinds / sizeof *swap_kinds };

static void swap_once(void *opaque)
{
    shared     *s = (shared *)opaque;
    char        options[200];
    const char *kind = swap_kinds[s->swaps++ % SWAP_KINDS];
    chr_error   err;
    snprintf(options, sizeof options, "%s%s%s", kind, strcmp(kind, "socket") == 0 ? ",server=on,wait=off,path=" : "",
             strcmp(kind, "socket") == 0 ? scratch("s") : "");
    if (chr_change(s->r.ctx, "x", options, &err) < 0 && !CHECK(is_left_out(&err))) NOTE("%s: %s", options, err.text);
}

/* The frontend goes, the chardev too, and both come back. */
static void remove_once(void *opaque)
{
    shared   *s = (shared *)opaque;
    chr_error err;
    chr_fe_deinit(&s->fe);
    CHECK_INT(chr_remove(s->r.ctx, "x", &err), 0);
    make(&s->r, s->swaps % 2 ? "ringbuf,id=x" : "pty,id=x");
    CHECK_INT(chr_fe_init(&s->fe, chr_find(s->r.ctx, "x"), &err), 0);
    chr_fe_set_handlers(&s->fe, &shared_handlers, s);
}

static void touch_peers(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address;
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", scratch("s"));
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) (void)!write(fd, "hi", 2);
    close(fd);
}

/* In its loop, and outside of it: what the owner does there needs no lock of its own. */
static void check_owner(int in_handlers)
{
    static shared s;
    pthread_t     threads[3];
    int           i;
    memset(&s, 0, sizeof s);
    rig_open(&s.r);
    s.owner = pthread_self();
    REQUIRE(chr_fe_init(&s.fe, make(&s.r, "ringbuf,id=x"), NULL) == 0);
    chr_fe_set_handlers(&s.fe, &shared_handlers, &s);
    for (i = 0; i < 3; i++) REQUIRE(pthread_create(&threads[i], NULL, call_all, &s) == 0);
    for (i = 0; i < 120; i++) {
        if (in_handlers) {
            chr_idle idle;
            memset(&idle, 0, sizeof idle);
            chr_idle_start(s.r.ctx, &idle, i % 5 ? swap_once : remove_once, &s);
            chr_loop_step(s.r.ctx, 0);
            chr_idle_stop(&idle);
        } else if (i % 5) {
            swap_once(&s);
        } else {
            remove_once(&s);
        }
        touch_peers();
        chr_fe_disconnect(&s.fe);
        chr_loop_step(s.r.ctx, 2);
    }
    __atomic_store_n(&s.is_over, 1, __ATOMIC_RELEASE);
    for (i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    CHECK_INT(s.strays, 0);
    chr_fe_deinit(&s.fe);
    rig_close(&s.r);
    scratch_clean();
}

TEST(all_calls_while_the_owner_swaps_and_removes_in_handlers) { check_owner(1); }
TEST(all_calls_while_the_owner_swaps_and_removes_outside) { check_owner(0); }

/* ---- a writer that blocks notices what becomes of its chardev ---------------------------------------------------- */

typedef struct blocked {
    pthread_t    thread;
    chr_frontend fe;
    int          result, is_over;
} blocked;

static char much[4 << 20];

static void *write_much(void *opaque)
{
    blocked *b = (blocked *)opaque;
    int      n = chr_fe_write_all(&b->fe, much, sizeof much, -1);
    __atomic_store_n(&b->result, n, __ATOMIC_RELAXED);
    __atomic_store_n(&b->is_over, 1, __ATOMIC_RELEASE);
    return NULL;
}

static int take_change(void *opaque) { (void)opaque; return 0; }

static void start_blocked(rig *r, blocked *b, int *peer)
{
    static const chr_handlers handlers = { NULL, NULL, NULL, take_change };
    char                      options[80];
    int                       fds[2], i;
    rig_open(r);
    socket_pair(fds);
    *peer = fds[1];
    snprintf(options, sizeof options, "fd,id=x,in=%d,out=%d", fds[0], fds[0]);
    memset(b, 0, sizeof *b);
    REQUIRE(chr_fe_init(&b->fe, make(r, options), NULL) == 0);
    chr_fe_set_handlers(&b->fe, &handlers, NULL);
    REQUIRE(pthread_create(&b->thread, NULL, write_much, b) == 0);
    for (i = 0; i < 10; i++) chr_loop_step(r->ctx, 10);
    CHECK_INT(__atomic_load_n(&b->is_over, __ATOMIC_ACQUIRE), 0);
}

TEST(blocked_writer_goes_on_after_a_swap)
{
    blocked   b;
    chr_error err;
    int       peer;
    rig       r;
    start_blocked(&r, &b, &peer);
    CHECK_INT(chr_change(r.ctx, "x", "ringbuf", &err), 0);
    PUMP(&r, __atomic_load_n(&b.is_over, __ATOMIC_ACQUIRE));
    pthread_join(b.thread, NULL);
    CHECK_INT(b.result, sizeof much);
    CHECK(chr_ringbuf_count(chr_find(r.ctx, "x")) > 0);
    chr_fe_deinit(&b.fe);
    close(peer);
    rig_close(&r);
}

TEST(blocked_writer_ends_when_its_frontend_goes)
{
    blocked b;
    int     peer;
    rig     r;
    start_blocked(&r, &b, &peer);
    chr_fe_deinit(&b.fe);
    CHECK_INT(chr_remove(r.ctx, "x", NULL), 0);
    PUMP(&r, __atomic_load_n(&b.is_over, __ATOMIC_ACQUIRE));
    pthread_join(b.thread, NULL);
    CHECK(b.result > 0 && b.result < (int)sizeof much);
    CHECK_INT(chr_fe_write(&b.fe, "x", 1), CHR_ERR_DISCONNECTED);
    close(peer);
    rig_close(&r);
}

/* ---- posted callbacks, and other calls of the owner's that block ------------------------------------------------- */

typedef struct posted {
    chr_context *ctx;
    chr_idle     idle;
    pthread_t    ran_on;
    int          ran;
} posted;

static void run_posted(void *opaque)
{
    posted *p = (posted *)opaque;
    p->ran_on = pthread_self();
    p->ran++;
}

static void *post(void *opaque)
{
    posted         *p = (posted *)opaque;
    struct timespec t = { 0, 50 * 1000000 };
    nanosleep(&t, NULL);
    chr_idle_start(p->ctx, &p->idle, run_posted, p);
    return NULL;
}

TEST(idle_from_another_thread_runs_on_the_owner)
{
    posted    p;
    pthread_t thread;
    int       i;
    rig       r;
    rig_open(&r);
    memset(&p, 0, sizeof p);
    p.ctx = r.ctx;
    REQUIRE(pthread_create(&thread, NULL, post, &p) == 0);
    for (i = 0; i < 10 && !p.ran; i++) chr_loop_step(r.ctx, RIG_PATIENCE_MS); /* it wakes up for it */
    pthread_join(thread, NULL);
    CHECK_INT(p.ran, 1);
    CHECK(pthread_equal(p.ran_on, pthread_self()));
    rig_close(&r);
}

static void *write_then_connect(void *opaque)
{
    chr_frontend   *fe = (chr_frontend *)opaque;
    struct timespec t = { 0, 100 * 1000000 };
    int             n, fd;
    nanosleep(&t, NULL);
    n = chr_fe_write(fe, "abc", 3); /* while the owner blocks */
    fd = unix_connect(scratch("w"));
    close(fd);
    return n == 3 ? NULL : opaque;
}

TEST(others_write_while_the_owner_waits_for_a_peer)
{
    chr_frontend fe;
    pthread_t    thread;
    char         options[200];
    void        *failed;
    rig          r;
    rig_open(&r);
    memset(&fe, 0, sizeof fe);
    REQUIRE(chr_fe_init(&fe, make(&r, "ringbuf,id=x"), NULL) == 0);
    REQUIRE(pthread_create(&thread, NULL, write_then_connect, &fe) == 0);
    snprintf(options, sizeof options, "socket,id=s,path=%s,server=on", scratch("w"));
    make(&r, options);
    pthread_join(thread, &failed);
    CHECK(failed == NULL);
    chr_fe_deinit(&fe);
    rig_close(&r);
    scratch_clean();
}

/* ---- buffered frontends: a vCPU thread makes all five calls, the owner runs the loop ----------------------------- */

enum { VCPU_BYTES = 100000 };

typedef struct vcpu {
    pthread_t    thread;
    chr_frontend fe;
    long         read, written;
    int          broken, over;
} vcpu;

static void *run_vcpu(void *opaque)
{
    vcpu *v = (vcpu *)opaque;
    char  c;
    int   n = 0;
    while (v->read < VCPU_BYTES || v->written < VCPU_BYTES) {
        if (v->read < VCPU_BYTES && chr_fe_readable(&v->fe) > 0) {
            n = chr_fe_read(&v->fe, &c, 1);
            if (n == 1 && c != (char)(v->read % 101)) v->broken++;
            v->read += n == 1;
        }
        if (v->written < VCPU_BYTES && chr_fe_writable(&v->fe) > 0) {
            c = (char)(v->written % 103);
            n = chr_fe_write(&v->fe, &c, 1);
            v->written += n == 1;
        } else if (v->read % 64 == 0) {
            sched_yield();
        }
        if (n == CHR_ERR_DISCONNECTED) break;
    }
    if (n != CHR_ERR_DISCONNECTED && chr_fe_flush(&v->fe, 10000) < 0) v->broken++;
    __atomic_store_n(&v->over, 1, __ATOMIC_RELEASE);
    chr_loop_wake(v->fe.ctx);
    return NULL;
}

typedef struct far_side {
    pthread_t thread;
    int       fd;
    long      said, heard;
    int       broken;
} far_side;

static void *run_far_side(void *opaque)
{
    far_side     *f = (far_side *)opaque;
    char          bytes[256];
    struct pollfd p = { 0, POLLIN | POLLOUT, 0 };
    ssize_t       n, i;
    p.fd = f->fd;
    while ((f->said < VCPU_BYTES || f->heard < VCPU_BYTES) && poll(&p, 1, 30000) > 0) {
        if (f->said < VCPU_BYTES && p.revents & POLLOUT) {
            for (n = 0; n < (ssize_t)sizeof bytes && f->said + n < VCPU_BYTES; n++) bytes[n] = (char)((f->said + n) % 101);
            n = write(f->fd, bytes, (size_t)n);
            f->said += n > 0 ? (long)n : 0;
        }
        p.events = f->said < VCPU_BYTES ? POLLIN | POLLOUT : POLLIN;
        if (!(p.revents & (POLLIN | POLLHUP))) continue;
        n = read(f->fd, bytes, sizeof bytes);
        if (n == 0) break;
        for (i = 0; i < n; i++) f->broken += bytes[i] != (char)((f->heard + i) % 103);
        f->heard += n > 0 ? (long)n : 0;
    }
    return NULL;
}

TEST(a_vcpu_thread_on_buffers)
{
    char     options[60];
    rig      r;
    vcpu     v;
    far_side f;
    int      fds[2];
    rig_open(&r);
    socket_pair(fds);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[1]);
    memset(&v, 0, sizeof v);
    memset(&f, 0, sizeof f);
    f.fd = fds[0];
    REQUIRE(chr_fe_init(&v.fe, make(&r, options), NULL) == 0);
    CHECK_INT(chr_fe_set_buffers(&v.fe, 512, 512), 0);
    REQUIRE(pthread_create(&v.thread, NULL, run_vcpu, &v) == 0);
    REQUIRE(pthread_create(&f.thread, NULL, run_far_side, &f) == 0);
    while (!__atomic_load_n(&v.over, __ATOMIC_ACQUIRE)) chr_loop_step(r.ctx, 1000);
    pthread_join(v.thread, NULL);
    pthread_join(f.thread, NULL);
    CHECK_INT(v.read, VCPU_BYTES);
    CHECK_INT(f.heard, VCPU_BYTES);
    CHECK_INT(v.broken + f.broken, 0);
    chr_fe_deinit(&v.fe);
    close(fds[0]);
    rig_close(&r);
}

static void *use_buffers(void *opaque)
{
    chr_frontend *fe = (chr_frontend *)opaque;
    char          bytes[16];
    int           n;
    do {
        n = chr_fe_read(fe, bytes, sizeof bytes);
        (void)chr_fe_readable(fe);
        (void)chr_fe_flush(fe, 0);
        if (chr_fe_writable(fe) > 0) n = chr_fe_write(fe, "abc", 3);
        chr_fe_accept_input(fe);
    } while (n != CHR_ERR_DISCONNECTED || chr_fe_writable(fe) != CHR_ERR_DISCONNECTED);
    return NULL;
}

static int agree(void *opaque) { return (void)opaque, 0; }

/* Meanwhile the owner swaps the backend, changes the buffers, and takes the frontend away. */
TEST(vcpu_threads_while_all_else_changes)
{
    const chr_handlers handlers = { NULL, NULL, NULL, agree };
    rig                r;
    chr_frontend       fe;
    pthread_t          threads[3];
    int                i;
    rig_open(&r);
    memset(&fe, 0, sizeof fe);
    REQUIRE(chr_fe_init(&fe, make(&r, "ringbuf,id=s"), NULL) == 0);
    chr_fe_set_handlers(&fe, &handlers, NULL);
    CHECK_INT(chr_fe_set_buffers(&fe, 64, 64), 0);
    for (i = 0; i < 3; i++) REQUIRE(pthread_create(&threads[i], NULL, use_buffers, &fe) == 0);
    for (i = 0; i < 200; i++) {
        chr_loop_step(r.ctx, 1);
        if (i % 3 == 0) CHECK_INT(chr_change(r.ctx, "s", i % 2 ? "ringbuf" : "null", NULL), 0);
        if (i % 5 == 0) CHECK_INT(chr_fe_set_buffers(&fe, (size_t)(i % 50), (size_t)(i % 70)), 0);
        if (i % 7 == 0) chr_inject(fe.dev, "input", 5);
    }
    chr_fe_deinit(&fe);
    for (i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    rig_close(&r);
}

/* ---- the kernel's set, and loops that are not ours --------------------------------------------------------------- */

enum { IDLERS = 100, POSTS = 300 };

typedef struct poster {
    pthread_t     thread;
    chr_context  *ctx;
    chr_idle      idle;
    chr_frontend *fe;
    int           ran;
} poster;

static void poster_ran(void *opaque) { ((poster *)opaque)->ran++; }

static void *post_and_write(void *opaque)
{
    poster *p = (poster *)opaque;
    int     i;
    for (i = 0; i < POSTS; i++) {
        chr_idle_start(p->ctx, &p->idle, poster_ran, p);
        chr_fe_write(p->fe, "x", 1);
        chr_fe_accept_input(p->fe);
        if (i % 50 == 0) usleep(1000);
    }
    chr_loop_stop(p->ctx);
    return NULL;
}

static void nothing_ready(void *opaque, int events) { (void)opaque, (void)events; }

/* How the owner waits and steps, until all of them have stopped it; returns the last step's code. */
static int turn_by_step(chr_context *ctx, int fd) { (void)fd; return chr_loop_step(ctx, -1); }
static int turn_by_calls(chr_context *ctx, int fd) { (void)fd; return chr_loop_step_every(ctx, 1000000); }

static int turn_by_fd(chr_context *ctx, int fd)
{
    struct pollfd one;
    one.fd = fd;
    one.events = POLLIN;
    REQUIRE(poll(&one, 1, RIG_PATIENCE_MS) == 1); /* nothing that is posted goes by unheard */
    return chr_loop_step(ctx, 0);
}

static void check_many(int (*turn)(chr_context *, int), int nested)
{
    static chr_watch watches[IDLERS];
    poster           p;
    recorder         rec;
    char             options[100];
    int              fds[2], idlers[2], i, fd = -1;
    int64_t          start = real_ms();
    rig              r;
    rig_open(&r);
    socket_pair(fds);
    socket_pair(idlers);
    snprintf(options, sizeof options, "socket,id=s,fd=%d,obuf=64K", fds[0]);
    attach(&rec, make(&r, options));
    for (i = 0; i < IDLERS; i++) {
        memset(&watches[i], 0, sizeof watches[i]);
        CHECK_INT(chr_watch_start(r.ctx, &watches[i], dup(idlers[0]), CHR_IN, nothing_ready, NULL), 0);
    }
    if (nested && (fd = chr_loop_fd(r.ctx)) == CHR_ERR_NOT_SUPPORTED) SKIP("a loop has no descriptor on this system");
    if (nested) REQUIRE(fd > 2);
    settle(&r);
    memset(&p, 0, sizeof p);
    p.ctx = r.ctx;
    p.fe = &rec.fe;
    REQUIRE(pthread_create(&p.thread, NULL, post_and_write, &p) == 0);
    for (i = 0; turn(r.ctx, fd) != CHR_ERR_STOPPED; i++) {
        chr_watch_set(&watches[i % IDLERS], i % 3 ? CHR_IN : CHR_HUP);
        REQUIRE(real_ms() - start < RIG_PATIENCE_MS);
    }
    pthread_join(p.thread, NULL);
    settle(&r);
    CHECK(p.ran > 0);
    for (i = 0; i < IDLERS; i++) chr_watch_stop(&watches[i]), close(watches[i].fd);
    detach(&rec);
    chr_remove(r.ctx, "s", NULL);
    close(fds[1]), close(idlers[0]), close(idlers[1]);
    rig_close(&r);
}

TEST(many_descriptors_and_a_thread_that_posts) { check_many(turn_by_step, 0); }
TEST(loop_fd_and_a_thread_that_posts) { check_many(turn_by_fd, 1); }
TEST(step_every_and_a_thread_that_posts) { check_many(turn_by_calls, 0); }
