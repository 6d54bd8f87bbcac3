/* A build whose sockets have no telnet and no websocket: options for these are rejected by name, the rest works. */
#define CHARDEV_NO_TELNET
#define CHARDEV_NO_WEBSOCKET
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include "rig.h"

static void refused(rig *r, const char *options, const char *text)
{
    chr_error err;
    if (!CHECK_INT(refuse(r, options, &err), CHR_ERR_NOT_SUPPORTED) || !CHECK_STR(err.text, text)) NOTE("for %s", options);
}

TEST(options_of_absent_layers)
{
    static const struct {
        const char *options, *text;
    } table[] = {
        { "telnet=on", "telnet=on: built without telnet" },
        { "telnet=on,com-port=on", "telnet=on: built without telnet" },
        { "com-port=on", "com-port=on: built without telnet" },
        { "terminal-type=xterm", "terminal-type=: built without telnet" },
        { "tn3270=on", "tn3270=on: built without telnet" },
        { "websocket=on", "websocket=on: built without websocket" },
        { "websocket=on,half-close=on", "websocket=on: built without websocket" },
        { "websocket=on,keep-alive=on", "websocket=on: built without websocket" },
        { "websocket-text=on", "websocket-text=on: built without websocket" },
        { "ws-path=/x", "ws-path=: built without websocket" },
        { "ws-origin=x", "ws-origin=: built without websocket" },
        { "ws-page=/nowhere", "ws-page=: built without websocket" },
    };
    char   options[200], text[200];
    size_t i;
    rig    r;
    rig_open(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        snprintf(options, sizeof options, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off,%s", table[i].options);
        snprintf(text, sizeof text, "socket: %s", table[i].text);
        refused(&r, options, text);
    }
    rig_close(&r);
}

TEST(typed_options_of_absent_layers)
{
    chr_socket_options options;
    chr_error          err;
    int                i;
    rig                r;
    rig_open(&r);
    for (i = 0; i < 4; i++) {
        memset(&options, 0, sizeof options);
        options.address.type = CHR_ADDR_INET;
        options.address.host = "127.0.0.1";
        options.address.port = "0";
        options.server = CHR_ON;
        options.wait = CHR_OFF;
        *(i == 0 ? &options.telnet : i == 1 ? &options.tn3270 : i == 2 ? &options.websocket : &options.com_port) = CHR_ON;
        CHECK(chr_open(r.ctx, "s", chr_backend_find(r.ctx, "socket"), &options, &err) == NULL);
        CHECK_INT(err.code, CHR_ERR_NOT_SUPPORTED);
        CHECK_HAS(err.text, i == 2 ? "built without websocket" : "built without telnet");
    }
    rig_close(&r);
}

TEST(uris_of_absent_layers)
{
    static const char *const uris[] = { "telnet:127.0.0.1:1", "telnet::1,server=on,wait=off", "tn3270:h:1", "websocket::1", "websocket:[::1]:1" };
    char      text[200];
    size_t    i;
    chr_error err;
    rig       r;
    rig_open(&r);
    for (i = 0; i < sizeof uris / sizeof *uris; i++) {
        snprintf(text, sizeof text, "%s: built without %s", uris[i], *uris[i] == 't' ? "telnet" : "websocket");
        CHECK(chr_new_uri(r.ctx, "s", uris[i], &err) == NULL);
        CHECK_INT(err.code, CHR_ERR_NOT_SUPPORTED);
        CHECK_STR(err.text, text);
        CHECK(chr_new_any(r.ctx, "s", uris[i], &err) == NULL);
        CHECK_STR(err.text, text);
    }
    CHECK(chr_new(r.ctx, "telnet,id=s", &err) == NULL); /* never was the name of a backend */
    CHECK_INT(err.code, CHR_ERR_NOT_FOUND);
    CHECK(chr_new_uri(r.ctx, "s", "telnets:h:1", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_NOT_FOUND);
    rig_close(&r);
}

static void count_absent(void *opaque, const char *line)
{
    int *counts = (int *)opaque;
    counts[0] += strstr(line, "built without telnet") != NULL;
    counts[1] += strstr(line, "built without websocket") != NULL;
}

TEST(help_names_absent_layers)
{
    int counts[2] = { 0, 0 };
    rig r;
    rig_open(&r);
    CHECK_INT(chr_help(r.ctx, "socket", count_absent, counts), 0);
    CHECK_INT(counts[0], 4);
    CHECK_INT(counts[1], 5);
    rig_close(&r);
}

/* telnet=off and its like are no wish: bytes pass as they are, and there is no line to set, connected or not. */
TEST(a_plain_socket_goes_on)
{
    chr_serial_params params = { 9600, 'N', 8, 1 };
    chr_terminal_size size = { 80, 24 };
    char              options[100];
    recorder          rec;
    rig               r;
    int               fds[2];
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d,telnet=off,websocket=off,com-port=off", fds[0]);
    attach(&rec, make(&r, options));
    say(fds[1], "\xff\xfb\x01");
    settle(&r);
    CHECK_INT((int)rec.length, 3);
    CHECK_INT(chr_fe_write(&rec.fe, "\xffy", 2), 2);
    CHECK_STR(hear(fds[1]), "\xffy");
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SET_TERMINAL_SIZE, &size), CHR_ERR_NOT_SUPPORTED);
    close(fds[1]);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SET_TERMINAL_SIZE, &size), CHR_ERR_NOT_SUPPORTED);
    detach(&rec);
    rig_close(&r);
}
