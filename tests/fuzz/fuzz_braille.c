/*
 * braille. With an even first byte the input is a guest, with pauses and key presses of its user: the guest must
 * receive whole packets with valid lengths, and the same ones for any split of its bytes. With an odd first byte it is
 * what a BrlAPI server sends.
 */
#include "fuzz.h"

#if CHARDEV_HAS_BRLAPI
#include <sys/socket.h>
#include <unistd.h>
#endif

enum { BRAILLE_LONG = 1 << 16 };

typedef struct braille_end {
    chr_context *ctx;
    chr_dev     *dev;
    chr_frontend fe;
    int          size, room, rows, count, cursor;
    uint8_t      cells[84];
    uint8_t      heard[BRAILLE_LONG];
    size_t       heard_len;
} braille_end;

static braille_end braille_one, braille_two;
static int64_t     braille_now;

static int64_t braille_clock(void *opaque)
{
    (void)opaque;
    return braille_now;
}

static int braille_size(void *opaque)
{
    return ((braille_end *)opaque)->size;
}

static void braille_shown(void *opaque, const unsigned char *cells, const char *text, int count, int cursor)
{
    braille_end *end = (braille_end *)opaque;
    int          i;
    FUZZ_CHECK(count >= 1 && count <= 84 && cursor >= 0 && cursor <= count);
    for (i = 0; i < count; i++) {
        FUZZ_CHECK(text[i] >= ' ' && text[i] <= '~');
        if (i + 1 < cursor) FUZZ_CHECK((cells[i] & 0xc0) != 0xc0);
    }
    if (cursor) FUZZ_CHECK((cells[cursor - 1] & 0xc0) == 0);
    end->rows++;
    end->count = count;
    end->cursor = cursor;
    memcpy(end->cells, cells, (size_t)count);
}

static const chr_braille_display braille_display = { braille_size, braille_shown };

static int braille_can_read(void *opaque)
{
    return ((braille_end *)opaque)->room;
}

static void braille_read(void *opaque, const void *buf, size_t len)
{
    braille_end *end = (braille_end *)opaque;
    FUZZ_CHECK(len > 0 && len <= (size_t)end->room && end->heard_len + len <= sizeof end->heard);
    memcpy(end->heard + end->heard_len, buf, len);
    end->heard_len += len;
    end->room -= (int)len;
}

static void braille_settle(braille_end *end)
{
    int left = 1000;
    while (chr_loop_step(end->ctx, 0) > 0) FUZZ_CHECK(left-- > 0);
}

static void braille_open(braille_end *end, const chr_braille_display *display, const char *host, int room)
{
    static const chr_handlers handlers = { braille_can_read, braille_read, NULL, NULL };
    chr_braille_options       options;
    chr_config                config;
    memset(end, 0, sizeof *end);
    memset(&config, 0, sizeof config);
    memset(&options, 0, sizeof options);
    config.allocate = fuzz_allocate;
    config.clock = braille_clock;
    end->ctx = chr_context_new(&config);
    end->room = room;
    options.display = display;
    options.host = host;
    options.opaque = end;
    end->dev = chr_open(end->ctx, "b", chr_backend_find(end->ctx, "braille"), &options, NULL);
    FUZZ_CHECK(end->dev && chr_fe_init(&end->fe, end->dev, NULL) == 0);
    chr_fe_set_handlers(&end->fe, &handlers, end);
}

static void braille_close(braille_end *end)
{
    chr_fe_deinit(&end->fe);
    chr_context_free(end->ctx);
}

/* The data bytes behind each code. */
static size_t braille_length(uint8_t code)
{
    switch (code) {
    case 0x01: case 0x05: case 0x24: case 0x27: return 1;
    case 0x33: return 2;
    case 0x84: return 16;
    default: FUZZ_CHECK(code == 0x8a); return 8; /* and no Vario says anything else */
    }
}

/* Whole packets, up to where the guest has read. */
static void braille_check_heard(const braille_end *end)
{
    size_t at = 0, need;
    while (at + 2 <= end->heard_len) {
        FUZZ_CHECK(end->heard[at] == 0x1b);
        need = braille_length(end->heard[at + 1]);
        for (at += 2; need > 0 && at < end->heard_len; need--, at++)
            if (end->heard[at] == 0x1b && ++at < end->heard_len) FUZZ_CHECK(end->heard[at] == 0x1b);
    }
}

static void braille_give_room(braille_end *end, int more)
{
    end->room += more;
    chr_fe_accept_input(&end->fe);
}

static void braille_writes(braille_end *end, const uint8_t *bytes, size_t len)
{
    if (len) FUZZ_CHECK(chr_fe_write(&end->fe, bytes, len) == (int)len);
}

