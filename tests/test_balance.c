/*
 * test_balance.c - after any call with any result: the lock is free, no handler or slot counts as running, and calls
 * that are not supported return an error with a text. And a backend that passes everything on to a lower chardev.
 */
#include "chardev.h"
#include "middle.h"
#include "private.h"
#include "rig.h"

static void check_balance(rig *r, int line, const char *call)
{
    if (!CHECK_INT(private_locks(r->ctx), 0) || !CHECK_INT(private_depth(r->ctx), 0) || !CHECK_INT(private_quiet(r->ctx), 0))
        NOTE("after line %d: %s", line, call);
}

#define CALL(r, call)                         \
    do {                                      \
        (void)(call);                         \
        check_balance(r, __LINE__, #call);    \
    } while (0)

static char *optionsf(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *optionsf(const char *format, ...)
{
    static char text[600];
    va_list     args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return text;
}

static void open_middle(rig *r)
{
    rig_open(r);
    REQUIRE(chr_backend_register(r->ctx, &middle_backend, NULL) == 0);
}

/* ---- balance ----------------------------------------------------------------------------------------------------- */

static void print_nothing(void *opaque, const char *line) { (void)opaque, (void)line; }
static void do_nothing(void *opaque) { (void)opaque; }

static void call_all_of_chardev(rig *r, chr_dev *dev)
{
    chr_error        err;
    chr_info         info;
    chr_fault_counts counts;
    char             text[64];
    CALL(r, chr_query(dev, &info));
    CALL(r, chr_inject(dev, "x", 1));
    CALL(r, chr_inject(dev, "x", 0));
    CALL(r, (void)chr_be_can_write(dev));
    CALL(r, chr_be_wants_writable(dev));
    CALL(r, chr_be_writable(dev));
    CALL(r, chr_be_event(dev, CHR_EVENT_BREAK));
    CALL(r, chr_be_write(dev, "x", chr_be_can_write(dev) > 0));
    CALL(r, chr_be_log(dev, "%d", 1));
    CALL(r, chr_wait_connected(dev, &err));
    CALL(r, chr_ringbuf_write(dev, "x", 1, CHR_UTF8, &err));
    CALL(r, chr_ringbuf_write(dev, "x", 1, CHR_BASE64, &err));
    CALL(r, chr_ringbuf_write(dev, "eHg=", 4, CHR_BASE64, &err));
    CALL(r, chr_ringbuf_read(dev, 1, CHR_UTF8, text, sizeof text, &err));
    CALL(r, chr_ringbuf_read(dev, 1, CHR_BASE64, text, sizeof text, &err));
    CALL(r, chr_ringbuf_count(dev));
    CALL(r, chr_script_result(dev, &err));
    CALL(r, chr_fault_feed(dev, "x", 1));
    CALL(r, chr_fault_query(dev, &counts));
    CALL(r, chr_braille_key(dev, CHR_BRAILLE_TOP_KEYS, 1));
    CALL(r, chr_braille_resized(dev));
    CALL(r, chr_input_rel(dev, 1, 1));
    CALL(r, chr_input_abs(dev, 1, 1));
    CALL(r, chr_input_button(dev, CHR_BUTTON_LEFT, 1));
    CALL(r, chr_input_sync(dev));
}

static void call_all_of_frontend(rig *r, chr_frontend *fe)
{
    static const chr_handlers none = { NULL, NULL, NULL, NULL };
    static uint64_t           memory[CHR_BUFFERS_MEMORY(8, 8) / 8]; /* it may keep that for a while */
    char                      text[16];
    chr_error                 err;
    int                       fds[1] = { 0 };
    CALL(r, chr_fe_set_handlers(fe, NULL, NULL));
    CALL(r, chr_fe_set_handlers(fe, &none, NULL));
    CALL(r, chr_fe_accept_input(fe));
    CALL(r, chr_fe_write(fe, "x", 1));
    CALL(r, chr_fe_write(fe, "x", 0));
    CALL(r, chr_fe_write_all(fe, "x", 1, 1));
    CALL(r, chr_fe_read_all(fe, text, 1, 1));
    CALL(r, chr_fe_printf(fe, "%d", 1));
    CALL(r, chr_fe_add_watch(fe, do_nothing, NULL));
    CALL(r, chr_fe_add_watch(fe, NULL, NULL));
    CALL(r, chr_fe_set_buffers(fe, 8, 8));
    CALL(r, chr_fe_read(fe, text, 1));
    CALL(r, chr_fe_write(fe, "x", 1));
    CALL(r, chr_fe_readable(fe));
    CALL(r, chr_fe_writable(fe));
    CALL(r, chr_fe_flush(fe, 1));
    CALL(r, chr_fe_read_all(fe, text, 1, 1));
    CALL(r, chr_fe_set_buffers_at(fe, memory, 8, 8));
    CALL(r, chr_fe_set_buffers(fe, 0, 0));
    CALL(r, chr_fe_readable(fe));
    CALL(r, chr_fe_writable(fe));
    CALL(r, chr_fe_ioctl(fe, CHR_IOCTL_SET_ECHO, fds));
    CALL(r, chr_fe_set_msgfds(fe, fds, 1));
    CALL(r, chr_fe_get_msgfds(fe, fds, 1));
    CALL(r, chr_fe_set_open(fe, 0));
    CALL(r, chr_fe_set_open(fe, 1));
    CALL(r, chr_fe_set_echo(fe, 1));
    CALL(r, chr_fe_take_focus(fe));
    CALL(r, chr_fe_backend_open(fe));
    CALL(r, chr_fe_eof(fe));
    CALL(r, chr_fe_shutdown(fe));
    CALL(r, chr_fe_disconnect(fe));
    CALL(r, chr_fe_wait_connected(fe, &err));
}

/* Of each kind that needs nothing outside. */
static const char *const kinds[] = {
    "null,id=x", "ringbuf,id=x", "script,id=x,text=", "msmouse,id=x", "wctablet,id=x", "braille,id=x", "ringbuf,id=x,mux=on",
    "fault,id=x,chardev=under", "hub,id=x,chardevs.0=under", "testdev,id=x", "middle,id=x,chardev=under",
    "ringbuf,id=x,history=16,obuf=16", "null,id=x,logfile=/dev/null", "file,id=x,path=/dev/null",
};

static void call_with(rig *r, const char *options)
{
    chr_frontend fe;
    chr_error    err;
    chr_dev     *dev;
    memset(&fe, 0, sizeof fe);
    CALL(r, chr_new(r->ctx, "ringbuf,id=under", &err));
    CALL(r, dev = chr_new(r->ctx, options, &err));
    if (!CHECK(dev != NULL)) NOTE("%s: %s", options, err.text);
    if (!dev) return;
    call_all_of_chardev(r, dev);
    CALL(r, chr_fe_init(&fe, dev, &err));
    call_all_of_frontend(r, &fe);
    call_all_of_chardev(r, dev);
    CALL(r, chr_loop_step(r->ctx, 0));
    CALL(r, chr_drain(r->ctx, 1));
    CALL(r, chr_send_break(r->ctx, "x", &err));
    CALL(r, chr_add_client(r->ctx, "x", -1, &err));
    CALL(r, chr_log_reopen(r->ctx));
    CALL(r, chr_change(r->ctx, "x", "null", &err));
    CALL(r, chr_change(r->ctx, "x", "file,path=/nowhere/x", &err));
    CALL(r, chr_change(r->ctx, "x", "no-such-kind", &err));
    CALL(r, chr_remove(r->ctx, "x", &err));
    CALL(r, chr_loop_step(r->ctx, 0));
    CALL(r, chr_fe_deinit(&fe));
    CALL(r, chr_fe_deinit(&fe));
    CALL(r, chr_remove(r->ctx, "x", &err));
    CALL(r, chr_remove(r->ctx, "under", &err));
    CALL(r, chr_loop_step(r->ctx, 0));
}

TEST(each_call_leaves_the_lock_free)
{
    size_t i;
    rig    r;
    for (i = 0; i < sizeof kinds / sizeof *kinds; i++) {
#ifdef _WIN32
        if (strstr(kinds[i], "/dev/null")) continue;
#endif
        open_middle(&r);
        call_with(&r, kinds[i]);
        rig_close(&r);
    }
}

TEST(each_call_of_the_loop_leaves_the_lock_free)
{
    chr_timer    timer;
    chr_idle     idle;
    chr_frontend fe;
    chr_poll     polls[8];
    chr_memory   memory;
    chr_error    err;
    int          timeout = 0;
    rig          r;
    memset(&timer, 0, sizeof timer);
    memset(&idle, 0, sizeof idle);
    memset(&fe, 0, sizeof fe);
    rig_open_virtual(&r);
    CALL(&r, chr_timer_start(r.ctx, &timer, 5, do_nothing, NULL));
    CALL(&r, chr_timer_start(r.ctx, &timer, 7, do_nothing, NULL));
    CALL(&r, chr_loop_deadline(r.ctx));
    CALL(&r, chr_loop_timeout(r.ctx));
    CALL(&r, chr_timer_stop(&timer));
    CALL(&r, chr_timer_stop(&timer));
    CALL(&r, chr_idle_start(r.ctx, &idle, do_nothing, NULL));
    CALL(&r, chr_idle_start(r.ctx, &idle, do_nothing, NULL));
    CALL(&r, chr_loop_prepare(r.ctx, polls, 8, &timeout));
    CALL(&r, chr_loop_dispatch(r.ctx, polls, 0));
    CALL(&r, chr_idle_stop(&idle));
    CALL(&r, chr_loop_step_every(r.ctx, 1000));
    CALL(&r, chr_loop_run_until(r.ctx, 0));
    CALL(&r, chr_loop_stop(r.ctx));
    CALL(&r, chr_loop_dispatch(r.ctx, polls, 0));
    CALL(&r, chr_loop_stop(r.ctx));
    CALL(&r, chr_loop_run(r.ctx));
    CALL(&r, chr_loop_wake(r.ctx));
    CALL(&r, chr_loop_step(r.ctx, 0));
    CALL(&r, chr_loop_fd(r.ctx));
    CALL(&r, chr_loop_step(r.ctx, 0));
    CALL(&r, chr_context_memory(r.ctx, &memory));
    CALL(&r, chr_mux_suspend_open(r.ctx));
    CALL(&r, chr_new(r.ctx, "ringbuf,id=m,mux=on", &err));
    CALL(&r, chr_mux_resume_open(r.ctx));
    CALL(&r, chr_help(r.ctx, "socket", print_nothing, NULL));
    CALL(&r, chr_help(r.ctx, "no-such", print_nothing, NULL));
    CALL(&r, chr_remove(r.ctx, "no-such", &err));
    CALL(&r, chr_send_break(r.ctx, "no-such", &err));
    CALL(&r, chr_add_client(r.ctx, "no-such", 0, &err));
    CALL(&r, chr_change(r.ctx, "no-such", "null", &err));
    CALL(&r, chr_record_start(r.ctx, "/nowhere/x", &err));
    CALL(&r, chr_record_stop(r.ctx));
    CALL(&r, chr_replay_open(r.ctx, "/nowhere/x", &err));
    CALL(&r, chr_replay_close(r.ctx));
    CALL(&r, chr_fd_put(r.ctx, "1", 0, &err));
    CALL(&r, chr_fd_close(r.ctx, "nix", &err));
    CALL(&r, chr_context_reset(r.ctx));
    call_all_of_frontend(&r, &fe);
    rig_close(&r);
}

static void call_in_handler(recorder *rec, int what)
{
    rig      *r = (rig *)rec->user;
    chr_error err;
    chr_poll  poll;
    char      byte;
    int       timeout, locks = private_locks(r->ctx), depth = private_depth(r->ctx);
    (void)what;
    rec->then = NULL;
    CHECK_INT(chr_loop_step(r->ctx, 0), CHR_ERR_IN_HANDLER);
    CHECK_INT(chr_loop_dispatch(r->ctx, &poll, 0), CHR_ERR_IN_HANDLER);
    CHECK_INT(chr_drain(r->ctx, 0), CHR_ERR_IN_HANDLER);
    CHECK_INT(chr_fe_read_all(&rec->fe, &byte, 1, 0), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_flush(&rec->fe, 0), 0);
    CHECK_INT(chr_context_reset(r->ctx), CHR_ERR_IN_HANDLER);
    chr_loop_prepare(r->ctx, &poll, 0, &timeout);
    chr_fe_write(&rec->fe, "x", 1);
    chr_fe_accept_input(&rec->fe);
    chr_change(r->ctx, "b", "null", &err);
    CHECK_INT(private_locks(r->ctx), locks);
    CHECK_INT(private_depth(r->ctx), depth);
}

TEST(calls_in_a_handler_leave_what_it_holds)
{
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "ringbuf,id=a"));
    make(&r, "null,id=b");
    settle(&r);
    rec.user = &r;
    rec.then = call_in_handler;
    chr_be_write(rec.fe.dev, "x", 1);
    CHECK(rec.then == NULL);
    check_balance(&r, __LINE__, "chr_be_write");
    detach(&rec);
    rig_close(&r);
}

