/*
 * monitor_hmp.c - the readline monitor: a prompt, a line, the output of a command.
 *
 * Line editing: Backspace, Ctrl-U (delete the line), Ctrl-W (delete a word), Ctrl-C (cancel the line), Up and Down
 * (history).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor.h"
#include "vm.h"

#define PROMPT      "(tinyvm) "
#define LINE_SIZE   1024
#define HISTORY_MAX 32

struct hmp {
    struct monitor base; /* first */
    char           line[LINE_SIZE];
    size_t         len;
    char          *history[HISTORY_MAX];
    int            history_count, history_at;
    int            escape;       /* state of escape sequences: 0 none, 1 after ESC, 2 after ESC [ */
    int            after_cr;     /* ignore the LF of a CR LF */
    int            prompt_shown; /* since the last OPENED */
};

/* ====================================================================================================================
 * commands
 * ================================================================================================================== */

struct call {
    struct vm            *vm;
    chr_frontend         *fe;
    struct buf           *out;
    char                **arg;
    const struct command *commands; /* the table */
};

struct command {
    const char *name, *alias;
    int         args; /* number of required arguments */
    const char *usage, *help;
    void      (*run)(const struct call *c);
};

static void report(const struct call *c, int rc, const chr_error *err)
{
    if (rc < 0) buf_printf(c->out, "Error: %s\n", err->text);
}

static void print_help_line(void *opaque, const char *line)
{
    buf_printf(opaque, "%s\n", line);
}

static void do_help(const struct call *c)
{
    for (const struct command *cmd = c->commands; cmd->name; cmd++) {
        if (c->arg[0] && strcmp(c->arg[0], cmd->name) != 0) continue;
        buf_printf(c->out, "%s%s%s -- %s\n", cmd->name, *cmd->usage ? " " : "", cmd->usage, cmd->help);
    }
}

static void do_quit(const struct call *c)
{
    vm_request_shutdown(c->vm, 0, "host-qmp-quit", 0);
}

static void do_stop(const struct call *c)
{
    vm_stop(c->vm);
}

static void do_cont(const struct call *c)
{
    vm_cont(c->vm);
}

static void do_reset(const struct call *c)
{
    vm_request_reset(c->vm, 0, "host-qmp-system-reset");
}

static void info_status(const struct call *c)
{
    static const char *const texts[] = { "paused (prelaunch)", "running", "paused" };
    buf_printf(c->out, "VM status: %s\n", texts[c->vm->state]);
}

static void info_chardev(const struct call *c)
{
    for (const chr_dev *dev = chr_next(c->vm->ctx, NULL); dev; dev = chr_next(c->vm->ctx, dev)) {
        chr_info info;
        chr_query(dev, &info);
        buf_printf(c->out, "%s: filename=%s\n", info.id, info.filename);
    }
}

static void do_info(const struct call *c)
{
    if (c->arg[0] && !strcmp(c->arg[0], "status")) info_status(c);
    else if (c->arg[0] && !strcmp(c->arg[0], "chardev")) info_chardev(c);
    else if (c->arg[0]) buf_printf(c->out, "unknown command: 'info %s'\n", c->arg[0]);
    else buf_puts(c->out, "info chardev  -- the character devices\ninfo status  -- running or paused\n");
}

/* Prints the help that the options request in place of a chardev. */
static void chardev_help(const struct call *c, const char *options)
{
    char   backend[64];
    size_t len = strcspn(options, ",");
    snprintf(backend, sizeof backend, "%.*s", len < sizeof backend ? (int)len : (int)sizeof backend - 1, options);
    if (chr_help(c->vm->ctx, backend[0] == '?' ? NULL : backend, print_help_line, c->out) < 0)
        buf_printf(c->out, "Error: '%s' is not the name of a backend\n", backend);
}

static void do_chardev_add(const struct call *c)
{
    chr_error err;
    if (chr_new_from(c->vm->ctx, CHR_REMOTE, c->arg[0], &err)) return;
    if (err.code == CHR_ERR_HELP) chardev_help(c, c->arg[0]);
    else report(c, err.code, &err);
}

static void do_chardev_change(const struct call *c)
{
    chr_error err;
    int       rc = chr_change_from(c->vm->ctx, CHR_REMOTE, c->arg[0], c->arg[1], &err);
    if (rc == CHR_ERR_HELP) chardev_help(c, c->arg[1]);
    else report(c, rc, &err);
}

static void do_chardev_remove(const struct call *c)
{
    chr_error err;
    report(c, chr_remove(c->vm->ctx, c->arg[0], &err), &err);
}

