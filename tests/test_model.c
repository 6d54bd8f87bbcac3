/*
 * Random schedules, compared with a model of the expected results. A schedule is made from a seed: a chardev of some
 * backend, with some layer, with or without TLS, history=, obuf=, buffers, alone or under a mux, a hub, a filter or a
 * fault; and up to MOST_STEPS steps of the frontend, its far side, the loop, the clock, and injected failures. Then the
 * loop runs until nothing is left to do, and the result is compared with the model.
 *
 * The model: the bytes that the frontend's writes accepted are the `journal`, in order. Each connection of the far side
 * has received one contiguous part of it, from `from_least`..`from_most` on (earlier with history= or an output
 * buffer), up to its end if it stayed connected. The input of each connection was delivered in order, all of it unless
 * our side ended the connection. OPENED and CLOSED alternate, input comes only between them, each wait for `writable`
 * is answered once, there is no busy loop, and no descriptor or memory leaks.
 *
 * Datagrams: a write is one, and one is a read, or several where the frontend has less room. Datagrams sent while no
 * peer exists are lost, and no others: neither side sends more than the other's buffer in the kernel holds.
 *
 * Not covered: stdio, of which a process has one (it is fd with 0 and 1); chardevs without a stream to another process
 * (null, ringbuf, script, emulated devices); vsock, spice, parallel, console, which need special machines;
 * certificates (TLS has pre-shared keys here).
 *
 *     MODEL_SEEDS=17 build/tests/test_model           one seed;  MODEL_SEEDS=1-9999: these
 *     MODEL_TRACE=1                                   prints the steps, and what comes of them, to stderr
 *     MODEL_STEPS=3,7,8                               only these of them: what is printed when one has failed
 */
#include "chardev.h"
#include "fault.h"
#include "rig.h"

#include "private.h"

#include <malloc.h>
#include <netinet/tcp.h>
#include <sys/mman.h>

#ifdef CHARDEV_MBEDTLS
#include <mbedtls/ssl.h>
#include <mbedtls/version.h>
#endif

enum {
    SEEDS = 2000, FAMILIES = 8, MOST_STEPS = 60, USERS = 2, FARS = 16, TAGS = 8, TAG_SHIFT = 5, MOST_WRITE = 20000, MOST_FAILURES = 3,
    MOST_CLIENTS = 4, MOST_DATAGRAMS = 30, MOST_MAIL = 60000 /* of a schedule: fewer than a socket's buffer holds */
};

/* ---- chance: each step has its own, so that what one does is the same when others are left out ------------------- */

typedef struct chance {
    uint64_t state;
} chance;

static uint32_t any(chance *c)
{
    c->state = c->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(c->state >> 33);
}

static int below(chance *c, int n) { return (int)(any(c) % (uint32_t)n); }
static int one_in(chance *c, int n) { return below(c, n) == 0; }

static chance chance_of(uint32_t seed)
{
    chance c = { seed * UINT64_C(0x9e3779b97f4a7c15) + 1 };
    any(&c);
    return c;
}

/* Mostly little. */
static int some(chance *c, int most)
{
    int n = one_in(c, 8) ? most : one_in(c, 3) ? 300 : 12;
    return 1 + below(c, n < most ? n : most);
}

/* ---- the schedule ------------------------------------------------------------------------------------------------ */

typedef enum kind { PAIR, SERVER, CLIENT, TCP, UDP, FDS, FD_SOCKET, FILES, SERIAL, FIFO, PTY, KINDS } kind; /* up to TCP: socket */
typedef enum layer { RAW, TELNET, TN3270, WEBSOCKET, COM_PORT, LAYERS } layer; /* the last: telnet with RFC 2217 */
typedef enum stack { ALONE, ON_FAULT, ON_MUX, ON_HUB, ON_FILTER, STACKS } stack;
typedef enum when_full { WAIT, DROP, DISCONNECT } when_full;

static const char *const kind_names[] = { "pair", "server", "client", "tcp", "udp", "fds", "fd-socket", "files", "serial", "fifo", "pty" };
static const char *const layer_names[] = { "", "telnet", "tn3270", "websocket", "telnet=on,com-port" };
static const char *const stack_names[] = { "", "fault", "mux", "hub", "filter" };
static const char *const full_names[] = { "wait", "drop-oldest", "disconnect" };

typedef struct setup {
    kind      kind;
    layer     layer;
    stack     stack;
    when_full full;
    int       obuf, history, clients, half_close;
    int       in, out;       /* chr_fe_set_buffers() */
    int       pulls;         /* without a `read` handler: chr_fe_read() */
    int       echo, banner;  /* what handlers write */
    int       telnet_answer; /* of the far side to offers of BINARY: 0 none, 1 yes, 2 no */
    int       small;         /* the system's buffers between the two */
    int       tls;           /* below the layer */
    int       replace;       /* a server's new client takes the place of the one that it has */
} setup;

#define OPERATIONS(X)                                                                                                                \
    X(write, 20) X(write_all, 2) X(flush, 2) X(watch, 4) X(step, 30) X(time, 4) X(room, 10) X(no_room, 4) X(pull, 8) X(say, 16)         \
    X(hear, 16) X(meet, 8) X(leave, 2) X(close, 1) X(disconnect, 1) X(buffers, 2) X(change, 2) X(refuse, 1) X(glitch, 6) \
    X(failure, 1) X(memory, 1) X(focus, 4) X(handlers, 1) X(remove, 1)

typedef enum operation {
#define OPERATION_ENUM(name, weight) OP_##name,
    OPERATIONS(OPERATION_ENUM)
#undef OPERATION_ENUM
    OPERATION_COUNT
} operation;

typedef struct step {
    operation op;
    uint32_t  seed;
    int       is_left_out;
} step;

static struct {
    uint32_t seed;
    setup    setup;
    step     steps[MOST_STEPS];
    int      count;
} plan;

#ifdef CHARDEV_MBEDTLS
enum { HAS_TLS = 1 };
#else
enum { HAS_TLS = 0 };
#endif

static setup setup_of(chance *c)
{
    setup s;
    memset(&s, 0, sizeof s);
    s.kind = (kind)below(c, one_in(c, 5) ? KINDS : one_in(c, 4) ? TCP + 1 : CLIENT + 1);
    s.stack = one_in(c, 3) ? (stack)(1 + below(c, STACKS - 1)) : ALONE;
    if (s.stack == ON_HUB) s.kind = (kind)below(c, CLIENT);
    if (s.kind <= TCP) s.layer = (layer)(one_in(c, 2) ? 0 : 1 + below(c, LAYERS - 1));
    s.tls = one_in(c, 6) && s.kind <= TCP && HAS_TLS;
    if (one_in(c, 3)) s.obuf = 1 + below(c, one_in(c, 2) ? 100 : 5000);
    if (s.obuf && one_in(c, 3)) s.full = s.kind <= TCP ? (when_full)(1 + below(c, 2)) : DROP;
    if (one_in(c, 4)) s.history = 1 + below(c, one_in(c, 2) ? 60 : 3000);
    s.clients = s.stack == ALONE && (s.kind == SERVER || s.kind == TCP) && one_in(c, 4) ? 2 + below(c, MOST_CLIENTS - 1) : 1;
    if (s.layer == COM_PORT) s.clients = 1; /* a serial line has one end */
    s.replace = (s.kind == SERVER || s.kind == TCP) && s.stack != ON_HUB && s.clients == 1 && one_in(c, 5);
    s.half_close = s.kind <= TCP && s.layer != WEBSOCKET && one_in(c, 5);
    if (one_in(c, 3)) s.in = 1 + below(c, one_in(c, 2) ? 20 : 4096);
    if (one_in(c, 3)) s.out = 1 + below(c, one_in(c, 2) ? 20 : 4096);
    if (s.stack == ON_FAULT) s.history = 0; /* what is lost in front of it is none */
    if (s.stack == ON_MUX) s.out = 0; /* the order in which two of them leave is theirs */
    if (s.stack == ON_FAULT) s.out = 0; /* what is gathered and lost in front of it is in no history below */
    s.pulls = s.in > 0 && s.stack != ON_MUX && one_in(c, 2);
    s.echo = one_in(c, 5);
    s.banner = one_in(c, 5);
    s.telnet_answer = below(c, 3);
    s.small = one_in(c, 2);
    return s;
}

static operation any_operation(chance *c)
{
    static const int weights[] = {
#define OPERATION_WEIGHT(name, weight) weight,
        OPERATIONS(OPERATION_WEIGHT)
#undef OPERATION_WEIGHT
    };
    int i, at, total = 0;
    for (i = 0; i < OPERATION_COUNT; i++) total += weights[i];
    at = below(c, total);
    for (i = 0; at >= weights[i]; i++) at -= weights[i];
    return (operation)i;
}

static void plan_make(uint32_t seed)
{
    chance c = chance_of(seed);
    int    i;
    memset(&plan, 0, sizeof plan);
    plan.seed = seed;
    plan.setup = setup_of(&c);
    plan.count = 10 + below(&c, MOST_STEPS - 10);
    for (i = 0; i < plan.count; i++) {
        plan.steps[i].op = any_operation(&c);
        plan.steps[i].seed = any(&c);
    }
}

static void plan_print(FILE *out)
{
    static const char *const names[] = {
#define OPERATION_NAME(name, weight) #name,
        OPERATIONS(OPERATION_NAME)
#undef OPERATION_NAME
    };
    const setup *s = &plan.setup;
    int          i;
    fprintf(out, "    once more: MODEL_SEEDS=%u", plan.seed);
    for (i = 0; i < plan.count && !plan.steps[i].is_left_out; i++) {}
    if (i < plan.count) {
        fprintf(out, " MODEL_STEPS=");
        for (i = 0; i < plan.count; i++)
            if (!plan.steps[i].is_left_out) fprintf(out, "%d,", i);
    }
    fprintf(out, "\n    %s %s %s obuf=%d,%s history=%d clients=%d half-close=%d in=%d out=%d pulls=%d echo=%d banner=%d answer=%d small=%d tls=%d replace=%d\n   ",
            kind_names[s->kind], layer_names[s->layer], stack_names[s->stack], s->obuf, full_names[s->full], s->history, s->clients,
            s->half_close, s->in, s->out, s->pulls, s->echo, s->banner, s->telnet_answer, s->small, s->tls, s->replace);
    for (i = 0; i < plan.count; i++)
        if (!plan.steps[i].is_left_out) fprintf(out, " %d:%s", i, names[plan.steps[i].op]);
    fprintf(out, "\n");
}

/* ---- bytes in order ---------------------------------------------------------------------------------------------- */

typedef struct tape {
    unsigned char *bytes;
    size_t         length, size;
} tape;

static void tape_put(tape *t, const void *bytes, size_t len)
{
    if (t->length + len > t->size) {
        t->size = 2 * (t->length + len) + 64;
        t->bytes = (unsigned char *)realloc(t->bytes, t->size);
        REQUIRE(t->bytes != NULL);
    }
    if (len) memcpy(t->bytes + t->length, bytes, len);
    t->length += len;
}

static void tape_put_byte(tape *t, int byte)
{
    unsigned char c = (unsigned char)byte;
    tape_put(t, &c, 1);
}

static void tape_put_number(tape *t, size_t number) { tape_put(t, &number, sizeof number); }

