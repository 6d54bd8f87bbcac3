/* The core: registry, events, removal, query, log files, hot swap, and calls from inside handlers. */
#include "chardev.h"
#include "rig.h"

/* ---- the wire: a backend whose far side is the test -------------------------------------------------------------- */

typedef struct wire {
    chr_dev dev;
    int     number; /* in the order of their making */
} wire;

static char out[4096]; /* what the frontends wrote and the wire took */
static int  out_len, wire_accepts, wire_closes, wire_opens, updates, wire_frontend_open;

static int wire_open(chr_dev *dev, chr_error *err)
{
    (void)err;
    ((wire *)dev)->number = wire_opens++;
    return 0;
}

static void wire_close(chr_dev *dev)
{
    (void)dev;
    wire_closes++;
}

static int wire_write(chr_dev *dev, const void *buf, size_t len)
{
    if (!dev->be_open) return CHR_ERR_DISCONNECTED;
    if (wire_accepts == 0) return CHR_ERR_WOULD_BLOCK;
    if (wire_accepts < 0) return wire_accepts;
    if (len > (size_t)wire_accepts) len = (size_t)wire_accepts;
    if (len > sizeof out - (size_t)out_len) len = sizeof out - (size_t)out_len;
    memcpy(out + out_len, buf, len);
    out_len += (int)len;
    return (int)len;
}

static void wire_update(chr_dev *dev)
{
    (void)dev;
    updates++;
}

/* A letter a wire: capital when its frontend comes, small when it goes. */
static char wire_story[64];

static void wire_set_open(chr_dev *dev, int is_open)
{
    size_t len = strlen(wire_story);
    wire_frontend_open = is_open;
    if (len + 1 < sizeof wire_story) wire_story[len] = (char)((is_open ? 'A' : 'a') + ((wire *)dev)->number);
}

CHR_TABLE(chr_io, wire_io,
    CHR_SET(write,  wire_write)
    CHR_SET(update, wire_update));

CHR_TABLE(chr_backend, wire_backend,
    CHR_SET(name,         "wire")
    CHR_SET(help,         "the test is the far side")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(wire))
    CHR_SET(open,         wire_open)
    CHR_SET(close,        wire_close)
    CHR_SET(io,           &wire_io)
    CHR_SET(set_open,     wire_set_open));

/* Runs a function once from the loop, where backends may call the core. */
typedef struct from_loop {
    chr_idle    idle;
    chr_dev    *dev;
    int         event;
    const char *text;
} from_loop;

static void run_from_loop(void *opaque)
{
    from_loop *f = (from_loop *)opaque;
    if (f->text) chr_be_write(f->dev, f->text, strlen(f->text));
    else chr_be_event(f->dev, f->event);
}

static void wire_event(rig *r, chr_dev *dev, int event)
{
    from_loop f;
    memset(&f, 0, sizeof f);
    f.dev = dev;
    f.event = event;
    chr_idle_start(r->ctx, &f.idle, run_from_loop, &f);
    settle(r);
}

static void wire_input(rig *r, chr_dev *dev, const char *text)
{
    from_loop f;
    memset(&f, 0, sizeof f);
    f.dev = dev;
    f.text = text;
    chr_idle_start(r->ctx, &f.idle, run_from_loop, &f);
    settle(r);
}

static void open_wire_rig(rig *r)
{
    chr_error err;
    rig_open_virtual(r);
    wire_accepts = 1 << 20;
    REQUIRE(chr_backend_register(r->ctx, &wire_backend, &err) == 0);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

TEST(events_open_and_close_the_backend)
{
    chr_dev *dev;
    recorder rec;
    rig      r;
    open_wire_rig(&r);
    dev = make(&r, "wire,id=w");
    attach(&rec, dev);
    settle(&r);
    CHECK_STR(rec.events, "");
    CHECK_INT(chr_fe_backend_open(&rec.fe), 0);
    wire_event(&r, dev, CHR_EVENT_OPENED);
    CHECK_INT(chr_fe_backend_open(&rec.fe), 1);
    wire_event(&r, dev, CHR_EVENT_BREAK);
    wire_event(&r, dev, CHR_EVENT_CLOSED);
    CHECK_INT(chr_fe_backend_open(&rec.fe), 0);
    CHECK_STR(rec.events, "OBC");
    detach(&rec);
    rig_close(&r);
}

TEST(any_int_is_an_event)
{
    chr_dev *dev;
    recorder rec;
    rig      r;
    open_wire_rig(&r);
    dev = make(&r, "wire,id=w");
    attach(&rec, dev);
    wire_event(&r, dev, 42);
    CHECK_STR(rec.events, "?");
    CHECK_INT(rec.last_event, 42);
    wire_event(&r, dev, -7);
    CHECK_INT(rec.last_event, -7);
    wire_event(&r, dev, CHR_EVENT_MUX_IN);
    wire_event(&r, dev, CHR_EVENT_MUX_OUT);
    CHECK_STR(rec.events, "??IU");
    CHECK_INT(chr_fe_backend_open(&rec.fe), 0);
    detach(&rec);
    rig_close(&r);
}

/* Whatever a backend sends, its frontend sees OPENED and CLOSED in turn. */
TEST(opened_and_closed_alternate)
{
    chr_dev *dev;
    recorder rec;
    rig      r;
    open_wire_rig(&r);
    dev = make(&r, "wire,id=w");
    attach(&rec, dev);
    wire_event(&r, dev, CHR_EVENT_CLOSED); /* never before OPENED */
    CHECK_STR(rec.events, "");
    wire_event(&r, dev, CHR_EVENT_OPENED);
    wire_event(&r, dev, CHR_EVENT_OPENED);
    CHECK_STR(rec.events, "O");
    wire_event(&r, dev, CHR_EVENT_CLOSED);
    wire_event(&r, dev, CHR_EVENT_CLOSED);
    CHECK_STR(rec.events, "OC");
    wire_event(&r, dev, CHR_EVENT_OPENED);
    CHECK_STR(rec.events, "OCO");
    detach(&rec);
    rig_close(&r);
}

/* Some backends are open from creation; the others start closed. The event is delivered when handlers are set, or
 * from the loop. */
TEST(who_is_open_from_creation)
{
    static const struct { const char *options; int open; } table[] = {
        { "ringbuf,id=d", 1 }, { "null,id=d", 0 }, { "pty,id=d", 0 }, { "file,id=d,path=/dev/null", 1 },
        { "socket,id=d,host=127.0.0.1,port=0,server=on,wait=off", 0 },
    };
    size_t i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        recorder rec;
        rig      r;
        rig_open(&r);
        attach(&rec, make(&r, table[i].options));
        settle(&r);
        if (!CHECK_STR(rec.events, table[i].open ? "O" : "") || !CHECK_INT(chr_fe_backend_open(&rec.fe), table[i].open))
            NOTE("for %s", table[i].options);
        detach(&rec);
        rig_close(&r);
    }
}

TEST(setting_handlers_on_an_open_chardev_tells_opened_each_time)
{
    chr_dev *dev;
    recorder rec;
    rig      r;
    open_wire_rig(&r);
    dev = make(&r, "wire,id=w");
    wire_event(&r, dev, CHR_EVENT_OPENED);
    attach(&rec, dev);
    CHECK_STR(rec.events, "O"); /* at once, without a step */
    listen_to(&rec);
    CHECK_STR(rec.events, "OO");
    settle(&r);
    CHECK_STR(rec.events, "OO");
    detach(&rec);
    rig_close(&r);
}

