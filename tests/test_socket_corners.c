/*
 * Corner cases of a socket's life: failures before and after a connection, ownership of descriptors, and what is
 * reported.
 */
#include "chardev.h"
#include "fault.h"
#include "rig.h"

#include <netinet/tcp.h>
#include <sys/wait.h>

static char *optionsf(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *optionsf(const char *format, ...)
{
    static char text[4][600];
    static int  turn;
    va_list     args;
    turn = (turn + 1) % 4;
    va_start(args, format);
    vsnprintf(text[turn], sizeof text[turn], format, args);
    va_end(args);
    return text[turn];
}

static const chr_info *info_of(const chr_dev *dev)
{
    static chr_info info;
    chr_query(dev, &info);
    return &info;
}

static void serve(rig *r, recorder *rec, const char *more)
{
    rig_open_virtual(r);
    attach(rec, make(r, optionsf("socket,id=s,path=%s,server=on,wait=off%s", scratch("s"), more)));
    settle(r);
}

static void finish(rig *r, recorder *rec)
{
    detach(rec);
    rig_close(r);
    scratch_clean();
}

static int meet(rig *r)
{
    int fd = unix_connect(scratch("s"));
    REQUIRE(fd >= 0);
    settle(r);
    return fd;
}

/* ---- servers ----------------------------------------------------------------------------------------------------- */

/* Without a free descriptor the listener rests for 200 ms; then the peer, which has waited in the backlog, comes in. */
TEST(accept_without_descriptors_rests)
{
    recorder rec;
    int      fd;
    rig      r;
    NEED_POSIX("there are no faults of system calls on this system");
    serve(&r, &rec, "");
    fault_arm(FAULT_accept, EMFILE, 1, 1);
    fd = meet(&r);
    CHECK_INT(fault_plan.counts[FAULT_accept], 1);
    CHECK_INT(r.logs, 1);
    CHECK_HAS(r.log, "chardev s: cannot accept a peer: ");
    CHECK_INT(chr_loop_timeout(r.ctx), 200);
    pass_time(&r, 199);
    CHECK_INT(fault_plan.counts[FAULT_accept], 1);
    pass_time(&r, 1);
    CHECK_INT(fault_plan.counts[FAULT_accept], 2);
    CHECK_INT(r.logs, 1); /* told once */
    CHECK_STR(rec.events, "");
    fault_disarm();
    settle(&r);
    CHECK_STR(rec.events, "");
    pass_time(&r, 200);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    close(fd);
    settle(&r);
    fault_arm(FAULT_accept, ENFILE, 1, 0);
    fd = meet(&r);
    CHECK_INT(r.logs, 2); /* and once again after a success */
    pass_time(&r, 200);
    CHECK_STR(rec.events, "OCO");
    close(fd);
    finish(&r, &rec);
}

/* A peer that disconnects before it is accepted is ignored. */
TEST(accept_that_finds_nobody)
{
    recorder rec;
    int      fd;
    rig      r;
    NEED_POSIX("there are no faults of system calls on this system");
    serve(&r, &rec, "");
    fault_arm(FAULT_accept, EAGAIN, 1, 0);
    fd = meet(&r);
    CHECK_INT(r.logs, 0);
    CHECK_STR(rec.events, "O");
    close(fd);
    finish(&r, &rec);
}

/* A server that waits can't go on without descriptors: that is the error of its creation. */
TEST(waiting_ends_with_the_error_of_accept)
{
    chr_error err;
    int       fd, listener;
    rig       r;
    NEED_POSIX("there are no faults of system calls on this system");
    rig_open(&r);
    listener = unix_listen(scratch("s"));
    fd = unix_connect(scratch("s"));
    fault_arm(FAULT_accept, EMFILE, 1, 0);
    CHECK(chr_new(r.ctx, optionsf("socket,id=s,fd=%d,server=on,wait=on", listener), &err) == NULL);
    CHECK_HAS(err.text, "cannot accept a peer: ");
    CHECK(fcntl(listener, F_GETFD) >= 0); /* it is still the caller's */
    fault_disarm();
    CHECK(make(&r, optionsf("socket,id=s,fd=%d,server=on,wait=on", listener)) != NULL);
    close(fd);
    rig_close(&r);
    scratch_clean();
}

/* After an error of poll() all descriptors are tried. */
TEST(waiting_goes_on_behind_an_error_of_poll)
{
    int n, listener, fd;
    rig r;
    NEED_POSIX("there are no faults of system calls on this system");
    for (n = 1; n < 3; n++) {
        rig_open(&r);
        listener = unix_listen(scratch("s"));
        fd = unix_connect(scratch("s"));
        fault_arm(FAULT_poll, ENOMEM, n, 0);
        make(&r, optionsf("socket,id=s,fd=%d,server=on,wait=on", listener));
        CHECK_INT(info_of(chr_find(r.ctx, "s"))->be_open, 1);
        fault_disarm();
        close(fd);
        rig_close(&r);
        scratch_clean();
    }
}

/* Descriptor 0 is one like others. A listener that was blocking is so again afterwards, for those that share it. */
TEST(a_listener_of_the_callers)
{
    recorder rec;
    int      blocking, shared, fd;
    rig      r;
    NEED_UNIX();
    for (blocking = 0; blocking < 2; blocking++) {
        fd = unix_listen(scratch("s"));
        if (!blocking) fcntl(fd, F_SETFL, O_NONBLOCK);
        shared = dup(fd);
        if (fd != 0) {
            dup2(fd, 0);
            close(fd);
        }
        rig_open(&r);
        attach(&rec, make(&r, "socket,id=s,fd=0,server=on,wait=off"));
        CHECK_STR(info_of(rec.fe.dev)->filename, optionsf("disconnected:unix:%s,server=on", scratch("s")));
        CHECK_STR(info_of(rec.fe.dev)->address, scratch("s"));
        CHECK(flag_set(shared, F_GETFL, O_NONBLOCK));
        fd = meet(&r);
        CHECK_STR(info_of(rec.fe.dev)->filename, optionsf("unix:%s,server=on", scratch("s")));
        close(fd);
        detach(&rec);
        r.fds--;
        rig_close(&r);
        CHECK_INT(flag_set(shared, F_GETFL, O_NONBLOCK), !blocking);
        CHECK(exists(scratch("s"))); /* it was not made here */
        close(shared);
        scratch_clean();
    }
}

TEST(a_listener_that_can_not_be_taken_stays_the_callers)
{
    chr_error err;
    int       listener, n, fds;
    rig       r;
    NEED_POSIX("there are no faults of system calls on this system");
    rig_open(&r);
    listener = unix_listen(scratch("s"));
    fds = count_fds();
    fault_arm(FAULT_fcntl, EIO, 1, 1);
    CHECK(chr_new(r.ctx, optionsf("socket,id=s,fd=%d,server=on,wait=off", listener), &err) == NULL);
    fault_disarm();
    CHECK_INT(err.code, CHR_ERR_INVALID);
    CHECK_INT(count_fds(), fds);
    for (n = 1; n < 50; n++) {
        chr_dev *dev;
        fault_arm(FAULT_fcntl, EIO, n, 0);
        dev = chr_new(r.ctx, optionsf("socket,id=s,fd=%d,server=on,wait=off", listener), &err);
        if (!fault_plan.fired) break;
        fault_disarm();
        if (!dev) CHECK_HAS(err.text, optionsf("fd=%d: ", listener));
        CHECK(fcntl(listener, F_GETFD) >= 0);
        if (dev) CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
        if (dev) listener = unix_listen((scratch_clean(), scratch("s")));
    }
    CHECK(n > 1);
    fault_disarm();
    rig_close(&r);
    scratch_clean();
}

/* ---- clients ----------------------------------------------------------------------------------------------------- */

/* A full backlog is tried each 20 ms, for two minutes. */
TEST(a_full_backlog_is_waited_for_two_minutes)
{
    int      listener = unix_listen(scratch("s")), fds[20], count = 0, i;
    long     before;
    recorder rec;
    rig      r;
    NEED_UNIX();
    listen(listener, 0);
    for (; count < 20; count++) {
        struct sockaddr_un address;
        fds[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        memset(&address, 0, sizeof address);
        address.sun_family = AF_UNIX;
        strcpy(address.sun_path, scratch("s"));
        if (connect(fds[count], (struct sockaddr *)&address, sizeof address) < 0) break;
    }
    REQUIRE(count < 20);
    rig_open_virtual(&r);
    fault_plan.counts[FAULT_connect] = 0;
    attach(&rec, make(&r, optionsf("socket,id=c,path=%s,reconnect-ms=1000", scratch("s"))));
    settle(&r);
    CHECK_INT(fault_plan.counts[FAULT_connect], 1);
    pass_time(&r, 19);
    CHECK_INT(fault_plan.counts[FAULT_connect], 1);
    pass_time(&r, 1);
    CHECK_INT(fault_plan.counts[FAULT_connect], 2);
    for (i = 0; i < 5; i++) pass_time(&r, 20);
    CHECK_INT(fault_plan.counts[FAULT_connect], 7);
    CHECK_INT(r.logs, 0);
    fault_plan.haste = 1000; /* real time is that of years later */
    pass_time(&r, 20);
    fault_plan.haste = 0;
    CHECK_INT(fault_plan.counts[FAULT_connect], 8);
    CHECK_INT(r.logs, 1);
    CHECK_HAS(r.log, optionsf("cannot connect to %s: ", scratch("s")));
    before = fault_plan.counts[FAULT_connect];
    pass_time(&r, 999);
    CHECK_INT(fault_plan.counts[FAULT_connect], before);
    pass_time(&r, 1);
    CHECK_INT(fault_plan.counts[FAULT_connect], before + 1); /* the next attempt has two minutes, too */
    pass_time(&r, 20);
    CHECK_INT(fault_plan.counts[FAULT_connect], before + 2);
    CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
    settle(&r);
    pass_time(&r, 20);
    CHECK_INT(fault_plan.counts[FAULT_connect], before + 2);
    pass_time(&r, 980);
    CHECK_INT(fault_plan.counts[FAULT_connect], before + 3);
    for (i = 0; i <= count; i++) close(fds[i]);
    close(listener);
    r.fds -= count + 2;
    finish(&r, &rec);
}

/* Of TCP it is an error like others. */
TEST(a_connect_that_fails_is_tried_again_after_the_time)
{
    static const int errors[] = { EAGAIN, ECONNREFUSED, ENETUNREACH, ETIMEDOUT };
    int              port, listener = tcp_listen(&port);
    size_t           i;
    NEED_POSIX("there are no faults of system calls on this system");
    for (i = 0; i < sizeof errors / sizeof *errors; i++) {
        recorder rec;
        rig      r;
        rig_open_virtual(&r);
        fault_arm(FAULT_connect, errors[i], 1, 0);
        attach(&rec, make(&r, optionsf("socket,id=c,host=127.0.0.1,port=%d,reconnect-ms=100", port)));
        settle(&r);
        CHECK_INT(r.logs, 1);
        pass_time(&r, 99);
        CHECK_INT(fault_plan.counts[FAULT_connect], 1);
        pass_time(&r, 1);
        CHECK_INT(fault_plan.counts[FAULT_connect], 2);
        PUMP(&r, rec.open);
        close(accept(listener, NULL, NULL));
        PUMP(&r, !rec.open);
        detach(&rec);
        rig_close(&r);
    }
    close(listener);
}

/* When any watch fails for lack of memory: the attempt fails, which is reported, and the next one succeeds. */
TEST(a_connection_without_memory_is_one_that_failed)
{
    int n, others, port, listener = tcp_listen(&port), failures = 0;
    fcntl(listener, F_SETFL, O_NONBLOCK); /* no connection stays in its backlog */
    for (others = 0; others < 19; others += others < 11 ? 11 : 1) /* the table of watches grows at some of them */
        for (n = 1; n < 300; n++) {
            chr_error err;
            recorder  rec;
            chr_dev  *dev;
            chr_watch watches[20];
            int       pipes[2], i;
            rig       r;
            rig_open_virtual(&r);
            REQUIRE(pipe(pipes) == 0);
            memset(watches, 0, sizeof watches);
            for (i = 0; i < others; i++) REQUIRE(chr_watch_start(r.ctx, &watches[i], pipes[0], 0, NULL, NULL) == 0);
            r.fail_at = r.calls + n;
            dev = chr_new(r.ctx, optionsf("socket,id=c,host=127.0.0.1,port=%d,reconnect-ms=100", port), &err);
            if (!dev) CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
            if (dev) attach(&rec, dev);
            if (dev) PUMP(&r, rec.open || r.logs);
            r.fail_at = 0;
            if (dev && r.logs) {
                failures++;
                CHECK_HAS(r.log, "memory");
                pass_time(&r, 100);
                PUMP(&r, rec.open);
            }
            while ((i = accept(listener, NULL, NULL)) >= 0) close(i);
            if (dev) detach(&rec);
            if (!r.failed) n = 1000;
            for (i = 0; i < others; i++) chr_watch_stop(&watches[i]);
            close(pipes[0]), close(pipes[1]);
            rig_close(&r);
        }
    CHECK(failures > 1);
    close(listener);
}

/* In a handler a client connects in the background; an immediate failure is returned by the call, and not logged
 * too. */
static chr_context *inside_context;
static chr_error   inside_error;
static chr_dev    *inside_dev;
static const char *inside_options;

static void make_inside(recorder *rec, int what)
{
    (void)rec;
    if (what == 'r') inside_dev = chr_new(inside_context, inside_options, &inside_error);
}

TEST(a_client_made_inside_a_handler)
{
    recorder rec, client;
    int      fds[2], port, listener = tcp_listen(&port);
    rig      r;
    NEED_UNIX();
    rig_open(&r);
    socket_pair(fds);
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d", fds[0])));
    rec.then = make_inside;
    inside_context = r.ctx;
    inside_options = optionsf("socket,id=c,path=%s", scratch("nobody"));
    say(fds[1], "x");
    settle(&r);
    CHECK(inside_dev == NULL);
    CHECK_HAS(inside_error.text, scratch("nobody"));
    CHECK_STR(r.log, "");
    inside_options = optionsf("socket,id=c,path=%s,server=on", scratch("s"));
    say(fds[1], "x");
    settle(&r);
    CHECK(inside_dev == NULL);
    CHECK_INT(inside_error.code, CHR_ERR_IN_HANDLER);
    CHECK(!exists(scratch("s")));
    inside_options = optionsf("socket,id=c,host=127.0.0.1,port=%d", port);
    say(fds[1], "x");
    settle(&r);
    REQUIRE(inside_dev != NULL);
    attach(&client, inside_dev);
    PUMP(&r, client.open);
    close(accept(listener, NULL, NULL));
    PUMP(&r, !client.open);
    CHECK_STR(client.events, "OC");
    detach(&client);
    CHECK_INT(chr_remove(r.ctx, "c", NULL), 0);
    CHECK_STR(r.log, "");
    close(listener);
    inside_options = optionsf("socket,id=c,host=127.0.0.1,port=%d", port); /* this one fails later, and is told */
    say(fds[1], "x");
    settle(&r);
    if (inside_dev) PUMP(&r, r.logs == 1);
    CHECK_HAS(inside_dev ? r.log : inside_error.text, optionsf("127.0.0.1:%d", port));
    close(fds[1]);
    r.fds--;
    finish(&r, &rec);
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

/* A client without reconnect= makes one attempt for each call that waits. */
TEST(waiting_for_a_client_is_an_attempt)
{
    chr_error err;
    recorder  rec;
    int       listener = unix_listen(scratch("s")), fd;
    rig       r;
    NEED_UNIX();
    rig_open(&r);
    attach(&rec, make(&r, optionsf("socket,id=c,path=%s", scratch("s"))));
    fd = accept(listener, NULL, NULL);
    CHECK_INT(chr_wait_connected(rec.fe.dev, &err), 0);
    close(fd);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    CHECK_INT(chr_wait_connected(rec.fe.dev, &err), 0);
    settle(&r);
    CHECK_STR(rec.events, "OCO");
    fd = accept(listener, NULL, NULL);
    CHECK(fd >= 0);
    close(fd);
    close(listener);
    settle(&r);
    fault_plan.counts[FAULT_connect] = 0;
    CHECK(chr_wait_connected(rec.fe.dev, &err) < 0);
    CHECK_INT(fault_plan.counts[FAULT_connect], 1);
    CHECK_HAS(err.text, optionsf("cannot connect to %s: ", scratch("s")));
    CHECK(chr_wait_connected(rec.fe.dev, NULL) < 0);
    unlink(scratch("s"));
    listener = unix_listen(scratch("s"));
    CHECK_INT(chr_wait_connected(rec.fe.dev, &err), 0);
    settle(&r);
    CHECK_STR(rec.events, "OCOCO");
    close(listener);
    r.fds--;
    finish(&r, &rec);
}

TEST(waiting_for_a_descriptor_that_has_ended)
{
    chr_error err;
    recorder  rec;
    int       fds[2];
    rig       r;
    rig_open(&r);
    socket_pair(fds);
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d", fds[0])));
    close(fds[1]);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    CHECK_INT(chr_wait_connected(rec.fe.dev, &err), CHR_ERR_DISCONNECTED);
    CHECK_STR(err.text, optionsf("socket: fd=%d: its peer has gone", fds[0]));
    CHECK_STR(info_of(rec.fe.dev)->filename, optionsf("disconnected:fd:%d", fds[0]));
    finish(&r, &rec);
}

/* Who waits with reconnect= sleeps between the attempts: it takes as long, and does not spin. */
TEST(waiting_sleeps_between_attempts)
{
    chr_error err;
    chr_dev  *dev;
    pid_t     child;
    int       status;
    int64_t   start;
    rig       r;
    NEED_UNIX();
    rig_open(&r);
    dev = make(&r, optionsf("socket,id=c,path=%s,reconnect-ms=30", scratch("s")));
    child = fork();
    if (child == 0) {
        usleep(200000);
        accept(unix_listen(scratch("s")), NULL, NULL);
        _exit(0);
    }
    fault_plan.counts[FAULT_connect] = 0;
    start = real_ms();
    CHECK_INT(chr_wait_connected(dev, &err), 0);
    CHECK(fault_plan.counts[FAULT_connect] >= 2); /* one at once */
    CHECK(fault_plan.counts[FAULT_connect] <= 3 + (real_ms() - start) / 30);
    waitpid(child, &status, 0);
    rig_close(&r);
    scratch_clean();
}

/* Memory that runs out while it waits ends the waiting. */
TEST(waiting_without_memory_ends)
{
    chr_error err;
    int       n, listener, fd;
    for (n = 1; n < 60; n++) {
        rig      r;
        chr_dev *dev;
        int      code;
        rig_open_virtual(&r);
        listener = unix_listen(scratch("s"));
        dev = make(&r, optionsf("socket,id=s,path=%s,server=on,wait=off,websocket=on", scratch("t")));
        fd = unix_connect(scratch("t"));
        say(fd, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n");
        r.fail_at = r.calls + n;
        code = chr_wait_connected(dev, &err);
        if (code < 0) CHECK_INT(code, CHR_ERR_NO_MEMORY);
        if (code < 0) CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
        if (code == 0) CHECK_INT(info_of(dev)->be_open, 1);
        if (!r.failed) n = 1000;
        close(fd);
        close(listener);
        rig_close(&r);
        scratch_clean();
    }
    CHECK(n >= 1000);
}

/* ---- passed clients ---------------------------------------------------------------------------------------------- */

/* What was taken for a passed connection is sent before it is closed, also when it could not go at once. */
TEST(a_passed_client_gets_all_that_was_taken)
{
    static char block[4000];
    chr_error   err;
    recorder    rec;
    int         fds[2], i, taken = 0;
    rig         r;
    NEED_LITTLE_ROOM();
    serve(&r, &rec, ",obuf=1M");
    for (i = 0; i < 2; i++) {
        socket_pair(fds);
        CHECK_INT(chr_add_client(r.ctx, "s", fds[1], &err), 0);
        settle(&r);
        for (taken = 0; i && taken < 600000;) taken += chr_fe_write(&rec.fe, block, sizeof block);
        CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
        settle(&r);
        CHECK_INT(drain(&r, fds[0], (size_t)taken), taken);
        settle(&r);
        CHECK_STR(hear(fds[0]), "(eof)");
        close(fds[0]);
    }
    CHECK_STR(rec.events, "OCOC");
    finish(&r, &rec);
}

/* Others may share it: where nothing is pending it is closed at once, and not shut down for them. */
TEST(a_shared_connection_stays_for_the_others)
{
    chr_error err;
    recorder  rec;
    int       fds[2], shared;
    rig       r;
    serve(&r, &rec, "");
    socket_pair(fds);
    shared = dup(fds[1]);
    CHECK_INT(chr_add_client(r.ctx, "s", fds[1], &err), 0);
    settle(&r);
    CHECK_INT(chr_fe_write(&rec.fe, "one ", 4), 4);
    CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
    settle(&r);
    say(shared, "two");
    CHECK_STR(hear(fds[0]), "one two");
    close(shared);
    close(fds[0]);
    finish(&r, &rec);
}

TEST(a_client_that_can_not_be_added_stays_the_callers)
{
    chr_error err;
    recorder  rec;
    int       fds[2], n, port, tcp, listener;
    rig       r;
    NEED_POSIX("there are no faults of system calls on this system");
    serve(&r, &rec, "");
    listener = tcp_listen(&port);
    tcp = tcp_connect(port);
    for (n = 1; n < 20; n++) {
        int code, before = count_fds();
        socket_pair(fds);
        fault_arm(FAULT_fcntl, EIO, n, 0);
        code = chr_add_client(r.ctx, "s", fds[1], &err);
        if (!fault_plan.fired) break;
        fault_disarm();
        settle(&r);
        if (code < 0) CHECK_HAS(err.text, optionsf("fd=%d: ", fds[1]));
        CHECK_INT(fcntl(fds[1], F_GETFD) >= 0, 1);
        if (code < 0) close(fds[1]);
        close(fds[0]);
        settle(&r);
        CHECK_INT(count_fds(), before);
    }
    fault_disarm();
    close(fds[0]);
    settle(&r);
    CHECK(n > 1);
    CHECK_INT(chr_add_client(r.ctx, "s", listener, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "is listening");
    CHECK_INT(chr_add_client(r.ctx, "s", tcp, &err), 0); /* of another family */
    settle(&r);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, fds, 0), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(info_of(rec.fe.dev)->filename, optionsf("unix:%s,server=on", scratch("s")));
    CHECK_STR(info_of(rec.fe.dev)->peer, optionsf("127.0.0.1:%d", port));
    CHECK_INT(chr_add_client(r.ctx, "s", listener, &err), CHR_ERR_BUSY);
    CHECK_STR(err.text, "chardev 's' has a client already");
    close(listener);
    finish(&r, &rec);
}

/* ---- descriptors that travel ------------------------------------------------------------------------------------- */

static void send_fd(int socket_fd, int passed, const char *text)
{
    union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int))]; } control;
    struct iovec    part;
    struct msghdr   message;
    struct cmsghdr *header;
    memset(&message, 0, sizeof message);
    memset(&control, 0, sizeof control);
    part.iov_base = (void *)(uintptr_t)text;
    part.iov_len = strlen(text);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &passed, sizeof passed);
    CHECK_INT(sendmsg(socket_fd, &message, 0), (int)strlen(text));
}

