/*
 * The results of system calls as a user sees them: the code and text of each error, the state after it, and that a
 * message on the wire or an earlier errno has no effect.
 */
#include "chardev.h"
#include "fault.h"
#include "private.h"
#include "rig.h"

#include <grp.h>
#include <pthread.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <termios.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

static char *optionsf(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *optionsf(const char *format, ...)
{
    static char text[5000];
    va_list     args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return text;
}

static char block_of_text[1000];

static const char *address_of(const chr_dev *dev)
{
    static chr_info info;
    chr_query(dev, &info);
    return info.address;
}

/* ---- errors: code and words -------------------------------------------------------------------------------------- */

TEST(each_error_of_the_system_has_its_code)
{
    static const struct {
        int error, code;
    } table[] = {
        { EAGAIN, CHR_ERR_WOULD_BLOCK },     { EINPROGRESS, CHR_ERR_WOULD_BLOCK },    { EPIPE, CHR_ERR_DISCONNECTED },
        { ECONNRESET, CHR_ERR_DISCONNECTED }, { ENOTCONN, CHR_ERR_DISCONNECTED },
        { ESHUTDOWN, CHR_ERR_DISCONNECTED },
        { ENOMEM, CHR_ERR_NO_MEMORY },       { ENOBUFS, CHR_ERR_NO_MEMORY },          { ENOENT, CHR_ERR_NOT_FOUND },
        { ENXIO, CHR_ERR_NOT_FOUND },        { ENODEV, CHR_ERR_NOT_FOUND },           { EEXIST, CHR_ERR_EXISTS },
        { EADDRINUSE, CHR_ERR_EXISTS },      { EACCES, CHR_ERR_PERMISSION },          { EPERM, CHR_ERR_PERMISSION },
        { ETIMEDOUT, CHR_ERR_TIMEOUT },      { EINVAL, CHR_ERR_INVALID },             { EBADF, CHR_ERR_INVALID },
        { EMSGSIZE, CHR_ERR_INVALID },       { ENOTTY, CHR_ERR_NOT_SUPPORTED },
        { EOPNOTSUPP, CHR_ERR_NOT_SUPPORTED },
        { ENOSPC, CHR_ERR_NO_SPACE },        { EDQUOT, CHR_ERR_NO_SPACE },            { EFBIG, CHR_ERR_NO_SPACE },
        { EIO, CHR_ERR_IO },                 { EMFILE, CHR_ERR_IO },                  { ELOOP, CHR_ERR_IO },
    };
    size_t    i;
    chr_error err;
    rig       r;
    rig_open(&r);
    write_file(scratch("out"), "");
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        fault_arm(FAULT_open, table[i].error, 1, 0);
        memset(&err, 0, sizeof err);
        CHECK(!chr_new(r.ctx, optionsf("file,id=f,path=%s", scratch("out")), &err));
        if (!CHECK_INT(err.code, table[i].code) || !CHECK_HAS(err.text, strerror(table[i].error))) NOTE("%s", err.text);
        CHECK_HAS(err.text, scratch("out"));
        CHECK(!strstr(err.text, "FIFO"));
    }
    fault_disarm();
    rig_close(&r);
    scratch_clean();
}

/* ---- a context without its pipe ---------------------------------------------------------------------------------- */

/* The same where its ends would be standard descriptors, and must be moved. */
TEST(a_context_without_a_pipe_while_the_standard_ones_are_closed)
{
    int  saved[3], i, made[20], left[20];
    long at, fired[20];
    chr_error err, write_err;
    chr_context *other = chr_context_new(NULL);
    for (i = 0; i < 3; i++) saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 50);
    fflush(stdout);
    for (i = 0; i < 3; i++) close(i);
    for (at = 1; at < 20; at++) {
        chr_context *ctx;
        fault_arm(FAULT_fcntl, EMFILE, at, 0);
        ctx = chr_context_new(NULL);
        fired[at] = fault_plan.fired;
        fault_disarm();
        made[at] = ctx != NULL;
        if (ctx) chr_context_free(ctx);
        for (left[at] = 0, i = 0; i < 3; i++) left[at] += fcntl(i, F_GETFD) >= 0;
    }
    fault_arm(FAULT_fcntl, EMFILE, 1, 0);
    err.text[0] = write_err.text[0] = 0;
    chr_new(other, "file,id=f,path=/dev/zero", &err);
    fault_arm(FAULT_fcntl, ENOMEM, 1, 0);
    chr_new(other, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", &write_err);
    fault_disarm();
    for (i = 0; i < 3; i++) dup2(saved[i], i), close(saved[i]);
    chr_context_free(other);
    CHECK_HAS(err.text, "cannot open /dev/zero");
    CHECK_HAS(err.text, strerror(EMFILE));
    CHECK_HAS(write_err.text, strerror(ENOMEM));
    for (at = 1; at < 20; at++)
        if (!CHECK_INT(made[at], !fired[at]) || !CHECK_INT(left[at], 0)) NOTE("call %ld", at);
    CHECK(fired[1] && fired[2] && fired[8] && !fired[19]);
}

/* ---- what fails while a chardev is made -------------------------------------------------------------------------- */

typedef struct refusal {
    const char *name, *options; /* %s: a scratch path, %d: a free port */
    fault_call  call;
    int         error;
    long        at;
    int         code;
    const char *text; /* a part of the message, */
    const char *reason; /* and another; NULL = strerror(error) */
} refusal;

static const refusal refusals[] = {
    { "tcp_server_socket", "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", FAULT_socket, EMFILE, 1, CHR_ERR_IO,
      "cannot make a socket", NULL },
    { "tcp_server_flags", "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", FAULT_fcntl, ENOMEM, 1,
        CHR_ERR_NO_MEMORY,
      "cannot set flags of a socket", NULL },
    { "tcp_server_cloexec", "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", FAULT_fcntl, ENOMEM, 2,
        CHR_ERR_NO_MEMORY,
      "cannot set flags of a socket", NULL },
    { "tcp_server_nonblock", "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", FAULT_fcntl, ENOMEM, 3,
        CHR_ERR_NO_MEMORY,
      "cannot set flags of a socket", NULL },
    { "tcp_server_bind", "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", FAULT_bind, EACCES, 1,
        CHR_ERR_PERMISSION,
      "cannot listen on 127.0.0.1:0", NULL },
    { "tcp_server_listen", "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", FAULT_listen, EADDRINUSE, 1,
        CHR_ERR_EXISTS,
      "cannot listen on 127.0.0.1:0", NULL },
    { "tcp_server_lookup", "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", FAULT_getaddrinfo, ENOMEM, 1,
      CHR_ERR_NO_MEMORY, "cannot look up 127.0.0.1:0", "" },
    { "tcp_server_lookup_later", "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", FAULT_getaddrinfo, EAGAIN, 1,
      CHR_ERR_NOT_FOUND, "cannot look up 127.0.0.1:0", "" },
    { "unix_server_socket", "socket,id=s,path=%s,server=on,wait=off", FAULT_socket, EMFILE, 1, CHR_ERR_IO,
        "cannot make a socket",
      NULL },
    { "unix_server_bind", "socket,id=s,path=%s,server=on,wait=off", FAULT_bind, EACCES, 1, CHR_ERR_PERMISSION,
        "cannot listen on",
      NULL },
    { "unix_server_listen", "socket,id=s,path=%s,server=on,wait=off", FAULT_listen, ENOBUFS, 1, CHR_ERR_NO_MEMORY,
      "cannot listen on", NULL },
    { "unix_server_mode", "socket,id=s,path=%s,server=on,wait=off,mode=0600", FAULT_chmod, EPERM, 1, CHR_ERR_PERMISSION,
      "cannot listen on", NULL },
    { "unix_server_group", "socket,id=s,path=%s,server=on,wait=off,group=0", FAULT_lchown, EPERM, 1, CHR_ERR_PERMISSION,
      "cannot listen on", NULL },
    { "unix_client_connect", "socket,id=s,path=%s", FAULT_connect, EACCES, 1, CHR_ERR_PERMISSION, "cannot connect to",
        NULL },
    { "unix_client_socket", "socket,id=s,path=%s", FAULT_socket, ENOBUFS, 1, CHR_ERR_NO_MEMORY, "cannot make a socket",
        NULL },
    { "udp_socket", "udp,id=u,host=127.0.0.1,port=9", FAULT_socket, EMFILE, 1, CHR_ERR_IO, "127.0.0.1:9", NULL },
    { "udp_flags", "udp,id=u,host=127.0.0.1,port=9", FAULT_fcntl, ENOMEM, 1, CHR_ERR_NO_MEMORY, "127.0.0.1:9", NULL },
    { "udp_connect", "udp,id=u,host=127.0.0.1,port=9", FAULT_connect, ENETUNREACH, 1, CHR_ERR_IO, "127.0.0.1:9", NULL },
    { "udp_bind", "udp,id=u,host=127.0.0.1,port=9,localport=0,localaddr=127.0.0.1", FAULT_bind, EADDRINUSE, 1,
        CHR_ERR_EXISTS,
      "127.0.0.1:9", NULL },
    { "pty_open", "pty,id=p", FAULT_open, ENOSPC, 1, CHR_ERR_NO_SPACE, "cannot open /dev/ptmx", NULL },
    { "pty_unlock", "pty,id=p", FAULT_ioctl, EIO, 1, CHR_ERR_IO, "cannot make a pty", NULL },
    { "pty_number", "pty,id=p", FAULT_ioctl, EIO, 2, CHR_ERR_IO, "cannot make a pty", NULL },
    { "pty_slave", "pty,id=p", FAULT_open, EACCES, 2, CHR_ERR_PERMISSION, "cannot open /dev/pts/", NULL },
    { "pty_get", "pty,id=p", FAULT_tcgetattr, EIO, 1, CHR_ERR_IO, "cannot make the terminal /dev/pts/", "raw" },
    { "pty_set", "pty,id=p", FAULT_tcsetattr, EIO, 1, CHR_ERR_IO, "cannot make the terminal /dev/pts/", "raw" },
    { "pty_link", "pty,id=p,path=%s", FAULT_symlink, EACCES, 1, CHR_ERR_PERMISSION, "cannot make the symlink", NULL },
};

