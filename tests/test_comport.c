/* A serial line over the network (RFC 2217), server and client: every stream is fed whole, and split at every byte. */
#include "chardev.h"
#include "telnet_line.h"

#define COM_PORT "telnet=on,com-port"
#define WILL_COM "\xff\xfb\x2c"
#define WONT_COM "\xff\xfc\x2c"
#define DO_COM   "\xff\xfd\x2c"
#define DONT_COM "\xff\xfe\x2c"
#define DO_SIZE  "\xff\xfd\x1f"
#define SUB(bytes) "\xff\xfa\x2c" bytes "\xff\xf0"
#define READY    SUB("\x6b\xb0") /* NOTIFY-MODEMSTATE: CTS, DSR and CD, as long as nobody has said anything else */

/* The commands of a server once its client has agreed, and of a client once its server has, when nothing was set
 * before. */
#define BEGUN        DO_SIZE READY
#define BEGUN_CLIENT SUB("\x01\0\0\0\0") SUB("\x02\0") SUB("\x03\0") SUB("\x04\0") SUB("\x07") SUB("\x0a\x1e") SUB("\x0b\xff\xff") SUB("\x05\0")

#define CHECK_HEARS(l, text) CHECK_HEARD(l, text, sizeof(text) - 1)

/* ---- what a peer says -------------------------------------------------------------------------------------------- */

#define SERVER(name, wire, data, events, answer) { "server_" name, COM_PORT, 1, S(WILL_COM wire), S(data), "S" events, S(BEGUN answer) }
#define CLIENT(name, wire, data, events, answer) { "client_" name, COM_PORT, 0, S(DO_COM wire), S(data), "S" events, S(BEGUN_CLIENT answer) }

static const stream streams[] = {
    /* negotiation */
    { "server_is_refused", COM_PORT, 1, S(WONT_COM "x" SUB("\x01\0\0\x25\x80") "y"), S("xy"), "", S(DO_SIZE) },
    { "server_meets_one_who_says_do", COM_PORT, 1, S(DO_COM "x"), S("x"), "", S(WILL_COM DO_SIZE) },
    { "client_is_refused", COM_PORT, 0, S(DONT_COM "x" SUB("\x6b\x10") "y"), S("xy"), "", S("") },
    { "client_meets_one_who_says_will", COM_PORT, 0, S(WILL_COM "x"), S("x"), "", S(DO_COM) },
    { "plain_server_refuses", "telnet", 1, S(WILL_COM "x" SUB("\x01\0\0\x25\x80")), S("x"), "", S(DONT_COM DO_SIZE) },
    { "plain_client_refuses", "telnet", 0, S(DO_COM "x"), S("x"), "", S("\xff\xfc\x2c") },
    SERVER("is_told_again_and_again", WILL_COM WILL_COM "x" WILL_COM, "x", "", ""),
    SERVER("is_told_off_and_on", "a" WONT_COM WONT_COM "b" SUB("\x02\x07") WILL_COM WILL_COM "c", "abc", "SS", DONT_COM DO_COM READY),
    CLIENT("is_told_again_and_again", DO_COM DO_COM "x", "x", "", ""),
    CLIENT("is_told_off_and_on", "a" DONT_COM DONT_COM DO_COM DO_COM "b", "ab", "SS", WONT_COM WILL_COM BEGUN_CLIENT),
    { "server_hears_settings_before_the_time", COM_PORT, 1, S("x" SUB("\x02\x07") WILL_COM "y"), S("xy"), "S",
      S(SUB("\x66\x07") READY DO_SIZE) },
    { "server_hears_a_break_before_the_time", COM_PORT, 1, S("x" SUB("\x05\x05") "y"), S("xy"), "BS", S(READY SUB("\x69\x05")) },
    { "client_hears_settings_before_the_time", COM_PORT, 0, S("x" SUB("\x6b\xb0") DO_COM "y"), S("xy"), "S", S(BEGUN_CLIENT) },

    /* settings */
    SERVER("asked_for_all", SUB("\x01\0\0\0\0") SUB("\x02\0") SUB("\x03\0") SUB("\x04\0") "x", "x", "",
           SUB("\x65\0\x01\xc2\0") SUB("\x66\x08") SUB("\x67\x01") SUB("\x68\x01")),
    SERVER("set_speed", "a" SUB("\x01\0\0\x25\x80") "b", "ab", "S", SUB("\x65\0\0\x25\x80")),
    SERVER("set_speed_with_255", SUB("\x01\0\0\xff\xff\xff\xff") "b", "b", "S", SUB("\x65\0\0\xff\xff\xff\xff")),
    SERVER("set_the_same_twice", SUB("\x01\0\0\x25\x80") SUB("\x01\0\0\x25\x80"), "", "S", SUB("\x65\0\0\x25\x80") SUB("\x65\0\0\x25\x80")),
    SERVER("set_to_and_fro", SUB("\x02\x07") SUB("\x02\x08") SUB("\x02\x07"), "", "SSS", SUB("\x66\x07") SUB("\x66\x08") SUB("\x66\x07")),
    SERVER("set_what_there_is_not", SUB("\x01\0\0\0\x31") SUB("\x01\xfe\0\0\0") SUB("\x02\x04") SUB("\x02\x09") SUB("\x03\x06") SUB("\x04\x04") SUB("\x04\x0f"),
           "", "", SUB("\x65\0\x01\xc2\0") SUB("\x65\0\x01\xc2\0") SUB("\x66\x08") SUB("\x66\x08") SUB("\x67\x01") SUB("\x68\x01") SUB("\x68\x01")),
    SERVER("set_mark_and_space", SUB("\x03\x04") SUB("\x03\x05") SUB("\x03\0"), "", "SS", SUB("\x67\x04") SUB("\x67\x05") SUB("\x67\x05")),
    SERVER("set_one_and_a_half", SUB("\x02\x05") SUB("\x04\x03") SUB("\x04\0"), "", "SS", SUB("\x66\x05") SUB("\x68\x03") SUB("\x68\x03")),
    SERVER("set_all", SUB("\x01\0\0\x12\xc0") SUB("\x02\x07") SUB("\x03\x03") SUB("\x04\x02"), "", "SSSS",
           SUB("\x65\0\0\x12\xc0") SUB("\x66\x07") SUB("\x67\x03") SUB("\x68\x02")),
    SERVER("set_flow", SUB("\x05\0") SUB("\x05\x02") SUB("\x05\0") SUB("\x05\x03") SUB("\x05\x03") SUB("\x05\x01"), "", "SSS",
           SUB("\x69\x01") SUB("\x69\x02") SUB("\x69\x02") SUB("\x69\x03") SUB("\x69\x03") SUB("\x69\x01")),
    SERVER("set_flow_that_there_is_not", SUB("\x05\x11") SUB("\x05\x13") SUB("\x05\x12") SUB("\x05\x0d"), "", "",
           SUB("\x69\x01") SUB("\x69\x01") SUB("\x69\x0e") SUB("\x69\x0e")),
    SERVER("set_inbound_flow", SUB("\x05\x10") SUB("\x05\0") SUB("\x05\x0d") SUB("\x05\x0f") SUB("\x05\x0e"), "", "SSS",
           SUB("\x69\x10") SUB("\x69\x01") SUB("\x69\x10") SUB("\x69\x0f") SUB("\x69\x0e")),
    SERVER("set_both_after_inbound_flow", SUB("\x05\x10") SUB("\x05\x02") SUB("\x05\x0d") SUB("\x05\x0e") SUB("\x05\0"), "", "SSS",
           SUB("\x69\x10") SUB("\x69\x02") SUB("\x69\x0f") SUB("\x69\x0f") SUB("\x69\x0e") SUB("\x69\x02")),
    SERVER("set_lines", SUB("\x05\x07") SUB("\x05\x0a") SUB("\x05\x09") SUB("\x05\x0c") SUB("\x05\x09") SUB("\x05\x08") SUB("\x05\x07"), "", "SSS",
           SUB("\x69\x08") SUB("\x69\x0b") SUB("\x69\x09") SUB("\x69\x0c") SUB("\x69\x09") SUB("\x69\x08") SUB("\x69\x08")),
    SERVER("set_break", "a" SUB("\x05\x04") SUB("\x05\x05") SUB("\x05\x05") SUB("\x05\x04") "b" SUB("\x05\x06") SUB("\x05\x05"), "ab", "BB",
           SUB("\x69\x06") SUB("\x69\x05") SUB("\x69\x05") SUB("\x69\x05") SUB("\x69\x06") SUB("\x69\x05")),
    SERVER("telnets_own_break", "a\xff\xf3" "b", "ab", "B", ""),
    SERVER("settings_among_other_options", SUB("\x02\x07") "\xff\xfb\x22" SUB("\x02\0") "\xff\xfd\x18", "", "S",
           SUB("\x66\x07") "\xff\xfe\x22" SUB("\x66\x07") "\xff\xfc\x18"),

    /* the rest */
    SERVER("masks", SUB("\x0a\x10") SUB("\x0b\x30") SUB("\x06") SUB("\x07"), "", "", SUB("\x6e\x10") SUB("\x6f\x30") SUB("\x6a\0") SUB("\x6b\x30")),
    SERVER("mask_of_all", SUB("\x0a\xff\xff") SUB("\x0b\xff\xff") SUB("\x06"), "", "", SUB("\x6e\xff\xff") SUB("\x6f\xff\xff") SUB("\x6a\x60")),
    SERVER("signature", SUB("\0") SUB("\0me"), "", "", SUB("\x64" "chardev.h " CHARDEV_VERSION)),
    SERVER("purge", "a" SUB("\x0c\x01") "b" SUB("\x0c\x03") SUB("\x0c\x02") SUB("\x0c\0") SUB("\x0c\x04") "c", "abc", "PPQQ",
           SUB("\x70\x01") SUB("\x70\x03") SUB("\x70\x02")),
    SERVER("bad_packets", "a" SUB("") SUB("\x01") SUB("\x01\0\0\x25") SUB("\x01\0\0\x25\x80\0") SUB("\x02") SUB("\x02\x07\x07") SUB("\x05")
           SUB("\x05\x14") SUB("\x05\xff\xff") SUB("\x06\0") SUB("\x08\0") SUB("\x0a") SUB("\x0d\0") SUB("\x63\0") SUB("\x66\x07") SUB("\xff\xff\0")
           SUB("\x01 much longer than anything that there is") "b", "ab", "", ""),
    SERVER("window_size_all_the_same", "\xff\xfa\x1f\0\x50\0\x18\xff\xf0" "a", "a", "R", ""),

    CLIENT("is_told_what_is_in_force", SUB("\x65\0\0\x25\x80") SUB("\x66\x07") SUB("\x67\x02") SUB("\x68\x02") SUB("\x69\x03") SUB("\x66\x07") "x",
           "x", "SSSSS", ""),
    CLIENT("is_told_what_it_has_already", SUB("\x65\0\x01\xc2\0") SUB("\x66\x08") SUB("\x67\x01") SUB("\x68\x01") SUB("\x69\x01") SUB("\x69\x08"),
           "", "", ""),
    CLIENT("is_told_what_there_is_not", SUB("\x66\x09") SUB("\x67\x06") SUB("\x68\x04") SUB("\x65\xfe\xfe\xfe\xfe"), "", "", ""),
    CLIENT("is_told_mark_and_one_and_a_half", SUB("\x67\x04") SUB("\x68\x03") "x", "x", "SS", ""),
    CLIENT("inbound_flow", SUB("\x69\x10") SUB("\x69\x0e") SUB("\x69\x0d") SUB("\x69\x11"), "", "SS", ""),
    CLIENT("modem_state", "a" SUB("\x6b\xb0") "b" SUB("\x6b\xbf") SUB("\x6b\x08") "c", "abc", "SS", ""),
    CLIENT("break", "a" SUB("\x6a\x10") "b" SUB("\x6a\x01") SUB("\x6a\x70") "c", "abc", "BB", ""),
    CLIENT("errors", "a" SUB("\x6a\x02") "b" SUB("\x6a\x64") SUB("\x6a\x60") SUB("\x6a\x18") "c", "abc", "LLBL", ""),
    CLIENT("purge_is_answered", "a" SUB("\x70\x03") "b", "ab", "", ""),
    CLIENT("signature", SUB("\x64") SUB("\x64you"), "", "", SUB("\0" "chardev.h " CHARDEV_VERSION)),
    CLIENT("bad_packets", "a" SUB("") SUB("\x6b") SUB("\x6b\x10\x10") SUB("\x07\x10") SUB("\x71\0") SUB("\x65\0\0\x25") SUB("\xff\xff") "b",
           "ab", "", ""),
};

