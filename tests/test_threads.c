/* Other threads: writing from them, waking the loop, one context per thread. Worth running under the thread sanitizer. */
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
        rd->bytes += n;
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
    return (void *)failures;
}

TEST(a_context_in_each_thread)
{
    pthread_t threads[4];
    void     *failures;
    int       i;
    for (i = 0; i < 4; i++) REQUIRE(pthread_create(&threads[i], NULL, own_context, NULL) == 0);
    for (i = 0; i < 4; i++) {
        pthread_join(threads[i], &failures);
        CHECK_INT((long)failures, 0);
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
