/*
 * test_context.c - what each context has: its clocks, its lock, its memory, its pipe. The tests are few and short,
 * since `make mutate` runs for what is done by every test those that reach little else.
 */
#include "chardev.h"
#include "fault.h"
#include "rig.h"

#include <pthread.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

static long live_bytes(void)
{
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    return (long)mallinfo2().uordblks;
#else
    return 0;
#endif
}

static long pages(void)
{
    long  size = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld", &size) != 1) size = 0;
    if (file) fclose(file);
    return size;
}

static chr_trace last_trace;

static void keep_trace(void *opaque, const chr_trace *event)
{
    (void)opaque;
    last_trace = *event;
}

static int64_t clock_now(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Without hooks: nanoseconds of the monotonic clock, and since 1970. */
TEST(the_clocks_of_the_system)
{
    int64_t      before, after;
    chr_config   config;
    chr_context *ctx;
    memset(&config, 0, sizeof config);
    config.trace = keep_trace;
    ctx = chr_context_new(&config);
    REQUIRE(ctx != NULL);
    before = clock_now(CLOCK_MONOTONIC);
    after = chr_loop_now(ctx);
    CHECK(before <= after);
    CHECK(after <= clock_now(CLOCK_MONOTONIC));
    before = clock_now(CLOCK_REALTIME);
    REQUIRE(chr_new(ctx, "null,id=n", NULL) != NULL);
    CHECK(last_trace.name != NULL);
    CHECK(before <= last_trace.wall_time);
    CHECK(last_trace.wall_time <= clock_now(CLOCK_REALTIME));
    chr_context_free(ctx);
}

/* Whichever call fails while the pipe of the waker is made: there is no context then, and no descriptor. */
TEST(a_context_without_a_pipe)
{
    static const fault_call calls[] = { FAULT_pipe, FAULT_fcntl };
    long                    at, fired;
    size_t                  i;
    int                     fds = count_fds();
    chr_context            *ctx;
    for (i = 0; i < 2; i++) {
        for (at = 1, fired = 1; fired; at++) {
            fault_arm(calls[i], EMFILE, at, 0);
            ctx = chr_context_new(NULL);
            fired = fault_plan.fired;
            fault_disarm();
            if (!CHECK(!ctx == !!fired)) NOTE("%s number %ld", fault_names[calls[i]], at);
            if (ctx) chr_context_free(ctx);
            if (!CHECK_INT(count_fds(), fds)) NOTE("%s number %ld", fault_names[calls[i]], at);
            REQUIRE(at < 20);
        }
        CHECK(at > 2);
    }
}

static void live_once(void)
{
    chr_context *ctx = chr_context_new(NULL);
    REQUIRE(ctx != NULL);
    CHECK(chr_loop_fd(ctx) > 2);
    REQUIRE(chr_new(ctx, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", NULL) != NULL);
    chr_loop_step(ctx, 0);
    chr_context_free(ctx);
}

/* Neither memory of the system's allocator nor pages. */
TEST(contexts_leave_no_memory)
{
    int  i;
    long bytes, size;
    for (i = 0; i < 20; i++) live_once();
    for (bytes = live_bytes(), size = pages(), i = 0; i < 300; i++) live_once();
    CHECK(live_bytes() - bytes < 10000);
    CHECK(pages() - size < 200);
}

static int holds(const char *path, const char *text)
{
    char   bytes[4000];
    size_t len, at, size = strlen(text);
    FILE  *file = fopen(path, "rb");
    REQUIRE(file != NULL);
    len = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    for (at = 0; at + size <= len; at++)
        if (memcmp(bytes + at, text, size) == 0) return 1;
    return 0;
}

static void watch_nothing(void *opaque, int events) { (void)opaque, (void)events; }

static void remove_inside(void *opaque)
{
    CHECK_INT(chr_remove((chr_context *)opaque, "inner", NULL), 0);
}

TEST(what_is_removed_inside_a_handler_is_freed_behind_it)
{
    chr_idle idle;
    long     live;
    int      i;
    rig      r;
    rig_open_virtual(&r);
    memset(&idle, 0, sizeof idle);
    make(&r, "ringbuf,id=inner");
    CHECK_INT(chr_remove(r.ctx, "inner", NULL), 0);
    settle(&r);
    live = r.live;
    for (i = 0; i < 5; i++) {
        make(&r, "ringbuf,id=inner");
        chr_idle_start(r.ctx, &idle, remove_inside, r.ctx);
        CHECK(chr_loop_step(r.ctx, 0) >= 1);
        CHECK_INT(r.live, live);
    }
    rig_close(&r);
}

static volatile int lock_passed;

static void *pass_lock(void *opaque)
{
    chr_loop_lock((chr_context *)opaque);
    lock_passed = 1;
    chr_loop_unlock((chr_context *)opaque);
    return NULL;
}

TEST(the_lock_keeps_others_out)
{
    pthread_t thread;
    int       i;
    rig       r;
    rig_open(&r);
    for (i = 0; i < 3; i++) { /* it is recursive */
        chr_loop_lock(r.ctx);
        chr_loop_lock(r.ctx);
        lock_passed = 0;
        REQUIRE(pthread_create(&thread, NULL, pass_lock, r.ctx) == 0);
        chr_loop_unlock(r.ctx);
        usleep(20000);
        CHECK_INT(lock_passed, 0);
        chr_loop_unlock(r.ctx);
        pthread_join(thread, NULL);
        CHECK_INT(lock_passed, 1);
    }
    rig_close(&r);
}

static ssize_t send_fds(int fd, const char *text, const int *fds, int count)
{
    struct msghdr message;
    struct iovec  part;
    union {
        size_t align;
        char   bytes[CMSG_SPACE(sizeof(int) * 40)];
    } control;
    struct cmsghdr *header;
    memset(&message, 0, sizeof message);
    memset(&control, 0, sizeof control);
    part.iov_base = (void *)(uintptr_t)text;
    part.iov_len = strlen(text);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
    header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
    memcpy(CMSG_DATA(header), fds, sizeof(int) * (size_t)count);
    return sendmsg(fd, &message, 0);
}

/* A socket whose owner wants to know who sends (SO_PASSCRED): those numbers are no descriptors. */
TEST(credentials_beside_descriptors)
{
    int      ends[2], on = 1, passed[2], got[16], count, i;
    char     options[40];
    recorder rec;
    rig      r;
    rig_open(&r);
    socket_pair(ends);
    REQUIRE(pipe(passed) == 0);
    fcntl(passed[1], F_SETFL, O_NONBLOCK);
    REQUIRE(setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", ends[0]);
    attach(&rec, make(&r, options));
    settle(&r);
    say(ends[1], "none");
    settle(&r);
    CHECK_INPUT(&rec, "none");
    CHECK_INT(chr_fe_get_msgfds(&rec.fe, got, 16), 0);
    CHECK_INT(send_fds(ends[1], "two", passed, 2), 3);
    close(passed[0]), close(passed[1]);
    settle(&r);
    CHECK_INPUT(&rec, "nonetwo");
    count = chr_fe_get_msgfds(&rec.fe, got, 16);
    CHECK_INT(count, 2);
    for (i = 0; i < count; i++) {
        CHECK(got[i] > 2 && flag_set(got[i], F_GETFD, FD_CLOEXEC) && !flag_set(got[i], F_GETFL, O_NONBLOCK));
        CHECK(!flag_set(got[i], F_GETFL, O_WRONLY) == !i);
    }
    CHECK(count == 2 && write(got[1], "through", 7) == 7);
    CHECK_STR(hear(got[0]), "through");
    for (i = 0; i < count; i++) close(got[i]);
    detach(&rec);
    close(ends[1]);
    rig_close(&r);
}

/* A recording begins while a frontend with buffers writes. */
TEST(a_recording_that_begins_later)
{
    static char path[400];
    int         i;
    recorder    rec;
    rig         r;
    rig_open_virtual(&r);
    snprintf(path, sizeof path, "%s", scratch("record"));
    attach(&rec, make(&r, "null,id=n"));
    CHECK_INT(chr_fe_set_buffers(&rec.fe, 64, 64), 0);
    for (i = 0; i < 3; i++) {
        CHECK_INT(chr_fe_write(&rec.fe, "not in it", 9), 9);
        settle(&r);
    }
    CHECK_INT(chr_record_start(r.ctx, path, NULL), 0);
    CHECK_INT(chr_fe_write(&rec.fe, "recorded", 8), 8);
    settle(&r);
    CHECK_INT(chr_record_stop(r.ctx), 0);
    detach(&rec);
    rig_close(&r);
    REQUIRE(exists(path));
    CHECK(holds(path, "recorded") && !holds(path, "not in it"));
    scratch_clean();
}

static void wait_for_many(recorder *rec, int what)
{
    static chr_watch watches[40];
    chr_context     *ctx = rec->fe.ctx;
    size_t           i;
    if (what != 'e' || rec->last_event != CHR_EVENT_CLOSED) return;
    for (i = 0; i < 40; i++) CHECK_INT(chr_watch_start(ctx, &watches[i], rec->room, CHR_IN, watch_nothing, rec), 0);
    chr_loop_step(ctx, 0);
    rec->user = rec;
}

static int closed_traces;

static void count_closed(void *opaque, const chr_trace *event)
{
    (void)opaque;
    closed_traces += event->number == CHR_TRACE_event && event->value[0] == CHR_EVENT_CLOSED;
}

/* The end of a context closes what is open, and nothing else. */
TEST(what_was_never_open_is_not_closed)
{
    recorder rec[2];
    rig      r;
    rig_traced = count_closed;
    rig_open(&r);
    attach(&rec[0], make(&r, "null,id=never"));
    attach(&rec[1], make(&r, "ringbuf,id=always"));
    settle(&r);
    rig_close(&r);
    rig_traced = NULL;
    CHECK_STR(rec[0].events, "");
    CHECK_STR(rec[1].events, "OC");
    CHECK_INT(closed_traces, 1);
}

/* A handler that hears of the end begins anew, with many descriptors. */
TEST(a_context_that_waits_for_many_at_its_end)
{
    int      pair[2];
    recorder rec;
    rig      r;
    REQUIRE(pipe(pair) == 0);
    rig_open(&r);
    attach(&rec, make(&r, "ringbuf,id=a"));
    rec.room = pair[0];
    rec.then = wait_for_many;
    rig_close(&r);
    CHECK_STR(rec.events, "OC");
    CHECK(rec.user != NULL);
    close(pair[0]), close(pair[1]);
}

/* What needs TLS says so where it is left out. */
TEST(calls_for_tls_without_it)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    CHECK_INT(chr_tls_creds_add(r.ctx, "tls-creds-anon,id=t", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "tls-creds-anon,id=t: built without TLS");
    CHECK_INT(chr_authz_add(r.ctx, "authz-list,id=a", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "authz-list,id=a: built without TLS");
    CHECK_INT(chr_tls_creds_remove(r.ctx, "t", &err), CHR_ERR_NOT_FOUND);
    CHECK_STR(err.text, "there is no object 't': built without TLS");
    CHECK_INT(chr_authz_remove(r.ctx, "a", &err), CHR_ERR_NOT_FOUND);
    CHECK_STR(err.text, "there is no object 'a': built without TLS");
    rig_close(&r);
}
