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
 *
 *     static chr_frontend uart;
 *     static void got(void *opaque, const void *buf, size_t len)            // bytes from the far side: send them back
 *     {
 *         (void)opaque;
 *         chr_fe_write(&uart, buf, len);
 *     }
 *     int main(int argc, char **argv)
 *     {
 *         static const chr_handlers handlers = { NULL, got, NULL, NULL };
 *         chr_error err;
 *         chr_context *ctx = chr_context_new(NULL);
 *         chr_dev *dev = chr_new(ctx, argc > 1 ? argv[1] : "pty,id=con,path=/tmp/console", &err);
 *         if (!dev || chr_fe_init(&uart, dev, &err) < 0) return fprintf(stderr, "%s\n", err.text), 1;
 *         chr_fe_set_handlers(&uart, &handlers, NULL);
 *         chr_loop_run(ctx);
 *         chr_context_free(ctx);
 *     }
 *
 * CONTENTS. Search for the tag to get there.
 *
 *     the manual        >>errors >>config >>loop >>options >>chardev >>frontend >>backend >>structs >>extras >>descriptors
 *     implementation    >>platform (>>posix >>windows >>freestanding) >>memory >>the_loop >>the_options >>core >>front
 *                       >>stream
 *     backends          >>be_null >>be_ringbuf >>be_mux
 *                       >>be_fd >>be_file >>be_pipe >>be_pty >>be_stdio
 *                       >>be_socket (>>socket_address >>socket_layers >>socket_chardev)
 *     the last pages    >>table >>public
 *
 * BUILD MACROS. Define them before the include, the same in every file.
 *
 *     CHARDEV_IMPLEMENTATION   emit the functions: in exactly one file of a program
 *     CHARDEV_STATIC           all functions static: each file has its own copy
 *     CHARDEV_API              what stands before each public function (e.g. a dllexport); default extern
 *     CHARDEV_THREADS          chr_fe_write* from any thread; host names are looked up in the background (pthreads)
 *     CHARDEV_FREESTANDING     no operating system: null, ringbuf, mux and your own backends; hooks for memory and clock
 *     CHARDEV_NO_x             leave a backend out: RINGBUF MUX FD FILE PIPE PTY STDIO SOCKET
 *     CHR_SYS(name)            how a system call is reached; default `name`. Tests put faults in here.
 *
 * RULES that hold for all that follows.
 *
 *     - Nothing is global, nothing is printed, nothing exits or asserts. A context belongs to one thread.
 *     - Functions that fail return a negative CHR_ERR_... (or NULL) and, given a chr_error, one line that names what was wrong.
 *     - Any function may be called from inside any handler, also to remove the chardev that is calling. The few that block
 *       (they say so) refuse there with CHR_ERR_IN_HANDLER.
 *     - No call of yours calls your handlers before it returns; what it causes comes from the loop. Exceptions:
 *       chr_fe_set_handlers() on an open chardev gives OPENED at once; chr_change() asks your `change` handler, and tells
 *       CLOSED before and OPENED after it; chr_send_break() gives BREAK; chr_context_free() gives CLOSED.
 *     - Descriptors become CLOEXEC and non-blocking. SIGPIPE never comes. No signal's disposition is touched.
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
    X(CHR_ERR_HELP,              -13,   "help was asked for")

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
    void  (*log)(void *opaque, const char *line);            /* what no caller can be told, e.g. a failed reconnect */
    int64_t (*clock)(void *opaque);                          /* monotonic nanoseconds. Default: the system's */
    int64_t (*wall_clock)(void *opaque);                     /* nanoseconds since 1970 UTC, for log files and mux stamps */
    void  (*exit)(void *opaque, int code);                   /* mux escape x, testdev q. Default: chr_loop_stop() */
    void  (*snapshot)(void *opaque);                         /* mux escape s. Default: nothing */
    void  (*watch_changed)(void *opaque, chr_watch *watch, int fd, int events); /* foreign loop: see >>loop */
    void  (*timeout_changed)(void *opaque);                  /* foreign loop: ask chr_loop_timeout() again */
    int   mux_escape;                                        /* the mux escape character; 0 = 1 (Ctrl-A) */
} chr_config;

