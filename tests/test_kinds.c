/* Each backend compared with the others: its name, its cost, the commands and calls that it supports. */
#include "chardev.h"
#include "fault.h"
#include "rig.h"
#include "hosted.h"

#ifndef _WIN32
#include <pty.h>
#endif

typedef struct kind {
    const char *name;
    void      (*prepare)(const char **base); /* what has to be there before; *base: the options of a chardev below */
    const char *options;                     /* %s: a path or a number that prepare() has set */
    const char *filename;                    /* a part of it */
    int         descriptors;                 /* that are its own; one that was given is counted */
    const char *events;                      /* at once */
    int         comes_back;
    int         shutdown, disconnect;
    const char *commands;                    /* those that it knows, by the letters of the table below */
} kind;

static char place[300], fifo[400];
static int  far_side = -1, other_side = -1;

static void no_preparation(const char **base) { (void)base; }

static void prepare_base(const char **base) { *base = "ringbuf,id=base"; }

static void prepare_path(const char **base)
{
    (void)base;
    snprintf(place, sizeof place, "%s", scratch("x"));
    write_file(scratch("in"), "");
}

static void prepare_fifos(const char **base)
{
    prepare_path(base);
    snprintf(fifo, sizeof fifo, "%s.in", place);
    REQUIRE(mkfifo(fifo, 0600) == 0);
    snprintf(fifo, sizeof fifo, "%s.out", place);
    REQUIRE(mkfifo(fifo, 0600) == 0);
}

static void prepare_fifo(const char **base)
{
    prepare_path(base);
    REQUIRE(mkfifo(place, 0600) == 0);
}

static void prepare_line(const char **base)
{
    (void)base;
    REQUIRE(openpty(&far_side, &other_side, place, NULL, NULL) == 0);
}

static void prepare_pair(const char **base)
{
    int fds[2];
    (void)base;
    socket_pair(fds);
    far_side = fds[0];
    snprintf(place, sizeof place, "%d", fds[1]);
}

static void prepare_pipe(const char **base)
{
    int fds[2];
    (void)base;
    REQUIRE(pipe(fds) == 0);
    far_side = fds[1];
    snprintf(place, sizeof place, "%d", fds[0]);
}

enum { NO = CHR_ERR_NOT_SUPPORTED, GONE = CHR_ERR_DISCONNECTED };

static const kind kinds[] = {
    /* name, prepare, options, filename, descriptors, events, comes_back, shutdown, disconnect, commands */
    { "null",      no_preparation, "null,id=k",                      "null",      0, "",   0, NO,   NO, "" },
    { "ringbuf",   no_preparation, "ringbuf,id=k",                   "ringbuf",   0, "O",  0, NO,   NO, "" },
    { "testdev",   no_preparation, "testdev,id=k",                   "testdev",   0, "O",  0, NO,   NO, "" },
    { "script",    no_preparation, "script,id=k,text=wait 1s",       "script",    0, "O",  0, 0,    NO, "" },
    { "msmouse",   no_preparation, "msmouse,id=k",                   "msmouse",   0, "",   1, NO,   NO, "tT" },
    { "wctablet",  no_preparation, "wctablet,id=k",                  "wctablet",  0, "O",  0, NO,   NO, "P" },
    { "mux",       prepare_base,   "mux,id=k,chardev=base",          "mux",       0, "IO", 0, NO,   NO, "" },
    { "hub",       prepare_base,   "hub,id=k,chardevs.0=base",       "hub",       0, "O",  0, NO,   NO, "" },
    { "fault",     prepare_base,   "fault,id=k,chardev=base",        "fault",     0, "O",  0, NO,   NO, "" },
    { "file",      prepare_path,   "file,id=k,path=%s",              "file",      1, "O",  0, 0,    NO, "" },
    { "pipe",      prepare_fifos,  "pipe,id=k,path=%s",              "pipe",      2, "O",  0, 0,    NO, "" },
    { "pipe_both", prepare_fifo,   "pipe,id=k,path=%s",              "pipe",      1, "O",  0, NO,   NO, "" },
    { "pty",       no_preparation, "pty,id=k",                       "pty:/dev/", 2, "",   1, NO,   NO, "Z" },
    { "serial",    prepare_line,   "serial,id=k,path=%s",            "serial",    1, "O",  0, NO,   NO, "PbpFfux" },
    { "null_line", no_preparation, "serial,id=k,path=/dev/null",     "serial",    2, "OC", 0, NO,   NO, "" },
    { "fd_socket", prepare_pair,   "fd,id=k,in=%s,out=%1$s",         "fd",        1, "O",  0, 0,    NO, "" },
    { "fd_in",     prepare_pipe,   "fd,id=k,in=%s",                  "fd",        2, "O",  0, GONE, NO, "" },
    { "udp",       no_preparation, "udp,id=k,host=127.0.0.1,port=9", "udp:",      1, "O",  0, NO,   NO, "" },
    { "socket",    prepare_pair,   "socket,id=k,fd=%s",              "unix",      1, "O",  0, 0,    0,  "" },
    { "server",    no_preparation, "socket,id=k,host=127.0.0.1,port=0,server=on,wait=off",
      "disconnected:tcp:127.0.0.1:", 1, "", 1, GONE, 0,  "" },
};

