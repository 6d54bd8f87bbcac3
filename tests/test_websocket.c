/*
 * websocket, server and client: RFC 6455 case by case, each stream fed whole, split at every byte, and with little
 * room.
 */
#include "chardev.h"
#include "fault.h"
#include "private.h"
#include "rig.h"

#define REQUEST_HEAD "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
#define KEY          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" /* the RFC's own example */
#define VERSION      "Sec-WebSocket-Version: 13\r\n"
#define REQUEST      REQUEST_HEAD KEY VERSION "\r\n"
#define ACCEPTED     "HTTP/1.1 101 Switching Protocols\r\nServer: chardev\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" \
                     "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"

/* ---- a websocket chardev, and the peer's end of its connection --------------------------------------------------- */

typedef struct line {
    rig      r;
    recorder rec;
    chr_dev *dev;
    int      peer, is_server;
    char     heard[150000];
    size_t   length;
} line;

/* Adds what the peer can read now to what it has received. */
static void listen_in(line *l)
{
    struct pollfd p = { 0, POLLIN, 0 };
    ssize_t       got;
    p.fd = l->peer;
    while (l->length < sizeof l->heard - 1 && poll(&p, 1, 0) > 0) {
        got = read(l->peer, l->heard + l->length, sizeof l->heard - 1 - l->length);
        if (got <= 0) break;
        l->length += (size_t)got;
    }
    l->heard[l->length] = 0;
}

static void forget_heard(line *l)
{
    listen_in(l);
    l->length = 0;
}

static void say_bytes(line *l, const void *bytes, size_t len)
{
    if (len > 0) CHECK_INT(write(l->peer, bytes, len), len);
}

static void open_server(line *l, const char *more, int room)
{
    static int will_clean;
    char       options[300];
    if (!will_clean) atexit(scratch_clean);
    will_clean = 1;
    snprintf(options, sizeof options, "socket,id=w,path=%s,server=on,wait=off,websocket=on%s", scratch("s"), more);
    l->dev = make(&l->r, options);
    attach_with_room(&l->rec, l->dev, room);
}

static void connect_peer(line *l)
{
    int       fds[2];
    chr_error err;
    socket_pair(fds);
    l->peer = fds[0];
    l->length = 0;
    if (!CHECK_INT(chr_add_client(l->r.ctx, "w", fds[1], &err), 0)) NOTE("%s", err.text);
    settle(&l->r);
}

/* The proof that belongs to the key in a client's request. */
static void answer_key(line *l, char *answer, size_t size, const char *more)
{
    char        key[25], proof[29];
    const char *at;
    listen_in(l);
    at = strstr(l->heard, "Sec-WebSocket-Key: ");
    REQUIRE(at != NULL);
    snprintf(key, sizeof key, "%s", at + 19);
    private_ws_proof(key, proof);
    snprintf(answer, size,
             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Accept: %s\r\n%s\r\n",
             proof, more);
}

static void open_client(line *l, const char *more, int room)
{
    char options[200];
    int  fds[2];
    socket_pair(fds);
    l->peer = fds[0];
    snprintf(options, sizeof options, "socket,id=w,fd=%d,websocket=on%s", fds[1], more);
    l->dev = make(&l->r, options);
    attach_with_room(&l->rec, l->dev, room);
    settle(&l->r);
}

static line *line_new(int is_server, const char *more, int room)
{
    line *l = (line *)calloc(1, sizeof *l);
    REQUIRE(l != NULL);
    rig_open_virtual(&l->r);
    l->is_server = is_server;
    if (is_server) {
        open_server(l, more, room);
        connect_peer(l);
    } else open_client(l, more, room);
    return l;
}

/* With the handshake over. */
static line *line_open(int is_server, const char *more, int room)
{
    char  answer[400];
    line *l = line_new(is_server, more, room);
    if (is_server) snprintf(answer, sizeof answer, "%s", REQUEST);
    else answer_key(l, answer, sizeof answer, "");
    say(l->peer, answer);
    settle(&l->r);
    CHECK_STR(l->rec.events, "O");
    forget_heard(l);
    return l;
}

static void line_close(line *l)
{
    if (l->rec.fe.dev) detach(&l->rec);
    if (l->peer >= 0) close(l->peer);
    rig_close(&l->r);
    free(l);
}

/* ---- the test's own frames --------------------------------------------------------------------------------------- */

typedef struct frames {
    char   bytes[300000];
    size_t length;
} frames;

static void add(frames *f, const void *bytes, size_t len)
{
    memcpy(f->bytes + f->length, bytes, len);
    f->length += len;
}

/* `first` is the first byte of the header; `size` 0, 2 or 8: how many bytes of extended length, -1 = as few as will
 * do. */
static void add_frame_sized(frames *f, int masked, int first, const void *payload, size_t len, int size)
{
    unsigned char header[14];
    size_t        n = 0, i;
    if (size < 0) size = len < 126 ? 0 : len < 65536 ? 2 : 8;
    header[n++] = (unsigned char)first;
    header[n++] = (unsigned char)((masked ? 128 : 0) | (size == 0 ? (int)len : size == 2 ? 126 : 127));
    for (; size > 0; size--) header[n++] = (unsigned char)((uint64_t)len >> (8 * (size - 1)));
    if (masked) memcpy(header + n, "\x37\xfa\x21\x3d", 4), n += 4;
    add(f, header, n);
    add(f, payload, len);
    for (i = 0; masked && i < len; i++) f->bytes[f->length - len + i] ^= (char)header[n - 4 + (i & 3)];
}

static void add_frame(frames *f, int masked, int first, const void *payload, size_t len)
{
    add_frame_sized(f, masked, first, payload, len, -1);
}

/* ---- cases: what a peer sends, and what comes of it -------------------------------------------------------------- */

/* A script of frames in text, blank-separated: OPCODE[!]:PAYLOAD, "!" = not final; payload in plain, \x hex. t b m c
 * p q are text, binary, more, close, ping, pong. */
typedef struct ws_case {
    const char *category, *name, *script, *options;
    const char *data;   /* what the frontend gets */
    const char *answer; /* the frames that come back, in the same script */
    int         ends;   /* CLOSED follows */
} ws_case;