static void braille_does_something(braille_end *end, fuzz_bytes *in)
{
    uint8_t bytes[64], op = fuzz_byte(in), value = fuzz_byte(in);
    size_t  i;
    switch (op % 8) {
    case 0: braille_now += (int64_t)value * 1000000; break;
    case 1: end->size = value; FUZZ_CHECK(chr_braille_resized(end->dev) == 0); break;
    case 2: (void)chr_braille_key(end->dev, (chr_braille_keys)(value & 3), fuzz_byte(in)); break;
    case 3: braille_give_room(end, value); break;
    case 4: braille_settle(end); break;
    default:
        for (i = 0; i < value % sizeof bytes; i++) bytes[i] = fuzz_byte(in);
        braille_writes(end, bytes, i);
        break;
    }
    if (op & 0x80) braille_settle(end);
}

static void braille_guest(fuzz_bytes *in)
{
    braille_open(&braille_one, &braille_display, NULL, 0);
    braille_one.size = fuzz_byte(in);
    while (in->size && braille_one.heard_len < BRAILLE_LONG / 2) braille_does_something(&braille_one, in);
    braille_give_room(&braille_one, BRAILLE_LONG / 2);
    braille_settle(&braille_one);
    braille_check_heard(&braille_one);
    braille_close(&braille_one);
}

/* In one piece, and in two with a turn of the loop between them. No more than the queue of answers holds. */
static void braille_cut(fuzz_bytes *in)
{
    size_t at, len;
    int    size = fuzz_byte(in) % 8;
    at = fuzz_byte(in);
    len = in->size < 28 ? in->size : 28;
    at = len ? at % len : 0;
    braille_open(&braille_one, &braille_display, NULL, BRAILLE_LONG);
    braille_open(&braille_two, &braille_display, NULL, BRAILLE_LONG);
    braille_one.size = braille_two.size = size;
    braille_writes(&braille_one, in->data, len);
    braille_writes(&braille_two, in->data, at);
    braille_settle(&braille_two);
    braille_writes(&braille_two, in->data + at, len - at);
    braille_settle(&braille_one);
    braille_settle(&braille_two);
    braille_check_heard(&braille_one);
    FUZZ_CHECK(braille_one.heard_len == braille_two.heard_len && memcmp(braille_one.heard, braille_two.heard, braille_one.heard_len) == 0);
    FUZZ_CHECK(braille_one.count == braille_two.count && braille_one.cursor == braille_two.cursor);
    FUZZ_CHECK(memcmp(braille_one.cells, braille_two.cells, sizeof braille_one.cells) == 0);
    braille_close(&braille_one);
    braille_close(&braille_two);
}

#if CHARDEV_HAS_BRLAPI
/* Its attempt to connect has failed; the connection is put into its hands. */
static void braille_server(fuzz_bytes *in)
{
    uint8_t      sink[4096];
    int          ends[2];
    size_t       len;
    chr__brlapi *host;
    braille_open(&braille_one, NULL, "127.0.0.1:61433", BRAILLE_LONG);
    host = (chr__brlapi *)((chr__braille *)braille_one.dev)->brlapi;
    chr__brlapi_disconnect(host);
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0 && chr__os_adopt(ends[0]) >= 0 && chr__os_adopt(ends[1]) >= 0);
    host->fd = ends[0];
    chr__brlapi_connected(host);
    while (in->size && host->fd >= 0) {
        len = fuzz_byte(in) % 64u;
        len = len < in->size ? len : in->size;
        if (send(ends[1], in->data, len, MSG_NOSIGNAL) != (ssize_t)len) break;
        in->data += len;
        in->size -= len;
        braille_settle(&braille_one);
        if (recv(ends[1], sink, sizeof sink, MSG_DONTWAIT) > 0) braille_settle(&braille_one);
        braille_writes(&braille_one, (const uint8_t *)"\033\001abc\033\204", 7);
        if (braille_one.heard_len > BRAILLE_LONG / 2) break;
        braille_settle(&braille_one);
    }
    braille_check_heard(&braille_one);
    close(ends[1]);
    braille_close(&braille_one);
}
#endif

int FUZZ_TARGET(const uint8_t *data, size_t size)
{
    fuzz_bytes in;
    uint8_t    what;
    in.data = data;
    in.size = size;
    fuzz_live = 0;
    braille_now = 1000000000;
    what = fuzz_byte(&in);
#if CHARDEV_HAS_BRLAPI
    if (what & 1) braille_server(&in);
    else
#endif
    if (what & 2) braille_cut(&in);
    else braille_guest(&in);
    FUZZ_CHECK(fuzz_live == 0);
    return 0;
}