static int tape_has_number(const tape *t, size_t number)
{
    size_t at, one;
    for (at = 0; at < t->length; at += sizeof one) {
        memcpy(&one, t->bytes + at, sizeof one);
        if (one == number) return 1;
    }
    return 0;
}

static void tape_take(tape *t, size_t len)
{
    t->length -= len;
    memmove(t->bytes, t->bytes + len, t->length);
}

static void tape_free(tape *t)
{
    free(t->bytes);
    memset(t, 0, sizeof *t);
}

/* ---- the world --------------------------------------------------------------------------------------------------- */

typedef enum decoder { DATA, COMMAND, VERB, SUB, SUB_COMMAND, HEAD, FRAME } decoder;

/* One connection of the far side. */
typedef struct far_side {
    int     to, from;           /* -1 = none (any more) */
    layer   layer;
    kind    kind;               /* of the chardev that it is of */
    int     is_socket, is_client, is_file, is_mail; /* the last: datagrams */
    int     lingers;            /* what is written to it and not sent yet still is when the chardev is done with it */
    int     tag;                /* the upper bits of all that it sends */
    tape    sent[USERS];        /* payload, by the frontend that it is for */
    size_t  known[USERS];       /* how much of it has certainly left */
    tape    wire;               /* encoded, and not yet written */
    tape    raw;                /* what was read and isn't decoded yet */
    tape    heard;              /* payload */
    decoder state;
    int     verb, last, is_text; /* telnet */
    int     pings, pongs;
    int     has_greeted;        /* the handshake is over, as it sees it; of telnet, it has heard anything */
    int     is_over;            /* end of file was read */
    int     is_ended;           /* it ends its output itself */
    int     is_gone;            /* it is closed: what is heard is only a part */
    int     is_cut;             /* our side ended the connection: what it sent may have come in part */
    int     is_excused;         /* something has failed that may end it at any time */
    int     may_end;            /* our side may end it, or has */
    int     is_replaced;        /* it does so when another comes */
    size_t  from_least, from_most, to_least, to_most; /* of the journal */
    size_t  to_sure;            /* behind this it may have heard what is not in the journal */
    tape    sealed, unread;     /* TLS: records to write; read, and not yet opened */
    int     is_secure, is_shaken; /* it has TLS; the handshake of that is over, as it sees it */
    int     is_notified;        /* close_notify has come */
    tape    sent_ends, heard_ends; /* datagrams: where they end in sent[0] and heard */
    int     is_opened, is_done; /* seen from the frontend: OPENED has come; it won't any more */
#ifdef CHARDEV_MBEDTLS
    mbedtls_ssl_context ssl;
#endif
} far_side;

typedef struct user {
    recorder rec;
    tape     pending;           /* offered, and not yet taken */
    int      waits;             /* for `writable` */
    int      is_detached, has_no_handlers;
} user;

static struct {
    rig      r;
    user     users[USERS];
    int      user_count;
    far_side fars[FARS];
    int      far_count;
    kind     kind;
    layer    layer;
    int      tls;
    int      concurrent;        /* more than one connection at a time */
    tape     journal;
    size_t   base, base_most;   /* where the journal of this backend begins, between these, */
    size_t   last_open;         /* and where OPENED came last, */
    size_t   waiting_open;      /* and for the first that waits in the far side's backlog; SIZE_MAX = none does */
    int      listener, focus, input_is_off, is_told_again, turn, is_hard, budget;
    int      is_early;          /* OPENED has come, and no connection that it may be about */
    int      is_mixed;          /* nobody can tell where the input of a peer ends that is cut into commands */
    int      left_over;         /* blocks that a reset context has */
    size_t   used;              /* of the program's memory then */
    tape     write_ends;        /* where in the journal writes end */
    tape     read_ends;         /* where in the input reads end, as its length * 2, + 1 = there was no more room */
    int      datagrams, swaps;
    size_t   mail;              /* bytes in the datagrams of the far sides */
    int      port;              /* of the datagrams' far side */
    char     place[40];
} m;

static int trace_wanted(void)
{
    static int wanted = -1;
    if (wanted < 0) wanted = getenv("MODEL_TRACE") != NULL;
    return wanted;
}

#define TRACE(...)                                              \
    do {                                                        \
        if (trace_wanted()) fprintf(stderr, __VA_ARGS__);       \
    } while (0)

static int far_is_live(const far_side *f) { return f->from >= 0 && !f->is_over && !f->is_gone; }

static int live_count(void)
{
    int i, n = 0;
    for (i = 0; i < m.far_count; i++) n += far_is_live(&m.fars[i]);
    return n;
}

static void set_small(int fd)
{
    int size = 1;
    if (!plan.setup.small || m.kind == TCP) return; /* there little room means long waits */
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
}

/* ---- TLS with a shared key, as the far side has it --------------------------------------------------------------- */

#ifdef CHARDEV_MBEDTLS

static int tls_random(void *opaque, unsigned char *bytes, size_t len)
{
    static chance c = { 1 };
    (void)opaque;
    while (len-- > 0) *bytes++ = (unsigned char)any(&c);
    return 0;
}

static int tls_send(void *opaque, const unsigned char *bytes, size_t len)
{
    tape_put(&((far_side *)opaque)->sealed, bytes, len);
    return (int)len;
}

static int tls_receive(void *opaque, unsigned char *bytes, size_t len)
{
    tape *t = &((far_side *)opaque)->unread;
    if (t->length == 0) return MBEDTLS_ERR_SSL_WANT_READ;
    if (len > t->length) len = t->length;
    memcpy(bytes, t->bytes, len);
    tape_take(t, len);
    return (int)len;
}

/* Without operations of public keys, which take as long as a whole schedule. */
static const mbedtls_ssl_config *tls_config(int is_client)
{
    static const int           suites[] = { MBEDTLS_TLS_PSK_WITH_AES_128_GCM_SHA256, MBEDTLS_TLS_PSK_WITH_CHACHA20_POLY1305_SHA256, 0 };
    static const unsigned char key[] = "0123456789abcdef";
    static mbedtls_ssl_config  configs[2];
    static int                 are_made;
    int                        i;
    for (i = 0; i < 2 && !are_made; i++) {
        mbedtls_ssl_config_init(&configs[i]);
        REQUIRE(mbedtls_ssl_config_defaults(&configs[i], i ? MBEDTLS_SSL_IS_CLIENT : MBEDTLS_SSL_IS_SERVER, MBEDTLS_SSL_TRANSPORT_STREAM,
                                            MBEDTLS_SSL_PRESET_DEFAULT) == 0);
        mbedtls_ssl_conf_rng(&configs[i], tls_random, NULL);
        mbedtls_ssl_conf_ciphersuites(&configs[i], suites);
#if MBEDTLS_VERSION_NUMBER >= 0x03020000
        mbedtls_ssl_conf_max_tls_version(&configs[i], MBEDTLS_SSL_VERSION_TLS1_2);
#endif
        REQUIRE(mbedtls_ssl_conf_psk(&configs[i], key, 16, (const unsigned char *)"qemu", 4) == 0);
    }
    are_made = 1;
    return &configs[is_client];
}

static void secure(far_side *f)
{
    mbedtls_ssl_init(&f->ssl);
    REQUIRE(mbedtls_ssl_setup(&f->ssl, tls_config(f->is_client)) == 0);
    mbedtls_ssl_set_bio(&f->ssl, f, tls_send, tls_receive, NULL);
}

static void secure_end(far_side *f) { mbedtls_ssl_free(&f->ssl); }

static int secure_waits(int n) { return n == MBEDTLS_ERR_SSL_WANT_READ || n == MBEDTLS_ERR_SSL_WANT_WRITE; }

static void secure_shake(far_side *f)
{
    int n = f->is_shaken || f->is_over ? 0 : mbedtls_ssl_handshake(&f->ssl);
    if (f->is_shaken || f->is_over || secure_waits(n)) return;
    if (!CHECK(n == 0 || f->may_end || f->is_excused || f->is_cut)) NOTE("the handshake fails: -0x%x", (unsigned)-n);
    f->is_shaken = n == 0;
    if (n == 0 && f->layer == RAW) f->has_greeted = 1;
}

/* What is to be written becomes records. */
static void secure_write(far_side *f)
{
    int n;
    secure_shake(f);
    while (f->is_shaken && f->wire.length > 0) {
        n = mbedtls_ssl_write(&f->ssl, f->wire.bytes, f->wire.length);
        if (n <= 0) return;
        tape_take(&f->wire, (size_t)n);
    }
}

static int secure_read(far_side *f, unsigned char *bytes, size_t len)
{
    int n;
    secure_shake(f);
    if (!f->is_shaken) return 0;
    n = mbedtls_ssl_read(&f->ssl, bytes, len);
    f->is_notified |= n == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY;
    CHECK(n > 0 || secure_waits(n) || n == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY || f->is_excused);
    return n;
}

static void secure_notify(far_side *f)
{
    if (f->is_shaken) mbedtls_ssl_close_notify(&f->ssl);
}

static void secure_creds(void)
{
    chr_error err;
    char      text[300];
    int       i;
    for (i = 0; i < 2; i++) {
        snprintf(text, sizeof text, "tls-creds-psk,id=t%d,endpoint=%s,keyfile=%s", i, i ? "server" : "client", scratch("keys.psk"));
        if (!CHECK_INT(chr_tls_creds_add(m.r.ctx, text, &err), 0)) NOTE("%s", err.text);
    }
}

#else

static void secure(far_side *f) { (void)f; }
static void secure_end(far_side *f) { (void)f; }
static void secure_write(far_side *f) { (void)f; }
static int  secure_read(far_side *f, unsigned char *bytes, size_t len) { return (void)f, (void)bytes, (void)len, 0; }
static void secure_notify(far_side *f) { (void)f; }
static void secure_creds(void) {}

#endif

/* ---- one connection more ----------------------------------------------------------------------------------------- */

static chr_dev *bottom_dev(void)
{
    chr_dev *dev = chr_find(m.r.ctx, "b");
    return dev ? dev : chr_find(m.r.ctx, "d");
}

/* It is connected, handshakes included. OPENED may be older: of a backend before this one, whose state a refused swap
 * tells again, or behind buffered input. */
static int is_open_now(void) { return bottom_dev() && bottom_dev()->be_open; }

/* The connection may receive output from before it connected, as far as history= and an output buffer keep it. */
static size_t back_from(size_t at, size_t len)
{
    return at > m.base + len ? at - len : m.base;
}

/* Whether a connection of a client waits in the far side's backlog. Ours may have closed it already. */
static int has_backlog(void)
{
    struct pollfd listener = { m.listener, POLLIN, 0 };
    return m.kind == CLIENT && poll(&listener, 1, 0) == 1;
}

