/* test_rows.c - the option table of a user's own backend, with a row of each type: the value of each text. */
#include "chardev.h"
#include "rig.h"

#include <limits.h>

typedef struct rows_options {
    chr_common_options common;
    chr_bool           flag;
    int64_t            number, wide, size;
    int                fd;
    const char        *text, *need;
    const char *const *item, *const *other;
} rows_options;

static const chr_option rows[] = {
    { "flag",   CHR_OPTION_BOOL,   offsetof(rows_options, flag),   "off",        0, 0, "a flag" },
    { "number", CHR_OPTION_NUMBER, offsetof(rows_options, number), "7",          -5, 100, "a number" },
    { "wide",   CHR_OPTION_NUMBER, offsetof(rows_options, wide),   NULL,         INT64_MIN, INT64_MAX, "any number" },
    { "size",   CHR_OPTION_SIZE,   offsetof(rows_options, size),   "4K",         0, INT64_MAX, "a size" },
    { "fd",     CHR_OPTION_FD,     offsetof(rows_options, fd),     NULL,         0, 0, "a descriptor" },
    { "text",   CHR_OPTION_TEXT,   offsetof(rows_options, text),   "word",       0, 0, "a text" },
    { "need",   CHR_OPTION_TEXT,   offsetof(rows_options, need),   CHR_REQUIRED, 0, 0, "a needed text" },
    { "item",   CHR_OPTION_LIST,   offsetof(rows_options, item),   NULL,         0, 0, "a list" },
    { "other",  CHR_OPTION_LIST,   offsetof(rows_options, other),  NULL,         0, 0, "another list" },
    { NULL,     CHR_OPTION_TEXT,   0,                              NULL,         0, 0, NULL }
};

static char got[2000];
static int  open_code; /* what `open` says */

static void got_list(const char *name, const char *const *list)
{
    int i;
    for (i = 0; list && list[i]; i++) snprintf(got + strlen(got), sizeof got - strlen(got), " %s%d=%s", name, i, list[i]);
}

/* Notes what is not as by default. */
static int rows_open(chr_dev *dev, chr_error *err)
{
    const rows_options *options = (const rows_options *)dev->options;
    snprintf(got, sizeof got, "%s", options->need);
    if (options->flag != CHR_OFF) snprintf(got + strlen(got), sizeof got - strlen(got), " flag=%d", options->flag == CHR_ON);
    if (options->number != 7) snprintf(got + strlen(got), sizeof got - strlen(got), " number=%lld", (long long)options->number);
    if (options->wide != 0) snprintf(got + strlen(got), sizeof got - strlen(got), " wide=%lld", (long long)options->wide);
    if (options->size != 4096) snprintf(got + strlen(got), sizeof got - strlen(got), " size=%lld", (long long)options->size);
    if (options->fd != -1) snprintf(got + strlen(got), sizeof got - strlen(got), " fd=%d", options->fd);
    if (strcmp(options->text, "word") != 0) snprintf(got + strlen(got), sizeof got - strlen(got), " text=%s", options->text);
    got_list("item", options->item);
    got_list("other", options->other);
    if (open_code < 0) chr_error_set(err, open_code, "refused");
    return open_code;
}

static int last_open(chr_dev *dev, chr_error *err) { return (void)dev, (void)err, 0; }
static int rows_write(chr_dev *dev, const void *buf, size_t len) { return (void)dev, (void)buf, (int)len; }

/* rows:NEED/TEXT, of which the second may be missing; "rows:!" is none, "rows:?" another one's. */
static int rows_uri(const char *uri, chr_options *options)
{
    const char *slash = strchr(uri, '/');
    if (strncmp(uri, "rows:", 5) != 0 || uri[5] == '?') return 0;
    if (uri[5] == '!') return CHR_ERR_INVALID;
    if (chr_options_add(options, "need", uri + 5, slash ? (size_t)(slash - uri - 5) : (size_t)-1) < 0) return CHR_ERR_NO_MEMORY;
    if (slash && chr_options_add(options, "text", slash + 1, (size_t)-1) < 0) return CHR_ERR_NO_MEMORY;
    return 1;
}

