/*
 * TLS, with time and random numbers that are always the same. First byte, its lowest two bits:
 *   0, 1  what a peer sends to a server, to a client; 4 = with shared keys. Second byte: how the stream is cut
 *   2     a server and a client meet, and the input is what happens to the wire between them: what one says comes unharmed and in
 *         order to the other, or is the end. 4 = with shared keys, 8 = hands are shaken before
 *   3     files of credentials (CA, revocations, certificate, key, shared keys), names in certificates, and globs, by bits 2 to 4
 */
#define _GNU_SOURCE 1
#include <ctype.h>
#include "fault.h"

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <sys/mman.h>

/* In place of the system's. */
static int fuzz_entropy(void *opaque, unsigned char *bytes, size_t len)
{
    (void)opaque;
    memset(bytes, 0x5a, len);
    return 0;
}
#define mbedtls_entropy_init(entropy) memset(entropy, 0, sizeof *(entropy))
#define mbedtls_entropy_free(entropy) (void)(entropy)
#define mbedtls_entropy_func          fuzz_entropy

#define CHARDEV_IMPLEMENTATION
#include "chardev.h"

#include "fuzz_line.h"

/* mbed TLS puts the time into what it sends, and looks at it before it trusts a certificate. */
time_t time(time_t *now)
{
    if (now) *now = 1800000000;
    return 1800000000;
}

/* ---- credentials for tests: one certificate, valid from 2000 to 2099, is its own CA, the server's and the client's ---- */