static void refused(const void *arg)
{
    const refusal *row = (const refusal *)arg;
    chr_error      err;
    char           place[200];
    rig            r;
    rig_open(&r);
    snprintf(place, sizeof place, "%s", scratch("place"));
    memset(&err, 0, sizeof err);
    fault_arm(row->call, row->error, row->at, 0);
    errno = 0;
    CHECK(!chr_new(r.ctx, optionsf(row->options, place), &err));
    CHECK_INT(fault_plan.fired, 1);
    fault_disarm();
    CHECK_INT(err.code, row->code);
    CHECK_HAS(err.text, row->text);
    CHECK_HAS(err.text, row->reason ? row->reason : strerror(row->error));
    if (strstr(row->options, "%s")) CHECK(strstr(err.text, "cannot make a socket") || strstr(err.text, place));
    CHECK(!exists(place));
    CHECK(!chr_next(r.ctx, NULL));
    rig_close(&r);
    scratch_clean();
}

TEST_FAMILY(refusals)
{
    static char name[100];
    size_t      i;
    for (i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        snprintf(name, sizeof name, "refused_%s", refusals[i].name);
        test_add_case(name, refused, &refusals[i], 20);
    }
}

/* ---- clocks ------------------------------------------------------------------------------------------------------ */

/* A virtual clock without one of the day: the time of day is the virtual time, too. */
TEST(the_time_of_day_of_a_virtual_clock)
{
    recorder     rec;
    chr_config   config;
    chr_context *ctx;
    chr_frontend fe;
    int          virtual;
    for (virtual = 0; virtual < 2; virtual++) {
        memset(&config, 0, sizeof config);
        config.virtual_clock = virtual;
        ctx = chr_context_new(&config);
        REQUIRE(ctx != NULL);
        REQUIRE(chr_new(ctx, optionsf("null,id=n,logfile=%s,logtimestamp=on", scratch("log")), NULL) != NULL);
        CHECK(chr_loop_run_until(ctx, virtual ? INT64_C(86400) * 1000000000 : 0) >= 0);
        memset(&rec, 0, sizeof rec);
        memset(&fe, 0, sizeof fe);
        CHECK_INT(chr_fe_init(&fe, chr_find(ctx, "n"), NULL), 0);
        CHECK_INT(chr_fe_write(&fe, "line\n", 5), 5);
        chr_fe_deinit(&fe);
        chr_context_free(ctx);
        CHECK(!strstr(read_file(scratch("log")), "1970-01-02") == !virtual);
        scratch_clean();
    }
}

/* Where the system has no clock nothing can be run until a time. */
TEST(no_clock)
{
    rig r;
    rig_open(&r);
    CHECK(chr_loop_run_until(r.ctx, 0) >= 0);
    fault_arm(FAULT_clock_gettime, EINVAL, 1, 1);
    CHECK_INT(chr_loop_now(r.ctx), 0);
    CHECK_INT(chr_loop_run_until(r.ctx, 10), CHR_ERR_NOT_SUPPORTED);
    fault_disarm();
    rig_close(&r);
}

/* ---- names that are looked up in the background ------------------------------------------------------------------ */

#if !defined(_WIN32)
static long live_bytes(void)
{
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    return (long)mallinfo2().uordblks;
#else
    return 0;
#endif
}

/* The thread may still be about to close its pipe. */
static void close_behind_thread(rig *r)
{
    int i;
    chr_context_free(r->ctx);
    for (i = 0; i < 3000 && count_fds() > r->fds; i++) usleep(10000);
    CHECK_INT(count_fds(), r->fds);
    CHECK_INT(r->live, 0);
}

static void connect_by_name(int port, int listener)
{
    int      far;
    sigset_t before, after;
    recorder rec;
    rig      r;
    sigemptyset(&before);
    sigaddset(&before, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &before, NULL);
    rig_open(&r);
    attach(&rec, make(&r, optionsf("socket,id=c,host=localhost,port=%d,ipv4=on,reconnect-ms=50", port)));
    PUMP(&r, rec.open);
    far = accept(listener, NULL, NULL);
    CHECK(far >= 0);
    say(far, "hello");
    PUMP(&r, rec.length == 5);
    CHECK_HAS(address_of(rec.fe.dev), "127.0.0.1:");
    CHECK_INT(atoi(strrchr(address_of(rec.fe.dev), ':') + 1), port);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    CHECK(sigismember(&after, SIGUSR2) == 1);
    CHECK(sigismember(&after, SIGUSR1) == 0 && sigismember(&after, SIGINT) == 0);
    close(far);
    detach(&rec);
    close_behind_thread(&r);
}

TEST(a_name_is_looked_up_in_the_background)
{
    int  i, port, listener = tcp_listen(&port);
    long before;
    NEED_LOCALHOST();
    connect_by_name(port, listener);
    for (before = live_bytes(), i = 0; i < 20; i++) connect_by_name(port, listener);
    CHECK(live_bytes() - before < 20000); /* a lookup takes more than 2000 */
    close(listener);
}

static void refuse_by_name(fault_call call, long at)
{
    int      port, listener = tcp_listen(&port);
    recorder rec;
    rig      r;
    NEED_LOCALHOST();
    rig_open(&r);
    fault_arm(call, EMFILE, at, 0);
    attach(&rec, make(&r, optionsf("socket,id=c,host=localhost,port=%d,ipv4=on,reconnect-ms=50", port)));
    CHECK_INT(fault_plan.fired, 1);
    fault_disarm();
    PUMP(&r, rec.open); /* at the next attempt, or at once without the background */
    detach(&rec);
    close_behind_thread(&r);
    close(listener);
}

TEST(a_name_without_a_pipe_for_the_answer) { refuse_by_name(FAULT_pipe, 1); }
TEST(a_name_without_flags_for_the_pipe) { refuse_by_name(FAULT_fcntl, 1); }
#endif

/* ---- an errno from before ---------------------------------------------------------------------------------------- */

static void hear_once(rig *r, const char *options, int far, int ours)
{
    recorder rec;
    errno = EINTR;
    attach(&rec, make(r, options));
    errno = EINTR;
    settle(r);
    errno = EINTR;
    CHECK_INT(chr_fe_write(&rec.fe, "once", 4), 4);
    if (far >= 0 && !CHECK_STR(hear(far), "once")) NOTE("%s", options);
    if (far >= 0) {
        say(far, "back");
        errno = EINTR;
        settle(r);
        CHECK_INPUT(&rec, "back");
        close(far);
        errno = EINTR;
        settle(r);
        if (!CHECK_STR(rec.events, "OC")) NOTE("%s", options);
    }
    detach(&rec);
    CHECK_INT(chr_remove(r->ctx, "x", NULL), 0);
    if (ours >= 0) close(ours);
}

