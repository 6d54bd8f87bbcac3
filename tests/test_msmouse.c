/* msmouse: what a driver, written from the description of the protocol, decodes; power, identification, full queues. */
#include "chardev.h"
#define RIG_WITHOUT_SOCKETS
#include "rig.h"
#include "hosted.h"

static int set_lines(recorder *rec, int lines)
{
    return chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines);
}

/* With power, and the introduction read and forgotten. */
static chr_dev *start(rig *r, recorder *rec)
{
    chr_dev *dev;
    rig_open_virtual(r);
    dev = make(r, "msmouse,id=m");
    attach(rec, dev);
    CHECK_INT(set_lines(rec, CHR_TIOCM_DTR | CHR_TIOCM_RTS), 0);
    settle(r);
    CHECK(rec->length > 0);
    forget_input(rec);
    return dev;
}

/* ---- the driver: bit 6 begins a packet; a byte after the third that doesn't is the middle button ---- */

typedef struct driver {
    int x, y, left, middle, right, packets, fourths;
} driver;

static int signed_byte(int value)
{
    return value & 0x80 ? value - 256 : value;
}

static void decode(driver *d, const char *input, size_t length)
{
    const unsigned char *bytes = (const unsigned char *)input;
    size_t               i = 0;
    while (i + 3 <= length) {
        if (!CHECK(bytes[i] & 0x40) || !CHECK(!(bytes[i] & 0x80)) || !CHECK(bytes[i + 1] < 0x40) || !CHECK(bytes[i + 2] < 0x40)) return;
        d->left = bytes[i] >> 5 & 1;
        d->right = bytes[i] >> 4 & 1;
        d->x += signed_byte((bytes[i] & 3) << 6 | bytes[i + 1]);
        d->y += signed_byte((bytes[i] >> 2 & 3) << 6 | bytes[i + 2]);
        d->packets++;
        i += 3;
        if (i < length && !(bytes[i] & 0x40)) {
            CHECK((bytes[i] & ~0x20) == 0);
            d->middle = bytes[i] >> 5 & 1;
            d->fourths++;
            i++;
        }
    }
    CHECK_INT(i, length);
}

TEST(every_small_movement)
{
    int      dx, dy;
    recorder rec;
    rig      r;
    chr_dev *dev = start(&r, &rec);
    for (dx = -127; dx <= 127; dx += 3)
        for (dy = -127; dy <= 127; dy += 2) {
            driver d = { 0, 0, 0, 0, 0, 0, 0 };
            CHECK_INT(chr_input_rel(dev, dx, dy), 0);
            CHECK_INT(chr_input_sync(dev), 0);
            settle(&r);
            decode(&d, rec.input, rec.length);
            if (!CHECK_INT(d.x, dx) || !CHECK_INT(d.y, dy) || !CHECK_INT(d.packets, dx || dy)) NOTE("for %d, %d", dx, dy);
            forget_input(&rec);
        }
    detach(&rec);
    rig_close(&r);
}

/* What changes nothing is not an error, and no packet either; without power all of it is refused. */
TEST(what_changes_nothing)
{
    static const int buttons[] = { CHR_BUTTON_LEFT, CHR_BUTTON_MIDDLE, CHR_BUTTON_RIGHT };
    size_t           i;
    recorder         rec;
    rig              r;
    chr_dev         *dev = start(&r, &rec);
    for (i = 0; i < 3; i++) {
        CHECK_INT(chr_input_button(dev, buttons[i], 0), 0);
        CHECK_INT(chr_input_sync(dev), 0);
        settle(&r);
        CHECK_INT(rec.length, 0);
        CHECK_INT(chr_input_button(dev, buttons[i], 1), 0);
        CHECK_INT(chr_input_sync(dev), 0);
        settle(&r);
        CHECK_INT(rec.length, i == 0 ? 3 : 4); /* the middle one is down from its turn on */
        forget_input(&rec);
        CHECK_INT(chr_input_button(dev, buttons[i], 7), 0); /* as down as before */
        CHECK_INT(chr_input_sync(dev), 0);
        settle(&r);
        CHECK_INT(rec.length, 0);
    }
    CHECK_INT(chr_input_rel(dev, 0, 0), 0);
    CHECK_INT(chr_input_sync(dev), 0);
    settle(&r);
    CHECK_INT(rec.length, 0);
    CHECK_INT(set_lines(&rec, 0), 0);
    CHECK_INT(chr_input_rel(dev, 0, 0), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_input_button(dev, CHR_BUTTON_LEFT, 0), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_input_sync(dev), CHR_ERR_DISCONNECTED);
    detach(&rec);
    rig_close(&r);
}

