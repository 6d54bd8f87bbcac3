/*
 * main.c - tinyvm: a small RISC-V virtual machine around chardev.h.
 *
 * All input and output goes through chardevs: serial ports, the readline monitor, the control monitor (QMP). The
 * command line selects their backends, which can be changed while the machine runs (hot swap). Try
 *
 *     tinyvm                                             # serial port and monitor on this terminal; Ctrl-A h
 *     tinyvm -chardev pty,id=c,path=/tmp/console -serial chardev:c
 *     tinyvm -chardev socket,id=mon,path=/tmp/mon,server=on,wait=off -mon chardev=mon,mode=control
 *
 * Order of creation: chardevs first, so that the others can name them; monitors before serial ports, so that on a
 * shared (mux) chardev the serial port has the focus. Exit status: that of the guest; 0 after quit or a signal; 1
 * after a bad option.
 */
#include <stdio.h>
#include <string.h>

#include "../arguments.h"
#include "../signals.h"
#include "chardev.h"
#include "options.h"
#include "vm.h"

/* ---- hooks of the context ---- */

static void log_line(void *opaque, const char *line)
{
    (void)opaque;
    fprintf(stderr, "tinyvm: %s\n", line);
}

/* Ctrl-A x on a mux, or a request of the guest through testdev: with the reason that QEMU reports. */
static void exit_asked(void *opaque, int code)
{
    vm_request_shutdown(opaque, 0, "host-qmp-quit", code);
}

static void traced(void *opaque, const chr_trace *event)
{
    trace_event(&((struct vm *)opaque)->trace, event);
}

/* ---- -chardev help ---- */

static void print_line(void *opaque, const char *line)
{
    (void)opaque;
    puts(line);
}

static int print_chardev_help(chr_context *ctx, const char *words)
{
    if (chr_help(ctx, words, print_line, NULL) == 0) return 0;
    complain("-chardev %s: there is no backend '%.*s' (-chardev help lists them)", words, (int)strcspn(words, ","),
             words);
    return 1;
}

/* ---- building the machine ---- */

static int add_objects(struct vm *vm, const struct options *o)
{
    chr_error err;
    for (int i = 0; i < o->object_count; i++) {
        int is_list = strncmp(o->objects[i], "authz", 5) == 0;
        int code = is_list ? chr_authz_add(vm->ctx, o->objects[i], &err)
                           : chr_tls_creds_add(vm->ctx, o->objects[i], &err);
        if (code < 0) return complain("-object %s: %s", o->objects[i], err.text);
    }
    return 0;
}

static int add_chardevs(struct vm *vm, const struct options *o)
{
    chr_error err;
    for (int i = 0; i < o->chardev_count; i++)
        if (!chr_new(vm->ctx, o->chardevs[i], &err)) return complain("-chardev %s: %s", o->chardevs[i], err.text);
    return 0;
}

static int add_monitor(struct vm *vm, chr_dev *dev, int control, const char *option, const char *value)
{
    chr_error       err;
    struct monitor *monitor = control ? qmp_new(vm, dev, &err) : hmp_new(vm, dev, &err);
    if (!monitor) return complain("%s %s: %s", option, value, err.text);
    monitor->next = vm->monitors;
    vm->monitors = monitor;
    return 0;
}

static int add_monitors(struct vm *vm, const struct options *o)
{
    for (int i = 0; i < o->mon_count; i++) {
        struct mon_options mon;
        if (options_read_mon(o->mons[i], &mon) < 0) return -1;
        chr_dev *dev = chr_find(vm->ctx, mon.id);
        if (!dev) return complain("-mon %s: there is no chardev '%s'", o->mons[i], mon.id);
        if (add_monitor(vm, dev, mon.control, "-mon", o->mons[i]) < 0) return -1;
    }
    return 0;
}

/* -monitor and -qmp create a chardev, with the id that it has in QEMU. */
static int add_monitors_with_chardevs(struct vm *vm, const struct options *o)
{
    for (int i = 0; i < o->monitor_count; i++) {
        const char *uri = o->monitors[i].uri, *option = o->monitors[i].control ? "-qmp" : "-monitor";
        char        id[32];
        chr_error   err;
        snprintf(id, sizeof id, "compat_monitor%d", i);
        chr_dev *dev = chr_new_any(vm->ctx, id, uri, &err);
        if (!dev) return complain("%s %s: %s", option, uri, err.text);
        if (add_monitor(vm, dev, o->monitors[i].control, option, uri) < 0) return -1;
    }
    return 0;
}

/* "none": the port exists without a chardev. "mon:...": it is shared with a readline monitor (mux). */
static int open_serial(struct vm *vm, const char *text, int number, chr_dev **dev)
{
    char      id[24];
    chr_error err;
    *dev = NULL;
    if (!strcmp(text, "none")) return 0;
    snprintf(id, sizeof id, "serial%d", number);
    *dev = chr_new_any(vm->ctx, id, text, &err);
    if (!*dev) return complain("-serial %s: %s", text, err.text);
    return !strncmp(text, "mon:", 4) ? add_monitor(vm, *dev, 0, "-serial", text) : 0;
}