/* A call that succeeds has not been interrupted, whatever errno is from an earlier one: nothing is done twice. */
TEST(an_errno_from_before_changes_nothing)
{
    int       ends[2], slave, master, on = 1, fd;
    char      bytes[10];
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open(&r);
    socket_pair(ends);
    hear_once(&r, optionsf("socket,id=x,fd=%d", ends[0]), ends[1], -1);
    socket_pair(ends);
    hear_once(&r, optionsf("fd,id=x,in=%d,out=%d", ends[0], fcntl(ends[0], F_DUPFD_CLOEXEC, 3)), ends[1], -1);
    REQUIRE(mkfifo(scratch("out"), 0600) == 0);
    fd = open(scratch("out"), O_RDONLY | O_NONBLOCK);
    errno = EINTR;
    attach(&rec, make(&r, optionsf("file,id=f,path=%s,logfile=%s", scratch("out"), scratch("log"))));
    errno = EINTR;
    CHECK_INT(chr_fe_write(&rec.fe, "once", 4), 4);
    CHECK_STR(hear(fd), "once");
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "f", &err), 0);
    close(fd);
    REQUIRE(openpty(&master, &slave, NULL, NULL, NULL) == 0);
    errno = EINTR;
    attach(&rec, make(&r, optionsf("serial,id=l,path=/proc/self/fd/%d", slave)));
    errno = EINTR;
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on), 0);
    CHECK_INT(chr_fe_write(&rec.fe, "once", 4), 4);
    CHECK_STR(hear(master), "once");
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "l", &err), 0);
    close(master), close(slave);
    write_file(scratch("script"), "send \"script\"\n");
    errno = EINTR;
    attach(&rec, make(&r, optionsf("script,id=s,file=%s", scratch("script"))));
    settle(&r);
    CHECK_INPUT(&rec, "script");
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", &err), 0);
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    {
        struct sockaddr_in address;
        socklen_t          length = sizeof address;
        memset(&address, 0, sizeof address);
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        REQUIRE(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
        REQUIRE(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
        attach(&rec, make(&r, optionsf("udp,id=u,host=127.0.0.1,port=%d", ntohs(address.sin_port))));
    }
    errno = EINTR;
    CHECK_INT(chr_fe_write(&rec.fe, "once", 4), 4);
    CHECK_INT(recv(fd, bytes, sizeof bytes, MSG_DONTWAIT), 4);
    CHECK_INT(recv(fd, bytes, sizeof bytes, MSG_DONTWAIT), -1);
    detach(&rec);
    close(fd);
    chr_context_free(r.ctx);
    CHECK_INT(r.live, 0);
    scratch_clean();
}

/* An accepted connection, too: one each. */
TEST(an_errno_from_before_an_accept)
{
    int      far[2];
    recorder rec;
    rig      r;
    rig_open(&r);
    attach(&rec, make(&r, optionsf("socket,id=s,path=%s,server=on,wait=off", scratch("s"))));
    far[0] = unix_connect(scratch("s"));
    far[1] = unix_connect(scratch("s"));
    errno = EINTR;
    settle(&r);
    say(far[0], "first");
    errno = EINTR;
    settle(&r);
    CHECK_INPUT(&rec, "first");
    close(far[0]);
    errno = ECONNABORTED;
    settle(&r);
    say(far[1], " second");
    settle(&r);
    CHECK_INPUT(&rec, "first second");
    CHECK_STR(rec.events, "OCO");
    close(far[1]);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* ---- descriptions that block ------------------------------------------------------------------------------------- */

/* How much is written before the next poll(): as much as surely fits. The written bytes are reported. */
TEST(pieces_for_a_description_that_blocks)
{
    static const struct {
        const char *text;
        int         polls, taken; /* the poll that finds no room, and what has been taken before it */
    } table[] = {
        { "0123456789 bcdefghijklmno", 1, CHR_ERR_WOULD_BLOCK }, { "0123456789 bcdefghijklmno", 2, 16 },
        { "a b", 2, 3 },    { "ab\ncd", 2, 2 },    { "ab\ncd", 3, 3 },     { "ab\ncd", 4, 5 },   { "\n\nx", 2, 1 },
        { "\n\nx", 3, 2 },  { "\377\200x", 2, 3 }, { "\037\037", 2, 1 },   { "ab\033", 2, 2 },
            { "0123456789abcdef\n", 2, 16 },
        { "0123456789abcde\nf", 2, 15 },           { "0123456789abcde\nf", 3, 16 },
    };
    size_t         i;
    int            master, slave;
    struct termios settings;
    recorder       rec;
    rig            r;
    rig_open(&r);
    REQUIRE(openpty(&master, &slave, NULL, NULL, NULL) == 0);
    tcgetattr(slave, &settings);
    cfmakeraw(&settings);
    tcsetattr(slave, TCSANOW, &settings);
    fcntl(slave, F_SETFL, O_NONBLOCK);
    attach(&rec, make(&r, optionsf("fd,id=f,in=%d,out=%d", master, master)));
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        fault_arm(FAULT_poll, ENOMEM, table[i].polls, 0);
        errno = 0;
        if (!CHECK_INT(chr_fe_write(&rec.fe, table[i].text, strlen(table[i].text)), table[i].taken))
            NOTE("for \"%s\" at %d", table[i].text, table[i].polls);
        fault_disarm();
        CHECK_INT(strlen(hear(slave)), table[i].taken > 0 ? table[i].taken : 0);
    }
    detach(&rec);
    close(slave);
    chr_context_free(r.ctx);
}

/* The same of a pipe: 512 bytes. */
TEST(pieces_for_a_pipe_that_blocks)
{
    static char block[2000];
    int         fds[2], at;
    recorder    rec;
    rig         r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    memset(block, '\n', sizeof block);
    fault_arm(FAULT_open, ENOENT, 1, 1);
    attach(&rec, make(&r, optionsf("fd,id=f,out=%d", fds[1])));
    fault_arm(FAULT_pwritev2, EOPNOTSUPP, 1, 1);
    CHECK_INT(chr_fe_write(&rec.fe, block, sizeof block), sizeof block);
    CHECK_INT(fault_plan.counts[FAULT_write], 4);
    CHECK_INT(drain(&r, fds[0], sizeof block), sizeof block);
    fault_disarm();
    for (at = 1; at < 4; at++) { /* an interruption changes nothing, and other errors end what has not begun */
        fault_arm(FAULT_pwritev2, EINTR, at, 0);
        CHECK_INT(chr_fe_write(&rec.fe, block, sizeof block), sizeof block);
        CHECK_INT(drain(&r, fds[0], sizeof block), sizeof block);
        fault_disarm();
    }
    CHECK_STR(hear(fds[0]), "");
    detach(&rec);
    close(fds[0]);
    rig_close(&r);
}

/* Full but for one byte. */
TEST(a_pipe_that_blocks_takes_the_last_byte)
{
    static char block[65536];
    int         fds[2];
    recorder    rec;
    rig         r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    fault_arm(FAULT_open, ENOENT, 1, 1);
    attach(&rec, make(&r, optionsf("fd,id=f,out=%d", fds[1])));
    fault_disarm();
    CHECK_INT(chr_fe_write(&rec.fe, block, 65535), 65535);
    CHECK_INT(chr_fe_write(&rec.fe, block, 4097), 1);
    CHECK_INT(chr_fe_write(&rec.fe, block, 5000), CHR_ERR_WOULD_BLOCK);
    CHECK_INT(drain(&r, fds[0], 65536), 65536);
    detach(&rec);
    close(fds[0]);
    rig_close(&r);
}

/* Whatever can't be found out about a pipe: no call sleeps, and its flags stay those of who shares it. */
TEST(a_pipe_of_which_little_is_known)
{
    static const fault_call calls[] = { FAULT_fstat, FAULT_open };
    size_t                  i, sent;
    long                    at;
    int                     fds[2], flags;
    recorder                rec;
    rig                     r;
    for (i = 0; i < 2; i++)
        for (at = 1; at < 6; at++) {
            rig_open(&r);
            REQUIRE(pipe(fds) == 0);
            flags = fcntl(fds[1], F_GETFL);
            fault_arm(calls[i], EIO, at, 0);
            attach(&rec, make(&r, optionsf("fd,id=f,out=%d", fds[1])));
            fault_disarm();
            sent = fill_up(&rec.fe);
            if (!CHECK(sent >= 4096)) NOTE("%s number %ld", fault_names[calls[i]], at);
            CHECK_INT(fcntl(fds[1], F_GETFL), flags);
            CHECK_INT(drain(&r, fds[0], sent), sent);
            CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
            CHECK_STR(hear(fds[0]), "x");
            detach(&rec);
            close(fds[0]);
            rig_close(&r);
        }
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

/* The error number of a FIFO without a reader is also that of a socket's file. */
TEST(a_socket_file_is_no_fifo)
{
    int       listener;
    chr_error err;
    rig       r;
    rig_open(&r);
    listener = unix_listen(scratch("s"));
    CHECK_INT(refuse(&r, optionsf("file,id=f,path=%s", scratch("s")), &err), CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, strerror(ENXIO));
    REQUIRE(mkfifo(scratch("fifo"), 0600) == 0);
    fault_arm(FAULT_stat, EACCES, 1, 1);
    CHECK_INT(refuse(&r, optionsf("file,id=f,path=%s", scratch("fifo")), &err), CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, strerror(ENXIO));
    fault_disarm();
    close(listener);
    rig_close(&r);
    scratch_clean();
}

/* The descriptor of a path in this process; -1 = none. */
static int fd_of(const char *path)
{
    int  fd;
    char link[40], to[400];
    for (fd = 3; fd < 100; fd++) {
        ssize_t n;
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        n = readlink(link, to, sizeof to - 1);
        to[n > 0 ? n : 0] = 0;
        if (strcmp(to, path) == 0) return fd;
    }
    return -1;
}

/* A log file is appended to, so that others who write there do no harm. */
TEST(flags_of_files)
{
    static const struct {
        const char *options;
        int         mode, append;
    } table[] = {
        { "null,id=n,logfile=%s", O_WRONLY, 1 }, { "null,id=n,logfile=%s,logappend=on", O_WRONLY, 1 },
        { "file,id=n,path=%s", O_WRONLY, 1 },    { "file,id=n,path=%s,append=on", O_WRONLY, 1 },
        { "file,id=n,path=/dev/null,input-path=%s", O_RDONLY, 0 },
    };
    size_t i;
    int    fd;
    char   path[400];
    rig    r;
    rig_open(&r);
    snprintf(path, sizeof path, "%s", scratch("file"));
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        write_file(path, "old");
        make(&r, optionsf(table[i].options, path));
        fd = fd_of(path);
        if (CHECK(fd > 2)) {
            CHECK_INT(fcntl(fd, F_GETFL) & O_ACCMODE, table[i].mode);
            if (!CHECK_INT(flag_set(fd, F_GETFL, O_APPEND), table[i].append)) NOTE("%s", table[i].options);
            CHECK(flag_set(fd, F_GETFL, O_NONBLOCK) && flag_set(fd, F_GETFD, FD_CLOEXEC));
        }
        CHECK_INT(chr_remove(r.ctx, "n", NULL), 0);
    }
    rig_close(&r);
    scratch_clean();
}

/* ---- ptys: the kernel's queue of changes overflows --------------------------------------------------------------- */

static int open_slave(const chr_dev *dev)
{
    chr_info info;
    chr_query(dev, &info);
    REQUIRE(strstr(info.filename, "/dev/pts/") != NULL);
    return open(strstr(info.filename, "/dev/pts/"), O_RDWR | O_NOCTTY);
}

/* Who opens one pty while the changes of another fill the queue is not missed, and a change costs one chardev's
 * work, not all. */
TEST(changes_that_were_lost)
{
    enum { PTYS = 30 };
    recorder rec[PTYS];
    int      i, slave, limit = 16384;
    long     polls;
    FILE    *file = fopen("/proc/sys/fs/inotify/max_queued_events", "r");
    rig      r;
    if (file && fscanf(file, "%d", &limit) != 1) limit = 16384;
    if (file) fclose(file);
    if (limit > 100000) SKIP("the queue of changes is too long here");
    rig_open_virtual(&r);
    for (i = 0; i < PTYS; i++) attach(&rec[i], make(&r, optionsf("pty,id=p%d", i)));
    settle(&r);
    fault_disarm();
    memset(&fault_plan, 0, sizeof fault_plan);
    slave = open_slave(rec[7].fe.dev);
    settle(&r);
    CHECK_STR(rec[7].events, "O");
    for (polls = 0, i = 0; i < FAULT_COUNT; i++) polls += fault_plan.counts[i];
    if (!CHECK(polls < PTYS)) NOTE("%ld calls", polls);
    close(slave);
    settle(&r);
    for (i = 0; i <= limit / 2 + 10; i++) close(open_slave(rec[3].fe.dev));
    slave = open_slave(rec[5].fe.dev);
    for (i = 0; i < limit && rec[5].events[0] == 0; i++) chr_loop_step(r.ctx, 0);
    CHECK_STR(rec[5].events, "O");
    close(slave);
    settle(&r);
    CHECK_STR(rec[5].events, "OC");
    for (i = 0; i < PTYS; i++) detach(&rec[i]);
    rig_close(&r);
}

/* ---- the kernel's set -------------------------------------------------------------------------------------------- */

enum { MANY = 60 };

typedef struct eye {
    chr_watch watch;
    int       fds[2], count, events;
} eye;

static eye eyes[MANY];

static void eye_ready(void *opaque, int events)
{
    eye *e = (eye *)opaque;
    e->count++;
    e->events = events;
}

static void open_eyes(rig *r)
{
    int i;
    for (i = 0; i < MANY; i++) {
        memset(&eyes[i], 0, sizeof eyes[i]);
        socket_pair(eyes[i].fds);
        fcntl(eyes[i].fds[0], F_SETFL, O_NONBLOCK);
        CHECK_INT(chr_watch_start(r->ctx, &eyes[i].watch, eyes[i].fds[0], CHR_IN, eye_ready, &eyes[i]), 0);
    }
    chr_loop_step(r->ctx, 0);
}

static void close_eyes(void)
{
    int i;
    for (i = 0; i < MANY; i++) {
        chr_watch_stop(&eyes[i].watch);
        close(eyes[i].fds[0]);
        if (eyes[i].fds[1] >= 0) close(eyes[i].fds[1]);
    }
}

static int is_readable(int fd)
{
    struct pollfd p = { 0, POLLIN, 0 };
    p.fd = fd;
    return poll(&p, 1, 0) > 0;
}

/* One descriptor for the loop of another is ready for what is watched, and for nothing else. */
TEST(what_makes_the_set_ready)
{
    static char block[65536];
    static const struct {
        int watched, input, room, half; /* what is there */
        int ready;
    } table[] = {
        { CHR_IN, 0, 1, 0, 0 },  { CHR_IN, 1, 0, 0, CHR_IN }, { CHR_IN, 0, 0, 1, CHR_IN }, { CHR_OUT, 1, 0, 0, 0 },
        { CHR_OUT, 0, 1, 0, CHR_OUT }, { CHR_HUP, 1, 1, 0, 0 }, { CHR_HUP, 0, 0, 1, CHR_HUP }, { 0, 1, 1, 1, 0 },
        { CHR_IN | CHR_OUT, 1, 1, 0, CHR_IN | CHR_OUT }, { CHR_IN | CHR_OUT, 0, 1, 0, CHR_OUT }, { CHR_OUT, 1, 0, 1,
            0 },
        { CHR_OUT | CHR_HUP, 1, 0, 1, CHR_HUP }, { CHR_OUT | CHR_HUP, 1, 1, 0, CHR_OUT },
    };
    size_t i;
    int    fd;
    rig    r;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        rig_open(&r);
        open_eyes(&r);
        fd = chr_loop_fd(r.ctx);
        CHECK(fd > 2);
        chr_watch_set(&eyes[40].watch, table[i].watched);
        while (!table[i].room && write(eyes[40].fds[0], block, sizeof block) > 0) {}
        if (table[i].input) say(eyes[40].fds[1], "x");
        if (table[i].half) shutdown(eyes[40].fds[1], SHUT_WR);
        chr_loop_timeout(r.ctx);
        while (chr_loop_step(r.ctx, 0) > 0 && !eyes[40].count) {}
        if (!CHECK_INT(eyes[40].events, table[i].ready) || !CHECK_INT(is_readable(fd), table[i].ready != 0))
            NOTE("row %zu", i);
        close_eyes();
        rig_close(&r);
    }
}

