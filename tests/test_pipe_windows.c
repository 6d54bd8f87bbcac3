/* pipe on Windows: the server and clients of a named pipe. On other systems its options for that are rejected. */
#define RIG_WITH_HANDLES /* what it waits for are no sockets */
#include "chardev.h"
#include "rig.h"

#ifndef _WIN32

TEST(no_servers_of_pipes_here)
{
    chr_pipe_options options;
    chr_error        err;
    rig              r;
    rig_open(&r);
    CHECK_INT(refuse(&r, "pipe,id=p,path=/tmp/nowhere,server=off", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "server");
    memset(&options, 0, sizeof options);
    options.path = "/tmp/nowhere";
    options.server = CHR_OFF;
    CHECK(!chr_open(r.ctx, "p", chr_backend_find(r.ctx, "pipe"), &options, &err));
    CHECK_INT(err.code, CHR_ERR_NOT_SUPPORTED);
    CHECK_HAS(err.text, "server");
    rig_close(&r);
}

#else

enum { HUGE = 3 << 20 };

/* A name that no other test has. */
static const char *name_of(const char *what)
{
    static char name[100];
    snprintf(name, sizeof name, "chardev-%s-%lu", what, GetCurrentProcessId());
    return name;
}

static chr_dev *make_pipe(rig *r, const char *id, const char *what, const char *more)
{
    char options[300];
    snprintf(options, sizeof options, "pipe,id=%s,path=%s%s", id, name_of(what), more);
    return make(r, options);
}

/* A client that blocks. */
static HANDLE client_of(rig *r, const char *what)
{
    char    path[200];
    HANDLE  handle = INVALID_HANDLE_VALUE;
    int64_t end = real_ms() + 5000;
    snprintf(path, sizeof path, "\\\\.\\pipe\\%s", name_of(what));
    while (handle == INVALID_HANDLE_VALUE && real_ms() < end) {
        handle = CreateFileA(path, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, 0, NULL);
        chr_loop_step(r->ctx, 5);
    }
    REQUIRE(handle != INVALID_HANDLE_VALUE);
    return handle;
}

static void far_say(HANDLE far_end, const char *text)
{
    DWORD count;
    CHECK(WriteFile(far_end, text, (DWORD)strlen(text), &count, NULL));
}

static const char *far_hear(HANDLE far_end)
{
    static char text[200];
    DWORD       count = 0;
    if (!ReadFile(far_end, text, sizeof text - 1, &count, NULL)) return "(eof)";
    text[count] = 0;
    return text;
}

static const char *filename_of(chr_dev *dev)
{
    static chr_info info;
    chr_query(dev, &info);
    return info.filename;
}

static int comes_back(chr_dev *dev)
{
    chr_info info;
    chr_query(dev, &info);
    return info.comes_back;
}

/* The thread pool and the like come with the first use. */
static void warm_up(void)
{
    HANDLE   far_end;
    recorder rec;
    rig      r;
    rig_open(&r);
    attach(&rec, make_pipe(&r, "w", "warm", ""));
    far_end = client_of(&r, "warm");
    PUMP(&r, rec.open);
    CloseHandle(far_end);
    PUMP(&r, !rec.open);
    detach(&rec);
    chr_context_free(r.ctx);
}

TEST(server_takes_one_client_after_the_other)
{
    char     want[200];
    HANDLE   far_end;
    recorder rec;
    chr_dev *dev;
    rig      r;
    int      i;
    warm_up();
    rig_open(&r);
    dev = make_pipe(&r, "p", "turns", "");
    attach(&rec, dev);
    CHECK_STR(rec.events, "");
    CHECK(comes_back(dev));
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    snprintf(want, sizeof want, "disconnected:pipe:%s,server=on", name_of("turns"));
    CHECK_STR(filename_of(dev), want);
    for (i = 0; i < 3; i++) {
        far_end = client_of(&r, "turns");
        PUMP(&r, rec.open);
        CHECK_STR(filename_of(dev), want + strlen("disconnected:"));
        far_say(far_end, "ping");
        PUMP(&r, rec.length == 4);
        CHECK_INPUT(&rec, "ping");
        forget_input(&rec);
        CHECK_INT(chr_fe_write(&rec.fe, "pong", 4), 4);
        CHECK_STR(far_hear(far_end), "pong");
        far_say(far_end, "bye");
        CloseHandle(far_end);
        PUMP(&r, !rec.open);
        CHECK_INPUT(&rec, "bye");
        forget_input(&rec);
    }
    CHECK_STR(rec.events, "OCOCOC");
    detach(&rec);
    rig_close(&r);
}

TEST(second_client_finds_it_busy)
{
    HANDLE    far_end;
    recorder  rec;
    chr_error err;
    char      options[200];
    rig       r;
    warm_up();
    rig_open(&r);
    attach(&rec, make_pipe(&r, "p", "busy", ""));
    far_end = client_of(&r, "busy");
    PUMP(&r, rec.open);
    snprintf(options, sizeof options, "pipe,id=q,path=%s,server=off", name_of("busy"));
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_BUSY);
    CHECK_HAS(err.text, "cannot connect to the pipe");
    CHECK_HAS(err.text, name_of("busy"));
    snprintf(options, sizeof options, "pipe,id=q,path=%s", name_of("busy"));
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_EXISTS);
    CHECK_HAS(err.text, "made it already");
    CloseHandle(far_end);
    detach(&rec);
    rig_close(&r);
}

