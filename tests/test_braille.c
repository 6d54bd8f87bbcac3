/* braille: the protocol engine with the test's own display, and the BrlAPI client against a simulated server. */
#include "chardev.h"
#include "fault.h"
#include "private.h"
#include "rig.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>

/* ---- a display that remembers ------------------------------------------------------------------------------------ */

typedef struct screen {
    int           size;
    int           writes, count, cursor;
    unsigned char cells[100];
    char          text[101];
} screen;

static int screen_size(void *opaque)
{
    return ((screen *)opaque)->size;
}

static void screen_write(void *opaque, const unsigned char *cells, const char *text, int count, int cursor)
{
    screen *s = (screen *)opaque;
    REQUIRE(count >= 0 && count <= 84);
    s->writes++;
    s->count = count;
    s->cursor = cursor;
    memcpy(s->cells, cells, (size_t)count);
    memcpy(s->text, text, (size_t)count);
    s->text[count] = 0;
}

static const chr_braille_display screen_display = { screen_size, screen_write };

typedef struct guest {
    rig      r;
    screen   s;
    recorder rec;
} guest;

static void guest_open_with_room(guest *g, int size, int room)
{
    chr_braille_options options;
    chr_error           err;
    chr_dev            *dev;
    memset(&options, 0, sizeof options);
    memset(&g->s, 0, sizeof g->s);
    rig_open_virtual(&g->r);
    g->s.size = size;
    options.display = &screen_display;
    options.opaque = &g->s;
    dev = chr_open(g->r.ctx, "b", chr_backend_find(g->r.ctx, "braille"), &options, &err);
    REQUIRE(dev != NULL);
    attach_with_room(&g->rec, dev, room);
    settle(&g->r);
}

static void guest_open(guest *g, int size)
{
    guest_open_with_room(g, size, UNLIMITED);
}

static void guest_close(guest *g)
{
    detach(&g->rec);
    rig_close(&g->r);
}

static void guest_says(guest *g, const void *bytes, size_t len)
{
    CHECK_INT(chr_fe_write(&g->rec.fe, bytes, len), (int)len);
    settle(&g->r);
}

#define SAYS(g, text) guest_says((g), (text), sizeof(text) - 1)
#define HEARS(g, text)                                                                 \
    do {                                                                               \
        CHECK_MEM((g)->rec.input, (g)->rec.length, (text), sizeof(text) - 1);          \
        forget_input(&(g)->rec);                                                       \
    } while (0)

/* ---- the protocol ------------------------------------------------------------------------------------------------ */

TEST(braille_is_open_from_creation)
{
    guest    g;
    chr_info info;
    guest_open(&g, 40);
    CHECK_STR(g.rec.events, "O");
    chr_query(g.rec.fe.dev, &info);
    CHECK_STR(info.filename, "braille");
    guest_close(&g);
}

TEST(braille_answers)
{
    guest g;
    guest_open(&g, 40);
    SAYS(&g, "\033\204");
    HEARS(&g, "\033\204Baum Vario 40   ");
    SAYS(&g, "\033\212");
    HEARS(&g, "\033\21200000000");
    SAYS(&g, "\033\005");
    HEARS(&g, "\033\005\001");
    SAYS(&g, "\033\010");
    HEARS(&g, "\033\044\000");
    SAYS(&g, "\033\022\001\002\033\025\001"); /* SetMode, SetProtocol: no answer */
    HEARS(&g, "");
    SAYS(&g, "\033\120abcdefg\033\005"); /* of another device: skipped up to the next ESC */
    HEARS(&g, "\033\005\001");
    SAYS(&g, "noise\033\033more\033\005");
    HEARS(&g, "\033\005\001");
    guest_close(&g);
}

TEST(braille_identity_has_16_bytes)
{
    static const struct { int size; const char *text; } cases[] = {
        { 1, "Baum Vario 1    " }, { 20, "Baum Vario 20   " }, { 84, "Baum Vario 84   " }, { 200, "Baum Vario 84   " },
    };
    size_t i;
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        guest g;
        guest_open(&g, cases[i].size);
        SAYS(&g, "\033\204");
        CHECK_INT(g.rec.length, 18);
        CHECK_MEM(g.rec.input + 2, 16, cases[i].text, 16);
        guest_close(&g);
    }
}

TEST(braille_row)
{
    guest g;
    guest_open(&g, 5);
    SAYS(&g, "\033\001\023\021\007\007\025");
    CHECK_STR(g.s.text, "hello");
    CHECK_MEM(g.s.cells, g.s.count, "\023\021\007\007\025", 5);
    CHECK_INT(g.s.cursor, 0);
    SAYS(&g, "\033\001\023\321\007\307\025"); /* the first cell with dots 7 and 8 has the cursor, and loses them */
    CHECK_MEM(g.s.cells, g.s.count, "\023\021\007\307\025", 5);
    CHECK_STR(g.s.text, "hel?o");
    CHECK_INT(g.s.cursor, 2);
    SAYS(&g, "\033\001\101\100\200\300\033\033"); /* one of them alone is no cursor; 0x1b comes doubled */
    CHECK_MEM(g.s.cells, g.s.count, "\101\100\200\000\033", 5);
    CHECK_INT(g.s.cursor, 4);
    CHECK_STR(g.s.text, "A?? g");
    CHECK_INT(g.s.writes, 3);
    SAYS(&g, "\033\001\001\001\001\001\001\003\003"); /* what is too much is dropped */
    CHECK_STR(g.s.text, "aaaaa");
    HEARS(&g, "");
    guest_close(&g);
}

TEST(braille_newest_row_wins)
{
    guest g;
    guest_open(&g, 1);
    SAYS(&g, "\033\001\001\033\001\003\033\001\011");
    CHECK_INT(g.s.writes, 1);
    CHECK_STR(g.s.text, "c");
    guest_close(&g);
}

/* From the loop, never from inside the guest's own write. */
TEST(braille_display_is_written_from_the_loop)
{
    guest g;
    guest_open(&g, 1);
    CHECK_INT(chr_fe_write(&g.rec.fe, "\033\001\001\033\005", 5), 5);
    CHECK_INT(g.s.writes, 0);
    CHECK_INT(g.rec.length, 0);
    settle(&g.r);
    CHECK_INT(g.s.writes, 1);
    HEARS(&g, "\033\005\001");
    guest_close(&g);
}

static const char *const nabcc_facts[] = { /* each character and its dots */
    " ", "!2346", "\"5", "#3456", "$1246", "%146", "&12346", "'3", "(12356", ")23456", "*16", "+346", ",6", "-36", ".46",
    "/34", "0356", "12", "223", "325", "4256", "526", "6235", "72356", "8236", "935", ":156", ";56", "<126", "=123456",
    ">345", "?1456", "@47", "A17", "B127", "C147", "D1457", "E157", "F1247", "G12457", "H1257", "I247", "J2457", "K137",
    "L1237", "M1347", "N13457", "O1357", "P12347", "Q123457", "R12357", "S2347", "T23457", "U1367", "V12367", "W24567",
    "X13467", "Y134567", "Z13567", "[2467", "\\12567", "]124567", "^457", "_456", "`4", "a1", "b12", "c14", "d145", "e15",
    "f124", "g1245", "h125", "i24", "j245", "k13", "l123", "m134", "n1345", "o135", "p1234", "q12345", "r1235", "s234",
    "t2345", "u136", "v1236", "w2456", "x1346", "y13456", "z1356", "{246", "|1256", "}12456", "~45",
};