CHR_TABLE(chr_io, rows_io,
    CHR_SET(write, rows_write));
CHR_TABLE(chr_backend, rows_kind,
    CHR_SET(name,         "rows")
    CHR_SET(alias,        "lines")
    CHR_SET(help,         "has a row of each type")
    CHR_SET(options,      rows)
    CHR_SET(options_size, sizeof(rows_options))
    CHR_SET(state_size,   sizeof(chr_dev))
    CHR_SET(uri,          rows_uri)
    CHR_SET(open,         rows_open)
    CHR_SET(io,           &rows_io));
CHR_TABLE(chr_backend, last_kind,
    CHR_SET(name,         "last")
    CHR_SET(help,         "comes last")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(chr_dev))
    CHR_SET(open,         last_open)
    CHR_SET(io,           &rows_io));

static void open_rows(rig *r)
{
    open_code = 0;
    rig_open_virtual(r);
    REQUIRE(chr_backend_register(r->ctx, &rows_kind, NULL) == 0);
    REQUIRE(chr_backend_register(r->ctx, &last_kind, NULL) == 0);
}

/* What comes of such options: the values, or the error. The chardev goes again. */
static const char *try_options(rig *r, chr_origin origin, const char *options)
{
    static chr_error err;
    chr_dev         *dev;
    got[0] = 0;
    dev = chr_new_from(r->ctx, origin, options, &err);
    if (!dev) return err.text;
    CHECK_INT(chr_remove(r->ctx, dev->id, NULL), 0);
    return got;
}

static const char *try_row(rig *r, const char *option)
{
    static char text[600];
    snprintf(text, sizeof text, "rows,id=a,need=x,%s", option);
    return try_options(r, CHR_LOCAL, text);
}

#define BAD_NUMBER ": not a number (decimal or 0x hexadecimal)"
#define BAD_SIZE   ": not a size (a number, with B, K, M, G or T)"
#define BAD_FD     ": not a descriptor's number (names are for a monitor)"
#define ALLOWED    "' (allowed: id, flag, number, wide, size, fd, text, need, item.N, other.N, logfile, logappend, logtimestamp, logsize, " \
                   "logfiles, mux, history, obuf, obuf-full)"

