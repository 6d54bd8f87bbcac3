/*
 * Connections of a socket chardev, layer by layer: hostile peers get a limited part of each turn, handshakes don't
 * block other peers, and accepted output arrives, or is counted, when its connection ends. The peer is a second
 * context, which only runs when the test steps it, or a bare socket.
 */
#include "chardev.h"
#include "fault.h"
#include "rig.h"

#include <netinet/tcp.h>
#include <pthread.h>

#define WS_REQUEST                                                                                                    \
    "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" \
    "Sec-WebSocket-Version: 13\r\n\r\n"

typedef struct layer {
    const char *name, *server, *client;
    const char *begins; /* what a peer sends that never finishes its handshake; NULL = there is none to finish */
    const char *chatter; /* sent for ever it is no input */
    size_t      chatter_size;
} layer;

static const layer layers[] = {
    { "raw", "", "", NULL, NULL, 0 },
    { "telnet", ",telnet=on", ",telnet=on", NULL, "\xff\xf1", 2 },
    { "websocket", ",websocket=on", ",websocket=on", "GET / HT", "\x8a\x80\1\2\3\4", 6 },
#ifdef CHARDEV_MBEDTLS
    { "tls", ",tls-creds=ts", ",tls-creds=tc,tls-hostname=x", "\x16\x03\x01", NULL, 0 },
    { "wss", ",tls-creds=ts,websocket=on", ",tls-creds=tc,tls-hostname=x,websocket=on", "\x16\x03\x01", NULL, 0 },
#endif
};

enum { LAYERS = sizeof layers / sizeof layers[0] };

/* ---- a server and a client, each in a context of its own --------------------------------------------------------- */

typedef struct pair {
    rig          near_rig, far_rig;
    recorder     near, far;
    const layer *layer;
    size_t       taken;
} pair;

static void add_key(rig *r, const char *options)
{
#ifdef CHARDEV_MBEDTLS
    chr_error err;
    char      text[300];
    write_file(scratch("keys.psk"), "fred:000102030405060708090a0b0c0d0e0f\n");
    chmod(scratch("keys.psk"), 0600);
    snprintf(text, sizeof text, "tls-creds-psk,%s,keyfile=%s", options, scratch("keys.psk"));
    if (!CHECK_INT(chr_tls_creds_add(r->ctx, text, &err), 0)) NOTE("%s", err.text);
#else
    (void)r, (void)options;
#endif
}

static chr_dev *open_server(pair *p, const layer *l, const char *address, const char *more)
{
    char     text[600];
    chr_dev *dev;
    memset(p, 0, sizeof *p);
    p->layer = l;
    rig_open_virtual(&p->near_rig);
    add_key(&p->near_rig, "id=ts,endpoint=server");
    snprintf(text, sizeof text, "socket,id=s,server=on,wait=off,%s%s%s", address, l->server, more);
    dev = make(&p->near_rig, text);
    attach(&p->near, dev);
    return dev;
}

static const char *unix_address(char *text, size_t size)
{
    snprintf(text, size, "path=%s", scratch("s"));
    return text;
}

static int tcp_port(const pair *p)
{
    chr_info info;
    chr_query(p->near.fe.dev, &info);
    return atoi(strrchr(info.address, ':') + 1);
}

