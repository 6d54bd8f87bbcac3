/*
 * All combinations of a socket: address × how the loop runs × role × what the peer does × how much the frontend takes
 * at a time. Each combination is a test of its own. Invalid ones must fail with the error that names the reason.
 */
#include "chardev.h"
#include "rig.h"

typedef enum where { TCP4, TCP6, UNIX, ABSTRACT, FD_LISTENING, FD_CONNECTED, WHERES } where;
typedef enum drive { STEP, WAIT, DRIVES } drive;
typedef enum role { SERVER, CLIENT, RECONNECT, ROLES } role;
typedef enum deed { CLOSES_AFTER_DATA, CLOSES_AT_ONCE, HALF_CLOSES, RESETS, DEEDS } deed;
typedef enum appetite { ALL, BYTEWISE, APPETITES } appetite;

static const char *const where_names[] = { "tcp4", "tcp6", "unix", "abstract", "fd_listening", "fd_connected" };
static const char *const drive_names[] = { "step", "wait" };
static const char *const role_names[] = { "server", "client", "reconnect" };
static const char *const deed_names[] = { "closes_after_data", "closes_at_once", "half_closes", "resets" };
static const char *const appetite_names[] = { "all", "bytewise" };

typedef struct combination {
    where    where;
    drive    drive;
    role     role;
    deed     deed;
    appetite appetite;
} combination;

/* The world around one chardev. */
typedef struct world {
    combination             c;
    rig                     r;
    recorder                rec;
    struct sockaddr_storage address;
    socklen_t               length;
    int                     listener; /* the test's, where the chardev is the client */
    int                     far;      /* the peer */
    char                    options[400];
} world;

static const char payload[] = "sent just before the end";

/* ---- addresses --------------------------------------------------------------------------------------------------- */

static void set_unix(world *w, const char *path, int abstract)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&w->address;
    memset(&w->address, 0, sizeof w->address);
    un->sun_family = AF_UNIX;
    strcpy(un->sun_path + abstract, path);
    w->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);
}

static void set_loopback(world *w, int family)
{
    memset(&w->address, 0, sizeof w->address);
    w->address.ss_family = (sa_family_t)family;
    if (family == AF_INET) ((struct sockaddr_in *)&w->address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else ((struct sockaddr_in6 *)&w->address)->sin6_addr = in6addr_loopback;
    w->length = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

static int *port_at(world *w)
{
    static int port;
    port = ntohs(w->address.ss_family == AF_INET ? ((struct sockaddr_in *)&w->address)->sin_port : ((struct sockaddr_in6 *)&w->address)->sin6_port);
    return &port;
}

/* Listens at w->address; a port 0 becomes the real one. */
static int far_listen(world *w)
{
    int fd = socket(w->address.ss_family, SOCK_STREAM, 0), on = 1;
    if (fd < 0 && w->address.ss_family == AF_UNIX) NEED_UNIX();
    REQUIRE(fd >= 0);
    if (w->address.ss_family != AF_UNIX) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&w->address, w->length) < 0 && w->c.where == TCP6) SKIP("this machine has no IPv6");
    REQUIRE(listen(fd, 4) == 0);
    if (w->address.ss_family != AF_UNIX) getsockname(fd, (struct sockaddr *)&w->address, &w->length);
    return fd;
}

static int far_connect(world *w)
{
    int fd = socket(w->address.ss_family, SOCK_STREAM, 0);
    if (fd < 0 && w->address.ss_family == AF_UNIX) NEED_UNIX();
    REQUIRE(fd >= 0);
    REQUIRE(connect(fd, (struct sockaddr *)&w->address, w->length) == 0);
    return fd;
}

/* The chardev's address, and its options without the role. */
static void choose_address(world *w)
{
    char name[60];
    snprintf(name, sizeof name, "chardev-matrix-%d", (int)getpid());
    switch (w->c.where) {
    case TCP4: set_loopback(w, AF_INET); break;
    case TCP6: set_loopback(w, AF_INET6); break;
    case ABSTRACT: set_unix(w, name, 1); break;
    default: set_unix(w, scratch("s"), 0); break;
    }
    if (w->c.role != SERVER || w->c.where == FD_LISTENING || w->c.where == TCP4 || w->c.where == TCP6) w->listener = far_listen(w);
    switch (w->c.where) {
    case TCP4: snprintf(w->options, sizeof w->options, "socket,id=s,host=127.0.0.1,port=%d", *port_at(w)); break;
    case TCP6: snprintf(w->options, sizeof w->options, "socket,id=s,host=::1,port=%d", *port_at(w)); break;
    case ABSTRACT: snprintf(w->options, sizeof w->options, "socket,id=s,path=%s,abstract=on", name); break;
    default: snprintf(w->options, sizeof w->options, "socket,id=s,path=%s", scratch("s")); break;
    }
    if (w->c.role == SERVER && (w->c.where == TCP4 || w->c.where == TCP6)) {
        close(w->listener); /* it only found a free port */
        w->listener = -1;
    }
}

static void choose_descriptor(world *w)
{
    int fds[2];
    if (w->c.where == FD_LISTENING) {
        snprintf(w->options, sizeof w->options, "socket,id=s,fd=%d", w->listener);
        return;
    }
    if (w->c.where != FD_CONNECTED) return;
    socket_pair(fds);
    w->far = fds[1];
    snprintf(w->options, sizeof w->options, "socket,id=s,fd=%d", fds[0]);
}

/* ---- forbidden combinations -------------------------------------------------------------------------------------- */