static const ws_case cases[] = {
    /* 1 framing */
    { "1", "binary_empty", "b:", "", "", "", 0 },
    { "1", "binary", "b:hello", "", "hello", "", 0 },
    { "1", "two_binary", "b:hello b:world", "", "helloworld", "", 0 },
    { "1", "text_refused", "t:hello", "", "", "c:\\03\\eb", 1 },
    { "1", "text_passed", "t:hello", ",websocket-text=on", "hello", "", 0 },
    { "1", "text_empty", "t: b:x", ",websocket-text=on", "x", "", 0 },
    /* 2 ping and pong */
    { "2", "ping_empty", "p: b:x", "", "x", "q:", 0 },
    { "2", "ping", "p:are-you-there b:x", "", "x", "q:are-you-there", 0 },
    { "2", "ping_binary_payload", "p:\\00\\ff\\fe\\fd", "", "", "q:\\00\\ff\\fe\\fd", 0 },
    { "2", "pong_unasked", "q: b:x", "", "x", "", 0 },
    { "2", "pong_unasked_with_payload_then_ping", "q:abc p:def", "", "", "q:def", 0 },
    { "2", "three_pings", "p:1 p:2 p:3", "", "", "q:1 q:2 q:3", 0 },
    /* 3 reserved bits */
    { "3", "rsv1", "b:a B1:b b:c", "", "a", "c:\\03\\ea", 1 },
    { "3", "rsv2", "B2:b b:c", "", "", "c:\\03\\ea", 1 },
    { "3", "rsv3", "B3:b", "", "", "c:\\03\\ea", 1 },
    { "3", "rsv1_on_ping", "P1:b", "", "", "c:\\03\\ea", 1 },
    { "3", "rsv1_on_close", "C1:", "", "", "c:\\03\\ea", 1 },
    { "3", "rsv1_on_more", "b!:a M1:b", "", "a", "c:\\03\\ea", 1 },
    /* 4 opcodes */
    { "4", "opcode_3", "3:", "", "", "c:\\03\\ea", 1 },
    { "4", "opcode_4_after_data", "b:a 4:x", "", "a", "c:\\03\\ea", 1 },
    { "4", "opcode_5", "5:x", "", "", "c:\\03\\ea", 1 },
    { "4", "opcode_6", "6:x", "", "", "c:\\03\\ea", 1 },
    { "4", "opcode_7", "7:x", "", "", "c:\\03\\ea", 1 },
    { "4", "opcode_11", "B:x", "", "", "c:\\03\\ea", 1 },
    { "4", "opcode_12", "C:x", "", "", "c:\\03\\ea", 1 },
    { "4", "opcode_13", "D:x", "", "", "c:\\03\\ea", 1 },
    { "4", "opcode_14", "E:x", "", "", "c:\\03\\ea", 1 },
    { "4", "opcode_15", "F:x", "", "", "c:\\03\\ea", 1 },
    /* 5 fragments */
    { "5", "two_fragments", "b!:hel m:lo", "", "hello", "", 0 },
    { "5", "many_fragments", "b!:a m!:b m!: m!:c m:d b:e", "", "abcde", "", 0 },
    { "5", "ping_between", "b!:a p:mid m:b", "", "ab", "q:mid", 0 },
    { "5", "pong_between", "b!:a q:mid m:b", "", "ab", "", 0 },
    { "5", "ping_fragmented", "p!:a m:b", "", "", "c:\\03\\ea", 1 },
    { "5", "pong_fragmented", "q!:a m:b", "", "", "c:\\03\\ea", 1 },
    { "5", "more_without_beginning", "m:b b:c", "", "", "c:\\03\\ea", 1 },
    { "5", "more_not_final_without_beginning", "m!:b", "", "", "c:\\03\\ea", 1 },
    { "5", "more_after_the_end", "b:a m:b", "", "a", "c:\\03\\ea", 1 },
    { "5", "binary_inside_binary", "b!:a b:b", "", "a", "c:\\03\\ea", 1 },
    { "5", "text_inside_binary", "b!:a t:b", ",websocket-text=on", "a", "c:\\03\\ea", 1 },
    { "5", "text_fragments", "t!:a m!:b m:c", ",websocket-text=on", "abc", "", 0 },
    { "5", "text_fragments_refused", "t!:a m:c", "", "", "c:\\03\\eb", 1 },
    { "5", "close_between", "b!:a c:\\03\\e8", "", "a", "c:\\03\\e8", 1 },
    /* 6 UTF-8 */
    { "6", "valid", "t:\\c3\\a9\\e2\\82\\ac\\f0\\9f\\98\\80", ",websocket-text=on", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "", 0 },
    { "6", "sequence_over_fragments", "t!:\\e2 m!:\\82 m:\\ac", ",websocket-text=on", "\xe2\x82\xac", "", 0 },
    { "6", "limits", "t:\\f4\\8f\\bf\\bf\\ed\\9f\\bf\\ee\\80\\80", ",websocket-text=on", "\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80", "", 0 },
    { "6", "unfinished", "t:\\e2\\82", ",websocket-text=on", NULL, "c:\\03\\ef", 1 },
    { "6", "unfinished_over_fragments", "t!:\\e2 m:\\82", ",websocket-text=on", NULL, "c:\\03\\ef", 1 },
    { "6", "stray_continuation", "t:\\80", ",websocket-text=on", NULL, "c:\\03\\ef", 1 },
    { "6", "overlong_2", "t:\\c0\\af", ",websocket-text=on", NULL, "c:\\03\\ef", 1 },
    { "6", "overlong_3", "t:\\e0\\80\\af", ",websocket-text=on", NULL, "c:\\03\\ef", 1 },
    { "6", "overlong_4", "t:\\f0\\80\\80\\af", ",websocket-text=on", NULL, "c:\\03\\ef", 1 },
    { "6", "surrogate", "t:\\ed\\a0\\80", ",websocket-text=on", NULL, "c:\\03\\ef", 1 },
    { "6", "beyond_unicode", "t:\\f4\\90\\80\\80", ",websocket-text=on", NULL, "c:\\03\\ef", 1 },
    { "6", "impossible_byte", "t:\\fe", ",websocket-text=on", NULL, "c:\\03\\ef", 1 },
    { "6", "binary_is_not_checked", "b:\\fe\\ff\\c0", ",websocket-text=on", "\xfe\xff\xc0", "", 0 },
    /* 7 close */
    { "7", "close_empty", "b:a c: b:never", "", "a", "c:", 1 },
    { "7", "close_1000", "c:\\03\\e8 p:never", "", "", "c:\\03\\e8", 1 },
    { "7", "close_with_reason", "c:\\03\\e8bye", "", "", "c:\\03\\e8", 1 },
    { "7", "close_one_byte", "c:\\03", "", "", "c:\\03\\ea", 1 },
    { "7", "close_reason_not_utf8", "c:\\03\\e8\\ff", "", "", "c:\\03\\ef", 1 },
    { "7", "close_reason_in_utf8", "c:\\03\\e8\\c3\\a9", "", "", "c:\\03\\e8", 1 },
    { "7", "close_reason_cut_in_a_character", "c:\\03\\e8\\c3", "", "", "c:\\03\\ef", 1 },
    { "7", "close_reason_cut_in_a_long_character", "c:\\03\\e8bye\\f0\\9f\\98", "", "", "c:\\03\\ef", 1 },
    { "7", "close_reason_after_a_longer_ping", "p:\\ff\\ff\\ff\\ff\\ff\\ff\\ff c:\\03\\e8bye", "", "",
      "q:\\ff\\ff\\ff\\ff\\ff\\ff\\ff c:\\03\\e8", 1 },
    { "7", "close_without_a_reason_after_a_ping", "p:\\03\\e8\\ff c:\\03\\e8", "", "", "q:\\03\\e8\\ff c:\\03\\e8", 1 },
    { "7", "close_while_a_message_is_under_way", "t!:\\e2 c:\\03\\e8", ",websocket-text=on", NULL, "c:\\03\\e8", 1 },
    { "7", "close_1001", "c:\\03\\e9", "", "", "c:\\03\\e9", 1 },
    { "7", "close_1002", "c:\\03\\ea", "", "", "c:\\03\\ea", 1 },
    { "7", "close_1003", "c:\\03\\eb", "", "", "c:\\03\\eb", 1 },
    { "7", "close_1007", "c:\\03\\ef", "", "", "c:\\03\\ef", 1 },
    { "7", "close_1011", "c:\\03\\f3", "", "", "c:\\03\\f3", 1 },
    { "7", "close_3000", "c:\\0b\\b8", "", "", "c:\\0b\\b8", 1 },
    { "7", "close_4999", "c:\\13\\87", "", "", "c:\\13\\87", 1 },
    { "7", "close_0", "c:\\00\\00", "", "", "c:\\03\\ea", 1 },
    { "7", "close_999", "c:\\03\\e7", "", "", "c:\\03\\ea", 1 },
    { "7", "close_1004", "c:\\03\\ec", "", "", "c:\\03\\ea", 1 },
    { "7", "close_1005", "c:\\03\\ed", "", "", "c:\\03\\ea", 1 },
    { "7", "close_1006", "c:\\03\\ee", "", "", "c:\\03\\ea", 1 },
    { "7", "close_1012", "c:\\03\\f4", "", "", "c:\\03\\f4", 1 },
    { "7", "close_1013", "c:\\03\\f5", "", "", "c:\\03\\f5", 1 },
    { "7", "close_1014", "c:\\03\\f6", "", "", "c:\\03\\f6", 1 },
    { "7", "close_1015", "c:\\03\\f7", "", "", "c:\\03\\ea", 1 },
    { "7", "close_2999", "c:\\0b\\b7", "", "", "c:\\03\\ea", 1 },
    { "7", "close_5000", "c:\\13\\88", "", "", "c:\\03\\ea", 1 },
    { "7", "close_65535", "c:\\ff\\ff", "", "", "c:\\03\\ea", 1 },
    { "7", "close_fragmented", "c!:\\03\\e8", "", "", "c:\\03\\ea", 1 },
};

static int hex(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* B1 P2 C3 M1: an opcode with a reserved bit; a digit or B to F alone: that opcode. */
static int first_byte(const char **script)
{
    static const char names[] = "mtb.....cpq";
    const char       *s = *script;
    int               rsv = 0, opcode;
    if (s[0] >= 'a') opcode = (int)(strchr(names, s[0]) - names);
    else if (s[1] >= '1' && s[1] <= '3') {
        opcode = (int)(strchr(names, s[0] + 32) - names);
        rsv = 0x80 >> (s[1] - '0');
        s++;
    } else opcode = s[0] <= '9' ? s[0] - '0' : s[0] - 'A' + 10;
    s++;
    if (*s == '!') {
        s++;
        *script = s;
        return rsv | opcode;
    }
    *script = s;
    return 0x80 | rsv | opcode;
}

static void add_script(frames *f, int masked, const char *s)
{
    while (*s) {
        char   payload[200];
        size_t len = 0;
        int    first = first_byte(&s);
        for (s++; *s && *s != ' '; s++) {
            if (*s == '\\') payload[len++] = (char)(hex(s[1]) << 4 | hex(s[2])), s += 2;
            else payload[len++] = *s;
        }
        while (*s == ' ') s++;
        add_frame(f, masked, first, payload, len);
    }
}

/* Takes the masks out of a client's frames, so that they can be compared. All are short here. */
static size_t unmask(char *bytes, size_t len)
{
    size_t from = 0, to = 0, i, n;
    while (from + 2 <= len && (bytes[from + 1] & 0x80)) {
        char mask[4];
        n = (size_t)(bytes[from + 1] & 0x7f);
        memcpy(mask, bytes + from + 2, 4);
        bytes[to++] = bytes[from];
        bytes[to++] = (char)n;
        for (i = 0; i < n; i++) bytes[to++] = (char)(bytes[from + 6 + i] ^ mask[i & 3]);
        from += 6 + n;
    }
    CHECK_INT(from, len);
    return to;
}

static void check_case(line *l, const ws_case *c, size_t split, int room)
{
    static frames want;
    int           bad = 0;
    want.length = 0;
    add_script(&want, 0, c->answer);
    listen_in(l);
    if (!l->is_server) l->length = unmask(l->heard, l->length);
    if (c->data) bad |= !CHECK_MEM(l->rec.input, l->rec.length, c->data, strlen(c->data));
    bad |= !CHECK_MEM(l->heard, l->length, want.bytes, want.length);
    bad |= !CHECK_STR(l->rec.events, c->ends ? "OC" : "O");
    if (bad) NOTE("%s, split at %zu, room %d", l->is_server ? "server" : "client", split, room);
}

static void run_case(const ws_case *c, int is_server, const frames *f, size_t split, int room)
{
    line *l = line_open(is_server, c->options, room);
    say_bytes(l, f->bytes, split);
    settle(&l->r);
    if (l->rec.open || split == f->length) say_bytes(l, f->bytes + split, f->length - split);
    settle(&l->r);
    while (room < UNLIMITED && l->rec.room == 0 && l->rec.open) {
        give_room(&l->rec, room);
        settle(&l->r);
    }
    check_case(l, c, split, room);
    line_close(l);
}

static void run_case_all_ways(const void *arg)
{
    static frames  f;
    const ws_case *c = (const ws_case *)arg;
    int            is_server;
    size_t         split;
    for (is_server = 0; is_server < 2; is_server++) {
        f.length = 0;
        add_script(&f, is_server, c->script);
        for (split = 0; split <= f.length; split++) run_case(c, is_server, &f, split, UNLIMITED);
        run_case(c, is_server, &f, 0, 1);
    }
}

TEST_FAMILY(cases)
{
    char   name[100];
    size_t i;
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(name, sizeof name, "case_%s_%s", cases[i].category, cases[i].name);
        test_add_case(name, run_case_all_ways, &cases[i], TEST_SECONDS);
    }
}

/* ---- UTF-8 (6) --------------------------------------------------------------------------------------------------- */

/* Each is one text message: those of a good group pass, those of a bad one end the connection with 1007, and at the
 * first byte that can't go on. Hexadecimal. */