/* In the child of a fork() the set is made anew; where that fails poll() does. */
static void child_without_a_set(fault_call call, int nested)
{
    int   status = 1, i;
    pid_t child;
    rig   r;
    rig_open(&r);
    open_eyes(&r);
    if (nested) CHECK(chr_loop_fd(r.ctx) > 2);
    chr_loop_step(r.ctx, 0);
    child = fork();
    if (child == 0) {
        int fds = count_fds();
        fault_arm(call, EMFILE, 1, 1);
        chr_loop_step(r.ctx, 0);
        fault_disarm();
        for (i = 0; i < MANY; i += 7) say(eyes[i].fds[1], "x");
        for (i = 0; i < 3; i++) chr_loop_step(r.ctx, 0);
        for (i = 0; i < MANY; i++)
            if (!CHECK((eyes[i].count > 0) == (i % 7 == 0))) NOTE("eye %d", i);
        CHECK(count_fds() <= fds);
        close_eyes();
        chr_context_free(r.ctx);
        CHECK_INT(r.live, 0);
        CHECK(count_fds() <= r.fds);
        exit(test_failures > 0); /* gcov writes its counts */
    }
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    memset(&fault_plan, 0, sizeof fault_plan); /* the parent's is as it was */
    for (i = 0; i < MANY; i++) eyes[i].count = 0, eyes[i].events = 0;
    for (i = 0; i < 3; i++) chr_loop_step(r.ctx, 0);
    for (i = 0; i < MANY; i++) CHECK((eyes[i].count > 0) == (i % 7 == 0));
    CHECK_INT(fault_plan.counts[FAULT_epoll_create1], 0);
    CHECK_INT(fault_plan.counts[FAULT_epoll_ctl], 0);
    close_eyes();
    rig_close(&r);
}

TEST(child_without_a_new_set) { child_without_a_set(FAULT_epoll_create1, 0); }
TEST(child_without_the_sets_number) { child_without_a_set(FAULT_dup2, 0); }
TEST(child_without_an_alarm) { child_without_a_set(FAULT_timerfd_create, 1); }
TEST(child_without_a_mark) { child_without_a_set(FAULT_mmap, 0); }
TEST(child_without_a_wiped_page) { child_without_a_set(FAULT_madvise, 1); }