TEST_FAMILY(streams)
{
    add_streams(streams, sizeof streams / sizeof streams[0]);
}

/* ---- what a frontend sets and asks ------------------------------------------------------------------------------- */

static int ioctl_int(line *l, int command, int value)
{
    return chr_fe_ioctl(&l->rec.fe, command, &value);
}

static int set_params(line *l, int speed, int parity, int data_bits, int stop_bits)
{
    chr_serial_params params = { 0, 0, 0, 0 };
    params.speed = speed, params.parity = parity, params.data_bits = data_bits, params.stop_bits = stop_bits;
    return chr_fe_ioctl(&l->rec.fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params);
}

static void check_params(recorder *rec, int speed, int parity, int data_bits, int stop_bits)
{
    chr_serial_params params = { 0, 0, 0, 0 };
    if (!CHECK_INT(chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_GET_PARAMS, &params), 0)) return;
    CHECK_INT(params.speed, speed);
    CHECK_INT(params.parity, parity);
    CHECK_INT(params.data_bits, data_bits);
    CHECK_INT(params.stop_bits, stop_bits);
}

static int get_int(recorder *rec, int command)
{
    int value = -1;
    CHECK_INT(chr_fe_ioctl(&rec->fe, command, &value), 0);
    return value;
}

#define GET_LINES(l) get_int(&(l)->rec, CHR_IOCTL_SERIAL_GET_TIOCM)
#define GET_FLOW(l)  get_int(&(l)->rec, CHR_IOCTL_SERIAL_GET_FLOW)

static void tell(line *l, const char *bytes, size_t len)
{
    say_bytes(l, bytes, len);
    settle(&l->r);
}

/* With a peer that has agreed. */
static void com_open(line *l, int is_server)
{
    line_open(l, COM_PORT, is_server);
    tell(l, is_server ? WILL_COM : DO_COM, 3);
    listen_in(l);
    CHECK_STR(l->rec.events, "OS");
}

