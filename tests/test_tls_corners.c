/*
 * Corner cases of TLS, with pre-shared keys, server and client in one loop: writes that fail halfway, traced alerts,
 * secrets in freed memory, and out of memory in mbed TLS.
 */
#include "chardev.h"
#include "fault.h"
#include "rig.h"

#ifndef CHARDEV_MBEDTLS
TEST(tls_corners) { SKIP("built without CHARDEV_MBEDTLS: mbedtls/ssl.h is missing"); }
#else

#include <mbedtls/version.h>

/* ---- mbed TLS's memory ------------------------------------------------------------------------------------------- */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(_WIN32)
#define HAS_CALLOC 1
static long callocs, calloc_fails_at; /* 0 = none fails */
static void *(*volatile fill)(void *, int, size_t) = memset; /* malloc() and memset() in a row would become calloc() */

void *calloc(size_t count, size_t size)
{
    void *memory;
    callocs++;
    if (calloc_fails_at && callocs == calloc_fails_at) return NULL;
    memory = malloc(count * size > 0 ? count * size : 1);
    return memory ? fill(memory, 0, count * size) : NULL;
}
#endif

/* ---- a server and its client ------------------------------------------------------------------------------------- */

typedef struct both {
    rig      r;
    recorder server, client;
} both;

#define KEY_TEXT "00112233445566778899aabbccddeeff"
static const unsigned char key_bytes[] = { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff };

static int add_key(rig *r, const char *options, const char *line, chr_error *err)
{
    char text[300];
    write_file(scratch("keys"), line);
    chmod(scratch("keys"), 0600);
    snprintf(text, sizeof text, "tls-creds-psk,%s,keyfile=%s", options, scratch("keys"));
    return chr_tls_creds_add(r->ctx, text, err);
}

static void must_add_key(rig *r, const char *options, const char *line)
{
    chr_error err;
    if (!CHECK_INT(add_key(r, options, line, &err), 0)) NOTE("%s", err.text);
}

static void both_keys(rig *r)
{
    must_add_key(r, "id=ts,endpoint=server", "fred:" KEY_TEXT "\n");
    must_add_key(r, "id=tc,username=fred", "fred:" KEY_TEXT "\n");
}

static void make_both(both *b, const char *server_more, const char *client_more)
{
    char text[400];
    snprintf(text, sizeof text, "socket,id=s,path=%s,server=on,wait=off,tls-creds=ts%s", scratch("s"), server_more);
    attach(&b->server, make(&b->r, text));
    snprintf(text, sizeof text, "socket,id=c,path=%s,tls-creds=tc,tls-hostname=x,reconnect-ms=1000%s", scratch("s"), client_more);
    attach(&b->client, make(&b->r, text));
}

static void open_both(both *b, const char *server_more, const char *client_more)
{
    memset(b, 0, sizeof *b);
    rig_open_virtual(&b->r);
    both_keys(&b->r);
    make_both(b, server_more, client_more);
    settle(&b->r);
    CHECK_STR(b->server.events, "O");
    CHECK_STR(b->client.events, "O");
}

static void close_both(both *b)
{
    detach(&b->server);
    detach(&b->client);
    rig_close(&b->r);
    scratch_clean();
}

static chr_info info_of(rig *r, const char *id)
{
    chr_info info;
    chr_query(chr_find(r->ctx, id), &info);
    return info;
}

/* ---- writes that fail -------------------------------------------------------------------------------------------- */

