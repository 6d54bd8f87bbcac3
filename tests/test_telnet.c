/* telnet, server and client, and tn3270: every stream is fed whole, and split at every byte. */
#include "chardev.h"
#include "fault.h"
#include "private.h"
#include "telnet_line.h"

#include <netinet/tcp.h>

#define OPENING        "\xff\xfb\x01\xff\xfb\x03\xff\xfb\x00\xff\xfd\x00" /* WILL ECHO, WILL SGA, WILL BINARY, DO BINARY */
#define OPENING_CLIENT "\xff\xfd\x03\xff\xfb\x00\xff\xfd\x00"             /* DO SGA, WILL BINARY, DO BINARY */
#define OPENING_3270   "\xff\xfd\x19\xff\xfb\x19\xff\xfd\x00\xff\xfb\x00\xff\xfd\x18\xff\xfa\x18\x01\xff\xf0"
#define DO_SIZE        "\xff\xfd\x1f"
#define WILL_SIZE      "\xff\xfb\x1f"
#define TYPE_IS(name)  "\xff\xfa\x18\0" name "\xff\xf0"

/* ---- openings ---------------------------------------------------------------------------------------------------- */

TEST(server_opens_with_its_four_offers)
{
    line l;
    line_open(&l, "telnet", 1);
    CHECK_MEM(hear_text, hear_length, OPENING, 12);
    line_close(&l);
}

TEST(client_opens_with_its_offers)
{
    line l;
    line_open(&l, "telnet", 0);
    CHECK_MEM(hear_text, hear_length, OPENING_CLIENT, 9);
    line_close(&l);
}

TEST(tn3270_opens_with_all_at_once)
{
    line l;
    line_open(&l, "tn3270", 1);
    CHECK_MEM(hear_text, hear_length, OPENING_3270, sizeof OPENING_3270 - 1);
    line_close(&l);
}

TEST(only_one_protocol)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    CHECK_INT(refuse(&r, "socket,id=t,path=/x,server=on,tn3270=on,telnet=on", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "only one");
    rig_close(&r);
}

TEST(terminal_types_that_are_none)
{
    static const char *const wrong[] = {
        "telnet=on,server=on,wait=off,terminal-type=vt100", "terminal-type=vt100", "websocket=on,terminal-type=vt100", "telnet=on,terminal-type=",
        "telnet=on,terminal-type=vt 100", "telnet=on,terminal-type=vt\xff", "telnet=on,terminal-type=12345678901234567890123456789012345678901"
    };
    char      options[200];
    size_t    i;
    chr_error err;
    rig       r;
    rig_open(&r);
    for (i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        snprintf(options, sizeof options, "socket,id=t,path=/x,%s", wrong[i]);
        if (!CHECK_INT(refuse(&r, options, &err), CHR_ERR_INVALID)) NOTE("%s", options);
        CHECK_HAS(err.text, "terminal-type=");
    }
    rig_close(&r);
}

TEST(query_names_the_protocol)
{
    chr_info info;
    line     l;
    line_open(&l, "telnet", 1);
    chr_query(l.dev, &info);
    CHECK_HAS(info.filename, "telnet:");
    line_close(&l);
}

/* ---- input, whole and split -------------------------------------------------------------------------------------- */

static const stream streams[] = {
    { "plain", "telnet", 1, S("hello\r\nworld"), S("hello\r\nworld"), "", S("") },
    { "iac_iac", "telnet", 1, S("a\xff\xff" "b\xff\xff\xff\xff"), S("a\xff" "b\xff\xff"), "", S("") },
    { "cr_nul", "telnet", 1, S("a\r\0b\r\0\0c\0\r\nd"), S("a\rb\r\0c\0\r\nd"), "", S("") },
    { "cr_nul_with_a_command_between", "telnet", 1, S("\r\xff\xf1\0x"), S("\rx"), "", S("") },
    { "cr_nul_after_will_binary", "telnet", 1, S("\xff\xfb\x00" "a\r\0b"), S("a\r\0b"), "", S(DO_SIZE) },
    { "nop_and_ayt_eat_nothing", "telnet", 1, S("a\xff\xf1" "b\xff\xf6" "c\xff\xf9" "d\xff\xf2" "e"), S("abcde"), "", S("\r\n[Yes]\r\n") },
    { "break", "telnet", 1, S("a\xff\xf3" "b"), S("ab"), "B", S("") },
    { "two_breaks", "telnet", 1, S("\xff\xf3\xff\xf3"), S(""), "BB", S("") },
    { "answers_to_our_offers_are_not_answered", "telnet", 1,
      S("\xff\xfd\x01\xff\xfd\x03\xff\xfd\x00\xff\xfb\x00x\xff\xfd\x01\xff\xfb\x00y"), S("xy"), "", S(DO_SIZE) },
    { "refusals_of_our_offers_are_not_answered", "telnet", 1, S("\xff\xfe\x01\xff\xfe\x03\xff\xfe\x00\xff\xfc\x00x"), S("x"), "", S(DO_SIZE) },
    { "what_it_does_not_want_is_refused", "telnet", 1, S("\xff\xfd\x18\xff\xfb\x22x\xff\xfd\xff\xff\xfb\xc8y"), S("xy"), "",
      S("\xff\xfc\x18" DO_SIZE "\xff\xfe\x22\xff\xfc\xff\xff\xfe\xc8") },
    { "acknowledged_refusals_end_there", "telnet", 1, S("\xff\xfb\x22\xff\xfc\x22\xff\xfe\x18x"), S("x"), "", S("\xff\xfe\x22" DO_SIZE) },
    { "switched_on_and_off_again", "telnet", 1, S("\xff\xfb\x03\xff\xfb\x03\xff\xfc\x03\xff\xfc\x03x"), S("x"), "",
      S("\xff\xfd\x03" DO_SIZE "\xff\xfe\x03") },
    { "subnegotiation_is_skipped", "telnet", 1, S("a\xff\xfa\x18\x00vt100\xff\xff\xff\xf3z\xff\xf0" "b"), S("ab"), "", S("") },
    { "window_size", "telnet", 1, S("a\xff\xfb\x1f\xff\xfa\x1f\x00\x50\x00\x18\xff\xf0" "b"), S("ab"), "R", S("\xff\xfd\x1f") },
    { "window_size_with_255", "telnet", 1, S("\xff\xfa\x1f\x00\xff\xff\x00\x18\xff\xf0" "b"), S("b"), "R", S("") },
    { "window_size_too_short_or_long", "telnet", 1, S("\xff\xfa\x1f\x00\x50\xff\xf0\xff\xfa\x1f\0\1\0\2\0\xff\xf0" "b"), S("b"), "", S("") },
    { "stray_se", "telnet", 1, S("a\xff\xf0" "b"), S("ab"), "", S("") },
    { "client_accepts_echo_and_sga", "telnet", 0, S("\xff\xfb\x01\xff\xfb\x03\xff\xfd\x03x"), S("x"), "", S("\xff\xfd\x01\xff\xfb\x03") },
    { "client_tells_its_terminal_type", "telnet", 0, S("\xff\xfd\x18x\xff\xfa\x18\x01\xff\xf0y\xff\xfa\x18\x01\xff\xf0\xff\xfd\x01"), S("xy"), "",
      S("\xff\xfb\x18" TYPE_IS("unknown") TYPE_IS("unknown") "\xff\xfc\x01") },
    { "client_tells_no_type_that_is_not_agreed", "telnet", 0, S("\xff\xfa\x18\x01\xff\xf0x\xff\xfd\x18\xff\xfe\x18\xff\xfa\x18\x01\xff\xf0"),
      S("x"), "", S("\xff\xfb\x18\xff\xfc\x18") },
    { "client_is_asked_for_no_type", "telnet", 0, S("\xff\xfd\x18\xff\xfa\x18\xff\xf0\xff\xfa\x18\0\xff\xf0\xff\xfa\x18\x01\x01\xff\xf0x"), S("x"), "",
      S("\xff\xfb\x18") },
    { "client_has_a_size_when_its_frontend_has", "telnet", 0, S("\xff\xfd\x1fx"), S("x"), "", S("\xff\xfb\x1f") },
    { "server_tells_no_type", "telnet", 1, S("\xff\xfd\x18\xff\xfa\x18\x01\xff\xf0x"), S("x"), "", S("\xff\xfc\x18" DO_SIZE) },
    { "client_meets_our_server", "telnet", 0, S(OPENING "x"), S("x"), "", S("\xff\xfd\x01") },
    { "client_break_and_iac", "telnet", 0, S("\xff\xf3" "a\xff\xff"), S("a\xff"), "B", S("") },
    { "client_skips_subnegotiations", "telnet", 0, S("\xff\xfa\x1f\0\1\0\2\xff\xf0x"), S("x"), "", S("") },
    { "tn3270_record", "tn3270", 1, S("\x7d\x40\x4d\xff\xef"), S("\x7d\x40\x4d\xff\xef"), "", S("") },
    { "tn3270_data_255_is_not_an_end", "tn3270", 1, S("a\xff\xff\xef" "b\xff\xef"), S("a\xff\xff\xef" "b\xff\xef"), "", S("") },
    { "tn3270_negotiation", "tn3270", 1,
      S("\xff\xfb\x19\xff\xfd\x19\xff\xfb\x00\xff\xfd\x00\xff\xfb\x18\xff\xfa\x18\x00IBM-3279-4-E\xff\xf0x"),
      S("\xff\xfa\x18\x00IBM-3279-4-E\xff\xf0x"), "", S("") },
    { "tn3270_zeros_stay", "tn3270", 1, S("\r\0\0"), S("\r\0\0"), "", S("") },
    { "tn3270_break", "tn3270", 1, S("a\xff\xf3" "b"), S("ab"), "B", S("") },
};

