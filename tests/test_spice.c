/*
 * spicevmc and spiceport on a spice server in the test, with a client that is implemented here, so that both ends run
 * in one loop. The real client is in tests/peers/spice_client.py.
 */
#include "chardev.h"
#include "rig.h"

#ifndef CHARDEV_SPICE

TEST(spice) { SKIP("built without CHARDEV_SPICE: pkg-config knows no spice-server"); }

TEST(built_without_spice_says_so)
{
    rig       r;
    chr_error err;

    rig_open(&r);
    CHECK_INT(refuse(&r, "spicevmc,id=s,name=vdagent", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "spicevmc: built without spice");
    CHECK_INT(refuse(&r, "spiceport,id=s,name=org.example.console", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "spiceport: built without spice");
    CHECK(chr_backend_find(r.ctx, "spicevmc") == NULL);
    rig_close(&r);
}

#else

#include "spice_loop.h"
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <spice/protocol.h>

/* What libspice-server allocates once and for all is no leak of ours. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libspice-server\nleak:libglib\nleak:libcrypto\nleak:libssl\nleak:libgst\n"; }

/* ---- a spice client ---------------------------------------------------------------------------------------------- */

/* One channel: its socket, the message that is coming, and what has come so far. */
typedef struct wire {
    int           fd; /* -1 = the server has closed it */
    unsigned      type;
    unsigned char in[1 << 20];
    size_t        length;
    uint32_t      window, unacknowledged;
    char         *data; /* of SPICE_MSG_SPICEVMC_DATA */
    size_t        count;
    char          events[64]; /* of a port: + or - = opened or not when we came; O C B */
    char          name[64];
    uint32_t      session;
    char          channels[64]; /* the types in the last list, each as a letter from 'A' on */
    char          agent[16];    /* + the agent is there, - it is gone */
} wire;

static SpiceServer *server;

static void put(wire *w, const void *bytes, size_t len)
{
    const char *from = (const char *)bytes;
    int64_t     end = real_ms() + 5000 * test_time_scale();
    while (len > 0 && real_ms() < end) {
        ssize_t n = send(w->fd, from, len, MSG_NOSIGNAL);
        if (n > 0) from += n, len -= (size_t)n;
        else if (errno == EAGAIN) chr_loop_step(spice_loop, 1);
        else break;
    }
    CHECK_INT(len, 0);
}

static void put_message(wire *w, unsigned type, const void *payload, size_t len)
{
    SpiceMiniDataHeader header;
    header.type = (uint16_t)type;
    header.size = (uint32_t)len;
    put(w, &header, sizeof header);
    put(w, payload, len);
}

static void put_data(wire *w, const void *bytes, size_t len)
{
    put_message(w, SPICE_MSGC_SPICEVMC_DATA, bytes, len);
}

static void put_text(wire *w, const char *text)
{
    put_data(w, text, strlen(text));
}

static void put_event(wire *w, uint8_t event)
{
    put_message(w, SPICE_MSGC_PORT_EVENT, &event, 1);
}

static uint32_t word(const unsigned char *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static void add_letter(char *text, size_t size, char letter)
{
    size_t len = strlen(text);
    if (len + 1 < size) text[len] = letter;
}

/* The whole message of `size` bytes is in w->in, behind its header. */
static void take_message(wire *w, unsigned type, const unsigned char *payload, uint32_t size)
{
    uint32_t i;
    switch (type) {
    case SPICE_MSG_SET_ACK:
        w->window = word(payload + 4);
        put_message(w, SPICE_MSGC_ACK_SYNC, payload, 4);
        return;
    case SPICE_MSG_PING: put_message(w, SPICE_MSGC_PONG, payload, 12); break;
    case SPICE_MSG_SPICEVMC_DATA:
        if (w->type == SPICE_CHANNEL_MAIN) break;
        w->data = (char *)realloc(w->data, w->count + size);
        REQUIRE(w->data != NULL);
        memcpy(w->data + w->count, payload, size);
        w->count += size;
        break;
    case SPICE_MSG_MAIN_INIT: w->session = word(payload); break;
    case SPICE_MSG_MAIN_CHANNELS_LIST:
        memset(w->channels, 0, sizeof w->channels);
        for (i = 0; i < word(payload); i++) add_letter(w->channels, sizeof w->channels, (char)('A' + payload[4 + 2 * i]));
        break;
    case SPICE_MSG_MAIN_AGENT_CONNECTED: add_letter(w->agent, sizeof w->agent, '+'); break;
    case SPICE_MSG_MAIN_AGENT_DISCONNECTED: add_letter(w->agent, sizeof w->agent, '-'); break;
    case SPICE_MSG_PORT_INIT:
        add_letter(w->events, sizeof w->events, payload[8] ? '+' : '-');
        snprintf(w->name, sizeof w->name, "%.*s", (int)word(payload), (const char *)payload + word(payload + 4));
        break;
    case SPICE_MSG_PORT_EVENT: add_letter(w->events, sizeof w->events, "OCB"[payload[0] % 3]); break;
    default: break;
    }
    if (w->window && ++w->unacknowledged >= w->window) {
        w->unacknowledged = 0;
        put_message(w, SPICE_MSGC_ACK, NULL, 0);
    }
}

/* Reads what is there. */
static void take(wire *w)
{
    ssize_t n;
    while (w->fd >= 0 && (n = recv(w->fd, w->in + w->length, sizeof w->in - w->length, MSG_DONTWAIT)) != -1) {
        SpiceMiniDataHeader header;
        size_t              at = 0;
        if (n == 0) {
            close(w->fd);
            w->fd = -1;
            return;
        }
        w->length += (size_t)n;
        while (w->length - at >= sizeof header) {
            memcpy(&header, w->in + at, sizeof header);
            if (w->length - at < sizeof header + header.size) break;
            take_message(w, header.type, w->in + at + sizeof header, header.size);
            at += sizeof header + header.size;
        }
        memmove(w->in, w->in + at, w->length - at);
        w->length -= at;
    }
    if (w->fd >= 0 && errno != EAGAIN) {
        close(w->fd);
        w->fd = -1;
    }
}

#define TALK(r, w, condition)                                                                     \
    do {                                                                                          \
        int64_t talk_end = real_ms() + 5000 * test_time_scale();                                  \
        while (take(w), !(condition) && real_ms() < talk_end) chr_loop_step((r)->ctx, 1);         \
        test_check(!!(condition), __FILE__, __LINE__, "never came: " #condition);                 \
    } while (0)

/* Long enough for what should not come to come. */
static void idle_about(rig *r, wire *w)
{
    int i;
    for (i = 0; i < 10; i++) {
        chr_loop_step(r->ctx, 2);
        if (w) take(w);
    }
}

static size_t waiting(const wire *w)
{
    struct pollfd p = { 0, POLLIN, 0 };
    p.fd = w->fd;
    return (size_t)poll(&p, 1, 0);
}

/* Reads exactly `len` bytes of the handshake. */
static void take_exactly(rig *r, wire *w, void *to, size_t len)
{
    char   *at = (char *)to;
    int64_t end = real_ms() + 5000 * test_time_scale();
    while (len > 0 && real_ms() < end) {
        ssize_t n = recv(w->fd, at, len, MSG_DONTWAIT);
        if (n == 0) break;
        if (n > 0) at += n, len -= (size_t)n;
        else chr_loop_step(r->ctx, 1);
    }
    REQUIRE(len == 0);
}

/* An empty password, encrypted with the server's key. */
static void put_ticket(wire *w, const unsigned char *key)
{
    unsigned char ticket[sizeof(SpiceLinkEncryptedTicket)];
    size_t        len = sizeof ticket;
    EVP_PKEY     *pkey = d2i_PUBKEY(NULL, &key, SPICE_TICKET_PUBKEY_BYTES);
    EVP_PKEY_CTX *rsa = EVP_PKEY_CTX_new(pkey, NULL);

    REQUIRE(pkey && rsa && EVP_PKEY_encrypt_init(rsa) == 1 && EVP_PKEY_CTX_set_rsa_padding(rsa, RSA_PKCS1_OAEP_PADDING) == 1);
    REQUIRE(EVP_PKEY_encrypt(rsa, ticket, &len, (const unsigned char *)"", 1) == 1 && len == sizeof ticket);
    EVP_PKEY_CTX_free(rsa);
    EVP_PKEY_free(pkey);
    put(w, ticket, sizeof ticket);
}

static void link_up(rig *r, wire *w, uint32_t session, unsigned type, unsigned id)
{
    uint32_t        mechanism = SPICE_COMMON_CAP_AUTH_SPICE, result = 1;
    uint32_t        caps = 1 << SPICE_COMMON_CAP_PROTOCOL_AUTH_SELECTION | 1 << SPICE_COMMON_CAP_AUTH_SPICE | 1 << SPICE_COMMON_CAP_MINI_HEADER;
    SpiceLinkHeader header = { 0, SPICE_VERSION_MAJOR, SPICE_VERSION_MINOR, sizeof(SpiceLinkMess) + sizeof caps };
    SpiceLinkMess   mess = { session, (uint8_t)type, (uint8_t)id, 1, 0, sizeof(SpiceLinkMess) };
    unsigned char   reply[1000];
    int             fds[2], i;

    socket_pair(fds);
    for (i = 0; i < 2; i++) fcntl(fds[i], F_SETFL, O_NONBLOCK);
    memset(w, 0, sizeof *w);
    w->fd = fds[1];
    w->type = type;
    REQUIRE(spice_server_add_client(server, fds[0], 1) == 0);
    memcpy(&header.magic, "REDQ", 4);
    put(w, &header, sizeof header);
    put(w, &mess, sizeof mess);
    put(w, &caps, sizeof caps);
    take_exactly(r, w, &header, sizeof header);
    REQUIRE(header.size <= sizeof reply);
    take_exactly(r, w, reply, header.size);
    put(w, &mechanism, sizeof mechanism);
    put_ticket(w, reply + offsetof(SpiceLinkReply, pub_key));
    take_exactly(r, w, &result, sizeof result);
    REQUIRE(result == SPICE_LINK_ERR_OK);
}

static void hang_up(wire *w)
{
    if (w->fd >= 0) close(w->fd);
    free(w->data);
    memset(w, 0, sizeof *w);
    w->fd = -1;
}

static wire the_main, line; /* the client's main channel, and the one in question */

static void client_comes(rig *r)
{
    link_up(r, &the_main, 0, SPICE_CHANNEL_MAIN, 0);
    TALK(r, &the_main, the_main.session != 0);
    put_message(&the_main, SPICE_MSGC_MAIN_ATTACH_CHANNELS, NULL, 0);
    TALK(r, &the_main, the_main.channels[0]);
}

static void channel_comes(rig *r, unsigned type, unsigned id)
{
    hang_up(&line);
    link_up(r, &line, the_main.session, type, id);
    if (type == SPICE_CHANNEL_PORT) TALK(r, &line, line.events[0]);
}

static void client_goes(void)
{
    hang_up(&line);
    hang_up(&the_main);
}

/* ---- both ends --------------------------------------------------------------------------------------------------- */

static void spice_open(rig *r)
{
    rig_open(r);
    the_main.fd = line.fd = -1;
    server = spice_loop_server(r->ctx);
    chr_spice_set_server(r->ctx, server);
}

static void spice_close(rig *r)
{
    chr_dev *dev, *next;
    for (dev = chr_next(r->ctx, NULL); dev; dev = next) {
        next = chr_next(r->ctx, dev);
        if (dev->frontends == 0) CHECK_INT(chr_remove(r->ctx, dev->id, NULL), 0), next = chr_next(r->ctx, NULL);
    }
    client_goes();
    settle(r);
    spice_server_destroy(server);
    rig_close(r);
}

static const char console[] = "spiceport,id=s,name=org.example.console";

/* A port with a frontend and a client that has found it. */
static chr_dev *port_open(rig *r, recorder *rec, const char *options)
{
    chr_dev *dev;
    spice_open(r);
    dev = make(r, options);
    attach(rec, dev);
    client_comes(r);
    channel_comes(r, SPICE_CHANNEL_PORT, 0);
    PUMP(r, rec->open);
    return dev;
}

static void fill_pattern(char *bytes, size_t len, unsigned seed)
{
    size_t i;
    for (i = 0; i < len; i++) bytes[i] = (char)((i * 2654435761u + seed) >> 13);
}

/* Writes until nothing moves any more, with a client that does not read. Returns how much that was. */
static size_t fill_all(rig *r, recorder *rec)
{
    static char block[65536];
    size_t      total = 0, before;
    int         n;
    do {
        before = total;
        while ((n = chr_fe_write(&rec->fe, block, sizeof block)) > 0) total += (size_t)n;
        CHECK_INT(n, CHR_ERR_WOULD_BLOCK);
        settle(r);
    } while (total > before && total < 64 << 20);
    return total;
}

TEST(options_are_checked)
{
    rig       r;
    chr_error err;

    rig_open(&r);
    CHECK_INT(refuse(&r, "spicevmc,id=s,name=vdagent", &err), CHR_ERR_NOT_FOUND);
    CHECK_STR(err.text, "spicevmc: there is no spice server: chr_spice_set_server() names it");
    CHECK_INT(refuse(&r, console, &err), CHR_ERR_NOT_FOUND);
    CHECK_STR(err.text, "spiceport: there is no spice server: chr_spice_set_server() names it");
    CHECK_INT(refuse(&r, "spicevmc,id=s,name=abacus", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "spicevmc: name=abacus: the spice server recognises vdagent");
    CHECK_HAS(err.text, ", usbredir");
    CHECK_INT(refuse(&r, "spicevmc,id=s", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "name");
    CHECK_INT(refuse(&r, "spiceport,id=s", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "name");
    CHECK_INT(refuse(&r, "spiceport,id=s,name=", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "name= is empty");
    CHECK_INT(refuse(&r, "spiceport,id=s,name=x,subtype=y", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "subtype");
    rig_close(&r);
}

TEST(a_server_that_is_taken_away_is_no_server)
{
    rig       r;
    chr_error err;

    spice_open(&r);
    chr_spice_set_server(r.ctx, NULL);
    CHECK_INT(refuse(&r, console, &err), CHR_ERR_NOT_FOUND);
    spice_close(&r);
}

TEST(query_tells)
{
    rig       r;
    chr_info  info;
    chr_error err;
    chr_spiceport_options typed;

    spice_open(&r);
    memset(&typed, 0, sizeof typed);
    typed.name = "org.example.console";
    chr_query(make(&r, "spicevmc,id=v,name=usbredir"), &info);
    CHECK_STR(info.filename, "spicevmc");
    CHECK_STR(info.backend, "spicevmc");
    CHECK_INT(info.be_open, 0);
    CHECK_INT(info.comes_back, 1);
    chr_query(chr_open(r.ctx, "p", chr_backend_find(r.ctx, "spiceport"), &typed, &err), &info);
    CHECK_STR(info.filename, "spiceport");
    CHECK_INT(info.comes_back, 1);
    spice_close(&r);
}

TEST(port_carries_bytes_both_ways)
{
    rig      r;
    recorder rec;
    chr_info info;
    chr_dev *dev = port_open(&r, &rec, console);

    CHECK_STR(line.name, "org.example.console");
    CHECK_STR(line.events, "+");
    CHECK_INT(chr_fe_write(&rec.fe, "login: ", 7), 7);
    TALK(&r, &line, line.count == 7);
    CHECK_MEM(line.data, line.count, "login: ", 7);
    put_text(&line, "root\r");
    PUMP(&r, rec.length == 5);
    CHECK_INPUT(&rec, "root\r");
    CHECK_STR(rec.events, "O");
    chr_query(dev, &info);
    CHECK_INT(info.bytes_in, 5);
    CHECK_INT(info.bytes_out, 7);
    CHECK_INT(info.bytes_dropped, 0);
    detach(&rec);
    spice_close(&r);
}

static char spice_lines[8192];

static void on_trace(void *opaque, const chr_trace *event)
{
    char   text[300];
    size_t used = strlen(spice_lines);
    (void)opaque;
    if (!chr_trace_match("spice_*", event->name)) return;
    chr_trace_format(event, text, sizeof text);
    snprintf(spice_lines + used, sizeof spice_lines - used, "%s\n", strchr(text, ' ') + 1);
}

/* All events of spice in the table. */
TEST(traced)
{
    rig      r;
    recorder rec;
    int      i;

    rig_traced = on_trace;
    port_open(&r, &rec, console);
    CHECK_HAS(spice_lines, " spice_vmc_register_interface result=0 subtype=\"port\"\n");
    CHECK_HAS(spice_lines, " spice_vmc_state connected=1\n");
    CHECK_INT(chr_fe_write(&rec.fe, "login: ", 7), 7);
    TALK(&r, &line, line.count == 7);
    CHECK_HAS(spice_lines, " spice_vmc_read given=7 requested=");
    put_text(&line, "root\r");
    put_event(&line, SPICE_PORT_EVENT_BREAK);
    PUMP(&r, rec.length == 5 && strstr(rec.events, "B"));
    CHECK_HAS(spice_lines, " spice_vmc_write taken=5 requested=5\n");
    CHECK_HAS(spice_lines, " spice_vmc_event event=2\n");
    for (i = 0; i < 1000 && chr_fe_write(&rec.fe, line.in, 65536) > 0; i++) settle(&r); /* the client reads nothing now */
    close(line.fd);
    line.fd = -1;
    PUMP(&r, strstr(spice_lines, "spice_chr_discard_write"));
    CHECK_HAS(spice_lines, " spice_vmc_state connected=0\n");
    CHECK_HAS(spice_lines, " spice_chr_discard_write count=");
    detach(&rec);
    spice_close(&r);
    CHECK_HAS(spice_lines, " spice_vmc_unregister_interface subtype=\"port\"\n");
    for (i = 0; i < CHR_TRACE_COUNT; i++)
        if (chr_trace_match("spice_*", chr_trace_name(i)) && !CHECK(strstr(spice_lines, chr_trace_name(i)))) NOTE("%s", chr_trace_name(i));
}

TEST(nobody_there_is_disconnected)
{
    rig      r;
    recorder rec;
    chr_info info;
    chr_dev *dev;

    spice_open(&r);
    dev = make(&r, console);
    attach(&rec, dev);
    settle(&r);
    CHECK_STR(rec.events, "");
    CHECK_INT(chr_fe_write(&rec.fe, "lost", 4), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_write_all(&rec.fe, "lost", 4, -1), CHR_ERR_DISCONNECTED);
    chr_query(dev, &info);
    CHECK_INT(info.bytes_dropped, 8);
    detach(&rec);
    spice_close(&r);
}

TEST(port_tells_the_client_of_the_frontend)
{
    rig      r;
    recorder rec;
    chr_dev *dev;
    int      on = 1, off = 0;

    spice_open(&r);
    dev = make(&r, console);
    client_comes(&r);
    channel_comes(&r, SPICE_CHANNEL_PORT, 0);
    CHECK_STR(line.events, "-");
    attach(&rec, dev);
    TALK(&r, &line, strcmp(line.events, "-O") == 0);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &off), 0);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on), 0);
    TALK(&r, &line, strcmp(line.events, "-OB") == 0);
    CHECK_INT(line.count, 1); /* what was written before comes before */
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SET_ECHO, &on), CHR_ERR_NOT_SUPPORTED);
    chr_fe_set_open(&rec.fe, 0);
    TALK(&r, &line, strcmp(line.events, "-OBC") == 0);
    chr_fe_set_open(&rec.fe, 1);
    TALK(&r, &line, strcmp(line.events, "-OBCO") == 0);
    detach(&rec);
    TALK(&r, &line, strcmp(line.events, "-OBCOC") == 0);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    TALK(&r, &line, line.fd < 0);
    spice_close(&r);
}

TEST(port_hears_the_clients_events)
{
    rig      r;
    recorder rec;
    int      on = 1;

    port_open(&r, &rec, console);
    put_event(&line, SPICE_PORT_EVENT_BREAK);
    PUMP(&r, strcmp(rec.events, "OB") == 0);
    put_event(&line, SPICE_PORT_EVENT_OPENED); /* it is */
    put_event(&line, SPICE_PORT_EVENT_CLOSED);
    PUMP(&r, strcmp(rec.events, "OBC") == 0);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on), CHR_ERR_DISCONNECTED);
    put_text(&line, "early");
    idle_about(&r, &line);
    CHECK_INT(rec.length, 0);
    put_event(&line, SPICE_PORT_EVENT_OPENED);
    PUMP(&r, rec.length == 5);
    CHECK_STR(rec.events, "OBCO");
    CHECK_INPUT(&rec, "early");
    put_event(&line, 77); /* nothing that we know */
    idle_about(&r, &line);
    CHECK_STR(rec.events, "OBCO");
    detach(&rec);
    spice_close(&r);
}

TEST(break_keeps_its_place_among_the_bytes)
{
    rig      r;
    recorder rec;

    port_open(&r, &rec, console);
    rec.room = 0;
    put_text(&line, "before");
    put_event(&line, SPICE_PORT_EVENT_BREAK);
    put_text(&line, "b");
    idle_about(&r, &line);
    CHECK_STR(rec.events, "O");
    give_room(&rec, 6);
    idle_about(&r, &line);
    CHECK_INPUT(&rec, "before");
    CHECK_STR(rec.events, "OB");
    give_room(&rec, 100);
    PUMP(&r, rec.length == 7);
    CHECK_INPUT(&rec, "beforeb");
    CHECK_STR(rec.events, "OB");
    detach(&rec);
    spice_close(&r);
}

TEST(never_more_than_the_frontend_takes)
{
    rig      r;
    recorder rec;

    port_open(&r, &rec, console);
    rec.room = 3;
    put_text(&line, "0123456789");
    idle_about(&r, &line);
    CHECK_INPUT(&rec, "012");
    give_room(&rec, 2);
    idle_about(&r, &line);
    CHECK_INPUT(&rec, "01234");
    rec.room = 100; /* it forgets to say so: late, not deaf */
    PUMP(&r, rec.length == 10);
    CHECK_INPUT(&rec, "0123456789");
    detach(&rec);
    spice_close(&r);
}

/* Room comes in pieces of odd sizes. */
static void takes_a_little(recorder *rec, int what)
{
    if (what == 'r' && rec->room == 0) {
        rec->room = 1 + (int)(rec->length % 7777);
        chr_fe_accept_input(&rec->fe);
    }
}

TEST(a_mebibyte_from_the_client)
{
    enum { SIZE = 1 << 20, PIECE = 50001 };
    static char bytes[SIZE];
    rig         r;
    recorder    rec;
    size_t      at, len;

    port_open(&r, &rec, console);
    fill_pattern(bytes, SIZE, 1);
    rec.room = 100;
    rec.then = takes_a_little;
    for (at = 0; at < SIZE; at += len) {
        len = SIZE - at < PIECE ? SIZE - at : PIECE;
        put_data(&line, bytes + at, len);
    }
    PUMP(&r, rec.length == SIZE);
    CHECK_MEM(rec.input, rec.length, bytes, SIZE);
    detach(&rec);
    spice_close(&r);
}

typedef struct source {
    const char *bytes;
    size_t      size, at;
} source;

static void pour(recorder *rec, int what)
{
    source *from = (source *)rec->user;
    int     n = 1;
    if (what != 'w') return;
    while (from->at < from->size && (n = chr_fe_write(&rec->fe, from->bytes + from->at, from->size - from->at)) > 0) from->at += (size_t)n;
    if (from->at == from->size) return;
    CHECK_INT(n, CHR_ERR_WOULD_BLOCK);
    chr_fe_add_watch(&rec->fe, recorder_writable, rec);
}

TEST(mebibytes_to_a_client_that_is_slow)
{
    enum { SIZE = 5 << 20 }; /* more than the server keeps */
    static char bytes[SIZE];
    rig         r;
    recorder    rec;
    source      from = { bytes, SIZE, 0 };

    port_open(&r, &rec, console);
    fill_pattern(bytes, SIZE, 2);
    rec.user = &from;
    rec.then = pour;
    pour(&rec, 'w');
    CHECK(from.at > 0 && from.at < SIZE);
    idle_about(&r, NULL);
    idle_about(&r, NULL);
    CHECK(from.at < SIZE); /* it is pushed back */
    CHECK(waiting(&line) == 1);
    TALK(&r, &line, line.count == SIZE);
    CHECK_MEM(line.data, line.count, bytes, SIZE);
    CHECK_INT(from.at, SIZE);
    detach(&rec);
    spice_close(&r);
}

TEST(full_would_block_and_the_loop_rests)
{
    rig      r;
    recorder rec;
    size_t   total;
    int      i, busy = 0;

    port_open(&r, &rec, console);
    total = fill_all(&r, &rec);
    CHECK(total < 8 << 20);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    for (i = 0; i < 20; i++) busy += chr_loop_step(r.ctx, 1);
    CHECK_INT(busy, 0);
    CHECK_INT(rec.writable, 0);
    TALK(&r, &line, rec.writable == 1);
    TALK(&r, &line, line.count == total);
    detach(&rec);
    spice_close(&r);
}

TEST(clients_come_and_go)
{
    rig      r;
    recorder rec;
    int      i;

    port_open(&r, &rec, console);
    for (i = 0; i < 3; i++) {
        put_text(&line, "last words");
        hang_up(&line);
        PUMP(&r, !rec.open);
        CHECK_INPUT(&rec, "last words");
        forget_input(&rec);
        CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
        channel_comes(&r, SPICE_CHANNEL_PORT, 0);
        PUMP(&r, rec.open);
        CHECK_INT(chr_fe_write(&rec.fe, "again", 5), 5);
        TALK(&r, &line, line.count == 5);
    }
    CHECK_STR(rec.events, "OCOCOCO");
    client_goes(); /* main channel and all */
    PUMP(&r, !rec.open);
    client_comes(&r);
    channel_comes(&r, SPICE_CHANNEL_PORT, 0);
    PUMP(&r, rec.open);
    detach(&rec);
    spice_close(&r);
}

/* The client disconnects before the frontend takes its input; another one connects and sends. */
TEST(what_was_sent_before_the_end_comes_before_it)
{
    rig      r;
    recorder rec;

    port_open(&r, &rec, console);
    rec.room = 0;
    put_text(&line, "last words");
    hang_up(&line);
    idle_about(&r, NULL);
    channel_comes(&r, SPICE_CHANNEL_PORT, 0);
    put_text(&line, "first words");
    idle_about(&r, &line);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_write(&rec.fe, "for nobody", 10), 10);
    idle_about(&r, &line);
    CHECK_INT(line.count, 0); /* it was not written to the new one */
    give_room(&rec, 10);
    PUMP(&r, strcmp(rec.events, "OCO") == 0);
    CHECK_INPUT(&rec, "last words");
    give_room(&rec, 100);
    PUMP(&r, rec.length == 21);
    CHECK_INPUT(&rec, "last wordsfirst words");
    CHECK_INT(chr_fe_write(&rec.fe, "for you", 7), 7);
    TALK(&r, &line, line.count == 7);
    CHECK_MEM(line.data, line.count, "for you", 7);
    CHECK_INT(rec.fe.dev->bytes_dropped, 10);
    detach(&rec);
    spice_close(&r);
}

