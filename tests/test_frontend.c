/* The frontend's calls: gating of input, write, write_all, read_all, watches for room, detaching. */
#include "chardev.h"
#include "rig.h"

#include <pthread.h>

/* A socket chardev `s` on one end of a pair; returns the other end. */
static int pair_chardev(rig *r, chr_dev **dev)
{
    char options[100];
    int  fds[2];
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    *dev = make(r, options);
    return fds[1];
}

static void finish(rig *r, recorder *rec, int far)
{
    detach(rec);
    close(far);
    rig_close(r);
}

/* ---- attaching --------------------------------------------------------------------------------------------------- */

TEST(one_frontend_per_chardev)
{
    chr_error    err;
    recorder     rec;
    chr_frontend second;
    chr_dev     *dev;
    rig          r;
    rig_open_virtual(&r);
    dev = make(&r, "ringbuf,id=a");
    attach(&rec, dev);
    memset(&second, 0, sizeof second);
    CHECK_INT(chr_fe_init(&second, dev, &err), CHR_ERR_BUSY);
    CHECK_HAS(err.text, "a");
    chr_fe_deinit(&second); /* one that never attached */
    detach(&rec);
    CHECK_INT(chr_fe_init(&second, dev, &err), 0);
    chr_fe_deinit(&second);
    chr_fe_deinit(&second);
    rig_close(&r);
}

TEST(frontend_without_chardev)
{
    chr_error err;
    char      byte;
    int       fd = 0;
    recorder  rec;
    memset(&rec, 0, sizeof rec);
    CHECK_INT(chr_fe_init(&rec.fe, NULL, &err), 0);
    chr_fe_set_handlers(&rec.fe, &recorder_handlers, &rec);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_write_all(&rec.fe, "x", 1, -1), CHR_ERR_DISCONNECTED);
    CHECK(chr_fe_read_all(&rec.fe, &byte, 1, -1) < 0);
    CHECK(chr_fe_printf(&rec.fe, "%d", 1) < 0);
    CHECK(chr_fe_set_msgfds(&rec.fe, &fd, 1) < 0);
    CHECK(chr_fe_get_msgfds(&rec.fe, &fd, 1) <= 0);
    CHECK(chr_fe_set_echo(&rec.fe, 1) < 0);
    CHECK(chr_fe_disconnect(&rec.fe) < 0);
    CHECK(chr_fe_wait_connected(&rec.fe, &err) < 0);
    CHECK_INT(chr_fe_backend_open(&rec.fe), 0);
    chr_fe_accept_input(&rec.fe);
    chr_fe_set_open(&rec.fe, 1);
    chr_fe_take_focus(&rec.fe);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    chr_fe_set_handlers(&rec.fe, NULL, NULL);
    chr_fe_deinit(&rec.fe);
    CHECK_STR(rec.events, "");
}

/* After deinit the memory may go: poison it, and let much happen at the far side. */
TEST(no_handler_after_deinit)
{
    recorder *rec = (recorder *)malloc(sizeof *rec);
    chr_dev  *dev;
    rig       r;
    int       far;
    rig_open(&r);
    REQUIRE(rec != NULL);
    far = pair_chardev(&r, &dev);
    attach(rec, dev);
    chr_fe_add_watch(&rec->fe, recorder_writable, rec);
    say(far, "x");
    chr_fe_deinit(&rec->fe);
    memset(rec, 0xee, sizeof *rec);
    free(rec);
    settle(&r);
    close(far);
    settle(&r);
    rig_close(&r);
}

/* Input received while no frontend was attached is delivered to the next one. */
TEST(input_waits_for_the_next_frontend)
{
    recorder rec;
    chr_dev *dev;
    rig      r;
    int      far;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach(&rec, dev);
    settle(&r);
    detach(&rec);
    say(far, "later");
    settle(&r);
    attach(&rec, dev);
    settle(&r);
    CHECK_INPUT(&rec, "later");
    finish(&r, &rec, far);
}

/* ---- input ------------------------------------------------------------------------------------------------------- */

TEST(input_is_gated_by_can_read)
{
    recorder rec;
    chr_dev *dev;
    rig      r;
    int      far, i;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach_with_room(&rec, dev, 0);
    say(far, "abcdefghij");
    settle(&r);
    CHECK_INT(rec.length, 0);
    CHECK_INT(chr_loop_step(r.ctx, 20), 0); /* and the loop sleeps meanwhile */
    give_room(&rec, 3);
    settle(&r);
    CHECK_INPUT(&rec, "abc");
    for (i = 0; i < 7; i++) {
        give_room(&rec, 1);
        settle(&r);
        CHECK_INT(rec.length, 4 + i);
    }
    CHECK_INPUT(&rec, "abcdefghij");
    finish(&r, &rec, far);
}

