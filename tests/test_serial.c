/*
 * serial: the far side is the master of a pty, which shows the settings of the line. What a pty lacks (modem lines,
 * incoming breaks) is simulated in the system calls: see the wrappers.
 */
#include "fault.h"

static int     line_ioctl(int fd, unsigned long request, ...);
static ssize_t line_read(int fd, void *buf, size_t len);
static int     line_tcgetattr(int fd, struct termios *settings);
static int     line_tcsetattr(int fd, int when, const struct termios *settings);
static int     line_tcflush(int fd, int queue);
static int     line_open(const char *path, int flags, ...);
#define fault_ioctl line_ioctl
#define fault_read line_read
#define fault_tcgetattr line_tcgetattr
#define fault_tcsetattr line_tcsetattr
#define fault_tcflush line_tcflush
#define fault_open line_open

#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include "rig.h"

/* ---- the line as it is played ------------------------------------------------------------------------------------ */

static struct line {
    int            has_modem_lines, modem_lines; /* TIOCMGET, TIOCMSET */
    int            break_on, break_calls;
    int            refuses_odd_speeds;
    int            open_flags;
    struct termios settings;                     /* the last that were asked for */
    int            has_formats;                      /* they are in force, as on a line with a UART; a pty has 8 data bits and no parity */
    int            flushes, flushed;                 /* tcflush() */
    int            has_counts, counts[4];            /* TIOCGICOUNT: break, framing, parity, overrun */
    const char    *input;                        /* what the next reads of the line give, `chunk` bytes each */
    size_t         input_length, chunk, rung;    /* real bytes come before it, only to wake who reads */
    int            fd;                           /* the line's, once it has been read or configured */
    unsigned long  failing;                      /* the ioctl that fails, with this errno; so do the calls below unless 0 */
    int            error, get_error, set_error, flush_error;
} line;

static int line_ioctl(int fd, unsigned long request, ...)
{
    va_list rest;
    void   *value;
    va_start(rest, request);
    value = va_arg(rest, void *);
    va_end(rest);
    if (line.error && request == line.failing) return errno = line.error, -1;
    if (request == TIOCSBRK || request == TIOCCBRK) {
        line.break_on = request == TIOCSBRK;
        line.break_calls++;
    }
    if (line.has_modem_lines && request == TIOCMGET) {
        *(int *)value = line.modem_lines;
        return 0;
    }
    if (line.has_modem_lines && request == TIOCMSET) {
        line.modem_lines = *(int *)value;
        return 0;
    }
    if (line.has_counts && request == TIOCGICOUNT) {
        int *all = (int *)value; /* cts, dsr, rng, dcd, rx, tx, frame, overrun, parity, brk, buf_overrun */
        memset(all, 0, 11 * sizeof *all);
        all[9] = line.counts[0];
        all[6] = line.counts[1];
        all[8] = line.counts[2];
        all[7] = line.counts[3] / 2;
        all[10] = line.counts[3] - line.counts[3] / 2;
        return 0;
    }
    if (line.refuses_odd_speeds && (request & 0xffff) == 0x542b) {
        errno = EINVAL;
        return -1;
    }
    return ioctl(fd, request, value);
}

static int line_tcgetattr(int fd, struct termios *settings)
{
    int n = tcgetattr(fd, settings);
    if (line.get_error && fd == line.fd) return errno = line.get_error, -1;
    if (n == 0 && line.has_formats && fd == line.fd) *settings = line.settings;
    return n;
}

static int line_tcflush(int fd, int queue)
{
    line.flushes++;
    line.flushed = queue;
    if (line.flush_error) return errno = line.flush_error, -1;
    return tcflush(fd, queue);
}

static ssize_t line_read(int fd, void *buf, size_t len)
{
    size_t  n;
    char    bell[64];
    ssize_t rung;
    if (fd != line.fd || !line.input) return read(fd, buf, len);
    while ((rung = read(fd, bell, sizeof bell)) > 0) line.rung += (size_t)rung;
    n = line.input_length < line.chunk ? line.input_length : line.chunk;
    if (n > len) n = len;
    if (n == 0) {
        errno = EAGAIN;
        return -1;
    }
    memcpy(buf, line.input, n);
    line.input += n;
    line.input_length -= n;
    return (ssize_t)n;
}

static int line_tcsetattr(int fd, int when, const struct termios *settings)
{
    line.settings = *settings;
    line.fd = fd;
    if (line.set_error) return errno = line.set_error, -1;
    return tcsetattr(fd, when, settings);
}

static int line_open(const char *path, int flags, ...)
{
    if (strncmp(path, "/dev/pts/", 9) == 0) line.open_flags = flags;
    return open(path, flags, 0600);
}

/* ---- the far side ------------------------------------------------------------------------------------------------ */

/* A new pty: its master, and the slave's name. As every new terminal it is anything but raw. */
static int new_line(char *name, size_t size)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    REQUIRE(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0 && ptsname_r(master, name, size) == 0);
    fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK);
    return master;
}

/* The chardev on a new line, with a recorder; the master. Virtual time. */
static int serial_line(rig *r, recorder *rec, int room, const char *more)
{
    char name[100], options[200];
    int  master;
    memset(&line, 0, sizeof line);
    line.fd = -1;
    rig_open_virtual(r);
    master = new_line(name, sizeof name);
    snprintf(options, sizeof options, "serial,id=s,path=%s%s", name, more);
    attach_with_room(rec, make(r, options), room);
    settle(r);
    return master;
}

static void end_line(rig *r, recorder *rec, int master)
{
    detach(rec);
    close(master);
    rig_close(r);
}

/* In which order bytes and events came. */
static char order[600];

static void note_order(recorder *rec, int what)
{
    size_t used = strlen(order);
    static size_t seen;
    if (rec->length < seen || used == 0) seen = 0;
    if (what == 'r') {
        for (; seen < rec->length && used < sizeof order - 4; seen++)
            used += (size_t)sprintf(order + used, (unsigned char)rec->input[seen] == 0xff ? "^" : rec->input[seen] == 0 ? "0" : "%c", rec->input[seen]);
    } else if (what == 'e' && used < sizeof order - 2) {
        if (rec->last_event == CHR_EVENT_BREAK) strcpy(order + used, "!");
        if (rec->last_event == CHR_EVENT_LINE_ERROR) strcpy(order + used, "~");
    }
}

static void note_from_here(recorder *rec)
{
    order[0] = 0;
    rec->then = note_order;
}

struct settings2 { /* the kernel's, with speeds as numbers */
    unsigned      iflag, oflag, cflag, lflag;
    unsigned char line, cc[19];
    unsigned      ispeed, ospeed;
};

static unsigned speed_at(int master)
{
    struct settings2 settings;
    REQUIRE(ioctl(master, _IOR('T', 0x2a, struct settings2), &settings) == 0);
    CHECK_INT(settings.ispeed, settings.ospeed);
    return settings.ospeed;
}