TEST(names_with_and_without_prefix)
{
    static const char *const prefixes[] = { "", "\\\\.\\pipe\\", "//./pipe/" };
    recorder                 server, client;
    char                     options[300];
    rig                      r;
    size_t                   i, j;
    warm_up();
    rig_open(&r);
    for (i = 0; i < 3; i++)
        for (j = 0; j < 3; j++) {
            snprintf(options, sizeof options, "pipe,id=s,path=%s%s", prefixes[i], name_of("names"));
            attach(&server, make(&r, options));
            snprintf(options, sizeof options, "pipe,id=c,server=off,path=%s%s", prefixes[j], name_of("names"));
            attach(&client, make(&r, options));
            PUMP(&r, server.open && client.open);
            detach(&client);
            CHECK_INT(chr_remove(r.ctx, "c", NULL), 0);
            PUMP(&r, !server.open);
            detach(&server);
            CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
            settle(&r);
        }
    rig_close(&r);
}

TEST(client_without_server)
{
    recorder  server, client;
    chr_error err;
    char      options[200];
    chr_dev  *dev;
    rig       r;
    warm_up();
    rig_open(&r);
    snprintf(options, sizeof options, "pipe,id=c,path=%s,server=off", name_of("later"));
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_NOT_FOUND);
    CHECK_INT(refuse(&r, "pipe,id=c,path=", &err), CHR_ERR_INVALID);
    CHECK_INT(refuse(&r, "pipe,id=c", &err), CHR_ERR_INVALID);
    CHECK_INT(refuse(&r, "pipe,id=c,path=x,reconnect-ms=5", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "reconnect-ms= needs server=off");
    dev = make_pipe(&r, "c", "later", ",server=off,reconnect-ms=20");
    attach(&client, dev);
    CHECK(comes_back(dev));
    CHECK_STR(client.events, "");
    CHECK_HAS(r.log, "cannot connect to the pipe");
    attach(&server, make_pipe(&r, "s", "later", ""));
    PUMP(&r, client.open && server.open);
    CHECK_INT(chr_fe_write(&client.fe, "hello", 5), 5);
    PUMP(&r, server.length == 5);
    detach(&server);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    PUMP(&r, !client.open);
    attach(&server, make_pipe(&r, "s", "later", ""));
    PUMP(&r, client.open && server.open);
    CHECK_STR(client.events, "OCO");
    detach(&client);
    detach(&server);
    rig_close(&r);
}