TEST(braille_nabcc)
{
    size_t i, count = sizeof nabcc_facts / sizeof nabcc_facts[0];
    guest  g;
    int    dots, known = 0;
    guest_open(&g, 2);
    CHECK_INT(count, 95);
    for (i = 0; i < count; i++) {
        const char   *dot;
        unsigned char row[6] = { 0x1b, 1, 0, 0, 0, 0 };
        for (dot = nabcc_facts[i] + 1; *dot; dot++) row[2] |= (unsigned char)(1 << (*dot - '1'));
        dots = row[2];
        if (dots == 0x1b) row[3] = 0x1b;
        guest_says(&g, row, dots == 0x1b ? 5 : 4);
        if (!CHECK(g.s.text[0] == nabcc_facts[i][0])) NOTE("dots %s are '%c'", nabcc_facts[i], g.s.text[0]);
        CHECK_INT(private_nabcc_dots((unsigned char)nabcc_facts[i][0]), dots);
    }
    for (dots = 0; dots < 256; dots++) known += private_nabcc_character((unsigned char)dots) != '?' || dots == 0x39;
    CHECK_INT(known, 95); /* no other dots pass for a character */
    CHECK_INT(private_nabcc_dots(0x1f), -1);
    CHECK_INT(private_nabcc_dots(0x7f), -1);
    CHECK_INT(private_nabcc_dots(0xe9), -1);
    guest_close(&g);
}

TEST(braille_row_in_time)
{
    guest g;
    guest_open(&g, 3);
    SAYS(&g, "\033\001\001");
    pass_time(&g.r, 99);
    HEARS(&g, "");
    SAYS(&g, "\001\001");
    CHECK_STR(g.s.text, "aaa");
    pass_time(&g.r, 1000);
    HEARS(&g, ""); /* complete: nothing to remind of */
    guest_close(&g);
}

TEST(braille_row_too_late)
{
    guest g;
    guest_open(&g, 3);
    SAYS(&g, "\033\001\001");
    pass_time(&g.r, 99);
    HEARS(&g, "");
    pass_time(&g.r, 1);
    HEARS(&g, "\033\001\003");
    pass_time(&g.r, 1000);
    HEARS(&g, ""); /* once */
    SAYS(&g, "\003\011");
    CHECK_STR(g.s.text, "abc"); /* late, but whole */
    SAYS(&g, "\033\001\001");
    pass_time(&g.r, 100);
    HEARS(&g, "\033\001\003");
    SAYS(&g, "\033\005");
    HEARS(&g, "\033\005\001"); /* was told already */
    guest_close(&g);
}

/* How a guest asks for the number of cells: a row that is too short, and the next request right behind it. */
TEST(braille_row_cut_short)
{
    guest g;
    guest_open(&g, 40);
    SAYS(&g, "\033\001\000\033\010");
    HEARS(&g, "\033\001\050\033\044\000");
    pass_time(&g.r, 1000);
    HEARS(&g, "");
    CHECK_INT(g.s.writes, 0);
    guest_close(&g);
}

TEST(braille_27_cells)
{
    guest g;
    guest_open(&g, 27);
    SAYS(&g, "\033\001\000\033\010");
    HEARS(&g, "\033\001\033\033\033\044\000"); /* a number that is ESC is doubled */
    guest_close(&g);
}

TEST(braille_without_cells_is_silent)
{
    guest g;
    guest_open(&g, 0);
    SAYS(&g, "\033\204\033\212\033\005\033\001abc\033\010");
    pass_time(&g.r, 1000);
    HEARS(&g, "");
    CHECK_INT(g.s.writes, 0);
    g.s.size = 40;
    CHECK_INT(chr_braille_resized(g.rec.fe.dev), 0);
    settle(&g.r);
    HEARS(&g, ""); /* nobody was told another number */
    SAYS(&g, "\033\005");
    HEARS(&g, "\033\005\001");
    guest_close(&g);
}

TEST(braille_with_less_than_no_cells)
{
    guest g;
    guest_open(&g, -1);
    SAYS(&g, "\033\204\033\005\033\001\001");
    HEARS(&g, "");
    CHECK_INT(g.s.writes, 0);
    pass_time(&g.r, 1000);
    HEARS(&g, "");
    guest_close(&g);
}

TEST(braille_resized)
{
    guest g;
    guest_open(&g, 40);
    SAYS(&g, "\033\204");
    forget_input(&g.rec);
    CHECK_INT(chr_braille_resized(g.rec.fe.dev), 0);
    settle(&g.r);
    HEARS(&g, "");
    g.s.size = 2;
    CHECK_INT(chr_braille_resized(g.rec.fe.dev), 0);
    settle(&g.r);
    HEARS(&g, "\033\001\002");
    SAYS(&g, "\033\001\001\003");
    CHECK_STR(g.s.text, "ab");
    guest_close(&g);
}

/* ---- every split ------------------------------------------------------------------------------------------------- */

typedef struct stream {
    const char *bytes;
    size_t      len;
} stream;

#define STREAM(text) { (text), sizeof(text) - 1 }

static const stream streams[] = {
    STREAM("\033\212\033\204\033\001\000\033\010\033\120abcdefg"),
    STREAM("\033\001\023\021\007\007\025\033\204"),
    STREAM("\033\001\033\033\033\033\321\033\033\033\033\033\005"),
    STREAM("\033\022\033\033\002\033\025\033\033\033\005\033\001\001\001\001\001\001\001\001"),
    STREAM("x\033\033y\033\001\001\001\033\005\001\033\001\003\003\003\003\003"),
    STREAM("\033\033\033\005\033"),
};

static void run_pieces(const stream *s, size_t at, size_t step, guest *g)
{
    size_t done, len;
    guest_open(g, 5);
    for (done = 0; done < s->len; done += len) {
        len = step ? step : done < at ? at : s->len - done;
        guest_says(g, s->bytes + done, len);
    }
}

static void same_as_whole(const stream *s, size_t at, size_t step)
{
    guest whole, pieces;
    run_pieces(s, s->len, 0, &whole);
    run_pieces(s, at, step, &pieces);
    if (!CHECK_MEM(pieces.rec.input, pieces.rec.length, whole.rec.input, whole.rec.length) ||
        !CHECK_MEM(pieces.s.cells, pieces.s.count, whole.s.cells, whole.s.count) || !CHECK_INT(pieces.s.cursor, whole.s.cursor))
        NOTE("split at %zu", at);
    detach(&pieces.rec);
    chr_context_free(pieces.r.ctx);
    detach(&whole.rec);
    chr_context_free(whole.r.ctx);
}