static int connected(rig *r, recorder *rec)
{
    int fds[2];
    rig_open(r);
    socket_pair(fds);
    attach(rec, make(r, optionsf("socket,id=s,fd=%d", fds[0])));
    settle(r);
    return fds[1];
}

/* Messages of the kernel's that hold no descriptors leave those that came before. */
TEST(credentials_are_no_descriptors)
{
    recorder rec;
    int      fds[2], on = 1, got[16];
    rig      r;
    NEED_FD_PASSING();
    rig_open(&r);
    socket_pair(fds);
    CHECK_INT(setsockopt(fds[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d", fds[0])));
    settle(&r);
    send_fd(fds[1], 0, "with");
    settle(&r);
    say(fds[1], " and without");
    settle(&r);
    CHECK_INPUT(&rec, "with and without");
    CHECK_INT(chr_fe_get_msgfds(&rec.fe, got, 16), 1);
    close(got[0]);
    close(fds[1]);
    finish(&r, &rec);
}

TEST(descriptors_without_memory_are_closed)
{
    recorder rec;
    int      far, got[2], before;
    rig      r;
    NEED_FD_PASSING();
    far = connected(&r, &rec);
    before = count_fds();
    r.fail_at = r.calls + 1;
    r.for_good = 1;
    send_fd(far, 0, "lost");
    fault_plan.counts[FAULT_close] = 0;
    settle(&r);
    CHECK_INT(fault_plan.counts[FAULT_close], 1);
    r.fail_at = 0;
    CHECK_INT(count_fds(), before);
    CHECK_INT(chr_fe_get_msgfds(&rec.fe, got, 2), 0);
    send_fd(far, 0, "there");
    settle(&r);
    CHECK_INT(chr_fe_get_msgfds(&rec.fe, got, 2), 1);
    close(got[0]);
    CHECK_INT(count_fds(), before);
    r.fail_at = r.calls + 1;
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, &far, 1), CHR_ERR_NO_MEMORY);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    close(far);
    finish(&r, &rec);
}

TEST(descriptors_to_send_have_limits)
{
    recorder rec;
    int      far, many[17], i, n, before;
    rig      r;
    NEED_FD_PASSING();
    far = connected(&r, &rec);
    before = count_fds();
    for (i = 0; i < 17; i++) many[i] = far;
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, many, 17), CHR_ERR_INVALID);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, many, -1), CHR_ERR_INVALID);
    CHECK_INT(count_fds(), before);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, many, 16), 0);
    CHECK_INT(count_fds(), before + 16);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, many, 1), 0); /* instead of those */
    CHECK_INT(count_fds(), before + 1);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, many, 0), 0); /* none */
    CHECK_INT(count_fds(), before);
    for (n = 1; n <= 3; n++) { /* there are no more: none of them is sent */
        fault_arm(FAULT_fcntl, EMFILE, n, 1);
        CHECK(chr_fe_set_msgfds(&rec.fe, many, 3) < 0);
        CHECK(fault_plan.fired > 0);
        fault_disarm();
        CHECK_INT(count_fds(), before);
    }
    many[1] = 950;
    CHECK(chr_fe_set_msgfds(&rec.fe, many, 2) < 0);
    CHECK_INT(count_fds(), before);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    CHECK_STR(hear(far), "x");
    close(far);
    settle(&r);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, many, 1), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_get_msgfds(&rec.fe, many, 1), 0);
    finish(&r, &rec);
}