/* ---- what is asked of the wrong one ------------------------------------------------------------------------------ */

TEST(who_is_not_what_is_asked_for)
{
    char             text[8];
    chr_error        err;
    chr_fault_counts counts;
    chr_dev         *dev, *mouse;
    rig              r;
    rig_open_virtual(&r);
    dev = make(&r, "null,id=n");
    mouse = make(&r, "msmouse,id=mouse");
    CHECK_INT(chr_ringbuf_write(dev, "x", 1, CHR_UTF8, &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "chardev 'n' is a null, not a ringbuf");
    CHECK_INT(err.code, CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_ringbuf_read(dev, 1, CHR_UTF8, text, sizeof text, NULL), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_ringbuf_count(dev), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_script_result(dev, &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "chardev 'n' is a null, not a script");
    CHECK_INT(chr_fault_feed(dev, "x", 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fault_query(dev, &counts), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_braille_key(dev, CHR_BRAILLE_TOP_KEYS, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_braille_resized(dev), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_input_rel(dev, 1, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_input_abs(dev, 1, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_input_button(dev, 100, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_input_sync(dev), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_input_abs(mouse, 1, 1), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_input_button(mouse, CHR_BUTTON_LEFT - 1, 1), CHR_ERR_INVALID);
    CHECK_INT(chr_input_button(mouse, CHR_BUTTON_LEFT, 1), CHR_ERR_DISCONNECTED); /* nobody has opened it */
    CHECK_INT(chr_input_button(mouse, CHR_BUTTON_RIGHT, 1), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_input_button(mouse, CHR_BUTTON_RIGHT + 1, 1), CHR_ERR_INVALID);
    CHECK_INT(chr_add_client(r.ctx, "n", 0, &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "chardev 'n': a null takes no clients");
    CHECK_INT(chr_add_client(r.ctx, "nix", 0, &err), CHR_ERR_NOT_FOUND);
    CHECK_STR(err.text, "there is no chardev 'nix'");
    CHECK_INT(chr_send_break(r.ctx, "nix", &err), CHR_ERR_NOT_FOUND);
    CHECK_STR(err.text, "there is no chardev 'nix'");
    CHECK_INT(chr_remove(r.ctx, NULL, &err), CHR_ERR_NOT_FOUND);
    CHECK_STR(err.text, "there is no chardev ''");
    CHECK_INT(chr_inject(NULL, "x", 1), CHR_ERR_INVALID);
    CHECK_INT(chr_inject(dev, NULL, 1), CHR_ERR_INVALID);
    CHECK_INT(chr_inject(dev, NULL, 0), 0);
    CHECK_INT(chr_inject(dev, "x", 1), CHR_ERR_WOULD_BLOCK);
    rig_close(&r);
}

TEST(texts_of_a_ringbuf)
{
    char      text[8];
    chr_error err;
    chr_dev  *dev;
    rig       r;
    rig_open_virtual(&r);
    dev = make(&r, "ringbuf,id=b,size=8");
    CHECK_INT(chr_ringbuf_write(dev, "x", 1, CHR_BASE64, &err), CHR_ERR_INVALID);
    CHECK_STR(err.text, "ringbuf 'b': the data is not base64");
    CHECK_INT(chr_ringbuf_write(dev, "eHl6", 4, CHR_BASE64, &err), 3);
    CHECK_INT(chr_ringbuf_write(dev, "eHk=eHl6", 8, CHR_BASE64, &err), CHR_ERR_INVALID);
    CHECK_INT(chr_ringbuf_write(dev, "eHl6eHk=", 8, CHR_BASE64, &err), 5);
    CHECK_INT(chr_ringbuf_count(dev), 8);
    CHECK_INT(chr_ringbuf_read(dev, 8, CHR_UTF8, text, 4, NULL), 4);
    CHECK_MEM(text, 4, "xyzx", 4);
    CHECK_INT(chr_ringbuf_write(dev, "0123456789", 10, CHR_UTF8, &err), 8);
    CHECK_INT(chr_ringbuf_count(dev), 8);
    rig_close(&r);
}

/* ---- what the middle passes on ----------------------------------------------------------------------------------- */

static int     inputs, input_length;
static char    input_text[64];

static void count_inputs(void *opaque, const chr_trace *event)
{
    (void)opaque;
    if (strcmp(event->name, "data_in") != 0 || strcmp(event->id, "under") != 0) return;
    inputs++;
    input_length = (int)event->len;
    snprintf(input_text, sizeof input_text, "%.*s", (int)event->len, (const char *)event->bytes);
}

/* Bytes read by chr_fe_read_all() of the upper chardev count as input of the lower one, and are traced; empty reads
 * are not. */
TEST(what_is_read_through_the_middle_is_input_below)
{
    recorder rec;
    chr_info info;
    char     options[80], text[16];
    int      fds[2];
    rig      r;
    rig_traced = count_inputs;
    NEED_POSIX("fd= is there on POSIX systems");
    open_middle(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "fd,id=under,in=%d,out=%d", fds[0], fds[0]);
    make(&r, options);
    attach_with_room(&rec, make(&r, "middle,id=x,chardev=under"), 0);
    settle(&r);
    CHECK_INT(chr_fe_read_all(&rec.fe, text, 1, 1), CHR_ERR_TIMEOUT);
    CHECK_INT(inputs, 0);
    say(fds[1], "abc");
    CHECK_INT(chr_fe_read_all(&rec.fe, text, 2, 1000), 2);
    CHECK_INT(inputs, 1);
    CHECK_INT(input_length, 2);
    CHECK_STR(input_text, "ab");
    CHECK_INT(chr_fe_read_all(&rec.fe, text, 1, 1000), 1);
    CHECK_INT(inputs, 2);
    CHECK_STR(input_text, "c");
    chr_query(chr_find(r.ctx, "under"), &info);
    CHECK_INT(info.bytes_in, 3);
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}

TEST(the_middle_passes_each_call_on)
{
    recorder  rec;
    chr_error err, below;
    chr_info  info;
    char      options[200];
    int       listener, fd, fds[2];
    rig       r;
    open_middle(&r);
    make(&r, optionsf("socket,id=under,path=%s,server=on,wait=off", scratch("s")));
    attach(&rec, make(&r, "middle,id=x,chardev=under"));
    settle(&r);
    CHECK_STR(rec.events, "");
    CHECK_INT(chr_add_client(r.ctx, "x", -1, &err), CHR_ERR_INVALID);
    CHECK_INT(chr_add_client(r.ctx, "under", -1, &below), CHR_ERR_INVALID);
    CHECK_STR(err.text, below.text);
    socket_pair(fds);
    CHECK_INT(chr_add_client(r.ctx, "x", fds[0], &err), 0);
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_wait_connected(&rec.fe, &err), 0);
    CHECK_INT(chr_fe_write(&rec.fe, "down", 4), 4);
    CHECK_STR(hear(fds[1]), "down");
    say(fds[1], "up");
    settle(&r);
    CHECK_INPUT(&rec, "up");
    CHECK_INT(chr_fe_shutdown(&rec.fe), 0);
    CHECK_STR(hear(fds[1]), "(eof)");
    CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    close(fds[1]);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "x", &err), 0);
    CHECK_INT(chr_remove(r.ctx, "under", &err), 0);
    listener = unix_listen(scratch("t"));
    make(&r, optionsf("socket,id=under,path=%s", scratch("t")));
    fd = accept(listener, NULL, NULL);
    close(listener);
    unlink(scratch("t"));
    attach(&rec, make(&r, "middle,id=x,chardev=under"));
    settle(&r);
    close(fd);
    settle(&r);
    PUMP(&r, strcmp(rec.events, "OC") == 0);
    memset(&err, 0, sizeof err);
    CHECK(chr_fe_wait_connected(&rec.fe, &err) < 0); /* nobody listens there any more */
    CHECK_HAS(err.text, "cannot connect to");
    chr_query(rec.fe.dev, &info);
    snprintf(options, sizeof options, "middle:disconnected:unix:%s", scratch("t"));
#ifndef _WIN32
    CHECK_STR(info.filename, options);
#endif
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "x", &err), 0);
    CHECK_INT(chr_remove(r.ctx, "under", &err), 0);
    make(&r, "null,id=under");
    chr_query(make(&r, "middle,id=x,chardev=under"), &info);
    CHECK_STR(info.filename, "middle:null");
    rig_close(&r);
    scratch_clean();
}

/* Output that waits on top goes as soon as there is room below. */
TEST(room_below_is_told_on_top)
{
    static const char *const on_top[] = { "middle,id=x,chardev=under,obuf=64K", "middle,id=x,chardev=under" };
    static char              block[1 << 19];
    size_t                   i;
    for (i = 0; i < 2; i++) {
        recorder rec;
        char     options[80];
        size_t   sent = 0, got = 0;
        int      fds[2], n, size = 4096;
        rig      r;
        open_middle(&r);
        socket_pair(fds);
        setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
        snprintf(options, sizeof options, "socket,id=under,fd=%d", fds[0]);
        make(&r, options);
        attach(&rec, make(&r, on_top[i]));
        settle(&r);
        while (sent < sizeof block && (n = chr_fe_write(&rec.fe, block, 4096)) > 0) sent += (size_t)n;
        CHECK(sent > 4096);
        while (got < sent) {
            char    piece[30000];
            ssize_t count;
            struct pollfd p = { fds[1], POLLIN, 0 };
            chr_loop_step(r.ctx, 0);
            if (poll(&p, 1, 1000) <= 0) break;
            count = read(fds[1], piece, sizeof piece);
            if (count <= 0) break;
            got += (size_t)count;
        }
        if (!CHECK_INT(got, sent)) NOTE("with %s", on_top[i]);
        detach(&rec);
        close(fds[1]);
        rig_close(&r);
    }
}
