/* The options: text syntax, types, errors, help, aliases and URIs. Parsed with a backend of our own that has every
 * type. */
#include "chardev.h"
#include "rig.h"

/* ---- the probe: a backend that only remembers its options -------------------------------------------------------- */

typedef struct probe_options {
    chr_common_options common;
    chr_bool           flag, node, wait;
    int64_t            number, notify, size;
    const char        *text, *must;
    int                fd;
    const char *const *item;
} probe_options;

typedef struct probe {
    chr_dev dev;
} probe;

static probe_options got;          /* of the last one opened; strings copied below */
static char         *got_text;
static char          got_items[400]; /* each with a '|' behind it */
static int           opened, closed, open_answer;

static int probe_open(chr_dev *dev, chr_error *err)
{
    const char *const *item;
    (void)err;
    memcpy(&got, dev->options, sizeof got);
    free(got_text);
    got_text = got.text ? strdup(got.text) : NULL;
    got_items[0] = 0;
    for (item = got.item; item && *item; item++) snprintf(got_items + strlen(got_items), sizeof got_items - strlen(got_items), "%s|", *item);
    opened++;
    return open_answer;
}

static void probe_close(chr_dev *dev)
{
    (void)dev;
    closed++;
}

static const chr_option probe_table[] = {
    { "flag", CHR_OPTION_BOOL, offsetof(probe_options, flag), "off", 0, 0, "a flag" },
    { "node", CHR_OPTION_BOOL, offsetof(probe_options, node), "off", 0, 0, "a flag that begins with no" },
    { "wait", CHR_OPTION_BOOL, offsetof(probe_options, wait), "on", 0, 0, "a flag that is on by default" },
    { "number", CHR_OPTION_NUMBER, offsetof(probe_options, number), "7", -5, 1000, "a number from -5 to 1000" },
    { "notify", CHR_OPTION_NUMBER, offsetof(probe_options, notify), NULL, INT64_MIN, INT64_MAX, "any number" },
    { "size", CHR_OPTION_SIZE, offsetof(probe_options, size), "64K", 0, INT64_MAX, "a size in bytes" },
    { "text", CHR_OPTION_TEXT, offsetof(probe_options, text), NULL, 0, 0, "any text" },
    { "fd", CHR_OPTION_FD, offsetof(probe_options, fd), NULL, 0, 0, "a descriptor" },
    { "must", CHR_OPTION_TEXT, offsetof(probe_options, must), CHR_REQUIRED, 0, 0, "has to be there" },
    { "item", CHR_OPTION_LIST, offsetof(probe_options, item), NULL, 0, 0, "any number of texts" },
    { NULL, CHR_OPTION_BOOL, 0, NULL, 0, 0, NULL }
};

static const chr_io probe_io = { NULL, NULL, NULL, NULL };

CHR_TABLE(chr_backend, probe_backend,
    CHR_SET(name,         "probe")
    CHR_SET(alias,        "sonde")
    CHR_SET(help,         "remembers its options")
    CHR_SET(options,      probe_table)
    CHR_SET(options_size, sizeof(probe_options))
    CHR_SET(state_size,   sizeof(probe))
    CHR_SET(open,         probe_open)
    CHR_SET(close,        probe_close)
    CHR_SET(io,           &probe_io));

static void open_probe_rig(rig *r)
{
    chr_error err;
    rig_open_virtual(r);
    REQUIRE(chr_backend_register(r->ctx, &probe_backend, &err) == 0);
}

static void close_probe_rig(rig *r)
{
    free(got_text);
    got_text = NULL;
    rig_close(r);
}

/* Opens a probe with these options (and a good id and must=x), and removes it again. */
static int probe_with(rig *r, const char *options)
{
    chr_error err;
    size_t    size = strlen(options) + 64;
    char     *text = (char *)malloc(size);
    chr_dev  *dev;
    REQUIRE(text != NULL);
    snprintf(text, size, "probe,id=p,must=x%s%s", *options ? "," : "", options);
    memset(&got, 0, sizeof got);
    dev = chr_new(r->ctx, text, &err);
    free(text);
    if (!dev) return err.code;
    CHECK_INT(chr_remove(r->ctx, "p", &err), 0);
    return 0;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

TEST(bool_words)
{
    static const struct { const char *text; chr_bool value; } table[] = {
        { "flag=on", CHR_ON },  { "flag=yes", CHR_ON }, { "flag=true", CHR_ON },   { "flag=y", CHR_ON },
        { "flag=off", CHR_OFF }, { "flag=no", CHR_OFF }, { "flag=false", CHR_OFF }, { "flag=n", CHR_OFF },
        { "flag", CHR_ON },     { "noflag", CHR_OFF },
    };
    size_t i;
    rig    r;
    open_probe_rig(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++)
        if (!CHECK_INT(probe_with(&r, table[i].text), 0) || !CHECK_INT(got.flag, table[i].value)) NOTE("for %s", table[i].text);
    close_probe_rig(&r);
}

TEST(lists)
{
    static const struct { const char *text, *items; } table[] = {
        { "", "" }, { "item.0=a", "a|" }, { "item.0=a,item.1=b", "a|b|" }, { "item.1=b,text=x,item.0=a", "a|b|" },
        { "item.0=,item.1=,,", "|,|" }, { "item.0=a,item.0=c", "c|" },
        { "item=a", "a|" }, { "item=a,item.1=b", "a|b|" }, { "item=a,item.0=b", "b|" }, { "item.0=b,item=a", "a|" },
        { "item.0=0,item.1=1,item.2=2,item.3=3,item.4=4,item.5=5,item.6=6,item.7=7,item.8=8,item.9=9,item.10=10", "0|1|2|3|4|5|6|7|8|9|10|" },
    };
    static const struct { const char *text, *error; } bad[] = {
        { "item.1=b", "item.1=b: there is no item.0" }, { "item.0=a,item.2=c", "item.2=c: there is no item.1" },
        { "item,item.0=a", "item: needs a value" },     { "item.=a", "unknown option 'item.=a'" },
        { "item.00=a", "unknown option 'item.00=a'" },  { "item.x=a", "unknown option" },
        { "item.0x=a", "unknown option" },              { "item.-1=a", "unknown option" },
        { "item.0", "needs a value" },                  { "item.99999999999999999999=a", "item" },
        { "color=red", "item.N" },
    };
    size_t i;
    rig    r;
    open_probe_rig(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++)
        if (!CHECK_INT(probe_with(&r, table[i].text), 0) || !CHECK_STR(got_items, table[i].items)) NOTE("for %s", table[i].text);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        chr_error err;
        char      text[200];
        snprintf(text, sizeof text, "probe,id=p,must=x,%s", bad[i].text);
        if (!CHECK_INT(refuse(&r, text, &err), CHR_ERR_INVALID) || !CHECK_HAS(err.text, bad[i].error)) NOTE("for %s", bad[i].text);
    }
    close_probe_rig(&r);
}

