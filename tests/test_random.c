/*
 * Random lives: for each seed every public function is called, in random order, from outside and from inside every
 * handler and hook, over all backends, with far sides that write, read, stop reading, close and reset, and with system
 * calls and allocations that fail. Checked is what holds whatever happens: how handlers are called, what calls return,
 * that nothing leaks, that the loop comes to rest.
 *
 *     RANDOM_SEED=n build/tests/test_random          one seed;  RANDOM_TRACE=1 prints each operation to stderr
 *     RANDOM_SEEDS=n build/tests/test_random         seeds 1 to n in place of the usual number;  a-b: those
 */
#include "chardev.h"
#include "fault.h"
#include "rig.h"

#if defined(__SANITIZE_ADDRESS__)
enum { SEEDS = 1000 };
#else
enum { SEEDS = 300 };
#endif

enum { USERS = 6, FARS = 24, TERMINALS = 400, THINGS = 3, NEST = 3, OPERATIONS = 500, HANDLED = 600, REST = 400, BATCH = 50 };

/* One set of handlers. It outlives them, so that a call that comes too late is seen. */
typedef struct ticket {
    struct ticket *next;
    int            number, live, open, said; /* said: what can_read answered, less what has come since */
    chr_handlers   has;
} ticket;

typedef struct user {
    chr_frontend *fe; /* freed at once when it is detached: nobody may touch it then */
    ticket       *now;
    int           waits; /* for `writable`, which comes once */
} user;

static struct {
    rig       r;
    uint64_t  random;
    user      users[USERS];
    ticket   *tickets;
    int       far[FARS]; /* descriptors of far sides, listeners among them; -1 = none */
    int       terminals[TERMINALS], terminal_count; /* slaves of ptys that chardevs were made on */
    int       given[32], givens, given_before; /* to the call under way; to those around it */
    int       port;
    int       depth;     /* handlers that run */
    int       calm;      /* the call under way calls no handler before it returns */
    int       locked;
    int       budget;    /* how many operations handlers may still do */
    int       progress;  /* handler calls and bytes at the far sides */
    const char *doing;
    int       counts[64];
    chr_watch watches[THINGS];
    chr_timer timers[THINGS];
    chr_idle  idles[THINGS];
    int       pipes[THINGS][2];
    chr_dev  *probes[8]; /* the user's own backend */
} w;

/* ---- chance ------------------------------------------------------------------------------------------------------ */

static uint32_t any(void)
{
    w.random ^= w.random << 13;
    w.random ^= w.random >> 7;
    w.random ^= w.random << 17;
    return (uint32_t)(w.random >> 16);
}

static int is_code(int n) { return n >= CHR_ERR_STOPPED && n != CHR_ERR_HELP; }

static int below(int n) { return (int)(any() % (uint32_t)n); }

static int one_in(int n) { return below(n) == 0; }

static const char *text_of(char *text, int len)
{
    static const char *const words[] = {
        "\1h", "\1c", "\1b", "\1t", "\1s", "\1x", "\1\1", "\1", "3q", "\377\373\1", "\377\375\54", "\377\372\54\5\7\377\360", "\377\361", "\377\377",
        "~#", "\33\204", "\33\1abc", "\33\5", "a\r\nb",
        ("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: binary\r\n\r\n"),
        "\202\205abcdxyzuv", "\210\202abcdbk", "\211\200abcd", "HTTP/1.1 101 x\r\n\r\n",
    };
    int used = 0, n;
    while (used < len) {
        const char *word = words[below((int)(sizeof words / sizeof *words))];
        n = one_in(3) ? snprintf(text + used, (size_t)(len - used), "%s", word) : snprintf(text + used, (size_t)(len - used), "%u", any());
        used += n < len - used ? n : len - used;
        if (one_in(3)) break;
    }
    text[used] = 0;
    return text;
}

/* Mostly one that is there. The text is good for a while. */
static const char *any_id(void)
{
    static const char *const ids[] = { "a", "b", "c", "d", "e", "f", "g", "a-base", "nobody", "" };
    static char              texts[16][140];
    static int               turn;
    const char              *id = ids[below(one_in(6) ? 10 : 7)];
    chr_dev                 *dev = NULL;
    int                      n;
    if (!one_in(4))
        for (n = below(8); n >= 0 && (dev = chr_next(w.r.ctx, dev)) != NULL; n--) id = dev->id;
    turn = (turn + 1) % 16;
    snprintf(texts[turn], sizeof texts[turn], "%s", id);
    return texts[turn];
}

/* One that is not there, as a rule. */
static const char *new_id(void)
{
    static char id[2] = "a";
    if (one_in(10)) return any_id();
    for (id[0] = 'a'; id[0] < 'h' && chr_find(w.r.ctx, id); id[0]++) {}
    return id;
}

static chr_dev *any_dev(void) { return chr_find(w.r.ctx, any_id()); }

static chr_frontend *any_fe(void)
{
    int i = below(USERS), n;
    for (n = 0; n < USERS && !w.users[i].fe; n++) i = (i + 1) % USERS;
    return w.users[i].fe;
}

/* ---- handlers: each checks that it may be called, and does a few operations -------------------------------------- */

static void operate(int count);

static void act(void)
{
    const char *doing = w.doing;
    int         calm = w.calm, before = w.given_before;
    w.progress++;
    if (w.depth >= NEST || w.budget <= 0 || one_in(3)) return;
    w.depth++;
    w.given_before = w.givens;
    operate(1 + below(3));
    w.given_before = before;
    w.depth--;
    w.calm = calm;
    w.doing = doing;
}

static const char *kind_of(const ticket *t)
{
    int i;
    for (i = 0; i < USERS; i++)
        if (w.users[i].now == t && w.users[i].fe && w.users[i].fe->dev) return w.users[i].fe->dev->kind->name;
    return "none";
}

static void called(const ticket *t, int has, const char *handler)
{
    if (getenv("RANDOM_TRACE")) fprintf(stderr, "HANDLER %s of set %d: %s\n", handler, t->number, kind_of(t));
    if (!CHECK(t->live) || !CHECK(has) || !CHECK(!w.calm)) NOTE("%s of set %d came during %s", handler, t->number, w.doing);
}

static int on_can_read(void *opaque)
{
    ticket *t = (ticket *)opaque;
    int     calm = w.calm;
    w.calm = 0; /* it is no event: it may be asked at any time */
    called(t, t->has.can_read != NULL, "can_read");
    if (one_in(4)) act();
    w.calm = calm;
    return t->said = w.budget <= 0 ? 1 << 20 : one_in(4) ? 0 : below(80);
}

