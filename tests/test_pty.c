/* pty: a new pseudo terminal; the far side is any process that opens the slave. With virtual time: no test waits. */
#include "chardev.h"
#include "fault.h"
#include "rig.h"

#include <limits.h>
#include <sys/ioctl.h>
#include <termios.h>

static const char *slave_of(const chr_dev *dev)
{
    static chr_info info;
    chr_query(dev, &info);
    CHECK(strncmp(info.filename, "pty:/dev/pts/", 13) == 0);
    return info.filename + 4;
}

static int open_slave(const chr_dev *dev)
{
    int fd = open(slave_of(dev), O_RDWR | O_NOCTTY);
    REQUIRE(fd >= 0);
    return fd;
}

/* A pty with a recorder; the slave is open, and the loop has detected that. */
static int connected_pty(rig *r, recorder *rec)
{
    int slave;
    rig_open_virtual(r);
    attach(rec, make(r, "pty,id=p"));
    settle(r);
    slave = open_slave(rec->fe.dev);
    pass_time(r, 1500);
    CHECK_STR(rec->events, "O");
    return slave;
}

TEST(pty_is_closed_until_the_slave_is_opened)
{
    int      slave, i;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "pty,id=p"));
    for (i = 0; i < 5; i++) pass_time(&r, 1000);
    CHECK_STR(rec.events, "");
    slave = open_slave(rec.fe.dev);
    pass_time(&r, 1500);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_backend_open(&rec.fe), 1);
    close(slave);
    PUMP(&r, !rec.open);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

/* No time passes: the system reports the open. The frontend's greeting is the first output that the opener reads. */
static void greet(recorder *rec, int what)
{
    if (what == 'e' && rec->last_event == CHR_EVENT_OPENED) chr_fe_write(&rec->fe, "welcome\n", 8);
}

TEST(pty_opened_is_told_at_once)
{
    static const int how[] = { O_RDWR, O_RDONLY, O_WRONLY };
    size_t           i;
    recorder         rec;
    rig              r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "pty,id=p"));
    rec.then = greet;
    settle(&r);
    for (i = 0; i < 3 * sizeof how / sizeof *how; i++) {
        int slave = open(slave_of(rec.fe.dev), how[i % 3] | O_NOCTTY), more = open_slave(rec.fe.dev);
        REQUIRE(slave >= 0);
        settle(&r);
        CHECK_STR(rec.events, "O");
        CHECK_STR(hear(how[i % 3] == O_WRONLY ? more : slave), "welcome\n");
        close(more);
        settle(&r);
        CHECK_STR(rec.events, "O"); /* there is one left */
        close(slave);
        settle(&r);
        CHECK_STR(rec.events, "OC");
        memset(rec.events, 0, sizeof rec.events);
    }
    detach(&rec);
    rig_close(&r);
}

/* The slave is opened, written and closed before the loop polls; then opened again before the hang-up is detected. */
TEST(pty_opened_and_closed_between_two_looks)
{
    int      i, slave;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "pty,id=p"));
    settle(&r);
    for (i = 0; i < 10; i++) {
        forget_input(&rec);
        memset(rec.events, 0, sizeof rec.events);
        slave = open_slave(rec.fe.dev);
        say(slave, "in passing");
        close(slave);
        settle(&r);
        CHECK_STR(rec.events, "OC");
        CHECK_INPUT(&rec, "in passing");
    }
    close(open_slave(rec.fe.dev)); /* who said nothing may be missed, and nothing spins for it */
    settle(&r);
    CHECK(!rec.open);
    for (i = 0; i < 50; i++) {
        slave = open_slave(rec.fe.dev);
        if (i % 2) settle(&r);
        say(slave, "x");
        close(slave);
        slave = open_slave(rec.fe.dev);
        settle(&r);
        CHECK(rec.open);
        close(slave);
        settle(&r);
        CHECK(!rec.open);
        memset(rec.events, 0, sizeof rec.events);
    }
    detach(&rec);
    rig_close(&r);
}

/* Each who comes is told of, also the moment after the one before has gone: then poll() has nothing to say. What
 * the one before has left unread is not repeated where the history has it. */