TEST(descriptors_beyond_those_wanted_are_closed)
{
    recorder rec;
    int      far, got[16], before, count;
    rig      r;
    NEED_FD_PASSING();
    far = connected(&r, &rec);
    before = count_fds();
    for (count = -1; count < 3; count++) {
        send_fd(far, 0, "x");
        settle(&r);
        CHECK_INT(count_fds(), before + 1);
        CHECK_INT(chr_fe_get_msgfds(&rec.fe, got, count), count < 1 ? 0 : 1);
        if (count > 0) close(got[0]);
        CHECK_INT(count_fds(), before);
    }
    close(far);
    finish(&r, &rec);
}

/* ---- what is asked for by an address ----------------------------------------------------------------------------- */

/* Each allocation fails in turn: nothing else is said of an address that is in order. */
TEST(uris_without_memory)
{
    static const char *const uris[] = { "tcp:127.0.0.1:0,server=on,wait=off", "tcp::0,server=on,wait=off,ipv4=on", "telnet:127.0.0.1:0,server=on,wait=off,nodelay=on",
                                        "websocket:127.0.0.1:0,server=on,wait=off", "tn3270:127.0.0.1:0,server=on,wait=off", "unix:%s,server=on,wait=off" };
    size_t i;
    int    n, made;
    NEED_UNIX();
    for (i = 0; i < sizeof uris / sizeof *uris; i++) {
        for (n = 1, made = 0; !made && n < 100; n++) {
            chr_error err;
            char      uri[200];
            rig       r;
            rig_open(&r);
            snprintf(uri, sizeof uri, i == 5 ? "unix:%s,server=on,wait=off" : "%s", i == 5 ? scratch("s") : uris[i]);
            r.fail_at = r.calls + n;
            err.code = 0;
            made = chr_new_uri(r.ctx, "u", uri, &err) != NULL;
            if (!made && !CHECK_INT(err.code, CHR_ERR_NO_MEMORY)) NOTE("%s at %d: %s", uri, n, err.text);
            rig_close(&r);
        }
        CHECK(made && n > 3);
    }
    scratch_clean();
}

