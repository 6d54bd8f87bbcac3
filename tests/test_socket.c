/*
 * socket: options and their errors, open descriptors, one peer at a time, reconnection, descriptors passed over it
 * (SCM_RIGHTS).
 */
#include "chardev.h"
#include "rig.h"

static char *optionsf(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *optionsf(const char *format, ...)
{
    static char text[2][600];
    static int  turn;
    va_list     args;
    turn = !turn;
    va_start(args, format);
    vsnprintf(text[turn], sizeof text[turn], format, args);
    va_end(args);
    return text[turn];
}

/* A unix server chardev with a recorder, at scratch("s"). */
static void serve_with_room(rig *r, recorder *rec, int room)
{
    rig_open(r);
    attach_with_room(rec, make(r, optionsf("socket,id=s,path=%s,server=on,wait=off", scratch("s"))), room);
    settle(r);
}

static void serve(rig *r, recorder *rec)
{
    serve_with_room(r, rec, UNLIMITED);
}

static int peer(rig *r, recorder *rec)
{
    int fd = unix_connect(scratch("s"));
    REQUIRE(fd >= 0);
    PUMP(r, rec->open);
    return fd;
}

static void finish(rig *r, recorder *rec)
{
    detach(rec);
    rig_close(r);
    scratch_clean();
}

static const char *filename_of(const chr_dev *dev)
{
    static chr_info info;
    chr_query(dev, &info);
    return info.filename;
}

static const char *address_of(const chr_dev *dev)
{
    static chr_info info;
    chr_query(dev, &info);
    return info.address;
}

static int port_of(const chr_dev *dev)
{
    const char *colon = strrchr(address_of(dev), ':');
    REQUIRE(colon != NULL);
    return atoi(colon + 1);
}

/* ---- options that don't go together ------------------------------------------------------------------------------ */

TEST(exactly_one_address)
{
    static const char *const table[] = {
        "socket,id=s",
        "socket,id=s,server=on,wait=off",
        "socket,id=s,path=/tmp/x,host=h,port=1",
        "socket,id=s,path=/tmp/x,fd=0",
        "socket,id=s,host=h,port=1,fd=0",
        "socket,id=s,cid=2,port=1,path=/tmp/x",
        "socket,id=s,path=/tmp/x,host=h,port=1,fd=0",
    };
    size_t i;
    rig    r;
    rig_open(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        chr_error err;
        if (!CHECK_INT(refuse(&r, table[i], &err), CHR_ERR_INVALID) || !CHECK_HAS(err.text, "path") || !CHECK_HAS(err.text, "host") ||
            !CHECK_HAS(err.text, "fd"))
            NOTE("for %s", table[i]);
    }
    rig_close(&r);
}

TEST(options_that_do_not_go_together)
{
    static const struct { const char *options, *word; } table[] = {
        { "socket,id=s,path=/nowhere/x,reconnect=1,reconnect-ms=5", "reconnect-ms" },
        { "socket,id=s,path=/tmp/chardev-x,server=on,wait=off,reconnect=1", "reconnect" },
        { "socket,id=s,path=/tmp/chardev-x,server=on,wait=off,reconnect-ms=1", "reconnect" },
        { "socket,id=s,fd=0,reconnect=1", "reconnect" },
        { "socket,id=s,fd=0,reconnect-ms=1", "reconnect" },
        { "socket,id=s,host=localhost", "port" },
        { "socket,id=s,host=localhost,port=1,ipv4=off,ipv6=off", "ipv" },
        { "socket,id=s,host=::1,port=1,ipv6=off", "::1" },
        { "socket,id=s,path=/tmp/x,wait=on", "wait" },
        { "socket,id=s,host=localhost,port=0,server=on,wait=off,tls-creds=t", "built without TLS" },
        { "socket,id=s,host=localhost,port=70000,server=on,wait=off", "70000" },
        { "socket,id=s,host=localhost,port=no-such-service,server=on,wait=off", "no-such-service" },
        { "socket,id=s,host=localhost,port=10,to=5,server=on,wait=off", "to" },
        { "socket,id=s,path=,server=on,wait=off", "path" },
        { "socket,id=s,path=/tmp/x,port=5", "port" },
        { "socket,id=s,host=localhost,port=5,abstract=on", "abstract" },
        { "socket,id=s,cid=2,port=http", "http" },
        { "socket,id=s,path=/tmp/x,reconnect=-1", "reconnect" },
        { "socket,id=s,path=/tmp/x,reconnect=x", "reconnect" },
    };
    size_t i;
    rig    r;
    rig_open(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        chr_error err;
        refuse(&r, table[i].options, &err);
        if (!CHECK_HAS(err.text, table[i].word)) NOTE("for %s", table[i].options);
        CHECK(!exists("/tmp/chardev-x"));
    }
    rig_close(&r);
}

TEST(unix_path_that_is_too_long)
{
    char      path[300];
    chr_error err;
    rig       r;
    rig_open(&r);
    memset(path, 'p', sizeof path);
    path[0] = '/';
    path[200] = 0;
    CHECK_INT(refuse(&r, optionsf("socket,id=s,path=%s,server=on,wait=off", path), &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "path");
    rig_close(&r);
}

TEST(client_that_finds_nobody)
{
    chr_error err;
    int       port, listener = tcp_listen(&port);
    rig       r;
    close(listener);
    rig_open(&r);
    CHECK(refuse(&r, optionsf("socket,id=s,path=%s", scratch("nobody")), &err) < 0);
    CHECK_HAS(err.text, place_of(scratch("nobody")));
    CHECK(refuse(&r, optionsf("socket,id=s,host=127.0.0.1,port=%d", port), &err) < 0);
    CHECK_HAS(err.text, optionsf("%d", port));
    rig_close(&r);
    scratch_clean();
}

/* ---- fd=: which descriptor; server=: what it is ------------------------------------------------------------------ */

TEST(fd_checks_each_with_its_own_error)
{
    chr_error err;
    char      seen[8][1024];
    int       listening, fresh, pair[2], dgram[2], file, port, cases[6], i, k;
    rig       r;
    static const char *const mode[] = { "", "", "", "", ",server=on,wait=off", "" };
    listening = tcp_listen(&port);
    fresh = socket(AF_INET, SOCK_STREAM, 0);
    file = open("/dev/null", O_RDWR);
    socket_pair(pair);
    REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM, 0, dgram) == 0);
    rig_open(&r);
    cases[0] = 950;       /* not open */
    cases[1] = file;      /* not a socket */
    cases[2] = dgram[0];  /* not a stream */
    cases[3] = listening; /* listening, but server=off */
    cases[4] = pair[0];   /* connected, but server=on */
    cases[5] = fresh;     /* neither */
    for (i = 0; i < 6; i++) {
        char number[20];
        int  flags = fcntl(cases[i], F_GETFL);
        snprintf(number, sizeof number, "%d", cases[i]);
        CHECK(refuse(&r, optionsf("socket,id=s,fd=%d%s", cases[i], mode[i]), &err) < 0);
        if (!CHECK_HAS(err.text, number)) NOTE("case %d", i);
        snprintf(seen[i], sizeof seen[i], "%s", strstr(err.text, number) ? strstr(err.text, number) + strlen(number) : err.text);
        CHECK_INT(fcntl(cases[i], F_GETFL), flags); /* untouched, and still the caller's */
        for (k = 0; k < i; k++)
            if (!CHECK(strcmp(seen[i], seen[k]) != 0 || (i == 5 && k == 4))) NOTE("cases %d and %d: %s", i, k, seen[i]);
    }
    CHECK(refuse(&r, "socket,id=s,fd=mine", &err) < 0);
    CHECK_HAS(err.text, "mine");
    CHECK(refuse(&r, optionsf("socket,id=s,fd=%d,server=on,wait=off", fresh), &err) < 0);
    close(listening), close(fresh), close(file), close(pair[0]), close(pair[1]), close(dgram[0]), close(dgram[1]);
    r.fds -= 7;
    rig_close(&r);
}

#ifdef _WIN32
static const char pair_name[] = "tcp:127.0.0.1:";
#else
static const char pair_name[] = "unix:";
#endif