/* A guest that has no room at the moment must not keep the end of an idle client from its frontend. */
TEST(the_end_comes_without_room)
{
    rig      r;
    recorder rec;

    port_open(&r, &rec, console);
    rec.room = 0;
    hang_up(&line);
    PUMP(&r, !rec.open);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    spice_close(&r);
}

TEST(who_waits_to_write_learns_of_the_end)
{
    rig      r;
    recorder rec;

    port_open(&r, &rec, console);
    fill_all(&r, &rec);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    hang_up(&line);
    PUMP(&r, rec.writable == 1);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    CHECK(rec.fe.dev->bytes_dropped > 1);
    detach(&rec);
    spice_close(&r);
}

TEST(history_goes_to_each_client_first)
{
    rig      r;
    recorder rec;

    spice_open(&r);
    attach(&rec, make(&r, "spiceport,id=s,name=org.example.console,history=64,obuf=64K"));
    CHECK_INT(chr_fe_write(&rec.fe, "booted\n", 7), CHR_ERR_DISCONNECTED);
    client_comes(&r);
    channel_comes(&r, SPICE_CHANNEL_PORT, 0);
    TALK(&r, &line, line.count == 7);
    CHECK_INT(chr_fe_write(&rec.fe, "login: ", 7), 7);
    TALK(&r, &line, line.count == 14);
    hang_up(&line);
    PUMP(&r, !rec.open);
    channel_comes(&r, SPICE_CHANNEL_PORT, 0);
    TALK(&r, &line, line.count == 14);
    CHECK_MEM(line.data, line.count, "booted\nlogin: ", 14);
    detach(&rec);
    spice_close(&r);
}

