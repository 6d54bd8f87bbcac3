/* trace.h - -trace: writes events of the chardevs to stderr or a file, one line each. */
#ifndef TINYVM_TRACE_H
#define TINYVM_TRACE_H

#include <stdio.h>

#include "chardev.h"

struct trace {
    unsigned char wanted[CHR_TRACE_COUNT];
    FILE         *file; /* NULL = nothing is traced */
};

/* Parses the arguments of -trace, "PATTERN,-PATTERN,file=PATH" each. Returns 0, or -1 after one line on stderr. */
int trace_begin(struct trace *trace, const char *const *texts, int count);

/* Prints all events with their arguments to stdout. Returns the exit status. */
int trace_help(void);

/* The hook chr_config.trace. */
void trace_event(struct trace *trace, const chr_trace *event);

void trace_end(struct trace *trace);

#endif