static int set_params(recorder *rec, int speed, int parity, int data_bits, int stop_bits)
{
    chr_serial_params params;
    params.speed = speed;
    params.parity = parity;
    params.data_bits = data_bits;
    params.stop_bits = stop_bits;
    return chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

TEST(serial_opens_raw_at_115200_8n1)
{
    char           name[100], options[200];
    struct termios t;
    recorder       rec;
    rig            r;
    int            master, slave;
    memset(&line, 0, sizeof line);
    rig_open_virtual(&r);
    master = new_line(name, sizeof name);
    slave = open(name, O_RDWR | O_NOCTTY);
    REQUIRE(slave >= 0 && tcgetattr(slave, &t) == 0);
    t.c_cflag |= CSTOPB | CRTSCTS;
    t.c_cflag &= ~(tcflag_t)(CLOCAL | CREAD);
    t.c_iflag |= IXON | IXOFF | ICRNL | IGNBRK | BRKINT | INPCK | ISTRIP;
    cfsetspeed(&t, B300);
    REQUIRE(tcsetattr(slave, TCSANOW, &t) == 0);
    close(slave);
    snprintf(options, sizeof options, "serial,id=s,path=%s", name);
    attach(&rec, make(&r, options));
    settle(&r);
    CHECK_STR(rec.events, "O");
    REQUIRE(tcgetattr(master, &t) == 0);
    CHECK_INT(speed_at(master), 115200);
    CHECK_INT(t.c_iflag, PARMRK | INPCK);
    CHECK_INT(t.c_oflag, 0);
    CHECK_INT(t.c_lflag, 0);
    CHECK_INT(t.c_cflag & (CSIZE | CSTOPB | PARENB | PARODD | CRTSCTS | CLOCAL | CREAD), CS8 | CLOCAL | CREAD);
    CHECK_INT(t.c_cc[VMIN], 1);
    CHECK_INT(t.c_cc[VTIME], 0);
    CHECK((line.open_flags & (O_NONBLOCK | O_NOCTTY | O_CLOEXEC)) == (O_NONBLOCK | O_NOCTTY | O_CLOEXEC)); /* waits for no carrier */
    CHECK_INT(open("/dev/tty", O_RDWR | O_CLOEXEC), -1); /* and it has not become our controlling terminal */
    end_line(&r, &rec, master);
}

TEST(serial_paths_that_are_none)
{
    chr_error err;
    char      options[500];
    rig       r;
    rig_open_virtual(&r);
    write_file(scratch("file"), "text");
    snprintf(options, sizeof options, "serial,id=s,path=%s", scratch("file"));
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "is not a terminal");
    CHECK_HAS(err.text, scratch("file"));
    CHECK_STR(read_file(scratch("file")), "text");
    snprintf(options, sizeof options, "serial,id=s,reconnect-ms=100,path=%s", scratch("file"));
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_INVALID);
    REQUIRE(mkfifo(scratch("fifo"), 0600) == 0);
    snprintf(options, sizeof options, "serial,id=s,path=%s", scratch("fifo"));
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "is not a terminal");
    CHECK(refuse(&r, "serial,id=s,path=/", &err) < 0);
    CHECK_HAS(err.text, "cannot open /");
    snprintf(options, sizeof options, "serial,id=s,path=%s", scratch("missing"));
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, scratch("missing"));
    CHECK_INT(refuse(&r, "serial,id=s", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "path");
    CHECK_INT(refuse(&r, "serial,id=s,path=/dev/null,reconnect-ms=-1", &err), CHR_ERR_INVALID);
    scratch_clean();
    rig_close(&r);
}

TEST(serial_uri_and_alias)
{
    char      name[100], options[200];
    chr_error err;
    chr_info  info;
    chr_dev  *dev;
    int       master;
    rig       r;
    rig_open_virtual(&r);
    master = new_line(name, sizeof name);
    dev = chr_new_uri(r.ctx, "s", name, &err);
    REQUIRE(dev != NULL);
    chr_query(dev, &info);
    CHECK_STR(info.backend, "serial");
    CHECK_STR(info.filename, "serial");
    CHECK_INT(info.be_open, 1);
    CHECK_INT(info.comes_back, 0);
    CHECK_INT(chr_remove(r.ctx, "s", &err), 0);
    snprintf(options, sizeof options, "tty,id=t,path=%s,reconnect-ms=1000", name);
    chr_query(make(&r, options), &info);
    CHECK_STR(info.backend, "serial");
    CHECK_INT(info.comes_back, 1);
    CHECK(chr_new_uri(r.ctx, "s", "/dev/no-such-line", &err) == NULL);
    CHECK_HAS(err.text, "/dev/no-such-line");
    close(master);
    rig_close(&r);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

/* Every value passes unchanged both ways, 0xff too, which the kernel doubles on this line; with any room. */
static void every_byte(const void *arg)
{
    int           room = *(const int *)arg, i;
    unsigned char all[768], got[768];
    size_t        heard = 0;
    recorder      rec;
    rig           r;
    int           master = serial_line(&r, &rec, room, "");
    for (i = 0; i < 768; i++) all[i] = (unsigned char)(i < 512 ? i : i % 3 ? 255 : 0);
    CHECK_INT(write(master, all, sizeof all), sizeof all);
    for (i = 0; i < 3000 && rec.length < sizeof all; i++) {
        chr_loop_step(r.ctx, 1);
        if (rec.room == 0) give_room(&rec, room);
    }
    CHECK_MEM(rec.input, rec.length, all, sizeof all);
    CHECK_STR(rec.events, "O"); /* no break among them */
    CHECK_INT(chr_fe_write_all(&rec.fe, all, sizeof all, 3000), sizeof all);
    for (i = 0; i < 3000 && heard < sizeof all; i++) {
        ssize_t n = read(master, got + heard, sizeof got - heard);
        if (n > 0) heard += (size_t)n;
        else usleep(1000);
    }
    CHECK_MEM(got, heard, all, sizeof all);
    end_line(&r, &rec, master);
}

TEST_FAMILY(every_byte)
{
    static const int rooms[] = { UNLIMITED, 1, 7 };
    test_add_case("serial_every_byte", every_byte, &rooms[0], TEST_SECONDS);
    test_add_case("serial_every_byte_one_at_a_time", every_byte, &rooms[1], TEST_SECONDS);
    test_add_case("serial_every_byte_seven_at_a_time", every_byte, &rooms[2], TEST_SECONDS);
}

TEST(serial_no_handlers_no_reading)
{
    recorder rec;
    rig      r;
    int      master = serial_line(&r, &rec, UNLIMITED, ""), i;
    chr_fe_set_handlers(&rec.fe, NULL, NULL);
    settle(&r);
    say(master, "kept");
    for (i = 0; i < 5; i++) CHECK_INT(chr_loop_step(r.ctx, 10), 0);
    CHECK_INT(rec.length, 0);
    listen_to(&rec);
    PUMP(&r, rec.length == 4);
    CHECK_INPUT(&rec, "kept");
    end_line(&r, &rec, master);
}

/* ---- break that comes in ----------------------------------------------------------------------------------------- */

/* As n_tty marks them: 0xff 0 0 = break (!), 0xff 0xff = 0xff (^), 0xff 0 X = X is damaged (~). In any chunks and
 * with any room the events come between the right bytes. */
typedef struct broken_line {
    const char *raw;
    size_t      length;
    const char *order;
} broken_line;

#define RAW(bytes) bytes, sizeof(bytes) - 1

static const broken_line broken_lines[] = {
    { RAW("ab\xff\0\0" "cd"), "ab!cd" },
    { RAW("\xff\0\0"), "!" },
    { RAW("\xff\0\0y\xff\0\0x"), "!y!x" },
    { RAW("\xff\0\0\xff\0\0\xff\0\0x"), "!!!x" },
    { RAW("ab\xff\0\0\xff\0\0"), "ab!!" },
    { RAW("a\xff\0\0\xff\xff\xff\0\0\0b"), "a!^!0b" },
    { RAW("\xff\0xy\xff\xff"), "~xy^" },
    { RAW("a\xff\0\xff\xff\0\x01\xff\0\0b"), "a~^~\x01!b" },
    { RAW("a\xff\0b"), "a~b" },
    { RAW("\xff\xff\0\0"), "^00" },
    { RAW("a\xff\0\0"), "a!" },
    { RAW("\0\0\xff\0\0\0\0z"), "00!00z" },
};

TEST(serial_breaks_come_between_the_bytes)
{
    static const int rooms[] = { UNLIMITED, 1, 2 };
    size_t           i, chunk, k, bells;
    int              turn;
    recorder         rec;
    rig              r;
    int              master = serial_line(&r, &rec, UNLIMITED, "");
    for (i = 0; i < sizeof broken_lines / sizeof broken_lines[0]; i++)
        for (chunk = 1; chunk <= broken_lines[i].length; chunk++)
            for (k = 0; k < 3; k++) {
                forget_input(&rec);
                memset(rec.events, 0, sizeof rec.events);
                note_from_here(&rec);
                rec.room = rooms[k];
                line.input = broken_lines[i].raw;
                line.input_length = broken_lines[i].length;
                line.chunk = chunk;
                line.rung = 0;
                bells = 0;
                for (turn = 0; turn < 400 && (line.input_length > 0 || line.rung < bells || turn < 20); turn++) {
                    if (line.input_length > 0 && line.rung == bells) say(master, "."), bells++;
                    chr_loop_step(r.ctx, line.rung < bells);
                    if (rec.room == 0) give_room(&rec, rooms[k]);
                }
                if (!CHECK_STR(order, broken_lines[i].order)) NOTE("row %zu, chunks of %zu, room %d", i, chunk, rooms[k]);
            }
    end_line(&r, &rec, master);
}

static int get_errors(recorder *rec)
{
    int errors = -1;
    CHECK_INT(chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_GET_ERRORS, &errors), 0);
    return errors;
}

