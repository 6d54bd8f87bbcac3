/*
 * The text of a certificate's subject, which tls-authz= compares: RFC 2253 as openssl prints it, from DER made by hand.
 * A malformed name, or one that can't be written, is on no list. test_tls.c has certificates with names in a handshake.
 */
#include "test.h"

#ifndef CHARDEV_MBEDTLS
TEST(tls_names) { SKIP("built without CHARDEV_MBEDTLS: mbedtls/ssl.h is missing"); }
#else

#define CHARDEV_IMPLEMENTATION
#include "chardev.h"

enum { SEQUENCE = 0x30, SET = 0x31, OID = 0x06, BITS = 0x03, UTF8 = 0x0c, PRINTABLE = 0x13, T61 = 0x14, IA5 = 0x16, UNIVERSAL = 0x1c, BMP = 0x1e };

typedef struct der {
    unsigned char bytes[6000];
    size_t        len;
} der;

/* Puts a tag and a length before what is there from `start` on. */
static void wrap(der *d, size_t start, int tag)
{
    size_t len = d->len - start, head = len < 128 ? 2 : 4;
    memmove(d->bytes + start + head, d->bytes + start, len);
    d->bytes[start] = (unsigned char)tag;
    d->bytes[start + 1] = (unsigned char)(len < 128 ? len : 0x82);
    if (len >= 128) {
        d->bytes[start + 2] = (unsigned char)(len >> 8);
        d->bytes[start + 3] = (unsigned char)len;
    }
    d->len += head;
}

static void put(der *d, const void *bytes, size_t len)
{
    REQUIRE(d->len + len + 20 < sizeof d->bytes);
    memcpy(d->bytes + d->len, bytes, len);
    d->len += len;
}

/* AttributeTypeAndValue */
static void attribute(der *d, const void *oid, size_t oid_len, int tag, const void *value, size_t len)
{
    size_t start = d->len, at;
    put(d, oid, oid_len);
    wrap(d, start, OID);
    at = d->len;
    put(d, value, len);
    wrap(d, at, tag);
    wrap(d, start, SEQUENCE);
}

#define CN "\x55\4\3", 3
#define O  "\x55\4\xa", 3

static chr__name *read_name(const der *d)
{
    static chr__name name;
    mbedtls_x509_buf subject;
    unsigned char   *copy = (unsigned char *)malloc(d->len); /* what is read behind its end, sanitizers see */
    REQUIRE(copy != NULL);
    memset(&name, 0xaa, sizeof name);
    memset(&subject, 0, sizeof subject);
    memcpy(copy, d->bytes, d->len);
    subject.p = copy;
    subject.len = d->len;
    chr__name_read(&name, &subject);
    free(copy);
    return &name;
}

static chr__name *name_of_one(const void *oid, size_t oid_len, int tag, const void *value, size_t len)
{
    der d = { { 0 }, 0 };
    attribute(&d, oid, oid_len, tag, value, len);
    wrap(&d, 0, SET);
    wrap(&d, 0, SEQUENCE);
    return read_name(&d);
}

static void check_one(const void *oid, size_t oid_len, int tag, const void *value, size_t len, const char *text)
{
    const chr__name *name = name_of_one(oid, oid_len, tag, value, len);
    if (!CHECK_INT(name->is_invalid != 0, text == NULL)) NOTE("%s, for %s", name->text, text ? text : "nothing");
    if (text) CHECK_STR(name->text, text);
    if (text) CHECK_INT(name->len, strlen(text));
}

/* ---- what a value is --------------------------------------------------------------------------------------------- */

