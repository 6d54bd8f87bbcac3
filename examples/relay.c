/*
 * relay - joins two chardevs, as socat does: the input of each is the output of the other.
 *
 * This is a complete program with a man page, not an example of one page: it passes on everything that chardevs can express
 * (half-close, serial settings, terminal sizes). To copy the basics, see hello.c (one chardev) and README.md.
 *
 *     build/relay [-v] [-x] [--keep] [-log-reopen-on-hup] [-object O]... A B
 *     build/relay help            all backends
 *     build/relay socket,help     the options of one backend
 *
 * A and B are chardevs in option syntax (socket,path=/tmp/a,server=on,wait=off) or URI syntax (tcp:localhost:4444).
 *
 * O is an object that A or B names by id: TLS credentials (tls-creds-x509,id=t,dir=certs; tls-creds-psk,...), or a
 * list of the peers that are admitted (authz-list,id=who,match=NAME).
 *
 * Back-pressure: while one side is disconnected and may reconnect, the other is not read, so that no byte is lost.
 *
 * Half-close: EOF of one side is passed on after its last byte, where the other supports that (chr_fe_shutdown), and
 * the other direction stays open. relay ends when both sides have reached EOF. Where EOF can't be passed on, or the
 * side was a file, relay ends after half a second without input. A socket that connects once gets half-close=on for
 * this; a server or a client with reconnect= has it when its options contain it.
 *
 * --keep doesn't end then, and drops bytes for a closed side. Ctrl-A x on a mux, a testdev, SIGINT, SIGTERM and
 * SIGHUP end relay: pending output is drained first, and terminals and files are restored.
 *
 * Where a side is a serial line over the network (com-port=on), settings, modem lines, line errors and break are
 * passed to the other side, and a purge by its client drops pending bytes. The size of a terminal is passed on too:
 * from stdio or a telnet client to a telnet server or a pty.
 *
 * -v logs events on stderr (connections, handshakes, ...). -x dumps all bytes there, in hex and as text: '>' is from
 * A to B, '<' from B to A.
 *
 * relay moves blocks of up to 64 KiB as they are received, so its frontends have no buffers (chr_fe_set_buffers):
 * these would copy each byte twice more and save no system call (0.17 s of CPU time for a GiB without them, 0.20 s
 * with), join udp's datagrams, and report a full disk one write late.
 */
#ifndef CHARDEV_LINKED /* the Makefile compiles the implementation once for several programs */
#define CHARDEV_IMPLEMENTATION
#endif
#include "chardev.h"

#include "arguments.h"
#include "signals.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFER = 65536,
    IDLE_MS = 500,      /* without input, after EOF that can't be passed on */
    SENT_MS = 20,       /* interval of polling whether a chardev's queue is empty */
    DRAIN_MS = 2000,    /* without progress, before the rest is given up */
    BREAK_MS = 250,     /* duration of a break */
    LINES_MS = 50,      /* interval of polling the modem lines of a serial port */
    REPEAT_MS = 1000,   /* equal settings are passed on once in this time */
    TROUBLE = 2         /* exit status */
};

struct relay;

struct settings {
    chr_serial_params params;
    int               flow;
};

/* One side. buf[start..end) was read from it and is not yet written to the other. */
struct side {
    const char     *name;
    chr_dev        *dev;
    chr_frontend    fe;
    struct side    *other;
    struct relay   *relay;
    int             comes_back;  /* it may reopen after CLOSED: a server, reconnect= */
    int             is_two_way;  /* a reply is possible after its EOF: not a file, FIFO or serial line */
    int             at_eof;      /* its input has ended */
    int             is_closed;   /* for good */
    int             eof_passed;  /* the other's EOF was passed to it: 1; 0 = not yet; -1 = it has no half-close */
    int             broken;      /* output to it fails (EPIPE) */
    int             in_break;    /* a break is being sent to it */
    int             has_line;    /* it is a serial line over the network, and open */
    int             rejects;     /* it rejects settings with an error at once, not with a correction later */
    struct settings passed;      /* its settings that were passed on last */
    int64_t         passed_at;   /* in ns */
    chr_timer       break_timer; /* ends the break */
    chr_timer       lines_timer; /* polls the other's modem lines: a serial port has no event for them */
    uint64_t        dumped;      /* bytes of its input that -x has printed */
    size_t          start, end;
    unsigned char   buf[BUFFER];
};

