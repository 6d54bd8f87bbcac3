/*
 * The freestanding profile with threads: the lock is the RTOS's, here a pthread mutex. Run it under the thread
 * sanitizer, too.
 */
#define CHARDEV_FREESTANDING
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include "test.h"

#include <pthread.h>

static pthread_mutex_t mutex;
static int             depth, deepest;

static void lock(void *opaque)
{
    (void)opaque;
    pthread_mutex_lock(&mutex);
    if (++depth > deepest) deepest = depth;
}

static void unlock(void *opaque)
{
    (void)opaque;
    depth--;
    pthread_mutex_unlock(&mutex);
}

static void *task(void *opaque)
{
    static __thread int here;

    (void)opaque;
    return &here;
}

static unsigned char memory[65536];

static chr_context *begin(void)
{
    pthread_mutexattr_t recursive;
    chr_config          config;

    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&mutex, &recursive);
    memset(&config, 0, sizeof config);
    config.lock = lock;
    config.unlock = unlock;
    config.thread = task;
    return chr_context_init_with(&config, memory, sizeof memory);
}

/* Without a lock there would be none: no context. */
TEST(needs_hooks)
{
    chr_config config;

    memset(&config, 0, sizeof config);
    CHECK(!chr_context_init(memory, sizeof memory));
    config.lock = lock;
    CHECK(!chr_context_init_with(&config, memory, sizeof memory));
}

enum { TASKS = 4, LINES = 2000 };

static chr_frontend fe;

static void *write_lines(void *arg)
{
    int i;

    for (i = 0; i < LINES; i++)
        if (chr_fe_write_all(&fe, (const char *)arg, 4, -1) != 4) return arg;
    return NULL;
}

static chr_idle idles[TASKS];
static int      ran;

static void count(void *opaque)
{
    (void)opaque;
    ran++;
}

/* Every write arrives as one; what is posted runs on the owner. */
TEST(tasks_write_and_post)
{
    static char  text[TASKS][5] = { "aaaa", "bbbb", "cccc", "dddd" };
    static char  got[TASKS * LINES * 4];
    chr_context *ctx = begin();
    pthread_t    tasks[TASKS];
    void        *failed;
    int          i, n, bad = 0;

    REQUIRE(ctx && chr_fe_init(&fe, chr_new(ctx, "ringbuf,id=r,size=32K", NULL), NULL) == 0);
    REQUIRE(chr_fe_set_buffers(&fe, 0, 256) == 0);
    for (i = 0; i < TASKS; i++) {
        REQUIRE(pthread_create(&tasks[i], NULL, write_lines, text[i]) == 0);
        chr_idle_start(ctx, &idles[i], count, NULL);
    }
    for (i = 0; i < 100000 && chr_ringbuf_count(fe.dev) < (int)sizeof got; i++) chr_loop_step(ctx, 0);
    for (i = 0; i < TASKS; i++) {
        pthread_join(tasks[i], &failed);
        CHECK(!failed);
    }
    while (chr_loop_step(ctx, 0) > 0)
        ;
    CHECK_INT(ran, TASKS);
    n = chr_ringbuf_read(fe.dev, sizeof got, CHR_UTF8, got, sizeof got, NULL);
    CHECK_INT(n, sizeof got);
    for (i = 0; i + 4 <= n; i += 4) bad += memcmp(got + i, text[got[i] - 'a' < TASKS ? got[i] - 'a' : 0], 4) != 0;
    CHECK_INT(bad, 0);
    CHECK_INT(depth, 0);
    CHECK(deepest > 0);
    chr_fe_deinit(&fe);
    chr_context_free(ctx);
}