TEST(braille_split_anywhere)
{
    size_t i, at;
    for (i = 0; i < sizeof streams / sizeof streams[0]; i++) {
        for (at = 1; at < streams[i].len; at++) same_as_whole(&streams[i], at, 0);
        same_as_whole(&streams[i], 0, 1);
    }
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

TEST(braille_keys)
{
    chr_dev *dev;
    guest    g;
    guest_open(&g, 40);
    dev = g.rec.fe.dev;
    CHECK_INT(chr_braille_key(dev, CHR_BRAILLE_TOP_KEYS, CHR_BRAILLE_TL2 | CHR_BRAILLE_TR3), 0);
    HEARS(&g, ""); /* from the loop */
    settle(&g.r);
    HEARS(&g, "\033\044\042");
    SAYS(&g, "\033\010");
    HEARS(&g, "\033\044\042");
    CHECK_INT(chr_braille_key(dev, CHR_BRAILLE_TOP_KEYS, 0), 0);
    CHECK_INT(chr_braille_key(dev, CHR_BRAILLE_ROUTING_KEY, 27), 0);
    CHECK_INT(chr_braille_key(dev, CHR_BRAILLE_ROUTING_KEY, 0), 0);
    CHECK_INT(chr_braille_key(dev, CHR_BRAILLE_ENTRY_KEYS, 0xff), 0);
    settle(&g.r);
    HEARS(&g, "\033\044\000\033\047\033\033\033\047\000\033\063\000\377");
    CHECK_INT(chr_braille_key(dev, CHR_BRAILLE_TOP_KEYS, 0x40), CHR_ERR_INVALID);
    CHECK_INT(chr_braille_key(dev, CHR_BRAILLE_ROUTING_KEY, 85), CHR_ERR_INVALID);
    CHECK_INT(chr_braille_key(dev, CHR_BRAILLE_ENTRY_KEYS, 256), CHR_ERR_INVALID);
    CHECK_INT(chr_braille_key(dev, CHR_BRAILLE_TOP_KEYS, -1), CHR_ERR_INVALID);
    CHECK_INT(chr_braille_key(dev, (chr_braille_keys)3, 1), CHR_ERR_INVALID);
    CHECK_INT(chr_braille_key(make(&g.r, "null,id=n"), CHR_BRAILLE_TOP_KEYS, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_braille_resized(chr_find(g.r.ctx, "n")), CHR_ERR_NOT_SUPPORTED);
    settle(&g.r);
    HEARS(&g, "");
    guest_close(&g);
}

TEST(braille_takes_a_byte_at_a_time)
{
    guest g;
    int   i;
    guest_open_with_room(&g, 40, 0);
    SAYS(&g, "\033\204\033\005");
    CHECK_INT(g.rec.length, 0);
    for (i = 1; i <= 21; i++) {
        give_room(&g.rec, 1);
        settle(&g.r);
        CHECK_INT(g.rec.length, i);
    }
    HEARS(&g, "\033\204Baum Vario 40   \033\005\001");
    guest_close(&g);
}

/* A guest that never reads: whole packets are lost, and counted; it goes on writing. */
TEST(braille_guest_that_does_not_read)
{
    chr_info info;
    guest    g;
    int      i, kept = 0, code;
    guest_open_with_room(&g, 40, 0);
    for (i = 0; i < 1000; i++) {
        code = chr_braille_key(g.rec.fe.dev, CHR_BRAILLE_TOP_KEYS, i & 0x0f);
        if (code == CHR_ERR_WOULD_BLOCK) break;
        kept++;
    }
    CHECK(kept > 20 && kept < 1000);
    for (i = 0; i < 1000; i++) SAYS(&g, "\033\204");
    CHECK_INT(chr_braille_key(g.rec.fe.dev, CHR_BRAILLE_TOP_KEYS, 1), CHR_ERR_WOULD_BLOCK);
    chr_query(g.rec.fe.dev, &info);
    CHECK_INT(info.bytes_dropped, 2 * 3 + 1000 * 18);
    give_room(&g.rec, UNLIMITED);
    settle(&g.r);
    CHECK_INT(g.rec.length, 3 * kept);
    for (i = 0; i < kept && 3 * (size_t)i < g.rec.length; i++) CHECK(g.rec.input[3 * i + 1] == 0x24 && g.rec.input[3 * i + 2] == (i & 0x0f));
    guest_close(&g);
}

static void remove_it(recorder *rec, int what)
{
    chr_context *ctx = (chr_context *)rec->user;
    if (what != 'r') return;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(ctx, "b", NULL), 0);
}

TEST(braille_removed_by_its_guest)
{
    guest g;
    guest_open(&g, 40);
    g.rec.user = g.r.ctx;
    g.rec.then = remove_it;
    CHECK_INT(chr_fe_write(&g.rec.fe, "\033\005\033\001\001\033\005\033\001", 9), 9);
    settle(&g.r);
    CHECK(chr_find(g.r.ctx, "b") == NULL);
    free(g.rec.input);
    rig_close(&g.r);
}

/* ---- a BrlAPI server that the test plays ------------------------------------------------------------------------- */

typedef struct server {
    rig           r;
    recorder      rec;
    int           listener, peer;
    char          options[300];
    unsigned char got[5000]; /* the last packet's data */
    size_t        length;
} server;

static void be32(unsigned char *out, unsigned long value)
{
    int i;
    for (i = 0; i < 4; i++) out[i] = (unsigned char)(value >> (24 - 8 * i));
}

/* Listens on a port of the loopback interface, which is the server's number plus 4101. */
static int server_listen(const char *more, char *options, size_t size)
{
    struct sockaddr_in address;
    socklen_t          len = sizeof address;
    int                listener = socket(AF_INET, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 5) == 0);
    REQUIRE(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
    snprintf(options, size, "braille,id=b,host=127.0.0.1:%d%s", ntohs(address.sin_port) - 4101, more);
    return listener;
}

static void server_accept(server *s)
{
    struct pollfd poll_one = { s->listener, POLLIN, 0 };
    int           on = 1;
    REQUIRE(poll(&poll_one, 1, RIG_PATIENCE_MS) == 1);
    s->peer = accept(s->listener, NULL, NULL);
    REQUIRE(s->peer >= 0 && setsockopt(s->peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0); /* it arrives when it is sent */
    settle(&s->r);
}

static void server_open(server *s, const char *more)
{
    memset(s, 0, sizeof *s);
    rig_open_virtual(&s->r);
    s->listener = server_listen(more, s->options, sizeof s->options);
    attach(&s->rec, make(&s->r, s->options));
    settle(&s->r);
    server_accept(s);
}

static void server_close(server *s)
{
    detach(&s->rec);
    close(s->peer);
    close(s->listener);
    rig_close(&s->r);
}

static void server_sends(server *s, int type, const void *data, size_t len)
{
    unsigned char packet[600];
    REQUIRE(len + 8 <= sizeof packet);
    be32(packet, (unsigned long)len);
    be32(packet + 4, (unsigned long)type);
    if (len) memcpy(packet + 8, data, len);
    REQUIRE(send(s->peer, packet, len + 8, MSG_NOSIGNAL) == (ssize_t)len + 8);
    settle(&s->r);
}

#define SENDS(s, type, text) server_sends((s), (type), (text), sizeof(text) - 1)

static void receive(server *s, unsigned char *buf, size_t len)
{
    size_t done = 0;
    while (done < len) {
        struct pollfd poll_one = { s->peer, POLLIN, 0 };
        ssize_t       n;
        chr_loop_step(s->r.ctx, 0);
        REQUIRE(poll(&poll_one, 1, RIG_PATIENCE_MS) == 1);
        n = recv(s->peer, buf + done, len - done, 0);
        REQUIRE(n > 0);
        done += (size_t)n;
    }
}

/* The type of the next packet. */
static int server_gets(server *s)
{
    unsigned char header[8];
    receive(s, header, 8);
    s->length = (size_t)header[2] << 8 | header[3];
    REQUIRE(s->length <= sizeof s->got);
    receive(s, s->got, s->length);
    settle(&s->r);
    return header[6] << 8 | header[7];
}

#define GETS(s, type, text)                                                 \
    do {                                                                    \
        CHECK_INT(server_gets(s), (type));                                  \
        CHECK_MEM((s)->got, (s)->length, (text), sizeof(text) - 1);         \
    } while (0)

static int server_is_left(server *s)
{
    char byte;
    settle(&s->r);
    return recv(s->peer, &byte, 1, MSG_DONTWAIT) == 0;
}

/* From the size question on. */
static void server_shake_rest(server *s, int cells)
{
    unsigned char size[8] = { 0, 0, 0, 0, 0, 0, 0, 1 };
    size[3] = (unsigned char)cells;
    GETS(s, 's', "");
    server_sends(s, 's', size, 8);
    GETS(s, 't', "\0\0\0\0\0");
    SENDS(s, 'A', "");
    GETS(s, 'u', "\0\0\0\0\0\0\0\0\377\377\377\377\377\377\377\377");
    SENDS(s, 'A', "");
    GETS(s, ('P' << 8) + 'R', "\0\0\002\001\0\0\0\006\0\0\0\0\0\0\0\0");
    SENDS(s, 'A', "");
}

static void server_shake(server *s, int cells)
{
    SENDS(s, 'v', "\0\0\0\010");
    GETS(s, 'v', "\0\0\0\010");
    SENDS(s, 'a', "\0\0\0N");
    server_shake_rest(s, cells);
}

static void guest_of(server *s, const char *bytes, size_t len)
{
    CHECK_INT(chr_fe_write(&s->rec.fe, bytes, len), (int)len);
    settle(&s->r);
}

#define GUEST(s, text) guest_of((s), (text), sizeof(text) - 1)

TEST(brlapi_row)
{
    server s;
    server_open(&s, "");
    CHECK_STR(s.rec.events, "O");
    GUEST(&s, "\033\204");
    HEARS(&s, ""); /* no display yet: silent */
    server_shake(&s, 4);
    GUEST(&s, "\033\204");
    HEARS(&s, "\033\204Baum Vario 4    ");
    GUEST(&s, "\033\001\001\003\300\033\033");
    GETS(&s, 'w', "\0\0\0\176" "\0\0\0\001" "\0\0\0\004" "\0\0\0\004" "ab g" "\0\0\0\0" "\001\003\0\033" "\0\0\0\003" "\012ISO-8859-1");
    CHECK_INT(s.r.logs, 0);
    server_close(&s);
}

TEST(brlapi_keys)
{
    server s;
    server_open(&s, "");
    server_shake(&s, 40);
    SENDS(&s, 'k', "\0\0\0\0\040\0\0\027");
    HEARS(&s, "\033\044\002\033\044\000");
    SENDS(&s, 'k', "\0\0\0\0\040\0\0\064");
    HEARS(&s, "\033\044\015\033\044\000");
    SENDS(&s, 'k', "\0\0\0\0\040\001\0\003");
    HEARS(&s, "\033\047\004\033\047\000");
    SENDS(&s, 'k', "\0\0\0\0\040\042\0\033");
    HEARS(&s, "\033\063\000\033\033\033\063\000\000");
    SENDS(&s, 'k', "\0\0\0\0\0\0\0A");
    HEARS(&s, "\033\063\000\101\033\063\000\000");
    SENDS(&s, 'k', "\0\0\0\0\0\0\0\351"); /* in no code of ours: */
    SENDS(&s, 'k', "\0\0\0\0\040\0\0\177");
    SENDS(&s, 'k', "\0\0\0\0\040\001\0\124");
    SENDS(&s, 'k', "\0\0\0\0\040\0\0");
    SENDS(&s, 'X', "whatever");
    SENDS(&s, 'E', "\0\0\0\001");
    HEARS(&s, "");
    SENDS(&s, 'k', "\0\0\0\0\040\0\0\002");
    HEARS(&s, "\033\044\040\033\044\000");
    server_close(&s);
}

/* Each command that keys of a Vario have, and the keys: l and r, 1 to 3 from the top. */
TEST(brlapi_commands)
{
    static const char *const keys[] = { "",       "r1",     "r3",       "",         "",         "r1r2",     "r2r3",     "l1l2",     "l2l3",   "l1r1",
                                        "l3r3",   "l2r1",   "l2r3",     "l2r1r2",   "l2r2r3",   "l1l2r1r2", "l2l3r2r3", "l1l2r1r3", "l2l3r1r3", "l1l3",
                                        "r1r3",   "",       "",         "l2",       "r2",       "",         "",         "l1l2l3",   "r1r2r3", "l2r1r3",
                                        "l1r3",   "",       "",         "" };
    size_t i;
    server s;
    server_open(&s, "");
    server_shake(&s, 40);
    for (i = 0; i < sizeof keys / sizeof *keys; i++) {
        char        command[] = "\0\0\0\0\040\0\0", want[8] = "\033\044";
        const char *at;
        size_t      len = 3;
        command[7] = (char)i; /* over its end, which is not sent */
        server_sends(&s, 'k', command, 8);
        for (at = keys[i]; *at; at += 2) want[2] = (char)(want[2] | 1 << (at[1] - '1' + (*at == 'r' ? 3 : 0)));
        if (want[2] == '\033') want[len++] = '\033'; /* an escape in the data is doubled */
        memcpy(want + len, "\033\044", 3);
        if (!CHECK_MEM(s.rec.input, s.rec.length, want, keys[i][0] ? len + 3 : 0)) NOTE("command %d", (int)i);
        forget_input(&s.rec);
    }
    server_close(&s);
}

/* As rig_close(). A lookup thread closes its pipe when it has finished. */
static void close_after_lookups(rig *r)
{
    int64_t end = real_ms() + RIG_PATIENCE_MS;
    chr_context_free(r->ctx);
    while (count_fds() != r->fds && real_ms() < end) usleep(1000);
    CHECK_INT(r->live, 0);
    CHECK_INT(count_fds(), r->fds);
}

/* A guest that does not read: each key that is lost is lost whole, down and up, and counted. */
TEST(brlapi_keys_while_the_guest_does_not_read)
{
    enum { KEYS = 200 };
    chr_info info;
    size_t   i;
    server   s;
    server_open(&s, "");
    server_shake(&s, 40);
    s.rec.room = 0;
    for (i = 0; i < KEYS; i++) SENDS(&s, 'k', "\0\0\0\0\040\0\0\002");
    CHECK_INT(s.rec.length, 0);
    give_room(&s.rec, UNLIMITED);
    settle(&s.r);
    CHECK(s.rec.length >= 200 && s.rec.length <= 256);
    CHECK_INT(s.rec.length % 6, 0);
    for (i = 0; i + 6 <= s.rec.length; i += 6) CHECK_MEM(s.rec.input + i, 6, "\033\044\040\033\044\000", 6);
    chr_query(s.rec.fe.dev, &info);
    CHECK_INT(info.bytes_dropped, KEYS * 6 - s.rec.length);
    server_close(&s);
}

/* A name is resolved in the background; a failure is logged, and the lookup is repeated. */
TEST(brlapi_by_name)
{
    server s;
    char  *number;
    int    fails;
    NEED_LOCALHOST();
    for (fails = 0; fails < (RIG_OVER_TCP ? 1 : 2); fails++) { /* where there are no faults: once */
        memset(&s, 0, sizeof s);
        rig_open_virtual(&s.r);
        s.listener = server_listen("", s.options, sizeof s.options);
        number = strdup(strrchr(s.options, ':'));
        snprintf(s.options, sizeof s.options, "braille,id=b,host=localhost%s", number);
        free(number);
#ifndef _WIN32
        if (fails) fault_arm(FAULT_getaddrinfo, ENOMEM, 2, 0);
#endif
        attach(&s.rec, make(&s.r, s.options));
#ifndef _WIN32
        if (fails) {
            PUMP(&s.r, s.r.logs == 1);
            CHECK_HAS(s.r.log, "localhost");
            memset(&fault_plan, 0, sizeof fault_plan);
            pass_time(&s.r, 1000);
        }
#endif
        {
            struct pollfd poll_one = { 0, POLLIN, 0 };
            poll_one.fd = s.listener;
            PUMP(&s.r, poll(&poll_one, 1, 0) == 1);
        }
        server_accept(&s);
        server_shake(&s, 4);
        GUEST(&s, "\033\204");
        HEARS(&s, "\033\204Baum Vario 4    ");
        CHECK_INT(s.r.logs, fails);
        detach(&s.rec);
        close(s.peer);
        close(s.listener);
        close_after_lookups(&s.r);
    }
}

/* The server's bytes one by one, from its greeting to a key. */
/* It is removed, or its time is over, while the name is looked up: nothing of that is left. */
TEST(brlapi_ends_while_a_name_is_looked_up)
{
    int how;
    NEED_LOCALHOST();
    for (how = 0; how < 2; how++) {
        rig r;
        rig_open_virtual(&r);
        make(&r, "braille,id=b,host=localhost:61434");
        if (how == 0) CHECK_INT(chr_remove(r.ctx, "b", NULL), 0);
        close_after_lookups(&r);
    }
}

#ifndef _WIN32
/* Where no lookup can be begun in the background, the name is looked up all the same. */
TEST(brlapi_by_name_without_a_thread)
{
    server        s;
    struct pollfd poll_one = { 0, POLLIN, 0 };
    NEED_LOCALHOST();
    memset(&s, 0, sizeof s);
    rig_open_virtual(&s.r);
    s.listener = server_listen("", s.options, sizeof s.options);
    memmove(strstr(s.options, "127.0.0.1") , "localhost", 9);
    fault_arm(FAULT_pipe, EMFILE, 1, 1);
    attach(&s.rec, make(&s.r, s.options));
    CHECK(fault_plan.fired > 0);
    memset(&fault_plan, 0, sizeof fault_plan);
    poll_one.fd = s.listener;
    PUMP(&s.r, poll(&poll_one, 1, 0) == 1);
    server_accept(&s);
    server_shake(&s, 4);
    CHECK_INT(s.r.logs, 0);
    server_close(&s);
}
#endif

TEST(brlapi_split_anywhere)
{
    static const char talk[] = "\0\0\0\004\0\0\0v\0\0\0\010" "\0\0\0\004\0\0\0a\0\0\0N" "\0\0\0\010\0\0\0s\0\0\0\050\0\0\0\001" "\0\0\0\0\0\0\0A"
                               "\0\0\0\0\0\0\0A" "\0\0\0\0\0\0\0A" "\0\0\0\010\0\0\0s\0\0\0\024\0\0\0\001"
                               "\0\0\0\010\0\0\0k\0\0\0\0\040\0\0\002";
    size_t            at, step;
    for (step = 1; step < sizeof talk; step++) {
        server s;
        server_open(&s, "");
        for (at = 0; at < sizeof talk - 1; at += step) {
            size_t len = sizeof talk - 1 - at < step ? sizeof talk - 1 - at : step;
            REQUIRE(send(s.peer, talk + at, len, MSG_NOSIGNAL) == (ssize_t)len);
            settle(&s.r);
        }
        HEARS(&s, "\033\044\040\033\044\000");
        GUEST(&s, "\033\204");
        HEARS(&s, "\033\204Baum Vario 20   ");
        server_close(&s);
    }
}

TEST(brlapi_display_comes_later)
{
    server s;
    server_open(&s, "");
    SENDS(&s, 'v', "\0\0\0\010");
    GETS(&s, 'v', "\0\0\0\010");
    SENDS(&s, 'a', "\0\0\0N");
    GETS(&s, 's', "");
    SENDS(&s, 's', "\0\0\0\0\0\0\0\0");
    pass_time(&s.r, 999);
    CHECK_INT(recv(s.peer, s.got, 1, MSG_DONTWAIT), -1);
    pass_time(&s.r, 1);
    server_shake_rest(&s, 40);
    pass_time(&s.r, 100000);
    CHECK(!server_is_left(&s));
    server_close(&s);
}

/* The server answers, but has no display; then it sends nothing more. */
TEST(brlapi_that_says_nothing_more)
{
    server s;
    server_open(&s, "");
    SENDS(&s, 'v', "\0\0\0\010");
    GETS(&s, 'v', "\0\0\0\010");
    pass_time(&s.r, 9000);
    SENDS(&s, 'a', "\0\0\0N");
    GETS(&s, 's', "");
    pass_time(&s.r, 9000);
    SENDS(&s, 's', "\0\0\0\0\0\0\0\0");
    pass_time(&s.r, 1000);
    GETS(&s, 's', "");
    pass_time(&s.r, 9999);
    CHECK(!server_is_left(&s));
    pass_time(&s.r, 1);
    CHECK(server_is_left(&s));
    CHECK_HAS(s.r.log, "does not answer");
    server_close(&s);
}

/* The server reconnects with another display: the guest gets the new size. */
TEST(brlapi_back_with_another_size)
{
    server s;
    server_open(&s, "");
    server_shake(&s, 40);
    GUEST(&s, "\033\204");
    HEARS(&s, "\033\204Baum Vario 40   ");
    close(s.peer);
    settle(&s.r);
    pass_time(&s.r, 1000);
    server_accept(&s);
    server_shake(&s, 20);
    HEARS(&s, "\033\001\024");
    server_close(&s);
}

/* What one server has offered means nothing to the next one. */
TEST(brlapi_methods_are_the_servers_own)
{
    server s;
    server_open(&s, ",key=/nonexistent/key");
    SENDS(&s, 'v', "\0\0\0\010");
    GETS(&s, 'v', "\0\0\0\010");
    SENDS(&s, 'a', "\0\0\0C\0\0\0K\0\0\0N\0\0\0N\0\0\0N");
    GETS(&s, 'a', "\0\0\0C");
    close(s.peer);
    settle(&s.r);
    pass_time(&s.r, 1000);
    server_accept(&s);
    SENDS(&s, 'v', "\0\0\0\010");
    GETS(&s, 'v', "\0\0\0\010");
    SENDS(&s, 'a', "\0\0\0C");
    GETS(&s, 'a', "\0\0\0C");
    SENDS(&s, 'e', "\0\0\0\014");
    CHECK(server_is_left(&s));
    CHECK_HAS(s.r.log, "does not let us in");
    server_close(&s);
}

TEST(brlapi_resized)
{
    server s;
    server_open(&s, "");
    server_shake(&s, 40);
    GUEST(&s, "\033\204");
    forget_input(&s.rec);
    SENDS(&s, ('P' << 8) + 'U', "\0\0\0\001\0\0\0\006\0\0\0\0\0\0\0\0\024\0\0\0\001\0\0\0");
    GETS(&s, 's', "");
    SENDS(&s, 's', "\0\0\0\024\0\0\0\001");
    HEARS(&s, "\033\001\024");
    SENDS(&s, 's', "\0\0\0\0\0\0\0\0"); /* gone: the guest keeps its size */
    SENDS(&s, 's', "\0\0\0\012");
    HEARS(&s, "");
    SENDS(&s, 's', "\0\0\0\024\0\0\0\002"); /* as it was; two rows are no more cells */
    SENDS(&s, 's', "\0\0\0\012"); /* without rows, although the last packet had some */
    SENDS(&s, 's', "\0\0\0\012\0\0\0");
    SENDS(&s, 's', "");
    HEARS(&s, "");
    SENDS(&s, 's', "\0\0\0\125\0\0\0\001"); /* more than a Vario can have */
    HEARS(&s, "\033\001\124");
    SENDS(&s, 's', "\0\0\0\123\0\0\0\001");
    HEARS(&s, "\033\001\123");
    SENDS(&s, 's', "\0\0\0\124\0\0\0\001");
    HEARS(&s, "\033\001\124");
    server_close(&s);
}

/* The display shrinks: of a longer row it gets what fits, and a cursor only where it has a cell. */
TEST(brlapi_row_for_more_cells_than_there_are)
{
    static const struct { const char *row, *want; } rows[] = {
        { "\033\001\001\003\301", "\0\0\0\176" "\0\0\0\001" "\0\0\0\002" "\0\0\0\002" "ab" "\0\0" "\001\003" "\0\0\0\0" "\012ISO-8859-1" },
        { "\033\001\001\303\001", "\0\0\0\176" "\0\0\0\001" "\0\0\0\002" "\0\0\0\002" "ab" "\0\0" "\001\003" "\0\0\0\002" "\012ISO-8859-1" },
    };
    size_t i;
    for (i = 0; i < 2; i++) {
        server s;
        server_open(&s, "");
        server_shake(&s, 3);
        close(s.peer);
        settle(&s.r);
        guest_of(&s, rows[i].row, 5); /* while nobody is there: for the next */
        pass_time(&s.r, 1000);
        server_accept(&s);
        SENDS(&s, 'v', "\0\0\0\010");
        GETS(&s, 'v', "\0\0\0\010");
        SENDS(&s, 'a', "\0\0\0N");
        server_shake_rest(&s, 2);
        CHECK_INT(server_gets(&s), 'w');
        CHECK_MEM(s.got, s.length, rows[i].want, 37);
        server_close(&s);
    }
}

TEST(brlapi_lost_and_back)
{
    server s;
    server_open(&s, "");
    server_shake(&s, 2);
    GUEST(&s, "\033\001\001\003");
    CHECK_INT(server_gets(&s), 'w');
    close(s.peer);
    settle(&s.r);
    CHECK_INT(s.r.logs, 1);
    CHECK_HAS(s.r.log, "hung up");
    CHECK_STR(s.rec.events, "O"); /* the device is still there */
    GUEST(&s, "\033\001\011\031\033\204");
    HEARS(&s, "\033\204Baum Vario 2    ");
    pass_time(&s.r, 999);
    GUEST(&s, "\033\001\003\001");
    pass_time(&s.r, 1);
    server_accept(&s);
    server_shake(&s, 2);
    CHECK_INT(server_gets(&s), 'w');
    CHECK_MEM(s.got + 16, 2, "ba", 2); /* what the guest wrote last, and only that */
    CHECK_INT(recv(s.peer, s.got, 1, MSG_DONTWAIT), -1);
    server_close(&s);
}

TEST(brlapi_nobody_there)
{
    char     options[300];
    recorder rec;
    rig      r;
    int      i;
    rig_open_virtual(&r);
    close(server_listen("", options, sizeof options));
    attach(&rec, make(&r, options));
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_write(&rec.fe, "\033\204\033\001abc", 7), 7);
    for (i = 0; i < 20; i++) pass_time(&r, 1000);
    CHECK_INT(r.logs, 1);
    CHECK_INT(rec.length, 0);
    detach(&rec);
    rig_close(&r);
}

/* A row at a time goes out; meanwhile only the newest waits. */
TEST(brlapi_server_that_does_not_read)
{
    unsigned char row[42];
    server        s;
    int           i, rows = 0;
    server_open(&s, "");
    server_shake(&s, 40);
    for (i = 0; i < 60000; i++) {
        memset(row, (i & 0x3f) == 0x1b ? 0 : i & 0x3f, sizeof row);
        row[0] = 0x1b;
        row[1] = 1;
        guest_of(&s, (const char *)row, sizeof row);
    }
    memset(row + 2, 0x7d, 40);
    guest_of(&s, (const char *)row, sizeof row);
    do {
        CHECK_INT(server_gets(&s), 'w');
        rows++;
    } while (s.got[16] != 'Y' && rows < 60001);
    CHECK(rows < 60000); /* those in between were never sent */
    CHECK_INT(recv(s.peer, s.got, 1, MSG_DONTWAIT), -1);
    SENDS(&s, 'k', "\0\0\0\0\040\0\0\002");
    HEARS(&s, "\033\044\040\033\044\000");
    server_close(&s);
}

TEST(brlapi_server_that_hangs_up_and_does_not_read)
{
    unsigned char row[42];
    server        s;
    int           i;
    server_open(&s, "");
    server_shake(&s, 40);
    memset(row, 1, sizeof row);
    row[0] = 0x1b;
    for (i = 0; i < 60000; i++) guest_of(&s, (const char *)row, sizeof row);
    CHECK_INT(s.r.logs, 0);
    shutdown(s.peer, SHUT_WR);
    settle(&s.r); /* comes to rest */
    CHECK_INT(s.r.logs, 1);
    CHECK_HAS(s.r.log, "hung up");
    server_close(&s);
}

/* ---- who may come in --------------------------------------------------------------------------------------------- */

static const char *key_file(const char *key)
{
    const char *path = scratch("key");
    FILE       *file = fopen(path, "w");
    REQUIRE(file != NULL);
    fputs(key, file);
    fclose(file);
    return path;
}

TEST(brlapi_shows_its_key)
{
    char   more[300];
    server s;
    snprintf(more, sizeof more, ",key=%s", key_file("secret\n"));
    server_open(&s, more);
    SENDS(&s, 'v', "\0\0\0\010");
    GETS(&s, 'v', "\0\0\0\010");
    SENDS(&s, 'a', "\0\0\0?\0\0\0K\0\0\0C"); /* one that we don't know, then the key, then credentials */
    GETS(&s, 'a', "\0\0\0Ksecret\n");
    SENDS(&s, 'e', "\0\0\0\014");
    GETS(&s, 'a', "\0\0\0C");
    SENDS(&s, 'A', "");
    server_shake_rest(&s, 40);
    server_close(&s);
    scratch_clean();
}

/* Its key is what the file begins with, up to 512 bytes. An empty file is none. */
TEST(brlapi_keys_of_many_sizes)
{
    static const size_t sizes[] = { 1, 511, 512, 513, 600, 0 };
    size_t              i;
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char   key[601], more[300];
        server s;
        memset(key, 'k', sizeof key);
        key[sizes[i]] = 0;
        snprintf(more, sizeof more, ",key=%s", key_file(key));
        server_open(&s, more);
        SENDS(&s, 'v', "\0\0\0\010");
        GETS(&s, 'v', "\0\0\0\010");
        SENDS(&s, 'a', "\0\0\0K");
        if (sizes[i] > 0) {
            CHECK_INT(server_gets(&s), 'a');
            CHECK_INT(s.length, 4 + (sizes[i] < 512 ? sizes[i] : 512));
            CHECK_MEM(s.got, 4, "\0\0\0K", 4);
            CHECK_MEM(s.got + 4, s.length - 4, key, s.length - 4);
        } else {
            CHECK(server_is_left(&s));
            CHECK_HAS(s.r.log, "does not let us in");
        }
        server_close(&s);
        scratch_clean();
    }
}