TEST(letters_that_are_escaped)
{
    static const char *const cases[][2] = {
        { "fred", "fred" }, { "", "" }, { " ", "\\ " }, { "  ", "\\ \\ " }, { "   ", "\\  \\ " }, { "a b", "a b" }, { " a", "\\ a" }, { "a ", "a\\ " },
        { "#", "#" }, { "##", "\\##" }, { "#a", "\\#a" }, { "a#", "a#" }, { "a#b", "a#b" },
        { ",", "\\," }, { "a+b", "a\\+b" }, { "\"", "\\\"" }, { "\\", "\\\\" }, { "<a>", "\\<a\\>" }, { "a;b", "a\\;b" }, { "a=b", "a=b" },
        { "!", "!" }, { "~", "~" }, { "\x1f", "\\1F" }, { "\x7f", "\\7F" }, { "\x01", "\\01" }, { "\n", "\\0A" }, { "\xc3\xbc", "\\C3\\BC" },
        { "*?[]()'/:.-", "*?[]()'/:.-" },
    };
    size_t i;
    char   text[100];
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "CN=%s", cases[i][1]);
        check_one(CN, UTF8, cases[i][0], strlen(cases[i][0]), text);
    }
    check_one(CN, UTF8, "a\0b", 3, "CN=a\\00b");
}

TEST(kinds_of_string)
{
    check_one(CN, PRINTABLE, "fred", 4, "CN=fred");
    check_one(CN, IA5, "fred", 4, "CN=fred");
    check_one(CN, T61, "fr\xe9" "d", 4, "CN=fr\\C3\\A9d");
    check_one(CN, IA5, "fr\xe9" "d", 4, "CN=fr\\C3\\A9d");
    check_one(CN, BMP, "\0f\0\xfc", 4, "CN=f\\C3\\BC");
    check_one(CN, BMP, "\x20\xac\0 ", 4, "CN=\\E2\\82\\AC\\ ");
    check_one(CN, BMP, "\0 \0a\0 ", 6, "CN=\\ a\\ ");
    check_one(CN, BMP, "\0#\0a", 4, "CN=\\#a");
    check_one(CN, BMP, "\0#", 2, "CN=#");
    check_one(CN, BMP, "", 0, "CN=");
    check_one(CN, UNIVERSAL, "\0\0\0f\0\1\xd1\x1e", 8, "CN=f\\F0\\9D\\84\\9E");
    check_one(CN, UNIVERSAL, "\0\0\0f\0\0\0 ", 8, "CN=f\\ ");
    check_one(CN, BITS, "\0\xaf", 2, "CN=#030200AF"); /* no character string */
    check_one(CN, 2, "\x7f", 1, "CN=#02017F");
}

TEST(strings_that_are_none)
{
    check_one(CN, BMP, "\0f\0", 3, NULL); /* half a letter */
    check_one(CN, BMP, "f", 1, NULL);
    check_one(CN, UNIVERSAL, "\0\0\0f\0", 5, NULL);
    check_one(CN, UNIVERSAL, "\0\0\0f\0\0", 6, NULL);
    check_one(CN, UNIVERSAL, "\0\0\0f\0\0\0", 7, NULL);
    check_one(CN, BMP, "\xd8\x34\xdd\x1e", 4, NULL); /* surrogates */
    check_one(CN, BMP, "\xd8\0", 2, NULL);
    check_one(CN, BMP, "\xdf\xff", 2, NULL);
    check_one(CN, BMP, "\xd7\xff", 2, "CN=\\ED\\9F\\BF");
    check_one(CN, BMP, "\xe0\0", 2, "CN=\\EE\\80\\80");
    check_one(CN, BMP, "\xd8\0\0a", 4, NULL); /* and what stands behind one makes nothing good */
    check_one(CN, UNIVERSAL, "\0\x10\xff\xff", 4, "CN=\\F4\\8F\\BF\\BF");
    check_one(CN, UNIVERSAL, "\0\x11\0\0", 4, NULL);
    check_one(CN, UNIVERSAL, "\1\0\0a", 4, NULL);
    check_one(CN, UNIVERSAL, "\0\0\xd8\0", 4, NULL);
}

/* ---- what an attribute is ---------------------------------------------------------------------------------------- */