static void do_chardev_send_break(const struct call *c)
{
    chr_error err;
    report(c, chr_send_break(c->vm->ctx, c->arg[0], &err), &err);
}

static void do_getfd(const struct call *c)
{
    chr_error err;
    report(c, monitor_getfd(c->vm, c->fe, c->arg[0], &err), &err);
}

static void do_closefd(const struct call *c)
{
    chr_error err;
    report(c, chr_fd_close(c->vm->ctx, c->arg[0], &err), &err);
}

static chr_dev *named_chardev(const struct call *c)
{
    chr_dev *dev = chr_find(c->vm->ctx, c->arg[0]);
    if (!dev) buf_printf(c->out, "Error: there is no chardev '%s'\n", c->arg[0]);
    return dev;
}

static void do_ringbuf_write(const struct call *c)
{
    chr_error err;
    chr_dev  *dev = named_chardev(c);
    if (dev) report(c, chr_ringbuf_write(dev, c->arg[1], strlen(c->arg[1]), CHR_UTF8, &err), &err);
}

/* Prints control characters as \ooo. */
static void print_escaped(struct buf *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)text[i];
        if (byte == '\\') buf_puts(out, "\\\\");
        else if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f) buf_printf(out, "\\%03o", byte);
        else buf_putc(out, (char)byte);
    }
}

static void do_ringbuf_read(const struct call *c)
{
    chr_error err;
    char     *end, text[16384];
    long      size = strtol(c->arg[1], &end, 0);
    if (*end || size <= 0) {
        buf_printf(c->out, "Error: the size '%s' is not a number above zero\n", c->arg[1]);
        return;
    }
    chr_dev *dev = named_chardev(c);
    if (!dev) return;
    int len = chr_ringbuf_read(dev, (size_t)size, CHR_UTF8, text, sizeof text, &err);
    report(c, len, &err);
    if (len < 0) return;
    print_escaped(c->out, text, (size_t)len);
    buf_putc(c->out, '\n');
}

/* ---- mouse and tablet: input for all chardevs that support it ---- */

static int parse_int(const struct call *c, int at, int *value)
{
    char *end;
    *value = (int)strtol(c->arg[at], &end, 0);
    if (!*end && end > c->arg[at]) return 1;
    buf_printf(c->out, "Error: '%s' is not a number\n", c->arg[at]);
    return 0;
}

/* Sends the input to each chardev that supports it. Returns 1 when there is at least one. */
static int move_all(const struct call *c, int (*move)(chr_dev *, int, int), int x, int y)
{
    int found = 0;
    for (chr_dev *dev = chr_next(c->vm->ctx, NULL); dev; dev = chr_next(c->vm->ctx, dev)) {
        if (move(dev, x, y) == CHR_ERR_NOT_SUPPORTED) continue;
        chr_input_sync(dev);
        found = 1;
    }
    return found;
}

static void do_mouse_move(const struct call *c)
{
    int dx, dy;
    if (!parse_int(c, 0, &dx) || !parse_int(c, 1, &dy)) return;
    if (!move_all(c, chr_input_rel, dx, dy)) buf_puts(c->out, "Error: there is no mouse\n");
}

static void do_tablet_move(const struct call *c)
{
    int x, y;
    if (!parse_int(c, 0, &x) || !parse_int(c, 1, &y)) return;
    if (!move_all(c, chr_input_abs, x, y)) buf_puts(c->out, "Error: there is no tablet\n");
}

static void do_mouse_button(const struct call *c)
{
    int state, found = 0;
    if (!parse_int(c, 0, &state)) return;
    for (int button = CHR_BUTTON_LEFT; button <= CHR_BUTTON_RIGHT; button++)
        found |= move_all(c, chr_input_button, button, state >> button & 1);
    if (!found) buf_puts(c->out, "Error: there is neither mouse nor tablet\n");
}

