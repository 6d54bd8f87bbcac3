/*
 * scenarios.h - one whole life of a chardev of each kind, for the sweeps in which something fails: made, met by its far side, bytes both
 * ways through a frontend with little room, the far side leaves, freed. Include it after chardev.h.
 */
#ifndef CHARDEV_SCENARIOS_H
#define CHARDEV_SCENARIOS_H

#include "rig.h"

enum { SCENE_INPUT = 300, SCENE_OUTPUT = 400, SCENE_ROOM = 64, SCENE_CHUNK = 100 };

typedef struct scene scene;

typedef struct scenario {
    const char *name;
    void      (*prepare)(scene *);   /* what has to be there before: sets the options, and to/from where it can */
    void      (*meet)(scene *);      /* the far side comes: sets to/from; tried until they are there */
    int         has_input, has_output;
    int         closes;              /* the frontend sees CLOSED when the far side leaves */
    void      (*exchange)(scene *);  /* in place of the usual one: sets `complete` */
} scenario;

struct scene {
    const scenario *kind;
    rig             r;
    recorder        rec;
    chr_error       err;
    chr_dev        *dev;
    char            parts[2][100];        /* the options of chardevs that have to be made before; empty = none */
    char            options[400];
    int             given[2];             /* descriptors for the chardev to take; -1 = none, or taken */
    int             to, from;             /* the far side */
    int             listener, saved[2];   /* the test's */
    size_t          sent, written, heard; /* by the far side; taken from the frontend; at the far side */
    size_t          offered;              /* by the frontend, taken or not */
    char            output[SCENE_OUTPUT];
    int             end_of_output;
    const long     *fired;                /* how many system calls have failed; NULL = none ever does */
    int             complete;             /* all that was to happen has happened */
    int             strict;               /* nothing goes wrong in this life: no error may be told */
    void          (*made)(scene *);       /* called when the chardev is there; or NULL */
    int             is_sound;             /* nothing goes wrong from now on */
};

static inline char scene_byte(size_t i)
{
    return (char)('!' + (i * 7 + i / 94) % 94); /* printable: no mux escape, no terminal key */
}

/* ---- the far sides ----------------------------------------------------------------------------------------------------- */

