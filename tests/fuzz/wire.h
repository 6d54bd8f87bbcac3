/*
 * wire.h - sockets and pipes in memory: what the fuzz targets' far sides are made of. They stand between the library's platform section
 * and the system, behind the faults of fault.h, and behave as the system's (partial writes, EAGAIN, end of file, ECONNRESET, SCM_RIGHTS,
 * datagrams), without a system call. So does one file, WIRE_PATH. Their descriptors are numbers from WIRE_FIRST on; all others go to the system as ever.
 * While wires_on is set, the library's own socket() and pipe() give such ones too. A wait never sleeps: it moves wires.now on.
 */
#ifndef CHARDEV_FUZZ_WIRE_H
#define CHARDEV_FUZZ_WIRE_H

#include "fault.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/un.h>
#include <netinet/in.h>

/* What the targets do themselves is no coverage to look for, and counting it takes time. */
#if defined(__clang__) && defined(__has_feature)
#if __has_feature(coverage_sanitizer)
#define FUZZ_UNCOUNTED 1
#endif
#endif
#ifdef FUZZ_UNCOUNTED
#pragma clang attribute push(__attribute__((no_sanitize("coverage"))), apply_to = function)
#endif

enum { WIRE_FIRST = 1 << 16, WIRE_MOST = 96, WIRE_ROOM = 1 << 16, WIRE_PARCELS = 64, WIRE_BESIDE = 16 };

typedef enum wire_kind { WIRE_NONE, WIRE_STREAM, WIRE_DATAGRAM, WIRE_LISTENER, WIRE_PIPE, WIRE_TOKEN, WIRE_FILE } wire_kind;

/* What keeps its borders in the stream: a datagram, or bytes with descriptors beside them. */
typedef struct wire_parcel {
    size_t size;               /* of a datagram */
    size_t at;                 /* where in the stream the descriptors stand */
    int    ends[WIRE_BESIDE], count;
} wire_parcel;

/* One end; what has come to it, as a ring. */
typedef struct wire_end {
    wire_kind     kind;
    int           family, flags, holders;      /* holders: descriptors, here and on their way */
    int           peer;                        /* the other end, -1 = it is closed */
    int           is_over;                     /* no more comes */
    int           is_shut;                     /* no more may go */
    int           error;                       /* ECONNRESET, once */
    int           waiting[8], waiting_count;   /* of a listener */
    size_t        room;                        /* how much it takes before its writer has to wait */
    size_t        first, length, taken;
    wire_parcel   parcels[WIRE_PARCELS];
    unsigned      parcel, parcel_count;
    unsigned char bytes[WIRE_ROOM];
} wire_end;

typedef struct wire_net {
    int      on;             /* socket() and pipe() are wires */
    int      connect_error;  /* what connect() fails with; 0 = it works */
    int      far;            /* descriptor of the other end of the last connect() */
    int      has_backlog_of_one; /* connect() is refused until the target has taken that, and set it to -1 */
    int64_t  now;            /* nanoseconds */
    int      ends_of[WIRE_MOST]; /* by descriptor: the end, +1; 0 = not open */
    int      is_kept[WIRE_MOST]; /* by descriptor: a reset leaves it open */
    wire_end ends[WIRE_MOST];
    size_t        file_length; /* of the one file that there is, WIRE_PATH */
    unsigned char file[1 << 18];
} wire_net;

#define WIRE_PATH "wire:file"

#ifdef CHARDEV_LINKED
extern
#endif
wire_net wires;

static inline int wire_is(int fd)
{
    return fd >= WIRE_FIRST && fd < WIRE_FIRST + WIRE_MOST && wires.ends_of[fd - WIRE_FIRST];
}

static inline wire_end *wire_at(int fd)
{
    return &wires.ends[wires.ends_of[fd - WIRE_FIRST] - 1];
}