TEST(pty_next_one_before_the_hang_up_was_seen)
{
    int      i, slave;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "pty,id=p,history=64"));
    chr_fe_write(&rec.fe, "past ", 5);
    settle(&r);
    slave = open_slave(rec.fe.dev);
    settle(&r);
    for (i = 0; i < 20; i++) {
        CHECK_STR(rec.events, "O");
        if (i % 3 == 0) CHECK_STR(hear(slave), "past ");
        forget_input(&rec);
        say(slave, "last words");
        close(slave);
        slave = open_slave(rec.fe.dev);
        if (i % 2) settle(&r);
        chr_loop_step(r.ctx, 0);
        settle(&r);
        CHECK_STR(rec.events, "OCO");
        CHECK_INPUT(&rec, "last words");
        memset(rec.events, 0, sizeof rec.events);
        rec.events[0] = 'O';
    }
    CHECK_STR(hear(slave), "past ");
    i = open_slave(rec.fe.dev); /* two at once: the first may go and another come, and nobody is told */
    settle(&r);
    close(slave);
    settle(&r);
    slave = open_slave(rec.fe.dev);
    close(i);
    settle(&r);
    CHECK_STR(rec.events, "O");
    close(slave);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

/* Two that close it at the same time may be reported as one: those who come after that hang-up are noticed all the
 * same. */
TEST(pty_two_close_it_at_once)
{
    int      first, second;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "pty,id=p"));
    settle(&r);
    first = open_slave(rec.fe.dev);
    settle(&r);
    second = open_slave(rec.fe.dev);
    settle(&r);
    CHECK_STR(rec.events, "O");
    close(first);
    close(second);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    first = open_slave(rec.fe.dev);
    settle(&r);
    CHECK_STR(rec.events, "OCO");
    close(first);
    first = open_slave(rec.fe.dev);
    settle(&r);
    CHECK_STR(rec.events, "OCOCO");
    close(first);
    settle(&r);
    CHECK_STR(rec.events, "OCOCOC");
    detach(&rec);
    rig_close(&r);
}

/* The next one opens it while the last words wait for room: they come first, then CLOSED and OPENED. */
TEST(pty_next_one_while_the_last_words_wait)
{
    int      i, slave;
    recorder rec;
    rig      r;
    for (i = 0; i < 4; i++) {
        slave = connected_pty(&r, &rec);
        rec.room = i % 2 ? 3 : 0;
        say(slave, "last words");
        close(slave);
        settle(&r);
        if (i / 2) pass_time(&r, 1500);
        slave = open_slave(rec.fe.dev);
        settle(&r);
        give_room(&rec, UNLIMITED);
        settle(&r);
        CHECK_INPUT(&rec, "last words");
        if (!CHECK_STR(rec.events, "OCO")) NOTE("turn %d", i);
        say(slave, "next");
        settle(&r);
        CHECK_INPUT(&rec, "last wordsnext");
        detach(&rec);
        close(slave);
        rig_close(&r);
    }
}

/* A frontend that replies from the loop, as a guest does: the next opener gets the reply. */
static chr_idle answer;
static int      answered;

static void say_answer(void *opaque)
{
    recorder *rec = opaque;
    answered = chr_fe_write(&rec->fe, "answer", 6);
}

static void answer_soon(recorder *rec, int what)
{
    if (what == 'r') chr_idle_start(rec->fe.ctx, &answer, say_answer, rec);
}

TEST(pty_next_one_is_answered)
{
    int      i, slave;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "pty,id=p"));
    rec.then = answer_soon;
    slave = open_slave(rec.fe.dev);
    settle(&r);
    for (i = 0; i < 20; i++) {
        say(slave, "question");
        settle(&r);
        CHECK_STR(hear(slave), "answer");
        close(slave);
        slave = open_slave(rec.fe.dev);
        answered = 0;
        say(slave, "question");
        settle(&r);
        CHECK_INT(answered, 6);
        CHECK_STR(hear(slave), "answer");
        close(slave);
        settle(&r);
        slave = open_slave(rec.fe.dev);
        settle(&r);
    }
    close(slave);
    detach(&rec);
    rig_close(&r);
}

/* Input received before CLOSED is delivered before it. */
static int newcomer;

static void come_at_closed(recorder *rec, int what)
{
    if (what == 'e' && rec->last_event == CHR_EVENT_CLOSED && newcomer < 0) newcomer = open_slave(rec->fe.dev);
}