static void read_marked(rig *r, const char *bytes, size_t len, int master)
{
    line.input = bytes;
    line.input_length = line.chunk = len;
    say(master, ".");
    PUMP(r, line.input_length == 0);
    settle(r);
}

/* Where the system counts nothing, a damaged byte has wrong parity if there is parity, else it is framed wrong. */
TEST(serial_errors_without_counts)
{
    recorder rec;
    rig      r;
    int      master = serial_line(&r, &rec, UNLIMITED, "");
    CHECK_INT(get_errors(&rec), 0);
    read_marked(&r, RAW("a\xff\0b"), master);
    CHECK_INT(get_errors(&rec), CHR_LINE_FRAMING);
    CHECK_INT(get_errors(&rec), 0);
    line.has_formats = 1;
    CHECK_INT(set_params(&rec, 9600, 'M', 7, 1), 0);
    read_marked(&r, RAW("\xff\0c"), master);
    CHECK_INT(get_errors(&rec), CHR_LINE_PARITY);
    CHECK_INPUT(&rec, "abc");
    end_line(&r, &rec, master);
}

/* Where it does, each mark is what was counted; a NUL that is damaged is then no break, and an overrun is seen, too. */
TEST(serial_errors_as_they_are_counted)
{
    recorder rec;
    rig      r;
    int      master;
    master = serial_line(&r, &rec, UNLIMITED, "");
    line.has_counts = 1;
    note_from_here(&rec);
    line.counts[1]++;
    read_marked(&r, RAW("a\xff\0\0b"), master); /* a NUL whose frame is wrong */
    CHECK_STR(order, "a~0b");
    CHECK_INT(get_errors(&rec), CHR_LINE_FRAMING);
    line.counts[2]++;
    read_marked(&r, RAW("\xff\0c"), master);
    CHECK_INT(get_errors(&rec), CHR_LINE_PARITY);
    line.counts[0]++, line.counts[1]++, line.counts[2]++;
    read_marked(&r, RAW("\xff\0\0\xff\0d\xff\0e"), master);
    CHECK_STR(order, "a~0b~c!~d~e");
    CHECK_INT(get_errors(&rec), CHR_LINE_FRAMING | CHR_LINE_PARITY);
    line.counts[3] = 1;
    CHECK_INT(get_errors(&rec), CHR_LINE_OVERRUN);
    CHECK_INT(get_errors(&rec), 0);
    line.counts[3] = 2;
    CHECK_INT(get_errors(&rec), CHR_LINE_OVERRUN);
    line.counts[3] = 4; /* one in the line's hardware and one in the driver's queue */
    CHECK_INT(get_errors(&rec), CHR_LINE_OVERRUN);
    end_line(&r, &rec, master);
}

/* A break behind bytes that the frontend has no room for waits with them. */
TEST(serial_break_waits_for_room)
{
    recorder rec;
    rig      r;
    int      master = serial_line(&r, &rec, 2, "");
    note_from_here(&rec);
    line.input = "abcd\xff\0\0e";
    line.input_length = 8;
    line.chunk = 8;
    say(master, ".");
    PUMP(&r, rec.length == 2);
    settle(&r);
    CHECK_STR(order, "ab");
    give_room(&rec, 2);
    settle(&r);
    CHECK_STR(order, "abcd");
    give_room(&rec, 9);
    settle(&r);
    CHECK_STR(order, "abcd!e");
    end_line(&r, &rec, master);
}

TEST(serial_read_all_passes_a_break)
{
    char     got[3];
    recorder rec;
    rig      r;
    int      master = serial_line(&r, &rec, 0, "");
    line.input = "a\xff\0\0bc";
    line.input_length = 6;
    line.chunk = 6;
    CHECK_INT(chr_fe_read_all(&rec.fe, got, 3, 1000), 3);
    CHECK_MEM(got, 3, "abc", 3);
    CHECK_STR(rec.events, "O"); /* no handler inside a call */
    settle(&r);
    CHECK_STR(rec.events, "OB");
    end_line(&r, &rec, master);
}

/* ---- what the guest sets ----------------------------------------------------------------------------------------- */

