/* vtime.c - the clock that counts instructions, and turns of the loop that use it. */
#include "vtime.h"

#include "host.h"
#include "vm.h"

#define NS_PER_INSTRUCTION 10
#define WALL_CLOCK_START   946684800 /* 2000-01-01: each run has the same dates */

enum { POLLS_MAX = 512, PASSES_MAX = 1000, REST_MS = 20 };

static int64_t machine_time(const struct vm *vm)
{
    return vm->time.jumped + (int64_t)vm->machine.cpu.steps * NS_PER_INSTRUCTION;
}

static int64_t machine_clock(void *opaque)
{
    return machine_time(opaque);
}

static int64_t machine_wall_clock(void *opaque)
{
    return machine_time(opaque) + (int64_t)WALL_CLOCK_START * 1000000000;
}

int64_t vtime_wall_clock(const struct vm *vm)
{
    return vm->time.on ? machine_time(vm) + (int64_t)WALL_CLOCK_START * 1000000000 : host_wall_clock();
}

void vtime_hooks(chr_config *config)
{
    config->clock = machine_clock;
    config->wall_clock = machine_wall_clock;
}

/* Dispatches due timers and idle callbacks, repeatedly, until none is left at this time. */
static void dispatch_due(chr_context *ctx)
{
    for (int i = 0; i < PASSES_MAX && chr_loop_dispatch(ctx, NULL, 0) > 0; i++) {}
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int wait_ms(int64_t now, int64_t deadline)
{
    if (deadline == INT64_MAX) return -1;
    int64_t ms = (deadline - now + 999999) / 1000000;
    return ms > 1000000 ? 1000000 : (int)ms;
}

/* Time jumps. Input received while waiting is always before the deadline: else their order at that time would be
 * undefined. */
static void jump(struct vm *vm, int64_t now, int64_t deadline, int64_t waited, int has_input)
{
    if (deadline <= now) return;
    if (!has_input) {
        if (deadline != INT64_MAX) vm->time.jumped += deadline - now;
        return;
    }
    vm->time.jumped += waited < deadline - now ? waited : deadline - now - 1;
}

int vtime_serve(struct vm *vm, int64_t deadline)
{
    chr_poll polls[POLLS_MAX];
    int      loop_ms;
    dispatch_due(vm->ctx);
    int64_t now = chr_loop_now(vm->ctx), host = host_clock();
    /* an interrupt has just become pending: no waiting */
    if (deadline > now && vm->state == VM_RUNNING && cpu_runnable(&vm->machine.cpu)) deadline = now;
    if (vm->shutdown_reason || vm->reset_reason) deadline = now;
    int count = chr_loop_prepare(vm->ctx, polls, POLLS_MAX, &loop_ms);
    if (count > POLLS_MAX) return CHR_ERR_NO_MEMORY;
    deadline = loop_ms ? earlier(deadline, chr_loop_deadline(vm->ctx)) : now; /* 0: idle callbacks are pending */
    int ready = host_poll(
        polls, count, deadline <= now || (vm->time.replaying && deadline != INT64_MAX) ? 0 : wait_ms(now, deadline));
    if (ready < 0) return CHR_ERR_IO;
    jump(vm, now, deadline, host_clock() - host, ready > 0);
    if (ready > 0) chr_loop_dispatch(vm->ctx, polls, count);
    dispatch_due(vm->ctx);
    return 0;
}

unsigned vtime_budget(const struct vm *vm, unsigned most)
{
    int64_t left = vm->time.stepped ? (vm->time.limit - machine_time(vm) + NS_PER_INSTRUCTION - 1) / NS_PER_INSTRUCTION
                                    : most;
    return left <= 0 ? 0 : left < (int64_t)most ? (unsigned)left : most;
}

int vtime_serve_step(struct vm *vm, int64_t deadline)
{
    chr_poll polls[POLLS_MAX];
    int      loop_ms;
    dispatch_due(vm->ctx);
    int64_t now = machine_time(vm), next = earlier(earlier(deadline, chr_loop_deadline(vm->ctx)), vm->time.limit);
    int     count = chr_loop_prepare(vm->ctx, polls, POLLS_MAX, &loop_ms);
    int     is_over = now >= vm->time.limit && !vm->stepper && !vm->shutdown_reason && !vm->reset_reason;
    if (count > POLLS_MAX) return CHR_ERR_NO_MEMORY;
    int ready = host_poll(polls, count,
                              !is_over || loop_ms == 0           ? 0
                              : loop_ms > 0 && loop_ms < REST_MS ? REST_MS
                                                                 : loop_ms);
    if (ready < 0) return CHR_ERR_IO;
    if (ready > 0) chr_loop_dispatch(vm->ctx, polls, count);
    else if (next > now && loop_ms != 0) vm->time.jumped += next - now;
    dispatch_due(vm->ctx);
    return 0;
}