static void left_with(server *s, const char *message)
{
    CHECK(server_is_left(s));
    CHECK_INT(s->r.logs, 1);
    CHECK_HAS(s->r.log, message);
    pass_time(&s->r, 1000);
    close(s->peer);
    server_accept(s); /* and comes again */
    server_close(s);
}

TEST(brlapi_is_not_let_in)
{
    server s;
    server_open(&s, ",key=/nonexistent/key");
    SENDS(&s, 'v', "\0\0\0\010");
    GETS(&s, 'v', "\0\0\0\010");
    SENDS(&s, 'a', "\0\0\0K");
    left_with(&s, "key");
}

/* The server starts late: first nothing listens, then it rejects the key. Each failure is logged once. */
TEST(brlapi_is_not_let_in_by_one_who_comes_later)
{
    server s;
    int    turn;
    server_open(&s, ",key=/nonexistent/key");
    close(s.peer);
    settle(&s.r);
    for (turn = 0; turn < 2; turn++) {
        CHECK_INT(s.r.logs, 1 + turn);
        pass_time(&s.r, 1000);
        server_accept(&s);
        SENDS(&s, 'v', "\0\0\0\010");
        GETS(&s, 'v', "\0\0\0\010");
        SENDS(&s, 'a', "\0\0\0K");
        CHECK(server_is_left(&s));
        CHECK_INT(s.r.logs, 2);
        CHECK_HAS(s.r.log, "does not let us in");
        if (turn == 0) close(s.peer);
    }
    server_close(&s);
}