TEST(new_handlers_of_a_closed_chardev_hear_nothing)
{
    chr_dev *dev;
    recorder rec;
    rig      r;
    open_wire_rig(&r);
    dev = make(&r, "wire,id=w");
    attach(&rec, dev);
    wire_event(&r, dev, CHR_EVENT_OPENED);
    wire_event(&r, dev, CHR_EVENT_CLOSED);
    listen_to(&rec);
    wire_event(&r, dev, CHR_EVENT_CLOSED);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

TEST(freeing_the_context_closes_once)
{
    recorder open_one, closed_one, never;
    chr_dev *dev;
    rig      r;
    open_wire_rig(&r);
    dev = make(&r, "wire,id=a");
    attach(&open_one, dev);
    wire_event(&r, dev, CHR_EVENT_OPENED);
    dev = make(&r, "wire,id=b");
    attach(&closed_one, dev);
    wire_event(&r, dev, CHR_EVENT_OPENED);
    wire_event(&r, dev, CHR_EVENT_CLOSED);
    attach(&never, make(&r, "null,id=c"));
    rig_close(&r);
    CHECK_STR(open_one.events, "OC");
    CHECK_STR(closed_one.events, "OC");
    CHECK_STR(never.events, "");
    CHECK(open_one.fe.dev == NULL); /* left without a chardev, and usable */
    CHECK_INT(chr_fe_write(&open_one.fe, "x", 1), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_backend_open(&open_one.fe), 0);
    detach(&open_one), detach(&closed_one), detach(&never);
    CHECK_INT(wire_closes, 2);
}

TEST(frontend_side_opens_and_closes)
{
    chr_info info;
    chr_dev *dev;
    recorder rec;
    rig      r;
    open_wire_rig(&r);
    dev = make(&r, "wire,id=w");
    chr_query(dev, &info);
    CHECK_INT(info.frontend_open, 0);
    attach(&rec, dev);
    chr_query(dev, &info);
    CHECK_INT(info.frontend_open, 1);
    CHECK_INT(wire_frontend_open, 1);
    chr_fe_set_handlers(&rec.fe, NULL, NULL);
    chr_query(dev, &info);
    CHECK_INT(info.frontend_open, 0);
    CHECK_INT(wire_frontend_open, 0);
    chr_fe_set_open(&rec.fe, 1);
    CHECK_INT(wire_frontend_open, 1);
    chr_fe_set_open(&rec.fe, 0);
    CHECK_INT(wire_frontend_open, 0);
    detach(&rec);
    rig_close(&r);
}

TEST(send_break)
{
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "null,id=n"));
    CHECK_INT(chr_send_break(r.ctx, "n", &err), 0);
    CHECK_STR(rec.events, "B");
    CHECK_INT(chr_send_break(r.ctx, "nobody", &err), CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, "nobody");
    detach(&rec);
    CHECK_INT(chr_send_break(r.ctx, "n", &err), 0); /* without a frontend it is lost */
    rig_close(&r);
}

/* ---- the registry ------------------------------------------------------------------------------------------------ */

TEST(find_and_walk)
{
    chr_error err;
    chr_dev  *a, *b, *c, *dev;
    int       seen = 0;
    rig       r;
    rig_open_virtual(&r);
    CHECK(chr_next(r.ctx, NULL) == NULL);
    a = make(&r, "null,id=a");
    b = make(&r, "null,id=b");
    c = make(&r, "null,id=c");
    CHECK(chr_find(r.ctx, "a") == a);
    CHECK(chr_find(r.ctx, "b") == b);
    CHECK(chr_find(r.ctx, "B") == NULL);
    CHECK(chr_find(r.ctx, NULL) == NULL);
    CHECK_INT(chr_remove(r.ctx, NULL, NULL), CHR_ERR_NOT_FOUND);
    CHECK(chr_find(r.ctx, "") == NULL);
    for (dev = chr_next(r.ctx, NULL); dev; dev = chr_next(r.ctx, dev)) seen += dev == a ? 1 : dev == b ? 10 : dev == c ? 100 : 1000;
    CHECK_INT(seen, 111);
    CHECK_INT(chr_remove(r.ctx, "b", &err), 0);
    CHECK(chr_find(r.ctx, "b") == NULL);
    for (seen = 0, dev = chr_next(r.ctx, NULL); dev; dev = chr_next(r.ctx, dev)) seen++;
    CHECK_INT(seen, 2);
    make(&r, "ringbuf,id=b"); /* the id is free again */
    rig_close(&r);
}

TEST(remove_errors)
{
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open_virtual(&r);
    CHECK_INT(chr_remove(r.ctx, "ghost", &err), CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, "ghost");
    attach(&rec, make(&r, "ringbuf,id=d"));
    CHECK_INT(chr_remove(r.ctx, "d", &err), CHR_ERR_BUSY);
    CHECK_HAS(err.text, "d");
    CHECK_STR(rec.events, "O");
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "d", &err), 0);
    CHECK_INT(chr_remove(r.ctx, "d", &err), CHR_ERR_NOT_FOUND);
    rig_close(&r);
}

TEST(remove_base_and_mux)
{
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "ringbuf,id=m,mux=on"));
    CHECK_INT(chr_remove(r.ctx, "m", &err), CHR_ERR_BUSY);
    CHECK_INT(chr_remove(r.ctx, "m-base", &err), CHR_ERR_BUSY); /* the mux is its frontend */
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "m", &err), 0);
    CHECK(chr_find(r.ctx, "m") == NULL);
    rig_close(&r);
}

TEST(query)
{
    chr_info info;
    chr_dev *dev;
    recorder rec;
    rig      r;
    open_wire_rig(&r);
    dev = make(&r, "wire,id=w");
    attach(&rec, dev);
    CHECK_INT(chr_fe_write(&rec.fe, "lost", 4), CHR_ERR_DISCONNECTED);
    wire_event(&r, dev, CHR_EVENT_OPENED);
    CHECK_INT(chr_fe_write(&rec.fe, "hello", 5), 5);
    wire_input(&r, dev, "abc");
    chr_query(dev, &info);
    CHECK_STR(info.id, "w");
    CHECK_STR(info.backend, "wire");
    CHECK_STR(info.filename, "wire"); /* a backend that doesn't describe itself is its name */
    CHECK_STR(info.address, "");
    CHECK_INT(info.frontend_open, 1);
    CHECK_INT(info.be_open, 1);
    CHECK_INT(info.bytes_in, 3);
    CHECK_INT(info.bytes_out, 5);
    CHECK_INT(info.bytes_dropped, 4);
    detach(&rec);
    rig_close(&r);
}

TEST(filenames_of_those_without_a_place)
{
    static const char *const table[] = { "null", "ringbuf" };
    size_t                   i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        chr_info info;
        char     options[50];
        rig      r;
        rig_open_virtual(&r);
        snprintf(options, sizeof options, "%s,id=d", table[i]);
        chr_query(make(&r, options), &info);
        CHECK_STR(info.filename, table[i]);
        rig_close(&r);
    }
}

/* ---- log files --------------------------------------------------------------------------------------------------- */

static chr_dev *make_logged(rig *r, const char *backend, const char *more)
{
    char options[300];
    snprintf(options, sizeof options, "%s,id=l,logfile=%s%s", backend, scratch("log"), more);
    return make(r, options);
}

