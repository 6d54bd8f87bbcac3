/*
 * script: an arbitrary text, and a guest with arbitrary output that reads at any time. A wrong text is rejected with
 * one line that names the line in the script; one that is played ends with a result, sends its texts in order, and
 * keeps its buffers within bounds.
 */
#include "fuzz.h"

enum { SCRIPT_STEPS = 64 };

static chr_context *script_ctx;
static chr_frontend script_fe;
static int          script_room, script_open, script_input_over;

static int script_can_read(void *opaque)
{
    (void)opaque;
    return script_room;
}

static void script_read(void *opaque, const void *buf, size_t len)
{
    (void)opaque;
    (void)buf;
    FUZZ_CHECK(len > 0 && len <= (size_t)script_room && script_open && !script_input_over);
    script_room -= (int)len;
}

static void script_event(void *opaque, int event)
{
    (void)opaque;
    if (event == CHR_EVENT_OPENED) {
        FUZZ_CHECK(!script_open);
        script_open = 1;
        script_input_over = 0;
    } else if (event == CHR_EVENT_CLOSED) {
        FUZZ_CHECK(script_open);
        script_open = 0;
    } else {
        FUZZ_CHECK(script_open && !script_input_over);
        script_input_over = event == CHR_EVENT_INPUT_END;
    }
}

static const chr_handlers script_handlers = { script_can_read, script_read, script_event, NULL };

/* One action of the guest: the first byte selects it, the others give sizes. */
static void script_guest(fuzz_bytes *in)
{
    uint8_t op = fuzz_byte(in);
    size_t  len = fuzz_byte(in);
    int     n;
    if (len > in->size) len = in->size;
    switch (op & 3) {
    case 0:
        script_room = (int)len;
        chr_fe_accept_input(&script_fe);
        break;
    case 1: chr_loop_run_until(script_ctx, chr_loop_now(script_ctx) + (int64_t)len * 20000000); break;
    case 2:
        if (op == 0xfe) chr_fe_shutdown(&script_fe);
        break;
    default:
        n = chr_fe_write(&script_fe, in->data, len);
        FUZZ_CHECK(n == (int)len || n == CHR_ERR_DISCONNECTED);
        in->data += len;
        in->size -= len;
        break;
    }
    FUZZ_CHECK(chr_loop_run_until(script_ctx, 0) >= 0);
}

static void script_check_error(const chr_error *err)
{
    FUZZ_CHECK(memchr(err->text, 0, sizeof err->text) != NULL);
    FUZZ_CHECK(strstr(err->text, "line ") != NULL && !strpbrk(err->text, "\r\n"));
}

static void script_play(chr_dev *dev, fuzz_bytes *in)
{
    chr_error err;
    chr_info  info;
    int       steps, code;
    FUZZ_CHECK(chr_fe_init(&script_fe, dev, NULL) == 0);
    chr_fe_set_handlers(&script_fe, &script_handlers, NULL);
    for (steps = 0; in->size && steps < SCRIPT_STEPS; steps++) script_guest(in);
    memset(&err, 0, sizeof err);
    code = chr_script_result(dev, &err);
    FUZZ_CHECK(code <= 0 && (code == CHR_ERR_WOULD_BLOCK) == (fuzz_exits == 0) && err.code == code);
    if (code < 0) script_check_error(&err);
    chr_query(dev, &info);
    FUZZ_CHECK(strncmp(info.filename, code == 0 ? "passed:script" : code == CHR_ERR_WOULD_BLOCK ? "script" : "failed:script", 6) == 0);
    if (code != CHR_ERR_WOULD_BLOCK) FUZZ_CHECK(!script_open && !info.comes_back);
    chr_fe_deinit(&script_fe);
}

/* The first byte gives the length of the text in units of 8 bytes. */
int FUZZ_TARGET(const uint8_t *data, size_t size)
{
    chr_config         config;
    chr_script_options options;
    chr_error          err;
    chr_dev           *dev;
    fuzz_bytes         in;
    size_t             len;
    char              *text;
    in.data = data;
    in.size = size;
    len = (size_t)fuzz_byte(&in) * 8;
    if (len > in.size) len = in.size;
    text = fuzz_text(in.data, len);
    in.data += len;
    in.size -= len;
    memset(&config, 0, sizeof config);
    config.allocate = fuzz_allocate;
    config.exit = fuzz_exit;
    config.virtual_clock = 1;
    fuzz_live = 0;
    fuzz_exits = script_room = script_open = script_input_over = 0;
    script_ctx = chr_context_new(&config);
    memset(&options, 0, sizeof options);
    options.text = text;
    options.window = 32;
    memset(&err, 0, sizeof err);
    dev = chr_open(script_ctx, "s", chr_backend_find(script_ctx, "script"), &options, &err);
    if (dev) script_play(dev, &in);
    else {
        fuzz_check_error(script_ctx, &err);
        script_check_error(&err);
    }
    fuzz_end(script_ctx);
    free(text);
    return 0;
}