/* Both sides, until the condition holds. */
#define BOTH(p, condition)                                                        \
    do {                                                                          \
        int64_t both_end = real_ms() + RIG_PATIENCE_MS * test_time_scale();       \
        while (!(condition) && real_ms() < both_end) {                            \
            if ((p)->near_rig.ctx) chr_loop_step((p)->near_rig.ctx, 1);           \
            chr_loop_step((p)->far_rig.ctx, 1);                                   \
        }                                                                         \
        test_check(!!(condition), __FILE__, __LINE__, "never came: " #condition); \
    } while (0)

static void open_pair(pair *p, const layer *l, int is_tcp, const char *more)
{
    char address[500], text[600];
    open_server(p, l, is_tcp ? "host=127.0.0.1,port=0" : unix_address(address, sizeof address), more);
    rig_open_virtual(&p->far_rig);
    add_key(&p->far_rig, "id=tc,endpoint=client,username=fred");
    if (is_tcp) snprintf(address, sizeof address, "host=127.0.0.1,port=%d", tcp_port(p));
    snprintf(text, sizeof text, "socket,id=c,reconnect-ms=1000000,%s%s", address, l->client);
    attach(&p->far, make(&p->far_rig, text));
    BOTH(p, p->near.open && p->far.open);
    while (chr_loop_step(p->near_rig.ctx, 2) > 0 || chr_loop_step(p->far_rig.ctx, 2) > 0) {} /* negotiation */
}

static void close_pair(pair *p)
{
    if (p->far.fe.dev) detach(&p->far);
    p->far_rig.fds = count_fds();
    chr_context_free(p->far_rig.ctx);
    CHECK_INT(p->far_rig.live, 0);
    if (p->near.fe.dev) detach(&p->near);
    free(p->near.input);
    if (p->near_rig.ctx) rig_close(&p->near_rig);
    scratch_clean();
}

static unsigned char pattern(size_t at) { return (unsigned char)('a' + at % 23); }

/* Writes until nothing more is taken, while the peer sleeps. */
static void write_much(pair *p)
{
    unsigned char block[4000];
    int           idle = 0, n;
    size_t        i;
    while (idle < 10) {
        for (i = 0; i < sizeof block; i++) block[i] = pattern(p->taken + i);
        n = chr_fe_write(&p->near.fe, block, sizeof block);
        if (n > 0) p->taken += (size_t)n;
        if (n <= 0) chr_loop_step(p->near_rig.ctx, 1);
        idle = n > 0 ? 0 : idle + 1;
    }
}

static void check_pattern(const recorder *rec)
{
    size_t i;
    for (i = 0; i < rec->length && (unsigned char)rec->input[i] == pattern(i); i++) {}
    CHECK_INT(i, rec->length);
}

/* ---- the end of a connection ------------------------------------------------------------------------------------- */

typedef struct ending {
    const layer *layer;
    int          how, is_tcp;
    const char  *more;
} ending;

static void *free_context(void *ctx)
{
    chr_context_free((chr_context *)ctx);
    return NULL;
}

static void end_connection(pair *p, int how, pthread_t *thread)
{
    chr_error err;
    if (how == 'd') CHECK_INT(chr_fe_disconnect(&p->near.fe), 0);
    if (how == 'c' && !CHECK_INT(chr_change(p->near_rig.ctx, "s", "null", &err), 0)) NOTE("%s", err.text);
    if (how == 'r' || how == 'f') chr_fe_deinit(&p->near.fe);
    if (how == 'r') CHECK_INT(chr_remove(p->near_rig.ctx, "s", &err), 0);
    if (how == 'f') REQUIRE(pthread_create(thread, NULL, free_context, p->near_rig.ctx) == 0);
}

/* The peer does not read until all is written, and then gets all bytes that were accepted. */
static void all_arrives(const void *arg)
{
    const ending *e = (const ending *)arg;
    pair          p;
    pthread_t     thread;
    chr_context  *ctx;
    open_pair(&p, e->layer, e->is_tcp, e->more);
    write_much(&p);
    ctx = p.near_rig.ctx;
    end_connection(&p, e->how, &thread);
    if (e->how == 'f') p.near_rig.ctx = NULL;
    BOTH(&p, !p.far.open);
    if (e->how == 'f') pthread_join(thread, NULL);
    (void)ctx;
    CHECK_INT(p.far.length, p.taken);
    check_pattern(&p.far);
    CHECK_STR(p.near_rig.log, "");
    CHECK_STR(p.far_rig.log, ""); /* TLS: not cut */
    if (e->how == 'f') CHECK_INT(p.near_rig.live, 0);
    close_pair(&p);
}

TEST_FAMILY(all_arrives)
{
    static ending      endings[LAYERS * 4 * 2 * 2];
    static const char  hows[] = "drcf";
    static const char *mores[] = { "", ",obuf=100K,history=10K" };
    char               name[100];
    ending            *e = endings;
    int                i, how, is_tcp, more;
    for (i = 0; i < LAYERS; i++)
        for (how = 0; how < 4; how++)
            for (is_tcp = 0; is_tcp < 2; is_tcp++)
                for (more = 0; more < 2; more++, e++) {
                    e->layer = &layers[i];
                    e->how = hows[how];
                    e->is_tcp = is_tcp;
                    e->more = mores[more];
                    snprintf(name, sizeof name, "all_arrives_%s_%c_%s%s", layers[i].name, hows[how], is_tcp ? "tcp" : "unix", mores[more]);
                    test_add_case(name, all_arrives, e, TEST_SECONDS);
                }
}

/* A peer that reads nothing: for two seconds (in haste) it is waited for, then each byte that it has not had is
 * counted. */
static void lost_is_counted(const void *arg)
{
    const ending *e = (const ending *)arg;
    pair          p;
    chr_info      info;
    int           fds;
    fault_plan.haste = 10;
    open_pair(&p, e->layer, e->is_tcp, e->more);
    fds = count_fds();
    write_much(&p);
    CHECK_INT(chr_fe_disconnect(&p.near.fe), 0);
    pass_real_time(&p.near_rig, 1000);
    chr_query(p.near.fe.dev, &info);
    CHECK_INT(info.bytes_dropped, 0);
    CHECK_INT(count_fds(), fds);
    PUMP(&p.near_rig, count_fds() == fds - 1);
    chr_query(p.near.fe.dev, &info);
    CHECK(info.bytes_dropped > 0 || e->is_tcp); /* whose buffers may have grown meanwhile, and hold all of it */
    CHECK_INT(info.bytes_queued, 0);
    if (info.bytes_dropped > 0) CHECK_HAS(p.near_rig.log, "chardev s: the peer has not taken the last ");
    CHECK_INT(p.near_rig.logs, info.bytes_dropped > 0);
    BOTH(&p, !p.far.open);
    check_pattern(&p.far);
    CHECK(p.far.length + info.bytes_dropped >= p.taken);
    CHECK(p.far.length + info.bytes_dropped <= p.taken + 32768); /* a frame that was cut counts as a whole */
    close_pair(&p);
}

TEST_FAMILY(lost_is_counted)
{
    static ending      endings[LAYERS * 2 * 2];
    static const char *mores[] = { "", ",obuf=100K" };
    char               name[100];
    ending            *e = endings;
    int                i, is_tcp, more;
    for (i = 0; i < LAYERS; i++)
        for (is_tcp = 0; is_tcp < 2; is_tcp++)
            for (more = i == 0; more < 2; more++, e++) { /* raw: nothing waits but in the queue */
                e->layer = &layers[i];
                e->is_tcp = is_tcp;
                e->more = mores[more];
                snprintf(name, sizeof name, "lost_is_counted_%s_%s%s", layers[i].name, is_tcp ? "tcp" : "unix", mores[more]);
                test_add_case(name, lost_is_counted, e, TEST_SECONDS);
            }
}

/* Bytes queued inside a layer are counted in bytes_queued. */
TEST(layers_tell_what_they_hold)
{
    int i;
    for (i = 2; i < LAYERS; i++) {
        pair     p;
        chr_info info;
        open_pair(&p, &layers[i], 0, "");
        write_much(&p);
        chr_query(p.near.fe.dev, &info);
        CHECK(info.bytes_queued > 0);
        CHECK(info.bytes_queued <= 32768);
        BOTH(&p, p.far.length == p.taken);
        chr_query(p.near.fe.dev, &info);
        CHECK_INT(info.bytes_queued, 0);
        close_pair(&p);
    }
}

/* To close while something from the peer is unread would be a reset, and what it has not read yet would be lost. */
TEST(what_the_peer_typed_does_not_destroy_what_it_was_sent)
{
    static char bytes[1 << 16];
    char        text[500];
    int         i, fd, how;
    for (i = 0; i < 6; i++) {
        pair    p;
        size_t  got = 0;
        ssize_t n;
        open_server(&p, &layers[0], i < 3 ? "host=127.0.0.1,port=0" : unix_address(text, sizeof text), "");
        p.near.room = 0;
        fd = i < 3 ? tcp_connect(tcp_port(&p)) : unix_connect(scratch("s"));
        PUMP(&p.near_rig, p.near.open);
        say(fd, "typed");
        write_much(&p);
        how = "drc"[i % 3];
        end_connection(&p, how, NULL);
        CHECK(send(fd, "typed", 5, MSG_NOSIGNAL) == 5 || i >= 3);
        fcntl(fd, F_SETFL, O_NONBLOCK);
        PUMP(&p.near_rig, (n = recv(fd, bytes, sizeof bytes, 0), got += n > 0 ? (size_t)n : 0, n == 0 || (n < 0 && errno != EAGAIN)));
        CHECK_INT(n, 0);
        CHECK_INT(got, p.taken);
        close(fd);
        if (p.near.fe.dev) detach(&p.near);
        rig_close(&p.near_rig);
        scratch_clean();
    }
}

/* If the system can't report unsent bytes (SIOCOUTQ), the lingering close waits for the peer's close: input of the
 * peer before it causes no reset. */
TEST(what_is_typed_where_nobody_knows_what_is_unsent)
{
    static char bytes[1 << 16];
    int         fd, fds, how;
    for (how = 0; how < 3; how++) {
        pair    p;
        size_t  got = 0;
        ssize_t n;
        open_server(&p, &layers[0], "host=127.0.0.1,port=0", "");
        fd = tcp_connect(tcp_port(&p));
        PUMP(&p.near_rig, p.near.open);
        write_much(&p);
        fds = count_fds();
        fault_arm(FAULT_ioctl, how == 0 ? ENOTTY : how == 1 ? EINVAL : EIO, 1, 1);
        end_connection(&p, 'd', NULL);
        pass_real_time(&p.near_rig, 50);
        CHECK_INT(count_fds(), fds); /* it is open still */
        CHECK_INT(send(fd, "typed", 5, MSG_NOSIGNAL), 5);
        fcntl(fd, F_SETFL, O_NONBLOCK);
        PUMP(&p.near_rig, (n = recv(fd, bytes, sizeof bytes, 0), got += n > 0 ? (size_t)n : 0, n == 0 || (n < 0 && errno != EAGAIN)));
        CHECK_INT(n, 0);
        CHECK_INT(got, p.taken);
        CHECK_INT(send(fd, "typed", 5, MSG_NOSIGNAL), 5);
        close(fd);
        PUMP(&p.near_rig, count_fds() == fds - 2);
        CHECK(fault_plan.fired > 0);
        fault_disarm();
        detach(&p.near);
        rig_close(&p.near_rig);
        scratch_clean();
    }
}

/* One that never ends has two seconds, as any that doesn't move. */
TEST(a_peer_that_stays_where_nobody_knows_what_is_unsent)
{
    pair p;
    int  fd, fds;
    open_server(&p, &layers[0], "host=127.0.0.1,port=0", "");
    fd = tcp_connect(tcp_port(&p));
    PUMP(&p.near_rig, p.near.open);
    CHECK_INT(chr_fe_write(&p.near.fe, "x", 1), 1);
    fds = count_fds();
    fault_arm(FAULT_ioctl, ENOTTY, 1, 1);
    fault_plan.haste = 10;
    end_connection(&p, 'd', NULL);
    pass_real_time(&p.near_rig, 1000);
    CHECK_INT(count_fds(), fds);
    PUMP(&p.near_rig, count_fds() == fds - 1);
    fault_disarm();
    close(fd);
    detach(&p.near);
    rig_close(&p.near_rig);
}

/* At the end of a context half a second. */
TEST(a_context_that_ends_where_nobody_knows_what_is_unsent)
{
    pair    p;
    int     fd;
    int64_t began;
    open_server(&p, &layers[0], "host=127.0.0.1,port=0", "");
    fd = tcp_connect(tcp_port(&p));
    PUMP(&p.near_rig, p.near.open);
    CHECK_INT(chr_fe_write(&p.near.fe, "x", 1), 1);
    fault_arm(FAULT_ioctl, ENOTTY, 1, 1);
    detach(&p.near);
    began = real_ms();
    CHECK_INT(chr_context_reset(p.near_rig.ctx), 0);
    CHECK(real_ms() - began >= 400 && real_ms() - began < 1900 * test_time_scale());
    fault_disarm();
    close(fd);
    rig_close(&p.near_rig);
}

/* One that reads a little now and then is waited for, ten seconds in all. */
TEST(a_trickle_ends)
{
    static char bytes[1 << 16];
    pair        p;
    int         fd, fds;
    int64_t     began;
    fault_plan.haste = 10;
    open_server(&p, &layers[0], "host=127.0.0.1,port=0", ",obuf=64M");
    fd = tcp_connect(tcp_port(&p));
    PUMP(&p.near_rig, p.near.open);
    write_much(&p);
    fds = count_fds();
    CHECK_INT(chr_fe_disconnect(&p.near.fe), 0);
    for (began = real_ms(); real_ms() < began + 700;) {
        CHECK(recv(fd, bytes, sizeof bytes, 0) > 0);
        pass_real_time(&p.near_rig, 400);
    }
    CHECK_INT(count_fds(), fds);
    for (; real_ms() < began + 1200;) {
        (void)recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        pass_real_time(&p.near_rig, 400);
    }
    CHECK_INT(count_fds(), fds - 1);
    CHECK_HAS(p.near_rig.log, "are lost");
    close(fd);
    detach(&p.near);
    rig_close(&p.near_rig);
}

/* Each peer that sleeps lingers for itself; there is a limit to how many. */
TEST(there_is_a_limit_to_those_that_linger)
{
    enum { MANY = 100 };
    int  peers[MANY], i, fds, set;
    char text[500];
    pair p;
    open_server(&p, &layers[2], unix_address(text, sizeof text), "");
    fds = count_fds();
    for (i = 0; i < MANY; i++) {
        peers[i] = unix_connect(scratch("s"));
        say(peers[i], WS_REQUEST);
        PUMP(&p.near_rig, p.near.open);
        CHECK_INT(chr_fe_disconnect(&p.near.fe), 0);
        settle(&p.near_rig);
    }
    set = count_fds() - (fds + MANY + 64); /* so many watches may have made the loop take a set of the kernel's */
    CHECK(set == 0 || set == 1);
    for (i = 0; i < MANY; i++) close(peers[i]);
    settle(&p.near_rig);
    CHECK_INT(count_fds(), fds + set);
    detach(&p.near);
    rig_close(&p.near_rig);
    scratch_clean();
}

static int64_t end_of_a_context(const void *much)
{
    pair    p;
    int64_t began;
    open_pair(&p, &layers[2], 1, "");
    if (much) write_much(&p);
    detach(&p.near);
    began = real_ms();
    chr_context_free(p.near_rig.ctx);
    began = real_ms() - began;
    p.near_rig.ctx = NULL;
    CHECK_INT(p.near_rig.live, 0);
    close_pair(&p);
    return began;
}

/* The context's end waits two seconds for a peer that reads nothing, and not at all for one that has had everything. */
TEST(the_end_of_a_context_is_bounded)
{
    int64_t took = end_of_a_context("much");
    CHECK(took >= 1900 && took < 9000 * test_time_scale());
    CHECK(least_ms(1000, end_of_a_context, NULL) < 1000);
}

/* ---- handshakes -------------------------------------------------------------------------------------------------- */

static int connect_and_say(const char *text)
{
    int fd = unix_connect(scratch("s"));
    REQUIRE(fd >= 0);
    if (text) say(fd, text);
    return fd;
}

/* Fifteen peers send nothing, or stop in the handshake: the sixteenth gets the chardev, and the others are closed. */
TEST(silent_peers_keep_nobody_out)
{
    int i, k;
    for (i = 2; i < LAYERS; i++) {
        int  silent[15], fds, own;
        char text[500];
        pair p;
        open_server(&p, &layers[i], unix_address(text, sizeof text), "");
        fds = count_fds();
        for (k = 0; k < 15; k++) silent[k] = connect_and_say(k % 2 ? layers[i].begins : NULL);
        settle(&p.near_rig);
        CHECK_INT(count_fds(), fds + 30);
        CHECK_STR(p.near.events, "");
        own = count_fds();
        rig_open_virtual(&p.far_rig);
        own = count_fds() - own; /* of the context: the waker, where it is a descriptor */
        add_key(&p.far_rig, "id=tc,endpoint=client,username=fred");
        snprintf(text, sizeof text, "socket,id=c,reconnect-ms=1000000,path=%s%s", scratch("s"), layers[i].client);
        attach(&p.far, make(&p.far_rig, text));
        BOTH(&p, p.near.open && p.far.open);
        for (k = 0; k < 15; k++) {
            hear(silent[k]); /* TLS may say something before */
            CHECK_STR(hear(silent[k]), "(eof)");
            close(silent[k]);
        }
        CHECK_INT(chr_fe_write(&p.far.fe, "hello", 5), 5);
        BOTH(&p, p.near.length == 5);
        CHECK_STR(p.near_rig.log, "");
        settle(&p.near_rig);
        CHECK_INT(count_fds(), fds + 2 + own); /* one here, one there */
        close_pair(&p);
    }
}

/* Sixteen are all that there may be: the next one waits in the backlog until one goes, or its ten seconds are over. */
TEST(sixteen_handshakes_at_once)
{
    int  silent[16], k, fds, late;
    char text[500];
    pair p;
    fault_plan.haste = 10;
    open_server(&p, &layers[2], unix_address(text, sizeof text), "");
    fds = count_fds();
    for (k = 0; k < 16; k++) silent[k] = connect_and_say(NULL);
    settle(&p.near_rig);
    CHECK_INT(count_fds(), fds + 32);
    late = connect_and_say(WS_REQUEST);
    settle(&p.near_rig);
    CHECK_STR(hear(late), "");
    CHECK_STR(p.near.events, "");
    close(silent[3]);
    settle(&p.near_rig);
    CHECK_HAS(hear(late), "HTTP/1.1 101");
    CHECK_STR(p.near.events, "O");
    for (k = 0; k < 16; k++)
        if (k != 3) close(silent[k]);
    close(late);
    settle(&p.near_rig);
    CHECK_STR(p.near.events, "OC");
    for (k = 0; k < 16; k++) silent[k] = connect_and_say(NULL);
    settle(&p.near_rig);
    late = connect_and_say(WS_REQUEST);
    pass_real_time(&p.near_rig, 10500);
    CHECK_HAS(hear(late), "HTTP/1.1 101");
    for (k = 0; k < 16; k++) close(silent[k]);
    close(late);
    detach(&p.near);
    rig_close(&p.near_rig);
    scratch_clean();
}

/* A descriptor that is given joins those whose handshakes are under way. */
TEST(clients_are_added_beside_handshakes)
{
    int       silent, fds[2];
    char      text[500];
    chr_error err;
    pair      p;
    open_server(&p, &layers[2], unix_address(text, sizeof text), "");
    silent = connect_and_say("GET ");
    settle(&p.near_rig);
    socket_pair(fds);
    CHECK_INT(chr_add_client(p.near_rig.ctx, "s", fds[1], &err), 0);
    say(fds[0], WS_REQUEST);
    settle(&p.near_rig);
    CHECK_HAS(hear(fds[0]), "HTTP/1.1 101");
    CHECK_STR(p.near.events, "O");
    CHECK_STR(hear(silent), "(eof)");
    close(silent);
    close(fds[0]);
    settle(&p.near_rig);
    socket_pair(fds);
    CHECK_INT(chr_add_client(p.near_rig.ctx, "s", fds[1], &err), 0);
    close(fds[0]);
    detach(&p.near);
    rig_close(&p.near_rig);
    scratch_clean();
}

/* wait=on, and chr_wait_connected(): silent peers before the first complete handshake don't count. */
TEST(who_waits_for_a_peer_waits_past_silent_ones)
{
    int       i, status;
    char      text[500];
    chr_error err;
    for (i = 0; i < 2; i++) {
        pair  p;
        pid_t child;
        memset(&p, 0, sizeof p);
        (void)scratch("s"); /* for both */
        child = fork();
        if (child == 0) {
            int silent[3], k, fd;
            for (k = 0; k < 3; k++)
                while ((silent[k] = unix_connect(scratch("s"))) < 0) usleep(10000);
            fd = connect_and_say(WS_REQUEST);
            while (strncmp(hear(fd), "HTTP/1.1 101", 12) != 0) usleep(10000);
            while (strcmp(hear(fd), "(eof)") != 0) usleep(10000);
            _exit(0);
        }
        rig_open(&p.near_rig);
        snprintf(text, sizeof text, "socket,id=s,server=on,wait=%s,websocket=on,path=%s", i ? "on" : "off", scratch("s"));
        attach(&p.near, make(&p.near_rig, text));
        if (!i && !CHECK_INT(chr_fe_wait_connected(&p.near.fe, &err), 0)) NOTE("%s", err.text);
        settle(&p.near_rig);
        CHECK_STR(p.near.events, "O");
        detach(&p.near);
        rig_close(&p.near_rig);
        waitpid(child, &status, 0);
        CHECK_INT(status, 0);
        unlink(scratch("s"));
    }
    scratch_clean();
}

/* Three thousand times a peer comes and goes: in the middle of its handshake, right after it, with a reset, with
 * words that are none. */
static void come_and_go(const void *arg)
{
    const layer *l = (const layer *)arg;
    char         text[500];
    pair         p;
    int          k, fd, fds;
    long         live = 0;
    open_server(&p, l, unix_address(text, sizeof text), ",obuf=4K");
    fds = count_fds();
    for (k = 0; k < 3000; k++) {
        fd = connect_and_say(k % 3 == 0 ? l->begins : k % 3 == 1 ? "\r\n\r\n no such thing \r\n\r\n" : strstr(l->name, "ws") ? WS_REQUEST : NULL);
        settle(&p.near_rig);
        if (k % 2) CHECK(chr_fe_write(&p.near.fe, "bytes", 5) != 0);
        close(fd);
        settle(&p.near_rig);
        if (k == 10) live = p.near_rig.live;
        if (k > 10 && !CHECK(p.near_rig.live <= live + 1)) break;
    }
    CHECK_INT(count_fds(), fds);
    detach(&p.near);
    rig_close(&p.near_rig);
    scratch_clean();
}

TEST_FAMILY(come_and_go)
{
    char name[100];
    int  i;
    for (i = 0; i < LAYERS; i++) {
        snprintf(name, sizeof name, "come_and_go_%s", layers[i].name);
        test_add_case(name, come_and_go, &layers[i], 2 * TEST_SECONDS);
    }
}

/* ---- floods: each read gives as much as is asked for, for ever --------------------------------------------------- */

enum { TURN = 65536 };

static int open_flooded(pair *p, const layer *l)
{
    char text[500];
    int  fd;
    open_server(p, l, unix_address(text, sizeof text), "");
    fd = connect_and_say(strcmp(l->name, "websocket") == 0 ? WS_REQUEST : NULL);
    PUMP(&p->near_rig, p->near.open);
    settle(&p->near_rig);
    say(fd, "!"); /* stays unread, so that poll says so */
    fault_plan.flood = l->chatter;
    fault_plan.flood_size = l->chatter_size;
    fault_plan.flood_at = 0;
    return fd;
}

static void close_flooded(pair *p, int fd)
{
    fault_plan.flood = NULL;
    close(fd);
    detach(&p->near);
    rig_close(&p->near_rig);
    scratch_clean();
}

TEST(a_flood_gets_a_bounded_share_of_each_turn)
{
    int i, k;
    NEED_POSIX("there are no faults of system calls on this system");
    for (i = 1; i < 3; i++) {
        pair p;
        int  fd = open_flooded(&p, &layers[i]);
        for (k = 0; k < 10; k++) {
            fault_plan.flooded = 0;
            CHECK(chr_loop_step(p.near_rig.ctx, 0) > 0);
            CHECK(fault_plan.flooded > 0);
            CHECK(fault_plan.flooded <= TURN);
        }
        CHECK_STR(p.near.events, "O");
        close_flooded(&p, fd);
    }
}

/* Without a layer too: four buffers a turn, and then the others. */
TEST(a_flood_without_layers_gets_a_bounded_share_of_each_turn)
{
    pair p;
    int  k, fd;
    NEED_POSIX("there are no faults of system calls on this system");
    fd = open_flooded(&p, &layers[0]);
    fault_plan.flood = "x";
    fault_plan.flood_size = 1;
    for (k = 0; k < 10; k++) {
        fault_plan.flooded = 0;
        CHECK(chr_loop_step(p.near_rig.ctx, 0) > 0);
        CHECK(fault_plan.flooded > 0);
        CHECK(fault_plan.flooded <= 4 * TURN);
    }
    CHECK_STR(p.near.events, "O");
    close_flooded(&p, fd);
}

TEST(who_blocks_keeps_its_time_in_a_flood)
{
    int i;
    NEED_POSIX("there are no faults of system calls on this system");
    for (i = 1; i < 3; i++) {
        pair    p;
        char    four[4];
        int     fd = open_flooded(&p, &layers[i]);
        int64_t began = real_ms();
        CHECK_INT(chr_fe_read_all(&p.near.fe, four, 4, 200), CHR_ERR_TIMEOUT);
        CHECK(real_ms() - began >= 190);
        CHECK(real_ms() - began < 20000 * test_time_scale());
        CHECK_INT(chr_fe_read_all(&p.near.fe, four, 4, 0), CHR_ERR_TIMEOUT);
        close_flooded(&p, fd);
    }
}

#ifdef CHARDEV_MBEDTLS
/* Warnings in plain text, in the middle of the handshake: mbed TLS would read them for as long as they come. The ten
 * seconds go on. */
TEST(alerts_in_a_handshake_are_bounded_in_bytes_and_in_time)
{
    static const char alert[] = { 21, 3, 3, 0, 2, 1, 90 };
    char              text[500];
    pair              p;
    int               k, fds;
    fault_plan.haste = 10;
    open_server(&p, &layers[3], unix_address(text, sizeof text), "");
    fds = count_fds();
    rig_open_virtual(&p.far_rig);
    add_key(&p.far_rig, "id=tc,endpoint=client,username=fred");
    snprintf(text, sizeof text, "socket,id=c,reconnect-ms=1000000,path=%s%s", scratch("s"), layers[3].client);
    attach(&p.far, make(&p.far_rig, text));
    for (k = 0; k < 10 && count_fds() < fds + 4; k++) chr_loop_step(p.near_rig.ctx, 1); /* its hello is answered */
    settle(&p.near_rig);
    chr_loop_step(p.far_rig.ctx, 10); /* the answer to that will not be read: so poll says that there is something */
    fault_plan.flood = alert;
    fault_plan.flood_size = sizeof alert;
    for (k = 0; k < 5000 && !p.near_rig.log[0]; k++) {
        fault_plan.flooded = 0;
        chr_loop_step(p.near_rig.ctx, 1);
        CHECK(fault_plan.flooded <= 2 * TURN); /* twice when it ends, and the rest is thrown away */
    }
    CHECK_HAS(p.near_rig.log, "chardev s: ");
    CHECK_STR(p.near.events, "");
    fault_plan.flood = NULL;
    close_pair(&p);
}
#endif

/* ---- signs of life, and a new peer in the place of the old one --------------------------------------------------- */

static int open_with(pair *p, const layer *l, const char *more)
{
    char text[500];
    open_server(p, l, unix_address(text, sizeof text), more);
    return connect_and_say(strcmp(l->name, "websocket") == 0 ? WS_REQUEST : NULL);
}

static void close_with(pair *p, int fd)
{
    if (fd >= 0) close(fd);
    detach(&p->near);
    rig_close(&p->near_rig);
    scratch_clean();
}

/* A websocket peer that answers pings, or says anything at all, stays; one that is silent is gone after two of them.
 * The context's clock stands still. */
TEST(pings_find_out_who_has_vanished)
{
    pair p;
    int  fd, i;
    fault_plan.haste = 10;
    fd = open_with(&p, &layers[2], ",keep-alive=on,keep-alive-idle=6,keep-alive-interval=3,keep-alive-count=2");
    PUMP(&p.near_rig, p.near.open);
    CHECK_HAS(hear(fd), "HTTP/1.1 101");
    pass_real_time(&p.near_rig, 2000);
    CHECK_STR(hear(fd), "");
    for (i = 0; i < 3; i++) { /* it answers */
        struct pollfd poll_in = { 0, POLLIN, 0 };
        char          ping[8];
        poll_in.fd = fd;
        PUMP(&p.near_rig, poll(&poll_in, 1, 0) > 0);
        CHECK_INT(read(fd, ping, sizeof ping), 2);
        CHECK(ping[0] == (char)0x89 && ping[1] == 0);
        CHECK_INT(write(fd, "\x8a\x80mask", 6), 6);
    }
    for (i = 0; i < 5; i++) { /* or says something */
        CHECK_INT(write(fd, "\x82\x81\0\0\0\0x", 7), 7);
        pass_real_time(&p.near_rig, 2000);
        CHECK_STR(hear(fd), "");
    }
    CHECK_INPUT(&p.near, "xxxxx");
    CHECK_STR(p.near.events, "O");
    CHECK_STR(p.near_rig.log, "");
    pass_real_time(&p.near_rig, 3000);
    CHECK_STR(p.near.events, "O");
    PUMP(&p.near_rig, !p.near.open);
    CHECK_MEM(hear(fd), 4, "\x89\0\x89\0", 4);
    CHECK_STR(p.near_rig.log, "chardev s: the peer has not answered 2 pings: it is closed\n");
    close_with(&p, fd);
}

/* What was not read yet is a sign of life. */
TEST(an_idle_peer_is_closed)
{
    int i;
    for (i = 0; i < 3; i++) {
        pair p;
        int  fd, k;
        fault_plan.haste = 10;
        fd = open_with(&p, &layers[i], ",idle-timeout=6");
        PUMP(&p.near_rig, p.near.open);
        for (k = 0; k < 4; k++) {
            pass_real_time(&p.near_rig, 2000);
            CHECK_INT(write(fd, "\x82\x81\0\0\0\0x", 7), 7);
        }
        pass_real_time(&p.near_rig, 100);
        CHECK_STR(p.near.events, "O");
        p.near.room = 0;
        CHECK_INT(write(fd, "\x82\x81\0\0\0\0x", 7), 7);
        pass_real_time(&p.near_rig, 12000);
        CHECK_STR(p.near.events, "O");
        give_room(&p.near, 1000);
        settle(&p.near_rig);
        pass_real_time(&p.near_rig, 1000);
        CHECK_STR(p.near.events, "O");
        PUMP(&p.near_rig, !p.near.open);
        CHECK_STR(p.near_rig.log, "chardev s: the peer has sent nothing for 6 seconds: it is closed\n");
        hear(fd); /* greetings and goodbyes */
        CHECK_STR(hear(fd), "(eof)");
        close_with(&p, fd);
    }
}

TEST(tcp_keep_alive_is_set)
{
    char      text[200];
    int       port, listener, fds[2], value = 0;
    socklen_t size = sizeof value;
    rig       r;
    chr_error err;
    NEED_POSIX("Wine takes no times for keep-alive");
    rig_open(&r);
    listener = tcp_listen(&port);
    fds[0] = tcp_connect(port);
    fds[1] = dup(fds[0]);
    snprintf(text, sizeof text, "socket,id=k,fd=%d,keep-alive=on,keep-alive-idle=7,keep-alive-interval=3,keep-alive-count=4", fds[0]);
    make(&r, text);
    CHECK_INT(getsockopt(fds[1], SOL_SOCKET, SO_KEEPALIVE, &value, &size), 0);
    CHECK_INT(value, 1);
    CHECK_INT(getsockopt(fds[1], IPPROTO_TCP, TCP_KEEPIDLE, &value, &size), 0);
    CHECK_INT(value, 7);
    CHECK_INT(getsockopt(fds[1], IPPROTO_TCP, TCP_KEEPINTVL, &value, &size), 0);
    CHECK_INT(value, 3);
    CHECK_INT(getsockopt(fds[1], IPPROTO_TCP, TCP_KEEPCNT, &value, &size), 0);
    CHECK_INT(value, 4);
#ifdef TCP_USER_TIMEOUT
    CHECK_INT(getsockopt(fds[1], IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &size), 0);
    CHECK_INT(value, 19000);
#endif
    CHECK_INT(chr_remove(r.ctx, "k", &err), 0);
    close(fds[1]);
    close(listener);
    rig_close(&r);
}

TEST(bad_options)
{
    static const char *const bad[][2] = {
        { "path=/tmp/x,server=on,wait=off,keep-alive=on", "keep-alive=on is for TCP and for websocket=on only" },
        { "cid=1,port=1,server=on,wait=off,keep-alive=on", "keep-alive=on is for TCP" },
        { "host=127.0.0.1,port=0,server=on,wait=off,keep-alive-idle=3", "keep-alive-idle= , keep-alive-interval=" },
        { "host=127.0.0.1,port=0,server=on,wait=off,keep-alive=on,keep-alive-idle=40000", "keep-alive-idle=40000" },
        { "host=127.0.0.1,port=0,server=on,wait=off,keep-alive=on,keep-alive-count=128", "keep-alive-count=128" },
        { "host=127.0.0.1,port=1,replace=on", "replace= is for a server" },
        { "host=127.0.0.1,port=0,server=on,wait=off,idle-timeout=-1", "idle-timeout=-1" },
    };
    size_t    i;
    chr_error err;
    rig       r;
    rig_open(&r);
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[300], want[100];
        snprintf(text, sizeof text, "socket,id=b,%s", bad[i][0]);
        snprintf(want, sizeof want, "%.*s", (int)strcspn(bad[i][1], " ,"), bad[i][1]);
        refuse(&r, text, &err);
        CHECK_HAS(err.text, want);
    }
    rig_close(&r);
}