typedef struct command {
    char letter;
    int  number;
} command;

static const command commands[] = {
    { 'e', CHR_IOCTL_SET_ECHO },           { 'P', CHR_IOCTL_SERIAL_SET_PARAMS },  { 'b', CHR_IOCTL_SERIAL_SET_BREAK },
    { 't', CHR_IOCTL_SERIAL_GET_TIOCM },   { 'T', CHR_IOCTL_SERIAL_SET_TIOCM },   { 'p', CHR_IOCTL_SERIAL_GET_PARAMS },
    { 'F', CHR_IOCTL_SERIAL_SET_FLOW },    { 'f', CHR_IOCTL_SERIAL_GET_FLOW },    { 'd', CHR_IOCTL_PP_READ_DATA },
    { 'D', CHR_IOCTL_PP_WRITE_DATA },      { 'c', CHR_IOCTL_PP_READ_CONTROL },    { 'C', CHR_IOCTL_PP_WRITE_CONTROL },
    { 's', CHR_IOCTL_PP_READ_STATUS },     { 'r', CHR_IOCTL_PP_DATA_DIR },        { 'a', CHR_IOCTL_PP_EPP_READ_ADDRESS },
    { 'i', CHR_IOCTL_PP_EPP_READ },        { 'A', CHR_IOCTL_PP_EPP_WRITE_ADDRESS }, { 'o', CHR_IOCTL_PP_EPP_WRITE },
    { 'u', CHR_IOCTL_SERIAL_PURGE },       { 'x', CHR_IOCTL_SERIAL_GET_ERRORS },  { 'X', CHR_IOCTL_SERIAL_SET_ERRORS },
    { 'z', CHR_IOCTL_GET_TERMINAL_SIZE },  { 'Z', CHR_IOCTL_SET_TERMINAL_SIZE },  { '?', 7777 },
};

/* The letters of those that are not CHR_ERR_NOT_SUPPORTED, in a static buffer. */
static const char *known_commands(chr_frontend *fe)
{
    static char text[sizeof commands / sizeof *commands + 1];
    size_t      i, len = 0;
    for (i = 0; i < sizeof commands / sizeof *commands; i++) {
        union { int number; chr_serial_params params; chr_terminal_size size; chr_parallel_epp epp; } arg;
        memset(&arg, 0, sizeof arg);
        if (commands[i].letter == 'P') arg.params.speed = 9600, arg.params.parity = 'N', arg.params.data_bits = 8, arg.params.stop_bits = 1;
        if (commands[i].letter == 'u') arg.number = CHR_PURGE_RECEIVE;
        if (commands[i].letter == 'Z') arg.size.columns = 80, arg.size.rows = 25;
        if (chr_fe_ioctl(fe, commands[i].number, &arg) != CHR_ERR_NOT_SUPPORTED) text[len++] = commands[i].letter;
    }
    text[len] = 0;
    return text;
}

static void check_kind(const void *arg)
{
    const kind *k = (const kind *)arg;
    const char *base = NULL;
    char        options[700];
    chr_info    info;
    recorder    rec;
    rig         r;
    int         before, i;
    rig_open_virtual(&r);
    k->prepare(&base);
    if (base) make(&r, base);
    settle(&r);
    before = count_fds() - (strstr(k->options, "fd=%") || strncmp(k->options, "fd,", 3) == 0);
    snprintf(options, sizeof options, k->options, place);
    attach(&rec, make(&r, options));
    settle(&r);
    CHECK_INT(count_fds() - before, k->descriptors);
    CHECK_STR(rec.events, k->events);
    chr_query(rec.fe.dev, &info);
    CHECK_STR(info.id, "k");
    if (!CHECK(strncmp(info.filename, k->filename, strlen(k->filename)) == 0)) NOTE("%s", info.filename);
    CHECK_INT(info.comes_back, k->comes_back);
    CHECK_INT(info.be_open, strchr(k->events, 'O') && !strchr(k->events, 'C'));
    CHECK_STR(known_commands(&rec.fe), k->commands);
    for (i = 1; i <= 3; i++) { /* nothing is in its way: who wants to write is told at once */
        chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
        settle(&r);
        CHECK_INT(rec.writable, i);
    }
    CHECK_INT(chr_fe_shutdown(&rec.fe), k->shutdown);
    CHECK_INT(chr_fe_shutdown(&rec.fe), k->shutdown); /* and again */
    CHECK_INT(chr_fe_disconnect(&rec.fe), k->disconnect);
    detach(&rec);
    if (far_side >= 0) close(far_side);
    if (other_side >= 0) close(other_side);
    rig_close(&r);
    scratch_clean();
}