TEST(client_without_reconnect_stays_closed)
{
    recorder server, client;
    rig      r;
    warm_up();
    rig_open(&r);
    attach(&server, make_pipe(&r, "s", "once", ""));
    attach(&client, make_pipe(&r, "c", "once", ",server=off"));
    CHECK_STR(client.events, "O");
    PUMP(&r, server.open);
    CHECK_INT(chr_fe_write(&server.fe, "last", 4), 4);
    detach(&server);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    PUMP(&r, !client.open);
    CHECK_INPUT(&client, "last"); /* what was sent just before the end comes before CLOSED */
    CHECK_STR(client.events, "OC");
    CHECK_INT(chr_fe_write(&client.fe, "x", 1), CHR_ERR_DISCONNECTED);
    detach(&client);
    rig_close(&r);
}

/* The reader takes nothing: the writer is stopped; the hang-up behind what waits comes in its order. */
TEST(slow_reader_and_hang_up)
{
    recorder server, client;
    size_t   sent = 0;
    int64_t  end;
    rig      r;
    int      n;
    char     block[5000];
    warm_up();
    rig_open(&r);
    memset(block, 'x', sizeof block);
    attach_with_room(&server, make_pipe(&r, "s", "slow", ""), 0);
    attach(&client, make_pipe(&r, "c", "slow", ",server=off"));
    for (end = real_ms() + 200; real_ms() < end; chr_loop_step(r.ctx, 2))
        while ((n = chr_fe_write(&client.fe, block, sizeof block)) > 0) sent += (size_t)n;
    if (!CHECK(sent > 0 && sent < 400000)) NOTE("%zu bytes were taken", sent);
    detach(&client);
    CHECK_INT(chr_remove(r.ctx, "c", NULL), 0);
    for (n = 0; n < 20; n++) chr_loop_step(r.ctx, 2);
    CHECK_STR(server.events, "O");
    give_room(&server, UNLIMITED);
    PUMP(&r, !server.open);
    CHECK_INT(server.length, sent);
    CHECK_STR(server.events, "OC");
    detach(&server);
    PUMP(&r, count_fds() <= r.fds + 20);
    Sleep(100);
    rig_close(&r);
}

TEST(no_room_then_hang_up)
{
    HANDLE   far_end;
    recorder rec;
    rig      r;
    warm_up();
    rig_open(&r);
    attach_with_room(&rec, make_pipe(&r, "p", "full", ""), 4);
    far_end = client_of(&r, "full");
    PUMP(&r, rec.open);
    far_say(far_end, "1234");
    PUMP(&r, rec.length == 4);
    CloseHandle(far_end);
    PUMP(&r, !rec.open);
    far_end = client_of(&r, "full"); /* the next one can come */
    PUMP(&r, rec.open);
    CloseHandle(far_end);
    detach(&rec);
    rig_close(&r);
}

/* Big transfers both ways at once. */
static unsigned char byte_at(size_t i) { return (unsigned char)(i * 7 + (i >> 9)); }

static size_t send_more(recorder *rec, size_t sent, unsigned char salt)
{
    unsigned char block[7001];
    size_t        i;
    int           n;
    do {
        size_t piece = HUGE - sent < sizeof block ? HUGE - sent : sizeof block;
        for (i = 0; i < piece; i++) block[i] = byte_at(sent + i) ^ salt;
        n = piece ? chr_fe_write(&rec->fe, block, piece) : 0;
        sent += n > 0 ? (size_t)n : 0;
    } while (n > 0);
    return sent;
}

static size_t wrong_bytes(const recorder *rec, unsigned char salt)
{
    size_t i, wrong = 0;
    for (i = 0; i < rec->length; i++) wrong += (unsigned char)rec->input[i] != (unsigned char)(byte_at(i) ^ salt);
    return wrong;
}

