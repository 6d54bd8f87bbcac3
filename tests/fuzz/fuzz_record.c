/*
 * An arbitrary recording, and a guest that runs against it. Checksums are corrected first (unless the first byte is
 * odd), else no input would pass that check. An accepted recording must play to its end: alternating events, no more
 * input than there is room for, no byte that is not in the file.
 */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { TAPE_MOST = 1 << 16, TAPE_HEAD = 24, TAPE_RECORD = 28, TAPE_DEVICES = 3 };

static int64_t tape_now;

static int64_t tape_clock(void *opaque)
{
    (void)opaque;
    return tape_now;
}

static uint32_t tape_length(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void tape_mend(uint8_t *p, size_t size)
{
    uint32_t crc = 0xffffffffu;
    size_t   i;
    int      bit;
    for (i = 0; i < size; i++) {
        if (i >= 4 && i < 8) continue;
        crc ^= p[i];
        for (bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
    }
    for (i = 0; i < 4; i++) p[4 + i] = (uint8_t)(~crc >> (8 * i));
}

static void tape_mend_all(uint8_t *data, size_t size)
{
    size_t at = TAPE_HEAD, length;
    while (size >= TAPE_RECORD && at <= size - TAPE_RECORD) {
        length = tape_length(data + at);
        if (length > size - at - TAPE_RECORD) return;
        tape_mend(data + at, TAPE_RECORD + length);
        at += TAPE_RECORD + length;
    }
}

/* ---- the guest --------------------------------------------------------------------------------------------------- */

typedef struct tape_guest {
    chr_context *ctx;
    chr_frontend fe;
    int          room, open, step;
    char         id[2];
} tape_guest;

static int tape_can_read(void *opaque) { return ((tape_guest *)opaque)->room; }

static void tape_read(void *opaque, const void *buf, size_t len)
{
    tape_guest *guest = (tape_guest *)opaque;
    FUZZ_CHECK(len > 0 && len <= (size_t)guest->room);
    FUZZ_CHECK(buf != NULL);
    guest->room -= (int)len;
    if (guest->room == 0 && guest->step % 3 == 0) guest->room = 7;
    chr_fe_write(&guest->fe, buf, len);
}

static void tape_event(void *opaque, int event)
{
    tape_guest *guest = (tape_guest *)opaque;
    if (event == CHR_EVENT_OPENED) FUZZ_CHECK(!guest->open);
    if (event == CHR_EVENT_CLOSED) FUZZ_CHECK(guest->open);
    if (event == CHR_EVENT_OPENED || event == CHR_EVENT_CLOSED) guest->open = event == CHR_EVENT_OPENED;
}

static void tape_writable(void *opaque) { ((tape_guest *)opaque)->step++; }

static void tape_attach(tape_guest *guest, chr_context *ctx, int number)
{
    static const chr_handlers handlers = { tape_can_read, tape_read, tape_event, NULL };
    char                      options[] = "null,id=a";
    chr_dev                  *dev;
    memset(guest, 0, sizeof *guest);
    guest->ctx = ctx;
    guest->room = 5;
    options[sizeof options - 2] = (char)('a' + number);
    dev = chr_new(ctx, options, NULL);
    if (!dev) return;
    FUZZ_CHECK(chr_fe_init(&guest->fe, dev, NULL) == 0);
    chr_fe_set_handlers(&guest->fe, &handlers, guest);
}

/* Some of everything that a recording answers. */
static void tape_act(tape_guest *guest)
{
    chr_serial_params params = { 9600, 'N', 8, 1 };
    chr_terminal_size size = { 80, 24 };
    chr_parallel_epp  epp;
    unsigned char     cycles[5];
    char              buf[40];
    int               lines = 0, n;
    if (!guest->fe.dev) return;
    epp.buf = cycles;
    epp.count = (int)sizeof cycles;
    guest->room += 3;
    chr_fe_accept_input(&guest->fe);
    switch (guest->step++ % 9) {
    case 0: n = chr_fe_write(&guest->fe, "abc", 3); FUZZ_CHECK(n <= 3); break;
    case 1: n = chr_fe_write_all(&guest->fe, "abcdef", 6, 0); FUZZ_CHECK(n <= 6); break;
    case 2: n = chr_fe_read_all(&guest->fe, buf, sizeof buf, 0); FUZZ_CHECK(n <= (int)sizeof buf); break;
    case 3: chr_fe_ioctl(&guest->fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params); break;
    case 4:
        chr_fe_ioctl(&guest->fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines);
        chr_fe_ioctl(&guest->fe, CHR_IOCTL_SERIAL_GET_ERRORS, &lines);
        chr_fe_ioctl(&guest->fe, CHR_IOCTL_SET_TERMINAL_SIZE, &size);
        break;
    case 5: chr_fe_ioctl(&guest->fe, CHR_IOCTL_PP_EPP_READ, &epp); break;
    case 6: chr_fe_add_watch(&guest->fe, tape_writable, guest); break;
    case 7: chr_fe_disconnect(&guest->fe); break;
    default: chr_fe_wait_connected(&guest->fe, NULL); break;
    }
}

static void tape_play(chr_context *ctx)
{
    static tape_guest guests[TAPE_DEVICES];
    int               i, step;
    for (i = 0; i < TAPE_DEVICES; i++) tape_attach(&guests[i], ctx, i);
    for (step = 0; step < 60; step++) {
        for (i = 0; i < TAPE_DEVICES; i++) tape_act(&guests[i]);
        chr_loop_step(ctx, 0);
        if (chr_loop_deadline(ctx) > tape_now && chr_loop_deadline(ctx) != INT64_MAX) tape_now = chr_loop_deadline(ctx);
        if (step == 50) chr_replay_close(ctx);
    }
    for (i = 0; i < TAPE_DEVICES; i++) chr_fe_deinit(&guests[i].fe);
}

int FUZZ_TARGET(const uint8_t *data, size_t size)
{
    static uint8_t tape[TAPE_MOST];
    char           path[] = "/tmp/chardev-fuzz-XXXXXX";
    chr_config     config;
    chr_context   *ctx;
    chr_error      err;
    int            code, fd;

    if (size < 1 || size > TAPE_MOST) return 0;
    memcpy(tape, data + 1, size - 1);
    if (!(data[0] & 1)) tape_mend_all(tape, size - 1);
    fd = mkstemp(path);
    FUZZ_CHECK(fd >= 0 && write(fd, tape, size - 1) == (ssize_t)(size - 1));
    close(fd);
    memset(&config, 0, sizeof config);
    config.allocate = fuzz_allocate;
    config.clock = tape_clock;
    fuzz_live = 0;
    tape_now = 1000;
    ctx = chr_context_new(&config);
    FUZZ_CHECK(ctx != NULL);
    code = chr_replay_open(ctx, path, &err);
    unlink(path);
    if (code < 0) fuzz_check_error(ctx, &err);
    else tape_play(ctx);
    fuzz_end(ctx);
    return 0;
}
