/*
 * host.h - the system's clocks and poll(), beside what chardev.h uses.
 */
#ifndef TINYVM_HOST_H
#define TINYVM_HOST_H

#include <stdint.h>

#include "chardev.h"

/* Nanoseconds on the monotonic clock. */
int64_t host_clock(void);
/* Nanoseconds since 1970 UTC. */
int64_t host_wall_clock(void);
/* Waits for the descriptors of chr_loop_prepare(), up to timeout_ms (-1 = without limit). Returns the number of ready
 * descriptors, 0 at the time-out, < 0 after an error. After a signal (EINTR) it returns 1. */
int host_poll(chr_poll *polls, int count, int timeout_ms);

#ifdef _WIN32
/* Opens the socket that another process duplicated for this one. `info`: the WSAPROTOCOL_INFOW that
 * WSADuplicateSocketW() filled in, as base64. Returns the socket, or -1. */
int host_take_socket(const char *info);
void host_close_socket(int socket);
#endif

#endif