TEST(fd_connected)
{
    int      fds[2];
    recorder rec;
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d", fds[0])));
    CHECK(flag_set(fds[0], F_GETFD, FD_CLOEXEC) && is_nonblocking(fds[0]));
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_HAS(filename_of(rec.fe.dev), pair_name); /* a pair has no names */
    say(fds[1], "ping");
    settle(&r);
    CHECK_INPUT(&rec, "ping");
    CHECK_INT(chr_fe_write(&rec.fe, "pong", 4), 4);
    CHECK_STR(hear(fds[1]), "pong");
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    CHECK_STR(hear(fds[1]), "(eof)");
    close(fds[1]);
    rig_close(&r);
}

/* Where it came from is no matter: a descriptor is shown as what it is, and its far side. */
TEST(fd_shows_its_far_side)
{
    int      listener, port, fd, far;
    chr_info info;
    recorder rec;
    rig      r;
    rig_open(&r);
    listener = tcp_listen(&port);
    fd = tcp_connect(port);
    far = accept(listener, NULL, NULL);
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d", fd)));
    chr_query(rec.fe.dev, &info);
    CHECK_STR(info.peer, optionsf("127.0.0.1:%d", port));
    CHECK_STR(info.address, info.peer);
    CHECK_HAS(info.filename, "tcp:127.0.0.1:");
    CHECK_HAS(info.filename, optionsf(" <-> 127.0.0.1:%d", port));
    close(far);
    PUMP(&r, !rec.open);
    chr_query(rec.fe.dev, &info);
    CHECK_STR(info.peer, "");
    CHECK_STR(info.filename, optionsf("disconnected:fd:%d", fd));
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d,server=on,wait=off", listener)));
    chr_query(rec.fe.dev, &info);
    CHECK_STR(info.filename, optionsf("disconnected:tcp:127.0.0.1:%d,server=on", port));
    far = tcp_connect(port);
    PUMP(&r, rec.open);
    chr_query(rec.fe.dev, &info);
    CHECK_HAS(info.filename, optionsf("tcp:127.0.0.1:%d,server=on <-> 127.0.0.1:", port));
    CHECK_STR(info.address, optionsf("127.0.0.1:%d", port));
    CHECK_HAS(info.filename, info.peer);
    CHECK(strlen(info.peer) > 10);
    close(far);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    listener = unix_listen(scratch("l"));
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d", unix_connect(scratch("l")))));
    chr_query(rec.fe.dev, &info);
    CHECK_HAS(info.filename, place_of(scratch("l")));
    CHECK_STR(info.peer, place_of(scratch("l")));
    close(listener);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(fd_listening)
{
    int      listener, far;
    recorder rec;
    rig      r;
    rig_open(&r);
    listener = unix_listen(scratch("l"));
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d,server=on,wait=off", listener)));
    CHECK_HAS(filename_of(rec.fe.dev), "disconnected:");
    CHECK_HAS(filename_of(rec.fe.dev), optionsf(":%s,server=on", place_of(scratch("l"))));
    CHECK_STR(address_of(rec.fe.dev), place_of(scratch("l")));
    far = unix_connect(scratch("l"));
    PUMP(&r, rec.open);
    CHECK(strncmp(filename_of(rec.fe.dev), "disconnected:", 13) != 0);
    CHECK_INT(chr_fe_write(&rec.fe, "hi", 2), 2);
    CHECK_STR(hear(far), "hi");
    close(far);
    PUMP(&r, !rec.open);
    far = unix_connect(scratch("l"));
    PUMP(&r, rec.open);
    close(far);
    detach(&rec);
    rig_close(&r);
#ifndef _WIN32
    CHECK(exists(scratch("l"))); /* whoever bound it removes it */
#endif
    scratch_clean();
}

/* Descriptor 0 is as good as any, and a failure never closes it. */
TEST(fd_zero)
{
    int       fds[2];
    chr_error err;
    recorder  rec;
    rig       r;
    socket_pair(fds);
    dup2(fds[0], 0);
    close(fds[0]);
    rig_open(&r);
    CHECK(refuse(&r, "socket,id=s,fd=0,server=on,wait=off", &err) < 0);
    CHECK(refuse(&r, "socket,id=s,fd=0,reconnect=1", &err) < 0);
    CHECK(refuse(&r, "socket,id=s,path=/nonexistent/x,server=on,wait=off", &err) < 0);
    CHECK(refuse(&r, "socket,id=s,path=/nonexistent/x", &err) < 0);
    CHECK(fcntl(0, F_GETFD) >= 0);
    attach(&rec, make(&r, "socket,id=s,fd=0"));
    settle(&r);
    CHECK_INT(chr_fe_write(&rec.fe, "zero", 4), 4);
    CHECK_STR(hear(fds[1]), "zero");
    detach(&rec);
    r.fds--;
    rig_close(&r);
}

TEST(fd_with_a_duplicate_id_stays_the_callers)
{
    int       fds[2];
    chr_error err;
    rig       r;
    rig_open(&r);
    socket_pair(fds);
    make(&r, "null,id=s");
    CHECK(chr_new(r.ctx, optionsf("socket,id=s,fd=%d", fds[0]), &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_EXISTS);
    say(fds[0], "mine");
    CHECK_STR(hear(fds[1]), "mine");
    close(fds[0]), close(fds[1]);
    rig_close(&r);
}

TEST(fd_typed)
{
    chr_socket_options options;
    chr_error          err;
    int                fds[2];
    recorder           rec;
    rig                r;
    rig_open(&r);
    socket_pair(fds);
    memset(&options, 0, sizeof options);
    options.address.type = CHR_ADDR_FD;
    options.address.fd = fds[0];
    attach(&rec, chr_open(r.ctx, "s", chr_backend_find(r.ctx, "socket"), &options, &err));
    settle(&r);
    CHECK_STR(rec.events, "O");
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}

/* ---- servers ----------------------------------------------------------------------------------------------------- */

TEST(peers_one_after_the_other)
{
    int      i, fds[3];
    recorder rec;
    rig      r;
    serve(&r, &rec);
    for (i = 0; i < 3; i++) fds[i] = unix_connect(scratch("s"));
    for (i = 0; i < 3; i++) { /* the next ones wait in the backlog */
        char text[2] = { (char)('a' + i), 0 };
        say(fds[i], text);
        PUMP(&r, (int)rec.length == i + 1);
        CHECK_INT(chr_fe_write(&rec.fe, text, 1), 1);
        CHECK_STR(hear(fds[i]), text);
        settle(&r);
        CHECK_INT(rec.length, i + 1);
        close(fds[i]);
        settle(&r);
    }
    PUMP(&r, !rec.open);
    CHECK_INPUT(&rec, "abc");
    CHECK_STR(rec.events, "OCOCOC");
    finish(&r, &rec);
}

TEST(unix_path_is_unlinked_at_the_end)
{
    recorder rec;
    rig      r;
    NEED_UNIX();
    serve(&r, &rec);
    CHECK(exists(scratch("s")));
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    CHECK(!exists(scratch("s")));
    rig_close(&r);
    scratch_clean();
}

TEST(stale_socket_file_is_replaced)
{
    recorder rec;
    int      fd;
    rig      r;
    NEED_UNIX();
    close(unix_listen(scratch("s")));
    CHECK(exists(scratch("s")));
    serve(&r, &rec);
    fd = peer(&r, &rec);
    close(fd);
    finish(&r, &rec);
}

TEST(living_socket_file_and_plain_files_are_not_replaced)
{
    chr_error err;
    int       listener, fd;
    rig       r;
    NEED_UNIX();
    rig_open(&r);
    listener = unix_listen(scratch("s"));
    CHECK(refuse(&r, optionsf("socket,id=s,path=%s,server=on,wait=off", scratch("s")), &err) < 0);
    CHECK_HAS(err.text, scratch("s"));
    fd = unix_connect(scratch("s"));
    CHECK(fd >= 0); /* it still listens, and nobody knocked at it but us */
    close(fd);
    close(listener);
    write_file(scratch("plain"), "precious");
    CHECK(refuse(&r, optionsf("socket,id=s,path=%s,server=on,wait=off", scratch("plain")), &err) < 0);
    CHECK_STR(read_file(scratch("plain")), "precious");
    rig_close(&r);
    scratch_clean();
}

/* A later listener that took over the path keeps it. */
TEST(failed_creation_leaves_no_path)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    make(&r, "null,id=s");
    CHECK(chr_new(r.ctx, optionsf("socket,id=s,path=%s,server=on,wait=off", scratch("s")), &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_EXISTS);
    CHECK(!exists(scratch("s")));
    CHECK(refuse(&r, optionsf("socket,id=t,path=%s,server=on,wait=off,logfile=/nonexistent/l", scratch("s")), &err) < 0);
    CHECK_HAS(err.text, "/nonexistent/l");
    CHECK(!exists(scratch("s")));
    rig_close(&r);
    scratch_clean();
}

static int bound_to(const char *path, int type)
{
    struct sockaddr_un address;
    int                fd = socket(AF_UNIX, type, 0);
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    REQUIRE(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

/* For any type of socket in use, the error has the system's text, and the file stays. */
TEST(unix_address_in_use)
{
    static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
    chr_error        err;
    size_t           i;
    int              fd;
    rig              r;
    NEED_UNIX();
    rig_open(&r);
    for (i = 0; i < sizeof types / sizeof *types; i++) {
        fd = bound_to(scratch("s"), types[i]);
        if (types[i] != SOCK_DGRAM) REQUIRE(listen(fd, 1) == 0);
        CHECK_INT(refuse(&r, optionsf("socket,id=s,path=%s,server=on,wait=off", scratch("s")), &err), CHR_ERR_EXISTS);
        CHECK_HAS(err.text, "Address already in use");
        CHECK(exists(scratch("s")));
        close(fd);
        make(&r, optionsf("socket,id=s,path=%s,server=on,wait=off", scratch("s"))); /* stale now, of whatever kind */
        CHECK_INT(refuse(&r, optionsf("socket,id=t,path=%s,server=on,wait=off", scratch("s")), &err), CHR_ERR_EXISTS);
        CHECK_HAS(err.text, "Address already in use");
        CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
        CHECK(!exists(scratch("s")));
    }
    rig_close(&r);
    scratch_clean();
}

TEST(unix_path_of_another_kind_of_file)
{
    chr_error   err;
    struct stat before, after;
    char        link_path[300];
    int         i;
    rig         r;
    rig_open(&r);
    snprintf(link_path, sizeof link_path, "%s", scratch("link"));
    REQUIRE(mkfifo(scratch("fifo"), 0600) == 0 && mkdir(scratch("directory"), 0700) == 0);
    write_file(scratch("plain"), "precious");
    close(bound_to(scratch("stale"), SOCK_STREAM));
    REQUIRE(symlink(scratch("stale"), link_path) == 0);
    for (i = 0; i < 4; i++) {
        static const char *const names[] = { "fifo", "directory", "plain", "link" };
        char                     path[300];
        snprintf(path, sizeof path, "%s", scratch(names[i]));
        REQUIRE(lstat(path, &before) == 0);
        CHECK_INT(refuse(&r, optionsf("socket,id=s,path=%s,server=on,wait=off", path), &err), CHR_ERR_EXISTS);
        CHECK_HAS(err.text, "not a socket");
        CHECK_HAS(err.text, path);
        CHECK(lstat(path, &after) == 0 && after.st_ino == before.st_ino && after.st_mode == before.st_mode);
    }
    CHECK_STR(read_file(scratch("plain")), "precious");
    rmdir(scratch("directory"));
    rig_close(&r);
    scratch_clean();
}

/* Only the file that was made is removed at the end, wherever the working directory is by then. */
TEST(unix_path_of_another_server_stays)
{
    recorder rec;
    int      other, fd;
    char     cwd[300];
    rig      r;
    NEED_UNIX();
    serve(&r, &rec);
    unlink(scratch("s"));
    other = unix_listen(scratch("s"));
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    fd = unix_connect(scratch("s"));
    CHECK(fd >= 0);
    close(fd), close(other);
    unlink(scratch("s"));

    REQUIRE(getcwd(cwd, sizeof cwd) && chdir(scratch_dir) == 0);
    make(&r, "socket,id=s,path=relative,server=on,wait=off");
    CHECK(exists(scratch("relative")));
    REQUIRE(mkdir("below", 0700) == 0 && chdir("below") == 0);
    other = unix_listen("relative");
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    CHECK(!exists(scratch("relative")));
    CHECK(exists("relative"));
    close(other);
    unlink("relative");
    REQUIRE(chdir(cwd) == 0);
    rmdir(scratch("below"));
    rig_close(&r);
    scratch_clean();
}

/* Group and permissions are set in spite of the umask, before a peer can connect. */
TEST(unix_mode_and_group)
{
    static const struct {
        const char *options;
        unsigned    mode;
    } table[] = { { "", 0755 }, { ",mode=0660", 0660 }, { ",mode=600", 0600 }, { ",mode=0777,group=12345", 0777 }, { ",mode=0", 0 } };
    size_t      i;
    struct stat info;
    mode_t      old = (mode_t)umask(022);
    char        group[20];
    rig         r;
    NEED_UNIX();
    rig_open(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        if (strstr(table[i].options, "group") && getuid() != 0) continue;
        make(&r, optionsf("socket,id=s,path=%s,server=on,wait=off%s", scratch("s"), table[i].options));
        REQUIRE(stat(scratch("s"), &info) == 0);
        CHECK_INT(info.st_mode & 07777, table[i].mode);
        CHECK_INT(info.st_gid, strstr(table[i].options, "group") ? 12345 : getegid());
        CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    }
    snprintf(group, sizeof group, "%d", (int)getegid());
    make(&r, optionsf("socket,id=s,path=%s,server=on,wait=off,mode=0640,group=%s", scratch("s"), getuid() ? group : "root"));
    REQUIRE(stat(scratch("s"), &info) == 0);
    CHECK_INT(info.st_mode & 07777, 0640);
    umask(old);
    rig_close(&r);
    scratch_clean();
}

TEST(unix_mode_and_group_that_are_wrong)
{
    static const struct {
        const char *options, *word;
    } table[] = {
        { "mode=8", "mode=8: " },          { "mode=01000", "mode=01000" },     { "mode=", "mode=" },
        { "mode=rw", "mode=rw" },          { "mode=-1", "mode=-1" },           { "mode=07777777777777777777", "mode=07777" },
        { "mode=0660x", "mode=0660x" },    { "group=no-such-group", "group=no-such-group" },
        { "group=-1", "group=-1" },        { "group=4294967295", "group=4294967295" }, { "group=", "group=" },
    };
    static const char *const elsewhere[] = { "host=,port=0,server=on,wait=off", "path=/tmp/chardev-x",
                                             "path=x,abstract=on,server=on,wait=off" };
    chr_error err;
    size_t    i;
    rig       r;
    rig_open(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        CHECK(refuse(&r, optionsf("socket,id=s,path=%s,server=on,wait=off,%s", scratch("s"), table[i].options), &err) < 0);
        CHECK_HAS(err.text, table[i].word);
        CHECK(!exists(scratch("s")));
    }
    for (i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++) {
        CHECK_INT(refuse(&r, optionsf("socket,id=s,%s,mode=0600", elsewhere[i]), &err), CHR_ERR_INVALID);
        CHECK_HAS(err.text, "mode=");
        CHECK_INT(refuse(&r, optionsf("socket,id=s,%s,group=0", elsewhere[i]), &err), CHR_ERR_INVALID);
        CHECK_HAS(err.text, "group=");
    }
    rig_close(&r);
    scratch_clean();
}

/* A listener with a backlog that is full; those in it. */
static int full_backlog(const char *path, int *waiting, int *count)
{
    int listener = bound_to(path, SOCK_STREAM), fd;
    REQUIRE(listen(listener, 0) == 0);
    for (*count = 0; *count < 10; waiting[(*count)++] = fd) {
        struct sockaddr_un address;
        memset(&address, 0, sizeof address);
        address.sun_family = AF_UNIX;
        snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) continue;
        CHECK_INT(errno, EAGAIN);
        close(fd);
        return listener;
    }
    REQUIRE(0);
    return -1;
}

static void take_one(int listener)
{
    int fd = accept(listener, NULL, NULL);
    CHECK(fd >= 0);
    close(fd);
}

/* In the background: it neither fails nor spins while it waits. */
TEST(unix_client_waits_for_a_full_backlog)
{
    recorder rec;
    int      waiting[10], count, listener, i, steps = 0;
    rig      r;
    NEED_UNIX();
    rig_open_virtual(&r);
    listener = full_backlog(scratch("s"), waiting, &count);
    attach(&rec, make(&r, optionsf("socket,id=c,path=%s,reconnect=30", scratch("s"))));
    for (i = 0; i < 100; i++) {
        r.now += 10000000;
        steps += chr_loop_step(r.ctx, 0);
    }
    CHECK_STR(rec.events, "");
    CHECK(steps >= 10 && steps <= 110);
    CHECK_INT(r.logs, 0);
    for (i = 0; i < count; i++) take_one(listener), close(waiting[i]);
    pass_time(&r, 100);
    CHECK_STR(rec.events, "O");
    take_one(listener);
    PUMP(&r, !rec.open);
    detach(&rec);
    close(listener);
    rig_close(&r);
    scratch_clean();
}

/* Creation blocks until there is room. A server that ends meanwhile is the usual error; removal while it waits
 * leaves nothing. */
TEST(unix_client_is_created_after_a_full_backlog)
{
    chr_error err;
    int       waiting[10], count, listener, i, status;
    rig       r;
    pid_t     child;
    NEED_UNIX();
    rig_open(&r);
    listener = full_backlog(scratch("s"), waiting, &count);
    child = fork();
    if (child == 0) {
        usleep(300000);
        for (i = 0; i < count; i++) accept(listener, NULL, NULL);
        _exit(0);
    }
    make(&r, optionsf("socket,id=c,path=%s", scratch("s")));
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK_INT(chr_remove(r.ctx, "c", NULL), 0);
    for (i = 0; i < count; i++) close(waiting[i]);
    close(listener);
    unlink(scratch("s"));

    listener = full_backlog(scratch("s"), waiting, &count);
    make(&r, optionsf("socket,id=c,path=%s,reconnect=30", scratch("s")));
    settle(&r);
    CHECK_INT(chr_remove(r.ctx, "c", NULL), 0);
    child = fork();
    if (child == 0) {
        usleep(200000);
        _exit(0); /* the last one that holds the listener */
    }
    close(listener);
    CHECK(refuse(&r, optionsf("socket,id=c,path=%s", scratch("s")), &err) < 0);
    CHECK_HAS(err.text, "refused");
    REQUIRE(waitpid(child, &status, 0) == child);
    for (i = 0; i < count; i++) close(waiting[i]);
    rig_close(&r);
    scratch_clean();
}

TEST(abstract_sockets)
{
    static const char *const table[] = { "abstract=on", "abstract=on,tight=off", "abstract=on,tight=on" };
    size_t                   i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        recorder server, client;
        char     name[60];
        rig      r;
        rig_open(&r);
        snprintf(name, sizeof name, "chardev-test-%d-%d", (int)getpid(), (int)i);
        attach(&server, make(&r, optionsf("socket,id=s,path=%s,%s,server=on,wait=off", name, table[i])));
        CHECK(!exists(name));
        attach(&client, make(&r, optionsf("socket,id=c,path=%s,%s", name, table[i])));
        PUMP(&r, server.open && client.open);
        chr_fe_write(&client.fe, "hello", 5);
        PUMP(&r, server.length == 5);
        detach(&server), detach(&client);
        rig_close(&r);
    }
}

/* Tight and padded names are different ones. */
TEST(abstract_names_are_exact)
{
    struct sockaddr_un address;
    recorder           rec;
    char               name[60];
    int                fd = socket(AF_UNIX, SOCK_STREAM, 0);
    rig                r;
    rig_open(&r);
    snprintf(name, sizeof name, "chardev-test-%d", (int)getpid());
    attach(&rec, make(&r, optionsf("socket,id=s,path=%s,abstract=on,server=on,wait=off", name)));
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    strcpy(address.sun_path + 1, name);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) < 0);
    CHECK_INT(connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name))), 0);
    PUMP(&r, rec.open);
    detach(&rec);
    close(fd);
    r.fds--;
    rig_close(&r);
}