TEST(obuf_takes_what_would_block)
{
    static char block[65536];
    rig         r;
    recorder    rec;
    size_t      total = 0;
    int         n, i;

    port_open(&r, &rec, "spiceport,id=s,name=org.example.console,obuf=1M");
    for (i = 0; i < 200; i++) {
        fill_pattern(block, sizeof block, (unsigned)i);
        n = chr_fe_write(&rec.fe, block, sizeof block);
        if (n < 0) break;
        total += (size_t)n;
        settle(&r);
    }
    CHECK_INT(n, CHR_ERR_WOULD_BLOCK);
    TALK(&r, &line, line.count == total);
    detach(&rec);
    spice_close(&r);
}

TEST(a_stopped_machine_holds_everything)
{
    rig      r;
    recorder rec;

    port_open(&r, &rec, console);
    spice_server_vm_stop(server);
    put_text(&line, "in");
    CHECK_INT(chr_fe_write(&rec.fe, "out", 3), 3);
    idle_about(&r, &line);
    CHECK_INT(rec.length, 0);
    CHECK_INT(line.count, 0);
    spice_server_vm_start(server);
    TALK(&r, &line, line.count == 3);
    PUMP(&r, rec.length == 2);
    detach(&rec);
    spice_close(&r);
}

/* ---- spicevmc ---------------------------------------------------------------------------------------------------- */