TEST(far_side_is_pushed_back)
{
    static char block[65536];
    recorder    rec;
    chr_dev    *dev;
    size_t      sent = 0;
    ssize_t     got;
    rig         r;
    int         far;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach_with_room(&rec, dev, 0);
    fcntl(far, F_SETFL, O_NONBLOCK);
    while ((got = write(far, block, sizeof block)) > 0 && sent < (1 << 24)) {
        sent += (size_t)got;
        settle(&r);
    }
    CHECK(sent < (1 << 24)); /* the kernel's buffer, and nothing of ours, holds it */
    give_room(&rec, UNLIMITED);
    PUMP(&r, rec.length == sent);
    finish(&r, &rec, far);
}

TEST(without_read_handler_nothing_is_read)
{
    static const chr_handlers only_events = { NULL, NULL, recorder_event, NULL };
    recorder rec;
    chr_dev *dev;
    rig      r;
    int      far;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach(&rec, dev);
    rec.open = 0;
    chr_fe_set_handlers(&rec.fe, &only_events, &rec);
    say(far, "abc");
    settle(&r);
    CHECK_INT(chr_loop_step(r.ctx, 10), 0);
    CHECK_INT(rec.length, 0);
    listen_to(&rec);
    settle(&r);
    CHECK_INPUT(&rec, "abc");
    finish(&r, &rec, far);
}

TEST(without_can_read_there_is_room)
{
    static const chr_handlers greedy = { NULL, recorder_read, recorder_event, NULL };
    recorder rec;
    chr_dev *dev;
    rig      r;
    int      far;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach(&rec, dev);
    rec.open = 0;
    chr_fe_set_handlers(&rec.fe, &greedy, &rec);
    say(far, "abc");
    settle(&r);
    CHECK_INPUT(&rec, "abc");
    finish(&r, &rec, far);
}

TEST(null_handlers_stop_reading)
{
    recorder rec;
    chr_dev *dev;
    rig      r;
    int      far;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach(&rec, dev);
    say(far, "a");
    settle(&r);
    chr_fe_set_handlers(&rec.fe, NULL, NULL);
    say(far, "b");
    settle(&r);
    CHECK_INPUT(&rec, "a");
    listen_to(&rec);
    settle(&r);
    CHECK_INPUT(&rec, "ab");
    finish(&r, &rec, far);
}

static void give_more(void *opaque)
{
    give_room((recorder *)opaque, 100);
}

/* Room that comes in a timer wakes a loop that sleeps without limit. */
TEST(accept_input_wakes_a_sleeping_loop)
{
    chr_timer timer;
    recorder  rec;
    chr_dev  *dev;
    int64_t   start;
    rig       r;
    int       far;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach_with_room(&rec, dev, 0);
    settle(&r);
    say(far, "abc");
    memset(&timer, 0, sizeof timer);
    chr_timer_start(r.ctx, &timer, 20, give_more, &rec);
    start = real_ms();
    while (!rec.length && real_ms() - start < RIG_PATIENCE_MS) chr_loop_step(r.ctx, -1);
    CHECK_INPUT(&rec, "abc");
    finish(&r, &rec, far);
}

/* A frontend that gets room without chr_fe_accept_input() is polled in each step. */
TEST(room_that_comes_silently)
{
    recorder rec;
    chr_dev *dev;
    rig      r;
    int      far;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach_with_room(&rec, dev, 0);
    say(far, "abc");
    settle(&r);
    rec.room = 10;
    chr_loop_step(r.ctx, 0);
    chr_loop_step(r.ctx, 0);
    CHECK_INPUT(&rec, "abc");
    finish(&r, &rec, far);
}

/* Hang-up is detected while the frontend has no room, without a busy loop; input sent before it is delivered before
 * CLOSED. */