static const char cert_text[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBlzCCAT6gAwIBAgIUPq99RLAKoD6aP5dQRzj0K5GmdT0wCgYIKoZIzj0EAwIw\n"
    "JjEQMA4GA1UECgwHRXhhbXBsZTESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTAwMDEw\n"
    "MTAwMDAwMFoYDzIwOTkxMjMxMjM1OTU5WjAmMRAwDgYDVQQKDAdFeGFtcGxlMRIw\n"
    "EAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASuGSa7\n"
    "abQDUDWpHjfIfUmeBXz22g3yX4XDL9LJv6GFxGQfkF9I/ofs8Bh2fsVRUK3DT/k9\n"
    "pLf1an62FXmdtpIko0gwRjAUBgNVHREEDTALgglsb2NhbGhvc3QwDwYDVR0TAQH/\n"
    "BAUwAwEB/zAdBgNVHQ4EFgQUzBChAcMtY9H2wzO2ObU2hA67lgQwCgYIKoZIzj0E\n"
    "AwIDRwAwRAIgfgXTBeG6nJsqcJspkkq4kKQCu/Ngzizms6D+N7owm5sCIEZ2BBMd\n"
    "9YVrCWDG1Ht2lnUnqZwAW/ON1oe5gf+ebHFi\n"
    "-----END CERTIFICATE-----\n";

static const char key_text[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgqTf35I71T97WclV8\n"
    "oGLp8PMed6+SEkswdWbORPc1/t6hRANCAASuGSa7abQDUDWpHjfIfUmeBXz22g3y\n"
    "X4XDL9LJv6GFxGQfkF9I/ofs8Bh2fsVRUK3DT/k9pLf1an62FXmdtpIk\n"
    "-----END PRIVATE KEY-----\n";

static const char psk_text[] = "qemu:00112233445566778899aabbccddeeff\nother:01\n";

/* What is in memory becomes a file with a name. */
static int file_of(const void *bytes, size_t len)
{
    int fd = memfd_create("fuzz", 0);
    FUZZ_CHECK(fd >= 0 && write(fd, bytes, len) == (ssize_t)len);
    return fd;
}

static int cert_file = -1, key_file, psk_file;

static void make_files(void)
{
    if (cert_file >= 0) return;
    cert_file = file_of(cert_text, sizeof cert_text - 1);
    key_file = file_of(key_text, sizeof key_text - 1);
    psk_file = file_of(psk_text, sizeof psk_text - 1);
}

static void add_creds(chr_context *ctx, const char *id, int is_server, int is_psk)
{
    char        options[300];
    chr_error   err;
    const char *role = is_server ? "server" : "client";
    if (is_psk) snprintf(options, sizeof options, "tls-creds-psk,id=%s,endpoint=%s,keyfile=/proc/self/fd/%d", id, role, psk_file);
    else snprintf(options, sizeof options, "tls-creds-x509,id=%s,endpoint=%s,cafile=/proc/self/fd/%d,certfile=/proc/self/fd/%d,keyfile=/proc/self/fd/%d",
                  id, role, cert_file, cert_file, key_file);
    if (chr_tls_creds_add(ctx, options, &err) < 0) {
        fprintf(stderr, "%s: %s\n", options, err.text);
        abort();
    }
}

/* ---- the peer is the input ------------------------------------------------------------------------------------------- */

static void fuzz_peer(fuzz_bytes *in, int is_server, int is_psk)
{
    uint8_t      cuts = fuzz_byte(in);
    chr_context *ctx = fuzz_context();
    fuzz_line   *l;
    add_creds(ctx, "t", is_server, is_psk);
    l = fuzz_line_join(ctx, "l", is_server, "tls-creds=t,tls-hostname=localhost");
    FUZZ_CHECK(!l->opened);
    fuzz_line_feed(l, in->data, in->size, cuts);
    fuzz_line_close(l);
}

/* ---- a server and a client, and the wire between ---------------------------------------------------------------------- */

typedef struct end {
    fuzz_line *line;
    size_t     carried;  /* of what it has sent */
    size_t     written;  /* by its frontend: the pattern */
    int        harmed;   /* what comes to it */
} end;

static uint8_t pattern(size_t at) { return (uint8_t)(at * 2654435761u >> 13); }

static void settle(end ends[2])
{
    int i;
    for (i = 0; i < 2; i++) {
        fuzz_line_settle(ends[i].line);
        fuzz_line_hear(ends[!i].line);
    }
}

/* Up to so many bytes of what `from` has sent; the first is changed by `flip`. */
static int carry(end ends[2], int from, size_t most, uint8_t flip)
{
    end      *a = &ends[from], *b = &ends[!from];
    size_t    len = a->line->heard_length - a->carried;
    uint8_t  *bytes = a->line->heard + a->carried;
    if (len > most) len = most;
    if (len == 0) return 0;
    *bytes = (uint8_t)(*bytes ^ flip);
    if (flip) b->harmed = 1;
    a->carried += len;
    if (send(b->line->peer, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)len) b->harmed = 1; /* nobody is there any more */
    settle(ends);
    return 1;
}

static void carry_all(end ends[2])
{
    while (carry(ends, 0, SIZE_MAX, 0) | carry(ends, 1, SIZE_MAX, 0)) {}
}

static void say(end *a, size_t len)
{
    uint8_t bytes[4096];
    size_t  i;
    int     n;
    for (i = 0; i < len; i++) bytes[i] = pattern(a->written + i);
    n = chr_fe_write(&a->line->fe, bytes, len);
    FUZZ_CHECK(n == CHR_ERR_DISCONNECTED || n == CHR_ERR_WOULD_BLOCK || (n >= 0 && (size_t)n <= len));
    FUZZ_CHECK(n != (int)len || a->line->opened || len == 0);
    if (n > 0) a->written += (size_t)n;
}

static void check_heard(const end *a, const end *b)
{
    size_t i;
    FUZZ_CHECK(a->line->length <= b->written);
    for (i = 0; i < a->line->length; i++) FUZZ_CHECK(a->line->data[i] == pattern(i));
}

static void happen(end ends[2], fuzz_bytes *in, int *disturbed)
{
    uint8_t what = fuzz_byte(in), much = fuzz_byte(in);
    int     who = what >> 7;
    end    *a = &ends[who];
    switch (what & 7) {
    case 0: carry(ends, who, much == 255 ? SIZE_MAX : much + 1u, 0); break;
    case 1: carry(ends, who, SIZE_MAX, much); break;
    case 2: fuzz_line_give_room(a->line, much < 200 ? much : LINE_MOST); break;
    case 3:
    case 4: if (a->written < LINE_MOST / 4) say(a, much * 16u); break;
    case 5: /* a byte is lost */
        if (a->carried < a->line->heard_length) a->carried++, ends[!who].harmed = 1;
        break;
    case 6: /* one comes from nowhere */
        if (ends[!who].line->closed || send(ends[!who].line->peer, &much, 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1) break;
        ends[!who].harmed = 1;
        break;
    default:
        if (much & 1) shutdown(ends[!who].line->peer, SHUT_WR);
        else chr_fe_disconnect(&a->line->fe);
        *disturbed = 1;
        break;
    }
    settle(ends);
}

static void fuzz_pair(fuzz_bytes *in, int is_psk, int is_shaken)
{
    chr_context *ctx = fuzz_context();
    end          ends[2];
    int          disturbed = 0, i;
    memset(ends, 0, sizeof ends);
    for (i = 0; i < 2; i++) {
        add_creds(ctx, i ? "tc" : "ts", !i, is_psk);
        ends[i].line = fuzz_line_join(ctx, i ? "c" : "s", !i, i ? "tls-creds=tc,tls-hostname=localhost" : "tls-creds=ts,tls-hostname=localhost");
        ends[i].line->room = LINE_MOST;
    }
    if (is_shaken) carry_all(ends);
    FUZZ_CHECK(ends[0].line->opened == is_shaken && ends[1].line->opened == is_shaken);
    while (in->size > 1) happen(ends, in, &disturbed);
    for (i = 0; i < 2; i++) fuzz_line_give_room(ends[i].line, LINE_MOST);
    carry_all(ends);
    for (i = 0; i < 2; i++) {
        check_heard(&ends[i], &ends[!i]);
        if (ends[0].harmed || ends[1].harmed || disturbed) continue;
        FUZZ_CHECK(ends[i].line->opened && !ends[i].line->closed && ends[i].line->length == ends[!i].written);
    }
    for (i = 0; i < 2; i++) fuzz_line_leave(ends[i].line);
    fuzz_end(ctx);
}

/* ---- files ------------------------------------------------------------------------------------------------------------ */

static void fuzz_file(fuzz_bytes *in, int what)
{
    static const char *const formats[] = {
        "tls-creds-x509,id=t,cafile=%s", "tls-creds-x509,id=t,cafile=%s,crlfile=%s", "tls-creds-x509,id=t,cafile=%s,certfile=%s,keyfile=%s",
        "tls-creds-x509,id=t,cafile=%s,certfile=%s,keyfile=%s", "tls-creds-psk,id=t,endpoint=server,keyfile=%s"
    };
    int          fd = file_of(in->data, in->size), code, i;
    const int    fds[3] = { what == 0 || what == 4 ? fd : cert_file, what == 1 || what == 2 ? fd : cert_file, what == 3 ? fd : key_file };
    char         paths[3][40], options[300];
    chr_context *ctx = fuzz_context();
    chr_error    err;
    for (i = 0; i < 3; i++) snprintf(paths[i], sizeof paths[i], "/proc/self/fd/%d", fds[i]);
    snprintf(options, sizeof options, formats[what], paths[0], paths[1], paths[2]);
    code = chr_tls_creds_add(ctx, options, &err);
    if (code < 0) fuzz_check_error(ctx, &err);
    else FUZZ_CHECK(chr_tls_creds_remove(ctx, "t", &err) == 0);
    close(fd);
    fuzz_end(ctx);
}

/* ---- names and globs ---------------------------------------------------------------------------------------------------- */

/* One value, up to a comma that is not escaped; returns what is behind it. */
static const char *read_value(const char *text, const char *stop, uint8_t *value, size_t *len)
{
    unsigned c;
    for (*len = 0; text < stop && *text != ','; value[(*len)++] = (uint8_t)c) {
        c = (uint8_t)*text++;
        if (c != '\\') continue;
        FUZZ_CHECK(text < stop);
        if (isxdigit((unsigned char)text[0]) && isxdigit((unsigned char)text[1])) sscanf(text, "%2x", &c), text += 2;
        else c = (uint8_t)*text++;
    }
    return text;
}

/* A type that has no name is followed by '#' and the hexadecimal digits of its value's encoding. */
static const char *read_encoding(const char *text, const char *stop, uint8_t *value, size_t *len)
{
    unsigned c;
    FUZZ_CHECK(*text++ == '#');
    for (*len = 0; text < stop && *text != ','; text += 2) {
        FUZZ_CHECK(sscanf(text, "%2X", &c) == 1);
        value[(*len)++] = (uint8_t)c;
    }
    FUZZ_CHECK(*len >= 2);
    memmove(value, value + 2, *len -= 2);
    return text;
}

/* What is behind `len` bytes of content gets its head before it. */
static size_t put_head(uint8_t *to, unsigned tag, size_t len)
{
    memmove(to + 2 + (len > 127), to, len);
    to[0] = (uint8_t)tag;
    to[1] = len > 127 ? 0x81 : (uint8_t)len;
    if (len > 127) to[2] = (uint8_t)len;
    return len + 2 + (len > 127);
}

/* A part of a name: SET { SEQUENCE { type, value } }. */
static size_t put_part(uint8_t *to, unsigned type, const uint8_t *value, size_t len)
{
    memcpy(to, value, len);
    len = put_head(to, 0x0c, len);
    memmove(to + 5, to, len);
    memcpy(to, "\x06\x03\x55\x04", 4);
    to[4] = (uint8_t)type;
    return put_head(to, 0x31, put_head(to, 0x30, len + 5));
}

/* As text it can be read back in one way only. */
static void fuzz_name(fuzz_bytes *in)
{
    static const uint8_t types[] = { 3, 10, 127 };
    uint8_t              values[4][40], value[1024], der[400];
    size_t               lens[4], size = 0, j, len;
    unsigned             chosen[4];
    mbedtls_x509_buf     subject;
    chr__name            name;
    int                  i, count = 1 + (fuzz_byte(in) & 3);
    const char          *text, *stop;
    for (i = 0; i < count; i++) {
        chosen[i] = types[fuzz_byte(in) % 3];
        lens[i] = fuzz_byte(in) % 40;
        for (j = 0; j < lens[i]; j++) values[i][j] = fuzz_byte(in);
        size += put_part(der + size, chosen[i], values[i], lens[i]);
    }
    memset(&subject, 0, sizeof subject);
    subject.len = put_head(der, 0x30, size);
    subject.p = der;
    memset(&name, 0xff, sizeof name);
    chr__name_read(&name, &subject);
    FUZZ_CHECK(!name.is_cut && name.len == strlen(name.text));
    text = name.text;
    stop = text + name.len;
    for (i = count; i-- > 0; text++) {
        text = strchr(text, '=');
        FUZZ_CHECK(text != NULL);
        text = chosen[i] == 127 ? read_encoding(text + 1, stop, value, &len) : read_value(text + 1, stop, value, &len);
        FUZZ_CHECK(len == lens[i] && memcmp(value, values[i], len) == 0);
        FUZZ_CHECK(i > 0 ? *text == ',' : text == stop);
    }
}

/* Any bytes at all: nothing is read or written outside. */
static void fuzz_der(fuzz_bytes *in)
{
    mbedtls_x509_buf subject;
    chr__name        name;
    memset(&subject, 0, sizeof subject);
    subject.len = in->size;
    subject.p = (unsigned char *)malloc(in->size + !in->size);
    if (!subject.p) abort();
    memcpy(subject.p, in->data, in->size);
    chr__name_read(&name, &subject);
    FUZZ_CHECK(name.len == strlen(name.text) && name.len < sizeof name.text);
    free(subject.p);
}

static void fuzz_glob(fuzz_bytes *in)
{
    char   pattern_text[65], text[65], fits[66][66];
    size_t most = in->size / 2 < 64 ? in->size / 2 : 64, p, t;
    for (p = 0; p < most; p++) pattern_text[p] = "*?abc***"[fuzz_byte(in) & 7];
    for (t = 0; t < most; t++) text[t] = "aaabbcab"[fuzz_byte(in) & 7];
    pattern_text[most] = text[most] = 0;
    memset(fits, 0, sizeof fits);
    for (p = most + 1; p-- > 0;)
        for (t = most + 1; t-- > 0;)
            fits[p][t] = pattern_text[p] == 0   ? text[t] == 0
                       : pattern_text[p] == '*' ? fits[p + 1][t] || (text[t] && fits[p][t + 1])
                       : text[t] && (pattern_text[p] == '?' || pattern_text[p] == text[t]) && fits[p + 1][t + 1];
    FUZZ_CHECK(chr__glob(pattern_text, text) == fits[0][0]);
}

int FUZZ_TARGET(const uint8_t *data, size_t size)
{
    fuzz_bytes in = { data, size };
    int        flags = fuzz_byte(&in), more = flags >> 2 & 7;
    if (size > LINE_MOST / 4) return 0;
    make_files();
    switch (flags & 3) {
    case 0:
    case 1: fuzz_peer(&in, !(flags & 1), more & 1); break;
    case 2: fuzz_pair(&in, more & 1, more >> 1 & 1); break;
    default:
        if (more < 5) fuzz_file(&in, more);
        else if (more == 5) fuzz_name(&in);
        else if (more == 6) fuzz_glob(&in);
        else fuzz_der(&in);
        break;
    }
    return 0;
}
