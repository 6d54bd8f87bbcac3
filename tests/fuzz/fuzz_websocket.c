/*
 * What a peer sends to a websocket chardev, against a model that reads the frames in one piece: the payload, and
 * whether and with which code it ends. First byte: 1 = client, 2 = text passes, 4 = the input begins with the HTTP
 * head, 16 = a server of several clients, 32 = one that replaces; second: how the stream is cut.
 */
#include "fuzz_line.h"

typedef struct wsm {
    unsigned char data[LINE_MOST];
    size_t        length;
    int           code;     /* of the Close frame that must come back; 0 = none, 1 = one without a code */
    int           has_text; /* UTF-8 is not checked here: it may end earlier */
} wsm;

static int wsm_good_code(int code)
{
    return code >= 1000 && code < 5000 && (code >= 3000 || (code <= 1014 && code != 1004 && code != 1005 && code != 1006));
}

static int wsm_close(const unsigned char *payload, size_t len)
{
    if (len == 0) return 1;
    if (len == 1) return 1002;
    return wsm_good_code(payload[0] << 8 | payload[1]) ? payload[0] << 8 | payload[1] : 1002;
}

/* One frame at bytes; returns its length, 0 = the input ends in it, or the connection. */
static size_t wsm_frame(wsm *m, const uint8_t *bytes, size_t len, int is_server, int passes_text, int *message)
{
    unsigned char control[125];
    uint64_t      size;
    size_t        i, extended, head, n;
    int           opcode, final;
    if (len < 2) return 0;
    extended = (bytes[1] & 127) == 126 ? 2 : (bytes[1] & 127) == 127 ? 8 : 0;
    head = 2 + extended + (bytes[1] & 128 ? 4 : 0);
    if (len < head) return 0;
    size = extended ? 0 : bytes[1] & 127;
    for (i = 0; i < extended; i++) size = size << 8 | bytes[2 + i];
    opcode = bytes[0] & 15;
    final = bytes[0] >> 7;
    m->code = 1002;
    if (bytes[0] & 0x70 || (bytes[1] >> 7) != is_server) return 0;
    if ((extended == 2 && size < 126) || (extended == 8 && (size < 65536 || size >> 63))) return 0;
    if (opcode > 10 || (opcode > 2 && opcode < 8)) return 0;
    if (opcode >= 8 && (!final || size > 125)) return 0;
    if (opcode == 0 && !*message) return 0;
    if ((opcode == 1 || opcode == 2) && *message) return 0;
    if (opcode == 1 && !passes_text) m->code = 1003;
    if (opcode == 1 && !passes_text) return 0;
    m->code = 0;
    if (opcode == 1) m->has_text = 1;
    if (opcode == 1 || opcode == 2) *message = opcode;
    n = len - head < size ? len - head : (size_t)size;
    for (i = 0; i < n; i++) {
        unsigned char c = (unsigned char)(bytes[head + i] ^ (is_server ? bytes[head - 4 + (i & 3)] : 0));
        if (opcode >= 8) control[i] = c;
        else m->data[m->length++] = c;
    }
    if (n < size) return 0;
    if (opcode == 8) m->code = wsm_close(control, n);
    if (opcode < 3 && final) *message = 0;
    return opcode == 8 ? 0 : head + n;
}

static void wsm_read(wsm *m, const uint8_t *bytes, size_t len, int is_server, int passes_text)
{
    int    message = 0;
    size_t n = 1;
    m->length = 0;
    m->code = m->has_text = 0;
    for (; len > 0 && n > 0; bytes += n, len -= n) n = wsm_frame(m, bytes, len, is_server, passes_text, &message);
}

static void wsm_shake(fuzz_line *l, int is_client)
{
    char answer[400], proof[29], key[25];
    if (is_client) {
        const char *at = strstr((const char *)l->heard, "Sec-WebSocket-Key: ");
        FUZZ_CHECK(at != NULL);
        snprintf(key, sizeof key, "%s", at + 19);
        chr__ws_accept_value(key, proof);
        snprintf(answer, sizeof answer,
                 "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", proof);
    } else {
        snprintf(answer, sizeof answer, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    }
    FUZZ_CHECK(fuzz_line_say(l, answer, strlen(answer)));
    FUZZ_CHECK(l->opened);
    l->heard_length = 0;
}

/* The code of the Close frame that a server has sent last, 1 = without one, 0 = none. */
static int wsm_heard_code(const fuzz_line *l)
{
    size_t at = 0, size = 0;
    int    code = 0;
    for (; at + 2 <= l->heard_length; at += 2 + size) {
        FUZZ_CHECK(code == 0); /* nothing comes after it */
        size = l->heard[at + 1];
        FUZZ_CHECK(size <= 125 && at + 2 + size <= l->heard_length);
        FUZZ_CHECK(l->heard[at] == 0x8a || l->heard[at] == 0x88);
        if (l->heard[at] == 0x88) code = size >= 2 ? l->heard[at + 2] << 8 | l->heard[at + 3] : 1;
    }
    return code;
}

/* With our own end of output before it: one Close frame and nothing behind it, but the peer's data still comes. */
static void wsm_check(const fuzz_line *l, const wsm *m, int is_client, int is_half)
{
    int ended_by_text = m->has_text && l->closed && l->length <= m->length;
    FUZZ_CHECK(l->length <= m->length && memcmp(l->data, m->data, l->length) == 0);
    if (!is_client && wsm_heard_code(l) == 1007) return; /* of a text or of a Close frame's reason */
    if ((is_client || is_half) && ended_by_text) return;
    FUZZ_CHECK(l->length == m->length);
    FUZZ_CHECK(l->closed == (m->code != 0));
    if (!is_client) FUZZ_CHECK(wsm_heard_code(l) == (is_half ? 1000 : m->code));
}

int FUZZ_TARGET(const uint8_t *data, size_t size)
{
    static wsm m;
    fuzz_bytes in = { data, size };
    int        flags = fuzz_byte(&in), is_client = flags & 1, passes_text = !!(flags & 2), with_head = flags & 4, is_half = !with_head && flags & 8;
    uint8_t    cuts = fuzz_byte(&in);
    char       options[120];
    fuzz_line *l;
    if (in.size > LINE_MOST / 4) return 0;
    snprintf(options, sizeof options, "websocket=on%s%s%s", passes_text ? ",websocket-text=on" : "", !is_client && flags & 16 ? ",clients=2" : "",
             !is_client && (flags & 48) == 32 ? ",replace=on,keep-alive=on,idle-timeout=9" : "");
    l = fuzz_line_open(&in, !is_client, options);
    FUZZ_CHECK(!l->opened);
    if (!with_head) {
        wsm_read(&m, in.data, in.size, !is_client, passes_text);
        wsm_shake(l, is_client);
    }
    if (is_half) FUZZ_CHECK(chr_fe_shutdown(&l->fe) == 0);
    fuzz_line_feed(l, in.data, in.size, cuts);
    if (!with_head) wsm_check(l, &m, is_client, is_half);
    fuzz_line_close(l);
    return 0;
}