TEST(tcp_names)
{
    recorder rec;
    char     here[100];
    int      port, fd;
    rig      r;
    rig_open(&r);
    attach(&rec, make(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off"));
    port = port_of(rec.fe.dev);
    CHECK(port > 0);
    snprintf(here, sizeof here, "tcp:127.0.0.1:%d,server=on", port);
    CHECK_STR(filename_of(rec.fe.dev), optionsf("disconnected:%s", here));
    fd = tcp_connect(port);
    PUMP(&r, rec.open);
    CHECK(strncmp(filename_of(rec.fe.dev), optionsf("%s <-> 127.0.0.1:", here), strlen(here) + 15) == 0);
    close(fd);
    PUMP(&r, !rec.open);
    CHECK_STR(filename_of(rec.fe.dev), optionsf("disconnected:%s", here));
    finish(&r, &rec);
}

static int has_ipv6(void)
{
    struct sockaddr_in6 address;
    int                 fd = socket(AF_INET6, SOCK_STREAM, 0), there;
    memset(&address, 0, sizeof address);
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_loopback;
    there = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return there;
}

TEST(tcp6_names_are_in_brackets)
{
    chr_error err;
    chr_dev  *dev;
    rig       r;
    rig_open(&r);
    if (!has_ipv6()) SKIP("this machine has no IPv6");
    dev = chr_new(r.ctx, "socket,id=s,host=::1,port=0,server=on,wait=off", &err);
    REQUIRE(dev != NULL);
    CHECK_STR(filename_of(dev), optionsf("disconnected:tcp:[::1]:%d,server=on", port_of(dev)));
    rig_close(&r);
}

static int reaches(int family, int port)
{
    struct sockaddr_in6 six;
    struct sockaddr_in  four;
    int                 fd = socket(family, SOCK_STREAM, 0), reached;
    memset(&six, 0, sizeof six);
    six.sin6_family = AF_INET6;
    six.sin6_port = htons((unsigned short)port);
    six.sin6_addr = in6addr_loopback;
    memset(&four, 0, sizeof four);
    four.sin_family = AF_INET;
    four.sin_port = htons((unsigned short)port);
    four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    reached = connect(fd, family == AF_INET ? (struct sockaddr *)&four : (struct sockaddr *)&six,
                      family == AF_INET ? sizeof four : sizeof six) == 0;
    close(fd);
    return reached;
}

/* Another program may have the same port in the other family. It hasn't five times. */
enum { PORT_TRIES = 5 };

static int serves_families(rig *r, const char *options, int four, int six)
{
    int tries, right = 0;
    for (tries = 0; tries < PORT_TRIES && !right; tries++) {
        int port = port_of(make(r, optionsf("socket,id=s,host=,port=0,server=on,wait=off%s", options)));
        right = reaches(AF_INET, port) == four && reaches(AF_INET6, port) == six;
        CHECK_INT(chr_remove(r->ctx, "s", NULL), 0);
    }
    return right;
}

static int serves_both_on_one_port(rig *r)
{
    chr_error err;
    int       tries, right = 0;
    for (tries = 0; tries < PORT_TRIES && !right; tries++) {
        int port = port_of(make(r, "socket,id=six,host=,port=0,server=on,wait=off,ipv6=on"));
        right = chr_new(r->ctx, optionsf("socket,id=four,host=,port=%d,server=on,wait=off,ipv4=on", port), &err) != NULL;
        right = right && reaches(AF_INET, port) && reaches(AF_INET6, port);
        chr_remove(r->ctx, "four", NULL);
        CHECK_INT(chr_remove(r->ctx, "six", NULL), 0);
    }
    return right;
}

/* ipv6=on and ipv4=off are only that family; else all interfaces are those of both. A server of each shares one
 * port. */
TEST(servers_of_one_family)
{
    static const struct {
        const char *options;
        int         four, six;
    } table[] = { { "", 1, 1 },           { ",ipv6=on", 0, 1 }, { ",ipv4=off", 0, 1 }, { ",ipv6=on,ipv4=off", 0, 1 }, { ",ipv4=on", 1, 0 },
                  { ",ipv6=off", 1, 0 }, { ",ipv4=on,ipv6=on", 1, 1 }, { ",ipv4=on,ipv6=off", 1, 0 } };
    size_t i;
    rig    r;
    if (!has_ipv6()) SKIP("this machine has no IPv6");
    rig_open(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++)
        if (!CHECK(serves_families(&r, table[i].options, table[i].four, table[i].six))) NOTE("with %s", table[i].options);
    CHECK(serves_both_on_one_port(&r));
    rig_close(&r);
}

TEST(unix_names)
{
    recorder rec;
    int      fd;
    rig      r;
    NEED_UNIX();
    serve(&r, &rec);
    CHECK_STR(filename_of(rec.fe.dev), optionsf("disconnected:unix:%s,server=on", scratch("s")));
    fd = peer(&r, &rec);
    CHECK_STR(filename_of(rec.fe.dev), optionsf("unix:%s,server=on", scratch("s")));
    close(fd);
    finish(&r, &rec);
}

TEST(client_names)
{
    int      listener = unix_listen(scratch("s"));
    recorder rec;
    rig      r;
    NEED_UNIX();
    rig_open(&r);
    attach(&rec, make(&r, optionsf("socket,id=s,path=%s", scratch("s"))));
    settle(&r);
    CHECK_STR(filename_of(rec.fe.dev), optionsf("unix:%s", scratch("s")));
    close(listener);
    r.fds--;
    finish(&r, &rec);
}

TEST(ports_up_to)
{
    chr_error err;
    chr_dev  *dev;
    int       port, listener = tcp_listen(&port);
    rig       r;
    rig_open(&r);
    CHECK(refuse(&r, optionsf("socket,id=s,host=127.0.0.1,port=%d,server=on,wait=off", port), &err) < 0);
    CHECK_HAS(err.text, optionsf("%d", port));
    CHECK(refuse(&r, optionsf("socket,id=s,host=127.0.0.1,port=%d,to=%d,server=on,wait=off", port, port), &err) < 0);
    dev = make(&r, optionsf("socket,id=s,host=127.0.0.1,port=%d,to=%d,server=on,wait=off", port, port + 20));
    CHECK(port_of(dev) > port && port_of(dev) <= port + 20);
    close(listener);
    r.fds--;
    rig_close(&r);
}

TEST(nodelay)
{
    static const struct { const char *option; int on; } table[] = { { "", 0 }, { ",nodelay=on", 1 }, { ",nodelay", 1 }, { ",nodelay=off", 0 },
                                                                    { ",delay=off", 1 }, { ",delay=on", 0 }, { ",nodelay=on,server=off", 1 } };
    size_t i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        int       port, listener = tcp_listen(&port), fd, on = -1, found = 0;
        socklen_t size = sizeof on;
        rig       r;
        rig_open(&r);
        make(&r, optionsf("socket,id=s,host=127.0.0.1,port=%d%s", port, table[i].option));
        for (fd = 3; fd < 1024; fd++) { /* handles on Windows: every fourth */
            struct sockaddr_in address;
            socklen_t          len = sizeof address;
            if (getpeername(fd, (struct sockaddr *)&address, &len) < 0 || ntohs(address.sin_port) != port) continue;
            found++;
            on = 0, size = sizeof on; /* of which one byte may be used */
            CHECK_INT(getsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, &size), 0);
            if (!CHECK_INT(on, table[i].on)) NOTE("for %s", table[i].option);
        }
        CHECK_INT(found, 1);
        close(listener);
        r.fds--;
        rig_close(&r);
    }
}