TEST_FAMILY(streams)
{
    add_streams(streams, sizeof streams / sizeof streams[0]);
}

/* ---- order, size, bounds ----------------------------------------------------------------------------------------- */

static char   order[64];
static size_t order_length;

static void note_order(recorder *rec, int what)
{
    if (what == 'r') order[order_length++] = rec->input[rec->length - 1];
    else order[order_length++] = recorder_letter(rec->last_event);
}

TEST(break_comes_in_its_place_among_the_bytes)
{
    line l;
    line_open(&l, "telnet", 1);
    l.rec.then = note_order;
    say_bytes(&l, S("a\xff\xf3" "b\xff\xf3" "c"));
    settle(&l.r);
    CHECK_MEM(order, order_length, "aBbBc", 5);
    line_close(&l);
}

static void disconnect_on_break(recorder *rec, int what)
{
    if (what == 'e' && rec->last_event == CHR_EVENT_BREAK) CHECK_INT(chr_fe_disconnect(&rec->fe), 0);
}

TEST(disconnect_inside_the_break_handler)
{
    line l;
    line_open(&l, "telnet", 1);
    l.rec.then = disconnect_on_break;
    say_bytes(&l, S("a\xff\xf3never"));
    settle(&l.r);
    CHECK_INPUT(&l.rec, "a");
    CHECK_STR(l.rec.events, "OBC");
    close(l.peer);
    connect_peer(&l); /* the next one is greeted anew */
    CHECK_STR(l.rec.events, "OBCO");
    CHECK_HEARD(&l, OPENING, 12);
    line_close(&l);
}

static void remove_on_break(recorder *rec, int what)
{
    chr_context *ctx = rec->fe.dev->ctx;
    chr_error    err;
    if (what != 'e' || rec->last_event != CHR_EVENT_BREAK) return;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(ctx, "t", &err), 0);
}

TEST(remove_inside_the_break_handler)
{
    line l;
    line_open(&l, "telnet", 1);
    l.rec.then = remove_on_break;
    say_bytes(&l, S("a\xff\xf3never"));
    settle(&l.r);
    CHECK_INPUT(&l.rec, "a");
    free(l.rec.input);
    line_close(&l);
}

/* A peer that asks whether we are there gets its answer also while a guest takes nothing; nothing overtakes
 * anything. */
TEST(answers_need_no_room)
{
    line l;
    line_open_with_room(&l, "telnet", 1, 0);
    listen_in(&l);
    say_bytes(&l, "ab\xff\xf6" "c\xff\xf3" "d\xff\xf6", 10);
    settle(&l.r);
    CHECK_HEARD(&l, "\r\n[Yes]\r\n", 9);
    CHECK_STR(l.rec.events, "O");
    give_room(&l.rec, 2);
    settle(&l.r);
    CHECK_INPUT(&l.rec, "ab");
    CHECK_STR(l.rec.events, "O");
    give_room(&l.rec, UNLIMITED);
    settle(&l.r);
    CHECK_INPUT(&l.rec, "abcd");
    CHECK_STR(l.rec.events, "OB");
    CHECK_HEARD(&l, "\r\n[Yes]\r\n", 9);
    line_close(&l);
}

TEST(terminal_size_is_told)
{
    chr_terminal_size size = { 0, 0 };
    line              l;
    line_open(&l, "telnet", 1);
    CHECK_INT(chr_fe_ioctl(&l.rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), CHR_ERR_NOT_SUPPORTED);
    say_bytes(&l, S("\xff\xfb\x1f\xff\xfa\x1f\x01\x00\x00\xff\xff\xff\xf0"));
    settle(&l.r);
    CHECK_INT(l.rec.last_event, CHR_EVENT_RESIZED);
    CHECK_INT(chr_fe_ioctl(&l.rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), 0);
    CHECK_INT(size.columns, 256);
    CHECK_INT(size.rows, 255);
    line_close(&l);
}

