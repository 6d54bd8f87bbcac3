/*
 * relay - joins two chardevs, as socat does: what comes out of one goes into the other.
 *
 *     build/relay [-v] [-x] [--keep] [-log-reopen-on-hup] [-object O]... A B
 *     build/relay help            all backends
 *     build/relay socket,help     the options of one
 *
 * A and B are chardevs in option syntax (socket,path=/tmp/a,server=on,wait=off) or URI syntax (tcp:localhost:4444).
 *
 * O is what they refer to by id: TLS credentials (tls-creds-x509,id=t,dir=certs; tls-creds-psk,...), or a list of the peers that are
 * let in (authz-list,id=who,match=NAME).
 *
 * While one side is away but may come back, the other is not read: no byte is lost. The end of input of a side is passed on behind its
 * last byte, where the other has such a thing (chr_fe_shutdown), and output to it goes on: relay ends when both sides have ended. Where
 * the end can't be passed on, or the side was a file, the way back stays until nothing has come for half a second. For that a socket
 * that is connected once gets half-close=on; one that comes back (server, reconnect) has it when its options say so.
 * --keep goes on even so, and drops what nobody takes. Ctrl-A x on a mux, a testdev, SIGINT, SIGTERM and SIGHUP end it: what was read goes
 * out first, as long as somebody takes it, and terminals and files are put back.
 *
 * Where a side is a serial line over the network (com-port=on), settings, modem lines, line errors and break go on to the other side, and
 * what its client purges is dropped. The size of a terminal goes on, too: from stdio or a telnet client to a telnet server or a pty.
 *
 * -v says on stderr what happens (connections, handshakes, events), -x shows all bytes there, in hex and as text: '>' is from A to B,
 * '<' from B to A.
 *
 * It moves blocks of up to 64 KiB as they come, so its frontends have no buffers (chr_fe_set_buffers): these would copy each byte
 * twice more and save no system call (0.17 s of CPU time for a GiB without them, 0.20 s with), join udp's datagrams, and tell of a
 * full disk one write late.
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

enum { BUFFER = 65536, QUIET_MS = 500, SENT_MS = 20, DRAIN_MS = 2000, BREAK_MS = 250, LINES_MS = 50, INSIST_MS = 1000, TROUBLE = 2 };

struct relay;

struct settings {
    chr_serial_params params;
    int               flow;
};

/* One side, and what was read from it and is not written to the other yet: buf[start..end). */
struct side {
    const char     *name;
    chr_dev        *dev;
    chr_frontend    fe;
    struct side    *other;
    struct relay   *relay;
    int             comes_back; /* when closed, it may open again */
    int             converses;  /* its input ends some day, and at that end it may wait for an answer: no file, FIFO or line */
    int             ended;      /* its input is over */
    int             gone;       /* closed for good */
    int             told;       /* the other's end of input was passed on to it: 1; 0 = not yet; -1 = it has no such thing */
    int             deaf;       /* it takes nothing any more */
    int             in_break;   /* we hold it in break, for a while */
    int             has_line;   /* it is a serial line over the network, and open */
    int             refuses;    /* it has no server that corrects us later: it says at once what it can't have */
    struct settings said;       /* its own, that we have passed on last */
    int64_t         said_at;
    chr_timer       break_over; /* when that has been long enough */
    chr_timer       look;       /* at the other's modem lines: a serial port doesn't tell when they change */
    uint64_t        dumped;     /* bytes that -x has shown of what it said */
    size_t          start, end;
    unsigned char   buf[BUFFER];
};

struct relay {
    chr_context *ctx;
    struct side  a, b;
    chr_timer    quiet;
    int          keep;
    int          verbose;    /* -v */
    int          dumps;      /* -x */
    int          reopens;    /* its log files, on SIGHUP */
    int          draining; /* nothing more is read */
    int          done;
    int          status;
};

static struct relay          relay;
static volatile sig_atomic_t told_to_stop, told_to_reopen;

/* ---- the end ------------------------------------------------------------------------------------------------------- */

