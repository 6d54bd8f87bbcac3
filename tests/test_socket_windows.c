/*
 * Sockets on Windows, where they differ from other systems: the ways in which a SOCKET is passed to a process, what the
 * system lacks, and differences of Winsock.
 */
#include "chardev.h"

#include "rig.h"

#ifndef _WIN32
TEST(windows_only)
{
    SKIP("this is no Windows");
}
#else

static const char *optionsf(const char *format, ...)
{
    static char text[2][500];
    static int  turn;
    va_list     args;
    turn = !turn;
    va_start(args, format);
    vsnprintf(text[turn], sizeof text[turn], format, args);
    va_end(args);
    return text[turn];
}

/* Each fault has its own message, the same as elsewhere; the descriptor stays the giver's, open. */
TEST(fd_checks_each_with_its_own_error)
{
    int       port, listener = tcp_listen(&port), fresh = socket(AF_INET, SOCK_STREAM, 0), datagrams = socket(AF_INET, SOCK_DGRAM, 0);
    int       event = (int)(intptr_t)CreateEventA(NULL, TRUE, FALSE, NULL);
    const struct { int fd; const char *more, *word; } table[] = {
        { 0x7ffffff0, "", "is not an open descriptor" },
        { 0x7ffffff0, ",server=on,wait=off", "is not an open descriptor" },
        { event, "", "is not a socket" },
        { event, ",server=on,wait=off", "is not a socket" },
        { datagrams, "", "is not a stream socket" },
        { fresh, "", "is not connected, as server=off says" },
        { fresh, ",server=on,wait=off", "is not listening, as server=on says" },
        { listener, "", "is listening: that needs server=on" },
        { listener, ",server=on,wait=off,keep-alive-idle=1", "need keep-alive=on" },
    };
    chr_error err;
    DWORD     flags;
    size_t    i;
    rig       r;
    rig_open(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        refuse(&r, optionsf("socket,id=s,fd=%d%s", table[i].fd, table[i].more), &err);
        if (!CHECK_INT(err.code, CHR_ERR_INVALID) || !CHECK_HAS(err.text, table[i].word)) NOTE("for %d%s", table[i].fd, table[i].more);
        if (table[i].fd != 0x7ffffff0) CHECK(GetHandleInformation((HANDLE)(intptr_t)table[i].fd, &flags));
    }
    close(listener), close(fresh), close(datagrams), close(event);
    r.fds -= 3; /* events are not counted */
    rig_close(&r);
}

/* One that can be inherited no longer is from success on; after an error it is as it was, and blocks. */
TEST(fd_is_inherited_or_not)
{
    int       fds[2];
    DWORD     flags = 0;
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open(&r);
    socket_pair(fds);
    REQUIRE(SetHandleInformation((HANDLE)(intptr_t)fds[0], HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT));
    CHECK_INT(refuse(&r, optionsf("socket,id=s,fd=%d,tls-creds=none", fds[0]), &err) < 0, 1);
    REQUIRE(GetHandleInformation((HANDLE)(intptr_t)fds[0], &flags));
    CHECK_INT(flags & HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT);
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d", fds[0])));
    REQUIRE(GetHandleInformation((HANDLE)(intptr_t)fds[0], &flags));
    CHECK_INT(flags & HANDLE_FLAG_INHERIT, 0);
    PUMP(&r, rec.open);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    CHECK_STR(hear(fds[1]), "(eof)");
    close(fds[1]);
    rig_close(&r);
}

