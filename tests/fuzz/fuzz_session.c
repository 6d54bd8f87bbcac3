/*
 * record and replay: the input drives two chardevs and their far sides while they are recorded; then the same is done
 * with chardevs that are replayed, without a far side. The frontends get the same (bytes, events, results, times), and
 * nothing is logged. First two bytes: which chardevs.
 */
#include "fuzz.h"

#include <stdarg.h>

enum { SES_DEVICES = 2, SES_FARS = 4, SES_DIARY = 1 << 17, SES_STEPS = 48 };

typedef struct ses_guest {
    chr_frontend fe;
    int          room, waits; /* waits: for writable */
} ses_guest;

typedef struct ses_diary {
    char   text[SES_DIARY];
    size_t len;
} ses_diary;

static chr_context *ses_ctx;
static ses_guest    ses_guests[SES_DEVICES];
static ses_diary    ses_diaries[2];
static int          ses_is_replay;
static int          ses_fars[SES_FARS];
static int64_t      ses_began;

/* The recording, for whoever looks at a difference. */
static void ses_dump(void)
{
    const unsigned char *p = wires.file + 24;
    size_t               i;
    for (; p + 28 <= wires.file + wires.file_length; p += 28 + (p[0] | p[1] << 8)) {
        int64_t time = 0;
        for (i = 8; i > 0; i--) time = time << 8 | p[11 + i];
        fprintf(stderr, "%lld chardev %d kind %d%s value %d extra %d, %d bytes\n", (long long)time, p[8], p[10], p[11] ? " (inside)" : "",
                (int)((uint32_t)p[20] | (uint32_t)p[21] << 8 | (uint32_t)p[22] << 16 | (uint32_t)p[23] << 24), p[24] | p[25] << 8, p[0] | p[1] << 8);
    }
}

static void ses_differs(void)
{
    const ses_diary *a = &ses_diaries[0], *b = &ses_diaries[1];
    size_t           i, line = 0;
    for (i = 0; i < a->len && i < b->len && a->text[i] == b->text[i]; i++)
        if (a->text[i] == '\n') line = i + 1;
    fprintf(stderr, "the same up to here:\n%.*s---- recorded:\n%.400s\n---- played:\n%.400s\n", (int)line, a->text, a->text + line, b->text + line);
    ses_dump();
    abort();
}

static void ses_note(const ses_guest *guest, const char *format, ...)
{
    ses_diary *d = &ses_diaries[ses_is_replay];
    va_list    args;
    FUZZ_CHECK(d->len < sizeof d->text - 400);
    d->len += (size_t)snprintf(d->text + d->len, 100, "%lld %d ", (long long)(wires.now - ses_began), (int)(guest - ses_guests));
    va_start(args, format);
    d->len += (size_t)vsnprintf(d->text + d->len, 200, format, args);
    va_end(args);
    d->text[d->len++] = '\n';
}

static unsigned ses_hash(const void *buf, size_t len)
{
    const uint8_t *bytes = (const uint8_t *)buf;
    unsigned       hash = 1;
    while (len-- > 0) hash = hash * 16777619u ^ *bytes++;
    return hash;
}

static int ses_can_read(void *opaque) { return ((ses_guest *)opaque)->room; }

static void ses_read(void *opaque, const void *buf, size_t len)
{
    ses_guest *guest = (ses_guest *)opaque;
    FUZZ_CHECK(len > 0 && len <= (size_t)guest->room);
    guest->room -= (int)len;
    ses_note(guest, "input %d %08x", (int)len, ses_hash(buf, len));
}

static void ses_event(void *opaque, int event)
{
    ses_guest *guest = (ses_guest *)opaque;
    ses_note(guest, "event %d eof %d", event, chr_fe_eof(&guest->fe));
}

static void ses_writable(void *opaque)
{
    ses_guest *guest = (ses_guest *)opaque;
    guest->waits = 0;
    ses_note(guest, "writable");
}

/* A frontend that repeats its calls causes no divergence: a replay must not log anything. */
static void ses_log(void *opaque, const char *line)
{
    (void)opaque;
    if (ses_is_replay) fprintf(stderr, "%s\n", line);
    if (ses_is_replay) ses_differs();
}

