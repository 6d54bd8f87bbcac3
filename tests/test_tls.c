/* TLS: both roles against each other, with a wire that the test controls. Real peers are in tests/peers/tls_*.py. */
#include "chardev.h"
#include "fault.h"
#include "private.h"
#include "rig.h"

#include <netinet/tcp.h>

#ifndef CHARDEV_MBEDTLS

TEST(tls) { SKIP("built without CHARDEV_MBEDTLS: mbedtls/ssl.h is missing"); }

TEST(built_without_tls_says_so)
{
    rig       r;
    chr_error err;

    rig_open(&r);
    CHECK_INT(refuse(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off,tls-creds=t", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_HAS(err.text, "built without TLS");
    CHECK_INT(chr_tls_creds_add(r.ctx, "tls-creds-x509,id=t", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_HAS(err.text, "built without TLS");
    CHECK_INT(chr_authz_add(r.ctx, "authz-list,id=t,match=x", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_tls_creds_remove(r.ctx, "t", &err), CHR_ERR_NOT_FOUND);
    CHECK_INT(chr_authz_remove(r.ctx, "t", &err), CHR_ERR_NOT_FOUND);
    rig_close(&r);
}

#else

#include <mbedtls/entropy.h>
#include <mbedtls/ssl.h>
#include <mbedtls/version.h>

/* With TLS 1.3 the server answers the first flight with all that it has to say. Its messages for a failed handshake
 * differ. */
#if MBEDTLS_VERSION_NUMBER >= 0x03060000
enum { FLIGHTS = 2 }; /* after the client's first */
static const char client_refused_us[] = "the handshake failed: SSL - Verification of the message MAC failed"; /* its alert is not encrypted */
static const char nothing_in_common[] = "the handshake failed: SSL - The handshake negotiation failed";
#else
enum { FLIGHTS = 3 };
static const char client_refused_us[] = "the peer has refused us (fatal alert)";
static const char nothing_in_common[] = "the handshake failed: SSL - The server has no ciphersuites in common";
#endif
static const char refused_us[] = "the peer has refused us (fatal alert)";

/* ---- certificates, made once for all tests ----------------------------------------------------------------------- */

static char no_certs[200];

#ifdef _WIN32
static char certs[300];

/* tests/windows/mbedtls.sh has made them. */
__attribute__((constructor)) static void make_certs(void)
{
    const char             *given = getenv("TEST_TLS_CERTS");
    mbedtls_entropy_context entropy;
    unsigned char           byte[1];
    snprintf(certs, sizeof certs, "%s", given ? given : "");
    if (!given) snprintf(no_certs, sizeof no_certs, "TEST_TLS_CERTS names no directory of certificates");
    mbedtls_entropy_init(&entropy); /* what the system's source of random numbers keeps open from its first use on */
    mbedtls_entropy_func(&entropy, byte, sizeof byte);
    mbedtls_entropy_free(&entropy);
}
#else
static char  certs[] = "/tmp/chardev-tls-XXXXXX";
static pid_t certs_owner;

__attribute__((constructor)) static void make_certs(void)
{
    const char *given = getenv("TEST_TLS_CERTS"); /* for those who start each test by itself */
    char        command[300];
    if (!given && system("openssl version >/dev/null 2>&1") != 0) {
        snprintf(no_certs, sizeof no_certs, "there is no openssl program to make certificates with");
        return;
    }
    certs_owner = getpid();
    if (!mkdtemp(certs)) abort();
    if (given) snprintf(command, sizeof command, "cp -Rp %.100s/. %s", given, certs); /* each changes its own */
    else snprintf(command, sizeof command, "sh tests/tls_certs.sh %s", certs);
    if (system(command) != 0) {
        printf("tests/tls_certs.sh has failed\n");
        exit(EXIT_FAILURE);
    }
}

__attribute__((destructor)) static void forget_certs(void)
{
    char command[300];
    if (certs_owner != getpid()) return;
    snprintf(command, sizeof command, "rm -rf %s", certs);
    if (system(command) != 0) printf("can't remove %s\n", certs);
}
#endif

/* printf() with each %% of "$" as the directory of certificates. In one of four static buffers. */
static const char *with_dir(const char *format)
{
    static char text[4][4000];
    static int  turn;
    size_t      len = 0;
    turn = (turn + 1) % 4;
    for (; *format; format++)
        len += (size_t)snprintf(text[turn] + len, sizeof text[turn] - len, *format == '$' ? "%s" : "%.1s", *format == '$' ? certs : format);
    return text[turn];
}

static void add_creds(rig *r, const char *options)
{
    chr_error err;
    if (!CHECK_INT(chr_tls_creds_add(r->ctx, with_dir(options), &err), 0)) NOTE("%s", err.text);
}

static void allow(rig *r, const char *options)
{
    chr_error err;
    if (!CHECK_INT(chr_authz_add(r->ctx, options, &err), 0)) NOTE("%s", err.text);
}

/* ---- a server and a client, and the wire between ----------------------------------------------------------------- */

typedef struct both {
    rig      r;
    recorder server, client;
    int      near_server, near_client; /* the test's ends of the wire */
    size_t   crumb;                    /* how many bytes are carried at a time */
    size_t   limit[2];                 /* how many at all, to the server and to the client */
    size_t   carried[2];
    size_t   flip;                     /* this byte of those to the client, counted from 1, is changed */
    int      cut;                      /* the wire is torn on purpose */
} both;

static const char server_x509[] = "tls-creds-x509,id=ts,endpoint=server,dir=$/server";
static const char server_psk[] = "tls-creds-psk,id=ts,endpoint=server,dir=$";
static const char client_x509[] = "tls-creds-x509,id=tc,dir=$/client";

static void both_begin(both *b)
{
    if (no_certs[0]) SKIP(no_certs);
    memset(b, 0, sizeof *b);
    rig_open_virtual(&b->r);
    b->crumb = 65536;
    b->limit[0] = b->limit[1] = (size_t)-1;
    b->near_server = b->near_client = -1;
}

static void no_delay(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void both_connect_server(both *b, const char *options)
{
    char     text[500], port[10];
    chr_info info;
    chr_dev *dev;

    snprintf(text, sizeof text, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off,nodelay=on,tls-creds=ts%s", options);
    dev = make(&b->r, text);
    attach(&b->server, dev);
    chr_query(dev, &info);
    snprintf(port, sizeof port, "%s", strrchr(info.address, ':') + 1);
    b->near_server = tcp_connect(atoi(port));
    REQUIRE(b->near_server >= 0);
    fcntl(b->near_server, F_SETFL, O_NONBLOCK);
    no_delay(b->near_server);
}

static void both_connect_client(both *b, const char *options)
{
    char text[500];
    int  fds[2];

    socket_pair(fds);
    b->near_client = fds[0];
    fcntl(b->near_client, F_SETFL, O_NONBLOCK);
    snprintf(text, sizeof text, "socket,id=c,fd=%d,tls-creds=tc%s", fds[1], options);
    attach(&b->client, make(&b->r, text));
}

/* With the usual credentials. */
static void both_connect(both *b, const char *server_options, const char *client_options)
{
    both_connect_server(b, server_options);
    both_connect_client(b, client_options);
}

static int carry(both *b, int from, int to, int way)
{
    unsigned char bytes[65536];
    struct pollfd p = { 0, POLLIN | POLLOUT, 0 };
    size_t        most = b->limit[way] - b->carried[way] < b->crumb ? b->limit[way] - b->carried[way] : b->crumb;
    ssize_t       n;

    p.fd = to;
    p.events = POLLOUT;
    if (from < 0 || to < 0 || most == 0 || poll(&p, 1, 0) <= 0) return 0;
    n = recv(from, bytes, most, 0);
    if (n == 0) shutdown(to, SHUT_WR);
    if (n <= 0) return 0;
    if (way == 1 && b->flip > b->carried[1] && b->flip <= b->carried[1] + (size_t)n) bytes[b->flip - 1 - b->carried[1]] ^= 1;
    for (most = 0; most < (size_t)n;) {
        ssize_t sent = send(to, bytes + most, (size_t)n - most, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return 0;
        if (sent < 0) chr_loop_step(b->r.ctx, 0); /* it reads: that makes room */
        else most += (size_t)sent;
    }
    b->carried[way] += (size_t)n;
    return 1;
}

/* Until nothing moves any more. */
static void both_settle(both *b)
{
    int quiet = 0;

    while (quiet < 3) {
        int moved = chr_loop_step(b->r.ctx, 0) > 0;
        if (!b->cut) moved |= carry(b, b->near_client, b->near_server, 0) | carry(b, b->near_server, b->near_client, 1);
        quiet = moved ? 0 : quiet + 1;
        if (!moved) usleep(200);
    }
}

static void both_end(both *b)
{
    detach(&b->server);
    detach(&b->client);
    if (b->near_server >= 0) close(b->near_server);
    if (b->near_client >= 0) close(b->near_client);
    rig_close(&b->r);
}

static void both_usual(both *b)
{
    both_begin(b);
    add_creds(&b->r, server_x509);
    add_creds(&b->r, client_x509);
    both_connect(b, "", ",tls-hostname=localhost");
}

/* ---- the ordinary ------------------------------------------------------------------------------------------------ */

TEST(hello_both_ways)
{
    both     b;
    chr_info info;

    both_usual(&b);
    CHECK_STR(b.server.events, "");
    both_settle(&b);
    CHECK_STR(b.server.events, "O");
    CHECK_STR(b.client.events, "O");
    CHECK_INT(chr_fe_write(&b.client.fe, "hello", 5), 5);
    CHECK_INT(chr_fe_write(&b.server.fe, "welcome", 7), 7);
    both_settle(&b);
    CHECK_INPUT(&b.server, "hello");
    CHECK_INPUT(&b.client, "welcome");
    chr_query(chr_find(b.r.ctx, "s"), &info);
    CHECK_HAS(info.filename, "tls:127.0.0.1:");
    CHECK_STR(b.r.log, "");
    both_end(&b);
}

TEST(split_at_every_byte)
{
    both b;

    both_usual(&b);
    b.crumb = 1;
    both_settle(&b);
    CHECK_STR(b.server.events, "O");
    CHECK_STR(b.client.events, "O");
    CHECK_INT(chr_fe_write(&b.client.fe, "hello", 5), 5);
    CHECK_INT(chr_fe_write(&b.server.fe, "welcome", 7), 7);
    both_settle(&b);
    CHECK_INPUT(&b.server, "hello");
    CHECK_INPUT(&b.client, "welcome");
    CHECK_INT(chr_fe_disconnect(&b.client.fe), 0);
    both_settle(&b);
    CHECK_STR(b.server.events, "OC");
    CHECK_STR(b.r.log, "");
    both_end(&b);
}

/* Record by record, each but the first of a flight would wait for an acknowledgement that the far side delays. */
TEST(a_flight_of_the_handshake_is_one_write)
{
    both b;

    NEED_POSIX("there are no faults of system calls on this system");
    both_usual(&b);
    fault_disarm();
    memset(fault_plan.counts, 0, sizeof fault_plan.counts);
    both_settle(&b);
    CHECK_STR(b.server.events, "O");
    CHECK_STR(b.client.events, "O");
    CHECK_INT(fault_plan.counts[FAULT_send], FLIGHTS); /* the client's first went when it was made */
    both_end(&b);
}

/* The connection is cut short, or never completes: OPENED is not delivered before that. */
/* Whichever write of the handshake would block: it goes on, and both open. */
TEST(each_write_of_the_handshake_may_block)
{
    both b;
    long at, written = 1;

    for (at = 1; at <= written; at++) {
        both_usual(&b);
        fault_arm(FAULT_send, EAGAIN, at, 0);
        both_settle(&b);
        written = fault_plan.counts[FAULT_send] < 12 ? fault_plan.counts[FAULT_send] : 12;
        fault_disarm();
        if (!CHECK_STR(b.server.events, "O") || !CHECK_STR(b.client.events, "O")) NOTE("at write %ld", at);
        CHECK_STR(b.r.log, "");
        both_end(&b);
    }
    CHECK(at > 3);
}

/* What the upper layer begins with waits for a handshake that nobody continues: the lingering close sends no more
 * than what TLS has sent, and its end. */
TEST(a_connection_that_ends_in_the_handshake_lingers_without_a_busy_loop)
{
    static const char *const layers[] = { "", ",websocket=on", ",telnet=on", ",tn3270=on" };
    both     b;
    unsigned i;
    int      steps;
    char     bytes[4096];
    ssize_t  n;

    for (i = 0; i < 4; i++) {
        both_begin(&b);
        add_creds(&b.r, client_x509);
        snprintf(bytes, sizeof bytes, ",tls-hostname=localhost%s", layers[i]);
        both_connect_client(&b, bytes);
        settle(&b.r);
        CHECK_INT(chr_fe_disconnect(&b.client.fe), 0);
        for (steps = 0; steps < 100 && chr_loop_step(b.r.ctx, 0) > 0; steps++) {}
        if (!CHECK(steps < 10)) NOTE("with %s", layers[i]);
        while ((n = recv(b.near_client, bytes, sizeof bytes, 0)) > 0) {}
        CHECK_INT(n, 0); /* the end has come */
        CHECK_STR(b.r.log, "");
        detach(&b.client);
        close(b.near_client);
        rig_close(&b.r);
    }
}

TEST(a_flight_that_would_block_goes_from_the_loop)
{
    both b;
    long turn, at;

    for (turn = 0; turn < 3 * FLIGHTS; turn++) {
        int error = turn < FLIGHTS ? EAGAIN : turn < 2 * FLIGHTS ? FAULT_SHORT : EPIPE;
        at = turn % FLIGHTS + 1;
        both_usual(&b);
        fault_arm(FAULT_send, error, at, error == EPIPE);
        both_settle(&b);
        CHECK(fault_plan.fired > 0);
        fault_disarm();
        CHECK_STR(b.server.events, error == EPIPE ? "" : "O");
        CHECK_STR(b.client.events, error == EPIPE ? "" : "O");
        CHECK_INT(chr_fe_write(&b.server.fe, "welcome", 7), error == EPIPE ? (int)CHR_ERR_DISCONNECTED : 7);
        both_settle(&b);
        CHECK_INPUT(&b.client, error == EPIPE ? "" : "welcome");
        both_end(&b);
    }
}

/* Several short records that have come together cost one read, and wait here as long as there is no room. */
TEST(short_records_are_read_together)
{
    both b;
    int  i;

    NEED_POSIX("there are no faults of system calls on this system");
    both_usual(&b);
    both_settle(&b);
    for (i = 0; i < 20; i++) CHECK_INT(chr_fe_write(&b.client.fe, "0123456789" + i % 10, 1), 1);
    while (carry(&b, b.near_client, b.near_server, 0)) {}
    fault_plan.counts[FAULT_recv] = 0;
    b.server.room = 5;
    settle(&b.r);
    CHECK_INT(b.server.length, 5);
    give_room(&b.server, UNLIMITED);
    settle(&b.r);
    CHECK_INPUT(&b.server, "01234567890123456789");
    CHECK(fault_plan.counts[FAULT_recv] >= 1 && fault_plan.counts[FAULT_recv] <= 2);
    both_end(&b);
}

TEST(close_notify_is_sent_and_understood_in_both_directions)
{
    both b;
    int  from_client;

    for (from_client = 0; from_client < 2; from_client++) {
        both_usual(&b);
        both_settle(&b);
        CHECK_INT(chr_fe_write(from_client ? &b.client.fe : &b.server.fe, "last words", 10), 10);
        CHECK_INT(chr_fe_disconnect(from_client ? &b.client.fe : &b.server.fe), 0);
        both_settle(&b);
        CHECK_STR(b.server.events, "OC");
        CHECK_STR(b.client.events, "OC");
        CHECK_INPUT(from_client ? &b.server : &b.client, "last words");
        CHECK_STR(b.r.log, "");
        both_end(&b);
    }
}

/* The far side sends close_notify, and keeps the connection open: poll() reports nothing more. */
TEST(close_notify_alone_is_the_end)
{
    both b;

    both_usual(&b);
    both_settle(&b);
    CHECK_INT(chr_fe_write(&b.client.fe, "last words", 10), 10);
    CHECK_INT(chr_fe_disconnect(&b.client.fe), 0);
    chr_loop_step(b.r.ctx, 0);
    while (carry(&b, b.near_client, b.near_server, 0) && b.server.length == 0) {} /* not the end of the wire */
    b.cut = 1;
    both_settle(&b);
    CHECK_INPUT(&b.server, "last words");
    CHECK_STR(b.server.events, "OC");
    both_end(&b);
}

static void closes_up(recorder *rec, int what)
{
    if (what == 'r') rec->room = 0;
}

/* The end was read behind the last bytes; the frontend takes no more, and the next peer must be able to connect. */
TEST(the_end_needs_no_room)
{
    static char block[9000];
    both        b;
    int         is_cut;

    for (is_cut = 0; is_cut < 2; is_cut++) {
        both_usual(&b);
        both_settle(&b);
        b.server.then = closes_up;
        CHECK_INT(chr_fe_write(&b.client.fe, block, sizeof block), sizeof block);
        if (!is_cut) CHECK_INT(chr_fe_disconnect(&b.client.fe), 0);
        while (carry(&b, b.near_client, b.near_server, 0)) {}
        shutdown(b.near_server, SHUT_WR);
        b.cut = 1;
        both_settle(&b);
        CHECK_INT(b.server.length, sizeof block);
        CHECK_STR(b.server.events, "OC");
        CHECK_INT(strstr(b.r.log, "without close_notify") != NULL, is_cut);
        both_end(&b);
    }
}

/* ---- what is held back ------------------------------------------------------------------------------------------- */

static unsigned char pattern(size_t at)
{
    return (unsigned char)(at * 2654435761u >> 13);
}

static size_t pattern_errors(const char *got, size_t len)
{
    size_t i, errors = 0;
    for (i = 0; i < len; i++) errors += (unsigned char)got[i] != pattern(i);
    return errors;
}

/* Writes from a buffer that is overwritten at once: what would block may come back with other bytes. */
static size_t write_pattern(chr_frontend *fe, size_t at, size_t len)
{
    char   block[70000];
    size_t i;
    int    n;
    for (i = 0; i < len; i++) block[i] = (char)pattern(at + i);
    n = chr_fe_write(fe, block, len);
    memset(block, '!', len);
    if (n < 0) CHECK_INT(n, CHR_ERR_WOULD_BLOCK);
    return n > 0 ? (size_t)n : 0;
}

static void push_all(both *b, recorder *from, recorder *to, size_t total)
{
    static const size_t sizes[] = { 1, 70000, 16384, 16385, 3, 40000, 511 };
    size_t              sent = 0, turn = 0, taken, size, blocked = 0;
    int                 rounds;

    for (rounds = 0; rounds < 200000 && to->length < total; rounds++) {
        size = sizes[turn++ % 7];
        taken = sent < total ? write_pattern(&from->fe, sent, size < total - sent ? size : total - sent) : 0;
        sent += taken;
        blocked += taken == 0 && sent < total;
        if (taken) continue;
        give_room(to, (int)(2 * b->crumb));
        chr_loop_step(b->r.ctx, 0);
        carry(b, b->near_client, b->near_server, 0);
        carry(b, b->near_server, b->near_client, 1);
    }
    CHECK(blocked > 0);
    CHECK_INT(to->length, total);
    CHECK_INT(pattern_errors(to->input, to->length), 0);
}

TEST(megabytes_through_a_narrow_wire_and_a_slow_reader)
{
    both b;

    NEED_LITTLE_ROOM();
    both_usual(&b);
    both_settle(&b);
    b.crumb = 3000;
    b.server.room = b.client.room = 0;
    push_all(&b, &b.client, &b.server, 1 << 20);
    b.crumb = 50000;
    push_all(&b, &b.server, &b.client, 12 << 20); /* TCP holds more */
    both_end(&b);
}

/* What a write has left behind goes out by itself, without another write. */
TEST(a_record_that_would_block_is_sent_from_the_loop)
{
    both   b;
    size_t sent = 0, taken;

    both_usual(&b);
    both_settle(&b);
    b.cut = 1;
    while ((taken = write_pattern(&b.server.fe, sent, 30000)) > 0) sent += taken;
    CHECK(sent > 30000);
    b.cut = 0;
    both_settle(&b);
    CHECK_INT(b.client.length, sent);
    CHECK_INT(pattern_errors(b.client.input, b.client.length), 0);
    both_end(&b);
}

TEST(decrypted_bytes_wait_for_room_while_the_wire_is_silent)
{
    both b;
    int  i;

    both_usual(&b);
    both_settle(&b);
    b.server.room = 0;
    CHECK_INT(chr_fe_write(&b.client.fe, "0123456789", 10), 10);
    both_settle(&b);
    CHECK_INT(b.server.length, 0);
    for (i = 1; i <= 10; i++) {
        give_room(&b.server, 1);
        settle(&b.r);
        CHECK_INT(b.server.length, i);
    }
    CHECK_INPUT(&b.server, "0123456789");
    CHECK_INT(chr_loop_timeout(b.r.ctx), -1); /* and nothing spins */
    both_end(&b);
}

TEST(sent_before_the_close_comes_before_closed_though_a_write_fails_first)
{
    both b;

    both_usual(&b);
    both_settle(&b);
    b.server.room = 0;
    CHECK_INT(chr_fe_write(&b.client.fe, "last words", 10), 10);
    CHECK_INT(chr_fe_disconnect(&b.client.fe), 0);
    both_settle(&b);
    close(b.near_server);
    b.near_server = -1;
    while (chr_fe_write(&b.server.fe, "x", 1) > 0) {} /* the first one draws the reset */
    give_room(&b.server, UNLIMITED);
    both_settle(&b);
    CHECK_INPUT(&b.server, "last words");
    CHECK_STR(b.server.events, "OC");
    both_end(&b);
}

TEST(removal_in_the_middle_of_anything)
{
    both      b;
    chr_error err;
    size_t    limit;

    for (limit = 0; limit < 4000; limit += 97) {
        both_usual(&b);
        b.limit[0] = limit;
        both_settle(&b);
        if (b.server.open) (void)chr_fe_write(&b.server.fe, "on its way", 10);
        chr_fe_deinit(&b.server.fe);
        CHECK_INT(chr_remove(b.r.ctx, "s", &err), 0);
        both_end(&b);
    }
}

/* ---- the wire is attacked, or torn ------------------------------------------------------------------------------- */

TEST(truncation_is_logged_and_ends_as_closed_after_the_data)
{
    both b;

    both_usual(&b);
    both_settle(&b);
    CHECK_INT(chr_fe_write(&b.client.fe, "pay 10", 6), 6);
    both_settle(&b);
    shutdown(b.near_server, SHUT_WR);
    b.cut = 1;
    both_settle(&b);
    CHECK_INPUT(&b.server, "pay 10");
    CHECK_STR(b.server.events, "OC");
    CHECK_STR(b.r.log, "chardev s: TLS: the connection ended without close_notify: the input may be truncated\n");
    both_end(&b);
}

TEST(a_changed_byte_is_noticed)
{
    both b;

    both_usual(&b);
    both_settle(&b);
    b.flip = b.carried[1] + 20;
    CHECK_INT(chr_fe_write(&b.server.fe, "transfer 100", 12), 12);
    both_settle(&b);
    CHECK_INT(b.client.length, 0);
    CHECK_STR(b.client.events, "OC");
    CHECK_HAS(b.r.log, "chardev c: TLS: the connection is broken: ");
    both_end(&b);
}

/* That is no end of input behind which output could go on. */
TEST(a_changed_byte_is_no_half_close)
{
    both b;

    both_begin(&b);
    add_creds(&b.r, server_x509);
    add_creds(&b.r, client_x509);
    both_connect(&b, "", ",tls-hostname=localhost,half-close=on");
    both_settle(&b);
    CHECK_INT(chr_fe_write(&b.server.fe, "hello", 5), 5);
    b.flip = b.carried[1] + 20;
    both_settle(&b);
    CHECK_STR(b.client.events, "OC");
    CHECK_HAS(b.r.log, "chardev c: TLS: the connection is broken: ");
    both_end(&b);
}

TEST(a_handshake_torn_anywhere_opens_nothing)
{
    both   b;
    size_t total, limit;

    both_usual(&b);
    both_settle(&b);
    total = b.carried[1];
    both_end(&b);
    for (limit = 0; limit + 16 < total; limit += limit < 40 ? 1 : 41) { /* signatures are a few bytes longer or shorter each time */
        both_usual(&b);
        b.limit[1] = limit;
        both_settle(&b);
        CHECK_STR(b.client.events, "");
        close(b.near_client);
        b.near_client = -1;
        both_settle(&b);
        CHECK_STR(b.client.events, "");
        CHECK_HAS(b.r.log, "chardev c: TLS: the peer went away during the handshake");
        both_end(&b);
    }
}

/* ---- who is let in ----------------------------------------------------------------------------------------------- */

/* No side opens, and each side that is named here logs the reason. */
static void expect_refusal(both *b, const char *server_log, const char *client_log)
{
    char line[300];

    both_settle(b);
    CHECK(!b->server.open);
    CHECK(!b->client.open || !client_log);
    if (server_log) {
        snprintf(line, sizeof line, "chardev s: TLS: %s", server_log);
        CHECK_STR(b->server.events, "");
        CHECK_HAS(b->r.log, line);
    }
    if (client_log) {
        snprintf(line, sizeof line, "chardev c: TLS: %s", client_log);
        CHECK_STR(b->client.events, "");
        CHECK_HAS(b->r.log, line);
    }
    both_end(b);
}

static const char *server_with(const char *name)
{
    static char text[300];
    snprintf(text, sizeof text, "tls-creds-x509,id=ts,endpoint=server,cafile=$/ca-cert.pem,certfile=$/%s-cert.pem,keyfile=$/%s-key.pem", name, name);
    return text;
}

static const char *client_with(const char *name)
{
    static char text[300];
    snprintf(text, sizeof text, "tls-creds-x509,id=tc,cafile=$/ca-cert.pem,certfile=$/%s-cert.pem,keyfile=$/%s-key.pem", name, name);
    return text;
}

static void refused(const char *server_creds, const char *client_creds, const char *hostname, const char *server_log, const char *client_log)
{
    both b;
    char options[100];

    both_begin(&b);
    add_creds(&b.r, server_creds);
    add_creds(&b.r, client_creds);
    snprintf(options, sizeof options, ",tls-hostname=%s", hostname);
    both_connect(&b, "", options);
    expect_refusal(&b, server_log, client_log);
}

TEST(wrong_host) { refused(server_with("elsewhere"), client_x509, "localhost", client_refused_us, "the peer's certificate is for another name; expected was localhost"); }
TEST(expired_server) { refused(server_with("expired"), client_x509, "localhost", client_refused_us, "the peer's certificate has expired"); }
TEST(server_of_the_future) { refused(server_with("future"), client_x509, "localhost", client_refused_us, "the peer's certificate is not valid yet"); }
TEST(server_of_an_unknown_ca) { refused(server_with("foreign"), client_x509, "localhost", client_refused_us, "the peer's certificate is not signed by a CA that is trusted here"); }
TEST(expired_client) { refused(server_x509, client_with("expired"), "localhost", "the peer's certificate has expired", NULL); }
TEST(client_of_an_unknown_ca) { refused(server_x509, client_with("foreign"), "localhost", "the peer's certificate is not signed by a CA", NULL); }
TEST(client_without_certificate) { refused(server_x509, "tls-creds-x509,id=tc,cafile=$/ca-cert.pem", "localhost", "the peer shows no certificate", NULL); }
TEST(revoked_client)
{
    refused("tls-creds-x509,id=ts,endpoint=server,dir=$/server,crlfile=$/crl.pem", client_with("revoked"), "localhost", "the peer's certificate has been revoked", NULL);
}
TEST(client_certificate_of_a_server)
{
    refused(server_x509, client_with("only-server"), "localhost", "the peer's certificate is not for this role (extended key usage)", NULL);
}
TEST(another_address) { refused(server_x509, client_x509, "127.0.0.2", client_refused_us, "the peer's certificate is for another name; expected was 127.0.0.2"); }
TEST(an_address_is_not_looked_for_among_names) { refused(server_with("elsewhere"), client_x509, "127.0.0.1", client_refused_us, "the peer's certificate is for another name"); }

/* A name of four letters is not the address whose bytes they are; and the first half of an IPv6 address is no IPv4
 * address. */
TEST(addresses_are_compared_with_addresses)
{
    refused(server_with("words"), client_x509, "97.98.99.100", client_refused_us, "the peer's certificate is for another name; expected was 97.98.99.100");
    refused(server_with("wide"), client_x509, "127.0.0.1", client_refused_us, "the peer's certificate is for another name; expected was 127.0.0.1");
    refused(server_with("wide"), client_x509, "7f00:1::1", client_refused_us, "the peer's certificate is for another name");
    refused(server_x509, client_x509, "::2", client_refused_us, "the peer's certificate is for another name; expected was ::2");
}

TEST(a_key_that_is_too_weak)
{
    refused(server_with("weak"), client_x509, "localhost", client_refused_us,
            "the peer's certificate, or the one that signed it, has a key or a signature that is too weak");
    refused(server_x509, client_with("weak"), "localhost", "the peer's certificate, or the one that signed it, has a key or a signature that is too weak", NULL);
}

TEST(a_revocation_list_that_has_expired)
{
    refused("tls-creds-x509,id=ts,endpoint=server,dir=$/server,crlfile=$/old-crl.pem", client_x509, "localhost", "the list of revoked certificates has expired", NULL);
}

static void let_in(const char *server_creds, const char *client_creds, const char *hostname, const char *authz)
{
    both b;
    char options[100];

    both_begin(&b);
    add_creds(&b.r, server_creds);
    add_creds(&b.r, client_creds);
    if (authz) allow(&b.r, authz);
    snprintf(options, sizeof options, ",tls-hostname=%s", hostname);
    both_connect(&b, authz ? ",tls-authz=who" : "", options);
    both_settle(&b);
    CHECK_STR(b.server.events, "O");
    CHECK_STR(b.client.events, "O");
    CHECK_STR(b.r.log, "");
    both_end(&b);
}

TEST(names_and_addresses_of_one_certificate)
{
    let_in(server_x509, client_x509, "localhost", NULL);
    let_in(server_x509, client_x509, "127.0.0.1", NULL);
    let_in(server_x509, client_x509, "::1", NULL);
}

/* Records that do not fit into the buffer of a flight go behind it. */
TEST(a_flight_that_is_larger_than_its_buffer) { let_in(server_with("large"), client_x509, "localhost", NULL); }

TEST(a_server_may_ask_for_no_certificate)
{
    let_in("tls-creds-x509,id=ts,endpoint=server,verify-peer=off,certfile=$/server-cert.pem,keyfile=$/server-key.pem",
           "tls-creds-x509,id=tc,cafile=$/ca-cert.pem", "localhost", NULL);
}

TEST(lists_let_in)
{
    let_in(server_x509, client_x509, "localhost", "authz-list,id=who,match=CN=fred,,O=Example,,C=DE");
    let_in(server_x509, client_x509, "localhost", "authz-list,id=who,match=CN=fr?d,,*,format=glob");
    let_in(server_x509, client_x509, "localhost", "authz-list,id=who,match=*,format=glob");
    let_in(server_x509, client_with("odd"), "localhost", "authz-list,id=who,match=CN=fred\\+x,,O=Exam\\,, ple,,C=DE");
}

static void not_on_the_list(const char *first, const char *second, const char *server, const char *client, const char *name)
{
    both b;
    char line[200];

    both_begin(&b);
    add_creds(&b.r, server);
    add_creds(&b.r, client);
    if (first) allow(&b.r, first);
    if (second) allow(&b.r, second);
    both_connect(&b, ",tls-authz=who", ",tls-hostname=localhost");
    snprintf(line, sizeof line, "the peer '%s' is not on the list tls-authz=who\n", name);
    expect_refusal(&b, line, NULL);
}

TEST(lists_keep_out)
{
    static const char fred[] = "CN=fred,O=Example,C=DE";
    not_on_the_list("authz-list,id=who,match=CN=ana,,O=Example,,C=DE", NULL, server_x509, client_x509, fred);
    not_on_the_list("authz-list,id=who,match=CN=fred,,O=Example,,C=D", NULL, server_x509, client_x509, fred);
    not_on_the_list("authz-list,id=who,match=CN=fred*", NULL, server_x509, client_x509, fred); /* exact */
    not_on_the_list("authz-list,id=who,match=CN=a*,format=glob", "authz-list,id=who,match=*C=UK,format=glob", server_x509, client_x509, fred);
    not_on_the_list("authz-list,id=other,match=*,format=glob", NULL, server_x509, client_x509, fred); /* a missing list */
    not_on_the_list("authz-list,id=who,match=CN=fred,,*,format=glob", NULL, server_x509, client_with("odd"), "CN=fred\\+x,O=Exam\\, ple,C=DE");
    not_on_the_list("authz-list,id=who,match=*,format=glob", NULL,
                    "tls-creds-x509,id=ts,endpoint=server,verify-peer=off,certfile=$/server-cert.pem,keyfile=$/server-key.pem", client_x509, "");
}

/* The line that `openssl x509 -nameopt RFC2253` has printed for a certificate, its commas doubled. */
static const char *printed_name(const char *certificate)
{
    static char text[1000];
    char        path[200];
    FILE       *file;
    size_t      len = 0;
    int         c;

    snprintf(path, sizeof path, "%s/%s.name", certs, certificate);
    file = fopen(path, "r");
    if (!file) abort();
    while ((c = getc(file)) != EOF && c != '\n' && len + 2 < sizeof text) {
        if (c == ',') text[len++] = ',';
        text[len++] = (char)c;
    }
    text[len] = 0;
    fclose(file);
    return text;
}

static void let_in_by_name(const char *certificate)
{
    char options[1100];

    snprintf(options, sizeof options, "authz-list,id=who,match=%s", printed_name(certificate));
    let_in(server_x509, client_with(certificate), "localhost", options);
}

TEST(names_are_written_as_openssl_prints_them)
{
    static const char *const names[] = { "name-umlauts", "name-wide", "name-edges", "name-escapes", "name-two-in-one", "name-three-in-one",
                                         "name-types", "name-unknown", "name-bmp", "name-universal", "name-latin1", "name-comma" };
    size_t i;

    if (no_certs[0]) SKIP(no_certs);
    for (i = 0; i < sizeof names / sizeof names[0]; i++) {
        int before = test_failures;
        let_in_by_name(names[i]);
        if (test_failures > before) NOTE("with %s", printed_name(names[i]));
    }
}

/* CN and OU in one part of the name are something else than in two; and a comma within a value separates nothing. */
TEST(names_with_the_same_letters_stay_out)
{
    static const char two_in_one[] = "CN=fred+OU=x,O=Example,C=DE", comma[] = "CN=fred\\,O=Example\\,C=DE";

    not_on_the_list("authz-list,id=who,match=CN=fred,,OU=x,,O=Example,,C=DE", "authz-list,id=who,match=OU=x,,CN=fred,,O=Example,,C=DE",
                    server_x509, client_with("name-two-in-one"), two_in_one);
    not_on_the_list("authz-list,id=who,match=CN=*,,O=Example,,C=DE,format=glob", "authz-list,id=who,match=CN=fred,,O=Example,,C=DE",
                    server_x509, client_with("name-comma"), comma);
    not_on_the_list("authz-list,id=who,match=*,,C=DE,format=glob", "authz-list,id=who,match=CN=fred?C=DE,format=glob", server_x509,
                    client_with("name-comma"), comma);
}

TEST(globs_count_characters_as_a_reader_does)
{
    let_in(server_x509, client_with("name-umlauts"), "localhost", "authz-list,id=who,match=CN=Fran?ois,,O=M?ller GmbH,,C=DE,format=glob");
    let_in(server_x509, client_with("name-comma"), "localhost", "authz-list,id=who,match=CN=fred?O=Example?C=DE,format=glob");
    let_in(server_x509, client_with("name-comma"), "localhost", "authz-list,id=who,match=CN=*\\,,C=DE,format=glob");
    let_in(server_x509, client_with("name-wide"), "localhost", "authz-list,id=who,match=CN=?? ?,format=glob");
    let_in(server_x509, client_x509, "localhost", "authz-list,id=who,match=*,,C=DE,format=glob");
}

/* A name that is too long to be compared is on no list, not even on one for all. */
TEST(a_name_that_is_cut_stays_out)
{
    both b;

    let_in(server_x509, client_with("name-4095"), "localhost", "authz-list,id=who,match=*5678901234567890123,,OU=?*,format=glob");
    both_begin(&b);
    add_creds(&b.r, server_x509);
    add_creds(&b.r, client_with("name-4096"));
    allow(&b.r, "authz-list,id=who,match=*,format=glob");
    both_connect(&b, ",tls-authz=who", ",tls-hostname=localhost");
    expect_refusal(&b, "the peer 'CN=fred,OU=12345,OU=0123456789", NULL);
}

TEST(a_list_grows_and_goes)
{
    both      b;
    chr_error err;

    both_begin(&b);
    add_creds(&b.r, server_x509);
    add_creds(&b.r, client_x509);
    allow(&b.r, "authz-list,id=who,match=CN=ana");
    allow(&b.r, "authz-list,id=who,match=CN=fred,,O=Example,,C=DE");
    both_connect(&b, ",tls-authz=who", ",tls-hostname=localhost");
    both_settle(&b);
    CHECK_STR(b.server.events, "O");
    CHECK_INT(chr_authz_remove(b.r.ctx, "ts", &err), CHR_ERR_NOT_FOUND);
    CHECK_INT(chr_tls_creds_remove(b.r.ctx, "who", &err), CHR_ERR_NOT_FOUND);
    CHECK_INT(chr_authz_remove(b.r.ctx, "who", &err), 0);
    CHECK_INT(chr_authz_remove(b.r.ctx, "who", &err), CHR_ERR_NOT_FOUND);
    CHECK_STR(b.server.events, "O"); /* who is in stays */
    both_end(&b);
}

TEST(globs)
{
    static const struct { const char *pattern, *text; int fits; } cases[] = {
        { "", "", 1 }, { "*", "", 1 }, { "?", "", 0 }, { "*a", "bab", 0 }, { "*a*", "bab", 1 }, { "a*b*c", "aXbYbZc", 1 }, { "a*b*c", "aXbYbZ", 0 },
        { "**", "x", 1 }, { "a?c", "abc", 1 }, { "a?c", "ac", 0 }, { "abc", "abcd", 0 }, { "abcd", "abc", 0 }, { "*ab", "aab", 1 },
        { "a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 0 },
        /* an escape is one character, and so is a sequence of UTF-8 in several */
        { "?", "\\,", 1 }, { "?", "\\C3\\A9", 1 }, { "?", "\\c3\\a9", 1 }, { "??", "\\C3\\A9", 0 }, { "??", "\\41\\81", 1 }, { "?", "\\41\\81", 0 },
        { "??", "\\BF\\81", 1 }, { "?", "\\C0\\81", 1 }, { "?", "\\C3\\80", 1 }, { "?", "\\C3\\BF", 1 }, { "??", "\\C3\\C0", 1 }, { "??", "\\C3\\7F", 1 },
        { "?", "\\E2\\82\\AC", 1 }, { "?", "\\F0\\9F\\98\\80", 1 }, { "?Z?", "\\C3\\A9Z\\C3\\A9", 1 }, { "?????", "\\C3\\8GZ", 0 }, { "????", "\\C3\\8GZ", 1 },
        { "??", "\\", 0 }, { "?", "\\", 1 }, { "a,b", "a\\,b", 0 }, { "a\\,b", "a\\,b", 1 }, { "*,*", "a\\,b", 0 }, { "*,*", "a\\,b,c", 1 },
        { "??", "\\4", 0 }, { "?", "\\4", 1 }, { "??", "\\4g", 1 }, { "?", "\\C3\\A9x", 0 },
    };
    size_t i;
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (!CHECK_INT(private_glob(cases[i].pattern, cases[i].text), cases[i].fits)) NOTE("for %s and %s", cases[i].pattern, cases[i].text);
}

/* ---- keys that both sides have ----------------------------------------------------------------------------------- */

TEST(shared_keys)
{
    let_in(server_psk, "tls-creds-psk,id=tc,dir=$,username=fred", "x", NULL);
    let_in(server_psk, "tls-creds-psk,id=tc,keyfile=$/keys.psk,username=ana", "x", "authz-list,id=who,match=ana");
    not_on_the_list("authz-list,id=who,match=ana", NULL, server_psk, "tls-creds-psk,id=tc,dir=$,username=fred", "fred");
    refused(server_psk, "tls-creds-psk,id=tc,keyfile=$/wrong.psk,username=eve", "x", "the peer's name is not among those that have a key", refused_us);
    refused(server_psk, "tls-creds-psk,id=tc,keyfile=$/wrong.psk,username=fred", "x", "", refused_us);
    refused(server_psk, client_x509, "localhost", "", refused_us);
}

/* A line is NAME:HEX, with an even number of digits, for as long a key as mbed TLS takes; one that begins with # is
 * none. */
TEST(lines_of_a_key_file)
{
    enum { MOST = 2 * MBEDTLS_PSK_MAX_LEN };
    char is_no_key[120], digits[MOST + 3];
    static const struct { const char *text, *user; int code; } table[] = {
        { "fred:00", "fred", 0 },           { "fred:00\n", "fred", 0 },         { "fred:00\r\nana:ff\r\n", "ana", 0 },
        { "\n\n\nfred:00\n\n", "fred", 0 }, { "# no key\nfred:aA09", "fred", 0 }, { "#\nfred:00", "fred", 0 },
        { "a b:00", "a b", 0 },             { "f:00", "f", 0 },                { "fred#:00", "fred#", 0 },
        { "#fred:00", "#fred", CHR_ERR_NOT_FOUND },  { "fred:00", "fre", CHR_ERR_NOT_FOUND },  { "fred:00", "freda", CHR_ERR_NOT_FOUND },
        { "", "fred", CHR_ERR_NOT_FOUND },           { "#fred", "fred", CHR_ERR_NOT_FOUND },   { "#:0", "fred", CHR_ERR_NOT_FOUND },
        { "fred", "fred", CHR_ERR_INVALID },         { "fred:", "fred", CHR_ERR_INVALID },     { ":00", "", CHR_ERR_INVALID },
        { "fred:0", "fred", CHR_ERR_INVALID },       { "fred:000", "fred", CHR_ERR_INVALID },  { "fred:0g", "fred", CHR_ERR_INVALID },
        { "fred:g0", "fred", CHR_ERR_INVALID },      { "fred:00 ", "fred", CHR_ERR_INVALID },  { "fred: 00", "fred", CHR_ERR_INVALID },
        { "fred:00:11", "fred", CHR_ERR_INVALID },   { " #\nfred:00", "fred", CHR_ERR_INVALID }, { "fred:0G", "fred", CHR_ERR_INVALID },
        { "fred:00\nana", "fred", CHR_ERR_INVALID }, { "fred:@@", "fred", CHR_ERR_INVALID },   { "fred://", "fred", CHR_ERR_INVALID },
    };
    char      options[600], text[300], path[300];
    chr_error err;
    size_t    i;
    rig       r;

    NEED_POSIX("files have no such permissions on this system");
    rig_open(&r);
    snprintf(path, sizeof path, "%s", scratch("keys"));
    snprintf(is_no_key, sizeof is_no_key, "tls-creds-psk 't': a line of the key file is not NAME:HEX with at most %d digits", MOST);
    memset(digits, '7', sizeof digits);
    for (i = 0; i < sizeof table / sizeof *table + 2; i++) {
        size_t row = i - 2;
        int    code = i < 2 ? (i ? CHR_ERR_INVALID : 0) : table[row].code;
        if (i < 2) snprintf(text, sizeof text, "fred:%.*s", i ? MOST + 2 : MOST, digits);
        write_file(path, i < 2 ? text : table[row].text);
        chmod(path, 0600);
        snprintf(options, sizeof options, "tls-creds-psk,id=t,keyfile=%s,username=%s", path, i < 2 ? "fred" : table[row].user);
        memset(&err, 0, sizeof err);
        if (!CHECK_INT(chr_tls_creds_add(r.ctx, options, &err), code) || (code == CHR_ERR_INVALID && !CHECK_STR(err.text, is_no_key)))
            NOTE("for \"%s\" and %s: %s", i < 2 ? text : table[row].text, options, err.text);
        if (code == 0) CHECK_INT(chr_tls_creds_remove(r.ctx, "t", &err), 0);
    }
    CHECK_STR(r.log, "");
    rig_close(&r);
    scratch_clean();
}

/* 65535 bytes are read, and a longer one is refused. */
TEST(a_key_file_has_a_size)
{
    static char text[65537];
    char        options[400], path[300], want[400];
    chr_error   err;
    rig         r;

    NEED_POSIX("files have no such permissions on this system");
    rig_open(&r);
    snprintf(path, sizeof path, "%s", scratch("keys"));
    snprintf(options, sizeof options, "tls-creds-psk,id=t,keyfile=%s,username=fred", path);
    snprintf(want, sizeof want, "%s: larger than 65536 bytes", path);
    memset(text, '#', sizeof text - 1);
    memcpy(text, "fred:00\n", 8);
    text[65535] = 0;
    write_file(path, text);
    chmod(path, 0600);
    if (!CHECK_INT(chr_tls_creds_add(r.ctx, options, &err), 0)) NOTE("%s", err.text);
    CHECK_INT(chr_tls_creds_remove(r.ctx, "t", &err), 0);
    text[65535] = '#';
    write_file(path, text);
    CHECK_INT(chr_tls_creds_add(r.ctx, options, &err), CHR_ERR_INVALID);
    CHECK_STR(err.text, want);
    rig_close(&r);
    scratch_clean();
}

/* ---- peers that are none ----------------------------------------------------------------------------------------- */

TEST(plaintext_client)
{
    both b;

    both_begin(&b);
    add_creds(&b.r, server_x509);
    both_connect_server(&b, "");
    say(b.near_server, "GET / HTTP/1.0\r\n\r\n");
    expect_refusal(&b, "what the peer sends is not TLS", NULL);
}

TEST(plaintext_server)
{
    both b;

    both_begin(&b);
    add_creds(&b.r, client_x509);
    both_connect_client(&b, ",tls-hostname=localhost");
    say(b.near_client, "220 mail.example ESMTP ready\r\n");
    expect_refusal(&b, NULL, "what the peer sends is not TLS");
}

/* Ten seconds of real time, in haste. */
TEST(silent_peers)
{
    both b;

    fault_plan.haste = 20;
    both_usual(&b);
    b.cut = 1;
    both_settle(&b);
    pass_real_time(&b.r, 7000);
    CHECK_STR(b.r.log, "");
    pass_real_time(&b.r, 3100);
    CHECK_HAS(b.r.log, "chardev s: the peer has not finished the tls handshake within 10 seconds\n");
    CHECK_HAS(b.r.log, "chardev c: the peer has not finished the tls handshake within 10 seconds\n");
    CHECK_STR(b.server.events, "");
    CHECK_STR(b.client.events, "");
    both_end(&b);
}

/* Each peer of a server is a new connection: each failure is logged, and the next peer can connect. */
TEST(a_server_survives_bad_peers)
{
    both     b;
    chr_info info;
    int      i, fd, port;

    both_begin(&b);
    add_creds(&b.r, server_x509);
    add_creds(&b.r, client_x509);
    attach(&b.server, make(&b.r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off,nodelay=on,tls-creds=ts"));
    chr_query(chr_find(b.r.ctx, "s"), &info);
    port = atoi(strrchr(info.address, ':') + 1);
    for (i = 1; i <= 3; i++) {
        fd = tcp_connect(port);
        say(fd, "not TLS at all");
        PUMP(&b.r, b.r.logs == i);
        close(fd);
    }
    b.near_server = tcp_connect(port);
    fcntl(b.near_server, F_SETFL, O_NONBLOCK);
    both_connect_client(&b, ",tls-hostname=localhost");
    both_settle(&b);
    CHECK_STR(b.server.events, "O");
    both_end(&b);
}

/* ---- layers on it, addresses under it ---------------------------------------------------------------------------- */

TEST(telnet_over_tls)
{
    both b;

    both_begin(&b);
    add_creds(&b.r, server_x509);
    add_creds(&b.r, client_x509);
    both_connect(&b, ",telnet=on", ",tls-hostname=localhost,telnet=on");
    b.crumb = 1;
    both_settle(&b);
    CHECK_STR(b.server.events, "O");
    CHECK_STR(b.client.events, "O");
    CHECK_INT(chr_fe_write(&b.client.fe, "a\xff" "b", 3), 3);
    CHECK_INT(chr_fe_write(&b.server.fe, "\xff\xff", 2), 2);
    both_settle(&b);
    CHECK_MEM(b.server.input, b.server.length, "a\xff" "b", 3);
    CHECK_MEM(b.client.input, b.client.length, "\xff\xff", 2);
    both_end(&b);
}

/* A peer that has suspended us while a record of ours is on its way: that goes out, and then all rests. */
static void suspend(both *b)
{
    static char block[65536];

    both_begin(b);
    add_creds(&b->r, server_x509);
    add_creds(&b->r, client_x509);
    both_connect(b, ",telnet=on,com-port=on", ",tls-hostname=localhost");
    both_settle(b);
    CHECK_INT(chr_fe_write(&b->client.fe, "\xff\xfb\x2c", 3), 3); /* WILL COM-PORT */
    both_settle(b);
    CHECK_STR(b->server.events, "OS");
    b->limit[1] = b->carried[1];
    while (chr_fe_write(&b->server.fe, block, sizeof block) > 0) {}
    CHECK_INT(chr_fe_write(&b->client.fe, "\xff\xfa\x2c\x08\xff\xf0", 6), 6); /* FLOWCONTROL-SUSPEND */
    both_settle(b);
}

TEST(the_loop_rests_when_a_suspended_record_is_gone)
{
    both b;
    int  i, ran;

    suspend(&b);
    b.limit[1] = (size_t)-1;
    for (i = 0; i < 5000; i++) {
        chr_loop_step(b.r.ctx, 0);
        carry(&b, b.near_server, b.near_client, 1);
    }
    for (ran = 0, i = 0; i < 5; i++) ran += chr_loop_step(b.r.ctx, 1);
    CHECK_INT(ran, 0);
    both_end(&b);
}

TEST(who_blocks_does_not_spin_on_a_suspended_record)
{
    char rest[65536];
    both b;

    suspend(&b);
    while (recv(b.near_server, rest, sizeof rest, 0) > 0) {}
    CHECK_INT(chr_fe_write_all(&b.server.fe, "x", 1, 300), CHR_ERR_WOULD_BLOCK);
    both_end(&b);
}

TEST(websocket_over_tls)
{
    both b;

    both_begin(&b);
    add_creds(&b.r, server_x509);
    add_creds(&b.r, client_x509);
    both_connect(&b, ",websocket=on", ",tls-hostname=localhost,websocket=on");
    b.crumb = 7;
    both_settle(&b);
    CHECK_STR(b.server.events, "O");
    CHECK_STR(b.client.events, "O");
    CHECK_INT(chr_fe_write(&b.client.fe, "hello", 5), 5);
    CHECK_INT(chr_fe_write(&b.server.fe, "welcome", 7), 7);
    both_settle(&b);
    CHECK_INPUT(&b.server, "hello");
    CHECK_INPUT(&b.client, "welcome");
    CHECK_INT(chr_fe_disconnect(&b.server.fe), 0);
    both_settle(&b);
    CHECK_STR(b.client.events, "OC");
    CHECK_STR(b.r.log, "");
    both_end(&b);
}

/* Server and client in one loop, over a path, a name that is looked up, and back again after the peer went. */
static void meet(both *b, const char *server, const char *client)
{
    b->crumb = 1;
    attach(&b->server, make(&b->r, server));
    attach(&b->client, make(&b->r, client));
    PUMP(&b->r, b->server.open && b->client.open);
    CHECK_INT(chr_fe_write(&b->client.fe, "hello", 5), 5);
    PUMP(&b->r, b->server.length == 5);
    CHECK_INPUT(&b->server, "hello");
}

TEST(over_a_path_with_a_name_to_expect)
{
    both b;
    char server[500], client[500];

    both_begin(&b);
    chr_context_free(b.r.ctx);
    rig_open(&b.r);
    add_creds(&b.r, server_x509);
    add_creds(&b.r, client_x509);
    snprintf(server, sizeof server, "socket,id=s,path=%s,server=on,wait=off,tls-creds=ts,tls-hostname=localhost", scratch("s"));
    snprintf(client, sizeof client, "socket,id=c,path=%s,reconnect-ms=10,tls-creds=tc,tls-hostname=localhost", scratch("s"));
    meet(&b, server, client);
    CHECK_INT(chr_fe_disconnect(&b.server.fe), 0);
    PUMP(&b.r, strcmp(b.client.events, "OCO") == 0 && strcmp(b.server.events, "OCO") == 0);
    CHECK_STR(b.r.log, "");
    both_end(&b);
    scratch_clean();
}

TEST(the_host_is_whom_to_expect)
{
    both b;
    char server[500], client[500];
    int  port;

    NEED_POSIX("the thread pool keeps what its first use has opened");
    NEED_LOCALHOST();
    both_begin(&b);
    chr_context_free(b.r.ctx);
    rig_open(&b.r);
    add_creds(&b.r, server_x509);
    add_creds(&b.r, client_x509);
    close(tcp_listen(&port));
    snprintf(server, sizeof server, "socket,id=s,host=127.0.0.1,port=%d,server=on,wait=off,nodelay=on,tls-creds=ts", port);
    snprintf(client, sizeof client, "socket,id=c,host=localhost,port=%d,reconnect-ms=10,tls-creds=tc", port);
    meet(&b, server, client);
    CHECK_STR(b.r.log, "");
    both_end(&b);
}

/* Without host=, the server is on this machine: its certificate is for localhost, or it is refused. */
TEST(a_port_alone_expects_localhost)
{
    static const char *const hosts[] = { "", "host=,", "host=localhost," };
    size_t i;
    both   b;
    char   server[500], client[500];
    int    port, is_right;

    NEED_POSIX("the thread pool keeps what its first use has opened");
    NEED_LOCALHOST();
    for (i = 0; i < sizeof hosts / sizeof *hosts; i++)
        for (is_right = 0; is_right < 2; is_right++) {
            both_begin(&b);
            chr_context_free(b.r.ctx);
            rig_open(&b.r);
            add_creds(&b.r, is_right ? server_x509 : server_with("elsewhere"));
            add_creds(&b.r, client_x509);
            close(tcp_listen(&port));
            snprintf(server, sizeof server, "socket,id=s,host=127.0.0.1,port=%d,server=on,wait=off,nodelay=on,tls-creds=ts", port);
            snprintf(client, sizeof client, "socket,id=c,%sport=%d,reconnect-ms=100000,tls-creds=tc", hosts[i], port);
            if (is_right) {
                meet(&b, server, client);
                CHECK_STR(b.r.log, "");
            } else {
                attach(&b.server, make(&b.r, server));
                attach(&b.client, make(&b.r, client));
                PUMP(&b.r, b.client.open || strstr(b.r.log, "chardev c: "));
                CHECK_HAS(b.r.log, "chardev c: TLS: the peer's certificate is for another name; expected was localhost");
                CHECK_STR(b.client.events, "");
            }
            both_end(&b);
        }
}

/* The host is where, tls-hostname= is who. */
TEST(whom_to_expect_may_be_another_than_the_host)
{
    both b;
    char server[500], client[500];
    int  port;

    NEED_POSIX("the thread pool keeps what its first use has opened");
    both_begin(&b);
    chr_context_free(b.r.ctx);
    rig_open(&b.r);
    add_creds(&b.r, server_with("elsewhere"));
    add_creds(&b.r, client_x509);
    close(tcp_listen(&port));
    snprintf(server, sizeof server, "socket,id=s,host=127.0.0.1,port=%d,server=on,wait=off,nodelay=on,tls-creds=ts", port);
    snprintf(client, sizeof client, "socket,id=c,host=127.0.0.1,port=%d,reconnect-ms=10,tls-creds=tc,tls-hostname=elsewhere", port);
    meet(&b, server, client);
    CHECK_STR(b.r.log, "");
    both_end(&b);
}

/* ---- memory that is mbed TLS's own ------------------------------------------------------------------------------- */

#ifdef __GLIBC__
#include <malloc.h>
#if __GLIBC__ > 2 || __GLIBC_MINOR__ >= 33
#define HAS_MALLINFO2 1
#endif
#endif

#ifdef HAS_MALLINFO2
/* What is in use, after so many of something. */
static size_t in_use_after(void (*once)(const char *what), const char *what, int times)
{
    for (; times > 0; times--) once(what);
    return mallinfo2().uordblks;
}

static void make_creds_once(const char *what)
{
    rig r;
    rig_open(&r);
    add_creds(&r, what);
    rig_close(&r);
}

static void meet_once(const char *what)
{
    both b;
    both_usual(&b);
    both_settle(&b);
    CHECK_STR(b.client.events, what);
    both_end(&b);
}

/* mbed TLS uses malloc(), which is not counted here. Memory that is allocated once is no leak, nor are the free blocks
 * of a thread's cache, which count as used: both come to an end. So the least growth of ten runs counts. */
static void check_memory(void (*once)(const char *what), const char *what, size_t most)
{
    size_t before, after, least = (size_t)-1;
    int    round;

    after = in_use_after(once, what, 8);
    if (after == 0) return; /* under the address sanitizer, whose own search for leaks is the judge */
    for (round = 0; round < 10 && least >= most; round++) {
        before = after;
        after = in_use_after(once, what, 5);
        if (after < before || after - before < least) least = after < before ? 0 : after - before;
    }
    if (!CHECK(least < most)) NOTE("%d bytes more, with %s", (int)least, what);
}

TEST(memory_of_certificates_is_given_back)
{
    if (no_certs[0]) SKIP(no_certs);
    check_memory(make_creds_once, "tls-creds-x509,id=ts,endpoint=server,dir=$/server,crlfile=$/crl.pem", 300);
}

TEST(memory_of_keys_is_given_back)
{
    if (no_certs[0]) SKIP(no_certs);
    check_memory(make_creds_once, "tls-creds-psk,id=tc,dir=$,username=fred", 300);
}

TEST(memory_of_connections_is_given_back)
{
    if (no_certs[0]) SKIP(no_certs);
    check_memory(meet_once, "O", 2000);
}
#else
TEST(memory_is_given_back) { SKIP("malloc() does not say what is in use"); }
#endif

/* ---- cipher suites ----------------------------------------------------------------------------------------------- */

static void agree(const char *server_creds, const char *client_creds, const char *suite)
{
    both b;

    both_begin(&b);
    add_creds(&b.r, server_creds);
    add_creds(&b.r, client_creds);
    both_connect(&b, "", ",tls-hostname=localhost");
    both_settle(&b);
    CHECK_STR(b.server.events, suite ? "O" : "");
    CHECK_STR(b.client.events, suite ? "O" : "");
    if (suite && b.client.open) CHECK_STR(private_tls_suite(b.client.fe.dev), suite);
    if (!suite) CHECK_HAS(b.r.log, nothing_in_common);
    if (!suite) CHECK_HAS(b.r.log, "chardev c: TLS: the peer has refused us");
    both_end(&b);
}

#define AES_128 "TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256"
#define AES_256 "TLS-ECDHE-ECDSA-WITH-AES-256-GCM-SHA384"
#define PSK_128 "TLS-PSK-WITH-AES-128-GCM-SHA256"
#define PSK_256 "TLS-PSK-WITH-AES-256-GCM-SHA384"

TEST(priority_chooses_the_cipher_suite)
{
    static const char server[] = "tls-creds-x509,id=ts,endpoint=server,dir=$/server,priority=" AES_128 ":" AES_256;
    static const char server_keys[] = "tls-creds-psk,id=ts,endpoint=server,dir=$,priority=" PSK_128;

    agree(server, client_x509, AES_128);
    agree(server, "tls-creds-x509,id=tc,dir=$/client,priority=" AES_256, AES_256);
    agree(server, "tls-creds-x509,id=tc,dir=$/client,priority=TLS-ECDHE-ECDSA-WITH-CHACHA20-POLY1305-SHA256", NULL);
    agree(server_keys, "tls-creds-psk,id=tc,dir=$,username=fred", PSK_128);
    agree(server_keys, "tls-creds-psk,id=tc,dir=$,username=fred,priority=" PSK_256 ":" PSK_128, PSK_128);
    agree(server_keys, "tls-creds-psk,id=tc,dir=$,username=fred,priority=" PSK_256, NULL);
}

/* ---- credentials ------------------------------------------------------------------------------------------------- */

TEST(credentials_are_renewed_under_living_connections)
{
    both      b;
    chr_error err;

    both_usual(&b);
    both_settle(&b);
    CHECK_INT(chr_tls_creds_remove(b.r.ctx, "ts", &err), 0);
    CHECK_INT(chr_tls_creds_remove(b.r.ctx, "ts", &err), CHR_ERR_NOT_FOUND);
    CHECK_INT(chr_fe_write(&b.server.fe, "still here", 10), 10);
    both_settle(&b);
    CHECK_INPUT(&b.client, "still here");
    CHECK_INT(chr_fe_disconnect(&b.client.fe), 0);
    both_settle(&b);
    CHECK_STR(b.server.events, "OC");
    close(b.near_server);
    {
        chr_info info;
        chr_query(chr_find(b.r.ctx, "s"), &info);
        b.near_server = tcp_connect(atoi(strrchr(info.address, ':') + 1));
        both_settle(&b);
        CHECK_HAS(b.r.log, "chardev s: socket: tls-creds=ts: there are no TLS credentials with that id\n");
        close(b.near_server);
        close(b.near_client);
        chr_fe_deinit(&b.client.fe);
        CHECK_INT(chr_remove(b.r.ctx, "c", &err), 0);
        add_creds(&b.r, server_x509);
        b.near_server = tcp_connect(atoi(strrchr(info.address, ':') + 1));
        fcntl(b.near_server, F_SETFL, O_NONBLOCK);
        free(b.client.input);
        both_connect_client(&b, ",tls-hostname=localhost");
        both_settle(&b);
        CHECK_STR(b.server.events, "OCO");
    }
    both_end(&b);
}

static void bad_creds(rig *r, const char *options, int code, const char *text)
{
    chr_error err;
    long      live = r->live;

    if (!CHECK_INT(chr_tls_creds_add(r->ctx, with_dir(options), &err), code) || !CHECK_HAS(err.text, text) || !CHECK_INT(r->live, live))
        NOTE("for %s: %s", options, err.text);
    CHECK_INT(chr_tls_creds_add(r->ctx, with_dir(options), NULL), code);
}

TEST(bad_priorities)
{
    rig  r;
    char text[4000] = "tls-creds-x509,id=t,endpoint=server,dir=$/server,priority=" AES_128;
    int  i;

    if (no_certs[0]) SKIP(no_certs);
    rig_open(&r);
    bad_creds(&r, "tls-creds-x509,id=t,dir=$/client,priority=NORMAL", CHR_ERR_INVALID, "tls-creds-x509: priority=: 'NORMAL' is not a cipher suite of this mbed TLS");
    bad_creds(&r, "tls-creds-x509,id=t,dir=$/client,priority=", CHR_ERR_INVALID, "priority=: '' is not a cipher suite");
    bad_creds(&r, "tls-creds-x509,id=t,dir=$/client,priority=" AES_128 "::" AES_256, CHR_ERR_INVALID, "priority=: '' is not a cipher suite");
    bad_creds(&r, "tls-creds-x509,id=t,dir=$/client,priority=" AES_128 ":" PSK_128, CHR_ERR_INVALID, "'" PSK_128 "' goes with shared keys, not with certificates");
    bad_creds(&r, "tls-creds-psk,id=t,dir=$,username=fred,priority=" AES_128, CHR_ERR_INVALID, "tls-creds-psk: priority=: '" AES_128 "' goes with certificates");
    bad_creds(&r, "tls-creds-x509,id=t,dir=$/client,min-version=1.1", CHR_ERR_INVALID, "min-version=1.1: neither 1.2 nor 1.3");
    for (i = 1; i < 32; i++) snprintf(text + strlen(text), sizeof text - strlen(text), ":" AES_128);
    add_creds(&r, text);
    snprintf(text + strlen(text), sizeof text - strlen(text), ":" AES_128);
    memcpy(strstr(text, "id=t"), "id=u", 4);
    bad_creds(&r, text, CHR_ERR_INVALID, "priority=: more than 32 cipher suites");
    rig_close(&r);
}

TEST(bad_credentials)
{
    static char long_dir[1200], long_text[1400];
    both        b;

    both_begin(&b);
    memset(long_dir, 'd', sizeof long_dir - 1);
    bad_creds(&b.r, strcat(strcpy(long_text, "tls-creds-x509,id=t,dir="), long_dir), CHR_ERR_INVALID, "'t': a path is too long");
    bad_creds(&b.r, strcat(strcpy(long_text, "tls-creds-psk,id=t,dir="), long_dir), CHR_ERR_INVALID, "'t': a path is too long");
    bad_creds(&b.r, "tls-creds,id=t", CHR_ERR_NOT_FOUND, "'tls-creds' is not a kind of tls-creds object");
    bad_creds(&b.r, "authz-list,id=t,match=x", CHR_ERR_NOT_FOUND, "'authz-list' is not a kind of tls-creds object");
    bad_creds(&b.r, "tls-creds-x509,dir=$/server", CHR_ERR_INVALID, "needs id=");
    bad_creds(&b.r, "tls-creds-x509,id=1,dir=$/server", CHR_ERR_INVALID, "id=1");
    bad_creds(&b.r, "tls-creds-x509,id=t,help", CHR_ERR_HELP, "help");
    bad_creds(&b.r, "tls-creds-x509,id=t,logfile=x", CHR_ERR_INVALID, "unknown option 'logfile=x' (allowed: id, endpoint, dir, cafile");
    bad_creds(&b.r, "tls-creds-x509,id=t,dir=$/server,endpoint=both", CHR_ERR_INVALID, "endpoint=both: neither server nor client");
    bad_creds(&b.r, "tls-creds-x509,id=t,dir=$/server,min-version=1.1", CHR_ERR_INVALID, "min-version=1.1: neither 1.2 nor 1.3");
    bad_creds(&b.r, "tls-creds-x509,id=t,dir=$/client,verify-peer=off", CHR_ERR_INVALID, "a client always verifies");
    bad_creds(&b.r, "tls-creds-x509,id=t", CHR_ERR_INVALID, "needs dir=, or the option that names ca-cert.pem");
    bad_creds(&b.r, "tls-creds-x509,id=t,dir=$/client,endpoint=server", CHR_ERR_INVALID, "client/server-cert.pem: ");
    bad_creds(&b.r, "tls-creds-x509,id=t,dir=$/server,cafile=$/conf", CHR_ERR_INVALID, "conf: ");
    bad_creds(&b.r, "tls-creds-x509,id=t,dir=$/server,endpoint=server,keyfile=$/client-key.pem", CHR_ERR_INVALID, "don't belong together");
    bad_creds(&b.r, "tls-creds-x509,id=t,dir=$/server,endpoint=server,keyfile=$/ca-cert.pem", CHR_ERR_INVALID, "ca-cert.pem: ");
    bad_creds(&b.r, "tls-creds-x509,id=t,endpoint=server,verify-peer=off,certfile=$/server-cert.pem,keyfile=$/server-key.pem,crlfile=$/none.pem",
              CHR_ERR_INVALID, "none.pem: ");
    bad_creds(&b.r, "tls-creds-psk,id=t", CHR_ERR_INVALID, "needs dir= or keyfile=");
    bad_creds(&b.r, "tls-creds-psk,id=t,dir=$/server", CHR_ERR_NOT_FOUND, "server/keys.psk");
    bad_creds(&b.r, "tls-creds-psk,id=t,keyfile=$/none.psk,username=fred", CHR_ERR_NOT_FOUND, "cannot open ");
    bad_creds(&b.r, "tls-creds-psk,id=t,keyfile=$/conf", CHR_ERR_INVALID, "not NAME:HEX");
    bad_creds(&b.r, "tls-creds-psk,id=t,keyfile=$/zero.psk,username=fred", CHR_ERR_INVALID, "the key file holds a NUL byte, at offset 40");
    bad_creds(&b.r, "tls-creds-psk,id=t,dir=$,username=nobody", CHR_ERR_NOT_FOUND, "has no key for username=nobody");
    add_creds(&b.r, server_x509);
    bad_creds(&b.r, server_x509, CHR_ERR_EXISTS, "id=ts");
    rig_close(&b.r);
}

/* Of a file with several certificates each must be one. */
TEST(a_bundle_with_a_certificate_that_is_none)
{
    both      b;
    chr_error err;

    both_begin(&b);
    bad_creds(&b.r, "tls-creds-x509,id=t,dir=$/server,cafile=$/bundle.pem", CHR_ERR_INVALID, "bundle.pem: 1 of its certificates can't be read");
    CHECK_INT(chr_tls_creds_add(b.r.ctx, with_dir("tls-creds-x509,id=t,dir=$/server,cafile=$/conf"), &err), CHR_ERR_INVALID);
    CHECK(!strstr(err.text, "of its certificates"));
    CHECK_HAS(err.text, "conf: X509 - ");
    rig_close(&b.r);
}

static void open_to_others(const char *options, const char *path, mode_t mode)
{
    both b;
    char line[400];

    both_begin(&b);
    snprintf(line, sizeof line, "%s: others than its owner may read or write this file", with_dir(path));
    CHECK_INT(chmod(with_dir(path), mode), 0);
    add_creds(&b.r, options);
    if (mode & 077) CHECK_HAS(b.r.log, line);
    else CHECK_STR(b.r.log, "");
    CHECK_INT(chmod(with_dir(path), 0600), 0);
    rig_close(&b.r);
}

TEST(a_secret_that_others_can_read_is_told)
{
    static const mode_t modes[] = { 0600, 0400, 0640, 0604, 0620, 0602, 0666 };
    size_t i;

    NEED_POSIX("files have no such permissions on this system");
    for (i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        open_to_others("tls-creds-psk,id=t,dir=$,username=fred", "$/keys.psk", modes[i]);
        open_to_others("tls-creds-x509,id=t,dir=$/client", "$/client/client-key.pem", modes[i]);
    }
}

TEST(a_certificate_for_the_other_role_is_told)
{
    static const char told[] = "tls-creds-x509: the certificate is not for a server (extended key usage): peers refuse it";
    both b;

    both_begin(&b);
    add_creds(&b.r, server_with("only-client"));
    CHECK_HAS(b.r.log, told);
    b.r.log[0] = 0;
    add_creds(&b.r, client_with("only-client"));
    CHECK_STR(b.r.log, "");
    rig_close(&b.r);
}

/* It is the client that verifies a name: whatever the server's address is, it needs none. */
TEST(a_server_needs_no_host_name)
{
    both b;
    char path[100], text[300];
    int  fd, port;

    both_begin(&b);
    add_creds(&b.r, server_x509);
    snprintf(path, sizeof path, "%s/monitor", certs);
    snprintf(text, sizeof text, "socket,id=u,path=%s,server=on,wait=off,tls-creds=ts", path);
    CHECK(make(&b.r, text));
    fd = tcp_listen(&port);
    snprintf(text, sizeof text, "socket,id=f,fd=%d,server=on,wait=off,tls-creds=ts", fd);
    CHECK(make(&b.r, text));
    rig_close(&b.r);
}

TEST(bad_sockets)
{
    both      b;
    chr_error err;
    int       fds[2];
    char      text[300];

    both_begin(&b);
    add_creds(&b.r, server_x509);
    add_creds(&b.r, client_x509);
    allow(&b.r, "authz-list,id=who,match=x");
    CHECK_INT(refuse(&b.r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off,tls-creds=tc", &err), CHR_ERR_INVALID);
    CHECK_STR(err.text, "socket: tls-creds=tc: the credentials are for a client, and the socket is a server");
    CHECK_INT(refuse(&b.r, "socket,id=s,host=127.0.0.1,port=1,tls-creds=ts", &err), CHR_ERR_INVALID);
    CHECK_STR(err.text, "socket: tls-creds=ts: the credentials are for a server, and the socket is a client");
    CHECK_INT(refuse(&b.r, "socket,id=s,host=127.0.0.1,port=1,tls-creds=nix", &err), CHR_ERR_NOT_FOUND);
    CHECK_INT(refuse(&b.r, "socket,id=s,host=127.0.0.1,port=1,tls-creds=who", &err), CHR_ERR_NOT_FOUND);
    CHECK_INT(refuse(&b.r, "socket,id=s,path=/tmp/x,tls-creds=tc", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "TLS can not be used over path=");
    socket_pair(fds);
    snprintf(text, sizeof text, "socket,id=s,fd=%d,tls-creds=tc", fds[0]);
    CHECK_INT(refuse(&b.r, text, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "TLS can not be used with a pre-opened client fd");
    CHECK_INT(refuse(&b.r, "socket,id=s,host=127.0.0.1,port=1,tls-hostname=x", &err), CHR_ERR_INVALID);
    CHECK_INT(refuse(&b.r, "socket,id=s,host=127.0.0.1,port=1,tls-authz=x", &err), CHR_ERR_INVALID);
    CHECK_INT(chr_authz_add(b.r.ctx, "authz-list,id=ts,match=x", &err), CHR_ERR_EXISTS);
    CHECK_INT(chr_authz_add(b.r.ctx, "authz-list,id=a", &err), CHR_ERR_INVALID);
    CHECK_INT(chr_authz_add(b.r.ctx, "authz-list,id=a,match=x,format=regex", &err), CHR_ERR_INVALID);
    close(fds[0]);
    close(fds[1]);
    rig_close(&b.r);
}

static void count_line(void *opaque, const char *line)
{
    if (strstr(line, "endpoint=<text>") || strstr(line, "verify-peer=<on|off>") || strstr(line, "match=<text>")) ++*(int *)opaque;
    CHECK(!strstr(line, "logfile"));
}

TEST(help)
{
    rig r;
    int lines = 0;

    rig_open(&r);
    CHECK_INT(chr_help(r.ctx, "tls-creds-x509", count_line, &lines), 0);
    CHECK_INT(chr_help(r.ctx, "tls-creds-psk,help", count_line, &lines), 0);
    CHECK_INT(chr_help(r.ctx, "authz-list", count_line, &lines), 0);
    CHECK_INT(lines, 4);
    rig_close(&r);
}

/* Every allocation of the context's fails in turn, while credentials are made and two chardevs meet. */
TEST(no_memory)
{
    both      b;
    chr_error err;
    long      n, before = 0;
    int       done = 0;

    for (n = 1; !done; n++) {
        both_begin(&b);
        before = b.r.calls;
        b.r.fail_at = before + n;
        done = chr_tls_creds_add(b.r.ctx, with_dir(server_x509), &err) == 0 && chr_tls_creds_add(b.r.ctx, with_dir("tls-creds-psk,id=p,dir=$,username=fred"), &err) == 0 &&
               chr_authz_add(b.r.ctx, "authz-list,id=who,match=*,format=glob", &err) == 0;
        if (!done) CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
        done = b.r.failed == 0;
        b.r.fail_at = 0;
        rig_close(&b.r);
    }
    CHECK(n > 10);
}

/* The same during handshake and traffic: a failure ends one connection, and is reported. Some allocations are
 * optional. */
TEST(no_memory_for_a_connection)
{
    both b;
    long n;
    int  failed = 1, is_up, told = 0;

    for (n = 1; failed; n++) {
        both_begin(&b);
        add_creds(&b.r, server_x509);
        add_creds(&b.r, client_x509);
        both_connect_client(&b, ",tls-hostname=localhost");
        both_connect_server(&b, "");
        b.r.fail_at = b.r.calls + n;
        both_settle(&b);
        failed = b.r.failed;
        is_up = b.server.open && b.client.open;
        if (!failed) CHECK(is_up);
        if (!is_up) CHECK_HAS(b.r.log, ": out of memory");
        told += !is_up;
        both_end(&b);
    }
    CHECK(told > 2);
}
#endif
