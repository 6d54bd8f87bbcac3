/*
 * buf.h - a growing run of bytes: what monitors queue, what commands answer, what a file held.
 *
 * Zero-initialise it. The text functions keep a zero after the end, so that `data` can be read as a string once anything
 * was put in. A program that runs out of memory here ends with a message: for an emulator there is nothing left to do.
 */
#ifndef TINYVM_BUF_H
#define TINYVM_BUF_H

#include <stddef.h>

#if defined(__GNUC__)
#define BUF_PRINTF __attribute__((__format__(__printf__, 2, 3)))
#else
#define BUF_PRINTF
#endif

struct buf {
    char  *data;
    size_t len, capacity;
};

void *xcalloc(size_t count, size_t size);
char *xstrdup(const char *text);

void        buf_put(struct buf *b, const void *bytes, size_t len);
void        buf_puts(struct buf *b, const char *text);
void        buf_putc(struct buf *b, char c);
void        buf_printf(struct buf *b, const char *format, ...) BUF_PRINTF;
void        buf_drop(struct buf *b, size_t len); /* the first `len` bytes */
void        buf_clear(struct buf *b);            /* keeps the memory */
void        buf_free(struct buf *b);
const char *buf_text(const struct buf *b); /* "" when nothing was ever put in */

/* Appends a whole file. Returns 0, or -1 with errno set. */
int buf_read_file(struct buf *b, const char *path);

#endif