#define ARCS(text) text, sizeof text - 1

TEST(types_of_attributes)
{
    static const struct { const char *oid; size_t len; const char *text; } cases[] = {
        { ARCS("\x55\4\6"), "C=x" }, { ARCS("\x55\4\x61"), "organizationIdentifier=x" }, { ARCS("\x55\4\x64"), "dnsName=x" },
        { ARCS("\x09\x92\x26\x89\x93\xf2\x2c\x64\1\1"), "UID=x" }, { ARCS("\x2a\x86\x48\x86\xf7\x0d\1\x09\1"), "emailAddress=x" },
        { ARCS("\x55\4\x65"), "2.5.4.101=#0C0178" }, /* one without a name: its DER */
        { ARCS("\0"), "0.0=#0C0178" }, { ARCS("\x27"), "0.39=#0C0178" }, { ARCS("\x28"), "1.0=#0C0178" }, { ARCS("\x4f"), "1.39=#0C0178" },
        { ARCS("\x50"), "2.0=#0C0178" }, { ARCS("\x77"), "2.39=#0C0178" }, { ARCS("\x78"), "2.40=#0C0178" }, { ARCS("\x7f"), "2.47=#0C0178" },
        { ARCS("\x81\0"), "2.48=#0C0178" }, { ARCS("\x88\x37"), "2.999=#0C0178" }, { ARCS("\x55\x81\x7f"), "2.5.255=#0C0178" },
        { ARCS("\x2a\x7f\x81\0\1"), "1.2.127.128.1=#0C0178" },
        { ARCS("\x2a\xff\xff\xff\xff\xff\xff\xff\x7f"), "1.2.72057594037927935=#0C0178" }, /* 56 bits */
        { ARCS("\x2a\x81\x80\x80\x80\x80\x80\x80\x80\0"), NULL },                            /* one more */
        { ARCS("\x2a\x81\x80\x80\x80\x80\x80\x80\x80\x80\0"), NULL },
        { ARCS(""), NULL }, { ARCS("\x80"), NULL }, { ARCS("\x55\x84"), NULL }, /* it does not end */
    };
    size_t i;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        int before = test_failures;
        check_one(cases[i].oid, cases[i].len, UTF8, "x", 1, cases[i].text);
        if (test_failures > before) NOTE("for case %d", (int)i);
    }
    check_one(ARCS("\x55\4\x65"), BMP, "\0f\xd8\0", 4, "2.5.4.101=#1E040066D800"); /* as it is, whatever it is */
}

/* ---- what a name is ---------------------------------------------------------------------------------------------- */

/* Sets, each of attributes: CN=a+O=b, and so on. */
static void check_sets(const char *sets, const char *text)
{
    der              d = { { 0 }, 0 };
    const chr__name *name;
    char             letter = 'a';
    while (*sets) {
        size_t start = d.len;
        for (; *sets && *sets != '|'; sets++, letter++) {
            if (*sets == 'c') attribute(&d, CN, UTF8, &letter, 1);
            else attribute(&d, O, UTF8, &letter, 1);
        }
        wrap(&d, start, SET);
        sets += *sets == '|';
    }
    wrap(&d, 0, SEQUENCE);
    name = read_name(&d);
    CHECK_INT(name->is_invalid != 0, 0);
    CHECK_STR(name->text, text);
}

TEST(sets_and_their_order)
{
    check_sets("", "");
    check_sets("c", "CN=a");
    check_sets("o|c", "CN=b,O=a");
    check_sets("o|c|o", "O=c,CN=b,O=a");
    check_sets("co", "O=b+CN=a");
    check_sets("coo", "O=c+O=b+CN=a");
    check_sets("o|co|c", "CN=d,O=c+CN=b,O=a");
}

/* An RDN that is all these bytes. */
static int is_valid_rdn(const void *bytes, size_t len)
{
    der d = { { 0 }, 0 };
    put(&d, bytes, len);
    wrap(&d, 0, SEQUENCE);
    return !read_name(&d)->is_invalid;
}

