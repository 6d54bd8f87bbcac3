/* Corners of the layers on a socket: telnet, RFC 2217 and websocket where writes are short, memory is out, or sizes are just so. */
#include "chardev.h"
#include "fault.h"
#include "private.h"
#include "telnet_line.h"

#include <netinet/tcp.h>

#define SUB(bytes) "\xff\xfa\x2c" bytes "\xff\xf0"
#define IS(l, text) CHECK_HEARD(l, text, sizeof(text) - 1)

static int ioctl_int(line *l, int command, int value) { return chr_fe_ioctl(&l->rec.fe, command, &value); }

static void tell(line *l, const char *bytes, size_t len)
{
    say_bytes(l, bytes, len);
    settle(&l->r);
}

/* A client or server whose peer has agreed to RFC 2217, and whose first words were heard. */
static void com_open(line *l, int is_server)
{
    line_open(l, "telnet=on,com-port", is_server);
    tell(l, is_server ? "\xff\xfb\x2c" : "\xff\xfd\x2c", 3);
    listen_in(l);
    CHECK_STR(l->rec.events, "OS");
}

/* While nothing can be sent the descriptor is ready all the time. */
static void a_few_steps(rig *r)
{
    int i;
    for (i = 0; i < 5; i++) chr_loop_step(r->ctx, 0);
}

/* ---- telnet ---------------------------------------------------------------------------------------------------------------- */

/* What an ioctl has to say and can't at once goes from the loop. */
TEST(a_break_that_would_block_is_sent_from_the_loop)
{
    line l;
    int  is_server;
    NEED_POSIX("there are no faults of system calls on this system");
    for (is_server = 0; is_server < 2; is_server++) {
        line_open(&l, "telnet", is_server);
        fault_arm(FAULT_send, EAGAIN, 1, 0);
        CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_BREAK, 1), 0);
        CHECK(fault_plan.fired > 0);
        fault_disarm();
        settle(&l.r);
        IS(&l, "\xff\xf3");
        CHECK_INT(chr_fe_write(&l.rec.fe, "x", 1), 1);
        IS(&l, "x");
        line_close(&l);
    }
}

/* Without memory for its output a layer takes nothing; nothing is lost, and it goes on when there is some. */
TEST(telnet_output_without_memory)
{
    enum { MANY = 8 };
    rig      r;
    recorder rec[MANY];
    int      far[MANY], i, n, blocked = 0;
    NEED_POSIX("there are no faults of system calls on this system");
    rig_open_virtual(&r);
    for (i = 0; i < MANY; i++) {
        char options[100];
        int  fds[2];
        socket_pair(fds);
        far[i] = fds[0];
        snprintf(options, sizeof options, "socket,id=t%d,fd=%d,%s=on", i, fds[1], i % 2 ? "telnet" : "websocket");
        if (i % 2 == 0) snprintf(options, sizeof options, "socket,id=t%d,fd=%d,telnet=on", i, fds[1]);
        attach(&rec[i], make(&r, options));
    }
    settle(&r);
    for (i = 0; i < MANY; i++) hear(far[i]);
    fault_arm(FAULT_send, EAGAIN, 1, 1);
    r.fail_at = r.calls + 1;
    r.for_good = 1;
    for (i = 0; i < MANY; i++) {
        n = chr_fe_write(&rec[i].fe, "hello", 5);
        if (n < 0) CHECK_INT(n, CHR_ERR_WOULD_BLOCK);
        else CHECK_INT(n, 5);
        if (n < 0) blocked |= 1 << i;
    }
    CHECK(blocked != 0); /* the spare ones were not enough for all */
    fault_disarm();
    r.fail_at = 0;
    settle(&r);
    for (i = 0; i < MANY; i++) {
        if (blocked & 1 << i) CHECK_INT(chr_fe_write(&rec[i].fe, "hello", 5), 5);
        CHECK_STR(hear(far[i]), "hello");
        CHECK_STR(rec[i].events, "O");
        detach(&rec[i]);
        close(far[i]);
    }
    rig_close(&r);
}