/* A record that would block counts as written and as queued; it goes out with the next write, or from the loop. */
TEST(a_record_that_would_block_is_queued)
{
    static const int errors[] = { EAGAIN, FAULT_SHORT };
    both             b;
    size_t           i;
    int              more;
    NEED_POSIX("there are no faults of system calls on this system");
    for (i = 0; i < 2; i++)
        for (more = 0; more < 2; more++) {
            open_both(&b, "", "");
            CHECK_INT(info_of(&b.r, "s").bytes_queued, 0);
            fault_arm(FAULT_send, errors[i], 1, errors[i] == EAGAIN);
            CHECK_INT(chr_fe_write(&b.server.fe, "hello ", 6), 6);
            if (errors[i] == EAGAIN) CHECK_INT(info_of(&b.r, "s").bytes_queued, 6);
            if (errors[i] == EAGAIN && more) CHECK_INT(chr_fe_write(&b.server.fe, "x", 1), CHR_ERR_WOULD_BLOCK);
            fault_disarm();
            if (more) CHECK_INT(chr_fe_write(&b.server.fe, "world", 5), 5);
            settle(&b.r);
            CHECK_INPUT(&b.client, more ? "hello world" : "hello ");
            CHECK_INT(info_of(&b.r, "s").bytes_queued, 0);
            CHECK_STR(b.r.log, "");
            close_both(&b);
        }
}

/* The handshake of the layer above goes on when its record has been sent. */
TEST(a_record_of_the_next_handshake_that_would_block)
{
    static const char *const layers[] = { ",websocket=on", ",tn3270=on", ",telnet=on" };
    both   b;
    size_t i;
    int    n, times, fired = 1;
    NEED_POSIX("there are no faults of system calls on this system");
    for (i = 0; i < sizeof layers / sizeof *layers; i++)
        for (n = 1, fired = 1; n < 40 && fired; n++) {
            memset(&b, 0, sizeof b);
            rig_open_virtual(&b.r);
            both_keys(&b.r);
            fault_arm(FAULT_send, EAGAIN, n, 0);
            make_both(&b, layers[i], layers[i]);
            settle(&b.r);
            fired = fault_plan.fired > 0;
            fault_disarm();
            for (times = 0; times < 2 && !b.client.open; times++) settle(&b.r);
            if (!CHECK(b.client.open && b.server.open)) NOTE("send() %d of %s", n, layers[i]);
            CHECK_INT(chr_fe_write(&b.client.fe, "hello\xff\xef", 7), 7);
            settle(&b.r);
            CHECK(b.server.length >= 5);
            CHECK_STR(b.r.log, "");
            close_both(&b);
        }
}

/* What fails at once is the error of the call, and the descriptor is the caller's. */
TEST(a_passed_client_that_does_not_speak_tls)
{
    chr_error err;
    both      b;
    int       fds[2];
    memset(&b, 0, sizeof b);
    rig_open_virtual(&b.r);
    both_keys(&b.r);
    make_both(&b, "", "");
    settle(&b.r);
    CHECK_INT(chr_fe_disconnect(&b.client.fe), 0);
    detach(&b.client);
    CHECK_INT(chr_remove(b.r.ctx, "c", NULL), 0);
    settle(&b.r);
    socket_pair(fds);
    say(fds[0], "hello, this is no TLS");
    CHECK_INT(chr_add_client(b.r.ctx, "s", fds[1], &err), CHR_ERR_IO);
    CHECK_STR(err.text, "TLS: what the peer sends is not TLS");
    close(fds[1]);
    close(fds[0]);
    CHECK_STR(b.server.events, "OC");
    close_both(&b);
}

/* One after the other, of any size. */
TEST(records_that_would_block_again_and_again)
{
    static const char *const texts[] = { "a long one to begin with", "short", "x", "and one that is longer than all that came before it" };
    char                     all[200] = "";
    both                     b;
    size_t                   i;
    NEED_POSIX("there are no faults of system calls on this system");
    open_both(&b, "", "");
    for (i = 0; i < 4; i++) {
        fault_arm(FAULT_send, EAGAIN, 1, 1);
        CHECK_INT(chr_fe_write(&b.server.fe, texts[i], strlen(texts[i])), strlen(texts[i]));
        CHECK_INT(info_of(&b.r, "s").bytes_queued, strlen(texts[i]));
        fault_disarm();
        settle(&b.r);
        strcat(all, texts[i]);
        CHECK_INPUT(&b.client, all);
        CHECK_INT(info_of(&b.r, "s").bytes_queued, 0);
    }
    close_both(&b);
}