/* A new context: loop, registry, named descriptors. `config` is copied; NULL means the defaults. NULL when out of memory
 * or descriptors, or when the freestanding profile lacks its `allocate` hook. You own it. */
CHARDEV_API chr_context *chr_context_new(const chr_config *config);

/* Closes everything in it; each frontend that was told OPENED gets CLOSED and is left without chardev. NULL is allowed.
 * Not from inside a handler. */
CHARDEV_API void chr_context_free(chr_context *ctx);

/* ====================================================================================================================
 * >>loop   descriptors, timers, idle callbacks: a whole VM can live on this loop
 * ====================================================================================================================
 * Three ways to use it. Run it: chr_loop_run(). Step it from your own: chr_loop_step(ctx, 0). Or hand it to another loop:
 * either take its descriptors before each poll (chr_loop_prepare) and hand back what is ready (chr_loop_dispatch), or set
 * the hooks watch_changed and timeout_changed, call chr_watch_ready() when a descriptor is ready, and chr_loop_dispatch(ctx,
 * NULL, 0) when chr_loop_timeout() is over. On the freestanding profile there are no descriptors: step it from your main loop.
 */

/* Dispatches once: waits up to timeout_ms milliseconds (0 = not at all, -1 = without limit) for something to happen.
 * Returns how many callbacks ran, or CHR_ERR_IN_HANDLER, CHR_ERR_IO. */
CHARDEV_API int chr_loop_step(chr_context *ctx, int timeout_ms);
/* Steps until chr_loop_stop() is called (also from a handler, before or during it). Returns 0 or a negative error. */
CHARDEV_API int chr_loop_run(chr_context *ctx);
CHARDEV_API void chr_loop_stop(chr_context *ctx);
/* Makes a sleeping loop return from its wait. From any thread and from signal handlers. */
CHARDEV_API void chr_loop_wake(chr_context *ctx);

typedef struct chr_poll {
    int        fd;
    int        events; /* CHR_IN | CHR_OUT | CHR_HUP: out of prepare, what is wanted; into dispatch, what is ready */
    chr_watch *watch;  /* not yours */
} chr_poll;

/* Fills up to `capacity` entries and *timeout_ms (how long poll may sleep, -1 = without limit). Returns the number of
 * descriptors that are watched: when it is more than `capacity`, call again with room for all. */
CHARDEV_API int chr_loop_prepare(chr_context *ctx, chr_poll *polls, int capacity, int *timeout_ms);
/* Runs what is ready among `count` entries of the last prepare, then due timers and idle callbacks. Returns how many ran. */
CHARDEV_API int chr_loop_dispatch(chr_context *ctx, const chr_poll *polls, int count);
/* Milliseconds until chr_loop_dispatch() has something to do without any descriptor; 0 = now, -1 = never. */
CHARDEV_API int chr_loop_timeout(chr_context *ctx);
/* Nanoseconds on the context's monotonic clock. */
CHARDEV_API int64_t chr_loop_now(chr_context *ctx);

enum { CHR_IN = 1, CHR_OUT = 2, CHR_HUP = 4 }; /* HUP alone: only hang-up and errors; 0: nothing at all, not even those */

/* The three things a loop holds. Zero-initialise and embed them in your own structs; the loop allocates nothing for them.
 * Stopping is harmless when not started, and after it the callback does not come any more. One owner thread. */
