/*
 * The kernel's set of descriptors (epoll, kqueue, completion port) with TCP sockets by the thousand that are added,
 * changed and removed. On Windows also events, processes and threads, and what the set rejects.
 */
#include "chardev.h"
#include "test.h"

#include <netinet/in.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#ifndef _WIN32
#include <dirent.h>
#endif

enum { PATIENCE_MS = 20000, SLICE_MS = 100 };

static int64_t real_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Handles or descriptors of this process. */
static int count_handles(void)
{
#ifdef _WIN32 /* one by one: Wine's GetProcessHandleCount() says 0 */
    DWORD     flags;
    uintptr_t value;
    int       count = 0;
    for (value = 4; value < 0x2000; value += 4) count += GetHandleInformation((HANDLE)value, &flags) != 0;
    CHECK(count > 0);
    return count;
#else
    DIR *folder = opendir("/proc/self/fd");
    int  count = 0;
    if (!folder) SKIP("there is no /proc/self/fd");
    while (readdir(folder)) count++;
    closedir(folder);
    return count;
#endif
}

static chr_context *open_context(void)
{
    chr_context *ctx = chr_context_new(NULL);
    REQUIRE(ctx != NULL);
    return ctx;
}

/* A listener on the loopback interface. */
static int listener(struct sockaddr_in *address)
{
    socklen_t size = sizeof *address;
    int       fd = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(fd >= 0);
    memset(address, 0, sizeof *address);
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(bind(fd, (struct sockaddr *)address, sizeof *address) == 0);
    REQUIRE(listen(fd, 64) == 0);
    REQUIRE(getsockname(fd, (struct sockaddr *)address, &size) == 0);
    return fd;
}

/* A TCP connection: two ends. */
static void connection(int door, const struct sockaddr_in *address, int ends[2])
{
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(ends[0] >= 0);
    REQUIRE(connect(ends[0], (const struct sockaddr *)address, sizeof *address) == 0);
    ends[1] = accept(door, NULL, NULL);
    REQUIRE(ends[1] >= 0);
}

static void tcp_pair(int ends[2])
{
    struct sockaddr_in address;
    int                door = listener(&address);
    connection(door, &address, ends);
    close(door);
}

static void reset(int fd)
{
    struct linger abort_it = { 1, 0 };
    CHECK_INT(setsockopt(fd, SOL_SOCKET, SO_LINGER, (const char *)&abort_it, sizeof abort_it), 0);
    close(fd);
}

/* A watch that counts, and reads what comes. */
typedef struct seen {
    chr_watch watch;
    int       fd, count, events, bytes, reads;
} seen;

static void ready(void *opaque, int events)
{
    seen *s = (seen *)opaque;
    char  bytes[16];
    int   n;
    s->count++;
    s->events = events;
    if (!s->reads || !(events & CHR_IN)) return;
    n = (int)recv(s->fd, bytes, sizeof bytes, 0);
    if (n > 0) s->bytes += n;
}

static void start(chr_context *ctx, seen *s, int fd, int events)
{
    memset(s, 0, sizeof *s);
    s->fd = fd;
    CHECK_INT(chr_watch_start(ctx, &s->watch, fd, events, ready, s), 0);
}

static void send_byte(int fd)
{
    CHECK_INT(send(fd, "x", 1, 0), 1);
}

/* Steps until the watch has been called so often. */
static void await(chr_context *ctx, const seen *s, int count)
{
    int64_t end = real_ms() + PATIENCE_MS;
    while (s->count < count && real_ms() < end) CHECK(chr_loop_step(ctx, SLICE_MS) >= 0);
    CHECK(s->count >= count);
}

/* ---- many -------------------------------------------------------------------------------------------------------- */

enum { MANY = 500 };

static void raise_limit(void)
{
#ifndef _WIN32
    struct rlimit limit;
    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
#endif
}