TEST(openings)
{
    line l;
    line_open(&l, COM_PORT, 1);
    CHECK_MEM(hear_text, hear_length, "\xff\xfb\x01\xff\xfb\x03\xff\xfb\x00\xff\xfd\x00" DO_COM, 15);
    line_close(&l);
    line_open(&l, COM_PORT, 0);
    CHECK_MEM(hear_text, hear_length, "\xff\xfd\x03\xff\xfb\x00\xff\xfd\x00" WILL_COM, 12);
    line_close(&l);
}

TEST(com_port_goes_with_telnet)
{
    static const char *const without[] = { "", ",telnet=off", ",tn3270=on", ",websocket=on" };
    char                     options[200];
    size_t                   i;
    chr_error                err;
    rig                      r;
    rig_open(&r);
    for (i = 0; i < 4; i++) {
        snprintf(options, sizeof options, "socket,id=t,path=/x,server=on,wait=off,com-port=on%s", without[i]);
        CHECK_INT(refuse(&r, options, &err), CHR_ERR_INVALID);
        CHECK_HAS(err.text, "com-port=");
        CHECK_HAS(err.text, "telnet=");
    }
    rig_close(&r);
}

TEST(as_a_uri)
{
    char      uri[200];
    chr_error err;
    chr_info  info;
    rig       r;
    rig_open(&r);
    snprintf(uri, sizeof uri, "telnet:127.0.0.1:0,server=on,wait=off,com-port=on");
    REQUIRE(chr_new_uri(r.ctx, "u", uri, &err) != NULL);
    chr_query(chr_find(r.ctx, "u"), &info);
    CHECK_HAS(info.filename, "telnet:");
    rig_close(&r);
}

TEST(server_frontend_sees_what_its_client_sets)
{
    line l;
    com_open(&l, 1);
    check_params(&l.rec, 115200, 'N', 8, 1);
    CHECK_INT(GET_LINES(&l), CHR_TIOCM_DSR | CHR_TIOCM_CAR | CHR_TIOCM_CTS);
    CHECK_INT(GET_FLOW(&l), CHR_FLOW_NONE);
    tell(&l, S(SUB("\x01\0\0\x12\xc0") SUB("\x02\x07") SUB("\x03\x03") SUB("\x04\x02") SUB("\x05\x03") SUB("\x05\x0c")));
    check_params(&l.rec, 4800, 'E', 7, 2);
    CHECK_INT(GET_FLOW(&l), CHR_FLOW_RTSCTS);
    CHECK_INT(GET_LINES(&l), CHR_TIOCM_DSR | CHR_TIOCM_CAR);
    tell(&l, S(SUB("\x05\x0b") SUB("\x05\x09") SUB("\x05\x02")));
    CHECK_INT(GET_LINES(&l), CHR_TIOCM_CTS);
    CHECK_INT(GET_FLOW(&l), CHR_FLOW_XONXOFF);
    line_close(&l);
}

/* The line settings are kept; the modem lines driven by a client are dropped when it disconnects. */
TEST(server_between_two_clients)
{
    int  lines;
    line l;
    com_open(&l, 1);
    tell(&l, S(SUB("\x02\x07") SUB("\x05\x09") SUB("\x05\x05") SUB("\x0b\0") SUB("\x08")));
    close(l.peer);
    settle(&l.r);
    CHECK_INT(chr_fe_ioctl(&l.rec.fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines), CHR_ERR_DISCONNECTED);
    CHECK_INT(set_params(&l, 300, 'O', 7, 1), 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_TIOCM, CHR_TIOCM_RI), 0);
    connect_peer(&l);
    listen_in(&l);
    CHECK_INT(chr_fe_ioctl(&l.rec.fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines), CHR_ERR_NOT_SUPPORTED);
    tell(&l, S(WILL_COM SUB("\x01\0\0\0\0") SUB("\x02\0") SUB("\x03\0") SUB("\x05\x04")));
    CHECK_HEARS(&l, DO_SIZE SUB("\x6b\x40") SUB("\x65\0\0\x01\x2c") SUB("\x66\x07") SUB("\x67\x02") SUB("\x69\x06"));
    CHECK_INT(GET_LINES(&l), CHR_TIOCM_DSR | CHR_TIOCM_CAR | CHR_TIOCM_CTS);
    CHECK_STR(l.rec.events, "OSSSBCOS");
    line_close(&l);
}

static void correct_speed(recorder *rec, int what)
{
    chr_serial_params params;
    int               none = CHR_FLOW_NONE;
    if (what != 'e' || rec->last_event != CHR_EVENT_SERIAL) return;
    CHECK_INT(chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_GET_PARAMS, &params), 0);
    params.speed = params.speed > 9600 ? 9600 : params.speed;
    CHECK_INT(chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params), 0);
    CHECK_INT(chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_SET_FLOW, &none), 0);
}

TEST(server_answers_what_its_frontend_has_made_of_it)
{
    line l;
    com_open(&l, 1);
    l.rec.then = correct_speed;
    tell(&l, S("x" SUB("\x01\0\0\x4b\0") SUB("\x05\x02") SUB("\x01\0\0\x12\xc0") "y"));
    CHECK_HEARS(&l, SUB("\x65\0\0\x25\x80") SUB("\x69\x01") SUB("\x65\0\0\x12\xc0"));
    CHECK_INPUT(&l.rec, "xy");
    line_close(&l);
}

/* The answer doesn't wait until the frontend has room for more data. */
TEST(server_answers_though_its_frontend_has_no_room)
{
    line l;
    com_open(&l, 1);
    l.rec.room = 1;
    tell(&l, S(SUB("\x02\x07") "x" SUB("\x02\x05")));
    CHECK_HEARS(&l, SUB("\x66\x07") SUB("\x66\x05"));
    CHECK_INPUT(&l.rec, "x");
    line_close(&l);
}

static void no_more_room(recorder *rec, int what)
{
    if (what == 'e' && rec->last_event == CHR_EVENT_SERIAL) rec->room = 0;
}

TEST(server_answers_a_frontend_that_closes_up_on_the_event)
{
    line l;
    com_open(&l, 1);
    l.rec.then = no_more_room;
    tell(&l, S(SUB("\x02\x07")));
    CHECK_HEARS(&l, SUB("\x66\x07"));
    line_close(&l);
}

TEST(server_tells_modem_state)
{
    line l;
    com_open(&l, 1);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_TIOCM, CHR_TIOCM_DTR), 0); /* CTS falls */
    CHECK_HEARS(&l, SUB("\x6b\xa1"));
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_TIOCM, CHR_TIOCM_DSR | CHR_TIOCM_CAR), 0); /* the same */
    CHECK_HEARD(&l, "", 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_TIOCM, CHR_TIOCM_CTS | CHR_TIOCM_RI | CHR_TIOCM_DTR), 0); /* DTR doesn't count now */
    CHECK_HEARS(&l, SUB("\x6b\x5b")); /* the beginning of a ring doesn't count as a change */
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_TIOCM, CHR_TIOCM_RTS), 0);
    CHECK_HEARS(&l, SUB("\x6b\x14"));
    line_close(&l);
}

TEST(server_obeys_the_modem_state_mask)
{
    line l;
    com_open(&l, 1);
    tell(&l, S(SUB("\x0b\x21")));
    CHECK_HEARS(&l, SUB("\x6f\x21"));
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_TIOCM, CHR_TIOCM_DSR | CHR_TIOCM_CTS), 0); /* only CD changes */
    CHECK_HEARD(&l, "", 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_TIOCM, CHR_TIOCM_DSR), 0);
    CHECK_HEARS(&l, SUB("\x6b\x21"));
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_TIOCM, 0), 0);
    CHECK_HEARS(&l, SUB("\x6b\0"));
    tell(&l, S(SUB("\x0b\0")));
    listen_in(&l);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_TIOCM, CHR_TIOCM_RTS), 0);
    CHECK_HEARD(&l, "", 0);
    line_close(&l);
}

