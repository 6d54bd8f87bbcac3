/*
 * rig.h - what most tests need: a context that counts (and can fail) allocations and has a virtual clock, a frontend that records
 * what it gets and complains about what it never should get, and helpers to talk to the far side. Include it after chardev.h.
 */
#ifndef CHARDEV_RIG_H
#define CHARDEV_RIG_H

#include "test.h"

#include <dirent.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

/* ---- what this machine may lack ------------------------------------------------------------------------------------- */

/* Where there is neither a hosts file nor a name server that knows it, what is about names can't be tested. */
static inline int localhost_resolves(void)
{
    struct addrinfo hints, *list = NULL;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = AF_INET;
    if (getaddrinfo("localhost", "9", &hints, &list) != 0) return 0;
    freeaddrinfo(list);
    return 1;
}

static inline int has_ipv6_loopback(void)
{
    struct sockaddr_in6 address;
    int                 fd = socket(AF_INET6, SOCK_STREAM, 0), ok;
    memset(&address, 0, sizeof address);
    address.sin6_family = AF_INET6;
    address.sin6_addr.s6_addr[15] = 1;
    ok = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0) close(fd);
    return ok;
}

#define NEED_LOCALHOST()                                              \
    do {                                                              \
        if (!localhost_resolves()) SKIP("localhost does not resolve"); \
    } while (0)

/* ---- the rig: a context under observation ------------------------------------------------------------------------- */

typedef struct rig {
    chr_context *ctx;
    long         calls;     /* allocations asked for, growing ones included */
    long         live;      /* blocks not yet freed, */
    size_t       bytes;     /* and how large they are together */
    long         fail_at;   /* the number of the call that fails; 0 = none */
    int          for_good;  /* and all after it */
    int          failed;    /* how many did fail */
    int64_t      now;       /* the virtual clock, in nanoseconds */
    int64_t      wall;      /* the virtual time of day */
    int          fds;       /* open descriptors before the context was made */
    int          exits, exit_code, snapshots, logs;
    char         log[2048]; /* all log lines, each ended by a newline */
} rig;

/* Enough room before each block for its size, and still aligned for anything. */
enum { RIG_HEADER = 16 };

static size_t rig_copied; /* bytes of blocks that grew, in all */

/* Never grows in place, so that an address kept too long is an error that sanitizers see. */
static inline void *rig_allocate(void *opaque, void *ptr, size_t size)
{
    rig    *r = (rig *)opaque;
    char   *old = ptr ? (char *)ptr - RIG_HEADER : NULL, *fresh;
    size_t  old_size = 0;
    if (old) memcpy(&old_size, old, sizeof old_size);
    if (size == 0) {
        if (old) r->live--;
        r->bytes -= old_size;
        if (old) memset(old, 0xdd, old_size + RIG_HEADER); /* who looks at it still comes to harm */
        free(old);
        return NULL;
    }
    r->calls++;
    if (r->fail_at && (r->calls == r->fail_at || (r->for_good && r->calls > r->fail_at))) {
        r->failed++;
        return NULL;
    }
    fresh = (char *)malloc(size + RIG_HEADER);
    if (!fresh) abort();
    memcpy(fresh, &size, sizeof size);
    r->bytes += size - old_size;
    if (old) {
        rig_copied += old_size;
        memcpy(fresh + RIG_HEADER, ptr, old_size < size ? old_size : size);
        memset(old, 0xdd, old_size + RIG_HEADER);
        free(old);
    } else {
        r->live++;
    }
    memset(fresh + RIG_HEADER + (old_size < size ? old_size : size), 0xa5, old_size < size ? size - old_size : 0);
    return fresh + RIG_HEADER;
}

static inline void rig_log(void *opaque, const char *line)
{
    rig   *r = (rig *)opaque;
    size_t used = strlen(r->log);
    r->logs++;
    snprintf(r->log + used, sizeof r->log - used, "%s\n", line);
}

static inline int64_t rig_clock(void *opaque)
{
    return ((rig *)opaque)->now;
}