TEST(log_gets_what_was_taken)
{
    chr_dev *dev;
    recorder rec;
    rig      r;
    open_wire_rig(&r);
    dev = make_logged(&r, "wire", "");
    attach(&rec, dev);
    wire_event(&r, dev, CHR_EVENT_OPENED);
    wire_accepts = 3;
    CHECK_INT(chr_fe_write(&rec.fe, "abcdef", 6), 3);
    wire_accepts = 0;
    CHECK_INT(chr_fe_write(&rec.fe, "ghi", 3), CHR_ERR_WOULD_BLOCK);
    wire_accepts = 100;
    CHECK_INT(chr_fe_write(&rec.fe, "def", 3), 3);
    wire_input(&r, dev, "input is not logged");
    detach(&rec);
    CHECK_STR(read_file(scratch("log")), "abcdef");
    rig_close(&r);
    CHECK_STR(read_file(scratch("log")), "abcdef");
    scratch_clean();
}

/* The log records whether or not anybody is connected. */
TEST(log_gets_what_was_dropped)
{
    recorder rec;
    rig      r;
    open_wire_rig(&r);
    attach(&rec, make_logged(&r, "wire", ""));
    CHECK_INT(chr_fe_write(&rec.fe, "unheard", 7), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_write_all(&rec.fe, "!", 1, -1), CHR_ERR_DISCONNECTED);
    detach(&rec);
    rig_close(&r);
    CHECK_STR(read_file(scratch("log")), "unheard!");
    scratch_clean();
}

TEST(log_of_null)
{
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make_logged(&r, "null", ""));
    CHECK_INT(chr_fe_write(&rec.fe, "into the void", 13), 13);
    detach(&rec);
    rig_close(&r);
    CHECK_STR(read_file(scratch("log")), "into the void");
    scratch_clean();
}

TEST(log_is_truncated_or_appended)
{
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    write_file(scratch("log"), "old ");
    attach(&rec, make_logged(&r, "null", ",logappend=on"));
    chr_fe_write(&rec.fe, "new", 3);
    detach(&rec);
    chr_remove(r.ctx, "l", NULL);
    CHECK_STR(read_file(scratch("log")), "old new");
    attach(&rec, make_logged(&r, "null", ""));
    CHECK_STR(read_file(scratch("log")), "");
    chr_fe_write(&rec.fe, "fresh", 5);
    detach(&rec);
    rig_close(&r);
    CHECK_STR(read_file(scratch("log")), "fresh");
    scratch_clean();
}

TEST(log_file_mode_follows_umask)
{
    struct stat st;
    rig         r;
#ifdef _WIN32
    SKIP("files have no modes on this system");
#endif
    rig_open_virtual(&r);
    umask(027);
    make_logged(&r, "null", "");
    REQUIRE(stat(scratch("log"), &st) == 0);
    CHECK_INT(st.st_mode & 0777, 0640);
    rig_close(&r);
    scratch_clean();
}

TEST(log_with_time)
{
    recorder    rec;
    const char *text;
    rig         r;
    rig_open_virtual(&r);
    attach(&rec, make_logged(&r, "null", ",logtimestamp=on"));
    chr_fe_write(&rec.fe, "fir", 3);
    chr_fe_write(&rec.fe, "st\nsec", 6);
    r.wall += INT64_C(61) * 1000000000;
    chr_fe_write(&rec.fe, "ond\n\nx", 6);
    detach(&rec);
    rig_close(&r);
    text = read_file(scratch("log"));
    CHECK(strncmp(text, "first", 5) != 0);
    CHECK_HAS(text, "2017-07-14");
    CHECK_HAS(text, "02:40:00");
    CHECK_HAS(text, "first\n");
    CHECK_HAS(text, "second\n"); /* the stamp stands at the start of a line only */
    CHECK_HAS(text, "02:41:01"); /* of the empty line and of the last */
    {
        int lines = 0, stamps = 0;
        for (; *text; text++) {
            lines += *text == '\n';
            stamps += strncmp(text, "2017-", 5) == 0;
        }
        CHECK_INT(lines, 3);
        CHECK_INT(stamps, 4);
    }
    scratch_clean();
}

static const char *log_line_of(int64_t seconds, int64_t ns, const char *more)
{
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    r.wall = seconds * 1000000000 + ns;
    attach(&rec, make_logged(&r, "null", more));
    chr_fe_write(&rec.fe, "x\n", 2);
    detach(&rec);
    rig_close(&r);
    return read_file(scratch("log"));
}

/* Time stamps over the whole range of the clock: 64 bits of nanoseconds. */
TEST(log_with_time_of_all_ages)
{
    CHECK_STR(log_line_of(0, 0, ",logtimestamp=on"), "1970-01-01T00:00:00.000Z x\n");
    CHECK_STR(log_line_of(-1, 0, ",logtimestamp=on"), "1969-12-31T23:59:59.000Z x\n");
    CHECK_STR(log_line_of(0, -1, ",logtimestamp=on"), "1969-12-31T23:59:59.999Z x\n");
    CHECK_STR(log_line_of(-1, -500000000, ",logtimestamp=on"), "1969-12-31T23:59:58.500Z x\n");
    CHECK_STR(log_line_of(-86400, 0, ",logtimestamp=on"), "1969-12-31T00:00:00.000Z x\n");
    CHECK_STR(log_line_of(-INT64_C(2203891200), 0, ",logtimestamp=on"), "1900-03-01T00:00:00.000Z x\n");
    CHECK_STR(log_line_of(-INT64_C(2203891201), 0, ",logtimestamp=on"), "1900-02-28T23:59:59.000Z x\n");
    CHECK_STR(log_line_of(951782400, 0, ",logtimestamp=on"), "2000-02-29T00:00:00.000Z x\n");
    CHECK_STR(log_line_of(0, INT64_MIN, ",logtimestamp=on"), "1677-09-21T00:12:43.145Z x\n");
    CHECK_STR(log_line_of(0, INT64_MAX, ",logtimestamp=on"), "2262-04-11T23:47:16.854Z x\n");
    scratch_clean();
}