static void ses_settle(void)
{
    int i;
    for (i = 0; i < 2000 && chr_loop_step(ses_ctx, 0) > 0; i++) {}
    FUZZ_CHECK(i < 2000);
    for (i = 0; i < SES_FARS && wires.far >= 0; i++) /* somebody was called */
        if (ses_fars[i] < 0) {
            ses_fars[i] = wires.far;
            wires.far = -1;
        }
}

static void ses_open(int number, uint8_t kind)
{
    static const char *const kinds[] = {
        "socket,id=%c,path=%c,abstract=on,server=on,wait=off", "socket,id=%c,path=%c,abstract=on,server=on,wait=off,telnet=on",
        "socket,id=%c,path=%c,abstract=on,server=on,wait=off,telnet=on,com-port=on", "socket,id=%c,path=%c,abstract=on,reconnect-ms=20",
        "socket,id=%c,path=%c,abstract=on,server=on,wait=off,websocket=on", "socket,id=%c,path=%c,abstract=on,server=on,wait=off,obuf=64",
        "socket,id=%c,path=%c,abstract=on,server=on,wait=off,clients=2", "wctablet,id=%c", "ringbuf,id=%c,size=16", "msmouse,id=%c",
        "testdev,id=%c", "udp,id=%c,host=127.0.0.1,port=1000"
    };
    static const chr_handlers handlers = { ses_can_read, ses_read, ses_event, NULL };
    char                      options[160];
    ses_guest                *guest = &ses_guests[number];
    chr_error                 err;
    chr_dev                  *dev;
    snprintf(options, sizeof options, kinds[kind % (sizeof kinds / sizeof kinds[0])], 'a' + number, 'a' + number);
    memset(guest, 0, sizeof *guest);
    guest->room = 100;
    dev = chr_new(ses_ctx, options, &err);
    if (!dev) fprintf(stderr, "%s: %s\n", options, err.text);
    FUZZ_CHECK(dev != NULL && chr_fe_init(&guest->fe, dev, &err) == 0);
    chr_fe_set_handlers(&guest->fe, &handlers, guest);
    ses_settle();
}

static int ses_free_far(void)
{
    int i;
    for (i = 0; i < SES_FARS; i++)
        if (ses_fars[i] < 0) return i;
    return -1;
}

/* The far side's action. In a replay it is skipped, but its bytes of the input are still consumed. */
static void ses_far(int what, int which, const uint8_t *bytes, size_t len)
{
    char taken[4096];
    int  i = ses_free_far(), *fd = &ses_fars[which % SES_FARS];
    if (ses_is_replay) return;
    if (what == 0 && i >= 0) ses_fars[i] = wire_call();
    if (what == 0 || *fd < 0) return;
    switch (what) {
    case 1: while (wire_hear(*fd, taken, sizeof taken) > 0) {} break;
    case 2: wire_say(*fd, bytes, len); break;
    case 3: wire_shut(*fd); *fd = -1; break;
    case 4: wire_say_no_more(*fd); break;
    default: wire_set_room(*fd, len ? bytes[0] : 0); break;
    }
}

static void ses_ask(ses_guest *guest, uint8_t what)
{
    chr_serial_params params = { what & 64 ? 9600 : 1200, 'N', 8, 1 };
    int               value = what & 0x166, code = 0;
    switch (what & 7) {
    case 0: code = chr_fe_ioctl(&guest->fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params); break;
    case 1: code = chr_fe_ioctl(&guest->fe, CHR_IOCTL_SERIAL_GET_PARAMS, &params); break;
    case 2: code = chr_fe_ioctl(&guest->fe, CHR_IOCTL_SERIAL_SET_TIOCM, &value); break;
    case 3: code = chr_fe_ioctl(&guest->fe, CHR_IOCTL_SERIAL_GET_TIOCM, &value); break;
    case 4: code = chr_fe_ioctl(&guest->fe, CHR_IOCTL_SERIAL_SET_BREAK, &value); break;
    case 5: code = chr_fe_ioctl(&guest->fe, CHR_IOCTL_SERIAL_GET_ERRORS, &value); break;
    default: code = chr_fe_ioctl(&guest->fe, CHR_IOCTL_SERIAL_GET_FLOW, &value); break;
    }
    ses_note(guest, "ask %d: %d, %d %c%d%d, %d", what, code, (int)params.speed, params.parity, params.data_bits, params.stop_bits, value);
}

