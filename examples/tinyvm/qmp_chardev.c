/*
 * qmp_chardev.c - one table per kind of backend: the members of `data`, and the option of each.
 *
 * Only JSON types are checked here. Values are checked by the option tables in chardev.h.
 */
#include "qmp_chardev.h"

#include <stdio.h>
#include <string.h>

enum field_type { TEXT, TRUTH, WHOLE, TEXTS, ADDRESS, REMOTE_ADDRESS, LOCAL_ADDRESS };

struct field {
    const char     *member;
    enum field_type type;
    int             required;
    const char     *option;
    const char     *fallback; /* QMP's default, when it differs from the option's */
};

struct kind {
    const char  *type;   /* in QMP */
    const char  *prefix; /* start of the options */
    struct field fields[12]; /* ends with an empty one */
};

#define NO_FIELDS { NULL, TEXT, 0, NULL, NULL }

/* Common to all kinds; the last two are extensions of tinyvm. */
static const struct field common[] = {
    { "logfile", TEXT, 0, "logfile", NULL },
    { "logappend", TRUTH, 0, "logappend", NULL },
    { "logtimestamp", TRUTH, 0, "logtimestamp", NULL },
    { "history", WHOLE, 0, "history", NULL },
    { "obuf", WHOLE, 0, "obuf", NULL },
    NO_FIELDS
};

static const struct kind kinds[] = {
    { "null", "null", { NO_FIELDS } },
    { "msmouse", "msmouse", { NO_FIELDS } },
    { "wctablet", "wctablet", { NO_FIELDS } },
    { "braille", "braille", { NO_FIELDS } },
    { "testdev", "testdev", { NO_FIELDS } },
    { "console", "console", { NO_FIELDS } },
    { "ringbuf", "ringbuf", { { "size", WHOLE, 0, "size", NULL } } },
    { "memory", "ringbuf", { { "size", WHOLE, 0, "size", NULL } } },
    { "mux", "mux", { { "chardev", TEXT, 1, "chardev", NULL } } },
    { "hub", "hub", { { "chardevs", TEXTS, 1, "chardevs", NULL } } },
    { "pty", "pty", { { "path", TEXT, 0, "path", NULL } } },
    { "stdio", "stdio", { { "signal", TRUTH, 0, "signal", NULL } } },
    { "pipe", "pipe", { { "device", TEXT, 1, "path", NULL } } },
    { "serial", "serial", { { "device", TEXT, 1, "path", NULL } } },
    { "parallel", "parallel", { { "device", TEXT, 1, "path", NULL } } },
    { "spicevmc", "spicevmc", { { "type", TEXT, 1, "name", NULL } } },
    { "spiceport", "spiceport", { { "fqdn", TEXT, 1, "name", NULL } } },
    { "file", "file",
      { { "out", TEXT, 1, "path", NULL },
        { "in", TEXT, 0, "input-path", NULL },
        { "append", TRUTH, 0, "append", NULL } } },
    { "udp", "udp", { { "remote", REMOTE_ADDRESS, 1, NULL, NULL }, { "local", LOCAL_ADDRESS, 0, NULL, NULL } } },
    { "socket", "socket",
      { { "addr", ADDRESS, 1, NULL, NULL },
        { "server", TRUTH, 0, "server", "on" },
        { "wait", TRUTH, 0, "wait", NULL },
        { "nodelay", TRUTH, 0, "nodelay", NULL },
        { "telnet", TRUTH, 0, "telnet", NULL },
        { "tn3270", TRUTH, 0, "tn3270", NULL },
        { "websocket", TRUTH, 0, "websocket", NULL },
        { "reconnect", WHOLE, 0, "reconnect", NULL },
        { "reconnect-ms", WHOLE, 0, "reconnect-ms", NULL },
        { "tls-creds", TEXT, 0, "tls-creds", NULL },
        { "tls-authz", TEXT, 0, "tls-authz", NULL } } },
};

/* Socket addresses, one level deeper. Datagrams support the first kind only. */
static const struct kind addresses[] = {
    { "inet", "",
      { { "host", TEXT, 1, "host", NULL },
        { "port", TEXT, 1, "port", NULL },
        { "to", WHOLE, 0, "to", NULL },
        { "ipv4", TRUTH, 0, "ipv4", NULL },
        { "ipv6", TRUTH, 0, "ipv6", NULL } } },
    { "unix", "",
      { { "path", TEXT, 1, "path", NULL },
        { "abstract", TRUTH, 0, "abstract", NULL },
        { "tight", TRUTH, 0, "tight", NULL } } },
    { "vsock", "", { { "cid", TEXT, 1, "cid", NULL }, { "port", TEXT, 1, "port", NULL } } },
    { "fd", "", { { "str", TEXT, 1, "fd", NULL } } },
};

static const struct kind local_addresses[] = {
    { "inet", "", { { "host", TEXT, 1, "localaddr", NULL }, { "port", TEXT, 1, "localport", NULL } } },
};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- conversion ---- */

struct walk {
    struct buf *options;
    char       *error;
    size_t      error_size;
};

