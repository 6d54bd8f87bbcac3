/*
 * What a peer sends to a telnet or tn3270 chardev, against a model that decodes it in one piece: the data, where BREAK stands among
 * them, and no more answers than requests. First byte: which chardev; second: how the stream is cut.
 */
#include "fuzz_line.h"

typedef struct tn_model {
    unsigned char data[LINE_MOST];
    size_t        length, breaks, break_at[LINE_MOST], requests;
} tn_model;

/* One command that begins at bytes[0] == IAC. Returns its length, 0 = it isn't complete. */
static size_t tn_command(tn_model *m, const uint8_t *bytes, size_t len, int is_3270, int *is_binary)
{
    size_t i;
    if (len < 2) return 0;
    if (bytes[1] == 255 || (is_3270 && (bytes[1] == 239 || bytes[1] == 240 || bytes[1] == 250))) {
        m->data[m->length++] = 255;
        if (is_3270) m->data[m->length++] = bytes[1];
        return 2;
    }
    if (bytes[1] >= 251) {
        if (len < 3) return 0;
        m->requests++;
        if (bytes[1] == 251 && bytes[2] == 0) *is_binary = 1;
        if (bytes[1] == 252 && bytes[2] == 0) *is_binary = 0;
        return 3;
    }
    if (bytes[1] == 243) m->break_at[m->breaks++] = m->length;
    if (bytes[1] != 250) return 2;
    for (i = 2; i + 1 < len; i++) {
        if (bytes[i] != 255) continue;
        if (bytes[i + 1] == 240) return i + 2;
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

int FUZZ_TARGET(const uint8_t *data, size_t size)
{
    static const char *const protocols[] = { "telnet=on", "telnet=on", "tn3270=on" };
    static tn_model          m;
    fuzz_bytes               in = { data, size };
    int                      which = fuzz_byte(&in) % 3;
    uint8_t                  cuts = fuzz_byte(&in);
    size_t                   greeting, i;
    fuzz_line               *l;
    if (in.size > LINE_MOST / 4) return 0;
    m.length = m.breaks = m.requests = 0;
    tn_decode(&m, in.data, in.size, which == 2);
    l = fuzz_line_open(which != 1, protocols[which]);
    FUZZ_CHECK(l->opened);
    greeting = l->heard_length;
    fuzz_line_feed(l, in.data, in.size, cuts);
    FUZZ_CHECK(!l->closed);
    FUZZ_CHECK(l->length == m.length && memcmp(l->data, m.data, m.length) == 0);
    FUZZ_CHECK(l->events == m.breaks);
    for (i = 0; i < m.breaks; i++) FUZZ_CHECK(l->event_at[i] == m.break_at[i]);
    FUZZ_CHECK(l->heard_length - greeting <= 3 * (m.requests + 1));
    fuzz_line_close(l);
    return 0;
}