static inline void scene_options(scene *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static inline void scene_options(scene *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(s->options, sizeof s->options, format, args);
    va_end(args);
}

static inline void scene_far(scene *s, int to, int from)
{
    if (to >= 0) fcntl(to, F_SETFL, O_RDWR | O_NONBLOCK);
    if (from >= 0) fcntl(from, F_SETFL, O_RDWR | O_NONBLOCK);
    s->to = to;
    s->from = from;
}

static inline void prepare_null(scene *s)
{
    scene_options(s, "null,id=d");
}

static inline void prepare_ringbuf(scene *s)
{
    scene_options(s, "ringbuf,id=d,size=1K");
}

static inline void prepare_log(scene *s)
{
    scene_options(s, "ringbuf,id=d,size=1K,logfile=%s", scratch("log"));
}

static inline void meet_log(scene *s)
{
    s->from = open(scratch("log"), O_RDONLY | O_CLOEXEC);
}

static inline void prepare_file(scene *s)
{
    char text[SCENE_INPUT + 1];
    int  i;
    for (i = 0; i < SCENE_INPUT; i++) text[i] = scene_byte((size_t)i);
    text[i] = 0;
    write_file(scratch("in"), text);
    s->sent = SCENE_INPUT;
    scene_options(s, "file,id=d,path=%s,input-path=%s", scratch("out"), scratch("in"));
}

static inline void meet_file(scene *s)
{
    s->from = open(scratch("out"), O_RDONLY | O_CLOEXEC);
}

static inline void prepare_pipe(scene *s)
{
    mkfifo(scratch("p.in"), 0600);
    mkfifo(scratch("p.out"), 0600);
    scene_options(s, "pipe,id=d,path=%s", scratch("p"));
}

static inline void meet_pipe(scene *s)
{
    scene_far(s, open(scratch("p.in"), O_RDWR | O_CLOEXEC), open(scratch("p.out"), O_RDWR | O_NONBLOCK | O_CLOEXEC));
}

static inline void prepare_fd(scene *s)
{
    int in[2], out[2];
    REQUIRE(pipe(in) == 0 && pipe(out) == 0);
    s->given[0] = in[0];
    s->given[1] = out[1];
    scene_far(s, in[1], out[0]);
    scene_options(s, "fd,id=d,in=%d,out=%d", in[0], out[1]);
}

static inline void prepare_pty(scene *s)
{
    scene_options(s, "pty,id=d,path=%s", scratch("tty"));
}

static inline void meet_pty(scene *s)
{
    int fd = open(scratch("tty"), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    scene_far(s, fd, fd);
}

static inline void prepare_serial(scene *s)
{
    char name[100];
    int  fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    REQUIRE(fd >= 0 && grantpt(fd) == 0 && unlockpt(fd) == 0 && ptsname_r(fd, name, sizeof name) == 0);
    scene_far(s, fd, fd);
    scene_options(s, "serial,id=d,path=%s", name);
}

/* The chardev's port is known beforehand: the far side is connected to it, and hears nobody else. */
static inline void prepare_udp(scene *s)
{
    struct sockaddr_in address;
    socklen_t          len = sizeof address;
    int                i, ports[2], fds[2];
    for (i = 0; i < 2; i++) {
        memset(&address, 0, sizeof address);
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        fds[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        REQUIRE(fds[i] >= 0 && bind(fds[i], (struct sockaddr *)&address, sizeof address) == 0);
        REQUIRE(getsockname(fds[i], (struct sockaddr *)&address, &len) == 0);
        ports[i] = ntohs(address.sin_port);
    }
    REQUIRE(connect(fds[0], (struct sockaddr *)&address, sizeof address) == 0);
    close(fds[1]);
    scene_far(s, fds[0], fds[0]);
    scene_options(s, "udp,id=d,host=127.0.0.1,port=%d,localaddr=127.0.0.1,localport=%d", ports[0], ports[1]);
}

static inline void prepare_server(scene *s)
{
    scene_options(s, "socket,id=d,path=%s,server=on,wait=off", scratch("s"));
}

static inline void prepare_obuf(scene *s)
{
    scene_options(s, "socket,id=d,path=%s,server=on,wait=off,obuf=1K,history=64,mode=0600", scratch("s"));
}

static inline void meet_server(scene *s)
{
    int fd = unix_connect(scratch("s"));
    scene_far(s, fd, fd);
}

static inline void prepare_tcp(scene *s)
{
    scene_options(s, "socket,id=d,host=127.0.0.1,port=0,server=on,wait=off,nodelay=on");
}

static inline void meet_tcp(scene *s)
{
    chr_info info;
    int      fd;
    chr_query(s->dev, &info);
    fd = strrchr(info.address, ':') ? tcp_connect(atoi(strrchr(info.address, ':') + 1)) : -1;
    scene_far(s, fd, fd);
}

static inline void prepare_client(scene *s)
{
    s->listener = unix_listen(scratch("s"));
    fcntl(s->listener, F_SETFL, O_NONBLOCK);
    scene_options(s, "socket,id=d,path=%s", scratch("s"));
}

static inline void prepare_reconnect(scene *s)
{
    prepare_client(s);
    scene_options(s, "socket,id=d,path=%s,reconnect-ms=50", scratch("s"));
}

static inline void meet_client(scene *s)
{
    int fd = accept(s->listener, NULL, NULL);
    scene_far(s, fd, fd);
}

static inline void prepare_pair(scene *s)
{
    int fds[2];
    socket_pair(fds);
    s->given[0] = fds[0];
    scene_far(s, fds[1], fds[1]);
    scene_options(s, "socket,id=d,fd=%d", fds[0]);
}

static inline void prepare_listener(scene *s)
{
    s->given[0] = unix_listen(scratch("s"));
    scene_options(s, "socket,id=d,fd=%d,server=on,wait=off", s->given[0]);
}

static inline void prepare_mux(scene *s)
{
    prepare_pair(s);
    strcat(s->options, ",mux=on");
}

/* Two connected sockets: what comes from the first goes in, what goes out is heard at the second. */
static inline void prepare_hub(scene *s)
{
    int i, fds[2][2];
    for (i = 0; i < 2; i++) {
        socket_pair(fds[i]);
        s->given[i] = fds[i][0];
        snprintf(s->parts[i], sizeof s->parts[i], "socket,id=part%d,fd=%d", i, fds[i][0]);
    }
    scene_far(s, fds[0][1], fds[1][1]);
    scene_options(s, "hub,id=d,chardevs.0=part0,chardevs.1=part1");
}

static inline void prepare_testdev(scene *s)
{
    scene_options(s, "testdev,id=d");
}

static inline void prepare_mouse(scene *s)
{
    scene_options(s, "msmouse,id=d");
}

static inline void prepare_tablet(scene *s)
{
    scene_options(s, "wctablet,id=d");
}

/* stdio on pipes: 0 and 1 are exchanged for the time of the scene. */
static inline void prepare_stdio(scene *s)
{
    static char buffer[1 << 16];
    int         in[2], out[2];
    fflush(stdout);
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer); /* what is printed meanwhile comes out at the end */
    s->saved[0] = fcntl(0, F_DUPFD_CLOEXEC, 50);
    s->saved[1] = fcntl(1, F_DUPFD_CLOEXEC, 50);
    REQUIRE(pipe(in) == 0 && pipe(out) == 0);
    dup2(in[0], 0);
    dup2(out[1], 1);
    close(in[0]);
    close(out[1]);
    scene_far(s, in[1], out[0]);
    scene_options(s, "stdio,id=d");
}

/* ---- one life ---------------------------------------------------------------------------------------------------------- */

static inline void scene_more_room(recorder *rec, int what)
{
    if (what == 'r' && rec->room == 0) rec->room = SCENE_ROOM;
}

static inline void scene_init(scene *s, const scenario *kind)
{
    memset(s, 0, sizeof *s);
    s->kind = kind;
    s->given[0] = s->given[1] = s->to = s->from = s->listener = s->saved[0] = s->saved[1] = -1;
    rig_init(&s->r);
    kind->prepare(s);
}

/* Turns without progress before it is given up: few after a failure that may have ended it all, else more than a busy machine needs. */
static inline int scene_patience(const scene *s)
{
    return !s->strict && !s->is_sound && (s->r.failed || (s->fired && *s->fired)) ? 60 : 10000;
}

static inline int scene_send(scene *s)
{
    char    text[SCENE_INPUT];
    size_t  i, left = SCENE_INPUT - s->sent;
    ssize_t n;
    if (s->to < 0 || !s->kind->has_input || left == 0) return 0;
    for (i = 0; i < left; i++) text[i] = scene_byte(s->sent + i);
    n = send(s->to, text, left, MSG_NOSIGNAL);
    if (n < 0 && errno == ENOTSOCK) n = write(s->to, text, left);
    if (n > 0) s->sent += (size_t)n;
    return n > 0;
}

/* One part of a hub may be ahead of the other; and what it could not write is lost for it, so that it holds nobody up. */
static inline int scene_is_hub(const scene *s)
{
    return s->kind->prepare == prepare_hub;
}

static inline int scene_may_miss(const scene *s)
{
    return scene_is_hub(s) && s->fired && *s->fired && !s->strict;
}

static inline int scene_hear(scene *s)
{
    char    text[SCENE_OUTPUT];
    ssize_t i, n;
    if (s->from < 0) return 0;
    if (scene_is_hub(s)) (void)recv(s->to, text, sizeof text, 0);
    n = read(s->from, text, sizeof text);
    if (n == 0) s->end_of_output = 1;
    for (i = 0; i < n; i++) {
        if (!CHECK(s->heard < (scene_is_hub(s) ? s->offered : s->written))) break; /* nothing that the frontend was not told is taken */
        if (!scene_may_miss(s) && !CHECK_INT(text[i], scene_byte(s->heard))) break;
        s->heard++;
    }
    return n > 0;
}

static inline int scene_write(scene *s)
{
    char   text[SCENE_CHUNK];
    size_t i, len = SCENE_OUTPUT - s->written < SCENE_CHUNK ? SCENE_OUTPUT - s->written : SCENE_CHUNK;
    int    n;
    if (len == 0) return 0;
    if (s->kind->has_input && !s->rec.open && s->kind->prepare != prepare_file) return 0;
    for (i = 0; i < len; i++) text[i] = scene_byte(s->written + i);
    n = chr_fe_write(&s->rec.fe, text, len);
    s->offered = s->written + len;
    CHECK(n >= 0 ? n <= (int)len && n > 0 : n >= CHR_ERR_NO_SPACE);
    if (s->strict) CHECK(n > 0 || n == CHR_ERR_WOULD_BLOCK);
    if (n > 0) s->written += (size_t)n;
    return n > 0;
}

static inline int scene_all_there(const scene *s)
{
    int input = !s->kind->has_input || s->rec.length == SCENE_INPUT;
    int output = s->written == SCENE_OUTPUT && (s->from < 0 || s->heard == s->written);
    return input && output;
}

/* One turn of everybody; whether anything moved. Virtual time goes on, so that retries come. */
static inline int scene_turn(scene *s)
{
    int    moved = 0, steps;
    size_t before = s->rec.length, events = strlen(s->rec.events);
    if (s->to < 0 && s->from < 0 && s->kind->meet) {
        s->kind->meet(s);
        moved |= s->to >= 0 || s->from >= 0;
    }
    moved |= scene_send(s);
    moved |= scene_write(s);
    steps = chr_loop_step(s->r.ctx, 0);
    CHECK(steps >= 0 || steps == CHR_ERR_IO || steps == CHR_ERR_NO_MEMORY);
    if (s->strict) CHECK(steps >= 0);
    moved |= scene_hear(s);
    if (s->rec.room == 0) give_room(&s->rec, SCENE_ROOM);
    if (s->rec.length != before || strlen(s->rec.events) != events) moved = 1;
    s->r.now += INT64_C(100) * 1000000;
    if (!moved) usleep(200); /* a pseudo terminal's bytes take a moment */
    return moved;
}

/* The far side is a regular file, whose end is never the last word. */
static inline int scene_grows(const scene *s)
{
    return s->kind->prepare == prepare_file || s->kind->prepare == prepare_log;
}

static inline void scene_exchange(scene *s)
{
    int idle = 0;
    while (!scene_all_there(s) && idle < scene_patience(s) && !s->end_of_output) {
        idle = scene_turn(s) ? 0 : idle + 1;
        if (scene_grows(s)) s->end_of_output = 0;
    }
    s->complete = scene_all_there(s);
}

/* The same with the calls that block; what goes out fits the kernel's buffer even byte by byte. */
enum { BLOCKING_OUTPUT = 150 };

static inline void blocking_exchange(scene *s)
{
    char text[SCENE_INPUT];
    int  i, n;
    scene_send(s);
    for (i = 0; i < BLOCKING_OUTPUT; i++) text[i] = scene_byte((size_t)i);
    n = chr_fe_write_all(&s->rec.fe, text, BLOCKING_OUTPUT, 1000);
    s->written = n > 0 ? (size_t)n : 0;
    n = chr_fe_read_all(&s->rec.fe, text, SCENE_INPUT, 1000);
    for (i = 0; i < n; i++)
        if (!CHECK_INT(text[i], scene_byte((size_t)i))) break;
    while (scene_hear(s)) {}
    s->complete = n == SCENE_INPUT && s->written == BLOCKING_OUTPUT && s->heard == BLOCKING_OUTPUT;
    chr_loop_step(s->r.ctx, 0);
}

/* The same after the chardev was waited for. */
static inline void waiting_exchange(scene *s)
{
    int code;
    s->kind->meet(s);
    code = chr_wait_connected(s->dev, &s->err);
    CHECK(code == 0 || (code < 0 && s->err.text[0]));
    if (s->strict) CHECK_INT(code, 0);
    scene_exchange(s);
}

typedef union scene_control {
    struct cmsghdr align;
    char           bytes[CMSG_SPACE(sizeof(int) * 4)];
} scene_control;

static inline void scene_message(struct msghdr *message, struct iovec *part, scene_control *control, char *text, size_t len)
{
    memset(message, 0, sizeof *message);
    part->iov_base = text;
    part->iov_len = len;
    message->msg_iov = part;
    message->msg_iovlen = 1;
    message->msg_control = control->bytes;
    message->msg_controllen = CMSG_SPACE(sizeof(int));
}

static inline void far_send_fd(scene *s, int fd)
{
    struct msghdr   message;
    struct iovec    part;
    scene_control   control;
    struct cmsghdr *header;
    char            byte = 'f';
    memset(&control, 0, sizeof control);
    scene_message(&message, &part, &control, &byte, 1);
    header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    CHECK_INT(sendmsg(s->to, &message, 0), 1);
}

/* Reads what is there; returns how many descriptors came with it, closed again. */
static inline int far_receive_fds(scene *s, ssize_t *len)
{
    struct msghdr   message;
    struct iovec    part;
    scene_control   control;
    struct cmsghdr *header;
    char            text[100];
    int             fd;
    scene_message(&message, &part, &control, text, sizeof text);
    *len = recvmsg(s->from, &message, MSG_CMSG_CLOEXEC);
    header = *len > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (!header) return 0;
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    close(fd);
    return 1;
}

/* A descriptor each way, each exactly once, whatever else happens. */
static inline void msgfds_exchange(scene *s)
{
    int     turns, fd = -1, sent = 0, arrived = 0, taken = 0, n = 0;
    ssize_t len;
    far_send_fd(s, 2);
    for (turns = 0; turns < 50 && !(n > 0 && arrived && s->rec.length); turns++) {
        if (!sent) sent = chr_fe_set_msgfds(&s->rec.fe, &s->to, 1) == 0;
        if (sent && n <= 0) n = chr_fe_write(&s->rec.fe, "with", 4);
        chr_loop_step(s->r.ctx, 0);
        arrived += far_receive_fds(s, &len);
        if (taken == 0) taken = chr_fe_get_msgfds(&s->rec.fe, &fd, 1);
    }
    if (fd >= 0) close(fd);
    CHECK(arrived <= 1);
    s->complete = n > 0 && arrived == 1 && taken == 1 && s->rec.length == 1;
    free(s->rec.input);
    s->rec.input = NULL;
    s->rec.length = s->rec.size = 0; /* the byte was not of the pattern */
}

/* Steps until so many bytes have come, or for a while. */
static inline void scene_await(scene *s, size_t length)
{
    int turns;
    for (turns = 0; turns < 50 && s->rec.length < length; turns++) {
        chr_loop_step(s->r.ctx, 0);
        if (s->rec.room == 0) give_room(&s->rec, SCENE_ROOM);
    }
}

/* What was said by a device without far side; it is not of the pattern. */
static inline void scene_said(scene *s, const char *text, size_t len)
{
    scene_await(s, len);
    s->complete = s->rec.length >= len && memcmp(s->rec.input, text, len) == 0;
    free(s->rec.input);
    s->rec.input = NULL;
    s->rec.length = s->rec.size = 0;
}

static inline void testdev_exchange(scene *s)
{
    int turns;
    chr_fe_write(&s->rec.fe, "3q", 2);
    for (turns = 0; turns < 50 && s->r.exits == 0; turns++) chr_loop_step(s->r.ctx, 0);
    s->complete = s->r.exits == 1 && s->r.exit_code == 7;
}

static inline void mouse_exchange(scene *s)
{
    int lines = CHR_TIOCM_DTR | CHR_TIOCM_RTS;
    chr_fe_ioctl(&s->rec.fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines);
    chr_input_rel(s->dev, 1, 2);
    chr_input_sync(s->dev);
    scene_said(s, "M3", 2);
}

static inline void tablet_exchange(scene *s)
{
    scene_await(s, 61);
    chr_fe_write(&s->rec.fe, "~#", 2);
    scene_await(s, 61 + 18);
    scene_said(s, "\\96,N,8,1(", 10);
}

static inline void scene_leave(scene *s)
{
    int idle;
    if (s->to >= 0) close(s->to);
    if (s->from >= 0 && s->from != s->to) close(s->from);
    s->to = s->from = -1;
    for (idle = 0; s->rec.open && s->kind->closes && idle < scene_patience(s); idle++) {
        chr_loop_step(s->r.ctx, 0);
        s->r.now += INT64_C(1) * 1000000;
        usleep(200);
    }
}

static const scenario scenarios[] = {
    /* name            prepare            meet         input output closes exchange */
    { "null",          prepare_null,      NULL,        0,    1,     0, scene_exchange },
    { "ringbuf",       prepare_ringbuf,   NULL,        0,    1,     0, scene_exchange },
    { "log",           prepare_log,       meet_log,    0,    1,     0, scene_exchange },
    { "fd",            prepare_fd,        NULL,        1,    1,     1, scene_exchange },
    { "file",          prepare_file,      meet_file,   1,    1,     1, scene_exchange },
    { "pipe",          prepare_pipe,      meet_pipe,   1,    1,     0, scene_exchange },
    { "pty",           prepare_pty,       meet_pty,    1,    1,     1, scene_exchange },
    { "stdio",         prepare_stdio,     NULL,        1,    1,     1, scene_exchange },
    { "serial",        prepare_serial,    NULL,        1,    1,     1, scene_exchange },
    { "udp",           prepare_udp,       NULL,        1,    1,     0, scene_exchange },
    { "unix_server",   prepare_server,    meet_server, 1,    1,     1, scene_exchange },
    { "tcp_server",    prepare_tcp,       meet_tcp,    1,    1,     1, scene_exchange },
    { "client",        prepare_client,    meet_client, 1,    1,     1, scene_exchange },
    { "reconnect",     prepare_reconnect, meet_client, 1,    1,     1, scene_exchange },
    { "fd_connected",  prepare_pair,      NULL,        1,    1,     1, scene_exchange },
    { "fd_listening",  prepare_listener,  meet_server, 1,    1,     1, scene_exchange },
    { "mux",           prepare_mux,       NULL,        1,    1,     1, scene_exchange },
    { "hub",           prepare_hub,       NULL,        1,    1,     1, scene_exchange },
    { "testdev",       prepare_testdev,   NULL,        0,    1,     0, testdev_exchange },
    { "msmouse",       prepare_mouse,     NULL,        0,    1,     0, mouse_exchange },
    { "wctablet",      prepare_tablet,    NULL,        0,    1,     0, tablet_exchange },
    { "obuf",          prepare_obuf,      meet_server, 1,    1,     1, scene_exchange },
    { "blocking",      prepare_pair,      NULL,        1,    1,     1, blocking_exchange },
    { "waiting",       prepare_listener,  meet_server, 1,    1,     1, waiting_exchange },
    { "msgfds",        prepare_pair,      NULL,        1,    1,     1, msgfds_exchange },
};

enum { SCENARIOS = sizeof scenarios / sizeof *scenarios };

static inline void scene_put_back(scene *s)
{
    int i;
    for (i = 0; i < 2; i++) {
        if (s->given[i] >= 0) close(s->given[i]);
        if (s->saved[i] < 0) continue;
        dup2(s->saved[i], i);
        close(s->saved[i]);
    }
    if (s->to >= 0) close(s->to);
    if (s->from >= 0 && s->from != s->to) close(s->from);
    if (s->listener >= 0) close(s->listener);
    free(s->rec.input);
    scratch_clean();
}

/* What was read must be what was sent, in order, without a gap. */
static inline void scene_check_input(const scene *s)
{
    size_t i;
    CHECK(s->rec.length <= SCENE_INPUT);
    for (i = 0; i < s->rec.length && i < SCENE_INPUT; i++)
        if (!CHECK_INT(s->rec.input[i], scene_byte(i))) break;
}

static inline int scene_make_parts(scene *s)
{
    int i;
    for (i = 0; i < 2 && s->parts[i][0]; i++) {
        if (!chr_new(s->r.ctx, s->parts[i], &s->err)) return 0;
        s->given[i] = -1; /* it owns it now */
    }
    return 1;
}

/* Makes the context and the chardev. Returns 0 where that fails, with s->err. */
static inline int scene_make(scene *s)
{
    chr_config config = rig_config(&s->r);
    config.clock = rig_clock;
    s->r.ctx = chr_context_new(&config);
    if (!s->r.ctx) return 0;
    s->dev = scene_make_parts(s) ? chr_new(s->r.ctx, s->options, &s->err) : NULL;
    if (!s->dev) {
        CHECK(s->err.code < 0 && s->err.code >= CHR_ERR_NO_SPACE);
        CHECK(s->err.text[0] != 0);
        if (s->r.failed && s->kind->prepare == prepare_pty) CHECK(!exists(scratch("tty"))); /* no link is left, */
        if (s->r.failed && s->kind->prepare == prepare_server) CHECK(!exists(scratch("s"))); /* nor a socket */
        CHECK(s->parts[0][0] ? chr_find(s->r.ctx, "d") == NULL : chr_next(s->r.ctx, NULL) == NULL);
        return 0;
    }
    s->given[0] = s->given[1] = -1; /* the chardev owns them now */
    return 1;
}

/* The whole life. Returns whether every byte arrived both ways and the end was told. */
static inline int scene_live(scene *s)
{
    int complete = 0;
    if (scene_make(s)) {
        if (s->made) s->made(s);
        s->rec.room = SCENE_ROOM;
        s->rec.then = scene_more_room;
        if (chr_fe_init(&s->rec.fe, s->dev, &s->err) == 0) {
            listen_to(&s->rec);
            s->kind->exchange(s);
            complete = s->complete;
            scene_leave(s);
            complete = complete && (!s->kind->closes || !s->rec.open);
            scene_check_input(s);
            chr_fe_deinit(&s->rec.fe);
        }
    }
    chr_context_free(s->r.ctx);
    scene_put_back(s);
    if (s->strict && !CHECK_INT(s->r.logs, 0)) NOTE("%s", s->r.log);
    CHECK_INT(s->r.live, 0);
    CHECK_INT(count_fds(), s->r.fds);
    return complete;
}

#endif