static far_side *far_new(int to, int from, int is_client)
{
    far_side *f = &m.fars[m.far_count];
    size_t    open = m.waiting_open < m.last_open ? m.waiting_open : m.last_open;
    memset(f, 0, sizeof *f);
    f->to = to;
    f->from = from;
    fcntl(to, F_SETFL, O_RDWR | O_NONBLOCK);
    fcntl(from, F_SETFL, O_RDWR | O_NONBLOCK);
    f->layer = m.layer == COM_PORT ? TELNET : m.layer;
    f->is_socket = m.kind <= UDP || m.kind == FD_SOCKET;
    f->is_client = is_client;
    f->kind = m.kind;
    f->is_file = m.kind == FILES;
    f->is_mail = m.kind == UDP;
    f->lingers = m.kind <= TCP || m.kind == FILES;
    f->state = f->layer == WEBSOCKET ? HEAD : DATA;
    f->tag = m.concurrent ? m.far_count % TAGS : -1;
    f->is_secure = m.tls;
    if (f->is_secure) secure(f);
    if (!has_backlog()) m.waiting_open = SIZE_MAX;
    f->from_least = back_from(m.kind == CLIENT ? open : m.journal.length, (size_t)(plan.setup.history + plan.setup.out + MOST_WRITE * (m.concurrent != 0)));
    if (plan.setup.stack == ON_FAULT) f->from_least = 0;
    if (m.kind == PTY) f->from_least = 0; /* what the last one has not read waits in the terminal */
    f->from_most = f->to_most = f->to_sure = SIZE_MAX;
    f->may_end = plan.setup.full == DISCONNECT;
    f->is_opened = m.kind == CLIENT && m.is_early && is_open_now();
    m.is_early = 0;
    m.far_count++;
    return f;
}

/* ---- the filter: it turns bits ----------------------------------------------------------------------------------- */

enum { TURNED = 0x21 };

static void turn(void *to, const void *from, size_t len)
{
    size_t i;
    for (i = 0; i < len; i++) ((unsigned char *)to)[i] = (unsigned char)(((const unsigned char *)from)[i] ^ (plan.setup.stack == ON_FILTER ? TURNED : 0));
}

/* In one piece: history= below also has output written without a peer. */
static int filter_write(chr_dev *dev, const void *bytes, size_t len)
{
    static unsigned char turned[1 << 21];
    if (len > sizeof turned) len = sizeof turned;
    turn(turned, bytes, len);
    return chr_stacked_write(dev, turned, len);
}

static void filter_on_read(void *opaque, const void *bytes, size_t len)
{
    unsigned char piece[512];
    chr_dev      *dev = (chr_dev *)opaque;
    size_t        at, size;
    for (at = 0; at < len && !dev->removed; at += size) {
        size = len - at < sizeof piece ? len - at : sizeof piece;
        turn(piece, (const unsigned char *)bytes + at, size);
        chr_be_write(dev, piece, size);
    }
}

typedef struct filter_options {
    chr_common_options common;
    const char        *chardev;
} filter_options;

static const chr_option filter_rows[] = {
    { "chardev", CHR_OPTION_TEXT, offsetof(filter_options, chardev), CHR_REQUIRED, 0, 0, "id of the chardev that it is on" },
    { NULL,      CHR_OPTION_TEXT, 0,                                 NULL,         0, 0, NULL }
};

static int filter_open(chr_dev *dev, chr_error *err)
{
    static const chr_handlers handlers = { NULL, filter_on_read, NULL, NULL };
    return chr_stacked_open(dev, ((const filter_options *)dev->options)->chardev, &handlers, err);
}

CHR_TABLE(chr_io, filter_io, CHR_SET(write, filter_write) CHR_SET(update, chr_stacked_update) CHR_SET(wait_fd, chr_stacked_wait_fd));
CHR_TABLE(chr_peer_slots, filter_peer,
    CHR_SET(disconnect,     chr_stacked_disconnect)
    CHR_SET(wait_connected, chr_stacked_wait_connected)
    CHR_SET(shutdown,       chr_stacked_shutdown)
    CHR_SET(queued,         chr_stacked_queued));
CHR_TABLE(chr_backend, filter_kind,
    CHR_SET(name,         "turn")
    CHR_SET(help,         "turns bits")
    CHR_SET(options,      filter_rows)
    CHR_SET(options_size, sizeof(filter_options))
    CHR_SET(state_size,   sizeof(chr_stacked))
    CHR_SET(open,         filter_open)
    CHR_SET(close,        chr_stacked_close)
    CHR_SET(io,           &filter_io)
    CHR_SET(describe,     chr_stacked_describe)
    CHR_SET(peer,         &filter_peer));

/* ---- what goes over the wire ------------------------------------------------------------------------------------- */

static void encode_telnet(far_side *f, const unsigned char *bytes, size_t len)
{
    size_t i;
    for (i = 0; i < len; i++) {
        tape_put_byte(&f->wire, bytes[i]);
        if (bytes[i] == 255) tape_put_byte(&f->wire, 255);
        if (bytes[i] == '\r' && f->layer == TELNET && !f->is_text) tape_put_byte(&f->wire, 0);
    }
}

static void encode_frame(far_side *f, chance *c, int first, const unsigned char *bytes, size_t len)
{
    unsigned char head[14], mask[4] = { 0, 0, 0, 0 };
    size_t        n = 2, i;
    int           wide = len > 125 || (first < 8 && one_in(c, 6)) ? (len > 65535 || one_in(c, 4) ? 8 : 2) : 0;
    if (len > 125 && len < 126) wide = 2;
    if (wide && len < 126) wide = 0; /* the shortest form is required */
    if (wide == 8 && len < 65536) wide = 2;
    head[0] = (unsigned char)first;
    head[1] = (unsigned char)((f->is_client ? 128 : 0) | (wide == 8 ? 127 : wide == 2 ? 126 : (int)len));
    for (; wide > 0; wide--) head[n++] = (unsigned char)((uint64_t)len >> (8 * (wide - 1)));
    for (i = 0; i < 4 && f->is_client; i++) head[n++] = mask[i] = (unsigned char)any(c);
    tape_put(&f->wire, head, n);
    for (i = 0; i < len; i++) tape_put_byte(&f->wire, bytes[i] ^ mask[i & 3]);
}

/* In messages of one frame or of several, with pings between. */
static void encode_websocket(far_side *f, chance *c, const unsigned char *bytes, size_t len)
{
    size_t part, at;
    int    opcode = 2;
    for (at = 0; at < len; at += part, opcode = 0) {
        part = one_in(c, 3) ? (size_t)below(c, (int)(len - at)) : len - at;
        encode_frame(f, c, opcode | (at + part == len ? 128 : 0), bytes + at, part);
        if (one_in(c, 6) && f->pings < 20) encode_frame(f, c, 0x89, bytes, len < 5 ? len : 5), f->pings++;
    }
}

static void encode(far_side *f, chance *c, const unsigned char *bytes, size_t len)
{
    if (f->layer == WEBSOCKET) encode_websocket(f, c, bytes, len);
    else if (f->layer == TELNET || f->layer == TN3270) encode_telnet(f, bytes, len);
    else tape_put(&f->wire, bytes, len);
}

/* Whether the far side of tn3270 agrees to all that it takes. */
static void answer_telnet(far_side *f, int verb, int option)
{
    unsigned char answer[3] = { 255, 0, 0 };
    int           wanted = f->layer == TN3270 ? option == 0 || option == 25 || option == 24 : (option == 0 || (option == 44 && m.layer == COM_PORT)) && plan.setup.telnet_answer == 1;
    if (f->layer == TELNET && plan.setup.telnet_answer == 0) return;
    if (f->to < 0 || f->is_ended) return;
    if (verb != 251 && verb != 253) return; /* WONT, DONT: as it was */
    answer[1] = (unsigned char)(verb == 253 ? (wanted ? 251 : 252) : wanted ? 253 : 254);
    answer[2] = (unsigned char)option;
    tape_put(&f->wire, answer, 3);
    if (verb == 253 && option == 0 && wanted) f->is_text = 1; /* WILL BINARY: from here on a CR is a CR */
}

static void hear_bytes(far_side *f, const void *bytes, size_t len)
{
    tape_put(&f->heard, bytes, len);
    if (len > 0) turn(f->heard.bytes + f->heard.length - len, bytes, len);
}

static void hear_byte(far_side *f, int c)
{
    unsigned char byte = (unsigned char)c;
    /* what was seen to be sent as CR NUL once is so always */
    if (f->layer == TELNET && plan.setup.telnet_answer == 2 && f->last == '\r' && c == 0) {
        f->last = 0;
        return;
    }
    f->last = c;
    hear_bytes(f, &byte, 1);
}

static void decode_telnet(far_side *f, int c)
{
    switch (f->state) {
    case COMMAND:
        f->state = DATA;
        if (c == 255) hear_byte(f, 255);
        else if (c >= 251) f->verb = c, f->state = VERB;
        else if (c == 250) f->state = SUB;
        break;
    case VERB: answer_telnet(f, f->verb, c); f->state = DATA; break;
    case SUB: f->state = c == 255 ? SUB_COMMAND : SUB; break;
    case SUB_COMMAND: f->state = c == 240 ? DATA : SUB; break;
    default:
        if (c == 255) f->state = COMMAND;
        else hear_byte(f, c);
    }
}

/* One whole frame from the front of `raw`; 0 = there is none yet. */
static int decode_frame(far_side *f)
{
    unsigned char *p = f->raw.bytes;
    size_t         n = 2, len, i, wide;
    if (f->raw.length < 2) return 0;
    len = p[1] & 127;
    wide = len == 127 ? 8 : len == 126 ? 2 : 0;
    if (f->raw.length < n + wide) return 0;
    for (i = 0, len = wide ? 0 : len; i < wide; i++) len = len << 8 | p[n++];
    CHECK_INT((p[1] & 128) != 0, !f->is_client); /* clients mask, servers don't */
    if (wide) CHECK(wide == 2 ? len > 125 : len > 65535);
    n += p[1] & 128 ? 4 : 0;
    if (f->raw.length < n + len) return 0;
    for (i = 0; i < len && p[1] & 128; i++) p[n + i] ^= p[n - 4 + (i & 3)];
    if ((p[0] & 15) == 2 || (p[0] & 15) == 0) hear_bytes(f, p + n, len);
    else if ((p[0] & 15) == 10) f->pongs++;
    else CHECK_INT(p[0] & 15, 8);
    tape_take(&f->raw, n + len);
    return 1;
}

static const char upgrade_text[] = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-";

/* The head of the other side's, up to an empty line. */
static int decode_head(far_side *f)
{
    char        answer[300], key[40] = "", proof[40], *end, *at;
    size_t      len;
    tape_put_byte(&f->raw, 0);
    f->raw.length--;
    if (!f->raw.bytes || !(end = strstr((char *)f->raw.bytes, "\r\n\r\n"))) return 0;
    len = (size_t)(end + 4 - (char *)f->raw.bytes);
    if (f->is_client) {
        CHECK(strncmp((char *)f->raw.bytes, "HTTP/1.1 101", 12) == 0);
    } else {
        at = strstr((char *)f->raw.bytes, "Sec-WebSocket-Key: ");
        if (CHECK(at != NULL)) sscanf(at + 19, "%39s", key);
        private_ws_proof(key, proof);
        tape_put(&f->wire, answer, (size_t)snprintf(answer, sizeof answer,
                 "HTTP/1.1 101 Switching Protocols\r\n%sAccept: %s\r\nSec-WebSocket-Protocol: binary\r\n\r\n", upgrade_text, proof));
    }
    tape_take(&f->raw, len);
    f->has_greeted = 1;
    f->state = FRAME;
    return 1;
}