struct chr_watch {
    chr_context *ctx;
    void       (*ready)(void *opaque, int events); /* which of CHR_IN, CHR_OUT, CHR_HUP */
    void        *opaque;
    int          fd;
    int          events;
    int          slot; /* in the poll array, plus one; 0 = stopped */
};
struct chr_timer {
    chr_context *ctx;
    void       (*expired)(void *opaque);
    void        *opaque;
    int64_t      deadline; /* nanoseconds */
    chr_timer   *next, *prev;
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

/* Calls `expired` once, delay_ms milliseconds from now. Starting a started timer moves it. */
CHARDEV_API void chr_timer_start(chr_context *ctx, chr_timer *timer, int64_t delay_ms, void (*expired)(void *), void *opaque);
CHARDEV_API void chr_timer_stop(chr_timer *timer);

/* Calls `run` once, at the end of this step or of the next. */
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
    CHR_OPTION_FD      /* int: an inherited descriptor's number, or for a monitor's peer a name; -1 = not given in the text */
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
    const char *logfile;      /* what the guest wrote and the backend took goes there too; created 0666&umask, truncated */
    chr_bool    logappend;    /* default off */
    chr_bool    logtimestamp; /* UTC time before each line; default off */
    chr_bool    mux;          /* make ID-base, and a mux named ID on it; default off */
} chr_common_options;

/* A key=value list while it is being read; backends meet it only in their `uri` slot. */
typedef struct chr_options chr_options;

/* Adds a key for the URI that is being read; `len` bytes of `value` (or all, with (size_t)-1). CHR_ERR_NO_MEMORY. */
CHARDEV_API int chr_options_add(chr_options *options, const char *key, const char *value, size_t len);

/* On whose behalf a chardev is made: fd= is a number for a local user, a name (see >>descriptors) for a monitor's peer. */
typedef enum chr_origin { CHR_LOCAL, CHR_REMOTE } chr_origin;

/* Prints, line by line, all backends (backend NULL or "help") or the options of one ("socket" or "socket,help").
 * CHR_ERR_NOT_FOUND for an unknown one. */
CHARDEV_API int chr_help(chr_context *ctx, const char *backend, void (*print)(void *opaque, const char *line), void *opaque);

/* ====================================================================================================================
 * >>chardev   made, found, changed, removed
 * ==================================================================================================================== */

/* Events, to handlers.event. A test may send any other int through chr_be_event(). */
enum { CHR_EVENT_BREAK, CHR_EVENT_OPENED, CHR_EVENT_MUX_IN, CHR_EVENT_MUX_OUT, CHR_EVENT_CLOSED };

/* Makes a chardev from options in text ("socket,id=mon,fd=3,server=on,wait=off"). Its context owns it. NULL and err: any
 * CHR_ERR_..., nothing is left behind and descriptors named in it are still yours; CHR_ERR_HELP when the text asks for help
 * (then call chr_help()). wait=on blocks until a peer has come, a TCP client without reconnect until it is connected: from
 * inside a handler the first is an error and the second goes on in the background. */
CHARDEV_API chr_dev *chr_new(chr_context *ctx, const char *options, chr_error *err);
CHARDEV_API chr_dev *chr_new_from(chr_context *ctx, chr_origin origin, const char *options, chr_error *err);
/* The same from a URI ("tcp::4444,server=on", "mon:stdio", "chardev:ID" for an existing one). No fd= there. */
CHARDEV_API chr_dev *chr_new_uri(chr_context *ctx, const char *id, const char *uri, chr_error *err);
/* The same from a kind (chr_backend_find()) and its options struct (>>structs; NULL = all defaults). Strings are copied. */
CHARDEV_API chr_dev *chr_open(chr_context *ctx, const char *id, const chr_backend *kind, const void *options, chr_error *err);

/* The chardev with that id, or NULL. */
CHARDEV_API chr_dev *chr_find(chr_context *ctx, const char *id);
/* Walks all: NULL gives the first; NULL comes after the last. */
CHARDEV_API chr_dev *chr_next(chr_context *ctx, const chr_dev *dev);
/* Closes and frees a chardev. CHR_ERR_NOT_FOUND; CHR_ERR_BUSY while a frontend is attached. */
CHARDEV_API int chr_remove(chr_context *ctx, const char *id, chr_error *err);
/* Hot swap: another backend under a living frontend, which must have a `change` handler and may refuse. `options` as in
 * chr_new(), an id in them is ignored. After an error the old one works as before (without frontend: it is gone). */
