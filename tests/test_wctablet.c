/* wctablet: requests of the guest and their answers, positions as a driver decodes them, speeds, floods. */
#include "chardev.h"
#define RIG_WITHOUT_SOCKETS
#include "rig.h"

#define BLOCK "\\96,N,8,1(\x01\x24WAC0045\\\\PEN\\WAC0000\\Tablet\r\nCT-0045R,V1.3-5\r\nE7)"

static chr_dev *start(rig *r, recorder *rec)
{
    chr_dev *dev;
    rig_open_virtual(r);
    dev = make(r, "wctablet,id=w");
    attach(rec, dev);
    settle(r);
    CHECK_STR(rec->events, "O");
    CHECK_MEM(rec->input, rec->length, BLOCK, 61);
    forget_input(rec);
    return dev;
}

static void ask(rig *r, recorder *rec, const char *text)
{
    forget_input(rec);
    CHECK_INT(chr_fe_write(&rec->fe, text, strlen(text)), strlen(text));
    settle(r);
}

static int set_speed(recorder *rec, int speed)
{
    chr_serial_params params = { 0, 'N', 8, 1 };
    params.speed = speed;
    return chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params);
}

#define MODEL "~#CT-0045R,V1.3-5,"

/* The speed that the line has already resets nothing: not the line that has begun, nor that it is started, nor what
 * waits. */
TEST(the_same_speed_again)
{
    recorder rec;
    rig      r;
    chr_dev *dev = start(&r, &rec);
    ask(&r, &rec, "ST\r");
    CHECK_INT(rec.length, 7);
    ask(&r, &rec, "R");
    CHECK_INT(set_speed(&rec, 9600), 0);
    ask(&r, &rec, "E\r");
    CHECK_INPUT(&rec, "96,N,8,0");
    CHECK_INT(chr_input_abs(dev, 1, 1), 0);
    CHECK_INT(chr_input_sync(dev), 0); /* it is started still */
    rec.room = 0;
    ask(&r, &rec, "RE\r");
    CHECK_INT(set_speed(&rec, 9600), 0);
    give_room(&rec, UNLIMITED);
    settle(&r);
    CHECK(rec.length >= 8 && memcmp(rec.input + rec.length - 8, "96,N,8,0", 8) == 0);
    detach(&rec);
    rig_close(&r);
}

TEST(questions_and_answers)
{
    static const struct { const char *ask, *answer; size_t len; } table[] = {
        { "~#", MODEL, 18 },
        { "\r@\n@~#", MODEL, 18 },
        { "~#~#", MODEL MODEL, 36 },
        { "RE\r", "96,N,8,0", 8 },
        { "RE\n", "96,N,8,0", 8 },
        { "@@RE\r\nRE\r\n", "96,N,8,0" "96,N,8,0", 16 },
        { "~#\rRE\r", MODEL "96,N,8,0", 26 },
        { "~C\r", "~C05036,03774\r", 14 },
        { "TS \r", "\xa3\x7e\x77\x03\x7f\x7f\x00", 7 },
        { "TSa\r", "\xa3\x7e\x36\x03\x7f\x7f\x00", 7 },
        { "TS\xff\r", "\xa3\x7f\x28\x03\x7f\x7f\x00", 7 },
        { "TSab\r", "", 0 },
        { "TS\r", "", 0 },
        { "REX\r", "", 0 },
        { "R@E\r", "", 0 },
        { "R\r", "", 0 },
        { "hello there\r", "", 0 },
        { "SP\r", "", 0 },
        { "x~#\r", "", 0 },
        { "0123456789012345678901234567890123456789\rRE\r", "96,N,8,0", 8 },
    };
    size_t i, split;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        recorder rec;
        rig      r;
        start(&r, &rec);
        ask(&r, &rec, table[i].ask);
        if (!CHECK_MEM(rec.input, rec.length, table[i].answer, table[i].len)) NOTE("for \"%s\"", table[i].ask);
        chr_fe_write(&rec.fe, "\r", 1); /* ends what may be unfinished */
        settle(&r);
        for (split = 1; split < strlen(table[i].ask); split++) {
            forget_input(&rec);
            chr_fe_write(&rec.fe, table[i].ask, split);
            chr_fe_write(&rec.fe, table[i].ask + split, strlen(table[i].ask) - split);
            chr_fe_write(&rec.fe, "\r", 1);
            settle(&r);
            if (!CHECK_MEM(rec.input, rec.length, table[i].answer, table[i].len))
                NOTE("for \"%s\", split at %d", table[i].ask, (int)split);
        }
        detach(&rec);
        rig_close(&r);
    }
}

