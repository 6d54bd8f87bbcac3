/*
 * testdev, msmouse and wctablet: a guest with arbitrary output, which changes its line and reads at any time, and
 * arbitrary movements. The guest receives whole answers and packets of the protocol, never more than it has room for.
 */
#include "fuzz.h"

enum { EMU_TESTDEV, EMU_MOUSE, EMU_TABLET, EMU_COUNT, EMU_LONG = 1 << 16 };

typedef struct emu_guest {
    chr_frontend fe;
    chr_dev     *dev;
    int          room;
    uint8_t      got[EMU_LONG]; /* not yet understood */
    size_t       len;
} emu_guest;

static emu_guest    emu[EMU_COUNT];
static chr_context *emu_ctx;
static int          emu_speed, emu_lines, emu_introduced; /* M3 and the id have come since the last power-on */

static int emu_can_read(void *opaque)
{
    return ((emu_guest *)opaque)->room;
}

static void emu_read(void *opaque, const void *buf, size_t len)
{
    emu_guest *guest = (emu_guest *)opaque;
    FUZZ_CHECK(len > 0 && len <= (size_t)guest->room && guest->len + len <= EMU_LONG);
    memcpy(guest->got + guest->len, buf, len);
    guest->room -= (int)len;
    guest->len += len;
}

static const chr_handlers emu_handlers = { emu_can_read, emu_read, NULL, NULL };

static void emu_settle(void)
{
    int i;
    for (i = 0; i < 100 && chr_loop_step(emu_ctx, 0) > 0; i++) {}
    FUZZ_CHECK(i < 100);
}

/* ---- what the guest understands: the length of the answer that begins here, 0 = not yet all there ---------------- */

static size_t emu_text(const emu_guest *guest, const char *text, size_t len)
{
    size_t have = guest->len < len ? guest->len : len;
    if (memcmp(guest->got, text, have) != 0) return 0;
    return len;
}

static size_t emu_tablet_answer(const emu_guest *guest)
{
    static const char block[] = "\\96,N,8,1(\x01\x24WAC0045\\\\PEN\\WAC0000\\Tablet\r\nCT-0045R,V1.3-5\r\nE7)";
    size_t            len;
    switch (guest->got[0]) {
    case '\\': len = emu_text(guest, block, 61); break;
    case '9': len = emu_text(guest, "96,N,8,0", 8); break;
    case '~': len = guest->len > 1 && guest->got[1] == 'C' ? emu_text(guest, "~C05036,03774\r", 14) : emu_text(guest, "~#CT-0045R,V1.3-5,", 18); break;
    case 0xa3: len = guest->len < 2 || (guest->got[1] & 0xfe) == 0x7e ? 7 : 0; break;
    default: len = (guest->got[0] & 0xbf) == 0xa0 ? 7 : 0; break;
    }
    FUZZ_CHECK(len > 0);
    return len;
}

static size_t emu_mouse_answer(const emu_guest *guest)
{
    size_t i;
    FUZZ_CHECK(guest->got[0] < 0x80);
    if (!emu_introduced) { /* M3, and the id up to its end */
        FUZZ_CHECK(emu_text(guest, "M3\x08", 3) == 3);
        for (i = 2; i < guest->len && guest->got[i] != ')' - 0x20; i++) FUZZ_CHECK(guest->got[i] < 0x40);
        emu_introduced = i < guest->len;
        return i + 1;
    }
    FUZZ_CHECK((guest->got[0] & 0x40) || (guest->got[0] & ~0x20) == 0); /* a packet, or the fourth byte of the last one */
    for (i = 1; i < 3 && i < guest->len && (guest->got[0] & 0x40); i++) FUZZ_CHECK(guest->got[i] < 0x40);
    return guest->got[0] & 0x40 ? 3 : 1;
}

static void emu_understand(int which)
{
    emu_guest *guest = &emu[which];
    FUZZ_CHECK(which != EMU_TESTDEV || guest->len == 0);
    while (guest->len > 0) {
        size_t len = which == EMU_MOUSE ? emu_mouse_answer(guest) : emu_tablet_answer(guest);
        if (len > guest->len) return;
        memmove(guest->got, guest->got + len, guest->len - len);
        guest->len -= len;
    }
}