static inline int64_t rig_wall_clock(void *opaque)
{
    return ((rig *)opaque)->wall;
}

static inline void rig_exit(void *opaque, int code)
{
    rig *r = (rig *)opaque;
    r->exits++;
    r->exit_code = code;
}

static inline void rig_snapshot(void *opaque)
{
    ((rig *)opaque)->snapshots++;
}

#ifndef CHARDEV_NO_TRACE
static void (*rig_traced)(void *opaque, const chr_trace *event); /* the hook of a test's own; NULL = none */

/* With TEST_TRACE=1 in the environment every test runs with a trace hook, which does what it must not do, too: with all of
 * them nothing changes but what counts allocations. */
static inline void rig_trace(void *opaque, const chr_trace *event)
{
    static __thread int inside;
    const chr_dev    *dev;
    char              line[300], small[20];
    chr_info          info;
    chr_error         err;
    (void)opaque;
    CHECK(!inside++);
    CHECK(chr_trace_format(event, line, sizeof line) == (int)strlen(line));
    CHECK(chr_trace_format(event, small, sizeof small) < (int)sizeof small);
    CHECK(strstr(line, event->name) != NULL);
    CHECK(!strchr(line, '\n'));
    for (dev = chr_next(event->ctx, NULL); dev; dev = chr_next(event->ctx, dev)) chr_query(dev, &info);
    CHECK(!chr_new(event->ctx, "null,id=from-trace", &err));
    CHECK_INT(chr_loop_step(event->ctx, 0), CHR_ERR_IN_HANDLER);
    if (event->id && chr_find(event->ctx, event->id)) CHECK(chr_remove(event->ctx, event->id, &err) < 0);
    if (event->id) CHECK(chr_change(event->ctx, event->id, "null", &err) < 0);
    inside--;
}
#endif

static inline int64_t real_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The least milliseconds that something has taken in five attempts, or those of the first that is below a limit: what a machine that
 * is busy or throttled adds to one it does not add to all, and what waits does so each time. */
static inline int64_t least_ms(int64_t limit, int64_t (*measure)(const void *arg), const void *arg)
{
    int64_t least = INT64_MAX, took;
    int     attempt;
    for (attempt = 0; attempt < 5 && least >= limit; attempt++)
        if ((took = measure(arg)) < least) least = took;
    return least;
}

/* How many descriptors this process has open; the one that looks is not counted. */
#ifdef _WIN32
/* Files, sockets and pipes alone: the system opens events and threads of its own as it needs them. Wine's GetProcessHandleCount() is not
 * to be relied on, and to ask for each handle costs a call each. */
typedef struct rig_handles {
    ULONG_PTR count, reserved;
    struct {
        void     *object;
        ULONG_PTR pid, handle;
        ULONG     access;
        USHORT    backtrace, type;
        ULONG     attributes, reserved;
    } all[1];
} rig_handles;

static inline const rig_handles *rig_handles_of_all(void)
{
    enum { EXTENDED_HANDLE_INFORMATION = 64 };
    static LONG(WINAPI *query)(int what, void *answer, ULONG size, ULONG *used);
    static rig_handles *list;
    static ULONG        size = 500000;
    if (!query) query = (LONG(WINAPI *)(int, void *, ULONG, ULONG *))(uintptr_t)GetProcAddress(GetModuleHandleA("ntdll"), "NtQuerySystemInformation");
    if (!list) list = (rig_handles *)malloc(size);
    while (query(EXTENDED_HANDLE_INFORMATION, list, size, NULL) != 0) {
        REQUIRE(size < 1u << 30);
        list = (rig_handles *)realloc(list, size *= 2);
    }
    return list;
}