static const struct utf8_group {
    const char *name;
    int         is_good;
    const char *texts;
} utf8_groups[] = {
    { "first and last of each length", 1,
      "00 7f c280 dfbf e0a080 efbfbf f0908080 ed9fbf ee8080 efbfbd f48fbfbf" },
    { "beyond U+10FFFF", 0,
      "f4908080 f7bfbfbf f888808080 fbbfbfbfbf fc8480808080 fdbfbfbfbfbf" },
    { "continuation bytes alone", 0,
      "80 bf 80bf 80bf80 80bf80bf 618062 "
      "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf" },
    { "lead bytes alone", 0,
      "c020c120c220c320c420c520c620c720c820c920ca20cb20cc20cd20ce20cf20d020d120d220d320d420d520d620d720d820d920da20db20dc20dd20de20df20 "
      "e020e120e220e320e420e520e620e720e820e920ea20eb20ec20ed20ee20ef20 f020f120f220f320f420f520f620f720 "
      "f820f920fa20fb20 fc20fd20" },
    { "last byte missing", 0,
      "c3 e0a0 f09080 df efbf f48fbf e1 f1 f180 c361 e18061 f1808061" },
    { "impossible bytes", 0,
      "fe ff fefeffff" },
    { "over-long", 0,
      "c0af e080af f08080af f8808080af fc80808080af c1bf e09fbf f08fbfbf c080 e08080 f0808080" },
    { "surrogates", 0,
      "eda080 edadbf edae80 edafbf edb080 edbe80 edbfbf eda080edb080 eda080edbfbf edadbfedb080 edadbfedbfbf "
      "edae80edb080 edae80edbfbf edafbfedb080 edafbfedbfbf" },
    { "noncharacters", 1,
      "efbfbe efbfbf f09fbfbe f09fbfbf f0afbfbe f0afbfbf f0bfbfbe f0bfbfbf f18fbfbe f18fbfbf f19fbfbe "
      "f19fbfbf f1afbfbe f1afbfbf f1bfbfbe f1bfbfbf f28fbfbe f28fbfbf f29fbfbe f29fbfbf f2afbfbe f2afbfbf "
      "f2bfbfbe f2bfbfbf f38fbfbe f38fbfbf f39fbfbe f39fbfbf f3afbfbe f3afbfbf f3bfbfbe f3bfbfbf f48fbfbe "
      "f48fbfbf" },
    { "words", 1,
      "cebacf8ccf83cebcceb5 e697a5e69cace8aa9e 6e61c3af766520636166c3a9 f09d849ef09d84a2 efbbbf78 "
      "48656c6c6f2dc2b540c39fc3b6c3a4c3bcc3a0c3a12d5554462d382121" },
};

static size_t from_hex(const char **text, char *bytes)
{
    const char *s = *text;
    size_t      len = 0;
    for (; *s && *s != ' '; s += 2) bytes[len++] = (char)(hex(s[0]) << 4 | hex(s[1]));
    while (*s == ' ') s++;
    *text = s;
    return len;
}

/* Bytes of it after which no continuation can make it good; 0 = none: it is good, or only unfinished. By definition,
 * sequence by sequence. */
static size_t first_bad(const unsigned char *b, size_t len)
{
    size_t at = 0, i, want;
    while (at < len) {
        unsigned char c = b[at], low = 0x80, high = 0xbf;
        want = c < 0x80 ? 0 : c >= 0xc2 && c <= 0xdf ? 1 : c >= 0xe0 && c <= 0xef ? 2 : c >= 0xf0 && c <= 0xf4 ? 3 : 9;
        if (want == 9) return at + 1;
        if (c == 0xe0) low = 0xa0;
        if (c == 0xed) high = 0x9f;
        if (c == 0xf0) low = 0x90;
        if (c == 0xf4) high = 0x8f;
        for (i = 1; i <= want && at + i < len; i++, low = 0x80, high = 0xbf)
            if (b[at + i] < low || b[at + i] > high) return at + i + 1;
        at += want + 1;
    }
    return 0;
}

/* In one frame, or in two fragments that part at `split`. */
static void run_text(const char *bytes, size_t len, size_t split, int is_good)
{
    static frames f;
    line         *l = line_open(1, ",websocket-text=on", UNLIMITED);
    f.length = 0;
    if (split == 0) add_frame(&f, 1, 0x81, bytes, len);
    else {
        add_frame(&f, 1, 0x01, bytes, split);
        add_frame(&f, 1, 0x80, bytes + split, len - split);
    }
    say_bytes(l, f.bytes, f.length);
    settle(&l->r);
    if (is_good) CHECK_MEM(l->rec.input, l->rec.length, bytes, len);
    CHECK_STR(l->rec.events, is_good ? "O" : "OC");
    listen_in(l);
    if (!is_good) CHECK_MEM(l->heard, l->length, "\x88\x02\x03\xef", 4);
    line_close(l);
}

/* An error is reported while the rest of its frame is still to come. */
static void run_text_fast(const char *bytes, size_t len)
{
    static frames f;
    line         *l;
    size_t        bad = first_bad((const unsigned char *)bytes, len);
    if (bad == 0) return;
    l = line_open(1, ",websocket-text=on", UNLIMITED);
    f.length = 0;
    add_frame_sized(&f, 1, 0x81, bytes, len + 1000, 2);
    say_bytes(l, f.bytes, 8 + bad - 1);
    settle(&l->r);
    CHECK_STR(l->rec.events, "O");
    say_bytes(l, f.bytes + 8 + bad - 1, 1);
    settle(&l->r);
    CHECK_STR(l->rec.events, "OC");
    line_close(l);
}

static void run_utf8_group(const void *arg)
{
    const struct utf8_group *group = (const struct utf8_group *)arg;
    const char              *text = group->texts;
    char                     bytes[1200];
    size_t                   len, split;
    while (*text) {
        int before = test_failures;
        const char *from = text;
        len = from_hex(&text, bytes);
        memset(bytes + len, 'x', 1000);
        for (split = 0; split < len && split < 12; split++) run_text(bytes, len, split, group->is_good);
        if (!group->is_good) run_text_fast(bytes, len);
        if (test_failures > before) NOTE("for %.*s", (int)(text - from), from);
    }
}

TEST_FAMILY(utf8)
{
    char   name[100];
    size_t i;
    for (i = 0; i < sizeof utf8_groups / sizeof utf8_groups[0]; i++) {
        snprintf(name, sizeof name, "utf8_%s_%s", utf8_groups[i].name, utf8_groups[i].is_good ? "pass" : "end_it");
        test_add_case(name, run_utf8_group, &utf8_groups[i], TEST_SECONDS);
    }
}

/* ---- lengths (1), and control frames that are too long (2, 7) ---------------------------------------------------- */

typedef struct length_case {
    size_t length;
    int    size, first, is_good;
} length_case;

static const length_case lengths[] = {
    { 125, 0, 0x82, 1 },   { 126, 2, 0x82, 1 },     { 127, 2, 0x82, 1 },   { 128, 2, 0x82, 1 },   { 65535, 2, 0x82, 1 },
    { 65536, 8, 0x82, 1 }, { 200000, 8, 0x82, 1 },  { 0, 2, 0x82, 0 },     { 125, 2, 0x82, 0 },   { 125, 8, 0x82, 0 },
    { 65535, 8, 0x82, 0 }, { 125, 0, 0x89, 1 },     { 126, 2, 0x89, 0 },   { 126, 2, 0x8a, 0 },   { 126, 2, 0x88, 0 },
};

static void run_length(const void *arg)
{
    static char        payload[200000];
    static frames      f;
    const length_case *c = (const length_case *)arg;
    int                is_server;
    size_t             i, at;
    for (i = 0; i < sizeof payload; i++) payload[i] = (char)(i * 7 + i / 256);
    for (is_server = 0; is_server < 2; is_server++) {
        line *l = line_open(is_server, "", UNLIMITED);
        f.length = 0;
        add_frame_sized(&f, is_server, c->first, payload, c->length, c->size);
        for (at = 0; at < f.length && (c->is_good || at == 0); at += i) {
            i = f.length - at < 5000 ? f.length - at : 5000;
            say_bytes(l, f.bytes + at, i);
            settle(&l->r);
        }
        if (c->is_good && c->first == 0x82) CHECK_MEM(l->rec.input, l->rec.length, payload, c->length);
        else CHECK_INT(l->rec.length, 0);
        CHECK_STR(l->rec.events, c->is_good ? "O" : "OC");
        line_close(l);
    }
}

TEST_FAMILY(lengths)
{
    char   name[100];
    size_t i;
    for (i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        snprintf(name, sizeof name, "length_%zu_in_%d_bytes_of_%02x", lengths[i].length, lengths[i].size, (unsigned)lengths[i].first);
        test_add_case(name, run_length, &lengths[i], TEST_SECONDS);
    }
}