/* ---- RFC 2217 ---------------------------------------------------------------------------------------------------------------- */

/* Inbound flow control that is another goes to each server when it has agreed. */
TEST(split_flow_control_is_asked_for_at_the_beginning)
{
    static const struct { int flow; const char *first; const char *second; } cases[] = {
        { CHR_FLOW_SPLIT(CHR_FLOW_RTSCTS, CHR_FLOW_XONXOFF), SUB("\x05\x03"), SUB("\x05\x0f") },
        { CHR_FLOW_SPLIT(CHR_FLOW_NONE, CHR_FLOW_RTSCTS), SUB("\x05\x01"), SUB("\x05\x10") },
        { CHR_FLOW_SPLIT(CHR_FLOW_XONXOFF, CHR_FLOW_XONXOFF), SUB("\x05\x02"), "" },
        { CHR_FLOW_NONE, SUB("\x05\x01"), "" },
        { -1, SUB("\x05\0"), "" },
    };
    size_t i;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        char   want[200];
        size_t len = i == 4 ? 7 : strlen(cases[i].first);
        line   l;
        line_open(&l, "telnet=on,com-port", 0);
        if (cases[i].flow >= 0) CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, cases[i].flow), 0);
        tell(&l, "\xff\xfd\x2c", 3);
        listen_in(&l);
        memcpy(want, cases[i].first, len);
        memcpy(want + len, cases[i].second, strlen(cases[i].second));
        len += strlen(cases[i].second);
        CHECK(hear_length >= (int)len);
        CHECK_MEM(hear_text + hear_length - (int)len, len, want, len);
        line_close(&l);
    }
}

/* A client asks which inbound flow control its server has when it has set none. */
TEST(flow_control_that_is_back_to_one)
{
    line l;
    com_open(&l, 0);
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, CHR_FLOW_SPLIT(CHR_FLOW_RTSCTS, CHR_FLOW_NONE)), 0);
    IS(&l, SUB("\x05\x03") SUB("\x05\x0e"));
    CHECK_INT(ioctl_int(&l, CHR_IOCTL_SERIAL_SET_FLOW, CHR_FLOW_RTSCTS), 0);
    IS(&l, SUB("\x05\x03") SUB("\x05\x10"));
    line_close(&l);
}

/* Events that come together are all told: a line error and a break beside a change of the modem lines, in any order. */
TEST(events_that_come_together_are_all_told)
{
    static const struct { const char *wire; size_t len; } cases[] = {
        { S(SUB("\x6a\x02") SUB("\x6a\x10") SUB("\x6b\x10")) }, { S(SUB("\x6b\x10") SUB("\x6a\x12")) }, { S(SUB("\x6a\x12") SUB("\x69\x02")) },
        { S(SUB("\x66\x07") SUB("\x6a\x12")) }, { S(SUB("\x6a\x12") SUB("\x66\x07")) },
    };
    size_t i;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        line l;
        com_open(&l, 0);
        l.rec.room = 0;
        tell(&l, cases[i].wire, cases[i].len);
        give_room(&l.rec, UNLIMITED);
        settle(&l.r);
        CHECK_INT(strlen(l.rec.events), 5);
        CHECK(strchr(l.rec.events, 'B') && strchr(l.rec.events, 'L') && strrchr(l.rec.events, 'S') > l.rec.events + 1);
        line_close(&l);
    }
}

TEST(a_servers_events_that_come_together_are_all_told)
{
    line l;
    com_open(&l, 1);
    tell(&l, S(SUB("\x05\x05") SUB("\x0c\x03") SUB("\x02\x07") SUB("\x05\x09") SUB("\x05\x08")));
    CHECK(strchr(l.rec.events, 'B') && strchr(l.rec.events, 'P') && strchr(l.rec.events, 'Q') && strrchr(l.rec.events, 'S') > l.rec.events + 1);
    line_close(&l);
    com_open(&l, 1);
    tell(&l, S(SUB("\x0c\x03") SUB("\x05\x05")));
    CHECK(strchr(l.rec.events, 'B') && strchr(l.rec.events, 'P') && strchr(l.rec.events, 'Q'));
    line_close(&l);
}