static inline int count_fds(void)
{
    const rig_handles *list = rig_handles_of_all();
    ULONG_PTR          i, self = GetCurrentProcessId();
    int                count = 0, type = -1;
    for (i = 0; i < list->count; i++)
        if (list->all[i].pid == self && list->all[i].handle == (ULONG_PTR)posix_beat[0]) type = list->all[i].type;
    for (i = 0; i < list->count; i++) count += list->all[i].pid == self && list->all[i].type == type;
    return count;
}
#else
static inline int count_fds(void)
{
    DIR           *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    int            count = 0;
    REQUIRE(dir != NULL);
    while ((entry = readdir(dir)) != NULL) count += entry->d_name[0] != '.';
    closedir(dir);
    return count - 1;
}
#endif

static inline chr_config rig_config(rig *r)
{
    chr_config config;
    memset(&config, 0, sizeof config);
    config.opaque = r;
    config.allocate = rig_allocate;
    config.log = rig_log;
    config.wall_clock = rig_wall_clock;
    config.exit = rig_exit;
    config.snapshot = rig_snapshot;
#ifndef CHARDEV_NO_TRACE
    if (getenv("TEST_TRACE")) config.trace = rig_trace;
    if (rig_traced) config.trace = rig_traced;
#endif
    return config;
}

static inline void rig_init(rig *r)
{
    memset(r, 0, sizeof *r);
    r->now = 1000000000;
    r->wall = INT64_C(1500000000) * 1000000000; /* 2017-07-14 02:40:00 UTC */
    r->fds = count_fds();
}

/* A context on the real clock: for tests in which something outside takes its time. */
static inline void rig_open(rig *r)
{
    chr_config config = rig_config(r);
    rig_init(r);
    r->ctx = chr_context_new(&config);
    REQUIRE(r->ctx != NULL);
}

/* A context whose time only moves when the test says so. */
static inline void rig_open_virtual(rig *r)
{
    chr_config config = rig_config(r);
    config.clock = rig_clock;
    rig_init(r);
    r->ctx = chr_context_new(&config);
    REQUIRE(r->ctx != NULL);
}

/* Frees the context and looks for what it left behind. Close the test's own descriptors before. */
static inline void rig_close(rig *r)
{
    chr_context_free(r->ctx);
    r->ctx = NULL;
    CHECK_INT(r->live, 0);
#ifdef _WIN32
    if (!CHECK(count_fds() <= r->fds)) NOTE("%d handles, not %d", count_fds(), r->fds); /* tests close some that were there before */
#else
    CHECK_INT(count_fds(), r->fds);
#endif
}

#ifdef _WIN32
enum { RIG_OVER_TCP = 1, RIG_EACH = 5 }; /* what stands for local sockets is TCP; of the splits of a stream each fifth is tried */
#else
enum { RIG_OVER_TCP = 0, RIG_EACH = 1 };
#endif

/* Whether something is ready that was sent over local sockets before. On Windows the system notices it a moment later, and of a handle
 * that is no socket a thread does. */
static inline int more_arrives(rig *r)
{
#if defined(_WIN32) && defined(RIG_WITH_HANDLES)
    return chr_loop_step(r->ctx, 3) > 0;
#elif defined(_WIN32) && !defined(RIG_WITHOUT_SOCKETS)
    posix_pulse();
    return chr_loop_step(r->ctx, 0) > 0;
#else
    return (void)r, 0;
#endif
}

/* Steps until nothing more is ready now. What was sent over pipes and local sockets before has arrived after it. */
static inline void settle(rig *r)
{
    int i;
    for (i = 0; i < 1000; i++)
        if (chr_loop_step(r->ctx, 0) <= 0 && !more_arrives(r)) return;
    test_check(0, __FILE__, __LINE__, "the loop comes to rest");
}

/* Moves the virtual clock and lets the due timers run. */
static inline void pass_time(rig *r, int64_t ms)
{
    r->now += ms * 1000000;
    settle(r);
}

#ifdef CHARDEV_FAULT_H
/* Lets real time pass, so many times as fast as fault_plan.haste says. The virtual clock stands still. */
static inline void pass_real_time(rig *r, int64_t ms)
{
    int64_t end = real_ms() + ms / (fault_plan.haste ? fault_plan.haste : 1);
    while (real_ms() < end) chr_loop_step(r->ctx, 2);
}
#endif