/* The first and the last day of each month, counted day by day. */
TEST(log_dates_of_all_months)
{
    static const int lengths[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    int64_t          day = 0;
    int              year, month;
    char             want[60];
    for (year = 1970; year <= 2401; year++) {
        int is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        int is_tried = year < 1973 || (year > 1998 && year < 2005) || (year > 2098 && year < 2102) || year > 2398;
        for (month = 1; month <= 12; month++) {
            int length = lengths[month - 1] + (month == 2 && is_leap);
            if (is_tried && day < 100000) {
                snprintf(want, sizeof want, "%d-%02d-01T00:00:00.000Z x\n", year, month);
                CHECK_STR(log_line_of(day * 86400, 0, ",logtimestamp=on"), want);
                snprintf(want, sizeof want, "%d-%02d-%02dT23:59:59.000Z x\n", year, month, length);
                CHECK_STR(log_line_of((day + length) * 86400 - 1, 0, ",logtimestamp=on"), want);
            }
            day += length;
        }
    }
}

/* Another program empties the file: what comes then stands at its beginning, without a hole. */
TEST(log_that_is_emptied_by_others)
{
    static const char *const more[] = { "", ",logappend=on", ",logtimestamp=on", ",logsize=1K" };
    size_t                   i;
    recorder                 rec;
    rig                      r;
    for (i = 0; i < sizeof more / sizeof *more; i++) {
        rig_open_virtual(&r);
        attach(&rec, make_logged(&r, "null", more[i]));
        chr_fe_write(&rec.fe, "before\n", 7);
        REQUIRE(truncate(scratch("log"), 0) == 0);
        chr_fe_write(&rec.fe, "after\n", 6);
        detach(&rec);
        rig_close(&r);
        CHECK_STR(read_file(scratch("log")), strstr(more[i], "stamp") ? "2017-07-14T02:40:00.000Z after\n" : "after\n");
        unlink(scratch("log"));
    }
    scratch_clean();
}

static const char *read_old_log(int number)
{
    char name[20];
    snprintf(name, sizeof name, "log.%d", number);
    return read_file(scratch(name));
}

/* Whole lines, where a line fits; no file is larger; the oldest go. */
TEST(log_rotation)
{
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make_logged(&r, "null", ",logsize=10,logfiles=3"));
    chr_fe_write(&rec.fe, "one\ntwo\n", 8);
    CHECK(!exists(scratch("log.1")));
    chr_fe_write(&rec.fe, "x\n", 2);
    CHECK(!exists(scratch("log.1"))); /* as large as may be */
    chr_fe_write(&rec.fe, "thr", 3);
    CHECK_STR(read_old_log(1), "one\ntwo\nx\n");
    CHECK_STR(read_file(scratch("log")), "thr");
    chr_fe_write(&rec.fe, "ee\nfour\nfive\nsix\n", 17); /* in one piece */
    CHECK_STR(read_old_log(2), "three\n");
    CHECK_STR(read_old_log(1), "four\nfive\n");
    CHECK_STR(read_file(scratch("log")), "six\n");
    chr_fe_write(&rec.fe, "abcdefghijklmnopqrstuvwxyz\n", 27); /* longer than a file: split, and nothing is lost */
    CHECK_STR(read_old_log(2), "abcdefghij");
    CHECK_STR(read_old_log(1), "klmnopqrst");
    CHECK_STR(read_file(scratch("log")), "uvwxyz\n");
    CHECK(!exists(scratch("log.3")));
    CHECK_INT(r.logs, 0);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* Every byte in its place, whatever the sizes. */
TEST(log_rotation_of_much)
{
    static char text[6000], found[8000];
    size_t      sizes[] = { 1, 2, 7, 64, 333, 5000 }, i, at, piece, length;
    char        more[60], name[20];
    int         number;
    recorder    rec;
    rig         r;
    for (i = 0; i < sizeof text; i++) text[i] = i % 23 == 11 || i % 47 == 3 ? '\n' : (char)('a' + i % 26);
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t files = RIG_OVER_TCP ? 60 : 300; /* each rotation renames all of them, which takes Wine long */
        size_t total = sizes[i] * files < sizeof text ? sizes[i] * files : sizeof text;
        rig_open_virtual(&r);
        snprintf(more, sizeof more, ",logsize=%d,logfiles=1000", (int)sizes[i]);
        attach(&rec, make_logged(&r, "null", more));
        for (at = 0, piece = 1; at < total; at += piece, piece = 1 + piece * 7 % 97) {
            if (piece > total - at) piece = total - at;
            CHECK_INT(chr_fe_write(&rec.fe, text + at, piece), piece);
        }
        detach(&rec);
        rig_close(&r);
        for (number = 999, length = 0; number >= 0; number--) {
            const char *part;
            snprintf(name, sizeof name, number ? "log.%d" : "log", number);
            if (!exists(scratch(name))) continue;
            part = read_file(scratch(name));
            if (sizes[i] < 4096) CHECK(strlen(part) <= sizes[i]);
            if (sizes[i] < 4096) memcpy(found + length, part, strlen(part)), length += strlen(part);
        }
        if (sizes[i] < 4096 && !CHECK_MEM(found, length, text, total)) NOTE("with logsize=%d", (int)sizes[i]);
        scratch_clean();
    }
}