static inline int wire_fd_of(int end)
{
    int i;
    for (i = 0; i < WIRE_MOST; i++)
        if (!wires.ends_of[i]) {
            wires.ends_of[i] = end + 1;
            wires.ends[end].holders++;
            return WIRE_FIRST + i;
        }
    errno = EMFILE;
    return -1;
}

static inline int wire_end_new(wire_kind kind)
{
    int i;
    for (i = 0; i < WIRE_MOST; i++)
        if (wires.ends[i].kind == WIRE_NONE) {
            memset(&wires.ends[i], 0, offsetof(wire_end, parcels));
            wires.ends[i].parcel = wires.ends[i].parcel_count = 0;
            wires.ends[i].kind = kind;
            wires.ends[i].family = AF_UNIX;
            wires.ends[i].peer = -1;
            wires.ends[i].room = WIRE_ROOM;
            return i;
        }
    fprintf(stderr, "wire.h: there are too few ends\n");
    abort();
}

static inline void wire_join(int a, int b)
{
    wires.ends[a].peer = b;
    wires.ends[b].peer = a;
}

/* Two ends that are connected. */
static inline int wire_pair(wire_kind kind, int fds[2])
{
    int a = wire_end_new(kind), b;
    fds[0] = wire_fd_of(a);
    b = wire_end_new(kind);
    fds[1] = wire_fd_of(b);
    wire_join(a, b);
    return fds[0] < 0 || fds[1] < 0 ? -1 : 0;
}

/* A descriptor that stands for any: what is passed beside bytes. */
static inline int wire_token(void)
{
    return wire_fd_of(wire_end_new(WIRE_TOKEN));
}

static inline int wire_open_count(void)
{
    int i, count = 0;
    for (i = 0; i < WIRE_MOST; i++) count += wires.ends_of[i] && !wires.is_kept[i];
    return count;
}

static inline void wire_let_go(int end);

static inline void wire_drop_parcels(wire_end *end)
{
    int i;
    for (; end->parcel_count > 0; end->parcel++, end->parcel_count--) {
        wire_parcel *parcel = &end->parcels[end->parcel % WIRE_PARCELS];
        for (i = 0; i < parcel->count; i++) wire_let_go(parcel->ends[i]);
    }
}

/* One holder less; without any the end is closed. */
static inline void wire_let_go(int number)
{
    wire_end *end = &wires.ends[number];
    int       i;
    if (--end->holders > 0) return;
    for (i = 0; i < end->waiting_count; i++) {
        wires.ends[end->waiting[i]].holders++;
        wire_let_go(end->waiting[i]);
    }
    if (end->peer >= 0) {
        wire_end *peer = &wires.ends[end->peer];
        peer->peer = -1;
        peer->is_over = end->kind != WIRE_DATAGRAM;
        if (end->length > 0 && end->kind == WIRE_STREAM) peer->error = ECONNRESET;
    }
    end->kind = WIRE_NONE;
    wire_drop_parcels(end);
}

static inline int wire_shut(int fd)
{
    int end = wires.ends_of[fd - WIRE_FIRST] - 1;
    wires.ends_of[fd - WIRE_FIRST] = wires.is_kept[fd - WIRE_FIRST] = 0;
    wire_let_go(end);
    return 0;
}

/* What is open now stays so: it belongs to a context that outlives the input. */
static inline void wire_keep(void)
{
    int i;
    for (i = 0; i < WIRE_MOST; i++) wires.is_kept[i] = wires.ends_of[i] != 0;
}

/* As if nothing had ever been. */
static inline void wire_reset(void)
{
    int i;
    for (i = 0; i < WIRE_MOST; i++)
        if (wires.ends_of[i] && !wires.is_kept[i]) wire_shut(WIRE_FIRST + i);
    wires.connect_error = wires.has_backlog_of_one = 0;
    wires.far = -1;
    wires.now = 1000000000;
    wires.on = 1;
}

/* ---- bytes --------------------------------------------------------------------------------------------------------------- */

static inline ssize_t wire_fail(int error)
{
    errno = error;
    return -1;
}

