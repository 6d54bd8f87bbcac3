/* stdio: descriptors 0 and 1 of the process, which are a pseudo terminal, pipes or files here. */
#include "chardev.h"
#include "fault.h"
#include "rig.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <pty.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <termios.h>

static int real_stdout = -1;

/* From here on what the harness prints is kept back, and 0 and 1 are these two. */
static void redirect(int in, int out)
{
    static char buffer[1 << 16];
    fflush(stdout);
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    real_stdout = fcntl(1, F_DUPFD_CLOEXEC, 50);
    if (in >= 0) dup2(in, 0);
    else close(0);
    dup2(out, 1);
    if (in > 1) close(in);
    if (out > 1 && out != in) close(out);
}

static void redirect_back(void)
{
    dup2(real_stdout, 1);
    close(real_stdout);
}

/* A terminal as 0 and 1, the controlling one as in real life; returns its master side. */
static int terminal(void)
{
    int master, slave;
    REQUIRE(openpty(&master, &slave, NULL, NULL, NULL) == 0);
    fcntl(master, F_SETFD, FD_CLOEXEC);
    ioctl(slave, TIOCSCTTY, 0);
    redirect(slave, slave);
    return master;
}

/* Field by field: between the fields there is padding. */
static int same_settings(const struct termios *a, const struct termios *b)
{
    return a->c_iflag == b->c_iflag && a->c_oflag == b->c_oflag && a->c_cflag == b->c_cflag && a->c_lflag == b->c_lflag &&
           memcmp(a->c_cc, b->c_cc, sizeof a->c_cc) == 0;
}

static void wait_readable(int fd)
{
    struct pollfd p = { 0, POLLIN, 0 };
    p.fd = fd;
    CHECK_INT(poll(&p, 1, RIG_PATIENCE_MS), 1);
}

/* A terminal may hand it over in parts. */
static const char *hear_line(int fd)
{
    static char line[200];
    size_t      len = 0;
    while (!len || line[len - 1] != '\n') {
        const char *part = (wait_readable(fd), hear(fd));
        if (len + strlen(part) >= sizeof line || test_failures) break;
        memcpy(line + len, part, strlen(part) + 1);
        len += strlen(part);
    }
    return line;
}

TEST(stdio_on_a_terminal)
{
    recorder rec;
    rig      r;
    int      master = terminal();
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    CHECK_STR(rec.events, "O");
    say(master, "keys\r");
    PUMP(&r, rec.length == 5);
    CHECK_INPUT(&rec, "keys\r"); /* the carriage return stays one */
    CHECK_STR(hear(master), ""); /* nothing is echoed */
    CHECK_INT(chr_fe_write(&rec.fe, "hi\n", 3), 3);
    CHECK_STR(hear_line(master), "hi\r\n"); /* OPOST stays */
    detach(&rec);
    rig_close(&r);
    redirect_back();
}

TEST(stdio_makes_the_terminal_raw_and_puts_it_back)
{
    struct termios before, during, after;
    rig            r;
    int            master = terminal(), flags = fcntl(0, F_GETFL);
    (void)master;
    rig_open(&r);
    tcgetattr(0, &before);
    make(&r, "stdio,id=s");
    tcgetattr(0, &during);
    CHECK(!(during.c_lflag & (ECHO | ICANON)));
    CHECK(!(during.c_iflag & (ICRNL | INLCR)));
    CHECK(during.c_lflag & ISIG);
    CHECK(during.c_oflag & OPOST);
    CHECK_INT(fcntl(0, F_GETFL), flags); /* they are everybody's who has this terminal open */
    CHECK_INT(fcntl(1, F_GETFL), flags);
    chr_remove(r.ctx, "s", NULL);
    tcgetattr(0, &after);
    CHECK(same_settings(&before, &after));
    CHECK_INT(fcntl(0, F_GETFL), flags);
    rig_close(&r);
    redirect_back();
}

/* The size is returned when queried, and each change of it is reported within half a second. */
TEST(stdio_size_of_the_terminal)
{
    struct winsize    window = { 24, 80, 0, 0 };
    chr_terminal_size size = { 0, 0 };
    recorder          rec;
    rig               r;
    int               master = terminal();
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), CHR_ERR_NOT_SUPPORTED); /* it has none yet */
    REQUIRE(ioctl(master, TIOCSWINSZ, &window) == 0);
    PUMP(&r, rec.last_event == CHR_EVENT_RESIZED);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), 0);
    CHECK_INT(size.columns, 80);
    CHECK_INT(size.rows, 24);
    window.ws_row = 50;
    REQUIRE(ioctl(master, TIOCSWINSZ, &window) == 0);
    PUMP(&r, strcmp(rec.events, "O??") == 0);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), 0);
    CHECK_INT(size.rows, 50);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SET_TERMINAL_SIZE, &size), CHR_ERR_NOT_SUPPORTED);
    detach(&rec);
    rig_close(&r);
    redirect_back();
}

