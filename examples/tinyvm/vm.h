/*
 * vm.h - the running program: the machine, its monitors, and the loop that both live on.
 *
 * One thread does it all: the hart runs a slice, then the loop serves whatever is ready without waiting; only a hart that waits
 * for an interrupt lets the loop sleep. What ends or resets the machine is noted as a request and carried out between slices.
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
    const char     *shutdown_reason, *reset_reason; /* NULL = not asked for */
    int             shutdown_by_guest, reset_by_guest;
    int             exit_code;
    struct monitor *stepper;      /* waits for a step of the clock to be over; or NULL */
    struct trace    trace;        /* -trace */
    int             print_digest; /* at the end: what a replay must come to as well */
};

void        vm_stop(struct vm *vm);
void        vm_cont(struct vm *vm);
const char *vm_state_name(const struct vm *vm);

/* Asks for it; the reasons are those that QMP's events know. The first request for a shutdown counts. */
void vm_request_reset(struct vm *vm, int by_guest, const char *reason);
void vm_request_shutdown(struct vm *vm, int by_guest, const char *reason, int exit_code);
/* With a stepped clock: lets it go on for ns nanoseconds (-1: to the next timer), for a monitor. */
int vm_clock_step(struct vm *vm, struct monitor *monitor, int64_t ns, chr_error *err);
/* From a signal handler: the loop of this program ends. */
void vm_interrupt(void);
/* The same: it opens its log files anew. */
void vm_hang_up(void);

/* Runs until a shutdown. Returns the exit status. */
int vm_run(struct vm *vm);

#endif