/* How long a test waits for what must come: only one that fails waits so long. */
enum { RIG_PATIENCE_MS = 30000 };

/* Steps until the condition holds. A test that waits in vain fails. */
#define PUMP(r, condition)                                                                  \
    do {                                                                                    \
        int64_t pump_end = real_ms() + RIG_PATIENCE_MS * test_time_scale();                            \
        while (!(condition) && real_ms() < pump_end) chr_loop_step((r)->ctx, 10);           \
        test_check(!!(condition), __FILE__, __LINE__, "never came: " #condition);           \
    } while (0)

#ifdef _WIN32
static inline const char *without_unix(const char *options); /* below */
#define chr_new(ctx, options, err)        chr_new(ctx, without_unix(options), err)
#define chr_change(ctx, id, options, err) chr_change(ctx, id, without_unix(options), err)
#endif

/* Makes a chardev that must come into being. On Windows, what it has nothing of ends the test as skipped. */
static inline chr_dev *make(rig *r, const char *options)
{
    chr_error err;
    chr_dev  *dev = chr_new(r->ctx, options, &err);
    if (!dev) {
#ifdef _WIN32
        if (err.code == CHR_ERR_NOT_SUPPORTED) SKIP(strrchr(err.text, ':') ? strrchr(err.text, ':') + 2 : err.text);
#endif
        printf("    %s: %s\n", options, err.text);
        test_check(0, __FILE__, __LINE__, "the chardev is made");
        exit(EXIT_FAILURE);
    }
    return dev;
}

/* Asks for a chardev that must not come into being; returns the code. The text is one non-empty line. */
static inline int refuse(rig *r, const char *options, chr_error *err)
{
    int      fds = count_fds();
    chr_dev *dev;
    memset(err, 0, sizeof *err);
    dev = chr_new(r->ctx, options, NULL); /* nobody has to want to know why */
    CHECK(dev == NULL);
    dev = chr_new(r->ctx, options, err);
    if (!CHECK(dev == NULL) || !CHECK(err->code < 0) || !CHECK(err->text[0]) || !CHECK(!strchr(err->text, '\n')) ||
        !CHECK_INT(count_fds(), fds) || !CHECK(chr_next(r->ctx, NULL) == NULL || dev == NULL))
        NOTE("for \"%.200s\": %s", options, err->text);
    return err->code;
}

/* A backend that Windows has not. Elsewhere every one is there. */
static inline int is_left_out(const chr_error *err)
{
#ifdef _WIN32
    return err->code == CHR_ERR_NOT_SUPPORTED && strstr(err->text, "built without") != NULL;
#else
    return (void)err, 0;
#endif
}

/* ---- the recorder: a frontend that remembers ----------------------------------------------------------------------- */

typedef struct recorder {
    chr_frontend fe;
    char        *input; /* all that came */
    size_t       length, size;
    int          room;       /* what can_read says; reads use it up */
    char         events[64]; /* O opened, C closed, B break, I mux in, U mux out, S serial, L line error, P and Q purged, E input end, R readable, ? other */
    int          last_event;
    int          open;       /* told OPENED, and not CLOSED since */
    int          changes, change_answer, writable;
    void       (*then)(struct recorder *, int what); /* called last in each handler: 'r', 'e', 'c', 'w' */
    void        *user;
    int          early_input_allowed;
} recorder;

enum { UNLIMITED = 1 << 30 };

static inline int recorder_can_read(void *opaque)
{
    return ((recorder *)opaque)->room;
}

static inline void recorder_read(void *opaque, const void *buf, size_t len)
{
    recorder *rec = (recorder *)opaque;
    CHECK(len > 0);
    if (!CHECK(len <= (size_t)rec->room)) NOTE("%zu bytes came for a room of %d", len, rec->room);
    if (!rec->early_input_allowed) CHECK(rec->open);
    if (rec->room < UNLIMITED) rec->room -= (int)len;
    if (rec->length + len > rec->size) {
        rec->size = 2 * (rec->length + len);
        rec->input = (char *)realloc(rec->input, rec->size);
        REQUIRE(rec->input != NULL);
    }
    memcpy(rec->input + rec->length, buf, len);
    rec->length += len;
    if (rec->then) rec->then(rec, 'r');
}

static inline char recorder_letter(int event)
{
    switch (event) {
    case CHR_EVENT_OPENED: return 'O';
    case CHR_EVENT_CLOSED: return 'C';
    case CHR_EVENT_BREAK: return 'B';
    case CHR_EVENT_MUX_IN: return 'I';
    case CHR_EVENT_MUX_OUT: return 'U';
    case CHR_EVENT_SERIAL: return 'S';
    case CHR_EVENT_LINE_ERROR: return 'L';
    case CHR_EVENT_PURGE_RECEIVE: return 'P';
    case CHR_EVENT_PURGE_TRANSMIT: return 'Q';
    case CHR_EVENT_INPUT_END: return 'E';
    case CHR_EVENT_READABLE: return 'R';
    default: return '?';
    }
}

static inline void recorder_event(void *opaque, int event)
{
    recorder *rec = (recorder *)opaque;
    size_t    used = strlen(rec->events);
    rec->last_event = event;
    if (event == CHR_EVENT_OPENED) CHECK(!rec->open);
    if (event == CHR_EVENT_CLOSED) CHECK(rec->open);
    if (event == CHR_EVENT_OPENED) rec->open = 1;
    if (event == CHR_EVENT_CLOSED) rec->open = 0;
    if (used + 1 < sizeof rec->events) rec->events[used] = recorder_letter(event);
    if (rec->then) rec->then(rec, 'e');
}

static inline int recorder_change(void *opaque)
{
    recorder *rec = (recorder *)opaque;
    rec->changes++;
    if (rec->then) rec->then(rec, 'c');
    return rec->change_answer;
}

static inline void recorder_writable(void *opaque)
{
    recorder *rec = (recorder *)opaque;
    rec->writable++;
    if (rec->then) rec->then(rec, 'w');
}

static const chr_handlers recorder_handlers = { recorder_can_read, recorder_read, recorder_event, recorder_change };
static const chr_handlers recorder_handlers_without_change = { recorder_can_read, recorder_read, recorder_event, NULL };

static inline void listen_to(recorder *rec)
{
    rec->open = 0; /* alternation is promised to one set of handlers */
    chr_fe_set_handlers(&rec->fe, &recorder_handlers, rec);
}

/* Attaches a recorder with endless room. Set `room` first to have less: attach_with_room(). */
static inline void attach_with_room(recorder *rec, chr_dev *dev, int room)
{
    chr_error err;
    memset(rec, 0, sizeof *rec);
    rec->room = room;
    REQUIRE(chr_fe_init(&rec->fe, dev, &err) == 0);
    listen_to(rec);
}

static inline void attach(recorder *rec, chr_dev *dev)
{
    attach_with_room(rec, dev, UNLIMITED);
}

static inline void detach(recorder *rec)
{
    chr_fe_deinit(&rec->fe);
    free(rec->input);
    rec->input = NULL;
    rec->length = rec->size = 0;
}

/* Room for `more` bytes has come. */
static inline void give_room(recorder *rec, int more)
{
    rec->room = more;
    chr_fe_accept_input(&rec->fe);
}

#define CHECK_INPUT(rec, text) CHECK_MEM((rec)->input, (rec)->length, (text), strlen(text))

static inline void forget_input(recorder *rec)
{
    rec->length = 0;
}

/* ---- the far side --------------------------------------------------------------------------------------------------- */

static char scratch_dir[64];

/* A path in a fresh directory of this test; good until three more were asked for. */
static inline const char *scratch(const char *name)
{
    static char path[4][400];
    static int  turn;
    if (!scratch_dir[0]) {
        snprintf(scratch_dir, sizeof scratch_dir, "/tmp/chardev-test-XXXXXX");
        REQUIRE(mkdtemp(scratch_dir) != NULL);
    }
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", scratch_dir, name);
    return path[turn];
}

/* Forgets the directory that scratch() made, with all the files in it. */
static inline void scratch_clean(void)
{
    DIR           *handle = scratch_dir[0] ? opendir(scratch_dir) : NULL;
    struct dirent *entry;
    while (handle && (entry = readdir(handle)) != NULL)
        if (entry->d_name[0] != '.') unlink(scratch(entry->d_name));
    if (handle) closedir(handle);
    rmdir(scratch_dir);
    scratch_dir[0] = 0;
}

static inline int exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static inline void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    REQUIRE(file != NULL);
    fputs(text, file);
    fclose(file);
}