TEST(pty_opened_while_closed_is_told)
{
    recorder rec;
    rig      r;
    int      slave = connected_pty(&r, &rec);
    newcomer = -1;
    rec.then = come_at_closed;
    close(slave);
    settle(&r);
    CHECK_STR(rec.events, "OCO");
    detach(&rec);
    close(newcomer);
    rig_close(&r);
}

/* A signal that interrupts the look is no opener. */
TEST(pty_signal_while_it_looks)
{
    int at, fired = 1;
    for (at = 1; fired && at < 20; at++) {
        recorder rec;
        rig      r;
        rig_open_virtual(&r);
        attach(&rec, make(&r, "pty,id=p,history=100"));
        fault_arm(FAULT_poll, EINTR, at, 0);
        pass_time(&r, 300);
        fired = fault_plan.fired > 0;
        fault_disarm();
        if (!CHECK_STR(rec.events, "")) NOTE("at call %d of poll", at);
        CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
        detach(&rec);
        rig_close(&r);
    }
    CHECK(at > 2);
}

/* Nobody there: nothing is due, ever, and nothing runs. */
TEST(pty_costs_nothing_while_nobody_is_there)
{
    int      i, ran = 0;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "pty,id=p"));
    settle(&r);
    for (i = 0; i < 1000; i++) {
        CHECK_INT(chr_loop_timeout(r.ctx), -1);
        r.now += 10000000;
        ran += chr_loop_step(r.ctx, 0) > 0;
    }
    CHECK_INT(ran, 0);
    close(open_slave(rec.fe.dev));
    settle(&r);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    detach(&rec);
    rig_close(&r);
}

/* Where the system has no notification: about one wake-up a second, and opens are detected within that time. */
static void check_fallback(fault_call call, int error)
{
    int      wakes = 0, i, slave;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    fault_arm(call, error, 1, 1);
    attach(&rec, make(&r, "pty,id=p"));
    CHECK_INT(fault_plan.fired, 1);
    fault_disarm();
    settle(&r);
    for (i = 0; i < 1000; i++) {
        int timeout = chr_loop_timeout(r.ctx);
        CHECK(timeout > 0 && timeout <= 1500);
        r.now += 10000000;
        wakes += chr_loop_step(r.ctx, 0) > 0;
    }
    CHECK(wakes >= 5 && wakes <= 25); /* in ten seconds */
    slave = open_slave(rec.fe.dev);
    pass_time(&r, 1500);
    CHECK_STR(rec.events, "O");
    close(slave);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    slave = open_slave(rec.fe.dev);
    CHECK_INT(chr_fe_write(&rec.fe, "too soon", 8), CHR_ERR_DISCONNECTED);
    settle(&r); /* a write makes the loop look, and no time passes */
    CHECK_STR(rec.events, "OCO");
    detach(&rec);
    close(slave);
    rig_close(&r);
}

TEST(pty_without_a_notifier_is_polled_quietly) { check_fallback(FAULT_inotify_init1, EMFILE); }
TEST(pty_without_a_watch_is_polled_quietly) { check_fallback(FAULT_inotify_add_watch, ENOSPC); }

/* Where the system has no notification, an opener that directly follows another is detected too. */
TEST(pty_without_a_notifier_finds_the_next_ones)
{
    int      i;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    fault_arm(FAULT_inotify_init1, EMFILE, 1, 1);
    attach(&rec, make(&r, "pty,id=p"));
    fault_disarm();
    for (i = 1; i <= 5; i++) {
        int slave = open_slave(rec.fe.dev);
        pass_time(&r, 1000);
        CHECK_INT(strlen(rec.events), 2 * i - 1);
        CHECK(rec.open);
        close(slave);
        settle(&r);
        CHECK_INT(strlen(rec.events), 2 * i);
        CHECK(!rec.open);
        pass_time(&r, 1000);
    }
    detach(&rec);
    rig_close(&r);
}

/* Several processes open and close the slave, in each order: it stays open while one has it open, and there are no
 * events. */