TEST(server_tells_break_as_its_client_wants_it)
{
    line l;
    com_open(&l, 1);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_BREAK, 1), 0);
    CHECK_HEARD(&l, "\xff\xf3", 2);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_BREAK, 0), 0);
    tell(&l, S(SUB("\x0a\x10")));
    CHECK_HEARS(&l, SUB("\x6e\x10"));
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_BREAK, 1), 0);
    CHECK_HEARS(&l, SUB("\x6a\x10"));
    tell(&l, S(SUB("\x06")));
    CHECK_HEARS(&l, SUB("\x6a\x10"));
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_BREAK, 0), 0);
    CHECK_HEARS(&l, SUB("\x6a\0"));
    line_close(&l);
}

/* The output buffer is full when a break ends: the end of the break is sent when there is room. */
TEST(a_break_ends_behind_much_output)
{
    int  is_server, ended, rounds;
    line l;
    NEED_LITTLE_ROOM();
    for (is_server = 0; is_server < 2; is_server++) {
        com_open(&l, is_server);
        if (is_server) tell(&l, S(SUB("\x0a\x10")));
        CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_BREAK, 1), 0);
        fill_up(&l.rec.fe);
        for (rounds = 0; rounds < 5 && ioctl_int(&l, CHR_IOCTL_SERIAL_SET_BREAK, 1) == 0; rounds++) {}
        CHECK(rounds < 5);
        CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_BREAK, 0), 0);
        for (ended = rounds = 0; rounds < 200; rounds++) {
            listen_in(&l);
            ended |= memmem(hear_text, (size_t)hear_length, is_server ? SUB("\x6a\0") : SUB("\x05\x06"), 7) != NULL;
            settle(&l.r);
        }
        CHECK(ended);
        CHECK_STR(l.rec.events, "OS");
        line_close(&l);
    }
}

TEST(client_sends_what_changes)
{
    line l;
    com_open(&l, 0);
    CHECK_INT(set_params(&l, 9600, 'N', 8, 1), 0);
    CHECK_HEARS(&l, SUB("\x01\0\0\x25\x80") SUB("\x02\x08") SUB("\x03\x01") SUB("\x04\x01"));
    CHECK_INT(set_params(&l, 9600, 'O', 8, 2), 0);
    CHECK_HEARS(&l, SUB("\x03\x02") SUB("\x04\x02"));
    CHECK_INT(set_params(&l, 65535, 'O', 8, 2), 0);
    CHECK_HEARS(&l, SUB("\x01\0\0\xff\xff\xff\xff"));
    CHECK_INT(set_params(&l, 65535, 'O', 8, 2), 0);
    CHECK_HEARD(&l, "", 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_TIOCM, CHR_TIOCM_DTR), 0);
    CHECK_HEARS(&l, SUB("\x05\x08") SUB("\x05\x0c"));
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_TIOCM, CHR_TIOCM_DTR | CHR_TIOCM_RTS), 0);
    CHECK_HEARS(&l, SUB("\x05\x0b"));
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, CHR_FLOW_NONE), 0);
    CHECK_HEARS(&l, SUB("\x05\x01"));
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, CHR_FLOW_RTSCTS), 0);
    CHECK_HEARS(&l, SUB("\x05\x03"));
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_BREAK, 1), 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_BREAK, 0), 0);
    CHECK_HEARS(&l, SUB("\x05\x05") SUB("\x05\x06"));
    line_close(&l);
}

TEST(client_sends_mark_space_and_one_and_a_half)
{
    line l;
    com_open(&l, 0);
    CHECK_INT(set_params(&l, 9600, 'M', 5, CHR_STOP_BITS_1_5), 0);
    CHECK_HEARS(&l, SUB("\x01\0\0\x25\x80") SUB("\x02\x05") SUB("\x03\x04") SUB("\x04\x03"));
    CHECK_INT(set_params(&l, 9600, 'S', 5, CHR_STOP_BITS_1_5), 0);
    CHECK_HEARS(&l, SUB("\x03\x05"));
    check_params(&l.rec, 9600, 'S', 5, CHR_STOP_BITS_1_5);
    line_close(&l);
}

TEST(client_sends_inbound_flow_control_where_it_is_another)
{
    int  split = CHR_FLOW_SPLIT(CHR_FLOW_RTSCTS, CHR_FLOW_XONXOFF);
    line l;
    com_open(&l, 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, split), 0);
    CHECK_HEARS(&l, SUB("\x05\x03") SUB("\x05\x0f"));
    tell(&l, S(SUB("\x69\x03") SUB("\x69\x0f")));
    CHECK_INT(GET_FLOW(&l), split);
    CHECK_STR(l.rec.events, "OS");
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, CHR_FLOW_SPLIT(CHR_FLOW_XONXOFF, CHR_FLOW_XONXOFF)), 0);
    CHECK_HEARS(&l, SUB("\x05\x02") SUB("\x05\x0f"));
    CHECK_INT(GET_FLOW(&l), CHR_FLOW_XONXOFF);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, CHR_FLOW_NONE), 0);
    CHECK_HEARS(&l, SUB("\x05\x01"));
    line_close(&l);
}

/* A server with one flow control for both directions reports that. */
TEST(client_whose_server_splits_nothing)
{
    line l;
    com_open(&l, 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, CHR_FLOW_SPLIT(CHR_FLOW_XONXOFF, CHR_FLOW_NONE)), 0);
    tell(&l, S(SUB("\x69\x02") SUB("\x69\x0f")));
    CHECK_INT(GET_FLOW(&l), CHR_FLOW_XONXOFF);
    CHECK_STR(l.rec.events, "OSS");
    line_close(&l);
}

TEST(client_purges)
{
    line l;
    com_open(&l, 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_PURGE, CHR_PURGE_RECEIVE), 0);
    CHECK_HEARS(&l, SUB("\x0c\x01"));
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_PURGE, CHR_PURGE_TRANSMIT), 0);
    CHECK_HEARS(&l, SUB("\x0c\x02"));
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_PURGE, CHR_PURGE_RECEIVE | CHR_PURGE_TRANSMIT), 0);
    CHECK_HEARS(&l, SUB("\x0c\x03"));
    close(l.peer);
    settle(&l.r);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_PURGE, CHR_PURGE_RECEIVE), 0); /* there is nothing */
    l.peer = -1;
    line_close(&l);
}

TEST(server_has_nothing_to_purge_but_its_client_has)
{
    line l;
    com_open(&l, 1);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_PURGE, CHR_PURGE_RECEIVE), CHR_ERR_NOT_SUPPORTED);
    CHECK_HEARD(&l, "", 0);
    tell(&l, S("in" SUB("\x0c\x03")));
    CHECK_HEARS(&l, SUB("\x70\x03"));
    CHECK_STR(l.rec.events, "OSPQ");
    CHECK_INPUT(&l.rec, "in");
    line_close(&l);
}

