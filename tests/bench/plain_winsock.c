/*
 * plain_winsock PORT PORT: the relay that one would write by hand for Windows: WSAPoll(), recv(), send(), nothing else.
 * It is the limit that relay.exe is compared with. Joins the first peer of one port of 127.0.0.1 to the first of the
 * other, and ends with either.
 */
#include <winsock2.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 65536 };

typedef struct way {
    int  sent, held; /* the bytes of the buffer that are to be written: sent .. held */
    char buffer[CHUNK];
} way;

static way ways[2]; /* from socket 0 to socket 1, and back */

static void die(const char *what)
{
    fprintf(stderr, "plain_winsock: %s: error %d\n", what, WSAGetLastError());
    exit(1);
}

static SOCKET listen_on(const char *port)
{
    struct sockaddr_in address;
    SOCKET             s = socket(AF_INET, SOCK_STREAM, 0);

    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((u_short)atoi(port));
    if (bind(s, (struct sockaddr *)&address, sizeof address) != 0 || listen(s, 1) != 0) die(port);
    return s;
}

static SOCKET accept_from(SOCKET listener)
{
    u_long on = 1;
    int    yes = 1;
    SOCKET s = accept(listener, NULL, NULL);

    if (s == INVALID_SOCKET || ioctlsocket(s, (long)FIONBIO, &on) != 0) die("accept");
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, (const char *)&yes, sizeof yes);
    return s;
}

/* Returns 0 at the end. */
static int move(way *w, SOCKET from, SOCKET to)
{
    int n;

    if (w->held == 0) {
        n = recv(from, w->buffer, CHUNK, 0);
        if (n == 0 || (n < 0 && WSAGetLastError() != WSAEWOULDBLOCK)) return 0;
        if (n > 0) w->held = n;
    }
    if (w->held > w->sent) {
        n = send(to, w->buffer + w->sent, w->held - w->sent, 0);
        if (n < 0 && WSAGetLastError() != WSAEWOULDBLOCK) return 0;
        if (n > 0) w->sent += n;
    }
    if (w->sent == w->held) w->sent = w->held = 0;
    return 1;
}

/* One turn. Returns 0 when a peer has gone. */
static int serve(WSAPOLLFD items[2])
{
    int i;

    for (i = 0; i < 2; i++) items[i].events = (short)((ways[i].held ? 0 : POLLRDNORM) | (ways[!i].held ? POLLWRNORM : 0));
    if (WSAPoll(items, 2, -1) < 0) die("WSAPoll");
    for (i = 0; i < 2; i++)
        if ((items[i].revents || (ways[i].held && items[!i].revents)) && !move(&ways[i], items[i].fd, items[!i].fd)) return 0;
    return 1;
}

int main(int argc, char **argv)
{
    WSADATA   data;
    WSAPOLLFD items[2];
    int       i;

    if (argc != 3 || WSAStartup(MAKEWORD(2, 2), &data) != 0) return fprintf(stderr, "usage: plain_winsock PORT PORT\n"), 2;
    for (i = 0; i < 2; i++) items[i].fd = listen_on(argv[i + 1]);
    for (i = 0; i < 2; i++) items[i].fd = accept_from(items[i].fd);
    while (serve(items)) continue;
    for (i = 0; i < 2; i++) closesocket(items[i].fd);
    return 0;
}