struct relay {
    chr_context *ctx;
    struct side  a, b;
    chr_timer    end_timer;
    int          keep;
    int          verbose;    /* -v */
    int          dumps;      /* -x */
    int          reopens;    /* its log files, on SIGHUP */
    int          draining;   /* nothing more is read */
    int          done;
    int          status;
};

static struct relay          relay;
static volatile sig_atomic_t stop_requested, reopen_requested;

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static void end(struct relay *r, int status)
{
    r->done = 1;
    r->status = status;
}

/* With obuf= and layers, bytes may be queued inside a chardev. */
static int is_sent(const struct side *s)
{
    chr_info info;

    chr_query(s->dev, &info);
    return info.bytes_queued == 0 || !info.be_open;
}

static void end_when_sent(void *opaque)
{
    struct relay *r = (struct relay *)opaque;

    if (is_sent(&r->a) && is_sent(&r->b)) end(r, 0);
    else chr_timer_start(r->ctx, &r->end_timer, SENT_MS, end_when_sent, r);
}

static int is_empty(const struct side *s)
{
    return s->start == s->end;
}

static int is_disconnected(const struct side *s)
{
    return s->comes_back && !chr_fe_backend_open(&s->fe);
}

/* Its EOF was passed on, and it can still receive the reply: the other's EOF comes later. */
static int waits_for_reply(const struct side *s)
{
    return s->at_eof && !s->broken && (!s->is_closed || s->is_two_way) && s->other->eof_passed > 0 &&
           s->other->is_two_way && !s->other->at_eof;
}

/* The other side's EOF can't be passed to it, and its own EOF is still to come: input that is piped into us
 * continues. */
static int may_send_more(const struct side *s)
{
    return s->other->at_eof && !s->other->is_closed && !s->at_eof && s->is_two_way && !is_disconnected(s) && !isatty(0);
}

/* Called after each transfer and state change. relay doesn't end while a byte is pending for a side that is open. */
static void end_if_complete(struct relay *r)
{
    struct side *a = &r->a, *b = &r->b;

    chr_timer_stop(&r->end_timer);
    if (r->keep || !(a->at_eof || b->at_eof || a->broken || b->broken) || !is_empty(a) || !is_empty(b)) return;
    if ((a->at_eof && (b->at_eof || a->broken)) || (b->at_eof && b->broken)) end_when_sent(r);
    else if (!waits_for_reply(a) && !waits_for_reply(b) && !may_send_more(a) && !may_send_more(b))
        chr_timer_start(r->ctx, &r->end_timer, IDLE_MS, end_when_sent, r);
}

/* ---- moving bytes ------------------------------------------------------------------------------------------------ */

static void flush_into(void *opaque);

static const char *reason(int error)
{
    return error == CHR_ERR_NO_SPACE ? strerror(ENOSPC) : chr_error_text(error);
}

/* Passes EOF on after the last byte. A side that is disconnected gets it when it reopens. */
static void pass_eof(struct side *from)
{
    struct side *to = from->other;

    if (from->at_eof && !from->relay->keep && is_empty(from) && !to->eof_passed && !is_disconnected(to))
        to->eof_passed = chr_fe_shutdown(&to->fe) == 0 ? 1 : -1;
}

/* The write to the other side failed: EAGAIN, disconnected, or another error. */
static void write_failed(struct side *from, int error)
{
    struct side *to = from->other;

    if (error == CHR_ERR_WOULD_BLOCK) {
        chr_fe_add_watch(&to->fe, flush_into, to);
    } else if (to->comes_back) {
        return; /* the bytes are kept until its OPENED */
    } else if (error == CHR_ERR_DISCONNECTED) {
        to->broken = 1;
        from->start = from->end;
    } else {
        fprintf(stderr, "relay: %s: writing: %s\n", to->name, reason(error));
        to->broken = 1;
        from->start = from->end;
        end(from->relay, TROUBLE);
    }
}

