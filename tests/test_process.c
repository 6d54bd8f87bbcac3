/*
 * The process's environment: signals that a write may raise, open file descriptions shared with other processes, closed
 * standard descriptors. Each test is a process of its own; it fails when a signal kills it, or when a call blocks until
 * an alarm.
 */
#include "chardev.h"
#include "fault.h"
#include "rig.h"

#include <pthread.h>
#include <pty.h>
#include <sys/resource.h>
#include <termios.h>

static chr_dev *makef(rig *r, const char *format, ...) CHR_PRINTF(2, 3);
static chr_dev *makef(rig *r, const char *format, ...)
{
    char    options[600];
    va_list args;
    va_start(args, format);
    vsnprintf(options, sizeof options, format, args);
    va_end(args);
    return make(r, options);
}

static int is_pending(int number)
{
    sigset_t set;
    sigpending(&set);
    return sigismember(&set, number) == 1;
}

/* The mask of this thread is as the test found it, and nothing is left pending. */
static void check_signals(void)
{
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    CHECK(sigismember(&mask, SIGPIPE) == 0 && sigismember(&mask, SIGXFSZ) == 0 && sigismember(&mask, SIGTTOU) == 0);
    CHECK(!is_pending(SIGPIPE) && !is_pending(SIGXFSZ));
}

