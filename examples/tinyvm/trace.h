/* trace.h - -trace: what happens inside the chardevs goes to stderr or a file, a line for each event. */
#ifndef TINYVM_TRACE_H
#define TINYVM_TRACE_H

#include <stdio.h>

#include "chardev.h"

struct trace {
    unsigned char wanted[CHR_TRACE_COUNT];
    FILE         *file; /* NULL = nothing is traced */
};

/* What was given to -trace, "PATTERN,-PATTERN,file=PATH" each. Returns 0, or -1 after one line on stderr. */
int trace_begin(struct trace *trace, const char *const *texts, int count);

/* To stdout: all events, with what they carry. Returns the exit status. */
int trace_help(void);

/* From chr_config.trace. */
void trace_event(struct trace *trace, const chr_trace *event);

void trace_end(struct trace *trace);

#endif
