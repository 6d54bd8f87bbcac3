/* vm.c - run, stop, reset, shutdown. */
#include "vm.h"

#include <signal.h>
#include <stdio.h>

#include "host.h"
#include "options.h"

#define SLICE      10000u /* instructions between two turns of the loop: some ten microseconds */
#define DRAIN_MS   2000   /* time-out of the last output, without progress */

/* For signal handlers. */
static volatile sig_atomic_t interrupted, hung_up;
static chr_context          *interrupted_loop;

void vm_interrupt(void)
{
    interrupted = 1;
    if (interrupted_loop) chr_loop_wake(interrupted_loop);
}

void vm_hang_up(void)
{
    hung_up = 1;
    if (interrupted_loop) chr_loop_wake(interrupted_loop);
}

/* ---- requests ---- */

void vm_request_reset(struct vm *vm, int by_guest, const char *reason)
{
    vm->reset_reason = reason;
    vm->reset_by_guest = by_guest;
}

void vm_request_shutdown(struct vm *vm, int by_guest, const char *reason, int exit_code)
{
    if (vm->shutdown_reason) return;
    vm->shutdown_reason = reason;
    vm->shutdown_by_guest = by_guest;
    vm->exit_code = exit_code;
}

const char *vm_state_name(const struct vm *vm)
{
    static const char *const names[] = { "prelaunch", "running", "paused" };
    return names[vm->state];
}

void vm_stop(struct vm *vm)
{
    if (vm->state != VM_RUNNING) return;
    vm->state = VM_PAUSED;
    machine_pause(&vm->machine, 1);
    monitor_event(vm->monitors, "STOP", NULL);
}

void vm_cont(struct vm *vm)
{
    if (vm->state == VM_RUNNING) return;
    vm->state = VM_RUNNING;
    machine_pause(&vm->machine, 0);
    monitor_event(vm->monitors, "RESUME", NULL);
}

static void send_event(struct vm *vm, const char *event, int by_guest, const char *reason)
{
    char data[128];
    snprintf(data, sizeof data, "{\"guest\": %s, \"reason\": \"%s\"}", by_guest ? "true" : "false", reason);
    monitor_event(vm->monitors, event, data);
}

static void take_guest_request(struct vm *vm)
{
    if (vm->machine.request == MACHINE_RESET) vm_request_reset(vm, 1, "guest-reset");
    if (vm->machine.request == MACHINE_POWER_OFF)
        vm_request_shutdown(vm, 1, "guest-shutdown", vm->machine.request_code);
    vm->machine.request = MACHINE_NO_REQUEST;
}

static void carry_out_reset(struct vm *vm)
{
    machine_reset(&vm->machine);
    send_event(vm, "RESET", vm->reset_by_guest, vm->reset_reason);
    vm->reset_reason = NULL;
    if (vm->state == VM_PAUSED) vm->state = VM_PRELAUNCH;
}

/* ---- the digest ---- */

static uint32_t digest(uint32_t sum, const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    while (len--) sum = (sum ^ *p++) * 16777619u; /* FNV-1a */
    return sum;
}

static void print_digest(const struct vm *vm)
{
    const struct cpu *cpu = &vm->machine.cpu;
    uint32_t rest[] = {cpu->pc,       cpu->mstatus, cpu->mie,    cpu->mip,  cpu->mtvec,
                       cpu->mscratch, cpu->mepc,    cpu->mcause, cpu->mtval};
    uint32_t          registers = digest(digest(2166136261u, cpu->x, sizeof cpu->x), rest, sizeof rest);
    fprintf(stderr, "tinyvm: %llu instructions, %lld ns, registers %08x, memory %08x\n", (unsigned long long)cpu->steps,
            (long long)chr_loop_now(vm->ctx), (unsigned)registers,
            (unsigned)digest(2166136261u, cpu->bus.ram, cpu->bus.ram_size));
}

/* ---- the loop ---- */

/* Runs a slice. Returns how long the loop may sleep, in milliseconds. */
static int run_machine(struct vm *vm)
{
    unsigned most = vtime_budget(vm, SLICE);
    if (vm->state != VM_RUNNING || !most) return -1;
    int sleep_ms = machine_run(&vm->machine, most);
    take_guest_request(vm);
    return vm->shutdown_reason || vm->reset_reason ? 0 : sleep_ms;
}

/* ---- a clock that is stepped ---- */

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int fail_step(chr_error *err, const char *why)
{
    snprintf(err->text, sizeof err->text, "%s", why);
    return err->code = CHR_ERR_INVALID;
}