TEST(hang_up_is_noticed_without_room)
{
    recorder rec;
    chr_dev *dev;
    char     options[200];
    int      far, next, i, steps = 0;
    rig      r;
    rig_open(&r);
    snprintf(options, sizeof options, "socket,id=s,path=%s,server=on,wait=off", scratch("s"));
    dev = make(&r, options);
    attach_with_room(&rec, dev, 0);
    far = unix_connect(scratch("s"));
    PUMP(&r, rec.open);
    close(far);
    for (i = 0; i < 5; i++) steps += chr_loop_step(r.ctx, 20) > 0;
    CHECK(steps <= 3); /* no busy waiting */
    CHECK_STR(rec.events, "OC");
    next = unix_connect(scratch("s"));
    PUMP(&r, rec.open);
    CHECK_STR(rec.events, "OCO");
    close(next);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(pending_input_is_kept_over_a_hang_up_without_room)
{
    recorder rec;
    chr_dev *dev;
    rig      r;
    int      far, i, steps = 0;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach_with_room(&rec, dev, 0);
    settle(&r);
    say(far, "last words");
    close(far);
    for (i = 0; i < 5; i++) steps += chr_loop_step(r.ctx, 20) > 0;
    CHECK(steps <= 3);
    CHECK_STR(rec.events, "O");
    while (rec.open && i++ < 100) {
        give_room(&rec, 4);
        settle(&r);
    }
    CHECK_INPUT(&rec, "last words");
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

/* The same when a write finds the broken connection first. */
TEST(pending_input_is_kept_when_a_write_fails_first)
{
    recorder rec;
    chr_dev *dev;
    rig      r;
    int      far;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach(&rec, dev);
    settle(&r);
    say(far, "last words");
    close(far);
    CHECK(write_to_nobody(&rec.fe) < 0);
    settle(&r);
    CHECK_INPUT(&rec, "last words");
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

/* ---- output ------------------------------------------------------------------------------------------------------ */

TEST(write_of_nothing)
{
    recorder rec;
    chr_dev *dev;
    rig      r;
    int      far;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach(&rec, dev);
    settle(&r);
    CHECK_INT(chr_fe_write(&rec.fe, "", 0), 0);
    CHECK_INT(chr_fe_write(&rec.fe, NULL, 0), 0);
    CHECK_INT(chr_fe_write_all(&rec.fe, "", 0, -1), 0);
    CHECK_STR(hear(far), "");
    finish(&r, &rec, far);
}

TEST(write_would_block_takes_nothing)
{
    recorder rec;
    chr_dev *dev;
    size_t   sent;
    chr_info info;
    rig      r;
    int      far;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach(&rec, dev);
    settle(&r);
    sent = fill_up(&rec.fe);
    chr_query(dev, &info);
    CHECK_INT(info.bytes_out, sent);
    CHECK_INT(info.bytes_dropped, 0);
    CHECK_INT(drain(&r, far, sent), sent);
    CHECK_STR(hear(far), "");
    CHECK_INT(chr_fe_write(&rec.fe, "y", 1), 1);
    CHECK_STR(hear(far), "y");
    finish(&r, &rec, far);
}

TEST(add_watch_tells_of_room_once)
{
    recorder rec;
    chr_dev *dev;
    size_t   sent;
    rig      r;
    int      far;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach(&rec, dev);
    settle(&r);
    sent = fill_up(&rec.fe);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    settle(&r);
    CHECK_INT(rec.writable, 0);
    CHECK_INT(drain(&r, far, sent), sent);
    settle(&r);
    CHECK_INT(rec.writable, 1);
    settle(&r);
    CHECK_INT(rec.writable, 1);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec); /* there is room now: from the loop, not at once */
    CHECK_INT(rec.writable, 1);
    settle(&r);
    CHECK_INT(rec.writable, 2);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    chr_fe_add_watch(&rec.fe, NULL, NULL);
    settle(&r);
    CHECK_INT(rec.writable, 2);
    finish(&r, &rec, far);
}

TEST(add_watch_tells_when_the_far_side_goes)
{
    recorder rec;
    chr_dev *dev;
    rig      r;
    int      far;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach(&rec, dev);
    settle(&r);
    fill_up(&rec.fe);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    close(far);
    settle(&r);
    CHECK_INT(rec.writable, 1);
    CHECK_STR(rec.events, "OC");
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    detach(&rec);
    rig_close(&r);
}

TEST(write_to_nobody_returns_at_once)
{
    static const char *const table[] = { "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off", "pty,id=s" };
    size_t                   i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        recorder rec;
        chr_info info;
        rig      r;
        rig_open(&r);
        attach(&rec, make(&r, table[i]));
        settle(&r);
        CHECK_INT(chr_fe_write(&rec.fe, "12345", 5), CHR_ERR_DISCONNECTED);
        CHECK_INT(chr_fe_write_all(&rec.fe, "123", 3, -1), CHR_ERR_DISCONNECTED);
        chr_query(rec.fe.dev, &info);
        CHECK_INT(info.bytes_dropped, 8);
        CHECK_INT(info.bytes_out, 0);
        detach(&rec);
        rig_close(&r);
    }
}

static void *slow_reader(void *opaque)
{
    static char block[100000];
    size_t      total = 0;
    ssize_t     got;
    int         fd = *(int *)opaque;
    while ((got = read(fd, block, sizeof block)) > 0) {
        total += (size_t)got;
        usleep(300);
    }
    return (void *)total;
}

TEST(write_all_waits_until_all_is_taken)
{
    static char big[3000000];
    recorder    rec;
    chr_dev    *dev;
    pthread_t   thread;
    void       *total;
    rig         r;
    int         far;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach(&rec, dev);
    settle(&r);
    REQUIRE(pthread_create(&thread, NULL, slow_reader, &far) == 0);
    CHECK_INT(chr_fe_write_all(&rec.fe, big, sizeof big, -1), sizeof big);
    detach(&rec);
    chr_remove(r.ctx, "s", NULL);
    pthread_join(thread, &total);
    CHECK_INT((size_t)total, sizeof big);
    close(far);
    rig_close(&r);
}

TEST(write_all_times_out)
{
    static char big[3000000];
    recorder    rec;
    chr_dev    *dev;
    int64_t     start = real_ms();
    rig         r;
    int         far, taken;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach(&rec, dev);
    settle(&r);
    taken = chr_fe_write_all(&rec.fe, big, sizeof big, 50);
    CHECK(taken > 0 && taken < (int)sizeof big); /* fewer: what was taken before the time ran out */
    CHECK(real_ms() - start >= 45 && real_ms() - start < RIG_PATIENCE_MS);
    CHECK_INT(chr_fe_write_all(&rec.fe, "x", 1, 0), CHR_ERR_TIMEOUT);
    CHECK_INT(chr_fe_write_all(&rec.fe, "x", 1, 20), CHR_ERR_TIMEOUT);
    CHECK_INT(drain(&r, far, (size_t)taken), taken);
    CHECK_INT(chr_fe_write_all(&rec.fe, "x", 1, 0), 1);
    finish(&r, &rec, far);
}

/* Once something has come. */
static void *close_soon(void *opaque)
{
    struct pollfd p = { 0, POLLIN, 0 };
    p.fd = *(int *)opaque;
    CHECK_INT(poll(&p, 1, -1), 1);
    usleep(20000);
    close(p.fd);
    return NULL;
}

TEST(write_all_ends_when_the_far_side_goes)
{
    static char big[3000000];
    recorder    rec;
    chr_dev    *dev;
    pthread_t   thread;
    rig         r;
    int         far, taken;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach(&rec, dev);
    settle(&r);
    REQUIRE(pthread_create(&thread, NULL, close_soon, &far) == 0);
    taken = chr_fe_write_all(&rec.fe, big, sizeof big, -1);
    CHECK(taken > 0 && taken < (int)sizeof big);
    pthread_join(thread, NULL);
    CHECK(chr_fe_write_all(&rec.fe, "x", 1, -1) < 0);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

static void *say_in_parts(void *opaque)
{
    int fd = *(int *)opaque;
    say(fd, "abc");
    usleep(10000);
    say(fd, "defgh");
    return NULL;
}

TEST(read_all_waits_for_all)
{
    char      buf[8];
    recorder  rec;
    chr_dev  *dev;
    pthread_t thread;
    rig       r;
    int       far;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach_with_room(&rec, dev, 0);
    settle(&r);
    REQUIRE(pthread_create(&thread, NULL, say_in_parts, &far) == 0);
    CHECK_INT(chr_fe_read_all(&rec.fe, buf, 6, -1), 6);
    CHECK_MEM(buf, 6, "abcdef", 6);
    pthread_join(thread, NULL);
    CHECK_INT(rec.length, 0); /* it went past the handlers */
    give_room(&rec, 10);
    settle(&r);
    CHECK_INPUT(&rec, "gh");
    finish(&r, &rec, far);
}

TEST(read_all_times_out)
{
    char     buf[8];
    recorder rec;
    chr_dev *dev;
    rig      r;
    int      far;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach(&rec, dev);
    settle(&r);
    CHECK_INT(chr_fe_read_all(&rec.fe, buf, 4, 20), CHR_ERR_TIMEOUT);
    say(far, "ab");
    CHECK_INT(chr_fe_read_all(&rec.fe, buf, 4, 20), 2);
    close(far);
    CHECK(chr_fe_read_all(&rec.fe, buf, 4, -1) < 0);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

/* They block in real time; a clock that only the test moves stands still all the while. */
TEST(time_outs_end_though_the_clock_stands_still)
{
    static char big[3000000];
    char        buf[8];
    recorder    rec;
    chr_dev    *dev;
    rig         r;
    int         far, taken;
    rig_open_virtual(&r);
    far = pair_chardev(&r, &dev);
    attach(&rec, dev);
    settle(&r);
    CHECK_INT(chr_fe_read_all(&rec.fe, buf, 4, 20), CHR_ERR_TIMEOUT);
    say(far, "ab");
    CHECK_INT(chr_fe_read_all(&rec.fe, buf, 4, 20), 2);
    taken = chr_fe_write_all(&rec.fe, big, sizeof big, 20);
    CHECK(taken > 0 && taken < (int)sizeof big);
    CHECK_INT(chr_fe_write_all(&rec.fe, "x", 1, 20), CHR_ERR_TIMEOUT);
    finish(&r, &rec, far);
}

TEST(read_all_where_there_is_nothing_to_read)
{
    static const char *const table[] = { "null,id=d", "ringbuf,id=d" };
    size_t                   i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        char     byte;
        recorder rec;
        rig      r;
        rig_open_virtual(&r);
        attach(&rec, make(&r, table[i]));
        CHECK_INT(chr_fe_read_all(&rec.fe, &byte, 1, 10), CHR_ERR_NOT_SUPPORTED);
        detach(&rec);
        rig_close(&r);
    }
}

TEST(printf_of_short_and_long_texts)
{
    static char long_text[5001];
    recorder    rec;
    chr_dev    *dev;
    rig         r;
    int         far;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach(&rec, dev);
    settle(&r);
    CHECK_INT(chr_fe_printf(&rec.fe, "%s-%d-%c%%", "a", 42, 'z'), 7);
    CHECK_STR(hear(far), "a-42-z%");
    memset(long_text, 'l', 5000);
    CHECK_INT(chr_fe_printf(&rec.fe, "<%s>", long_text), 5002);
    CHECK_INT(strlen(hear(far)), 5002);
    finish(&r, &rec, far);
}

/* ---- what a device at the far side may not have ------------------------------------------------------------------ */

TEST(calls_that_are_not_supported)
{
    static const char *const table[] = { "null,id=d", "ringbuf,id=d", "pty,id=d" };
    size_t                   i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        int       fd = 0, value = 1;
        chr_error err;
        recorder  rec;
        rig       r;
        rig_open(&r);
        attach(&rec, make(&r, table[i]));
        CHECK_INT(chr_fe_set_msgfds(&rec.fe, &fd, 1), CHR_ERR_NOT_SUPPORTED);
        CHECK_INT(chr_fe_get_msgfds(&rec.fe, &fd, 1), CHR_ERR_NOT_SUPPORTED);
        CHECK_INT(chr_fe_ioctl(&rec.fe, 9999, &value), CHR_ERR_NOT_SUPPORTED);
        CHECK_INT(chr_fe_set_echo(&rec.fe, 1), CHR_ERR_NOT_SUPPORTED);
        CHECK_INT(chr_fe_disconnect(&rec.fe), CHR_ERR_NOT_SUPPORTED);
        CHECK_INT(chr_add_client(r.ctx, "d", 0, &err), CHR_ERR_NOT_SUPPORTED);
        detach(&rec);
        rig_close(&r);
    }
}

TEST(add_client_of_an_unknown_chardev)
{
    chr_error err;
    rig       r;
    rig_open_virtual(&r);
    CHECK_INT(chr_add_client(r.ctx, "ghost", 0, &err), CHR_ERR_NOT_FOUND);
    rig_close(&r);
    CHECK(fcntl(0, F_GETFD) >= 0 || errno == EBADF);
}

/* Nothing is allocated per message. */
TEST(messages_do_not_allocate)
{
    recorder rec;
    chr_dev *dev;
    long     calls = 0;
    int      far, i;
    rig      r;
    rig_open(&r);
    far = pair_chardev(&r, &dev);
    attach(&rec, dev);
    for (i = 0; i < 110; i++) {
        if (i == 10) calls = r.calls;
        say(far, "hello");
        settle(&r);
        CHECK_INT(chr_fe_write(&rec.fe, "world", 5), 5);
        CHECK_STR(hear(far), "world");
        if (i >= 10) CHECK_INT(r.calls, calls);
    }
    CHECK_INT(rec.length, 550);
    finish(&r, &rec, far);
}