CHARDEV_API int chr_change(chr_context *ctx, const char *id, const char *options, chr_error *err);
CHARDEV_API int chr_change_from(chr_context *ctx, chr_origin origin, const char *id, const char *options, chr_error *err);
/* Delivers BREAK to the frontend, as if it came from the far side. */
CHARDEV_API int chr_send_break(chr_context *ctx, const char *id, chr_error *err);
/* Gives a connected socket to a server chardev as its peer. From success on it owns fd. CHR_ERR_BUSY while one is connected. */
CHARDEV_API int chr_add_client(chr_context *ctx, const char *id, int fd, chr_error *err);
/* Blocks until connected or failed; with reconnect, through retries. CHR_ERR_IN_HANDLER from inside a handler. */
CHARDEV_API int chr_wait_connected(chr_dev *dev, chr_error *err);

typedef struct chr_info {
    const char *id, *backend;  /* live as long as the chardev */
    char        filename[512]; /* where the far side is: "unix:/tmp/s,server=on", "disconnected:tcp:...", "pty:/dev/pts/3" */
    char        address[512];  /* the actual address of a socket, port 0 resolved; else empty */
    int         frontend_open, be_open;
    int         comes_back;    /* when closed, it may open again by itself: a server, a pty, a client with reconnect */
    uint64_t    bytes_in, bytes_out, bytes_dropped; /* from the far side; taken by it; written while nobody was there */
} chr_info;

CHARDEV_API void chr_query(const chr_dev *dev, chr_info *info);

/* ====================================================================================================================
 * >>frontend   your end
 * ==================================================================================================================== */

/* Any may be NULL. Without `read` nothing is read and the far side is pushed back; without `can_read` there is always room. */
typedef struct chr_handlers {
    int  (*can_read)(void *opaque);                         /* how many bytes you take now; when it becomes > 0 again, */
    void (*read)(void *opaque, const void *buf, size_t len); /* say chr_fe_accept_input(); read gets never more than that */
    void (*event)(void *opaque, int event);                 /* CHR_EVENT_...; OPENED and CLOSED strictly alternate */
    int  (*change)(void *opaque);                           /* another backend is behind you now; < 0 refuses it */
} chr_handlers;

/* Embed it in your device; zero-initialise it. You own the memory; it may go as soon as chr_fe_deinit() has returned. */
struct chr_frontend {
    chr_dev     *dev;
    chr_handlers handlers;
    void        *opaque;
    int          is_open;              /* fe_open: this side is there */
    int          told_open;            /* the last event it got was OPENED */
    void       (*writable)(void *opaque); /* chr_fe_add_watch() */
    void        *writable_opaque;
    void        *slot;                 /* the backend's, where it has many frontends */
};

/* Attaches to a chardev (or to none, with NULL: then writes return CHR_ERR_DISCONNECTED). CHR_ERR_BUSY if it is taken. */
CHARDEV_API int chr_fe_init(chr_frontend *fe, chr_dev *dev, chr_error *err);
/* Detaches; no handler comes after it. */
CHARDEV_API void chr_fe_deinit(chr_frontend *fe);
/* Sets (copies) the handlers; NULL takes them away and closes this side. On an open chardev OPENED comes at once. On a mux
 * it also takes the focus. */
CHARDEV_API void chr_fe_set_handlers(chr_frontend *fe, const chr_handlers *handlers, void *opaque);
/* "I have room again": the loop looks at can_read at once. */
CHARDEV_API void chr_fe_accept_input(chr_frontend *fe);

/* One attempt. Returns the bytes taken, or CHR_ERR_WOULD_BLOCK (none taken: see chr_fe_add_watch), CHR_ERR_DISCONNECTED
 * (nobody there: dropped), CHR_ERR_IO. With CHARDEV_THREADS from any thread. */
CHARDEV_API int chr_fe_write(chr_frontend *fe, const void *buf, size_t len);
/* Waits until all is taken, at most timeout_ms milliseconds (-1 = without limit). Returns the bytes taken: len, or fewer
 * when the time ran out or the far side went after some; else the error. CHR_ERR_IN_HANDLER from inside a handler. */