/* ---- a client tells of its terminal ------------------------------------------------------------------------------ */

static int set_size(line *l, int columns, int rows)
{
    chr_terminal_size size = { 0, 0 };
    size.columns = columns;
    size.rows = rows;
    return chr_fe_ioctl(&l->rec.fe, CHR_IOCTL_SET_TERMINAL_SIZE, &size);
}

static void tell(line *l, const char *bytes, size_t len)
{
    say_bytes(l, bytes, len);
    settle(&l->r);
}

#define CHECK_HEARS(l, text) CHECK_HEARD(l, text, sizeof(text) - 1)

TEST(client_tells_its_size_and_each_change)
{
    line l;
    line_open(&l, "telnet", 0);
    CHECK_INT(set_size(&l, 80, 24), 0);
    CHECK_HEARS(&l, WILL_SIZE);
    CHECK_INT(set_size(&l, 132, 50), 0);
    CHECK_HEARD(&l, "", 0);
    tell(&l, S("\xff\xfd\x1f"));
    CHECK_HEARS(&l, "\xff\xfa\x1f\0\x84\0\x32\xff\xf0");
    CHECK_INT(set_size(&l, 255, 0xff01), 0); /* doubled */
    CHECK_HEARS(&l, "\xff\xfa\x1f\0\xff\xff\xff\xff\x01\xff\xf0");
    CHECK_INT(set_size(&l, 65535, 65535), 0);
    CHECK_HEARS(&l, "\xff\xfa\x1f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf0");
    CHECK_INT(set_size(&l, 65536, 24), CHR_ERR_INVALID);
    CHECK_INT(set_size(&l, -1, 24), CHR_ERR_INVALID);
    CHECK_INT(set_size(&l, 80, -1), CHR_ERR_INVALID);
    CHECK_HEARD(&l, "", 0);
    CHECK_INT(set_size(&l, 0, 0), 0); /* not known any more */
    CHECK_HEARS(&l, "\xff\xfa\x1f\0\0\0\0\xff\xf0");
    line_close(&l);
}

TEST(client_is_asked_for_its_size_first)
{
    line l;
    line_open(&l, "telnet", 0);
    tell(&l, S("\xff\xfd\x1f"));
    CHECK_HEARS(&l, WILL_SIZE);
    CHECK_INT(set_size(&l, 80, 24), 0);
    CHECK_HEARS(&l, "\xff\xfa\x1f\0\x50\0\x18\xff\xf0");
    line_close(&l);
}

TEST(client_whose_server_wants_no_size)
{
    line l;
    line_open(&l, "telnet", 0);
    CHECK_INT(set_size(&l, 80, 24), 0);
    tell(&l, S("\xff\xfe\x1f"));
    CHECK_HEARS(&l, WILL_SIZE);
    CHECK_INT(set_size(&l, 90, 24), CHR_ERR_NOT_SUPPORTED);
    CHECK_HEARD(&l, "", 0);
    tell(&l, S("\xff\xfd\x1f")); /* now it does */
    CHECK_HEARS(&l, WILL_SIZE "\xff\xfa\x1f\0\x5a\0\x18\xff\xf0");
    line_close(&l);
}

TEST(only_a_telnet_client_has_a_size_to_tell)
{
    int  i;
    line l;
    for (i = 0; i < 2; i++) {
        line_open(&l, i ? "tn3270" : "telnet", 1);
        CHECK_INT(set_size(&l, 80, 24), CHR_ERR_NOT_SUPPORTED);
        close(l.peer);
        l.peer = -1;
        settle(&l.r);
        CHECK_INT(set_size(&l, 80, 24), CHR_ERR_NOT_SUPPORTED);
        line_close(&l);
    }
}

/* It goes to each server, also what was set while there was none. */
TEST(client_tells_its_size_to_each_server)
{
    int  listener, i;
    char options[200];
    line l;
    memset(&l, 0, sizeof l);
    rig_open(&l.r);
    snprintf(options, sizeof options, "socket,id=t,path=%s,reconnect-ms=10,telnet=on,terminal-type=VT\x31\x30\x30@x", scratch("s"));
    l.dev = make(&l.r, options);
    attach(&l.rec, l.dev);
    CHECK_INT(set_size(&l, 80, 24), 0);
    listener = unix_listen(scratch("s"));
    for (i = 0; i < 2; i++) {
        struct pollfd p = { 0, POLLIN, 0 };
        p.fd = listener;
        PUMP(&l.r, poll(&p, 1, 0) > 0);
        l.peer = accept(listener, NULL, NULL);
        PUMP(&l.r, l.rec.open);
        CHECK_HEARS(&l, OPENING_CLIENT WILL_SIZE);
        tell(&l, S("\xff\xfd\x1f\xff\xfd\x18\xff\xfa\x18\x01\xff\xf0"));
        if (i == 0) CHECK_HEARS(&l, "\xff\xfa\x1f\0\x50\0\x18\xff\xf0\xff\xfb\x18" TYPE_IS("VT100@x"));
        else CHECK_HEARS(&l, "\xff\xfa\x1f\0\x64\0\x18\xff\xf0\xff\xfb\x18" TYPE_IS("VT100@x"));
        close(l.peer);
        PUMP(&l.r, !l.rec.open);
        if (i == 0) CHECK_INT(set_size(&l, 100, 24), 0);
    }
    l.peer = -1;
    close(listener);
    line_close(&l);
    scratch_clean();
}

/* The size changes while the output buffer is full: the last one is sent, once, when there is room. */
TEST(size_is_told_when_there_is_room)
{
    int   rounds, told = 0, last = 0;
    char *at;
    line  l;
    NEED_LITTLE_ROOM();
    line_open(&l, "telnet", 0);
    tell(&l, S("\xff\xfd\x1f"));
    (void)fill_up(&l.rec.fe);
    for (rounds = 0; rounds < 5000; rounds++) CHECK_INT(set_size(&l, 80 + rounds % 2, 24), 0);
    for (rounds = 0; rounds < 200; rounds++) {
        listen_in(&l);
        for (at = hear_text; (at = (char *)memmem(at, (size_t)(hear_text + hear_length - at), "\xff\xfa\x1f", 3)) != NULL; at += 9) {
            told++;
            REQUIRE(at + 9 <= hear_text + hear_length);
            last = at[4];
        }
        settle(&l.r);
    }
    CHECK(told >= 1 && told < 200);
    CHECK_INT(last, 81);
    CHECK_STR(l.rec.events, "O");
    line_close(&l);
}