/* The first port always exists, as on the virt board. */
static int add_serials(struct vm *vm, const struct options *o)
{
    if (o->serial_count > MACHINE_UARTS)
        return complain("-serial: there are %d ports, not %d", MACHINE_UARTS, o->serial_count);
    for (int i = 0; i < o->serial_count || i == 0; i++) {
        const char *uri = i < o->serial_count ? o->serials[i] : "none";
        chr_dev    *dev;
        chr_error   err;
        if (open_serial(vm, uri, i, &dev) < 0) return -1;
        if (machine_add_uart(&vm->machine, dev, &err) < 0) return complain("-serial %s: %s", uri, err.text);
    }
    return 0;
}

/* Prints the path of a new pty, which without path= is not known otherwise. */
static void tell_where_ptys_are(struct vm *vm)
{
    for (const chr_dev *dev = chr_next(vm->ctx, NULL); dev; dev = chr_next(vm->ctx, dev)) {
        chr_info info;
        chr_query(dev, &info);
        const char *path = !strcmp(info.backend, "pty") ? strstr(info.filename, "/dev/") : NULL;
        if (path) complain("chardev '%s' is at %s", info.id, path);
    }
}

/* Before any chardev is created. */
static int start_tapes(struct vm *vm, const struct options *o)
{
    chr_error err;
    if (o->replay && chr_replay_open(vm->ctx, o->replay, &err) < 0) return complain("-replay %s", err.text);
    if (o->record && chr_record_start(vm->ctx, o->record, &err) < 0) return complain("-record %s", err.text);
    return 0;
}

static int build(struct vm *vm, const struct options *o)
{
    chr_error err;
    if (start_tapes(vm, o) < 0) return -1;
    if (machine_init(&vm->machine, vm->ctx, o->ram_size, &err) < 0) return complain("-m: %s", err.text);
    if (o->bios && machine_load(&vm->machine, o->bios, &err) < 0) return complain("-bios %s: %s", o->bios, err.text);
    chr_mux_suspend_open(vm->ctx); /* banners are delayed until the focus is set */
    int rc = add_objects(vm, o) < 0 ? -1 : add_chardevs(vm, o);
    if (rc == 0) rc = add_monitors(vm, o);
    if (rc == 0) rc = add_monitors_with_chardevs(vm, o);
    if (rc == 0) rc = add_serials(vm, o);
    if (rc == 0) tell_where_ptys_are(vm);
    chr_mux_resume_open(vm->ctx);
    return rc;
}

/* ---- running it ---- */

static void on_signal(int number)
{
    signal(number, on_signal);
    vm_interrupt();
}

static void on_hang_up(int number)
{
    signal(number, on_hang_up);
    vm_hang_up();
}

static void catch_signals(const struct options *o)
{
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGHUP, o->log_reopen ? on_hang_up : on_signal);
}

static int run(struct vm *vm, const struct options *o)
{
    machine_reset(&vm->machine);
    if (!o->stopped) vm_cont(vm);
    return vm_run(vm);
}

static int build_and_run(struct vm *vm, const struct options *o)
{
    int status = 1;
    if (o->words) status = print_chardev_help(vm->ctx, o->words);
    else if (build(vm, o) == 0) {
        catch_signals(o);
        status = run(vm, o);
    }
    monitors_free(vm->monitors);
    machine_free(&vm->machine);
    chr_context_free(vm->ctx);
    trace_end(&vm->trace);
    return status;
}

int main(int argc, char **argv)
{
    struct options   o;
    static struct vm vm;
    chr_config       config;
    arguments_to_utf8(&argc, &argv);
    if (options_read(&o, argc, argv) < 0) return 1;
    if (o.help || o.version) {
        fputs(o.help ? options_help : "tinyvm " CHARDEV_VERSION "\n", stdout);
        return 0;
    }
    if (o.trace_help) return trace_help();
    signals_ignore_pipe();
    memset(&config, 0, sizeof config);
    config.opaque = &vm;
    config.log = log_line;
    config.exit = exit_asked;
    if (trace_begin(&vm.trace, o.traces, o.trace_count) < 0) return 1;
    if (vm.trace.file) config.trace = traced;
    vm.time.on = o.record || o.replay || o.stepped;
    vm.time.stepped = o.stepped;
    vm.time.replaying = o.replay != NULL;
    vm.print_digest = o.digest;
    if (vm.time.on) vtime_hooks(&config);
    vm.ctx = chr_context_new(&config);
    if (!vm.ctx) return complain("no memory or no descriptors left"), 1;
    return build_and_run(&vm, &o);
}