static void flush_from(struct side *from)
{
    struct side *to = from->other;
    int          taken = 1;

    while (!is_empty(from) && taken > 0 && !is_disconnected(to)) {
        taken = chr_fe_write(&to->fe, from->buf + from->start, from->end - from->start);
        if (taken > 0) from->start += (size_t)taken;
        else write_failed(from, taken);
    }
    if (is_empty(from)) {
        from->start = from->end = 0;
        chr_fe_accept_input(&from->fe);
        pass_eof(from);
    }
    end_if_complete(from->relay);
}

static void flush_into(void *opaque)
{
    flush_from(((struct side *)opaque)->other);
}

/* ---- the settings of serial lines -------------------------------------------------------------------------------- */

/* Whether the same settings were passed on just before. Two servers that each accept only their own settings would
 * correct each other in an endless loop. */
static int is_repeated(struct side *s, const struct settings *settings)
{
    int64_t now = chr_loop_now(s->relay->ctx);

    if (memcmp(&s->passed, settings, sizeof s->passed) == 0 && now - s->passed_at < REPEAT_MS * INT64_C(1000000))
        return 1;
    s->passed = *settings;
    s->passed_at = now;
    return 0;
}

/* Passes settings to the other side; its corrections go back. */
static void pass_settings(struct side *from)
{
    chr_frontend   *back = &from->fe, *to = &from->other->fe;
    struct settings now;

    if (chr_fe_ioctl(back, CHR_IOCTL_SERIAL_GET_PARAMS, &now.params) < 0) return;
    if (chr_fe_ioctl(back, CHR_IOCTL_SERIAL_GET_FLOW, &now.flow) < 0 ||
        (is_repeated(from, &now) && !from->other->rejects))
        return;
    from->other->rejects = 0;
    if (chr_fe_ioctl(to, CHR_IOCTL_SERIAL_SET_PARAMS, &now.params) < 0 &&
        chr_fe_ioctl(to, CHR_IOCTL_SERIAL_GET_PARAMS, &now.params) == 0) {
        chr_fe_ioctl(back, CHR_IOCTL_SERIAL_SET_PARAMS, &now.params);
        from->other->rejects = 1;
    }
    if (chr_fe_ioctl(to, CHR_IOCTL_SERIAL_SET_FLOW, &now.flow) < 0 &&
        chr_fe_ioctl(to, CHR_IOCTL_SERIAL_GET_FLOW, &now.flow) == 0) {
        chr_fe_ioctl(back, CHR_IOCTL_SERIAL_SET_FLOW, &now.flow);
        from->other->rejects = 1;
    }
}

/* The input lines of one side are the output lines of the other: DSR as DTR, CTS as RTS. All are passed unchanged
 * too, for a telnet server, which can report them to its client. */
static void pass_lines(struct side *from)
{
    int lines;

    if (chr_fe_ioctl(&from->fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines) < 0) return;
    lines &= CHR_TIOCM_CTS | CHR_TIOCM_DSR | CHR_TIOCM_CAR | CHR_TIOCM_RI;
    lines |= (lines & CHR_TIOCM_DSR ? CHR_TIOCM_DTR : 0) | (lines & CHR_TIOCM_CTS ? CHR_TIOCM_RTS : 0);
    chr_fe_ioctl(&from->other->fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines);
}

/* Passes on receive errors: parity, framing, overrun. */
static void pass_errors(struct side *from)
{
    int errors;

    if (chr_fe_ioctl(&from->fe, CHR_IOCTL_SERIAL_GET_ERRORS, &errors) == 0 && errors)
        chr_fe_ioctl(&from->other->fe, CHR_IOCTL_SERIAL_SET_ERRORS, &errors);
}

static void poll_lines(void *opaque)
{
    struct side *s = (struct side *)opaque;

    pass_lines(s->other);
    pass_errors(s->other); /* an overrun has no event of its own */
    chr_timer_start(s->relay->ctx, &s->lines_timer, LINES_MS, poll_lines, s);
}

/* Its client purges: bytes that the other side's line has received and that are not yet passed on, or those that the
 * client itself has sent. */
static void purge(struct side *s, int what)
{
    struct side *from = what == CHR_PURGE_RECEIVE ? s->other : s;

    from->start = from->end = 0;
    chr_fe_ioctl(&s->other->fe, CHR_IOCTL_SERIAL_PURGE, &what);
    chr_fe_accept_input(&from->fe);
    end_if_complete(s->relay);
}