/* ---- what can be done -------------------------------------------------------------------------------------------- */

static void emu_write(emu_guest *guest, fuzz_bytes *in, size_t len)
{
    int before = fuzz_exits;
    if (len > in->size) len = in->size;
    if (len == 0) return;
    FUZZ_CHECK(chr_fe_write(&guest->fe, in->data, len) == (int)len);
    FUZZ_CHECK(fuzz_exits == before);
    emu_settle();
    if (guest == &emu[EMU_TESTDEV]) FUZZ_CHECK(fuzz_exits - before == (memchr(in->data, 'q', len) != NULL));
    in->data += len;
    in->size -= len;
}

static void emu_give(int which, int room)
{
    emu[which].room = room;
    chr_fe_accept_input(&emu[which].fe);
    emu_settle();
    emu_understand(which);
}

/* What was on its way is cut off. */
static void emu_line(uint8_t how)
{
    chr_serial_params params = { 9600, 'N', 8, 1 };
    int               lines = how & 6;
    emu_settle();
    emu_understand(EMU_MOUSE);
    emu_understand(EMU_TABLET);
    if (how & 8) params.speed = 1200;
    if (params.speed != emu_speed) emu[EMU_TABLET].len = 0;
    emu_speed = params.speed;
    if ((lines != 0) != (emu_lines != 0)) emu[EMU_MOUSE].len = (size_t)(emu_introduced = 0);
    emu_lines = lines;
    FUZZ_CHECK(chr_fe_ioctl(&emu[EMU_TABLET].fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params) == 0);
    FUZZ_CHECK(chr_fe_ioctl(&emu[EMU_MOUSE].fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines) == 0);
}

static void emu_move(fuzz_bytes *in)
{
    int x = (int8_t)fuzz_byte(in) * (1 + fuzz_byte(in)), y = (int8_t)fuzz_byte(in) * 77, button = fuzz_byte(in) % 4, i;
    for (i = EMU_TESTDEV; i < EMU_COUNT; i++) {
        chr_input_rel(emu[i].dev, x, y);
        chr_input_abs(emu[i].dev, x, y);
        chr_input_button(emu[i].dev, button, x & 1);
        chr_input_sync(emu[i].dev);
    }
}

static void emu_one(fuzz_bytes *in)
{
    uint8_t op = fuzz_byte(in);
    int     which = (op >> 3) % EMU_COUNT;
    switch (op & 7) {
    case 0: emu_give(which, fuzz_byte(in)); break;
    case 1: emu_line(fuzz_byte(in)); break;
    case 2:
    case 3: emu_move(in); break;
    default: emu_write(&emu[which], in, fuzz_byte(in) % 64); break;
    }
}

int FUZZ_TARGET(const uint8_t *data, size_t size)
{
    static const char *const options[EMU_COUNT] = { "testdev,id=t", "msmouse,id=m", "wctablet,id=w" };
    fuzz_bytes               in;
    int                      i;
    in.data = data;
    in.size = size;
    emu_ctx = fuzz_context(data, size);
    emu_speed = 9600;
    emu_lines = emu_introduced = 0;
    for (i = 0; i < EMU_COUNT; i++) {
        emu[i].room = 0;
        emu[i].len = 0;
        emu[i].dev = chr_new(emu_ctx, options[i], NULL);
        FUZZ_CHECK(chr_fe_init(&emu[i].fe, emu[i].dev, NULL) == 0);
        chr_fe_set_handlers(&emu[i].fe, &emu_handlers, &emu[i]);
    }
    while (in.size) emu_one(&in);
    for (i = 0; i < EMU_COUNT; i++) emu_give(i, EMU_LONG / 2);
    for (i = 0; i < EMU_COUNT; i++) FUZZ_CHECK(emu[i].len == 0);
    fuzz_end(emu_ctx);
    return 0;
}
