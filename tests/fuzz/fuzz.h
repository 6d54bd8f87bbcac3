/*
 * fuzz.h - what the fuzz targets share. Each defines FUZZ_TARGET(data, size); libFuzzer calls it as LLVMFuzzerTestOneInput. With
 * -DFUZZ_MAIN there is a main() instead that runs the files named on the command line, for compilers without libFuzzer.
 */
#ifndef CHARDEV_FUZZ_H
#define CHARDEV_FUZZ_H

#ifndef CHARDEV_H
#include "wire.h"
#ifndef CHARDEV_LINKED
#define CHARDEV_IMPLEMENTATION
#endif
#include "chardev.h"
#endif

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef FUZZ_UNCOUNTED
#pragma clang attribute push(__attribute__((no_sanitize("coverage"))), apply_to = function)
#endif

#define FUZZ_CHECK(expr)                                                        \
    do {                                                                        \
        if (!(expr)) {                                                          \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #expr); \
            abort();                                                            \
        }                                                                       \
    } while (0)

/* The bytes of the input, taken one after the other; zero when they are over. */
typedef struct fuzz_bytes {
    const uint8_t *data;
    size_t         size;
} fuzz_bytes;

static inline uint8_t fuzz_byte(fuzz_bytes *in)
{
    if (in->size == 0) return 0;
    in->size--;
    return *in->data++;
}

static long fuzz_live; /* blocks not yet freed */

static inline void *fuzz_allocate(void *opaque, void *ptr, size_t size)
{
    (void)opaque;
    if (size == 0) {
        fuzz_live -= ptr != NULL;
        free(ptr);
        return NULL;
    }
    if (size > (size_t)1 << 24) return NULL; /* "size=1G" is no reason to spend a gigabyte */
    fuzz_live += ptr == NULL;
    return realloc(ptr, size);
}

static inline int64_t fuzz_clock(void *opaque)
{
    (void)opaque;
    return wires.now;
}

static int fuzz_exits, fuzz_snapshots;

static inline void fuzz_exit(void *opaque, int code)
{
    (void)opaque;
    (void)code;
    fuzz_exits++;
}

static inline void fuzz_snapshot(void *opaque)
{
    (void)opaque;
    fuzz_snapshots++;
}

/* What was traced is one line, whatever came in. */
static inline void fuzz_trace(void *opaque, const chr_trace *event)
{
    char line[200];
    int  len = chr_trace_format(event, line, sizeof line), i;
    (void)opaque;
    FUZZ_CHECK(len > 0 && len < (int)sizeof line && !line[len]);
    for (i = 0; i < len; i++) FUZZ_CHECK(line[i] >= ' ' && line[i] < 127);
}

/* Whether this input's events are traced, which takes time: one of 32, always the same. */
static inline int fuzz_is_traced(const uint8_t *data, size_t size)
{
    uint32_t hash = (uint32_t)size;
    size_t   i;
    for (i = 0; i < size && i < 64; i++) hash = hash * 16777619u ^ data[i];
    return (hash ^ hash >> 16) % 32 == 0;
}

/* A context in which time moves only when it is waited for. */
static inline chr_context *fuzz_context(const uint8_t *data, size_t size)
{
    chr_config   config;
    chr_context *ctx;
    wire_reset();
    memset(&config, 0, sizeof config);
    if (fuzz_is_traced(data, size)) config.trace = fuzz_trace;
    config.allocate = fuzz_allocate;
    config.clock = fuzz_clock;
    config.wall_clock = fuzz_clock;
    config.exit = fuzz_exit;
    config.snapshot = fuzz_snapshot;
    fuzz_live = 0;
    fuzz_exits = fuzz_snapshots = 0;
    ctx = chr_context_new(&config);
    FUZZ_CHECK(ctx != NULL);
    return ctx;
}

static inline void fuzz_end(chr_context *ctx)
{
    chr_context_free(ctx);
    FUZZ_CHECK(fuzz_live == 0 && wire_open_count() == 0);
}

/* A failure is told in one line, and leaves nothing in the registry. */
static inline void fuzz_check_error(chr_context *ctx, const chr_error *err)
{
    FUZZ_CHECK(err->code < 0 && err->code >= CHR_ERR_NO_SPACE);
    FUZZ_CHECK(memchr(err->text, 0, sizeof err->text) != NULL);
    FUZZ_CHECK(err->text[0] != 0 && !strpbrk(err->text, "\r\n"));
    FUZZ_CHECK(chr_next(ctx, NULL) == NULL);
}

static inline char *fuzz_text(const uint8_t *data, size_t size)
{
    char *text = (char *)malloc(size + 1);
    FUZZ_CHECK(text != NULL);
    if (size) memcpy(text, data, size);
    text[size] = 0;
    return text;
}

#ifdef FUZZ_UNCOUNTED
#pragma clang attribute pop
#endif

#ifndef FUZZ_TARGET
#define FUZZ_TARGET LLVMFuzzerTestOneInput
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
#endif

#ifdef FUZZ_MAIN
int main(int argc, char **argv)
{
    static uint8_t data[1 << 20];
    int            i;
    for (i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file) return perror(argv[i]), 1;
        FUZZ_TARGET(data, fread(data, 1, sizeof data, file));
        fclose(file);
    }
    printf("%d inputs: ok\n", argc - 1);
    return 0;
}
#endif

#endif