/* ---- retries at once --------------------------------------------------------------------------------------------- */

/* accept() that is interrupted, or whose peer has disconnected, is not EMFILE: the listener is not paused. */
TEST(an_accept_that_is_interrupted)
{
    static const int errors[] = { EINTR, ECONNABORTED };
    size_t           i;
    int              far;
    recorder         rec;
    rig              r;
    for (i = 0; i < 2; i++) {
        rig_open_virtual(&r);
        attach(&rec, make(&r, optionsf("socket,id=s,path=%s,server=on,wait=off", scratch("s"))));
        settle(&r);
        fault_arm(FAULT_accept, errors[i], 1, 0);
        far = unix_connect(scratch("s"));
        settle(&r);
        CHECK_INT(fault_plan.fired, 1);
        fault_disarm();
        CHECK_STR(rec.events, "O");
        CHECK_INT(r.logs, 0);
        close(far);
        detach(&rec);
        rig_close(&r);
        scratch_clean();
    }
}

TEST(settings_of_a_terminal_that_are_interrupted)
{
    rig r;
    rig_open(&r);
    fault_arm(FAULT_tcsetattr, EINTR, 1, 0);
    make(&r, "pty,id=p");
    CHECK_INT(fault_plan.fired, 1);
    fault_disarm();
    rig_close(&r);
}

static int six(void *opaque) { return (void)opaque, 6; }

static const chr_handlers six_handlers = { six, recorder_read, NULL, NULL };

/* A datagram is a call, and one more that finds no other. */
TEST(a_datagram_costs_two_calls)
{
    struct sockaddr_in address;
    socklen_t          length = sizeof address;
    int                far;
    recorder           rec;
    rig                r;
    rig_open(&r);
    far = socket(AF_INET, SOCK_DGRAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(bind(far, (struct sockaddr *)&address, sizeof address) == 0);
    REQUIRE(getsockname(far, (struct sockaddr *)&address, &length) == 0);
    attach(&rec, make(&r, optionsf("udp,id=u,host=127.0.0.1,port=%d", ntohs(address.sin_port))));
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    length = sizeof address;
    CHECK_INT(recvfrom(far, block_of_text, 10, 0, (struct sockaddr *)&address, &length), 1);
    memset(&fault_plan, 0, sizeof fault_plan);
    CHECK_INT(sendto(far, "answer", 6, 0, (struct sockaddr *)&address, length), 6);
    PUMP(&r, rec.length == 6);
    settle(&r);
    CHECK(fault_plan.counts[FAULT_recvmsg] <= 3);
    chr_fe_set_handlers(&rec.fe, &six_handlers, &rec); /* room for exactly one: the next call says that there is no more */
    memset(&fault_plan, 0, sizeof fault_plan);
    CHECK_INT(sendto(far, "second", 6, 0, (struct sockaddr *)&address, length), 6);
    PUMP(&r, rec.length == 12);
    settle(&r);
    CHECK(fault_plan.counts[FAULT_recvmsg] >= 2 && fault_plan.counts[FAULT_recvmsg] <= 4);
    detach(&rec);
    close(far);
    rig_close(&r);
}

/* ---- sockets' files ---------------------------------------------------------------------------------------------- */

/* Whether a file is stale can't be found out without a socket: it stays, with who listens there. */
TEST(a_listener_whose_place_is_taken)
{
    int       listener, far;
    chr_error err;
    rig       r;
    rig_open(&r);
    listener = unix_listen(scratch("s"));
    fault_arm(FAULT_socket, EMFILE, 2, 0);
    CHECK(!chr_new(r.ctx, optionsf("socket,id=s,path=%s,server=on,wait=off", scratch("s")), &err));
    CHECK_INT(fault_plan.fired, 1);
    fault_disarm();
    CHECK_INT(err.code, CHR_ERR_EXISTS);
    CHECK(!strstr(err.text, "not a socket"));
    far = unix_connect(scratch("s"));
    CHECK(far >= 0);
    close(far), close(listener);
    CHECK(exists(scratch("s")));
    make(&r, optionsf("socket,id=s,path=%s,server=on,wait=off", scratch("s"))); /* it is stale now */
    write_file(scratch("file"), "kept");
    CHECK_INT(refuse(&r, optionsf("socket,id=t,path=%s,server=on,wait=off", scratch("file")), &err), CHR_ERR_EXISTS);
    CHECK_HAS(err.text, "by a file that is not a socket");
    CHECK_STR(read_file(scratch("file")), "kept");
    rig_close(&r);
    scratch_clean();
}

TEST(the_group_of_a_socket_file)
{
    struct group *group = geteuid() == 0 ? getgrnam("daemon") : getgrgid(getegid());
    struct stat   info;
    chr_error     err;
    rig           r;
    if (!group || geteuid() != 0) SKIP("no group to give a file to");
    rig_open(&r);
    memset(&err, 0, sizeof err);
    CHECK(chr_new(r.ctx, optionsf("socket,id=s,path=%s,server=on,wait=off,group=%s,mode=0640", scratch("s"), group->gr_name), &err)
          != NULL);
    CHECK_STR(err.text, ""); /* only what fails fills it */
    REQUIRE(stat(scratch("s"), &info) == 0);
    CHECK_INT(info.st_gid, group->gr_gid);
    CHECK_INT(info.st_mode & 0777, 0640);
    CHECK_INT(refuse(&r, optionsf("socket,id=t,path=%s,server=on,wait=off,group=no-such-group", scratch("t")), &err),
        CHR_ERR_NOT_FOUND);
    rig_close(&r);
    scratch_clean();
}

/* ---- random bytes ------------------------------------------------------------------------------------------------ */

/* The key of a websocket client: the bytes are random up to the last. */
TEST(keys_are_random)
{
    char     keys[12][40];
    size_t   i, k, at;
    int      far, listener, same;
    char    *key;
    recorder rec;
    rig      r;
    for (k = 0; k < 12; k++) {
        rig_open(&r);
        listener = unix_listen(scratch("s"));
        attach(&rec, make(&r, optionsf("socket,id=c,path=%s,websocket=on,reconnect-ms=100000", scratch("s"))));
        settle(&r);
        far = accept(listener, NULL, NULL);
        settle(&r);
        key = strstr((char *)(uintptr_t)hear(far), "Sec-WebSocket-Key: ");
        REQUIRE(key != NULL && strlen(key) > 43);
        snprintf(keys[k], sizeof keys[k], "%.24s", key + 19);
        close(far), close(listener);
        detach(&rec);
        rig_close(&r);
        scratch_clean();
    }
    for (at = 0; at < 22; at++) {
        for (same = 0, i = 1; i < 12; i++) same += keys[i][at] == keys[0][at];
        if (at != 21 && !CHECK(same < 11)) NOTE("letter %zu of %s", at, keys[0]);
    }
}

TEST(no_random_bytes)
{
    int       listener;
    chr_error err;
    rig       r;
    rig_open(&r);
    listener = unix_listen(scratch("s"));
    fault_arm(FAULT_open, EMFILE, 1, 1);
    CHECK(!chr_new(r.ctx, optionsf("socket,id=c,path=%s,websocket=on", scratch("s")), &err));
    CHECK_HAS(err.text, "the system gives no random bytes");
    fault_arm(FAULT_read, EIO, 1, 1);
    CHECK(!chr_new(r.ctx, optionsf("socket,id=c,path=%s,websocket=on", scratch("s")), &err));
    CHECK_HAS(err.text, "the system gives no random bytes");
    fault_disarm();
    close(listener);
    rig_close(&r);
    scratch_clean();
}

/* ---- what contexts leave ----------------------------------------------------------------------------------------- */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they need the memory that is taken away */
static long pages(void)
{
    long  size = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld", &size) != 1) size = 0;
    if (file) fclose(file);
    return size;
}

/* No thread can be had: the name is looked up here. */
TEST(a_name_without_a_thread)
{
    int           port, listener = tcp_listen(&port);
    struct rlimit limit, before;
    recorder      rec;
    rig           r;
    NEED_LOCALHOST();
    rig_open(&r);
    getrlimit(RLIMIT_AS, &before);
    limit = before;
    limit.rlim_cur = (rlim_t)pages() * (rlim_t)sysconf(_SC_PAGESIZE) + 1500000; /* a stack has more */
    REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
    attach(&rec, make(&r, optionsf("socket,id=c,host=localhost,port=%d,ipv4=on,reconnect-ms=50", port)));
    setrlimit(RLIMIT_AS, &before);
    PUMP(&r, rec.open);
    detach(&rec);
    close_behind_thread(&r);
    close(listener);
}
#endif

/* ---- terminals --------------------------------------------------------------------------------------------------- */

/* Nothing of what is typed, or written, is changed on its way; all else is as it was. */
TEST(the_slave_of_a_pty_is_raw)
{
    struct termios was, is;
    int            master, slave, ours;
    recorder       rec;
    rig            r;
    REQUIRE(openpty(&master, &slave, NULL, NULL, NULL) == 0);
    tcgetattr(slave, &was);
    close(master), close(slave);
    rig_open(&r);
    attach(&rec, make(&r, "pty,id=p"));
    ours = open_slave(rec.fe.dev);
    REQUIRE(tcgetattr(ours, &is) == 0);
    CHECK_INT(is.c_iflag, was.c_iflag & ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON));
    CHECK_INT(is.c_oflag, was.c_oflag & ~(tcflag_t)OPOST);
    CHECK_INT(is.c_lflag, was.c_lflag & ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN | ISIG));
    CHECK_INT(is.c_cflag, (was.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8);
    CHECK_INT(is.c_cc[VMIN], 1);
    CHECK_INT(is.c_cc[VTIME], 0);
    CHECK_INT(is.c_cc[VERASE], was.c_cc[VERASE]);
    close(ours);
    detach(&rec);
    rig_close(&r);
}