CHARDEV_API int chr_fe_write_all(chr_frontend *fe, const void *buf, size_t len, int timeout_ms);
/* Waits for exactly len bytes, past the handlers. Returns as chr_fe_write_all() does. CHR_ERR_NOT_SUPPORTED where the
 * backend has no input of its own. */
CHARDEV_API int chr_fe_read_all(chr_frontend *fe, void *buf, size_t len, int timeout_ms);
/* printf() into chr_fe_write(). */
CHARDEV_API int chr_fe_printf(chr_frontend *fe, const char *format, ...) CHR_PRINTF(2, 3);
/* Calls `writable` once, from the loop, when more output can be taken or the far side is gone. One per frontend: the last
 * wins; NULL takes it away. */
CHARDEV_API void chr_fe_add_watch(chr_frontend *fe, void (*writable)(void *opaque), void *opaque);

/* Commands to the device at the far side. CHR_ERR_NOT_SUPPORTED where it has no such thing. */
enum {
    CHR_IOCTL_SET_ECHO = 1 /* int *: 1 = the terminal echoes */
};
CHARDEV_API int chr_fe_ioctl(chr_frontend *fe, int command, void *arg);
/* Descriptors to send with the next write's first byte (SCM_RIGHTS; unix sockets only), at most 16; 0 forgets them. They are
 * duplicated: yours stay yours. CHR_ERR_NOT_SUPPORTED, CHR_ERR_INVALID, CHR_ERR_DISCONNECTED. */
CHARDEV_API int chr_fe_set_msgfds(chr_frontend *fe, const int *fds, int count);
/* Takes over the descriptors that came last: fills up to `count`, returns how many; they are yours, the rest is closed. */
CHARDEV_API int chr_fe_get_msgfds(chr_frontend *fe, int *fds, int count);

CHARDEV_API void chr_fe_set_open(chr_frontend *fe, int is_open);    /* tells the backend whether this side is there */
CHARDEV_API int  chr_fe_set_echo(chr_frontend *fe, int echo);       /* CHR_IOCTL_SET_ECHO */
CHARDEV_API void chr_fe_take_focus(chr_frontend *fe);               /* on a mux: input comes to this frontend from now on */
CHARDEV_API int  chr_fe_disconnect(chr_frontend *fe);               /* closes the peer; a server listens again */
CHARDEV_API int  chr_fe_wait_connected(chr_frontend *fe, chr_error *err); /* chr_wait_connected() of its chardev */
CHARDEV_API int  chr_fe_backend_open(const chr_frontend *fe);       /* be_open: the far side is there */

/* ====================================================================================================================
 * >>backend   how to add one, with as much right as the built-in ones
 * ====================================================================================================================
 * Make a state struct that begins with a chr_dev, an options struct that begins with chr_common_options, an option table, and
 * a const chr_backend; register it. The core calls: `open` once (state zeroed, options complete, checked against the table and
 * copied: use dev->options as long as you live); then the slots; `close` once, also after a failed open, to let go of all that
 * open got. The state is freed after that, when the last dispatch that may touch it is over: after chr_be_write() and
 * chr_be_event() look at dev->removed. Call those two from the loop (watches, timers, idles), never from inside a slot.
 */

/* How bytes go: the hot part of a backend. */
typedef struct chr_io {
    int  (*write)(chr_dev *dev, const void *buf, size_t len); /* one attempt: bytes taken, or a negative error */
    int  (*read)(chr_dev *dev, void *buf, size_t len);        /* for read_all, one attempt; NULL = not supported */
    void (*update)(chr_dev *dev);                             /* ask can_read and chr_be_wants_writable again; NULL = no input,
                                                                 and always writable */
    int  (*wait_fd)(chr_dev *dev, int *events);               /* what write_all/read_all wait on: in CHR_OUT or CHR_IN, out
                                                                 what to poll for; < 0 or NULL = nothing to wait on */
} chr_io;