TEST(serial_speeds)
{
    static const int speeds[] = { 50, 75, 110, 300, 1200, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600, 1500000, 4000000,
                                  /* no standard ones: */ 51, 12345, 16457, 31250, 74880, 250000, 1234567, 3999999 };
    size_t           i;
    recorder         rec;
    rig              r;
    int              master = serial_line(&r, &rec, UNLIMITED, "");
    for (i = 0; i < sizeof speeds / sizeof speeds[0]; i++) {
        CHECK_INT(set_params(&rec, speeds[i], 'N', 8, 1), 0);
        CHECK_INT(speed_at(master), speeds[i]);
    }
    CHECK_INT(set_params(&rec, 9600, 'N', 8, 1), 0); /* from an odd one back */
    CHECK_INT(speed_at(master), 9600);
    end_line(&r, &rec, master);
}

/* Where the system has only standard speeds, the nearest within 10 % is set. */
TEST(serial_speeds_without_odd_ones)
{
    static const struct {
        int asked, got; /* 0 = refused */
    } rows[] = { { 9600, 9600 }, { 9700, 9600 }, { 120000, 115200 }, { 130000, 0 }, { 31250, 0 }, { 36000, 38400 }, { 52, 50 }, { 1000001, 1000000 },
                 { 666, 600 }, { 667, 0 } };
    int      speed = 115200;
    size_t   i;
    recorder rec;
    rig      r;
    int      master = serial_line(&r, &rec, UNLIMITED, "");
    line.refuses_odd_speeds = 1;
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!CHECK_INT(set_params(&rec, rows[i].asked, 'N', 8, 1), rows[i].got ? 0 : CHR_ERR_INVALID)) NOTE("for %d", rows[i].asked);
        CHECK_INT(speed_at(master), rows[i].got ? rows[i].got : speed);
        speed = (int)speed_at(master);
    }
    end_line(&r, &rec, master);
}

/* Neither the exact speed nor, if the settings can't be read back, any other than the nearest. */
TEST(serial_speeds_of_a_line_that_does_not_tell)
{
    recorder rec;
    rig      r;
    int      master = serial_line(&r, &rec, UNLIMITED, "");
    line.failing = _IOR('T', 0x2a, struct settings2);
    line.error = ENOTTY;
    CHECK_INT(set_params(&rec, 9700, 'N', 8, 1), 0);
    line.error = 0;
    CHECK_INT(speed_at(master), 9600);
    line.failing = _IOW('T', 0x2b, struct settings2);
    line.error = EIO;
    CHECK_INT(set_params(&rec, 120000, 'N', 8, 1), 0);
    line.error = 0;
    CHECK_INT(speed_at(master), 115200);
    end_line(&r, &rec, master);
}

/* The error of each failing call is returned, with its code, and nothing else changes. */
TEST(serial_calls_that_fail)
{
    static const struct {
        unsigned long request;
        int           error, command, value, code;
    } rows[] = {
        { TIOCMGET, ENOTTY, CHR_IOCTL_SERIAL_GET_TIOCM, -7, CHR_ERR_NOT_SUPPORTED },
        { TIOCMGET, EIO, CHR_IOCTL_SERIAL_SET_TIOCM, CHR_TIOCM_DTR, CHR_ERR_IO },
        { TIOCMSET, EIO, CHR_IOCTL_SERIAL_SET_TIOCM, CHR_TIOCM_DTR, CHR_ERR_IO },
        { TIOCSBRK, EIO, CHR_IOCTL_SERIAL_SET_BREAK, 1, CHR_ERR_IO },
        { TIOCCBRK, ENOTTY, CHR_IOCTL_SERIAL_SET_BREAK, 0, CHR_ERR_NOT_SUPPORTED },
    };
    chr_serial_params params = { 1, 'E', 5, 2 };
    size_t            i;
    int               value;
    recorder          rec;
    rig               r;
    int               master = serial_line(&r, &rec, UNLIMITED, "");
    line.has_modem_lines = 1;
    line.modem_lines = TIOCM_RTS;
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        line.failing = rows[i].request;
        line.error = rows[i].error;
        value = rows[i].value;
        if (!CHECK_INT(chr_fe_ioctl(&rec.fe, rows[i].command, &value), rows[i].code)) NOTE("row %zu", i);
        CHECK_INT(value, rows[i].value);
        CHECK_INT(line.modem_lines, TIOCM_RTS);
    }
    line.error = 0;
    value = CHR_TIOCM_DTR;
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_TIOCM, &value), 0);
    CHECK_INT(line.modem_lines, TIOCM_DTR);
    value = 0;
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_TIOCM, &value), 0);
    CHECK_INT(line.modem_lines, 0);
    value = CHR_PURGE_TRANSMIT;
    line.flush_error = EIO;
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_PURGE, &value), CHR_ERR_IO);
    line.flush_error = 0;
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_PURGE, &value), 0);
    line.set_error = EIO;
    CHECK_INT(set_params(&rec, 9600, 'N', 8, 1), CHR_ERR_IO);
    CHECK_INT(set_params(&rec, 9601, 'N', 8, 1), CHR_ERR_IO);
    line.set_error = EINVAL; /* some libraries say so of what is set in part: what the line has counts */
    CHECK_INT(set_params(&rec, 115200, 'N', 8, 1), 0);
    CHECK_INT(set_params(&rec, 9600, 'N', 8, 1), CHR_ERR_INVALID);
    line.set_error = 0;
    line.get_error = EIO;
    CHECK_INT(set_params(&rec, 9600, 'N', 8, 1), CHR_ERR_IO);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_PARAMS, &params), 0); /* as they were last */
    CHECK(params.speed == 115200 && params.parity == 'N' && params.data_bits == 8 && params.stop_bits == 1);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_FLOW, &value), 0);
    CHECK_INT(value, CHR_FLOW_NONE);
    line.get_error = 0;
    CHECK_INT(speed_at(master), 115200);
    end_line(&r, &rec, master);
}

static void check_params(recorder *rec, int speed, int parity, int data_bits, int stop_bits)
{
    chr_serial_params params = { 0, 0, 0, 0 };
    if (!CHECK_INT(chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_GET_PARAMS, &params), 0)) return;
    CHECK_INT(params.speed, speed);
    CHECK_INT(params.parity, parity);
    CHECK_INT(params.data_bits, data_bits);
    CHECK_INT(params.stop_bits, stop_bits);
}

/* All that a UART can do, mark and space parity included. */
TEST(serial_formats)
{
    static const tcflag_t sizes[] = { CS5, CS6, CS7, CS8 };
    static const char     parities[] = "NEOSM";
    static const tcflag_t bits[] = { 0, PARENB, PARENB | PARODD, PARENB | CMSPAR, PARENB | PARODD | CMSPAR };
    int                   data, parity, stop;
    recorder              rec;
    rig                   r;
    int                   master = serial_line(&r, &rec, UNLIMITED, "");
    line.has_formats = 1;
    for (data = 5; data <= 8; data++)
        for (parity = 0; parity < 5; parity++)
            for (stop = 1; stop <= 2; stop++) {
                CHECK_INT(set_params(&rec, 9600, parities[parity], data, stop), 0);
                CHECK_INT(line.settings.c_cflag & (CSIZE | PARENB | PARODD | CMSPAR | CSTOPB),
                          sizes[data - 5] | bits[parity] | (stop == 2 ? CSTOPB : 0));
                CHECK_INT(line.settings.c_iflag, PARMRK | INPCK);
                check_params(&rec, 9600, parities[parity], data, stop);
            }
    end_line(&r, &rec, master);
}

