/*
 * vtime.h - time counted in instructions, for recording a run and replaying it exactly.
 *
 * Each instruction takes 10 ns on the context's clock. While the hart waits or the machine is stopped, time jumps: to
 * the next deadline, or to the time at which input was received. Events are dispatched between two slices only, at
 * one value of the clock: first due timers, then input. So the time of an event determines the instruction after
 * which it is handled, and a replay, which takes events from a file at these times, executes the same instructions.
 */
#ifndef TINYVM_VTIME_H
#define TINYVM_VTIME_H

#include <stdint.h>

#include "chardev.h"

struct vm;

struct vtime {
    int     on, replaying;
    int     stepped; /* time stops at `limit`, which a monitor's clock_step moves */
    int64_t jumped;  /* ns that passed without instructions */
    int64_t limit;
};

/* Sets the context's clock hooks to the virtual machine's time. The hooks' `opaque` is the struct vm. */
void vtime_hooks(chr_config *config);
/* Between two slices: waits until the deadline or for input, then dispatches due timers and ready descriptors. When
 * replaying, it jumps in place of waiting. < 0 = host_poll() failed. */
int vtime_serve(struct vm *vm, int64_t deadline);
/* The same for stepped time: it jumps to the limit at most. At the limit time stops, and input is still dispatched. */
int vtime_serve_step(struct vm *vm, int64_t deadline);
/* The number of instructions that may run until the limit; at most `most`. */
unsigned vtime_budget(const struct vm *vm, unsigned most);
/* Nanoseconds since 1970 UTC: of the host, or of the virtual machine when time is counted in instructions. */
int64_t vtime_wall_clock(const struct vm *vm);

#endif
