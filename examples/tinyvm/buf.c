/* buf.c - a growing byte buffer. */
#include "buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *checked(void *memory)
{
    if (!memory) {
        fputs("tinyvm: out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

void *xcalloc(size_t count, size_t size)
{
    return checked(calloc(count ? count : 1, size ? size : 1));
}

char *xstrdup(const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(checked(malloc(size)), text, size);
}

static void reserve(struct buf *b, size_t more)
{
    size_t wanted = b->len + more + 1; /* 1: the zero after the end */
    if (wanted <= b->capacity) return;
    if (wanted < b->capacity * 2) wanted = b->capacity * 2;
    b->data = checked(realloc(b->data, wanted));
    b->capacity = wanted;
}

void buf_put(struct buf *b, const void *bytes, size_t len)
{
    reserve(b, len);
    if (len) memcpy(b->data + b->len, bytes, len);
    b->len += len;
    b->data[b->len] = '\0';
}

void buf_puts(struct buf *b, const char *text)
{
    buf_put(b, text, strlen(text));
}

void buf_putc(struct buf *b, char c)
{
    buf_put(b, &c, 1);
}

void buf_printf(struct buf *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    if (len > 0) {
        reserve(b, (size_t)len);
        vsnprintf(b->data + b->len, (size_t)len + 1, format, again);
        b->len += (size_t)len;
    }
    va_end(again);
    va_end(args);
}

void buf_drop(struct buf *b, size_t len)
{
    if (!len) return;
    memmove(b->data, b->data + len, b->len - len + 1);
    b->len -= len;
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    if (b->data) b->data[0] = '\0';
}

void buf_free(struct buf *b)
{
    free(b->data);
    memset(b, 0, sizeof *b);
}

const char *buf_text(const struct buf *b)
{
    return b->data ? b->data : "";
}

int buf_read_file(struct buf *b, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) return -1;
    char   chunk[4096];
    size_t got;
    while ((got = fread(chunk, 1, sizeof chunk, file)) > 0) buf_put(b, chunk, got);
    int failed = ferror(file);
    fclose(file);
    return failed ? -1 : 0;
}
