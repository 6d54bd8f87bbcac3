/*
 * The trace hook: each event of the table is caused by a real operation, with its arguments. Events of spice are in
 * test_spice.c.
 */
#include "chardev.h"
#include "rig.h"

#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/resource.h>

/* ---- what was traced --------------------------------------------------------------------------------------------- */

static char   lines[1 << 18]; /* "id name ..." each, without their time */
static size_t lines_length;
static int    seen[CHR_TRACE_COUNT], seen_ever[CHR_TRACE_COUNT];
static int    hook_calls;

/* How many numbers an event carries, by the table: fields that are neither text nor bytes. */
static int numbers_of(int number)
{
    static const char *const fields[] = {
#define TRACE_FIELDS(name, fields, help) fields,
        CHR_TRACES(TRACE_FIELDS)
#undef TRACE_FIELDS
    };
    const char *at = fields[number];
    int         count = 0;
    for (; *at; at += strspn(at, " ")) {
        size_t len = strcspn(at, " ");
        count += !(len == 5 && strncmp(at, "bytes", 5) == 0) && !(len > 5 && strncmp(at + len - 5, ":text", 5) == 0);
        at += len;
    }
    return count;
}

static void on_trace(void *opaque, const chr_trace *event)
{
    char line[1200];
    int  i;
    for (i = numbers_of(event->number); i < 2; i++)
        if (!CHECK_INT(event->value[i], 0)) NOTE("%s", event->name);
    (void)opaque;
    hook_calls++;
    seen[event->number]++;
    seen_ever[event->number] = 1;
    CHECK_STR(event->name, chr_trace_name(event->number));
    chr_trace_format(event, line, sizeof line);
    lines_length += (size_t)snprintf(lines + lines_length, sizeof lines - lines_length, "%s\n", strchr(line, ' ') + 1);
    REQUIRE(lines_length < sizeof lines);
}

static void forget_lines(void)
{
    lines_length = 0;
    lines[0] = 0;
    memset(seen, 0, sizeof seen);
}

static void trace_open(rig *r)
{
    rig_traced = on_trace;
    rig_open(r);
    forget_lines();
}

/* Whether there is a line that begins so. */
static int traced(const char *line)
{
    size_t      len = strlen(line);
    const char *at = lines;
    for (; at; at = strchr(at, '\n'), at += at != NULL)
        if (strncmp(at, line, len) == 0) return 1;
    return 0;
}

#define TRACED(line)                                                \
    do {                                                            \
        if (!CHECK(traced(line))) NOTE("%s: not among\n%s", line, lines); \
    } while (0)
#define TRACES(r, line) PUMP(r, traced(line))

static int port_of(chr_dev *dev)
{
    chr_info info;
    chr_query(dev, &info);
    return atoi(strrchr(info.address, ':') + 1);
}

static void send_bytes(int fd, const void *bytes, size_t len)
{
    CHECK_INT(write(fd, bytes, len), len);
}

/* ---- one chardev's life ------------------------------------------------------------------------------------------ */

static void life(void)
{
    rig       r;
    recorder  rec;
    chr_error err;

    trace_open(&r);
    CHECK(chr_new(r.ctx, "file,id=f,path=/no/such/directory/x", &err) == NULL);
    TRACED("f chardev_create kind=\"file\"\n");
    TRACED("f chardev_created result=NOT_FOUND why=\"cannot open /no/such/directory/x: ");
    attach(&rec, make(&r, "ringbuf,id=d"));
    TRACED("d chardev_create kind=\"ringbuf\"\n");
    TRACED("d event event=OPENED\n");
    TRACED("d chardev_created result=0\n");
    TRACED("d frontend_attach\n");
    TRACED("d frontend_open is_open=1\n");
    TRACED("d event_told event=OPENED\n");
    CHECK_INT(chr_fe_write(&rec.fe, "a\t\"\\\x01\xff", 6), 6);
    TRACED("d data_out offered=6 len=6 \"a\\t\\\"\\\\\\x01\\xff\"\n");
    CHECK_INT(chr_inject(rec.fe.dev, "in", 2), 2);
    TRACED("d data_injected len=2 \"in\"\n");
    CHECK_INT(chr_send_break(r.ctx, "d", &err), 0);
    TRACED("d event event=BREAK\n");
    TRACED("d event_told event=BREAK\n");
    CHECK_INT(chr_change(r.ctx, "d", "msmouse", &err), 0);
    TRACED("d chardev_change kind=\"msmouse\"\n");
    TRACED("d event_told event=CLOSED\n");
    TRACED("d chardev_close kind=\"ringbuf\"\n");
    TRACED("d chardev_changed result=0\n");
    rec.change_answer = -1;
    CHECK_INT(chr_change(r.ctx, "d", "null", &err), CHR_ERR_BUSY);
    TRACED("d chardev_changed result=BUSY why=\"the frontend of 'd' refuses the new backend\"\n");
    CHECK(chr_change(r.ctx, "d", "file,path=/no/such/directory/x", &err) < 0);
    TRACED("d chardev_changed result=NOT_FOUND why=\"");
    CHECK_INT(chr_fe_disconnect(&rec.fe), CHR_ERR_NOT_SUPPORTED);
    TRACED("d disconnect result=NOT_SUPPORTED\n");
    detach(&rec);
    TRACED("d frontend_detach\n");
    CHECK_INT(chr_change(r.ctx, "d", "null", &err), 0);
    CHECK_INT(chr_remove(r.ctx, "d", &err), 0);
    TRACED("d chardev_close kind=\"null\"\n");
    rig_close(&r);
}

TEST(life) { life(); }