TEST(pty_several_have_it_open)
{
    static const char *const orders[] = { "ABaCc", "ABbCc", "ABCabc", "ABCcba", "AB_aC_cb", "A_B_a_C_b", "AaA_BaC_b", "ABaAbCc_a", "AB_a_Bb_C_A_ca",
                                          "AB_a_C_c_", "AB_a_C_c_A_a_C", "AB_a_A_a_A" };
    size_t i, k;
    for (i = 0; i < sizeof orders / sizeof *orders; i++) {
        int      fds[3], held, wait; /* wait: it is looked at after each, not only where the order says `_` */
        recorder rec;
        rig      r;
        for (wait = 0; wait < 2; wait++) {
            const char *at;
            memset(fds, -1, sizeof fds);
            held = 0;
            rig_open_virtual(&r);
            attach(&rec, make(&r, "pty,id=p"));
            settle(&r);
            for (at = orders[i]; *at; at++) {
                int *fd = *at == '_' ? NULL : &fds[(*at | 32) - 'a'];
                if (fd && *at < 'a' && *fd < 0) *fd = open_slave(rec.fe.dev), held++;
                else if (fd && *at >= 'a' && *fd >= 0) close(*fd), *fd = -1, held--;
                if (!fd || wait) pass_time(&r, 1500);
                if (!fd && !CHECK_INT(rec.open, held > 0)) NOTE("%s, %d: %s", orders[i], (int)(at - orders[i]), rec.events);
            }
            pass_time(&r, 1500);
            if (!CHECK_INT(rec.open, held > 0)) NOTE("%s: %s", orders[i], rec.events);
            if (strncmp(orders[i], "AB", 2) == 0 && !strchr(orders[i] + 2, 'B') && held > 0 && !CHECK_STR(rec.events, "O"))
                NOTE("%s", orders[i]);
            for (k = 0; k < 3; k++)
                if (fds[k] >= 0) close(fds[k]);
            detach(&rec);
            rig_close(&r);
        }
    }
}

/* Of two openers one closes. Then the other closes and a third opens, between two checks: CLOSED and OPENED are
 * delivered. */
TEST(pty_two_more_open_it_at_once)
{
    int      slaves[3], i;
    recorder rec;
    rig      r;
    slaves[0] = connected_pty(&r, &rec);
    slaves[1] = open_slave(rec.fe.dev);
    CHECK_INT(chmod(slave_of(rec.fe.dev), 0600), 0); /* two opens in a row are told as one */
    slaves[2] = open_slave(rec.fe.dev);
    pass_time(&r, 1500);
    CHECK_STR(rec.events, "O"); /* nobody has gone */
    for (i = 0; i < 2; i++) {
        close(slaves[i]);
        pass_time(&r, 1500);
        CHECK_STR(rec.events, "O");
    }
    close(slaves[2]);
    PUMP(&r, !rec.open);
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

TEST(pty_the_last_of_several_is_followed_by_another)
{
    int      a, b, c;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "pty,id=p"));
    settle(&r);
    a = open_slave(rec.fe.dev);
    b = open_slave(rec.fe.dev);
    pass_time(&r, 1500);
    close(a);
    pass_time(&r, 1500);
    CHECK_STR(rec.events, "O");
    close(b);
    c = open_slave(rec.fe.dev);
    pass_time(&r, 1500);
    CHECK_STR(rec.events, "OCO");
    close(c);
    detach(&rec);
    rig_close(&r);
}

/* One descriptor for all of them, and it goes with the context. */
TEST(many_ptys)
{
    enum { COUNT = 40 };
    static recorder recs[COUNT];
    int             slaves[COUNT], i, fds;
    char            options[20];
    rig             r;
    rig_open_virtual(&r);
    fds = count_fds();
    for (i = 0; i < COUNT; i++) {
        snprintf(options, sizeof options, "pty,id=p%d", i);
        attach(&recs[i], make(&r, options));
    }
    CHECK_INT(count_fds(), fds + COUNT + 1);
    for (i = 0; i < COUNT; i += 2) slaves[i] = open_slave(recs[i].fe.dev);
    settle(&r);
    for (i = 0; i < COUNT; i++) CHECK_STR(recs[i].events, i % 2 ? "" : "O");
    for (i = 0; i < COUNT; i++) {
        snprintf(options, sizeof options, "p%d", i);
        detach(&recs[i]);
        CHECK_INT(chr_remove(r.ctx, options, NULL), 0);
        if (i % 2 == 0) close(slaves[i]);
    }
    settle(&r);
    rig_close(&r);
}