/* A UART makes one and a half of two with 5 data bits; with more it has none, and two are the next. */
TEST(serial_one_and_a_half_stop_bits)
{
    recorder rec;
    rig      r;
    int      master = serial_line(&r, &rec, UNLIMITED, "");
    line.has_formats = 1;
    CHECK_INT(set_params(&rec, 50, 'N', 5, CHR_STOP_BITS_1_5), 0);
    CHECK_INT(line.settings.c_cflag & (CSIZE | CSTOPB), CS5 | CSTOPB);
    check_params(&rec, 50, 'N', 5, CHR_STOP_BITS_1_5);
    CHECK_INT(set_params(&rec, 50, 'N', 6, CHR_STOP_BITS_1_5), CHR_ERR_INVALID);
    check_params(&rec, 50, 'N', 6, 2);
    CHECK_INT(set_params(&rec, 50, 'N', 5, 2), 0);
    check_params(&rec, 50, 'N', 5, 2);
    end_line(&r, &rec, master);
}

/* The settings in force count, not the requested ones: a pty has 8 data bits and no parity, and others may change
 * it. */
TEST(serial_says_what_the_line_has)
{
    static const int wrong[][2] = { { 'N', 5 }, { 'N', 6 }, { 'N', 7 }, { 'E', 8 }, { 'M', 8 }, { 'O', 5 } };
    struct termios   t;
    int              flow = CHR_FLOW_NONE;
    size_t           i;
    recorder         rec;
    rig              r;
    int              master = serial_line(&r, &rec, UNLIMITED, "");
    for (i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK_INT(set_params(&rec, 1200 << i % 4, wrong[i][0], wrong[i][1], 2), CHR_ERR_INVALID);
        check_params(&rec, 1200 << i % 4, 'N', 8, 2); /* the rest counts */
        CHECK_INT(speed_at(master), 1200 << i % 4);
    }
    CHECK_INT(set_params(&rec, 31250, 'E', 8, 1), CHR_ERR_INVALID); /* and a speed that is not a standard one */
    check_params(&rec, 31250, 'N', 8, 1);
    REQUIRE(tcgetattr(master, &t) == 0);
    t.c_cflag |= CSTOPB | CRTSCTS;
    cfsetspeed(&t, B300);
    REQUIRE(tcsetattr(master, TCSANOW, &t) == 0);
    check_params(&rec, 300, 'N', 8, 2);
    line.failing = _IOR('T', 0x2a, struct settings2);
    line.error = ENOTTY;
    check_params(&rec, 300, 'N', 8, 2); /* a standard one needs no more */
    line.error = 0;
    {
        struct settings2 odd;
        REQUIRE(ioctl(master, _IOR('T', 0x2a, struct settings2), &odd) == 0);
        odd.cflag = (odd.cflag & ~0010017u) | 0010000;
        odd.ispeed = odd.ospeed = 31255;
        REQUIRE(ioctl(master, _IOW('T', 0x2b, struct settings2), &odd) == 0);
        check_params(&rec, 31255, 'N', 8, 2);
        line.error = ENOTTY;
        check_params(&rec, 31255, 'N', 8, 2); /* as it was last */
        line.error = 0;
        REQUIRE(tcsetattr(master, TCSANOW, &t) == 0);
    }
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_FLOW, &flow), 0);
    CHECK_INT(flow, CHR_FLOW_RTSCTS);
    CHECK_STR(rec.events, "O");
    end_line(&r, &rec, master);
}

TEST(serial_params_that_are_none)
{
    static const chr_serial_params rows[] = { { 49, 'N', 8, 1 }, { 0, 'N', 8, 1 }, { -9600, 'N', 8, 1 }, { 4000001, 'N', 8, 1 }, { 9600, 'n', 8, 1 },
                                              { 9600, 0, 8, 1 }, { 9600, 'N', 4, 1 }, { 9600, 'N', 9, 1 }, { 9600, 'N', 8, 0 }, { 9600, 'N', 8, 3 } };
    size_t         i;
    struct termios before, after;
    recorder       rec;
    rig            r;
    int            master = serial_line(&r, &rec, UNLIMITED, "");
    CHECK_INT(set_params(&rec, 4800, 'N', 8, 2), 0);
    REQUIRE(tcgetattr(master, &before) == 0);
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK_INT(set_params(&rec, rows[i].speed, rows[i].parity, rows[i].data_bits, rows[i].stop_bits), CHR_ERR_INVALID);
    REQUIRE(tcgetattr(master, &after) == 0);
    CHECK_INT(after.c_cflag, before.c_cflag);
    CHECK_INT(after.c_iflag, before.c_iflag);
    CHECK_INT(speed_at(master), 4800);
    end_line(&r, &rec, master);
}

TEST(serial_settings_are_told)
{
    chr_serial_params params = { 0, 0, 0, 0 };
    int               flow = -1;
    recorder          rec;
    rig               r;
    int               master = serial_line(&r, &rec, UNLIMITED, "");
    line.has_formats = 1;
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_FLOW, &flow), 0);
    CHECK_INT(flow, CHR_FLOW_NONE);
    CHECK_INT(set_params(&rec, 9600, 'E', 7, 2), 0);
    CHECK_INT(set_params(&rec, 9600, 'E', 7, 3), CHR_ERR_INVALID);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_PARAMS, &params), 0);
    CHECK_INT(params.speed, 9600);
    CHECK_INT(params.parity, 'E');
    CHECK_INT(params.data_bits, 7);
    CHECK_INT(params.stop_bits, 2);
    end_line(&r, &rec, master);
}