/* Blocks until a peer has come: here a child that tries until it gets through. */
static void wait_on(const char *path_or_null)
{
    int       port = 0, listener;
    pid_t     child;
    int64_t   start = real_ms();
    recorder  rec;
    rig       r;
    if (!path_or_null) {
        listener = tcp_listen(&port);
        close(listener);
    }
    rig_open(&r);
    child = fork();
    if (child == 0) {
        int fd;
        usleep(20000);
        while ((fd = path_or_null ? unix_connect(path_or_null) : tcp_connect(port)) < 0) usleep(1000);
        say(fd, "hello");
        _exit(hear(fd)[0] == 0 ? 0 : 1);
    }
    attach(&rec, make(&r, path_or_null ? optionsf("socket,id=s,path=%s,server=on", path_or_null)
                                       : optionsf("socket,id=s,host=127.0.0.1,port=%d,server=on,wait=on", port)));
    CHECK(real_ms() - start >= 15);
    CHECK_HAS(r.log, "chardev s: waits for a peer (wait=on): "); /* why nothing else happens */
    CHECK_HAS(r.log, path_or_null ? path_or_null : "tcp:127.0.0.1:");
    CHECK_STR(rec.events, rec.events[0] ? "O" : ""); /* OPENED comes with the handlers or from the loop */
    PUMP(&r, rec.length == 5);
    CHECK_STR(rec.events[1] == 0 ? "O" : rec.events, rec.events[1] == 0 ? rec.events : "OC");
    waitpid(child, NULL, 0);
    detach(&rec);
    rig_close(&r);
}