/* What is queued for a client that reads slowly is what its line has received. */
TEST(server_drops_what_is_queued_for_a_client_that_purges)
{
    static char much[1000000];
    chr_info    info;
    char        options[300];
    size_t      heard = 0;
    int         fds[2], i;
    chr_error   err;
    line        l;
    NEED_LITTLE_ROOM();
    memset(&l, 0, sizeof l);
    rig_open_virtual(&l.r);
    snprintf(options, sizeof options, "socket,id=t,path=%s,server=on,wait=off,telnet=on,com-port=on,obuf=1M", scratch("s"));
    l.dev = make(&l.r, options);
    attach(&l.rec, l.dev);
    socket_pair(fds);
    l.peer = fds[0];
    CHECK_INT(chr_add_client(l.r.ctx, "t", fds[1], &err), 0);
    settle(&l.r);
    tell(&l, WILL_COM, 3);
    memset(much, 'x', sizeof much);
    CHECK_INT(chr_fe_write(&l.rec.fe, much, sizeof much), sizeof much);
    settle(&l.r);
    tell(&l, S(SUB("\x0c\x01")));
    chr_query(l.dev, &info);
    CHECK(info.bytes_dropped > 100000);
    for (i = 0; i < 1000; i++) {
        listen_in(&l);
        heard += (size_t)hear_length;
        settle(&l.r);
    }
    CHECK(heard < sizeof much - (size_t)info.bytes_dropped + 100);
    CHECK_INT(chr_fe_write(&l.rec.fe, "new", 3), 3);
    CHECK_HEARD(&l, "new", 3);
    line_close(&l);
    scratch_clean();
}

TEST(server_tells_line_errors_that_its_client_wants)
{
    line l;
    com_open(&l, 1);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_ERRORS, CHR_LINE_PARITY), 0); /* the mask is 0 at first */
    CHECK_HEARD(&l, "", 0);
    tell(&l, S(SUB("\x0a\x06")));
    CHECK_HEARS(&l, SUB("\x6e\x06"));
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_ERRORS, CHR_LINE_FRAMING), 0);
    CHECK_HEARD(&l, "", 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_ERRORS, CHR_LINE_FRAMING | CHR_LINE_PARITY | CHR_LINE_OVERRUN | 0xf0), 0);
    CHECK_HEARS(&l, SUB("\x6a\x06"));
    tell(&l, S(SUB("\x06")));
    CHECK_HEARS(&l, SUB("\x6a\0")); /* once */
    tell(&l, S(SUB("\x0a\x7e")));
    listen_in(&l);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_ERRORS, CHR_LINE_FRAMING), 0);
    CHECK_HEARS(&l, SUB("\x6a\x68"));
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_ERRORS, 0), 0);
    CHECK_HEARD(&l, "", 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_GET_ERRORS, 0), CHR_ERR_NOT_SUPPORTED);
    line_close(&l);
}

TEST(client_is_told_line_errors)
{
    line l;
    com_open(&l, 0);
    CHECK_INT(get_int(&l.rec, CHR_IOCTL_SERIAL_GET_ERRORS), 0);
    tell(&l, S(SUB("\x6a\x62") SUB("\x6a\x6c")));
    CHECK_INT(get_int(&l.rec, CHR_IOCTL_SERIAL_GET_ERRORS), CHR_LINE_OVERRUN | CHR_LINE_PARITY | CHR_LINE_FRAMING);
    CHECK_INT(get_int(&l.rec, CHR_IOCTL_SERIAL_GET_ERRORS), 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_ERRORS, CHR_LINE_PARITY), CHR_ERR_NOT_SUPPORTED);
    line_close(&l);
}

TEST(what_is_wrong_is_refused_in_both_roles)
{
    int  is_server;
    line l;
    for (is_server = 0; is_server < 2; is_server++) {
        com_open(&l, is_server);
        CHECK_INT(set_params(&l, 49, 'N', 8, 1), CHR_ERR_INVALID);
        CHECK_INT(set_params(&l, 4000001, 'N', 8, 1), CHR_ERR_INVALID);
        CHECK_INT(set_params(&l, 9600, 'm', 8, 1), CHR_ERR_INVALID);
        CHECK_INT(set_params(&l, 9600, 'N' + 256, 8, 1), CHR_ERR_INVALID);
        CHECK_INT(set_params(&l, 9600, 'N' - 256, 8, 1), CHR_ERR_INVALID);
        CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_PURGE, 0), CHR_ERR_INVALID);
        CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_PURGE, 4), CHR_ERR_INVALID);
        CHECK_INT(set_params(&l, 9600, 'N', 9, 1), CHR_ERR_INVALID);
        CHECK_INT(set_params(&l, 9600, 'N', 8, 3), CHR_ERR_INVALID);
        CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, 3), CHR_ERR_INVALID);
        CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, -1), CHR_ERR_INVALID);
        CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, CHR_FLOW_SPLIT(CHR_FLOW_NONE, 3)), CHR_ERR_INVALID);
        CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, CHR_FLOW_SPLIT(3, CHR_FLOW_NONE)), CHR_ERR_INVALID);
        CHECK_INT(ioctl_int(&l, 12345, 0), CHR_ERR_NOT_SUPPORTED);
        check_params(&l.rec, 115200, 'N', 8, 1);
        CHECK_HEARD(&l, "", 0);
        line_close(&l);
    }
}

TEST(client_is_corrected_by_its_server)
{
    line l;
    com_open(&l, 0);
    CHECK_INT(set_params(&l, 4000000, 'N', 8, 1), 0);
    check_params(&l.rec, 4000000, 'N', 8, 1);
    tell(&l, S(SUB("\x65\0\x01\xc2\0") SUB("\x69\x02")));
    check_params(&l.rec, 115200, 'N', 8, 1);
    CHECK_INT(GET_FLOW(&l), CHR_FLOW_XONXOFF);
    CHECK_STR(l.rec.events, "OSSS");
    listen_in(&l);
    CHECK_INT(set_params(&l, 4000000, 'N', 8, 1), 0); /* one may try again */
    CHECK_HEARS(&l, SUB("\x01\0\x3d\x09\0"));
    line_close(&l);
}

/* Answers to what was set before last come late: what is set then goes out, though it looks as if it was in force. */
TEST(client_sets_to_and_fro_faster_than_its_server_answers)
{
    line l;
    com_open(&l, 0);
    CHECK_INT(set_params(&l, 9600, 'N', 8, 1), 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, CHR_FLOW_NONE), 0);
    CHECK_INT(set_params(&l, 4800, 'N', 8, 1), 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, CHR_FLOW_RTSCTS), 0);
    tell(&l, S(SUB("\x65\0\0\x25\x80") SUB("\x69\x01")));
    listen_in(&l);
    CHECK_INT(set_params(&l, 9600, 'N', 8, 1), 0);
    CHECK_HEARS(&l, SUB("\x01\0\0\x25\x80"));
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, CHR_FLOW_NONE), 0);
    CHECK_HEARS(&l, SUB("\x05\x01"));
    tell(&l, S(SUB("\x65\0\0\x12\xc0") SUB("\x69\x03") SUB("\x65\0\0\x25\x80") SUB("\x69\x01")));
    check_params(&l.rec, 9600, 'N', 8, 1);
    CHECK_INT(GET_FLOW(&l), CHR_FLOW_NONE);
    line_close(&l);
}