TEST(values_of_each_row)
{
    static const struct {
        const char *option, *want;
    } all[] = {
        { "", "x" },
        { "flag", "x flag=1" },
        { "flag=on", "x flag=1" },
        { "flag=yes", "x flag=1" },
        { "flag=true", "x flag=1" },
        { "flag=y", "x flag=1" },
        { "flag,noflag", "x" },
        { "flag,flag=no", "x" },
        { "flag,flag=false", "x" },
        { "flag,flag=n", "x" },
        { "flag,flag=off", "x" },
        { "flag=On", "rows: flag=On: not on or off" },
        { "flag=", "rows: flag=: not on or off" },
        { "number=-5", "x number=-5" },
        { "number=100", "x number=100" },
        { "number=0x64", "x number=100" },
        { "number=0X0a", "x number=10" },
        { "number=0", "x" }, /* zero is the default */
        { "number=-0", "x" },
        { "number=-6", "rows: number=-6: out of range, -5 to 100 (a number)" },
        { "number=101", "rows: number=101: out of range, -5 to 100 (a number)" },
        { "number=", "rows: number=" BAD_NUMBER },
        { "number=-", "rows: number=-" BAD_NUMBER },
        { "number=--1", "rows: number=--1" BAD_NUMBER },
        { "number=+1", "rows: number=+1" BAD_NUMBER },
        { "number= 1", "rows: number= 1" BAD_NUMBER },
        { "number=1 ", "rows: number=1 " BAD_NUMBER },
        { "number=0x", "rows: number=0x" BAD_NUMBER },
        { "number=0xg", "rows: number=0xg" BAD_NUMBER },
        { "number=1f", "rows: number=1f" BAD_NUMBER },
        { "number=1K", "rows: number=1K" BAD_NUMBER },
        { "number", "rows: number: needs a value" },
        { "nonumber", "rows: nonumber: needs a value" },
        { "wide=9223372036854775807", "x wide=9223372036854775807" },
        { "wide=9223372036854775808", "rows: wide=9223372036854775808" BAD_NUMBER },
        { "wide=-9223372036854775808", "x wide=-9223372036854775808" },
        { "wide=-9223372036854775809", "rows: wide=-9223372036854775809" BAD_NUMBER },
        { "wide=0x7fffffffffffffff", "x wide=9223372036854775807" },
        { "wide=0x8000000000000000", "rows: wide=0x8000000000000000" BAD_NUMBER },
        { "wide=-0x8000000000000000", "x wide=-9223372036854775808" },
        { "wide=0x10000000000000000", "rows: wide=0x10000000000000000" BAD_NUMBER },
        { "wide=18446744073709551617", "rows: wide=18446744073709551617" BAD_NUMBER },
        { "wide=00000000000000000000000012", "x wide=12" },
        { "size=0", "x" },
        { "size=1", "x size=1" },
        { "size=1B", "x size=1" },
        { "size=3b", "x size=3" },
        { "size=1K", "x size=1024" },
        { "size=1k", "x size=1024" },
        { "size=2M", "x size=2097152" },
        { "size=3G", "x size=3221225472" },
        { "size=4t", "x size=4398046511104" },
        { "size=0x10K", "x size=16384" },
        { "size=1.5K", "x size=1536" },
        { "size=1.5M", "x size=1572864" },
        { "size=.5K", "rows: size=.5K" BAD_SIZE },
        { "size=1.K", "x size=1024" },
        { "size=1.0", "x size=1" },
        { "size=0.25K", "x size=256" },
        { "size=0.0009765625K", "x" }, /* the ninth digit is the last */
        { "size=0.000976563K", "x size=1" },
        { "size=0.000000001G", "x size=1" },
        { "size=0.0000000019G", "x size=1" },
        { "size=0.999999999T", "x size=1099511626676" },
        { "size=1.1T", "x size=1209462790553" },
        { "size=1.5", "rows: size=1.5" BAD_SIZE },
        { "size=1.5B", "rows: size=1.5B" BAD_SIZE },
        { "size=9223372036854775807", "x size=9223372036854775807" },
        { "size=9223372036854775808", "rows: size=9223372036854775808" BAD_SIZE },
        { "size=8388607T", "x size=9223370937343148032" },
        { "size=8388607.999999999T", "x size=9223372036854774708" },
        { "size=8388608T", "rows: size=8388608T" BAD_SIZE },
        { "size=9007199254740991K", "x size=9223372036854774784" },
        { "size=9007199254740992K", "rows: size=9007199254740992K" BAD_SIZE },
        { "size=-1", "rows: size=-1" BAD_SIZE },
        { "size=1KB", "rows: size=1KB" BAD_SIZE },
        { "size=1P", "rows: size=1P" BAD_SIZE },
        { "size=K", "rows: size=K" BAD_SIZE },
        { "size=", "rows: size=" BAD_SIZE },
        { "size=1.5.5K", "rows: size=1.5.5K" BAD_SIZE },
        { "fd=2147483647", "x fd=2147483647" },
        { "fd=2147483648", "rows: fd=2147483648" BAD_FD },
        { "fd=-1", "rows: fd=-1" BAD_FD },
        { "fd=name", "rows: fd=name" BAD_FD },
        { "fd=1000000", "x fd=1000000" },
        { "fd", "rows: fd: needs a value" },
        { "text=", "x text=" },
        { "text=a=b", "x text=a=b" },
        { "text=a,,b", "x text=a,b" },
        { "text=,,", "x text=," },
        { "text=,,,,b,flag", "x flag=1 text=,,b" },
        { "text=one,text=two", "x text=two" },
        { "text", "rows: text: needs a value" },
        { "item=a", "x item0=a" },
        { "item.0=a,item.1=b", "x item0=a item1=b" },
        { "item.1=b,item=a", "x item0=a item1=b" },
        { "item.1=b,other.0=c,item=a", "x item0=a item1=b other0=c" },
        { "item.0=a,item.0=b", "x item0=b" },
        { "item.0=", "x item0=" },
        { "item.1=b", "rows: item.1=b: there is no item.0" },
        { "item.0=a,item.2=c", "rows: item.2=c: there is no item.1" },
        { "item.0=a,item.1=b,item.9=c", "rows: item.9=c: there is no item.2" },
        { "item.0=a,item.200000000=c", "rows: item.200000000=c: there is no item.1" },
        { "item.0=a,item.10=c", "rows: item.10=c: there is no item.1" },
        { "item.=a", "rows: unknown option 'item.=a" ALLOWED },
        { "item.00=a", "rows: unknown option 'item.00=a" ALLOWED },
        { "item.01=a", "rows: unknown option 'item.01=a" ALLOWED },
        { "item.-1=a", "rows: unknown option 'item.-1=a" ALLOWED },
        { "item.1x=a", "rows: unknown option 'item.1x=a" ALLOWED },
        { "items=a", "rows: unknown option 'items=a" ALLOWED },
        { "item.99999999999=a", "rows: unknown option 'item.99999999999=a" ALLOWED },
        { "item", "rows: item: needs a value" },
        { "colour=red", "rows: unknown option 'colour=red" ALLOWED },
        { "colour=", "rows: unknown option 'colour=" ALLOWED },
        { "blue", "rows: unknown option 'blue" ALLOWED },
        { "noblue", "rows: unknown option 'noblue" ALLOWED },
        { "no", "rows: unknown option 'no" ALLOWED },
        { "logfiles=3", "rows: logfiles=3: needs logsize=" },
        { ",,flag", "x, flag=1" }, /* a doubled comma is one of the text before it */
        { ",flag", "x,flag" },
        { "flag,", "x flag=1" },
    };
    rig    r;
    size_t i;
    open_rows(&r);
    for (i = 0; i < sizeof all / sizeof all[0]; i++)
        if (!CHECK_STR(try_row(&r, all[i].option), all[i].want)) NOTE("for \"%s\"", all[i].option);
    rig_close(&r);
}

