/*
 * test_socket_options.c - invalid options of a socket, one by one: each with its code and its whole text, and that
 * values just inside the limits are accepted.
 */
#include "chardev.h"
#include "rig.h"

enum { MOST_OPTIONS = 20 };

/* Options behind "socket,id=s," that have the same answer, behind "socket: ". Nothing exists below /nowhere: options
 * that are in order get as far as that. */
static const struct {
    int         code;
    const char *text;
    const char *options[MOST_OPTIONS];
} answers[] = {
    { CHR_ERR_INVALID, "needs exactly one of path=, host=, cid= or fd=, given: none",
      { "",
        "server=on,wait=off" } },
    { CHR_ERR_INVALID, "needs exactly one of path=, host=, cid= or fd=, given: path= host=",
      { "path=/tmp/x,host=h,port=1" } },
    { CHR_ERR_INVALID, "needs exactly one of path=, host=, cid= or fd=, given: path= fd=",
      { "path=/tmp/x,fd=0" } },
    { CHR_ERR_INVALID, "needs exactly one of path=, host=, cid= or fd=, given: path= cid=",
      { "path=/tmp/x,cid=3,port=1" } },
    { CHR_ERR_INVALID, "needs exactly one of path=, host=, cid= or fd=, given: cid= fd=",
      { "cid=3,port=1,fd=0" } },
    { CHR_ERR_INVALID, "needs exactly one of path=, host=, cid= or fd=, given: fd= port=",
      { "fd=0,port=1" } },
    { CHR_ERR_INVALID, "needs exactly one of path=, host=, cid= or fd=, given: path= cid= fd= host=",
      { "host=h,port=1,fd=0,path=/x,cid=4" } },
    { CHR_ERR_INVALID, "host= needs port=",
      { "host=h" } },
    { CHR_ERR_INVALID, "cid= needs port=",
      { "cid=3",
        "cid=3,server=on,wait=off" } },
    { CHR_ERR_INVALID, "needs exactly one of path=, host=, cid= or fd=, given: path= port=",
      { "path=/tmp/x,port=5" } },
    { CHR_ERR_INVALID, "needs exactly one of path=, host=, cid= or fd=, given: fd= host=",
      { "fd=0,host=h" } },
    { CHR_ERR_INVALID, "port=-1: out of range, 0 to 65535",
      { "host=h,port=-1" } },
    { CHR_ERR_INVALID, "port=65536: out of range, 0 to 65535",
      { "host=h,port=65536",
        "host=h,port=65536,server=on,wait=off" } },
    { CHR_ERR_INVALID, "port=http: a vsock port is a number of 32 bits",
      { "cid=3,port=http" } },
    { CHR_ERR_INVALID, "port=-1: a vsock port is a number of 32 bits",
      { "cid=3,port=-1" } },
    { CHR_ERR_INVALID, "port=4294967296: a vsock port is a number of 32 bits",
      { "cid=3,port=4294967296" } },
    { CHR_ERR_INVALID, "to=5: goes with server=on, host= and a smaller port number",
      { "path=/tmp/x,server=on,wait=off,to=5",
        "host=h,port=1,to=5",
        "host=h,port=http,to=5,server=on,wait=off",
        "host=h,port=6,to=5,server=on,wait=off" } },
    { CHR_ERR_INVALID, "to=7: goes with server=on, host= and a smaller port number",
      { "cid=3,port=6,to=7,server=on,wait=off" } },
    { CHR_ERR_INVALID, "abstract=on goes with path= only",
      { "host=h,port=5,abstract=on",
        "cid=3,port=5,abstract=on" } },
    { CHR_ERR_INVALID, "ipv4= and ipv6= go with host= only",
      { "path=/x,ipv4=on",
        "path=/x,ipv4=off",
        "path=/x,ipv6=on",
        "cid=3,port=1,ipv6=off" } },
    { CHR_ERR_INVALID, "mode= goes with server=on and path= only, not with abstract=on",
      { "path=/x,mode=0600",
        "path=/x,server=on,wait=off,abstract=on,mode=0600",
        "host=h,port=1,server=on,wait=off,mode=0600" } },
    { CHR_ERR_INVALID, "group= goes with server=on and path= only, not with abstract=on",
      { "path=/x,group=0",
        "path=/x,server=on,wait=off,abstract=on,group=0",
        "host=h,port=1,server=on,wait=off,group=0" } },
    { CHR_ERR_INVALID, "ipv4= and ipv6= leave no address family",
      { "host=h,port=1,ipv4=off,ipv6=off",
        "host=h,port=1,ipv4=on,ipv6=on",
        "host=h,port=1,ipv4=off,ipv6=off,server=on,wait=off" } },
    { CHR_ERR_INVALID, "mode=: is not an octal number from 0 to 0777",
      { "path=/nowhere/x,server=on,wait=off,mode=" } },
    { CHR_ERR_INVALID, "mode=8: is not an octal number from 0 to 0777",
      { "path=/nowhere/x,server=on,wait=off,mode=8" } },
    { CHR_ERR_INVALID, "mode=/: is not an octal number from 0 to 0777",
      { "path=/nowhere/x,server=on,wait=off,mode=/" } },
    { CHR_ERR_INVALID, "mode=7x: is not an octal number from 0 to 0777",
      { "path=/nowhere/x,server=on,wait=off,mode=7x" } },
    { CHR_ERR_INVALID, "mode=1000: is not an octal number from 0 to 0777",
      { "path=/nowhere/x,server=on,wait=off,mode=1000" } },
    { CHR_ERR_INVALID, "mode=00000000000000000000007777: is not an octal number from 0 to 0777",
      { "path=/nowhere/x,server=on,wait=off,mode=00000000000000000000007777" } },
    { CHR_ERR_NOT_FOUND, "cannot listen on /nowhere/x: No such file or directory",
      { "path=/nowhere/x,server=on,wait=off,mode=777",
        "path=/nowhere/x,server=on,wait=off,group=4294967294",
        "path=/nowhere/x,server=on,wait=off",
        "path=/nowhere/x,server=on,wait=off,websocket=on,ws-path=*",
        "path=/nowhere/x,server=on,wait=off,websocket=on,ws-origin=*,ws-path=/!",
        "path=/nowhere/x,server=on,wait=off,clients=1,replace=on",
        "path=/nowhere/x,server=on,wait=off,clients=64" } },
    { CHR_ERR_INVALID, "group=-1: out of range, 0 to 4294967294",
      { "path=/nowhere/x,server=on,wait=off,group=-1" } },
    { CHR_ERR_INVALID, "group=4294967295: out of range, 0 to 4294967294",
      { "path=/nowhere/x,server=on,wait=off,group=4294967295" } },
    { CHR_ERR_NOT_FOUND, "group=no such group: there is no such group",
      { "path=/nowhere/x,server=on,wait=off,group=no such group" } },
    { CHR_ERR_INVALID, "only one of telnet=, tn3270= and websocket= can be on",
      { "path=/nowhere/x,telnet=on,tn3270=on",
        "path=/nowhere/x,telnet=on,websocket=on",
        "path=/nowhere/x,tn3270=on,websocket=on" } },
    { CHR_ERR_INVALID, "tls-authz= and tls-hostname= go with tls-creds= only",
      { "path=/nowhere/x,tls-authz=a",
        "path=/nowhere/x,tls-hostname=a" } },
    { CHR_ERR_INVALID, "reconnect= and reconnect-ms= can't both be given",
      { "path=/nowhere/x,reconnect=1,reconnect-ms=5" } },
    { CHR_ERR_INVALID, "reconnect= is for a client, not with server=on",
      { "path=/nowhere/x,server=on,wait=off,reconnect=1",
        "path=/nowhere/x,server=on,wait=off,reconnect-ms=1" } },
    { CHR_ERR_INVALID, "reconnect= can't be used with fd=: there is no address to connect to again",
      { "fd=0,reconnect=1",
        "fd=0,reconnect-ms=1" } },
    { CHR_ERR_INVALID, "wait= is for a server: it needs server=on",
      { "path=/nowhere/x,wait=on",
        "path=/nowhere/x,wait=off" } },
    { CHR_ERR_INVALID, "nodelay= and delay= can't both be given: one is the opposite of the other",
      { "host=h,port=1,nodelay=on,delay=on",
        "host=h,port=1,nodelay=off,delay=off" } },
    { CHR_ERR_INVALID, "clients= is for a server: it needs server=on",
      { "path=/nowhere/x,clients=2" } },
    { CHR_ERR_INVALID, "clients=2 can't be used with com-port=on: a serial line has one end",
      { "path=/nowhere/x,server=on,wait=off,clients=2,telnet=on,com-port=on" } },
    { CHR_ERR_INVALID, "clients=2 and replace=on can't both be given",
      { "path=/nowhere/x,server=on,wait=off,clients=2,replace=on" } },
    { CHR_ERR_INVALID, "replace= is for a server: it needs server=on",
      { "path=/nowhere/x,replace=on" } },
    { CHR_ERR_INVALID, "keep-alive-idle=, keep-alive-interval= and keep-alive-count= need keep-alive=on",
      { "host=127.0.0.1,port=1,keep-alive-idle=1",
        "host=127.0.0.1,port=1,keep-alive-interval=1",
        "host=127.0.0.1,port=1,keep-alive-count=1" } },
    { CHR_ERR_INVALID, "keep-alive=on is for TCP and for websocket=on only",
      { "path=/nowhere/x,keep-alive=on",
        "cid=3,port=1,keep-alive=on",
        "path=/nowhere/x,telnet=on,keep-alive=on" } },
    { CHR_ERR_INVALID, "com-port=on goes with telnet=on only",
      { "host=127.0.0.1,port=1,com-port=on",
        "host=127.0.0.1,port=1,tn3270=on,com-port=on" } },
    { CHR_ERR_INVALID, "terminal-type=x: goes with telnet=on or tn3270=on on a client, up to 40 characters and no blanks",
      { "host=127.0.0.1,port=1,terminal-type=x",
        "host=127.0.0.1,port=1,server=on,wait=off,telnet=on,terminal-type=x" } },
    { CHR_ERR_INVALID, "terminal-type=: goes with telnet=on or tn3270=on on a client, up to 40 characters and no blanks",
      { "host=127.0.0.1,port=1,telnet=on,terminal-type=" } },
    { CHR_ERR_INVALID, "terminal-type=a b: goes with telnet=on or tn3270=on on a client, up to 40 characters and no blanks",
      { "host=127.0.0.1,port=1,telnet=on,terminal-type=a b" } },
    { CHR_ERR_INVALID, "terminal-type=01234567890123456789012345678901234567890: goes with telnet=on or tn3270=on on a client, up to 40 characters and no blanks",
      { "host=127.0.0.1,port=1,telnet=on,terminal-type=01234567890123456789012345678901234567890" } },
    { CHR_ERR_INVALID, "websocket-text= goes with websocket=on only",
      { "host=127.0.0.1,port=1,websocket-text=on" } },
    { CHR_ERR_INVALID, "ws-path=, ws-origin= and ws-page= go with websocket=on only",
      { "host=127.0.0.1,port=1,ws-path=/x",
        "host=127.0.0.1,port=1,ws-origin=x",
        "host=127.0.0.1,port=1,ws-page=x" } },
    { CHR_ERR_INVALID, "ws-origin= and ws-page= are for a server: they need server=on",
      { "host=127.0.0.1,port=1,websocket=on,ws-page=x",
        "host=127.0.0.1,port=1,websocket=on,ws-origin=x" } },
    { CHR_ERR_INVALID, "ws-path=x: it begins with '/', and is printable ASCII without blanks",
      { "host=127.0.0.1,port=1,websocket=on,ws-path=x",
        "path=/nowhere/x,server=on,wait=off,websocket=on,ws-path=x" } },
    { CHR_ERR_INVALID, "ws-path=/a b: it begins with '/', and is printable ASCII without blanks",
      { "host=127.0.0.1,port=1,websocket=on,ws-path=/a b" } },
    { CHR_ERR_NOT_FOUND, "cannot open /nowhere/page: No such file or directory",
      { "host=127.0.0.1,port=1,websocket=on,server=on,wait=off,ws-page=/nowhere/page" } },
    { CHR_ERR_NOT_FOUND, "cannot connect to /nowhere/x: No such file or directory",
      { "path=/nowhere/x",
        "path=/nowhere/x,websocket=on,ws-path=/~",
        "path=/nowhere/x,telnet=on,terminal-type=0123456789012345678901234567890123456789",
        "path=/nowhere/x,tn3270=on,terminal-type=!~",
        "path=/nowhere/x,telnet=on,com-port=on",
        "path=/nowhere/x,reconnect=0",
        "path=/nowhere/x,websocket=on,keep-alive=on,keep-alive-idle=1,keep-alive-interval=1,keep-alive-count=1" } },
    { CHR_ERR_INVALID, "half-close=on can't be used with websocket=on: its Close frame ends both directions",
      { "host=127.0.0.1,port=1,websocket=on,half-close=on" } },
    { CHR_ERR_INVALID, "ws-path=: it begins with '/', and is printable ASCII without blanks",
      { "host=127.0.0.1,port=1,websocket=on,ws-path=" } },
    { CHR_ERR_INVALID, "ws-path=*: it begins with '/', and is printable ASCII without blanks",
      { "host=127.0.0.1,port=1,websocket=on,ws-path=*" } },
    { CHR_ERR_INVALID, "clients=65: out of range, 1 to 64 (server: number of peers at once; output goes to all, input comes from any)",
      { "path=/nowhere/x,server=on,wait=off,clients=65" } },
    { CHR_ERR_INVALID, "clients=0: out of range, 1 to 64 (server: number of peers at once; output goes to all, input comes from any)",
      { "path=/nowhere/x,server=on,wait=off,clients=0" } },
    { CHR_ERR_INVALID, "keep-alive-idle=32768: out of range, 0 to 32767 (seconds of silence before the first probe (default: the system's; websocket 30))",
      { "path=/nowhere/x,keep-alive-idle=32768" } },
    { CHR_ERR_INVALID, "keep-alive-interval=32768: out of range, 0 to 32767 (seconds between probes (default: the system's; websocket 10))",
      { "path=/nowhere/x,keep-alive-interval=32768" } },
    { CHR_ERR_INVALID, "keep-alive-count=128: out of range, 0 to 127 (unanswered probes that end it (default: the system's; websocket 3))",
      { "path=/nowhere/x,keep-alive-count=128" } },
    { CHR_ERR_INVALID, "idle-timeout=2000001: out of range, 0 to 2000000 (seconds without input until a peer is disconnected)",
      { "path=/nowhere/x,idle-timeout=2000001" } },
    { CHR_ERR_INVALID, "reconnect=2000001: out of range, 0 to 2000000 (client: seconds between attempts to connect)",
      { "path=/nowhere/x,reconnect=2000001" } },
    { CHR_ERR_INVALID, "reconnect-ms=2000000001: out of range, 0 to 2000000000 (client: milliseconds between attempts to connect)",
      { "path=/nowhere/x,reconnect-ms=2000000001" } },
    { CHR_ERR_INVALID, "cid=4294967296: out of range, 0 to 4294967295 (vsock context id)",
      { "cid=4294967296,port=1" } },
    { CHR_ERR_INVALID, "to=65536: out of range, 0 to 65535 (server: try all ports up to this one)",
      { "host=h,port=1,server=on,wait=off,to=65536" } },
    { CHR_ERR_INVALID, "ws-path=/a\177: it begins with '/', and is printable ASCII without blanks",
      { "path=/nowhere/x,websocket=on,ws-path=/a\177" } },
};