/* One event per change, and none without a change: not for the initial size, nor for a queried one. */
TEST(stdio_size_is_told_once)
{
    static const struct { unsigned short rows, columns; } sizes[] = { { 24, 81 }, { 25, 81 }, { 81, 25 }, { 1, 1 } };
    struct winsize    window = { 24, 80, 0, 0 };
    chr_terminal_size size = { 0, 0 };
    size_t            i;
    recorder          rec;
    rig               r;
    int               master = terminal();
    REQUIRE(ioctl(master, TIOCSWINSZ, &window) == 0);
    rig_open_virtual(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    for (i = 0; i < 5; i++) pass_time(&r, 500);
    CHECK_STR(rec.events, "O");
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        window.ws_row = sizes[i].rows;
        window.ws_col = sizes[i].columns;
        REQUIRE(ioctl(master, TIOCSWINSZ, &window) == 0);
        pass_time(&r, 500);
        CHECK_INT(strlen(rec.events), 2 + i);
        pass_time(&r, 500);
        pass_time(&r, 500);
        CHECK_INT(strlen(rec.events), 2 + i);
        CHECK_INT(rec.last_event, CHR_EVENT_RESIZED);
        CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), 0);
        CHECK_INT(size.rows, sizes[i].rows);
        CHECK_INT(size.columns, sizes[i].columns);
    }
    window.ws_row = 50;
    REQUIRE(ioctl(master, TIOCSWINSZ, &window) == 0);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), 0);
    CHECK_INT(size.rows, 50);
    pass_time(&r, 1000);
    CHECK_INT(strlen(rec.events), 1 + i); /* who has asked needs no event */
    window.ws_row = 0;
    REQUIRE(ioctl(master, TIOCSWINSZ, &window) == 0);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), 0); /* columns alone are a size */
    window.ws_col = 0;
    REQUIRE(ioctl(master, TIOCSWINSZ, &window) == 0);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), CHR_ERR_NOT_SUPPORTED);
    detach(&rec);
    rig_close(&r);
    redirect_back();
}

/* What is not a terminal has no settings and no size, and nothing is looked at now and then. */
TEST(stdio_without_a_terminal)
{
    chr_terminal_size size = { 7, 7 };
    int               in[2], out[2];
    recorder          rec;
    rig               r;
    REQUIRE(pipe(in) == 0 && pipe(out) == 0);
    redirect(in[0], out[1]);
    rig_open_virtual(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    settle(&r);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_set_echo(&rec.fe, 1), CHR_ERR_NOT_SUPPORTED);
    detach(&rec);
    rig_close(&r);
    close(in[1]), close(out[0]);
    redirect_back();
}