/* A terminal that others share is opened anew: what is written goes in one call, not in pieces that surely fit. */
TEST(a_terminal_that_others_share_takes_a_block)
{
    int            master, slave;
    struct termios settings;
    recorder       rec;
    rig            r;
    rig_open(&r);
    REQUIRE(openpty(&master, &slave, NULL, NULL, NULL) == 0);
    tcgetattr(slave, &settings);
    cfmakeraw(&settings);
    tcsetattr(slave, TCSANOW, &settings);
    attach(&rec, make(&r, optionsf("fd,id=f,in=%d,out=%d", slave, slave)));
    memset(&fault_plan, 0, sizeof fault_plan);
    CHECK_INT(chr_fe_write(&rec.fe, block_of_text, 1000), 1000);
    CHECK_INT(fault_plan.counts[FAULT_write], 1);
    CHECK(!flag_set(slave, F_GETFL, O_NONBLOCK));
    detach(&rec);
    close(master);
    chr_context_free(r.ctx);
}

/* A number was closed while a duplicate exists, and is reused: the kernel's set still has its entry. */
TEST(an_entry_that_is_there_already)
{
    int copy, fd, i;
    rig r;
    rig_open(&r);
    open_eyes(&r);
    fd = eyes[30].fds[0];
    copy = fcntl(fd, F_DUPFD_CLOEXEC, 200);
    close(fd);
    chr_watch_stop(&eyes[30].watch);
    REQUIRE(dup2(copy, fd) == fd);
    close(copy);
    CHECK_INT(chr_watch_start(r.ctx, &eyes[30].watch, fd, CHR_IN, eye_ready, &eyes[30]), 0);
    i = chr_loop_fd(r.ctx);
    chr_loop_step(r.ctx, 0);
    chr_loop_step(r.ctx, 0);
    CHECK(!is_readable(i));
    say(eyes[30].fds[1], "x");
    CHECK(is_readable(i));
    for (i = 0; i < 3; i++) chr_loop_step(r.ctx, 0);
    CHECK(eyes[30].count > 0 && eyes[30].events == CHR_IN);
    close_eyes();
    rig_close(&r);
}

/* The type of an inherited listener is known before a peer has connected. */
TEST(a_listener_by_its_number)
{
    int       port, listener, far;
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open(&r);
    listener = tcp_listen(&port);
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d,server=on,wait=off,keep-alive=on", listener)));
    far = tcp_connect(port);
    PUMP(&r, rec.open);
    close(far);
    detach(&rec);
    listener = unix_listen(scratch("s"));
    CHECK_INT(refuse(&r, optionsf("socket,id=t,fd=%d,server=on,wait=off,keep-alive=on", listener), &err),
        CHR_ERR_INVALID);
    close(listener);
    rig_close(&r);
    scratch_clean();
}

/* ---- the set: what it refuses ------------------------------------------------------------------------------------ */

/* Two watches of one descriptor, and no entry can be changed: poll() waits for both. */
TEST(two_watches_without_an_entry)
{
    static const int errors[] = { ENOMEM, ENOSPC };
    eye              second;
    size_t           i;
    int              k, at;
    rig              r;
    for (i = 0; i < 2; i++)
        for (at = 1; at < 4; at++) {
            rig_open(&r);
            open_eyes(&r);
            memset(&second, 0, sizeof second);
            fault_arm(FAULT_epoll_ctl, errors[i], at, 1);
            CHECK_INT(chr_watch_start(r.ctx, &second.watch, eyes[10].fds[0], CHR_IN | CHR_OUT, eye_ready, &second), 0);
            chr_watch_set(&eyes[10].watch, CHR_IN | CHR_OUT);
            chr_watch_set(&eyes[11].watch, CHR_OUT);
            for (k = 0; k < 3; k++) chr_loop_step(r.ctx, 0);
            fault_disarm();
            CHECK(second.events == CHR_OUT && eyes[10].events == CHR_OUT && eyes[11].events == CHR_OUT);
            chr_watch_set(&eyes[10].watch, CHR_IN);
            chr_watch_set(&second.watch, CHR_IN);
            chr_watch_set(&eyes[11].watch, CHR_IN);
            second.count = eyes[10].count = eyes[11].count = 0;
            for (k = 0; k < 3; k++) chr_loop_step(r.ctx, 0);
            CHECK(second.count == 0 && eyes[10].count == 0 && eyes[11].count == 0);
            say(eyes[10].fds[1], "x");
            say(eyes[11].fds[1], "x");
            say(eyes[12].fds[1], "x");
            for (k = 0; k < 2; k++) chr_loop_step(r.ctx, 0);
            if (!CHECK(second.count > 0 && eyes[10].count > 0 && eyes[11].count > 0 && eyes[12].count > 0))
                NOTE("at %d: %d %d %d %d", at, second.count, eyes[10].count, eyes[11].count, eyes[12].count);
            chr_watch_stop(&second.watch);
            close_eyes();
            rig_close(&r);
        }
}

/* Interest has gone, and the entry can't follow: nothing spins, and when it comes back it is heard. */
TEST(an_entry_that_cannot_be_reduced)
{
    int i, at, fd;
    rig r;
    for (at = 1; at < 3; at++) {
        rig_open(&r);
        open_eyes(&r);
        fd = chr_loop_fd(r.ctx);
        for (i = 0; i < 3; i++) chr_loop_step(r.ctx, 0);
        chr_watch_set(&eyes[20].watch, 0);
        chr_watch_set(&eyes[21].watch, CHR_HUP);
        say(eyes[20].fds[1], "x");
        say(eyes[21].fds[1], "x");
        fault_arm(FAULT_epoll_ctl, ENOMEM, at, at == 2);
        for (i = 0; i < 6; i++) chr_loop_step(r.ctx, 0);
        fault_disarm();
        for (i = 0; i < 6; i++) chr_loop_step(r.ctx, 0);
        CHECK(eyes[20].count == 0 && eyes[21].count == 0);
        if (at == 1) CHECK(!is_readable(fd)); /* else poll() waits for all, and the set's owner looks at times */
        memset(&fault_plan, 0, sizeof fault_plan);
        for (i = 0; i < 6; i++) chr_loop_step(r.ctx, 0);
        CHECK_INT(fault_plan.counts[FAULT_epoll_ctl], 0);
        chr_watch_set(&eyes[20].watch, CHR_IN);
        chr_watch_set(&eyes[21].watch, CHR_IN);
        chr_loop_step(r.ctx, 0);
        CHECK(eyes[20].count == 1 && eyes[21].count == 1);
        close_eyes();
        rig_close(&r);
    }
}

static eye *stopped_by_first;

static void eye_stops_other(void *opaque, int events)
{
    eye_ready(opaque, events);
    if (stopped_by_first) chr_watch_stop(&stopped_by_first->watch);
    stopped_by_first = NULL;
}

/* One stops others that are ready with it: no more than that, and the set stays the same. */
TEST(a_ready_one_that_is_stopped_by_another)
{
    int i;
    rig r;
    rig_open(&r);
    open_eyes(&r);
    for (i = 0; i < 2; i++) {
        chr_watch_stop(&eyes[i].watch);
        CHECK_INT(chr_watch_start(r.ctx, &eyes[i].watch, eyes[i].fds[0], CHR_IN, eye_stops_other, &eyes[i]), 0);
    }
    chr_loop_step(r.ctx, 0);
    say(eyes[0].fds[1], "x");
    say(eyes[1].fds[1], "x");
    say(eyes[2].fds[1], "x");
    memset(&fault_plan, 0, sizeof fault_plan);
    stopped_by_first = &eyes[0];
    chr_loop_step(r.ctx, 0); /* the first to run stops eyes[0], itself or the one behind it */
    CHECK(eyes[0].count <= 1 && eyes[1].count == 1 && eyes[2].count == 1);
    chr_watch_stop(&eyes[0].watch);
    stopped_by_first = &eyes[2];
    chr_loop_step(r.ctx, 0);
    CHECK_INT(eyes[1].count, 2);
    for (i = 0; i < 3; i++) chr_loop_step(r.ctx, 0);
    CHECK_INT(fault_plan.counts[FAULT_epoll_create1], 0);
    close_eyes();
    rig_close(&r);
}