TEST(serial_flow_control)
{
    static const struct {
        int      flow;
        tcflag_t cflag, iflag;
    } rows[] = { { CHR_FLOW_RTSCTS, CRTSCTS, 0 }, { CHR_FLOW_XONXOFF, 0, IXON | IXOFF }, { CHR_FLOW_NONE, 0, 0 },
                 { CHR_FLOW_SPLIT(CHR_FLOW_XONXOFF, CHR_FLOW_NONE), 0, IXON }, { CHR_FLOW_SPLIT(CHR_FLOW_NONE, CHR_FLOW_XONXOFF), 0, IXOFF },
                 { CHR_FLOW_SPLIT(CHR_FLOW_RTSCTS, CHR_FLOW_XONXOFF), CRTSCTS, IXOFF } };
    int      flow;
    size_t   i;
    recorder rec;
    rig      r;
    int      master = serial_line(&r, &rec, UNLIMITED, "");
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        flow = rows[i].flow;
        CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_FLOW, &flow), 0);
        CHECK_INT(set_params(&rec, 4800 + (int)i, 'N', 8, 1), 0); /* which leaves it */
        CHECK_INT(line.settings.c_cflag & CRTSCTS, rows[i].cflag);
        CHECK_INT(line.settings.c_iflag & (IXON | IXOFF | PARMRK), rows[i].iflag | PARMRK);
        flow = -1;
        CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_FLOW, &flow), 0);
        CHECK_INT(flow, rows[i].flow);
    }
    flow = CHR_FLOW_SPLIT(CHR_FLOW_XONXOFF, CHR_FLOW_XONXOFF);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_FLOW, &flow), 0);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_FLOW, &flow), 0);
    CHECK_INT(flow, CHR_FLOW_XONXOFF);
    flow = CHR_FLOW_SPLIT(CHR_FLOW_NONE, CHR_FLOW_RTSCTS); /* which Linux can't */
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_FLOW, &flow), CHR_ERR_INVALID);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_FLOW, &flow), 0);
    CHECK_INT(flow, CHR_FLOW_NONE);
    for (i = 0; i < 4; i++) {
        flow = i == 0 ? 3 : i == 1 ? -1 : i == 2 ? CHR_FLOW_SPLIT(0, 3) : CHR_FLOW_SPLIT(3, 0);
        CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_FLOW, &flow), CHR_ERR_INVALID);
    }
    end_line(&r, &rec, master);
}

TEST(serial_modem_lines)
{
    static const struct {
        int systems, ours;
    } rows[] = { { TIOCM_CTS, CHR_TIOCM_CTS }, { TIOCM_CAR, CHR_TIOCM_CAR }, { TIOCM_DSR, CHR_TIOCM_DSR },
                 { TIOCM_RNG, CHR_TIOCM_RI },  { TIOCM_DTR, CHR_TIOCM_DTR }, { TIOCM_RTS, CHR_TIOCM_RTS }, { 0, 0 } };
    int      lines = 0;
    size_t   i;
    recorder rec;
    rig      r;
    int      master = serial_line(&r, &rec, UNLIMITED, "");
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines), CHR_ERR_NOT_SUPPORTED); /* a pty has none */
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines), CHR_ERR_NOT_SUPPORTED);
    line.has_modem_lines = 1;
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        line.modem_lines = rows[i].systems;
        CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines), 0);
        CHECK_INT(lines, rows[i].ours);
    }
    line.modem_lines = TIOCM_CTS | TIOCM_DTR | TIOCM_RTS;
    lines = CHR_TIOCM_RTS | CHR_TIOCM_CAR; /* the far side's are not ours to set */
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines), 0);
    CHECK_INT(line.modem_lines, TIOCM_CTS | TIOCM_RTS);
    lines = CHR_TIOCM_DTR;
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines), 0);
    CHECK_INT(line.modem_lines, TIOCM_CTS | TIOCM_DTR);
    end_line(&r, &rec, master);
}

/* Both queues of the system, what is read and not yet delivered, and what obuf= holds. */
TEST(serial_purge)
{
    static const int queues[] = { 0, TCIFLUSH, TCOFLUSH, TCIOFLUSH };
    static char      much[100000];
    chr_info         info;
    int              what, i;
    recorder         rec;
    rig              r;
    int              master = serial_line(&r, &rec, UNLIMITED, ",obuf=262144");
    for (what = 1; what <= 3; what++) {
        CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_PURGE, &what), 0);
        CHECK_INT(line.flushes, what);
        CHECK_INT(line.flushed, queues[what]);
    }
    for (what = -1; what <= 4; what += 5) CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_PURGE, &what), CHR_ERR_INVALID);
    CHECK_INT(line.flushes, 3);
    rec.room = 2;
    say(master, "abcdef");
    PUMP(&r, rec.length == 2);
    what = CHR_PURGE_RECEIVE;
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_PURGE, &what), 0);
    CHECK_INT(chr_fe_write(&rec.fe, much, sizeof much), sizeof much);
    chr_query(rec.fe.dev, &info);
    CHECK_INT(info.bytes_dropped, 0);
    what = CHR_PURGE_TRANSMIT;
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_PURGE, &what), 0);
    chr_query(rec.fe.dev, &info);
    CHECK(info.bytes_dropped > 0);
    give_room(&rec, UNLIMITED);
    for (i = 0; i < 10; i++) chr_loop_step(r.ctx, 2);
    CHECK_INPUT(&rec, "ab");
    say(master, "new");
    PUMP(&r, rec.length == 5);
    CHECK_INPUT(&rec, "abnew");
    end_line(&r, &rec, master);
}

TEST(serial_break_is_sent)
{
    int      on = 1, off = 0;
    recorder rec;
    rig      r;
    int      master = serial_line(&r, &rec, UNLIMITED, "");
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on), 0);
    CHECK_INT(line.break_on, 1);
    CHECK_INT(line.break_calls, 1);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &off), 0);
    CHECK_INT(line.break_on, 0);
    CHECK_INT(line.break_calls, 2);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SET_ECHO, &on), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_ioctl(&rec.fe, 12345, &on), CHR_ERR_NOT_SUPPORTED);
    end_line(&r, &rec, master);
}

/* ---- unplugged --------------------------------------------------------------------------------------------------- */

/* What the system has not given us by then it throws away; what has been read is delivered. */
TEST(serial_hang_up_is_closed_after_the_last_words)
{
    int      i;
    recorder rec;
    rig      r;
    int      master = serial_line(&r, &rec, 2, "");
    say(master, "last words");
    PUMP(&r, rec.length == 2);
    close(master);
    for (i = 0; i < 5; i++) chr_loop_step(r.ctx, 2);
    CHECK_STR(rec.events, "O");
    give_room(&rec, UNLIMITED);
    PUMP(&r, !rec.open);
    CHECK_INPUT(&rec, "last words");
    CHECK_STR(rec.events, "OC");
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_write_all(&rec.fe, "x", 1, 1000), CHR_ERR_DISCONNECTED);
    CHECK_INT(set_params(&rec, 9600, 'N', 8, 1), 0);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_TIOCM, &i), CHR_ERR_DISCONNECTED);
    for (i = 0; i < 5; i++) pass_time(&r, 10000);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