TEST(server_waits_on_tcp) { wait_on(NULL); }
TEST(server_waits_on_unix_by_default)
{
    wait_on(scratch("s"));
    scratch_clean();
}

TEST(server_waits_on_a_listening_fd)
{
    int      listener, far;
    recorder rec;
    rig      r;
    rig_open(&r);
    listener = unix_listen(scratch("l"));
    far = unix_connect(scratch("l"));
    say(far, "early");
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d,server=on,wait=on", listener)));
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INPUT(&rec, "early");
    close(far);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(creation_calls_no_handler)
{
    int      fds[2];
    recorder rec;
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    say(fds[1], "x");
    make(&r, optionsf("socket,id=s,fd=%d", fds[0]));
    attach(&rec, chr_find(r.ctx, "s"));
    CHECK_INT(rec.length, 0);
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INPUT(&rec, "x");
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}

/* ---- what happens when a peer goes ------------------------------------------------------------------------------- */

TEST(much_data_just_before_the_close)
{
    static char big[100000];
    int         fd;
    size_t      i;
    recorder    rec;
    rig         r;
    serve_with_room(&r, &rec, 1000);
    fd = peer(&r, &rec);
    for (i = 0; i < sizeof big; i++) big[i] = (char)(i * 31 >> 3);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    CHECK_INT(write(fd, big, sizeof big), sizeof big);
    close(fd);
    while (rec.open && i-- > 0) {
        give_room(&rec, 1000);
        settle(&r);
    }
    CHECK_MEM(rec.input, rec.length, big, sizeof big);
    CHECK_STR(rec.events, "OC");
    finish(&r, &rec);
}

TEST(half_closed_peer)
{
    int      fd;
    recorder rec;
    rig      r;
    serve(&r, &rec);
    fd = peer(&r, &rec);
    say(fd, "request");
    shutdown(fd, SHUT_WR);
    PUMP(&r, !rec.open);
    CHECK_INPUT(&rec, "request");
    CHECK_STR(rec.events, "OC");
    close(fd);
    fd = peer(&r, &rec);
    close(fd);
    finish(&r, &rec);
}

TEST(disconnect_call)
{
    int      fd;
    recorder rec;
    rig      r;
    serve(&r, &rec);
    fd = peer(&r, &rec);
    CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
    CHECK_STR(rec.events, "O"); /* CLOSED comes from the loop */
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    chr_fe_disconnect(&rec.fe); /* harmless */
    PUMP(&r, !rec.open);
    CHECK_STR(rec.events, "OC");
    CHECK_STR(hear(fd), "(eof)");
    close(fd);
    chr_fe_disconnect(&rec.fe);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    fd = peer(&r, &rec); /* it listens again */
    CHECK_STR(rec.events, "OCO");
    close(fd);
    finish(&r, &rec);
}

static void disconnect_when_opened(recorder *rec, int what)
{
    if (what == 'e' && rec->last_event == CHR_EVENT_OPENED && !rec->user) chr_fe_disconnect(&rec->fe);
}

TEST(disconnect_inside_the_opened_handler)
{
    int      i, fds[3];
    recorder rec;
    rig      r;
    serve(&r, &rec);
    rec.then = disconnect_when_opened;
    for (i = 0; i < 3; i++) fds[i] = unix_connect(scratch("s"));
    PUMP(&r, strcmp(rec.events, "OCOCOC") == 0);
    for (i = 0; i < 3; i++) {
        CHECK_STR(hear(fds[i]), "(eof)");
        close(fds[i]);
    }
    rec.user = &rec;
    fds[0] = peer(&r, &rec);
    CHECK_STR(rec.events, "OCOCOCO");
    close(fds[0]);
    finish(&r, &rec);
}

static void disconnect_when_reading(recorder *rec, int what)
{
    if (what == 'r') chr_fe_disconnect(&rec->fe);
}

TEST(disconnect_inside_the_read_handler)
{
    int      fd;
    recorder rec;
    rig      r;
    serve_with_room(&r, &rec, 3);
    rec.then = disconnect_when_reading;
    fd = peer(&r, &rec);
    say(fd, "abcdef");
    PUMP(&r, !rec.open);
    give_room(&rec, 100);
    settle(&r);
    CHECK_INPUT(&rec, "abc"); /* nothing after it was thrown out */
    CHECK_STR(rec.events, "OC");
    close(fd);
    finish(&r, &rec);
}

/* ---- clients that come back -------------------------------------------------------------------------------------- */

TEST(reconnecting_client)
{
    int      listener, fd;
    recorder rec;
    chr_info info;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, optionsf("socket,id=s,path=%s,reconnect-ms=100", scratch("s"))));
    settle(&r);
    chr_query(rec.fe.dev, &info);
    CHECK_INT(info.comes_back, 1);
    CHECK_INT(info.be_open, 0);
    pass_time(&r, 100);
    pass_time(&r, 100);
    if (!CHECK_INT(r.logs, 1)) NOTE("%s", r.log); /* a failure is reported once, until it next succeeds */
    CHECK_HAS(r.log, place_of(scratch("s")));
    listener = unix_listen(scratch("s"));
    settle(&r);
    CHECK_STR(rec.events, "");
    pass_time(&r, 100);
    CHECK_STR(rec.events, "O");
    fd = accept(listener, NULL, NULL);
    say(fd, "first");
    settle(&r);
    CHECK_INPUT(&rec, "first");
    close(fd);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    pass_time(&r, 100);
    CHECK_STR(rec.events, "OCO");
    fd = accept(listener, NULL, NULL);
    CHECK(fd >= 0);
    close(fd);
    close(listener);
    unlink(scratch("s"));
    settle(&r);
    pass_time(&r, 100);
    pass_time(&r, 100);
    CHECK_INT(r.logs, 2); /* and once again after that */
    finish(&r, &rec);
}