static inline void wire_copy_in(wire_end *to, const unsigned char *bytes, size_t len)
{
    size_t at = (to->first + to->length) % WIRE_ROOM, some = len < WIRE_ROOM - at ? len : WIRE_ROOM - at;
    memcpy(to->bytes + at, bytes, some);
    memcpy(to->bytes, bytes + some, len - some);
    to->length += len;
}

static inline void wire_copy_out(wire_end *from, unsigned char *bytes, size_t len)
{
    size_t some = len < WIRE_ROOM - from->first ? len : WIRE_ROOM - from->first;
    memcpy(bytes, from->bytes + from->first, some);
    memcpy(bytes + some, from->bytes, len - some);
    from->first = (from->first + len) % WIRE_ROOM;
    from->length -= len;
    from->taken += len;
}

static inline wire_parcel *wire_parcel_new(wire_end *to)
{
    wire_parcel *parcel = &to->parcels[(to->parcel + to->parcel_count) % WIRE_PARCELS];
    if (to->parcel_count == WIRE_PARCELS) return NULL;
    to->parcel_count++;
    parcel->count = 0;
    parcel->at = to->taken + to->length;
    return parcel;
}

/* Bytes, and descriptors beside the first. */
static inline ssize_t wire_put(int fd, const void *bytes, size_t len, const int *fds, int count)
{
    wire_end    *from = wire_at(fd), *to = from->peer >= 0 ? &wires.ends[from->peer] : NULL;
    wire_parcel *parcel;
    size_t       room;
    int          i, is_datagram = from->kind == WIRE_DATAGRAM;
    if (from->kind == WIRE_TOKEN) return (ssize_t)len;
    if (from->kind == WIRE_FILE) {
        if (len > sizeof wires.file - wires.file_length) return wire_fail(ENOSPC);
        memcpy(wires.file + wires.file_length, bytes, len);
        wires.file_length += len;
        return (ssize_t)len;
    }
    if (is_datagram && !to) return wire_fail(ECONNREFUSED);
    if (!to || from->is_shut) return wire_fail(EPIPE);
    room = to->room > to->length ? to->room - to->length : 0;
    if (is_datagram && len > to->room) return wire_fail(EMSGSIZE);
    if (!is_datagram && len == 0) return 0;
    if ((room == 0 && len > 0) || (is_datagram && (room < len || to->parcel_count == WIRE_PARCELS))) return wire_fail(EAGAIN);
    if (len > room) len = room;
    if (is_datagram || count > 0) {
        parcel = wire_parcel_new(to);
        if (!parcel) return wire_fail(EAGAIN);
        parcel->size = len;
        for (i = 0; i < count && i < WIRE_BESIDE; i++)
            if (wire_is(fds[i])) {
                parcel->ends[parcel->count] = wires.ends_of[fds[i] - WIRE_FIRST] - 1;
                wires.ends[parcel->ends[parcel->count++]].holders++;
            }
    }
    wire_copy_in(to, (const unsigned char *)bytes, len);
    return (ssize_t)len;
}

/* How much may be read at once: up to the next descriptors. */
static inline size_t wire_border(const wire_end *end, size_t len)
{
    const wire_parcel *next = &end->parcels[end->parcel % WIRE_PARCELS];
    if (len > end->length) len = end->length;
    if (end->parcel_count > 0 && next->at == end->taken) next = end->parcel_count > 1 ? &end->parcels[(end->parcel + 1) % WIRE_PARCELS] : NULL;
    else if (end->parcel_count == 0) next = NULL;
    return next && len > next->at - end->taken ? next->at - end->taken : len;
}

/* The descriptors at this place become ours; returns how many. */
static inline int wire_unpack(wire_end *end, int *fds, int most)
{
    wire_parcel *parcel = &end->parcels[end->parcel % WIRE_PARCELS];
    int          i, count = 0;
    if (end->parcel_count == 0 || parcel->at != end->taken) return 0;
    for (i = 0; i < parcel->count; i++) {
        if (count < most) fds[count++] = wire_fd_of(parcel->ends[i]);
        wire_let_go(parcel->ends[i]);
    }
    end->parcel++;
    end->parcel_count--;
    return count;
}