TEST(pty_carries_both_ways)
{
    recorder rec;
    rig      r;
    int      slave = connected_pty(&r, &rec);
    say(slave, "to guest\r\n\x03\x04\x7f");
    PUMP(&r, rec.length == 13);
    CHECK_INPUT(&rec, "to guest\r\n\x03\x04\x7f");
    CHECK_INT(chr_fe_write(&rec.fe, "from guest\n", 11), 11);
    {
        struct pollfd p = { 0, POLLIN, 0 };
        p.fd = slave;
        CHECK_INT(poll(&p, 1, RIG_PATIENCE_MS), 1);
    }
    CHECK_STR(hear(slave), "from guest\n"); /* raw: no carriage return added */
    detach(&rec);
    close(slave);
    rig_close(&r);
}

TEST(pty_slave_is_raw)
{
    struct termios t;
    recorder       rec;
    rig            r;
    int            slave = connected_pty(&r, &rec);
    REQUIRE(tcgetattr(slave, &t) == 0);
    CHECK(!(t.c_lflag & (ECHO | ICANON | ISIG | IEXTEN)));
    CHECK(!(t.c_iflag & (ICRNL | INLCR | IGNCR | IXON | ISTRIP)));
    CHECK(!(t.c_oflag & OPOST));
    detach(&rec);
    close(slave);
    rig_close(&r);
}

TEST(pty_size)
{
    static const chr_terminal_size wrong[] = { { -1, 24 }, { 80, -1 }, { 65536, 24 }, { 80, 65536 } };
    struct winsize                 window;
    chr_terminal_size              size = { 132, 50 };
    size_t                         i;
    recorder                       rec;
    rig                            r;
    int                            slave = connected_pty(&r, &rec);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SET_TERMINAL_SIZE, &size), 0);
    REQUIRE(ioctl(slave, TIOCGWINSZ, &window) == 0);
    CHECK_INT(window.ws_col, 132);
    CHECK_INT(window.ws_row, 50);
    for (i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        size = wrong[i];
        CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SET_TERMINAL_SIZE, &size), CHR_ERR_INVALID);
    }
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), CHR_ERR_NOT_SUPPORTED);
    detach(&rec);
    close(slave);
    rig_close(&r);
}

TEST(pty_guest_write_looks_at_once)
{
    int      slave;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "pty,id=p"));
    settle(&r);
    CHECK_INT(chr_fe_write(&rec.fe, "nobody", 6), CHR_ERR_DISCONNECTED);
    slave = open_slave(rec.fe.dev);
    chr_fe_write(&rec.fe, "first", 5); /* no time passes */
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_write(&rec.fe, "second", 6), 6);
    detach(&rec);
    close(slave);
    rig_close(&r);
}

/* Data written just before the slave closes arrives before CLOSED. */
TEST(pty_last_words)
{
    int      i;
    recorder rec;
    rig      r;
    int      slave = connected_pty(&r, &rec);
    for (i = 0; i < 20; i++) {
        forget_input(&rec);
        memset(rec.events, 0, sizeof rec.events);
        say(slave, "last words");
        close(slave);
        PUMP(&r, !rec.open);
        CHECK_INPUT(&rec, "last words");
        CHECK_STR(rec.events, "C");
        slave = open_slave(rec.fe.dev);
        pass_time(&r, 1500);
        CHECK_STR(rec.events, "CO");
    }
    detach(&rec);
    close(slave);
    rig_close(&r);
}

/* The same when the frontend has little room. */
TEST(pty_last_words_without_room)
{
    int      i;
    recorder rec;
    rig      r;
    int      slave = connected_pty(&r, &rec);
    rec.room = 0;
    say(slave, "last words");
    close(slave);
    for (i = 0; i < 5; i++) pass_time(&r, 300);
    for (i = 0; i < 50 && rec.length < 10; i++) {
        give_room(&rec, 3);
        chr_loop_step(r.ctx, 5);
    }
    CHECK_INPUT(&rec, "last words");
    for (i = 0; i < 10; i++) {
        give_room(&rec, 3);
        pass_time(&r, 500);
    }
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
}

TEST(pty_hang_up_without_room_does_not_spin)
{
    int      i, steps = 0;
    recorder rec;
    rig      r;
    int      slave = connected_pty(&r, &rec);
    rec.room = 0;
    close(slave);
    for (i = 0; i < 20; i++) steps += chr_loop_step(r.ctx, 10) > 0;
    CHECK(steps < 10);
    detach(&rec);
    rig_close(&r);
}