TEST(client_keeps_the_modem_state)
{
    line l;
    com_open(&l, 0);
    CHECK_INT(GET_LINES(&l), 0);
    tell(&l, S(SUB("\x6b\xbb")));
    CHECK_INT(GET_LINES(&l), CHR_TIOCM_CTS | CHR_TIOCM_DSR | CHR_TIOCM_CAR);
    tell(&l, S(SUB("\x6b\x48")));
    CHECK_INT(GET_LINES(&l), CHR_TIOCM_RI);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_TIOCM, CHR_TIOCM_DTR | CHR_TIOCM_RTS), 0);
    CHECK_INT(GET_LINES(&l), CHR_TIOCM_RI); /* the far side's */
    line_close(&l);
}

/* Nobody is harmed by a peer that doesn't know the option. */
TEST(refused_it_is_a_plain_line)
{
    static const int get[] = { CHR_IOCTL_SERIAL_GET_TIOCM, CHR_IOCTL_SERIAL_GET_FLOW, CHR_IOCTL_SERIAL_GET_PARAMS, CHR_IOCTL_SERIAL_GET_ERRORS };
    int              value[8], is_server, i;
    line             l;
    for (is_server = 0; is_server < 2; is_server++) {
        line_open(&l, COM_PORT, is_server);
        tell(&l, is_server ? WONT_COM : DONT_COM, 3);
        listen_in(&l);
        CHECK_INT(set_params(&l, 9600, 'N', 8, 1), CHR_ERR_NOT_SUPPORTED);
        CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_TIOCM, CHR_TIOCM_DTR), CHR_ERR_NOT_SUPPORTED);
        CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, CHR_FLOW_NONE), CHR_ERR_NOT_SUPPORTED);
        CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_PURGE, CHR_PURGE_RECEIVE), CHR_ERR_NOT_SUPPORTED);
        CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_ERRORS, CHR_LINE_PARITY), CHR_ERR_NOT_SUPPORTED);
        for (i = 0; i < 4; i++) CHECK_INT(chr_fe_ioctl(&l.rec.fe, get[i], value), CHR_ERR_NOT_SUPPORTED);
        CHECK_HEARD(&l, "", 0);
        CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_BREAK, 1), 0);
        CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_BREAK, 0), 0);
        CHECK_INT(chr_fe_write(&l.rec.fe, "out", 3), 3);
        CHECK_HEARD(&l, "\xff\xf3out", 5);
        tell(&l, "in", 2);
        CHECK_INPUT(&l.rec, "in");
        line_close(&l);
    }
}

/* ---- before a connection, and across connections ----------------------------------------------------------------- */

static int accept_client(rig *r, int listener)
{
    struct pollfd p = { 0, POLLIN, 0 };
    int64_t       end = real_ms() + 5000;
    p.fd = listener;
    while (poll(&p, 1, 1) <= 0 && real_ms() < end) chr_loop_step(r->ctx, 0);
    return accept(listener, NULL, NULL);
}

/* What was set goes to each server, also what was set while there was none. */
TEST(client_sends_all_anew)
{
    int  listener, lines;
    char options[200];
    line l;
    memset(&l, 0, sizeof l);
    rig_open(&l.r);
    snprintf(options, sizeof options, "socket,id=t,path=%s,reconnect-ms=10,telnet=on,com-port=on", scratch("s"));
    l.dev = make(&l.r, options);
    attach(&l.rec, l.dev);
    CHECK_INT(set_params(&l, 9600, 'E', 7, 2), 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_TIOCM, CHR_TIOCM_RTS), 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_BREAK, 1), 0);
    CHECK_INT(chr_fe_ioctl(&l.rec.fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines), CHR_ERR_DISCONNECTED);
    listener = unix_listen(scratch("s"));
    l.peer = accept_client(&l.r, listener);
    PUMP(&l.r, l.rec.open);
    CHECK_HEARS(&l, "\xff\xfd\x03\xff\xfb\x00\xff\xfd\x00" WILL_COM);
    tell(&l, DO_COM, 3);
    CHECK_HEARS(&l, SUB("\x01\0\0\x25\x80") SUB("\x02\x07") SUB("\x03\x03") SUB("\x04\x02") SUB("\x07") SUB("\x0a\x1e") SUB("\x0b\xff\xff")
                      SUB("\x05\0") SUB("\x05\x05") SUB("\x05\x09") SUB("\x05\x0b"));
    tell(&l, S(SUB("\x65\0\0\x12\xc0") SUB("\x6b\x10"))); /* what the server made of it isn't what is wanted of the next */
    CHECK_INT(GET_LINES(&l), CHR_TIOCM_CTS);
    close(l.peer);
    PUMP(&l.r, !l.rec.open);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, CHR_FLOW_RTSCTS), 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_BREAK, 0), 0);
    l.peer = accept_client(&l.r, listener);
    PUMP(&l.r, l.rec.open);
    listen_in(&l);
    tell(&l, DO_COM, 3);
    CHECK_HEARS(&l, SUB("\x01\0\0\x25\x80") SUB("\x02\x07") SUB("\x03\x03") SUB("\x04\x02") SUB("\x07") SUB("\x0a\x1e") SUB("\x0b\xff\xff")
                      SUB("\x05\x03") SUB("\x05\x09") SUB("\x05\x0b"));
    CHECK_INT(GET_LINES(&l), 0);
    detach(&l.rec);
    close(l.peer);
    close(listener);
    rig_close(&l.r);
    scratch_clean();
}

TEST(set_between_opened_and_agreed)
{
    line l;
    line_open(&l, COM_PORT, 0);
    CHECK_INT(set_params(&l, 9600, 'N', 8, 1), 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_TIOCM, 0), 0);
    CHECK_HEARD(&l, "", 0);
    tell(&l, DO_COM, 3);
    CHECK_HEARS(&l, SUB("\x01\0\0\x25\x80") SUB("\x02\x08") SUB("\x03\x01") SUB("\x04\x01") SUB("\x07") SUB("\x0a\x1e") SUB("\x0b\xff\xff")
                      SUB("\x05\0") SUB("\x05\x09") SUB("\x05\x0c"));
    line_close(&l);
}

/* ---- flow control, order, bounds --------------------------------------------------------------------------------- */

TEST(suspend_holds_output_and_resume_lets_it_go)
{
    int  is_server, i, ran;
    line l;
    for (is_server = 0; is_server < 2; is_server++) {
        com_open(&l, is_server);
        CHECK_INT(chr_fe_write(&l.rec.fe, "a", 1), 1);
        CHECK_HEARD(&l, "a", 1);
        tell(&l, is_server ? SUB("\x08") SUB("\x02\x07") : SUB("\x6c") SUB("\x66\x07"), 13);
        CHECK_INT(chr_fe_write(&l.rec.fe, "b", 1), CHR_ERR_WOULD_BLOCK);
        CHECK_INT(chr_fe_write_all(&l.rec.fe, "b", 1, 1000), CHR_ERR_WOULD_BLOCK);
        chr_fe_add_watch(&l.rec.fe, recorder_writable, &l.rec);
        settle(&l.r);
        for (ran = 0, i = 0; i < 5; i++) ran += chr_loop_step(l.r.ctx, 1);
        CHECK_INT(ran, 0); /* the loop rests */
        CHECK_INT(l.rec.writable, 0);
        CHECK_HEARD(&l, "", 0);
        tell(&l, "in", 2); /* the other way goes on */
        CHECK_INPUT(&l.rec, "in");
        tell(&l, is_server ? SUB("\x09") : SUB("\x6d"), 6);
        CHECK_INT(l.rec.writable, 1);
        if (is_server) CHECK_HEARS(&l, SUB("\x66\x07"));
        CHECK_INT(chr_fe_write(&l.rec.fe, "b", 1), 1);
        CHECK_HEARD(&l, "b", 1);
        line_close(&l);
    }
}