static void on_read(void *opaque, const void *buf, size_t len)
{
    ticket *t = (ticket *)opaque;
    called(t, t->has.read != NULL, "read");
    CHECK(len > 0);
    CHECK(((const char *)buf)[len - 1] + 1000 > 0);
    if (t->has.can_read && !CHECK(len <= (size_t)t->said)) NOTE("%d bytes for a room of %d, during %s: %s", (int)len, t->said, w.doing, kind_of(t));
    t->said -= (int)len;
    act();
}

static void on_event(void *opaque, int event)
{
    ticket *t = (ticket *)opaque;
    called(t, t->has.event != NULL, "event");
    if (getenv("RANDOM_TRACE")) fprintf(stderr, "  event %d\n", event);
    if (event == CHR_EVENT_OPENED || event == CHR_EVENT_CLOSED) {
        if (!CHECK_INT(t->open, event == CHR_EVENT_CLOSED)) NOTE("set %d gets %s twice, during %s", t->number, event == CHR_EVENT_CLOSED ? "CLOSED" : "OPENED", w.doing);
        t->open = event == CHR_EVENT_OPENED;
    }
    act();
}

static int on_change(void *opaque)
{
    ticket *t = (ticket *)opaque;
    called(t, t->has.change != NULL, "change");
    act();
    return one_in(3) ? -1 : 0;
}

static void on_writable(void *opaque)
{
    user *u = (user *)opaque;
    CHECK(u->fe && u->waits && !w.calm);
    u->waits = 0;
    act();
}

static void on_ready(void *opaque, int events)
{
    int  i = (int)((chr_watch *)opaque - w.watches);
    char text[64];
    CHECK(events != 0 && !w.calm);
    if (read(w.pipes[i][0], text, sizeof text) == 0 || w.budget <= 0) chr_watch_stop(&w.watches[i]);
    act();
}

static void on_time(void *opaque)
{
    (void)opaque;
    CHECK(!w.calm);
    act();
}

static void on_exit_hook(void *opaque, int code)
{
    (void)opaque, (void)code;
    act();
}

static void on_snapshot(void *opaque) { on_exit_hook(opaque, 0); }

/* A log line may come in the middle of anything: what is done there is a write to a monitor. */
static void on_log(void *opaque, const char *line)
{
    chr_frontend *fe = any_fe();
    (void)opaque;
    CHECK(line[0] && !strchr(line, '\n'));
    if (fe && w.depth < NEST && w.budget-- > 0) (void)fe->dev;
}

/* ---- a backend of the user's: takes what it likes, and is brought events by an idle and by operations ------------ */

typedef struct probe {
    chr_dev  dev;
    chr_idle idle;
} probe;

static void probe_run(void *opaque)
{
    probe        *p = (probe *)opaque;
    unsigned char bytes[64] = "input of the probe \1c and \1\1";
    int           room = one_in(2) && p->dev.be_open ? chr_be_can_write(&p->dev) : 0;
    if (!p->dev.removed && room > 0) chr_be_write(&p->dev, bytes, (size_t)(room < 30 ? room : 30));
    if (!p->dev.removed && chr_be_wants_writable(&p->dev)) chr_be_writable(&p->dev);
    if (!p->dev.removed && w.budget > 0 && one_in(3))
        chr_be_event(&p->dev, one_in(2) ? 77 : p->dev.be_open ? CHR_EVENT_CLOSED : CHR_EVENT_OPENED);
}

static int probe_open(chr_dev *dev, chr_error *err)
{
    int i;
    for (i = 0; i < 8 && w.probes[i]; i++) {}
    if (i == 8) return (void)err, CHR_ERR_BUSY;
    w.probes[i] = dev;
    if (!one_in(4)) chr_be_event(dev, CHR_EVENT_OPENED);
    return one_in(8) ? CHR_ERR_IO : 0;
}

static void probe_close(chr_dev *dev)
{
    int i;
    for (i = 0; i < 8; i++)
        if (w.probes[i] == dev) w.probes[i] = NULL;
    chr_idle_stop(&((probe *)dev)->idle);
}

static int probe_write(chr_dev *dev, const void *buf, size_t len)
{
    (void)buf;
    if (!dev->be_open) return CHR_ERR_DISCONNECTED;
    return one_in(3) ? (one_in(4) ? CHR_ERR_IO : CHR_ERR_WOULD_BLOCK) : 1 + below((int)len);
}

static int probe_read(chr_dev *dev, void *buf, size_t len)
{
    (void)dev;
    memset(buf, 'r', len);
    return one_in(3) ? CHR_ERR_WOULD_BLOCK : 1 + below((int)len);
}

static void probe_update(chr_dev *dev)
{
    if (!dev->removed && (w.budget > 0 || chr_be_wants_writable(dev))) chr_idle_start(dev->ctx, &((probe *)dev)->idle, probe_run, dev);
}

CHR_TABLE(chr_io, probe_io,
    CHR_SET(write,  probe_write)
    CHR_SET(read,   probe_read)
    CHR_SET(update, probe_update));
CHR_TABLE(chr_backend, probe_kind,
    CHR_SET(name,         "probe")
    CHR_SET(help,         "the test is the far side")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(probe))
    CHR_SET(open,         probe_open)
    CHR_SET(close,        probe_close)
    CHR_SET(io,           &probe_io));

static int display_size(void *opaque) { return (void)opaque, below(90); }

static void display_write(void *opaque, const unsigned char *cells, const char *text, int count, int cursor)
{
    (void)opaque, (void)cells, (void)text;
    CHECK(count > 0 && count <= 84 && cursor >= 0 && cursor <= count);
    act();
}

/* ---- far sides --------------------------------------------------------------------------------------------------- */

static void keep_far(int fd)
{
    int i = below(FARS), n;
    if (fd < 0) return;
    for (n = 0; n < FARS && w.far[i] >= 0; n++) i = (i + 1) % FARS;
    if (w.far[i] >= 0) close(w.far[i]);
    fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
    w.far[i] = fd;
}

static int give(int fd)
{
    REQUIRE(w.givens < 32);
    return w.given[w.givens++] = fd;
}

/* The library must not raise SIGPIPE. */
static void broken_pipe(int number)
{
    (void)number;
    abort();
}

static void far_write(int fd)
{
    static char text[40000];
    int         len = one_in(10) ? below((int)sizeof text) : (int)strlen(text_of(text, 1 + below(200)));
    signal(SIGPIPE, SIG_IGN);
    if (write(fd, text, (size_t)len) > 0) w.progress++;
    signal(SIGPIPE, broken_pipe);
}