TEST(pty_link)
{
    char     options[200], target[100];
    ssize_t  len;
    chr_dev *dev;
    rig      r;
    rig_open_virtual(&r);
    snprintf(options, sizeof options, "pty,id=p,path=%s", scratch("link"));
    dev = make(&r, options);
    len = readlink(scratch("link"), target, sizeof target - 1);
    REQUIRE(len > 0);
    target[len] = 0;
    CHECK_STR(target, slave_of(dev));
    rig_close(&r);
    CHECK(!exists(scratch("link")));
    scratch_clean();
}

static void check_link_is_kept(rig *r, const char *what)
{
    chr_error   err;
    struct stat before, after;
    char        options[200];
    snprintf(options, sizeof options, "pty,id=other,path=%s", scratch("link"));
    REQUIRE(lstat(scratch("link"), &before) == 0);
    CHECK(chr_new(r->ctx, options, &err) == NULL);
    CHECK_HAS(err.text, scratch("link"));
    CHECK_HAS(err.text, what);
    CHECK(lstat(scratch("link"), &after) == 0 && after.st_ino == before.st_ino && after.st_mode == before.st_mode);
}

/* Whatever memory is missing, no link is left behind. */
/* The link has the time of its terminal, by which it is known later whether it is a stale one: as soon as it is made,
 * and after each change of the terminal. */
TEST(pty_link_has_the_time_of_its_terminal)
{
    struct stat link, terminal;
    char        options[500];
    chr_dev    *dev;
    rig         r;
    rig_open_virtual(&r);
    snprintf(options, sizeof options, "pty,id=p,path=%s", scratch("link"));
    dev = make(&r, options);
    REQUIRE(lstat(scratch("link"), &link) == 0 && stat(slave_of(dev), &terminal) == 0);
    CHECK_INT(link.st_mtim.tv_sec, terminal.st_ctim.tv_sec);
    CHECK_INT(link.st_mtim.tv_nsec, terminal.st_ctim.tv_nsec);
    pass_time(&r, 1500);
    REQUIRE(chmod(slave_of(dev), 0600) == 0);
    pass_time(&r, 1500);
    REQUIRE(lstat(scratch("link"), &link) == 0 && stat(slave_of(dev), &terminal) == 0);
    CHECK_INT(link.st_mtim.tv_sec, terminal.st_ctim.tv_sec);
    CHECK_INT(link.st_mtim.tv_nsec, terminal.st_ctim.tv_nsec);
    CHECK_INT(chr_remove(r.ctx, "p", NULL), 0);
    rig_close(&r);
    scratch_clean();
}

TEST(pty_link_without_memory)
{
    char options[300];
    long at, failed = 1;
    snprintf(options, sizeof options, "pty,id=p,path=%s", scratch("line"));
    for (at = 1; failed; at++) {
        rig r;
        rig_open_virtual(&r);
        r.fail_at = r.calls + at;
        (void)chr_new(r.ctx, options, NULL);
        failed = r.failed;
        rig_close(&r);
        if (!CHECK(!exists(scratch("line")))) NOTE("allocation %ld", at);
        REQUIRE(at < 100);
    }
    scratch_clean();
}

/* Replaced: a link to a terminal that no longer exists, or whose name was reused since. Kept: all others. */
TEST(pty_link_that_is_stale_is_replaced)
{
    char        options[200], taken[64];
    int         other;
    pid_t       child;
    chr_dev    *dev;
    rig         r;
    snprintf(options, sizeof options, "pty,id=p,path=%s", scratch("link"));
    fflush(stdout);
    child = fork();
    if (child == 0) {
        rig_open(&r);
        make(&r, options);
        usleep(20000); /* the kernel's clock for files is coarse: another program may take the number */
        raise(SIGKILL);
    }
    REQUIRE(waitpid(child, NULL, 0) == child);
    CHECK(exists(scratch("link")));
    rig_open_virtual(&r);
    dev = make(&r, options);
    CHECK(access(scratch("link"), R_OK) == 0);
    check_link_is_kept(&r, "in use");
    usleep(20000); /* the kernel's clock for files is coarse */
    REQUIRE(chmod(slave_of(dev), 0666) == 0); /* it is in use all the same */
    settle(&r);
    check_link_is_kept(&r, "in use");
    CHECK_INT(chr_remove(r.ctx, "p", NULL), 0);
    CHECK(!exists(scratch("link")));

    other = open("/dev/ptmx", O_RDWR | O_NOCTTY); /* the first free number */
    REQUIRE(other >= 0 && ptsname_r(other, taken, sizeof taken) == 0);
    REQUIRE(symlink(taken, scratch("link")) == 0);
    check_link_is_kept(&r, "in use");
    usleep(20000);
    close(other);
    other = open("/dev/ptmx", O_RDWR | O_NOCTTY);
    REQUIRE(other >= 0 && ptsname_r(other, taken, sizeof taken) == 0);
    make(&r, options); /* the link is older than the terminal that has the name now */
    CHECK_INT(chr_remove(r.ctx, "p", NULL), 0);
    close(other);
    rig_close(&r);
    scratch_clean();
}