static void commands(void)
{
    chr_serial_params params = { 1200, 'E', 7, 2 };
    chr_terminal_size size = { 80, 25 };
    rig               r;
    recorder          rec;
    int               lines_of = CHR_TIOCM_DTR, echo = 1, down;

    trace_open(&r);
    attach(&rec, make(&r, "msmouse,id=m"));
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines_of), 0);
    TRACED("m ioctl command=SERIAL_SET_TIOCM result=0 argument=\"2\"\n");
    TRACED("m msmouse_power on=1\n");
    CHECK_INT(chr_input_rel(rec.fe.dev, 3, -1), 0);
    CHECK_INT(chr_input_sync(rec.fe.dev), 0);
    TRACED("m msmouse_packet dx=3 dy=-1 len=3 \"L\\x03?\"\n");
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SET_ECHO, &echo), CHR_ERR_NOT_SUPPORTED);
    TRACED("m ioctl command=SET_ECHO result=NOT_SUPPORTED\n");
    settle(&r);
    TRACED("m data_in len=54 \"M3\\b\\x01");
    for (down = 1; down >= 0; down--) { /* the fourth byte: the middle button is down, or was let go */
        CHECK_INT(chr_input_button(rec.fe.dev, CHR_BUTTON_MIDDLE, down), 0);
        CHECK_INT(chr_input_rel(rec.fe.dev, 1 + down, 0), 0);
        CHECK_INT(chr_input_sync(rec.fe.dev), 0);
    }
    TRACED("m msmouse_packet dx=2 dy=0 len=4 \"@\\x02\\x00 \"\n");
    TRACED("m msmouse_packet dx=1 dy=0 len=4 \"@\\x01\\x00\\x00\"\n");
    CHECK_INT(chr_input_rel(rec.fe.dev, 4, 0), 0);
    CHECK_INT(chr_input_sync(rec.fe.dev), 0);
    TRACED("m msmouse_packet dx=4 dy=0 len=3 ");
    detach(&rec);
    attach(&rec, make(&r, "wctablet,id=w"));
    TRACED("w wct_init\n");
    CHECK_INT(chr_fe_write(&rec.fe, "~#RE\r~C\rTSa\rST\rSP\rwhat\rz\r", 25), 25);
    TRACED("w wct_cmd_model\n");
    TRACED("w wct_cmd_re\n");
    TRACED("w wct_cmd_size\n");
    TRACED("w wct_cmd_ts input=0x61\n");
    TRACED("w wct_cmd_st\n");
    TRACED("w wct_packet x=0 y=0 len=7 \"");
    TRACED("w wct_cmd_sp\n");
    TRACED("w wct_cmd_other len=4 \"what\"\n");
    TRACED("w wct_cmd_other len=1 \"z\"\n");
    CHECK_INT(chr_fe_write(&rec.fe, "\r\n@\r", 4), 4);
    CHECK(!traced("w wct_cmd_other len=0")); /* an empty line is no command */
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params), 0);
    TRACED("w ioctl command=SERIAL_SET_PARAMS result=0 argument=\"1200,E,7,2\"\n");
    TRACED("w wct_speed speed=1200\n");
    detach(&rec);
    attach(&rec, make(&r, "pty,id=p"));
    TRACED("p pty_open slave=\"/dev/pts/");
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SET_TERMINAL_SIZE, &size), 0);
    TRACED("p ioctl command=SET_TERMINAL_SIZE result=0 argument=\"80,25\"\n");
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    TRACED("p data_dropped result=DISCONNECTED len=1 \"x\"\n");
    detach(&rec);
    rig_close(&r);
}

TEST(commands) { commands(); }

static int cells(void *opaque)
{
    (void)opaque;
    return 2;
}

static void show(void *opaque, const unsigned char *dots, const char *text, int count, int cursor)
{
    (void)opaque, (void)dots, (void)text, (void)count, (void)cursor;
}

static void braille(void)
{
    static const chr_braille_display display = { cells, show };
    chr_braille_options              options;
    rig                              r;
    recorder                         rec;
    char                             text[100];
    int                              port, listener, peer;

    trace_open(&r);
    memset(&options, 0, sizeof options);
    options.display = &display;
    attach(&rec, chr_open(r.ctx, "b", chr_backend_find(r.ctx, "braille"), &options, NULL));
    chr_fe_write(&rec.fe, "\033\205\033\005", 4);
    TRACED("b braille_request code=0x5 len=0 \"\"\n");
    TRACED("b braille_answer code=0x5 len=1 \"\\x01\"\n");
    chr_fe_write(&rec.fe, "\033\001\001\303", 4);
    TRACED("b braille_row cells=2 cursor=2 len=2 \"\\x01\\x03\"\n");
    detach(&rec);
    listener = tcp_listen(&port);
    REQUIRE(port >= 4101);
    snprintf(text, sizeof text, "braille,id=h,host=127.0.0.1:%d", port - 4101);
    attach(&rec, make(&r, text));
    TRACED("h brlapi_state state=2 name=\"connecting\"\n");
    TRACES(&r, "h brlapi_state state=3 name=\"connected\"\n");
    peer = accept(listener, NULL, NULL);
    send_bytes(peer, "\0\0\0\004\0\0\0v\0\0\0\010", 12);
    TRACES(&r, "h brlapi_received type=v length=4\n");
    TRACED("h brlapi_sent type=v length=4\n");
    close(peer);
    close(listener);
    TRACES(&r, "h brlapi_failed result=DISCONNECTED why=\"the BrlAPI server at 127.0.0.1:");
    TRACED("h reconnect ms=1000\n");
    TRACED("h log line=\"the BrlAPI server at ");
    detach(&rec);
    rig_close(&r);
}

TEST(braille) { braille(); }