TEST(the_exact_bytes)
{
    recorder rec;
    rig      r;
    chr_dev *dev = start(&r, &rec);
    chr_input_button(dev, CHR_BUTTON_LEFT, 1);
    chr_input_rel(dev, 5, -1);
    chr_input_sync(dev);
    chr_input_button(dev, CHR_BUTTON_LEFT, 0);
    chr_input_button(dev, CHR_BUTTON_MIDDLE, 1);
    chr_input_sync(dev);
    chr_input_button(dev, CHR_BUTTON_MIDDLE, 0);
    chr_input_button(dev, CHR_BUTTON_RIGHT, 1);
    chr_input_sync(dev);
    chr_input_rel(dev, 64, 0);
    chr_input_sync(dev);
    chr_input_sync(dev); /* nothing new */
    settle(&r);
    CHECK_MEM(rec.input, rec.length, "\x6c\x05\x3f" "\x40\x00\x00\x20" "\x50\x00\x00\x00" "\x51\x00\x00", 14);
    detach(&rec);
    rig_close(&r);
}

TEST(long_ways_are_sent_in_steps)
{
    static const int table[][2] = { { 128, 0 }, { -128, 5 }, { 1000, -1000 }, { -3, 700 }, { 127, -127 } };
    size_t           i;
    recorder         rec;
    rig              r;
    chr_dev         *dev = start(&r, &rec);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        driver d = { 0, 0, 0, 0, 0, 0, 0 };
        chr_input_rel(dev, table[i][0], table[i][1]);
        CHECK_INT(chr_input_sync(dev), 0);
        settle(&r);
        decode(&d, rec.input, rec.length);
        CHECK_INT(d.x, table[i][0]);
        CHECK_INT(d.y, table[i][1]);
        forget_input(&rec);
    }
    detach(&rec);
    rig_close(&r);
}

TEST(the_way_is_collected_until_sync)
{
    driver   d = { 0, 0, 0, 0, 0, 0, 0 };
    recorder rec;
    rig      r;
    chr_dev *dev = start(&r, &rec);
    chr_input_rel(dev, 3, 4);
    chr_input_rel(dev, 10, -20);
    settle(&r);
    CHECK_INT(rec.length, 0);
    chr_input_sync(dev);
    settle(&r);
    decode(&d, rec.input, rec.length);
    CHECK_INT(d.packets, 1);
    CHECK_INT(d.x, 13);
    CHECK_INT(d.y, -16);
    detach(&rec);
    rig_close(&r);
}

/* Begin, version, three letters, four digits, four fields, checksum, end; each character less 0x20. */
TEST(plug_and_play_id)
{
    char     text[128];
    unsigned sum = 0;
    size_t   i, len;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "msmouse,id=m"));
    settle(&r);
    CHECK_INT(rec.length, 0);
    CHECK_INT(set_lines(&rec, CHR_TIOCM_RTS), 0);
    settle(&r);
    REQUIRE(rec.length > 16 && rec.length < sizeof text);
    CHECK_MEM(rec.input, 2, "M3", 2);
    len = rec.length - 2;
    for (i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)rec.input[2 + i];
        CHECK(byte < 0x40); /* six bits */
        text[i] = (char)(byte + 0x20);
        if (i < len - 3 || i == len - 1) sum += byte;
    }
    text[len] = 0;
    CHECK_INT(text[0], '(');
    CHECK_INT((rec.input[3] << 6) + rec.input[4], 100); /* version 1.00 */
    for (i = 3; i < 6; i++) CHECK(text[i] >= 'A' && text[i] <= 'Z');
    for (i = 6; i < 10; i++) CHECK(strchr("0123456789ABCDEF", text[i]) != NULL);
    CHECK_HAS(text + 10, "\\\\MOUSE\\PNP0F08\\");
    CHECK_INT(text[len - 1], ')');
    text[len - 1] = 0;
    CHECK_INT(strtoul(text + len - 3, NULL, 16), sum & 0xff);
    detach(&rec);
    rig_close(&r);
}