TEST(brlapi_of_another_version)
{
    server s;
    server_open(&s, "");
    SENDS(&s, 'v', "\0\0\0\007");
    left_with(&s, "version 7");
}

TEST(brlapi_refuses)
{
    server s;
    server_open(&s, "");
    SENDS(&s, 'v', "\0\0\0\010");
    GETS(&s, 'v', "\0\0\0\010");
    SENDS(&s, 'a', "\0\0\0N");
    GETS(&s, 's', "");
    SENDS(&s, 'e', "\0\0\0\005");
    left_with(&s, "error 5");
}

TEST(brlapi_of_something_else)
{
    server s;
    server_open(&s, "");
    REQUIRE(send(s.peer, "SSH-2.0-OpenSSH", 15, MSG_NOSIGNAL) == 15);
    settle(&s.r);
    close(s.peer);
    s.peer = dup(s.listener);
    CHECK_HAS(s.r.log, "speaks something else");
    server_close(&s);
}

TEST(brlapi_that_says_nothing)
{
    server s;
    server_open(&s, "");
    pass_time(&s.r, 9999);
    CHECK(!server_is_left(&s));
    pass_time(&s.r, 1);
    left_with(&s, "does not answer");
}

TEST(brlapi_options)
{
    static const char *const bad[] = { "braille,id=b,host=localhost:x", "braille,id=b,host=:99999", "braille,id=b,host=:-1" };
    static const char *const defaults[] = { "", ":3", "127.0.0.1:3", "[::1]:3", "[::1]", "127.0.0.1" };
    chr_error                err;
    rig                      r;
    size_t                   i;
    rig_open_virtual(&r);
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_INT(refuse(&r, bad[i], &err), CHR_ERR_INVALID);
        CHECK_HAS(err.text, "host=");
    }
    for (i = 254; i <= 256; i++) { /* 255 bytes of a host are the most */
        char name[300], text[400];
        memset(name, 'h', i);
        name[i] = 0;
        snprintf(text, sizeof text, "braille,id=b,host=%s", name);
#ifndef _WIN32
        fault_arm(FAULT_getaddrinfo, EIO, 1, 1);
#endif
        if (i > 255) {
            CHECK_INT(refuse(&r, text, &err), CHR_ERR_INVALID);
        } else {
            make(&r, text);
            chr_remove(r.ctx, "b", NULL);
        }
        memset(&fault_plan, 0, sizeof fault_plan);
    }
    make(&r, "braille,id=b,host=127.0.0.1:61434"); /* port 65535 */
    chr_remove(r.ctx, "b", NULL);
    CHECK_INT(refuse(&r, "braille,id=b,host=127.0.0.1:61435", &err), CHR_ERR_INVALID);
    setenv("BRLAPI_HOST", "nobody:y", 1);
    CHECK_INT(refuse(&r, "braille,id=b", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "nobody:y");
    setenv("BRLAPI_HOST", "[::1]:60000", 1);
    make(&r, "braille,id=b");
    settle(&r);
    CHECK_HAS(r.log, "[::1]:60000");
    chr_remove(r.ctx, "b", NULL);
    unsetenv("BRLAPI_HOST");
    for (i = 0; !RIG_OVER_TCP && i < sizeof defaults / sizeof *defaults; i++) { /* Windows takes its time to refuse */
        char text[100], want[100];
        snprintf(text, sizeof text, defaults[i][0] ? "braille,id=b,host=%s" : "braille,id=b", defaults[i]);
        snprintf(want, sizeof want, "the BrlAPI server at %s", defaults[i][0] ? defaults[i] : ":0");
        memset(r.log, 0, sizeof r.log);
        fault_plan.call = FAULT_connect; /* whoever is there is not met */
        fault_plan.error = ECONNREFUSED;
        fault_plan.at = 1, fault_plan.for_good = 1;
        make(&r, text);
        settle(&r);
        CHECK_HAS(r.log, want);
        if (defaults[i][0] && defaults[i][0] != ':') CHECK_INT(fault_plan.counts[FAULT_connect], 1); /* that address, */
        else CHECK(fault_plan.counts[FAULT_connect] > 1); /* or the local socket and the loopback interface */
        CHECK_INT(chr_remove(r.ctx, "b", NULL), 0);
        memset(&fault_plan, 0, sizeof fault_plan);
    }
    rig_close(&r);
}