static int all_have(const seen *all, int bytes)
{
    int i, count = 0;
    for (i = 0; i < 2 * MANY; i++) count += all[i].bytes == bytes;
    return count;
}

/* A thousand sockets in one context: while nothing comes no time passes, and each gets what is its own. */
TEST_WITHIN(thousand_sockets, 120)
{
    static seen        all[2 * MANY];
    struct sockaddr_in address;
    chr_context       *ctx;
    int                i, door, ends[2], round;
    int64_t            end;
    double             before;
    raise_limit();
    ctx = open_context();
    door = listener(&address);
    for (i = 0; i < MANY; i++) {
        connection(door, &address, ends);
        start(ctx, &all[2 * i], ends[0], CHR_IN);
        start(ctx, &all[2 * i + 1], ends[1], CHR_IN);
        all[2 * i].reads = all[2 * i + 1].reads = 1;
        if (i % 100 == 0) CHECK_INT(chr_loop_step(ctx, 0), 0);
    }
    CHECK_INT(chr_loop_step(ctx, 0), 0);
    before = cpu_seconds();
    CHECK_INT(chr_loop_step(ctx, 1000), 0);
    CHECK(cpu_seconds() - before < 0.1);
    for (round = 1; round <= 3; round++) {
        for (i = 0; i < 2 * MANY; i++) send_byte(all[i].fd);
        end = real_ms() + PATIENCE_MS;
        while (all_have(all, round) < 2 * MANY && real_ms() < end) CHECK(chr_loop_step(ctx, SLICE_MS) >= 0);
        CHECK_INT(all_have(all, round), 2 * MANY);
        CHECK_INT(chr_loop_step(ctx, 0), 0);
    }
    for (i = 0; i < 2 * MANY; i++) CHECK_INT(all[i].events, CHR_IN);
    for (i = 0; i < 2 * MANY; i++) chr_watch_stop(&all[i].watch), close(all[i].fd);
    close(door);
    chr_context_free(ctx);
}

/* Connections that come, get something, are reset or closed and go: nothing stays behind. */
TEST_WITHIN(two_thousand_connections_leave_nothing, 120)
{
    struct sockaddr_in address;
    chr_context       *ctx = open_context();
    int                i, door = listener(&address), ends[2], before = 0;
    seen               s;
    for (i = 0; i < 2020; i++) {
        connection(door, &address, ends);
        start(ctx, &s, ends[1], CHR_IN);
        if (i % 2) {
            s.reads = 1;
            send_byte(ends[0]);
            await(ctx, &s, 1);
            CHECK_INT(s.bytes, 1);
        } else if (i % 4) {
            CHECK_INT(chr_loop_step(ctx, 0), 0);
        }
        if (i % 3) reset(ends[0]);
        else close(ends[0]);
        if (i % 5) await(ctx, &s, s.count + 1); /* the end; else its request is under way */
        chr_watch_stop(&s.watch);
        close(ends[1]);
        if (i == 20) before = count_handles();
        if (test_failures) break;
    }
    CHECK(count_handles() <= before + 2);
    close(door);
    chr_context_free(ctx);
}

/* From few to many while bytes are under way and another thread wakes the loop. */
static void *wake_often(void *opaque)
{
    int i;
    for (i = 0; i < 300; i++) {
        chr_loop_wake((chr_context *)opaque);
        if (i % 10 == 0) usleep(1000);
    }
    return NULL;
}