static inline ssize_t wire_get(int fd, void *bytes, size_t len, int *fds, int *count)
{
    wire_end *end = wire_at(fd);
    int       most = count ? *count : 0, error = end->error;
    if (count) *count = 0;
    if (end->kind == WIRE_TOKEN) return 0;
    if (end->kind == WIRE_DATAGRAM && end->parcel_count > 0) {
        size_t size = end->parcels[end->parcel++ % WIRE_PARCELS].size, some = len < size ? len : size;
        wire_copy_out(end, (unsigned char *)bytes, some);
        end->first = (end->first + size - some) % WIRE_ROOM;
        end->length -= size - some;
        end->parcel_count--;
        return (ssize_t)some;
    }
    if (end->length > 0 && len > 0) {
        len = wire_border(end, len);
        if (count) *count = wire_unpack(end, fds, most);
        else wire_unpack(end, NULL, 0);
        wire_copy_out(end, (unsigned char *)bytes, len);
        return (ssize_t)len;
    }
    end->error = 0;
    if (error) return wire_fail(error);
    if (end->kind == WIRE_STREAM && end->peer < 0 && !end->is_over) return wire_fail(ENOTCONN);
    return end->is_over ? 0 : wire_fail(EAGAIN);
}

/* ---- what a test does with its end ----------------------------------------------------------------------------------------- */

static inline ssize_t wire_say(int fd, const void *bytes, size_t len)
{
    return wire_put(fd, bytes, len, NULL, 0);
}

static inline ssize_t wire_hear(int fd, void *bytes, size_t len)
{
    return wire_get(fd, bytes, len, NULL, NULL);
}

/* No more is said; what the other side says can still be heard. */
static inline void wire_say_no_more(int fd)
{
    wire_end *end = wire_at(fd);
    if (end->kind == WIRE_DATAGRAM) return; /* nobody is told */
    end->is_shut = 1;
    if (end->peer >= 0) wires.ends[end->peer].is_over = 1;
}

/* How many bytes may stand in each direction before the library's writes are short. */
static inline void wire_set_room(int fd, size_t room)
{
    wire_at(fd)->room = room < WIRE_ROOM ? room : WIRE_ROOM;
}

/* Connects to the first listener; -1 = there is none, or its backlog is full. */
static inline int wire_call(void)
{
    int       i, a, b;
    wire_end *listener = NULL;
    for (i = 0; i < WIRE_MOST && !listener; i++)
        if (wires.ends[i].kind == WIRE_LISTENER) listener = &wires.ends[i];
    if (!listener || listener->waiting_count == (int)(sizeof listener->waiting / sizeof listener->waiting[0])) return -1;
    a = wire_end_new(WIRE_STREAM);
    wires.ends[a].family = listener->family;
    i = wire_fd_of(a);
    b = wire_end_new(WIRE_STREAM);
    wires.ends[b].family = listener->family;
    wire_join(a, b);
    listener->waiting[listener->waiting_count++] = b;
    return i;
}

/* ---- system calls ------------------------------------------------------------------------------------------------------------ */

#ifndef CHARDEV_LINKED

#undef CHR_SYS
#define CHR_SYS(name) wire_##name