/* A number that none has is filled; those behind it stay. */
TEST(log_rotation_fills_a_gap)
{
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    write_file(scratch("log.2"), "two");
    write_file(scratch("log.3"), "three");
    attach(&rec, make_logged(&r, "null", ",logsize=4,logfiles=4"));
    chr_fe_write(&rec.fe, "aaa\nbbb\n", 8);
    CHECK_STR(read_old_log(1), "aaa\n");
    CHECK_STR(read_old_log(2), "two");
    CHECK_STR(read_old_log(3), "three");
    chr_fe_write(&rec.fe, "ccc\n", 4);
    CHECK_STR(read_old_log(1), "bbb\n");
    CHECK_STR(read_old_log(2), "aaa\n");
    CHECK_STR(read_old_log(3), "two");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* The stamp begins the line, in its file; a file that is kept alone is emptied. */
TEST(log_rotation_with_time)
{
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make_logged(&r, "null", ",logsize=60,logfiles=2,logtimestamp=on"));
    chr_fe_write(&rec.fe, "one\ntw", 6);
    chr_fe_write(&rec.fe, "o\nthree\n", 8);
    CHECK_STR(read_old_log(1), "2017-07-14T02:40:00.000Z one\n2017-07-14T02:40:00.000Z two\n");
    CHECK_STR(read_file(scratch("log")), "2017-07-14T02:40:00.000Z three\n");
    detach(&rec);
    rig_close(&r);
    rig_open_virtual(&r);
    attach(&rec, make_logged(&r, "null", ",logsize=4,logfiles=1"));
    chr_fe_write(&rec.fe, "one\ntwo\n", 8);
    CHECK_STR(read_file(scratch("log")), "two\n");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* The existing size of a file counts; five files by default; the working directory may have changed. */
TEST(log_rotation_goes_on)
{
    char     cwd[300];
    int      i;
    recorder rec;
    rig      r;
    write_file(scratch("log"), "12345");
    REQUIRE(getcwd(cwd, sizeof cwd) && chdir(scratch_dir) == 0);
    rig_open_virtual(&r);
    attach(&rec, make(&r, "null,id=l,logfile=log,logappend=on,logsize=8"));
    REQUIRE(chdir("/") == 0);
    for (i = 0; i < 10; i++) chr_fe_write(&rec.fe, "abcd\n", 5);
    CHECK_STR(read_file(scratch("log")), "abcd\n");
    CHECK_STR(read_old_log(4), "abcd\n");
    CHECK(!exists(scratch("log.5")) && !exists("/log"));
    detach(&rec);
    rig_close(&r);
    REQUIRE(chdir(cwd) == 0);
    scratch_clean();
}

/* Where it can't be: the old file goes on, each byte in it, with one line of complaint for each `logsize`. */
TEST(log_rotation_that_fails)
{
    char     path[300];
    int      i;
    recorder rec;
    rig      r;
    snprintf(path, sizeof path, "%s", scratch("log.1"));
    REQUIRE(mkdir(path, 0700) == 0 && mkdir(scratch("log.2"), 0700) == 0);
    write_file(scratch("log.2/in"), "the way");
    rig_open_virtual(&r);
    attach(&rec, make_logged(&r, "null", ",logsize=10,logfiles=3"));
    for (i = 0; i < 5; i++) CHECK_INT(chr_fe_write(&rec.fe, "abcd\n", 5), 5);
    CHECK_STR(read_file(scratch("log")), "abcd\nabcd\nabcd\nabcd\nabcd\n");
    CHECK_INT(r.logs, 2);
    CHECK_HAS(r.log, "log: ");
    rmdir(path);
    for (i = 0; i < 3; i++) CHECK_INT(chr_fe_write(&rec.fe, "efgh\n", 5), 5);
    CHECK_STR(read_old_log(1), "abcd\nabcd\nabcd\nabcd\nabcd\nefgh\n");
    CHECK_STR(read_file(scratch("log")), "efgh\nefgh\n");
    detach(&rec);
    rig_close(&r);
    unlink(scratch("log.2/in"));
    rmdir(scratch("log.2"));
    scratch_clean();
}

TEST(log_rotation_options)
{
    chr_error err;
    char      options[300];
    rig       r;
    rig_open_virtual(&r);
    CHECK_INT(refuse(&r, "null,id=l,logsize=1K", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "logsize= needs logfile=");
    CHECK_INT(refuse(&r, "null,id=l,logfiles=3", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "logfiles=3: needs logsize=");
    snprintf(options, sizeof options, "null,id=l,logfile=%s,logfiles=5", scratch("log"));
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "logfiles=5: needs logsize=");
    CHECK(!exists(scratch("log")));
    CHECK_INT(refuse(&r, "null,id=l,logtimestamp=on", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "logtimestamp=on: needs logfile=");
    make(&r, "null,id=alone,logappend=on,logtimestamp=off"); /* as management programs give it */
    snprintf(options, sizeof options, "socket,id=c,host=127.0.0.1,port=0,server=on,wait=off,clients=2,logfile=%s,logsize=1K,logfiles=2,"
             "logtimestamp=on,mux=on", scratch("log")); /* once for all of it */
    make(&r, options);
    CHECK_INT(refuse(&r, "null,id=l,logfile=/dev/null,logsize=1K", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "/dev/null");
    snprintf(options, sizeof options, "null,id=l,logfile=%s,logsize=1K,logfiles=1001", scratch("log"));
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "logfiles=1001");
    snprintf(options, sizeof options, "null,id=l,logfile=%s,logsize=-1", scratch("log"));
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "logsize=-1");
    rig_close(&r);
    scratch_clean();
}

/* As with logrotate: the file is renamed, then chr_log_reopen() is called. Until then the old file is used. */
TEST(log_reopened)
{
    recorder rec, other;
    char     options[300], old_name[300];
    int      fds;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make_logged(&r, "null", ",logtimestamp=on"));
    snprintf(options, sizeof options, "null,id=m,mux=on,logfile=%s", scratch("second"));
    attach(&other, make(&r, options));
    make(&r, "null,id=without");
    fds = count_fds();
    chr_fe_write(&rec.fe, "one\nsplit", 9);
    chr_fe_write(&other.fe, "one\n", 4);
    snprintf(old_name, sizeof old_name, "%s", scratch("old"));
    REQUIRE(rename(scratch("log"), old_name) == 0);
    snprintf(old_name, sizeof old_name, "%s", scratch("old2"));
    REQUIRE(rename(scratch("second"), old_name) == 0);
    chr_fe_write(&rec.fe, " line", 5);
    CHECK(!exists(scratch("log")));
    CHECK_INT(chr_log_reopen(r.ctx), 0);
    chr_fe_write(&rec.fe, " here\ntwo\n", 10);
    chr_fe_write(&other.fe, "two\n", 4);
    CHECK_INT(chr_log_reopen(r.ctx), 0); /* nothing was moved: it goes on */
    chr_fe_write(&other.fe, "three\n", 6);
    CHECK_STR(read_file(scratch("old")), "2017-07-14T02:40:00.000Z one\n2017-07-14T02:40:00.000Z split line");
    CHECK_STR(read_file(scratch("log")), " here\n2017-07-14T02:40:00.000Z two\n");
    CHECK_STR(read_file(scratch("old2")), "one\n");
    CHECK_STR(read_file(scratch("second")), "two\nthree\n");
    CHECK_INT(count_fds(), fds);
    detach(&rec), detach(&other);
    rig_close(&r);
    scratch_clean();
}

/* A file that can't be opened: the error is returned and logged, and the old file is used. Logging that had ended
 * resumes. */
TEST(log_reopened_in_vain)
{
    recorder rec, other;
    char     options[400], link_path[300];
    rig      r;
    rig_open_virtual(&r);
    snprintf(link_path, sizeof link_path, "%s", scratch("link"));
    REQUIRE(symlink("/dev/full", link_path) == 0);
    snprintf(options, sizeof options, "null,id=full,logfile=%s", link_path);
    attach(&other, make(&r, options));
    attach(&rec, make_logged(&r, "null", ""));
    chr_fe_write(&other.fe, "lost\n", 5);
    CHECK_INT(r.logs, 1);
    chr_fe_write(&rec.fe, "one\n", 4);
    {
        char moved[300];
        snprintf(moved, sizeof moved, "%s", scratch("moved"));
        REQUIRE(rename(scratch("log"), moved) == 0 && mkdir(scratch("log"), 0700) == 0);
        unlink(link_path);
        CHECK_INT(chr_log_reopen(r.ctx), CHR_ERR_IO);
        CHECK_INT(r.logs, 2);
        CHECK_HAS(r.log, "/log");
        chr_fe_write(&rec.fe, "two\n", 4);
        chr_fe_write(&other.fe, "again\n", 6);
        CHECK_STR(read_file(moved), "one\ntwo\n");
        CHECK_STR(read_file(link_path), "again\n");
    }
    rmdir(scratch("log"));
    detach(&rec), detach(&other);
    rig_close(&r);
    scratch_clean();
}

/* Two chardevs, one file that is rotated: each goes on at its end. */
TEST(log_file_of_two)
{
    recorder a, b;
    char     options[300], text[3000] = "";
    int      i;
    rig      r;
    rig_open_virtual(&r);
    snprintf(options, sizeof options, "null,id=a,logfile=%s,logsize=20,logfiles=50", scratch("log"));
    attach(&a, make(&r, options));
    snprintf(options, sizeof options, "null,id=b,logfile=%s,logsize=20,logfiles=50,logappend=on", scratch("log"));
    attach(&b, make(&r, options));
    for (i = 0; i < 40; i++) {
        chr_fe_write(&a.fe, "aaaa\n", 5);
        chr_fe_write(&b.fe, "bbbb\n", 5);
    }
    for (i = 50; i > 0; i--)
        if (read_old_log(i)[0] != '(') strcat(text, read_old_log(i));
    strcat(text, read_file(scratch("log")));
    CHECK_INT(strlen(text), 400);
    detach(&a), detach(&b);
    rig_close(&r);
    scratch_clean();
}

TEST(log_that_cannot_be_opened)
{
    chr_error err;
    rig       r;
    rig_open_virtual(&r);
    CHECK(refuse(&r, "null,id=l,logfile=/nonexistent/dir/log", &err) < 0);
    CHECK_HAS(err.text, "/nonexistent/dir/log");
    rig_close(&r);
}

/* A full disk ends the log with one message; the traffic goes on. */
TEST(log_failure_does_not_disturb)
{
    recorder rec;
    int      i;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "ringbuf,id=l,size=64,logfile=/dev/full"));
    for (i = 0; i < 10; i++) CHECK_INT(chr_fe_write(&rec.fe, "1234", 4), 4);
    CHECK_INT(chr_ringbuf_count(rec.fe.dev), 40);
    CHECK_INT(r.logs, 1);
    CHECK_HAS(r.log, "chardev l");
    CHECK_HAS(r.log, "/dev/full: no space left on device");
    detach(&rec);
    rig_close(&r);
}

TEST(log_descriptor_is_cloexec)
{
    int fd, found = 0;
    rig r;
    rig_open_virtual(&r);
    make_logged(&r, "null", "");
    for (fd = 3; fd < 100; fd++) {
        char link_path[40], target[200];
        ssize_t len;
        snprintf(link_path, sizeof link_path, "/proc/self/fd/%d", fd);
        len = readlink(link_path, target, sizeof target - 1);
        if (len <= 0) continue;
        target[len] = 0;
        if (strcmp(target, scratch("log")) != 0) continue;
        found++;
        CHECK(flag_set(fd, F_GETFD, FD_CLOEXEC));
    }
    CHECK_INT(found, 1);
    rig_close(&r);
    scratch_clean();
}

