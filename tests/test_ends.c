/* How a program ends, and what it leaves behind: each statement of the manual's table THE END. */
#include "chardev.h"
#include "rig.h"

#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

enum { QUEUED = 300000 };

/* What the child shares with the outside. */
typedef struct world {
    char           dir[100], socket_path[140], link_path[140], log_path[140];
    int            queue_port, gather_port; /* two listeners of the parent's */
    int            master, slave;           /* a terminal */
    struct termios before;
} world;

static chr_context *volatile child_ctx; /* static: what is left at exit() is no leak */
static chr_frontend queue_fe, gather_fe, log_fe, tty_fe;
static int          ending;

static void stop_from_signal(int number)
{
    (void)number;
    chr_loop_stop(child_ctx);
}

static int any_room(void *opaque)
{
    (void)opaque;
    return 100;
}

static void got_key(void *opaque, const void *buf, size_t len)
{
    (void)opaque, (void)buf, (void)len;
}

/* Runs in a handler: the last thing that the program does before it ends. */
static void last_words(void *opaque)
{
    static char block[QUEUED];
    (void)opaque;
    memset(block, 'q', sizeof block);
    if (chr_fe_write(&queue_fe, block, sizeof block) != (int)sizeof block) _exit(11);
    if (chr_fe_write(&gather_fe, "gathered", 8) != 8) _exit(12);
    if (chr_fe_write(&log_fe, "logged", 6) != 6) _exit(13);
    switch (ending) {
    case 'h':
    case 'B': exit(0);
    case 'u': _exit(0);
    case 'k': kill(getpid(), SIGKILL); break;
    case 't': kill(getpid(), SIGTERM); break;
    case 'a': signal(SIGABRT, SIG_DFL); abort();
    case 's':
    case 'S': raise(SIGTERM); break; /* its handler stops the loop */
    case 'x':
    case 'A':
    case 'e': break;
    default: chr_loop_stop(child_ctx); break;
    }
}

static chr_dev *must(const char *text)
{
    chr_error err;
    chr_dev  *dev = chr_new_any(child_ctx, NULL, text, &err);
    if (!dev) {
        fprintf(stderr, "%s: %s\n", text, err.text);
        _exit(3);
    }
    return dev;
}

static void free_at_exit(void)
{
    chr_context_free(child_ctx);
}

static void child(const world *w)
{
    static const chr_handlers keys = { any_room, got_key, NULL, NULL };
    static chr_idle           idle;
    chr_error                 err;
    char                      text[300];
    int                       stepped = 1;
    setsid();
    ioctl(w->slave, TIOCSCTTY, 0);
    dup2(w->slave, 0);
    dup2(w->slave, 1);
    close(w->master);
    setvbuf(stdout, NULL, _IONBF, 0); /* what it holds is the parent's to print */
    child_ctx = chr_context_new(NULL);
    if (ending == 'A' || ending == 'B') atexit(free_at_exit);
    must("mon:stdio,id=tty");
    snprintf(text, sizeof text, "unix:%s,server=on,wait=off,id=server", w->socket_path);
    must(text);
    snprintf(text, sizeof text, "pty,id=pty,path=%s", w->link_path);
    must(text);
    snprintf(text, sizeof text, "null,id=log,logfile=%s", w->log_path);
    chr_fe_init(&log_fe, must(text), &err);
    snprintf(text, sizeof text, "tcp:127.0.0.1:%d,id=queue,obuf=1M", w->queue_port);
    chr_fe_init(&queue_fe, must(text), &err);
    snprintf(text, sizeof text, "tcp:127.0.0.1:%d,id=gather", w->gather_port);
    chr_fe_init(&gather_fe, must(text), &err);
    if (chr_fe_set_buffers(&gather_fe, 0, 4096) < 0) _exit(4);
    chr_fe_init(&tty_fe, chr_find(child_ctx, "tty"), &err);
    chr_fe_set_handlers(&tty_fe, &keys, NULL);
    if (ending == 's' || ending == 'S') signal(SIGTERM, stop_from_signal);
    if (ending == 'x') { /* the program only steps; it says its last words when the key has come */
        while ((stepped = chr_loop_step(child_ctx, -1)) >= 0) {}
        last_words(NULL);
    } else if (ending == 'S') {
        chr_idle_start(child_ctx, &idle, last_words, NULL);
        while ((stepped = chr_loop_step(child_ctx, -1)) >= 0) {}
    } else if (ending == 'e' || ending == 'A') {
        while (chr_loop_step(child_ctx, 0) > 0) {}
        last_words(NULL);
        exit(0);
    } else {
        chr_idle_start(child_ctx, &idle, last_words, NULL);
        if (chr_loop_run(child_ctx) != 0) _exit(5);
    }
    if (stepped != 1 && stepped != CHR_ERR_STOPPED) _exit(6);
    if (ending != 'c' && chr_drain(child_ctx, 2000) != 0) _exit(7);
    chr_context_free(child_ctx);
    _exit(0);
}

