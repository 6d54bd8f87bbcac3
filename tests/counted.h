/*
 * counted.h - how much work the implementation does, in a number that is the same on every machine and under any load. impl.c is compiled
 * once more (impl-counted.o) with the compiler's -fsanitize-coverage=trace-pc, which calls the function below at each basic block, and
 * with the names of what moves memory wrapped. A test program that includes this is linked with that object.
 */
#ifndef CHARDEV_COUNTED_H
#define CHARDEV_COUNTED_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { COUNTED_BYTES = 8 }; /* of memory that is moved or set are a step */

#ifdef CHARDEV_LINKED

uint64_t counted_steps; /* basic blocks, and bytes moved / COUNTED_BYTES */

void __sanitizer_cov_trace_pc(void);

#ifndef _WIN32
__attribute__((weak)) /* tests/mutate.py has one of its own, and counted_steps stays 0 */
#endif
void __sanitizer_cov_trace_pc(void) { counted_steps++; }

#elif defined(TEST_COUNTED)

#ifdef _WIN32 /* its inline functions move memory, too */
#include <winsock2.h>
#include <ws2tcpip.h>
#endif

extern uint64_t counted_steps;

static inline size_t counted(size_t len)
{
    counted_steps += len / COUNTED_BYTES;
    return len;
}

#define memcpy(to, from, len)  memcpy(to, from, counted(len))
#define memmove(to, from, len) memmove(to, from, counted(len))
#define memset(at, value, len) memset(at, value, counted(len))
#define memcmp(a, b, len)      memcmp(a, b, counted(len))
#define strlen(text)           (counted(strlen(text)))

#endif

#endif