TEST(more_and_more_sockets_while_others_wake)
{
    enum { COUNT = 60 };
    static seen  all[COUNT];
    int          i, ends[2], others[COUNT];
    chr_context *ctx = open_context();
    pthread_t    thread;
    REQUIRE(pthread_create(&thread, NULL, wake_often, ctx) == 0);
    for (i = 0; i < COUNT; i++) {
        tcp_pair(ends);
        others[i] = ends[0];
        start(ctx, &all[i], ends[1], CHR_IN);
        all[i].reads = 1;
        send_byte(ends[0]);
        if (i % 3 == 0) CHECK(chr_loop_step(ctx, 0) >= 0);
        if (i > 0) send_byte(others[i / 2]);
    }
    for (i = 0; i < COUNT; i++) await(ctx, &all[i], 1);
    pthread_join(thread, NULL);
    while (chr_loop_step(ctx, 0) > 0) {}
    chr_loop_wake(ctx);
    CHECK(chr_loop_step(ctx, PATIENCE_MS) >= 0); /* at once */
    for (i = 0; i < COUNT; i++) {
        CHECK_INT(all[i].bytes, 1 + (i < COUNT / 2 ? i ? 2 : 1 : 0));
        chr_watch_stop(&all[i].watch);
        close(all[i].fd), close(others[i]);
    }
    chr_context_free(ctx);
}

/* ---- what is wanted changes -------------------------------------------------------------------------------------- */

TEST(level_triggered)
{
    chr_context *ctx = open_context();
    int          i, ends[2];
    char         bytes[8];
    seen         s;
    tcp_pair(ends);
    start(ctx, &s, ends[1], CHR_IN);
    CHECK_INT(chr_loop_step(ctx, 0), 0);
    send_byte(ends[0]);
    await(ctx, &s, 1);
    for (i = 0; i < 5; i++) CHECK_INT(chr_loop_step(ctx, 0), 1); /* until it is read */
    CHECK_INT(s.events, CHR_IN);
    CHECK_INT(recv(ends[1], bytes, sizeof bytes, 0), 1);
    for (i = 0; i < 5; i++) CHECK_INT(chr_loop_step(ctx, 0), 0);
    chr_watch_stop(&s.watch);
    close(ends[0]), close(ends[1]);
    chr_context_free(ctx);
}

/* A step with time-out 0 reports what is ready, whatever was requested before. */
TEST(interest_changes_and_is_seen_at_once)
{
    static const int wants[] = { CHR_HUP, CHR_IN, CHR_OUT, CHR_IN | CHR_OUT, 0, CHR_IN, CHR_HUP, CHR_OUT, CHR_HUP, CHR_IN | CHR_OUT, CHR_IN };
    chr_context     *ctx = open_context();
    int              ends[2], expected;
    size_t           i;
    seen             s;
    tcp_pair(ends);
    start(ctx, &s, ends[1], 0);
    send_byte(ends[0]);
    usleep(50000);
    for (i = 0; i < sizeof wants / sizeof wants[0]; i++) {
        chr_watch_set(&s.watch, wants[i]);
        expected = wants[i] & (CHR_IN | CHR_OUT);
        s.events = 0;
        CHECK_INT(chr_loop_step(ctx, 0), expected != 0);
        CHECK_INT(s.events, expected);
        CHECK_INT(chr_loop_step(ctx, 0), expected != 0);
    }
    chr_watch_stop(&s.watch);
    close(ends[0]), close(ends[1]);
    chr_context_free(ctx);
}