TEST(texts_as_a_whole)
{
    static const struct {
        const char *options, *want;
    } all[] = {
        { "rows,id=a", "rows: needs need=" },
        { "rows,id=a,need", "rows: need: needs a value" },
        { "rows,need=x", "rows: needs id=" },
        { "id=a,need=x,rows", "x" },
        { "id=a,flag=on,rows,need=x", "x flag=1" },
        { "backend=rows,id=a,need=x", "x" },
        { "backend=rows,id=a,need=x,flag", "x flag=1" },
        { "id=a,need=x,backend=rows", "x" },
        { "lines,id=a,need=x", "x" }, /* the alias */
        { "rows,id=a,id=b,need=x", "x" },
        { "backend=null,backend=rows,id=a,need=x", "x" },
        { "id=a,need=x", "no backend is named ('help' lists them)" },
        { "", "no backend is named ('help' lists them)" },
        { "row,id=a,need=x", "'row' is not the name of a backend ('help' lists them)" },
        { "rows,id=a,help", "help was requested" },
        { "rows,id=a,?", "help was requested" },
        { "help", "help was requested" },
        { "backend=help", "help was requested" },
        { "rows,id=a,helpless", "rows: unknown option 'helpless" ALLOWED },
        { "rows,id=a,need=help", "help" },
    };
    rig    r;
    size_t i;
    open_rows(&r);
    for (i = 0; i < sizeof all / sizeof all[0]; i++)
        if (!CHECK_STR(try_options(&r, CHR_LOCAL, all[i].options), all[i].want)) NOTE("for \"%s\"", all[i].options);
    make(&r, "null,id=row");
    CHECK_STR(try_options(&r, CHR_LOCAL, "row"), "'row' is not the name of a backend; the chardev with that id is chardev:row");
    CHECK_STR(try_options(&r, CHR_LOCAL, "rows,id=row,need=x"), "rows: id=row: there is a chardev with that id already");
    rig_close(&r);
}