/* The old one gets a proper close, and the new one only counts when its handshake is over. */
TEST(a_new_peer_replaces_the_old_one)
{
    int i;
    for (i = 0; i < 3; i++) {
        pair      p;
        int       old, silent, fresh, fds[2];
        chr_error err;
        old = open_with(&p, &layers[i], ",replace=on");
        PUMP(&p.near_rig, p.near.open);
        hear(old);
        if (i == 2) {
            silent = connect_and_say("GET ");
            settle(&p.near_rig);
            CHECK_STR(p.near.events, "O");
            close(silent);
            settle(&p.near_rig);
            CHECK_STR(p.near.events, "O");
        }
        fresh = connect_and_say(i == 2 ? WS_REQUEST : NULL);
        settle(&p.near_rig);
        CHECK_STR(p.near.events, "OCO");
        if (i == 2) CHECK_MEM(hear(old), 4, "\x88\2\3\xe8", 4);
        CHECK_STR(hear(old), "(eof)");
        hear(fresh);
        CHECK_INT(chr_fe_write(&p.near.fe, "x", 1), 1);
        CHECK_HAS(hear(fresh) + (i == 2 ? 2 : 0), "x");
        close(old);
        socket_pair(fds);
        if (!CHECK_INT(chr_add_client(p.near_rig.ctx, "s", fds[1], &err), 0)) NOTE("%s", err.text);
        if (i == 2) say(fds[0], WS_REQUEST);
        settle(&p.near_rig);
        CHECK_STR(p.near.events, "OCOCO");
        hear(fresh);
        CHECK_STR(hear(fresh), "(eof)");
        close(fresh);
        settle(&p.near_rig);
        close_with(&p, fds[0]);
    }
}

