/*
 * fault.h - system calls that fail on demand. Each call of the library's platform section goes through a wrapper here, which makes
 * call number N of function F fail, come up short, or do its work. A test program that is linked with the implementation (impl.c,
 * CHARDEV_LINKED) includes this for the plan alone. One that holds the implementation includes it before chardev.h.
 */
#ifndef CHARDEV_FAULT_H
#define CHARDEV_FAULT_H

#if defined(_WIN32) && defined(CHARDEV_LINKED)
#include "windows/posix.h"
#endif
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#ifndef _WIN32
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#endif

#define FAULT_CALLS(X)                                                                                        \
    X(accept) X(access) X(bind) X(chmod) X(clock_gettime) X(close) X(connect) X(dup2) X(epoll_create1)        \
    X(epoll_ctl) X(epoll_wait) X(fcntl) X(fork) X(fstat) X(getaddrinfo) X(getcwd) X(getpeername)              \
    X(getsockname) X(getsockopt) X(inotify_add_watch) X(inotify_init1) X(inotify_rm_watch) X(ioctl)           \
    X(isatty) X(lchown) X(listen) X(lstat) X(madvise) X(mmap) X(munmap) X(open) X(pipe) X(poll) X(pread)      \
    X(preadv2) X(pwritev2) X(read) X(readlink) X(recv) X(recvmsg) X(rename) X(send) X(sendmsg) X(setsockopt)  \
    X(shutdown) X(socket) X(stat) X(symlink) X(tcflush) X(tcgetattr) X(tcsetattr) X(timerfd_create)           \
    X(timerfd_settime) X(unlink) X(utimensat) X(write)

typedef enum fault_call {
#define FAULT_ENUM(name) FAULT_##name,
    FAULT_CALLS(FAULT_ENUM)
#undef FAULT_ENUM
    FAULT_COUNT
} fault_call;

static const char *const fault_names[] = {
#define FAULT_NAME(name) #name,
    FAULT_CALLS(FAULT_NAME)
#undef FAULT_NAME
};

enum { FAULT_SHORT = -1 }; /* in place of an errno: one byte only */

#ifdef CHARDEV_LINKED
extern
#endif
struct fault_plan {
    fault_call call;
    int        error;    /* an errno or FAULT_SHORT; 0 = no fault is armed */
    long       at;       /* the number of the call that fails, from 1 */
    int        for_good; /* and all after it */
    int        deny;     /* nothing outside is touched: all but waiting and closing fails (EPERM) */
    int        haste;    /* real time goes so many times as fast; 0 = as it does */
    const char *flood;   /* what each read from a socket gives instead of what is there, again and again; NULL = none */
    size_t     flood_size, flood_at;
    size_t     flooded;  /* how much of it was read */
    long       fired;
    long       counts[FAULT_COUNT];
} fault_plan;

static inline void fault_arm(fault_call call, int error, long at, int for_good)
{
#if defined(_WIN32) && defined(CHARDEV_LINKED)
    posix_missing("there are no faults of system calls on this system");
#endif
    memset(&fault_plan, 0, sizeof fault_plan);
    fault_plan.call = call;
    fault_plan.error = error;
    fault_plan.at = at;
    fault_plan.for_good = for_good;
}

/* From here on a context can be asked for anything, and the world stays as it is. */
static inline void fault_deny(int on)
{
    memset(&fault_plan, 0, sizeof fault_plan);
    fault_plan.deny = on;
    fault_plan.error = EPERM;
}

static inline void fault_disarm(void)
{
    fault_plan.error = 0;
}

#if !defined(CHARDEV_LINKED) && !defined(_WIN32)

/* ---- the wrappers ------------------------------------------------------------------------------------------------------- */

#define CHR_SYS(name) fault_##name

/* Whether this call is the one (or one of those). */
static inline int fault_due(fault_call call)
{
    long n = ++fault_plan.counts[call];
    if (fault_plan.deny) return call != FAULT_close && call != FAULT_poll && call != FAULT_clock_gettime && call != FAULT_epoll_wait;
    if (!fault_plan.error || call != fault_plan.call) return 0;
    if (n != fault_plan.at && !(fault_plan.for_good && n > fault_plan.at)) return 0;
    fault_plan.fired++;
    return 1;
}