static void end(struct relay *r, int status)
{
    r->done = 1;
    r->status = status;
}

/* With obuf= and layers bytes may still wait inside a chardev. */
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
    else chr_timer_start(r->ctx, &r->quiet, SENT_MS, end_when_sent, r);
}

static int is_empty(const struct side *s)
{
    return s->start == s->end;
}

static int is_away(const struct side *s)
{
    return s->comes_back && !chr_fe_backend_open(&s->fe);
}

/* Its end was passed on, and it can hear the answer: the other ends in its own time. */
static int waits_for_answer(const struct side *s)
{
    return s->ended && !s->deaf && (!s->gone || s->converses) && s->other->told > 0 && s->other->converses && !s->other->ended;
}

/* The other side's end can't be told to it, and it still has its own to come: what is piped into us goes on. */
static int has_more_to_say(const struct side *s)
{
    return s->other->ended && !s->other->gone && !s->ended && s->converses && !is_away(s) && !isatty(0);
}

/* Called whenever bytes moved or a side went. Nothing ends while a byte is still on its way to someone who can take it. */
static void consider_ending(struct relay *r)
{
    struct side *a = &r->a, *b = &r->b;

    chr_timer_stop(&r->quiet);
    if (r->keep || !(a->ended || b->ended || a->deaf || b->deaf) || !is_empty(a) || !is_empty(b)) return;
    if ((a->ended && (b->ended || a->deaf)) || (b->ended && b->deaf)) end_when_sent(r);
    else if (!waits_for_answer(a) && !waits_for_answer(b) && !has_more_to_say(a) && !has_more_to_say(b))
        chr_timer_start(r->ctx, &r->quiet, QUIET_MS, end_when_sent, r);
}

/* ---- moving bytes -------------------------------------------------------------------------------------------------- */

static void flush_into(void *opaque);

static const char *reason(int error)
{
    return error == CHR_ERR_NO_SPACE ? strerror(ENOSPC) : chr_error_text(error);
}

/* Behind the last byte. One that comes back is told whenever it is there. */
static void pass_end(struct side *from)
{
    struct side *to = from->other;

    if (from->ended && !from->relay->keep && is_empty(from) && !to->told && !is_away(to)) to->told = chr_fe_shutdown(&to->fe) == 0 ? 1 : -1;
}

/* The other side took nothing: it is full, or away, or gone, or broken. */
static void not_taken(struct side *from, int error)
{
    struct side *to = from->other;

    if (error == CHR_ERR_WOULD_BLOCK) {
        chr_fe_add_watch(&to->fe, flush_into, to);
    } else if (to->comes_back) {
        return; /* Held until its OPENED. */
    } else if (error == CHR_ERR_DISCONNECTED) {
        to->deaf = 1;
        from->start = from->end;
    } else {
        fprintf(stderr, "relay: %s: writing: %s\n", to->name, reason(error));
        to->deaf = 1;
        from->start = from->end;
        end(from->relay, TROUBLE);
    }
}

static void flush_from(struct side *from)
{
    struct side *to = from->other;
    int          taken = 1;

    while (!is_empty(from) && taken > 0 && !is_away(to)) {
        taken = chr_fe_write(&to->fe, from->buf + from->start, from->end - from->start);
        if (taken > 0) from->start += (size_t)taken;
        else not_taken(from, taken);
    }
    if (is_empty(from)) {
        from->start = from->end = 0;
        chr_fe_accept_input(&from->fe);
        pass_end(from);
    }
    consider_ending(from->relay);
}

static void flush_into(void *opaque)
{
    flush_from(((struct side *)opaque)->other);
}

/* ---- the settings of serial lines ---------------------------------------------------------------------------------- */

/* Two servers that each have only their own would correct each other without end: then neither is heard for a while. */
static int insists(struct side *s, const struct settings *settings)
{
    int64_t now = chr_loop_now(s->relay->ctx);

    if (memcmp(&s->said, settings, sizeof s->said) == 0 && now - s->said_at < INSIST_MS * INT64_C(1000000)) return 1;
    s->said = *settings;
    s->said_at = now;
    return 0;
}