/* Purges of both directions in one piece are two events. */
TEST(purges_that_come_together_are_all_told)
{
    line l;
    com_open(&l, 1);
    l.rec.events[0] = 0;
    tell(&l, S(SUB("\x0c\x02") SUB("\x0c\x01")));
    CHECK(strchr(l.rec.events, 'P') != NULL);
    CHECK(strchr(l.rec.events, 'Q') != NULL);
    line_close(&l);
}

/* When the option is turned off, the suspension ends: a plain telnet peer could not lift it. */
TEST(suspension_ends_with_the_option)
{
    char answer[50];
    line l;
    com_open(&l, 1);
    tell(&l, S(SUB("\x08")));
    CHECK_INT(chr_fe_write(&l.rec.fe, "b", 1), CHR_ERR_WOULD_BLOCK);
    tell(&l, S("\xff\xfc\x2c")); /* WONT COM-PORT */
    while (recv(l.peer, answer, sizeof answer, MSG_DONTWAIT) > 0) {}
    CHECK_INT(chr_fe_write(&l.rec.fe, "b", 1), 1);
    CHECK_HEARD(&l, "b", 1);
    line_close(&l);
}

TEST(resume_is_noticed_though_somebody_blocks_to_read)
{
    char got[4];
    line l;
    com_open(&l, 1);
    tell(&l, S(SUB("\x08")));
    CHECK_INT(chr_fe_write(&l.rec.fe, "b", 1), CHR_ERR_WOULD_BLOCK);
    chr_fe_add_watch(&l.rec.fe, recorder_writable, &l.rec);
    say_bytes(&l, S(SUB("\x09") "x"));
    CHECK_INT(chr_fe_read_all(&l.rec.fe, got, 1, 1000), 1);
    settle(&l.r);
    CHECK_INT(l.rec.writable, 1);
    line_close(&l);
}

static int64_t end_of_a_suspended_line(const void *arg)
{
    int64_t began;
    line    l;
    (void)arg;
    com_open(&l, 1);
    tell(&l, S(SUB("\x08") SUB("\x01\0\0\0\0")));
    CHECK_HEARD(&l, "", 0);
    began = real_ms();
    detach(&l.rec);
    l.r.fds++; /* the peer is still there */
    rig_close(&l.r);
    began = real_ms() - began;
    close(l.peer);
    return began;
}

/* Closing does not wait for a peer that has suspended all output. */
TEST(suspended_peer_and_the_end)
{
    CHECK(least_ms(1000, end_of_a_suspended_line, NULL) < 1000);
}

/* What it has suspended is not waited for: a chardev that is removed leaves nothing to drain. */
TEST(suspended_peer_of_a_removed_line)
{
    chr_dev *dev;
    line     l;
    com_open(&l, 1);
    dev = l.rec.fe.dev;
    tell(&l, S(SUB("\x08") SUB("\x01\0\0\0\0")));
    CHECK_HEARD(&l, "", 0);
    detach(&l.rec);
    CHECK_INT(chr_remove(l.r.ctx, dev->id, NULL), 0);
    settle(&l.r);
    CHECK_INT(chr_drain(l.r.ctx, 0), 0);
    l.r.fds++; /* the peer is still there */
    rig_close(&l.r);
    close(l.peer);
}

TEST(suspended_peer_leaves)
{
    line l;
    com_open(&l, 1);
    tell(&l, S(SUB("\x08")));
    CHECK_INT(chr_fe_write(&l.rec.fe, "b", 1), CHR_ERR_WOULD_BLOCK);
    chr_fe_add_watch(&l.rec.fe, recorder_writable, &l.rec);
    close(l.peer);
    settle(&l.r);
    CHECK_STR(l.rec.events, "OSC");
    CHECK_INT(l.rec.writable, 1);
    connect_peer(&l); /* the next one has suspended nothing */
    listen_in(&l);
    CHECK_INT(chr_fe_write(&l.rec.fe, "b", 1), 1);
    CHECK_HEARD(&l, "b", 1);
    line_close(&l);
}

static char   order[64];
static size_t order_length;

static void note_order(recorder *rec, int what)
{
    if (what == 'r') order[order_length++] = rec->input[rec->length - 1];
    else order[order_length++] = recorder_letter(rec->last_event);
}

TEST(events_come_in_their_place_among_the_bytes)
{
    line l;
    com_open(&l, 1);
    l.rec.then = note_order;
    tell(&l, S("a" SUB("\x02\x07") "b" SUB("\x05\x05") "c" SUB("\x05\x09") SUB("\x05\x0c") "d"));
    CHECK_MEM(order, order_length, "aSbBcSSd", 8);
    line_close(&l);
}

/* Whoever asks and never reads costs a fixed amount of memory, and the chardev goes on. */
TEST(questions_without_end)
{
    static char block[3000];
    size_t      i;
    int         turn, small = 4096;
    long        live;
    line        l;
    com_open(&l, 1);
    live = l.r.live;
    setsockopt(l.peer, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    for (i = 0; i < sizeof block; i += 6) memcpy(block + i, SUB("\0"), 6);
    for (turn = 0; turn < 1000; turn++) {
        (void)!send(l.peer, block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL);
        settle(&l.r);
    }
    CHECK_INT(l.r.live, live);
    CHECK_STR(l.rec.events, "OS");
    line_close(&l);
}

/* The answers and notices go between the data, never into the middle of a doubled 0xff. */
TEST(words_between_data)
{
    static char data[40000];
    size_t      taken = 0, i, ffs = 0;
    int         n, lines = 0;
    line        l;
    com_open(&l, 1);
    memset(data, 0xff, sizeof data);
    while (taken < sizeof data) {
        n = chr_fe_write(&l.rec.fe, data + taken, sizeof data - taken > 700 ? 700 : sizeof data - taken);
        if (n > 0) taken += (size_t)n;
        lines ^= CHR_TIOCM_RTS;
        CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_TIOCM, lines), 0);
        settle(&l.r);
        listen_in(&l);
        for (i = 0; i + 1 < (size_t)hear_length; i += 2) {
            REQUIRE((unsigned char)hear_text[i] == 0xff);
            if ((unsigned char)hear_text[i + 1] == 0xff) {
                ffs++;
                continue;
            }
            REQUIRE(memcmp(hear_text + i, "\xff\xfa\x2c\x6b", 4) == 0);
            i += 5;
        }
    }
    CHECK_INT(ffs, sizeof data);
    line_close(&l);
}

/* ---- two of ours ------------------------------------------------------------------------------------------------- */

