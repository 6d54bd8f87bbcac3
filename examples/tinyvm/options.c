/* options.c - parses the command line. */
#include "options.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB (1024.0 * 1024.0)

const char options_help[] =
    "usage: tinyvm [options]\n"
    "  -chardev OPTIONS          create a character device: socket,id=mon,path=/tmp/m,server=on,wait=off\n"
    "                            (-chardev help lists the backends, -chardev socket,help the options of one)\n"
    "  -object OPTIONS           TLS credentials for chardevs, tls-creds-x509,id=t,dir=DIR,endpoint=server, or a list\n"
    "                            of admitted peers, authz-list,id=who,match=NAME\n"
    "  -serial URI|OPTIONS|chardev:ID\n"
    "                            the chardev of the next serial port: stdio, pty, pty,path=/tmp/tty, tcp:..., "
    "unix:...,\n"
    "                            mon:stdio, none\n"
    "  -mon chardev=ID[,mode=readline|control]\n"
    "                            a monitor on a chardev: for people (readline) or for programs (control = QMP)\n"
    "  -monitor URI|OPTIONS, -qmp URI|OPTIONS\n"
    "                            the same in one option, with the syntax of -serial: -monitor stdio,\n"
    "                            -qmp unix:/tmp/m,server=on,wait=off\n"
    "  -nographic                serial port and monitor on this terminal (= -serial mon:stdio; Ctrl-A h shows the "
    "keys);\n"
    "                            this is also what happens without any other monitor, -serial and -chardev\n"
    "  -bios FILE                run this program: an RV32 ELF file, or a raw image for address 0x80000000\n"
    "  -m SIZE                   RAM: a number of MiB, or with B, K, M or G (default 128M)\n"
    "  -record FILE              record all data and events of the chardevs in FILE; time is counted in instructions\n"
    "  -replay FILE              replay such a run, instruction by instruction; the chardevs are not connected\n"
    "  -clock host|virtual       virtual: time is counted in instructions, and the machine runs only for the time\n"
    "                            that clock_step of the control monitor allows (default: host)\n"
    "  -trace [PATTERN]          trace events of the chardevs on stderr, by name: socket_*,-socket_lookup*;\n"
    "                            ,file=PATH: into that file; -trace help lists them (default: all)\n"
    "  -digest                   at exit, print the number of instructions, and checksums of registers and memory\n"
    "  -log-reopen-on-hup        on SIGHUP reopen all log files (for logrotate) instead of exiting\n"
    "  -S                        don't start the CPU until the monitor's `cont`\n"
    "  -h, -help                 this text\n"
    "  -version                  the version\n";