/* To the other side; what that can't have goes back. */
static void pass_settings(struct side *from)
{
    chr_frontend   *back = &from->fe, *to = &from->other->fe;
    struct settings now;

    if (chr_fe_ioctl(back, CHR_IOCTL_SERIAL_GET_PARAMS, &now.params) < 0) return;
    if (chr_fe_ioctl(back, CHR_IOCTL_SERIAL_GET_FLOW, &now.flow) < 0 || (insists(from, &now) && !from->other->refuses)) return;
    from->other->refuses = 0;
    if (chr_fe_ioctl(to, CHR_IOCTL_SERIAL_SET_PARAMS, &now.params) < 0 && chr_fe_ioctl(to, CHR_IOCTL_SERIAL_GET_PARAMS, &now.params) == 0) {
        chr_fe_ioctl(back, CHR_IOCTL_SERIAL_SET_PARAMS, &now.params);
        from->other->refuses = 1;
    }
    if (chr_fe_ioctl(to, CHR_IOCTL_SERIAL_SET_FLOW, &now.flow) < 0 && chr_fe_ioctl(to, CHR_IOCTL_SERIAL_GET_FLOW, &now.flow) == 0) {
        chr_fe_ioctl(back, CHR_IOCTL_SERIAL_SET_FLOW, &now.flow);
        from->other->refuses = 1;
    }
}

/* What comes in at one side goes out at the other: DSR as DTR, CTS as RTS; and all as they are, to whom can tell them. */
static void pass_lines(struct side *from)
{
    int lines;

    if (chr_fe_ioctl(&from->fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines) < 0) return;
    lines &= CHR_TIOCM_CTS | CHR_TIOCM_DSR | CHR_TIOCM_CAR | CHR_TIOCM_RI;
    lines |= (lines & CHR_TIOCM_DSR ? CHR_TIOCM_DTR : 0) | (lines & CHR_TIOCM_CTS ? CHR_TIOCM_RTS : 0);
    chr_fe_ioctl(&from->other->fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines);
}

/* Bytes that came in damaged. */
static void pass_errors(struct side *from)
{
    int errors;

    if (chr_fe_ioctl(&from->fe, CHR_IOCTL_SERIAL_GET_ERRORS, &errors) == 0 && errors)
        chr_fe_ioctl(&from->other->fe, CHR_IOCTL_SERIAL_SET_ERRORS, &errors);
}

static void look_at_lines(void *opaque)
{
    struct side *s = (struct side *)opaque;

    pass_lines(s->other);
    pass_errors(s->other); /* of an overrun nothing else tells */
    chr_timer_start(s->relay->ctx, &s->look, LINES_MS, look_at_lines, s);
}

/* Its client wants none of what the other side's line has received and we have not passed on, or none of what it has sent itself. */
static void purge(struct side *s, int what)
{
    struct side *from = what == CHR_PURGE_RECEIVE ? s->other : s;

    from->start = from->end = 0;
    chr_fe_ioctl(&s->other->fe, CHR_IOCTL_SERIAL_PURGE, &what);
    chr_fe_accept_input(&from->fe);
    consider_ending(s->relay);
}

static void pass_size(struct side *from)
{
    chr_terminal_size size;

    if (chr_fe_ioctl(&from->fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size) == 0)
        chr_fe_ioctl(&from->other->fe, CHR_IOCTL_SET_TERMINAL_SIZE, &size);
}

/* Its far side has changed something. */
static void pass_line(struct side *s)
{
    int lines;

    pass_settings(s);
    pass_lines(s);
    if (!s->has_line && chr_fe_ioctl(&s->other->fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines) == 0) look_at_lines(s);
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
        chr_timer_start(to->relay->ctx, &to->break_over, BREAK_MS, end_break, to);
}

/* ---- the handlers -------------------------------------------------------------------------------------------------- */