/* ---- websocket ---------------------------------------------------------------------------------------------------------------- */

#define WS_REQUEST                                                                                                                        \
    "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"              \
    "Sec-WebSocket-Version: 13\r\n\r\n"

/* SHA-1 of so many letters 'a': one block holds 55 bytes with their padding, two hold 119. */
TEST(digests_of_one_and_two_blocks)
{
    static const struct { size_t len; const char *digest; } cases[] = {
        { 0, "da39a3ee5e6b4b0d3255bfef95601890afd80709" },   { 1, "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8" },
        { 54, "b05d71c64979cb95fa74a33cdb31a40d258ae02e" },  { 55, "c1c8bbdc22796e28c0e15163d20899b65621d65a" },
        { 56, "c2db330f6083854c99d4b5bfb6e8f29f201be699" },  { 57, "f08f24908d682555111be7ff6f004e78283d989a" },
        { 63, "03f09f5b158a7a8cdad920bddc29b81c18a551f5" },  { 64, "0098ba824b5c16427bd7a1122a5a442a25ec644d" },
        { 65, "11655326c708d70319be2610e8a57d9a5b959d3b" },  { 118, "d0572de8e494e0b7b8e50302003fc4ae0596ef4d" },
        { 119, "ee971065aaa017e0632a8ca6c77bb3bf8b1dfc56" },
    };
    unsigned char digest[20];
    char          text[119], hex[41];
    size_t        i, k;
    memset(text, 'a', sizeof text);
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        private_sha1(text, cases[i].len, digest);
        for (k = 0; k < 20; k++) snprintf(hex + 2 * k, 3, "%02x", digest[k]);
        CHECK_STR(hex, cases[i].digest);
    }
}

/* A client of port= alone asks for this host, with the port; with cid= there is no port of TCP's. */
TEST(a_client_of_a_port_alone_asks_for_it)
{
    static const struct { const char *host; const char *asked; } cases[] = { { "", "localhost:" }, { "host=,", "localhost:" }, { "host=127.0.0.1,", "127.0.0.1:" } };
    size_t i;
    NEED_LOCALHOST();
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        int      port, listener = tcp_listen(&port), far;
        char     text[200], want[100];
        recorder rec;
        rig      r;
        rig_open(&r);
        snprintf(text, sizeof text, "socket,id=w,%sport=%d,ipv4=on,websocket=on,reconnect-ms=100000", cases[i].host, port);
        attach(&rec, make(&r, text));
        fcntl(listener, F_SETFL, O_NONBLOCK);
        for (far = -1; far < 0;) chr_loop_step(r.ctx, 10), far = accept(listener, NULL, NULL);
        snprintf(want, sizeof want, "\r\nHost: %s%d\r\n", cases[i].asked, port);
        text[0] = 0;
        while (!strstr(text, "\r\n\r\n")) {
            static char head[2000];
            size_t      used = strlen(head);
            ssize_t     n;
            chr_loop_step(r.ctx, 10);
            fcntl(far, F_SETFL, O_NONBLOCK);
            n = read(far, head + used, sizeof head - 1 - used);
            head[n > 0 ? used + (size_t)n : used] = 0;
            if (!strstr(head, "\r\n\r\n")) continue;
            CHECK_HAS(head, want);
            head[0] = 0;
            break;
        }
        close(far);
        close(listener);
        detach(&rec);
        chr_context_free(r.ctx);
        CHECK_INT(r.live, 0);
    }
}