/* A monitor's peer names descriptors, and what is taken is no longer in the list. */
TEST(descriptors_of_a_monitors_peer)
{
    chr_error err;
    rig       r;
    int       fd;
    char      want[200];
    open_rows(&r);
    fd = open("/dev/null", O_RDONLY);
    CHECK_STR(try_options(&r, CHR_REMOTE, "rows,id=a,need=x,fd=5"),
              "rows: fd=5: a number is not allowed here: pass the descriptor with getfd and give its name");
    CHECK_STR(try_options(&r, CHR_REMOTE, "rows,id=a,need=x,fd=0"),
              "rows: fd=0: a number is not allowed here: pass the descriptor with getfd and give its name");
    CHECK_STR(try_options(&r, CHR_REMOTE, "rows,id=a,need=x,fd=9"),
              "rows: fd=9: a number is not allowed here: pass the descriptor with getfd and give its name");
    CHECK_STR(try_options(&r, CHR_REMOTE, "rows,id=a,need=x,fd=mine"), "rows: fd=mine: no descriptor has been passed under that name");
    CHECK_INT(chr_fd_put(r.ctx, "mine", fd, &err), 0);
    open_code = CHR_ERR_IO;
    CHECK_STR(try_options(&r, CHR_REMOTE, "rows,id=a,need=x,fd=mine"), "rows: refused (fd=mine)");
    CHECK_STR(try_options(&r, CHR_REMOTE, "rows,id=a,need=x"), "rows: refused");
    CHECK_STR(try_options(&r, CHR_LOCAL, "rows,id=a,need=x,fd=7"), "rows: refused");
    open_code = 0;
    snprintf(want, sizeof want, "x fd=%d", fd);
    CHECK_STR(try_options(&r, CHR_REMOTE, "rows,id=a,need=x,fd=mine"), want);
    CHECK_STR(try_options(&r, CHR_REMOTE, "rows,id=a,need=x,fd=mine"), "rows: fd=mine: no descriptor has been passed under that name");
    make(&r, "null,id=n"); /* the same in a change */
    CHECK_INT(chr_fd_put(r.ctx, "mine", fd, &err), 0);
    open_code = CHR_ERR_IO;
    {
        recorder rec;
        attach(&rec, chr_find(r.ctx, "n"));
        CHECK_INT(chr_change_from(r.ctx, CHR_REMOTE, "n", "rows,need=x,fd=mine", &err), CHR_ERR_IO);
        CHECK_STR(err.text, "rows: refused (fd=mine)");
        open_code = 0;
        CHECK_INT(chr_change_from(r.ctx, CHR_REMOTE, "n", "rows,need=x,fd=mine", &err), 0);
        CHECK_STR(got, want);
        CHECK_INT(chr_change_from(r.ctx, CHR_REMOTE, "n", "rows,need=x,fd=mine", &err), CHR_ERR_NOT_FOUND);
        detach(&rec);
    }
    close(fd);
    rig_close(&r);
}