TEST(vmc_is_a_channel_while_its_frontend_is_open)
{
    rig      r;
    recorder rec;
    chr_dev *dev;

    spice_open(&r);
    dev = make(&r, "spicevmc,id=v,name=usbredir");
    client_comes(&r);
    CHECK(!strchr(the_main.channels, 'A' + SPICE_CHANNEL_USBREDIR));
    attach(&rec, dev);
    TALK(&r, &the_main, strchr(the_main.channels, 'A' + SPICE_CHANNEL_USBREDIR));
    CHECK_STR(rec.events, "");
    channel_comes(&r, SPICE_CHANNEL_USBREDIR, 0);
    PUMP(&r, rec.open);
    put_text(&line, "hello");
    PUMP(&r, rec.length == 5);
    CHECK_INT(chr_fe_write(&rec.fe, "world", 5), 5);
    TALK(&r, &line, line.count == 5);
    chr_fe_set_open(&rec.fe, 0);
    TALK(&r, &line, line.fd < 0);
    PUMP(&r, !rec.open);
    CHECK_STR(rec.events, "OC");
    chr_fe_set_open(&rec.fe, 1);
    channel_comes(&r, SPICE_CHANNEL_USBREDIR, 0);
    PUMP(&r, rec.open);
    put_text(&line, "again");
    PUMP(&r, rec.length == 10);
    detach(&rec);
    TALK(&r, &line, line.fd < 0);
    spice_close(&r);
}

