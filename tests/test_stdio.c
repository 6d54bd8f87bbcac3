/* stdio: descriptors 0 and 1 of the process, here a pseudo terminal, pipes or files that the test puts there. */
#include "chardev.h"
#include "rig.h"

#include <pty.h>
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
    wait_readable(master);
    CHECK_STR(hear(master), "hi\r\n"); /* OPOST stays */
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

/* After a stop the shell has put its own settings; when the process goes on, raw mode comes back. */
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