/* For backends with connections that come and go. */
typedef struct chr_peer_slots {
    int (*disconnect)(chr_dev *dev);
    int (*wait_connected)(chr_dev *dev, chr_error *err);
    int (*add_client)(chr_dev *dev, int fd, chr_error *err);
    int (*set_msgfds)(chr_dev *dev, const int *fds, int count);
    int (*get_msgfds)(chr_dev *dev, int *fds, int count);
} chr_peer_slots;

/* For backends that serve several frontends. Without it there is one, and the core does all of this itself. */
typedef struct chr_sharing_slots {
    int  (*attach)(chr_dev *dev, chr_frontend *fe, chr_error *err);
    void (*detach)(chr_dev *dev, chr_frontend *fe);
    void (*focus)(chr_dev *dev, chr_frontend *fe);
    void (*event)(chr_dev *dev, int event);     /* an event on this chardev: pass it on */
    int  (*wants_writable)(const chr_dev *dev); /* whether any frontend waits */
    void (*writable)(chr_dev *dev);             /* tell them: chr_be_tell_writable() */
} chr_sharing_slots;

struct chr_backend {
    const char       *name;
    const char       *alias;        /* another name, or NULL */
    const char       *help;         /* one line */
    const chr_option *options;      /* its own rows, or NULL */
    size_t            options_size; /* at least sizeof(chr_common_options) */
    size_t            state_size;   /* at least sizeof(chr_dev) */
    int             (*uri)(const char *uri, chr_options *options); /* 1 = read it, 0 = not mine; NULL: the bare name */
    int             (*open)(chr_dev *dev, chr_error *err);
    void            (*close)(chr_dev *dev);                        /* or NULL */
    const chr_io     *io;
    void            (*describe)(const chr_dev *dev, chr_info *info); /* filename, address, comes_back; NULL: the name */
    int             (*ioctl)(chr_dev *dev, int command, void *arg);  /* or NULL */
    void            (*set_open)(chr_dev *dev, int is_open);        /* the frontend's side came or went; or NULL */
    const chr_peer_slots    *peer;                                 /* or NULL */
    const chr_sharing_slots *sharing;                              /* or NULL */
    int               fixed;                                       /* can't be hot-swapped */
};

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
    unsigned           pending;      /* events that wait for the loop, one bit each */
    chr_idle           notify;       /* brings them */
    int                starved;      /* its frontend had no room when last asked: ask again each step */
    chr_dev           *next_starved;
    uint64_t           bytes_in, bytes_out, bytes_dropped;
    struct chr__log   *log;
    chr_dev           *next;
};

/* A kind of your own, beside the built-in ones. `kind` must outlive the context. CHR_ERR_EXISTS, CHR_ERR_NO_MEMORY. */
CHARDEV_API int chr_backend_register(chr_context *ctx, const chr_backend *kind, chr_error *err);
/* By name or alias, or NULL. */
CHARDEV_API const chr_backend *chr_backend_find(chr_context *ctx, const char *name);
/* Walks all: NULL gives the first; NULL comes after the last. */
CHARDEV_API const chr_backend *chr_backend_next(chr_context *ctx, const chr_backend *kind);

CHARDEV_API int  chr_be_can_write(chr_dev *dev);                            /* how many bytes the frontend takes now */
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

typedef struct chr_mux_options {
    chr_common_options common;
    const char        *chardev; /* the id of the chardev to share; required */
    int64_t            escape;  /* the escape character; default: the context's */
} chr_mux_options;

typedef struct chr_fd_options { /* from success on the chardev owns the descriptors */
    chr_common_options common;
    int                in;  /* read from here; -1 = no input */
    int                out; /* write to here, may be the same; -1 = no output */
} chr_fd_options;

typedef struct chr_file_options {
    chr_common_options common;
    const char        *path;       /* written; required */
    chr_bool           append;     /* default off: truncate */
    const char        *input_path; /* read as input, or NULL */
} chr_file_options;

typedef struct chr_pipe_options {
    chr_common_options common;
    const char        *path; /* PATH.in and PATH.out, or PATH both ways; required */
} chr_pipe_options;