/* Brackets count where both are there. */
TEST(brlapi_hosts_in_brackets)
{
    static const struct { const char *before, *behind; int comes; } hosts[] = {
        { "", "", 1 }, { "[", "]", 1 }, { "1", "]", 0 }, { "[", "1", 0 }, { "[[", "]]", 0 },
    };
    size_t i;
    for (i = 0; i < sizeof hosts / sizeof *hosts - RIG_OVER_TCP; i++) { /* Windows takes the last one */
        struct pollfd poll_one = { 0, POLLIN, 0 };
        char          options[300], more[300];
        recorder      rec;
        rig           r;
        rig_open(&r);
        poll_one.fd = server_listen("", options, sizeof options);
        snprintf(more, sizeof more, "braille,id=b,host=%s127.0.0.1%s%s", hosts[i].before, hosts[i].behind, strrchr(options, ':'));
        attach(&rec, make(&r, more));
        if (hosts[i].comes) PUMP(&r, poll(&poll_one, 1, 0) == 1);
        else PUMP(&r, r.logs == 1);
        if (!CHECK_INT(poll(&poll_one, 1, 0), hosts[i].comes)) NOTE("%s", more);
        detach(&rec);
        close(poll_one.fd);
        close_after_lookups(&r);
    }
}

/* ---- sweeps: something fails, once, and in the end the row is on the display ------------------------------------- */