/* ---- several clients --------------------------------------------------------------------------------------------- */

TEST(disconnect_ends_all_clients)
{
    recorder rec;
    int      fds[3], i, silent;
    rig      r;
    serve(&r, &rec, ",clients=3");
    CHECK_INT(chr_fe_disconnect(&rec.fe), 0); /* nobody is there */
    settle(&r);
    CHECK_STR(rec.events, "");
    for (i = 0; i < 3; i++) fds[i] = meet(&r);
    CHECK_INT(info_of(rec.fe.dev)->clients, 3);
    CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    for (i = 0; i < 3; i++) {
        CHECK_STR(hear(fds[i]), "(eof)");
        close(fds[i]);
    }
    for (i = 0; i < 2; i++) fds[i] = meet(&r); /* and there is room again */
    CHECK_STR(rec.events, "OCO");
    CHECK_INT(info_of(rec.fe.dev)->clients, 2);
    for (i = 0; i < 2; i++) close(fds[i]);
    settle(&r);
    CHECK_STR(rec.events, "OCOC");
    finish(&r, &rec);
    serve(&r, &rec, ",clients=2,websocket=on"); /* one in its handshake */
    silent = meet(&r);
    CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
    settle(&r);
    CHECK_STR(hear(silent), "(eof)");
    close(silent);
    finish(&r, &rec);
}

