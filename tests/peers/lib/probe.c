/*
 * probe - a chardev under a script's control. It opens the chardev given as options in argv[1], after the objects (TLS credentials,
 * lists of peers, a spice server) in the arguments behind it, prints what happens, one line each, and does what the lines of its
 * standard input say.
 *
 *   prints   made ADDRESS | failed TEXT | opened | closed | break | resized COLUMNS ROWS | data HEX | wrote N | log TEXT
 *            serial SPEED PARITY DATA-BITS STOP-BITS FLOW LINES (in hex), or: serial none; errors N; purged receive | purged transmit
 *   takes    write HEX | break | disconnect | open | close | room N (how many bytes it takes; -1 = any) | quit
 *            params SPEED PARITY DATA-BITS STOP-BITS | flow FLOW | lines LINES | errors N | purge N (in hex) | line (prints as for an event)
 *            size COLUMNS ROWS
 *
 * Built with CHARDEV_SPICE it knows the object "spice,fd=N": a spice server that takes its clients from this listening socket.
 */
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"

#include <stdio.h>
#include <stdlib.h>
#ifdef CHARDEV_SPICE
#include "spice_loop.h"
#include <sys/socket.h>
#endif

typedef struct probe {
    chr_context  *ctx;
    chr_frontend  fe;
    chr_frontend  script; /* standard input, and not stdio: our prints need a blocking descriptor 1 */
    int           room;   /* -1 = any */
    char          line[200000];
    size_t        length;
    unsigned char out[100000];
    size_t        out_start, out_end;
} probe;

static probe p;

static void push(void *opaque)
{
    int n = 1;
    (void)opaque;
    while (p.out_start < p.out_end && n > 0) {
        n = chr_fe_write(&p.fe, p.out + p.out_start, p.out_end - p.out_start);
        if (n > 0) p.out_start += (size_t)n;
    }
    if (n == CHR_ERR_WOULD_BLOCK) chr_fe_add_watch(&p.fe, push, NULL);
    else printf("wrote %d\n", n > 0 ? (int)p.out_end : n);
}

static void write_hex(const char *hex)
{
    unsigned byte;
    p.out_start = p.out_end = 0;
    for (; sscanf(hex, "%2x", &byte) == 1; hex += 2) p.out[p.out_end++] = (unsigned char)byte;
    push(NULL);
}

static void print_serial(void)
{
    chr_serial_params params;
    int               flow, lines;
    if (chr_fe_ioctl(&p.fe, CHR_IOCTL_SERIAL_GET_PARAMS, &params) < 0 || chr_fe_ioctl(&p.fe, CHR_IOCTL_SERIAL_GET_FLOW, &flow) < 0 ||
        chr_fe_ioctl(&p.fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines) < 0)
        puts("serial none");
    else printf("serial %d %c %d %d %d %x\n", params.speed, params.parity, params.data_bits, params.stop_bits, flow, (unsigned)lines);
}

static void set_serial(const char *line)
{
    chr_serial_params params;
    chr_terminal_size size;
    char              parity;
    unsigned          value;
    int               code = CHR_ERR_INVALID;
    if (sscanf(line, "params %d %c %d %d", &params.speed, &parity, &params.data_bits, &params.stop_bits) == 4) {
        params.parity = parity;
        code = chr_fe_ioctl(&p.fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params);
    } else if (sscanf(line, "flow %x", &value) == 1) {
        code = chr_fe_ioctl(&p.fe, CHR_IOCTL_SERIAL_SET_FLOW, &value);
    } else if (sscanf(line, "lines %x", &value) == 1) {
        code = chr_fe_ioctl(&p.fe, CHR_IOCTL_SERIAL_SET_TIOCM, &value);
    } else if (sscanf(line, "errors %x", &value) == 1) {
        code = chr_fe_ioctl(&p.fe, CHR_IOCTL_SERIAL_SET_ERRORS, &value);
    } else if (sscanf(line, "purge %x", &value) == 1) {
        code = chr_fe_ioctl(&p.fe, CHR_IOCTL_SERIAL_PURGE, &value);
    } else if (sscanf(line, "size %d %d", &size.columns, &size.rows) == 2) {
        code = chr_fe_ioctl(&p.fe, CHR_IOCTL_SET_TERMINAL_SIZE, &size);
    }
    printf("ioctl %d\n", code);
}

static void obey(const char *line)
{
    int on = 1;
    if (strncmp(line, "write ", 6) == 0) write_hex(line + 6);
    else if (strcmp(line, "line") == 0) print_serial();
    else if (strcmp(line, "break") == 0) printf("ioctl %d\n", chr_fe_ioctl(&p.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on));
    else if (strcmp(line, "disconnect") == 0) chr_fe_disconnect(&p.fe);
    else if (strcmp(line, "open") == 0) chr_fe_set_open(&p.fe, 1);
    else if (strcmp(line, "close") == 0) chr_fe_set_open(&p.fe, 0);
    else if (strcmp(line, "quit") == 0) chr_loop_stop(p.ctx);
    else if (strncmp(line, "room ", 5) == 0) p.room = atoi(line + 5), chr_fe_accept_input(&p.fe);
    else set_serial(line);
}