TEST(big_transfers_both_ways)
{
    recorder server, client;
    size_t   to_client = 0, to_server = 0;
    rig      r;
    warm_up();
    rig_open(&r);
    attach(&server, make_pipe(&r, "s", "big", ""));
    attach(&client, make_pipe(&r, "c", "big", ",server=off"));
    PUMP(&r, server.open);
    PUMP(&r, (to_client = send_more(&server, to_client, 0), to_server = send_more(&client, to_server, 0x55),
              client.length == HUGE && server.length == HUGE));
    CHECK_INT(wrong_bytes(&client, 0), 0);
    CHECK_INT(wrong_bytes(&server, 0x55), 0);
    detach(&server);
    detach(&client);
    rig_close(&r);
}

/* A client that connects and disconnects before the server polls. */
TEST(client_that_leaves_at_once)
{
    HANDLE   far_end;
    recorder rec;
    char     path[200];
    rig      r;
    int      i;
    warm_up();
    rig_open(&r);
    attach(&rec, make_pipe(&r, "p", "brief", ""));
    snprintf(path, sizeof path, "\\\\.\\pipe\\%s", name_of("brief"));
    for (i = 0; i < 20; i++) {
        far_end = CreateFileA(path, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, 0, NULL);
        if (far_end != INVALID_HANDLE_VALUE) CloseHandle(far_end);
        chr_loop_step(r.ctx, 5);
    }
    PUMP(&r, !rec.open);
    far_end = client_of(&r, "brief");
    far_say(far_end, "here");
    PUMP(&r, rec.length == 4);
    CHECK_INPUT(&rec, "here");
    CloseHandle(far_end);
    detach(&rec);
    rig_close(&r);
}

