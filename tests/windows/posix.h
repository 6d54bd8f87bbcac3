/*
 * posix.h - for tests under Windows: the POSIX names that test programs use, on Winsock and Win32, so that one source serves both
 * systems. The headers beside this one (poll.h, sys/socket.h ...) only include it.
 *
 * A descriptor is what chardev.h takes for one there: the value of a SOCKET or HANDLE. What Windows has no counterpart of (fork(),
 * mkfifo() ...) ends the test that calls it as skipped: tests/windows/skipped lists the reasons that are allowed.
 */
#ifndef CHARDEV_TESTS_POSIX_H
#define CHARDEV_TESTS_POSIX_H

#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOGDI
#define NOGDI
#endif
#define tell posix_crt_tell /* names that tests use */
#define SIZE posix_windows_size
#include <winsock2.h>
#include <ws2tcpip.h>
#include <afunix.h>
#include <windows.h>

#include <direct.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <process.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#undef tell
#undef SIZE
#undef environ
#undef near
#undef far
#undef small
#undef interface

/* What can't be: the reason is printed as SKIP of test.h does. A test that has failed before it came here has failed. */
static int        test_failures;
static inline int posix_missing(const char *what)
{
    printf("    skipped because: %s\n", what);
    exit(test_failures ? EXIT_FAILURE : 77);
    return -1;
}

static inline int posix_none(const char *name, ...)
{
    char text[80];
    snprintf(text, sizeof text, "there is no %s() on this system", name);
    return posix_missing(text);
}

/* ---- errors ----------------------------------------------------------------------------------------------------------- */

static inline int posix_fail(unsigned long code)
{
    static const struct { unsigned long code; int error; } table[] = {
        { WSAEWOULDBLOCK, EAGAIN }, { WSAECONNRESET, ECONNRESET }, { WSAECONNABORTED, ECONNABORTED },
        { WSAECONNREFUSED, ECONNREFUSED }, { WSAENOTSOCK, EBADF }, { WSAENOTCONN, ENOTCONN }, { WSAESHUTDOWN, EPIPE },
        { WSAEADDRINUSE, EADDRINUSE }, { WSAEINVAL, EINVAL }, { WSAEMFILE, EMFILE }, { ERROR_INVALID_HANDLE, EBADF },
        { ERROR_FILE_NOT_FOUND, ENOENT }, { ERROR_PATH_NOT_FOUND, ENOENT }, { ERROR_ACCESS_DENIED, EACCES },
        { ERROR_BROKEN_PIPE, EPIPE }, { ERROR_NO_DATA, EPIPE },
    };
    size_t i;
    errno = EIO;
    for (i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].code == code) errno = table[i].error;
    return -1;
}

static inline int posix_socket_result(int result)
{
    return result == SOCKET_ERROR ? posix_fail((unsigned long)WSAGetLastError()) : result;
}

static inline SOCKET posix_socket(int fd)
{
    return (SOCKET)(uintptr_t)(intptr_t)fd;
}

static inline HANDLE posix_handle(int fd)
{
    return (HANDLE)(intptr_t)fd;
}

static inline int posix_fd(SOCKET made)
{
    return made == INVALID_SOCKET ? posix_fail((unsigned long)WSAGetLastError()) : (int)made;
}

static inline int posix_is_socket(int fd)
{
    int type = 0, len = sizeof type;
    return getsockopt(posix_socket(fd), SOL_SOCKET, SO_TYPE, (char *)&type, &len) == 0;
}

/* ---- sockets ---------------------------------------------------------------------------------------------------------- */

#define SHUT_RD   SD_RECEIVE
#define SHUT_WR   SD_SEND
#define SHUT_RDWR SD_BOTH
#define SOCK_NONBLOCK 0x4000 /* with the type, as on Linux */
#define SOCK_CLOEXEC  0x8000
#ifndef TCP_KEEPIDLE
#define TCP_KEEPIDLE  3
#define TCP_KEEPCNT   16
#define TCP_KEEPINTVL 17
#endif
#ifndef MSG_DONTWAIT
#define MSG_DONTWAIT 0x40000000 /* no flag here: what would wait is not called */
#endif
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

