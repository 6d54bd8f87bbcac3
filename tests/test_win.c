/* win: handles that are open already, on Windows, and the channels. On other systems the backend is left out. */
#define RIG_WITH_HANDLES /* what it waits for are no sockets */
#include "chardev.h"
#include "rig.h"

#ifndef _WIN32

TEST(win_is_for_windows)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    CHECK_INT(refuse(&r, "win,id=w,in=0", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_HAS(err.text, "win");
    rig_close(&r);
}

#else

enum { HUGE = 3 << 20 };

/* Both ends of a named pipe. `mode`: FILE_FLAG_OVERLAPPED or 0, of our end; the other end is blocking. */
static HANDLE pipe_pair(DWORD mode, HANDLE *far_end)
{
    static int number;
    char       name[80];
    HANDLE     own;
    snprintf(name, sizeof name, "\\\\.\\pipe\\chardev-win-%lu-%d", GetCurrentProcessId(), number++);
    own = CreateNamedPipeA(name, PIPE_ACCESS_DUPLEX | mode, 0, 1, 4096, 4096, 0, NULL);
    REQUIRE(own != INVALID_HANDLE_VALUE);
    *far_end = CreateFileA(name, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, 0, NULL);
    REQUIRE(*far_end != INVALID_HANDLE_VALUE);
    return own;
}

static int number_of(HANDLE handle) { return (int)(intptr_t)handle; }

static chr_dev *open_win(rig *r, HANDLE in, HANDLE out)
{
    chr_win_options options;
    chr_error       err;
    chr_dev        *dev;
    memset(&options, 0, sizeof options);
    options.in = in ? number_of(in) : -1;
    options.out = out ? number_of(out) : -1;
    dev = chr_open(r->ctx, "w", chr_backend_find(r->ctx, "win"), &options, &err);
    if (!dev) NOTE("%s", err.text);
    REQUIRE(dev != NULL);
    return dev;
}

static void far_say(HANDLE far_end, const char *text)
{
    DWORD count;
    CHECK(WriteFile(far_end, text, (DWORD)strlen(text), &count, NULL));
}

/* One read, in a static buffer; "(eof)" at the end. */
static const char *far_hear(HANDLE far_end)
{
    static char text[200];
    DWORD       count = 0;
    if (!ReadFile(far_end, text, sizeof text - 1, &count, NULL)) return "(eof)";
    text[count] = 0;
    return text;
}

/* Reads all at the far end, slowly at first; what came is summed up. */
typedef struct reader {
    HANDLE   handle, thread;
    DWORD    wait_ms;
    uint64_t count, sum;
} reader;

static DWORD WINAPI reader_run(void *opaque)
{
    reader       *rd = (reader *)opaque;
    unsigned char bytes[8192];
    DWORD         count, i;
    Sleep(rd->wait_ms);
    while (ReadFile(rd->handle, bytes, sizeof bytes, &count, NULL))
        for (i = 0; i < count; i++) rd->sum = rd->sum * 31 + bytes[i], rd->count++;
    return 0;
}

static void reader_start(reader *rd, HANDLE handle, DWORD wait_ms)
{
    memset(rd, 0, sizeof *rd);
    rd->handle = handle;
    rd->wait_ms = wait_ms;
    rd->thread = CreateThread(NULL, 0, reader_run, rd, 0, NULL);
    REQUIRE(rd->thread != NULL);
}

static void reader_end(reader *rd)
{
    CHECK_INT(WaitForSingleObject(rd->thread, 20000), WAIT_OBJECT_0);
    CloseHandle(rd->thread);
    CloseHandle(rd->handle);
}

static unsigned char byte_at(size_t i) { return (unsigned char)(i * 7 + (i >> 9)); }

static uint64_t sum_of(size_t len)
{
    uint64_t sum = 0;
    size_t   i;
    for (i = 0; i < len; i++) sum = sum * 31 + byte_at(i);
    return sum;
}

/* As far as it is taken at once. */
static size_t send_some(chr_frontend *fe, size_t from, size_t len)
{
    static unsigned char block[50000];
    size_t               i, piece;
    int                  n = 1;
    for (; len > 0 && n > 0; from += (size_t)n, len -= (size_t)n) {
        piece = len < sizeof block ? len : sizeof block;
        for (i = 0; i < piece; i++) block[i] = byte_at(from + i);
        n = chr_fe_write(fe, block, piece);
        if (n <= 0) break;
    }
    return from;
}

/* The thread pool and the like come with the first use. */
static void warm_up(void)
{
    HANDLE  far_end, own;
    rig     r;
    int     mode;
    for (mode = 0; mode < 2; mode++) {
        recorder rec;
        rig_open(&r);
        own = pipe_pair(mode ? FILE_FLAG_OVERLAPPED : 0, &far_end);
        attach(&rec, open_win(&r, own, NULL));
        far_say(far_end, "x");
        PUMP(&r, rec.length == 1);
        CloseHandle(far_end);
        PUMP(&r, !rec.open);
        detach(&rec);
        chr_context_free(r.ctx);
    }
}

/* ---- each test with handles that overlap and with those that block ----------------------------------------------- */

static void test_duplex(const void *arg)
{
    recorder rec;
    HANDLE   far_end, own;
    rig      r;
    warm_up();
    rig_open(&r);
    own = pipe_pair(FILE_FLAG_OVERLAPPED, &far_end);
    (void)arg;
    attach(&rec, open_win(&r, own, own));
    CHECK_STR(rec.events, "O");
    far_say(far_end, "there");
    PUMP(&r, rec.length == 5);
    CHECK_INPUT(&rec, "there");
    CHECK_INT(chr_fe_write(&rec.fe, "back", 4), 4);
    CHECK_STR(far_hear(far_end), "back");
    far_say(far_end, "last");
    CloseHandle(far_end);
    PUMP(&r, !rec.open);
    CHECK_INPUT(&rec, "therelast");
    CHECK_STR(rec.events, "OC");
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    detach(&rec);
    rig_close(&r);
}

static void test_one_way(const void *arg)
{
    DWORD    mode = *(const DWORD *)arg;
    recorder rec;
    HANDLE   far_in, far_out, in, out;
    rig      r;
    warm_up();
    rig_open(&r);
    in = pipe_pair(mode, &far_in);
    out = pipe_pair(mode, &far_out);
    attach(&rec, open_win(&r, in, out));
    far_say(far_in, "one");
    PUMP(&r, rec.length == 3);
    CHECK_INT(chr_fe_write_all(&rec.fe, "two", 3, 5000), 3);
    CHECK_STR(far_hear(far_out), "two");
    CloseHandle(far_in);
    PUMP(&r, !rec.open);
    CHECK_INT(chr_fe_write_all(&rec.fe, "three", 5, 5000), 5); /* output has a handle of its own */
    CHECK_STR(far_hear(far_out), "three");
    CloseHandle(far_out);
    detach(&rec);
    rig_close(&r);
}

/* What no frontend takes: 16 KiB are read ahead, and the writer waits. The hang-up behind it comes after it. */
static void test_no_room(const void *arg)
{
    DWORD    mode = *(const DWORD *)arg;
    recorder rec;
    HANDLE   far_end, own;
    rig      r;
    int      i;
    warm_up();
    rig_open(&r);
    own = pipe_pair(mode, &far_end);
    attach_with_room(&rec, open_win(&r, own, NULL), 4);
    far_say(far_end, "12345678");
    PUMP(&r, rec.length == 4);
    for (i = 0; i < 20; i++) chr_loop_step(r.ctx, 2);
    CHECK_INPUT(&rec, "1234");
    CloseHandle(far_end);
    for (i = 0; i < 20; i++) chr_loop_step(r.ctx, 2);
    CHECK_STR(rec.events, "O");
    give_room(&rec, 4);
    PUMP(&r, !rec.open);
    CHECK_INPUT(&rec, "12345678");
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

/* A loop without work sleeps, though there is input that the frontend does not take. */
static void test_no_room_sleeps(const void *arg)
{
    DWORD    mode = *(const DWORD *)arg;
    recorder rec;
    HANDLE   far_end, own;
    rig      r;
    int      i, steps = 0;
    int64_t  end;
    warm_up();
    rig_open(&r);
    own = pipe_pair(mode, &far_end);
    attach_with_room(&rec, open_win(&r, own, NULL), 0);
    far_say(far_end, "12345678");
    for (i = 0; i < 10; i++) chr_loop_step(r.ctx, 10);
    for (end = real_ms() + 500; real_ms() < end; steps++) chr_loop_step(r.ctx, 100);
    if (!CHECK(steps < 60)) NOTE("%d steps in half a second", steps);
    CloseHandle(far_end);
    give_room(&rec, 100);
    PUMP(&r, !rec.open);
    CHECK_INPUT(&rec, "12345678");
    detach(&rec);
    rig_close(&r);
}

/* With nothing left to read a hang-up is seen though there is no room. */
static void test_no_room_hang_up(const void *arg)
{
    DWORD    mode = *(const DWORD *)arg;
    recorder rec;
    HANDLE   far_end, own;
    rig      r;
    warm_up();
    rig_open(&r);
    own = pipe_pair(mode, &far_end);
    attach_with_room(&rec, open_win(&r, own, NULL), 4);
    far_say(far_end, "1234");
    PUMP(&r, rec.length == 4);
    settle(&r);
    CloseHandle(far_end);
    PUMP(&r, !rec.open);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

/* The same when bytes were buffered before: the frontend takes them, and then has no more room. */
static void test_held_before(const void *arg)
{
    DWORD    mode = *(const DWORD *)arg;
    recorder rec;
    HANDLE   far_end, own;
    rig      r;
    int      i;
    warm_up();
    rig_open(&r);
    own = pipe_pair(mode, &far_end);
    attach_with_room(&rec, open_win(&r, own, NULL), 0);
    far_say(far_end, "1234");
    for (i = 0; i < 20; i++) chr_loop_step(r.ctx, 2);
    give_room(&rec, 100);
    PUMP(&r, rec.length == 4);
    rec.room = 0;
    chr_fe_accept_input(&rec.fe);
    for (i = 0; i < 5; i++) chr_loop_step(r.ctx, 2);
    CloseHandle(far_end);
    PUMP(&r, !rec.open);
    detach(&rec);
    rig_close(&r);
}

/* Output that is not read is accepted up to a bound; accepted bytes arrive. */
static void test_back_pressure(const void *arg)
{
    DWORD    mode = *(const DWORD *)arg;
    recorder rec;
    HANDLE   far_end, own;
    reader   rd;
    rig      r;
    size_t   sent, before;
    int64_t  end;
    warm_up();
    rig_open(&r);
    own = pipe_pair(mode, &far_end);
    attach(&rec, open_win(&r, NULL, own));
    for (sent = 0, end = real_ms() + 200; real_ms() < end;) {
        sent = send_some(&rec.fe, sent, HUGE - sent);
        chr_loop_step(r.ctx, 2);
    }
    if (!CHECK(sent > 0 && sent < 200000)) NOTE("%zu bytes were taken", sent);
    before = sent;
    reader_start(&rd, far_end, 0);
    PUMP(&r, (sent = send_some(&rec.fe, sent, HUGE - sent)) == HUGE);
    CHECK(sent > before);
    CHECK_INT(chr_drain(r.ctx, 5000), 0);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "w", NULL), 0);
    reader_end(&rd);
    CHECK_INT(rd.count, HUGE);
    CHECK(rd.sum == sum_of(HUGE));
    rig_close(&r);
}

/* Removed while its last bytes are in flight to a slow reader: they arrive, and no call blocks. */
static int64_t removal_in_flight(const void *arg)
{
    DWORD    mode = *(const DWORD *)arg;
    recorder rec;
    HANDLE   far_end, own;
    reader   rd;
    rig      r;
    size_t   sent, taken;
    int64_t  began;
    warm_up();
    rig_open(&r);
    own = pipe_pair(mode, &far_end);
    attach(&rec, open_win(&r, NULL, own));
    for (sent = 0; (taken = send_some(&rec.fe, sent, HUGE)) > sent; sent = taken) chr_loop_step(r.ctx, 20);
    reader_start(&rd, far_end, 300);
    detach(&rec);
    began = real_ms();
    CHECK_INT(chr_remove(r.ctx, "w", NULL), 0);
    began = real_ms() - began;
    reader_end(&rd);
    CHECK_INT(rd.count, sent);
    CHECK(rd.sum == sum_of(sent));
    Sleep(50);
    rig_close(&r);
    return began;
}

static void test_removed_in_flight(const void *arg)
{
    CHECK(least_ms(250, removal_in_flight, arg) < 250);
}

/* The same at the end of the context, which waits: the program may end behind it. */
static void test_freed_in_flight(const void *arg)
{
    DWORD    mode = *(const DWORD *)arg;
    recorder rec;
    HANDLE   far_end, own;
    reader   rd;
    rig      r;
    size_t   sent, taken;
    warm_up();
    rig_open(&r);
    own = pipe_pair(mode, &far_end);
    attach(&rec, open_win(&r, NULL, own));
    for (sent = 0; (taken = send_some(&rec.fe, sent, HUGE)) > sent; sent = taken) chr_loop_step(r.ctx, 20);
    reader_start(&rd, far_end, 300);
    detach(&rec);
    chr_context_free(r.ctx);
    reader_end(&rd);
    CHECK_INT(rd.count, sent);
    CHECK_INT(r.live, 0);
    CHECK_INT(count_fds(), r.fds);
}

/* Nobody reads, ever: it ends in bounded time. */
static void test_freed_in_vain(const void *arg)
{
    DWORD    mode = *(const DWORD *)arg;
    recorder rec;
    HANDLE   far_end, own;
    rig      r;
    size_t   sent, taken;
    int64_t  began = real_ms();
    warm_up();
    rig_open(&r);
    own = pipe_pair(mode, &far_end);
    attach(&rec, open_win(&r, NULL, own));
    for (sent = 0; (taken = send_some(&rec.fe, sent, HUGE)) > sent; sent = taken) chr_loop_step(r.ctx, 20);
    detach(&rec);
    chr_context_free(r.ctx);
    CHECK(real_ms() - began < 30000);
    CloseHandle(far_end);
    Sleep(100);
    CHECK_INT(count_fds(), r.fds);
}

static void test_rounds(const void *arg)
{
    DWORD    mode = *(const DWORD *)arg;
    recorder rec;
    HANDLE   far_end, own;
    rig      r;
    int      i, before, rounds = 250;
    warm_up();
    rig_open(&r);
    before = count_fds();
    for (i = 0; i < rounds; i++) {
        own = pipe_pair(mode, &far_end);
        attach(&rec, open_win(&r, i & 1 ? own : NULL, i & 1 ? NULL : own));
        if (i & 2) far_say(far_end, "x");
        if (!(i & 1)) chr_fe_write(&rec.fe, "y", 1);
        if (i & 4) chr_loop_step(r.ctx, 0);
        if (i & 8) CloseHandle(far_end);
        detach(&rec);
        CHECK_INT(chr_remove(r.ctx, "w", NULL), 0);
        chr_loop_step(r.ctx, 0);
        if (!(i & 8)) CloseHandle(far_end);
    }
    PUMP(&r, count_fds() <= before);
    rig_close(&r);
}

/* The far end sends 3 MiB while the frontend takes little at a time. */
static DWORD WINAPI writer_run(void *opaque)
{
    static unsigned char bytes[HUGE];
    DWORD                count;
    size_t               i;
    for (i = 0; i < HUGE; i++) bytes[i] = byte_at(i);
    CHECK(WriteFile((HANDLE)opaque, bytes, HUGE, &count, NULL));
    CloseHandle((HANDLE)opaque);
    return 0;
}

static void test_big_input(const void *arg)
{
    DWORD    mode = *(const DWORD *)arg;
    recorder rec;
    HANDLE   far_end, own, thread;
    uint64_t sum = 0;
    rig      r;
    size_t   i;
    warm_up();
    rig_open(&r);
    own = pipe_pair(mode, &far_end);
    attach_with_room(&rec, open_win(&r, own, NULL), 1000);
    thread = CreateThread(NULL, 0, writer_run, far_end, 0, NULL);
    PUMP(&r, (rec.room < 20000 ? give_room(&rec, 9999) : (void)0, !rec.open));
    CHECK_INT(rec.length, HUGE);
    for (i = 0; i < rec.length; i++) sum = sum * 31 + (unsigned char)rec.input[i];
    CHECK(sum == sum_of(HUGE));
    WaitForSingleObject(thread, 5000);
    CloseHandle(thread);
    detach(&rec);
    rig_close(&r);
}

/* Read and written without the loop. */
static void test_without_loop(const void *arg)
{
    DWORD    mode = *(const DWORD *)arg;
    recorder rec;
    HANDLE   far_in, far_out, in, out;
    char     text[8];
    rig      r;
    warm_up();
    rig_open(&r);
    in = pipe_pair(mode, &far_in);
    out = pipe_pair(mode, &far_out);
    attach_with_room(&rec, open_win(&r, in, out), 0);
    far_say(far_in, "one");
    far_say(far_in, "two");
    CHECK_INT(chr_fe_read_all(&rec.fe, text, 6, 5000), 6);
    CHECK_MEM(text, 6, "onetwo", 6);
    CHECK_INT(chr_fe_read_all(&rec.fe, text, 1, 50), CHR_ERR_TIMEOUT);
    CHECK_INT(chr_fe_write_all(&rec.fe, "three", 5, 5000), 5);
    CHECK_STR(far_hear(far_out), "three");
    CloseHandle(far_in);
    CloseHandle(far_out);
    detach(&rec);
    rig_close(&r);
}

TEST_FAMILY(modes)
{
    static const struct { const char *name; void (*run)(const void *); } tests[] = {
        { "one_way", test_one_way }, { "no_room", test_no_room }, { "no_room_sleeps", test_no_room_sleeps },
        { "no_room_hang_up", test_no_room_hang_up }, { "held_before", test_held_before }, { "back_pressure", test_back_pressure },
        { "removed_in_flight", test_removed_in_flight }, { "freed_in_flight", test_freed_in_flight },
        { "freed_in_vain", test_freed_in_vain }, { "rounds", test_rounds }, { "big_input", test_big_input },
        { "without_loop", test_without_loop },
    };
    static const DWORD modes[] = { FILE_FLAG_OVERLAPPED, 0 };
    char               name[80];
    size_t             i, j;
    test_add_case("duplex", test_duplex, NULL, TEST_SECONDS);
    for (i = 0; i < sizeof tests / sizeof tests[0]; i++)
        for (j = 0; j < 2; j++) {
            snprintf(name, sizeof name, "%s_%s", tests[i].name, j ? "blocking" : "overlapped");
            test_add_case(name, tests[i].run, &modes[j], TEST_SECONDS);
        }
}

/* ---- what is refused, and whose the handles are ------------------------------------------------------------------ */

TEST(handles_that_can_not_be)
{
    HANDLE    far_end, own;
    int       wire;
    chr_error err;
    char      options[100];
    rig       r;
    warm_up();
    rig_open(&r);
    own = pipe_pair(0, &far_end);
    snprintf(options, sizeof options, "win,id=w,in=%d,out=%d", number_of(own), number_of(own));
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "FILE_FLAG_OVERLAPPED");
    CHECK_INT(refuse(&r, "win,id=w", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "needs in= or out=");
    CHECK_INT(refuse(&r, "win,id=w,in=99996", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "not an open descriptor");
    wire = socket(AF_INET, SOCK_STREAM, 0);
    snprintf(options, sizeof options, "win,id=w,in=%d", wire);
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "socket backend");
    close(wire);
    far_say(far_end, "still open");
    CHECK_STR(far_hear(own), "still open");
    CloseHandle(own);
    CloseHandle(far_end);
    rig_close(&r);
}

TEST(direction_is_looked_at)
{
    HANDLE    in, out;
    chr_error err;
    char      options[100];
    rig       r;
    rig_open(&r);
    REQUIRE(CreatePipe(&in, &out, NULL, 0));
    snprintf(options, sizeof options, "win,id=w,in=%d", number_of(out));
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "not open for reading");
    snprintf(options, sizeof options, "win,id=w,out=%d", number_of(in));
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "not open for writing");
    CloseHandle(in);
    CloseHandle(out);
    rig_close(&r);
}

