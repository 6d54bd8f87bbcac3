/* host.c - the functions of host.h, for Windows and for POSIX systems. */
#include "host.h"

#ifdef _WIN32

#include <string.h>
#include <winsock2.h>
#include <windows.h>

int64_t host_clock(void)
{
    LARGE_INTEGER now, second;
    QueryPerformanceFrequency(&second);
    QueryPerformanceCounter(&now);
    return now.QuadPart / second.QuadPart * 1000000000 + now.QuadPart % second.QuadPart * 1000000000 / second.QuadPart;
}

int64_t host_wall_clock(void)
{
    FILETIME       now; /* units of 100 ns since 1601 */
    ULARGE_INTEGER units;
    GetSystemTimeAsFileTime(&now);
    units.LowPart = now.dwLowDateTime;
    units.HighPart = now.dwHighDateTime;
    return ((int64_t)units.QuadPart - INT64_C(116444736000000000)) * 100;
}

/* The descriptors are sockets and handles, which no call of Windows waits for together, and chr_loop_wake()
 * signals none of them. So they are polled every 4 ms, and after 20 ms without result host_poll() returns as after
 * a signal. */
enum { POLL_SLICE_MS = 4, POLL_TURN_MS = 20 };

static int is_socket(int fd)
{
    int type, size = sizeof type;
    return getsockopt((SOCKET)(intptr_t)fd, SOL_SOCKET, SO_TYPE, (char *)&type, &size) == 0;
}

static short socket_ready(const chr_poll *one)
{
    WSAPOLLFD item;
    memset(&item, 0, sizeof item);
    item.fd = (SOCKET)(intptr_t)one->fd;
    item.events = (short)((one->events & CHR_IN ? POLLRDNORM : 0) | (one->events & CHR_OUT ? POLLWRNORM : 0));
    if (WSAPoll(&item, 1, 0) <= 0) return 0;
    if (item.revents & (POLLERR | POLLNVAL)) return CHR_IN | CHR_OUT | CHR_HUP;
    return (short)(one->events &
                   ((item.revents & (POLLRDNORM | POLLHUP) ? CHR_IN : 0) | (item.revents & POLLWRNORM ? CHR_OUT : 0)));
}

static int poll_all(chr_poll *polls, int count)
{
    int found = 0;
    for (int i = 0; i < count; i++) {
        if (is_socket(polls[i].fd)) polls[i].revents = socket_ready(&polls[i]);
        else if (WaitForSingleObject((HANDLE)(intptr_t)polls[i].fd, 0) == WAIT_OBJECT_0)
            polls[i].revents = CHR_IN | CHR_OUT;
        else polls[i].revents = 0;
        found += polls[i].revents != 0;
    }
    return found;
}

int host_poll(chr_poll *polls, int count, int timeout_ms)
{
    int64_t end = host_clock() + (int64_t)POLL_TURN_MS * 1000000;
    int     is_short = timeout_ms >= 0 && timeout_ms <= POLL_TURN_MS;
    if (is_short) end = host_clock() + (int64_t)timeout_ms * 1000000;
    for (;;) {
        int found = poll_all(polls, count);
        if (found) return found;
        if (host_clock() >= end) return !is_short;
        Sleep(is_short && timeout_ms < POLL_SLICE_MS ? 1 : POLL_SLICE_MS);
    }
}

static int base64_digit(char letter)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char       *at = letter ? strchr(letters, letter) : NULL;
    return at ? (int)(at - letters) : -1;
}

/* Returns whether the text is exactly `size` bytes; it may end with '='. */
static int decode_base64(const char *text, unsigned char *bytes, size_t size)
{
    size_t   count = strcspn(text, "=");
    unsigned bits = 0;
    if (count != (size * 4 + 2) / 3 || strspn(text + count, "=") != strlen(text + count)) return 0;
    for (size_t i = 0, n = 0; i < count; i++) {
        int digit = base64_digit(text[i]);
        if (digit < 0) return 0;
        bits = bits << 6 | (unsigned)digit;
        if (i % 4) bytes[n++] = (unsigned char)(bits >> (6 - 2 * (i % 4)));
    }
    return 1;
}

int host_take_socket(const char *info)
{
    WSAPROTOCOL_INFOW from;
    WSADATA           data;
    SOCKET            taken;
    if (!decode_base64(info, (unsigned char *)&from, sizeof from) || WSAStartup(MAKEWORD(2, 2), &data) != 0) return -1;
    taken = WSASocketW(FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, &from, 0,
                       WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
    return taken == INVALID_SOCKET ? -1 : (int)taken;
}

void host_close_socket(int socket)
{
    closesocket((SOCKET)(intptr_t)socket);
}

#else

#include <errno.h>
#include <poll.h>
#include <time.h>

static int64_t read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t host_clock(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t host_wall_clock(void)
{
    return read_clock(CLOCK_REALTIME);
}

int host_poll(chr_poll *polls, int count, int timeout_ms)
{
    int ready = poll((struct pollfd *)polls, (nfds_t)count, timeout_ms);
    return ready < 0 && errno == EINTR ? 1 : ready;
}

#endif
