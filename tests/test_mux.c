/* mux: one chardev, many frontends. The base is a socket pair here, so that the test is the far side. */
#include "chardev.h"
#include "rig.h"
#include "hosted.h"

#define CTRL_A "\x01"

typedef struct bench {
    rig      r;
    int      far;
    chr_dev *mux;
    recorder fe[6];
    int      count;
} bench;

static void open_mux(bench *b, int frontends)
{
    char options[100];
    int  fds[2];
    memset(b, 0, sizeof *b);
    rig_open_virtual(&b->r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=m,fd=%d,mux=on", fds[0]);
    b->mux = make(&b->r, options);
    b->far = fds[1];
    for (b->count = 0; b->count < frontends; b->count++) attach(&b->fe[b->count], b->mux);
    settle(&b->r);
}

static void close_mux(bench *b)
{
    int i;
    for (i = 0; i < b->count; i++) detach(&b->fe[i]);
    close(b->far);
    rig_close(&b->r);
}

static void type(bench *b, const char *text)
{
    say(b->far, text);
    settle(&b->r);
}

static void clear_events(bench *b)
{
    int i;
    for (i = 0; i < b->count; i++) memset(b->fe[i].events, 0, sizeof b->fe[i].events);
}

/* ---- making one -------------------------------------------------------------------------------------------------- */

TEST(mux_on_makes_two)
{
    bench b;
    open_mux(&b, 1);
    CHECK_STR(b.mux->kind->name, "mux");
    CHECK(chr_find(b.r.ctx, "m") == b.mux);
    REQUIRE(chr_find(b.r.ctx, "m-base") != NULL);
    CHECK_STR(chr_find(b.r.ctx, "m-base")->kind->name, "socket");
    close_mux(&b);
}

TEST(mux_on_an_existing_chardev)
{
    recorder one, two;
    chr_dev *ring, *mux;
    rig      r;
    rig_open_virtual(&r);
    ring = make(&r, "ringbuf,id=ring");
    mux = make(&r, "mux,id=m,chardev=ring");
    attach(&one, mux);
    attach(&two, mux);
    CHECK_INT(chr_fe_write(&one.fe, "ab", 2), 2);
    CHECK_INT(chr_fe_write(&two.fe, "c", 1), 1);
    CHECK_INT(chr_ringbuf_count(ring), 3);
    CHECK(one.open && two.open);
    detach(&one), detach(&two);
    rig_close(&r);
}

TEST(mux_on_nothing_or_on_a_busy_one)
{
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open_virtual(&r);
    CHECK(chr_new(r.ctx, "mux,id=m,chardev=ghost", &err) == NULL);
    CHECK_HAS(err.text, "ghost");
    attach(&rec, make(&r, "ringbuf,id=ring"));
    CHECK(chr_new(r.ctx, "mux,id=m,chardev=ring", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_BUSY);
    CHECK_HAS(err.text, "ring");
    CHECK(chr_find(r.ctx, "m") == NULL);
    detach(&rec);
    rig_close(&r);
}

/* When the mux can't be made the base goes too. */
TEST(mux_whose_base_id_is_taken)
{
    chr_error err;
    rig       r;
    rig_open_virtual(&r);
    make(&r, "null,id=m-base");
    CHECK(chr_new(r.ctx, "ringbuf,id=m,mux=on", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_EXISTS);
    CHECK(chr_find(r.ctx, "m") == NULL);
    make(&r, "null,id=n");
    CHECK(chr_new(r.ctx, "ringbuf,id=n,mux=on", &err) == NULL);
    CHECK(chr_find(r.ctx, "n-base") == NULL);
    rig_close(&r);
}

/* ---- output and input -------------------------------------------------------------------------------------------- */

TEST(output_of_all_goes_out)
{
    bench b;
    open_mux(&b, 3);
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "a", 1), 1);
    CHECK_INT(chr_fe_write(&b.fe[1].fe, "b", 1), 1);
    CHECK_INT(chr_fe_write(&b.fe[2].fe, "c", 1), 1);
    CHECK_STR(hear(b.far), "abc");
    close_mux(&b);
}

/* The last to set its handlers has the focus; Ctrl-A c goes round. */
TEST(input_goes_to_the_one_in_focus)
{
    bench b;
    open_mux(&b, 3);
    type(&b, "x");
    CHECK_INPUT(&b.fe[2], "x");
    type(&b, CTRL_A "cy");
    CHECK_INPUT(&b.fe[0], "y");
    type(&b, CTRL_A "cz");
    CHECK_INPUT(&b.fe[1], "z");
    type(&b, CTRL_A "c!");
    CHECK_INPUT(&b.fe[2], "x!");
    CHECK_INPUT(&b.fe[0], "y");
    close_mux(&b);
}

TEST(take_focus)
{
    bench b;
    open_mux(&b, 3);
    chr_fe_take_focus(&b.fe[1].fe);
    type(&b, "1");
    chr_fe_take_focus(&b.fe[0].fe);
    type(&b, "0");
    CHECK_INPUT(&b.fe[1], "1");
    CHECK_INPUT(&b.fe[0], "0");
    close_mux(&b);
}

TEST(focus_change_tells_both)
{
    bench b;
    open_mux(&b, 2);
    clear_events(&b);
    type(&b, CTRL_A "c");
    CHECK_STR(b.fe[1].events, "U");
    CHECK_STR(b.fe[0].events, "I");
    close_mux(&b);
}

TEST(many_more_than_four)
{
    static recorder many[40];
    bench           b;
    int             i;
    open_mux(&b, 0);
    for (i = 0; i < 40; i++) attach(&many[i], b.mux);
    settle(&b.r);
    for (i = 0; i < 40; i++) type(&b, CTRL_A "cx");
    for (i = 0; i < 40; i++) {
        CHECK_INPUT(&many[i], "x");
        detach(&many[i]);
    }
    close_mux(&b);
}

TEST(next_skips_empty_slots)
{
    bench b;
    open_mux(&b, 4);
    detach(&b.fe[0]);
    detach(&b.fe[2]);
    type(&b, CTRL_A "ca" CTRL_A "cb");
    CHECK_INPUT(&b.fe[1], "a");
    CHECK_INPUT(&b.fe[3], "b");
    attach(&b.fe[2], b.mux); /* a free slot is used again */
    type(&b, "c");
    CHECK_INPUT(&b.fe[2], "c");
    attach(&b.fe[0], b.mux);
    close_mux(&b);
}

TEST(the_last_frontend_goes_and_another_comes)
{
    bench b;
    open_mux(&b, 1);
    detach(&b.fe[0]);
    type(&b, "kept" CTRL_A "c");
    attach(&b.fe[0], b.mux);
    settle(&b.r);
    CHECK(b.fe[0].length == 0 || b.fe[0].length == 4);
    type(&b, "z");
    CHECK_INT(b.fe[0].input[b.fe[0].length - 1], 'z');
    close_mux(&b);
}

/* ---- the escape -------------------------------------------------------------------------------------------------- */

TEST(escape_twice_sends_it)
{
    bench b;
    open_mux(&b, 1);
    type(&b, "a" CTRL_A CTRL_A "b");
    CHECK_INPUT(&b.fe[0], "a" CTRL_A "b");
    close_mux(&b);
}

TEST(escape_split_over_two_reads)
{
    bench b;
    open_mux(&b, 2);
    type(&b, "a" CTRL_A);
    CHECK_INPUT(&b.fe[1], "a");
    type(&b, "cb");
    CHECK_INPUT(&b.fe[0], "b");
    close_mux(&b);
}

/* A mux on a server: the next peer's first character is no command of the last one's escape. */
static void meet(bench *b, const char *typed)
{
    if (b->far >= 0) close(b->far);
    settle(&b->r);
    b->far = unix_connect(scratch("s"));
    settle(&b->r);
    type(b, typed);
}

static void open_served_mux(bench *b, int room)
{
    char options[500];
    memset(b, 0, sizeof *b);
    NEED_UNIX(); /* over TCP a peer that is gone and one that has ended its output look the same */
    rig_open_virtual(&b->r);
    snprintf(options, sizeof options, "socket,id=m,path=%s,server=on,wait=off,mux=on,half-close=on", scratch("s"));
    b->mux = make(&b->r, options);
    attach_with_room(&b->fe[b->count++], b->mux, room);
    b->far = -1;
}

TEST(escape_is_forgotten_with_its_peer)
{
    bench b;
    open_served_mux(&b, UNLIMITED);
    meet(&b, "a" CTRL_A);
    meet(&b, "xyz");
    CHECK_INPUT(&b.fe[0], "axyz");
    CHECK_INT(b.r.exits, 0);
    meet(&b, CTRL_A);
    shutdown(b.far, SHUT_WR);
    settle(&b.r);
    CHECK_INT(chr_fe_disconnect(&b.mux->companion->frontend[0]), 0);
    meet(&b, "x" CTRL_A "x");
    CHECK_INPUT(&b.fe[0], "axyzx");
    CHECK_INT(b.r.exits, 1); /* one peer's own goes on working */
    close_mux(&b);
    scratch_clean();
}

/* The escape character is in the overflow buffer, behind input for a frontend without room; its peer disconnects
 * before it is processed. */
TEST(escape_in_the_backlog_is_forgotten_too)
{
    static char much[4097]; /* as much as is held for one frontend */
    bench       b;
    open_served_mux(&b, UNLIMITED);
    attach_with_room(&b.fe[b.count++], b.mux, 0);
    memset(much, 'm', sizeof much - 1);
    meet(&b, much);
    chr_fe_take_focus(&b.fe[0].fe);
    type(&b, CTRL_A "chello" CTRL_A);
    meet(&b, "xyz");
    give_room(&b.fe[1], UNLIMITED);
    settle(&b.r);
    settle(&b.r);
    CHECK_INT(b.r.exits, 0);
    CHECK_INT(b.fe[1].length, sizeof much - 1 + 8);
    CHECK_MEM(b.fe[1].input + b.fe[1].length - 8, 8, "helloxyz", 8);
    close_mux(&b);
    scratch_clean();
}

TEST(escape_exit_and_snapshot_call_the_hooks)
{
    bench b;
    open_mux(&b, 1);
    type(&b, CTRL_A "s");
    CHECK_INT(b.r.snapshots, 1);
    CHECK_INT(b.r.exits, 0);
    type(&b, CTRL_A "x");
    CHECK_INT(b.r.exits, 1);
    CHECK_INT(b.r.exit_code, 0);
    CHECK_INT(b.fe[0].length, 0);
    type(&b, "alive"); /* the process is */
    CHECK_INPUT(&b.fe[0], "alive");
    close_mux(&b);
}

TEST(escape_exit_by_default_stops_the_loop)
{
    int          fds[2];
    char         options[100];
    recorder     rec;
    chr_error    err;
    chr_context *ctx = chr_context_new(NULL);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=m,fd=%d,mux=on", fds[0]);
    attach(&rec, chr_new(ctx, options, &err));
    say(fds[1], CTRL_A "x");
    CHECK_INT(chr_loop_run(ctx), 0);
    detach(&rec);
    chr_context_free(ctx);
    close(fds[1]);
}

TEST(escape_break_goes_to_the_one_in_focus)
{
    bench b;
    open_mux(&b, 2);
    clear_events(&b);
    type(&b, CTRL_A "b");
    CHECK_STR(b.fe[1].events, "B");
    CHECK_STR(b.fe[0].events, "");
    close_mux(&b);
}

TEST(escape_help)
{
    static const char *const keys[] = { CTRL_A "h", CTRL_A "?" };
    size_t                   i;
    for (i = 0; i < 2; i++) {
        bench       b;
        const char *text;
        open_mux(&b, 1);
        type(&b, keys[i]);
        text = hear(b.far);
        CHECK_HAS(text, "Ctrl-A h");
        CHECK_HAS(text, "Ctrl-A x");
        CHECK_HAS(text, "Ctrl-A s");
        CHECK_HAS(text, "Ctrl-A t");
        CHECK_HAS(text, "Ctrl-A b");
        CHECK_HAS(text, "Ctrl-A c");
        CHECK_INT(b.fe[0].length, 0);
        close_mux(&b);
    }
}

TEST(escape_unknown_is_swallowed_without_harm)
{
    bench b;
    open_mux(&b, 1);
    type(&b, CTRL_A "qz");
    CHECK(b.fe[0].length >= 1 && b.fe[0].input[b.fe[0].length - 1] == 'z');
    close_mux(&b);
}

/* The time of each line since stamps were switched on, by the virtual clock. */
/* Whatever stands behind the escape is no input, but the escape itself. */
TEST(escape_and_every_character)
{
    int c;
    for (c = 0; c < 256; c++) {
        char  typed[4] = { 1, (char)c, 'k', 0 };
        bench b;
        open_mux(&b, 1);
        REQUIRE(write(b.far, typed, 3) == 3);
        settle(&b.r);
        if (c == 1) CHECK_INPUT(&b.fe[0], "\x01k");
        else if (!CHECK_INPUT(&b.fe[0], "k")) NOTE("character %d", c);
        CHECK_INT(b.r.exits, c == 'x');
        CHECK_INT(b.r.snapshots, c == 's');
        CHECK_INT(strchr(b.fe[0].events, 'B') != NULL, c == 'b');
        CHECK_INT(hear(b.far)[0] != 0, c == 'h' || c == '?' || c == 'x');
        close_mux(&b);
    }
}

/* The frontend that has lost the focus gets MUX_OUT, whichever has left before. */
TEST(focus_is_told_after_others_have_left)
{
    int   leaves;
    bench b;
    for (leaves = 1; leaves <= 2; leaves++) { /* the focus is the last one's */
        open_mux(&b, 4);
        clear_events(&b);
        chr_fe_deinit(&b.fe[leaves].fe);
        settle(&b.r);
        CHECK_STR(b.fe[3].events, "");
        chr_fe_take_focus(&b.fe[0].fe);
        settle(&b.r);
        CHECK_STR(b.fe[3].events, "U");
        CHECK_STR(b.fe[0].events, "I");
        close_mux(&b);
    }
}

TEST(escape_timestamps)
{
    const char *text;
    bench       b;
    open_mux(&b, 1);
    type(&b, CTRL_A "t");
    chr_fe_write(&b.fe[0].fe, "one\ntw", 6);
    b.r.now += INT64_C(3723004) * 1000000;
    b.r.wall += INT64_C(3723004) * 1000000;
    chr_fe_write(&b.fe[0].fe, "o\nthree", 7);
    text = hear(b.far);
    CHECK_INT(text[0], '[');
    CHECK(strlen(text) >= 15 && text[3] == ':' && text[6] == ':' && text[9] == '.' && text[13] == ']' && text[14] == ' ');
    CHECK_HAS(text, "] one\n[");
    CHECK_HAS(text, "] two\n[");
    CHECK_HAS(text, "] three");
    type(&b, CTRL_A "t");
    chr_fe_write(&b.fe[0].fe, "\noff\n", 5);
    CHECK_STR(hear(b.far), "\noff\n");
    close_mux(&b);
}

/* A wall clock before 1970 has times of the day like any other. */
TEST(timestamps_before_1970)
{
    bench b;
    open_mux(&b, 1);
    type(&b, CTRL_A "t");
    b.r.wall = -1500000001;
    chr_fe_write(&b.fe[0].fe, "one\n", 4);
    b.r.wall = INT64_C(-86400) * 1000000000 - 1;
    chr_fe_write(&b.fe[0].fe, "two\n", 4);
    CHECK_STR(hear(b.far), "[23:59:58.499] one\n[23:59:59.999] two\n");
    close_mux(&b);
}

/* Bytes taken are counted in the guest's bytes, not in those that went out with stamps. */
TEST(timestamps_do_not_disturb_the_count)
{
    bench b;
    open_mux(&b, 1);
    type(&b, CTRL_A "t");
    CHECK_INT(chr_fe_write(&b.fe[0].fe, "a\nb\nc\n", 6), 6);
    close_mux(&b);
}

/* With stamps on, a far side that takes little gets every byte once, and each line one stamp. */
TEST(timestamps_over_back_pressure)
{
    static char got[2000000];
    size_t      got_len = 0, lines = 0, i, sent = 0;
    char        line[100];
    bench       b;
    open_mux(&b, 1);
    fcntl(b.far, F_SETFL, O_NONBLOCK);
    type(&b, CTRL_A "t");
    snprintf(line, sizeof line, "%098d\n", 0);
    while (sent < 100000) {
        int     taken = chr_fe_write(&b.fe[0].fe, line + sent % 99, 99 - sent % 99);
        ssize_t n = 1;
        if (taken > 0) sent += (size_t)taken;
        if (taken == CHR_ERR_WOULD_BLOCK) n = read(b.far, got + got_len, 1000);
        if (taken < 0 && !CHECK_INT(taken, CHR_ERR_WOULD_BLOCK)) break;
        if (taken < 0 && n > 0) got_len += (size_t)n;
    }
    for (i = 0; i < 1000; i++) {
        ssize_t n = read(b.far, got + got_len, sizeof got - got_len);
        if (n > 0) got_len += (size_t)n;
        settle(&b.r);
    }
    for (i = 0; i < got_len; i++) lines += got[i] == '[';
    CHECK_INT(lines, (sent + 98) / 99);
    CHECK_INT(got_len, sent + lines * strlen("[hh:mm:ss.mmm] "));
    close_mux(&b);
}

TEST(escape_character_of_the_context)
{
    chr_config config;
    recorder   one, two;
    char       options[100];
    int        fds[2];
    rig        r;
    rig_init(&r);
    config = rig_config(&r);
    config.mux_escape = 2;
    r.ctx = chr_context_new(&config);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=m,fd=%d,mux=on", fds[0]);
    attach(&one, make(&r, options));
    attach(&two, chr_find(r.ctx, "m"));
    settle(&r);
    say(fds[1], "\x01" "a\x02" "cb");
    settle(&r);
    CHECK_INPUT(&two, "\x01" "a");
    CHECK_INPUT(&one, "b");
    detach(&one), detach(&two);
    close(fds[1]);
    rig_close(&r);
}

TEST(escape_character_of_one_mux)
{
    recorder one;
    char     options[100];
    int      fds[2];
    rig      r;
    rig_open_virtual(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=base,fd=%d", fds[0]);
    make(&r, options);
    attach(&one, make(&r, "mux,id=m,chardev=base,escape=20"));
    settle(&r);
    say(fds[1], "\x01x\x14\x14z");
    settle(&r);
    CHECK_INPUT(&one, "\x01x\x14z");
    CHECK_INT(r.exits, 0);
    detach(&one);
    close(fds[1]);
    rig_close(&r);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

TEST(event_on_the_base_goes_to_all)
{
    bench b;
    open_mux(&b, 3);
    clear_events(&b);
    CHECK_INT(chr_send_break(b.r.ctx, "m-base", NULL), 0);
    settle(&b.r);
    CHECK_STR(b.fe[0].events, "B");
    CHECK_STR(b.fe[1].events, "B");
    CHECK_STR(b.fe[2].events, "B");
    close(b.far);
    settle(&b.r);
    CHECK_STR(b.fe[0].events, "BC");
    CHECK_STR(b.fe[2].events, "BC");
    b.far = -1;
    close_mux(&b);
}

TEST(event_on_the_mux_goes_to_the_one_in_focus)
{
    bench b;
    open_mux(&b, 3);
    clear_events(&b);
    CHECK_INT(chr_send_break(b.r.ctx, "m", NULL), 0);
    settle(&b.r);
    CHECK_STR(b.fe[2].events, "B");
    CHECK_STR(b.fe[0].events, "");
    close_mux(&b);
}

/* Each frontend gets OPENED once, whatever the cause. */
TEST(opened_once_each)
{
    int   i, k;
    bench b;
    open_mux(&b, 4);
    for (i = 0; i < 4; i++) {
        int opened = 0;
        for (k = 0; b.fe[i].events[k]; k++) opened += b.fe[i].events[k] == 'O';
        CHECK_INT(opened, 1);
    }
    CHECK_INT(chr_fe_backend_open(&b.fe[0].fe), 1);
    close_mux(&b);
}

TEST(opened_is_held_back_while_suspended)
{
    recorder one, two, three;
    chr_dev *mux;
    rig      r;
    rig_open_virtual(&r);
    chr_mux_suspend_open(r.ctx);
    mux = make(&r, "ringbuf,id=m,mux=on");
    attach(&one, mux);
    attach(&two, mux);
    settle(&r);
    CHECK(!strchr(one.events, 'O') && !strchr(two.events, 'O'));
    attach(&three, mux);
    settle(&r);
    CHECK(!strchr(three.events, 'O'));
    chr_mux_resume_open(r.ctx);
    settle(&r);
    CHECK(one.open && two.open && three.open);
    detach(&one), detach(&two), detach(&three);
    rig_close(&r);
}

/* ---- room: held in order, per frontend, and nothing lost --------------------------------------------------------- */

TEST(input_is_held_for_the_frontend_it_was_typed_to)
{
    bench b;
    open_mux(&b, 2);
    b.fe[1].room = 0;
    type(&b, "for one" CTRL_A "cfor zero");
    CHECK_INT(b.fe[1].length, 0);
    CHECK_INPUT(&b.fe[0], "for zero");
    give_room(&b.fe[1], 4);
    settle(&b.r);
    CHECK_INPUT(&b.fe[1], "for ");
    give_room(&b.fe[1], 100);
    settle(&b.r);
    CHECK_INPUT(&b.fe[1], "for one");
    close_mux(&b);
}

/* Much more than any buffer: it pushes back, and every byte arrives in order. */
TEST(held_input_pushes_back)
{
    static char block[300000];
    size_t      sent = 0, i;
    ssize_t     n;
    bench       b;
    open_mux(&b, 2);
    fcntl(b.far, F_SETFL, O_NONBLOCK);
    for (i = 0; i < sizeof block; i++) block[i] = (char)('a' + i % 26);
    b.fe[1].room = 0;
    while (sent < sizeof block && (n = write(b.far, block + sent, sizeof block - sent)) > 0) {
        sent += (size_t)n;
        settle(&b.r);
    }
    CHECK_INT(b.fe[1].length, 0);
    while (b.fe[1].length < sizeof block && i-- > 0) {
        give_room(&b.fe[1], 777);
        settle(&b.r);
        n = sent < sizeof block ? write(b.far, block + sent, sizeof block - sent) : 0;
        if (n > 0) sent += (size_t)n;
    }
    CHECK_MEM(b.fe[1].input, b.fe[1].length, block, sizeof block);
    CHECK_INT(b.fe[0].length, 0);
    close_mux(&b);
}

/* While one is full, what is typed for another (after the escape) still comes to it, in order, as long as there is
 * space. */
TEST(held_input_keeps_its_order_over_focus_changes)
{
    bench b;
    open_mux(&b, 2);
    b.fe[0].room = b.fe[1].room = 0;
    type(&b, "1a" CTRL_A "c0a" CTRL_A "c1b" CTRL_A "c0b");
    give_room(&b.fe[0], 100);
    settle(&b.r);
    give_room(&b.fe[1], 100);
    settle(&b.r);
    CHECK_INPUT(&b.fe[0], "0a0b");
    CHECK_INPUT(&b.fe[1], "1a1b");
    close_mux(&b);
}

/* A frontend without handlers doesn't swallow what is meant for another. */
TEST(frontend_without_handlers)
{
    chr_error err;
    recorder  dumb;
    bench     b;
    open_mux(&b, 1);
    memset(&dumb, 0, sizeof dumb);
    REQUIRE(chr_fe_init(&dumb.fe, b.mux, &err) == 0);
    type(&b, "abc");
    CHECK_INPUT(&b.fe[0], "abc");
    chr_fe_deinit(&dumb.fe);
    close_mux(&b);
}

TEST(output_would_block_and_watch)
{
    size_t sent;
    bench  b;
    open_mux(&b, 2);
    sent = fill_up(&b.fe[0].fe);
    CHECK_INT(chr_fe_write(&b.fe[1].fe, "x", 1), CHR_ERR_WOULD_BLOCK);
    chr_fe_add_watch(&b.fe[0].fe, recorder_writable, &b.fe[0]);
    chr_fe_add_watch(&b.fe[1].fe, recorder_writable, &b.fe[1]);
    settle(&b.r);
    CHECK_INT(b.fe[0].writable + b.fe[1].writable, 0);
    CHECK_INT(drain(&b.r, b.far, sent), sent);
    settle(&b.r);
    CHECK_INT(b.fe[0].writable, 1);
    CHECK_INT(b.fe[1].writable, 1);
    close_mux(&b);
}

/* While all are told of an event, the handler of one takes others away, itself too: those that are left hear it,
 * once, and nobody else does. */
static bench *walked;
static int    walk_drops;

static void drop_some(recorder *rec, int what)
{
    int i;
    if (what != 'e' || rec->last_event != CHR_EVENT_BREAK) return;
    rec->then = NULL;
    for (i = 0; i < walked->count; i++)
        if (walk_drops & 1 << i) chr_fe_deinit(&walked->fe[i].fe);
}

TEST(frontends_go_while_all_are_told)
{
    enum { COUNT = 4 };
    int who, drops, i;
    for (who = 0; who < COUNT; who++)
        for (drops = 1; drops < 1 << COUNT; drops++) {
            bench b;
            open_mux(&b, COUNT);
            clear_events(&b);
            walked = &b;
            walk_drops = drops;
            b.fe[who].then = drop_some;
            chr_be_event(chr_find(b.r.ctx, "m-base"), CHR_EVENT_BREAK);
            for (i = 0; i < COUNT; i++)
                if (!CHECK_INT(strchr(b.fe[i].events, 'B') != NULL, i <= who || !(drops & 1 << i))) NOTE("%d drops %x: %d", who, (unsigned)drops, i);
            settle(&b.r);
            clear_events(&b);
            chr_be_event(chr_find(b.r.ctx, "m-base"), CHR_EVENT_BREAK); /* nothing is left of that walk */
            for (i = 0; i < COUNT; i++) CHECK_STR(b.fe[i].events, drops & 1 << i ? "" : "B");
            b.count = COUNT;
            close_mux(&b);
        }
}

/* A frontend acts inside its can_read: whoever gets the input then, each byte is delivered once, in order. */
static bench *questioned;
static int    questions, question, injections;
static char   question_answer;
static recorder another; /* who gets it behind an 'o' */

static int questioned_can_read(void *opaque)
{
    recorder *rec = (recorder *)opaque;
    int       room = rec->room;
    if (++questions != question) return room;
    switch (question_answer) {
    case 'f': chr_fe_take_focus(&questioned->fe[1].fe); break;
    case 'F': chr_fe_take_focus(&questioned->fe[1].fe), chr_fe_take_focus(&questioned->fe[0].fe); break;
    case 'd': chr_fe_deinit(&questioned->fe[0].fe); break;
    case 'D': chr_fe_deinit(&questioned->fe[1].fe); break;
    case 'b': chr_fe_deinit(&questioned->fe[0].fe), chr_fe_deinit(&questioned->fe[1].fe); break;
    case 'h': chr_fe_set_handlers(&rec->fe, NULL, NULL); break;
    case 'H': listen_to(rec); break;
    case 'o': chr_fe_set_handlers(&rec->fe, &recorder_handlers, &another); break;
    case 'i': injections += chr_inject(questioned->mux, "I", 1) == 1; break;
    case 'e': chr_be_event(chr_find(questioned->r.ctx, "m-base"), CHR_EVENT_BREAK); break;
    default: break;
    }
    return room;
}

TEST(frontends_that_do_something_when_they_are_asked)
{
    static const char         answers[] = "fFdDbhHieo";
    static const chr_handlers handlers = { questioned_can_read, recorder_read, recorder_event, NULL };
    static const int          rooms[] = { 0, 1, 3, UNLIMITED };
    size_t                    a, k;
    for (a = 0; a < sizeof answers - 1; a++)
        for (k = 0; k < 4; k++)
            for (question = 1; question <= 4; question++) {
                char   all[64] = "";
                size_t len = 0, i;
                bench  b;
                open_mux(&b, 2);
                questioned = &b;
                questions = injections = 0;
                memset(&another, 0, sizeof another);
                another.room = UNLIMITED;
                question_answer = answers[a];
                b.fe[0].open = 0;
                b.fe[0].early_input_allowed = b.fe[1].early_input_allowed = 1;
                chr_fe_set_handlers(&b.fe[0].fe, &handlers, &b.fe[0]);
                b.fe[0].room = rooms[k];
                type(&b, "abcdef");
                type(&b, "gh");
                for (i = 0; i < 2; i++)
                    if (b.fe[i].fe.dev) give_room(&b.fe[i], UNLIMITED);
                settle(&b.r);
                for (i = 0; i < 2; i++) {
                    memcpy(all + len, b.fe[i].input ? b.fe[i].input : "", b.fe[i].length);
                    len += b.fe[i].length;
                }
                memcpy(all + len, another.input ? another.input : "", another.length);
                all[len + another.length] = 0;
                if (strchr("fFDHieo", question_answer)) {
                    const char *at = all;
                    char        want[3] = "a";
                    int         injected = 0;
                    for (; *at; at++) {
                        if (*at == 'I') injected++;
                        else if (!CHECK_INT(*at, want[0]++)) break;
                    }
                    if (!CHECK_INT(want[0], 'i') || !CHECK_INT(injected, injections))
                        NOTE("%c at question %d with room for %d: %s", question_answer, question, rooms[k], all);
                } else {
                    for (i = 1; i < b.fe[0].length; i++) CHECK(b.fe[0].input[i] == b.fe[0].input[i - 1] + 1);
                    for (i = 1; i < b.fe[1].length; i++) CHECK(b.fe[1].input[i] == b.fe[1].input[i - 1] + 1);
                    CHECK(len <= 8);
                }
                free(another.input);
                close_mux(&b);
            }
}

/* What the frontend has room for comes as it was read, in one piece. */
static int reads;

static void count_reads(recorder *rec, int what)
{
    (void)rec;
    reads += what == 'r';
}

TEST(a_large_message_comes_in_one_piece)
{
    static char block[30000];
    bench       b;
    NEED_LITTLE_ROOM();
    open_mux(&b, 2);
    memset(block, 'x', sizeof block);
    b.fe[1].then = count_reads;
    reads = 0;
    CHECK_INT(write(b.far, block, sizeof block), sizeof block);
    settle(&b.r);
    CHECK_INT(b.fe[1].length, sizeof block);
    CHECK_INT(reads, 1);
    close_mux(&b);
}

TEST(input_before_a_close_comes_first)
{
    bench b;
    open_mux(&b, 1);
    say(b.far, "last words");
    close(b.far);
    settle(&b.r);
    CHECK_INPUT(&b.fe[0], "last words");
    CHECK_STR(b.fe[0].events + strlen(b.fe[0].events) - 1, "C");
    b.far = -1;
    close_mux(&b);
}

/* Input queued for a frontend without room is delivered before CLOSED; a frontend that has read all gets CLOSED at
 * once. */
TEST(held_input_comes_before_the_close)
{
    bench b;
    open_mux(&b, 2);
    clear_events(&b);
    b.fe[1].room = 0;
    say(b.far, "last words");
    close(b.far);
    b.far = -1;
    settle(&b.r);
    CHECK_STR(b.fe[0].events, "C");
    CHECK_STR(b.fe[1].events, "");
    give_room(&b.fe[1], 4);
    settle(&b.r);
    CHECK_INPUT(&b.fe[1], "last");
    CHECK_STR(b.fe[1].events, "");
    give_room(&b.fe[1], 100);
    settle(&b.r);
    CHECK_INPUT(&b.fe[1], "last words");
    CHECK_STR(b.fe[1].events, "C");
    close_mux(&b);
}

/* A frontend for which input is held is not at the end of it: neither in the hold nor, with more than that, in the
 * backlog. */
TEST(held_input_comes_before_the_end_of_file)
{
    static char block[60000];
    size_t      size;
    for (size = 10; size < sizeof block; size = 40000) {
        bench b;
        open_mux(&b, 2);
        b.fe[1].room = 0;
        memset(block, 'x', size);
        block[size] = 0;
        say(b.far, block);
        close(b.far);
        b.far = -1;
        settle(&b.r);
        CHECK_INT(chr_fe_eof(&b.fe[1].fe), 0);
        give_room(&b.fe[1], 4);
        settle(&b.r);
        CHECK_INT(b.fe[1].length, 4);
        CHECK_INT(chr_fe_eof(&b.fe[1].fe), 0);
        give_room(&b.fe[1], UNLIMITED);
        settle(&b.r);
        CHECK_INPUT(&b.fe[1], block);
        CHECK_INT(chr_fe_eof(&b.fe[1].fe), 1);
        CHECK_INT(chr_fe_eof(&b.fe[0].fe), 1);
        close_mux(&b);
        if (size == 40000) break;
    }
}

/* The same with more than a hold takes, and the next peer's input behind it. */
TEST(held_input_comes_before_the_next_peer)
{
    static char block[60000];
    bench       b;
    int         next;
    memset(&b, 0, sizeof b);
    memset(block, 'x', sizeof block - 1);
    rig_open_virtual(&b.r);
    snprintf(block + 40000, 100, "socket,id=m,path=%s,server=on,wait=off,mux=on", scratch("s"));
    b.mux = make(&b.r, block + 40000);
    memset(block + 40000, 'y', 100);
    attach(&b.fe[0], b.mux);
    attach(&b.fe[1], b.mux);
    b.count = 2;
    b.far = unix_connect(scratch("s"));
    settle(&b.r);
    clear_events(&b);
    b.fe[1].room = 0;
    say(b.far, block);
    say(b.far, CTRL_A "cz");
    close(b.far);
    b.far = -1;
    settle(&b.r);
    next = unix_connect(scratch("s"));
    say(next, "for zero");
    settle(&b.r);
    CHECK_STR(b.fe[0].events, "");
    CHECK_STR(b.fe[1].events, "");
    give_room(&b.fe[1], UNLIMITED);
    settle(&b.r);
    CHECK_INPUT(&b.fe[1], block);
    CHECK_INPUT(&b.fe[0], "zfor zero");
    CHECK_STR(b.fe[0].events, "ICO");
    CHECK_STR(b.fe[1].events, "UCO");
    b.far = next;
    close_mux(&b);
    scratch_clean();
}

/* After a half-close by the peer, the frontend with queued input gets INPUT_END after that input; the others get it
 * at once. */
TEST(held_input_comes_before_a_half_close)
{
    char  options[100];
    int   fds[2];
    bench b;
    memset(&b, 0, sizeof b);
    rig_open_virtual(&b.r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=m,fd=%d,mux=on,half-close=on", fds[0]);
    b.mux = make(&b.r, options);
    b.far = fds[1];
    for (b.count = 0; b.count < 2; b.count++) attach(&b.fe[b.count], b.mux);
    settle(&b.r);
    clear_events(&b);
    b.fe[1].room = 0;
    say(b.far, "last words");
    shutdown(b.far, SHUT_WR);
    settle(&b.r);
    CHECK_STR(b.fe[0].events, "E");
    CHECK_STR(b.fe[1].events, "");
    give_room(&b.fe[1], UNLIMITED);
    settle(&b.r);
    CHECK_INPUT(&b.fe[1], "last words");
    CHECK_STR(b.fe[1].events, "E");
    CHECK_INT(chr_fe_write(&b.fe[1].fe, "x", 1), 1);
    CHECK_STR(hear(b.far), "x");
    close_mux(&b);
}

static int mux_nested, mux_most_nested;

/* Tries to inject, once, in the handler of the input that was held. */
static void inject_more(recorder *rec, int what)
{
    if (what != 'r') return;
    if (++mux_nested > mux_most_nested) mux_most_nested = mux_nested;
    if (rec->user) {
        chr_dev *mux = (chr_dev *)rec->user;
        rec->user = NULL;
        CHECK_INT(chr_inject(mux, "more", 4), CHR_ERR_WOULD_BLOCK);
    }
    mux_nested--;
}

/* While held input is delivered nothing can be injected: it would come within its handler. Afterwards it can. */
TEST(injected_while_held_input_is_delivered)
{
    bench b;
    open_mux(&b, 1);
    b.fe[0].room = 0;
    type(&b, "held");
    b.fe[0].then = inject_more;
    b.fe[0].user = b.mux;
    give_room(&b.fe[0], UNLIMITED);
    settle(&b.r);
    CHECK_INPUT(&b.fe[0], "held");
    CHECK_INT(chr_inject(b.mux, "more", 4), 4);
    settle(&b.r);
    CHECK_INPUT(&b.fe[0], "heldmore");
    CHECK_INT(mux_most_nested, 1);
    close_mux(&b);
}

/* In a foreign loop, which does not retry by itself: when there is room for the queued input, the rest follows. */
TEST(held_input_flows_on_in_another_loop)
{
    static char block[30000];
    char        options[60];
    int         fds[2];
    recorder    rec;
    rig         r;
    memset(block, 'x', sizeof block - 1);
    rig_open_hosted(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=m,fd=%d,mux=on", fds[0]);
    attach_with_room(&rec, make(&r, options), 0);
    host_turns(&r, 10);
    say(fds[1], block);
    host_turns(&r, 10);
    CHECK_INT(rec.length, 0);
    give_room(&rec, UNLIMITED);
    host_turns(&r, 20);
    CHECK_INT(rec.length, sizeof block - 1);
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}

/* The end of the context doesn't wait for room. */
TEST(context_goes_with_held_input)
{
    bench b;
    open_mux(&b, 2);
    clear_events(&b);
    b.fe[1].room = 0;
    say(b.far, "unread");
    close(b.far);
    settle(&b.r);
    CHECK_STR(b.fe[1].events, "");
    rig_close(&b.r);
    CHECK_STR(b.fe[1].events, "C");
    CHECK_INT(b.fe[1].length, 0);
    free(b.fe[0].input), free(b.fe[1].input);
}

static void detach_oneself(recorder *rec, int what)
{
    if (what == 'r') chr_fe_deinit(&rec->fe);
}

TEST(frontend_detaches_in_its_read_handler)
{
    bench b;
    open_mux(&b, 2);
    b.fe[1].then = detach_oneself;
    type(&b, "a");
    CHECK_INPUT(&b.fe[1], "a");
    type(&b, CTRL_A "c");
    type(&b, "b");
    CHECK(b.fe[0].length >= 1);
    close_mux(&b);
}

TEST(mux_in_a_mux_base_cannot_be_taken)
{
    chr_error    err;
    chr_frontend fe;
    bench        b;
    open_mux(&b, 1);
    memset(&fe, 0, sizeof fe);
    CHECK_INT(chr_fe_init(&fe, chr_find(b.r.ctx, "m-base"), &err), CHR_ERR_BUSY);
    CHECK_HAS(err.text, "m-base");
    close_mux(&b);
}

/* ---- corners ----------------------------------------------------------------------------------------------------- */

/* The far side types for one that has room, then in the same breath for one that is full to the brim: nothing is
 * lost. */
TEST(input_for_a_full_one_behind_input_for_another)
{
    static char block[300000], want[300000];
    size_t      sent = 0, len = 0;
    ssize_t     n;
    int         i;
    bench       b;
    open_mux(&b, 2);
    fcntl(b.far, F_SETFL, O_NONBLOCK);
    memset(block, 'f', sizeof block);
    b.fe[1].room = 0;
    while (sent < sizeof block && (n = write(b.far, block + sent, sizeof block - sent)) > 0) {
        sent += (size_t)n; /* all that the mux holds for it, and all that the kernel holds behind that */
        settle(&b.r);
    }
    memset(want, 'f', sent);
    chr_fe_take_focus(&b.fe[0].fe); /* what is still in the kernel goes to the other now */
    settle(&b.r);
    len = sent - b.fe[0].length;
    say(b.far, "zero" CTRL_A "cone, at last");
    settle(&b.r);
    for (i = 0; i < 10000 && b.fe[1].length < len + 12; i++) {
        give_room(&b.fe[1], 1000);
        settle(&b.r);
    }
    memcpy(want + len, "one, at last", 12);
    CHECK_MEM(b.fe[1].input, b.fe[1].length, want, len + 12);
    CHECK_INT(b.fe[0].length, sent - len + 4);
    CHECK_MEM(b.fe[0].input + b.fe[0].length - 4, 4, "zero", 4);
    close_mux(&b);
}

TEST(query_of_a_mux)
{
    chr_info info;
    rig      r;
    rig_open_virtual(&r);
    chr_query(make(&r, "pty,id=m,mux=on"), &info);
    CHECK_STR(info.backend, "mux");
    CHECK_INT(info.comes_back, 1); /* as its base does */
    CHECK_INT(info.be_open, 0);
    chr_query(make(&r, "ringbuf,id=n,mux=on"), &info);
    CHECK_INT(info.comes_back, 0);
    rig_close(&r);
}

TEST(write_all_through_a_mux)
{
    size_t sent;
    bench  b;
    open_mux(&b, 1);
    sent = fill_up(&b.fe[0].fe);
    CHECK_INT(chr_fe_write_all(&b.fe[0].fe, "x", 1, 0), CHR_ERR_TIMEOUT);
    CHECK_INT(drain(&b.r, b.far, sent), sent);
    CHECK_INT(chr_fe_write_all(&b.fe[0].fe, "xyz", 3, -1), 3);
    CHECK_STR(hear(b.far), "xyz");
    close_mux(&b);
}

TEST(context_goes_with_frontends_on_a_mux)
{
    recorder one, two;
    chr_dev *mux;
    rig      r;
    rig_open_virtual(&r);
    mux = make(&r, "ringbuf,id=m,mux=on");
    attach(&one, mux);
    attach(&two, mux);
    settle(&r);
    rig_close(&r);
    CHECK(!one.open && !two.open);
    CHECK_INT(strchr(one.events, 'C') != NULL, 1);
    CHECK(one.fe.dev == NULL && two.fe.dev == NULL);
    CHECK_INT(chr_fe_write(&one.fe, "x", 1), CHR_ERR_DISCONNECTED);
    detach(&one), detach(&two);
}

TEST(mux_cannot_be_swapped)
{
    chr_error err;
    bench     b;
    open_mux(&b, 1);
    CHECK(chr_change(b.r.ctx, "m", "null", &err) < 0);
    CHECK_HAS(err.text, "m");
    chr_change(b.r.ctx, "m-base", "null", &err); /* whichever way it answers, the mux still works or says that nobody is there */
    settle(&b.r);
    chr_fe_write(&b.fe[0].fe, "x", 1);
    close_mux(&b);
}

/* Whoever has the focus leaves: the input goes to one that is still there. */
TEST(focus_moves_on_when_its_frontend_leaves)
{
    bench b;
    open_mux(&b, 3);
    detach(&b.fe[2]);
    type(&b, "x");
    CHECK_INT(b.fe[0].length + b.fe[1].length, 1);
    attach(&b.fe[2], b.mux);
    close_mux(&b);
}

static void take_focus_back(recorder *rec, int what)
{
    if (what == 'e' && rec->last_event == CHR_EVENT_MUX_OUT && !rec->user) {
        rec->user = rec;
        chr_fe_take_focus(&rec->fe);
    }
}

TEST(focus_taken_back_in_the_handler)
{
    bench b;
    open_mux(&b, 2);
    b.fe[1].then = take_focus_back;
    type(&b, CTRL_A "cx");
    CHECK_INT(b.fe[0].length + b.fe[1].length, 1);
    CHECK_INPUT(&b.fe[1], "x");
    close_mux(&b);
}

/* What waits in the mux's own obuf goes on as the far side reads, without another write. */
TEST(mux_with_an_obuf_of_its_own)
{
    static char block[65536], got[sizeof block];
    recorder    rec;
    chr_info    info;
    char        text[60];
    int         pair[2], size = 4096;
    size_t      at = 0;
    int64_t     end = real_ms() + 10000 * test_time_scale();
    rig         r;
    rig_open(&r);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    snprintf(text, sizeof text, "socket,id=s,fd=%d", pair[0]);
    make(&r, text);
    attach(&rec, make(&r, "mux,id=m,chardev=s,obuf=64K"));
    settle(&r);
    memset(block, 'a', sizeof block);
    CHECK_INT(chr_fe_write(&rec.fe, block, sizeof block), (long long)sizeof block);
    chr_query(rec.fe.dev, &info);
    CHECK(info.bytes_queued > 0);
    while (at < sizeof block && end > real_ms()) {
        ssize_t n = recv(pair[1], got, sizeof got, MSG_DONTWAIT);
        at += n > 0 ? (size_t)n : 0;
        chr_loop_step(r.ctx, n > 0 ? 0 : 5);
    }
    CHECK_INT((long long)at, (long long)sizeof block);
    detach(&rec);
    close(pair[1]);
    rig_close(&r);
}
