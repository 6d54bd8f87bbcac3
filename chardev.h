/*
 * chardev.h - character devices for everything that isn't QEMU.                              MIT licence, see the end
 *
 * A character device ("chardev") joins two ends: a *backend* (a socket, a pty, a ring buffer, ...: what the far side is)
 * and a *frontend* (your emulated UART, monitor or test). What the backend is gets chosen at run time, by one line of text.
 *
 * QUICK START. In one C or C++ file, define CHARDEV_IMPLEMENTATION before the include; elsewhere include it plainly.
 *
 *     #define CHARDEV_IMPLEMENTATION
 *     #include "chardev.h"
 *     #include <stdio.h>
 *     #include <string.h>
 *
 *     static chr_context *ctx;
 *     static chr_frontend con;
 *     static char text[4096];
 *     static size_t at, end; // text[at..end) is not sent yet
 *
 *     static void send_rest(void *opaque)
 *     {
 *         int n = chr_fe_write(&con, text + at, end - at);
 *         at = n > 0 ? at + (size_t)n : n == CHR_ERR_WOULD_BLOCK ? at : end; // another error: nobody is there
 *         if (at < end) chr_fe_add_watch(&con, send_rest, opaque);           // short write: wait for room
 *         else chr_fe_accept_input(&con);                                    // all is sent: more may come
 *     }
 *     static int can_read(void *opaque) { return (void)opaque, at < end ? 0 : (int)sizeof text; } // back-pressure
 *     static void got(void *opaque, const void *buf, size_t len)
 *     {
 *         memcpy(text, buf, len);
 *         at = 0, end = len;
 *         send_rest(opaque);
 *     }
 *     static void happened(void *opaque, int event)
 *     {
 *         chr_info info;
 *         chr_query(con.dev, &info);
 *         if (event == CHR_EVENT_OPENED) got(opaque, "hello\r\n", 7);
 *         if (event == CHR_EVENT_CLOSED && !info.comes_back) chr_loop_stop(ctx); // a server goes on with its next peer
 *     }
 *     int main(int argc, char **argv)
 *     {
 *         const chr_handlers handlers = { can_read, got, happened, NULL };
 *         const char *options = argc > 1 ? argv[1] : "stdio,id=con";
 *         chr_error err = { CHR_ERR_NO_MEMORY, "out of memory" };
 *         chr_dev *dev = (ctx = chr_context_new(NULL)) != NULL ? chr_new(ctx, options, &err) : NULL;
 *         if (!dev || chr_fe_init(&con, dev, &err) < 0) return fprintf(stderr, "%s\n", err.text), 2;
 *         chr_fe_set_handlers(&con, &handlers, NULL);
 *         chr_loop_run(ctx);
 *         chr_fe_write_all(&con, text + at, end - at, -1); // what still waits here,
 *         chr_drain(ctx, 2000);                            // and in the chardev, for two seconds without progress
 *         chr_context_free(ctx);
 *         return 0;
 *     }
 *
 * CONTENTS. Search for the tag to get there.
 *
 *     the manual        >>errors >>config >>loop >>options >>chardev >>frontend >>recipes >>backend >>structs >>extras >>record
 *                       >>descriptors
 *     implementation    >>platform (>>posix >>windows >>freestanding) >>memory >>encodings >>tables >>the_loop
 *                       >>the_options >>the_record >>core >>front >>the_replay >>stream
 *     backends          >>be_null >>be_ringbuf >>be_testdev (>>answers) >>be_msmouse >>be_wctablet
 *                       >>be_braille (>>brlapi) >>be_mux >>fan_out >>be_hub
 *                       >>be_fd >>be_file >>be_pipe >>be_pty >>be_stdio >>be_serial >>be_parallel >>be_udp
 *                       >>be_socket (>>socket_address >>layer_box >>layer_telnet (>>com_port) >>layer_websocket
 *                                    >>socket_tls >>socket_layers >>socket_chardev)
 *                       >>be_spice
 *     the last pages    >>table >>public
 *
 * BUILD MACROS. Define them before the include, the same in every file.
 *
 *     CHARDEV_IMPLEMENTATION   emit the functions: in exactly one file of a program
 *     CHARDEV_STATIC           all functions static: each file has its own copy
 *     CHARDEV_API              what stands before each public function (e.g. a dllexport); default extern
 *     CHARDEV_THREADS          writes and a few more calls from any thread (see THREADS); host names are looked up in
 *                              the background (pthreads)
 *     CHARDEV_MBEDTLS          TLS for sockets, with mbed TLS 2.28 or 3.x: link -lmbedtls -lmbedx509 -lmbedcrypto
 *     CHARDEV_SPICE            spicevmc and spiceport, for an emulator that runs a spice-server: compile and link as pkg-config
 *                              spice-server says
 *     CHARDEV_FREESTANDING     no operating system: the backends from null to hub and your own; hooks for memory and clock
 *     CHARDEV_NO_x             leave a backend out: RINGBUF TESTDEV MSMOUSE WCTABLET BRAILLE (or its BRLAPI alone) MUX HUB FD
 *                              FILE PIPE PTY STDIO SERIAL PARALLEL UDP SOCKET SPICE
 *     CHARDEV_BUFFER_SIZE      bytes: the largest read, and what a mux may keep; default 65536, freestanding 1024
 *     CHR_SYS(name)            how a system call is reached; default `name`. Tests put faults in here.
 *
 * RULES that hold for all that follows.
 *
 *     - Nothing is global (but the process's terminal, for stdio), nothing is printed, nothing exits or asserts. A
 *       context belongs to one thread, its owner: the one that made it, or that ran its loop last. What others may call
 *       stands under THREADS.
 *     - Functions that fail return a negative CHR_ERR_... (or NULL) and, given a chr_error, one line that names what was wrong.
 *     - Any function may be called from inside any handler, also to remove the chardev that is calling. The few that block
 *       (they say so) refuse there with CHR_ERR_IN_HANDLER.
 *     - No call of yours calls your handlers before it returns; what it causes comes from the loop, can_read too.
 *       Exceptions: chr_fe_set_handlers() on an open chardev gives OPENED at once; chr_change() asks your `change`
 *       handler, and tells CLOSED before it when the old backend was open and the new one is not, OPENED after it when
 *       it is the other way round, and nothing when both are open; chr_send_break() gives BREAK and chr_inject() input;
 *       chr_fe_take_focus() gives MUX_OUT and MUX_IN; chr_context_free() and chr_context_reset() give CLOSED. Before these comes what waits for the loop, so that
 *       events keep their order. chr_drain() runs the loop, and a backend's chr_be_...() calls are its own business.
 *     - A descriptor that you give in options is the chardev's from success on. After an error it is yours, open, with
 *       the flags that it had.
 *     - Descriptors of the library are CLOEXEC and non-blocking, and never 0, 1 or 2. No call waits because another
 *       process has changed O_NONBLOCK of a descriptor that both have. Pipes, terminals and other devices that were
 *       inherited keep their flags: they are opened anew where that is possible.
 *     - A write raises no signal: an error stands for SIGPIPE and SIGXFSZ. Settings of a terminal raise no SIGTTOU. No
 *       signal's disposition is changed.
 *
 * THREADS. With CHARDEV_THREADS the calls below may be made from any thread, at any time between chr_fe_init() and
 * chr_context_free(), also while the owner swaps, removes or reconnects the chardev. All others are the owner's.
 * Handlers, the hooks watch_changed and timeout_changed, and a backend's slots but write, read and wait_fd run on the
 * owner thread only; the hooks allocate, log, clock and wall_clock also on a thread that writes, one thread at a time.
 *
 *     any thread                                  what it may cost
 *     chr_fe_write, chr_fe_printf                 the lock; one system call; a wake-up when the loop has more to do
 *     chr_fe_write_all, chr_fe_read_all           the same each time, and waits in pieces of 20 ms without the lock
 *     chr_fe_accept_input, chr_fe_add_watch       the lock; a wake-up
 *     chr_fe_backend_open, chr_fe_eof             the lock
 *     chr_idle_start, chr_idle_stop               the lock; a wake-up: the way to post a callback to the owner
 *     chr_loop_lock, chr_loop_unlock              the lock
 *     chr_loop_stop, chr_loop_wake                a wake-up; from signal handlers too, and without CHARDEV_THREADS
 *
 * The lock is one for a context. The owner has it in its loop (handlers included) except while that sleeps, and in each
 * of its calls except while it blocks: others wait for as long as a handler takes. A wake-up is one byte written to a
 * pipe, and only when the owner sleeps. A write that another thread's call waits for goes on with the new backend after
 * a swap, and ends with CHR_ERR_DISCONNECTED (or what was taken) after chr_fe_deinit(), whose frontend must stay in
 * memory as long as others may use it.
 */
#ifndef CHARDEV_H
#define CHARDEV_H

#if defined(CHARDEV_IMPLEMENTATION) && !defined(_FEATURES_H) && !defined(_DEFAULT_SOURCE) && !defined(CHARDEV_FREESTANDING)
#define _DEFAULT_SOURCE 1 /* sockets and termios under -std=c99 too, as long as no system header came before */
#endif

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef CHARDEV_API
#if defined(CHARDEV_STATIC) && defined(__GNUC__)
#define CHARDEV_API static __attribute__((unused))
#elif defined(CHARDEV_STATIC)
#define CHARDEV_API static
#else
#define CHARDEV_API extern
#endif
#endif

#if defined(__GNUC__)
#define CHR_PRINTF(at, rest) __attribute__((__format__(__printf__, at, rest)))
#else
#define CHR_PRINTF(at, rest)
#endif

#define CHARDEV_VERSION "0.1.0"

/* ====================================================================================================================
 * >>errors   what went wrong, as a value
 * ==================================================================================================================== */

/*      name                     value  text */
#define CHR_ERRORS(X)                                                     \
    X(CHR_OK,                    0,     "no error")                       \
    X(CHR_ERR_WOULD_BLOCK,       -1,    "would block")                    \
    X(CHR_ERR_DISCONNECTED,      -2,    "nobody is at the far side")      \
    X(CHR_ERR_INVALID,           -3,    "invalid argument")               \
    X(CHR_ERR_NO_MEMORY,         -4,    "out of memory")                  \
    X(CHR_ERR_IO,                -5,    "input/output error")             \
    X(CHR_ERR_NOT_FOUND,         -6,    "not found")                      \
    X(CHR_ERR_EXISTS,            -7,    "exists already")                 \
    X(CHR_ERR_BUSY,              -8,    "busy")                           \
    X(CHR_ERR_NOT_SUPPORTED,     -9,    "not supported")                  \
    X(CHR_ERR_TIMEOUT,           -10,   "timed out")                      \
    X(CHR_ERR_IN_HANDLER,        -11,   "would block inside a handler")   \
    X(CHR_ERR_PERMISSION,        -12,   "permission denied")              \
    X(CHR_ERR_HELP,              -13,   "help was asked for")             \
    X(CHR_ERR_NO_SPACE,          -14,   "no space left on device")        \
    X(CHR_ERR_STOPPED,           -15,   "the loop was stopped")

typedef enum chr_error_code {
#define CHR_ERROR_ENUM(name, value, text) name = value,
    CHR_ERRORS(CHR_ERROR_ENUM)
#undef CHR_ERROR_ENUM
    CHR_ERR_FORCE_INT = 0x7fffffff
} chr_error_code;

/* Lives on your stack; a failing call fills it. `text` is one line without a newline; over-long ones are cut. */
typedef struct chr_error {
    int  code; /* CHR_ERR_... */
    char text[1024];
} chr_error;

/* The text of a code, for calls that have no chr_error. Never NULL. */
CHARDEV_API const char *chr_error_text(int code);

/* ====================================================================================================================
 * >>config   the context and its hooks
 * ==================================================================================================================== */

typedef struct chr_context  chr_context;
typedef struct chr_dev      chr_dev;
typedef struct chr_frontend chr_frontend;
typedef struct chr_backend  chr_backend;
typedef struct chr_watch    chr_watch;
typedef struct chr_timer    chr_timer;
typedef struct chr_idle     chr_idle;

/* Zero-initialise it and set what you need; `opaque` comes back as the first argument of each hook. */
typedef struct chr_config {
    void *opaque;
    void *(*allocate)(void *opaque, void *ptr, size_t size); /* like realloc(); size 0 frees. Default: realloc and free */
    void  (*log)(void *opaque, const char *line);            /* what no caller can be told, e.g. a failed reconnect;
                                                                it may call what a handler may */
    int64_t (*clock)(void *opaque);                          /* monotonic nanoseconds, for timers; what blocks counts in
                                                                real time. Default: the system's */
    int64_t (*wall_clock)(void *opaque);                     /* nanoseconds since 1970 UTC, for log files and mux stamps */
    void  (*exit)(void *opaque, int code);                   /* mux escape x, testdev q. Default: chr_loop_stop() */
    void  (*snapshot)(void *opaque);                         /* mux escape s. Default: nothing */
    void  (*watch_changed)(void *opaque, chr_watch *watch, int fd, int events); /* foreign loop: see >>loop */
    void  (*timeout_changed)(void *opaque);                  /* foreign loop: ask chr_loop_timeout() again */
    int   mux_escape;                                        /* the mux escape character; 0 = 1 (Ctrl-A) */
    int   virtual_clock;                                     /* 1 = the clock is virtual: it begins at 0, stands still, and
                                                                only chr_loop_run_until() moves it; `clock` is not
                                                                asked. Without `wall_clock` that is 1970 and this time */
} chr_config;

/* A new context: loop, registry, named descriptors. `config` is copied; NULL means the defaults. NULL when out of memory
 * or descriptors, or when the freestanding profile lacks its `allocate` hook. You own it. */
CHARDEV_API chr_context *chr_context_new(const chr_config *config);

/* Closes everything in it. What waits for the loop is delivered first; then each frontend that was told OPENED gets
 * CLOSED, once, and is left without chardev. No chardev can be made or changed meanwhile (CHR_ERR_BUSY). NULL is allowed. Not
 * from inside a handler: there it does nothing but log a line. It blocks while sockets have output to send still, up
 * to two seconds in which nothing moves, ten at most: chr_drain() before it waits as long as you like. The time that
 * output has waited in vain before counts (half a second is left then). No other thread may be in a call or make one
 * after it. */
CHARDEV_API void chr_context_free(chr_context *ctx);

/* As new, without the cost of a new one: what chr_context_free() does, but the context stays, with its configuration and
 * the memory of its loop. Chardevs, registered backends, TLS objects and named descriptors are gone; watches, timers and
 * idles are stopped, a virtual clock is 0 again, a stop that was asked for is forgotten. For fuzzers and tests that begin
 * anew thousands of times a second. Returns 0, or CHR_ERR_IN_HANDLER from inside a handler. Owner thread; blocks as
 * chr_context_free() does. */
CHARDEV_API int chr_context_reset(chr_context *ctx);

/* ====================================================================================================================
 * >>loop   descriptors, timers, idle callbacks: a whole VM can live on this loop
 * ====================================================================================================================
 * Three ways to use it. Run it: chr_loop_run(). Step it from your own: chr_loop_step(ctx, 0). Or hand it to another
 * loop: either take its descriptors before each poll (chr_loop_prepare) and hand back what is ready
 * (chr_loop_dispatch), or set the hooks watch_changed and timeout_changed, call chr_watch_ready() when a descriptor is
 * ready, and chr_loop_dispatch(ctx, NULL, 0) when chr_loop_timeout() is over. That loop may be level-triggered (poll,
 * epoll, GLib) or edge-triggered (EPOLLET): what is ready still when chr_watch_ready() returns comes again with the
 * next dispatch, and the time-out is 0 until then. While a frontend has no room the time-out is 100 ms at most, so that
 * it is asked again. On the freestanding profile there are no descriptors: step it from your main loop.
 */

/* Dispatches once: waits up to timeout_ms milliseconds (0 = not at all, -1 = without limit) for something to happen.
 * Returns how many callbacks ran, or an error: CHR_ERR_STOPPED after chr_loop_stop(), CHR_ERR_IN_HANDLER from inside a
 * handler, and what poll() may fail with. Owner thread. */
CHARDEV_API int chr_loop_step(chr_context *ctx, int timeout_ms);
/* For a CPU loop, which calls it often: the same as chr_loop_step(ctx, 0), but only when the last step was `ns`
 * nanoseconds of real time ago (0 or less: always), or at once when something was posted: chr_idle_start(),
 * chr_loop_wake(), chr_loop_stop(), chr_fe_accept_input(), from any thread. Otherwise it returns 0 and takes a few
 * nanoseconds: it looks at the clock in one of up to 64 calls, as often as the calls' own pace demands. Call it after
 * each basic block or every 100 to 1000 guest instructions, with 100000 (0.1 ms: half a percent of the time goes into
 * steps). Timers and descriptors are at most so late. Owner thread. */
CHARDEV_API int chr_loop_step_every(chr_context *ctx, int64_t ns);
/* Steps until chr_loop_stop() is called (also from a handler, before or during it). Returns 0 or a negative error;
 * CHR_ERR_IN_HANDLER from inside a handler, where a stop that was asked for stays asked for. */
CHARDEV_API int chr_loop_run(chr_context *ctx);
/* Runs all that happens until the clock shows `until` (nanoseconds, as chr_loop_now()). With chr_config.virtual_clock
 * nothing is waited for: at each moment all that is ready is dispatched, what comes of it too, then time jumps to the
 * next deadline, and to `until` at last; a time that has passed dispatches what is ready now. A callback that keeps itself
 * ready stops time for 1000 rounds at most. With the system's clock it sleeps in between. Returns how many callbacks ran,
 * or what chr_loop_step() may fail with; CHR_ERR_NOT_SUPPORTED with a `clock` hook: only you can move that. */
CHARDEV_API int chr_loop_run_until(chr_context *ctx, int64_t until);
/* Ends the loop, whoever runs it: one call of chr_loop_run() returns, or one of chr_loop_step(),
 * chr_loop_step_every() and chr_loop_dispatch() returns CHR_ERR_STOPPED. The one that is under way does so behind its
 * callbacks; without one it is the next, which dispatches nothing. Several stops before that are one; what is called
 * afterwards goes on. chr_drain() leaves the stop to what follows. From any thread and from signal handlers. */
CHARDEV_API void chr_loop_stop(chr_context *ctx);
/* Makes a sleeping loop return from its wait. From any thread and from signal handlers. */
CHARDEV_API void chr_loop_wake(chr_context *ctx);
/* With CHARDEV_THREADS: keeps other threads out between these two, for several calls that belong together or for
 * data of your own that their handlers touch; they nest. Nothing that blocks may be called between them. In handlers
 * they are not needed: the loop has the lock. Without CHARDEV_THREADS they do nothing. Any thread. */
CHARDEV_API void chr_loop_lock(chr_context *ctx);
CHARDEV_API void chr_loop_unlock(chr_context *ctx);

typedef struct chr_poll {
    int        fd;
    int        events; /* CHR_IN | CHR_OUT | CHR_HUP: out of prepare, what is wanted; into dispatch, what is ready */
    chr_watch *watch;  /* not yours */
} chr_poll;

/* Fills up to `capacity` entries and *timeout_ms (how long poll may sleep, -1 = without limit). Returns the number of
 * descriptors that are watched: when it is more than `capacity`, call again with room for all. Always dispatch after it, be it
 * with a count of 0. */
CHARDEV_API int chr_loop_prepare(chr_context *ctx, chr_poll *polls, int capacity, int *timeout_ms);
/* Runs what is ready among `count` entries of the last prepare, then due timers and idle callbacks. Returns how many ran,
 * or CHR_ERR_STOPPED after chr_loop_stop(), or CHR_ERR_IN_HANDLER. Owner thread. */
CHARDEV_API int chr_loop_dispatch(chr_context *ctx, const chr_poll *polls, int count);
/* Milliseconds until chr_loop_dispatch() has something to do without any descriptor; 0 = now, -1 = never. */
CHARDEV_API int chr_loop_timeout(chr_context *ctx);
/* Nanoseconds on the context's monotonic clock. */
CHARDEV_API int64_t chr_loop_now(chr_context *ctx);
/* When, on that clock, the nearest timer is due; INT64_MAX = there is none. For whoever drives the clock: what time to jump to. */
CHARDEV_API int64_t chr_loop_deadline(chr_context *ctx);

enum { CHR_IN = 1, CHR_OUT = 2, CHR_HUP = 4 }; /* HUP alone: only hang-up and errors; 0: nothing at all, not even those.
                                                  A foreign loop ignores bits that are not named here */

/* The three things a loop holds. Zero-initialise and embed them in your own structs; the loop allocates nothing for
 * them. Stopping is harmless when not started, and after it the callback does not come any more. Owner thread; idles
 * from any. */
struct chr_watch {
    chr_context *ctx;
    void       (*ready)(void *opaque, int events); /* which of CHR_IN, CHR_OUT, CHR_HUP */
    void        *opaque;
    int          fd;
    int          events;
    int          slot; /* in the poll array, plus one; 0 = stopped */
};
struct chr_timer {
    chr_context *ctx;      /* NULL = stopped */
    void       (*expired)(void *opaque);
    void        *opaque;
    int64_t      deadline; /* nanoseconds */
    uint64_t     order;    /* of equal deadlines the one that was started first comes first */
    chr_timer   *child, *next, **link; /* in the heap */
};
struct chr_idle {
    chr_context *ctx;
    void       (*run)(void *opaque);
    void        *opaque;
    chr_idle    *next, *prev;
};

/* Watches fd, which stays yours. Starting a started watch moves it. Errors: CHR_ERR_NO_MEMORY. */
CHARDEV_API int  chr_watch_start(chr_context *ctx, chr_watch *watch, int fd, int events, void (*ready)(void *, int), void *opaque);
CHARDEV_API void chr_watch_set(chr_watch *watch, int events); /* no allocation, no system call */
CHARDEV_API void chr_watch_stop(chr_watch *watch);
CHARDEV_API void chr_watch_ready(chr_watch *watch, int events); /* from a foreign loop with hooks: runs the callback */

/* Calls `expired` once, delay_ms milliseconds from now (less than 0 is 0); of equal times the one that was started first
 * comes first. Starting a started timer moves it. A start costs a constant time, a stop O(log n) on average. */
CHARDEV_API void chr_timer_start(chr_context *ctx, chr_timer *timer, int64_t delay_ms, void (*expired)(void *), void *opaque);
CHARDEV_API void chr_timer_stop(chr_timer *timer);

/* Calls `run` once, from the loop, at the end of this step or of the next. A started one stays as it is. Any thread. */
CHARDEV_API void chr_idle_start(chr_context *ctx, chr_idle *idle, void (*run)(void *), void *opaque);
CHARDEV_API void chr_idle_stop(chr_idle *idle);

/* ====================================================================================================================
 * >>options   one table per backend: the parser, the help text and the typed struct all come from it
 * ====================================================================================================================
 * Text: "BACKEND,key=value,key=value". ",," in a value is a comma. A bare word means word=on, "noword" word=off. The last
 * of two equal keys wins. bool: on off yes no true false y n. number: decimal or 0x hex. size: with K M G T.
 */

typedef enum chr_option_type {
    CHR_OPTION_BOOL,   /* chr_bool */
    CHR_OPTION_NUMBER, /* int64_t, from min to max */
    CHR_OPTION_SIZE,   /* int64_t in bytes, from min to max */
    CHR_OPTION_TEXT,   /* const char *; NULL = not given */
    CHR_OPTION_FD,     /* int: an inherited descriptor's number, or for a monitor's peer a name; -1 = not given in the text */
    CHR_OPTION_LIST    /* const char *const *, ends with NULL: NAME.0=text,NAME.1=text...; one alone: NAME=text */
} chr_option_type;

typedef enum chr_bool { CHR_DEFAULT, CHR_ON, CHR_OFF } chr_bool; /* zero means the default, as everywhere in option structs */

/* One row; a table ends with a row of zeros. */
typedef struct chr_option {
    const char     *name;
    chr_option_type type;
    size_t          offset;       /* of the member, in the options struct */
    const char     *default_text; /* what zero means, NULL = nothing; CHR_REQUIRED = must be given */
    int64_t         min, max;     /* of numbers and sizes */
    const char     *help;         /* one line */
} chr_option;

#define CHR_REQUIRED "(required)"

/* Every options struct begins with these. */
typedef struct chr_common_options {
    const char *logfile;      /* what the guest wrote and the backend took goes there too, always at its end; created
                                 0666&umask, emptied. When it can't be written (a full disk, a FIFO that is full or not
                                 read) it ends, with one line to `log` */
    chr_bool    logappend;    /* default off */
    chr_bool    logtimestamp; /* UTC time before each line; default off */
    chr_bool    mux;          /* make ID-base, and a mux named ID on it; default off */
    int64_t     history;      /* bytes: the last ones written, also while nobody was there, are sent to each new peer first */
    int64_t     obuf;         /* bytes: output that would block waits here and drains from the loop; when it is full,
                                 obuf_full says what happens */
    int64_t     logsize;      /* bytes: a log file that would be larger becomes PATH.1, that PATH.2, ...; 0 = never */
    int64_t     logfiles;     /* with logsize: how many there are at most, PATH included, from 1 to 1000; 0 = 5 */
    const char *obuf_full;    /* when a write finds no room in obuf: "wait" (the frontend does, CHR_ERR_WOULD_BLOCK;
                                 NULL is the same), "drop-oldest" (what has waited longest is lost, and a write takes
                                 all), or "disconnect" (the peer, from the loop; what waits for it and the write are
                                 lost). What is lost is counted in bytes_dropped, and kept by history */
} chr_common_options;

/* A key=value list while it is being read; backends meet it only in their `uri` slot. */
typedef struct chr_options chr_options;

/* Adds a key for the URI that is being read; `len` bytes of `value` (or all, with (size_t)-1). CHR_ERR_NO_MEMORY. */
CHARDEV_API int chr_options_add(chr_options *options, const char *key, const char *value, size_t len);

/* On whose behalf a chardev is made: fd= is a number for a local user, a name (see >>descriptors) for a monitor's peer. */
typedef enum chr_origin { CHR_LOCAL, CHR_REMOTE } chr_origin;

/* Calls `print` with each line of help, without a newline: all backends (NULL, "help", "?") or the options of one, or of an
 * object that chr_tls_creds_add() and chr_authz_add() make. `text` is its name or all of a text that got CHR_ERR_HELP
 * ("socket,help", "tcp::4444,help"). Returns 0, CHR_ERR_NOT_FOUND for an unknown one, CHR_ERR_NO_MEMORY. */
CHARDEV_API int chr_help(chr_context *ctx, const char *text, void (*print)(void *opaque, const char *line), void *opaque);

/* ====================================================================================================================
 * >>chardev   made, found, changed, removed
 * ==================================================================================================================== */

/* Events, to handlers.event. A test may send any other int through chr_be_event(). */
enum {
    CHR_EVENT_BREAK, CHR_EVENT_OPENED, CHR_EVENT_MUX_IN, CHR_EVENT_MUX_OUT, CHR_EVENT_CLOSED,
    CHR_EVENT_RESIZED, /* the terminal at the far side has another size: CHR_IOCTL_GET_TERMINAL_SIZE */
    CHR_EVENT_SERIAL,  /* the far side has changed the serial line: CHR_IOCTL_SERIAL_GET_PARAMS, _GET_FLOW,
                          _GET_TIOCM */
    CHR_EVENT_LINE_ERROR,     /* the line has damaged what comes next: CHR_IOCTL_SERIAL_GET_ERRORS */
    CHR_EVENT_PURGE_RECEIVE,  /* a com-port client drops what the line has received and not yet delivered to it:
                                 CHR_IOCTL_SERIAL_PURGE */
    CHR_EVENT_PURGE_TRANSMIT, /* it drops what it has sent and the line has not yet transmitted */
    CHR_EVENT_INPUT_END       /* half-close=on: no more input comes, output goes on; between OPENED and CLOSED */
};

/* Makes a chardev from options in text ("socket,id=mon,fd=3,server=on,wait=off"). Its context owns it. NULL and err: any
 * CHR_ERR_..., nothing is left behind and descriptors named in it are still yours; CHR_ERR_HELP when the text asks for help
 * (then call chr_help()). wait=on blocks until a peer has come, a TCP client without reconnect until it is connected: from
 * inside a handler the first is an error and the second goes on in the background. */
CHARDEV_API chr_dev *chr_new(chr_context *ctx, const char *options, chr_error *err);
CHARDEV_API chr_dev *chr_new_from(chr_context *ctx, chr_origin origin, const char *options, chr_error *err);
/* The same from a URI ("tcp::4444,server=on", "mon:stdio"; all stand at chr_new_any()). Its id is `id`. */
CHARDEV_API chr_dev *chr_new_uri(chr_context *ctx, const char *id, const char *uri, chr_error *err);
/* The same from whatever a local user writes after -serial or -chardev: a URI or options. `id` is the chardev's unless
 * the text has an id= of its own (chr_find() with yours finds nothing then); NULL = the text must have one.
 *
 *     NAME  NAME,OPTIONS           options: stdio   stdio,signal=off   pty,path=/tmp/tty   socket,fd=3,server=on
 *     none                         the same as null: the guest has its device, and nobody is at the far side
 *     pty:PATH  file:PATH          all behind the colon is the path, commas too; with options: pty,path=PATH,OPTIONS
 *     pipe:PATH
 *     /dev/NAME                    serial; /dev/parport... and /dev/ppi... are parallel. Likewise without options
 *     unix:PATH[,OPTIONS]          socket; a comma in the path is doubled
 *     tcp:[HOST]:PORT[,OPTIONS]    socket; an IPv6 HOST stands in brackets; also telnet: tn3270: websocket:
 *     udp:[HOST]:PORT[@[LOCALADDR]:LOCALPORT][,OPTIONS]
 *     mon:...                      any of the above with mux=on, and with signal=off where there is such an option and
 *                                  the text doesn't say otherwise
 *     chardev:ID                   the chardev that exists; nothing is made
 *     help  NAME,help              CHR_ERR_HELP: print chr_help() of the same text, and end with success
 *
 * It is a URI when it begins with '/' or a ':' stands before the first ',' and '='; else options. No descriptors in URIs:
 * tcp:...,fd=3 is CHR_ERR_INVALID. COM1 and other paths than those of /dev have no meaning: CHR_ERR_NOT_FOUND.
 *
 *     chr_dev *dev = chr_new_any(ctx, "serial0", text, &err);
 *     if (!dev && err.code == CHR_ERR_HELP) exit(chr_help(ctx, text, print_line, NULL) != 0);
 *     if (!dev) ... "-serial TEXT: err.text" */
CHARDEV_API chr_dev *chr_new_any(chr_context *ctx, const char *id, const char *text, chr_error *err);
/* The same from a kind (chr_backend_find()) and its options struct (>>structs; NULL = all defaults). Strings are copied. */
CHARDEV_API chr_dev *chr_open(chr_context *ctx, const char *id, const chr_backend *kind, const void *options, chr_error *err);

/* The chardev with that id, or NULL. In constant time, as creation and removal, however many there are. */
CHARDEV_API chr_dev *chr_find(chr_context *ctx, const char *id);
/* Walks all in the order of creation: NULL gives the first; NULL comes after the last. */
CHARDEV_API chr_dev *chr_next(chr_context *ctx, const chr_dev *dev);
/* Closes and frees a chardev; one made with mux=on takes its ID-base with it. What a socket has taken is still sent,
 * in the background (lingering close). Pointers to it are invalid afterwards (inside a handler of its own: when that
 * has returned). CHR_ERR_NOT_FOUND; CHR_ERR_BUSY while a frontend is attached, which an ID-base always has. */
CHARDEV_API int chr_remove(chr_context *ctx, const char *id, chr_error *err);
/* Hot swap: another backend under a living frontend, which must have a `change` handler and may refuse. `options` as
 * in chr_new(), an id in them is ignored. The new chr_dev has the id: pointers to the old one are invalid
 * afterwards, use chr_find(). The frontend is told CLOSED before if the old one was open and the new one is not,
 * OPENED after it if only the new one is. A frontend that refuses after CLOSED gets OPENED again. After an error the
 * old one works as before (without frontend: it is gone, since it lets go of its address first) and descriptors are
 * still yours, as they were. CHR_ERR_NOT_FOUND; CHR_ERR_NOT_SUPPORTED (no `change` handler; from or to a mux or hub,
 * or with mux=on); CHR_ERR_BUSY (refused, or being changed already); and what chr_new() may return. */
CHARDEV_API int chr_change(chr_context *ctx, const char *id, const char *options, chr_error *err);
CHARDEV_API int chr_change_from(chr_context *ctx, chr_origin origin, const char *id, const char *options, chr_error *err);
/* Delivers BREAK to the frontend, as if it came from the far side. */
CHARDEV_API int chr_send_break(chr_context *ctx, const char *id, chr_error *err);
/* Input as if it came from the far side, on any backend, open or not: for tests, fuzzers and macros. It comes in above
 * the layers (telnet, websocket, TLS see nothing of it) and what the backend itself has read; on a mux it is what its
 * chardev would get, so that the escape character counts. The frontend is asked for room, and its `read` called, before
 * it returns. Returns the bytes taken: fewer than len where the frontend has less room; CHR_ERR_WOULD_BLOCK when it has
 * none, or nobody reads (try again when the frontend has called chr_fe_accept_input()), and from inside a backend's slot;
 * CHR_ERR_NOT_SUPPORTED on a foreign backend with several frontends. It is not recorded: what plays a recording injects
 * it again. Owner thread, any handler. */
CHARDEV_API int chr_inject(chr_dev *dev, const void *data, size_t len);
/* Gives a connected socket to a server chardev as its peer. From success on it owns fd. CHR_ERR_BUSY while one is connected. */
CHARDEV_API int chr_add_client(chr_context *ctx, const char *id, int fd, chr_error *err);
/* Blocks until connected or failed; with reconnect, through retries. CHR_ERR_IN_HANDLER from inside a handler. */
CHARDEV_API int chr_wait_connected(chr_dev *dev, chr_error *err);

/* Opens all log files (logfile=) anew by their paths and adds to them: after logrotate has moved them away. One
 * that can't be opened is told to the `log` hook, and the old file goes on; a log that was switched off because it
 * could not be written goes on in the new file. Relative paths are those from the creation. Returns 0, or the first
 * error. The owner thread, any handler. */
CHARDEV_API int chr_log_reopen(chr_context *ctx);

typedef struct chr_info {
    const char *id, *backend;  /* live as long as the chardev */
    char        filename[512]; /* where the far side is: "unix:/tmp/s,server=on", "disconnected:tcp:...",
                                  "pty:/dev/pts/3"; a connected TCP socket: "tcp:OWN:PORT,server=on <-> PEER:PORT";
                                  what came as fd= shows what it is */
    char        address[512];  /* of a socket: where a server listens (port 0 resolved), whom a client is connected
                                  to; of udp its own. HOST:PORT in numbers, IPv6 in brackets; CID:PORT; a path,
                                  "@NAME" if it is abstract. Else empty */
    char        peer[512];     /* the same of the peer that is connected, or of udp's; empty when it has no name
                                  (most unix clients) */
    int         frontend_open, be_open;
    int         comes_back;    /* when closed, it may open again by itself: a server, a pty, a client with reconnect */
    uint64_t    bytes_in, bytes_out, bytes_dropped; /* from the far side; taken for it; lost */
    uint64_t    bytes_queued;  /* those that wait here still, in history=, obuf= or a layer (there as they are
                                  encoded) */
    int         clients;       /* of a socket with server=on: how many peers are connected, and */
    char        client_addresses[1024]; /* where they are, a blank between ("unix" where they have no name); cut
                                           where it is full */
} chr_info;

CHARDEV_API void chr_query(const chr_dev *dev, chr_info *info);
/* Drains before the end: runs the loop (handlers are called as ever) until no chardev of the context holds output
 * any more, in obuf=, history= or a layer (telnet, websocket, TLS). timeout_ms: how long to go on without any byte
 * leaving, -1 = without limit; a reader that is slow but reads on is waited for. What the kernel holds is not
 * counted. Returns 0, CHR_ERR_TIMEOUT (the rest is still queued), CHR_ERR_IN_HANDLER from inside a handler, or what
 * chr_loop_step() may fail with. Owner thread. */
CHARDEV_API int chr_drain(chr_context *ctx, int timeout_ms);

/* ====================================================================================================================
 * >>frontend   your end
 * ==================================================================================================================== */

/* Any may be NULL. Without `read` nothing is read (back-pressure); without `can_read` there is always room. */
typedef struct chr_handlers {
    int  (*can_read)(void *opaque);                         /* how many bytes you take now; when it becomes > 0 again, */
    void (*read)(void *opaque, const void *buf, size_t len); /* say chr_fe_accept_input(); read gets never more than that */
    void (*event)(void *opaque, int event);                 /* CHR_EVENT_...; seen from one set of handlers OPENED
                                                               and CLOSED strictly alternate, OPENED first */
    int  (*change)(void *opaque);                           /* another backend is behind you now; < 0 refuses it */
} chr_handlers;

/* Embed it in your device; zero-initialise it. You own the memory; it may go as soon as chr_fe_deinit() has returned. */
struct chr_frontend {
    chr_context *ctx;                  /* of its chardev; stays when that is swapped or removed */
    chr_dev     *dev;
    chr_frontend *attached;            /* itself, while it is attached to a chardev */
    chr_handlers handlers;
    void        *opaque;
    int          is_open;              /* fe_open: this side is there */
    int          told_open;            /* the last event it got was OPENED */
    void       (*writable)(void *opaque); /* chr_fe_add_watch() */
    void        *writable_opaque;
    void        *slot;                 /* the backend's, where it has many frontends */
};

/* Attaches to a chardev (or to none, with NULL: then writes return CHR_ERR_DISCONNECTED). CHR_ERR_BUSY if the
 * chardev is taken, or if the frontend is attached already, which it then stays. */
CHARDEV_API int chr_fe_init(chr_frontend *fe, chr_dev *dev, chr_error *err);
/* Detaches; no handler comes after it. */
CHARDEV_API void chr_fe_deinit(chr_frontend *fe);
/* Sets (copies) the handlers; NULL, or none in it, takes them away and closes this side. On an open chardev OPENED comes at once. On a mux
 * it also takes the focus. */
CHARDEV_API void chr_fe_set_handlers(chr_frontend *fe, const chr_handlers *handlers, void *opaque);
/* "I have room again": the loop asks can_read before it sleeps next; a sleeping one wakes up. Any thread. */
CHARDEV_API void chr_fe_accept_input(chr_frontend *fe);

/* One attempt. Returns the bytes taken, or CHR_ERR_WOULD_BLOCK (none taken: see chr_fe_add_watch), CHR_ERR_DISCONNECTED
 * (nobody there: dropped), CHR_ERR_NO_SPACE (a file), CHR_ERR_IO. Any thread. */
CHARDEV_API int chr_fe_write(chr_frontend *fe, const void *buf, size_t len);
/* Waits until all is taken, at most timeout_ms milliseconds of real time (-1 = without limit). Returns the bytes taken: len, or fewer
 * when the time ran out or the far side went after some; else the error. CHR_ERR_IN_HANDLER from inside a handler. */
CHARDEV_API int chr_fe_write_all(chr_frontend *fe, const void *buf, size_t len, int timeout_ms);
/* Waits for exactly len bytes, past the handlers. Returns as chr_fe_write_all() does. CHR_ERR_NOT_SUPPORTED where the
 * backend has no input of its own. */
CHARDEV_API int chr_fe_read_all(chr_frontend *fe, void *buf, size_t len, int timeout_ms);
/* printf() into chr_fe_write(). */
CHARDEV_API int chr_fe_printf(chr_frontend *fe, const char *format, ...) CHR_PRINTF(2, 3);
/* Calls `writable` once, from the loop, when more output can be taken or the far side is gone. One per frontend: the last
 * wins; NULL takes it away. Any thread. Without chardev nothing happens. */
CHARDEV_API void chr_fe_add_watch(chr_frontend *fe, void (*writable)(void *opaque), void *opaque);

/* Commands to the device at the far side. CHR_ERR_NOT_SUPPORTED where it has no such thing. */
enum {
    CHR_IOCTL_SET_ECHO = 1,         /* int *: 1 = the terminal echoes */
    CHR_IOCTL_SERIAL_SET_PARAMS,    /* chr_serial_params *: speed and format of the line; CHR_ERR_INVALID: GET_PARAMS
                                       says what it has */
    CHR_IOCTL_SERIAL_SET_BREAK,     /* int *: 1 = the line is held in break, 0 = no longer; telnet sends its BREAK for 1 */
    CHR_IOCTL_SERIAL_GET_TIOCM,     /* int *: the modem lines, CHR_TIOCM_... */
    CHR_IOCTL_SERIAL_SET_TIOCM,     /* int *: CHR_TIOCM_DTR and CHR_TIOCM_RTS, the others are ignored (but see below) */
    CHR_IOCTL_SERIAL_GET_PARAMS,    /* chr_serial_params *: those in force */
    CHR_IOCTL_SERIAL_SET_FLOW,      /* int *: CHR_FLOW_...: who stops the senders on the line; CHR_ERR_INVALID as
                                       SET_PARAMS */
    CHR_IOCTL_SERIAL_GET_FLOW,      /* int * */
    CHR_IOCTL_PP_READ_DATA = 10,    /* unsigned char *: the data register of a parallel port */
    CHR_IOCTL_PP_WRITE_DATA,        /* unsigned char * */
    CHR_IOCTL_PP_READ_CONTROL,      /* unsigned char *: bits 6 and 7 are set */
    CHR_IOCTL_PP_WRITE_CONTROL,     /* unsigned char * */
    CHR_IOCTL_PP_READ_STATUS,       /* unsigned char * */
    CHR_IOCTL_PP_DATA_DIR,          /* int *: 1 = the data lines are inputs */
    CHR_IOCTL_PP_EPP_READ_ADDRESS,  /* chr_parallel_epp *: one or more cycles in EPP mode; CHR_ERR_IO unless all were made */
    CHR_IOCTL_PP_EPP_READ,          /* chr_parallel_epp * */
    CHR_IOCTL_PP_EPP_WRITE_ADDRESS, /* chr_parallel_epp * */
    CHR_IOCTL_PP_EPP_WRITE,         /* chr_parallel_epp * */
    CHR_IOCTL_SERIAL_PURGE,         /* int *: CHR_PURGE_...: what the line holds is dropped, with what obuf= holds;
                                       CHR_ERR_INVALID */
    CHR_IOCTL_SERIAL_GET_ERRORS,    /* int *: CHR_LINE_...: those since it was asked last */
    CHR_IOCTL_SERIAL_SET_ERRORS,    /* int *: a com-port server's client is told of them, as far as its mask says */
    CHR_IOCTL_GET_TERMINAL_SIZE = 40, /* chr_terminal_size *: of stdio's, or as a telnet peer has told it;
                                         NOT_SUPPORTED until it has */
    CHR_IOCTL_SET_TERMINAL_SIZE     /* chr_terminal_size *, 0 to 65535: of a pty; a telnet client tells each server */
};

/* A serial line over the network (socket with com-port=on, RFC 2217). A client drives the line at its server: what
 * it sets counts from then on, is sent to each new server, and is corrected by CHR_EVENT_SERIAL where the server has
 * something else in force. The modem lines are as the server told them last. A server is that line: what its client
 * sets is in force at once, and told by CHR_EVENT_SERIAL; a frontend that can't have it says what it has, by
 * SET_PARAMS or SET_FLOW from inside the handler, and that is what the client is answered. Between the two lies a
 * null modem: a client's DTR is CHR_TIOCM_DSR and CAR here, its RTS is CTS, and SET_TIOCM the other way round; a
 * frontend with CTS, CAR, RI or DSR to tell sets just those. Break is CHR_EVENT_BREAK and SET_BREAK. A server's
 * frontend that holds bytes of its own drops them at CHR_EVENT_PURGE_RECEIVE (on their way to the client) and
 * PURGE_TRANSMIT (from it), and tells by SET_ERRORS of bytes that came to it damaged; a client has
 * CHR_EVENT_LINE_ERROR and GET_ERRORS for that. A peer that knows nothing of this leaves a plain telnet line: then
 * CHR_ERR_NOT_SUPPORTED. */

/* A line that is unplugged or not connected at the moment takes these when it comes back (serial with reconnect-ms, com-port). */
typedef struct chr_serial_params {
    int speed;     /* bits a second, 50 to 4000000; where the system knows only standard ones, the next within 10 % */
    int parity;    /* 'N', 'E', 'O', or 'M' and 'S' for mark and space */
    int data_bits; /* 5 to 8 */
    int stop_bits; /* 1, 2 or CHR_STOP_BITS_1_5 */
} chr_serial_params;

enum { CHR_STOP_BITS_1_5 = 15 }; /* one and a half: on a serial device with 5 data bits only */

enum {
    CHR_TIOCM_DTR = 0x002, CHR_TIOCM_RTS = 0x004,                                               /* ours */
    CHR_TIOCM_CTS = 0x020, CHR_TIOCM_CAR = 0x040, CHR_TIOCM_RI = 0x080, CHR_TIOCM_DSR = 0x100 /* the far side's */
};

enum { CHR_FLOW_NONE, CHR_FLOW_XONXOFF, CHR_FLOW_RTSCTS }; /* both ways */

/* One for what the line sends, another for what it receives. The same for both is that one itself: CHR_FLOW_SPLIT(f,
 * f) reads back as f. */
#define CHR_FLOW_SPLIT(outbound, inbound) ((outbound) | ((inbound) + 1) << 4)

enum { CHR_PURGE_RECEIVE = 1, CHR_PURGE_TRANSMIT = 2 }; /* what has come in and is not yet read; what is written and
                                                           not yet sent */

enum { CHR_LINE_OVERRUN = 0x02, CHR_LINE_PARITY = 0x04, CHR_LINE_FRAMING = 0x08 };

typedef struct chr_parallel_epp {
    void *buf;
    int   count; /* bytes, each one cycle */
} chr_parallel_epp;

typedef struct chr_terminal_size {
    int columns, rows; /* 0 = not known */
} chr_terminal_size;

/* Does one of the commands above. Returns 0 or an error: CHR_ERR_NOT_SUPPORTED, and what the command says. */
CHARDEV_API int chr_fe_ioctl(chr_frontend *fe, int command, void *arg);
/* Descriptors to send with the next write's first byte (SCM_RIGHTS; unix sockets only), at most 16; 0 forgets them. They are
 * duplicated: yours stay yours. CHR_ERR_NOT_SUPPORTED, CHR_ERR_INVALID, CHR_ERR_DISCONNECTED. */
CHARDEV_API int chr_fe_set_msgfds(chr_frontend *fe, const int *fds, int count);
/* Takes over the descriptors that came last: fills up to `count`, returns how many; they are yours, the rest is closed. */
CHARDEV_API int chr_fe_get_msgfds(chr_frontend *fe, int *fds, int count);

CHARDEV_API void chr_fe_set_open(chr_frontend *fe, int is_open);          /* tells the backend whether this side is there */
CHARDEV_API int  chr_fe_set_echo(chr_frontend *fe, int echo);             /* CHR_IOCTL_SET_ECHO */
CHARDEV_API void chr_fe_take_focus(chr_frontend *fe);                     /* on a mux: input comes to this frontend from now on */
CHARDEV_API int  chr_fe_disconnect(chr_frontend *fe);                     /* closes the peer, or all clients; a
                                                                             server listens again. 0,
                                                                             CHR_ERR_NOT_SUPPORTED */
/* Half-close: "I write no more". What was written goes out first (obuf=, layers), then the end of it: FIN on a
 * socket, close_notify in TLS, a Close frame in websocket (its peer answers with its own, which ends both
 * directions); fd, file and pipe close a descriptor that serves output alone. Input goes on. Writes return
 * CHR_ERR_DISCONNECTED from here on, until the next OPENED. On a socket CLOSED comes when the peer ends its side
 * too. Returns 0, also when it was said already or has to wait for what is queued; CHR_ERR_NOT_SUPPORTED (stdio,
 * pty, serial, udp, null and other kinds without an end of output; a mux with several frontends),
 * CHR_ERR_DISCONNECTED (nobody there). A hub passes it to all members. Owner thread; any handler may call it; never
 * blocks. */
CHARDEV_API int  chr_fe_shutdown(chr_frontend *fe);
CHARDEV_API int  chr_fe_wait_connected(chr_frontend *fe, chr_error *err); /* chr_wait_connected() of its chardev */
CHARDEV_API int  chr_fe_backend_open(const chr_frontend *fe);             /* be_open: the far side is there */
/* End of file: 1 when the far side was there and has gone for good (comes_back of chr_info is 0), or has ended its
 * output and does not come back (CHR_EVENT_INPUT_END), and all that it sent has been read; 1 without chardev. 0 as long
 * as more may come, from the next peer of a server too, and always on null. For emulators that end with their input. Any
 * thread. */
CHARDEV_API int  chr_fe_eof(const chr_frontend *fe);

/* ====================================================================================================================
 * >>recipes   a guest's console, to copy: a test compiles and runs both
 * ====================================================================================================================
 * RECIPE getch, for an emulator whose console is kbhit(), getch() and putch(). `text` is what its user writes after
 * -serial. kbhit() is true at the end of the input, as poll() is, and getch() ends the program there, as Ctrl-A x of
 * mon:stdio does; between the peers of a server it waits.
 *
 *     static chr_frontend fe;
 *     void step(int rc) { if (rc < 0) exit(0); } // Ctrl-A x
 *     int kbhit(void) { step(chr_loop_step_every(fe.ctx, 100000)); return chr_fe_readable(&fe) || chr_fe_eof(&fe); }
 *     int getch(void)
 *     {
 *         unsigned char c;
 *         while (chr_fe_read(&fe, &c, 1) < 1) step(chr_fe_eof(&fe) ? -1 : chr_loop_step(fe.ctx, -1));
 *         return c;
 *     }
 *     void putch(char c) { while (chr_fe_write(&fe, &c, 1) == CHR_ERR_WOULD_BLOCK) chr_fe_flush(&fe, -1); }
 *     void console_off(void) { chr_drain(fe.ctx, 2000); chr_context_free(fe.ctx); } // a terminal is put back
 *     void console_on(const char *text)
 *     {
 *         chr_error err = { CHR_ERR_NO_MEMORY, "out of memory" };
 *         chr_fe_init(&fe, chr_new_any(chr_context_new(NULL), "serial0", text, &err), &err);
 *         if (!fe.dev || chr_fe_set_buffers(&fe, 4096, 4096) < 0) fprintf(stderr, "%s\n", err.text), exit(2);
 *         atexit(console_off);
 *     }
 *
 * What putch() gathers leaves when kbhit() or getch() steps the loop. A guest that may compute for long without asking
 * for a key needs step(chr_loop_step_every(fe.ctx, 100000)) in the CPU loop too, every 100 to 1000 instructions; or
 * chr_fe_set_buffers(&fe, 4096, 0), and each putch() is a system call.
 *
 * RECIPE 16550, for registers: RBR and THR, IER, IIR, LCR, LSR and SCR, with the interrupt line. `interrupt` is yours,
 * and so is the loop: chr_loop_step_every() in the CPU loop, chr_loop_step() while the CPU waits for an interrupt.
 *
 *     struct uart { chr_frontend fe; unsigned char reg[8], told; }; // told: IIR has said that THR is empty
 *     void interrupt(struct uart *u, int level);
 *     static void uart_update(void *opaque)
 *     {
 *         struct uart *u = (struct uart *)opaque;
 *         int ready = chr_fe_readable(&u->fe) > 0, room = chr_fe_writable(&u->fe) != 0;
 *         if (!room) chr_fe_add_watch(&u->fe, uart_update, u);
 *         u->reg[5] = (unsigned char)(ready | (room ? 0x60 : 0));                             // LSR
 *         u->reg[2] = ready && u->reg[1] & 1 ? 4 : room && u->reg[1] & 2 && !u->told ? 2 : 1; // IIR by IER
 *         interrupt(u, u->reg[2] != 1);
 *     }
 *     static void uart_event(void *opaque, int event) { (void)event; uart_update(opaque); }
 *     unsigned char uart_load(struct uart *u, unsigned at)
 *     {
 *         unsigned char value = u->reg[at];
 *         if (at == 0 && u->reg[3] < 0x80) chr_fe_read(&u->fe, &value, 1); // RBR, unless LCR selects the divisor
 *         if (at == 2 && value == 2) u->told = 1;
 *         return uart_update(u), value;
 *     }
 *     void uart_store(struct uart *u, unsigned at, unsigned char value)
 *     {
 *         if (at < 2 && u->reg[3] >= 0x80) return; // the divisor
 *         if (at == 0) chr_fe_write(&u->fe, &value, 1); // THR
 *         if (at < 2) u->told = 0;
 *         if (at == 1 || at == 3 || at == 4 || at == 7) u->reg[at] = value;
 *         uart_update(u);
 *     }
 *     int uart_init(struct uart *u, chr_dev *dev, chr_error *err)
 *     {
 *         static const chr_handlers handlers = { NULL, NULL, uart_event, NULL };
 *         u->reg[6] = 0xb0; // MSR: CTS, DSR, DCD
 *         if (chr_fe_init(&u->fe, dev, err) < 0 || chr_fe_set_buffers(&u->fe, 4096, 4096) < 0) return -1;
 *         return chr_fe_set_handlers(&u->fe, &handlers, u), 0;
 *     }
 *
 * A CPU with a thread of its own (CHARDEV_THREADS) takes the lock around both, chr_loop_lock(u->fe.ctx) and
 * chr_loop_unlock(), while the owner of the context is in chr_loop_run(): that keeps its handlers out of the registers.
 * interrupt() is called on either thread then, with the lock. examples/tinyvm/uart16550.c is a whole 16550A: FIFOs,
 * trigger levels, modem lines, break and line errors.
 */

/* ====================================================================================================================
 * >>backend   how to add one, with as much right as the built-in ones
 * ====================================================================================================================
 * Make a state struct that begins with a chr_dev, an options struct that begins with chr_common_options, an option table, and
 * a const chr_backend; register it. The core calls: `open` once (state zeroed, options complete, checked against the table and
 * copied: use dev->options as long as you live); then the slots; `close` once, also after a failed open, to let go of all that
 * open got. The state is freed after that, when the last dispatch that may touch it is over: after chr_be_write() and
 * chr_be_event() look at dev->removed.
 *
 * Slots run quiet, inside of somebody's call: no handler comes from there. `open` and all others may send events and
 * say chr_be_writable(): they come from the loop (of several equal ones one, and of ints that are no CHR_EVENT_... the
 * last). The room that chr_be_can_write() tells there is 0, and the loop asks again with `update`. chr_be_write() is
 * for the loop (watches, timers, idles) alone. Outside of slots and of the loop, in a test, the chr_be_...() calls
 * deliver at once, and what handlers remove meanwhile stays in memory until the next dispatch is over.
 *
 * Descriptors in options (CHR_OPTION_FD) may be given back as long as dev->given is not NULL: leave them open in
 * `close` then. With CHARDEV_THREADS `write`, `read` and `wait_fd` may be called on any thread, with the lock. They
 * start idles and timers, but no watches, and post what else there is to do with an idle. `update` is called on the
 * owner thread, from the loop.
 */

/* How bytes go: the hot part of a backend. */
typedef struct chr_io {
    int  (*write)(chr_dev *dev, const void *buf, size_t len); /* one attempt: bytes taken, or a negative error */
    int  (*read)(chr_dev *dev, void *buf, size_t len);        /* for read_all, one attempt; NULL = not supported */
    void (*update)(chr_dev *dev);                             /* ask can_read and chr_be_wants_writable again; NULL = no input,
                                                                 and always writable */
    int  (*wait_fd)(chr_dev *dev, int *events);               /* what write_all/read_all wait on: in CHR_OUT or CHR_IN, out
                                                                 what to poll for, 0 = try again at once; < 0 or NULL =
                                                                 nothing to wait on */
} chr_io;

/* For backends with connections that come and go, or whose output can end. Any may be NULL: then
 * CHR_ERR_NOT_SUPPORTED. */
typedef struct chr_peer_slots {
    int (*disconnect)(chr_dev *dev);
    int (*wait_connected)(chr_dev *dev, chr_error *err);
    int (*add_client)(chr_dev *dev, int fd, chr_error *err);
    int (*set_msgfds)(chr_dev *dev, const int *fds, int count);
    int (*get_msgfds)(chr_dev *dev, int *fds, int count);
    int (*shutdown)(chr_dev *dev);         /* no more output: 0 = said, and `write` is CHR_ERR_DISCONNECTED from now on;
                                              CHR_ERR_WOULD_BLOCK = call it again when output is possible */
    size_t (*queued)(const chr_dev *dev);  /* bytes that `write` took and that have not left yet; NULL = none */
} chr_peer_slots;

/* For backends that serve several frontends. Without it there is one, and the core does all of this itself. */
typedef struct chr_sharing_slots {
    int  (*attach)(chr_dev *dev, chr_frontend *fe, chr_error *err);
    void (*detach)(chr_dev *dev, chr_frontend *fe);
    void (*focus)(chr_dev *dev, chr_frontend *fe);
    void (*event)(chr_dev *dev, int event);     /* an event on this chardev: pass it on */
    int  (*wants_writable)(const chr_dev *dev); /* whether any frontend waits */
    void (*writable)(chr_dev *dev);             /* tell them: chr_be_tell_writable() */
    int  (*inject)(chr_dev *dev, const void *data, size_t len); /* chr_inject(); NULL = not supported */
} chr_sharing_slots;

/* For emulated mice and tablets: what the user's hand does, as chr_input_...() of >>extras tell it. Any may be NULL. */
typedef struct chr_input_slots {
    int (*rel)(chr_dev *dev, int dx, int dy);
    int (*abs)(chr_dev *dev, int x, int y);
    int (*button)(chr_dev *dev, int button, int down);
    int (*sync)(chr_dev *dev);
} chr_input_slots;

struct chr_backend {
    const char       *name;
    const char       *alias;        /* another name, or NULL */
    const char       *help;         /* one line */
    const chr_option *options;      /* its own rows, or NULL */
    size_t            options_size; /* at least sizeof(chr_common_options) */
    size_t            state_size;   /* at least sizeof(chr_dev) */
    int             (*uri)(const char *uri, chr_options *options); /* 1 = read it, 0 = not mine, CHR_ERR_INVALID,
                                                                      CHR_ERR_NO_MEMORY; NULL: the bare name */
    int             (*open)(chr_dev *dev, chr_error *err);
    void            (*close)(chr_dev *dev);                        /* or NULL */
    const chr_io     *io;
    void            (*describe)(const chr_dev *dev, chr_info *info); /* filename, address, comes_back; NULL: the name */
    int             (*ioctl)(chr_dev *dev, int command, void *arg);  /* or NULL */
    void            (*set_open)(chr_dev *dev, int is_open);        /* the frontend's side came or went; or NULL */
    const chr_peer_slots    *peer;                                 /* or NULL */
    const chr_sharing_slots *sharing;                              /* or NULL */
    int               fixed;                                       /* 1 = it stands on other chardevs: chr_change()
                                                                      neither takes it away nor puts it in, and no
                                                                      mux or hub goes on it */
    const chr_input_slots   *input;                                /* or NULL */
};

/* What a table finds by its key. It is part of what is found. */
typedef struct chr__entry {
    struct chr__entry *next;
    const void        *key;
    size_t             length;
    void              *owner; /* what it is part of */
} chr__entry;

/* What the core keeps of a chardev; a backend's state begins with it. Only backends look inside. */
struct chr_dev {
    chr_context       *ctx;
    const chr_backend *kind;
    const chr_io      *io;
    const void        *options;      /* this chardev's own copy of its options struct */
    char              *id;
    chr_frontend      *frontend;     /* NULL where the backend has many */
    int                frontends;    /* how many are attached */
    int                be_open;      /* set by OPENED, cleared by CLOSED */
    int                removed;      /* closed: only the memory is still there */
    int                holds;        /* connections that linger: the memory stays for them */
    unsigned           pending;      /* events that wait for the loop, one bit each; and whether a recorder listens */
    int                other_event;  /* one of them that is none of CHR_EVENT_... */
    unsigned           room_epoch;   /* counts changes of frontend and handlers, and events: older answers of can_read are void */
    chr_idle           notify;       /* brings them */
    int                closing;      /* by chr_context_free(): it doesn't open any more */
    int                input_over;   /* set by INPUT_END, cleared by OPENED and CLOSED */
    int                was_open;     /* set by OPENED for good */
    int                is_over;      /* closed for good: 1; it comes back: -1; 0 = not asked since the last event */
    int                ending;       /* output ends as soon as what is queued is out */
    int64_t            stalled;      /* since when output has been waiting and none has left; 0 = not known */
    uint64_t           stalled_left; /* how much had left by then */
    chr_dev           *next_starved, **starved; /* its frontend had no room when last asked: it is asked again each
                                                   step */
    uint64_t           bytes_in, bytes_out, bytes_dropped;
    int                extras;       /* writes take the long way: there is a log, an outbox or a recorder, or output
                                        ends */
    struct chr__log   *log;
    struct chr__outbox *outbox;      /* history= and obuf= */
    struct chr__given *given;        /* descriptors in the options, while they are the giver's still: `close` leaves
                                        them open */
    unsigned           record_number; /* what the recorder calls it */
    chr_dev           *companion;    /* made together with it (ID-base of a mux): goes with it */
    chr__entry         by_id;
    chr_dev           *next, **link; /* in the order of creation */
};

/* A kind of your own, beside the built-in ones. `kind` must outlive the context. CHR_ERR_EXISTS, CHR_ERR_NO_MEMORY. */
CHARDEV_API int chr_backend_register(chr_context *ctx, const chr_backend *kind, chr_error *err);
/* By name or alias, or NULL. */
CHARDEV_API const chr_backend *chr_backend_find(chr_context *ctx, const char *name);
/* Walks all: NULL gives the first; NULL comes after the last. */
CHARDEV_API const chr_backend *chr_backend_next(chr_context *ctx, const chr_backend *kind);

CHARDEV_API int  chr_be_can_write(chr_dev *dev);                            /* how many bytes the frontend takes now;
                                                                               events that wait come first */
CHARDEV_API void chr_be_write(chr_dev *dev, const void *buf, size_t len);   /* input for it, at most that many */
CHARDEV_API void chr_be_event(chr_dev *dev, int event);                     /* CHR_EVENT_..., or any other int */
CHARDEV_API int  chr_be_wants_writable(const chr_dev *dev);                 /* whether a frontend waits to write more */
CHARDEV_API void chr_be_writable(chr_dev *dev);                             /* tells it */
CHARDEV_API void chr_be_tell_writable(chr_frontend *fe);                    /* one frontend of many, from sharing.writable */
CHARDEV_API void chr_be_tell_event(chr_frontend *fe, int event);            /* one frontend of many, from sharing.event */

/* ====================================================================================================================
 * >>structs   the options of each built-in backend, for chr_open(); zero = the defaults. See chr_help() for the keys.
 * ==================================================================================================================== */

typedef struct chr_ringbuf_options {
    chr_common_options common;
    int64_t            size; /* bytes, a power of two; default 64K */
} chr_ringbuf_options;

/* A braille display of your own: one row of cells. `size` may be asked at any time; `write` comes from the loop. */
typedef struct chr_braille_display {
    int  (*size)(void *opaque); /* its cells, at most 84 are used; 0 = none: then the guest gets no answers */
    void (*write)(void *opaque, const unsigned char *cells, const char *text, int count, int cursor);
    /* cells[count]: bit n-1 is dot n. text[count]: the same as characters, without a zero. cursor: its cell, from 1; 0 = none */
} chr_braille_display;

typedef struct chr_braille_options {
    chr_common_options         common;
    const char                *host;    /* the BrlAPI server, as [HOST][:NUMBER]; default: the variable BRLAPI_HOST, or ":0" */
    const char                *key;     /* the file that holds its key; default /etc/brlapi.key */
    const chr_braille_display *display; /* your own instead of the server's; it must outlive the chardev */
    void                      *opaque;  /* first argument of its functions */
} chr_braille_options;

typedef struct chr_mux_options {
    chr_common_options common;
    const char        *chardev; /* the id of the chardev to share; required */
    int64_t            escape;  /* the escape character; default: the context's */
} chr_mux_options;

typedef struct chr_hub_options {
    chr_common_options common;
    const char *const *chardevs; /* the ids of its members, then NULL; required */
} chr_hub_options;

typedef struct chr_fd_options { /* from success on the chardev owns the descriptors; O_NONBLOCK of theirs is neither
                                   needed nor changed */
    chr_common_options common;
    int                in;  /* read from here, -1 = no input */
    int                out; /* write to here, may be the same; -1 = no output */
} chr_fd_options;

typedef struct chr_file_options {
    chr_common_options common;
    const char        *path;       /* written; required */
    chr_bool           append;     /* default off: emptied first, then written at our own position */
    const char        *input_path; /* read as input, or NULL */
} chr_file_options;

typedef struct chr_pipe_options {
    chr_common_options common;
    const char        *path; /* PATH.in and PATH.out, or PATH both ways; required */
} chr_pipe_options;

typedef struct chr_pty_options {
    chr_common_options common;
    const char        *path; /* a symlink to the slave is made here, or NULL; a stale one to a pty is replaced */
} chr_pty_options;

/* Descriptors 0 and 1 stay the process's. A standard input that is closed has ended, as /dev/null; to a standard
 * output that is closed writes are CHR_ERR_DISCONNECTED; with both closed the creation is. A terminal is raw while
 * the process is in its foreground; at the end, also after SIGKILL, its settings are put back unless others have set
 * it since. */
typedef struct chr_stdio_options {
    chr_common_options common;
    chr_bool           signal; /* default on: ^C and friends are signals, not input */
} chr_stdio_options;

typedef struct chr_serial_options {
    chr_common_options common;
    const char        *path;         /* a terminal device; required. Another character device (/dev/null) has data,
                                        but no line: its ioctls are CHR_ERR_NOT_SUPPORTED, and at the end of its
                                        input it can still be written */
    int64_t            reconnect_ms; /* an unplugged device is opened again after so many milliseconds; 0 = never */
} chr_serial_options;

typedef struct chr_parallel_options {
    chr_common_options common;
    const char        *path; /* a parallel port; required */
} chr_parallel_options;

typedef struct chr_udp_options {
    chr_common_options common;
    const char        *host, *port;            /* the peer; host NULL: localhost; port is a number or a service, required */
    const char        *localaddr, *localport; /* where we receive, and send from; NULL: any */
    chr_bool           ipv4, ipv6;            /* on = only that family; off = not that one */
} chr_udp_options;

typedef enum chr_address_type { CHR_ADDR_NONE, CHR_ADDR_INET, CHR_ADDR_UNIX, CHR_ADDR_VSOCK, CHR_ADDR_FD } chr_address_type;

typedef struct chr_address {
    chr_address_type type;        /* which of the members below count */
    const char      *host, *port; /* INET: host may be NULL (all interfaces, or localhost); port is a number or a service */
    int64_t          to;          /* INET server: try ports up to this one; 0 = only `port` */
    chr_bool         ipv4, ipv6;  /* INET: on = only that family; off = not that one */
    const char      *path;        /* UNIX */
    chr_bool         abstract;    /* UNIX: in Linux's abstract name space; default off */
    chr_bool         tight;       /* UNIX abstract: the name is not padded with zeros; default on */
    const char      *mode;        /* UNIX server: permissions of the socket file, octal ("0660"); NULL: by umask */
    const char      *group;       /* UNIX server: its group, a name or a number; NULL = the process's */
    int64_t          cid;         /* VSOCK, with port */
    int              fd;          /* FD: open already; listening with server on, else connected */
} chr_address;

typedef struct chr_socket_options {
    chr_common_options common;
    chr_address        address;
    chr_bool           server;       /* default off: client */
    chr_bool           wait;         /* server: block creation until a peer has come; default on */
    chr_bool           nodelay;      /* TCP_NODELAY; default off */
    chr_bool           delay;        /* the old word for its opposite; not both */
    int64_t            reconnect;    /* client: retry after this many seconds; 0 = never */
    int64_t            reconnect_ms; /* the same in milliseconds; not both */
    chr_bool           telnet, tn3270, websocket; /* what is spoken over the connection; default: raw */
    chr_bool           com_port;     /* telnet: with the settings and modem lines of a serial line, RFC 2217; default off */
    const char        *terminal_type; /* telnet client: the terminal's name for its server; NULL: "unknown", tn3270:
                                         "IBM-3278-2-E" */
    chr_bool           websocket_text; /* websocket: text frames are input too; default off: refused */
    const char        *ws_path;      /* websocket server: the paths served, with * and ?; NULL: any. Client: path and
                                        query; NULL: / */
    const char *const *ws_origin;    /* websocket server: web pages of these origins are let in too, with * and ?;
                                        then NULL */
    const char        *ws_page;      /* websocket server: the file that a plain GET / gets; NULL: 426 */
    chr_bool           half_close;   /* the peer's end of input is CHR_EVENT_INPUT_END, output goes on; default off:
                                        CLOSED */
    chr_bool           keep_alive;   /* detects a peer that has vanished: TCP keep-alive, pings on a websocket;
                                        default off */
    int64_t            keep_alive_idle, keep_alive_interval; /* seconds of silence before the first probe, and between
                                        probes; 0 = as the system has it, websocket: 30 and 10 */
    int64_t            keep_alive_count; /* unanswered probes that end the connection; 0 = as the system has it,
                                            websocket: 3 */
    int64_t            idle_timeout; /* seconds: a peer that sends nothing for so long is closed; 0 = never */
    chr_bool           replace;      /* server: a new peer takes the place of the old one; default off: it waits */
    int64_t            clients;      /* server: so many peers at once, at most 64; output goes to all, input comes
                                        from any; default 1 */
    const char        *tls_creds;    /* id of TLS credentials, chr_tls_creds_add(); NULL = no TLS */
    const char        *tls_authz;    /* server: id of the list of peers that are let in, chr_authz_add(); NULL = all */
    const char        *tls_hostname; /* client: whom to expect in the server's certificate; NULL = host */
} chr_socket_options;

typedef struct chr_spicevmc_options {
    chr_common_options common;
    const char        *name; /* the channel's subtype, one that the spice server recognises: vdagent, usbredir...; required */
} chr_spicevmc_options;

typedef struct chr_spiceport_options {
    chr_common_options common;
    const char        *name; /* what clients know the port by: org.example.console; required */
} chr_spiceport_options;

/* ====================================================================================================================
 * >>extras   what only some chardevs can do
 * ==================================================================================================================== */

#ifndef CHARDEV_NO_RINGBUF
typedef enum chr_format { CHR_UTF8, CHR_BASE64 } chr_format; /* BASE64: RFC 4648 section 4 */

/* Appends text to a ring buffer as if the guest had written it; base64 is decoded first. Returns the bytes stored:
 * the last ones, as many as fit, of a longer text; or CHR_ERR_NOT_SUPPORTED (not a ringbuf), CHR_ERR_INVALID (bad
 * base64). */
CHARDEV_API int chr_ringbuf_write(chr_dev *dev, const char *text, size_t len, chr_format format, chr_error *err);
/* Takes up to `size` bytes out, oldest first, as text into out[capacity] (no zero is added). Returns the text's length: it
 * takes no more than fits. utf8: whole sequences only; bytes that are none become U+FFFD. CHR_ERR_NOT_SUPPORTED. */
CHARDEV_API int chr_ringbuf_read(chr_dev *dev, size_t size, chr_format format, char *out, size_t capacity, chr_error *err);
/* How many bytes are in it. */
CHARDEV_API int chr_ringbuf_count(const chr_dev *dev);
#endif

/* TLS for sockets: tls-creds=ID, tls-authz=ID. Without CHARDEV_MBEDTLS the first two are CHR_ERR_NOT_SUPPORTED. Both objects are
 * looked up at each new connection, so that they may be replaced while chardevs live; what is connected goes on with what it has.
 *
 * "tls-creds-x509,id=ID,endpoint=server|client,dir=DIR" takes ca-cert.pem, ca-crl.pem (if there), and server-cert.pem
 * and server-key.pem, or client-... (if there), from DIR; cafile= crlfile= certfile= keyfile= name them one by one. A
 * client always verifies its server and the name it goes by; a server asks for certificates unless verify-peer=off.
 * "tls-creds-psk,id=ID,endpoint=...,keyfile=PATH" (or dir=DIR, for DIR/keys.psk) has keys shared by both sides: lines
 * of NAME:HEX; a client is username=NAME. Both take min-version=1.2|1.3, and priority=SUITE:SUITE...: only these cipher
 * suites, by mbed TLS's names, the best first. Files are read here, once; a file of secret keys that others than its
 * owner may read or write gets one line in the log. The memory inside mbed TLS comes from its own allocator.
 * CHR_ERR_INVALID, CHR_ERR_EXISTS, CHR_ERR_NOT_FOUND, CHR_ERR_NO_MEMORY, CHR_ERR_HELP. */
CHARDEV_API int chr_tls_creds_add(chr_context *ctx, const char *options, chr_error *err);
/* "authz-list,id=ID,match=NAME" lets a peer in by its certificate's distinguished name (RFC 2253, written and
 * escaped exactly as `openssl x509 -noout -subject -nameopt RFC2253` prints it: "CN=fred,,O=Example,,C=DE", a comma
 * is doubled in options), or by its psk name. With format=glob, '*' matches any text and '?' one character; a comma
 * in the pattern never matches one that is escaped in the name. A name that is malformed, or longer than 4095 bytes,
 * matches nothing. The same id again adds to the list. A socket with tls-authz= lets nobody in who is on no list of
 * that id, nobody at all where there is none. */
CHARDEV_API int chr_authz_add(chr_context *ctx, const char *options, chr_error *err);
/* CHR_ERR_NOT_FOUND. */
CHARDEV_API int chr_tls_creds_remove(chr_context *ctx, const char *id, chr_error *err);
CHARDEV_API int chr_authz_remove(chr_context *ctx, const char *id, chr_error *err);

#ifndef CHARDEV_NO_BRAILLE
/* The keys of a braille display of your own: which of one group are down now, 0 = none. The guest learns it from the loop. Returns
 * 0, or CHR_ERR_NOT_SUPPORTED (not a braille), CHR_ERR_INVALID, CHR_ERR_WOULD_BLOCK (the guest does not read: lost, and counted
 * in bytes_dropped). */
typedef enum chr_braille_keys {
    CHR_BRAILLE_TOP_KEYS,    /* CHR_BRAILLE_TL1 | ...: beside the cells, left and right, from the top */
    CHR_BRAILLE_ROUTING_KEY, /* the key above cell n, from 1 to 84 */
    CHR_BRAILLE_ENTRY_KEYS   /* dots being typed: bit n-1 is dot n */
} chr_braille_keys;
enum {
    CHR_BRAILLE_TL1 = 0x01, CHR_BRAILLE_TL2 = 0x02, CHR_BRAILLE_TL3 = 0x04,
    CHR_BRAILLE_TR1 = 0x08, CHR_BRAILLE_TR2 = 0x10, CHR_BRAILLE_TR3 = 0x20
};
CHARDEV_API int chr_braille_key(chr_dev *dev, chr_braille_keys group, int down);
/* Its `size` gives another number now; the guest is told. CHR_ERR_NOT_SUPPORTED. */
CHARDEV_API int chr_braille_resized(chr_dev *dev);
#endif

#if defined(CHARDEV_SPICE) && !defined(CHARDEV_NO_SPICE) && !defined(CHARDEV_FREESTANDING)
/* The SpiceServer * that spicevmc and spiceport chardevs made from here on are channels of; NULL = none, then they can't be made.
 * It stays yours. Call it after spice_server_init(), and remove the chardevs on it before spice_server_destroy(). The server's main
 * loop (its SpiceCoreInterface) runs in the thread that the context belongs to, on the context's own loop or beside it. */
CHARDEV_API void chr_spice_set_server(chr_context *ctx, void *server);
#endif

/* Between the two, OPENED is held back on every mux, so that banners go to the frontend that has the focus in the
 * end; and so is input for frontends that have not been told OPENED. */
CHARDEV_API void chr_mux_suspend_open(chr_context *ctx);
CHARDEV_API void chr_mux_resume_open(chr_context *ctx);

/* What the user does to an emulated mouse (rel, button) or tablet (abs, button). The device collects it and tells its guest at
 * chr_input_sync(). Returns 0, or CHR_ERR_NOT_SUPPORTED (the chardev is none that moves in that way), CHR_ERR_INVALID (no such
 * button), CHR_ERR_DISCONNECTED (the guest has not switched it on), CHR_ERR_WOULD_BLOCK (the guest does not read: lost, and
 * counted in bytes_dropped). */
enum { CHR_BUTTON_LEFT, CHR_BUTTON_MIDDLE, CHR_BUTTON_RIGHT };
CHARDEV_API int chr_input_rel(chr_dev *dev, int dx, int dy);          /* right and down are positive */
CHARDEV_API int chr_input_abs(chr_dev *dev, int x, int y);            /* 0 to 32767, from the upper left corner */
CHARDEV_API int chr_input_button(chr_dev *dev, int button, int down); /* CHR_BUTTON_... */
CHARDEV_API int chr_input_sync(chr_dev *dev);

/* ====================================================================================================================
 * >>record   what crosses the frontends' edges, written to a file and played again
 * ====================================================================================================================
 * Recorded are, with their time: input and events as they come from the backend, what each write, read, ioctl,
 * disconnect, shutdown and wait answered, and when more could be written. A replay puts a backend that reads the file
 * in the place of each chardev that was recorded: the same calls get the same answers, and input and events come at the
 * same times, with nobody at the far side. A frontend that does the same at the same times does so again, byte for
 * byte: give the context a clock that says so (see chr_config). A chardev with several frontends (mux) is not recorded
 * but the one under it: it lives again on top of that. Not recorded are passed descriptors, what chr_query() tells, and
 * calls at the back of a chardev (chr_ringbuf_read()).
 *
 * The file, all numbers little-endian. First 24 bytes:
 *
 *      0  8  "chardevR"
 *      8  4  version: 1
 *     12  4  zero
 *     16  8  the context's clock when the recording began, in ns (to know, not to use)
 *
 * Then records, each a head of 28 bytes and `length` bytes of data, in the order in which things happened:
 *
 *      0  4  length
 *      4  4  CRC-32 (that of Ethernet) of all the rest of the record, the length included
 *      8  2  number of the chardev
 *     10  1  kind
 *     11  1  1 = inside a call of the frontend's, whose record follows; else 0
 *     12  8  time in ns since the recording began, never less than that of the record before
 *     20  4  value, signed
 *     24  4  extra
 *
 *     kind                value             extra             data
 *      1 a new chardev    0                 0                 its id; numbers count up from 0
 *      2 created          0 or an error     0                 the error's text
 *      3 input            0                 0                 the bytes
 *      4 event            CHR_EVENT_...     CLOSED and INPUT_END: 1 = more may come, with the next peer; else 0
 *      5 writable         0                 0
 *      6 write            what it returned  bytes offered     those taken, or dropped because nobody was there
 *      7 read             what it returned  bytes asked for   the bytes
 *      8 ioctl            what it returned  CHR_IOCTL_...     the argument after it: bytes, or ints of 4 bytes
 *      9 frontend opened  1 or 0            0
 *     10 disconnect       what it returned  0
 *     11 wait             what it returned  0                 the error's text
 *     12 the end          0                 0
 *     13 shutdown         what it returned  0
 */

/* Records all chardevs, those that are there and those to come, into a new file. CHR_ERR_BUSY while one is under
 * way; errors of opening. If the file can't be written later on, or chardev number 65537 comes, recording ends with
 * one line in the log: the number in the file has 16 bits, and one that was removed keeps its own. */
CHARDEV_API int chr_record_start(chr_context *ctx, const char *path, chr_error *err);
/* Ends the file. CHR_ERR_NOT_FOUND when nothing is (or was, after a failure) being recorded. chr_context_free() does it, too. */
CHARDEV_API int chr_record_stop(chr_context *ctx);

/* From here on, each chardev made with an id that the file knows is played from it; an id that was made more than once is
 * played in that order, and its options are checked as ever but open nothing. Recorded times count from this moment. The whole
 * file is checked first: CHR_ERR_INVALID names the offset of what is wrong. CHR_ERR_BUSY while there is a replay.
 * When a frontend does something else than it did then, the log gets one line for that chardev, with time and offset. */
CHARDEV_API int chr_replay_open(chr_context *ctx, const char *path, chr_error *err);
/* 1 once the time has come at which the recording ended; 0 before that, and without a replay. */
CHARDEV_API int chr_replay_over(chr_context *ctx);
/* Lets go of the file. Chardevs that were played from it get nothing more, and drop what is written. */
CHARDEV_API void chr_replay_close(chr_context *ctx);

/* ====================================================================================================================
 * >>descriptors   named ones, passed by a monitor's peer (SCM_RIGHTS), for fd=NAME
 * ==================================================================================================================== */

/* Keeps fd under a name, which may not begin with a digit; the context owns it from success on, until a chardev takes it. A
 * descriptor that had the name before is closed. CHR_ERR_INVALID, CHR_ERR_EXISTS (it has another name), CHR_ERR_NO_MEMORY. */
CHARDEV_API int chr_fd_put(chr_context *ctx, const char *name, int fd, chr_error *err);
/* Closes and forgets it. CHR_ERR_NOT_FOUND. */
CHARDEV_API int chr_fd_close(chr_context *ctx, const char *name, chr_error *err);

#ifdef __cplusplus
}
#endif
#endif /* CHARDEV_H */

/* ********************************************************************************************************************
 *
 *                                          I M P L E M E N T A T I O N
 *
 * Lower layers first; each function stands after those that it calls. Private names begin with chr__ or CHR__.
 *
 * ******************************************************************************************************************** */
#if defined(CHARDEV_IMPLEMENTATION) && !defined(CHARDEV_IMPLEMENTED)
#define CHARDEV_IMPLEMENTED

/* ====================================================================================================================
 * >>platform   the only place with system headers, system calls and errno
 * ==================================================================================================================== */

#if defined(CHARDEV_FREESTANDING)
#define CHR__FREESTANDING 1
#elif defined(_WIN32)
#define CHR__WINDOWS 1
#else
#define CHR__POSIX 1
#endif

/* What can be built here, less what the user leaves out: CHARDEV_HAS_x is 0 or 1. */
#if defined(CHARDEV_NO_RINGBUF)
#define CHARDEV_HAS_RINGBUF 0
#else
#define CHARDEV_HAS_RINGBUF 1
#endif
#if defined(CHARDEV_NO_TESTDEV)
#define CHARDEV_HAS_TESTDEV 0
#else
#define CHARDEV_HAS_TESTDEV 1
#endif
#if defined(CHARDEV_NO_MSMOUSE)
#define CHARDEV_HAS_MSMOUSE 0
#else
#define CHARDEV_HAS_MSMOUSE 1
#endif
#if defined(CHARDEV_NO_WCTABLET)
#define CHARDEV_HAS_WCTABLET 0
#else
#define CHARDEV_HAS_WCTABLET 1
#endif
#if defined(CHARDEV_NO_BRAILLE)
#define CHARDEV_HAS_BRAILLE 0
#else
#define CHARDEV_HAS_BRAILLE 1
#endif
#if defined(CHARDEV_NO_MUX)
#define CHARDEV_HAS_MUX 0
#else
#define CHARDEV_HAS_MUX 1
#endif
#if defined(CHARDEV_NO_HUB)
#define CHARDEV_HAS_HUB 0
#else
#define CHARDEV_HAS_HUB 1
#endif
#if defined(CHARDEV_NO_FD) || !defined(CHR__POSIX)
#define CHARDEV_HAS_FD 0
#else
#define CHARDEV_HAS_FD 1
#endif
#if defined(CHARDEV_NO_FILE) || !defined(CHR__POSIX)
#define CHARDEV_HAS_FILE 0
#else
#define CHARDEV_HAS_FILE 1
#endif
#if defined(CHARDEV_NO_PIPE) || !defined(CHR__POSIX)
#define CHARDEV_HAS_PIPE 0
#else
#define CHARDEV_HAS_PIPE 1
#endif
#if defined(CHARDEV_NO_PTY) || !defined(CHR__POSIX)
#define CHARDEV_HAS_PTY 0
#else
#define CHARDEV_HAS_PTY 1
#endif
#if defined(CHARDEV_NO_STDIO) || !defined(CHR__POSIX)
#define CHARDEV_HAS_STDIO 0
#else
#define CHARDEV_HAS_STDIO 1
#endif
#if defined(CHARDEV_NO_SERIAL) || !defined(CHR__POSIX)
#define CHARDEV_HAS_SERIAL 0
#else
#define CHARDEV_HAS_SERIAL 1
#endif
#if defined(CHARDEV_NO_PARALLEL) || !defined(CHR__POSIX) || !(defined(__linux__) || defined(__FreeBSD__))
#define CHARDEV_HAS_PARALLEL 0
#else
#define CHARDEV_HAS_PARALLEL 1
#endif
#if defined(CHARDEV_NO_UDP) || !defined(CHR__POSIX)
#define CHARDEV_HAS_UDP 0
#else
#define CHARDEV_HAS_UDP 1
#endif
#if defined(CHARDEV_NO_SOCKET) || !defined(CHR__POSIX)
#define CHARDEV_HAS_SOCKET 0
#else
#define CHARDEV_HAS_SOCKET 1
#endif
#if defined(CHARDEV_NO_BRLAPI) || !CHARDEV_HAS_BRAILLE || !CHARDEV_HAS_SOCKET
#define CHARDEV_HAS_BRLAPI 0
#else
#define CHARDEV_HAS_BRLAPI 1
#endif
#if defined(CHARDEV_NO_SPICE) || !defined(CHARDEV_SPICE) || defined(CHR__FREESTANDING)
#define CHARDEV_HAS_SPICE 0
#else
#define CHARDEV_HAS_SPICE 1
#endif
#if defined(CHARDEV_MBEDTLS) && CHARDEV_HAS_SOCKET
#define CHARDEV_HAS_TLS 1
#else
#define CHARDEV_HAS_TLS 0
#endif

/* Helpers of the lower sections, which a build without some backends may not need; what each message runs through: kept side by
 * side, so that it fills few pages and cache lines; and what the hot path seldom calls: kept out of line, so that it costs nothing. */
#if defined(__GNUC__)
#define CHR__PRIVATE static __attribute__((unused))
#define CHR__HOT __attribute__((hot))
#define CHR__HOT_INLINE static inline __attribute__((always_inline)) /* a few instructions that every message runs
                                                                        through */
#define CHR__COLD static __attribute__((unused, noinline, cold))
#else
#define CHR__PRIVATE static
#define CHR__HOT
#define CHR__HOT_INLINE static
#define CHR__COLD static
#endif

#ifndef CHR_SYS
#define CHR_SYS(name) name
#endif

/* What one thread or signal handler sets while another looks at it without the lock. */
#if defined(CHARDEV_THREADS) && defined(__GNUC__)
#define CHR__LOAD(variable) __atomic_load_n(&(variable), __ATOMIC_ACQUIRE)
#define CHR__STORE(variable, value) __atomic_store_n(&(variable), value, __ATOMIC_RELEASE)
#else
#define CHR__LOAD(variable) (variable)
#define CHR__STORE(variable, value) ((variable) = (value))
#endif

#include <string.h>

#if CHARDEV_HAS_TLS
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/oid.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/ssl.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>
#if MBEDTLS_VERSION_MAJOR >= 3
#include <psa/crypto.h>
#endif
#endif

#if CHARDEV_HAS_SPICE
#include <spice.h>
#include <spice/protocol.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* -- text that every profile needs ---------------------------------------------------------------------------------- */

#ifndef CHR__FREESTANDING
#include <stdio.h>

CHR__PRIVATE int chr__os_format(char *buf, size_t size, const char *format, va_list args)
{
    return vsnprintf(buf, size, format, args);
}

#else

/* Enough of vsnprintf for the messages in this file and for firmware: %s %.9s %.*s %c %d %u %x %lld %llu %llx %%, width,
 * zero pad. */

static size_t chr__digits(char *end, unsigned long long value, unsigned base)
{
    size_t count = 0;

    do {
        end[-(ptrdiff_t)++count] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    return count;
}

typedef struct chr__text_sink {
    char  *buf;
    size_t size, length;
} chr__text_sink;

static void chr__sink(chr__text_sink *sink, const char *text, size_t len)
{
    for (; len > 0; len--, text++, sink->length++)
        if (sink->length + 1 < sink->size)
            sink->buf[sink->length] = *text;
}

static void chr__sink_padded(chr__text_sink *sink, const char *text, size_t len, size_t width, char pad)
{
    for (; width > len; width--)
        chr__sink(sink, &pad, 1);
    chr__sink(sink, text, len);
}

typedef struct chr__text_spec {
    char   pad, letter;
    size_t width;
    int    longs, is_cut; /* is_cut: the length of a %.*s comes first */
    int    most;          /* that of a %.9s; -1 = none */
} chr__text_spec;

static const char *chr__read_spec(const char *format, chr__text_spec *spec)
{
    spec->pad = *format == '0' ? '0' : ' ';
    for (spec->width = 0; *format >= '0' && *format <= '9'; format++)
        spec->width = spec->width * 10 + (size_t)(*format - '0');
    spec->is_cut = format[0] == '.' && format[1] == '*';
    if (spec->is_cut)
        format += 2;
    spec->most = *format == '.' ? 0 : -1;
    if (*format == '.')
        for (format++; *format >= '0' && *format <= '9'; format++)
            spec->most = spec->most * 10 + (*format - '0');
    for (spec->longs = 0; *format == 'l'; format++)
        spec->longs++;
    spec->letter = *format;
    return *format ? format + 1 : format;
}

static void chr__sink_number(chr__text_sink *sink, const chr__text_spec *spec, long long value)
{
    char               digits[24];
    int                negative = spec->letter == 'd' && value < 0;
    unsigned long long magnitude = negative ? 0ull - (unsigned long long)value : (unsigned long long)value;
    size_t             count;

    if (spec->letter != 'd' && spec->longs < 2)
        magnitude &= 0xffffffffu;
    count = chr__digits(digits + sizeof digits, magnitude, spec->letter == 'x' ? 16 : 10);
    if (negative)
        digits[sizeof digits - ++count] = '-';
    chr__sink_padded(sink, digits + sizeof digits - count, count, spec->width, spec->pad);
}

/* At most that many bytes; -1 = up to the zero. */
static size_t chr__text_length(const char *text, int most)
{
    const void *end = most < 0 ? NULL : memchr(text, 0, (size_t)most);

    return most < 0 ? strlen(text) : end ? (size_t)((const char *)end - text) : (size_t)most;
}

CHR__PRIVATE int chr__os_format(char *buf, size_t size, const char *format, va_list args)
{
    chr__text_sink sink = { buf, size, 0 };
    chr__text_spec spec;

    while (*format) {
        if (*format != '%') {
            chr__sink(&sink, format++, 1);
            continue;
        }
        format = chr__read_spec(format + 1, &spec);
        if (spec.letter == 's') {
            int         most = spec.is_cut ? va_arg(args, int) : spec.most;
            const char *text = va_arg(args, const char *);
            chr__sink_padded(&sink, text, chr__text_length(text, most), spec.width, ' ');
        } else if (spec.letter == 'c' || spec.letter == '%') {
            char letter = spec.letter == 'c' ? (char)va_arg(args, int) : '%';
            chr__sink_padded(&sink, &letter, 1, spec.width, ' ');
        } else {
            chr__sink_number(&sink, &spec, spec.longs > 1 ? va_arg(args, long long) : va_arg(args, int));
        }
    }
    if (size > 0)
        buf[sink.length < size ? sink.length : size - 1] = 0;
    return (int)sink.length;
}
#endif

CHR__PRIVATE int chr__format(char *buf, size_t size, const char *format, ...) CHR_PRINTF(3, 4);
CHR__PRIVATE int chr__format(char *buf, size_t size, const char *format, ...)
{
    va_list args;
    int     length;

    va_start(args, format);
    length = chr__os_format(buf, size, format, args);
    va_end(args);
    return length;
}

/* Adds to the `len` characters in text[size]; returns how many there are then: it is cut where it does not fit. */
CHR__PRIVATE size_t chr__append(char *text, size_t size, size_t len, const char *format, ...) CHR_PRINTF(4, 5);
CHR__PRIVATE size_t chr__append(char *text, size_t size, size_t len, const char *format, ...)
{
    va_list args;
    int     added;

    va_start(args, format);
    added = chr__os_format(text + len, size - len, format, args);
    va_end(args);
    return added < 0 ? len : (size_t)added < size - len ? len + (size_t)added : size - 1;
}

/* Each plain %s becomes a %.300s, so that no text that somebody gave hides what is wrong with it. */
static const char *chr__bound_texts(char *out, size_t size, const char *format)
{
    const char *from = format;
    char       *to = out;

    if (strlen(format) * 3 >= size)
        return format;
    while (*from) {
        *to++ = *from++;
        if (from[-1] != '%' || !*from)
            continue;
        if (*from == 's')
            to = (char *)memcpy(to, ".300", 4) + 4;
        *to++ = *from++;
    }
    *to = 0;
    return out;
}

/* A message is one line, whatever came in with the values in it. */
static int chr__fail_with(chr_error *err, int code, const char *format, va_list args)
{
    char  bounded[sizeof err->text];
    char *c;

    if (!err)
        return code;
    chr__os_format(err->text, sizeof err->text, chr__bound_texts(bounded, sizeof bounded, format), args);
    for (c = err->text; *c; c++)
        if ((unsigned char)*c < ' ')
            *c = '?';
    err->code = code;
    return code;
}

/* Fills err, which may be NULL, and returns the code. */
CHR__PRIVATE int chr__fail(chr_error *err, int code, const char *format, ...) CHR_PRINTF(3, 4);
CHR__PRIVATE int chr__fail(chr_error *err, int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    code = chr__fail_with(err, code, format, args);
    va_end(args);
    return code;
}

CHR__PRIVATE int chr__no_memory(chr_error *err)
{
    return chr__fail(err, CHR_ERR_NO_MEMORY, "out of memory");
}

/* -- >>posix --------------------------------------------------------------------------------------------------------- */
#ifdef CHR__POSIX

#if defined(__GLIBC__) && !defined(__USE_MISC)
#error "chardev.h: system headers came first under a strict -std=c99: compile with -D_DEFAULT_SOURCE or -std=gnu99"
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

#ifdef MSG_NOSIGNAL
#define CHR__SEND_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL)
#define CHR__SOCKETS_RAISE 0
#else
#define CHR__SEND_FLAGS MSG_DONTWAIT
#define CHR__SOCKETS_RAISE 1
#endif
#if defined(POLLRDHUP)
#define CHR__POLLRDHUP POLLRDHUP
#elif defined(__linux__) && !defined(__sparc__)
#define CHR__POLLRDHUP 0x2000
#else
#define CHR__POLLRDHUP 0
#endif

#if defined(__linux__) && !defined(__GLIBC__)
typedef int chr__request; /* of ioctl() */
#else
typedef unsigned long chr__request;
#endif

/* The one table from errno to our codes. */
static int chr__os_code(int error)
{
    switch (error) {
    case EAGAIN: case EINPROGRESS:                              return CHR_ERR_WOULD_BLOCK;
#if EWOULDBLOCK != EAGAIN
    case EWOULDBLOCK:                                           return CHR_ERR_WOULD_BLOCK;
#endif
    case EPIPE: case ECONNRESET: case ENOTCONN: case ESHUTDOWN: return CHR_ERR_DISCONNECTED;
    case ENOMEM: case ENOBUFS:                                  return CHR_ERR_NO_MEMORY;
    case ENOENT: case ENXIO: case ENODEV:                       return CHR_ERR_NOT_FOUND;
    case EEXIST: case EADDRINUSE:                               return CHR_ERR_EXISTS;
    case EACCES: case EPERM:                                    return CHR_ERR_PERMISSION;
    case ETIMEDOUT:                                             return CHR_ERR_TIMEOUT;
    case EINVAL: case EBADF: case EMSGSIZE:                     return CHR_ERR_INVALID;
    case ENOTTY: case EOPNOTSUPP:                               return CHR_ERR_NOT_SUPPORTED;
    case ENOSPC: case EDQUOT: case EFBIG:                       return CHR_ERR_NO_SPACE;
    default:                                                    return CHR_ERR_IO;
    }
}

/* "WHAT NAME: the system's reason" for an error number that was captured where it happened. */
static int chr__os_fail(chr_error *err, int error, const char *what, const char *name)
{
    return chr__fail(err, chr__os_code(error), "%s %s: %s", what, name, strerror(error));
}

static void *chr__os_allocate(void *opaque, void *ptr, size_t size)
{
    (void)opaque;
    if (size > 0)
        return realloc(ptr, size);
    free(ptr);
    return NULL;
}

static int64_t chr__os_time(clockid_t clock)
{
    struct timespec now;

    if (CHR_SYS(clock_gettime)(clock, &now) < 0)
        return 0;
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t chr__os_clock(void *opaque)
{
    (void)opaque;
    return chr__os_time(CLOCK_MONOTONIC);
}

static int64_t chr__os_wall_clock(void *opaque)
{
    (void)opaque;
    return chr__os_time(CLOCK_REALTIME);
}

#ifdef CHARDEV_THREADS
typedef pthread_mutex_t chr__mutex;

static int chr__os_mutex_init(chr__mutex *mutex)
{
    pthread_mutexattr_t attributes;
    int                 failed;

    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    failed = pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return failed ? CHR_ERR_NO_MEMORY : 0;
}
static void chr__os_mutex_destroy(chr__mutex *mutex) { pthread_mutex_destroy(mutex); }
static void chr__os_lock(chr__mutex *mutex) { pthread_mutex_lock(mutex); }
static void chr__os_unlock(chr__mutex *mutex) { pthread_mutex_unlock(mutex); }

typedef pthread_t chr__thread;

static chr__thread chr__os_thread(void) { return pthread_self(); }
static int chr__os_is_thread(chr__thread thread) { return pthread_equal(thread, pthread_self()) != 0; }
#endif

/* Descriptors: flags, close, read and write. */

static int chr__os_close(int fd)
{
    return fd < 0 ? 0 : CHR_SYS(close)(fd); /* not again after EINTR: the descriptor is gone on the systems we know */
}

/* Every descriptor that the library creates passes through here. None is ever 0, 1 or 2: with those the whole
 * process, and what it starts, reads and writes. Takes the result of the call that created it; -1 and errno on
 * failure. */
static int chr__os_above_standard(int fd)
{
    int error, moved;

    if (fd < 0 || fd > 2)
        return fd;
    moved = CHR_SYS(fcntl)(fd, F_DUPFD_CLOEXEC, 3);
    error = errno;
    chr__os_close(fd);
    errno = error;
    return moved;
}

CHR__PRIVATE void chr__os_close_on_exec(int fd)
{
    if (fd >= 0)
        (void)CHR_SYS(fcntl)(fd, F_SETFD, FD_CLOEXEC);
}

/* CLOEXEC and non-blocking; returns the flags that the descriptor had, or -1. */
static int chr__os_adopt(int fd)
{
    int flags = CHR_SYS(fcntl)(fd, F_GETFL);

    if (flags < 0 || CHR_SYS(fcntl)(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -1;
    if (!(flags & O_NONBLOCK) && CHR_SYS(fcntl)(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -1;
    return flags;
}

/* Sets or clears O_NONBLOCK of the open file description, where it is otherwise. */
CHR__PRIVATE void chr__os_set_nonblocking(int fd, int on)
{
    int flags = CHR_SYS(fcntl)(fd, F_GETFL);

    if (flags >= 0 && !(flags & O_NONBLOCK) == (on != 0))
        (void)CHR_SYS(fcntl)(fd, F_SETFL, flags ^ O_NONBLOCK);
}

CHR__PRIVATE int chr__os_is_nonblocking(int flags) { return (flags & O_NONBLOCK) != 0; }

CHR__PRIVATE int chr__os_is_open(int fd)
{
    return CHR_SYS(fcntl)(fd, F_GETFD) >= 0;
}

/* The flags of a descriptor, of its number and of its open file description. */
typedef struct chr__fd_flags {
    int number, description;
} chr__fd_flags;

/* Negative unless fd is open. */
static int chr__os_get_flags(int fd, chr__fd_flags *flags)
{
    flags->number = CHR_SYS(fcntl)(fd, F_GETFD);
    flags->description = flags->number < 0 ? -1 : CHR_SYS(fcntl)(fd, F_GETFL);
    return flags->description;
}

static void chr__os_set_flags(int fd, const chr__fd_flags *flags)
{
    (void)CHR_SYS(fcntl)(fd, F_SETFD, flags->number);
    (void)CHR_SYS(fcntl)(fd, F_SETFL, flags->description);
}

/* A pipe for the library's own use. */
static int chr__os_pipe(int fds[2])
{
    int ends[2], error;

    fds[0] = fds[1] = -1;
    if (CHR_SYS(pipe)(ends) < 0)
        return -1;
    fds[0] = chr__os_above_standard(ends[0]);
    fds[1] = chr__os_above_standard(ends[1]);
    if (fds[0] >= 0 && fds[1] >= 0 && chr__os_adopt(fds[0]) >= 0 && chr__os_adopt(fds[1]) >= 0)
        return 0;
    error = errno;
    chr__os_close(fds[0]);
    chr__os_close(fds[1]);
    fds[0] = fds[1] = -1;
    errno = error;
    return -1;
}

/* A copy, CLOEXEC, under the first free number from `least` on. */
CHR__PRIVATE int chr__os_dup(int fd, int least)
{
    int copy = CHR_SYS(fcntl)(fd, F_DUPFD_CLOEXEC, least);

    return copy < 0 ? chr__os_code(errno) : copy;
}

/* The access mode: whether fd may be read and written. */
CHR__PRIVATE int chr__os_may(int fd, int direction)
{
    int mode = CHR_SYS(fcntl)(fd, F_GETFL);

    if (mode < 0)
        return 0;
    mode &= O_ACCMODE;
    return mode == O_RDWR || mode == (direction == CHR_IN ? O_RDONLY : O_WRONLY);
}

typedef enum chr__open_mode {
    CHR__OPEN_READ, CHR__OPEN_BOTH, CHR__OPEN_CREATE, CHR__OPEN_APPEND,
    CHR__OPEN_LOG /* emptied, then written at its end, wherever that is by then */
} chr__open_mode;

/* ENXIO has a reason that its text does not name. */
static int chr__os_open_fail(chr_error *err, int error, const char *path)
{
    struct stat info;

    if (error == ENXIO && CHR_SYS(stat)(path, &info) == 0 && S_ISFIFO(info.st_mode))
        return chr__fail(err, CHR_ERR_NOT_FOUND, "cannot open %s: it is a FIFO that nobody has open for reading", path);
    return chr__os_fail(err, error, "cannot open", path);
}

/* The end of a disk is no place to write. */
static void chr__os_log_opened(int fd)
{
    struct stat info;

    if (CHR_SYS(fstat)(fd, &info) == 0 && S_ISBLK(info.st_mode))
        (void)CHR_SYS(fcntl)(fd, F_SETFL, O_NONBLOCK);
}

CHR__PRIVATE int chr__os_open(const char *path, chr__open_mode mode, chr_error *err)
{
    static const int flags[] = { O_RDONLY, O_RDWR, O_WRONLY | O_CREAT | O_TRUNC, O_WRONLY | O_CREAT | O_APPEND,
                                 O_WRONLY | O_CREAT | O_TRUNC | O_APPEND };
    int              fd;

    do
        fd = CHR_SYS(open)(path, flags[mode] | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666);
    while (fd < 0 && errno == EINTR);
    fd = chr__os_above_standard(fd);
    if (fd < 0)
        return chr__os_open_fail(err, errno, path);
    if (mode == CHR__OPEN_LOG)
        chr__os_log_opened(fd);
    return fd;
}

CHR__PRIVATE int chr__os_read(int fd, void *buf, size_t len)
{
    ssize_t n;

    do
        n = CHR_SYS(read)(fd, buf, len);
    while (n < 0 && errno == EINTR);
    return n < 0 ? chr__os_code(errno) : (int)n;
}

/* For keys: unpredictable bytes. */
CHR__PRIVATE int chr__os_random(void *buf, size_t len)
{
    unsigned char *to = (unsigned char *)buf;
    int            fd = chr__os_open("/dev/urandom", CHR__OPEN_READ, NULL), n = fd;

    for (; n >= 0 && len > 0; to += n, len -= (size_t)n) {
        n = chr__os_read(fd, to, len);
        if (n == 0)
            n = CHR_ERR_IO;
    }
    chr__os_close(fd);
    return n < 0 ? n : 0;
}

CHR__PRIVATE int chr__os_read_at(int fd, void *buf, size_t len, int64_t offset)
{
    ssize_t n;

    do
        n = CHR_SYS(pread)(fd, buf, len, (off_t)offset);
    while (n < 0 && errno == EINTR);
    return n < 0 ? chr__os_code(errno) : (int)n;
}

/* -- input and output that neither blocks nor raises a signal: by the type of the descriptor, found once, when it is
 * opened -- */

typedef enum chr__fd_type {
    CHR__FD_PLAIN,       /* never blocks, or O_NONBLOCK is ours to set; a write raises no signal */
    CHR__FD_SOCKET,      /* the flags of send() and recv() say both */
    CHR__FD_LOUD,        /* as plain, but a write may raise SIGPIPE (a pipe) or SIGXFSZ (a file) */
    CHR__FD_SHARED,      /* others have the open file description too, so it blocks and O_NONBLOCK is not ours to
                            set: a device */
    CHR__FD_SHARED_PIPE  /* the same, and a write may raise SIGPIPE */
} chr__fd_type;

/* /dev/null and its kin: they always answer at once. */
static int chr__os_is_memory_device(const struct stat *info)
{
#if defined(__linux__)
    return (info->st_rdev >> 8 & 0xfff) == 1;
#else
    return (void)info, 0;
#endif
}

/* `is_ours`: the library has opened it, non-blocking, and nobody else has it. */
CHR__PRIVATE chr__fd_type chr__os_fd_type(int fd, int is_ours)
{
    struct stat info;

    if (fd < 0)
        return CHR__FD_PLAIN;
    if (CHR_SYS(fstat)(fd, &info) < 0) /* unknown: as what needs the most care */
        return is_ours ? CHR__FD_LOUD : CHR__FD_SHARED;
    if (S_ISSOCK(info.st_mode))
        return CHR__FD_SOCKET;
    if (S_ISREG(info.st_mode) || S_ISBLK(info.st_mode))
        return CHR__FD_LOUD;
    if (S_ISFIFO(info.st_mode))
        return is_ours ? CHR__FD_LOUD : CHR__FD_SHARED_PIPE;
    return is_ours || !S_ISCHR(info.st_mode) || chr__os_is_memory_device(&info) ? CHR__FD_PLAIN : CHR__FD_SHARED;
}

/* SIGPIPE and SIGXFSZ are for programs that forget to look at the results of write(), SIGTTOU for those that don't
 * know of jobs. They are blocked in this thread for the length of one call, and what the call has raised is taken
 * away again. */
typedef struct chr__hush {
    sigset_t mask, before; /* before: pending already, so not ours to take away */
} chr__hush;

static const int chr__hushed[] = { SIGPIPE, SIGXFSZ, SIGTTOU };

static void chr__hush_begin(chr__hush *hush)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    sigaddset(&set, SIGXFSZ);
    sigaddset(&set, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &set, &hush->mask);
    sigemptyset(&hush->before);
    if (sigismember(&hush->mask, SIGPIPE) == 1 || sigismember(&hush->mask, SIGXFSZ) == 1)
        sigpending(&hush->before); /* else they would have been delivered */
}

/* Only what was not pending before. */
CHR__COLD void chr__hush_take_away(const chr__hush *hush)
{
    sigset_t pending, one;
    size_t   i;
    int      number;

    sigpending(&pending);
    for (i = 0; i < sizeof chr__hushed / sizeof chr__hushed[0]; i++) {
        if (sigismember(&pending, chr__hushed[i]) != 1 || sigismember(&hush->before, chr__hushed[i]) == 1)
            continue;
        sigemptyset(&one);
        sigaddset(&one, chr__hushed[i]);
        sigwait(&one, &number);
    }
}

/* `error`: the errno of the call, 0 = it has worked. */
static void chr__hush_end(const chr__hush *hush, int error)
{
    if (error == EPIPE || error == EFBIG)
        chr__hush_take_away(hush);
    pthread_sigmask(SIG_SETMASK, &hush->mask, NULL);
}

/* Whether a description that blocks is ready for one small piece; -1 and EAGAIN when it is not. */
static int chr__os_shared_ready(int fd, short events)
{
    struct pollfd one;

    one.fd = fd;
    one.events = events;
    one.revents = 0;
    if (CHR_SYS(poll)(&one, 1, 0) > 0)
        return 0;
    errno = EAGAIN;
    return -1;
}

/* What poll() calls writable takes so much at least: PIPE_BUF bytes in a pipe; in a terminal one byte that it
 * expands (a newline), or a few that it does not. */
static size_t chr__os_piece(chr__fd_type type, const char *from, size_t len)
{
    size_t most = type == CHR__FD_SHARED_PIPE ? _POSIX_PIPE_BUF : 16, i;

    for (i = 0; type == CHR__FD_SHARED && i < most && i < len; i++)
        if ((unsigned char)from[i] < ' ')
            most = i > 0 ? i : 1;
    return len < most ? len : most;
}

/* One piece to a description that blocks. Where the system can say "not now" for a single call, it does. */
static ssize_t chr__os_write_piece(int fd, chr__fd_type type, const void *buf, size_t len)
{
#ifdef RWF_NOWAIT
    struct iovec part;
    ssize_t      n;

    part.iov_base = (void *)(uintptr_t)buf;
    part.iov_len = len;
    n = type == CHR__FD_SHARED_PIPE ? CHR_SYS(pwritev2)(fd, &part, 1, -1, RWF_NOWAIT) : -1;
    if (type == CHR__FD_SHARED_PIPE && (n >= 0 || errno == EAGAIN || errno == EPIPE || errno == EINTR))
        return n;
#endif
    if (chr__os_shared_ready(fd, POLLOUT) < 0)
        return -1;
    return CHR_SYS(write)(fd, buf, chr__os_piece(type, (const char *)buf, len));
}

/* Piece by piece, until all is written or one is not taken. */
CHR__COLD ssize_t chr__os_write_shared(int fd, chr__fd_type type, const void *buf, size_t len)
{
    size_t  done = 0;
    ssize_t n;

    do {
        n = chr__os_write_piece(fd, type, (const char *)buf + done, len - done);
        done += n > 0 ? (size_t)n : 0;
    } while (done < len && (n > 0 || (n < 0 && errno == EINTR)));
    return done > 0 ? (ssize_t)done : n;
}

/* What may raise a signal: with the signals blocked. */
CHR__COLD int chr__os_write_hushed(int fd, chr__fd_type type, const void *buf, size_t len)
{
    chr__hush hush;
    ssize_t   n;
    int       error;

    chr__hush_begin(&hush);
    do
        n = type == CHR__FD_SOCKET ? CHR_SYS(send)(fd, buf, len, CHR__SEND_FLAGS)
            : type == CHR__FD_LOUD ? CHR_SYS(write)(fd, buf, len) : chr__os_write_shared(fd, type, buf, len);
    while (n < 0 && errno == EINTR);
    error = n < 0 ? errno : 0;
    chr__hush_end(&hush, error);
    return n < 0 ? chr__os_code(error) : (int)n;
}

CHR__PRIVATE int chr__os_send(int fd, const void *buf, size_t len)
{
    ssize_t n;

    if (CHR__SOCKETS_RAISE)
        return chr__os_write_hushed(fd, CHR__FD_SOCKET, buf, len);
    do
        n = CHR_SYS(send)(fd, buf, len, CHR__SEND_FLAGS);
    while (n < 0 && errno == EINTR);
    return n < 0 ? chr__os_code(errno) : (int)n;
}

CHR__PRIVATE int chr__os_write_plain(int fd, const void *buf, size_t len)
{
    ssize_t n;

    do
        n = CHR_SYS(write)(fd, buf, len);
    while (n < 0 && errno == EINTR);
    return n < 0 ? chr__os_code(errno) : (int)n;
}

/* The one function that writes bytes to a descriptor, whatever it is. It does not block, and no signal comes of it.
 * Bytes taken, or an error. For sockets, terminals and other devices it is one system call. */
CHR__PRIVATE int chr__os_write(int fd, chr__fd_type type, const void *buf, size_t len)
{
    if (type == CHR__FD_SOCKET)
        return chr__os_send(fd, buf, len);
    return type == CHR__FD_PLAIN ? chr__os_write_plain(fd, buf, len) : chr__os_write_hushed(fd, type, buf, len);
}

/* A description that blocks: what is there now. */
CHR__COLD ssize_t chr__os_read_shared(int fd, chr__fd_type type, void *buf, size_t len)
{
#ifdef RWF_NOWAIT
    struct iovec part;
    ssize_t      n;

    part.iov_base = buf;
    part.iov_len = len;
    n = type == CHR__FD_SHARED_PIPE ? CHR_SYS(preadv2)(fd, &part, 1, -1, RWF_NOWAIT) : -1;
    if (type == CHR__FD_SHARED_PIPE && (n >= 0 || errno == EAGAIN || errno == EINTR))
        return n;
#else
    (void)type;
#endif
    return chr__os_shared_ready(fd, POLLIN) < 0 ? -1 : CHR_SYS(read)(fd, buf, len);
}

CHR__PRIVATE int chr__os_receive_bytes(int fd, void *buf, size_t len)
{
    ssize_t n;

    do
        n = CHR_SYS(recv)(fd, buf, len, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? chr__os_code(errno) : (int)n;
}

/* The far side learns that no more will come; what it sends can still be read. */
CHR__PRIVATE void chr__os_shutdown(int fd)
{
    (void)CHR_SYS(shutdown)(fd, SHUT_WR); /* fails when the connection is gone already */
}

/* The same for input. */
CHR__PRIVATE int chr__os_read_as(int fd, chr__fd_type type, void *buf, size_t len)
{
    ssize_t n;

    if (type == CHR__FD_SOCKET)
        return chr__os_receive_bytes(fd, buf, len);
    if (type < CHR__FD_SHARED)
        return chr__os_read(fd, buf, len);
    do
        n = chr__os_read_shared(fd, type, buf, len);
    while (n < 0 && errno == EINTR);
    return n < 0 ? chr__os_code(errno) : (int)n;
}

#if CHARDEV_HAS_FD || CHARDEV_HAS_STDIO
/* Whether a path leads to a pipe or device of the same kind; with an open file description of its own, non-blocking. */
static int chr__os_open_same(const char *path, int flags, const struct stat *as)
{
    struct stat info;
    int         fd = chr__os_above_standard(CHR_SYS(open)(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0));

    if (fd < 0)
        return -1;
    if (CHR_SYS(fstat)(fd, &info) == 0 && info.st_dev == as->st_dev && info.st_ino == as->st_ino &&
        info.st_rdev == as->st_rdev && (CHR_SYS(fcntl)(fd, F_GETFL) & O_NONBLOCK))
        return fd;
    chr__os_close(fd); /* where /dev/fd/N is a dup(), its flags are those of fd */
    return -1;
}

/* The master of a pty: opening its path makes another pty. */
static int chr__os_is_pty_master(int fd)
{
#ifdef TIOCGPTN
    int number;

    return CHR_SYS(ioctl)(fd, (chr__request)TIOCGPTN, &number) == 0;
#else
    return ptsname(fd) != NULL;
#endif
}

/* An inherited pipe or terminal is one open file description that others have too: a shell, a parent, a neighbour.
 * Its O_NONBLOCK would be theirs, and theirs is ours. So it is opened anew for one direction, under a number of its
 * own; where that can't be, the result is `fd` itself. Either way *type says how it is read and written. */
static int chr__os_unshare(int fd, int direction, chr__fd_type *type)
{
    struct stat info;
    char        path[128];
    int         own, flags = direction == CHR_IN ? O_RDONLY : O_WRONLY;

    *type = chr__os_fd_type(fd, 0);
    if (*type < CHR__FD_SHARED || CHR_SYS(fstat)(fd, &info) < 0 || (*type == CHR__FD_SHARED && !CHR_SYS(isatty)(fd)) ||
        (*type == CHR__FD_SHARED && chr__os_is_pty_master(fd)))
        return fd;
    chr__format(path, sizeof path, "/proc/self/fd/%d", fd);
    own = chr__os_open_same(path, flags, &info);
    if (own < 0 && *type == CHR__FD_SHARED && ttyname_r(fd, path, sizeof path) == 0)
        own = chr__os_open_same(path, flags, &info);
    if (own < 0)
        return fd;
    *type = chr__os_fd_type(own, 1);
    return own;
}
#endif

/* Whether poll's hang-up leaves bytes behind it that can still be read. */
CHR__PRIVATE int chr__os_unread(int fd)
{
    int count = 0;

    return CHR_SYS(ioctl)(fd, (chr__request)FIONREAD, &count) < 0 ? 0 : count;
}

/* Bytes that a TCP socket has sent, and its peer's system has not acknowledged; 0 also where that can't be asked. */
CHR__PRIVATE int chr__os_unsent(int fd)
{
    int count = 0;

#ifdef TIOCOUTQ
    if (CHR_SYS(ioctl)(fd, (chr__request)TIOCOUTQ, &count) < 0)
        count = 0;
#endif
    return count;
}

CHR__PRIVATE int chr__os_symlink(const char *target, const char *path, chr_error *err)
{
    return CHR_SYS(symlink)(target, path) < 0 ? chr__os_fail(err, errno, "cannot make the symlink", path) : 0;
}

CHR__PRIVATE int chr__os_exists(const char *path)
{
    return CHR_SYS(access)(path, F_OK) == 0;
}

/* Whether others than the file's owner may read or write it. */
CHR__PRIVATE int chr__os_is_shared(const char *path)
{
    struct stat status;

    return CHR_SYS(stat)(path, &status) == 0 && S_ISREG(status.st_mode) && (status.st_mode & 077) != 0;
}

enum { CHR__PATH_SIZE = 4096 };

/* The working directory, into path[size]. */
CHR__PRIVATE int chr__os_working_directory(char *path, size_t size)
{
    return CHR_SYS(getcwd)(path, size) ? 0 : chr__os_code(errno);
}

/* Which file has a name: a socket or symlink that was made is known again by it. */
typedef struct chr__file_id {
    dev_t device;
    ino_t inode;
    int   is_known;
} chr__file_id;

CHR__PRIVATE chr__file_id chr__os_file_id(const char *path)
{
    chr__file_id id;
    struct stat  info;

    memset(&id, 0, sizeof id);
    if (CHR_SYS(lstat)(path, &info) == 0) {
        id.device = info.st_dev;
        id.inode = info.st_ino;
        id.is_known = 1;
    }
    return id;
}

CHR__PRIVATE void chr__os_unlink(const char *path)
{
    (void)CHR_SYS(unlink)(path);
}

CHR__PRIVATE int chr__os_rename(const char *from, const char *to)
{
    return CHR_SYS(rename)(from, to) < 0 ? chr__os_code(errno) : 0;
}

/* The bytes of a regular file; -1 = it is none. */
CHR__PRIVATE int64_t chr__os_file_size(int fd)
{
    struct stat info;

    return CHR_SYS(fstat)(fd, &info) == 0 && S_ISREG(info.st_mode) ? (int64_t)info.st_size : -1;
}

/* Whether that is the file's name still. */
CHR__PRIVATE int chr__os_is_named(int fd, const char *path)
{
    struct stat info;
    struct stat named;

    return CHR_SYS(fstat)(fd, &info) == 0 && CHR_SYS(stat)(path, &named) == 0 && info.st_dev == named.st_dev &&
           info.st_ino == named.st_ino;
}

/* Removes the name of one file, and of no other that has it by now. */
CHR__PRIVATE void chr__os_unlink_own(const char *path, const chr__file_id *own)
{
    chr__file_id id = chr__os_file_id(path);

    if (own->is_known && id.is_known && id.device == own->device && id.inode == own->inode)
        (void)CHR_SYS(unlink)(path);
}

/* poll() */

typedef struct pollfd chr__pollfd;

CHR__PRIVATE short chr__os_poll_events(int events)
{
    return (short)((events & CHR_IN ? POLLIN : 0) | (events & CHR_OUT ? POLLOUT : 0) |
                   ((events & (CHR_IN | CHR_HUP)) == CHR_HUP ? CHR__POLLRDHUP : 0));
}

CHR__PRIVATE int chr__os_ready_events(short revents)
{
    if (revents == POLLIN)
        return CHR_IN;
    return (revents & POLLIN ? CHR_IN : 0) | (revents & POLLOUT ? CHR_OUT : 0) |
           (revents & (POLLHUP | POLLERR | POLLNVAL | CHR__POLLRDHUP) ? CHR_HUP : 0);
}

/* The number of ready descriptors; 0 also when a signal came. */
static int chr__os_poll(chr__pollfd *polls, int count, int timeout_ms)
{
    int n = CHR_SYS(poll)(polls, (nfds_t)count, timeout_ms);

    return n >= 0 ? n : errno == EINTR ? 0 : chr__os_code(errno);
}

/* Waits for one descriptor: what is ready, 0 at the time-out or a signal, or an error. */
CHR__PRIVATE int chr__os_wait(int fd, int events, int timeout_ms)
{
    chr__pollfd one;
    int         n;

    one.fd = fd;
    one.events = chr__os_poll_events(events);
    one.revents = 0;
    n = chr__os_poll(&one, 1, timeout_ms);
    return n <= 0 ? n : chr__os_ready_events(one.revents);
}

/* What wakes a sleeping loop: a pipe, since writing to one is allowed in a signal handler. */

typedef struct chr__waker {
    int fds[2];
} chr__waker;

static int chr__os_waker_open(chr__waker *waker)
{
    return chr__os_pipe(waker->fds) < 0 ? CHR_ERR_IO : 0;
}

static void chr__os_waker_close(chr__waker *waker)
{
    chr__os_close(waker->fds[0]);
    chr__os_close(waker->fds[1]);
}

static int chr__os_waker_fd(const chr__waker *waker) { return waker->fds[0]; }

static void chr__os_waker_ring(chr__waker *waker)
{
    int error = errno;

    (void)chr__os_write(waker->fds[1], CHR__FD_PLAIN, "", 1); /* its reader is here: no SIGPIPE */
    errno = error;
}

static void chr__os_waker_quiet(chr__waker *waker)
{
    char bytes[64];

    while (chr__os_read(waker->fds[0], bytes, sizeof bytes) == (int)sizeof bytes)
        ;
}

static int chr__os_loop_wait(chr__waker *waker, chr__pollfd *polls, int count, int timeout_ms)
{
    (void)waker; /* it is one of the descriptors */
    return chr__os_poll(polls, count, timeout_ms);
}

/* Terminals. */

typedef struct termios chr__termios;

/* EIO: a terminal that is hung up. */
CHR__PRIVATE int chr__os_is_terminal(int fd) { return CHR_SYS(isatty)(fd) == 1 || errno == EIO; }

CHR__PRIVATE int chr__os_is_character_device(int fd)
{
    struct stat info;

    return CHR_SYS(fstat)(fd, &info) == 0 && S_ISCHR(info.st_mode);
}

CHR__PRIVATE int chr__os_termios_get(int fd, chr__termios *settings)
{
    return CHR_SYS(tcgetattr)(fd, settings) < 0 ? chr__os_code(errno) : 0;
}

/* The size of a terminal's window, in characters. */
CHR__PRIVATE int chr__os_terminal_size(int fd, int *columns, int *rows)
{
    struct winsize size;

    if (CHR_SYS(ioctl)(fd, (chr__request)TIOCGWINSZ, &size) < 0)
        return chr__os_code(errno);
    *columns = size.ws_col;
    *rows = size.ws_row;
    return 0;
}

/* Whoever has the slave open gets SIGWINCH. */
CHR__PRIVATE int chr__os_terminal_resize(int fd, int columns, int rows)
{
    struct winsize size;

    memset(&size, 0, sizeof size);
    size.ws_col = (unsigned short)columns;
    size.ws_row = (unsigned short)rows;
    return CHR_SYS(ioctl)(fd, (chr__request)TIOCSWINSZ, &size) < 0 ? chr__os_code(errno) : 0;
}

CHR__PRIVATE int chr__os_termios_set(int fd, const chr__termios *settings)
{
    chr__hush hush;
    int       n, error;

    chr__hush_begin(&hush);
    do
        n = CHR_SYS(tcsetattr)(fd, TCSANOW, settings);
    while (n < 0 && errno == EINTR);
    error = n < 0 ? errno : 0;
    chr__hush_end(&hush, 0);
    return n < 0 ? chr__os_code(error) : 0;
}

/* The others that a terminal's own job in the foreground alone may call. */
CHR__PRIVATE int chr__os_terminal_ioctl(int fd, chr__request request, void *arg)
{
    chr__hush hush;
    int       n, error;

    chr__hush_begin(&hush);
    n = CHR_SYS(ioctl)(fd, request, arg);
    error = errno;
    chr__hush_end(&hush, 0);
    return n < 0 ? chr__os_code(error) : 0;
}

/* A terminal from which a shell has started us, and which it has given to another job since, or taken back: its
 * settings are that one's business. Any other terminal has no such jobs. */
CHR__PRIVATE int chr__os_is_background(int fd)
{
    pid_t foreground = tcgetpgrp(fd);

    return foreground >= 0 && foreground != getpgrp();
}

/* No echo, no canonical mode, no mapping of input; 8 bits. What the output side does stays the caller's. */
CHR__PRIVATE void chr__os_termios_raw(chr__termios *settings, int with_signals, int with_output_processing)
{
    settings->c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    settings->c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN | ISIG);
    settings->c_cflag &= ~(tcflag_t)(CSIZE | PARENB);
    settings->c_cflag |= CS8;
    settings->c_cc[VMIN] = 1;
    settings->c_cc[VTIME] = 0;
    if (with_signals)
        settings->c_lflag |= ISIG;
    if (!with_output_processing)
        settings->c_oflag &= ~(tcflag_t)OPOST;
}

CHR__PRIVATE void chr__os_termios_echo(chr__termios *settings, int echo)
{
    settings->c_lflag &= ~(tcflag_t)ECHO;
    if (echo)
        settings->c_lflag |= ECHO;
}

#if CHARDEV_HAS_STDIO
/* The process's terminal: the one thing that is there once per process, and so the one global. Its settings are put
 * back at close and by atexit(). For all other ends (a signal, _exit, SIGKILL) a small watcher process stays behind
 * that puts them back when it sees us gone: a handler would change a signal's disposition, and could not see
 * SIGKILL. Both put back only what is still as we have set it: what a shell or stty has set since is theirs. */
typedef struct chr__terminal_state {
    int          is_over;      /* to the watcher: all is put back, go */
    int          is_set;
    chr__termios before, ours; /* what was there, and what the terminal had when we had set it */
} chr__terminal_state;

static struct chr__terminal {
    char                holder[128]; /* the id of the stdio chardev; "" = free */
    pid_t               owner;
    chr__terminal_state state;
    chr__termios        wanted;     /* what it was set to */
    int                 watcher;    /* the pipe to it */
    int                 registered; /* with atexit() */
} chr__terminal;
static pthread_mutex_t chr__terminal_mutex = PTHREAD_MUTEX_INITIALIZER;

enum { CHR__TERMINAL_SHELL_MS = 20 };

static int chr__termios_same(const chr__termios *a, const chr__termios *b)
{
    return a->c_iflag == b->c_iflag && a->c_oflag == b->c_oflag && a->c_cflag == b->c_cflag &&
        a->c_lflag == b->c_lflag &&
           memcmp(a->c_cc, b->c_cc, sizeof a->c_cc) == 0;
}

/* Only calls that are allowed after fork() in a threaded process. */
static void chr__terminal_put_back(const chr__terminal_state *state)
{
    chr__termios now;

    if (state->is_set && tcgetattr(0, &now) == 0 && chr__termios_same(&now, &state->ours))
        (void)chr__os_termios_set(0, &state->before);
}

/* Holds nothing open but the terminal (0) and its pipe (1), or peers would never see our end. */
static void chr__terminal_close_others(int pipe_fd)
{
    long fd, limit = sysconf(_SC_OPEN_MAX);

    dup2(pipe_fd, 1);
#ifdef SYS_close_range
    if (syscall(SYS_close_range, 2u, ~0u, 0) == 0)
        return;
#endif
    if (limit < 0 || limit > 65536)
        limit = 65536;
    for (fd = 2; fd < limit; fd++)
        close((int)fd);
}

/* Readable when the process is gone, also where a child of its own still has the pipe. -1 = the system has no such
 * thing; then *is_gone may say that the process is gone already. */
static int chr__terminal_pidfd(pid_t owner, int *is_gone)
{
    int fd = -1;

    *is_gone = 0;
#ifdef SYS_pidfd_open
    fd = (int)syscall(SYS_pidfd_open, owner, 0);
    *is_gone = fd < 0 && errno == ESRCH;
#endif
    return (void)owner, fd;
}

/* Until the owner has ended, be it by exec(). Returns what it said last. */
static chr__terminal_state chr__terminal_attend(pid_t owner)
{
    chr__terminal_state last, next;
    struct pollfd       ends[2];
    ssize_t             n = 1;
    int                 is_gone;

    memset(&last, 0, sizeof last);
    memset(ends, 0, sizeof ends);
    ends[0].fd = 1;
    ends[1].fd = chr__terminal_pidfd(owner, &is_gone);
    ends[0].events = ends[1].events = POLLIN;
    while (n != 0 && !last.is_over) {
        (void)poll(ends, 2, is_gone ? 0 : -1);
        while ((n = read(1, &next, sizeof next)) == (ssize_t)sizeof next)
            last = next;
        if (is_gone || ends[1].revents)
            n = 0;
    }
    return last;
}

/* A shell that sees us end sets the terminal at once: it goes first. */
static void chr__terminal_watch(int pipe_fd, pid_t owner)
{
    chr__terminal_state last;

    chr__terminal_close_others(pipe_fd);
    if (chdir("/") < 0)
        _exit(1);
    last = chr__terminal_attend(owner);
    if (!last.is_over && last.is_set) {
        (void)poll(NULL, 0, CHR__TERMINAL_SHELL_MS);
        chr__terminal_put_back(&last);
    }
    _exit(0);
}

/* Twice forked, so that it is nobody's child and no wait() of the program's meets it. It is in another session
 * before we go on: no signal of the terminal and none to our process group ends it with us. Signals stay blocked in
 * it. */
static pid_t chr__terminal_fork(int pipe_fd, pid_t owner)
{
    sigset_t all, mask;
    pid_t    child;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &mask);
    child = CHR_SYS(fork)();
    if (child == 0) {
        setsid();
        if (fork() != 0)
            _exit(0);
        chr__terminal_watch(pipe_fd, owner);
    }
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    return child;
}

/* Process 1 needs none: nothing outlives it. */
static void chr__terminal_start_watcher(void)
{
    int   fds[2], status;
    pid_t child;

    if (chr__terminal.owner == 1 || chr__os_pipe(fds) < 0)
        return;
    child = chr__terminal_fork(fds[0], chr__terminal.owner);
    chr__os_close(fds[0]);
    if (child < 0) {
        chr__os_close(fds[1]);
        return;
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    chr__terminal.watcher = fds[1];
}

static void chr__terminal_tell_watcher(void)
{
    if (chr__terminal.watcher >= 0)
        (void)chr__os_write(chr__terminal.watcher, CHR__FD_LOUD, &chr__terminal.state, sizeof chr__terminal.state);
}

static void chr__os_terminal_release(void)
{
    pthread_mutex_lock(&chr__terminal_mutex);
    if (chr__terminal.holder[0] && chr__terminal.owner == getpid()) {
        chr__terminal_put_back(&chr__terminal.state);
        chr__terminal.state.is_over = 1;
        chr__terminal_tell_watcher();
        chr__os_close(chr__terminal.watcher);
        chr__terminal.holder[0] = 0;
    }
    pthread_mutex_unlock(&chr__terminal_mutex);
}

static void chr__terminal_take(const char *id)
{
    if (chr__terminal.holder[0])
        chr__os_close(chr__terminal.watcher); /* of the process that we were forked from */
    chr__format(chr__terminal.holder, sizeof chr__terminal.holder, "%s", id);
    chr__terminal.owner = getpid();
    chr__terminal.watcher = -1;
    memset(&chr__terminal.state, 0, sizeof chr__terminal.state);
    if (!chr__terminal.registered)
        chr__terminal.registered = atexit(chr__os_terminal_release) == 0;
}

/* Takes 0 and 1 for the chardev `id`; CHR_ERR_BUSY names who has them. */
static int chr__os_terminal_acquire(const char *id, chr_error *err)
{
    int code = 0;

    pthread_mutex_lock(&chr__terminal_mutex);
    if (chr__terminal.holder[0] && chr__terminal.owner == getpid())
        code = chr__fail(err, CHR_ERR_BUSY, "stdio: in use by chardev '%s'", chr__terminal.holder);
    else
        chr__terminal_take(id);
    pthread_mutex_unlock(&chr__terminal_mutex);
    return code;
}

/* The terminal as the holder wants it; nothing happens when it is so already. In the background nothing is touched,
 * and it is no error: the next call from the foreground does it. What others have set meanwhile is what is put back
 * at the end. */
static int chr__os_terminal_make_raw(int with_signals, int echo)
{
    chr__terminal_state *state = &chr__terminal.state;
    chr__termios         now, wanted;
    int                  is_ours, code = chr__os_is_background(0) ? 1 : chr__os_termios_get(0, &now);

    if (code != 0)
        return code < 0 ? code : 0;
    is_ours = state->is_set && chr__termios_same(&now, &state->ours);
    wanted = is_ours ? state->before : now;
    chr__os_termios_raw(&wanted, with_signals, 1);
    chr__os_termios_echo(&wanted, echo);
    if (is_ours && chr__termios_same(&wanted, &chr__terminal.wanted))
        return 0;
    if (!is_ours)
        state->before = now;
    if (!state->is_set)
        chr__terminal_start_watcher();
    state->is_set = 1;
    state->ours = chr__terminal.wanted = wanted;
    chr__terminal_tell_watcher(); /* before it is true: who is killed between the two leaves it as it was */
    code = chr__os_termios_set(0, &wanted);
    if (code == 0 && chr__os_termios_get(0, &now) == 0 && !chr__termios_same(&now, &wanted)) {
        state->ours = now;
        chr__terminal_tell_watcher();
    }
    return code;
}
#endif

#if CHARDEV_HAS_PTY
/* What happens to a file by others. Linux: inotify. */

enum { CHR__FILE_OPENED = 1, CHR__FILE_CLOSED = 2, CHR__FILE_CHANGED = 4, CHR__FILE_ANY = 8 }; /* CHANGED: owner, mode */
enum { CHR__NEWS = 16 };                                                 /* at a time; ANY: some were lost */

typedef struct chr__file_news {
    int number, what; /* of the watch: what chr__os_notifier_add() returned */
} chr__file_news;

#if defined(__linux__)
#include <sys/inotify.h>

static int chr__os_notifier_open(void)
{
    int fd = chr__os_above_standard(CHR_SYS(inotify_init1)(IN_NONBLOCK | IN_CLOEXEC));

    return fd < 0 ? chr__os_code(errno) : fd;
}

/* A number above 0, or an error. */
static int chr__os_notifier_add(int fd, const char *path)
{
    int number = CHR_SYS(inotify_add_watch)(fd, path, IN_OPEN | IN_CLOSE | IN_ATTRIB);

    return number < 0 ? chr__os_code(errno) : number;
}

static void chr__os_notifier_remove(int fd, int number)
{
    (void)CHR_SYS(inotify_rm_watch)(fd, number);
}

/* Up to CHR__NEWS; how many. Those of files have no name behind them. */
static int chr__os_notifier_read(int fd, chr__file_news *news)
{
    char                 bytes[CHR__NEWS * sizeof(struct inotify_event)];
    struct inotify_event event;
    int                  i, n = chr__os_read(fd, bytes, sizeof bytes);

    n = n < 0 ? 0 : n / (int)sizeof event;
    for (i = 0; i < n; i++) {
        memcpy(&event, bytes + (size_t)i * sizeof event, sizeof event);
        news[i].number = event.wd;
        news[i].what = (event.mask & IN_OPEN ? CHR__FILE_OPENED : 0) | (event.mask & IN_CLOSE ? CHR__FILE_CLOSED : 0) |
                       (event.mask & IN_ATTRIB ? CHR__FILE_CHANGED : 0) |
                       (event.mask & IN_Q_OVERFLOW ? CHR__FILE_ANY : 0);
    }
    return n;
}
#else
static int  chr__os_notifier_open(void) { return CHR_ERR_NOT_SUPPORTED; }
static int  chr__os_notifier_add(int fd, const char *path) { return (void)fd, (void)path, CHR_ERR_NOT_SUPPORTED; }
static void chr__os_notifier_remove(int fd, int number) { (void)fd, (void)number; }
static int  chr__os_notifier_read(int fd, chr__file_news *news) { return (void)fd, (void)news, 0; }
#endif

#if defined(__APPLE__)
#define CHR__STAT_TIME(info, which) ((info).st_##which##timespec)
#else
#define CHR__STAT_TIME(info, which) ((info).st_##which##tim)
#endif

/* Whether the symlink leads there. */
static int chr__os_link_leads_to(const char *path, const char *target)
{
    char    text[256];
    ssize_t n = CHR_SYS(readlink)(path, text, sizeof text);

    return n >= 0 && (size_t)n == strlen(target) && memcmp(text, target, (size_t)n) == 0;
}

/* The symlink to a terminal bears the time of that terminal's last change (ctime), to be told from one to a later
 * terminal of the same name. Afresh after each change of owner or mode. */
static void chr__os_link_stamp(const char *path, const char *terminal)
{
    struct stat     info;
    struct timespec times[2];

    if (CHR_SYS(stat)(terminal, &info) < 0)
        return;
    times[0] = times[1] = CHR__STAT_TIME(info, c);
    (void)CHR_SYS(utimensat)(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
}

/* 1 = a symlink into the file system of the pty `own`, left behind by a process that is gone: its terminal is gone
 * too, or another has its name by now, made after the link. -1 = one to a terminal in use; 0 = any other file. */
static int chr__os_link_is_stale(const char *path, const char *own)
{
    size_t          directory = (size_t)(strrchr(own, '/') - own) + 1;
    struct stat     link, terminal;
    struct timespec made, changed;
    char            target[256];
    ssize_t         n = CHR_SYS(readlink)(path, target, sizeof target - 1);

    target[n < 0 ? 0 : n] = 0;
    if (strncmp(target, own, directory) != 0 || strchr(target + directory, '/') || CHR_SYS(lstat)(path, &link) < 0)
        return 0;
    if (CHR_SYS(stat)(target, &terminal) < 0)
        return errno == ENOENT ? 1 : -1;
    made = CHR__STAT_TIME(link, m);
    changed = CHR__STAT_TIME(terminal, c);
    if (made.tv_nsec == 0) /* a file system that counts in seconds */
        changed.tv_nsec = 0;
    return changed.tv_sec > made.tv_sec || (changed.tv_sec == made.tv_sec && changed.tv_nsec > made.tv_nsec) ? 1 : -1;
}

/* The master of a new pty, and the name of its slave in name[size]. */
static int chr__os_pty_open(char *name, size_t size, chr_error *err)
{
#if defined(__linux__)
    int number = 0, unlocked = 0, fd = chr__os_open("/dev/ptmx", CHR__OPEN_BOTH, err);

    if (fd < 0)
        return fd;
    if (CHR_SYS(ioctl)(fd, (chr__request)TIOCSPTLCK, &unlocked) < 0 || CHR_SYS(ioctl)(fd, (chr__request)TIOCGPTN, &number) < 0) {
        int error = errno;
        chr__os_close(fd);
        return chr__os_fail(err, error, "cannot make", "a pty");
    }
    chr__format(name, size, "/dev/pts/%d", number);
    return fd;
#else
    const char *slave;
    int         fd = chr__os_above_standard(posix_openpt(O_RDWR | O_NOCTTY));

    if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0 || !(slave = ptsname(fd)) || chr__os_adopt(fd) < 0) {
        int error = errno;
        chr__os_close(fd);
        return chr__os_fail(err, error, "cannot make", "a pty");
    }
    chr__format(name, size, "%s", slave);
    return fd;
#endif
}

/* What has come to the slave and nobody has read is thrown away. That can be asked of the slave only. */
static void chr__os_pty_flush(const char *name)
{
    int fd = chr__os_open(name, CHR__OPEN_BOTH, NULL);

    if (fd >= 0)
        (void)CHR_SYS(tcflush)(fd, TCIFLUSH);
    chr__os_close(fd);
}

/* Makes the slave raw. That opens and closes it, after which the master reports a hang-up as long as nobody has it open. */
static int chr__os_pty_make_raw(const char *name, chr_error *err)
{
    chr__termios settings;
    int          code, fd = chr__os_open(name, CHR__OPEN_BOTH, err);

    if (fd < 0)
        return fd;
    code = chr__os_termios_get(fd, &settings);
    if (code == 0) {
        chr__os_termios_raw(&settings, 0, 0);
        code = chr__os_termios_set(fd, &settings);
    }
    chr__os_close(fd);
    return code < 0 ? chr__fail(err, code, "cannot make the terminal %s raw: %s", name, chr_error_text(code)) : 0;
}
#endif

#if CHARDEV_HAS_SOCKET || CHARDEV_HAS_UDP
/* Addresses. */

typedef struct chr__sockaddr {
    struct sockaddr_storage storage;
    socklen_t               length;
} chr__sockaddr;

#define CHR__MAX_ADDRESSES 16

/* The reasons of getaddrinfo() are not errno's. */
static int chr__os_lookup_fail(chr_error *err, int reason, const char *host, const char *port)
{
    return chr__fail(err, reason == EAI_MEMORY ? CHR_ERR_NO_MEMORY : CHR_ERR_NOT_FOUND, "cannot look up %s:%s: %s",
                     host ? host : "", port, gai_strerror(reason));
}

/* Addresses for host and port (names or numbers), up to CHR__MAX_ADDRESSES; returns how many. type is SOCK_STREAM or SOCK_DGRAM,
 * family is 0, 4 or 6. Asking for a name can block; with numeric_only a name is CHR_ERR_WOULD_BLOCK instead. */
static int chr__os_lookup_type(int type, const char *host, const char *port, int family, int passive, int numeric_only,
                               chr__sockaddr *found, chr_error *err)
{
    struct addrinfo hints, *list = NULL, *entry;
    int             reason, count = 0;

    memset(&hints, 0, sizeof hints);
    hints.ai_family = family == 4 ? AF_INET : family == 6 ? AF_INET6 : AF_UNSPEC;
    hints.ai_socktype = type;
    hints.ai_flags = (passive ? AI_PASSIVE : 0) | (numeric_only ? AI_NUMERICHOST : 0);
    reason = CHR_SYS(getaddrinfo)(host, port, &hints, &list);
    if (reason == EAI_NONAME && numeric_only && host)
        return CHR_ERR_WOULD_BLOCK;
    if (reason != 0)
        return chr__os_lookup_fail(err, reason, host, port);
    for (entry = list; entry && count < CHR__MAX_ADDRESSES; entry = entry->ai_next) {
        if (entry->ai_addrlen > sizeof found->storage)
            continue;
        memcpy(&found[count].storage, entry->ai_addr, entry->ai_addrlen);
        found[count++].length = entry->ai_addrlen;
    }
    CHR_SYS(freeaddrinfo)(list);
    return count > 0 ? count : chr__os_lookup_fail(err, EAI_NONAME, host, port);
}

static void chr__os_unix_name(const chr__sockaddr *address, char *text, size_t size)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)&address->storage;
    size_t                    len = address->length - offsetof(struct sockaddr_un, sun_path);

    if (address->length <= offsetof(struct sockaddr_un, sun_path))
        len = 0;
    if (len > 0 && un->sun_path[0] == 0)
        chr__format(text, size, "@%.*s", (int)(len - 1), un->sun_path + 1);
    else
        chr__format(text, size, "%.*s", (int)len, un->sun_path);
}

/* The socket's own name, or its peer's: HOST:PORT with numbers, IPv6 in brackets; CID:PORT; a path. */
static void chr__os_socket_name(int fd, int of_peer, char *text, size_t size)
{
    chr__sockaddr address;
    char          host[NI_MAXHOST], port[NI_MAXSERV];
    int           failed;

    memset(&address, 0, sizeof address);
    address.length = sizeof address.storage;
    text[0] = 0;
    failed = of_peer ? CHR_SYS(getpeername)(fd, (struct sockaddr *)&address.storage, &address.length)
                     : CHR_SYS(getsockname)(fd, (struct sockaddr *)&address.storage, &address.length);
    if (failed)
        return;
    if (address.storage.ss_family == AF_UNIX)
        chr__os_unix_name(&address, text, size);
    else if (getnameinfo((const struct sockaddr *)&address.storage, address.length, host, sizeof host, port, sizeof port,
                         NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        chr__format(text, size, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

#endif

#if CHARDEV_HAS_SOCKET
/* Sockets. */

#define CHR__MAX_MSGFDS 16

static int chr__os_lookup(const char *host, const char *port, int family, int passive, int numeric_only, chr__sockaddr *found,
                          chr_error *err)
{
    return chr__os_lookup_type(SOCK_STREAM, host, port, family, passive, numeric_only, found, err);
}

static int chr__os_sockaddr_is_ipv6(const chr__sockaddr *address) { return address->storage.ss_family == AF_INET6; }

static int chr__os_sockaddr_unix(const char *path, int abstract, int tight, chr__sockaddr *address, chr_error *err)
{
    struct sockaddr_un *un = (struct sockaddr_un *)(void *)&address->storage;
    size_t              len = strlen(path), room = sizeof un->sun_path - 1;

    if (len == 0 || len > room)
        return chr__fail(err, CHR_ERR_INVALID, "socket: path=%s: has %d bytes: 1 to %d fit", path, (int)len, (int)room);
#ifndef __linux__
    if (abstract)
        return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "abstract socket '%s': only Linux has those", path);
#endif
    memset(address, 0, sizeof *address);
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path + (abstract ? 1 : 0), path, len);
    address->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    if (abstract && !tight)
        address->length = sizeof *un;
    return 1;
}

static int chr__os_sockaddr_vsock(int64_t cid, int64_t port, chr__sockaddr *address, chr_error *err)
{
#ifdef AF_VSOCK
    struct chr__sockaddr_vm { /* as the kernel has it; its header is not everywhere */
        sa_family_t    family;
        unsigned short reserved;
        unsigned       port, cid;
        unsigned char  zero[4];
    } *vm = (struct chr__sockaddr_vm *)(void *)&address->storage;

    (void)err;
    memset(address, 0, sizeof *address);
    vm->family = AF_VSOCK;
    vm->cid = (unsigned)cid;
    vm->port = (unsigned)port;
    address->length = sizeof *vm;
    return 1;
#else
    (void)cid, (void)port, (void)address;
    return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "vsock: not on this system");
#endif
}

static int chr__os_socket_new(const chr__sockaddr *address, chr_error *err)
{
    int fd = chr__os_above_standard(CHR_SYS(socket)(address->storage.ss_family, SOCK_STREAM, 0));

    if (fd < 0)
        return chr__os_fail(err, errno, "cannot make", "a socket");
    if (chr__os_adopt(fd) < 0) {
        int error = errno;
        chr__os_close(fd);
        return chr__os_fail(err, error, "cannot set flags of", "a socket");
    }
#ifdef SO_NOSIGPIPE
    {
        int on = 1;
        (void)CHR_SYS(setsockopt)(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
    }
#endif
    return fd;
}

/* How a server listens, beside its address. Zeroed: as the system does by default. */
typedef struct chr__listen_terms {
    int           is_one_family;      /* an IPv6 socket takes no IPv4 peers */
    int           has_mode, has_group;
    unsigned      mode, group;        /* of a unix socket's file */
    chr__file_id *file;               /* out: that file */
} chr__listen_terms;

/* The path of a unix socket's file; NULL = it has none. */
static const char *chr__os_socket_path(const chr__sockaddr *address)
{
    const char *path = ((const struct sockaddr_un *)(const void *)&address->storage)->sun_path;

    return address->storage.ss_family == AF_UNIX && path[0] ? path : NULL;
}

/* A unix socket file that no socket is bound to any more. Asked with a datagram socket, which a living listener never
 * sees: the answer is EPROTOTYPE then, and ECONNREFUSED when nobody is there. A symlink is no socket file. */
static int chr__os_is_stale(const chr__sockaddr *address)
{
    const char *path = chr__os_socket_path(address);
    struct stat info;
    int         fd, stale;

    if (!path || CHR_SYS(lstat)(path, &info) < 0 || !S_ISSOCK(info.st_mode))
        return 0;
    fd = chr__os_above_standard(CHR_SYS(socket)(AF_UNIX, SOCK_DGRAM, 0));
    if (fd < 0)
        return 0;
    stale = CHR_SYS(connect)(fd, (const struct sockaddr *)&address->storage, address->length) < 0 && errno == ECONNREFUSED;
    chr__os_close(fd);
    return stale;
}

static int chr__os_bind_once(int fd, const chr__sockaddr *address)
{
    return CHR_SYS(bind)(fd, (const struct sockaddr *)&address->storage, address->length) < 0 ? errno : 0;
}

/* A stale socket file is replaced. 0, or an errno. */
static int chr__os_bind(int fd, const chr__sockaddr *address, const chr__listen_terms *terms)
{
    int on = 1, error;

    if (address->storage.ss_family == AF_INET || address->storage.ss_family == AF_INET6)
        (void)CHR_SYS(setsockopt)(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (address->storage.ss_family == AF_INET6)
        (void)CHR_SYS(setsockopt)(fd, IPPROTO_IPV6, IPV6_V6ONLY, &terms->is_one_family, sizeof terms->is_one_family);
    error = chr__os_bind_once(fd, address);
    if (error != EADDRINUSE || !chr__os_is_stale(address))
        return error;
    (void)CHR_SYS(unlink)(chr__os_socket_path(address));
    return chr__os_bind_once(fd, address);
}

/* Group and permissions of a socket file, before anybody can connect: nobody can until listen(). 0, or an errno. */
static int chr__os_set_access(const char *path, const chr__listen_terms *terms)
{
    if (terms->has_group && CHR_SYS(lchown)(path, (uid_t)-1, (gid_t)terms->group) < 0)
        return errno;
    return terms->has_mode && CHR_SYS(chmod)(path, (mode_t)terms->mode) < 0 ? errno : 0;
}

/* What else is in the way of a unix server than a server; NULL = nothing. */
static const char *chr__os_in_the_way(const chr__sockaddr *address)
{
    const char *path = chr__os_socket_path(address);
    struct stat info;

    if (!path || CHR_SYS(lstat)(path, &info) < 0 || S_ISSOCK(info.st_mode))
        return NULL;
    return " (by a file that is no socket)";
}

/* A listening socket; `name` is for the message. After an error no file of it is left. */
static int chr__os_listen(const chr__sockaddr *address, const char *name, const chr__listen_terms *terms,
                          chr_error *err)
{
    const char  *path = chr__os_socket_path(address), *other;
    chr__file_id file;
    int          error, fd = chr__os_socket_new(address, err);

    if (fd < 0)
        return fd;
    memset(&file, 0, sizeof file);
    error = chr__os_bind(fd, address, terms);
    if (error == 0 && path) {
        file = chr__os_file_id(path);
        error = chr__os_set_access(path, terms);
    }
    if (error == 0 && CHR_SYS(listen)(fd, 16) < 0)
        error = errno;
    if (terms->file)
        *terms->file = file;
    if (error == 0)
        return fd;
    if (path)
        chr__os_unlink_own(path, &file);
    chr__os_close(fd);
    other = error == EADDRINUSE ? chr__os_in_the_way(address) : NULL;
    chr__os_fail(err, error, "cannot listen on", name);
    if (err && other)
        chr__append(err->text, sizeof err->text, strlen(err->text), "%s", other);
    return chr__os_code(error);
}

/* The number of a group. CHR_ERR_NOT_FOUND; CHR_ERR_NO_MEMORY when buf[size] is too small for its list of members. */
static int chr__os_group(const char *name, char *buf, size_t size, unsigned *number)
{
    struct group entry, *found = NULL;
    int          error;

    do
        error = getgrnam_r(name, &entry, buf, size, &found);
    while (error == EINTR);
    if (!found)
        return error == ERANGE ? CHR_ERR_NO_MEMORY : CHR_ERR_NOT_FOUND;
    *number = (unsigned)found->gr_gid;
    return 0;
}

/* A socket that is connected, or (*in_progress) will be when it is writable: then ask chr__os_connect_result(). A unix
 * server whose backlog is full is CHR_ERR_WOULD_BLOCK: connect() has to be called again. */
static int chr__os_connect(const chr__sockaddr *address, const char *name, int *in_progress, chr_error *err)
{
    int error, fd = chr__os_socket_new(address, err);

    *in_progress = 0;
    if (fd < 0)
        return fd;
    if (CHR_SYS(connect)(fd, (const struct sockaddr *)&address->storage, address->length) == 0)
        return fd;
    error = errno;
    *in_progress = error == EINPROGRESS || error == EINTR;
    if (*in_progress)
        return fd;
    chr__os_close(fd);
    return chr__os_fail(err, error, "cannot connect to", name);
}

static int chr__os_connect_result(int fd, const char *name, chr_error *err)
{
    int       error = 0;
    socklen_t length = sizeof error;

    if (CHR_SYS(getsockopt)(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
        error = errno;
    return error ? chr__os_fail(err, error, "cannot connect to", name) : 0;
}

static int chr__os_accept(int fd)
{
    int error, peer;

    chr__os_set_nonblocking(fd, 1); /* who shares it may have cleared that, and may take the peer before us */
    do
        peer = CHR_SYS(accept)(fd, NULL, NULL);
    while (peer < 0 && (errno == EINTR || errno == ECONNABORTED));
    peer = chr__os_above_standard(peer);
    if (peer < 0)
        return chr__os_code(errno);
    if (chr__os_adopt(peer) >= 0)
        return peer;
    error = errno;
    chr__os_close(peer);
    return chr__os_code(error == EAGAIN ? EIO : error);
}

/* TCP asks a silent peer whether it is there: seconds, seconds and a count; 0 = as the system has it. Output that
 * nobody acknowledges is given up after as long. What a system has no name for stays as it is. */
static void chr__os_keep_alive(int fd, int idle, int interval, int count)
{
    int on = 1;

    (void)CHR_SYS(setsockopt)(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
#ifdef TCP_KEEPIDLE
    if (idle > 0)
        (void)CHR_SYS(setsockopt)(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
#elif defined(TCP_KEEPALIVE)
    if (idle > 0)
        (void)CHR_SYS(setsockopt)(fd, IPPROTO_TCP, TCP_KEEPALIVE, &idle, sizeof idle);
#endif
#ifdef TCP_KEEPINTVL
    if (interval > 0)
        (void)CHR_SYS(setsockopt)(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
#endif
#ifdef TCP_KEEPCNT
    if (count > 0)
        (void)CHR_SYS(setsockopt)(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
#endif
#ifdef TCP_USER_TIMEOUT
    if (idle > 0) {
        unsigned ms = 1000u * ((unsigned)idle + (interval > 0 ? (unsigned)interval : 75u) *
                               (count > 0 ? (unsigned)count : 9u));
        (void)CHR_SYS(setsockopt)(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
    }
#endif
}

/* The four or sixteen bytes of an address in digits; 0 = it is something else. */
CHR__PRIVATE size_t chr__os_ip_bytes(const char *text, unsigned char bytes[16])
{
    return inet_pton(AF_INET, text, bytes) == 1 ? 4 : inet_pton(AF_INET6, text, bytes) == 1 ? 16 : 0;
}

/* Whether our end of a connection has a loopback address. */
CHR__PRIVATE int chr__os_is_on_loopback(int fd)
{
    static const unsigned char mapped[13] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127 };
    union {
        struct sockaddr     any;
        struct sockaddr_in  in;
        struct sockaddr_in6 in6;
    } address;
    socklen_t size = sizeof address;

    memset(&address, 0, sizeof address);
    if (CHR_SYS(getsockname)(fd, &address.any, &size) < 0)
        return 0;
    if (address.any.sa_family == AF_INET)
        return ntohl(address.in.sin_addr.s_addr) >> 24 == 127;
    return address.any.sa_family == AF_INET6 &&
        (memcmp(&address.in6.sin6_addr, &in6addr_loopback, sizeof in6addr_loopback) == 0 ||
         memcmp(&address.in6.sin6_addr, mapped, sizeof mapped) == 0);
}

static void chr__os_nodelay(int fd)
{
    int on = 1;

    (void)CHR_SYS(setsockopt)(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* fails where it means nothing */
}

/* Urgent data stays in its place among the bytes (RFC 6093 section 6): without it, the system takes the byte at the
 * mark out of the stream. */
static void chr__os_urgent_inline(int fd)
{
    int on = 1;

    (void)CHR_SYS(setsockopt)(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on); /* fails where there is no urgent data */
}

/* What a descriptor is that came from elsewhere. */
typedef struct chr__socket_facts {
    int is_open, is_socket, is_stream, is_listening, is_connected, is_unix, is_inet;
} chr__socket_facts;

static void chr__os_socket_facts(int fd, chr__socket_facts *facts)
{
    chr__sockaddr address;
    int           value = 0;
    socklen_t     length = sizeof value;

    memset(facts, 0, sizeof *facts);
    facts->is_open = fd >= 0 && chr__os_is_open(fd);
    if (!facts->is_open || CHR_SYS(getsockopt)(fd, SOL_SOCKET, SO_TYPE, &value, &length) < 0)
        return;
    facts->is_socket = 1;
    facts->is_stream = value == SOCK_STREAM;
    value = 0;
    length = sizeof value;
    facts->is_listening = CHR_SYS(getsockopt)(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &length) == 0 && value;
    memset(&address, 0, sizeof address);
    address.length = sizeof address.storage;
    facts->is_connected = CHR_SYS(getpeername)(fd, (struct sockaddr *)&address.storage, &address.length) == 0;
    address.length = sizeof address.storage;
    (void)CHR_SYS(getsockname)(fd, (struct sockaddr *)&address.storage, &address.length);
    facts->is_unix = address.storage.ss_family == AF_UNIX;
    facts->is_inet = address.storage.ss_family == AF_INET || address.storage.ss_family == AF_INET6;
}

/* Ports as numbers, for `to`. */
static void chr__os_sockaddr_set_port(chr__sockaddr *address, int port)
{
    if (address->storage.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)(void *)&address->storage)->sin6_port = htons((uint16_t)port);
    else
        ((struct sockaddr_in *)(void *)&address->storage)->sin_port = htons((uint16_t)port);
}

static int chr__os_sockaddr_port(const chr__sockaddr *address)
{
    return ntohs(address->storage.ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)(const void *)&address->storage)->sin6_port
                                                        : ((const struct sockaddr_in *)(const void *)&address->storage)->sin_port);
}

typedef union chr__control { /* room for the descriptors of one message, aligned as the system wants it */
    size_t align;
    char   bytes[CMSG_SPACE(sizeof(int) * CHR__MAX_MSGFDS)];
} chr__control;

/* send() with descriptors beside the first byte. */
static int chr__os_send_fds(int fd, const void *buf, size_t len, const int *fds, int count)
{
    struct msghdr   message;
    struct iovec    part;
    struct cmsghdr *header;
    chr__control    control;
    ssize_t         n;

    memset(&message, 0, sizeof message);
    memset(&control, 0, sizeof control);
    part.iov_base = (void *)(uintptr_t)buf;
    part.iov_len = len;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = (socklen_t)CMSG_SPACE(sizeof(int) * (size_t)count);
    header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = (socklen_t)CMSG_LEN(sizeof(int) * (size_t)count);
    memcpy(CMSG_DATA(header), fds, sizeof(int) * (size_t)count);
    do
        n = CHR_SYS(sendmsg)(fd, &message, CHR__SEND_FLAGS);
    while (n < 0 && errno == EINTR);
    return n < 0 ? chr__os_code(errno) : (int)n;
}

/* As they should arrive: CLOEXEC and blocking, whatever the sender had, and above the standard ones. -1 when that
 * fails: it is gone. */
static int chr__os_received_fd(int fd)
{
    int flags;

    fd = chr__os_above_standard(fd);
    flags = fd < 0 ? -1 : CHR_SYS(fcntl)(fd, F_GETFL);
    if (fd < 0)
        return -1;

    (void)CHR_SYS(fcntl)(fd, F_SETFD, FD_CLOEXEC);
    if (flags >= 0 && (flags & O_NONBLOCK))
        (void)CHR_SYS(fcntl)(fd, F_SETFL, flags & ~O_NONBLOCK);
    return fd;
}

/* The descriptors in `length` control bytes, into fds[CHR__MAX_MSGFDS]; how many. */
static int chr__os_control_fds(chr__control *control, size_t length, int *fds)
{
    struct cmsghdr *header;
    size_t          at, i, here;
    int             count = 0;

    for (at = 0; at + sizeof *header <= length; at += CMSG_SPACE(header->cmsg_len - CMSG_LEN(0))) {
        header = (struct cmsghdr *)(void *)(control->bytes + at);
        if (header->cmsg_len < CMSG_LEN(0))
            break;
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        here = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (i = 0; i < here && count < CHR__MAX_MSGFDS; i++) {
            memcpy(&fds[count], CMSG_DATA(header) + sizeof(int) * i, sizeof(int));
            fds[count] = chr__os_received_fd(fds[count]);
            count += fds[count] >= 0;
        }
    }
    return count;
}

/* What recvmsg() is told, made once for a connection. */
typedef struct chr__receiver {
    struct msghdr message;
    struct iovec  part;
    chr__control  control;
} chr__receiver;

static void chr__os_receiver_init(chr__receiver *receiver)
{
    memset(receiver, 0, sizeof *receiver);
    receiver->message.msg_iov = &receiver->part;
    receiver->message.msg_iovlen = 1;
    receiver->message.msg_control = receiver->control.bytes;
}

/* recv() that also takes descriptors: *length of them are then in its control bytes. */
static int chr__os_receive(int fd, chr__receiver *receiver, void *buf, size_t len, size_t *length)
{
    ssize_t n;

    receiver->part.iov_base = buf;
    receiver->part.iov_len = len;
    receiver->message.msg_controllen = sizeof receiver->control.bytes;
    do
        n = CHR_SYS(recvmsg)(fd, &receiver->message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    *length = n < 0 ? 0 : receiver->message.msg_controllen;
    return n < 0 ? chr__os_code(errno) : (int)n;
}

#ifdef CHARDEV_THREADS
/* A name is looked up in the background. Asker and thread hold it together; who lets go last frees it. It lives outside the context's
 * allocator, which belongs to the asker's thread. */
typedef struct chr__lookup {
    pthread_mutex_t mutex;
    int             holders, family, count;
    int             fds[2];      /* a pipe: readable when the answer is there */
    char           *host, *port; /* in `text` */
    chr__sockaddr   found[CHR__MAX_ADDRESSES];
    chr_error       err;
    char            text[1];
} chr__lookup;

static void chr__os_lookup_release(chr__lookup *lookup)
{
    int left;

    if (!lookup)
        return;
    pthread_mutex_lock(&lookup->mutex);
    left = --lookup->holders;
    pthread_mutex_unlock(&lookup->mutex);
    if (left > 0)
        return;
    pthread_mutex_destroy(&lookup->mutex);
    chr__os_close(lookup->fds[0]);
    chr__os_close(lookup->fds[1]);
    free(lookup);
}

static void *chr__os_lookup_thread(void *opaque)
{
    chr__lookup *lookup = (chr__lookup *)opaque;
    int          count = chr__os_lookup(lookup->host, lookup->port, lookup->family, 0, 0, lookup->found, &lookup->err);

    pthread_mutex_lock(&lookup->mutex);
    lookup->count = count;
    pthread_mutex_unlock(&lookup->mutex);
    (void)chr__os_write(lookup->fds[1], CHR__FD_PLAIN, "", 1); /* its reader is here: no SIGPIPE */
    chr__os_lookup_release(lookup);
    return NULL;
}

static chr__lookup *chr__os_lookup_new(const char *host, const char *port, int family)
{
    size_t       host_size = strlen(host) + 1, port_size = strlen(port) + 1;
    chr__lookup *lookup = (chr__lookup *)calloc(1, sizeof *lookup + host_size + port_size);

    if (!lookup)
        return NULL;
    lookup->host = (char *)memcpy(lookup->text, host, host_size);
    lookup->port = (char *)memcpy(lookup->text + host_size, port, port_size);
    lookup->family = family;
    lookup->holders = 2;
    pthread_mutex_init(&lookup->mutex, NULL);
    if (chr__os_pipe(lookup->fds) == 0)
        return lookup;
    lookup->holders = 1;
    chr__os_lookup_release(lookup);
    return NULL;
}

/* Begins to look up a name; NULL when there is no memory, descriptor or thread for it. */
static chr__lookup *chr__os_lookup_start(const char *host, const char *port, int family)
{
    chr__lookup   *lookup = chr__os_lookup_new(host, port, family);
    pthread_attr_t attributes;
    pthread_t      thread;
    sigset_t       all, old;
    int            failed;

    if (!lookup)
        return NULL;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all); /* signals stay the program's business */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    failed = pthread_create(&thread, &attributes, chr__os_lookup_thread, lookup);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    if (!failed)
        return lookup;
    lookup->holders = 1;
    chr__os_lookup_release(lookup);
    return NULL;
}

static int chr__os_lookup_fd(const chr__lookup *lookup) { return lookup->fds[0]; }

/* When its descriptor is readable: as chr__os_lookup(). */
static int chr__os_lookup_result(chr__lookup *lookup, chr__sockaddr *found, chr_error *err)
{
    int count;

    pthread_mutex_lock(&lookup->mutex);
    count = lookup->count;
    pthread_mutex_unlock(&lookup->mutex);
    if (count > 0)
        memcpy(found, lookup->found, sizeof lookup->found);
    else if (err)
        *err = lookup->err;
    return count;
}
#else
/* Without threads there is no background: names are looked up where they are needed, and that can block. */
typedef struct chr__lookup {
    int nothing;
} chr__lookup;

static void chr__os_lookup_release(chr__lookup *lookup) { (void)lookup; }

static chr__lookup *chr__os_lookup_start(const char *host, const char *port, int family)
{
    (void)host, (void)port, (void)family;
    return NULL;
}

static int chr__os_lookup_fd(const chr__lookup *lookup) { (void)lookup; return -1; }

static int chr__os_lookup_result(chr__lookup *lookup, chr__sockaddr *found, chr_error *err)
{
    (void)lookup, (void)found;
    return chr__no_memory(err);
}
#endif
#endif /* CHARDEV_HAS_SOCKET */

#if CHARDEV_HAS_BRLAPI
/* The process's environment, which is no system call; NULL = not set. */
static const char *chr__os_environment(const char *name)
{
    return getenv(name);
}
#endif

#if CHARDEV_HAS_SERIAL
/* Serial lines. */

/* The code of a standard speed; 0 where there is none. */
#if B9600 != 9600
/* Where the codes are not the speeds: the standard ones. */
static const struct {
    int     speed;
    speed_t code;
} chr__speeds[] = {
    { 50, B50 }, { 75, B75 }, { 110, B110 }, { 134, B134 }, { 150, B150 }, { 200, B200 }, { 300, B300 }, { 600, B600 },
    { 1200, B1200 }, { 1800, B1800 }, { 2400, B2400 }, { 4800, B4800 }, { 9600, B9600 }, { 19200, B19200 },
        { 38400, B38400 },
    { 57600, B57600 }, { 115200, B115200 }, { 230400, B230400 },
#ifdef B4000000
    { 460800, B460800 }, { 500000, B500000 }, { 576000, B576000 }, { 921600, B921600 }, { 1000000, B1000000 },
    { 1152000, B1152000 }, { 1500000, B1500000 }, { 2000000, B2000000 }, { 2500000, B2500000 }, { 3000000, B3000000 },
    { 3500000, B3500000 }, { 4000000, B4000000 },
#endif
};

enum { CHR__SPEEDS = sizeof chr__speeds / sizeof chr__speeds[0] };
#endif

static int chr__os_speed_code(int speed, speed_t *code)
{
#if B9600 == 9600
    *code = (speed_t)speed;
    return 1;
#else
    int i;

    for (i = 0; i < CHR__SPEEDS && chr__speeds[i].speed != speed; i++)
        ;
    if (i == CHR__SPEEDS)
        return 0;
    *code = chr__speeds[i].code;
    return 1;
#endif
}

/* Back from a code; 0 = it is no standard one. */
static int chr__os_speed_of(speed_t code)
{
#if B9600 == 9600
    return (int)code;
#else
    int i;

    for (i = 0; i < CHR__SPEEDS && chr__speeds[i].code != code; i++)
        ;
    return i == CHR__SPEEDS ? 0 : chr__speeds[i].speed;
#endif
}

/* The nearest standard speed within 10 %. */
static int chr__os_speed_near(int speed, speed_t *code)
{
    int off;

    for (off = 0; off <= speed / 10; off++)
        if (chr__os_speed_code(speed + off, code) || chr__os_speed_code(speed - off, code))
            return 1;
    return 0;
}

#if defined(__linux__) && (defined(__x86_64__) || defined(__i386__) || defined(__arm__) || defined(__aarch64__) || \
                           defined(__riscv) || defined(__s390__))
/* Any speed, by number. Its header can't stand beside termios.h; on these machines it has this layout. */
struct chr__termios2 {
    unsigned      iflag, oflag, cflag, lflag;
    unsigned char line, cc[19];
    unsigned      ispeed, ospeed;
};

static int chr__os_speed_exact(int fd, int speed)
{
    enum { BAUD_MASK = 0010017, BAUD_OTHER = 0010000, INPUT_SHIFT = 16 };
    struct chr__termios2 settings;

    if (CHR_SYS(ioctl)(fd, (chr__request)_IOR('T', 0x2a, struct chr__termios2), &settings) < 0)
        return chr__os_code(errno);
    settings.cflag &= ~((unsigned)BAUD_MASK | (unsigned)BAUD_MASK << INPUT_SHIFT);
    settings.cflag |= BAUD_OTHER;
    settings.ispeed = settings.ospeed = (unsigned)speed;
    return chr__os_terminal_ioctl(fd, (chr__request)_IOW('T', 0x2b, struct chr__termios2), &settings);
}

/* 0 = not known. */
static int chr__os_speed_now(int fd)
{
    struct chr__termios2 settings;

    return CHR_SYS(ioctl)(fd, (chr__request)_IOR('T', 0x2a, struct chr__termios2), &settings) < 0 ? 0 :
        (int)settings.ospeed;
}
#else
static int chr__os_speed_exact(int fd, int speed)
{
    (void)fd, (void)speed;
    return CHR_ERR_NOT_SUPPORTED;
}

static int chr__os_speed_now(int fd)
{
    (void)fd;
    return 0;
}
#endif

/* What the system has for mark and space parity, and for hardware flow control in one direction; 0 = nothing. */
#ifdef CMSPAR
#define CHR__STICK_PARITY ((tcflag_t)CMSPAR)
#else
#define CHR__STICK_PARITY ((tcflag_t)0)
#endif
#if defined(CCTS_OFLOW) && defined(CRTS_IFLOW)
#define CHR__HARDWARE_OUT ((tcflag_t)CCTS_OFLOW)
#define CHR__HARDWARE_IN  ((tcflag_t)CRTS_IFLOW)
#elif defined(CRTSCTS) /* both in one: only with the outbound one, since a line without CTS would be stuck */
#define CHR__HARDWARE_OUT ((tcflag_t)CRTSCTS)
#define CHR__HARDWARE_IN  ((tcflag_t)0)
#else
#define CHR__HARDWARE_OUT ((tcflag_t)0)
#define CHR__HARDWARE_IN  ((tcflag_t)0)
#endif

static tcflag_t chr__os_parity_flags(int parity)
{
    tcflag_t stick = parity == 'M' || parity == 'S' ? CHR__STICK_PARITY : 0,
        odd = parity == 'O' || parity == 'M' ? PARODD : 0;

    return parity == 'N' || (stick == 0 && (parity == 'M' || parity == 'S')) ? 0 : PARENB | odd | stick;
}

/* Raw, deaf to the carrier; a break comes in as the bytes 0xff 0 0, a damaged byte X as 0xff 0 X, and 0xff doubled. */
static void chr__os_serial_raw(chr__termios *settings, const chr_serial_params *params, int flow_out, int flow_in)
{
    static const tcflag_t sizes[] = { CS5, CS6, CS7, CS8 };
    tcflag_t              cflag = settings->c_cflag & ~(tcflag_t)(CSIZE | CSTOPB | PARENB | PARODD);

    cflag &= ~(CHR__STICK_PARITY | CHR__HARDWARE_OUT | CHR__HARDWARE_IN);
    cflag |= (flow_out == CHR_FLOW_RTSCTS ? CHR__HARDWARE_OUT : 0) |
        (flow_in == CHR_FLOW_RTSCTS ? CHR__HARDWARE_IN : 0);
    cflag |= CREAD | CLOCAL | sizes[params->data_bits - 5] | chr__os_parity_flags(params->parity);
    cflag |= params->stop_bits == 1 ? 0 : CSTOPB;
    settings->c_cflag = cflag;
    settings->c_iflag = PARMRK | INPCK;
    settings->c_iflag |= (flow_out == CHR_FLOW_XONXOFF ? IXON : 0) | (flow_in == CHR_FLOW_XONXOFF ? IXOFF : 0);
    settings->c_oflag = 0;
    settings->c_lflag = 0;
    settings->c_cc[VMIN] = 1;
    settings->c_cc[VTIME] = 0;
}

/* A speed that is no standard one: exactly, where the system can; else the next. A line that can't have all of it is
 * no error here: see chr__os_serial_settings(). Some libraries say EINVAL then, and some don't. */
static int chr__os_serial_configure(int fd, const chr_serial_params *params, int flow_out, int flow_in)
{
    chr__termios settings;
    speed_t      speed;
    int          is_standard = chr__os_speed_code(params->speed, &speed), code = chr__os_termios_get(fd, &settings);

    if (code < 0)
        return code;
    if (chr__os_is_background(fd))
        return CHR_ERR_BUSY; /* with the job in the foreground */
    chr__os_serial_raw(&settings, params, flow_out, flow_in);
    if (is_standard && (cfsetispeed(&settings, speed) < 0 || cfsetospeed(&settings, speed) < 0))
        return CHR_ERR_INVALID;
    code = chr__os_termios_set(fd, &settings);
    if ((code < 0 && code != CHR_ERR_INVALID) || is_standard || chr__os_speed_exact(fd, params->speed) == 0)
        return code == CHR_ERR_INVALID ? 0 : code;
    if (!chr__os_speed_near(params->speed, &speed) || cfsetispeed(&settings, speed) < 0 || cfsetospeed(&settings, speed) < 0)
        return CHR_ERR_INVALID;
    code = chr__os_termios_set(fd, &settings);
    return code == CHR_ERR_INVALID ? 0 : code;
}

static int chr__os_serial_parity(tcflag_t cflag)
{
    int is_stick = (cflag & CHR__STICK_PARITY) != 0;

    return !(cflag & PARENB) ? 'N' : cflag & PARODD ? (is_stick ? 'M' : 'O') : is_stick ? 'S' : 'E';
}

/* What the line has now. With 5 data bits, a device that is told to have two stop bits has one and a half: *params
 * says which were meant. */
static int chr__os_serial_settings(int fd, chr_serial_params *params, int *flow_out, int *flow_in)
{
    chr__termios settings;
    int          code = chr__os_termios_get(fd, &settings), was_1_5 = params->stop_bits == CHR_STOP_BITS_1_5, speed;
    tcflag_t     cflag, size, iflag;

    if (code < 0)
        return code;
    cflag = settings.c_cflag;
    iflag = settings.c_iflag;
    size = cflag & CSIZE;
    speed = chr__os_speed_of(cfgetospeed(&settings));
    speed = speed > 0 ? speed : chr__os_speed_now(fd);
    params->speed = speed > 0 ? speed : params->speed;
    params->parity = chr__os_serial_parity(cflag);
    params->data_bits = size == CS5 ? 5 : size == CS6 ? 6 : size == CS7 ? 7 : 8;
    params->stop_bits = !(cflag & CSTOPB) ? 1 : was_1_5 && size == CS5 ? (int)CHR_STOP_BITS_1_5 : 2;
    *flow_out = cflag & CHR__HARDWARE_OUT ? CHR_FLOW_RTSCTS : iflag & IXON ? CHR_FLOW_XONXOFF : CHR_FLOW_NONE;
    *flow_in = iflag & IXOFF ? CHR_FLOW_XONXOFF
             : cflag & (CHR__HARDWARE_IN ? CHR__HARDWARE_IN : CHR__HARDWARE_OUT) ? CHR_FLOW_RTSCTS : CHR_FLOW_NONE;
    return 0;
}

static int chr__os_serial_purge(int fd, int what)
{
    int queue = what == CHR_PURGE_RECEIVE ? TCIFLUSH : what == CHR_PURGE_TRANSMIT ? TCOFLUSH : TCIOFLUSH;

    if (chr__os_is_background(fd))
        return CHR_ERR_BUSY; /* with the job in the foreground */
    return CHR_SYS(tcflush)(fd, queue) < 0 ? chr__os_code(errno) : 0;
}

enum { CHR__COUNT_BREAK, CHR__COUNT_FRAMING, CHR__COUNT_PARITY, CHR__COUNT_OVERRUN, CHR__COUNTS };

/* How often each has come in. CHR_ERR_NOT_SUPPORTED where nobody counts. */
static int chr__os_serial_counts(int fd, int *counts)
{
#if defined(__linux__) && defined(TIOCGICOUNT)
    struct { /* its header can't stand beside termios.h everywhere; it has this layout */
        int cts, dsr, rng, dcd, rx, tx, frame, overrun, parity, brk, buf_overrun, reserved[9];
    } all;

    if (CHR_SYS(ioctl)(fd, (chr__request)TIOCGICOUNT, &all) < 0)
        return chr__os_code(errno);
    counts[CHR__COUNT_BREAK] = all.brk;
    counts[CHR__COUNT_FRAMING] = all.frame;
    counts[CHR__COUNT_PARITY] = all.parity;
    counts[CHR__COUNT_OVERRUN] = (int)((unsigned)all.overrun + (unsigned)all.buf_overrun);
    return 0;
#else
    (void)fd, (void)counts;
    return CHR_ERR_NOT_SUPPORTED;
#endif
}

static int chr__os_serial_break(int fd, int on)
{
    return chr__os_terminal_ioctl(fd, (chr__request)(on ? TIOCSBRK : TIOCCBRK), NULL);
}

/* The system's bit for each of ours. */
static const struct {
    int ours, systems;
} chr__modem_lines[] = {
    { CHR_TIOCM_DTR, TIOCM_DTR }, { CHR_TIOCM_RTS, TIOCM_RTS }, { CHR_TIOCM_CTS, TIOCM_CTS },
    { CHR_TIOCM_CAR, TIOCM_CAR }, { CHR_TIOCM_RI, TIOCM_RNG },  { CHR_TIOCM_DSR, TIOCM_DSR },
};

static int chr__os_serial_get_lines(int fd, int *lines)
{
    int    bits = 0;
    size_t i;

    if (CHR_SYS(ioctl)(fd, (chr__request)TIOCMGET, &bits) < 0)
        return chr__os_code(errno);
    for (*lines = 0, i = 0; i < sizeof chr__modem_lines / sizeof chr__modem_lines[0]; i++)
        if (bits & chr__modem_lines[i].systems)
            *lines |= chr__modem_lines[i].ours;
    return 0;
}

static int chr__os_serial_set_lines(int fd, int lines)
{
    int bits = 0;

    if (CHR_SYS(ioctl)(fd, (chr__request)TIOCMGET, &bits) < 0)
        return chr__os_code(errno);
    bits &= ~(TIOCM_DTR | TIOCM_RTS);
    bits |= (lines & CHR_TIOCM_DTR ? TIOCM_DTR : 0) | (lines & CHR_TIOCM_RTS ? TIOCM_RTS : 0);
    return CHR_SYS(ioctl)(fd, (chr__request)TIOCMSET, &bits) < 0 ? chr__os_code(errno) : 0;
}
#endif

#if CHARDEV_HAS_PARALLEL
/* Parallel ports. */

enum chr__pp_register { CHR__PP_STATUS, CHR__PP_READ_CONTROL, CHR__PP_WRITE_CONTROL, CHR__PP_READ_DATA, CHR__PP_WRITE_DATA };

static int chr__os_pp_call(int fd, unsigned long request, void *arg)
{
    int n;

    do
        n = CHR_SYS(ioctl)(fd, (chr__request)request, arg);
    while (n < 0 && errno == EINTR);
    return n < 0 ? chr__os_code(errno) : 0;
}

#if defined(__linux__)
/* The kernel's ppdev. Its header is not everywhere, so its numbers are here. */

enum chr__pp_mode { CHR__PP_COMPATIBLE = 1 << 8, CHR__PP_EPP = 1 << 6, CHR__PP_EPP_ADDRESS = 1 << 6 | 1 << 13 };

static const unsigned long chr__pp_requests[] = { _IOR('p', 0x81, unsigned char), _IOR('p', 0x83, unsigned char),
                                                  _IOW('p', 0x84, unsigned char), _IOR('p', 0x85, unsigned char),
                                                  _IOW('p', 0x86, unsigned char) };

static int chr__os_pp_claim(int fd) { return chr__os_pp_call(fd, _IO('p', 0x8b), NULL); }
static int chr__os_pp_release(int fd) { return chr__os_pp_call(fd, _IO('p', 0x8c), NULL); }
static int chr__os_pp_set_mode(int fd, int mode) { return chr__os_pp_call(fd, _IOW('p', 0x80, int), &mode); }
static int chr__os_pp_direction(int fd, int inward) { return chr__os_pp_call(fd, _IOW('p', 0x90, int), &inward); }

#else
/* FreeBSD's ppi: the registers alone. */

#include <dev/ppbus/ppi.h>

enum chr__pp_mode { CHR__PP_COMPATIBLE, CHR__PP_EPP, CHR__PP_EPP_ADDRESS };

static const unsigned long chr__pp_requests[] = { PPIGSTATUS, PPIGCTRL, PPISCTRL, PPIGDATA, PPISDATA };

static int chr__os_pp_claim(int fd)
{
    unsigned char status;

    return chr__os_pp_call(fd, PPIGSTATUS, &status);
}

static int chr__os_pp_release(int fd) { return (void)fd, 0; }
static int chr__os_pp_set_mode(int fd, int mode) { return (void)fd, (void)mode, CHR_ERR_NOT_SUPPORTED; }
static int chr__os_pp_direction(int fd, int inward) { return (void)fd, (void)inward, CHR_ERR_NOT_SUPPORTED; }
#endif

static int chr__os_pp_register(int fd, enum chr__pp_register which, unsigned char *value)
{
    return chr__os_pp_call(fd, chr__pp_requests[which], value);
}
#endif

#if CHARDEV_HAS_UDP
/* Datagrams. */

/* One datagram. What a former one has met on its way (ICMP) is told by the next call, in its stead: so once more. */
static int chr__os_datagram_send(int fd, const void *buf, size_t len)
{
    int n = 0, tries;

    for (tries = 0; tries < 2; tries++) {
        do
            n = (int)CHR_SYS(send)(fd, buf, len, CHR__SEND_FLAGS);
        while (n < 0 && errno == EINTR);
        if (n >= 0 || errno == EAGAIN)
            break;
    }
    return n < 0 ? chr__os_code(errno) : n;
}

/* The next datagram that has bytes: up to `len` of them into buf, what is more into rest[size]. Returns how many in all. Errors that
 * former datagrams have met are only skipped, and as many as a hostile network may send: then the loop has its turn first. */
static int chr__os_datagram_receive(int fd, void *buf, size_t len, void *rest, size_t size)
{
    struct msghdr message;
    struct iovec  parts[2];
    int           n, tries;

    memset(&message, 0, sizeof message);
    parts[0].iov_base = buf;
    parts[0].iov_len = len;
    parts[1].iov_base = rest;
    parts[1].iov_len = size;
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    for (tries = 0; tries < 64; tries++) {
        n = (int)CHR_SYS(recvmsg)(fd, &message, MSG_DONTWAIT);
        if (n > 0)
            return n;
        if (n < 0 && errno == EAGAIN)
            break;
    }
    return CHR_ERR_WOULD_BLOCK;
}

/* Takes the error away that makes poll report something. */
static void chr__os_socket_clear_error(int fd)
{
    int       error;
    socklen_t length = sizeof error;

    (void)CHR_SYS(getsockopt)(fd, SOL_SOCKET, SO_ERROR, &error, &length);
}

/* From `local` (NULL = any) to `peer`, whose datagrams alone are received; -1 and errno. */
static int chr__os_datagram_connect(const chr__sockaddr *peer, const chr__sockaddr *local)
{
    const struct sockaddr_in6 *ipv6 = (const struct sockaddr_in6 *)(const void *)&peer->storage;
    int error, on = 1, failed, fd = chr__os_above_standard(CHR_SYS(socket)(peer->storage.ss_family, SOCK_DGRAM, 0));

    if (fd < 0)
        return -1;
    if (peer->storage.ss_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&ipv6->sin6_addr)) /* the port stays free for IPv4 */
        (void)CHR_SYS(setsockopt)(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    failed = chr__os_adopt(fd) < 0 ||
             (local && CHR_SYS(bind)(fd, (const struct sockaddr *)(const void *)&local->storage, local->length) < 0);
    while (!failed && CHR_SYS(connect)(fd, (const struct sockaddr *)(const void *)&peer->storage, peer->length) < 0)
        failed = errno != EINTR;
    if (!failed)
        return fd;
    error = errno;
    chr__os_close(fd);
    errno = error;
    return -1;
}

/* The first pair of addresses of one family that works; `name` is for the message. No local ones: any. */
static int chr__os_datagram_open(const chr__sockaddr *peers, int peer_count, const chr__sockaddr *locals, int local_count, const char *name,
                                 chr_error *err)
{
    int i, j, fd, error = 0;

    for (i = 0; i < peer_count; i++)
        for (j = 0; j < (local_count > 0 ? local_count : 1); j++) {
            if (local_count > 0 && locals[j].storage.ss_family != peers[i].storage.ss_family)
                continue;
            fd = chr__os_datagram_connect(&peers[i], local_count > 0 ? &locals[j] : NULL);
            if (fd >= 0)
                return fd;
            error = errno;
        }
    if (error)
        return chr__os_fail(err, error, "cannot open", name);
    return chr__fail(err, CHR_ERR_INVALID, "cannot open %s: one end has IPv4 addresses only and the other IPv6", name);
}
#endif
#endif /* CHR__POSIX */

/* -- the profiles without descriptors: what they have in common ------------------------------------------------------ */
#ifndef CHR__POSIX

typedef struct chr__pollfd {
    int   fd;
    short events, revents;
} chr__pollfd;

static short chr__os_poll_events(int events) { return (short)events; }
static int   chr__os_ready_events(short revents) { return revents; }

CHR__PRIVATE int chr__os_close(int fd) { (void)fd; return 0; }
CHR__PRIVATE int chr__os_is_open(int fd) { (void)fd; return 0; }

typedef struct chr__fd_flags {
    int nothing;
} chr__fd_flags;

static int  chr__os_get_flags(int fd, chr__fd_flags *flags) { (void)fd, (void)flags; return CHR_ERR_NOT_SUPPORTED; }
static void chr__os_set_flags(int fd, const chr__fd_flags *flags) { (void)fd, (void)flags; }
CHR__PRIVATE void chr__os_close_on_exec(int fd) { (void)fd; }

typedef enum chr__fd_type { CHR__FD_PLAIN } chr__fd_type;

CHR__PRIVATE chr__fd_type chr__os_fd_type(int fd, int is_ours) { return (void)fd, (void)is_ours, CHR__FD_PLAIN; }
CHR__PRIVATE int chr__os_write(int fd, chr__fd_type type, const void *buf, size_t len)
{
    (void)fd, (void)type, (void)buf, (void)len;
    return CHR_ERR_NOT_SUPPORTED;
}
CHR__PRIVATE int chr__os_read_at(int fd, void *buf, size_t len, int64_t offset)
{
    (void)fd, (void)offset;
    memset(buf, 0, len); /* else gcc -Og takes it for a value that callers use */
    return CHR_ERR_NOT_SUPPORTED;
}
CHR__PRIVATE int chr__os_wait(int fd, int events, int timeout_ms) { (void)fd; (void)events; return timeout_ms < 0 ? CHR_ERR_NOT_SUPPORTED : 0; }

CHR__PRIVATE int chr__os_random(void *buf, size_t len) { return (void)buf, (void)len, CHR_ERR_NOT_SUPPORTED; }

enum { CHR__PATH_SIZE = 1 };

CHR__PRIVATE int     chr__os_rename(const char *from, const char *to)
{
    return (void)from, (void)to, CHR_ERR_NOT_SUPPORTED;
}
CHR__PRIVATE int64_t chr__os_file_size(int fd) { return (void)fd, -1; }
CHR__PRIVATE int     chr__os_is_named(int fd, const char *path) { return (void)fd, (void)path, 1; }

CHR__PRIVATE int chr__os_working_directory(char *path, size_t size)
{
    if (size > 0)
        *path = 0;
    return CHR_ERR_NOT_SUPPORTED;
}

typedef enum chr__open_mode {
    CHR__OPEN_READ, CHR__OPEN_BOTH, CHR__OPEN_CREATE, CHR__OPEN_APPEND,
    CHR__OPEN_LOG /* emptied, then written at its end, wherever that is by then */
} chr__open_mode;

CHR__PRIVATE int chr__os_open(const char *path, chr__open_mode mode, chr_error *err)
{
    (void)mode;
    return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "cannot open %s: there are no files in this build", path);
}
#endif

/* -- >>windows --------------------------------------------------------------------------------------------------------
 * Clock, memory and a loop that sleeps on an event: enough for the portable backends. There are no descriptors yet. */
#ifdef CHR__WINDOWS

#include <stdlib.h>
#include <windows.h>

static void *chr__os_allocate(void *opaque, void *ptr, size_t size)
{
    (void)opaque;
    if (size > 0)
        return realloc(ptr, size);
    free(ptr);
    return NULL;
}

static int64_t chr__os_clock(void *opaque)
{
    LARGE_INTEGER now, frequency;

    (void)opaque;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&now);
    return now.QuadPart / frequency.QuadPart * 1000000000 + now.QuadPart % frequency.QuadPart * 1000000000 / frequency.QuadPart;
}

static int64_t chr__os_wall_clock(void *opaque)
{
    FILETIME now; /* in 100 ns since 1601 */

    (void)opaque;
    GetSystemTimeAsFileTime(&now);
    return ((((int64_t)now.dwHighDateTime << 32) | (int64_t)now.dwLowDateTime) - 116444736000000000) * 100;
}

#ifdef CHARDEV_THREADS
typedef CRITICAL_SECTION chr__mutex;

static int chr__os_mutex_init(chr__mutex *mutex)
{
    InitializeCriticalSection(mutex);
    return 0;
}
static void chr__os_mutex_destroy(chr__mutex *mutex) { DeleteCriticalSection(mutex); }
static void chr__os_lock(chr__mutex *mutex) { EnterCriticalSection(mutex); }
static void chr__os_unlock(chr__mutex *mutex) { LeaveCriticalSection(mutex); }

typedef DWORD chr__thread;

static chr__thread chr__os_thread(void) { return GetCurrentThreadId(); }
static int chr__os_is_thread(chr__thread thread) { return thread == GetCurrentThreadId(); }
#endif

typedef struct chr__waker {
    HANDLE event;
} chr__waker;

static int chr__os_waker_open(chr__waker *waker)
{
    waker->event = CreateEventA(NULL, FALSE, FALSE, NULL);
    return waker->event ? 0 : CHR_ERR_IO;
}

static void chr__os_waker_close(chr__waker *waker)
{
    if (waker->event)
        CloseHandle(waker->event);
}

static int  chr__os_waker_fd(const chr__waker *waker) { (void)waker; return -1; }
static void chr__os_waker_ring(chr__waker *waker) { SetEvent(waker->event); }
static void chr__os_waker_quiet(chr__waker *waker) { (void)waker; }

static int chr__os_loop_wait(chr__waker *waker, chr__pollfd *polls, int count, int timeout_ms)
{
    (void)polls, (void)count;
    WaitForSingleObject(waker->event, timeout_ms < 0 ? INFINITE : (DWORD)timeout_ms);
    return 0;
}
#endif

/* -- >>freestanding ---------------------------------------------------------------------------------------------------
 * No operating system: the hooks of chr_config give memory and time; the loop never sleeps, and a wake-up is nothing. */
#ifdef CHR__FREESTANDING

static void *chr__os_allocate(void *opaque, void *ptr, size_t size)
{
    (void)opaque, (void)ptr, (void)size;
    return NULL; /* there is no memory but what the `allocate` hook gives */
}

static int64_t chr__os_clock(void *opaque)
{
    (void)opaque;
    return 0;
}

static int64_t chr__os_wall_clock(void *opaque)
{
    (void)opaque;
    return 0;
}

#ifdef CHARDEV_THREADS
#error "chardev.h: CHARDEV_THREADS needs an operating system"
#endif

typedef struct chr__waker {
    int nothing;
} chr__waker;

static int  chr__os_waker_open(chr__waker *waker) { (void)waker; return 0; }
static void chr__os_waker_close(chr__waker *waker) { (void)waker; }
static void chr__os_waker_quiet(chr__waker *waker) { (void)waker; }
static int  chr__os_waker_fd(const chr__waker *waker) { (void)waker; return -1; }
static void chr__os_waker_ring(chr__waker *waker) { (void)waker; }

static int chr__os_loop_wait(chr__waker *waker, chr__pollfd *polls, int count, int timeout_ms)
{
    (void)waker, (void)polls, (void)count, (void)timeout_ms;
    return 0;
}
#endif

/* ====================================================================================================================
 * >>memory   memory, text, error, log
 * ==================================================================================================================== */

/* Things by a key (>>tables). */
typedef struct chr__table {
    chr__entry **chains;  /* `size` of them, a power of two; NULL = there is one, */
    chr__entry  *few;     /* this */
    size_t       size, count;
    uint32_t     hash_key[2];
} chr__table;

/* A descriptor that a monitor's peer has passed. */
typedef struct chr__named_fd {
    struct chr__named_fd *next;
    int                   fd;
    char                  name[1];
} chr__named_fd;

typedef struct chr__kind_node {
    struct chr__kind_node *next;
    const chr_backend     *kind;
} chr__kind_node;

/* What chardevs refer to by id and isn't one: TLS credentials, lists of peers. Its kind serves for its name and options. */
typedef struct chr__object {
    struct chr__object *next;
    const chr_backend  *kind;
    char               *id;
    void               *options;
    int                 users;   /* the context is one */
    void              (*release)(chr_context *ctx, struct chr__object *object); /* lets go of what it has beside these; or NULL */
} chr__object;

enum { CHR__URI_FORMS = 5 };

/* A backend that could be in the table, and is not in this build. */
typedef struct chr__left_out {
    const char *name, *alias, *without; /* alias: "" = none; without: what, for the message */
    const char *uris[CHR__URI_FORMS];   /* how its URIs begin, beside its name */
} chr__left_out;

/* Chardevs in line, linked through next_starved. */
typedef struct chr__dev_queue {
    chr_dev *first, **last;
} chr__dev_queue;

struct chr_context {
    chr_config   config;

    /* the loop */
    chr__pollfd *polls;        /* slot by slot the same as `watches` */
    chr_watch  **watches;      /* NULL = stopped during a dispatch */
    int          watch_count, watch_capacity, holes;
    chr_timer   *timers;       /* a heap: the nearest is on top; NULL = none */
    chr_timer   *real_timers;  /* the same on the system's clock, whatever `clock` is: time limits of peers */
    uint64_t     timer_order;  /* of the next one that is started */
    chr_idle     idles;        /* a ring, oldest first; this one is only its head */
    chr_idle     last_idle;    /* where a dispatch of idles ends */
    int          due;          /* timers and idles that are started */
    unsigned     turn;         /* of the loop, or of a call that blocks: what bounds work starts anew with it */
    chr__waker   waker;
    chr_watch    wake_watch;
#if CHARDEV_HAS_PTY
    struct chr__file_watch *file_watches;
    chr_watch    notifier;     /* of the descriptor that tells of all of them; made with the first */
#endif
    int          depth;        /* handlers and dispatches that are running: nothing is freed before it is 0 */
    int          quiet;        /* slots that run: events wait for the loop */
    int          outside;      /* those of them that no call of a frontend's has led to */
    int          untidy;       /* something was removed meanwhile, or a foreign loop wants to know the time-out */
    int          sleeping;     /* in poll, ours or a foreign loop's: whoever changes something then must wake it */
    int          ready_again;  /* with hooks: polls[].revents says what is ready still after its callback */
    int64_t      ask_at;       /* when all starved ones are asked, in real time */
    int          closing;      /* chr_context_free() is under way */
    int64_t      now;          /* the virtual clock */
    volatile int stopped;      /* by CHR__LOAD and CHR__STORE, as what follows */
    volatile int posted;       /* something waits for the next step of chr_loop_step_every() */
    int          calls_left;   /* of that, until it looks at the clock; */
    int          stride;       /* out of so many, */
    int64_t      looked_at;    /* when it did last, */
    int64_t      stepped_at;   /* and when it stepped, in real time */
    struct chr__hold *holds;   /* frontends that a function on the stack goes on with after a handler */

    /* the registry */
    const chr_backend *const *builtins; /* the table; ends with NULL */
    const chr__left_out *left_out;      /* likewise: those that this build is without */
    const chr_backend *mux;             /* what mux=on puts on a chardev; NULL = left out */
    chr__kind_node    *kinds;           /* registered by the user */
    chr_dev           *devs, **last_dev; /* in the order of creation */
    chr__table         devs_by_id;
    chr_dev           *dead;            /* closed, not yet freed; those that linger join them later */
    struct chr__linger *lingering;      /* connections whose last bytes are still being sent, the oldest first */
    int                lingering_count;
    uint64_t           lingering_queued; /* what they have still to send, in bytes */
    chr__dev_queue     urgent;          /* those whose `update` comes before the loop sleeps, */
    chr__dev_queue     starved;         /* and those whose frontends had no room */
    chr__named_fd     *named_fds;
    const chr_backend *const *object_kinds; /* ends with NULL */
    chr__object       *objects;
    int                open_suspended;
    unsigned char     *buffer;          /* input of streams passes through here: nobody keeps it across calls */
    struct chr__recorder *recorder;
    struct chr__replay   *replay;
    const chr_backend *(*replay_kind)(chr_context *ctx, const char *id); /* what plays this id; NULL = it was not recorded */
#if CHARDEV_HAS_SPICE
    SpiceServer       *spice_server;
#endif
#ifdef CHARDEV_THREADS
    chr__mutex         mutex;
    int                locks;           /* how often it is locked by the thread that has it */
    chr__thread        owner;           /* who made it, or ran its loop last */
    int                rung;            /* with hooks: another thread has rung the waker */
#endif
};

#ifdef CHARDEV_BUFFER_SIZE
enum { CHR__BUFFER_SIZE = CHARDEV_BUFFER_SIZE };
#elif defined(CHR__FREESTANDING)
enum { CHR__BUFFER_SIZE = 1024 };
#else
enum { CHR__BUFFER_SIZE = 65536 };
#endif

/* With threads: one recursive lock for a context. Its owner thread holds it while it is in its loop, except when it
 * sleeps in poll(), and in each call that changes something, except when that blocks; other threads in each call
 * that they may make. Under it they touch buffers, counters, flags, and the rings of idles and timers, never the
 * poll set, layers' handshakes or the registry: what these need is posted to the owner, with an idle or
 * chr__update(). */
#ifdef CHARDEV_THREADS
#define CHR__LOCK(ctx) (chr__os_lock(&(ctx)->mutex), (void)(ctx)->locks++)
#define CHR__UNLOCK(ctx) ((void)(ctx)->locks--, chr__os_unlock(&(ctx)->mutex))
#define CHR__OWN(ctx) ((void)((ctx)->owner = chr__os_thread()))
#define CHR__IS_FOREIGN(ctx) (!chr__os_is_thread((ctx)->owner))
#else
#define CHR__LOCK(ctx) ((void)(ctx))
#define CHR__UNLOCK(ctx) ((void)(ctx))
#define CHR__OWN(ctx) ((void)(ctx))
#define CHR__IS_FOREIGN(ctx) ((void)(ctx), 0)
#endif

/* The allocator is the user's: one thread at a time. */
CHR__PRIVATE void *chr__reallocate(chr_context *ctx, void *ptr, size_t size)
{
    CHR__LOCK(ctx);
    ptr = ctx->config.allocate(ctx->config.opaque, ptr, size);
    CHR__UNLOCK(ctx);
    return ptr;
}

/* Zeroed, or NULL. */
CHR__PRIVATE void *chr__allocate(chr_context *ctx, size_t size)
{
    void *ptr = chr__reallocate(ctx, NULL, size);

    return ptr ? memset(ptr, 0, size) : NULL;
}

CHR__PRIVATE void chr__free(chr_context *ctx, void *ptr)
{
    if (ptr)
        (void)chr__reallocate(ctx, ptr, 0);
}

/* There is a buffer that input can pass through. */
CHR__PRIVATE int chr__need_buffer(chr_context *ctx)
{
    if (!ctx->buffer)
        ctx->buffer = (unsigned char *)chr__allocate(ctx, CHR__BUFFER_SIZE);
    return ctx->buffer ? 0 : CHR_ERR_NO_MEMORY;
}

CHR__PRIVATE char *chr__copy_text(chr_context *ctx, const char *text, size_t len)
{
    char *copy = (char *)chr__allocate(ctx, len + 1);

    if (copy)
        memcpy(copy, text, len);
    return copy;
}

/* The same file after the program has changed its working directory; the caller frees it. NULL = no memory. */
CHR__PRIVATE char *chr__absolute_path(chr_context *ctx, const char *path)
{
    char   directory[CHR__PATH_SIZE], *copy;
    size_t size;

    if (path[0] == '/' || chr__os_working_directory(directory, sizeof directory) < 0)
        return chr__copy_text(ctx, path, strlen(path));
    size = strlen(directory) + strlen(path) + 2;
    copy = (char *)chr__allocate(ctx, size);
    if (copy)
        chr__format(copy, size, "%s/%s", directory, path);
    return copy;
}

CHR__PRIVATE int chr__text_is(const char *text, size_t len, const char *word)
{
    return strlen(word) == len && memcmp(text, word, len) == 0;
}

/* The rest of `text` behind `prefix`, or NULL. */
CHR__PRIVATE const char *chr__after(const char *text, const char *prefix)
{
    size_t len = strlen(prefix);

    return strncmp(text, prefix, len) == 0 ? text + len : NULL;
}

CHR__PRIVATE size_t chr__min(size_t a, size_t b)
{
    return a < b ? a : b;
}

CHR__PRIVATE size_t chr__max(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* A ring of bytes, fixed in size. */
typedef struct chr__ring {
    unsigned char *bytes;
    size_t         size, start, count; /* start: where the oldest is */
} chr__ring;

CHR__PRIVATE int chr__ring_init(chr_context *ctx, chr__ring *ring, size_t size)
{
    ring->bytes = (unsigned char *)chr__allocate(ctx, size);
    ring->size = size;
    return ring->bytes ? 0 : CHR_ERR_NO_MEMORY;
}

static size_t chr__ring_index(const chr__ring *ring, size_t at)
{
    at += ring->start;
    return at < ring->size ? at : at - ring->size;
}

CHR__PRIVATE void chr__ring_take(chr__ring *ring, size_t len)
{
    ring->start = chr__ring_index(ring, len);
    ring->count -= len;
}

/* The newest bytes stay: what does not fit pushes the oldest out. */
CHR__PRIVATE void chr__ring_put(chr__ring *ring, const void *buf, size_t len)
{
    const unsigned char *from = (const unsigned char *)buf;
    size_t               end, first;

    if (len >= ring->size) {
        from += len - ring->size;
        len = ring->size;
        ring->start = ring->count = 0;
    }
    if (ring->count + len > ring->size)
        chr__ring_take(ring, ring->count + len - ring->size);
    end = chr__ring_index(ring, ring->count);
    first = chr__min(len, ring->size - end);
    memcpy(ring->bytes + end, from, first);
    memcpy(ring->bytes, from + first, len - first);
    ring->count += len;
}

/* What stands at `at`, as far as it is in one piece. */
CHR__PRIVATE const unsigned char *chr__ring_piece(const chr__ring *ring, size_t at, size_t *len)
{
    size_t index = chr__ring_index(ring, at);

    *len = chr__min(ring->count - at, ring->size - index);
    return ring->bytes + index;
}

/* Down, also for what is below zero: a time before 1970. */
CHR__PRIVATE int64_t chr__floor_divide(int64_t value, int64_t by)
{
    return value / by - (value % by < 0);
}

/* All of it, for files. A FIFO that is full is an error (CHR_ERR_WOULD_BLOCK), like a disk that is. */
static int chr__write_file(int fd, chr__fd_type type, const void *buf, size_t len)
{
    const char *from = (const char *)buf;
    int         n;

    for (; len > 0; from += n, len -= (size_t)n)
        if ((n = chr__os_write(fd, type, from, len)) <= 0)
            return n < 0 ? n : CHR_ERR_IO;
    return 0;
}

/* The hook is a handler like any other: what it removes stays in memory, since the one who logs goes on. */
static void chr__log_text(chr_context *ctx, const char *line)
{
    if (!ctx->config.log)
        return;
    CHR__LOCK(ctx);
    ctx->depth++;
    ctx->config.log(ctx->config.opaque, line);
    ctx->depth--;
    CHR__UNLOCK(ctx);
}

/* For what no caller can be told. */
CHR__PRIVATE void chr__log_line(chr_context *ctx, const char *id, const char *text)
{
    char line[sizeof(((chr_error *)0)->text) + 160];

    chr__format(line, sizeof line, "chardev %s: %s", id, text);
    chr__log_text(ctx, line);
}

CHARDEV_API const char *chr_error_text(int code)
{
#define CHR__ERROR_TEXT(name, value, text) if (code == value) return text;
    CHR_ERRORS(CHR__ERROR_TEXT)
#undef CHR__ERROR_TEXT
    return "unknown error";
}

/* ====================================================================================================================
 * >>encodings   numbers in files and on the wire, base64 (RFC 4648 section 4), UTF-8 (RFC 3629)
 * ==================================================================================================================== */

CHR__PRIVATE void chr__put_le(unsigned char *to, uint64_t value, int bytes)
{
    for (; bytes > 0; bytes--, value >>= 8)
        *to++ = (unsigned char)value;
}

CHR__PRIVATE uint64_t chr__get_le(const unsigned char *from, int bytes)
{
    uint64_t value = 0;

    while (bytes-- > 0)
        value = value << 8 | from[bytes];
    return value;
}

CHR__PRIVATE void chr__put_be(unsigned char *to, uint64_t value, int bytes)
{
    for (; bytes-- > 0; value >>= 8)
        to[bytes] = (unsigned char)value;
}

CHR__PRIVATE uint64_t chr__get_be(const unsigned char *from, int bytes)
{
    uint64_t value = 0;

    for (; bytes > 0; bytes--)
        value = value << 8 | *from++;
    return value;
}

CHR__PRIVATE int chr__digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
        : c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
}

/* -- patterns -- */

/* The length of one character: an escape, as in a distinguished name (RFC 2253 section 2.4), is one, and so is a
 * UTF-8 sequence of several escapes. */
CHR__PRIVATE size_t chr__glob_step(const char *text)
{
    size_t len = 1;

    if (text[0] != '\\' || !text[1])
        return len;
    len = chr__digit(text[1]) < 16 && chr__digit(text[2]) < 16 ? 3 : 2;
    if (len == 3 && chr__digit(text[1]) >= 12) /* a lead byte: its continuation bytes are \\80 to \\BF */
        while (text[len] == '\\' && chr__digit(text[len + 1]) / 4 == 2 && chr__digit(text[len + 2]) < 16)
            len += 3;
    return len;
}

/* Whether all of `text` matches: '*' stands for any text, '?' for one character. Backtracks to the last '*' alone:
 * no recursion, and at most length times length steps. An escaped comma is one character, so that a comma in the
 * pattern matches only one that separates the parts of a name. */
CHR__PRIVATE int chr__glob(const char *pattern, const char *text)
{
    const char *star = NULL, *from = NULL;
    size_t      step;

    while (*text) {
        step = chr__glob_step(text);
        if (*pattern == '*') {
            star = pattern++;
            from = text;
        } else if (*pattern == '?' || strncmp(pattern, text, step) == 0) {
            pattern += *pattern == '?' ? 1 : step;
            text += step;
        } else if (star) {
            pattern = star + 1;
            from += chr__glob_step(from);
            text = from;
        } else {
            return 0;
        }
    }
    while (*pattern == '*')
        pattern++;
    return !*pattern;
}

/* -- base64 -- */

#if CHARDEV_HAS_RINGBUF || CHARDEV_HAS_SOCKET
static const char chr__base64_letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Up to three bytes as four letters, padded with '='. */
CHR__PRIVATE void chr__base64_group(const unsigned char *bytes, size_t count, char *out)
{
    unsigned long value = (unsigned long)bytes[0] << 16 | (count > 1 ? (unsigned long)bytes[1] << 8 : 0) | (count > 2 ? bytes[2] : 0u);

    out[0] = chr__base64_letters[value >> 18];
    out[1] = chr__base64_letters[value >> 12 & 63];
    out[2] = count > 1 ? chr__base64_letters[value >> 6 & 63] : '=';
    out[3] = count > 2 ? chr__base64_letters[value & 63] : '=';
}

/* All of it, with a final zero: four letters for each three bytes begun. */
CHR__PRIVATE void chr__base64_text(const unsigned char *bytes, size_t len, char *text)
{
    size_t at;

    for (at = 0; at < len; at += 3, text += 4)
        chr__base64_group(bytes + at, chr__min(3, len - at), text);
    *text = 0;
}

/* Four letters to bytes; how many, or -1. Padding only ends the last group, and its unused bits are zero. */
CHR__PRIVATE int chr__base64_ungroup(const char *text, int is_last, unsigned char *bytes)
{
    unsigned long value = 0;
    int           i, padding = is_last ? (text[3] == '=') + (text[3] == '=' && text[2] == '=') : 0;

    for (i = 0; i < 4; i++) {
        const char *letter = i < 4 - padding ? (const char *)memchr(chr__base64_letters, text[i], 64) : chr__base64_letters;
        if (!letter)
            return -1;
        value = value << 6 | (unsigned long)(letter - chr__base64_letters);
    }
    if (value & ((1ul << 8 * padding) - 1))
        return -1;
    for (i = 0; i < 3; i++)
        bytes[i] = (unsigned char)(value >> (16 - 8 * i));
    return 3 - padding;
}

CHR__PRIVATE int chr__base64_check(const char *text, size_t len)
{
    unsigned char bytes[3];
    size_t        at;

    for (at = 0; at + 4 <= len; at += 4)
        if (chr__base64_ungroup(text + at, at + 4 == len, bytes) < 0)
            return 0;
    return at == len;
}

/* -- UTF-8, byte by byte: a sequence may go on in the next buffer -- */

typedef struct chr__utf8 {
    int           left;      /* bytes that the sequence still wants */
    unsigned char low, high; /* the range of the next one: it keeps out over-long forms, surrogates and what lies past U+10FFFF */
} chr__utf8;

CHR__PRIVATE int chr__utf8_first(chr__utf8 *utf8, unsigned char c)
{
    if (c < 0x80)
        return 1;
    if (c < 0xc2 || c > 0xf4)
        return 0;
    utf8->left = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    utf8->low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    utf8->high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    return 1;
}

/* Whether c can go on from there. */
CHR__PRIVATE int chr__utf8_take(chr__utf8 *utf8, unsigned char c)
{
    if (utf8->left == 0)
        return chr__utf8_first(utf8, c);
    if (c < utf8->low || c > utf8->high)
        return 0;
    utf8->left--;
    utf8->low = 0x80;
    utf8->high = 0xbf;
    return 1;
}

/* Of bytes[count]: the length of the sequence at the start, 0 = more bytes could make it one, or -n: n bytes are none. */
CHR__PRIVATE int chr__utf8_length(const unsigned char *bytes, size_t count)
{
    chr__utf8 utf8 = { 0, 0, 0 };
    int       i;

    for (i = 0; (size_t)i < count; i++) {
        if (!chr__utf8_take(&utf8, bytes[i]))
            return i > 0 ? -i : -1;
        if (utf8.left == 0)
            return i + 1;
    }
    return 0;
}

/* A character as a sequence: how many bytes, 0 = it is none (a surrogate, or beyond U+10FFFF). */
CHR__PRIVATE size_t chr__utf8_put(uint32_t letter, unsigned char bytes[4])
{
    static const unsigned char marks[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    size_t count = letter < 0x80 ? 1 : letter < 0x800 ? 2 : letter < 0x10000 ? 3 : 4, i;

    if (letter > 0x10ffff || (letter >= 0xd800 && letter < 0xe000))
        return 0;
    for (i = count; i-- > 1; letter >>= 6)
        bytes[i] = (unsigned char)(0x80 | (letter & 0x3f));
    bytes[0] = (unsigned char)(letter | marks[count]);
    return count;
}

CHR__PRIVATE int chr__utf8_is_good(chr__utf8 *utf8, const unsigned char *bytes, size_t len)
{
    for (; len > 0; len--, bytes++)
        if (!chr__utf8_take(utf8, *bytes))
            return 0;
    return 1;
}
#endif

/* ====================================================================================================================
 * >>tables   things by a key: few in a list, many in a hash table
 * ====================================================================================================================
 * The keys may be a monitor's peer's choice: they are hashed with a key of the table's own that nobody else knows, so
 * that no choice makes long chains. Where there is no memory for more chains they become longer.
 */

CHR__PRIVATE uint32_t chr__rotate(uint32_t word, int bits)
{
    return word << bits | word >> (32 - bits);
}

static void chr__hash_round(uint32_t *v)
{
    v[0] += v[1], v[2] += v[3];
    v[1] = chr__rotate(v[1], 5) ^ v[0], v[3] = chr__rotate(v[3], 8) ^ v[2];
    v[0] = chr__rotate(v[0], 16);
    v[0] += v[3], v[2] += v[1];
    v[3] = chr__rotate(v[3], 7) ^ v[0], v[1] = chr__rotate(v[1], 13) ^ v[2];
    v[2] = chr__rotate(v[2], 16);
}

/* HalfSipHash-1-3. */
static uint32_t chr__hash(const uint32_t *key, const void *bytes, size_t len)
{
    const unsigned char *from = (const unsigned char *)bytes;
    uint32_t             word, v[4];
    size_t               at;

    v[0] = key[0], v[1] = key[1], v[2] = 0x6c796765 ^ key[0], v[3] = 0x74656462 ^ key[1];
    for (at = 0; at <= len; at += 4) {
        word = (uint32_t)chr__get_le(from + at, (int)chr__min(4, len - at)) | (len - at < 4 ? (uint32_t)len << 24 : 0);
        v[3] ^= word;
        chr__hash_round(v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for (at = 0; at < 3; at++)
        chr__hash_round(v);
    return v[1] ^ v[3];
}

enum { CHR__TABLE_FEW = 16, CHR__TABLE_CHAINS = 64 };

static chr__entry **chr__table_chain(chr__table *table, const void *key, size_t length)
{
    return table->chains ? &table->chains[chr__hash(table->hash_key, key, length) & (table->size - 1)] : &table->few;
}

static void chr__table_put(chr__table *table, chr__entry *entry)
{
    chr__entry **chain = chr__table_chain(table, entry->key, entry->length);

    entry->next = *chain;
    *chain = entry;
}

/* The clock serves where the system has no random bytes. */
static void chr__table_key(chr__table *table)
{
    uint64_t now = (uint64_t)chr__os_clock(NULL) ^ (uint64_t)(uintptr_t)table;

    table->hash_key[0] = (uint32_t)now;
    table->hash_key[1] = (uint32_t)(now >> 32);
    (void)chr__os_random(table->hash_key, sizeof table->hash_key);
}

CHR__COLD void chr__table_grow(chr_context *ctx, chr__table *table)
{
    chr__table   old = *table;
    chr__entry **chains = old.chains ? old.chains : &old.few, *entry;
    size_t       i, size = old.chains ? old.size * 2 : (size_t)CHR__TABLE_CHAINS;

    table->chains = (chr__entry **)chr__allocate(ctx, size * sizeof *table->chains);
    if (!table->chains) {
        table->chains = old.chains;
        return;
    }
    table->size = size;
    if (!old.chains)
        chr__table_key(table);
    for (i = 0; i < (old.chains ? old.size : 1); i++)
        while ((entry = chains[i]) != NULL) {
            chains[i] = entry->next;
            chr__table_put(table, entry);
        }
    chr__free(ctx, old.chains);
}

/* `key` belongs to `owner`, as `entry` does. */
CHR__PRIVATE void chr__table_add(chr_context *ctx, chr__table *table, chr__entry *entry, void *owner, const void *key,
                                 size_t length)
{
    if (table->count++ >= (table->chains ? table->size : (size_t)CHR__TABLE_FEW))
        chr__table_grow(ctx, table);
    entry->owner = owner;
    entry->key = key;
    entry->length = length;
    chr__table_put(table, entry);
}

CHR__PRIVATE void chr__table_remove(chr_context *ctx, chr__table *table, chr__entry *entry)
{
    chr__entry **link = chr__table_chain(table, entry->key, entry->length);

    while (*link != entry)
        link = &(*link)->next;
    *link = entry->next;
    if (--table->count > 0)
        return;
    chr__free(ctx, table->chains);
    memset(table, 0, sizeof *table);
}

/* The owner, or NULL. */
CHR__PRIVATE void *chr__table_find(const chr__table *table, const void *key, size_t length)
{
    const chr__entry *entry = *chr__table_chain((chr__table *)(uintptr_t)table, key, length);

    while (entry && (entry->length != length || memcmp(entry->key, key, length) != 0))
        entry = entry->next;
    return entry ? entry->owner : NULL;
}

/* ====================================================================================================================
 * >>the_loop   watches in one poll array that is kept, timers in a heap, idles in a ring
 * ==================================================================================================================== */

CHARDEV_API void chr_loop_wake(chr_context *ctx)
{
    CHR__STORE(ctx->posted, 1);
    chr__os_waker_ring(&ctx->waker);
}

CHARDEV_API void chr_loop_lock(chr_context *ctx)
{
    CHR__LOCK(ctx);
}

CHARDEV_API void chr_loop_unlock(chr_context *ctx)
{
    CHR__UNLOCK(ctx);
}

/* A foreign loop with hooks is told by its own thread: the waker gets it into chr_watch_ready(). */
#ifdef CHARDEV_THREADS
CHR__COLD void chr__loop_ring(chr_context *ctx)
{
    if (!ctx->rung)
        chr_loop_wake(ctx);
    ctx->rung = 1;
}
#endif

/* Whoever sleeps in poll() now does not know what has changed. */
CHR__COLD void chr__loop_disturb(chr_context *ctx)
{
    CHR__LOCK(ctx);
    if (ctx->sleeping)
        chr_loop_wake(ctx);
    ctx->sleeping = 0; /* once is enough */
    CHR__UNLOCK(ctx);
}

/* Something is due sooner than the sleeper, or the foreign loop, knows. */
CHR__COLD void chr__loop_poke(chr_context *ctx)
{
    chr__loop_disturb(ctx);
    if (!ctx->config.timeout_changed)
        return;
#ifdef CHARDEV_THREADS
    if (CHR__IS_FOREIGN(ctx)) {
        chr__loop_ring(ctx);
        return;
    }
#endif
    if (ctx->depth == 0)
        ctx->config.timeout_changed(ctx->config.opaque);
}

CHARDEV_API int64_t chr_loop_now(chr_context *ctx)
{
    return ctx->config.virtual_clock ? ctx->now : ctx->config.clock(ctx->config.opaque);
}

/* Nanoseconds since 1970 UTC. A virtual context has no other time than its own, unless it is given one. */
CHR__PRIVATE int64_t chr__wall_now(chr_context *ctx)
{
    int is_virtual = ctx->config.virtual_clock && ctx->config.wall_clock == chr__os_wall_clock;

    return is_virtual ? ctx->now : ctx->config.wall_clock(ctx->config.opaque);
}

/* Calls that block and the time limits of peers count in real time, whatever the context's clock is: an injected one
 * may stand still meanwhile. Where the system has no clock, the context's is the real one. */
static int64_t chr__real_now(chr_context *ctx)
{
    int64_t now = chr__os_clock(NULL);

    return now ? now : chr_loop_now(ctx);
}

static int64_t chr__deadline(chr_context *ctx, int timeout_ms)
{
    return timeout_ms < 0 ? -1 : chr__real_now(ctx) + (int64_t)timeout_ms * 1000000;
}

/* Milliseconds until the deadline, -1 without one. */
static int chr__time_left(chr_context *ctx, int64_t deadline)
{
    int64_t left;

    if (deadline < 0)
        return -1;
    left = (deadline - chr__real_now(ctx) + 999999) / 1000000;
    return left < 0 ? 0 : (int)left;
}

/* -- watches -- */

static int chr__watches_grow(chr_context *ctx)
{
    int   capacity = ctx->watch_capacity ? ctx->watch_capacity * 2 : 16;
    void *polls, *watches;

    if (ctx->watch_count < ctx->watch_capacity)
        return 0;
    polls = chr__reallocate(ctx, ctx->polls, sizeof *ctx->polls * (size_t)capacity);
    if (polls)
        ctx->polls = (chr__pollfd *)polls;
    watches = polls ? chr__reallocate(ctx, ctx->watches, sizeof *ctx->watches * (size_t)capacity) : NULL;
    if (!watches)
        return CHR_ERR_NO_MEMORY;
    ctx->watches = (chr_watch **)watches;
    ctx->watch_capacity = capacity;
    return 0;
}

CHARDEV_API void chr_watch_set(chr_watch *watch, int events)
{
    chr__pollfd *entry;

    if (!watch->slot || watch->events == events)
        return;
    watch->events = events;
    entry = &watch->ctx->polls[watch->slot - 1];
    entry->fd = events ? watch->fd : -1; /* poll() skips negative ones: no hang-up can spin the loop */
    entry->events = chr__os_poll_events(events);
    chr__loop_disturb(watch->ctx);
    if (watch->ctx->config.watch_changed)
        watch->ctx->config.watch_changed(watch->ctx->config.opaque, watch, watch->fd, events);
}

static void chr__watch_move(chr_context *ctx, int from, int to)
{
    ctx->polls[to] = ctx->polls[from];
    ctx->watches[to] = ctx->watches[from];
    if (ctx->watches[to])
        ctx->watches[to]->slot = to + 1;
}

CHARDEV_API void chr_watch_stop(chr_watch *watch)
{
    chr_context *ctx = watch->ctx;
    int          slot = watch->slot - 1;

    if (!watch->slot)
        return;
    chr_watch_set(watch, 0);
    watch->slot = 0;
    ctx->watches[slot] = NULL;
    if (ctx->depth == 0) {
        chr__watch_move(ctx, --ctx->watch_count, slot);
        return;
    }
    ctx->holes++; /* a dispatch walks the array: it closes the gap at its end */
    ctx->untidy = 1;
}

CHARDEV_API int chr_watch_start(chr_context *ctx, chr_watch *watch, int fd, int events, void (*ready)(void *, int), void *opaque)
{
    int slot;

    chr_watch_stop(watch);
    if (chr__watches_grow(ctx) < 0)
        return CHR_ERR_NO_MEMORY;
    slot = ctx->watch_count++;
    ctx->watches[slot] = watch;
    ctx->polls[slot].fd = -1;
    ctx->polls[slot].events = 0;
    ctx->polls[slot].revents = 0;
    watch->ctx = ctx;
    watch->ready = ready;
    watch->opaque = opaque;
    watch->fd = fd;
    watch->events = 0;
    watch->slot = slot + 1;
    chr_watch_set(watch, events);
    return 0;
}

static void chr__watches_close_gaps(chr_context *ctx)
{
    int from, to = 0;

    for (from = 0; ctx->holes > 0 && from < ctx->watch_count; from++)
        if (ctx->watches[from]) {
            if (from != to)
                chr__watch_move(ctx, from, to);
            to++;
        }
    if (ctx->holes > 0)
        ctx->watch_count = to;
    ctx->holes = 0;
}

/* -- timers: a pairing heap that needs no memory but the timers. To start one costs a constant time, to stop one or
 * to run the nearest O(log n) on average. -- */

static int chr__timer_is_sooner(const chr_timer *timer, const chr_timer *other)
{
    return timer->deadline != other->deadline ? timer->deadline < other->deadline : timer->order < other->order;
}

/* Two heaps become one: the later top goes under the sooner one. Either may be NULL. */
static chr_timer *chr__timers_merge(chr_timer *heap, chr_timer *other)
{
    chr_timer *top, *child;

    if (!heap || !other)
        return heap ? heap : other;
    top = chr__timer_is_sooner(heap, other) ? heap : other;
    child = top == heap ? other : heap;
    child->next = top->child;
    child->link = &top->child;
    if (child->next)
        child->next->link = &child->next;
    top->child = child;
    return top;
}

/* A list of heaps becomes one: neighbours are merged in pairs, then the pairs from the last to the first. */
static chr_timer *chr__timers_merge_list(chr_timer *list)
{
    chr_timer *pairs = NULL, *heap = NULL, *first, *second;

    while ((first = list) != NULL) {
        second = first->next;
        list = second ? second->next : NULL;
        first = chr__timers_merge(first, second);
        first->next = pairs;
        pairs = first;
    }
    while ((first = pairs) != NULL) {
        pairs = first->next;
        heap = chr__timers_merge(heap, first);
    }
    return heap;
}

static void chr__timer_place(chr_timer *heap, chr_timer **link, chr_timer *next)
{
    *link = heap;
    heap->link = link;
    heap->next = next;
    if (next)
        next->link = &heap->next;
}

/* What was below it takes its place. */
static void chr__timer_unlink(chr_timer *timer)
{
    chr_timer *heap;

    if (!timer->ctx)
        return;
    timer->ctx->due--;
    heap = chr__timers_merge_list(timer->child);
    if (heap) {
        chr__timer_place(heap, timer->link, timer->next);
    } else {
        *timer->link = timer->next;
        if (timer->next)
            timer->next->link = timer->link;
    }
    CHR__STORE(timer->ctx, NULL);
}

/* Its neighbours in the heap may be other threads'. After its context, a stopped one is looked at only. */
CHARDEV_API void chr_timer_stop(chr_timer *timer)
{
    chr_context *ctx = CHR__LOAD(timer->ctx);

    if (!ctx)
        return;
    CHR__LOCK(ctx);
    chr__timer_unlink(timer);
    CHR__UNLOCK(ctx);
}

static void chr__timer_start_at(chr_context *ctx, chr_timer **heap, chr_timer *timer, int64_t deadline,
                                void (*expired)(void *), void *opaque)
{
    CHR__LOCK(ctx);
    chr__timer_unlink(timer);
    CHR__STORE(timer->ctx, ctx);
    timer->expired = expired;
    timer->opaque = opaque;
    timer->deadline = deadline;
    timer->order = ctx->timer_order++;
    timer->child = NULL;
    chr__timer_place(chr__timers_merge(*heap, timer), heap, NULL);
    ctx->due++;
    if (*heap == timer)
        chr__loop_poke(ctx);
    CHR__UNLOCK(ctx);
}

CHARDEV_API void chr_timer_start(chr_context *ctx, chr_timer *timer, int64_t delay_ms, void (*expired)(void *), void *opaque)
{
    const int64_t most = INT64_MAX / 2 / 1000000; /* 146 years: later than that is never, and must not wrap around */

    delay_ms = delay_ms < 0 ? 0 : delay_ms < most ? delay_ms : most;
    chr__timer_start_at(ctx, &ctx->timers, timer, chr_loop_now(ctx) + delay_ms * 1000000, expired, opaque);
}

/* In real time: for peers, who know nothing of the context's clock. */
CHR__PRIVATE void chr__timer_start_real(chr_context *ctx, chr_timer *timer, int64_t delay_ms, void (*expired)(void *),
                                        void *opaque)
{
    chr__timer_start_at(ctx, &ctx->real_timers, timer, chr__real_now(ctx) + delay_ms * 1000000, expired, opaque);
}

CHARDEV_API int64_t chr_loop_deadline(chr_context *ctx)
{
    int64_t deadline;

    CHR__LOCK(ctx);
    deadline = ctx->timers ? ctx->timers->deadline : INT64_MAX;
    CHR__UNLOCK(ctx);
    return deadline;
}

/* Those that are due now; what they start comes in the next step. */
CHR__COLD int chr__timers_run_due(chr_context *ctx, chr_timer **heap, int64_t now)
{
    int        ran = 0;
    chr_timer *timer, last;

    last.deadline = now;
    last.order = ctx->timer_order++;
    while ((timer = *heap) != NULL && chr__timer_is_sooner(timer, &last)) {
        chr_timer_stop(timer);
        timer->expired(timer->opaque);
        ran++;
    }
    return ran;
}

CHR__COLD int chr__timers_run(chr_context *ctx)
{
    int ran = 0;

    if (ctx->timers)
        ran = chr__timers_run_due(ctx, &ctx->timers, chr_loop_now(ctx));
    if (ctx->real_timers)
        ran += chr__timers_run_due(ctx, &ctx->real_timers, chr__real_now(ctx));
    return ran;
}

/* -- idles -- */

static void chr__idle_unlink(chr_idle *idle)
{
    if (!idle->next)
        return;
    idle->ctx->due--;
    idle->next->prev = idle->prev;
    CHR__STORE(idle->prev->next, idle->next);
    idle->prev = NULL;
    CHR__STORE(idle->next, NULL);
}

CHARDEV_API void chr_idle_stop(chr_idle *idle)
{
    chr_context *ctx = CHR__LOAD(idle->next) ? idle->ctx : NULL;

    if (!ctx)
        return;
    CHR__LOCK(ctx);
    chr__idle_unlink(idle);
    CHR__UNLOCK(ctx);
}

static void chr__idle_link(chr_context *ctx, chr_idle *idle, void (*run)(void *), void *opaque)
{
    idle->ctx = ctx;
    idle->run = run;
    idle->opaque = opaque;
    idle->prev = ctx->idles.prev;
    CHR__STORE(idle->next, &ctx->idles);
    CHR__STORE(idle->prev->next, idle);
    ctx->idles.prev = idle;
    ctx->due++;
}

/* The way to post something to the owner thread. */
CHARDEV_API void chr_idle_start(chr_context *ctx, chr_idle *idle, void (*run)(void *), void *opaque)
{
    CHR__LOCK(ctx);
    if (!idle->next) {
        chr__idle_link(ctx, idle, run, opaque);
        CHR__STORE(ctx->posted, 1);
        chr__loop_poke(ctx);
    }
    CHR__UNLOCK(ctx);
}

/* Those that are there now; what they start comes in the next step. */
CHR__COLD int chr__idles_run(chr_context *ctx)
{
    chr_idle *idle;
    int       ran = 0;

    if (ctx->idles.next == &ctx->idles)
        return 0;
    chr__idle_link(ctx, &ctx->last_idle, NULL, NULL);
    while ((idle = ctx->idles.next) != &ctx->last_idle) {
        chr__idle_unlink(idle);
        idle->run(idle->opaque);
        ran++;
    }
    chr__idle_unlink(&ctx->last_idle);
    return ran;
}

/* -- what blocks: others may go on meanwhile -- */

#ifdef CHARDEV_THREADS
static int chr__locks(const chr_context *ctx) { return ctx->locks; }
#else
static int chr__locks(const chr_context *ctx) { return (void)ctx, 0; }
#endif

static void chr__unlock_times(chr_context *ctx, int times)
{
    for (; times > 0; times--)
        CHR__UNLOCK(ctx);
}

static void chr__lock_times(chr_context *ctx, int times)
{
    for (; times > 0; times--)
        CHR__LOCK(ctx);
}

CHR__PRIVATE int chr__block(chr_context *ctx, int fd, int events, int timeout_ms)
{
    int ready, locks = chr__locks(ctx);

    chr__unlock_times(ctx, locks);
    ready = chr__os_wait(fd, events, timeout_ms);
    chr__lock_times(ctx, locks);
    return ready;
}

#if CHARDEV_HAS_SOCKET
static int chr__block_on(chr_context *ctx, chr__pollfd *polls, int count, int timeout_ms)
{
    int ready, locks = chr__locks(ctx);

    chr__unlock_times(ctx, locks);
    ready = chr__os_poll(polls, count, timeout_ms);
    chr__lock_times(ctx, locks);
    return ready;
}
#endif

/* -- dispatch -- */

/* Whoever calls a handler has entered the dispatch: the loop for what runs in it, and for the rest the functions
 * that call handlers, not their callers. What is removed meanwhile is closed at once, and its memory stays. */
static void chr__enter(chr_context *ctx)
{
    CHR__LOCK(ctx);
    ctx->depth++;
}

/* At the end of the outermost dispatch nothing can touch what was removed in it. */
CHR__COLD void chr__tidy(chr_context *ctx)
{
    chr_dev *dev;

    ctx->untidy = ctx->config.timeout_changed != NULL;
    chr__watches_close_gaps(ctx);
    while ((dev = ctx->dead) != NULL) {
        ctx->dead = dev->next;
        chr__free(ctx, (void *)(uintptr_t)dev->options);
        chr__free(ctx, dev->id);
        chr__free(ctx, dev);
    }
    if (ctx->config.timeout_changed)
        ctx->config.timeout_changed(ctx->config.opaque);
}

/* It is closed, and nothing of it lingers: the next tidying frees it. */
CHR__PRIVATE void chr__dead(chr_dev *dev)
{
    dev->next = dev->ctx->dead;
    dev->ctx->dead = dev;
    dev->ctx->untidy = 1;
}

static void chr__leave(chr_context *ctx)
{
    if (--ctx->depth == 0 && ctx->untidy)
        chr__tidy(ctx);
    CHR__UNLOCK(ctx);
}

/* Leaves a function that backends call, also outside of the loop: they look at dev->removed after it, so the memory
 * stays until the next dispatch is over. */
static void chr__return(chr_context *ctx)
{
    ctx->depth--;
    CHR__UNLOCK(ctx);
}

/* Quiet: a slot of a backend runs inside of a call of the user's, maybe on another thread. No handler is called
 * before it is over: events, writability and the question for room are posted to the loop. The lock is held. */
static void chr__quiet(chr_context *ctx) { ctx->quiet++; }
static void chr__loud(chr_context *ctx) { ctx->quiet--; }

/* The same for a slot that no call of a frontend's has led to: for a recorder its events come by themselves. */
static void chr__quiet_outside(chr_context *ctx)
{
    ctx->quiet++;
    ctx->outside++;
}

static void chr__loud_outside(chr_context *ctx)
{
    ctx->quiet--;
    ctx->outside--;
}

/* -- chardevs whose `update` is due: it asks the frontend for room, and what to wait for -- */

static void chr__starved_unlink(chr_dev *dev)
{
    chr_context *ctx = dev->ctx;

    if (!dev->starved)
        return;
    *dev->starved = dev->next_starved;
    if (dev->next_starved)
        dev->next_starved->starved = dev->starved;
    else if (ctx->starved.last == &dev->next_starved)
        ctx->starved.last = dev->starved;
    else if (ctx->urgent.last == &dev->next_starved)
        ctx->urgent.last = dev->starved;
    dev->next_starved = NULL;
    dev->starved = NULL;
}

static void chr__starved_link(chr__dev_queue *queue, chr_dev *dev)
{
    dev->next_starved = NULL;
    dev->starved = queue->last;
    *queue->last = dev;
    queue->last = &dev->next_starved;
}

static void chr__dev_queue_init(chr__dev_queue *queue)
{
    queue->first = NULL;
    queue->last = &queue->first;
}

enum {
    CHR__ASK_MOST = 16,      /* starved ones a step: with many of them the rest waits for its turn, */
    CHR__ASK_AGAIN_MS = 100, /* or for the time when all are asked; */
    CHR__ASK_ROUNDS = 8      /* the update of one on top asks for that of the one below it */
};

static int chr__has_hooks(const chr_context *ctx) { return ctx->config.timeout_changed != NULL; }

static void chr__ask_later(chr_context *ctx)
{
    ctx->ask_at = chr__real_now(ctx) + CHR__ASK_AGAIN_MS * 1000000;
}

/* A backend found no room: it asks again in the next steps, until there is. A loop with hooks has no steps: there it is
 * after a while. */
CHR__PRIVATE void chr__starve(chr_dev *dev)
{
    chr_context *ctx = dev->ctx;

    if (dev->starved || dev->removed)
        return;
    if (!ctx->starved.first && chr__has_hooks(ctx))
        chr__ask_later(ctx);
    chr__starved_link(&ctx->starved, dev);
}

/* The `update` of this one comes before the loop sleeps. */
static void chr__urge(chr_dev *dev)
{
    chr__starved_unlink(dev);
    chr__starved_link(&dev->ctx->urgent, dev);
    CHR__STORE(dev->ctx->posted, 1);
}

/* Those at the head of the queue, up to `most` or (-1) all. What their updates put in line comes behind them. */
static void chr__ask(chr__dev_queue *queue, int most)
{
    chr_dev *list, *dev, **end = &queue->first;

    for (; *end && most != 0; most--)
        end = &(*end)->next_starved;
    if (end == &queue->first)
        return;
    list = queue->first;
    list->starved = &list;
    queue->first = *end;
    if (*end)
        (*end)->starved = &queue->first;
    else
        queue->last = &queue->first;
    *end = NULL;
    while ((dev = list) != NULL) {
        chr__starved_unlink(dev);
        dev->io->update(dev);
    }
}

/* A frontend that forgets accept_input is late, not deaf: a few of them are asked in each step in turn, and all after a
 * while. A loop with hooks has no steps, and only that. */
CHR__COLD void chr__ask_starved(chr_context *ctx)
{
    int rounds = CHR__ASK_ROUNDS, most = chr__has_hooks(ctx) ? 0 : CHR__ASK_MOST;

    chr__enter(ctx);
    if (ctx->starved.first && ctx->ask_at <= chr__real_now(ctx)) {
        chr__ask_later(ctx);
        most = -1;
    }
    chr__ask(&ctx->starved, most);
    for (; ctx->urgent.first && rounds > 0; rounds--)
        chr__ask(&ctx->urgent, -1);
    chr__leave(ctx);
}

static int chr__must_ask(chr_context *ctx)
{
    return ctx->urgent.first || (ctx->starved.first && chr__has_hooks(ctx) && ctx->ask_at <= chr__real_now(ctx));
}

/* Slot i goes half-way to the front: there the busy ones gather, and those that sleep cost nothing to pass by. */
CHR__COLD void chr__watch_promote(chr_context *ctx, int i)
{
    chr__pollfd entry = ctx->polls[i];
    chr_watch  *watch = ctx->watches[i];

    chr__watch_move(ctx, i / 2, i);
    ctx->polls[i / 2] = entry;
    ctx->watches[i / 2] = watch;
    watch->slot = i / 2 + 1;
}

/* As many as poll() has counted. A callback may stop, start and change any watch; the arrays may move. */
static int chr__watches_run(chr_context *ctx, int ready)
{
    int i, ran = 0;

    for (i = 0; ready > 0 && i < ctx->watch_count; i++) {
        short      revents = ctx->polls[i].revents;
        chr_watch *watch = ctx->watches[i];
        if (!revents)
            continue;
        ready--;
        ctx->polls[i].revents = 0;
        if (!watch || !watch->events)
            continue;
        watch->ready(watch->opaque, chr__os_ready_events(revents));
        ran++;
        if (i > 0 && ctx->watches[i] == watch)
            chr__watch_promote(ctx, i);
    }
    return ran;
}

/* Up to milliseconds: not early. */
static int chr__milliseconds(int64_t left)
{
    return left <= 0 ? 0 : left > 86400000000000 ? 86400000 : (int)((left + 999999) / 1000000);
}

/* The sooner of two time-outs; -1 = never. */
static int chr__sooner(int timeout, int other)
{
    return timeout < 0 || (other >= 0 && other < timeout) ? other : timeout;
}

static int chr__loop_timeout(chr_context *ctx)
{
    int timeout = -1;

    if (ctx->idles.next != &ctx->idles || ctx->urgent.first || ctx->ready_again || CHR__LOAD(ctx->stopped))
        return 0;
    if (ctx->timers)
        timeout = chr__milliseconds(ctx->timers->deadline - chr_loop_now(ctx));
    if (ctx->real_timers)
        timeout = chr__sooner(timeout, chr__milliseconds(ctx->real_timers->deadline - chr__real_now(ctx)));
    if (ctx->starved.first && chr__has_hooks(ctx))
        timeout = chr__sooner(timeout, chr__milliseconds(ctx->ask_at - chr__real_now(ctx)));
    return timeout;
}

CHARDEV_API int chr_loop_timeout(chr_context *ctx)
{
    int timeout;

    CHR__LOCK(ctx);
    timeout = chr__loop_timeout(ctx);
    CHR__UNLOCK(ctx);
    return timeout;
}

CHR__HOT static int chr__loop_sleep(chr_context *ctx, int timeout_ms)
{
    int own, ready;

    if (ctx->due) {
        own = chr__loop_timeout(ctx);
        if (own >= 0 && (timeout_ms < 0 || own < timeout_ms))
            timeout_ms = own;
    }
    ctx->sleeping = timeout_ms != 0;
    CHR__UNLOCK(ctx);
    ready = chr__os_loop_wait(&ctx->waker, ctx->polls, ctx->watch_count, timeout_ms);
    CHR__LOCK(ctx);
    ctx->sleeping = 0;
    return ready;
}

CHR__HOT_INLINE int chr__loop_step(chr_context *ctx, int timeout_ms)
{
    int ran;

    if (ctx->urgent.first || ctx->starved.first)
        chr__ask_starved(ctx);
    ran = chr__loop_sleep(ctx, timeout_ms);
    ctx->turn++;
    ctx->depth++;
    if (ran > 0)
        ran = chr__watches_run(ctx, ran);
    if (ran >= 0 && ctx->due)
        ran += chr__timers_run(ctx) + chr__idles_run(ctx);
    if (--ctx->depth == 0 && ctx->untidy)
        chr__tidy(ctx);
    return ran;
}

/* A stop is told once. */
CHR__COLD int chr__loop_stopped(chr_context *ctx)
{
    CHR__STORE(ctx->stopped, 0);
    return CHR_ERR_STOPPED;
}

CHR__HOT CHARDEV_API int chr_loop_step(chr_context *ctx, int timeout_ms)
{
    int ran = CHR_ERR_IN_HANDLER;

    CHR__LOCK(ctx);
    CHR__OWN(ctx);
    if (ctx->depth == 0) {
        ran = CHR__LOAD(ctx->stopped) ? 0 : chr__loop_step(ctx, timeout_ms);
        if (CHR__LOAD(ctx->stopped) && ran >= 0)
            ran = chr__loop_stopped(ctx);
    }
    CHR__UNLOCK(ctx);
    return ran;
}

static int chr__in_handler(chr_context *ctx)
{
    int depth;

    CHR__LOCK(ctx);
    depth = ctx->depth;
    CHR__UNLOCK(ctx);
    return depth > 0;
}

CHR__HOT CHARDEV_API int chr_loop_run(chr_context *ctx)
{
    int ran;

    do
        ran = chr_loop_step(ctx, -1);
    while (ran >= 0);
    return ran == CHR_ERR_STOPPED ? 0 : ran;
}

/* The next look at the clock comes after a quarter of the interval, as far as the pace of the calls tells. A clock that
 * has not moved is too coarse to say when. Returns whether it is time. */
static int chr__step_is_due(chr_context *ctx, int64_t ns)
{
    enum { MOST = 64 };
    int64_t now = chr__real_now(ctx), passed = now - ctx->looked_at;

    ctx->looked_at = now;
    if (passed > ns / 4)
        ctx->stride = (int)(ctx->stride * (ns / 4) / passed) + 1;
    else if (passed <= ns / 8 && ctx->stride < MOST)
        ctx->stride = ctx->stride > 0 ? ctx->stride * 2 : 1;
    ctx->calls_left = ctx->stride;
    return passed == 0 || now - ctx->stepped_at >= ns;
}

CHR__COLD int chr__loop_step_now(chr_context *ctx, int64_t ns)
{
    int is_posted = CHR__LOAD(ctx->posted);

    if (!chr__step_is_due(ctx, ns) && !is_posted)
        return 0;
    CHR__STORE(ctx->posted, 0); /* what is posted from here on comes with the next call, at the latest */
    ctx->stepped_at = ctx->looked_at;
    return chr_loop_step(ctx, 0);
}

CHR__HOT CHARDEV_API int chr_loop_step_every(chr_context *ctx, int64_t ns)
{
    if (!CHR__LOAD(ctx->posted) && --ctx->calls_left > 0)
        return 0;
    return chr__loop_step_now(ctx, ns);
}

/* -- until a time -- */

enum { CHR__SETTLE_ROUNDS = 1000 };

/* All that is ready at this moment, and what comes of it at once. */
CHR__COLD int chr__loop_settle(chr_context *ctx)
{
    int ran, total = 0, rounds = CHR__SETTLE_ROUNDS;

    do {
        ran = chr_loop_step(ctx, 0);
        total += ran > 0 ? ran : 0;
    } while (ran > 0 && --rounds > 0);
    return ran < 0 ? ran : total;
}

/* To the next deadline, or to the end. Returns 1 when that is reached. */
static int chr__clock_jump(chr_context *ctx, int64_t until)
{
    int64_t next = chr_loop_deadline(ctx);

    if (next <= until && next > ctx->now)
        ctx->now = next;
    else if (next > until && until > ctx->now)
        ctx->now = until;
    return next > until;
}

CHR__COLD int chr__run_virtual(chr_context *ctx, int64_t until)
{
    int ran, total = 0;

    do {
        ran = chr__loop_settle(ctx);
        total += ran > 0 ? ran : 0;
    } while (ran >= 0 && !chr__clock_jump(ctx, until));
    return ran < 0 ? ran : total;
}

CHR__COLD int chr__run_real(chr_context *ctx, int64_t until)
{
    int     ran, total = 0;
    int64_t left;

    do {
        left = until - chr_loop_now(ctx);
        ran = chr_loop_step(ctx, chr__milliseconds(left));
        total += ran > 0 ? ran : 0;
    } while (ran >= 0 && left > 0);
    return ran < 0 ? ran : total;
}

CHARDEV_API int chr_loop_run_until(chr_context *ctx, int64_t until)
{
    if (ctx->config.virtual_clock)
        return chr__run_virtual(ctx, until);
    return ctx->config.clock == chr__os_clock ? chr__run_real(ctx, until) : CHR_ERR_NOT_SUPPORTED;
}

CHARDEV_API void chr_loop_stop(chr_context *ctx)
{
    CHR__STORE(ctx->stopped, 1);
    chr_loop_wake(ctx);
}

static int chr__watches_list(const chr_context *ctx, chr_poll *polls, int capacity)
{
    int i, count = 0;

    for (i = 0; i < ctx->watch_count; i++) {
        chr_watch *watch = ctx->watches[i];
        if (!watch || !watch->events)
            continue;
        if (count < capacity) {
            polls[count].fd = watch->fd;
            polls[count].events = watch->events;
            polls[count].watch = watch;
        }
        count++;
    }
    return count;
}

CHARDEV_API int chr_loop_prepare(chr_context *ctx, chr_poll *polls, int capacity, int *timeout_ms)
{
    int count;

    CHR__LOCK(ctx);
    CHR__OWN(ctx);
    if (ctx->urgent.first || ctx->starved.first)
        chr__ask_starved(ctx);
    count = chr__watches_list(ctx, polls, capacity);
    *timeout_ms = chr__loop_timeout(ctx);
    ctx->sleeping = 1; /* as it may be from here on */
    CHR__UNLOCK(ctx);
    return count;
}

/* An edge-triggered loop tells of what is new only. What is ready still after its callback comes again with the next
 * dispatch, for which the time-out is 0. */
CHR__COLD void chr__watch_run(chr_context *ctx, chr_watch *watch, int events)
{
    int slot = watch->slot - 1, ready;

    watch->ready(watch->opaque, events);
    if (!ctx->config.watch_changed || ctx->watches[slot] != watch || !watch->events) /* its memory may be gone */
        return;
    ready = chr__os_wait(watch->fd, watch->events, 0);
    ctx->polls[slot].revents = (short)(ready > 0 ? ready : 0);
    ctx->ready_again |= ready > 0;
}

/* Those that were found ready still. */
CHR__COLD int chr__watches_run_again(chr_context *ctx)
{
    int i, ready, ran = 0;

    ctx->ready_again = 0;
    for (i = 0; i < ctx->watch_count; i++) {
        ready = ctx->polls[i].revents;
        ctx->polls[i].revents = 0;
        if (!ready || !ctx->watches[i] || !ctx->watches[i]->events)
            continue;
        chr__watch_run(ctx, ctx->watches[i], ready);
        ran++;
    }
    return ran;
}

CHARDEV_API void chr_watch_ready(chr_watch *watch, int events)
{
    chr_context *ctx = watch->ctx;

    if (!watch->slot || !watch->events)
        return;
    chr__enter(ctx);
    CHR__OWN(ctx);
    ctx->turn++;
    chr__watch_run(ctx, watch, events);
    chr__leave(ctx);
}

/* A watch that a callback before it has stopped, or moved, or whose memory is gone, is no longer among ours. */
static int chr__is_watched(chr_context *ctx, const chr_poll *entry)
{
    int i;

    for (i = 0; i < ctx->watch_count; i++)
        if (ctx->watches[i] == entry->watch)
            return entry->watch->fd == entry->fd;
    return 0;
}

static int chr__loop_dispatch(chr_context *ctx, const chr_poll *polls, int count)
{
    int i, ran = 0;

    ctx->sleeping = 0;
    ctx->turn++;
    chr__enter(ctx);
    if (chr__must_ask(ctx))
        chr__ask_starved(ctx);
    if (ctx->ready_again)
        ran = chr__watches_run_again(ctx);
    for (i = 0; i < count; i++)
        if (polls[i].events && chr__is_watched(ctx, &polls[i])) {
            chr_watch_ready(polls[i].watch, polls[i].events);
            ran++;
        }
    if (ctx->due)
        ran += chr__timers_run(ctx) + chr__idles_run(ctx);
    chr__leave(ctx);
    return ran;
}

CHARDEV_API int chr_loop_dispatch(chr_context *ctx, const chr_poll *polls, int count)
{
    int ran = CHR_ERR_IN_HANDLER;

    CHR__LOCK(ctx);
    CHR__OWN(ctx);
    if (ctx->depth == 0) {
        ran = CHR__LOAD(ctx->stopped) ? 0 : chr__loop_dispatch(ctx, polls, count);
        if (CHR__LOAD(ctx->stopped))
            ran = chr__loop_stopped(ctx);
    }
    CHR__UNLOCK(ctx);
    return ran;
}

static void chr__woken(void *opaque, int events)
{
    chr_context *ctx = (chr_context *)opaque;

    (void)events;
#ifdef CHARDEV_THREADS
    ctx->rung = 0;
#endif
    chr__os_waker_quiet(&ctx->waker);
}

#if CHARDEV_HAS_PTY
/* -- files that are watched for being opened. One descriptor for all, since a user may have few of that kind (128).
 * Closing it takes the system long: it stays until the context goes. -- */

typedef struct chr__file_watch {
    chr_context            *ctx;
    int                     number; /* the system's; 0 = stopped */
    void                  (*changed)(void *opaque, int what);
    void                   *opaque;
    struct chr__file_watch *next;
} chr__file_watch;

static void chr__file_news_one(chr_context *ctx, const chr__file_news *news)
{
    chr__file_watch *watch, *next;

    for (watch = ctx->file_watches; watch; watch = next) {
        next = watch->next;
        if (watch->number != news->number && !(news->what & CHR__FILE_ANY))
            continue;
        watch->changed(watch->opaque, news->what); /* it may stop this one, but no other */
    }
}

static void chr__file_news_ready(void *opaque, int events)
{
    chr_context   *ctx = (chr_context *)opaque;
    chr__file_news news[CHR__NEWS];
    int            i, count = chr__os_notifier_read(ctx->notifier.fd, news);

    (void)events;
    for (i = 0; i < count; i++)
        chr__file_news_one(ctx, &news[i]);
}

static int chr__file_notifier(chr_context *ctx)
{
    int fd;

    if (ctx->notifier.slot)
        return ctx->notifier.fd;
    fd = chr__os_notifier_open();
    if (fd >= 0 && chr_watch_start(ctx, &ctx->notifier, fd, CHR_IN, chr__file_news_ready, ctx) < 0) {
        chr__os_close(fd);
        return CHR_ERR_NO_MEMORY;
    }
    return fd;
}

/* Fails where the system has no such thing, or no more of it: then the file has to be looked at from time to time.
 * `changed` only notes what it is told. */
static int chr__file_watch_start(chr_context *ctx, chr__file_watch *watch, const char *path,
                                 void (*changed)(void *, int), void *opaque)
{
    int fd = chr__file_notifier(ctx), number = fd < 0 ? fd : chr__os_notifier_add(fd, path);

    if (number < 0)
        return number;
    watch->ctx = ctx;
    watch->number = number;
    watch->changed = changed;
    watch->opaque = opaque;
    watch->next = ctx->file_watches;
    ctx->file_watches = watch;
    return 0;
}

static void chr__file_watch_stop(chr__file_watch *watch)
{
    chr__file_watch **link;

    if (!watch->number)
        return;
    chr__os_notifier_remove(watch->ctx->notifier.fd, watch->number);
    watch->number = 0;
    for (link = &watch->ctx->file_watches; *link != watch; link = &(*link)->next)
        ;
    *link = watch->next;
}

/* What has happened by now is told before it returns. */
static void chr__file_watch_look(chr__file_watch *watch)
{
    if (watch->number)
        chr__file_news_ready(watch->ctx, CHR_IN);
}

static void chr__file_notifier_close(chr_context *ctx)
{
    if (!ctx->notifier.slot)
        return;
    chr_watch_stop(&ctx->notifier);
    chr__os_close(ctx->notifier.fd);
}
#endif

/* ====================================================================================================================
 * >>the_options   text to key=value list, list to options struct, by the backend's table
 * ==================================================================================================================== */

typedef struct chr__pair {
    struct chr__pair *next;
    const char       *key;   /* both in `text` */
    char             *value; /* NULL: a bare word, which the table knows as `word` or `noword` */
    char              text[1];
} chr__pair;

struct chr_options {
    chr_context *ctx;
    chr__pair   *first, **last;
};

#define CHR__AT(type, member) offsetof(type, member)

static const chr_option chr__common_rows[] = {
    /* name           type             where                                      default range      help */
    { "logfile",      CHR_OPTION_TEXT, CHR__AT(chr_common_options, logfile),      NULL,   0, 0,       "what the guest writes goes to this file too" },
    { "logappend",    CHR_OPTION_BOOL, CHR__AT(chr_common_options, logappend),    "off",  0, 0,       "add to the log file instead of starting it anew" },
    { "logtimestamp", CHR_OPTION_BOOL, CHR__AT(chr_common_options, logtimestamp), "off",  0, 0,       "UTC time before each line of the log file" },
    { "logsize",      CHR_OPTION_SIZE, CHR__AT(chr_common_options, logsize),      NULL,   0, INT64_C(1) << 50, "begin a new log file before it grows larger: PATH becomes PATH.1, PATH.1 PATH.2" },
    { "logfiles",     CHR_OPTION_NUMBER, CHR__AT(chr_common_options, logfiles),   "5",    0, 1000,    "with logsize: keep so many log files, PATH included" },
    { "mux",          CHR_OPTION_BOOL, CHR__AT(chr_common_options, mux),          "off",  0, 0,       "several frontends share this chardev" },
    { "history",      CHR_OPTION_SIZE, CHR__AT(chr_common_options, history),      NULL,   0, 1 << 30, "send that many of the last bytes to each new peer first" },
    { "obuf",         CHR_OPTION_SIZE, CHR__AT(chr_common_options, obuf),         NULL,   0, 1 << 30, "keep that many bytes of output that would block" },
    { "obuf-full",    CHR_OPTION_TEXT, CHR__AT(chr_common_options, obuf_full),    "wait", 0, 0,       "when obuf is full: wait, drop-oldest or disconnect" },
    { NULL,           CHR_OPTION_TEXT, 0,                                         NULL,   0, 0,       NULL }
};

/* Objects that are no chardevs have none of these. */
static const chr_option *chr__common_rows_of(const chr_backend *kind)
{
    return kind->open ? chr__common_rows : NULL;
}

static void chr__options_init(chr_options *options, chr_context *ctx)
{
    options->ctx = ctx;
    options->first = NULL;
    options->last = &options->first;
}

static void chr__options_free(chr_options *options)
{
    chr__pair *pair;

    while ((pair = options->first) != NULL) {
        options->first = pair->next;
        chr__free(options->ctx, pair);
    }
    options->last = &options->first;
}

static chr__pair *chr__options_pair(chr_options *options, const char *key, size_t key_len, const char *value, size_t len)
{
    chr__pair *pair = (chr__pair *)chr__allocate(options->ctx, sizeof *pair + key_len + len + 1);

    if (!pair)
        return NULL;
    pair->key = (char *)memcpy(pair->text, key, key_len);
    pair->value = pair->text + key_len + 1;
    memcpy(pair->value, value, len);
    *options->last = pair;
    options->last = &pair->next;
    return pair;
}

CHARDEV_API int chr_options_add(chr_options *options, const char *key, const char *value, size_t len)
{
    return chr__options_pair(options, key, strlen(key), value, len == (size_t)-1 ? strlen(value) : len) ? 0 : CHR_ERR_NO_MEMORY;
}

/* The last value of a key, or NULL. */
static const char *chr__options_get(const chr_options *options, const char *key)
{
    const chr__pair *pair;
    const char      *value = NULL;

    for (pair = options->first; pair; pair = pair->next)
        if (strcmp(pair->key, key) == 0)
            value = pair->value;
    return value;
}

/* -- text to list -- */

/* Up to the next lone comma; a doubled one is part of the text. */
static size_t chr__part_length(const char *text)
{
    size_t len = 0;

    while (text[len] && (text[len] != ',' || text[len + 1] == ','))
        len += text[len] == ',' ? 2 : 1;
    return len;
}

static void chr__undouble_commas(char *text)
{
    char *to = text;

    for (; *text; text++) {
        *to++ = *text;
        if (text[0] == ',' && text[1] == ',')
            text++;
    }
    *to = 0;
}

static int chr__options_part(chr_options *options, const char *part, size_t len)
{
    const char *equals = (const char *)memchr(part, '=', len);
    size_t      key_len = equals ? (size_t)(equals - part) : len, value_at = equals ? key_len + 1 : len;
    chr__pair  *pair = chr__options_pair(options, part, key_len, part + value_at, len - value_at);

    if (!pair)
        return CHR_ERR_NO_MEMORY;
    chr__undouble_commas(pair->value);
    if (!equals)
        pair->value = NULL;
    return 0;
}

/* A value that counts unless the text has another for that key: it goes before what is there. */
static int chr__options_default(chr_options *options, const char *key, const char *value)
{
    chr__pair **end = options->last, *pair = chr__options_pair(options, key, strlen(key), value, strlen(value));

    if (!pair)
        return CHR_ERR_NO_MEMORY;
    if (pair == options->first)
        return 0;
    *end = NULL;
    options->last = end;
    pair->next = options->first;
    options->first = pair;
    return 0;
}

static int chr__options_read(chr_options *options, const char *text, chr_error *err)
{
    for (text = text ? text : "";;) {
        size_t len = chr__part_length(text);
        if (len > 0 && chr__options_part(options, text, len) < 0)
            return chr__no_memory(err);
        if (!text[len])
            return 0;
        text += len + 1;
    }
}

/* The first word without '=' is the backend, wherever it stands, unless there is a backend=. */
static void chr__options_name_backend(chr_options *options)
{
    chr__pair *pair;

    if (chr__options_get(options, "backend"))
        return;
    for (pair = options->first; pair && pair->value; pair = pair->next)
        ;
    if (!pair)
        return;
    pair->value = pair->text;
    pair->key = "backend";
}

/* What ipv4= and ipv6= mean together: 4 or 6 when only one is wanted, else 0. */
CHR__PRIVATE int chr__ip_family(chr_bool ipv4, chr_bool ipv6)
{
    if (ipv6 == CHR_OFF || (ipv4 == CHR_ON && ipv6 != CHR_ON))
        return 4;
    return ipv4 == CHR_OFF || (ipv6 == CHR_ON && ipv4 != CHR_ON) ? 6 : 0;
}

/* -- list to struct -- */

/* The N of NAME.N, without leading zeros; NAME alone is NAME.0; -1 when it is neither. */
static int chr__list_index(const chr_option *row, const char *key)
{
    const char *digits = chr__after(key, row->name), *digit;
    int         index = 0;

    if (digits && !*digits)
        return 0;
    if (!digits || *digits++ != '.' || !*digits || (*digits == '0' && digits[1]))
        return -1;
    for (digit = digits; *digit >= '0' && *digit <= '9' && index < 100000; digit++)
        index = index * 10 + (*digit - '0');
    return *digit ? -1 : index;
}

static int chr__row_has_key(const chr_option *row, const char *key)
{
    return row->type == CHR_OPTION_LIST ? chr__list_index(row, key) >= 0 : strcmp(row->name, key) == 0;
}

/* Behind the name of a row, where it is shown. */
static const char *chr__row_suffix(const chr_option *row, const char *index)
{
    return row->type == CHR_OPTION_LIST ? index : "";
}

static const chr_option *chr__row_find(const chr_option *rows, const char *key)
{
    for (; rows && rows->name; rows++)
        if (chr__row_has_key(rows, key))
            return rows;
    return NULL;
}

static const chr_option *chr__row(const chr_backend *kind, const char *key)
{
    const chr_option *row = chr__row_find(kind->options, key);

    return row ? row : chr__row_find(chr__common_rows_of(kind), key);
}

/* Digits of decimal or 0x hex; NULL when there are none or they pass `max`. */
static const char *chr__read_digits(const char *text, uint64_t max, uint64_t *value)
{
    uint64_t    base = text[0] == '0' && (text[1] == 'x' || text[1] == 'X') ? 16 : 10, digit;
    const char *start = base == 16 ? text + 2 : text;

    *value = 0;
    for (text = start; (digit = (uint64_t)chr__digit(*text)) < base; text++) {
        if (*value > (max - digit) / base)
            return NULL;
        *value = *value * base + digit;
    }
    return text > start ? text : NULL;
}

static int chr__read_number(const char *text, int64_t *value)
{
    int         negative = *text == '-';
    uint64_t    size;
    const char *end = chr__read_digits(text + negative, (uint64_t)INT64_MAX + (uint64_t)negative, &size);

    if (!end || *end)
        return 0;
    *value = !negative ? (int64_t)size : size > 0 ? -(int64_t)(size - 1) - 1 : 0; /* the least has no positive counterpart */
    return 1;
}

/* Behind the point of a size: 0.5M. Nine digits are enough to name any byte of a terabyte. */
static const char *chr__read_fraction(const char *text, int64_t *billionths)
{
    int64_t weight = 100000000;

    for (*billionths = 0; *text >= '0' && *text <= '9'; text++, weight /= 10)
        *billionths += (*text - '0') * weight;
    return text;
}

static int chr__read_size(const char *text, int64_t *value)
{
    static const char letters[] = "BKMGT";
    int64_t           part, billionths = 0, unit = 1;
    uint64_t          whole;
    const char       *letter;

    text = chr__read_digits(text, INT64_MAX, &whole);
    if (text && *text == '.')
        text = chr__read_fraction(text + 1, &billionths);
    if (!text)
        return 0;
    letter = *text ? strchr(letters, *text >= 'a' ? *text - 'a' + 'A' : *text) : NULL;
    if (letter) {
        unit <<= 10 * (letter - letters);
        text++;
    }
    if (*text || (unit == 1 && billionths) || whole > (uint64_t)(INT64_MAX / unit))
        return 0;
    *value = (int64_t)whole * unit;
    part = (int64_t)((double)billionths / 1e9 * (double)unit);
    if (part > INT64_MAX - *value)
        return 0;
    *value += part;
    return 1;
}

static int chr__read_bool(const char *text, chr_bool *value)
{
    static const char *const on[] = { "on", "yes", "true", "y" }, *const off[] = { "off", "no", "false", "n" };
    size_t                   i;

    for (i = 0; i < 4; i++) {
        if (strcmp(text, on[i]) == 0)
            return (void)(*value = CHR_ON), 1;
        if (strcmp(text, off[i]) == 0)
            return (void)(*value = CHR_OFF), 1;
    }
    return 0;
}

enum { CHR__SHOWN = 200 }; /* of what somebody has given, so that what is wrong with it is still seen */

static int chr__bad_value(const char *backend, const chr_option *row, const char *value, const char *expected, chr_error *err)
{
    return chr__fail(err, CHR_ERR_INVALID, "%s: %s=%.*s: %s", backend, row->name, CHR__SHOWN, value, expected);
}

static int chr__set_integer(const char *backend, const chr_option *row, const char *text, int64_t *value, chr_error *err)
{
    int64_t number;
    char    range[200];

    if (row->type == CHR_OPTION_NUMBER && !chr__read_number(text, &number))
        return chr__bad_value(backend, row, text, "not a number (decimal or 0x hexadecimal)", err);
    if (row->type == CHR_OPTION_SIZE && !chr__read_size(text, &number))
        return chr__bad_value(backend, row, text, "not a size (a number, with B, K, M, G or T)", err);
    if (number < row->min || number > row->max) {
        chr__format(range, sizeof range, "out of range, %lld to %lld (%s)", (long long)row->min, (long long)row->max, row->help);
        return chr__bad_value(backend, row, text, range, err);
    }
    *value = number;
    return 0;
}

/* The link to a named descriptor, or to the end of the list. */
static chr__named_fd **chr__named_fd_link(chr_context *ctx, const char *name)
{
    chr__named_fd **link;

    for (link = &ctx->named_fds; *link && strcmp((*link)->name, name) != 0; link = &(*link)->next)
        ;
    return link;
}

/* A number for a local user, a name for a monitor's peer, who must not be able to name our own descriptors. */
static int chr__set_fd(const char *backend, const chr_option *row, const char *text, chr_context *ctx, chr_origin origin,
                       int *fd, chr_error *err)
{
    chr__named_fd *named;
    int64_t        number;

    if (origin == CHR_LOCAL) {
        if (!chr__read_number(text, &number) || number < 0 || number > INT32_MAX)
            return chr__bad_value(backend, row, text, "not a descriptor's number (names are for a monitor)", err);
        *fd = (int)number;
        return 0;
    }
    if (*text >= '0' && *text <= '9')
        return chr__bad_value(backend, row, text, "a number is not allowed here: pass the descriptor with getfd and give its name", err);
    named = *chr__named_fd_link(ctx, text);
    if (!named)
        return chr__fail(err, CHR_ERR_NOT_FOUND, "%s: %s=%s: no descriptor has been passed under that name", backend, row->name, text);
    *fd = named->fd;
    return 0;
}

static int chr__set_value(const char *backend, const chr_option *row, const char *text, chr_context *ctx, chr_origin origin,
                          void *target, chr_error *err)
{
    void *member = (char *)target + row->offset;

    switch (row->type) {
    case CHR_OPTION_BOOL:
        if (chr__read_bool(text, (chr_bool *)member))
            return 0;
        return chr__bad_value(backend, row, text, "not on or off", err);
    case CHR_OPTION_NUMBER:
    case CHR_OPTION_SIZE:
        return chr__set_integer(backend, row, text, (int64_t *)member, err);
    case CHR_OPTION_FD:
        return chr__set_fd(backend, row, text, ctx, origin, (int *)member, err);
    case CHR_OPTION_LIST:
        return 0; /* chr__set_lists() collects them */
    case CHR_OPTION_TEXT:
    default:
        *(const char **)member = text;
        return 0;
    }
}

static int chr__unknown_key(const chr_backend *kind, const chr__pair *pair, chr_error *err)
{
    const chr_option *rows[2];
    size_t            i, len;
    char              allowed[sizeof(((chr_error *)0)->text)] = "id";

    rows[0] = kind->options;
    rows[1] = chr__common_rows_of(kind);
    for (i = 0, len = 2; i < 2; i++)
        for (; rows[i] && rows[i]->name; rows[i]++)
            len = chr__append(allowed, sizeof allowed, len, ", %s%s", rows[i]->name, chr__row_suffix(rows[i], ".N"));
    return chr__fail(err, CHR_ERR_INVALID, "%s: unknown option '%.*s%s%.*s' (allowed: %.*s)", kind->name, CHR__SHOWN,
                     pair->key, pair->value ? "=" : "", 80, pair->value ? pair->value : "", (int)sizeof allowed, allowed);
}

/* A bare word: `word` is word=on, `noword` word=off. */
static int chr__set_bare(const chr_backend *kind, const chr__pair *pair, void *target, chr_error *err)
{
    const chr_option *row = chr__row(kind, pair->key);
    const char       *rest = row ? NULL : chr__after(pair->key, "no");

    if (rest)
        row = chr__row(kind, rest);
    if (!row)
        return chr__unknown_key(kind, pair, err);
    if (row->type != CHR_OPTION_BOOL)
        return chr__fail(err, CHR_ERR_INVALID, "%s: %s: needs a value", kind->name, pair->key);
    *(chr_bool *)(void *)((char *)target + row->offset) = rest ? CHR_OFF : CHR_ON;
    return 0;
}

static void chr__mark_absent_fds(const chr_backend *kind, void *target)
{
    const chr_option *row;

    for (row = kind->options; row && row->name; row++)
        if (row->type == CHR_OPTION_FD)
            *(int *)(void *)((char *)target + row->offset) = -1;
}

static const char *chr__list_value(const chr_options *options, const chr_option *row, int index)
{
    const chr__pair *pair;
    const char      *value = NULL;

    for (pair = options->first; pair; pair = pair->next)
        if (pair->value && chr__list_index(row, pair->key) == index)
            value = pair->value;
    return value;
}

/* Each element, from NAME.0 on without a gap, into `room`; returns what is left of that, or NULL and err. */
static const char **chr__set_list(const chr_options *options, const char *backend, const chr_option *row, const char **room, chr_error *err)
{
    const chr__pair *pair;
    const char      *value;
    int              count = 0;

    do {
        value = chr__list_value(options, row, count);
        room[count++] = value;
    } while (value);
    for (pair = options->first; pair; pair = pair->next)
        if (chr__list_index(row, pair->key) >= count)
            return (void)chr__fail(err, CHR_ERR_INVALID, "%s: %s=%s: there is no %s.%d", backend, pair->key,
                                   pair->value, row->name, count - 1),
                   (const char **)NULL;
    return room + count;
}

/* The arrays stand behind the struct, at `room`. */
static int chr__set_lists(const chr_options *options, const chr_backend *kind, void *target, const char **room, chr_error *err)
{
    const chr_option *row;

    for (row = kind->options; row && row->name; row++) {
        if (row->type != CHR_OPTION_LIST)
            continue;
        *(const char *const **)(void *)((char *)target + row->offset) = room;
        room = chr__set_list(options, kind->name, row, room, err);
        if (!room)
            return CHR_ERR_INVALID;
    }
    return 0;
}

/* How many pointers they may need: each key one, each list its end. */
static size_t chr__lists_room(const chr_options *options, const chr_backend *kind)
{
    const chr__pair  *pair;
    const chr_option *row;
    size_t            keys = 0, lists = 0;

    for (row = kind->options; row && row->name; row++)
        lists += row->type == CHR_OPTION_LIST;
    for (pair = options->first; pair; pair = pair->next)
        keys++;
    return lists ? (keys + lists) * sizeof(const char *) : 0;
}

/* Fills the zeroed struct `target`; texts in it still belong to the list. */
static int chr__options_to_struct(const chr_options *options, const chr_backend *kind, chr_origin origin, void *target, chr_error *err)
{
    const chr__pair  *pair;
    const chr_option *row;
    int               code = 0;

    chr__mark_absent_fds(kind, target);
    for (pair = options->first; pair && code == 0; pair = pair->next) {
        if (strcmp(pair->key, "id") == 0 || strcmp(pair->key, "backend") == 0)
            continue;
        row = chr__row(kind, pair->key);
        if (!pair->value)
            code = chr__set_bare(kind, pair, target, err);
        else if (!row)
            code = chr__unknown_key(kind, pair, err);
        else
            code = chr__set_value(kind->name, row, pair->value, options->ctx, origin, target, err);
    }
    if (code < 0)
        return code;
    return chr__set_lists(options, kind, target, (const char **)(void *)((char *)target + kind->options_size), err);
}

/* -- a chardev's own copy of the struct: texts inside, defaults filled in, ranges checked. Text and typed callers meet here. -- */

/* The first of the row's texts, and in *count how many there are (with NULL at the end of a list); NULL when it has none. */
static const char *const *chr__row_texts(const chr_option *row, const void *target, size_t *count)
{
    const void        *member = (const char *)target + row->offset;
    const char *const *texts = NULL;

    *count = 1;
    if (row->type == CHR_OPTION_TEXT)
        return (const char *const *)member;
    if (row->type == CHR_OPTION_LIST)
        texts = *(const char *const *const *)member;
    while (texts && texts[*count - 1])
        ++*count;
    return texts;
}

static size_t chr__texts_size(const chr_option *row, const void *target)
{
    const char *const *texts;
    size_t             size = 0, count, i;

    for (; row && row->name; row++) {
        texts = chr__row_texts(row, target, &count);
        if (texts && row->type == CHR_OPTION_LIST)
            size += count * sizeof *texts;
        for (i = 0; texts && i < count; i++)
            size += texts[i] ? strlen(texts[i]) + 1 : 0;
    }
    return size;
}

/* The arrays first: they must stay aligned. */
static char *chr__copy_lists(const chr_option *row, void *target, char *room)
{
    const char *const *texts;
    size_t             count;

    for (; row && row->name; row++) {
        texts = row->type == CHR_OPTION_LIST ? chr__row_texts(row, target, &count) : NULL;
        if (!texts)
            continue;
        *(void **)(void *)((char *)target + row->offset) = memcpy(room, texts, count * sizeof *texts);
        room += count * sizeof *texts;
    }
    return room;
}

static char *chr__copy_texts(const chr_option *row, void *target, char *room)
{
    const char *const *texts;
    size_t             count, i, size;

    for (; row && row->name; row++) {
        texts = chr__row_texts(row, target, &count);
        for (i = 0; texts && i < count; i++) {
            if (!texts[i])
                continue;
            size = strlen(texts[i]) + 1;
            ((const char **)(uintptr_t)texts)[i] = (const char *)memcpy(room, texts[i], size);
            room += size;
        }
    }
    return room;
}

static int chr__row_is_unset(const chr_option *row, const void *target)
{
    const void *member = (const char *)target + row->offset;

    switch (row->type) {
    case CHR_OPTION_BOOL: return *(const chr_bool *)member == CHR_DEFAULT;
    case CHR_OPTION_TEXT: return *(const char *const *)member == NULL;
    case CHR_OPTION_FD:   return 0;
    case CHR_OPTION_LIST: return !*(const char *const *const *)member || !**(const char *const *const *)member;
    case CHR_OPTION_NUMBER:
    case CHR_OPTION_SIZE:
    default:              return *(const int64_t *)member == 0;
    }
}

static int chr__check_range(const char *backend, const chr_option *row, const void *target, chr_error *err)
{
    int64_t value;

    if (row->type != CHR_OPTION_NUMBER && row->type != CHR_OPTION_SIZE)
        return 0;
    value = *(const int64_t *)(const void *)((const char *)target + row->offset);
    if (value >= row->min && value <= row->max)
        return 0;
    return chr__fail(err, CHR_ERR_INVALID, "%s: %s=%lld: out of range, %lld to %lld", backend, row->name, (long long)value,
                     (long long)row->min, (long long)row->max);
}

static int chr__complete(const char *backend, const chr_option *row, chr_context *ctx, void *target, chr_error *err)
{
    int code = 0;

    for (; row && row->name && code == 0; row++) {
        if (!chr__row_is_unset(row, target))
            code = chr__check_range(backend, row, target, err);
        else if (row->default_text && strcmp(row->default_text, CHR_REQUIRED) == 0)
            code = chr__fail(err, CHR_ERR_INVALID, "%s: needs %s%s=", backend, row->name, chr__row_suffix(row, ".0"));
        else if (row->default_text)
            code = chr__set_value(backend, row, row->default_text, ctx, CHR_LOCAL, target, err);
    }
    return code;
}

static void *chr__options_copy(chr_context *ctx, const chr_backend *kind, const void *options, chr_error *err)
{
    const chr_option *common = chr__common_rows_of(kind);
    size_t            texts = options ? chr__texts_size(kind->options, options) + chr__texts_size(common, options) : 0;
    char             *copy = (char *)chr__allocate(ctx, kind->options_size + texts), *room;

    if (!copy)
        return (void)chr__no_memory(err), (void *)NULL;
    chr__mark_absent_fds(kind, copy);
    if (options) {
        memcpy(copy, options, kind->options_size);
        room = chr__copy_lists(kind->options, copy, copy + kind->options_size);
        chr__copy_texts(common, copy, chr__copy_texts(kind->options, copy, room));
    }
    if (chr__complete(kind->name, kind->options, ctx, copy, err) == 0 && chr__complete(kind->name, common, ctx, copy, err) == 0)
        return copy;
    chr__free(ctx, copy);
    return NULL;
}

/* -- objects that are no chardevs, from the same tables -- */

CHR__PRIVATE chr__object **chr__object_link(chr_context *ctx, const char *id)
{
    chr__object **link;

    for (link = &ctx->objects; *link && strcmp((*link)->id, id) != 0; link = &(*link)->next)
        ;
    return link;
}

/* One user less; the last one frees it. */
static void chr__object_drop(chr_context *ctx, chr__object *object)
{
    if (--object->users > 0)
        return;
    if (object->release)
        object->release(ctx, object);
    chr__free(ctx, object->options);
    chr__free(ctx, object->id);
    chr__free(ctx, object);
}

/* A zeroed object with its complete options; `list` was read from text. It is in the context when that says so. */
CHR__PRIVATE chr__object *chr__object_new(const chr_options *list, const chr_backend *kind, chr_error *err)
{
    chr_context *ctx = list->ctx;
    const char  *id = chr__options_get(list, "id");
    chr__object *object = (chr__object *)chr__allocate(ctx, kind->state_size);
    void        *target = chr__allocate(ctx, kind->options_size);

    if (object && target) {
        object->users = 1;
        object->kind = kind;
        object->id = chr__copy_text(ctx, id, strlen(id));
        if (chr__options_to_struct(list, kind, CHR_LOCAL, target, err) == 0)
            object->options = chr__options_copy(ctx, kind, target, err);
    }
    if (!object || !target || !object->id)
        chr__no_memory(err);
    chr__free(ctx, target);
    if (object && object->id && object->options)
        return object;
    if (object)
        chr__object_drop(ctx, object);
    return NULL;
}

/* -- help -- */

static size_t chr__pad(char *line, size_t len, size_t column)
{
    while (len < column)
        line[len++] = ' ';
    return len;
}

static void chr__help_rows(const chr_option *row, void (*print)(void *, const char *), void *opaque)
{
    static const char *const types[] = { "on|off", "number", "size", "text", "descriptor", "text" };
    char                     line[256];
    size_t                   len;

    for (; row && row->name; row++) {
        len = chr__append(line, sizeof line, 0, "  %s%s=<%s>", row->name, chr__row_suffix(row, ".N"), types[row->type]);
        len = chr__append(line, sizeof line, chr__pad(line, len, 28), " %s", row->help);
        if (row->default_text && strcmp(row->default_text, CHR_REQUIRED) == 0)
            chr__append(line, sizeof line, len, " %s", row->default_text);
        else if (row->default_text)
            chr__append(line, sizeof line, len, " (default: %s)", row->default_text);
        print(opaque, line);
    }
}

static void chr__help_backend(const chr_backend *kind, void (*print)(void *, const char *), void *opaque)
{
    char line[256];

    chr__format(line, sizeof line, "%s: %s", kind->name, kind->help);
    print(opaque, line);
    print(opaque, "  id=<text>                  its name: a letter, then letters, digits, '-', '.', '_' (required)");
    chr__help_rows(kind->options, print, opaque);
    chr__help_rows(chr__common_rows_of(kind), print, opaque);
}

CHARDEV_API const chr_backend *chr_backend_next(chr_context *ctx, const chr_backend *kind)
{
    const chr_backend *const *builtin = ctx->builtins;
    const chr__kind_node     *node = ctx->kinds;

    if (!kind)
        return *builtin ? *builtin : node ? node->kind : NULL;
    for (; *builtin; builtin++)
        if (*builtin == kind)
            return builtin[1] ? builtin[1] : node ? node->kind : NULL;
    for (; node; node = node->next)
        if (node->kind == kind)
            return node->next ? node->next->kind : NULL;
    return NULL;
}

static const chr_backend *chr__kind_find(chr_context *ctx, const char *name, size_t len)
{
    const chr_backend *kind;

    for (kind = chr_backend_next(ctx, NULL); kind; kind = chr_backend_next(ctx, kind))
        if (chr__text_is(name, len, kind->name) || (kind->alias && chr__text_is(name, len, kind->alias)))
            return kind;
    return NULL;
}

CHARDEV_API const chr_backend *chr_backend_find(chr_context *ctx, const char *name)
{
    return chr__kind_find(ctx, name, strlen(name));
}

static const chr_backend *chr__object_kind_find(chr_context *ctx, const char *name, size_t len)
{
    const chr_backend *const *kind;

    for (kind = ctx->object_kinds; *kind; kind++)
        if (chr__text_is(name, len, (*kind)->name))
            return *kind;
    return NULL;
}

static int chr__is_help(const char *text, size_t len)
{
    return chr__text_is(text, len, "help") || chr__text_is(text, len, "?");
}

static void chr__help_all(chr_context *ctx, void (*print)(void *, const char *), void *opaque)
{
    const chr_backend *kind;
    size_t             len;
    char               line[256];

    print(opaque, "backends (BACKEND,help lists the options of one):");
    for (kind = chr_backend_next(ctx, NULL); kind; kind = chr_backend_next(ctx, kind)) {
        len = chr__append(line, sizeof line, 0, "  %s", kind->name);
        chr__append(line, sizeof line, chr__pad(line, len, 13), "%s", kind->help);
        print(opaque, line);
    }
}

/* ====================================================================================================================
 * >>the_record   what crosses a frontend's edge goes to a file; the layout stands in >>record
 * ==================================================================================================================== */

#define CHR__RECORDED (1u << 30) /* among the pending events, so that input looks at one word only */

typedef enum chr__record_kind {
    CHR__RECORD_NEW = 1, CHR__RECORD_CREATED, CHR__RECORD_INPUT, CHR__RECORD_EVENT, CHR__RECORD_WRITABLE, CHR__RECORD_WRITE,
    CHR__RECORD_READ, CHR__RECORD_IOCTL, CHR__RECORD_SET_OPEN, CHR__RECORD_DISCONNECT, CHR__RECORD_WAIT,
        CHR__RECORD_END,
    CHR__RECORD_SHUTDOWN
} chr__record_kind;

enum { CHR__FILE_HEAD = 24, CHR__RECORD_HEAD = 28, CHR__RECORD_VERSION = 1, CHR__RECORD_LAST = 0xffff };

static const char chr__record_magic[] = "chardevR";

typedef struct chr__recorder {
    int          fd;
    chr__fd_type type;
    unsigned     numbers; /* how many chardevs have one */
    int64_t      started;
} chr__recorder;

static int chr__is_recorded(const chr_dev *dev)
{
    return (dev->pending & CHR__RECORDED) != 0;
}

/* Starts from 0, and goes on from what it returned. */
static uint32_t chr__crc32(uint32_t crc, const void *buf, size_t len)
{
    static const uint32_t step[16] = { 0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
                                       0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c };
    const unsigned char  *byte = (const unsigned char *)buf;

    for (crc = ~crc; len > 0; len--) {
        crc ^= *byte++;
        crc = crc >> 4 ^ step[crc & 15];
        crc = crc >> 4 ^ step[crc & 15];
    }
    return ~crc;
}

/* -- writing -- */

static void chr__set_extras(chr_dev *dev)
{
    dev->extras = dev->log || dev->outbox || dev->ending || chr__is_recorded(dev);
}

static void chr__record_close(chr_context *ctx)
{
    chr_dev *dev;

    for (dev = ctx->devs; dev; dev = dev->next) {
        dev->pending &= ~CHR__RECORDED;
        chr__set_extras(dev);
    }
    chr__os_close(ctx->recorder->fd);
    chr__free(ctx, ctx->recorder);
    ctx->recorder = NULL;
}

static void chr__record_give_up(chr_context *ctx, const char *why)
{
    chr__record_close(ctx);
    chr__log_text(ctx, why);
}

/* One record, at once, so that a crash loses none. As with the log file, failure never disturbs the traffic. */
static int chr__record_write(chr_context *ctx, unsigned number, chr__record_kind kind, int64_t value, uint32_t extra, const void *buf, size_t len)
{
    unsigned char head[CHR__RECORD_HEAD];
    char          line[120];
    int           code;

    chr__put_le(head, len, 4);
    chr__put_le(head + 8, number, 2);
    head[10] = (unsigned char)kind;
    head[11] = kind == CHR__RECORD_EVENT && ctx->quiet > ctx->outside;
    chr__put_le(head + 12, (uint64_t)(chr_loop_now(ctx) - ctx->recorder->started), 8);
    chr__put_le(head + 20, (uint64_t)value, 4);
    chr__put_le(head + 24, extra, 4);
    chr__put_le(head + 4, chr__crc32(chr__crc32(chr__crc32(0, head, 4), head + 8, sizeof head - 8), buf, len), 4);
    code = chr__write_file(ctx->recorder->fd, ctx->recorder->type, head, sizeof head);
    if (code == 0)
        code = chr__write_file(ctx->recorder->fd, ctx->recorder->type, buf, len);
    if (code < 0) {
        chr__format(line, sizeof line, "the recording can't be written: %s: it ends here", chr_error_text(code));
        chr__record_give_up(ctx, line);
    }
    return code;
}

CHR__COLD void chr__record(chr_dev *dev, chr__record_kind kind, int64_t value, uint32_t extra, const void *buf, size_t len)
{
    if (dev->ctx->recorder)
        (void)chr__record_write(dev->ctx, dev->record_number, kind, value, extra, buf, len);
    else
        dev->pending &= ~CHR__RECORDED; /* it was being made, or is removed, while recording ended */
}

/* With the bytes that went: when nobody was there to take them, all. */
CHR__COLD void chr__record_transfer(chr_dev *dev, chr__record_kind kind, int n, const void *buf, size_t len)
{
    size_t gone = n > 0 ? (size_t)n : kind == CHR__RECORD_WRITE && n == CHR_ERR_DISCONNECTED ? len : 0;

    chr__record(dev, kind, n, (uint32_t)len, buf, gone);
}

/* A result whose failure has a text. */
CHR__COLD void chr__record_text(chr_dev *dev, chr__record_kind kind, int code, const chr_error *err)
{
    const char *text = code < 0 ? (err ? err->text : chr_error_text(code)) : "";

    chr__record(dev, kind, code, 0, text, strlen(text));
}

/* The argument of an ioctl as it stands in the file: how many bytes; `ints` says how many numbers they are, if any. */
static size_t chr__ioctl_size(int command, const void *arg, int *ints)
{
    *ints = 0;
    switch (command) {
    case CHR_IOCTL_SET_ECHO: case CHR_IOCTL_SERIAL_SET_BREAK: case CHR_IOCTL_SERIAL_GET_TIOCM: case CHR_IOCTL_SERIAL_SET_TIOCM:
    case CHR_IOCTL_SERIAL_SET_FLOW: case CHR_IOCTL_SERIAL_GET_FLOW: case CHR_IOCTL_PP_DATA_DIR:
    case CHR_IOCTL_SERIAL_PURGE: case CHR_IOCTL_SERIAL_GET_ERRORS: case CHR_IOCTL_SERIAL_SET_ERRORS:
        *ints = 1;
        return 4;
    case CHR_IOCTL_GET_TERMINAL_SIZE: case CHR_IOCTL_SET_TERMINAL_SIZE:
        *ints = 2;
        return 8;
    case CHR_IOCTL_SERIAL_SET_PARAMS: case CHR_IOCTL_SERIAL_GET_PARAMS:
        *ints = 4;
        return 16;
    case CHR_IOCTL_PP_EPP_READ_ADDRESS: case CHR_IOCTL_PP_EPP_READ: case CHR_IOCTL_PP_EPP_WRITE_ADDRESS: case CHR_IOCTL_PP_EPP_WRITE:
        return ((const chr_parallel_epp *)arg)->count > 0 ? (size_t)((const chr_parallel_epp *)arg)->count : 0;
    default:
        return command >= CHR_IOCTL_PP_READ_DATA && command <= CHR_IOCTL_PP_READ_STATUS ? 1 : 0;
    }
}

static int chr__is_epp(int command)
{
    return command >= CHR_IOCTL_PP_EPP_READ_ADDRESS && command <= CHR_IOCTL_PP_EPP_WRITE;
}

CHR__COLD void chr__record_ioctl(chr_dev *dev, int command, int code, const void *arg)
{
    unsigned char numbers[16];
    int           ints = 0, i;
    size_t        size = code >= 0 ? chr__ioctl_size(command, arg, &ints) : 0;
    const void   *bytes = size > 0 && chr__is_epp(command) ? ((const chr_parallel_epp *)arg)->buf : arg;

    for (i = 0; i < ints; i++)
        chr__put_le(numbers + 4 * i, (uint64_t)((const int *)arg)[i], 4);
    chr__record(dev, CHR__RECORD_IOCTL, code, (uint32_t)command, ints > 0 ? numbers : bytes, size);
}

/* From before its `open` on, so that events in there are not missed. Chardevs with many frontends live on one that is recorded. */
static void chr__record_new(chr_dev *dev)
{
    chr__recorder *recorder = dev->ctx->recorder;

    if (!recorder || dev->kind->sharing)
        return;
    if (recorder->numbers > CHR__RECORD_LAST) {
        chr__record_give_up(dev->ctx, "the recording ends here: the file has numbers for 65536 chardevs");
        return;
    }
    dev->record_number = recorder->numbers++;
    dev->pending |= CHR__RECORDED;
    chr__record(dev, CHR__RECORD_NEW, 0, 0, dev->id, strlen(dev->id));
}

/* One that is there already, as if it had been made just now. */
static void chr__record_existing(chr_dev *dev)
{
    chr__record_new(dev);
    if (!chr__is_recorded(dev))
        return;
    chr__quiet(dev->ctx);
    if (dev->be_open)
        chr__record(dev, CHR__RECORD_EVENT, CHR_EVENT_OPENED, 0, NULL, 0);
    chr__loud(dev->ctx);
    chr__record(dev, CHR__RECORD_CREATED, 0, 0, NULL, 0);
    chr__set_extras(dev);
}

static int chr__record_begin(chr_context *ctx)
{
    unsigned char head[CHR__FILE_HEAD];

    memcpy(head, chr__record_magic, 8);
    chr__put_le(head + 8, CHR__RECORD_VERSION, 4);
    chr__put_le(head + 12, 0, 4);
    chr__put_le(head + 16, (uint64_t)ctx->recorder->started, 8);
    return chr__write_file(ctx->recorder->fd, ctx->recorder->type, head, sizeof head);
}

static int chr__record_start(chr_context *ctx, const char *path, chr_error *err)
{
    chr_dev *dev;
    int      code, fd;

    if (ctx->recorder)
        return chr__fail(err, CHR_ERR_BUSY, "%s: a recording is under way already", path);
    fd = chr__os_open(path, CHR__OPEN_CREATE, err);
    if (fd < 0)
        return fd;
    ctx->recorder = (chr__recorder *)chr__allocate(ctx, sizeof *ctx->recorder);
    if (!ctx->recorder) {
        chr__os_close(fd);
        return chr__no_memory(err);
    }
    ctx->recorder->fd = fd;
    ctx->recorder->type = chr__os_fd_type(fd, 1);
    ctx->recorder->started = chr_loop_now(ctx);
    code = chr__record_begin(ctx);
    if (code < 0) {
        chr__record_close(ctx);
        return chr__fail(err, code, "%s: can't be written: %s", path, chr_error_text(code));
    }
    for (dev = ctx->devs; dev && ctx->recorder; dev = dev->next)
        chr__record_existing(dev);
    return ctx->recorder ? 0 : chr__fail(err, CHR_ERR_IO, "%s: the recording could not be begun: the log says why",
                                         path);
}

CHARDEV_API int chr_record_start(chr_context *ctx, const char *path, chr_error *err)
{
    int code;

    CHR__LOCK(ctx);
    code = chr__record_start(ctx, path, err);
    CHR__UNLOCK(ctx);
    return code;
}

CHARDEV_API int chr_record_stop(chr_context *ctx)
{
    int code = CHR_ERR_NOT_FOUND;

    CHR__LOCK(ctx);
    if (ctx->recorder)
        code = chr__record_write(ctx, 0, CHR__RECORD_END, 0, 0, NULL, 0);
    if (ctx->recorder)
        chr__record_close(ctx);
    CHR__UNLOCK(ctx);
    return code;
}

/* ====================================================================================================================
 * >>core   events, input, the log file, the registry, hot swap
 * ==================================================================================================================== */

/* -- asking again, from the loop and before it sleeps -- */

static void chr__postpone(chr_dev *dev, unsigned what);
static int  chr__frontend_waits(const chr_dev *dev);
static int  chr__outbox_waits(const chr_dev *dev);

enum { CHR__LAST_EVENT = CHR_EVENT_INPUT_END }; /* each has a bit there */
#define CHR__OTHER_EVENT (1u << 29) /* among the pending events: an int that is none of CHR_EVENT_...; the last one
                                       counts */
#define CHR__WRITABLE (1u << 31) /* among the pending events: a backend that never blocks answers a waiting frontend */

/* From any thread, and from inside slots: the question for room is a handler, and the poll set is the owner's. A
 * backend that never blocks has no `update`: it can always be written to. */
static void chr__update(chr_dev *dev)
{
    if (dev->removed)
        return;
    if (!dev->io->update) {
        if (chr__outbox_waits(dev) || chr__frontend_waits(dev))
            chr__postpone(dev, CHR__WRITABLE);
        return;
    }
    chr__urge(dev);
    chr__loop_poke(dev->ctx);
}

/* -- output that waits: history= and obuf=, both fixed in size -- */

typedef enum chr__when_full { CHR__FULL_WAIT, CHR__FULL_DROP, CHR__FULL_DISCONNECT } chr__when_full;

typedef struct chr__outbox {
    chr__ring       history, queue; /* size 0 = not asked for */
    size_t          unsent;         /* of the history: what the peer has still to get */
    int             failure;        /* what draining has met: the next write returns it */
    chr__when_full  when_full;
    int             is_cut_off;     /* the peer is too slow: it is about to be disconnected, */
    chr_idle        cut_off;        /* from the loop */
} chr__outbox;

static void chr__outbox_free(chr_dev *dev)
{
    if (!dev->outbox)
        return;
    chr_idle_stop(&dev->outbox->cut_off);
    chr__free(dev->ctx, dev->outbox->history.bytes);
    chr__free(dev->ctx, dev->outbox->queue.bytes);
    chr__free(dev->ctx, dev->outbox);
    dev->outbox = NULL;
}

static int chr__outbox_when_full(const chr_dev *dev, chr__when_full *when_full, chr_error *err)
{
    static const char *const  words[] = { "wait", "drop-oldest", "disconnect" };
    const chr_common_options *common = (const chr_common_options *)dev->options;
    const char               *word = common->obuf_full ? common->obuf_full : "wait";
    int                       i;

    for (i = 0; i < 3 && strcmp(word, words[i]) != 0; i++)
        ;
    if (i == 3)
        return chr__fail(err, CHR_ERR_INVALID, "obuf-full=%s: is none of wait, drop-oldest, disconnect", word);
    if (i > 0 && !common->obuf)
        return chr__fail(err, CHR_ERR_INVALID, "obuf-full=%s: needs obuf=", word);
    if (i == CHR__FULL_DISCONNECT && !(dev->kind->peer && dev->kind->peer->disconnect))
        return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "obuf-full=disconnect: a %s has no peer to disconnect",
                         dev->kind->name);
    *when_full = (chr__when_full)i;
    return 0;
}

static void chr__outbox_none(chr_common_options *common)
{
    common->history = common->obuf = 0;
    common->obuf_full = NULL;
}

static int chr__outbox_open(chr_dev *dev, chr_error *err)
{
    const chr_common_options *common = (const chr_common_options *)dev->options;
    chr__when_full            when_full = CHR__FULL_WAIT;
    chr__outbox              *outbox;
    int                       code = chr__outbox_when_full(dev, &when_full, err);

    if (code < 0 || (!common->history && !common->obuf))
        return code;
    dev->outbox = outbox = (chr__outbox *)chr__allocate(dev->ctx, sizeof *outbox);
    if (!outbox || (common->history && chr__ring_init(dev->ctx, &outbox->history, (size_t)common->history) < 0) ||
        (common->obuf && chr__ring_init(dev->ctx, &outbox->queue, (size_t)common->obuf) < 0))
        return chr__no_memory(err);
    outbox->when_full = when_full;
    return 0;
}

static int chr__outbox_waits(const chr_dev *dev)
{
    return dev->outbox && (dev->outbox->unsent > 0 || dev->outbox->queue.count > 0);
}

static void chr__outbox_remember(chr__outbox *outbox, const void *buf, size_t len)
{
    if (outbox->history.size > 0)
        chr__ring_put(&outbox->history, buf, len);
}

/* What can't be sent is remembered for the next peer, or lost. */
static void chr__outbox_drop(chr_dev *dev, int failure)
{
    chr__outbox         *outbox = dev->outbox;
    const unsigned char *piece;
    size_t               len;

    for (outbox->unsent = 0; outbox->queue.count > 0; chr__ring_take(&outbox->queue, len)) {
        piece = chr__ring_piece(&outbox->queue, 0, &len);
        chr__outbox_remember(outbox, piece, len);
        dev->bytes_dropped += len;
    }
    outbox->failure = failure;
}

/* Hands over what the peer that goes has still to get, as a block that is freed by the caller; NULL when there is
 * none, or no memory: then it is lost, and counted. The first *owed bytes of it are history. */
CHR__PRIVATE unsigned char *chr__outbox_take(chr_dev *dev, size_t *size, size_t *owed)
{
    chr__outbox         *outbox = dev->outbox;
    const unsigned char *piece;
    unsigned char       *block;
    size_t               at, len;

    *owed = outbox ? outbox->unsent : 0;
    *size = outbox ? outbox->unsent + outbox->queue.count : 0;
    block = *size > 0 ? (unsigned char *)chr__allocate(dev->ctx, *size) : NULL;
    if (!block) {
        *size = *owed = 0;
        return NULL;
    }
    for (at = 0; outbox->unsent > 0; at += len, outbox->unsent -= len) {
        piece = chr__ring_piece(&outbox->history, outbox->history.count - outbox->unsent, &len);
        memcpy(block + at, piece, len);
    }
    for (; outbox->queue.count > 0; at += len, chr__ring_take(&outbox->queue, len)) {
        piece = chr__ring_piece(&outbox->queue, 0, &len);
        memcpy(block + at, piece, len);
        chr__outbox_remember(outbox, piece, len);
    }
    return block;
}

/* A serial line's transmit buffer is purged: what is queued for it goes too. */
CHR__PRIVATE void chr__outbox_purge(chr_dev *dev)
{
    if (dev->outbox)
        chr__outbox_drop(dev, 0);
}

/* As much as the backend takes: first the history, then what was queued behind it. */
static void chr__outbox_send(chr_dev *dev)
{
    chr__outbox         *outbox = dev->outbox;
    const unsigned char *piece;
    size_t               len;
    int                  n = 1;

    while (outbox->unsent > 0 && n > 0) {
        piece = chr__ring_piece(&outbox->history, outbox->history.count - outbox->unsent, &len);
        n = dev->io->write(dev, piece, len);
        outbox->unsent -= n > 0 ? (size_t)n : 0;
    }
    while (outbox->queue.count > 0 && n > 0) {
        piece = chr__ring_piece(&outbox->queue, 0, &len);
        n = dev->io->write(dev, piece, len);
        if (n > 0) {
            chr__outbox_remember(outbox, piece, (size_t)n);
            chr__ring_take(&outbox->queue, (size_t)n);
        }
    }
    if (n < 0 && n != CHR_ERR_WOULD_BLOCK)
        chr__outbox_drop(dev, n);
}

static void chr__outbox_drain(chr_dev *dev)
{
    chr__quiet_outside(dev->ctx);
    chr__outbox_send(dev);
    chr__loud_outside(dev->ctx);
}

/* Each new peer gets the history first. At CLOSED only the input may have ended, so that the rest still goes: not
 * from inside a slot, which may be the write that has found nobody. */
static void chr__outbox_event(chr_dev *dev, int event)
{
    chr__outbox *outbox = dev->outbox;

    outbox->is_cut_off = 0;
    outbox->unsent = event == CHR_EVENT_OPENED ? outbox->history.count : 0;
    if (event == CHR_EVENT_CLOSED && dev->ctx->quiet == 0 && chr__outbox_waits(dev))
        chr__outbox_drain(dev);
    else if (event == CHR_EVENT_CLOSED && chr__outbox_waits(dev))
        chr__postpone(dev, CHR__WRITABLE);
    outbox->failure = 0;
    if (event == CHR_EVENT_OPENED && chr__outbox_waits(dev))
        chr__update(dev); /* asks can_read: the chardev may be gone after it, and the outbox with it */
}

/* -- obuf-full= -- */

/* The oldest bytes go out of the queue. Behind history that the peer has still to get they are history that it has
 * still to get; then it is the oldest of that which is lost. */
static void chr__outbox_forget(chr_dev *dev, const void *buf, size_t len)
{
    chr__outbox *outbox = dev->outbox;
    size_t       unsent = outbox->unsent > 0 ? outbox->unsent + len : 0;

    chr__outbox_remember(outbox, buf, len);
    outbox->unsent = chr__min(unsent, outbox->history.count);
    dev->bytes_dropped += unsent > 0 ? unsent - outbox->unsent : len;
}

/* Takes all of it; what has waited longest makes room. */
static void chr__outbox_push(chr_dev *dev, const char *buf, size_t len)
{
    chr__outbox         *outbox = dev->outbox;
    const unsigned char *piece;
    size_t               size, room = outbox->queue.size - outbox->queue.count, excess = len > room ? len - room : 0;

    for (; excess > 0 && outbox->queue.count > 0; excess -= size, chr__ring_take(&outbox->queue, size)) {
        piece = chr__ring_piece(&outbox->queue, 0, &size);
        size = chr__min(size, excess);
        chr__outbox_forget(dev, piece, size);
    }
    if (excess > 0)
        chr__outbox_forget(dev, buf, excess);
    chr__ring_put(&outbox->queue, buf + excess, len - excess);
}

static void chr__outbox_disconnect(void *opaque)
{
    chr_dev *dev = (chr_dev *)opaque;

    if (!dev->outbox->is_cut_off)
        return;
    chr__log_line(dev->ctx, dev->id, "the peer is too slow, obuf= is full: it is disconnected");
    (void)dev->kind->peer->disconnect(dev);
}

/* What waits is lost, and nothing more is taken for this peer. */
static void chr__outbox_cut_off(chr_dev *dev)
{
    chr__outbox_drop(dev, 0);
    dev->outbox->is_cut_off = 1;
    chr_idle_start(dev->ctx, &dev->outbox->cut_off, chr__outbox_disconnect, dev);
}

/* As much of it as goes into the queue. */
static size_t chr__outbox_queue(chr_dev *dev, const char *buf, size_t len)
{
    chr__outbox *outbox = dev->outbox;
    size_t       room = outbox->queue.size - outbox->queue.count;

    if (len > room && outbox->when_full == CHR__FULL_DISCONNECT) {
        chr__outbox_cut_off(dev);
        return 0;
    }
    if (len > room && outbox->when_full == CHR__FULL_DROP)
        chr__outbox_push(dev, buf, len);
    else if ((len = chr__min(len, room)) > 0)
        chr__ring_put(&outbox->queue, buf, len);
    return len;
}

/* To the backend, unless some waits still, or an error that was met before is told. */
static int chr__outbox_attempt(chr_dev *dev, const void *buf, size_t len)
{
    chr__outbox *outbox = dev->outbox;
    int          failure;

    if (outbox->is_cut_off)
        return CHR_ERR_DISCONNECTED;
    if (chr__outbox_waits(dev))
        chr__outbox_drain(dev);
    failure = outbox->failure;
    outbox->failure = 0;
    return failure ? failure : chr__outbox_waits(dev) ? CHR_ERR_WOULD_BLOCK : dev->io->write(dev, buf, len);
}

CHR__COLD int chr__outbox_write(chr_dev *dev, const void *buf, size_t len)
{
    chr__outbox *outbox = dev->outbox;
    int          n = chr__outbox_attempt(dev, buf, len);

    if (n > 0)
        chr__outbox_remember(outbox, buf, (size_t)n);
    if (n >= 0 || n == CHR_ERR_WOULD_BLOCK) {
        n = n > 0 ? n : 0;
        n += (int)chr__outbox_queue(dev, (const char *)buf + n, len - (size_t)n);
        if (n == 0)
            n = outbox->is_cut_off ? CHR_ERR_DISCONNECTED : CHR_ERR_WOULD_BLOCK;
        if (chr__outbox_waits(dev))
            chr__update(dev);
    }
    if (n == CHR_ERR_DISCONNECTED)
        chr__outbox_remember(outbox, buf, len);
    return n;
}

/* -- frontends that go away while somebody uses them -- */

/* On the stack of a function that goes on with a frontend after one of its handlers: fe is NULL when it has been
 * detached meanwhile. */
typedef struct chr__hold {
    chr_frontend     *fe;
    struct chr__hold *outer;
} chr__hold;

static void chr__hold_begin(chr_context *ctx, chr__hold *hold, chr_frontend *fe)
{
    hold->fe = fe;
    hold->outer = ctx->holds;
    ctx->holds = hold;
}

static void chr__hold_end(chr_context *ctx, chr__hold *hold)
{
    ctx->holds = hold->outer;
}

/* Its context stays known, for other threads that are about to call: they find no chardev. */
CHR__PRIVATE void chr__fe_let_go(chr_frontend *fe)
{
    chr__hold *hold;

    for (hold = fe->ctx->holds; hold; hold = hold->outer)
        if (hold->fe == fe)
            hold->fe = NULL;
    fe->told_open = 0;
    fe->attached = NULL;
    CHR__STORE(fe->dev, NULL);
    if (fe->ctx->closing)
        CHR__STORE(fe->ctx, NULL);
}

/* -- writability -- */

static int chr__frontend_waits(const chr_dev *dev)
{
    if (dev->kind->sharing)
        return dev->kind->sharing->wants_writable(dev);
    return dev->frontend && dev->frontend->writable;
}

CHARDEV_API int chr_be_wants_writable(const chr_dev *dev)
{
    int wants;

    CHR__LOCK(dev->ctx);
    wants = chr__outbox_waits(dev) || dev->ending || chr__frontend_waits(dev);
    CHR__UNLOCK(dev->ctx);
    return wants;
}

/* Once all that was written is out, the backend says that no more comes. */
CHR__COLD int chr__end_output(chr_dev *dev)
{
    int code = CHR_ERR_WOULD_BLOCK;

    chr__quiet_outside(dev->ctx);
    if (dev->outbox)
        chr__outbox_drain(dev);
    if (!chr__outbox_waits(dev))
        code = dev->kind->peer->shutdown(dev);
    chr__loud_outside(dev->ctx);
    dev->ending = code == CHR_ERR_WOULD_BLOCK;
    chr__set_extras(dev);
    return dev->ending ? 0 : code;
}

/* After the call fe may be gone. */
CHARDEV_API void chr_be_tell_writable(chr_frontend *fe)
{
    chr_context *ctx = fe->ctx;
    void       (*writable)(void *);

    if (!ctx)
        return;
    chr__enter(ctx);
    writable = fe->writable;
    fe->writable = NULL;
    if (writable)
        writable(fe->writable_opaque);
    chr__return(ctx);
}

static void chr__tell_writable(chr_dev *dev)
{
    if (chr__is_recorded(dev) && chr__frontend_waits(dev))
        chr__record(dev, CHR__RECORD_WRITABLE, 0, 0, NULL, 0);
    if (dev->ending)
        (void)chr__end_output(dev);
    else if (dev->outbox)
        chr__outbox_drain(dev);
    if (chr__outbox_waits(dev) && dev->outbox->queue.count == dev->outbox->queue.size &&
        dev->outbox->when_full == CHR__FULL_WAIT)
        return;
    if (dev->kind->sharing)
        dev->kind->sharing->writable(dev);
    else if (dev->frontend)
        chr_be_tell_writable(dev->frontend);
}

CHARDEV_API void chr_be_writable(chr_dev *dev)
{
    chr_context *ctx = dev->ctx;

    chr__enter(ctx);
    dev->stalled = 0;
    if (ctx->quiet > 0)
        chr__postpone(dev, CHR__WRITABLE);
    else
        chr__tell_writable(dev);
    chr__return(ctx);
}

/* -- events -- */

/* Seen from one set of handlers OPENED and CLOSED strictly alternate, OPENED first. */
static void chr__tell_event(chr_frontend *fe, int event)
{
    if (event == CHR_EVENT_OPENED || event == CHR_EVENT_CLOSED) {
        if (!fe->handlers.event || fe->told_open == (event == CHR_EVENT_OPENED))
            return;
        fe->told_open = event == CHR_EVENT_OPENED;
    }
    if (fe->handlers.event)
        fe->handlers.event(fe->opaque, event);
}

/* After the call fe may be gone. */
CHARDEV_API void chr_be_tell_event(chr_frontend *fe, int event)
{
    chr_context *ctx = fe->ctx;

    if (!ctx)
        return;
    chr__enter(ctx);
    chr__tell_event(fe, event);
    chr__return(ctx);
}

/* To a frontend that has just come to this chardev, unless it knows it already. */
static void chr__tell_state(chr_frontend *fe, chr_dev *dev)
{
    chr__hold hold;

    chr__hold_begin(dev->ctx, &hold, fe);
    chr_be_tell_event(fe, dev->be_open ? CHR_EVENT_OPENED : CHR_EVENT_CLOSED);
    if (hold.fe && dev->input_over && fe->dev == dev && fe->told_open)
        chr_be_tell_event(fe, CHR_EVENT_INPUT_END);
    chr__hold_end(dev->ctx, &hold);
}

static void chr__deliver_event(chr_dev *dev, int event)
{
    if (dev->kind->sharing)
        dev->kind->sharing->event(dev, event);
    else if (dev->frontend)
        chr_be_tell_event(dev->frontend, event);
}

static void chr__deliver_pending(chr_dev *dev)
{
    static const int order[] = { CHR_EVENT_CLOSED,  CHR_EVENT_OPENED,  CHR_EVENT_BREAK,
                                 CHR_EVENT_RESIZED, CHR_EVENT_SERIAL, CHR_EVENT_LINE_ERROR, CHR_EVENT_PURGE_RECEIVE,
                                 CHR_EVENT_PURGE_TRANSMIT, CHR_EVENT_MUX_IN, CHR_EVENT_MUX_OUT, CHR_EVENT_INPUT_END };
    unsigned         i, pending = dev->pending;

    dev->pending &= CHR__RECORDED;
    for (i = 0; i < sizeof order / sizeof order[0] && !dev->removed; i++)
        if (pending & (1u << order[i]))
            chr__deliver_event(dev, order[i]);
    if ((pending & CHR__OTHER_EVENT) && !dev->removed)
        chr__deliver_event(dev, dev->other_event);
    if ((pending & CHR__WRITABLE) && !dev->removed)
        chr_be_writable(dev);
}

/* What happened while a slot was under way. CLOSED before OPENED: the other order has cancelled itself out. */
static void chr__notify(void *opaque)
{
    chr_dev     *dev = (chr_dev *)opaque;
    chr_context *ctx = dev->ctx;

    chr__enter(ctx);
    chr__deliver_pending(dev);
    chr__return(ctx);
}

/* Before anything newer, so that all comes in the order in which it happened. */
CHR__COLD void chr__notify_now(chr_dev *dev)
{
    chr_idle_stop(&dev->notify);
    chr__notify(dev);
}

/* From the loop. */
static void chr__postpone(chr_dev *dev, unsigned what)
{
    dev->pending |= what;
    chr_idle_start(dev->ctx, &dev->notify, chr__notify, dev);
}

static void chr__postpone_event(chr_dev *dev, int event)
{
    dev->room_epoch++;
    if (event == CHR_EVENT_CLOSED)
        dev->pending &= ~(1u << CHR_EVENT_OPENED | 1u << CHR_EVENT_INPUT_END);
    if (event >= CHR_EVENT_BREAK && event <= CHR__LAST_EVENT) {
        chr__postpone(dev, 1u << event);
        return;
    }
    dev->other_event = event;
    chr__postpone(dev, CHR__OTHER_EVENT);
}

/* A new peer, or none: what the last one was told, and has said, is over. */
static void chr__note_open(chr_dev *dev, int event)
{
    dev->be_open = event == CHR_EVENT_OPENED;
    dev->was_open |= dev->be_open;
    dev->input_over = dev->is_over = 0;
    if (dev->ending && dev->be_open) {
        dev->ending = 0;
        chr__set_extras(dev);
    }
    if (dev->outbox)
        chr__outbox_event(dev, event);
    if (dev->ending && dev->ctx->quiet > 0)
        chr__postpone(dev, CHR__WRITABLE);
    else if (dev->ending)
        (void)chr__end_output(dev);
}

static void chr__event(chr_dev *dev, int event)
{
    if (event == CHR_EVENT_OPENED && dev->closing)
        return;
    if (event == CHR_EVENT_OPENED || event == CHR_EVENT_CLOSED)
        chr__note_open(dev, event);
    else if (event == CHR_EVENT_INPUT_END)
        dev->input_over = 1;
    if (dev->ctx->quiet > 0) {
        chr__postpone_event(dev, event);
        return;
    }
    if (dev->pending & ~CHR__RECORDED)
        chr__notify_now(dev);
    if (!dev->removed)
        chr__deliver_event(dev, event);
}

static int chr__comes_back(const chr_dev *dev)
{
    chr_info info;

    memset(&info, 0, sizeof info);
    if (dev->kind->describe)
        dev->kind->describe(dev, &info);
    return info.comes_back;
}

/* With the end of its input goes what a replay can't ask anybody: whether more may come. */
static void chr__record_event(chr_dev *dev, int event)
{
    int is_end = event == CHR_EVENT_CLOSED || event == CHR_EVENT_INPUT_END;

    chr__record(dev, CHR__RECORD_EVENT, event, is_end && chr__comes_back(dev), NULL, 0);
}

CHARDEV_API void chr_be_event(chr_dev *dev, int event)
{
    chr_context *ctx = dev->ctx;

    chr__enter(ctx);
    if (chr__is_recorded(dev))
        chr__record_event(dev, event);
    chr__event(dev, event);
    chr__return(ctx);
}

/* -- input -- */

/* What comes before input is delivered, and seldom. */
CHR__COLD void chr__before_input(chr_dev *dev, const void *buf, size_t len)
{
    if (dev->pending & ~CHR__RECORDED)
        chr__notify_now(dev);
    if (chr__is_recorded(dev))
        chr__record(dev, CHR__RECORD_INPUT, 0, 0, buf, len);
}

/* The two for backends in this file, which run in the loop: it has entered the dispatch. Before the question comes
 * what waits to be told: those handlers may change the room. Who is asked may go away, set other handlers, let
 * another take its place or cause an event: then there is no answer. */
CHR__HOT_INLINE int chr__room(chr_dev *dev)
{
    chr_frontend *fe;
    unsigned      epoch;
    int           room;

    if (dev->pending & ~CHR__RECORDED)
        chr__notify_now(dev);
    fe = dev->frontend;
    if (!fe || !fe->handlers.read)
        return 0;
    if (!fe->handlers.can_read)
        return CHR__BUFFER_SIZE;
    epoch = dev->room_epoch;
    room = fe->handlers.can_read(fe->opaque);
    return dev->room_epoch == epoch ? room : 0;
}

CHR__HOT static void chr__input(chr_dev *dev, const void *buf, size_t len)
{
    chr_frontend *fe;

    dev->bytes_in += len;
    if (dev->pending)
        chr__before_input(dev, buf, len);
    fe = dev->frontend;
    if (fe && fe->handlers.read)
        fe->handlers.read(fe->opaque, buf, len);
}

/* From inside a slot: asked later, from the loop. */
CHARDEV_API int chr_be_can_write(chr_dev *dev)
{
    chr_context *ctx = dev->ctx;
    int          room = 0;

    chr__enter(ctx);
    if (ctx->quiet > 0)
        chr__update(dev);
    else
        room = chr__room(dev);
    chr__return(ctx);
    return room;
}

CHARDEV_API void chr_be_write(chr_dev *dev, const void *buf, size_t len)
{
    chr_context *ctx = dev->ctx;

    chr__enter(ctx);
    chr__input(dev, buf, len);
    chr__return(ctx);
}

/* Whether the frontend's side is there. */
static void chr__set_open(chr_dev *dev, int is_open)
{
    chr__quiet(dev->ctx);
    if (dev->kind->set_open)
        dev->kind->set_open(dev, is_open);
    chr__loud(dev->ctx);
    if (chr__is_recorded(dev))
        chr__record(dev, CHR__RECORD_SET_OPEN, is_open, 0, NULL, 0);
}

/* -- the log file: never disturbs the traffic -- */

typedef struct chr__log {
    int          fd, stamped, in_line; /* -1 = switched off; in_line: the last byte was not a newline */
    chr__fd_type type;
    int64_t      size, limit;          /* logsize=: what is in the file, and what may be; limit 0 = anything */
    char        *path, *from, *to;     /* absolute; room for the names of a rotation */
} chr__log;

enum { CHR__LOG_SUFFIX = 8 }; /* room for .1000 */

static void chr__log_close(chr_dev *dev)
{
    chr__log *log = dev->log;

    if (!log)
        return;
    dev->log = NULL;
    chr__os_close(log->fd);
    chr__free(dev->ctx, log->path);
    chr__free(dev->ctx, log->from);
    chr__free(dev->ctx, log->to);
    chr__free(dev->ctx, log);
}

/* From here on it is written to this file. */
static void chr__log_use(chr_dev *dev, int fd)
{
    chr__log *log = dev->log;

    if (log->fd >= 0)
        chr__os_close(log->fd);
    log->fd = fd;
    log->type = chr__os_fd_type(fd, 1);
    log->size = chr__os_file_size(fd);
    log->limit = log->size < 0 ? 0 : ((const chr_common_options *)dev->options)->logsize;
}

static int chr__log_begin(chr_dev *dev, const chr_common_options *common, int fd)
{
    size_t    size;
    chr__log *log = dev->log = (chr__log *)chr__allocate(dev->ctx, sizeof *dev->log);

    if (!log)
        return CHR_ERR_NO_MEMORY;
    log->fd = -1;
    log->path = chr__absolute_path(dev->ctx, common->logfile);
    size = log->path ? strlen(log->path) + CHR__LOG_SUFFIX : 0;
    log->from = log->path ? (char *)chr__allocate(dev->ctx, size) : NULL;
    log->to = log->from ? (char *)chr__allocate(dev->ctx, size) : NULL;
    if (!log->to) {
        chr__log_close(dev);
        return CHR_ERR_NO_MEMORY;
    }
    log->stamped = common->logtimestamp == CHR_ON;
    chr__log_use(dev, fd);
    return 0;
}

static int chr__log_open(chr_dev *dev, chr_error *err)
{
    const chr_common_options *common = (const chr_common_options *)dev->options;
    int                       fd;

    if (!common->logfile)
        return common->logsize ? chr__fail(err, CHR_ERR_INVALID, "logsize= needs logfile=") : 0;
    fd = chr__os_open(common->logfile, common->logappend == CHR_ON ? CHR__OPEN_APPEND : CHR__OPEN_LOG, err);
    if (fd < 0)
        return fd;
    if (common->logsize && chr__os_file_size(fd) < 0) {
        chr__os_close(fd);
        return chr__fail(err, CHR_ERR_INVALID, "logfile=%s: is no regular file: no logsize= for it", common->logfile);
    }
    if (chr__log_begin(dev, common, fd) == 0)
        return 0;
    chr__os_close(fd);
    return chr__no_memory(err);
}

/* Year, month and day of a day since 1970, by the civil calendar (years begin in March, so that leap days come last). */
static void chr__civil_date(int64_t days, int *year, int *month, int *day)
{
    int64_t era, day_of_era, year_of_era, day_of_year, shifted;

    days += 719468;
    era = chr__floor_divide(days, 146097);
    day_of_era = days - era * 146097;
    year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    shifted = (5 * day_of_year + 2) / 153;
    *day = (int)(day_of_year - (153 * shifted + 2) / 5 + 1);
    *month = (int)(shifted < 10 ? shifted + 3 : shifted - 9);
    *year = (int)(year_of_era + era * 400 + (*month <= 2));
}

static int chr__log_stamp(chr_context *ctx, char *text, size_t size)
{
    int64_t ms = chr__floor_divide(chr__wall_now(ctx), 1000000);
    int64_t days = chr__floor_divide(ms, 86400000), in_day = ms - days * 86400000;
    int     year, month, day;

    chr__civil_date(days, &year, &month, &day);
    return chr__format(text, size, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ ", year, month, day, (int)(in_day / 3600000),
                       (int)(in_day / 60000 % 60), (int)(in_day / 1000 % 60), (int)(in_day % 1000));
}

static void chr__log_name(const chr__log *log, char *name, int64_t number)
{
    size_t size = strlen(log->path) + CHR__LOG_SUFFIX;

    if (number > 0)
        chr__format(name, size, "%s.%d", log->path, (int)number);
    else
        chr__format(name, size, "%s", log->path);
}

/* PATH becomes PATH.1, that PATH.2, ...; the last one goes. */
static int chr__log_shift(chr__log *log, int64_t files)
{
    int64_t number;
    int     code = 0;

    for (number = files - 1; number > 0; number--) {
        chr__log_name(log, log->from, number - 1);
        chr__log_name(log, log->to, number);
        code = chr__os_rename(log->from, log->to); /* those that there have never been don't count */
    }
    return code;
}

/* Without a new file the old goes on, and the next attempt comes when it has grown by as much once more. */
static void chr__log_goes_on(chr_dev *dev, int code)
{
    char text[300];

    dev->log->size = 0;
    chr__format(text, sizeof text, "cannot begin a new log file %s: %s: the old one grows", dev->log->path,
                chr_error_text(code));
    chr__log_line(dev->ctx, dev->id, text);
}

static int chr__log_rotate(chr_dev *dev)
{
    int64_t   files = ((const chr_common_options *)dev->options)->logfiles;
    chr__log *log = dev->log;
    int       fd, code = chr__log_shift(log, files);

    if (code < 0)
        return code;
    fd = chr__os_open(log->path, CHR__OPEN_LOG, NULL);
    if (fd < 0 && files > 1)
        (void)chr__os_rename(log->to, log->from);
    return fd;
}

/* It seems full. Somebody else may have emptied it meanwhile, or moved it away. */
static void chr__log_full(chr_dev *dev)
{
    chr__log *log = dev->log;
    int64_t   size = chr__os_file_size(log->fd);
    int       is_named = chr__os_is_named(log->fd, log->path), fd;

    if (is_named && size < log->size) {
        log->size = size;
        return;
    }
    fd = is_named ? chr__log_rotate(dev) : chr__os_open(log->path, CHR__OPEN_APPEND, NULL);
    if (fd < 0)
        chr__log_goes_on(dev, fd);
    else
        chr__log_use(dev, fd);
}

/* How much of it goes into the file as it is: whole lines where that can be; 0 = it is full. */
static size_t chr__log_room(const chr__log *log, const char *text, size_t len)
{
    size_t room = log->size < log->limit ? (size_t)(log->limit - log->size) : 0, line;

    if (len <= room)
        return len;
    for (line = room; line > 0 && text[line - 1] != '\n'; line--)
        ;
    return line > 0 ? line : log->in_line || log->size == 0 ? room : 0;
}

static int chr__log_put(chr_dev *dev, const char *text, size_t len)
{
    chr__log *log = dev->log;
    size_t    piece;
    int       code = 0;

    for (; len > 0 && code == 0; text += piece, len -= piece) {
        while ((piece = log->limit ? chr__log_room(log, text, len) : len) == 0)
            chr__log_full(dev);
        code = chr__write_file(log->fd, log->type, text, piece);
        log->size += (int64_t)piece;
        log->in_line = text[piece - 1] != '\n';
    }
    return code;
}

/* The stamp stands before its line, in the same file. */
static int chr__log_put_stamp(chr_dev *dev, size_t line)
{
    char   stamp[40];
    size_t len = (size_t)chr__log_stamp(dev->ctx, stamp, sizeof stamp);

    if (dev->log->limit && dev->log->size > 0 && dev->log->size + (int64_t)(len + line) > dev->log->limit)
        chr__log_full(dev);
    return chr__log_put(dev, stamp, len);
}

static int chr__log_stamped_lines(chr_dev *dev, const char *text, size_t len)
{
    int    code = 0;
    size_t line;

    for (; len > 0 && code == 0; text += line, len -= line) {
        const void *newline = memchr(text, '\n', len);
        line = newline ? (size_t)((const char *)newline - text) + 1 : len;
        if (!dev->log->in_line)
            code = chr__log_put_stamp(dev, line);
        if (code == 0)
            code = chr__log_put(dev, text, line);
    }
    return code;
}

CHR__COLD void chr__log_record(chr_dev *dev, const void *buf, size_t len)
{
    int  code;
    char text[300];

    if (dev->log->fd < 0)
        return;
    if (dev->log->stamped)
        code = chr__log_stamped_lines(dev, (const char *)buf, len);
    else
        code = chr__log_put(dev, (const char *)buf, len);
    if (code == 0)
        return;
    chr__format(text, sizeof text, "cannot write the log file %.160s: %s: logging is off from here on",
                ((const chr_common_options *)dev->options)->logfile, chr_error_text(code));
    chr__os_close(dev->log->fd);
    dev->log->fd = -1;
    chr__log_line(dev->ctx, dev->id, text); /* last: the hook may well write to this chardev, or remove it */
}

static int chr__log_reopen(chr_dev *dev)
{
    chr_error err;
    int       fd = chr__os_open(dev->log->path, CHR__OPEN_APPEND, &err);

    if (fd < 0) {
        chr__log_line(dev->ctx, dev->id, err.text);
        return fd;
    }
    chr__log_use(dev, fd);
    return 0;
}

CHARDEV_API int chr_log_reopen(chr_context *ctx)
{
    chr_dev *dev;
    int      code, first = 0;

    CHR__LOCK(ctx);
    for (dev = ctx->devs; dev; dev = dev->next) {
        code = dev->log ? chr__log_reopen(dev) : 0;
        first = first ? first : code;
    }
    CHR__UNLOCK(ctx);
    return first;
}

/* -- descriptors that were given with the options: the giver's until nothing can fail any more -- */

struct chr__given {
    struct chr__given *next;
    int                fd;
    int                is_unused; /* the backend has closed it meanwhile, or is a replay: nobody will close it when
                                     it is kept */
    int                has_flags;
    chr__fd_flags      flags;     /* as they were */
};

/* Whether a backend has to leave a descriptor alone when it closes. */
static struct chr__given *chr__given_find(const chr_dev *dev, int fd)
{
    struct chr__given *given;

    for (given = dev->given; given && given->fd != fd; given = given->next)
        ;
    return given;
}

CHR__PRIVATE int chr__is_given(const chr_dev *dev, int fd)
{
    return chr__given_find(dev, fd) != NULL;
}

static int chr__given_note(chr_dev *dev, int fd, int is_unused)
{
    struct chr__given *given;

    if (fd < 0 || chr__is_given(dev, fd))
        return 0;
    given = (struct chr__given *)chr__allocate(dev->ctx, sizeof *given);
    if (!given)
        return CHR_ERR_NO_MEMORY;
    given->fd = fd;
    given->is_unused = is_unused;
    given->has_flags = chr__os_get_flags(fd, &given->flags) >= 0;
    given->next = dev->given;
    dev->given = given;
    return 0;
}

/* Of all rows that hold a descriptor. `kind` is what the options are of. */
static int chr__given_note_all(chr_dev *dev, const chr_backend *kind)
{
    const chr_option *row;
    int               code = 0;

    for (row = kind->options; row && row->name && code == 0; row++)
        if (row->type == CHR_OPTION_FD)
            code = chr__given_note(dev, *(const int *)(const void *)((const char *)dev->options + row->offset),
                                   kind != dev->kind);
    return code;
}

/* They are the chardev's. */
static void chr__given_keep(chr_dev *dev)
{
    struct chr__given *given;

    while ((given = dev->given) != NULL) {
        dev->given = given->next;
        if (given->is_unused)
            chr__os_close(given->fd);
        chr__free(dev->ctx, given);
    }
}

/* They are the giver's again, as they were. */
static void chr__given_return(chr_dev *dev)
{
    struct chr__given *given;

    for (given = dev->given; given; given = given->next) {
        if (given->has_flags)
            chr__os_set_flags(given->fd, &given->flags);
        given->is_unused = 0;
    }
    chr__given_keep(dev);
}

CHR__PRIVATE void chr__close_own(const chr_dev *dev, int fd)
{
    struct chr__given *given = chr__given_find(dev, fd);

    if (given)
        given->is_unused = 1;
    else
        chr__os_close(fd);
}

/* -- making and unmaking one chardev; the registry doesn't know it yet, or any more -- */

/* What the core itself holds of it. */
static void chr__bury(chr_dev *dev)
{
    if (dev->frontend)
        chr__fe_let_go(dev->frontend);
    dev->frontend = NULL;
    dev->room_epoch++;
    dev->removed = 1;
    chr_idle_stop(&dev->notify);
    chr__starved_unlink(dev);
    chr__log_close(dev);
    chr__outbox_free(dev);
    if (dev->holds == 0)
        chr__dead(dev);
}

static void chr__close(chr_dev *dev)
{
    if (dev->removed)
        return;
    chr__quiet_outside(dev->ctx);
    if (chr__outbox_waits(dev))
        chr__outbox_drain(dev); /* what still goes without waiting */
    if (dev->kind->close)
        dev->kind->close(dev);
    chr__loud_outside(dev->ctx);
    chr__bury(dev);
}

/* Closed at once, freed when nothing that runs can touch it. */
static void chr__destroy(chr_dev *dev)
{
    chr_context *ctx = dev->ctx;

    chr__enter(ctx);
    chr__close(dev);
    chr__leave(ctx);
}

/* What it was given is its giver's again. */
static void chr__give_up(chr_dev *fresh)
{
    chr_context *ctx = fresh->ctx;

    chr__enter(ctx);
    chr__close(fresh);
    chr__given_return(fresh);
    chr__leave(ctx);
}

/* The backend's `close` comes after its `open`, also a failed one, but never without. `kind` is what was asked for. */
static int chr__open(chr_dev *dev, const chr_backend *kind, chr_error *err)
{
    int code;

    if (err)
        err->code = 0;
    chr__quiet(dev->ctx);
    code = chr__log_open(dev, err);
    if (code == 0)
        code = chr__outbox_open(dev, err);
    if (code == 0 && chr__given_note_all(dev, kind) < 0)
        code = chr__no_memory(err);
    if (code == 0) {
        code = dev->kind->open(dev, err);
        if (code < 0 && dev->kind->close)
            dev->kind->close(dev);
    }
    chr__loud(dev->ctx);
    if (code < 0 && err && err->code == 0)
        chr__fail(err, code, "%s", chr_error_text(code));
    return code;
}

static chr_dev *chr__create(chr_context *ctx, const char *id, const chr_backend *kind, const void *options, chr_error *err)
{
    const chr_backend *played = ctx->replay_kind && !kind->sharing ? ctx->replay_kind(ctx, id) : NULL;
    chr_dev           *dev = (chr_dev *)chr__allocate(ctx, played ? played->state_size : kind->state_size);
    int                code;

    if (!dev)
        return (void)chr__no_memory(err), (chr_dev *)NULL;
    dev->ctx = ctx;
    dev->kind = played ? played : kind;
    dev->io = dev->kind->io;
    dev->id = chr__copy_text(ctx, id, strlen(id));
    dev->options = dev->id ? chr__options_copy(ctx, kind, options, err) : ((void)chr__no_memory(err), (void *)NULL);
    if (!dev->options) {
        chr__free(ctx, dev->id);
        chr__free(ctx, dev);
        return NULL;
    }
    if (played) /* what they did is in the recording */
        chr__outbox_none((chr_common_options *)(uintptr_t)dev->options);
    chr__record_new(dev);
    code = chr__open(dev, kind, err);
    if (chr__is_recorded(dev))
        chr__record_text(dev, CHR__RECORD_CREATED, code, err);
    if (code == 0) {
        chr__set_extras(dev);
        return dev;
    }
    chr__enter(ctx);
    chr__given_return(dev);
    chr__bury(dev);
    chr__leave(ctx);
    return NULL;
}

/* A chardev that is part of another one: the registry, the recorder and the log file know nothing of it, and its
 * `open` is not called: who makes it fills it in. */
CHR__PRIVATE chr_dev *chr__create_part(const chr_dev *whole, const void *options, chr_error *err)
{
    chr_context *ctx = whole->ctx;
    chr_dev     *dev = (chr_dev *)chr__allocate(ctx, whole->kind->state_size);

    if (!dev)
        return (void)chr__no_memory(err), (chr_dev *)NULL;
    dev->ctx = ctx;
    dev->kind = whole->kind;
    dev->io = dev->kind->io;
    dev->id = chr__copy_text(ctx, whole->id, strlen(whole->id));
    dev->options = dev->id ? chr__options_copy(ctx, dev->kind, options, err) :
        ((void)chr__no_memory(err), (void *)NULL);
    if (!dev->options) {
        chr__free(ctx, dev->id);
        chr__free(ctx, dev);
        return NULL;
    }
    if (chr__outbox_open(dev, err) == 0) {
        chr__set_extras(dev);
        return dev;
    }
    chr__enter(ctx);
    chr__bury(dev);
    chr__leave(ctx);
    return NULL;
}

/* -- the registry -- */

CHARDEV_API chr_dev *chr_find(chr_context *ctx, const char *id)
{
    return (chr_dev *)chr__table_find(&ctx->devs_by_id, id, strlen(id));
}

CHARDEV_API chr_dev *chr_next(chr_context *ctx, const chr_dev *dev)
{
    return dev ? dev->next : ctx->devs;
}

static void chr__register(chr_dev *dev)
{
    chr_context *ctx = dev->ctx;

    dev->next = NULL;
    dev->link = ctx->last_dev;
    *dev->link = dev;
    ctx->last_dev = &dev->next;
    chr__table_add(ctx, &ctx->devs_by_id, &dev->by_id, dev, dev->id, strlen(dev->id));
}

static void chr__unregister(chr_dev *dev)
{
    chr_context *ctx = dev->ctx;

    if (!dev->link)
        return;
    *dev->link = dev->next;
    if (dev->next)
        dev->next->link = dev->link;
    else
        ctx->last_dev = dev->link;
    dev->link = NULL;
    chr__table_remove(ctx, &ctx->devs_by_id, &dev->by_id);
}

static int chr__is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static int chr__check_id_text(const char *id, chr_error *err)
{
    size_t i, len = id ? strlen(id) : 0;

    if (len == 0)
        return chr__fail(err, CHR_ERR_INVALID, "needs id=");
    for (i = 0; i < len && (chr__is_letter(id[i]) || (i > 0 && ((id[i] >= '0' && id[i] <= '9') || strchr("-._", id[i])))); i++)
        ;
    if (i < len)
        return chr__fail(err, CHR_ERR_INVALID, "id=%s: not a letter followed by letters, digits, '-', '.', '_'", id);
    if (len > 127)
        return chr__fail(err, CHR_ERR_INVALID, "id=%s: longer than 127 characters", id);
    return 0;
}

static int chr__check_id(chr_context *ctx, const char *id, chr_error *err)
{
    if (chr__check_id_text(id, err) < 0)
        return CHR_ERR_INVALID;
    if (chr_find(ctx, id))
        return chr__fail(err, CHR_ERR_EXISTS, "id=%s: there is a chardev with that id already", id);
    return 0;
}

/* Prefixes the backend's name to a message that did not know it. */
static void chr__name_error(chr_error *err, const chr_backend *kind)
{
    const char *rest = err ? chr__after(err->text, kind->name) : NULL;
    chr_error   plain;

    if (!err || (rest && *rest == ':'))
        return;
    plain = *err;
    chr__format(err->text, sizeof err->text, "%s: %.*s", kind->name, (int)sizeof err->text - 80, plain.text);
}

/* mux=on: the chardev becomes ID-base, and a mux named ID goes on it. */
static chr_dev *chr__open_muxed(chr_context *ctx, const char *id, const chr_backend *kind, const void *options, chr_error *err)
{
    chr_mux_options mux;
    char            base_id[140];
    chr_dev        *base, *dev;

    if (!ctx->mux)
        return (void)chr__fail(err, CHR_ERR_NOT_SUPPORTED, "mux=on: built without mux"), (chr_dev *)NULL;
    chr__format(base_id, sizeof base_id, "%s-base", id);
    if (chr__check_id(ctx, base_id, err) < 0)
        return NULL;
    base = chr__create(ctx, base_id, kind, options, err);
    if (!base)
        return NULL;
    chr__register(base);
    memset(&mux, 0, sizeof mux);
    mux.chardev = base_id;
    dev = chr__create(ctx, id, ctx->mux, &mux, err);
    if (dev) {
        dev->companion = base;
        chr__register(dev);
        chr__given_keep(base);
        return dev;
    }
    chr__unregister(base);
    chr__give_up(base);
    return NULL;
}

static int chr__check_closing(const chr_context *ctx, chr_error *err)
{
    return ctx->closing ? chr__fail(err, CHR_ERR_BUSY, "the context is being freed") : 0;
}

static chr_dev *chr__open_new(chr_context *ctx, const char *id, const chr_backend *kind, const void *options,
                              chr_error *err)
{
    chr_dev *dev;

    if (chr__check_closing(ctx, err) < 0 || chr__check_id(ctx, id, err) < 0)
        return NULL;
    if (options && ((const chr_common_options *)options)->mux == CHR_ON)
        return chr__open_muxed(ctx, id, kind, options, err);
    dev = chr__create(ctx, id, kind, options, err);
    if (dev) {
        chr__register(dev);
        chr__given_keep(dev);
    }
    return dev;
}

CHARDEV_API chr_dev *chr_open(chr_context *ctx, const char *id, const chr_backend *kind, const void *options, chr_error *err)
{
    chr_dev *dev;

    if (!kind)
        return (void)chr__fail(err, CHR_ERR_NOT_FOUND, "there is no such backend"), (chr_dev *)NULL;
    CHR__LOCK(ctx);
    dev = chr__open_new(ctx, id, kind, options, err);
    CHR__UNLOCK(ctx);
    if (!dev)
        chr__name_error(err, kind);
    return dev;
}

/* -- from text -- */

static int chr__pair_is_help(const chr__pair *pair)
{
    const char *word = strcmp(pair->key, "backend") == 0 && pair->value ? pair->value : pair->key;

    return chr__is_help(word, strlen(word));
}

static int chr__options_has_help(const chr_options *options)
{
    const chr__pair *pair;

    for (pair = options->first; pair && !chr__pair_is_help(pair); pair = pair->next)
        ;
    return pair != NULL;
}

static void chr__no_backend(chr_context *ctx, const char *name, chr_error *err)
{
    const chr__left_out *kind;

    for (kind = ctx->left_out; kind->name && strcmp(kind->name, name) != 0 && strcmp(kind->alias, name) != 0; kind++)
        ;
    if (kind->name)
        chr__fail(err, CHR_ERR_NOT_SUPPORTED, "%s: built without %s", name, kind->without);
    else if (chr_find(ctx, name))
        chr__fail(err, CHR_ERR_NOT_FOUND, "'%s' is not the name of a backend; the chardev with that id is chardev:%s", name,
                  name);
    else
        chr__fail(err, CHR_ERR_NOT_FOUND, "'%s' is not the name of a backend ('help' lists them)", name);
}

static int chr__asks_for_help(const chr_options *options, chr_error *err)
{
    return chr__options_has_help(options) ? chr__fail(err, CHR_ERR_HELP, "help was asked for") : 0;
}

static const chr_backend *chr__options_kind(chr_options *options, chr_error *err)
{
    const char        *name;
    const chr_backend *kind;

    chr__options_name_backend(options);
    name = chr__options_get(options, "backend");
    if (!name)
        return (void)chr__fail(err, CHR_ERR_INVALID, "no backend is named ('help' lists them)"), (const chr_backend *)NULL;
    if (chr__asks_for_help(options, err) < 0)
        return NULL;
    kind = chr_backend_find(options->ctx, name);
    if (!kind)
        chr__no_backend(options->ctx, name, err);
    return kind;
}

/* The struct of `kind` from the list, for the caller to free; NULL and err. */
static void *chr__options_parse(const chr_options *options, const chr_backend *kind, chr_origin origin, chr_error *err)
{
    void *target = chr__allocate(options->ctx, kind->options_size + chr__lists_room(options, kind));

    if (!target)
        return (void)chr__no_memory(err), (void *)NULL;
    if (chr__options_to_struct(options, kind, origin, target, err) == 0)
        return target;
    chr__free(options->ctx, target);
    return NULL;
}

/* A named descriptor is consumed by the chardev that has taken it. */
static void chr__consume_fds(const chr_options *options, const chr_backend *kind)
{
    const chr_option *row;
    const char       *name;
    chr__named_fd   **link, *named;

    for (row = kind->options; row && row->name; row++) {
        name = row->type == CHR_OPTION_FD ? chr__options_get(options, row->name) : NULL;
        link = name ? chr__named_fd_link(options->ctx, name) : NULL;
        named = link ? *link : NULL;
        if (!named)
            continue;
        *link = named->next;
        chr__free(options->ctx, named);
    }
}

/* Backends know numbers only: a monitor's peer is told the name that it gave. */
static void chr__name_fds(const chr_options *options, const chr_backend *kind, chr_error *err)
{
    const chr_option *row;
    const char       *name;

    for (row = kind->options; err && row && row->name; row++) {
        name = row->type == CHR_OPTION_FD ? chr__options_get(options, row->name) : NULL;
        if (name)
            chr__append(err->text, sizeof err->text, strlen(err->text), " (%s=%s)", row->name, name);
    }
}

static chr_dev *chr__new_from_list(const chr_options *options, const chr_backend *kind, chr_origin origin, chr_error *err)
{
    void    *target = chr__options_parse(options, kind, origin, err);
    chr_dev *dev;

    if (!target)
        return NULL;
    dev = chr_open(options->ctx, chr__options_get(options, "id"), kind, target, err);
    if (dev && origin == CHR_REMOTE)
        chr__consume_fds(options, kind);
    else if (origin == CHR_REMOTE)
        chr__name_fds(options, kind, err);
    chr__free(options->ctx, target);
    return dev;
}

CHARDEV_API chr_dev *chr_new_from(chr_context *ctx, chr_origin origin, const char *options, chr_error *err)
{
    chr_options        list;
    const chr_backend *kind;
    chr_dev           *dev = NULL;

    chr__options_init(&list, ctx);
    if (chr__options_read(&list, options, err) == 0 && (kind = chr__options_kind(&list, err)) != NULL)
        dev = chr__new_from_list(&list, kind, origin, err);
    chr__options_free(&list);
    return dev;
}

CHARDEV_API chr_dev *chr_new(chr_context *ctx, const char *options, chr_error *err)
{
    return chr_new_from(ctx, CHR_LOCAL, options, err);
}

/* -- from a URI -- */

/* For the `uri` slots: PREFIX and a path, which may contain anything. */
CHR__PRIVATE int chr__uri_path(const char *uri, const char *prefix, chr_options *options)
{
    const char *path = chr__after(uri, prefix);

    if (!path || !*path)
        return path ? CHR_ERR_INVALID : 0;
    return chr_options_add(options, "path", path, (size_t)-1) < 0 ? CHR_ERR_NO_MEMORY : 1;
}

/* NAME or NAME,OPTIONS. */
CHR__PRIVATE int chr__uri_name(const char *uri, const char *name, chr_options *options)
{
    const char *rest = chr__after(uri, name);

    if (!rest || chr__part_length(uri) != (size_t)(rest - uri))
        return 0;
    return *rest && chr__options_read(options, rest + 1, NULL) < 0 ? CHR_ERR_NO_MEMORY : 1;
}

/* Up to a comma, which may be doubled. */
CHR__PRIVATE int chr__uri_part(chr_options *options, const char *key, const char *text, size_t len)
{
    chr__pair *pair = chr__options_pair(options, key, strlen(key), text, len);

    if (!pair)
        return CHR_ERR_NO_MEMORY;
    chr__undouble_commas(pair->value);
    return 1;
}

/* [HOST]:PORT, under these keys. A host with colons stands in brackets, and behind those comes the port. */
CHR__PRIVATE int chr__uri_host_port(const char *text, size_t len, const char *host, const char *port, chr_options *options)
{
    const char *end = text + len, *bracket = len > 0 && *text == '[' ? (const char *)memchr(text, ']', len) : NULL;
    const char *colon = (const char *)memchr(bracket ? bracket : text, ':', (size_t)(end - (bracket ? bracket : text)));
    int         code;

    if (len > 0 && *text == '[' && (!bracket || (colon ? colon : end) != bracket + 1))
        return CHR_ERR_INVALID;
    if (bracket)
        code = chr__uri_part(options, host, text + 1, (size_t)(bracket - text) - 1);
    else
        code = chr__uri_part(options, host, text, colon ? (size_t)(colon - text) : len);
    if (code < 0 || !colon)
        return code;
    return chr__uri_part(options, port, colon + 1, (size_t)(end - colon) - 1);
}

static int chr__is_uri_of(const char *uri, const chr__left_out *kind)
{
    const char *rest = chr__after(uri, kind->name);
    int         i;

    for (i = 0; i < CHR__URI_FORMS && kind->uris[i]; i++)
        if (chr__after(uri, kind->uris[i]))
            return 1;
    return rest && (*rest == 0 || *rest == ':' || *rest == ',');
}

static void chr__no_uri(chr_context *ctx, const char *uri, chr_error *err)
{
    const chr__left_out *kind;

    for (kind = ctx->left_out; kind->name && !chr__is_uri_of(uri, kind); kind++)
        ;
    if (kind->name)
        chr__fail(err, CHR_ERR_NOT_SUPPORTED, "%s: built without %s", uri, kind->without);
    else if (chr__after(uri, "chardev:"))
        chr__fail(err, CHR_ERR_INVALID, "%s: mon: does not go before a chardev that exists: make it with mux=on", uri);
    else if (*uri == '/')
        chr__fail(err, CHR_ERR_NOT_FOUND, "'%s': only a path in /dev may stand alone: unix:, pipe:, file: or pty: goes before",
                  uri);
    else
        chr__fail(err, CHR_ERR_NOT_FOUND, "'%s' is not a URI of any backend", uri);
}

static int chr__uri_check(const char *uri, const chr_backend *kind, const chr_options *options, chr_error *err)
{
    const chr_option *row;

    for (row = kind->options; row && row->name; row++)
        if (row->type == CHR_OPTION_FD && chr__options_get(options, row->name))
            return chr__fail(err, CHR_ERR_INVALID, "%s: no %s= in a URI: a descriptor needs the option syntax", uri,
                             row->name);
    return chr__asks_for_help(options, err);
}

/* Which backend reads the URI, with its keys added to the list; NULL and err. */
static const chr_backend *chr__uri_read(const char *uri, chr_options *options, chr_error *err)
{
    const chr_backend *kind;
    int                code;

    for (kind = chr_backend_next(options->ctx, NULL); kind; kind = chr_backend_next(options->ctx, kind)) {
        code = kind->uri ? kind->uri(uri, options) : chr__uri_name(uri, kind->name, options);
        if (code > 0)
            return kind;
        if (code == CHR_ERR_NO_MEMORY)
            return (void)chr__no_memory(err), (const chr_backend *)NULL;
        if (code < 0)
            return (void)chr__fail(err, code, "%s: is no valid URI of a %s", uri, kind->name),
                   (const chr_backend *)NULL;
    }
    chr__no_uri(options->ctx, uri, err);
    return NULL;
}

/* The same, with what no URI may have refused. */
static const chr_backend *chr__uri_kind(const char *uri, chr_options *options, chr_error *err)
{
    const chr_backend *kind = chr__uri_read(uri, options, err);

    return kind && chr__uri_check(uri, kind, options, err) == 0 ? kind : NULL;
}

/* mon:, for a console and a monitor on one chardev: a mux, and no signals unless the text says otherwise. */
static int chr__options_for_mon(chr_options *list, const chr_backend *kind)
{
    if (chr__row(kind, "signal") && chr__options_default(list, "signal", "off") < 0)
        return CHR_ERR_NO_MEMORY;
    return chr_options_add(list, "mux", "on", 2);
}

/* chardev:ID */
static chr_dev *chr__existing(chr_context *ctx, const char *id, chr_error *err)
{
    chr_dev *dev = chr_find(ctx, id);

    if (!dev)
        chr__fail(err, CHR_ERR_NOT_FOUND, "chardev:%s: there is no chardev with that id", id);
    return dev;
}

/* `kind` has read the list; NULL after an error. */
static chr_dev *chr__new_from_read(chr_options *list, const chr_backend *kind, int is_mon, chr_error *err)
{
    if (!kind)
        return NULL;
    if (is_mon && chr__options_for_mon(list, kind) < 0)
        return (void)chr__no_memory(err), (chr_dev *)NULL;
    return chr__new_from_list(list, kind, CHR_LOCAL, err);
}

CHARDEV_API chr_dev *chr_new_uri(chr_context *ctx, const char *id, const char *uri, chr_error *err)
{
    const char        *text = uri ? uri : "", *existing = chr__after(text, "chardev:"), *rest = chr__after(text, "mon:");
    const chr_backend *kind;
    chr_options        list;
    chr_dev           *dev = NULL;

    if (existing)
        return chr__existing(ctx, existing, err);
    chr__options_init(&list, ctx);
    kind = chr__uri_kind(rest ? rest : text, &list, err);
    if (kind && id && chr_options_add(&list, "id", id, (size_t)-1) < 0)
        chr__no_memory(err);
    else
        dev = chr__new_from_read(&list, kind, rest != NULL, err);
    chr__options_free(&list);
    return dev;
}

/* -- from either -- */

/* A ':' in its first word, or a path from the root, makes it a URI. */
static int chr__is_uri(const char *text)
{
    return *text == '/' || text[strcspn(text, ":,=")] == ':';
}

static const chr_backend *chr__any_kind(const char *text, chr_options *list, chr_error *err)
{
    if (strcmp(text, "none") == 0)
        text = "null";
    if (chr__is_uri(text))
        return chr__uri_kind(text, list, err);
    return chr__options_read(list, text, err) < 0 ? NULL : chr__options_kind(list, err);
}

CHARDEV_API chr_dev *chr_new_any(chr_context *ctx, const char *id, const char *any, chr_error *err)
{
    const char *text = any ? any : "", *existing = chr__after(text, "chardev:"), *rest = chr__after(text, "mon:");
    chr_options list;
    chr_dev    *dev = NULL;

    if (existing)
        return chr__existing(ctx, existing, err);
    chr__options_init(&list, ctx);
    if (id && chr_options_add(&list, "id", id, (size_t)-1) < 0) /* before the text: an id= in that comes later, and counts */
        chr__no_memory(err);
    else
        dev = chr__new_from_read(&list, chr__any_kind(rest ? rest : text, &list, err), rest != NULL, err);
    chr__options_free(&list);
    return dev;
}

/* What such a text asks help for: one kind, or all (*kind = NULL), whatever else is wrong with it. */
static int chr__help_about(const char *text, chr_options *list, const chr_backend **kind)
{
    const char *name;

    if (chr__is_uri(text)) {
        *kind = chr__uri_read(text, list, NULL);
        return *kind ? 0 : CHR_ERR_NOT_FOUND;
    }
    if (chr__options_read(list, text, NULL) < 0)
        return CHR_ERR_NO_MEMORY;
    chr__options_name_backend(list);
    name = chr__options_get(list, "backend");
    if (!name || chr__is_help(name, strlen(name)))
        return 0;
    *kind = chr_backend_find(list->ctx, name);
    if (!*kind)
        *kind = chr__object_kind_find(list->ctx, name, strlen(name));
    return *kind ? 0 : CHR_ERR_NOT_FOUND;
}

CHARDEV_API int chr_help(chr_context *ctx, const char *text, void (*print)(void *, const char *), void *opaque)
{
    const char        *rest = text ? chr__after(text, "mon:") : NULL;
    const chr_backend *kind = NULL;
    chr_options        list;
    int                code;

    chr__options_init(&list, ctx);
    code = chr__help_about(rest ? rest : text ? text : "", &list, &kind);
    chr__options_free(&list);
    if (code == 0 && kind)
        chr__help_backend(kind, print, opaque);
    else if (code == 0)
        chr__help_all(ctx, print, opaque);
    return code;
}

/* -- hot swap -- */

static void chr__replace(chr_dev *old, chr_dev *fresh)
{
    chr__unregister(old);
    chr__register(fresh);
    chr__given_keep(fresh);
    chr__destroy(old);
}

/* The old one hears that its frontend has gone before the new one hears that it is there. It stays busy: until it is gone or has its
 * frontend back, it can neither be removed nor changed. */
static void chr__hand_over(chr_frontend *fe, chr_dev *from, chr_dev *to)
{
    if (fe->is_open)
        chr__set_open(from, 0);
    from->frontend = NULL;
    from->room_epoch++;
    to->room_epoch++;
    to->frontend = fe;
    to->frontends = 1;
    CHR__STORE(fe->dev, to);
    if (fe->is_open)
        chr__set_open(to, 1);
}

/* The frontend takes its old backend again, if it is still there itself. */
static int chr__swap_back(chr_dev *old, chr_dev *fresh, chr_error *err)
{
    chr_frontend *fe = fresh->frontend;

    old->frontends = fe != NULL || old->frontend;
    if (fe)
        chr__hand_over(fe, fresh, old);
    chr__give_up(fresh);
    chr__update(old);
    chr__fail(err, CHR_ERR_BUSY, "the frontend of '%s' refuses the new backend", old->id);
    if (fe)
        chr__tell_state(fe, old);
    return CHR_ERR_BUSY;
}

/* Under a living frontend: it is told CLOSED if the new one is not open, and may refuse, or go away. */
static int chr__swap(chr_dev *old, chr_dev *fresh, chr_error *err)
{
    chr_frontend *fe;

    if (old->pending & ~CHR__RECORDED) /* it won't come any more after this */
        chr__notify_now(old);
    fe = old->frontend;
    if (fe && fe->told_open && !fresh->be_open)
        chr_be_tell_event(fe, CHR_EVENT_CLOSED);
    if (!fe || old->frontend != fe || !fe->handlers.change)
        return chr__swap_back(old, fresh, err);
    chr__hand_over(fe, old, fresh);
    if (fe->handlers.change(fe->opaque) < 0)
        return chr__swap_back(old, fresh, err);
    chr__replace(old, fresh);
    chr__update(fresh);
    if (fresh->frontend == fe)
        chr__tell_state(fe, fresh);
    return 0;
}

/* Nobody is attached: the old lets go first, so that the new may take the same place. */
static int chr__change_unattached(chr_dev *old, const chr_backend *kind, const void *options, chr_error *err)
{
    chr_context *ctx = old->ctx;
    char        *id = chr__copy_text(ctx, old->id, strlen(old->id));
    int          code;

    if (!id)
        return chr__no_memory(err);
    chr__unregister(old);
    chr__destroy(old);
    code = chr_open(ctx, id, kind, options, err) ? 0 : err->code;
    chr__free(ctx, id);
    return code;
}

/* No handler runs while the new one is made: it may wait for its peer as any other. */
static int chr__change_to(chr_dev *old, const chr_backend *kind, const void *options, chr_error *err)
{
    chr_context *ctx = old->ctx;
    chr_dev     *fresh;
    int          code;

    if (((const chr_common_options *)options)->mux == CHR_ON)
        return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "%s: mux=on can't be used in a change", kind->name);
    if (!old->frontend)
        return chr__change_unattached(old, kind, options, err);
    fresh = chr__create(ctx, old->id, kind, options, err);
    if (!fresh) {
        chr__name_error(err, kind);
        return err->code;
    }
    chr__enter(ctx);
    code = chr__swap(old, fresh, err);
    chr__leave(ctx);
    return code;
}

/* What stands on other chardevs, or serves several frontends, is not swapped: neither away nor in. */
static int chr__check_change(chr_dev *dev, const char *id, chr_error *err)
{
    if (!dev)
        return chr__fail(err, CHR_ERR_NOT_FOUND, "there is no chardev '%s'", id);
    if (chr__check_closing(dev->ctx, err) < 0)
        return err->code;
    if (dev->kind->fixed)
        return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "chardev '%s' is a %s: that can't be changed", id, dev->kind->name);
    if (dev->frontends > 0 && !dev->frontend)
        return chr__fail(err, CHR_ERR_BUSY, "chardev '%s' is busy: it has several frontends, or is being changed", id);
    if (dev->frontend && !dev->frontend->handlers.change)
        return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "the frontend of '%s' does not support chardev hotswap", id);
    return 0;
}

static int chr__check_change_to(chr_dev *dev, const chr_backend *kind, chr_error *err)
{
    if (!kind)
        return err->code;
    if (kind->fixed || kind->sharing)
        return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "%s: chardev '%s' can't be changed into a %s", kind->name, dev->id,
                         kind->name);
    return 0;
}

static int chr__change(chr_options *list, chr_origin origin, chr_dev *old, const char *text, chr_error *err)
{
    const chr_backend *kind;
    void              *target;
    int                code = chr__options_read(list, text, err);

    if (code < 0)
        return code;
    kind = chr__options_kind(list, err);
    if (chr__check_change_to(old, kind, err) < 0)
        return err->code;
    target = chr__options_parse(list, kind, origin, err);
    if (!target)
        return err->code;
    code = chr__change_to(old, kind, target, err);
    if (code == 0 && origin == CHR_REMOTE)
        chr__consume_fds(list, kind);
    else if (origin == CHR_REMOTE)
        chr__name_fds(list, kind, err);
    chr__free(list->ctx, target);
    return code;
}

CHARDEV_API int chr_change_from(chr_context *ctx, chr_origin origin, const char *id, const char *options, chr_error *err)
{
    chr_options list;
    chr_dev    *dev;
    chr_error   own;
    int         code;

    err = err ? err : &own;
    CHR__LOCK(ctx);
    dev = chr_find(ctx, id);
    code = chr__check_change(dev, id, err);
    if (code == 0) {
        chr__options_init(&list, ctx);
        code = chr__change(&list, origin, dev, options, err);
        chr__options_free(&list);
    }
    CHR__UNLOCK(ctx);
    return code;
}

CHARDEV_API int chr_change(chr_context *ctx, const char *id, const char *options, chr_error *err)
{
    return chr_change_from(ctx, CHR_LOCAL, id, options, err);
}

/* ====================================================================================================================
 * >>front   the frontend's calls
 * ==================================================================================================================== */

static int chr__fe_attach(chr_frontend *fe, chr_dev *dev, chr_error *err)
{
    int code = 0;

    if (dev->kind->sharing)
        code = dev->kind->sharing->attach(dev, fe, err);
    else if (dev->frontends > 0)
        code = chr__fail(err, CHR_ERR_BUSY, "chardev '%s' has a frontend already", dev->id);
    else
        dev->frontend = fe;
    if (code < 0)
        return code;
    dev->frontends++;
    fe->attached = fe;
    CHR__STORE(fe->dev, dev);
    return 0;
}

/* The mark is its own address: memory that holds anything else is not attached, nor is a copy. Another thread may be
 * about to call. */
CHARDEV_API int chr_fe_init(chr_frontend *fe, chr_dev *dev, chr_error *err)
{
    int code = 0;

    if (fe->attached == fe)
        return chr__fail(err, CHR_ERR_BUSY, "the frontend is attached to chardev '%s' already", fe->dev->id);
    if (dev)
        CHR__LOCK(dev->ctx);
    memset(&fe->handlers, 0, sizeof fe->handlers);
    fe->opaque = fe->writable_opaque = fe->slot = NULL;
    fe->writable = NULL;
    fe->is_open = fe->told_open = 0;
    CHR__STORE(fe->ctx, dev ? dev->ctx : NULL);
    CHR__STORE(fe->dev, NULL);
    if (dev) {
        code = chr__fe_attach(fe, dev, err);
        CHR__UNLOCK(dev->ctx);
    }
    return code;
}

/* Its chardev and the lock, which is the same when another chardev takes this one's place; NULL, and no lock, when
 * it has none. */
#ifdef CHARDEV_THREADS
static chr_dev *chr__fe_lock(const chr_frontend *frontend)
{
    chr_frontend *fe = (chr_frontend *)(uintptr_t)frontend;
    chr_context  *ctx = CHR__LOAD(fe->dev) ? CHR__LOAD(fe->ctx) : NULL;

    if (!ctx)
        return NULL;
    CHR__LOCK(ctx);
    if (fe->dev)
        return fe->dev;
    CHR__UNLOCK(ctx);
    return NULL;
}
#else
static chr_dev *chr__fe_lock(const chr_frontend *fe) { return fe->dev; }
#endif

CHARDEV_API void chr_fe_set_open(chr_frontend *fe, int is_open)
{
    chr_dev *dev = chr__fe_lock(fe);

    if (fe->is_open != is_open) {
        fe->is_open = is_open;
        if (dev)
            chr__set_open(dev, is_open);
    }
    if (dev)
        CHR__UNLOCK(dev->ctx);
}

static void chr__fe_drop_handlers(chr_frontend *fe)
{
    if (fe->dev)
        fe->dev->room_epoch++;
    memset(&fe->handlers, 0, sizeof fe->handlers);
    fe->told_open = 0;
    fe->writable = NULL;
    chr_fe_set_open(fe, 0);
}

static int chr__has_handlers(const chr_handlers *handlers)
{
    return handlers && (handlers->can_read || handlers->read || handlers->event || handlers->change);
}

CHARDEV_API void chr_fe_deinit(chr_frontend *fe)
{
    chr_dev *dev = chr__fe_lock(fe);

    if (!dev)
        return;
    chr__fe_drop_handlers(fe);
    if (dev->kind->sharing)
        dev->kind->sharing->detach(dev, fe);
    else
        dev->frontend = NULL;
    dev->frontends--;
    chr__fe_let_go(fe);
    chr__update(dev);
    CHR__UNLOCK(dev->ctx);
}

static void chr__fe_take_focus(chr_frontend *fe)
{
    if (fe->dev->kind->sharing)
        fe->dev->kind->sharing->focus(fe->dev, fe);
}

CHARDEV_API void chr_fe_take_focus(chr_frontend *fe)
{
    chr_dev     *dev = chr__fe_lock(fe);
    chr_context *ctx;

    if (!dev)
        return;
    ctx = dev->ctx;
    chr__enter(ctx);
    chr__fe_take_focus(fe);
    chr__leave(ctx);
    CHR__UNLOCK(ctx);
}

/* Taking the focus calls the handlers of who had it: fe may be gone after that. */
static void chr__fe_set_handlers(chr_frontend *fe, const chr_handlers *handlers, void *opaque)
{
    chr_dev    *dev = fe->dev;
    chr__hold   hold;

    dev->room_epoch++;
    fe->handlers = *handlers;
    fe->opaque = opaque;
    fe->told_open = 0;
    chr_fe_set_open(fe, 1);
    chr__update(dev);
    chr__hold_begin(dev->ctx, &hold, fe);
    chr__fe_take_focus(fe);
    chr__hold_end(dev->ctx, &hold);
    if (hold.fe && !(dev->kind->sharing && dev->ctx->open_suspended))
        chr__tell_state(fe, dev);
}

CHARDEV_API void chr_fe_set_handlers(chr_frontend *fe, const chr_handlers *handlers, void *opaque)
{
    chr_dev     *dev = chr__fe_lock(fe);
    chr_context *ctx = dev ? dev->ctx : NULL;

    if (!dev) {
        chr__fe_drop_handlers(fe);
        return;
    }
    chr__enter(ctx);
    if (chr__has_handlers(handlers)) {
        chr__fe_set_handlers(fe, handlers, opaque);
    } else {
        chr__fe_drop_handlers(fe);
        chr__update(dev);
    }
    chr__leave(ctx);
    CHR__UNLOCK(ctx);
}

CHARDEV_API void chr_fe_accept_input(chr_frontend *fe)
{
    chr_dev *dev = chr__fe_lock(fe);

    if (!dev)
        return;
    chr__update(dev);
    CHR__UNLOCK(dev->ctx);
}

CHARDEV_API int chr_fe_backend_open(const chr_frontend *fe)
{
    chr_dev *dev = chr__fe_lock(fe);
    int      is_open;

    if (!dev)
        return 0;
    is_open = dev->be_open;
    CHR__UNLOCK(dev->ctx);
    return is_open;
}

/* A guest may ask all the time, and to describe a chardev may cost system calls. */
static int chr__is_over(chr_dev *dev)
{
    if (!dev->was_open || (dev->be_open && !dev->input_over))
        return 0;
    if (!dev->is_over)
        dev->is_over = chr__comes_back(dev) ? -1 : 1;
    return dev->is_over > 0;
}

CHARDEV_API int chr_fe_eof(const chr_frontend *fe)
{
    chr_dev *dev = chr__fe_lock(fe);
    int      is_over;

    if (!dev)
        return 1;
    is_over = chr__is_over(dev);
    CHR__UNLOCK(dev->ctx);
    return is_over;
}

/* -- output -- */

/* Output that was taken and has not left. */
static uint64_t chr__queued(const chr_dev *dev)
{
    uint64_t count = dev->outbox ? dev->outbox->unsent + dev->outbox->queue.count : 0;

    return count + (dev->kind->peer && dev->kind->peer->queued ? dev->kind->peer->queued(dev) : 0);
}

/* Output waits. */
CHR__COLD void chr__note_stall(chr_dev *dev)
{
    uint64_t left = dev->bytes_out - chr__queued(dev);

    if (dev->stalled && dev->stalled_left == left)
        return;
    dev->stalled = chr__real_now(dev->ctx);
    dev->stalled_left = left;
}

static void chr__count_out(chr_dev *dev, int n, size_t len)
{
    if (n > 0)
        dev->bytes_out += (uint64_t)n;
    else if (n == CHR_ERR_DISCONNECTED)
        dev->bytes_dropped += len;
    else if (n == CHR_ERR_WOULD_BLOCK)
        chr__note_stall(dev);
}

CHR__HOT static int chr__write(chr_dev *dev, const void *buf, size_t len)
{
    int n;

    chr__quiet(dev->ctx);
    n = dev->io->write(dev, buf, chr__min(len, INT32_MAX));
    chr__loud(dev->ctx);
    chr__count_out(dev, n, len);
    return n;
}

/* With a log, an outbox, a recorder, an end that waits, or any of them. */
CHR__COLD int chr__write_extras(chr_dev *dev, const void *buf, size_t len)
{
    int n;

    if (dev->ending) {
        n = CHR_ERR_DISCONNECTED;
        chr__count_out(dev, n, len);
    } else if (!dev->outbox) {
        n = chr__write(dev, buf, len);
    } else {
        chr__quiet(dev->ctx);
        n = chr__outbox_write(dev, buf, chr__min(len, INT32_MAX));
        chr__loud(dev->ctx);
        chr__count_out(dev, n, len);
    }
    if (dev->log && (n > 0 || n == CHR_ERR_DISCONNECTED)) /* by its own policy: also what nobody was there to take */
        chr__log_record(dev, buf, n > 0 ? (size_t)n : len);
    return n;
}

CHR__COLD int chr__fe_write_extras(chr_dev *dev, const void *buf, size_t len)
{
    int n = chr__write_extras(dev, buf, len);

    if (chr__is_recorded(dev))
        chr__record_transfer(dev, CHR__RECORD_WRITE, n, buf, len);
    return n;
}

CHR__HOT CHARDEV_API int chr_fe_write(chr_frontend *fe, const void *buf, size_t len)
{
    chr_dev *dev = chr__fe_lock(fe);
    int      n;

    if (!dev)
        return CHR_ERR_DISCONNECTED;
    if (len == 0) {
        CHR__UNLOCK(dev->ctx);
        return 0;
    }
    n = dev->extras ? chr__fe_write_extras(dev, buf, len) : chr__write(dev, buf, len);
    CHR__UNLOCK(dev->ctx);
    return n;
}

enum { CHR__WAIT_SLICE_MS = 20 };

/* What write_all and read_all are at: by turns with and without the lock. */
typedef struct chr__transfer {
    chr_frontend  *fe;
    int            direction; /* CHR_OUT or CHR_IN */
    unsigned char *buf;
    size_t         len, done;
    int64_t        deadline;  /* in real time; -1 = none */
    int            fd, events; /* what to wait for; -1 = for the owner, who does what is needed in its loop */
    int            failure;   /* of the last wait: it ends the transfer, unless the next attempt takes something */
    const chr_dev *failed;    /* to whom it happened: another one may be in its place by now */
} chr__transfer;

static int chr__transfer_attempt(const chr__transfer *transfer, chr_dev *dev)
{
    unsigned char *buf = transfer->buf + transfer->done;
    size_t         len = transfer->len - transfer->done;
    int            n;

    if (dev->ctx->depth > 0)
        return CHR_ERR_IN_HANDLER;
    dev->ctx->turn++;
    if (transfer->direction == CHR_OUT)
        return chr__write_extras(dev, buf, len);
    if (!dev->io->read)
        return CHR_ERR_NOT_SUPPORTED;
    chr__quiet(dev->ctx);
    n = dev->io->read(dev, buf, len);
    chr__loud(dev->ctx);
    dev->bytes_in += n > 0 ? (uint64_t)n : 0;
    return n;
}

/* 0 when there is something to wait for, else why not. */
static int chr__transfer_blocks(chr__transfer *transfer, chr_dev *dev)
{
    if (transfer->failure && transfer->failed == dev)
        return transfer->failure;
    if (chr__time_left(dev->ctx, transfer->deadline) == 0)
        return CHR_ERR_TIMEOUT;
    transfer->events = transfer->direction;
    chr__quiet(dev->ctx);
    transfer->fd = dev->io->wait_fd ? dev->io->wait_fd(dev, &transfer->events) : -1;
    chr__loud(dev->ctx);
    return transfer->fd < 0 && !CHR__IS_FOREIGN(dev->ctx) ? CHR_ERR_WOULD_BLOCK : 0;
}

/* A recorder is told how the waiting ended, not how it went on: a replay need not wait. */
static void chr__transfer_record(const chr__transfer *transfer, chr_dev *dev, int n)
{
    chr__record_kind kind = transfer->direction == CHR_OUT ? CHR__RECORD_WRITE : CHR__RECORD_READ;

    if (chr__is_recorded(dev) && n != 0 && n != CHR_ERR_IN_HANDLER)
        chr__record_transfer(dev, kind, n, transfer->buf + transfer->done, transfer->len - transfer->done);
}

/* Under the lock. Returns the bytes that went; 0 = wait; or why it ends. */
static int chr__transfer_turn(chr__transfer *transfer, chr_dev *dev)
{
    int n = chr__transfer_attempt(transfer, dev);

    if (n == 0)
        n = CHR_ERR_DISCONNECTED;
    else if (n == CHR_ERR_WOULD_BLOCK)
        n = chr__transfer_blocks(transfer, dev);
    chr__transfer_record(transfer, dev, n);
    transfer->done += n > 0 ? (size_t)n : 0;
    return n;
}

/* Without the lock. Where other threads are possible in short pieces: meanwhile the owner may close the descriptor,
 * or put another chardev in the place of this one, and a new look at the frontend is all that notices it. */
static void chr__transfer_wait(chr__transfer *transfer, chr_context *ctx, const chr_dev *dev)
{
    int ready, left = chr__time_left(ctx, transfer->deadline);

    if (transfer->fd >= 0 && transfer->events == 0)
        left = 0;
#ifdef CHARDEV_THREADS
    if (left < 0 || left > CHR__WAIT_SLICE_MS)
        left = CHR__WAIT_SLICE_MS;
#endif
    ready = chr__os_wait(transfer->fd, transfer->fd < 0 ? 0 : transfer->events, left);
    if (ready == CHR_HUP && transfer->events == CHR_OUT) /* nobody will ever take it */
        ready = CHR_ERR_DISCONNECTED;
    transfer->failure = ready < 0 ? ready : 0;
    transfer->failed = dev;
}

/* Attempt, wait, attempt. */
static int chr__transfer_all(chr__transfer *transfer)
{
    chr_context *ctx;
    chr_dev     *dev;
    int          n = 0;

    while (transfer->done < transfer->len && n >= 0) {
        dev = chr__fe_lock(transfer->fe);
        if (!dev) {
            n = CHR_ERR_DISCONNECTED;
            break;
        }
        ctx = dev->ctx;
        n = chr__transfer_turn(transfer, dev);
        CHR__UNLOCK(ctx);
        if (n == 0)
            chr__transfer_wait(transfer, ctx, dev);
    }
    return transfer->done > 0 || n == 0 ? (int)transfer->done : n;
}

/* The first look: 0 when it may begin. */
static int chr__transfer_begin(chr__transfer *transfer, chr_frontend *fe, int direction, void *buf, size_t len,
                               int timeout_ms)
{
    chr_dev *dev = chr__fe_lock(fe);
    int      code = 0;

    if (!dev)
        return CHR_ERR_DISCONNECTED;
    memset(transfer, 0, sizeof *transfer);
    transfer->fe = fe;
    transfer->direction = direction;
    transfer->buf = (unsigned char *)buf;
    transfer->len = chr__min(len, INT32_MAX);
    transfer->deadline = chr__deadline(dev->ctx, timeout_ms);
    if (direction == CHR_IN && !dev->io->read)
        code = CHR_ERR_NOT_SUPPORTED;
    CHR__UNLOCK(dev->ctx);
    return code;
}

CHARDEV_API int chr_fe_write_all(chr_frontend *fe, const void *buf, size_t len, int timeout_ms)
{
    chr__transfer transfer;
    int           code = chr__transfer_begin(&transfer, fe, CHR_OUT, (void *)(uintptr_t)buf, len, timeout_ms);

    return code < 0 ? code : chr__transfer_all(&transfer);
}

CHARDEV_API int chr_fe_read_all(chr_frontend *fe, void *buf, size_t len, int timeout_ms)
{
    chr__transfer transfer;
    int           code = chr__transfer_begin(&transfer, fe, CHR_IN, buf, len, timeout_ms);

    return code < 0 ? code : chr__transfer_all(&transfer);
}

/* Long texts are formatted in memory of the context. */
static char *chr__fe_format(chr_frontend *fe, const char *format, va_list args, size_t size, int *code)
{
    chr_dev *dev = chr__fe_lock(fe);
    char    *text;

    *code = CHR_ERR_DISCONNECTED;
    if (!dev)
        return NULL;
    *code = CHR_ERR_NO_MEMORY;
    text = (char *)chr__allocate(dev->ctx, size);
    CHR__UNLOCK(dev->ctx);
    if (text)
        chr__os_format(text, size, format, args);
    return text;
}

CHARDEV_API int chr_fe_printf(chr_frontend *fe, const char *format, ...)
{
    chr_context *ctx = CHR__LOAD(fe->ctx);
    va_list      args, again;
    char         text[512], *longer = NULL;
    int          len, n;

    if (!ctx)
        return CHR_ERR_DISCONNECTED;
    va_start(args, format);
    va_copy(again, args);
    len = n = chr__os_format(text, sizeof text, format, args);
    va_end(args);
    if (len >= (int)sizeof text)
        longer = chr__fe_format(fe, format, again, (size_t)len + 1, &n);
    va_end(again);
    if (len < 0 || (len >= (int)sizeof text && !longer))
        return len < 0 ? CHR_ERR_INVALID : n;
    n = chr_fe_write(fe, longer ? longer : text, (size_t)len);
    chr__free(ctx, longer);
    return n;
}

CHARDEV_API void chr_fe_add_watch(chr_frontend *fe, void (*writable)(void *opaque), void *opaque)
{
    chr_dev *dev = chr__fe_lock(fe);

    if (!dev)
        return;
    fe->writable = writable;
    fe->writable_opaque = opaque;
    if (writable)
        chr__update(dev);
    CHR__UNLOCK(dev->ctx);
}

/* -- what only some backends can do -- */

CHR__PRIVATE int chr__serial_params_valid(const chr_serial_params *params)
{
    return params->speed >= 50 && params->speed <= 4000000 && params->data_bits >= 5 && params->data_bits <= 8 &&
           (params->stop_bits == 1 || params->stop_bits == 2 || params->stop_bits == CHR_STOP_BITS_1_5) &&
           params->parity > 0 && params->parity < 128 && strchr("NEOMS", params->parity) != NULL;
}

/* The two of a flow control that may be split. */
CHR__PRIVATE int chr__flow_out(int flow) { return flow & 15; }
CHR__PRIVATE int chr__flow_in(int flow) { return flow >> 4 ? (flow >> 4) - 1 : flow; }
CHR__PRIVATE int chr__flow(int out, int in) { return out == in ? out : CHR_FLOW_SPLIT(out, in); }

CHR__PRIVATE int chr__flow_valid(int flow)
{
    return flow >= CHR_FLOW_NONE && chr__flow_out(flow) <= CHR_FLOW_RTSCTS && chr__flow_in(flow) <= CHR_FLOW_RTSCTS;
}

CHR__PRIVATE int chr__terminal_size_valid(const chr_terminal_size *size)
{
    return size->columns >= 0 && size->columns <= 0xffff && size->rows >= 0 && size->rows <= 0xffff;
}

CHR__PRIVATE int chr__purge_valid(int what)
{
    return what >= CHR_PURGE_RECEIVE && what <= (CHR_PURGE_RECEIVE | CHR_PURGE_TRANSMIT);
}

CHARDEV_API int chr_fe_ioctl(chr_frontend *fe, int command, void *arg)
{
    chr_dev *dev = chr__fe_lock(fe);
    int      code = CHR_ERR_NOT_SUPPORTED;

    if (!dev)
        return code;
    chr__quiet(dev->ctx);
    if (dev->kind->ioctl)
        code = dev->kind->ioctl(dev, command, arg);
    chr__loud(dev->ctx);
    if (chr__is_recorded(dev))
        chr__record_ioctl(dev, command, code, arg);
    CHR__UNLOCK(dev->ctx);
    return code;
}

CHARDEV_API int chr_fe_set_echo(chr_frontend *fe, int echo)
{
    return chr_fe_ioctl(fe, CHR_IOCTL_SET_ECHO, &echo);
}

CHARDEV_API int chr_fe_set_msgfds(chr_frontend *fe, const int *fds, int count)
{
    chr_dev *dev = chr__fe_lock(fe);
    int      code = CHR_ERR_NOT_SUPPORTED;

    if (!dev)
        return code;
    chr__quiet(dev->ctx);
    if (dev->kind->peer && dev->kind->peer->set_msgfds)
        code = dev->kind->peer->set_msgfds(dev, fds, count);
    chr__loud(dev->ctx);
    CHR__UNLOCK(dev->ctx);
    return code;
}

CHARDEV_API int chr_fe_get_msgfds(chr_frontend *fe, int *fds, int count)
{
    chr_dev *dev = chr__fe_lock(fe);
    int      code = CHR_ERR_NOT_SUPPORTED;

    if (!dev)
        return code;
    chr__quiet(dev->ctx);
    if (dev->kind->peer && dev->kind->peer->get_msgfds)
        code = dev->kind->peer->get_msgfds(dev, fds, count);
    chr__loud(dev->ctx);
    CHR__UNLOCK(dev->ctx);
    return code;
}

CHARDEV_API int chr_fe_disconnect(chr_frontend *fe)
{
    chr_dev *dev = chr__fe_lock(fe);
    int      code = CHR_ERR_NOT_SUPPORTED;

    if (!dev)
        return code;
    chr__quiet(dev->ctx);
    if (dev->kind->peer && dev->kind->peer->disconnect)
        code = dev->kind->peer->disconnect(dev);
    chr__loud(dev->ctx);
    if (chr__is_recorded(dev))
        chr__record(dev, CHR__RECORD_DISCONNECT, code, 0, NULL, 0);
    CHR__UNLOCK(dev->ctx);
    return code;
}

static int chr__shutdown(chr_dev *dev)
{
    int code;

    if (!dev->kind->peer || !dev->kind->peer->shutdown)
        return CHR_ERR_NOT_SUPPORTED;
    chr__quiet(dev->ctx);
    code = chr__end_output(dev);
    chr__loud(dev->ctx);
    if (dev->ending)
        chr__update(dev);
    return code;
}

CHARDEV_API int chr_fe_shutdown(chr_frontend *fe)
{
    chr_dev *dev = chr__fe_lock(fe);
    int      code;

    if (!dev)
        return CHR_ERR_DISCONNECTED;
    code = chr__shutdown(dev);
    if (chr__is_recorded(dev))
        chr__record(dev, CHR__RECORD_SHUTDOWN, code, 0, NULL, 0);
    CHR__UNLOCK(dev->ctx);
    return code;
}

static int chr__wait_connected(chr_dev *dev, chr_error *err)
{
    int code;

    if (!dev->kind->peer || !dev->kind->peer->wait_connected)
        return dev->be_open ? 0 : chr__fail(err, CHR_ERR_NOT_SUPPORTED, "chardev '%s': a %s can't be waited for", dev->id, dev->kind->name);
    if (dev->ctx->depth > 0)
        return chr__fail(err, CHR_ERR_IN_HANDLER, "chardev '%s': waiting inside a handler would block the loop",
                         dev->id);
    chr__quiet(dev->ctx);
    code = dev->kind->peer->wait_connected(dev, err);
    chr__loud(dev->ctx);
    return code;
}

CHARDEV_API int chr_wait_connected(chr_dev *dev, chr_error *err)
{
    chr_context *ctx = dev->ctx;
    int          code;

    CHR__LOCK(ctx);
    code = chr__wait_connected(dev, err);
    if (code != CHR_ERR_IN_HANDLER && chr__is_recorded(dev))
        chr__record_text(dev, CHR__RECORD_WAIT, code, err);
    CHR__UNLOCK(ctx);
    return code;
}

CHARDEV_API int chr_fe_wait_connected(chr_frontend *fe, chr_error *err)
{
    chr_dev *dev = chr__fe_lock(fe);
    int      code;

    if (!dev)
        return chr__fail(err, CHR_ERR_DISCONNECTED, "the frontend has no chardev");
    code = chr_wait_connected(dev, err);
    CHR__UNLOCK(dev->ctx);
    return code;
}

/* -- before the end -- */

/* chr__queued() of all; *left counts what has left, from any start: it grows with each byte that goes. */
static uint64_t chr__queued_in_all(chr_context *ctx, uint64_t *left)
{
    chr_dev *dev;
    uint64_t each, count;

    CHR__LOCK(ctx);
    count = ctx->lingering_queued;
    for (*left = 0 - count, dev = ctx->devs; dev; dev = dev->next) {
        each = chr__queued(dev);
        count += each + (uint64_t)dev->ending;
        if (each > 0)
            chr__note_stall(dev);
        *left += dev->bytes_out - each;
    }
    CHR__UNLOCK(ctx);
    return count;
}

/* Without an eye for chr_loop_stop(): that is for the loop that follows. */
static int chr__drain_step(chr_context *ctx, int timeout_ms)
{
    int ran;

    CHR__LOCK(ctx);
    CHR__OWN(ctx);
    ran = chr__loop_step(ctx, timeout_ms);
    CHR__UNLOCK(ctx);
    return ran;
}

CHARDEV_API int chr_drain(chr_context *ctx, int timeout_ms)
{
    int64_t  deadline = chr__deadline(ctx, timeout_ms);
    uint64_t before, left;
    int      code, wait_ms;

    if (chr__in_handler(ctx))
        return CHR_ERR_IN_HANDLER;
    for (; chr__queued_in_all(ctx, &before) > 0; ) {
        wait_ms = chr__time_left(ctx, deadline);
        if (wait_ms == 0)
            return CHR_ERR_TIMEOUT;
        code = chr__drain_step(ctx, wait_ms);
        if (code < 0)
            return code;
        if (chr__queued_in_all(ctx, &left) > 0 && (int64_t)(left - before) > 0)
            deadline = chr__deadline(ctx, timeout_ms);
    }
    return 0;
}

/* What was waited for in vain counts for the lingering close at the end, if nothing has left since. */
static void chr__stalls_hand_over(chr_context *ctx)
{
    chr_dev *dev;

    for (dev = ctx->devs; dev; dev = dev->next)
        if (dev->stalled && dev->bytes_out - chr__queued(dev) != dev->stalled_left)
            dev->stalled = 0;
}

/* ====================================================================================================================
 * >>the_replay   a recording is checked, and played by a backend that stands in for the real ones
 * ====================================================================================================================
 * What comes by itself (input, events, writability, the end) waits for its time, and at that time for the calls that lie before it in
 * the file; what answers a call waits for that call. Each chardev reads ahead one record of each sort. Events that came inside a
 * call lie before that call's record.
 */

typedef struct chr__record_head {
    int64_t   at, next;     /* where its data is, and the record after it */
    int64_t   time;
    uint32_t  length, extra;
    unsigned  number;
    int       kind, inside; /* kind 0 = there is none any more */
    int       value;
} chr__record_head;

typedef struct chr__known {
    int64_t  at; /* of its id, in the file */
    uint32_t length;
    int      taken;
    chr_dev *dev; /* that plays it; NULL before and after */
} chr__known;

typedef struct chr__replay {
    chr_context *ctx;
    int          fd;
    int64_t      size, started, ends; /* the end of what was checked; on our clock; in the recording */
    chr__known  *known;
    unsigned     count, capacity;
    chr_timer    timer;   /* at the nearest record, */
    chr_idle     deliver; /* then this, after all other timers of that moment: as input came after them, too */
    int          is_held; /* the nearest record waits for a call */
} chr__replay;

typedef struct chr__played {
    chr_dev          dev;
    unsigned         number;
    chr__record_head ahead, call;
    uint32_t         delivered; /* of the input in `ahead` */
    int              waits;     /* its time has come, but the frontend has no room */
    int              diverged;
    int              comes_back; /* as the last CLOSED or INPUT_END said */
    uint64_t         written;   /* bytes that the frontend has written */
} chr__played;

/* -- reading -- */

/* Exactly so many bytes, or an error. */
static int chr__replay_get(const chr__replay *replay, void *buf, size_t len, int64_t at)
{
    char *to = (char *)buf;
    int   n;

    for (; len > 0; to += n, at += n, len -= (size_t)n)
        if ((n = chr__os_read_at(replay->fd, to, len, at)) <= 0)
            return n < 0 ? n : CHR_ERR_DISCONNECTED;
    return 0;
}

static int chr__replay_head(const chr__replay *replay, int64_t at, unsigned char *head, chr__record_head *record)
{
    int code = chr__replay_get(replay, head, CHR__RECORD_HEAD, at);

    if (code < 0)
        return code;
    record->length = (uint32_t)chr__get_le(head, 4);
    record->number = (unsigned)chr__get_le(head + 8, 2);
    record->kind = head[10];
    record->inside = head[11];
    record->time = (int64_t)chr__get_le(head + 12, 8);
    record->value = (int)(uint32_t)chr__get_le(head + 20, 4);
    record->extra = (uint32_t)chr__get_le(head + 24, 4);
    record->at = at + CHR__RECORD_HEAD;
    record->next = record->at + record->length;
    return 0;
}

/* -- checking the whole file, once -- */

/* Why the record can't be, or NULL. */
static const char *chr__replay_fault(const chr__replay *replay, const chr__record_head *record, int64_t time)
{
    if (record->kind < CHR__RECORD_NEW || record->kind > CHR__RECORD_SHUTDOWN ||
        record->inside > (record->kind == CHR__RECORD_EVENT))
        return "a record of an unknown kind";
    if (record->time < time || record->time > INT64_MAX / 4)
        return "time runs backwards";
    if (record->kind == CHR__RECORD_END)
        return record->length > 0 ? "an end with data" : NULL;
    if (record->kind == CHR__RECORD_NEW)
        return record->number != replay->count || record->length == 0 || record->length > 139 ? "an impossible id" : NULL;
    if (record->number >= replay->count)
        return "a record of an unknown chardev";
    if (record->kind == CHR__RECORD_WRITE && (record->length > record->extra || record->value > (int)record->length))
        return "a write of more than there is";
    if (record->kind == CHR__RECORD_READ && record->value > (int)record->length)
        return "a read of more than there is";
    return NULL;
}

static int chr__replay_learn(chr__replay *replay, const chr__record_head *record)
{
    unsigned capacity = replay->capacity ? replay->capacity * 2 : 16;
    void    *known;

    if (replay->count == replay->capacity) {
        known = chr__reallocate(replay->ctx, replay->known, sizeof *replay->known * capacity);
        if (!known)
            return CHR_ERR_NO_MEMORY;
        replay->known = (chr__known *)known;
        replay->capacity = capacity;
    }
    memset(&replay->known[replay->count], 0, sizeof *replay->known);
    replay->known[replay->count].at = record->at;
    replay->known[replay->count++].length = record->length;
    return 0;
}

/* The checksum of what stands in the file, piece by piece: a length that lies costs no memory. */
static int chr__replay_checksum(const chr__replay *replay, const unsigned char *head, const chr__record_head *record, uint32_t *crc)
{
    unsigned char piece[512];
    int64_t       at;
    size_t        len;
    int           code = 0;

    *crc = chr__crc32(chr__crc32(0, head, 4), head + 8, CHR__RECORD_HEAD - 8);
    for (at = record->at; at < record->next && code == 0; at += (int64_t)len) {
        len = record->next - at < (int64_t)sizeof piece ? (size_t)(record->next - at) : sizeof piece;
        code = chr__replay_get(replay, piece, len, at);
        if (code == 0)
            *crc = chr__crc32(*crc, piece, len);
    }
    return code;
}

/* Where it went wrong is the record's own offset. */
static int chr__replay_bad(const char *path, int code, int64_t at, const char *why, chr_error *err)
{
    if (code == CHR_ERR_DISCONNECTED)
        return chr__fail(err, CHR_ERR_INVALID, "%s: the recording is cut off in the record at offset %lld", path, (long long)at);
    if (code < 0)
        return chr__fail(err, code, "%s: offset %lld: %s", path, (long long)at, chr_error_text(code));
    return chr__fail(err, CHR_ERR_INVALID, "%s: corrupt at offset %lld: %s", path, (long long)at, why);
}

static int chr__replay_check_record(chr__replay *replay, const char *path, int64_t at, int64_t time, chr__record_head *record, chr_error *err)
{
    unsigned char head[CHR__RECORD_HEAD];
    uint32_t      crc = 0;
    const char   *why;
    int           code = chr__replay_head(replay, at, head, record);

    if (code == 0)
        code = chr__replay_checksum(replay, head, record, &crc);
    if (code < 0)
        return chr__replay_bad(path, code, at, "", err);
    if (crc != (uint32_t)chr__get_le(head + 4, 4))
        return chr__replay_bad(path, 0, at, "the checksum is wrong", err);
    why = chr__replay_fault(replay, record, time);
    if (why)
        return chr__replay_bad(path, 0, at, why, err);
    if (record->kind == CHR__RECORD_NEW && chr__replay_learn(replay, record) < 0)
        return chr__no_memory(err);
    return 0;
}

static int chr__replay_check_head(chr__replay *replay, const char *path, chr_error *err)
{
    unsigned char head[CHR__FILE_HEAD];
    int           code = chr__replay_get(replay, head, sizeof head, 0);

    if (code < 0)
        return chr__replay_bad(path, code, 0, "", err);
    if (memcmp(head, chr__record_magic, 8) != 0)
        return chr__fail(err, CHR_ERR_INVALID, "%s: not a recording (offset 0)", path);
    if (chr__get_le(head + 8, 4) != CHR__RECORD_VERSION)
        return chr__fail(err, CHR_ERR_INVALID, "%s: a recording of version %u, and only %d is known (offset 8)", path,
                         (unsigned)chr__get_le(head + 8, 4), (int)CHR__RECORD_VERSION);
    if (chr__get_le(head + 12, 4) != 0)
        return chr__replay_bad(path, 0, 12, "not zero", err);
    if (chr__get_le(head + 16, 8) >> 63)
        return chr__replay_bad(path, 0, 16, "an impossible time", err);
    return 0;
}

static int chr__replay_check(chr__replay *replay, const char *path, chr_error *err)
{
    chr__record_head record;
    int64_t          at;
    unsigned char    beyond;
    int              code = chr__replay_check_head(replay, path, err);

    memset(&record, 0, sizeof record);
    for (at = CHR__FILE_HEAD; code == 0 && record.kind != CHR__RECORD_END; at = record.next)
        code = chr__replay_check_record(replay, path, at, record.time, &record, err);
    if (code < 0)
        return code;
    if (chr__os_read_at(replay->fd, &beyond, 1, at) != 0)
        return chr__replay_bad(path, 0, at, "there is more behind the end", err);
    replay->size = at;
    replay->ends = record.time;
    return 0;
}

/* -- the next record of each sort -- */

static int chr__is_call(const chr__record_head *record)
{
    return record->inside || record->kind == CHR__RECORD_CREATED || record->kind == CHR__RECORD_SHUTDOWN ||
           (record->kind >= CHR__RECORD_WRITE && record->kind <= CHR__RECORD_WAIT);
}

static void chr__replay_deliver(void *opaque);

static void chr__replay_due(void *opaque)
{
    chr__replay *replay = (chr__replay *)opaque;

    chr_idle_start(replay->ctx, &replay->deliver, chr__replay_deliver, replay);
}

/* Goes on to the next record of this chardev of the same sort. The file was checked: if it has changed since, it ends here. */
static void chr__replay_advance(chr__played *played, chr__record_head *record, int call)
{
    chr__replay  *replay = played->dev.ctx->replay;
    unsigned char head[CHR__RECORD_HEAD];

    if (call && replay->is_held)
        chr__replay_due(replay);
    while (record->next + CHR__RECORD_HEAD <= replay->size) {
        if (chr__replay_head(replay, record->next, head, record) < 0 || record->next > replay->size || record->kind == CHR__RECORD_END)
            break;
        if (record->number == played->number && record->kind != CHR__RECORD_NEW && chr__is_call(record) == call)
            return;
    }
    record->kind = record->inside = 0;
    record->next = replay->size;
}

static chr__known *chr__replay_find(chr_context *ctx, const char *id)
{
    chr__replay *replay = ctx->replay;
    size_t       len = strlen(id);
    char         text[139] = "";
    unsigned     i;

    for (i = 0; replay && i < replay->count; i++)
        if (!replay->known[i].taken && replay->known[i].length == len && len <= sizeof text &&
            chr__replay_get(replay, text, len, replay->known[i].at) == 0 && memcmp(text, id, len) == 0)
            return &replay->known[i];
    return NULL;
}

/* Once for each chardev. */
static void chr__replay_diverges(chr__played *played, const char *what, int64_t at)
{
    chr_context *ctx = played->dev.ctx;
    int64_t      now = ctx->replay ? chr_loop_now(ctx) - ctx->replay->started : 0;
    char         text[300];

    if (played->diverged || !ctx->replay)
        return;
    played->diverged = 1;
    chr__format(text, sizeof text, "the replay diverges at %lld.%09lld s, at byte %llu of the output (file offset %lld): %s",
                (long long)(now / 1000000000), (long long)(now % 1000000000), (unsigned long long)played->written, (long long)at, what);
    chr__log_line(ctx, played->dev.id, text);
}

/* -- what comes by itself -- */

/* A piece of recorded input, as far as the frontend has room. Returns 0 when it must wait. */
static int chr__replay_input(chr__played *played)
{
    chr_context *ctx = played->dev.ctx;
    int64_t      at = played->ahead.at + played->delivered;
    size_t       left = played->ahead.length - played->delivered;
    int          room = chr_be_can_write(&played->dev);

    if (!ctx->replay) /* it was closed when asked */
        return 0;
    if (room <= 0 || (size_t)room < left)
        chr__replay_diverges(played, "the frontend has less room for input", played->ahead.at);
    if (room <= 0) {
        played->waits = 1;
        chr__starve(&played->dev);
        return 0;
    }
    left = chr__min(chr__min(left, (size_t)room), CHR__BUFFER_SIZE);
    if (chr__replay_get(ctx->replay, ctx->buffer, left, at) < 0)
        left = 0;
    played->delivered = left > 0 ? played->delivered + (uint32_t)left : played->ahead.length;
    if (played->delivered == played->ahead.length) {
        played->delivered = 0;
        chr__replay_advance(played, &played->ahead, 0);
    }
    if (left > 0)
        chr_be_write(&played->dev, ctx->buffer, left);
    return 1;
}

static void chr__replay_event(chr__played *played, int event, uint32_t extra)
{
    played->comes_back = extra != 0;
    chr_be_event(&played->dev, event);
}

static int chr__replay_play(chr__played *played)
{
    int      kind = played->ahead.kind, event = played->ahead.value;
    uint32_t extra = played->ahead.extra;

    if (kind == CHR__RECORD_INPUT)
        return chr__replay_input(played);
    chr__replay_advance(played, &played->ahead, 0);
    if (kind == CHR__RECORD_EVENT)
        chr__replay_event(played, event, extra);
    else
        chr_be_writable(&played->dev);
    return 1;
}

/* The one whose record comes first in the file, and does not wait for room. */
static chr__played *chr__replay_first(chr__replay *replay)
{
    chr__played *first = NULL, *played;
    unsigned     i;

    for (i = 0; i < replay->count; i++) {
        played = (chr__played *)replay->known[i].dev;
        if (played && played->ahead.kind && !played->waits && (!first || played->ahead.at < first->ahead.at))
            first = played;
    }
    return first;
}

/* Whether a call of that moment lies before the record in the file, and has not been made yet. */
static int chr__replay_waits_for_call(const chr__replay *replay, const chr__record_head *record)
{
    const chr__played *played;
    unsigned           i;

    for (i = 0; i < replay->count; i++) {
        played = (const chr__played *)replay->known[i].dev;
        if (played && played->call.time == record->time && played->call.at < record->at &&
            (played->call.inside || (played->call.kind && played->call.kind != CHR__RECORD_SET_OPEN)))
            return 1;
    }
    return 0;
}

/* On our clock. A call that does not come until that moment is over will not come at all. */
static int64_t chr__replay_when(chr__replay *replay, const chr__played *first)
{
    replay->is_held = chr__replay_waits_for_call(replay, &first->ahead);
    return replay->started + first->ahead.time + replay->is_held;
}

/* The end is waited for like anything else: time must come to it. */
static void chr__replay_arm(chr__replay *replay)
{
    chr__played *first = chr__replay_first(replay);
    int64_t      when = replay->started + replay->ends;

    replay->is_held = 0;
    if (first)
        when = chr__replay_when(replay, first);
    if (first || !chr_replay_over(replay->ctx))
        chr__timer_start_at(replay->ctx, &replay->ctx->timers, &replay->timer, when, chr__replay_due, replay);
}

/* All that is due, in the order of the file. Any of it may close the replay. */
static void chr__replay_deliver(void *opaque)
{
    chr__replay *replay = (chr__replay *)opaque;
    chr_context *ctx = replay->ctx;
    chr__played *first;

    while (ctx->replay && (first = chr__replay_first(ctx->replay)) != NULL) {
        if (chr__replay_when(ctx->replay, first) > chr_loop_now(ctx))
            break;
        (void)chr__replay_play(first);
    }
    if (ctx->replay)
        chr__replay_arm(ctx->replay);
}

/* -- what answers calls -- */

/* The record for a call of this kind, or NULL. Events inside are raised on the way; when this side opened is no question. */
static const chr__record_head *chr__replay_call(chr__played *played, int kind)
{
    chr__record_head *call = &played->call;

    if (!played->dev.ctx->replay)
        return NULL;
    while (call->inside || (call->kind == CHR__RECORD_SET_OPEN && kind != CHR__RECORD_SET_OPEN)) {
        int      event = call->value, inside = call->inside;
        uint32_t extra = call->extra;
        chr__replay_advance(played, call, 1);
        if (inside)
            chr__replay_event(played, event, extra);
    }
    return call->kind == kind ? call : NULL;
}

/* Whether the frontend offers what it offered then. */
static int chr__replay_same(const chr__played *played, const unsigned char *buf, size_t len)
{
    const chr__record_head *call = &played->call;
    unsigned char           piece[256];
    size_t                  done, n;

    for (done = 0; done < call->length && done < len; done += n) {
        n = chr__min(chr__min(call->length, len) - done, sizeof piece);
        if (chr__replay_get(played->dev.ctx->replay, piece, n, call->at + (int64_t)done) < 0 || memcmp(piece, buf + done, n) != 0)
            return 0;
    }
    return call->extra == len;
}

/* Where the recording knows no answer, the bytes are taken. */
static int chr__replay_write(chr_dev *dev, const void *buf, size_t len)
{
    chr__played            *played = (chr__played *)dev;
    const chr__record_head *call = chr__replay_call(played, CHR__RECORD_WRITE);
    int                     n = (int)len;

    if (!call) {
        chr__replay_diverges(played, "a write that was not made then", dev->ctx->replay ? played->call.at : 0);
    } else {
        if (!chr__replay_same(played, (const unsigned char *)buf, len))
            chr__replay_diverges(played, "other bytes are written", call->at);
        n = call->value > n ? n : call->value;
        chr__replay_advance(played, &played->call, 1);
    }
    played->written += n > 0 ? (uint64_t)n : 0;
    return n;
}

static int chr__replay_read(chr_dev *dev, void *buf, size_t len)
{
    chr__played            *played = (chr__played *)dev;
    const chr__record_head *call = chr__replay_call(played, CHR__RECORD_READ);
    int                     n;

    if (!call) {
        chr__replay_diverges(played, "a read that was not made then", played->call.at);
        return CHR_ERR_DISCONNECTED;
    }
    n = call->value > (int)len ? (int)len : call->value;
    if (n > 0 && chr__replay_get(dev->ctx->replay, buf, (size_t)n, call->at) < 0)
        n = CHR_ERR_IO;
    chr__replay_advance(played, &played->call, 1);
    return n;
}

/* Room has come for what waits. */
static void chr__replay_update(chr_dev *dev)
{
    chr__played *played = (chr__played *)dev;

    if (!played->waits || !dev->ctx->replay)
        return;
    if (chr_be_can_write(dev) <= 0) {
        chr__starve(dev);
        return;
    }
    played->waits = 0;
    chr__replay_due(dev->ctx->replay);
}

static void chr__replay_argument(chr__played *played, const chr__record_head *call, int command, void *arg)
{
    chr__replay  *replay = played->dev.ctx->replay;
    unsigned char numbers[16];
    int           ints, i;
    size_t        size = call->length > 0 ? chr__ioctl_size(command, arg, &ints) : 0;

    if (size == 0 || size != call->length)
        return;
    if (ints == 0) {
        (void)chr__replay_get(replay, chr__is_epp(command) ? ((chr_parallel_epp *)arg)->buf : arg, size, call->at);
        return;
    }
    if (chr__replay_get(replay, numbers, size, call->at) == 0)
        for (i = 0; i < ints; i++)
            ((int *)arg)[i] = (int)(uint32_t)chr__get_le(numbers + 4 * i, 4);
}

static int chr__replay_ioctl(chr_dev *dev, int command, void *arg)
{
    chr__played            *played = (chr__played *)dev;
    const chr__record_head *call = chr__replay_call(played, CHR__RECORD_IOCTL);
    int                     code;

    if (!call || call->extra != (uint32_t)command) {
        chr__replay_diverges(played, "a command that was not given then", played->call.at);
        return CHR_ERR_NOT_SUPPORTED;
    }
    code = call->value;
    if (code >= 0)
        chr__replay_argument(played, call, command, arg);
    chr__replay_advance(played, &played->call, 1);
    return code;
}

static void chr__replay_set_open(chr_dev *dev, int is_open)
{
    chr__played *played = (chr__played *)dev;

    (void)is_open;
    if (chr__replay_call(played, CHR__RECORD_SET_OPEN))
        chr__replay_advance(played, &played->call, 1);
}

static int chr__replay_disconnect(chr_dev *dev)
{
    chr__played            *played = (chr__played *)dev;
    const chr__record_head *call = chr__replay_call(played, CHR__RECORD_DISCONNECT);
    int                     code = call ? call->value : CHR_ERR_NOT_SUPPORTED;

    if (call)
        chr__replay_advance(played, &played->call, 1);
    else
        chr__replay_diverges(played, "a disconnection that was not made then", played->call.at);
    return code;
}

/* A recorded result with its text. */
static int chr__replay_result(chr__played *played, const chr__record_head *call, chr_error *err)
{
    char   text[sizeof(((chr_error *)0)->text)];
    size_t len = chr__min(call->length, sizeof text - 1);
    int    code = call->value;

    if (code < 0 && chr__replay_get(played->dev.ctx->replay, text, len, call->at) < 0)
        len = 0;
    text[len] = 0;
    chr__replay_advance(played, &played->call, 1);
    return code < 0 ? chr__fail(err, code, "%.*s", (int)len, text) : 0;
}

static int chr__replay_wait(chr_dev *dev, chr_error *err)
{
    chr__played            *played = (chr__played *)dev;
    const chr__record_head *call = chr__replay_call(played, CHR__RECORD_WAIT);

    if (call)
        return chr__replay_result(played, call, err);
    chr__replay_diverges(played, "a wait that was not made then", played->call.at);
    return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "chardev '%s': nobody waited here when it was recorded", dev->id);
}

/* What the hand does has its effect in the recorded input. */
static int chr__replay_move(chr_dev *dev, int x, int y) { (void)dev, (void)x, (void)y; return 0; }
static int chr__replay_sync(chr_dev *dev) { (void)dev; return 0; }

/* -- the backend -- */

static int chr__replay_start(chr_dev *dev, chr_error *err)
{
    chr__played            *played = (chr__played *)dev;
    chr__known             *known = chr__replay_find(dev->ctx, dev->id);
    const chr__record_head *call;

    if (!known)
        return chr__fail(err, CHR_ERR_NOT_FOUND, "chardev '%s' is not in the recording", dev->id);
    known->taken = 1;
    known->dev = dev;
    played->number = (unsigned)(known - dev->ctx->replay->known);
    played->ahead.next = played->call.next = known->at + known->length;
    chr__replay_advance(played, &played->ahead, 0);
    chr__replay_advance(played, &played->call, 1);
    call = chr__replay_call(played, CHR__RECORD_CREATED);
    if (!call)
        return chr__fail(err, CHR_ERR_IO, "chardev '%s': the recording ends before it was made", dev->id);
    chr__replay_arm(dev->ctx->replay);
    return chr__replay_result(played, call, err);
}

static void chr__replay_end(chr_dev *dev)
{
    chr__replay *replay = dev->ctx->replay;
    unsigned     i;

    for (i = 0; replay && i < replay->count; i++)
        if (replay->known[i].dev == dev)
            replay->known[i].dev = NULL;
}

static int chr__replay_shutdown(chr_dev *dev)
{
    chr__played            *played = (chr__played *)dev;
    const chr__record_head *call = chr__replay_call(played, CHR__RECORD_SHUTDOWN);
    int                     code = call ? call->value : CHR_ERR_NOT_SUPPORTED;

    if (call)
        chr__replay_advance(played, &played->call, 1);
    else
        chr__replay_diverges(played, "a shutdown that was not made then", played->call.at);
    return code;
}

static void chr__replay_describe(const chr_dev *dev, chr_info *info)
{
    chr__format(info->filename, sizeof info->filename, "%s", dev->kind->name);
    info->comes_back = ((const chr__played *)dev)->comes_back;
}

static const chr_io chr__played_io = {
    chr__replay_write,  /* write   */
    chr__replay_read,   /* read    */
    chr__replay_update, /* update  */
    NULL,               /* wait_fd */
};

static const chr_peer_slots chr__played_peer = {
    chr__replay_disconnect, /* disconnect     */
    chr__replay_wait,       /* wait_connected */
    NULL,                   /* add_client     */
    NULL,                   /* set_msgfds     */
    NULL,                   /* get_msgfds     */
    chr__replay_shutdown,   /* shutdown       */
    NULL,                   /* queued         */
};

static const chr_input_slots chr__played_input = {
    chr__replay_move, /* rel    */
    chr__replay_move, /* abs    */
    chr__replay_move, /* button */
    chr__replay_sync, /* sync   */
};

static const chr_backend chr__played_kind = {
    "replay",                   /* name         */
    NULL,                       /* alias        */
    "what was recorded",        /* help         */
    NULL,                       /* options      */
    sizeof(chr_common_options), /* options_size */
    sizeof(chr__played),        /* state_size   */
    NULL,                       /* uri          */
    chr__replay_start,          /* open         */
    chr__replay_end,            /* close        */
    &chr__played_io,            /* io           */
    chr__replay_describe,       /* describe     */
    chr__replay_ioctl,          /* ioctl        */
    chr__replay_set_open,       /* set_open     */
    &chr__played_peer,          /* peer         */
    NULL,                       /* sharing      */
    0,                          /* fixed        */
    &chr__played_input,         /* input        */
};

static const chr_backend *chr__replay_kind(chr_context *ctx, const char *id)
{
    return chr__replay_find(ctx, id) ? &chr__played_kind : NULL;
}

/* -- opening and closing -- */

static void chr__replay_free(chr__replay *replay)
{
    chr_timer_stop(&replay->timer);
    chr_idle_stop(&replay->deliver);
    chr__os_close(replay->fd);
    chr__free(replay->ctx, replay->known);
    chr__free(replay->ctx, replay);
}

CHARDEV_API int chr_replay_open(chr_context *ctx, const char *path, chr_error *err)
{
    chr__replay *replay;
    int          code, fd;

    if (ctx->replay)
        return chr__fail(err, CHR_ERR_BUSY, "%s: another replay is under way", path);
    fd = chr__os_open(path, CHR__OPEN_READ, err);
    if (fd < 0)
        return fd;
    replay = (chr__replay *)chr__allocate(ctx, sizeof *replay);
    if (!replay || chr__need_buffer(ctx) < 0) {
        chr__os_close(fd);
        chr__free(ctx, replay);
        return chr__no_memory(err);
    }
    replay->ctx = ctx;
    replay->fd = fd;
    code = chr__replay_check(replay, path, err);
    if (code < 0) {
        chr__replay_free(replay);
        return code;
    }
    replay->started = chr_loop_now(ctx);
    ctx->replay = replay;
    ctx->replay_kind = chr__replay_kind;
    chr__replay_arm(replay);
    return 0;
}

CHARDEV_API int chr_replay_over(chr_context *ctx)
{
    return ctx->replay && chr_loop_now(ctx) - ctx->replay->started >= ctx->replay->ends;
}

CHARDEV_API void chr_replay_close(chr_context *ctx)
{
    chr__replay *replay = ctx->replay;

    ctx->replay = NULL;
    ctx->replay_kind = NULL;
    if (replay)
        chr__replay_free(replay);
}

/* ====================================================================================================================
 * >>stream   descriptors in and out, under layers, gated by can_read: the base of all that reads and writes descriptors
 * ==================================================================================================================== */
#if CHARDEV_HAS_FD || CHARDEV_HAS_FILE || CHARDEV_HAS_PIPE || CHARDEV_HAS_PTY || CHARDEV_HAS_STDIO || CHARDEV_HAS_SERIAL || \
    CHARDEV_HAS_UDP || CHARDEV_HAS_SOCKET

/* A layer has the same small interface, whatever is under it; the stream knows only the top one. Would-block is an ordinary
 * answer of step, read, write and flush. A layer that keeps bytes says so in `pending` and `unsent`, since poll() can't see
 * those. It bounds what it keeps, and tells nobody anything by itself: it may be gone when a handler returns. */
typedef struct chr__layer chr__layer;

typedef struct chr__layer_slots {
    const char *name;
    int  (*start)(chr__layer *layer, chr_error *err);                 /* get memory, begin the handshake; or NULL */
    int  (*step)(chr__layer *layer, int *wants, chr_error *err);      /* go on with it: 0 = done; on would-block *wants is
                                                                         CHR_IN or CHR_OUT; NULL = nothing to shake */
    int  (*read)(chr__layer *layer, void *buf, size_t len);           /* bytes; 0 = the end; or one of the answers below */
    int  (*write)(chr__layer *layer, const void *buf, size_t len);    /* bytes taken */
    int  (*pending)(const chr__layer *layer);                         /* whether it holds input, -1 = only the end; NULL = never */
    int  (*unsent)(const chr__layer *layer);                          /* bytes of output that it holds; minus these
                                                                         minus 1 = the peer wants none now; NULL =
                                                                         never any */
    int  (*flush)(chr__layer *layer);                                 /* send that: 0 = all is gone; NULL with `unsent` */
    int  (*shutdown)(chr__layer *layer);                              /* no more output, after a flush: 0 = said, or
                                                                         would-block; NULL = ask the layer below */
    int  (*ioctl)(chr__layer *layer, int command, void *arg);         /* or NULL */
    int  (*ping)(chr__layer *layer);                                  /* ask the peer for a sign of life; NULL = it
                                                                         has no word for that */
    void (*close)(chr__layer *layer);                                 /* free; or NULL */
} chr__layer_slots;

/* What read answers when bytes came and none of them is for the frontend, or when the budget of this turn is spent:
 * more may be there. An event comes in its place among the bytes. */
enum { CHR__LAYER_NOTHING = -999, CHR__LAYER_EVENT = -1000 /* minus the event */ };

/* Bounded work: what one turn of the loop reads under layers, or writes through them, whatever the peer sends. */
enum { CHR__TURN_BYTES = 65536 };

struct chr__layer { /* a layer's state begins with it */
    const chr__layer_slots *slots;
    chr__layer             *below;
    chr_dev                *dev;
    size_t                  kept; /* of the bytes that it was given: those that it holds still. A frame that is cut
                                     is worth nothing */
};

/* Whether any of them holds output: 1; negative = all that do are told by their peer to wait. */
CHR__COLD int chr__layers_unsent(const chr__layer *top)
{
    const chr__layer *layer;
    int               unsent, stopped = 0;

    for (layer = top; layer; layer = layer->below) {
        unsent = layer->slots->unsent ? layer->slots->unsent(layer) : 0;
        if (unsent > 0)
            return 1;
        stopped |= unsent;
    }
    return stopped;
}

/* How many bytes they hold. */
CHR__COLD size_t chr__layers_kept(const chr__layer *top)
{
    const chr__layer *layer;
    size_t            kept = 0;

    for (layer = top; layer; layer = layer->below)
        kept += layer->kept;
    return kept;
}

/* From the top: each hands down what it holds. 0 = all is gone; else what stopped the last one. */
CHR__COLD int chr__layers_flush(chr__layer *top)
{
    chr__layer *layer;
    int         code, result = 0;

    for (layer = top; layer; layer = layer->below) {
        code = layer->slots->flush ? layer->slots->flush(layer) : 0;
        result = code < 0 ? code : result;
    }
    return result;
}

/* The same for the last time: each says goodbye behind it, and the bottom sends a FIN. One that can't yet stops
 * those below it. */
CHR__COLD int chr__layers_finish(chr__layer *top)
{
    chr__layer *layer;
    int         code = 0;

    for (layer = top; layer && code == 0; layer = layer->below) {
        code = layer->slots->flush ? layer->slots->flush(layer) : 0;
        if (code == 0 && layer->slots->shutdown)
            code = layer->slots->shutdown(layer);
    }
    return code;
}

/* -- the bottom: plain descriptors -- */

typedef struct chr__bottom {
    chr__layer   layer;
    int          in, out;
    chr__fd_type in_type, out_type;
} chr__bottom;

CHR__HOT static int chr__bottom_read(chr__layer *layer, void *buf, size_t len)
{
    chr__bottom *bottom = (chr__bottom *)layer;

    return chr__os_read_as(bottom->in, bottom->in_type, buf, len);
}

CHR__HOT static int chr__bottom_write(chr__layer *layer, const void *buf, size_t len)
{
    chr__bottom *bottom = (chr__bottom *)layer;

    return chr__os_write(bottom->out, bottom->out_type, buf, len);
}

/* After FIN: what layers still answer is not for the peer any more. */
CHR__PRIVATE int chr__bottom_swallow(chr__layer *layer, const void *buf, size_t len)
{
    (void)layer, (void)buf;
    return (int)len;
}

static const chr__layer_slots chr__bottom_shut = {
    "descriptor", NULL, NULL, chr__bottom_read, chr__bottom_swallow, NULL, NULL, NULL, NULL, NULL, NULL, NULL
};

static int chr__bottom_shutdown(chr__layer *layer)
{
    chr__bottom *bottom = (chr__bottom *)layer;

    if (bottom->out_type != CHR__FD_SOCKET)
        return CHR_ERR_NOT_SUPPORTED;
    chr__os_shutdown(bottom->out);
    layer->slots = &chr__bottom_shut;
    return 0;
}

static const chr__layer_slots chr__bottom_plain = {
    "descriptor", NULL, NULL, chr__bottom_read, chr__bottom_write, NULL, NULL, NULL, chr__bottom_shutdown, NULL, NULL,
        NULL
};

/* -- >>layer_box   bytes that a layer holds: what has come and isn't decoded yet, or what is encoded and not yet sent -- */

enum {
    CHR__BOX_SIZE = 16384,
    CHR__BOX_RESERVE = 1024 /* of an outbox, for answers: data leaves it free. A peer that fills it and reads nothing is dropped */
};

typedef struct chr__box {
    size_t        start, end;
    unsigned char bytes[CHR__BOX_SIZE];
} chr__box;

CHR__PRIVATE int chr__box_is_empty(const chr__box *box) { return box->start == box->end; }

/* What data may take of an outbox. */
CHR__PRIVATE size_t chr__box_room(const chr__box *box)
{
    return box->end < CHR__BOX_SIZE - CHR__BOX_RESERVE ? CHR__BOX_SIZE - CHR__BOX_RESERVE - box->end : 0;
}

/* All of it, the reserve included, or nothing. */
CHR__PRIVATE int chr__box_put(chr__box *box, const void *buf, size_t len)
{
    if (len > sizeof box->bytes - box->end)
        return CHR_ERR_WOULD_BLOCK;
    memcpy(box->bytes + box->end, buf, len);
    box->end += len;
    return 0;
}

/* What lies below gives as much as there is room for. */
CHR__PRIVATE int chr__box_fill(chr__box *box, chr__layer *below)
{
    int n;

    if (chr__box_is_empty(box))
        box->start = box->end = 0;
    n = below->slots->read(below, box->bytes + box->end, sizeof box->bytes - box->end);
    if (n > 0)
        box->end += (size_t)n;
    return n;
}

/* Hands down what is in it. 0 = nothing is left. */
CHR__PRIVATE int chr__box_flush(chr__box *box, chr__layer *below)
{
    int n;

    for (; !chr__box_is_empty(box); box->start += (size_t)n) {
        n = below->slots->write(below, box->bytes + box->start, box->end - box->start);
        if (n <= 0) {
            memmove(box->bytes, box->bytes + box->start, box->end - box->start);
            box->end -= box->start;
            box->start = 0;
            return n < 0 ? n : CHR_ERR_WOULD_BLOCK;
        }
    }
    box->start = box->end = 0;
    return 0;
}

/* -- the stream -- */

enum { CHR__FULL_HUP = 8 }; /* among the events of a watch: no poll() bit, so that only what poll() always tells is
                               told: both directions are over. CHR_HUP alone means POLLRDHUP too, which a half-close
                               is */

typedef struct chr__stream {
    chr_dev    *dev;
    chr__layer *top;               /* NULL = closed */
    int         in, out;           /* what to poll; may be the same; -1 = no such direction */
    chr_watch   in_watch;          /* both directions, when they are the same */
    chr_watch   out_watch;
    chr_idle    again;             /* look at the input though poll says nothing */
    int         broken;            /* a write has failed: what is left to read comes, then the end */
    int         held;              /* hung up, but the frontend has no room for what is left */
    int         may_keep;          /* some layer may keep bytes that poll can't see */
    chr__box   *ahead;             /* input that was read while the frontend had no room, so that layers could answer
                                      the peer */
    int         ahead_stop;        /* what read has answered behind it: an event, or why the input ends; 0 with */
    int         is_ahead_stopped;
    int         input_over;        /* half-close by the peer: only output is left */
    int         output_over;       /* half-close by us: only input is left */
    void      (*ended)(struct chr__stream *stream, int code); /* 0 = end of input, else why; it closes the stream, or stops the input */
} chr__stream;

typedef struct chr__stream_dev { /* the states of stream backends begin like this */
    chr_dev     dev;
    chr__stream stream;
} chr__stream_dev;

static void chr__stream_again(void *opaque);

CHR__COLD int chr__layers_pending(const chr__stream *stream)
{
    const chr__layer *layer;
    int               pending = 0;

    for (layer = stream->top; layer && pending == 0; layer = layer->below)
        if (layer->slots->pending)
            pending = layer->slots->pending(layer);
    return pending;
}

/* -- read-ahead: layers answer pings, offers and questions though the frontend takes no input. One box is read
 * ahead, then back-pressure holds the peer. -- */

static int chr__stream_has_ahead(const chr__stream *stream)
{
    return stream->ahead && (!chr__box_is_empty(stream->ahead) || stream->is_ahead_stopped);
}

static int chr__stream_can_read_ahead(const chr__stream *stream)
{
    return stream->ahead && !stream->is_ahead_stopped && stream->ahead->end < sizeof stream->ahead->bytes;
}

/* First the bytes, then what stood behind them. */
CHR__COLD int chr__stream_read_kept(chr__stream *stream, void *buf, size_t len)
{
    chr__box *ahead = stream->ahead;

    if (!chr__box_is_empty(ahead)) {
        len = chr__min(len, ahead->end - ahead->start);
        memcpy(buf, ahead->bytes + ahead->start, len);
        ahead->start += len;
        return (int)len;
    }
    ahead->start = ahead->end = 0;
    if (!stream->is_ahead_stopped)
        return stream->top->slots->read(stream->top, buf, len);
    stream->is_ahead_stopped = 0;
    return stream->ahead_stop;
}

CHR__HOT static int chr__stream_read(chr__stream *stream, void *buf, size_t len)
{
    return stream->ahead ? chr__stream_read_kept(stream, buf, len) : stream->top->slots->read(stream->top, buf, len);
}

CHR__COLD int chr__stream_pending_kept(const chr__stream *stream)
{
    if (chr__stream_has_ahead(stream))
        return chr__box_is_empty(stream->ahead) && stream->ahead_stop > CHR__LAYER_NOTHING ? -1 : 1;
    return chr__layers_pending(stream);
}

static int chr__stream_pending(const chr__stream *stream)
{
    /* reading ahead is for layers that may keep something */
    return stream->may_keep ? chr__stream_pending_kept(stream) : 0;
}

static int chr__stream_unsent(const chr__stream *stream)
{
    int unsent = stream->may_keep ? chr__layers_unsent(stream->top) : 0;

    return unsent > 0 && stream->broken ? 0 : unsent;
}

static int chr__stream_flush(chr__stream *stream)
{
    return chr__layers_flush(stream->top);
}

/* What the layers hold, encoded as it is. */
CHR__PRIVATE size_t chr__stream_queued(const chr__stream *stream)
{
    const chr__layer *layer;
    size_t            count = 0;
    int               unsent;

    for (layer = stream->top; layer && !stream->broken; layer = layer->below) {
        unsent = layer->slots->unsent ? layer->slots->unsent(layer) : 0;
        count += (size_t)(unsent < 0 ? -1 - unsent : unsent);
    }
    return count;
}

CHR__COLD void chr__stream_look_again(chr__stream *stream)
{
    chr_idle_start(stream->dev->ctx, &stream->again, chr__stream_again, stream);
}

/* Output is polled for while somebody waits. */
static int chr__stream_out_events(const chr__stream *stream)
{
    int unsent = chr__stream_unsent(stream);

    return unsent > 0 || (unsent == 0 && !stream->broken && chr_be_wants_writable(stream->dev)) ? CHR_OUT : 0;
}

/* What to poll for: input while there is room, output while somebody waits, hang-ups always until one is held. */
static void chr__stream_update(chr__stream *stream)
{
    int room, in_events, out_events;

    if (stream->input_over) {
        chr_watch_set(&stream->in_watch, CHR__FULL_HUP | chr__stream_out_events(stream));
        return;
    }
    if (!stream->top)
        return;
    if (stream->dev->ctx->quiet > 0) { /* inside a slot: neither the question nor the poll set is ours to touch */
        chr__update(stream->dev);
        return;
    }
    room = stream->in >= 0 ? chr__room(stream->dev) : 0;
    if (!stream->top)
        return;
    out_events = chr__stream_out_events(stream);
    in_events = room > 0 || chr__stream_can_read_ahead(stream) ? CHR_IN | CHR_HUP : stream->held ? 0 : CHR_HUP;
    if (stream->in == stream->out) {
        chr_watch_set(&stream->in_watch, in_events | out_events);
    } else {
        chr_watch_set(&stream->in_watch, in_events);
        chr_watch_set(&stream->out_watch, out_events);
    }
    if (room <= 0 && stream->in >= 0 && stream->dev->frontend && stream->dev->frontend->handlers.read)
        chr__starve(stream->dev);
    else if (room > 0 && (stream->broken || chr__stream_pending(stream)))
        chr__stream_look_again(stream);
}

CHR__COLD void chr__stream_end(chr__stream *stream, int code)
{
    stream->ended(stream, code);
    chr_be_writable(stream->dev); /* who waits to write shall learn it from the next write */
}

/* A read brought no bytes for the frontend. Would-block is the end all the same, behind a hang-up or a broken write. */
CHR__COLD void chr__stream_nothing(chr__stream *stream, int code, int hung_up)
{
    if (code <= CHR__LAYER_NOTHING) {
        chr__stream_look_again(stream);
        if (code <= CHR__LAYER_EVENT)
            chr_be_event(stream->dev, CHR__LAYER_EVENT - code);
    } else if (code != CHR_ERR_WOULD_BLOCK || stream->broken || hung_up) {
        chr__stream_end(stream, code == CHR_ERR_WOULD_BLOCK ? 0 : code);
    }
}

/* One read a turn. What can't be delivered in its place yet stops it. */
CHR__COLD void chr__stream_read_ahead(chr__stream *stream)
{
    chr__box *ahead = stream->ahead;
    int       n = stream->top->slots->read(stream->top, ahead->bytes + ahead->end, sizeof ahead->bytes - ahead->end);

    if (n > 0) {
        ahead->end += (size_t)n;
    } else if (n != CHR__LAYER_NOTHING && n != CHR_ERR_WOULD_BLOCK) {
        stream->ahead_stop = n;
        stream->is_ahead_stopped = 1;
    }
    if (chr__stream_can_read_ahead(stream) && chr__layers_pending(stream) > 0)
        chr__stream_look_again(stream);
}

/* The frontend takes nothing now. A hang-up with nothing behind it is the end all the same: the next peer must be able to come. */
CHR__COLD void chr__stream_no_room(chr__stream *stream, int hung_up)
{
    chr_dev *dev = stream->dev;
    int      pending;

    if (chr__stream_can_read_ahead(stream))
        chr__stream_read_ahead(stream);
    pending = chr__stream_pending(stream);
    if (pending < 0) {
        chr__stream_nothing(stream, chr__stream_read(stream, dev->ctx->buffer, CHR__BUFFER_SIZE), 1);
    } else if (hung_up && !pending && chr__os_unread(stream->in) == 0) {
        chr__stream_end(stream, 0);
    } else {
        if (hung_up && stream->held && !stream->broken) { /* only output was waited for: none will be taken any more */
            stream->broken = 1;
            chr_be_writable(dev);
        }
        stream->held = hung_up;
        chr__stream_update(stream);
    }
}

/* Reads while there is room and data, up to a budget that lets the others have their turn. */
CHR__HOT static void chr__stream_input(chr__stream *stream, int hung_up)
{
    chr_dev *dev = stream->dev;
    int      room, n, budget = 4 * CHR__BUFFER_SIZE;
    size_t   want;

    do {
        room = chr__room(dev);
        if (!stream->top)
            return;
        if (room <= 0) {
            chr__stream_no_room(stream, hung_up);
            return;
        }
        want = chr__min((size_t)room, CHR__BUFFER_SIZE);
        n = chr__stream_read(stream, dev->ctx->buffer, want);
        if (n <= 0) {
            chr__stream_nothing(stream, n, hung_up);
            return;
        }
        chr__input(dev, dev->ctx->buffer, (size_t)n);
    } while (stream->top && (size_t)n == want && (budget -= n) > 0);
    if (stream->top && (stream->broken || chr__stream_pending(stream)))
        chr__stream_look_again(stream);
}

/* Layers answer what they read; what can't go out at once is watched for. The peer may have said that it wants output again. */
CHR__COLD void chr__stream_look_kept(chr__stream *stream, int hung_up)
{
    chr__stream_input(stream, hung_up);
    if (chr__stream_unsent(stream) || chr_be_wants_writable(stream->dev))
        chr__stream_update(stream);
}

static void chr__stream_look(chr__stream *stream, int hung_up)
{
    if (stream->may_keep)
        chr__stream_look_kept(stream, hung_up);
    else
        chr__stream_input(stream, hung_up);
}

static void chr__stream_again(void *opaque)
{
    chr__stream *stream = (chr__stream *)opaque;

    if (stream->top && stream->input_over && (stream->broken || stream->output_over))
        chr__stream_end(stream, 0);
    else if (stream->top && !stream->input_over && (stream->broken || chr__stream_pending(stream)))
        chr__stream_look(stream, stream->broken);
}

/* A write has failed. Where the input comes from the same descriptor, its rest is read, then it ends. */
CHR__COLD void chr__stream_broken(chr__stream *stream)
{
    if (stream->in != stream->out)
        return;
    stream->broken = 1;
    chr__stream_look_again(stream);
}

CHR__COLD void chr__stream_writable(chr__stream *stream)
{
    int code = chr__stream_flush(stream);

    if (code == CHR_ERR_WOULD_BLOCK) {
        if (chr__stream_unsent(stream) < 0) /* what lies below has gone: no need to watch for more */
            chr__stream_update(stream);
        return;
    }
    if (code < 0)
        chr__stream_broken(stream);
    chr_be_writable(stream->dev);
    chr__stream_update(stream);
}

CHR__HOT static void chr__stream_ready(void *opaque, int events)
{
    chr__stream *stream = (chr__stream *)opaque;

    if (events & CHR_OUT)
        chr__stream_writable(stream);
    if (stream->top && events & (CHR_IN | CHR_HUP))
        chr__stream_look(stream, !(events & CHR_IN));
}

/* From here on a write finds nobody. */
CHR__PRIVATE void chr__stream_output_over(chr__stream *stream)
{
    stream->output_over = 1;
    chr_watch_stop(&stream->out_watch);
    stream->out = -1;
    if (stream->input_over)
        chr__stream_look_again(stream);
    else
        chr__stream_update(stream);
}

/* Half-closed by the peer: a hang-up now is the end of both directions. */
static void chr__stream_half_ready(void *opaque, int events)
{
    chr__stream *stream = (chr__stream *)opaque;

    if (events & CHR_OUT)
        chr__stream_writable(stream);
    if (stream->top && events & CHR_HUP)
        chr__stream_end(stream, 0);
}

/* From `ended`, at the end of input of a descriptor that is both ways: output goes on. 0 = it can't: all is over. */
CHR__PRIVATE int chr__stream_half_close(chr__stream *stream)
{
    if (stream->broken || stream->output_over || chr__os_wait(stream->in, CHR__FULL_HUP, 0) & CHR_HUP)
        return 0;
    stream->input_over = 1;
    stream->in_watch.ready = chr__stream_half_ready;
    chr__stream_update(stream);
    return 1;
}

/* No more output. 0 = it has been said; would-block = what layers hold goes first: call it again when output is
 * possible. */
CHR__PRIVATE int chr__stream_shutdown(chr__stream *stream)
{
    chr__layer *layer;
    int         code;

    if (!stream->top || stream->broken || (stream->out < 0 && !stream->output_over))
        return CHR_ERR_DISCONNECTED;
    if (stream->output_over)
        return 0;
    code = chr__stream_flush(stream);
    for (layer = stream->top; layer && !layer->slots->shutdown; layer = layer->below)
        ;
    if (code == 0 || !layer)
        code = layer ? layer->slots->shutdown(layer) : CHR_ERR_NOT_SUPPORTED;
    if (code == 0)
        chr__stream_output_over(stream);
    return code;
}

static void chr__stream_out_ready(void *opaque, int events)
{
    (void)events;
    chr__stream_writable((chr__stream *)opaque);
}

/* Stops reading, and stays open for writing. */
CHR__PRIVATE void chr__stream_stop_input(chr__stream *stream)
{
    if (stream->in == stream->out)
        return;
    chr_watch_stop(&stream->in_watch);
    chr_idle_stop(&stream->again);
    stream->in = -1;
}

/* Safe on a zeroed and on a closed one. The descriptors under it stay their owner's. */
static void chr__stream_close(chr__stream *stream)
{
    chr__layer *layer = stream->top, *below;

    stream->top = NULL;
    for (; layer; layer = below) {
        below = layer->below;
        if (layer->slots->close)
            layer->slots->close(layer);
    }
    chr_watch_stop(&stream->in_watch);
    chr_watch_stop(&stream->out_watch);
    chr_idle_stop(&stream->again);
    if (stream->ahead)
        chr__free(stream->dev->ctx, stream->ahead);
    stream->ahead = NULL;
    stream->is_ahead_stopped = 0;
    stream->in = stream->out = -1;
    stream->input_over = 0;
}

/* Starts on layers whose handshakes are over. */
static int chr__stream_open(chr__stream *stream, chr_dev *dev, chr__layer *top, int in, int out, void (*ended)(chr__stream *, int),
                            chr_error *err)
{
    chr__layer *layer;
    int         has_answers;

    stream->dev = dev;
    stream->in = in;
    stream->out = out;
    stream->broken = stream->held = stream->input_over = stream->output_over = 0;
    stream->ended = ended;
    for (stream->may_keep = has_answers = 0, layer = top; layer; layer = layer->below) {
        has_answers |= layer->slots->unsent != NULL;
        stream->may_keep |= has_answers || layer->slots->pending != NULL;
    }
    if (has_answers && !(stream->ahead = (chr__box *)chr__allocate(dev->ctx, sizeof *stream->ahead)))
        return chr__no_memory(err);
    if (chr__need_buffer(dev->ctx) < 0 || (in >= 0 && chr_watch_start(dev->ctx, &stream->in_watch, in, 0, chr__stream_ready, stream) < 0) ||
        (out >= 0 && out != in && chr_watch_start(dev->ctx, &stream->out_watch, out, 0, chr__stream_out_ready, stream) < 0)) {
        chr__stream_close(stream);
        return chr__no_memory(err);
    }
    stream->top = top;
    chr__update(dev); /* from the loop: whoever is asked for room may remove the chardev, and the caller goes on with
                         it */
    return 0;
}

/* A write that found nobody, or went through layers that may have kept some of it. */
CHR__COLD int chr__stream_written(chr__stream *stream, int n)
{
    if (n == CHR_ERR_DISCONNECTED)
        chr__stream_broken(stream);
    else if (chr__stream_unsent(stream))
        chr__stream_update(stream);
    return n;
}

static int chr__stream_write(chr__stream *stream, const void *buf, size_t len)
{
    int n;

    if (!stream->top || stream->out < 0 || stream->broken)
        return CHR_ERR_DISCONNECTED;
    n = stream->top->slots->write(stream->top, buf, len);
    return n == CHR_ERR_DISCONNECTED || stream->may_keep ? chr__stream_written(stream, n) : n;
}

/* -- the io slots of stream backends -- */

CHR__HOT static int chr__stream_dev_write(chr_dev *dev, const void *buf, size_t len)
{
    return chr__stream_write(&((chr__stream_dev *)dev)->stream, buf, len);
}

static int chr__stream_dev_read(chr_dev *dev, void *buf, size_t len)
{
    enum { MOST = 16 };
    chr__stream *stream = &((chr__stream_dev *)dev)->stream;
    int          n = CHR__LAYER_NOTHING, i;

    if (!stream->top || stream->in < 0)
        return CHR_ERR_DISCONNECTED;
    for (i = 0; i < MOST && n <= CHR__LAYER_NOTHING; i++) { /* who waits looks at the clock between */
        n = chr__stream_read(stream, buf, len);
        if (n <= CHR__LAYER_EVENT)
            chr_be_event(dev, CHR__LAYER_EVENT - n);
    }
    if (chr__stream_unsent(stream) || chr_be_wants_writable(dev))
        chr__stream_update(stream);
    return n <= CHR__LAYER_NOTHING ? (int)CHR_ERR_WOULD_BLOCK : n;
}

/* Where nobody is, the next write says so at once: there is nothing to wait for. */
static void chr__stream_dev_update(chr_dev *dev)
{
    chr__stream *stream = &((chr__stream_dev *)dev)->stream;

    if ((!stream->top || stream->out < 0 || stream->broken) && chr__frontend_waits(dev))
        chr__postpone(dev, CHR__WRITABLE);
    chr__stream_update(stream);
}

static int chr__stream_dev_wait_fd(chr_dev *dev, int *events)
{
    chr__stream *stream = &((chr__stream_dev *)dev)->stream;

    if (*events == CHR_OUT && chr__stream_unsent(stream) > 0)
        (void)chr__stream_flush(stream); /* an error will meet the next write */
    if (*events == CHR_OUT && chr__stream_unsent(stream) < 0)
        return -1; /* only the loop reads what sets it going again */
    if (*events == CHR_IN && chr__stream_pending(stream))
        *events = 0;
    return *events == CHR_OUT ? stream->out : stream->in;
}

static const chr_io chr__stream_io = {
    chr__stream_dev_write,   /* write   */
    chr__stream_dev_read,    /* read    */
    chr__stream_dev_update,  /* update  */
    chr__stream_dev_wait_fd, /* wait_fd */
};

#if CHARDEV_HAS_SOCKET
/* -- lingering close: what has been taken for a peer is sent though its chardev is done with it, or gone, and the
 * peer is told the end in the words of each layer. To close the descriptor while something from the peer is unread,
 * or on the way, would be a reset, which destroys what the peer has not read yet: so its input is thrown away until
 * it closes too. All of it for two seconds in which nothing moves (at the end of a context those count in which
 * output has waited before), and ten at most. What can't be sent is counted in bytes_dropped. The context holds these. -- */

enum {
    CHR__LINGER_MS = 2000,       /* without progress, */
    CHR__LINGER_MOST_MS = 10000, /* and in all; */
    CHR__LINGER_LEAST_MS = 500,  /* at the end of a context, when so much has been waited already */
    CHR__LINGER_TICK_MS = 100,
    CHR__LINGERING_MOST = 64     /* per context: one more ends the oldest */
};

typedef struct chr__linger {
    chr_dev            *dev;                  /* its memory stays as long as this */
    chr__layer         *top;
    int                 fd, is_unix;
    unsigned char      *rest;                 /* of history= and obuf=: what has not gone through the layers yet */
    size_t              rest_at, rest_size, rest_owed; /* owed: of it, what is only history and counts for nothing */
    int                 waits_for_end;        /* the peer is given the time to close, too */
    int                 is_over;              /* all is sent, and the peer knows that no more comes */
    size_t              taken;                /* of what is left, how much the frontend has written: a goodbye is
                                                 none of it */
    size_t              counted;              /* of it in the context's lingering_queued */
    size_t              left;                 /* when something moved last, and */
    int64_t             moved, ends;          /* when that was; the end in any case */
    chr_watch           watch;
    chr_timer           tick;
    void              (*release)(struct chr__linger *linger); /* frees it, with its layers */
    struct chr__linger *next;
} chr__linger;

static void chr__linger_lost(chr__linger *linger)
{
    size_t lost = chr__layers_kept(linger->top) + linger->rest_size - chr__max(linger->rest_at, linger->rest_owed);
    char   line[120];

    lost = chr__min(lost, linger->taken);
    if (linger->is_over || lost == 0)
        return;
    linger->dev->bytes_dropped += lost;
    chr__format(line, sizeof line, "the peer has not taken the last %llu bytes: they are lost",
                (unsigned long long)lost);
    chr__log_line(linger->dev->ctx, linger->dev->id, line);
}

/* One more for the goodbye. */
static void chr__linger_count(chr__linger *linger)
{
    size_t now = linger->is_over ? 0 : linger->rest_size - linger->rest_at + chr__layers_kept(linger->top) + 1;

    linger->dev->ctx->lingering_queued += (uint64_t)now - linger->counted;
    linger->counted = now;
}

CHR__COLD void chr__linger_end(chr__linger *linger)
{
    chr_dev      *dev = linger->dev;
    chr__linger **link = &dev->ctx->lingering;

    while (*link != linger)
        link = &(*link)->next;
    *link = linger->next;
    dev->ctx->lingering_count--;
    dev->ctx->lingering_queued -= linger->counted;
    chr_watch_stop(&linger->watch);
    chr_timer_stop(&linger->tick);
    chr__linger_lost(linger);
    chr__os_close(linger->fd);
    chr__free(dev->ctx, linger->rest);
    linger->release(linger);
    if (--dev->holds == 0 && dev->removed)
        chr__dead(dev);
}

/* 0 = all has gone out, the goodbyes included. */
static int chr__linger_send(chr__linger *linger)
{
    int n = 1;

    while (linger->rest_at < linger->rest_size && n > 0) {
        n = linger->top->slots->write(linger->top, linger->rest + linger->rest_at, linger->rest_size - linger->rest_at);
        linger->rest_at += n > 0 ? (size_t)n : 0;
    }
    if (n <= 0)
        return n < 0 ? n : (int)CHR_ERR_WOULD_BLOCK;
    return chr__layers_finish(linger->top);
}

/* Throws input away. Would-block, or the end: 0 or an error. */
static int chr__linger_discard(chr__linger *linger)
{
    char bytes[4096];
    int  i, n = 1;

    for (i = 0; i < CHR__TURN_BYTES / (int)sizeof bytes && n > 0; i++)
        n = chr__os_receive_bytes(linger->fd, bytes, sizeof bytes);
    return n > 0 ? (int)CHR_ERR_WOULD_BLOCK : n;
}

/* Nothing more is to be sent, and nothing can destroy what was. */
static int chr__linger_is_done(const chr__linger *linger)
{
    return linger->is_over && !linger->waits_for_end && (linger->is_unix || chr__os_unsent(linger->fd) == 0);
}

/* As far as it goes without waiting. A peer that wants no output now can't change that any more: what it says is
 * thrown away. */
static void chr__linger_go_on(chr__linger *linger)
{
    int code = linger->is_over ? 0 : chr__linger_send(linger), input;

    linger->is_over |= code == 0;
    chr__linger_count(linger);
    input = chr__linger_discard(linger);
    if ((code < 0 && code != CHR_ERR_WOULD_BLOCK) || (!linger->is_over && chr__layers_unsent(linger->top) < 0) ||
        (input != CHR_ERR_WOULD_BLOCK && linger->is_over) || chr__linger_is_done(linger)) {
        chr__linger_end(linger);
        return;
    }
    chr_watch_set(&linger->watch, (linger->is_over ? 0 : CHR_OUT) | (input == CHR_ERR_WOULD_BLOCK ? CHR_IN : 0));
}

static void chr__linger_ready(void *opaque, int events)
{
    (void)events;
    chr__linger_go_on((chr__linger *)opaque);
}

/* As much as is left, also in the system's buffers. */
static size_t chr__linger_left(const chr__linger *linger)
{
    return linger->rest_size - linger->rest_at + chr__layers_kept(linger->top) +
           (linger->is_unix ? 0 : (size_t)chr__os_unsent(linger->fd));
}

/* Whether it has moved lately is seen in what is left. */
static void chr__linger_tick(void *opaque)
{
    chr__linger *linger = (chr__linger *)opaque;
    chr_context *ctx = linger->dev->ctx;
    int64_t      now = chr__real_now(ctx);
    size_t       left = chr__linger_left(linger);

    if (left < linger->left) /* the end of the stream makes it more */
        linger->moved = now;
    linger->left = left;
    if (chr__linger_is_done(linger) || now >= linger->ends || now - linger->moved >= CHR__LINGER_MS * INT64_C(1000000))
        chr__linger_end(linger);
    else
        chr__timer_start_real(ctx, &linger->tick, CHR__LINGER_TICK_MS, chr__linger_tick, linger);
}

/* The oldest that only waits for its peer, or else the oldest. */
static void chr__linger_make_room(chr_context *ctx)
{
    chr__linger *linger = ctx->lingering;

    while (linger && !linger->is_over)
        linger = linger->next;
    chr__linger_end(linger ? linger : ctx->lingering);
}

/* Since when nothing has moved. */
static void chr__linger_clock(chr__linger *linger)
{
    chr_dev *dev = linger->dev;
    int64_t  now = chr__real_now(dev->ctx);

    linger->ends = now + CHR__LINGER_MOST_MS * INT64_C(1000000);
    linger->left = chr__linger_left(linger);
    linger->moved = now;
    if (dev->ctx->closing && dev->stalled) {
        now -= (CHR__LINGER_MS - CHR__LINGER_LEAST_MS) * INT64_C(1000000);
        linger->moved = dev->stalled > now ? dev->stalled : now;
    }
}

/* Takes over the descriptor, the layers (dev, top, fd, is_unix, waits_for_end and release are set, all else is zero)
 * and what waits in the outbox of `source`, or nothing with NULL. It may be over before this returns. */
static void chr__linger_begin(chr__linger *linger, chr_dev *source)
{
    chr_context  *ctx = linger->dev->ctx;
    chr__linger **last;

    if (ctx->lingering_count >= CHR__LINGERING_MOST)
        chr__linger_make_room(ctx);
    for (last = &ctx->lingering; *last; last = &(*last)->next)
        ;
    *last = linger;
    ctx->lingering_count++;
    linger->dev->holds++;
    if (source)
        linger->rest = chr__outbox_take(source, &linger->rest_size, &linger->rest_owed);
    linger->taken = source ? chr__layers_kept(linger->top) + linger->rest_size - linger->rest_owed : 0;
    chr__linger_clock(linger);
    chr__timer_start_real(ctx, &linger->tick, CHR__LINGER_TICK_MS, chr__linger_tick, linger);
    if (chr_watch_start(ctx, &linger->watch, linger->fd, 0, chr__linger_ready, linger) < 0)
        chr__linger_end(linger);
    else
        chr__linger_go_on(linger);
}

/* Those that have sent all and whose peers have all: nobody waits for their close any more. */
static void chr__lingering_release(chr_context *ctx)
{
    chr__linger *linger, *next;

    for (linger = ctx->lingering; linger; linger = next) {
        next = linger->next;
        linger->waits_for_end = 0;
        if (chr__linger_is_done(linger))
            chr__linger_end(linger);
    }
}

static int chr__lingering_polls(chr_context *ctx, chr__pollfd *polls)
{
    chr__linger *linger;
    int          count = 0;

    for (linger = ctx->lingering; linger; linger = linger->next, count++) {
        polls[count].fd = linger->watch.events ? linger->fd : -1;
        polls[count].events = chr__os_poll_events(linger->watch.events);
        polls[count].revents = 0;
    }
    return count;
}

/* At the end of a context: blocks until all has gone out, or nothing has moved for two seconds. */
static void chr__lingering_wait(chr_context *ctx)
{
    chr__pollfd  polls[CHR__LINGERING_MOST];
    chr__linger *linger, *next;
    int          count, i;

    for (chr__lingering_release(ctx); ctx->lingering; chr__lingering_release(ctx)) {
        count = chr__lingering_polls(ctx, polls);
        (void)chr__os_poll(polls, count, CHR__LINGER_TICK_MS / 10);
        for (linger = ctx->lingering, i = 0; linger; linger = next, i++) {
            next = linger->next;
            if (polls[i].revents)
                chr__linger_go_on(linger);
            else
                chr__linger_tick(linger);
        }
    }
}

#endif

/* -- a chardev right on descriptors: what fd, file, pipe, pty and stdio have in common -- */

typedef struct chr__fd_dev {
    chr_dev     dev;
    chr__stream stream;
    chr__bottom bottom;   /* reads and writes `in` and `out`, or what they were opened anew as */
    int         in, out;
    int         is_owner;        /* of in and out: they are closed with it */
    int         own_in, own_out; /* opened anew; 0 = they are not */
} chr__fd_dev;

static int chr__fd_begin(chr__fd_dev *state, void (*ended)(chr__stream *, int), chr_error *err)
{
    state->bottom.layer.slots = &chr__bottom_plain;
    state->bottom.layer.dev = &state->dev;
    return chr__stream_open(&state->stream, &state->dev, &state->bottom.layer, state->in, state->out, ended, err);
}

/* On descriptors that the library has opened. */
CHR__PRIVATE int chr__fd_start(chr__fd_dev *state, int in, int out, void (*ended)(chr__stream *, int), chr_error *err)
{
    state->bottom.in = state->in = in;
    state->bottom.out = state->out = out;
    state->bottom.in_type = chr__os_fd_type(in, 1);
    state->bottom.out_type = out == in ? state->bottom.in_type : chr__os_fd_type(out, 1);
    return chr__fd_begin(state, ended, err);
}

#if CHARDEV_HAS_FD || CHARDEV_HAS_STDIO
/* On inherited ones, whose flags stay as they are. poll() looks at those, since only they know of the writers that a
 * FIFO had before. */
static int chr__fd_start_inherited(chr__fd_dev *state, int in, int out, void (*ended)(chr__stream *, int),
                                   chr_error *err)
{
    state->in = in;
    state->out = out;
    state->bottom.in = chr__os_unshare(in, CHR_IN, &state->bottom.in_type);
    state->bottom.out = chr__os_unshare(out, CHR_OUT, &state->bottom.out_type);
    state->own_in = state->bottom.in != in ? state->bottom.in : 0;
    state->own_out = state->bottom.out != out ? state->bottom.out : 0;
    return chr__fd_begin(state, ended, err);
}
#endif

#if CHARDEV_HAS_FD || CHARDEV_HAS_FILE || CHARDEV_HAS_PIPE
/* A descriptor that is there for output alone ends with it. */
static int chr__fd_shutdown(chr_dev *dev)
{
    chr__fd_dev *state = (chr__fd_dev *)dev;
    int          code = chr__stream_shutdown(&state->stream);

    if (code != CHR_ERR_NOT_SUPPORTED || state->in == state->out || !state->is_owner)
        return code;
    chr__stream_output_over(&state->stream);
    chr__close_own(dev, state->out);
    if (state->own_out)
        chr__os_close(state->own_out);
    state->out = -1;
    state->own_out = 0;
    return 0;
}

/* Of fd, file and pipe. */
static const chr_peer_slots chr__fd_peer = {
    NULL,             /* disconnect     */
    NULL,             /* wait_connected */
    NULL,             /* add_client     */
    NULL,             /* set_msgfds     */
    NULL,             /* get_msgfds     */
    chr__fd_shutdown, /* shutdown       */
    NULL,             /* queued         */
};
#endif

/* Also after a failed open. */
CHR__PRIVATE void chr__fd_close(chr_dev *dev)
{
    chr__fd_dev *state = (chr__fd_dev *)dev;

    chr__stream_close(&state->stream);
    if (state->own_in)
        chr__os_close(state->own_in);
    if (state->own_out)
        chr__os_close(state->own_out);
    if (!state->is_owner)
        return;
    chr__close_own(dev, state->in);
    if (state->out != state->in)
        chr__close_own(dev, state->out);
}

/* The usual end: nothing more comes, writing goes on where it has a descriptor of its own. */
CHR__PRIVATE void chr__stream_input_over(chr__stream *stream, int code)
{
    (void)code;
    if (stream->in == stream->out)
        chr__stream_close(stream);
    else
        chr__stream_stop_input(stream);
    chr_be_event(stream->dev, CHR_EVENT_CLOSED);
}
#endif

/* ====================================================================================================================
 * >>be_null   takes and drops everything. The template for a new backend.
 *
 * far side   nobody, ever          options   none          events   none: it is never open
 * ==================================================================================================================== */

static int chr__null_open(chr_dev *dev, chr_error *err)
{
    (void)dev, (void)err;
    return 0;
}

static int chr__null_write(chr_dev *dev, const void *buf, size_t len)
{
    (void)dev, (void)buf;
    return (int)len;
}

static const chr_io chr__null_io = {
    chr__null_write, /* write   */
    NULL,            /* read    */
    NULL,            /* update  */
    NULL,            /* wait_fd */
};

static const chr_backend chr__null_kind = {
    "null",                                /* name         */
    NULL,                                  /* alias        */
    "takes and drops everything",          /* help         */
    NULL,                                  /* options      */
    sizeof(chr_common_options),            /* options_size */
    sizeof(chr_dev),                       /* state_size   */
    NULL,                                  /* uri          */
    chr__null_open,                        /* open         */
    NULL,                                  /* close        */
    &chr__null_io,                         /* io           */
    NULL,                                  /* describe     */
    NULL,                                  /* ioctl        */
    NULL,                                  /* set_open     */
    NULL,                                  /* peer         */
    NULL,                                  /* sharing      */
    0,                                     /* fixed        */
    NULL,                                  /* input        */
};

/* ====================================================================================================================
 * >>be_ringbuf   the last bytes that the guest wrote, to be read by calls
 *
 * far side   chr_ringbuf_read(), chr_ringbuf_write()          options   size          events   OPENED from creation
 * ==================================================================================================================== */
#if CHARDEV_HAS_RINGBUF

typedef struct chr__ringbuf {
    chr_dev   dev;
    chr__ring ring;
} chr__ringbuf;

static const chr_option chr__ringbuf_rows[] = {
    { "size", CHR_OPTION_SIZE, CHR__AT(chr_ringbuf_options, size), "64K", 1, 1 << 30, "bytes; must be a power of two" },
    { NULL,   CHR_OPTION_TEXT, 0,                                  NULL,  0, 0,       NULL }
};

static int chr__ringbuf_open(chr_dev *dev, chr_error *err)
{
    int64_t size = ((const chr_ringbuf_options *)dev->options)->size;

    if (size & (size - 1))
        return chr__fail(err, CHR_ERR_INVALID, "ringbuf: size=%lld: must be a power of two", (long long)size);
    if (chr__ring_init(dev->ctx, &((chr__ringbuf *)dev)->ring, (size_t)size) < 0)
        return chr__no_memory(err);
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

static void chr__ringbuf_close(chr_dev *dev)
{
    chr__free(dev->ctx, ((chr__ringbuf *)dev)->ring.bytes);
}

static int chr__ringbuf_put(chr_dev *dev, const void *buf, size_t len)
{
    chr__ring_put(&((chr__ringbuf *)dev)->ring, buf, len);
    return (int)len;
}

static const chr_io chr__ringbuf_io = {
    chr__ringbuf_put, /* write   */
    NULL,             /* read    */
    NULL,             /* update  */
    NULL,             /* wait_fd */
};

static const chr_backend chr__ringbuf_kind = {
    "ringbuf",                                           /* name         */
    "memory",                                            /* alias        */
    "keeps the last bytes written, to be read by calls", /* help         */
    chr__ringbuf_rows,                                   /* options      */
    sizeof(chr_ringbuf_options),                         /* options_size */
    sizeof(chr__ringbuf),                                /* state_size   */
    NULL,                                                /* uri          */
    chr__ringbuf_open,                                   /* open         */
    chr__ringbuf_close,                                  /* close        */
    &chr__ringbuf_io,                                    /* io           */
    NULL,                                                /* describe     */
    NULL,                                                /* ioctl        */
    NULL,                                                /* set_open     */
    NULL,                                                /* peer         */
    NULL,                                                /* sharing      */
    0,                                                   /* fixed        */
    NULL,                                                /* input        */
};

/* -- what the calls of >>extras do -- */

static void chr__ring_peek(const chr__ring *ring, size_t at, unsigned char *out, size_t len)
{
    size_t i;

    for (i = 0; i < len; i++)
        out[i] = ring->bytes[chr__ring_index(ring, at + i)];
}

static int chr__ringbuf_read_base64(chr__ring *ring, size_t size, char *out, size_t capacity)
{
    unsigned char bytes[3];
    size_t        len = chr__min(chr__min(size, ring->count), capacity / 4 * 3), at, group;

    for (at = 0; at < len; at += 3, out += 4) {
        group = chr__min(3, len - at);
        chr__ring_peek(ring, at, bytes, group);
        chr__base64_group(bytes, group, out);
    }
    chr__ring_take(ring, len);
    return (int)((len + 2) / 3 * 4);
}

static int chr__ringbuf_read_utf8(chr__ring *ring, size_t size, char *out, size_t capacity)
{
    unsigned char bytes[4];
    size_t        left, taken = 0, written = 0;

    for (size = chr__min(size, ring->count); taken < size; ) {
        int length;
        left = chr__min(4, ring->count - taken);
        chr__ring_peek(ring, taken, bytes, left);
        length = chr__utf8_length(bytes, left);
        if (length == 0 || taken + (size_t)(length < 0 ? -length : length) > size ||
            written + (size_t)(length < 0 ? 3 : length) > capacity)
            break; /* the rest of a sequence may still come, or come with the next read */
        memcpy(out + written, length < 0 ? (const void *)"\xef\xbf\xbd" : bytes, (size_t)(length < 0 ? 3 : length));
        written += (size_t)(length < 0 ? 3 : length);
        taken += (size_t)(length < 0 ? -length : length);
    }
    chr__ring_take(ring, taken);
    return (int)written;
}
#endif

/* ====================================================================================================================
 * >>be_testdev   lets a test program inside the guest end the emulator
 *
 * far side   nobody          options   none          events   OPENED at creation
 * output     [spaces][decimal n]q: the context's exit handler is asked, from the loop, to exit with (n << 1) | 1
 * ==================================================================================================================== */
#if CHARDEV_HAS_TESTDEV

enum { CHR__TESTDEV_START, CHR__TESTDEV_NUMBER, CHR__TESTDEV_BEHIND_NUMBER, CHR__TESTDEV_MAX = 0x3fffffff };

typedef struct chr__testdev {
    chr_dev  dev;
    int      state;  /* what the next byte is: CHR__TESTDEV_... */
    int64_t  number; /* so far; stops at the largest whose exit code is an int */
    chr_idle exit;
    int      is_asked, code;
} chr__testdev;

static int chr__testdev_open(chr_dev *dev, chr_error *err)
{
    (void)err;
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

static void chr__testdev_exit(void *opaque)
{
    chr__testdev     *testdev = (chr__testdev *)opaque;
    const chr_config *config = &testdev->dev.ctx->config;

    testdev->is_asked = 0;
    if (config->exit)
        config->exit(config->opaque, testdev->code);
    else
        chr_loop_stop(testdev->dev.ctx);
}

/* Of several wishes in one step of the loop the first counts. */
static void chr__testdev_ask(chr__testdev *testdev)
{
    if (testdev->is_asked)
        return;
    testdev->is_asked = 1;
    testdev->code = (int)testdev->number << 1 | 1;
    chr_idle_start(testdev->dev.ctx, &testdev->exit, chr__testdev_exit, testdev);
}

static void chr__testdev_byte(chr__testdev *testdev, unsigned char c)
{
    if (c >= '0' && c <= '9' && testdev->state != CHR__TESTDEV_BEHIND_NUMBER) {
        testdev->number = testdev->number * 10 + (c - '0');
        if (testdev->number > CHR__TESTDEV_MAX)
            testdev->number = CHR__TESTDEV_MAX;
        testdev->state = CHR__TESTDEV_NUMBER;
    } else if (c == ' ' || (c >= '\t' && c <= '\r')) {
        if (testdev->state == CHR__TESTDEV_NUMBER)
            testdev->state = CHR__TESTDEV_BEHIND_NUMBER;
    } else {
        if (c == 'q')
            chr__testdev_ask(testdev);
        testdev->state = CHR__TESTDEV_START;
        testdev->number = 0;
    }
}

static int chr__testdev_write(chr_dev *dev, const void *buf, size_t len)
{
    size_t i;

    for (i = 0; i < len; i++)
        chr__testdev_byte((chr__testdev *)dev, ((const unsigned char *)buf)[i]);
    return (int)len;
}

static void chr__testdev_close(chr_dev *dev)
{
    chr_idle_stop(&((chr__testdev *)dev)->exit);
}

static const chr_io chr__testdev_io = {
    chr__testdev_write, /* write   */
    NULL,               /* read    */
    NULL,               /* update  */
    NULL,               /* wait_fd */
};

static const chr_backend chr__testdev_kind = {
    "testdev",                                   /* name         */
    NULL,                                        /* alias        */
    "the guest's test program ends the emulator", /* help        */
    NULL,                                        /* options      */
    sizeof(chr_common_options),                  /* options_size */
    sizeof(chr__testdev),                        /* state_size   */
    NULL,                                        /* uri          */
    chr__testdev_open,                           /* open         */
    chr__testdev_close,                          /* close        */
    &chr__testdev_io,                            /* io           */
    NULL,                                        /* describe     */
    NULL,                                        /* ioctl        */
    NULL,                                        /* set_open     */
    NULL,                                        /* peer         */
    NULL,                                        /* sharing      */
    0,                                           /* fixed        */
    NULL,                                        /* input        */
};
#endif

/* ====================================================================================================================
 * >>answers   what an emulated device says waits in fixed memory and goes, from the loop, as the frontend has room
 * ==================================================================================================================== */
#if CHARDEV_HAS_MSMOUSE || CHARDEV_HAS_WCTABLET || CHARDEV_HAS_BRAILLE

typedef struct chr__answers {
    chr_dev       dev;
    chr__ring     queue; /* in `bytes` */
    chr_idle      deliver;
    unsigned char bytes[256];
} chr__answers;

static void chr__answers_open(chr__answers *answers)
{
    answers->queue.bytes = answers->bytes;
    answers->queue.size = sizeof answers->bytes;
}

CHR__PRIVATE void chr__answers_forget(chr__answers *answers)
{
    answers->queue.start = answers->queue.count = 0;
}

static void chr__answers_close(chr_dev *dev)
{
    chr_idle_stop(&((chr__answers *)dev)->deliver);
}

static void chr__answers_deliver(void *opaque)
{
    chr__answers        *answers = (chr__answers *)opaque;
    const unsigned char *piece;
    unsigned char        copy[64];
    size_t               len;
    int                  room;

    if (chr_be_wants_writable(&answers->dev))
        chr_be_writable(&answers->dev);
    while ((room = chr_be_can_write(&answers->dev)) > 0 && answers->queue.count > 0) {
        piece = chr__ring_piece(&answers->queue, 0, &len);
        len = chr__min(chr__min(len, sizeof copy), (size_t)room);
        memcpy(copy, piece, len); /* out of the way first: the handler may come back here */
        chr__ring_take(&answers->queue, len);
        chr_be_write(&answers->dev, copy, len);
    }
    if (answers->queue.count > 0)
        chr__starve(&answers->dev);
}

static void chr__answers_update(chr_dev *dev)
{
    chr__answers *answers = (chr__answers *)dev;
    int           room = answers->queue.count > 0 ? chr_be_can_write(dev) : 0;

    if (dev->removed) /* by whom we asked */
        return;
    if (chr_be_wants_writable(dev) || room > 0)
        chr_idle_start(dev->ctx, &answers->deliver, chr__answers_deliver, answers);
    else if (answers->queue.count > 0)
        chr__starve(dev);
}

/* All of it or nothing: half a packet would put the guest out of step. */
static int chr__answer(chr__answers *answers, const void *bytes, size_t len)
{
    if (len > answers->queue.size - answers->queue.count) {
        answers->dev.bytes_dropped += len;
        return CHR_ERR_WOULD_BLOCK;
    }
    chr__ring_put(&answers->queue, bytes, len);
    chr_idle_start(answers->dev.ctx, &answers->deliver, chr__answers_deliver, answers);
    return 0;
}
#endif

/* ====================================================================================================================
 * >>be_msmouse   a serial mouse with three buttons: Microsoft's packets, and Logitech's fourth byte for the middle button
 *
 * far side   chr_input_rel(), chr_input_button(), chr_input_sync()          options   none
 * events     OPENED when DTR or RTS gives it power (CHR_IOCTL_SERIAL_SET_TIOCM), CLOSED when both are gone
 * input      at power-on "M3" and the plug-and-play id; then 3 bytes a packet: 01LRyyxx 00xxxxxx 00yyyyyy, and 00M00000
 *            as a fourth when the middle button is or was just down
 * ==================================================================================================================== */
#if CHARDEV_HAS_MSMOUSE

enum { CHR__MSMOUSE_STEP = 127 }; /* what fits into one packet */

typedef struct chr__msmouse {
    chr__answers answers;
    int          lines;  /* CHR_TIOCM_DTR, CHR_TIOCM_RTS */
    int64_t      dx, dy; /* since the last sync, like the two below */
    int          changed, middle_changed;
    int          buttons; /* a bit for each CHR_BUTTON_... */
} chr__msmouse;

static int chr__msmouse_open(chr_dev *dev, chr_error *err)
{
    (void)err;
    chr__answers_open((chr__answers *)dev);
    return 0;
}

/* A mouse doesn't listen. */
static int chr__msmouse_write(chr_dev *dev, const void *buf, size_t len)
{
    (void)dev, (void)buf;
    return (int)len;
}

/* -- power -- */

/* "M3", then begin, version 1.0, vendor and product, no serial number, class, compatible with, name, checksum, end; all of
 * it less 0x20, since such a line has seven bits. The checksum is the sum of what is sent, without itself. */
static void chr__msmouse_introduce(chr__msmouse *mouse)
{
    static const char id[] = "(!DCHR0001\\\\MOUSE\\PNP0F08\\CHARDEV SERIAL MOUSE", digits[] = "0123456789ABCDEF";
    unsigned char     bytes[sizeof id + 2];
    unsigned          i, sum = ')' - 0x20;

    for (i = 0; i < sizeof id - 1; i++) {
        bytes[i] = (unsigned char)(id[i] - 0x20);
        sum += bytes[i];
    }
    bytes[i++] = (unsigned char)(digits[sum >> 4 & 15] - 0x20);
    bytes[i++] = (unsigned char)(digits[sum & 15] - 0x20);
    bytes[i++] = ')' - 0x20;
    chr__answer(&mouse->answers, "M3", 2);
    chr__answer(&mouse->answers, bytes, i);
}

static void chr__msmouse_set_lines(chr__msmouse *mouse, int lines)
{
    int was_on = mouse->lines != 0;

    mouse->lines = lines & (CHR_TIOCM_DTR | CHR_TIOCM_RTS);
    if (was_on == (mouse->lines != 0))
        return;
    chr__answers_forget(&mouse->answers);
    mouse->dx = mouse->dy = 0;
    mouse->changed = mouse->middle_changed = mouse->buttons = 0;
    if (!was_on)
        chr__msmouse_introduce(mouse);
    chr_be_event(&mouse->answers.dev, was_on ? CHR_EVENT_CLOSED : CHR_EVENT_OPENED);
}

static int chr__msmouse_ioctl(chr_dev *dev, int command, void *arg)
{
    chr__msmouse *mouse = (chr__msmouse *)dev;

    switch (command) {
    case CHR_IOCTL_SERIAL_GET_TIOCM:
        *(int *)arg = mouse->lines;
        return 0;
    case CHR_IOCTL_SERIAL_SET_TIOCM:
        chr__msmouse_set_lines(mouse, *(const int *)arg);
        return 0;
    default:
        return CHR_ERR_NOT_SUPPORTED;
    }
}

/* It may get power again. */
static void chr__msmouse_describe(const chr_dev *dev, chr_info *info)
{
    chr__format(info->filename, sizeof info->filename, "%s", dev->kind->name);
    info->comes_back = 1;
}

/* -- the user's hand -- */

static int chr__msmouse_rel(chr_dev *dev, int dx, int dy)
{
    chr__msmouse *mouse = (chr__msmouse *)dev;

    if (!mouse->lines)
        return CHR_ERR_DISCONNECTED;
    mouse->dx += dx;
    mouse->dy += dy;
    mouse->changed |= dx != 0 || dy != 0;
    return 0;
}

static int chr__msmouse_button(chr_dev *dev, int button, int down)
{
    chr__msmouse *mouse = (chr__msmouse *)dev;
    int           bit = 1 << button, is_down = (mouse->buttons & bit) != 0;

    if (!mouse->lines)
        return CHR_ERR_DISCONNECTED;
    if (is_down == (down != 0))
        return 0;
    mouse->buttons ^= bit;
    mouse->changed = 1;
    mouse->middle_changed |= button == CHR_BUTTON_MIDDLE;
    return 0;
}

static int chr__msmouse_packet(chr__msmouse *mouse, int dx, int dy)
{
    int           left = mouse->buttons >> CHR_BUTTON_LEFT & 1, right = mouse->buttons >> CHR_BUTTON_RIGHT & 1;
    int           middle = mouse->buttons >> CHR_BUTTON_MIDDLE & 1, code;
    unsigned char packet[4];

    packet[0] = (unsigned char)(0x40 | left << 5 | right << 4 | (dy & 0xc0) >> 4 | (dx & 0xc0) >> 6);
    packet[1] = (unsigned char)(dx & 0x3f);
    packet[2] = (unsigned char)(dy & 0x3f);
    packet[3] = (unsigned char)(middle << 5);
    code = chr__answer(&mouse->answers, packet, middle || mouse->middle_changed ? 4 : 3);
    if (code == 0)
        mouse->middle_changed = 0;
    return code;
}

static int chr__msmouse_step(int64_t distance)
{
    if (distance > CHR__MSMOUSE_STEP)
        return CHR__MSMOUSE_STEP;
    return distance < -CHR__MSMOUSE_STEP ? -(int)CHR__MSMOUSE_STEP : (int)distance;
}

/* When the queue is full the way is lost; the buttons are told with the next packet. */
static int chr__msmouse_sync(chr_dev *dev)
{
    chr__msmouse *mouse = (chr__msmouse *)dev;
    int           dx, dy, code;

    if (!mouse->lines)
        return CHR_ERR_DISCONNECTED;
    if (!mouse->changed)
        return 0;
    do {
        dx = chr__msmouse_step(mouse->dx);
        dy = chr__msmouse_step(mouse->dy);
        code = chr__msmouse_packet(mouse, dx, dy);
        mouse->dx = code < 0 ? 0 : mouse->dx - dx;
        mouse->dy = code < 0 ? 0 : mouse->dy - dy;
    } while (mouse->dx || mouse->dy);
    mouse->changed = code < 0;
    return code;
}

static const chr_input_slots chr__msmouse_input = {
    chr__msmouse_rel,    /* rel    */
    NULL,                /* abs    */
    chr__msmouse_button, /* button */
    chr__msmouse_sync,   /* sync   */
};

static const chr_io chr__msmouse_io = {
    chr__msmouse_write,  /* write   */
    NULL,                /* read    */
    chr__answers_update, /* update  */
    NULL,                /* wait_fd */
};

static const chr_backend chr__msmouse_kind = {
    "msmouse",                           /* name         */
    NULL,                                /* alias        */
    "a serial mouse with three buttons", /* help         */
    NULL,                                /* options      */
    sizeof(chr_common_options),          /* options_size */
    sizeof(chr__msmouse),                /* state_size   */
    NULL,                                /* uri          */
    chr__msmouse_open,                   /* open         */
    chr__answers_close,                  /* close        */
    &chr__msmouse_io,                    /* io           */
    chr__msmouse_describe,               /* describe     */
    chr__msmouse_ioctl,                  /* ioctl        */
    NULL,                                /* set_open     */
    NULL,                                /* peer         */
    NULL,                                /* sharing      */
    0,                                   /* fixed        */
    &chr__msmouse_input,                 /* input        */
};
#endif

/* ====================================================================================================================
 * >>be_wctablet   a serial tablet with a pen: Wacom PenPartner CT-0045R
 *
 * far side   chr_input_abs(), chr_input_button(), chr_input_sync()          options   none
 * events     OPENED at creation
 * input      a configuration block at creation; answers to what the guest asks; while started, a packet of 7 bytes a sync
 * output     ~# (model), and lines: RE (settings), ~C (size), ST (start), SP (stop), TSn; the rest is dropped. The line speaks
 *            9600 baud: at another speed (CHR_IOCTL_SERIAL_SET_PARAMS) it understands nothing, and a change resets it.
 * ==================================================================================================================== */
#if CHARDEV_HAS_WCTABLET

enum { CHR__WCTABLET_SPEED = 9600, CHR__WCTABLET_MAX = 32767, CHR__WCTABLET_WIDTH = 5036, CHR__WCTABLET_HEIGHT = 3774 };

typedef struct chr__wctablet {
    chr__answers answers;
    int          speed;   /* of the line; until the guest sets one, the right one */
    char         line[4]; /* how it begins */
    size_t       length;  /* of the whole line, as far as it matters */
    int          started;
    int          x, y, down, changed;
} chr__wctablet;

static int chr__wctablet_open(chr_dev *dev, chr_error *err)
{
    static const char block[] = "\\96,N,8,1(\x01\x24WAC0045\\\\PEN\\WAC0000\\Tablet\r\nCT-0045R,V1.3-5\r\nE7)";
    chr__wctablet    *tablet = (chr__wctablet *)dev;

    (void)err;
    chr__answers_open(&tablet->answers);
    tablet->speed = CHR__WCTABLET_SPEED;
    chr__answer(&tablet->answers, block, sizeof block - 1);
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

/* -- the guest asks -- */

static int chr__wctablet_position(chr__wctablet *tablet)
{
    unsigned      x = (unsigned)tablet->x * 1537 / 10000, y = (unsigned)tablet->y * 1152 / 10000;
    unsigned char packet[7];

    packet[0] = (unsigned char)((tablet->down ? 0xa0 : 0xe0) | x >> 14);
    packet[1] = (unsigned char)(x >> 7 & 0x7f);
    packet[2] = (unsigned char)(x & 0x7f);
    packet[3] = (unsigned char)(y >> 14);
    packet[4] = (unsigned char)(y >> 7 & 0x7f);
    packet[5] = (unsigned char)(y & 0x7f);
    packet[6] = 0;
    return chr__answer(&tablet->answers, packet, sizeof packet);
}

static void chr__wctablet_self_test(chr__wctablet *tablet, unsigned n)
{
    unsigned char reply[7] = { 0xa3, 0x7e, 0, 0x03, 0x7f, 0x7f, 0 };

    reply[1] = (unsigned char)(reply[1] | n >> 7);
    reply[2] = (unsigned char)(((n >> 4 & 7) ^ 5) << 4 | ((n & 15) ^ 7));
    chr__answer(&tablet->answers, reply, sizeof reply);
}

static void chr__wctablet_size(chr__wctablet *tablet)
{
    char   reply[24];
    size_t len = (size_t)chr__format(reply, sizeof reply, "~C%05d,%05d\r", CHR__WCTABLET_WIDTH, CHR__WCTABLET_HEIGHT);

    chr__answer(&tablet->answers, reply, len);
}

static void chr__wctablet_line(chr__wctablet *tablet)
{
    const char *line = tablet->line;
    size_t      len = tablet->length;

    if (chr__text_is(line, len, "RE")) {
        chr__answer(&tablet->answers, "96,N,8,0", 8);
    } else if (chr__text_is(line, len, "~C")) {
        chr__wctablet_size(tablet);
    } else if (chr__text_is(line, len, "ST")) {
        tablet->started = 1;
        chr__wctablet_position(tablet);
    } else if (chr__text_is(line, len, "SP")) {
        tablet->started = 0;
    } else if (len == 3 && memcmp(line, "TS", 2) == 0) {
        chr__wctablet_self_test(tablet, (unsigned char)line[2]);
    }
}

static void chr__wctablet_byte(chr__wctablet *tablet, char c)
{
    if (c == '\r' || c == '\n') {
        chr__wctablet_line(tablet);
        tablet->length = 0;
    } else if (c != '@' || tablet->length > 0) {
        if (tablet->length < sizeof tablet->line)
            tablet->line[tablet->length++] = c;
        if (chr__text_is(tablet->line, tablet->length, "~#")) { /* no line: drivers send it as it is */
            chr__answer(&tablet->answers, "~#CT-0045R,V1.3-5,", 18);
            tablet->length = 0;
        }
    }
}

static int chr__wctablet_write(chr_dev *dev, const void *buf, size_t len)
{
    chr__wctablet *tablet = (chr__wctablet *)dev;
    size_t         i;

    for (i = 0; i < len && tablet->speed == CHR__WCTABLET_SPEED; i++)
        chr__wctablet_byte(tablet, ((const char *)buf)[i]);
    return (int)len;
}

static int chr__wctablet_ioctl(chr_dev *dev, int command, void *arg)
{
    chr__wctablet *tablet = (chr__wctablet *)dev;
    int            speed;

    if (command != CHR_IOCTL_SERIAL_SET_PARAMS)
        return CHR_ERR_NOT_SUPPORTED;
    speed = ((const chr_serial_params *)arg)->speed;
    if (speed == tablet->speed)
        return 0;
    tablet->speed = speed;
    tablet->length = 0;
    tablet->started = 0;
    chr__answers_forget(&tablet->answers);
    return 0;
}

/* -- the user's hand -- */

static int chr__wctablet_bounded(int value)
{
    return value < 0 ? 0 : value > CHR__WCTABLET_MAX ? CHR__WCTABLET_MAX : value;
}

static int chr__wctablet_abs(chr_dev *dev, int x, int y)
{
    chr__wctablet *tablet = (chr__wctablet *)dev;

    tablet->x = chr__wctablet_bounded(x);
    tablet->y = chr__wctablet_bounded(y);
    tablet->changed = 1;
    return 0;
}

/* A pen has a tip and nothing else. */
static int chr__wctablet_button(chr_dev *dev, int button, int down)
{
    chr__wctablet *tablet = (chr__wctablet *)dev;

    if (button != CHR_BUTTON_LEFT)
        return CHR_ERR_NOT_SUPPORTED;
    tablet->down = down != 0;
    tablet->changed = 1;
    return 0;
}

static int chr__wctablet_sync(chr_dev *dev)
{
    chr__wctablet *tablet = (chr__wctablet *)dev;
    int            code;

    if (!tablet->started)
        return CHR_ERR_DISCONNECTED;
    if (!tablet->changed)
        return 0;
    code = chr__wctablet_position(tablet);
    tablet->changed = code < 0;
    return code;
}

static const chr_input_slots chr__wctablet_input = {
    NULL,                 /* rel    */
    chr__wctablet_abs,    /* abs    */
    chr__wctablet_button, /* button */
    chr__wctablet_sync,   /* sync   */
};

static const chr_io chr__wctablet_io = {
    chr__wctablet_write, /* write   */
    NULL,                /* read    */
    chr__answers_update, /* update  */
    NULL,                /* wait_fd */
};

static const chr_backend chr__wctablet_kind = {
    "wctablet",                                         /* name         */
    NULL,                                               /* alias        */
    "a serial tablet with a pen, Wacom's PenPartner",   /* help         */
    NULL,                                               /* options      */
    sizeof(chr_common_options),                         /* options_size */
    sizeof(chr__wctablet),                              /* state_size   */
    NULL,                                               /* uri          */
    chr__wctablet_open,                                 /* open         */
    chr__answers_close,                                 /* close        */
    &chr__wctablet_io,                                  /* io           */
    NULL,                                               /* describe     */
    chr__wctablet_ioctl,                                /* ioctl        */
    NULL,                                               /* set_open     */
    NULL,                                               /* peer         */
    NULL,                                               /* sharing      */
    0,                                                  /* fixed        */
    &chr__wctablet_input,                               /* input        */
};
#endif

/* ====================================================================================================================
 * >>be_braille   a braille display at the end of a serial line: Baum Vario
 *
 * far side   a row of cells and its keys: the BrlAPI server's, or a display of your own (chr_braille_options)
 * options    host, key          events   OPENED from creation: the device stays, also while it has no display
 *
 * Two halves that know of each other only what chr_braille_display and chr_braille_key() say: the protocol engine, which needs no
 * system, and >>brlapi, which brings a display. While there has never been one, the device is silent, as if switched off.
 * ==================================================================================================================== */
#if CHARDEV_HAS_BRAILLE

enum { CHR__BRAILLE_MOST = 84, CHR__BAUM_ESC = 0x1b, CHR__BAUM_PATIENCE_MS = 100 };

enum chr__baum_code { /* of the guest's requests, and of what it is told */
    CHR__BAUM_DISPLAY = 0x01,
    CHR__BAUM_CELL_COUNT = 0x01,
    CHR__BAUM_VERSION = 0x05,
    CHR__BAUM_GET_KEYS = 0x08,
    CHR__BAUM_SET_MODE = 0x12,
    CHR__BAUM_SET_PROTOCOL = 0x15,
    CHR__BAUM_TOP_KEYS = 0x24,
    CHR__BAUM_ROUTING_KEY = 0x27,
    CHR__BAUM_ENTRY_KEYS = 0x33,
    CHR__BAUM_IDENTITY = 0x84,
    CHR__BAUM_SERIAL_NUMBER = 0x8a
};

typedef struct chr__braille {
    chr__answers               answers;
    const chr_braille_display *display;
    void                      *opaque;                  /* of the display */
    int                        escaped;                 /* the last byte was an ESC: what it means, the next one tells */
    int                        request;                 /* the packet under way, */
    int                        at, need;                /* the data bytes it has, and those that it still needs */
    unsigned char              data[CHR__BRAILLE_MOST];
    chr_timer                  patience;                /* runs while a row is not complete */
    unsigned char              cells[CHR__BRAILLE_MOST]; /* the last whole row, */
    int                        count, cursor;           /* its length, and which cell the cursor is on: from 1, 0 = none */
    chr_idle                   show;                    /* brings it to the display */
    int                        told;                    /* the number of cells that the guest knows of; 0 = none */
    int                        top_keys;                /* that are down */
    void                      *brlapi;                  /* chr__brlapi, or NULL */
} chr__braille;

static const chr_option chr__braille_rows[] = {
#if CHARDEV_HAS_BRLAPI
    { "host", CHR_OPTION_TEXT, CHR__AT(chr_braille_options, host), NULL,              0, 0, "BrlAPI server: [HOST][:NUMBER] (default: BRLAPI_HOST or :0)" },
    { "key",  CHR_OPTION_TEXT, CHR__AT(chr_braille_options, key),  "/etc/brlapi.key", 0, 0, "file that holds its key, where it wants one" },
#endif
    { NULL,   CHR_OPTION_TEXT, 0,                                  NULL,              0, 0, NULL }
};

/* -- NABCC, the North American Braille Computer Code -- */

/* The dots of the characters from 0x20 to 0x7e; bit n-1 is dot n. No two are the same. */
static const unsigned char chr__nabcc[95] = {
    0x00, 0x2e, 0x10, 0x3c, 0x2b, 0x29, 0x2f, 0x04, 0x37, 0x3e, 0x21, 0x2c, 0x20, 0x24, 0x28, 0x0c, /* from 0x20 */
    0x34, 0x02, 0x06, 0x12, 0x32, 0x22, 0x16, 0x36, 0x26, 0x14, 0x31, 0x30, 0x23, 0x3f, 0x1c, 0x39, /* from 0x30 */
    0x48, 0x41, 0x43, 0x49, 0x59, 0x51, 0x4b, 0x5b, 0x53, 0x4a, 0x5a, 0x45, 0x47, 0x4d, 0x5d, 0x55, /* from 0x40 */
    0x4f, 0x5f, 0x57, 0x4e, 0x5e, 0x65, 0x67, 0x7a, 0x6d, 0x7d, 0x75, 0x6a, 0x73, 0x7b, 0x58, 0x38, /* from 0x50 */
    0x08, 0x01, 0x03, 0x09, 0x19, 0x11, 0x0b, 0x1b, 0x13, 0x0a, 0x1a, 0x05, 0x07, 0x0d, 0x1d, 0x15, /* from 0x60 */
    0x0f, 0x1f, 0x17, 0x0e, 0x1e, 0x25, 0x27, 0x3a, 0x2d, 0x3d, 0x35, 0x2a, 0x33, 0x3b, 0x18        /* from 0x70 */
};

/* Dots that are no character's show as '?'. */
static char chr__nabcc_character(unsigned char dots)
{
    const void *found = memchr(chr__nabcc, dots, sizeof chr__nabcc);

    return found ? (char)(' ' + ((const unsigned char *)found - chr__nabcc)) : '?';
}

/* -1: no character of this code. */
CHR__PRIVATE int chr__nabcc_dots(unsigned long character)
{
    return character >= ' ' && character <= '~' ? chr__nabcc[character - ' '] : -1;
}

/* -- what the guest is told -- */

static int chr__braille_size(const chr__braille *braille)
{
    int size = braille->display->size(braille->opaque);

    return size < 0 ? 0 : size < CHR__BRAILLE_MOST ? size : (int)CHR__BRAILLE_MOST;
}

/* ESC, the code, and the data with each ESC doubled. */
static int chr__baum_tell(chr__braille *braille, enum chr__baum_code code, const void *data, size_t len)
{
    unsigned char packet[2 + 2 * 16];
    size_t        i, at = 0;

    packet[at++] = CHR__BAUM_ESC;
    packet[at++] = (unsigned char)code;
    for (i = 0; i < len; i++) {
        if (((const unsigned char *)data)[i] == CHR__BAUM_ESC)
            packet[at++] = CHR__BAUM_ESC;
        packet[at++] = ((const unsigned char *)data)[i];
    }
    return chr__answer(&braille->answers, packet, at);
}

static int chr__baum_tell_byte(chr__braille *braille, enum chr__baum_code code, int value)
{
    unsigned char byte = (unsigned char)value;

    return chr__baum_tell(braille, code, &byte, 1);
}

static void chr__baum_tell_cell_count(chr__braille *braille)
{
    int size = chr__braille_size(braille);

    if (size > 0 && chr__baum_tell_byte(braille, CHR__BAUM_CELL_COUNT, size) == 0)
        braille->told = size;
}

static void chr__baum_tell_identity(chr__braille *braille)
{
    char text[17];
    int  size = chr__braille_size(braille), len = chr__format(text, sizeof text, "Baum Vario %d", size);

    memset(text + len, ' ', (size_t)(16 - len));
    if (chr__baum_tell(braille, CHR__BAUM_IDENTITY, text, 16) == 0)
        braille->told = size;
}

/* -- what the guest asks for -- */

/* To the display: from the loop, and the newest row alone when several have come. */
static void chr__braille_show(void *opaque)
{
    chr__braille *braille = (chr__braille *)opaque;
    char          text[CHR__BRAILLE_MOST];
    int           i;

    for (i = 0; i < braille->count; i++)
        text[i] = chr__nabcc_character(braille->cells[i]);
    braille->display->write(braille->opaque, braille->cells, text, braille->count, braille->cursor);
}

/* The first cell with both of the lower dots is the cursor's; what it is on shows without them. */
static void chr__baum_row(chr__braille *braille)
{
    enum { CURSOR = 0xc0 };
    int i;

    chr_timer_stop(&braille->patience);
    memcpy(braille->cells, braille->data, (size_t)braille->at);
    braille->count = braille->at;
    for (i = 0; i < braille->count && (braille->cells[i] & CURSOR) != CURSOR; i++)
        ;
    braille->cursor = i < braille->count ? i + 1 : 0;
    if (braille->cursor)
        braille->cells[i] &= (unsigned char)~CURSOR;
    chr_idle_start(braille->answers.dev.ctx, &braille->show, chr__braille_show, braille);
}

static void chr__baum_complete(chr__braille *braille)
{
    switch (braille->request) {
    case CHR__BAUM_DISPLAY:       chr__baum_row(braille); break;
    case CHR__BAUM_VERSION:       (void)chr__baum_tell_byte(braille, CHR__BAUM_VERSION, 1); break;
    case CHR__BAUM_GET_KEYS:      (void)chr__baum_tell_byte(braille, CHR__BAUM_TOP_KEYS, braille->top_keys); break;
    case CHR__BAUM_IDENTITY:      chr__baum_tell_identity(braille); break;
    case CHR__BAUM_SERIAL_NUMBER: (void)chr__baum_tell(braille, CHR__BAUM_SERIAL_NUMBER, "00000000", 8); break;
    default:                      break; /* a mode, a protocol: there is but one; or a request of another device */
    }
}

/* A row that does not go on: the guest has another number of cells in mind. */
static void chr__baum_impatient(void *opaque)
{
    chr__baum_tell_cell_count((chr__braille *)opaque);
}

static void chr__baum_begin(chr__braille *braille, int request)
{
    int size = chr__braille_size(braille);

    if (braille->patience.ctx) { /* the last row was too short */
        chr_timer_stop(&braille->patience);
        chr__baum_tell_cell_count(braille);
    }
    braille->request = request;
    braille->at = 0;
    braille->need = request == CHR__BAUM_DISPLAY ? size : request == CHR__BAUM_SET_MODE ? 2 : request == CHR__BAUM_SET_PROTOCOL;
    if (size == 0)
        braille->need = 0;
    else if (request == CHR__BAUM_DISPLAY)
        chr_timer_start(braille->answers.dev.ctx, &braille->patience, CHR__BAUM_PATIENCE_MS, chr__baum_impatient, braille);
    else if (braille->need == 0)
        chr__baum_complete(braille);
}

/* Bytes that belong to no packet are dropped. */
static void chr__baum_data(chr__braille *braille, unsigned char byte)
{
    if (braille->need == 0)
        return;
    braille->data[braille->at++] = byte;
    if (--braille->need == 0)
        chr__baum_complete(braille);
}

static void chr__baum_byte(chr__braille *braille, unsigned char byte)
{
    int escaped = braille->escaped;

    braille->escaped = byte == CHR__BAUM_ESC && !escaped;
    if (braille->escaped)
        return;
    if (escaped && byte != CHR__BAUM_ESC)
        chr__baum_begin(braille, byte);
    else
        chr__baum_data(braille, byte);
}

static int chr__braille_write(chr_dev *dev, const void *buf, size_t len)
{
    size_t i;

    for (i = 0; i < len; i++)
        chr__baum_byte((chr__braille *)dev, ((const unsigned char *)buf)[i]);
    return (int)len;
}

/* -- what the display tells -- */

static int chr__braille_key(chr__braille *braille, chr_braille_keys group, int down)
{
    static const int most[] = { CHR_BRAILLE_TL1 | CHR_BRAILLE_TL2 | CHR_BRAILLE_TL3 | CHR_BRAILLE_TR1 | CHR_BRAILLE_TR2 | CHR_BRAILLE_TR3,
                                CHR__BRAILLE_MOST, 0xff };
    unsigned char    dots[2];

    if ((unsigned)group > CHR_BRAILLE_ENTRY_KEYS || down < 0 || down > most[group])
        return CHR_ERR_INVALID;
    switch (group) {
    case CHR_BRAILLE_TOP_KEYS:
        braille->top_keys = down;
        return chr__baum_tell_byte(braille, CHR__BAUM_TOP_KEYS, down);
    case CHR_BRAILLE_ROUTING_KEY:
        return chr__baum_tell_byte(braille, CHR__BAUM_ROUTING_KEY, down);
    case CHR_BRAILLE_ENTRY_KEYS:
    default:
        dots[0] = 0;
        dots[1] = (unsigned char)down;
        return chr__baum_tell(braille, CHR__BAUM_ENTRY_KEYS, dots, 2);
    }
}

static void chr__braille_resized(chr__braille *braille)
{
    if (braille->told > 0 && chr__braille_size(braille) != braille->told)
        chr__baum_tell_cell_count(braille);
}

/* -- >>brlapi   a client of BrlAPI, protocol 8: the display that brltty drives. It connects and comes back in the background. --
 *
 * A packet is its length and its type, 32 bits each, and data; all numbers are big-endian. What the server sends is not the guest's
 * input, so this is not a stream: it has its own watch and two fixed buffers. Rows don't queue: the newest goes when there is room. */
#if CHARDEV_HAS_BRLAPI

typedef enum chr__brlapi_state {
    CHR__BRLAPI_DISCONNECTED, /* until the timer's next attempt */
    CHR__BRLAPI_LOOKING_UP,
    CHR__BRLAPI_CONNECTING,
    CHR__BRLAPI_GREETED,      /* versions are exchanged, */
    CHR__BRLAPI_KNOCKING,     /* a key was shown, */
    CHR__BRLAPI_MEASURING,    /* the size asked for, */
    CHR__BRLAPI_ENTERING,     /* the display, */
    CHR__BRLAPI_ASKING,       /* and its keys */
    CHR__BRLAPI_READY
} chr__brlapi_state;

enum {
    CHR__BRLAPI_PORT = 4101,
    CHR__BRLAPI_VERSION = 8,
    CHR__BRLAPI_HEADER = 8,
    CHR__BRLAPI_LARGEST = 4096,     /* data in one packet */
    CHR__BRLAPI_RETRY_MS = 1000,    /* between two attempts, and between two questions for the size of a display that is not there */
    CHR__BRLAPI_PATIENCE_MS = 10000 /* for all from the lookup to the last acknowledgement */
};

typedef struct chr__brlapi {
    chr__braille     *braille;
    chr_context      *ctx;
    chr__brlapi_state state;
    int               fd;           /* -1 = none */
    chr_watch         watch;
    chr_timer         timer;        /* the next attempt, or the end of this one's patience, or the next question */
    chr__lookup      *lookup;
    chr__sockaddr     addresses[1 + CHR__MAX_ADDRESSES]; /* of the attempt under way */
    int               address_count, address_next;
    char              host[256];    /* "" = the local socket, or the loopback interface */
    int               number;       /* of the server */
    char              name[300];    /* for messages */
    char              methods[8];   /* to show oneself, offered and not yet tried; ends with 0 */
    int               cells;        /* of the last display that was there */
    int               has_row;      /* to be sent */
    int               has_failed;   /* reported, until the next success: 1, or 2 when it was that we are not let in */
    size_t            in_count, out_at, out_count;
    unsigned char     in[CHR__BRLAPI_HEADER + CHR__BRLAPI_LARGEST];
    unsigned char     out[1024];
    chr_error         failure;
} chr__brlapi;

/* -- numbers on the wire -- */

static unsigned long chr__brlapi_number(const unsigned char *bytes)
{
    return (unsigned long)chr__get_be(bytes, 4);
}

static unsigned char *chr__brlapi_put(unsigned char *out, unsigned long value)
{
    chr__put_be(out, value, 4);
    return out + 4;
}

static unsigned char *chr__brlapi_put_bytes(unsigned char *out, const void *bytes, size_t len)
{
    memcpy(out, bytes, len);
    return out + len;
}

/* -- a connection ends, or an attempt -- */

static void chr__brlapi_attempt(void *opaque);

static void chr__brlapi_drop(chr__brlapi *host)
{
    chr_watch_stop(&host->watch);
    chr_timer_stop(&host->timer);
    chr__os_lookup_release(host->lookup);
    host->lookup = NULL;
    chr__os_close(host->fd);
    host->fd = -1;
    host->in_count = host->out_at = host->out_count = 0;
    host->state = CHR__BRLAPI_DISCONNECTED;
}

/* Reported once, until the next success; not to be let in is news, though, after nobody was there. What the display showed last is
 * shown again when it is back. */
static void chr__brlapi_failed(chr__brlapi *host)
{
    int weight = host->failure.code == CHR_ERR_PERMISSION ? 2 : 1;

    chr__brlapi_drop(host);
    if (host->has_failed < weight) {
        chr__log_line(host->ctx, host->braille->answers.dev.id, host->failure.text);
        host->has_failed = weight;
    }
    host->has_row = host->braille->count > 0;
    chr_timer_start(host->ctx, &host->timer, CHR__BRLAPI_RETRY_MS, chr__brlapi_attempt, host);
}

static void chr__brlapi_impatient(void *opaque)
{
    chr__brlapi *host = (chr__brlapi *)opaque;

    chr__fail(&host->failure, CHR_ERR_TIMEOUT, "%s does not answer", host->name);
    chr__brlapi_failed(host);
}

/* -- sending: one packet at a time, each smaller than the buffer -- */

/* While one is on its way, nothing is read, so that nothing can ask for another. */
static void chr__brlapi_watch(chr__brlapi *host)
{
    chr_watch_set(&host->watch, (host->out_count > 0 ? CHR_OUT : CHR_IN) | CHR_HUP);
}

/* Where the data of a packet goes. */
static unsigned char *chr__brlapi_room(chr__brlapi *host)
{
    return host->out + CHR__BRLAPI_HEADER;
}

static void chr__brlapi_packet(chr__brlapi *host, int type, const unsigned char *end)
{
    unsigned char *data = chr__brlapi_room(host);
    size_t         len = (size_t)(end - data);

    (void)chr__brlapi_put(chr__brlapi_put(data - CHR__BRLAPI_HEADER, (unsigned long)len), (unsigned long)type);
    host->out_at = 0;
    host->out_count = CHR__BRLAPI_HEADER + len;
}

/* A row: the text for displays that translate by themselves, and the dots in place of whatever it would give. */
static void chr__brlapi_row(chr__brlapi *host)
{
    enum { REGION = 0x02, TEXT = 0x04, AND = 0x08, OR = 0x10, CURSOR = 0x20, CHARSET = 0x40 };
    const chr__braille *braille = host->braille;
    size_t              i, count = chr__min((size_t)braille->count, (size_t)host->cells);
    unsigned char      *out = chr__brlapi_put(chr__brlapi_room(host), REGION | TEXT | AND | OR | CURSOR | CHARSET);

    out = chr__brlapi_put(chr__brlapi_put(out, 1), (unsigned long)count);
    out = chr__brlapi_put(out, (unsigned long)count);
    for (i = 0; i < count; i++)
        *out++ = (unsigned char)chr__nabcc_character(braille->cells[i]);
    memset(out, 0, count);
    out = chr__brlapi_put_bytes(out + count, braille->cells, count);
    out = chr__brlapi_put(out, (size_t)braille->cursor <= count ? (unsigned long)braille->cursor : 0);
    *out++ = 10;
    out = chr__brlapi_put_bytes(out, "ISO-8859-1", 10);
    host->has_row = 0;
    chr__brlapi_packet(host, 'w', out);
}

static int chr__brlapi_send(chr__brlapi *host)
{
    int n = 0;

    while (host->out_count > 0 && n >= 0) {
        n = chr__os_send(host->fd, host->out + host->out_at, host->out_count);
        host->out_at += n > 0 ? (size_t)n : 0;
        host->out_count -= n > 0 ? (size_t)n : 0;
    }
    return n == CHR_ERR_WOULD_BLOCK ? 0 : n;
}

/* Everything that can go now. */
static void chr__brlapi_flush(chr__brlapi *host)
{
    int code = chr__brlapi_send(host);

    if (code >= 0 && host->state == CHR__BRLAPI_READY && host->has_row && host->out_count == 0) {
        chr__brlapi_row(host);
        code = chr__brlapi_send(host);
    }
    if (code >= 0) {
        chr__brlapi_watch(host);
        return;
    }
    chr__fail(&host->failure, code, "the connection to %s is lost: %s", host->name, chr_error_text(code));
    chr__brlapi_failed(host);
}

static void chr__brlapi_ask(chr__brlapi *host, chr__brlapi_state state, int type, const unsigned char *end)
{
    host->state = state;
    chr__brlapi_packet(host, type, end);
    chr__brlapi_flush(host);
}

/* -- the handshake -- */

/* The whole key file, behind the method. NULL: it can't be read, or is none. */
static unsigned char *chr__brlapi_put_key(chr__brlapi *host, unsigned char *out)
{
    enum { LARGEST_KEY = 512 };
    const chr_braille_options *options = (const chr_braille_options *)host->braille->answers.dev.options;
    int                        n, fd = chr__os_open(options->key, CHR__OPEN_READ, NULL);

    if (fd < 0)
        return NULL;
    n = chr__os_read(fd, out, LARGEST_KEY);
    chr__os_close(fd);
    return n > 0 ? out + n : NULL;
}

static void chr__brlapi_measure(void *opaque)
{
    chr__brlapi *host = (chr__brlapi *)opaque;

    chr_timer_start(host->ctx, &host->timer, CHR__BRLAPI_PATIENCE_MS, chr__brlapi_impatient, host);
    chr__brlapi_ask(host, CHR__BRLAPI_MEASURING, 's', chr__brlapi_room(host));
}

/* The next method of those that are left: none needed, our key, or who we are as the system tells it. */
static void chr__brlapi_authorize(chr__brlapi *host)
{
    int            method;
    unsigned char *out;

    while ((method = host->methods[0]) != 0) {
        memmove(host->methods, host->methods + 1, sizeof host->methods - 1);
        out = chr__brlapi_put(chr__brlapi_room(host), (unsigned long)method);
        if (method == 'K')
            out = chr__brlapi_put_key(host, out);
        if (method == 'N')
            chr__brlapi_measure(host);
        else if ((method == 'K' || method == 'C') && out)
            chr__brlapi_ask(host, CHR__BRLAPI_KNOCKING, 'a', out);
        else
            continue;
        return;
    }
    chr__fail(&host->failure, CHR_ERR_PERMISSION, "%s does not let us in: does key= name its key file?", host->name);
    chr__brlapi_failed(host);
}

static void chr__brlapi_greet(chr__brlapi *host, const unsigned char *data, size_t len)
{
    unsigned long version = len >= 4 ? chr__brlapi_number(data) : 0;

    if (version == CHR__BRLAPI_VERSION) {
        chr__brlapi_ask(host, CHR__BRLAPI_GREETED, 'v', chr__brlapi_put(chr__brlapi_room(host), CHR__BRLAPI_VERSION));
        return;
    }
    chr__fail(&host->failure, CHR_ERR_NOT_SUPPORTED, "%s speaks version %lld, not %d", host->name, (long long)version,
              (int)CHR__BRLAPI_VERSION);
    chr__brlapi_failed(host);
}

static void chr__brlapi_methods(chr__brlapi *host, const unsigned char *data, size_t len)
{
    size_t        i, count = 0;
    unsigned long method;

    memset(host->methods, 0, sizeof host->methods);
    for (i = 0; i + 4 <= len && count + 1 < sizeof host->methods; i += 4) {
        method = chr__brlapi_number(data + i);
        if (method > 0 && method < 0x80)
            host->methods[count++] = (char)method;
    }
    chr__brlapi_authorize(host);
}

/* At the root of the terminals, where it shows as long as nobody has a better claim. Not by a driver's name: commands, no codes. */
static void chr__brlapi_enter(chr__brlapi *host)
{
    unsigned char *out = chr__brlapi_put(chr__brlapi_room(host), 0);

    *out++ = 0;
    chr__brlapi_ask(host, CHR__BRLAPI_ENTERING, 't', out);
}

/* Of its first row; 0 = there is no display. */
static int chr__brlapi_width(const unsigned char *data, size_t len)
{
    unsigned long width = len >= 8 && chr__brlapi_number(data + 4) > 0 ? chr__brlapi_number(data) : 0;

    return width < CHR__BRAILLE_MOST ? (int)width : (int)CHR__BRAILLE_MOST;
}

static void chr__brlapi_measured(chr__brlapi *host, const unsigned char *data, size_t len)
{
    int cells = chr__brlapi_width(data, len);

    if (cells == 0) { /* the server is there before its display */
        chr_timer_start(host->ctx, &host->timer, CHR__BRLAPI_RETRY_MS, chr__brlapi_measure, host);
        return;
    }
    host->cells = cells;
    chr__brlapi_enter(host);
}

static void chr__brlapi_want_keys(chr__brlapi *host)
{
    unsigned char *out = chr__brlapi_room(host);

    out = chr__brlapi_put(chr__brlapi_put(out, 0), 0);
    out = chr__brlapi_put(chr__brlapi_put(out, 0xffffffff), 0xffffffff);
    chr__brlapi_ask(host, CHR__BRLAPI_ASKING, 'u', out);
}

/* From now on the server tells when its display changes in size. */
static void chr__brlapi_ready(chr__brlapi *host)
{
    enum { GLOBAL_FROM_NOW_ON = 0x201, DISPLAY_SIZE = 6 };
    unsigned char *out = chr__brlapi_room(host);

    chr_timer_stop(&host->timer);
    host->has_failed = 0;
    chr__braille_resized(host->braille);
    out = chr__brlapi_put(chr__brlapi_put(out, GLOBAL_FROM_NOW_ON), DISPLAY_SIZE);
    out = chr__brlapi_put(chr__brlapi_put(out, 0), 0);
    chr__brlapi_ask(host, CHR__BRLAPI_READY, ('P' << 8) + 'R', out);
}

static void chr__brlapi_acknowledged(chr__brlapi *host)
{
    switch (host->state) {
    case CHR__BRLAPI_KNOCKING: chr__brlapi_measure(host); break;
    case CHR__BRLAPI_ENTERING: chr__brlapi_want_keys(host); break;
    case CHR__BRLAPI_ASKING:   chr__brlapi_ready(host); break;
    default:                   break;
    }
}

/* -- receiving -- */

/* What a command is on the keys of a Vario, from 0 on; 0 = nothing. */
static int chr__brlapi_command_keys(unsigned long command)
{
    enum { L1 = CHR_BRAILLE_TL1, L2 = CHR_BRAILLE_TL2, L3 = CHR_BRAILLE_TL3, R1 = CHR_BRAILLE_TR1, R2 = CHR_BRAILLE_TR2, R3 = CHR_BRAILLE_TR3 };
    static const unsigned char keys[] = {
        0,                 R1,                R3,                /* nothing; line up, line down */
        0,                 0,                 R2 | R1,           /* window up, window down; previous line that differs, */
        R2 | R3,           L2 | L1,           L2 | L3,           /* next one; attributes up, attributes down */
        L1 | R1,           L3 | R3,           L2 | R1,           /* top; bottom; top left */
        L2 | R3,           L2 | R2 | R1,      L2 | R2 | R3,      /* bottom left; previous paragraph, next paragraph */
        L1 | L2 | R1 | R2, L3 | L2 | R3 | R2, L1 | L2 | R1 | R3, /* previous prompt, next prompt; search back, */
        L3 | L2 | R1 | R3, L1 | L3,           R1 | R3,           /* search on; character left, character right */
        0,                 0,                 L2,                /* half a window left, right; window left, */
        R2,                0,                 0,                 /* window right; the same, skipping blank ones */
        L1 | L2 | L3,      R1 | R2 | R3,      L2 | R1 | R3,      /* line's begin, line's end; home */
        L1 | R3                                                  /* back */
    };

    enum { PREFERENCES = 0x34 };

    return command < sizeof keys ? keys[command] : command == PREFERENCES ? L1 | L3 | R1 : 0;
}

/* Down and up again; both or neither, or a key would stay down for the guest. */
static void chr__brlapi_stroke(chr__braille *braille, chr_braille_keys group, int down)
{
    const chr__ring *queue = &braille->answers.queue;

    if (queue->size - queue->count < 16) {
        braille->answers.dev.bytes_dropped += 2 * 3;
        return;
    }
    (void)chr__braille_key(braille, group, down);
    (void)chr__braille_key(braille, group, 0);
}

/* A routing key, a command, or what is typed: as dots or as a character. Its flags, in the upper half, are not ours to tell. */
static void chr__brlapi_key(chr__brlapi *host, unsigned long code)
{
    enum { COMMAND = 1, ROUTE = 1, DOTS = 0x22 };
    unsigned long type = code >> 29, block = code >> 16 & 0x1fff, argument = code & 0xffff;
    int           down = 0;

    if (type == COMMAND && block == ROUTE && argument < CHR__BRAILLE_MOST)
        chr__brlapi_stroke(host->braille, CHR_BRAILLE_ROUTING_KEY, (int)argument + 1);
    else if (type == COMMAND && block == 0 && (down = chr__brlapi_command_keys(argument)) > 0)
        chr__brlapi_stroke(host->braille, CHR_BRAILLE_TOP_KEYS, down);
    else if (type == COMMAND && block == DOTS && (down = (int)(argument & 0xff)) > 0)
        chr__brlapi_stroke(host->braille, CHR_BRAILLE_ENTRY_KEYS, down);
    else if (type == 0 && (down = chr__nabcc_dots(code & 0x1fffffff)) > 0)
        chr__brlapi_stroke(host->braille, CHR_BRAILLE_ENTRY_KEYS, down);
}

/* A display that is gone keeps its size, as the guest knows it. */
static void chr__brlapi_resized(chr__brlapi *host, const unsigned char *data, size_t len)
{
    int cells = chr__brlapi_width(data, len);

    if (cells > 0)
        host->cells = cells;
    chr__braille_resized(host->braille);
}

/* An answer that is an error, or an exception. Past the handshake it harms nothing: a row that came while the size changed. */
static void chr__brlapi_refused(chr__brlapi *host, const unsigned char *data, size_t len)
{
    if (host->state == CHR__BRLAPI_READY)
        return;
    if (host->state == CHR__BRLAPI_KNOCKING) {
        chr__brlapi_authorize(host);
        return;
    }
    chr__fail(&host->failure, CHR_ERR_IO, "%s refuses: its error %lld", host->name,
              len >= 4 ? (long long)chr__brlapi_number(data) : -1ll);
    chr__brlapi_failed(host);
}

/* One whole packet. What we did not ask for is nothing to us. */
static void chr__brlapi_got(chr__brlapi *host, unsigned long type, const unsigned char *data, size_t len)
{
    enum { UPDATE = ('P' << 8) + 'U' };

    if (type == 'e' || type == 'E')
        chr__brlapi_refused(host, data, len);
    else if (type == 'A')
        chr__brlapi_acknowledged(host);
    else if (type == 'v' && host->state == CHR__BRLAPI_GREETED)
        chr__brlapi_greet(host, data, len);
    else if (type == 'a' && host->state == CHR__BRLAPI_GREETED)
        chr__brlapi_methods(host, data, len);
    else if (type == 's' && host->state == CHR__BRLAPI_MEASURING)
        chr__brlapi_measured(host, data, len);
    else if (type == 'k' && host->state == CHR__BRLAPI_READY && len >= 8)
        chr__brlapi_key(host, chr__brlapi_number(data + 4));
    else if (type == UPDATE && host->state == CHR__BRLAPI_READY) /* its value is in the server's own byte order: ask */
        chr__brlapi_ask(host, CHR__BRLAPI_READY, 's', chr__brlapi_room(host));
    else if (type == 's' && host->state == CHR__BRLAPI_READY)
        chr__brlapi_resized(host, data, len);
}

/* Up to the end of the packet that is under way. 1 = it is complete, 0 = not yet, or an error. */
static int chr__brlapi_read(chr__brlapi *host)
{
    size_t want = CHR__BRLAPI_HEADER;
    int    n;

    for (;;) {
        if (host->in_count >= CHR__BRLAPI_HEADER)
            want = CHR__BRLAPI_HEADER + chr__brlapi_number(host->in);
        if (want > sizeof host->in)
            return chr__fail(&host->failure, CHR_ERR_INVALID, "%s speaks something else", host->name);
        if (host->in_count >= CHR__BRLAPI_HEADER && host->in_count == want)
            return 1;
        n = chr__os_receive_bytes(host->fd, host->in + host->in_count, want - host->in_count);
        if (n == CHR_ERR_WOULD_BLOCK)
            return 0;
        if (n <= 0)
            return chr__fail(&host->failure, CHR_ERR_DISCONNECTED, "%s has hung up", host->name);
        host->in_count += (size_t)n;
    }
}

/* One packet a turn: poll() tells again when there are more. */
static void chr__brlapi_input(chr__brlapi *host)
{
    int    code = chr__brlapi_read(host);
    size_t len = host->in_count;

    if (code < 0) {
        chr__brlapi_failed(host);
    } else if (code > 0) {
        host->in_count = 0;
        chr__brlapi_got(host, chr__brlapi_number(host->in + 4), host->in + CHR__BRLAPI_HEADER, len - CHR__BRLAPI_HEADER);
    }
}

static void chr__brlapi_io_ready(void *opaque, int events)
{
    chr__brlapi *host = (chr__brlapi *)opaque;

    if (host->out_count > 0)
        chr__brlapi_flush(host);
    if (host->fd < 0)
        return;
    if (host->out_count == 0 && events & (CHR_IN | CHR_HUP)) {
        chr__brlapi_input(host);
    } else if (events & CHR_HUP) { /* and it takes nothing more either */
        chr__fail(&host->failure, CHR_ERR_DISCONNECTED, "%s has hung up", host->name);
        chr__brlapi_failed(host);
    }
}

/* -- a connection begins -- */

static int chr__brlapi_start_watch(chr__brlapi *host, int fd, int events, void (*ready)(void *, int))
{
    if (chr_watch_start(host->ctx, &host->watch, fd, events, ready, host) == 0)
        return 0;
    chr__no_memory(&host->failure);
    chr__brlapi_failed(host);
    return CHR_ERR_NO_MEMORY;
}

static void chr__brlapi_connected(chr__brlapi *host)
{
    chr__os_nodelay(host->fd);
    host->state = CHR__BRLAPI_GREETED; /* the server begins */
    (void)chr__brlapi_start_watch(host, host->fd, CHR_IN | CHR_HUP, chr__brlapi_io_ready);
}

static void chr__brlapi_try(chr__brlapi *host);

static void chr__brlapi_connect_ready(void *opaque, int events)
{
    chr__brlapi *host = (chr__brlapi *)opaque;

    (void)events;
    if (chr__os_connect_result(host->fd, host->name, &host->failure) == 0) {
        chr__brlapi_connected(host);
        return;
    }
    chr_watch_stop(&host->watch);
    chr__os_close(host->fd);
    host->fd = -1;
    chr__brlapi_try(host);
}

/* The next address of the attempt. */
static void chr__brlapi_try(chr__brlapi *host)
{
    int in_progress;

    while (host->address_next < host->address_count) {
        host->fd = chr__os_connect(&host->addresses[host->address_next++], host->name, &in_progress, &host->failure);
        if (host->fd < 0)
            continue;
        host->state = CHR__BRLAPI_CONNECTING;
        if (in_progress)
            (void)chr__brlapi_start_watch(host, host->fd, CHR_OUT, chr__brlapi_connect_ready);
        else
            chr__brlapi_connected(host);
        return;
    }
    host->fd = -1;
    chr__brlapi_failed(host);
}

static void chr__brlapi_looked_up(chr__brlapi *host, int count)
{
    host->address_count = count;
    if (count > 0)
        chr__brlapi_try(host);
    else
        chr__brlapi_failed(host);
}

static void chr__brlapi_lookup_ready(void *opaque, int events)
{
    chr__brlapi *host = (chr__brlapi *)opaque;
    int          count = chr__os_lookup_result(host->lookup, host->addresses, &host->failure);

    (void)events;
    chr_watch_stop(&host->watch);
    chr__os_lookup_release(host->lookup);
    host->lookup = NULL;
    chr__brlapi_looked_up(host, count);
}

/* A name is looked up in the background where that is possible. */
static void chr__brlapi_look_up(chr__brlapi *host, const char *port)
{
    int count = chr__os_lookup(host->host, port, 0, 0, 1, host->addresses, &host->failure);

    if (count == CHR_ERR_WOULD_BLOCK && (host->lookup = chr__os_lookup_start(host->host, port, 0)) != NULL) {
        host->state = CHR__BRLAPI_LOOKING_UP;
        (void)chr__brlapi_start_watch(host, chr__os_lookup_fd(host->lookup), CHR_IN, chr__brlapi_lookup_ready);
        return;
    }
    if (count == CHR_ERR_WOULD_BLOCK)
        count = chr__os_lookup(host->host, port, 0, 0, 0, host->addresses, &host->failure);
    chr__brlapi_looked_up(host, count);
}

/* Without a host: the server's local socket, then its port on the loopback interface. */
static void chr__brlapi_attempt(void *opaque)
{
    chr__brlapi *host = (chr__brlapi *)opaque;
    char         port[16], path[64];
    int          count;

    host->address_next = 0;
    chr_timer_start(host->ctx, &host->timer, CHR__BRLAPI_PATIENCE_MS, chr__brlapi_impatient, host);
    chr__format(port, sizeof port, "%d", CHR__BRLAPI_PORT + host->number);
    if (host->host[0]) {
        chr__brlapi_look_up(host, port);
        return;
    }
    chr__format(path, sizeof path, "/var/lib/BrlAPI/%d", host->number);
    (void)chr__os_sockaddr_unix(path, 0, 1, &host->addresses[0], NULL);
    count = chr__os_lookup(NULL, port, 0, 0, 1, host->addresses + 1, &host->failure);
    chr__brlapi_looked_up(host, count > 0 ? 1 + count : 1);
}

/* -- the display that it is -- */

static int chr__brlapi_size(void *opaque)
{
    return ((const chr__brlapi *)opaque)->cells;
}

/* While nobody is there, only the newest row is remembered. */
static void chr__brlapi_write(void *opaque, const unsigned char *cells, const char *text, int count, int cursor)
{
    chr__brlapi *host = (chr__brlapi *)opaque;

    (void)cells, (void)text, (void)count, (void)cursor; /* they are the engine's, which has them still when there is room */
    host->has_row = 1;
    if (host->state == CHR__BRLAPI_READY)
        chr__brlapi_flush(host);
}

static const chr_braille_display chr__brlapi_display = {
    chr__brlapi_size,  /* size  */
    chr__brlapi_write, /* write */
};

/* "[HOST][:NUMBER]"; an IPv6 number stands in brackets. */
static int chr__brlapi_parse(chr__brlapi *host, const char *text)
{
    const char *colon = strrchr(text, ':');
    size_t      len;
    int64_t     number = 0;

    if (colon && colon[1] && (!chr__read_number(colon + 1, &number) || number < 0 || number > 65535 - CHR__BRLAPI_PORT)) {
        if (!strchr(colon, ']'))
            return CHR_ERR_INVALID;
        colon = NULL; /* inside the brackets */
        number = 0;
    }
    len = colon ? (size_t)(colon - text) : strlen(text);
    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        text++;
        len -= 2;
    }
    if (len >= sizeof host->host)
        return CHR_ERR_INVALID;
    memcpy(host->host, text, len);
    host->number = (int)number;
    return 0;
}

static int chr__brlapi_open(chr__braille *braille, chr_error *err)
{
    const char  *text = ((const chr_braille_options *)braille->answers.dev.options)->host;
    chr__brlapi *host = (chr__brlapi *)chr__allocate(braille->answers.dev.ctx, sizeof *host);

    if (!host)
        return chr__no_memory(err);
    host->braille = braille;
    host->ctx = braille->answers.dev.ctx;
    host->fd = -1;
    braille->brlapi = braille->opaque = host;
    braille->display = &chr__brlapi_display;
    if (!text || !text[0])
        text = chr__os_environment("BRLAPI_HOST");
    if (!text || !text[0])
        text = ":0";
    if (chr__brlapi_parse(host, text) < 0)
        return chr__fail(err, CHR_ERR_INVALID, "braille: host=%s: expects [HOST][:NUMBER]", text);
    chr__format(host->name, sizeof host->name, "the BrlAPI server at %s", text);
    chr__brlapi_attempt(host);
    return 0;
}

static void chr__brlapi_close(chr__braille *braille)
{
    chr__brlapi *host = (chr__brlapi *)braille->brlapi;

    if (!host)
        return;
    chr__brlapi_drop(host);
    chr__free(host->ctx, host);
    braille->brlapi = NULL;
}
#else
static int chr__brlapi_open(chr__braille *braille, chr_error *err)
{
    (void)braille;
    return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "braille: needs a display of your own: this build has no BrlAPI client");
}

static void chr__brlapi_close(chr__braille *braille) { (void)braille; }
#endif

/* -- open and close -- */

static int chr__braille_open(chr_dev *dev, chr_error *err)
{
    const chr_braille_options *options = (const chr_braille_options *)dev->options;
    chr__braille              *braille = (chr__braille *)dev;
    int                        code = 0;

    chr__answers_open(&braille->answers);
    braille->display = options->display;
    braille->opaque = options->opaque;
    if (!braille->display)
        code = chr__brlapi_open(braille, err);
    if (code < 0)
        return code;
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

static void chr__braille_close(chr_dev *dev)
{
    chr__braille *braille = (chr__braille *)dev;

    chr_timer_stop(&braille->patience);
    chr_idle_stop(&braille->show);
    chr__brlapi_close(braille);
    chr__answers_close(dev);
}

static const chr_io chr__braille_io = {
    chr__braille_write,  /* write   */
    NULL,                /* read    */
    chr__answers_update, /* update  */
    NULL,                /* wait_fd */
};

static const chr_backend chr__braille_kind = {
    "braille",                                  /* name         */
    NULL,                                       /* alias        */
    "a braille display on a serial line",       /* help         */
    chr__braille_rows,                          /* options      */
    sizeof(chr_braille_options),                /* options_size */
    sizeof(chr__braille),                       /* state_size   */
    NULL,                                       /* uri          */
    chr__braille_open,                          /* open         */
    chr__braille_close,                         /* close        */
    &chr__braille_io,                           /* io           */
    NULL,                                       /* describe     */
    NULL,                                       /* ioctl        */
    NULL,                                       /* set_open     */
    NULL,                                       /* peer         */
    NULL,                                       /* sharing      */
    0,                                          /* fixed        */
    NULL,                                       /* input        */
};
#endif

/* ====================================================================================================================
 * >>be_mux   several frontends share one chardev; input goes to the one in focus
 *
 * far side   another chardev          options   chardev, escape; made by mux=on on any chardev
 * events     those of the other chardev to all frontends, its own to the one in focus; MUX_OUT, MUX_IN when the focus moves
 * escape     Ctrl-A, then h ? help, x exit, s snapshot, t stamps, b BREAK, c next frontend, Ctrl-A itself
 * ==================================================================================================================== */
#if CHARDEV_HAS_MUX

enum { CHR__MUX_HELD = CHR__BUFFER_SIZE / 16, CHR__MUX_BACKLOG = CHR__BUFFER_SIZE };

/* One frontend: what it has not had room for waits here, in order, also while another has the focus. */
typedef struct chr__mux_slot {
    struct chr__mux_slot *next;
    chr_frontend         *fe;
    size_t                count;
    unsigned char         held[CHR__MUX_HELD];
} chr__mux_slot;

/* A walk over the slots, while handlers may take any of them away. */
typedef struct chr__mux_walk {
    chr__mux_slot        *next;
    struct chr__mux_walk *outer;
} chr__mux_walk;

typedef struct chr__mux {
    chr_dev        dev;
    chr_frontend   base;       /* our end of the chardev that is shared */
    chr__mux_slot *slots, *focus;
    chr__mux_walk *walks;
    int            escape, escaped;
    unsigned char *backlog;    /* input that nobody's hold has room for; pushes back the far side */
    size_t         backlog_start, backlog_end;
    int            forget_at_end; /* of the backlog: an escape that stands there is without its command */
    chr_idle       deliver;
    int            is_waiting, can_deliver; /* what the last look at the slots found: held input, and room for it */
    int            stamps, in_line;
    char           stamp[24];  /* what is still to be written before the next bytes of a line */
    size_t         stamp_length, stamp_done;
} chr__mux;

static const chr_option chr__mux_rows[] = {
    { "chardev", CHR_OPTION_TEXT,   CHR__AT(chr_mux_options, chardev), CHR_REQUIRED, 0, 0,   "id of the chardev to share" },
    { "escape",  CHR_OPTION_NUMBER, CHR__AT(chr_mux_options, escape),  NULL,         0, 255, "escape character (default: 1, Ctrl-A)" },
    { NULL,      CHR_OPTION_TEXT,   0,                                 NULL,         0, 0,   NULL }
};

/* -- events -- */

static void chr__mux_each(chr__mux *mux, void (*visit)(chr__mux *, chr__mux_slot *, int), int arg)
{
    chr__mux_walk  walk;
    chr__mux_slot *slot;

    walk.outer = mux->walks;
    mux->walks = &walk;
    for (slot = mux->slots; slot; slot = walk.next) {
        walk.next = slot->next;
        visit(mux, slot, arg);
    }
    mux->walks = walk.outer;
}

static void chr__mux_tell(chr__mux *mux, chr__mux_slot *slot, int event)
{
    if ((event != CHR_EVENT_OPENED && event != CHR_EVENT_INPUT_END) || !mux->dev.ctx->open_suspended)
        chr_be_tell_event(slot->fe, event);
}

/* What is the same for all frontends: the state of the far side. */
static int chr__mux_is_state(int event)
{
    return event == CHR_EVENT_OPENED || event == CHR_EVENT_CLOSED || event == CHR_EVENT_INPUT_END;
}

/* An event on the mux itself goes to the focus, unless it is about that state. */
static void chr__mux_event(chr_dev *dev, int event)
{
    chr__mux *mux = (chr__mux *)dev;

    if (chr__mux_is_state(event))
        chr__mux_each(mux, chr__mux_tell, event);
    else if (mux->focus)
        chr_be_tell_event(mux->focus->fe, event);
}

/* Its peer has gone: the next one's first character is no command. What came before and waits in the backlog is
 * still its own. */
static void chr__mux_forget_escape(chr__mux *mux)
{
    if (mux->backlog_start < mux->backlog_end)
        mux->forget_at_end = 1;
    else
        mux->escaped = 0;
}

static void chr__mux_base_event(void *opaque, int event)
{
    chr__mux *mux = (chr__mux *)opaque;

    if (event == CHR_EVENT_CLOSED || event == CHR_EVENT_INPUT_END)
        chr__mux_forget_escape(mux);
    if (chr__mux_is_state(event))
        chr_be_event(&mux->dev, event);
    else
        chr__mux_each(mux, chr__mux_tell, event);
}

static chr__mux_slot *chr__mux_find(const chr__mux *mux, const chr_frontend *fe)
{
    chr__mux_slot *slot;

    for (slot = mux->slots; slot && slot->fe != fe; slot = slot->next)
        ;
    return slot;
}

static void chr__mux_set_focus(chr__mux *mux, chr__mux_slot *slot)
{
    chr__mux_slot *old = mux->focus;
    unsigned       untold = mux->dev.pending & (1u << CHR_EVENT_MUX_IN); /* the old one has inherited it, and not heard of it yet */

    if (slot == old)
        return;
    mux->focus = slot;
    mux->dev.pending &= ~untold;
    if (old && !untold)
        chr_be_tell_event(old->fe, CHR_EVENT_MUX_OUT);
    if (mux->focus == slot && slot) /* the handler may have changed it, or taken the slot away */
        chr_be_tell_event(slot->fe, CHR_EVENT_MUX_IN);
    chr_fe_accept_input(&mux->base);
}

/* The next frontend that listens, round and round. */
static void chr__mux_next_focus(chr__mux *mux)
{
    chr__mux_slot *slot = mux->focus;

    if (!slot)
        return;
    do
        slot = slot->next ? slot->next : mux->slots;
    while (slot != mux->focus && !slot->fe->handlers.read && !slot->fe->handlers.event);
    chr__mux_set_focus(mux, slot);
}

static void chr__mux_focus(chr_dev *dev, chr_frontend *fe)
{
    chr__mux_set_focus((chr__mux *)dev, chr__mux_find((chr__mux *)dev, fe));
}

/* -- output -- */

/* A stamp that was begun is finished before anything else. */
static int chr__mux_flush_stamp(chr__mux *mux)
{
    int n;

    while (mux->stamp_done < mux->stamp_length) {
        n = chr_fe_write(&mux->base, mux->stamp + mux->stamp_done, mux->stamp_length - mux->stamp_done);
        if (n <= 0)
            return n < 0 ? n : CHR_ERR_WOULD_BLOCK;
        mux->stamp_done += (size_t)n;
    }
    return 0;
}

static void chr__mux_begin_line(chr__mux *mux)
{
    chr_context *ctx = mux->dev.ctx;
    int64_t      ms = chr__floor_divide(chr__wall_now(ctx), 1000000);

    ms -= chr__floor_divide(ms, 86400000) * 86400000;
    mux->stamp_length = (size_t)chr__format(mux->stamp, sizeof mux->stamp, "[%02d:%02d:%02d.%03d] ", (int)(ms / 3600000),
                                            (int)(ms / 60000 % 60), (int)(ms / 1000 % 60), (int)(ms % 1000));
    mux->stamp_done = 0;
    mux->in_line = 1;
}

static int chr__mux_write_line(chr__mux *mux, const char *text, size_t len)
{
    const char *newline = (const char *)memchr(text, '\n', len);
    size_t      line = newline ? (size_t)(newline - text) + 1 : len;
    int         n = chr__mux_flush_stamp(mux);

    if (n == 0 && mux->stamps && !mux->in_line) {
        chr__mux_begin_line(mux);
        n = chr__mux_flush_stamp(mux);
    }
    if (n == 0)
        n = chr_fe_write(&mux->base, text, line);
    if (n > 0 && text[n - 1] == '\n')
        mux->in_line = 0;
    return n;
}

CHR__HOT static int chr__mux_write(chr_dev *dev, const void *buf, size_t len)
{
    chr__mux *mux = (chr__mux *)dev;
    size_t    done = 0;
    int       n = 1;

    if (!mux->stamps && mux->stamp_done == mux->stamp_length)
        return chr_fe_write(&mux->base, buf, len);
    while (done < len && n > 0) {
        n = chr__mux_write_line(mux, (const char *)buf + done, len - done);
        done += n > 0 ? (size_t)n : 0;
    }
    return done > 0 ? (int)done : n;
}

static void chr__mux_say(chr__mux *mux, const char *text)
{
    chr_fe_write(&mux->base, text, strlen(text)); /* as far as it goes: help is no data */
}

static void chr__mux_help(chr__mux *mux)
{
    char text[480], name[16];

    chr__format(name, sizeof name, mux->escape < ' ' ? "Ctrl-%c" : "%c", mux->escape < ' ' ? mux->escape + '@' : mux->escape);
    chr__format(text, sizeof text,
                "\r\n%s h    this help\r\n%s x    exit\r\n%s s    snapshot\r\n%s t    time stamps on or off\r\n"
                "%s b    send BREAK\r\n%s c    next frontend\r\n%s %s    send %s\r\n",
                name, name, name, name, name, name, name, name, name);
    chr__mux_say(mux, text);
}

/* -- input -- */

/* The character after the escape. Returns 1 when it is input after all: the escape itself. */
static int chr__mux_command(chr__mux *mux, int c)
{
    chr_context *ctx = mux->dev.ctx;

    if (c == mux->escape)
        return 1;
    switch (c) {
    case 'h':
    case '?': chr__mux_help(mux); return 0;
    case 'b': chr_be_event(&mux->dev, CHR_EVENT_BREAK); return 0;
    case 'c': chr__mux_next_focus(mux); return 0;
    case 't': mux->stamps = !mux->stamps; mux->in_line = 0; return 0;
    case 's':
        if (ctx->config.snapshot)
            ctx->config.snapshot(ctx->config.opaque);
        return 0;
    case 'x':
        chr__mux_say(mux, "\r\nterminated\r\n");
        if (ctx->config.exit)
            ctx->config.exit(ctx->config.opaque, 0);
        else
            chr_loop_stop(ctx);
        return 0;
    default:  return 0;
    }
}

/* Compares addresses only: a slot may be gone. */
static int chr__mux_has(const chr__mux *mux, const chr__mux_slot *slot)
{
    const chr__mux_slot *each;

    for (each = mux->slots; each && each != slot; each = each->next)
        ;
    return each != NULL;
}

/* After a question: whether those who would get the input are those who have answered. Who is asked may set other
 * handlers. */
CHR__HOT static int chr__mux_has_answered(const chr_frontend *fe, int (*can_read)(void *), const void *opaque)
{
    return fe->opaque == opaque && fe->handlers.can_read == can_read && fe->handlers.read;
}

/* What its frontend takes now: nothing before OPENED. It may go away when it is asked: then nothing. */
CHR__HOT static size_t chr__mux_room(const chr__mux *mux, const chr__mux_slot *slot)
{
    const chr_frontend *fe = slot->fe;
    void               *opaque = fe->opaque;
    int               (*can_read)(void *) = fe->handlers.can_read;
    int                 room;

    if (!fe->handlers.read || (mux->dev.ctx->open_suspended && fe->handlers.event && !fe->told_open))
        return 0;
    room = can_read ? can_read(opaque) : CHR__BUFFER_SIZE;
    return room > 0 && chr__mux_has(mux, slot) && slot->fe == fe &&
        chr__mux_has_answered(fe, can_read, opaque) ? (size_t)room : 0;
}

/* Held input first. */
CHR__COLD void chr__mux_drain(chr__mux *mux, chr__mux_slot *slot)
{
    unsigned char bytes[256];
    size_t        room, count;

    while (chr__mux_has(mux, slot) && slot->count > 0) {
        room = chr__mux_room(mux, slot);
        if (room == 0)
            return;
        count = chr__min(chr__min(slot->count, sizeof bytes), room);
        memcpy(bytes, slot->held, count); /* out of the way first: the handler may come back here */
        memmove(slot->held, slot->held + count, slot->count - count);
        slot->count -= count;
        slot->fe->handlers.read(slot->fe->opaque, bytes, count);
    }
}

CHR__COLD size_t chr__mux_hold(chr__mux *mux, chr__mux_slot *slot, const unsigned char *bytes, size_t len)
{
    size_t count = chr__min(len, CHR__MUX_HELD - slot->count);

    memcpy(slot->held + slot->count, bytes, count);
    slot->count += count;
    chr__starve(&mux->dev);
    return count;
}

/* As much as has a place now: straight to the frontend, else into its hold. */
CHR__HOT static size_t chr__mux_give(chr__mux *mux, const unsigned char *bytes, size_t len)
{
    chr__mux_slot *slot = mux->focus;
    size_t         count = 0;

    if (!slot)
        return 0;
    if (slot->count > 0)
        chr__mux_drain(mux, slot);
    if (mux->focus == slot && slot->count == 0)
        count = chr__min(len, chr__mux_room(mux, slot));
    if (mux->focus != slot) /* its handlers have moved the focus */
        return 0;
    if (count == 0)
        return chr__mux_hold(mux, slot, bytes, len);
    slot->fe->handlers.read(slot->fe->opaque, bytes, count);
    return count;
}

/* Input, cut at escape characters. Returns how much of it is done. */
CHR__HOT static size_t chr__mux_process(chr__mux *mux, const unsigned char *bytes, size_t len)
{
    size_t done = 0, run;

    while (done < len && !mux->dev.removed) {
        const void *found = memchr(bytes + done, mux->escape, len - done);
        run = mux->escaped ? 0 : found ? (size_t)((const unsigned char *)found - bytes) - done : len - done;
        if (run > 0) {
            run = chr__mux_give(mux, bytes + done, run);
            if (run == 0)
                break;
            done += run;
        } else if (!mux->escaped) {
            mux->escaped = 1;
            done++;
        } else {
            if (chr__mux_command(mux, bytes[done]) && chr__mux_give(mux, bytes + done, 1) == 0)
                break;
            mux->escaped = 0;
            done++;
        }
    }
    return done;
}

CHR__HOT static int chr__mux_base_can_read(void *opaque)
{
    const chr__mux      *mux = (const chr__mux *)opaque;
    const chr__mux_slot *slot = mux->focus;
    size_t               room;

    if (mux->dev.pending) { /* first what happened before */
        chr__notify_now((chr_dev *)(uintptr_t)&mux->dev);
        slot = mux->focus;
    }
    if (!slot || mux->backlog_start < mux->backlog_end)
        return 0;
    room = slot->count == 0 ? chr__mux_room(mux, slot) : 0;
    if (mux->focus != slot)
        return 0;
    return (int)chr__min(room ? room : CHR__MUX_HELD - slot->count, CHR__MUX_BACKLOG);
}

CHR__HOT static void chr__mux_base_read(void *opaque, const void *buf, size_t len)
{
    chr__mux *mux = (chr__mux *)opaque;
    size_t    done;

    mux->dev.bytes_in += len;
    done = chr__mux_process(mux, (const unsigned char *)buf, len);
    if (done == len || mux->dev.removed)
        return;
    memcpy(mux->backlog, (const char *)buf + done, len - done);
    mux->backlog_start = 0;
    mux->backlog_end = len - done;
    chr__starve(&mux->dev);
}

static void chr__mux_deliver_held(chr__mux *mux, chr__mux_slot *slot, int arg)
{
    (void)arg;
    chr__mux_drain(mux, slot);
}

/* From the loop: what was held, now that there is room. */
static void chr__mux_deliver(void *opaque)
{
    chr__mux *mux = (chr__mux *)opaque;

    if (mux->dev.pending) /* first what happened before */
        chr__notify_now(&mux->dev);
    chr__mux_each(mux, chr__mux_deliver_held, 0);
    if (!mux->dev.removed && mux->backlog_start < mux->backlog_end)
        mux->backlog_start += chr__mux_process(mux, mux->backlog + mux->backlog_start, mux->backlog_end - mux->backlog_start);
    if (mux->forget_at_end && mux->backlog_start == mux->backlog_end)
        mux->forget_at_end = mux->escaped = 0;
    if (!mux->dev.removed)
        chr_fe_accept_input(&mux->base);
}

static void chr__mux_ask(chr__mux *mux, chr__mux_slot *slot, int arg)
{
    int waits = slot->count > 0 || (slot == mux->focus && mux->backlog_start < mux->backlog_end);

    (void)arg;
    mux->is_waiting |= waits;
    if (waits && !mux->can_deliver)
        mux->can_deliver = chr__mux_room(mux, slot) > 0;
}

static void chr__mux_base_writable(void *opaque)
{
    chr_be_writable(&((chr__mux *)opaque)->dev);
}

static void chr__mux_update(chr_dev *dev)
{
    chr__mux *mux = (chr__mux *)dev;

    mux->is_waiting = mux->can_deliver = 0;
    chr__mux_each(mux, chr__mux_ask, 0);
    if (dev->removed)
        return;
    if (mux->can_deliver)
        chr_idle_start(dev->ctx, &mux->deliver, chr__mux_deliver, mux);
    else if (mux->is_waiting || mux->backlog_start < mux->backlog_end)
        chr__starve(dev);
    if (chr_be_wants_writable(dev) && !mux->base.writable)
        chr_fe_add_watch(&mux->base, chr__mux_base_writable, mux);
    chr_fe_accept_input(&mux->base);
}

static void chr__mux_describe(const chr_dev *dev, chr_info *info)
{
    chr_info       of_base;
    const chr_dev *base = ((const chr__mux *)dev)->base.dev;

    memset(&of_base, 0, sizeof of_base);
    if (base && base->kind->describe)
        base->kind->describe(base, &of_base);
    chr__format(info->filename, sizeof info->filename, "mux");
    info->comes_back = of_base.comes_back;
}

static int chr__mux_wait_fd(chr_dev *dev, int *events)
{
    chr_dev *base = ((chr__mux *)dev)->base.dev;

    return *events == CHR_OUT && base && base->io->wait_fd ? base->io->wait_fd(base, events) : -1;
}

/* -- frontends come and go -- */

static int chr__mux_attach(chr_dev *dev, chr_frontend *fe, chr_error *err)
{
    chr__mux_slot *slot = (chr__mux_slot *)chr__allocate(dev->ctx, sizeof *slot), **last;

    if (!slot)
        return chr__no_memory(err);
    slot->fe = fe;
    for (last = &((chr__mux *)dev)->slots; *last; last = &(*last)->next)
        ;
    *last = slot;
    return 0;
}

static void chr__mux_unlink(chr__mux *mux, chr__mux_slot *slot)
{
    chr__mux_slot **link;
    chr__mux_walk  *walk;

    for (link = &mux->slots; *link != slot; link = &(*link)->next)
        ;
    *link = slot->next;
    for (walk = mux->walks; walk; walk = walk->outer)
        if (walk->next == slot)
            walk->next = slot->next;
    chr__free(mux->dev.ctx, slot);
}

static void chr__mux_detach(chr_dev *dev, chr_frontend *fe)
{
    chr__mux      *mux = (chr__mux *)dev;
    chr__mux_slot *slot = chr__mux_find(mux, fe);
    int            had_focus = mux->focus == slot;

    if (had_focus) {
        for (mux->focus = mux->slots; mux->focus && (mux->focus == slot || !mux->focus->fe->is_open); mux->focus = mux->focus->next)
            ;
        chr__quiet(dev->ctx); /* the new one learns it from the loop */
        chr_be_event(dev, CHR_EVENT_MUX_IN);
        chr__loud(dev->ctx);
    }
    chr__mux_unlink(mux, slot);
}

static int chr__mux_wants_writable(const chr_dev *dev)
{
    const chr__mux_slot *slot;

    for (slot = ((const chr__mux *)dev)->slots; slot && !slot->fe->writable; slot = slot->next)
        ;
    return slot != NULL;
}

static void chr__mux_tell_writable(chr__mux *mux, chr__mux_slot *slot, int arg)
{
    (void)mux, (void)arg;
    chr_be_tell_writable(slot->fe);
}

static void chr__mux_writable(chr_dev *dev)
{
    chr__mux_each((chr__mux *)dev, chr__mux_tell_writable, 0);
}

/* What its chardev would get. */
static int chr__mux_inject(chr_dev *dev, const void *data, size_t len)
{
    chr_dev *base = ((chr__mux *)dev)->base.dev;

    return base ? chr_inject(base, data, len) : CHR_ERR_WOULD_BLOCK;
}

/* -- life -- */

static int chr__mux_open(chr_dev *dev, chr_error *err)
{
    static const chr_handlers    handlers = { chr__mux_base_can_read, chr__mux_base_read, chr__mux_base_event, NULL };
    const chr_mux_options       *options = (const chr_mux_options *)dev->options;
    chr__mux                    *mux = (chr__mux *)dev;
    chr_dev                     *base = chr_find(dev->ctx, options->chardev);

    if (!base)
        return chr__fail(err, CHR_ERR_NOT_FOUND, "mux: chardev=%s: there is no chardev with that id", options->chardev);
    if (base->kind->sharing || base->kind->fixed)
        return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "mux: chardev=%s: a %s can't be shared once more", options->chardev, base->kind->name);
    mux->escape = options->escape ? (int)options->escape : dev->ctx->config.mux_escape ? dev->ctx->config.mux_escape : 1;
    mux->backlog = (unsigned char *)chr__allocate(dev->ctx, CHR__MUX_BACKLOG);
    if (!mux->backlog)
        return chr__no_memory(err);
    if (chr_fe_init(&mux->base, base, err) < 0)
        return err ? err->code : CHR_ERR_BUSY;
    chr_fe_set_handlers(&mux->base, &handlers, mux);
    return 0;
}

static void chr__mux_close(chr_dev *dev)
{
    chr__mux *mux = (chr__mux *)dev;

    chr_idle_stop(&mux->deliver);
    while (mux->slots) {
        chr__fe_let_go(mux->slots->fe);
        chr__mux_unlink(mux, mux->slots);
    }
    mux->focus = NULL;
    chr_fe_deinit(&mux->base);
    chr__free(dev->ctx, mux->backlog);
    mux->backlog = NULL;
}

static const chr_io chr__mux_io = {
    chr__mux_write,   /* write   */
    NULL,             /* read    */
    chr__mux_update,  /* update  */
    chr__mux_wait_fd, /* wait_fd */
};

/* One frontend of several can't end it for the others. */
static int chr__mux_shutdown(chr_dev *dev)
{
    chr__mux *mux = (chr__mux *)dev;
    int       code = mux->slots && !mux->slots->next ? chr__mux_flush_stamp(mux) : CHR_ERR_NOT_SUPPORTED;

    return code < 0 ? code : chr_fe_shutdown(&mux->base);
}

static const chr_peer_slots chr__mux_peer = {
    NULL,              /* disconnect     */
    NULL,              /* wait_connected */
    NULL,              /* add_client     */
    NULL,              /* set_msgfds     */
    NULL,              /* get_msgfds     */
    chr__mux_shutdown, /* shutdown       */
    NULL,              /* queued         */
};

static const chr_sharing_slots chr__mux_sharing = {
    chr__mux_attach,         /* attach         */
    chr__mux_detach,         /* detach         */
    chr__mux_focus,          /* focus          */
    chr__mux_event,          /* event          */
    chr__mux_wants_writable, /* wants_writable */
    chr__mux_writable,       /* writable       */
    chr__mux_inject,         /* inject         */
};

static int chr__mux_ioctl(chr_dev *dev, int command, void *arg)
{
    return chr_fe_ioctl(&((chr__mux *)dev)->base, command, arg);
}

static const chr_backend chr__mux_kind = {
    "mux",                                                  /* name         */
    NULL,                                                   /* alias        */
    "several frontends share a chardev, one has the focus", /* help         */
    chr__mux_rows,                                          /* options      */
    sizeof(chr_mux_options),                                /* options_size */
    sizeof(chr__mux),                                       /* state_size   */
    NULL,                                                   /* uri          */
    chr__mux_open,                                          /* open         */
    chr__mux_close,                                         /* close        */
    &chr__mux_io,                                           /* io           */
    chr__mux_describe,                                      /* describe     */
    chr__mux_ioctl,                                         /* ioctl        */
    NULL,                                                   /* set_open     */
    &chr__mux_peer,                                         /* peer         */
    &chr__mux_sharing,                                      /* sharing      */
    1,                                                      /* fixed        */
    NULL,                                                   /* input        */
};
#endif

/* ====================================================================================================================
 * >>fan_out   one chardev in front of several: members of a hub, clients of a server
 *
 * events     the first OPENED and the last CLOSED of the members; any other event of any of them
 * output     goes to all that are open. When a slow member takes less, so does the whole; what the others have had
 *            already is not sent to them again: after a partial write the next one must go on where it ended, as always.
 * input      from any member, as it comes
 * ==================================================================================================================== */
#if CHARDEV_HAS_HUB || CHARDEV_HAS_SOCKET

typedef struct chr__fan_member {
    chr_frontend     fe;
    struct chr__fan *fan;
    int              joined;     /* it is open, and those below are about this time */
    int              input_over; /* and it says no more */
    size_t           ahead;      /* how much it has had of what the whole has not yet taken */
    int              is_short;   /* it took less than it was offered: that may have to be waited for */
} chr__fan_member;

typedef struct chr__fan {
    chr_dev         *dev;     /* the whole; NULL = there is none */
    chr__fan_member *members;
    size_t           count;
    int              open_count;
    int              of_parts; /* the members are parts of the whole: what nobody is there to take is counted there */
    chr_idle         tell;    /* a waiting frontend, when no member has to be waited for */
} chr__fan;

/* -- output -- */

/* It joins, or leaves, with whatever comes next: nothing of what was before is its business. */
static void chr__fan_reset(chr__fan_member *member, int joined)
{
    member->joined = joined;
    member->input_over = 0;
    member->ahead = 0;
    member->is_short = 0;
}

/* Its event may be still on the way. */
static int chr__fan_is_open(chr__fan_member *member)
{
    int is_open = member->fe.dev && member->fe.dev->be_open;

    if (is_open != member->joined)
        chr__fan_reset(member, is_open);
    return is_open;
}

/* Returns how much the member has had in all, or CHR_ERR_DISCONNECTED: lost for this one, which then holds nobody up. */
static int chr__fan_offer(chr__fan_member *member, const char *buf, size_t len)
{
    int n = member->ahead < len ? chr_fe_write(&member->fe, buf + member->ahead, len - member->ahead) : 0;

    if (n < 0 && n != CHR_ERR_WOULD_BLOCK) {
        member->ahead = len;
        return CHR_ERR_DISCONNECTED;
    }
    member->ahead += n > 0 ? (size_t)n : 0;
    member->is_short = member->ahead < len;
    return (int)chr__min(member->ahead, len);
}

/* To all that are open. Returns how much of it each of them has had, or CHR_ERR_DISCONNECTED when there is none. */
static int chr__fan_offer_open(chr__fan *fan, const char *buf, size_t len)
{
    size_t i;
    int    taken = CHR_ERR_DISCONNECTED, each;

    for (i = 0; i < fan->count; i++) {
        each = chr__fan_is_open(&fan->members[i]) ? chr__fan_offer(&fan->members[i], buf, len) : CHR_ERR_DISCONNECTED;
        if (each >= 0 && (taken < 0 || each < taken))
            taken = each;
    }
    return taken;
}

/* What a part remembers for its next peer. */
static int chr__fan_remember(chr_dev *dev, const char *buf, size_t len)
{
    if (dev->outbox)
        chr__outbox_remember(dev->outbox, buf, len);
    return CHR_ERR_DISCONNECTED;
}

/* To those that are closed: they count it as dropped, log and remember it by their own policy. Returns the most that one took. */
static int chr__fan_offer_closed(chr__fan *fan, const char *buf, size_t len)
{
    size_t i;
    int    most = CHR_ERR_DISCONNECTED, n;

    for (i = 0; i < fan->count; i++) {
        if (chr__fan_is_open(&fan->members[i]))
            continue;
        n = fan->of_parts ? chr__fan_remember(fan->members[i].fe.dev, buf, len) :
            chr_fe_write(&fan->members[i].fe, buf, len);
        if (n > most)
            most = n;
    }
    return most > 0 ? most : CHR_ERR_DISCONNECTED;
}

static int chr__fan_write(chr__fan *fan, const void *buf, size_t len)
{
    size_t    i;
    int       taken = chr__fan_offer_open(fan, (const char *)buf, len);

    if (taken == 0)
        return CHR_ERR_WOULD_BLOCK;
    if (taken < 0)
        taken = chr__fan_offer_closed(fan, (const char *)buf, len);
    else
        chr__fan_offer_closed(fan, (const char *)buf, (size_t)taken);
    for (i = 0; i < fan->count; i++)
        fan->members[i].ahead -= chr__min(fan->members[i].ahead, taken > 0 ? (size_t)taken : len);
    return taken;
}

static int chr__fan_wait_fd(chr__fan *fan, int *events)
{
    chr_dev  *slow;
    size_t    i;

    for (i = 0; i < fan->count && *events == CHR_OUT; i++) {
        slow = fan->members[i].is_short ? fan->members[i].fe.dev : NULL;
        if (slow)
            return slow->io->wait_fd ? slow->io->wait_fd(slow, events) : -1;
    }
    return -1;
}

/* -- whom to wait for -- */

static void chr__fan_watch(chr__fan *fan);

static void chr__fan_tell(void *opaque)
{
    chr__fan *fan = (chr__fan *)opaque;

    chr_be_writable(fan->dev);
    if (!fan->dev->removed && chr_be_wants_writable(fan->dev))
        chr__fan_watch(fan);
}

static void chr__fan_member_writable(void *opaque)
{
    chr__fan_member *member = (chr__fan_member *)opaque;

    member->is_short = 0;
    chr__fan_tell(member->fan);
}

/* Those that were slow; when there is none, the frontend may write at once. */
static void chr__fan_watch(chr__fan *fan)
{
    size_t i;
    int    waits = 0;

    for (i = 0; i < fan->count; i++)
        if (fan->members[i].is_short) {
            waits = 1;
            if (!fan->members[i].fe.writable)
                chr_fe_add_watch(&fan->members[i].fe, chr__fan_member_writable, &fan->members[i]);
        }
    if (!waits)
        chr_idle_start(fan->dev->ctx, &fan->tell, chr__fan_tell, fan);
}

static void chr__fan_update(chr__fan *fan)
{
    size_t    i;

    if (chr_be_wants_writable(fan->dev))
        chr__fan_watch(fan);
    for (i = 0; i < fan->count; i++)
        chr_fe_accept_input(&fan->members[i].fe);
}

/* -- the members' side -- */

static int chr__fan_member_can_read(void *opaque)
{
    return chr__room(((chr__fan_member *)opaque)->fan->dev);
}

static void chr__fan_member_read(void *opaque, const void *buf, size_t len)
{
    chr__input(((chr__fan_member *)opaque)->fan->dev, buf, len);
}

/* The one that was waited for may be the one that went. */
static void chr__fan_rejoin(chr__fan_member *member, int joined)
{
    chr__fan *fan = member->fan;

    if (joined != member->joined || !joined)
        chr__fan_reset(member, joined);
    if (chr_be_wants_writable(fan->dev))
        chr_idle_start(fan->dev->ctx, &fan->tell, chr__fan_tell, fan);
}

/* Its input is over when no member that is open says any more. */
static void chr__fan_look_at_input(chr__fan *fan)
{
    size_t i;
    int    speakers = 0;

    for (i = 0; i < fan->count; i++)
        speakers += fan->members[i].joined && !fan->members[i].input_over;
    if (speakers == 0 && fan->open_count > 0 && !fan->dev->input_over)
        chr_be_event(fan->dev, CHR_EVENT_INPUT_END);
}

static void chr__fan_member_event(void *opaque, int event)
{
    chr__fan_member *member = (chr__fan_member *)opaque;
    chr__fan        *fan = member->fan;

    if (event == CHR_EVENT_OPENED || event == CHR_EVENT_CLOSED) {
        chr__fan_rejoin(member, event == CHR_EVENT_OPENED);
        fan->open_count += event == CHR_EVENT_OPENED ? 1 : -1;
        if (fan->open_count != (event == CHR_EVENT_OPENED ? 1 : 0)) {
            chr__fan_look_at_input(fan);
            return;
        }
    } else if (event == CHR_EVENT_INPUT_END) {
        member->input_over = 1;
        chr__fan_look_at_input(fan);
        return;
    }
    chr_be_event(fan->dev, event);
}

/* Another backend has taken a member's place; if it is closed while the old one was open, CLOSED has come before. */
static int chr__fan_member_change(void *opaque)
{
    chr__fan_rejoin((chr__fan_member *)opaque, 0);
    return 0;
}

/* -- the frontend's side -- */

CHR__PRIVATE void chr__fan_set_open(chr__fan *fan, int is_open)
{
    size_t    i;

    for (i = 0; i < fan->count; i++)
        chr_fe_set_open(&fan->members[i].fe, is_open);
}

/* To all; from last to first, so that of several answers the first member's stays. */
static int chr__fan_ioctl(chr__fan *fan, int command, void *arg)
{
    size_t    i;
    int       code = CHR_ERR_NOT_SUPPORTED, each;

    for (i = fan->count; i > 0; i--) {
        each = chr_fe_ioctl(&fan->members[i - 1].fe, command, arg);
        if (code < 0 && each != CHR_ERR_NOT_SUPPORTED)
            code = each;
    }
    return code;
}

/* To all that are open; supported when one of them can do it. */
static int chr__fan_shutdown(chr__fan *fan)
{
    size_t    i;
    int       code = CHR_ERR_DISCONNECTED, each;

    for (i = 0; i < fan->count; i++) {
        each = chr__fan_is_open(&fan->members[i]) ? chr_fe_shutdown(&fan->members[i].fe) : CHR_ERR_DISCONNECTED;
        if (code != 0 && each != CHR_ERR_DISCONNECTED)
            code = each;
    }
    return code;
}

/* -- life -- */

static int chr__fan_init(chr__fan *fan, chr_dev *dev, size_t most, chr_error *err)
{
    fan->dev = dev;
    fan->members = (chr__fan_member *)chr__allocate(dev->ctx, most * sizeof *fan->members);
    return fan->members ? 0 : chr__no_memory(err);
}

static int chr__fan_add(chr__fan *fan, chr_dev *dev, chr_error *err)
{
    static const chr_handlers handlers = { chr__fan_member_can_read, chr__fan_member_read, chr__fan_member_event,
                                          chr__fan_member_change };
    chr__fan_member          *member = &fan->members[fan->count];
    int                       code = chr_fe_init(&member->fe, dev, err);

    if (code < 0)
        return code;
    member->fan = fan;
    fan->count++;
    chr_fe_set_handlers(&member->fe, &handlers, member);
    chr_fe_set_open(&member->fe, 0); /* until a frontend comes */
    return 0;
}

/* Lets go of the last member, which may be gone already. */
static chr_dev *chr__fan_drop(chr__fan *fan)
{
    chr__fan_member *member = &fan->members[--fan->count];
    chr_dev         *dev = member->fe.dev;

    chr_fe_deinit(&member->fe);
    return dev;
}

static void chr__fan_free(chr__fan *fan)
{
    chr_context *ctx = fan->dev ? fan->dev->ctx : NULL;

    if (!ctx)
        return;
    chr_idle_stop(&fan->tell);
    fan->open_count = 0;
    chr__free(ctx, fan->members);
    fan->members = NULL;
}
#endif

/* ====================================================================================================================
 * >>be_hub   several chardevs behind one frontend (>>fan_out)
 *
 * far side   other chardevs, each with a peer of its own          options   chardevs.0, chardevs.1, ...
 * ==================================================================================================================== */
#if CHARDEV_HAS_HUB

typedef struct chr__hub {
    chr_dev  dev;
    chr__fan fan;
} chr__hub;

static const chr_option chr__hub_rows[] = {
    { "chardevs", CHR_OPTION_LIST, CHR__AT(chr_hub_options, chardevs), CHR_REQUIRED, 0, 0, "ids of the chardevs: chardevs.0=a,chardevs.1=b" },
    { NULL,       CHR_OPTION_TEXT, 0,                                  NULL,         0, 0, NULL }
};

/* -- slots -- */

static int chr__hub_write(chr_dev *dev, const void *buf, size_t len)
{
    return chr__fan_write(&((chr__hub *)dev)->fan, buf, len);
}

static void chr__hub_update(chr_dev *dev)
{
    chr__fan_update(&((chr__hub *)dev)->fan);
}

static int chr__hub_wait_fd(chr_dev *dev, int *events)
{
    return chr__fan_wait_fd(&((chr__hub *)dev)->fan, events);
}

static void chr__hub_set_open(chr_dev *dev, int is_open)
{
    chr__fan_set_open(&((chr__hub *)dev)->fan, is_open);
}

static int chr__hub_ioctl(chr_dev *dev, int command, void *arg)
{
    return chr__fan_ioctl(&((chr__hub *)dev)->fan, command, arg);
}

static int chr__hub_shutdown(chr_dev *dev)
{
    return chr__fan_shutdown(&((chr__hub *)dev)->fan);
}

static const chr_peer_slots chr__hub_peer = {
    NULL,              /* disconnect     */
    NULL,              /* wait_connected */
    NULL,              /* add_client     */
    NULL,              /* set_msgfds     */
    NULL,              /* get_msgfds     */
    chr__hub_shutdown, /* shutdown       */
    NULL,              /* queued         */
};

static void chr__hub_describe(const chr_dev *dev, chr_info *info)
{
    const chr__fan *fan = &((const chr__hub *)dev)->fan;
    chr_info        member;
    size_t          i;

    for (i = 0; i < fan->count; i++) {
        if (!fan->members[i].fe.dev)
            continue;
        chr_query(fan->members[i].fe.dev, &member);
        info->comes_back |= member.comes_back;
    }
    chr__format(info->filename, sizeof info->filename, "hub");
}

/* -- life -- */

static int chr__hub_add(chr__hub *hub, const char *id, chr_error *err)
{
    chr_dev *dev = chr_find(hub->dev.ctx, id);
    int      nth = (int)hub->fan.count;

    if (!dev)
        return chr__fail(err, CHR_ERR_NOT_FOUND, "hub: chardevs.%d=%s: there is no chardev with that id", nth, id);
    if (dev->kind->fixed)
        return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "hub: chardevs.%d=%s: a %s can't be stacked on a hub", nth, id,
                         dev->kind->name);
    return chr__fan_add(&hub->fan, dev, err);
}

static int chr__hub_open(chr_dev *dev, chr_error *err)
{
    const chr_hub_options *options = (const chr_hub_options *)dev->options;
    chr__hub              *hub = (chr__hub *)dev;
    size_t                 count;
    int                    code;

    for (count = 0; options->chardevs[count]; count++)
        ;
    code = chr__fan_init(&hub->fan, dev, count, err);
    while (code == 0 && hub->fan.count < count)
        code = chr__hub_add(hub, options->chardevs[hub->fan.count], err);
    return code;
}

static void chr__hub_close(chr_dev *dev)
{
    chr__hub *hub = (chr__hub *)dev;

    while (hub->fan.count > 0)
        (void)chr__fan_drop(&hub->fan);
    chr__fan_free(&hub->fan);
}

static const chr_io chr__hub_io = {
    chr__hub_write,   /* write   */
    NULL,             /* read    */
    chr__hub_update,  /* update  */
    chr__hub_wait_fd, /* wait_fd */
};

static const chr_backend chr__hub_kind = {
    "hub",                                 /* name         */
    NULL,                                  /* alias        */
    "several chardevs behind one frontend", /* help        */
    chr__hub_rows,                         /* options      */
    sizeof(chr_hub_options),               /* options_size */
    sizeof(chr__hub),                      /* state_size   */
    NULL,                                  /* uri          */
    chr__hub_open,                         /* open         */
    chr__hub_close,                        /* close        */
    &chr__hub_io,                          /* io           */
    chr__hub_describe,                     /* describe     */
    chr__hub_ioctl,                        /* ioctl        */
    chr__hub_set_open,                     /* set_open     */
    &chr__hub_peer,                        /* peer         */
    NULL,                                  /* sharing      */
    1,                                     /* fixed        */
    NULL,                                  /* input        */
};
#endif

/* ====================================================================================================================
 * >>be_fd   two descriptors of any kind that poll() takes
 *
 * far side   whoever has the other ends          options   in, out          events   OPENED from creation, CLOSED at end of input
 * ==================================================================================================================== */
#if CHARDEV_HAS_FD

static const chr_option chr__fd_rows[] = {
    { "in",  CHR_OPTION_FD,   CHR__AT(chr_fd_options, in),  NULL, 0, 0, "descriptor to read from" },
    { "out", CHR_OPTION_FD,   CHR__AT(chr_fd_options, out), NULL, 0, 0, "descriptor to write to, may be the same" },
    { NULL,  CHR_OPTION_TEXT, 0,                            NULL, 0, 0, NULL }
};

static int chr__fd_check(int fd, const char *key, int direction, chr_error *err)
{
    if (fd < 0)
        return 0;
    if (!chr__os_is_open(fd))
        return chr__fail(err, CHR_ERR_INVALID, "fd: %s=%d: is not an open descriptor", key, fd);
    if (!chr__os_may(fd, direction))
        return chr__fail(err, CHR_ERR_INVALID, "fd: %s=%d: is not open for %s", key, fd, direction == CHR_IN ? "reading" : "writing");
    return 0;
}

static int chr__fd_open(chr_dev *dev, chr_error *err)
{
    const chr_fd_options *options = (const chr_fd_options *)dev->options;
    chr__fd_dev          *state = (chr__fd_dev *)dev;

    if (options->in < 0 && options->out < 0)
        return chr__fail(err, CHR_ERR_INVALID, "fd: needs in= or out=");
    if (chr__fd_check(options->in, "in", CHR_IN, err) < 0 || chr__fd_check(options->out, "out", CHR_OUT, err) < 0)
        return CHR_ERR_INVALID;
    if (chr__fd_start_inherited(state, options->in, options->out, chr__stream_input_over, err) < 0)
        return CHR_ERR_NO_MEMORY;
    state->is_owner = 1;
    chr__os_close_on_exec(options->in);
    chr__os_close_on_exec(options->out);
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

static const chr_backend chr__fd_kind = {
    "fd",                                     /* name         */
    NULL,                                     /* alias        */
    "descriptors that are open already",      /* help         */
    chr__fd_rows,                             /* options      */
    sizeof(chr_fd_options),                   /* options_size */
    sizeof(chr__fd_dev),                      /* state_size   */
    NULL,                                     /* uri          */
    chr__fd_open,                             /* open         */
    chr__fd_close,                            /* close        */
    &chr__stream_io,                          /* io           */
    NULL,                                     /* describe     */
    NULL,                                     /* ioctl        */
    NULL,                                     /* set_open     */
    &chr__fd_peer,                            /* peer         */
    NULL,                                     /* sharing      */
    0,                                        /* fixed        */
    NULL,                                     /* input        */
};
#endif

/* ====================================================================================================================
 * >>be_file   a file that is written, and maybe another that is read
 *
 * far side   files          options   path, append, input-path          events   OPENED from creation, CLOSED at end of input
 * ==================================================================================================================== */
#if CHARDEV_HAS_FILE

static const chr_option chr__file_rows[] = {
    { "path",       CHR_OPTION_TEXT, CHR__AT(chr_file_options, path),       CHR_REQUIRED, 0, 0, "file to write" },
    { "append",     CHR_OPTION_BOOL, CHR__AT(chr_file_options, append),     "off",        0, 0, "write at its end instead of starting it anew" },
    { "input-path", CHR_OPTION_TEXT, CHR__AT(chr_file_options, input_path), NULL,         0, 0, "file to read as input" },
    { NULL,         CHR_OPTION_TEXT, 0,                                     NULL,         0, 0, NULL }
};

static int chr__file_uri(const char *uri, chr_options *options)
{
    return chr__uri_path(uri, "file:", options);
}

static int chr__file_open(chr_dev *dev, chr_error *err)
{
    const chr_file_options *options = (const chr_file_options *)dev->options;
    chr__fd_dev            *state = (chr__fd_dev *)dev;

    state->in = state->out = -1;
    state->is_owner = 1;
    if (options->input_path && (state->in = chr__os_open(options->input_path, CHR__OPEN_READ, err)) < 0)
        return state->in;
    state->out = chr__os_open(options->path, options->append == CHR_ON ? CHR__OPEN_APPEND : CHR__OPEN_LOG, err);
    if (state->out < 0)
        return state->out;
    if (chr__fd_start(state, state->in, state->out, chr__stream_input_over, err) < 0)
        return CHR_ERR_NO_MEMORY;
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

static const chr_backend chr__file_kind = {
    "file",                                        /* name         */
    NULL,                                          /* alias        */
    "a file that is written, another that is read", /* help        */
    chr__file_rows,                                /* options      */
    sizeof(chr_file_options),                      /* options_size */
    sizeof(chr__fd_dev),                           /* state_size   */
    chr__file_uri,                                 /* uri          */
    chr__file_open,                                /* open         */
    chr__fd_close,                                 /* close        */
    &chr__stream_io,                               /* io           */
    NULL,                                          /* describe     */
    NULL,                                          /* ioctl        */
    NULL,                                          /* set_open     */
    &chr__fd_peer,                                 /* peer         */
    NULL,                                          /* sharing      */
    0,                                             /* fixed        */
    NULL,                                          /* input        */
};
#endif

/* ====================================================================================================================
 * >>be_pipe   named pipes that exist already
 *
 * far side   who opens PATH.in and PATH.out, or PATH          options   path          events   OPENED from creation
 * ==================================================================================================================== */
#if CHARDEV_HAS_PIPE

static const chr_option chr__pipe_rows[] = {
    { "path", CHR_OPTION_TEXT, CHR__AT(chr_pipe_options, path), CHR_REQUIRED, 0, 0, "PATH.in is read and PATH.out written, or PATH both ways" },
    { NULL,   CHR_OPTION_TEXT, 0,                               NULL,         0, 0, NULL }
};

static int chr__pipe_uri(const char *uri, chr_options *options)
{
    return chr__uri_path(uri, "pipe:", options);
}

/* Both ways each, so that opening does not wait for a peer and end of file does not come when one leaves. */
static int chr__pipe_open_half(chr_dev *dev, const char *path, const char *suffix)
{
    size_t size = strlen(path) + strlen(suffix) + 1;
    char  *name = (char *)chr__allocate(dev->ctx, size);
    int    fd;

    if (!name)
        return CHR_ERR_NO_MEMORY;
    chr__format(name, size, "%s%s", path, suffix);
    fd = chr__os_open(name, CHR__OPEN_BOTH, NULL);
    chr__free(dev->ctx, name);
    return fd;
}

static int chr__pipe_open(chr_dev *dev, chr_error *err)
{
    const char  *path = ((const chr_pipe_options *)dev->options)->path;
    chr__fd_dev *state = (chr__fd_dev *)dev;

    state->is_owner = 1;
    state->in = chr__pipe_open_half(dev, path, ".in");
    state->out = chr__pipe_open_half(dev, path, ".out");
    if (state->in == CHR_ERR_NO_MEMORY || state->out == CHR_ERR_NO_MEMORY)
        return chr__no_memory(err);
    if (state->in < 0 || state->out < 0) {
        chr__os_close(state->in);
        chr__os_close(state->out);
        state->in = state->out = chr__os_open(path, CHR__OPEN_BOTH, err);
    }
    if (state->in < 0)
        return state->in;
    if (chr__fd_start(state, state->in, state->out, chr__stream_input_over, err) < 0)
        return CHR_ERR_NO_MEMORY;
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

static const chr_backend chr__pipe_kind = {
    "pipe",                                   /* name         */
    NULL,                                     /* alias        */
    "named pipes that exist already",         /* help         */
    chr__pipe_rows,                           /* options      */
    sizeof(chr_pipe_options),                 /* options_size */
    sizeof(chr__fd_dev),                      /* state_size   */
    chr__pipe_uri,                            /* uri          */
    chr__pipe_open,                           /* open         */
    chr__fd_close,                            /* close        */
    &chr__stream_io,                          /* io           */
    NULL,                                     /* describe     */
    NULL,                                     /* ioctl        */
    NULL,                                     /* set_open     */
    &chr__fd_peer,                            /* peer         */
    NULL,                                     /* sharing      */
    0,                                        /* fixed        */
    NULL,                                     /* input        */
};
#endif

/* ====================================================================================================================
 * >>be_pty   the master of a new pseudo terminal
 *
 * far side   who opens the slave          options   path: a symlink to it
 * events     OPENED when somebody has the slave open: told by the system at once, or else seen about each second and
 *            after each write; CLOSED at hang-up
 * ==================================================================================================================== */
#if CHARDEV_HAS_PTY

typedef struct chr__pty {
    chr__fd_dev     base;
    chr__file_watch opened;  /* of the slave */
    int             is_told; /* that watch works: it has told of our own opening */
    int             openers; /* of which it has told; fewer than there are, where it has taken two for one */
    int             is_left, is_renewed; /* since the last look: the last has gone; and another has come after that */
    chr_timer       look;    /* whether the slave is open */
    chr_idle        look_soon;
    char            slave[64];
    char           *link;    /* the symlink that we made, absolute; NULL = none */
    chr__file_id    link_id;
} chr__pty;

enum { CHR__PTY_LOOK_MS = 1000 };

static const chr_option chr__pty_rows[] = {
    { "path", CHR_OPTION_TEXT, CHR__AT(chr_pty_options, path), NULL, 0, 0, "make a symlink to the terminal here" },
    { NULL,   CHR_OPTION_TEXT, 0,                              NULL, 0, 0, NULL }
};

static void chr__pty_look(void *opaque);

/* From any thread: the rest is the loop's. */
static void chr__pty_look_soon(chr__pty *pty)
{
    chr_idle_start(pty->base.dev.ctx, &pty->look_soon, chr__pty_look, pty);
}

/* The next one may have opened it meanwhile, and what tells of it was read, or is read here. */
static void chr__pty_hung_up(chr__stream *stream, int code)
{
    chr__pty *pty = (chr__pty *)stream->dev;

    (void)code;
    chr__stream_close(stream);
    chr__file_watch_look(&pty->opened);
    pty->openers = pty->is_renewed ? pty->openers : 0;
    pty->is_left = pty->is_renewed = 0;
    chr__pty_look_soon(pty);
    chr_be_event(stream->dev, CHR_EVENT_CLOSED);
}

/* The master reports a hang-up as long as nobody has the slave open; with input, somebody was here since we last
 * looked. 1 = it is open now; 0 = nobody is there; or an error. */
static int chr__pty_try(chr__pty *pty)
{
    chr__fd_dev *base = &pty->base;
    int          ready = chr__os_wait(base->in, CHR_IN | CHR_HUP, 0), code;

    if (ready < 0 || (ready & (CHR_IN | CHR_HUP)) == CHR_HUP)
        return ready < 0 ? ready : 0;
    if (((const chr_common_options *)base->dev.options)->history > 0)
        chr__os_pty_flush(pty->slave); /* what the last peer has left unread: the history has it */
    code = chr__fd_start(base, base->in, base->in, chr__pty_hung_up, NULL);
    return code < 0 ? code : 1;
}


/* Whether poll() can still tell of the hang-up when the last one has gone: else another has come, or some have not
 * been counted. */
static void chr__pty_check_left(chr__pty *pty)
{
    int ready = chr__os_wait(pty->base.in, CHR_IN | CHR_HUP, 0);

    chr__file_watch_look(&pty->opened);
    if (!pty->is_left || ready < 0 || (ready & CHR_HUP))
        return;
    pty->is_left = 0;
    pty->openers = 1;
}

static void chr__pty_look_for_opener(chr__pty *pty)
{
    int found = chr__pty_try(pty);

    pty->is_left = pty->is_renewed = 0;
    if (found > 0)
        chr_be_event(&pty->base.dev, CHR_EVENT_OPENED);
    else if (found < 0 || !pty->is_told)
        chr_timer_start(pty->base.dev.ctx, &pty->look, CHR__PTY_LOOK_MS, chr__pty_look, pty);
}

/* Between two looks the last one has gone and another has come: poll() can't tell. OPENED follows CLOSED at once: an
 * answer to what the new one has said already would be lost between the two. */
static void chr__pty_renew(chr__pty *pty)
{
    chr__stream_look(&pty->base.stream, 0);
    if (pty->base.stream.top)
        chr__pty_hung_up(&pty->base.stream, 0);
    if (!pty->base.dev.removed && !pty->base.stream.top)
        chr__pty_look_for_opener(pty);
}

static void chr__pty_look(void *opaque)
{
    chr__pty *pty = (chr__pty *)opaque;

    chr_timer_stop(&pty->look);
    if (!pty->base.stream.top) {
        chr__pty_look_for_opener(pty);
        return;
    }
    if (pty->is_left)
        chr__pty_check_left(pty);
    if (pty->is_renewed)
        chr__pty_renew(pty);
}

/* Only notes. */
static void chr__pty_told(void *opaque, int what)
{
    chr__pty *pty = (chr__pty *)opaque;

    if (what & CHR__FILE_OPENED) {
        pty->is_told = 1;
        pty->is_renewed |= pty->is_left;
        pty->is_left = 0;
        pty->openers++;
    } else if (what & CHR__FILE_CLOSED && pty->openers > 0) {
        pty->is_left = --pty->openers == 0;
    }
    if (what & CHR__FILE_CHANGED && pty->link && chr__os_link_leads_to(pty->link, pty->slave))
        chr__os_link_stamp(pty->link, pty->slave);
    chr__pty_look_soon(pty);
}

/* What is written before OPENED comes has met nobody, so that history= has it, once. */
static int chr__pty_write(chr_dev *dev, const void *buf, size_t len)
{
    chr__pty *pty = (chr__pty *)dev;

    if (pty->base.stream.top)
        return chr__stream_write(&pty->base.stream, buf, len);
    if (!pty->is_told)
        chr__pty_look_soon(pty);
    return CHR_ERR_DISCONNECTED;
}

/* A link that is left from a process that is gone is replaced. */
static int chr__pty_make_link(chr__pty *pty, const char *path, chr_error *err)
{
    int code = chr__os_symlink(pty->slave, path, err);
    int stale = code == CHR_ERR_EXISTS ? chr__os_link_is_stale(path, pty->slave) : 0;

    if (stale > 0) {
        chr__os_unlink(path);
        code = chr__os_symlink(pty->slave, path, err);
    } else if (stale < 0 && err) {
        chr__append(err->text, sizeof err->text, strlen(err->text), " (a link to a terminal that is in use)");
    }
    if (code < 0)
        return code;
    pty->link = chr__absolute_path(pty->base.dev.ctx, path);
    if (!pty->link) {
        chr__os_unlink(path);
        return chr__no_memory(err);
    }
    chr__os_link_stamp(path, pty->slave);
    pty->link_id = chr__os_file_id(path);
    return 0;
}

/* Made raw by opening it, behind the watch: so that shows whether it works. */
static int chr__pty_open(chr_dev *dev, chr_error *err)
{
    const char *path = ((const chr_pty_options *)dev->options)->path;
    chr__pty   *pty = (chr__pty *)dev;
    int         code, fd = chr__os_pty_open(pty->slave, sizeof pty->slave, err);

    pty->base.in = pty->base.out = fd;
    pty->base.is_owner = 1;
    if (fd < 0)
        return fd;
    code = path ? chr__pty_make_link(pty, path, err) : 0;
    if (code < 0)
        return code;
    (void)chr__file_watch_start(dev->ctx, &pty->opened, pty->slave, chr__pty_told, pty);
    code = chr__os_pty_make_raw(pty->slave, err);
    if (code < 0)
        return code;
    chr_timer_start(dev->ctx, &pty->look, CHR__PTY_LOOK_MS / 10, chr__pty_look, pty);
    return 0;
}

static void chr__pty_close(chr_dev *dev)
{
    chr__pty *pty = (chr__pty *)dev;

    chr_timer_stop(&pty->look);
    chr_idle_stop(&pty->look_soon);
    chr__file_watch_stop(&pty->opened);
    if (pty->link && chr__os_link_leads_to(pty->link, pty->slave)) /* its number is ours until the master is closed */
        chr__os_unlink_own(pty->link, &pty->link_id);
    chr__free(dev->ctx, pty->link);
    pty->link = NULL;
    chr__fd_close(dev);
}

static int chr__pty_ioctl(chr_dev *dev, int command, void *arg)
{
    const chr_terminal_size *size = (const chr_terminal_size *)arg;

    if (command != CHR_IOCTL_SET_TERMINAL_SIZE)
        return CHR_ERR_NOT_SUPPORTED;
    return chr__terminal_size_valid(size)
        ? chr__os_terminal_resize(((chr__pty *)dev)->base.in, size->columns, size->rows) : (int)CHR_ERR_INVALID;
}

static void chr__pty_describe(const chr_dev *dev, chr_info *info)
{
    chr__format(info->filename, sizeof info->filename, "pty:%s", ((const chr__pty *)dev)->slave);
    info->comes_back = 1;
}

static const chr_io chr__pty_io = {
    chr__pty_write,          /* write   */
    chr__stream_dev_read,    /* read    */
    chr__stream_dev_update,  /* update  */
    chr__stream_dev_wait_fd, /* wait_fd */
};

/* pty, pty,OPTIONS or pty:PATH. */
static int chr__pty_uri(const char *uri, chr_options *options)
{
    return chr__after(uri, "pty:") ? chr__uri_path(uri, "pty:", options) : chr__uri_name(uri, "pty", options);
}

static const chr_backend chr__pty_kind = {
    "pty",                                    /* name         */
    NULL,                                     /* alias        */
    "a new pseudo terminal",                  /* help         */
    chr__pty_rows,                            /* options      */
    sizeof(chr_pty_options),                  /* options_size */
    sizeof(chr__pty),                         /* state_size   */
    chr__pty_uri,                             /* uri          */
    chr__pty_open,                            /* open         */
    chr__pty_close,                           /* close        */
    &chr__pty_io,                             /* io           */
    chr__pty_describe,                        /* describe     */
    chr__pty_ioctl,                           /* ioctl        */
    NULL,                                     /* set_open     */
    NULL,                                     /* peer         */
    NULL,                                     /* sharing      */
    0,                                        /* fixed        */
    NULL,                                     /* input        */
};
#endif

/* ====================================================================================================================
 * >>be_stdio   descriptors 0 and 1 of the process, which stay open; a terminal becomes raw until the end
 *
 * far side   who started us          options   signal
 * events     OPENED from creation, CLOSED at end of input; RESIZED when the terminal has another size, seen within half
 *            a second
 * ==================================================================================================================== */
#if CHARDEV_HAS_STDIO

typedef struct chr__stdio {
    chr__fd_dev base;
    int         has_terminal; /* the process's 0 and 1 are ours */
    int         is_raw;
    int         echo;
    chr_timer   look;         /* whether a shell has put its own settings in place, after SIGSTOP and SIGCONT; and at
                                 the size */
    chr_terminal_size size;   /* as it was told last */
} chr__stdio;

enum { CHR__STDIO_LOOK_MS = 500 };

static const chr_option chr__stdio_rows[] = {
    { "signal", CHR_OPTION_BOOL, CHR__AT(chr_stdio_options, signal), "on", 0, 0, "^C and the like are signals, not input" },
    { NULL,     CHR_OPTION_TEXT, 0,                                  NULL, 0, 0, NULL }
};

static int chr__stdio_make_raw(chr__stdio *stdio)
{
    const chr_stdio_options *options = (const chr_stdio_options *)stdio->base.dev.options;

    return chr__os_terminal_make_raw(options->signal != CHR_OFF, stdio->echo);
}

/* Whether it is another than before. */
static int chr__stdio_resized(chr__stdio *stdio)
{
    chr_terminal_size now = stdio->size;

    (void)chr__os_terminal_size(0, &now.columns, &now.rows);
    if (now.columns == stdio->size.columns && now.rows == stdio->size.rows)
        return 0;
    stdio->size = now;
    return 1;
}

/* Handlers for SIGCONT and SIGWINCH would change a signal's disposition; a look now and then does not. */
static void chr__stdio_look(void *opaque)
{
    chr__stdio *stdio = (chr__stdio *)opaque;

    (void)chr__stdio_make_raw(stdio);
    chr_timer_start(stdio->base.dev.ctx, &stdio->look, CHR__STDIO_LOOK_MS, chr__stdio_look, stdio);
    if (chr__stdio_resized(stdio))
        chr_be_event(&stdio->base.dev, CHR_EVENT_RESIZED);
}

/* A standard input that is closed, or can't be read, has ended: as /dev/null. */
static int chr__stdio_start(chr__stdio *stdio, chr_error *err)
{
    chr__fd_dev *base = &stdio->base;
    int          in = chr__os_may(0, CHR_IN) ? 0 : chr__os_open("/dev/null", CHR__OPEN_READ, NULL);
    int          code = chr__fd_start_inherited(base, in >= 0 ? in : -1, chr__os_may(1, CHR_OUT) ? 1 : -1,
                                                chr__stream_input_over, err);

    if (in > 0)
        base->own_in = in;
    return code;
}

static int chr__stdio_open(chr_dev *dev, chr_error *err)
{
    chr__stdio *stdio = (chr__stdio *)dev;
    int         code;

    if (!chr__os_is_open(0) && !chr__os_is_open(1))
        return chr__fail(err, CHR_ERR_DISCONNECTED, "stdio: standard input and output are both closed");
    code = chr__os_terminal_acquire(dev->id, err);
    if (code < 0)
        return code;
    stdio->has_terminal = 1;
    code = chr__stdio_start(stdio, err);
    if (code < 0)
        return code;
    stdio->is_raw = chr__os_is_terminal(0);
    (void)chr__stdio_resized(stdio);
    if (stdio->is_raw)
        chr__stdio_look(stdio);
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

static void chr__stdio_close(chr_dev *dev)
{
    chr__stdio *stdio = (chr__stdio *)dev;

    chr_timer_stop(&stdio->look);
    chr__fd_close(dev);
    if (stdio->has_terminal)
        chr__os_terminal_release();
}

static int chr__stdio_get_size(chr__stdio *stdio, chr_terminal_size *size)
{
    if (!stdio->is_raw || chr__os_terminal_size(0, &size->columns, &size->rows) < 0)
        return CHR_ERR_NOT_SUPPORTED;
    stdio->size = *size; /* who asks needs no event */
    return size->columns || size->rows ? 0 : CHR_ERR_NOT_SUPPORTED;
}

static int chr__stdio_ioctl(chr_dev *dev, int command, void *arg)
{
    chr__stdio *stdio = (chr__stdio *)dev;

    if (command == CHR_IOCTL_GET_TERMINAL_SIZE)
        return chr__stdio_get_size(stdio, (chr_terminal_size *)arg);
    if (command != CHR_IOCTL_SET_ECHO || !stdio->is_raw)
        return CHR_ERR_NOT_SUPPORTED;
    stdio->echo = *(int *)arg;
    return chr__stdio_make_raw(stdio);
}

static const chr_backend chr__stdio_kind = {
    "stdio",                                  /* name         */
    NULL,                                     /* alias        */
    "standard input and output",              /* help         */
    chr__stdio_rows,                          /* options      */
    sizeof(chr_stdio_options),                /* options_size */
    sizeof(chr__stdio),                       /* state_size   */
    NULL,                                     /* uri          */
    chr__stdio_open,                          /* open         */
    chr__stdio_close,                         /* close        */
    &chr__stream_io,                          /* io           */
    NULL,                                     /* describe     */
    chr__stdio_ioctl,                         /* ioctl        */
    NULL,                                     /* set_open     */
    NULL,                                     /* peer         */
    NULL,                                     /* sharing      */
    0,                                        /* fixed        */
    NULL,                                     /* input        */
};
#endif

/* ====================================================================================================================
 * >>be_serial   a serial line, or any other terminal
 *
 * far side   what the line leads to          options   path, reconnect-ms
 * events     OPENED from creation; BREAK and LINE_ERROR; CLOSED when the device hangs up (unplugged); with reconnect-ms OPENED
 *            when it is back, and SERIAL if it can't have the settings that it shall
 *
 * It is opened at 115200 8N1, raw, without flow control, without waiting for a carrier. The line keeps its last settings at the end.
 * ==================================================================================================================== */
#if CHARDEV_HAS_SERIAL

/* The one layer above the descriptor: the system marks a break in the input as 0xff 0 0, a damaged byte X as 0xff 0
 * X, and doubles 0xff. */
typedef struct chr__marks {
    chr__layer    layer;
    unsigned char raw[4096];      /* read, not yet looked at: from `at` to `end` */
    int           at, end;
    int           state;          /* how many bytes of a mark have passed */
    unsigned      events;         /* one bit each of CHR_EVENT_..., to be told before the next byte */
    int           owed;           /* the damaged byte, which comes behind its event; -1 = none */
    int           fd;
    int           has_parity;     /* else what is damaged is its frame */
    int           seen[CHR__COUNTS]; /* breaks and errors that have been told, as the system counts them */
    int           errors;         /* CHR_LINE_..., to be asked for */
} chr__marks;

typedef struct chr__serial {
    chr_dev           dev;
    chr__stream       stream;
    chr__bottom       bottom;
    chr__marks        marks;
    int               fd;         /* -1 = unplugged */
    int               out;        /* of a device that is no terminal: its second number, so that output outlives the
                                     input; or -1 */
    chr_serial_params params;     /* what the line has, or shall have when it is back */
    int               flow;       /* the same of CHR_FLOW_... */
    int               lines;      /* the same of DTR and RTS; -1 = never set */
    int               in_break;   /* and of the break that we send */
    int               has_failed; /* reported; until the next success */
    chr_timer         retry;
} chr__serial;

static const chr_option chr__serial_rows[] = {
    { "path",         CHR_OPTION_TEXT,   CHR__AT(chr_serial_options, path),         CHR_REQUIRED, 0, 0,          "terminal device" },
    { "reconnect-ms", CHR_OPTION_NUMBER, CHR__AT(chr_serial_options, reconnect_ms), NULL,         0, 2000000000, "open an unplugged device again after so long" },
    { NULL,           CHR_OPTION_TEXT,   0,                                         NULL,         0, 0,          NULL }
};

static int chr__serial_uri(const char *uri, chr_options *options)
{
    if (!chr__after(uri, "/dev/") || chr__after(uri, "/dev/parport") || chr__after(uri, "/dev/ppi"))
        return 0;
    return chr__uri_path(uri, "", options);
}

/* -- marks -- */

/* Which it is, break or one of the errors: the one that the system has counted. Where it doesn't count, the likely
 * one. */
static int chr__marks_cause(chr__marks *marks, unsigned char byte)
{
    int now[CHR__COUNTS], i;

    if (chr__os_serial_counts(marks->fd, now) == 0)
        for (i = byte == 0 ? CHR__COUNT_BREAK : CHR__COUNT_FRAMING; i <= CHR__COUNT_PARITY; i++)
            if (now[i] != marks->seen[i]) {
                marks->seen[i] = (int)((unsigned)marks->seen[i] + 1);
                return i;
            }
    return byte == 0 ? CHR__COUNT_BREAK : marks->has_parity ? CHR__COUNT_PARITY : CHR__COUNT_FRAMING;
}

/* The third byte of a mark. */
static void chr__marks_found(chr__marks *marks, unsigned char byte)
{
    int cause = chr__marks_cause(marks, byte);

    if (cause == CHR__COUNT_BREAK) {
        marks->events |= 1u << CHR_EVENT_BREAK;
        return;
    }
    marks->errors |= cause == CHR__COUNT_PARITY ? CHR_LINE_PARITY : CHR_LINE_FRAMING;
    marks->events |= 1u << CHR_EVENT_LINE_ERROR;
    marks->owed = byte;
}

/* Passes one byte on: 1 = into *out, 0 = it was part of a mark. */
static int chr__marks_step(chr__marks *marks, unsigned char byte, unsigned char *out)
{
    int state = marks->state;

    marks->state = state == 0 ? byte == 0xff : state == 1 && byte == 0 ? 2 : 0;
    if (marks->state > 0)
        return 0;
    *out = byte;
    if (state == 2)
        chr__marks_found(marks, byte);
    return state != 2;
}

static int chr__marks_next_event(chr__marks *marks)
{
    int event = marks->events & 1u << CHR_EVENT_BREAK ? CHR_EVENT_BREAK : CHR_EVENT_LINE_ERROR;

    marks->events &= ~(1u << event);
    return CHR__LAYER_EVENT - event;
}

static int chr__marks_fill(chr__marks *marks)
{
    int n = marks->layer.below->slots->read(marks->layer.below, marks->raw, sizeof marks->raw);

    if (n <= 0)
        return n;
    marks->at = 0;
    marks->end = n;
    return n;
}

/* Up to the next event, which waits for the next call: so it comes where it was among the bytes. */
static int chr__marks_read(chr__layer *layer, void *buf, size_t len)
{
    chr__marks    *marks = (chr__marks *)layer;
    unsigned char *to = (unsigned char *)buf;
    size_t         done = 0;
    int            n;

    while (done == 0) {
        if (marks->events)
            return chr__marks_next_event(marks);
        if (marks->owed >= 0)
            to[done++] = (unsigned char)marks->owed;
        marks->owed = -1;
        if (done == 0 && marks->at == marks->end && (n = chr__marks_fill(marks)) <= 0)
            return n;
        while (marks->at < marks->end && done < len && !marks->events)
            done += (size_t)chr__marks_step(marks, marks->raw[marks->at++], to + done);
    }
    return (int)done;
}

/* A line that has hung up answers with an error of the device. */
static int chr__marks_write(chr__layer *layer, const void *buf, size_t len)
{
    int n = layer->below->slots->write(layer->below, buf, len);

    return n == CHR_ERR_IO ? CHR_ERR_DISCONNECTED : n;
}

static int chr__marks_pending(const chr__layer *layer)
{
    const chr__marks *marks = (const chr__marks *)layer;

    return marks->events || marks->owed >= 0 || marks->at < marks->end;
}

static const chr__layer_slots chr__marks_slots = {
    "marks", NULL, NULL, chr__marks_read, chr__marks_write, chr__marks_pending, NULL, NULL, NULL, NULL, NULL, NULL
};

/* -- plugged and unplugged -- */

static void chr__serial_retry(void *opaque);

/* The descriptor goes too, so that the device can come back under its old name. */
static void chr__serial_unplug(chr__serial *serial)
{
    chr__stream_close(&serial->stream);
    chr__os_close(serial->fd);
    chr__os_close(serial->out);
    serial->fd = serial->out = -1;
}

static void chr__serial_try_later(chr__serial *serial)
{
    int64_t ms = ((const chr_serial_options *)serial->dev.options)->reconnect_ms;

    if (ms > 0)
        chr_timer_start(serial->dev.ctx, &serial->retry, ms, chr__serial_retry, serial);
}

static void chr__serial_hung_up(chr__stream *stream, int code)
{
    chr__serial *serial = (chr__serial *)stream->dev;

    (void)code;
    chr__serial_unplug(serial);
    chr__serial_try_later(serial);
    chr_be_event(stream->dev, CHR_EVENT_CLOSED);
}

static int chr__serial_start(chr__serial *serial)
{
    memset(&serial->marks, 0, sizeof serial->marks);
    serial->marks.owed = -1;
    serial->marks.fd = serial->fd;
    serial->marks.has_parity = serial->params.parity != 'N';
    (void)chr__os_serial_counts(serial->fd, serial->marks.seen);
    serial->bottom.layer.slots = &chr__bottom_plain;
    serial->bottom.in = serial->bottom.out = serial->fd;
    serial->bottom.in_type = serial->bottom.out_type = chr__os_fd_type(serial->fd, 1);
    serial->marks.layer.slots = &chr__marks_slots;
    serial->marks.layer.below = &serial->bottom.layer;
    serial->bottom.layer.dev = serial->marks.layer.dev = &serial->dev;
    return chr__stream_open(&serial->stream, &serial->dev, &serial->marks.layer, serial->fd, serial->fd, chr__serial_hung_up, NULL);
}

/* A device that is no terminal (/dev/null): bytes as they are, no marks, no settings. At the end of its input it can
 * still be written. */
static int chr__serial_start_plain(chr__serial *serial, const char *path, chr_error *err)
{
    if (!chr__os_is_character_device(serial->fd))
        return chr__fail(err, CHR_ERR_INVALID, "serial: path=%s: is not a terminal or another character device", path);
    serial->out = chr__os_dup(serial->fd, 3);
    if (serial->out < 0)
        return chr__fail(err, serial->out, "serial: path=%s: no descriptor is left: %s", path,
                         chr_error_text(serial->out));
    serial->bottom.layer.slots = &chr__bottom_plain;
    serial->bottom.layer.dev = &serial->dev;
    serial->bottom.in = serial->fd;
    serial->bottom.out = serial->out;
    serial->bottom.in_type = serial->bottom.out_type = chr__os_fd_type(serial->fd, 1);
    return chr__stream_open(&serial->stream, &serial->dev, &serial->bottom.layer, serial->fd, serial->out,
                            chr__stream_input_over, err);
}

/* Makes the settings, and notes which of them the line has: *is_all is whether that is all. */
static int chr__serial_apply(chr__serial *serial, const chr_serial_params *params, int flow, int *is_all)
{
    chr_serial_params has = *params;
    int               out = chr__flow_out(flow), in = chr__flow_in(flow), off;
    int               code = chr__os_serial_configure(serial->fd, params, out, in),
        read = chr__os_serial_settings(serial->fd, &has, &out, &in);

    if (code < 0 && code != CHR_ERR_INVALID)
        return code;
    if (read < 0)
        return read;
    off = has.speed > params->speed ? has.speed - params->speed : params->speed - has.speed;
    *is_all = code == 0 && off <= params->speed / 10 && has.parity == params->parity &&
              has.data_bits == params->data_bits &&
              has.stop_bits == params->stop_bits && chr__flow(out, in) == flow;
    serial->params = has;
    serial->flow = chr__flow(out, in);
    serial->marks.has_parity = has.parity != 'N';
    return 0;
}

/* The line as the guest has set it; what a line doesn't have (a pty: modem lines) is no error here. */
static int chr__serial_configure(chr__serial *serial, const char *path, int *is_all, chr_error *err)
{
    int code = chr__serial_apply(serial, &serial->params, serial->flow, is_all);

    if (code < 0)
        return chr__fail(err, code, "%s: its settings can't be made: %s", path, chr_error_text(code));
    if (serial->lines >= 0)
        (void)chr__os_serial_set_lines(serial->fd, serial->lines);
    if (serial->in_break)
        (void)chr__os_serial_break(serial->fd, 1);
    return 0;
}

static int chr__serial_start_line(chr__serial *serial, const char *path, int *is_all, chr_error *err)
{
    int code = chr__serial_configure(serial, path, is_all, err);

    if (code < 0)
        return code;
    return chr__serial_start(serial) < 0 ? chr__no_memory(err) : 0;
}

static int chr__serial_plug(chr__serial *serial, chr_error *err)
{
    const char *path = ((const chr_serial_options *)serial->dev.options)->path;
    int         code = serial->fd = chr__os_open(path, CHR__OPEN_BOTH, err), is_all = 1;

    if (code < 0)
        return code;
    code = chr__os_is_terminal(serial->fd) ? chr__serial_start_line(serial, path, &is_all, err) :
        chr__serial_start_plain(serial, path, err);
    if (code < 0) {
        chr__serial_unplug(serial);
        return code;
    }
    serial->has_failed = 0;
    chr_be_event(&serial->dev, CHR_EVENT_OPENED);
    if (!is_all && serial->stream.top)
        chr_be_event(&serial->dev, CHR_EVENT_SERIAL);
    return 0;
}

static void chr__serial_attempt(chr__serial *serial)
{
    chr_error err;

    if (chr__serial_plug(serial, &err) == 0)
        return;
    if (!serial->has_failed)
        chr__log_line(serial->dev.ctx, serial->dev.id, err.text);
    serial->has_failed = 1;
    chr__serial_try_later(serial);
}

static void chr__serial_retry(void *opaque)
{
    chr__serial_attempt((chr__serial *)opaque);
}

static int chr__serial_open(chr_dev *dev, chr_error *err)
{
    static const chr_serial_params at_first = { 115200, 'N', 8, 1 };
    const chr_serial_options      *options = (const chr_serial_options *)dev->options;
    chr__serial                   *serial = (chr__serial *)dev;
    chr_error                      failure;
    int                            code;

    serial->params = at_first;
    serial->lines = serial->out = -1;
    code = chr__serial_plug(serial, &failure);
    if (code == CHR_ERR_NOT_FOUND && options->reconnect_ms > 0) { /* not plugged in yet */
        chr__log_line(dev->ctx, dev->id, failure.text);
        serial->has_failed = 1;
        chr__serial_try_later(serial);
        return 0;
    }
    if (code < 0 && err)
        *err = failure;
    return code;
}

static void chr__serial_close(chr_dev *dev)
{
    chr__serial *serial = (chr__serial *)dev;

    chr_timer_stop(&serial->retry);
    chr__serial_unplug(serial);
}

/* -- what the guest sets -- */

/* What a line that is there can't have is an error, behind which it has what comes next to it; one that is away
 * takes it all for now. */
static int chr__serial_set(chr__serial *serial, const chr_serial_params *params, int flow)
{
    int code, is_all = 1;

    if (!chr__serial_params_valid(params) || !chr__flow_valid(flow))
        return CHR_ERR_INVALID;
    flow = chr__flow(chr__flow_out(flow), chr__flow_in(flow));
    if (serial->fd >= 0) {
        code = chr__serial_apply(serial, params, flow, &is_all);
        return code < 0 ? code : is_all ? 0 : CHR_ERR_INVALID;
    }
    serial->params = *params;
    serial->flow = flow;
    return 0;
}

/* Others may have set it, too. */
static void chr__serial_look(chr__serial *serial)
{
    int out, in;

    if (serial->fd >= 0 && chr__os_serial_settings(serial->fd, &serial->params, &out, &in) == 0)
        serial->flow = chr__flow(out, in);
}

static int chr__serial_purge(chr__serial *serial, int what)
{
    if (!chr__purge_valid(what))
        return CHR_ERR_INVALID;
    if (what & CHR_PURGE_TRANSMIT)
        chr__outbox_purge(&serial->dev);
    if (what & CHR_PURGE_RECEIVE) {
        serial->marks.at = serial->marks.end = serial->marks.state = 0;
        serial->marks.owed = -1;
        serial->marks.events = 0;
    }
    return serial->fd < 0 ? 0 : chr__os_serial_purge(serial->fd, what);
}

/* An overrun leaves no mark in the input: only its count tells. */
static int chr__serial_errors(chr__serial *serial)
{
    chr__marks *marks = &serial->marks;
    int         now[CHR__COUNTS] = { 0 }, errors = marks->errors;

    if (serial->fd >= 0 && chr__os_serial_counts(serial->fd, now) == 0) {
        errors |= now[CHR__COUNT_OVERRUN] != marks->seen[CHR__COUNT_OVERRUN] ? CHR_LINE_OVERRUN : 0;
        marks->seen[CHR__COUNT_OVERRUN] = now[CHR__COUNT_OVERRUN];
    }
    marks->errors = 0;
    return errors;
}

static int chr__serial_ioctl(chr_dev *dev, int command, void *arg)
{
    chr__serial *serial = (chr__serial *)dev;

    if (serial->out >= 0)
        return CHR_ERR_NOT_SUPPORTED; /* it has no line */
    switch (command) {
    case CHR_IOCTL_SERIAL_SET_PARAMS:
        return chr__serial_set(serial, (const chr_serial_params *)arg, serial->flow);
    case CHR_IOCTL_SERIAL_GET_PARAMS:
        chr__serial_look(serial);
        *(chr_serial_params *)arg = serial->params;
        return 0;
    case CHR_IOCTL_SERIAL_SET_FLOW:
        return chr__serial_set(serial, &serial->params, *(const int *)arg);
    case CHR_IOCTL_SERIAL_GET_FLOW:
        chr__serial_look(serial);
        *(int *)arg = serial->flow;
        return 0;
    case CHR_IOCTL_SERIAL_PURGE:
        return chr__serial_purge(serial, *(const int *)arg);
    case CHR_IOCTL_SERIAL_GET_ERRORS:
        *(int *)arg = chr__serial_errors(serial);
        return 0;
    case CHR_IOCTL_SERIAL_SET_BREAK:
        serial->in_break = *(const int *)arg != 0;
        return serial->fd < 0 ? 0 : chr__os_serial_break(serial->fd, serial->in_break);
    case CHR_IOCTL_SERIAL_GET_TIOCM:
        return serial->fd < 0 ? CHR_ERR_DISCONNECTED : chr__os_serial_get_lines(serial->fd, (int *)arg);
    case CHR_IOCTL_SERIAL_SET_TIOCM:
        serial->lines = *(const int *)arg & (CHR_TIOCM_DTR | CHR_TIOCM_RTS);
        return serial->fd < 0 ? 0 : chr__os_serial_set_lines(serial->fd, serial->lines);
    default:
        return CHR_ERR_NOT_SUPPORTED;
    }
}

static void chr__serial_describe(const chr_dev *dev, chr_info *info)
{
    chr__format(info->filename, sizeof info->filename, "serial");
    info->comes_back = ((const chr_serial_options *)dev->options)->reconnect_ms > 0;
}

static const chr_backend chr__serial_kind = {
    "serial",                                 /* name         */
    "tty",                                    /* alias        */
    "a serial line, or any other terminal",   /* help         */
    chr__serial_rows,                         /* options      */
    sizeof(chr_serial_options),               /* options_size */
    sizeof(chr__serial),                      /* state_size   */
    chr__serial_uri,                          /* uri          */
    chr__serial_open,                         /* open         */
    chr__serial_close,                        /* close        */
    &chr__stream_io,                          /* io           */
    chr__serial_describe,                     /* describe     */
    chr__serial_ioctl,                        /* ioctl        */
    NULL,                                     /* set_open     */
    NULL,                                     /* peer         */
    NULL,                                     /* sharing      */
    0,                                        /* fixed        */
    NULL,                                     /* input        */
};
#endif

/* ====================================================================================================================
 * >>be_parallel   a parallel port: Linux's ppdev; the registers of FreeBSD's ppi
 *
 * far side   what is plugged in          options   path          events   OPENED from creation
 *
 * The guest drives its registers (CHR_IOCTL_PP_...). Bytes that it writes are printed in compatibility mode. There is no input.
 * ==================================================================================================================== */
#if CHARDEV_HAS_PARALLEL

typedef struct chr__parallel {
    chr_dev   dev;
    int       fd;
    int       is_claimed;
    int       mode;  /* enum chr__pp_mode */
    chr_timer again; /* a printer that is busy: poll() doesn't tell when it no longer is */
} chr__parallel;

enum { CHR__PARALLEL_BUSY_MS = 10 };

static const chr_option chr__parallel_rows[] = {
    { "path", CHR_OPTION_TEXT, CHR__AT(chr_parallel_options, path), CHR_REQUIRED, 0, 0, "parallel port, as /dev/parport0" },
    { NULL,   CHR_OPTION_TEXT, 0,                                   NULL,         0, 0, NULL }
};

static int chr__parallel_uri(const char *uri, chr_options *options)
{
    return chr__after(uri, "/dev/parport") || chr__after(uri, "/dev/ppi") ? chr__uri_path(uri, "", options) : 0;
}

static int chr__parallel_open(chr_dev *dev, chr_error *err)
{
    const char    *path = ((const chr_parallel_options *)dev->options)->path;
    chr__parallel *port = (chr__parallel *)dev;

    port->mode = CHR__PP_COMPATIBLE;
    port->fd = chr__os_open(path, CHR__OPEN_BOTH, err);
    if (port->fd < 0)
        return port->fd;
    if (chr__os_pp_claim(port->fd) < 0)
        return chr__fail(err, CHR_ERR_INVALID, "parallel: path=%s: is not a parallel port", path);
    port->is_claimed = 1;
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

static int chr__parallel_set_mode(chr__parallel *port, int mode)
{
    int code = port->mode == mode ? 0 : chr__os_pp_set_mode(port->fd, mode);

    if (code == 0)
        port->mode = mode;
    return code;
}

static void chr__parallel_close(chr_dev *dev)
{
    chr__parallel *port = (chr__parallel *)dev;

    chr_timer_stop(&port->again);
    if (port->is_claimed) {
        (void)chr__parallel_set_mode(port, CHR__PP_COMPATIBLE);
        (void)chr__os_pp_release(port->fd);
    }
    chr__os_close(port->fd);
}

static int chr__parallel_write(chr_dev *dev, const void *buf, size_t len)
{
    chr__parallel *port = (chr__parallel *)dev;
    int            code = chr__parallel_set_mode(port, CHR__PP_COMPATIBLE);

    if (code == 0)
        code = chr__os_write(port->fd, CHR__FD_PLAIN, buf, len);
    return code == 0 ? CHR_ERR_WOULD_BLOCK : code;
}

static void chr__parallel_again(void *opaque)
{
    chr_be_writable((chr_dev *)opaque);
}

static void chr__parallel_update(chr_dev *dev)
{
    if (chr_be_wants_writable(dev))
        chr_timer_start(dev->ctx, &((chr__parallel *)dev)->again, CHR__PARALLEL_BUSY_MS, chr__parallel_again, dev);
}

static int chr__parallel_epp(chr__parallel *port, int mode, int direction, const chr_parallel_epp *epp)
{
    int n, code = epp->count < 0 ? CHR_ERR_INVALID : chr__parallel_set_mode(port, mode);

    if (code < 0)
        return code;
    n = direction == CHR_IN ? chr__os_read(port->fd, epp->buf, (size_t)epp->count)
                            : chr__os_write(port->fd, CHR__FD_PLAIN, epp->buf, (size_t)epp->count);
    return n == epp->count ? 0 : n < 0 ? n : CHR_ERR_IO;
}

static int chr__parallel_ioctl(chr_dev *dev, int command, void *arg)
{
    chr__parallel          *port = (chr__parallel *)dev;
    unsigned char          *value = (unsigned char *)arg;
    const chr_parallel_epp *epp = (const chr_parallel_epp *)arg;
    int                     code;

    switch (command) {
    case CHR_IOCTL_PP_READ_DATA:         return chr__os_pp_register(port->fd, CHR__PP_READ_DATA, value);
    case CHR_IOCTL_PP_WRITE_DATA:        return chr__os_pp_register(port->fd, CHR__PP_WRITE_DATA, value);
    case CHR_IOCTL_PP_WRITE_CONTROL:     return chr__os_pp_register(port->fd, CHR__PP_WRITE_CONTROL, value);
    case CHR_IOCTL_PP_READ_STATUS:       return chr__os_pp_register(port->fd, CHR__PP_STATUS, value);
    case CHR_IOCTL_PP_READ_CONTROL:
        code = chr__os_pp_register(port->fd, CHR__PP_READ_CONTROL, value);
        if (code == 0)
            *value |= 0xc0; /* the system gives the four lines alone; on the port these two read as ones */
        return code;
    case CHR_IOCTL_PP_DATA_DIR:          return chr__os_pp_direction(port->fd, *(const int *)arg != 0);
    case CHR_IOCTL_PP_EPP_READ_ADDRESS:  return chr__parallel_epp(port, CHR__PP_EPP_ADDRESS, CHR_IN, epp);
    case CHR_IOCTL_PP_EPP_READ:          return chr__parallel_epp(port, CHR__PP_EPP, CHR_IN, epp);
    case CHR_IOCTL_PP_EPP_WRITE_ADDRESS: return chr__parallel_epp(port, CHR__PP_EPP_ADDRESS, CHR_OUT, epp);
    case CHR_IOCTL_PP_EPP_WRITE:         return chr__parallel_epp(port, CHR__PP_EPP, CHR_OUT, epp);
    default:                             return CHR_ERR_NOT_SUPPORTED;
    }
}

static const chr_io chr__parallel_io = {
    chr__parallel_write,  /* write   */
    NULL,                 /* read    */
    chr__parallel_update, /* update  */
    NULL,                 /* wait_fd */
};

static const chr_backend chr__parallel_kind = {
    "parallel",                               /* name         */
    "parport",                                /* alias        */
    "a parallel port",                        /* help         */
    chr__parallel_rows,                       /* options      */
    sizeof(chr_parallel_options),             /* options_size */
    sizeof(chr__parallel),                    /* state_size   */
    chr__parallel_uri,                        /* uri          */
    chr__parallel_open,                       /* open         */
    chr__parallel_close,                      /* close        */
    &chr__parallel_io,                        /* io           */
    NULL,                                     /* describe     */
    chr__parallel_ioctl,                      /* ioctl        */
    NULL,                                     /* set_open     */
    NULL,                                     /* peer         */
    NULL,                                     /* sharing      */
    0,                                        /* fixed        */
    NULL,                                     /* input        */
};
#endif

/* ====================================================================================================================
 * >>be_udp   datagrams to and from one peer
 *
 * far side   host:port; what others send is ignored          options   host, port, localaddr, localport, ipv4, ipv6
 * events     OPENED from creation: there is no connection, and so no CLOSED
 *
 * One write is one datagram, of at most 65507 bytes; what waited in obuf= or history= goes out together. A received one comes in as
 * many reads as the frontend needs; one that fits comes in one read. Refusals (ICMP) change nothing: the peer may come later. Names
 * are looked up at creation, which can block.
 * ==================================================================================================================== */
#if CHARDEV_HAS_UDP

enum { CHR__DATAGRAM_SIZE = 65536, CHR__DATAGRAM_MOST = 65507 /* that IPv4 can carry */ };

typedef struct chr__datagrams { /* a layer over the descriptor */
    chr__layer     layer;
    unsigned char *rest; /* of the last datagram, what the frontend had no room for: from `at` to `end` */
    int            at, end;
} chr__datagrams;

typedef struct chr__udp {
    chr_dev        dev;
    chr__stream    stream;
    chr__bottom    bottom;
    chr__datagrams datagrams;
    int            fd;
    char           name[300]; /* PEER:PORT@LOCAL:PORT, in numbers */
} chr__udp;

static const chr_option chr__udp_rows[] = {
    { "host",      CHR_OPTION_TEXT, CHR__AT(chr_udp_options, host),      "localhost",  0, 0, "name or number of the peer" },
    { "port",      CHR_OPTION_TEXT, CHR__AT(chr_udp_options, port),      CHR_REQUIRED, 0, 0, "its port number or service" },
    { "localaddr", CHR_OPTION_TEXT, CHR__AT(chr_udp_options, localaddr), NULL,         0, 0, "our own address (default: any)" },
    { "localport", CHR_OPTION_TEXT, CHR__AT(chr_udp_options, localport), NULL,         0, 0, "our own port (default: any)" },
    { "ipv4",      CHR_OPTION_BOOL, CHR__AT(chr_udp_options, ipv4),      NULL,         0, 0, "on: IPv4 only; off: not IPv4" },
    { "ipv6",      CHR_OPTION_BOOL, CHR__AT(chr_udp_options, ipv6),      NULL,         0, 0, "on: IPv6 only; off: not IPv6" },
    { NULL,        CHR_OPTION_TEXT, 0,                                   NULL,         0, 0, NULL }
};

/* udp:[HOST]:PORT[@[LOCALADDR]:LOCALPORT][,opts] */
static int chr__udp_uri(const char *uri, chr_options *options)
{
    const char *text = chr__after(uri, "udp:"), *at;
    size_t      len, peer;
    int         code;

    if (!text)
        return 0;
    len = chr__part_length(text);
    at = (const char *)memchr(text, '@', len);
    peer = at ? (size_t)(at - text) : len;
    code = chr__uri_host_port(text, peer, "host", "port", options);
    if (code >= 0 && at)
        code = chr__uri_host_port(at + 1, len - peer - 1, "localaddr", "localport", options);
    if (code >= 0 && text[len])
        code = chr__options_read(options, text + len + 1, NULL);
    return code < 0 ? code : 1;
}

/* -- check -- */

/* "" is as good as not given, as in udp::4444 */
static const char *chr__udp_given(const char *text)
{
    return text && text[0] ? text : NULL;
}

static int chr__udp_check_port(const char *key, const char *text, int64_t least, chr_error *err)
{
    int64_t port;

    if (text && chr__read_number(text, &port) && (port < least || port > 65535))
        return chr__fail(err, CHR_ERR_INVALID, "udp: %s=%s: out of range, %d to 65535", key, text, (int)least);
    return 0;
}

static int chr__udp_check(const chr_udp_options *options, chr_error *err)
{
    if (!chr__udp_given(options->port))
        return chr__fail(err, CHR_ERR_INVALID, "udp: needs port=");
    if (chr__udp_check_port("port", options->port, 1, err) < 0 || chr__udp_check_port("localport", options->localport, 0, err) < 0)
        return CHR_ERR_INVALID;
    if (options->ipv4 == CHR_OFF && options->ipv6 == CHR_OFF)
        return chr__fail(err, CHR_ERR_INVALID, "udp: ipv4=off and ipv6=off leave no address family");
    return 0;
}

/* -- datagrams, in pieces -- */

static int chr__datagrams_read(chr__layer *layer, void *buf, size_t len)
{
    chr__datagrams *datagrams = (chr__datagrams *)layer;
    int             n = datagrams->end - datagrams->at, most = (int)chr__min(len, CHR__DATAGRAM_SIZE);

    if (n > 0) {
        n = n < most ? n : most;
        memcpy(buf, datagrams->rest + datagrams->at, (size_t)n);
        datagrams->at += n;
        return n;
    }
    n = chr__os_datagram_receive(((chr__bottom *)layer->below)->in, buf, (size_t)most, datagrams->rest, CHR__DATAGRAM_SIZE);
    if (n <= most)
        return n;
    datagrams->at = 0;
    datagrams->end = n - most;
    return most;
}

static int chr__datagrams_write(chr__layer *layer, const void *buf, size_t len)
{
    return chr__os_datagram_send(((chr__bottom *)layer->below)->out, buf, chr__min(len, CHR__DATAGRAM_MOST));
}

static int chr__datagrams_pending(const chr__layer *layer)
{
    return ((const chr__datagrams *)layer)->at < ((const chr__datagrams *)layer)->end;
}

static const chr__layer_slots chr__datagrams_slots = {
    "datagrams", NULL, NULL, chr__datagrams_read, chr__datagrams_write, chr__datagrams_pending, NULL, NULL, NULL, NULL,
        NULL, NULL
};

/* To the stream a refusal looks like a hang-up. Here it is the end of nothing. */
static void chr__udp_refused(chr__stream *stream, int code)
{
    (void)code;
    stream->broken = 0;
    chr__os_socket_clear_error(stream->in);
    chr__stream_update(stream);
}

/* -- open and close -- */

/* As the options say it, for messages. */
static void chr__udp_name(const chr_udp_options *options, const char *host, char *text, size_t size)
{
    const char *local = chr__udp_given(options->localaddr), *port = chr__udp_given(options->localport);
    size_t      len = (size_t)chr__format(text, size, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, options->port);

    if ((local || port) && len < size)
        chr__format(text + len, size - len, local && strchr(local, ':') ? "@[%s]:%s" : "@%s:%s", local ? local : "", port ? port : "");
}

/* Addresses of our own end: 0 = any will do. */
static int chr__udp_locals(const chr_udp_options *options, chr__sockaddr *found, chr_error *err)
{
    const char *host = chr__udp_given(options->localaddr), *port = chr__udp_given(options->localport);

    if (!host && !port)
        return 0;
    return chr__os_lookup_type(SOCK_DGRAM, host, port ? port : "0", chr__ip_family(options->ipv4, options->ipv6), 1, 0, found, err);
}

static int chr__udp_resolve(chr__udp *udp, chr__sockaddr *found, chr_error *err)
{
    const chr_udp_options *options = (const chr_udp_options *)udp->dev.options;
    const char            *host = chr__udp_given(options->host);
    chr__sockaddr         *locals = found + CHR__MAX_ADDRESSES;
    int                    family = chr__ip_family(options->ipv4, options->ipv6), peer_count, local_count;

    if (!host)
        host = "localhost";
    peer_count = chr__os_lookup_type(SOCK_DGRAM, host, options->port, family, 0, 0, found, err);
    if (peer_count < 0)
        return peer_count;
    local_count = chr__udp_locals(options, locals, err);
    if (local_count < 0)
        return local_count;
    chr__udp_name(options, host, udp->name, sizeof udp->name);
    return chr__os_datagram_open(found, peer_count, locals, local_count, udp->name, err);
}

static int chr__udp_start(chr__udp *udp, chr_error *err)
{
    char peer[140], local[140];

    chr__os_socket_name(udp->fd, 1, peer, sizeof peer);
    chr__os_socket_name(udp->fd, 0, local, sizeof local);
    chr__format(udp->name, sizeof udp->name, "%s@%s", peer, local);
    udp->datagrams.rest = (unsigned char *)chr__allocate(udp->dev.ctx, CHR__DATAGRAM_SIZE);
    if (!udp->datagrams.rest)
        return chr__no_memory(err);
    udp->bottom.layer.slots = &chr__bottom_plain;
    udp->bottom.in = udp->bottom.out = udp->fd;
    udp->datagrams.layer.slots = &chr__datagrams_slots;
    udp->datagrams.layer.below = &udp->bottom.layer;
    udp->bottom.layer.dev = udp->datagrams.layer.dev = &udp->dev;
    return chr__stream_open(&udp->stream, &udp->dev, &udp->datagrams.layer, udp->fd, udp->fd, chr__udp_refused, err);
}

static int chr__udp_open(chr_dev *dev, chr_error *err)
{
    chr__udp      *udp = (chr__udp *)dev;
    chr__sockaddr *found;
    int            code = udp->fd = -1;

    if (chr__udp_check((const chr_udp_options *)dev->options, err) < 0)
        return CHR_ERR_INVALID;
    found = (chr__sockaddr *)chr__allocate(dev->ctx, 2 * CHR__MAX_ADDRESSES * sizeof *found);
    if (!found)
        return chr__no_memory(err);
    code = udp->fd = chr__udp_resolve(udp, found, err);
    chr__free(dev->ctx, found);
    if (code >= 0)
        code = chr__udp_start(udp, err);
    if (code < 0)
        return code;
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

static void chr__udp_close(chr_dev *dev)
{
    chr__udp *udp = (chr__udp *)dev;

    chr__stream_close(&udp->stream);
    chr__os_close(udp->fd);
    chr__free(dev->ctx, udp->datagrams.rest);
}

static void chr__udp_describe(const chr_dev *dev, chr_info *info)
{
    const chr__udp *udp = (const chr__udp *)dev;

    chr__format(info->filename, sizeof info->filename, "udp:%s", udp->name);
    chr__os_socket_name(udp->fd, 0, info->address, sizeof info->address);
    chr__os_socket_name(udp->fd, 1, info->peer, sizeof info->peer);
}

static const chr_backend chr__udp_kind = {
    "udp",                                    /* name         */
    NULL,                                     /* alias        */
    "datagrams to and from one peer",         /* help         */
    chr__udp_rows,                            /* options      */
    sizeof(chr_udp_options),                  /* options_size */
    sizeof(chr__udp),                         /* state_size   */
    chr__udp_uri,                             /* uri          */
    chr__udp_open,                            /* open         */
    chr__udp_close,                           /* close        */
    &chr__stream_io,                          /* io           */
    chr__udp_describe,                        /* describe     */
    NULL,                                     /* ioctl        */
    NULL,                                     /* set_open     */
    NULL,                                     /* peer         */
    NULL,                                     /* sharing      */
    0,                                        /* fixed        */
    NULL,                                     /* input        */
};
#endif

/* ====================================================================================================================
 * >>be_socket   a stream socket: server or client, over TCP, unix, vsock or a descriptor that is open already
 *
 * far side   the peer that is connected: one at a time, the next one waits in the backlog; or several (clients=,
 *            >>fan_out)
 * options    exactly one of path, host/port, cid/port, fd; server, wait; reconnect; what is spoken over it
 * events     OPENED when a peer is connected and all handshakes are over; CLOSED when it has gone and its input is read
 * ==================================================================================================================== */
#if CHARDEV_HAS_SOCKET

#define CHR__ROW(member) CHR__AT(chr_socket_options, member)

static const chr_option chr__socket_rows[] = {
    /* name           type                where                         default range           help */
    { "path",         CHR_OPTION_TEXT,   CHR__ROW(address.path),      NULL,  0, 0,           "unix socket" },
    { "host",         CHR_OPTION_TEXT,   CHR__ROW(address.host),      NULL,  0, 0,           "name or number of a host; \"\" = all interfaces, or this host" },
    { "port",         CHR_OPTION_TEXT,   CHR__ROW(address.port),      NULL,  0, 0,           "port number or service, with host or cid" },
    { "cid",          CHR_OPTION_NUMBER, CHR__ROW(address.cid),       NULL,  0, UINT32_MAX,  "vsock context id" },
    { "fd",           CHR_OPTION_FD,     CHR__ROW(address.fd),        NULL,  0, 0,           "descriptor that is open already: listening with server=on, else connected" },
    { "to",           CHR_OPTION_NUMBER, CHR__ROW(address.to),        NULL,  0, 65535,       "server: try all ports up to this one" },
    { "ipv4",         CHR_OPTION_BOOL,   CHR__ROW(address.ipv4),      NULL,  0, 0,           "on: IPv4 only; off: not IPv4" },
    { "ipv6",         CHR_OPTION_BOOL,   CHR__ROW(address.ipv6),      NULL,  0, 0,           "on: IPv6 only; off: not IPv6" },
    { "abstract",     CHR_OPTION_BOOL,   CHR__ROW(address.abstract),  "off", 0, 0,           "path is in Linux's abstract name space" },
    { "tight",        CHR_OPTION_BOOL,   CHR__ROW(address.tight),     "on",  0, 0,           "an abstract name is not padded with zeros" },
    { "mode",         CHR_OPTION_TEXT,   CHR__ROW(address.mode),      NULL,  0, 0,           "server: permissions of the socket file at path, octal (0660)" },
    { "group",        CHR_OPTION_TEXT,   CHR__ROW(address.group),     NULL,  0, 0,           "server: group of the socket file at path, name or number" },
    { "server",       CHR_OPTION_BOOL,   CHR__ROW(server),            "off", 0, 0,           "listen for a peer" },
    { "wait",         CHR_OPTION_BOOL,   CHR__ROW(wait),              NULL,  0, 0,           "server: block until a peer has come (default: on)" },
    { "nodelay",      CHR_OPTION_BOOL,   CHR__ROW(nodelay),           NULL,  0, 0,           "send small packets at once (TCP_NODELAY; default: off)" },
    { "delay",        CHR_OPTION_BOOL,   CHR__ROW(delay),             NULL,  0, 0,           "old word for the opposite of nodelay: not both" },
    { "reconnect",    CHR_OPTION_NUMBER, CHR__ROW(reconnect),         NULL,  0, 2000000,     "client: try again every so many seconds" },
    { "reconnect-ms", CHR_OPTION_NUMBER, CHR__ROW(reconnect_ms),      NULL,  0, 2000000000,  "client: try again every so many milliseconds" },
    { "telnet",       CHR_OPTION_BOOL,   CHR__ROW(telnet),            "off", 0, 0,           "speak telnet" },
    { "com-port",     CHR_OPTION_BOOL,   CHR__ROW(com_port),          "off", 0, 0,           "with telnet: line settings and modem lines too (RFC 2217)" },
    { "terminal-type", CHR_OPTION_TEXT,  CHR__ROW(terminal_type),     NULL,  0, 0,           "telnet or tn3270 client: the terminal's name, for its server" },
    { "tn3270",       CHR_OPTION_BOOL,   CHR__ROW(tn3270),            "off", 0, 0,           "speak tn3270" },
    { "websocket",    CHR_OPTION_BOOL,   CHR__ROW(websocket),         "off", 0, 0,           "speak websocket" },
    { "websocket-text", CHR_OPTION_BOOL, CHR__ROW(websocket_text),    "off", 0, 0,           "with websocket: text frames are input too; off: refused" },
    { "ws-path",      CHR_OPTION_TEXT,   CHR__ROW(ws_path),           NULL,  0, 0,           "with websocket: path served, * and ? in it (default: any); client: path and query" },
    { "ws-origin",    CHR_OPTION_LIST,   CHR__ROW(ws_origin),         NULL,  0, 0,           "with websocket: web pages that are let in beside our own, * and ? in it" },
    { "ws-page",      CHR_OPTION_TEXT,   CHR__ROW(ws_page),           NULL,  0, 0,           "with websocket: file that a browser gets at /" },
    { "half-close",   CHR_OPTION_BOOL,   CHR__ROW(half_close),        "off", 0, 0,           "the peer's end of input is an event, and output goes on; off: CLOSED" },
    { "keep-alive",   CHR_OPTION_BOOL,   CHR__ROW(keep_alive),        "off", 0, 0,           "find out peers that have vanished: TCP keep-alive, websocket pings" },
    { "keep-alive-idle", CHR_OPTION_NUMBER, CHR__ROW(keep_alive_idle), NULL, 0, 32767,       "seconds of silence before the first probe (default: the system's; websocket 30)" },
    { "keep-alive-interval", CHR_OPTION_NUMBER, CHR__ROW(keep_alive_interval), NULL, 0, 32767, "seconds between probes (default: the system's; websocket 10)" },
    { "keep-alive-count", CHR_OPTION_NUMBER, CHR__ROW(keep_alive_count), NULL, 0, 127,       "unanswered probes that end it (default: the system's; websocket 3)" },
    { "idle-timeout", CHR_OPTION_NUMBER, CHR__ROW(idle_timeout),      NULL,  0, 2000000,     "close a peer that sends nothing for so many seconds" },
    { "clients",      CHR_OPTION_NUMBER, CHR__ROW(clients),           "1",   1, 64,          "server: so many peers at once; output goes to all, input comes from any" },
    { "replace",      CHR_OPTION_BOOL,   CHR__ROW(replace),           "off", 0, 0,           "server: a new peer takes the place of the old one; off: it waits" },
    { "tls-creds",    CHR_OPTION_TEXT,   CHR__ROW(tls_creds),         NULL,  0, 0,           "id of TLS credentials" },
    { "tls-authz",    CHR_OPTION_TEXT,   CHR__ROW(tls_authz),         NULL,  0, 0,           "id of the list of peers that are let in" },
    { "tls-hostname", CHR_OPTION_TEXT,   CHR__ROW(tls_hostname),      NULL,  0, 0,           "whom to expect in the server's certificate" },
    { NULL,           CHR_OPTION_TEXT,   0,                           NULL,  0, 0,           NULL }
};

#undef CHR__ROW

/* -- >>socket_address   checks, names, addresses -- */

/* From text the type follows from the keys; exactly one of them must be there. */
static int chr__address_type(chr_address *address, chr_error *err)
{
    static const chr_address_type types[] = { CHR_ADDR_UNIX, CHR_ADDR_VSOCK, CHR_ADDR_FD, CHR_ADDR_INET };
    const char *keys[] = { " path=", " cid=", " fd=", address->host ? " host=" : " port=" };
    int         given[4], i, count = 0;
    char        names[40] = "";

    if (address->type != CHR_ADDR_NONE)
        return 0;
    given[0] = address->path != NULL;
    given[1] = address->cid != 0;
    given[2] = address->fd >= 0;
    given[3] = address->host != NULL || (address->port && !given[1]);
    for (i = 0; i < 4; i++)
        if (given[i]) {
            address->type = types[i];
            chr__format(names + strlen(names), sizeof names - strlen(names), "%s", keys[i]);
            count++;
        }
    if (count == 1)
        return 0;
    return chr__fail(err, CHR_ERR_INVALID, "socket: needs exactly one of path=, host=, cid= or fd=, given:%s", count ? names : " none");
}

static int chr__address_check(const chr_address *address, int is_server, chr_error *err)
{
    int64_t     port = 0;
    int         by_number = address->port && chr__read_number(address->port, &port);
    int         is_inet = address->type == CHR_ADDR_INET;
    const char *where = is_inet ? "host=" : "cid=";

    if ((is_inet || address->type == CHR_ADDR_VSOCK) && !address->port)
        return chr__fail(err, CHR_ERR_INVALID, "socket: %s needs port=", where);
    if (!is_inet && address->type != CHR_ADDR_VSOCK && address->port)
        return chr__fail(err, CHR_ERR_INVALID, "socket: port=%s goes with host= or cid= only", address->port);
    if (is_inet && by_number && (port < 0 || port > 65535))
        return chr__fail(err, CHR_ERR_INVALID, "socket: port=%s: out of range, 0 to 65535", address->port);
    if (address->type == CHR_ADDR_VSOCK && (!by_number || port < 0 || port > UINT32_MAX))
        return chr__fail(err, CHR_ERR_INVALID, "socket: port=%s: a vsock port is a number of 32 bits", address->port);
    if (address->to && (!is_inet || !is_server || !by_number || port > address->to))
        return chr__fail(err, CHR_ERR_INVALID, "socket: to=%d: goes with server=on, host= and a smaller port number", (int)address->to);
    if (address->abstract == CHR_ON && address->type != CHR_ADDR_UNIX)
        return chr__fail(err, CHR_ERR_INVALID, "socket: abstract=on goes with path= only");
    if (!is_inet && (address->ipv4 != CHR_DEFAULT || address->ipv6 != CHR_DEFAULT))
        return chr__fail(err, CHR_ERR_INVALID, "socket: ipv4= and ipv6= go with host= only");
    if ((address->mode || address->group) &&
        (address->type != CHR_ADDR_UNIX || address->abstract == CHR_ON || !is_server))
        return chr__fail(err, CHR_ERR_INVALID, "socket: %s= goes with server=on and path= only, not with abstract=on",
                         address->mode ? "mode" : "group");
    if ((address->ipv4 == CHR_OFF && address->ipv6 == CHR_OFF) || (address->ipv4 == CHR_ON && address->ipv6 == CHR_ON && !is_server))
        return chr__fail(err, CHR_ERR_INVALID, "socket: ipv4= and ipv6= leave no address family");
    return 0;
}

/* Permissions in octal, 0 to 0777. */
static int chr__address_mode(const char *text, unsigned *mode, chr_error *err)
{
    const char *digit = text;

    for (*mode = 0; *digit >= '0' && *digit <= '7' && *mode <= 0777; digit++)
        *mode = *mode * 8 + (unsigned)(*digit - '0');
    if (digit == text || *digit || *mode > 0777)
        return chr__fail(err, CHR_ERR_INVALID, "socket: mode=%s: is no octal number from 0 to 0777", text);
    return 0;
}

/* A name's entry may be long: many members. */
static int chr__address_group_name(chr_context *ctx, const char *name, unsigned *group, chr_error *err)
{
    size_t size;
    char  *buf;
    int    code = CHR_ERR_NO_MEMORY;

    for (size = 4096; size <= 1 << 22 && code == CHR_ERR_NO_MEMORY; size *= 4) {
        buf = (char *)chr__allocate(ctx, size);
        if (!buf)
            return chr__no_memory(err);
        code = chr__os_group(name, buf, size, group);
        chr__free(ctx, buf);
    }
    return code < 0 ? chr__fail(err, code, "socket: group=%s: there is no such group", name) : 0;
}

static int chr__address_group(chr_context *ctx, const char *text, unsigned *group, chr_error *err)
{
    int64_t number;

    if (!chr__read_number(text, &number))
        return chr__address_group_name(ctx, text, group, err);
    if (number < 0 || number >= UINT32_MAX)
        return chr__fail(err, CHR_ERR_INVALID, "socket: group=%s: out of range, 0 to 4294967294", text);
    *group = (unsigned)number;
    return 0;
}

/* What listening on an address needs to know beside it. */
static int chr__address_terms(chr_context *ctx, const chr_address *address, chr__listen_terms *terms, chr_error *err)
{
    memset(terms, 0, sizeof *terms);
    terms->is_one_family = chr__ip_family(address->ipv4, address->ipv6) == 6;
    terms->has_mode = address->mode != NULL;
    terms->has_group = address->group != NULL;
    if (address->mode && chr__address_mode(address->mode, &terms->mode, err) < 0)
        return CHR_ERR_INVALID;
    return address->group ? chr__address_group(ctx, address->group, &terms->group, err) : 0;
}

/* The one check of a descriptor that is open already; each fault has its own message. */
static int chr__address_check_fd(int fd, int is_server, chr__socket_facts *facts, chr_error *err)
{
    const char *fault;

    chr__os_socket_facts(fd, facts);
    fault = !facts->is_open                       ? "is not an open descriptor"
          : !facts->is_socket                     ? "is not a socket"
          : !facts->is_stream                     ? "is not a stream socket"
          : is_server && !facts->is_listening     ? "is not listening, as server=on says"
          : !is_server && facts->is_listening     ? "is listening: that needs server=on"
          : !is_server && !facts->is_connected    ? "is not connected, as server=off says"
                                                  : NULL;
    return fault ? chr__fail(err, CHR_ERR_INVALID, "socket: fd=%d: %s", fd, fault) : 0;
}

/* As the options say it: for messages, and for query while nobody is connected. */
static void chr__address_name(const chr_address *address, char *text, size_t size)
{
    const char *host = address->host ? address->host : "";

    switch (address->type) {
    case CHR_ADDR_UNIX:  chr__format(text, size, "%s%s", address->path, address->abstract == CHR_ON ? ",abstract=on" : ""); break;
    case CHR_ADDR_VSOCK: chr__format(text, size, "%lld:%s", (long long)address->cid, address->port); break;
    case CHR_ADDR_FD:    chr__format(text, size, "%d", address->fd); break;
    case CHR_ADDR_INET:
    case CHR_ADDR_NONE:
    default:             chr__format(text, size, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, address->port); break;
    }
}

/* -- what all layers stand on -- */

typedef struct chr__msgfds {
    int fds[CHR__MAX_MSGFDS], count;
} chr__msgfds;

typedef struct chr__socket_bottom { /* the lowest layer */
    chr__layer    layer;
    int           fd, is_unix, is_under; /* other layers */
    int           budget; /* under layers: what it may read still in this turn of the loop */
    unsigned      turn;
    uint64_t      received; /* likewise; what has come in all */
    chr__msgfds   outgoing, incoming;
    chr__receiver receiver;
} chr__socket_bottom;

static int chr__layer_fd(const chr__layer *layer)
{
    while (layer->below)
        layer = layer->below;
    return ((const chr__socket_bottom *)layer)->fd;
}

static const chr_socket_options *chr__layer_options(const chr__layer *layer)
{
    return (const chr_socket_options *)layer->dev->options;
}

/* --------------------------------------------------------------------------------------------------------------------
 * >>layer_telnet   telnet (RFC 854 to 858, 1073, 1091, 1143), server and client, and tn3270 (RFC 1576), server and client
 *
 * handshake   the opening offers are sent; a peer that answers none of them, like nc, is welcome too. A tn3270 client waits for
 *             its host to agree to records and to all byte values, both ways
 * bytes       telnet: all 256 values, 0xFF doubled on the wire; in is CR NUL a CR until the peer says WILL BINARY, out is a
 *             lone CR sent as CR NUL once the peer has refused BINARY
 *             tn3270: records as they are on the wire: IAC EOR ends one, 0xFF in them is doubled, in and out
 * urgent      a Synch (urgent data and DM) changes nothing: there is no data here that would be better discarded
 * events      BREAK; RESIZED when the peer tells its window's size, which it is asked for once it has shown that it negotiates;
 *             SERIAL, LINE_ERROR, PURGE_RECEIVE and PURGE_TRANSMIT with com-port
 * -------------------------------------------------------------------------------------------------------------------- */

enum { /* commands */
    CHR__TELNET_EOR = 239, CHR__TELNET_SE = 240, CHR__TELNET_BREAK = 243, CHR__TELNET_ARE_YOU_THERE = 246, CHR__TELNET_SB = 250,
    CHR__TELNET_WILL = 251, CHR__TELNET_WONT = 252, CHR__TELNET_DO = 253, CHR__TELNET_DONT = 254, CHR__TELNET_IAC = 255
};

enum { /* options; all that we ever agree to are below 64 */
    CHR__TELNET_BINARY = 0, CHR__TELNET_ECHO = 1, CHR__TELNET_SGA = 3, CHR__TELNET_TERMINAL_TYPE = 24,
    CHR__TELNET_END_OF_RECORD = 25, CHR__TELNET_WINDOW_SIZE = 31, CHR__TELNET_COM_PORT = 44, CHR__TELNET_OPTIONS = 64
};

#define CHR__TELNET_BIT(option) (UINT64_C(1) << (CHR__TELNET_##option))

enum { CHR__TELNET_TYPE_IS, CHR__TELNET_TYPE_SEND, CHR__TELNET_TYPE_MOST = 40, CHR__TELNET_SUB_SIZE = 96,
      CHR__TELNET_GREETING = 1 << 16 };

typedef enum chr__telnet_state {
    CHR__TELNET_IN_DATA,
    CHR__TELNET_IN_COMMAND,    /* after IAC */
    CHR__TELNET_IN_VERB,       /* after IAC WILL, WONT, DO, DONT */
    CHR__TELNET_IN_SUB,        /* after IAC SB */
    CHR__TELNET_IN_SUB_COMMAND /* after IAC in there */
} chr__telnet_state;

/* One side's state of one option, RFC 1143: as nobody here ever asks to turn one off, three of its six are enough. */
typedef enum chr__telnet_side { CHR__TELNET_NO, CHR__TELNET_ASKED, CHR__TELNET_YES } chr__telnet_side;

/* The serial line of a chardev with com-port=on. It outlives connections. */
typedef struct chr__com_port {
    chr_serial_params params, wanted; /* in force; of a client: what it has set, zeros = nothing yet */
    int               flow, wanted_flow; /* the same; -1 = nothing yet */
    int               errors;         /* CHR_LINE_... that a client's server has told */
    int               ours;           /* CHR_TIOCM_...: what our frontend drives; -1 = nothing yet */
    int               theirs;         /* what the peer drives */
    int               in_break;       /* our frontend holds the line in break */
} chr__com_port;

typedef struct chr__telnet_dev { /* the states of chardevs that may speak it begin like this */
    chr_dev           dev;
    chr__stream       stream;
    chr__com_port     com_port;
    chr_terminal_size terminal; /* of a client: what its frontend has set; 0 = not known */
} chr__telnet_dev;

typedef struct chr__telnet {
    chr__layer        layer;
    int               is_3270, is_server, has_com_port;
    uint64_t          ours_allowed, theirs_allowed; /* options, one bit each */
    unsigned char     ours[CHR__TELNET_OPTIONS], theirs[CHR__TELNET_OPTIONS]; /* chr__telnet_side */
    chr__telnet_state state;
    unsigned char     verb;
    unsigned char     sub[8];     /* the first bytes of a subnegotiation; the rest is skipped */
    size_t            sub_length;
    int               last_in, last_out; /* data bytes, for CR NUL */
    int               owed;       /* a byte that is to be read next, or -1 */
    unsigned          events;     /* one bit each of CHR_EVENT_..., to be told next */
    int               is_flooded; /* more to answer than the peer reads */
    int               asked_size; /* for the peer's window size, or offered ours */
    chr_terminal_size size;
    unsigned          to_tell;    /* what the peer is to be told, one bit each */
    int               greeting;   /* bytes of a host that has not agreed to tn3270 yet */
    unsigned char     line_mask, modem_mask, purged, errors;
    int               told_modem_state, their_break;
    int               is_stopped; /* the peer wants no output now */
    chr__box          in, out;
} chr__telnet;

/* -- out -- */

static int chr__telnet_send_kept(chr__telnet *telnet)
{
    int code = telnet->is_stopped ? (int)CHR_ERR_WOULD_BLOCK : chr__box_flush(&telnet->out, telnet->layer.below);

    telnet->layer.kept = chr__min(telnet->layer.kept, telnet->out.end - telnet->out.start);
    return code;
}

static void chr__telnet_send(chr__telnet *telnet, const void *bytes, size_t len)
{
    if (chr__box_put(&telnet->out, bytes, len) == 0)
        return;
    (void)chr__telnet_send_kept(telnet);
    if (chr__box_put(&telnet->out, bytes, len) < 0)
        telnet->is_flooded = 1;
}

static void chr__telnet_say(chr__telnet *telnet, int verb, int option)
{
    unsigned char bytes[3] = { CHR__TELNET_IAC, 0, 0 };

    bytes[1] = (unsigned char)verb;
    bytes[2] = (unsigned char)option;
    chr__telnet_send(telnet, bytes, sizeof bytes);
}

/* A subnegotiation. */
static void chr__telnet_send_sub(chr__telnet *telnet, int option, const unsigned char *bytes, size_t len)
{
    unsigned char packet[CHR__TELNET_SUB_SIZE] = { CHR__TELNET_IAC, CHR__TELNET_SB };
    size_t        i, end = 3;

    packet[2] = (unsigned char)option;
    for (i = 0; i < len && end < sizeof packet - 3; i++) {
        if (bytes[i] == CHR__TELNET_IAC)
            packet[end++] = CHR__TELNET_IAC;
        packet[end++] = bytes[i];
    }
    packet[end++] = CHR__TELNET_IAC;
    packet[end++] = CHR__TELNET_SE;
    chr__telnet_send(telnet, packet, end);
}

static void chr__telnet_ask(chr__telnet *telnet, int verb, int option)
{
    (verb == CHR__TELNET_WILL ? telnet->ours : telnet->theirs)[option] = CHR__TELNET_ASKED;
    chr__telnet_say(telnet, verb, option);
}

/* Encodes what there is room for; returns how much of `buf` that is. Our WILL BINARY came first in the stream and holds unless
 * the peer refuses it; then a CR gets its NUL, as soon as it is known that no LF follows. */
static size_t chr__telnet_encode(chr__telnet *telnet, const unsigned char *buf, size_t len)
{
    unsigned char *to = telnet->out.bytes + telnet->out.end;
    size_t         room = chr__box_room(&telnet->out), done = 0;
    int            is_text = telnet->ours[CHR__TELNET_BINARY] == CHR__TELNET_NO;

    for (; done < len && room >= 3; done++) {
        unsigned char *first = to;
        if (telnet->last_out == '\r' && buf[done] != '\n' && is_text)
            *to++ = 0;
        if (buf[done] == CHR__TELNET_IAC)
            *to++ = CHR__TELNET_IAC;
        *to++ = buf[done];
        telnet->last_out = buf[done];
        room -= (size_t)(to - first);
    }
    telnet->out.end = (size_t)(to - telnet->out.bytes);
    return done;
}

static size_t chr__telnet_encode_record(chr__telnet *telnet, const unsigned char *buf, size_t len)
{
    len = chr__min(len, chr__box_room(&telnet->out));
    (void)chr__box_put(&telnet->out, buf, len);
    return len;
}

/* -- >>com_port   a serial line over the network (RFC 2217): a server's client sets it, a client sets its server's --
 *
 * What is to be told, or to be answered, is one bit each; the words are made when there is room for them, from what is in force
 * then. So a peer that reads slowly costs nothing, and a server's frontend may correct what its client has set before the answer. */

enum { /* a client's commands; a server's are 100 more */
    CHR__COM_SIGNATURE, CHR__COM_SET_BAUDRATE, CHR__COM_SET_DATASIZE, CHR__COM_SET_PARITY, CHR__COM_SET_STOPSIZE, CHR__COM_SET_CONTROL,
    CHR__COM_NOTIFY_LINESTATE, CHR__COM_NOTIFY_MODEMSTATE, CHR__COM_SUSPEND, CHR__COM_RESUME, CHR__COM_SET_LINESTATE_MASK,
    CHR__COM_SET_MODEMSTATE_MASK, CHR__COM_PURGE_DATA, CHR__COM_COMMANDS,
    /* SET-CONTROL stands for five things that are told one by one, like the commands */
    CHR__COM_FLOW = CHR__COM_COMMANDS, CHR__COM_BREAK, CHR__COM_DTR, CHR__COM_RTS, CHR__COM_INBOUND_FLOW, CHR__COM_FACTS,
    CHR__TELNET_TYPE = CHR__COM_FACTS, CHR__TELNET_SIZE, CHR__TELNET_FACTS, /* and what a telnet client without it
                                                                               has to tell */
    CHR__COM_SERVER = 100
};

enum { /* line state; modem state, whose lower four bits say which of the upper ones have changed */
    CHR__COM_LINE_ERRORS = CHR_LINE_OVERRUN | CHR_LINE_PARITY | CHR_LINE_FRAMING, CHR__COM_LINE_BREAK = 0x10,
        CHR__COM_LINE_EMPTY = 0x60,
    CHR__COM_MODEM_CTS = 0x10, CHR__COM_MODEM_DSR = 0x20, CHR__COM_MODEM_RI = 0x40, CHR__COM_MODEM_CD = 0x80
};

enum { CHR__COM_PORT_FAR = CHR_TIOCM_CTS | CHR_TIOCM_CAR | CHR_TIOCM_RI | CHR_TIOCM_DSR };

#define CHR__COM_BIT(fact) (1u << (CHR__COM_##fact))
#define CHR__COM_ALL       ((1u << CHR__COM_FACTS) - 1)
#define CHR__COM_PARAMS    (CHR__COM_BIT(SET_BAUDRATE) | CHR__COM_BIT(SET_DATASIZE) | CHR__COM_BIT(SET_PARITY) | CHR__COM_BIT(SET_STOPSIZE))

static chr__com_port *chr__com_port_of(const chr__telnet *telnet)
{
    return &((chr__telnet_dev *)telnet->layer.dev)->com_port;
}

/* By the book a client says WILL and its server DO. */
static int chr__com_port_side(const chr__telnet *telnet)
{
    return (telnet->is_server ? telnet->theirs : telnet->ours)[CHR__TELNET_COM_PORT];
}

static int chr__com_port_is_on(const chr__telnet *telnet) { return chr__com_port_side(telnet) == CHR__TELNET_YES; }

static void chr__com_port_init(chr__com_port *port, int is_server)
{
    static const chr_serial_params at_first = { 115200, 'N', 8, 1 };

    port->params = at_first;
    port->wanted_flow = -1;
    port->ours = is_server ? CHR_TIOCM_DTR | CHR_TIOCM_RTS : -1; /* a line of three wires is always ready */
}

/* -- values as they are on the wire -- */

static const char chr__com_parities[] = "?NOEMS";

static uint32_t chr__com_port_value(const chr_serial_params *params, int command)
{
    switch (command) {
    case CHR__COM_SET_BAUDRATE: return (uint32_t)params->speed;
    case CHR__COM_SET_DATASIZE: return (uint32_t)params->data_bits;
    case CHR__COM_SET_PARITY:   return params->parity ? (uint32_t)(strchr(chr__com_parities, params->parity) - chr__com_parities) : 0;
    case CHR__COM_SET_STOPSIZE:
    default:                    return params->stop_bits == CHR_STOP_BITS_1_5 ? 3 : (uint32_t)params->stop_bits;
    }
}

/* Returns whether that changed something. What there isn't is left as it is. */
static int chr__com_port_take(chr_serial_params *params, int command, uint32_t value)
{
    chr_serial_params changed = *params;
    int               number = value <= 4000000 ? (int)value : 0;

    switch (command) {
    case CHR__COM_SET_BAUDRATE: changed.speed = number; break;
    case CHR__COM_SET_DATASIZE: changed.data_bits = number; break;
    case CHR__COM_SET_PARITY:   changed.parity = number <= 5 ? chr__com_parities[number] : 0; break;
    case CHR__COM_SET_STOPSIZE:
    default:                    changed.stop_bits = number == 3 ? (int)CHR_STOP_BITS_1_5 : number < 3 ? number : 0; break;
    }
    if (!chr__serial_params_valid(&changed) || chr__com_port_value(params, command) == value)
        return 0;
    *params = changed;
    return 1;
}

/* As they come out of the null modem between a server's frontend and its client; unless they are at the far end of it already. */
static int chr__com_port_cross(int lines)
{
    int crossed = (lines & CHR_TIOCM_DTR ? CHR_TIOCM_DSR | CHR_TIOCM_CAR : 0) | (lines & CHR_TIOCM_RTS ? CHR_TIOCM_CTS : 0);

    return lines & CHR__COM_PORT_FAR ? lines & CHR__COM_PORT_FAR : crossed;
}

static int chr__com_port_modem_state(int lines)
{
    lines = chr__com_port_cross(lines);
    return (lines & CHR_TIOCM_CTS ? CHR__COM_MODEM_CTS : 0) | (lines & CHR_TIOCM_DSR ? CHR__COM_MODEM_DSR : 0) |
           (lines & CHR_TIOCM_CAR ? CHR__COM_MODEM_CD : 0) | (lines & CHR_TIOCM_RI ? CHR__COM_MODEM_RI : 0);
}

static int chr__com_port_modem_lines(int state)
{
    return (state & CHR__COM_MODEM_CTS ? CHR_TIOCM_CTS : 0) | (state & CHR__COM_MODEM_DSR ? CHR_TIOCM_DSR : 0) |
           (state & CHR__COM_MODEM_CD ? CHR_TIOCM_CAR : 0) | (state & CHR__COM_MODEM_RI ? CHR_TIOCM_RI : 0);
}

/* The bits that say what has changed since it was told last; of RI only the end counts. */
static int chr__com_port_modem_changes(const chr__telnet *telnet, int state)
{
    int changed = (state ^ telnet->told_modem_state) & (CHR__COM_MODEM_CTS | CHR__COM_MODEM_DSR | CHR__COM_MODEM_CD);

    return (changed | (telnet->told_modem_state & ~state & CHR__COM_MODEM_RI)) >> 4;
}

/* -- out -- */

static void chr__com_port_send(chr__telnet *telnet, int command, const void *bytes, size_t len)
{
    unsigned char sub[CHR__TELNET_SUB_SIZE / 2];

    sub[0] = (unsigned char)(command + (telnet->is_server ? CHR__COM_SERVER : 0));
    len = chr__min(len, sizeof sub - 1);
    if (len > 0)
        memcpy(sub + 1, bytes, len);
    chr__telnet_send_sub(telnet, CHR__TELNET_COM_PORT, sub, 1 + len);
}

static void chr__com_port_say(chr__telnet *telnet, int command, uint32_t value)
{
    unsigned char bytes[4];
    int           len = command == CHR__COM_SET_BAUDRATE ? 4 : 1;

    chr__put_be(bytes, value, len);
    chr__com_port_send(telnet, command, bytes, (size_t)len);
}

static void chr__com_port_say_control(chr__telnet *telnet, int fact)
{
    const chr__com_port *port = chr__com_port_of(telnet);
    int                  flow = telnet->is_server ? port->flow : port->wanted_flow; /* of a client -1: the question */
    int                  lines = telnet->is_server ? port->theirs : port->ours;
    int                  in_break = telnet->is_server ? telnet->their_break : port->in_break;
    int                  value = fact == CHR__COM_FLOW  ? (flow < 0 ? 0 : 1 + chr__flow_out(flow))
                               : fact == CHR__COM_BREAK ? (in_break ? 5 : 6)
                               : fact == CHR__COM_DTR   ? (lines & CHR_TIOCM_DTR ? 8 : 9)
                               : fact == CHR__COM_RTS   ? (lines & CHR_TIOCM_RTS ? 11 : 12)
                                                     : flow < 0 ? 13 : 14 + chr__flow_in(flow);

    chr__com_port_say(telnet, CHR__COM_SET_CONTROL, (uint32_t)value);
}

static void chr__com_port_say_modem_state(chr__telnet *telnet)
{
    int state = chr__com_port_modem_state(chr__com_port_of(telnet)->ours);
    int told = (state | chr__com_port_modem_changes(telnet, state)) & telnet->modem_mask;

    if (telnet->is_server)
        chr__com_port_say(telnet, CHR__COM_NOTIFY_MODEMSTATE, (uint32_t)told);
    else
        chr__com_port_send(telnet, CHR__COM_NOTIFY_MODEMSTATE, NULL, 0);
    telnet->told_modem_state = state;
}

static int chr__com_port_line_state(const chr__telnet *telnet)
{
    return CHR__COM_LINE_EMPTY | telnet->errors | (chr__com_port_of(telnet)->in_break ? CHR__COM_LINE_BREAK : 0);
}

/* The errors are told once, the rest is as it is now. */
static void chr__com_port_say_line_state(chr__telnet *telnet)
{
    chr__com_port_say(telnet, CHR__COM_NOTIFY_LINESTATE,
                      (uint32_t)(chr__com_port_line_state(telnet) & telnet->line_mask));
    telnet->errors = 0;
}

/* -- and of a client's terminal -- */

static void chr__telnet_say_type(chr__telnet *telnet)
{
    const char   *given = chr__layer_options(&telnet->layer)->terminal_type;
    const char   *name = given ? given : telnet->is_3270 ? "IBM-3278-2-E" : "unknown";
    unsigned char sub[1 + CHR__TELNET_TYPE_MOST] = { CHR__TELNET_TYPE_IS };
    size_t        len = chr__min(strlen(name), CHR__TELNET_TYPE_MOST);

    memcpy(sub + 1, name, len);
    chr__telnet_send_sub(telnet, CHR__TELNET_TERMINAL_TYPE, sub, 1 + len);
}

static void chr__telnet_say_size(chr__telnet *telnet)
{
    const chr_terminal_size *size = &((chr__telnet_dev *)telnet->layer.dev)->terminal;
    unsigned char            sub[4];

    chr__put_be(sub, (uint64_t)size->columns, 2);
    chr__put_be(sub + 2, (uint64_t)size->rows, 2);
    chr__telnet_send_sub(telnet, CHR__TELNET_WINDOW_SIZE, sub, sizeof sub);
}

static void chr__telnet_tell_fact(chr__telnet *telnet, int fact)
{
    static const char    signature[] = "chardev.h " CHARDEV_VERSION;
    const chr__com_port *port = chr__com_port_of(telnet);

    switch (fact) {
    case CHR__COM_SIGNATURE:
        chr__com_port_send(telnet, fact, signature, sizeof signature - 1);
        break;
    case CHR__COM_SET_BAUDRATE: case CHR__COM_SET_DATASIZE: case CHR__COM_SET_PARITY: case CHR__COM_SET_STOPSIZE:
        chr__com_port_say(telnet, fact, chr__com_port_value(telnet->is_server ? &port->params : &port->wanted, fact));
        break;
    case CHR__COM_NOTIFY_LINESTATE:
        chr__com_port_say_line_state(telnet);
        break;
    case CHR__COM_NOTIFY_MODEMSTATE:
        chr__com_port_say_modem_state(telnet);
        break;
    case CHR__COM_SET_LINESTATE_MASK:
        chr__com_port_say(telnet, fact, telnet->line_mask);
        break;
    case CHR__COM_SET_MODEMSTATE_MASK:
        chr__com_port_say(telnet, fact, telnet->modem_mask);
        break;
    case CHR__COM_PURGE_DATA:
        chr__com_port_say(telnet, fact, telnet->purged);
        telnet->purged = 0;
        break;
    case CHR__TELNET_TYPE:
        chr__telnet_say_type(telnet);
        break;
    case CHR__TELNET_SIZE:
        chr__telnet_say_size(telnet);
        break;
    default:
        chr__com_port_say_control(telnet, fact);
        break;
    }
}

/* A server doesn't answer before its frontend has heard of what it may want to correct. */
static int chr__telnet_has_to_tell(const chr__telnet *telnet)
{
    return telnet->to_tell && (!telnet->events || !telnet->is_server);
}

/* Of these facts what there is room for. */
static void chr__telnet_tell(chr__telnet *telnet, unsigned facts)
{
    int fact;

    for (fact = 0; fact < CHR__TELNET_FACTS && chr__telnet_has_to_tell(telnet); fact++)
        if (telnet->to_tell & facts & (1u << fact) && chr__box_room(&telnet->out) > 0) {
            telnet->to_tell &= ~(1u << fact);
            chr__telnet_tell_fact(telnet, fact);
        }
}

/* -- negotiated -- */

static void chr__com_port_begins(chr__telnet *telnet)
{
    const chr__com_port *port = chr__com_port_of(telnet);

    (telnet->is_server ? telnet->theirs : telnet->ours)[CHR__TELNET_COM_PORT] = CHR__TELNET_YES;
    telnet->events |= 1u << CHR_EVENT_SERIAL;
    telnet->told_modem_state = chr__com_port_modem_state(port->ours);
    telnet->modem_mask = 0xff;
    telnet->to_tell |= CHR__COM_BIT(NOTIFY_MODEMSTATE);
    if (telnet->is_server)
        return;
    telnet->line_mask = CHR__COM_LINE_BREAK | CHR__COM_LINE_ERRORS;
    telnet->to_tell |= CHR__COM_PARAMS | CHR__COM_BIT(FLOW) | CHR__COM_BIT(SET_LINESTATE_MASK) | CHR__COM_BIT(SET_MODEMSTATE_MASK);
    if (port->wanted_flow >= 0 && chr__flow_in(port->wanted_flow) != chr__flow_out(port->wanted_flow))
        telnet->to_tell |= CHR__COM_BIT(INBOUND_FLOW);
    if (port->ours >= 0)
        telnet->to_tell |= CHR__COM_BIT(DTR) | CHR__COM_BIT(RTS);
    if (port->in_break)
        telnet->to_tell |= CHR__COM_BIT(BREAK);
}

static void chr__com_port_negotiated(chr__telnet *telnet, int was_on)
{
    int is_on = chr__com_port_is_on(telnet);

    if (is_on && !was_on)
        chr__com_port_begins(telnet);
    if (is_on || !was_on)
        return;
    telnet->events |= 1u << CHR_EVENT_SERIAL;
    telnet->to_tell &= ~CHR__COM_ALL;
    telnet->is_stopped = telnet->their_break = 0;
}

/* -- in -- */

/* The value of SET-CONTROL that sets an outbound flow control sets the inbound one too, until that gets another of
 * its own. */
static void chr__com_port_set_control_flow(chr__telnet *telnet, int value)
{
    chr__com_port *port = chr__com_port_of(telnet);
    int            was_split = chr__flow_in(port->flow) != chr__flow_out(port->flow);

    if (value >= 1 && value <= 3)
        port->flow = value - 1;
    if (value >= 1 && value <= 3 && was_split && telnet->is_server)
        telnet->to_tell |= CHR__COM_BIT(INBOUND_FLOW);
    if (value >= 14 && value <= 16)
        port->flow = chr__flow(chr__flow_out(port->flow), value - 14);
}

/* A server's client sets one of SET-CONTROL's five, or asks; also where it asks for what there isn't it learns what there is. */
static void chr__com_port_control(chr__telnet *telnet, int value)
{
    chr__com_port *port = chr__com_port_of(telnet);
    int            fact = value <= 3 || value == 17 || value == 19 ? CHR__COM_FLOW : value <= 6 ? CHR__COM_BREAK
                        : value <= 9 ? CHR__COM_DTR : value <= 12 ? CHR__COM_RTS : CHR__COM_INBOUND_FLOW;
    int            line = fact == CHR__COM_DTR ? CHR_TIOCM_DTR : CHR_TIOCM_RTS;
    int            flow = port->flow, theirs = port->theirs;

    if (value > 19)
        return;
    telnet->to_tell |= 1u << fact;
    chr__com_port_set_control_flow(telnet, value);
    if (value == 5 && !telnet->their_break)
        telnet->events |= 1u << CHR_EVENT_BREAK;
    if (value == 5 || value == 6)
        telnet->their_break = value == 5;
    if (value == 8 || value == 11)
        port->theirs |= line;
    if (value == 9 || value == 12)
        port->theirs &= ~line;
    if (flow != port->flow || theirs != port->theirs)
        telnet->events |= 1u << CHR_EVENT_SERIAL;
}

/* What was sent before has been delivered; what its frontend has queued for the client, and holds itself, goes. */
static void chr__com_port_purged(chr__telnet *telnet, int what)
{
    telnet->purged = (unsigned char)what;
    if (what & CHR_PURGE_RECEIVE) {
        chr__outbox_purge(telnet->layer.dev);
        telnet->events |= 1u << CHR_EVENT_PURGE_RECEIVE;
    }
    if (what & CHR_PURGE_TRANSMIT)
        telnet->events |= 1u << CHR_EVENT_PURGE_TRANSMIT;
}

static void chr__com_port_from_client(chr__telnet *telnet, int command, uint32_t value)
{
    if (command == CHR__COM_SET_CONTROL) {
        chr__com_port_control(telnet, (int)value);
        return;
    }
    if (command == CHR__COM_PURGE_DATA && !chr__purge_valid((int)value))
        return;
    telnet->to_tell |= 1u << command;
    if (CHR__COM_PARAMS & (1u << command) && chr__com_port_take(&chr__com_port_of(telnet)->params, command, value))
        telnet->events |= 1u << CHR_EVENT_SERIAL;
    if (command == CHR__COM_SET_LINESTATE_MASK)
        telnet->line_mask = (unsigned char)value;
    if (command == CHR__COM_SET_MODEMSTATE_MASK)
        telnet->modem_mask = (unsigned char)value;
    if (command == CHR__COM_PURGE_DATA)
        chr__com_port_purged(telnet, (int)value);
}

/* A server that has been asked for a split one says what it has in two answers. */
static void chr__com_port_told_control(chr__telnet *telnet, int value)
{
    chr__com_port *port = chr__com_port_of(telnet);
    int            in = chr__flow_in(port->flow), is_split = port->wanted_flow >= 0 && port->wanted_flow >> 4;

    chr__com_port_set_control_flow(telnet, value);
    if (is_split && value >= 1 && value <= 3)
        port->flow = chr__flow(value - 1, in);
}

static void chr__com_port_from_server(chr__telnet *telnet, int command, uint32_t value)
{
    chr__com_port *port = chr__com_port_of(telnet);
    int            lines = chr__com_port_modem_lines((int)value), flow = port->flow, theirs = port->theirs;

    if (command == CHR__COM_SIGNATURE)
        telnet->to_tell |= CHR__COM_BIT(SIGNATURE);
    if (CHR__COM_PARAMS & (1u << command) && chr__com_port_take(&port->params, command, value))
        telnet->events |= 1u << CHR_EVENT_SERIAL;
    if (command == CHR__COM_SET_CONTROL)
        chr__com_port_told_control(telnet, (int)value);
    if (command == CHR__COM_NOTIFY_MODEMSTATE)
        port->theirs = lines;
    if (flow != port->flow || theirs != port->theirs)
        telnet->events |= 1u << CHR_EVENT_SERIAL;
    if (command == CHR__COM_NOTIFY_LINESTATE && value & CHR__COM_LINE_BREAK)
        telnet->events |= 1u << CHR_EVENT_BREAK;
    if (command == CHR__COM_NOTIFY_LINESTATE && value & CHR__COM_LINE_ERRORS) {
        port->errors |= (int)value & CHR__COM_LINE_ERRORS;
        telnet->events |= 1u << CHR_EVENT_LINE_ERROR;
    }
}

/* How long the value of a command is. A signature that has a text is no question: it is skipped like what is too long. */
static int chr__com_port_length(const chr__telnet *telnet, int command)
{
    int is_notice = command == CHR__COM_NOTIFY_LINESTATE || command == CHR__COM_NOTIFY_MODEMSTATE;

    if (command == CHR__COM_SIGNATURE || command == CHR__COM_SUSPEND || command == CHR__COM_RESUME)
        return 0;
    return command == CHR__COM_SET_BAUDRATE ? 4 : is_notice && telnet->is_server ? 0 : 1;
}

static void chr__com_port_received(chr__telnet *telnet)
{
    int      command = telnet->sub_length < 2 ? -1 : telnet->sub[1] - (telnet->is_server ? 0 : CHR__COM_SERVER);
    uint32_t value;

    if (command < 0 || command >= CHR__COM_COMMANDS || chr__com_port_side(telnet) == CHR__TELNET_NO ||
        telnet->sub_length != 2 + (size_t)chr__com_port_length(telnet, command))
        return;
    if (!chr__com_port_is_on(telnet))
        chr__com_port_begins(telnet); /* some that are asked before they could offer it take that for the whole agreement */
    value = (uint32_t)chr__get_be(telnet->sub + 2, (int)telnet->sub_length - 2);
    if (command == CHR__COM_SUSPEND || command == CHR__COM_RESUME)
        telnet->is_stopped = command == CHR__COM_SUSPEND;
    else if (telnet->is_server)
        chr__com_port_from_client(telnet, command, value);
    else
        chr__com_port_from_server(telnet, command, value);
}

/* -- what the frontend sets and asks; telnet is NULL while nobody is connected -- */

/* What differs from what is in force, or from what was asked for last: answers to older questions may still be on
 * their way. */
static void chr__com_port_set_params(chr__com_port *port, chr__telnet *telnet, const chr_serial_params *params)
{
    int command;

    for (command = CHR__COM_SET_BAUDRATE; command <= CHR__COM_SET_STOPSIZE && telnet && !telnet->is_server; command++)
        if (chr__com_port_value(&port->wanted, command) != chr__com_port_value(params, command) ||
            chr__com_port_value(&port->params, command) != chr__com_port_value(params, command))
            telnet->to_tell |= 1u << command;
    port->params = port->wanted = *params;
}

static void chr__com_port_set_flow(chr__com_port *port, chr__telnet *telnet, int flow)
{
    int was_split = port->flow >> 4 || port->wanted_flow >> 4 > 0;

    flow = chr__flow(chr__flow_out(flow), chr__flow_in(flow));
    if (telnet && !telnet->is_server && (port->wanted_flow != flow || port->flow != flow))
        telnet->to_tell |= CHR__COM_BIT(FLOW) | (was_split || flow >> 4 ? CHR__COM_BIT(INBOUND_FLOW) : 0);
    port->flow = port->wanted_flow = flow;
}

static void chr__com_port_set_lines(chr__com_port *port, chr__telnet *telnet, int lines)
{
    int changed = port->ours < 0 ? -1 : port->ours ^ lines, state = chr__com_port_modem_state(lines), news;

    port->ours = lines;
    if (!telnet)
        return;
    news = ((state ^ telnet->told_modem_state) | chr__com_port_modem_changes(telnet, state)) & telnet->modem_mask;
    if (telnet->is_server)
        telnet->to_tell |= news ? CHR__COM_BIT(NOTIFY_MODEMSTATE) : 0;
    else
        telnet->to_tell |= (changed & CHR_TIOCM_DTR ? CHR__COM_BIT(DTR) : 0) | (changed & CHR_TIOCM_RTS ? CHR__COM_BIT(RTS) : 0);
}

/* Only its server has a line to purge; what is queued for that goes here. */
static int chr__com_port_purge(chr__telnet *telnet, int what)
{
    if (!chr__purge_valid(what))
        return CHR_ERR_INVALID;
    if (telnet && telnet->is_server)
        return CHR_ERR_NOT_SUPPORTED;
    if (!telnet)
        return 0;
    if (what & CHR_PURGE_TRANSMIT)
        chr__outbox_purge(telnet->layer.dev);
    telnet->purged = (unsigned char)(telnet->purged | what);
    telnet->to_tell |= CHR__COM_BIT(PURGE_DATA);
    return 0;
}

static int chr__com_port_set_errors(chr__telnet *telnet, int errors)
{
    if (telnet && !telnet->is_server)
        return CHR_ERR_NOT_SUPPORTED;
    if (telnet)
        telnet->errors = (unsigned char)((telnet->errors | errors) & CHR__COM_LINE_ERRORS & telnet->line_mask);
    if (telnet && telnet->errors)
        telnet->to_tell |= CHR__COM_BIT(NOTIFY_LINESTATE);
    return 0;
}

static int chr__com_port_set(chr__com_port *port, chr__telnet *telnet, int command, const void *arg)
{
    switch (command) {
    case CHR_IOCTL_SERIAL_SET_PARAMS:
        if (!chr__serial_params_valid((const chr_serial_params *)arg))
            return CHR_ERR_INVALID;
        chr__com_port_set_params(port, telnet, (const chr_serial_params *)arg);
        return 0;
    case CHR_IOCTL_SERIAL_SET_FLOW:
        if (!chr__flow_valid(*(const int *)arg))
            return CHR_ERR_INVALID;
        chr__com_port_set_flow(port, telnet, *(const int *)arg);
        return 0;
    case CHR_IOCTL_SERIAL_SET_TIOCM:
        chr__com_port_set_lines(port, telnet, *(const int *)arg & (CHR_TIOCM_DTR | CHR_TIOCM_RTS | CHR__COM_PORT_FAR));
        return 0;
    case CHR_IOCTL_SERIAL_SET_BREAK: /* of a connection it is telnet's affair */
        port->in_break = *(const int *)arg != 0;
        return 0;
    case CHR_IOCTL_SERIAL_PURGE:
        return chr__com_port_purge(telnet, *(const int *)arg);
    case CHR_IOCTL_SERIAL_SET_ERRORS:
        return chr__com_port_set_errors(telnet, *(const int *)arg);
    default:
        return CHR_ERR_NOT_SUPPORTED;
    }
}

static int chr__com_port_get(chr__com_port *port, int is_server, int command, void *arg)
{
    switch (command) {
    case CHR_IOCTL_SERIAL_GET_PARAMS:
        *(chr_serial_params *)arg = port->params;
        return 0;
    case CHR_IOCTL_SERIAL_GET_FLOW:
        *(int *)arg = port->flow;
        return 0;
    case CHR_IOCTL_SERIAL_GET_TIOCM:
        *(int *)arg = is_server ? chr__com_port_cross(port->theirs) : port->theirs;
        return 0;
    case CHR_IOCTL_SERIAL_GET_ERRORS:
        *(int *)arg = port->errors;
        port->errors = 0;
        return is_server ? (int)CHR_ERR_NOT_SUPPORTED : 0;
    default:
        return CHR_ERR_NOT_SUPPORTED;
    }
}

static int chr__com_port_ioctl(chr__com_port *port, chr__telnet *telnet, int command, void *arg)
{
    int is_get = command == CHR_IOCTL_SERIAL_GET_PARAMS || command == CHR_IOCTL_SERIAL_GET_FLOW ||
        command == CHR_IOCTL_SERIAL_GET_TIOCM ||
                 command == CHR_IOCTL_SERIAL_GET_ERRORS;
    int is_on = telnet && chr__com_port_is_on(telnet), code;

    if (is_get)
        return is_on ? chr__com_port_get(port, telnet->is_server, command, arg) : telnet ? CHR_ERR_NOT_SUPPORTED : CHR_ERR_DISCONNECTED;
    code = chr__com_port_set(port, is_on ? telnet : NULL, command, arg);
    return code == 0 && telnet && chr__com_port_side(telnet) == CHR__TELNET_NO ? CHR_ERR_NOT_SUPPORTED : code;
}

/* -- out, with what the com port has to tell -- */

static int chr__telnet_flush(chr__layer *layer)
{
    chr__telnet *telnet = (chr__telnet *)layer;

    if (telnet->to_tell)
        chr__telnet_tell(telnet, ~0u);
    return chr__telnet_send_kept(telnet);
}

static int chr__telnet_write(chr__layer *layer, const void *buf, size_t len)
{
    chr__telnet         *telnet = (chr__telnet *)layer;
    const unsigned char *from = (const unsigned char *)buf;
    size_t               done = 0;
    int                  code = chr__telnet_flush(layer);

    len = chr__min(len, CHR__TURN_BYTES);
    while (code == 0 && done < len) {
        size_t count = (telnet->is_3270 ? chr__telnet_encode_record : chr__telnet_encode)(telnet, from + done,
                                                                                          len - done);
        done += count;
        layer->kept += count;
        code = chr__telnet_flush(layer);
    }
    return done > 0 ? (int)done : code;
}

/* -- negotiation -- */

/* Only what changes a state is answered, and what is refused: so there are no loops. */
static void chr__telnet_negotiate(chr__telnet *telnet, int verb, int option)
{
    int            is_theirs = verb == CHR__TELNET_WILL || verb == CHR__TELNET_WONT;
    int            turns_on = verb == CHR__TELNET_WILL || verb == CHR__TELNET_DO;
    int            yes = is_theirs ? CHR__TELNET_DO : CHR__TELNET_WILL, no = yes + 1;
    uint64_t       allowed = is_theirs ? telnet->theirs_allowed : telnet->ours_allowed;
    int            is_allowed = option < CHR__TELNET_OPTIONS && (allowed & (UINT64_C(1) << option));
    unsigned char *side = (is_theirs ? telnet->theirs : telnet->ours) + option % CHR__TELNET_OPTIONS;

    if (!is_allowed) {
        if (turns_on)
            chr__telnet_say(telnet, no, option);
        return;
    }
    if (turns_on && *side == CHR__TELNET_NO)
        chr__telnet_say(telnet, yes, option);
    else if (!turns_on && *side == CHR__TELNET_YES)
        chr__telnet_say(telnet, no, option);
    *side = turns_on ? CHR__TELNET_YES : CHR__TELNET_NO;
}

/* Whether the frontend of a client has said how large its terminal is. */
static int chr__telnet_has_size(const chr__telnet *telnet)
{
    const chr_terminal_size *size = &((const chr__telnet_dev *)telnet->layer.dev)->terminal;

    return size->columns > 0 || size->rows > 0;
}

static void chr__telnet_negotiated(chr__telnet *telnet, int option)
{
    int com_port_was_on = chr__com_port_is_on(telnet);

    chr__telnet_negotiate(telnet, telnet->verb, option);
    chr__com_port_negotiated(telnet, com_port_was_on);
    if (option == CHR__TELNET_WINDOW_SIZE && chr__telnet_has_size(telnet) && telnet->ours[option] == CHR__TELNET_YES)
        telnet->to_tell |= 1u << CHR__TELNET_SIZE;
    if (!(telnet->theirs_allowed & CHR__TELNET_BIT(WINDOW_SIZE)) || telnet->asked_size)
        return;
    telnet->asked_size = 1;
    if (telnet->theirs[CHR__TELNET_WINDOW_SIZE] == CHR__TELNET_NO)
        chr__telnet_ask(telnet, CHR__TELNET_DO, CHR__TELNET_WINDOW_SIZE);
}

static void chr__telnet_subnegotiated(chr__telnet *telnet)
{
    const unsigned char *sub = telnet->sub;

    if (telnet->sub_length > 0 && sub[0] == CHR__TELNET_COM_PORT)
        chr__com_port_received(telnet);
    if (telnet->sub_length == 2 && sub[0] == CHR__TELNET_TERMINAL_TYPE && sub[1] == CHR__TELNET_TYPE_SEND &&
        telnet->ours[CHR__TELNET_TERMINAL_TYPE] == CHR__TELNET_YES)
        telnet->to_tell |= 1u << CHR__TELNET_TYPE;
    if (telnet->sub_length != 5 || sub[0] != CHR__TELNET_WINDOW_SIZE || !(telnet->theirs_allowed & CHR__TELNET_BIT(WINDOW_SIZE)))
        return;
    telnet->size.columns = (int)chr__get_be(sub + 1, 2);
    telnet->size.rows = (int)chr__get_be(sub + 3, 2);
    telnet->events |= 1u << CHR_EVENT_RESIZED;
}

/* -- in -- */

/* Up to the next byte that may mean something else. */
static size_t chr__telnet_plain(const chr__telnet *telnet, const unsigned char *bytes, size_t len)
{
    const void *stop = memchr(bytes, CHR__TELNET_IAC, len);

    len = stop ? (size_t)((const unsigned char *)stop - bytes) : len;
    if (telnet->is_3270 || telnet->theirs[CHR__TELNET_BINARY] == CHR__TELNET_YES)
        return len;
    stop = memchr(bytes, 0, len);
    return stop ? (size_t)((const unsigned char *)stop - bytes) : len;
}

/* The byte after IAC. Returns whether data came of it, in *data. */
static int chr__telnet_command(chr__telnet *telnet, unsigned char c, unsigned char *data)
{
    int is_kept = telnet->is_3270 && (c == CHR__TELNET_IAC || c == CHR__TELNET_EOR ||
                                      (telnet->is_server && (c == CHR__TELNET_SB || c == CHR__TELNET_SE)));

    if (telnet->to_tell)
        chr__telnet_tell(telnet, ~0u); /* what came before gets an answer of its own */
    telnet->state = CHR__TELNET_IN_DATA;
    if (c == CHR__TELNET_BREAK)
        telnet->events |= 1u << CHR_EVENT_BREAK;
    if (c == CHR__TELNET_ARE_YOU_THERE && !telnet->is_3270)
        chr__telnet_send(telnet, "\r\n[Yes]\r\n", 9);
    if (is_kept)
        telnet->owed = c;
    *data = CHR__TELNET_IAC;
    if (is_kept || c == CHR__TELNET_IAC)
        return telnet->last_in = CHR__TELNET_IAC, 1;
    telnet->verb = c;
    telnet->sub_length = 0;
    if (c >= CHR__TELNET_WILL)
        telnet->state = CHR__TELNET_IN_VERB;
    else if (c == CHR__TELNET_SB)
        telnet->state = CHR__TELNET_IN_SUB;
    return 0;
}

static void chr__telnet_sub_byte(chr__telnet *telnet, unsigned char c)
{
    if (telnet->sub_length < sizeof telnet->sub)
        telnet->sub[telnet->sub_length++] = c;
}

/* A byte that may mean something else. */
static int chr__telnet_data_byte(chr__telnet *telnet, unsigned char c, unsigned char *data)
{
    int is_data = c != CHR__TELNET_IAC && !(c == 0 && telnet->last_in == '\r');

    if (c == CHR__TELNET_IAC)
        telnet->state = CHR__TELNET_IN_COMMAND;
    else
        telnet->last_in = c;
    *data = c;
    return is_data;
}

/* One byte that is not plain. Returns whether data came of it, in *data. */
static int chr__telnet_byte(chr__telnet *telnet, unsigned char c, unsigned char *data)
{
    switch (telnet->state) {
    case CHR__TELNET_IN_DATA:
        return chr__telnet_data_byte(telnet, c, data);
    case CHR__TELNET_IN_COMMAND:
        return chr__telnet_command(telnet, c, data);
    case CHR__TELNET_IN_VERB:
        telnet->state = CHR__TELNET_IN_DATA;
        chr__telnet_negotiated(telnet, c);
        return 0;
    case CHR__TELNET_IN_SUB:
        if (c == CHR__TELNET_IAC)
            telnet->state = CHR__TELNET_IN_SUB_COMMAND;
        else
            chr__telnet_sub_byte(telnet, c);
        return 0;
    case CHR__TELNET_IN_SUB_COMMAND:
    default:
        telnet->state = c == CHR__TELNET_SE ? CHR__TELNET_IN_DATA : CHR__TELNET_IN_SUB;
        if (c == CHR__TELNET_SE)
            chr__telnet_subnegotiated(telnet);
        else if (c == CHR__TELNET_IAC)
            chr__telnet_sub_byte(telnet, c);
        return 0;
    }
}

static size_t chr__telnet_give_owed(chr__telnet *telnet, unsigned char *buf, size_t len)
{
    if (telnet->owed < 0 || len == 0)
        return 0;
    *buf = (unsigned char)telnet->owed;
    telnet->owed = -1;
    return 1;
}

/* Copies what is plain. */
static size_t chr__telnet_take_plain(chr__telnet *telnet, unsigned char *buf, size_t len)
{
    const unsigned char *from = telnet->in.bytes + telnet->in.start;
    size_t               plain = telnet->state == CHR__TELNET_IN_DATA ? chr__telnet_plain(telnet, from, len) : 0;

    if (plain == 0)
        return 0;
    memcpy(buf, from, plain);
    telnet->last_in = buf[plain - 1];
    telnet->in.start += plain;
    return plain;
}

/* What is in the inbox becomes data, until that is full, or an event comes between. */
static size_t chr__telnet_decode(chr__telnet *telnet, unsigned char *buf, size_t len)
{
    chr__box *in = &telnet->in;
    size_t    done = chr__telnet_give_owed(telnet, buf, len), plain;

    while (done < len && !chr__box_is_empty(in) && !telnet->events && !telnet->is_flooded) {
        plain = chr__telnet_take_plain(telnet, buf + done, chr__min(in->end - in->start, len - done));
        if (plain == 0)
            plain = (size_t)chr__telnet_byte(telnet, in->bytes[in->start++], buf + done);
        done += plain;
        done += chr__telnet_give_owed(telnet, buf + done, len - done);
    }
    return done;
}

static int chr__telnet_next_event(chr__telnet *telnet)
{
    int event = 0;

    while (!(telnet->events & 1u << event))
        event++;
    telnet->events &= ~(1u << event);
    return event;
}

static int chr__telnet_read(chr__layer *layer, void *buf, size_t len)
{
    chr__telnet *telnet = (chr__telnet *)layer;
    size_t       done;
    int          n = 1;

    if (telnet->events)
        return CHR__LAYER_EVENT - chr__telnet_next_event(telnet);
    if (telnet->owed < 0 && chr__box_is_empty(&telnet->in))
        n = chr__box_fill(&telnet->in, layer->below);
    if (n <= 0)
        return n;
    done = chr__telnet_decode(telnet, (unsigned char *)buf, len);
    (void)chr__telnet_flush(layer); /* the answers; an error will meet the next write or read */
    if (done > 0)
        return (int)done;
    return telnet->is_flooded ? (int)CHR_ERR_IO : (int)CHR__LAYER_NOTHING;
}

static int chr__telnet_pending(const chr__layer *layer)
{
    const chr__telnet *telnet = (const chr__telnet *)layer;

    return telnet->owed >= 0 || telnet->events || !chr__box_is_empty(&telnet->in);
}

/* -- the rest of the slots -- */

/* A client's, once for each server. */
static void chr__telnet_offer_size(chr__telnet *telnet)
{
    if (!telnet->asked_size && telnet->ours[CHR__TELNET_WINDOW_SIZE] == CHR__TELNET_NO)
        chr__telnet_ask(telnet, CHR__TELNET_WILL, CHR__TELNET_WINDOW_SIZE);
    telnet->asked_size = 1;
}

static void chr__telnet_start_server(chr__telnet *telnet)
{
    telnet->ours_allowed = CHR__TELNET_BIT(ECHO) | CHR__TELNET_BIT(SGA) | CHR__TELNET_BIT(BINARY);
    telnet->theirs_allowed = CHR__TELNET_BIT(SGA) | CHR__TELNET_BIT(BINARY) | CHR__TELNET_BIT(WINDOW_SIZE);
    chr__telnet_ask(telnet, CHR__TELNET_WILL, CHR__TELNET_ECHO);
    chr__telnet_ask(telnet, CHR__TELNET_WILL, CHR__TELNET_SGA);
    chr__telnet_ask(telnet, CHR__TELNET_WILL, CHR__TELNET_BINARY);
    chr__telnet_ask(telnet, CHR__TELNET_DO, CHR__TELNET_BINARY);
}

/* The guest's line is transparent: nothing between is to edit or translate. */
static void chr__telnet_start_client(chr__telnet *telnet)
{
    telnet->ours_allowed = CHR__TELNET_BIT(SGA) | CHR__TELNET_BIT(BINARY) | CHR__TELNET_BIT(TERMINAL_TYPE) |
        CHR__TELNET_BIT(WINDOW_SIZE);
    telnet->theirs_allowed = CHR__TELNET_BIT(ECHO) | CHR__TELNET_BIT(SGA) | CHR__TELNET_BIT(BINARY);
    chr__telnet_ask(telnet, CHR__TELNET_DO, CHR__TELNET_SGA);
    chr__telnet_ask(telnet, CHR__TELNET_WILL, CHR__TELNET_BINARY);
    chr__telnet_ask(telnet, CHR__TELNET_DO, CHR__TELNET_BINARY);
    if (chr__telnet_has_size(telnet))
        chr__telnet_offer_size(telnet);
}

static void chr__telnet_start_3270_server(chr__telnet *telnet)
{
    static const unsigned char send_type[] = { CHR__TELNET_IAC, CHR__TELNET_SB, CHR__TELNET_TERMINAL_TYPE, 1,
                                               CHR__TELNET_IAC, CHR__TELNET_SE };

    telnet->ours_allowed = CHR__TELNET_BIT(END_OF_RECORD) | CHR__TELNET_BIT(BINARY);
    telnet->theirs_allowed = telnet->ours_allowed | CHR__TELNET_BIT(TERMINAL_TYPE);
    chr__telnet_ask(telnet, CHR__TELNET_DO, CHR__TELNET_END_OF_RECORD);
    chr__telnet_ask(telnet, CHR__TELNET_WILL, CHR__TELNET_END_OF_RECORD);
    chr__telnet_ask(telnet, CHR__TELNET_DO, CHR__TELNET_BINARY);
    chr__telnet_ask(telnet, CHR__TELNET_WILL, CHR__TELNET_BINARY);
    chr__telnet_ask(telnet, CHR__TELNET_DO, CHR__TELNET_TERMINAL_TYPE);
    chr__telnet_send(telnet, send_type, sizeof send_type);
}

/* It is the host that begins. */
static void chr__telnet_start_3270_client(chr__telnet *telnet)
{
    telnet->theirs_allowed = CHR__TELNET_BIT(END_OF_RECORD) | CHR__TELNET_BIT(BINARY);
    telnet->ours_allowed = telnet->theirs_allowed | CHR__TELNET_BIT(TERMINAL_TYPE);
}

/* There are some that say both WILL and DO. */
static void chr__telnet_start_com_port(chr__telnet *telnet)
{
    telnet->ours_allowed |= CHR__TELNET_BIT(COM_PORT);
    telnet->theirs_allowed |= CHR__TELNET_BIT(COM_PORT);
    chr__telnet_ask(telnet, telnet->is_server ? CHR__TELNET_DO : CHR__TELNET_WILL, CHR__TELNET_COM_PORT);
}

static int chr__telnet_start(chr__layer *layer, chr_error *err)
{
    chr__telnet              *telnet = (chr__telnet *)layer;
    const chr_socket_options *options = chr__layer_options(layer);

    (void)err;
    telnet->owed = -1;
    telnet->is_server = options->server == CHR_ON;
    telnet->has_com_port = options->com_port == CHR_ON;
    telnet->is_3270 = options->tn3270 == CHR_ON;
    if (telnet->is_3270 && telnet->is_server)
        chr__telnet_start_3270_server(telnet);
    else if (telnet->is_3270)
        chr__telnet_start_3270_client(telnet);
    else if (telnet->is_server)
        chr__telnet_start_server(telnet);
    else
        chr__telnet_start_client(telnet);
    if (telnet->has_com_port)
        chr__telnet_start_com_port(telnet);
    return 0;
}

/* Records and all byte values, both ways (RFC 1576 section 4). */
static int chr__telnet_is_agreed(const chr__telnet *telnet)
{
    const unsigned char *ours = telnet->ours, *theirs = telnet->theirs;

    return ours[CHR__TELNET_END_OF_RECORD] == CHR__TELNET_YES && theirs[CHR__TELNET_END_OF_RECORD] == CHR__TELNET_YES &&
           ours[CHR__TELNET_BINARY] == CHR__TELNET_YES && theirs[CHR__TELNET_BINARY] == CHR__TELNET_YES;
}

/* Whether what comes next is no data. */
static int chr__telnet_is_at_command(const chr__telnet *telnet)
{
    const unsigned char *next = telnet->in.bytes + telnet->in.start;

    return telnet->state != CHR__TELNET_IN_DATA ||
        (telnet->in.end - telnet->in.start >= 2 && next[0] == CHR__TELNET_IAC &&
         next[1] != CHR__TELNET_IAC && next[1] != CHR__TELNET_EOR);
}

/* What a host says before it agrees is for people, like a greeting: it is dropped. The rest of the negotiation is
 * answered, and the first record stays in the inbox. */
static void chr__telnet_agree(chr__telnet *telnet)
{
    unsigned char dropped;

    while (!chr__box_is_empty(&telnet->in) && (!chr__telnet_is_agreed(telnet) || chr__telnet_is_at_command(telnet))) {
        (void)chr__telnet_byte(telnet, telnet->in.bytes[telnet->in.start++], &dropped);
        if (!chr__telnet_is_agreed(telnet)) {
            telnet->events = 0;
            telnet->owed = -1;
        }
    }
}

static int chr__telnet_step_3270(chr__telnet *telnet, int *wants, chr_error *err)
{
    int n;

    while (!chr__telnet_is_agreed(telnet)) {
        n = chr__box_fill(&telnet->in, telnet->layer.below);
        *wants = CHR_IN;
        if (n == CHR_ERR_WOULD_BLOCK || n == CHR__LAYER_NOTHING)
            return CHR_ERR_WOULD_BLOCK;
        telnet->greeting += n > 0 ? n : 1;
        if (n <= 0)
            return chr__fail(err, n == 0 ? (int)CHR_ERR_DISCONNECTED : n,
                             "tn3270: the host went before it agreed to records");
        if (telnet->greeting > CHR__TELNET_GREETING || telnet->is_flooded)
            return chr__fail(err, CHR_ERR_IO, "tn3270: the host sent more than %d bytes and has not agreed to records",
                             CHR__TELNET_GREETING);
        chr__telnet_agree(telnet);
        (void)chr__telnet_flush(&telnet->layer); /* an error will meet the next step, write or read */
    }
    return 0;
}

static int chr__telnet_step(chr__layer *layer, int *wants, chr_error *err)
{
    chr__telnet *telnet = (chr__telnet *)layer;
    int          code = chr__telnet_flush(layer);

    *wants = CHR_OUT;
    if (code == 0 && telnet->is_3270 && !telnet->is_server)
        return chr__telnet_step_3270(telnet, wants, err);
    if (code == 0 && telnet->has_com_port) /* the line is this peer's now */
        /* many clients never say so */
        chr__com_port_of(telnet)->theirs = telnet->is_server ? CHR_TIOCM_DTR | CHR_TIOCM_RTS : 0;
    return code == 0 || code == CHR_ERR_WOULD_BLOCK ? code : chr__fail(err, code, "telnet: the peer went before it was greeted");
}

static int chr__telnet_unsent(const chr__layer *layer)
{
    const chr__telnet *telnet = (const chr__telnet *)layer;

    int                count = (int)(telnet->out.end - telnet->out.start) + (chr__telnet_has_to_tell(telnet) ? 1 : 0);

    return telnet->is_stopped ? -1 - count : count;
}

/* In the way that the peer understands. It begins at once or not at all, since its end would take its place among what waits; and it
 * ends as soon as there is room. */
static int chr__telnet_set_break(chr__telnet *telnet, int in_break)
{
    static const unsigned char break_signal[] = { CHR__TELNET_IAC, CHR__TELNET_BREAK };
    int                        is_told = chr__com_port_is_on(telnet) && telnet->line_mask & CHR__COM_LINE_BREAK;
    int                        fact = telnet->is_server ? CHR__COM_NOTIFY_LINESTATE : CHR__COM_BREAK;

    if (in_break && chr__box_room(&telnet->out) < sizeof break_signal)
        return CHR_ERR_WOULD_BLOCK;
    if (telnet->has_com_port)
        chr__com_port_of(telnet)->in_break = in_break;
    if (in_break && is_told)
        chr__telnet_tell_fact(telnet, fact);
    else if (in_break)
        chr__telnet_send(telnet, break_signal, sizeof break_signal);
    else if (is_told)
        telnet->to_tell |= 1u << fact;
    (void)chr__telnet_flush(&telnet->layer);
    return 0;
}

/* Of a client; telnet is NULL while it is not connected. */
static int chr__telnet_set_size(chr__telnet_dev *state, chr__telnet *telnet, const chr_terminal_size *size)
{
    if (!chr__terminal_size_valid(size))
        return CHR_ERR_INVALID;
    state->terminal = *size;
    if (!telnet)
        return 0;
    chr__telnet_offer_size(telnet);
    if (telnet->ours[CHR__TELNET_WINDOW_SIZE] == CHR__TELNET_YES)
        telnet->to_tell |= 1u << CHR__TELNET_SIZE;
    (void)chr__telnet_flush(&telnet->layer);
    return telnet->ours[CHR__TELNET_WINDOW_SIZE] == CHR__TELNET_NO ? CHR_ERR_NOT_SUPPORTED : 0;
}

/* While nobody is connected. */
static int chr__telnet_ioctl_away(chr_dev *dev, int command, void *arg)
{
    const chr_socket_options *options = (const chr_socket_options *)dev->options;
    chr__telnet_dev          *state = (chr__telnet_dev *)dev;

    if (command == CHR_IOCTL_SET_TERMINAL_SIZE && options->telnet == CHR_ON && options->server != CHR_ON)
        return chr__telnet_set_size(state, NULL, (const chr_terminal_size *)arg);
    return options->com_port == CHR_ON ? chr__com_port_ioctl(&state->com_port, NULL, command, arg) :
        CHR_ERR_NOT_SUPPORTED;
}

static int chr__telnet_com_port_ioctl(chr__telnet *telnet, int command, void *arg)
{
    int code = chr__com_port_ioctl(chr__com_port_of(telnet), telnet, command, arg);

    /* a server's handler may go on correcting */
    chr__telnet_tell(telnet, telnet->is_server ? CHR__COM_BIT(NOTIFY_MODEMSTATE) | CHR__COM_BIT(NOTIFY_LINESTATE) :
                     ~0u);
    (void)chr__telnet_send_kept(telnet);
    return code;
}

static int chr__telnet_ioctl(chr__layer *layer, int command, void *arg)
{
    chr__telnet *telnet = (chr__telnet *)layer;

    switch (command) {
    case CHR_IOCTL_SERIAL_SET_BREAK:
        return chr__telnet_set_break(telnet, *(const int *)arg != 0);
    case CHR_IOCTL_GET_TERMINAL_SIZE:
        *(chr_terminal_size *)arg = telnet->size;
        return telnet->size.columns || telnet->size.rows ? 0 : CHR_ERR_NOT_SUPPORTED;
    case CHR_IOCTL_SET_TERMINAL_SIZE:
        return telnet->is_server || telnet->is_3270 ? (int)CHR_ERR_NOT_SUPPORTED
                                                    : chr__telnet_set_size((chr__telnet_dev *)layer->dev, telnet, (const chr_terminal_size *)arg);
    default:
        return telnet->has_com_port ? chr__telnet_com_port_ioctl(telnet, command, arg) : CHR_ERR_NOT_SUPPORTED;
    }
}

static const chr__layer_slots chr__telnet_slots = {
    "telnet",            /* name    */
    chr__telnet_start,   /* start   */
    chr__telnet_step,    /* step    */
    chr__telnet_read,    /* read    */
    chr__telnet_write,   /* write   */
    chr__telnet_pending, /* pending */
    chr__telnet_unsent,  /* unsent  */
    chr__telnet_flush,   /* flush   */
    NULL,                /* shutdown */
    chr__telnet_ioctl,   /* ioctl   */
    NULL,                /* ping    */
    NULL,                /* close   */
};

/* --------------------------------------------------------------------------------------------------------------------
 * >>layer_websocket   websocket (RFC 6455), server and client
 *
 * handshake   HTTP upgrade of the path "/", subprotocol "binary" when the peer offers it; heads of up to 8 KiB
 * bytes       payload of binary frames; of text frames too with websocket-text=on (UTF-8 is checked), else they are refused.
 *             Frames and messages may be of any length: they pass through as they come. Output: one binary frame a write
 * the end     a Close frame is answered, and sent before we hang up; what breaks the protocol is told so with its code. The
 *             descriptor lingers until the peer has closed too
 * -------------------------------------------------------------------------------------------------------------------- */

/* -- SHA-1 (FIPS 180), for the handshake's proof and for masks -- */

enum { CHR__SHA1_SIZE = 20, CHR__SHA1_BLOCK = 64 };


static uint32_t chr__sha1_mix(int round, uint32_t b, uint32_t c, uint32_t d)
{
    switch (round / 20) {
    case 0:  return ((b & c) | (~b & d)) + 0x5a827999u;
    case 1:  return (b ^ c ^ d) + 0x6ed9eba1u;
    case 2:  return ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdcu;
    default: return (b ^ c ^ d) + 0xca62c1d6u;
    }
}

static void chr__sha1_block(uint32_t hash[5], const unsigned char *block)
{
    uint32_t words[80], a = hash[0], b = hash[1], c = hash[2], d = hash[3], e = hash[4], next;
    int      i;

    for (i = 0; i < 16; i++, block += 4)
        words[i] = (uint32_t)chr__get_be(block, 4);
    for (; i < 80; i++)
        words[i] = chr__rotate(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
    for (i = 0; i < 80; i++) {
        next = chr__rotate(a, 5) + chr__sha1_mix(i, b, c, d) + e + words[i];
        e = d;
        d = c;
        c = chr__rotate(b, 30);
        b = a;
        a = next;
    }
    hash[0] += a;
    hash[1] += b;
    hash[2] += c;
    hash[3] += d;
    hash[4] += e;
}

/* Of up to 119 bytes: two blocks hold them with their padding. */
static void chr__sha1(const void *bytes, size_t len, unsigned char digest[CHR__SHA1_SIZE])
{
    unsigned char padded[2 * CHR__SHA1_BLOCK] = { 0 };
    uint32_t      hash[5] = { 0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u, 0xc3d2e1f0u };
    size_t        i, size = len + 9 > CHR__SHA1_BLOCK ? 2 * CHR__SHA1_BLOCK : CHR__SHA1_BLOCK;

    memcpy(padded, bytes, len);
    padded[len] = 0x80;
    chr__put_be(padded + size - 8, 8 * (uint64_t)len, 8); /* in bits */
    for (i = 0; i < size; i += CHR__SHA1_BLOCK)
        chr__sha1_block(hash, padded + i);
    for (i = 0; i < 5; i++)
        chr__put_be(digest + 4 * i, hash[i], 4);
}

/* -- the state -- */

enum { CHR__WS_MORE = 0, CHR__WS_TEXT = 1, CHR__WS_BINARY = 2, CHR__WS_CLOSE = 8, CHR__WS_PING = 9, CHR__WS_PONG = 10 };
enum { CHR__WS_FINAL = 0x80, CHR__WS_MASKED = 0x80 };
enum { CHR__WS_NORMAL = 1000, CHR__WS_PROTOCOL = 1002, CHR__WS_UNWELCOME = 1003, CHR__WS_NO_CODE = 1005, CHR__WS_NOT_UTF8 = 1007 };
enum { CHR__WS_HEAD = 8192, CHR__WS_KEY = 24, CHR__WS_CONTROL = 125 };

typedef enum chr__ws_state {
    CHR__WS_SHAKING,    /* the peer's head is not complete */
    CHR__WS_ACCEPTING,  /* ours is not sent */
    CHR__WS_REFUSING,   /* likewise, and then it is over */
    CHR__WS_PAGE,       /* likewise: a page is being sent */
    CHR__WS_OPEN,
    CHR__WS_HALF,       /* our Close frame is queued or sent; the peer's has not come yet: it may still send data */
    CHR__WS_OVER        /* a Close frame is queued */
} chr__ws_state;

typedef struct chr__websocket {
    chr__layer      layer;
    chr__ws_state   state;
    int             is_server, passes_text;
    char            key[CHR__WS_KEY + 1]; /* the client's */
    const char     *fault;                /* why the handshake failed, and what of the peer's was wrong */
    char            detail[128];
    int             has_page, page;       /* the file that is being sent */
    int64_t         page_left;            /* bytes of it */
    size_t          scanned, matched;     /* of the peer's head: bytes, and those of its end */
    unsigned char   seed[CHR__SHA1_SIZE + 4], masks[CHR__SHA1_SIZE]; /* the client's masks: SHA-1 of a secret and a count */
    size_t          mask_next;
    /* the frame that is coming in */
    unsigned char   header[14];
    size_t          header_length;
    uint64_t        left;                 /* payload of it that is still to come */
    size_t          mask_at;
    int             opcode, is_final;
    int             message;              /* opcode of the message that is under way, or 0 */
    chr__utf8       utf8;
    unsigned char   control[CHR__WS_CONTROL]; /* payload of a control frame */
    size_t          control_length;
    unsigned char   pong[CHR__WS_CONTROL];    /* what the last Ping said, until there is room to answer */
    size_t          pong_length;
    int             owes_pong;
    chr__box        in, out;
} chr__websocket;

/* -- frames out -- */

static void chr__ws_next_mask(chr__websocket *ws, unsigned char mask[4])
{
    size_t i;

    if (ws->mask_next == 0) {
        for (i = sizeof ws->seed - 1; i >= CHR__SHA1_SIZE && ++ws->seed[i] == 0; i--)
            ;
        chr__sha1(ws->seed, sizeof ws->seed, ws->masks);
    }
    memcpy(mask, ws->masks + ws->mask_next, 4);
    ws->mask_next = (ws->mask_next + 4) % CHR__SHA1_SIZE;
}

/* Fills in what precedes the payload; returns its length, at most 8 as our frames fit into the outbox. */
static size_t chr__ws_header(chr__websocket *ws, int opcode, size_t len, unsigned char *header)
{
    size_t count = 0, masked = ws->is_server ? 0 : CHR__WS_MASKED;

    header[count++] = (unsigned char)(CHR__WS_FINAL | opcode);
    if (len < 126) {
        header[count++] = (unsigned char)(masked | len);
    } else {
        header[count++] = (unsigned char)(masked | 126);
        chr__put_be(header + count, len, 2);
        count += 2;
    }
    if (masked) {
        chr__ws_next_mask(ws, header + count);
        count += 4;
    }
    return count;
}

/* A whole frame goes into the outbox, or nothing of it. */
static int chr__ws_frame(chr__websocket *ws, int opcode, const void *payload, size_t len)
{
    unsigned char        header[8], *to;
    const unsigned char *mask;
    size_t               i, count = len < 126 ? 2 : 4;

    if (!ws->is_server)
        count += 4;
    if (count + len > sizeof ws->out.bytes - ws->out.end)
        return CHR_ERR_WOULD_BLOCK;
    count = chr__ws_header(ws, opcode, len, header);
    to = ws->out.bytes + ws->out.end + count;
    mask = ws->is_server ? header : header + count - 4;
    (void)chr__box_put(&ws->out, header, count);
    (void)chr__box_put(&ws->out, payload, len);
    for (i = 0; i < len && !ws->is_server; i++)
        to[i] ^= mask[i & 3];
    return 0;
}

static void chr__ws_try_pong(chr__websocket *ws)
{
    if (ws->owes_pong && ws->state == CHR__WS_OPEN && chr__ws_frame(ws, CHR__WS_PONG, ws->pong, ws->pong_length) == 0)
        ws->owes_pong = 0;
}

static int chr__ws_flush(chr__layer *layer)
{
    chr__websocket *ws = (chr__websocket *)layer;
    int             code = chr__box_flush(&ws->out, layer->below);

    if (code == 0)
        layer->kept = 0;
    if (code != 0 || !ws->owes_pong || ws->state != CHR__WS_OPEN)
        return code;
    chr__ws_try_pong(ws);
    return chr__box_flush(&ws->out, layer->below);
}

static int chr__ws_write(chr__layer *layer, const void *buf, size_t len)
{
    chr__websocket      *ws = (chr__websocket *)layer;
    const unsigned char *from = (const unsigned char *)buf;
    size_t               done = 0, most = CHR__BOX_SIZE - CHR__BOX_RESERVE, count;
    int                  code = chr__ws_flush(layer);

    if (ws->state != CHR__WS_OPEN)
        return CHR_ERR_DISCONNECTED;
    len = chr__min(len, CHR__TURN_BYTES);
    for (; code == 0 && done < len; done += count) {
        count = chr__min(len - done, most);
        (void)chr__ws_frame(ws, CHR__WS_BINARY, from + done, count);
        layer->kept = count;
        code = chr__ws_flush(layer);
    }
    return done > 0 ? (int)done : code;
}

/* The last frame. A code of 1005 says nothing, as the peer's did. */
static void chr__ws_say_goodbye(chr__websocket *ws, int code)
{
    unsigned char payload[2];

    if (ws->state == CHR__WS_HALF)
        ws->state = CHR__WS_OVER; /* it has been said */
    if (ws->state != CHR__WS_OPEN)
        return;
    chr__put_be(payload, (uint64_t)code, 2);
    (void)chr__ws_frame(ws, CHR__WS_CLOSE, payload, code == CHR__WS_NO_CODE ? 0 : 2);
    ws->state = CHR__WS_OVER;
    ws->owes_pong = 0;
    (void)chr__ws_flush(&ws->layer);
}

/* -- frames in -- */

static size_t chr__ws_header_size(const unsigned char *header)
{
    size_t length = header[1] & 127u;

    return 2 + (length == 126 ? 2u : length == 127 ? 8u : 0u) + (header[1] & CHR__WS_MASKED ? 4u : 0u);
}

static uint64_t chr__ws_length(const unsigned char *header)
{
    unsigned length = header[1] & 127u;

    return length < 126 ? length : chr__get_be(header + 2, length == 126 ? 2 : 8);
}

/* As few bytes as can say it, and 63 bits of it. */
static int chr__ws_length_is_good(const unsigned char *header, uint64_t length)
{
    switch (header[1] & 127) {
    case 126: return length > 125;
    case 127: return length > 0xffff && !(length >> 63);
    default:  return 1;
    }
}

/* Whether a frame may come now: its close code if not, else 0. */
static int chr__ws_check_order(const chr__websocket *ws, int opcode, int is_final, uint64_t length)
{
    switch (opcode) {
    case CHR__WS_MORE:
        return ws->message ? 0 : CHR__WS_PROTOCOL;
    case CHR__WS_TEXT:
        return ws->message ? CHR__WS_PROTOCOL : ws->passes_text ? 0 : CHR__WS_UNWELCOME;
    case CHR__WS_BINARY:
        return ws->message ? CHR__WS_PROTOCOL : 0;
    case CHR__WS_CLOSE:
    case CHR__WS_PING:
    case CHR__WS_PONG:
        return is_final && length <= CHR__WS_CONTROL ? 0 : CHR__WS_PROTOCOL;
    default:
        return CHR__WS_PROTOCOL;
    }
}

/* A header is complete. Returns 0 or a close code. */
static int chr__ws_begin_frame(chr__websocket *ws)
{
    const unsigned char *header = ws->header;
    uint64_t             length = chr__ws_length(header);
    int                  opcode = header[0] & 15, code;

    if (header[0] & 0x70 || !!(header[1] & CHR__WS_MASKED) != ws->is_server || !chr__ws_length_is_good(header, length))
        return CHR__WS_PROTOCOL;
    ws->is_final = header[0] >> 7;
    code = chr__ws_check_order(ws, opcode, ws->is_final, length);
    ws->opcode = opcode;
    ws->left = length;
    ws->mask_at = 0;
    ws->control_length = 0;
    if (opcode == CHR__WS_TEXT || opcode == CHR__WS_BINARY) {
        ws->message = opcode;
        memset(&ws->utf8, 0, sizeof ws->utf8);
    }
    return code;
}

static int chr__ws_code_is_good(int code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

/* The peer says goodbye: what we answer. */
static int chr__ws_goodbye_code(const chr__websocket *ws)
{
    int       code = ws->control_length >= 2 ? (int)chr__get_be(ws->control, 2) : CHR__WS_NO_CODE;
    chr__utf8 utf8 = { 0, 0, 0 };

    if (ws->control_length == 0)
        return CHR__WS_NO_CODE;
    if (!chr__ws_code_is_good(code))
        return CHR__WS_PROTOCOL;
    return chr__utf8_is_good(&utf8, ws->control + 2, ws->control_length - 2) && utf8.left == 0 ? code : CHR__WS_NOT_UTF8;
}

/* A frame's payload is complete. Returns 0 or a close code. */
static int chr__ws_end_frame(chr__websocket *ws)
{
    ws->header_length = 0;
    switch (ws->opcode) {
    case CHR__WS_CLOSE:
        return chr__ws_goodbye_code(ws);
    case CHR__WS_PING: /* only the last of several needs its answer: so a fixed amount of memory will do */
        memcpy(ws->pong, ws->control, ws->control_length);
        ws->pong_length = ws->control_length;
        ws->owes_pong = 1;
        chr__ws_try_pong(ws);
        return 0;
    case CHR__WS_PONG:
        return 0;
    default:
        if (!ws->is_final)
            return 0;
        if (ws->message == CHR__WS_TEXT && ws->utf8.left > 0)
            return CHR__WS_NOT_UTF8;
        ws->message = 0;
        return 0;
    }
}

static void chr__ws_unmask(chr__websocket *ws, unsigned char *bytes, size_t len)
{
    const unsigned char *mask = ws->header + chr__ws_header_size(ws->header) - 4;
    size_t               i;

    for (i = 0; i < len && ws->is_server; i++)
        bytes[i] ^= mask[ws->mask_at++ & 3];
}

/* Payload of the frame, straight from the inbox; *done grows by what is for the frontend. Returns 0 or a close code. */
static int chr__ws_payload(chr__websocket *ws, unsigned char *buf, size_t len, size_t *done)
{
    int            is_control = ws->opcode >= CHR__WS_CLOSE;
    unsigned char *to = is_control ? ws->control + ws->control_length : buf + *done;
    size_t         count = chr__min(is_control ? sizeof ws->control : len - *done, ws->in.end - ws->in.start);

    count = ws->left < count ? (size_t)ws->left : count;
    memcpy(to, ws->in.bytes + ws->in.start, count);
    chr__ws_unmask(ws, to, count);
    ws->in.start += count;
    ws->left -= count;
    if (is_control)
        ws->control_length += count;
    else if (ws->message == CHR__WS_TEXT && !chr__utf8_is_good(&ws->utf8, to, count))
        return CHR__WS_NOT_UTF8;
    else
        *done += count;
    return ws->left == 0 ? chr__ws_end_frame(ws) : 0;
}

/* One byte of a header. Returns 0 or a close code. */
static int chr__ws_header_byte(chr__websocket *ws)
{
    int code;

    ws->header[ws->header_length++] = ws->in.bytes[ws->in.start++];
    if (ws->header_length < 2 || ws->header_length < chr__ws_header_size(ws->header))
        return 0;
    code = chr__ws_begin_frame(ws);
    return code == 0 && ws->left == 0 ? chr__ws_end_frame(ws) : code;
}

static int chr__ws_in_header(const chr__websocket *ws)
{
    return ws->header_length < 2 || ws->header_length < chr__ws_header_size(ws->header);
}

static int chr__ws_wants_room(const chr__websocket *ws)
{
    return !chr__ws_in_header(ws) && ws->opcode < CHR__WS_CLOSE;
}

/* What is in the inbox becomes data, until that is full; control frames need no room. */
static size_t chr__ws_decode(chr__websocket *ws, unsigned char *buf, size_t len)
{
    size_t done = 0;
    int    code = 0;

    while (code == 0 && !chr__box_is_empty(&ws->in) && (done < len || !chr__ws_wants_room(ws)))
        code = chr__ws_in_header(ws) ? chr__ws_header_byte(ws) : chr__ws_payload(ws, buf, len, &done);
    if (code != 0)
        chr__ws_say_goodbye(ws, code);
    return done;
}

static int chr__ws_read(chr__layer *layer, void *buf, size_t len)
{
    chr__websocket *ws = (chr__websocket *)layer;
    size_t          done;
    int             n = 1;

    if (ws->state == CHR__WS_OVER)
        return 0;
    if (chr__box_is_empty(&ws->in))
        n = chr__box_fill(&ws->in, layer->below);
    if (n <= 0)
        return n;
    done = chr__ws_decode(ws, (unsigned char *)buf, len);
    (void)chr__ws_flush(layer); /* the answers; an error will meet the next write or read */
    if (done > 0)
        return (int)done;
    return ws->state == CHR__WS_OVER ? 0 : (int)CHR__LAYER_NOTHING;
}

static int chr__ws_pending(const chr__layer *layer)
{
    const chr__websocket *ws = (const chr__websocket *)layer;

    return ws->state == CHR__WS_OVER ? -1 : !chr__box_is_empty(&ws->in);
}

static int chr__ws_unsent(const chr__layer *layer)
{
    const chr__websocket *ws = (const chr__websocket *)layer;

    return (int)(ws->out.end - ws->out.start) + (ws->owes_pong && ws->state == CHR__WS_OPEN ? 1 : 0);
}

/* -- HTTP heads -- */

typedef struct chr__text {
    const char *at;
    size_t      len;
} chr__text;

static char chr__lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

static int chr__text_is_like(chr__text text, const char *word)
{
    size_t i;

    for (i = 0; i < text.len && word[i] && chr__lower(text.at[i]) == chr__lower(word[i]); i++)
        ;
    return i == text.len && !word[i];
}

static chr__text chr__text_trim(chr__text text)
{
    for (; text.len > 0 && (*text.at == ' ' || *text.at == '\t'); text.at++, text.len--)
        ;
    for (; text.len > 0 && (text.at[text.len - 1] == ' ' || text.at[text.len - 1] == '\t'); text.len--)
        ;
    return text;
}

/* What stands before `stop`, which *rest loses with it. */
static chr__text chr__text_cut(chr__text *rest, char stop)
{
    const void *end = rest->len ? memchr(rest->at, stop, rest->len) : NULL;
    chr__text   part = *rest;

    part.len = end ? (size_t)((const char *)end - rest->at) : rest->len;
    rest->at += part.len + (end ? 1 : 0);
    rest->len -= part.len + (end ? 1 : 0);
    return part;
}

static chr__text chr__head_line(chr__text *rest)
{
    chr__text line = chr__text_cut(rest, '\n');

    if (line.len > 0 && line.at[line.len - 1] == '\r')
        line.len--;
    return line;
}

/* The value of the field's `nth` line, counted from 0; at is NULL when there is none. */
static chr__text chr__head_field(chr__text head, const char *name, int nth)
{
    chr__text line, none = { NULL, 0 };

    (void)chr__head_line(&head);
    while (head.len > 0) {
        line = chr__head_line(&head);
        if (chr__text_is_like(chr__text_cut(&line, ':'), name) && nth-- == 0)
            return chr__text_trim(line);
    }
    return none;
}

/* Whether a comma-separated field holds a word. */
static int chr__head_has(chr__text head, const char *name, const char *word)
{
    chr__text value;
    int       nth;

    for (nth = 0; (value = chr__head_field(head, name, nth)).at; nth++)
        while (value.len > 0)
            if (chr__text_is_like(chr__text_trim(chr__text_cut(&value, ',')), word))
                return 1;
    return 0;
}

/* The length of the complete head in the inbox, its empty line included, or 0. No byte is looked at twice. */
static size_t chr__ws_head_length(chr__websocket *ws)
{
    static const char end[] = "\r\n\r\n";
    unsigned char     c;

    for (; ws->scanned < ws->in.end && ws->matched < 4; ws->scanned++) {
        c = ws->in.bytes[ws->scanned];
        ws->matched = c == end[ws->matched] ? ws->matched + 1 : c == '\r';
    }
    return ws->matched == 4 ? ws->scanned : 0;
}

/* -- the handshake -- */

static void chr__ws_proof(const char *key, char text[29])
{
    char          joined[CHR__WS_KEY + 36 + 1];
    unsigned char digest[CHR__SHA1_SIZE];

    chr__format(joined, sizeof joined, "%s%s", key, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    chr__sha1(joined, sizeof joined - 1, digest);
    chr__base64_text(digest, sizeof digest, text);
}

static void chr__ws_put_text(chr__websocket *ws, const char *text)
{
    (void)chr__box_put(&ws->out, text, strlen(text));
}

static void chr__ws_refuse(chr__websocket *ws, const char *status, const char *fault)
{
    ws->fault = fault;
    ws->state = CHR__WS_REFUSING;
    if (!ws->is_server)
        return;
    chr__ws_put_text(ws, "HTTP/1.1 ");
    chr__ws_put_text(ws, status);
    chr__ws_put_text(ws, "\r\nServer: chardev\r\nConnection: close\r\nContent-Length: 0\r\n");
    if (status[1] == '2') /* 426 tells what to upgrade to */
        chr__ws_put_text(ws, "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
    chr__ws_put_text(ws, "\r\n");
}

static int chr__ws_key_is_good(chr__text key)
{
    size_t i;

    for (i = 0; i + 2 < key.len; i++)
        if (!memchr(chr__base64_letters, key.at[i], 64))
            return 0;
    return key.len == CHR__WS_KEY && memcmp(key.at + CHR__WS_KEY - 2, "==", 2) == 0;
}

/* What a request asks for. */
typedef struct chr__ws_request {
    chr__text head, path; /* path: without the query */
    chr__text host;       /* and its port */
} chr__ws_request;

/* HTTP/1.1 or a later 1.x (RFC 9110 section 2.5: minor versions are compatible). */
static int chr__ws_version_is_good(chr__text version)
{
    return version.len == 8 && memcmp(version.at, "HTTP/1.", 7) == 0 && version.at[7] >= '1' && version.at[7] <= '9';
}

/* Origin form, or absolute form (RFC 9112 section 3.2), whose authority goes before the Host field. Returns 0 when
 * it is neither. */
static int chr__ws_read_target(chr__text target, chr__ws_request *request)
{
    const char *slashes;

    target = chr__text_cut(&target, '?');
    request->path = target;
    if (target.len > 0 && *target.at == '/')
        return 1;
    slashes = target.len > 3 ? (const char *)memchr(target.at, ':', target.len - 2) : NULL;
    if (!slashes || slashes == target.at || memcmp(slashes, "://", 3) != 0)
        return 0;
    request->path.at = slashes + 3;
    request->path.len = target.len - (size_t)(slashes + 3 - target.at);
    request->host = chr__text_cut(&request->path, '/');
    if (request->path.at[-1] == '/') { /* the slash belongs to the path */
        request->path.at--;
        request->path.len++;
    }
    return request->host.len > 0;
}

/* What is wrong with the request line, as status and fault; NULL = nothing. */
static const char *chr__ws_check_line(chr__ws_request *request, const char **fault)
{
    chr__text rest = request->head, line = chr__head_line(&rest);
    chr__text method = chr__text_cut(&line, ' '), target = chr__text_cut(&line, ' ');

    *fault = "is no GET request of HTTP/1.1";
    if (!chr__text_is(method.at, method.len, "GET") || !chr__ws_version_is_good(line))
        return "400 Bad Request";
    request->host = chr__head_field(request->head, "Host", 0);
    *fault = "asks for no path";
    return chr__ws_read_target(target, request) ? NULL : "400 Bad Request";
}

/* As a string, for patterns and messages; cut where it does not fit. */
static const char *chr__text_copy(chr__text text, char *copy, size_t size)
{
    chr__format(copy, size, "%.*s", (int)chr__min(text.len, size), text.at ? text.at : "");
    return copy;
}

static const char *chr__ws_check_path(chr__websocket *ws, chr__text path, const char **fault)
{
    const char *served = chr__layer_options(&ws->layer)->ws_path;
    char        copy[1024];

    *fault = "asks for another path than ws-path=: ";
    if (!served || (path.len < sizeof copy && chr__glob(served,
                                                        path.len > 0 ? chr__text_copy(path, copy, sizeof copy) : "/")))
        return NULL;
    (void)chr__text_copy(path, ws->detail, sizeof ws->detail);
    return "404 Not Found";
}

/* -- which web pages are let in: a browser tells by Origin whose script it runs (RFC 6455 section 10.2, RFC 6454) -- */

/* HOST of HOST or HOST:PORT; a literal IPv6 address keeps its brackets. Empty when it is neither. */
static chr__text chr__host_of(chr__text authority)
{
    const char *bracket = authority.len > 0 && *authority.at == '['
        ? (const char *)memchr(authority.at, ']', authority.len) : NULL;
    chr__text   host = authority, port;
    size_t      i;

    if (bracket) {
        host.len = (size_t)(bracket + 1 - authority.at);
        port.at = bracket + 1;
        port.len = authority.len - host.len;
        host.len = port.len > 0 && *port.at != ':' ? 0 : host.len;
        port.at += port.len > 0;
        port.len -= port.len > 0;
    } else {
        port = authority;
        host = chr__text_cut(&port, ':');
    }
    for (i = 0; i < port.len; i++)
        host.len = port.at[i] >= '0' && port.at[i] <= '9' ? host.len : 0;
    for (i = 0; i < host.len; i++)
        host.len = strchr("/@?#\\", host.at[i]) ? 0 : host.len;
    return host;
}

/* The part of SCHEME://HOST[:PORT]; empty for "null" and all else. */
static chr__text chr__origin_host(chr__text origin)
{
    chr__text scheme = chr__text_cut(&origin, ':');

    if (scheme.len == 0 || origin.len < 3 || memcmp(origin.at, "//", 2) != 0) {
        origin.len = 0;
        return origin;
    }
    origin.at += 2;
    origin.len -= 2;
    return chr__host_of(origin);
}

static int chr__host_is_loopback(chr__text host)
{
    char          copy[64];
    unsigned char ip[16];
    size_t        len;

    if (host.len > 1 && *host.at == '[') {
        host.at++;
        host.len -= 2;
    }
    if (host.len >= sizeof copy)
        return 0;
    (void)chr__text_copy(host, copy, sizeof copy);
    len = chr__os_ip_bytes(copy, ip);
    if (len == 0)
        return chr__text_is_like(host, "localhost") ||
               (host.len > 10 && (host.at += host.len - 10, host.len = 10, chr__text_is_like(host, ".localhost")));
    return len == 4 ? ip[0] == 127 : memcmp(ip, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1", 16) == 0;
}

/* On a loopback address names of other hosts have no business: whoever owns one could point it here (DNS rebinding). */
static int chr__ws_is_own_page(const chr__websocket *ws, chr__text origin, chr__text host)
{
    chr__text page = chr__origin_host(origin), server = chr__host_of(host);
    char      copy[300];

    if (page.len == 0 || page.len >= sizeof copy || page.len != server.len ||
        !chr__text_is_like(server, chr__text_copy(page, copy, sizeof copy)))
        return 0;
    return !chr__os_is_on_loopback(chr__layer_fd(&ws->layer)) || chr__host_is_loopback(page);
}

static int chr__ws_is_listed(const chr__websocket *ws, chr__text origin)
{
    const char *const *pattern = chr__layer_options(&ws->layer)->ws_origin;
    char               copy[512];

    if (origin.len >= sizeof copy)
        return 0;
    (void)chr__text_copy(origin, copy, sizeof copy);
    while (pattern && *pattern && !chr__glob(*pattern, copy))
        pattern++;
    return pattern && *pattern;
}

/* Programs send no Origin. */
static const char *chr__ws_check_origin(chr__websocket *ws, const chr__ws_request *request, const char **fault)
{
    chr__text origin = chr__head_field(request->head, "Origin", 0);

    *fault = "comes from a web page of another site, which ws-origin= would let in: ";
    if (!origin.at)
        return NULL;
    if (!chr__head_field(request->head, "Origin", 1).at &&
        (chr__ws_is_listed(ws, origin) || chr__ws_is_own_page(ws, origin, request->host)))
        return NULL;
    (void)chr__text_copy(origin, ws->detail, sizeof ws->detail);
    return "403 Forbidden";
}

static const char *chr__ws_check_fields(chr__text head, const char **fault)
{
    *fault = "does not ask for an upgrade to websocket";
    if (!chr__head_has(head, "Upgrade", "websocket"))
        return "426 Upgrade Required";
    *fault = "asks for another version than 13";
    if (!chr__text_is_like(chr__head_field(head, "Sec-WebSocket-Version", 0), "13"))
        return "426 Upgrade Required";
    *fault = "lacks Connection: Upgrade, Host or a good Sec-WebSocket-Key";
    if (!chr__head_has(head, "Connection", "Upgrade") || !chr__head_field(head, "Host", 0).at || chr__head_field(head, "Host", 1).at ||
        !chr__ws_key_is_good(chr__head_field(head, "Sec-WebSocket-Key", 0)) || chr__head_field(head, "Sec-WebSocket-Key", 1).at)
        return "400 Bad Request";
    return NULL;
}

/* -- ws-page=: a browser that asks for / gets a file, and comes back for the websocket -- */

static int chr__ws_wants_page(const chr__websocket *ws, const chr__ws_request *request)
{
    return chr__layer_options(&ws->layer)->ws_page && chr__text_is(request->path.at, request->path.len, "/") &&
           !chr__head_field(request->head, "Upgrade", 0).at;
}

static void chr__ws_send_page(chr__websocket *ws)
{
    const char *path = chr__layer_options(&ws->layer)->ws_page;
    char        head[300];

    ws->page = chr__os_open(path, CHR__OPEN_READ, NULL);
    ws->has_page = ws->page >= 0;
    ws->page_left = ws->has_page ? chr__os_file_size(ws->page) : -1;
    if (ws->page_left < 0) {
        chr__format(ws->detail, sizeof ws->detail, "%s", path);
        chr__ws_refuse(ws, "404 Not Found", "asks for ws-page=, which can't be read: ");
        return;
    }
    chr__format(head, sizeof head, "HTTP/1.1 200 OK\r\nServer: chardev\r\n"
                                   "Content-Type: text/html; charset=utf-8\r\nContent-Length: %lld\r\n"
                "Cache-Control: no-cache\r\nConnection: close\r\n\r\n", (long long)ws->page_left);
    chr__ws_put_text(ws, head);
    ws->state = CHR__WS_PAGE;
}

/* The outbox is empty: the next piece. Returns 0 when the page is over, also where the file has become shorter. */
static int chr__ws_next_piece(chr__websocket *ws)
{
    size_t most = ws->page_left < (int64_t)sizeof ws->out.bytes ? (size_t)ws->page_left : sizeof ws->out.bytes;
    int    n = most > 0 ? chr__os_read(ws->page, ws->out.bytes, most) : 0;

    if (n <= 0)
        return 0;
    ws->out.end = (size_t)n;
    ws->page_left -= n;
    return 1;
}

static void chr__ws_close(chr__layer *layer)
{
    chr__websocket *ws = (chr__websocket *)layer;

    if (ws->has_page)
        chr__os_close(ws->page);
    ws->has_page = 0;
}

/* -- a server answers -- */

/* What is wrong with the request, as status and fault; NULL = nothing. */
static const char *chr__ws_check_request(chr__websocket *ws, chr__ws_request *request, const char **fault)
{
    const char *status = chr__ws_check_path(ws, request->path, fault);

    status = status ? status : chr__ws_check_fields(request->head, fault);
    return status ? status : chr__ws_check_origin(ws, request, fault);
}

static void chr__ws_answer_request(chr__websocket *ws, chr__text head)
{
    chr__ws_request request = { head, head, head };
    const char     *fault, *status = chr__ws_check_line(&request, &fault);
    char            proof[29];

    if (!status && chr__ws_wants_page(ws, &request)) {
        chr__ws_send_page(ws);
        return;
    }
    if (!status)
        status = chr__ws_check_request(ws, &request, &fault);
    if (status) {
        chr__ws_refuse(ws, status, fault);
        return;
    }
    memcpy(ws->key, chr__head_field(head, "Sec-WebSocket-Key", 0).at, CHR__WS_KEY);
    chr__ws_proof(ws->key, proof);
    chr__ws_put_text(ws, "HTTP/1.1 101 Switching Protocols\r\nServer: chardev\r\nUpgrade: websocket\r\n"
                         "Connection: Upgrade\r\nSec-WebSocket-Accept: ");
    chr__ws_put_text(ws, proof);
    chr__ws_put_text(ws, chr__head_has(head, "Sec-WebSocket-Protocol", "binary") ? "\r\nSec-WebSocket-Protocol: binary\r\n\r\n" : "\r\n\r\n");
    ws->state = CHR__WS_ACCEPTING;
}

/* RFC 9112 section 4: version, three digits, and a reason that may be empty. */
static int chr__ws_status_is_101(chr__text line)
{
    chr__text version = chr__text_cut(&line, ' '), status = chr__text_cut(&line, ' ');

    return chr__ws_version_is_good(version) && chr__text_is(status.at, status.len, "101");
}

static void chr__ws_check_answer(chr__websocket *ws, chr__text head)
{
    char      proof[29];
    chr__text rest = head, line = chr__head_line(&rest), accept = chr__head_field(head, "Sec-WebSocket-Accept", 0);
    chr__text protocol = chr__head_field(head, "Sec-WebSocket-Protocol", 0);

    chr__ws_proof(ws->key, proof);
    ws->fault = !chr__ws_status_is_101(line)                                                ? "refuses the upgrade"
              : !chr__head_has(head, "Upgrade", "websocket")                                ? "lacks Upgrade: websocket"
              : !chr__head_has(head, "Connection", "Upgrade")                               ? "lacks Connection: Upgrade"
              : accept.len != 28 || memcmp(accept.at, proof, 28) != 0                       ? "has a wrong Sec-WebSocket-Accept"
              : chr__head_field(head, "Sec-WebSocket-Accept", 1).at                         ? "has more than one Sec-WebSocket-Accept"
              : chr__head_field(head, "Sec-WebSocket-Extensions", 0).at                     ? "has an extension that nobody asked for"
              : (protocol.at && !chr__text_is(protocol.at, protocol.len, "binary")) ||
                chr__head_field(head, "Sec-WebSocket-Protocol", 1).at                       ? "has a protocol that nobody asked for"
                                                                                            : NULL;
    ws->state = ws->fault ? CHR__WS_REFUSING : CHR__WS_ACCEPTING;
}

/* Whom the client asks for: the name it connects to. */
static void chr__ws_host(const chr_socket_options *options, char *text, size_t size)
{
    const chr_address *address = &options->address;
    const char        *host = options->tls_hostname ? options->tls_hostname : address->host;

    if (!host || !host[0])
        host = "localhost";
    chr__format(text, size, strchr(host, ':') ? "[%s]%s%s" : "%s%s%s", host, address->host && address->port ? ":" : "",
                address->host && address->port ? address->port : "");
}

static int chr__ws_start_client(chr__websocket *ws, chr_error *err)
{
    const char   *path = chr__layer_options(&ws->layer)->ws_path;
    unsigned char random[16 + CHR__SHA1_SIZE];
    char          host[300];

    if (chr__os_random(random, sizeof random) < 0)
        return chr__fail(err, CHR_ERR_IO, "websocket: the system gives no random bytes");
    chr__base64_text(random, 16, ws->key);
    memcpy(ws->seed, random + 16, CHR__SHA1_SIZE);
    chr__ws_host(chr__layer_options(&ws->layer), host, sizeof host);
    chr__ws_put_text(ws, "GET ");
    chr__ws_put_text(ws, path ? path : "/");
    chr__ws_put_text(ws, " HTTP/1.1\r\nHost: ");
    chr__ws_put_text(ws, host);
    chr__ws_put_text(ws, "\r\nUser-Agent: chardev\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ");
    chr__ws_put_text(ws, ws->key);
    chr__ws_put_text(ws, "\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: binary\r\n\r\n");
    return 0;
}

static int chr__ws_start(chr__layer *layer, chr_error *err)
{
    chr__websocket           *ws = (chr__websocket *)layer;
    const chr_socket_options *options = chr__layer_options(layer);

    ws->is_server = options->server == CHR_ON;
    ws->passes_text = options->websocket_text == CHR_ON;
    return ws->is_server ? 0 : chr__ws_start_client(ws, err);
}

/* Reads until the peer's head is complete; what is behind it stays in the inbox. 0 = it is. */
static int chr__ws_read_head(chr__websocket *ws)
{
    chr__text head;
    int       n;

    for (;;) {
        head.at = (const char *)ws->in.bytes;
        head.len = chr__ws_head_length(ws);
        if (head.len > 0)
            break;
        if (ws->in.end >= CHR__WS_HEAD) {
            chr__ws_refuse(ws, "400 Bad Request", "is longer than 8 KiB");
            return 0;
        }
        n = chr__box_fill(&ws->in, ws->layer.below);
        if (n <= 0)
            return n < 0 ? n : CHR_ERR_DISCONNECTED;
    }
    ws->in.start += head.len;
    if (head.len > CHR__WS_HEAD)
        chr__ws_refuse(ws, "400 Bad Request", "is longer than 8 KiB");
    else if (ws->is_server)
        chr__ws_answer_request(ws, head);
    else
        chr__ws_check_answer(ws, head);
    return 0;
}

static int chr__ws_shake(chr__websocket *ws, int *wants)
{
    int code;

    for (;;) {
        *wants = CHR_OUT;
        code = chr__ws_flush(&ws->layer);
        if (code == 0 && ws->state == CHR__WS_PAGE && chr__ws_next_piece(ws))
            return CHR_ERR_WOULD_BLOCK; /* a piece a turn */
        if (code < 0 || ws->state != CHR__WS_SHAKING)
            return code;
        *wants = CHR_IN;
        code = chr__ws_read_head(ws);
        if (code < 0)
            return code;
    }
}

static int chr__ws_step(chr__layer *layer, int *wants, chr_error *err)
{
    chr__websocket *ws = (chr__websocket *)layer;
    int             code = chr__ws_shake(ws, wants);

    if (code == CHR_ERR_WOULD_BLOCK || code == CHR__LAYER_NOTHING)
        return CHR_ERR_WOULD_BLOCK;
    if (ws->state == CHR__WS_PAGE) /* it had no more to ask for: no failure, and nothing to log */
        return chr__fail(err, CHR_ERR_DISCONNECTED, "%s", "");
    if (ws->state == CHR__WS_REFUSING)
        return chr__fail(err, CHR_ERR_IO, "websocket: the peer's %s %s%s", ws->is_server ? "request" : "answer",
                         ws->fault, ws->detail);
    if (code < 0)
        return chr__fail(err, code, "websocket: the peer went in the middle of the handshake");
    ws->state = CHR__WS_OPEN;
    return 0;
}

/* RFC 6455 section 5.5.1: no frame follows our Close; the connection goes when the peer has answered it. */
static int chr__ws_shutdown(chr__layer *layer)
{
    chr__websocket *ws = (chr__websocket *)layer;

    if (ws->state == CHR__WS_OPEN) {
        chr__ws_say_goodbye(ws, CHR__WS_NORMAL);
        ws->state = CHR__WS_HALF;
    }
    return chr__ws_flush(layer);
}

static int chr__ws_ping(chr__layer *layer)
{
    chr__websocket *ws = (chr__websocket *)layer;

    if (chr__box_is_empty(&ws->out)) /* else the peer has more to read than that */
        (void)chr__ws_frame(ws, CHR__WS_PING, "", 0);
    return chr__ws_flush(layer);
}

/* A client's is sent as it is; a server's is a pattern. */
static int chr__ws_check_path_option(const chr_socket_options *options, chr_error *err)
{
    const char *path = options->ws_path, *c;
    int         is_server = options->server == CHR_ON;

    for (c = path; *c > ' ' && *c < 127; c++)
        ;
    if (*c || c - path > 4096 || (*path != '/' && !(is_server && *path == '*')))
        return chr__fail(err, CHR_ERR_INVALID,
                         "socket: ws-path=%s: it begins with '/', and is printable ASCII without blanks", path);
    return 0;
}

static int chr__ws_check_options(const chr_socket_options *options, chr_error *err)
{
    int has_origin = options->ws_origin && *options->ws_origin, file = -1;

    if (options->websocket != CHR_ON && (options->ws_path || has_origin || options->ws_page))
        return chr__fail(err, CHR_ERR_INVALID, "socket: ws-path=, ws-origin= and ws-page= go with websocket=on only");
    if (options->server != CHR_ON && (has_origin || options->ws_page))
        return chr__fail(err, CHR_ERR_INVALID, "socket: ws-origin= and ws-page= are for a server: they need server=on");
    if (options->ws_path && chr__ws_check_path_option(options, err) < 0)
        return CHR_ERR_INVALID;
    if (options->ws_page && (file = chr__os_open(options->ws_page, CHR__OPEN_READ, err)) < 0)
        return file;
    chr__os_close(file);
    return 0;
}

static const chr__layer_slots chr__ws_slots = {
    "websocket",     /* name    */
    chr__ws_start,   /* start   */
    chr__ws_step,    /* step    */
    chr__ws_read,    /* read    */
    chr__ws_write,   /* write   */
    chr__ws_pending, /* pending */
    chr__ws_unsent,  /* unsent  */
    chr__ws_flush,   /* flush   */
    chr__ws_shutdown, /* shutdown */
    NULL,            /* ioctl   */
    chr__ws_ping,    /* ping    */
    chr__ws_close,   /* close   */
};

/* --------------------------------------------------------------------------------------------------------------------
 * >>socket_tls   TLS 1.2 (and 1.3 where mbed TLS has it), server and client
 *
 * handshake   a server shows its certificate and asks for the peer's; a client verifies the server and its name; then the list of
 *             peers is asked. Renegotiation is refused.
 * bytes       as they are; the end without close_notify is logged, after what came before it
 * memory      the context's; what mbed TLS allocates inside comes from its own allocator
 * -------------------------------------------------------------------------------------------------------------------- */
#if CHARDEV_HAS_TLS

/* -- credentials: files are read once, when they are made -- */

typedef struct chr__tls_options { /* the options of both kinds begin so */
    const char *endpoint, *dir, *min_version, *priority;
} chr__tls_options;

typedef struct chr__x509_options {
    chr__tls_options tls;
    const char      *cafile, *crlfile, *certfile, *keyfile;
    chr_bool         verify_peer;
} chr__x509_options;

typedef struct chr__psk_options {
    chr__tls_options tls;
    const char      *keyfile, *username;
} chr__psk_options;

#define CHR__ROW(member) offsetof(chr__x509_options, member)
static const chr_option chr__x509_rows[] = {
    { "endpoint",    CHR_OPTION_TEXT, CHR__ROW(tls.endpoint),    "client", 0, 0, "server or client" },
    { "dir",         CHR_OPTION_TEXT, CHR__ROW(tls.dir),         NULL,     0, 0, "where ca-cert.pem, server-cert.pem, server-key.pem, ... are" },
    { "cafile",      CHR_OPTION_TEXT, CHR__ROW(cafile),          NULL,     0, 0, "certificates of those who may sign the peer's" },
    { "crlfile",     CHR_OPTION_TEXT, CHR__ROW(crlfile),         NULL,     0, 0, "which certificates they have revoked" },
    { "certfile",    CHR_OPTION_TEXT, CHR__ROW(certfile),        NULL,     0, 0, "the certificate to show" },
    { "keyfile",     CHR_OPTION_TEXT, CHR__ROW(keyfile),         NULL,     0, 0, "its private key" },
    { "verify-peer", CHR_OPTION_BOOL, CHR__ROW(verify_peer),     "on",     0, 0, "server: ask for the peer's certificate and verify it" },
    { "min-version", CHR_OPTION_TEXT, CHR__ROW(tls.min_version), "1.2",    0, 0, "1.2 or 1.3" },
    { "priority",    CHR_OPTION_TEXT, CHR__ROW(tls.priority),    NULL,     0, 0, "cipher suites by mbed TLS's names, the best first, ':' between them" },
    { NULL,          CHR_OPTION_TEXT, 0,                         NULL,     0, 0, NULL }
};
#undef CHR__ROW

#define CHR__ROW(member) offsetof(chr__psk_options, member)
static const chr_option chr__psk_rows[] = {
    { "endpoint",    CHR_OPTION_TEXT, CHR__ROW(tls.endpoint),    "client", 0, 0, "server or client" },
    { "dir",         CHR_OPTION_TEXT, CHR__ROW(tls.dir),         NULL,     0, 0, "where keys.psk is" },
    { "keyfile",     CHR_OPTION_TEXT, CHR__ROW(keyfile),         NULL,     0, 0, "lines of NAME:KEY, the key in hexadecimal" },
    { "username",    CHR_OPTION_TEXT, CHR__ROW(username),        "qemu",   0, 0, "client: the name to show" },
    { "min-version", CHR_OPTION_TEXT, CHR__ROW(tls.min_version), "1.2",    0, 0, "1.2 or 1.3" },
    { "priority",    CHR_OPTION_TEXT, CHR__ROW(tls.priority),    NULL,     0, 0, "cipher suites by mbed TLS's names, the best first, ':' between them" },
    { NULL,          CHR_OPTION_TEXT, 0,                         NULL,     0, 0, NULL }
};
#undef CHR__ROW

typedef struct chr__psk {
    struct chr__psk *next;
    unsigned char    key[MBEDTLS_PSK_MAX_LEN];
    size_t           key_size;
    char             name[1];
} chr__psk;

enum { CHR__TLS_SUITES = 32 }; /* that priority= may name */

typedef struct chr__tls_creds {
    chr__object              object;
    int                      is_server, is_psk, asks_peer, is_1_3;
    int                      suites[CHR__TLS_SUITES + 1]; /* up to a zero; none = as mbed TLS or this file has it */
    mbedtls_entropy_context  entropy;
    mbedtls_ctr_drbg_context random;
    mbedtls_x509_crt         ca, own;
    mbedtls_x509_crl         revoked;
    mbedtls_pk_context       key;
    chr__psk                *psks;
} chr__tls_creds;

static int chr__tls_file_fail(const chr__tls_creds *creds, const char *path, int code, chr_error *err)
{
    char why[120];

    if (code > 0)
        return chr__fail(err, CHR_ERR_INVALID, "%s '%s': %s: %d of its certificates can't be read", creds->object.kind->name,
                         creds->object.id, path, code);
    mbedtls_strerror(code, why, sizeof why);
    return chr__fail(err, CHR_ERR_INVALID, "%s '%s': %s: %s", creds->object.kind->name, creds->object.id, path, why);
}

/* A file of secrets that others may read is no secret. */
static void chr__tls_warn_shared(const chr__tls_creds *creds, chr_context *ctx, const char *path)
{
    char line[1200];

    if (!chr__os_is_shared(path))
        return;
    chr__format(line, sizeof line, "%s: %s: others than its owner may read or write this file (chmod 600 ends that)",
                creds->object.kind->name, path);
    chr__log_line(ctx, creds->object.id, line);
}

static int chr__tls_parse_key(chr__tls_creds *creds, const char *path)
{
#if MBEDTLS_VERSION_MAJOR >= 3
    return mbedtls_pk_parse_keyfile(&creds->key, path, NULL, mbedtls_ctr_drbg_random, &creds->random);
#else
    return mbedtls_pk_parse_keyfile(&creds->key, path, NULL);
#endif
}

static int chr__tls_check_key(chr__tls_creds *creds)
{
#if MBEDTLS_VERSION_MAJOR >= 3
    return mbedtls_pk_check_pair(&creds->own.pk, &creds->key, mbedtls_ctr_drbg_random, &creds->random);
#else
    return mbedtls_pk_check_pair(&creds->own.pk, &creds->key);
#endif
}

typedef enum chr__tls_file { CHR__TLS_CA, CHR__TLS_REVOKED, CHR__TLS_CERT, CHR__TLS_KEY } chr__tls_file;

static int chr__tls_parse(chr__tls_creds *creds, chr__tls_file what, const char *path)
{
    switch (what) {
    case CHR__TLS_CA:      return mbedtls_x509_crt_parse_file(&creds->ca, path);
    case CHR__TLS_REVOKED: return mbedtls_x509_crl_parse_file(&creds->revoked, path);
    case CHR__TLS_CERT:    return mbedtls_x509_crt_parse_file(&creds->own, path);
    case CHR__TLS_KEY:
    default:               return chr__tls_parse_key(creds, path);
    }
}

/* By its own option, or by its usual name in dir=. */
static int chr__tls_path(const chr__tls_creds *creds, const char *given, const char *usual, char *path, size_t size, chr_error *err)
{
    const char *dir = ((const chr__tls_options *)creds->object.options)->dir;

    if (chr__format(path, size, given ? "%s" : "%s/%s", given ? given : dir, usual) < (int)size)
        return 0;
    return chr__fail(err, CHR_ERR_INVALID, "%s '%s': a path is too long", creds->object.kind->name, creds->object.id);
}

/* One file. Returns 1 when it was there, 0 when it is none and need not be. */
static int chr__tls_load(chr__tls_creds *creds, chr_context *ctx, chr__tls_file what, const char *given,
                         const char *usual, int is_needed, chr_error *err)
{
    const char *dir = ((const chr__tls_options *)creds->object.options)->dir;
    char        path[1024];
    int         code;

    if (!given && !dir)
        return is_needed ? chr__fail(err, CHR_ERR_INVALID, "%s '%s': needs dir=, or the option that names %s",
                                     creds->object.kind->name, creds->object.id, usual) : 0;
    if (chr__tls_path(creds, given, usual, path, sizeof path, err) < 0)
        return CHR_ERR_INVALID;
    code = chr__tls_parse(creds, what, path);
    if (code == 0 && what == CHR__TLS_KEY)
        chr__tls_warn_shared(creds, ctx, path);
    if (code == 0)
        return 1;
    if (!given && !is_needed && !chr__os_exists(path))
        return 0;
    return chr__tls_file_fail(creds, path, code, err);
}

/* Whether the certificate's extended key usage (RFC 5280 section 4.2.1.12) allows the role. */
static int chr__tls_is_for(const mbedtls_x509_crt *certificate, int is_server)
{
#if MBEDTLS_VERSION_MAJOR >= 3 || defined(MBEDTLS_X509_CHECK_EXTENDED_KEY_USAGE)
    const char *usage = is_server ? MBEDTLS_OID_SERVER_AUTH : MBEDTLS_OID_CLIENT_AUTH;

    return mbedtls_x509_crt_check_extended_key_usage(certificate, usage,
                                                     MBEDTLS_OID_SIZE(MBEDTLS_OID_SERVER_AUTH)) == 0;
#else
    (void)certificate;
    (void)is_server;
    return 1;
#endif
}

static void chr__tls_warn_role(const chr__tls_creds *creds, chr_context *ctx)
{
    char line[200];

    if (chr__tls_is_for(&creds->own, creds->is_server))
        return;
    chr__format(line, sizeof line, "%s: the certificate is not for a %s (extended key usage): peers refuse it",
                creds->object.kind->name, creds->is_server ? "server" : "client");
    chr__log_line(ctx, creds->object.id, line);
}

static int chr__x509_load(chr__tls_creds *creds, chr_context *ctx, chr_error *err)
{
    const chr__x509_options *options = (const chr__x509_options *)creds->object.options;
    int                      is_server = creds->is_server, has_cert, code;

    creds->asks_peer = options->verify_peer != CHR_OFF;
    if (!is_server && !creds->asks_peer)
        return chr__fail(err, CHR_ERR_INVALID, "%s: verify-peer=off is for endpoint=server: a client always verifies", creds->object.kind->name);
    code = chr__tls_load(creds, ctx, CHR__TLS_CA, options->cafile, "ca-cert.pem", creds->asks_peer, err);
    if (code >= 0)
        code = chr__tls_load(creds, ctx, CHR__TLS_REVOKED, options->crlfile, "ca-crl.pem", 0, err);
    if (code < 0)
        return code;
    has_cert = chr__tls_load(creds, ctx, CHR__TLS_CERT, options->certfile,
                             is_server ? "server-cert.pem" : "client-cert.pem", is_server, err);
    if (has_cert <= 0)
        return has_cert;
    chr__tls_warn_role(creds, ctx);
    code = chr__tls_load(creds, ctx, CHR__TLS_KEY, options->keyfile, is_server ? "server-key.pem" : "client-key.pem", 1,
                         err);
    if (code > 0 && chr__tls_check_key(creds) != 0)
        return chr__fail(err, CHR_ERR_INVALID, "%s '%s': the certificate and the private key don't belong together",
                         creds->object.kind->name, creds->object.id);
    return code < 0 ? code : 0;
}

/* NAME:HEX, without the line's end. Comments and empty lines are none. */
static int chr__psk_add(chr__tls_creds *creds, chr_context *ctx, const char *line, size_t len, chr_error *err)
{
    const char *colon = (const char *)memchr(line, ':', len);
    size_t      i, digits = colon ? len - (size_t)(colon + 1 - line) : 0;
    chr__psk   *psk;

    if (len == 0 || line[0] == '#')
        return 0;
    for (i = 0; i < digits && chr__digit(colon[1 + i]) < 16; i++)
        ;
    if (!colon || colon == line || digits == 0 || digits % 2 || i < digits || digits > 2 * sizeof psk->key)
        return chr__fail(err, CHR_ERR_INVALID, "%s '%s': a line of the key file is not NAME:HEX with at most %d digits",
                         creds->object.kind->name, creds->object.id, (int)(2 * sizeof psk->key));
    psk = (chr__psk *)chr__allocate(ctx, sizeof *psk + (size_t)(colon - line));
    if (!psk)
        return chr__no_memory(err);
    memcpy(psk->name, line, (size_t)(colon - line));
    for (psk->key_size = 0; psk->key_size < digits / 2; psk->key_size++)
        psk->key[psk->key_size] = (unsigned char)(chr__digit(colon[1 + 2 * psk->key_size]) * 16 + chr__digit(colon[2 + 2 * psk->key_size]));
    psk->next = creds->psks;
    creds->psks = psk;
    return 0;
}

static chr__psk *chr__psk_find(const chr__tls_creds *creds, const unsigned char *name, size_t len)
{
    chr__psk *psk;

    for (psk = creds->psks; psk; psk = psk->next)
        if (chr__text_is((const char *)name, len, psk->name))
            return psk;
    return NULL;
}

/* Reads at most `size` bytes of a small file. */
static int chr__tls_read_file(const char *path, char *text, size_t size, chr_error *err)
{
    int    fd = chr__os_open(path, CHR__OPEN_READ, err), n = 1;
    size_t len = 0;

    if (fd < 0)
        return fd;
    for (; n > 0 && len < size; len += (size_t)(n > 0 ? n : 0))
        n = chr__os_read(fd, text + len, size - len);
    chr__os_close(fd);
    return n < 0 ? chr__fail(err, n, "%s: can't be read", path)
         : len == size ? chr__fail(err, CHR_ERR_INVALID, "%s: larger than %d bytes", path, (int)size) : (int)len;
}

static int chr__psk_read(chr__tls_creds *creds, chr_context *ctx, const char *path, chr_error *err)
{
    enum { MOST = 65536 };
    char       *text = (char *)chr__allocate(ctx, MOST + 1);
    const char *line = text;
    int         code = text ? chr__tls_read_file(path, text, MOST, err) : chr__no_memory(err);

    if (code >= 0 && strlen(text) < (size_t)code) /* the rest of the keys would be lost */
        code = chr__fail(err, CHR_ERR_INVALID, "%s '%s': %s: the key file holds a NUL byte, at offset %d",
                         creds->object.kind->name, creds->object.id, path, (int)strlen(text));
    while (code >= 0 && *line) {
        size_t len = strcspn(line, "\r\n");
        code = chr__psk_add(creds, ctx, line, len, err);
        line += len + strspn(line + len, "\r\n");
    }
    if (text)
        mbedtls_platform_zeroize(text, MOST);
    chr__free(ctx, text);
    return code < 0 ? code : 0;
}

static int chr__psk_load(chr__tls_creds *creds, chr_context *ctx, chr_error *err)
{
    const chr__psk_options *options = (const chr__psk_options *)creds->object.options;
    char                    path[1024];
    int                     code;

    if (!options->keyfile && !options->tls.dir)
        return chr__fail(err, CHR_ERR_INVALID, "%s '%s': needs dir= or keyfile=", creds->object.kind->name, creds->object.id);
    code = chr__tls_path(creds, options->keyfile, "keys.psk", path, sizeof path, err);
    if (code == 0)
        code = chr__psk_read(creds, ctx, path, err);
    if (code == 0)
        chr__tls_warn_shared(creds, ctx, path);
    if (code == 0 && !creds->is_server && !chr__psk_find(creds, (const unsigned char *)options->username, strlen(options->username)))
        return chr__fail(err, CHR_ERR_NOT_FOUND, "%s '%s': %s has no key for username=%s", creds->object.kind->name, creds->object.id,
                         path, options->username);
    return code;
}

static void chr__tls_creds_release(chr_context *ctx, chr__object *object)
{
    chr__tls_creds *creds = (chr__tls_creds *)object;
    chr__psk       *psk;

    while ((psk = creds->psks) != NULL) {
        creds->psks = psk->next;
        mbedtls_platform_zeroize(psk->key, sizeof psk->key);
        chr__free(ctx, psk);
    }
    mbedtls_pk_free(&creds->key);
    mbedtls_x509_crl_free(&creds->revoked);
    mbedtls_x509_crt_free(&creds->own);
    mbedtls_x509_crt_free(&creds->ca);
    mbedtls_ctr_drbg_free(&creds->random);
    mbedtls_entropy_free(&creds->entropy);
}

/* From here on it can be released. */
static int chr__tls_creds_seed(chr__tls_creds *creds, chr_error *err)
{
    mbedtls_entropy_init(&creds->entropy);
    mbedtls_ctr_drbg_init(&creds->random);
    mbedtls_x509_crt_init(&creds->ca);
    mbedtls_x509_crt_init(&creds->own);
    mbedtls_x509_crl_init(&creds->revoked);
    mbedtls_pk_init(&creds->key);
    creds->object.release = chr__tls_creds_release;
#if MBEDTLS_VERSION_MAJOR >= 3
    if (psa_crypto_init() != PSA_SUCCESS)
        return chr__fail(err, CHR_ERR_IO, "mbed TLS: psa_crypto_init has failed");
#endif
    if (mbedtls_ctr_drbg_seed(&creds->random, mbedtls_entropy_func, &creds->entropy, NULL, 0) != 0)
        return chr__fail(err, CHR_ERR_IO, "mbed TLS: there is no source of random numbers");
    return 0;
}

/* Suites of TLS 1.3 are for both kinds of credentials, and bear no key exchange in their names. */
static const char *chr__tls_suite_fault(const chr__tls_creds *creds, const char *name, int suite)
{
    if (suite == 0)
        return "is no cipher suite of this mbed TLS (TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256 would be one)";
    if (strstr(name, "-WITH-") && !strstr(name, "PSK-WITH-") != !creds->is_psk)
        return creds->is_psk ? "goes with certificates, not with shared keys" : "goes with shared keys, not with certificates";
    return NULL;
}

static int chr__tls_read_priority(chr__tls_creds *creds, const char *priority, chr_error *err)
{
    chr__text   rest = { priority, strlen(priority) }, part;
    size_t      count = 0;
    char        name[80];
    const char *fault;

    do {
        part = chr__text_cut(&rest, ':');
        chr__format(name, sizeof name, "%.*s", (int)part.len, part.at);
        creds->suites[count] = mbedtls_ssl_get_ciphersuite_id(name);
        fault = chr__tls_suite_fault(creds, name, creds->suites[count]);
        if (fault)
            return chr__fail(err, CHR_ERR_INVALID, "%s: priority=: '%s' %s", creds->object.kind->name, name, fault);
    } while (++count < CHR__TLS_SUITES && rest.len > 0);
    creds->suites[count] = 0;
    return rest.len == 0 ? 0 : chr__fail(err, CHR_ERR_INVALID, "%s: priority=: more than %d cipher suites", creds->object.kind->name, CHR__TLS_SUITES);
}

static int chr__tls_creds_common(chr__tls_creds *creds, chr_error *err)
{
    const chr__tls_options *options = (const chr__tls_options *)creds->object.options;
    const char             *name = creds->object.kind->name;

    creds->is_server = strcmp(options->endpoint, "server") == 0;
    creds->is_1_3 = strcmp(options->min_version, "1.3") == 0;
    if (!creds->is_server && strcmp(options->endpoint, "client") != 0)
        return chr__fail(err, CHR_ERR_INVALID, "%s: endpoint=%s: neither server nor client", name, options->endpoint);
    if (!creds->is_1_3 && strcmp(options->min_version, "1.2") != 0)
        return chr__fail(err, CHR_ERR_INVALID, "%s: min-version=%s: neither 1.2 nor 1.3", name, options->min_version);
#if !defined(MBEDTLS_SSL_PROTO_TLS1_3)
    if (creds->is_1_3)
        return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "%s: min-version=1.3: this mbed TLS has no TLS 1.3", name);
#endif
    return options->priority ? chr__tls_read_priority(creds, options->priority, err) : 0;
}

static const chr_backend chr__x509_kind = {
    "tls-creds-x509", NULL, "certificates for TLS", chr__x509_rows, sizeof(chr__x509_options), sizeof(chr__tls_creds),
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL
};

static const chr_backend chr__psk_kind = {
    "tls-creds-psk", NULL, "keys for TLS that both sides have", chr__psk_rows, sizeof(chr__psk_options), sizeof(chr__tls_creds),
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL
};

static int chr__tls_creds_new(const chr_options *list, const chr_backend *kind, chr_error *err)
{
    chr_context    *ctx = list->ctx;
    const char     *id = chr__options_get(list, "id");
    chr__object   **end = chr__object_link(ctx, id);
    chr__tls_creds *creds;
    int             code;

    if (*end)
        return chr__fail(err, CHR_ERR_EXISTS, "%s: id=%s: there is an object with that id already", kind->name, id);
    creds = (chr__tls_creds *)chr__object_new(list, kind, err);
    if (!creds)
        return err->code;
    creds->is_psk = kind == &chr__psk_kind;
    code = chr__tls_creds_common(creds, err);
    if (code == 0)
        code = chr__tls_creds_seed(creds, err);
    if (code == 0)
        code = creds->is_psk ? chr__psk_load(creds, ctx, err) : chr__x509_load(creds, ctx, err);
    if (code == 0)
        *end = &creds->object;
    else
        chr__object_drop(ctx, &creds->object);
    return code;
}

/* -- the peers that are let in -- */

typedef struct chr__authz_options {
    const char *match, *format;
} chr__authz_options;

static const chr_option chr__authz_rows[] = {
    { "match",  CHR_OPTION_TEXT, offsetof(chr__authz_options, match),  CHR_REQUIRED, 0, 0, "whom to let in: CN=fred,,O=Example (commas doubled)" },
    { "format", CHR_OPTION_TEXT, offsetof(chr__authz_options, format), "exact",      0, 0, "exact, or glob: * and ? stand for others" },
    { NULL,     CHR_OPTION_TEXT, 0,                                    NULL,         0, 0, NULL }
};

typedef struct chr__authz {
    chr__object        object;
    struct chr__authz *next; /* of the same id */
    int                is_glob;
} chr__authz;

static const chr_backend chr__authz_kind = {
    "authz-list", NULL, "peers that a socket lets in", chr__authz_rows, sizeof(chr__authz_options), sizeof(chr__authz),
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL
};

static void chr__authz_release(chr_context *ctx, chr__object *object)
{
    chr__authz *next = ((chr__authz *)object)->next;

    if (next)
        chr__object_drop(ctx, &next->object);
}

static int chr__authz_new(const chr_options *list, const chr_backend *kind, chr_error *err)
{
    chr_context              *ctx = list->ctx;
    const char               *id = chr__options_get(list, "id");
    chr__object             **link = chr__object_link(ctx, id);
    chr__authz               *authz, *rest = (chr__authz *)*link;
    const chr__authz_options *options;

    if (rest && rest->object.kind != kind)
        return chr__fail(err, CHR_ERR_EXISTS, "%s: id=%s: there is an object of another kind with that id", kind->name, id);
    authz = (chr__authz *)chr__object_new(list, kind, err);
    if (!authz)
        return err->code;
    options = (const chr__authz_options *)authz->object.options;
    authz->is_glob = strcmp(options->format, "glob") == 0;
    if (!authz->is_glob && strcmp(options->format, "exact") != 0) {
        chr__fail(err, CHR_ERR_INVALID, "%s: format=%s: neither exact nor glob", kind->name, options->format);
        chr__object_drop(ctx, &authz->object);
        return CHR_ERR_INVALID;
    }
    authz->object.release = chr__authz_release;
    authz->next = rest;
    authz->object.next = rest ? rest->object.next : NULL;
    *link = &authz->object;
    return 0;
}

/* What isn't on the list, or has no list, stays out. */
static int chr__authz_allows(chr_context *ctx, const char *id, const char *name)
{
    const chr__object *object = *chr__object_link(ctx, id);
    const chr__authz  *authz = object && object->kind == &chr__authz_kind ? (const chr__authz *)object : NULL;

    for (; authz; authz = authz->next) {
        const char *match = ((const chr__authz_options *)authz->object.options)->match;
        if (authz->is_glob ? chr__glob(match, name) : strcmp(match, name) == 0)
            return 1;
    }
    return 0;
}

/* -- a distinguished name as text (RFC 2253), letter for letter what `openssl x509 -nameopt RFC2253` prints -- */

typedef struct chr__name {
    char   text[4096];
    size_t len;
    int    is_cut; /* too long, or malformed: it can't be compared with anything */
} chr__name;

static void chr__name_put(chr__name *name, const char *text, size_t len)
{
    if (len >= sizeof name->text - name->len) {
        name->is_cut = 1;
        return;
    }
    memcpy(name->text + name->len, text, len);
    name->text[name->len += len] = 0;
}

/* An object identifier in dotted decimal notation (X.690 section 8.19). */
static void chr__oid_text(const unsigned char *at, size_t len, chr__name *oid)
{
    char     number[24];
    size_t   i;
    uint64_t arc = 0, first;

    oid->len = 0;
    oid->is_cut = len == 0 || at[len - 1] & 0x80;
    for (i = 0; i < len && !oid->is_cut; i++) {
        arc = arc << 7 | (at[i] & 0x7f);
        oid->is_cut = arc >> 56 != 0;
        if (at[i] & 0x80)
            continue;
        first = oid->len > 0 ? 0 : arc < 80 ? arc / 40 : 2;
        if (oid->len == 0) /* the first two arcs share a number */
            chr__name_put(oid, number, (size_t)chr__format(number, sizeof number, "%d", (int)first));
        chr__name_put(oid, number, (size_t)chr__format(number, sizeof number, ".%llu",
                                                       (unsigned long long)(arc - 40 * first)));
        arc = 0;
    }
}

/* OpenSSL's short name of an attribute type; NULL = it has none. */
static const char *chr__oid_short_name(const char *oid)
{
    static const char *const names[][2] = {
    { "0.9.2342.19200300.100.1.1", "UID" }, { "0.9.2342.19200300.100.1.2", "textEncodedORAddress" },
    { "0.9.2342.19200300.100.1.3", "mail" }, { "0.9.2342.19200300.100.1.4", "info" },
    { "0.9.2342.19200300.100.1.5", "favouriteDrink" }, { "0.9.2342.19200300.100.1.6", "roomNumber" },
    { "0.9.2342.19200300.100.1.7", "photo" }, { "0.9.2342.19200300.100.1.8", "userClass" },
    { "0.9.2342.19200300.100.1.9", "host" }, { "0.9.2342.19200300.100.1.10", "manager" },
    { "0.9.2342.19200300.100.1.11", "documentIdentifier" }, { "0.9.2342.19200300.100.1.12", "documentTitle" },
    { "0.9.2342.19200300.100.1.13", "documentVersion" }, { "0.9.2342.19200300.100.1.14", "documentAuthor" },
    { "0.9.2342.19200300.100.1.15", "documentLocation" }, { "0.9.2342.19200300.100.1.20", "homeTelephoneNumber" },
    { "0.9.2342.19200300.100.1.21", "secretary" }, { "0.9.2342.19200300.100.1.22", "otherMailbox" },
    { "0.9.2342.19200300.100.1.23", "lastModifiedTime" }, { "0.9.2342.19200300.100.1.24", "lastModifiedBy" },
    { "0.9.2342.19200300.100.1.25", "DC" }, { "0.9.2342.19200300.100.1.26", "aRecord" },
    { "0.9.2342.19200300.100.1.27", "pilotAttributeType27" }, { "0.9.2342.19200300.100.1.28", "mXRecord" },
    { "0.9.2342.19200300.100.1.29", "nSRecord" }, { "0.9.2342.19200300.100.1.30", "sOARecord" },
    { "0.9.2342.19200300.100.1.31", "cNAMERecord" }, { "0.9.2342.19200300.100.1.37", "associatedDomain" },
    { "0.9.2342.19200300.100.1.38", "associatedName" }, { "0.9.2342.19200300.100.1.39", "homePostalAddress" },
    { "0.9.2342.19200300.100.1.40", "personalTitle" }, { "0.9.2342.19200300.100.1.41", "mobileTelephoneNumber" },
    { "0.9.2342.19200300.100.1.42", "pagerTelephoneNumber" }, { "0.9.2342.19200300.100.1.43", "friendlyCountryName" },
    { "0.9.2342.19200300.100.1.44", "uid" }, { "0.9.2342.19200300.100.1.45", "organizationalStatus" },
    { "0.9.2342.19200300.100.1.46", "janetMailbox" }, { "0.9.2342.19200300.100.1.47", "mailPreferenceOption" },
    { "0.9.2342.19200300.100.1.48", "buildingName" }, { "0.9.2342.19200300.100.1.49", "dSAQuality" },
    { "0.9.2342.19200300.100.1.50", "singleLevelQuality" }, { "0.9.2342.19200300.100.1.51", "subtreeMinimumQuality" },
    { "0.9.2342.19200300.100.1.52", "subtreeMaximumQuality" }, { "0.9.2342.19200300.100.1.53", "personalSignature" },
    { "0.9.2342.19200300.100.1.54", "dITRedirect" }, { "0.9.2342.19200300.100.1.55", "audio" },
    { "0.9.2342.19200300.100.1.56", "documentPublisher" }, { "1.2.643.3.131.1.1", "INN" },
    { "1.2.643.100.1", "OGRN" }, { "1.2.643.100.3", "SNILS" }, { "1.2.643.100.5", "OGRNIP" },
    { "1.2.840.113549.1.9.1", "emailAddress" }, { "1.2.840.113549.1.9.2", "unstructuredName" },
    { "1.2.840.113549.1.9.7", "challengePassword" }, { "1.2.840.113549.1.9.8", "unstructuredAddress" },
    { "1.2.840.113549.1.9.20", "friendlyName" }, { "1.3.6.1.4.1.311.60.2.1.1", "jurisdictionL" },
    { "1.3.6.1.4.1.311.60.2.1.2", "jurisdictionST" }, { "1.3.6.1.4.1.311.60.2.1.3", "jurisdictionC" },
    { "2.5.4.3", "CN" }, { "2.5.4.4", "SN" }, { "2.5.4.5", "serialNumber" }, { "2.5.4.6", "C" }, { "2.5.4.7", "L" },
    { "2.5.4.8", "ST" }, { "2.5.4.9", "street" }, { "2.5.4.10", "O" }, { "2.5.4.11", "OU" }, { "2.5.4.12", "title" },
    { "2.5.4.13", "description" }, { "2.5.4.14", "searchGuide" }, { "2.5.4.15", "businessCategory" },
    { "2.5.4.16", "postalAddress" }, { "2.5.4.17", "postalCode" }, { "2.5.4.18", "postOfficeBox" },
    { "2.5.4.19", "physicalDeliveryOfficeName" }, { "2.5.4.20", "telephoneNumber" }, { "2.5.4.21", "telexNumber" },
    { "2.5.4.22", "teletexTerminalIdentifier" }, { "2.5.4.23", "facsimileTelephoneNumber" },
    { "2.5.4.24", "x121Address" }, { "2.5.4.25", "internationaliSDNNumber" }, { "2.5.4.26", "registeredAddress" },
    { "2.5.4.27", "destinationIndicator" }, { "2.5.4.28", "preferredDeliveryMethod" },
    { "2.5.4.29", "presentationAddress" }, { "2.5.4.30", "supportedApplicationContext" }, { "2.5.4.31", "member" },
    { "2.5.4.32", "owner" }, { "2.5.4.33", "roleOccupant" }, { "2.5.4.34", "seeAlso" },
    { "2.5.4.35", "userPassword" }, { "2.5.4.36", "userCertificate" }, { "2.5.4.37", "cACertificate" },
    { "2.5.4.38", "authorityRevocationList" }, { "2.5.4.39", "certificateRevocationList" },
    { "2.5.4.40", "crossCertificatePair" }, { "2.5.4.41", "name" }, { "2.5.4.42", "GN" }, { "2.5.4.43", "initials" },
    { "2.5.4.44", "generationQualifier" }, { "2.5.4.45", "x500UniqueIdentifier" }, { "2.5.4.46", "dnQualifier" },
    { "2.5.4.47", "enhancedSearchGuide" }, { "2.5.4.48", "protocolInformation" }, { "2.5.4.49", "distinguishedName" },
    { "2.5.4.50", "uniqueMember" }, { "2.5.4.51", "houseIdentifier" }, { "2.5.4.52", "supportedAlgorithms" },
    { "2.5.4.53", "deltaRevocationList" }, { "2.5.4.54", "dmdName" }, { "2.5.4.65", "pseudonym" },
    { "2.5.4.72", "role" }, { "2.5.4.97", "organizationIdentifier" }, { "2.5.4.98", "c3" }, { "2.5.4.99", "n3" },
    { "2.5.4.100", "dnsName" },
    };
    size_t i;

    for (i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i][0], oid) == 0)
            return names[i][1];
    return NULL;
}

/* A value without a text of its own, or of an attribute type that has no name: its DER encoding in hexadecimal (RFC
 * 2253 section 2.4). */
static void chr__name_put_der(chr__name *name, const unsigned char *at, const unsigned char *end)
{
    char digits[3];

    chr__name_put(name, "#", 1);
    for (; at < end; at++)
        chr__name_put(name, digits, (size_t)chr__format(digits, sizeof digits, "%02X", *at));
}

/* One byte of UTF-8 with the escapes of RFC 2253 section 2.4; bytes that ASCII does not print are \XX. */
static void chr__name_put_byte(chr__name *name, unsigned char c, int is_first, int is_last)
{
    char escaped[4];
    int  is_edge = (c == ' ' && (is_first || is_last)) || (c == '#' && is_first && !is_last);

    if (c < ' ' || c >= 127)
        chr__name_put(name, escaped, (size_t)chr__format(escaped, sizeof escaped, "\\%02X", c));
    else if (is_edge || strchr(",+\"\\<>;", c))
        chr__name_put(name, escaped, (size_t)chr__format(escaped, sizeof escaped, "\\%c", c));
    else
        chr__name_put(name, (const char *)&c, 1);
}

/* Bytes a character in a string of this type; 0 = it is no character string. */
static size_t chr__string_width(int tag)
{
    switch (tag) {
    case MBEDTLS_ASN1_UTF8_STRING:
    case MBEDTLS_ASN1_PRINTABLE_STRING:
    case MBEDTLS_ASN1_T61_STRING:
    case MBEDTLS_ASN1_IA5_STRING:       return 1;
    case MBEDTLS_ASN1_BMP_STRING:       return 2;
    case MBEDTLS_ASN1_UNIVERSAL_STRING: return 4;
    default:                            return 0;
    }
}

/* A character string, converted to UTF-8; T61String is read as Latin-1. */
static void chr__name_put_string(chr__name *name, int tag, const unsigned char *at, size_t len)
{
    size_t        width = chr__string_width(tag), i, k, count;
    uint32_t      letter;
    unsigned char bytes[4];

    name->is_cut |= len % width != 0;
    for (i = 0; i + width <= len && !name->is_cut; i += width) {
        letter = (uint32_t)chr__get_be(at + i, (int)width);
        count = 1;
        bytes[0] = (unsigned char)letter;
        if (tag != MBEDTLS_ASN1_UTF8_STRING)
            count = chr__utf8_put(letter, bytes);
        name->is_cut |= count == 0; /* a surrogate, or beyond Unicode */
        for (k = 0; k < count; k++)
            chr__name_put_byte(name, bytes[k], i == 0 && k == 0, i + width == len && k + 1 == count);
    }
}

/* AttributeTypeAndValue (RFC 5280 section 4.1.2.4), from *at on. */
static void chr__name_put_attribute(chr__name *name, unsigned char *at, const unsigned char *end)
{
    chr__name      oid;
    const char    *word;
    unsigned char *value;
    size_t         len;
    int            tag;

    if (mbedtls_asn1_get_tag(&at, end, &len, MBEDTLS_ASN1_OID) != 0) {
        name->is_cut = 1;
        return;
    }
    chr__oid_text(at, len, &oid);
    name->is_cut |= oid.is_cut;
    word = chr__oid_short_name(oid.text);
    chr__name_put(name, word ? word : oid.text, word ? strlen(word) : oid.len);
    chr__name_put(name, "=", 1);
    at += len;
    value = at;
    tag = at < end ? *at : 0;
    if (at == end || mbedtls_asn1_get_tag(&at, end, &len, tag) != 0)
        name->is_cut = 1;
    else if (word && chr__string_width(tag) > 0)
        chr__name_put_string(name, tag, at, len);
    else
        chr__name_put_der(name, value, at + len);
}

/* Cuts the last element off a SET OF or SEQUENCE OF: *end moves to where it begins. NULL = there is none, or it is
 * malformed. */
static unsigned char *chr__der_last(unsigned char *at, unsigned char **end, int tag, size_t *len)
{
    unsigned char *element = at, *content = NULL;

    while (at < *end) {
        element = at;
        if (mbedtls_asn1_get_tag(&at, *end, len, MBEDTLS_ASN1_CONSTRUCTED | tag) != 0)
            return NULL;
        content = at;
        at += *len;
    }
    *end = element;
    return content;
}

/* The certificate has them from the least specific to the most; as text they go the other way, those of one RDN with
 * a '+' between. */
static void chr__name_read(chr__name *name, const mbedtls_x509_buf *subject)
{
    unsigned char *at = subject->p, *end = at + subject->len, *rdn, *rdn_end, *attribute;
    size_t         len;
    const char    *separator = "";

    name->len = 0;
    name->text[0] = 0;
    name->is_cut = mbedtls_asn1_get_tag(&at, end, &len, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE) != 0;
    while (!name->is_cut && at < end) {
        rdn = chr__der_last(at, &end, MBEDTLS_ASN1_SET, &len);
        rdn_end = rdn ? rdn + len : rdn;
        name->is_cut |= !rdn || len == 0;
        while (rdn < rdn_end && !name->is_cut) {
            attribute = chr__der_last(rdn, &rdn_end, MBEDTLS_ASN1_SEQUENCE, &len);
            chr__name_put(name, separator, strlen(separator));
            separator = "+";
            if (attribute)
                chr__name_put_attribute(name, attribute, attribute + len);
            name->is_cut |= !attribute;
        }
        separator = ",";
    }
}

/* -- the layer -- */

typedef struct chr__tls {
    chr__layer          layer;
    chr__tls_creds     *creds;
    mbedtls_ssl_config  config;
    mbedtls_ssl_context ssl;
    int                 is_up, has_ended; /* the handshake is over; so is the input */
    int                 end;              /* of the input: what mbed TLS said */
    int                 write_failed;
    int                 is_metered;       /* the budget of this turn is spent */
    int                 said_goodbye;     /* close_notify */
    int                 has_heard, is_alien; /* something has come; it is not TLS */
    int                 is_unknown;       /* the peer's name has no key */
    unsigned char       ip[16];           /* whom a client expects, where it is an address */
    size_t              ip_size, sent, kept_size;
    chr__name           peer;             /* the certificate's name, or the key's */
    unsigned char       kept[MBEDTLS_SSL_OUT_CONTENT_LEN]; /* one record that could not be sent yet */
    chr__box            ahead;            /* mbed TLS reads a record's head, then its body: what has come is read once */
    chr__box            flight;           /* the records of a handshake that go together: one by one, each would wait for the
                                             acknowledgement of the one before it */
} chr__tls;

static int chr__tls_below_read(void *opaque, unsigned char *buf, size_t len)
{
    chr__tls *tls = (chr__tls *)opaque;
    int       n = chr__box_is_empty(&tls->ahead) ? chr__box_fill(&tls->ahead, tls->layer.below) : 1;

    tls->is_metered = n == CHR__LAYER_NOTHING;
    if (n <= 0)
        return n == 0 ? 0 : n == CHR_ERR_WOULD_BLOCK || tls->is_metered ? MBEDTLS_ERR_SSL_WANT_READ :
            MBEDTLS_ERR_NET_CONN_RESET;
    len = chr__min(len, tls->ahead.end - tls->ahead.start);
    memcpy(buf, tls->ahead.bytes + tls->ahead.start, len);
    tls->ahead.start += len;
    if (!tls->has_heard) {
        tls->has_heard = 1;
        tls->is_alien = buf[0] != MBEDTLS_SSL_MSG_HANDSHAKE && buf[0] != MBEDTLS_SSL_MSG_ALERT;
    }
    return (int)len;
}

/* While hands are shaken, what fits into the flight goes with it at the end of the step. */
static int chr__tls_below_write(void *opaque, const unsigned char *buf, size_t len)
{
    chr__tls   *tls = (chr__tls *)opaque;
    chr__layer *below = tls->layer.below;
    int         n = 0;

    if (!tls->is_up && chr__box_put(&tls->flight, buf, len) == 0)
        return (int)len;
    if (!chr__box_is_empty(&tls->flight))
        n = chr__box_flush(&tls->flight, below);
    if (n == 0)
        n = below->slots->write(below, buf, len);
    return n > 0 ? n : n == 0 || n == CHR_ERR_WOULD_BLOCK ? MBEDTLS_ERR_SSL_WANT_WRITE : MBEDTLS_ERR_NET_SEND_FAILED;
}

/* An address is no name: mbed TLS leaves it to us to find it among those that the certificate is for. */
static int chr__tls_has_ip(const chr__tls *tls, const mbedtls_x509_crt *certificate)
{
    const mbedtls_x509_sequence *name;
    int                          is_ip;

    for (name = &certificate->subject_alt_names; name; name = name->next) {
        is_ip = name->buf.tag == (MBEDTLS_ASN1_CONTEXT_SPECIFIC | 7);
        if (is_ip && name->buf.len == tls->ip_size && memcmp(name->buf.p, tls->ip, tls->ip_size) == 0)
            return 1;
    }
    return 0;
}

static int chr__tls_verify(void *opaque, mbedtls_x509_crt *certificate, int depth, uint32_t *flags)
{
    const chr__tls *tls = (const chr__tls *)opaque;

    if (depth == 0 && tls->ip_size > 0 && !chr__tls_has_ip(tls, certificate))
        *flags |= MBEDTLS_X509_BADCERT_CN_MISMATCH;
    return 0;
}

static int chr__tls_give_psk(void *opaque, mbedtls_ssl_context *ssl, const unsigned char *name, size_t len)
{
    chr__tls       *tls = (chr__tls *)opaque;
    const chr__psk *psk = chr__psk_find(tls->creds, name, len);

    tls->is_unknown = psk == NULL;
    if (!psk)
        return MBEDTLS_ERR_SSL_UNKNOWN_IDENTITY;
    chr__name_put(&tls->peer, psk->name, strlen(psk->name));
    return mbedtls_ssl_set_hs_psk(ssl, psk->key, psk->key_size);
}

/* Whom a client expects; NULL = anybody who has the key. */
static const char *chr__tls_expected(const chr_socket_options *options)
{
    if (options->tls_hostname)
        return options->tls_hostname;
    if (!options->address.host && !options->address.port)
        return NULL;
    return options->address.host && options->address.host[0] ? options->address.host : "localhost";
}

#if MBEDTLS_VERSION_NUMBER >= 0x03020000
/* Those of TLS 1.3 are its own; who names none of them wants 1.2. */
static int chr__tls_has_1_3(const int *suites)
{
    while (*suites && *suites >> 8 != 0x13)
        suites++;
    return *suites != 0;
}
#endif

static void chr__tls_conf_version(mbedtls_ssl_config *config, const chr__tls_creds *creds)
{
#if MBEDTLS_VERSION_NUMBER >= 0x03020000
    mbedtls_ssl_conf_min_tls_version(config, creds->is_1_3 ? MBEDTLS_SSL_VERSION_TLS1_3 : MBEDTLS_SSL_VERSION_TLS1_2);
    if (creds->suites[0] && !chr__tls_has_1_3(creds->suites))
        mbedtls_ssl_conf_max_tls_version(config, MBEDTLS_SSL_VERSION_TLS1_2);
#else
    (void)creds; /* there is but one version */
    mbedtls_ssl_conf_min_version(config, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
#endif
#if defined(MBEDTLS_SSL_RENEGOTIATION)
    mbedtls_ssl_conf_renegotiation(config, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
#endif
}

static int chr__tls_conf_x509(chr__tls *tls)
{
    chr__tls_creds *creds = tls->creds;

    mbedtls_ssl_conf_authmode(&tls->config, creds->asks_peer ? MBEDTLS_SSL_VERIFY_REQUIRED : MBEDTLS_SSL_VERIFY_NONE);
    mbedtls_ssl_conf_ca_chain(&tls->config, &creds->ca, creds->revoked.version ? &creds->revoked : NULL);
    mbedtls_ssl_conf_verify(&tls->config, chr__tls_verify, tls);
    return creds->own.version ? mbedtls_ssl_conf_own_cert(&tls->config, &creds->own, &creds->key) : 0;
}

static int chr__tls_conf_psk(chr__tls *tls)
{
    static const int        suites[] = {
        MBEDTLS_TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256, MBEDTLS_TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256,
        MBEDTLS_TLS_PSK_WITH_AES_256_GCM_SHA384, MBEDTLS_TLS_PSK_WITH_CHACHA20_POLY1305_SHA256,
        MBEDTLS_TLS_PSK_WITH_AES_128_GCM_SHA256,
#if defined(MBEDTLS_SSL_PROTO_TLS1_3)
        MBEDTLS_TLS1_3_AES_256_GCM_SHA384, MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256, MBEDTLS_TLS1_3_AES_128_GCM_SHA256,
#endif
        0
    };
    const chr__psk_options *options = (const chr__psk_options *)tls->creds->object.options;
    const unsigned char    *name = (const unsigned char *)options->username;
    const chr__psk         *psk;

    mbedtls_ssl_conf_ciphersuites(&tls->config, suites);
    if (tls->creds->is_server) {
        mbedtls_ssl_conf_psk_cb(&tls->config, chr__tls_give_psk, tls);
        return 0;
    }
    psk = chr__psk_find(tls->creds, name, strlen(options->username));
    return mbedtls_ssl_conf_psk(&tls->config, psk->key, psk->key_size, name, strlen(options->username));
}

/* A client's name for the server is checked by mbed TLS, an address by us. */
static int chr__tls_expect(chr__tls *tls)
{
    const char *name = tls->creds->is_server || tls->creds->is_psk ? NULL : chr__tls_expected(chr__layer_options(&tls->layer));

    tls->ip_size = name ? chr__os_ip_bytes(name, tls->ip) : 0;
    return mbedtls_ssl_set_hostname(&tls->ssl, tls->ip_size > 0 ? NULL : name);
}

static int chr__tls_setup(chr__tls *tls)
{
    chr__tls_creds *creds = tls->creds;
    int             n = mbedtls_ssl_config_defaults(&tls->config, creds->is_server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
                                                    MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);

    if (n != 0)
        return n;
    mbedtls_ssl_conf_rng(&tls->config, mbedtls_ctr_drbg_random, &creds->random);
    chr__tls_conf_version(&tls->config, creds);
    n = creds->is_psk ? chr__tls_conf_psk(tls) : chr__tls_conf_x509(tls);
    if (creds->suites[0])
        mbedtls_ssl_conf_ciphersuites(&tls->config, creds->suites);
    if (n == 0)
        n = mbedtls_ssl_setup(&tls->ssl, &tls->config);
    if (n == 0)
        n = chr__tls_expect(tls);
    mbedtls_ssl_set_bio(&tls->ssl, tls, chr__tls_below_write, chr__tls_below_read, NULL);
    return n;
}

static int chr__tls_find(chr_context *ctx, const chr_socket_options *options, chr__tls_creds **found, chr_error *err)
{
    const char  *id = options->tls_creds;
    chr__object *object = *chr__object_link(ctx, id);
    int          is_server = options->server == CHR_ON;

    if (!object || object->kind == &chr__authz_kind)
        return chr__fail(err, CHR_ERR_NOT_FOUND, "socket: tls-creds=%s: there are no TLS credentials with that id", id);
    *found = (chr__tls_creds *)object;
    if ((*found)->is_server != is_server)
        return chr__fail(err, CHR_ERR_INVALID, "socket: tls-creds=%s: the credentials are for a %s, and the socket is a %s", id,
                         is_server ? "client" : "server", is_server ? "server" : "client");
    return 0;
}

static int chr__tls_check(chr_context *ctx, const chr_socket_options *options, chr_error *err)
{
    chr__tls_creds *creds;

    return chr__tls_find(ctx, options, &creds, err);
}

static int chr__tls_start(chr__layer *layer, chr_error *err)
{
    chr__tls *tls = (chr__tls *)layer;
    int       code;

    mbedtls_ssl_config_init(&tls->config);
    mbedtls_ssl_init(&tls->ssl);
    code = chr__tls_find(layer->dev->ctx, chr__layer_options(layer), &tls->creds, err);
    if (code < 0) {
        tls->creds = NULL;
        return code;
    }
    tls->creds->object.users++;
    code = chr__tls_setup(tls);
    return code == 0 ? 0 : chr__fail(err, CHR_ERR_NO_MEMORY, "TLS: mbed TLS can't begin (-0x%04x)", (unsigned)-code);
}

/* What is wrong with the peer's certificate: the first thing that applies. */
static const char *chr__tls_fault(uint32_t flags)
{
    static const struct { uint32_t flag; const char *text; } faults[] = {
        { MBEDTLS_X509_BADCERT_MISSING,     "the peer shows no certificate" },
        { MBEDTLS_X509_BADCERT_EXPIRED,     "the peer's certificate has expired" },
        { MBEDTLS_X509_BADCERT_FUTURE,      "the peer's certificate is not valid yet" },
        { MBEDTLS_X509_BADCERT_REVOKED,     "the peer's certificate has been revoked" },
        { MBEDTLS_X509_BADCERT_NOT_TRUSTED, "the peer's certificate is not signed by a CA that is trusted here" },
        { MBEDTLS_X509_BADCERT_CN_MISMATCH, "the peer's certificate is for another name" },
        { MBEDTLS_X509_BADCERT_EXT_KEY_USAGE, "the peer's certificate is not for this role (extended key usage)" },
        { MBEDTLS_X509_BADCERT_KEY_USAGE,   "the peer's certificate may not be used for this (key usage)" },
        { MBEDTLS_X509_BADCERT_NS_CERT_TYPE,
         "the peer's certificate is not for this role (Netscape certificate type)" },
        { MBEDTLS_X509_BADCRL_NOT_TRUSTED,
         "the list of revoked certificates is not signed by a CA that is trusted here" },
        { MBEDTLS_X509_BADCRL_EXPIRED,      "the list of revoked certificates has expired" },
        { MBEDTLS_X509_BADCRL_FUTURE,       "the list of revoked certificates is not valid yet" },
    };
    size_t i;

    for (i = 0; i < sizeof faults / sizeof faults[0]; i++)
        if (flags & faults[i].flag)
            return faults[i].text;
    return "the peer's certificate, or the one that signed it, has a key or a signature that is too weak";
}

/* Why the peer's certificate is not accepted; 0 = it is, or none has been asked for. mbed TLS reports some of the
 * reasons by other codes than CERT_VERIFY_FAILED. */
static uint32_t chr__tls_faults(const chr__tls *tls)
{
    uint32_t flags = mbedtls_ssl_get_verify_result(&tls->ssl);

    return flags == 0xffffffff ? 0 : flags & ~(uint32_t)MBEDTLS_X509_BADCERT_SKIP_VERIFY;
}

static int chr__tls_distrust(chr__tls *tls, chr_error *err)
{
    uint32_t    flags = chr__tls_faults(tls);
    const char *expected = flags & MBEDTLS_X509_BADCERT_CN_MISMATCH ? chr__tls_expected(chr__layer_options(&tls->layer)) : NULL;

    return chr__fail(err, CHR_ERR_PERMISSION, "TLS: %s%s%s", chr__tls_fault(flags), expected ? "; expected was " : "",
                     expected ? expected : "");
}

/* A handshake has failed. */
static int chr__tls_explain(chr__tls *tls, int n, chr_error *err)
{
    char why[160];

    if (tls->is_alien)
        return chr__fail(err, CHR_ERR_IO, "TLS: what the peer sends is not TLS");
    if (tls->is_unknown) /* which mbed TLS reports in one way for TLS 1.2 and in another for 1.3 */
        return chr__fail(err, CHR_ERR_PERMISSION, "TLS: the peer's name is not among those that have a key");
    if (tls->creds->asks_peer && chr__tls_faults(tls) != 0)
        return chr__tls_distrust(tls, err);
    switch (n) {
    case MBEDTLS_ERR_X509_CERT_VERIFY_FAILED:
        return chr__tls_distrust(tls, err);
    case MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE:
        return chr__fail(err, CHR_ERR_PERMISSION, "TLS: the peer shows no certificate");
    case MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE:
        return chr__fail(err, CHR_ERR_PERMISSION, "TLS: the peer has refused us (fatal alert)");
    case MBEDTLS_ERR_SSL_CONN_EOF:
    case MBEDTLS_ERR_NET_CONN_RESET:
    case MBEDTLS_ERR_NET_SEND_FAILED:
        return chr__fail(err, CHR_ERR_DISCONNECTED, "TLS: the peer went away during the handshake");
    default:
        mbedtls_strerror(n, why, sizeof why);
        return chr__fail(err, CHR_ERR_IO, "TLS: the handshake failed: %s", why);
    }
}

/* The certificate is good; is it on the list? */
static int chr__tls_authorize(chr__tls *tls, chr_error *err)
{
    const char             *list = chr__layer_options(&tls->layer)->tls_authz;
    const mbedtls_x509_crt *certificate = mbedtls_ssl_get_peer_cert(&tls->ssl);

    if (!list)
        return 0;
    if (!tls->creds->is_psk && certificate && tls->creds->asks_peer)
        chr__name_read(&tls->peer, &certificate->subject_raw);
    if (tls->peer.len > 0 && !tls->peer.is_cut && chr__authz_allows(tls->layer.dev->ctx, list, tls->peer.text))
        return 0;
    (void)mbedtls_ssl_send_alert_message(&tls->ssl, MBEDTLS_SSL_ALERT_LEVEL_FATAL, MBEDTLS_SSL_ALERT_MSG_ACCESS_DENIED);
    (void)chr__box_flush(&tls->flight, tls->layer.below);
    return chr__fail(err, CHR_ERR_PERMISSION, "TLS: the peer '%s' is not on the list tls-authz=%s", tls->peer.text, list);
}

/* The same bytes again, as mbed TLS wants it. 0 = nothing is left. */
static int chr__tls_flush(chr__layer *layer)
{
    chr__tls *tls = (chr__tls *)layer;
    int       n = 1;

    for (; tls->sent < tls->kept_size; tls->sent += (size_t)n) {
        n = mbedtls_ssl_write(&tls->ssl, tls->kept + tls->sent, tls->kept_size - tls->sent);
        if (n == MBEDTLS_ERR_SSL_WANT_WRITE || n == MBEDTLS_ERR_SSL_WANT_READ)
            return CHR_ERR_WOULD_BLOCK;
        tls->write_failed |= n < 0;
        if (n <= 0)
            break;
    }
    tls->sent = tls->kept_size = 0;
    if (tls->write_failed)
        return CHR_ERR_DISCONNECTED;
    layer->kept = 0;
    return 0;
}

static int chr__tls_step(chr__layer *layer, int *wants, chr_error *err)
{
    chr__tls *tls = (chr__tls *)layer;
    int       n, code;

    *wants = CHR_OUT;
    if (tls->is_up)
        return chr__tls_flush(layer);
    n = mbedtls_ssl_handshake(&tls->ssl);
    code = chr__box_flush(&tls->flight, layer->below);
    if (n == MBEDTLS_ERR_SSL_WANT_WRITE || (n == 0 && code == CHR_ERR_WOULD_BLOCK))
        return CHR_ERR_WOULD_BLOCK;
    if (n == MBEDTLS_ERR_SSL_WANT_READ) { /* after a write that failed too: the peer may have said why */
        *wants = code == CHR_ERR_WOULD_BLOCK ? CHR_OUT : CHR_IN;
        return CHR_ERR_WOULD_BLOCK;
    }
    if (n != 0 || code < 0)
        return chr__tls_explain(tls, n != 0 ? n : MBEDTLS_ERR_NET_SEND_FAILED, err);
    code = chr__tls_authorize(tls, err);
    tls->is_up = code == 0;
    return code;
}

/* The input is over. That without a goodbye somebody may have cut it is told once. */
static int chr__tls_ended(chr__tls *tls)
{
    chr_dev *dev = tls->layer.dev;
    int      end = tls->end, is_cut = end == 0 || end == MBEDTLS_ERR_SSL_CONN_EOF || end == MBEDTLS_ERR_NET_CONN_RESET;
    char     why[160], line[200];

    tls->end = MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY;
    if (end == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY)
        return 0;
    if (is_cut) {
        chr__log_line(dev->ctx, dev->id, "TLS: the connection ended without close_notify: what came may have been cut short");
        return 0;
    }
    mbedtls_strerror(end, why, sizeof why);
    chr__format(line, sizeof line, "TLS: the connection is broken: %s", why);
    chr__log_line(dev->ctx, dev->id, line);
    return CHR_ERR_IO;
}

static int chr__tls_is_no_bytes(int n)
{
#if defined(MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET)
    if (n == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET)
        return 1;
#endif
    return n == MBEDTLS_ERR_SSL_WANT_READ || n == MBEDTLS_ERR_SSL_WANT_WRITE;
}

/* A long record seldom comes alone: the next one may fill the rest of the buffer, as does what has been read ahead. */
static int chr__tls_read(chr__layer *layer, void *buf, size_t len)
{
    enum { LONG_RECORD = 4096 };
    chr__tls *tls = (chr__tls *)layer;
    size_t    done = 0;
    int       n = LONG_RECORD;

    tls->is_metered = 0;
    while (!tls->has_ended && (n >= LONG_RECORD || !chr__box_is_empty(&tls->ahead)) && done < len) {
        n = mbedtls_ssl_read(&tls->ssl, (unsigned char *)buf + done, len - done);
        if (n > 0) {
            done += (size_t)n;
        } else if (!chr__tls_is_no_bytes(n)) {
            tls->has_ended = 1;
            tls->end = n;
        }
    }
    if (done > 0)
        return (int)done;
    return tls->has_ended ? chr__tls_ended(tls) : tls->is_metered ? (int)CHR__LAYER_NOTHING : (int)CHR_ERR_WOULD_BLOCK;
}

/* Takes record by record. What can't go out at once is kept, and counts as taken: it is encrypted already. */
static int chr__tls_write(chr__layer *layer, const void *buf, size_t len)
{
    chr__tls            *tls = (chr__tls *)layer;
    const unsigned char *bytes = (const unsigned char *)buf;
    int                  n = chr__tls_flush(layer);
    size_t               size, done;

    if (n < 0)
        return n;
    len = chr__min(len, CHR__TURN_BYTES);
    for (done = 0; done < len; done += (size_t)n) {
        size = chr__min(len - done, sizeof tls->kept);
        n = mbedtls_ssl_write(&tls->ssl, bytes + done, size);
        if (n == MBEDTLS_ERR_SSL_WANT_WRITE || n == MBEDTLS_ERR_SSL_WANT_READ) {
            memcpy(tls->kept, bytes + done, size);
            tls->kept_size = layer->kept = size;
            return (int)(done + size);
        }
        if (n <= 0) {
            tls->write_failed = 1;
            return done > 0 ? (int)done : (int)CHR_ERR_DISCONNECTED;
        }
    }
    return (int)done;
}

/* An end that was met behind bytes has yet to be told. */
static int chr__tls_pending(const chr__layer *layer)
{
    const chr__tls *tls = (const chr__tls *)layer;

    return tls->has_ended ? -1 : !chr__box_is_empty(&tls->ahead) || mbedtls_ssl_check_pending(&tls->ssl);
}

static int chr__tls_unsent(const chr__layer *layer)
{
    return (int)(((const chr__tls *)layer)->kept_size - ((const chr__tls *)layer)->sent);
}

/* close_notify, then FIN; the peer's side of the session stays as it is. */
static int chr__tls_shutdown(chr__layer *layer)
{
    chr__tls *tls = (chr__tls *)layer;
    int       n = tls->is_up ? 0 : chr__box_flush(&tls->flight, layer->below); /* an alert */

    if (n < 0)
        return n;
    n = tls->said_goodbye || !tls->is_up ? 0 : mbedtls_ssl_close_notify(&tls->ssl); /* again: it sends what is left */
    if (n == MBEDTLS_ERR_SSL_WANT_WRITE || n == MBEDTLS_ERR_SSL_WANT_READ)
        return CHR_ERR_WOULD_BLOCK;
    if (n < 0)
        return CHR_ERR_DISCONNECTED;
    tls->said_goodbye = 1;
    /* its FIN may have gone already */
    return layer->below->slots->shutdown ? layer->below->slots->shutdown(layer->below) : 0;
}

static void chr__tls_close(chr__layer *layer)
{
    chr__tls *tls = (chr__tls *)layer;

    mbedtls_ssl_free(&tls->ssl);
    mbedtls_ssl_config_free(&tls->config);
    mbedtls_platform_zeroize(tls->kept, sizeof tls->kept);
    if (tls->creds)
        chr__object_drop(layer->dev->ctx, &tls->creds->object);
    tls->creds = NULL;
}

static const chr__layer_slots chr__tls_slots = {
    "tls",            /* name    */
    chr__tls_start,   /* start   */
    chr__tls_step,    /* step    */
    chr__tls_read,    /* read    */
    chr__tls_write,   /* write   */
    chr__tls_pending, /* pending */
    chr__tls_unsent,  /* unsent  */
    chr__tls_flush,   /* flush   */
    chr__tls_shutdown, /* shutdown */
    NULL,             /* ioctl   */
    NULL,             /* ping    */
    chr__tls_close,   /* close   */
};

#define CHR__TLS_LAYER &chr__tls_slots, sizeof(chr__tls)

#else

static int chr__tls_check(chr_context *ctx, const chr_socket_options *options, chr_error *err)
{
    (void)ctx;
    return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "socket: tls-creds=%s: built without TLS", options->tls_creds);
}

#define CHR__TLS_LAYER NULL, 0

#endif

/* -- >>socket_layers   what is spoken over the connection, from the bottom up. Each is one block; its line here turns it on. -- */

typedef struct chr__socket_layer {
    const char             *option;
    const chr__layer_slots *slots; /* NULL = not in this build */
    size_t                  size;  /* of its state */
} chr__socket_layer;

static const chr__socket_layer chr__socket_layers[] = {
    { "tls-creds", CHR__TLS_LAYER                             },
    { "telnet",    &chr__telnet_slots, sizeof(chr__telnet)    },
    { "tn3270",    &chr__telnet_slots, sizeof(chr__telnet)    },
    { "websocket", &chr__ws_slots,     sizeof(chr__websocket) },
};

enum {
    CHR__LAYERS = sizeof chr__socket_layers / sizeof chr__socket_layers[0],
    CHR__HANDSHAKE_SECONDS = 10,
    CHR__SHAKING_MOST = 16 /* handshakes at once, of one server */
};

static int chr__layer_is_asked(const chr_socket_options *options, int i)
{
    const int asked[CHR__LAYERS] = { options->tls_creds != NULL, options->telnet == CHR_ON, options->tn3270 == CHR_ON,
                                     options->websocket == CHR_ON };

    return asked[i];
}

/* The word that query shows for the topmost. */
static const char *chr__layer_scheme(const chr_socket_options *options)
{
    return options->telnet == CHR_ON ? "telnet" : options->tn3270 == CHR_ON ? "tn3270" : options->websocket == CHR_ON ? "websocket"
         : options->tls_creds ? "tls" : NULL;
}

static int chr__terminal_type_valid(const chr_socket_options *options)
{
    const char *c = options->terminal_type;

    if (!c)
        return 1;
    while (*c > ' ' && *c <= '~')
        c++;
    return (options->telnet == CHR_ON || options->tn3270 == CHR_ON) && options->server != CHR_ON && *c == 0 &&
           c > options->terminal_type && c - options->terminal_type <= CHR__TELNET_TYPE_MOST;
}

/* `address` is the one in the options, with its type found. */
static int chr__layers_check(chr_context *ctx, const chr_socket_options *options, const chr_address *address, chr_error *err)
{
    int i, code, is_named = options->tls_hostname != NULL;

    if ((options->telnet == CHR_ON) + (options->tn3270 == CHR_ON) + (options->websocket == CHR_ON) > 1)
        return chr__fail(err, CHR_ERR_INVALID, "socket: only one of telnet=, tn3270= and websocket= can be on");
    if (!chr__terminal_type_valid(options))
        return chr__fail(err, CHR_ERR_INVALID,
                         "socket: terminal-type=%s: goes with telnet=on or tn3270=on on a client, up to %d characters "
                         "and no blanks", options->terminal_type, CHR__TELNET_TYPE_MOST);
    if (options->com_port == CHR_ON && options->telnet != CHR_ON)
        return chr__fail(err, CHR_ERR_INVALID, "socket: com-port=on goes with telnet=on only");
    if (options->websocket_text == CHR_ON && options->websocket != CHR_ON)
        return chr__fail(err, CHR_ERR_INVALID, "socket: websocket-text= goes with websocket=on only");
    if (options->half_close == CHR_ON && options->websocket == CHR_ON)
        return chr__fail(err, CHR_ERR_INVALID,
                         "socket: half-close=on can't be used with websocket=on: its Close frame ends both directions");
    code = chr__ws_check_options(options, err);
    if (code < 0)
        return code;
    if (!options->tls_creds && (options->tls_authz || is_named))
        return chr__fail(err, CHR_ERR_INVALID, "socket: tls-authz= and tls-hostname= go with tls-creds= only");
    if (options->tls_creds && options->server != CHR_ON && !is_named && address->type != CHR_ADDR_INET)
        return chr__fail(err, CHR_ERR_INVALID, "socket: TLS can not be used %s: there is no host name to verify",
                         address->type == CHR_ADDR_FD ? "with a pre-opened client fd"
                         : address->type == CHR_ADDR_UNIX ? "over path= without tls-hostname=" : "over cid= without tls-hostname=");
    for (i = 0; i < CHR__LAYERS; i++)
        if (chr__layer_is_asked(options, i) && !chr__socket_layers[i].slots)
            return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "socket: %s=: built without %s",
                             chr__socket_layers[i].option, i == 0 ? "TLS" : chr__socket_layers[i].option);
    return options->tls_creds ? chr__tls_check(ctx, options, err) : 0;
}

/* -- >>socket_chardev   a listener or an attempt to connect, and connections: those whose handshake goes on, and one
 * that has got the chardev. Each has its own layers. What is left of one that ends lingers in the context. -- */

typedef enum chr__socket_state { /* of a client's attempt; a server is always idle */
    CHR__SOCKET_IDLE,
    CHR__SOCKET_LOOKING_UP,
    CHR__SOCKET_CONNECTING
} chr__socket_state;

typedef struct chr__link { /* one connection */
    chr__linger        linger;   /* what it becomes when it ends */
    struct chr__link  *next;     /* of those whose handshake goes on */
    chr__socket_bottom bottom;
    chr__layer        *top;
    int                fd, is_unix;
    int                is_given; /* others may have the same socket */
    int                wants;    /* CHR_IN or CHR_OUT: what its handshake waits for */
    chr_watch          watch;    /* of its handshake, */
    chr_timer          patience;
    int64_t            gives_up; /* and for whoever blocks */
    chr_timer          guard;    /* of a peer that has the chardev: looks for signs of life */
    uint64_t           heard;    /* bytes, when it looked last */
    int64_t            heard_at; /* when it heard something last */
    int                pings;    /* since then */
} chr__link;

typedef struct chr__socket {
    chr_dev           dev;
    chr__stream       stream;
    chr__com_port     com_port;
    chr_terminal_size terminal;
    chr__fan          fan;         /* clients=N: each client has a chardev of its own, a seat, behind this one */
    struct chr__socket *host;      /* of a seat: the server */
    chr__link        *peer;        /* the one that has the chardev: the stream is its */
    chr__link        *shaking;     /* those that may get it, the oldest first */
    int               shaking_count;
    chr__socket_state state;
    chr_address       address;     /* with its type found */
    int               is_server;
    int               is_unix;     /* its own address; chr_add_client() may bring others */
    int               listener, fd; /* -1 = none; fd: while connecting */
    int               was_blocking; /* the listener that was given: so it is at the end, for those who share it */
    char             *file_path;   /* of the socket file that we made, absolute; NULL = none */
    chr__file_id      file;
    int64_t           retry_ms;    /* 0 = a client that does not come back */
    int               has_failed;  /* reported; until the next success */
    chr_watch         listen_watch;
    chr_watch         watch;       /* of fd, or of the lookup */
    chr_timer         retry;       /* the next attempt to connect, or to accept; the next look at a full backlog */
    int64_t           gives_up;    /* looking at it */
    chr__lookup      *lookup;
    chr__sockaddr    *addresses;   /* of the attempt under way */
    int               address_count, address_next;
    chr_error         failure;     /* of the last attempt */
} chr__socket;

enum { CHR__BACKLOG_MS = 20, CHR__BACKLOG_SECONDS = 120 }; /* how often a full backlog is looked at, and how long */

static void chr__socket_wait_for(chr__socket *sock);

static const chr_socket_options *chr__socket_options(const chr__socket *sock)
{
    return (const chr_socket_options *)sock->dev.options;
}

/* -- descriptors that come and go beside the bytes (SCM_RIGHTS) -- */

static void chr__msgfds_close(chr__msgfds *message)
{
    while (message->count > 0)
        chr__os_close(message->fds[--message->count]);
}

static int chr__socket_read(chr__layer *layer, void *buf, size_t len)
{
    return chr__os_receive_bytes(((chr__socket_bottom *)layer)->fd, buf, len);
}

static int chr__socket_write(chr__layer *layer, const void *buf, size_t len)
{
    return chr__os_send(((chr__socket_bottom *)layer)->fd, buf, len);
}

/* What nobody has claimed goes when newer ones come. */
CHR__COLD void chr__socket_got_fds(chr__socket_bottom *bottom, size_t length)
{
    int fds[CHR__MAX_MSGFDS], count = chr__os_control_fds(&bottom->receiver.control, length, fds);

    if (count == 0)
        return;
    chr__msgfds_close(&bottom->incoming);
    memcpy(bottom->incoming.fds, fds, sizeof fds);
    bottom->incoming.count = count;
}

CHR__HOT static int chr__socket_read_unix(chr__layer *layer, void *buf, size_t len)
{
    chr__socket_bottom *bottom = (chr__socket_bottom *)layer;
    size_t              length;
    int                 n = chr__os_receive(bottom->fd, &bottom->receiver, buf, len, &length);

    if (length > 0)
        chr__socket_got_fds(bottom, length);
    return n;
}

CHR__COLD int chr__socket_write_fds(chr__socket_bottom *bottom, const void *buf, size_t len)
{
    int n = chr__os_send_fds(bottom->fd, buf, len, bottom->outgoing.fds, bottom->outgoing.count);

    if (n > 0)
        chr__msgfds_close(&bottom->outgoing);
    return n;
}

CHR__HOT static int chr__socket_write_unix(chr__layer *layer, const void *buf, size_t len)
{
    chr__socket_bottom *bottom = (chr__socket_bottom *)layer;

    return bottom->outgoing.count == 0 ? chr__os_send(bottom->fd, buf, len) : chr__socket_write_fds(bottom, buf, len);
}

/* Under layers much may come of which nothing reaches the frontend, handshakes and flow control included: so it is
 * bounded here, for all of them. Poll says again what was left. */
static int chr__socket_read_metered(chr__layer *layer, void *buf, size_t len)
{
    chr__socket_bottom *bottom = (chr__socket_bottom *)layer;
    chr_context        *ctx = layer->dev->ctx;
    int                 n;

    if (bottom->turn != ctx->turn)
        bottom->budget = CHR__TURN_BYTES;
    bottom->turn = ctx->turn;
    if (bottom->budget == 0)
        return CHR__LAYER_NOTHING;
    len = chr__min(len, (size_t)bottom->budget);
    n = bottom->is_unix ? chr__socket_read_unix(layer, buf, len) : chr__socket_read(layer, buf, len);
    bottom->budget -= n > 0 ? n : 0;
    bottom->received += n > 0 ? (uint64_t)n : 0;
    return n;
}

static int chr__socket_fin(chr__layer *layer);

#define CHR__SOCKET_BOTTOM(read, write, shutdown) { "raw", NULL, NULL, read, write, NULL, NULL, NULL, shutdown, NULL, NULL, NULL }

static const chr__layer_slots chr__socket_bottoms[2][2] = { /* [under layers][unix] */
    { CHR__SOCKET_BOTTOM(chr__socket_read,         chr__socket_write,      chr__socket_fin),
      CHR__SOCKET_BOTTOM(chr__socket_read_unix,    chr__socket_write_unix, chr__socket_fin) },
    { CHR__SOCKET_BOTTOM(chr__socket_read_metered, chr__socket_write,      chr__socket_fin),
      CHR__SOCKET_BOTTOM(chr__socket_read_metered, chr__socket_write_unix, chr__socket_fin) }
};
static const chr__layer_slots chr__socket_shut[2][2] = { /* and after the FIN */
    { CHR__SOCKET_BOTTOM(chr__socket_read,         chr__bottom_swallow,    NULL),
      CHR__SOCKET_BOTTOM(chr__socket_read_unix,    chr__bottom_swallow,    NULL) },
    { CHR__SOCKET_BOTTOM(chr__socket_read_metered, chr__bottom_swallow,    NULL),
      CHR__SOCKET_BOTTOM(chr__socket_read_metered, chr__bottom_swallow,    NULL) }
};

#undef CHR__SOCKET_BOTTOM

static int chr__socket_fin(chr__layer *layer)
{
    chr__socket_bottom *bottom = (chr__socket_bottom *)layer;

    chr__os_shutdown(bottom->fd);
    layer->slots = &chr__socket_shut[bottom->is_under][bottom->is_unix];
    return 0;
}

/* -- one connection -- */

static chr__socket *chr__link_socket(const chr__link *link) { return (chr__socket *)link->linger.dev; }

static int chr__link_has_layers(const chr__link *link) { return link->top != &link->bottom.layer; }

static void chr__link_free(chr__linger *linger)
{
    chr__link   *link = (chr__link *)linger;
    chr_context *ctx = link->linger.dev->ctx;
    chr__layer  *layer, *below;

    for (layer = link->top; layer; layer = below) {
        below = layer->below;
        if (layer->slots->close)
            layer->slots->close(layer);
        if (layer != &link->bottom.layer)
            chr__free(ctx, layer);
    }
    chr__msgfds_close(&link->bottom.outgoing);
    chr__msgfds_close(&link->bottom.incoming);
    chr__free(ctx, link);
}

static int chr__link_push(chr__link *link, const chr__socket_layer *kind, chr_error *err)
{
    chr__layer *layer = (chr__layer *)chr__allocate(link->linger.dev->ctx, kind->size);

    if (!layer)
        return chr__no_memory(err);
    layer->slots = kind->slots;
    layer->below = link->top;
    layer->dev = link->linger.dev;
    link->top = layer;
    return layer->slots->start ? layer->slots->start(layer, err) : 0;
}

static int chr__link_build_layers(chr__link *link, chr_error *err)
{
    const chr_socket_options *options = chr__socket_options(chr__link_socket(link));
    int                       i, code = 0;

    link->bottom.is_unix = link->is_unix;
    link->bottom.is_under = chr__layer_scheme(options) != NULL;
    link->bottom.layer.slots = &chr__socket_bottoms[link->bottom.is_under][link->is_unix];
    link->bottom.layer.dev = link->linger.dev;
    link->bottom.fd = link->fd;
    link->bottom.turn = link->linger.dev->ctx->turn - 1;
    chr__os_receiver_init(&link->bottom.receiver);
    link->top = &link->bottom.layer;
    for (i = 0; i < CHR__LAYERS && code == 0; i++)
        if (chr__layer_is_asked(options, i))
            code = chr__link_push(link, &chr__socket_layers[i], err);
    return code;
}

/* From the server to one of its seats, or back. */
static void chr__link_move(chr__link *link, chr__socket *to)
{
    chr__layer *layer;

    link->linger.dev = &to->dev;
    for (layer = link->top; layer; layer = layer->below)
        layer->dev = &to->dev;
}

/* It ends, and what it holds still goes out. A descriptor that is the giver's again, or a raw one that was given,
 * has no more to say. */
static void chr__link_end(chr__link *link, int takes_rest)
{
    chr__linger *linger = &link->linger;
    chr_dev     *source = takes_rest ? linger->dev : NULL;

    chr_watch_stop(&link->watch);
    chr_timer_stop(&link->patience);
    chr_timer_stop(&link->guard);
    if (chr__link_socket(link)->host)
        chr__link_move(link, chr__link_socket(link)->host);
    if (chr__is_given(linger->dev, link->fd) ||
        (link->is_given && !chr__link_has_layers(link) && !(source && chr__outbox_waits(source)))) {
        chr__close_own(linger->dev, link->fd);
        chr__link_free(linger);
        return;
    }
    linger->top = link->top;
    linger->fd = link->fd;
    linger->is_unix = link->is_unix;
    linger->waits_for_end = chr__link_has_layers(link);
    linger->release = chr__link_free;
    chr__linger_begin(linger, source);
}

static void chr__link_unlist(chr__link *link)
{
    chr__socket *sock = chr__link_socket(link);
    chr__link  **at = &sock->shaking;

    while (*at != link)
        at = &(*at)->next;
    *at = link->next;
    sock->shaking_count--;
}

/* Lower layers first. 0 = all are done. */
static int chr__layers_shake(chr__layer *layer, int *wants, chr_error *err)
{
    int code = layer->below ? chr__layers_shake(layer->below, wants, err) : 0;

    return code == 0 && layer->slots->step ? layer->slots->step(layer, wants, err) : code;
}

/* -- seats: with clients=N there are N, without a server is its own -- */

static chr__socket *chr__socket_seat(chr__socket *sock, size_t i) { return (chr__socket *)sock->fan.members[i].fe.dev; }

/* One that a new peer may have; NULL = all are taken. */
static chr__socket *chr__socket_free_seat(chr__socket *sock)
{
    size_t i;

    if (!sock->fan.dev)
        return !sock->peer || chr__socket_options(sock)->replace == CHR_ON ? sock : NULL;
    for (i = 0; i < sock->fan.count; i++)
        if (!chr__socket_seat(sock, i)->peer)
            return chr__socket_seat(sock, i);
    return NULL;
}

static int chr__socket_is_connected(chr__socket *sock)
{
    size_t i, count = 0;

    for (i = 0; i < sock->fan.count; i++)
        count += chr__socket_seat(sock, i)->peer != NULL;
    return sock->peer || count > 0;
}

/* -- connections end, or attempts -- */

static void chr__socket_end_peer(chr__socket *sock)
{
    chr__link *peer = sock->peer;

    if (!peer)
        return;
    sock->peer = NULL;
    sock->stream.top = NULL; /* the layers are the connection's */
    chr__stream_close(&sock->stream);
    chr__link_end(peer, 1);
}

static void chr__socket_end_handshakes(chr__socket *sock)
{
    chr__link *link;

    while ((link = sock->shaking) != NULL) {
        chr__link_unlist(link);
        chr__link_end(link, 0);
    }
}

static void chr__socket_drop(chr__socket *sock)
{
    sock->state = CHR__SOCKET_IDLE;
    chr_watch_stop(&sock->watch);
    chr_timer_stop(&sock->retry);
    chr__os_lookup_release(sock->lookup);
    sock->lookup = NULL;
    chr__os_close(sock->fd);
    sock->fd = -1;
    chr__socket_end_handshakes(sock);
    chr__socket_end_peer(sock);
}

static void chr__socket_peer_gone(chr__socket *sock)
{
    chr__socket_end_peer(sock);
    chr__socket_wait_for(sock);
    chr_be_event(&sock->dev, CHR_EVENT_CLOSED);
}

static void chr__socket_ended(chr__stream *stream, int code)
{
    chr__socket *sock = (chr__socket *)stream->dev;

    if (code == 0 && chr__socket_options(sock)->half_close == CHR_ON && !stream->input_over &&
        chr__stream_half_close(stream))
        chr_be_event(&sock->dev, CHR_EVENT_INPUT_END);
    else
        chr__socket_peer_gone(sock);
}

/* Once, until the next success. A peer that came for a page has not failed. */
static void chr__socket_report(chr__socket *sock)
{
    if (!sock->failure.text[0])
        return;
    if (!sock->has_failed)
        chr__log_line(sock->dev.ctx, sock->dev.id, sock->failure.text);
    sock->has_failed = 1;
}

/* One attempt has failed, without OPENED and CLOSED. */
static void chr__socket_failed(chr__socket *sock)
{
    sock->state = CHR__SOCKET_IDLE;
    chr_watch_stop(&sock->watch);
    chr__os_close(sock->fd);
    sock->fd = -1;
    chr__socket_report(sock);
    chr__socket_wait_for(sock);
}

static void chr__link_failed(chr__link *link)
{
    chr__socket *sock = chr__link_socket(link);

    chr__link_unlist(link);
    chr__link_end(link, 0);
    chr__socket_failed(sock);
}

/* -- signs of life: idle-timeout=, and pings where a layer has such. In real time, looked for a few times in each
 * span. -- */

static int chr__link_pings(const chr__link *link)
{
    return link->top->slots->ping && chr__socket_options(chr__link_socket(link))->keep_alive == CHR_ON;
}

/* What is unread, because the frontend has no room, is a sign of life too, also inside a layer: it would be lost. */
static int64_t chr__link_silence(chr__link *link)
{
    chr_context *ctx = link->linger.dev->ctx;
    int64_t      now = chr__real_now(ctx);
    uint64_t     heard = link->bottom.received + link->linger.dev->bytes_in;

    if (heard != link->heard || chr__os_unread(link->fd) > 0 || chr__stream_pending(&chr__link_socket(link)->stream)) {
        link->heard_at = now;
        link->pings = 0;
    }
    link->heard = heard;
    return (now - link->heard_at) / 1000000;
}

static void chr__link_look(void *opaque);

/* In milliseconds: the spans that count, with the defaults of websocket's pings. */
typedef struct chr__spans {
    int64_t idle, interval, count, silence; /* silence: idle-timeout=, 0 = none */
} chr__spans;

static chr__spans chr__link_spans(const chr__link *link)
{
    const chr_socket_options *options = chr__socket_options(chr__link_socket(link));
    chr__spans                spans;

    spans.idle = 1000 * (options->keep_alive_idle ? options->keep_alive_idle : 30);
    spans.interval = 1000 * (options->keep_alive_interval ? options->keep_alive_interval : 10);
    spans.count = options->keep_alive_count ? options->keep_alive_count : 3;
    spans.silence = 1000 * options->idle_timeout;
    return spans;
}

/* Begins to look for signs of life, or goes on. */
static void chr__link_guard(chr__link *link)
{
    chr__spans spans = chr__link_spans(link);
    int64_t    span = 8000;

    if (spans.silence == 0 && !chr__link_pings(link))
        return;
    if (chr__link_pings(link))
        span = spans.idle < span ? spans.idle : span;
    if (spans.silence > 0)
        span = spans.silence < span ? spans.silence : span;
    chr__timer_start_real(link->linger.dev->ctx, &link->guard, span / 8, chr__link_look, link);
}

static void chr__link_give_up(chr__link *link, const char *format, int64_t value)
{
    chr__socket *sock = chr__link_socket(link);
    char         line[120];

    chr__format(line, sizeof line, format, (long long)value);
    chr__log_line(sock->dev.ctx, sock->dev.id, line);
    if (sock->peer == link)
        chr__socket_peer_gone(sock);
}

/* Sending makes the stream ask the frontend for room, which may do anything. */
static void chr__link_ping(chr__link *link)
{
    chr__socket *sock = chr__link_socket(link);

    link->pings++;
    (void)link->top->slots->ping(link->top);
    chr__stream_update(&sock->stream);
    if (sock->peer == link)
        chr__link_guard(link);
}

static void chr__link_look(void *opaque)
{
    chr__link *link = (chr__link *)opaque;
    chr__spans spans = chr__link_spans(link);
    int64_t    silence = chr__link_silence(link);
    int        is_late = chr__link_pings(link) && silence >= spans.idle + link->pings * spans.interval;

    if (spans.silence > 0 && silence >= spans.silence)
        chr__link_give_up(link, "the peer has sent nothing for %lld seconds: it is closed", spans.silence / 1000);
    else if (is_late && link->pings >= spans.count)
        chr__link_give_up(link, "the peer has not answered %lld pings: it is closed", spans.count);
    else if (is_late)
        chr__link_ping(link);
    else
        chr__link_guard(link);
}

/* -- a connection begins -- */

static int chr__link_shake(chr__link *link);

static void chr__link_ready(void *opaque, int events)
{
    (void)events;
    (void)chr__link_shake((chr__link *)opaque);
}

/* The stream begins. The frontend is asked for room meanwhile, and may do anything. */
static int chr__link_take_seat(chr__link *link, chr__socket *server, chr__socket *seat)
{
    int code;

    chr__link_move(link, seat);
    chr__socket_end_peer(seat);
    seat->peer = link;
    code = chr__stream_open(&seat->stream, &seat->dev, link->top, link->fd, link->fd, chr__socket_ended,
                            &server->failure);
    if (code < 0) {
        seat->peer = NULL;
        chr__link_end(link, 0);
        chr__socket_failed(server);
    } else if (seat->peer == link) {
        server->has_failed = 0;
        link->heard_at = chr__real_now(seat->dev.ctx);
        chr__link_guard(link);
        if (!chr__socket_free_seat(server))
            chr__socket_end_handshakes(server);
        chr__socket_wait_for(server);
    }
    return code;
}

/* The handshake is over, and it gets the chardev, or a seat; with replace=on somebody may have it. */
static int chr__link_up(chr__link *link)
{
    chr__socket *server = chr__link_socket(link), *seat = chr__socket_free_seat(server);
    int          was_open = seat && seat->peer, code;

    chr_watch_stop(&link->watch);
    chr_timer_stop(&link->patience);
    chr__link_unlist(link);
    if (!seat) {
        chr__link_end(link, 0);
        return chr__fail(&server->failure, CHR_ERR_BUSY, "all clients are there already");
    }
    code = chr__link_take_seat(link, server, seat);
    if (was_open)
        chr_be_event(&seat->dev, CHR_EVENT_CLOSED);
    if (code == 0 && seat->peer == link)
        chr_be_event(&seat->dev, CHR_EVENT_OPENED);
    return code;
}

/* Returns 0 when it has got the chardev, would-block, or why it has failed; then it is gone. */
static int chr__link_shake(chr__link *link)
{
    chr__socket *sock = chr__link_socket(link);
    int          code = chr__layers_shake(link->top, &link->wants, &sock->failure);

    if (code == 0)
        return chr__link_up(link);
    if (code == CHR_ERR_WOULD_BLOCK) {
        if (chr_watch_start(sock->dev.ctx, &link->watch, link->fd, link->wants, chr__link_ready, link) == 0)
            return CHR_ERR_WOULD_BLOCK;
        code = chr__no_memory(&sock->failure);
    }
    chr__link_failed(link);
    return code;
}

static void chr__link_out_of_patience(void *opaque)
{
    chr__link   *link = (chr__link *)opaque;
    chr__socket *sock = chr__link_socket(link);

    chr__fail(&sock->failure, CHR_ERR_TIMEOUT, "the peer has not finished the %s handshake within %d seconds",
              chr__layer_scheme(chr__socket_options(sock)), CHR__HANDSHAKE_SECONDS);
    chr__link_failed(link);
}

static chr__link *chr__link_new(chr__socket *sock, int fd, int is_unix, int is_given)
{
    chr__link *link = (chr__link *)chr__allocate(sock->dev.ctx, sizeof *link), **last;

    if (!link)
        return NULL;
    link->linger.dev = &sock->dev;
    link->fd = fd;
    link->is_unix = is_unix;
    link->is_given = is_given;
    for (last = &sock->shaking; *last; last = &(*last)->next)
        ;
    *last = link;
    sock->shaking_count++;
    return link;
}

/* Takes a connected descriptor. Returns as chr__link_shake() does; one that was given stays the giver's when it
 * fails here. */
static int chr__socket_adopt(chr__socket *sock, int fd, int is_unix, int is_given)
{
    const chr_socket_options *options = chr__socket_options(sock);
    chr__link                *link = chr__link_new(sock, fd, is_unix, is_given);
    int                       code;

    sock->state = CHR__SOCKET_IDLE;
    chr_watch_stop(&sock->watch);
    if (!link) {
        chr__close_own(&sock->dev, fd);
        chr__no_memory(&sock->failure);
        chr__socket_failed(sock);
        return CHR_ERR_NO_MEMORY;
    }
    chr__os_urgent_inline(fd);
    if (!is_unix && (options->nodelay == CHR_ON || options->delay == CHR_OFF))
        chr__os_nodelay(fd);
    if (!is_unix && options->keep_alive == CHR_ON)
        chr__os_keep_alive(fd, (int)options->keep_alive_idle, (int)options->keep_alive_interval,
                           (int)options->keep_alive_count);
    code = chr__link_build_layers(link, &sock->failure);
    if (code < 0) {
        chr__link_failed(link);
        return code;
    }
    if (chr__link_has_layers(link))
        chr__timer_start_real(sock->dev.ctx, &link->patience, CHR__HANDSHAKE_SECONDS * 1000, chr__link_out_of_patience,
                              link);
    link->gives_up = chr__deadline(sock->dev.ctx, CHR__HANDSHAKE_SECONDS * 1000);
    code = chr__link_shake(link);
    if (code == CHR_ERR_WOULD_BLOCK)
        chr__socket_wait_for(sock);
    return code;
}

/* -- server -- */

/* Further peers come while handshakes are under way; with one that has the chardev, they wait in the backlog, or may
 * replace it. */
static int chr__socket_has_room(chr__socket *sock)
{
    return chr__socket_free_seat(sock) && sock->shaking_count < CHR__SHAKING_MOST;
}

static void chr__socket_listen_again(void *opaque)
{
    chr__socket_wait_for((chr__socket *)opaque);
}

static int chr__socket_accept(chr__socket *sock)
{
    int fd = chr__os_accept(sock->listener);

    if (fd >= 0) {
        sock->has_failed = 0; /* another peer: its failure is news */
        (void)chr__socket_adopt(sock, fd, sock->is_unix, 0);
    } else if (fd != CHR_ERR_WOULD_BLOCK) {
        return chr__fail(&sock->failure, fd, "cannot accept a peer: %s", chr_error_text(fd));
    }
    return 0;
}

static void chr__socket_accept_ready(void *opaque, int events)
{
    chr__socket *sock = (chr__socket *)opaque;

    (void)events;
    if (chr__socket_accept(sock) == 0)
        return;
    chr__socket_report(sock); /* EMFILE or the like: the peer stays in the backlog, and the loop does not spin */
    chr_watch_set(&sock->listen_watch, 0);
    chr_timer_start(sock->dev.ctx, &sock->retry, 200, chr__socket_listen_again, sock);
}

/* Tries the addresses, and for each the ports up to `to`. */
static int chr__socket_bind_inet(chr__socket *sock, const char *name, const chr__listen_terms *terms, chr_error *err)
{
    int i, port, last, fd = CHR_ERR_NOT_FOUND;

    for (i = 0; i < sock->address_count; i++) {
        port = chr__os_sockaddr_port(&sock->addresses[i]);
        last = sock->address.to ? (int)sock->address.to : port;
        for (; port <= last; port++) {
            chr__os_sockaddr_set_port(&sock->addresses[i], port);
            fd = chr__os_listen(&sock->addresses[i], name, terms, err);
            if (fd != CHR_ERR_EXISTS)
                break;
        }
        if (fd >= 0)
            break;
    }
    return fd;
}

static int chr__socket_bind(chr__socket *sock, chr_error *err)
{
    chr__listen_terms terms;
    char              name[300];
    int               code = chr__address_terms(sock->dev.ctx, &sock->address, &terms, err);

    if (code < 0)
        return code;
    chr__address_name(&sock->address, name, sizeof name);
    if (sock->address.type == CHR_ADDR_INET)
        return chr__socket_bind_inet(sock, name, &terms, err);
    if (sock->address.type == CHR_ADDR_UNIX && sock->address.abstract != CHR_ON) {
        sock->file_path = chr__absolute_path(sock->dev.ctx, sock->address.path);
        if (!sock->file_path)
            return chr__no_memory(err);
    }
    terms.file = &sock->file;
    return chr__os_listen(&sock->addresses[0], name, &terms, err);
}

/* What is bound here is ours at once; a descriptor that was given only when nothing can fail any more. */
static int chr__socket_listen(chr__socket *sock, chr_error *err)
{
    int is_given = sock->address.type == CHR_ADDR_FD, fd = is_given ? sock->address.fd : chr__socket_bind(sock, err),
        flags;

    if (fd < 0)
        return fd;
    if (!is_given) {
        sock->listener = fd;
    } else {
        flags = chr__os_adopt(fd);
        if (flags < 0)
            return chr__fail(err, CHR_ERR_IO, "socket: fd=%d: its flags can't be set", fd);
        sock->was_blocking = !chr__os_is_nonblocking(flags);
    }
    if (chr_watch_start(sock->dev.ctx, &sock->listen_watch, fd, CHR_IN, chr__socket_accept_ready, sock) < 0)
        return chr__no_memory(err);
    sock->listener = fd;
    return 0;
}

/* -- client -- */

static void chr__socket_try(chr__socket *sock);

static void chr__socket_watch(chr__socket *sock, chr__socket_state state, int fd, int events,
                              void (*ready)(void *, int))
{
    sock->state = state;
    if (chr_watch_start(sock->dev.ctx, &sock->watch, fd, events, ready, sock) == 0)
        return;
    chr__os_lookup_release(sock->lookup);
    sock->lookup = NULL;
    chr__no_memory(&sock->failure);
    chr__socket_failed(sock);
}

static void chr__socket_connect_ready(void *opaque, int events)
{
    chr__socket *sock = (chr__socket *)opaque;
    char         name[300];
    int          fd = sock->fd;

    (void)events;
    chr__address_name(&sock->address, name, sizeof name);
    sock->fd = -1;
    if (chr__os_connect_result(fd, name, &sock->failure) == 0) {
        (void)chr__socket_adopt(sock, fd, sock->is_unix, 0);
        return;
    }
    chr_watch_stop(&sock->watch);
    chr__os_close(fd);
    chr__socket_try(sock);
}

static void chr__socket_try_again(void *opaque)
{
    chr__socket_try((chr__socket *)opaque);
}

/* A unix server's backlog is full (EAGAIN), and poll() can't tell when there is room. As TCP does, wait, though not
 * for ever. */
static int chr__socket_waits_for_backlog(chr__socket *sock)
{
    if (!sock->is_unix || chr__time_left(sock->dev.ctx, sock->gives_up) == 0)
        return 0;
    sock->address_next--;
    sock->state = CHR__SOCKET_CONNECTING;
    chr_timer_start(sock->dev.ctx, &sock->retry, CHR__BACKLOG_MS, chr__socket_try_again, sock);
    return 1;
}

/* The next address of the attempt. */
static void chr__socket_try(chr__socket *sock)
{
    char name[300];
    int  in_progress, fd;

    chr__address_name(&sock->address, name, sizeof name);
    for (; sock->address_next < sock->address_count; ) {
        fd = chr__os_connect(&sock->addresses[sock->address_next++], name, &in_progress, &sock->failure);
        if (fd == CHR_ERR_WOULD_BLOCK && chr__socket_waits_for_backlog(sock))
            return;
        if (fd < 0)
            continue;
        if (!in_progress) {
            (void)chr__socket_adopt(sock, fd, sock->is_unix, 0);
            return;
        }
        sock->fd = fd;
        chr__socket_watch(sock, CHR__SOCKET_CONNECTING, fd, CHR_OUT, chr__socket_connect_ready);
        return;
    }
    chr__socket_failed(sock);
}

static void chr__socket_looked_up(chr__socket *sock, int count)
{
    sock->address_count = count;
    sock->address_next = 0;
    if (count > 0)
        chr__socket_try(sock);
    else
        chr__socket_failed(sock);
}

static void chr__socket_lookup_ready(void *opaque, int events)
{
    chr__socket *sock = (chr__socket *)opaque;
    int          count = chr__os_lookup_result(sock->lookup, sock->addresses, &sock->failure);

    (void)events;
    chr_watch_stop(&sock->watch);
    chr__os_lookup_release(sock->lookup);
    sock->lookup = NULL;
    chr__socket_looked_up(sock, count);
}

/* For inet: numbers at once; names in the background where that is possible and we may not block. */
static void chr__socket_look_up(chr__socket *sock, int may_block)
{
    const chr_address *address = &sock->address;
    const char        *host = address->host && address->host[0] ? address->host : NULL;
    int                family = chr__ip_family(address->ipv4, address->ipv6);
    int                count = chr__os_lookup(host, address->port, family, 0, 1, sock->addresses, &sock->failure);

    if (count == CHR_ERR_WOULD_BLOCK && !may_block) {
        sock->lookup = chr__os_lookup_start(host, address->port, family);
        if (sock->lookup) {
            chr__socket_watch(sock, CHR__SOCKET_LOOKING_UP, chr__os_lookup_fd(sock->lookup), CHR_IN,
                              chr__socket_lookup_ready);
            return;
        }
    }
    if (count == CHR_ERR_WOULD_BLOCK)
        count = chr__os_lookup(host, address->port, family, 0, 0, sock->addresses, &sock->failure);
    chr__socket_looked_up(sock, count);
}

static void chr__socket_attempt(chr__socket *sock, int may_block)
{
    chr_timer_stop(&sock->retry);
    sock->gives_up = chr__deadline(sock->dev.ctx, CHR__BACKLOG_SECONDS * 1000);
    if (sock->address.type == CHR_ADDR_INET)
        chr__socket_look_up(sock, may_block);
    else
        chr__socket_looked_up(sock, 1);
}

static void chr__socket_retry(void *opaque)
{
    chr__socket_attempt((chr__socket *)opaque, 0);
}

/* A server listens while it has room, a client with reconnect tries again when nothing is under way. */
static void chr__socket_wait_for(chr__socket *sock)
{
    if (sock->host)
        sock = sock->host;
    if (sock->is_server)
        chr_watch_set(&sock->listen_watch, chr__socket_has_room(sock) ? CHR_IN : 0);
    else if (sock->retry_ms > 0 && sock->state == CHR__SOCKET_IDLE && !sock->peer && !sock->shaking)
        chr_timer_start(sock->dev.ctx, &sock->retry, sock->retry_ms, chr__socket_retry, sock);
}

/* -- blocking, where it was asked for: the same state machine, driven by a poll of its own -- */

typedef struct chr__drive {
    chr__pollfd polls[1 + CHR__SHAKING_MOST]; /* the listener, the attempt or the lookup; then handshakes */
    chr__link  *links[1 + CHR__SHAKING_MOST];
    int         count, timeout_ms;
} chr__drive;

static void chr__drive_add(chr__drive *drive, chr__link *link, int fd, int events)
{
    drive->links[drive->count] = link;
    drive->polls[drive->count].fd = fd;
    drive->polls[drive->count].events = chr__os_poll_events(events);
    drive->polls[drive->count++].revents = 0;
}

static void chr__drive_prepare(chr__drive *drive, chr__socket *sock)
{
    chr__link *link;
    int        left;

    drive->count = 0;
    drive->timeout_ms = sock->state == CHR__SOCKET_CONNECTING && sock->fd < 0 ? CHR__BACKLOG_MS : -1;
    if (sock->state == CHR__SOCKET_LOOKING_UP)
        chr__drive_add(drive, NULL, chr__os_lookup_fd(sock->lookup), CHR_IN);
    else if (sock->state == CHR__SOCKET_CONNECTING)
        chr__drive_add(drive, NULL, sock->fd, CHR_OUT);
    else
        chr__drive_add(drive, NULL, sock->is_server && chr__socket_has_room(sock) ? sock->listener : -1, CHR_IN);
    for (link = sock->shaking; link && drive->count <= CHR__SHAKING_MOST; link = link->next) {
        chr__drive_add(drive, link, link->fd, link->wants);
        left = chr__time_left(sock->dev.ctx, link->gives_up);
        drive->timeout_ms = drive->timeout_ms < 0 || left < drive->timeout_ms ? left : drive->timeout_ms;
    }
}

static int chr__drive_first(chr__socket *sock)
{
    switch (sock->state) {
    case CHR__SOCKET_LOOKING_UP: chr__socket_lookup_ready(sock, CHR_IN); return 0;
    case CHR__SOCKET_CONNECTING: chr__socket_connect_ready(sock, CHR_OUT); return 0;
    case CHR__SOCKET_IDLE:
    default:                     return chr__socket_accept(sock);
    }
}

/* One that got the chardev has ended the others. */
static void chr__drive_link(chr__socket *sock, chr__link *link, int is_ready)
{
    chr__link *at = sock->shaking;

    while (at && at != link)
        at = at->next;
    if (at && is_ready)
        (void)chr__link_shake(at);
    else if (at && chr__time_left(sock->dev.ctx, at->gives_up) == 0)
        chr__link_out_of_patience(at);
}

static int chr__socket_drive(chr__socket *sock)
{
    chr__drive drive;
    int        i, code = 0, ready;

    chr__drive_prepare(&drive, sock);
    ready = chr__block_on(sock->dev.ctx, drive.polls, drive.count, drive.timeout_ms); /* an error: all are tried */
    if (sock->state == CHR__SOCKET_CONNECTING && sock->fd < 0) {
        chr_timer_stop(&sock->retry);
        chr__socket_try(sock);
        return 0;
    }
    sock->dev.ctx->turn++;
    for (i = 1; i < drive.count; i++)
        chr__drive_link(sock, drive.links[i], ready < 0 || drive.polls[i].revents);
    if ((drive.polls[0].revents || (ready < 0 && drive.polls[0].fd >= 0)) && !chr__socket_is_connected(sock))
        code = chr__drive_first(sock);
    return code;
}

/* A client that is disconnected makes an attempt; one with reconnect first waits until the next is due. */
static void chr__socket_drive_client(chr__socket *sock, int is_first)
{
    int64_t left = (sock->retry.deadline - chr_loop_now(sock->dev.ctx)) / 1000000 + 1;

    if (!is_first && sock->retry_ms > 0 && left > 0)
        (void)chr__block(sock->dev.ctx, -1, 0, (int)left);
    chr__socket_attempt(sock, 1);
}

static int chr__socket_failure(const chr__socket *sock, chr_error *err)
{
    if (err)
        *err = sock->failure;
    return sock->failure.code;
}

static int chr__socket_wait_connected(chr_dev *dev, chr_error *err)
{
    chr__socket *sock = (chr__socket *)dev;
    int          is_first = 1;

    sock->failure.code = 0;
    for (; !chr__socket_is_connected(sock); is_first = 0) {
        if (sock->is_server || sock->state != CHR__SOCKET_IDLE || sock->shaking) {
            if (chr__socket_drive(sock) < 0 || sock->failure.code == CHR_ERR_NO_MEMORY)
                return chr__socket_failure(sock, err);
            continue;
        }
        if (!is_first && sock->retry_ms == 0)
            return chr__socket_failure(sock, err);
        if (sock->address.type == CHR_ADDR_FD)
            return chr__fail(err, CHR_ERR_DISCONNECTED, "socket: fd=%d: its peer has gone", sock->address.fd);
        chr__socket_drive_client(sock, is_first);
    }
    return 0;
}

/* A connected descriptor: ours from success on. */
static int chr__socket_take_fd(chr__socket *sock, int fd, int is_unix, chr_error *err)
{
    int code;

    if (chr__os_adopt(fd) < 0)
        return chr__fail(err, CHR_ERR_IO, "socket: fd=%d: its flags can't be set", fd);
    sock->has_failed = 1;
    code = chr__socket_adopt(sock, fd, is_unix, 1);
    if (code < 0 && code != CHR_ERR_WOULD_BLOCK)
        return chr__socket_failure(sock, err);
    return sock->has_failed = 0; /* a handshake that goes on may fail later, and nobody is told then */
}

/* -- slots -- */

static int chr__socket_disconnect(chr_dev *dev)
{
    chr__socket *sock = (chr__socket *)dev;
    size_t       i;

    if (sock->fan.dev && chr__socket_is_connected(sock)) {
        for (i = 0; i < sock->fan.count; i++)
            (void)chr__socket_disconnect(&chr__socket_seat(sock, i)->dev);
    } else if (sock->peer) {
        chr__socket_peer_gone(sock);
    } else if (sock->state != CHR__SOCKET_IDLE || sock->shaking) {
        chr__socket_drop(sock);
        chr__socket_wait_for(sock);
    }
    return 0;
}

static int chr__socket_add_client(chr_dev *dev, int fd, chr_error *err)
{
    chr__socket      *sock = (chr__socket *)dev;
    chr__socket_facts facts;

    if (!sock->is_server)
        return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "chardev '%s' is no server: it takes no clients", dev->id);
    if (!chr__socket_has_room(sock))
        return chr__fail(err, CHR_ERR_BUSY, sock->fan.dev ? "chardev '%s' has all its clients already" :
                         "chardev '%s' has a client already", dev->id);
    if (chr__address_check_fd(fd, 0, &facts, err) < 0)
        return CHR_ERR_INVALID;
    return chr__socket_take_fd(sock, fd, facts.is_unix, err);
}

static int chr__socket_set_msgfds(chr_dev *dev, const int *fds, int count)
{
    chr__socket *sock = (chr__socket *)dev;
    chr__msgfds *outgoing = sock->peer ? &sock->peer->bottom.outgoing : NULL;
    int          copy;

    if (sock->fan.dev || (sock->peer ? !sock->peer->is_unix : !sock->is_unix))
        return CHR_ERR_NOT_SUPPORTED;
    if (count < 0 || count > CHR__MAX_MSGFDS)
        return CHR_ERR_INVALID;
    if (!outgoing)
        return CHR_ERR_DISCONNECTED;
    chr__msgfds_close(outgoing);
    for (; outgoing->count < count; outgoing->fds[outgoing->count++] = copy) {
        copy = chr__os_dup(fds[outgoing->count], 3);
        if (copy < 0) {
            chr__msgfds_close(outgoing);
            return copy;
        }
    }
    return 0;
}

static int chr__socket_get_msgfds(chr_dev *dev, int *fds, int count)
{
    chr__socket *sock = (chr__socket *)dev;
    chr__link   *peer = sock->peer;
    chr__msgfds *incoming = peer ? &peer->bottom.incoming : NULL;
    int          i, given;

    if (!incoming)
        return sock->fan.dev ? CHR_ERR_NOT_SUPPORTED : 0;
    given = incoming->count < count ? incoming->count : count;
    for (i = 0; i < incoming->count; i++)
        if (i < given)
            fds[i] = incoming->fds[i];
        else
            chr__os_close(incoming->fds[i]);
    incoming->count = 0;
    return given;
}

static int chr__socket_shutdown(chr_dev *dev)
{
    if (((chr__socket *)dev)->fan.dev)
        return chr__fan_shutdown(&((chr__socket *)dev)->fan);
    return chr__stream_shutdown(&((chr__socket *)dev)->stream);
}

static size_t chr__socket_queued(const chr_dev *dev)
{
    const chr__socket *sock = (const chr__socket *)dev;
    size_t             i, count = chr__stream_queued(&sock->stream);

    for (i = 0; i < sock->fan.count; i++)
        count += (size_t)chr__queued(sock->fan.members[i].fe.dev) + (size_t)sock->fan.members[i].fe.dev->ending;
    return count;
}

static int chr__socket_ioctl(chr_dev *dev, int command, void *arg)
{
    chr__stream *stream = &((chr__socket *)dev)->stream;
    chr__layer  *layer;
    int          code = CHR_ERR_NOT_SUPPORTED;

    if (((chr__socket *)dev)->fan.dev)
        return chr__fan_ioctl(&((chr__socket *)dev)->fan, command, arg);
    for (layer = stream->top; layer && code == CHR_ERR_NOT_SUPPORTED; layer = layer->below)
        if (layer->slots->ioctl)
            code = layer->slots->ioctl(layer, command, arg);
    if (!stream->top)
        code = chr__telnet_ioctl_away(dev, command, arg);
    if (chr__stream_unsent(stream))
        chr__stream_update(stream);
    return code;
}

static void chr__socket_describe_client(const chr__socket *seat, chr_info *info)
{
    char   name[300];
    size_t used = strlen(info->client_addresses);

    if (!seat->is_server || !seat->peer)
        return;
    chr__os_socket_name(seat->peer->fd, 1, name, sizeof name);
    chr__append(info->client_addresses, sizeof info->client_addresses, used, "%s%s", used ? " " : "",
                name[0] ? name : "unix");
    info->clients++;
}

static void chr__socket_describe_clients(const chr__socket *sock, chr_info *info)
{
    const chr__socket *seat;
    size_t             i;

    chr__socket_describe_client(sock, info);
    for (i = 0; i < sock->fan.count; i++) {
        seat = (const chr__socket *)sock->fan.members[i].fe.dev;
        chr__socket_describe_client(seat, info);
        info->bytes_dropped += seat->dev.bytes_dropped;
    }
}

/* Of a descriptor that was given: what it has turned out to be, as long as it is there. */
static chr_address_type chr__socket_shown_type(const chr__socket *sock)
{
    chr__socket_facts facts;

    if (sock->address.type != CHR_ADDR_FD || (sock->listener < 0 && !sock->peer))
        return sock->address.type;
    chr__os_socket_facts(sock->listener >= 0 ? sock->listener : sock->peer->fd, &facts);
    return facts.is_unix ? CHR_ADDR_UNIX : facts.is_inet ? CHR_ADDR_INET : CHR_ADDR_VSOCK;
}

static void chr__socket_describe(const chr_dev *dev, chr_info *info)
{
    static const char *const schemes[] = { "", "tcp", "unix", "vsock", "fd" };
    const chr__socket       *sock = (const chr__socket *)dev;
    const char              *scheme = chr__layer_scheme(chr__socket_options(sock));
    chr_address_type         type = chr__socket_shown_type(sock);
    int                      is_given = type != sock->address.type, is_open = sock->peer != NULL;
    int                      has_two = is_open && type == CHR_ADDR_INET; /* our end's number is news too */
    char                     name[512];

    chr__address_name(&sock->address, name, sizeof name);
    if (is_open)
        chr__os_socket_name(sock->peer->fd, 1, info->peer, sizeof info->peer);
    if (sock->listener >= 0)
        chr__os_socket_name(sock->listener, 0, info->address, sizeof info->address);
    else if (!sock->is_server)
        memcpy(info->address, info->peer, sizeof info->address);
    if (has_two || (is_given && !sock->is_server && !info->peer[0]))
        chr__os_socket_name(sock->peer->fd, 0, name, sizeof name);
    else if (is_given || (type == CHR_ADDR_INET && sock->is_server))
        memcpy(name, info->address, sizeof name);
    chr__socket_describe_clients(sock, info);
    chr__format(info->filename, sizeof info->filename, "%s%s:%.300s%s%s%.180s",
                is_open || info->clients > 0 ? "" : "disconnected:",
                scheme ? scheme : schemes[type], name, sock->is_server ? ",server=on" : "", has_two ? " <-> " : "",
                has_two ? info->peer : "");
    info->comes_back = sock->is_server || sock->retry_ms > 0;
}

/* -- open and close -- */

static int chr__socket_check_keep_alive(const chr__socket *sock, const chr_socket_options *options, chr_error *err)
{
    int has_times = options->keep_alive_idle || options->keep_alive_interval || options->keep_alive_count;
    int has_tcp = sock->address.type == CHR_ADDR_INET || sock->address.type == CHR_ADDR_FD;

    if (has_times && options->keep_alive != CHR_ON)
        return chr__fail(err, CHR_ERR_INVALID,
                         "socket: keep-alive-idle=, keep-alive-interval= and keep-alive-count= need keep-alive=on");
    if (options->keep_alive == CHR_ON && !has_tcp && options->websocket != CHR_ON)
        return chr__fail(err, CHR_ERR_INVALID, "socket: keep-alive=on is for TCP and for websocket=on only");
    return 0;
}

static int chr__socket_check_clients(const chr__socket *sock, const chr_socket_options *options, chr_error *err)
{
    int count = (int)options->clients;

    if (count > 1 && !sock->is_server)
        return chr__fail(err, CHR_ERR_INVALID, "socket: clients= is for a server: it needs server=on");
    if (count > 1 && options->com_port == CHR_ON)
        return chr__fail(err, CHR_ERR_INVALID,
                         "socket: clients=%d can't be used with com-port=on: a serial line has one end", count);
    if (count > 1 && options->replace == CHR_ON)
        return chr__fail(err, CHR_ERR_INVALID, "socket: clients=%d and replace=on can't both be given", count);
    if (options->replace == CHR_ON && !sock->is_server)
        return chr__fail(err, CHR_ERR_INVALID, "socket: replace= is for a server: it needs server=on");
    return 0;
}

static int chr__socket_check(chr__socket *sock, chr_error *err)
{
    const chr_socket_options *options = chr__socket_options(sock);
    int                       retries = options->reconnect != 0 || options->reconnect_ms != 0;

    sock->address = options->address;
    sock->is_server = options->server == CHR_ON;
    sock->retry_ms = options->reconnect ? options->reconnect * 1000 : options->reconnect_ms;
    if (chr__address_type(&sock->address, err) < 0 || chr__address_check(&sock->address, sock->is_server, err) < 0 ||
        chr__layers_check(sock->dev.ctx, options, &sock->address, err) < 0)
        return err ? err->code : CHR_ERR_INVALID;
    if (options->reconnect && options->reconnect_ms)
        return chr__fail(err, CHR_ERR_INVALID, "socket: reconnect= and reconnect-ms= can't both be given");
    if (retries && sock->is_server)
        return chr__fail(err, CHR_ERR_INVALID, "socket: reconnect= is for a client, not with server=on");
    if (retries && sock->address.type == CHR_ADDR_FD)
        return chr__fail(err, CHR_ERR_INVALID, "socket: reconnect= can't be used with fd=: there is no address to connect to again");
    if (options->wait != CHR_DEFAULT && !sock->is_server)
        return chr__fail(err, CHR_ERR_INVALID, "socket: wait= is for a server: it needs server=on");
    if (options->nodelay != CHR_DEFAULT && options->delay != CHR_DEFAULT)
        return chr__fail(err, CHR_ERR_INVALID,
                         "socket: nodelay= and delay= can't both be given: one is the opposite of the other");
    if (chr__socket_check_clients(sock, options, err) < 0 || chr__socket_check_keep_alive(sock, options, err) < 0)
        return CHR_ERR_INVALID;
    if (sock->is_server && options->wait != CHR_OFF && sock->dev.ctx->depth > 0)
        return chr__fail(err, CHR_ERR_IN_HANDLER, "socket: wait=on would block the loop from inside a handler: say wait=off");
    return 0;
}

/* -- clients=N: the io of the whole; each seat has that of a stream -- */

static int chr__socket_fan_write(chr_dev *dev, const void *buf, size_t len)
{
    return chr__fan_write(&((chr__socket *)dev)->fan, buf, len);
}

static void chr__socket_fan_update(chr_dev *dev)
{
    chr__fan_update(&((chr__socket *)dev)->fan);
}

static int chr__socket_fan_wait_fd(chr_dev *dev, int *events)
{
    return chr__fan_wait_fd(&((chr__socket *)dev)->fan, events);
}

static const chr_io chr__socket_fan_io = {
    chr__socket_fan_write,   /* write   */
    NULL,                    /* read    */
    chr__socket_fan_update,  /* update  */
    chr__socket_fan_wait_fd, /* wait_fd */
};

static int chr__socket_add_seat(chr__socket *sock, const chr_socket_options *options, chr_error *err)
{
    chr__socket *seat = (chr__socket *)chr__create_part(&sock->dev, options, err);
    int          code = seat ? chr__fan_add(&sock->fan, &seat->dev, err) : CHR_ERR_NO_MEMORY;

    if (!seat)
        return code;
    seat->listener = seat->fd = -1;
    seat->is_server = 1;
    seat->host = sock;
    if (code < 0)
        chr__destroy(&seat->dev);
    return code;
}

/* history= and obuf= are each client's own. */
static int chr__socket_open_seats(chr__socket *sock, chr_error *err)
{
    chr_socket_options options = *chr__socket_options(sock);
    size_t             count = (size_t)options.clients;
    int                code = chr__fan_init(&sock->fan, &sock->dev, count, err);

    options.common.logfile = NULL;
    options.common.mux = CHR_OFF;
    options.clients = 1;
    sock->fan.of_parts = 1;
    sock->dev.io = &chr__socket_fan_io;
    chr__outbox_free(&sock->dev);
    while (code == 0 && sock->fan.count < count)
        code = chr__socket_add_seat(sock, &options, err);
    return code;
}

static void chr__socket_close_seats(chr__socket *sock)
{
    while (sock->fan.count > 0)
        chr__destroy(chr__fan_drop(&sock->fan));
    chr__fan_free(&sock->fan);
}

/* The addresses that need no lookup, and for a server the lookup. */
static int chr__socket_resolve(chr__socket *sock, chr_error *err)
{
    const chr_address *address = &sock->address;
    const char        *host = address->host && address->host[0] ? address->host : NULL;
    int64_t            port = 0;
    int                i;

    sock->is_unix = address->type == CHR_ADDR_UNIX;
    if (address->type == CHR_ADDR_UNIX)
        return chr__os_sockaddr_unix(address->path, address->abstract == CHR_ON, address->tight != CHR_OFF, sock->addresses, err);
    if (address->type == CHR_ADDR_VSOCK && chr__read_number(address->port, &port))
        return chr__os_sockaddr_vsock(address->cid, port, sock->addresses, err);
    if (address->type == CHR_ADDR_FD || !sock->is_server)
        return 1;
    sock->address_count = chr__os_lookup(host, address->port, chr__ip_family(address->ipv4, address->ipv6), 1, 0, sock->addresses, err);
    for (i = 1; i < sock->address_count && !host; i++) /* all interfaces: the IPv6 one takes IPv4 peers too */
        if (chr__os_sockaddr_is_ipv6(&sock->addresses[i]) && !chr__os_sockaddr_is_ipv6(&sock->addresses[0])) {
            chr__sockaddr first = sock->addresses[0];
            sock->addresses[0] = sock->addresses[i];
            sock->addresses[i] = first;
        }
    return sock->address_count;
}

static int chr__socket_open_server(chr__socket *sock, chr_error *err)
{
    int code = chr__socket_listen(sock, err);

    if (code < 0 || chr__socket_options(sock)->wait == CHR_OFF)
        return code;
    return chr__socket_wait_connected(&sock->dev, err);
}

/* What fails in the creation of one that does not retry is returned, not logged. */
static int chr__socket_open_client(chr__socket *sock, chr_error *err)
{
    sock->has_failed = sock->retry_ms == 0;
    if (sock->retry_ms == 0 && sock->dev.ctx->depth == 0)
        return chr__socket_wait_connected(&sock->dev, err);
    chr__socket_attempt(sock, 0);
    if (sock->retry_ms > 0)
        return 0;
    if (!sock->peer && !sock->shaking && sock->state == CHR__SOCKET_IDLE)
        return chr__socket_failure(sock, err);
    sock->has_failed = 0; /* it goes on in the background, and is logged there */
    return 0;
}

static int chr__socket_open(chr_dev *dev, chr_error *err)
{
    chr__socket      *sock = (chr__socket *)dev;
    chr__socket_facts facts;
    int               code;

    sock->listener = sock->fd = -1;
    code = chr__socket_check(sock, err);
    if (code < 0)
        return code;
    chr__com_port_init(&sock->com_port, sock->is_server);
    if (chr__socket_options(sock)->clients > 1 && chr__socket_open_seats(sock, err) < 0)
        return CHR_ERR_NO_MEMORY;
    sock->addresses = (chr__sockaddr *)chr__allocate(dev->ctx, sizeof *sock->addresses * CHR__MAX_ADDRESSES);
    if (!sock->addresses)
        return chr__no_memory(err);
    code = chr__socket_resolve(sock, err);
    if (code < 0)
        return code;
    if (sock->address.type == CHR_ADDR_FD) {
        if (chr__address_check_fd(sock->address.fd, sock->is_server, &facts, err) < 0)
            return CHR_ERR_INVALID;
        sock->is_unix = facts.is_unix;
        if (!facts.is_inet && chr__socket_options(sock)->keep_alive == CHR_ON &&
            chr__socket_options(sock)->websocket != CHR_ON)
            return chr__fail(err, CHR_ERR_INVALID, "socket: fd=%d: is not TCP, as keep-alive=on needs",
                             sock->address.fd);
    }
    if (sock->is_server)
        return chr__socket_open_server(sock, err);
    if (sock->address.type == CHR_ADDR_FD)
        return chr__socket_take_fd(sock, sock->address.fd, facts.is_unix, err);
    return chr__socket_open_client(sock, err);
}

static void chr__socket_close(chr_dev *dev)
{
    chr__socket *sock = (chr__socket *)dev;

    chr_timer_stop(&sock->retry);
    chr_watch_stop(&sock->listen_watch);
    chr__socket_drop(sock);
    chr__socket_close_seats(sock);
    if (sock->file_path)
        chr__os_unlink_own(sock->file_path, &sock->file); /* while it is bound its inode can't be another file's */
    if (sock->was_blocking && sock->listener >= 0)
        chr__os_set_nonblocking(sock->listener, 0);
    chr__close_own(&sock->dev, sock->listener);
    chr__free(dev->ctx, sock->file_path);
    chr__free(dev->ctx, sock->addresses);
}

/* -- URI: tcp: telnet: tn3270: websocket: HOST:PORT[,opts]; unix:PATH[,opts] -- */

static int chr__socket_uri(const char *uri, chr_options *options)
{
    static const char *const schemes[] = { "unix:", "tcp:", "telnet:", "tn3270:", "websocket:" };
    const char              *rest = NULL;
    size_t                   len;
    int                      i, code;

    for (i = 0; i < 5 && !(rest = chr__after(uri, schemes[i])); i++)
        ;
    if (!rest)
        return 0;
    len = chr__part_length(rest);
    code = i == 0 ? chr__uri_part(options, "path", rest, len) : chr__uri_host_port(rest, len, "host", "port", options);
    if (code > 0 && i >= 2 && !chr__options_pair(options, schemes[i], strlen(schemes[i]) - 1, "on", 2))
        return CHR_ERR_NO_MEMORY;
    if (code > 0 && rest[len] && chr__options_read(options, rest + len + 1, NULL) < 0)
        return CHR_ERR_NO_MEMORY;
    return code;
}

static const chr_peer_slots chr__socket_peer = {
    chr__socket_disconnect,     /* disconnect     */
    chr__socket_wait_connected, /* wait_connected */
    chr__socket_add_client,     /* add_client     */
    chr__socket_set_msgfds,     /* set_msgfds     */
    chr__socket_get_msgfds,     /* get_msgfds     */
    chr__socket_shutdown,       /* shutdown       */
    chr__socket_queued,         /* queued         */
};

static const chr_backend chr__socket_kind = {
    "socket",                                                        /* name         */
    NULL,                                                            /* alias        */
    "a stream socket: TCP, unix, vsock, or one that is open already", /* help         */
    chr__socket_rows,                                                /* options      */
    sizeof(chr_socket_options),                                      /* options_size */
    sizeof(chr__socket),                                             /* state_size   */
    chr__socket_uri,                                                 /* uri          */
    chr__socket_open,                                                /* open         */
    chr__socket_close,                                               /* close        */
    &chr__stream_io,                                                 /* io           */
    chr__socket_describe,                                            /* describe     */
    chr__socket_ioctl,                                               /* ioctl        */
    NULL,                                                            /* set_open     */
    &chr__socket_peer,                                               /* peer         */
    NULL,                                                            /* sharing      */
    0,                                                               /* fixed        */
    NULL,                                                            /* input        */
};
#endif

/* ====================================================================================================================
 * >>be_spice   spicevmc and spiceport: channels of the spice server that the emulator runs
 *
 * far side   a client of that server; see chr_spice_set_server()
 * options    name: spicevmc: one of the subtypes that the server recognises; spiceport: what clients know the port by
 * spicevmc   is a channel of the server's while its frontend is open. vdagent is OPENED with it, the others by their client; what the
 *            server has closed opens again when the frontend has closed and opened
 * spiceport  is one from the beginning; the client is told when the frontend opens and closes, and of a break
 *            (CHR_IOCTL_SERIAL_SET_BREAK)
 * events     OPENED, CLOSED when the client's channel comes and goes, or the client says so, and BREAK when it says so
 *
 * The server calls from the stack of its own main loop, maybe from deep inside one of our calls, and can't bear that its interface goes
 * meanwhile. So its callbacks only take and give bytes, and note what has happened; all handlers are called from our loop. The order of
 * bytes and events is kept: what comes behind a break or an end that the frontend has not heard of stays in the server.
 * ==================================================================================================================== */
#if CHARDEV_HAS_SPICE

typedef struct chr__spice {
    chr_dev                 dev;
    SpiceServer            *server;
    SpiceCharDeviceInstance instance;
    int                     is_registered;
    int                     is_there;   /* the client, as the server says it now */
    int                     has_ended;  /* CLOSED comes behind the bytes in `in` */
    int                     has_broken; /* BREAK comes behind them */
    int                     is_held;    /* the server has more input than we took */
    chr_idle                step;
    chr__ring               in, out;    /* in the bytes below */
    unsigned char           in_bytes[CHR__BUFFER_SIZE], out_bytes[CHR__BUFFER_SIZE];
} chr__spice;

static const chr_option chr__spicevmc_rows[] = {
    { "name", CHR_OPTION_TEXT, CHR__AT(chr_spicevmc_options, name), CHR_REQUIRED, 0, 0, "one that the spice server recognises: vdagent, ..." },
    { NULL,   CHR_OPTION_TEXT, 0,                                   NULL,         0, 0, NULL }
};

static const chr_option chr__spiceport_rows[] = {
    { "name", CHR_OPTION_TEXT, CHR__AT(chr_spiceport_options, name), CHR_REQUIRED, 0, 0, "what clients know the port by: org.example.console" },
    { NULL,   CHR_OPTION_TEXT, 0,                                    NULL,         0, 0, NULL }
};

/* -- from our loop -- */

/* CLOSED: what the client that is gone has not got is lost. */
static void chr__spice_end(chr__spice *spice)
{
    spice->has_ended = 0;
    spice->dev.bytes_dropped += spice->out.count;
    spice->out.start = spice->out.count = 0;
    chr_be_event(&spice->dev, CHR_EVENT_CLOSED);
}

/* Bytes that have come, as many as the frontend takes. */
static void chr__spice_input(chr__spice *spice)
{
    chr_dev *dev = &spice->dev;
    size_t   len;
    int      room;

    while (!dev->removed && spice->in.count > 0 && (room = chr_be_can_write(dev)) > 0) {
        const unsigned char *piece = chr__ring_piece(&spice->in, 0, &len);
        len = chr__min(len, (size_t)room);
        memcpy(dev->ctx->buffer, piece, len); /* the handler may come back here */
        chr__ring_take(&spice->in, len);
        chr_be_write(dev, dev->ctx->buffer, len);
    }
}

/* What has come, in its order, up to the next event. 1 = one was told, and more may be there. */
static int chr__spice_tell(chr__spice *spice)
{
    chr_dev *dev = &spice->dev;

    if (!dev->be_open && (spice->is_there || spice->has_ended)) {
        chr_be_event(dev, CHR_EVENT_OPENED);
        return 1;
    }
    chr__spice_input(spice);
    if (dev->removed || spice->in.count > 0)
        return 0;
    if (spice->has_broken) {
        spice->has_broken = 0;
        chr_be_event(dev, CHR_EVENT_BREAK);
        return 1;
    }
    if (spice->is_held && spice->is_registered)
        spice_server_char_device_wakeup(&spice->instance);
    if (spice->in.count > 0 || !spice->has_ended) /* more has come: in the next step */
        return 0;
    chr__spice_end(spice);
    return 1;
}

/* Output goes as far as the server takes it; it takes a bufferful at a time. */
static void chr__spice_output(chr__spice *spice)
{
    size_t before;

    do {
        before = spice->out.count;
        if (before > 0 && spice->is_registered)
            spice_server_char_device_wakeup(&spice->instance);
    } while (spice->out.count > 0 && spice->out.count < before);
}

static int chr__spice_may_write(const chr__spice *spice)
{
    return !spice->dev.be_open || spice->out.count < spice->out.size;
}

static void chr__spice_step(void *opaque);

static void chr__spice_look(chr__spice *spice)
{
    chr_idle_start(spice->dev.ctx, &spice->step, chr__spice_step, spice);
}

static void chr__spice_update(chr_dev *dev)
{
    chr__spice *spice = (chr__spice *)dev;
    int         has_reader = dev->frontend && dev->frontend->handlers.read;
    int         room = spice->in.count > 0 && has_reader ? chr_be_can_write(dev) : 0;

    if (dev->removed) /* by whom we asked */
        return;
    if (room > 0 || (chr_be_wants_writable(dev) && chr__spice_may_write(spice)))
        chr__spice_look(spice);
    else if (spice->in.count > 0 && has_reader)
        chr__starve(dev);
}

/* One event at a time, so that handlers that cause the next one don't hold up the loop. */
static void chr__spice_step(void *opaque)
{
    chr__spice *spice = (chr__spice *)opaque;
    chr_dev    *dev = &spice->dev;
    int         again = chr__spice_tell(spice);

    if (!dev->removed && chr_be_wants_writable(dev) && chr__spice_may_write(spice))
        chr_be_writable(dev);
    if (dev->removed)
        return;
    if (again)
        chr__spice_look(spice);
    chr__spice_output(spice);
    chr__spice_update(dev);
}

/* With CHARDEV_THREADS from any thread: the server hears of it from the loop. */
static int chr__spice_write(chr_dev *dev, const void *buf, size_t len)
{
    chr__spice *spice = (chr__spice *)dev;

    if (!dev->be_open)
        return CHR_ERR_DISCONNECTED;
    len = chr__min(len, spice->out.size - spice->out.count);
    if (len == 0)
        return CHR_ERR_WOULD_BLOCK;
    chr__ring_put(&spice->out, buf, len);
    chr__spice_look(spice);
    return (int)len;
}

/* -- what the server calls, in its main loop's thread; the lock is for those who write from others -- */

static chr__spice *chr__spice_of(SpiceCharDeviceInstance *instance)
{
    return (chr__spice *)(void *)((char *)instance - offsetof(chr__spice, instance));
}

static void chr__spice_came_or_went(chr__spice *spice, int is_there)
{
    if (spice->is_there == is_there)
        return;
    spice->is_there = is_there;
    if (!is_there)
        spice->has_ended = spice->has_ended || spice->dev.be_open || spice->in.count > 0 || spice->has_broken;
    chr__spice_look(spice);
}

static void chr__spice_state(SpiceCharDeviceInstance *instance, int connected)
{
    chr__spice *spice = chr__spice_of(instance);

    CHR__LOCK(spice->dev.ctx);
    chr__spice_came_or_went(spice, connected != 0);
    CHR__UNLOCK(spice->dev.ctx);
}

static void chr__spice_event(SpiceCharDeviceInstance *instance, uint8_t event)
{
    chr__spice *spice = chr__spice_of(instance);

    CHR__LOCK(spice->dev.ctx);
    if (event == SPICE_PORT_EVENT_OPENED || event == SPICE_PORT_EVENT_CLOSED)
        chr__spice_came_or_went(spice, event == SPICE_PORT_EVENT_OPENED);
    else if (event == SPICE_PORT_EVENT_BREAK && spice->is_there)
        spice->has_broken = 1;
    chr__spice_look(spice);
    CHR__UNLOCK(spice->dev.ctx);
}

/* What the client has sent. An old client's rest is still taken, but nothing of a new one before the frontend knows of it. */
static int chr__spice_take(SpiceCharDeviceInstance *instance, const uint8_t *buf, int len)
{
    chr__spice *spice = chr__spice_of(instance);
    int         is_between;
    size_t      n;

    CHR__LOCK(spice->dev.ctx);
    is_between = spice->has_ended ? spice->is_there : !spice->is_there;
    n = is_between || spice->has_broken || len < 0 ? 0 : chr__min((size_t)len, spice->in.size - spice->in.count);
    spice->is_held = (int)n < len;
    if (n > 0) {
        chr__ring_put(&spice->in, buf, n);
        chr__spice_look(spice);
    }
    CHR__UNLOCK(spice->dev.ctx);
    return (int)n;
}

/* What the client shall get. */
static int chr__spice_give(SpiceCharDeviceInstance *instance, uint8_t *buf, int len)
{
    chr__spice          *spice = chr__spice_of(instance);
    const unsigned char *piece;
    size_t               n, most, done = 0;

    CHR__LOCK(spice->dev.ctx);
    most = len < 0 || !spice->is_there || spice->has_ended ? 0 : (size_t)len;
    for (; spice->out.count > 0 && done < most; done += n) {
        piece = chr__ring_piece(&spice->out, 0, &n);
        n = chr__min(n, most - done);
        memcpy(buf + done, piece, n);
        chr__ring_take(&spice->out, n);
    }
    if (done > 0 && chr_be_wants_writable(&spice->dev))
        chr__spice_look(spice);
    CHR__UNLOCK(spice->dev.ctx);
    return (int)done;
}

static const SpiceCharDeviceInterface chr__spice_interface = {
    { SPICE_INTERFACE_CHAR_DEVICE, "chardev", SPICE_INTERFACE_CHAR_DEVICE_MAJOR, SPICE_INTERFACE_CHAR_DEVICE_MINOR },
    chr__spice_state,
    chr__spice_take,
    chr__spice_give,
    chr__spice_event,
    SPICE_CHAR_DEVICE_NOTIFY_WRITABLE,
};

/* -- a channel of the server's -- */

/* What it returns is no proof; the state that it sets is. */
static int chr__spice_register(chr__spice *spice, chr_error *err)
{
    spice->instance.st = NULL;
    if (spice_server_add_interface(spice->server, &spice->instance.base) < 0 || !spice->instance.st)
        return chr__fail(err, CHR_ERR_BUSY, "the spice server refuses another channel '%s'", spice->instance.subtype);
    spice->is_registered = 1;
    return 0;
}

/* The client loses its channel; what it has sent and nobody has read goes with it. */
static void chr__spice_unregister(chr__spice *spice)
{
    if (!spice->is_registered)
        return;
    chr__spice_output(spice);
    spice->is_registered = 0;
    spice_server_remove_interface(&spice->instance.base);
    spice->in.start = spice->in.count = 0;
    spice->has_broken = spice->is_held = spice->is_there = 0;
    spice->has_ended = spice->dev.be_open;
    chr__spice_look(spice);
}

static int chr__spice_open(chr_dev *dev, const char *subtype, const char *port, chr_error *err)
{
    chr__spice *spice = (chr__spice *)dev;

    if (!dev->ctx->spice_server)
        return chr__fail(err, CHR_ERR_NOT_FOUND, "%s: there is no spice server: chr_spice_set_server() names it", dev->kind->name);
    if (chr__need_buffer(dev->ctx) < 0)
        return chr__no_memory(err);
    spice->server = dev->ctx->spice_server;
    spice->instance.base.sif = &chr__spice_interface.base;
    spice->instance.subtype = subtype;
    spice->instance.portname = port;
    spice->in.bytes = spice->in_bytes;
    spice->out.bytes = spice->out_bytes;
    spice->in.size = spice->out.size = CHR__BUFFER_SIZE;
    return 0;
}

static void chr__spice_close(chr_dev *dev)
{
    chr__spice_unregister((chr__spice *)dev);
    chr_idle_stop(&((chr__spice *)dev)->step);
}

/* The next client may come. */
static void chr__spice_describe(const chr_dev *dev, chr_info *info)
{
    chr__format(info->filename, sizeof info->filename, "%s", dev->kind->name);
    info->comes_back = 1;
}

static const chr_io chr__spice_io = {
    chr__spice_write,  /* write   */
    NULL,              /* read    */
    chr__spice_update, /* update  */
    NULL,              /* wait_fd */
};

/* -- spicevmc -- */

static int chr__spicevmc_unknown(const char *name, const char **subtypes, chr_error *err)
{
    char   list[400] = "";
    size_t len = 0;

    for (; *subtypes; subtypes++)
        len = chr__append(list, sizeof list, len, "%s%s", len > 0 ? ", " : "", *subtypes);
    return chr__fail(err, CHR_ERR_INVALID, "spicevmc: name=%s: the spice server recognises %s", name, list);
}

static int chr__spicevmc_open(chr_dev *dev, chr_error *err)
{
    const char  *name = ((const chr_spicevmc_options *)dev->options)->name;
    const char **subtypes = spice_server_char_device_recognized_subtypes(), **subtype;

    for (subtype = subtypes; *subtype && strcmp(*subtype, name) != 0; subtype++)
        ;
    return *subtype ? chr__spice_open(dev, name, NULL, err) : chr__spicevmc_unknown(name, subtypes, err);
}

static void chr__spicevmc_set_open(chr_dev *dev, int is_open)
{
    chr__spice *spice = (chr__spice *)dev;
    chr_error   err;

    if (!is_open)
        chr__spice_unregister(spice);
    else if (chr__spice_register(spice, &err) < 0)
        chr__log_line(dev->ctx, dev->id, err.text);
}

static const chr_backend chr__spicevmc_kind = {
    "spicevmc",                                           /* name         */
    NULL,                                                 /* alias        */
    "a channel of a spice server: vdagent, usbredir, ...", /* help         */
    chr__spicevmc_rows,                                   /* options      */
    sizeof(chr_spicevmc_options),                         /* options_size */
    sizeof(chr__spice),                                   /* state_size   */
    NULL,                                                 /* uri          */
    chr__spicevmc_open,                                   /* open         */
    chr__spice_close,                                     /* close        */
    &chr__spice_io,                                       /* io           */
    chr__spice_describe,                                  /* describe     */
    NULL,                                                 /* ioctl        */
    chr__spicevmc_set_open,                               /* set_open     */
    NULL,                                                 /* peer         */
    NULL,                                                 /* sharing      */
    0,                                                    /* fixed        */
    NULL,                                                 /* input        */
};

/* -- spiceport -- */

static int chr__spiceport_open(chr_dev *dev, chr_error *err)
{
    const char *name = ((const chr_spiceport_options *)dev->options)->name;
    int         code;

    if (!name[0])
        return chr__fail(err, CHR_ERR_INVALID, "spiceport: name= is empty");
    code = chr__spice_open(dev, "port", name, err);
    return code < 0 ? code : chr__spice_register((chr__spice *)dev, err);
}

/* Behind what was written before. */
static void chr__spiceport_tell(chr__spice *spice, uint8_t event)
{
    chr__spice_output(spice);
    spice_server_port_event(&spice->instance, event);
}

static void chr__spiceport_set_open(chr_dev *dev, int is_open)
{
    chr__spiceport_tell((chr__spice *)dev, is_open ? SPICE_PORT_EVENT_OPENED : SPICE_PORT_EVENT_CLOSED);
}

static int chr__spiceport_ioctl(chr_dev *dev, int command, void *arg)
{
    if (command != CHR_IOCTL_SERIAL_SET_BREAK)
        return CHR_ERR_NOT_SUPPORTED;
    if (!dev->be_open)
        return CHR_ERR_DISCONNECTED;
    if (*(const int *)arg)
        chr__spiceport_tell((chr__spice *)dev, SPICE_PORT_EVENT_BREAK);
    return 0;
}

static const chr_backend chr__spiceport_kind = {
    "spiceport",                        /* name         */
    NULL,                               /* alias        */
    "a named port of a spice server",   /* help         */
    chr__spiceport_rows,                /* options      */
    sizeof(chr_spiceport_options),      /* options_size */
    sizeof(chr__spice),                 /* state_size   */
    NULL,                               /* uri          */
    chr__spiceport_open,                /* open         */
    chr__spice_close,                   /* close        */
    &chr__spice_io,                     /* io           */
    chr__spice_describe,                /* describe     */
    chr__spiceport_ioctl,               /* ioctl        */
    chr__spiceport_set_open,            /* set_open     */
    NULL,                               /* peer         */
    NULL,                               /* sharing      */
    0,                                  /* fixed        */
    NULL,                               /* input        */
};
#endif

/* ====================================================================================================================
 * >>table   the built-in backends
 * ==================================================================================================================== */

/* One line a backend, from which both tables come: what is not in the one is in the other.
 *
 *    CHARDEV_HAS_  kind       alias      without      its URIs begin, beside NAME: */
#define CHR__KINDS(X)                                                                                        \
    X(RINGBUF,      ringbuf,   "memory",  "ringbuf",   (NULL))                                               \
    X(TESTDEV,      testdev,   "",        "testdev",   (NULL))                                               \
    X(MSMOUSE,      msmouse,   "",        "msmouse",   (NULL))                                               \
    X(WCTABLET,     wctablet,  "",        "wctablet",  (NULL))                                               \
    X(BRAILLE,      braille,   "",        "braille",   (NULL))                                               \
    X(MUX,          mux,       "",        "mux",       (NULL))                                               \
    X(HUB,          hub,       "",        "hub",       (NULL))                                               \
    X(FD,           fd,        "",        "fd",        (NULL))                                               \
    X(FILE,         file,      "",        "file",      (NULL))                                               \
    X(PIPE,         pipe,      "",        "pipe",      (NULL))                                               \
    X(PTY,          pty,       "",        "pty",       (NULL))                                               \
    X(STDIO,        stdio,     "",        "stdio",     (NULL))                                               \
    X(SERIAL,       serial,    "tty",     "serial",    ("/dev/", "COM"))                                     \
    X(PARALLEL,     parallel,  "parport", "parallel",  ("/dev/parport", "/dev/ppi"))                         \
    X(UDP,          udp,       "",        "udp",       (NULL))                                               \
    X(SOCKET,       socket,    "",        "socket",    ("unix:", "tcp:", "telnet:", "tn3270:", "websocket:")) \
    X(SPICE,        spicevmc,  "",        "spice",     (NULL))                                               \
    X(SPICE,        spiceport, "",        "spice",     (NULL))

#define CHR__PASTE_(a, b) a##b
#define CHR__PASTE(a, b) CHR__PASTE_(a, b)
#define CHR__BRACES(...) { __VA_ARGS__ }

#define CHR__BUILTIN_1(kind) &chr__##kind##_kind,
#define CHR__BUILTIN_0(kind)
#define CHR__BUILTIN(feature, kind, alias, without, uris) CHR__PASTE(CHR__BUILTIN_, CHARDEV_HAS_##feature)(kind)

static const chr_backend *const chr__builtins[] = { &chr__null_kind, CHR__KINDS(CHR__BUILTIN) NULL };

#define CHR__ABSENT_1(kind, alias, without, uris)
#define CHR__ABSENT_0(kind, alias, without, uris) { #kind, alias, without, CHR__BRACES uris },
#define CHR__ABSENT(feature, kind, alias, without, uris) CHR__PASTE(CHR__ABSENT_, CHARDEV_HAS_##feature)(kind, alias, without, uris)

static const chr__left_out chr__left_outs[] = { CHR__KINDS(CHR__ABSENT) { NULL, NULL, NULL, { NULL } } };

#undef CHR__KINDS
#undef CHR__PASTE_
#undef CHR__PASTE
#undef CHR__BRACES
#undef CHR__BUILTIN_1
#undef CHR__BUILTIN_0
#undef CHR__BUILTIN
#undef CHR__ABSENT_1
#undef CHR__ABSENT_0
#undef CHR__ABSENT

static const chr_backend *const chr__object_kinds[] = {
#if CHARDEV_HAS_TLS
    &chr__x509_kind,
    &chr__psk_kind,
    &chr__authz_kind,
#endif
    NULL
};

/* ====================================================================================================================
 * >>public   what only checks its arguments and calls the above
 * ==================================================================================================================== */

static void chr__config_defaults(chr_config *config)
{
    if (!config->allocate)
        config->allocate = chr__os_allocate;
    if (!config->clock)
        config->clock = chr__os_clock;
    if (!config->wall_clock)
        config->wall_clock = chr__os_wall_clock;
}

static int chr__context_start(chr_context *ctx)
{
    int fd;

    ctx->idles.next = ctx->idles.prev = &ctx->idles;
    ctx->last_dev = &ctx->devs;
    chr__dev_queue_init(&ctx->urgent);
    chr__dev_queue_init(&ctx->starved);
    ctx->builtins = chr__builtins;
    ctx->left_out = chr__left_outs;
    ctx->untidy = ctx->config.timeout_changed != NULL;
    ctx->object_kinds = chr__object_kinds;
#if CHARDEV_HAS_MUX
    ctx->mux = &chr__mux_kind;
#endif
    if (chr__os_waker_open(&ctx->waker) < 0)
        return CHR_ERR_NO_MEMORY;
    fd = chr__os_waker_fd(&ctx->waker);
    CHR__OWN(ctx);
    return fd < 0 ? 0 : chr_watch_start(ctx, &ctx->wake_watch, fd, CHR_IN, chr__woken, ctx);
}

/* The user's timers and idles are stopped, so that stopping them later on is harmless. */
static void chr__context_stop(chr_context *ctx)
{
    while (ctx->timers)
        chr_timer_stop(ctx->timers);
    while (ctx->real_timers)
        chr_timer_stop(ctx->real_timers);
    while (ctx->idles.next != &ctx->idles)
        chr_idle_stop(ctx->idles.next);
}

/* Likewise the watches. */
static void chr__context_free_memory(chr_context *ctx)
{
#if CHARDEV_HAS_PTY
    chr__file_notifier_close(ctx);
#endif
    chr__context_stop(ctx);
    while (ctx->watch_count > 0)
        chr_watch_stop(ctx->watches[0]);
    chr__os_waker_close(&ctx->waker);
    chr__free(ctx, ctx->polls);
    chr__free(ctx, ctx->watches);
    chr__free(ctx, ctx->buffer);
#ifdef CHARDEV_THREADS
    chr__os_mutex_destroy(&ctx->mutex);
#endif
    (void)ctx->config.allocate(ctx->config.opaque, ctx, 0);
}

CHARDEV_API chr_context *chr_context_new(const chr_config *config)
{
    chr_config   complete;
    chr_context *ctx;

    memset(&complete, 0, sizeof complete);
    if (config)
        complete = *config;
    chr__config_defaults(&complete);
    ctx = complete.allocate ? (chr_context *)complete.allocate(complete.opaque, NULL, sizeof *ctx) : NULL;
    if (!ctx)
        return NULL;
    memset(ctx, 0, sizeof *ctx);
    ctx->config = complete;
#ifdef CHARDEV_THREADS
    if (chr__os_mutex_init(&ctx->mutex) < 0) {
        (void)complete.allocate(complete.opaque, ctx, 0);
        return NULL;
    }
#endif
    if (chr__context_start(ctx) == 0)
        return ctx;
    chr__context_free_memory(ctx);
    return NULL;
}

/* What waits to be told is told, then each frontend that was told OPENED gets CLOSED. Its handlers may remove this
 * chardev and others, disconnect it or let a client in: what that causes is told too. */
static void chr__context_close_dev(chr_dev *dev)
{
    if (dev->pending & ~CHR__RECORDED)
        chr__notify_now(dev);
    dev->closing = 1;
    while (!dev->removed && (dev->pending & (1u << CHR_EVENT_OPENED | 1u << CHR_EVENT_CLOSED)))
        chr__notify_now(dev);
    if (!dev->removed && dev->be_open)
        chr_be_event(dev, CHR_EVENT_CLOSED);
    if (!dev->removed) {
        chr__unregister(dev);
        chr__close(dev);
    }
}

static void chr__context_close_devs(chr_context *ctx)
{
    while (ctx->devs) {
        chr__enter(ctx);
        chr__context_close_dev(ctx->devs);
        chr__leave(ctx);
    }
}

static void chr__context_drain(chr_context *ctx)
{
    chr__enter(ctx);
#if CHARDEV_HAS_SOCKET
    chr__lingering_wait(ctx);
#endif
    chr__leave(ctx); /* what was removed outside of a dispatch is freed */
}

static void chr__context_forget(chr_context *ctx)
{
    chr__named_fd  *named;
    chr__kind_node *node;
    chr__object    *object;

    while ((named = ctx->named_fds) != NULL) {
        ctx->named_fds = named->next;
        chr__os_close(named->fd);
        chr__free(ctx, named);
    }
    while ((object = ctx->objects) != NULL) {
        ctx->objects = object->next;
        chr__object_drop(ctx, object);
    }
    while ((node = ctx->kinds) != NULL) {
        ctx->kinds = node->next;
        chr__free(ctx, node);
    }
}

static void chr__context_close(chr_context *ctx)
{
    (void)chr_record_stop(ctx);
    ctx->closing = 1;
    chr__stalls_hand_over(ctx);
    chr__context_close_devs(ctx);
    (void)chr_record_stop(ctx); /* a handler may have begun another one */
    chr__context_drain(ctx);
    if (ctx->dead)
        chr__tidy(ctx); /* removed outside of any dispatch */
    chr_replay_close(ctx);
    chr__context_forget(ctx);
}

CHARDEV_API void chr_context_free(chr_context *ctx)
{
    if (!ctx)
        return;
    if (chr__in_handler(ctx)) {
        chr__log_text(ctx, "chr_context_free() inside a handler does nothing");
        return;
    }
    chr__context_close(ctx);
    chr__context_free_memory(ctx);
}

/* Those that the loop has for itself go on. */
static int chr__is_own_watch(const chr_context *ctx, const chr_watch *watch)
{
#if CHARDEV_HAS_PTY
    if (watch == &ctx->notifier)
        return 1;
#endif
    return watch == &ctx->wake_watch;
}

static void chr__context_stop_watches(chr_context *ctx)
{
    int i;

    for (i = ctx->watch_count - 1; i >= 0; i--)
        if (!chr__is_own_watch(ctx, ctx->watches[i]))
            chr_watch_stop(ctx->watches[i]);
}

CHARDEV_API int chr_context_reset(chr_context *ctx)
{
    if (chr__in_handler(ctx))
        return CHR_ERR_IN_HANDLER;
    chr__context_close(ctx);
    chr__context_stop(ctx);
    chr__context_stop_watches(ctx);
    CHR__OWN(ctx);
    ctx->closing = ctx->open_suspended = ctx->ready_again = 0;
    ctx->turn = 0;
    ctx->now = 0;
#if CHARDEV_HAS_SPICE
    ctx->spice_server = NULL;
#endif
    CHR__STORE(ctx->stopped, 0);
    chr__os_waker_quiet(&ctx->waker);
    return 0;
}

CHARDEV_API int chr_backend_register(chr_context *ctx, const chr_backend *kind, chr_error *err)
{
    chr__kind_node *node, **last;

    if (chr_backend_find(ctx, kind->name))
        return chr__fail(err, CHR_ERR_EXISTS, "there is a backend '%s' already", kind->name);
    if (kind->state_size < sizeof(chr_dev) || kind->options_size < sizeof(chr_common_options) || !kind->open || !kind->io)
        return chr__fail(err, CHR_ERR_INVALID, "backend '%s': state_size, options_size, open and io must be set", kind->name);
    node = (chr__kind_node *)chr__allocate(ctx, sizeof *node);
    if (!node)
        return chr__no_memory(err);
    node->kind = kind;
    for (last = &ctx->kinds; *last; last = &(*last)->next)
        ;
    *last = node;
    return 0;
}

static chr_dev *chr__find(chr_context *ctx, const char *id, chr_error *err)
{
    chr_dev *dev = chr_find(ctx, id);

    if (!dev)
        chr__fail(err, CHR_ERR_NOT_FOUND, "there is no chardev '%s'", id);
    return dev;
}

static int chr__remove(chr_context *ctx, const char *id, chr_error *err)
{
    chr_dev *dev = chr__find(ctx, id, err), *companion;

    if (!dev)
        return CHR_ERR_NOT_FOUND;
    if (dev->frontends > 0)
        return chr__fail(err, CHR_ERR_BUSY, "chardev '%s' is busy: a frontend is attached", id);
    for (; dev; dev = companion) {
        companion = dev->companion;
        chr__unregister(dev);
        chr__close(dev);
    }
    return 0;
}

CHARDEV_API int chr_remove(chr_context *ctx, const char *id, chr_error *err)
{
    int code;

    chr__enter(ctx);
    code = chr__remove(ctx, id, err);
    chr__leave(ctx);
    return code;
}

CHARDEV_API int chr_send_break(chr_context *ctx, const char *id, chr_error *err)
{
    chr_dev *dev;

    chr__enter(ctx);
    dev = chr__find(ctx, id, err);
    if (dev)
        chr__event(dev, CHR_EVENT_BREAK); /* not from the far side: a recorder would have it twice */
    chr__leave(ctx);
    return dev ? 0 : CHR_ERR_NOT_FOUND;
}

/* Not as backends do it: a recorder would have it twice. */
static int chr__inject(chr_dev *dev, const void *data, size_t len)
{
    int room;

    if (dev->ctx->quiet > 0)
        return CHR_ERR_WOULD_BLOCK;
    if (dev->kind->sharing)
        return dev->kind->sharing->inject ? dev->kind->sharing->inject(dev, data, len) : CHR_ERR_NOT_SUPPORTED;
    room = chr__room(dev);
    if (room <= 0 || dev->removed || !dev->frontend)
        return CHR_ERR_WOULD_BLOCK;
    len = chr__min(len, (size_t)room);
    dev->bytes_in += len;
    dev->frontend->handlers.read(dev->frontend->opaque, data, len);
    return (int)len;
}

CHARDEV_API int chr_inject(chr_dev *dev, const void *data, size_t len)
{
    chr_context *ctx = dev->ctx;
    int          n;

    chr__enter(ctx);
    n = len > 0 ? chr__inject(dev, data, len) : 0;
    chr__return(ctx);
    return n;
}

/* A descriptor that is refused is its giver's still, as it was. */
static int chr__add_client(chr_dev *dev, int fd, chr_error *err)
{
    chr_context *ctx = dev->ctx;
    int          code;

    if (!dev->kind->peer || !dev->kind->peer->add_client)
        return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "chardev '%s': a %s takes no clients", dev->id, dev->kind->name);
    if (chr__given_note(dev, fd, 0) < 0)
        return chr__no_memory(err);
    chr__quiet_outside(ctx);
    code = dev->kind->peer->add_client(dev, fd, err);
    chr__loud_outside(ctx);
    if (code < 0)
        chr__given_return(dev);
    else
        chr__given_keep(dev);
    return code;
}

CHARDEV_API int chr_add_client(chr_context *ctx, const char *id, int fd, chr_error *err)
{
    chr_dev *dev;
    int      code;

    CHR__LOCK(ctx);
    dev = chr__find(ctx, id, err);
    code = dev ? chr__add_client(dev, fd, err) : CHR_ERR_NOT_FOUND;
    CHR__UNLOCK(ctx);
    return code;
}

CHARDEV_API void chr_query(const chr_dev *dev, chr_info *info)
{
    memset(info, 0, sizeof *info);
    CHR__LOCK(dev->ctx);
    info->id = dev->id;
    info->backend = dev->kind->name;
    info->frontend_open = dev->frontend ? dev->frontend->is_open : dev->frontends > 0;
    info->be_open = dev->be_open;
    info->bytes_in = dev->bytes_in;
    info->bytes_out = dev->bytes_out;
    info->bytes_dropped = dev->bytes_dropped;
    info->bytes_queued = chr__queued(dev);
    if (dev->kind->describe)
        dev->kind->describe(dev, info);
    else
        chr__format(info->filename, sizeof info->filename, "%s", dev->kind->name);
    CHR__UNLOCK(dev->ctx);
}

/* -- >>extras -- */

#if CHARDEV_HAS_RINGBUF
static chr__ring *chr__as_ringbuf(const chr_dev *dev, chr_error *err)
{
    if (dev->kind == &chr__ringbuf_kind)
        return &((chr__ringbuf *)(uintptr_t)dev)->ring;
    chr__fail(err, CHR_ERR_NOT_SUPPORTED, "chardev '%s' is a %s, not a ringbuf", dev->id, dev->kind->name);
    return NULL;
}

static size_t chr__ringbuf_decode(chr_dev *dev, const char *text, size_t len)
{
    unsigned char bytes[3];
    size_t        at, total = 0;
    int           count;

    for (at = 0; at < len; at += 4, total += (size_t)count) {
        count = chr__base64_ungroup(text + at, at + 4 == len, bytes);
        chr__ringbuf_put(dev, bytes, (size_t)count);
    }
    return total;
}

/* Of more than fits the last bytes are stored. */
CHARDEV_API int chr_ringbuf_write(chr_dev *dev, const char *text, size_t len, chr_format format, chr_error *err)
{
    chr__ring *ring = chr__as_ringbuf(dev, err);

    if (!ring)
        return CHR_ERR_NOT_SUPPORTED;
    if (format != CHR_UTF8 && !chr__base64_check(text, len))
        return chr__fail(err, CHR_ERR_INVALID, "ringbuf '%s': the data is not base64", dev->id);
    CHR__LOCK(dev->ctx);
    if (format == CHR_UTF8)
        chr__ringbuf_put(dev, text, len);
    else
        len = chr__ringbuf_decode(dev, text, len);
    len = chr__min(len, ring->size);
    CHR__UNLOCK(dev->ctx);
    return (int)len;
}

CHARDEV_API int chr_ringbuf_read(chr_dev *dev, size_t size, chr_format format, char *out, size_t capacity, chr_error *err)
{
    chr__ring *ring = chr__as_ringbuf(dev, err);
    int        n;

    if (!ring)
        return CHR_ERR_NOT_SUPPORTED;
    CHR__LOCK(dev->ctx);
    if (format == CHR_UTF8)
        n = chr__ringbuf_read_utf8(ring, size, out, capacity);
    else
        n = chr__ringbuf_read_base64(ring, size, out, capacity);
    CHR__UNLOCK(dev->ctx);
    return n;
}

CHARDEV_API int chr_ringbuf_count(const chr_dev *dev)
{
    const chr__ring *ring = chr__as_ringbuf(dev, NULL);
    int              count;

    if (!ring)
        return CHR_ERR_NOT_SUPPORTED;
    CHR__LOCK(dev->ctx);
    count = (int)ring->count;
    CHR__UNLOCK(dev->ctx);
    return count;
}
#endif

#if CHARDEV_HAS_BRAILLE
CHARDEV_API int chr_braille_key(chr_dev *dev, chr_braille_keys group, int down)
{
    int code;

    if (dev->kind != &chr__braille_kind)
        return CHR_ERR_NOT_SUPPORTED;
    CHR__LOCK(dev->ctx);
    code = chr__braille_key((chr__braille *)dev, group, down);
    CHR__UNLOCK(dev->ctx);
    return code;
}

CHARDEV_API int chr_braille_resized(chr_dev *dev)
{
    if (dev->kind != &chr__braille_kind)
        return CHR_ERR_NOT_SUPPORTED;
    CHR__LOCK(dev->ctx);
    chr__braille_resized((chr__braille *)dev);
    CHR__UNLOCK(dev->ctx);
    return 0;
}
#endif

#if CHARDEV_HAS_SPICE
CHARDEV_API void chr_spice_set_server(chr_context *ctx, void *server)
{
    ctx->spice_server = (SpiceServer *)server;
}
#endif

CHARDEV_API void chr_mux_suspend_open(chr_context *ctx)
{
    ctx->open_suspended = 1;
}

/* OPENED, and after it the input that waits for that. */
static void chr__mux_reopen(chr_dev *dev)
{
    chr__postpone(dev, 1u << CHR_EVENT_OPENED | (dev->input_over ? 1u << CHR_EVENT_INPUT_END : 0));
    chr__update(dev);
}

CHARDEV_API void chr_mux_resume_open(chr_context *ctx)
{
    chr_dev *dev;

    CHR__LOCK(ctx);
    ctx->open_suspended = 0;
    for (dev = ctx->devs; dev; dev = dev->next)
        if (dev->kind->sharing && dev->be_open)
            chr__mux_reopen(dev);
    CHR__UNLOCK(ctx);
}

/* What the hand does, to the slot that is asked for; none is given where the backend has none. */
static int chr__input_move(chr_dev *dev, int (*slot)(chr_dev *, int, int), int x, int y)
{
    int code;

    if (!slot)
        return CHR_ERR_NOT_SUPPORTED;
    CHR__LOCK(dev->ctx);
    chr__quiet_outside(dev->ctx);
    code = slot(dev, x, y);
    chr__loud_outside(dev->ctx);
    CHR__UNLOCK(dev->ctx);
    return code;
}

CHARDEV_API int chr_input_rel(chr_dev *dev, int dx, int dy)
{
    return chr__input_move(dev, dev->kind->input ? dev->kind->input->rel : NULL, dx, dy);
}

CHARDEV_API int chr_input_abs(chr_dev *dev, int x, int y)
{
    return chr__input_move(dev, dev->kind->input ? dev->kind->input->abs : NULL, x, y);
}

CHARDEV_API int chr_input_button(chr_dev *dev, int button, int down)
{
    const chr_input_slots *input = dev->kind->input;

    if (input && input->button && (button < CHR_BUTTON_LEFT || button > CHR_BUTTON_RIGHT))
        return CHR_ERR_INVALID;
    return chr__input_move(dev, input ? input->button : NULL, button, down);
}

CHARDEV_API int chr_input_sync(chr_dev *dev)
{
    const chr_input_slots *input = dev->kind->input;
    int                    code;

    if (!input || !input->sync)
        return CHR_ERR_NOT_SUPPORTED;
    CHR__LOCK(dev->ctx);
    chr__quiet_outside(dev->ctx);
    code = input->sync(dev);
    chr__loud_outside(dev->ctx);
    CHR__UNLOCK(dev->ctx);
    return code;
}

#if CHARDEV_HAS_TLS
static int chr__object_remove(chr_context *ctx, const char *id, int is_creds, chr_error *err)
{
    chr__object **link = chr__object_link(ctx, id), *object = *link;

    if (!object || (object->kind == &chr__authz_kind) == is_creds)
        return chr__fail(err, CHR_ERR_NOT_FOUND, "there is no object '%s' of that kind", id);
    *link = object->next;
    chr__object_drop(ctx, object);
    return 0;
}

/* The text as a list, and the kind that it names. */
static const chr_backend *chr__object_read(chr_options *list, const char *text, const char *prefix, chr_error *err)
{
    const char        *name;
    const chr_backend *kind;

    if (chr__options_read(list, text, err) < 0)
        return NULL;
    chr__options_name_backend(list);
    name = chr__options_get(list, "backend");
    kind = name ? chr__object_kind_find(list->ctx, name, strlen(name)) : NULL;
    if (!kind || !chr__after(name, prefix))
        return (void)chr__fail(err, CHR_ERR_NOT_FOUND, "'%s' is no kind of %s object", name ? name : "", prefix), (chr_backend *)NULL;
    if (chr__options_has_help(list))
        return (void)chr__fail(err, CHR_ERR_HELP, "help was asked for"), (chr_backend *)NULL;
    if (chr__check_id_text(chr__options_get(list, "id"), err) < 0)
        return NULL;
    return kind;
}

static int chr__object_add(chr_context *ctx, const char *text, const char *prefix,
                           int (*make)(const chr_options *, const chr_backend *, chr_error *), chr_error *err)
{
    chr_error          why;
    chr_options        list;
    const chr_backend *kind;
    int                code;

    chr__options_init(&list, ctx);
    kind = chr__object_read(&list, text, prefix, &why);
    code = kind ? make(&list, kind, &why) : why.code;
    chr__options_free(&list);
    if (err && code < 0)
        *err = why;
    return code;
}

CHARDEV_API int chr_tls_creds_add(chr_context *ctx, const char *options, chr_error *err)
{
    return chr__object_add(ctx, options, "tls-creds", chr__tls_creds_new, err);
}

CHARDEV_API int chr_authz_add(chr_context *ctx, const char *options, chr_error *err)
{
    return chr__object_add(ctx, options, "authz", chr__authz_new, err);
}

CHARDEV_API int chr_tls_creds_remove(chr_context *ctx, const char *id, chr_error *err)
{
    return chr__object_remove(ctx, id, 1, err);
}

CHARDEV_API int chr_authz_remove(chr_context *ctx, const char *id, chr_error *err)
{
    return chr__object_remove(ctx, id, 0, err);
}

#else

CHARDEV_API int chr_tls_creds_add(chr_context *ctx, const char *options, chr_error *err)
{
    (void)ctx;
    return chr__fail(err, CHR_ERR_NOT_SUPPORTED, "%s: built without TLS", options);
}

CHARDEV_API int chr_authz_add(chr_context *ctx, const char *options, chr_error *err)
{
    return chr_tls_creds_add(ctx, options, err);
}

CHARDEV_API int chr_tls_creds_remove(chr_context *ctx, const char *id, chr_error *err)
{
    (void)ctx;
    return chr__fail(err, CHR_ERR_NOT_FOUND, "there is no object '%s': built without TLS", id);
}

CHARDEV_API int chr_authz_remove(chr_context *ctx, const char *id, chr_error *err)
{
    return chr_tls_creds_remove(ctx, id, err);
}
#endif

/* -- >>descriptors -- */

/* Two owners would close it twice. */
static int chr__fd_check_name(chr_context *ctx, const char *name, int fd, chr_error *err)
{
    const chr__named_fd *named;

    if (!name[0] || (name[0] >= '0' && name[0] <= '9'))
        return chr__fail(err, CHR_ERR_INVALID, "descriptor name '%s': may not be empty or begin with a digit", name);
    if (!chr__os_is_open(fd))
        return chr__fail(err, CHR_ERR_INVALID, "descriptor %d for the name '%s' is not open", fd, name);
    for (named = ctx->named_fds; named; named = named->next)
        if (named->fd == fd && strcmp(named->name, name) != 0)
            return chr__fail(err, CHR_ERR_EXISTS, "descriptor %d for the name '%s' has the name '%s' already", fd, name, named->name);
    return 0;
}

CHARDEV_API int chr_fd_put(chr_context *ctx, const char *name, int fd, chr_error *err)
{
    chr__named_fd *named;
    int            code = chr__fd_check_name(ctx, name, fd, err);

    if (code < 0)
        return code;
    named = *chr__named_fd_link(ctx, name);
    if (!named) {
        named = (chr__named_fd *)chr__allocate(ctx, sizeof *named + strlen(name));
        if (!named)
            return chr__no_memory(err);
        memcpy(named->name, name, strlen(name));
        named->fd = fd;
        named->next = ctx->named_fds;
        ctx->named_fds = named;
    }
    if (named->fd != fd)
        chr__os_close(named->fd);
    named->fd = fd;
    chr__os_close_on_exec(fd); /* not before: after an error it is as it was */
    return 0;
}

CHARDEV_API int chr_fd_close(chr_context *ctx, const char *name, chr_error *err)
{
    chr__named_fd **link = chr__named_fd_link(ctx, name), *named = *link;

    if (!named)
        return chr__fail(err, CHR_ERR_NOT_FOUND, "no descriptor has the name '%s'", name);
    *link = named->next;
    chr__os_close(named->fd);
    chr__free(ctx, named);
    return 0;
}

#ifdef __cplusplus
}
#endif

#undef CHR__FREESTANDING
#undef CHR__WINDOWS
#undef CHR__POSIX
#undef CHR__PRIVATE
#undef CHR__HOT
#undef CHR__HOT_INLINE
#undef CHR__COLD
#undef CHR__POLLRDHUP
#undef CHR__SEND_FLAGS
#undef CHR__SOCKETS_RAISE
#undef CHR__STAT_TIME
#undef CHR__MAX_ADDRESSES
#undef CHR__MAX_MSGFDS
#undef CHR__LOCK
#undef CHR__UNLOCK
#undef CHR__AT
#undef CHR__TELNET_BIT
#undef CHR__COM_BIT
#undef CHR__COM_ALL
#undef CHR__COM_PARAMS
#undef CHR__STICK_PARITY
#undef CHR__HARDWARE_OUT
#undef CHR__HARDWARE_IN
#undef CHR__TLS_LAYER
#undef CHR__WRITABLE
#undef CHR__OTHER_EVENT
#undef CHR__LOAD
#undef CHR__STORE
#undef CHR__OWN
#undef CHR__IS_FOREIGN
#undef CHR__RECORDED
#endif /* CHARDEV_IMPLEMENTATION */

/*
 * MIT licence. Copyright (c) 2026 the chardev.h authors
 *
 * Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
 * files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
 * modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
 * Software is furnished to do so, subject to the following conditions:
 *
 * The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.
 *
 * THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
 * WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
 * COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
 * ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
 */