static inline int posix_open_socket(int family, int type, int protocol)
{
    int    flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    u_long on = 1;
    SOCKET made = WSASocketW(family, type & ~flags, protocol, NULL, 0, WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
    if (type & SOCK_NONBLOCK) ioctlsocket(made, (long)FIONBIO, &on);
    /* what stands for a unix socket holds nothing back until the peer has acknowledged */
    if ((type & 0xff) == SOCK_STREAM) setsockopt(made, IPPROTO_TCP, TCP_NODELAY, (const char *)&on, sizeof on);
    return posix_fd(made);
}

static inline int posix_bind(int fd, const struct sockaddr *address, socklen_t len)
{
    return posix_socket_result(bind(posix_socket(fd), address, len));
}

static inline int posix_listen(int fd, int backlog)
{
    return posix_socket_result(listen(posix_socket(fd), backlog));
}

static inline int posix_accept(int fd, struct sockaddr *address, socklen_t *len)
{
    return posix_fd(accept(posix_socket(fd), address, len));
}

static inline int posix_connect(int fd, const struct sockaddr *address, socklen_t len)
{
    return posix_socket_result(connect(posix_socket(fd), address, len));
}

static inline int posix_getsockname(int fd, struct sockaddr *address, socklen_t *len)
{
    return posix_socket_result(getsockname(posix_socket(fd), address, len));
}

static inline int posix_getpeername(int fd, struct sockaddr *address, socklen_t *len)
{
    return posix_socket_result(getpeername(posix_socket(fd), address, len));
}

static inline int posix_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    return posix_socket_result(setsockopt(posix_socket(fd), level, name, (const char *)value, len));
}

static inline int posix_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    return posix_socket_result(getsockopt(posix_socket(fd), level, name, (char *)value, len));
}

static inline int posix_shutdown(int fd, int how)
{
    return posix_socket_result(shutdown(posix_socket(fd), how));
}

/* With MSG_DONTWAIT: whether a call would wait; the error is set. */
static inline int posix_waits(int fd, short events, int *flags)
{
    WSAPOLLFD one;
    if (!(*flags & MSG_DONTWAIT)) return 0;
    *flags &= ~MSG_DONTWAIT;
    one.fd = posix_socket(fd);
    one.events = events;
    one.revents = 0;
    if (WSAPoll(&one, 1, 0) != 0) return 0;
    posix_fail(WSAEWOULDBLOCK);
    return 1;
}

static inline ssize_t posix_send(int fd, const void *buf, size_t len, int flags)
{
    if (posix_waits(fd, POLLWRNORM, &flags)) return -1;
    return posix_socket_result(send(posix_socket(fd), (const char *)buf, (int)len, flags));
}

static inline ssize_t posix_recv(int fd, void *buf, size_t len, int flags)
{
    if (posix_waits(fd, POLLRDNORM, &flags)) return -1;
    return posix_socket_result(recv(posix_socket(fd), (char *)buf, (int)len, flags));
}

static inline ssize_t posix_sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *to, socklen_t to_len)
{
    return posix_socket_result(sendto(posix_socket(fd), (const char *)buf, (int)len, flags, to, to_len));
}

static inline ssize_t posix_recvfrom(int fd, void *buf, size_t len, int flags, struct sockaddr *from, socklen_t *from_len)
{
    if (posix_waits(fd, POLLRDNORM, &flags)) return -1;
    return posix_socket_result(recvfrom(posix_socket(fd), (char *)buf, (int)len, flags, from, from_len));
}

/* Two connected sockets over 127.0.0.1, without Nagle's delay, that hold about as much as unix sockets do. */
static inline int posix_socketpair(int family, int type, int protocol, int fds[2])
{
    struct sockaddr_in address;
    socklen_t          len = sizeof address;
    int                on = 1, few = 100000, i, listener = posix_open_socket(AF_INET, SOCK_STREAM, 0);
    if ((type & 0xff) != SOCK_STREAM) return posix_missing("there is no socketpair() of that type on this system");
    (void)family, (void)protocol;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (posix_bind(listener, (struct sockaddr *)&address, len) < 0 || posix_listen(listener, 1) < 0) return -1;
    if (posix_getsockname(listener, (struct sockaddr *)&address, &len) < 0) return -1;
    fds[0] = posix_open_socket(AF_INET, SOCK_STREAM, 0);
    if (posix_connect(fds[0], (struct sockaddr *)&address, len) < 0) return -1;
    fds[1] = posix_accept(listener, NULL, NULL);
    closesocket(posix_socket(listener));
    for (i = 0; i < 2; i++) {
        posix_setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        posix_setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &few, sizeof few);
        posix_setsockopt(fds[i], SOL_SOCKET, SO_RCVBUF, &few, sizeof few);
    }
    return fds[1] < 0 ? -1 : 0;
}