int vm_clock_step(struct vm *vm, struct monitor *monitor, int64_t ns, chr_error *err)
{
    int64_t now = chr_loop_now(vm->ctx), end = now + ns;
    if (!vm->time.stepped) return fail_step(err, "the clock is not stepped: this needs -clock virtual");
    if (vm->stepper) return fail_step(err, "another step is under way");
    if (ns < 0)
        end = earlier(chr_loop_deadline(vm->ctx),
                      vm->machine.cpu.mie & CPU_IRQ_TIMER ? clint_deadline(&vm->machine.clint) : INT64_MAX);
    if (end == INT64_MAX) return fail_step(err, "there is no timer to step to: say how many ns");
    vm->time.limit = end > now ? end : now;
    vm->stepper = monitor;
    return 0;
}

/* Ends a step: at its limit, or earlier, at a shutdown. */
static void end_step(struct vm *vm)
{
    struct monitor *monitor = vm->stepper;
    vm->stepper = NULL;
    if (monitor) monitor->stepped(monitor, chr_loop_now(vm->ctx));
}

static int serve_step(struct vm *vm)
{
    int runs = vm->state == VM_RUNNING && vtime_budget(vm, 1);
    int rc = vtime_serve_step(vm, runs ? machine_deadline(&vm->machine) : INT64_MAX);
    if (chr_loop_now(vm->ctx) >= vm->time.limit) end_step(vm);
    return rc;
}

static int is_flushed(const struct vm *vm)
{
    return monitors_flushed(vm->monitors) && machine_flushed(&vm->machine);
}

/* Bytes that chardevs have written or dropped: it grows as long as there is progress. */
static uint64_t output_count(const struct vm *vm)
{
    uint64_t count = 0;
    for (const chr_dev *dev = chr_next(vm->ctx, NULL); dev; dev = chr_next(vm->ctx, dev)) {
        chr_info info;
        chr_query(dev, &info);
        count += info.bytes_out + info.bytes_dropped;
    }
    return count;
}

/* Drains the last output: of monitors and UARTs, then the queues of chardevs. A slow reader gets all of it; one that
 * reads nothing delays the end by DRAIN_MS. */
static void drain_output(struct vm *vm)
{
    int64_t  end = host_clock() + (int64_t)DRAIN_MS * 1000000;
    uint64_t count = output_count(vm);
    send_event(vm, "SHUTDOWN", vm->shutdown_by_guest, vm->shutdown_reason);
    while (!is_flushed(vm)) {
        int64_t left = end - host_clock(); /* the host's clock: that of the context may be stopped */
        if (left <= 0 || chr_loop_step(vm->ctx, (int)(left / 1000000) + 1) < 0) break;
        if (output_count(vm) == count) continue;
        count = output_count(vm);
        end = host_clock() + (int64_t)DRAIN_MS * 1000000;
    }
    if (chr_drain(vm->ctx, is_flushed(vm) ? DRAIN_MS : 0) == CHR_ERR_TIMEOUT)
        complain("the last output was not taken within %d seconds", DRAIN_MS / 1000);
}

/* One turn of the loop. With a recording, time is counted in instructions (vtime.h). */
static int serve_loop(struct vm *vm, int sleep_ms)
{
    if (!vm->time.on) return chr_loop_step(vm->ctx, sleep_ms);
    if (vm->time.stepped) return serve_step(vm);
    int64_t deadline = vm->shutdown_reason || vm->reset_reason ? 0 : INT64_MAX;
    int     rc = vtime_serve(vm, vm->state == VM_RUNNING && deadline ? machine_deadline(&vm->machine) : deadline);
    if (chr_replay_over(vm->ctx)) vm_request_shutdown(vm, 0, "host-signal", 0); /* the recording ended here */
    return rc;
}

/* A script that is not at its end when the machine ends has failed. Other failures were logged already. */
static int scripts_passed(const struct vm *vm)
{
    int passed = 1;
    for (const chr_dev *dev = chr_next(vm->ctx, NULL); dev; dev = chr_next(vm->ctx, dev)) {
        chr_error err;
        int       code = chr_script_result(dev, &err);
        if (code == 0 || code == CHR_ERR_NOT_SUPPORTED) continue;
        if (code == CHR_ERR_WOULD_BLOCK) complain("%s: and the machine has ended", err.text);
        passed = 0;
    }
    return passed;
}

int vm_run(struct vm *vm)
{
    interrupted_loop = vm->ctx;
    while (!vm->shutdown_reason) {
        int sleep_ms = run_machine(vm);
        if (serve_loop(vm, sleep_ms) < 0) vm_request_shutdown(vm, 0, "host-error", 1);
        if (interrupted) vm_request_shutdown(vm, 0, "host-signal", 0);
        if (hung_up) {
            hung_up = 0;
            chr_log_reopen(vm->ctx);
        }
        if (vm->reset_reason && !vm->shutdown_reason) carry_out_reset(vm);
    }
    end_step(vm);
    if (vm->print_digest) print_digest(vm);
    drain_output(vm);
    interrupted_loop = NULL;
    return !scripts_passed(vm) && !vm->exit_code ? 1 : vm->exit_code;
}