/* The error behind it is that of the next write, and the end. */
TEST(a_record_that_blocked_and_fails)
{
    static const int errors[] = { EPIPE, ECONNRESET };
    both             b;
    size_t           i;
    int              from_loop, taken;
    NEED_POSIX("there are no faults of system calls on this system");
    for (i = 0; i < 2; i++)
        for (from_loop = 0; from_loop < 2; from_loop++) {
            open_both(&b, "", "");
            fault_arm(FAULT_send, EAGAIN, 1, 0);
            CHECK_INT(chr_fe_write(&b.server.fe, "lost", 4), 4);
            fault_arm(FAULT_send, errors[i], 1, 1);
            if (!from_loop) CHECK_INT(chr_fe_write(&b.server.fe, "x", 1), CHR_ERR_DISCONNECTED);
            for (taken = 0; taken < 10; taken++) chr_loop_step(b.r.ctx, 0);
            CHECK_INT(chr_fe_write(&b.server.fe, "x", 1), CHR_ERR_DISCONNECTED);
            CHECK(fault_plan.fired > 0);
            fault_disarm();
            CHECK_INT(b.client.length, 0);
            CHECK_INT(chr_fe_disconnect(&b.client.fe), 0);
            settle(&b.r);
            CHECK_STR(b.server.events, "OC");
            close_both(&b);
        }
}

/* Of several records those before the error were sent. */
TEST(a_write_that_fails_in_its_second_record)
{
    static char block[60000];
    both        b;
    int         n;
    NEED_POSIX("there are no faults of system calls on this system");
    open_both(&b, "", "");
    fault_arm(FAULT_send, EPIPE, 2, 1);
    n = chr_fe_write(&b.server.fe, block, sizeof block);
    CHECK(n > 0 && n < (int)sizeof block);
    CHECK_INT(chr_fe_write(&b.server.fe, "x", 1), CHR_ERR_DISCONNECTED);
    fault_disarm();
    settle(&b.r);
    CHECK_INT(b.client.length, n);
    close_both(&b);
    open_both(&b, "", "");
    fault_arm(FAULT_send, EPIPE, 1, 1);
    CHECK_INT(chr_fe_write(&b.server.fe, block, sizeof block), CHR_ERR_DISCONNECTED);
    fault_disarm();
    close_both(&b);
}

/* close_notify waits for what is queued, and for room; the peer gets all, and no truncation. */
TEST(close_notify_that_would_block)
{
    both b;
    int  at, how;
    NEED_POSIX("there are no faults of system calls on this system");
    for (how = 0; how < 4; how++)
        for (at = 1; at < 4; at++) {
            open_both(&b, ",half-close=on", "");
            if (how & 1) fault_arm(FAULT_send, EAGAIN, 1, 0);
            if (how & 1) CHECK_INT(chr_fe_write(&b.client.fe, "last words", 10), 10);
            fault_arm(FAULT_send, EAGAIN, at, 0);
            if (how & 2) CHECK_INT(chr_fe_shutdown(&b.client.fe), 0);
            else CHECK_INT(chr_fe_disconnect(&b.client.fe), 0);
            settle(&b.r);
            fault_disarm();
            settle(&b.r);
            CHECK_INPUT(&b.server, how & 1 ? "last words" : "");
            CHECK_HAS(b.server.events, "OE");
            if (how & 2) CHECK_INT(chr_fe_write(&b.server.fe, "answer", 6), 6);
            if (how & 2) settle(&b.r);
            if (how & 2) CHECK_INPUT(&b.client, "answer");
            CHECK_STR(b.r.log, "");
            close_both(&b);
        }
}