static void far_reset(int fd)
{
    struct linger hard = { 1, 0 };
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
}

static void far_act(void)
{
    char text[3000];
    int  i = below(FARS), fd = w.far[i], n;
    if (fd < 0) return;
    while ((n = accept(fd, NULL, NULL)) >= 0) keep_far(n);
    switch (below(24)) {
    case 0: close(fd); w.far[i] = -1; return;
    case 1: far_reset(fd); w.far[i] = -1; return;
    case 2: shutdown(fd, below(3)); return;
    case 3: case 4: case 5: case 6: case 7: if (read(fd, text, sizeof text) > 0) w.progress++; return;
    default: far_write(fd);
    }
}

static void op_far(void)
{
    int n;
    for (n = below(FARS); n > 0; n--) far_act();
}

/* Does not wait if the backlog is full: nothing accepts meanwhile. */
static int meet_unix(const char *path)
{
    struct sockaddr_un address;
    int                fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    if (fd >= 0) close(fd);
    return -1;
}

/* The far side connects, at the address that chr_query() returns. */
static void op_meet(void)
{
    chr_dev    *dev = any_dev();
    chr_info    info;
    const char *at;
    if (!dev) return;
    chr_query(dev, &info);
    CHECK_STR(info.id, dev->id);
    if ((at = strstr(info.filename, "/dev/pts/")) != NULL) keep_far(open(at, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    else if (strncmp(info.address, "127.0.0.1:", 10) == 0) keep_far(tcp_connect(atoi(info.address + 10)));
    else if (strncmp(info.backend, "socket", 6) == 0) keep_far(meet_unix(scratch(one_in(2) ? "u0" : "u1")));
    w.progress++;
}

/* ---- chardevs ---------------------------------------------------------------------------------------------------- */

/* $p a file, $u a unix socket's path, $s a connected socket, $l a listening one, $r $w the ends of pipes, $t a
 * terminal, $P named pipes, $n a port that is listened on, $d the id of another chardev, $N a name for a descriptor
 * that chr_fd_put() may have given. */
static const char *const device_texts[] = {
    "null", "ringbuf,size=64", "ringbuf,size=60", "testdev", "msmouse", "wctablet", "braille", "probe", "probe", "probe", "mux,chardev=$d",
    "fault,chardev=$d,seed=9,rate=40", "fault,chardev=$d,faults=short+block+delay", "script,text=send \"hello\"; break; wait 9ms",
    "script,exit=off,text=expect \"a\" within 2s; send \"x\"; close; wait 1ms; open; reject \"zz\"; send \"y\"; eof; expect \"b\"",
    "mux,chardev=$d,escape=3", "hub,chardevs.0=$d,chardevs.1=$d", "hub,chardevs.0=$d", "fd,in=$r,out=$w", "fd,in=$s", "fd,out=$w", "file,path=$p",
    "file,path=$p,append=on,input-path=$p", "pipe,path=$P", "pty", "pty,path=$p", "stdio", "stdio,signal=off", "serial,path=$t",
    "serial,path=$t,reconnect-ms=5", "udp,host=127.0.0.1,port=$n,localaddr=127.0.0.1,localport=0", "socket,fd=$s", "socket,fd=$s", "socket,fd=$s",
    "socket,fd=$l,server=on,wait=off", "socket,path=$u,server=on,wait=off", "socket,path=$u,server=on,wait=off", "socket,path=$u,reconnect-ms=7",
    "socket,path=$u", "socket,host=127.0.0.1,port=0,server=on,wait=off,nodelay=on", "socket,host=127.0.0.1,port=$n",
    "socket,host=127.0.0.1,port=$n,reconnect-ms=3", "socket,fd=$N", "socket,path=$u,server=on,wait=off,tls-creds=t", "parallel,path=$p",
    "spicevmc,name=x", "nothing", "socket", "null,help", "help",
};
static const char *const extra_texts[] = { ",history=32", ",obuf=64", ",obuf=64,history=16", ",logfile=$p", ",logfile=$p,logtimestamp=on,logappend=on",
                                           ",logfile=/dev/full", ",mux=on", ",mux=on,obuf=99", ",nonsense=1" };
static const char *const layer_texts[] = { ",telnet=on", ",telnet=on,com-port=on", ",tn3270=on", ",websocket=on", ",websocket=on,websocket-text=on",
                                           ",half-close=on", ",keep-alive=on", ",idle-timeout=1", ",replace=on", ",websocket=on,half-close=on" };

/* A chardev opens its terminal by name again and again: as long as it may, no other program gets the number. */
static void keep_terminal(const char *name)
{
    int fd = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    REQUIRE(fd >= 0 && w.terminal_count < TERMINALS);
    w.terminals[w.terminal_count++] = fd;
}

static void fill_in(char *out, size_t size, char what)
{
    int fds[2];
    switch (what) {
    case 'p': snprintf(out, size, "%s", scratch(one_in(2) ? "f0" : "f1")); break;
    case 'u': snprintf(out, size, "%s", scratch(one_in(2) ? "u0" : "u1")); break;
    case 'P': snprintf(out, size, "%s", scratch("fifo")); break;
    case 's': socket_pair(fds); keep_far(fds[1]); snprintf(out, size, "%d", give(fds[0])); break;
    case 'l': unlink(scratch("u1")); snprintf(out, size, "%d", give(unix_listen(scratch("u1")))); break;
    case 'r': REQUIRE(pipe(fds) == 0); keep_far(fds[1]); snprintf(out, size, "%d", give(fds[0])); break;
    case 'w': REQUIRE(pipe(fds) == 0); keep_far(fds[0]); snprintf(out, size, "%d", give(fds[1])); break;
    case 't': fds[0] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
              REQUIRE(fds[0] >= 0 && grantpt(fds[0]) == 0 && unlockpt(fds[0]) == 0 && ptsname_r(fds[0], out, size) == 0);
              keep_far(fds[0]);
              keep_terminal(out);
              break;
    case 'n': snprintf(out, size, "%d", w.port); break;
    case 'N': snprintf(out, size, "name"); break;
    default:  snprintf(out, size, "%s", any_id()); break;
    }
}

static const char *any_text(char *text, size_t size, const char *id)
{
    char        pattern[300];
    const char *p;
    size_t      used;
    snprintf(pattern, sizeof pattern, "%s", device_texts[below((int)(sizeof device_texts / sizeof *device_texts))]);
    if (strncmp(pattern, "socket,", 7) == 0 && one_in(2)) strcat(pattern, layer_texts[below(10)]);
    if (one_in(2)) strcat(pattern, extra_texts[below(9)]);
    used = (size_t)snprintf(text, size, "%.*s%s%s%s", (int)strcspn(pattern, ","), pattern, id ? ",id=" : "", id ? id : "", "");
    for (p = pattern + strcspn(pattern, ","); *p; p++)
        if (*p == '$') {
            fill_in(text + used, size - used, *++p);
            used += strlen(text + used);
        } else {
            text[used++] = *p;
            text[used] = 0;
        }
    return text;
}

/* A code that is an error has its text; what was given and not taken is still open, and ours. */
static void told(int code, const chr_error *err)
{
    CHECK(code <= 0 && code >= CHR_ERR_NO_SPACE);
    if (code < 0 && (!CHECK_INT(err->code, code) || !CHECK(err->text[0]) || !CHECK(!strchr(err->text, '\n')))) NOTE("%s: \"%s\"", w.doing, err->text);
    for (; w.givens > w.given_before; w.givens--)
        if (code < 0 && CHECK(fcntl(w.given[w.givens - 1], F_GETFD) >= 0)) close(w.given[w.givens - 1]);
}

static void op_new(void)
{
    char      text[600];
    chr_error err = { 0, "" };
    int       remote = one_in(20);
    chr_dev  *dev;
    any_text(text, sizeof text, new_id());
    dev = remote ? chr_new_from(w.r.ctx, CHR_REMOTE, text, &err) : chr_new(w.r.ctx, text, &err);
    told(dev ? 0 : err.code, &err);
    if (!dev && !CHECK(err.code < 0)) NOTE("%s", text);
}

static void op_open(void)
{
    static const chr_braille_display display = { display_size, display_write };
    const chr_backend               *kind = chr_backend_next(w.r.ctx, NULL);
    chr_braille_options              braille;
    chr_error                        err = { 0, "" };
    int                              n;
    for (n = below(4); n > 0 && kind; n--) kind = chr_backend_next(w.r.ctx, kind);
    memset(&braille, 0, sizeof braille);
    braille.display = &display;
    if (one_in(2)) told(chr_open(w.r.ctx, new_id(), chr_backend_find(w.r.ctx, "braille"), &braille, &err) ? 0 : err.code, &err);
    else told(chr_open(w.r.ctx, new_id(), one_in(2) ? kind : &probe_kind, NULL, &err) ? 0 : err.code, &err);
}

static void op_uri(void)
{
    static const char *const uris[] = { "null", "pty", "stdio", "mon:stdio", "mon:pty", "tcp:127.0.0.1:0,server=on,wait=off", "chardev:a", "chardev:no",
                                        "telnet:127.0.0.1:0,server=on,wait=off", "websocket:127.0.0.1:0,server=on,wait=off", "udp:127.0.0.1:9@127.0.0.1:0",
                                        "vc", "none", "file:", "tcp:", "", "x:y", "pty,history=16", "stdio,signal=off", "help" };
    const char *uri = uris[below((int)(sizeof uris / sizeof *uris))];
    chr_error   err = { 0, "" };
    told((one_in(2) ? chr_new_uri(w.r.ctx, new_id(), uri, &err) : chr_new_any(w.r.ctx, new_id(), uri, &err)) ? 0 : err.code, &err);
}

static void op_remove(void)
{
    chr_error   err = { 0, "" };
    const char *id = any_id();
    chr_dev    *dev = chr_find(w.r.ctx, id);
    int         busy = dev && dev->frontends > 0, code = chr_remove(w.r.ctx, id, &err);
    CHECK_INT(code, !dev ? CHR_ERR_NOT_FOUND : busy ? CHR_ERR_BUSY : 0);
    told(code, &err);
}

static void op_change(void)
{
    char      text[600];
    chr_error err = { 0, "" };
    any_text(text, sizeof text, one_in(4) ? any_id() : NULL);
    told(chr_change(w.r.ctx, any_id(), text, &err), &err);
}

static void op_break(void)
{
    chr_error err = { 0, "" };
    told(chr_send_break(w.r.ctx, any_id(), &err), &err);
}

static void op_add_client(void)
{
    chr_error err = { 0, "" };
    int       fds[2];
    socket_pair(fds);
    keep_far(fds[1]);
    told(chr_add_client(w.r.ctx, any_id(), give(fds[0]), &err), &err);
}

static void op_wait_connected(void)
{
    chr_dev  *dev = any_dev();
    chr_error err = { 0, "" };
    chr_frontend *fe = any_fe();
    if (w.depth == 0) return; /* it would block: who is to come? */
    if (dev) told(chr_wait_connected(dev, &err), &err);
    if (fe) told(chr_fe_wait_connected(fe, &err), &err);
}

static void op_walk(void)
{
    chr_dev *dev, *other;
    chr_info info;
    for (dev = chr_next(w.r.ctx, NULL); dev; dev = chr_next(w.r.ctx, dev)) {
        chr_query(dev, &info);
        CHECK(info.filename[0] && !dev->removed && info.be_open == (dev->be_open != 0));
        CHECK(chr_find(w.r.ctx, dev->id) == dev);
        for (other = chr_next(w.r.ctx, dev); other; other = chr_next(w.r.ctx, other)) CHECK(strcmp(dev->id, other->id) != 0);
    }
}

/* ---- frontends --------------------------------------------------------------------------------------------------- */

static void set_handlers(user *u)
{
    ticket *t = (ticket *)calloc(1, sizeof *t);
    REQUIRE(t != NULL);
    if (!one_in(6)) t->has.can_read = on_can_read;
    if (!one_in(6)) t->has.read = on_read;
    if (!one_in(6)) t->has.event = on_event;
    if (!one_in(3)) t->has.change = on_change;
    t->number = w.tickets ? w.tickets->number + 1 : 1;
    t->next = w.tickets;
    w.tickets = t;
    if (u->now) u->now->live = 0;
    u->now = t;
    t->live = 1;
    if (one_in(8)) t->live = 0;
    chr_fe_set_handlers(u->fe, t->live ? &t->has : NULL, t);
}

static void op_set_handlers(void)
{
    user *u = &w.users[below(USERS)];
    if (u->fe) set_handlers(u);
}

static void op_attach(void)
{
    user     *u = &w.users[below(USERS)];
    chr_error err = { 0, "" };
    chr_dev  *dev = any_dev();
    int       code;
    if (u->fe) {
        chr_dev *before = u->fe->dev;
        if (!before) return;
        CHECK_INT(chr_fe_init(u->fe, dev ? dev : before, &err), CHR_ERR_BUSY); /* attached already: nothing changes */
        CHECK(u->fe->dev == before);
        return;
    }
    u->fe = (chr_frontend *)calloc(1, sizeof *u->fe);
    REQUIRE(u->fe != NULL);
    code = chr_fe_init(u->fe, dev, &err);
    told(code, &err);
    if (code == 0) {
        set_handlers(u);
        return;
    }
    free(u->fe);
    u->fe = NULL;
}

static void detach_user(user *u)
{
    chr_frontend *fe = u->fe;
    if (!fe) return;
    u->fe = NULL;
    if (u->now) u->now->live = 0;
    u->now = NULL;
    u->waits = 0;
    chr_fe_deinit(fe);
    CHECK(fe->dev == NULL);
    chr_fe_deinit(fe);
    free(fe);
}

static void op_detach(void) { detach_user(&w.users[below(USERS)]); }

/* The calls of one frontend. */
static void sent(int n, int len) { CHECK(n <= len && is_code(n)); }

static void op_write(void)
{
    static char   text[100000];
    chr_frontend *fe = any_fe();
    int           len = one_in(8) ? below((int)sizeof text) : (int)strlen(text_of(text, 1 + below(100)));
    if (fe) sent(chr_fe_write(fe, text, (size_t)len), len);
}

static void op_write_all(void)
{
    char          text[300];
    chr_frontend *fe = any_fe();
    int           n, in_handler = w.depth > 0;
    if (!fe) return;
    n = chr_fe_write_all(fe, text_of(text, 250), 100, below(2));
    sent(n, 100);
    if (in_handler) CHECK(n == CHR_ERR_IN_HANDLER || n == CHR_ERR_DISCONNECTED);
}

static void op_read_all(void)
{
    char          text[300];
    chr_frontend *fe = any_fe();
    if (fe) sent(chr_fe_read_all(fe, text, (size_t)below(300), below(2)), 300);
}

static void op_printf(void)
{
    chr_frontend *fe = any_fe();
    int           width = one_in(2) ? 10 : 700;
    if (fe) sent(chr_fe_printf(fe, "%*d", width, 5), width);
}

static void op_accept_input(void)
{
    chr_frontend *fe = any_fe();
    if (fe) chr_fe_accept_input(fe);
}

static void op_add_watch(void)
{
    user *u = &w.users[below(USERS)];
    if (!u->fe) return;
    u->waits = !one_in(5);
    chr_fe_add_watch(u->fe, u->waits ? on_writable : NULL, u);
}

static void op_ioctl(void)
{
    static const int commands[] = { 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 40, 99 };
    int              command = commands[below(20)], code;
    unsigned char    bytes[8] = { 0 };
    union { chr_serial_params params; chr_parallel_epp epp; chr_terminal_size size; int number; } arg;
    chr_frontend    *fe = any_fe();
    chr_serial_params params = { one_in(5) ? 0 : 9600, 'N', 8, 1 };
    memset(&arg, 0, sizeof arg);
    arg.number = below(10);
    if (command == CHR_IOCTL_SERIAL_SET_PARAMS) arg.params = params;
    if (command >= CHR_IOCTL_PP_EPP_READ_ADDRESS && command <= CHR_IOCTL_PP_EPP_WRITE) arg.epp.buf = bytes, arg.epp.count = 8;
    if (!fe) return;
    code = one_in(9) ? chr_fe_set_echo(fe, below(2)) : chr_fe_ioctl(fe, command, &arg);
    CHECK(code <= 0 && is_code(code));
}

static void op_msgfds(void)
{
    chr_frontend *fe = any_fe();
    int           fds[16] = { 2, 2, 2 }, n;
    if (!fe) return;
    n = chr_fe_set_msgfds(fe, fds, below(4));
    CHECK(n <= 0 && is_code(n));
    n = chr_fe_get_msgfds(fe, fds, 16);
    CHECK(n <= 16 && is_code(n));
    while (n > 0) close(fds[--n]);
}

static void op_set_open(void)
{
    chr_frontend *fe = any_fe();
    if (fe) chr_fe_set_open(fe, below(2));
}

static void op_focus(void)
{
    chr_frontend *fe = any_fe();
    if (fe) chr_fe_take_focus(fe);
}

static void op_disconnect(void)
{
    chr_frontend *fe = any_fe();
    int           code = !fe ? 0 : one_in(3) ? chr_fe_shutdown(fe) : chr_fe_disconnect(fe);
    CHECK(code <= 0 && is_code(code));
    if (fe) CHECK(chr_fe_backend_open(fe) == (fe->dev && fe->dev->be_open));
}

static void op_buffers(void)
{
    static unsigned char memory[USERS][CHR_BUFFERS_MEMORY(64, 64)];
    user                *u = &w.users[below(USERS)];
    size_t               in = one_in(4) ? 0 : (size_t)below(one_in(4) ? 5000 : 64), out = one_in(4) ? 0 : (size_t)below(one_in(4) ? 5000 : 64);
    int                  code;
    if (!u->fe) return;
    code = one_in(5) && in <= 64 && out <= 64 ? chr_fe_set_buffers_at(u->fe, memory[u - w.users], in, out) : chr_fe_set_buffers(u->fe, in, out);
    CHECK(code <= 0 && is_code(code));
}

static void op_pull(void)
{
    char          bytes[100];
    chr_frontend *fe = any_fe();
    int           len = below(100), readable, writable, n;
    if (!fe) return;
    readable = chr_fe_readable(fe);
    n = chr_fe_read(fe, bytes, (size_t)len);
    if (readable > 0) CHECK_INT(n, readable < len ? readable : len);
    else CHECK(n < 0 && is_code(n));
    writable = chr_fe_writable(fe);
    CHECK(is_code(writable));
    if (writable > 0 && fe->dev) {
        n = chr_fe_write(fe, bytes, (size_t)(writable < len ? writable : len));
        CHECK(n < 0 ? is_code(n) : n == (writable < len ? writable : len));
    }
    if (one_in(4)) n = chr_fe_flush(fe, below(2));
    CHECK(is_code(n));
}

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

static void op_step(void)
{
    int in_handler = w.depth > 0, n = chr_loop_step(w.r.ctx, 0);
    if (in_handler) CHECK_INT(n, CHR_ERR_IN_HANDLER);
    else CHECK(is_code(n));
}

static void op_run(void)
{
    int in_handler = w.depth > 0, n;
    chr_loop_stop(w.r.ctx);
    n = chr_loop_run(w.r.ctx);
    CHECK_INT(n, in_handler ? CHR_ERR_IN_HANDLER : 0);
}

/* As a foreign loop does it. */
static void op_dispatch(void)
{
    chr_poll      polls[64];
    struct pollfd fds[64];
    int           i, n, timeout, count = chr_loop_prepare(w.r.ctx, polls, 64, &timeout), in_handler = w.depth > 0;
    count = count < 64 ? count : 64;
    for (i = 0; i < count; i++) {
        fds[i].fd = polls[i].fd;
        fds[i].events = (short)((polls[i].events & CHR_IN ? POLLIN : 0) | (polls[i].events & CHR_OUT ? POLLOUT : 0));
        fds[i].revents = 0;
    }
    CHECK(timeout >= -1);
    (void)poll(fds, (nfds_t)count, 0);
    for (i = 0; i < count; i++)
        polls[i].events = (fds[i].revents & POLLIN ? CHR_IN : 0) | (fds[i].revents & POLLOUT ? CHR_OUT : 0) | (fds[i].revents & (POLLHUP | POLLERR) ? CHR_HUP : 0);
    n = chr_loop_dispatch(w.r.ctx, polls, count);
    if (in_handler) CHECK_INT(n, CHR_ERR_IN_HANDLER);
    else CHECK(n >= 0 || n == CHR_ERR_STOPPED);
}

static void op_drain(void)
{
    int in_handler = w.depth > 0, n = chr_drain(w.r.ctx, below(2));
    if (in_handler) CHECK_INT(n, CHR_ERR_IN_HANDLER);
    else CHECK(n <= 0 && is_code(n));
    n = chr_log_reopen(w.r.ctx);
    CHECK(n <= 0 && is_code(n));
}

static void op_time(void)
{
    w.r.now += below(50) * INT64_C(10000000);
    CHECK(chr_loop_timeout(w.r.ctx) >= -1);
    CHECK_INT(chr_loop_now(w.r.ctx), w.r.now);
    CHECK(chr_loop_deadline(w.r.ctx) > 0);
}

static void op_wake(void)
{
    chr_loop_wake(w.r.ctx);
    chr_loop_lock(w.r.ctx);
    chr_loop_unlock(w.r.ctx);
}

static void op_watch(void)
{
    int i = below(THINGS), code;
    if (write(w.pipes[i][1], "x", 1) > 0) w.progress++;
    switch (below(4)) {
    case 0: chr_watch_stop(&w.watches[i]); break;
    case 1: chr_watch_set(&w.watches[i], below(8)); break;
    case 2: if (w.watches[i].slot) w.calm = 0, chr_watch_ready(&w.watches[i], CHR_IN); break;
    default: code = chr_watch_start(w.r.ctx, &w.watches[i], w.pipes[i][0], CHR_IN, on_ready, &w.watches[i]);
             CHECK(code == 0 || code == CHR_ERR_NO_MEMORY);
    }
}

static void op_timer(void)
{
    int i = below(THINGS);
    if (one_in(4)) chr_timer_stop(&w.timers[i]);
    else chr_timer_start(w.r.ctx, &w.timers[i], below(300) - 20, on_time, &w.timers[i]);
}

static void op_idle(void)
{
    int i = below(THINGS);
    if (one_in(4)) chr_idle_stop(&w.idles[i]);
    else chr_idle_start(w.r.ctx, &w.idles[i], on_time, &w.idles[i]);
}

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

static void op_backends(void)
{
    chr_error          err = { 0, "" };
    const chr_backend *kind = chr_backend_find(w.r.ctx, "probe");
    if (chr_backend_register(w.r.ctx, &probe_kind, &err) < 0) CHECK(err.code == CHR_ERR_EXISTS || err.code == CHR_ERR_NO_MEMORY);
    CHECK(!kind || kind == &probe_kind);
}

static void op_probe(void)
{
    chr_dev *dev = w.probes[below(8)];
    if (dev && !dev->removed && !w.calm && w.depth > 0) chr_be_event(dev, one_in(2) ? CHR_EVENT_CLOSED : one_in(2) ? CHR_EVENT_OPENED : below(100));
}

static void op_ringbuf(void)
{
    chr_dev  *dev = any_dev();
    char      text[200];
    chr_error err = { 0, "" };
    int       count, n;
    if (!dev) return;
    count = chr_ringbuf_count(dev);
    text_of(text, 150);
    n = chr_ringbuf_write(dev, text, strlen(text), (chr_format)below(2), &err);
    CHECK(count < 0 ? n == CHR_ERR_NOT_SUPPORTED : n >= 0 || n == CHR_ERR_INVALID);
    n = chr_ringbuf_read(dev, (size_t)below(100), (chr_format)below(2), text, (size_t)below(200), &err);
    CHECK(count < 0 ? n == CHR_ERR_NOT_SUPPORTED : n >= 0 && n < 200);
}

static void op_inject(void)
{
    chr_dev *dev = any_dev();
    char     bytes[200];
    size_t   len = (size_t)below(200);
    int      n;
    if (!dev) return;
    memset(bytes, 'i', sizeof bytes);
    n = chr_inject(dev, bytes, len);
    CHECK(n == CHR_ERR_WOULD_BLOCK || n == CHR_ERR_NOT_SUPPORTED || (n >= 0 && (size_t)n <= len));
}

static void op_chance(void)
{
    chr_dev         *dev = any_dev();
    chr_fault_counts counts;
    unsigned char    bytes[64];
    size_t           i;
    int              n;
    if (!dev) return;
    for (i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)below(256);
    n = chr_fault_feed(dev, bytes, sizeof bytes);
    CHECK(n == CHR_ERR_NOT_SUPPORTED || n == CHR_ERR_NO_MEMORY || n == (int)sizeof bytes);
    CHECK_INT(chr_fault_query(dev, &counts), n == CHR_ERR_NOT_SUPPORTED ? n : 0);
    n = chr_script_result(dev, NULL);
    CHECK(n <= 0 && is_code(n));
}

static void op_input(void)
{
    chr_dev *dev = any_dev();
    int      n;
    if (!dev) return;
    switch (below(6)) {
    case 0: n = chr_input_rel(dev, below(500) - 250, below(500) - 250); break;
    case 1: n = chr_input_abs(dev, below(40000), below(40000)); break;
    case 2: n = chr_input_button(dev, below(5) - 1, below(2)); break;
    case 3: n = chr_braille_key(dev, (chr_braille_keys)below(4), below(90)); break;
    case 4: n = chr_braille_resized(dev); break;
    default: n = chr_input_sync(dev);
    }
    CHECK(n <= 0 && is_code(n));
}

static void op_mux(void)
{
    if (one_in(2)) chr_mux_suspend_open(w.r.ctx);
    else chr_mux_resume_open(w.r.ctx);
}

static void op_record(void)
{
    chr_error err = { 0, "" };
    int       code;
    switch (below(5)) {
    case 0: told(chr_record_start(w.r.ctx, scratch(one_in(2) ? "r0" : "r1"), &err), &err); break;
    case 1: code = chr_record_stop(w.r.ctx); CHECK(code <= 0 && is_code(code)); break;
    case 2: told(chr_replay_open(w.r.ctx, scratch(one_in(2) ? "r0" : "r1"), &err), &err); break;
    case 3: chr_replay_close(w.r.ctx); break;
    default: CHECK(chr_replay_over(w.r.ctx) >= 0);
    }
}

static void op_objects(void)
{
    chr_error err = { 0, "" };
    switch (below(4)) {
    case 0: told(chr_tls_creds_add(w.r.ctx, "tls-creds-psk,id=t,endpoint=server,keyfile=/nowhere", &err), &err); break;
    case 1: told(chr_authz_add(w.r.ctx, "authz-list,id=z,match=CN=*,format=glob", &err), &err); break;
    case 2: told(chr_tls_creds_remove(w.r.ctx, "t", &err), &err); break;
    default: told(chr_authz_remove(w.r.ctx, "z", &err), &err);
    }
}

static void op_descriptors(void)
{
    chr_error err = { 0, "" };
    int       fds[2];
    if (one_in(3)) {
        told(chr_fd_close(w.r.ctx, one_in(4) ? "other" : "name", &err), &err);
        return;
    }
    socket_pair(fds);
    keep_far(fds[1]);
    told(chr_fd_put(w.r.ctx, one_in(6) ? "1" : "name", give(fds[0]), &err), &err);
}

static void ignore_line(void *opaque, const char *line) { (void)opaque; CHECK(line[0] != 0); }

static void op_help(void)
{
    static const char *const names[] = { "help", "socket", "pty,help", "nothing", "tls-creds-psk", "mux" };
    int                      code = chr_help(w.r.ctx, names[below(6)], ignore_line, NULL);
    CHECK(code == 0 || code == CHR_ERR_NOT_FOUND || code == CHR_ERR_NO_MEMORY);
    CHECK(chr_error_text(-below(20))[0] != 0);
}

/* A system call, or an allocation, will fail. */
static void op_fault(void)
{
    static const int errors[] = { EINTR, EAGAIN, FAULT_SHORT, EIO, EMFILE, ECONNRESET, EPIPE, ENOSPC };
    int              haste = fault_plan.haste, call = below(FAULT_COUNT);
    if (call == FAULT_clock_gettime || call == FAULT_fork) return;
    fault_arm((fault_call)call, errors[below(8)], 1 + below(3), 0);
    fault_plan.haste = haste;
}

static void op_fail(void) { w.r.fail_at = w.r.calls + 1 + below(10); }

static void op_free(void)
{
    if (w.depth > 0 && !w.calm) chr_context_free(w.r.ctx); /* refused inside a handler */
}

/* may_call: handlers of the user's may run before it returns. weight: how often. */
static const struct operation {
    const char *name;
    void      (*run)(void);
    int         weight, may_call;
} operations[] = {
    { "new", op_new, 10, 0 },               { "open", op_open, 3, 0 },              { "uri", op_uri, 2, 0 },
    { "remove", op_remove, 4, 0 },          { "change", op_change, 10, 1 },         { "break", op_break, 3, 1 },
    { "add_client", op_add_client, 3, 0 },  { "wait_connected", op_wait_connected, 1, 0 }, { "walk", op_walk, 1, 0 },
    { "attach", op_attach, 16, 1 },         { "detach", op_detach, 3, 0 },          { "set_handlers", op_set_handlers, 4, 1 },
    { "write", op_write, 12, 0 },           { "write_all", op_write_all, 2, 0 },    { "read_all", op_read_all, 2, 0 },
    { "printf", op_printf, 2, 0 },          { "accept_input", op_accept_input, 4, 0 }, { "add_watch", op_add_watch, 4, 0 },
    { "ioctl", op_ioctl, 3, 0 },            { "msgfds", op_msgfds, 2, 0 },          { "set_open", op_set_open, 2, 0 },
    { "focus", op_focus, 3, 1 },            { "disconnect", op_disconnect, 3, 0 },
    { "buffers", op_buffers, 5, 1 },        { "pull", op_pull, 12, 0 },             { "step", op_step, 40, 1 },
    { "run", op_run, 1, 0 },                { "drain", op_drain, 1, 1 },
    { "dispatch", op_dispatch, 5, 1 },      { "time", op_time, 4, 0 },
    { "wake", op_wake, 1, 0 },              { "watch", op_watch, 3, 0 },            { "timer", op_timer, 3, 0 },
    { "idle", op_idle, 3, 0 },              { "backends", op_backends, 1, 0 },      { "probe", op_probe, 4, 1 },
    { "ringbuf", op_ringbuf, 2, 0 },        { "input", op_input, 3, 0 },            { "mux", op_mux, 2, 0 },
    { "inject", op_inject, 4, 1 },          { "chance", op_chance, 2, 0 },
    { "record", op_record, 2, 0 },          { "objects", op_objects, 1, 0 },        { "descriptors", op_descriptors, 2, 0 },
    { "help", op_help, 1, 0 },              { "fault", op_fault, 3, 0 },            { "fail", op_fail, 2, 0 },
    { "free", op_free, 1, 0 },              { "far", op_far, 20, 0 },               { "meet", op_meet, 8, 0 },
};

static void operate(int count)
{
    const size_t kinds = sizeof operations / sizeof *operations;
    size_t       i;
    int          at, before, total = 0;
    for (i = 0; i < kinds; i++) total += operations[i].weight;
    while (count-- > 0) {
        if (w.depth > 0 && w.budget-- <= 0) return;
        at = below(total);
        for (i = 0; at >= operations[i].weight; i++) at -= operations[i].weight;
        before = test_failures;
        w.calm = !operations[i].may_call;
        w.doing = operations[i].name;
        w.counts[i]++;
        if (getenv("RANDOM_TRACE")) fprintf(stderr, "%*s%s\n", 2 * w.depth, "", operations[i].name);
        operations[i].run();
        w.calm = 0;
        if (test_failures != before) NOTE("in operation %s, %d handlers deep", operations[i].name, w.depth);
    }
}

/* ---- one life ---------------------------------------------------------------------------------------------------- */

static int saved[2]; /* what 0 and 1 were */

/* Also when a REQUIRE ends the process, so that its words are read. */
static void put_back(void)
{
    int i;
    for (i = 0; i < 2; i++)
        if (saved[i] > 0) dup2(saved[i], i), close(saved[i]);
    saved[0] = saved[1] = 0;
    fflush(stdout);
}

static void world_open(int seed)
{
    static char buffer[1 << 16];
    chr_config  config;
    int         i, in[2], out[2];
    memset(&w, 0, sizeof w);
    memset(w.far, -1, sizeof w.far);
    w.random = (uint64_t)seed * 0x9e3779b97f4a7c15u + 1;
    for (i = 0; i < 10; i++) any();
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer); /* 0 and 1 are exchanged: what is printed meanwhile comes out at the end */
    for (i = 0; i < 2; i++) saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 50);
    rig_init(&w.r);
    REQUIRE(pipe(in) == 0 && pipe(out) == 0);
    dup2(in[0], 0);
    dup2(out[1], 1);
    close(in[0]);
    close(out[1]);
    putchar('\n'); /* after this flush glibc gathers, also what was a stream of lines before */
    fflush(stdout);
    keep_far(in[1]);
    keep_far(out[0]);
    keep_far(tcp_listen(&w.port));
    mkfifo(scratch("fifo.in"), 0600);
    mkfifo(scratch("fifo.out"), 0600);
    for (i = 0; i < THINGS; i++) REQUIRE(pipe2(w.pipes[i], O_NONBLOCK) == 0);
    signal(SIGPIPE, broken_pipe);
    memset(&fault_plan, 0, sizeof fault_plan);
    fault_plan.haste = 2000; /* what blocks gives up soon */
    config = rig_config(&w.r);
    config.clock = rig_clock;
    config.exit = on_exit_hook;
    config.snapshot = on_snapshot;
    config.log = on_log;
    w.r.ctx = chr_context_new(&config);
    REQUIRE(w.r.ctx != NULL);
    w.budget = HANDLED;
    op_backends();
    for (i = 0; i < 5; i++) op_new(), op_attach(), op_meet();
}