/* A frame of 2^63 - 1 bytes passes through in bounded memory; one of 2^63 is none. */
TEST(huge_lengths)
{
    static char block[30000];
    int         i;
    long        live;
    line       *l = line_open(1, "", UNLIMITED);
    live = l->r.live;
    say_bytes(l, "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 14);
    memset(block, 'x', sizeof block);
    for (i = 0; i < 20; i++) {
        say_bytes(l, block, sizeof block);
        settle(&l->r);
    }
    CHECK_INT(l->rec.length, 20 * sizeof block);
    CHECK_INT(l->r.live, live);
    line_close(l);
    l = line_open(1, "", UNLIMITED);
    say_bytes(l, "\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0", 14);
    settle(&l->r);
    CHECK_STR(l->rec.events, "OC");
    line_close(l);
}

TEST(server_wants_masks_and_client_wants_none)
{
    static frames f;
    int           is_server;
    for (is_server = 0; is_server < 2; is_server++) {
        line *l = line_open(is_server, "", UNLIMITED);
        f.length = 0;
        add_frame(&f, !is_server, 0x82, "abc", 3);
        say_bytes(l, f.bytes, f.length);
        settle(&l->r);
        CHECK_INT(l->rec.length, 0);
        CHECK_STR(l->rec.events, "OC");
        line_close(l);
    }
}

/* ---- 9: big messages, 10: many small pieces ---------------------------------------------------------------------- */

static void stream_through(size_t total, size_t frame_size, size_t packet)
{
    static char   payload[1 << 16];
    static frames f;
    size_t        sent = 0, at, i;
    line         *l = line_open(1, "", UNLIMITED);
    for (i = 0; i < sizeof payload; i++) payload[i] = (char)(i * 31 + i / 251);
    for (; sent < total; sent += frame_size) {
        f.length = 0;
        add_frame(&f, 1, (sent == 0 ? 2 : 0) | (sent + frame_size >= total ? 0x80 : 0), payload, frame_size);
        for (at = 0; at < f.length; at += i) {
            i = f.length - at < packet ? f.length - at : packet;
            say_bytes(l, f.bytes + at, i);
            settle(&l->r);
        }
    }
    CHECK_INT(l->rec.length, sent);
    for (i = 0; i < sent; i++)
        if (l->rec.input[i] != payload[i % frame_size]) break;
    CHECK_INT(i, sent);
    line_close(l);
}

/* A thousand messages of one size, there and back. */
static void many_messages(size_t size)
{
    static char   payload[4096];
    static frames f, want;
    int           i;
    line         *l = line_open(1, "", UNLIMITED);
    memset(payload, 'm', sizeof payload);
    f.length = want.length = 0;
    add_frame(&f, 1, 0x82, payload, size);
    add_frame(&want, 0, 0x82, payload, size);
    for (i = 0; i < 1000; i++) {
        forget_input(&l->rec);
        say_bytes(l, f.bytes, f.length);
        settle(&l->r);
        CHECK_INT(l->rec.length, size);
        if (size == 0) continue;
        CHECK_INT(chr_fe_write(&l->rec.fe, payload, size), size);
        listen_in(l);
        CHECK_MEM(l->heard, l->length, want.bytes, want.length);
        l->length = 0;
    }
    CHECK_STR(l->rec.events, "O");
    line_close(l);
}

TEST(big_9_messages_of_0) { many_messages(0); }
TEST(big_9_messages_of_16) { many_messages(16); }
TEST(big_9_messages_of_125) { many_messages(125); }
TEST(big_9_messages_of_126) { many_messages(126); }
TEST(big_9_messages_of_4096) { many_messages(4096); }
TEST(big_9_message_of_16_mib) { stream_through(16 << 20, 1 << 16, 65000); }
TEST(big_9_fragments_of_64k) { stream_through(8 << 20, 1 << 16, 30000); }
TEST(big_9_fragments_of_4k) { stream_through(1 << 20, 4096, 30000); }
TEST(big_9_fragments_of_64) { stream_through(1 << 18, 64, 30000); }
TEST(big_10_packets_of_997) { stream_through(1 << 20, 1 << 16, 997); }
TEST(big_10_packets_of_1) { stream_through(4096, 1024, 1); }

/* ---- output ------------------------------------------------------------------------------------------------------ */

TEST(server_output_is_one_binary_frame_a_write)
{
    static frames want;
    static char   block[300];
    line         *l = line_open(1, "", UNLIMITED);
    CHECK_INT(chr_fe_write(&l->rec.fe, "hi", 2), 2);
    CHECK_INT(chr_fe_write(&l->rec.fe, block, sizeof block), sizeof block);
    want.length = 0;
    add_frame(&want, 0, 0x82, "hi", 2);
    add_frame(&want, 0, 0x82, block, sizeof block);
    listen_in(l);
    CHECK_MEM(l->heard, l->length, want.bytes, want.length);
    line_close(l);
}

TEST(client_output_is_masked_with_ever_new_masks)
{
    int   i, j;
    char  masks[12][4];
    line *l = line_open(0, "", UNLIMITED);
    for (i = 0; i < 12; i++) CHECK_INT(chr_fe_write(&l->rec.fe, "abc", 3), 3);
    listen_in(l);
    REQUIRE(l->length == 12 * 9);
    for (i = 0; i < 12; i++) {
        memcpy(masks[i], l->heard + 9 * i + 2, 4);
        for (j = 0; j < i; j++) CHECK(memcmp(masks[i], masks[j], 4) != 0);
    }
    CHECK_INT(unmask(l->heard, l->length), 12 * 5);
    CHECK_MEM(l->heard, 5, "\x82\x03" "abc", 5);
    line_close(l);
}

TEST(disconnect_says_goodbye)
{
    int is_server;
    for (is_server = 0; is_server < 2; is_server++) {
        line *l = line_open(is_server, "", UNLIMITED);
        CHECK_INT(chr_fe_disconnect(&l->rec.fe), 0);
        settle(&l->r);
        CHECK_STR(l->rec.events, "OC");
        listen_in(l);
        if (!is_server) l->length = unmask(l->heard, l->length);
        CHECK_MEM(l->heard, l->length, "\x88\x02\x03\xe8", 4);
        line_close(l);
    }
}

/* To close while something is unread would be a reset, and what the peer has not read yet would be lost. */
TEST(a_goodbye_is_read_though_the_peer_was_speaking)
{
    int turn, is_server, fds;
    for (turn = 0; turn < 4; turn++) {
        line *l;
        is_server = turn & 1;
        l = line_open(is_server, "", turn < 2 ? 0 : UNLIMITED);
        fds = count_fds();
        say(l->peer, turn < 2 ? "unread" : "\xff\xff\xff\xff\xff and more that is no frame");
        if (turn < 2) CHECK_INT(chr_fe_disconnect(&l->rec.fe), 0);
        settle(&l->r);
        CHECK_STR(l->rec.events, "OC");
        say(l->peer, "\x88"); /* its answer begins, and finds somebody */
        settle(&l->r);
        CHECK_INT(recv(l->peer, l->heard, sizeof l->heard, 0), is_server ? 4 : 8);
        CHECK_INT(recv(l->peer, l->heard, sizeof l->heard, 0), 0);
        say(l->peer, "\x80");
        settle(&l->r);
        CHECK_INT(count_fds(), fds); /* it waits */
        close(l->peer);
        l->peer = -1;
        settle(&l->r);
        CHECK_INT(count_fds(), fds - 2);
        CHECK_INT(chr_loop_timeout(l->r.ctx), -1);
        line_close(l);
    }
}

/* Two seconds of real time, in haste; the context's clock stands still. */
TEST(a_goodbye_is_not_waited_for_forever)
{
    line *l = line_open(1, "", UNLIMITED);
    int   fds = count_fds(), first = l->peer;
    fault_plan.haste = RIG_OVER_TCP ? 4 : 20;
    CHECK_INT(chr_fe_disconnect(&l->rec.fe), 0);
    connect_peer(l); /* the next one need not wait */
    say(l->peer, REQUEST);
    pass_real_time(&l->r, 1000);
    CHECK_STR(l->rec.events, "OCO");
    CHECK_INT(count_fds(), fds + 2);
    say(first, "chatter");
    pass_real_time(&l->r, 1400);
    CHECK_INT(count_fds(), fds + 1);
    CHECK_INT(send(first, "x", 1, MSG_NOSIGNAL), -1);
    close(first);
    CHECK_INT(chr_fe_disconnect(&l->rec.fe), 0);
    first = l->peer;
    connect_peer(l);
    CHECK_INT(chr_fe_disconnect(&l->rec.fe), 0); /* in its handshake */
    settle(&l->r);
    CHECK_INT(send(first, "x", 1, MSG_NOSIGNAL), 1); /* both are waited for, and each for itself */
    CHECK_INT(send(l->peer, "x", 1, MSG_NOSIGNAL), 1);
    close(first);
    settle(&l->r);
    CHECK_INT(count_fds(), fds);
    line_close(l);
}

/* Payload of unmasked binary frames. Returns how many bytes; all frames must be whole. */
static size_t undo(const char *wire, size_t len, char *data)
{
    const unsigned char *w = (const unsigned char *)wire;
    size_t               at = 0, n = 0, size;
    while (at < len) {
        CHECK_INT(w[at], 0x82);
        size = w[at + 1];
        at += 2;
        if (size == 126) size = (size_t)w[at] << 8 | w[at + 1], at += 2;
        memcpy(data + n, wire + at, size);
        n += size;
        at += size;
    }
    CHECK_INT(at, len);
    return n;
}

TEST(out_through_a_narrow_way)
{
    enum { TOTAL = 1000000 };
    static char data[TOTAL], wire[2 * TOTAL], plain[2 * TOTAL];
    size_t      taken = 0, got = 0, i;
    int         n, blocked = 0;
    line       *l = line_open(1, "", UNLIMITED);
    NEED_LITTLE_ROOM();
    for (i = 0; i < TOTAL; i++) data[i] = (char)(i * 17 + i / 333);
    while (taken < TOTAL || private_unsent(l->dev)) {
        n = taken < TOTAL ? chr_fe_write(&l->rec.fe, data + taken, TOTAL - taken) : 0;
        if (n > 0) taken += (size_t)n;
        else if (n < 0) CHECK_INT(n, CHR_ERR_WOULD_BLOCK), blocked++;
        chr_loop_step(l->r.ctx, 0);
        if (n > 0) continue;
        n = (int)read(l->peer, wire + got, 5000);
        REQUIRE(n > 0);
        got += (size_t)n;
    }
    do {
        l->length = 0;
        listen_in(l);
        memcpy(wire + got, l->heard, l->length);
        got += l->length;
    } while (l->length > 0);
    CHECK(blocked > 3);
    CHECK_MEM(plain, undo(wire, got, plain), data, TOTAL);
    line_close(l);
}

/* The Pong waits while the output buffer is full; of many Pings only the last one is answered; there is no busy loop
 * meanwhile. */
TEST(pings_while_output_waits)
{
    static frames f;
    int           i, ran = 0;
    size_t        total;
    line         *l = line_open(1, "", UNLIMITED);
    total = fill_up(&l->rec.fe);
    for (i = 0; i < 2000; i++) {
        f.length = 0;
        add_frame(&f, 1, 0x89, i == 1999 ? "the last one" : "0123456789", i == 1999 ? 12 : 10);
        say_bytes(l, f.bytes, f.length);
        settle(&l->r);
    }
    for (i = 0; i < 5; i++) ran += chr_loop_step(l->r.ctx, 1);
    CHECK_INT(ran, 0);
    CHECK(drain(&l->r, l->peer, total) == total);
    settle(&l->r);
    forget_heard(l);
    settle(&l->r);
    f.length = 0;
    add_frame(&f, 1, 0x89, "now", 3);
    say_bytes(l, f.bytes, f.length);
    settle(&l->r);
    listen_in(l);
    CHECK_MEM(l->heard, l->length, "\x8a\x03now", 5);
    CHECK_STR(l->rec.events, "O");
    line_close(l);
}

TEST(data_just_before_the_end_is_delivered)
{
    static frames f;
    int           with_close;
    for (with_close = 0; with_close < 2; with_close++) {
        line *l = line_open(1, "", 3);
        f.length = 0;
        add_frame(&f, 1, 0x82, "abcdefg", 7);
        if (with_close) add_frame(&f, 1, 0x88, "\x03\xe8", 2);
        say_bytes(l, f.bytes, f.length);
        close(l->peer);
        l->peer = -1;
        settle(&l->r);
        CHECK_INPUT(&l->rec, "abc");
        CHECK_STR(l->rec.events, "O");
        give_room(&l->rec, 10);
        settle(&l->r);
        CHECK_INPUT(&l->rec, "abcdefg");
        CHECK_STR(l->rec.events, "OC");
        line_close(l);
    }
}

/* The frontend has no room, and needs none to get CLOSED: the next peer can connect. */
TEST(goodbye_needs_no_room)
{
    static frames f;
    line         *l = line_open(1, "", 3);
    f.length = 0;
    add_frame(&f, 1, 0x82, "abc", 3);
    add_frame(&f, 1, 0x88, "\x03\xe8", 2);
    say_bytes(l, f.bytes, f.length);
    settle(&l->r);
    CHECK_INPUT(&l->rec, "abc");
    CHECK_STR(l->rec.events, "OC");
    close(l->peer);
    connect_peer(l);
    say(l->peer, REQUEST);
    settle(&l->r);
    CHECK_STR(l->rec.events, "OCO");
    line_close(l);
}

/* A peer that checks the connection by pings must not give it up because a guest is busy; and nothing overtakes
 * anything. */
TEST(pings_need_no_room)
{
    static frames f, want;
    line         *l = line_open(1, "", 0);

    f.length = want.length = 0;
    add_frame(&f, 1, 0x89, "one", 3);
    add_frame(&f, 1, 0x82, "hello", 5);
    add_frame(&f, 1, 0x89, "two", 3);
    say_bytes(l, f.bytes, f.length);
    settle(&l->r);
    add_frame(&want, 0, 0x8a, "one", 3);
    add_frame(&want, 0, 0x8a, "two", 3);
    listen_in(l);
    CHECK_MEM(l->heard + l->length - 5, 5, want.bytes + 5, 5); /* the last one's answer is enough (RFC 6455 section 5.5.3) */
    CHECK_INPUT(&l->rec, "");
    f.length = 0;
    add_frame(&f, 1, 0x82, " again", 6);
    add_frame(&f, 1, 0x88, "\x03\xe8", 2);
    say_bytes(l, f.bytes, f.length);
    settle(&l->r);
    CHECK_STR(l->rec.events, "O");
    give_room(&l->rec, 7);
    settle(&l->r);
    CHECK_INPUT(&l->rec, "hello a");
    CHECK_STR(l->rec.events, "O");
    give_room(&l->rec, UNLIMITED);
    settle(&l->r);
    CHECK_INPUT(&l->rec, "hello again");
    CHECK_STR(l->rec.events, "OC");
    line_close(l);
}

/* The guest takes nothing, the peer sends without end: what is read ahead is bounded, and so is what answers take. */
TEST(a_flood_while_there_is_no_room_is_pushed_back)
{
    static frames f;
    line         *l = line_open(1, "", 0);
    size_t        sent = 0;
    int           i;

    f.length = 0;
    NEED_LITTLE_ROOM();
    for (i = 0; i < 1000; i++) add_frame(&f, 1, 0x89, "ping", 4);
    for (i = 0; i < 100; i++) {
        ssize_t n = send(l->peer, f.bytes, f.length, MSG_DONTWAIT);
        if (n < (ssize_t)f.length) break; /* mid-frame: no more of these */
        settle(&l->r);
    }
    CHECK_INT(i, 100);
    forget_heard(l);
    f.length = 0;
    for (i = 0; i < 60; i++) add_frame(&f, 1, 0x82, REQUEST, sizeof REQUEST);
    for (i = 0; i < 1000; i++) {
        ssize_t n = send(l->peer, f.bytes, f.length, MSG_DONTWAIT);
        if (n < 0) break;
        sent += (size_t)n;
        settle(&l->r);
        if ((size_t)n < f.length) break;
    }
    CHECK(sent < 1000000);
    CHECK_INPUT(&l->rec, "");
    CHECK_STR(l->rec.events, "O");
    line_close(l);
}

TEST(read_all_takes_payload_only)
{
    static frames f;
    char          buf[6];
    line         *l = line_open(1, "", UNLIMITED);
    f.length = 0;
    add_script(&f, 1, "p:x b!:abc q: m:de b: b:f");
    say_bytes(l, f.bytes, f.length);
    CHECK_INT(chr_fe_read_all(&l->rec.fe, buf, 6, 1000), 6);
    CHECK_MEM(buf, 6, "abcdef", 6);
    line_close(l);
}

/* ---- the handshake ----------------------------------------------------------------------------------------------- */

TEST(hash_and_base64_of_the_rfc)
{
    static const char *const inputs[] = { "", "abc", "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq" };
    static const char *const want[] = { "2jmj7l5rSw0yVb/vlWAYkK/YBwk=", "qZk+NkcGgWq6PiVxeFDCbJzQ2J0=", "hJg+RBw70m66rkqh+VEp5eVGcPE=" };
    unsigned char            digest[20];
    char                     text[40];
    size_t                   i;
    for (i = 0; i < 3; i++) {
        private_sha1(inputs[i], strlen(inputs[i]), digest);
        private_base64(digest, 20, text);
        CHECK_STR(text, want[i]);
    }
    private_base64((const unsigned char *)"foobar", 6, text);
    CHECK_STR(text, "Zm9vYmFy");
    private_base64((const unsigned char *)"fooba", 5, text);
    CHECK_STR(text, "Zm9vYmE=");
    private_ws_proof("dGhlIHNhbXBsZSBub25jZQ==", text);
    CHECK_STR(text, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

typedef struct request {
    const char *name, *text, *answer, *log; /* log: NULL when it is accepted */
    const char *options;                    /* more of the server's; NULL = none */
} request;

#define REFUSED(status) "HTTP/1.1 " status "\r\nServer: chardev\r\nConnection: close\r\nContent-Length: 0\r\n"

#define UPGRADE(target, version) "GET " target " HTTP/" version "\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" KEY VERSION "\r\n"
#define FROM(origin)             REQUEST_HEAD "Origin: " origin "\r\n" KEY VERSION "\r\n"

static const request requests[] = {
    { "plain", REQUEST, ACCEPTED "\r\n", NULL, NULL },
    { "binary_offered", REQUEST_HEAD KEY VERSION "Sec-WebSocket-Protocol: chat, binary\r\n\r\n", ACCEPTED "Sec-WebSocket-Protocol: binary\r\n\r\n", NULL, NULL },
    { "binary_offered_in_a_second_line", REQUEST_HEAD KEY VERSION "Sec-WebSocket-Protocol: chat\r\nsec-websocket-protocol: binary\r\n\r\n",
      ACCEPTED "Sec-WebSocket-Protocol: binary\r\n\r\n", NULL, NULL },
    { "other_protocol_offered", REQUEST_HEAD KEY VERSION "Sec-WebSocket-Protocol: chat\r\n\r\n", ACCEPTED "\r\n", NULL, NULL },
    { "names_in_any_case", "GET / HTTP/1.1\r\nhOST:x\r\nupgrade:WebSocket\r\nCONNECTION: keep-alive,  Upgrade \r\n" KEY VERSION "\r\n", ACCEPTED "\r\n", NULL, NULL },
    { "query_in_the_path", "GET /?a=b HTTP/1.1" "\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" KEY VERSION "\r\n", ACCEPTED "\r\n", NULL, NULL },
    { "post", "POST / HTTP/1.1\r\nHost: x\r\n\r\n", REFUSED("400 Bad Request"), "GET", NULL },
    { "http_1_0", "GET / HTTP/1.0\r\nHost: x\r\n\r\n", REFUSED("400 Bad Request"), "HTTP/1.1", NULL },
    { "no_http", "\r\n\r\n", REFUSED("400 Bad Request"), "GET", NULL },
    { "absolute_target", UPGRADE("http://x/", "1.1"), ACCEPTED "\r\n", NULL, NULL },
    { "absolute_target_without_path", UPGRADE("ws://x", "1.1"), ACCEPTED "\r\n", NULL, ",ws-path=/" },
    { "target_without_a_slash", UPGRADE("x", "1.1"), REFUSED("400 Bad Request"), "asks for no path", NULL },
    { "target_without_a_host", UPGRADE("http:///", "1.1"), REFUSED("400 Bad Request"), "asks for no path", NULL },
    { "http_1_2", UPGRADE("/", "1.2"), ACCEPTED "\r\n", NULL, NULL },
    { "http_1_10", UPGRADE("/", "1.10"), REFUSED("400 Bad Request"), "HTTP/1.1", NULL },
    { "http_1_1", UPGRADE("/", "1.1"), ACCEPTED "\r\n", NULL, NULL },
    { "http_1_9", UPGRADE("/", "1.9"), ACCEPTED "\r\n", NULL, NULL },
    { "http_1_and_no_digit", UPGRADE("/", "1.:"), REFUSED("400 Bad Request"), "HTTP/1.1", NULL },
    { "http_1_and_a_slash", UPGRADE("/", "1./"), REFUSED("400 Bad Request"), "HTTP/1.1", NULL },
    { "http_1_0_upgrade", UPGRADE("/", "1.0"), REFUSED("400 Bad Request"), "HTTP/1.1", NULL },
    { "target_whose_query_looks_absolute", UPGRADE("abcd?://x/", "1.1"), REFUSED("400 Bad Request"), "asks for no path", NULL },
    { "target_without_a_scheme", UPGRADE("://x/", "1.1"), REFUSED("400 Bad Request"), "asks for no path", NULL },
    { "target_that_ends_in_its_scheme", UPGRADE("http:", "1.1"), REFUSED("400 Bad Request"), "asks for no path", NULL },
    { "target_with_one_slash", UPGRADE("http:/x", "1.1"), REFUSED("400 Bad Request"), "asks for no path", NULL },
    { "target_of_slashes_alone", UPGRADE("http://", "1.1"), REFUSED("400 Bad Request"), "asks for no path", NULL },
    { "shortest_absolute_target", UPGRADE("h://x", "1.1"), ACCEPTED "\r\n", NULL, ",ws-path=/" },
    { "absolute_target_with_a_query", UPGRADE("http://x/a?b=/c", "1.1"), ACCEPTED "\r\n", NULL, ",ws-path=/a" },
    { "absolute_target_elsewhere", UPGRADE("http://x/b", "1.1"), REFUSED("404 Not Found"), "ws-path=: /b", ",ws-path=/a" },
    { "two_hosts", "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" KEY VERSION "\r\n",
      REFUSED("400 Bad Request"), "Host", NULL },
    { "long_key", REQUEST_HEAD "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQQ==\r\n" VERSION "\r\n", REFUSED("400 Bad Request"), "Key", NULL },
    { "key_without_padding", REQUEST_HEAD "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQQQ\r\n" VERSION "\r\n", REFUSED("400 Bad Request"), "Key", NULL },
    { "key_with_half_its_padding", REQUEST_HEAD "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQQ=\r\n" VERSION "\r\n", REFUSED("400 Bad Request"), "Key", NULL },
    { "version_130", REQUEST_HEAD KEY "Sec-WebSocket-Version: 130\r\n\r\n", REFUSED("426 Upgrade Required"), "13", NULL },
    { "http_2_0", UPGRADE("/", "2.0"), REFUSED("400 Bad Request"), "HTTP/1.1", NULL },
    { "any_path", UPGRADE("/websockify?token=x", "1.1"), ACCEPTED "\r\n", NULL, NULL },
    { "path_served", UPGRADE("/a?b=c", "1.1"), ACCEPTED "\r\n", NULL, ",ws-path=/a" },
    { "absolute_path_served", UPGRADE("http://x/a", "1.1"), ACCEPTED "\r\n", NULL, ",ws-path=/a" },
    { "path_in_a_pattern", UPGRADE("/console/7", "1.1"), ACCEPTED "\r\n", NULL, ",ws-path=/console/?" },
    { "other_path", UPGRADE("/b", "1.1"), REFUSED("404 Not Found"), "asks for another path than ws-path=: /b", ",ws-path=/a" },
    { "longer_path", UPGRADE("/ab", "1.1"), REFUSED("404 Not Found"), "another path", ",ws-path=/a" },
#ifndef _WIN32 /* on a loopback address other names are not let in */
    { "own_origin", FROM("http://x"), ACCEPTED "\r\n", NULL, NULL },
#endif
#ifndef _WIN32 /* on a loopback address other names are not let in */
    { "own_origin_on_another_port", FROM("https://X:8443"), ACCEPTED "\r\n", NULL, NULL },
#endif
    { "foreign_origin", FROM("https://evil.example"), REFUSED("403 Forbidden"), "ws-origin= would let in: https://evil.example", NULL },
    { "origin_with_a_query", FROM("http://x?evil"), REFUSED("403 Forbidden"), "ws-origin=", NULL },
    { "origin_with_a_fragment", FROM("http://x#evil"), REFUSED("403 Forbidden"), "ws-origin=", NULL },
    { "origin_with_a_backslash", FROM("http://x\\evil"), REFUSED("403 Forbidden"), "ws-origin=", NULL },
    { "origin_with_a_port_that_is_none", FROM("http://x:80x"), REFUSED("403 Forbidden"), "ws-origin=", NULL },
    { "own_origin_whose_port_ends_in_a_bracket", "GET / HTTP/1.1\r\nHost: x:5]\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Origin: http://x:5]\r\n" KEY VERSION "\r\n", REFUSED("403 Forbidden"), "ws-origin=", NULL },
    { "origin_with_one_slash", FROM("http:/x"), REFUSED("403 Forbidden"), "ws-origin=", NULL },
    { "origin_of_a_scheme", FROM("http:"), REFUSED("403 Forbidden"), "ws-origin=", NULL },
    { "null_origin", FROM("null"), REFUSED("403 Forbidden"), "ws-origin=", NULL },
    { "empty_origin", FROM(""), REFUSED("403 Forbidden"), "ws-origin=", NULL },
    { "longer_origin", FROM("http://x.evil"), REFUSED("403 Forbidden"), "ws-origin=", NULL },
    { "shorter_origin", FROM("http://"), REFUSED("403 Forbidden"), "ws-origin=", NULL },
    { "origin_with_a_user", FROM("http://x@evil"), REFUSED("403 Forbidden"), "ws-origin=", NULL },
    { "origin_with_a_password", FROM("http://x:80@evil"), REFUSED("403 Forbidden"), "ws-origin=", NULL },
    { "origin_with_a_path", FROM("http://x/evil"), REFUSED("403 Forbidden"), "ws-origin=", NULL },
    { "origin_without_a_scheme", FROM("//x"), REFUSED("403 Forbidden"), "ws-origin=", NULL },
    { "two_origins", FROM("http://x\r\nOrigin: http://x"), REFUSED("403 Forbidden"), "ws-origin=", NULL },
    { "listed_origin", FROM("https://a.example"), ACCEPTED "\r\n", NULL, ",ws-origin=https://a.example" },
    { "origin_in_a_pattern", FROM("https://a.example"), ACCEPTED "\r\n", NULL, ",ws-origin.0=http://b,ws-origin.1=https://*.example" },
    { "any_origin", FROM("null"), ACCEPTED "\r\n", NULL, ",ws-origin=*" },
    { "unlisted_origin", FROM("https://a.example.evil"), REFUSED("403 Forbidden"), "ws-origin=", ",ws-origin=https://*.example" },
#ifndef _WIN32 /* on a loopback address other names are not let in */
    { "own_origin_beside_a_list", FROM("http://x"), ACCEPTED "\r\n", NULL, ",ws-origin=http://b" },
#endif
    { "authority_goes_before_host", "GET http://y/ HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://x\r\n"
      KEY VERSION "\r\n", REFUSED("403 Forbidden"), "ws-origin=", NULL },
    { "no_upgrade", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", REFUSED("426 Upgrade Required") "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n", "upgrade", NULL },
    { "version_8", REQUEST_HEAD KEY "Sec-WebSocket-Version: 8\r\n\r\n", REFUSED("426 Upgrade Required") "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n", "13", NULL },
    { "no_connection", "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n" KEY VERSION "\r\n", REFUSED("400 Bad Request"), "Connection", NULL },
    { "no_host", "GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" KEY VERSION "\r\n", REFUSED("400 Bad Request"), "Host", NULL },
    { "no_key", REQUEST_HEAD VERSION "\r\n", REFUSED("400 Bad Request"), "Key", NULL },
    { "two_keys", REQUEST_HEAD KEY KEY VERSION "\r\n", REFUSED("400 Bad Request"), "Key", NULL },
    { "short_key", REQUEST_HEAD "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n" VERSION "\r\n", REFUSED("400 Bad Request"), "Key", NULL },
    { "key_that_is_not_base64", REQUEST_HEAD "Sec-WebSocket-Key: dGhlIHNhbXBsZSB!b25jZQ==\r\n" VERSION "\r\n", REFUSED("400 Bad Request"), "Key", NULL },
};

static void feed_request(const request *q, size_t split)
{
    line  *l = line_new(1, q->options ? q->options : "", UNLIMITED);
    size_t len = strlen(q->text);
    CHECK_STR(l->rec.events, "");
    say_bytes(l, q->text, split);
    settle(&l->r);
    say_bytes(l, q->text + split, len - split);
    settle(&l->r);
    listen_in(l);
    if (!CHECK(strncmp(l->heard, q->answer, strlen(q->answer)) == 0)) NOTE("split at %zu: %s", split, l->heard);
    CHECK_STR(l->rec.events, q->log ? "" : "O");
    if (q->log) CHECK_HAS(l->r.log, q->log);
    line_close(l);
}

static void feed_request_split(const void *arg)
{
    const request *q = (const request *)arg;
    size_t         split;
    for (split = 0; split < strlen(q->text); split += RIG_EACH) feed_request(q, split);
}

TEST_FAMILY(requests)
{
    char   name[100];
    size_t i;
    for (i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        snprintf(name, sizeof name, "request_%s", requests[i].name);
        test_add_case(name, feed_request_split, &requests[i], TEST_SECONDS);
    }
}

/* A name that points at a loopback address may be anybody's: only those that always mean this host are one with it. */
TEST(origins_on_a_loopback_address)
{
    static const struct { const char *host, *origin; int comes_in; } table[] = {
        { "127.0.0.1", "http://127.0.0.1:8080", 1 }, { "localhost", "http://localhost", 1 }, { "a.localhost", "http://a.localhost:1", 1 },
        { "[::1]", "http://[::1]:8080", 1 },         { "127.0.0.2", "http://127.0.0.2", 1 }, { "evil.example", "http://evil.example", 0 },
        { "localhost", "http://127.0.0.1", 0 },      { "127.0.0.1.evil.example", "http://127.0.0.1.evil.example", 0 },
        { ".localhost", "http://.localhost", 0 },    { "host", "http://host", 0 },           { "[", "http://[", 0 },
        { "[]", "http://[]", 0 },                    { "[::1]x", "http://[::1]x", 0 },       { "x.localhosts", "http://x.localhosts", 0 },
        { "128.0.0.1", "http://128.0.0.1", 0 },      { "126.0.0.1", "http://126.0.0.1", 0 },
        { "a23456789012345678901234567890123456789012345678901234.localhost",
          "http://a23456789012345678901234567890123456789012345678901234.localhost", 0 },
        { "a2345678901234567890123456789012345678901234567890123.localhost",
          "http://a2345678901234567890123456789012345678901234567890123.localhost", 1 },
        { "xlocalhost", "http://xlocalhost", 0 },    { "10.0.0.1", "http://10.0.0.1", 0 },   { "[::2]", "http://[::2]", 0 },
    };
    char   text[400], options[100];
    int    port, listening = tcp_listen(&port);
    size_t i;

    for (i = 0; i < sizeof table / sizeof table[0]; i++) {
        line *l = (line *)calloc(1, sizeof *l);
        REQUIRE(l != NULL);
        rig_open_virtual(&l->r);
        snprintf(options, sizeof options, "socket,id=w,fd=%d,server=on,wait=off,websocket=on", dup(listening));
        l->dev = make(&l->r, options);
        attach(&l->rec, l->dev);
        l->peer = tcp_connect(port);
        settle(&l->r);
        snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: %s\r\n" KEY VERSION
                 "\r\n", table[i].host, port, table[i].origin);
        say(l->peer, text);
        settle(&l->r);
        listen_in(l);
        if (!CHECK_STR(l->rec.events, table[i].comes_in ? "O" : "")) NOTE("for %s and %s", table[i].host, table[i].origin);
        CHECK(strncmp(l->heard, table[i].comes_in ? "HTTP/1.1 101" : "HTTP/1.1 403", 12) == 0);
        line_close(l);
    }
    close(listening);
}

/* The same for IPv6, and for a client of IPv4 at a server of both. */
TEST(origins_on_loopback_addresses_of_ipv6)
{
    static const struct { int any, comes_in; const char *host; } table[] = {
        { 0, 0, "evil.example" }, { 1, 0, "evil.example" }, { 0, 1, "localhost" }, { 1, 1, "localhost" },
    };
    char   text[400], options[100];
    int    off = 0, port;
    size_t i;

    if (!has_ipv6_loopback()) SKIP("this machine has no IPv6");
    for (i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct sockaddr_in6 address;
        socklen_t           len = sizeof address;
        int                 listening = socket(AF_INET6, SOCK_STREAM, 0);
        line               *l = (line *)calloc(1, sizeof *l);
        REQUIRE(l != NULL);
        memset(&address, 0, sizeof address);
        address.sin6_family = AF_INET6;
        address.sin6_addr.s6_addr[15] = table[i].any ? 0 : 1;
        setsockopt(listening, IPPROTO_IPV6, IPV6_V6ONLY, (const char *)&off, sizeof off);
        REQUIRE(bind(listening, (struct sockaddr *)&address, sizeof address) == 0 && listen(listening, 8) == 0);
        REQUIRE(getsockname(listening, (struct sockaddr *)&address, &len) == 0);
        port = ntohs(address.sin6_port);
        rig_open_virtual(&l->r);
        snprintf(options, sizeof options, "socket,id=w,fd=%d,server=on,wait=off,websocket=on", dup(listening));
        l->dev = make(&l->r, options);
        attach(&l->rec, l->dev);
        if (table[i].any) l->peer = tcp_connect(port);
        else {
            l->peer = socket(AF_INET6, SOCK_STREAM, 0);
            REQUIRE(connect(l->peer, (struct sockaddr *)&address, sizeof address) == 0);
        }
        settle(&l->r);
        snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://%s\r\n" KEY VERSION
                 "\r\n", table[i].host, port, table[i].host);
        say(l->peer, text);
        settle(&l->r);
        listen_in(l);
        if (!CHECK_STR(l->rec.events, table[i].comes_in ? "O" : "")) NOTE("row %zu", i);
        line_close(l);
        close(listening);
    }
}

static line *line_with_page(const char *page)
{
    char options[200];
    snprintf(options, sizeof options, ",ws-page=%s", page);
    return line_new(1, options, UNLIMITED);
}

static void ask_for_page(line *l, const char *target)
{
    char text[200];
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", target);
    say(l->peer, text);
    settle(&l->r);
    listen_in(l);
}

/* A browser gets the file, and connects again for the websocket. */
TEST(a_page_is_served)
{
    static char  text[100001];
    char         head[400];
    const char  *page = scratch("page.html");
    line        *l;
    size_t       i;

    for (i = 0; i + 1 < sizeof text; i++) text[i] = (char)('a' + i % 26);
    write_file(page, text);
    l = line_with_page(page);
    ask_for_page(l, "/?x=y");
    for (i = 0; i < 100; i++) {
        settle(&l->r);
        listen_in(l);
    }
    snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nServer: chardev\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %zu\r\n"
             "Cache-Control: no-cache\r\nConnection: close\r\n\r\n", strlen(text));
    CHECK_INT(strncmp(l->heard, head, strlen(head)), 0);
    CHECK_MEM(l->heard + strlen(head), l->length - strlen(head), text, strlen(text));
    CHECK_STR(l->rec.events, "");
    CHECK_STR(l->r.log, "");
    close(l->peer);
    settle(&l->r);
    connect_peer(l);
    say(l->peer, REQUEST);
    settle(&l->r);
    CHECK_STR(l->rec.events, "O");
    line_close(l);
}

TEST(a_page_is_all_that_is_served)
{
    const char *page = scratch("page.html");
    line       *l;

    write_file(page, "<p>");
    l = line_with_page(page);
    ask_for_page(l, "/etc/passwd");
    CHECK(strncmp(l->heard, "HTTP/1.1 426", 12) == 0);
    line_close(l);
    write_file(page, "<p>");
    l = line_with_page(page);
    CHECK_INT(unlink(page), 0);
    ask_for_page(l, "/");
    CHECK(strncmp(l->heard, "HTTP/1.1 404", 12) == 0);
    CHECK_HAS(l->r.log, "asks for ws-page=, which can't be read: ");
    CHECK_HAS(l->r.log, page);
    line_close(l);
}

TEST(frames_right_behind_the_request)
{
    static frames f;
    line         *l = line_new(1, "", 2);
    f.length = 0;
    add(&f, REQUEST, strlen(REQUEST));
    add_frame(&f, 1, 0x82, "early", 5);
    say_bytes(l, f.bytes, f.length);
    settle(&l->r);
    CHECK_STR(l->rec.events, "O");
    CHECK_INPUT(&l->rec, "ea");
    give_room(&l->rec, 10);
    settle(&l->r);
    CHECK_INPUT(&l->rec, "early");
    line_close(l);
}

TEST(a_head_has_8_kib_and_no_more)
{
    static char text[9000];
    int         filler;
    line       *l;
    for (filler = 8192 - (int)strlen(REQUEST) - 5; filler < 8192 - (int)strlen(REQUEST) - 2; filler++) {
        l = line_new(1, "", UNLIMITED);
        snprintf(text, sizeof text, REQUEST_HEAD KEY VERSION "X: %0*d\r\n\r\n", filler, 0);
        say(l->peer, text);
        settle(&l->r);
        listen_in(l);
        CHECK_HAS(l->heard, strlen(text) <= 8192 ? "101" : "400");
        if (strlen(text) > 8192) CHECK_HAS(l->r.log, "8 KiB");
        line_close(l);
    }
    l = line_new(1, "", UNLIMITED);
    memset(text, 'x', 8500);
    say_bytes(l, text, 8500); /* and it never ends */
    settle(&l->r);
    CHECK_HAS(l->r.log, "8 KiB");
    CHECK_STR(l->rec.events, "");
    line_close(l);
}

/* The context's clock stands still meanwhile. */
TEST(a_silent_peer_is_dropped_after_a_while)
{
    int is_server;
    for (is_server = 0; is_server < 2; is_server++) {
        line *l;
        fault_plan.haste = 20;
        l = line_new(is_server, "", UNLIMITED);
        pass_real_time(&l->r, 7000);
        say(l->peer, is_server ? "GET / HT" : "HTTP/1.1 "); /* slowly doesn't help */
        settle(&l->r);
        CHECK_STR(l->r.log, "");
        pass_real_time(&l->r, 3100);
        CHECK_HAS(l->r.log, "websocket handshake within 10 seconds");
        CHECK_STR(l->rec.events, "");
        listen_in(l);
        CHECK_STR(hear(l->peer), "(eof)");
        line_close(l);
    }
}

/* Ten seconds of real time, in haste. */
TEST(waiting_for_a_silent_peer_ends_though_the_clock_stands_still)
{
    line     *l;
    chr_error err;
    fault_plan.haste = 100;
    l = line_new(0, "", UNLIMITED);
    CHECK_INT(chr_wait_connected(l->dev, &err), CHR_ERR_TIMEOUT);
    CHECK_HAS(err.text, "websocket handshake within 10 seconds");
    CHECK_INT(chr_wait_connected(l->dev, &err), CHR_ERR_DISCONNECTED);
    line_close(l);
}

TEST(patience_is_for_handshakes_only)
{
    int is_server;
    for (is_server = 0; is_server < 2; is_server++) {
        line *l = line_open(is_server, "", UNLIMITED);
        fault_plan.haste = 200;
        pass_time(&l->r, 60000);
        pass_real_time(&l->r, 60000);
        CHECK_STR(l->rec.events, "O");
        CHECK_STR(l->r.log, "");
        line_close(l);
    }
}

TEST(the_next_peer_comes_after_a_bad_one)
{
    line *l = line_new(1, "", UNLIMITED);
    say(l->peer, "nonsense\r\n\r\n");
    settle(&l->r);
    close(l->peer);
    connect_peer(l);
    say(l->peer, REQUEST);
    settle(&l->r);
    CHECK_STR(l->rec.events, "O");
    line_close(l);
}

TEST(a_peer_that_goes_in_the_handshake_is_named)
{
    line *l = line_new(1, "", UNLIMITED);
    say(l->peer, "GET / HTTP/1.1\r\n");
    close(l->peer);
    l->peer = -1;
    settle(&l->r);
    CHECK_HAS(l->r.log, "handshake");
    CHECK_STR(l->rec.events, "");
    line_close(l);
}

TEST(client_request_is_complete)
{
    line *l = line_new(0, "", UNLIMITED);
    listen_in(l);
    CHECK(strncmp(l->heard, "GET / HTTP/1.1\r\nHost: localhost\r\n", 33) == 0);
    CHECK_HAS(l->heard, "\r\nUpgrade: websocket\r\n");
    CHECK_HAS(l->heard, "\r\nConnection: Upgrade\r\n");
    CHECK_HAS(l->heard, "\r\nSec-WebSocket-Version: 13\r\n");
    CHECK_HAS(l->heard, "\r\nSec-WebSocket-Protocol: binary\r\n");
    CHECK_STR(l->heard + l->length - 4, "\r\n\r\n");
    line_close(l);
}

/* Whom a client asks for is the host of its options, with the port; an IPv6 address is in brackets. */
TEST(client_asks_for_its_host)
{
    static const struct { const char *host, *asked; int family; } table[] = { { "127.0.0.1", "127.0.0.1", AF_INET }, { "::1", "[::1]", AF_INET6 } };
    size_t i;
    for (i = 0; i < 2; i++) {
        struct sockaddr_in6 address;
        socklen_t           len = sizeof address;
        char                options[200], want[100];
        int                 port, listening;
        line               *l;
        if (table[i].family == AF_INET6 && !has_ipv6_loopback()) SKIP("this machine has no IPv6");
        if (i) {
            memset(&address, 0, sizeof address);
            address.sin6_family = AF_INET6;
            address.sin6_addr.s6_addr[15] = 1;
            listening = socket(AF_INET6, SOCK_STREAM, 0);
            REQUIRE(bind(listening, (struct sockaddr *)&address, sizeof address) == 0 && listen(listening, 8) == 0);
            REQUIRE(getsockname(listening, (struct sockaddr *)&address, &len) == 0);
            port = ntohs(address.sin6_port);
        } else listening = tcp_listen(&port);
        l = (line *)calloc(1, sizeof *l);
        REQUIRE(l != NULL);
        rig_open(&l->r);
        snprintf(options, sizeof options, "socket,id=w,host=%s,port=%d,websocket=on,reconnect-ms=100000,ws-path=/a?b=c", table[i].host, port);
        l->dev = make(&l->r, options);
        attach(&l->rec, l->dev);
        l->peer = accept(listening, NULL, NULL);
        for (len = 0; len < 500 && !strstr(l->heard, "\r\n\r\n"); len++) chr_loop_step(l->r.ctx, 10), listen_in(l);
        snprintf(want, sizeof want, "GET /a?b=c HTTP/1.1\r\nHost: %s:%d\r\n", table[i].asked, port);
        CHECK(strncmp(l->heard, want, strlen(want)) == 0);
        line_close(l);
        close(listening);
    }
}

typedef struct reply {
    const char *name, *from, *to, *log; /* the good answer, with `from` replaced by `to` */
} reply;

static const reply replies[] = {
    { "good", "", "", NULL },
    { "binary", "Upgrade: W", "Sec-WebSocket-Protocol: binary\r\nUpgrade: W", NULL },
    { "status_200", " 101 ", " 200 ", "refuses" },
    { "second_proof_alike", "Sec-WebSocket-Accept", "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\nSec-WebSocket-Accept", "wrong Sec" },
    { "longer_protocol", "Upgrade: W", "Sec-WebSocket-Protocol: binary2\r\nUpgrade: W", "protocol that nobody" },
    { "http_1_0", "HTTP/1.1", "HTTP/1.0", "refuses" },
    { "longer_proof", "Upgrade: W", "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\nUpgrade: W", "wrong Sec" },
    { "status_1010", " 101 ", " 1010 ", "refuses" },
    { "status_without_reason", " 101 Switching Protocols", " 101", NULL },
    { "http_1_2", "HTTP/1.1", "HTTP/1.2", NULL },
    { "http_2_0", "HTTP/1.1", "HTTP/2.0", "refuses" },
    { "second_proof", "Upgrade: W", "sec-websocket-accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\nUpgrade: W", "Accept" },
    { "second_protocol", "Upgrade: W", "Sec-WebSocket-Protocol: binary\r\nSec-WebSocket-Protocol: x\r\nUpgrade: W", "protocol" },
    { "status_404", " 101 ", " 404 ", "refuses" },
    { "no_upgrade", "Upgrade: W", "Upgrad: W", "lacks Upgrade" },
    { "no_connection", "Connection", "Connectio", "lacks Connection" },
    { "wrong_proof", "Accept: ", "Accept: x", "Accept" },
    { "no_proof", "Sec-WebSocket-Accept", "Accept", "Accept" },
    { "extension", "Upgrade: W", "Sec-WebSocket-Extensions: permessage-deflate\r\nUpgrade: W", "extension" },
    { "other_protocol", "Upgrade: W", "Sec-WebSocket-Protocol: chat\r\nUpgrade: W", "protocol" },
};

static void feed_reply(const void *arg)
{
    const reply *p = (const reply *)arg;
    char         good[400], text[600];
    const char  *at;
    size_t       split, len = 1;
    for (split = 0; split < len; split += RIG_EACH) {
        line *l = line_new(0, "", UNLIMITED);
        answer_key(l, good, sizeof good, "");
        at = strstr(good, p->from);
        REQUIRE(at != NULL);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, p->to, at + strlen(p->from));
        len = strlen(text);
        say_bytes(l, text, split);
        settle(&l->r);
        say_bytes(l, text + split, len - split);
        settle(&l->r);
        CHECK_STR(l->rec.events, p->log ? "" : "O");
        if (p->log) CHECK_HAS(l->r.log, p->log);
        line_close(l);
    }
}