TEST(two_watches_of_a_socket)
{
    chr_context *ctx = open_context();
    int          ends[2];
    seen         in, out;
    tcp_pair(ends);
    start(ctx, &in, ends[1], CHR_IN);
    start(ctx, &out, ends[1], CHR_OUT);
    await(ctx, &out, 1);
    CHECK_INT(out.events, CHR_OUT);
    CHECK_INT(in.count, 0);
    send_byte(ends[0]);
    await(ctx, &in, 1);
    CHECK_INT(in.events, CHR_IN);
    chr_watch_stop(&out.watch);
    in.reads = 1;
    while (in.bytes < 1) CHECK(chr_loop_step(ctx, SLICE_MS) >= 0);
    out.count = 0;
    CHECK_INT(chr_loop_step(ctx, 0), 0);
    send_byte(ends[0]);
    while (in.bytes < 2) CHECK(chr_loop_step(ctx, SLICE_MS) >= 0);
    CHECK_INT(out.count, 0);
    chr_watch_stop(&in.watch);
    close(ends[0]), close(ends[1]);
    chr_context_free(ctx);
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

TEST(end_of_input_and_reset)
{
    chr_context *ctx = open_context();
    int          ends[2];
    seen         s;
    tcp_pair(ends);
    start(ctx, &s, ends[1], CHR_IN);
    shutdown(ends[0], SHUT_WR);
    await(ctx, &s, 1);
    CHECK_INT(s.events, CHR_IN); /* it is read as 0 bytes; output goes on */
    chr_watch_set(&s.watch, CHR_HUP);
    s.events = 0;
    await(ctx, &s, s.count + 1);
    CHECK_INT(s.events, CHR_HUP);
    chr_watch_set(&s.watch, CHR_OUT);
    await(ctx, &s, s.count + 1);
    CHECK_INT(s.events, CHR_OUT);
    chr_watch_set(&s.watch, CHR_HUP);
    reset(ends[0]);
    await(ctx, &s, s.count + 1);
    CHECK_INT(s.events, CHR_HUP);
    chr_watch_stop(&s.watch);
    close(ends[1]);
    chr_context_free(ctx);
}

TEST(listener_and_refused_connection)
{
    struct sockaddr_in address;
    chr_context       *ctx = open_context();
    int                door = listener(&address), client = socket(AF_INET, SOCK_STREAM, 0), flags;
    seen               s;
    start(ctx, &s, door, CHR_IN);
    CHECK_INT(chr_loop_step(ctx, 0), 0);
    REQUIRE(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
    await(ctx, &s, 1);
    CHECK_INT(s.events, CHR_IN);
    chr_watch_stop(&s.watch);
    close(client);
    close(door);
    client = socket(AF_INET, SOCK_STREAM, 0);
    flags = fcntl(client, F_GETFL);
    CHECK(fcntl(client, F_SETFL, flags | O_NONBLOCK) >= 0);
    (void)connect(client, (struct sockaddr *)&address, sizeof address);
    start(ctx, &s, client, CHR_OUT);
    await(ctx, &s, 1);
    CHECK(s.events & CHR_HUP);
    chr_watch_stop(&s.watch);
    close(client);
    chr_context_free(ctx);
}

/* The number is reused by another socket, while the request of the first may be pending. */
TEST(number_that_comes_back)
{
    chr_context *ctx = open_context();
    int          i, ends[2], last = -1, again = 0;
    seen         s;
    for (i = 0; i < 200; i++) {
        tcp_pair(ends);
        again += ends[1] == last;
        start(ctx, &s, ends[1], CHR_IN);
        CHECK_INT(chr_loop_step(ctx, 0), 0);
        CHECK_INT(s.count, 0);
        send_byte(ends[0]);
        await(ctx, &s, 1);
        CHECK_INT(s.events, CHR_IN);
        chr_watch_stop(&s.watch);
        last = ends[1];
        close(ends[1]), close(ends[0]);
    }
    CHECK(again > 0);
    chr_context_free(ctx);
}

/* Against the rules: closed while it is watched. It reports nothing any more, and stopping it is harmless. */
TEST(closed_while_it_is_watched)
{
    chr_context *ctx = open_context();
    int          i, ends[2], others[2];
    seen         s, other;
    double       before;
    tcp_pair(ends);
    start(ctx, &s, ends[1], CHR_IN);
    for (i = 0; i < 40; i++) CHECK_INT(chr_loop_step(ctx, 0), 0);
    before = cpu_seconds();
    close(ends[1]);
    for (i = 0; i < 5; i++) CHECK(chr_loop_step(ctx, 20) >= 0);
    CHECK(cpu_seconds() - before < 0.09);
    chr_watch_stop(&s.watch);
    tcp_pair(others); /* the number may be the same */
    start(ctx, &other, others[1], CHR_IN);
    send_byte(others[0]);
    await(ctx, &other, 1);
    chr_watch_stop(&other.watch);
    close(ends[0]), close(others[0]), close(others[1]);
    chr_context_free(ctx);
}

/* All that is under way ends with the context, and its memory with it. */
TEST(contexts_that_go_with_requests_under_way)
{
    chr_context *ctx;
    int          i, ends[2], before = 0;
    seen         a, b;
    for (i = 0; i < 60; i++) {
        ctx = open_context();
        tcp_pair(ends);
        start(ctx, &a, ends[0], CHR_IN);
        start(ctx, &b, ends[1], CHR_IN | CHR_HUP);
        CHECK_INT(chr_loop_step(ctx, 0), 0);
        if (i % 2) {
            CHECK_INT(chr_context_reset(ctx), 0);
            start(ctx, &b, ends[1], CHR_IN);
            send_byte(ends[0]);
            await(ctx, &b, 1);
        }
        chr_context_free(ctx);
        close(ends[0]), close(ends[1]);
        if (i == 10) before = count_handles();
    }
    CHECK(count_handles() <= before + 2);
}

#ifdef _WIN32
/* ---- what Windows can wait for, beside sockets ------------------------------------------------------------------- */

static int fd_of(HANDLE handle)
{
    return (int)(intptr_t)handle;
}

TEST(events_of_both_kinds)
{
    chr_context *ctx = open_context();
    HANDLE       manual = CreateEventW(NULL, TRUE, FALSE, NULL), automatic = CreateEventW(NULL, FALSE, FALSE, NULL);
    seen         s, t;
    start(ctx, &s, fd_of(manual), CHR_IN);
    start(ctx, &t, fd_of(automatic), CHR_IN);
    CHECK_INT(chr_loop_step(ctx, 20), 0);
    SetEvent(manual);
    await(ctx, &s, 1);
    await(ctx, &s, 2); /* as long as it is set */
    CHECK_INT(s.events, CHR_IN);
    ResetEvent(manual);
    CHECK(chr_loop_step(ctx, 20) >= 0);
    s.count = 0;
    CHECK_INT(chr_loop_step(ctx, 20), 0);
    SetEvent(automatic);
    await(ctx, &t, 1);
    CHECK_INT(chr_loop_step(ctx, 20), 0); /* once: the wait has taken it */
    CHECK_INT(t.count, 1);
    CHECK_INT(s.count, 0);
    chr_watch_stop(&s.watch), chr_watch_stop(&t.watch);
    SetEvent(manual);
    CHECK_INT(chr_loop_step(ctx, 20), 0);
    CloseHandle(manual), CloseHandle(automatic);
    chr_context_free(ctx);
}

TEST(hundred_and_fifty_events)
{
    enum { COUNT = 150 };
    static seen  all[COUNT];
    static HANDLE events[COUNT];
    chr_context *ctx = open_context();
    int          i, before;
    for (i = 0; i < COUNT; i++) {
        events[i] = CreateEventW(NULL, FALSE, FALSE, NULL);
        start(ctx, &all[i], fd_of(events[i]), CHR_IN);
    }
    CHECK_INT(chr_loop_step(ctx, 50), 0);
    for (i = 0; i < COUNT; i++) SetEvent(events[i]);
    for (i = 0; i < COUNT; i++) await(ctx, &all[i], 1);
    CHECK_INT(chr_loop_step(ctx, 50), 0);
    for (i = 0; i < COUNT; i++) CHECK_INT(all[i].count, 1);
    before = count_handles();
    for (i = 0; i < COUNT; i++) { /* some while they are signaled */
        if (i % 2) SetEvent(events[i]);
        if (i % 4) CHECK(chr_loop_step(ctx, 0) >= 0);
        chr_watch_stop(&all[i].watch);
        CloseHandle(events[i]);
    }
    for (i = 0; i < 50 && count_handles() > before - COUNT + 4; i++) Sleep(20); /* the thread pool lets go in its own time */
    CHECK(count_handles() <= before - COUNT + 4);
    CHECK_INT(chr_loop_step(ctx, 20), 0);
    chr_context_free(ctx);
}

static DWORD WINAPI sleep_a_little(void *opaque)
{
    Sleep((DWORD)(uintptr_t)opaque);
    return 0;
}

TEST(thread_that_ends)
{
    chr_context *ctx = open_context();
    HANDLE       thread = CreateThread(NULL, 0, sleep_a_little, (void *)100, 0, NULL);
    seen         s;
    start(ctx, &s, fd_of(thread), CHR_IN);
    CHECK_INT(chr_loop_step(ctx, 0), 0);
    await(ctx, &s, 1);
    chr_watch_stop(&s.watch);
    CloseHandle(thread);
    chr_context_free(ctx);
}

TEST(what_cannot_be_watched)
{
    chr_context *ctx = open_context();
    HANDLE       file, in, out;
    char         path[MAX_PATH], folder[MAX_PATH];
    seen         s;
    memset(&s, 0, sizeof s);
    REQUIRE(GetTempPathA(sizeof folder, folder) && GetTempFileNameA(folder, "chr", 0, path));
    file = CreateFileA(path, GENERIC_READ | GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, FILE_FLAG_DELETE_ON_CLOSE, NULL);
    REQUIRE(file != INVALID_HANDLE_VALUE);
    REQUIRE(CreatePipe(&in, &out, NULL, 0));
    CHECK_INT(chr_watch_start(ctx, &s.watch, fd_of(file), CHR_IN, ready, &s), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_watch_start(ctx, &s.watch, fd_of(in), CHR_IN, ready, &s), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_watch_start(ctx, &s.watch, -1, CHR_IN, ready, &s), CHR_ERR_INVALID);
    CHECK_INT(chr_watch_start(ctx, &s.watch, 0x7ffffff0, CHR_IN, ready, &s), CHR_ERR_INVALID);
    CHECK_INT(s.watch.slot, 0);
    chr_watch_stop(&s.watch);
    CHECK_INT(chr_loop_step(ctx, 0), 0);
    CHECK_INT(chr_loop_fd(ctx), CHR_ERR_NOT_SUPPORTED);
    CloseHandle(file), CloseHandle(in), CloseHandle(out);
    chr_context_free(ctx);
}

/* The system's own tick is up to 16 ms: timers are finer, and don't spin. */
static void expired(void *opaque)
{
    ++*(int *)opaque;
}

static void check_timers(chr_context *ctx)
{
    chr_timer timer;
    int       i, count = 0;
    int64_t   begin, late, best = INT64_MAX;
    double    before = cpu_seconds();
    memset(&timer, 0, sizeof timer);
    for (i = 0; i < 40; i++) {
        begin = chr_loop_now(ctx);
        chr_timer_start(ctx, &timer, 3, expired, &count);
        while (count <= i) CHECK(chr_loop_step(ctx, -1) >= 0);
        late = chr_loop_now(ctx) - begin - 3000000;
        CHECK(late >= 0);
        if (late < best) best = late;
    }
    CHECK(best < 5000000);
    CHECK(cpu_seconds() - before < 0.1);
}

TEST(timers_are_fine)
{
    static seen  all[40];
    chr_context *ctx = open_context();
    int          i, others[40], ends[2];
    check_timers(ctx);
    for (i = 0; i < 40; i++) {
        tcp_pair(ends);
        others[i] = ends[0];
        start(ctx, &all[i], ends[1], CHR_IN);
    }
    check_timers(ctx);
    for (i = 0; i < 40; i++) chr_watch_stop(&all[i].watch), close(all[i].fd), close(others[i]);
    chr_context_free(ctx);
}
#endif