/* The same for calls that can't be short: sets errno. */
static inline int fault_fails(fault_call call)
{
    if (!fault_due(call) || fault_plan.error == FAULT_SHORT) return 0;
    errno = fault_plan.error;
    return 1;
}

/* How many bytes a call may move: all, one, or (-1) none because it fails. */
static inline ssize_t fault_length(fault_call call, size_t len)
{
    if (!fault_due(call)) return (ssize_t)len;
    if (fault_plan.error == FAULT_SHORT) return len > 1 ? 1 : (ssize_t)len;
    errno = fault_plan.error;
    return -1;
}

#define FAULT_PLAIN(type, name, parameters, arguments)          \
    static inline type fault_##name parameters                  \
    {                                                           \
        return fault_fails(FAULT_##name) ? -1 : name arguments; \
    }

FAULT_PLAIN(int, access, (const char *path, int mode), (path, mode))
FAULT_PLAIN(int, accept, (int fd, struct sockaddr *address, socklen_t *length), (fd, address, length))
FAULT_PLAIN(int, bind, (int fd, const struct sockaddr *address, socklen_t length), (fd, address, length))
FAULT_PLAIN(int, chmod, (const char *path, mode_t mode), (path, mode))
FAULT_PLAIN(int, dup2, (int fd, int to), (fd, to))
FAULT_PLAIN(int, epoll_create1, (int flags), (flags))
FAULT_PLAIN(int, epoll_ctl, (int set, int operation, int fd, struct epoll_event *event), (set, operation, fd, event))
FAULT_PLAIN(int, madvise, (void *at, size_t size, int advice), (at, size, advice))
FAULT_PLAIN(int, munmap, (void *at, size_t size), (at, size))
FAULT_PLAIN(int, timerfd_create, (int clock, int flags), (clock, flags))
FAULT_PLAIN(int, timerfd_settime, (int fd, int flags, const struct itimerspec *time, struct itimerspec *before),
            (fd, flags, time, before))
FAULT_PLAIN(pid_t, fork, (void), ())
FAULT_PLAIN(int, fstat, (int fd, struct stat *info), (fd, info))
FAULT_PLAIN(int, getpeername, (int fd, struct sockaddr *address, socklen_t *length), (fd, address, length))
FAULT_PLAIN(int, getsockname, (int fd, struct sockaddr *address, socklen_t *length), (fd, address, length))
FAULT_PLAIN(int, getsockopt, (int fd, int level, int name, void *value, socklen_t *length), (fd, level, name, value, length))
FAULT_PLAIN(int, isatty, (int fd), (fd))
FAULT_PLAIN(int, inotify_add_watch, (int fd, const char *path, uint32_t events), (fd, path, events))
FAULT_PLAIN(int, inotify_init1, (int flags), (flags))
FAULT_PLAIN(int, inotify_rm_watch, (int fd, int watch), (fd, watch))
FAULT_PLAIN(ssize_t, readlink, (const char *path, char *buf, size_t size), (path, buf, size))
FAULT_PLAIN(int, rename, (const char *from, const char *to), (from, to))
FAULT_PLAIN(int, utimensat, (int at, const char *path, const struct timespec *times, int flags), (at, path, times, flags))
FAULT_PLAIN(int, lchown, (const char *path, uid_t user, gid_t group), (path, user, group))
FAULT_PLAIN(int, lstat, (const char *path, struct stat *info), (path, info))
FAULT_PLAIN(int, listen, (int fd, int backlog), (fd, backlog))
FAULT_PLAIN(int, pipe, (int *fds), (fds))
FAULT_PLAIN(int, setsockopt, (int fd, int level, int name, const void *value, socklen_t length), (fd, level, name, value, length))
FAULT_PLAIN(int, shutdown, (int fd, int how), (fd, how))
FAULT_PLAIN(int, socket, (int domain, int type, int protocol), (domain, type, protocol))
FAULT_PLAIN(int, stat, (const char *path, struct stat *info), (path, info))
FAULT_PLAIN(int, symlink, (const char *target, const char *path), (target, path))
FAULT_PLAIN(int, tcflush, (int fd, int queue), (fd, queue))
FAULT_PLAIN(int, tcgetattr, (int fd, struct termios *settings), (fd, settings))
FAULT_PLAIN(int, tcsetattr, (int fd, int when, const struct termios *settings), (fd, when, settings))
FAULT_PLAIN(int, unlink, (const char *path), (path))

static inline char *fault_getcwd(char *path, size_t size)
{
    return fault_fails(FAULT_getcwd) ? NULL : getcwd(path, size);
}

static inline int fault_clock_gettime(clockid_t clock, struct timespec *now)
{
    int64_t hasty;
    if (fault_fails(FAULT_clock_gettime) || clock_gettime(clock, now) < 0) return -1;
    if (fault_plan.haste == 0) return 0;
    hasty = ((int64_t)now->tv_sec * 1000000000 + now->tv_nsec) * fault_plan.haste;
    now->tv_sec = (time_t)(hasty / 1000000000);
    now->tv_nsec = (long)(hasty % 1000000000);
    return 0;
}

static inline int fault_poll(struct pollfd *polls, nfds_t count, int timeout_ms)
{
    if (fault_fails(FAULT_poll)) return -1;
    if (fault_plan.haste && timeout_ms > 0) timeout_ms = timeout_ms / fault_plan.haste + 1;
    return poll(polls, count, timeout_ms);
}

static inline int fault_epoll_wait(int set, struct epoll_event *events, int most, int timeout_ms)
{
    if (fault_fails(FAULT_epoll_wait)) return -1;
    if (fault_plan.haste && timeout_ms > 0) timeout_ms = timeout_ms / fault_plan.haste + 1;
    return epoll_wait(set, events, most, timeout_ms);
}

static inline void *fault_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    return fault_fails(FAULT_mmap) ? MAP_FAILED : mmap(at, size, protection, flags, fd, offset);
}

