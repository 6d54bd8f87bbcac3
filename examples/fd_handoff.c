/*
 * fd_handoff - how a manager gives a virtual machine its monitor socket, without a race and without a retry loop.
 *
 * This is a demonstration that prints and checks every step (`make demo`), a second socket over the running monitor, a
 * hot swap and a failed start among them. manager.c is the one page to copy.
 *
 *     build/fd_handoff                        with build/tinyvm
 *     build/fd_handoff -- VM command...       with another one that has -chardev, -mon and -serial:
 *                                             qemu-system-x86_64 -M none -display none -nodefaults
 *
 * The manager creates the listening socket itself, and the VM inherits it. From then on one connect() is enough: the
 * connection stays in the backlog until the VM accepts it, and when the VM fails to start, the kernel closes it. This
 * file is the manager's side alone: plain POSIX, no chardev.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { VM_FD = 3, ANSWER_MS = 10000, LINE = 16384, MAX_WORDS = 128 };

#define MONITOR_OPTIONS "socket,id=mon,fd=3,server=on,wait=off"
#define BAD_OPTIONS     "socket,id=extra,pth=/nowhere"

static char  directory[64]; /* holds the sockets; removed at the end */
static char  socket_path[2][80];
static pid_t vm_pid; /* the VM that runs; 0 = none */

/* ---- helpers ----------------------------------------------------------------------------------------------------- */

/* At exit: no VM outlives a manager that has failed. */
static void clean_up(void)
{
    if (vm_pid > 0 && kill(vm_pid, SIGTERM) == 0) (void)waitpid(vm_pid, NULL, 0);
    unlink(socket_path[0]);
    unlink(socket_path[1]);
    rmdir(directory);
}

static void fail(const char *what)
{
    fprintf(stderr, "fd_handoff: %s: %s\n", what, errno ? strerror(errno) : "failed");
    exit(1);
}

static int checked(int result, const char *what)
{
    if (result < 0) fail(what);
    return result;
}

static void step(const char *text)
{
    printf("\n* %s\n", text);
    fflush(stdout);
}

static void make_directory(void)
{
    int i;

    strcpy(directory, "/tmp/fd_handoff.XXXXXX");
    if (!mkdtemp(directory)) fail("mkdtemp");
    for (i = 0; i < 2; i++) snprintf(socket_path[i], sizeof socket_path[i], "%s/%d.sock", directory, i);
    atexit(clean_up);
}

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address;

    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    return address;
}

/* ---- the sockets ------------------------------------------------------------------------------------------------- */

static int new_socket(void)
{
    int fd = checked(socket(AF_UNIX, SOCK_STREAM, 0), "socket");

    checked(fcntl(fd, F_SETFD, FD_CLOEXEC), "fcntl");
    return fd;
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = address_of(path);
    int                fd = new_socket();

    unlink(path);
    checked(bind(fd, (struct sockaddr *)&address, sizeof address), "bind");
    checked(listen(fd, 1), "listen");
    printf("  listening on %s\n", path);
    return fd;
}

/* The only attempt. Returns the connection, or -1 when it was refused. */
static int connect_once(const char *path)
{
    struct sockaddr_un address = address_of(path);
    int                fd = new_socket();

    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    if (errno != ECONNREFUSED) fail("connect");
    close(fd);
    return -1;
}

/* ---- the VM's process -------------------------------------------------------------------------------------------- */

/* In the child: the listening socket becomes descriptor 3. All others but 0, 1 and 2 are close-on-exec. */
static void become_vm(char **command, int listener, int errors)
{
    int nowhere = open("/dev/null", O_RDWR);

    dup2(nowhere, 0);
    dup2(nowhere, 1);
    if (errors >= 0) dup2(errors, 2);
    if (nowhere > 2) fcntl(nowhere, F_SETFD, FD_CLOEXEC);
    if (listener == VM_FD) fcntl(VM_FD, F_SETFD, 0);
    else dup2(listener, VM_FD);
    execvp(command[0], command);
    fprintf(stderr, "%s: %s\n", command[0], strerror(errno));
    _exit(127);
}

static pid_t start(char **command, int listener, int errors)
{
    pid_t pid;
    int   i;

    printf("  ");
    for (i = 0; command[i]; i++) printf("%s%s", command[i], command[i + 1] ? " " : "\n");
    fflush(stdout);
    pid = (pid_t)checked((int)fork(), "fork");
    if (pid == 0) become_vm(command, listener, errors);
    close(listener); /* The VM has the only copy now: when it ends, nothing listens. */
    vm_pid = pid;
    return pid;
}

/* The VM's exit status; 128 + n = signal n ended it. */
static int status_of(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) fail("waitpid");
    vm_pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- QMP: one line of JSON each way ------------------------------------------------------------------------------ */

