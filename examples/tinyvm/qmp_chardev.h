/*
 * qmp_chardev.h - QMP's way to describe a chardev (nested JSON) into chardev.h's (one line of options).
 */
#ifndef TINYVM_QMP_CHARDEV_H
#define TINYVM_QMP_CHARDEV_H

#include "buf.h"
#include "json.h"

/* Appends the options for `backend` ({"type": ..., "data": {...}}). Returns 0, or -1 with one line in error[size]. */
int qmp_chardev_options(const struct json *backend, const char *id, struct buf *options, char *error, size_t size);

#endif