TEST(vmc_gives_its_last_bytes_to_the_server)
{
    rig      r;
    recorder rec;

    spice_open(&r);
    attach(&rec, make(&r, "spicevmc,id=v,name=usbredir"));
    client_comes(&r);
    channel_comes(&r, SPICE_CHANNEL_USBREDIR, 0);
    PUMP(&r, rec.open);
    CHECK_INT(chr_fe_write(&rec.fe, "goodbye", 7), 7);
    detach(&rec);
    TALK(&r, &line, line.count == 7);
    spice_close(&r);
}

TEST(what_was_sent_to_a_frontend_is_not_for_the_next)
{
    rig      r;
    recorder rec;
    chr_dev *dev;

    spice_open(&r);
    dev = make(&r, "spicevmc,id=v,name=usbredir");
    attach_with_room(&rec, dev, 1);
    client_comes(&r);
    channel_comes(&r, SPICE_CHANNEL_USBREDIR, 0);
    put_text(&line, "old");
    PUMP(&r, rec.length == 1);
    detach(&rec);
    attach(&rec, dev);
    hang_up(&line);
    channel_comes(&r, SPICE_CHANNEL_USBREDIR, 0);
    put_text(&line, "new");
    PUMP(&r, rec.length >= 3);
    CHECK_INPUT(&rec, "new");
    detach(&rec);
    spice_close(&r);
}

