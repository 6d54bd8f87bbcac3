/*
 * buf.h - a growing byte buffer: output queues of monitors, replies of commands, contents of files.
 *
 * Zero-initialise it. The text functions keep a zero after the end, so that `data` is a string as soon as anything was
 * appended. Out of memory ends the program with a message.
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
const char *buf_text(const struct buf *b); /* "" while nothing was appended */

/* Appends a whole file. Returns 0, or -1 with errno set. */
int buf_read_file(struct buf *b, const char *path);

#endif
