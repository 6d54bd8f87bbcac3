/*
 * monitor_qmp.c - the control monitor: QMP, as existing clients speak it.
 *
 * Commands are JSON objects, in pieces of any size. Each has one reply, in order; events are sent between replies. A
 * session starts with a greeting and capabilities negotiation (qmp_capabilities), and ends when the peer disconnects.
 * After enable: ["oob"] a command may be sent as exec-oob too; all commands are short, so all run in order.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "json.h"
#include "monitor.h"
#include "qmp_chardev.h"
#include "vm.h"

#define READ_MAX (4u * 1024 * 1024) /* bytes of text in one reply of ringbuf-read */

struct qmp {
    struct monitor     base; /* first */
    struct json_cutter cutter;
    struct buf         input;      /* received and not yet handled: the output queue is long */
    int                negotiated; /* capabilities negotiation is complete */
    int                oob;        /* exec-oob was enabled in it */
    int                stepping;   /* the reply is sent when the clock step ends; further commands wait for it */
    struct buf         step_id;    /* the command's id, for that reply: JSON, or empty */
    int                working;    /* in handle_input(), which is not re-entered by drained() */
};

struct call {
    struct qmp           *qmp;
    struct vm            *vm;
    const struct command *commands; /* the table */
    const struct json    *args;     /* an object, checked against the command's parameters */
    struct buf            result;   /* JSON; empty = {} */
    int                   is_later; /* the reply is sent later */
    const char           *error_class;
    chr_error             err;
};

struct command {
    const char *name;
    const char *params; /* "name:type name:type?": s string, n number, o object, a array, ? optional */
    int       (*run)(struct call *c); /* < 0: c->err is set */
};

/* ---- helpers ---- */

static int fail(struct call *c, int code, const char *format, ...) CHR_PRINTF(3, 4);

static int fail(struct call *c, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(c->err.text, sizeof c->err.text, format, args);
    va_end(args);
    return c->err.code = code;
}

static const char *text_arg(const struct call *c, const char *name)
{
    const struct json *value = json_member(c->args, name);
    return value ? value->text : NULL;
}

/* ====================================================================================================================
 * commands
 * ================================================================================================================== */

static int qmp_capabilities(struct call *c)
{
    const struct json *enable = json_member(c->args, "enable");
    int                i = 0;
    for (const struct json *word = enable ? enable->child : NULL; word; word = word->next, i++) {
        if (!json_is_text(word))
            return fail(c, CHR_ERR_INVALID, "Invalid parameter type for 'enable[%d]', expected: string", i);
        if (strcmp(word->text, "oob") != 0)
            return fail(c, CHR_ERR_INVALID, "Parameter 'enable[%d]' does not accept value '%s'", i, word->text);
    }
    c->qmp->oob = i > 0;
    c->qmp->negotiated = 1;
    return 0;
}

static void put_version(struct buf *out)
{
    int major = 0, minor = 0, micro = 0;
    sscanf(CHARDEV_VERSION, "%d.%d.%d", &major, &minor, &micro);
    json_open(out, '{');
    json_key(out, "qemu"); /* the key that clients expect */
    json_open(out, '{');
    json_key(out, "micro"), json_number(out, micro);
    json_key(out, "minor"), json_number(out, minor);
    json_key(out, "major"), json_number(out, major);
    json_close(out, '}');
    json_key(out, "package"), json_text(out, "tinyvm " CHARDEV_VERSION);
    json_close(out, '}');
}

static void put_name(struct buf *out, const char *name)
{
    json_open(out, '{');
    json_key(out, "name"), json_text(out, name);
    json_close(out, '}');
}

static int query_version(struct call *c)
{
    put_version(&c->result);
    return 0;
}

static int query_commands(struct call *c)
{
    json_open(&c->result, '[');
    for (const struct command *cmd = c->commands; cmd->name; cmd++) put_name(&c->result, cmd->name);
    json_close(&c->result, ']');
    return 0;
}