TEST(vdagent_is_there_with_its_frontend)
{
    rig      r;
    recorder rec, second;
    chr_dev *dev;

    spice_open(&r);
    dev = make(&r, "spicevmc,id=v,name=vdagent");
    client_comes(&r);
    attach(&rec, dev);
    CHECK_STR(rec.events, ""); /* from the loop */
    PUMP(&r, rec.open);
    TALK(&r, &the_main, strcmp(the_main.agent, "+") == 0);
    attach(&second, make(&r, "spicevmc,id=w,name=vdagent")); /* there can be only one */
    CHECK_HAS(r.log, "chardev w: the spice server refuses another channel 'vdagent'");
    settle(&r);
    CHECK_STR(second.events, "");
    detach(&second);
    chr_fe_set_open(&rec.fe, 0);
    chr_fe_set_open(&rec.fe, 1);
    PUMP(&r, strcmp(rec.events, "OCO") == 0);
    TALK(&r, &the_main, strcmp(the_main.agent, "+-+") == 0);
    detach(&rec);
    spice_close(&r);
}

/* ---- what the core promises for every backend -------------------------------------------------------------------- */

static void removes_itself(recorder *rec, int what)
{
    if (what != *(const char *)rec->user) return;
    rec->open = 0;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(spice_loop, "s", NULL), 0);
}