static void decode(far_side *f, const unsigned char *bytes, size_t len)
{
    size_t i;
    if (len > 0 && f->layer != WEBSOCKET) f->has_greeted = 1;
    if (f->layer == RAW) hear_bytes(f, bytes, len);
    else if (f->layer == WEBSOCKET) {
        tape_put(&f->raw, bytes, len);
        if (f->state == HEAD && !decode_head(f)) return;
        while (decode_frame(f)) {}
    } else {
        for (i = 0; i < len; i++) decode_telnet(f, bytes[i]);
    }
}

/* ---- the far side ------------------------------------------------------------------------------------------------ */

/* What is written goes into the kernel, as far as that takes it: in the order of the datagrams, each whole. */
static void far_flush(far_side *f)
{
    tape   *t = f->is_secure ? &f->sealed : &f->wire;
    ssize_t n;
    int     i;
    if (f->is_ended) return;
    if (f->is_secure) secure_write(f);
    while (f->to >= 0 && t->length > 0) {
        if (!f->is_socket) signal(SIGPIPE, SIG_IGN); /* ours; the library is to be silent by itself */
        n = f->is_socket ? send(f->to, t->bytes, t->length, MSG_NOSIGNAL) : write(f->to, t->bytes, t->length);
        if (!f->is_socket) signal(SIGPIPE, SIG_DFL);
        if (n <= 0) return;
        tape_take(t, (size_t)n);
        if (f->is_mail) tape_put_number(&f->sent_ends, f->sent[0].length - t->length);
        m.turn++;
    }
    if (f->wire.length > 0) return;
    for (i = 0; i < USERS; i++) f->known[i] = f->sent[i].length;
}

static ssize_t far_read(far_side *f, size_t most)
{
    unsigned char text[65536];
    ssize_t       n;
    int           opened;
    if (most > 8192) most = 8192;
    n = read(f->from, text, f->is_mail ? sizeof text : most);
    if (n == 0 && f->is_file) return errno = EAGAIN, -1; /* the end of a file is where more will be written */
    if (n > 0) m.turn++;
    if (n > 0 && f->is_secure) tape_put(&f->unread, text, (size_t)n);
    else if (n > 0) decode(f, text, (size_t)n);
    if (n > 0 && f->is_mail) tape_put_number(&f->heard_ends, f->heard.length);
    while (n > 0 && f->is_secure && (opened = secure_read(f, text, sizeof text)) > 0) decode(f, text, (size_t)opened);
    return n;
}

static void far_hear(far_side *f, size_t most)
{
    size_t  before = f->heard.length;
    ssize_t n = -1;
    if (f->from < 0 || f->is_over) return;
    do n = far_read(f, most);
    while (f->is_mail && n >= 0);
    if (f->heard.length > before) TRACE("    far %d hears %d bytes\n", (int)(f - m.fars), (int)(f->heard.length - before));
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR && !f->is_mail)) {
        TRACE("    far %d: end of file%s\n", (int)(f - m.fars), n < 0 ? " (error)" : "");
        f->is_over = 1;
        if (f->to_most > m.journal.length) f->to_most = m.journal.length;
        m.turn++;
        if (!CHECK(f->may_end || f->is_ended || f->is_cut || f->is_excused)) NOTE("connection %d ends out of nowhere", (int)(f - m.fars));
        f->is_cut = 1;
    }
}

/* What is sent to it waits nowhere, so that none is lost. */
static void take_mail(void)
{
    int i;
    for (i = 0; i < m.far_count; i++)
        if (m.fars[i].is_mail) far_hear(&m.fars[i], SIZE_MAX);
}

static void greet(far_side *f)
{
    char text[300];
    if (f->layer == TN3270 && !f->is_client) /* DO and WILL, EOR and BINARY */
        tape_put(&f->wire, "\377\375\31\377\373\31\377\375\0\377\373\0", 12);
    if (f->layer == WEBSOCKET && f->is_client)
        tape_put(&f->wire, text, (size_t)snprintf(text, sizeof text,
                 "GET / HTTP/1.1\r\nHost: x\r\n%sVersion: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                 "Sec-WebSocket-Protocol: binary\r\n\r\n", upgrade_text));
    far_flush(f);
}

static int abstract_address(struct sockaddr_un *address)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path + 1, m.place, strlen(m.place));
    return (int)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(m.place));
}