static void script_read(void *opaque, const void *buf, size_t len)
{
    const char *text = (const char *)buf;
    size_t      i;
    (void)opaque;
    for (i = 0; i < len; i++) {
        if (text[i] != '\n' && p.length + 1 < sizeof p.line) p.line[p.length++] = text[i];
        if (text[i] != '\n') continue;
        p.line[p.length] = 0;
        p.length = 0;
        obey(p.line);
    }
}

static void script_event(void *opaque, int event)
{
    (void)opaque;
    if (event == CHR_EVENT_CLOSED) chr_loop_stop(p.ctx);
}

static int can_read(void *opaque)
{
    (void)opaque;
    return p.room < 0 ? 65536 : p.room;
}

static void got(void *opaque, const void *buf, size_t len)
{
    const unsigned char *bytes = (const unsigned char *)buf;
    size_t               i;
    (void)opaque;
    if (p.room > 0) p.room -= (int)len;
    fputs("data ", stdout);
    for (i = 0; i < len; i++) printf("%02x", bytes[i]);
    putchar('\n');
}

static void happened(void *opaque, int event)
{
    chr_terminal_size size = { 0, 0 };
    int               errors = 0;
    (void)opaque;
    if (event == CHR_EVENT_OPENED) puts("opened");
    else if (event == CHR_EVENT_CLOSED) puts("closed");
    else if (event == CHR_EVENT_BREAK) puts("break");
    else if (event == CHR_EVENT_SERIAL) print_serial();
    else if (event == CHR_EVENT_PURGE_RECEIVE) puts("purged receive");
    else if (event == CHR_EVENT_PURGE_TRANSMIT) puts("purged transmit");
    else if (event == CHR_EVENT_LINE_ERROR && chr_fe_ioctl(&p.fe, CHR_IOCTL_SERIAL_GET_ERRORS, &errors) == 0) printf("errors %x\n", (unsigned)errors);
    else if (event == CHR_EVENT_RESIZED && chr_fe_ioctl(&p.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size) == 0)
        printf("resized %d %d\n", size.columns, size.rows);
    else printf("event %d\n", event);
}

static void on_log(void *opaque, const char *line)
{
    (void)opaque;
    printf("log %s\n", line);
}

#ifdef CHARDEV_SPICE
static SpiceServer *spice_server;
static chr_watch    spice_listener;

static void spice_client_comes(void *opaque, int events)
{
    int fd = accept(spice_listener.fd, NULL, NULL);
    (void)opaque, (void)events;
    if (fd >= 0 && spice_server_add_client(spice_server, fd, 0) < 0) close(fd);
}

static int spice_start(const char *text)
{
    if (strncmp(text, "spice,fd=", 9) != 0) return 0;
    spice_server = spice_loop_server(p.ctx);
    chr_spice_set_server(p.ctx, spice_server);
    return chr_watch_start(p.ctx, &spice_listener, atoi(text + 9), CHR_IN, spice_client_comes, NULL) == 0;
}

static void spice_stop(void)
{
    chr_dev *dev = p.fe.dev;
    if (!spice_server) return;
    chr_fe_deinit(&p.fe);
    if (dev) chr_remove(p.ctx, dev->id, NULL);
    spice_server_destroy(spice_server);
}
#else
static int  spice_start(const char *text) { (void)text; return 0; }
static void spice_stop(void) {}
#endif

static int add_objects(char **texts)
{
    chr_error err;
    int       code = 0;
    for (; *texts && code == 0; texts++) {
        if (spice_start(*texts)) continue;
        code = strncmp(*texts, "authz", 5) == 0 ? chr_authz_add(p.ctx, *texts, &err) : chr_tls_creds_add(p.ctx, *texts, &err);
        if (code < 0) printf("failed %s\n", err.text);
    }
    return code == 0;
}

static int attach(chr_frontend *fe, const char *options, const chr_handlers *handlers)
{
    chr_error err;
    chr_info  info;
    chr_dev  *dev = chr_new(p.ctx, options, &err);
    if (!dev || chr_fe_init(fe, dev, &err) < 0) {
        printf("failed %s\n", err.text);
        return 0;
    }
    chr_query(dev, &info);
    if (fe == &p.fe) printf("made %s\n", info.address);
    chr_fe_set_handlers(fe, handlers, NULL);
    return 1;
}

int main(int argc, char **argv)
{
    static const chr_handlers script = { NULL, script_read, script_event, NULL }, handlers = { can_read, got, happened, NULL };
    chr_config                config;
    int                       ok;
    memset(&config, 0, sizeof config);
    config.log = on_log;
    setvbuf(stdout, NULL, _IOLBF, 0);
    p.ctx = chr_context_new(&config);
    p.room = -1;
    ok = argc >= 2 && p.ctx && add_objects(argv + 2) && attach(&p.fe, argv[1], &handlers) && attach(&p.script, "fd,id=script,in=0", &script);
    if (ok) chr_loop_run(p.ctx);
    spice_stop();
    chr_context_free(p.ctx);
    return !ok;
}