/* What the library makes, a peer that it accepts too, is never inherited by programs that are started. */
TEST(nothing_of_ours_is_inherited)
{
    int      fd, far, count = 0;
    DWORD    flags;
    chr_info info;
    recorder rec;
    rig      r;
    rig_open(&r);
    attach(&rec, make(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off"));
    make(&r, "udp,id=u,host=127.0.0.1,port=9");
    chr_query(rec.fe.dev, &info);
    far = tcp_connect(atoi(strrchr(info.address, ':') + 1));
    PUMP(&r, rec.open);
    for (fd = 4; fd < 4096; fd += 4)
        if (fd != far && posix_is_socket(fd) && GetHandleInformation((HANDLE)(intptr_t)fd, &flags)) {
            count++;
            CHECK_INT(flags & HANDLE_FLAG_INHERIT, 0);
        }
    CHECK(count >= 3); /* the listener, the peer, the datagrams */
    close(far);
    detach(&rec);
    rig_close(&r);
}

/* The second way: another process describes its SOCKET (WSADuplicateSocket), and this one opens the description. */
TEST(fd_from_a_description)
{
    int               fds[2], twin;
    WSAPROTOCOL_INFOW info;
    recorder          rec;
    rig               r;
    rig_open(&r);
    socket_pair(fds);
    REQUIRE(WSADuplicateSocketW((SOCKET)fds[0], GetCurrentProcessId(), &info) == 0);
    twin = (int)WSASocketW(FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, &info, 0, WSA_FLAG_OVERLAPPED);
    REQUIRE(twin > 0);
    close(fds[0]);
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d", twin)));
    PUMP(&r, rec.open);
    say(fds[1], "ping");
    PUMP(&r, rec.length == 4);
    CHECK_INT(chr_fe_write(&rec.fe, "pong", 4), 4);
    settle(&r);
    CHECK_STR(hear(fds[1]), "pong");
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    CHECK_STR(hear(fds[1]), "(eof)");
    close(fds[1]);
    rig_close(&r);
}

/* The third way: it has a name in the context, which a monitor's peer uses. A number is rejected there. */
TEST(fd_by_name)
{
    int       fds[2];
    chr_error err;
    chr_dev  *dev;
    recorder  rec;
    rig       r;
    rig_open(&r);
    socket_pair(fds);
    CHECK_INT(chr_fd_put(r.ctx, "con", 0x7ffffff0, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "is not open");
    REQUIRE(chr_fd_put(r.ctx, "con", fds[0], &err) == 0);
    CHECK(!chr_new_from(r.ctx, CHR_REMOTE, optionsf("socket,id=s,fd=%d", fds[0]), &err));
    CHECK_HAS(err.text, optionsf("%d", fds[0]));
    dev = chr_new_from(r.ctx, CHR_REMOTE, "socket,id=s,fd=con", &err);
    REQUIRE(dev != NULL);
    CHECK_INT(chr_fd_close(r.ctx, "con", &err), CHR_ERR_NOT_FOUND); /* it is the chardev's */
    attach(&rec, dev);
    PUMP(&r, rec.open);
    say(fds[1], "named");
    PUMP(&r, rec.length == 5);
    CHECK_INPUT(&rec, "named");
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}

/* One line each, that names what there is not. */
TEST(what_this_system_has_not)
{
    static const struct { const char *options; int code; const char *word; } table[] = {
        { "cid=2,port=5", CHR_ERR_NOT_SUPPORTED, "vsock: not on this system" },
        { "path=x,abstract=on", CHR_ERR_NOT_SUPPORTED, "abstract socket 'x'" },
        { "path=x,server=on,wait=off,mode=0600", CHR_ERR_NOT_SUPPORTED, "mode=" },
        { "path=x,server=on,wait=off,group=1", CHR_ERR_NOT_SUPPORTED, "group=" },
    };
    chr_error err;
    size_t    i;
    int       fd = 0;
    recorder  rec;
    chr_dev  *dev;
    rig       r;
    rig_open(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        refuse(&r, optionsf("socket,id=s,%s", table[i].options), &err);
        if (!CHECK_INT(err.code, table[i].code) || !CHECK_HAS(err.text, table[i].word)) NOTE("for %s", table[i].options);
    }
    dev = chr_new(r.ctx, optionsf("socket,id=s,path=%s,server=on,wait=off", "chardev-test-socket"), &err);
    if (!dev) { /* Windows has had unix sockets since 2018, Wine has none */
        CHECK_INT(err.code, CHR_ERR_NOT_SUPPORTED);
        CHECK_HAS(err.text, "this system has no unix sockets");
        dev = make(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off");
    }
    attach(&rec, dev);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, &fd, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK(chr_fe_get_msgfds(&rec.fe, &fd, 1) <= 0);
    detach(&rec);
    rig_close(&r);
}

/* A server's port is exclusive: SO_REUSEADDR can't take it over. After a restart it is available at once. */
TEST(a_port_is_its_servers_alone)
{
    struct sockaddr_in address;
    int                port, thief = socket(AF_INET, SOCK_STREAM, 0), far, on = 1, turn;
    chr_info           info;
    chr_error          err;
    recorder           rec;
    rig                r;
    rig_open(&r);
    attach(&rec, make(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off"));
    chr_query(rec.fe.dev, &info);
    port = atoi(strrchr(info.address, ':') + 1);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(thief, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    CHECK(bind(thief, (struct sockaddr *)&address, sizeof address) < 0 || listen(thief, 1) < 0);
    close(thief);
    r.fds--;
    refuse(&r, optionsf("socket,id=t,host=127.0.0.1,port=%d,server=on,wait=off", port), &err);
    CHECK_INT(err.code, CHR_ERR_EXISTS);
    for (turn = 0; turn < 5; turn++) {
        far = tcp_connect(port);
        PUMP(&r, rec.open);
        detach(&rec);
        CHECK_INT(chr_remove(r.ctx, "s", NULL), 0); /* it closes first: its end of the connection waits (TIME_WAIT) */
        close(far);
        attach(&rec, make(&r, optionsf("socket,id=s,host=127.0.0.1,port=%d,server=on,wait=off", port)));
    }
    detach(&rec);
    rig_close(&r);
}

/* A name is looked up in the background; the chardev may go meanwhile. */
static void names_in_the_background(rig *r)
{
    int      port, listener = tcp_listen(&port), i;
    recorder rec;
    attach(&rec, make(r, optionsf("socket,id=s,host=localhost,ipv4=on,port=%d,reconnect-ms=50", port)));
    PUMP(r, rec.open);
    detach(&rec);
    CHECK_INT(chr_remove(r->ctx, "s", NULL), 0);
    attach(&rec, make(r, "socket,id=n,host=no.such.host.invalid,port=1,reconnect-ms=50"));
    PUMP(r, r->logs > 0);
    CHECK_HAS(r->log, "cannot look up no.such.host.invalid:1: ");
    detach(&rec);
    CHECK_INT(chr_remove(r->ctx, "n", NULL), 0);
    for (i = 0; i < 20; i++) {
        make(r, optionsf("socket,id=s,host=localhost,port=%d,reconnect-ms=50", port));
        CHECK_INT(chr_remove(r->ctx, "s", NULL), 0);
    }
    Sleep(300); /* the last threads */
    close(listener);
}

TEST(names_in_the_background)
{
    rig first, second;
    NEED_LOCALHOST();
    rig_open(&first);
    names_in_the_background(&first);
    chr_context_free(first.ctx);
    rig_open(&second); /* the system's thread pool keeps what its first use has opened */
    names_in_the_background(&second);
    rig_close(&second);
}

/* A peer that resets: what it has sent before is lost with it on this system or not, and CLOSED comes in any case. */
TEST(reset_by_peer)
{
    struct linger none = { 1, 0 };
    chr_info      info;
    recorder      rec;
    rig           r;
    int           far, turn;
    rig_open(&r);
    attach(&rec, make(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off"));
    for (turn = 0; turn < 10; turn++) {
        chr_query(rec.fe.dev, &info);
        far = tcp_connect(atoi(strrchr(info.address, ':') + 1));
        PUMP(&r, rec.open);
        if (turn & 1) rec.room = 0; /* noticed without room, too */
        setsockopt(far, SOL_SOCKET, SO_LINGER, &none, sizeof none);
        close(far);
        PUMP(&r, !rec.open);
        rec.room = UNLIMITED;
    }
    detach(&rec);
    rig_close(&r);
}
#endif
