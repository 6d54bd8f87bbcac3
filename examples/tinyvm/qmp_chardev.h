/*
 * qmp_chardev.h - converts QMP's description of a chardev (nested JSON) to the option syntax of chardev.h.
 */
#ifndef TINYVM_QMP_CHARDEV_H
#define TINYVM_QMP_CHARDEV_H

#include "buf.h"
#include "json.h"

/* Appends the options for `backend` ({"type": ..., "data": {...}}). Returns 0, or -1 with one line in error[size]. */
int qmp_chardev_options(const struct json *backend, const char *id, struct buf *options, char *error, size_t size);

#endif