TEST(log_of_a_mux_holds_its_output)
{
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make_logged(&r, "ringbuf", ",mux=on"));
    chr_fe_write(&rec.fe, "guest", 5);
    detach(&rec);
    rig_close(&r);
    CHECK_STR(read_file(scratch("log")), "guest");
    scratch_clean();
}

/* ---- hot swap ---------------------------------------------------------------------------------------------------- */

TEST(change_with_a_frontend)
{
    chr_error err;
    chr_dev  *dev;
    recorder  rec;
    rig       r;
    open_wire_rig(&r);
    dev = make(&r, "wire,id=c");
    attach(&rec, dev);
    CHECK_INT(chr_change(r.ctx, "c", "ringbuf,size=16", &err), 0);
    CHECK_INT(rec.changes, 1);
    CHECK_INT(wire_closes, 1);
    dev = chr_find(r.ctx, "c");
    REQUIRE(dev != NULL);
    CHECK_STR(dev->kind->name, "ringbuf");
    CHECK(rec.fe.dev == dev);
    settle(&r);
    CHECK_STR(rec.events, "O"); /* the new one is open, the old was not */
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    CHECK_INT(chr_ringbuf_count(dev), 1);
    detach(&rec);
    rig_close(&r);
}

TEST(change_from_open_to_closed)
{
    chr_error err;
    recorder  rec;
    rig       r;
    open_wire_rig(&r);
    attach(&rec, make(&r, "ringbuf,id=c"));
    CHECK_INT(chr_change(r.ctx, "c", "wire", &err), 0);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    wire_event(&r, chr_find(r.ctx, "c"), CHR_EVENT_OPENED);
    CHECK_STR(rec.events, "OCO");
    detach(&rec);
    rig_close(&r);
}

/* Open before and after: whether the line is seen to drop is free, but it ends open and alternates. */
TEST(change_from_open_to_open)
{
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "ringbuf,id=c"));
    CHECK_INT(chr_change(r.ctx, "c", "ringbuf,size=32", &err), 0);
    settle(&r);
    CHECK_INT(rec.open, 1);
    CHECK_INT(chr_fe_backend_open(&rec.fe), 1);
    CHECK_INT(rec.changes, 1);
    CHECK_INT(((const chr_ringbuf_options *)rec.fe.dev->options)->size, 32);
    detach(&rec);
    rig_close(&r);
}

TEST(change_without_a_frontend)
{
    chr_error err;
    rig       r;
    open_wire_rig(&r);
    make(&r, "wire,id=c");
    CHECK_INT(chr_change(r.ctx, "c", "ringbuf", &err), 0);
    CHECK_INT(wire_closes, 1);
    REQUIRE(chr_find(r.ctx, "c") != NULL);
    CHECK_STR(chr_find(r.ctx, "c")->kind->name, "ringbuf");
    CHECK(chr_next(r.ctx, chr_find(r.ctx, "c")) == NULL);
    rig_close(&r);
}

TEST(change_ignores_an_id)
{
    chr_error err;
    rig       r;
    rig_open_virtual(&r);
    make(&r, "null,id=c");
    CHECK_INT(chr_change(r.ctx, "c", "ringbuf,id=other", &err), 0);
    CHECK(chr_find(r.ctx, "other") == NULL);
    CHECK_STR(chr_find(r.ctx, "c")->kind->name, "ringbuf");
    rig_close(&r);
}

TEST(change_refusals)
{
    chr_error err;
    recorder  rec;
    rig       r;
    open_wire_rig(&r);
    CHECK_INT(chr_change(r.ctx, "ghost", "null", &err), CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, "ghost");
    make(&r, "ringbuf,id=m,mux=on");
    CHECK(chr_change(r.ctx, "m", "null", &err) < 0);
    CHECK_STR(chr_find(r.ctx, "m")->kind->name, "mux");
    memset(&rec, 0, sizeof rec);
    rec.room = UNLIMITED;
    REQUIRE(chr_fe_init(&rec.fe, make(&r, "wire,id=c"), &err) == 0);
    chr_fe_set_handlers(&rec.fe, &recorder_handlers_without_change, &rec);
    CHECK(chr_change(r.ctx, "c", "ringbuf", &err) < 0);
    CHECK_HAS(err.text, "does not support chardev hotswap");
    CHECK_STR(rec.fe.dev->kind->name, "wire");
    CHECK_INT(wire_closes, 0);
    detach(&rec);
    rig_close(&r);
}

TEST(change_without_frontend_and_with_wrong_options_keeps_the_old)
{
    static const char *const bad[] = { "ringbuf,size=3x", "nonsense", "file", "mux,chardev=c", "null,x=y", "", "socket,path=a,telnet=maybe" };
    chr_error                err;
    size_t                   i;
    rig                      r;
    rig_open(&r);
    make(&r, "ringbuf,id=c,size=16");
    CHECK_INT(chr_ringbuf_write(chr_find(r.ctx, "c"), "kept", 4, CHR_UTF8, &err), 4);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        err.text[0] = 0;
        if (!CHECK(chr_change(r.ctx, "c", bad[i], &err) < 0) || !CHECK(err.text[0])) NOTE("for %s", bad[i]);
        if (!CHECK(chr_find(r.ctx, "c") != NULL)) {
            NOTE("for %s", bad[i]);
            make(&r, "ringbuf,id=c,size=16");
        }
    }
    CHECK_INT(chr_ringbuf_count(chr_find(r.ctx, "c")), 4);
    CHECK_INT(chr_change(r.ctx, "c", "null", &err), 0);
    CHECK_STR(chr_find(r.ctx, "c")->kind->name, "null");
    rig_close(&r);
}

TEST(change_that_cannot_open_leaves_the_old_untouched)
{
    static const char *const bad[] = { "ringbuf,size=3", "nonsense", "file", "file,path=/nonexistent/x", "socket,fd=999", "null,x=y", "" };
    chr_error                err;
    chr_dev                 *dev;
    recorder                 rec;
    size_t                   i;
    rig                      r;
    open_wire_rig(&r);
    dev = make(&r, "wire,id=c");
    attach(&rec, dev);
    wire_event(&r, dev, CHR_EVENT_OPENED);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        err.text[0] = 0;
        if (!CHECK(chr_change(r.ctx, "c", bad[i], &err) < 0) || !CHECK(err.text[0])) NOTE("for %s", bad[i]);
    }
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INT(rec.changes, 0);
    CHECK(chr_find(r.ctx, "c") == dev);
    CHECK_INT(wire_closes, 0);
    CHECK_INT(chr_fe_write(&rec.fe, "still", 5), 5);
    CHECK_MEM(out, out_len, "still", 5);
    wire_input(&r, dev, "alive");
    CHECK_INPUT(&rec, "alive");
    detach(&rec);
    rig_close(&r);
}

TEST(change_refused_by_the_frontend_is_undone)
{
    chr_error err;
    chr_dev  *dev;
    recorder  rec;
    rig       r;
    open_wire_rig(&r);
    dev = make(&r, "wire,id=c");
    attach(&rec, dev);
    wire_event(&r, dev, CHR_EVENT_OPENED);
    rec.change_answer = -1;
    CHECK(chr_change(r.ctx, "c", "null", &err) < 0); /* null is closed, so CLOSED is sent before */
    settle(&r);
    CHECK_STR(rec.events, "OCO");
    CHECK_INT(rec.changes, 1);
    CHECK(chr_find(r.ctx, "c") == dev);
    CHECK(rec.fe.dev == dev);
    CHECK_INT(wire_closes, 0);
    CHECK_INT(chr_fe_write(&rec.fe, "still", 5), 5);
    wire_input(&r, dev, "alive");
    CHECK_INPUT(&rec, "alive");
    CHECK_INT(chr_change(r.ctx, "c", "ringbuf", &err) < 0, 1); /* open to open, refused: nothing has to be put back */
    settle(&r);
    CHECK_INT(rec.open, 1);
    CHECK(rec.fe.dev == dev);
    detach(&rec);
    rig_close(&r);
}