/* Bytes of one who wrote and left before the server looked are delivered between OPENED and CLOSED. */
TEST(client_that_writes_and_leaves)
{
    HANDLE   far_end;
    recorder rec;
    char     path[200];
    rig      r;
    warm_up();
    rig_open(&r);
    attach(&rec, make_pipe(&r, "p", "note", ""));
    snprintf(path, sizeof path, "\\\\.\\pipe\\%s", name_of("note"));
    far_end = CreateFileA(path, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, 0, NULL);
    REQUIRE(far_end != INVALID_HANDLE_VALUE);
    far_say(far_end, "a note");
    CloseHandle(far_end);
    PUMP(&r, rec.length == 6 && !rec.open);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

/* Removed in each state: waiting, connected, with a read and a write in flight, hung up. */
TEST_WITHIN(handles_stay_as_many, 120)
{
    recorder server, client;
    rig      r;
    int      i, before, rounds = 500;
    char     block[70000];
    warm_up();
    rig_open(&r);
    memset(block, 'x', sizeof block);
    before = count_fds();
    for (i = 0; i < rounds; i++) {
        attach(&server, make_pipe(&r, "s", "rounds", ""));
        if (i % 5 > 0) {
            attach(&client, make_pipe(&r, "c", "rounds", ",server=off"));
            if (i % 5 > 1) PUMP(&r, server.open);
            if (i % 5 > 2) chr_fe_write(&client.fe, "x", 1);
            if (i % 5 > 3) chr_loop_step(r.ctx, 0);
            detach(&client);
            CHECK_INT(chr_remove(r.ctx, "c", NULL), 0);
            if (i & 1) chr_loop_step(r.ctx, 0);
        }
        detach(&server);
        CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
        chr_loop_step(r.ctx, 0);
    }
    PUMP(&r, count_fds() <= before);
    rig_close(&r);
}

static void removed_by_itself(recorder *rec, int what)
{
    rig *r = (rig *)rec->user;
    if (what != 'e' || rec->last_event != CHR_EVENT_CLOSED) return;
    detach(rec);
    CHECK_INT(chr_remove(r->ctx, "p", NULL), 0);
}

TEST(removed_in_its_own_closed)
{
    HANDLE   far_end;
    recorder rec;
    rig      r;
    warm_up();
    rig_open(&r);
    attach(&rec, make_pipe(&r, "p", "self", ""));
    rec.user = &r;
    rec.then = removed_by_itself;
    far_end = client_of(&r, "self");
    PUMP(&r, rec.open);
    CloseHandle(far_end);
    PUMP(&r, !chr_find(r.ctx, "p"));
    rig_close(&r);
}

/* Hot swap with the same name: either the old chardev releases it first, or the new one fails with the reason. */
TEST(changed_to_another_pipe)
{
    HANDLE    far_end;
    recorder  rec;
    chr_error err;
    char      options[200];
    rig       r;
    warm_up();
    rig_open(&r);
    attach(&rec, make_pipe(&r, "p", "old", ""));
    far_end = client_of(&r, "old");
    PUMP(&r, rec.open);
    snprintf(options, sizeof options, "pipe,path=%s", name_of("new"));
    if (!CHECK_INT(chr_change(r.ctx, "p", options, &err), 0)) NOTE("%s", err.text);
    CHECK_STR(far_hear(far_end), "(eof)");
    CloseHandle(far_end);
    CHECK(!rec.open);
    far_end = client_of(&r, "new");
    PUMP(&r, rec.open);
    CloseHandle(far_end);
    detach(&rec);
    rig_close(&r);
}

TEST(uri_and_help)
{
    char    *text;
    chr_dev *dev;
    rig      r;
    warm_up();
    rig_open(&r);
    text = (char *)malloc(100);
    snprintf(text, 100, "pipe:%s", name_of("uri"));
    dev = chr_new_uri(r.ctx, "p", text, NULL);
    REQUIRE(dev != NULL);
    CHECK_HAS(filename_of(dev), text);
    free(text);
    rig_close(&r);
}

/* Two programs joined by a pipe: this one is started again, and sends back what it gets. */
static void child_echo(const char *path)
{
    recorder  rec;
    char      options[200];
    rig       r;
    size_t    sent = 0;
    int       n;
    rig_open(&r);
    snprintf(options, sizeof options, "pipe,id=c,path=%s,server=off", path);
    attach(&rec, make(&r, options));
    while (rec.open || sent < rec.length) {
        chr_loop_step(r.ctx, 10);
        while (sent < rec.length && (n = chr_fe_write(&rec.fe, rec.input + sent, rec.length - sent)) > 0) sent += (size_t)n;
        if (!rec.open) break;
    }
    detach(&rec);
    chr_context_free(r.ctx);
    exit(0);
}

__attribute__((constructor)) static void child_begins(void)
{
    const char *path = getenv("CHARDEV_PIPE_CHILD");
    if (path) child_echo(path);
}

TEST(two_programs)
{
    STARTUPINFOA        start;
    PROCESS_INFORMATION process;
    char                program[MAX_PATH];
    recorder            rec;
    DWORD               code = 1;
    size_t              sent = 0;
    rig                 r;
    warm_up();
    rig_open(&r);
    attach(&rec, make_pipe(&r, "s", "two", ""));
    memset(&start, 0, sizeof start);
    start.cb = sizeof start;
    REQUIRE(GetModuleFileNameA(NULL, program, sizeof program) > 0);
    SetEnvironmentVariableA("CHARDEV_PIPE_CHILD", name_of("two"));
    REQUIRE(CreateProcessA(program, NULL, NULL, NULL, FALSE, 0, NULL, NULL, &start, &process));
    SetEnvironmentVariableA("CHARDEV_PIPE_CHILD", NULL);
    PUMP(&r, rec.open);
    PUMP(&r, (sent = send_more(&rec, sent, 0), rec.length == HUGE));
    CHECK_INT(wrong_bytes(&rec, 0), 0);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    CHECK_INT(WaitForSingleObject(process.hProcess, 10000), WAIT_OBJECT_0);
    CHECK(GetExitCodeProcess(process.hProcess, &code));
    CHECK_INT(code, 0);
    CloseHandle(process.hProcess);
    CloseHandle(process.hThread);
    rig_close(&r);
}

#endif