TEST_FAMILY(replies)
{
    char   name[100];
    size_t i;
    for (i = 0; i < sizeof replies / sizeof replies[0]; i++) {
        snprintf(name, sizeof name, "reply_%s", replies[i].name);
        test_add_case(name, feed_reply, &replies[i], TEST_SECONDS);
    }
}

TEST(frames_right_behind_the_reply)
{
    char  text[500];
    line *l = line_new(0, "", UNLIMITED);
    answer_key(l, text, sizeof text, "");
    strcat(text, "\x82\x05" "early");
    say(l->peer, text);
    settle(&l->r);
    CHECK_STR(l->rec.events, "O");
    CHECK_INPUT(&l->rec, "early");
    line_close(l);
}

TEST(options_that_do_not_go_together)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    CHECK_INT(refuse(&r, "socket,id=w,path=/x,websocket-text=on", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "websocket-text");
    CHECK_INT(refuse(&r, "socket,id=w,path=/x,websocket=on,telnet=on", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "only one");
    CHECK_INT(refuse(&r, "socket,id=w,path=/x,server=on,wait=off,ws-path=/", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "go with websocket=on only");
    CHECK_INT(refuse(&r, "socket,id=w,path=/x,websocket=on,ws-origin=*", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "they need server=on");
    CHECK_INT(refuse(&r, "socket,id=w,path=/x,websocket=on,ws-page=/", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "they need server=on");
    CHECK_INT(refuse(&r, "socket,id=w,path=/x,websocket=on,ws-path=x", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "ws-path=x: it begins with '/'");
    CHECK_INT(refuse(&r, "socket,id=w,path=/x,websocket=on,ws-path=/a b", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "without blanks");
    CHECK_INT(refuse(&r, "socket,id=w,path=/x,server=on,wait=off,websocket=on,ws-page=/nowhere/x.html", &err), CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, "/nowhere/x.html");
    rig_close(&r);
}

/* ---- two of ours, over each kind of address ---------------------------------------------------------------------- */

static const char *const addresses[] = { "unix", "abstract", "tcp4", "tcp6", "fd" };

static void pair_options(rig *r, const char *kind, char server[300], char client[300], int *listener)
{
    const char *path = scratch("s");
    int         port;
    (void)r;
    *listener = -1;
    if (strcmp(kind, "tcp4") == 0 || strcmp(kind, "tcp6") == 0) {
        const char *host = kind[3] == '4' ? "127.0.0.1" : "::1";
        close(tcp_listen(&port)); /* a free one */
        snprintf(server, 300, "host=%s,port=%d", host, port);
        snprintf(client, 300, "host=%s,port=%d", host, port);
    } else if (strcmp(kind, "fd") == 0) {
        *listener = unix_listen(path);
        snprintf(server, 300, "fd=%d", *listener);
        snprintf(client, 300, "fd=%d", unix_connect(path));
    } else {
        snprintf(server, 300, "path=%s%s", path, kind[0] == 'a' ? ",abstract=on" : "");
        snprintf(client, 300, "%s", server);
    }
}

static void two_of_ours(const void *arg)
{
    static char block[100000];
    char        address[2][300], options[400];
    int         listener;
    size_t      sent = 0;
    recorder    server, client;
    rig         r;
    rig_open(&r);
    pair_options(&r, (const char *)arg, address[0], address[1], &listener);
    snprintf(options, sizeof options, "socket,id=s,%s,server=on,wait=off,websocket=on", address[0]);
    attach(&server, make(&r, options));
    snprintf(options, sizeof options, "socket,id=c,%s,websocket=on%s", address[1], strncmp(address[1], "fd", 2) == 0 ? "" : ",reconnect-ms=50");
    attach(&client, make(&r, options));
    PUMP(&r, server.open && client.open);
    CHECK_INT(chr_fe_write(&server.fe, "down", 4), 4);
    memset(block, 'u', sizeof block);
    while (sent < sizeof block && client.open) {
        int n = chr_fe_write(&client.fe, block + sent, sizeof block - sent);
        if (n > 0) sent += (size_t)n;
        chr_loop_step(r.ctx, 0);
    }
    PUMP(&r, server.length == sizeof block && client.length == 4);
    CHECK_MEM(server.input, server.length, block, sizeof block);
    CHECK_INT(chr_fe_disconnect(&server.fe), 0);
    PUMP(&r, strchr(client.events, 'C') != NULL);
    detach(&server);
    detach(&client);
    rig_close(&r);
    scratch_clean();
}

TEST_FAMILY(pairings)
{
    char   name[100];
    size_t i;
    for (i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        snprintf(name, sizeof name, "two_of_ours_over_%s", addresses[i]);
        test_add_case(name, two_of_ours, addresses[i], TEST_SECONDS);
    }
}

/* wait_connected and a blocking client's creation drive the handshake: the server is another process. */
TEST(blocking_creation_drives_the_handshake)
{
    char      options[300], buf[5];
    chr_error err;
    recorder  rec;
    rig       r;
    const char *path = scratch("s");
    int         listener = unix_listen(path);
    rig_open(&r);
    if (fork() == 0) {
        alarm(TEST_SECONDS);
        snprintf(options, sizeof options, "socket,id=s,fd=%d,server=on,wait=on,websocket=on", listener);
        attach(&rec, make(&r, options));
        CHECK_INT(chr_fe_write_all(&rec.fe, "hello", 5, 1000), 5);
        CHECK_INT(chr_fe_read_all(&rec.fe, buf, 1, 4000), 1);
        _exit(0);
    }
    close(listener);
    snprintf(options, sizeof options, "socket,id=c,path=%s,websocket=on", path);
    attach(&rec, make(&r, options));
    CHECK_INT(chr_wait_connected(rec.fe.dev, &err), 0);
    CHECK_INT(chr_fe_read_all(&rec.fe, buf, 5, 4000), 5);
    CHECK_MEM(buf, 5, "hello", 5);
    CHECK_INT(chr_fe_write_all(&rec.fe, "x", 1, 1000), 1);
    detach(&rec);
    unlink(path);
    scratch_clean();
    chr_context_free(r.ctx);
    CHECK_INT(r.live, 0);
}

TEST(each_failed_allocation_is_an_error_that_leaks_nothing)
{
    int       fds[2], at, made = 0;
    char      options[100];
    chr_error err;
    rig       r;
    for (at = 1; at < 40 && !made; at++) {
        rig_open(&r);
        socket_pair(fds);
        snprintf(options, sizeof options, "socket,id=w,fd=%d,websocket=on", fds[1]);
        r.fail_at = r.calls + at;
        made = chr_new(r.ctx, options, &err) != NULL;
        if (!made) {
            CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
            close(fds[1]); /* after an error it is still ours */
        }
        close(fds[0]);
        rig_close(&r);
    }
    CHECK(made && at > 3);
}