TEST(pty_link_to_elsewhere_is_kept)
{
    static const char *const targets[] = { "/etc/passwd", "/dev/null", "/dev/pts", "/nonexistent", "/dev/pts/../null", "link" };
    size_t                   i;
    rig                      r;
    rig_open(&r);
    for (i = 0; i < sizeof targets / sizeof *targets; i++) {
        REQUIRE(symlink(targets[i], scratch("link")) == 0);
        check_link_is_kept(&r, "exists");
        unlink(scratch("link"));
    }
    REQUIRE(mkfifo(scratch("link"), 0600) == 0);
    check_link_is_kept(&r, "exists");
    unlink(scratch("link"));
    REQUIRE(mkdir(scratch("link"), 0700) == 0);
    check_link_is_kept(&r, "exists");
    rmdir(scratch("link"));
    rig_close(&r);
    scratch_clean();
}

/* A target that is longer than any terminal's name is not taken for one that begins like it. */
TEST(pty_link_to_something_longer_is_kept)
{
    char   target[300];
    size_t len;
    rig    r;
    rig_open(&r);
    for (len = 255; len < 259; len++) {
        snprintf(target, sizeof target, "/dev/pts/%0*d", (int)(len - 9), 0);
        CHECK_INT(strlen(target), len);
        REQUIRE(symlink(target, scratch("link")) == 0);
        check_link_is_kept(&r, "exists");
        unlink(scratch("link"));
        memcpy(target + len - 2, "/0", 2); /* a file in a directory there */
        REQUIRE(symlink(target, scratch("link")) == 0);
        check_link_is_kept(&r, "exists");
        unlink(scratch("link"));
    }
    rig_close(&r);
    scratch_clean();
}

/* At the end the link goes if it is still ours, wherever the working directory is by then. */
TEST(pty_link_of_another_stays)
{
    char cwd[300];
    rig  r;
    rig_open(&r);
    (void)scratch("link");
    REQUIRE(getcwd(cwd, sizeof cwd) && chdir(scratch_dir) == 0);
    make(&r, "pty,id=p,path=link");
    CHECK(exists("link"));
    REQUIRE(chdir("/") == 0);
    CHECK_INT(chr_remove(r.ctx, "p", NULL), 0);
    CHECK(!exists(scratch("link")));
    REQUIRE(chdir(scratch_dir) == 0);
    make(&r, "pty,id=p,path=link");
    REQUIRE(unlink("link") == 0);
    write_file("link", "not ours");
    CHECK_INT(chr_remove(r.ctx, "p", NULL), 0);
    CHECK_STR(read_file("link"), "not ours");
    unlink("link");
    make(&r, "pty,id=p,path=link");
    REQUIRE(unlink("link") == 0 && symlink("/dev/pts/99999", "link") == 0);
    CHECK_INT(chr_remove(r.ctx, "p", NULL), 0);
    CHECK(exists("link"));
    REQUIRE(chdir(cwd) == 0);
    rig_close(&r);
    scratch_clean();
}

/* Each byte once, in order: also those written after the slave was opened, and before OPENED is delivered. */
TEST(pty_history_when_the_slave_is_opened_during_a_write)
{
    static const char *const more[] = { "", ",obuf=4K" };
    size_t                   i;
    char                     options[100];
    recorder                 rec;
    int                      slave;
    rig                      r;
    for (i = 0; i < 2; i++) {
        rig_open_virtual(&r);
        snprintf(options, sizeof options, "pty,id=p,history=64%s", more[i]);
        attach(&rec, make(&r, options));
        settle(&r);
        chr_fe_write(&rec.fe, "AAAA ", 5);
        slave = open_slave(rec.fe.dev);
        chr_fe_write(&rec.fe, "BBBB ", 5);
        chr_fe_write(&rec.fe, "CCCC ", 5);
        settle(&r);
        CHECK_STR(rec.events, "O");
        CHECK_INT(chr_fe_write(&rec.fe, "DDDD ", 5), 5);
        settle(&r);
        CHECK_STR(hear(slave), "AAAA BBBB CCCC DDDD ");
        close(slave);
        slave = open_slave(rec.fe.dev); /* another, before the hang-up is known: it may get only what is new */
        close(slave);
        settle(&r);
        slave = open_slave(rec.fe.dev);
        chr_fe_write(&rec.fe, "EEEE ", 5);
        settle(&r);
        CHECK_STR(hear(slave), "AAAA BBBB CCCC DDDD EEEE ");
        close(slave);
        detach(&rec);
        rig_close(&r);
    }
}