TEST_FAMILY(kinds)
{
    char   name[60];
    size_t i;
    for (i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        snprintf(name, sizeof name, "kind_%s", kinds[i].name);
        test_add_case(name, check_kind, &kinds[i], TEST_SECONDS);
    }
}

/* ---- input that finds no room ------------------------------------------------------------------------------------ */

typedef struct source {
    const char *name;
    void      (*prepare)(const char **base);
    const char *options;
    void      (*speak)(recorder *rec); /* what makes input come; NULL: the far side says it */
} source;

static void prepare_socket_below(const char **base)
{
    static char options[60];
    int         fds[2];
    (void)base;
    socket_pair(fds);
    far_side = fds[0];
    snprintf(options, sizeof options, "socket,id=base,fd=%d", fds[1]);
    *base = options;
}

static void prepare_input_file(const char **base)
{
    (void)base;
    write_file(scratch("in"), "spoken");
    snprintf(place, sizeof place, "%s,input-path=%s", scratch("x"), scratch("in"));
}

static void prepare_udp_pair(const char **base)
{
    struct sockaddr_in address;
    socklen_t          len = sizeof address;
    int                i, ports[2], fds[2];
    (void)base;
    for (i = 0; i < 2; i++) {
        memset(&address, 0, sizeof address);
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        fds[i] = socket(AF_INET, SOCK_DGRAM, 0);
        REQUIRE(fds[i] >= 0 && bind(fds[i], (struct sockaddr *)&address, sizeof address) == 0);
        REQUIRE(getsockname(fds[i], (struct sockaddr *)&address, &len) == 0);
        ports[i] = ntohs(address.sin_port);
    }
    REQUIRE(connect(fds[0], (struct sockaddr *)&address, sizeof address) == 0);
    close(fds[1]);
    far_side = fds[0];
    snprintf(place, sizeof place, "port=%d,localaddr=127.0.0.1,localport=%d", ports[0], ports[1]);
}

static void nothing_more(recorder *rec) { (void)rec; }

static void move_mouse(recorder *rec)
{
    int lines = CHR_TIOCM_DTR | CHR_TIOCM_RTS;
    chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines);
    chr_input_rel(rec->fe.dev, 1, 2);
    chr_input_sync(rec->fe.dev);
}

static void ask_tablet(recorder *rec) { chr_fe_write(&rec->fe, "~#", 2); }

static void write_fifo(recorder *rec)
{
    (void)rec;
    snprintf(fifo, sizeof fifo, "%s.in", place);
    far_side = open(fifo, O_WRONLY | O_NONBLOCK);
    REQUIRE(far_side >= 0);
    say(far_side, "spoken");
}

static const source sources[] = {
    { "script",   no_preparation,       "script,id=k,text=send \"spoken\"",       nothing_more },
    { "msmouse",  no_preparation,       "msmouse,id=k",                           move_mouse },
    { "wctablet", no_preparation,       "wctablet,id=k",                          ask_tablet },
    { "mux",      prepare_socket_below, "mux,id=k,chardev=base",                  NULL },
    { "hub",      prepare_socket_below, "hub,id=k,chardevs.0=base",               NULL },
    { "fault",    prepare_socket_below, "fault,id=k,chardev=base",                NULL },
    { "file",     prepare_input_file,   "file,id=k,path=%s",                      nothing_more },
    { "pipe",     prepare_fifos,        "pipe,id=k,path=%s",                      write_fifo },
    { "serial",   prepare_line,         "serial,id=k,path=%s",                    NULL },
    { "fd",       prepare_pair,         "fd,id=k,in=%s,out=%1$s",                 NULL },
    { "udp",      prepare_udp_pair,     "udp,id=k,host=127.0.0.1,%s",             NULL },
    { "socket",   prepare_pair,         "socket,id=k,fd=%s",                      NULL },
    { "telnet",   prepare_pair,         "socket,id=k,fd=%s,telnet=on",            NULL },
};

/* Once nothing more happens, room comes without a word (a device that changes its mind): the next step of the loop
 * asks. */
static void room_comes_silently(const void *arg)
{
    const source *from = (const source *)arg;
    const char   *base = NULL;
    char          options[700];
    recorder      rec;
    rig           r;
    int           i;
    rig_open_virtual(&r);
    from->prepare(&base);
    if (base) make(&r, base);
    snprintf(options, sizeof options, from->options, place);
    attach_with_room(&rec, make(&r, options), 0);
    settle(&r);
    if (from->speak) from->speak(&rec);
    else say(far_side, "spoken");
    usleep(1000);
    settle(&r);
    pass_time(&r, 1000);
    CHECK_INT(rec.length, 0);
    rec.room = 1;
    for (i = 0; i < 3; i++) chr_loop_step(r.ctx, 0);
    CHECK_INT(rec.length, 1);
    settle(&r);
    pass_time(&r, 1000);
    CHECK_INT(rec.length, 1);
    rec.room = UNLIMITED;
    for (i = 0; i < 3; i++) chr_loop_step(r.ctx, 0);
    CHECK(rec.length > 1);
    detach(&rec);
    if (far_side >= 0) close(far_side);
    if (other_side >= 0) close(other_side);
    rig_close(&r);
    scratch_clean();
}

