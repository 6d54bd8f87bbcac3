/*
 * What must work on every target: options, null, ringbuf, mux, braille, and where there are sockets one of those. Compiled by make
 * cross with every compiler as C and as C++, and run wherever the result can be run. Prints "portable: ok".
 * With CROSS_TWO_FILES the second file, second.c, is linked to it.
 */
#define CHARDEV_IMPLEMENTATION
#include "../../chardev.h"
#include "../../chardev.h" /* A second time, with the macro still there: must be harmless. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if CHARDEV_HAS_SOCKET && !defined(_WIN32)
#include <sys/socket.h>
#include <unistd.h>
#endif

#ifdef CROSS_TWO_FILES
#ifdef __cplusplus
extern "C"
#endif
int second_file(chr_context *ctx);
#endif

static int failures;

#define CHECK(condition) check((condition) != 0, #condition, __LINE__)

static void check(int holds, const char *condition, int line)
{
    if (holds) return;
    printf("portable.c:%d: %s\n", line, condition);
    failures++;
}

static void *allocate(void *opaque, void *ptr, size_t size)
{
    (void)opaque;
    if (size > 0) return realloc(ptr, size);
    free(ptr);
    return NULL;
}

/* ---- a device that remembers what came ------------------------------------------------------------------------------ */

typedef struct device {
    chr_frontend fe;
    char         got[256];
    size_t       used;
    int          last_event;
} device;

static int device_room(void *opaque)
{
    const device *d = (const device *)opaque;
    return (int)(sizeof d->got - d->used);
}

static void device_read(void *opaque, const void *buf, size_t len)
{
    device *d = (device *)opaque;
    memcpy(d->got + d->used, buf, len);
    d->used += len;
}

static void device_event(void *opaque, int event)
{
    ((device *)opaque)->last_event = event;
}

static int attach(device *d, chr_dev *dev)
{
    static const chr_handlers handlers = { device_room, device_read, device_event, NULL };
    memset(d, 0, sizeof *d);
    d->last_event = -1;
    if (!dev || chr_fe_init(&d->fe, dev, NULL) < 0) return 0;
    chr_fe_set_handlers(&d->fe, &handlers, d);
    return 1;
}

static void settle(chr_context *ctx)
{
    int left = 100;
    while (chr_loop_step(ctx, 0) > 0 && left > 0)
        left--;
}

#if CHARDEV_HAS_HELP && CHARDEV_HAS_OPTIONS
static void count_line(void *opaque, const char *line)
{
    *(int *)opaque += line[0] != '\0';
}
#endif

/* Without help an error's text is its number. */
static int says(const chr_error *err, const char *text)
{
    char number[32];

    snprintf(number, sizeof number, "error %d", err->code);
    return CHARDEV_HAS_HELP ? strstr(err->text, text) != NULL : strcmp(err->text, number) == 0;
}

static chr_dev *make(chr_context *ctx, const char *id, const char *kind, const void *options)
{
    return chr_open(ctx, id, chr_backend_find(ctx, kind), options, NULL);
}

/* ---- what is tested ---------------------------------------------------------------------------------------------------- */

#if CHARDEV_HAS_OPTIONS
static void test_options(chr_context *ctx)
{
    chr_error err;

    CHECK(!chr_new(ctx, "null,id=a,colour=red", &err) && err.code == CHR_ERR_INVALID && says(&err, "colour"));
    CHECK(!chr_new(ctx, "nowhere,id=a", &err) && says(&err, "nowhere"));
    CHECK(!chr_new(ctx, "null,help", &err) && err.code == CHR_ERR_HELP);
#if CHARDEV_HAS_HELP
    {
        int lines = 0;
        CHECK(chr_help(ctx, NULL, count_line, &lines) >= 0 && lines > 0);
    }
#endif
#if CHARDEV_HAS_URI
    CHECK(!chr_new_uri(ctx, "a", "nowhere:", &err) && err.code == CHR_ERR_NOT_FOUND);
#else
    CHECK(!chr_new_any(ctx, "a", "null:", &err) && err.code == CHR_ERR_NOT_SUPPORTED && says(&err, "built without URIs"));
#endif
#if !CHARDEV_HAS_LOG
    CHECK(!chr_new(ctx, "null,id=a,logfile=x", &err) && err.code == CHR_ERR_NOT_SUPPORTED && says(&err, "logfile="));
#endif
#if !CHARDEV_HAS_BUFFERS
    CHECK(!chr_new(ctx, "null,id=a,obuf=16", &err) && err.code == CHR_ERR_NOT_SUPPORTED && says(&err, "obuf="));
#endif
    CHECK(!chr_find(ctx, "a"));
    CHECK(chr_new(ctx, "null,id=a", &err) && chr_find(ctx, "a") && chr_remove(ctx, "a", NULL) == 0);
#if CHARDEV_HAS_RINGBUF
    CHECK(!chr_new(ctx, "ringbuf,id=r,size=5", &err) && says(&err, "power of two"));
    CHECK(chr_new(ctx, "memory,id=r,size=0.5K", &err) && chr_remove(ctx, "r", NULL) == 0);
#endif
#if CHARDEV_HAS_SCRIPT
    CHECK(!chr_new(ctx, "script,id=play,text=sned", &err) && says(&err, "line 1: none of expect"));
#endif
}
#endif