/* The descriptor is gone also when close() says EINTR or EIO. */
static inline int fault_close(int fd)
{
    int result = close(fd);
    return fault_fails(FAULT_close) ? -1 : result;
}

/* A connect() that is interrupted goes on by itself. */
static inline int fault_connect(int fd, const struct sockaddr *address, socklen_t length)
{
    int failed = fault_fails(FAULT_connect);
    if (failed && fault_plan.error != EINTR) return -1;
    if (connect(fd, address, length) < 0) return -1;
    errno = EINTR;
    return failed ? -1 : 0;
}

static inline int fault_fcntl(int fd, int command, ...)
{
    va_list rest;
    int     value;
    va_start(rest, command);
    value = command == F_GETFL || command == F_GETFD ? 0 : va_arg(rest, int);
    va_end(rest);
    return fault_fails(FAULT_fcntl) ? -1 : fcntl(fd, command, value);
}

static inline int fault_ioctl(int fd, unsigned long request, ...)
{
    va_list rest;
    void   *value;
    va_start(rest, request);
    value = va_arg(rest, void *);
    va_end(rest);
    return fault_fails(FAULT_ioctl) ? -1 : ioctl(fd, request, value);
}

static inline int fault_open(const char *path, int flags, ...)
{
    va_list rest;
    int     mode;
    va_start(rest, flags);
    mode = flags & O_CREAT ? va_arg(rest, int) : 0;
    va_end(rest);
    return fault_fails(FAULT_open) ? -1 : open(path, flags, mode);
}

static inline int fault_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list)
{
    if (!fault_due(FAULT_getaddrinfo)) return getaddrinfo(host, port, hints, list);
    errno = fault_plan.error;
    return fault_plan.error == EAGAIN ? EAI_AGAIN : fault_plan.error == ENOMEM ? EAI_MEMORY : EAI_SYSTEM;
}