TEST(stdio_without_signals)
{
    struct termios during;
    recorder       rec;
    rig            r;
    int            master = terminal();
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s,signal=off"));
    tcgetattr(0, &during);
    CHECK(!(during.c_lflag & ISIG));
    say(master, "\x03\x1a\x1c");
    PUMP(&r, rec.length == 3);
    CHECK_INPUT(&rec, "\x03\x1a\x1c");
    detach(&rec);
    rig_close(&r);
    redirect_back();
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

TEST(stdio_with_signals)
{
    struct sigaction action, now;
    recorder         rec;
    rig              r;
    int              master = terminal();
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    sigaction(SIGINT, &action, NULL);
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    say(master, "\x03");
    PUMP(&r, interrupted);
    settle(&r);
    CHECK_INT(rec.length, 0);
    sigaction(SIGINT, NULL, &now);
    CHECK(now.sa_handler == on_interrupt); /* no disposition is changed */
    sigaction(SIGPIPE, NULL, &now);
    CHECK(now.sa_handler == SIG_DFL);
    sigaction(SIGCONT, NULL, &now);
    CHECK(now.sa_handler == SIG_DFL);
    detach(&rec);
    rig_close(&r);
    redirect_back();
}

TEST(stdio_echo)
{
    struct termios t;
    recorder       rec;
    rig            r;
    int            master = terminal();
    (void)master;
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    CHECK_INT(chr_fe_set_echo(&rec.fe, 1), 0);
    tcgetattr(0, &t);
    CHECK(t.c_lflag & ECHO);
    CHECK_INT(chr_fe_set_echo(&rec.fe, 0), 0);
    tcgetattr(0, &t);
    CHECK(!(t.c_lflag & ECHO));
    detach(&rec);
    rig_close(&r);
    redirect_back();
}

TEST(stdio_once_per_process)
{
    chr_error err;
    rig       r, other;
    int       master = terminal();
    (void)master;
    rig_open(&r);
    rig_open(&other);
    make(&r, "stdio,id=first");
    CHECK(chr_new(r.ctx, "stdio,id=second", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_BUSY);
    CHECK_HAS(err.text, "first");
    CHECK(chr_new(other.ctx, "stdio,id=third", &err) == NULL); /* the one thing that contexts share */
    CHECK_HAS(err.text, "first");
    chr_remove(r.ctx, "first", NULL);
    CHECK(chr_new(other.ctx, "stdio,id=third", &err) != NULL);
    chr_context_free(other.ctx);
    chr_context_free(r.ctx);
    redirect_back();
}

/* After a stop the shell has set its own settings; when the process continues, raw mode is set again. */
TEST(stdio_is_raw_again_after_sigcont)
{
    struct termios before, t;
    recorder       rec;
    int64_t        end;
    rig            r;
    int            master = terminal();
    rig_open(&r);
    tcgetattr(0, &before);
    attach(&rec, make(&r, "stdio,id=s"));
    settle(&r);
    tcsetattr(0, TCSANOW, &before);
    raise(SIGCONT);
    end = real_ms() + RIG_PATIENCE_MS;
    do {
        say(master, "x"); /* whatever wakes the loop first */
        chr_loop_step(r.ctx, 50);
        tcgetattr(0, &t);
    } while ((t.c_lflag & (ICANON | ECHO)) && real_ms() < end);
    CHECK(!(t.c_lflag & (ICANON | ECHO)));
    detach(&rec);
    rig_close(&r);
    redirect_back();
}

/* Ends a child in each way and looks at the terminal after that. */
static void end_by(int how)
{
    struct termios before, after;
    int64_t        end;
    int            status, flags;
    int            master = terminal();
    pid_t          child;
    (void)master;
    tcgetattr(0, &before);
    flags = fcntl(0, F_GETFL);
    child = fork();
    if (child == 0) {
        static chr_context *volatile ctx; /* static: it may be left to exit() without being a leak */
        struct termios      during;
        chr_error           err;
        ctx = chr_context_new(NULL);
        if (!chr_new(ctx, "stdio,id=s", &err)) _exit(3);
        tcgetattr(0, &during);
        if (during.c_lflag & ICANON) _exit(4);
        if (how == 0) {
            setvbuf(stdout, NULL, _IONBF, 0); /* what it holds is the parent's to print */
            exit(0);
        }
        if (how < 0) _exit(0);
        kill(getpid(), how);
        pause();
    }
    waitpid(child, &status, 0);
    CHECK(how > 0 ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0);
    end = real_ms() + RIG_PATIENCE_MS;
    do {
        tcgetattr(0, &after);
        usleep(2000);
    } while ((!same_settings(&before, &after) || fcntl(0, F_GETFL) != flags) && real_ms() < end);
    CHECK(same_settings(&before, &after));
    CHECK_INT(fcntl(0, F_GETFL), flags);
    redirect_back();
}

TEST(stdio_put_back_at_exit) { end_by(0); }
TEST(stdio_put_back_at__exit) { end_by(-1); }
TEST(stdio_put_back_at_sigterm) { end_by(SIGTERM); }
TEST(stdio_put_back_at_sigkill) { end_by(SIGKILL); }
TEST(stdio_put_back_at_sigabrt) { end_by(SIGABRT); }

TEST(stdio_on_pipes)
{
    int      in[2], out[2], flags_in, flags_out;
    recorder rec;
    rig      r;
    REQUIRE(pipe(in) == 0 && pipe(out) == 0);
    redirect(in[0], out[1]);
    flags_in = fcntl(0, F_GETFL);
    flags_out = fcntl(1, F_GETFL);
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    say(in[1], "piped");
    settle(&r);
    CHECK_INPUT(&rec, "piped");
    CHECK_INT(chr_fe_write(&rec.fe, "out\n", 4), 4);
    CHECK_STR(hear(out[0]), "out\n");
    close(in[1]);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    CHECK_INT(chr_loop_step(r.ctx, 5), 0);
    detach(&rec);
    chr_remove(r.ctx, "s", NULL);
    CHECK(fcntl(0, F_GETFD) >= 0 && fcntl(1, F_GETFD) >= 0); /* borrowed, not owned */
    CHECK_INT(fcntl(0, F_GETFL), flags_in);
    CHECK_INT(fcntl(1, F_GETFL), flags_out);
    CHECK(!flag_set(0, F_GETFD, FD_CLOEXEC) && !flag_set(1, F_GETFD, FD_CLOEXEC));
    r.fds--; /* the pipe's writing end, closed above */
    rig_close(&r);
    redirect_back();
}

TEST(stdio_on_files)
{
    int      in, out;
    recorder rec;
    rig      r;
    write_file(scratch("in"), "from a file");
    in = open(scratch("in"), O_RDONLY);
    out = open(scratch("out"), O_WRONLY | O_CREAT, 0600);
    redirect(in, out);
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    settle(&r);
    CHECK_INPUT(&rec, "from a file");
    CHECK_STR(rec.events, "OC");
    CHECK_INT(chr_fe_write(&rec.fe, "to a file", 9), 9);
    CHECK_STR(read_file(scratch("out")), "to a file");
    detach(&rec);
    rig_close(&r);
    redirect_back();
    scratch_clean();
}

/* Without a standard input it is a device that is only written to; 0 is not taken by anything else meanwhile. */
TEST(stdio_with_stdin_closed)
{
    int      out[2];
    recorder rec;
    rig      r;
    REQUIRE(pipe(out) == 0);
    redirect(-1, out[1]);
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    settle(&r);
    CHECK_INT(chr_fe_write(&rec.fe, "still", 5), 5);
    CHECK_STR(hear(out[0]), "still");
    CHECK_INT(rec.length, 0);
    detach(&rec);
    chr_context_free(r.ctx);
    CHECK_INT(r.live, 0);
    redirect_back();
}

/* Each of the two may be closed, but not both. */
TEST(stdio_that_is_closed)
{
    chr_error err;
    chr_dev  *dev;
    recorder  rec;
    rig       r;
    int       out[2], which;
    char      text[3][200];
    int       codes[3], written[3];
    memset(codes, 0, sizeof codes);
    memset(written, 0, sizeof written);
    for (which = 0; which < 3; which++) { /* 0: both, 1: the output, 2: the input */
        int in[2];
        REQUIRE(pipe(in) == 0 && pipe(out) == 0);
        redirect(in[0], out[1]);
        if (which != 1) close(0);
        if (which != 2) close(1);
        rig_open(&r);
        err.text[0] = 0;
        dev = chr_new(r.ctx, "stdio,id=s", &err);
        snprintf(text[which], sizeof text[which], "%.150s", err.text);
        codes[which] = dev ? 0 : err.code;
        if (dev) {
            attach(&rec, dev);
            settle(&r);
            written[which] = chr_fe_write(&rec.fe, "x", 1);
            detach(&rec);
        }
        chr_context_free(r.ctx);
        redirect_back();
        close(in[1]), close(out[0]);
    }
    CHECK_INT(codes[0], CHR_ERR_DISCONNECTED);
    CHECK_STR(text[0], "stdio: standard input and output are both closed");
    CHECK_INT(codes[1], 0);
    CHECK_INT(written[1], CHR_ERR_DISCONNECTED);
    CHECK_INT(codes[2], 0);
    CHECK_INT(written[2], 1);
}

TEST(stdio_back_pressure)
{
    int      in[2], out[2];
    size_t   sent;
    recorder rec;
    rig      r;
    REQUIRE(pipe(in) == 0 && pipe(out) == 0);
    redirect(in[0], out[1]);
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    settle(&r);
    sent = fill_up(&rec.fe);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    CHECK_INT(drain(&r, out[0], sent), sent);
    settle(&r);
    CHECK_INT(rec.writable, 1);
    detach(&rec);
    rig_close(&r);
    redirect_back();
}

/* ---- the process that puts the terminal back after a kill -------------------------------------------------------- */

static int put_back(const struct termios *before)
{
    struct termios now;
    int64_t        end = real_ms() + RIG_PATIENCE_MS;
    do {
        tcgetattr(0, &now);
        usleep(2000);
    } while (!same_settings(before, &now) && real_ms() < end);
    return same_settings(before, &now);
}

static int is_raw(void)
{
    struct termios now;
    return tcgetattr(0, &now) == 0 && !(now.c_lflag & ICANON);
}

/* A child with a stdio chardev. It writes a byte to `told` when it is ready, and then runs `then`. */
static pid_t start_holder(int told[2], void (*then)(chr_context *ctx, chr_frontend *fe))
{
    pid_t child;
    REQUIRE(pipe(told) == 0);
    child = fork();
    if (child == 0) {
        static chr_context *volatile ctx;
        chr_frontend fe;
        chr_error    err;
        memset(&fe, 0, sizeof fe);
        setpgid(0, 0);
        signal(SIGTTOU, SIG_IGN);
        tcsetpgrp(0, getpgrp());
        signal(SIGTTOU, SIG_DFL);
        ctx = chr_context_new(NULL);
        if (chr_fe_init(&fe, chr_new(ctx, "stdio,id=s", &err), &err) < 0) _exit(3);
        if (!is_raw() || write(told[1], "x", 1) != 1) _exit(4);
        then(ctx, &fe);
        _exit(0);
    }
    wait_readable(told[0]);
    return child;
}

/* The shell has its terminal back. */
static void take_terminal_back(void)
{
    signal(SIGTTOU, SIG_IGN);
    tcsetpgrp(0, getpgrp());
}

static void just_wait(chr_context *ctx, chr_frontend *fe)
{
    (void)ctx, (void)fe;
    pause();
}

TEST(stdio_put_back_when_the_whole_job_is_killed)
{
    struct termios before;
    int            status, told[2], master = terminal();
    pid_t          child;
    (void)master;
    tcgetattr(0, &before);
    child = start_holder(told, just_wait);
    CHECK(is_raw());
    kill(-child, SIGKILL);
    waitpid(child, &status, 0);
    CHECK(put_back(&before));
    redirect_back();
}

static pid_t *left_behind;

static void leave_a_child(chr_context *ctx, chr_frontend *fe)
{
    pid_t child = fork();
    (void)ctx, (void)fe;
    if (child == 0) {
        sleep(50);
        _exit(0);
    }
    *left_behind = child;
    kill(getpid(), SIGKILL);
}

/* A child that never calls exec() has all descriptors too: the pipe to the watcher has no end yet, but the process
 * has. */
TEST(stdio_put_back_though_a_child_lives_on)
{
    struct termios before;
    int            status, told[2], master = terminal();
    pid_t          child;
    (void)master;
    left_behind = (pid_t *)mmap(NULL, sizeof *left_behind, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    tcgetattr(0, &before);
    child = start_holder(told, leave_a_child);
    waitpid(child, &status, 0);
    CHECK(put_back(&before));
    CHECK(*left_behind > 0 && kill(*left_behind, SIGKILL) == 0);
    redirect_back();
}

static void change_echo_and_die(chr_context *ctx, chr_frontend *fe)
{
    (void)ctx;
    if (chr_fe_set_echo(fe, 1) == 0) kill(getpid(), SIGKILL);
}

TEST(stdio_put_back_after_the_echo_was_changed)
{
    struct termios before;
    int            status, told[2], master = terminal();
    (void)master;
    tcgetattr(0, &before);
    waitpid(start_holder(told, change_echo_and_die), &status, 0);
    CHECK(WIFSIGNALED(status));
    CHECK(put_back(&before));
    redirect_back();
}

static void become_another_program(chr_context *ctx, chr_frontend *fe)
{
    (void)ctx, (void)fe;
    execl("/bin/sleep", "sleep", "20", (char *)NULL);
}

TEST(stdio_put_back_at_exec)
{
    struct termios before;
    int            status, told[2], master = terminal();
    pid_t          child;
    (void)master;
    tcgetattr(0, &before);
    child = start_holder(told, become_another_program);
    CHECK(put_back(&before));
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    redirect_back();
}

/* What others have set since is theirs, whichever way we end. */
static void keeps_what_others_set(int how)
{
    struct termios shells, now;
    int            status, told[2], master = terminal();
    pid_t          child;
    (void)master;
    child = start_holder(told, just_wait);
    take_terminal_back();
    tcgetattr(0, &shells);
    shells.c_lflag |= ECHO | ECHOE;
    shells.c_cc[VERASE] = 'H';
    tcsetattr(0, TCSANOW, &shells);
    kill(child, how);
    waitpid(child, &status, 0);
    usleep(200000); /* time to do it wrong */
    tcgetattr(0, &now);
    if (!CHECK(same_settings(&shells, &now)))
        NOTE("%o %o %o %o, not %o %o %o %o", now.c_iflag, now.c_oflag, now.c_cflag, now.c_lflag, shells.c_iflag, shells.c_oflag, shells.c_cflag,
             shells.c_lflag);
    redirect_back();
}

TEST(stdio_killed_keeps_what_others_set) { keeps_what_others_set(SIGKILL); }
TEST(stdio_terminated_keeps_what_others_set) { keeps_what_others_set(SIGTERM); }

TEST(stdio_closed_keeps_what_others_set)
{
    struct termios others, now;
    int            i;
    rig            r;
    int            master = terminal();
    (void)master;
    rig_open(&r);
    for (i = 0; i < 5; i++) {
        make(&r, "stdio,id=s");
        tcgetattr(0, &others);
        if (i == 0) others.c_lflag |= ECHO;
        if (i == 1) others.c_iflag |= IXANY;
        if (i == 2) others.c_oflag ^= ONLCR;
        if (i == 3) others.c_cflag ^= CSTOPB;
        if (i == 4) others.c_cc[VERASE] = 'H';
        tcsetattr(0, TCSANOW, &others);
        chr_remove(r.ctx, "s", NULL);
        tcgetattr(0, &now);
        if (!CHECK(same_settings(&others, &now))) NOTE("setting %d", i);
    }
    rig_close(&r);
    redirect_back();
}

/* The watcher is no child of the process, and has none of its descriptors open. */
TEST(stdio_watcher_keeps_nothing_open)
{
    int master, fds[2], out[2], slave;
    rig r;
    REQUIRE(pipe(fds) == 0 && pipe(out) == 0);
    fcntl(out[0], F_SETFD, FD_CLOEXEC);
    REQUIRE(openpty(&master, &slave, NULL, NULL, NULL) == 0);
    ioctl(slave, TIOCSCTTY, 0);
    redirect(slave, out[1]);
    dup2(fds[1], 300); /* a high number too */
    close(fds[1]);
    rig_open(&r);
    make(&r, "stdio,id=s");
    CHECK(is_raw());
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    close(300);
    wait_readable(fds[0]);
    CHECK_STR(hear(fds[0]), "(eof)");
    chr_remove(r.ctx, "s", NULL);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    make(&r, "stdio,id=s");
    close(1);
    chr_remove(r.ctx, "s", NULL);
    wait_readable(out[0]);
    CHECK_STR(hear(out[0]), "(eof)");
    chr_context_free(r.ctx);
    redirect_back();
}

/* ---- what the watcher process may lack --------------------------------------------------------------------------- */

/* From here on the kernel is one that has not these calls. */
static void lack_calls(long first, long second)
{
    struct sock_filter  filter[5];
    struct sock_fprog   program;
    memset(filter, 0, sizeof filter);
    filter[0].code = BPF_LD | BPF_W | BPF_ABS;
    filter[0].k = (unsigned)offsetof(struct seccomp_data, nr);
    filter[1].code = filter[2].code = BPF_JMP | BPF_JEQ | BPF_K;
    filter[1].k = (unsigned)first;
    filter[1].jt = 2;
    filter[2].k = (unsigned)second;
    filter[2].jt = 1;
    filter[3].code = filter[4].code = BPF_RET | BPF_K;
    filter[3].k = SECCOMP_RET_ALLOW;
    filter[4].k = SECCOMP_RET_ERRNO | ENOSYS;
    program.len = 5;
    program.filter = filter;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        SKIP("no call can be taken away from a process here");
}

static void put_back_on_an_older_kernel(int how)
{
    lack_calls(SYS_close_range, SYS_pidfd_open);
    end_by(how);
}

TEST(stdio_put_back_at_sigkill_on_an_older_kernel) { put_back_on_an_older_kernel(SIGKILL); }
TEST(stdio_put_back_at__exit_on_an_older_kernel) { put_back_on_an_older_kernel(-1); }
TEST(stdio_put_back_at_exit_on_an_older_kernel) { put_back_on_an_older_kernel(0); }

static void keep_nothing_open(rlim_t descriptors)
{
    struct rlimit limit;
    int           master, fds[2], error[2], slave, saved = fcntl(2, F_DUPFD_CLOEXEC, 50);
    rig           r;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < descriptors) SKIP("the limit of descriptors is too low");
    limit.rlim_cur = descriptors;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    lack_calls(SYS_close_range, SYS_close_range);
    REQUIRE(pipe(fds) == 0 && pipe(error) == 0);
    REQUIRE(openpty(&master, &slave, NULL, NULL, NULL) == 0);
    ioctl(slave, TIOCSCTTY, 0);
    redirect(slave, slave);
    dup2(error[1], 2); /* standard error */
    close(error[1]);
    dup2(fds[1], 900);
    close(fds[1]);
    rig_open(&r);
    make(&r, "stdio,id=s");
    CHECK(is_raw());
    dup2(saved, 2);
    close(900);
    wait_readable(fds[0]);
    CHECK_STR(hear(fds[0]), "(eof)");
    wait_readable(error[0]);
    CHECK_STR(hear(error[0]), "(eof)");
    chr_remove(r.ctx, "s", NULL);
    chr_context_free(r.ctx);
    redirect_back();
}

TEST(stdio_watcher_keeps_nothing_open_on_an_older_kernel) { keep_nothing_open(1000); }

/* Without a watcher process, the terminal is raw and is restored, except after a kill. */
static void check_unwatched(fault_call call)
{
    struct termios before, now;
    recorder       rec;
    int            on = 1, off = 0, master = terminal();
    rig            r;
    tcgetattr(0, &before);
    rig_open(&r);
    fault_arm(call, EAGAIN, 1, 1);
    attach(&rec, make(&r, "stdio,id=s"));
    CHECK(fault_plan.fired > 0);
    fault_disarm();
    CHECK(is_raw());
    settle(&r);
    say(master, "x");
    PUMP(&r, rec.length == 1);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SET_ECHO, &on), 0);
    tcgetattr(0, &now);
    CHECK(now.c_lflag & ECHO);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SET_ECHO, &on), 0);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SET_ECHO, &off), 0);
    tcgetattr(0, &now);
    CHECK(!(now.c_lflag & ECHO));
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    tcgetattr(0, &now);
    CHECK(same_settings(&before, &now));
    rig_close(&r);
    redirect_back();
}