/* Nothing fails any more, handlers do nothing and have room, time goes on: the loop comes to rest. */
static void come_to_rest(void)
{
    int steps, hour, before = 0, idle, ran;
    fault_disarm();
    w.r.fail_at = 0;
    w.budget = 0;
    w.doing = "the last steps";
    for (hour = 0; hour < 6; hour++) {
        for (steps = idle = 0; (ran = chr_loop_step(w.r.ctx, 0)) > 0 || ran == CHR_ERR_STOPPED; steps++) {
            idle = w.progress == before ? idle + 1 : 0;
            before = w.progress;
            if (!CHECK(idle < REST && steps < 20 * REST)) return; /* it spins */
        }
        w.r.now += INT64_C(700000000);
    }
}

static void list_fds(void)
{
    char    path[40], text[100];
    int     fd;
    ssize_t n;
    for (fd = 0; fd < 100; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        n = readlink(path, text, sizeof text);
        if (n >= 0) NOTE("%d: %.*s", fd, (int)n, text);
    }
}

static void world_close(void)
{
    ticket *t;
    int     i;
    for (i = 0; i < FARS; i++)
        if (w.far[i] >= 0) close(w.far[i]);
    memset(w.far, -1, sizeof w.far);
    come_to_rest();
    op_walk();
    w.budget = 30; /* the handlers of the last events do something again */
    w.doing = "context_free";
    chr_context_free(w.r.ctx);
    w.r.ctx = NULL;
    for (i = 0; i < FARS; i++)
        if (w.far[i] >= 0) close(w.far[i]);
    for (i = 0; i < USERS; i++) {
        if (w.users[i].fe) CHECK(w.users[i].fe->dev == NULL);
        free(w.users[i].fe);
    }
    for (i = 0; i < THINGS; i++) close(w.pipes[i][0]), close(w.pipes[i][1]);
    put_back();
    while ((t = w.tickets) != NULL) {
        if (t->live && t->open && !CHECK(0 && "every OPENED has its CLOSED")) NOTE("set %d", t->number);
        w.tickets = t->next;
        free(t);
    }
    CHECK_INT(w.r.live, 0);
    while (w.terminal_count > 0) close(w.terminals[--w.terminal_count]);
    if (!CHECK_INT(count_fds(), w.r.fds - 2)) list_fds();
    scratch_clean();
}