TEST(anonymous_pipes_by_number)
{
    HANDLE   in, out, far_in, far_out;
    recorder rec;
    DWORD    flags;
    char     options[100];
    rig      r;
    warm_up();
    rig_open(&r);
    REQUIRE(CreatePipe(&in, &far_in, NULL, 0) && CreatePipe(&far_out, &out, NULL, 0));
    snprintf(options, sizeof options, "win,id=w,in=%d,out=%d", number_of(in), number_of(out));
    attach(&rec, make(&r, options));
    far_say(far_in, "hello");
    PUMP(&r, rec.length == 5);
    CHECK_INT(chr_fe_write_all(&rec.fe, "you", 3, 5000), 3);
    CHECK_STR(far_hear(far_out), "you");
    CHECK(GetHandleInformation(in, &flags) && !(flags & HANDLE_FLAG_INHERIT));
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "w", NULL), 0);
    CHECK_STR(far_hear(far_out), "(eof)"); /* it was closed */
    CloseHandle(far_in);
    CloseHandle(far_out);
    rig_close(&r);
}

/* An empty message is no end; one that is longer than the buffer comes whole. */
static void test_messages(const void *arg)
{
    DWORD    mode = *(const DWORD *)arg, count;
    char     name[80], *text = (char *)calloc(1, 50001);
    HANDLE   far_end, own;
    recorder rec;
    rig      r;
    warm_up();
    rig_open(&r);
    memset(text, 'm', 50000);
    snprintf(name, sizeof name, "\\\\.\\pipe\\chardev-messages-%lu", GetCurrentProcessId());
    own = CreateNamedPipeA(name, PIPE_ACCESS_DUPLEX | mode, PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE, 1, 65536, 65536, 0, NULL);
    REQUIRE(own != INVALID_HANDLE_VALUE);
    far_end = CreateFileA(name, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, 0, NULL);
    REQUIRE(far_end != INVALID_HANDLE_VALUE);
    attach(&rec, open_win(&r, own, NULL));
    CHECK(WriteFile(far_end, "", 0, &count, NULL));
    far_say(far_end, "one");
    PUMP(&r, rec.length == 3);
    far_say(far_end, text);
    PUMP(&r, rec.length == 50003);
    CHECK_MEM(rec.input + 3, 50000, text, 50000);
    CHECK_STR(rec.events, "O");
    CloseHandle(far_end);
    PUMP(&r, !rec.open);
    detach(&rec);
    free(text);
    rig_close(&r);
}