/* The same table for a struct: ranges are checked, and all texts are the chardev's own afterwards. */
TEST(a_struct_for_each_row)
{
    char         need[] = "need", text[] = "text", one[] = "one", two[] = "two";
    const char  *list[3];
    rows_options options;
    chr_error    err;
    chr_dev     *dev;
    rig          r;
    open_rows(&r);
    memset(&options, 0, sizeof options);
    options.fd = -1;
    CHECK(chr_open(r.ctx, "a", &rows_kind, NULL, &err) == NULL);
    CHECK_STR(err.text, "rows: needs need=");
    CHECK(chr_open(r.ctx, "a", NULL, NULL, &err) == NULL);
    CHECK_STR(err.text, "there is no such backend");
    CHECK(chr_open(r.ctx, NULL, &rows_kind, NULL, &err) == NULL);
    CHECK_STR(err.text, "rows: needs id=");
    options.need = need;
    dev = chr_open(r.ctx, "a", &rows_kind, &options, &err);
    REQUIRE(dev != NULL);
    CHECK_STR(got, "need");
    CHECK_INT(chr_remove(r.ctx, "a", NULL), 0);
    list[0] = one;
    list[1] = two;
    list[2] = NULL;
    options.text = text;
    options.item = list;
    options.other = list + 1;
    options.number = 100;
    options.wide = INT64_MIN;
    options.size = INT64_MAX;
    options.flag = CHR_ON;
    dev = chr_open(r.ctx, "a", &rows_kind, &options, &err);
    REQUIRE(dev != NULL);
    CHECK_STR(got, "need flag=1 number=100 wide=-9223372036854775808 size=9223372036854775807 text=text item0=one item1=two other0=two");
    need[0] = text[0] = one[0] = two[0] = '?';
    memset(&options, 0, sizeof options);
    list[0] = NULL;
    rows_open(dev, &err);
    CHECK_STR(got, "need flag=1 number=100 wide=-9223372036854775808 size=9223372036854775807 text=text item0=one item1=two other0=two");
    CHECK_INT(chr_remove(r.ctx, "a", NULL), 0);
    options.need = "n";
    for (options.number = -6; options.number <= 101; options.number += 107) {
        CHECK(chr_open(r.ctx, "a", &rows_kind, &options, &err) == NULL);
        CHECK_STR(err.text, options.number < 0 ? "rows: number=-6: out of range, -5 to 100" : "rows: number=101: out of range, -5 to 100");
    }
    options.number = -5;
    options.size = -1;
    CHECK(chr_open(r.ctx, "a", &rows_kind, &options, &err) == NULL);
    CHECK_STR(err.text, "rows: size=-1: out of range, 0 to 9223372036854775807");
    options.size = 1;
    options.item = list; /* an empty list */
    options.fd = -1;
    REQUIRE(chr_open(r.ctx, "a", &rows_kind, &options, &err) != NULL);
    CHECK_STR(got, "n number=-5 size=1");
    rig_close(&r);
}

/* ---- URIs of its own --------------------------------------------------------------------------------------------- */

static const char *try_uri(rig *r, const char *uri)
{
    static chr_error err;
    chr_dev         *dev;
    got[0] = 0;
    dev = chr_new_uri(r->ctx, "u", uri, &err);
    if (!dev) return err.text;
    CHECK_INT(chr_remove(r->ctx, "u", NULL), 0);
    return got;
}