static int query_status(struct call *c)
{
    json_open(&c->result, '{');
    json_key(&c->result, "status"), json_text(&c->result, vm_state_name(c->vm));
    json_key(&c->result, "singlestep"), json_bool(&c->result, 0);
    json_key(&c->result, "running"), json_bool(&c->result, c->vm->state == VM_RUNNING);
    json_close(&c->result, '}');
    return 0;
}

static int query_chardev(struct call *c)
{
    json_open(&c->result, '[');
    for (const chr_dev *dev = chr_next(c->vm->ctx, NULL); dev; dev = chr_next(c->vm->ctx, dev)) {
        chr_info info;
        chr_query(dev, &info);
        json_open(&c->result, '{');
        json_key(&c->result, "frontend-open"), json_bool(&c->result, info.frontend_open);
        json_key(&c->result, "filename"), json_text(&c->result, info.filename);
        json_key(&c->result, "label"), json_text(&c->result, info.id);
        json_close(&c->result, '}');
    }
    json_close(&c->result, ']');
    return 0;
}

static int query_chardev_backends(struct call *c)
{
    json_open(&c->result, '[');
    for (const chr_backend *kind = chr_backend_next(c->vm->ctx, NULL); kind;
         kind = chr_backend_next(c->vm->ctx, kind)) {
        put_name(&c->result, kind->name);
        if (kind->alias) put_name(&c->result, kind->alias);
    }
    json_close(&c->result, ']');
    return 0;
}

/* The result of chardev-add and chardev-change: the path of a new pty. */
static void put_chardev(struct call *c, const char *id)
{
    const chr_dev *dev = chr_find(c->vm->ctx, id);
    chr_info       info = { 0 };
    if (dev) chr_query(dev, &info);
    const char *pty = strstr(info.filename, "pty:");
    json_open(&c->result, '{');
    if (pty && !strcmp(info.backend, "pty")) json_key(&c->result, "pty"), json_text(&c->result, pty + 4);
    json_close(&c->result, '}');
}

static int make_chardev(struct call *c, const char *id, const char *options, int change)
{
    if (change) return chr_change_from(c->vm->ctx, CHR_REMOTE, id, options, &c->err);
    return chr_new_from(c->vm->ctx, CHR_REMOTE, options, &c->err) ? 0 : c->err.code;
}

static int add_or_change(struct call *c, int change)
{
    const char *id = text_arg(c, "id");
    struct buf  options = { NULL, 0, 0 };
    int rc = qmp_chardev_options(json_member(c->args, "backend"), id, &options, c->err.text, sizeof c->err.text);
    if (rc == 0) rc = make_chardev(c, id, options.data, change);
    if (rc == 0) put_chardev(c, id);
    buf_free(&options);
    return rc;
}

static int chardev_add(struct call *c)
{
    return add_or_change(c, 0);
}

static int chardev_change(struct call *c)
{
    return add_or_change(c, 1);
}

static int chardev_remove(struct call *c)
{
    return chr_remove(c->vm->ctx, text_arg(c, "id"), &c->err);
}

static int chardev_send_break(struct call *c)
{
    return chr_send_break(c->vm->ctx, text_arg(c, "id"), &c->err);
}

static int getfd(struct call *c)
{
    return monitor_getfd(c->vm, &c->qmp->base.fe, text_arg(c, "fdname"), &c->err);
}

static int closefd(struct call *c)
{
    return chr_fd_close(c->vm->ctx, text_arg(c, "fdname"), &c->err);
}

#ifdef _WIN32
static int get_win32_socket(struct call *c)
{
    int fd = host_take_socket(text_arg(c, "info"));
    if (fd == -1)
        return fail(c, CHR_ERR_INVALID, "info is not what WSADuplicateSocketW() has filled in for this process");
    int rc = chr_fd_put(c->vm->ctx, text_arg(c, "fdname"), fd, &c->err);
    if (rc < 0) host_close_socket(fd);
    return rc;
}
#endif