TEST(stdio_without_a_process_to_watch) { check_unwatched(FAULT_fork); }
TEST(stdio_without_a_pipe_to_the_watcher) { check_unwatched(FAULT_pipe); }

static int keeps_a_setting; /* raw input is not quite what the terminal takes */

/* In place of the library's. */
int tcsetattr(int fd, int when, const struct termios *settings)
{
    struct { /* the kernel's */
        unsigned      iflag, oflag, cflag, lflag;
        unsigned char line, cc[19];
    } all;
    all.iflag = settings->c_iflag | (keeps_a_setting && !(settings->c_lflag & ICANON) ? IXANY : 0u);
    all.oflag = settings->c_oflag;
    all.cflag = settings->c_cflag;
    all.lflag = settings->c_lflag;
    all.line = settings->c_line;
    memcpy(all.cc, settings->c_cc, sizeof all.cc);
    return ioctl(fd, TCSETS + (unsigned)when, &all);
}

TEST(stdio_put_back_on_a_terminal_that_keeps_a_setting)
{
    keeps_a_setting = 1;
    end_by(SIGKILL);
    end_by(0);
}

/* Raw, whatever it was before, and that again behind it. */
TEST(stdio_on_a_terminal_with_all_settings)
{
    struct termios before, now;
    int            master = terminal();
    rig            r;
    (void)master;
    rig_open(&r);
    tcgetattr(0, &before);
    before.c_iflag |= IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON | IXANY | IXOFF;
    before.c_lflag |= ECHO | ECHONL | ICANON | IEXTEN | ISIG | TOSTOP | NOFLSH;
    before.c_oflag |= OPOST | ONLCR;
    before.c_cc[VMIN] = 7;
    before.c_cc[VTIME] = 9;
    tcsetattr(0, TCSANOW, &before);
    tcgetattr(0, &before);
    make(&r, "stdio,id=s,signal=off");
    tcgetattr(0, &now);
    CHECK_INT(now.c_iflag, IXANY | IXOFF);
    CHECK_INT(now.c_lflag & (ECHO | ECHONL | ICANON | IEXTEN | ISIG | TOSTOP | NOFLSH), TOSTOP | NOFLSH);
    CHECK_INT(now.c_oflag, before.c_oflag);
    CHECK(now.c_cc[VMIN] == 1 && now.c_cc[VTIME] == 0);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    tcgetattr(0, &now);
    CHECK(same_settings(&before, &now));
    rig_close(&r);
    redirect_back();
}

