/*
 * host.h - what the virtual machine asks of the system it runs on, besides what chardev.h does: its clocks, and poll().
 */
#ifndef TINYVM_HOST_H
#define TINYVM_HOST_H

#include <stdint.h>

#include "chardev.h"

/* Nanoseconds on the monotonic clock. */
int64_t host_clock(void);
/* Nanoseconds since 1970 UTC. */
int64_t host_wall_clock(void);
/* Waits for the descriptors of chr_loop_prepare(), up to timeout_ms (-1 = without limit). Returns how many are ready, 0 when the time is
 * over, < 0 when the host can't. A signal counts as something that came. */
int host_poll(chr_poll *polls, int count, int timeout_ms);

#ifdef _WIN32
/* Opens the socket that another process duplicated for this one: `info` is what WSADuplicateSocketW() filled in, as base64. Returns it, or
 * -1 when that is not possible. */
int host_take_socket(const char *info);
void host_close_socket(int socket);
#endif

#endif
