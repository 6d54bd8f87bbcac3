/*
 * What a peer sends to a telnet or tn3270 chardev, server or client, or to one with com-port=on, against a model that
 * decodes it in one piece: the data, where BREAK stands among them, and no more answers than requests, each of them
 * complete. A tn3270 client gets it behind the agreement, or instead of that. First byte: which chardev; second: how
 * the stream is cut.
 */
#include "fuzz_line.h"

typedef struct tn_model {
    unsigned char data[LINE_MOST];
    size_t        length, breaks, break_at[LINE_MOST], requests, subs, are_you_there;
    int           role;       /* of the chardev with com-port: 's', 'c'; 0 = none */
    int           is_on, is_asked; /* the peer has agreed to it; has not answered */
    int           in_break;   /* a server's client holds the line in break */
} tn_model;

static void tn_break(tn_model *m)
{
    m->break_at[m->breaks++] = m->length;
}

/* Whether it is one that it understands; the first of them is an agreement, too, as long as the other side was only
 * asked. */
static int tn_is_com(const tn_model *m, const uint8_t *sub, size_t n)
{
    int command = n < 2 ? -1 : m->role == 's' ? sub[1] : sub[1] - 100, most = command == 1 ? 6 : 3;
    if (command == 0 || command == 8 || command == 9 || (m->role == 's' && (command == 6 || command == 7))) most = 2;
    return m->role && n >= 2 && sub[0] == 44 && command >= 0 && command <= 12 && (int)n == most && (m->is_on || m->is_asked);
}

/* What com-port makes of a subnegotiation that is complete: BREAK is all that is modelled. */
static void tn_sub(tn_model *m, const uint8_t *bytes, size_t len)
{
    uint8_t sub[8] = { 0 };
    size_t  i, n = 0;
    for (i = 0; i < len; i++) {
        if (bytes[i] == 255 && ++i < len && bytes[i] != 255) continue;
        if (n < sizeof sub) sub[n++] = bytes[i];
    }
    m->subs++;
    if (!tn_is_com(m, sub, n)) return;
    m->is_on = 1;
    if (n != 3) return;
    if (m->role == 'c' && sub[1] == 106 && (sub[2] & 16)) tn_break(m);
    if (m->role == 's' && sub[1] == 5 && sub[2] == 5 && !m->in_break) tn_break(m);
    if (m->role == 's' && sub[1] == 5 && (sub[2] == 5 || sub[2] == 6)) m->in_break = sub[2] == 5;
}

static void tn_verb(tn_model *m, uint8_t verb, uint8_t option, int *is_binary)
{
    int yes = m->role == 's' ? 251 : 253;
    m->requests++;
    if (verb == 251 && option == 0) *is_binary = 1;
    if (verb == 252 && option == 0) *is_binary = 0;
    if (m->role && option == 44 && (verb == yes || verb == yes + 1)) m->is_on = verb == yes, m->is_asked = 0;
    if (!m->is_on) m->in_break = 0;
}

/* One command that begins at bytes[0] == IAC. Returns its length, 0 = it isn't complete. */
static size_t tn_command(tn_model *m, const uint8_t *bytes, size_t len, int is_3270, int *is_binary)
{
    size_t i;
    if (len < 2) return 0;
    if (bytes[1] == 255 || (is_3270 && bytes[1] == 239) || (is_3270 == 1 && (bytes[1] == 240 || bytes[1] == 250))) { /* 2: a client */
        m->data[m->length++] = 255;
        if (is_3270) m->data[m->length++] = bytes[1];
        return 2;
    }
    if (bytes[1] >= 251) {
        if (len < 3) return 0;
        tn_verb(m, bytes[1], bytes[2], is_binary);
        return 3;
    }
    if (bytes[1] == 243) tn_break(m);
    if (bytes[1] == 246) m->are_you_there++;
    if (bytes[1] != 250) return 2;
    for (i = 2; i + 1 < len; i++) {
        if (bytes[i] != 255) continue;
        if (bytes[i + 1] == 240) return tn_sub(m, bytes + 2, i - 2), i + 2;
        i++;
    }
    return 0;
}

static void tn_decode(tn_model *m, const uint8_t *bytes, size_t len, int is_3270)
{
    size_t at = 0, n;
    int    is_binary = is_3270, after_cr = 0;
    while (at < len) {
        if (bytes[at] == 255) {
            n = tn_command(m, bytes + at, len - at, is_3270, &is_binary);
            if (n == 0) return;
            if (n == 2 && bytes[at + 1] == 255) after_cr = 0;
            if (is_3270) is_binary = 1;
            at += n;
            continue;
        }
        if (!(bytes[at] == 0 && after_cr && !is_binary)) m->data[m->length++] = bytes[at];
        after_cr = bytes[at] == '\r';
        at++;
    }
}

/* The chardev's own output is complete commands, and replies to AYT. Returns the number of those replies. */
static size_t tn_check_heard(const unsigned char *bytes, size_t len)
{
    size_t at, end, there = 0;
    for (at = 0; at < len; at = end) {
        if (at + 9 <= len && memcmp(bytes + at, "\r\n[Yes]\r\n", 9) == 0) {
            end = at + 9;
            there++;
            continue;
        }
        FUZZ_CHECK(bytes[at] == 255 && at + 3 <= len && bytes[at + 1] >= 250);
        end = at + 3;
        if (bytes[at + 1] != 250) continue;
        for (; end + 1 < len && !(bytes[end] == 255 && bytes[end + 1] == 240); end += bytes[end] == 255 ? 2 : 1) {}
        FUZZ_CHECK(end + 1 < len && (bytes[at + 2] == 44 || bytes[at + 2] == 24 || bytes[at + 2] == 31) && end - at <= 60);
        end += 2;
    }
    return there;
}

