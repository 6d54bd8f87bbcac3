/*
 * RFC 2217 from end to end: a client and a server, each with a frontend that sets the line, its flow control, modem
 * lines and breaks, and writes, in any order, while the wire between them is cut into pieces (what a peer may say that
 * is not ours is fuzz_telnet's part). Each gets the other's bytes, all and in order; in the end both have the same line
 * in force, and modem lines that cross as in a null modem. First byte: 1 = the client's settings come before the
 * connection.
 */
#include "fuzz_line.h"

enum { COM_STEPS = 64 };

typedef struct com_end {
    fuzz_line *line;
    size_t     written;
    int        is_broken; /* holds the line in break */
    int        lines;     /* that it has set last; -1 = none */
} com_end;

static uint8_t com_pattern(size_t at)
{
    uint8_t c = (uint8_t)(at * 2654435761u >> 13);
    return c == 13 || c == 0 ? 255 : c; /* line ends are telnet's own business */
}

/* Up to `most` bytes go over; SIZE_MAX = all that there are. */
static int com_carry(com_end ends[2], int from, size_t most)
{
    fuzz_line *a = ends[from].line, *b = ends[!from].line;
    size_t     len;
    fuzz_line_settle(a);
    fuzz_line_hear(a);
    len = a->heard_length < most ? a->heard_length : most;
    if (len == 0) return 0;
    FUZZ_CHECK(wire_say(b->peer, a->heard, len) == (ssize_t)len);
    memmove(a->heard, a->heard + len, a->heard_length - len);
    a->heard_length -= len;
    fuzz_line_settle(b);
    return 1;
}

/* Answers that provoke answers without end would be a finding. */
static void com_carry_all(com_end ends[2])
{
    int i;
    for (i = 0; i < 1000 && (com_carry(ends, 0, SIZE_MAX) | com_carry(ends, 1, SIZE_MAX)); i++) {}
    FUZZ_CHECK(i < 1000);
}

static void com_write(com_end *end, size_t len)
{
    uint8_t bytes[256];
    size_t  i;
    int     n;
    for (i = 0; i < len; i++) bytes[i] = com_pattern(end->written + i);
    n = len ? chr_fe_write(&end->line->fe, bytes, len) : 0;
    FUZZ_CHECK((n >= 0 && n <= (int)len) || n == CHR_ERR_WOULD_BLOCK);
    if (n > 0) end->written += (size_t)n;
}

static void com_break(com_end *end, int on)
{
    FUZZ_CHECK(chr_fe_ioctl(&end->line->fe, CHR_IOCTL_SERIAL_SET_BREAK, &on) == 0);
    end->is_broken = on;
}

static void com_set(com_end *end, uint8_t what, uint8_t value)
{
    static const int  speeds[] = { 50, 1200, 9600, 115200, 255, 65535, 4000000, 16777 };
    chr_serial_params params;
    int               number = value, code;
    params.speed = speeds[value & 7];
    params.parity = "NEOMS"[(value >> 3) % 5];
    params.data_bits = 5 + (value >> 5 & 3);
    params.stop_bits = 1 + (value >> 7);
    switch (what) {
    case 0: code = chr_fe_ioctl(&end->line->fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params); break;
    case 1:
        number = value % 3 == value / 3 % 3 ? value % 3 : CHR_FLOW_SPLIT(value % 3, value / 3 % 3);
        code = chr_fe_ioctl(&end->line->fe, CHR_IOCTL_SERIAL_SET_FLOW, &number);
        break;
    case 2:
        number = (value & 1 ? CHR_TIOCM_DTR : 0) | (value & 2 ? CHR_TIOCM_RTS : 0);
        code = chr_fe_ioctl(&end->line->fe, CHR_IOCTL_SERIAL_SET_TIOCM, &number);
        end->lines = number;
        break;
    case 3:
        number = 1 + value % 3;
        code = chr_fe_ioctl(&end->line->fe, CHR_IOCTL_SERIAL_PURGE, &number);
        break;
    default: code = chr_fe_ioctl(&end->line->fe, CHR_IOCTL_SERIAL_SET_ERRORS, &number); break;
    }
    FUZZ_CHECK(code == 0 || code == CHR_ERR_NOT_SUPPORTED || code == CHR_ERR_INVALID);
}