TEST(uris_of_its_own)
{
    rig r;
    open_rows(&r);
    CHECK_STR(try_uri(&r, "rows:abc"), "abc");
    CHECK_STR(try_uri(&r, "rows:abc/de/f"), "abc text=de/f");
    CHECK_STR(try_uri(&r, "rows:/"), " text=");
    CHECK_STR(try_uri(&r, "mon:rows:m"), "m");
    CHECK_STR(try_uri(&r, "rows:!"), "rows:!: is not a valid URI of rows");
    CHECK_STR(try_uri(&r, "rows:?"), "'rows:?' is not a URI of any backend");
    CHECK_STR(try_uri(&r, "rowss"), "'rowss' is not a URI of any backend");
    CHECK_STR(try_uri(&r, "last"), "");
    CHECK_STR(try_uri(&r, "last,obuf=4K"), "");
    CHECK_STR(try_uri(&r, "last,colour=red"), "last: unknown option 'colour=red' (allowed: id, logfile, logappend, logtimestamp, logsize, logfiles, "
              "mux, history, obuf, obuf-full)");
    CHECK_STR(try_uri(&r, "last,backend=null"), "last,backend=null: no backend= in a URI: that names last already");
    CHECK_STR(try_uri(&r, "lastly"), "'lastly' is not a URI of any backend");
    CHECK_STR(try_uri(&r, "last:x"), "'last:x' is not a URI of any backend");
    CHECK_STR(try_uri(&r, "last,help"), "help was requested");
    CHECK_STR(try_uri(&r, "/tmp/x"), "'/tmp/x': only a path in /dev may stand alone: unix:, pipe:, file: or pty: goes before");
    CHECK_STR(try_uri(&r, "mon:chardev:x"), "chardev:x: mon: does not go before a chardev that exists: make it with mux=on");
    CHECK_STR(try_uri(&r, "chardev:x"), "chardev:x: there is no chardev with that id");
    CHECK_STR(try_uri(&r, NULL), "'' is not a URI of any backend");
    rig_close(&r);
}

/* ---- help, and the list of backends ------------------------------------------------------------------------------ */

static char printed[8000];

static void print_line(void *opaque, const char *line)
{
    CHECK(opaque == printed);
    snprintf(printed + strlen(printed), sizeof printed - strlen(printed), "%s\n", line);
}

TEST(help_of_each_row)
{
    rig r;
    open_rows(&r);
    CHECK_INT(chr_help(r.ctx, "rows,help", print_line, printed), 0);
    CHECK_HAS(printed,
              "rows: has a row of each type\n"
              "  id=<text>                  its name: a letter, then letters, digits, '-', '.', '_' (required)\n"
              "  flag=<on|off>              a flag (default: off)\n"
              "  number=<number>            a number (default: 7)\n"
              "  wide=<number>              any number\n"
              "  size=<size>                a size (default: 4K)\n"
              "  fd=<descriptor>            a descriptor\n"
              "  text=<text>                a text (default: word)\n"
              "  need=<text>                a needed text (required)\n"
              "  item.N=<text>              a list\n"
              "  other.N=<text>             another list\n"
              "  logfile=<text>             ");
    printed[0] = 0;
    CHECK_INT(chr_help(r.ctx, "rows:abc,help", print_line, printed), 0);
    CHECK_INT(strncmp(printed, "rows: has", 9), 0);
    printed[0] = 0;
    CHECK_INT(chr_help(r.ctx, "lines,help,colour=red", print_line, printed), 0);
    CHECK_INT(strncmp(printed, "rows: has", 9), 0);
    printed[0] = 0;
    CHECK_INT(chr_help(r.ctx, "nothing,help", print_line, printed), CHR_ERR_NOT_FOUND);
    CHECK_INT(chr_help(r.ctx, "nothing:help", print_line, printed), CHR_ERR_NOT_FOUND);
    CHECK_STR(printed, "");
    CHECK_INT(chr_help(r.ctx, NULL, print_line, printed), 0);
    CHECK_INT(strncmp(printed, "backends (BACKEND,help lists the options of one):\n", 50), 0);
    CHECK_HAS(printed, "one):\n  null       ");
    CHECK_HAS(printed, "\n  rows       has a row of each type\n  last       comes last\n");
    printed[0] = 0;
    CHECK_INT(chr_help(r.ctx, "mon:help", print_line, printed), 0);
    CHECK_INT(strncmp(printed, "backends", 8), 0);
    rig_close(&r);
}