int complain(const char *format, ...)
{
    va_list args;
    fputs("tinyvm: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return -1;
}

/* ---- values ---- */

static double unit_of(const char *suffix)
{
    if (!*suffix || !strcmp(suffix, "M") || !strcmp(suffix, "m")) return MIB;
    if (!strcmp(suffix, "B") || !strcmp(suffix, "b")) return 1;
    if (!strcmp(suffix, "K") || !strcmp(suffix, "k")) return 1024;
    if (!strcmp(suffix, "G") || !strcmp(suffix, "g")) return MIB * 1024;
    return 0;
}

static int read_ram_size(const char *text, uint32_t *size)
{
    char  *end;
    double number = strtod(text, &end), bytes = number * unit_of(end);
    if (end == text || unit_of(end) <= 0 || !(number > 0)) return complain("-m: '%s' is not a size", text);
    if (!(bytes >= 4096 && bytes <= 2047 * MIB)) return complain("-m: '%s' is not between 4K and 2047M", text);
    *size = (uint32_t)bytes & ~4095u;
    return 0;
}

static int add_to(const char **list, int *count, const char *name, const char *value)
{
    if (*count == OPTIONS_MAX) return complain("%s: more than %d of them", name, OPTIONS_MAX);
    list[(*count)++] = value;
    return 0;
}

/* "none": no monitor is created. */
static int add_monitor_uri(struct options *o, const char *name, const char *uri)
{
    if (!strcmp(uri, "none")) return 0;
    if (o->monitor_count == OPTIONS_MAX) return complain("-%s: more than %d monitors", name, OPTIONS_MAX);
    o->monitors[o->monitor_count].uri = uri;
    o->monitors[o->monitor_count++].control = !strcmp(name, "qmp");
    return 0;
}

static int read_mon_part(const char *part, size_t len, int first, const char *whole, struct mon_options *mon)
{
    int         named = len >= 8 && !strncmp(part, "chardev=", 8);
    const char *id = named ? part + 8 : part;
    size_t      id_len = named ? len - 8 : len;
    if (named || (first && !memchr(part, '=', len))) {
        if (!id_len || id_len >= sizeof mon->id)
            return complain("-mon %s: the chardev's id is missing or too long", whole);
        memcpy(mon->id, id, id_len);
        mon->id[id_len] = '\0';
        return 0;
    }
    if (len == 12 && !strncmp(part, "mode=control", len)) mon->control = 1;
    else if (len == 13 && !strncmp(part, "mode=readline", len)) mon->control = 0;
    else if (len > 5 && !strncmp(part, "mode=", 5))
        return complain("-mon %s: mode must be readline or control, not '%.*s'", whole, (int)len - 5, part + 5);
    else
        return complain("-mon %s: '%.*s' is unknown (there are chardev=ID and mode=readline|control)", whole, (int)len,
                        part);
    return 0;
}

int options_read_mon(const char *text, struct mon_options *mon)
{
    memset(mon, 0, sizeof *mon);
    for (const char *part = text; *part;) {
        size_t len = strcspn(part, ",");
        if (read_mon_part(part, len, part == text, text, mon) < 0) return -1;
        part += len + (part[len] == ',');
    }
    return *mon->id ? 0 : complain("-mon %s: it needs chardev=ID", text);
}

/* ---- options ---- */

static int asks_for_help(const char *chardev)
{
    size_t len = strlen(chardev);
    return !strcmp(chardev, "help") || !strcmp(chardev, "?") || (len > 5 && !strcmp(chardev + len - 5, ",help")) ||
           (len > 2 && !strcmp(chardev + len - 2, ",?"));
}

static int read_clock(struct options *o, const char *value)
{
    o->stepped = !strcmp(value, "virtual");
    return o->stepped || !strcmp(value, "host") ? 0 : complain("-clock: '%s' is neither host nor virtual", value);
}

static int takes_chardev(const char *name)
{
    return !strcmp(name, "serial") || !strcmp(name, "chardev") || !strcmp(name, "monitor") || !strcmp(name, "qmp");
}

static int take_value(struct options *o, const char *name, const char *value)
{
    if (!strcmp(name, "clock")) return read_clock(o, value);
    if (!strcmp(name, "m")) return read_ram_size(value, &o->ram_size);
    if (takes_chardev(name) && asks_for_help(value)) o->words = value;
    if (!strcmp(name, "serial")) return add_to(o->serials, &o->serial_count, "-serial", value);
    if (!strcmp(name, "object")) return add_to(o->objects, &o->object_count, "-object", value);
    if (!strcmp(name, "monitor") || !strcmp(name, "qmp")) return add_monitor_uri(o, name, value);
    if (!strcmp(name, "mon")) return add_to(o->mons, &o->mon_count, "-mon", value);
    const char **text = !strcmp(name, "bios") ? &o->bios : !strcmp(name, "record") ? &o->record :
                        !strcmp(name, "replay") ? &o->replay : NULL;
    if (text) {
        *text = value;
        return 0;
    }
    return add_to(o->chardevs, &o->chardev_count, "-chardev", value);
}

static int takes_value(const char *name)
{
    static const char *const names[] = { "chardev", "object", "serial", "mon", "monitor", "qmp",
                                         "bios", "m", "record", "replay", "clock" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!strcmp(name, names[i])) return 1;
    return 0;
}

/* Its pattern is optional. Returns the number of arguments consumed, or -1. */
static int take_trace(struct options *o, const char *next)
{
    int has_value = next && *next != '-';
    if (has_value && (!strcmp(next, "help") || !strcmp(next, "?"))) o->trace_help = 1;
    return add_to(o->traces, &o->trace_count, "-trace", has_value ? next : "*") < 0 ? -1 : has_value;
}

static int take_switch(struct options *o, const char *name, int *nographic)
{
    if (!strcmp(name, "S")) o->stopped = 1;
    else if (!strcmp(name, "digest")) o->digest = 1;
    else if (!strcmp(name, "log-reopen-on-hup")) o->log_reopen = 1;
    else if (!strcmp(name, "nographic")) *nographic = 1;
    else if (!strcmp(name, "h") || !strcmp(name, "help")) o->help = 1;
    else if (!strcmp(name, "version")) o->version = 1;
    else return complain("-%s: unknown option (-h lists them)", name);
    return 0;
}

int options_read(struct options *o, int argc, char **argv)
{
    int nographic = 0;
    memset(o, 0, sizeof *o);
    o->ram_size = 128u * 1024 * 1024;
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (*name != '-' || !name[1]) return complain("%s: not an option (-h lists them)", name);
        name += name[1] == '-' ? 2 : 1;
        if (!strcmp(name, "trace")) {
            int used = take_trace(o, argv[i + 1]);
            if (used < 0) return -1;
            i += used;
        } else if (!takes_value(name)) {
            if (take_switch(o, name, &nographic) < 0) return -1;
        } else if (i + 1 == argc) return complain("-%s: its value is missing", name);
        else if (take_value(o, name, argv[++i]) < 0) return -1;
    }
    if (o->stepped && (o->record || o->replay)) return complain("-clock virtual goes with neither -record nor -replay");
    if (!o->serial_count && (nographic || (!o->chardev_count && !o->mon_count && !o->monitor_count)))
        o->serials[o->serial_count++] = "mon:stdio";
    return 0;
}