/* Parses the device and format arguments of the ringbuf commands. */
static chr_dev *ringbuf_args(struct call *c, chr_format *format)
{
    const char *device = text_arg(c, "device"), *word = text_arg(c, "format");
    chr_dev    *dev = chr_find(c->vm->ctx, device);
    *format = word && !strcmp(word, "base64") ? CHR_BASE64 : CHR_UTF8;
    if (!dev) fail(c, CHR_ERR_NOT_FOUND, "there is no chardev '%s'", device);
    if (word && strcmp(word, "utf8") != 0 && strcmp(word, "base64") != 0) {
        fail(c, CHR_ERR_INVALID, "format must be utf8 or base64, not '%s'", word);
        return NULL;
    }
    return dev;
}

static int ringbuf_write(struct call *c)
{
    chr_format         format;
    chr_dev           *dev = ringbuf_args(c, &format);
    const struct json *data = json_member(c->args, "data");
    return dev ? chr_ringbuf_write(dev, data->text, data->len, format, &c->err) : -1;
}

/* The largest text of `size` bytes: U+FFFD is three bytes, base64 has four for three. */
static size_t text_room(const chr_dev *dev, int64_t size)
{
    int count = chr_ringbuf_count(dev);
    int64_t bytes = count < size ? count : size;
    if (bytes < 0) bytes = 0;
    return bytes > READ_MAX / 3 - 4 ? READ_MAX : (size_t)bytes * 3 + 8;
}

static int ringbuf_read(struct call *c)
{
    chr_format format;
    int64_t    size;
    chr_dev   *dev = ringbuf_args(c, &format);
    if (!dev) return -1;
    if (!json_integer(json_member(c->args, "size"), &size) || size <= 0)
        return fail(c, CHR_ERR_INVALID, "size must be a whole number above zero");
    size_t room = text_room(dev, size);
    char  *text = xcalloc(room, 1);
    int    len = chr_ringbuf_read(dev, size > READ_MAX ? READ_MAX : (size_t)size, format, text, room, &c->err);
    if (len >= 0) json_string(&c->result, text, (size_t)len);
    free(text);
    return len;
}

static int clock_step(struct call *c)
{
    const struct json *arg = json_member(c->args, "ns");
    int64_t            ns = -1;
    if (arg && (!json_integer(arg, &ns) || ns < 0 || ns > INT64_MAX / 4))
        return fail(c, CHR_ERR_INVALID, "ns must be a whole number, not below zero");
    int rc = vm_clock_step(c->vm, &c->qmp->base, ns, &c->err);
    c->is_later = rc == 0;
    return rc;
}

static int stop(struct call *c)
{
    vm_stop(c->vm);
    return 0;
}

static int cont(struct call *c)
{
    vm_cont(c->vm);
    return 0;
}

static int system_reset(struct call *c)
{
    vm_request_reset(c->vm, 0, "host-qmp-system-reset");
    return 0;
}

static int quit(struct call *c)
{
    vm_request_shutdown(c->vm, 0, "host-qmp-quit", 0);
    return 0;
}

static int human_monitor_command(struct call *c)
{
    struct buf out = { NULL, 0, 0 }, crlf = { NULL, 0, 0 };
    hmp_execute(c->vm, &c->qmp->base.fe, text_arg(c, "command-line"), &out);
    for (const char *p = buf_text(&out); *p; p++) {
        if (*p == '\n') buf_putc(&crlf, '\r');
        buf_putc(&crlf, *p);
    }
    json_string(&c->result, buf_text(&crlf), crlf.len);
    buf_free(&out);
    buf_free(&crlf);
    return 0;
}