/* A peer that close_notify can't be sent to has disconnected. */
TEST(close_notify_that_fails)
{
    both b;
    NEED_POSIX("there are no faults of system calls on this system");
    open_both(&b, "", "");
    fault_arm(FAULT_send, EPIPE, 1, 1);
    CHECK_INT(chr_fe_shutdown(&b.client.fe), CHR_ERR_DISCONNECTED);
    settle(&b.r);
    CHECK_INT(chr_fe_disconnect(&b.client.fe), 0);
    settle(&b.r);
    fault_disarm();
    settle(&b.r);
    CHECK_STR(b.server.events, "OC");
    CHECK_HAS(b.r.log, "chardev s: TLS: the connection ended without close_notify: the input may be truncated\n");
    close_both(&b);
}

/* ---- who is let in ----------------------------------------------------------------------------------------------- */

TEST(identities_on_a_list)
{
    static const struct { const char *match; int is_let_in; } cases[] = { { "fred", 1 }, { "fre?,format=glob", 1 }, { "fre", 0 }, { "fredd", 0 }, { "CN=fred", 0 } };
    size_t                                                    i;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        both      b;
        chr_error err;
        char      text[100];
        memset(&b, 0, sizeof b);
        rig_open_virtual(&b.r);
        both_keys(&b.r);
        snprintf(text, sizeof text, "authz-list,id=who,match=%s", cases[i].match);
        CHECK_INT(chr_authz_add(b.r.ctx, text, &err), 0);
        make_both(&b, ",tls-authz=who", "");
        settle(&b.r);
        CHECK_STR(b.server.events, cases[i].is_let_in ? "O" : "");
        if (!cases[i].is_let_in) CHECK_HAS(b.r.log, "chardev s: TLS: the peer 'fred' is not on the list tls-authz=who\n");
        else CHECK_STR(b.r.log, "");
        close_both(&b);
    }
}