/* ---- a nested loop and other threads ----------------------------------------------------------------------------- */

static recorder *roomy;

static void *give_room_there(void *opaque)
{
    (void)opaque;
    give_room(roomy, 100);
    return NULL;
}

/* Room that another thread gives is work. */
TEST(a_nested_loop_hears_of_room)
{
    int       fds[2], fd, i;
    pthread_t thread;
    recorder  rec;
    rig       r;
    rig_open_virtual(&r);
    socket_pair(fds);
    attach_with_room(&rec, make(&r, optionsf("socket,id=s,fd=%d", fds[0])), 0);
    roomy = &rec;
    settle(&r);
    fd = chr_loop_fd(r.ctx);
    say(fds[1], "abc");
    for (i = 0; i < 5; i++) chr_loop_step(r.ctx, 0);
    REQUIRE(pthread_create(&thread, NULL, give_room_there, NULL) == 0);
    pthread_join(thread, NULL);
    CHECK(is_readable(fd));
    for (i = 0; i < 5; i++) chr_loop_step(r.ctx, 0);
    CHECK_INPUT(&rec, "abc");
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}

/* ---- gathered output --------------------------------------------------------------------------------------------- */

/* What one frontend has gathered goes out, whatever becomes of another that has gathered nothing. */
TEST(gathered_output_beside_a_frontend_that_goes)
{
    int      fds[2], i;
    recorder rec, other;
    rig      r;
    for (i = 0; i < 2; i++) {
        rig_open_virtual(&r);
        socket_pair(fds);
        attach(&rec, make(&r, optionsf("socket,id=s,fd=%d", fds[0])));
        attach(&other, make(&r, "ringbuf,id=b"));
        REQUIRE(chr_fe_set_buffers(&rec.fe, 0, 100) == 0);
        REQUIRE(chr_fe_set_buffers(&other.fe, 0, 100) == 0);
        settle(&r);
        CHECK_INT(chr_fe_write(&rec.fe, "gathered", 8), 8);
        if (i == 0) detach(&other);
        else chr_fe_flush(&other.fe, 0);
        settle(&r);
        CHECK_STR(hear(fds[1]), "gathered");
        detach(&rec);
        if (i == 1) detach(&other);
        close(fds[1]);
        rig_close(&r);
    }
}

/* Where poll() fails all is tried, again and again, but no longer than it may take. */
TEST(a_blocking_call_whose_wait_fails)
{
    int       listener;
    chr_error err;
    rig       r;
    rig_open(&r);
    listener = unix_listen(scratch("s"));
    fault_arm(FAULT_poll, ENOMEM, 1, 1);
    fault_plan.haste = 50;
    CHECK(!chr_new(r.ctx, optionsf("socket,id=c,path=%s,websocket=on", scratch("s")), &err));
    memset(&fault_plan, 0, sizeof fault_plan);
    CHECK_HAS(err.text, "has not finished the websocket handshake within 10 seconds");
    close(listener);
    rig_close(&r);
    scratch_clean();
}

/* ---- more that fails --------------------------------------------------------------------------------------------- */

/* An address that can't be asked for is none. */
TEST(a_socket_without_a_name)
{
    recorder rec;
    rig      r;
    rig_open(&r);
    fault_arm(FAULT_getsockname, ENOBUFS, 1, 1);
    attach(&rec, make(&r, optionsf("socket,id=s,path=%s,server=on,wait=off", scratch("s"))));
    CHECK(strspn(address_of(rec.fe.dev), "\001\002\177") == 0);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    attach(&rec, make(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off"));
    CHECK((unsigned char)address_of(rec.fe.dev)[0] >= ' ' || !address_of(rec.fe.dev)[0]);
    fault_disarm();
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* A relative path stays relative where there is no working directory that could be asked for. */
TEST(a_log_without_a_working_directory)
{
    recorder rec;
    int      i;
    rig      r;
    rig_open(&r);
    (void)scratch("log");
    REQUIRE(chdir(scratch_dir) == 0);
    fault_arm(FAULT_getcwd, ENOENT, 1, 1);
    attach(&rec, make(&r, "null,id=n,logfile=log,logsize=4096,logfiles=2"));
    fault_disarm();
    for (i = 0; i < 6; i++) CHECK_INT(chr_fe_write(&rec.fe, block_of_text, 1000), 1000);
    CHECK(exists("log"));
    CHECK(exists("log.1"));
    CHECK_INT(r.logs, 0);
    detach(&rec);
    rig_close(&r);
    REQUIRE(chdir("/") == 0);
    scratch_clean();
}

/* A lookup that can't begin leaves nothing. */
TEST(names_that_are_not_looked_up_leave_no_memory)
{
    int  i;
    long before;
    NEED_LOCALHOST();
    refuse_by_name(FAULT_pipe, 1);
    for (before = live_bytes(), i = 0; i < 10; i++) refuse_by_name(FAULT_pipe, 1);
    CHECK(live_bytes() - before < 15000);
}

/* The size of a terminal has no pixels. */
TEST(the_size_of_a_pty)
{
    struct winsize    got;
    chr_terminal_size size = { 132, 43 };
    recorder          rec;
    int               slave;
    rig               r;
    rig_open(&r);
    attach(&rec, make(&r, "pty,id=p"));
    slave = open_slave(rec.fe.dev);
    settle(&r);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SET_TERMINAL_SIZE, &size), 0);
    REQUIRE(ioctl(slave, TIOCGWINSZ, &got) == 0);
    CHECK(got.ws_col == 132 && got.ws_row == 43 && got.ws_xpixel == 0 && got.ws_ypixel == 0);
    close(slave);
    detach(&rec);
    rig_close(&r);
}

/* The number of a descriptor that was closed is another's now: the set gets an entry for it, and its loop's
 * descriptor shows it. */
TEST(a_number_that_is_anothers_now)
{
    int fds[2], fd, i;
    rig r;
    rig_open(&r);
    open_eyes(&r);
    fd = chr_loop_fd(r.ctx);
    for (i = 0; i < 3; i++) chr_loop_step(r.ctx, 0);
    socket_pair(fds);
    REQUIRE(dup2(fds[0], eyes[30].fds[0]) == eyes[30].fds[0]);
    close(fds[0]);
    chr_watch_set(&eyes[30].watch, CHR_IN | CHR_HUP | CHR_OUT);
    chr_watch_set(&eyes[30].watch, CHR_IN);
    chr_watch_set(&eyes[30].watch, CHR_OUT);
    for (i = 0; i < 3; i++) chr_loop_step(r.ctx, 0);
    chr_watch_set(&eyes[30].watch, CHR_IN);
    for (i = 0; i < 3; i++) chr_loop_step(r.ctx, 0);
    eyes[30].count = 0;
    CHECK(!is_readable(fd));
    say(fds[1], "x");
    CHECK(is_readable(fd));
    chr_loop_step(r.ctx, 0);
    CHECK_INT(eyes[30].count, 1);
    close(fds[1]);
    close_eyes();
    rig_close(&r);
}

static void *listen_later(void *opaque)
{
    usleep(250000);
    *(int *)opaque = unix_listen(scratch("s"));
    return NULL;
}

/* Who waits for a connection sleeps between the attempts. */
TEST(attempts_are_as_far_apart_as_was_asked)
{
    int       listener = -1;
    int64_t   start = real_ms();
    pthread_t thread;
    chr_error err;
    recorder  rec;
    rig       r;
    (void)scratch("s");
    rig_open(&r);
    attach(&rec, make(&r, optionsf("socket,id=c,path=%s,reconnect-ms=20", scratch("s"))));
    memset(&fault_plan, 0, sizeof fault_plan);
    REQUIRE(pthread_create(&thread, NULL, listen_later, &listener) == 0);
    CHECK_INT(chr_fe_wait_connected(&rec.fe, &err), 0);
    pthread_join(thread, NULL);
    CHECK_INT(private_locks(r.ctx), 0); /* the lock is free as it was */
    CHECK(fault_plan.counts[FAULT_connect] <= (real_ms() - start) / 20 + 10);
    detach(&rec);
    close(listener);
    rig_close(&r);
    scratch_clean();
}

static chr_watch late;
static int       late_count;
static rig      *late_rig;

static void late_ready(void *opaque, int events) { (void)opaque, (void)events, late_count++; }

static void start_late(void *opaque, int events)
{
    eye *e = (eye *)opaque;
    eye_ready(opaque, events);
    if (e->count == 1) CHECK_INT(chr_watch_start(late_rig->ctx, &late, e->fds[0], CHR_IN, late_ready, NULL), 0);
}

/* A watch that a handler starts for the descriptor that is ready runs in the next step. */
TEST(a_watch_that_is_started_beside_a_ready_one)
{
    int nested;
    rig r;
    for (nested = 0; nested < 2; nested++) {
        rig_open(&r);
        open_eyes(&r);
        if (nested) CHECK(chr_loop_fd(r.ctx) > 2);
        late_rig = &r;
        late_count = 0;
        chr_watch_stop(&eyes[9].watch);
        CHECK_INT(chr_watch_start(r.ctx, &eyes[9].watch, eyes[9].fds[0], CHR_IN, start_late, &eyes[9]), 0);
        chr_loop_step(r.ctx, 0);
        say(eyes[9].fds[1], "x");
        chr_loop_step(r.ctx, 0);
        CHECK_INT(eyes[9].count, 1);
        CHECK_INT(late_count, 0);
        chr_loop_step(r.ctx, 0);
        CHECK_INT(eyes[9].count, 2);
        CHECK_INT(late_count, 1);
        chr_watch_stop(&late);
        close_eyes();
        rig_close(&r);
    }
}

/* ---- the same file, or another one of that number ------------------------------------------------------------------------ */

static enum { AS_IT_IS, OTHER_DEVICE, OTHER_INODE, OTHER_NUMBER } seems;
static int  seems_not = -1; /* but not to this descriptor */
static int  seems_calls = -1; /* for so many calls; -1 = for all */
static long most_parts;

static int as_it_seems(int code, struct stat *info)
{
    if (seems_calls == 0) return code;
    seems_calls -= seems != AS_IT_IS && seems_calls > 0;
    if (code == 0 && seems == OTHER_DEVICE) info->st_dev ^= 1;
    if (code == 0 && seems == OTHER_INODE) info->st_ino ^= 1;
    if (code == 0 && seems == OTHER_NUMBER) info->st_rdev ^= 1;
    return code;
}

/* In place of the library's. */
int fstat(int fd, struct stat *info) { return fd == seems_not ? fstatat(fd, "", info, AT_EMPTY_PATH) : as_it_seems(fstatat(fd, "", info, AT_EMPTY_PATH), info); }
int lstat(const char *path, struct stat *info) { return as_it_seems(fstatat(AT_FDCWD, path, info, AT_SYMLINK_NOFOLLOW), info); }

/* A pipe is opened anew, with flags of its own, where /proc leads to the same one; else it may block others, and is written in
 * pieces. */
TEST(a_description_of_the_same_pipe)
{
    static char block[2000];
    int         fds[2], how;
    recorder    rec;
    rig         r;
    for (how = AS_IT_IS; how <= OTHER_NUMBER; how++) {
        rig_open(&r);
        REQUIRE(pipe(fds) == 0);
        memset(block, '\n', sizeof block);
        seems = how;
        seems_not = fds[1];
        attach(&rec, make(&r, optionsf("fd,id=f,out=%d", fds[1])));
        seems = AS_IT_IS;
        fault_arm(FAULT_pwritev2, EOPNOTSUPP, 1, 1);
        CHECK_INT(chr_fe_write(&rec.fe, block, sizeof block), sizeof block);
        if (!CHECK_INT(fault_plan.counts[FAULT_write], how == AS_IT_IS ? 1 : 4)) NOTE("for %d", how);
        fault_disarm();
        CHECK_INT(drain(&r, fds[0], sizeof block), sizeof block);
        detach(&rec);
        close(fds[0]);
        rig_close(&r);
    }
}

/* A socket file of another device or inode is somebody else's. */
TEST(a_socket_file_of_somebody_else_stays)
{
    struct stat info;
    rig         r;
    int         how;
    for (how = AS_IT_IS; how <= OTHER_INODE; how++) {
        rig_open(&r);
        make(&r, optionsf("socket,id=s,path=%s,server=on,wait=off", scratch("s")));
        seems = how;
        CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
        seems = AS_IT_IS;
        CHECK_INT(lstat(scratch("s"), &info), how == AS_IT_IS ? -1 : 0);
        rig_close(&r);
        scratch_clean();
    }
}

/* A full log that isn't the file of that name any more is not rotated: its name is opened again. */
TEST(a_log_of_another_file)
{
    recorder rec;
    rig      r;
    int      how;
    for (how = AS_IT_IS; how <= OTHER_INODE; how++) {
        rig_open(&r);
        attach(&rec, make(&r, optionsf("null,id=n,logfile=%s,logsize=1000", scratch("log"))));
        CHECK_INT(chr_fe_write(&rec.fe, block_of_text, sizeof block_of_text), sizeof block_of_text);
        fault_plan.counts[FAULT_open] = 0;
        seems = how;
        seems_calls = 2; /* its size, and whether it is the one */
        CHECK_INT(chr_fe_write(&rec.fe, "one more\n", 9), 9);
        seems = AS_IT_IS;
        seems_calls = -1;
        if (!CHECK_INT(fault_plan.counts[FAULT_open], how == AS_IT_IS ? 1 : 2)) NOTE("for %d", how);
        detach(&rec);
        rig_close(&r);
        scratch_clean();
    }
}

/* ---- one piece at a time ---------------------------------------------------------------------------------------------------- */

/* In place of the library's. */
ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    if ((long)message->msg_iovlen > most_parts) most_parts = (long)message->msg_iovlen;
    return syscall(SYS_recvmsg, fd, message, flags);
}