/* Room that is reported by chr_fe_accept_input() is used at once, even in a foreign loop, which would retry only
 * after a while. */
static void room_is_told(const void *arg)
{
    const source *from = (const source *)arg;
    const char   *base = NULL;
    char          options[700];
    recorder      rec;
    rig           r;
    rig_open_hosted(&r);
    from->prepare(&base);
    if (base) make(&r, base);
    snprintf(options, sizeof options, from->options, place);
    attach_with_room(&rec, make(&r, options), 0);
    host_turns(&r, 10);
    if (from->speak) from->speak(&rec);
    else say(far_side, "spoken");
    usleep(1000);
    host_turns(&r, 10);
    CHECK_INT(rec.length, 0);
    give_room(&rec, 1);
    host_turns(&r, 5);
    CHECK_INT(rec.length, 1);
    give_room(&rec, 2);
    host_turns(&r, 5);
    CHECK_INT(rec.length, 3);
    give_room(&rec, UNLIMITED);
    host_turns(&r, 5);
    CHECK(rec.length >= 6);
    detach(&rec);
    if (far_side >= 0) close(far_side);
    if (other_side >= 0) close(other_side);
    rig_close(&r);
    scratch_clean();
}

TEST_FAMILY(rooms)
{
    char   name[60];
    size_t i;
    for (i = 0; i < sizeof sources / sizeof *sources; i++) {
        snprintf(name, sizeof name, "room_is_told_%s", sources[i].name);
        test_add_case(name, room_is_told, &sources[i], TEST_SECONDS);
        snprintf(name, sizeof name, "room_comes_silently_%s", sources[i].name);
        test_add_case(name, room_comes_silently, &sources[i], TEST_SECONDS);
    }
}

/* ---- removed at each moment -------------------------------------------------------------------------------------- */

/* Nothing of it is left in the loop: no timer, no callback, no descriptor. */
static void check_nothing_is_left(rig *r, int watches)
{
    chr_poll polls[32];
    int      timeout;
    CHECK(chr_loop_step(r->ctx, 0) >= 0);
    settle(r);
    CHECK_INT(chr_loop_prepare(r->ctx, polls, 32, &timeout), watches);
    CHECK_INT(timeout, -1);
    CHECK(chr_loop_deadline(r->ctx) == INT64_MAX);
    chr_loop_dispatch(r->ctx, NULL, 0);
    r->now += INT64_C(100000) * 1000000;
    settle(r);
}

static int count_watches(rig *r)
{
    chr_poll polls[32];
    int      timeout, count = chr_loop_prepare(r->ctx, polls, 32, &timeout);
    chr_loop_dispatch(r->ctx, NULL, 0);
    return count;
}

/* A chardev, with or without input, is removed after so many steps, with room and without. */
static void removed_after(const source *from, int steps, int room, int speaks)
{
    const char *base = NULL;
    char        options[700];
    recorder    rec;
    rig         r;
    int         watches, i;
    rig_open_virtual(&r);
    far_side = other_side = -1;
    from->prepare(&base);
    if (base) make(&r, base);
    settle(&r);
    watches = count_watches(&r);
    snprintf(options, sizeof options, from->options, place);
    attach_with_room(&rec, make(&r, options), room);
    if (speaks && from->speak) from->speak(&rec);
    else if (speaks) say(far_side, "spoken");
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    for (i = 0; i < steps; i++) {
        chr_loop_step(r.ctx, 0);
        r.now += 1000000;
    }
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "k", NULL), 0);
    if (strstr(options, "telnet")) close(far_side), far_side = -1; /* what it was to be told lingers */
    check_nothing_is_left(&r, watches + (strncmp(from->options, "pty", 3) == 0)); /* the context's, for all of them */
    if (far_side >= 0) close(far_side);
    if (other_side >= 0) close(other_side);
    far_side = other_side = -1;
    rig_close(&r);
    scratch_clean();
}

static void removed_at_each_moment(const void *arg)
{
    int steps, room, speaks;
    for (steps = 0; steps < 8; steps++)
        for (room = 0; room < 2; room++)
            for (speaks = 0; speaks < 2; speaks++) removed_after((const source *)arg, steps, room ? UNLIMITED : 0, speaks);
}

static void fail_at_once(recorder *rec) { chr_fe_write(&rec->fe, "x", 1); }