static const struct command commands[] = {
    { "qmp_capabilities",       "enable:a?",                  qmp_capabilities },
    { "query-version",          "",                           query_version },
    { "query-commands",         "",                           query_commands },
    { "query-status",           "",                           query_status },
    { "query-chardev",          "",                           query_chardev },
    { "query-chardev-backends", "",                           query_chardev_backends },
    { "chardev-add",            "id:s backend:o",             chardev_add },
    { "chardev-change",         "id:s backend:o",             chardev_change },
    { "chardev-remove",         "id:s",                       chardev_remove },
    { "chardev-send-break",     "id:s",                       chardev_send_break },
    { "getfd",                  "fdname:s",                   getfd },
    { "closefd",                "fdname:s",                   closefd },
#ifdef _WIN32
    { "get-win32-socket",       "info:s fdname:s",            get_win32_socket },
#endif
    { "ringbuf-write",          "device:s data:d format:s?",  ringbuf_write },
    { "ringbuf-read",           "device:s size:n format:s?",  ringbuf_read },
    { "clock_step",             "ns:n?",                      clock_step },
    { "stop",                   "",                           stop },
    { "cont",                   "",                           cont },
    { "system_reset",           "",                           system_reset },
    { "quit",                   "",                           quit },
    { "human-monitor-command",  "command-line:s",             human_monitor_command },
    { NULL, NULL, NULL }
};

/* ====================================================================================================================
 * a message
 * ================================================================================================================== */

/* ---- checks ---- */

/* Finds "name:" in a command's parameters. Returns a pointer to the type letter. */
static const char *find_param(const char *params, const char *name)
{
    size_t len = strlen(name);
    for (const char *p = params; *p; p += strcspn(p, " "), p += strspn(p, " "))
        if (!strncmp(p, name, len) && p[len] == ':') return p + len + 1;
    return NULL;
}

static int has_type(const struct json *value, char letter)
{
    switch (letter) {
    case 's': return json_is_text(value);
    case 'd': return value->type == JSON_STRING; /* data may contain zero bytes */
    case 'n': return value->type == JSON_NUMBER;
    case 'o': return value->type == JSON_OBJECT;
    default: return value->type == JSON_ARRAY;
    }
}

static const char *expected_type(char letter)
{
    return letter == 's' || letter == 'd' ? "string" : letter == 'n' ? "integer" : letter == 'o' ? "object" : "array";
}

static int check_args(struct call *c, const char *params)
{
    for (const struct json *m = c->args->child; m; m = m->next) {
        const char *type = find_param(params, m->key);
        if (!type) return fail(c, CHR_ERR_INVALID, "Parameter '%s' is unexpected", m->key);
        if (!has_type(m, *type))
            return fail(c, CHR_ERR_INVALID, "Invalid parameter type for '%s', expected: %s", m->key,
                        expected_type(*type));
    }
    for (const char *p = params; *p; p += strcspn(p, " "), p += strspn(p, " ")) {
        char   name[32];
        size_t len = strcspn(p, ":");
        snprintf(name, sizeof name, "%.*s", (int)len, p);
        if (p[len + 2] != '?' && !json_member(c->args, name))
            return fail(c, CHR_ERR_INVALID, "Parameter '%s' is missing", name);
    }
    return 0;
}

/* Checks the structure of the message. Returns the command's name, or NULL. */
static const char *check_message(struct call *c, const struct json *message)
{
    if (message->type != JSON_OBJECT) {
        fail(c, CHR_ERR_INVALID, "QMP input must be a JSON object");
        return NULL;
    }
    const struct json *execute = json_member(message, "execute"), *args = json_member(message, "arguments");
    const struct json *oob = c->qmp->oob ? json_member(message, "exec-oob") : NULL;
    for (const struct json *m = message->child; m; m = m->next)
        if (strcmp(m->key, "execute") != 0 && strcmp(m->key, "arguments") != 0 && strcmp(m->key, "id") != 0 && m != oob)
            fail(c, CHR_ERR_INVALID, "QMP input member '%s' is unexpected", m->key);
    if (!c->err.code && oob && execute) fail(c, CHR_ERR_INVALID, "QMP input member 'execute' clashes with 'exec-oob'");
    if (oob) execute = oob;
    if (!c->err.code && !execute) fail(c, CHR_ERR_INVALID, "QMP input lacks member 'execute'");
    if (!c->err.code && !json_is_text(execute))
        fail(c, CHR_ERR_INVALID, "QMP input member '%s' must be a string", execute->key);
    if (!c->err.code && args && args->type != JSON_OBJECT)
        fail(c, CHR_ERR_INVALID, "QMP input member 'arguments' must be an object");
    return c->err.code ? NULL : execute->text;
}