/* A way for bytes from fds[1] to fds[0]. */
static inline int posix_pipe(int fds[2])
{
    return posix_socketpair(AF_INET, SOCK_STREAM, 0, fds);
}

typedef short    sa_family_t;
typedef unsigned nfds_t;

struct posix_pollfd { /* declared again, as its fd is an int */
    int   fd;
    short events, revents;
};

static inline int posix_poll(struct posix_pollfd *polls, unsigned count, int timeout_ms)
{
    WSAPOLLFD items[64];
    int       ready;
    unsigned  i;
    if (count > 64) return posix_fail(WSAEINVAL);
    for (i = 0; i < count; i++) {
        items[i].fd = posix_socket(polls[i].fd);
        items[i].events = polls[i].events;
        items[i].revents = 0;
    }
    ready = posix_socket_result(WSAPoll(items, count, timeout_ms));
    for (i = 0; i < count; i++) polls[i].revents = items[i].revents;
    return ready;
}

/* ---- descriptors of any kind ----------------------------------------------------------------------------------------------- */

#ifndef O_NONBLOCK
#define O_NONBLOCK 0x4000
#endif
#ifndef O_NOCTTY
#define O_NOCTTY 0
#endif
#ifndef O_CLOEXEC
#define O_CLOEXEC 0
#endif
#define F_GETFD         1
#define F_SETFD         2
#define F_GETFL         3
#define F_SETFL         4
#define F_DUPFD_CLOEXEC 5
#define FD_CLOEXEC      1

static inline int posix_dup(int fd);

static inline int posix_close(int fd)
{
    if (posix_is_socket(fd)) return posix_socket_result(closesocket(posix_socket(fd)));
    return CloseHandle(posix_handle(fd)) ? 0 : posix_fail(GetLastError());
}

static inline ssize_t posix_read(int fd, void *buf, size_t len)
{
    DWORD got = 0;
    if (posix_is_socket(fd)) return posix_recv(fd, buf, len, 0);
    if (ReadFile(posix_handle(fd), buf, (DWORD)len, &got, NULL)) return (ssize_t)got;
    return GetLastError() == ERROR_BROKEN_PIPE ? 0 : posix_fail(GetLastError());
}

static inline ssize_t posix_write(int fd, const void *buf, size_t len)
{
    DWORD sent = 0;
    if (posix_is_socket(fd)) return posix_send(fd, buf, len, 0);
    return WriteFile(posix_handle(fd), buf, (DWORD)len, &sent, NULL) ? (ssize_t)sent : posix_fail(GetLastError());
}

static inline int posix_open(const char *path, int flags, ...)
{
    DWORD  access = (flags & O_RDWR) ? GENERIC_READ | GENERIC_WRITE : (flags & O_WRONLY) ? GENERIC_WRITE : GENERIC_READ;
    DWORD  how = (flags & O_CREAT) ? ((flags & O_TRUNC) ? CREATE_ALWAYS : OPEN_ALWAYS)
                                   : ((flags & O_TRUNC) ? TRUNCATE_EXISTING : OPEN_EXISTING);
    HANDLE handle;
    if (flags & O_APPEND) access = (access & ~(DWORD)GENERIC_WRITE) | FILE_APPEND_DATA;
    if (strcmp(path, "/dev/null") == 0) path = "NUL";
    handle = CreateFileA(path, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, how, 0, NULL);
    return handle == INVALID_HANDLE_VALUE ? posix_fail(GetLastError()) : (int)(intptr_t)handle;
}