/* What never meets a wire. */
#define wire_access            fault_access
#define wire_chmod             fault_chmod
#define wire_clock_gettime     fault_clock_gettime
#define wire_dup2              fault_dup2
#define wire_epoll_create1     fault_epoll_create1
#define wire_epoll_ctl         fault_epoll_ctl
#define wire_epoll_wait        fault_epoll_wait
#define wire_fork              fault_fork
#define wire_freeaddrinfo      fault_freeaddrinfo
#define wire_getaddrinfo       fault_getaddrinfo
#define wire_getcwd            fault_getcwd
#define wire_inotify_add_watch fault_inotify_add_watch
#define wire_inotify_init1     fault_inotify_init1
#define wire_inotify_rm_watch  fault_inotify_rm_watch
#define wire_lchown            fault_lchown
#define wire_lstat             fault_lstat
#define wire_madvise           fault_madvise
#define wire_mmap              fault_mmap
#define wire_munmap            fault_munmap
#define wire_preadv2           fault_preadv2
#define wire_pwritev2          fault_pwritev2
#define wire_readlink          fault_readlink
#define wire_rename            fault_rename
#define wire_stat              fault_stat
#define wire_symlink           fault_symlink
#define wire_tcflush           fault_tcflush
#define wire_tcgetattr         fault_tcgetattr
#define wire_tcsetattr         fault_tcsetattr
#define wire_timerfd_create    fault_timerfd_create
#define wire_timerfd_settime   fault_timerfd_settime
#define wire_unlink            fault_unlink
#define wire_utimensat         fault_utimensat

static inline int wire_open(const char *path, int flags, ...)
{
    va_list rest;
    int     mode;
    va_start(rest, flags);
    mode = flags & O_CREAT ? va_arg(rest, int) : 0;
    va_end(rest);
    if (strcmp(path, WIRE_PATH) != 0) return fault_open(path, flags, mode);
    if (fault_fails(FAULT_open)) return -1;
    if (flags & O_TRUNC) wires.file_length = 0;
    return wire_fd_of(wire_end_new(WIRE_FILE));
}

static inline ssize_t wire_pread(int fd, void *buf, size_t len, off_t offset)
{
    size_t at = (size_t)offset;
    if (!wire_is(fd)) return fault_pread(fd, buf, len, offset);
    if (at >= wires.file_length) return 0;
    if (len > wires.file_length - at) len = wires.file_length - at;
    memcpy(buf, wires.file + at, len);
    return (ssize_t)len;
}

static inline int wire_accept(int fd, struct sockaddr *address, socklen_t *length)
{
    wire_end *end;
    if (!wire_is(fd)) return fault_accept(fd, address, length);
    if (fault_fails(FAULT_accept)) return -1;
    end = wire_at(fd);
    if (end->kind != WIRE_LISTENER) return (int)wire_fail(EINVAL);
    if (end->waiting_count == 0) return (int)wire_fail(EAGAIN);
    fd = end->waiting[0];
    memmove(end->waiting, end->waiting + 1, sizeof(int) * (size_t)--end->waiting_count);
    return wire_fd_of(fd);
}

static inline int wire_bind(int fd, const struct sockaddr *address, socklen_t length)
{
    if (!wire_is(fd)) return fault_bind(fd, address, length);
    return fault_fails(FAULT_bind) ? -1 : 0;
}

static inline int wire_listen(int fd, int backlog)
{
    if (!wire_is(fd)) return fault_listen(fd, backlog);
    if (fault_fails(FAULT_listen)) return -1;
    wire_at(fd)->kind = WIRE_LISTENER;
    return 0;
}

/* Whoever is called is there, unless the test says otherwise. */
static inline int wire_connect(int fd, const struct sockaddr *address, socklen_t length)
{
    int far;
    if (!wire_is(fd)) return fault_connect(fd, address, length);
    if (fault_fails(FAULT_connect)) return -1;
    if (wires.connect_error) return (int)wire_fail(wires.connect_error);
    if (wires.has_backlog_of_one && wires.far >= 0) return (int)wire_fail(ECONNREFUSED);
    far = wire_end_new(wire_at(fd)->kind);
    wires.ends[far].family = wire_at(fd)->family;
    wire_join(wires.ends_of[fd - WIRE_FIRST] - 1, far);
    wires.far = wire_fd_of(far);
    return 0;
}

static inline int wire_socket(int domain, int type, int protocol)
{
    int end;
    if (!wires.on) return fault_socket(domain, type, protocol);
    if (fault_fails(FAULT_socket)) return -1;
    end = wire_end_new(type == SOCK_DGRAM ? WIRE_DATAGRAM : WIRE_STREAM);
    wires.ends[end].family = domain;
    return wire_fd_of(end);
}