static void remove_in(const char *what, const char *options, unsigned type)
{
    rig      r;
    recorder rec;

    spice_open(&r);
    attach(&rec, make(&r, options));
    rec.user = (void *)(uintptr_t)what;
    rec.then = removes_itself;
    client_comes(&r);
    channel_comes(&r, type, 0);
    if (*what == 'w') chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    if (*what == 'r') put_text(&line, "this is the end");
    PUMP(&r, chr_find(r.ctx, "s") == NULL);
    TALK(&r, &line, line.fd < 0);
    free(rec.input);
    spice_close(&r);
}

TEST(removed_while_it_reads) { remove_in("r", console, SPICE_CHANNEL_PORT); }
TEST(removed_in_an_event) { remove_in("e", console, SPICE_CHANNEL_PORT); }
TEST(removed_when_writable) { remove_in("w", console, SPICE_CHANNEL_PORT); }
TEST(vmc_removed_while_it_reads) { remove_in("r", "spicevmc,id=s,name=usbredir", SPICE_CHANNEL_USBREDIR); }
TEST(vmc_removed_in_an_event) { remove_in("e", "spicevmc,id=s,name=usbredir", SPICE_CHANNEL_USBREDIR); }

static int removes_when_asked(void *opaque)
{
    recorder *rec = (recorder *)opaque;
    if (rec->room > 0 && rec->fe.dev && rec->open) {
        rec->room = 0; /* deinit asks once more */
        chr_fe_deinit(&rec->fe);
        CHECK_INT(chr_remove(spice_loop, "s", NULL), 0);
        return 1;
    }
    return 0;
}

TEST(removed_when_room_is_asked_for)
{
    static const chr_handlers handlers = { removes_when_asked, recorder_read, recorder_event, NULL };
    rig                       r;
    recorder                  rec;
    int                       i;

    spice_open(&r);
    attach(&rec, make(&r, console));
    rec.room = 0;
    chr_fe_set_handlers(&rec.fe, &handlers, &rec);
    client_comes(&r);
    channel_comes(&r, SPICE_CHANNEL_PORT, 0);
    put_text(&line, "this is the end");
    for (i = 0; i < 20; i++) chr_loop_step(r.ctx, 5);
    rec.room = 1;
    chr_fe_accept_input(&rec.fe);
    chr_loop_step(r.ctx, 5); /* the question comes from the loop */
    CHECK(chr_find(r.ctx, "s") == NULL);
    TALK(&r, &line, line.fd < 0);
    free(rec.input);
    spice_close(&r);
}

/* The frontend echoes, and closes and opens its side now and then, all from inside its read handler. */
static void echoes_and_reopens(recorder *rec, int what)
{
    if (what != 'r') return;
    CHECK(chr_fe_write(&rec->fe, rec->input, 1) != 0);
    chr_fe_set_open(&rec->fe, 0);
    chr_fe_set_open(&rec->fe, 1);
}

TEST(reopened_while_it_reads)
{
    rig      r;
    recorder rec;
    int      i;

    spice_open(&r);
    attach(&rec, make(&r, "spicevmc,id=s,name=usbredir"));
    rec.then = echoes_and_reopens;
    client_comes(&r);
    for (i = 0; i < 3; i++) {
        channel_comes(&r, SPICE_CHANNEL_USBREDIR, 0);
        PUMP(&r, rec.open);
        put_text(&line, "x");
        TALK(&r, &line, line.fd < 0);
        PUMP(&r, !rec.open);
        hang_up(&line);
    }
    CHECK_STR(rec.events, "OCOCOC");
    detach(&rec);
    spice_close(&r);
}

TEST(hot_swap_to_and_fro)
{
    rig       r;
    recorder  rec;
    chr_error err;

    spice_open(&r);
    attach(&rec, make(&r, "ringbuf,id=s"));
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_change(r.ctx, "s", "spiceport,name=org.example.console", &err), 0);
    CHECK_STR(rec.events, "OC");
    client_comes(&r);
    channel_comes(&r, SPICE_CHANNEL_PORT, 0);
    CHECK_STR(line.events, "+"); /* the frontend is there already, and was told to the new one */
    PUMP(&r, rec.open);
    put_text(&line, "hi");
    PUMP(&r, rec.length == 2);
    CHECK_INT(chr_change(r.ctx, "s", "null", &err), 0);
    CHECK_STR(rec.events, "OCOC");
    TALK(&r, &line, line.fd < 0);
    detach(&rec);
    spice_close(&r);
}

TEST(hot_swap_of_the_only_agent)
{
    rig       r;
    recorder  rec;
    chr_error err;

    spice_open(&r);
    attach(&rec, make(&r, "spicevmc,id=s,name=vdagent"));
    PUMP(&r, rec.open);
    CHECK_INT(chr_change(r.ctx, "s", "spicevmc,name=vdagent,history=10", &err), 0);
    CHECK_STR(r.log, "");
    PUMP(&r, strcmp(rec.events, "OCO") == 0);
    rec.change_answer = -1;
    CHECK_INT(chr_change(r.ctx, "s", "spicevmc,name=vdagent", &err), CHR_ERR_BUSY);
    CHECK_STR(r.log, "");
    PUMP(&r, rec.open);
    settle(&r);
    CHECK(rec.open);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    CHECK_INT(chr_change(r.ctx, "s", "spicevmc,name=abacus", &err), CHR_ERR_INVALID);
    CHECK(rec.open);
    detach(&rec);
    spice_close(&r);
}

TEST(under_a_mux)
{
    rig      r;
    recorder rec;

    spice_open(&r);
    attach(&rec, make(&r, "spiceport,id=s,name=org.example.console,mux=on"));
    client_comes(&r);
    channel_comes(&r, SPICE_CHANNEL_PORT, 0);
    PUMP(&r, rec.open);
    put_text(&line, "x\001b");
    PUMP(&r, rec.length == 1 && strchr(rec.events, 'B'));
    detach(&rec);
    spice_close(&r);
}