/* 0 = as a listener, 1 = a connection to it. */
static int abstract_socket(int connects)
{
    struct sockaddr_un address;
    int                len = abstract_address(&address), fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    REQUIRE(fd >= 0);
    set_small(fd);
    if (!connects) {
        REQUIRE(bind(fd, (struct sockaddr *)&address, (socklen_t)len) == 0 && listen(fd, 4) == 0);
    } else if (connect(fd, (struct sockaddr *)&address, (socklen_t)len) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* A socket of datagrams at 127.0.0.1:*port (0: at any, and which), connected to another port if that is given. */
static int mail_socket(int *port, int to)
{
    struct sockaddr_in address;
    socklen_t          len = sizeof address;
    int                fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), i;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (i = 0; i < (to ? 2 : 1) && fd >= 0; i++) {
        address.sin_port = htons((uint16_t)(i ? to : *port));
        if ((i ? connect(fd, (struct sockaddr *)&address, len) : bind(fd, (struct sockaddr *)&address, len)) == 0) continue;
        close(fd);
        fd = -1;
    }
    if (fd >= 0 && getsockname(fd, (struct sockaddr *)&address, &len) == 0) *port = ntohs(address.sin_port);
    return fd;
}

/* Another peer replaces it, sooner or later, even if its disconnect has not been detected. */
static void far_is_replaced(far_side *f)
{
    if (f->is_over) return;
    f->is_cut = f->may_end = f->is_replaced = 1;
    if (plan.setup.stack == ON_MUX) m.input_is_off = 1; /* a change of the focus may be lost */
}

/* A new connection, where there may be one. */
static void far_meet_over(int replaces)
{
    chr_info  info;
    int       fd = -1, yes = 1, i;
    far_side *f;
    chr_dev  *dev = bottom_dev();
    int       may_replace = plan.setup.replace && (m.kind == SERVER || m.kind == TCP);
    if (!dev || m.far_count == (m.concurrent ? TAGS : FARS) || plan.setup.stack == ON_HUB) return;
    if (m.kind != CLIENT && live_count() >= plan.setup.clients && !(replaces && may_replace)) return;
    if (may_replace && (m.tls || m.layer == WEBSOCKET) && m.far_count > 0 && !m.fars[m.far_count - 1].is_opened) return; /* whose handshake is over first? */
    if (m.kind == SERVER) fd = abstract_socket(1);
    if (m.kind == CLIENT) fd = accept(m.listener, NULL, NULL);
    if (m.kind == TCP || m.kind == UDP || m.kind == PTY) chr_query(dev, &info);
    if (m.kind == UDP) fd = mail_socket(&m.port, atoi(strrchr(info.address, ':') + 1));
    if (m.kind == TCP) fd = tcp_connect(atoi(strchr(info.address, ':') + 1));
    if (m.kind == TCP && fd >= 0) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (m.kind == PTY) fd = open(strstr(info.filename, "/dev/"), O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) return;
    if (m.kind != PTY && m.kind != UDP) set_small(fd);
    TRACE("    far %d comes\n", m.far_count);
    for (i = 0; i < m.far_count && m.concurrent; i++) /* it may take the last place, of one whose handshake goes on */
        if ((m.layer == WEBSOCKET || m.tls) && !m.fars[i].has_greeted) m.fars[i].may_end = 1;
    for (i = 0; i < m.far_count && may_replace; i++) far_is_replaced(&m.fars[i]);
    f = far_new(fd, fd, m.kind != CLIENT);
    for (i = 0; i < m.far_count - 1 && (m.tls || plan.setup.replace); i++) /* the handshake of one that is gone may take the place */
        f->may_end |= m.kind != CLIENT && (m.concurrent || !m.fars[i].is_opened);
    f->is_opened |= m.kind == UDP; /* there is no event of it */
    if (m.kind == UDP && plan.setup.stack != ON_FAULT) f->from_most = m.journal.length;
    if (m.kind == UDP) f->from_least = back_from(f->from_least, (size_t)plan.setup.obuf); /* what would block for a while goes to whom it meets */
    greet(f);
}

static void far_meet(void) { far_meet_over(0); }

/* ---- making it --------------------------------------------------------------------------------------------------- */

static const char *wrapped_options(char *text, size_t size, const char *id, const setup *s, int is_server)
{
    size_t used = strlen(text);
    used += (size_t)snprintf(text + used, size - used, ",id=%s%s", id, is_server ? ",server=on,wait=off" : "");
    if (m.layer) used += (size_t)snprintf(text + used, size - used, ",%s=on", layer_names[m.layer]);
    if (m.tls) used += (size_t)snprintf(text + used, size - used, ",tls-creds=t%d%s", is_server, is_server ? "" : ",tls-hostname=localhost");
    if (s->obuf) used += (size_t)snprintf(text + used, size - used, ",obuf=%d,obuf-full=%s", s->obuf, full_names[s->full]);
    if (s->history) used += (size_t)snprintf(text + used, size - used, ",history=%d", s->history);
    if (s->half_close && m.kind <= TCP) used += (size_t)snprintf(text + used, size - used, ",half-close=on");
    if (is_server && s->replace) used += (size_t)snprintf(text + used, size - used, ",replace=on");
    if (is_server && s->clients > 1) used += (size_t)snprintf(text + used, size - used, ",clients=%d", s->clients);
    return text;
}

/* The options of a chardev of the kind m.kind and the layer m.layer. For those that have their far side from the
 * beginning, in fds: ours[2] and the far side's[2]; -1 = none. */
static void describe(char *text, size_t size, const char *id, int ours[2], int theirs[2])
{
    int pair[2], more[2];
    ours[0] = ours[1] = theirs[0] = theirs[1] = -1;
    switch (m.kind) {
    case PAIR: case FD_SOCKET:
        socket_pair(pair);
        set_small(pair[0]);
        set_small(pair[1]);
        ours[0] = pair[0];
        theirs[0] = theirs[1] = pair[1];
        snprintf(text, size, m.kind == PAIR ? "socket,fd=%d" : "fd,in=%d,out=%d", pair[0], pair[0]);
        break;
    case FDS:
        REQUIRE(pipe(pair) == 0 && pipe(more) == 0);
        ours[0] = pair[0];
        ours[1] = more[1];
        theirs[0] = pair[1];
        theirs[1] = more[0];
        if (plan.setup.small) fcntl(pair[1], F_SETPIPE_SZ, 4096), fcntl(more[1], F_SETPIPE_SZ, 4096);
        snprintf(text, size, "fd,in=%d,out=%d", pair[0], more[1]);
        break;
    case FIFO:
        snprintf(text, size, "pipe,path=%s", scratch("p"));
        theirs[0] = open(scratch("p.in"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
        theirs[1] = open(scratch("p.out"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
        break;
    case FILES:
        unlink(scratch("f.in")), unlink(scratch("f.out")); /* those of a swap before are others */
        REQUIRE(mkfifo(scratch("f.in"), 0600) == 0);
        theirs[0] = open(scratch("f.in"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
        theirs[1] = open(scratch("f.out"), O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
        snprintf(text, size, "file,path=%s,input-path=%s", scratch("f.out"), scratch("f.in"));
        break;
    case SERIAL:
        theirs[0] = theirs[1] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
        REQUIRE(theirs[0] >= 0 && grantpt(theirs[0]) == 0 && unlockpt(theirs[0]) == 0);
        snprintf(text, size, "serial,path=%s", ptsname(theirs[0]));
        break;
    case UDP:
        m.port = 0;
        theirs[0] = theirs[1] = mail_socket(&m.port, 0);
        snprintf(text, size, "udp,host=127.0.0.1,port=%d,localaddr=127.0.0.1,localport=0", m.port);
        break;
    case TCP: snprintf(text, size, "socket,host=127.0.0.1,port=0,nodelay=on"); break;
    case PTY: snprintf(text, size, "pty"); break;
    default:
        snprintf(m.place, sizeof m.place, "chr-model-%d-%s-%d", (int)getpid(), id, m.turn++);
        if (m.kind == CLIENT) m.listener = abstract_socket(0);
        snprintf(text, size, "socket,path=%s,abstract=on,tight=on%s", m.place, m.kind == CLIENT ? ",reconnect-ms=20" : "");
    }
    wrapped_options(text, size, id, &plan.setup, m.kind == SERVER || m.kind == TCP);
}

static void made(const int theirs[2], const char *id)
{
    struct sockaddr_in address;
    chr_info           info;
    if (theirs[0] < 0) return;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (m.kind == UDP) chr_query(chr_find(m.r.ctx, id), &info), address.sin_port = htons((uint16_t)atoi(strrchr(info.address, ':') + 1));
    if (m.kind == UDP) REQUIRE(connect(theirs[0], (struct sockaddr *)&address, sizeof address) == 0);
    greet(far_new(theirs[0], theirs[1], 0));
}

static void make_one(const char *id)
{
    char text[400];
    int  ours[2], theirs[2];
    describe(text, sizeof text, id, ours, theirs);
    TRACE("  %s\n", text);
    make(&m.r, text);
    made(theirs, id);
}

static void make_all(chance *c)
{
    static const char *const members[] = { "b0", "b1" };
    char                     text[200];
    far_side                *f;
    chr_error                err;
    int                      i, fd;
    if (m.tls || plan.setup.tls) secure_creds();
    switch (plan.setup.stack) {
    case ALONE: make_one("d"); return;
    case ON_FAULT:
        make_one("b");
        snprintf(text, sizeof text, "fault,id=d,chardev=b,seed=%u,rate=%d,faults=%s", 1 + below(c, 1 << 20), 5 + below(c, 40),
                 one_in(c, 2) ? "short+block+delay" : "short+block+delay+disconnect+error+break+reorder");
        break;
    case ON_MUX:
        make_one("b");
        snprintf(text, sizeof text, "mux,id=d,chardev=b");
        break;
    case ON_FILTER:
        make_one("b");
        REQUIRE(chr_backend_register(m.r.ctx, &filter_kind, &err) == 0);
        snprintf(text, sizeof text, "turn,id=d,chardev=b");
        break;
    default:
        for (i = 0; i < 2; i++) {
            make_one(members[i]);
            if (m.kind != SERVER) continue;
            fd = abstract_socket(1);
            f = far_new(fd, fd, 1);
            greet(f);
        }
        snprintf(text, sizeof text, "hub,id=d,chardevs.0=b0,chardevs.1=b1");
    }
    make(&m.r, text);
}

/* ---- the frontends ----------------------------------------------------------------------------------------------- */

/* No zeros where they could be mistaken, no IAC in tn3270 (where records are made of them). */
static void any_bytes(chance *c, unsigned char *bytes, size_t len, int is_output)
{
    static const unsigned char special[] = { 255, 255, '\r', '\r', '\n', 0, 240, 1, 250, 253, 127, 128 };
    size_t                     i;
    for (i = 0; i < len; i++) {
        bytes[i] = (unsigned char)(one_in(c, 5) ? special[below(c, (int)sizeof special)] : any(c));
        if (plan.setup.layer == TN3270 && bytes[i] == 255) bytes[i] = 'T';
        if (is_output && (plan.setup.layer == TELNET || plan.setup.layer == COM_PORT) && plan.setup.telnet_answer == 2 && bytes[i] == 0) bytes[i] = '0';
    }
}

/* Bytes that are not offered again may have been sent to a member that was ahead of the whole. */
static void give_up(void)
{
    int i;
    for (i = 0; i < m.far_count && m.concurrent; i++)
        if (m.fars[i].to_sure > m.journal.length) m.fars[i].to_sure = m.journal.length;
}

/* Accepted bytes are in the journal; with history= also those written without a peer. */
static int user_write(user *u, chance *c, int more, int timeout_ms)
{
    unsigned char bytes[MOST_WRITE];
    int           n;
    if (u->is_detached) return 0;
    if (m.kind == UDP && u->pending.length + (size_t)more > MOST_MAIL / 2) more = 0;
    any_bytes(c, bytes, (size_t)more, 1);
    turn(bytes, bytes, (size_t)more);
    tape_put(&u->pending, bytes, (size_t)more);
    if (u->pending.length == 0) return 0;
    if (timeout_ms < 0) n = chr_fe_write(&u->rec.fe, u->pending.bytes, u->pending.length);
    else n = chr_fe_write_all(&u->rec.fe, u->pending.bytes, u->pending.length, timeout_ms);
    TRACE("    write of %d: %d\n", (int)u->pending.length, n);
    CHECK(n <= (int)u->pending.length && (n >= CHR_ERR_IO || (n == CHR_ERR_TIMEOUT && timeout_ms >= 0)) && n != CHR_ERR_INVALID);
    if (timeout_ms < 0) CHECK(n != 0);
    if (n > 0) {
        tape_put(&m.journal, u->pending.bytes, (size_t)n);
        tape_take(&u->pending, (size_t)n);
        tape_put_number(&m.write_ends, m.journal.length);
        take_mail();
    } else if (n == CHR_ERR_DISCONNECTED) {
        if (plan.setup.history) tape_put(&m.journal, u->pending.bytes, u->pending.length);
        else give_up();
        u->pending.length = 0;
    }
    return n;
}

static void opened(void)
{
    int       i;
    far_side *f;
    if (m.is_told_again || (m.swaps && !is_open_now())) return;
    if (!plan.setup.in && plan.setup.stack != ON_MUX) m.last_open = m.journal.length; /* else it may be told late */
    if (m.last_open < m.waiting_open && has_backlog()) m.waiting_open = m.last_open;
    for (i = 0; i < m.far_count && (m.fars[i].is_opened || m.fars[i].is_done); i++) {}
    m.is_early = i == m.far_count;
    if (i == m.far_count) return;
    f = &m.fars[i];
    f->is_done = f->is_cut; /* it may be that of a later one */
    f->is_opened = !f->is_cut;
    if (f->is_cut) return;
    if (m.concurrent || plan.setup.stack == ON_FAULT || plan.setup.in || m.kind == PTY) return;
    f->from_most = m.journal.length;
    if (plan.setup.history) f->from_most = back_from(m.journal.length, (size_t)plan.setup.history);
    if (f->from_most < m.base_most) f->from_most = m.base_most;
}

static int user_number(const recorder *rec) { return rec == &m.users[1].rec; }

static void happened(recorder *rec, int what)
{
    user  *u = &m.users[user_number(rec)], *other = &m.users[!user_number(rec)];
    chance c = chance_of(plan.seed + (uint32_t)m.turn++);
    if (what == 'r') TRACE("    input, %d in all\n", (int)rec->length);
    if (what == 'r' && m.kind == UDP) tape_put_number(&m.read_ends, rec->length * 2 + (rec->room == 0));
    if (what == 'e') TRACE("    event %c\n", recorder_letter(rec->last_event));
    if (strlen(rec->events) > 40) memset(rec->events, 0, sizeof rec->events);
    if (what == 'e' && rec->last_event == CHR_EVENT_OPENED && !other->rec.open) opened();
    if (what == 'e' && rec->last_event == CHR_EVENT_OPENED && plan.setup.banner && m.budget-- > 0) user_write(u, &c, 7, -1);
    if (what == 'r' && plan.setup.echo && m.budget-- > 0) user_write(u, &c, some(&c, 100), -1);
    if (what == 'w') CHECK(u->waits), u->waits = 0;
}

static const chr_handlers pull_handlers = { NULL, NULL, recorder_event, recorder_change };

static void user_listen(user *u)
{
    m.is_told_again = u->has_no_handlers; /* OPENED, which is then no news */
    u->rec.open = u->has_no_handlers = 0;
    chr_fe_set_handlers(&u->rec.fe, plan.setup.pulls ? &pull_handlers : &recorder_handlers, &u->rec);
    m.is_told_again = 0;
}

static void user_attach(user *u)
{
    chr_error err;
    memset(u, 0, sizeof *u);
    u->rec.room = UNLIMITED;
    u->rec.then = happened;
    REQUIRE(chr_fe_init(&u->rec.fe, chr_find(m.r.ctx, "d"), &err) == 0);
    if (plan.setup.in || plan.setup.out) CHECK_INT(chr_fe_set_buffers(&u->rec.fe, (size_t)plan.setup.in, (size_t)plan.setup.out), 0);
    user_listen(u);
}

static void user_pull(user *u, int most)
{
    unsigned char bytes[5000];
    recorder     *rec = &u->rec;
    int           n;
    if (!plan.setup.pulls || u->is_detached || u->has_no_handlers) return;
    n = chr_fe_read(&rec->fe, bytes, (size_t)(most < (int)sizeof bytes ? most : (int)sizeof bytes));
    CHECK(n != 0 && n <= most);
    rec->room = UNLIMITED;
    if (n > 0) m.turn++, recorder_read(rec, bytes, (size_t)n);
}

/* ---- the steps --------------------------------------------------------------------------------------------------- */

static user     *any_user(chance *c) { return &m.users[below(c, m.user_count)]; }
static far_side *any_far(chance *c) { return m.far_count ? &m.fars[m.far_count - 1 - below(c, m.concurrent && m.far_count > 1 ? (m.far_count < MOST_CLIENTS ? m.far_count : MOST_CLIENTS) : 1)] : NULL; }

static void op_write(chance *c) { user_write(any_user(c), c, some(c, MOST_WRITE), -1); }
static void op_write_all(chance *c) { user_write(any_user(c), c, some(c, MOST_WRITE), 0); }

static void op_flush(chance *c)
{
    user *u = any_user(c);
    if (!u->is_detached) CHECK(chr_fe_flush(&u->rec.fe, 0) <= 0);
}

static void op_watch(chance *c)
{
    user *u = any_user(c);
    if (u->is_detached) return;
    u->waits = 1;
    chr_fe_add_watch(&u->rec.fe, recorder_writable, &u->rec);
}

static void run_loop(int steps)
{
    int n = 1;
    for (; steps > 0 && n != 0; steps--) n = chr_loop_step(m.r.ctx, 0);
}

static void op_step(chance *c) { run_loop(1 + below(c, 3)); }

static void op_time(chance *c)
{
    m.r.now += (1 + below(c, 40)) * INT64_C(1000000);
    run_loop(2);
}

static void op_room(chance *c)
{
    user *u = any_user(c);
    u->rec.room = one_in(c, 3) ? UNLIMITED : some(c, 5000);
    if (!u->is_detached) chr_fe_accept_input(&u->rec.fe);
}

static void op_no_room(chance *c) { any_user(c)->rec.room = 0; }
static void op_pull(chance *c) { user_pull(any_user(c), some(c, 5000)); }

/* On a mux the escape character is doubled. */
static void far_say(far_side *f, chance *c, size_t len)
{
    unsigned char bytes[MOST_WRITE], coded[2 * MOST_WRITE];
    size_t        i, n = 0;
    any_bytes(c, bytes, len, 0);
    for (i = 0; i < len; i++) {
        if (f->tag >= 0) bytes[i] = (unsigned char)((bytes[i] & ((1 << TAG_SHIFT) - 1)) | f->tag << TAG_SHIFT);
        if (m.layer == TN3270 && bytes[i] == 255) bytes[i] = 254;
        if (bytes[i] == 1 && plan.setup.stack == ON_MUX) coded[n++] = 1;
        coded[n++] = bytes[i];
    }
    turn(bytes, bytes, len);
    tape_put(&f->sent[m.focus], bytes, len);
    encode(f, c, coded, n);
}

static int far_may_say(const far_side *f)
{
    return f && f->to >= 0 && !f->is_ended && !m.input_is_off && (f->layer != WEBSOCKET || f->is_client || f->has_greeted);
}

static void op_say(chance *c)
{
    far_side *f = any_far(c);
    size_t    len = (size_t)some(c, plan.setup.in && plan.setup.in < 100 ? 1000 : MOST_WRITE);
    if (!far_may_say(f) || (f->is_mail && (m.mail + len > MOST_MAIL || ++m.datagrams > MOST_DATAGRAMS))) return;
    if (f->is_mail && one_in(c, 6)) send(f->to, "", 0, 0); /* nothing comes of an empty one */
    m.mail += len;
    far_say(f, c, len);
    far_flush(f);
    TRACE("    far %d says: %d bytes in all\n", (int)(f - m.fars), (int)(f->sent[0].length + f->sent[1].length));
}

static void op_hear(chance *c)
{
    far_side *f = any_far(c);
    if (!f) return;
    far_hear(f, (size_t)some(c, 8000));
    far_flush(f);
}

static void op_meet(chance *c) { far_meet_over(one_in(c, 2)); }

static size_t mux_most(void) { return plan.setup.out ? (size_t)plan.setup.out * USERS + 1 : 0; }

/* One that goes before the handshake is over has not been there. */
static void end_output(far_side *f)
{
    far_flush(f);
    if (f->is_secure && f->wire.length == 0 && m.turn % 2) secure_notify(f), far_flush(f); /* or it is cut off */
    f->is_ended = 1;
    if (f->sealed.length > 0) f->is_cut = 1;
    if (f->wire.length + f->sealed.length > 0 && plan.setup.stack == ON_MUX) m.input_is_off = 1; /* a change of the focus may be lost */
    f->wire.length = f->sealed.length = 0;
    if ((f->layer == RAW && !f->is_secure) || f->has_greeted) return;
    f->is_cut = 1;
    if (plan.setup.stack == ON_MUX) m.input_is_off = 1;
}

/* Half-close: it sends no more, and still reads. */
static void op_leave(chance *c)
{
    far_side *f = any_far(c);
    if (!f || f->to < 0 || f->is_ended || f->is_cut || m.kind == UDP || m.kind >= SERIAL) return;
    end_output(f);
    f->to_least = back_from(m.journal.length, mux_most());
    if (f->is_socket) shutdown(f->to, SHUT_WR);
    else close(f->to), f->to = -1;
}

/* It goes. */
static void op_close(chance *c)
{
    struct linger hard = { 1, 0 };
    far_side     *f = any_far(c);
    if (!f || f->from < 0) return;
    end_output(f);
    if (m.kind == TCP || m.kind == PTY || m.kind == SERIAL) f->is_excused = 1; /* a reset destroys what is on its way; so does a terminal */
    if (m.kind == TCP && plan.setup.half_close) setsockopt(f->from, SOL_SOCKET, SO_LINGER, &hard, sizeof hard); /* else it only ends */
    if (f->to >= 0 && f->to != f->from) close(f->to);
    close(f->from);
    f->to = f->from = -1;
    f->is_gone = 1;
    if (m.kind == FIFO) f->is_excused = 1;
    if (m.kind == PTY && plan.setup.stack == ON_MUX) m.is_mixed = 1; /* an escape is forgotten where the next one comes */
}

/* Of several whose handshakes go on at the same time, nobody can tell whom OPENED is about. */
static int opens_anytime(const far_side *f) { return m.concurrent && f->is_secure; }

/* Our side ends all present connections, after the output written so far. */
static void cut_all(size_t written, size_t slack)
{
    int i;
    for (i = 0; i < m.far_count; i++) {
        far_side *f = &m.fars[i];
        if (f->may_end && f->to_most != SIZE_MAX) continue;
        f->is_cut = f->may_end = 1;
        if (!f->is_opened || opens_anytime(f)) continue; /* it may be in the backlog still */
        f->to_most = written + (m.concurrent ? m.users[0].pending.length : 0);
        if (f->is_ended || f->is_replaced) continue; /* it may have been over before */
        f->to_least = written > slack ? written - slack : 0;
    }
    if (plan.setup.stack == ON_MUX) m.input_is_off = 1; /* an escape may have been lost */
}

static void op_disconnect(chance *c)
{
    user *u = any_user(c);
    if (u->is_detached || m.kind > TCP) return;
    if (m.kind == CLIENT) far_meet(); /* one in the backlog too */
    if (chr_fe_disconnect(&u->rec.fe) == 0) cut_all(m.journal.length, mux_most());
}

static void op_buffers(chance *c)
{
    user *u = any_user(c);
    int   in = one_in(c, 4) ? 0 : 1 + below(c, 3000), out = one_in(c, 4) ? 0 : 1 + below(c, 3000), code;
    if (u->is_detached || !plan.setup.in || !plan.setup.out) return;
    if (in > 0 || plan.setup.pulls) in += 100;
    if (out > plan.setup.out) out = plan.setup.out;
    code = chr_fe_set_buffers(&u->rec.fe, (size_t)in, (size_t)out);
    CHECK(code == 0 || (code == CHR_ERR_NO_MEMORY && m.r.failed));
}

/* Another backend. Output accepted by the old one is for its far side; input that it has read and not delivered is
 * lost. */
static void change_to(chance *c, int refuses)
{
    char      text[400];
    int       ours[2], theirs[2], code, i;
    int       listener = m.listener;
    char      place[sizeof m.place];
    kind      before = m.kind;
    layer     layer_before = m.layer;
    int       tls_before = m.tls, port = m.port;
    chr_error err;
    user     *u = &m.users[0];
    size_t    written = m.journal.length;
    if (m.kind == CLIENT) far_meet();
    if (plan.setup.stack != ALONE || m.concurrent || u->is_detached || u->has_no_handlers || m.far_count > FARS - 2) return;
    m.kind = (kind)below(c, FIFO);
    m.layer = m.kind <= TCP && !(plan.setup.layer == RAW) ? plan.setup.layer : RAW;
    if (plan.setup.full == DISCONNECT && m.kind > TCP) m.kind = PAIR;
    m.tls = plan.setup.tls && m.kind <= TCP;
    if (m.kind == UDP && fault_plan.error == FAULT_SHORT) fault_disarm();
    m.swaps++;
    strcpy(place, m.place);
    describe(text, sizeof text, "d", ours, theirs);
    u->rec.change_answer = refuses ? -1 : 0;
    for (i = 0; i < m.far_count; i++) m.fars[i].is_done++;
    TRACE("    change to %s\n", text);
    code = chr_change(m.r.ctx, "d", text, &err);
    TRACE("    change: %d\n", code);
    u->rec.change_answer = 0;
    if (m.listener != listener && (code == 0 ? listener : m.listener) >= 0) close(code == 0 ? listener : m.listener);
    if (code == 0) {
        cut_all(m.journal.length, (size_t)plan.setup.out + m.journal.length - written); /* an echo meanwhile is for either */
        m.base = written > (size_t)plan.setup.out ? written - (size_t)plan.setup.out : 0;
        m.base_most = m.journal.length;
        m.last_open = m.base;
        made(theirs, "d");
        if (theirs[0] >= 0) m.fars[m.far_count - 1].from_least = m.base; /* it may have been written to meanwhile */
        return;
    }
    for (i = 0; i < m.far_count; i++) m.fars[i].is_done--;
    CHECK(refuses || m.r.failed || fault_plan.fired);
    if (theirs[0] >= 0) close(theirs[0]);
    if (theirs[1] >= 0 && theirs[1] != theirs[0]) close(theirs[1]);
    if (ours[0] >= 0) close(ours[0]);
    if (ours[1] >= 0) close(ours[1]);
    m.listener = listener;
    strcpy(m.place, place);
    m.kind = before;
    m.layer = layer_before;
    m.tls = tls_before;
    m.port = port;
}

static void op_change(chance *c) { change_to(c, 0); }
static void op_refuse(chance *c) { if (m.kind != CLIENT && m.kind != SERVER) change_to(c, 1); }

/* A system call is interrupted, would block, or is short: no effect is visible. */
static void op_glitch(chance *c)
{
    static const fault_call calls[] = { FAULT_read, FAULT_recv, FAULT_recvmsg, FAULT_write, FAULT_send, FAULT_sendmsg, FAULT_poll };
    static const int        errors[] = { EINTR, EAGAIN, FAULT_SHORT };
    fault_call              call = calls[below(c, 7)];
    int                     error = call == FAULT_poll ? EINTR : errors[below(c, m.kind == UDP ? 2 : 3)]; /* a datagram is not short */
    fault_arm(call, error, 1 + below(c, 3), error != EINTR && one_in(c, 8));
    TRACE("    glitch: call %d, error %d, at %ld\n", (int)call, error, (long)fault_plan.at);
    m.is_hard = call == FAULT_read && error == EAGAIN && plan.setup.layer == WEBSOCKET; /* no random numbers: no key */
}

/* One fails. */
static void op_failure(chance *c)
{
    static const fault_call calls[] = { FAULT_read, FAULT_recv, FAULT_recvmsg, FAULT_write, FAULT_send, FAULT_sendmsg, FAULT_accept,
                                        FAULT_socket, FAULT_connect };
    static const int        errors[] = { EIO, ECONNRESET, EPIPE, ENOBUFS, EMFILE };
    fault_arm(calls[below(c, 9)], errors[below(c, 5)], 1 + below(c, 2), 0);
    m.is_hard = 1;
    if (m.kind == PTY && plan.setup.stack == ON_MUX) m.is_mixed = 1; /* as where it closes and opens */
}

static void op_memory(chance *c) { m.r.fail_at = m.r.calls + 1 + below(c, 3); }

/* The input goes to the next frontend from here on. */
static void op_focus(chance *c)
{
    far_side *f = any_far(c);
    if (plan.setup.stack != ON_MUX || !far_may_say(f)) return;
    if (plan.setup.full == DISCONNECT) return; /* our side may end it before it has read that */
    encode(f, c, (const unsigned char *)"\1c", 2);
    m.focus = !m.focus;
    far_flush(f);
}

static void op_handlers(chance *c)
{
    user *u = any_user(c);
    (void)c;
    if (u->is_detached || plan.setup.stack == ON_MUX) return;
    if (u->has_no_handlers) {
        user_listen(u);
        return;
    }
    chr_fe_set_handlers(&u->rec.fe, NULL, NULL);
    u->has_no_handlers = 1;
    u->rec.open = u->waits = 0;
}

static void op_remove(chance *c)
{
    chr_error err;
    user     *u = &m.users[0];
    if (plan.setup.stack != ALONE || u->is_detached || !one_in(c, 3)) return;
    if (m.kind == CLIENT) far_meet();
    chr_fe_deinit(&u->rec.fe);
    u->is_detached = 1;
    u->waits = 0;
    cut_all(m.journal.length, (size_t)plan.setup.out);
    CHECK_INT(chr_remove(m.r.ctx, "d", &err), 0);
}

/* Something has failed that may end connections at any time. */
static void excuse(void)
{
    int i;
    if (m.kind == CLIENT) far_meet();
    for (i = 0; i < m.far_count; i++) m.fars[i].is_excused = 1;
    if (plan.setup.stack == ON_MUX) m.input_is_off = 1;
}

static void run_step(const step *s)
{
    static void (*const run[])(chance *) = {
#define OPERATION_RUN(name, weight) op_##name,
        OPERATIONS(OPERATION_RUN)
#undef OPERATION_RUN
    };
    chance c = chance_of(s->seed);
    m.r.failed = 0;
    run[s->op](&c);
    if ((m.is_hard && fault_plan.fired) || m.r.failed) excuse();
    if (m.r.failed) m.r.fail_at = 0;
    take_mail();
}

/* ---- rest, and judgement ----------------------------------------------------------------------------------------- */

static int rest_turn(chance *c)
{
    int       i, before = m.turn;
    size_t    journal = m.journal.length;
    far_meet();
    for (i = 0; i < m.far_count; i++) far_flush(&m.fars[i]), far_hear(&m.fars[i], SIZE_MAX);
    for (i = 0; i < m.user_count; i++) user_write(&m.users[i], c, 0, -1), user_pull(&m.users[i], 5000);
    run_loop(4);
    return m.turn != before || m.journal.length != journal;
}

static void come_to_rest(chance *c)
{
    int i, idle = 0, turns = 0, most = m.kind == PTY || m.kind == SERIAL ? 60 : m.kind == TCP || plan.setup.stack == ON_FAULT ? 40 : 8;
    fault_disarm();
    m.r.fail_at = 0;
    m.budget = 20;
    for (i = 0; i < m.user_count; i++) {
        user *u = &m.users[i];
        u->rec.room = UNLIMITED;
        if (u->has_no_handlers) user_listen(u);
        if (!u->is_detached) chr_fe_accept_input(&u->rec.fe);
    }
    for (; idle < most && turns < 20000; turns++) {
        idle = rest_turn(c) ? 0 : idle + 1;
        if (idle) m.r.now += 100 * INT64_C(1000000);
        if (idle && (m.kind == PTY || m.kind == SERIAL)) usleep(200);
    }
    CHECK(turns < 20000);
    for (i = 0; i < 50 && chr_loop_step(m.r.ctx, 0) != 0; i++) {}
    CHECK(i < 50); /* it does not spin */
}

/* Whether the journal has these bytes from there on. What was offered last, and not accepted for all, follows it: of
 * several connections one that has ended may be ahead of the whole. */
static int journal_has(size_t at, const unsigned char *bytes, size_t len)
{
    size_t within = at + len > m.journal.length ? m.journal.length - at : len;
    return (within == 0 || memcmp(m.journal.bytes + at, bytes, within) == 0) &&
           (len == within || memcmp(m.users[0].pending.bytes, bytes + within, len - within) == 0);
}

/* Where its received bytes may begin; SIZE_MAX = nowhere. */
static size_t heard_from(const far_side *f, int is_whole)
{
    size_t n = f->heard.length, end = f->to_most < m.journal.length ? f->to_most : m.journal.length, all = end;
    size_t least = f->from_least, most, at;
    if (m.concurrent && !far_is_live(f)) end = m.journal.length, all = end + m.users[0].pending.length;
    if (n > all) return SIZE_MAX;
    most = f->from_most < end ? f->from_most : end;
    if (most > all - n && f->to_sure == SIZE_MAX) most = all - n;
    if (is_whole && f->to_least <= end && f->to_least > n && f->to_least - n > least) least = f->to_least - n;
    if (is_whole && f->to_most == SIZE_MAX && !(f->is_ended && !plan.setup.half_close && m.kind != FDS) && end > n && end - n > least) least = end - n;
    for (at = least; at <= most; at++) {
        size_t len = at + n > f->to_sure ? f->to_sure > at ? f->to_sure - at : 0 : n;
        if (len == 0 || journal_has(at, f->heard.bytes, len)) return at;
    }
    return SIZE_MAX;
}

/* Bytes are missing here and there. */
static int is_heard_with_gaps(const far_side *f)
{
    size_t at, i = 0;
    for (at = f->from_least; at < m.journal.length && i < f->heard.length; at++) i += m.journal.bytes[at] == f->heard.bytes[i];
    return i == f->heard.length;
}

/* Each received datagram is one write. */
static void judge_datagrams(const far_side *f, size_t at)
{
    size_t i, end;
    for (i = 0; i < f->heard_ends.length; i += sizeof end) {
        memcpy(&end, f->heard_ends.bytes + i, sizeof end);
        if (!CHECK(tape_has_number(&m.write_ends, at + end))) NOTE("a datagram ends at %d", (int)(at + end));
    }
}

static void judge_output(const far_side *f)
{
    int    is_whole = !f->is_gone && !f->is_excused && plan.setup.full != DISCONNECT && (f->lingers || (!f->is_cut && (!f->is_ended || m.kind == FDS))) &&
                      f->is_opened && !opens_anytime(f);
    size_t at;
    if (f->is_excused && (f->state != DATA || m.concurrent)) return; /* a hub goes on without one that fails */
    if (f->kind == PTY && f != m.fars) return; /* what the last one has not read may be there, or history= */
    if (f->kind == PTY && f->is_excused && plan.setup.history) return; /* after a failure the same one is met as the next */
    if (plan.setup.full == DROP || f->is_excused) { /* what is met by a failure is lost */
        CHECK(is_heard_with_gaps(f));
        return;
    }
    at = heard_from(f, is_whole);
    if (!CHECK(at != SIZE_MAX)) {
        for (at = 0; at + 16 < f->heard.length && f->heard.length < m.journal.length; at += f->heard.length / 2) {
            const unsigned char *place = (const unsigned char *)memmem(m.journal.bytes, m.journal.length, f->heard.bytes + at, 16);
            NOTE("what it has heard at %d stands at %d", (int)at, place ? (int)(place - m.journal.bytes) : -1);
        }
        NOTE("connection %d has heard %d bytes of %d, %s from %d..%d to %d..%d", (int)(f - m.fars), (int)f->heard.length, (int)m.journal.length,
             is_whole ? "whole" : "in part", (int)f->from_least, (int)f->from_most, (int)f->to_least, (int)f->to_most);
    }
    if (f->layer == WEBSOCKET && is_whole && !f->is_ended && !f->is_cut) CHECK_INT(f->pongs, f->pings);
    if (f->is_secure && is_whole && f->is_over && !f->is_ended) CHECK(f->is_notified);
    if (f->is_mail && plan.setup.stack == ALONE && !plan.setup.obuf && !plan.setup.history && !plan.setup.out) judge_datagrams(f, at);
}

/* Whether input[at..] is what was sent by the connections from number i on (those of one tag where they come at the
 * same time). */
static int is_sent(const unsigned char *input, size_t len, size_t at, int i, int who, int tag)
{
    const far_side *f;
    size_t          same = 0, least;
    for (; i < m.far_count && m.concurrent && m.fars[i].tag != tag; i++) {}
    if (i >= m.far_count) return at == len;
    f = &m.fars[i];
    while (same < f->sent[who].length && at + same < len && input[at + same] == f->sent[who].bytes[same]) same++;
    least = f->is_cut || f->may_end || f->is_excused ? 0 : f->is_ended ? f->known[who] : f->sent[who].length;
    for (; same + 1 > least; same--) {
        if (is_sent(input, len, at + same, i + 1, who, tag)) return 1;
        if (same == 0) break;
    }
    return 0;
}

static void judge_input(int who)
{
    recorder      *rec = &m.users[who].rec;
    unsigned char *mine = (unsigned char *)malloc(rec->length + 1);
    size_t         i, n;
    int            tag;
    REQUIRE(mine != NULL);
    for (tag = 0; tag < (m.concurrent ? TAGS : 1); tag++) {
        for (i = n = 0; i < rec->length; i++)
            if (!m.concurrent || ((unsigned char)rec->input[i] >> TAG_SHIFT) == tag) mine[n++] = (unsigned char)rec->input[i];
        if (!CHECK(is_sent(mine, n, 0, 0, who, tag))) {
            NOTE("frontend %d has got %d bytes", who, (int)n);
            for (i = 0; i < (size_t)m.far_count; i++)
                NOTE("  connection %d has sent %d, %d for sure%s%s%s", (int)i, (int)m.fars[i].sent[who].length, (int)m.fars[i].known[who],
                     m.fars[i].is_cut ? ", cut" : "", m.fars[i].is_ended ? ", ended" : "", m.fars[i].is_excused ? ", excused" : "");
        }
    }
    free(mine);
}

/* Each read is of one datagram, and of all of it if there was room. */
static void judge_reads(void)
{
    size_t i, end, base = 0;
    int    k;
    for (k = 0; k < m.far_count; base += m.fars[k++].sent[0].length)
        for (i = 0; i < m.fars[k].sent_ends.length; i += sizeof end) {
            memcpy(&end, m.fars[k].sent_ends.bytes + i, sizeof end);
            end = (base + end) * 2;
            CHECK(tape_has_number(&m.read_ends, end) || tape_has_number(&m.read_ends, end + 1));
        }
    for (i = 0; i < m.read_ends.length; i += sizeof end) {
        memcpy(&end, m.read_ends.bytes + i, sizeof end);
        for (base = 0, k = 0; k < m.far_count && !(end % 2) && end / 2 >= base; base += m.fars[k++].sent[0].length)
            end |= (size_t)tape_has_number(&m.fars[k].sent_ends, end / 2 - base);
        if (!CHECK(end % 2)) NOTE("a read ends at %d, and there was room", (int)end / 2);
    }
}

static int reads_are_datagrams(void)
{
    int i;
    for (i = 0; i < m.far_count && !m.fars[i].is_excused && !m.fars[i].is_cut; i++) {}
    return plan.setup.kind == UDP && plan.setup.stack == ALONE && !plan.setup.in && !m.swaps && i == m.far_count;
}

static void judge(void)
{
    int i;
    if (reads_are_datagrams()) judge_reads();
    for (i = 0; i < m.far_count; i++) judge_output(&m.fars[i]);
    for (i = 0; i < m.user_count; i++) {
        if (!m.users[i].is_detached) CHECK(!m.users[i].waits);
        if (!m.is_mixed) judge_input(i);
    }
}

/* ---- one schedule ------------------------------------------------------------------------------------------------ */

enum { MOST_GROWTH = 500000 }; /* what the C library's allocator keeps for later is less; a layer that leaks is more, soon */

/* Of the program, without the context's: what mbed TLS and the C library have. Sanitizers hide it. */
static size_t memory_used(void)
{
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    size_t all = mallinfo2().uordblks; /* 0 with sanitizers */
    return all > m.r.bytes ? all - m.r.bytes : 0;
#else
    return 0;
#endif
}

static void world_close(int fds)
{
    int i;
    for (i = 0; i < m.far_count; i++) {
        far_side *f = &m.fars[i];
        if (f->to >= 0) close(f->to);
        if (f->from >= 0 && f->from != f->to) close(f->from);
        tape_free(&f->sent[0]), tape_free(&f->sent[1]), tape_free(&f->wire), tape_free(&f->raw), tape_free(&f->heard);
        tape_free(&f->sealed), tape_free(&f->unread), tape_free(&f->sent_ends), tape_free(&f->heard_ends);
        if (f->is_secure) secure_end(f);
        f->to = f->from = -1;
        f->is_gone = 1;
    }
    m.budget = 0;
    CHECK_INT(chr_context_reset(m.r.ctx), 0);
    for (i = 0; i < m.user_count; i++) {
        user *u = &m.users[i];
        if (!u->is_detached) CHECK(!u->rec.fe.dev && !u->rec.open);
        free(u->rec.input);
        tape_free(&u->pending);
    }
    tape_free(&m.journal), tape_free(&m.write_ends), tape_free(&m.read_ends);
    if (m.listener >= 0) close(m.listener);
    m.listener = -1;
    CHECK_INT(count_fds(), fds);
    if (m.left_over == 0) m.left_over = (int)m.r.live;
    if (!CHECK(m.r.live <= m.left_over)) NOTE("%ld blocks, not %d", m.r.live, m.left_over);
    if (m.used == 0) m.used = memory_used();
    if (!CHECK(memory_used() <= m.used + MOST_GROWTH)) NOTE("%zu bytes are left, not %zu", memory_used(), m.used);
}

/* All that are there hear what is written then, also those whom no event is about. */
static void last_words(chance *c)
{
    size_t before = m.journal.length, n;
    int    i;
    if (!m.concurrent || plan.setup.full != WAIT || m.users[0].is_detached) return;
    user_write(&m.users[0], c, 5, -1);
    come_to_rest(c);
    n = m.journal.length - before;
    for (i = 0; i < m.far_count && n >= 5; i++) {
        const far_side *f = &m.fars[i];
        if (!far_is_live(f) || f->is_ended || f->is_cut || f->is_excused || f->may_end) continue;
        CHECK(f->heard.length >= 5 && memcmp(f->heard.bytes + f->heard.length - 5, m.journal.bytes + m.journal.length - 5, 5) == 0);
    }
}

static void schedule_run(void)
{
    chance c = chance_of(plan.seed ^ 0x5a5a5a5a);
    int    i, fds = count_fds(), left_over = m.left_over;
    size_t used = m.used;
    rig    r = m.r;
    memset(&m, 0, sizeof m);
    m.waiting_open = SIZE_MAX;
    memset(&fault_plan, 0, sizeof fault_plan);
    m.r = r;
    m.left_over = left_over;
    m.used = used;
    m.listener = -1;
    m.budget = 40;
    m.kind = plan.setup.kind;
    m.layer = plan.setup.layer;
    m.tls = plan.setup.tls;
    m.concurrent = plan.setup.stack == ON_HUB || plan.setup.clients > 1;
    m.user_count = plan.setup.stack == ON_MUX ? 2 : 1;
    m.focus = m.user_count - 1;
    make_all(&c);
    for (i = 0; i < m.user_count; i++) user_attach(&m.users[i]);
    for (i = 0; i < plan.count; i++) {
        if (plan.steps[i].is_left_out) continue;
        TRACE("  %d:\n", i);
        run_step(&plan.steps[i]);
    }
    TRACE("  rest\n");
    come_to_rest(&c);
    last_words(&c);
    judge();
    world_close(fds);
}

/* ---- many of them, in a process that a failure may end ----------------------------------------------------------- */

static struct shared {
    uint32_t seed; /* that runs now */
} *shared;

static unsigned time_limit(void) { return 10 * test_time_scale(); }

/* MODEL_STEPS: the numbers of those that are run. */
static void plan_choose(void)
{
    const char *text = getenv("MODEL_STEPS");
    int         i, chosen[MOST_STEPS] = { 0 };
    if (!text) return;
    for (; *text; text += strspn(text, ", "), text += *text && !strchr("0123456789", *text)) {
        i = (int)strtol(text, (char **)(uintptr_t)&text, 10);
        if (i >= 0 && i < MOST_STEPS) chosen[i] = 1;
    }
    for (i = 0; i < plan.count; i++) plan.steps[i].is_left_out = !chosen[i];
}

/* Runs the schedules of these seeds, or the one that stands in `plan` (last = 0), in this process. Ends at the first
 * that fails. */
static void run_here(uint32_t first, uint32_t last)
{
    uint32_t  seed = first;
    int       fds[2];
    chr_error err;
    test_failures = 0; /* not of those before */
    rig_open_virtual(&m.r);
    make(&m.r, "pty,id=warm"); /* a context keeps the descriptor that watches terminals, and some boxes of layers */
    make(&m.r, "socket,id=up,host=127.0.0.1,port=0,server=on,wait=off,telnet=on");
    socket_pair(fds);
    CHECK_INT(chr_add_client(m.r.ctx, "up", fds[0], &err), 0);
    close(fds[1]);
    CHECK_INT(chr_context_reset(m.r.ctx), 0);
    do {
        shared->seed = seed;
        alarm(time_limit());
        if (last) plan_make(seed), plan_choose();
        TRACE("seed %u\n", seed);
        schedule_run();
        if (test_failures) {
            fflush(stdout);
            _exit(EXIT_FAILURE);
        }
    } while (seed++ < last);
    rig_close(&m.r);
    fflush(stdout);
    scratch_dir[0] = 0;
    _exit(test_failures ? EXIT_FAILURE : EXIT_SUCCESS);
}

/* The same in a child. Returns its status. */
static int run_apart(uint32_t first, uint32_t last, int is_silent)
{
    int   status = 0;
    pid_t pid;
    fflush(stdout);
    pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        if (is_silent) {
            int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
            dup2(null, 1);
            dup2(null, 2);
        }
        run_here(first, last);
    }
    while (waitpid(pid, &status, 0) < 0) {}
    return status;
}

/* Leaves out what it fails without. */
static void shrink(void)
{
    int64_t end = real_ms() + 20000;
    int     size, at, i, out[MOST_STEPS];
    for (size = plan.count; size > 0; size /= 2)
        for (at = 0; at < plan.count && real_ms() < end; at += size) {
            for (i = at; i < at + size && i < plan.count; i++) out[i] = plan.steps[i].is_left_out, plan.steps[i].is_left_out = 1;
            if (run_apart(plan.seed, 0, 1) == 0)
                for (i = at; i < at + size && i < plan.count; i++) plan.steps[i].is_left_out = out[i];
        }
}

static void tell(uint32_t first, uint32_t seed, int status)
{
    plan_make(seed);
    plan_choose();
    CHECK(!"a schedule fails");
    if (WIFSIGNALED(status)) NOTE("signal %d, %s", WTERMSIG(status), strsignal(WTERMSIG(status)));
    plan_print(stdout);
    if (run_apart(seed, 0, 1) == 0) {
        NOTE("it fails behind others only: MODEL_SEEDS=%u-%u", first, seed);
        return;
    }
    shrink();
    NOTE("it fails still with fewer steps:");
    plan_print(stdout);
    (void)run_apart(seed, 0, 0);
}

typedef struct range {
    uint32_t first, last;
} range;

static void schedules(const void *arg)
{
    const range *r = (const range *)arg;
    uint32_t     first = r->first;
    int          failures = 0, status;
    shared = (struct shared *)mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(shared != MAP_FAILED);
    write_file(scratch("keys.psk"), "qemu:30313233343536373839616263646566\n");
    chmod(scratch("keys.psk"), 0600);
    mkfifo(scratch("p.in"), 0600);
    mkfifo(scratch("p.out"), 0600);
    for (; first <= r->last && failures < MOST_FAILURES; first = shared->seed + 1) {
        status = run_apart(first, r->last, 0);
        if (status == 0) break;
        failures++;
        tell(first, shared->seed, status);
    }
    scratch_clean();
}

/* Some each, so that they run side by side where a runner takes parts of the tests. */
TEST_FAMILY(schedules)
{
    static range ranges[FAMILIES];
    const char  *text = getenv("MODEL_SEEDS");
    unsigned     first = 1, last = SEEDS, i, size;
    char         name[80];
    if (text && sscanf(text, "%u-%u", &first, &last) == 1) last = first;
    size = (last - first) / FAMILIES + 1;
    for (i = 0; i < FAMILIES && first <= last; i++, first += size) {
        ranges[i].first = first;
        ranges[i].last = last - first < size ? last : first + size - 1;
        snprintf(name, sizeof name, "schedules_of_seeds_%u_to_%u", ranges[i].first, ranges[i].last);
        test_add_case(name, schedules, &ranges[i], 600);
    }
}

/* ---- what is among them ------------------------------------------------------------------------------------------ */

/* The first 10000, which CI runs as many of as well. */
TEST(every_kind_has_every_layer_stack_and_buffer)
{
    static int by_stack[KINDS][STACKS], by_layer[KINDS][LAYERS][2], by_full[KINDS][3], by_option[KINDS][9], by_operation[KINDS][OPERATION_COUNT];
    static int by_clients[MOST_CLIENTS + 1], replaces;
    const setup *s = &plan.setup;
    uint32_t    seed;
    int         i, k;
    for (seed = 1; seed <= 10000; seed++) {
        int options[9];
        plan_make(seed);
        options[0] = s->history, options[1] = s->in, options[2] = s->out, options[3] = s->pulls, options[4] = s->echo;
        options[5] = s->banner, options[6] = s->small, options[7] = s->in && s->out, options[8] = s->history && s->obuf;
        by_stack[s->kind][s->stack]++;
        by_layer[s->kind][s->layer][s->tls]++;
        by_full[s->kind][s->full] += s->obuf > 0;
        by_clients[s->clients]++;
        replaces += s->replace;
        for (i = 0; i < 9; i++) by_option[s->kind][i] += options[i] > 0;
        for (i = 0; i < plan.count; i++) by_operation[s->kind][plan.steps[i].op]++;
    }
    for (k = 0; k < KINDS; k++) {
        for (i = 0; i < STACKS; i++)
            if (i != ON_HUB || k < CLIENT) CHECK(by_stack[k][i] > 0);
        for (i = 0; i < LAYERS && k <= TCP; i++) CHECK(by_layer[k][i][0] > 0 && (by_layer[k][i][1] > 0 || !HAS_TLS));
        for (i = 0; i < 3; i++)
            if (i != DISCONNECT || k <= TCP) CHECK(by_full[k][i] > 0);
        for (i = 0; i < 9; i++) CHECK(by_option[k][i] > 0);
        for (i = 0; i < OPERATION_COUNT; i++) CHECK(by_operation[k][i] > 0);
    }
    for (i = 1; i <= MOST_CLIENTS; i++) CHECK(by_clients[i] > 0);
    CHECK(replaces > 0);
}

#ifndef CHARDEV_MBEDTLS
TEST(schedules_over_tls) { SKIP("this build has no TLS"); }
#endif