static const struct command commands[] = {
    { "help",               "?", 0, "[command]",      "this list", do_help },
    { "quit",               "q", 0, "",               "exit tinyvm", do_quit },
    { "stop",               "s", 0, "",               "pause the machine", do_stop },
    { "cont",               "c", 0, "",               "resume the machine", do_cont },
    { "system_reset",       "",  0, "",               "reset the machine", do_reset },
    { "info",               "",  0, "status|chardev", "show status or chardevs", do_info },
    { "chardev-add",        "",  1, "options",        "create a chardev; fd= is a name set by getfd", do_chardev_add },
    { "chardev-change",     "",  2, "id options",     "replace its backend (hot swap)", do_chardev_change },
    { "chardev-remove",     "",  1, "id",             "remove a chardev without a frontend", do_chardev_remove },
    { "chardev-send-break", "",  1, "id",             "send a BREAK to its frontend", do_chardev_send_break },
    { "getfd",              "",  1, "name",           "name the descriptor passed with this line", do_getfd },
    { "closefd",            "",  1, "name",           "close a named descriptor", do_closefd },
    { "ringbuf_write",      "",  2, "id text",        "put text into a ring buffer", do_ringbuf_write },
    { "ringbuf_read",       "",  2, "id size",        "read up to that many bytes", do_ringbuf_read },
    { "mouse_move",         "",  2, "dx dy",          "move the mouse (chardev msmouse)", do_mouse_move },
    { "mouse_button",       "",  1, "state",          "its buttons: 1 left, 2 middle, 4 right, or sums",
      do_mouse_button },
    { "tablet_move",        "",  2, "x y",            "put the pen (chardev wctablet) to 0...32767", do_tablet_move },
    { NULL, NULL, 0, NULL, NULL, NULL }
};

/* ---- splitting a line into words ---- */

static char unescaped(char letter)
{
    return letter == 'n' ? '\n' : letter == 'r' ? '\r' : letter == 't' ? '\t' : letter;
}

/* Splits the next word off *cursor, in place. A word may be in double quotes, with backslash escapes. */
static char *next_word(char **cursor)
{
    char *from = *cursor + strspn(*cursor, " \t"), *word = from, *to = from;
    int   quoted = *from == '"';
    if (!*from) return NULL;
    if (quoted) from++;
    while (*from && (quoted ? *from != '"' : *from != ' ' && *from != '\t')) {
        if (quoted && *from == '\\' && from[1]) {
            *to++ = unescaped(from[1]);
            from += 2;
        } else *to++ = *from++;
    }
    *cursor = *from ? from + 1 : from;
    *to = '\0';
    return word;
}

static const struct command *find_command(const char *name)
{
    for (const struct command *cmd = commands; cmd->name; cmd++)
        if (!strcmp(name, cmd->name) || (*cmd->alias && !strcmp(name, cmd->alias))) return cmd;
    return NULL;
}

static void execute_words(struct vm *vm, chr_frontend *fe, char *line, struct buf *out)
{
    char       *arg[4] = { NULL, NULL, NULL, NULL };
    int         count = 0;
    char       *name = next_word(&line);
    struct call c = { vm, fe, out, arg, commands };
    if (!name) return;
    const struct command *cmd = find_command(name);
    if (!cmd) {
        buf_printf(out, "unknown command: '%s'\n", name);
        return;
    }
    int most = *cmd->usage ? (cmd->args ? cmd->args : 1) : 0;
    while (count < 3 && (arg[count] = next_word(&line)) != NULL) count++;
    if (count < cmd->args || count > most) buf_printf(out, "usage: %s %s\n", cmd->name, cmd->usage);
    else cmd->run(&c);
}

void hmp_execute(struct vm *vm, chr_frontend *fe, const char *line, struct buf *out)
{
    char *copy = xstrdup(line);
    execute_words(vm, fe, copy, out);
    free(copy);
}

/* ====================================================================================================================
 * the terminal
 * ================================================================================================================== */

/* Converts LF to CR LF for a terminal. */
static void print(struct hmp *h, const char *text)
{
    struct buf crlf = { NULL, 0, 0 };
    for (; *text; text++) {
        if (*text == '\n') buf_putc(&crlf, '\r');
        buf_putc(&crlf, *text);
    }
    monitor_send(&h->base, crlf.data, crlf.len);
    buf_free(&crlf);
}

static void show_prompt(struct hmp *h)
{
    h->len = 0;
    h->escape = 0;
    h->history_at = h->history_count;
    print(h, PROMPT);
}

static void remember(struct hmp *h, const char *line)
{
    if (!*line || (h->history_count && !strcmp(h->history[h->history_count - 1], line))) return;
    if (h->history_count == HISTORY_MAX) {
        free(h->history[0]);
        memmove(h->history, h->history + 1, (HISTORY_MAX - 1) * sizeof h->history[0]);
        h->history_count--;
    }
    h->history[h->history_count++] = xstrdup(line);
}

static void run_line(struct hmp *h)
{
    struct buf out = { NULL, 0, 0 };
    h->line[h->len] = '\0';
    print(h, "\n");
    remember(h, h->line);
    hmp_execute(h->base.vm, &h->base.fe, h->line, &out);
    print(h, buf_text(&out));
    buf_free(&out);
    show_prompt(h);
}