static inline int posix_fcntl(int fd, int command, ...)
{
    va_list rest;
    u_long  on;
    DWORD   flags;
    int     value;
    va_start(rest, command);
    value = command == F_GETFD || command == F_GETFL ? 0 : va_arg(rest, int);
    va_end(rest);
    on = (value & O_NONBLOCK) != 0;
    if (command == F_DUPFD_CLOEXEC) return posix_dup(fd);
    if (command == F_SETFD)
        return SetHandleInformation(posix_handle(fd), HANDLE_FLAG_INHERIT, value & FD_CLOEXEC ? 0 : HANDLE_FLAG_INHERIT) ? 0 : -1;
    if (command == F_SETFL) return posix_socket_result(ioctlsocket(posix_socket(fd), (long)FIONBIO, &on));
    if (command == F_GETFL && posix_is_socket(fd)) return O_RDWR; /* whether it is non-blocking can't be asked */
    if (command != F_GETFD && command != F_GETFL) return posix_missing("there is no such fcntl() on this system");
    return GetHandleInformation(posix_handle(fd), &flags) ? (flags & HANDLE_FLAG_INHERIT ? 0 : FD_CLOEXEC) : (errno = EBADF, -1);
}

static inline int posix_dup(int fd)
{
    WSAPROTOCOL_INFOW info;
    HANDLE            self = GetCurrentProcess(), copy;
    if (posix_is_socket(fd)) {
        if (WSADuplicateSocketW(posix_socket(fd), GetCurrentProcessId(), &info) != 0) return posix_fail(WSAENOTSOCK);
        return posix_fd(WSASocketW(FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, &info, 0, WSA_FLAG_OVERLAPPED));
    }
    if (!DuplicateHandle(self, posix_handle(fd), self, &copy, 0, FALSE, DUPLICATE_SAME_ACCESS)) return posix_fail(GetLastError());
    return (int)(intptr_t)copy;
}

/* ---- files ------------------------------------------------------------------------------------------------------------- */

/* The template's directory is not used: files for a while are in the user's own. */
static inline char *posix_mkdtemp(char *path, size_t size)
{
    static int count;
    char       dir[MAX_PATH], *at;
    GetTempPathA(sizeof dir, dir);
    for (at = dir; *at; at++)
        if (*at == '\\') *at = '/';
    do /* numbers of processes come again, and so do what others have left */
        snprintf(path, size, "%schardev-test-%lu-%d", dir, (unsigned long)GetCurrentProcessId(), count++);
    while (!CreateDirectoryA(path, NULL) && GetLastError() == ERROR_ALREADY_EXISTS);
    return path;
}

static inline int posix_rename(const char *from, const char *to)
{
    return MoveFileExA(from, to, MOVEFILE_REPLACE_EXISTING) ? 0 : posix_fail(GetLastError());
}

static inline int setenv(const char *name, const char *value, int replace)
{
    return !replace && getenv(name) ? 0 : _putenv_s(name, value);
}

static inline int unsetenv(const char *name)
{
    return _putenv_s(name, "");
}

static inline void *memmem(const void *where, size_t len, const void *what, size_t what_len)
{
    const char *at = (const char *)where;
    for (; what_len <= len; at++, len--)
        if (memcmp(at, what, what_len) == 0) return (void *)(uintptr_t)at;
    return NULL;
}

static inline char *strsep(char **rest, const char *ends)
{
    char *part = *rest, *end = part ? strpbrk(part, ends) : NULL;
    if (end) *end++ = 0;
    *rest = end;
    return part;
}

enum { _SC_PAGESIZE = 30 };

static inline mode_t posix_umask(mode_t mode) { return (mode_t)umask(mode); }
static inline long sysconf(int what) { return (void)what, 4096; }

/* ---- what there is not ----------------------------------------------------------------------------------------------------- */

struct sigaction {
    void (*sa_handler)(int);
};

typedef unsigned long rlim_t;

struct rlimit {
    rlim_t rlim_cur, rlim_max;
};

struct iovec {
    void  *iov_base;
    size_t iov_len;
};

struct msghdr {
    void         *msg_name;
    socklen_t     msg_namelen;
    struct iovec *msg_iov;
    size_t        msg_iovlen;
    void         *msg_control;
    size_t        msg_controllen;
    int           msg_flags;
};

struct posix_cmsghdr {
    size_t cmsg_len;
    int    cmsg_level, cmsg_type;
};

enum { AF_VSOCK = 40, SCM_RIGHTS = 1, MSG_CMSG_CLOEXEC = 0 };