static const source more_sources[] = {
    { "null",    no_preparation, "null,id=k",                       nothing_more },
    { "ringbuf", no_preparation, "ringbuf,id=k",                    fail_at_once },
    { "testdev", no_preparation, "testdev,id=k",                    nothing_more },
    { "failing", no_preparation, "script,id=k,text=reject \"x\";expect \"y\",exit=off", fail_at_once },
    { "passing", no_preparation, "script,id=k,text=pass,exit=off",  nothing_more },
    { "obuf",    prepare_pair,   "socket,id=k,fd=%s,obuf=1K,history=16", fail_at_once },
    { "pty",     no_preparation, "pty,id=k",                        fail_at_once },
    { "busy",    no_preparation, "udp,id=k,host=127.0.0.1,port=9",  fail_at_once },
    { "server",  no_preparation, "socket,id=k,host=127.0.0.1,port=0,server=on,wait=off", fail_at_once },
    { "retry",   no_preparation, "socket,id=k,path=/nonexistent/x,reconnect-ms=5", fail_at_once },
    { "unplugged", no_preparation, "serial,id=k,path=/nonexistent/x,reconnect-ms=5", fail_at_once },
    { "rowing",  no_preparation, "braille,id=k,host=127.0.0.1:61434", fail_at_once },
};

TEST_FAMILY(removals)
{
    char   name[60];
    size_t i;
    for (i = 0; i < sizeof sources / sizeof *sources; i++) {
        snprintf(name, sizeof name, "removed_at_each_moment_%s", sources[i].name);
        test_add_case(name, removed_at_each_moment, &sources[i], TEST_SECONDS);
    }
    for (i = 0; i < sizeof more_sources / sizeof *more_sources; i++) {
        snprintf(name, sizeof name, "removed_at_each_moment_%s", more_sources[i].name);
        test_add_case(name, removed_at_each_moment, &more_sources[i], TEST_SECONDS);
    }
}

/* ---- removed by whom it asks ------------------------------------------------------------------------------------- */

static struct {
    rig      *r;
    recorder *rec;
    int       calls, at; /* which call of can_read does it */
    char      how;       /* d: detaches, r: and removes it, h: takes other handlers, n: none */
} asked;

static int asked_can_read(void *opaque)
{
    recorder *rec = (recorder *)opaque;
    if (++asked.calls != asked.at) return rec->room;
    if (asked.how == 'h' || asked.how == 'n') {
        chr_fe_set_handlers(&rec->fe, asked.how == 'h' ? &recorder_handlers : NULL, rec);
        return rec->room;
    }
    chr_fe_deinit(&rec->fe);
    if (asked.how == 'r') CHECK_INT(chr_remove(asked.r->ctx, "k", NULL), 0);
    return rec->room; /* as if nothing had happened */
}

static void asked_event(void *opaque, int event) { (void)opaque, (void)event; }

static void asked_once(const source *from, int at, char how, int room)
{
    static const chr_handlers handlers = { asked_can_read, recorder_read, asked_event, NULL };
    const char *base = NULL;
    char        options[700];
    chr_error   err;
    recorder    rec;
    rig         r;
    size_t      length;
    int         i;
    rig_open_virtual(&r);
    far_side = other_side = -1;
    from->prepare(&base);
    if (base) make(&r, base);
    snprintf(options, sizeof options, from->options, place);
    memset(&rec, 0, sizeof rec);
    rec.early_input_allowed = 1;
    rec.room = room;
    asked.r = &r, asked.rec = &rec, asked.calls = 0, asked.at = at, asked.how = how;
    REQUIRE(chr_fe_init(&rec.fe, make(&r, options), &err) == 0);
    chr_fe_set_handlers(&rec.fe, &handlers, &rec);
    settle(&r);
    if (!chr_find(r.ctx, "k")) (void)0; /* gone already: nobody is there to hear it */
    else if (from->speak) from->speak(&rec);
    else say(far_side, "spoken");
    usleep(200);
    for (i = 0; i < 6; i++) {
        length = rec.length;
        chr_loop_step(r.ctx, 0);
        r.now += 1000000;
        if (asked.calls > at && (how == 'd' || how == 'r')) CHECK_INT(rec.length, length); /* nothing comes any more, nor a question */
    }
    if (how == 'd' || how == 'r') CHECK(asked.calls <= at);
    detach(&rec);
    if (far_side >= 0) close(far_side);
    if (other_side >= 0) close(other_side);
    far_side = other_side = -1;
    rig_close(&r);
    scratch_clean();
}

static void removed_by_whom_it_asks(const void *arg)
{
    static const char hows[] = "drhn";
    int               at, how, room;
    for (at = 1; at <= 4; at++)
        for (how = 0; how < 4; how++)
            for (room = 0; room < 3; room++) asked_once((const source *)arg, at, hows[how], room == 2 ? (int)UNLIMITED : room);
}

TEST_FAMILY(questions)
{
    char   name[60];
    size_t i;
    for (i = 0; i < sizeof sources / sizeof *sources; i++) {
        snprintf(name, sizeof name, "removed_by_whom_it_asks_%s", sources[i].name);
        test_add_case(name, removed_by_whom_it_asks, &sources[i], TEST_SECONDS);
    }
}