static void test_null(chr_context *ctx)
{
    device d;

    CHECK(attach(&d, make(ctx, "n", "null", NULL)));
    CHECK(chr_fe_write(&d.fe, "gone", 4) == 4);
    settle(ctx);
    CHECK(d.last_event == -1 && d.used == 0);
    chr_fe_deinit(&d.fe);
    CHECK(chr_remove(ctx, "n", NULL) >= 0 && !chr_find(ctx, "n"));
}

#if CHARDEV_HAS_RINGBUF
static void test_ringbuf(chr_context *ctx)
{
    chr_ringbuf_options options;
    device              d;
    chr_error           err;
    char                text[64];

    memset(&options, 0, sizeof options);
    options.size = 8;
    CHECK(attach(&d, make(ctx, "r", "memory", &options)));
    CHECK(d.last_event == CHR_EVENT_OPENED || (settle(ctx), d.last_event == CHR_EVENT_OPENED));
    CHECK(chr_fe_write(&d.fe, "0123456789", 10) == 10 && chr_ringbuf_count(d.fe.dev) == 8);
    CHECK(chr_ringbuf_read(d.fe.dev, 4, CHR_UTF8, text, sizeof text, &err) == 4 && memcmp(text, "2345", 4) == 0);
#if CHARDEV_HAS_BASE64
    CHECK(chr_ringbuf_write(d.fe.dev, "/wA=", 4, CHR_BASE64, &err) == 2);
    CHECK(chr_ringbuf_read(d.fe.dev, 8, CHR_BASE64, text, sizeof text, &err) == 8 && memcmp(text, "Njc4Of8A", 8) == 0);
#else
    CHECK(chr_ringbuf_write(d.fe.dev, "/wA=", 4, CHR_BASE64, &err) == CHR_ERR_NOT_SUPPORTED && says(&err, "without base64"));
    CHECK(chr_ringbuf_read(d.fe.dev, 8, CHR_BASE64, text, sizeof text, &err) == CHR_ERR_NOT_SUPPORTED && says(&err, "without base64"));
#endif
    chr_fe_deinit(&d.fe);
}
#endif

#if CHARDEV_HAS_MUX && CHARDEV_HAS_RINGBUF
static void test_mux(chr_context *ctx)
{
    chr_ringbuf_options options;
    device              a, b;
    chr_dev            *mux, *base;
    char                text[64];

    memset(&options, 0, sizeof options);
    options.size = 1024;
    options.common.mux = CHR_ON;
    mux = make(ctx, "m", "ringbuf", &options);
    base = chr_find(ctx, "m-base");
    CHECK(mux && base && attach(&a, mux) && attach(&b, mux));
    settle(ctx);
    CHECK(chr_fe_write(&a.fe, "one ", 4) == 4 && chr_fe_write(&b.fe, "two", 3) == 3);
    CHECK(base && chr_ringbuf_read(base, 64, CHR_UTF8, text, sizeof text, NULL) == 7 && memcmp(text, "one two", 7) == 0);
    chr_fe_take_focus(&a.fe);
    chr_be_write(base, "for a\001cfor b", 12);
    CHECK(a.used == 5 && memcmp(a.got, "for a", 5) == 0);
    CHECK(b.used == 5 && memcmp(b.got, "for b", 5) == 0);
    chr_fe_deinit(&a.fe);
    chr_fe_deinit(&b.fe);
}
#endif

#if CHARDEV_HAS_BRAILLE
static char braille_text[8];

static int braille_size(void *opaque)
{
    return *(const int *)opaque;
}

static void braille_write(void *opaque, const unsigned char *cells, const char *text, int count, int cursor)
{
    (void)opaque;
    CHECK(count == 3 && cursor == 2 && cells[1] == 0x03);
    memcpy(braille_text, text, 3);
}

static void test_braille(chr_context *ctx)
{
    static const chr_braille_display display = { braille_size, braille_write };
    chr_braille_options              options;
    device                           d;
    int                              cells = 3;

    memset(&options, 0, sizeof options);
    options.display = &display;
    options.opaque = &cells;
    CHECK(attach(&d, chr_open(ctx, "b", chr_backend_find(ctx, "braille"), &options, NULL)));
    CHECK(chr_fe_write(&d.fe, "\033\204\033\001\001\303\011", 7) == 7);
    CHECK(d.fe.dev && chr_braille_key(d.fe.dev, CHR_BRAILLE_TOP_KEYS, CHR_BRAILLE_TR3) == 0);
    settle(ctx);
    CHECK(d.used == 21 && memcmp(d.got, "\033\204Baum Vario 3    \033\044\040", 21) == 0);
    CHECK(memcmp(braille_text, "abc", 4) == 0);
    chr_fe_deinit(&d.fe);
    CHECK(chr_remove(ctx, "b", NULL) >= 0);
}
#endif