/* A child of fork() that goes on has a terminal of its own to claim: the parent's chardev is not its own, nor is the pipe to the watcher. */
TEST(stdio_in_a_child_of_fork)
{
    struct termios before, now;
    int            status = 0, master = terminal();
    pid_t          child;
    rig            r;
    (void)master;
    tcgetattr(0, &before);
    rig_open(&r);
    make(&r, "stdio,id=s");
    child = fork();
    if (child == 0) {
        chr_error    err;
        int          fds = count_fds(), turn;
        chr_context *ctx = chr_context_new(NULL);
        for (turn = 0; turn < 2; turn++) {
            if (!chr_new(ctx, "stdio,id=c", &err)) _exit(3);
            if (chr_new(ctx, "stdio,id=d", &err) || err.code != CHR_ERR_BUSY || !strstr(err.text, "'c'")) _exit(4);
            if (!is_raw() || chr_remove(ctx, "c", &err) != 0) _exit(5);
        }
        chr_context_free(ctx);
        exit(count_fds() == fds - 1 ? 0 : 6); /* the parent's end of the pipe is closed here */
    }
    CHECK_INT(waitpid(child, &status, 0), child);
    if (!CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0)) NOTE("status %x", status);
    CHECK_INT(chr_remove(r.ctx, "s", NULL), 0);
    tcgetattr(0, &now);
    CHECK(same_settings(&before, &now));
    rig_close(&r);
    redirect_back();
}

