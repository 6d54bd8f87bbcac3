/*
 * options.h - tinyvm's command line.
 */
#ifndef TINYVM_OPTIONS_H
#define TINYVM_OPTIONS_H

#include <stdint.h>

#define OPTIONS_MAX 64 /* of each repeatable kind */

struct options {
    const char *objects[OPTIONS_MAX], *chardevs[OPTIONS_MAX], *serials[OPTIONS_MAX], *mons[OPTIONS_MAX],
        *traces[OPTIONS_MAX];
    int         object_count, chardev_count, serial_count, mon_count, trace_count;
    struct {
        const char *uri;
        int         control;
    } monitors[OPTIONS_MAX]; /* -monitor and -qmp */
    int         monitor_count;
    const char *bios;
    uint32_t    ram_size;
    int         stopped, digest, stepped;
    const char *record, *replay; /* NULL = not given */
    const char *words; /* `help` or `BACKEND,help` of -chardev; else NULL */
    int         help, version, trace_help;
    int         log_reopen; /* on SIGHUP */
};

/* Returns 0, or -1 after one line on stderr. */
int options_read(struct options *o, int argc, char **argv);

/* A -mon value, "ID" or "chardev=ID", then ",mode=readline" or ",mode=control". Returns 0, or -1 after one line on
 * stderr. */
struct mon_options {
    char id[128];
    int  control;
};
int options_read_mon(const char *text, struct mon_options *mon);

/* One line on stderr, "tinyvm: ...". Returns -1. */
int complain(const char *format, ...);

extern const char options_help[];

#endif
