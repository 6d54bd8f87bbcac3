/* Each kind of chardev beside the others: what it is called, what it costs, which commands and calls it knows. */
#include "chardev.h"
#include "rig.h"

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

enum { NO = CHR_ERR_NOT_SUPPORTED };

static const kind kinds[] = {
    /* name        prepare          options                                  filename          fds events comes shutdown disconnect commands */
    { "null",      no_preparation,  "null,id=k",                             "null",           0,  "",    0,    NO,      NO,        "" },
    { "ringbuf",   no_preparation,  "ringbuf,id=k",                          "ringbuf",        0,  "O",   0,    NO,      NO,        "" },
    { "testdev",   no_preparation,  "testdev,id=k",                          "testdev",        0,  "O",   0,    NO,      NO,        "" },
    { "script",    no_preparation,  "script,id=k,text=wait 1s",              "script",         0,  "O",   0,    0,       NO,        "" },
    { "msmouse",   no_preparation,  "msmouse,id=k",                          "msmouse",        0,  "",    1,    NO,      NO,        "tT" },
    { "wctablet",  no_preparation,  "wctablet,id=k",                         "wctablet",       0,  "O",   0,    NO,      NO,        "P" },
    { "mux",       prepare_base,    "mux,id=k,chardev=base",                 "mux",            0,  "IO",  0,    NO,      NO,        "" },
    { "hub",       prepare_base,    "hub,id=k,chardevs.0=base",              "hub",            0,  "O",   0,    NO,      NO,        "" },
    { "fault",     prepare_base,    "fault,id=k,chardev=base",               "fault",          0,  "O",   0,    NO,      NO,        "" },
    { "file",      prepare_path,    "file,id=k,path=%s",                     "file",           1,  "O",   0,    0,       NO,        "" },
    { "pipe",      prepare_fifos,   "pipe,id=k,path=%s",                     "pipe",           2,  "O",   0,    0,       NO,        "" },
    { "pipe_both", prepare_fifo,    "pipe,id=k,path=%s",                     "pipe",           1,  "O",   0,    NO,      NO,        "" },
    { "pty",       no_preparation,  "pty,id=k",                              "pty:/dev/",      2,  "",    1,    NO,      NO,        "Z" },
    { "serial",    prepare_line,    "serial,id=k,path=%s",                   "serial",         1,  "O",   0,    NO,      NO,        "PbpFfux" },
    { "null_line", no_preparation,  "serial,id=k,path=/dev/null",            "serial",         2,  "OC",  0,    NO,      NO,        "" },
    { "fd_socket", prepare_pair,    "fd,id=k,in=%s,out=%1$s",                "fd",             1,  "O",   0,    0,       NO,        "" },
    { "fd_in",     prepare_pipe,    "fd,id=k,in=%s",                         "fd",             2,  "O",   0,    CHR_ERR_DISCONNECTED, NO,        "" },
    { "udp",       no_preparation,  "udp,id=k,host=127.0.0.1,port=9",        "udp:",           1,  "O",   0,    NO,      NO,        "" },
    { "socket",    prepare_pair,    "socket,id=k,fd=%s",                     "unix",           1,  "O",   0,    0,       0,         "" },
    { "server",    no_preparation,  "socket,id=k,host=127.0.0.1,port=0,server=on,wait=off", "disconnected:tcp:127.0.0.1:", 1, "", 1, CHR_ERR_DISCONNECTED, 0, "" },
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
    int         before;
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
    CHECK_INT(chr_fe_shutdown(&rec.fe), k->shutdown);
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

/* ---- input that finds no room ----------------------------------------------------------------------------------------------- */

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

/* Once nothing more happens, room comes without a word (a device that changes its mind): the next step of the loop asks. */
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

TEST_FAMILY(rooms)
{
    char   name[60];
    size_t i;
    for (i = 0; i < sizeof sources / sizeof *sources; i++) {
        snprintf(name, sizeof name, "room_comes_silently_%s", sources[i].name);
        test_add_case(name, room_comes_silently, &sources[i], TEST_SECONDS);
    }
}