TEST(list_of_backends)
{
    chr_backend        stranger = rows_kind;
    const chr_backend *kind, *before = NULL;
    chr_error          err;
    rig                r;
    int                count = 0;
    open_rows(&r);
    for (kind = chr_backend_next(r.ctx, NULL); kind; before = kind, kind = chr_backend_next(r.ctx, kind)) {
        CHECK(chr_backend_find(r.ctx, kind->name) == kind);
        if (kind->alias) CHECK(chr_backend_find(r.ctx, kind->alias) == kind);
        if (kind == &last_kind) CHECK(before == &rows_kind);
        count++;
    }
    CHECK(before == &last_kind && count > 3);
    CHECK_STR(chr_backend_next(r.ctx, NULL)->name, "null");
    CHECK(chr_backend_next(r.ctx, &stranger) == NULL);
    CHECK(chr_backend_find(r.ctx, "row") == NULL);
    CHECK(chr_backend_find(r.ctx, "rowss") == NULL);
    /* what can't be registered */
    CHECK_INT(chr_backend_register(r.ctx, &stranger, &err), CHR_ERR_EXISTS);
    stranger.name = "lines"; /* an alias is a name */
    CHECK_INT(chr_backend_register(r.ctx, &stranger, &err), CHR_ERR_EXISTS);
    stranger.name = "stranger";
    stranger.alias = NULL;
    stranger.io = NULL;
    CHECK_INT(chr_backend_register(r.ctx, &stranger, &err), CHR_ERR_INVALID);
    CHECK_STR(err.text, "backend 'stranger': state_size, options_size, open and io must be set");
    stranger.io = &rows_io;
    stranger.open = NULL;
    CHECK_INT(chr_backend_register(r.ctx, &stranger, &err), CHR_ERR_INVALID);
    stranger.open = rows_open;
    stranger.state_size = sizeof(chr_dev) - 1;
    CHECK_INT(chr_backend_register(r.ctx, &stranger, &err), CHR_ERR_INVALID);
    stranger.state_size = sizeof(chr_dev);
    stranger.options_size = sizeof(chr_common_options) - 1;
    CHECK_INT(chr_backend_register(r.ctx, &stranger, &err), CHR_ERR_INVALID);
    stranger.options_size = sizeof(rows_options);
    r.fail_at = r.calls + 1;
    CHECK_INT(chr_backend_register(r.ctx, &stranger, &err), CHR_ERR_NO_MEMORY);
    r.fail_at = 0;
    CHECK(chr_backend_find(r.ctx, "stranger") == NULL);
    CHECK_INT(chr_backend_register(r.ctx, &stranger, &err), 0);
    CHECK(chr_backend_find(r.ctx, "stranger") == &stranger);
    CHECK(chr_backend_next(r.ctx, &last_kind) == &stranger);
    CHECK(chr_backend_next(r.ctx, &stranger) == NULL);
    rig_close(&r);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* Each allocation fails in turn: the error is CHR_ERR_NO_MEMORY, and nothing leaks. */
static void check_memory(const char *text, int is_uri)
{
    chr_error err;
    chr_dev  *dev;
    rig       r;
    long      at;
    open_rows(&r);
    for (at = 1; at < 100; at++) {
        r.fail_at = r.calls + at;
        r.failed = 0;
        memset(&err, 0, sizeof err);
        dev = is_uri ? chr_new_any(r.ctx, "u", text, &err) : chr_new(r.ctx, text, &err);
        r.fail_at = 0;
        if (dev) break;
        if (!CHECK_INT(err.code, CHR_ERR_NO_MEMORY)) NOTE("%s: allocation %ld", text, at);
        CHECK(chr_next(r.ctx, NULL) == NULL);
    }
    CHECK(at > 3 && at < 100);
    CHECK_INT(r.failed, 0);
    rig_close(&r); /* nothing is left */
}

TEST(memory_of_options)
{
    check_memory("rows,id=a,need=x,text=t,item.0=a,item.1=b,other.0=c,history=10,obuf=10", 0);
    check_memory("rows,id=a,need=x,mux=on,obuf=10", 0);
    check_memory("rows:need/text", 1);
    check_memory("mon:rows:need/text", 1);
    check_memory("last,obuf=1K", 1);
    check_memory("mon:last,obuf=1K", 1);
    check_memory("file:/dev/null", 1);
    check_memory("udp:127.0.0.1:9", 1);
}
