/*
 * monitor.h - common to both kinds of monitor: a frontend on a chardev and an output queue, so that no write blocks.
 *
 * Output is written to the chardev at once; after a short write the rest is queued until the chardev is writable.
 * Back-pressure: while more than MONITOR_BUSY bytes are queued, the monitor reads no commands, so that the queue
 * stays bounded.
 */
#ifndef TINYVM_MONITOR_H
#define TINYVM_MONITOR_H

#include "buf.h"
#include "chardev.h"

struct vm;

enum { MONITOR_INPUT = 4096, MONITOR_BUSY = 64 * 1024, MONITOR_QUEUE_MAX = 16 * 1024 * 1024 };

struct monitor {
    struct vm      *vm;
    struct monitor *next;
    chr_frontend    fe;
    struct buf      out;
    int             is_held;      /* without the focus of a mux: output stays queued */
    void          (*event)(struct monitor *monitor, const char *name, const char *data); /* of the VM; or NULL */
    void          (*stepped)(struct monitor *monitor, int64_t now);                      /* its clock step has ended */
    void (*drained)(struct monitor *monitor); /* the queue is below MONITOR_BUSY again */
    void          (*free)(struct monitor *monitor);
};

/* Create a monitor on a chardev: readline for people, control (QMP) for programs. NULL and err on failure. */
struct monitor *hmp_new(struct vm *vm, chr_dev *dev, chr_error *err);
struct monitor *qmp_new(struct vm *vm, chr_dev *dev, chr_error *err);

/* Runs one line of the readline monitor and appends its output. `fe`: receives the descriptors for getfd. */
void hmp_execute(struct vm *vm, chr_frontend *fe, const char *line, struct buf *out);

void monitors_free(struct monitor *monitors);
int  monitors_flushed(const struct monitor *monitors);
/* Sends an event to all monitors that report events; `data` is JSON text or NULL. */
void monitor_event(struct monitor *monitors, const char *name, const char *data);

/* For the implementations of the two kinds. */
void monitor_send(struct monitor *monitor, const void *bytes, size_t len);
void monitor_hold(struct monitor *monitor, int is_held);
void monitor_drop_output(struct monitor *monitor); /* disconnected: drops the queue */
int  monitor_busy(const struct monitor *monitor);
/* Names the descriptor received last over this frontend (SCM_RIGHTS). CHR_ERR_NOT_FOUND = none was received. */
int monitor_getfd(struct vm *vm, chr_frontend *fe, const char *name, chr_error *err);

#endif