/* ---- calls that block -------------------------------------------------------------------------------------------- */

/* Another process is the far side: after a while it reads or writes the given number of bytes. */
static pid_t far_process(int fd, size_t reads, const char *says)
{
    pid_t pid = fork();
    if (pid != 0) return pid;
    usleep(20000);
    if (says && write(fd, says, strlen(says)) < 0) _exit(1);
    while (reads > 0) {
        static char block[65536];
        ssize_t     n = read(fd, block, sizeof block);
        if (n <= 0) _exit(2);
        reads -= (size_t)n < reads ? (size_t)n : reads;
    }
    _exit(0);
}

static void far_process_ends(pid_t pid)
{
    int status = -1;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
}

/* Whatever is stacked on a slow socket waits for it. */
static void blocks_until_all_is_done(const void *arg)
{
    enum { SIZE = 2000000 };
    static char   block[SIZE];
    const source *from = (const source *)arg;
    const char   *base = NULL;
    char          options[700], got[7] = "";
    recorder      rec;
    rig           r;
    pid_t         pid;
    long          calls = 0;
    int           i, has_input = strncmp(from->options, "mux", 3) != 0 && strncmp(from->options, "hub", 3) != 0;
    rig_open(&r);
    from->prepare(&base);
    if (base) make(&r, base);
    snprintf(options, sizeof options, from->options, place);
    attach_with_room(&rec, make(&r, options), 0);
    settle(&r);
    pid = far_process(far_side, SIZE, NULL);
    CHECK_INT(chr_fe_write_all(&rec.fe, block, SIZE, 20000), SIZE);
    CHECK_INT(chr_fe_flush(&rec.fe, 20000), 0);
    far_process_ends(pid);
    if (has_input) {
        pid = far_process(far_side, 0, "spoken");
        CHECK_INT(chr_fe_read_all(&rec.fe, got, 6, 20000), 6);
        CHECK_STR(got, "spoken");
        far_process_ends(pid);
    } else {
        CHECK_INT(chr_fe_read_all(&rec.fe, got, 6, 20000), CHR_ERR_NOT_SUPPORTED);
    }
    CHECK(fill_up(&rec.fe) > 0);
    memset(&fault_plan, 0, sizeof fault_plan);
    CHECK_INT(chr_fe_write_all(&rec.fe, "x", 1, 30), CHR_ERR_TIMEOUT);
    if (has_input) CHECK_INT(chr_fe_read_all(&rec.fe, got, 6, 30), CHR_ERR_TIMEOUT);
    for (i = 0; i < FAULT_COUNT; i++) calls += i == FAULT_clock_gettime ? 0 : fault_plan.counts[i];
    CHECK(calls >= 2 && calls < 60); /* it sleeps meanwhile */
    detach(&rec);
    close(far_side);
    rig_close(&r);
}

TEST_FAMILY(blocking)
{
    static const source stacks[] = {
        { "socket", prepare_pair,         "socket,id=k,fd=%s",        NULL },
        { "telnet", prepare_pair,         "socket,id=k,fd=%s,obuf=1K", NULL },
        { "fd",     prepare_pair,         "fd,id=k,in=%s,out=%1$s",   NULL },
        { "mux",    prepare_socket_below, "mux,id=k,chardev=base",    NULL },
        { "hub",    prepare_socket_below, "hub,id=k,chardevs.0=base", NULL },
        { "fault",  prepare_socket_below, "fault,id=k,chardev=base",  NULL },
        { "seeded", prepare_socket_below, "fault,id=k,chardev=base,seed=7,faults=short+block+delay", NULL },
    };
    char   name[60];
    size_t i;
    for (i = 0; i < sizeof stacks / sizeof *stacks; i++) {
        snprintf(name, sizeof name, "blocks_until_all_is_done_%s", stacks[i].name);
        test_add_case(name, blocks_until_all_is_done, &stacks[i], TEST_SECONDS);
    }
}

/* By URI: the same as by its options. */
TEST(uris_with_a_path)
{
    static const struct {
        const char *uri, *kind;
        void      (*prepare)(const char **base);
    } rows[] = {
        { "pipe:%s", "pipe", prepare_fifos }, { "pipe:%s", "pipe", prepare_fifo }, { "file:%s", "file", prepare_path },
        { "pty:%s", "pty", no_preparation },  { "pty", "pty", no_preparation },    { "%s", "serial", prepare_line },
    };
    const char *base = NULL;
    char        uri[400];
    chr_error   err;
    chr_info    info;
    chr_dev    *dev;
    size_t      i;
    rig         r;
    for (i = 0; i < sizeof rows / sizeof *rows; i++) {
        rig_open_virtual(&r);
        far_side = other_side = -1;
        snprintf(place, sizeof place, "%s", scratch("x"));
        rows[i].prepare(&base);
        snprintf(uri, sizeof uri, rows[i].uri, place);
        dev = chr_new_uri(r.ctx, "k", uri, &err);
        if (!CHECK(dev != NULL)) NOTE("%s: %s", uri, err.text);
        if (dev) {
            chr_query(dev, &info);
            CHECK_STR(info.backend, rows[i].kind);
            CHECK(i == 0 || i == 4 || exists(place));
        }
        if (far_side >= 0) close(far_side);
        if (other_side >= 0) close(other_side);
        rig_close(&r);
        scratch_clean();
    }
}