static const struct command *find_command(struct call *c, const char *name)
{
    int negotiation = !strcmp(name, "qmp_capabilities");
    c->error_class = "CommandNotFound";
    if (!c->qmp->negotiated && !negotiation)
        fail(c, CHR_ERR_NOT_FOUND, "Expecting capabilities negotiation with 'qmp_capabilities'");
    else if (c->qmp->negotiated && negotiation)
        fail(c, CHR_ERR_NOT_FOUND, "Capabilities negotiation is already complete, command ignored");
    else
        for (const struct command *cmd = c->commands; cmd->name; cmd++)
            if (!strcmp(cmd->name, name)) return cmd;
    if (!c->err.code) fail(c, CHR_ERR_NOT_FOUND, "The command %s has not been found", name);
    return NULL;
}

static int execute(struct call *c, const struct json *message)
{
    static const struct json no_args = { JSON_OBJECT, 0, NULL, 0, NULL, NULL, NULL };
    const char              *name = check_message(c, message);
    const struct command    *cmd = name ? find_command(c, name) : NULL;
    if (!cmd) return -1;
    c->error_class = "GenericError";
    c->args = json_member(message, "arguments");
    if (!c->args) c->args = &no_args;
    return check_args(c, cmd->params) < 0 ? -1 : cmd->run(c);
}

/* ---- replies ---- */

static void send_line(struct qmp *q, struct buf *line)
{
    buf_puts(line, "\r\n");
    monitor_send(&q->base, line->data, line->len);
    buf_free(line);
}

static void put_error(struct buf *out, const char *error_class, const char *text)
{
    json_key(out, "error");
    json_open(out, '{');
    json_key(out, "class"), json_text(out, error_class);
    json_key(out, "desc"), json_text(out, text);
    json_close(out, '}');
}

static void answer(struct qmp *q, struct call *c, int rc, const struct json *message)
{
    struct buf         line = { NULL, 0, 0 };
    const struct json *id = message->type == JSON_OBJECT ? json_member(message, "id") : NULL;
    json_open(&line, '{');
    if (rc < 0) put_error(&line, c->error_class, c->err.text);
    else json_key(&line, "return"), json_raw(&line, c->result.len ? c->result.data : "{}");
    if (id) json_key(&line, "id"), json_value(&line, id);
    json_close(&line, '}');
    send_line(q, &line);
}

static void parse_error(struct qmp *q, const char *what)
{
    struct buf line = { NULL, 0, 0 };
    char       text[160];
    snprintf(text, sizeof text, "JSON parse error, %s", what);
    json_open(&line, '{');
    put_error(&line, "GenericError", text);
    json_close(&line, '}');
    send_line(q, &line);
}

static void begin_step(struct qmp *q, const struct json *message)
{
    const struct json *id = json_member(message, "id");
    q->stepping = 1;
    buf_clear(&q->step_id);
    if (id) json_value(&q->step_id, id);
}

static void handle_message(struct qmp *q)
{
    const char  *error;
    struct json *message = json_read(q->cutter.message.data, q->cutter.message.len, &error);
    struct call  c;
    if (!message) {
        parse_error(q, error);
        return;
    }
    memset(&c, 0, sizeof c);
    c.qmp = q;
    c.vm = q->base.vm;
    c.commands = commands;
    c.error_class = "GenericError";
    int rc = execute(&c, message);
    if (c.is_later) begin_step(q, message);
    else answer(q, &c, rc, message);
    buf_free(&c.result);
    json_free(message);
}

/* ---- input. Back-pressure: no command is handled while the output queue is long ---- */