TEST(pty_link_that_exists_is_refused_and_stays)
{
    chr_error err;
    char      options[200];
    rig       r;
    rig_open_virtual(&r);
    write_file(scratch("link"), "not ours");
    snprintf(options, sizeof options, "pty,id=p,path=%s", scratch("link"));
    CHECK(refuse(&r, options, &err) < 0);
    CHECK_HAS(err.text, scratch("link"));
    CHECK(!strstr(err.text, "in use")); /* it is not a terminal */
    CHECK_STR(read_file(scratch("link")), "not ours");
    CHECK(refuse(&r, "pty,id=p,path=/nonexistent/dir/link", &err) < 0);
    CHECK_HAS(err.text, "/nonexistent/dir/link");
    rig_close(&r);
    CHECK(exists(scratch("link")));
    scratch_clean();
}

TEST(pty_back_pressure)
{
    size_t   sent;
    recorder rec;
    rig      r;
    int      slave = connected_pty(&r, &rec);
    sent = fill_up(&rec.fe);
    CHECK(sent > 0);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    CHECK_INT(drain(&r, slave, sent), sent);
    PUMP(&r, rec.writable == 1);
    PUMP(&r, chr_fe_write(&rec.fe, "y", 1) == 1);
    detach(&rec);
    close(slave);
    rig_close(&r);
}

TEST(pty_filename_and_comes_back)
{
    chr_info info;
    rig      r;
    rig_open_virtual(&r);
    chr_query(make(&r, "pty,id=p"), &info);
    CHECK(strncmp(info.filename, "pty:/dev/pts/", 13) == 0);
    CHECK_INT(info.comes_back, 1);
    CHECK_INT(info.be_open, 0);
    rig_close(&r);
}

TEST(two_ptys)
{
    recorder a, b;
    int      one, two;
    rig      r;
    rig_open_virtual(&r);
    attach(&a, make(&r, "pty,id=a"));
    attach(&b, make(&r, "pty,id=b"));
    one = open_slave(a.fe.dev);
    two = open_slave(b.fe.dev);
    pass_time(&r, 1500);
    say(one, "1");
    say(two, "2");
    PUMP(&r, a.length == 1 && b.length == 1);
    CHECK_INPUT(&a, "1");
    CHECK_INPUT(&b, "2");
    detach(&a), detach(&b);
    close(one), close(two);
    rig_close(&r);
}

/* ---- a terminal behind fd ---------------------------------------------------------------------------------------- */

/* The master of a new pty, whose slave is raw. */
static int open_master(int *slave)
{
    struct termios raw;
    int            master = posix_openpt(O_RDWR | O_NOCTTY);
    REQUIRE(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    *slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    REQUIRE(*slave >= 0 && tcgetattr(*slave, &raw) == 0);
    cfmakeraw(&raw);
    tcsetattr(*slave, TCSANOW, &raw);
    return master;
}

/* It can't be half-closed: its output goes on. */
TEST(fd_of_a_terminal_that_cannot_be_half_closed)
{
    char     options[60];
    int      slave, i, master;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    master = open_master(&slave);
    snprintf(options, sizeof options, "fd,id=f,in=%d,out=%d", master, master);
    attach(&rec, make(&r, options));
    settle(&r);
    for (i = 0; i < 2; i++) {
        CHECK_INT(chr_fe_shutdown(&rec.fe), CHR_ERR_NOT_SUPPORTED);
        CHECK_INT(chr_fe_write(&rec.fe, "still", 5), 5);
        CHECK_STR(hear(slave), "still");
    }
    detach(&rec);
    close(slave);
    rig_close(&r);
}