/* A word of the error that must come, or NULL where the combination is a good one. */
static const char *forbidden(const combination *c)
{
    if (c->role == RECONNECT && (c->where == FD_LISTENING || c->where == FD_CONNECTED)) return "reconnect";
    if (c->role == SERVER && c->where == FD_CONNECTED) return "listen";
    if (c->role == CLIENT && c->where == FD_LISTENING) return "server=on";
    return NULL;
}

static void check_forbidden(world *w, const char *word)
{
    chr_error err;
    int       fds = count_fds();
    CHECK(chr_new(w->r.ctx, w->options, &err) == NULL);
    CHECK_HAS(err.text, word);
    CHECK_INT(count_fds(), fds);
    CHECK(chr_next(w->r.ctx, NULL) == NULL);
}

/* ---- good ones --------------------------------------------------------------------------------------------------- */

static void one_more_byte(recorder *rec, int what)
{
    if (what == 'r' && rec->room == 0) rec->room = 1;
}

/* The peer arrives; and, where the chardev is the client, is accepted. */
static void meet(world *w)
{
    chr_error err;
    if (w->c.role == SERVER) w->far = far_connect(w);
    if (w->c.drive == WAIT) CHECK_INT(chr_wait_connected(w->rec.fe.dev, &err), 0);
    if (w->c.role == SERVER || w->c.where == FD_CONNECTED) return;
    if (w->c.drive == STEP) PUMP(&w->r, w->rec.open);
    w->far = accept(w->listener, NULL, NULL);
    REQUIRE(w->far >= 0);
}

static void leave_with_reset(world *w)
{
    struct linger now = { 1, 0 };
    if (w->address.ss_family == AF_UNIX) {
        PUMP(&w->r, w->rec.open);
        CHECK_INT(chr_fe_write(&w->rec.fe, "never read", 10), 10); /* unread bytes turn a close into a reset */
    }
    setsockopt(w->far, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    say(w->far, payload);
    close(w->far);
}

static void act(world *w)
{
    switch (w->c.deed) {
    case CLOSES_AFTER_DATA:
        say(w->far, payload);
        close(w->far);
        break;
    case HALF_CLOSES:
        say(w->far, payload);
        shutdown(w->far, SHUT_WR);
        break;
    case RESETS: leave_with_reset(w); break;
    default: close(w->far); break;
    }
}

/* Data first, then CLOSED, each once. */
static void check_end(world *w, const char *events)
{
    PUMP(&w->r, strcmp(w->rec.events, events) == 0);
    if (w->c.deed == CLOSES_AT_ONCE) CHECK_INT(w->rec.length, 0);
    else CHECK_INPUT(&w->rec, payload);
    if (w->c.deed == HALF_CLOSES) {
        CHECK_STR(hear(w->far), "(eof)");
        close(w->far);
    }
    w->far = -1;
}

/* The next peer is served, or the client comes again; without reconnect it is over. */
static void check_next(world *w)
{
    forget_input(&w->rec);
    if (w->c.role == CLIENT) {
        CHECK_INT(chr_fe_write(&w->rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
        CHECK_INT(chr_loop_timeout(w->r.ctx), -1);
        return;
    }
    meet(w);
    say(w->far, "again");
    PUMP(&w->r, w->rec.length == 5);
    CHECK_INPUT(&w->rec, "again");
    CHECK_STR(w->rec.events, "OCO");
    CHECK_INT(chr_fe_write(&w->rec.fe, "yes", 3), 3);
    CHECK_STR(hear(w->far), "yes");
}

static void run_combination(const void *arg)
{
    world       w;
    const char *word;
    memset(&w, 0, sizeof w);
    w.c = *(const combination *)arg;
    w.listener = w.far = -1;
    rig_open(&w.r);
    choose_address(&w);
    choose_descriptor(&w);
    strcat(w.options, w.c.role == SERVER ? ",server=on,wait=off" : w.c.role == RECONNECT ? ",reconnect-ms=5" : "");
    word = forbidden(&w.c);
    if (word) {
        check_forbidden(&w, word);
        chr_context_free(w.r.ctx);
        CHECK_INT(w.r.live, 0);
        scratch_clean();
        return;
    }
    attach_with_room(&w.rec, make(&w.r, w.options), w.c.appetite == ALL ? UNLIMITED : 1);
    if (w.c.appetite == BYTEWISE) w.rec.then = one_more_byte;
    meet(&w);
    act(&w);
    check_end(&w, "OC");
    check_next(&w);
    detach(&w.rec);
    if (w.far >= 0) close(w.far);
    if (w.listener >= 0 && w.c.where != FD_LISTENING) close(w.listener);
    rig_close(&w.r);
    scratch_clean();
}

static void add_combination(const combination *c)
{
    char         name[120];
    combination *copy = (combination *)malloc(sizeof *copy);
    if (!copy) abort();
    *copy = *c;
    snprintf(name, sizeof name, "%s_%s_%s_%s_%s", where_names[c->where], drive_names[c->drive], role_names[c->role], deed_names[c->deed],
             appetite_names[c->appetite]);
    test_add_case(name, run_combination, copy, TEST_SECONDS);
}

TEST_FAMILY(matrix)
{
    int a, b, c, d, e;
    for (a = 0; a < WHERES; a++)
        for (b = 0; b < DRIVES; b++)
            for (c = 0; c < ROLES; c++)
                for (d = 0; d < DEEDS; d++)
                    for (e = 0; e < APPETITES; e++) {
                        combination one = { (where)a, (drive)b, (role)c, (deed)d, (appetite)e };
                        if (forbidden(&one) && (d || e)) continue; /* what a peer does matters not when there is none */
                        add_combination(&one);
                    }
}