static void write_at_the_end(recorder *rec, int what)
{
    if (what == 'e' && rec->last_event == CHR_EVENT_CLOSED) rec->user = (void *)(intptr_t)chr_fe_write(&rec->fe, "late", 4);
}

/* Nobody is there between the two: what is written then goes into the history, and not before it to the new one. */
TEST(what_is_written_when_a_peer_is_replaced_is_not_for_the_new_one)
{
    static const char *const histories[] = { "", ",history=100" };
    rig      r;
    recorder rec;
    int      i, old, fresh;
    char     text[200];
    for (i = 0; i < 2; i++) {
        rig_open(&r);
        snprintf(text, sizeof text, "socket,id=s,path=%s,server=on,wait=off,replace=on%s", scratch("s"), histories[i]);
        attach(&rec, make(&r, text));
        rec.then = write_at_the_end;
        old = unix_connect(scratch("s"));
        settle(&r);
        CHECK_INT(chr_fe_write(&rec.fe, "early ", 6), 6);
        CHECK_STR(hear(old), "early ");
        fresh = unix_connect(scratch("s"));
        settle(&r);
        CHECK_STR(rec.events, "OCO");
        CHECK_INT((int)(intptr_t)rec.user, CHR_ERR_DISCONNECTED);
        CHECK_STR(hear(old), "(eof)");
        CHECK_INT(chr_fe_write(&rec.fe, "!", 1), 1);
        CHECK_STR(hear(fresh), i ? "early late!" : "!");
        close(old);
        close(fresh);
        detach(&rec);
        rig_close(&r);
    }
}