static int fail(const struct walk *w, const char *where, const char *member, const char *what)
{
    snprintf(w->error, w->error_size, "%s.%s %s", where, member, what);
    return -1;
}

static void put_option(const struct walk *w, const char *option, const char *value)
{
    buf_printf(w->options, ",%s=", option);
    for (; *value; value++) {
        if (*value == ',') buf_putc(w->options, ',');
        buf_putc(w->options, *value);
    }
}

static int put_union(const struct walk *w, const struct json *value, const char *where, const struct kind *table,
                     size_t count);

/* ["a", "b"] becomes option.0=a,option.1=b */
static int put_texts(const struct walk *w, const struct field *f, const struct json *value, const char *where)
{
    char option[64];
    int  index = 0;
    if (value->type != JSON_ARRAY) return fail(w, where, f->member, "must be an array of strings");
    for (const struct json *each = value->child; each; each = each->next, index++) {
        if (!json_is_text(each)) return fail(w, where, f->member, "must be an array of strings");
        snprintf(option, sizeof option, "%s.%d", f->option, index);
        put_option(w, option, each->text);
    }
    return 0;
}

static int put_field(const struct walk *w, const struct field *f, const struct json *value, const char *where)
{
    char    inner[128];
    int64_t number;
    snprintf(inner, sizeof inner, "%s.%s", where, f->member);
    switch (f->type) {
    case TEXT:
        if (!json_is_text(value)) return fail(w, where, f->member, "must be a string");
        put_option(w, f->option, value->text);
        return 0;
    case TEXTS:
        return put_texts(w, f, value, where);
    case TRUTH:
        if (value->type != JSON_BOOL) return fail(w, where, f->member, "must be true or false");
        put_option(w, f->option, value->truth ? "on" : "off");
        return 0;
    case WHOLE:
        if (!json_integer(value, &number)) return fail(w, where, f->member, "must be a whole number");
        put_option(w, f->option, value->text);
        return 0;
    case ADDRESS: return put_union(w, value, inner, addresses, COUNT(addresses));
    case REMOTE_ADDRESS: return put_union(w, value, inner, addresses, 1);
    default: return put_union(w, value, inner, local_addresses, COUNT(local_addresses));
    }
}

static const struct field *find_field(const struct field *fields, const char *member)
{
    for (const struct field *f = fields; f->member; f++)
        if (!strcmp(f->member, member)) return f;
    return NULL;
}

static int check_members(const struct walk *w, const struct field *fields, const struct json *data, const char *where)
{
    for (const struct json *m = data->child; m; m = m->next)
        if (!find_field(fields, m->key) && !find_field(common, m->key)) return fail(w, where, m->key, "is unknown");
    return 0;
}

static int put_fields(const struct walk *w, const struct field *fields, const struct json *data, const char *where)
{
    for (const struct field *f = fields; f->member; f++) {
        const struct json *value = json_member(data, f->member);
        if (value && put_field(w, f, value, where) < 0) return -1;
        if (!value && f->required) return fail(w, where, f->member, "is missing");
        if (!value && f->fallback) put_option(w, f->option, f->fallback);
    }
    return 0;
}

/* {"type": kind, "data": {members of that kind}} */
static int put_union(const struct walk *w, const struct json *value, const char *where, const struct kind *table,
                     size_t count)
{
    char               inner[160];
    const struct json *type = value->type == JSON_OBJECT ? json_member(value, "type") : NULL;
    const struct json *data = value->type == JSON_OBJECT ? json_member(value, "data") : NULL;
    if (value->type != JSON_OBJECT || !type || !json_is_text(type))
        return fail(w, where, "type", "is missing or no string");
    if (!data || data->type != JSON_OBJECT) return fail(w, where, "data", "is missing or no object");
    snprintf(inner, sizeof inner, "%s.data", where);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(table[i].type, type->text) != 0) continue;
        buf_puts(w->options, table[i].prefix);
        if (check_members(w, table[i].fields, data, inner) < 0 || put_fields(w, table[i].fields, data, inner) < 0)
            return -1;
        return *table[i].prefix ? put_fields(w, common, data, inner) : 0;
    }
    snprintf(inner, sizeof inner, "'%.60s' is unknown", type->text);
    return fail(w, where, "type", inner);
}

/* QMP's default of wait= for a server is off; a client has no such option. */
static void put_wait(struct buf *options, const struct json *backend)
{
    const struct json *type = json_member(backend, "type"), *data = json_member(backend, "data");
    const struct json *server = json_member(data, "server");
    if (strcmp(type->text, "socket") != 0 || json_member(data, "wait") || (server && !server->truth)) return;
    buf_puts(options, ",wait=off");
}

int qmp_chardev_options(const struct json *backend, const char *id, struct buf *options, char *error, size_t size)
{
    struct walk w = { options, error, size };
    if (put_union(&w, backend, "backend", kinds, COUNT(kinds)) < 0) return -1;
    put_wait(options, backend);
    put_option(&w, "id", id);
    return 0;
}