static void pass_size(struct side *from)
{
    chr_terminal_size size;

    if (chr_fe_ioctl(&from->fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size) == 0)
        chr_fe_ioctl(&from->other->fe, CHR_IOCTL_SET_TERMINAL_SIZE, &size);
}

/* The far side has changed settings or lines (CHR_EVENT_SERIAL). */
static void pass_serial(struct side *s)
{
    int lines;

    pass_settings(s);
    pass_lines(s);
    if (!s->has_line && chr_fe_ioctl(&s->other->fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines) == 0) poll_lines(s);
    s->has_line = 1;
}

static void end_break(void *opaque)
{
    struct side *s = (struct side *)opaque;

    s->in_break = 0;
    chr_fe_ioctl(&s->fe, CHR_IOCTL_SERIAL_SET_BREAK, &s->in_break);
}

static void pass_break(struct side *to)
{
    to->in_break = 1;
    if (chr_fe_ioctl(&to->fe, CHR_IOCTL_SERIAL_SET_BREAK, &to->in_break) == 0)
        chr_timer_start(to->relay->ctx, &to->break_timer, BREAK_MS, end_break, to);
}

/* ---- the handlers ------------------------------------------------------------------------------------------------ */

static int can_read(void *opaque)
{
    const struct side *s = (const struct side *)opaque;
    int is_stopped = is_disconnected(s->other) || (s->other->broken && !s->relay->keep) || s->relay->draining;

    return is_stopped ? 0 : (int)(BUFFER - s->end); /* 0: back-pressure */
}

/* Writes to the other side directly; only the rest of a short write is copied. */
static void on_read(void *opaque, const void *bytes, size_t len)
{
    struct side *s = (struct side *)opaque;
    int          taken = is_empty(s) && !is_disconnected(s->other) ? chr_fe_write(&s->other->fe, bytes, len) : 0;
    size_t       written = taken > 0 ? (size_t)taken : 0;

    memcpy(s->buf + s->end, (const char *)bytes + written, len - written);
    s->end += len - written;
    flush_from(s);
}

/* Output to a socket that is closed for good fails; for other backends the next write shows whether it does. */
static void update_state(struct side *s, int is_closed)
{
    chr_info info;

    chr_query(s->dev, &info);
    s->comes_back = info.comes_back;
    s->is_closed = s->at_eof = is_closed && !s->comes_back;
    s->broken |= s->is_closed && strcmp(info.backend, "socket") == 0;
}

static void on_opened(struct side *s)
{
    s->at_eof = s->is_closed = s->broken = s->eof_passed = 0;
    pass_size(s);
    pass_size(s->other);
    flush_into(s);
    chr_fe_accept_input(&s->other->fe);
}

/* A side that comes back starts again with its next peer. When the other has reached EOF already, it only waited for
 * the last peer's reply: it gets EOF now. */
static void on_closed(struct side *s)
{
    update_state(s, 1);
    s->eof_passed = 0;
    s->has_line = 0;
    chr_timer_stop(&s->lines_timer);
    if (s->comes_back && s->other->at_eof && !s->other->is_closed && is_empty(s))
        s->other->eof_passed = chr_fe_shutdown(&s->other->fe) == 0 ? 1 : -1;
    flush_into(s);
    flush_from(s);
}