/* All that comes, to its end; -1 = no end, or a reset. */
static long hear_all(int fd, int pause_us)
{
    static char buf[65536];
    long        total = 0;
    ssize_t     n;
    usleep((useconds_t)pause_us); /* a reader that is not at once at it */
    while ((n = read(fd, buf, sizeof buf)) > 0) total += (long)n;
    close(fd);
    return n < 0 ? -1 : total;
}

static int is_orderly(int how)
{
    return strchr("fcsSxA", how) != NULL;
}

static int is_put_back(const world *w)
{
    struct termios now;
    int64_t        end = real_ms() + RIG_PATIENCE_MS;
    do {
        tcgetattr(w->slave, &now);
        if (now.c_lflag == w->before.c_lflag && now.c_iflag == w->before.c_iflag && now.c_oflag == w->before.c_oflag) return 1;
        usleep(2000);
    } while (real_ms() < end);
    return 0;
}

/* A program that is started next has no trouble with what the last one has left. */
static void start_again(const world *w)
{
    char text[300];
    rig  r;
    rig_open(&r);
    snprintf(text, sizeof text, "socket,id=s,path=%s,server=on,wait=off", w->socket_path);
    make(&r, text);
    snprintf(text, sizeof text, "pty,id=p,path=%s", w->link_path);
    make(&r, text);
    rig_close(&r);
    CHECK(!exists(w->socket_path));
    CHECK(access(w->link_path, F_OK) < 0 && errno == ENOENT);
}

static void check_status(int how, int status)
{
    int number = how == 'k' ? SIGKILL : how == 't' ? SIGTERM : how == 'a' ? SIGABRT : 0;
    if (number) CHECK(WIFSIGNALED(status) && WTERMSIG(status) == number);
    else if (!CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0)) NOTE("status %x", (unsigned)status);
}

static void end_by(int how)
{
    world       w;
    struct stat st;
    int         queue_listener, gather_listener, queue_fd, gather_fd, status;
    long        queued, gathered;
    pid_t       pid;
    memset(&w, 0, sizeof w);
    snprintf(w.socket_path, sizeof w.socket_path, "%.130s", scratch("s"));
    snprintf(w.link_path, sizeof w.link_path, "%.130s", scratch("link"));
    snprintf(w.log_path, sizeof w.log_path, "%.130s", scratch("log"));
    queue_listener = tcp_listen(&w.queue_port);
    gather_listener = tcp_listen(&w.gather_port);
    REQUIRE(openpty(&w.master, &w.slave, NULL, NULL, NULL) == 0);
    tcgetattr(w.slave, &w.before);
    ending = how;
    fflush(stdout);
    pid = fork();
    if (pid == 0) child(&w);
    queue_fd = accept(queue_listener, NULL, NULL);
    gather_fd = accept(gather_listener, NULL, NULL);
    if (how == 'x') {
        struct termios now;
        do {
            usleep(2000);
            tcgetattr(w.slave, &now);
        } while (now.c_lflag & ICANON);
        CHECK_INT(write(w.master, "\001x", 2), 2);
    }
    queued = hear_all(queue_fd, 100000);
    gathered = hear_all(gather_fd, 0);
    REQUIRE(waitpid(pid, &status, 0) == pid);
    check_status(how, status);
    CHECK(is_put_back(&w));
    CHECK_STR(read_file(w.log_path), "logged");
    CHECK_INT(lstat(w.socket_path, &st) == 0, !is_orderly(how));
    CHECK_INT(lstat(w.link_path, &st) == 0, !is_orderly(how));
    if (is_orderly(how)) {
        CHECK_INT(queued, QUEUED);
        CHECK_INT(gathered, 8);
    } else {
        CHECK(queued <= QUEUED);
        CHECK_INT(gathered, 0);
    }
    start_again(&w);
    close(queue_listener);
    close(gather_listener);
    close(w.master);
    close(w.slave);
    scratch_clean();
}