/* A flood of questions costs a bounded amount, whether or not the answers are read. */
TEST(a_server_that_asks_for_the_type_and_never_reads)
{
    static char block[6000];
    long        live;
    size_t      i;
    int         turn, small = 4096;
    line        l;
    line_open(&l, "telnet", 0);
    setsockopt(l.peer, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    tell(&l, S("\xff\xfd\x18"));
    live = l.r.live;
    for (i = 0; i < sizeof block; i += 6) memcpy(block + i, "\xff\xfa\x18\x01\xff\xf0", 6);
    for (turn = 0; turn < 500; turn++) {
        (void)!send(l.peer, block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL);
        settle(&l.r);
    }
    CHECK(l.r.live <= live);
    CHECK_INT(chr_loop_step(l.r.ctx, 0), 0); /* and it doesn't spin */
    line_close(&l);
}

/* A question that is answered with more than it takes: whoever asks without end and reads nothing is dropped. */
TEST(a_peer_that_asks_are_you_there_and_never_reads)
{
    static char block[6000];
    long        live;
    size_t      i;
    int         turn, small = 4096;
    line        l;
    line_open(&l, "telnet", 1);
    setsockopt(l.peer, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    live = l.r.live;
    for (i = 0; i < sizeof block; i += 2) memcpy(block + i, "\xff\xf6", 2);
    for (turn = 0; turn < 500 && !strchr(l.rec.events, 'C'); turn++) {
        (void)!send(l.peer, block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL);
        settle(&l.r);
        CHECK(l.r.live <= live);
    }
    CHECK_STR(l.rec.events, "OC");
    line_close(&l);
}

/* A peer that answers each request with its opposite, which RFC 854 forbids: one answer per request, and no
 * negotiation loop. */
static void contradict(const void *arg)
{
    const char *protocol = *(const char *const *)arg;
    char        answer[3000];
    int         round, i, n, said = 0;
    line        l;
    line_open(&l, protocol, strcmp(protocol, "tn3270") == 0 || strcmp(protocol, "telnet") == 0);
    tell(&l, S("\xff\xfd\x03\xff\xfb\x03\xff\xfd\x00\xff\xfb\x00\xff\xfd\x18\xff\xfd\x1f\xff\xfb\x1f\xff\xfb\x2c\xff\xfd\x2c\xff\xfb\x19\xff\xfd\x19"));
    for (round = 0; round < 300; round++) {
        listen_in(&l);
        for (i = n = 0; i + 2 < hear_length && n + 3 < (int)sizeof answer; i++) {
            unsigned char verb = (unsigned char)hear_text[i + 1];
            if ((unsigned char)hear_text[i] != 0xff || verb < 251) continue;
            answer[n++] = (char)0xff;
            answer[n++] = (char)(verb == 251 ? 254 : verb == 252 ? 253 : verb == 253 ? 252 : 251);
            answer[n++] = hear_text[i + 2];
            i += 2;
        }
        CHECK(said == 0 || n <= said);
        said = n;
        if (n == 0) break;
        tell(&l, answer, (size_t)n);
    }
    forget_input(&l.rec);
    tell(&l, S("alive"));
    CHECK_INPUT(&l.rec, "alive");
    CHECK(!strchr(l.rec.events, 'C'));
    line_close(&l);
}

TEST_FAMILY(contradictions)
{
    static const char *const protocols[] = { "telnet", "nodelay=on,telnet", "tn3270", "com-port=on,telnet" };
    static const char *const names[] = { "server", "client", "tn3270", "com_port_client" };
    char                     name[100];
    size_t                   i;
    for (i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "a_peer_that_contradicts_%s", names[i]);
        test_add_case(name, contradict, &protocols[i], TEST_SECONDS);
    }
}

/* Neither of two of ours keeps the other busy. */
TEST(two_of_ours_agree_and_rest)
{
    static const char *const both[] = { "telnet=on", "telnet=on,com-port=on", "tn3270=on" };
    chr_terminal_size        size = { 80, 24 };
    char                     options[200];
    size_t                   i;
    int                      turn, fds[2];
    chr_error                err;
    recorder                 server, client;
    rig                      r;
    for (i = 0; i < sizeof both / sizeof both[0]; i++) {
        rig_open_virtual(&r);
        socket_pair(fds);
        snprintf(options, sizeof options, "socket,id=s,path=%s,server=on,wait=off,%s", scratch("rest"), both[i]);
        attach(&server, make(&r, options));
        REQUIRE(chr_add_client(r.ctx, "s", fds[0], &err) == 0);
        snprintf(options, sizeof options, "socket,id=c,fd=%d,%s", fds[1], both[i]);
        attach(&client, make(&r, options));
        (void)chr_fe_ioctl(&client.fe, CHR_IOCTL_SET_TERMINAL_SIZE, &size);
        settle(&r);
        CHECK(server.open && client.open);
        for (turn = 0; turn < 5; turn++) CHECK_INT(chr_loop_step(r.ctx, 0), 0);
        size.rows = 0;
        if (i < 2) CHECK_INT(chr_fe_ioctl(&server.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), 0);
        if (i < 2) CHECK_INT(size.rows, 24);
        detach(&server);
        detach(&client);
        rig_close(&r);
        scratch_clean();
        size.rows = 24;
    }
}

/* ---- Synch: urgent data changes nothing -------------------------------------------------------------------------- */

typedef struct urgent {
    const char *name, *options;
    int         is_server;
    const char *parts[4]; /* 'u' first: urgent */
    const char *data;
} urgent;

static const urgent urgents[] = {
    { "dm", "telnet=on", 1, { " abc\xff", "u\xf2", " def", NULL }, "abcdef" },
    { "iac", "telnet=on", 1, { " abc", "u\xff", " \xf2" "def", NULL }, "abcdef" },
    { "both", "telnet=on", 1, { " abc", "u\xff\xf2", " def", NULL }, "abcdef" },
    { "twice", "telnet=on", 1, { " a", "u\xff\xf2", "u\xff\xf2", " b" }, "ab" },
    { "with_data_and_a_command", "telnet=on", 1, { " a\xff\xf5" "b", "u" "c\xff\xf4\xff\xf2", " d", NULL }, "abcd" },
    { "client", "telnet=on", 0, { " abc\xff", "u\xf2", " def", NULL }, "abcdef" },
    { "com_port", "telnet=on,com-port=on", 1, { " abc\xff", "u\xf2", " def", NULL }, "abcdef" },
    { "tn3270", "tn3270=on", 1, { " abc\xff", "u\xf2", " def\xff\xef", NULL }, "abcdef\xff\xef" },
    { "raw", "nodelay=on", 1, { " abc", "ud", " ef", NULL }, "abcdef" },
};

static void urgent_data(const void *arg)
{
    const urgent *u = (const urgent *)arg;
    char          options[200];
    int           port, listener, peer, i, on = 1;
    size_t        sent = 0;
    chr_info      info;
    recorder      rec;
    rig           r;
    rig_open(&r);
    listener = u->is_server ? -1 : tcp_listen(&port);
    snprintf(options, sizeof options, "socket,id=t,host=127.0.0.1,port=%d,%s,%s", u->is_server ? 0 : port, u->is_server ? "server=on,wait=off" : "nodelay=on",
             u->options);
    attach(&rec, make(&r, options));
    chr_query(rec.fe.dev, &info);
    peer = u->is_server ? tcp_connect(atoi(strrchr(info.address, ':') + 1)) : accept(listener, NULL, NULL);
    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    PUMP(&r, rec.open);
    for (i = 0; i < 4 && u->parts[i]; i++) {
        sent += (size_t)send(peer, u->parts[i] + 1, strlen(u->parts[i]) - 1, u->parts[i][0] == 'u' ? MSG_OOB : 0);
        if (i % 2) usleep(2000), settle(&r); /* some together, some one by one */
    }
    shutdown(peer, SHUT_WR);
    PUMP(&r, !rec.open);
    CHECK_INPUT(&rec, u->data);
    (void)sent;
    detach(&rec);
    close(peer);
    if (listener >= 0) close(listener);
    rig_close(&r);
}

TEST_FAMILY(urgents)
{
    char   name[100];
    size_t i;
    for (i = 0; i < sizeof urgents / sizeof urgents[0]; i++) {
        snprintf(name, sizeof name, "urgent_%s", urgents[i].name);
        test_add_case(name, urgent_data, &urgents[i], TEST_SECONDS);
    }
}

/* ---- tn3270, client ---------------------------------------------------------------------------------------------- */

#define HOST_OPENS  "\xff\xfd\x18"
#define HOST_TYPE   "\xff\xfa\x18\x01\xff\xf0"
#define HOST_AGREES "\xff\xfd\x19\xff\xfb\x19\xff\xfd\x00\xff\xfb\x00"
#define AGREED      "\xff\xfb\x19\xff\xfd\x19\xff\xfb\x00\xff\xfd\x00"

static void open_3270(line *l, const char *more)
{
    char options[200];
    int  fds[2];
    memset(l, 0, sizeof *l);
    rig_open_virtual(&l->r);
    socket_pair(fds);
    l->peer = fds[0];
    snprintf(options, sizeof options, "socket,id=t,fd=%d,tn3270=on%s", fds[1], more);
    l->dev = make(&l->r, options);
    attach(&l->rec, l->dev);
    settle(&l->r);
    listen_in(l);
    CHECK_INT(hear_length, 0); /* the host begins */
}

TEST(tn3270_client_opens_when_its_host_has_agreed)
{
    line l;
    open_3270(&l, "");
    tell(&l, S("hello\r\n" HOST_OPENS "\xff\xfd\x28" "there"));
    CHECK_HEARS(&l, "\xff\xfb\x18\xff\xfc\x28");
    tell(&l, S(HOST_TYPE));
    CHECK_HEARS(&l, TYPE_IS("IBM-3278-2-E"));
    tell(&l, S("\xff\xfd\x19\xff\xfb\x19\xff\xfd\x00"));
    CHECK_STR(l.rec.events, "");
    CHECK_INT(chr_fe_write(&l.rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    tell(&l, S("\xff\xfb\x00\xf5\xc3\xff\xff\xff\xef"));
    CHECK_STR(l.rec.events, "O");
    CHECK_HEARS(&l, AGREED);
    CHECK_MEM(l.rec.input, l.rec.length, "\xf5\xc3\xff\xff\xff\xef", 6); /* as on the wire, as a server has it */
    CHECK_INT(chr_fe_write(&l.rec.fe, "\x88\xff\xff\xff\xef", 5), 5);
    CHECK_HEARS(&l, "\x88\xff\xff\xff\xef");
    tell(&l, S("\r\0" HOST_TYPE "\xff\xf1\xff\xf3\xff\xef"));
    CHECK_HEARS(&l, TYPE_IS("IBM-3278-2-E"));
    CHECK_MEM(l.rec.input + 6, l.rec.length - 6, "\r\0\xff\xef", 4); /* no command among the records */
    CHECK_STR(l.rec.events, "OB");
    line_close(&l);
}

TEST(tn3270_client_has_the_type_that_it_is_given)
{
    line l;
    open_3270(&l, ",terminal-type=IBM-3279-4-E@LU01");
    tell(&l, S(HOST_OPENS HOST_TYPE HOST_AGREES));
    CHECK_HEARS(&l, "\xff\xfb\x18" TYPE_IS("IBM-3279-4-E@LU01") AGREED);
    CHECK_STR(l.rec.events, "O");
    line_close(&l);
}

/* The host's stream, split at every byte, and byte by byte. */
TEST(tn3270_client_and_packets)
{
    static const char wire[] = "text\xff\xff\xff\xef" HOST_OPENS HOST_TYPE "\xff\xf3" HOST_AGREES "\xf1\xff\xef\xff\xf3z";
    size_t            split, i;
    line              l;
    for (split = 0; split < sizeof wire; split++) {
        open_3270(&l, "");
        if (split == sizeof wire - 1)
            for (i = 0; i < sizeof wire - 1; i++) tell(&l, wire + i, 1);
        else {
            if (split > 0) tell(&l, wire, split);
            tell(&l, wire + split, sizeof wire - 1 - split);
        }
        CHECK_MEM(l.rec.input, l.rec.length, "\xf1\xff\xefz", 4);
        CHECK_STR(l.rec.events, "OB");
        CHECK_HEARS(&l, "\xff\xfb\x18" TYPE_IS("IBM-3278-2-E") AGREED);
        line_close(&l);
    }
}

/* Output that the frontend writes at OPENED follows all answers to the negotiation; a break among its input is
 * delivered. */
static void write_at_opened(recorder *rec, int what)
{
    if (what == 'e' && rec->last_event == CHR_EVENT_OPENED) CHECK_INT(chr_fe_write(&rec->fe, "\x88\xff\xef", 3), 3);
}

TEST(tn3270_client_answers_before_it_opens)
{
    line l;
    open_3270(&l, "");
    l.rec.then = write_at_opened;
    tell(&l, S("\xff\xf3" HOST_AGREES HOST_OPENS "\xff\xf3" HOST_TYPE "\xff\xef" "\xff"));
    CHECK_HEARS(&l, AGREED "\xff\xfb\x18" TYPE_IS("IBM-3278-2-E") "\x88\xff\xef");
    tell(&l, S("\xff"));
    CHECK_MEM(l.rec.input, l.rec.length, "\xff\xef\xff\xff", 4);
    CHECK_STR(l.rec.events, "OB");
    line_close(&l);
}

/* A host that disconnects, sends without end, or sends nothing, is logged; there is no OPENED. */
TEST(tn3270_hosts_that_do_not_agree)
{
    static char much[30000];
    int         how, i;
    line        l;
    memset(much, 'x', sizeof much);
    fault_plan.haste = 20; /* ten seconds of real time */
    for (how = 0; how < 3; how++) {
        open_3270(&l, "");
        tell(&l, S(HOST_OPENS "\xff\xfc\x19\xff\xfe\x19"));
        if (how == 0) close(l.peer), l.peer = -1;
        for (i = 0; how == 1 && i < 3; i++) {
            if (send(l.peer, much, sizeof much, MSG_NOSIGNAL) < 0) break;
            settle(&l.r);
        }
        settle(&l.r);
        if (how == 2) pass_real_time(&l.r, 10100);
        CHECK_STR(l.rec.events, "");
        CHECK_HAS(l.r.log, how == 2 ? "tn3270 handshake" : how == 1 ? "65536" : "the host went");
        line_close(&l);
    }
}

TEST(tn3270_client_and_our_own_server)
{
    char      uri[100];
    chr_error err;
    chr_info  info;
    recorder  server, client;
    rig       r;
    rig_open(&r);
    attach(&server, make(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off,tn3270=on"));
    chr_query(server.fe.dev, &info);
    snprintf(uri, sizeof uri, "tn3270:127.0.0.1:%s,reconnect-ms=20", strrchr(info.address, ':') + 1);
    REQUIRE(chr_new_uri(r.ctx, "c", uri, &err) != NULL);
    attach(&client, chr_find(r.ctx, "c"));
    PUMP(&r, server.open && client.open);
    CHECK_INT(chr_fe_write(&client.fe, "\x7d\xff\xef", 3), 3); /* behind the terminal's type */
    CHECK_INT(chr_fe_write(&server.fe, "\xf5\xff\xff\xff\xef", 5), 5);
    PUMP(&r, client.length == 5 && server.length == 21);
    CHECK_MEM(client.input, client.length, "\xf5\xff\xff\xff\xef", 5);
    CHECK_MEM(server.input, server.length, "\xff\xfa\x18\0IBM-3278-2-E\xff\xf0" "\x7d\xff\xef", 21);
    chr_query(client.fe.dev, &info);
    CHECK_HAS(info.filename, "tn3270:");
    detach(&server);
    detach(&client);
    rig_close(&r);
}

TEST(terminal_size_and_break_through_a_mux)
{
    char              options[200];
    int               fds[2], on = 1;
    chr_terminal_size size = { 0, 0 };
    chr_error         err;
    recorder          rec;
    rig               r;
    rig_open(&r);
    snprintf(options, sizeof options, "socket,id=m,path=%s,server=on,wait=off,telnet=on,mux=on", scratch("s"));
    attach(&rec, make(&r, options));
    socket_pair(fds);
    CHECK_INT(chr_add_client(r.ctx, "m-base", fds[1], &err), 0);
    settle(&r);
    (void)hear(fds[0]);
    CHECK_INT(write(fds[0], "\xff\xfa\x1f\0\x28\0\x0a\xff\xf0\xff\xf3", 11), 11);
    settle(&r);
    CHECK_HAS(rec.events, "O?B");
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), 0);
    CHECK_INT(size.columns, 40);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on), 0);
    CHECK_STR(hear(fds[0]), "\xff\xf3");
    detach(&rec);
    close(fds[0]);
    rig_close(&r);
    scratch_clean();
}

TEST(endless_subnegotiation_is_skipped_in_bounded_memory)
{
    static char block[30000];
    long        live;
    int         i;
    line        l;
    line_open(&l, "telnet", 1);
    live = l.r.live;
    memset(block, 'x', sizeof block);
    say_bytes(&l, S("a\xff\xfa\x18"));
    for (i = 0; i < 40; i++) {
        say_bytes(&l, block, sizeof block);
        settle(&l.r);
    }
    CHECK_INT(l.r.live, live);
    say_bytes(&l, S("\xff\xf0" "b"));
    settle(&l.r);
    CHECK_INPUT(&l.rec, "ab");
    line_close(&l);
}

/* As many requests as one likes, as long as the answers are read. */
TEST(many_requests_are_all_refused)
{
    static char block[30000];
    int         i, answers = 0;
    line        l;
    line_open(&l, "telnet", 1);
    for (i = 0; i < 30000; i += 3) memcpy(block + i, "\xff\xfb\x22", 3);
    for (i = 0; i < 6; i++) {
        say_bytes(&l, block, sizeof block);
        settle(&l.r);
        listen_in(&l);
        answers += hear_length / 3;
    }
    CHECK_INT(answers, 60000 + 1); /* and DO window size */
    CHECK_STR(l.rec.events, "O");
    line_close(&l);
}

TEST(a_peer_that_asks_and_never_reads_is_dropped)
{
    static char block[3000];
    size_t      i;
    int         turn, small = 4096;
    ssize_t     sent = 1;
    line        l;
    line_open(&l, "telnet", 1);
    setsockopt(l.peer, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    for (i = 0; i < sizeof block; i += 3) memcpy(block + i, "\xff\xfb\x22", 3);
    for (turn = 0; turn < 2000 && !strchr(l.rec.events, 'C'); turn++) {
        sent = send(l.peer, block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL);
        settle(&l.r);
    }
    CHECK_STR(l.rec.events, "OC");
    (void)sent;
    line_close(&l);
}

TEST(data_just_before_the_end_is_delivered)
{
    line l;
    line_open(&l, "telnet", 1);
    say_bytes(&l, S("last\xff\xff words\xff\xf3"));
    close(l.peer);
    settle(&l.r);
    l.peer = -1;
    CHECK_INPUT(&l.rec, "last\xff words");
    CHECK_STR(l.rec.events, "OBC");
    line_close(&l);
}

/* Bytes buffered by the layer are delivered when there is room, though poll() reports nothing; CLOSED follows them. */
TEST(held_bytes_obey_can_read)
{
    line l;
    line_open_with_room(&l, "telnet", 1, 3);
    say_bytes(&l, S("abcdefg"));
    settle(&l.r);
    CHECK_INPUT(&l.rec, "abc");
    close(l.peer);
    l.peer = -1;
    settle(&l.r);
    CHECK_STR(l.rec.events, "O");
    give_room(&l.rec, 2);
    settle(&l.r);
    CHECK_INPUT(&l.rec, "abcde");
    give_room(&l.rec, 10);
    settle(&l.r);
    CHECK_INPUT(&l.rec, "abcdefg");
    CHECK_STR(l.rec.events, "OC");
    line_close(&l);
}

/* ---- output ------------------------------------------------------------------------------------------------------ */

static void check_out(line *l, const char *data, size_t len, const char *wire, size_t wire_length)
{
    CHECK_INT(chr_fe_write(&l->rec.fe, data, len), len);
    CHECK_HEARD(l, wire, wire_length);
}

TEST(out_255_is_doubled)
{
    line l;
    line_open(&l, "telnet", 1);
    check_out(&l, S("a\xff" "b\xff\xff"), S("a\xff\xff" "b\xff\xff\xff\xff"));
    line_close(&l);
    line_open(&l, "telnet", 0);
    check_out(&l, S("\xff"), S("\xff\xff"));
    line_close(&l);
}

TEST(out_cr_gets_its_nul_when_binary_is_refused)
{
    line l;
    line_open(&l, "telnet", 1);
    check_out(&l, S("b\rc"), S("b\rc"));
    say_bytes(&l, S("\xff\xfe\x00"));
    settle(&l.r);
    CHECK_HEARD(&l, DO_SIZE, 3);
    check_out(&l, S("a\r\nb\rc\r\rd\r"), S("a\r\nb\r\0c\r\0\r\0d\r"));
    check_out(&l, S("\n"), S("\n"));
    check_out(&l, S("\r"), S("\r"));
    check_out(&l, S("x"), S("\0x"));
    say_bytes(&l, S("\xff\xfd\x00"));
    settle(&l.r);
    CHECK_HEARD(&l, "\xff\xfb\x00", 3);
    check_out(&l, S("b\rc"), S("b\rc"));
    line_close(&l);
}

TEST(out_tn3270_goes_as_it_is)
{
    line l;
    line_open(&l, "tn3270", 1);
    check_out(&l, S("\xf5\xc3\x11\x40\x40\r\0\xff\xff\xff\xef"), S("\xf5\xc3\x11\x40\x40\r\0\xff\xff\xff\xef"));
    line_close(&l);
}

TEST(out_break_in_both_roles)
{
    static const int on = 1, off = 0;
    int              is_server;
    line             l;
    for (is_server = 0; is_server < 2; is_server++) {
        line_open(&l, "telnet", is_server);
        CHECK_INT(chr_fe_write(&l.rec.fe, "a", 1), 1);
        CHECK_INT(chr_fe_ioctl(&l.rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, (void *)(uintptr_t)&on), 0);
        CHECK_INT(chr_fe_ioctl(&l.rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, (void *)(uintptr_t)&off), 0);
        CHECK_INT(chr_fe_write(&l.rec.fe, "b", 1), 1);
        CHECK_HEARD(&l, "a\xff\xf3" "b", 4);
        CHECK_INT(chr_fe_ioctl(&l.rec.fe, 12345, NULL), CHR_ERR_NOT_SUPPORTED);
        line_close(&l);
    }
}

/* Pseudo-random, and rich in the bytes that matter. */
static char odd_byte(unsigned *seed)
{
    static const char special[] = { '\xff', '\r', '\n', '\0', '\xff' };
    *seed = *seed * 1103515245u + 12345u;
    return (*seed >> 16) % 4 ? (char)(*seed >> 20) : special[(*seed >> 20) % 5];
}

/* What a plain peer makes of the wire: our encoding undone, by other means. */
static size_t undo(const char *wire, size_t len, char *data)
{
    size_t i, n = 0;
    for (i = 0; i < len; i++) {
        if (wire[i] == '\xff') i++;
        if (wire[i] == 0 && i > 0 && wire[i - 1] == '\r') continue;
        data[n++] = wire[i];
    }
    return n;
}

/* Everything that is taken arrives, though the way is full again and again, and write_all too. */
TEST(out_through_a_narrow_way)
{
    enum { TOTAL = 400000 };
    static char data[TOTAL], wire[3 * TOTAL], plain[3 * TOTAL];
    size_t      taken = 0, got = 0, i;
    unsigned    seed = 7;
    int         n, blocked = 0;
    line        l;
    NEED_LITTLE_ROOM();
    line_open(&l, "telnet", 1);
    say_bytes(&l, S("\xff\xfe\x00")); /* DONT BINARY, so that there are NULs to be put in */
    settle(&l.r);
    CHECK_HEARD(&l, DO_SIZE, 3);
    for (i = 0; i < TOTAL; i++) data[i] = odd_byte(&seed);
    while (taken < TOTAL || got == 0 || private_unsent(l.dev)) {
        n = taken < TOTAL ? chr_fe_write(&l.rec.fe, data + taken, TOTAL - taken) : 0;
        if (n > 0) taken += (size_t)n;
        else if (n < 0) CHECK_INT(n, CHR_ERR_WOULD_BLOCK), blocked++;
        chr_loop_step(l.r.ctx, 0);
        if (n > 0) continue;
        n = (int)read(l.peer, wire + got, 5000);
        REQUIRE(n > 0);
        got += (size_t)n;
    }
    listen_in(&l);
    do {
        memcpy(wire + got, hear_text, (size_t)hear_length);
        got += (size_t)hear_length;
        listen_in(&l);
    } while (hear_length > 0);
    CHECK(blocked > 3);
    CHECK_MEM(plain, undo(wire, got, plain), data, TOTAL);
    line_close(&l);
}

/* A character that takes three bytes (the NUL of the CR before it, and two of IAC) at each place of a long write, so
 * that the output buffer has room for none, one or two of them. */
TEST(out_three_bytes_at_the_end_of_the_buffer)
{
    enum { TOTAL = 40000 };
    static char data[TOTAL], plain[2 * TOTAL];
    size_t      at, taken;
    int         n;
    line        l;
    line_open(&l, "telnet", 1);
    say_bytes(&l, S("\xff\xfe\x00"));
    settle(&l.r);
    CHECK_HEARD(&l, DO_SIZE, 3);
    for (at = 15352; at < 16390; at += at == 15366 ? 1010 : 1) {
        memset(data, 'x', sizeof data);
        data[at - 1] = '\r';
        data[at] = '\xff';
        for (taken = 0; taken < TOTAL; taken += (size_t)n) {
            n = chr_fe_write(&l.rec.fe, data + taken, TOTAL - taken);
            REQUIRE(n > 0);
            settle(&l.r);
            listen_in(&l);
            CHECK_MEM(plain, undo(hear_text, (size_t)hear_length, plain), data + taken, (size_t)n);
        }
    }
    line_close(&l);
}

/* A record that is larger than the output buffer goes in pieces. */
TEST(out_tn3270_in_pieces)
{
    enum { TOTAL = 40000 };
    static char data[TOTAL];
    size_t      taken, i;
    int         n;
    line        l;
    line_open(&l, "tn3270", 1);
    for (i = 0; i < TOTAL; i++) data[i] = (char)(i % 239);
    memcpy(data + TOTAL - 2, "\xff\xef", 2);
    for (taken = 0; taken < TOTAL; taken += (size_t)n) {
        n = chr_fe_write(&l.rec.fe, data + taken, TOTAL - taken);
        REQUIRE(n > 0);
        settle(&l.r);
        CHECK_HEARD(&l, data + taken, n);
    }
    line_close(&l);
}

/* A pending watch is called when the layer has room again, not when the descriptor has. */
TEST(writable_comes_when_there_is_room)
{
    static char block[65536];
    size_t      total;
    line        l;
    line_open(&l, "telnet", 1);
    total = fill_up(&l.rec.fe);
    chr_fe_add_watch(&l.rec.fe, recorder_writable, &l.rec);
    settle(&l.r);
    CHECK_INT(l.rec.writable, 0);
    CHECK_INT(drain(&l.r, l.peer, total), total);
    settle(&l.r);
    CHECK_INT(l.rec.writable, 1);
    CHECK(chr_fe_write(&l.rec.fe, block, sizeof block) > 0);
    line_close(&l);
}

TEST(the_loop_rests_while_output_waits)
{
    int  i, ran = 0;
    line l;
    line_open(&l, "telnet", 1);
    (void)fill_up(&l.rec.fe);
    settle(&l.r);
    for (i = 0; i < 50 && chr_loop_step(l.r.ctx, 20) > 0; i++)
        ; /* TCP moves bytes to the peer's buffer, later on a busy machine */
    for (i = 0; i < 5; i++) ran += chr_loop_step(l.r.ctx, 1);
    CHECK_INT(ran, 0);
    line_close(&l);
}

TEST(peer_gone_while_output_waits)
{
    line l;
    line_open(&l, "telnet", 1);
    (void)fill_up(&l.rec.fe);
    say_bytes(&l, S("bye"));
    close(l.peer);
    l.peer = -1;
    settle(&l.r);
    CHECK_INPUT(&l.rec, "bye");
    CHECK_STR(l.rec.events, "OC");
    CHECK_INT(chr_fe_write(&l.rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    line_close(&l);
}

/* ---- blocking calls ---------------------------------------------------------------------------------------------- */

TEST(read_all_takes_data_only)
{
    char buf[4];
    line l;
    line_open(&l, "telnet", 1);
    say_bytes(&l, S("\xff\xfb\x22" "a\xff\xf3\xff\xff" "b\r\0"));
    CHECK_INT(chr_fe_read_all(&l.rec.fe, buf, 4, 1000), 4);
    CHECK_MEM(buf, 4, "a\xff" "b\r", 4);
    CHECK_STR(l.rec.events, "O"); /* from the loop, not from within the call */
    settle(&l.r);
    CHECK_STR(l.rec.events, "OB");
    line_close(&l);
}

/* ---- two of ours, over each kind of address ---------------------------------------------------------------------- */

typedef struct pairing {
    const char *name, *server, *client; /* %s: a path, or the port that the server has got */
} pairing;

static const pairing pairings[] = {
    { "unix", "path=%s", "path=%s" },
    { "abstract", "path=%s,abstract=on", "path=%s,abstract=on" },
    { "tcp4", "host=127.0.0.1,port=0", "host=127.0.0.1,port=%s" },
    { "tcp6", "host=::1,port=0", "host=::1,port=%s" },
    { "fd", NULL, NULL },
};

static chr_dev *pair_server(rig *r, const pairing *p, char where[100], int *listener)
{
    char     address[200], options[300];
    chr_info info;
    chr_dev *dev;
    *listener = -1;
    snprintf(where, 100, "%s", scratch("s"));
    if (p->server) snprintf(address, sizeof address, p->server, where);
    else {
        *listener = unix_listen(where);
        snprintf(address, sizeof address, "fd=%d", *listener);
    }
    snprintf(options, sizeof options, "socket,id=s,%s,server=on,wait=off,telnet=on", address);
    dev = make(r, options);
    chr_query(dev, &info);
    if (strstr(address, "port=")) snprintf(where, 100, "%s", strrchr(info.address, ':') + 1);
    return dev;
}

static chr_dev *pair_client(rig *r, const pairing *p, const char *where)
{
    char address[200], options[300];
    if (p->client) snprintf(address, sizeof address, p->client, where);
    else snprintf(address, sizeof address, "fd=%d", unix_connect(where));
    snprintf(options, sizeof options, "socket,id=c,%s,telnet=on", address);
    return make(r, options);
}

static void two_of_ours(const void *arg)
{
    char     where[100];
    int      listener, on = 1;
    recorder server, client;
    rig      r;
    rig_open(&r);
    attach(&server, pair_server(&r, (const pairing *)arg, where, &listener));
    attach(&client, pair_client(&r, (const pairing *)arg, where));
    PUMP(&r, server.open && client.open);
    CHECK_INT(chr_fe_write(&server.fe, "\r\0\xff\n", 4), 4);
    CHECK_INT(chr_fe_write(&client.fe, "\xff\r\0\r", 4), 4);
    CHECK_INT(chr_fe_ioctl(&client.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on), 0);
    PUMP(&r, strchr(server.events, 'B') && client.length == 4);
    CHECK_MEM(client.input, client.length, "\r\0\xff\n", 4);
    CHECK_MEM(server.input, server.length, "\xff\r\0\r", 4);
    CHECK_STR(server.events, "OB");
    CHECK_INT(chr_fe_disconnect(&client.fe), 0);
    PUMP(&r, strchr(server.events, 'C'));
    detach(&server);
    detach(&client);
    rig_close(&r);
    scratch_clean();
}

TEST_FAMILY(pairings)
{
    char   name[100];
    size_t i;
    for (i = 0; i < sizeof pairings / sizeof pairings[0]; i++) {
        snprintf(name, sizeof name, "two_of_ours_over_%s", pairings[i].name);
        test_add_case(name, two_of_ours, &pairings[i], TEST_SECONDS);
    }
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

TEST(each_failed_allocation_is_an_error_that_leaks_nothing)
{
    int       fds[2], at, made = 0;
    char      options[100];
    chr_error err;
    rig       r;
    for (at = 1; at < 40 && !made; at++) {
        rig_open(&r);
        socket_pair(fds);
        snprintf(options, sizeof options, "socket,id=t,fd=%d,telnet=on", fds[1]);
        r.fail_at = r.calls + at;
        made = chr_new(r.ctx, options, &err) != NULL;
        CHECK_INT(r.failed, !made); /* one that is made lacks nothing */
        if (!made) {
            CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
            close(fds[1]); /* after an error it is still ours */
        }
        close(fds[0]);
        rig_close(&r);
    }
    CHECK(made && at > 3);
}