/* A write meets it before the loop does: nothing is taken. */
TEST(serial_hang_up_met_by_a_write)
{
    recorder rec;
    rig      r;
    int      master = serial_line(&r, &rec, 2, "");
    say(master, "last words");
    PUMP(&r, rec.length == 2);
    close(master);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    CHECK_STR(rec.events, "O");
    give_room(&rec, UNLIMITED);
    PUMP(&r, !rec.open);
    CHECK_INPUT(&rec, "last words");
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

TEST(serial_hang_up_is_noticed_without_room)
{
    recorder rec;
    rig      r;
    int      master = serial_line(&r, &rec, 0, "");
    close(master);
    PUMP(&r, !rec.open);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

/* A device that is a link to a pty: it can be unplugged and plugged in again. */
static int plug(const char *path)
{
    char name[100];
    int  master = new_line(name, sizeof name);
    unlink(path);
    REQUIRE(symlink(name, path) == 0);
    return master;
}

TEST(serial_comes_back)
{
    char     path[200], options[300];
    int      master, i, lines = CHR_TIOCM_RTS, on = 1, wakes = 0;
    recorder rec;
    rig      r;
    memset(&line, 0, sizeof line);
    rig_open_virtual(&r);
    snprintf(path, sizeof path, "%s", scratch("tty"));
    master = plug(path);
    snprintf(options, sizeof options, "serial,id=s,path=%s,reconnect-ms=500", path);
    attach(&rec, make(&r, options));
    settle(&r);
    CHECK_INT(set_params(&rec, 31250, 'N', 8, 2), 0);
    close(master);
    unlink(path);
    PUMP(&r, !rec.open);
    CHECK_INT(count_fds(), r.fds + 2); /* the dead descriptor is gone: only the loop's waker is there */
    for (i = 0; i < 100; i++) { /* ten seconds: it tries each half a second, and tells once that it fails */
        r.now += INT64_C(100) * 1000000;
        wakes += chr_loop_step(r.ctx, 0) > 0;
    }
    CHECK(wakes >= 15 && wakes <= 25);
    CHECK_INT(r.logs, 1);
    CHECK_HAS(r.log, path);
    line.has_modem_lines = 1;
    line.modem_lines = TIOCM_DTR | TIOCM_RTS;
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines), 0); /* while it is away: for later */
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on), 0);
    CHECK_INT(line.break_calls, 0);
    master = plug(path);
    pass_time(&r, 600);
    CHECK_STR(rec.events, "OCO");
    CHECK_INT(speed_at(master), 31250); /* as the guest had set it */
    CHECK_INT(line.settings.c_cflag & CSTOPB, CSTOPB);
    CHECK_INT(line.modem_lines, TIOCM_RTS);
    CHECK_INT(line.break_on, 1);
    say(master, "again");
    PUMP(&r, rec.length == 5);
    CHECK_INT(chr_fe_write(&rec.fe, "yes", 3), 3);
    close(master);
    unlink(path);
    PUMP(&r, !rec.open);
    pass_time(&r, 5000);
    CHECK_INT(r.logs, 2); /* once more after a success */
    CHECK_STR(rec.events, "OCOC");
    detach(&rec);
    scratch_clean();
    rig_close(&r);
}

/* Half a mark that it had when it was unplugged is not the next line's, nor are the counters. */
TEST(serial_comes_back_without_the_old_marks)
{
    char     path[200], options[300];
    size_t   i;
    for (i = 1; i < 3; i++) {
        int      master, errors, counts;
        recorder rec;
        rig      r;
        for (counts = 0; counts < 2; counts++) {
            memset(&line, 0, sizeof line);
            line.fd = -1;
            line.has_counts = counts;
            rig_open_virtual(&r);
            snprintf(path, sizeof path, "%s", scratch("tty"));
            master = plug(path);
            snprintf(options, sizeof options, "serial,id=s,path=%s,reconnect-ms=500", path);
            attach(&rec, make(&r, options));
            settle(&r);
            line.input = "\xff\0";
            line.input_length = line.chunk = i;
            say(master, ".");
            PUMP(&r, line.input_length == 0);
            line.input = NULL;
            close(master);
            unlink(path);
            PUMP(&r, !rec.open);
            memset(rec.events, 0, sizeof rec.events);
            line.counts[0] = 7; /* another device's counters */
            master = plug(path);
            pass_time(&r, 600);
            CHECK_STR(rec.events, "O");
            CHECK_INT(write(master, "\0\0X", 3), 3);
            PUMP(&r, rec.length == 3);
            if (!CHECK_MEM(rec.input, rec.length, "\0\0X", 3)) NOTE("case %zu", i);
            CHECK_STR(rec.events, "O");
            CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_ERRORS, &errors), 0);
            CHECK_INT(errors, 0);
            end_line(&r, &rec, master);
            scratch_clean();
        }
    }
}

/* All that is set while it is away is told as if it were in force, and is so when the line is back. */
TEST(serial_settings_while_it_is_away)
{
    char     path[200], options[300];
    int      master, flow = CHR_FLOW_RTSCTS, got = -1, lines = CHR_TIOCM_DTR, on = 1, off = 0, purge = CHR_PURGE_RECEIVE | CHR_PURGE_TRANSMIT;
    recorder rec;
    rig      r;
    memset(&line, 0, sizeof line);
    line.fd = -1;
    rig_open_virtual(&r);
    snprintf(path, sizeof path, "%s", scratch("tty"));
    snprintf(options, sizeof options, "serial,id=s,path=%s,reconnect-ms=500", path);
    attach(&rec, make(&r, options));
    settle(&r);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_FLOW, &got), 0);
    CHECK_INT(got, CHR_FLOW_NONE);
    check_params(&rec, 115200, 'N', 8, 1);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_FLOW, &flow), 0);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_FLOW, &got), 0);
    CHECK_INT(got, CHR_FLOW_RTSCTS);
    CHECK_INT(set_params(&rec, 1200, 'N', 8, 2), 0);
    check_params(&rec, 1200, 'N', 8, 2);
    CHECK_INT(set_params(&rec, 1200, 'N', 9, 2), CHR_ERR_INVALID);
    check_params(&rec, 1200, 'N', 8, 2);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines), 0);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on), 0);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &off), 0);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_PURGE, &purge), 0);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_ERRORS, &got), 0);
    CHECK_INT(got, 0);
    CHECK_INT(line.flushes, 0);
    line.has_modem_lines = 1;
    line.modem_lines = TIOCM_RTS | TIOCM_CTS;
    master = plug(path);
    pass_time(&r, 600);
    CHECK_STR(rec.events, "O");
    check_params(&rec, 1200, 'N', 8, 2);
    CHECK_INT(speed_at(master), 1200);
    CHECK_INT(line.settings.c_cflag & (CSTOPB | CRTSCTS), CSTOPB | CRTSCTS);
    CHECK_INT(line.modem_lines, TIOCM_DTR | TIOCM_CTS);
    CHECK_INT(line.break_calls, 0);
    end_line(&r, &rec, master);
    scratch_clean();
}

/* Settings made while it was unplugged that the device does not support now: an event follows OPENED, and the
 * settings in force can be queried. */
TEST(serial_comes_back_with_other_settings)
{
    char     path[200], options[300];
    int      master;
    recorder rec;
    rig      r;
    memset(&line, 0, sizeof line);
    rig_open_virtual(&r);
    snprintf(path, sizeof path, "%s", scratch("tty"));
    snprintf(options, sizeof options, "serial,id=s,path=%s,reconnect-ms=500", path);
    attach(&rec, make(&r, options));
    settle(&r);
    CHECK_INT(set_params(&rec, 2400, 'E', 7, 2), 0); /* for later */
    check_params(&rec, 2400, 'E', 7, 2);
    master = plug(path);
    pass_time(&r, 600);
    CHECK_STR(rec.events, "OS");
    check_params(&rec, 2400, 'N', 8, 2);
    CHECK_INT(speed_at(master), 2400);
    end_line(&r, &rec, master);
    scratch_clean();
}