static void set_file_limit(rlim_t size)
{
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = size < limit.rlim_max ? size : limit.rlim_max;
    REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

static void lift_file_limit(void)
{
    set_file_limit(RLIM_INFINITY);
}

/* Until the test's end: gcov writes its counts behind that. */
static void limit_files_to(rlim_t size)
{
    REQUIRE(atexit(lift_file_limit) == 0);
    set_file_limit(size);
}

static int lines_in(const char *text)
{
    int lines = 0;
    for (; *text; text++) lines += *text == '\n';
    return lines;
}

/* ---- log files and recordings never disturb the traffic ---------------------------------------------------------- */

static void log_on_a_broken_fifo(const char *more)
{
    int      reader, i;
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(mkfifo(scratch("fifo"), 0600) == 0);
    reader = open(scratch("fifo"), O_RDONLY | O_NONBLOCK);
    attach(&rec, makef(&r, "null,id=n,logfile=%s%s", scratch("fifo"), more));
    CHECK_INT(chr_fe_write(&rec.fe, "first\n", 6), 6);
    CHECK_HAS(hear(reader), "first\n");
    close(reader);
    for (i = 0; i < 3; i++) CHECK_INT(chr_fe_write(&rec.fe, "more\n", 5), 5);
    CHECK_INT(lines_in(r.log), 1);
    CHECK_HAS(r.log, "logging is off");
    check_signals();
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(log_on_a_fifo_whose_reader_has_left) { log_on_a_broken_fifo(""); }
TEST(log_with_time_on_a_fifo_whose_reader_has_left) { log_on_a_broken_fifo(",logtimestamp=on"); }
TEST(log_appended_to_a_fifo_whose_reader_has_left) { log_on_a_broken_fifo(",logappend=on"); }

TEST(log_on_a_fifo_that_is_full)
{
    static char block[4096];
    int         reader, i;
    recorder    rec;
    rig         r;
    rig_open(&r);
    REQUIRE(mkfifo(scratch("fifo"), 0600) == 0);
    reader = open(scratch("fifo"), O_RDONLY | O_NONBLOCK);
    attach(&rec, makef(&r, "null,id=n,logfile=%s", scratch("fifo")));
    for (i = 0; i < 100; i++) CHECK_INT(chr_fe_write(&rec.fe, block, sizeof block), sizeof block);
    CHECK_INT(lines_in(r.log), 1);
    close(reader);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(log_on_a_fifo_that_nobody_reads_is_refused_at_once)
{
    char      options[300];
    chr_error err;
    rig       r;
    rig_open(&r);
    REQUIRE(mkfifo(scratch("fifo"), 0600) == 0);
    snprintf(options, sizeof options, "null,id=n,logfile=%s", scratch("fifo"));
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, scratch("fifo"));
    CHECK_HAS(err.text, "a FIFO without a reader");
    snprintf(options, sizeof options, "file,id=n,path=%s", scratch("fifo"));
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, "a FIFO without a reader");
    CHECK_INT(chr_record_start(r.ctx, scratch("fifo"), &err), CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, "a FIFO without a reader");
    rig_close(&r);
    scratch_clean();
}

TEST(log_at_the_file_size_limit)
{
    int      i;
    recorder rec;
    rig      r;
    rig_open(&r);
    attach(&rec, makef(&r, "null,id=n,logfile=%s", scratch("log")));
    limit_files_to(8);
    for (i = 0; i < 5; i++) CHECK_INT(chr_fe_write(&rec.fe, "12345", 5), 5);
    CHECK_INT(lines_in(r.log), 1);
    CHECK_STR(read_file(scratch("log")), "12345123");
    check_signals();
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

static void record_until_it_fails(const char *path, int reader, const char *fails)
{
    int       i;
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open(&r);
    attach(&rec, make(&r, "ringbuf,id=n,size=64"));
    CHECK_INT(chr_record_start(r.ctx, path, &err), 0);
    CHECK_INT(chr_fe_write(&rec.fe, "12345", 5), 5);
    CHECK_INT(r.logs, 0);
    if (reader >= 0) close(reader);
    else limit_files_to(400);
    for (i = 0; i < 20; i++) CHECK_INT(chr_fe_write(&rec.fe, "12345", 5), 5);
    CHECK_INT(lines_in(r.log), 1);
    CHECK_HAS(r.log, fails);
    CHECK_INT(chr_record_stop(r.ctx), CHR_ERR_NOT_FOUND);
    check_signals();
    detach(&rec);
    chr_context_free(r.ctx);
    CHECK_INT(r.live, 0);
    scratch_clean();
}

TEST(recording_on_a_fifo_whose_reader_has_left)
{
    REQUIRE(mkfifo(scratch("fifo"), 0600) == 0);
    record_until_it_fails(scratch("fifo"), open(scratch("fifo"), O_RDONLY | O_NONBLOCK), "recording");
}

TEST(recording_at_the_file_size_limit)
{
    record_until_it_fails(scratch("record"), -1, "recording");
}

TEST(recording_on_a_full_disk)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    CHECK(chr_record_start(r.ctx, "/dev/full", &err) < 0);
    CHECK_HAS(err.text, "/dev/full");
    rig_close(&r);
}

/* ---- backends at the file size limit and on broken pipes --------------------------------------------------------- */

static void check_limit(recorder *rec)
{
    limit_files_to(8);
    CHECK_INT(chr_fe_write(&rec->fe, "12345", 5), 5);
    CHECK_INT(chr_fe_write(&rec->fe, "12345", 5), 3);
    CHECK_INT(chr_fe_write(&rec->fe, "45", 2), CHR_ERR_NO_SPACE);
    CHECK_INT(chr_fe_write_all(&rec->fe, "45", 2, 1000), CHR_ERR_NO_SPACE);
    check_signals();
}

TEST(file_at_the_file_size_limit)
{
    recorder rec;
    rig      r;
    rig_open(&r);
    attach(&rec, makef(&r, "file,id=f,path=%s", scratch("out")));
    check_limit(&rec);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(fd_at_the_file_size_limit)
{
    int      fd = open(scratch("out"), O_WRONLY | O_CREAT, 0600);
    recorder rec;
    rig      r;
    rig_open(&r);
    attach(&rec, makef(&r, "fd,id=f,out=%d", fd));
    check_limit(&rec);
    detach(&rec);
    chr_context_free(r.ctx);
    scratch_clean();
}

/* One that the program has blocked, and that waits since before, stays for the program. */
TEST(a_sigpipe_of_the_programs_own_stays_pending)
{
    int      fds[2], number;
    sigset_t set, mask;
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    attach(&rec, makef(&r, "fd,id=f,out=%d", fds[1]));
    close(fds[0]);
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    CHECK(!is_pending(SIGPIPE)); /* ours is taken away though the program has it blocked */
    pthread_kill(pthread_self(), SIGPIPE);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    CHECK(is_pending(SIGPIPE));
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    CHECK(sigismember(&mask, SIGPIPE) == 1);
    sigwait(&set, &number);
    detach(&rec);
    chr_context_free(r.ctx);
}

static volatile sig_atomic_t signals;

static void count_signal(int number)
{
    (void)number;
    signals++;
}

/* No handler of the program's runs for them either. */
TEST(no_handler_runs_for_what_a_write_raises)
{
    int      fds[2];
    recorder rec;
    rig      r;
    signal(SIGPIPE, count_signal);
    signal(SIGXFSZ, count_signal);
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    attach(&rec, makef(&r, "fd,id=f,out=%d", fds[1]));
    close(fds[0]);
    CHECK(chr_fe_write(&rec.fe, "x", 1) < 0);
    detach(&rec);
    attach(&rec, makef(&r, "file,id=g,path=%s", scratch("out")));
    check_limit(&rec);
    CHECK_INT(signals, 0);
    detach(&rec);
    chr_context_free(r.ctx);
    scratch_clean();
}

TEST(file_on_a_fifo)
{
    int      reader;
    size_t   sent;
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(mkfifo(scratch("fifo"), 0600) == 0);
    reader = open(scratch("fifo"), O_RDONLY | O_NONBLOCK);
    attach(&rec, makef(&r, "file,id=f,path=%s", scratch("fifo")));
    sent = fill_up(&rec.fe);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    CHECK_INT(drain(&r, reader, sent), sent);
    PUMP(&r, rec.writable == 1);
    close(reader);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_write_all(&rec.fe, "x", 1, 1000), CHR_ERR_DISCONNECTED);
    check_signals();
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* ---- open file descriptions that others have too ----------------------------------------------------------------- */

/* How the library comes by a way to them that does not block: it opens them anew (/proc), asks for each call
 * (RWF_NOWAIT), or looks with poll() before each small piece. */
enum { ANEW, EACH_CALL, LOOKING, WAYS };
static const char *const ways[] = { "anew", "each_call", "looking" };

static void take_away(int way)
{
    if (way > ANEW) fault_arm(FAULT_open, ENOENT, 1, 1);
}

static void take_away_writing(int way)
{
    fault_disarm();
    if (way == LOOKING) fault_arm(FAULT_pwritev2, EOPNOTSUPP, 1, 1);
}

static void take_away_reading(int way)
{
    fault_disarm();
    if (way == LOOKING) fault_arm(FAULT_preadv2, EOPNOTSUPP, 1, 1);
}

static const int which_way[] = { ANEW, EACH_CALL, LOOKING };

#define EACH_WAY(name)                                                                               \
    static void name(int way);                                                                       \
    static void name##_run(const void *arg) { name(*(const int *)arg); }                             \
    TEST_FAMILY(name)                                                                                \
    {                                                                                                \
        int  i;                                                                                      \
        char text[120];                                                                              \
        for (i = 0; i < WAYS; i++) {                                                                 \
            snprintf(text, sizeof text, #name "_%s", ways[i]);                                       \
            test_add_case(text, name##_run, &which_way[i], 20);                                      \
        }                                                                                            \
    }                                                                                                \
    static void name(int way)

/* Full in the first moment, and full when poll() has called it writable and a large block comes. */
EACH_WAY(a_pipe_that_blocks_is_written_without_waiting)
{
    int      fds[2], flags;
    size_t   sent;
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    flags = fcntl(fds[1], F_GETFL);
    take_away(way);
    attach(&rec, makef(&r, "fd,id=f,out=%d", fds[1]));
    take_away_writing(way);
    CHECK_INT(fcntl(fds[1], F_GETFL), flags);
    sent = fill_up(&rec.fe);
    CHECK(sent >= 60000);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    settle(&r);
    CHECK_INT(rec.writable, 0);
    CHECK_INT(drain(&r, fds[0], 4096), 4096);
    PUMP(&r, rec.writable == 1);
    sent += fill_up(&rec.fe) - 4096;
    CHECK_INT(drain(&r, fds[0], sent), sent);
    CHECK_INT(fcntl(fds[1], F_GETFL), flags);
    close(fds[0]);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    check_signals();
    fault_disarm();
    detach(&rec);
    rig_close(&r);
}

static void got_one(recorder *rec, int what)
{
    if (what == 'r') rec->room = 1;
}

/* Byte for byte, so that each read could be the one that finds nothing; then the end of file. */
EACH_WAY(a_pipe_that_blocks_is_read_without_waiting)
{
    int      fds[2], flags;
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    flags = fcntl(fds[0], F_GETFL);
    take_away(way);
    attach_with_room(&rec, makef(&r, "fd,id=f,in=%d", fds[0]), 1);
    take_away_reading(way);
    rec.then = got_one;
    say(fds[1], "abc");
    settle(&r);
    CHECK_INPUT(&rec, "abc");
    say(fds[1], "de");
    settle(&r);
    CHECK_INPUT(&rec, "abcde");
    CHECK_INT(fcntl(fds[0], F_GETFL), flags);
    CHECK_STR(rec.events, "O");
    close(fds[1]);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    fault_disarm();
    detach(&rec);
    rig_close(&r);
}

/* A FIFO as standard input may have lost its writers before it is reopened: poll() on the new description would
 * never report that. */
EACH_WAY(the_end_of_a_fifo_that_was_inherited)
{
    int      in, to;
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(mkfifo(scratch("fifo"), 0600) == 0);
    in = open(scratch("fifo"), O_RDONLY | O_NONBLOCK);
    to = open(scratch("fifo"), O_WRONLY);
    fcntl(in, F_SETFL, 0);
    say(to, "last words");
    close(to);
    take_away(way);
    attach(&rec, makef(&r, "fd,id=f,in=%d", in));
    take_away_reading(way);
    settle(&r);
    CHECK_INPUT(&rec, "last words");
    CHECK_STR(rec.events, "OC");
    fault_disarm();
    detach(&rec);
    chr_context_free(r.ctx);
    scratch_clean();
}

static int raw_terminal(int *slave)
{
    struct termios settings;
    int            master;
    REQUIRE(openpty(&master, slave, NULL, NULL, NULL) == 0);
    tcgetattr(*slave, &settings);
    cfmakeraw(&settings);
    settings.c_oflag |= OPOST | ONLCR; /* each newline becomes two bytes */
    tcsetattr(*slave, TCSANOW, &settings);
    return master;
}

EACH_WAY(a_terminal_that_blocks_is_written_without_waiting)
{
    static char newlines[65536], heard[8192];
    int         slave, master = raw_terminal(&slave), n;
    long        taken = 0, seen = 0;
    recorder    rec;
    rig         r;
    rig_open(&r);
    memset(newlines, '\n', sizeof newlines);
    take_away(way);
    attach(&rec, makef(&r, "fd,id=f,in=%d,out=%d", dup(slave), slave));
    take_away_writing(way);
    while ((n = chr_fe_write(&rec.fe, newlines, sizeof newlines)) > 0) taken += n;
    CHECK_INT(n, CHR_ERR_WOULD_BLOCK);
    CHECK(taken > 0);
    CHECK(!flag_set(slave, F_GETFL, O_NONBLOCK));
    fcntl(master, F_SETFL, O_NONBLOCK);
    for (n = 0; seen < 2 * taken && n < 3000; n++) {
        struct pollfd p = { 0, POLLIN, 0 };
        ssize_t       got;
        p.fd = master;
        poll(&p, 1, 10);
        got = read(master, heard, sizeof heard);
        seen += got > 0 ? got : 0;
    }
    CHECK_INT(seen, 2 * taken);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    fault_disarm();
    detach(&rec);
    close(master);
    chr_context_free(r.ctx);
}

EACH_WAY(a_terminal_that_blocks_is_read_without_waiting)
{
    int      slave, master = raw_terminal(&slave);
    recorder rec;
    rig      r;
    rig_open(&r);
    take_away(way);
    attach_with_room(&rec, makef(&r, "fd,id=f,in=%d,out=%d", slave, slave), 1);
    take_away_reading(way);
    rec.then = got_one;
    say(master, "abc");
    PUMP(&r, rec.length == 3);
    settle(&r);
    CHECK_INPUT(&rec, "abc");
    CHECK(!flag_set(slave, F_GETFL, O_NONBLOCK));
    fault_disarm();
    detach(&rec);
    close(master);
    chr_context_free(r.ctx);
}

/* Sockets use per-call flags: another process may set and clear O_NONBLOCK at any time. */
TEST(a_socket_that_somebody_makes_blocking)
{
    static const char *const options[] = { "socket,id=f,fd=%d", "fd,id=f,in=%d,out=%d" };
    int                      fds[2], i;
    recorder                 rec;
    rig                      r;
    rig_open(&r);
    for (i = 0; i < 2; i++) {
        char text[80];
        socket_pair(fds);
        snprintf(text, sizeof text, options[i], fds[0], fds[0]);
        attach_with_room(&rec, make(&r, text), 1);
        rec.then = got_one;
        fcntl(fds[0], F_SETFL, fcntl(fds[0], F_GETFL) & ~O_NONBLOCK);
        say(fds[1], "ab");
        settle(&r);
        CHECK_INPUT(&rec, "ab");
        CHECK(fill_up(&rec.fe) > 0);
        detach(&rec);
        chr_remove(r.ctx, "f", NULL);
        close(fds[1]);
    }
    rig_close(&r);
}

/* A listener that others have too: one that blocks again and whose peer another process takes first does not hold
 * the loop, and at the end it blocks for them as it did. */
TEST_WITHIN(a_listener_that_is_shared, 20)
{
    int          listener, mine, far, taken, count, timeout, i;
    chr_poll     polls[8];
    recorder     rec;
    rig          r;
    rig_open(&r);
    listener = unix_listen(scratch("l"));
    mine = fcntl(listener, F_DUPFD_CLOEXEC, 3);
    attach(&rec, makef(&r, "socket,id=s,fd=%d,server=on,wait=off", listener));
    fcntl(mine, F_SETFL, fcntl(mine, F_GETFL) & ~O_NONBLOCK);
    far = unix_connect(scratch("l"));
    count = chr_loop_prepare(r.ctx, polls, 8, &timeout);
    REQUIRE(count > 0 && count <= 8);
    taken = accept(mine, NULL, NULL);
    for (i = 0; i < count; i++) polls[i].events = polls[i].fd == listener ? CHR_IN : 0;
    chr_loop_dispatch(r.ctx, polls, count);
    CHECK_STR(rec.events, "");
    close(far), close(taken);
    far = unix_connect(scratch("l"));
    PUMP(&r, rec.open);
    detach(&rec);
    chr_remove(r.ctx, "s", NULL);
    CHECK(!flag_set(mine, F_GETFL, O_NONBLOCK));
    close(far), close(mine);
    rig_close(&r);
    scratch_clean();
}

/* Its path leads to another new pty: the descriptor itself is used. */
TEST(the_master_of_a_pty_is_not_opened_anew)
{
    int      slave, master = raw_terminal(&slave);
    recorder rec;
    rig      r;
    rig_open(&r);
    attach(&rec, makef(&r, "fd,id=f,in=%d,out=%d", master, master));
    CHECK_INT(chr_fe_write(&rec.fe, "in", 2), 2);
    fcntl(slave, F_SETFL, O_NONBLOCK);
    CHECK_STR(hear(slave), "in");
    say(slave, "out");
    PUMP(&r, rec.length == 3);
    CHECK_INPUT(&rec, "out");
    CHECK(fill_up(&rec.fe) > 0);
    detach(&rec);
    close(slave);
    chr_context_free(r.ctx);
}

/* A file keeps its position and O_APPEND: it is never opened anew. */
TEST(a_file_keeps_the_position_that_others_share)
{
    int      fd;
    recorder rec;
    rig      r;
    rig_open(&r);
    write_file(scratch("out"), "old ");
    fd = open(scratch("out"), O_WRONLY);
    lseek(fd, 4, SEEK_SET);
    attach(&rec, makef(&r, "fd,id=f,out=%d", fcntl(fd, F_DUPFD_CLOEXEC, 3)));
    CHECK_INT(chr_fe_write(&rec.fe, "new ", 4), 4);
    CHECK_INT(write(fd, "neighbour", 9), 9);
    CHECK_STR(read_file(scratch("out")), "old new neighbour");
    detach(&rec);
    chr_context_free(r.ctx);
    close(fd);
    scratch_clean();
}

/* A refused creation leaves all as it was. */
TEST(a_refused_fd_keeps_its_flags)
{
    int       fds[2], flags[4], i;
    long      at;
    char      options[300];
    chr_error err;
    rig       r;
    rig_open(&r);
    REQUIRE(pipe(fds) == 0);
    for (i = 0; i < 4; i++) flags[i] = fcntl(fds[i / 2], i % 2 ? F_GETFD : F_GETFL);
    snprintf(options, sizeof options, "fd,id=f,in=%d,out=%d,logfile=/nonexistent/x", fds[0], fds[1]);
    CHECK(refuse(&r, options, &err) < 0);
    snprintf(options, sizeof options, "fd,id=f,in=%d,out=%d", fds[0], fds[0]);
    CHECK(refuse(&r, options, &err) < 0);
    snprintf(options, sizeof options, "fd,id=f,in=%d,out=%d", fds[0], fds[1]);
    for (at = 1; at < 30; at++) {
        int count = count_fds();
        r.fail_at = r.calls + at;
        if (chr_new(r.ctx, options, &err)) break;
        CHECK_INT(count_fds(), count);
        for (i = 0; i < 4; i++) CHECK_INT(fcntl(fds[i / 2], i % 2 ? F_GETFD : F_GETFL), flags[i]);
    }
    CHECK(at > 2 && at < 30);
    chr_context_free(r.ctx);
}

/* ---- standard descriptors that are closed ------------------------------------------------------------------------ */

static int say_to = -1; /* where the harness's words go meanwhile */

static void close_standard(void)
{
    static char buffer[1 << 16];
    fflush(stdout);
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    say_to = fcntl(1, F_DUPFD_CLOEXEC, 50);
    close(0), close(1), close(2);
}

static void check_standard(const char *after)
{
    int fd;
    for (fd = 0; fd < 3; fd++)
        if (!CHECK(fcntl(fd, F_GETFD) < 0)) NOTE("%d is open after %s", fd, after);
}

static void open_standard(void)
{
    dup2(say_to, 1);
    dup2(say_to, 2);
}

TEST(no_descriptor_of_the_library_is_a_standard_one)
{
    static const char *const table[] = {
        "null,id=x,logfile=%s/log", "file,id=x,path=%s/out,input-path=/dev/zero", "pipe,id=x,path=%s/fifo", "pty,id=x,path=%s/link",
        "serial,id=x,path=/dev/null", "udp,id=x,host=127.0.0.1,port=9", "socket,id=x,path=%s/socket,server=on,wait=off",
        "socket,id=x,host=127.0.0.1,port=0,server=on,wait=off", "socket,id=x,path=%s/nobody,reconnect=1",
        "socket,id=x,host=localhost,port=1,reconnect=1",
    };
    char      options[400], dir[300];
    size_t    i;
    int       resolves = localhost_resolves();
    chr_error err;
    rig       r;
    REQUIRE(mkfifo(scratch("fifo"), 0600) == 0);
    snprintf(dir, sizeof dir, "%s", scratch_dir);
    close_standard();
    memset(&r, 0, sizeof r);
    r.ctx = chr_context_new(NULL);
    check_standard("chr_context_new()");
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        int step;
        snprintf(options, sizeof options, table[i], dir, dir);
        if (strstr(options, "localhost") && !resolves) continue; /* libc would be asking a name server, with a descriptor of its own */
        if (!CHECK(chr_new(r.ctx, options, &err) != NULL)) NOTE("%s: %s", options, err.text);
        for (step = 0; step < 5; step++) chr_loop_step(r.ctx, 5);
        check_standard(options);
        chr_remove(r.ctx, "x", NULL);
    }
    snprintf(options, sizeof options, "%s/record", dir);
    CHECK_INT(chr_record_start(r.ctx, options, &err), 0);
    check_standard("chr_record_start()");
    chr_context_free(r.ctx);
    open_standard();
    scratch_clean();
}

/* Nor is one that accept() or a peer's message brings. */
TEST(no_descriptor_that_comes_over_a_socket_is_a_standard_one)
{
    union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int))]; } control;
    struct msghdr  message;
    struct iovec   part;
    int            far, fds[4] = { -1, -1, -1, -1 }, n;
    const int      spare = open("/dev/null", O_RDWR);
    char           path[100];
    recorder       rec;
    rig            r;
    snprintf(path, sizeof path, "%s", scratch("socket"));
    rig_open(&r);
    attach(&rec, makef(&r, "socket,id=s,path=%s,server=on,wait=off", path));
    far = unix_connect(path);
    close_standard();
    PUMP(&r, rec.open);
    check_standard("accept()");
    memset(&message, 0, sizeof message);
    memset(&control, 0, sizeof control);
    part.iov_base = (void *)(uintptr_t)"x";
    part.iov_len = 1;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    control.align.cmsg_len = CMSG_LEN(sizeof(int));
    control.align.cmsg_level = SOL_SOCKET;
    control.align.cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(&control.align), &spare, sizeof spare);
    CHECK_INT(sendmsg(far, &message, 0), 1);
    PUMP(&r, rec.length == 1);
    check_standard("recvmsg()");
    n = chr_fe_get_msgfds(&rec.fe, fds, 4);
    CHECK_INT(n, 1);
    CHECK(fds[0] > 2 && flag_set(fds[0], F_GETFD, FD_CLOEXEC));
    open_standard();
    close(fds[0]), close(far), close(spare);
    detach(&rec);
    chr_context_free(r.ctx);
    scratch_clean();
}

