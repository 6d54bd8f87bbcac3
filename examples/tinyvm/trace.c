/* trace.c - selection of events by -trace, and their output. */
#include "trace.h"

#include <string.h>

#include "options.h"

#ifndef CHARDEV_NO_TRACE

static int take_file(struct trace *trace, const char *text, const char *path)
{
    trace_end(trace);
    trace->file = fopen(path, "w");
    if (!trace->file) return complain("-trace %s: %s can't be written", text, path);
    setvbuf(trace->file, NULL, _IOLBF, 4096); /* complete also when the process is killed */
    return 0;
}

static int take_pattern(struct trace *trace, const char *text, const char *pattern)
{
    int is_off = *pattern == '-', matches = 0;
    for (int i = 0; i < CHR_TRACE_COUNT; i++)
        if (chr_trace_match(pattern + is_off, chr_trace_name(i))) {
            trace->wanted[i] = !is_off;
            matches++;
        }
    return matches ? 0 : complain("-trace %s: no event is named '%s' (-trace help lists them)", text, pattern + is_off);
}

static int take_part(struct trace *trace, const char *text, const char *part)
{
    if (!strncmp(part, "file=", 5)) return take_file(trace, text, part + 5);
    return take_pattern(trace, text, !strncmp(part, "enable=", 7) ? part + 7 : part);
}

static int take_text(struct trace *trace, const char *text)
{
    char part[400];
    for (const char *at = text; *at;) {
        size_t len = strcspn(at, ",");
        if (len >= sizeof part) return complain("-trace %s: too long", text);
        memcpy(part, at, len);
        part[len] = '\0';
        if (take_part(trace, text, part) < 0) return -1;
        at += len + (at[len] == ',');
    }
    return 0;
}

int trace_begin(struct trace *trace, const char *const *texts, int count)
{
    for (int i = 0; i < count; i++)
        if (take_text(trace, texts[i]) < 0) return -1;
    if (count && !trace->file) trace->file = stderr;
    return 0;
}

static void print_line(void *opaque, const char *line)
{
    (void)opaque;
    puts(line);
}

int trace_help(void)
{
    return chr_trace_help(NULL, print_line, NULL) == 0;
}

void trace_event(struct trace *trace, const chr_trace *event)
{
    char line[1000];
    if (!trace->file || !trace->wanted[event->number]) return;
    chr_trace_format(event, line, sizeof line);
    fprintf(trace->file, "%s\n", line);
}

#else

int trace_begin(struct trace *trace, const char *const *texts, int count)
{
    (void)trace;
    return count ? complain("-trace %s: built without tracing", texts[0]) : 0;
}

int trace_help(void)
{
    return complain("-trace help: built without tracing"), 1;
}

void trace_event(struct trace *trace, const chr_trace *event)
{
    (void)trace, (void)event;
}

#endif

void trace_end(struct trace *trace)
{
    if (trace->file && trace->file != stderr) fclose(trace->file);
    trace->file = NULL;
}