/* What the server has of the connection: how far its packet goes, and the text that it was to show. */
typedef struct robot {
    unsigned char in[5000];
    size_t        count;
    char          shown[5];
} robot;

static void robot_says(int peer, int type, const void *data, size_t len)
{
    unsigned char packet[64];
    be32(packet, (unsigned long)len);
    be32(packet + 4, (unsigned long)type);
    memcpy(packet + 8, data, len);
    (void)!send(peer, packet, len + 8, MSG_NOSIGNAL);
}

static void robot_answers(robot *bot, int peer, int type)
{
    switch (type) {
    case 'v': robot_says(peer, 'a', "\0\0\0N", 4); break;
    case 's': robot_says(peer, 's', "\0\0\0\004\0\0\0\001", 8); break;
    case 'w': memcpy(bot->shown, bot->in + 8 + 16, 4); break;
    default: robot_says(peer, 'A', "", 0); break;
    }
}

static void robot_reads(robot *bot, int peer)
{
    size_t  len;
    ssize_t n = recv(peer, bot->in + bot->count, sizeof bot->in - bot->count, MSG_DONTWAIT);
    bot->count += n > 0 ? (size_t)n : 0;
    while (bot->count >= 8 && bot->count >= (len = 8u + ((size_t)bot->in[2] << 8 | bot->in[3]))) {
        robot_answers(bot, peer, bot->in[7]);
        bot->count -= len;
        memmove(bot->in, bot->in + len, bot->count);
    }
}