static int can_read(void *opaque)
{
    const struct side *s = (const struct side *)opaque;
    int                nobody = is_away(s->other) || (s->other->deaf && !s->relay->keep) || s->relay->draining;

    return nobody ? 0 : (int)(BUFFER - s->end);
}

/* What the other side takes at once is not copied. */
static void got(void *opaque, const void *bytes, size_t len)
{
    struct side *s = (struct side *)opaque;
    int          taken = is_empty(s) && !is_away(s->other) ? chr_fe_write(&s->other->fe, bytes, len) : 0;
    size_t       gone = taken > 0 ? (size_t)taken : 0;

    memcpy(s->buf + s->end, (const char *)bytes + gone, len - gone);
    s->end += len - gone;
    flush_from(s);
}

/* A socket that is closed for good takes nothing either; of others a write tells. */
static void look_at(struct side *s, int is_closed)
{
    chr_info info;

    chr_query(s->dev, &info);
    s->comes_back = info.comes_back;
    s->gone = s->ended = is_closed && !s->comes_back;
    s->deaf |= s->gone && strcmp(info.backend, "socket") == 0;
}

static void opened(struct side *s)
{
    s->ended = s->gone = s->deaf = s->told = 0;
    pass_size(s);
    pass_size(s->other);
    flush_into(s);
    chr_fe_accept_input(&s->other->fe);
}

/* The next peer of one that comes back begins anew; the last one's conversation is over, if the other only waited for its answer. */
static void closed(struct side *s)
{
    look_at(s, 1);
    s->told = 0;
    s->has_line = 0;
    chr_timer_stop(&s->look);
    if (s->comes_back && s->other->ended && !s->other->gone && is_empty(s)) s->other->told = chr_fe_shutdown(&s->other->fe) == 0 ? 1 : -1;
    flush_into(s);
    flush_from(s);
}

static void happened(void *opaque, int event)
{
    struct side *s = (struct side *)opaque;

    if (event == CHR_EVENT_OPENED) {
        opened(s);
    } else if (event == CHR_EVENT_CLOSED) {
        closed(s);
    } else if (event == CHR_EVENT_INPUT_END) {
        s->ended = 1;
        flush_from(s);
    } else if (event == CHR_EVENT_SERIAL) {
        pass_line(s);
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

/* ---- opening ------------------------------------------------------------------------------------------------------- */

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

static int converses(const char *text)
{
    return is_socket(text) || begins_with(text, "stdio") || begins_with(text, "mon:stdio") || (begins_with(text, "fd,") && strstr(text, ",in="));
}

/* A socket that is connected once, and whose layers have a half-close; options are words behind commas. */
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
    if (snprintf(options, sizeof options, "%s,half-close=on", text) < (int)sizeof options) return chr_new_any(ctx, id, options, err);
    snprintf(err->text, sizeof err->text, "too long");
    return NULL;
}

static int open_side(struct relay *r, struct side *s, struct side *other, const char *id, const char *text)
{
    chr_error err;

    s->name = text;
    s->other = other;
    s->relay = r;
    s->converses = converses(text);
    s->dev = open_chardev(r->ctx, id, text, &err);
    if (!s->dev || chr_fe_init(&s->fe, s->dev, &err) < 0) {
        fprintf(stderr, "relay: %s: %s\n", text, err.text);
        return 0;
    }
    look_at(s, 0);
    return 1;
}

/* ---- -v and -x ----------------------------------------------------------------------------------------------------- */

#ifndef CHARDEV_NO_TRACE

/* "2026/11/27 12:30:00.123456", as its user's clock shows it. */
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

/* As socat -x does. */
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
        fprintf(stderr, " %s\n", strchr(line, ' ') + 1); /* in place of its own */
    }
}

/* The context is made before the options are read. */
static int wants_trace(char **words)
{
    for (; *words && **words == '-'; words++)
        if (strcmp(*words, "-v") == 0 || strcmp(*words, "-x") == 0) return 1;
    return 0;
}

#endif

/* ---- the program --------------------------------------------------------------------------------------------------- */