TEST(stdio_with_both_closed)
{
    chr_error    err;
    chr_context *ctx;
    chr_dev     *dev;
    close_standard();
    ctx = chr_context_new(NULL);
    dev = chr_new(ctx, "stdio,id=s", &err);
    check_standard("a refused stdio");
    chr_context_free(ctx);
    open_standard();
    CHECK(dev == NULL);
    CHECK_INT(err.code, CHR_ERR_DISCONNECTED);
    CHECK_HAS(err.text, "both closed");
}

/* As /dev/null: the input has ended, the output goes on. */
TEST(stdio_with_the_input_closed)
{
    int      out[2];
    recorder rec;
    rig      r;
    REQUIRE(pipe(out) == 0);
    close_standard();
    dup2(out[1], 1);
    close(out[1]);
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    CHECK(fcntl(0, F_GETFD) < 0);
    PUMP(&r, strlen(rec.events) == 2);
    CHECK_STR(rec.events, "OC");
    CHECK_INT(chr_fe_write(&rec.fe, "still", 5), 5);
    CHECK_STR(hear(out[0]), "still");
    CHECK_INT(rec.length, 0);
    detach(&rec);
    rig_close(&r);
    open_standard();
}

TEST(stdio_with_the_output_closed)
{
    int      in[2];
    recorder rec;
    rig      r;
    REQUIRE(pipe(in) == 0);
    close_standard();
    dup2(in[0], 0);
    close(in[0]);
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    CHECK(fcntl(1, F_GETFD) < 0);
    say(in[1], "in");
    PUMP(&r, rec.length == 2);
    CHECK_INT(chr_fe_write(&rec.fe, "out", 3), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_write_all(&rec.fe, "out", 3, 1000), CHR_ERR_DISCONNECTED);
    CHECK_STR(rec.events, "O");
    detach(&rec);
    rig_close(&r);
    open_standard();
}