/* A hot swap calls `set_open` of a backend that has it: that of the old chardev before that of the new one. */
TEST(change_tells_backends_of_the_frontend)
{
    chr_error err;
    recorder  rec;
    rig       r;
    open_wire_rig(&r);
    attach(&rec, make(&r, "wire,id=c"));
    CHECK_STR(wire_story, "A");
    CHECK_INT(chr_change(r.ctx, "c", "wire", &err), 0);
    CHECK_STR(wire_story, "AaB");
    rec.change_answer = -1;
    CHECK_INT(chr_change(r.ctx, "c", "wire", &err), CHR_ERR_BUSY);
    CHECK_STR(wire_story, "AaBbCcB");
    rec.change_answer = 0;
    CHECK_INT(chr_change(r.ctx, "c", "null", &err), 0);
    CHECK_STR(wire_story, "AaBbCcBb");
    chr_fe_set_open(&rec.fe, 0);
    CHECK_INT(chr_change(r.ctx, "c", "wire", &err), 0); /* this side is closed: nothing to tell */
    CHECK_STR(wire_story, "AaBbCcBb");
    detach(&rec);
    CHECK_STR(wire_story, "AaBbCcBb");
    rig_close(&r);
}

static void write_in_change(recorder *rec, int what)
{
    if (what == 'c') rec->last_event = chr_fe_write(&rec->fe, "hello new", 9);
}

/* In `change` the new backend is behind the frontend already. */
TEST(change_handler_talks_to_the_new_one)
{
    chr_error err;
    recorder  rec;
    rig       r;
    open_wire_rig(&r);
    attach(&rec, make(&r, "wire,id=c"));
    rec.then = write_in_change;
    CHECK_INT(chr_change(r.ctx, "c", "ringbuf", &err), 0);
    CHECK_INT(chr_ringbuf_count(rec.fe.dev), 9);
    detach(&rec);
    rig_close(&r);
}

/* The same address again: either the old chardev releases it first, or the new one fails with the reason. One of the
 * two works in any case. */
TEST(change_to_the_same_address)
{
    char      options[200];
    chr_error err;
    recorder  rec;
    int       fd, code;
    rig       r;
    rig_open(&r);
    snprintf(options, sizeof options, "socket,id=c,path=%s,server=on,wait=off", scratch("s"));
    attach(&rec, make(&r, options));
    snprintf(options, sizeof options, "socket,path=%s,server=on,wait=off", scratch("s"));
    err.text[0] = 0;
    code = chr_change(r.ctx, "c", options, &err);
    if (code < 0) CHECK_HAS(err.text, place_of(scratch("s")));
    fd = unix_connect(scratch("s"));
    CHECK(fd >= 0);
    PUMP(&r, rec.open);
    say(fd, "x");
    PUMP(&r, rec.length == 1);
    close(fd);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(change_on_behalf_of_a_remote_user)
{
    char      options[100];
    int       fds[2];
    chr_error err;
    rig       r;
    rig_open_virtual(&r);
    socket_pair(fds);
    make(&r, "null,id=c");
    snprintf(options, sizeof options, "socket,fd=%d", fds[0]);
    CHECK(chr_change_from(r.ctx, CHR_REMOTE, "c", options, &err) < 0);
    CHECK_STR(chr_find(r.ctx, "c")->kind->name, "null");
    CHECK(fcntl(fds[0], F_GETFD) >= 0);
    CHECK_INT(chr_fd_put(r.ctx, "sock", fds[0], &err), 0);
    CHECK_INT(chr_change_from(r.ctx, CHR_REMOTE, "c", "socket,fd=sock", &err), 0);
    CHECK_STR(chr_find(r.ctx, "c")->kind->name, "socket");
    close(fds[1]);
    rig_close(&r);
}

TEST(change_many_times)
{
    chr_error err;
    recorder  rec;
    int       i;
    rig       r;
    open_wire_rig(&r);
    attach(&rec, make(&r, "wire,id=c"));
    for (i = 0; i < 100; i++) CHECK_INT(chr_change(r.ctx, "c", i % 3 == 0 ? "ringbuf" : i % 3 == 1 ? "wire" : "null", &err), 0);
    settle(&r);
    CHECK_INT(rec.changes, 100);
    CHECK_INT(wire_opens, 1 + 33);
    CHECK_INT(wire_closes, 1 + 33);
    detach(&rec);
    rig_close(&r);
}

/* ---- anything from inside any handler ---------------------------------------------------------------------------- */

static rig *here;

static void remove_oneself(recorder *rec, int what)
{
    chr_error err;
    if (what != *(const char *)rec->user) return;
    rec->then = NULL;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(here->ctx, "d", &err), 0);
}

static void check_removal_inside(const char *where)
{
    chr_dev *dev;
    recorder rec;
    rig      r;
    open_wire_rig(&r);
    here = &r;
    dev = make(&r, "wire,id=d");
    attach(&rec, dev);
    rec.then = remove_oneself;
    rec.user = (void *)(uintptr_t)where;
    if (*where == 'r') rec.then = NULL;
    wire_event(&r, dev, CHR_EVENT_OPENED);
    rec.then = *where == 'r' ? remove_oneself : rec.then;
    if (*where == 'r') wire_input(&r, dev, "x");
    CHECK(chr_find(r.ctx, "d") == NULL);
    CHECK_INT(wire_closes, 1);
    CHECK_INT(rec.fe.dev == NULL, 1);
    detach(&rec);
    rig_close(&r);
}

TEST(removed_in_its_event_handler)
{
    check_removal_inside("e");
}

TEST(removed_in_its_read_handler)
{
    check_removal_inside("r");
}

static void read_and_remove_socket(recorder *rec, int what)
{
    chr_error err;
    if (what != 'r' || rec->user) return;
    rec->user = rec;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(here->ctx, "d", &err), 0);
    CHECK(chr_new(here->ctx, "ringbuf,id=d", &err) != NULL); /* the id is free at once */
}

TEST(socket_removed_in_its_read_handler)
{
    char     options[100];
    int      fds[2];
    recorder rec;
    rig      r;
    rig_open(&r);
    here = &r;
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=d,fd=%d", fds[0]);
    attach(&rec, make(&r, options));
    rec.then = read_and_remove_socket;
    say(fds[1], "x");
    settle(&r);
    CHECK_INPUT(&rec, "x");
    CHECK_STR(hear(fds[1]), "(eof)");
    CHECK_STR(rec.events, "O");
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}

/* With more input still unread in the same wake-up, nothing more comes after the removal. */
TEST(removed_while_more_input_waits)
{
    static char big[200000];
    char        options[100];
    int         fds[2];
    recorder    rec;
    rig         r;
    rig_open(&r);
    here = &r;
    socket_pair(fds);
    fcntl(fds[1], F_SETFL, O_NONBLOCK);
    CHECK(write(fds[1], big, sizeof big) > 65536);
    snprintf(options, sizeof options, "socket,id=d,fd=%d", fds[0]);
    attach_with_room(&rec, make(&r, options), 10);
    rec.then = read_and_remove_socket;
    settle(&r);
    CHECK_INT(rec.length, 10);
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}