TEST(reconnect_in_seconds)
{
    int      listener;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, optionsf("socket,id=s,path=%s,reconnect=2", scratch("s"))));
    settle(&r);
    listener = unix_listen(scratch("s"));
    pass_time(&r, 1999);
    CHECK_STR(rec.events, "");
    pass_time(&r, 1);
    CHECK_STR(rec.events, "O");
    close(listener);
    finish(&r, &rec);
}

TEST(reconnecting_client_over_tcp_does_not_block)
{
    int      port, listener = tcp_listen(&port), fd;
    int64_t  start;
    recorder rec;
    rig      r;
    rig_open(&r);
    start = real_ms();
    attach(&rec, make(&r, optionsf("socket,id=s,host=127.0.0.1,port=%d,reconnect-ms=20", port)));
    CHECK(real_ms() - start < 4000);
    PUMP(&r, rec.open);
    fd = accept(listener, NULL, NULL);
    close(fd);
    PUMP(&r, !rec.open);
    PUMP(&r, rec.open);
    close(listener);
    r.fds--;
    finish(&r, &rec);
}

/* At most one attempt and one timer exist, and removal cancels both. */
TEST(removal_cancels_the_reconnect)
{
    int      listener;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, optionsf("socket,id=s,path=%s,reconnect-ms=100", scratch("s"))));
    settle(&r);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    listener = unix_listen(scratch("s"));
    pass_time(&r, 1000);
    fcntl(listener, F_SETFL, O_NONBLOCK);
    CHECK(accept(listener, NULL, NULL) < 0);
    close(listener);
    rig_close(&r);
    scratch_clean();
}

TEST(disconnect_makes_one_attempt_only)
{
    int      listener = unix_listen(scratch("s")), first, second;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    fcntl(listener, F_SETFL, O_NONBLOCK);
    attach(&rec, make(&r, optionsf("socket,id=s,path=%s,reconnect-ms=100", scratch("s"))));
    settle(&r);
    CHECK_STR(rec.events, "O");
    first = accept(listener, NULL, NULL);
    chr_fe_disconnect(&rec.fe);
    chr_fe_disconnect(&rec.fe);
    settle(&r);
    pass_time(&r, 100);
    pass_time(&r, 100);
    CHECK_STR(rec.events, "OCO");
    second = accept(listener, NULL, NULL);
    CHECK(second >= 0);
    CHECK(accept(listener, NULL, NULL) < 0);
    close(first), close(second), close(listener);
    r.fds--;
    finish(&r, &rec);
}

TEST(wait_connected_through_retries)
{
    chr_error err;
    chr_dev  *dev;
    pid_t     child;
    rig       r;
    rig_open(&r);
    dev = make(&r, optionsf("socket,id=s,path=%s,reconnect-ms=10", scratch("s")));
    child = fork();
    if (child == 0) {
        usleep(50000);
        accept(unix_listen(scratch("s")), NULL, NULL);
        usleep(50000);
        _exit(0);
    }
    CHECK_INT(chr_wait_connected(dev, &err), 0);
    waitpid(child, NULL, 0);
    rig_close(&r);
    scratch_clean();
}

TEST(wait_connected_on_others)
{
    chr_error err;
    int       fds[2];
    rig       r;
    rig_open(&r);
    socket_pair(fds);
    CHECK_INT(chr_wait_connected(make(&r, optionsf("socket,id=s,fd=%d", fds[0])), &err), 0);
    CHECK_INT(chr_wait_connected(make(&r, "ringbuf,id=r"), &err), 0); /* it is open */
    close(fds[1]);
    rig_close(&r);
}

TEST(client_without_reconnect_closes_for_good)
{
    int      listener = unix_listen(scratch("s")), fd, i, steps = 0;
    chr_info info;
    recorder rec;
    rig      r;
    rig_open(&r);
    attach(&rec, make(&r, optionsf("socket,id=s,path=%s", scratch("s"))));
    settle(&r);
    chr_query(rec.fe.dev, &info);
    CHECK_INT(info.comes_back, 0);
    fd = accept(listener, NULL, NULL);
    say(fd, "bye");
    close(fd);
    settle(&r);
    CHECK_INPUT(&rec, "bye");
    CHECK_STR(rec.events, "OC");
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    for (i = 0; i < 3; i++) steps += chr_loop_step(r.ctx, 5) > 0;
    CHECK_INT(steps, 0);
    close(listener);
    r.fds--;
    finish(&r, &rec);
}

/* A name that takes its time or can't be found doesn't hold up creation or the loop. A resolver may need half a
 * minute to give up. */
TEST_WITHIN(reconnect_to_an_unknown_host, 180)
{
    int64_t  start = real_ms();
    recorder rec;
    rig      r;
    rig_open(&r);
    attach(&rec, make(&r, "socket,id=s,host=no-such-host.invalid,port=1,reconnect-ms=50"));
    CHECK(real_ms() - start < 4000);
    while (!r.logs && real_ms() - start < 150000) chr_loop_step(r.ctx, 100);
    CHECK_HAS(r.log, "no-such-host.invalid");
    CHECK_STR(rec.events, "");
    detach(&rec);
    chr_context_free(r.ctx);
    CHECK_INT(r.live, 0);
}

/* Before the first attempt has come to an end, and while the next one is waited for. */
TEST(disconnect_while_not_connected)
{
    int      listener;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, optionsf("socket,id=s,path=%s,reconnect-ms=100", scratch("s"))));
    chr_fe_disconnect(&rec.fe);
    settle(&r);
    chr_fe_disconnect(&rec.fe);
    settle(&r);
    CHECK_STR(rec.events, "");
    listener = unix_listen(scratch("s"));
    pass_time(&r, 100);
    pass_time(&r, 100);
    CHECK_STR(rec.events, "O");
    close(listener);
    finish(&r, &rec);
}