static inline void fault_freeaddrinfo(struct addrinfo *list)
{
    freeaddrinfo(list);
}

static inline int fault_floods(int fd)
{
    struct stat info;
    return fault_plan.flood && fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode);
}

static inline ssize_t fault_flood(void *buf, size_t len)
{
    size_t i;
    for (i = 0; i < len; i++) ((char *)buf)[i] = fault_plan.flood[fault_plan.flood_at++ % fault_plan.flood_size];
    fault_plan.flooded += len;
    return (ssize_t)len;
}

static inline ssize_t fault_read(int fd, void *buf, size_t len)
{
    ssize_t most = fault_length(FAULT_read, len);
    if (most >= 0 && fault_floods(fd)) return fault_flood(buf, (size_t)most);
    return most < 0 ? -1 : read(fd, buf, (size_t)most);
}

static inline ssize_t fault_recv(int fd, void *buf, size_t len, int flags)
{
    ssize_t most = fault_length(FAULT_recv, len);
    return most < 0 ? -1 : recv(fd, buf, (size_t)most, flags);
}

static inline ssize_t fault_preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    struct iovec one = parts[0];
    ssize_t      most = fault_length(FAULT_preadv2, one.iov_len);
    if (most < 0 || count != 1) return -1;
    one.iov_len = (size_t)most;
    return preadv2(fd, &one, 1, offset, flags);
}

static inline ssize_t fault_pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    struct iovec one = parts[0];
    ssize_t      most = fault_length(FAULT_pwritev2, one.iov_len);
    if (most < 0 || count != 1) return -1;
    one.iov_len = (size_t)most;
    return pwritev2(fd, &one, 1, offset, flags);
}

static inline ssize_t fault_pread(int fd, void *buf, size_t len, off_t offset)
{
    ssize_t most = fault_length(FAULT_pread, len);
    return most < 0 ? -1 : pread(fd, buf, (size_t)most, offset);
}

static inline ssize_t fault_write(int fd, const void *buf, size_t len)
{
    ssize_t most = fault_length(FAULT_write, len);
    return most < 0 ? -1 : write(fd, buf, (size_t)most);
}

static inline ssize_t fault_send(int fd, const void *buf, size_t len, int flags)
{
    ssize_t most = fault_length(FAULT_send, len);
    return most < 0 ? -1 : send(fd, buf, (size_t)most, flags);
}

static inline ssize_t fault_recvmsg(int fd, struct msghdr *message, int flags)
{
    ssize_t most = fault_length(FAULT_recvmsg, message->msg_iov->iov_len);
    size_t  whole = message->msg_iov->iov_len;
    ssize_t got;
    if (most < 0) return -1;
    if (fault_floods(fd)) {
        message->msg_controllen = 0;
        message->msg_flags = 0;
        return fault_flood(message->msg_iov->iov_base, (size_t)most);
    }
    message->msg_iov->iov_len = (size_t)most;
    got = recvmsg(fd, message, flags);
    message->msg_iov->iov_len = whole;
    return got;
}

static inline ssize_t fault_sendmsg(int fd, const struct msghdr *message, int flags)
{
    ssize_t most = fault_length(FAULT_sendmsg, message->msg_iov->iov_len);
    size_t  whole = message->msg_iov->iov_len;
    ssize_t sent;
    if (most < 0) return -1;
    message->msg_iov->iov_len = (size_t)most;
    sent = sendmsg(fd, message, flags);
    message->msg_iov->iov_len = whole;
    return sent;
}

#endif /* CHARDEV_LINKED, Windows */

#if !defined(CHARDEV_LINKED) && defined(_WIN32)

/* Only time can be had in haste. */

#include <winsock2.h>
#include <windows.h>

static inline BOOL fault_performance_counter(LARGE_INTEGER *now)
{
    BOOL got = QueryPerformanceCounter(now);
    if (fault_plan.haste) now->QuadPart *= fault_plan.haste;
    return got;
}

#define QueryPerformanceCounter(now) fault_performance_counter(now)

#endif

#endif