/* Purged bytes are expected to be missing; they are left out of the comparison. */
static void com_happen(com_end ends[2], fuzz_bytes *in, int *is_purged)
{
    uint8_t  what = fuzz_byte(in), much = fuzz_byte(in);
    int      who = what >> 7;
    com_end *end = &ends[who];
    switch (what & 15) {
    case 0: case 1: case 2: case 3: case 4:
        if (who == 0 && (what & 15) < 2) break; /* a server has what its client sets */
        com_set(end, what & 15, much);
        *is_purged |= (what & 15) == 3;
        break;
    case 5: case 6:
        com_write(end, end->written < LINE_MOST / 4 ? much : 0);
        break;
    case 7:
        if (end->is_broken != (much & 1)) com_break(end, much & 1);
        break;
    case 8: fuzz_line_give_room(end->line, much < 200 ? much : LINE_MOST); break;
    case 9: com_carry_all(ends); break;
    default: com_carry(ends, who, much + 1u); break;
    }
}

static void com_check_bytes(const com_end *end, const com_end *other)
{
    size_t i;
    FUZZ_CHECK(end->line->length == other->written);
    for (i = 0; i < end->line->length; i++) FUZZ_CHECK(end->line->data[i] == com_pattern(i));
}

/* Both ends have the same in force. */
static void com_check_line(const com_end ends[2])
{
    chr_serial_params params[2];
    int               flow[2], lines[2], i;
    memset(params, 0, sizeof params);
    for (i = 0; i < 2; i++) {
        FUZZ_CHECK(chr_fe_ioctl((chr_frontend *)&ends[i].line->fe, CHR_IOCTL_SERIAL_GET_PARAMS, &params[i]) == 0);
        FUZZ_CHECK(chr_fe_ioctl((chr_frontend *)&ends[i].line->fe, CHR_IOCTL_SERIAL_GET_FLOW, &flow[i]) == 0);
        FUZZ_CHECK(chr_fe_ioctl((chr_frontend *)&ends[i].line->fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines[i]) == 0);
    }
    FUZZ_CHECK(params[0].speed == params[1].speed && params[0].parity == params[1].parity);
    FUZZ_CHECK(params[0].data_bits == params[1].data_bits && params[0].stop_bits == params[1].stop_bits);
    for (i = 0; i < 2; i++) {
        if (ends[i].lines < 0) continue;
        FUZZ_CHECK(!(ends[i].lines & CHR_TIOCM_DTR) == !(lines[!i] & CHR_TIOCM_DSR));
        FUZZ_CHECK(!(ends[i].lines & CHR_TIOCM_RTS) == !(lines[!i] & CHR_TIOCM_CTS));
    }
}

int FUZZ_TARGET(const uint8_t *data, size_t size)
{
    fuzz_bytes   in = { data, size };
    com_end      ends[2];
    chr_context *ctx = fuzz_context(data, size);
    int          flags = fuzz_byte(&in), is_purged = 0, i;
    memset(ends, 0, sizeof ends);
    ends[0].lines = ends[1].lines = -1;
    for (i = 0; i < 2; i++) { /* the server is the first */
        ends[i].line = fuzz_line_join(ctx, i ? "c" : "s", !i, "telnet=on,com-port=on");
        ends[i].line->room = LINE_MOST;
        ends[i].line->may_stop = 1;
    }
    if (!(flags & 1)) com_carry_all(ends);
    for (i = 0; in.size > 0 && i < COM_STEPS; i++) com_happen(ends, &in, &is_purged);
    for (i = 0; i < 2; i++) fuzz_line_give_room(ends[i].line, LINE_MOST);
    com_carry_all(ends);
    com_check_line(ends);
    for (i = 0; i < 2; i++) FUZZ_CHECK(ends[i].line->opened && !ends[i].line->closed);
    for (i = 0; i < 2 && !is_purged; i++) com_check_bytes(&ends[i], &ends[!i]);
    for (i = 0; i < 2; i++) fuzz_line_leave(ends[i].line);
    fuzz_end(ctx);
    return 0;
}