/* The first signal ends the relay in order; a second one ends it at once. */
static void on_signal(int number)
{
    signal(number, SIG_DFL);
    told_to_stop = 1;
    chr_loop_wake(relay.ctx);
}

static void on_hang_up(int number)
{
    signal(number, on_hang_up);
    told_to_reopen = 1;
    chr_loop_wake(relay.ctx);
}

static void on_log(void *opaque, const char *line)
{
    (void)opaque;
    fprintf(stderr, "relay: %s\n", line);
}

/* Ctrl-A x on a mux; a testdev, which says with what status. */
static void on_exit_asked(void *opaque, int code)
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
    "  A, B       the chardevs to join: socket,path=/tmp/a,server=on,wait=off and the like, or a URI, tcp:localhost:4444\n"
    "  -v         say on stderr what happens: connections, handshakes, events\n"
    "  -x         show all bytes there, in hex and as text, with times: > from A to B, < from B to A\n"
    "  --keep     go on when a side has closed for good, and drop what nobody takes\n"
    "  -log-reopen-on-hup  open all log files anew on SIGHUP, instead of ending: for logrotate\n"
    "  -object O  TLS credentials that a socket names, tls-creds-x509,id=t,dir=DIR, or a list of the peers that are let in,\n"
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
    told_to_reopen = 0;
    chr_log_reopen(r->ctx); /* on_log() gets what fails */
}

/* What was read and can still be taken. */
static size_t waiting(const struct side *from)
{
    return is_away(from->other) || from->other->deaf ? 0 : from->end - from->start;
}

/* Before the end: what was read goes out, then what chardevs hold, as long as there is progress. */
static void drain(struct relay *r)
{
    int64_t limit = (int64_t)DRAIN_MS * 1000000, deadline = chr_loop_now(r->ctx) + limit;
    size_t  before, left;

    r->draining = 1;
    for (left = waiting(&r->a) + waiting(&r->b); left > 0 && chr_loop_now(r->ctx) < deadline; left = waiting(&r->a) + waiting(&r->b)) {
        before = left;
        if (chr_loop_step(r->ctx, (int)((deadline - chr_loop_now(r->ctx)) / 1000000) + 1) < 0) return;
        if (waiting(&r->a) + waiting(&r->b) < before) deadline = chr_loop_now(r->ctx) + limit;
    }
    if (left > 0 || chr_drain(r->ctx, DRAIN_MS) < 0) fprintf(stderr, "relay: the rest was not taken within %d seconds\n", DRAIN_MS / 1000);
}

static void leave(struct side *s)
{
    chr_timer_stop(&s->break_over);
    chr_timer_stop(&s->look);
    chr_fe_deinit(&s->fe);
}

static void relay_until_done(struct relay *r)
{
    static const chr_handlers handlers = { .can_read = can_read, .read = got, .event = happened };

    chr_fe_set_handlers(&r->a.fe, &handlers, &r->a);
    chr_fe_set_handlers(&r->b.fe, &handlers, &r->b);
    while (!r->done && !told_to_stop) {
        if (chr_loop_step(r->ctx, -1) < 0) end(r, TROUBLE);
        if (told_to_reopen) reopen_logs(r);
    }
    drain(r);
    leave(&r->a);
    leave(&r->b);
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
    int       code = strncmp(text, "authz", 5) == 0 ? chr_authz_add(ctx, text, &err) : chr_tls_creds_add(ctx, text, &err);

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

    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) return fputs(usage_text, stdout) < 0;
    argc -= 1, argv += 1;
    for (; argc > 0 && take_switch(r, argv[0]); argc--, argv++) {}
    for (; argc > 1 && strcmp(argv[0], "-object") == 0; argc -= 2, argv += 2)
        if (add_object(r->ctx, argv[1]) < 0) return TROUBLE;
    for (i = 0; i < argc; i++)
        if (is_help(argv[i])) return help(r->ctx, argv[i]);
    return argc == 2 ? run(r, argv[0], argv[1]) : usage();
}

/* What a script has not got to when the relay ends, it has missed. One that has failed was logged. */
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
    config.exit = on_exit_asked;
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