TEST(serial_not_plugged_in_yet)
{
    char     path[200], options[300];
    int      master;
    chr_info info;
    recorder rec;
    rig      r;
    memset(&line, 0, sizeof line);
    rig_open_virtual(&r);
    snprintf(path, sizeof path, "%s", scratch("tty"));
    snprintf(options, sizeof options, "serial,id=s,path=%s,reconnect-ms=500", path);
    attach(&rec, make(&r, options));
    settle(&r);
    chr_query(rec.fe.dev, &info);
    CHECK_INT(info.be_open, 0);
    CHECK_INT(info.comes_back, 1);
    CHECK_INT(r.logs, 1);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    pass_time(&r, 5000);
    CHECK_STR(rec.events, "");
    write_file(path, "no terminal");
    pass_time(&r, 600);
    CHECK_STR(rec.events, "");
    master = plug(path);
    pass_time(&r, 600);
    CHECK_STR(rec.events, "O");
    CHECK_INT(r.logs, 1);
    CHECK_INT(speed_at(master), 115200);
    end_line(&r, &rec, master);
    scratch_clean();
}

/* ---- the usual --------------------------------------------------------------------------------------------------- */

TEST(serial_out_of_memory)
{
    char      name[100], options[200];
    chr_error err;
    long      at;
    int       master;
    rig       r;
    rig_open_virtual(&r);
    master = new_line(name, sizeof name);
    snprintf(options, sizeof options, "serial,id=s,path=%s", name);
    for (at = 1; at < 50; at++) {
        long     live = r.live;
        int      fds = count_fds();
        chr_dev *dev;
        r.fail_at = r.calls + at;
        dev = chr_new(r.ctx, options, &err);
        r.fail_at = 0;
        if (dev) break;
        CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
        CHECK_INT(r.live, live);
        CHECK_INT(count_fds(), fds);
    }
    CHECK(at > 3 && at < 50);
    close(master);
    rig_close(&r);
}

static void remove_itself(recorder *rec, int what)
{
    chr_error    err;
    chr_context *ctx = rec->fe.dev ? rec->fe.dev->ctx : NULL;
    if (!ctx || (what != 'r' && rec->last_event != CHR_EVENT_BREAK && rec->last_event != CHR_EVENT_CLOSED)) return;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(ctx, "s", &err), 0);
}

TEST(serial_removed_inside_its_handlers)
{
    recorder rec;
    rig      r;
    int      master = serial_line(&r, &rec, 3, "");
    rec.then = remove_itself;
    say(master, "abcdef");
    PUMP(&r, rec.length == 3);
    settle(&r);
    end_line(&r, &rec, master);

    master = serial_line(&r, &rec, UNLIMITED, ",reconnect-ms=10");
    rec.then = remove_itself;
    close(master);
    PUMP(&r, chr_find(r.ctx, "s") == NULL);
    pass_time(&r, 1000);
    detach(&rec);
    rig_close(&r);

    master = serial_line(&r, &rec, UNLIMITED, "");
    rec.then = remove_itself;
    line.input = "\xff\0\0xyz";
    line.input_length = line.chunk = 6;
    say(master, ".");
    PUMP(&r, chr_find(r.ctx, "s") == NULL);
    CHECK_INT(rec.length, 0);
    CHECK_STR(rec.events, "OB");
    end_line(&r, &rec, master);
}

/* -- character devices that are no terminals: data, no line settings -- */

static void check_no_line(recorder *rec)
{
    static const int  ints[] = { CHR_IOCTL_SERIAL_SET_BREAK, CHR_IOCTL_SERIAL_GET_TIOCM, CHR_IOCTL_SERIAL_SET_TIOCM,
                                 CHR_IOCTL_SERIAL_SET_FLOW,  CHR_IOCTL_SERIAL_GET_FLOW };
    chr_serial_params params = { 9600, 'N', 8, 1 };
    size_t            i;
    int               value = 0;
    CHECK_INT(chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_GET_PARAMS, &params), CHR_ERR_NOT_SUPPORTED);
    for (i = 0; i < sizeof ints / sizeof *ints; i++)
        if (!CHECK_INT(chr_fe_ioctl(&rec->fe, ints[i], &value), CHR_ERR_NOT_SUPPORTED)) NOTE("ioctl %d", ints[i]);
}

TEST(serial_dev_null)
{
    recorder rec;
    rig      r;
    int      i, steps = 0;
    rig_open(&r);
    attach(&rec, chr_new_uri(r.ctx, "s", "/dev/null", NULL));
    CHECK_STR(rec.events, "O");
    check_no_line(&rec);
    CHECK_INT(chr_fe_write(&rec.fe, "gone", 4), 4);
    settle(&r);
    CHECK_STR(rec.events, "OC"); /* the end of its input */
    CHECK_INT(rec.length, 0);
    CHECK_INT(chr_fe_write_all(&rec.fe, "more", 4, -1), 4);
    for (i = 0; i < 5; i++) steps += chr_loop_step(r.ctx, 5) > 0;
    CHECK_INT(steps, 0);
    detach(&rec);
    rig_close(&r);
}

TEST(serial_dev_zero_is_read_as_it_is)
{
    recorder rec;
    size_t   i, zeros = 0;
    rig      r;
    rig_open(&r);
    attach_with_room(&rec, make(&r, "serial,id=s,path=/dev/zero"), 5000);
    PUMP(&r, rec.length == 5000);
    for (i = 0; i < rec.length; i++) zeros += rec.input[i] == 0;
    CHECK_INT(zeros, 5000);
    settle(&r);
    CHECK_STR(rec.events, "O");
    check_no_line(&rec);
    detach(&rec);
    rig_close(&r);
}

/* No byte is a mark: of 100000 random ones some hundred are 0xff. */
TEST(serial_dev_urandom_loses_no_byte)
{
    recorder rec;
    size_t   i, all_ones = 0;
    rig      r;
    rig_open(&r);
    attach_with_room(&rec, make(&r, "serial,id=s,path=/dev/urandom"), 100000);
    PUMP(&r, rec.length == 100000);
    for (i = 0; i < rec.length; i++) all_ones += (unsigned char)rec.input[i] == 0xff;
    CHECK(all_ones > 250 && all_ones < 550);
    CHECK_STR(rec.events, "O");
    detach(&rec);
    rig_close(&r);
}

TEST(serial_dev_full_takes_nothing)
{
    recorder rec;
    rig      r;
    rig_open(&r);
    attach_with_room(&rec, make(&r, "serial,id=s,path=/dev/full,reconnect-ms=10"), 0);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_NO_SPACE);
    CHECK_INT(chr_fe_write_all(&rec.fe, "x", 1, 1000), CHR_ERR_NO_SPACE);
    settle(&r);
    CHECK_STR(rec.events, "O");
    detach(&rec);
    rig_close(&r);
}