#undef CMSG_SPACE
#undef CMSG_LEN
#undef CMSG_DATA
#undef CMSG_FIRSTHDR
#undef CMSG_NXTHDR
#define CMSG_SPACE(len)            (sizeof(struct posix_cmsghdr) + (len))
#define CMSG_LEN(len)              (sizeof(struct posix_cmsghdr) + (len))
#define CMSG_DATA(head)            ((void *)((head) + 1))
#define CMSG_FIRSTHDR(message)     ((struct posix_cmsghdr *)(message)->msg_control)
#define CMSG_NXTHDR(message, head) ((struct posix_cmsghdr *)NULL)

enum { RLIMIT_NOFILE = 7, SIGPIPE = 13, SIGALRM = 14, SIGCHLD = 17, SIGUSR1 = 10, SIGUSR2 = 12, SIGKILL = 9 };


/* ---- the names ------------------------------------------------------------------------------------------------------------- */

#define socket(family, type, protocol)      posix_open_socket(family, type, protocol)
#define bind(fd, address, len)              posix_bind(fd, address, len)
#define listen(fd, backlog)                 posix_listen(fd, backlog)
#define accept(fd, address, len)            posix_accept(fd, address, len)
#define accept4(fd, address, len, flags)    posix_accept(fd, address, len)
#define connect(fd, address, len)           posix_connect(fd, address, len)
#define getsockname(fd, address, len)       posix_getsockname(fd, address, len)
#define getpeername(fd, address, len)       posix_getpeername(fd, address, len)
#define setsockopt(fd, level, name, v, len) posix_setsockopt(fd, level, name, v, len)
#define getsockopt(fd, level, name, v, len) posix_getsockopt(fd, level, name, v, len)
#define shutdown(fd, how)                   posix_shutdown(fd, how)
#define send(...)                           posix_send(__VA_ARGS__)
#define recv(...)                           posix_recv(__VA_ARGS__)
#define sendto(fd, buf, len, flags, to, n)  posix_sendto(fd, buf, len, flags, to, n)
#define recvfrom(fd, buf, len, flags, f, n) posix_recvfrom(fd, buf, len, flags, f, n)
#define socketpair(family, type, p, fds)    posix_socketpair(family, type, p, fds)
#define pipe(fds)                           posix_pipe(fds)
#define poll(polls, count, ms)              posix_poll(polls, count, ms)
#define pollfd                              posix_pollfd
#define cmsghdr                             posix_cmsghdr
#define close(fd)                           posix_close(fd)
#define read(...)                           posix_read(__VA_ARGS__)
#define write(...)                          posix_write(__VA_ARGS__)
#define open(...)                           posix_open(__VA_ARGS__)
#define fcntl(...)                          posix_fcntl(__VA_ARGS__)
#define dup(fd)                             posix_dup(fd)
#define rename(from, to)                    posix_rename(from, to)
#define mkdtemp(path)                       posix_mkdtemp(path, sizeof(path))
#define mkdir(path, mode)                   ((void)(mode), _mkdir(path))
#define lstat(path, info)                   stat(path, info)

#define pipe2(fds, flags)                   posix_pipe(fds)

#define WIFEXITED(status)      ((void)(status), 1)
#define WEXITSTATUS(status)    (status)
#define WIFSIGNALED(status)    ((void)(status), 0)
#define WTERMSIG(status)       (status)
#define strsignal(number)      ((void)(number), "")
typedef struct epoll_event {
    unsigned events;
    union {
        int      fd;
        void    *ptr;
        uint64_t u64;
    } data;
} epoll_event;

enum { EPOLLIN = 1, EPOLLOUT = 4, EPOLLERR = 8, EPOLLHUP = 16, EPOLLRDHUP = 0x2000, EPOLLET = 0x4000, EPOLL_CTL_ADD = 1, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLL_CLOEXEC = 0, EFD_NONBLOCK = 0, TCSANOW = 0,
       POLLRDHUP = 0x2000 };

struct rusage {
    struct timeval ru_utime, ru_stime;
};

enum { RUSAGE_SELF, RUSAGE_THREAD };

static inline struct timeval posix_span(FILETIME time) /* of units of 100 ns */
{
    uint64_t       all = ((uint64_t)time.dwHighDateTime << 32 | time.dwLowDateTime) / 10;
    struct timeval span;
    span.tv_sec = (long)(all / 1000000);
    span.tv_usec = (long)(all % 1000000);
    return span;
}