/* The frontend of a com port that sets something, too; all that is in force is possible. */
static void tn_use_com_port(fuzz_line *l, uint8_t cuts)
{
    chr_serial_params params = { 9600, 'E', 7, 2 };
    int               lines = cuts & 2 ? CHR_TIOCM_DTR : CHR_TIOCM_RI, code;
    int               flow = cuts & 32 ? CHR_FLOW_RTSCTS : CHR_FLOW_SPLIT(CHR_FLOW_XONXOFF, CHR_FLOW_NONE), what = 1 + cuts % 3, errors = cuts;
    if (cuts & 4) FUZZ_CHECK(chr_fe_ioctl(&l->fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params) != CHR_ERR_INVALID);
    if (cuts & 8) chr_fe_ioctl(&l->fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines);
    if (cuts & 16) chr_fe_ioctl(&l->fe, CHR_IOCTL_SERIAL_SET_FLOW, &flow);
    if (cuts & 64) FUZZ_CHECK(chr_fe_ioctl(&l->fe, CHR_IOCTL_SERIAL_PURGE, &what) != CHR_ERR_INVALID);
    chr_fe_ioctl(&l->fe, CHR_IOCTL_SERIAL_SET_ERRORS, &errors);
    code = chr_fe_ioctl(&l->fe, CHR_IOCTL_SERIAL_GET_ERRORS, &errors);
    FUZZ_CHECK(code < 0 || (errors & ~0x0e) == 0);
    code = chr_fe_ioctl(&l->fe, CHR_IOCTL_SERIAL_GET_PARAMS, &params);
    FUZZ_CHECK(code == 0 || code == CHR_ERR_NOT_SUPPORTED);
    FUZZ_CHECK(code < 0 || chr_fe_ioctl(&l->fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params) == 0);
    code = chr_fe_ioctl(&l->fe, CHR_IOCTL_SERIAL_GET_FLOW, &flow);
    FUZZ_CHECK(code < 0 || ((flow & 15) <= CHR_FLOW_RTSCTS && flow >> 4 <= 1 + CHR_FLOW_RTSCTS && flow >= 0));
    fuzz_line_settle(l);
}

static const char tn_agreement[] = "hello\xff\xfd\x18\xff\xfa\x18\x01\xff\xf0\xff\xfd\x19\xff\xfb\x19\xff\xfd\x00\xff\xfb\x00";

/* Input from a host before a tn3270 client has opened: without agreed options it never opens. */
static void tn_hosts(fuzz_line *l, const uint8_t *bytes, size_t len, uint8_t cuts)
{
    FUZZ_CHECK(!l->opened);
    fuzz_line_feed(l, bytes, len, cuts);
    if (!memmem(bytes, len, "\xfb\x19", 2) || !memmem(bytes, len, "\xfd\x19", 2)) FUZZ_CHECK(!l->opened);
    if (!l->opened) FUZZ_CHECK(chr_fe_write(&l->fe, "x", 1) == CHR_ERR_DISCONNECTED);
    FUZZ_CHECK(tn_check_heard(l->heard, l->heard_length) == 0);
    fuzz_line_close(l);
}

int FUZZ_TARGET(const uint8_t *data, size_t size)
{
    static const char *const protocols[] = { "telnet=on", "telnet=on", "tn3270=on", "telnet=on,com-port=on", "telnet=on,com-port=on",
                                             "tn3270=on", "tn3270=on" };
    static tn_model          m;
    fuzz_bytes               in = { data, size };
    int                      which = fuzz_byte(&in) % 7, is_3270 = which == 2 ? 1 : which == 5 ? 2 : 0;
    uint8_t                  cuts = fuzz_byte(&in);
    chr_terminal_size        window = { 255, 65535 };
    size_t                   greeting, there, i;
    fuzz_line               *l;
    if (in.size > LINE_MOST / 4) return 0;
    m.length = m.breaks = m.requests = m.subs = m.are_you_there = 0;
    m.role = which == 3 ? 's' : which == 4 ? 'c' : 0;
    m.is_on = m.in_break = 0;
    m.is_asked = 1;
    tn_decode(&m, in.data, in.size, is_3270);
    l = fuzz_line_open(&in, which != 1 && which < 4, protocols[which]);
    if (which == 6) {
        tn_hosts(l, in.data, in.size, cuts);
        return 0;
    }
    if (which == 5) FUZZ_CHECK(!l->opened && fuzz_line_say(l, tn_agreement, sizeof tn_agreement - 1));
    FUZZ_CHECK(l->opened);
    if (which == 1) FUZZ_CHECK(chr_fe_ioctl(&l->fe, CHR_IOCTL_SET_TERMINAL_SIZE, &window) == 0);
    fuzz_line_settle(l);
    l->may_stop = m.role != 0;
    greeting = l->heard_length;
    fuzz_line_feed(l, in.data, in.size, cuts);
    FUZZ_CHECK(!l->closed);
    FUZZ_CHECK(l->length == m.length && memcmp(l->data, m.data, m.length) == 0);
    FUZZ_CHECK(l->events == m.breaks);
    for (i = 0; i < m.breaks; i++) FUZZ_CHECK(l->event_at[i] == m.break_at[i]);
    if (m.role) tn_use_com_port(l, cuts);
    there = tn_check_heard(l->heard + greeting, l->heard_length - greeting);
    FUZZ_CHECK(m.role ? there <= m.are_you_there : there == (is_3270 ? 0 : m.are_you_there)); /* a com port's client may say SUSPEND */
    FUZZ_CHECK(l->heard_length - greeting <=
               (m.role ? 200 : 13) * (m.requests + 1) + (m.role ? 40 : 20) * (m.subs + 8) + 9 * m.are_you_there);
    fuzz_line_close(l);
    return 0;
}