TEST(self_test_of_every_byte)
{
    int      n;
    recorder rec;
    rig      r;
    start(&r, &rec);
    for (n = 0; n < 256; n++) {
        char line[4] = { 'T', 'S', 0, '\r' };
        if (n == '\r' || n == '\n') continue;
        line[2] = (char)n;
        forget_input(&rec);
        chr_fe_write(&rec.fe, line, 4);
        settle(&r);
        REQUIRE(rec.length == 7);
        CHECK_INT((unsigned char)rec.input[0], 0xa3);
        CHECK_INT((unsigned char)rec.input[1], n < 128 ? 0x7e : 0x7f);
        CHECK_INT((unsigned char)rec.input[2], ((n / 16 % 8) ^ 5) * 16 + ((n % 16) ^ 7));
        CHECK_MEM(rec.input + 3, 4, "\x03\x7f\x7f\x00", 4);
    }
    detach(&rec);
    rig_close(&r);
}

/* ---- positions: a byte with bit 7 begins a packet of seven ---- */

static void decode(const char *input, size_t length, int *x, int *y, int *down)
{
    const unsigned char *b = (const unsigned char *)input;
    REQUIRE(length == 7);
    CHECK((b[0] & 0xbc) == 0xa0);
    CHECK(!((b[1] | b[2] | b[3] | b[4] | b[5] | b[6]) & 0x80));
    *x = (b[0] & 3) << 14 | b[1] << 7 | b[2];
    *y = (b[3] & 3) << 14 | b[4] << 7 | b[5];
    *down = !(b[0] & 0x40);
    CHECK_INT(b[6], 0);
}

TEST(positions)
{
    int      at, x, y, down;
    recorder rec;
    rig      r;
    chr_dev *dev = start(&r, &rec);
    ask(&r, &rec, "ST\r");
    decode(rec.input, rec.length, &x, &y, &down); /* where the pen is, at once */
    CHECK(x == 0 && y == 0 && !down);
    for (at = 0; at <= 32767; at += 127) {
        forget_input(&rec);
        CHECK_INT(chr_input_abs(dev, at, 32767 - at), 0);
        CHECK_INT(chr_input_button(dev, CHR_BUTTON_LEFT, at & 1), 0);
        CHECK_INT(rec.length, 0);
        CHECK_INT(chr_input_sync(dev), 0);
        settle(&r);
        decode(rec.input, rec.length, &x, &y, &down);
        CHECK_INT(x, at * 1537 / 10000);
        CHECK_INT(y, (32767 - at) * 1152 / 10000);
        CHECK_INT(down, at & 1);
    }
    forget_input(&rec);
    chr_input_abs(dev, -5, 1 << 30); /* beyond the edge is at the edge */
    chr_input_sync(dev);
    settle(&r);
    decode(rec.input, rec.length, &x, &y, &down);
    CHECK(x == 0 && y == 3774);
    forget_input(&rec);
    CHECK_INT(chr_input_sync(dev), 0); /* nothing new */
    settle(&r);
    CHECK_INT(rec.length, 0);
    detach(&rec);
    rig_close(&r);
}