/* A terminal that one chardev has left, and another takes. */
TEST(stdio_one_after_the_other)
{
    struct termios before, now;
    chr_error      err;
    int            i, master = terminal();
    rig            r;
    (void)master;
    tcgetattr(0, &before);
    rig_open(&r);
    for (i = 0; i < 3; i++) {
        char options[30], text[60];
        snprintf(options, sizeof options, "stdio,id=s%d", i);
        make(&r, options);
        CHECK(is_raw());
        CHECK(!chr_new(r.ctx, "stdio,id=other", &err));
        CHECK_INT(err.code, CHR_ERR_BUSY);
        snprintf(text, sizeof text, "stdio: in use by chardev 's%d'", i);
        CHECK_HAS(err.text, text);
        CHECK_INT(chr_remove(r.ctx, options + 9, NULL), 0);
        tcgetattr(0, &now);
        CHECK(same_settings(&before, &now));
    }
    rig_close(&r);
    redirect_back();
}

/* ---- a job in the background ------------------------------------------------------------------------------------- */

static int order[2]; /* the shell's orders to the job, a letter each */

/* f: waits until it is in the foreground and raw. e: echo on. E: echo off. l: the loop runs on for a while. r:
 * removes the chardev. */
static void obey(chr_context *ctx, chr_frontend *fe)
{
    char    what;
    int64_t end;
    close(order[1]);
    while (read(order[0], &what, 1) == 1) {
        if (what == 'e' || what == 'E')
            if (chr_fe_set_echo(fe, what == 'e') != 0) _exit(5);
        for (end = real_ms() + 700; (what == 'l' || what == 'f') && real_ms() < end && !(what == 'f' && is_raw());) chr_loop_step(ctx, 10);
        if (what == 'r') {
            chr_fe_deinit(fe);
            chr_context_free(ctx);
        }
    }
}

