/*
 * vm.h - the running program: the machine, its monitors, and the loop that both live on.
 *
 * All runs in one thread: the hart runs a slice, then the loop runs without blocking. The loop sleeps only while the
 * hart waits for an interrupt (wfi). Shutdown and reset are requests, handled between slices.
 */
#ifndef TINYVM_VM_H
#define TINYVM_VM_H

#include "chardev.h"
#include "machine.h"
#include "monitor.h"
#include "trace.h"
#include "vtime.h"

enum vm_state { VM_PRELAUNCH, VM_RUNNING, VM_PAUSED };

struct vm {
    chr_context    *ctx;
    struct machine  machine;
    struct vtime    time;
    struct monitor *monitors;
    enum vm_state   state;
    const char     *shutdown_reason, *reset_reason; /* NULL = not requested */
    int             shutdown_by_guest, reset_by_guest;
    int             exit_code;
    struct monitor *stepper;      /* waits for the end of a clock step; or NULL */
    struct trace    trace;        /* -trace */
    int             print_digest; /* at the end, for comparing with a replay */
};

void        vm_stop(struct vm *vm);
void        vm_cont(struct vm *vm);
const char *vm_state_name(const struct vm *vm);

/* Requests it; the reasons are those of QMP's events. The first request for a shutdown counts. */
void vm_request_reset(struct vm *vm, int by_guest, const char *reason);
void vm_request_shutdown(struct vm *vm, int by_guest, const char *reason, int exit_code);
/* With a stepped clock: starts a step of ns nanoseconds (-1: to the next timer), for a monitor. */
int vm_clock_step(struct vm *vm, struct monitor *monitor, int64_t ns, chr_error *err);
/* Called in a signal handler: requests a shutdown. */
void vm_interrupt(void);
/* Called in a signal handler: requests that log files are reopened. */
void vm_hang_up(void);

/* Runs until a shutdown. Returns the exit status. */
int vm_run(struct vm *vm);

#endif