static void others(void)
{
    rig       r;
    recorder  rec, second;
    chr_dev  *dev;
    chr_error err;
    char      text[300];
    int       port, fd, i;

    trace_open(&r);
    dev = make(&r, "ringbuf,id=m,mux=on");
    attach(&rec, dev);
    attach(&second, dev);
    TRACED("m event_told event=MUX_IN\n");
    TRACED("m event_told event=MUX_OUT\n");
    CHECK_INT(chr_inject(dev, "\001c", 2), 2);
    TRACED("m mux_command key=c\n");
    detach(&rec);
    detach(&second);
    attach(&rec, make(&r, "script,id=s,text=expect \"hi\"\nsend \"yo\"\nfail \"no\""));
    TRACES(&r, "s script_step line=1 statement=\"");
    chr_fe_write(&rec.fe, "hi", 2);
    TRACES(&r, "s script_result result=IO why=\"script: line 3: fail");
    TRACED("s data_in len=2 \"yo\"\n");
    detach(&rec);
    make(&r, "null,id=base");
    attach(&rec, dev = make(&r, "fault,id=f,chardev=base"));
    CHECK_INT(chr_fault_feed(dev, "\x80\x80", 2), 2);
    for (i = 0; i < 2; i++) chr_fe_write(&rec.fe, "some bytes", 10);
    TRACED("f fault what=\"");
    detach(&rec);
    fd = tcp_listen(&port); /* of the same number there is not datagram socket, most likely */
    close(fd);
    snprintf(text, sizeof text, "udp,id=u,host=127.0.0.1,port=%d", port);
    attach(&rec, make(&r, text));
    for (i = 0; i < 3; i++) {
        chr_fe_write(&rec.fe, "x", 1);
        chr_loop_step(r.ctx, 20);
    }
    TRACED("u udp_refused result=");
    detach(&rec);
    attach(&rec, make(&r, "serial,id=t,path=/tmp/no-such-device,reconnect-ms=60000"));
    TRACED("t serial_open path=\"/tmp/no-such-device\"\n");
    TRACED("t serial_failed result=NOT_FOUND why=\"");
    TRACED("t reconnect ms=60000\n");
    CHECK_INT(chr_wait_connected(rec.fe.dev, &err), CHR_ERR_NOT_SUPPORTED);
    TRACED("t wait_connected result=NOT_SUPPORTED why=\"");
    detach(&rec);
    rig_close(&r);
}

TEST(others) { others(); }

/* ---- sockets ----------------------------------------------------------------------------------------------------- */