/* The typed caller's array and texts are copied. */
TEST(typed_lists)
{
    char          text[8] = "one";
    const char   *items[3] = { text, "two", NULL };
    probe_options options;
    chr_dev      *dev;
    rig           r;
    open_probe_rig(&r);
    memset(&options, 0, sizeof options);
    options.must = "x";
    options.item = items;
    dev = chr_open(r.ctx, "p", &probe_backend, &options, NULL);
    REQUIRE(dev != NULL);
    CHECK_STR(got_items, "one|two|");
    strcpy(text, "xxx");
    items[1] = NULL;
    CHECK_STR(((const probe_options *)dev->options)->item[0], "one");
    CHECK_STR(((const probe_options *)dev->options)->item[1], "two");
    CHECK(((const probe_options *)dev->options)->item[2] == NULL);
    close_probe_rig(&r);
}

TEST(no_words_of_keys_that_begin_with_no)
{
    rig r;
    open_probe_rig(&r);
    CHECK_INT(probe_with(&r, "node"), 0);
    CHECK_INT(got.node, CHR_ON);
    CHECK_INT(probe_with(&r, "nonode"), 0);
    CHECK_INT(got.node, CHR_OFF);
    CHECK_INT(probe_with(&r, "nowait"), 0);
    CHECK_INT(got.wait, CHR_OFF);
    CHECK_INT(probe_with(&r, "wait"), 0);
    CHECK_INT(got.wait, CHR_ON);
    close_probe_rig(&r);
}

TEST(numbers)
{
    static const struct { const char *text; int64_t value; } table[] = {
        { "number=1", 1 }, { "number=10", 10 }, { "number=0x1f", 31 }, { "number=0X1F", 31 }, { "number=-5", -5 },
        { "number=1000", 1000 }, { "number=0x3e8", 1000 }, { "number=010", 10 }, { "number=007", 7 },
    };
    size_t i;
    rig    r;
    open_probe_rig(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++)
        if (!CHECK_INT(probe_with(&r, table[i].text), 0) || !CHECK_INT(got.number, table[i].value)) NOTE("for %s", table[i].text);
    CHECK_INT(probe_with(&r, "notify=9223372036854775807"), 0);
    CHECK(got.notify == INT64_MAX);
    CHECK_INT(probe_with(&r, "notify=0x7fffffffffffffff"), 0);
    CHECK(got.notify == INT64_MAX);
    CHECK_INT(probe_with(&r, "notify=-9223372036854775808"), 0);
    CHECK(got.notify == INT64_MIN);
    CHECK_INT(probe_with(&r, "notify=-0x8000000000000000"), 0);
    CHECK(got.notify == INT64_MIN);
    CHECK_INT(probe_with(&r, "notify=-0"), 0);
    CHECK(got.notify == 0);
    close_probe_rig(&r);
}

TEST(sizes)
{
    static const struct { const char *text; int64_t value; } table[] = {
        { "size=1", 1 },
        { "size=512", 512 },
        { "size=512B", 512 },
        { "size=1K", 1024 },
        { "size=64K", 65536 },
        { "size=1.5K", 1536 },
        { "size=0.5K", 512 },
        { "size=0.25M", 262144 },
        { "size=2M", 2097152 },
        { "size=3G", INT64_C(3221225472) },
        { "size=1T", INT64_C(1099511627776) },
        { "size=1.5T", INT64_C(1649267441664) },
        { "size=0x10", 16 },
    };
    size_t i;
    rig    r;
    open_probe_rig(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++)
        if (!CHECK_INT(probe_with(&r, table[i].text), 0) || !CHECK_INT(got.size, table[i].value)) NOTE("for %s", table[i].text);
    close_probe_rig(&r);
}

/* Each is refused with one line that names the backend, the key and the value. */
TEST(wrong_values)
{
    static const struct { const char *key, *value; } table[] = {
        { "flag", "maybe" }, { "flag", "1" }, { "flag", "onn" }, { "flag", "o" }, { "flag", "" },
        { "number", "12x" }, { "number", "x12" }, { "number", "0x" }, { "number", "1001" }, { "number", "-6" }, { "number", "1.5" },
        { "number", "" }, { "number", " 5" }, { "number", "5 " }, { "number", "+-5" }, { "number", "--5" }, { "number", "0x3e9" },
        { "number", "99999999999999999999" }, { "number", "on" }, { "number", "1K" }, { "number", "0xfffffffffffffffff" },
        { "number", "-99999999999999999999" },
        { "notify", "9223372036854775808" }, { "notify", "-9223372036854775809" }, { "notify", "18446744073709551616" },
        { "size", "1KK" }, { "size", "1X" }, { "size", "K" }, { "size", "-1" }, { "size", "1.K.5" }, { "size", "." }, { "size", "" },
        { "size", "99999999T" }, { "size", "9223372036854775808" }, { "size", "1K " }, { "size", "1e3" }, { "size", "8388608T" },
        { "fd", "12x" }, { "fd", "-2" }, { "fd", "99999999999" }, { "fd", "name" },
    };
    size_t i;
    rig    r;
    open_probe_rig(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        char      text[200];
        chr_error err;
        int       before = opened;
        snprintf(text, sizeof text, "probe,id=p,must=x,%s=%s", table[i].key, table[i].value);
        if (!CHECK_INT(refuse(&r, text, &err), CHR_ERR_INVALID)) NOTE("for %s: %s", text, err.text);
        if (!CHECK_HAS(err.text, "probe") || !CHECK_HAS(err.text, table[i].key) || !CHECK_HAS(err.text, table[i].value))
            NOTE("for %s", text);
        CHECK_INT(opened, before);
    }
    close_probe_rig(&r);
}