static void disconnect_once(recorder *rec, int what)
{
    int fds[2];
    if (what != 'e' || rec->last_event != CHR_EVENT_CLOSED || rec->user) return;
    rec->user = rec;
    CHECK_INT(chr_fe_disconnect(&rec->fe), 0);
    socket_pair(fds);
    CHECK_INT(chr_add_client(rec->fe.ctx, "s", fds[1], NULL), 0);
    CHECK_INT(chr_fe_write(&rec->fe, "for the third", 13), 13);
    rec->changes = fds[0];
}

/* A handler of the old one's end may end the new one, and bring a third. */
TEST(a_new_peer_may_go_before_it_has_replaced_the_old_one)
{
    rig      r;
    recorder rec;
    int      old, fresh;
    char     text[200];
    rig_open(&r);
    snprintf(text, sizeof text, "socket,id=s,path=%s,server=on,wait=off,replace=on", scratch("s"));
    attach(&rec, make(&r, text));
    rec.then = disconnect_once;
    old = unix_connect(scratch("s"));
    settle(&r);
    fresh = unix_connect(scratch("s"));
    settle(&r);
    CHECK_STR(rec.events, "OCO");
    CHECK_STR(hear(old), "(eof)");
    CHECK_STR(hear(fresh), "(eof)");
    CHECK_STR(hear(rec.changes), "for the third");
    close(old);
    close(fresh);
    close(rec.changes);
    settle(&r);
    CHECK_STR(rec.events, "OCOC");
    detach(&rec);
    rig_close(&r);
}