static void on_event(void *opaque, int event)
{
    struct side *s = (struct side *)opaque;

    if (event == CHR_EVENT_OPENED) {
        on_opened(s);
    } else if (event == CHR_EVENT_CLOSED) {
        on_closed(s);
    } else if (event == CHR_EVENT_INPUT_END) {
        s->at_eof = 1;
        flush_from(s);
    } else if (event == CHR_EVENT_SERIAL) {
        pass_serial(s);
    } else if (event == CHR_EVENT_LINE_ERROR) {
        pass_errors(s);
    } else if (event == CHR_EVENT_PURGE_RECEIVE || event == CHR_EVENT_PURGE_TRANSMIT) {
        purge(s, event == CHR_EVENT_PURGE_RECEIVE ? CHR_PURGE_RECEIVE : CHR_PURGE_TRANSMIT);
    } else if (event == CHR_EVENT_RESIZED) {
        pass_size(s);
    } else if (event == CHR_EVENT_BREAK) {
        pass_break(s->other);
    }
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static int begins_with(const char *text, const char *word)
{
    return strncmp(text, word, strlen(word)) == 0;
}

static int is_socket(const char *text)
{
    static const char *const schemes[] = { "socket,", "unix:", "tcp:", "telnet:", "tn3270:", "websocket:" };
    size_t                   i;

    for (i = 0; i < sizeof schemes / sizeof schemes[0]; i++)
        if (begins_with(text, schemes[i])) return 1;
    return 0;
}

static int is_two_way(const char *text)
{
    return is_socket(text) || begins_with(text, "stdio") || begins_with(text, "mon:stdio") ||
           (begins_with(text, "fd,") && strstr(text, ",in="));
}

/* A socket that connects once, and whose layers support half-close. */
static int wants_half_close(const char *text)
{
    static const char *const others[] = { ",server", ",reconnect", ",websocket", ",half-close" };
    size_t                   i;

    for (i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strstr(text, others[i])) return 0;
    return is_socket(text) && !begins_with(text, "websocket:");
}

static chr_dev *open_chardev(chr_context *ctx, const char *id, const char *text, chr_error *err)
{
    char options[4200];

    if (!wants_half_close(text)) return chr_new_any(ctx, id, text, err);
    if (snprintf(options, sizeof options, "%s,half-close=on", text) < (int)sizeof options)
        return chr_new_any(ctx, id, options, err);
    snprintf(err->text, sizeof err->text, "too long");
    return NULL;
}

static int open_side(struct relay *r, struct side *s, struct side *other, const char *id, const char *text)
{
    chr_error err;

    s->name = text;
    s->other = other;
    s->relay = r;
    s->is_two_way = is_two_way(text);
    s->dev = open_chardev(r->ctx, id, text, &err);
    if (!s->dev || chr_fe_init(&s->fe, s->dev, &err) < 0) {
        fprintf(stderr, "relay: %s: %s\n", text, err.text);
        return 0;
    }
    update_state(s, 0);
    return 1;
}

/* ---- -v and -x --------------------------------------------------------------------------------------------------- */

#ifndef CHARDEV_NO_TRACE

/* "2026/11/27 12:30:00.123456", in local time. */
static void print_time(const chr_trace *event)
{
    time_t           seconds = (time_t)(event->wall_time / 1000000000);
    const struct tm *local = localtime(&seconds);
    char             text[40] = "";

    if (local) strftime(text, sizeof text, "%Y/%m/%d %H:%M:%S", local);
    fprintf(stderr, "%s.%06d", text, (int)(event->wall_time % 1000000000 / 1000));
}

/* Sixteen bytes a line: in hex, then as text. */
static void dump_line(const unsigned char *bytes, size_t len)
{
    char   text[16 * 3 + 1 + 16 + 1];
    size_t i, at = 0;

    for (i = 0; i < 16; i++) at += (size_t)sprintf(text + at, i < len ? " %02x" : "   ", i < len ? bytes[i] : 0u);
    text[at++] = ' ';
    for (i = 0; i < len; i++) text[at++] = (char)(bytes[i] >= ' ' && bytes[i] < 127 ? bytes[i] : '.');
    text[at] = 0;
    fprintf(stderr, "%s\n", text);
}

/* In the format of socat -x. */
static void dump(struct side *s, char direction, const chr_trace *event)
{
    size_t at;

    fprintf(stderr, "%c ", direction);
    print_time(event);
    fprintf(stderr, "  length=%lu from=%llu to=%llu\n", (unsigned long)event->len, (unsigned long long)s->dumped,
            (unsigned long long)(s->dumped + event->len - 1));
    s->dumped += event->len;
    for (at = 0; at < event->len; at += 16)
        dump_line((const unsigned char *)event->bytes + at, event->len - at < 16 ? event->len - at : 16);
    fputs("--\n", stderr);
}

static int is_of(const struct side *s, const chr_trace *event)
{
    return s->dev && event->id && chr_find(event->ctx, event->id) == s->dev;
}

static void on_trace(void *opaque, const chr_trace *event)
{
    char line[1000];

    (void)opaque;
    if (event->number == CHR_TRACE_data_in) {
        if (relay.dumps && is_of(&relay.a, event)) dump(&relay.a, '>', event);
        if (relay.dumps && is_of(&relay.b, event)) dump(&relay.b, '<', event);
    } else if (relay.verbose && chr_trace_match("*,-data_out,-client_in,-client_out,-wire_*,-log", event->name)) {
        chr_trace_format(event, line, sizeof line);
        print_time(event);
        fprintf(stderr, " %s\n", strchr(line, ' ') + 1); /* without its own time */
    }
}

/* Looked for first, because the context is created before the options are parsed. */
static int wants_trace(char **words)
{
    for (; *words && **words == '-'; words++)
        if (strcmp(*words, "-v") == 0 || strcmp(*words, "-x") == 0) return 1;
    return 0;
}

#endif

/* ---- the program ------------------------------------------------------------------------------------------------- */

/* The first signal ends relay after draining; a second one ends it at once. */
static void on_signal(int number)
{
    signal(number, SIG_DFL);
    stop_requested = 1;
    chr_loop_wake(relay.ctx);
}

static void on_hang_up(int number)
{
    signal(number, on_hang_up);
    reopen_requested = 1;
    chr_loop_wake(relay.ctx);
}

static void on_log(void *opaque, const char *line)
{
    (void)opaque;
    fprintf(stderr, "relay: %s\n", line);
}

/* Ctrl-A x on a mux, or a testdev, with its exit status. */
static void on_exit_request(void *opaque, int code)
{
    (void)opaque;
    end(&relay, code);
}

static void print_line(void *opaque, const char *line)
{
    (void)opaque;
    puts(line);
}

/* "help", "?", "socket,help". */
static int is_help(const char *text)
{
    const char *comma = strrchr(text, ',');
    const char *word = comma ? comma + 1 : text;

    return strcmp(word, "help") == 0 || strcmp(word, "?") == 0;
}

static int help(chr_context *ctx, const char *text)
{
    if (chr_help(ctx, text, print_line, NULL) == 0) return 0;
    fprintf(stderr, "relay: there is no backend '%.*s'; see relay help\n", (int)strcspn(text, ","), text);
    return TROUBLE;
}

static const char usage_text[] =
    "usage: relay [-v] [-x] [--keep] [-log-reopen-on-hup] [-object O]... A B\n"
    "  A, B       the chardevs to join: options, socket,path=/tmp/a,server=on,wait=off, or a URI, tcp:localhost:4444\n"
    "  -v         log events on stderr: connections, handshakes, settings\n"
    "  -x         dump all bytes on stderr, in hex and as text, with times: > from A to B, < from B to A\n"
    "  --keep     don't exit when a side has closed for good; drop bytes for that side\n"
    "  -log-reopen-on-hup  on SIGHUP reopen all log files (for logrotate) instead of exiting\n"
    "  -object O  TLS credentials for a socket, tls-creds-x509,id=t,dir=DIR, or a list of admitted peers,\n"
    "             authz-list,id=who,match=NAME\n"
    "relay help lists all backends, relay BACKEND,help the options of one.\n";

static int usage(void)
{
    fputs(usage_text, stderr);
    return TROUBLE;
}

static void catch_signals(const struct relay *r)
{
    signals_catch(SIGINT, on_signal);
    signals_catch(SIGTERM, on_signal);
    if (r->reopens) signal(SIGHUP, on_hang_up);
    else signals_catch(SIGHUP, on_signal);
}

static void reopen_logs(struct relay *r)
{
    reopen_requested = 0;
    chr_log_reopen(r->ctx); /* errors go to on_log() */
}

/* The number of bytes read and still to be written. */
static size_t pending_bytes(const struct side *from)
{
    return is_disconnected(from->other) || from->other->broken ? 0 : from->end - from->start;
}

/* Drains pending bytes, then the queues of the chardevs, as long as there is progress. */
static void drain(struct relay *r)
{
    int64_t limit = (int64_t)DRAIN_MS * 1000000, deadline = chr_loop_now(r->ctx) + limit;
    size_t  before, left;

    r->draining = 1;
    for (left = pending_bytes(&r->a) + pending_bytes(&r->b); left > 0 && chr_loop_now(r->ctx) < deadline;
         left = pending_bytes(&r->a) + pending_bytes(&r->b)) {
        before = left;
        if (chr_loop_step(r->ctx, (int)((deadline - chr_loop_now(r->ctx)) / 1000000) + 1) < 0) return;
        if (pending_bytes(&r->a) + pending_bytes(&r->b) < before) deadline = chr_loop_now(r->ctx) + limit;
    }
    if (left > 0 || chr_drain(r->ctx, DRAIN_MS) < 0)
        fprintf(stderr, "relay: pending output was not accepted within %d seconds\n", DRAIN_MS / 1000);
}

static void close_side(struct side *s)
{
    chr_timer_stop(&s->break_timer);
    chr_timer_stop(&s->lines_timer);
    chr_fe_deinit(&s->fe);
}

static void relay_until_done(struct relay *r)
{
    static const chr_handlers handlers = { .can_read = can_read, .read = on_read, .event = on_event };

    chr_fe_set_handlers(&r->a.fe, &handlers, &r->a);
    chr_fe_set_handlers(&r->b.fe, &handlers, &r->b);
    while (!r->done && !stop_requested) {
        if (chr_loop_step(r->ctx, -1) < 0) end(r, TROUBLE);
        if (reopen_requested) reopen_logs(r);
    }
    drain(r);
    close_side(&r->a);
    close_side(&r->b);
}

static int run(struct relay *r, const char *a, const char *b)
{
    if (!open_side(r, &r->a, &r->b, "a", a) || !open_side(r, &r->b, &r->a, "b", b)) return TROUBLE;
    catch_signals(r);
    relay_until_done(r);
    return r->status;
}

static int add_object(chr_context *ctx, const char *text)
{
    chr_error err;
    int code = strncmp(text, "authz", 5) == 0 ? chr_authz_add(ctx, text, &err) : chr_tls_creds_add(ctx, text, &err);

    if (code < 0) fprintf(stderr, "relay: -object %s: %s\n", text, err.text);
    return code;
}

static int take_switch(struct relay *r, const char *word)
{
    if (strcmp(word, "--keep") == 0) return r->keep = 1;
    if (strcmp(word, "-log-reopen-on-hup") == 0) return r->reopens = 1;
    if (strcmp(word, "-v") == 0) return r->verbose = 1;
    if (strcmp(word, "-x") == 0) return r->dumps = 1;
    return 0;
}

static int run_arguments(struct relay *r, int argc, char **argv)
{
    int i;

    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        return fputs(usage_text, stdout) < 0;
    argc -= 1, argv += 1;
    for (; argc > 0 && take_switch(r, argv[0]); argc--, argv++) {}
    for (; argc > 1 && strcmp(argv[0], "-object") == 0; argc -= 2, argv += 2)
        if (add_object(r->ctx, argv[1]) < 0) return TROUBLE;
    for (i = 0; i < argc; i++)
        if (is_help(argv[i])) return help(r->ctx, argv[i]);
    return argc == 2 ? run(r, argv[0], argv[1]) : usage();
}

/* A script that is not at its end when relay ends has failed. Other failures were logged already. */
static int scripts_passed(const struct relay *r)
{
    int passed = 1;
#ifndef CHARDEV_NO_SCRIPT
    const chr_dev *dev;
    chr_error      err;
    int            code;

    for (dev = chr_next(r->ctx, NULL); dev; dev = chr_next(r->ctx, dev)) {
        code = chr_script_result(dev, &err);
        if (code == 0 || code == CHR_ERR_NOT_SUPPORTED) continue;
        if (code == CHR_ERR_WOULD_BLOCK) fprintf(stderr, "relay: %s: and the other side has ended\n", err.text);
        passed = 0;
    }
#else
    (void)r;
#endif
    return passed;
}

int main(int argc, char **argv)
{
    chr_config config;
    int        status;

    signals_ignore_pipe();
    arguments_to_utf8(&argc, &argv);
    memset(&config, 0, sizeof config);
    config.log = on_log;
    config.exit = on_exit_request;
#ifndef CHARDEV_NO_TRACE
    if (wants_trace(argv + 1)) config.trace = on_trace;
#endif
    relay.ctx = chr_context_new(&config);
    if (!relay.ctx) {
        fprintf(stderr, "relay: no context: out of memory or descriptors\n");
        return TROUBLE;
    }
    status = run_arguments(&relay, argc, argv);
    if (status == 0 && !scripts_passed(&relay)) status = 1;
    chr_context_free(relay.ctx);
    return status;
}