/* Nothing is recorded of a call that moves nothing: it has no place among the events of its moment. */
static void ses_act(ses_guest *guest, int what, uint8_t number, const uint8_t *bytes, size_t len)
{
    char got[65];
    int  n;
    if (len == 0 && (what == 6 || what == 7 || what == 14)) return;
    switch (what) {
    case 6:
    case 7:
        n = chr_fe_write(&guest->fe, bytes, len);
        ses_note(guest, "write %d: %d", (int)len, n);
        break;
    case 8:
        guest->room = number;
        chr_fe_accept_input(&guest->fe);
        break;
    case 9:
        if (!guest->waits++) chr_fe_add_watch(&guest->fe, ses_writable, guest);
        break;
    case 10: ses_ask(guest, number); break;
    case 11: chr_fe_disconnect(&guest->fe); break;
    case 12: ses_note(guest, "shutdown: %d", chr_fe_shutdown(&guest->fe)); break;
    case 13:
        n = chr_fe_read_all(&guest->fe, got, 1 + number % 64u, 0);
        ses_note(guest, "read_all %d: %d %08x", (int)(1 + number % 64u), n, n > 0 ? ses_hash(got, (size_t)n) : 0);
        break;
    case 14: ses_note(guest, "write_all %d: %d", (int)len, chr_fe_write_all(&guest->fe, bytes, len, 0)); break;
    default: chr_fe_set_open(&guest->fe, number & 1); break;
    }
}

/* One action: its first byte selects the kind and the chardev, its second the size. Then time advances. */
static void ses_step(fuzz_bytes *in)
{
    uint8_t op = fuzz_byte(in), number = fuzz_byte(in);
    int     what = op & 15;
    size_t  len = what == 2 || what == 6 || what == 7 || what == 14 ? number % 80u : what == 5 ? 1u : 0u;
    if (len > in->size) len = in->size;
    if (what < 6) ses_far(what, op >> 4, in->data, len);
    else ses_act(&ses_guests[op >> 4 & 1], what, number, in->data, len);
    in->data += len;
    in->size -= len;
    ses_settle();
    wires.now += op & 0x80 ? 1 + number * 333333 : op & 0x40 ? 1 : 0;
    ses_settle();
}

static void ses_run(fuzz_bytes in)
{
    chr_config config;
    int        i;
    memset(&config, 0, sizeof config);
    config.allocate = fuzz_allocate;
    config.clock = config.wall_clock = fuzz_clock;
    config.log = ses_log;
    config.exit = fuzz_exit;
    wire_reset();
    wires.has_backlog_of_one = 1;
    ses_diaries[ses_is_replay].len = 0;
    ses_began = wires.now;
    for (i = 0; i < SES_FARS; i++) ses_fars[i] = -1;
    ses_ctx = chr_context_new(&config);
    FUZZ_CHECK(ses_ctx != NULL);
    FUZZ_CHECK((ses_is_replay ? chr_replay_open : chr_record_start)(ses_ctx, WIRE_PATH, NULL) == 0);
    for (i = 0; i < SES_DEVICES; i++) ses_open(i, fuzz_byte(&in));
    for (i = 0; in.size > 0 && i < SES_STEPS; i++) ses_step(&in);
    if (ses_is_replay) FUZZ_CHECK(chr_replay_over(ses_ctx) == 1);
    else FUZZ_CHECK(chr_record_stop(ses_ctx) == 0);
    for (i = 0; i < SES_DEVICES; i++) chr_fe_deinit(&ses_guests[i].fe);
    for (i = 0; i < SES_FARS; i++) /* nobody is left whose reading would be waited for */
        if (ses_fars[i] >= 0) wire_shut(ses_fars[i]);
    if (wires.far >= 0) wire_shut(wires.far);
    wires.far = -1;
    wires.connect_error = ECONNREFUSED;
    chr_context_free(ses_ctx);
    FUZZ_CHECK(wire_open_count() == 0);
}

int FUZZ_TARGET(const uint8_t *data, size_t size)
{
    fuzz_bytes in = { data, size };
    fuzz_live = 0;
    for (ses_is_replay = 0; ses_is_replay < 2; ses_is_replay++) ses_run(in);
    ses_is_replay = 0;
    if (ses_diaries[0].len != ses_diaries[1].len || memcmp(ses_diaries[0].text, ses_diaries[1].text, ses_diaries[0].len) != 0) ses_differs();
    FUZZ_CHECK(fuzz_live == 0);
    return 0;
}