static inline int wire_pipe(int *fds)
{
    if (!wires.on) return fault_pipe(fds);
    if (fault_fails(FAULT_pipe) || wire_pair(WIRE_PIPE, fds) < 0) return -1;
    wire_at(fds[1])->is_over = 1;
    return 0;
}

static inline int wire_close(int fd)
{
    return wire_is(fd) ? wire_shut(fd) : fault_close(fd);
}

static inline int wire_fcntl(int fd, int command, ...)
{
    va_list rest;
    int     value;
    va_start(rest, command);
    value = command == F_GETFL || command == F_GETFD ? 0 : va_arg(rest, int);
    va_end(rest);
    if (!wire_is(fd)) return fault_fcntl(fd, command, value);
    if (fault_fails(FAULT_fcntl)) return -1;
    if (command == F_GETFL) return wire_at(fd)->flags | O_RDWR;
    if (command == F_SETFL) wire_at(fd)->flags = value & ~O_ACCMODE;
    return command == F_DUPFD_CLOEXEC ? wire_fd_of(wires.ends_of[fd - WIRE_FIRST] - 1) : 0;
}

static inline int wire_fstat(int fd, struct stat *info)
{
    wire_kind kind;
    if (!wire_is(fd)) return fault_fstat(fd, info);
    if (fault_fails(FAULT_fstat)) return -1;
    memset(info, 0, sizeof *info);
    kind = wire_at(fd)->kind;
    info->st_ino = (ino_t)wires.ends_of[fd - WIRE_FIRST];
    info->st_mode = kind == WIRE_PIPE ? S_IFIFO : kind == WIRE_TOKEN || kind == WIRE_FILE ? S_IFCHR : S_IFSOCK;
    return 0;
}

static inline int wire_getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
    wire_kind kind;
    int       answer = 0;
    if (!wire_is(fd)) return fault_getsockopt(fd, level, name, value, length);
    if (fault_fails(FAULT_getsockopt)) return -1;
    kind = wire_at(fd)->kind;
    if (kind == WIRE_PIPE || kind == WIRE_TOKEN || kind == WIRE_FILE) return (int)wire_fail(ENOTSOCK);
    if (level == SOL_SOCKET && name == SO_TYPE) answer = kind == WIRE_DATAGRAM ? SOCK_DGRAM : SOCK_STREAM;
    if (level == SOL_SOCKET && name == SO_ACCEPTCONN) answer = kind == WIRE_LISTENER;
    if (level == SOL_SOCKET && name == SO_ERROR) answer = wire_at(fd)->error, wire_at(fd)->error = 0;
    memcpy(value, &answer, *length < sizeof answer ? *length : sizeof answer);
    return 0;
}

static inline int wire_setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
    if (!wire_is(fd)) return fault_setsockopt(fd, level, name, value, length);
    return fault_fails(FAULT_setsockopt) ? -1 : 0;
}

static inline int wire_name(int fd, struct sockaddr *address, socklen_t *length)
{
    struct sockaddr_in loopback;
    size_t             size = sizeof loopback;
    memset(&loopback, 0, sizeof loopback);
    loopback.sin_family = (sa_family_t)wire_at(fd)->family;
    if (loopback.sin_family == AF_UNIX) size = sizeof loopback.sin_family;
    loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    loopback.sin_port = htons(1000);
    memcpy(address, &loopback, *length < size ? *length : size);
    *length = (socklen_t)size;
    return 0;
}

static inline int wire_getpeername(int fd, struct sockaddr *address, socklen_t *length)
{
    if (!wire_is(fd)) return fault_getpeername(fd, address, length);
    if (fault_fails(FAULT_getpeername)) return -1;
    return wire_at(fd)->peer < 0 && !wire_at(fd)->is_over ? (int)wire_fail(ENOTCONN) : wire_name(fd, address, length);
}