TEST(a_handshake_is_ended_by_disconnect)
{
    recorder rec;
    int      silent, fd;
    rig      r;
    serve(&r, &rec, ",websocket=on");
    silent = meet(&r);
    CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
    settle(&r);
    CHECK_STR(hear(silent), "(eof)");
    close(silent);
    fd = meet(&r);
    say(fd, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n");
    settle(&r);
    CHECK_STR(rec.events, "O");
    close(fd);
    finish(&r, &rec);
}

/* ---- what a call interrupts ------------------------------------------------------------------------------------------------------- */

/* Between two attempts there is nothing to disconnect: the next one comes at its time. */
TEST(disconnect_between_attempts_changes_nothing)
{
    recorder rec;
    rig      r;
    NEED_UNIX();
    rig_open_virtual(&r);
    attach(&rec, make(&r, optionsf("socket,id=c,path=%s,reconnect-ms=100", scratch("s"))));
    settle(&r);
    pass_time(&r, 60);
    CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
    settle(&r);
    fault_plan.counts[FAULT_connect] = 0;
    pass_time(&r, 39);
    CHECK_INT(fault_plan.counts[FAULT_connect], 0);
    pass_time(&r, 1);
    CHECK_INT(fault_plan.counts[FAULT_connect], 1);
    finish(&r, &rec);
}

/* Who waits makes the attempt that was due later: then it is due no more. */
TEST(an_attempt_by_waiting_is_in_place_of_the_next)
{
    chr_error err;
    recorder  rec;
    int       listener, fd;
    rig       r;
    NEED_UNIX();
    rig_open_virtual(&r);
    attach(&rec, make(&r, optionsf("socket,id=c,path=%s,reconnect-ms=100000", scratch("s"))));
    settle(&r);
    listener = unix_listen(scratch("s"));
    fault_plan.counts[FAULT_connect] = 0;
    CHECK_INT(chr_wait_connected(rec.fe.dev, &err), 0);
    CHECK_INT(fault_plan.counts[FAULT_connect], 1);
    settle(&r);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    pass_time(&r, 100000);
    CHECK_INT(fault_plan.counts[FAULT_connect], 1);
    CHECK_STR(rec.events, "O");
    fd = accept(listener, NULL, NULL);
    close(fd);
    settle(&r);
    CHECK_INT(chr_loop_timeout(r.ctx), 100000);
    close(listener);
    finish(&r, &rec);
}

/* An attempt without reconnect= that disconnect ends is over. */
TEST(disconnect_ends_an_attempt_for_good)
{
    int      listener = unix_listen(scratch("s")), fds[20], count = 0, pair[2], i;
    recorder rec, client;
    rig      r;
    NEED_UNIX();
    listen(listener, 0);
    for (; count < 20; count++) {
        struct sockaddr_un address;
        fds[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        memset(&address, 0, sizeof address);
        address.sun_family = AF_UNIX;
        strcpy(address.sun_path, scratch("s"));
        if (connect(fds[count], (struct sockaddr *)&address, sizeof address) < 0) break;
    }
    rig_open_virtual(&r);
    socket_pair(pair);
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d", pair[0])));
    rec.then = make_inside;
    inside_context = r.ctx;
    inside_options = optionsf("socket,id=c,path=%s", scratch("s"));
    say(pair[1], "x");
    settle(&r);
    REQUIRE(inside_dev != NULL);
    attach(&client, inside_dev);
    fault_plan.counts[FAULT_connect] = 0;
    pass_time(&r, 20);
    CHECK_INT(fault_plan.counts[FAULT_connect], 1);
    CHECK_INT(chr_fe_disconnect(&client.fe), 0);
    for (i = 0; i < 3; i++) pass_time(&r, 20);
    CHECK_INT(fault_plan.counts[FAULT_connect], 1);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    CHECK_STR(client.events, "");
    detach(&client);
    for (i = 0; i <= count; i++) close(fds[i]);
    close(listener);
    close(pair[1]);
    r.fds -= count + 2;
    finish(&r, &rec);
}

/* What a client has taken is sent also when it goes, over TCP as elsewhere; and no other descriptor is closed for it. */
TEST(a_client_over_tcp_sends_its_last_words)
{
    static char block[30000];
    int         port, listener = tcp_listen(&port), fd, taken = 0, i;
    recorder    rec;
    rig         r;
    NEED_LITTLE_ROOM();
    for (i = 0; i < 2; i++) {
        rig_open_virtual(&r);
        attach(&rec, make(&r, optionsf("socket,id=c,host=127.0.0.1,port=%d,obuf=8M,reconnect-ms=100000", port)));
        PUMP(&r, rec.open);
        fd = accept(listener, NULL, NULL);
        fault_plan.counts[FAULT_close] = 0;
        for (taken = 0; taken < 7000000;) taken += chr_fe_write(&rec.fe, block, sizeof block);
        if (i) CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
        detach(&rec);
        CHECK_INT(chr_remove(r.ctx, "c", NULL), 0);
        CHECK_INT(fault_plan.counts[FAULT_close], 0); /* it lingers */
        CHECK_INT(drain(&r, fd, (size_t)taken), taken);
        settle(&r);
        CHECK_STR(hear(fd), "(eof)");
        close(fd);
        PUMP(&r, fault_plan.counts[FAULT_close] == 1);
        rig_close(&r);
    }
    close(listener);
}

/* A can_read handler may end the connection that asks it first: it was never open. */
static int   ends_at;
static int   asked, told_open;
static chr_frontend ending;

static int ending_can_read(void *opaque)
{
    (void)opaque;
    if (++asked == ends_at) (void)chr_fe_disconnect(&ending);
    return 100;
}

static void ending_read(void *opaque, const void *buf, size_t len) { (void)opaque, (void)buf, (void)len; }

static void ending_event(void *opaque, int event)
{
    (void)opaque;
    told_open += event == CHR_EVENT_OPENED ? 1 : event == CHR_EVENT_CLOSED ? -1 : 0;
    CHECK(told_open == 0 || told_open == 1);
}

#ifndef CHARDEV_NO_TRACE
static int ups, downs, wire_reads, wire_writes, lookups;

static void on_trace(void *opaque, const chr_trace *event)
{
    (void)opaque;
    ups += event->number == CHR_TRACE_socket_up;
    downs += event->number == CHR_TRACE_socket_down;
    wire_reads += event->number == CHR_TRACE_wire_in;
    wire_writes += event->number == CHR_TRACE_wire_out;
    lookups += event->number == CHR_TRACE_socket_lookup || event->number == CHR_TRACE_socket_lookup_done;
}

TEST(a_connection_that_ends_while_it_begins)
{
    static const chr_handlers handlers = { ending_can_read, ending_read, ending_event, NULL };
    int                       at;
    for (at = 1; at < 6; at++) {
        chr_error err;
        int       fd, next;
        rig       r;
        rig_traced = on_trace;
        ups = downs = asked = told_open = 0;
        ends_at = at;
        rig_open_virtual(&r);
        REQUIRE(chr_fe_init(&ending, make(&r, optionsf("socket,id=s,path=%s,server=on,wait=off", scratch("s"))), &err) == 0);
        chr_fe_set_handlers(&ending, &handlers, NULL);
        fd = meet(&r);
        CHECK(ups <= 1);
        next = meet(&r); /* there is room for the next one */
        settle(&r);
        if (asked >= at) CHECK_INT(downs, 1);
        if (asked >= at) CHECK_STR(hear(fd), "(eof)");
        if (asked >= at) CHECK_INT(told_open, 1);
        close(fd), close(next);
        chr_fe_deinit(&ending);
        rig_close(&r);
        scratch_clean();
    }
}

/* Each byte that comes is traced, a single one too; nothing is traced as a connection that is none for want of memory. */
TEST(single_bytes_are_traced)
{
    chr_error err;
    recorder  rec;
    int       fds[2], n, fd;
    rig       r;
    rig_traced = on_trace;
    serve(&r, &rec, ",telnet=on");
    fd = meet(&r);
    wire_reads = 0;
    say(fd, "x");
    settle(&r);
    CHECK_INT(wire_reads, 1);
    wire_writes = 0;
    CHECK_INT(chr_fe_write(&rec.fe, "y", 1), 1);
    CHECK_INT(wire_writes, 1);
    close(fd);
    settle(&r);
    for (n = 1; n < 100; n++) {
        int code;
        ups = 0;
        socket_pair(fds);
        r.fail_at = r.calls + n;
        code = chr_add_client(r.ctx, "s", fds[1], &err);
        CHECK_INT(ups, code == 0);
        if (r.calls < r.fail_at) n = 1000;
        r.fail_at = 0;
        if (code < 0) CHECK_INT(code, CHR_ERR_NO_MEMORY);
        if (code < 0) close(fds[1]);
        settle(&r);
        close(fds[0]);
        settle(&r);
    }
    CHECK(n >= 1000);
    finish(&r, &rec);
}

/* Only names and ports of hosts are looked up. */
TEST(lookups_are_those_of_hosts)
{
    int      listener, port;
    recorder rec;
    rig      r;
    NEED_UNIX();
    rig_traced = on_trace;
    rig_open(&r);
    listener = unix_listen(scratch("s"));
    attach(&rec, make(&r, optionsf("socket,id=c,path=%s,reconnect-ms=100000", scratch("s"))));
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INT(lookups, 0);
    detach(&rec);
    close(listener);
    listener = tcp_listen(&port);
    make(&r, optionsf("socket,id=t,host=127.0.0.1,port=%d", port));
    CHECK_INT(lookups, 2);
    close(listener);
    rig_close(&r);
    scratch_clean();
}

/* Without a hook nobody asks the system for names. */
TEST(no_names_are_asked_for_without_a_hook)
{
    recorder rec;
    int      fd, port, listener = tcp_listen(&port);
    rig      r;
    NEED_POSIX("there are no faults of system calls on this system");
    if (getenv("TEST_TRACE")) return;
    serve(&r, &rec, "");
    fault_plan.counts[FAULT_getpeername] = fault_plan.counts[FAULT_getsockname] = 0;
    fd = meet(&r);
    CHECK_STR(rec.events, "O");
    close(fd);
    settle(&r);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    attach(&rec, make(&r, optionsf("socket,id=c,host=127.0.0.1,port=%d,reconnect-ms=1000000", port)));
    PUMP(&r, rec.open);
    attach(&rec, (detach(&rec), make(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off")));
    CHECK_INT(fault_plan.counts[FAULT_getpeername], 0);
    CHECK_INT(fault_plan.counts[FAULT_getsockname], 0);
    detach(&rec);
    close(listener);
    r.fds--;
    rig_close(&r);
    scratch_clean();
}
#endif

/* Sixteen handshakes at a time: the listener rests until one of them is over, and wakes nobody meanwhile. */
TEST(passed_clients_in_their_handshakes_count)
{
    enum { MOST = 16 };
    chr_error err;
    recorder  rec;
    int       fds[MOST][2], more[2], i, fd, ran = 0;
    rig       r;
    serve(&r, &rec, ",websocket=on");
    for (i = 0; i < MOST; i++) {
        socket_pair(fds[i]);
        CHECK_INT(chr_add_client(r.ctx, "s", fds[i][1], &err), 0);
    }
    socket_pair(more);
    CHECK_INT(chr_add_client(r.ctx, "s", more[1], &err), CHR_ERR_BUSY);
    close(more[0]), close(more[1]);
    fd = unix_connect(scratch("s"));
    settle(&r);
    for (i = 0; i < 5; i++) ran += chr_loop_step(r.ctx, 0);
    CHECK_INT(ran, 0);
    for (i = 0; i < MOST; i++) close(fds[i][0]);
    settle(&r);
    say(fd, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n");
    settle(&r);
    CHECK_STR(rec.events, "O");
    close(fd);
    finish(&r, &rec);
}

/* ---- signs of life -------------------------------------------------------------------------------------------------------------------- */

/* The time to the next check is an eighth of the shortest time that matters, and a second at most. */
TEST(checks_are_an_eighth_of_the_time)
{
    static const struct { const char *options; int ms; } cases[] = {
        { ",idle-timeout=4", 500 }, { ",idle-timeout=16", 1000 }, { ",idle-timeout=8", 1000 }, { ",websocket=on,idle-timeout=4", 500 },
        { ",websocket=on,keep-alive=on,keep-alive-idle=4", 500 }, { ",websocket=on,keep-alive=on,keep-alive-idle=40", 1000 }, { ",websocket=on,keep-alive=on", 1000 },
        { ",websocket=on,keep-alive=on,keep-alive-idle=6,idle-timeout=4", 500 }, { ",websocket=on,keep-alive=on,keep-alive-idle=4,idle-timeout=6", 500 },
        { ",websocket=on,keep-alive=on,keep-alive-idle=4,idle-timeout=100", 500 }, { ",websocket=on", -1 }, { "", -1 }, { ",keep-alive=off", -1 },
    };
    size_t i;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        int most = -1, turn, timeout;
        for (turn = 0; turn < 5 && most < cases[i].ms - 50; turn++) { /* a busy machine makes it shorter */
            recorder rec;
            int      fd;
            rig      r;
            serve(&r, &rec, cases[i].options);
            fd = meet(&r);
            if (strstr(cases[i].options, "websocket"))
                say(fd, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                        "Sec-WebSocket-Version: 13\r\n\r\n");
            settle(&r);
            CHECK_STR(rec.events, "O");
            timeout = chr_loop_timeout(r.ctx);
            if (!CHECK(timeout <= cases[i].ms)) NOTE("%d ms with %s", timeout, cases[i].options);
            most = timeout > most ? timeout : most;
            close(fd);
            finish(&r, &rec);
        }
        if (!CHECK(most >= cases[i].ms - 50)) NOTE("%d ms with %s", most, cases[i].options);
    }
}

#define UPGRADE "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" \
                "Sec-WebSocket-Version: 13\r\n\r\n"

static int pinged = -1; /* the peer's end; the first question about room behind a ping ends the connection */

static int end_when_pinged(void *opaque)
{
    char bytes[2];
    (void)opaque;
    if (pinged < 0 || recv(pinged, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT) <= 0) return 0;
    pinged = -1;
    (void)chr_fe_disconnect(&ending);
    return 0;
}

/* A ping asks the frontend for room, which may end the connection meanwhile. */
TEST(a_ping_during_which_the_connection_ends)
{
    static const chr_handlers handlers = { end_when_pinged, ending_read, ending_event, NULL };
    chr_error err;
    int       fd, round;
    rig       r;
    fault_plan.haste = 10;
    told_open = 0;
    rig_open_virtual(&r);
    REQUIRE(chr_fe_init(&ending, make(&r, optionsf("socket,id=s,path=%s,server=on,wait=off,websocket=on,keep-alive=on,keep-alive-idle=1", scratch("s"))), &err) == 0);
    chr_fe_set_handlers(&ending, &handlers, NULL);
    for (round = 0; round < 2; round++) {
        fd = meet(&r);
        say(fd, UPGRADE);
        settle(&r);
        CHECK_INT(told_open, 1);
        CHECK_HAS(hear(fd), "HTTP/1.1 101");
        pinged = fd;
        PUMP(&r, told_open == 0);
        CHECK_INT(pinged, -1);
        settle(&r);
        CHECK_MEM(hear(fd), 2, "\x89\0", 2); /* the ping, and the goodbye behind it */
        close(fd);
        settle(&r);
    }
    CHECK_STR(r.log, "");
    chr_fe_deinit(&ending);
    rig_close(&r);
    scratch_clean();
}

/* ---- names and options ------------------------------------------------------------------------------------------------------------------ */

TEST(an_abstract_name_is_shown_as_one)
{
    recorder rec;
    chr_error err;
    char     name[60];
    rig      r;
    NEED_UNIX();
    rig_open(&r);
    snprintf(name, sizeof name, "chardev-corner-%d", (int)getpid());
    attach(&rec, make(&r, optionsf("socket,id=s,path=%s,abstract=on,server=on,wait=off", name)));
    CHECK_STR(info_of(rec.fe.dev)->filename, optionsf("disconnected:unix:%s,abstract=on,server=on", name));
    CHECK_STR(info_of(rec.fe.dev)->address, optionsf("@%s", name));
    CHECK_INT(refuse(&r, optionsf("socket,id=c,path=%s-nobody,abstract=on", name), &err) < 0, 1);
    CHECK_HAS(err.text, optionsf("cannot connect to %s-nobody,abstract=on: ", name));
    detach(&rec);
    rig_close(&r);
}

TEST(keep_alive_of_a_descriptor_needs_tcp)
{
    chr_error err;
    int       fds[2], tcp, port, listener = tcp_listen(&port);
    rig       r;
    NEED_UNIX();
    rig_open(&r);
    socket_pair(fds);
    CHECK_INT(refuse(&r, optionsf("socket,id=s,fd=%d,keep-alive=on", fds[0]), &err), CHR_ERR_INVALID);
    CHECK_STR(err.text, optionsf("socket: fd=%d: is not TCP, as keep-alive=on needs", fds[0]));
    make(&r, optionsf("socket,id=w,fd=%d,keep-alive=on,websocket=on", fds[0])); /* that has pings of its own */
    tcp = tcp_connect(port);
    make(&r, optionsf("socket,id=t,fd=%d,keep-alive=on", tcp));
    socket_pair(fds + 0);
    make(&r, optionsf("socket,id=u,fd=%d,keep-alive=off", fds[0]));
    close(listener);
    r.fds--;
    chr_context_free(r.ctx);
    CHECK_INT(r.live, 0);
}

/* Each family, for a client too: both together are one too many there. */
TEST(families_of_a_client)
{
    chr_error err;
    int       port, listener = tcp_listen(&port);
    rig       r;
    rig_open(&r);
    make(&r, optionsf("socket,id=a,host=127.0.0.1,port=%d,ipv4=on", port));
    make(&r, optionsf("socket,id=b,host=127.0.0.1,port=%d,ipv6=off", port));
    make(&r, optionsf("socket,id=c,host=127.0.0.1,port=%d,ipv4=on,ipv6=off", port));
    CHECK_INT(refuse(&r, optionsf("socket,id=d,host=127.0.0.1,port=%d,ipv4=on,ipv6=on", port), &err), CHR_ERR_INVALID);
    CHECK_STR(err.text, "socket: ipv4= and ipv6= leave no address family");
    make(&r, "socket,id=e,host=127.0.0.1,port=0,ipv4=on,server=on,wait=off");
    close(listener);
    r.fds--;
    rig_close(&r);
}

TEST(a_group_without_memory)
{
    chr_error err;
    int       n, refused = 0;
    NEED_UNIX();
    if (geteuid() != 0) SKIP("only root may give a file to the group root");
    for (n = 1; n < 100; n++) {
        rig      r;
        chr_dev *dev;
        rig_open(&r);
        r.fail_at = r.calls + n;
        dev = chr_new(r.ctx, optionsf("socket,id=s,path=%s,server=on,wait=off,group=root,mode=0600", scratch("s")), &err);
        if (!dev) CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
        refused += !dev;
        if (!r.failed) n = 1000;
        rig_close(&r);
    }
    CHECK(n >= 1000 && refused > 5);
    scratch_clean();
}

/* ---- more of several clients ------------------------------------------------------------------------------------------------------------ */

/* Half-close and ioctls are for all clients; who blocks waits for the slowest. */
TEST(calls_for_several_clients)
{
    static char       block[300000];
    chr_terminal_size size;
    recorder          rec;
    pid_t             child;
    int               fds[2], i, status;
    rig               r;
    NEED_UNIX();
    serve(&r, &rec, ",clients=2,telnet=on,half-close=on");
    CHECK_INT(chr_fe_shutdown(&rec.fe), CHR_ERR_DISCONNECTED);
    for (i = 0; i < 2; i++) fds[i] = meet(&r);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(write(fds[1], "\xff\xfb\x1f\xff\xfa\x1f\0\x50\0\x18\xff\xf0", 12), 12);
    settle(&r);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), 0);
    CHECK_INT(size.columns, 80);
    CHECK_INT(size.rows, 24);
    for (i = 0; i < 2; i++) hear(fds[i]);
    child = fork();
    if (child == 0) {
        char   bytes[10000];
        size_t got[2] = { 0, 0 };
        for (i = 1; i >= 0; i--)
            while (got[i] < sizeof block) {
                ssize_t n = read(fds[i], bytes, sizeof bytes);
                if (n <= 0) _exit(1);
                got[i] += (size_t)n;
            }
        _exit(0);
    }
    CHECK_INT(chr_fe_write_all(&rec.fe, block, sizeof block, 30000), sizeof block);
    for (i = 0; i < 100; i++) chr_loop_step(r.ctx, 1);
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_INT(chr_fe_shutdown(&rec.fe), 0);
    settle(&r);
    for (i = 0; i < 2; i++) {
        CHECK_STR(hear(fds[i]), "(eof)");
        close(fds[i]);
    }
    settle(&r);
    finish(&r, &rec);
}

/* ---- a log hook that does more than to log -------------------------------------------------------------------------------------------- */

static rig *removing;

static void removing_log(void *opaque, const char *line)
{
    rig_log(opaque, line);
    CHECK_INT(chr_remove(removing->ctx, "c", NULL), 0);
}

/* The chardev that has failed may be removed by the hook that is told. */
TEST(removed_by_the_log_hook)
{
    rig        r;
    chr_config config = rig_config(&r);
    int        port, listener = tcp_listen(&port);
    NEED_UNIX();
    rig_init(&r);
    config.clock = rig_clock;
    config.log = removing_log;
    removing = &r;
    r.ctx = chr_context_new(&config);
    make(&r, optionsf("socket,id=c,host=127.0.0.1,port=%d,reconnect-ms=100", port));
    PUMP(&r, chr_loop_timeout(r.ctx) == -1);
    close(accept(listener, NULL, NULL));
    close(listener);
    r.fds--;
    r.now += 1000000000;
    PUMP(&r, r.logs == 1 || chr_loop_step(r.ctx, 1) < 0 || (r.now += 100000000, 0));
    CHECK(chr_find(r.ctx, "c") == NULL);
    settle(&r);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    rig_close(&r);
}

/* So may the one that chr_wait_connected() waits for: that ends then, though there would be further attempts. */
TEST(removed_while_it_is_waited_for)
{
    rig        r;
    chr_config config = rig_config(&r);
    chr_error  err;
    int        port, listener = tcp_listen(&port);
    rig_init(&r);
    config.log = removing_log;
    removing = &r;
    r.ctx = chr_context_new(&config);
    close(listener);
    r.fds--;
    CHECK_INT(chr_wait_connected(make(&r, optionsf("socket,id=c,host=127.0.0.1,port=%d,reconnect-ms=20", port)), &err), CHR_ERR_DISCONNECTED);
    CHECK_STR(err.text, "socket: removed during chr_wait_connected()");
    CHECK(chr_find(r.ctx, "c") == NULL);
    CHECK_INT(r.logs, 1);
    rig_close(&r);
}