TEST(started_and_stopped)
{
    recorder rec;
    rig      r;
    chr_dev *dev = start(&r, &rec);
    chr_input_abs(dev, 100, 100);
    CHECK_INT(chr_input_sync(dev), CHR_ERR_DISCONNECTED);
    ask(&r, &rec, "ST\n");
    CHECK_MEM(rec.input, rec.length, "\xe0\x00\x0f\x00\x00\x0b\x00", 7);
    ask(&r, &rec, "SP\r");
    CHECK_INT(chr_input_sync(dev), CHR_ERR_DISCONNECTED);
    CHECK_INT(rec.length, 0);
    CHECK_INT(chr_input_rel(dev, 1, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_input_button(dev, CHR_BUTTON_RIGHT, 1), CHR_ERR_NOT_SUPPORTED);
    detach(&rec);
    rig_close(&r);
}

/* The pen's tip alone is a change: pressed, pressed again, lifted. */
TEST(the_pen_is_pressed)
{
    int      down;
    recorder rec;
    rig      r;
    chr_dev *dev = start(&r, &rec);
    ask(&r, &rec, "ST\n");
    CHECK_INT(chr_input_abs(dev, 0, 0), 0);
    CHECK_INT(chr_input_sync(dev), 0);
    settle(&r);
    forget_input(&rec);
    CHECK_INT(chr_input_sync(dev), 0);
    settle(&r);
    CHECK_INT(rec.length, 0); /* nothing new */
    for (down = 1; down >= 0; down--) {
        CHECK_INT(chr_input_button(dev, CHR_BUTTON_LEFT, down), 0);
        CHECK_INT(chr_input_sync(dev), 0);
        CHECK_INT(chr_input_sync(dev), 0);
        settle(&r);
        CHECK_MEM(rec.input, rec.length, down ? "\xa0\x00\x00\x00\x00\x00\x00" : "\xe0\x00\x00\x00\x00\x00\x00", 7);
        forget_input(&rec);
    }
    CHECK_INT(chr_input_button(dev, CHR_BUTTON_MIDDLE, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_input_sync(dev), 0);
    settle(&r);
    CHECK_INT(rec.length, 0);
    detach(&rec);
    rig_close(&r);
}

/* A line that has begun is forgotten with its speed: the next one is whole. */
TEST(a_line_begun_at_another_speed)
{
    static const char *const begun[] = { "R", "", "hello there" };
    size_t   i;
    recorder rec;
    rig      r;
    start(&r, &rec);
    for (i = 0; i < 3; i++) {
        ask(&r, &rec, begun[i]);
        CHECK_INT(set_speed(&rec, 1200), 0);
        CHECK_INT(set_speed(&rec, 9600), 0);
        ask(&r, &rec, "RE\r");
        CHECK_INPUT(&rec, "96,N,8,0");
    }
    detach(&rec);
    rig_close(&r);
}

TEST(only_9600_baud)
{
    int      lines;
    recorder rec;
    rig      r;
    chr_dev *dev = start(&r, &rec);
    ask(&r, &rec, "ST\rR"); /* started, in the middle of a line */
    rec.room = 0;
    ask(&r, &rec, "\r~#");
    CHECK_INT(set_speed(&rec, 9600), 0); /* no change */
    CHECK_INT(set_speed(&rec, 1200), 0);
    give_room(&rec, UNLIMITED);
    ask(&r, &rec, "~#RE\r");
    CHECK_INT(rec.length, 0);
    CHECK_INT(set_speed(&rec, 9600), 0);
    ask(&r, &rec, "E\r~#"); /* no R from before */
    CHECK_MEM(rec.input, rec.length, MODEL, 18);
    CHECK_INT(chr_input_sync(dev), CHR_ERR_DISCONNECTED); /* no longer started */
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines), CHR_ERR_NOT_SUPPORTED);
    detach(&rec);
    rig_close(&r);
}

/* A guest that asks and never reads costs a fixed amount of memory; what it gets in the end is whole answers. */
TEST(flood)
{
    static char many[4096];
    chr_info    info;
    size_t      i;
    long        live;
    recorder    rec;
    rig         r;
    chr_dev    *dev = start(&r, &rec);
    for (i = 0; i < sizeof many; i++) many[i] = "RE\r"[i % 3];
    live = r.live;
    rec.room = 0;
    for (i = 0; i < 100; i++) CHECK_INT(chr_fe_write(&rec.fe, many, 3 * (sizeof many / 3)), 3 * (sizeof many / 3));
    settle(&r);
    CHECK_INT(r.live, live);
    chr_query(dev, &info);
    CHECK(info.bytes_dropped > 0 && info.bytes_dropped % 8 == 0);
    for (i = 0; i < 400; i++) {
        give_room(&rec, 3);
        settle(&r);
    }
    CHECK(rec.length >= 64 && rec.length % 8 == 0);
    for (i = 0; i + 8 <= rec.length; i += 8) CHECK_MEM(rec.input + i, 8, "96,N,8,0", 8);
    detach(&rec);
    rig_close(&r);
}

/* The next frontend gets input that was not read. */
TEST(without_frontend_it_waits)
{
    recorder rec;
    rig      r;
    chr_dev *dev;
    rig_open_virtual(&r);
    dev = make(&r, "wctablet,id=w");
    settle(&r);
    attach_with_room(&rec, dev, 10);
    settle(&r);
    CHECK_INT(rec.length, 10);
    give_room(&rec, UNLIMITED);
    settle(&r);
    CHECK_MEM(rec.input, rec.length, BLOCK, 61);
    detach(&rec);
    rig_close(&r);
}