TEST_FAMILY(messages)
{
    static const DWORD modes[] = { FILE_FLAG_OVERLAPPED, 0 };
    test_add_case("messages_overlapped", test_messages, &modes[0], TEST_SECONDS);
    test_add_case("messages_blocking", test_messages, &modes[1], TEST_SECONDS);
}

TEST(file_is_read_to_its_end)
{
    recorder rec;
    HANDLE   in, out;
    rig      r;
    rig_open(&r);
    write_file(scratch("in"), "all of it");
    in = CreateFileA(scratch("in"), GENERIC_READ, 7, NULL, OPEN_EXISTING, 0, NULL);
    out = CreateFileA(scratch("out"), GENERIC_WRITE, 7, NULL, CREATE_ALWAYS, FILE_FLAG_OVERLAPPED, NULL);
    REQUIRE(in != INVALID_HANDLE_VALUE && out != INVALID_HANDLE_VALUE);
    attach_with_room(&rec, open_win(&r, in, out), 3);
    PUMP(&r, rec.length == 3);
    settle(&r);
    give_room(&rec, 100);
    PUMP(&r, !rec.open);
    CHECK_INPUT(&rec, "all of it");
    CHECK_INT(chr_fe_write_all(&rec.fe, "one ", 4, 5000), 4);
    CHECK_INT(chr_fe_write_all(&rec.fe, "two", 3, 5000), 3);
    CHECK_INT(chr_drain(r.ctx, 5000), 0);
    CHECK_STR(read_file(scratch("out")), "one two");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

#endif