TEST(power)
{
    int      lines = -1;
    chr_info info;
    recorder rec;
    rig      r;
    chr_dev *dev;
    rig_open_virtual(&r);
    attach(&rec, dev = make(&r, "msmouse,id=m"));
    CHECK_INT(chr_input_rel(dev, 1, 1), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_input_button(dev, CHR_BUTTON_LEFT, 1), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_input_sync(dev), CHR_ERR_DISCONNECTED);
    settle(&r);
    CHECK_STR(rec.events, "");
    CHECK_INT(rec.length, 0);

    CHECK_INT(set_lines(&rec, CHR_TIOCM_DTR), 0);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines), 0);
    CHECK_INT(lines, CHR_TIOCM_DTR);
    CHECK_STR(rec.events, ""); /* from the loop */
    settle(&r);
    CHECK_STR(rec.events, "O");
    forget_input(&rec);
    CHECK_INT(set_lines(&rec, CHR_TIOCM_RTS | CHR_TIOCM_DTR), 0); /* it had power: nothing new */
    settle(&r);
    CHECK_INT(rec.length, 0);

    rec.room = 0;
    chr_input_button(dev, CHR_BUTTON_MIDDLE, 1);
    chr_input_rel(dev, 9, 9);
    CHECK_INT(chr_input_sync(dev), 0);
    chr_input_rel(dev, 9, 9);
    CHECK_INT(set_lines(&rec, 0), 0); /* what waits is forgotten */
    settle(&r);
    CHECK_STR(rec.events, "OC");
    CHECK_INT(set_lines(&rec, CHR_TIOCM_DTR), 0);
    give_room(&rec, UNLIMITED);
    settle(&r);
    CHECK_STR(rec.events, "OCO");
    CHECK_MEM(rec.input, 2, "M3", 2);
    forget_input(&rec);
    chr_input_rel(dev, 1, 0);
    chr_input_sync(dev);
    settle(&r);
    CHECK_MEM(rec.input, rec.length, "\x40\x01\x00", 3); /* no button, no old way */
    chr_query(dev, &info);
    CHECK_STR(info.filename, "msmouse");
    CHECK_INT(info.comes_back, 1);
    detach(&rec);
    rig_close(&r);
}

TEST(full_queue)
{
    driver   d = { 0, 0, 0, 0, 0, 0, 0 };
    chr_info info;
    int      i, kept = 0;
    recorder rec;
    rig      r;
    chr_dev *dev = start(&r, &rec);
    rec.room = 0;
    for (i = 0; i < 1000; i++) {
        chr_input_rel(dev, 1, 2);
        kept += chr_input_sync(dev) == 0;
    }
    CHECK(kept > 10 && kept < 1000);
    chr_query(dev, &info);
    CHECK_INT(info.bytes_dropped, (1000 - kept) * 3);
    chr_input_rel(dev, 2000000000, -2000000000); /* no endless loop */
    chr_input_button(dev, CHR_BUTTON_MIDDLE, 1);
    CHECK_INT(chr_input_sync(dev), CHR_ERR_WOULD_BLOCK);
    give_room(&rec, UNLIMITED);
    settle(&r);
    decode(&d, rec.input, rec.length);
    CHECK_INT(d.packets, kept);
    CHECK_INT(d.x, kept);
    CHECK_INT(d.y, 2 * kept);
    CHECK_INT(d.middle, 0);
    CHECK_INT(chr_input_sync(dev), 0); /* the button was not told: it is now */
    forget_input(&rec);
    settle(&r);
    CHECK_MEM(rec.input, rec.length, "\x40\x00\x00\x20", 4);
    rec.room = 0; /* and so it is with letting go */
    do
        chr_input_rel(dev, 1, 0);
    while (chr_input_sync(dev) == 0);
    chr_input_button(dev, CHR_BUTTON_MIDDLE, 0);
    CHECK_INT(chr_input_sync(dev), CHR_ERR_WOULD_BLOCK);
    give_room(&rec, UNLIMITED);
    settle(&r);
    forget_input(&rec);
    chr_input_rel(dev, 3, 0);
    CHECK_INT(chr_input_sync(dev), 0);
    settle(&r);
    CHECK_MEM(rec.input, rec.length, "\x40\x03\x00\x00", 4);
    detach(&rec);
    rig_close(&r);
}

/* The queue holds what fits just so: packets of three bytes and then one of four, or the other way round. */
TEST(the_queue_is_filled_to_its_last_byte)
{
    chr_info info;
    int      fourths, size = 0, i;
    for (fourths = 0; fourths < 6; fourths++) {
        int      kept = 0;
        recorder rec;
        rig      r;
        chr_dev *dev = start(&r, &rec);
        rec.room = 0;
        for (i = 0; i < fourths; i++) {
            chr_input_button(dev, CHR_BUTTON_MIDDLE, i % 2 == 0);
            CHECK_INT(chr_input_sync(dev), 0);
        }
        chr_input_button(dev, CHR_BUTTON_MIDDLE, 0);
        chr_input_sync(dev);
        kept = fourths * 4 + fourths % 2 * 4;
        do
            chr_input_rel(dev, 1, 0);
        while (chr_input_sync(dev) == 0 && (kept += 3) < 100000);
        chr_query(dev, &info);
        CHECK_INT(info.bytes_dropped, 3);
        give_room(&rec, UNLIMITED);
        settle(&r);
        CHECK_INT(rec.length, kept);
        if (kept > size) size = kept;
        CHECK(size - kept < 3); /* no packet of three bytes fitted into what was left */
        detach(&rec);
        rig_close(&r);
    }
    CHECK_INT(size, 256);
}

