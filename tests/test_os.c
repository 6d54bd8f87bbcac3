/*
 * What the system's calls answer, as a user sees it: the code and the words of each error, what is given back behind one, and what a
 * message on the wire or an errno from before must not change.
 */
#include "chardev.h"
#include "fault.h"
#include "rig.h"

#include <pthread.h>
#include <pty.h>
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

static const char *address_of(const chr_dev *dev)
{
    static chr_info info;
    chr_query(dev, &info);
    return info.address;
}

/* ---- errors: code and words ------------------------------------------------------------------------------------------------- */

TEST(each_error_of_the_system_has_its_code)
{
    static const struct {
        int error, code;
    } table[] = {
        { EAGAIN, CHR_ERR_WOULD_BLOCK },     { EINPROGRESS, CHR_ERR_WOULD_BLOCK },    { EPIPE, CHR_ERR_DISCONNECTED },
        { ECONNRESET, CHR_ERR_DISCONNECTED }, { ENOTCONN, CHR_ERR_DISCONNECTED },     { ESHUTDOWN, CHR_ERR_DISCONNECTED },
        { ENOMEM, CHR_ERR_NO_MEMORY },       { ENOBUFS, CHR_ERR_NO_MEMORY },          { ENOENT, CHR_ERR_NOT_FOUND },
        { ENXIO, CHR_ERR_NOT_FOUND },        { ENODEV, CHR_ERR_NOT_FOUND },           { EEXIST, CHR_ERR_EXISTS },
        { EADDRINUSE, CHR_ERR_EXISTS },      { EACCES, CHR_ERR_PERMISSION },          { EPERM, CHR_ERR_PERMISSION },
        { ETIMEDOUT, CHR_ERR_TIMEOUT },      { EINVAL, CHR_ERR_INVALID },             { EBADF, CHR_ERR_INVALID },
        { EMSGSIZE, CHR_ERR_INVALID },       { ENOTTY, CHR_ERR_NOT_SUPPORTED },       { EOPNOTSUPP, CHR_ERR_NOT_SUPPORTED },
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

/* ---- a context without its pipe --------------------------------------------------------------------------------------------- */

/* Whichever call fails while the pipe of the waker is made: there is no context then, and no descriptor. */
TEST(a_context_without_a_pipe)
{
    static const fault_call calls[] = { FAULT_pipe, FAULT_fcntl };
    long                    at, fired;
    size_t                  i;
    int                     fds = count_fds();
    chr_context            *ctx;
    for (i = 0; i < 2; i++) {
        for (at = 1, fired = 1; fired; at++) {
            fault_arm(calls[i], EMFILE, at, 0);
            ctx = chr_context_new(NULL);
            fired = fault_plan.fired;
            fault_disarm();
            if (!CHECK(!ctx == !!fired)) NOTE("%s number %ld", fault_names[calls[i]], at);
            if (ctx) chr_context_free(ctx);
            if (!CHECK_INT(count_fds(), fds)) NOTE("%s number %ld", fault_names[calls[i]], at);
            REQUIRE(at < 20);
        }
        CHECK(at > 2);
    }
}

/* The same where its ends would be standard descriptors, and must be moved. */
TEST(a_context_without_a_pipe_while_the_standard_ones_are_closed)
{
    int  saved[3], i, made[20], left[20];
    long at, fired[20];
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
    for (i = 0; i < 3; i++) dup2(saved[i], i), close(saved[i]);
    for (at = 1; at < 20; at++)
        if (!CHECK_INT(made[at], !fired[at]) || !CHECK_INT(left[at], 0)) NOTE("call %ld", at);
    CHECK(fired[1] && fired[2] && fired[8] && !fired[19]);
}

/* ---- what fails while a chardev is made -------------------------------------------------------------------------------------- */

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
    { "tcp_server_flags", "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", FAULT_fcntl, ENOMEM, 1, CHR_ERR_NO_MEMORY,
      "cannot set flags of a socket", NULL },
    { "tcp_server_cloexec", "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", FAULT_fcntl, ENOMEM, 2, CHR_ERR_NO_MEMORY,
      "cannot set flags of a socket", NULL },
    { "tcp_server_nonblock", "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", FAULT_fcntl, ENOMEM, 3, CHR_ERR_NO_MEMORY,
      "cannot set flags of a socket", NULL },
    { "tcp_server_bind", "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", FAULT_bind, EACCES, 1, CHR_ERR_PERMISSION,
      "cannot listen on 127.0.0.1:0", NULL },
    { "tcp_server_listen", "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", FAULT_listen, EADDRINUSE, 1, CHR_ERR_EXISTS,
      "cannot listen on 127.0.0.1:0", NULL },
    { "tcp_server_lookup", "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", FAULT_getaddrinfo, ENOMEM, 1,
      CHR_ERR_NO_MEMORY, "cannot look up 127.0.0.1:0", "" },
    { "tcp_server_lookup_later", "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", FAULT_getaddrinfo, EAGAIN, 1,
      CHR_ERR_NOT_FOUND, "cannot look up 127.0.0.1:0", "" },
    { "unix_server_socket", "socket,id=s,path=%s,server=on,wait=off", FAULT_socket, EMFILE, 1, CHR_ERR_IO, "cannot make a socket",
      NULL },
    { "unix_server_bind", "socket,id=s,path=%s,server=on,wait=off", FAULT_bind, EACCES, 1, CHR_ERR_PERMISSION, "cannot listen on",
      NULL },
    { "unix_server_listen", "socket,id=s,path=%s,server=on,wait=off", FAULT_listen, ENOBUFS, 1, CHR_ERR_NO_MEMORY,
      "cannot listen on", NULL },
    { "unix_server_mode", "socket,id=s,path=%s,server=on,wait=off,mode=0600", FAULT_chmod, EPERM, 1, CHR_ERR_PERMISSION,
      "cannot listen on", NULL },
    { "unix_server_group", "socket,id=s,path=%s,server=on,wait=off,group=0", FAULT_lchown, EPERM, 1, CHR_ERR_PERMISSION,
      "cannot listen on", NULL },
    { "unix_client_connect", "socket,id=s,path=%s", FAULT_connect, EACCES, 1, CHR_ERR_PERMISSION, "cannot connect to", NULL },
    { "unix_client_socket", "socket,id=s,path=%s", FAULT_socket, ENOBUFS, 1, CHR_ERR_NO_MEMORY, "cannot make a socket", NULL },
    { "udp_socket", "udp,id=u,host=127.0.0.1,port=9", FAULT_socket, EMFILE, 1, CHR_ERR_IO, "127.0.0.1:9", NULL },
    { "udp_flags", "udp,id=u,host=127.0.0.1,port=9", FAULT_fcntl, ENOMEM, 1, CHR_ERR_NO_MEMORY, "127.0.0.1:9", NULL },
    { "udp_connect", "udp,id=u,host=127.0.0.1,port=9", FAULT_connect, ENETUNREACH, 1, CHR_ERR_IO, "127.0.0.1:9", NULL },
    { "udp_bind", "udp,id=u,host=127.0.0.1,port=9,localport=0,localaddr=127.0.0.1", FAULT_bind, EADDRINUSE, 1, CHR_ERR_EXISTS,
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

/* ---- clocks ------------------------------------------------------------------------------------------------------------------ */

static chr_trace last_trace;

static void keep_trace(void *opaque, const chr_trace *event)
{
    (void)opaque;
    last_trace = *event;
}

static int64_t clock_now(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Without hooks: nanoseconds of the monotonic clock, and since 1970. */
TEST(the_clocks_of_the_system)
{
    int64_t      before, after;
    chr_config   config;
    chr_context *ctx;
    memset(&config, 0, sizeof config);
    config.trace = keep_trace;
    ctx = chr_context_new(&config);
    REQUIRE(ctx != NULL);
    before = clock_now(CLOCK_MONOTONIC);
    after = chr_loop_now(ctx);
    CHECK(before <= after);
    CHECK(after <= clock_now(CLOCK_MONOTONIC));
    before = clock_now(CLOCK_REALTIME);
    REQUIRE(chr_new(ctx, "null,id=n", NULL) != NULL);
    CHECK(last_trace.name != NULL);
    CHECK(before <= last_trace.wall_time);
    CHECK(last_trace.wall_time <= clock_now(CLOCK_REALTIME));
    chr_context_free(ctx);
}

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

/* ---- names that are looked up in the background ------------------------------------------------------------------------------- */

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

/* ---- messages with descriptors ------------------------------------------------------------------------------------------------ */

static ssize_t send_fds(int fd, const char *text, const int *fds, int count)
{
    struct msghdr message;
    struct iovec  part;
    union {
        size_t align;
        char   bytes[CMSG_SPACE(sizeof(int) * 40)];
    } control;
    struct cmsghdr *header;
    memset(&message, 0, sizeof message);
    memset(&control, 0, sizeof control);
    part.iov_base = (void *)(uintptr_t)text;
    part.iov_len = strlen(text);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
    header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
    memcpy(CMSG_DATA(header), fds, sizeof(int) * (size_t)count);
    return sendmsg(fd, &message, 0);
}

/* A socket whose owner wants to know who sends (SO_PASSCRED): those numbers are no descriptors. */
TEST(credentials_beside_descriptors)
{
    int      ends[2], on = 1, passed[2], got[16], count, i;
    recorder rec;
    rig      r;
    rig_open(&r);
    socket_pair(ends);
    REQUIRE(pipe(passed) == 0);
    fcntl(passed[1], F_SETFL, O_NONBLOCK);
    REQUIRE(setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0);
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d", ends[0])));
    settle(&r);
    say(ends[1], "none");
    settle(&r);
    CHECK_INPUT(&rec, "none");
    CHECK_INT(chr_fe_get_msgfds(&rec.fe, got, 16), 0);
    CHECK_INT(send_fds(ends[1], "two", passed, 2), 3);
    close(passed[0]), close(passed[1]);
    settle(&r);
    CHECK_INPUT(&rec, "nonetwo");
    count = chr_fe_get_msgfds(&rec.fe, got, 16);
    CHECK_INT(count, 2);
    for (i = 0; i < count; i++) {
        CHECK(got[i] > 2 && flag_set(got[i], F_GETFD, FD_CLOEXEC) && !flag_set(got[i], F_GETFL, O_NONBLOCK));
        CHECK(!flag_set(got[i], F_GETFL, O_WRONLY) == !i);
    }
    CHECK(count == 2 && write(got[1], "through", 7) == 7);
    CHECK_STR(hear(got[0]), "through");
    for (i = 0; i < count; i++) close(got[i]);
    detach(&rec);
    close(ends[1]);
    rig_close(&r);
}

/* ---- an errno from before ------------------------------------------------------------------------------------------------------ */

/* A call that gives 0 has not been interrupted, whatever errno is from an earlier one. */
TEST(an_errno_from_before_changes_nothing)
{
    int       ends[2], fds[2], slave, master, on = 1;
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open(&r);
    socket_pair(ends); /* recvmsg() */
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d", ends[0])));
    settle(&r);
    close(ends[1]);
    errno = EINTR;
    settle(&r);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", &err), 0);
    socket_pair(ends); /* recv() */
    attach(&rec, make(&r, optionsf("fd,id=f,in=%d", ends[0])));
    settle(&r);
    close(ends[1]);
    errno = EINTR;
    settle(&r);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "f", &err), 0);
    REQUIRE(pipe(fds) == 0); /* read() */
    attach(&rec, make(&r, optionsf("fd,id=f,in=%d", fds[0])));
    settle(&r);
    close(fds[1]);
    errno = EINTR;
    settle(&r);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "f", &err), 0);
    REQUIRE(openpty(&master, &slave, NULL, NULL, NULL) == 0); /* tcsetattr() */
    errno = EINTR;
    attach(&rec, make(&r, optionsf("serial,id=l,path=/proc/self/fd/%d", slave)));
    errno = EINTR;
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on), 0);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "l", &err), 0);
    close(master), close(slave);
    chr_context_free(r.ctx);
    CHECK_INT(r.live, 0);
}