/* Serves whoever comes, until the row is there or its time is over. */
static void robot_serves(server *s, robot *bot)
{
    int turns, on = 1;
    for (turns = 0; turns < 60 && strcmp(bot->shown, "abcd") != 0; turns++) {
        int peer = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK);
        if (peer >= 0) {
            if (s->peer >= 0) close(s->peer);
            s->peer = peer;
            bot->count = 0;
            setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            robot_says(peer, 'v', "\0\0\0\010", 4);
        }
        chr_loop_step(s->r.ctx, 0);
        chr_loop_step(s->r.ctx, 0);
        if (s->peer >= 0) robot_reads(bot, s->peer);
        (void)chr_fe_write(&s->rec.fe, "\033\001\001\003\011\031", 6);
        s->r.now += 200 * INT64_C(1000000);
    }
}

static void life_begins(server *s)
{
    memset(s, 0, sizeof *s);
    rig_open_virtual(&s->r);
    s->peer = -1;
    s->listener = server_listen("", s->options, sizeof s->options);
    fcntl(s->listener, F_SETFL, O_NONBLOCK);
}

static int life_is_lived(server *s, robot *bot)
{
    chr_error err;
    chr_dev  *dev = chr_new(s->r.ctx, s->options, &err);
    memset(bot, 0, sizeof *bot);
    if (!dev) return err.code;
    attach(&s->rec, dev);
    robot_serves(s, bot);
    return 0;
}

static void life_ends(server *s)
{
    if (s->rec.fe.dev) detach(&s->rec);
    if (s->peer >= 0) close(s->peer);
    close(s->listener);
    rig_close(&s->r);
}

TEST(brlapi_allocations_fail)
{
    int failed = 1;
    long at;
    for (at = 1; failed; at++) {
        server s;
        robot  bot;
        int    code;
        life_begins(&s);
        s.r.fail_at = s.r.calls + at;
        code = life_is_lived(&s, &bot);
        failed = s.r.failed;
        if (code < 0) CHECK_INT(code, CHR_ERR_NO_MEMORY);
        else CHECK_STR(bot.shown, "abcd");
        REQUIRE(at < 100);
        life_ends(&s);
    }
}

/* The same while the loop's own tables are full, each in turn. */
TEST(brlapi_allocations_fail_with_many_watches)
{
    static chr_watch others[70];
    int              count, failed, i;
    long             at;
    for (count = 1; count < 70; count += count < 36 ? 1 : 7)
        for (at = 1, failed = 1; failed; at++) {
            server s;
            robot  bot;
            int    code;
            life_begins(&s);
            memset(others, 0, sizeof others);
            for (i = 0; i < count; i++) REQUIRE(chr_watch_start(s.r.ctx, &others[i], s.listener, 0, NULL, NULL) == 0);
            s.r.fail_at = s.r.calls + at;
            code = life_is_lived(&s, &bot);
            failed = s.r.failed;
            if (code < 0) CHECK_INT(code, CHR_ERR_NO_MEMORY);
            else CHECK_STR(bot.shown, "abcd");
            REQUIRE(at < 100);
            for (i = 0; i < count; i++) chr_watch_stop(&others[i]);
            life_ends(&s);
        }
}

TEST(brlapi_system_calls_fail)
{
    static const struct { fault_call call; int error; } faults[] = {
        { FAULT_socket, EMFILE }, { FAULT_connect, ECONNREFUSED }, { FAULT_connect, EINTR }, { FAULT_getsockopt, EIO }, { FAULT_fcntl, EIO },
        { FAULT_getaddrinfo, EIO }, { FAULT_recv, EINTR }, { FAULT_recv, ECONNRESET }, { FAULT_recv, FAULT_SHORT },
        { FAULT_send, EINTR }, { FAULT_send, EPIPE }, { FAULT_send, EAGAIN }, { FAULT_send, FAULT_SHORT }, { FAULT_setsockopt, EIO },
    };
    size_t i;
    long   at;
    int    fired;
    for (i = 0; i < sizeof faults / sizeof faults[0]; i++)
        for (at = 1, fired = 1; fired && at < 12; at++) {
            server s;
            robot  bot;
            int    code;
            life_begins(&s);
            fault_arm(faults[i].call, faults[i].error, at, 0);
            code = life_is_lived(&s, &bot);
            fired = fault_plan.fired > 0;
            memset(&fault_plan, 0, sizeof fault_plan);
            CHECK(fired || at > 1); /* each of them is called */
            if (!CHECK_INT(code, 0) || !CHECK_STR(bot.shown, "abcd")) NOTE("%s %ld: %d", fault_names[faults[i].call], at, faults[i].error);
            life_ends(&s);
        }
}