/* A connection that hangs half-way is given up by disconnect, and by removal. */
TEST(connect_in_progress)
{
    int      listener = unix_listen(scratch("s")), i, fds[20], count = 0;
    recorder rec;
    rig      r;
    NEED_UNIX();
    listen(listener, 0); /* the backlog is soon full: a unix connect would block */
    for (i = 0; i < 20; i++) {
        struct sockaddr_un address;
        int                fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        memset(&address, 0, sizeof address);
        address.sun_family = AF_UNIX;
        strcpy(address.sun_path, scratch("s"));
        if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
            close(fd);
            break;
        }
        fds[count++] = fd;
    }
    CHECK(count > 0 && count < 20);
    rig_open_virtual(&r);
    attach(&rec, make(&r, optionsf("socket,id=s,path=%s,reconnect-ms=100", scratch("s"))));
    settle(&r);
    for (i = 0; i < 5; i++) pass_time(&r, 100);
    CHECK_STR(rec.events, "");
    close(accept(listener, NULL, NULL));
    for (i = 0; i < 5 && !rec.open; i++) pass_time(&r, 100);
    CHECK_STR(rec.events, "O"); /* there is a place now */
    for (i = 0; i < count; i++) close(fds[i]);
    close(listener);
    r.fds -= count + 1;
    finish(&r, &rec);
}

static chr_context *made_inside;
static int          made_code;

static void make_client_inside(recorder *rec, int what)
{
    chr_error err;
    if (what != 'r') return;
    made_code = chr_new(made_inside, (const char *)rec->user, &err) ? 0 : err.code;
}

/* Inside a handler nothing waits: the client goes on in the background. */
TEST(client_made_inside_a_handler)
{
    int      port, listener = tcp_listen(&port), fds[2];
    char     options[100];
    recorder rec, client;
    rig      r;
    NEED_LOCALHOST();
    rig_open(&r);
    socket_pair(fds);
    attach(&rec, make(&r, optionsf("socket,id=s,fd=%d", fds[0])));
    snprintf(options, sizeof options, "socket,id=c,host=localhost,port=%d,ipv4=on", port);
    rec.user = options;
    rec.then = make_client_inside;
    made_inside = r.ctx;
    say(fds[1], "x");
    PUMP(&r, rec.length == 1);
    CHECK_INT(made_code, 0);
    REQUIRE(chr_find(r.ctx, "c") != NULL);
    attach(&client, chr_find(r.ctx, "c"));
    PUMP(&r, client.open);
    detach(&client), detach(&rec);
    close(listener), close(fds[1]);
    chr_context_free(r.ctx);
    CHECK_INT(r.live, 0);
}

TEST(wait_connected_joins_a_lookup)
{
    int       port, listener = tcp_listen(&port);
    chr_error err;
    rig       r;
    NEED_LOCALHOST();
    rig_open(&r);
    make(&r, optionsf("socket,id=c,host=localhost,port=%d,ipv4=on,reconnect-ms=50", port));
    CHECK_INT(chr_wait_connected(chr_find(r.ctx, "c"), &err), 0);
    fcntl(listener, F_SETFL, O_NONBLOCK);
    CHECK(accept(listener, NULL, NULL) >= 0);
    settle(&r);
    CHECK(accept(listener, NULL, NULL) < 0); /* one attempt, not two */
    chr_context_free(r.ctx);
    CHECK_INT(r.live, 0);
}

TEST(wait_connected_tells_a_failure)
{
    chr_error err;
    int       fds[2];
    chr_dev  *dev;
    rig       r;
    rig_open(&r);
    socket_pair(fds);
    dev = make(&r, optionsf("socket,id=s,fd=%d", fds[0]));
    close(fds[1]);
    settle(&r);
    CHECK(chr_wait_connected(dev, &err) <= 0);
    rig_close(&r);
}

/* ---- add_client -------------------------------------------------------------------------------------------------- */

TEST(add_client)
{
    int       fds[2], more[2];
    chr_error err;
    recorder  rec;
    rig       r;
    serve(&r, &rec);
    socket_pair(fds);
    socket_pair(more);
    CHECK_INT(chr_add_client(r.ctx, "s", fds[0], &err), 0);
    PUMP(&r, rec.open);
    CHECK(flag_set(fds[0], F_GETFD, FD_CLOEXEC) && is_nonblocking(fds[0]));
    say(fds[1], "adopted");
    settle(&r);
    CHECK_INPUT(&rec, "adopted");
    CHECK_INT(chr_add_client(r.ctx, "s", more[0], &err), CHR_ERR_BUSY);
    CHECK_HAS(err.text, "s");
    say(more[0], "still ours");
    CHECK_STR(hear(more[1]), "still ours");
    close(fds[1]);
    PUMP(&r, !rec.open);
    CHECK_INT(chr_add_client(r.ctx, "s", more[0], &err), 0);
    PUMP(&r, rec.open);
    CHECK_STR(rec.events, "OCO");
    close(more[1]);
    finish(&r, &rec);
}

TEST(add_client_refusals)
{
    int       fds[2], file;
    chr_error err;
    rig       r;
    recorder  rec;
    serve(&r, &rec);
    file = open("/dev/null", O_RDWR);
    CHECK(chr_add_client(r.ctx, "s", file, &err) < 0); /* no socket */
    CHECK(fcntl(file, F_GETFD) >= 0);
    CHECK(chr_add_client(r.ctx, "s", 950, &err) < 0);
    CHECK(chr_add_client(r.ctx, "s", -1, &err) < 0);
    CHECK_STR(rec.events, "");
    socket_pair(fds);
    make(&r, optionsf("socket,id=c,fd=%d", fds[0]));
    CHECK(chr_add_client(r.ctx, "c", file, &err) < 0); /* no server */
    close(file);
    close(fds[1]);
    finish(&r, &rec);
}

/* ---- descriptors that travel ------------------------------------------------------------------------------------- */

static void send_fds(int socket_fd, const int *fds, int count, const char *text)
{
    union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * 16)]; } control;
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
    message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
    header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
    memcpy(CMSG_DATA(header), fds, sizeof(int) * (size_t)count);
    CHECK_INT(sendmsg(socket_fd, &message, 0), (int)strlen(text));
}

static int receive_fds(int socket_fd, int *fds, char *text, size_t size, ssize_t *len)
{
    union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * 32)]; } control;
    struct iovec    part;
    struct msghdr   message;
    struct cmsghdr *header;
    int             count;
    memset(&message, 0, sizeof message);
    part.iov_base = text;
    part.iov_len = size;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    *len = recvmsg(socket_fd, &message, MSG_DONTWAIT);
    header = *len > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (!header) return 0;
    count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(fds, CMSG_DATA(header), sizeof(int) * (size_t)count);
    return count;
}

/* A connected chardev and its far side. */
static int connected(rig *r, recorder *rec)
{
    int fds[2];
    rig_open(r);
    socket_pair(fds);
    attach(rec, make(r, optionsf("socket,id=s,fd=%d", fds[0])));
    settle(r);
    return fds[1];
}

TEST(fds_received)
{
    int      pipe_fds[2], got[16], far, before;
    recorder rec;
    rig      r;
    far = connected(&r, &rec);
    REQUIRE(pipe(pipe_fds) == 0);
    fcntl(pipe_fds[1], F_SETFL, O_NONBLOCK);
    before = count_fds();
    send_fds(far, &pipe_fds[1], 1, "here");
    settle(&r);
    CHECK_INPUT(&rec, "here");
    CHECK_INT(chr_fe_get_msgfds(&rec.fe, got, 16), 1);
    CHECK(flag_set(got[0], F_GETFD, FD_CLOEXEC));
    CHECK(!flag_set(got[0], F_GETFL, O_NONBLOCK));
    say(got[0], "through");
    CHECK_STR(hear(pipe_fds[0]), "through");
    close(got[0]);
    CHECK_INT(count_fds(), before);
    CHECK_INT(chr_fe_get_msgfds(&rec.fe, got, 16), 0); /* they are handed over once */
    close(pipe_fds[0]), close(pipe_fds[1]), close(far);
    finish(&r, &rec);
}

TEST(fds_up_to_sixteen)
{
    int      send[16], got[16], far, i, before;
    recorder rec;
    rig      r;
    far = connected(&r, &rec);
    for (i = 0; i < 16; i++) send[i] = 2;
    before = count_fds();
    send_fds(far, send, 16, "x");
    settle(&r);
    CHECK_INT(chr_fe_get_msgfds(&rec.fe, got, 16), 16);
    for (i = 0; i < 16; i++) close(got[i]);
    send_fds(far, send, 16, "x");
    settle(&r);
    CHECK_INT(chr_fe_get_msgfds(&rec.fe, got, 3), 3); /* the rest is closed */
    for (i = 0; i < 3; i++) close(got[i]);
    CHECK_INT(count_fds(), before);
    close(far);
    finish(&r, &rec);
}