static void handle_input(struct qmp *q)
{
    if (q->working) return;
    q->working = 1;
    while (q->input.len && !q->stepping && !monitor_busy(&q->base)) {
        size_t        used;
        enum json_cut cut = json_cut(&q->cutter, q->input.data, q->input.len, &used);
        buf_drop(&q->input, used);
        if (cut == JSON_CUT_MESSAGE) handle_message(q);
        if (cut == JSON_CUT_ERROR) parse_error(q, q->cutter.error);
    }
    q->working = 0;
    if (!q->input.len) chr_fe_accept_input(&q->base.fe);
}

static int can_read(void *opaque)
{
    struct qmp *q = opaque;
    return q->input.len || monitor_busy(&q->base) ? 0 : MONITOR_INPUT;
}

static void got_input(void *opaque, const void *buf, size_t len)
{
    struct qmp *q = opaque;
    buf_put(&q->input, buf, len);
    handle_input(q);
}

/* The clock step has ended: sends the reply. */
static void stepped(struct monitor *monitor, int64_t now)
{
    struct qmp *q = (struct qmp *)monitor;
    struct buf  line = { NULL, 0, 0 };
    json_open(&line, '{');
    json_key(&line, "return");
    json_open(&line, '{');
    json_key(&line, "time"), json_number(&line, now);
    json_close(&line, '}');
    if (q->step_id.len) json_key(&line, "id"), json_raw(&line, buf_text(&q->step_id));
    json_close(&line, '}');
    send_line(q, &line);
    q->stepping = 0;
    handle_input(q);
}

static void drained(struct monitor *monitor)
{
    handle_input((struct qmp *)monitor);
}

static void greet(struct qmp *q)
{
    struct buf line = { NULL, 0, 0 };
    json_open(&line, '{');
    json_key(&line, "QMP");
    json_open(&line, '{');
    json_key(&line, "version"), put_version(&line);
    json_key(&line, "capabilities"), json_raw(&line, "[\"oob\"]");
    json_close(&line, '}');
    json_close(&line, '}');
    send_line(q, &line);
}

static void forget_session(struct qmp *q)
{
    monitor_drop_output(&q->base);
    json_cut_reset(&q->cutter);
    buf_clear(&q->input);
    q->negotiated = q->oob = q->stepping = 0;
    if (q->base.vm->stepper == &q->base) q->base.vm->stepper = NULL; /* the step continues, without a reply */
}

static void got_event(void *opaque, int event)
{
    struct qmp *q = opaque;
    if (event == CHR_EVENT_OPENED) greet(q);
    if (event == CHR_EVENT_CLOSED) forget_session(q);
}

/* ---- events of the VM ---- */

static void tell_event(struct monitor *monitor, const char *name, const char *data)
{
    struct qmp *q = (struct qmp *)monitor;
    struct buf  line = { NULL, 0, 0 };
    if (!q->negotiated) return;
    int64_t now = vtime_wall_clock(monitor->vm);
    json_open(&line, '{');
    json_key(&line, "timestamp");
    json_open(&line, '{');
    json_key(&line, "seconds"), json_number(&line, now / 1000000000);
    json_key(&line, "microseconds"), json_number(&line, now % 1000000000 / 1000);
    json_close(&line, '}');
    json_key(&line, "event"), json_text(&line, name);
    if (data) json_key(&line, "data"), json_raw(&line, data);
    json_close(&line, '}');
    send_line(q, &line);
}

static void free_qmp(struct monitor *monitor)
{
    struct qmp *q = (struct qmp *)monitor;
    buf_free(&q->cutter.message);
    buf_free(&q->input);
    buf_free(&q->step_id);
    free(q);
}

struct monitor *qmp_new(struct vm *vm, chr_dev *dev, chr_error *err)
{
    static const chr_handlers handlers = { .can_read = can_read, .read = got_input, .event = got_event };
    struct qmp               *q = xcalloc(1, sizeof *q);
    q->base.vm = vm;
    q->base.event = tell_event;
    q->base.stepped = stepped;
    q->base.drained = drained;
    q->base.free = free_qmp;
    if (chr_fe_init(&q->base.fe, dev, err) < 0) {
        free(q);
        return NULL;
    }
    chr_fe_set_handlers(&q->base.fe, &handlers, q);
    return &q->base;
}