TEST(end_stopped_in_a_handler) { end_by('f'); }
TEST(end_without_drain) { end_by('c'); }
TEST(end_stopped_by_a_signal_handler) { end_by('s'); }
TEST(end_of_a_stepping_program_by_a_signal_handler) { end_by('S'); }
TEST(end_of_a_stepping_program_by_ctrl_a_x) { end_by('x'); }
TEST(end_by_exit) { end_by('e'); }
TEST(end_by_exit_in_a_handler) { end_by('h'); }
TEST(end_by_exit_and_atexit) { end_by('A'); }
TEST(end_by_exit_in_a_handler_and_atexit) { end_by('B'); } /* where chr_context_free() does nothing */
TEST(end_by__exit_in_a_handler) { end_by('u'); }
TEST(end_by_sigkill) { end_by('k'); }
TEST(end_by_sigterm) { end_by('t'); }
TEST(end_by_abort) { end_by('a'); }

/* ---- a child that ends, or goes on, is none of the context's business -------------------------------------------- */

/* A fork()ed child that calls exit() leaves the parent's terminal, link and socket file alone. */
TEST(end_of_a_forked_child)
{
    struct termios before, during, now;
    char           text[300];
    struct stat    st;
    int            master, slave, status;
    pid_t          parent, pid;
    REQUIRE(openpty(&master, &slave, NULL, NULL, NULL) == 0);
    tcgetattr(slave, &before);
    fflush(stdout);
    parent = fork();
    if (parent == 0) {
        setsid();
        ioctl(slave, TIOCSCTTY, 0);
        dup2(slave, 0);
        dup2(slave, 1);
        setvbuf(stdout, NULL, _IONBF, 0);
        child_ctx = chr_context_new(NULL);
        must("stdio,id=tty");
        snprintf(text, sizeof text, "unix:%s,server=on,wait=off,id=s", scratch("s"));
        must(text);
        snprintf(text, sizeof text, "pty,id=p,path=%s", scratch("link"));
        must(text);
        tcgetattr(0, &during);
        pid = fork();
        if (pid == 0) exit(0);
        waitpid(pid, &status, 0);
        usleep(50000);
        tcgetattr(0, &now);
        if (now.c_lflag != during.c_lflag || (now.c_lflag & ICANON)) _exit(4);
        if (lstat(scratch("s"), &st) < 0 || lstat(scratch("link"), &st) < 0) _exit(5);
        chr_context_free(child_ctx);
        tcgetattr(0, &now);
        _exit(now.c_lflag == before.c_lflag ? 0 : 6);
    }
    REQUIRE(waitpid(parent, &status, 0) == parent);
    if (!CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0)) NOTE("status %x", (unsigned)status);
    close(master);
    close(slave);
    scratch_clean();
}

/* ---- the exit hook ----------------------------------------------------------------------------------------------- */

/* Without one Ctrl-A x and a testdev stop the loop, whoever runs it. */
TEST(end_by_a_testdev)
{
    chr_frontend fe;
    chr_context *ctx = chr_context_new(NULL);
    chr_error    err;
    REQUIRE(ctx != NULL);
    memset(&fe, 0, sizeof fe);
    REQUIRE(chr_fe_init(&fe, chr_new(ctx, "testdev,id=t", &err), &err) == 0);
    CHECK_INT(chr_fe_write(&fe, "1q", 2), 2);
    CHECK_INT(chr_loop_step(ctx, 0), CHR_ERR_STOPPED);
    CHECK(chr_loop_step(ctx, 0) >= 0);
    CHECK_INT(chr_fe_write(&fe, "1q", 2), 2);
    CHECK_INT(chr_loop_run(ctx), 0);
    chr_context_free(ctx);
}