/* What the frontend saw, byte by byte; it answers each input. */
static void answers(recorder *rec, int what)
{
    if (what == 'r') CHECK_INT(chr_fe_write(&rec->fe, "ok", 2), 2);
}

TEST(recorded_and_played_without_a_server)
{
    rig         r;
    recorder    rec;
    chr_error   err;
    const char *path = scratch("recording");

    spice_open(&r);
    REQUIRE(chr_record_start(r.ctx, path, &err) == 0);
    attach(&rec, make(&r, console));
    rec.then = answers;
    client_comes(&r);
    channel_comes(&r, SPICE_CHANNEL_PORT, 0);
    PUMP(&r, rec.open);
    put_text(&line, "ping");
    PUMP(&r, rec.length == 4);
    TALK(&r, &line, line.count == 2);
    put_event(&line, SPICE_PORT_EVENT_BREAK);
    PUMP(&r, strcmp(rec.events, "OB") == 0);
    client_goes();
    PUMP(&r, strcmp(rec.events, "OBC") == 0);
    CHECK_INT(chr_record_stop(r.ctx), 0);
    detach(&rec);
    spice_close(&r);

    rig_open(&r);
    REQUIRE(chr_replay_open(r.ctx, path, &err) == 0);
    attach(&rec, make(&r, console));
    rec.then = answers;
    PUMP(&r, chr_replay_over(r.ctx));
    CHECK_STR(rec.events, "OBC");
    CHECK_INPUT(&rec, "ping");
    CHECK_STR(r.log, "");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(a_swap_is_recorded_and_played)
{
    rig         r;
    recorder    rec;
    chr_error   err;
    const char *path = scratch("recording");

    spice_open(&r);
    REQUIRE(chr_record_start(r.ctx, path, &err) == 0);
    attach(&rec, make(&r, "ringbuf,id=s"));
    REQUIRE(chr_change(r.ctx, "s", console, &err) == 0);
    client_comes(&r);
    channel_comes(&r, SPICE_CHANNEL_PORT, 0);
    PUMP(&r, rec.open);
    put_text(&line, "ping");
    PUMP(&r, rec.length == 4);
    CHECK_INT(chr_record_stop(r.ctx), 0);
    detach(&rec);
    spice_close(&r);

    rig_open(&r);
    REQUIRE(chr_replay_open(r.ctx, path, &err) == 0);
    attach(&rec, make(&r, "ringbuf,id=s"));
    REQUIRE(chr_change(r.ctx, "s", console, &err) == 0);
    PUMP(&r, chr_replay_over(r.ctx));
    CHECK_STR(rec.events, "OCO");
    CHECK_INPUT(&rec, "ping");
    CHECK_STR(r.log, "");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(no_memory_leaks_nothing)
{
    rig       r;
    chr_error err;
    long      n;

    spice_open(&r);
    for (n = 1; n < 100; n++) {
        chr_dev *dev;
        r.calls = 0;
        r.fail_at = n;
        dev = chr_new(r.ctx, "spiceport,id=s,name=org.example.console,history=10,obuf=10", &err);
        r.fail_at = 0;
        if (dev) break;
        CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
    }
    CHECK(n > 5 && n < 100);
    spice_close(&r);
}

static void has_work(void *opaque)
{
    *(int *)opaque = 1;
}

/* As with GLib: the server has a loop of its own in this thread, which runs ours when that has work. */
TEST(server_on_a_loop_of_its_own)
{
    rig          r;
    recorder     rec;
    chr_config   config;
    chr_context *ours;
    chr_error    err;
    int          wants = 0, i;

    spice_open(&r);
    memset(&config, 0, sizeof config);
    config.opaque = &wants;
    config.timeout_changed = has_work;
    ours = chr_context_new(&config);
    chr_spice_set_server(ours, server);
    attach(&rec, chr_new(ours, console, &err));
    client_comes(&r);
    channel_comes(&r, SPICE_CHANNEL_PORT, 0);
    put_text(&line, "over there");
    for (i = 0; i < 500 && line.count < 9; i++) {
        chr_loop_step(r.ctx, 1);
        take(&line);
        if (!wants) continue;
        wants = 0;
        while (chr_loop_timeout(ours) == 0) chr_loop_dispatch(ours, NULL, 0);
        if (rec.length == 10) CHECK_INT(chr_fe_write(&rec.fe, "over here", 9), 9);
    }
    CHECK_INPUT(&rec, "over there");
    CHECK_MEM(line.data, line.count, "over here", 9);
    detach(&rec);
    chr_context_free(ours);
    spice_close(&r);
}

static char      poured[3 << 20];
static recorder *pourer;

static void *pour_from_elsewhere(void *opaque)
{
    size_t at = 0;
    (void)opaque;
    while (at < sizeof poured) {
        int n = chr_fe_write(&pourer->fe, poured + at, sizeof poured - at < 1000 ? sizeof poured - at : 1000);
        if (n > 0) at += (size_t)n;
        else if (n != CHR_ERR_WOULD_BLOCK) break;
        else usleep(100);
    }
    return NULL;
}

TEST(written_from_another_thread)
{
    rig       r;
    recorder  rec;
    pthread_t thread;

    port_open(&r, &rec, console);
    pourer = &rec;
    fill_pattern(poured, sizeof poured, 3);
    REQUIRE(pthread_create(&thread, NULL, pour_from_elsewhere, NULL) == 0);
    TALK(&r, &line, line.count == sizeof poured);
    pthread_join(thread, NULL);
    CHECK_MEM(line.data, line.count, poured, sizeof poured);
    detach(&rec);
    spice_close(&r);
}

#endif