/* Frames, with or without a mask, one after the other to the end: the payload of the last Pong, and how much data there is. */
static int read_frames(const char *wire, size_t len, char *pong, size_t *data)
{
    const unsigned char *w = (const unsigned char *)wire;
    size_t               at = 0, size, i;
    *data = 0;
    while (at + 2 <= len) {
        int                  opcode = w[at], masked = w[at + 1] & 0x80;
        const unsigned char *mask;
        size = w[at + 1] & 0x7fu;
        at += 2;
        if (size == 126) size = (size_t)w[at] << 8 | w[at + 1], at += 2;
        mask = w + at;
        if (masked) at += 4;
        if (at + size > len || (opcode != 0x82 && opcode != 0x8a && opcode != 0x88)) return 0;
        if (opcode == 0x82) *data += size;
        for (i = 0; opcode == 0x8a && i < size; i++) pong[i] = (char)(w[at + i] ^ (masked ? mask[i & 3] : 0));
        if (opcode == 0x8a) pong[size] = 0;
        at += size;
    }
    return at == len;
}

/* Pongs go into what is left of the output buffer, each whole or not yet: also where it is full but for as much as one needs, or a byte less. */
TEST(pongs_at_the_end_of_a_full_buffer)
{
    static char block[200000], wire[1000000];
    int         is_client, size, k;
    NEED_LITTLE_ROOM();
    for (is_client = 0; is_client < 2; is_client++)
        for (size = 80; size < 126; size++) {
            char     text[100], last[126] = "", pong[130] = "";
            unsigned char frame[140];
            size_t   taken = 0, len = 0, data = 0;
            recorder rec;
            int      fds[2], n;
            rig      r;
            chr_error err;
            rig_open_virtual(&r);
            socket_pair(fds);
            if (is_client) snprintf(text, sizeof text, "socket,id=w,fd=%d,websocket=on", fds[1]);
            else snprintf(text, sizeof text, "socket,id=w,path=%s,server=on,wait=off,websocket=on", scratch("w"));
            attach(&rec, make(&r, text));
            if (!is_client) {
                CHECK_INT(chr_add_client(r.ctx, "w", fds[1], &err), 0);
                say(fds[0], WS_REQUEST);
                settle(&r);
                hear(fds[0]);
            } else {
                char        proof[29], key[25];
                const char *head = hear(fds[0]), *at = strstr(head, "Sec-WebSocket-Key: ");
                REQUIRE(at != NULL);
                snprintf(key, sizeof key, "%s", at + 19);
                private_ws_proof(key, proof);
                snprintf(block, sizeof block, "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", proof);
                say(fds[0], block);
                settle(&r);
            }
            CHECK_STR(rec.events, "O");
            fault_arm(FAULT_send, EAGAIN, 1, 1);
            while ((n = chr_fe_write(&rec.fe, block, sizeof block)) > 0) taken += (size_t)n;
            for (k = 0; k < 12; k++) { /* seven of 125 bytes, and then of the size */
                size_t count = k < 7 ? 125 : (size_t)size, i, head = 2;
                for (i = 0; i < count; i++) last[i] = (char)('a' + (k + (int)i) % 26);
                last[count] = 0;
                frame[0] = 0x89;
                frame[1] = (unsigned char)(count | (is_client ? 0 : 0x80));
                if (!is_client) memset(frame + 2, 0, 4), head = 6;
                memcpy(frame + head, last, count);
                CHECK_INT(write(fds[0], frame, head + count), head + count);
                a_few_steps(&r);
            }
            fault_disarm();
            for (k = 0; k < 20; k++) {
                ssize_t got = recv(fds[0], wire + len, sizeof wire - len, MSG_DONTWAIT);
                if (got > 0) len += (size_t)got;
                settle(&r);
            }
            if (!CHECK(read_frames(wire, len, pong, &data)) || !CHECK_STR(pong, last) || !CHECK_INT(data, taken)) NOTE("with pings of %d, client %d", size, is_client);
            CHECK_STR(rec.events, "O");
            close(fds[0]);
            detach(&rec);
            rig_close(&r);
            unlink(scratch("w"));
        }
    scratch_clean();
}