static void insert(struct hmp *h, char byte)
{
    if (h->len == LINE_SIZE - 1) {
        print(h, "\a");
        return;
    }
    h->line[h->len++] = byte;
    monitor_send(&h->base, &byte, 1);
}

/* Deletes one character, which may be several bytes of UTF-8. */
static void rub_out(struct hmp *h)
{
    if (!h->len) return;
    do h->len--;
    while (h->len && ((unsigned char)h->line[h->len] & 0xc0) == 0x80);
    print(h, "\b \b");
}

static void rub_out_word(struct hmp *h)
{
    while (h->len && h->line[h->len - 1] == ' ') rub_out(h);
    while (h->len && h->line[h->len - 1] != ' ') rub_out(h);
}

static void replace_line(struct hmp *h, const char *text)
{
    while (h->len) rub_out(h);
    for (; *text; text++) insert(h, *text);
}

static void walk_history(struct hmp *h, int by)
{
    int to = h->history_at + by;
    if (to < 0 || to > h->history_count) return;
    h->history_at = to;
    replace_line(h, to < h->history_count ? h->history[to] : "");
}

static void escape_byte(struct hmp *h, char byte)
{
    if (h->escape == 1) {
        h->escape = byte == '[' || byte == 'O' ? 2 : 0;
        return;
    }
    if (byte < '@') return; /* parameters */
    h->escape = 0;
    if (byte == 'A') walk_history(h, -1);
    if (byte == 'B') walk_history(h, +1);
}

static void control_byte(struct hmp *h, char byte)
{
    switch (byte) {
    case 3: print(h, "^C\n"); show_prompt(h); break;
    case 8: case 127: rub_out(h); break;
    case 14: walk_history(h, +1); break;
    case 16: walk_history(h, -1); break;
    case 21: replace_line(h, ""); break;
    case 23: rub_out_word(h); break;
    case 27: h->escape = 1; break;
    default: break;
    }
}

static void input_byte(struct hmp *h, char byte)
{
    int after_cr = h->after_cr;
    h->after_cr = byte == '\r';
    if (h->escape) escape_byte(h, byte);
    else if (byte == '\r' || (byte == '\n' && !after_cr)) run_line(h);
    else if ((unsigned char)byte < 0x20 || byte == 0x7f) control_byte(h, byte);
    else insert(h, byte);
}

/* ---- handlers ---- */

static int can_read(void *opaque)
{
    struct hmp *h = opaque;
    return monitor_busy(&h->base) ? 0 : MONITOR_INPUT;
}

static void got_input(void *opaque, const void *buf, size_t len)
{
    const char *bytes = buf;
    for (size_t i = 0; i < len; i++) input_byte(opaque, bytes[i]);
}

static void opened(struct hmp *h)
{
    print(h, "tinyvm " CHARDEV_VERSION " monitor - type 'help' for the commands\n");
    h->prompt_shown = 1;
    h->after_cr = 0;
    show_prompt(h);
}

static void got_event(void *opaque, int event)
{
    struct hmp *h = opaque;
    switch (event) {
    case CHR_EVENT_OPENED: opened(h); break;
    case CHR_EVENT_CLOSED:
        monitor_drop_output(&h->base);
        h->prompt_shown = 0;
        break;
    case CHR_EVENT_MUX_OUT: /* the cursor leaves the prompt's line */
        if (h->prompt_shown && !h->base.is_held) print(h, "\n");
        monitor_hold(&h->base, 1);
        break;
    case CHR_EVENT_MUX_IN:
        if (h->prompt_shown && h->base.is_held && !h->base.out.len) show_prompt(h);
        monitor_hold(&h->base, 0);
        break;
    default: break;
    }
}

static void drained(struct monitor *monitor)
{
    chr_fe_accept_input(&monitor->fe);
}

static void free_hmp(struct monitor *monitor)
{
    struct hmp *h = (struct hmp *)monitor;
    for (int i = 0; i < h->history_count; i++) free(h->history[i]);
    free(h);
}

struct monitor *hmp_new(struct vm *vm, chr_dev *dev, chr_error *err)
{
    static const chr_handlers handlers = { .can_read = can_read, .read = got_input, .event = got_event };
    struct hmp               *h = xcalloc(1, sizeof *h);
    h->base.vm = vm;
    h->base.drained = drained;
    h->base.free = free_hmp;
    if (chr_fe_init(&h->base.fe, dev, err) < 0) {
        free(h);
        return NULL;
    }
    chr_fe_set_handlers(&h->base.fe, &handlers, h);
    return &h->base;
}