/* A bare word for something that is no flag is the value "on", which is no number. */
TEST(bare_word_for_a_number)
{
    chr_error err;
    rig       r;
    open_probe_rig(&r);
    CHECK_INT(refuse(&r, "probe,id=p,must=x,number", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "number");
    CHECK_INT(refuse(&r, "probe,id=p,must=x,nonumber", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "number");
    close_probe_rig(&r);
}

TEST(defaults)
{
    rig r;
    open_probe_rig(&r);
    CHECK_INT(probe_with(&r, ""), 0);
    CHECK(got.flag != CHR_ON);
    CHECK(got.wait != CHR_OFF);
    CHECK_INT(got.number, 7);
    CHECK_INT(got.notify, 0);
    CHECK_INT(got.size, 65536);
    CHECK(got.text == NULL);
    CHECK_INT(got.fd, -1);
    CHECK(got.common.logfile == NULL);
    CHECK(got.common.logappend != CHR_ON);
    CHECK(got.common.logtimestamp != CHR_ON);
    CHECK(got.common.mux != CHR_ON);
    close_probe_rig(&r);
}

TEST(typed_struct_gets_the_same_defaults)
{
    chr_error     err;
    probe_options options;
    rig           r;
    open_probe_rig(&r);
    memset(&options, 0, sizeof options);
    options.must = "x";
    options.fd = -1;
    REQUIRE(chr_open(r.ctx, "p", &probe_backend, &options, &err) != NULL);
    CHECK_INT(got.number, 7);
    CHECK_INT(got.size, 65536);
    close_probe_rig(&r);
}

TEST(typed_struct_is_checked_too)
{
    chr_error     err;
    probe_options options;
    rig           r;
    open_probe_rig(&r);
    memset(&options, 0, sizeof options);
    options.fd = -1;
    CHECK(chr_open(r.ctx, "p", &probe_backend, &options, &err) == NULL); /* lacks `must` */
    CHECK_INT(err.code, CHR_ERR_INVALID);
    CHECK_HAS(err.text, "must");
    CHECK(chr_open(r.ctx, "p", &probe_backend, NULL, &err) == NULL);
    CHECK_HAS(err.text, "must");
    options.must = "x";
    options.number = 1001;
    CHECK(chr_open(r.ctx, "p", &probe_backend, &options, &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_INVALID);
    CHECK_HAS(err.text, "number");
    CHECK_INT(opened, 0);
    close_probe_rig(&r);
}

TEST(typed_strings_are_copied)
{
    chr_error     err;
    probe_options options;
    chr_dev      *dev;
    char          text[] = "short-lived";
    rig           r;
    open_probe_rig(&r);
    memset(&options, 0, sizeof options);
    options.must = "x";
    options.fd = -1;
    options.text = text;
    dev = chr_open(r.ctx, "p", &probe_backend, &options, &err);
    REQUIRE(dev != NULL);
    memset(text, '#', sizeof text - 1);
    CHECK_STR(((const probe_options *)dev->options)->text, "short-lived");
    close_probe_rig(&r);
}

/* ---- the syntax around the values -------------------------------------------------------------------------------- */

TEST(comma_is_doubled)
{
    static const struct { const char *text, *value; } table[] = {
        { "text=a,,b", "a,b" },       { "text=,,", "," },           { "text=,,,,", ",," },     { "text=a,,", "a," },
        { "text=,,a", ",a" },         { "text=a,,b,flag=on", "a,b" }, { "text=a=b", "a=b" },     { "text=a==", "a==" },
        { "text=a,,flag=on", "a,flag=on" }, { "text=/tmp/x y", "/tmp/x y" }, { "text=a,,,flag", "a," },
    };
    size_t i;
    rig    r;
    open_probe_rig(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++)
        if (!CHECK_INT(probe_with(&r, table[i].text), 0) || !CHECK_STR(got_text, table[i].value)) NOTE("for %s", table[i].text);
    close_probe_rig(&r);
}

TEST(last_of_two_equal_keys_wins)
{
    rig r;
    open_probe_rig(&r);
    CHECK_INT(probe_with(&r, "text=a,text=b"), 0);
    CHECK_STR(got_text, "b");
    CHECK_INT(probe_with(&r, "flag=on,flag=off"), 0);
    CHECK_INT(got.flag, CHR_OFF);
    CHECK_INT(probe_with(&r, "noflag,flag"), 0);
    CHECK_INT(got.flag, CHR_ON);
    CHECK_INT(probe_with(&r, "number=5,size=1,number=6"), 0);
    CHECK_INT(got.number, 6);
    close_probe_rig(&r);
}

TEST(order_is_free)
{
    static const char *const table[] = {
        "probe,id=p,must=x",         "probe,must=x,id=p",         "backend=probe,id=p,must=x", "id=p,backend=probe,must=x",
        "id=p,must=x,backend=probe", "id=p,probe,must=x",         "id=p,must=x,probe",         "sonde,id=p,must=x",
        "backend=sonde,id=p,must=x",
    };
    size_t i;
    rig    r;
    open_probe_rig(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        chr_error err;
        chr_dev  *dev = chr_new(r.ctx, table[i], &err);
        if (!CHECK(dev != NULL)) {
            NOTE("for %s: %s", table[i], err.text);
            continue;
        }
        CHECK_STR(dev->id, "p");
        CHECK_STR(dev->kind->name, "probe");
        chr_remove(r.ctx, "p", &err);
    }
    close_probe_rig(&r);
}

TEST(values_of_any_length)
{
    size_t len = 1000000;
    char  *text = (char *)malloc(len + 8);
    rig    r;
    open_probe_rig(&r);
    REQUIRE(text != NULL);
    memcpy(text, "text=", 5);
    memset(text + 5, 'v', len);
    text[5 + len] = 0;
    CHECK_INT(probe_with(&r, text), 0);
    CHECK(got_text && strlen(got_text) == len);
    free(text);
    close_probe_rig(&r);
}

/* The message is cut, but stays a line, and nothing overflows. */
TEST(unknown_keys_and_values_of_any_length)
{
    size_t    len = 1000000;
    char     *text = (char *)malloc(len + 64);
    chr_error err;
    rig       r;
    open_probe_rig(&r);
    REQUIRE(text != NULL);
    strcpy(text, "probe,id=p,must=x,");
    memset(text + strlen(text), 0, 1);
    memset(text + 18, 'k', len);
    strcpy(text + 18 + len, "=1");
    CHECK_INT(refuse(&r, text, &err), CHR_ERR_INVALID);
    CHECK(memchr(err.text, 0, sizeof err.text) != NULL);
    memcpy(text + 18, "number=", 7);
    text[18 + len] = 0;
    CHECK_INT(refuse(&r, text, &err), CHR_ERR_INVALID);
    memset(text, 'b', len);
    text[len] = 0;
    CHECK(refuse(&r, text, &err) < 0);
    free(text);
    close_probe_rig(&r);
}

TEST(errors_name_what_is_wrong)
{
    static const struct { const char *options, *words[4]; } table[] = {
        { "probe,id=p,must=x,colour=red", { "probe", "colour", "number", "must" } },
        { "probe,id=p,must=x,colour", { "probe", "colour", "flag", "text" } },
        { "probe,id=p,must=x,nocolour", { "probe", "colour", NULL, NULL } },
        { "probe,id=p", { "probe", "must", NULL, NULL } },
        { "null,id=p,size=4", { "null", "size", "logfile", NULL } },
        { "ringbuf,id=p,path=x", { "ringbuf", "path", "size", NULL } },
        { "file,id=p", { "file", "path", NULL, NULL } },
        { "pipe,id=p", { "pipe", "path", NULL, NULL } },
        { "mux,id=p", { "mux", "chardev", NULL, NULL } },
        { "carrier-pigeon,id=p", { "carrier-pigeon", NULL, NULL, NULL } },
        { "backend=carrier-pigeon,id=p", { "carrier-pigeon", NULL, NULL, NULL } },
        { "id=p", { "backend", NULL, NULL, NULL } },
        { "null,id=p,logappend=perhaps", { "null", "logappend", "perhaps", NULL } },
    };
    size_t i, w;
    rig    r;
    open_probe_rig(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        chr_error err;
        refuse(&r, table[i].options, &err);
        for (w = 0; w < 4 && table[i].words[w]; w++)
            if (!CHECK_HAS(err.text, table[i].words[w])) NOTE("for %s", table[i].options);
    }
    CHECK_INT(opened, 0);
    close_probe_rig(&r);
}

TEST(broken_texts)
{
    static const char *const table[] = { "", ",", "=", "=x", ",,", ",,,", "probe,=x,id=p,must=y", "probe,id=p,must=x,=,", "no", "null,id=p,no",
                                         "null,id=p,=" };
    size_t i;
    rig    r;
    open_probe_rig(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        chr_error err;
        refuse(&r, table[i], &err);
    }
    close_probe_rig(&r);
}

/* NULL for `err` is allowed everywhere. */
TEST(errors_may_go_untold)
{
    rig r;
    open_probe_rig(&r);
    CHECK(chr_new(r.ctx, "nonsense,id=p", NULL) == NULL);
    CHECK(chr_new(r.ctx, "null,id=p,x=y", NULL) == NULL);
    CHECK(chr_new_uri(r.ctx, "p", "nonsense:", NULL) == NULL);
    CHECK(chr_remove(r.ctx, "p", NULL) < 0);
    CHECK(chr_change(r.ctx, "p", "null", NULL) < 0);
    CHECK(chr_send_break(r.ctx, "p", NULL) < 0);
    CHECK(chr_fd_close(r.ctx, "p", NULL) < 0);
    CHECK(chr_fd_put(r.ctx, "9", 0, NULL) < 0);
    close_probe_rig(&r);
}

/* ---- ids --------------------------------------------------------------------------------------------------------- */

TEST(ids)
{
    static const char *const good[] = { "a", "Z", "con0", "a-b", "a.b", "a_b", "a0-._", "serial.0" };
    static const char *const bad[] = { "", "0", "0a", "-a", ".a", "_a", "a b", "a/b", "a:b", "a+b", "a\xc3\xa9", "a=b", "a@", "a\n" };
    size_t                   i;
    char                     text[200];
    chr_error                err;
    rig                      r;
    open_probe_rig(&r);
    for (i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(text, sizeof text, "null,id=%s", good[i]);
        if (!CHECK(chr_new(r.ctx, text, &err) != NULL)) NOTE("for %s: %s", text, err.text);
        CHECK(chr_find(r.ctx, good[i]) != NULL);
        chr_remove(r.ctx, good[i], &err);
    }
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "null,id=%s", bad[i]);
        if (!CHECK_INT(refuse(&r, text, &err), CHR_ERR_INVALID)) NOTE("for %s", text);
        if (bad[i][0] && bad[i][1] != '\n') CHECK_HAS(err.text, "id");
        CHECK(chr_open(r.ctx, bad[i], chr_backend_find(r.ctx, "null"), NULL, &err) == NULL);
        CHECK_INT(err.code, CHR_ERR_INVALID);
    }
    close_probe_rig(&r);
}

TEST(ids_have_up_to_127_characters)
{
    char      text[200];
    chr_error err;
    rig       r;
    open_probe_rig(&r);
    memset(text, 'a', sizeof text);
    memcpy(text, "null,id=", 8);
    text[8 + 127] = 0;
    CHECK(chr_new(r.ctx, text, &err) != NULL);
    CHECK_INT(chr_remove(r.ctx, text + 8, &err), 0);
    text[8 + 127] = 'a';
    text[8 + 128] = 0;
    CHECK_INT(refuse(&r, text, &err), CHR_ERR_INVALID);
    close_probe_rig(&r);
}

TEST(ids_are_unique)
{
    chr_error err;
    rig       r;
    open_probe_rig(&r);
    make(&r, "null,id=a");
    CHECK(chr_new(r.ctx, "ringbuf,id=a", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_EXISTS);
    CHECK_HAS(err.text, "a");
    CHECK(chr_new_uri(r.ctx, "a", "null", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_EXISTS);
    CHECK(chr_open(r.ctx, "a", chr_backend_find(r.ctx, "null"), NULL, &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_EXISTS);
    CHECK_STR(chr_find(r.ctx, "a")->kind->name, "null");
    close_probe_rig(&r);
}

/* ---- failing in open --------------------------------------------------------------------------------------------- */

TEST(failed_open_is_closed_once_and_forgotten)
{
    chr_error err;
    rig       r;
    open_probe_rig(&r);
    open_answer = CHR_ERR_IO;
    CHECK(chr_new(r.ctx, "probe,id=p,must=x", &err) == NULL);
    CHECK_INT(opened, 1);
    CHECK_INT(closed, 1);
    CHECK_INT(err.code, CHR_ERR_IO);
    CHECK(chr_find(r.ctx, "p") == NULL);
    open_answer = 0;
    CHECK(chr_new(r.ctx, "probe,id=p,must=x", &err) != NULL);
    close_probe_rig(&r);
    CHECK_INT(closed, 2);
}

TEST(registering_twice)
{
    chr_error err;
    rig       r;
    open_probe_rig(&r);
    CHECK_INT(chr_backend_register(r.ctx, &probe_backend, &err), CHR_ERR_EXISTS);
    CHECK_HAS(err.text, "probe");
    CHECK(chr_backend_find(r.ctx, "probe") == &probe_backend);
    CHECK(chr_backend_find(r.ctx, "sonde") == &probe_backend);
    close_probe_rig(&r);
}

/* ---- help -------------------------------------------------------------------------------------------------------- */

static char help_text[20000];
static int  help_lines;

static void help_print(void *opaque, const char *line)
{
    (void)opaque;
    CHECK(strchr(line, '\n') == NULL);
    help_lines++;
    strncat(help_text, line, sizeof help_text - strlen(help_text) - 2);
    strcat(help_text, "\n");
}

static int help(rig *r, const char *backend)
{
    help_text[0] = 0;
    help_lines = 0;
    return chr_help(r->ctx, backend, help_print, NULL);
}

TEST(asking_for_help)
{
    static const char *const table[] = { "help", "?", "socket,help", "ringbuf,help", "probe,help", "probe,?", "socket,id=x,help" };
    size_t                   i;
    rig                      r;
    open_probe_rig(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        chr_error err;
        if (!CHECK_INT(refuse(&r, table[i], &err), CHR_ERR_HELP)) NOTE("for %s: %s", table[i], err.text);
        if (!CHECK_INT(help(&r, table[i]), 0)) NOTE("for %s", table[i]);
        CHECK(help_lines > 1);
    }
    close_probe_rig(&r);
}

TEST(help_lists_all_backends)
{
#ifdef _WIN32
    static const char *const names[] = { "null", "ringbuf", "mux", "win", "file", "pipe", "stdio", "console", "serial", "udp", "socket", "probe" };
    static const char *const others[] = { "fd", "pty", "parallel" };
#else
    static const char *const names[] = { "null", "ringbuf", "mux", "fd", "file", "pipe", "pty", "stdio", "socket", "probe" };
    static const char *const others[] = { "win", "console" };
#endif
    const chr_backend       *kind = NULL;
    size_t                   i;
    int                      count = 0;
    rig                      r;
    open_probe_rig(&r);
    CHECK_INT(help(&r, NULL), 0);
    for (i = 0; i < sizeof names / sizeof *names; i++) {
        CHECK_HAS(help_text, names[i]);
        CHECK(chr_backend_find(r.ctx, names[i]) != NULL);
    }
    for (i = 0; i < sizeof others / sizeof *others; i++) {
        char line[40];
        snprintf(line, sizeof line, "\n  %s ", others[i]); /* as a backend's line begins */
        CHECK(strstr(help_text, line) == NULL && chr_backend_find(r.ctx, others[i]) == NULL);
    }
    CHECK(strstr(help_text, "\n  null ") != NULL);
    while ((kind = chr_backend_next(r.ctx, kind)) != NULL) {
        CHECK_HAS(help_text, kind->name);
        CHECK_HAS(help_text, kind->help);
        count++;
    }
    CHECK(count >= 10);
    close_probe_rig(&r);
}

static int help_line_with(const char *a, const char *b, const char *c)
{
    char *copy = strdup(help_text), *line, *rest = copy;
    int   found = 0;
    while ((line = strsep(&rest, "\n")) != NULL)
        if (strstr(line, a) && (!b || strstr(line, b)) && (!c || strstr(line, c))) found = 1;
    free(copy);
    return found;
}

/* The name, default and description of each row are on one line of the help. */
TEST(help_comes_from_the_table)
{
    const chr_backend *kind = NULL;
    rig                r;
    open_probe_rig(&r);
    while ((kind = chr_backend_next(r.ctx, kind)) != NULL) {
        const chr_option *row = kind->options;
        CHECK_INT(help(&r, kind->name), 0);
        CHECK_HAS(help_text, "logfile");
        CHECK_HAS(help_text, "logappend");
        CHECK_HAS(help_text, "logtimestamp");
        for (; row && row->name; row++)
            if (!CHECK(help_line_with(row->name, row->help, row->default_text))) NOTE("%s of %s", row->name, kind->name);
    }
    close_probe_rig(&r);
}

TEST(help_of_unknown_and_alias)
{
    rig r;
    open_probe_rig(&r);
    CHECK_INT(help(&r, "carrier-pigeon"), CHR_ERR_NOT_FOUND);
    CHECK_INT(help(&r, "memory"), 0);
    CHECK_HAS(help_text, "size");
    close_probe_rig(&r);
}

TEST(memory_is_ringbuf)
{
    rig r;
    rig_open_virtual(&r);
    CHECK_STR(make(&r, "memory,id=m,size=16")->kind->name, "ringbuf");
    rig_close(&r);
}

/* ---- URIs -------------------------------------------------------------------------------------------------------- */

static chr_dev *from_uri(rig *r, const char *uri)
{
    chr_error err;
    chr_dev  *dev = chr_new_uri(r->ctx, "u", uri, &err);
    if (!dev && is_left_out(&err)) SKIP(strstr(err.text, "built without"));
    if (!dev) NOTE("%s: %s", uri, err.text);
    CHECK(dev != NULL);
    return dev;
}

TEST(uris_of_plain_names)
{
    chr_error err;
    chr_dev  *dev;
    rig       r;
    rig_open_virtual(&r);
    dev = from_uri(&r, "null");
    if (dev) CHECK_STR(dev->kind->name, "null");
    CHECK_INT(chr_remove(r.ctx, "u", &err), 0);
    dev = from_uri(&r, "pty");
    if (dev) CHECK_STR(dev->kind->name, "pty");
    rig_close(&r);
}

TEST(uri_of_a_file)
{
    chr_frontend fe;
    chr_error    err;
    chr_dev     *dev;
    char         uri[200];
    rig          r;
    rig_open_virtual(&r);
    memset(&fe, 0, sizeof fe);
    snprintf(uri, sizeof uri, "file:%s", scratch("a,b=c"));
    dev = from_uri(&r, uri); /* the rest is the path, as it stands */
    REQUIRE(dev && chr_fe_init(&fe, dev, &err) == 0);
    CHECK_INT(chr_fe_write(&fe, "x", 1), 1);
    chr_fe_deinit(&fe);
    CHECK_STR(read_file(scratch("a,b=c")), "x");
    rig_close(&r);
    scratch_clean();
}

TEST(uri_of_a_pipe)
{
    chr_dev *dev;
    char     uri[200];
    rig      r;
    rig_open_virtual(&r);
    REQUIRE(mkfifo(scratch("p"), 0600) == 0);
    snprintf(uri, sizeof uri, "pipe:%s", scratch("p"));
    dev = from_uri(&r, uri);
    if (dev) CHECK_STR(dev->kind->name, "pipe");
    rig_close(&r);
    scratch_clean();
}

static const chr_socket_options *socket_options(const chr_dev *dev)
{
    return (const chr_socket_options *)dev->options;
}

TEST(uris_of_tcp)
{
    static const struct { const char *uri; const char *host, *port; } table[] = {
        { "tcp::0,server=on,wait=off", NULL, "0" },
        { "tcp::0,server,nowait", NULL, "0" },
        { "tcp:127.0.0.1:0,server=on,wait=off", "127.0.0.1", "0" },
        { "tcp:[::1]:0,server=on,wait=off", "::1", "0" },
        { "tcp:localhost:0,server=on,wait=off,nodelay", "localhost", "0" },
    };
    size_t i;
    rig    r;
    rig_open_virtual(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        chr_error           err;
        const chr_address  *address;
        chr_dev            *dev;
        if (strstr(table[i].uri, "::1") && !has_ipv6_loopback()) continue;
        if (strstr(table[i].uri, "localhost") && !localhost_resolves()) continue;
        dev = from_uri(&r, table[i].uri);
        if (!dev) continue;
        CHECK_STR(dev->kind->name, "socket");
        address = &socket_options(dev)->address;
        if (table[i].host) CHECK_STR(address->host, table[i].host);
        else CHECK(address->host == NULL || !address->host[0]);
        CHECK_STR(address->port, table[i].port);
        CHECK_INT(socket_options(dev)->server, CHR_ON);
        CHECK_INT(socket_options(dev)->wait, CHR_OFF);
        CHECK_INT(chr_remove(r.ctx, "u", &err), 0);
    }
    rig_close(&r);
}

TEST(uri_of_unix)
{
    chr_dev *dev;
    char     uri[200];
    rig      r;
    rig_open_virtual(&r);
    NEED_UNIX();
    snprintf(uri, sizeof uri, "unix:%s,server=on,wait=off", scratch("s"));
    dev = from_uri(&r, uri);
    if (dev) CHECK_STR(socket_options(dev)->address.path, scratch("s"));
    CHECK(exists(scratch("s")));
    rig_close(&r);
    scratch_clean();
}

TEST(uri_of_an_existing_chardev)
{
    chr_error err;
    chr_dev  *dev;
    rig       r;
    rig_open_virtual(&r);
    dev = make(&r, "ringbuf,id=ring");
    CHECK(chr_new_uri(r.ctx, NULL, "chardev:ring", &err) == dev);
    CHECK(chr_new_uri(r.ctx, "u", "chardev:nothing", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, "nothing");
    rig_close(&r);
}

TEST(uri_with_mon_makes_a_mux)
{
    chr_error err;
    chr_dev  *dev;
    rig       r;
    rig_open_virtual(&r);
    dev = from_uri(&r, "mon:null");
    if (dev) {
        CHECK_STR(dev->kind->name, "mux");
        CHECK(chr_find(r.ctx, "u") == dev);
        CHECK(chr_find(r.ctx, "u-base") != NULL);
        if (chr_find(r.ctx, "u-base")) CHECK_STR(chr_find(r.ctx, "u-base")->kind->name, "null");
        CHECK_INT(chr_remove(r.ctx, "u", &err), 0);
        CHECK(chr_find(r.ctx, "u") == NULL);
    }
    rig_close(&r);
}

/* As a terminal's ^C then has to reach the guest, mon:stdio also switches signals off. */
TEST(uri_mon_stdio_has_no_signals)
{
    chr_dev *base;
    rig      r;
    int      null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    close(null);
    rig_open(&r);
    CHECK(from_uri(&r, "mon:stdio") != NULL);
    base = chr_find(r.ctx, "u-base");
    REQUIRE(base != NULL);
    CHECK_INT(((const chr_stdio_options *)base->options)->signal, CHR_OFF);
    rig_close(&r);
}

TEST(uris_that_are_none)
{
    static const char *const table[] = { "", "nonsense", "nonsense:x", ":", "file:", "pipe:", "tcp:", "tcp:host", "tcp:host:", "tcp:[::1:5", "unix:",
                                         "tcp::4444,fd=3", "unix:/tmp/x,fd=0", "socket", "socket,fd=0", "fd:3", "socket:3", "mon:", "mon:nonsense",
                                         "chardev:", "null,x=y", "tcp::4444,colour=red", "null:x" };
    size_t                   i;
    rig                      r;
    rig_open_virtual(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        chr_error err;
        int       fds = count_fds();
        memset(&err, 0, sizeof err);
        if (!CHECK(chr_new_uri(r.ctx, "u", table[i], &err) == NULL) || !CHECK(err.code < 0) || !CHECK(err.text[0])) {
            NOTE("for \"%s\"", table[i]);
            chr_remove(r.ctx, "u", &err);
        }
        CHECK_INT(count_fds(), fds);
        CHECK(chr_next(r.ctx, NULL) == NULL);
    }
    rig_close(&r);
}

TEST(uri_refuses_fd_and_says_so)
{
    chr_error err;
    rig       r;
    rig_open_virtual(&r);
    CHECK(chr_new_uri(r.ctx, "u", "unix:/tmp/x,server=on,wait=off,fd=3", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_INVALID);
    CHECK_HAS(err.text, "fd");
    rig_close(&r);
}

TEST(uris_of_a_pty)
{
    chr_dev *dev;
    char     uri[200], link[200];
    rig      r;
    rig_open(&r);
    snprintf(uri, sizeof uri, "pty:%s", scratch("tty,nosignal")); /* the rest is the path, as it stands */
    dev = from_uri(&r, uri);
    if (dev) CHECK_STR(((const chr_pty_options *)dev->options)->path, scratch("tty,nosignal"));
    CHECK(readlink(scratch("tty,nosignal"), link, sizeof link) > 0);
    CHECK_INT(chr_remove(r.ctx, "u", NULL), 0);
    CHECK(readlink(scratch("tty,nosignal"), link, sizeof link) < 0);
    snprintf(uri, sizeof uri, "pty,history=4K,path=%s", scratch("tty"));
    dev = from_uri(&r, uri);
    if (dev) CHECK_INT(((const chr_common_options *)dev->options)->history, 4096);
    CHECK(readlink(scratch("tty"), link, sizeof link) > 0);
    rig_close(&r);
    scratch_clean();
}

/* NAME,OPTIONS is a URI for backends without a URI syntax of their own; mon: sets no option that the text contains. */
TEST(uris_with_options)
{
    static const struct { const char *uri; int signal, muxed; } table[] = {
        { "stdio,signal=off", CHR_OFF, 0 }, { "stdio,nosignal", CHR_OFF, 0 }, { "stdio", CHR_ON, 0 },
        { "mon:stdio,signal=on", CHR_ON, 1 }, { "mon:stdio,signal", CHR_ON, 1 }, { "mon:stdio,history=1K", CHR_OFF, 1 },
    };
    chr_dev *dev;
    size_t   i;
    rig      r;
    int      null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    close(null);
    rig_open(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        CHECK(from_uri(&r, table[i].uri) != NULL);
        dev = chr_find(r.ctx, table[i].muxed ? "u-base" : "u");
        if (!CHECK(dev != NULL) || !CHECK_INT(((const chr_stdio_options *)dev->options)->signal, table[i].signal)) NOTE("%s", table[i].uri);
        CHECK_INT(chr_remove(r.ctx, "u", NULL), 0);
    }
    dev = from_uri(&r, "ringbuf,size=16");
    if (dev) CHECK_INT(((const chr_ringbuf_options *)dev->options)->size, 16);
    rig_close(&r);
}

/* Each kind of descriptor, not only the one of sockets; and the backend is named already. */
TEST(uris_name_no_descriptor_and_no_second_backend)
{
    static const char *const table[] = { "fd,in=0,out=1", "fd,in=0", "fd,out=1", "mon:fd,in=0,out=1", "tcp::0,server=on,wait=off,fd=0",
                                         "testdev,backend", "testdev,backend=null", "tcp::0,server=on,wait=off,backend=null" };
    chr_error err;
    size_t    i;
    rig       r;
    rig_open_virtual(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        CHECK(chr_new_uri(r.ctx, "u", table[i], &err) == NULL);
        if (is_left_out(&err)) continue;
        CHECK_INT(err.code, CHR_ERR_INVALID);
        if (!CHECK_HAS(err.text, "in a URI")) NOTE("%s: %s", table[i], err.text);
    }
    CHECK(chr_next(r.ctx, NULL) == NULL);
    rig_close(&r);
}

/* ---- whatever a person writes ------------------------------------------------------------------------------------ */

/* A serial line's name that is none on this system. */
static int is_line_in_dev(const char *text)
{
#ifdef _WIN32
    return text && strncmp(text, "/dev/", 5) == 0;
#else
    return (void)text, 0;
#endif
}

static chr_dev *from_any(rig *r, const char *id, const char *text)
{
    chr_error err;
    chr_dev  *dev = chr_new_any(r->ctx, id, text, &err);
    if (!dev && (is_left_out(&err) || is_line_in_dev(text))) return NULL;
    if (!dev) NOTE("%s: %s", text, err.text);
    CHECK(dev != NULL);
    return dev;
}

TEST(any_takes_options_and_uris)
{
    static const struct { const char *text, *id, *kind; } table[] = {
        { "null", "u", "null" },
        { "none", "u", "null" },
        { "null,id=mine", "mine", "null" },
        { "id=mine,backend=null", "mine", "null" },
        { "size=16,ringbuf", "u", "ringbuf" },
        { "memory,size=16", "u", "ringbuf" },
        { "mon:null", "u", "mux" },
        { "mon:none", "u", "mux" },
        { "mon:ringbuf,size=16,id=mine", "mine", "mux" },
        { "pty", "u", "pty" },
        { "tcp:127.0.0.1:0,server=on,wait=off", "u", "socket" },
        { "tcp:127.0.0.1:0,server,nowait,id=mine", "mine", "socket" },
        { "socket,host=127.0.0.1,port=0,server=on,wait=off", "u", "socket" },
        { "host=127.0.0.1,port=0,server=on,wait=off,backend=socket", "u", "socket" },
        { "mon:socket,host=127.0.0.1,port=0,server=on,wait=off", "u", "mux" },
        { "udp:127.0.0.1:9", "u", "udp" },
        { "/dev/null", "u", "serial" },
        { "file:/dev/null", "u", "file" },
        { "null,logfile=/dev/null", "u", "null" }, /* no URI: the ':' and '/' come behind a ',' */
    };
    chr_info info;
    chr_dev *dev;
    size_t   i;
    rig      r;
    rig_open(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        dev = from_any(&r, "u", table[i].text);
        if (!dev) continue;
        chr_query(dev, &info);
        CHECK_STR(info.id, table[i].id);
        if (!CHECK_STR(info.backend, table[i].kind)) NOTE("for %s", table[i].text);
        CHECK_INT(chr_remove(r.ctx, table[i].id, NULL), 0);
        CHECK(chr_next(r.ctx, NULL) == NULL);
    }
    rig_close(&r);
}

/* As options they may name descriptors; the id of the text counts, and without a default it has to be there. */
TEST(any_takes_descriptors_and_ids)
{
    chr_error err;
    chr_dev  *dev;
    char      text[100];
    int       pair[2];
    rig       r;
    rig_open(&r);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    snprintf(text, sizeof text, "socket,fd=%d", pair[0]);
    dev = from_any(&r, "u", text);
    if (dev) CHECK_STR(dev->kind->name, "socket");
    CHECK(chr_new_any(r.ctx, "u", "null", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_EXISTS);
    CHECK_HAS(err.text, "id=u");
    CHECK(chr_new_any(r.ctx, NULL, "null", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_INVALID);
    CHECK_HAS(err.text, "needs id=");
    CHECK(from_any(&r, NULL, "null,id=n") == chr_find(r.ctx, "n"));
    CHECK(from_any(&r, "other", "chardev:n") == chr_find(r.ctx, "n"));
    CHECK(chr_find(r.ctx, "other") == NULL);
    close(pair[1]);
    rig_close(&r);
}

/* What asks for help gets it, of the same text. */
TEST(any_asks_for_help)
{
    static const struct { const char *text, *first; } table[] = {
        { "help", "backends" }, { "?", "backends" }, { "mon:help", "backends" }, { "id=x,help", "backends" },
        { "socket,help", "socket:" }, { "socket,?", "socket:" }, { "path=/x,socket,help", "" }, { "tcp::4444,help", "socket:" },
        { "mon:stdio,help", "stdio:" }, { "mon:tcp::1,server=on,help", "socket:" }, { "unix:/x,help", "socket:" },
    };
    chr_error err;
    size_t    i;
    rig       r;
    rig_open_virtual(&r);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        int fds = count_fds();
        memset(&err, 0, sizeof err);
        CHECK(chr_new_any(r.ctx, "u", table[i].text, &err) == NULL);
        if (!CHECK_INT(err.code, CHR_ERR_HELP)) NOTE("for %s: %s", table[i].text, err.text);
        CHECK_INT(help(&r, table[i].text), 0);
        if (table[i].first[0] && !CHECK(strncmp(help_text, table[i].first, strlen(table[i].first)) == 0)) NOTE("for %s", table[i].text);
        CHECK_INT(count_fds(), fds);
    }
    CHECK(chr_next(r.ctx, NULL) == NULL);
    CHECK_INT(help(&r, "nonsense,help"), CHR_ERR_NOT_FOUND);
    CHECK_INT(help_lines, 0);
    CHECK_INT(help(&r, "nonsense:x,help"), CHR_ERR_NOT_FOUND);
    CHECK_INT(help_lines, 0);
    rig_close(&r);
}

/* Each error is one line with the reason, and nothing is left behind. */
TEST(any_that_is_nothing)
{
    static const struct { const char *text; int code; const char *words; } table[] = {
        { NULL, CHR_ERR_INVALID, "no backend is named" },
        { "", CHR_ERR_INVALID, "no backend is named" },
        { "mon:", CHR_ERR_INVALID, "no backend is named" },
        { ",", CHR_ERR_INVALID, "no backend is named" },
        { "path=/tmp/x", CHR_ERR_INVALID, "no backend is named" },
        { "sockt,path=/tmp/x", CHR_ERR_NOT_FOUND, "'sockt' is not the name of a backend" },
        { "LPT1", CHR_ERR_NOT_FOUND, "'LPT1'" },
        { "con:", CHR_ERR_NOT_FOUND, "'con:' is not a URI" },
        { "fd:3", CHR_ERR_NOT_FOUND, "'fd:3' is not a URI" },
        { "stdio:", CHR_ERR_NOT_FOUND, "'stdio:' is not a URI" },
        { "mon:nonsense", CHR_ERR_NOT_FOUND, "'nonsense'" },
        { "/tmp/x", CHR_ERR_NOT_FOUND, "'/tmp/x': only a path in /dev may stand alone" },
        { "/dev/no-such-line", CHR_ERR_NOT_FOUND, "/dev/no-such-line: No such file" },
        { "file:", CHR_ERR_INVALID, "file:" },
        { "pty:", CHR_ERR_INVALID, "pty:" },
        { "pipe:", CHR_ERR_INVALID, "pipe:" },
        { "tcp:somewhere", CHR_ERR_INVALID, "port=" },
        { "tcp:[::1:5", CHR_ERR_INVALID, "tcp:[::1:5" },
        { "tcp::0,server=on,wait=off,fd=3", CHR_ERR_INVALID, "fd=" },
        { "tcp::0,sever=on", CHR_ERR_INVALID, "'sever=on'" },
        { "stdio,signal=maybe", CHR_ERR_INVALID, "signal=maybe" },
        { "chardev:", CHR_ERR_NOT_FOUND, "chardev:" },
        { "chardev:nothing", CHR_ERR_NOT_FOUND, "nothing" },
        { "mon:chardev:there", CHR_ERR_INVALID, "chardev:there" },
        { "there", CHR_ERR_NOT_FOUND, "chardev:there" },
        { "null,id=9", CHR_ERR_INVALID, "id=9" },
        { "null,id=", CHR_ERR_INVALID, "needs id=" },
        { "null,id=there", CHR_ERR_EXISTS, "id=there" },
    };
    chr_error err;
    size_t    i;
    rig       r;
    rig_open_virtual(&r);
    make(&r, "null,id=there");
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        int fds = count_fds();
        memset(&err, 0, sizeof err);
        CHECK(chr_new_any(r.ctx, "u", table[i].text, &err) == NULL);
        if (is_left_out(&err) || is_line_in_dev(table[i].text)) continue;
        if (!CHECK_INT(err.code, table[i].code) || !CHECK_HAS(err.text, table[i].words)) NOTE("for %s: %s", table[i].text, err.text);
        CHECK(!strchr(err.text, '\n'));
        CHECK_INT(count_fds(), fds);
        CHECK(chr_next(r.ctx, chr_next(r.ctx, NULL)) == NULL);
    }
    CHECK(chr_new_uri(r.ctx, "u", NULL, &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_NOT_FOUND);
    CHECK(chr_new(r.ctx, NULL, &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_INVALID);
    rig_close(&r);
}

#ifdef _WIN32
#define TOO_LONG "Invalid name"
#else
#define TOO_LONG "File name too long"
#endif

/* A text of any length; what is wrong with it stays to be read where that is cut. */
TEST(any_that_is_too_long)
{
    static const struct { const char *text, *words; } table[] = {
        { "%s", "is not the name of a backend" }, { "%s:1", "is not a URI" }, { "/%s", "only a path in /dev" }, { "mon:%s", "backend" },
        { "unix:%s", "has 5000 bytes: 1 to 107 fit" }, { "unix:%s,server=on,wait=off", "1 to 107 fit" },
        { "socket,path=%s", "1 to 107 fit" }, { "/dev/%s", TOO_LONG }, { "file:%s", TOO_LONG },
        { "pipe:%s", TOO_LONG }, { "pty:%s", TOO_LONG }, { "pty,path=%s", TOO_LONG },
        { "null,logfile=%s", TOO_LONG }, { "null,id=%s", "longer than 127" }, { "null,id=9%s", "not a letter followed by" },
        { "null,%s=1", "allowed: id, logfile" }, { "null,%s", "allowed: id, logfile" }, { "chardev:%s", "no chardev with that id" },
        { "ringbuf,size=%s", "not a size" }, { "ringbuf,size=7%s", "not a size" }, { "stdio,signal=%s", "not on or off" },
        { "mux,chardev=%s", "no chardev with that id" }, { "hub,chardevs=%s", "no chardev with that id" },
        { "fd,in=%s", "not a descriptor's number" }, { "tcp::1,fd=%s", "in a URI" },
    };
    char      text[6000], filler[5001];
    chr_error err;
    size_t    i;
    rig       r;
    rig_open_virtual(&r);
    memset(filler, 'a', 5000);
    filler[5000] = 0;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        const char *at = strstr(table[i].text, "%s");
        memset(&err, 0, sizeof err);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - table[i].text), table[i].text, filler, at + 2);
        CHECK(chr_new_any(r.ctx, "u", text, &err) == NULL);
        CHECK(err.code < 0);
        if (is_left_out(&err) || is_line_in_dev(table[i].text)) continue;
        if (!CHECK_HAS(err.text, table[i].words)) NOTE("for %s: %s", table[i].text, err.text);
        CHECK(chr_next(r.ctx, NULL) == NULL);
    }
    rig_close(&r);
}

/* ---- codes ------------------------------------------------------------------------------------------------------- */

TEST(every_code_has_a_text)
{
    int code;
    for (code = CHR_ERR_HELP; code <= 0; code++) CHECK(chr_error_text(code) && chr_error_text(code)[0]);
    CHECK(chr_error_text(-9999) != NULL);
    CHECK(chr_error_text(5) != NULL);
    CHECK_STR(chr_error_text(CHR_ERR_WOULD_BLOCK), "would block");
}

/* ---- errors of a backend, and no memory ------------------------------------------------------------------------- */

static size_t wordy_len;

static int wordy_open(chr_dev *dev, chr_error *err)
{
    (void)dev;
    if (err) {
        err->code = CHR_ERR_INVALID;
        memset(err->text, 'x', wordy_len);
        err->text[wordy_len] = 0;
    }
    return CHR_ERR_INVALID;
}

CHR_TABLE(chr_backend, wordy_kind,
    CHR_SET(name,         "wordy")
    CHR_SET(help,         "fails at length")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(probe))
    CHR_SET(open,         wordy_open)
    CHR_SET(io,           &probe_io));

/* The name of the backend comes before its words; those at the end go when there is no room, and nothing behind the
 * error is written. */
TEST(an_error_of_any_length_gets_the_name)
{
    struct {
        chr_error err;
        char      behind[8];
    } box;
    char   want[CHARDEV_ERROR_SIZE + 8];
    size_t less, len;
    rig    r;
    rig_open_virtual(&r);
    REQUIRE(chr_backend_register(r.ctx, &wordy_kind, NULL) == 0);
    memset(want, 'x', sizeof want);
    memcpy(want, "wordy: ", 7);
    for (less = 1; less < 12; less++) {
        memset(&box, '#', sizeof box);
        wordy_len = CHARDEV_ERROR_SIZE - less;
        CHECK(!chr_new(r.ctx, "wordy,id=w", &box.err));
        len = less > 8 ? 7 + wordy_len : CHARDEV_ERROR_SIZE - 1;
        if (!CHECK_INT(strlen(box.err.text), len) || !CHECK(memcmp(box.err.text, want, len) == 0))
            NOTE("%d bytes less than there is room for", (int)less);
        CHECK(memcmp(box.behind, "########", 8) == 0);
    }
    rig_close(&r);
}

static void count_line(void *opaque, const char *line) { (void)line, ++*(int *)opaque; }

/* Help about a backend says that there is no memory, and does not list all backends in its place. */
TEST(help_without_memory)
{
    static const char *const texts[] = { "null", "null,logfile=x", "backend=null,id=n", "udp:1.2.3.4:5" };
    size_t i;
    long   at;
    int    lines, code;
    rig    r;
    rig_open_virtual(&r);
    for (i = 0; i < sizeof texts / sizeof *texts; i++)
        for (at = 1;; at++) {
            lines = r.failed = 0;
            r.fail_at = r.calls + at;
            code = chr_help(r.ctx, texts[i], count_line, &lines);
            r.fail_at = 0;
            if (!r.failed) {
                CHECK(code == 0 && lines > 0);
                break;
            }
            CHECK(code < 0 && lines == 0);
            if (i < 3) CHECK_INT(code, CHR_ERR_NO_MEMORY);
        }
    rig_close(&r);
}