static inline int getrusage(int who, struct rusage *usage)
{
    FILETIME made, ended, kernel, user;
    if (!(who == RUSAGE_SELF ? GetProcessTimes(GetCurrentProcess(), &made, &ended, &kernel, &user)
                             : GetThreadTimes(GetCurrentThread(), &made, &ended, &kernel, &user))) return posix_fail(GetLastError());
    usage->ru_utime = posix_span(user);
    usage->ru_stime = posix_span(kernel);
    return 0;
}

typedef unsigned tcflag_t;

struct termios {
    tcflag_t c_iflag, c_oflag, c_cflag, c_lflag;
};

#define epoll_create1(flags)                posix_none("epoll_create1", flags)
#define epoll_ctl(set, what, fd, event)     posix_none("epoll_ctl", set, what, fd, event)
#define epoll_wait(set, events, most, ms)   posix_none("epoll_wait", set, events, most, ms)
#define eventfd(count, flags)               posix_none("eventfd", count, flags)
#define tcgetattr(fd, settings)             posix_none("tcgetattr", fd, settings)
#define tcsetattr(fd, when, settings)       posix_none("tcsetattr", fd, when, settings)
#define getppid()                           posix_none("getppid")
#define wait(status)                        posix_none("wait", status)
#define umask(mode)                         posix_umask(mode)
#define cfmakeraw(settings)                 ((void)(settings))

#define alarm(seconds)         posix_none("alarm", seconds)
#define dup2(fd, at)           posix_none("dup2", fd, at)
#define fork()                 posix_none("fork")
#define posix_openpt(flags)    posix_none("posix_openpt", flags)
#define grantpt(fd)            posix_none("grantpt", fd)
#define unlockpt(fd)           posix_none("unlockpt", fd)
#define ptsname_r(fd, to, n)   posix_none("ptsname_r", fd, to, n)
#define getegid()              posix_none("getegid")
#define getuid()               posix_none("getuid")
#define getrlimit(what, limit) posix_none("getrlimit", what, limit)
#define kill(pid, number)      posix_none("kill", pid, number)
#define mkfifo(path, mode)     posix_none("mkfifo", path, mode)
#define readlink(path, to, n)  posix_none("readlink", path, to, n)
#define recvmsg(fd, m, flags)  posix_none("recvmsg", fd, m, flags)
#define sendmsg(fd, m, flags)  posix_none("sendmsg", fd, m, flags)
#define setrlimit(what, limit) posix_none("setrlimit", what, limit)
#define sigaction(n, now, was) posix_none("sigaction", n, now, was)
#define symlink(to, path)      posix_none("symlink", to, path)
#define waitpid(pid, to, how)  posix_none("waitpid", pid, to, how)

/* ---- a pulse ------------------------------------------------------------------------------------------------------------ */

static int posix_beat[2]; /* two connected sockets */

/* Returns when the system has noticed all that was sent over local sockets before: it notices one after the other, and this sends a byte
 * to itself, asked for beforehand, as a loop asks. */
static inline void posix_pulse(void)
{
    static char       byte;
    static OVERLAPPED heard;
    WSABUF            one = { 1, &byte };
    DWORD             flags = 0, got;
    if (!heard.hEvent) heard.hEvent = CreateEventA(NULL, TRUE, FALSE, NULL);
    WSARecv(posix_socket(posix_beat[0]), &one, 1, NULL, &flags, &heard, NULL);
    posix_send(posix_beat[1], "x", 1, 0);
    GetOverlappedResult(posix_handle(posix_beat[0]), &heard, &got, TRUE);
}

/* Text is bytes here as on every other system, and Winsock is ready. What the system opens for itself at the first socket and thread is
 * there when a test counts handles. */
static inline void *posix_nothing(void *nothing) { return nothing; }

__attribute__((constructor(101))) static void posix_start(void)
{
    pthread_t thread;
    WSADATA data;
    WSAStartup(MAKEWORD(2, 2), &data);
    if (posix_pipe(posix_beat) == 0) {
        struct posix_pollfd each = { posix_beat[0], POLLIN, 0 };
        SetHandleInformation(posix_handle(posix_beat[1]), HANDLE_FLAG_INHERIT, 0);
        posix_poll(&each, 1, 0);
        posix_pulse();
    }
    if (pthread_create(&thread, NULL, posix_nothing, NULL) == 0) pthread_join(thread, NULL);
    _fmode = _O_BINARY;
    _setmode(0, _O_BINARY);
    _setmode(1, _O_BINARY);
}

#endif