TEST(room_for_single_bytes)
{
    driver   d = { 0, 0, 0, 0, 0, 0, 0 };
    int      i;
    recorder rec;
    rig      r;
    chr_dev *dev = start(&r, &rec);
    rec.room = 0;
    for (i = 0; i < 20; i++) {
        chr_input_rel(dev, i, -i);
        chr_input_button(dev, i % 3, i / 3 % 2);
        CHECK_INT(chr_input_sync(dev), 0);
    }
    for (i = 0; i < 100; i++) {
        give_room(&rec, 1);
        settle(&r);
    }
    decode(&d, rec.input, rec.length);
    CHECK_INT(d.x, 190);
    CHECK_INT(d.y, -190);
    detach(&rec);
    rig_close(&r);
}

TEST(what_it_does_not_do)
{
    chr_serial_params params = { 1200, 'N', 7, 1 };
    recorder          rec;
    rig               r;
    chr_dev          *dev = start(&r, &rec), *null = make(&r, "null,id=n");
    CHECK_INT(chr_input_abs(dev, 1, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_input_button(dev, 3, 1), CHR_ERR_INVALID);
    CHECK_INT(chr_input_button(dev, -1, 1), CHR_ERR_INVALID);
    CHECK_INT(chr_input_rel(null, 1, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_input_abs(null, 1, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_input_button(null, 0, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_input_sync(null), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_write(&rec.fe, "hello", 5), 5); /* it doesn't listen */
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    settle(&r);
    CHECK_INT(rec.writable, 1);
    CHECK_INT(rec.length, 0);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    detach(&rec);
    rig_close(&r);
}

/* Room that is not reported is found by the loop, for a single byte too; without queued packets can_read is not
 * called. */
TEST(room_that_comes_without_a_word)
{
    int      room, i;
    recorder rec;
    rig      r;
    chr_dev *dev = start(&r, &rec);
    for (room = 0; room < 3; room++) {
        rec.room = room;
        chr_input_rel(dev, 1, 0);
        CHECK_INT(chr_input_sync(dev), 0);
        settle(&r);
        CHECK_INT(rec.length, room);
        rec.room = UNLIMITED;
        chr_loop_step(r.ctx, 0);
        settle(&r);
        CHECK_MEM(rec.input, rec.length, "\x40\x01\x00", 3);
        forget_input(&rec);
    }
    detach(&rec);
    rig_close(&r);
    rig_open_hosted(&r);
    dev = make(&r, "msmouse,id=m");
    attach(&rec, dev);
    CHECK_INT(set_lines(&rec, CHR_TIOCM_DTR), 0);
    host_turns(&r, 5);
    give_room(&rec, 0);
    host_turns(&r, 5);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    chr_input_rel(dev, 1, 0);
    CHECK_INT(chr_input_sync(dev), 0);
    host_turns(&r, 5);
    CHECK(chr_loop_timeout(r.ctx) > 0);
    forget_input(&rec);
    rec.room = 2;
    for (i = 0; i < 3000 && rec.length < 2; i++) usleep(1000), host_turn(&r); /* by real time */
    CHECK_INT(rec.length, 2);
    CHECK(chr_loop_timeout(r.ctx) > 0); /* the third byte */
    rec.room = 1;
    for (i = 0; i < 3000 && rec.length < 3; i++) usleep(1000), host_turn(&r);
    host_turns(&r, 5);
    CHECK_MEM(rec.input, rec.length, "\x40\x01\x00", 3);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    detach(&rec);
    rig_close(&r);
}

/* The event handler removes the mouse. */
static void remove_it(recorder *rec, int what)
{
    chr_context *ctx = (chr_context *)rec->user;
    if (what != 'r') return;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(ctx, "m", NULL), 0);
}

TEST(removed_while_it_speaks)
{
    recorder rec;
    rig      r;
    chr_dev *dev = start(&r, &rec);
    rec.then = remove_it;
    rec.user = r.ctx;
    chr_input_rel(dev, 1000, 0);
    CHECK_INT(chr_input_sync(dev), 0);
    settle(&r);
    CHECK(chr_find(r.ctx, "m") == NULL);
    free(rec.input);
    rig_close(&r);
}