#define RDN(text) is_valid_rdn(text, sizeof text - 1)

TEST(what_is_malformed_is_on_no_list)
{
    static const unsigned char no_sequence[] = { 0x31, 0 }, too_long[] = { 0x30, 5, 0x31, 0 };
    der d = { { 0 }, 0 };
    CHECK(RDN("\x31\x0a\x30\x08\x06\3\x55\4\3\x0c\1x"));
    CHECK(!RDN("\x31\0"));                                                    /* nothing in a set */
    CHECK(!RDN("\x30\x0a\x30\x08\x06\3\x55\4\3\x0c\1x"));                     /* no set */
    CHECK(!RDN("\x11\x0a\x30\x08\x06\3\x55\4\3\x0c\1x"));                     /* a set that is not constructed */
    CHECK(!RDN("\x31\x0b\x30\x08\x06\3\x55\4\3\x0c\1x"));                     /* a set that is longer than all */
    CHECK(!RDN("\x31\x0a\x31\x08\x06\3\x55\4\3\x0c\1x"));                     /* no sequence in it */
    CHECK(!RDN("\x31\x0a\x30\x09\x06\3\x55\4\3\x0c\1x"));                     /* or one that is longer */
    CHECK(!RDN("\x31\x0a\x30\x08\x05\3\x55\4\3\x0c\1x"));                     /* no object identifier */
    CHECK(!RDN("\x31\x07\x30\x05\x06\3\x55\4\3"));                            /* no value */
    CHECK(!RDN("\x31\x08\x30\x06\x06\3\x55\4\3\x0c"));                        /* half a value */
    CHECK(!RDN("\x31\x0a\x30\x08\x06\3\x55\4\3\x0c\2x"));                     /* a value that is longer */
    CHECK(!RDN("\x31\x0a\x30\x08\x06\3\x55\4\3\x0c\1x" "\x31\0"));
    CHECK(!RDN("\x31\0" "\x31\x0a\x30\x08\x06\3\x55\4\3\x0c\1x"));
    CHECK(!RDN("\x31\x0a\x30\x08\x06\3\x55\4\3\x0c\1x" "\x31"));
    CHECK(!RDN("\x31\x14" "\x30\x08\x06\3\x55\4\3\x0c\1x" "\x31\x08\x06\3\x55\4\3\x0c\1x")); /* the second of two */
    CHECK(!RDN("\x31\x14" "\x31\x08\x06\3\x55\4\3\x0c\1x" "\x30\x08\x06\3\x55\4\3\x0c\1x")); /* the first of two */
    put(&d, no_sequence, sizeof no_sequence);
    CHECK(read_name(&d)->is_invalid);
    d.len = 0;
    put(&d, too_long, sizeof too_long);
    CHECK(read_name(&d)->is_invalid);
    CHECK_STR(read_name(&d)->text, "");
}

/* 4095 letters are compared, one more is none. */
TEST(a_name_has_a_limit)
{
    char             value[4200];
    const chr__name *name;
    memset(value, 'x', sizeof value);
    name = name_of_one(CN, UTF8, value, 4092);
    CHECK(!name->is_invalid);
    CHECK_INT(name->len, 4095);
    CHECK_INT(strlen(name->text), 4095);
    CHECK(name_of_one(CN, UTF8, value, 4093)->is_invalid);
    CHECK(name_of_one(CN, UTF8, value, 4100)->is_invalid);
    CHECK(name_of_one(ARCS("\x55\4\x65"), UTF8, value, 3000)->is_invalid); /* its DER is twice as long */
    value[4091] = ',';
    CHECK(name_of_one(CN, UTF8, value, 4092)->is_invalid);
    CHECK(!name_of_one(CN, UTF8, value + 1, 4091)->is_invalid);
}

#endif