#if CHARDEV_HAS_SOCKET && !defined(_WIN32)
static void test_socket(chr_context *ctx)
{
    chr_socket_options options;
    device             d;
    int                ends[2], turns = 0;
    char               text[8];

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    memset(&options, 0, sizeof options);
    options.address.type = CHR_ADDR_FD;
    options.address.fd = ends[1];
    CHECK(attach(&d, make(ctx, "s", "socket", &options)));
    CHECK(write(ends[0], "there", 5) == 5);
    while (d.used < 5 && turns++ < 50)
        chr_loop_step(ctx, 100);
    CHECK(d.used == 5 && memcmp(d.got, "there", 5) == 0);
    CHECK(chr_fe_write(&d.fe, "back", 4) == 4 && read(ends[0], text, sizeof text) == 4 && memcmp(text, "back", 4) == 0);
    close(ends[0]);
    for (turns = 0; d.last_event != CHR_EVENT_CLOSED && turns < 50; turns++)
        chr_loop_step(ctx, 100);
    CHECK(d.last_event == CHR_EVENT_CLOSED);
    chr_fe_deinit(&d.fe);
}
#endif

#if CHARDEV_HAS_SCRIPT
static void test_script(chr_context *ctx)
{
    chr_script_options options;
    device             d;
    chr_error          err;

    memset(&options, 0, sizeof options);
    options.exit = CHR_OFF;
    options.text = "expect \"login:\"; send \"root\\n\"; close";
    CHECK(attach(&d, make(ctx, "play", "script", &options)));
    settle(ctx);
    CHECK(chr_fe_write(&d.fe, "log", 3) == 3 && chr_fe_write(&d.fe, "in: ", 4) == 4);
    settle(ctx);
    CHECK(d.used == 5 && memcmp(d.got, "root\n", 5) == 0 && d.last_event == CHR_EVENT_CLOSED);
    CHECK(chr_script_result(d.fe.dev, &err) == 0);
    CHECK(chr_inject(d.fe.dev, "more", 4) == 4 && d.used == 9);
    chr_fe_deinit(&d.fe);
}
#endif

#if CHARDEV_HAS_FAULT && CHARDEV_HAS_RINGBUF
static void test_fault(chr_context *ctx)
{
    chr_ringbuf_options below;
    chr_fault_options   options;
    device              d;
    chr_fault_counts    counts;

    memset(&below, 0, sizeof below);
    memset(&options, 0, sizeof options);
    below.size = 16;
    options.chardev = "below";
    CHECK(make(ctx, "below", "ringbuf", &below) && attach(&d, make(ctx, "f", "fault", &options)));
    settle(ctx);
    CHECK(chr_fault_feed(d.fe.dev, "\x80\x01", 2) == 2);
    CHECK(chr_fe_write(&d.fe, "hello", 5) == 2 && chr_fe_write(&d.fe, "llo", 3) == 3);
    CHECK(chr_fault_query(d.fe.dev, &counts) == 0 && counts.short_writes == 1 && counts.bytes_used == 2);
    chr_fe_deinit(&d.fe);
}
#endif

int main(void)
{
    chr_config   config;
    chr_context *ctx;

    (void)says; /* a build without options and with base64 has no use for it */
    memset(&config, 0, sizeof config);
    config.allocate = allocate;
    ctx = chr_context_new(&config);
    CHECK(ctx);
    if (!ctx) return 1;
#if CHARDEV_HAS_OPTIONS
    test_options(ctx);
#endif
    test_null(ctx);
#if CHARDEV_HAS_RINGBUF
    test_ringbuf(ctx);
#endif
#if CHARDEV_HAS_MUX && CHARDEV_HAS_RINGBUF
    test_mux(ctx);
#endif
#if CHARDEV_HAS_BRAILLE
    test_braille(ctx);
#endif
#if CHARDEV_HAS_SCRIPT
    test_script(ctx);
#endif
#if CHARDEV_HAS_FAULT && CHARDEV_HAS_RINGBUF
    test_fault(ctx);
#endif
#if CHARDEV_HAS_SOCKET && !defined(_WIN32)
    test_socket(ctx);
#endif
#ifdef CROSS_TWO_FILES
    CHECK(second_file(ctx));
#endif
    chr_context_free(ctx);
    if (failures) printf("portable: %d failed\n", failures);
    else printf("portable: ok\n");
    return failures > 0;
}