TEST(two_of_ours)
{
    char              options[200];
    chr_serial_params params = { 19200, 'O', 7, 2 };
    int               on = 1, off = 0, lines = CHR_TIOCM_RTS, flow = CHR_FLOW_XONXOFF;
    recorder          server, client;
    rig               r;
    rig_open(&r);
    snprintf(options, sizeof options, "socket,id=s,path=%s,server=on,wait=off,telnet=on,com-port=on", scratch("s"));
    attach(&server, make(&r, options));
    snprintf(options, sizeof options, "socket,id=c,path=%s,telnet=on,com-port=on", scratch("s"));
    attach(&client, make(&r, options));
    CHECK_INT(chr_fe_ioctl(&client.fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params), 0);
    PUMP(&r, strchr(server.events, 'S') && strchr(client.events, 'S'));
    CHECK_INT(chr_fe_ioctl(&client.fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines), 0);
    CHECK_INT(chr_fe_ioctl(&client.fe, CHR_IOCTL_SERIAL_SET_FLOW, &flow), 0);
    PUMP(&r, get_int(&server, CHR_IOCTL_SERIAL_GET_FLOW) == flow);
    check_params(&server, 19200, 'O', 7, 2);
    CHECK_INT(get_int(&server, CHR_IOCTL_SERIAL_GET_TIOCM), CHR_TIOCM_CTS);
    PUMP(&r, get_int(&client, CHR_IOCTL_SERIAL_GET_TIOCM) == (CHR_TIOCM_CTS | CHR_TIOCM_DSR | CHR_TIOCM_CAR));
    lines = CHR_TIOCM_RTS;
    CHECK_INT(chr_fe_ioctl(&server.fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines), 0);
    PUMP(&r, get_int(&client, CHR_IOCTL_SERIAL_GET_TIOCM) == CHR_TIOCM_CTS);
    CHECK_INT(chr_fe_ioctl(&client.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on), 0);
    CHECK_INT(chr_fe_ioctl(&client.fe, CHR_IOCTL_SERIAL_SET_BREAK, &off), 0);
    PUMP(&r, strchr(server.events, 'B'));
    CHECK_INT(chr_fe_ioctl(&server.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on), 0);
    CHECK_INT(chr_fe_ioctl(&server.fe, CHR_IOCTL_SERIAL_SET_BREAK, &off), 0);
    PUMP(&r, strchr(client.events, 'B'));
    CHECK(strchr(client.events, 'B') == strrchr(client.events, 'B'));
    CHECK_INT(chr_fe_write(&server.fe, "\r\0\xff\n", 4), 4);
    CHECK_INT(chr_fe_write(&client.fe, "\xff\r\0\r", 4), 4);
    PUMP(&r, server.length == 4 && client.length == 4);
    CHECK_MEM(client.input, client.length, "\r\0\xff\n", 4);
    CHECK_MEM(server.input, server.length, "\xff\r\0\r", 4);
    detach(&server);
    detach(&client);
    rig_close(&r);
    scratch_clean();
}

/* The mux passes events up and commands down. */
TEST(through_a_mux)
{
    char      options[200];
    int       fds[2];
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open(&r);
    snprintf(options, sizeof options, "socket,id=m,path=%s,server=on,wait=off,telnet=on,com-port=on,mux=on", scratch("s"));
    attach(&rec, make(&r, options));
    socket_pair(fds);
    CHECK_INT(chr_add_client(r.ctx, "m-base", fds[1], &err), 0);
    settle(&r);
    CHECK_INT(write(fds[0], S(WILL_COM SUB("\x02\x06"))), 10);
    settle(&r);
    CHECK_HAS(rec.events, "OSS");
    check_params(&rec, 115200, 'N', 6, 1);
    detach(&rec);
    close(fds[0]);
    rig_close(&r);
    scratch_clean();
}

/* ---- a frontend that pulls away what it stands on ---------------------------------------------------------------- */

static const char *escape; /* what it does on SERIAL, once */
static int         next_peer;

static void escapes(recorder *rec, int what)
{
    chr_context *ctx = rec->fe.dev->ctx;
    const char  *how = escape;
    if (what != 'e' || rec->last_event != CHR_EVENT_SERIAL || !how) return;
    escape = NULL;
    if (strchr(how, 'd')) CHECK_INT(chr_fe_disconnect(&rec->fe), 0);
    if (strchr(how, 'n')) CHECK_INT(chr_add_client(ctx, "t", next_peer, NULL), 0);
    if (strchr(how, 'c')) CHECK_INT(chr_change(ctx, "t", "null", NULL), 0);
    if (strchr(how, 'r')) {
        chr_fe_deinit(&rec->fe);
        CHECK_INT(chr_remove(ctx, "t", NULL), 0);
    }
}

static void check_escape(int is_server, const char *how, const char *events)
{
    line l;
    int  fds[2], ran, i;
    line_open(&l, COM_PORT, is_server);
    socket_pair(fds);
    next_peer = fds[1];
    escape = how;
    l.rec.then = escapes;
    tell(&l, is_server ? WILL_COM "x" SUB("\x02\x07") "y" : DO_COM "x" SUB("\x66\x07") "y", 12);
    if (!CHECK_STR(l.rec.events, events)) NOTE("%s, %s", is_server ? "server" : "client", how);
    CHECK_INPUT(&l.rec, "");
    for (ran = 0, i = 0; i < 10; i++) ran += chr_loop_step(l.r.ctx, 1) > 0;
    CHECK(ran < 5); /* it is not busy for ever */
    close(fds[0]);
    if (!strchr(how, 'n')) close(fds[1]);
    if (!l.rec.fe.dev) free(l.rec.input);
    line_close(&l);
}

TEST(escapes_on_serial)
{
    int is_server;
    for (is_server = 0; is_server < 2; is_server++) {
        check_escape(is_server, "d", "OSC");
        check_escape(is_server, "c", "OSC");
        check_escape(is_server, "r", "OS");
        check_escape(is_server, "dc", "OSC");
        check_escape(is_server, "dr", "OS");
    }
    check_escape(1, "dn", "OSCO");
    check_escape(1, "dnd", "OSCO");
    check_escape(1, "dnr", "OS");
}

static char told[500];

static void note_settings(recorder *rec, int what)
{
    chr_serial_params params = { 0, 0, 0, 0 };
    int               flow = -1, lines = -1;
    size_t            used = strlen(told);
    if (what != 'e' || rec->last_event != CHR_EVENT_SERIAL) return;
    CHECK_INT(chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_GET_PARAMS, &params), 0);
    CHECK_INT(chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_GET_FLOW, &flow), 0);
    CHECK_INT(chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines), 0);
    snprintf(told + used, sizeof told - used, "%d %c %d %d %d %x\n", params.speed, params.parity, params.data_bits, params.stop_bits, flow,
             (unsigned)lines);
}

/* A replay returns the same settings, without a peer. */
TEST(recorded_and_played_again)
{
    static const char first[] = "115200 N 8 1 0 160\n4800 N 8 1 0 160\n4800 N 8 1 2 160\n4800 N 8 1 2 20\n";
    int               turn;
    char              options[200], file[200];
    chr_dev          *dev;
    line              l;
    snprintf(file, sizeof file, "%s", scratch("record"));
    for (turn = 0; turn < 2; turn++) {
        memset(&l, 0, sizeof l);
        rig_open_virtual(&l.r);
        REQUIRE((turn ? chr_replay_open : chr_record_start)(l.r.ctx, file, NULL) == 0);
        snprintf(options, sizeof options, "socket,id=t,path=%s,server=on,wait=off,telnet=on,com-port=on", scratch("s"));
        dev = make(&l.r, options);
        told[0] = 0;
        attach(&l.rec, dev);
        l.rec.then = note_settings;
        l.peer = -1;
        l.r.now += 1000000;
        if (turn == 0) connect_peer(&l);
        if (turn == 0) tell(&l, S(WILL_COM SUB("\x01\0\0\x12\xc0") SUB("\x05\x03") SUB("\x05\x09")));
        settle(&l.r);
        pass_time(&l.r, 1); /* a replay waits for calls of that moment until it is over */
        CHECK_STR(told, first);
        line_close(&l);
    }
    scratch_clean();
}