/* ---- several clients at once ------------------------------------------------------------------------------------- */

enum { CROWD = 3 };

typedef struct crowd {
    pair     p; /* its far side is the first client */
    rig      rigs[CROWD];
    recorder far[CROWD];
} crowd;

static void join(crowd *c, int i)
{
    char text[600];
    rig_open_virtual(&c->rigs[i]);
    add_key(&c->rigs[i], "id=tc,endpoint=client,username=fred");
    snprintf(text, sizeof text, "socket,id=c,reconnect-ms=1000000,path=%s%s", scratch("s"), c->p.layer->client);
    attach(&c->far[i], make(&c->rigs[i], text));
}

/* Those of the mask are awake. */
static void step_crowd(crowd *c, unsigned awake)
{
    int i;
    chr_loop_step(c->p.near_rig.ctx, 0);
    for (i = 0; i < CROWD; i++)
        if (c->rigs[i].ctx && awake & 1u << i) chr_loop_step(c->rigs[i].ctx, 0);
}

#define CROWD_UNTIL(c, awake, condition)                                          \
    do {                                                                          \
        int64_t crowd_end = real_ms() + RIG_PATIENCE_MS * test_time_scale();      \
        while (!(condition) && real_ms() < crowd_end) step_crowd((c), (awake));   \
        test_check(!!(condition), __FILE__, __LINE__, "never came: " #condition); \
    } while (0)

static crowd *open_crowd(const layer *l, const char *more)
{
    char   text[500];
    crowd *c = (crowd *)calloc(1, sizeof *c);
    REQUIRE(c != NULL);
    open_server(&c->p, l, unix_address(text, sizeof text), more);
    return c;
}

static void leave(crowd *c, int i)
{
    if (!c->rigs[i].ctx) return;
    detach(&c->far[i]);
    chr_context_free(c->rigs[i].ctx);
    CHECK_INT(c->rigs[i].live, 0);
    c->rigs[i].ctx = NULL;
}

static void close_crowd(crowd *c)
{
    int i;
    for (i = 0; i < CROWD; i++) leave(c, i);
    if (c->p.near.fe.dev) detach(&c->p.near);
    rig_close(&c->p.near_rig);
    scratch_clean();
    free(c);
}

static chr_info info_of(crowd *c)
{
    chr_info info;
    chr_query(c->p.near.fe.dev, &info);
    return info;
}

/* Output goes to all, input comes from any; the first opens it and the last closes it; one more waits until there is
 * a place. */
static void check_crowd(const void *arg)
{
    const layer *l = (const layer *)arg;
    crowd       *c = open_crowd(l, ",clients=2,history=100");
    CHECK_INT(chr_fe_write(&c->p.near.fe, "early ", 6), CHR_ERR_DISCONNECTED);
    CHECK_INT(info_of(c).bytes_dropped, 6);
    join(c, 0);
    CROWD_UNTIL(c, 7, c->far[0].length == 6);
    CHECK_STR(c->p.near.events, "O");
    CHECK_INT(info_of(c).clients, 1);
    CHECK_INT(chr_fe_write(&c->p.near.fe, "one ", 4), 4);
    join(c, 1);
    CROWD_UNTIL(c, 7, c->far[1].length == 10 && c->far[0].length == 10);
    CHECK_INPUT(&c->far[1], "early one ");
    CHECK_INT(info_of(c).clients, 2);
    CHECK_HAS(info_of(c).client_addresses, " ");
    CHECK_INT(chr_fe_write(&c->p.near.fe, "two", 3), 3);
    CROWD_UNTIL(c, 7, c->far[1].length == 13 && c->far[0].length == 13);
    CHECK_INPUT(&c->far[0], "early one two");
    CHECK_INPUT(&c->far[1], "early one two");
    CHECK_INT(chr_fe_write(&c->far[1].fe, "b", 1), 1);
    CROWD_UNTIL(c, 7, c->p.near.length == 1);
    CHECK_INT(chr_fe_write(&c->far[0].fe, "a", 1), 1);
    CROWD_UNTIL(c, 7, c->p.near.length == 2);
    CHECK_INPUT(&c->p.near, "ba");
    join(c, 2);
    for (int i = 0; i < 50; i++) step_crowd(c, 7);
    CHECK_INT(c->far[2].length, 0);
    CHECK_INT(info_of(c).clients, 2);
    leave(c, 0);
    CROWD_UNTIL(c, 7, c->far[2].length == 13);
    CHECK_INPUT(&c->far[2], "early one two");
    CHECK_STR(c->p.near.events, "O");
    CHECK_INT(info_of(c).bytes_dropped, 6);
    CHECK_INT(info_of(c).bytes_queued, 0);
    leave(c, 1);
    leave(c, 2);
    CROWD_UNTIL(c, 7, !c->p.near.open);
    CHECK_STR(c->p.near.events, "OC");
    CHECK_INT(info_of(c).clients, 0);
    CHECK_STR(info_of(c).client_addresses, "");
    close_crowd(c);
}

TEST_FAMILY(crowds)
{
    char name[100];
    int  i;
    for (i = 0; i < LAYERS; i++) {
        snprintf(name, sizeof name, "several_clients_%s", layers[i].name);
        test_add_case(name, check_crowd, &layers[i], TEST_SECONDS);
    }
}

/* Without obuf= the slowest sets the pace, and nothing is sent twice; with it the others have theirs while one
 * sleeps. */
static void check_slow_client(const void *arg)
{
    const layer  *l = (const layer *)arg;
    unsigned char block[4000];
    size_t        i, taken = 0;
    int           n, idle, more;
    NEED_LITTLE_ROOM();
    for (more = 0; more < 2; more++) {
        crowd *c = open_crowd(l, more ? ",clients=3,obuf=8M" : ",clients=3");
        for (taken = 0, n = 0; n < CROWD; n++) join(c, n);
        CROWD_UNTIL(c, 7, c->far[0].open && c->far[1].open && c->far[2].open && info_of(c).clients == 3);
        for (idle = 0; idle < 20 && taken < 3000000;) {
            for (i = 0; i < sizeof block; i++) block[i] = pattern(taken + i);
            n = chr_fe_write(&c->p.near.fe, block, sizeof block);
            taken += n > 0 ? (size_t)n : 0;
            idle = n > 0 ? 0 : idle + 1;
            step_crowd(c, 5); /* the second sleeps */
        }
        if (more) CHECK(taken >= 3000000);
        else CHECK(taken < 3000000);
        if (more) CROWD_UNTIL(c, 5, c->far[0].length == taken && c->far[2].length == taken);
        CHECK(c->far[1].length < taken);
        while (!more && n != (int)sizeof block) { /* the others may be ahead of what was taken: until that is, too */
            for (i = 0; i < sizeof block; i++) block[i] = pattern(taken + i);
            n = chr_fe_write(&c->p.near.fe, block, sizeof block);
            taken += n > 0 ? (size_t)n : 0;
            step_crowd(c, 7);
        }
        CROWD_UNTIL(c, 7, c->far[0].length == taken && c->far[1].length == taken && c->far[2].length == taken);
        for (n = 0; n < CROWD; n++) check_pattern(&c->far[n]);
        close_crowd(c);
    }
}

TEST_FAMILY(slow_clients)
{
    char name[100];
    int  i;
    for (i = 0; i < LAYERS; i++) {
        snprintf(name, sizeof name, "slow_client_%s", layers[i].name);
        test_add_case(name, check_slow_client, &layers[i], TEST_SECONDS);
    }
}

/* One that sleeps while the chardev goes still gets what is its own; disconnect ends them all. */
TEST(the_end_of_several_clients)
{
    int l, how;
    NEED_LITTLE_ROOM();
    for (l = 0; l < LAYERS; l++)
        for (how = 0; how < 2; how++) {
            crowd *c = open_crowd(&layers[l], ",clients=3,obuf=1M");
            int    n;
            for (n = 0; n < CROWD; n++) join(c, n);
            CROWD_UNTIL(c, 7, c->far[0].open && c->far[1].open && c->far[2].open && info_of(c).clients == 3);
            while (c->p.taken < 600000) write_much(&c->p);
            end_connection(&c->p, how ? 'r' : 'd', NULL);
            CROWD_UNTIL(c, 7, !c->far[0].open && !c->far[1].open && !c->far[2].open);
            for (n = 0; n < CROWD; n++) {
                CHECK_INT(c->far[n].length, c->p.taken);
                check_pattern(&c->far[n]);
            }
            CHECK_STR(c->p.near_rig.log, "");
            if (!how) CHECK_STR(c->p.near.events, "OC");
            if (how) free(c->p.near.input);
            close_crowd(c);
        }
}

TEST(several_clients_have_limits)
{
    static const char *const bad[][2] = {
        { "path=/tmp/x,clients=2", "clients= is for a server" },
        { "path=/tmp/x,server=on,wait=off,telnet=on,com-port=on,clients=2", "clients=2 can't be used with com-port=on" },
        { "path=/tmp/x,server=on,wait=off,replace=on,clients=2", "clients=2 and replace=on" },
        { "path=/tmp/x,server=on,wait=off,clients=0", "clients=0" },
        { "path=/tmp/x,server=on,wait=off,clients=65", "clients=65" },
    };
    size_t    i;
    chr_error err;
    crowd    *c;
    int       fds[2], null = open("/dev/null", O_RDONLY);
    rig       r;
    NEED_UNIX();
    rig_open(&r);
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[300];
        snprintf(text, sizeof text, "socket,id=b,%s", bad[i][0]);
        CHECK_INT(refuse(&r, text, &err), CHR_ERR_INVALID);
        CHECK_HAS(err.text, bad[i][1]);
    }
    rig_close(&r);
    close(null);
    c = open_crowd(&layers[0], ",clients=2");
    for (i = 0; i < 3; i++) {
        socket_pair(fds);
        CHECK_INT(chr_add_client(c->p.near_rig.ctx, "s", fds[1], &err), i < 2 ? 0 : CHR_ERR_BUSY);
        c->p.near_rig.fds++; /* kept until the end of the process */
        if (i == 2) close(fds[1]);
    }
    CHECK_HAS(err.text, "all its clients");
    settle(&c->p.near_rig);
    CHECK_INT(info_of(c).clients, 2);
    CHECK_STR(info_of(c).client_addresses, "unix unix");
    CHECK_INT(chr_fe_set_msgfds(&c->p.near.fe, fds, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_read_all(&c->p.near.fe, fds, 1, 0), CHR_ERR_NOT_SUPPORTED);
    close_crowd(c);
}

/* wait=on returns with the first of several clients; silent peers don't block others here either. */
TEST(several_clients_and_handshakes)
{
    char  text[500];
    int   silent[15], k, fds;
    crowd *c = open_crowd(&layers[2], ",clients=2");
    NEED_POSIX("the set opens handles of its own when there are many");
    (void)text;
    fds = count_fds();
    for (k = 0; k < 15; k++) silent[k] = connect_and_say(NULL);
    settle(&c->p.near_rig);
    join(c, 0);
    CROWD_UNTIL(c, 7, c->far[0].open);
    CHECK_INT(count_fds(), fds + 30 + 4); /* they may still come in, for there is a place */
    join(c, 1);
    CROWD_UNTIL(c, 7, c->far[1].open);
    settle(&c->p.near_rig);
    for (k = 0; k < 15; k++) {
        CHECK_STR(hear(silent[k]), "(eof)");
        close(silent[k]);
    }
    settle(&c->p.near_rig);
    CHECK_INT(info_of(c).clients, 2);
    CHECK_INT(count_fds(), fds + 8);
    close_crowd(c);
}

TEST(each_failed_allocation_of_several_clients_leaks_nothing)
{
    int n, fd[2];
    for (n = 1; n < 60; n++) {
        char      text[500];
        chr_error err;
        rig       r;
        chr_dev  *dev;
        rig_open(&r);
        r.fail_at = r.calls + n;
        snprintf(text, sizeof text, "socket,id=s,server=on,wait=off,clients=3,websocket=on,obuf=4K,history=4K,path=%s", scratch("s"));
        dev = chr_new(r.ctx, text, &err);
        if (!dev) {
            CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
        } else {
            recorder rec;
            attach(&rec, dev);
            fd[0] = connect_and_say(WS_REQUEST);
            settle(&r);
            fd[1] = connect_and_say(WS_REQUEST);
            settle(&r);
            chr_fe_write(&rec.fe, "x", 1);
            close(fd[0]);
            settle(&r);
            close(fd[1]);
            detach(&rec);
        }
        if (!r.failed && dev) n = 1000;
        rig_close(&r);
        unlink(scratch("s"));
    }
    CHECK(n > 1000);
    scratch_clean();
}

/* chr_drain() waits for lingering output, even if its chardev has no peer any more, or was removed. */
TEST(draining_waits_for_those_that_linger)
{
    int i;
    for (i = 0; i < LAYERS; i++) {
        pair      p;
        chr_error err;
        open_pair(&p, &layers[i], 0, ",obuf=100K");
        write_much(&p);
        chr_fe_deinit(&p.near.fe);
        CHECK_INT(chr_remove(p.near_rig.ctx, "s", &err), 0);
        CHECK_INT(chr_drain(p.near_rig.ctx, 50), CHR_ERR_TIMEOUT);
        BOTH(&p, !p.far.open);
        CHECK_INT(chr_drain(p.near_rig.ctx, 50), 0);
        CHECK_INT(p.far.length, p.taken);
        close_pair(&p);
    }
}

/* A full obuf= is each client's own: a sleeper is closed, or loses what is oldest, and the others have all. */
TEST(a_sleeper_among_several_clients_stops_nobody)
{
    unsigned char block[4000];
    size_t        i, taken;
    int           how, n, k;
    NEED_LITTLE_ROOM();
    for (how = 0; how < 2; how++) {
        crowd *c = open_crowd(&layers[2], how ? ",clients=3,obuf=64K,obuf-full=disconnect" : ",clients=3,obuf=64K,obuf-full=drop-oldest");
        for (n = 0; n < 2; n++) join(c, n);
        CROWD_UNTIL(c, 3, c->far[0].open && c->far[1].open && info_of(c).clients == 2);
        for (taken = 0; taken < 2000000;) {
            for (i = 0; i < sizeof block; i++) block[i] = pattern(taken + i);
            n = chr_fe_write(&c->p.near.fe, block, sizeof block);
            CHECK_INT(n, sizeof block);
            taken += n > 0 ? (size_t)n : 0;
            for (k = 0; k < 4; k++) step_crowd(c, 1); /* the second sleeps */
            if (n <= 0) break;
        }
        CROWD_UNTIL(c, 1, c->far[0].length == taken);
        check_pattern(&c->far[0]);
        CHECK_INT(info_of(c).clients, how ? 1 : 2);
        CHECK_STR(c->p.near.events, "O");
        if (!how) CHECK(info_of(c).bytes_dropped > 0);
        close_crowd(c);
    }
}