static void life(int seed)
{
    world_open(seed);
    operate(OPERATIONS);
    come_to_rest();
    world_close();
    fflush(stdout);
}

/* Each seed has a process of its own, so that the one that fails is known and the others go on. */
static void lives(const void *arg)
{
    int   first = *(const int *)arg, count = getenv("RANDOM_SEED") ? 1 : BATCH, i, status[BATCH];
    pid_t pid;
    for (i = 0; i < count; i++) {
        pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
            alarm(10 * test_time_scale());
            atexit(put_back);
            life(first + i);
            _exit(test_failures ? EXIT_FAILURE : EXIT_SUCCESS); /* leaks are counted above */
        }
        while (waitpid(pid, &status[i], 0) < 0) {}
    }
    for (i = 0; i < count; i++)
        if (!CHECK_INT(status[i], 0)) NOTE("once more: RANDOM_SEED=%d %s", first + i, WIFSIGNALED(status[i]) ? strsignal(WTERMSIG(status[i])) : "");
}

TEST_FAMILY(lives)
{
    static int  firsts[10000 / BATCH];
    const char *one = getenv("RANDOM_SEED"), *many = getenv("RANDOM_SEEDS");
    int         i, first = 1, last = SEEDS, read = many ? sscanf(many, "%d-%d", &first, &last) : 0;
    char        name[80];
    if (read == 1) last = first, first = 1;
    if (one) first = last = atoi(one);
    for (i = 0; i < 10000 / BATCH && first <= last; i++, first += BATCH) {
        firsts[i] = first;
        snprintf(name, sizeof name, "lives_from_seed_%d_on", firsts[i]);
        test_add_case(name, lives, &firsts[i], 300);
    }
}
