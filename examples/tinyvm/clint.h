/*
 * clint.h - the core-local interruptor: a 10 MHz clock, one compare register, one software interrupt.
 *
 * mtime follows the context's monotonic clock, and stops while the machine is paused.
 */
#ifndef TINYVM_CLINT_H
#define TINYVM_CLINT_H

#include <stdint.h>

#include "chardev.h"
#include "cpu.h"

struct clint {
    chr_context *ctx;
    struct cpu  *cpu;
    uint64_t     ticks;      /* mtime when it was last started or stopped */
    int64_t      started_at; /* nanoseconds on the context's clock */
    int          running;
    uint64_t     compare;
    uint32_t     software;
};

void     clint_reset(struct clint *clint);
void     clint_run(struct clint *clint, int running);
uint64_t clint_time(const struct clint *clint);
void     clint_update(struct clint *clint);  /* sets the timer interrupt: mtime >= mtimecmp */
int      clint_wait_ms(const struct clint *clint); /* milliseconds until the timer interrupt: 0 = now, -1 = never */

int64_t  clint_deadline(const struct clint *clint); /* its time on the context's clock, in ns; INT64_MAX = never */

uint32_t clint_read(void *clint, uint32_t offset, unsigned size);
void     clint_write(void *clint, uint32_t offset, unsigned size, uint32_t value);

#endif