static void server(void)
{
    rig      r;
    recorder rec;
    chr_dev *dev = NULL;
    char     want[100];
    int      peer, port, i;

    trace_open(&r);
    attach_with_room(&rec, dev = make(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off,obuf=10"), 3);
    port = port_of(dev);
    snprintf(want, sizeof want, "s socket_listen address=\"127.0.0.1:%d\"\n", port);
    TRACED(want);
    peer = tcp_connect(port);
    TRACES(&r, "s event_told event=OPENED\n");
    TRACED("s socket_accept peer=\"127.0.0.1:");
    TRACED("s socket_up peer=\"127.0.0.1:");
    say(peer, "hello");
    TRACES(&r, "s data_in len=3 \"hel\"\n");
    TRACES(&r, "s input_blocked hung_up=0\n");
    for (i = 0; i < 1000 && !seen[CHR_TRACE_data_blocked]; i++) chr_fe_write(&rec.fe, lines, 65536);
    TRACED("s obuf_queued count=10 waiting=10\n");
    TRACED("s data_blocked offered=65536\n");
    CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
    TRACED("s disconnect result=0\n");
    TRACED("s socket_down has_had_it=1\n");
    TRACED("s linger queued=10\n");
    settle(&r);
    TRACED("s event_told event=CLOSED\n");
    close(peer);
    PUMP(&r, seen[CHR_TRACE_linger_end]);
    TRACED("s linger_end is_sent=");
    detach(&rec);
    rig_close(&r);
}

TEST(server) { server(); }

static void hang_up_hard(int fd)
{
    struct linger hard = { 1, 0 };
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
}

static void ends(void)
{
    rig      r;
    recorder rec;
    chr_dev *dev;
    int      peer;

    trace_open(&r);
    attach(&rec, dev = make(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off,obuf=100,obuf-full=drop-oldest"));
    peer = tcp_connect(port_of(dev));
    TRACES(&r, "s event_told event=OPENED\n");
    while (!seen[CHR_TRACE_obuf_dropped]) chr_fe_write(&rec.fe, lines, 4096);
    hang_up_hard(peer);
    usleep(20000);
    chr_fe_write(&rec.fe, "x", 1);
    chr_fe_write(&rec.fe, "x", 1);
    TRACED("s stream_broken\n");
    TRACES(&r, "s event_told event=CLOSED\n");
    TRACED("s stream_end result=");
    peer = tcp_connect(port_of(dev));
    PUMP(&r, seen[CHR_TRACE_socket_up] == 2);
    forget_lines();
    CHECK_INT(chr_fe_shutdown(&rec.fe), 0);
    TRACED("s shutdown result=0\n");
    close(peer);
    TRACES(&r, "s stream_end result=0\n");
    detach(&rec);
    rig_close(&r);
}

TEST(ends) { ends(); }

static void clients(void)
{
    rig      r;
    recorder rec;
    chr_dev *dev;
    int      first, second, i;

    trace_open(&r);
    attach(&rec, dev = make(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off,clients=2"));
    first = tcp_connect(port_of(dev));
    second = tcp_connect(port_of(dev));
    PUMP(&r, seen[CHR_TRACE_socket_up] == 2);
    say(first, "one");
    TRACES(&r, "s client_in len=3 \"one\"\n");
    TRACED("s data_in len=3 \"one\"\n");
    CHECK_INT(chr_fe_write(&rec.fe, "all", 3), 3);
    CHECK_INT(seen[CHR_TRACE_client_out], 2);
    CHECK_INT(seen[CHR_TRACE_data_out], 1);
    CHECK_INT(seen[CHR_TRACE_event], 1);
    TRACED("s client_out offered=3 len=3 \"all\"\n");
    for (i = 0; i < 1000 && !seen[CHR_TRACE_client_blocked]; i++) chr_fe_write(&rec.fe, lines, 65536);
    TRACED("s client_blocked offered=");
    close(first);
    close(second);
    detach(&rec);
    rig_close(&r);
}

TEST(clients) { clients(); }

static void client(void)
{
    rig       r;
    recorder  rec;
    chr_error err;
    char      text[200], want[200];
    int       port, listener, peer;

    trace_open(&r);
    listener = tcp_listen(&port);
    snprintf(text, sizeof text, "socket,id=c,host=127.0.0.1,port=%d,reconnect-ms=30", port);
    attach(&rec, make(&r, text));
    TRACES(&r, "c socket_up peer=\"127.0.0.1:");
    snprintf(want, sizeof want, "c socket_lookup name=\"127.0.0.1:%d\"\n", port);
    TRACED(want);
    TRACED("c socket_lookup_done count=1\n");
    snprintf(want, sizeof want, "c socket_connect address=\"127.0.0.1:%d\"\n", port);
    TRACED(want);
    snprintf(want, sizeof want, "c socket_connected peer=\"127.0.0.1:%d\"\n", port);
    TRACED(want);
    peer = accept(listener, NULL, NULL);
    close(listener);
    close(peer);
    TRACES(&r, "c socket_connect_failed result=IO why=\"cannot connect to 127.0.0.1:");
    TRACED("c reconnect ms=30\n");
    TRACED("c socket_down has_had_it=1\n");
    TRACES(&r, "c socket_failed result=IO why=\"cannot connect to 127.0.0.1:");
    TRACES(&r, "c log line=\"cannot connect to 127.0.0.1:");
    PUMP(&r, seen[CHR_TRACE_reconnect] >= 3);
    detach(&rec);
    CHECK(chr_new(r.ctx, "socket,id=n,host=no-such-host.invalid,port=1", &err) == NULL);
    TRACED("n socket_lookup_done count=NOT_FOUND why=\"cannot look up no-such-host.invalid:1: ");
    rig_close(&r);
}

TEST(client) { client(); }

static void descriptors(void)
{
    rig           r;
    recorder      rec, other;
    struct rlimit limit, small;
    chr_dev      *dev;
    char          text[100];
    int           fds[2], pipe_fds[2], more[64], count = 0, peer;

    trace_open(&r);
    socket_pair(fds);
    snprintf(text, sizeof text, "socket,id=a,fd=%d", fds[0]);
    attach(&rec, make(&r, text));
    snprintf(text, sizeof text, "socket,id=b,fd=%d", fds[1]);
    attach(&other, make(&r, text));
    REQUIRE(pipe(pipe_fds) == 0);
    CHECK_INT(chr_fe_set_msgfds(&rec.fe, pipe_fds, 2), 0);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    TRACED("a fds_sent count=2\n");
    TRACES(&r, "b fds_received count=2\n");
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    detach(&rec);
    detach(&other);
    attach(&rec, dev = make(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off"));
    peer = tcp_connect(port_of(dev));
    getrlimit(RLIMIT_NOFILE, &limit);
    small = limit;
    small.rlim_cur = 60;
    setrlimit(RLIMIT_NOFILE, &small);
    while (count < 64 && (more[count] = dup(0)) >= 0) count++;
    TRACES(&r, "s socket_accept_failed result=IO why=\"cannot accept a peer: ");
    while (count > 0) close(more[--count]);
    setrlimit(RLIMIT_NOFILE, &limit);
    close(peer);
    detach(&rec);
    rig_close(&r);
}

TEST(descriptors) { descriptors(); }

/* ---- layers ------------------------------------------------------------------------------------------------------ */

static void telnet(void)
{
    rig      r;
    recorder rec;
    chr_dev *dev;
    int      peer;

    trace_open(&r);
    attach(&rec, dev = make(&r, "socket,id=t,host=127.0.0.1,port=0,server=on,wait=off,com-port=on,telnet=on"));
    peer = tcp_connect(port_of(dev));
    TRACES(&r, "t event_told event=OPENED\n");
    TRACED("t handshake_step result=0 wants=0 layer=\"telnet\"\n");
    TRACED("t telnet_sent verb=WILL option=ECHO\n");
    TRACED("t telnet_sent verb=DO option=COM-PORT\n");
    TRACED("t wire_out offered=");
    send_bytes(peer, "\xff\xfb\x2c\xff\xfb\x1f\xff\xfa\x1f\0\x50\0\x18\xff\xf0\xff\xf6", 17);
    TRACES(&r, "t telnet_command command=AYT\n");
    TRACED("t wire_in len=17 \"\\xff\\xfb");
    TRACED("t telnet_received verb=WILL option=COM-PORT\n");
    TRACED("t telnet_sub_received option=NAWS len=4 \"\\x00P\\x00\\x18\"\n");
    send_bytes(peer, "\xff\xfa\x2c\x01\0\0\x25\x80\xff\xf0", 10);
    TRACES(&r, "t com_port_received command=SET-BAUDRATE value=9600\n");
    TRACES(&r, "t com_port_sent command=SET-BAUDRATE len=4 \"\\x00\\x00%\\x80\"\n");
    TRACED("t telnet_sub_sent option=COM-PORT len=5 \"e\\x00\\x00%\\x80\"\n");
    TRACED("t event_told event=SERIAL\n");
    close(peer);
    detach(&rec);
    rig_close(&r);
}

TEST(telnet) { telnet(); }

static void websocket(void)
{
    rig      r;
    recorder rec, far;
    chr_dev *dev;
    char     text[200];
    int      peer;

    trace_open(&r);
    write_file(scratch("page"), "<p>hello</p>\n");
    snprintf(text, sizeof text, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off,websocket=on,ws-page=%s", scratch("page"));
    attach(&rec, dev = make(&r, text));
    peer = tcp_connect(port_of(dev));
    say(peer, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    TRACES(&r, "s ws_refused why=\"does not ask for an upgrade to websocket\"\n");
    TRACED("s ws_head len=28 \"GET /x HTTP/1.1\\r\\n");
    TRACED("s socket_failed result=IO why=\"websocket: the peer's request does not ask for an upgrade to websocket\"\n");
    close(peer);
    peer = tcp_connect(port_of(dev));
    say(peer, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    TRACES(&r, "s ws_page size=13 path=\"");
    close(peer);
    snprintf(text, sizeof text, "socket,id=c,host=127.0.0.1,port=%d,websocket=on,reconnect-ms=5", port_of(dev));
    attach(&far, make(&r, text));
    TRACES(&r, "c event_told event=OPENED\n");
    TRACED("s ws_accepted\n");
    TRACED("c ws_accepted\n");
    CHECK_INT(chr_fe_write(&far.fe, "hello", 5), 5);
    TRACED("c ws_frame_sent opcode=binary length=5\n");
    TRACES(&r, "s ws_frame_received opcode=binary length=5\n");
    TRACES(&r, "s data_in len=5 \"hello\"\n");
    CHECK_INT(chr_fe_shutdown(&far.fe), 0);
    TRACED("c ws_close_sent code=1000\n");
    TRACES(&r, "s ws_close_received code=1000\n");
    detach(&rec);
    detach(&far);
    rig_close(&r);
    scratch_clean();
}

TEST(websocket) { websocket(); }

#ifdef CHARDEV_MBEDTLS

static void add_creds(rig *r, const char *format, const char *file)
{
    char      text[400];
    chr_error err;
    snprintf(text, sizeof text, format, scratch(file));
    if (!CHECK_INT(chr_tls_creds_add(r->ctx, text, &err), 0)) NOTE("%s", err.text);
}

static void tls(void)
{
    rig      r;
    recorder rec, far;
    chr_dev *dev;
    char     text[200];
    int      peer;

    trace_open(&r);
    umask(077);
    write_file(scratch("keys"), "ana:00112233445566778899aabbccddeeff\n");
    write_file(scratch("wrong"), "ana:ff112233445566778899aabbccddeeff\n");
    add_creds(&r, "tls-creds-psk,id=ts,endpoint=server,keyfile=%s", "keys");
    add_creds(&r, "tls-creds-psk,id=tc,username=ana,keyfile=%s", "keys");
    add_creds(&r, "tls-creds-psk,id=tw,username=ana,keyfile=%s", "wrong");
    attach(&rec, dev = make(&r, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off,tls-creds=ts"));
    snprintf(text, sizeof text, "socket,id=w,host=127.0.0.1,port=%d,tls-creds=tw,reconnect-ms=60000", port_of(dev));
    make(&r, text);
    TRACES(&r, "w socket_failed result=");
    TRACES(&r, "s socket_failed result=");
    PUMP(&r, seen[CHR_TRACE_tls_alert_sent] && seen[CHR_TRACE_tls_alert_received]);
    if (traced("w tls_alert_received level")) TRACED("w tls_alert_received level=fatal description=");
    snprintf(text, sizeof text, "socket,id=c,host=127.0.0.1,port=%d,tls-creds=tc,reconnect-ms=60000", port_of(dev));
    attach(&far, make(&r, text));
    TRACES(&r, "c event_told event=OPENED\n");
    TRACED("c handshake_step result=WOULD_BLOCK wants=input layer=\"tls\"\n");
    TRACED("s tls_step state=1 step=\"ClientHello\"\n");
    TRACED("c tls_up version=\"TLSv1.");
    TRACED("c wire_out offered=");
    CHECK_INT(chr_fe_write(&far.fe, "secret", 6), 6);
    TRACES(&r, "s data_in len=6 \"secret\"\n");
    CHECK(!strstr(strstr(lines, "c tls_up"), "wire_out offered=6 "));
    CHECK_INT(chr_fe_disconnect(&far.fe), 0);
    TRACED("c tls_alert_sent level=-1 description=-1\n");
    TRACES(&r, "s tls_end code=-0x7880\n");
    TRACED("s tls_alert_received level=warning description=close_notify\n");
    peer = tcp_connect(port_of(dev));
    say(peer, "SSH-2.0-not TLS at all\r\n");
    TRACES(&r, "s socket_failed result=IO why=\"TLS: what the peer sends is not TLS\"\n");
    close(peer);
    detach(&rec);
    detach(&far);
    rig_close(&r);
    scratch_clean();
}

TEST(tls) { tls(); }

#endif

/* ---- the table --------------------------------------------------------------------------------------------------- */

TEST_WITHIN(every_event_happens, 180)
{
    int i;

    life();
    commands();
    braille();
    others();
    server();
    ends();
    clients();
    client();
    descriptors();
    telnet();
    websocket();
#ifdef CHARDEV_MBEDTLS
    tls();
#endif
    for (i = 0; i < CHR_TRACE_COUNT; i++) {
        const char *name = chr_trace_name(i);
        if (strncmp(name, "spice_", 6) == 0) continue; /* test_spice.c */
#ifndef CHARDEV_MBEDTLS
        if (strncmp(name, "tls_", 4) == 0) continue;
#endif
        if (!CHECK(seen_ever[i])) NOTE("%s never happens", name);
    }
}

static void count_line(void *opaque, const char *line)
{
    const char *name = chr_trace_name(*(int *)opaque);
    if (!CHECK(strncmp(line, name, strlen(name)) == 0) || !CHECK(strlen(line) > 57) || !CHECK(line[55] == ' ')) NOTE("%s", line);
    ++*(int *)opaque;
}

static void keep_line(void *opaque, const char *line)
{
    snprintf((char *)opaque, 200, "%s", line);
}

TEST(help_lists_the_table)
{
    char line[200] = "";
    int  lines_told = 0;

    CHECK_INT(chr_trace_help(NULL, count_line, &lines_told), CHR_TRACE_COUNT);
    CHECK_INT(lines_told, CHR_TRACE_COUNT);
    CHECK_INT(chr_trace_help("socket_listen", keep_line, line), 1);
    CHECK_STR(line, "socket_listen address:text                              socket: a server listens");
    CHECK_INT(chr_trace_help("nothing", keep_line, line), 0);
    CHECK(chr_trace_name(-1) == NULL);
    CHECK(chr_trace_name(CHR_TRACE_COUNT) == NULL);
    CHECK_STR(chr_trace_name(CHR_TRACE_data_in), "data_in");
}

TEST(patterns)
{
    static const struct { const char *patterns, *name; int match; } table[] = {
        { "data_in", "data_in", 1 }, { "data_in", "data_inn", 0 }, { "data_i", "data_in", 0 }, { "", "data_in", 0 },
        { "*", "data_in", 1 }, { "data_*", "data_in", 1 }, { "*_in", "data_in", 1 }, { "data?in", "data_in", 1 },
        { "data??in", "data_in", 0 }, { "socket_*,data_in", "data_in", 1 }, { "*,-data_*", "data_in", 0 },
        { "*,-data_*", "event", 1 }, { "*,-data_*,data_in", "data_in", 1 }, { "-data_in", "data_in", 0 },
        { ",,data_in,,", "data_in", 1 }, { "-", "data_in", 0 }, { "-*,*", "data_in", 1 }, { "d*a*i*n", "data_in", 1 },
        { "data_in ", "data_in", 0 },
        { "0123456789012345678901234567890123456789012345678901234567890123456789*,data_in", "data_in", 1 },
    };
    size_t i;
    for (i = 0; i < sizeof table / sizeof *table; i++)
        if (!CHECK_INT(chr_trace_match(table[i].patterns, table[i].name), table[i].match)) NOTE("%s: %s", table[i].patterns, table[i].name);
}

TEST(lines_are_cut_where_they_must)
{
    chr_trace     event;
    unsigned char bytes[100];
    char          whole[1000], text[1000];
    size_t        size;

    memset(&event, 0, sizeof event);
    memset(bytes, 'x', sizeof bytes);
    event.number = CHR_TRACE_data_out;
    event.name = chr_trace_name(event.number);
    event.id = "d";
    event.time = INT64_C(12345678901);
    event.value[0] = 200;
    event.bytes = bytes;
    event.len = 100;
    CHECK_INT(chr_trace_format(&event, whole, sizeof whole), 110);
    CHECK_STR(whole, "12.345678 d data_out offered=200 len=100 \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"...");
    for (size = 1; size <= strlen(whole) + 1; size++) {
        memset(text, 1, sizeof text);
        CHECK_INT(chr_trace_format(&event, text, size), size - 1);
        CHECK(strncmp(text, whole, size - 1) == 0 && !text[size - 1] && text[size] == 1);
    }
    CHECK_INT(chr_trace_format(&event, NULL, 0), 0);
}

/* ---- the hook ---------------------------------------------------------------------------------------------------- */

TEST(off_is_off)
{
    rig      r;
    recorder rec;

    rig_open(&r);
    attach(&rec, make(&r, "ringbuf,id=d"));
    chr_fe_write(&rec.fe, "x", 1);
    detach(&rec);
    rig_close(&r);
    CHECK_INT(hook_calls, 0);
}

static chr_frontend *victim;
static int           idle_ran;
static chr_idle      posted;

static void post(void *opaque)
{
    (void)opaque;
    idle_ran++;
    if (idle_ran == 1) CHECK_INT(chr_fe_write(victim, "from the idle", 13), 13);
}

/* All that it must not do is refused, and all that it may do works. */
static void misbehave(void *opaque, const chr_trace *event)
{
    static const chr_handlers none = { NULL, NULL, NULL, NULL };
    static chr_frontend       fresh;
    chr_error                 err;
    chr_info                  info;
    char                      byte;
    int                       calls = hook_calls, lines_of = 0;

    on_trace(opaque, event);
    CHECK_INT(hook_calls, calls + 1);
    if (!victim || event->number != CHR_TRACE_data_out) return;
    CHECK_INT(chr_fe_write(victim, "y", 1), CHR_ERR_IN_HANDLER);
    CHECK_INT(chr_fe_printf(victim, "%d", 1), CHR_ERR_IN_HANDLER);
    CHECK(chr_fe_write_all(victim, "y", 1, 0) < 0);
    CHECK(chr_fe_read_all(victim, &byte, 1, 0) < 0);
    CHECK(chr_fe_flush(victim, 0) < 0);
    CHECK(chr_fe_ioctl(victim, CHR_IOCTL_SERIAL_GET_TIOCM, &lines_of) < 0);
    CHECK(chr_fe_disconnect(victim) < 0);
    CHECK(chr_fe_shutdown(victim) < 0);
    CHECK(chr_fe_set_buffers(victim, 100, 100) < 0);
    chr_fe_set_handlers(victim, &none, NULL);
    chr_fe_set_handlers(victim, NULL, NULL);
    chr_fe_set_open(victim, 0);
    chr_fe_take_focus(victim);
    chr_fe_deinit(victim);
    CHECK(victim->dev != NULL);
    CHECK(chr_fe_init(&fresh, chr_find(event->ctx, "spare"), &err) < 0);
    CHECK_INT(err.code, CHR_ERR_IN_HANDLER);
    CHECK(chr_new(event->ctx, "null,id=n", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_IN_HANDLER);
    CHECK_INT(chr_remove(event->ctx, "spare", &err), CHR_ERR_IN_HANDLER);
    CHECK_INT(chr_change(event->ctx, "spare", "null", &err), CHR_ERR_IN_HANDLER);
    CHECK_INT(chr_change(event->ctx, "d", "null", &err), CHR_ERR_IN_HANDLER);
    CHECK(chr_inject(victim->dev, "x", 1) < 0);
    CHECK_INT(chr_record_start(event->ctx, "/tmp/never", &err), CHR_ERR_IN_HANDLER);
    CHECK(chr_record_stop(event->ctx) < 0);
    chr_replay_close(event->ctx);
    CHECK_INT(chr_log_reopen(event->ctx), CHR_ERR_IN_HANDLER);
    CHECK_INT(chr_loop_step(event->ctx, 0), CHR_ERR_IN_HANDLER);
    CHECK_INT(chr_loop_dispatch(event->ctx, NULL, 0), CHR_ERR_IN_HANDLER);
    CHECK_INT(chr_drain(event->ctx, 0), CHR_ERR_IN_HANDLER);
    CHECK_INT(chr_context_reset(event->ctx), CHR_ERR_IN_HANDLER);
    chr_context_free(event->ctx);
    chr_query(chr_find(event->ctx, "d"), &info);
    CHECK(chr_fe_backend_open(victim));
    CHECK_INT(event->time, chr_loop_now(event->ctx));
    CHECK_INT(event->wall_time, INT64_C(1500000000) * 1000000000);
    chr_idle_start(event->ctx, &posted, post, NULL);
    CHECK_INT(hook_calls, calls + 1);
}

static void check_misbehaviour(size_t buffers)
{
    rig      r;
    recorder rec;
    char     text[100];

    victim = NULL;
    idle_ran = 0;
    rig_traced = misbehave;
    rig_open_virtual(&r);
    make(&r, "null,id=spare");
    snprintf(text, sizeof text, "ringbuf,id=d,logfile=%s", scratch("log"));
    attach(&rec, make(&r, text));
    if (buffers) CHECK_INT(chr_fe_set_buffers(&rec.fe, buffers, buffers), 0);
    settle(&r);
    victim = &rec.fe;
    forget_lines();
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    settle(&r);
    CHECK(idle_ran > 0);
    CHECK_INT(chr_ringbuf_count(chr_find(r.ctx, "d")), 14);
    CHECK_STR(read_file(scratch("log")), "xfrom the idle");
    victim = NULL;
    chr_idle_stop(&posted);
    CHECK_STR(rec.events, "O");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(a_hook_cannot_break_anything) { check_misbehaviour(0); }
TEST(a_hook_cannot_break_anything_with_buffers) { check_misbehaviour(256); }

static pthread_t hook_thread;

static void note_thread(void *opaque, const chr_trace *event)
{
    (void)opaque;
    if (event->number == CHR_TRACE_data_out) hook_thread = pthread_self();
}

static void *write_from_here(void *opaque)
{
    CHECK_INT(chr_fe_write((chr_frontend *)opaque, "x", 1), 1);
    return NULL;
}

TEST(the_hook_runs_on_the_thread_that_writes)
{
    rig       r;
    recorder  rec;
    pthread_t thread;

    rig_traced = note_thread;
    rig_open(&r);
    attach(&rec, make(&r, "ringbuf,id=d"));
    REQUIRE(pthread_create(&thread, NULL, write_from_here, &rec.fe) == 0);
    pthread_join(thread, NULL);
    CHECK(pthread_equal(hook_thread, thread));
    detach(&rec);
    rig_close(&r);
}

static int take_anything(chr_dev *dev, int command, void *arg)
{
    (void)dev, (void)command, (void)arg;
    return 0;
}

/* A backend of the user's may have a command without an argument: neither a trace nor a recording looks for one. */
TEST(a_command_without_an_argument)
{
    static const int commands_of[] = { CHR_IOCTL_SET_ECHO, CHR_IOCTL_SERIAL_SET_PARAMS, CHR_IOCTL_PP_EPP_READ, CHR_IOCTL_PP_READ_DATA, 1234 };
    chr_backend      kind;
    rig              r;
    recorder         rec;
    chr_error        err;
    size_t           i;

    trace_open(&r);
    CHECK_INT(chr_record_start(r.ctx, scratch("record"), &err), 0);
    kind = *chr_backend_find(r.ctx, "null");
    kind.name = "any";
    kind.ioctl = take_anything;
    REQUIRE(chr_backend_register(r.ctx, &kind, &err) == 0);
    attach(&rec, make(&r, "any,id=d"));
    for (i = 0; i < sizeof commands_of / sizeof *commands_of; i++) CHECK_INT(chr_fe_ioctl(&rec.fe, commands_of[i], NULL), 0);
    TRACED("d ioctl command=SET_ECHO result=0\n");
    TRACED("d ioctl command=1234 result=0\n");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* A recording is the same with and without a hook, and a replay is traced like the real thing. */
static void play(const char *how, const char *path, int with_hook)
{
    rig       r;
    recorder  rec;
    chr_error err;

    rig_traced = with_hook ? on_trace : NULL;
    rig_open_virtual(&r);
    forget_lines();
    if (how[0] == 'p') CHECK_INT(chr_replay_open(r.ctx, path, &err), 0);
    else CHECK_INT(chr_record_start(r.ctx, path, &err), 0);
    attach(&rec, make(&r, "wctablet,id=w"));
    settle(&r);
    CHECK_INT(chr_fe_write(&rec.fe, "RE\r", 3), 3);
    settle(&r);
    CHECK_INT(rec.length, 69);
    detach(&rec);
    rig_close(&r);
}

TEST(recordings_and_replays)
{
    char   first[4096], second[4096];
    FILE  *file;
    size_t a, b;

    play("record", scratch("1"), 0);
    play("record", scratch("2"), 1);
    TRACED("w wct_cmd_re\n");
    file = fopen(scratch("1"), "rb");
    a = fread(first, 1, sizeof first, file);
    fclose(file);
    file = fopen(scratch("2"), "rb");
    b = fread(second, 1, sizeof second, file);
    fclose(file);
    CHECK(a > 100);
    CHECK_MEM(second, b, first, a);
    play("play", scratch("1"), 1);
    TRACED("w data_out offered=3 len=3 \"RE\\r\"\n");
    TRACED("w data_in len=8 \"96,N,8,0\"\n");
    TRACED("w event_told event=OPENED\n");
    CHECK_INT(seen[CHR_TRACE_wct_cmd_re], 0);
    CHECK_INT(seen[CHR_TRACE_log], 0);
    scratch_clean();
}

TEST(a_line_that_a_backend_logs)
{
    rig r;
    trace_open(&r);
    chr_be_log(make(&r, "null,id=n"), "%d of %s", 3, "four");
    TRACED("n log line=\"3 of four\"\n");
    rig_close(&r);
}

/* Numbers as the table has them, from an event that is made by hand. */
TEST(numbers_of_each_kind)
{
    static const struct {
        int         number;
        int64_t     values[2];
        const char *line;
    } table[] = {
        { CHR_TRACE_wct_cmd_ts, { 0, 0 }, "input=0x0" },           { CHR_TRACE_wct_cmd_ts, { 255, 0 }, "input=0xff" },
        { CHR_TRACE_wct_cmd_ts, { -1, 0 }, "input=-0x1" },         { CHR_TRACE_wct_cmd_ts, { INT64_MAX, 0 }, "input=0x7fffffffffffffff" },
        { CHR_TRACE_chardev_created, { 0, 0 }, "result=0" },       { CHR_TRACE_chardev_created, { 7, 0 }, "result=7" },
        { CHR_TRACE_chardev_created, { CHR_ERR_IO, 0 }, "result=IO" }, { CHR_TRACE_chardev_created, { -99, 0 }, "result=-99" },
        { CHR_TRACE_linger_end, { 1, 0 }, "is_sent=1" },           { CHR_TRACE_data_blocked, { -5, 0 }, "offered=-5" },
    };
    chr_trace event;
    char      line[200], want[100];
    size_t    i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        memset(&event, 0, sizeof event);
        event.number = (chr_trace_number)table[i].number;
        event.name = chr_trace_name(table[i].number);
        event.value[0] = table[i].values[0];
        event.value[1] = table[i].values[1];
        event.time = INT64_C(12345678999);
        snprintf(want, sizeof want, "12.345678 %s %s", event.name, table[i].line);
        CHECK_INT(chr_trace_format(&event, line, sizeof line), strlen(want));
        CHECK_STR(line, want);
    }
    CHECK(chr_trace_name(-1) == NULL && chr_trace_name(CHR_TRACE_COUNT) == NULL);
    CHECK(chr_trace_name(0) != NULL && chr_trace_name(CHR_TRACE_COUNT - 1) != NULL);
}

/* Bytes: 64 of them, what is no plain character as C has it. */
TEST(bytes_in_a_line)
{
    static const struct {
        const char *bytes;
        size_t      len;
        const char *line;
    } table[] = {
        { "", 0, "len=0 \"\"" }, { "a\"b\\c", 5, "len=5 \"a\\\"b\\\\c\"" }, { "\a\b\t\n\v\f\r", 7, "len=7 \"\\a\\b\\t\\n\\v\\f\\r\"" },
        { "\0\006\016\037 ~\177\200\377", 9, "len=9 \"\\x00\\x06\\x0e\\x1f ~\\x7f\\x80\\xff\"" },
        { "0123456789012345678901234567890123456789012345678901234567890123", 64,
          "len=64 \"0123456789012345678901234567890123456789012345678901234567890123\"" },
        { "0123456789012345678901234567890123456789012345678901234567890123X", 65,
          "len=65 \"0123456789012345678901234567890123456789012345678901234567890123\"..." },
    };
    chr_trace event;
    char      line[300], want[200];
    size_t    i, size;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        memset(&event, 0, sizeof event);
        event.number = CHR_TRACE_data_in;
        event.name = chr_trace_name(CHR_TRACE_data_in);
        event.id = "x";
        event.bytes = table[i].bytes;
        event.len = table[i].len;
        snprintf(want, sizeof want, "0.000000 x data_in %s", table[i].line);
        CHECK_INT(chr_trace_format(&event, line, sizeof line), strlen(want));
        CHECK_STR(line, want);
        for (size = 1; size < 40; size++) { /* what is too long is cut */
            CHECK_INT(chr_trace_format(&event, line, size), strlen(want) < size ? strlen(want) : size - 1);
            CHECK(strncmp(line, want, strlen(line)) == 0);
        }
    }
    line[0] = 'q';
    CHECK_INT(chr_trace_format(&event, line, 0), 0);
    CHECK_INT(line[0], 'q');
    event.bytes = NULL;
    CHECK_INT(chr_trace_format(&event, line, sizeof line), strlen("0.000000 x data_in"));
}

TEST(patterns_of_names)
{
    char long_one[80];
    memset(long_one, '*', sizeof long_one);
    long_one[64] = 0; /* one more than the longest */
    CHECK_INT(chr_trace_match(long_one, "data_in"), 0);
    long_one[63] = 0;
    CHECK_INT(chr_trace_match(long_one, "data_in"), 1);
    CHECK_INT(chr_trace_match("", "data_in"), 0);
    CHECK_INT(chr_trace_match("*,-data*", "data_in"), 0);
    CHECK_INT(chr_trace_match("*,-data*", "log"), 1);
    CHECK_INT(chr_trace_match("-*,data_in", "data_in"), 1);
    CHECK_INT(chr_trace_match("log,,data_in", "data_in"), 1);
    CHECK_INT(chr_trace_match("data_in,", "data_in"), 1);
    CHECK_INT(chr_trace_match("data_i", "data_in"), 0);
}