typedef struct chr_pty_options {
    chr_common_options common;
    const char        *path; /* a symlink to the slave is made here, or NULL */
} chr_pty_options;

typedef struct chr_stdio_options {
    chr_common_options common;
    chr_bool           signal; /* default on: ^C and friends are signals, not input */
} chr_stdio_options;

typedef enum chr_address_type { CHR_ADDR_NONE, CHR_ADDR_INET, CHR_ADDR_UNIX, CHR_ADDR_VSOCK, CHR_ADDR_FD } chr_address_type;

typedef struct chr_address {
    chr_address_type type;        /* which of the members below count */
    const char      *host, *port; /* INET: host may be NULL (all interfaces, or localhost); port is a number or a service */
    int64_t          to;          /* INET server: try ports up to this one; 0 = only `port` */
    chr_bool         ipv4, ipv6;  /* INET: on = only that family; off = not that one */
    const char      *path;        /* UNIX */
    chr_bool         abstract;    /* UNIX: in Linux's abstract name space; default off */
    chr_bool         tight;       /* UNIX abstract: the name is not padded with zeros; default on */
    int64_t          cid;         /* VSOCK, with port */
    int              fd;          /* FD: open already; listening with server on, else connected */
} chr_address;

typedef struct chr_socket_options {
    chr_common_options common;
    chr_address        address;
    chr_bool           server;       /* default off: client */
    chr_bool           wait;         /* server: block creation until a peer has come; default on */
    chr_bool           nodelay;      /* TCP_NODELAY; default off */
    chr_bool           delay;        /* the old word for its opposite */
    int64_t            reconnect;    /* client: retry after this many seconds; 0 = never */
    int64_t            reconnect_ms; /* the same in milliseconds; not both */
    chr_bool           telnet, tn3270, websocket; /* what is spoken over the connection; default: raw */
    const char        *tls_creds, *tls_authz, *tls_hostname;
} chr_socket_options;

/* ====================================================================================================================
 * >>extras   what only some chardevs can do
 * ==================================================================================================================== */

typedef enum chr_format { CHR_UTF8, CHR_BASE64 } chr_format; /* BASE64: RFC 4648 section 4 */

/* Appends text to a ring buffer as if the guest had written it; base64 is decoded first. Returns the bytes stored, or
 * CHR_ERR_NOT_SUPPORTED (not a ringbuf), CHR_ERR_INVALID (bad base64). */
CHARDEV_API int chr_ringbuf_write(chr_dev *dev, const char *text, size_t len, chr_format format, chr_error *err);
/* Takes up to `size` bytes out, oldest first, as text into out[capacity] (no zero is added). Returns the text's length: it
 * takes no more than fits. utf8: whole sequences only; bytes that are none become U+FFFD. CHR_ERR_NOT_SUPPORTED. */
CHARDEV_API int chr_ringbuf_read(chr_dev *dev, size_t size, chr_format format, char *out, size_t capacity, chr_error *err);
/* How many bytes are in it. */
CHARDEV_API int chr_ringbuf_count(const chr_dev *dev);

/* Between the two, OPENED is held back on every mux, so that banners go to the frontend that has the focus in the end. */
CHARDEV_API void chr_mux_suspend_open(chr_context *ctx);
CHARDEV_API void chr_mux_resume_open(chr_context *ctx);

/* ====================================================================================================================
 * >>descriptors   named ones, passed by a monitor's peer (SCM_RIGHTS), for fd=NAME
 * ==================================================================================================================== */

/* Keeps fd under a name, which may not begin with a digit; the context owns it from success on, until a chardev takes it. A
 * descriptor that had the name before is closed. CHR_ERR_INVALID, CHR_ERR_NO_MEMORY. */
CHARDEV_API int chr_fd_put(chr_context *ctx, const char *name, int fd, chr_error *err);
/* Closes and forgets it. CHR_ERR_NOT_FOUND. */
CHARDEV_API int chr_fd_close(chr_context *ctx, const char *name, chr_error *err);

#ifdef __cplusplus
}
#endif
#endif /* CHARDEV_H */