/* Reads up to a newline or EOF. Returns the length; 0 = EOF. A time-out is an error, so that a hanging VM doesn't
 * hang its manager. */
static int read_line(int fd, char *line, size_t size)
{
    struct pollfd ready;
    size_t        len = 0;
    ssize_t       n;

    ready.fd = fd;
    ready.events = POLLIN;
    while (len + 1 < size && (len == 0 || line[len - 1] != '\n')) {
        errno = ETIMEDOUT;
        if (checked(poll(&ready, 1, ANSWER_MS), "poll") == 0) fail("waiting for an answer");
        n = read(fd, line + len, 1);
        if (n < 0 && errno != ECONNRESET) fail("read");
        if (n <= 0) break;
        len += (size_t)n;
    }
    line[len] = '\0';
    return (int)len;
}

/* Sends all of it: send() may do a short write. */
static void send_text(int fd, const char *text)
{
    size_t len = strlen(text);
    int    sent;

    for (; len > 0; text += sent, len -= (size_t)sent) sent = checked((int)send(fd, text, len, MSG_NOSIGNAL), "send");
}

/* Sends `text` with a descriptor on its first byte (SCM_RIGHTS); after a short write, the rest follows without. */
static void send_with_fd(int fd, const char *text, int passed)
{
    union {
        struct cmsghdr header;
        char           room[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message;
    struct iovec  data;

    memset(&message, 0, sizeof message);
    memset(&control, 0, sizeof control);
    data.iov_base = (char *)text;
    data.iov_len = strlen(text);
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.room;
    message.msg_controllen = sizeof control.room;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(&control.header), &passed, sizeof passed);
    send_text(fd, text + checked((int)sendmsg(fd, &message, MSG_NOSIGNAL), "sendmsg"));
}

/* Prints the VM's lines until one contains `word` (NULL: until EOF). Returns whether such a line was received. */
static int print_until(int fd, const char *word)
{
    char line[LINE];

    while (read_line(fd, line, sizeof line) > 0) {
        line[strcspn(line, "\r\n")] = '\0';
        printf("  <- %s\n", line);
        if (word && strstr(line, word)) return 1;
        if (word && strstr(line, "\"error\"")) break;
    }
    fflush(stdout);
    return 0;
}

/* Sends one command and reads its reply. `passed`: a descriptor sent with it; our copy is closed. -1 = none. */
static void command(int monitor, const char *json, int passed)
{
    char line[LINE];

    printf("  -> %s%s\n", json, passed < 0 ? "" : "   (and a descriptor)");
    snprintf(line, sizeof line, "%s\n", json);
    if (passed < 0) send_text(monitor, line);
    else send_with_fd(monitor, line, passed);
    if (passed >= 0) close(passed);
    errno = 0;
    if (!print_until(monitor, "\"return\"")) fail("the VM refused the command");
}

/* ---- the steps --------------------------------------------------------------------------------------------------- */

/* A second socket, passed over the running monitor: a descriptor passed there has a name, not a number. */
static void add_a_socket(int monitor)
{
    int connection;

    step("A second listening socket, passed over the monitor (SCM_RIGHTS) under the name 'extra'");
    command(monitor, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"extra\"}}", listen_at(socket_path[1]));
    command(monitor,
            "{\"execute\":\"chardev-add\",\"arguments\":{\"id\":\"extra\",\"backend\":{\"type\":\"socket\",\"data\":"
            "{\"addr\":{\"type\":\"fd\",\"data\":{\"str\":\"extra\"}},\"server\":true,\"wait\":false}}}}",
            -1);
    connection = connect_once(socket_path[1]);
    printf("  one connect() to it: %s\n", connection < 0 ? "refused" : "connected");
    if (connection < 0) exit(1);
    command(monitor, "{\"execute\":\"query-chardev\"}", -1);
    command(monitor, "{\"execute\":\"chardev-remove\",\"arguments\":{\"id\":\"extra\"}}", -1);
    if (print_until(connection, NULL) == 0) printf("  the VM removed it: our connection has ended\n");
    close(connection);
}

/* Hot swap: the guest's serial line moves to a socket whose other end is ours. Returns whether the guest answered. */
static int talk_to_the_guest(int monitor)
{
    struct pollfd ready;
    int           pair[2], answered;

    step("The guest's serial line, moved while it runs to one end of a socket pair");
    checked(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
    checked(fcntl(pair[0], F_SETFD, FD_CLOEXEC), "fcntl");
    command(monitor, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"line\"}}", pair[1]);
    command(monitor,
            "{\"execute\":\"chardev-change\",\"arguments\":{\"id\":\"con\",\"backend\":{\"type\":\"socket\",\"data\":"
            "{\"addr\":{\"type\":\"fd\",\"data\":{\"str\":\"line\"}},\"server\":false}}}}",
            -1);
    printf("  typed to the guest: hello\n");
    send_text(pair[0], "hello\r");
    ready.fd = pair[0];
    ready.events = POLLIN;
    answered = poll(&ready, 1, ANSWER_MS / 5) == 1 && print_until(pair[0], "hello");
    if (!answered) printf("  no guest answers\n");
    close(pair[0]);
    return answered;
}

static int run_the_vm(char **vm, int has_guest)
{
    int   listener, monitor, answered, status;
    pid_t pid;

    step("The manager makes the monitor's socket, and starts the VM with it as descriptor 3");
    listener = listen_at(socket_path[0]);
    pid = start(vm, listener, -1);

    step("It connects, once: the VM may not even have started");
    monitor = connect_once(socket_path[0]);
    errno = 0;
    if (monitor < 0 || !print_until(monitor, "\"QMP\"")) fail("the VM is not there");
    command(monitor, "{\"execute\":\"qmp_capabilities\"}", -1);
    command(monitor, "{\"execute\":\"query-status\"}", -1);
    add_a_socket(monitor);
    answered = talk_to_the_guest(monitor);

    step("The end");
    command(monitor, "{\"execute\":\"quit\"}", -1);
    print_until(monitor, NULL);
    close(monitor);
    status = status_of(pid);
    printf("  the VM's exit status: %d\n", status);
    return status == 0 && (answered || !has_guest);
}

/* Prints the VM's stderr, until EOF: the VM has ended. */
static void print_errors(int errors)
{
    char line[LINE];

    while (read_line(errors, line, sizeof line) > 0) printf("  its stderr: %s", line);
}

/* The VM inherits the socket, finds a bad option and exits. A connection made before the exit ends with EOF or
 * ECONNRESET; an attempt after it gets ECONNREFUSED. There is no third case, hence no wait and no retry. */
static int run_a_vm_that_fails(char **vm)
{
    int   errors[2], listener, monitor, status;
    pid_t pid;

    step("A start that fails: the same socket, and one wrong option");
    checked(pipe(errors), "pipe");
    checked(fcntl(errors[0], F_SETFD, FD_CLOEXEC) | fcntl(errors[1], F_SETFD, FD_CLOEXEC), "fcntl");
    listener = listen_at(socket_path[0]);
    pid = start(vm, listener, errors[1]);
    close(errors[1]);

    monitor = connect_once(socket_path[0]);
    if (monitor < 0) printf("  one connect(): refused\n");
    else if (print_until(monitor, NULL) == 0) printf("  one connect(): taken, then end-of-file\n");
    print_errors(errors[0]);
    status = status_of(pid);
    printf("  the VM's exit status: %d\n", status);
    return status != 0;
}

/* ---- the command line -------------------------------------------------------------------------------------------- */

/* tinyvm is in this program's directory. */
static char *default_vm(const char *program)
{
    static char path[4096];
    const char *slash = strrchr(program, '/');

    snprintf(path, sizeof path, "%.*stinyvm", slash ? (int)(slash - program + 1) : 0, program);
    return path;
}

/* The VM's own arguments, then the options of a step, then NULL for exec. */
static void make_command(char *command_line[MAX_WORDS], char **words, int count, const char *const *options,
                         int option_count)
{
    int i, n = 0;

    errno = E2BIG;
    if (count + option_count >= MAX_WORDS) fail("the VM command");
    for (i = 0; i < count; i++) command_line[n++] = words[i];
    for (i = 0; i < option_count; i++) command_line[n++] = (char *)options[i];
    command_line[n] = NULL;
}

int main(int argc, char **argv)
{
    static const char *const options[] = { "-chardev", MONITOR_OPTIONS, "-mon", "chardev=mon,mode=control",
                                           "-chardev", "null,id=con",   "-serial", "chardev:con",
                                           "-chardev", BAD_OPTIONS };
    char  *command_line[MAX_WORDS];
    char  *tinyvm = default_vm(argv[0]);
    int    own_vm = argc > 2 && strcmp(argv[1], "--") == 0;
    char **words = own_vm ? argv + 2 : &tinyvm;
    int    count = own_vm ? argc - 2 : 1;
    int    good, bad;

    if (argc > 1 && !own_vm) {
        fprintf(stderr, "usage: fd_handoff [-- VM command...]\n");
        return 2;
    }
    make_directory();
    make_command(command_line, words, count, options, 8);
    good = run_the_vm(command_line, !own_vm);
    make_command(command_line, words, count, options, 10);
    bad = run_a_vm_that_fails(command_line);
    return good && bad ? 0 : 1;
}