static inline int wire_getsockname(int fd, struct sockaddr *address, socklen_t *length)
{
    if (!wire_is(fd)) return fault_getsockname(fd, address, length);
    return fault_fails(FAULT_getsockname) ? -1 : wire_name(fd, address, length);
}

static inline int wire_ioctl(int fd, unsigned long request, ...)
{
    va_list rest;
    void   *value;
    va_start(rest, request);
    value = va_arg(rest, void *);
    va_end(rest);
    if (!wire_is(fd)) return fault_ioctl(fd, request, value);
    if (fault_fails(FAULT_ioctl)) return -1;
    if (request == FIONREAD) return *(int *)value = (int)wire_at(fd)->length, 0;
    if (request == TIOCOUTQ) return *(int *)value = wire_at(fd)->peer < 0 ? 0 : (int)wires.ends[wire_at(fd)->peer].length, 0;
    return (int)wire_fail(ENOTTY);
}

static inline int wire_isatty(int fd)
{
    return wire_is(fd) ? 0 : fault_isatty(fd);
}

static inline int wire_shutdown(int fd, int how)
{
    if (!wire_is(fd)) return fault_shutdown(fd, how);
    if (fault_fails(FAULT_shutdown)) return -1;
    if (how != SHUT_RD) wire_say_no_more(fd);
    if (how != SHUT_WR) wire_at(fd)->is_over = 1;
    return 0;
}

static inline short wire_ready(int fd)
{
    const wire_end *end = wire_at(fd), *peer = end->peer >= 0 ? &wires.ends[end->peer] : NULL;
    short           ready = 0;
    if (end->kind == WIRE_LISTENER) return (short)(end->waiting_count > 0 ? POLLIN : 0);
    if (end->kind == WIRE_TOKEN || end->kind == WIRE_FILE) return POLLIN | POLLOUT;
    if (end->length > 0 || end->is_over || end->parcel_count > 0) ready = (short)(ready | POLLIN);
    if (end->is_over) ready = (short)(ready | POLLRDHUP);
    if (!peer || end->is_shut || peer->length < peer->room) ready = (short)(ready | POLLOUT);
    if ((!peer && end->kind != WIRE_DATAGRAM) || (end->is_over && end->is_shut)) ready = (short)(ready | POLLHUP);
    if (end->error) ready = (short)(ready | POLLERR);
    return ready;
}

/* Other descriptors are asked once, without a wait. */
static inline int wire_poll(struct pollfd *polls, nfds_t count, int timeout_ms)
{
    nfds_t i, here = 0;
    int    ready = 0;
    for (i = 0; i < count; i++) here += wire_is(polls[i].fd) ? 1u : 0u;
    if (!wires.on && here == 0) return fault_poll(polls, count, timeout_ms);
    if (fault_fails(FAULT_poll)) return -1;
    for (i = 0; i < count; i++) {
        polls[i].revents = 0;
        if (wire_is(polls[i].fd)) polls[i].revents = (short)(wire_ready(polls[i].fd) & (polls[i].events | POLLHUP | POLLERR));
        else if (polls[i].fd >= 0) poll(&polls[i], 1, 0);
        ready += polls[i].revents != 0;
    }
    if (ready == 0 && timeout_ms > 0) wires.now += (int64_t)timeout_ms * 1000000;
    return ready;
}

static inline ssize_t wire_read(int fd, void *buf, size_t len)
{
    ssize_t most;
    if (!wire_is(fd)) return fault_read(fd, buf, len);
    most = fault_length(FAULT_read, len);
    return most < 0 ? -1 : wire_get(fd, buf, (size_t)most, NULL, NULL);
}

static inline ssize_t wire_write(int fd, const void *buf, size_t len)
{
    ssize_t most;
    if (!wire_is(fd)) return fault_write(fd, buf, len);
    most = fault_length(FAULT_write, len);
    return most < 0 ? -1 : wire_put(fd, buf, (size_t)most, NULL, 0);
}