/* The whole of a file, in one of two static buffers. */
static inline const char *read_file(const char *path)
{
    static char text[2][4096];
    static int  turn;
    FILE       *file = fopen(path, "r");
    size_t      len;
    turn = !turn;
    if (!file) return "(no such file)";
    len = fread(text[turn], 1, sizeof text[turn] - 1, file);
    text[turn][len] = 0;
    fclose(file);
    return text[turn];
}

/* A listening socket on 127.0.0.1. *port 0: a free one, and which. */
static inline int tcp_listen_at(int *port)
{
    struct sockaddr_in address;
    socklen_t          len = sizeof address;
    int                fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)*port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, 8) == 0);
    REQUIRE(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static inline int tcp_listen(int *port)
{
    *port = 0;
    return tcp_listen_at(port);
}

static inline int tcp_connect(int port)
{
    struct sockaddr_in address;
    int                fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    if (fd >= 0) close(fd);
    return -1;
}

#ifdef _WIN32
/* Where there are no unix sockets, a scratch path in options stands for a port of 127.0.0.1, always the same. It is none that the
 * system gives to clients. */
static inline int scratch_port(const char *path, size_t len)
{
    static struct { char path[400]; int port; } known[100];
    static unsigned next;
    int             i, fd = -1, port;
    for (i = 0; i < 100 && known[i].port; i++)
        if (strlen(known[i].path) == len && strncmp(known[i].path, path, len) == 0) return known[i].port;
    REQUIRE(i < 100);
    if (!next) next = (unsigned)GetCurrentProcessId() * 37 + (unsigned)GetTickCount();
    do {
        struct sockaddr_in address;
        port = (int)(10000 + next++ % 20000);
        memset(&address, 0, sizeof address);
        address.sin_family = AF_INET;
        address.sin_port = htons((uint16_t)port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        fd = socket(AF_INET, SOCK_STREAM, 0);
        if (bind(fd, (struct sockaddr *)&address, sizeof address) == 0) break;
        close(fd);
    } while (1);
    close(fd);
    snprintf(known[i].path, sizeof known[i].path, "%.*s", (int)len, path);
    return known[i].port = port;
}

/* Options of a socket with a scratch path become those of a port; all others stay. The result is good until the next call. */
static inline const char *without_unix(const char *options)
{
    static char text[70000];
    const char *path = scratch_dir[0] && strncmp(options, "socket,", 7) == 0 ? strstr(options, ",path=") : NULL;
    size_t      len = path ? strcspn(path + 6, ",") : 0;
    if (!path || strncmp(path + 6, scratch_dir, strlen(scratch_dir)) != 0 || strstr(options, "abstract=on") || strstr(options, "mode=")
        || strstr(options, "group=") || strlen(options) + 40 > sizeof text) return options;
    snprintf(text, sizeof text, "%.*s,host=127.0.0.1,port=%d,nodelay=on%s", (int)(path - options), options, scratch_port(path + 6, len),
             path + 6 + len);
    return text;
}

#define NEED_POSIX(reason) SKIP(reason)
#define NEED_UNIX()        SKIP("this system has no unix sockets")
#define NEED_FD_PASSING()  SKIP("no descriptors go over this system's sockets")
#define NEED_LITTLE_ROOM() SKIP("what lies between takes all of it on this system")

/* Where a socket with a scratch path is, as messages have it. */
static inline const char *place_of(const char *path)
{
    static char text[40];
    snprintf(text, sizeof text, "127.0.0.1:%d", scratch_port(path, strlen(path)));
    return text;
}

static inline int unix_listen(const char *path)
{
    int port = scratch_port(path, strlen(path));
    return tcp_listen_at(&port);
}

static inline int unix_connect(const char *path)
{
    return tcp_connect(scratch_port(path, strlen(path)));
}
#else
#define NEED_POSIX(reason) (void)0
#define NEED_UNIX()        (void)0
#define NEED_FD_PASSING()  (void)0
#define NEED_LITTLE_ROOM() (void)0

static inline const char *place_of(const char *path) { return path; }

/* A listening unix socket at `path`. */
static inline int unix_listen(const char *path)
{
    struct sockaddr_un address;
    int                fd = socket(AF_UNIX, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    REQUIRE(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 8) == 0);
    return fd;
}

static inline int unix_connect(const char *path)
{
    struct sockaddr_un address;
    int                fd = socket(AF_UNIX, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    if (fd >= 0) close(fd);
    return -1;
}
#endif

static inline void socket_pair(int fds[2])
{
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
}

/* Sends all of a text from the far side, waiting where it must. */
static inline void say(int fd, const char *text)
{
    size_t  len = strlen(text);
    ssize_t sent = write(fd, text, len);
    CHECK_INT(sent, len);
}

/* What the far side can read now, in a static buffer; at end of file "(eof)", with nothing there "". */
static inline const char *hear(int fd)
{
    static char   text[70000];
    struct pollfd p = { 0, POLLIN, 0 };
    ssize_t       len = 0, got;
    p.fd = fd;
    while (len < (ssize_t)sizeof text - 1 && poll(&p, 1, 0) > 0) {
        got = read(fd, text + len, sizeof text - 1 - (size_t)len);
        if (got < 0) return len ? (text[len] = 0, text) : "(error)";
        if (got == 0) return len ? (text[len] = 0, text) : "(eof)";
        len += got;
    }
    text[len] = 0;
    return text;
}

/* Fills what lies between, until a write by the frontend would block; returns how many bytes were taken. */
static inline size_t fill_up(chr_frontend *fe)
{
    static char block[65536];
    size_t      total = 0;
    int         taken;
    memset(block, 'x', sizeof block);
    while ((taken = chr_fe_write(fe, block, sizeof block)) > 0) total += (size_t)taken;
    CHECK_INT(taken, CHR_ERR_WOULD_BLOCK);
    return total;
}

/* Writes until it fails because the far side is gone: over TCP the first is still taken. */
static inline int write_to_nobody(chr_frontend *fe)
{
    int i, n = 0;
    for (i = 0; i < 3 && n >= 0; i++) n = chr_fe_write(fe, "x", 1);
    return n;
}

/* Reads exactly `len` bytes at the far side and throws them away; steps the loop while there is nothing. */
static inline size_t drain(rig *r, int fd, size_t len)
{
    static char   block[65536];
    size_t        total = 0;
    struct pollfd p = { 0, POLLIN, 0 };
    int64_t       end = real_ms() + RIG_PATIENCE_MS * test_time_scale();
    p.fd = fd;
    while (total < len && real_ms() < end) {
        ssize_t got;
        chr_loop_step(r->ctx, 0);
        if (poll(&p, 1, 1) <= 0) continue;
        got = read(fd, block, len - total < sizeof block ? len - total : sizeof block);
        if (got <= 0) break;
        total += (size_t)got;
    }
    return total;
}

static inline int flag_set(int fd, int command, int flag)
{
    return (fcntl(fd, command) & flag) != 0;
}

/* A connected socket on which nothing waits. */
static inline int is_nonblocking(int fd)
{
#ifdef _WIN32
    char byte; /* it can't be asked: one that blocks ends at the test's time limit */
    return recv(fd, &byte, 1, MSG_PEEK) < 0 && errno == EAGAIN;
#else
    return flag_set(fd, F_GETFL, O_NONBLOCK);
#endif
}

#endif