/* What Windows has nothing of is refused for that, and there is no /nowhere. */
static int is_tried_here(const char *options)
{
#ifdef _WIN32
    return !strstr(options, "path=") && !strstr(options, "page=") && !strstr(options, "group=") && !strstr(options, "mode=");
#else
    return (void)options, 1;
#endif
}

TEST(each_refusal_has_its_text)
{
    char      options[200];
    size_t    i, j;
    chr_error err;
    rig       r;
    rig_open(&r);
    for (i = 0; i < sizeof answers / sizeof *answers; i++)
        for (j = 0; j < MOST_OPTIONS && answers[i].options[j]; j++) {
            if (!is_tried_here(answers[i].options[j])) continue;
            snprintf(options, sizeof options, "socket,id=s%s%s", answers[i].options[j][0] ? "," : "", answers[i].options[j]);
            if (!CHECK_INT(refuse(&r, options, &err), answers[i].code) || !CHECK(strncmp(err.text, "socket: ", 8) == 0) ||
                !CHECK_STR(err.text + 8, answers[i].text))
                NOTE("for %s", options);
        }
    rig_close(&r);
}

/* A struct sets its address type itself, and may have members that don't belong to that type. */
TEST(a_struct_that_has_too_much)
{
    chr_socket_options options;
    chr_error          err;
    rig                r;
    int                i;
    rig_open(&r);
    for (i = 0; i < 2; i++) {
        memset(&options, 0, sizeof options);
        options.address.type = i ? CHR_ADDR_FD : CHR_ADDR_UNIX;
        options.address.path = "/nowhere/x";
        options.address.fd = -1;
        options.address.port = "17";
        CHECK(!chr_open(r.ctx, "s", chr_backend_find(r.ctx, "socket"), &options, &err));
        CHECK_INT(err.code, CHR_ERR_INVALID);
        CHECK_STR(err.text, "socket: port=17 goes with host= or cid= only");
    }
    rig_close(&r);
}

/* Ports of a vsock have 32 bits, and those of the internet 16. */
TEST(the_last_port)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    CHECK(refuse(&r, "socket,id=s,cid=3,port=4294967295", &err) < 0);
    CHECK(!strstr(err.text, "32 bits"));
    CHECK(refuse(&r, "socket,id=s,cid=3,port=0", &err) < 0);
    CHECK(!strstr(err.text, "32 bits"));
    CHECK(refuse(&r, "socket,id=s,host=127.0.0.1,port=65535,ipv6=on", &err) < 0);
    CHECK(!strstr(err.text, "range"));
    CHECK(refuse(&r, "socket,id=s,host=192.0.2.1,port=7,to=7,server=on,wait=off", &err) < 0);
    CHECK(!strstr(err.text, "to="));
    rig_close(&r);
}