/* The file is there, and open, and can't be read. */
TEST(a_script_that_can_not_be_read)
{
    char      options[300], text[400];
    chr_error err;
    rig       r;
    rig_open(&r);
    write_file(scratch("script"), "pass");
    snprintf(options, sizeof options, "script,id=k,file=%s", scratch("script"));
    fault_arm(FAULT_pread, EIO, 1, 1);
    CHECK(!chr_new(r.ctx, options, &err));
    CHECK_INT(fault_plan.fired, 1);
    fault_disarm();
    CHECK_INT(err.code, CHR_ERR_IO);
    snprintf(text, sizeof text, "script: file=%s: %s", scratch("script"), chr_error_text(CHR_ERR_IO));
    CHECK_STR(err.text, text);
    fault_arm(FAULT_pread, FAULT_SHORT, 1, 1); /* in pieces it is as good */
    CHECK(chr_new(r.ctx, options, &err) != NULL);
    fault_disarm();
    rig_close(&r);
    scratch_clean();
}

/* ---- what is refused, word by word ------------------------------------------------------------------------------- */

#define REJECT     "reject \"x\";"
#define REJECT_4   REJECT REJECT REJECT REJECT

typedef struct refusal {
    const char *options;
    int         code;
    const char *text;
} refusal;

/* There are `base`, a ringbuf; `taken`, one with a frontend; `hub`, `mux` (of `below`), and `fault` on `base2`. */
static const refusal refusals[] = {
    { "ringbuf,id=k,size=3",             CHR_ERR_INVALID,       "ringbuf: size=3: must be a power of two" },
    { "mux,id=k,chardev=none",           CHR_ERR_NOT_FOUND,     "mux: chardev=none: there is no chardev with that id" },
    { "mux,id=k,chardev=mux",            CHR_ERR_NOT_SUPPORTED, "mux: chardev=mux: a mux can't be shared once more" },
    { "mux,id=k,chardev=taken",          CHR_ERR_BUSY,          "mux: chardev 'taken' has a frontend already" },
    { "hub,id=k,chardevs.0=base,chardevs.1=none",CHR_ERR_NOT_FOUND,     "hub: chardevs.1=none: there is no chardev with that id" },
    { "hub,id=k,chardevs.0=hub",         CHR_ERR_NOT_SUPPORTED, "hub: chardevs.0=hub: a hub can't be stacked on a hub" },
    { "hub,id=k,chardevs.0=taken",       CHR_ERR_BUSY,          "hub: chardev 'taken' has a frontend already" },
    { "fault,id=k,chardev=none",         CHR_ERR_NOT_FOUND,     "fault: chardev=none: there is no chardev with that id" },
    { "fault,id=k,chardev=taken",        CHR_ERR_BUSY,          "fault: chardev 'taken' has a frontend already" },
    { "fault,id=k,chardev=base,faults=short+shorter",CHR_ERR_INVALID,       "fault: faults=: 'shorter' is none of short, block, delay, disconnect, break, error, reorder, with a '+' between them" },
    { "fault,id=k,chardev=base,faults=", CHR_ERR_INVALID,       "fault: faults=: '' is none of short, block, delay, disconnect, break, error, reorder, with a '+' between them" },
    { "file,id=k,path=/nonexistent/x",   CHR_ERR_NOT_FOUND,     "file: cannot open /nonexistent/x: No such file or directory" },
    { "file,id=k,path=/dev/null,input-path=/nonexistent/x",CHR_ERR_NOT_FOUND,     "file: cannot open /nonexistent/x: No such file or directory" },
    { "pipe,id=k,path=/nonexistent/x",   CHR_ERR_NOT_FOUND,     "pipe: cannot open /nonexistent/x: No such file or directory" },
    { "pty,id=k,path=/nonexistent/x",    CHR_ERR_NOT_FOUND,     "pty: cannot make the symlink /nonexistent/x: No such file or directory" },
    { "serial,id=k,path=/nonexistent/x", CHR_ERR_NOT_FOUND,     "serial: cannot open /nonexistent/x: No such file or directory" },
    { "parallel,id=k,path=/nonexistent/x",CHR_ERR_NOT_FOUND,     "parallel: cannot open /nonexistent/x: No such file or directory" },
    { "parallel,id=k,path=/dev/null",    CHR_ERR_INVALID,       "parallel: path=/dev/null: is not a parallel port" },
    { "fd,id=k",                         CHR_ERR_INVALID,       "fd: needs in= or out=" },
    { "fd,id=k,in=901",                  CHR_ERR_INVALID,       "fd: in=901: is not an open descriptor" },
    { "fd,id=k,out=902",                 CHR_ERR_INVALID,       "fd: out=902: is not an open descriptor" },
    { "fd,id=k,in=%w",                   CHR_ERR_INVALID,       "fd: in=%w: is not open for reading" },
    { "fd,id=k,out=%r",                  CHR_ERR_INVALID,       "fd: out=%r: is not open for writing" },
    { "fd,id=k,in=%r,out=%r",            CHR_ERR_INVALID,       "fd: out=%r: is not open for writing" },
    { "udp,id=k,host=127.0.0.1",         CHR_ERR_INVALID,       "udp: needs port=" },
    { "udp,id=k,host=127.0.0.1,port=0",  CHR_ERR_INVALID,       "udp: port=0: out of range, 1 to 65535" },
    { "udp,id=k,host=127.0.0.1,port=65536",CHR_ERR_INVALID,       "udp: port=65536: out of range, 1 to 65535" },
    { "udp,id=k,host=127.0.0.1,port=9,localport=65536",CHR_ERR_INVALID,       "udp: localport=65536: out of range, 0 to 65535" },
    { "udp,id=k,host=127.0.0.1,port=9,ipv4=off,ipv6=off",CHR_ERR_INVALID,       "udp: ipv4=off and ipv6=off leave no address family" },
    { "script,id=k",                     CHR_ERR_INVALID,       "script: needs either file= or text=" },
    { "script,id=k,file=/dev/null,text=pass",CHR_ERR_INVALID,       "script: needs either file= or text=" },
    { "script,id=k,file=/nonexistent/x", CHR_ERR_NOT_FOUND,     "script: cannot open /nonexistent/x: No such file or directory" },
    { "script,id=k,file=/dev/null",      CHR_ERR_INVALID,       "script: file=/dev/null: is not a regular file" },
    { "script,id=k,text=expect",         CHR_ERR_INVALID,       "script: text: line 1: expect needs a \"text\"" },
    { "script,id=k,text=expect \"\"",    CHR_ERR_INVALID,       "script: text: line 1: expect: an empty text" },
    { "script,id=k,text=pass;send \"x",  CHR_ERR_INVALID,       "script: text: line 1: a text without its closing quote" },
    { "script,id=k,text=close;eof",      CHR_ERR_INVALID,       "script: text: line 1: eof while it is closed: open comes first" },
    { "script,id=k,text=eof;send \"x\"", CHR_ERR_INVALID,       "script: text: line 1: send while its input has ended: open comes first" },
    { "script,id=k,text=nothing",        CHR_ERR_INVALID,       "script: text: line 1: none of expect, reject, send, wait, timeout, break, eof, close, open, pass, fail: 'nothing'" },
    { "script,id=k,text=wait 1",         CHR_ERR_INVALID,       "script: text: line 1: not a time such as 100ms, 5s or 2min: '1'" },
    { "script,id=k,text=" REJECT_4 REJECT_4 REJECT_4 REJECT_4 REJECT,CHR_ERR_INVALID,       "script: text: line 1: more than 16 times reject" },
    { "braille,id=k,host=:99999",        CHR_ERR_INVALID,       "braille: host=:99999: expects [HOST][:NUMBER]" },
};

