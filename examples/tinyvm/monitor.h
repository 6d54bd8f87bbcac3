/*
 * monitor.h - what the two kinds of monitor share: a frontend on a chardev and an output queue that never makes anybody wait.
 *
 * Output goes straight to the chardev while it takes it; the rest is queued and follows when there is room. A monitor whose
 * reader is slow takes no further commands until the queue is short again, so that the queue stays bounded.
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
    int             held;      /* on a mux, without the focus: output waits */
    void          (*event)(struct monitor *monitor, const char *name, const char *data); /* something happened to the VM; or NULL */
    void          (*stepped)(struct monitor *monitor, int64_t now);                      /* the step that it asked for is over */
    void          (*drained)(struct monitor *monitor);                                   /* the queue has become short again */
    void          (*free)(struct monitor *monitor);
};

/* Make one on a chardev, the readline kind for people, the control kind (QMP) for programs. NULL and err on failure. */
struct monitor *hmp_new(struct vm *vm, chr_dev *dev, chr_error *err);
struct monitor *qmp_new(struct vm *vm, chr_dev *dev, chr_error *err);

/* Runs one line of the readline kind and appends what it prints. `fe`: where descriptors for getfd come from. */
void hmp_execute(struct vm *vm, chr_frontend *fe, const char *line, struct buf *out);

void monitors_free(struct monitor *monitors);
int  monitors_flushed(const struct monitor *monitors);
/* Tells all that listen; `data` is JSON text or NULL. */
void monitor_event(struct monitor *monitors, const char *name, const char *data);

/* For the two kinds. */
void monitor_send(struct monitor *monitor, const void *bytes, size_t len);
void monitor_hold(struct monitor *monitor, int held);
void monitor_forget(struct monitor *monitor); /* the reader is gone: so is what waits for it */
int  monitor_busy(const struct monitor *monitor);
/* Names the descriptor that came last over this frontend. CHR_ERR_NOT_FOUND when none came. */
int monitor_getfd(struct vm *vm, chr_frontend *fe, const char *name, chr_error *err);

#endif
