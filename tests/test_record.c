/* >>the_record and >>the_replay: recordings of real sockets, replayed under a virtual clock, and damaged files. */
#include "chardev.h"
#include "fault.h"

#include "rig.h"

/* ---- a file as bytes --------------------------------------------------------------------------------------------- */

enum { FILE_MOST = 1 << 16 };

typedef struct bytes {
    unsigned char data[FILE_MOST];
    size_t        len;
} bytes;

static void load(bytes *b, const char *path)
{
    FILE *file = fopen(path, "rb");
    REQUIRE(file != NULL);
    b->len = fread(b->data, 1, sizeof b->data, file);
    fclose(file);
}

static void save(const char *path, const void *data, size_t len)
{
    FILE *file = fopen(path, "wb");
    REQUIRE(file != NULL && fwrite(data, 1, len, file) == len);
    fclose(file);
}

/* The CRC-32 bit by bit, as a judge of the one in the header. */
static uint32_t crc_of(const unsigned char *record, size_t len)
{
    uint32_t crc = 0xffffffffu;
    size_t   i;
    int      bit;
    for (i = 0; i < len; i++) {
        if (i >= 4 && i < 8) continue;
        crc ^= record[i];
        for (bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
    }
    return ~crc;
}

static uint32_t le32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put32(unsigned char *p, uint32_t value)
{
    int i;
    for (i = 0; i < 4; i++) p[i] = (unsigned char)(value >> (8 * i));
}

/* Where record number n begins. */
static size_t record_at(const bytes *b, int n)
{
    size_t at = 24;
    while (n-- > 0) at += 28 + le32(b->data + at);
    return at;
}

static void mend(bytes *b, size_t at)
{
    put32(b->data + at + 4, crc_of(b->data + at, 28 + le32(b->data + at)));
}

/* ---- a session: the same device, once with a real peer and once with none ---------------------------------------- */

/* What the frontend meets, as text, with times: two runs are the same when their diaries are. */
typedef struct diary {
    rig         *r;
    chr_frontend fe;
    char         text[8192];
    size_t       used;
    int          room;
} diary;

static void note(diary *d, const char *what, const void *data, int len)
{
    d->used += (size_t)snprintf(d->text + d->used, sizeof d->text - d->used, "%lld %s %d [%.*s]\n",
                                (long long)(d->r->now - 1000000000), what, len, len > 0 ? len : 0, (const char *)data);
    REQUIRE(d->used < sizeof d->text);
}

static int diary_can_read(void *opaque) { return ((diary *)opaque)->room; }

static void diary_read(void *opaque, const void *buf, size_t len)
{
    diary *d = (diary *)opaque;
    d->room -= (int)len;
    note(d, "read", buf, (int)len);
}

static void diary_event(void *opaque, int event)
{
    note((diary *)opaque, "event", "", event);
    note((diary *)opaque, "eof", "", chr_fe_eof(&((diary *)opaque)->fe));
}

static int  diary_change(void *opaque) { (void)opaque; return 0; }
static void diary_writable(void *opaque) { note((diary *)opaque, "writable", "", 0); }

static void diary_attach(diary *d, rig *r, chr_dev *dev)
{
    static const chr_handlers handlers = { diary_can_read, diary_read, diary_event, diary_change };
    memset(d, 0, sizeof *d);
    d->r = r;
    d->room = 1000;
    REQUIRE(chr_fe_init(&d->fe, dev, NULL) == 0);
    chr_fe_set_handlers(&d->fe, &handlers, d);
}

static void diary_write(diary *d, const char *text)
{
    int n = chr_fe_write(&d->fe, text, strlen(text));
    note(d, "write", text, n);
}

static void at(rig *r, int64_t ns)
{
    r->now = 1000000000 + ns;
    settle(r);
}

static void far_side(int fd, const char *text)
{
    if (fd >= 0) CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

/* The peer's part is only there while recording: fd is -1 afterwards. Times are odd, so that none is a whole
 * millisecond. */
static void session(rig *r, const char *path, const char *options, diary *d)
{
    char     answer[64];
    chr_dev *dev = make(r, options);
    int      fd = path ? unix_connect(path) : -1, n;
    diary_attach(d, r, dev);
    diary_write(d, "nobody hears this");
    at(r, 1);
    diary_write(d, "hello");
    far_side(fd, "one");
    at(r, 1234567);
    d->room = 2;
    chr_fe_accept_input(&d->fe);
    far_side(fd, "twothree");
    at(r, 2000003);
    d->room = 100;
    chr_fe_accept_input(&d->fe);
    at(r, 2000005);
    diary_write(d, "answer");
    if (fd >= 0) CHECK_INT(read(fd, answer, sizeof answer), 11);
    far_side(fd, "eight");
    d->room = 0;
    chr_fe_accept_input(&d->fe);
    n = chr_fe_read_all(&d->fe, answer, 5, 1000);
    note(d, "read_all", answer, n);
    d->room = 100;
    chr_fe_accept_input(&d->fe);
    chr_fe_disconnect(&d->fe);
    at(r, 5000001);
    diary_write(d, "too late");
    if (fd >= 0) close(fd);
    fd = path ? unix_connect(path) : -1;
    at(r, 6000001);
    far_side(fd, "again");
    at(r, 7000001);
    note(d, "write_all", "", chr_fe_write_all(&d->fe, "all of it", 9, 100));
    if (fd >= 0) close(fd);
    at(r, 8000001);
    note(d, "ioctl", "", chr_fe_set_echo(&d->fe, 1));
}

static void record_session(const char *file, diary *d)
{
    rig         r;
    char        options[500];
    const char *path = scratch("socket");
    snprintf(options, sizeof options, "socket,id=con,path=%s,server=on,wait=off", path);
    rig_open_virtual(&r);
    REQUIRE(chr_record_start(r.ctx, file, NULL) == 0);
    session(&r, path, options, d);
    CHECK_INT(chr_record_stop(r.ctx), 0);
    CHECK_INT(chr_record_stop(r.ctx), CHR_ERR_NOT_FOUND);
    CHECK_STR(r.log, "");
    chr_fe_deinit(&d->fe);
    rig_close(&r);
}

TEST(played_again_byte_for_byte)
{
    static diary then, now;
    static bytes first, second;
    rig          r;
    const char  *file = scratch("tape"), *copy = scratch("copy");
    chr_error    err;
    record_session(file, &then);
    CHECK_HAS(then.text, "1 event 1");
    CHECK_HAS(then.text, "1234567 read 3 [one]");
    CHECK_HAS(then.text, "read 2 [tw]");
    CHECK_HAS(then.text, "2000005 read 6 [othree]");
    CHECK_HAS(then.text, "read_all 5 [eight]");
    CHECK_HAS(then.text, "5000001 write -2");
    CHECK_HAS(then.text, "7000001 read 5 [again]");
    CHECK_HAS(then.text, "write_all 9");
    rig_open_virtual(&r);
    if (!CHECK_INT(chr_replay_open(r.ctx, file, &err), 0)) NOTE("%s", err.text);
    CHECK_INT(chr_record_start(r.ctx, copy, &err), 0);
    session(&r, NULL, "socket,id=con,path=/nowhere/at/all,server=on", &now);
    CHECK_INT(chr_replay_over(r.ctx), 1);
    CHECK_STR(now.text, then.text);
    CHECK_STR(r.log, "");
    CHECK_INT(chr_record_stop(r.ctx), 0);
    chr_fe_deinit(&now.fe);
    rig_close(&r);
    load(&first, file);
    load(&second, copy);
    CHECK(first.len > 500);
    CHECK_MEM(second.data, second.len, first.data, first.len); /* a recording of the replay is the recording */
    scratch_clean();
}

/* A peer sends data and disconnects. `eof`: whether that is end of file of the chardev. fd is -1 in the replay. */
static void last_words(rig *r, diary *d, const char *options, int fd, int eof)
{
    diary_attach(d, r, make(r, options));
    at(r, 1000);
    far_side(fd, "last words");
    at(r, 2000);
    if (fd >= 0) close(fd);
    at(r, 3000);
    CHECK_INT(chr_fe_eof(&d->fe), eof);
    CHECK_STR(r->log, "");
    chr_fe_deinit(&d->fe);
    rig_close(r);
}

/* EOF of a descriptor ends all input, a disconnect of a server's peer does not: this is recorded, as a replay can't
 * query it. */
TEST(the_end_of_file_is_played_again)
{
    static diary then, now;
    int          is_server, fds[2], listener;
    char         options[500];
    rig          r;
    const char  *file = scratch("tape");
    for (is_server = 0; is_server < 2; is_server++) {
        rig_open_virtual(&r);
        REQUIRE(chr_record_start(r.ctx, file, NULL) == 0);
        if (is_server) {
            listener = unix_listen(scratch("socket"));
            fds[0] = unix_connect(scratch("socket"));
            snprintf(options, sizeof options, "socket,id=con,fd=%d,server=on,wait=off", listener);
        } else {
            socket_pair(fds);
            snprintf(options, sizeof options, "socket,id=con,fd=%d", fds[1]);
        }
        last_words(&r, &then, options, fds[0], !is_server);
        rig_open_virtual(&r);
        REQUIRE(chr_replay_open(r.ctx, file, NULL) == 0);
        last_words(&r, &now, "socket,id=con,path=/nowhere", -1, !is_server);
        CHECK_HAS(then.text, "last words");
        CHECK_STR(now.text, then.text);
    }
    scratch_clean();
}

/* Time that passes in one go changes when things come, not what comes, nor its order. */
TEST(time_is_counted_from_the_opening)
{
    static diary then;
    recorder     rec;
    rig          r;
    const char  *file = scratch("tape");
    record_session(file, &then);
    rig_open_virtual(&r);
    r.now = INT64_C(77000000000);
    REQUIRE(chr_replay_open(r.ctx, file, NULL) == 0);
    attach(&rec, make(&r, "null,id=con"));
    settle(&r);
    CHECK_INT(rec.length, 0);
    CHECK_INT(chr_loop_deadline(r.ctx), INT64_C(77000000001));
    r.now += 1234566;
    settle(&r);
    CHECK_INT(rec.length, 0);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_loop_deadline(r.ctx), INT64_C(77001234567));
    r.now += 1;
    settle(&r);
    CHECK_INPUT(&rec, "one");
    r.now += 100000000;
    settle(&r);
    CHECK_INPUT(&rec, "onetwothreeagain");
    CHECK_INT(chr_replay_over(r.ctx), 1);
    CHECK_INT(chr_loop_deadline(r.ctx), INT64_MAX);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* What commands about lines and terminals answered; what they brought back comes again. */
static void give_commands(diary *d)
{
    chr_terminal_size size = { 80, 24 }, nonsense = { -1, 0 };
    int               errors = 0, what = CHR_PURGE_RECEIVE | CHR_PURGE_TRANSMIT, none = 0;
    note(d, "set size", "", chr_fe_ioctl(&d->fe, CHR_IOCTL_SET_TERMINAL_SIZE, &size));
    note(d, "set nonsense", "", chr_fe_ioctl(&d->fe, CHR_IOCTL_SET_TERMINAL_SIZE, &nonsense));
    note(d, "get errors", "", chr_fe_ioctl(&d->fe, CHR_IOCTL_SERIAL_GET_ERRORS, &errors));
    note(d, "errors", "", errors);
    note(d, "purge", "", chr_fe_ioctl(&d->fe, CHR_IOCTL_SERIAL_PURGE, &what));
    note(d, "purge nothing", "", chr_fe_ioctl(&d->fe, CHR_IOCTL_SERIAL_PURGE, &none));
    note(d, "set errors", "", chr_fe_ioctl(&d->fe, CHR_IOCTL_SERIAL_SET_ERRORS, &what));
}

TEST(commands_are_played_again)
{
    static diary then, now;
    char         options[100];
    const char  *file = scratch("tape");
    int          fds[2];
    rig          r;
    rig_open_virtual(&r);
    REQUIRE(chr_record_start(r.ctx, file, NULL) == 0);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=con,fd=%d,telnet=on,com-port=on", fds[1]);
    diary_attach(&then, &r, make(&r, options));
    CHECK(write(fds[0], "\xff\xfd\x2c" "a\xff\xfa\x2c\x6a\x06\xff\xf0" "b", 12) == 12);
    at(&r, 5);
    give_commands(&then);
    CHECK_INT(chr_record_stop(r.ctx), 0);
    chr_fe_deinit(&then.fe);
    close(fds[0]);
    rig_close(&r);
    CHECK_HAS(then.text, "event 7"); /* LINE_ERROR */
    CHECK_HAS(then.text, "set size 0");
    CHECK_HAS(then.text, "errors 6");
    CHECK_HAS(then.text, "purge 0");
    rig_open_virtual(&r);
    REQUIRE(chr_replay_open(r.ctx, file, NULL) == 0);
    diary_attach(&now, &r, make(&r, "null,id=con"));
    at(&r, 5);
    give_commands(&now);
    CHECK_STR(now.text, then.text);
    CHECK_STR(r.log, "");
    chr_fe_deinit(&now.fe);
    rig_close(&r);
    scratch_clean();
}

/* ---- bare chardevs, driven by hand ------------------------------------------------------------------------------- */

TEST(what_is_there_already_is_recorded_too)
{
    rig         r;
    recorder    rec;
    const char *file = scratch("tape");
    rig_open_virtual(&r);
    attach(&rec, make(&r, "ringbuf,id=r"));
    settle(&r);
    REQUIRE(chr_record_start(r.ctx, file, NULL) == 0);
    CHECK_INT(chr_record_start(r.ctx, scratch("other"), NULL), CHR_ERR_BUSY);
    CHECK_INT(chr_fe_write(&rec.fe, "abc", 3), 3);
    r.now += 5;
    chr_be_write(rec.fe.dev, "in", 2);
    CHECK_INT(chr_send_break(r.ctx, "r", NULL), 0);
    chr_be_event(rec.fe.dev, CHR_EVENT_BREAK);
    CHECK_STR(rec.events, "OBB");
    detach(&rec);
    rig_close(&r); /* ends the recording */

    rig_open_virtual(&r);
    REQUIRE(chr_replay_open(r.ctx, file, NULL) == 0);
    CHECK_INT(chr_replay_open(r.ctx, file, NULL), CHR_ERR_BUSY);
    attach(&rec, make(&r, "ringbuf,id=r"));
    CHECK_STR(rec.events, "O"); /* at once, as it is open from creation */
    CHECK_INT(chr_fe_write(&rec.fe, "abc", 3), 3);
    r.now += 5;
    settle(&r);
    CHECK_STR(rec.events, "OB"); /* what the program itself sent is the program's to send again */
    CHECK_INPUT(&rec, "in");
    CHECK_STR(r.log, "");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* Under a mux the base is what was recorded; the mux lives on it, and so do its frontends. */
TEST(a_mux_lives_on_what_is_played)
{
    rig         r;
    recorder    a, b;
    const char *file = scratch("tape");
    int         turn;
    for (turn = 0; turn < 2; turn++) {
        rig_open_virtual(&r);
        REQUIRE((turn ? chr_replay_open : chr_record_start)(r.ctx, file, NULL) == 0);
        make(&r, "ringbuf,id=m,mux=on");
        memset(&a, 0, sizeof a);
        attach(&a, chr_find(r.ctx, "m"));
        attach(&b, chr_find(r.ctx, "m"));
        settle(&r);
        r.now += 1000;
        if (!turn) chr_be_write(chr_find(r.ctx, "m-base"), "to b\001cto a", 10);
        settle(&r);
        CHECK_INPUT(&b, "to b");
        CHECK_INPUT(&a, "to a");
        CHECK_INT(chr_fe_write(&a.fe, "out", 3), 3);
        CHECK_STR(r.log, "");
        detach(&a);
        detach(&b);
        rig_close(&r);
    }
    scratch_clean();
}

TEST(an_id_made_twice_is_played_in_that_order)
{
    rig         r;
    recorder    rec;
    const char *file = scratch("tape");
    int         turn;
    for (turn = 0; turn < 2; turn++) {
        rig_open_virtual(&r);
        REQUIRE((turn ? chr_replay_open : chr_record_start)(r.ctx, file, NULL) == 0);
        attach(&rec, make(&r, "ringbuf,id=x"));
        rec.early_input_allowed = 1; /* the null is never open */
        settle(&r);
        if (!turn) chr_be_write(rec.fe.dev, "first", 5);
        settle(&r);
        CHECK_INT(chr_change(r.ctx, "x", "null", NULL), 0);
        r.now += 10;
        settle(&r);
        CHECK_INT(chr_fe_write(&rec.fe, "to null", 7), 7);
        if (!turn) chr_be_write(rec.fe.dev, "second", 6);
        settle(&r);
        CHECK_INPUT(&rec, "firstsecond");
        CHECK_STR(rec.events, "OC");
        CHECK_INT(rec.changes, 1);
        CHECK_STR(r.log, "");
        detach(&rec);
        if (turn) CHECK(make(&r, "ringbuf,id=fresh") != NULL); /* one that it does not know is real */
        rig_close(&r);
    }
    scratch_clean();
}

TEST(a_failed_creation_fails_again)
{
    rig         r;
    chr_error   then, now;
    const char *file = scratch("tape");
    rig_open_virtual(&r);
    REQUIRE(chr_record_start(r.ctx, file, NULL) == 0);
    CHECK(chr_new(r.ctx, "file,id=f,path=/nowhere/at/all", &then) == NULL);
    CHECK(chr_new(r.ctx, "file,id=f,path=/dev/null", NULL) != NULL);
    rig_close(&r);
    rig_open_virtual(&r);
    REQUIRE(chr_replay_open(r.ctx, file, NULL) == 0);
    CHECK(chr_new(r.ctx, "file,id=f,path=/dev/null", &now) == NULL);
    CHECK_STR(now.text, then.text);
    CHECK_INT(now.code, then.code);
    CHECK(chr_new(r.ctx, "file,id=f,path=/nowhere/at/all", NULL) != NULL);
    CHECK(chr_new(r.ctx, "file,id=g,path=/dev/null,no-such=1", NULL) == NULL);
    rig_close(&r);
    scratch_clean();
}

/* A far side that does not read: would-block, then writable, at the same moments. */
/* A socket can't be read; what is played in its place could. */
TEST(a_read_that_is_not_supported_is_so_again)
{
    int         replays;
    const char *file = scratch("tape");
    for (replays = 0; replays < 2; replays++) {
        rig          r;
        char         buf[8];
        chr_frontend fe;
        rig_open_virtual(&r);
        REQUIRE((replays ? chr_replay_open : chr_record_start)(r.ctx, file, NULL) == 0);
        REQUIRE(chr_fe_init(&fe, make(&r, "testdev,id=t"), NULL) == 0);
        CHECK_INT(chr_fe_read_all(&fe, buf, sizeof buf, 0), CHR_ERR_NOT_SUPPORTED);
        CHECK_INT(chr_fe_write(&fe, "x", 1), 1);
        CHECK_INT(r.logs, 0);
        chr_fe_deinit(&fe);
        rig_close(&r);
    }
    scratch_clean();
}

TEST(would_block_and_writable)
{
    static char big[1 << 20];
    rig         r;
    diary       d;
    int         turn, fds[2], n[2][4], i;
    char        options[100];
    static char text[2][sizeof d.text];
    const char *file = scratch("tape");
    for (turn = 0; turn < 2; turn++) {
        rig_open_virtual(&r);
        REQUIRE((turn ? chr_replay_open : chr_record_start)(r.ctx, file, NULL) == 0);
        if (turn) snprintf(options, sizeof options, "null,id=s");
        else REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
        if (!turn) snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
        diary_attach(&d, &r, make(&r, options));
        settle(&r);
        n[turn][0] = chr_fe_write(&d.fe, big, sizeof big);
        n[turn][1] = chr_fe_write(&d.fe, big, sizeof big);
        n[turn][2] = chr_fe_write_all(&d.fe, big, 10, 0);
        chr_fe_add_watch(&d.fe, diary_writable, &d);
        at(&r, 1001);
        for (i = 0; !turn && recv(fds[1], big, sizeof big, MSG_DONTWAIT) > 0; i++) at(&r, 2003);
        at(&r, 2003);
        memset(big, 0, sizeof big);
        at(&r, 2006);
        if (!turn) close(fds[1]);
        at(&r, 3007);
        n[turn][3] = chr_fe_write(&d.fe, "x", 1);
        memcpy(text[turn], d.text, sizeof d.text);
        chr_fe_deinit(&d.fe);
        CHECK_STR(r.log, "");
        rig_close(&r);
    }
    CHECK(n[0][0] > 0);
    CHECK_INT(n[0][1], CHR_ERR_WOULD_BLOCK);
    CHECK_INT(n[0][2], CHR_ERR_TIMEOUT);
    for (i = 0; i < 4; i++) CHECK_INT(n[1][i], n[0][i]);
    CHECK_HAS(text[0], "writable");
    CHECK_STR(text[1], text[0]);
    scratch_clean();
}

/* Input, an answer and the end in one moment: the end waits for the answer, and when that does not come, for the
 * moment to pass. */
TEST(what_came_after_a_call_comes_after_it_again)
{
    rig         r;
    recorder    rec;
    int         turn, fds[2];
    char        options[100];
    const char *file = scratch("tape");
    for (turn = 0; turn < 3; turn++) {
        rig_open_virtual(&r);
        REQUIRE((turn ? chr_replay_open : chr_record_start)(r.ctx, file, NULL) == 0);
        snprintf(options, sizeof options, "null,id=s");
        if (turn == 0) socket_pair(fds);
        if (turn == 0) snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
        attach(&rec, make(&r, options));
        r.now += 1000;
        if (turn == 0) say(fds[1], "quit");
        settle(&r);
        CHECK_INPUT(&rec, "quit");
        CHECK_STR(rec.events, "O");
        if (turn < 2) CHECK_INT(chr_fe_write(&rec.fe, "bye", 3), 3);
        else r.now += 1;
        if (turn == 0) close(fds[1]);
        settle(&r);
        CHECK_STR(rec.events, "OC");
        detach(&rec);
        rig_close(&r);
    }
    scratch_clean();
}

/* ---- in one moment ----------------------------------------------------------------------------------------------- */

/* Two chardevs whose frontends write into one diary. */
typedef struct moment {
    rig      r;
    recorder a, b;
    int      fds[2][2]; /* ours, theirs; of `a` and `b`, while it is recorded */
    char     text[200];
} moment;

static moment *moment_now;

static void moment_note(recorder *rec, int what)
{
    size_t used = strlen(moment_now->text);
    snprintf(moment_now->text + used, sizeof moment_now->text - used, "%c%c ", rec == &moment_now->a ? 'a' : 'b',
             what == 'e' ? recorder_letter(rec->last_event) : what);
}

static void moment_begin(moment *m, const char *file, int is_replay)
{
    memset(m, 0, sizeof *m);
    moment_now = m;
    rig_open_virtual(&m->r);
    REQUIRE((is_replay ? chr_replay_open : chr_record_start)(m->r.ctx, file, NULL) == 0);
    if (!is_replay) socket_pair(m->fds[0]), socket_pair(m->fds[1]);
}

static void moment_make(moment *m, recorder *rec, const char *id, int is_replay)
{
    char options[100];
    snprintf(options, sizeof options, is_replay ? "null,id=%s" : "socket,id=%s,fd=%d", id, m->fds[rec == &m->b][0]);
    memset(rec, 0, sizeof *rec);
    rec->room = UNLIMITED;
    rec->then = moment_note;
    REQUIRE(chr_fe_init(&rec->fe, make(&m->r, options), NULL) == 0);
    listen_to(rec);
}

static void moment_end(moment *m, int is_replay)
{
    CHECK_STR(m->r.log, "");
    detach(&m->a);
    detach(&m->b);
    if (!is_replay) close(m->fds[0][1]), close(m->fds[1][1]);
    rig_close(&m->r);
}

/* Runs it with real peers, then from the recording, and compares what came. */
static void check_moment(const char *expected, void (*run)(moment *m, int is_replay))
{
    static moment m;
    int           is_replay;
    const char   *file = scratch("tape");
    for (is_replay = 0; is_replay < 2; is_replay++) {
        moment_begin(&m, file, is_replay);
        run(&m, is_replay);
        CHECK_STR(m.text, expected);
        moment_end(&m, is_replay);
    }
    scratch_clean();
}

/* One that is made later in the moment has its events first, when they were first. */
static void run_made_later(moment *m, int is_replay)
{
    moment_make(m, &m->a, "a", is_replay);
    settle(&m->r);
    moment_make(m, &m->b, "b", is_replay);
    settle(&m->r);
    if (!is_replay) say(m->fds[0][1], "x");
    settle(&m->r);
}

TEST(of_two_chardevs_made_in_one_moment) { check_moment("aO bO ar ", run_made_later); }

/* What a call has raised, and what came by itself behind it. */
static void run_raised_and_come(moment *m, int is_replay)
{
    moment_make(m, &m->a, "a", is_replay);
    settle(&m->r);
    m->r.now += 1000;
    chr_fe_write(&m->a.fe, "x", 1);
    chr_fe_disconnect(&m->a.fe);
    moment_make(m, &m->b, "b", is_replay);
    settle(&m->r);
    if (!is_replay) say(m->fds[1][1], "x");
    settle(&m->r);
    m->r.now += 1000;
    settle(&m->r);
}

TEST(what_a_call_has_raised_comes_first) { check_moment("aO bO aC br ", run_raised_and_come); }

/* The frontend's side of one comes before the event of the other. */
static void run_side_and_event(moment *m, int is_replay)
{
    moment_make(m, &m->a, "a", is_replay);
    moment_make(m, &m->b, "b", is_replay);
    settle(&m->r);
    m->r.now += 1000;
    settle(&m->r);
    chr_fe_set_open(&m->a.fe, 0);
    chr_fe_write(&m->a.fe, "x", 1);
    m->text[0] = 0;
    moment_note(&m->a, '!');
    if (!is_replay) say(m->fds[1][1], "x");
    settle(&m->r);
}

TEST(a_side_that_closes_and_an_event_elsewhere) { check_moment("a! br ", run_side_and_event); }

/* No write was refused before it. */
static void run_watch(moment *m, int is_replay)
{
    moment_make(m, &m->a, "a", is_replay);
    moment_make(m, &m->b, "b", is_replay);
    settle(&m->r);
    chr_fe_add_watch(&m->b.fe, recorder_writable, &m->b);
    settle(&m->r);
    chr_fe_add_watch(&m->a.fe, recorder_writable, &m->a);
    settle(&m->r);
    m->r.now += 1000;
    settle(&m->r);
    chr_fe_add_watch(&m->a.fe, recorder_writable, &m->a);
    settle(&m->r);
}

TEST(a_watch_that_no_refused_write_preceded) { check_moment("aO bO bw aw aw ", run_watch); }

/* A watch that is not there this time holds up what follows for no longer than its moment. */
TEST(a_watch_that_does_not_come_again)
{
    moment      m;
    const char *file = scratch("tape");
    int         is_replay;
    for (is_replay = 0; is_replay < 2; is_replay++) {
        moment_begin(&m, file, is_replay);
        moment_make(&m, &m.a, "a", is_replay);
        moment_make(&m, &m.b, "b", is_replay);
        settle(&m.r);
        if (!is_replay) chr_fe_add_watch(&m.a.fe, recorder_writable, &m.a);
        settle(&m.r);
        if (!is_replay) say(m.fds[1][1], "x");
        settle(&m.r);
        CHECK_STR(m.text, is_replay ? "aO bO " : "aO bO aw br ");
        m.r.now++;
        settle(&m.r);
        CHECK_STR(m.text, is_replay ? "aO bO br " : "aO bO aw br ");
        moment_end(&m, is_replay);
    }
    scratch_clean();
}

/* The frontend makes room in the moment in which the input comes. */
static void run_room(moment *m, int is_replay)
{
    moment_make(m, &m->a, "a", is_replay);
    moment_make(m, &m->b, "b", is_replay);
    settle(&m->r);
    m->a.room = 2;
    m->r.now += 1000;
    settle(&m->r);
    give_room(&m->a, 5);
    if (!is_replay) say(m->fds[0][1], "three");
    settle(&m->r);
    CHECK_INPUT(&m->a, "three");
}

TEST(room_that_comes_in_the_moment_of_the_input) { check_moment("aO bO ar ", run_room); }

/* While obuf= is still full the watch was not called. */
TEST(a_descriptor_that_is_ready_for_less_than_obuf_holds)
{
    static char big[1 << 20];
    rig         r;
    recorder    rec;
    char        options[100];
    int         turn, fds[2], n = 0;
    const char *file = scratch("tape");
    NEED_LITTLE_ROOM();
    for (turn = 0; turn < 2; turn++) {
        rig_open_virtual(&r);
        REQUIRE((turn ? chr_replay_open : chr_record_start)(r.ctx, file, NULL) == 0);
        snprintf(options, sizeof options, "null,id=s");
        if (!turn) socket_pair(fds);
        if (!turn) snprintf(options, sizeof options, "socket,id=s,fd=%d,obuf=10", fds[0]);
        attach(&rec, make(&r, options));
        settle(&r);
        for (n = 1; n > 0;) n = chr_fe_write(&rec.fe, big, sizeof big);
        CHECK_INT(n, CHR_ERR_WOULD_BLOCK);
        chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
        r.now += 1000;
        if (!turn) chr_be_writable(rec.fe.dev); /* as a backend says that is mistaken */
        settle(&r);
        CHECK_INT(rec.writable, 0);
        r.now += 1000;
        if (!turn) while (recv(fds[1], big, sizeof big, MSG_DONTWAIT) > 0) {}
        memset(big, 0, sizeof big);
        settle(&r);
        CHECK_INT(rec.writable, 1);
        CHECK_STR(r.log, "");
        detach(&rec);
        if (!turn) close(fds[1]);
        rig_close(&r);
    }
    scratch_clean();
}

TEST(to_read_nothing_succeeds_everywhere)
{
    int         turn;
    rig         r;
    recorder    rec;
    char        byte;
    const char *file = scratch("tape");
    for (turn = 0; turn < 2; turn++) {
        rig_open_virtual(&r);
        REQUIRE((turn ? chr_replay_open : chr_record_start)(r.ctx, file, NULL) == 0);
        attach(&rec, make(&r, "testdev,id=t"));
        CHECK_INT(chr_fe_read_all(&rec.fe, &byte, 0, 0), 0);
        CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
        CHECK_STR(r.log, "");
        detach(&rec);
        rig_close(&r);
    }
    scratch_clean();
}

/* ---- another frontend than then ---------------------------------------------------------------------------------- */

static void replay_writes(const char *file, const char *const *writes, rig *r)
{
    recorder rec;
    rig_open_virtual(r);
    REQUIRE(chr_replay_open(r->ctx, file, NULL) == 0);
    attach(&rec, make(r, "ringbuf,id=r"));
    r->now += 5;
    for (; *writes; writes++) CHECK_INT(chr_fe_write(&rec.fe, *writes, strlen(*writes)), (int)strlen(*writes));
    settle(r);
    detach(&rec);
    rig_close(r);
}

TEST(divergence_is_told_once)
{
    static const char *const same[] = { "abc", "def", NULL }, *const other[] = { "abc", "dxf", "more", "more", NULL },
                            *const split[] = { "a", "bc", NULL }, *const more[] = { "abc", "def", "ghi", NULL };
    rig         r;
    recorder    rec;
    const char *file = scratch("tape");
    rig_open_virtual(&r);
    REQUIRE(chr_record_start(r.ctx, file, NULL) == 0);
    attach(&rec, make(&r, "ringbuf,id=r"));
    chr_fe_write(&rec.fe, "abc", 3);
    chr_fe_write(&rec.fe, "def", 3);
    r.now += 1500000000;
    detach(&rec);
    rig_close(&r);
    replay_writes(file, same, &r);
    CHECK_STR(r.log, "");
    replay_writes(file, other, &r);
    CHECK_INT(r.logs, 1);
    CHECK_HAS(r.log, "chardev r: the replay diverges at 0.000000005 s, at byte 3 of the output (file offset ");
    CHECK_HAS(r.log, "other bytes");
    replay_writes(file, split, &r);
    CHECK_INT(r.logs, 1);
    CHECK_HAS(r.log, "at byte 0");
    replay_writes(file, more, &r);
    CHECK_INT(r.logs, 1);
    CHECK_HAS(r.log, "at byte 6 of the output");
    CHECK_HAS(r.log, "a write that was not made then");
    scratch_clean();
}

TEST(input_waits_for_room)
{
    rig         r;
    recorder    rec;
    const char *file = scratch("tape");
    rig_open_virtual(&r);
    REQUIRE(chr_record_start(r.ctx, file, NULL) == 0);
    attach(&rec, make(&r, "ringbuf,id=r"));
    chr_be_write(rec.fe.dev, "abcdef", 6);
    chr_be_event(rec.fe.dev, CHR_EVENT_BREAK);
    detach(&rec);
    rig_close(&r);
    rig_open_virtual(&r);
    REQUIRE(chr_replay_open(r.ctx, file, NULL) == 0);
    attach_with_room(&rec, make(&r, "ringbuf,id=r"), 2);
    settle(&r);
    CHECK_INPUT(&rec, ""); /* in its moment room for all of it may come still */
    CHECK_INT(r.logs, 0);
    r.now++;
    settle(&r);
    CHECK_INPUT(&rec, "ab");
    CHECK_STR(rec.events, "O");
    CHECK_INT(r.logs, 1);
    give_room(&rec, 3);
    settle(&r);
    CHECK_INPUT(&rec, "abcde");
    rec.room = 5; /* without a word */
    settle(&r);
    settle(&r);
    CHECK_INPUT(&rec, "abcdef");
    CHECK_STR(rec.events, "OB");
    CHECK_INT(r.logs, 1);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

static void close_the_replay(recorder *rec, int what)
{
    if (what == 'r') chr_replay_close(rec->fe.dev->ctx);
}

/* A replay opens nothing, so a peer is not accepted; after a failed creation the descriptor is unchanged. */
TEST(what_a_played_chardev_was_given_is_closed)
{
    char      options[80];
    int       fds[2];
    chr_error err;
    rig       r;
    rig_open_virtual(&r);
    CHECK_INT(chr_record_start(r.ctx, scratch("played"), &err), 0);
    make(&r, "null,id=x");
    CHECK_INT(chr_remove(r.ctx, "x", &err), 0);
    CHECK_INT(chr_record_stop(r.ctx), 0);
    CHECK_INT(chr_replay_open(r.ctx, scratch("played"), &err), 0);
    socket_pair(fds);
    snprintf(options, sizeof options, "fd,id=x,in=%d,out=%d,logfile=/no/such/directory", fds[0], fds[0]);
    CHECK(chr_new(r.ctx, options, &err) == NULL);
    CHECK_STR(hear(fds[1]), "");
    snprintf(options, sizeof options, "fd,id=x,in=%d,out=%d", fds[0], fds[0]);
    make(&r, options);
    CHECK_STR(hear(fds[1]), "(eof)");
    close(fds[1]);
    rig_close(&r);
    scratch_clean();
}

static void record_at_closed(void *opaque, int event)
{
    if (event == CHR_EVENT_CLOSED) CHECK_INT(chr_record_start((chr_context *)opaque, scratch("late"), NULL), 0);
}

TEST(a_recording_that_begins_as_the_context_is_freed_is_ended)
{
    static const chr_handlers handlers = { NULL, NULL, record_at_closed, NULL };
    chr_frontend fe;
    rig          r;
    rig_open_virtual(&r);
    memset(&fe, 0, sizeof fe);
    REQUIRE(chr_fe_init(&fe, make(&r, "ringbuf,id=x"), NULL) == 0);
    chr_fe_set_handlers(&fe, &handlers, r.ctx);
    settle(&r);
    CHECK(fe.opened_delivered);
    rig_close(&r);
    CHECK(exists(scratch("late")));
    scratch_clean();
}

TEST(closed_in_the_middle)
{
    static diary then;
    rig          r;
    recorder     rec;
    const char  *file = scratch("tape");
    record_session(file, &then);
    rig_open_virtual(&r);
    REQUIRE(chr_replay_open(r.ctx, file, NULL) == 0);
    attach(&rec, make(&r, "null,id=con"));
    rec.then = close_the_replay;
    pass_time(&r, 1000);
    CHECK_INPUT(&rec, "one");
    CHECK_INT(chr_fe_write(&rec.fe, "dropped", 7), 7);
    CHECK_INT(chr_fe_disconnect(&rec.fe), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_replay_over(r.ctx), 0);
    chr_replay_close(r.ctx);
    CHECK_INT(chr_replay_open(r.ctx, file, NULL), 0);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

static void remove_itself(recorder *rec, int what)
{
    chr_context *ctx = rec->fe.dev->ctx;
    if (what != 'r') return;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(ctx, "con", NULL), 0);
}

TEST(removed_in_its_own_handler)
{
    static diary then;
    rig          r;
    recorder     rec;
    const char  *file = scratch("tape");
    record_session(file, &then);
    rig_open_virtual(&r);
    REQUIRE(chr_replay_open(r.ctx, file, NULL) == 0);
    attach(&rec, make(&r, "null,id=con"));
    rec.then = remove_itself;
    pass_time(&r, 1000);
    CHECK_INPUT(&rec, "one");
    free(rec.input);
    rig_close(&r);
    scratch_clean();
}

/* ---- files that are not what they were --------------------------------------------------------------------------- */

static int open_bytes(rig *r, const char *path, const void *data, size_t len, chr_error *err)
{
    int code;
    save(path, data, len);
    memset(err, 0, sizeof *err);
    code = chr_replay_open(r->ctx, path, err);
    if (code == 0) chr_replay_close(r->ctx);
    CHECK(code == 0 || (err->code == code && err->text[0] && !strchr(err->text, '\n') && strstr(err->text, "offset ")));
    return code;
}

TEST(cut_off_at_every_offset)
{
    static diary then;
    static bytes whole;
    rig          r;
    chr_error    err;
    size_t       len, at = 24;
    char         want[80];
    const char  *file = scratch("tape"), *cut = scratch("cut");
    record_session(file, &then);
    load(&whole, file);
    rig_open_virtual(&r);
    for (len = 0; len < whole.len; len++) {
        if (len >= at + 28 + le32(whole.data + at)) at += 28 + le32(whole.data + at);
        if (!CHECK_INT(open_bytes(&r, cut, whole.data, len, &err), CHR_ERR_INVALID)) NOTE("cut at %zu", len);
        snprintf(want, sizeof want, "cut off in the record at offset %zu", len < 24 ? (size_t)0 : at);
        CHECK_HAS(err.text, want);
    }
    CHECK_INT(open_bytes(&r, cut, whole.data, whole.len, &err), 0);
    whole.data[whole.len] = 0;
    CHECK_INT(open_bytes(&r, cut, whole.data, whole.len + 1, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "more behind the end");
    rig_close(&r);
    scratch_clean();
}

/* Each bit of the file but those of the clock, which is only for people. */
TEST_WITHIN(corrupt_at_every_offset, 120)
{
    static diary then;
    static bytes whole;
    rig          r;
    chr_error    err;
    size_t       at;
    int          bit;
    const char  *file = scratch("tape"), *bad = scratch("bad");
    record_session(file, &then);
    load(&whole, file);
    rig_open_virtual(&r);
    for (at = 0; at < whole.len; at++)
        for (bit = at >= 16 && at < 24 ? 8 : 0; bit < 8; bit++) {
            whole.data[at] ^= (unsigned char)(1 << bit);
            if (!CHECK_INT(open_bytes(&r, bad, whole.data, whole.len, &err), CHR_ERR_INVALID)) NOTE("byte %zu, bit %d", at, bit);
            whole.data[at] ^= (unsigned char)(1 << bit);
        }
    put32(whole.data + 8, 2);
    CHECK_INT(open_bytes(&r, bad, whole.data, whole.len, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "a recording of version 2, and only 1 is known (offset 8)");
    whole.data[0] = 'C';
    CHECK_INT(open_bytes(&r, bad, whole.data, whole.len, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "not a recording (offset 0)");
    rig_close(&r);
    scratch_clean();
}

/* Records whose checksum is right and whose contents lie. */
TEST(lies_with_a_right_checksum)
{
    static diary then;
    static bytes whole, lie;
    rig          r;
    chr_error    err;
    char         want[80];
    const char  *file = scratch("tape"), *bad = scratch("bad");
    size_t       at = 0;
    int          i, write_record = 0;
    static const struct { int record, byte; uint32_t value; const char *why; } lies[] = {
        { 0, 10, 0x0002, "unknown chardev" },     /* a result before there is a chardev */
        { 0, 8, 0x10001, "impossible id" },       /* chardev 1 before chardev 0 */
        { 1, 10, 0x0e, "unknown kind" },
        { 1, 10, 0, "unknown kind" },
        { 1, 10, 0x0103, "unknown kind" },        /* input inside a call */
        { 1, 8, 0x30007, "unknown chardev" },
        { 1, 16, 0x7fffffff, "time runs backwards" },
        { 1, 16, 0x80000000, "time runs backwards" },
        { 2, 10, 0x000c, "more behind the end" }, /* an early end */
        { -1, 20, 0x7fffffff, "more than there is" },
        { -1, 24, 0, "more than there is" },
    };
    record_session(file, &then);
    load(&whole, file);
    while (whole.data[record_at(&whole, write_record) + 10] != 6) write_record++;
    rig_open_virtual(&r);
    for (i = 0; i < (int)(sizeof lies / sizeof lies[0]); i++) {
        lie = whole;
        at = record_at(&lie, lies[i].record < 0 ? write_record : lies[i].record);
        if (lies[i].byte == 8 || lies[i].byte == 10) {
            lie.data[at + (size_t)lies[i].byte] = (unsigned char)lies[i].value;
            lie.data[at + (size_t)lies[i].byte + 1] = (unsigned char)(lies[i].value >> 8);
        } else {
            put32(lie.data + at + lies[i].byte, lies[i].value);
        }
        mend(&lie, at);
        if (!CHECK_INT(open_bytes(&r, bad, lie.data, lie.len, &err), CHR_ERR_INVALID)) NOTE("lie %d", i);
        snprintf(want, sizeof want, "offset %zu", at);
        if (lies[i].record != 2) CHECK_HAS(err.text, want);
        if (!CHECK_HAS(err.text, lies[i].why)) NOTE("lie %d", i);
    }
    rig_close(&r);
    scratch_clean();
}

/* ---- trouble with files and memory ------------------------------------------------------------------------------- */

TEST(paths_that_do_not_work)
{
    rig       r;
    chr_error err;
    rig_open_virtual(&r);
    CHECK_INT(chr_record_start(r.ctx, "/nowhere/at/all", &err), CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, "/nowhere/at/all");
    CHECK_INT(chr_replay_open(r.ctx, "/nowhere/at/all", &err), CHR_ERR_NOT_FOUND);
    CHECK(chr_replay_open(r.ctx, "/dev/null", &err) < 0);
    CHECK(chr_replay_open(r.ctx, "/", &err) < 0);
    CHECK_INT(chr_record_start(r.ctx, "/dev/full", &err), CHR_ERR_NO_SPACE);
    CHECK_INT(chr_record_stop(r.ctx), CHR_ERR_NOT_FOUND);
    rig_close(&r);
}

TEST(a_full_disk_ends_the_recording_only)
{
    rig         r;
    recorder    rec;
    const char *file = scratch("tape");
    rig_open_virtual(&r);
    REQUIRE(chr_record_start(r.ctx, file, NULL) == 0);
    attach(&rec, make(&r, "ringbuf,id=r"));
    fault_arm(FAULT_write, ENOSPC, 1, 0);
    CHECK_INT(chr_fe_write(&rec.fe, "abc", 3), 3);
    fault_disarm();
    CHECK_INT(r.logs, 1);
    CHECK_INT(chr_fe_write(&rec.fe, "def", 3), 3);
    chr_be_write(rec.fe.dev, "in", 2);
    CHECK_INPUT(&rec, "in");
    CHECK_INT(chr_record_stop(r.ctx), CHR_ERR_NOT_FOUND);
    CHECK_INT(r.logs, 1);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(out_of_memory)
{
    static diary then;
    rig          r;
    chr_error    err;
    const char  *file = scratch("tape");
    long         n;
    int          code = CHR_ERR_NO_MEMORY;
    record_session(file, &then);
    for (n = 1; code < 0 && n < 50; n++) {
        rig_open_virtual(&r);
        r.fail_at = r.calls + n;
        code = chr_replay_open(r.ctx, file, &err);
        CHECK(code == 0 || code == CHR_ERR_NO_MEMORY);
        rig_close(&r);
    }
    CHECK(n > 3 && code == 0);
    rig_open_virtual(&r);
    r.fail_at = r.calls + 1;
    CHECK_INT(chr_record_start(r.ctx, scratch("other"), &err), CHR_ERR_NO_MEMORY);
    rig_close(&r);
    scratch_clean();
}

/* The file has numbers for 65536 chardevs: the next one ends the recording, with a line in the log. */
TEST(a_recording_that_runs_out_of_numbers)
{
    chr_error err;
    rig       r;
    int       i;
    rig_open(&r);
    CHECK_INT(chr_record_start(r.ctx, scratch("r"), &err), 0);
    for (i = 0; i < 65536; i++) {
        make(&r, "null,id=n");
        REQUIRE(chr_remove(r.ctx, "n", NULL) == 0);
    }
    CHECK_INT(r.logs, 0);
    make(&r, "null,id=late");
    CHECK_INT(r.logs, 1);
    CHECK_HAS(r.log, "65536");
    CHECK_INT(chr_record_stop(r.ctx), CHR_ERR_NOT_FOUND);
    rig_close(&r);
    scratch_clean();
}

/* ---- the file's layout, as the manual has it --------------------------------------------------------------------- */

/* A line for each record: number kind inside time value extra [data]. The checksums are right. */
static const char *tape_text(const bytes *tape)
{
    static char text[8192];
    size_t      at, used = 0, i;
    for (at = 24; at < tape->len; at += 28 + le32(tape->data + at)) {
        const unsigned char *head = tape->data + at;
        REQUIRE(at + 28 + le32(head) <= tape->len);
        CHECK_INT(le32(head + 4), crc_of(head, 28 + le32(head)));
        CHECK_INT(le32(head + 16), 0); /* the upper half of the time */
        used += (size_t)snprintf(text + used, sizeof text - used, "%d %d %d %u %d %u [", head[8] | head[9] << 8, head[10], head[11],
                                 (unsigned)le32(head + 12), (int)le32(head + 20), (unsigned)le32(head + 24));
        for (i = 0; i < le32(head) && used + 40 < sizeof text; i++)
            used += (size_t)snprintf(text + used, sizeof text - used, head[28 + i] >= ' ' && head[28 + i] < 127 ? "%c" : "\\%02x", head[28 + i]);
        used += (size_t)snprintf(text + used, sizeof text - used, "]\n");
        REQUIRE(used + 100 < sizeof text);
    }
    return text;
}

static const char *tape_of(const char *path)
{
    static bytes tape;
    load(&tape, path);
    return tape_text(&tape);
}

TEST(the_file_begins_as_the_manual_says)
{
    static bytes tape;
    rig          r;
    rig_open_virtual(&r);
    r.now = INT64_C(0x0102030405060708);
    REQUIRE(chr_record_start(r.ctx, scratch("tape"), NULL) == 0);
    r.now += INT64_C(0x1122334455);
    CHECK_INT(chr_record_stop(r.ctx), 0);
    load(&tape, scratch("tape"));
    CHECK_MEM(tape.data, 24, "chardevR\1\0\0\0\0\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01", 24);
    CHECK_MEM(tape.data + 24 + 8, tape.len - 24 - 8, "\0\0\x0c\0\x55\x44\x33\x22\x11\0\0\0\0\0\0\0\0\0\0\0", 20);
    CHECK_INT(le32(tape.data + 24), 0);
    CHECK_INT(le32(tape.data + 28), crc_of(tape.data + 24, 28));
    rig_close(&r);
    scratch_clean();
}

static void write_in_the_read_handler(recorder *rec, int what)
{
    if (what == 'r') CHECK_INT(chr_fe_write(&rec->fe, "re", 2), 2);
}

/* All backends that need no peer. Existing state is recorded first; the text of an error that did not occur is not
 * recorded. */
TEST(each_kind_of_record)
{
    recorder          rec, other;
    chr_error         err;
    chr_serial_params params = { 9600, 'N', 8, 1 };
    rig               r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "ringbuf,id=old,size=4"));
    make(&r, "null,id=shut");
    settle(&r);
    memset(&err, 'j', sizeof err);
    REQUIRE(chr_record_start(r.ctx, scratch("tape"), &err) == 0);
    CHECK_INT(chr_record_start(r.ctx, scratch("other"), &err), CHR_ERR_BUSY);
    CHECK_STR(err.text + strlen(err.text) - strlen("other: a recording is under way already"), "other: a recording is under way already");
    CHECK(!exists(scratch("other")));
    r.now += 5;
    memset(&err, 'j', sizeof err);
    CHECK(chr_new(r.ctx, "ringbuf,id=new,mux=on", &err) != NULL);
    CHECK(chr_new(r.ctx, "ringbuf,id=bad,size=3", &err) == NULL);
    CHECK(chr_new(r.ctx, "ringbuf,id=mute,size=3", NULL) == NULL);
    r.now += 300;
    CHECK_INT(chr_fe_write(&rec.fe, "offered", 7), 7);
    rec.then = write_in_the_read_handler;
    chr_be_write(rec.fe.dev, "in\0", 3);
    chr_be_event(rec.fe.dev, CHR_EVENT_BREAK);
    chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params);
    CHECK_INT(chr_fe_disconnect(&rec.fe), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_shutdown(&rec.fe), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_wait_connected(&rec.fe, &err), 0);
    attach(&other, chr_find(r.ctx, "shut"));
    chr_fe_set_open(&other.fe, 1);
    chr_fe_set_open(&other.fe, 0);
    chr_be_event(rec.fe.dev, CHR_EVENT_CLOSED);
    CHECK_INT(chr_fe_write(&rec.fe, "nobody", 6), 6);
    r.now += 1;
    CHECK_INT(chr_record_stop(r.ctx), 0);
    CHECK_STR(tape_of(scratch("tape")),
              "0 1 0 0 0 0 [old]\n"
              "0 4 1 0 1 0 []\n"
              "0 2 0 0 0 0 []\n"
              "1 1 0 0 0 0 [shut]\n"
              "1 2 0 0 0 0 []\n"
              "2 1 0 5 0 0 [new-base]\n"
              "2 4 1 5 1 0 []\n"
              "2 2 0 5 0 0 []\n"
              "2 9 0 5 1 0 []\n"
              "3 1 0 5 0 0 [bad]\n"
              "3 2 0 5 -3 0 [ringbuf: size=3: must be a power of two]\n"
              "4 1 0 5 0 0 [mute]\n"
              "4 2 0 5 -3 0 [invalid argument]\n"
              "0 6 0 305 7 7 [offered]\n"
              "0 3 0 305 0 0 [in\\00]\n"
              "0 6 0 305 2 2 [re]\n"
              "0 4 0 305 0 0 []\n"
              "0 8 0 305 -9 2 []\n"
              "0 10 0 305 -9 0 []\n"
              "0 13 0 305 -9 0 []\n"
              "0 11 0 305 0 0 []\n"
              "1 9 0 305 1 0 []\n"
              "1 9 0 305 0 0 []\n"
              "0 4 0 305 4 0 []\n"
              "0 6 0 305 6 6 [nobody]\n"
              "0 12 0 306 0 0 []\n");
    detach(&other);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* In a trace hook nothing is begun or ended. */
static int stop_in_hook, start_in_hook;

static void stop_the_recording(void *opaque, const chr_trace *event)
{
    chr_error err;
    (void)opaque;
    stop_in_hook = chr_record_stop(event->ctx);
    start_in_hook = chr_record_start(event->ctx, scratch("other"), &err);
}

TEST(a_trace_hook_does_not_end_a_recording)
{
    rig r;
    rig_traced = stop_the_recording;
    rig_open_virtual(&r);
    make(&r, "null,id=before");
    CHECK_INT(stop_in_hook, CHR_ERR_IN_HANDLER);
    CHECK_INT(start_in_hook, CHR_ERR_IN_HANDLER);
    REQUIRE(chr_record_start(r.ctx, scratch("tape"), NULL) == 0);
    make(&r, "null,id=x");
    CHECK_INT(stop_in_hook, CHR_ERR_IN_HANDLER);
    CHECK_INT(chr_record_stop(r.ctx), 0);
    CHECK_HAS(tape_of(scratch("tape")), "1 1 0 0 0 0 [x]\n1 2 0 0 0 0 []\n0 12 0 0 0 0 []\n");
    CHECK(!exists(scratch("other")));
    rig_close(&r);
    scratch_clean();
}

/* ---- recordings made by hand ------------------------------------------------------------------------------------- */

static void tape_begin(bytes *tape)
{
    memset(tape->data, 0, 24);
    memcpy(tape->data, "chardevR\1", 9);
    tape->len = 24;
}

static void tape_put(bytes *tape, int number, int kind, int inside, int64_t time, int value, unsigned extra, const char *data, size_t len)
{
    unsigned char *head = tape->data + tape->len;
    memset(head, 0, 28);
    put32(head, (uint32_t)len);
    head[8] = (unsigned char)number;
    head[9] = (unsigned char)(number >> 8);
    head[10] = (unsigned char)kind;
    head[11] = (unsigned char)inside;
    put32(head + 12, (uint32_t)time);
    put32(head + 16, (uint32_t)(time >> 32));
    put32(head + 20, (uint32_t)value);
    put32(head + 24, extra);
    memcpy(head + 28, data, len);
    mend(tape, tape->len);
    tape->len += 28 + len;
}

static char letters[200]; /* x, so many times */

/* The record comes after a chardev 0 that was made and one write of two bytes, and before the end. */
static const struct {
    int         number, kind, inside, value;
    unsigned    extra;
    size_t      len;
    const char *why; /* NULL = it may be so */
} oddities[] = {
    { 0, 3, 0, 0, 0, 1, NULL },
    { 0, 3, 0, 0, 0, 0, NULL },
    { 0, 0, 0, 0, 0, 0, "a record of an unknown kind" },
    { 0, 13, 0, 0, 0, 0, NULL },
    { 0, 14, 0, 0, 0, 0, "a record of an unknown kind" },
    { 0, 4, 1, 1, 0, 0, NULL },
    { 0, 4, 2, 1, 0, 0, "a record of an unknown kind" },
    { 0, 5, 1, 0, 0, 0, "a record of an unknown kind" },
    { 0, 3, 1, 0, 0, 1, "a record of an unknown kind" },
    { 0, 12, 0, 0, 0, 1, "an end with data" },
    { 1, 1, 0, 0, 0, 1, NULL },
    { 1, 1, 0, 0, 0, 139, NULL },
    { 1, 1, 0, 0, 0, 140, "an impossible id" },
    { 1, 1, 0, 0, 0, 0, "an impossible id" },
    { 0, 1, 0, 0, 0, 1, "an impossible id" },
    { 2, 1, 0, 0, 0, 1, "an impossible id" },
    { 1, 3, 0, 0, 0, 1, "a record of an unknown chardev" },
    { 2, 3, 0, 0, 0, 1, "a record of an unknown chardev" },
    { 0, 6, 0, 5, 5, 5, NULL },
    { 0, 6, 0, 5, 6, 5, NULL },
    { 0, 6, 0, 5, 4, 5, "a write of more than there is" },
    { 0, 6, 0, 6, 6, 5, "a write of more than there is" },
    { 0, 6, 0, 4, 5, 5, NULL },
    { 0, 6, 0, -1, 5, 0, NULL },
    { 0, 7, 0, 5, 5, 5, NULL },
    { 0, 7, 0, 6, 6, 5, "a read of more than there is" },
    { 0, 7, 0, 5, 9, 5, NULL },
};

TEST(what_records_may_say)
{
    static bytes tape;
    size_t       i, at;
    char         want[100];
    chr_error    err;
    rig          r;
    rig_open_virtual(&r);
    memset(letters, 'x', sizeof letters);
    for (i = 0; i < sizeof oddities / sizeof *oddities; i++) {
        tape_begin(&tape);
        tape_put(&tape, 0, 1, 0, 0, 0, 0, "con", 3);
        tape_put(&tape, 0, 2, 0, 0, 0, 0, "", 0);
        tape_put(&tape, 0, 6, 0, 3, 2, 2, "ab", 2);
        at = tape.len;
        tape_put(&tape, oddities[i].number, oddities[i].kind, oddities[i].inside, 3, oddities[i].value, oddities[i].extra, letters, oddities[i].len);
        tape_put(&tape, 0, 12, 0, 3, 0, 0, "", 0);
        snprintf(want, sizeof want, "corrupt at offset %d: %s", (int)at, oddities[i].why ? oddities[i].why : "");
        if (!CHECK_INT(open_bytes(&r, scratch("tape"), tape.data, tape.len, &err), oddities[i].why ? CHR_ERR_INVALID : 0) ||
            (oddities[i].why && !CHECK_STR(err.text + strlen(scratch("tape")) + 2, want)))
            NOTE("oddity %d: %s", (int)i, err.text);
    }
    rig_close(&r);
    scratch_clean();
}

/* Times go on from nanosecond 0 to a quarter of what 63 bits hold: the clock may be added. */
TEST(times_that_records_may_have)
{
    static const struct {
        int64_t first, second;
        int     ok;
    } table[] = { { 0, 0, 1 }, { 5, 5, 1 }, { 5, 4, 0 }, { 5, 6, 1 }, { 0, INT64_MAX / 4, 1 }, { 0, INT64_MAX / 4 + 1, 0 }, { 0, INT64_MIN, 0 }, { -1, 0, 0 } };
    static bytes tape;
    size_t       i;
    chr_error    err;
    rig          r;
    rig_open_virtual(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        tape_begin(&tape);
        tape_put(&tape, 0, 1, 0, table[i].first, 0, 0, "con", 3);
        tape_put(&tape, 0, 12, 0, table[i].second, 0, 0, "", 0);
        if (!CHECK_INT(open_bytes(&r, scratch("tape"), tape.data, tape.len, &err), table[i].ok ? 0 : CHR_ERR_INVALID) ||
            (!table[i].ok && !CHECK_HAS(err.text, "time runs backwards")))
            NOTE("times %d", (int)i);
    }
    tape_begin(&tape);
    tape_put(&tape, 0, 12, 0, 0, 0, 0, "", 0);
    for (i = 12; i < 16; i++) {
        tape.data[i] = 1;
        CHECK_INT(open_bytes(&r, scratch("tape"), tape.data, tape.len, &err), CHR_ERR_INVALID);
        CHECK_HAS(err.text, "corrupt at offset 12: not zero");
        tape.data[i] = 0;
    }
    tape.data[23] = 0x80;
    CHECK_INT(open_bytes(&r, scratch("tape"), tape.data, tape.len, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "corrupt at offset 16: an impossible time");
    tape.data[23] = 0x7f;
    CHECK_INT(open_bytes(&r, scratch("tape"), tape.data, tape.len, &err), 0);
    rig_close(&r);
    scratch_clean();
}

/* An id of the longest length is found, and none that only begins like it; pieces of input longer than any buffer
 * come whole. */
TEST(what_is_played_is_what_the_file_says)
{
    static bytes tape;
    recorder     rec;
    char         id[140], options[200];
    chr_error    err;
    rig          r;
    rig_open_virtual(&r);
    memset(letters, 'x', sizeof letters);
    snprintf(id, sizeof id, "%.127s", letters);
    tape_begin(&tape);
    tape_put(&tape, 0, 1, 0, 0, 0, 0, id, 127);
    tape_put(&tape, 0, 4, 1, 0, CHR_EVENT_OPENED, 0, "", 0);
    tape_put(&tape, 0, 2, 0, 0, 0, 0, "", 0);
    tape_put(&tape, 1, 1, 0, 0, 0, 0, "bad", 3);
    tape_put(&tape, 1, 2, 0, 0, CHR_ERR_BUSY, 0, "the reason then", 15);
    tape_put(&tape, 0, 3, 0, 1000, 0, 0, letters, 150);
    tape_put(&tape, 0, 6, 0, 1000, 3, 5, "abc", 3);
    tape_put(&tape, 0, 12, 0, 2000, 0, 0, "", 0);
    save(scratch("tape"), tape.data, tape.len);
    REQUIRE(chr_replay_open(r.ctx, scratch("tape"), &err) == 0);
    CHECK_INT(chr_replay_open(r.ctx, scratch("tape"), &err), CHR_ERR_BUSY);
    CHECK_HAS(err.text, "tape: another replay is under way");
    CHECK(!chr_new(r.ctx, "null,id=bad", &err));
    CHECK_INT(err.code, CHR_ERR_BUSY);
    CHECK_STR(err.text, "null: the reason then");
    snprintf(options, sizeof options, "ringbuf,id=%s", id + 1);
    make(&r, options);
    snprintf(options, sizeof options, "null,id=%s", id);
    attach_with_room(&rec, make(&r, options), 200);
    settle(&r);
    CHECK_STR(rec.events, "O");
    r.now += 1000;
    settle(&r);
    CHECK_INT(rec.length, 150);
    CHECK_INT(chr_fe_write(&rec.fe, "abcde", 5), 3);
    CHECK_STR(r.log, "");
    CHECK_INT(chr_replay_over(r.ctx), 0);
    r.now += 999;
    CHECK_INT(chr_replay_over(r.ctx), 0);
    r.now += 1;
    CHECK_INT(chr_replay_over(r.ctx), 1);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* Each divergence has its own text in the log. */
TEST(each_divergence_has_its_words)
{
    static bytes      tape;
    recorder          rec;
    chr_error         err;
    chr_serial_params params = { 9600, 'N', 8, 1 };
    char              byte;
    int               i;
    rig               r;
    static const struct { int answer; const char *words; } table[] = {
        { 3, "a write that was not made then" },
        { CHR_ERR_NOT_SUPPORTED, "a command that was not given then" },
        { CHR_ERR_NOT_SUPPORTED, "a disconnection that was not made then" },
        { CHR_ERR_NOT_SUPPORTED, "a shutdown that was not made then" },
        { CHR_ERR_NOT_SUPPORTED, "a wait that was not made then" },
        { CHR_ERR_DISCONNECTED, "a read that was not made then" },
    };
    tape_begin(&tape);
    tape_put(&tape, 0, 1, 0, 0, 0, 0, "con", 3);
    tape_put(&tape, 0, 4, 1, 0, CHR_EVENT_OPENED, 0, "", 0);
    tape_put(&tape, 0, 2, 0, 0, 0, 0, "", 0);
    tape_put(&tape, 0, 9, 0, 0, 1, 0, "", 0);
    tape_put(&tape, 0, 12, 0, 2000000000, 0, 0, "", 0);
    for (i = 0; i < 6; i++) {
        char want[200];
        int  answer;
        rig_open_virtual(&r);
        save(scratch("tape"), tape.data, tape.len);
        REQUIRE(chr_replay_open(r.ctx, scratch("tape"), &err) == 0);
        attach(&rec, make(&r, "null,id=con"));
        r.now += 1000000007;
        settle(&r);
        memset(&err, 0, sizeof err);
        answer = i == 0   ? chr_fe_write(&rec.fe, "abc", 3)
                 : i == 1 ? chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params)
                 : i == 2 ? chr_fe_disconnect(&rec.fe)
                 : i == 3 ? chr_fe_shutdown(&rec.fe)
                 : i == 4 ? chr_fe_wait_connected(&rec.fe, &err)
                          : chr_fe_read_all(&rec.fe, &byte, 1, 10);
        CHECK_INT(answer, table[i].answer);
        if (i == 4) CHECK_STR(err.text, "chardev 'con': it was not waited for when it was recorded");
        snprintf(want, sizeof want, "chardev con: the replay diverges at 1.000000007 s, at byte 0 of the output (file offset 167): %s\n", table[i].words);
        CHECK_STR(r.log, want);
        chr_fe_write(&rec.fe, "again", 5);
        CHECK_INT(r.logs, 1);
        detach(&rec);
        rig_close(&r);
    }
    scratch_clean();
}

/* The error of a creation is played as far as there is room for it. */
TEST(an_error_of_any_length_is_played)
{
    static bytes tape;
    static char  words[2 * CHARDEV_ERROR_SIZE];
    size_t       len;
    chr_error    err;
    rig          r;
    memset(words, 'w', sizeof words);
    for (len = CHARDEV_ERROR_SIZE - 2; len < CHARDEV_ERROR_SIZE + 4; len++) {
        rig_open_virtual(&r);
        tape_begin(&tape);
        tape_put(&tape, 0, 1, 0, 0, 0, 0, "con", 3);
        tape_put(&tape, 0, 2, 0, 0, CHR_ERR_INVALID, 0, words, len);
        tape_put(&tape, 0, 12, 0, 3, 0, 0, "", 0);
        save(scratch("tape"), tape.data, tape.len);
        REQUIRE(chr_replay_open(r.ctx, scratch("tape"), &err) == 0);
        CHECK(!chr_new(r.ctx, "null,id=con", &err));
        CHECK_INT(err.code, CHR_ERR_INVALID);
        CHECK_INT(strlen(err.text), CHARDEV_ERROR_SIZE - 1);
        CHECK(strncmp(err.text, "null: ", 6) == 0);
        CHECK_INT(strspn(err.text + 6, "w"), strlen(err.text) - 6);
        rig_close(&r);
    }
    scratch_clean();
}

/* A replay without a chardev wakes the loop at its end, and not before. */
TEST(a_replay_that_nobody_takes_part_in_ends)
{
    static bytes tape;
    rig          r;
    rig_open_virtual(&r);
    tape_begin(&tape);
    tape_put(&tape, 0, 1, 0, 0, 0, 0, "con", 3);
    tape_put(&tape, 0, 2, 0, 0, 0, 0, "", 0);
    tape_put(&tape, 0, 12, 0, 5000000, 0, 0, "", 0);
    save(scratch("tape"), tape.data, tape.len);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    REQUIRE(chr_replay_open(r.ctx, scratch("tape"), NULL) == 0);
    CHECK_INT(chr_loop_timeout(r.ctx), 5);
    pass_time(&r, 4);
    CHECK(!chr_replay_over(r.ctx));
    CHECK_INT(chr_loop_timeout(r.ctx), 1);
    pass_time(&r, 1);
    CHECK(chr_replay_over(r.ctx));
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    rig_close(&r);
    scratch_clean();
}

static int any_open(chr_dev *dev, chr_error *err) { return (void)dev, (void)err, 0; }
static int any_ioctl(chr_dev *dev, int command, void *arg) { return (void)dev, (void)command, (void)arg, 0; }

static const chr_io any_io = { NULL, NULL, NULL, NULL };

CHR_TABLE(chr_backend, any_kind,
    CHR_SET(name,         "any")
    CHR_SET(help,         "takes each command")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(chr_dev))
    CHR_SET(open,         any_open)
    CHR_SET(ioctl,        any_ioctl)
    CHR_SET(io,           &any_io));

/* Of each command its argument is recorded, and no byte more. */
TEST(as_much_of_a_command_as_it_has)
{
    static const struct { int command; unsigned size; } table[] = {
        { CHR_IOCTL_SET_ECHO, 4 },          { CHR_IOCTL_SERIAL_SET_PARAMS, 16 }, { CHR_IOCTL_SERIAL_GET_PARAMS, 16 },
        { CHR_IOCTL_SERIAL_SET_BREAK, 4 },  { CHR_IOCTL_SERIAL_GET_TIOCM, 4 },   { CHR_IOCTL_SERIAL_SET_TIOCM, 4 },
        { CHR_IOCTL_SERIAL_SET_FLOW, 4 },   { CHR_IOCTL_SERIAL_GET_FLOW, 4 },    { CHR_IOCTL_SERIAL_PURGE, 4 },
        { CHR_IOCTL_SERIAL_GET_ERRORS, 4 }, { CHR_IOCTL_SERIAL_SET_ERRORS, 4 },  { CHR_IOCTL_GET_TERMINAL_SIZE, 8 },
        { CHR_IOCTL_SET_TERMINAL_SIZE, 8 }, { CHR_IOCTL_PP_DATA_DIR, 4 },        { CHR_IOCTL_PP_READ_DATA, 1 },
        { CHR_IOCTL_PP_WRITE_DATA, 1 },     { CHR_IOCTL_PP_READ_CONTROL, 1 },    { CHR_IOCTL_PP_WRITE_CONTROL, 1 },
        { CHR_IOCTL_PP_READ_STATUS, 1 },
    };
    static bytes tape;
    size_t       i, at, count = 0;
    int          arg[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    recorder     rec;
    rig          r;
    rig_open_virtual(&r);
    REQUIRE(chr_backend_register(r.ctx, &any_kind, NULL) == 0);
    REQUIRE(chr_record_start(r.ctx, scratch("tape"), NULL) == 0);
    attach(&rec, make(&r, "any,id=a"));
    for (i = 0; i < sizeof table / sizeof *table; i++) CHECK_INT(chr_fe_ioctl(&rec.fe, table[i].command, arg), 0);
    CHECK_INT(chr_record_stop(r.ctx), 0);
    detach(&rec);
    load(&tape, scratch("tape"));
    for (at = 24; at < tape.len; at += 28 + le32(tape.data + at))
        for (i = 0; i < sizeof table / sizeof *table; i++)
            if (tape.data[at + 10] == 8 && le32(tape.data + at + 24) == (unsigned)table[i].command) {
                if (!CHECK_INT(le32(tape.data + at), table[i].size)) NOTE("command %d", table[i].command);
                count++;
            }
    CHECK_INT(count, sizeof table / sizeof *table);
    rig_close(&r);
    scratch_clean();
}