static inline ssize_t wire_recv(int fd, void *buf, size_t len, int flags)
{
    ssize_t most;
    if (!wire_is(fd)) return fault_recv(fd, buf, len, flags);
    most = fault_length(FAULT_recv, len);
    return most < 0 ? -1 : wire_get(fd, buf, (size_t)most, NULL, NULL);
}

static inline ssize_t wire_send(int fd, const void *buf, size_t len, int flags)
{
    ssize_t most;
    if (!wire_is(fd)) return fault_send(fd, buf, len, flags);
    most = fault_length(FAULT_send, len);
    return most < 0 ? -1 : wire_put(fd, buf, (size_t)most, NULL, 0);
}

/* One part of bytes, and descriptors beside them. */
static inline ssize_t wire_receive_beside(int fd, struct msghdr *message)
{
    int             fds[WIRE_BESIDE], count = 0;
    size_t          most = message->msg_control ? message->msg_controllen : 0;
    struct cmsghdr *header = most >= CMSG_LEN(sizeof(int)) ? (struct cmsghdr *)message->msg_control : NULL;
    ssize_t         n;
    for (; header && count < WIRE_BESIDE && CMSG_LEN(sizeof(int) * ((size_t)count + 1)) <= most; count++) {}
    n = wire_get(fd, message->msg_iov->iov_base, message->msg_iov->iov_len, fds, &count);
    message->msg_flags = 0;
    message->msg_controllen = 0;
    if (n < 0 || count == 0) return n;
    memset(header, 0, sizeof *header);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
    memcpy(CMSG_DATA(header), fds, sizeof(int) * (size_t)count);
    message->msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
    return n;
}

/* A datagram, into as many parts as there are. */
static inline ssize_t wire_receive_parts(int fd, struct msghdr *message)
{
    static unsigned char whole[WIRE_ROOM];
    size_t               i, at = 0, some;
    ssize_t              n = wire_get(fd, whole, sizeof whole, NULL, NULL);
    for (i = 0; n > 0 && i < message->msg_iovlen && at < (size_t)n; i++, at += some) {
        some = message->msg_iov[i].iov_len < (size_t)n - at ? message->msg_iov[i].iov_len : (size_t)n - at;
        memcpy(message->msg_iov[i].iov_base, whole + at, some);
    }
    message->msg_flags = n > 0 && at < (size_t)n ? MSG_TRUNC : 0;
    message->msg_controllen = 0;
    return n > 0 ? (ssize_t)at : n;
}

static inline ssize_t wire_recvmsg(int fd, struct msghdr *message, int flags)
{
    size_t  whole = message->msg_iov->iov_len;
    ssize_t most, n;
    if (!wire_is(fd)) return fault_recvmsg(fd, message, flags);
    most = fault_length(FAULT_recvmsg, whole);
    if (most < 0) return -1;
    message->msg_iov->iov_len = (size_t)most;
    n = message->msg_iovlen > 1 ? wire_receive_parts(fd, message) : wire_receive_beside(fd, message);
    message->msg_iov->iov_len = whole;
    return n;
}

static inline ssize_t wire_sendmsg(int fd, const struct msghdr *message, int flags)
{
    const struct cmsghdr *header = (const struct cmsghdr *)message->msg_control;
    int                   fds[WIRE_BESIDE];
    size_t                size = 0;
    ssize_t               most;
    if (!wire_is(fd)) return fault_sendmsg(fd, message, flags);
    most = fault_length(FAULT_sendmsg, message->msg_iov->iov_len);
    if (most < 0) return -1;
    if (header && message->msg_controllen >= CMSG_LEN(0)) size = header->cmsg_len - CMSG_LEN(0);
    if (size > sizeof fds) size = sizeof fds;
    if (size > 0) memcpy(fds, CMSG_DATA(header), size);
    return wire_put(fd, message->msg_iov->iov_base, (size_t)most, fds, (int)(size / sizeof(int)));
}

#endif /* CHARDEV_LINKED */

#ifdef FUZZ_UNCOUNTED
#pragma clang attribute pop
#endif

#endif