/* A Close frame that would block goes with the output before it; until then the connection stays. */
TEST(a_close_frame_that_would_block)
{
    int how;
    NEED_POSIX("there are no faults of system calls on this system");
    for (how = 0; how < 2; how++) {
        recorder  rec;
        int       fds[2];
        chr_error err;
        rig       r;
        char      text[200];
        rig_open_virtual(&r);
        socket_pair(fds);
        snprintf(text, sizeof text, "socket,id=w,path=%s,server=on,wait=off,websocket=on", scratch("w"));
        attach(&rec, make(&r, text));
        CHECK_INT(chr_add_client(r.ctx, "w", fds[1], &err), 0);
        say(fds[0], WS_REQUEST);
        settle(&r);
        hear(fds[0]);
        fault_arm(FAULT_send, EAGAIN, 1, 1);
        CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
        if (how) CHECK_INT(chr_fe_shutdown(&rec.fe), 0);
        else CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
        a_few_steps(&r);
        CHECK_STR(hear(fds[0]), "");
        fault_disarm();
        settle(&r);
        CHECK_MEM(hear(fds[0]), 7, "\x82\1x\x88\2\3\xe8", 7);
        if (how) {
            CHECK_INT(chr_fe_write(&rec.fe, "y", 1), CHR_ERR_DISCONNECTED);
            CHECK_INT(write(fds[0], "\x82\x81\0\0\0\0z", 7), 7); /* its peer may still speak */
            settle(&r);
            CHECK_INPUT(&rec, "z");
        }
        CHECK_INT(write(fds[0], "\x88\x82\0\0\0\0\3\xe8", 8), 8);
        settle(&r);
        CHECK_STR(rec.events, "OC");
        CHECK_STR(hear(fds[0]), "(eof)");
        close(fds[0]);
        detach(&rec);
        rig_close(&r);
        scratch_clean();
    }
}

/* It is open when the request is complete and answered, and not before; a Close frame is answered by one with its code, or by one without. */
TEST(the_beginning_and_the_end_of_a_websocket)
{
    static const struct { const char *says; size_t len; const char *hears; size_t heard; } cases[] = {
        { "\x88\x80\0\0\0\0", 6, "\x88\0", 2 }, { "\x88\x82\0\0\0\0\x03\xe9", 8, "\x88\2\3\xe9", 4 }, { "\x88\x81\0\0\0\0\x03", 7, "\x88\2\3\xea", 4 },
        { "\x88\x84\0\0\0\0\x03\xe8ok", 10, "\x88\2\3\xe8", 4 }, { "\x88\x83\0\0\0\0\x03\xe8\xff", 9, "\x88\2\3\xef", 4 },
    };
    static const char request[] = WS_REQUEST;
    size_t            i, at;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        recorder  rec;
        int       fds[2];
        chr_error err;
        rig       r;
        char      text[200];
        rig_open_virtual(&r);
        socket_pair(fds);
        snprintf(text, sizeof text, "socket,id=w,path=%s,server=on,wait=off,websocket=on", scratch("w"));
        attach(&rec, make(&r, text));
        CHECK_INT(chr_add_client(r.ctx, "w", fds[1], &err), 0);
        for (at = 0; at < sizeof request - 1; at += 20) {
            settle(&r);
            CHECK_STR(rec.events, "");
            CHECK_STR(hear(fds[0]), "");
            say(fds[0], (snprintf(text, sizeof text, "%.20s", request + at), text));
        }
        settle(&r);
        CHECK_STR(rec.events, "O");
        CHECK(strncmp(hear(fds[0]), "HTTP/1.1 101 ", 13) == 0);
        CHECK_INT(write(fds[0], cases[i].says, cases[i].len), cases[i].len);
        settle(&r);
        {
            char heard[20];
            CHECK_INT(recv(fds[0], heard, sizeof heard, 0), cases[i].heard);
            CHECK_MEM(heard, cases[i].heard, cases[i].hears, cases[i].heard);
        }
        CHECK_STR(rec.events, "OC");
        close(fds[0]);
        detach(&rec);
        rig_close(&r);
        scratch_clean();
    }
}
