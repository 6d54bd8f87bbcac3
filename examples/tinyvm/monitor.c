/* monitor.c - the output queue, and the list of monitors. */
#include "monitor.h"

#include <stdio.h>
#include <unistd.h>

#include "vm.h"

static void flush(void *opaque)
{
    struct monitor *m = opaque;
    int             was_busy = monitor_busy(m);
    while (m->out.len && !m->is_held) {
        int taken = chr_fe_write(&m->fe, m->out.data, m->out.len);
        if (taken == CHR_ERR_WOULD_BLOCK || taken == 0) {
            chr_fe_add_watch(&m->fe, flush, m);
            break;
        }
        if (taken < 0) buf_clear(&m->out); /* disconnected */
        else buf_drop(&m->out, (size_t)taken);
    }
    if (was_busy && !monitor_busy(m)) m->drained(m);
}

/* Queues and sends a reply or event. It is dropped whole when the queue is full. */
void monitor_send(struct monitor *m, const void *bytes, size_t len)
{
    int idle = m->out.len == 0;
    if (m->out.len + len > MONITOR_QUEUE_MAX) return;
    buf_put(&m->out, bytes, len);
    if (idle) flush(m);
}

void monitor_hold(struct monitor *m, int is_held)
{
    m->is_held = is_held;
    if (!is_held) flush(m);
}

void monitor_drop_output(struct monitor *m)
{
    buf_clear(&m->out);
    chr_fe_add_watch(&m->fe, NULL, NULL);
}

int monitor_busy(const struct monitor *m)
{
    return m->out.len > MONITOR_BUSY;
}

void monitor_event(struct monitor *monitors, const char *name, const char *data)
{
    for (struct monitor *m = monitors; m; m = m->next)
        if (m->event) m->event(m, name, data);
}

int monitors_flushed(const struct monitor *monitors)
{
    for (const struct monitor *m = monitors; m; m = m->next)
        if (m->out.len && !m->is_held) return 0;
    return 1;
}

void monitors_free(struct monitor *monitors)
{
    while (monitors) {
        struct monitor *next = monitors->next;
        chr_fe_deinit(&monitors->fe);
        buf_free(&monitors->out);
        monitors->free(monitors);
        monitors = next;
    }
}

int monitor_getfd(struct vm *vm, chr_frontend *fe, const char *name, chr_error *err)
{
    int fd;
    if (chr_fe_get_msgfds(fe, &fd, 1) < 1) {
        err->code = CHR_ERR_NOT_FOUND;
        snprintf(err->text, sizeof err->text, "No file descriptor supplied via SCM_RIGHTS");
        return err->code;
    }
    int rc = chr_fd_put(vm->ctx, name, fd, err);
    if (rc < 0) close(fd); /* not owned by the context after an error */
    return rc;
}