static void replace_handlers(recorder *rec, int what)
{
    if (what != 'r') return;
    rec->then = NULL;
    listen_to(rec);
}

TEST(handlers_set_anew_in_the_read_handler)
{
    chr_dev *dev;
    recorder rec;
    rig      r;
    open_wire_rig(&r);
    dev = make(&r, "wire,id=d");
    attach(&rec, dev);
    wire_event(&r, dev, CHR_EVENT_OPENED);
    rec.then = replace_handlers;
    wire_input(&r, dev, "x");
    CHECK_STR(rec.events, "OO");
    wire_input(&r, dev, "y");
    CHECK_INPUT(&rec, "xy");
    detach(&rec);
    rig_close(&r);
}

static void change_backend(recorder *rec, int what)
{
    chr_error err;
    if (what != 'r') return;
    rec->then = NULL;
    CHECK_INT(chr_change(here->ctx, "d", "ringbuf", &err), 0);
}

TEST(changed_in_its_read_handler)
{
    char     options[100];
    int      fds[2];
    recorder rec;
    rig      r;
    rig_open(&r);
    here = &r;
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=d,fd=%d", fds[0]);
    attach(&rec, make(&r, options));
    rec.then = change_backend;
    say(fds[1], "x");
    settle(&r);
    CHECK_STR(hear(fds[1]), "(eof)");
    CHECK_INT(rec.changes, 1);
    CHECK_INT(rec.open, 1);
    CHECK_STR(chr_find(r.ctx, "d")->kind->name, "ringbuf");
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}

static void remove_other(recorder *rec, int what)
{
    recorder *other = (recorder *)rec->user;
    if (what != 'r' || !other) return;
    rec->user = NULL;
    chr_fe_deinit(&other->fe);
    other->user = NULL;
    CHECK_INT(chr_remove(here->ctx, rec->fe.dev->id[0] == 'a' ? "b" : "a", NULL), 0);
}

/* Two sockets are readable in the same wake-up; the first removes the other. */
TEST(one_removes_another_that_is_ready_too)
{
    char     options[100];
    int      a[2], b[2];
    recorder first, second;
    rig      r;
    rig_open(&r);
    here = &r;
    socket_pair(a);
    socket_pair(b);
    snprintf(options, sizeof options, "socket,id=a,fd=%d", a[0]);
    attach(&first, make(&r, options));
    snprintf(options, sizeof options, "socket,id=b,fd=%d", b[0]);
    attach(&second, make(&r, options));
    settle(&r);
    first.then = second.then = remove_other;
    first.user = &second;
    second.user = &first;
    say(a[1], "x");
    say(b[1], "x");
    settle(&r);
    CHECK_INT(first.length + second.length, 1);
    close(a[1]), close(b[1]);
    detach(&first), detach(&second);
    rig_close(&r);
}

static void make_more(recorder *rec, int what)
{
    char options[50];
    if (what != 'r') return;
    snprintf(options, sizeof options, "ringbuf,id=new%d", (int)rec->length);
    make(here, options);
}

TEST(chardevs_made_inside_handlers)
{
    char     options[100];
    int      fds[2], i;
    recorder rec;
    rig      r;
    rig_open(&r);
    here = &r;
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=d,fd=%d", fds[0]);
    attach(&rec, make(&r, options));
    rec.then = make_more;
    for (i = 0; i < 20; i++) {
        say(fds[1], "x");
        settle(&r);
    }
    CHECK(chr_find(r.ctx, "new1") != NULL);
    CHECK(chr_find(r.ctx, "new20") != NULL);
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}

static int creation_done;

static void note_early_event(recorder *rec, int what)
{
    (void)rec;
    if (what == 'e') CHECK(creation_done);
}

/* Creating a chardev calls no handler of anybody's, nor does a write or a disconnect. */
TEST(calls_do_not_call_back)
{
    char     options[100];
    int      fds[2];
    recorder rec;
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=d,fd=%d", fds[0]);
    attach(&rec, make(&r, options));
    settle(&r);
    CHECK_STR(rec.events, "O");
    rec.then = note_early_event;
    close(fds[1]);
    CHECK(write_to_nobody(&rec.fe) < 0);
    CHECK(chr_fe_write(&rec.fe, "x", 1) < 0);
    CHECK_STR(rec.events, "O");
    creation_done = 1;
    settle(&r);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

static void try_to_block(recorder *rec, int what)
{
    char      byte;
    chr_error err;
    if (what != 'r') return;
    CHECK_INT(chr_fe_write_all(&rec->fe, "x", 1, -1), CHR_ERR_IN_HANDLER);
    CHECK_INT(chr_fe_read_all(&rec->fe, &byte, 1, -1), CHR_ERR_IN_HANDLER);
    CHECK_INT(chr_fe_wait_connected(&rec->fe, &err), CHR_ERR_IN_HANDLER);
    CHECK_INT(chr_wait_connected(rec->fe.dev, &err), CHR_ERR_IN_HANDLER);
    CHECK(chr_new(here->ctx, "socket,id=w,host=127.0.0.1,port=0,server=on,wait=on", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_IN_HANDLER);
    rec->user = rec;
}

TEST(blocking_calls_refuse_inside_handlers)
{
    char     options[100];
    int      fds[2];
    recorder rec;
    rig      r;
    rig_open(&r);
    here = &r;
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=d,fd=%d", fds[0]);
    attach(&rec, make(&r, options));
    rec.then = try_to_block;
    say(fds[1], "x");
    settle(&r);
    CHECK(rec.user == &rec);
    CHECK_STR(hear(fds[1]), "");
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}

/* Who wants no message gets the code, also of what fails inside. */
TEST(change_without_an_error)
{
    recorder rec;
    rig      r;
    long     live;
    rig_open(&r);
    attach(&rec, make(&r, "null,id=c"));
    live = r.live;
    CHECK_INT(chr_change(r.ctx, "nobody", "null", NULL), CHR_ERR_NOT_FOUND);
    CHECK_INT(chr_change(r.ctx, "c", "ringbuf,size=3", NULL), CHR_ERR_INVALID);
    CHECK_INT(chr_change(r.ctx, "c", "ringbuf,colour=3", NULL), CHR_ERR_INVALID);
    CHECK_INT(chr_change(r.ctx, "c", "mux", NULL), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(r.live, live);
    r.fail_at = r.calls + 1;
    CHECK_INT(chr_change(r.ctx, "c", "ringbuf", NULL), CHR_ERR_NO_MEMORY);
    r.fail_at = 0;
    CHECK_INT(r.live, live);
    CHECK_INT(chr_change(r.ctx, "c", "ringbuf", NULL), 0);
    detach(&rec);
    rig_close(&r);
}

/* A mux and a hub describe themselves, except for comes_back, which is that of the chardevs below. */
TEST(what_stands_on_others_describes_itself)
{
    chr_info info;
    rig      r;
    rig_open(&r);
    make(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off");
    make(&r, "mux,id=m,chardev=s");
    make(&r, "null,id=n");
    make(&r, "socket,id=t,host=127.0.0.1,port=0,server=on,wait=off");
    make(&r, "hub,id=h,chardevs.0=t,chardevs.1=n");
    chr_query(chr_find(r.ctx, "m"), &info);
    CHECK_STR(info.filename, "mux");
    CHECK(info.comes_back && !info.address[0] && !info.peer[0]);
    chr_query(chr_find(r.ctx, "h"), &info);
    CHECK_STR(info.filename, "hub");
    CHECK(info.comes_back && !info.address[0] && !info.peer[0] && info.clients == 0);
    rig_close(&r);
}
