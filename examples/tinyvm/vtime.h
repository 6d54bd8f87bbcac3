/*
 * vtime.h - time that is counted in instructions, for recording a run and having the same run again.
 *
 * Each instruction takes 10 ns on the context's clock. A hart that waits, or a machine that is stopped, lets time jump: to the
 * next deadline, or to when input has come. Between two slices, and only there, the clock stands still while first what is due and
 * then what has come is dispatched. So the time at which something comes says after which instruction it comes; and a replay,
 * in which it comes from a file at that time, makes the hart execute the same again.
 */
#ifndef TINYVM_VTIME_H
#define TINYVM_VTIME_H

#include <stdint.h>

#include "chardev.h"

struct vm;

struct vtime {
    int     on, replaying;
    int     stepped; /* it goes no further than `limit`, which the monitor moves */
    int64_t jumped;  /* ns that went by without instructions */
    int64_t limit;
};

/* Makes the context's clocks those of the virtual machine, which is its `opaque`. */
void vtime_hooks(chr_config *config);
/* Between two slices: dispatches what is due and what is ready; before that, with a deadline in the future, waits for either. When
 * replaying it does not wait, but jumps. < 0 = the host can't poll. */
int vtime_serve(struct vm *vm, int64_t deadline);
/* The same where time is stepped: it jumps no further than the limit. There it stands still, and what comes is served. */
int vtime_serve_step(struct vm *vm, int64_t deadline);
/* How many instructions may run until the limit, at most so many. */
unsigned vtime_budget(const struct vm *vm, unsigned most);
/* Nanoseconds since 1970 UTC: the host's, or with counted time those of the virtual machine. */
int64_t vtime_wall_clock(const struct vm *vm);

#endif