/* What a Unix socket receives goes into one block, as large as the frontend has room; descriptors beside it. */
TEST(a_message_is_received_in_one_block)
{
    int      fds[2];
    recorder rec;
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d", fds[0])));
    most_parts = 0;
    say(fds[1], "hello");
    settle(&r);
    CHECK_INPUT(&rec, "hello");
    CHECK_INT(most_parts, 1);
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}

/* The same number, watched for something else: what the kernel's set has from before does not count. */
TEST(an_entry_that_was_for_something_else)
{
    int copy, fd;
    rig r;
    rig_open(&r);
    open_eyes(&r);
    fd = eyes[30].fds[0];
    copy = fcntl(fd, F_DUPFD_CLOEXEC, 200);
    close(fd);
    chr_watch_stop(&eyes[30].watch);
    REQUIRE(dup2(copy, fd) == fd);
    close(copy);
    CHECK_INT(chr_watch_start(r.ctx, &eyes[30].watch, fd, CHR_OUT, eye_ready, &eyes[30]), 0);
    chr_loop_step(r.ctx, 0);
    chr_loop_step(r.ctx, 0);
    CHECK(eyes[30].count > 0 && eyes[30].events == CHR_OUT);
    close_eyes();
    rig_close(&r);
}

/* The wait of a blocking read fails: the call ends with that error, long before its time is over. */
TEST(a_read_of_all_whose_wait_fails)
{
    int      fds[2];
    char     text[4];
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    memset(&rec, 0, sizeof rec);
    REQUIRE(chr_fe_init(&rec.fe, make(&r, optionsf("fd,id=f,in=%d", fds[0])), NULL) == 0);
    chr_loop_step(r.ctx, 0);
    fault_arm(FAULT_poll, ENOMEM, 1, 1);
    CHECK_INT(chr_fe_read_all(&rec.fe, text, 4, 1000), CHR_ERR_NO_MEMORY);
    fault_disarm();
    chr_fe_deinit(&rec.fe);
    close(fds[1]);
    chr_context_free(r.ctx);
}

/* What standard output is has nothing to do with the file of a recording. */
TEST(a_recording_while_standard_output_is_a_socket)
{
    int      fds[2], out = dup(1), code;
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    REQUIRE(dup2(fds[0], 1) == 1);
    code = chr_record_start(r.ctx, scratch("tape"), NULL);
    dup2(out, 1);
    CHECK_INT(code, 0);
    make(&r, "null,id=n");
    CHECK_INT(chr_record_stop(r.ctx), 0);
    close(out), close(fds[0]), close(fds[1]);
    chr_context_free(r.ctx);
    scratch_clean();
}

/* The settings of a terminal can't be read: the command says so, and the next one works. */
TEST(a_terminal_whose_settings_are_not_known)
{
    int      master, slave, in = dup(0), out = dup(1);
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(openpty(&master, &slave, NULL, NULL, NULL) == 0);
    REQUIRE(dup2(slave, 0) == 0 && dup2(slave, 1) == 1);
    attach(&rec, make(&r, "stdio,id=s"));
    CHECK_INT(chr_fe_set_echo(&rec.fe, 1), 0);
    fault_arm(FAULT_tcgetattr, EIO, 1, 1);
    CHECK_INT(chr_fe_set_echo(&rec.fe, 0), CHR_ERR_IO);
    fault_disarm();
    CHECK_INT(chr_fe_set_echo(&rec.fe, 0), 0);
    detach(&rec);
    chr_context_free(r.ctx);
    dup2(in, 0), dup2(out, 1);
    close(in), close(out), close(master), close(slave);
}