static void end_job(pid_t child)
{
    int status = 0;
    close(order[1]);
    CHECK_INT(waitpid(child, &status, WUNTRACED), child);
    if (!CHECK(!WIFSTOPPED(status))) {
        NOTE("stopped by signal %d", WSTOPSIG(status));
        kill(child, SIGKILL);
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void in_background_to(const char *orders, const char *output)
{
    struct termios shells, now;
    int            told[2], master = terminal();
    pid_t          child;
    (void)master;
    if (output) {
        int out = open(output, O_WRONLY | O_CLOEXEC);
        REQUIRE(out >= 0 && dup2(out, 1) == 1);
        close(out);
    }
    REQUIRE(pipe(order) == 0);
    tcgetattr(0, &shells);
    child = start_holder(told, obey);
    close(order[0]);
    take_terminal_back();
    tcsetattr(0, TCSANOW, &shells);
    say(order[1], orders);
    usleep(50000);
    tcgetattr(0, &now);
    CHECK(same_settings(&shells, &now));
    end_job(child);
    usleep(50000);
    tcgetattr(0, &now);
    CHECK(same_settings(&shells, &now));
    redirect_back();
}

static void in_background(const char *orders) { in_background_to(orders, NULL); }

TEST(stdio_in_the_background_with_output_elsewhere) { in_background_to("e", "/dev/null"); }
TEST(stdio_in_the_background_changes_the_echo) { in_background("eE"); }
TEST(stdio_in_the_background_runs_on) { in_background("l"); }
TEST(stdio_in_the_background_is_removed) { in_background("r"); }
TEST(stdio_in_the_background_changes_runs_and_is_removed) { in_background("elEr"); }
TEST(stdio_in_the_background_ends) { in_background(""); }

/* Settings requested in the background are applied in the foreground; the shell's settings by then are restored at
 * the end. */
TEST(stdio_back_in_the_foreground)
{
    struct termios shells, now;
    int            told[2], master = terminal();
    int64_t        end = real_ms() + RIG_PATIENCE_MS;
    pid_t          child;
    (void)master;
    REQUIRE(pipe(order) == 0);
    child = start_holder(told, obey);
    close(order[0]);
    take_terminal_back();
    tcgetattr(0, &shells);
    shells.c_lflag |= ECHO | ICANON;
    shells.c_cc[VERASE] = 'H';
    tcsetattr(0, TCSANOW, &shells);
    say(order[1], "e");
    usleep(100000);
    tcgetattr(0, &now);
    CHECK(same_settings(&shells, &now));
    tcsetpgrp(0, child);
    say(order[1], "f");
    do tcgetattr(0, &now);
    while ((now.c_lflag & ICANON) && real_ms() < end);
    CHECK(!(now.c_lflag & ICANON) && (now.c_lflag & ECHO));
    say(order[1], "r");
    end_job(child);
    CHECK(put_back(&shells));
    redirect_back();
}

/* Another chardev that would set the shell's terminal does not change it, and is not stopped: it fails with the
 * reason. */
TEST(serial_on_the_shells_terminal_in_the_background)
{
    struct termios shells, now;
    int            told[2], status = 0, master = terminal();
    pid_t          child;
    (void)master;
    REQUIRE(pipe(told) == 0);
    tcgetattr(0, &shells);
    take_terminal_back();
    child = fork();
    if (child == 0) {
        chr_error    err;
        chr_context *ctx = chr_context_new(NULL);
        setpgid(0, 0);
        signal(SIGTTOU, SIG_DFL);
        err.code = 0;
        if (chr_new(ctx, "serial,id=s,path=/dev/tty", &err) || err.code != CHR_ERR_BUSY) _exit(6);
        chr_context_free(ctx);
        exit(0);
    }
    CHECK_INT(waitpid(child, &status, WUNTRACED), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    tcgetattr(0, &now);
    CHECK(same_settings(&shells, &now));
    redirect_back();
}

/* It was open before the job went into the background: calls that set the line or drop its queues return an error. */
TEST(serial_that_goes_into_the_background)
{
    int   told[2], go[2], status = 0, master = terminal();
    pid_t child;
    (void)master;
    REQUIRE(pipe(told) == 0 && pipe(go) == 0);
    child = fork();
    if (child == 0) {
        chr_serial_params params = { 9600, 'N', 8, 1 };
        chr_frontend      fe;
        chr_error         err;
        chr_context      *ctx = chr_context_new(NULL);
        char              byte;
        int               what = CHR_PURGE_RECEIVE, now = -1, on = 1, off = 0;
        memset(&fe, 0, sizeof fe);
        setpgid(0, 0);
        signal(SIGTTOU, SIG_IGN);
        tcsetpgrp(0, getpgrp());
        signal(SIGTTOU, SIG_DFL);
        if (chr_fe_init(&fe, chr_new(ctx, "serial,id=s,path=/dev/tty", &err), &err) < 0) _exit(3);
        if (chr_fe_ioctl(&fe, CHR_IOCTL_SERIAL_PURGE, &what) != 0) _exit(4);
        if (write(told[1], "x", 1) != 1 || read(go[0], &byte, 1) != 1) _exit(5);
        if (chr_fe_ioctl(&fe, CHR_IOCTL_SERIAL_PURGE, &what) != CHR_ERR_BUSY) _exit(6);
        if (chr_fe_ioctl(&fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params) != CHR_ERR_BUSY) _exit(7);
        if (chr_fe_ioctl(&fe, CHR_IOCTL_SERIAL_SET_BREAK, &on) != 0) _exit(9); /* and no signal stops us */
        if (chr_fe_ioctl(&fe, CHR_IOCTL_SERIAL_SET_BREAK, &off) != 0) _exit(10);
        if (chr_fe_ioctl(&fe, CHR_IOCTL_SERIAL_GET_FLOW, &now) != 0 || now != CHR_FLOW_NONE) _exit(8);
        chr_fe_deinit(&fe);
        chr_context_free(ctx);
        exit(0);
    }
    wait_readable(told[0]);
    take_terminal_back();
    say(go[1], "x");
    CHECK_INT(waitpid(child, &status, WUNTRACED), child);
    if (!CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0)) NOTE("status %x", status);
    redirect_back();
}

/* ---- others on the same terminal --------------------------------------------------------------------------------- */

/* O_NONBLOCK is cleared, as bash does at fg, and there is no reader: no call blocks. */
TEST_WITHIN(stdio_on_a_stuck_terminal_that_blocks, 20)
{
    recorder rec;
    int      i, master = terminal();
    rig      r;
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    fcntl(0, F_SETFL, fcntl(0, F_GETFL) & ~O_NONBLOCK);
    for (i = 0; i < 20; i++) {
        (void)fill_up(&rec.fe); /* the terminal takes some on: then there is room again */
        chr_loop_step(r.ctx, 5);
    }
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    hear(master);
    PUMP(&r, rec.writable == 1);
    detach(&rec);
    rig_close(&r);
    redirect_back();
}