/* %r and %w are the ends of a pipe. */
static const char *with_ends(char *to, size_t size, const char *text, const int fds[2])
{
    size_t len = 0;
    for (to[0] = 0; *text; text++) {
        int is_end = text[0] == '%' && (text[1] == 'r' || text[1] == 'w');
        len += is_end ? (size_t)snprintf(to + len, size - len, "%d", fds[text[1] == 'w']) : (size_t)snprintf(to + len, size - len, "%c", *text);
        text += is_end;
    }
    return to;
}

TEST(refusals_word_by_word)
{
    char      options[600], text[600];
    int       fds[2];
    size_t    i;
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open_virtual(&r);
    REQUIRE(pipe(fds) == 0);
    make(&r, "ringbuf,id=base");
    make(&r, "ringbuf,id=base2");
    make(&r, "ringbuf,id=member");
    attach(&rec, make(&r, "ringbuf,id=taken"));
    make(&r, "ringbuf,id=mux,mux=on");
    make(&r, "hub,id=hub,chardevs.0=member");
    for (i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        int code = refuse(&r, with_ends(options, sizeof options, refusals[i].options, fds), &err);
        if (is_left_out(&err)) continue;
        with_ends(text, sizeof text, refusals[i].text, fds);
        if (!CHECK_INT(code, refusals[i].code) || !CHECK_STR(err.text, text)) NOTE("for %.100s", options);
        CHECK_INT(fcntl(fds[0], F_GETFD) >= 0 && fcntl(fds[1], F_GETFD) >= 0, 1); /* still ours */
    }
    CHECK_STR(rec.events, "O");
    detach(&rec);
    close(fds[0]), close(fds[1]);
    rig_close(&r);
}