TEST(fds_unclaimed_are_closed)
{
    int      send[2] = { 2, 2 }, got[16], far, before;
    recorder rec;
    rig      r;
    far = connected(&r, &rec);
    before = count_fds();
    send_fds(far, send, 2, "a");
    settle(&r);
    CHECK_INT(count_fds(), before + 2);
    send_fds(far, send, 1, "b"); /* newer ones take their place */
    settle(&r);
    CHECK_INT(count_fds(), before + 1);
    CHECK_INT(chr_fe_get_msgfds(&rec.fe, got, 16), 1);
    close(got[0]);
    send_fds(far, send, 2, "c");
    settle(&r);
    CHECK_INT(count_fds(), before + 2);
    close(far); /* the peer goes, and its own end too */
    settle(&r);
    CHECK_STR(rec.events, "OC");
    CHECK_INT(count_fds(), before - 2);
    finish(&r, &rec);
}

TEST(fds_sent_with_the_next_write)
{
    int      pipe_fds[2], got[32], far;
    char     text[20];
    ssize_t  len;
    recorder rec;
    rig      r;
    NEED_FD_PASSING();
    far = connected(&r, &rec);
    REQUIRE(pipe(pipe_fds) == 0);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, &pipe_fds[1], 1), 0);
    CHECK_INT(chr_fe_write(&rec.fe, "one", 3), 3);
    CHECK_INT(receive_fds(far, got, text, sizeof text, &len), 1);
    CHECK_MEM(text, len, "one", 3);
    say(got[0], "through");
    CHECK_STR(hear(pipe_fds[0]), "through");
    close(got[0]);
    CHECK_INT(chr_fe_write(&rec.fe, "two", 3), 3);
    CHECK_INT(receive_fds(far, got, text, sizeof text, &len), 0); /* forgotten after that */
    CHECK_INT(len, 3);
    CHECK(fcntl(pipe_fds[1], F_GETFD) >= 0); /* duplicated: ours stay ours */
    close(pipe_fds[0]), close(pipe_fds[1]), close(far);
    finish(&r, &rec);
}

TEST(fds_survive_a_would_block)
{
    int      got[32], far, two = 2, i;
    char     text[70000];
    ssize_t  len;
    size_t   sent;
    recorder rec;
    rig      r;
    NEED_FD_PASSING();
    far = connected(&r, &rec);
    sent = fill_up(&rec.fe);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, &two, 1), 0);
    for (i = 0; i < 3; i++) CHECK_INT(chr_fe_write(&rec.fe, "late", 4), CHR_ERR_WOULD_BLOCK);
    CHECK_INT(drain(&r, far, sent), sent);
    CHECK_INT(chr_fe_write(&rec.fe, "late", 4), 4);
    CHECK_INT(receive_fds(far, got, text, sizeof text, &len), 1);
    CHECK_MEM(text, len, "late", 4);
    close(got[0]);
    close(far);
    finish(&r, &rec);
}

TEST(fds_set_and_forgotten)
{
    int      got[32], far, two = 2, many[17], bad[2] = { 2, 950 }, i, before;
    char     text[20];
    ssize_t  len;
    recorder rec;
    rig      r;
    NEED_FD_PASSING();
    far = connected(&r, &rec);
    before = count_fds();
    for (i = 0; i < 17; i++) many[i] = 2;
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, many, 17), CHR_ERR_INVALID);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, bad, 2), CHR_ERR_INVALID);
    CHECK_INT(count_fds(), before);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, many, 16), 0);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, &two, 1), 0); /* the last call counts */
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, NULL, 0), 0);
    CHECK_INT(count_fds(), before);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    CHECK_INT(receive_fds(far, got, text, sizeof text, &len), 0);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, many, 16), 0);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    CHECK_INT(receive_fds(far, got, text, sizeof text, &len), 16);
    for (i = 0; i < 16; i++) close(got[i]);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, many, 16), 0); /* never sent: closed with the chardev */
    close(far);
    finish(&r, &rec);
}

TEST(fds_over_tcp_or_to_nobody)
{
    int      fd = 2, far;
    recorder rec;
    rig      r;
    NEED_FD_PASSING();
    rig_open(&r);
    attach(&rec, make(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off"));
    CHECK(chr_fe_set_msgfds(&rec.fe, &fd, 1) < 0);
    far = tcp_connect(port_of(rec.fe.dev));
    PUMP(&r, rec.open);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, &fd, 1), CHR_ERR_NOT_SUPPORTED);
    close(far);
    detach(&rec);
    rig_close(&r);
    serve(&r, &rec);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, &fd, 1), CHR_ERR_DISCONNECTED);
    finish(&r, &rec);
}

/* Descriptors and bytes keep their order when several messages wait. */
TEST(fds_in_a_row)
{
    int      first[2], second[2], got[16], far;
    recorder rec;
    rig      r;
    far = connected(&r, &rec);
    rec.room = 1;
    REQUIRE(pipe(first) == 0 && pipe(second) == 0);
    send_fds(far, &first[1], 1, "1");
    send_fds(far, &second[1], 1, "2");
    while (rec.length == 0) chr_loop_step(r.ctx, 100);
    CHECK_INPUT(&rec, "1");
    CHECK_INT(chr_fe_get_msgfds(&rec.fe, got, 16), 1);
    say(got[0], "first");
    CHECK_STR(hear(first[0]), "first");
    close(got[0]);
    give_room(&rec, 1);
    settle(&r);
    CHECK_INT(chr_fe_get_msgfds(&rec.fe, got, 16), 1);
    say(got[0], "second");
    CHECK_STR(hear(second[0]), "second");
    close(got[0]);
    close(first[0]), close(first[1]), close(second[0]), close(second[1]), close(far);
    finish(&r, &rec);
}

/* ---- vsock ------------------------------------------------------------------------------------------------------- */

TEST(vsock)
{
    chr_error err;
    chr_dev  *dev;
    rig       r;
    int       fd = socket(AF_VSOCK, SOCK_STREAM, 0);
    if (fd < 0) SKIP("this kernel has no vsock");
    close(fd);
    rig_open(&r);
    CHECK(refuse(&r, "socket,id=s,cid=2", &err) < 0);
    CHECK_HAS(err.text, "port");
    dev = chr_new(r.ctx, "socket,id=s,cid=4294967295,port=39871,server=on,wait=off", &err);
    if (!dev) SKIP("vsock can't be bound here");
    CHECK_HAS(filename_of(dev), "vsock:");
    rig_close(&r);
}

/* ---- signals ----------------------------------------------------------------------------------------------------- */

TEST(no_sigpipe)
{
    int      fd, i;
    recorder rec;
    rig      r;
    serve(&r, &rec);
    for (i = 0; i < 3; i++) {
        fd = peer(&r, &rec);
        close(fd);
        chr_fe_write(&rec.fe, "x", 1);
        chr_fe_write_all(&rec.fe, "xy", 2, -1);
        PUMP(&r, !rec.open);
    }
    CHECK_STR(rec.events, "OCOCOC");
    finish(&r, &rec);
}

/* Every descriptor that the library makes is closed on exec and doesn't block. */
TEST(descriptors_are_cloexec_and_nonblocking)
{
    int      before[64], fd, far;
    recorder rec;
    rig      r;
    for (fd = 0; fd < 64; fd++) before[fd] = fcntl(fd, F_GETFD) >= 0;
    serve(&r, &rec);
    far = peer(&r, &rec);
    make(&r, "pty,id=p");
    for (fd = 0; fd < 64; fd++) {
        if (before[fd] || fd == far || fcntl(fd, F_GETFD) < 0) continue;
        if (!CHECK(flag_set(fd, F_GETFD, FD_CLOEXEC)) || !CHECK(flag_set(fd, F_GETFL, O_NONBLOCK))) NOTE("descriptor %d", fd);
    }
    close(far);
    finish(&r, &rec);
}

TEST(nodelay_and_delay_exclude_each_other)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    CHECK_INT(refuse(&r, "socket,id=s,host=localhost,port=0,server=on,wait=off,nodelay=on,delay=on", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "nodelay=");
    CHECK_INT(refuse(&r, "socket,id=s,host=localhost,port=0,server=on,wait=off,nodelay,nodelay=off,nodelay=on,delay=off", &err), CHR_ERR_INVALID);
    rig_close(&r);
}