/* An object of another kind is no list, and lists are no credentials. */
TEST(objects_of_another_kind)
{
    both      b;
    chr_error err;
    memset(&b, 0, sizeof b);
    rig_open_virtual(&b.r);
    both_keys(&b.r);
    CHECK_INT(chr_authz_add(b.r.ctx, "authz-list,id=who,match=fred", &err), 0);
    CHECK_INT(chr_authz_add(b.r.ctx, "authz-list,id=tc,match=fred", &err), CHR_ERR_EXISTS);
    CHECK_HAS(err.text, "there is an object of another kind with that id");
    CHECK_INT(add_key(&b.r, "id=who", "qemu:" KEY_TEXT "\n", &err), CHR_ERR_EXISTS);
    CHECK_HAS(err.text, "there is an object with that id already");
    CHECK_INT(refuse(&b.r, "socket,id=x,path=/tmp/x,server=on,wait=off,tls-creds=who", &err), CHR_ERR_NOT_FOUND);
    CHECK_INT(refuse(&b.r, "socket,id=x,path=/tmp/x,server=on,wait=off,tls-creds=tc", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "the credentials are for a client, and the socket is a server");
    CHECK_INT(refuse(&b.r, "socket,id=x,path=/tmp/x,tls-hostname=x,tls-creds=ts", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "the credentials are for a server, and the socket is a client");
    make_both(&b, ",tls-authz=tc", ""); /* credentials allow nobody */
    settle(&b.r);
    CHECK_STR(b.server.events, "");
    CHECK_HAS(b.r.log, "the peer 'fred' is not on the list tls-authz=tc");
    close_both(&b);
}

/* What mbed TLS has not, or the system does not give. */
TEST(credentials_that_can_not_be_had)
{
    chr_error err;
    char      text[300];
    rig       r;
    rig_open(&r);
    (void)scratch("x");
    snprintf(text, sizeof text, "tls-creds-psk,id=t,keyfile=%s", scratch_dir); /* a directory opens, and can't be read */
    CHECK(chr_tls_creds_add(r.ctx, text, &err) < 0);
    CHECK_HAS(err.text, scratch_dir);
    CHECK_HAS(err.text, ": can't be read");
    if (MBEDTLS_VERSION_NUMBER < 0x03000000) {
        CHECK_INT(add_key(&r, "id=t,username=fred,min-version=1.3", "fred:" KEY_TEXT "\n", &err), CHR_ERR_NOT_SUPPORTED);
        CHECK_STR(err.text, "tls-creds-psk: min-version=1.3: this mbed TLS has no TLS 1.3");
    }
    rig_close(&r);
    scratch_clean();
}

/* Keys are compared to their last digit. */
TEST(keys_that_differ_in_one_digit)
{
    static const char *const keys[] = { "10112233445566778899aabbccddeeff", "00112233445566778899aabbccddeefe", "00112233445566788899aabbccddeeff",
                                        "00112233445566778899aabbccddee", "00112233445566778899aabbccddeeff00" };
    size_t i;
    for (i = 0; i < sizeof keys / sizeof *keys; i++) {
        both b;
        char line[100];
        memset(&b, 0, sizeof b);
        rig_open_virtual(&b.r);
        snprintf(line, sizeof line, "fred:%s\n", keys[i]);
        must_add_key(&b.r, "id=ts,endpoint=server", "fred:" KEY_TEXT "\n");
        must_add_key(&b.r, "id=tc,username=fred", line);
        make_both(&b, "", "");
        settle(&b.r);
        CHECK_STR(b.server.events, "");
        CHECK_STR(b.client.events, "");
        close_both(&b);
    }
}

/* A list of several patterns goes as a whole. */
TEST(long_lists_are_given_back)
{
    chr_error err;
    char      text[100];
    rig       r;
    int       i;
    rig_open(&r);
    for (i = 0; i < 6; i++) {
        snprintf(text, sizeof text, "authz-list,id=who,match=CN=%d", i);
        CHECK_INT(chr_authz_add(r.ctx, text, &err), 0);
    }
    CHECK_INT(chr_authz_remove(r.ctx, "who", &err), 0);
    CHECK_INT(chr_authz_add(r.ctx, "authz-list,id=who,match=x", &err), 0);
    rig_close(&r);
}

/* New ones of the same id that are for the other role are no use to the socket, and stay as they are. */
TEST(credentials_that_change_their_role)
{
    both      b;
    chr_error err;
    int       fd, i;
    open_both(&b, "", "");
    CHECK_INT(chr_tls_creds_remove(b.r.ctx, "ts", &err), 0);
    must_add_key(&b.r, "id=ts,username=fred", "fred:" KEY_TEXT "\n");
    CHECK_INT(chr_fe_disconnect(&b.server.fe), 0);
    settle(&b.r);
    for (i = 0; i < 2; i++) {
        fd = unix_connect(scratch("s"));
        settle(&b.r);
        CHECK_HAS(b.r.log, "chardev s: socket: tls-creds=ts: the credentials are for a client, and the socket is a server\n");
        CHECK_STR(hear(fd), "(eof)");
        close(fd);
    }
    CHECK_INT(chr_tls_creds_remove(b.r.ctx, "ts", &err), 0);
    CHECK_INT(chr_tls_creds_remove(b.r.ctx, "ts", &err), CHR_ERR_NOT_FOUND);
    close_both(&b);
}

/* Errors of a key file name the object, the file and the place. */
TEST(errors_of_key_files)
{
    chr_error err;
    char      text[300], want[400];
    FILE     *file;
    rig       r;
    rig_open(&r);
    file = fopen(scratch("zero"), "w");
    REQUIRE(file != NULL);
    fwrite("ana:00\nb\0b:00\n", 1, 14, file);
    fclose(file);
    snprintf(text, sizeof text, "tls-creds-psk,id=t,keyfile=%s", scratch("zero"));
    CHECK_INT(chr_tls_creds_add(r.ctx, text, &err), CHR_ERR_INVALID);
    snprintf(want, sizeof want, "tls-creds-psk 't': %s: the key file holds a NUL byte, at offset 8", scratch("zero"));
    CHECK_STR(err.text, want);
    CHECK_INT(add_key(&r, "id=t,username=fred", "fred\n", &err), CHR_ERR_INVALID);
    CHECK_STR(err.text, "tls-creds-psk 't': a line of the key file is not NAME:HEX with at most 64 digits");
    CHECK_INT(add_key(&r, "id=t,username=eve", "fred:00\n", &err), CHR_ERR_NOT_FOUND);
    snprintf(want, sizeof want, "tls-creds-psk 't': %s has no key for username=eve", scratch("keys"));
    CHECK_STR(err.text, want);
    rig_close(&r);
    scratch_clean();
}

/* Credentials that are removed while a socket names them: whoever comes then fails, and the others stay. */
TEST(credentials_that_are_gone)
{
    both      b;
    chr_error err;
    int       fd;
    open_both(&b, "", "");
    CHECK_INT(chr_tls_creds_remove(b.r.ctx, "ts", &err), 0);
    CHECK_INT(chr_fe_write(&b.client.fe, "x", 1), 1);
    settle(&b.r);
    CHECK_INPUT(&b.server, "x");
    CHECK_INT(chr_fe_disconnect(&b.server.fe), 0);
    settle(&b.r);
    fd = unix_connect(scratch("s"));
    settle(&b.r);
    CHECK_HAS(b.r.log, "chardev s: socket: tls-creds=ts: there are no TLS credentials with that id\n");
    CHECK_STR(hear(fd), "(eof)");
    CHECK_STR(b.server.events, "OC");
    close(fd);
    close_both(&b);
}

/* ---- the trace --------------------------------------------------------------------------------------------------- */

static int     alerts_sent, alerts_received, steps, ups, wires;
static int64_t end_code, sent_level, sent_description, received_level, received_description;

static void on_trace(void *opaque, const chr_trace *event)
{
    (void)opaque;
    steps += event->number == CHR_TRACE_tls_step;
    ups += event->number == CHR_TRACE_tls_up;
    wires += event->number == CHR_TRACE_wire_out;
    if (event->number == CHR_TRACE_tls_end) end_code = event->value[0];
    if (event->number == CHR_TRACE_tls_alert_sent) {
        alerts_sent++;
        sent_level = event->value[0];
        sent_description = event->value[1];
    }
    if (event->number == CHR_TRACE_tls_alert_received) {
        alerts_received++;
        received_level = event->value[0];
        received_description = event->value[1];
    }
}

TEST(alerts_are_traced_and_nothing_else_is_one)
{
    both b;
    rig_traced = on_trace;
    open_both(&b, "", "");
    CHECK_INT(ups, 2);
    CHECK(steps >= 10);
    CHECK_INT(chr_fe_write(&b.client.fe, "hello", 5), 5);
    CHECK_INT(chr_fe_write(&b.server.fe, "world", 5), 5);
    settle(&b.r);
    CHECK_INT(alerts_sent, 0);
    CHECK_INT(alerts_received, 0);
    wires = 0;
    CHECK_INT(chr_fe_disconnect(&b.client.fe), 0);
    CHECK_INT(alerts_sent, 1); /* encrypted: what it says is not known */
    CHECK_INT(sent_level, -1);
    CHECK_INT(sent_description, -1);
    settle(&b.r);
    CHECK_INT(alerts_sent, 2);
    CHECK_INT(wires, 2);
    CHECK(alerts_received >= 1);
    CHECK_INT(received_level, 1);
    CHECK_INT(received_description, 0);
    close_both(&b);
}

/* Once, though the end comes in two steps. */
TEST(close_notify_is_sent_once)
{
    both b;
    rig_traced = on_trace;
    open_both(&b, ",half-close=on", "");
    CHECK_INT(chr_fe_shutdown(&b.client.fe), 0);
    settle(&b.r);
    CHECK_STR(b.server.events, "OE");
    CHECK_INT(alerts_sent, 1);
    CHECK_INT(chr_fe_disconnect(&b.client.fe), 0);
    CHECK_INT(alerts_sent, 1);
    settle(&b.r);
    CHECK_STR(b.client.events, "OC");
    close_both(&b);
}

/* Which end it was: of the file, or by a reset. */
TEST(ends_are_traced)
{
    both b;
    int  is_reset;
    NEED_POSIX("there are no faults of system calls on this system");
    rig_traced = on_trace;
    for (is_reset = 0; is_reset < 2; is_reset++) {
        open_both(&b, "", "");
        fault_arm(FAULT_send, EPIPE, 1, 1); /* no close_notify */
        if (is_reset) fault_arm(FAULT_recvmsg, ECONNRESET, 1, 1);
        CHECK_INT(chr_fe_disconnect(&b.client.fe), 0);
        settle(&b.r);
        fault_disarm();
        settle(&b.r);
        CHECK_STR(b.server.events, "OC");
        CHECK_INT(end_code, is_reset ? -0x50 : 0);
        close_both(&b);
    }
}

TEST(alerts_of_a_failed_handshake_are_traced)
{
    both b;
    rig_traced = on_trace;
    memset(&b, 0, sizeof b);
    rig_open_virtual(&b.r);
    must_add_key(&b.r, "id=ts,endpoint=server", "fred:" KEY_TEXT "\n");
    must_add_key(&b.r, "id=tc,username=fred", "fred:ff112233445566778899aabbccddeeff\n");
    make_both(&b, "", "");
    settle(&b.r);
    CHECK_STR(b.server.events, "");
    CHECK_INT(ups, 0);
    CHECK(alerts_sent >= 1);
    if (MBEDTLS_VERSION_NUMBER < 0x03000000) {
        CHECK_INT(alerts_sent, 1);
        CHECK_INT(alerts_received, 1);
        CHECK_INT(sent_level, 2); /* fatal, and not encrypted yet */
        CHECK_INT(sent_description, 20);
        CHECK_INT(received_level, 2);
        CHECK_INT(received_description, 20);
    }
    close_both(&b);
}

/* ---- secrets ----------------------------------------------------------------------------------------------------- */

static const char secret_text[] = "what nobody may see afterwards";
static int        secrets_left;

static int holds(const unsigned char *at, size_t size, const void *secret, size_t len)
{
    size_t i;
    for (i = 0; i + len <= size; i++)
        if (memcmp(at + i, secret, len) == 0) return 1;
    return 0;
}

/* Looks into each block that is given back. */
static void *suspicious(void *opaque, void *ptr, size_t size)
{
    size_t old = 0;
    if (ptr) memcpy(&old, (char *)ptr - RIG_HEADER, sizeof old);
    if (holds((unsigned char *)ptr, old, key_bytes, sizeof key_bytes) || holds((unsigned char *)ptr, old, KEY_TEXT, 16) ||
        holds((unsigned char *)ptr, old, secret_text, sizeof secret_text - 1)) secrets_left++;
    return rig_allocate(opaque, ptr, size);
}

TEST(secrets_are_wiped_before_their_memory_is_given_back)
{
    both       b;
    chr_config config = rig_config(&b.r);
    chr_error  err;
    NEED_POSIX("there are no faults of system calls on this system");
    memset(&b, 0, sizeof b);
    rig_init(&b.r);
    config.allocate = suspicious;
    config.clock = rig_clock;
    b.r.ctx = chr_context_new(&config);
    both_keys(&b.r);
    make_both(&b, "", "");
    settle(&b.r);
    CHECK_STR(b.server.events, "O");
    fault_arm(FAULT_send, EAGAIN, 1, 1);
    CHECK_INT(chr_fe_write(&b.server.fe, secret_text, sizeof secret_text - 1), sizeof secret_text - 1); /* kept as it is */
    fault_arm(FAULT_send, EPIPE, 1, 1);
    detach(&b.server);
    CHECK_INT(chr_remove(b.r.ctx, "s", &err), 0);
    CHECK_INT(chr_tls_creds_remove(b.r.ctx, "ts", &err), 0);
    CHECK_INT(chr_tls_creds_remove(b.r.ctx, "tc", &err), 0);
    CHECK(add_key(&b.r, "id=tx,username=eve", "fred:" KEY_TEXT "\n", &err) < 0);
    CHECK(add_key(&b.r, "id=tx,username=fred", "fred:" KEY_TEXT "\nfred\n", &err) < 0);
    settle(&b.r);
    fault_disarm();
    detach(&b.client);
    rig_close(&b.r);
    CHECK_INT(secrets_left, 0);
    scratch_clean();
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

#ifdef HAS_CALLOC
/* Allocations of mbed TLS fail, the first ones each and then some: each is an error that is reported, and nothing
 * leaks. */
static void without_memory(int from_creds)
{
    long n;
    int  failed = 0, made = 0, cannot_begin = 0;
    for (n = 1; n < 100000 && !made; n += 1 + n / 15) {
        both      b;
        chr_error err;
        memset(&b, 0, sizeof b);
        rig_open_virtual(&b.r);
        callocs = 0;
        calloc_fails_at = from_creds ? n : 0;
        if (add_key(&b.r, "id=ts,endpoint=server", "fred:" KEY_TEXT "\n", &err) < 0 || add_key(&b.r, "id=tc,username=fred", "fred:" KEY_TEXT "\n", &err) < 0) {
            calloc_fails_at = 0;
            CHECK(err.text[0]);
            rig_close(&b.r);
            scratch_clean();
            continue;
        }
        if (!from_creds) callocs = 0;
        calloc_fails_at = n;
        make_both(&b, "", "");
        settle(&b.r);
        made = callocs < n;
        calloc_fails_at = 0;
        if (!b.server.open || !b.client.open) {
            failed++;
            CHECK(b.r.logs > 0);
            cannot_begin += strstr(b.r.log, "TLS: mbed TLS can't begin (-0x") != NULL;
        }
        if (made) CHECK_STR(b.r.log, "");
        pass_time(&b.r, 1000); /* the next attempt does better */
        CHECK(b.server.open && b.client.open);
        close_both(&b);
    }
    CHECK(made && failed > 0);
    if (!from_creds) CHECK(cannot_begin > 1);
}

TEST(mbed_tls_without_memory) { without_memory(1); }
TEST(mbed_tls_without_memory_for_a_connection) { without_memory(0); }
#endif

/* ---- objects ----------------------------------------------------------------------------------------------------- */

TEST(many_lists_of_peers)
{
    enum { MANY = 100 };
    char      text[60];
    chr_error err;
    int       i;
    rig       r;
    rig_open(&r);
    for (i = 0; i < MANY; i++) {
        snprintf(text, sizeof text, "authz-list,id=list%d,match=CN=x", i);
        CHECK_INT(chr_authz_add(r.ctx, text, &err), 0);
    }
    for (i = 0; i < MANY; i += 3) {
        snprintf(text, sizeof text, "list%d", i);
        CHECK_INT(chr_authz_remove(r.ctx, text, &err), 0);
        CHECK_INT(chr_authz_remove(r.ctx, text, &err), CHR_ERR_NOT_FOUND);
    }
    rig_close(&r); /* the others go with it */
}

/* Whichever allocation fails: an error that says so, and no list. */
TEST(a_list_of_peers_without_memory)
{
    chr_error err;
    int       code = -1, n;
    rig       r;
    for (n = 1; code < 0 && n < 30; n++) {
        rig_open(&r);
        CHECK_INT(chr_authz_add(r.ctx, "authz-list,id=!,match=CN=x", &err), CHR_ERR_INVALID); /* which is not told again */
        memset(&err, 0, sizeof err);
        r.fail_at = r.calls + n;
        code = chr_authz_add(r.ctx, "authz-list,id=a,match=CN=x", &err);
        r.fail_at = 0;
        if (!CHECK(code == 0 || code == CHR_ERR_NO_MEMORY)) NOTE("%d at allocation %d", code, n);
        CHECK_INT(err.code, code);
        CHECK(!err.text[0] == !code);
        CHECK_INT(chr_authz_remove(r.ctx, "a", &err), code ? (int)CHR_ERR_NOT_FOUND : 0);
        rig_close(&r);
    }
    CHECK(n > 4 && code == 0);
}

#endif
