/*
 * TLS, with time and random numbers that are always the same. First byte, its lowest two bits:
 *   0, 1  what a peer sends to a server, to a client; 4 = with shared keys. Second byte: how the stream is cut
 *   2     a server and a client meet, and the input is what happens to the wire between them: what one says comes unharmed and in
 *         order to the other, or is the end. 4 = with shared keys, 8 = hands are shaken before
 *   3     files of credentials (CA, revocations, certificate, key, shared keys), names in certificates, and globs, by bits 2 to 4
 *
 * With FUZZ_TLS_SEEDS=DIR in the environment, what either side of 2 has sent becomes an input of 0 and 1 in DIR: that is how those of the
 * corpus are made that go through the whole handshake, which nobody guesses. They do so as long as neither side sends anything else.
 */
#include <ctype.h>
#include "wire.h"

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/chacha20.h>
#include <mbedtls/ecp.h>
#include <mbedtls/entropy.h>
#include <mbedtls/sha256.h>
#include <mbedtls/version.h>
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

/* Likewise for what is drawn from it: the same for each input, and for a server whatever its client draws. */
static uint32_t fuzz_random_states[2];
static int      fuzz_random(void *opaque, unsigned char *bytes, size_t len);
#define mbedtls_ctr_drbg_random fuzz_random

#define CHARDEV_IMPLEMENTATION
#include "chardev.h"

#include "fuzz_line.h"

#ifdef FUZZ_UNCOUNTED
#pragma clang attribute push(__attribute__((no_sanitize("coverage"))), apply_to = function)
#endif

static int fuzz_random(void *opaque, unsigned char *bytes, size_t len)
{
    const chr__tls_creds *creds = (const chr__tls_creds *)(const void *)((const char *)opaque - offsetof(chr__tls_creds, random));
    uint32_t             *state = &fuzz_random_states[creds->is_server != 0];
    while (len-- > 0) {
        *state = *state * 1664525u + 1013904223u;
        *bytes++ = (unsigned char)(*state >> 24);
    }
    return 0;
}

/* mbed TLS puts the time into what it sends, and looks at it before it trusts a certificate. */
time_t time(time_t *now)
{
    if (now) *now = 1800000000;
    return 1800000000;
}

/* ---- a group to play with ---------------------------------------------------------------------------------------- */

/*
 * Public-key operations take milliseconds, and none of their code is ours: here points of all curves are the numbers
 * below the order, added and multiplied as such (these functions stand before mbed TLS's own). ECDH and ECDSA hold in
 * any group, so that both sides agree, signatures are checked, and a wrong one is refused. All else is mbed TLS as it
 * is: messages, state machine, ciphers, certificates. What this target does not cover is the arithmetic, and keys of
 * RSA and DHE in use.
 */
static int toy_multiply(const mbedtls_ecp_group *group, mbedtls_mpi *product, const mbedtls_mpi *times, const mbedtls_ecp_point *point)
{
    int code = mbedtls_mpi_mul_mpi(product, times, &point->X);
    return code ? code : mbedtls_mpi_mod_mpi(product, product, group->N.n ? &group->N : &group->P);
}

/* The second coordinate stays as the generator has it. */
static int toy_point(mbedtls_ecp_point *result, const mbedtls_mpi *x, const mbedtls_mpi *y)
{
    int code = mbedtls_mpi_copy(&result->X, x);
    if (code == 0) code = mbedtls_mpi_copy(&result->Y, y);
    return code ? code : mbedtls_mpi_lset(&result->Z, 1);
}

int mbedtls_ecp_mul_restartable(mbedtls_ecp_group *group, mbedtls_ecp_point *result, const mbedtls_mpi *times, const mbedtls_ecp_point *point,
                                int (*random)(void *, unsigned char *, size_t), void *opaque, mbedtls_ecp_restart_ctx *restart)
{
    mbedtls_mpi x;
    int         code;
    (void)random;
    (void)opaque;
    (void)restart;
    mbedtls_mpi_init(&x);
    code = toy_multiply(group, &x, times, point);
    if (code == 0) code = toy_point(result, &x, &group->G.Y);
    mbedtls_mpi_free(&x);
    return code;
}

int mbedtls_ecp_mul(mbedtls_ecp_group *group, mbedtls_ecp_point *result, const mbedtls_mpi *times, const mbedtls_ecp_point *point,
                    int (*random)(void *, unsigned char *, size_t), void *opaque)
{
    return mbedtls_ecp_mul_restartable(group, result, times, point, random, opaque, NULL);
}

int mbedtls_ecp_muladd_restartable(mbedtls_ecp_group *group, mbedtls_ecp_point *result, const mbedtls_mpi *m, const mbedtls_ecp_point *p,
                                   const mbedtls_mpi *n, const mbedtls_ecp_point *q, mbedtls_ecp_restart_ctx *restart)
{
    mbedtls_mpi a, b;
    int         code;
    (void)restart;
    mbedtls_mpi_init(&a);
    mbedtls_mpi_init(&b);
    code = toy_multiply(group, &a, m, p);
    if (code == 0) code = toy_multiply(group, &b, n, q);
    if (code == 0) code = mbedtls_mpi_add_mpi(&a, &a, &b);
    if (code == 0) code = mbedtls_mpi_mod_mpi(&a, &a, &group->N);
    if (code == 0) code = toy_point(result, &a, &group->G.Y);
    mbedtls_mpi_free(&a);
    mbedtls_mpi_free(&b);
    return code;
}

int mbedtls_ecp_check_pubkey(const mbedtls_ecp_group *group, const mbedtls_ecp_point *point)
{
    return mbedtls_mpi_cmp_int(&point->X, 0) < 0 || mbedtls_mpi_cmp_mpi(&point->X, &group->P) >= 0 ? MBEDTLS_ERR_ECP_INVALID_KEY : 0;
}

/* ---- a hash and a cipher to play with ------------------------------------------------------------------------------------- */

/*
 * With points that cost nothing two thirds of the time is SHA-256 (transcripts, key derivation) and ChaCha20. These do the same for a
 * few cycles a block: the hash depends on all bytes and their order, the stream on key, nonce and counter. Finished messages, signatures
 * and tags (Poly1305 is mbed TLS's) are still checked, and what is changed on the wire is still refused.
 */
#if MBEDTLS_VERSION_MAJOR >= 3
#define TOY_STATE(context) (context)->MBEDTLS_PRIVATE(state)
#else
#define TOY_STATE(context) (context)->state
#endif

static uint64_t toy_mix(uint64_t mixed, uint64_t word)
{
    mixed = (mixed ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return mixed ^ mixed >> 29;
}

int mbedtls_internal_sha256_process(mbedtls_sha256_context *hash, const unsigned char data[64])
{
    uint64_t words[8], mixed = 1;
    int      i;
    memcpy(words, data, sizeof words);
    for (i = 0; i < 8; i++) mixed = toy_mix(mixed, words[i] ^ TOY_STATE(hash)[i]);
    for (i = 0; i < 8; i++) mixed = toy_mix(mixed, TOY_STATE(hash)[i]), TOY_STATE(hash)[i] = (uint32_t)(mixed >> 32);
    return 0;
}

/* Each call is a stream of its own: what is encrypted by one is decrypted by one. */
int mbedtls_chacha20_update(mbedtls_chacha20_context *cipher, size_t len, const unsigned char *in, unsigned char *out)
{
    uint64_t mixed = 1, word = 0;
    size_t   i;
    for (i = 4; i < 16; i++) mixed = toy_mix(mixed, TOY_STATE(cipher)[i]);
    for (i = 0; i < len; i += 8) {
        size_t some = len - i < 8 ? len - i : 8;
        mixed = toy_mix(mixed, i);
        memcpy(&word, in + i, some);
        word ^= mixed;
        memcpy(out + i, &word, some);
    }
    return 0;
}

/* ---- credentials for tests: one certificate, valid from 2026 to 2126, is its own CA, the server's and the client's.
 * Its secret key
 *      is 1, so that the public one is the generator, in the true group as in the other ---- */

static const char cert_text[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBhTCCASugAwIBAgIBATAKBggqhkjOPQQDAjAmMRAwDgYDVQQKDAdFeGFtcGxl\n"
    "MRIwEAYDVQQDDAlsb2NhbGhvc3QwIBcNMjYxMTI3MDQzODU2WhgPMjEyNjExMDMw\n"
    "NDM4NTZaMCYxEDAOBgNVBAoMB0V4YW1wbGUxEjAQBgNVBAMMCWxvY2FsaG9zdDBZ\n"
    "MBMGByqGSM49AgEGCCqGSM49AwEHA0IABGsX0fLhLEJH+Lzm5WOkQPJ3A32BLesz\n"
    "oPShOUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfWjSDBGMBQG\n"
    "A1UdEQQNMAuCCWxvY2FsaG9zdDAPBgNVHRMBAf8EBTADAQH/MB0GA1UdDgQWBBS0\n"
    "Z6OZnrXvpnHeADLwipyeXv2g4TAKBggqhkjOPQQDAgNIADBFAiB9y1uai8M6jpFe\n"
    "azdViK5ey80LxA7XjD4yjeuEofpXUwIhANgkWQn8xZ42o2Z3mLv1umSmFHpcJtrD\n"
    "qolPJCZC5hED\n"
    "-----END CERTIFICATE-----\n";

static const char key_text[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgAAAAAAAAAAAAAAAA\n"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAGhRANCAARrF9Hy4SxCR/i85uVjpEDydwN9gS3r\n"
    "M6D0oTlF2JjClk/jQuL+Gn+bjufrSnwPnhYrzjNXazFezsu2QGg3v1H1\n"
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

static long tls_live;

/* What lingers has its time. */
static void tls_clear(chr_context *ctx)
{
    chr_dev *dev;
    int      i;
    while ((dev = chr_next(ctx, NULL)) != NULL) FUZZ_CHECK(chr_remove(ctx, dev->id, NULL) == 0);
    for (i = 0; i < 3; i++, wires.now += 60000000000) {
        while (chr_loop_step(ctx, 0) > 0) {}
        if (fuzz_live == tls_live) break;
    }
}

/* The credentials, and the memory that a context has for its loop from the first sockets on. */
static void tls_warm_up(chr_context *ctx)
{
    fuzz_line *lines[2];
    int        i;
    for (i = 0; i < 4; i++) add_creds(ctx, i == 0 ? "xc" : i == 1 ? "xs" : i == 2 ? "pc" : "ps", i & 1, i >> 1);
    for (i = 0; i < 2; i++) lines[i] = fuzz_line_join(ctx, i ? "a" : "b", i, i ? "tls-creds=xs" : "tls-creds=xc,tls-hostname=localhost");
    for (i = 0; i < 2; i++) fuzz_line_leave(lines[i]);
    lines[0] = fuzz_line_join(ctx, "p", 0, "telnet=off");
    lines[0]->room = 1;
    FUZZ_CHECK(fuzz_line_say(lines[0], "x", 1) && lines[0]->length == 1);
    fuzz_line_leave(lines[0]);
    tls_clear(ctx);
}

/* Contexts that stay, with the credentials; what is made in them goes with each input. The second is traced. */
static chr_context *tls_context(const fuzz_bytes *in)
{
    static chr_context *kept[2];
    static long         live[2];
    int                 which = fuzz_is_traced(in->data, in->size) && in->size % 4 == 0; /* it takes several times as long */
    if (!kept[which]) {
        kept[which] = fuzz_context(in->data, in->size);
        tls_warm_up(kept[which]);
        wire_keep();
        live[which] = fuzz_live;
    }
    wire_reset();
    fuzz_live = tls_live = live[which];
    fuzz_random_states[0] = fuzz_random_states[1] = 1;
    return kept[which];
}

static void tls_end(chr_context *ctx)
{
    tls_clear(ctx);
    FUZZ_CHECK(fuzz_live == tls_live && wire_open_count() == 0);
}

/* ---- the peer is the input --------------------------------------------------------------------------------------- */

static void fuzz_peer(fuzz_bytes *in, int is_server, int is_psk)
{
    uint8_t      cuts = fuzz_byte(in);
    chr_context *ctx = tls_context(in);
    char         options[60];
    fuzz_line   *l;
    snprintf(options, sizeof options, "tls-creds=%c%c,tls-hostname=localhost", is_psk ? 'p' : 'x', is_server ? 's' : 'c');
    l = fuzz_line_join(ctx, "l", is_server, options);
    FUZZ_CHECK(!l->opened);
    fuzz_line_feed(l, in->data, in->size, cuts);
    fuzz_line_leave(l);
    tls_end(ctx);
}

/* ---- a server and a client, and the wire between ----------------------------------------------------------------- */

typedef struct end {
    fuzz_line *line;
    size_t     carried;  /* of what it has sent */
    size_t     written;  /* by its frontend: the pattern */
    int        harmed;   /* what comes to it */
} end;

static uint8_t pattern(size_t at) { return (uint8_t)(at * 2654435761u >> 13); }

static void settle(end ends[2])
{
    fuzz_line_settle(ends[0].line); /* both are in one context */
    fuzz_line_hear(ends[0].line);
    fuzz_line_hear(ends[1].line);
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
    if (wire_say(b->line->peer, bytes, len) != (ssize_t)len) b->harmed = 1; /* nobody is there any more */
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
        if (ends[!who].line->closed || wire_say(ends[!who].line->peer, &much, 1) != 1) break;
        ends[!who].harmed = 1;
        break;
    default:
        if (much & 1) wire_say_no_more(ends[!who].line->peer);
        else chr_fe_disconnect(&a->line->fe);
        *disturbed = 1;
        break;
    }
    settle(ends);
}

static void keep_seed(const fuzz_line *line, int is_server, int is_psk)
{
    static int  count;
    const char *dir = getenv("FUZZ_TLS_SEEDS");
    char        path[300];
    FILE       *file;
    if (!dir || line->heard_length > LINE_MOST / 4 - 2) return;
    snprintf(path, sizeof path, "%s/%d", dir, count++);
    file = fopen(path, "wb");
    FUZZ_CHECK(file != NULL);
    fputc(is_server | is_psk << 2, file); /* of a server, to a client */
    fputc(0, file);
    fwrite(line->heard, 1, line->heard_length, file);
    fclose(file);
}

static void fuzz_pair(fuzz_bytes *in, int is_psk, int is_shaken)
{
    chr_context *ctx = tls_context(in);
    end          ends[2];
    char         options[60];
    int          disturbed = 0, i;
    memset(ends, 0, sizeof ends);
    for (i = 0; i < 2; i++) {
        snprintf(options, sizeof options, "tls-creds=%c%c,tls-hostname=localhost", is_psk ? 'p' : 'x', i ? 'c' : 's');
        ends[i].line = fuzz_line_join(ctx, i ? "c" : "s", !i, options);
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
    for (i = 0; i < 2; i++) keep_seed(ends[i].line, !i, is_psk);
    for (i = 0; i < 2; i++) fuzz_line_leave(ends[i].line);
    tls_end(ctx);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static void fuzz_file(fuzz_bytes *in, int what)
{
    static const char *const formats[] = {
        "tls-creds-x509,id=t,cafile=%s", "tls-creds-x509,id=t,cafile=%s,crlfile=%s", "tls-creds-x509,id=t,cafile=%s,certfile=%s,keyfile=%s",
        "tls-creds-x509,id=t,cafile=%s,certfile=%s,keyfile=%s", "tls-creds-psk,id=t,endpoint=server,keyfile=%s"
    };
    static int   fd = -1;
    int          code, i;
    chr_context *ctx = tls_context(in);
    int          fds[3];
    char         paths[3][40], options[300];
    chr_error    err;
    if (fd < 0) fd = file_of("", 0);
    FUZZ_CHECK(ftruncate(fd, (off_t)in->size) == 0 && pwrite(fd, in->data, in->size, 0) == (ssize_t)in->size);
    fds[0] = what == 0 || what == 4 ? fd : cert_file;
    fds[1] = what == 1 || what == 2 ? fd : cert_file;
    fds[2] = what == 3 ? fd : key_file;
    for (i = 0; i < 3; i++) snprintf(paths[i], sizeof paths[i], "/proc/self/fd/%d", fds[i]);
    snprintf(options, sizeof options, formats[what], paths[0], paths[1], paths[2]);
    code = chr_tls_creds_add(ctx, options, &err);
    if (code < 0) fuzz_check_error(ctx, &err);
    else FUZZ_CHECK(chr_tls_creds_remove(ctx, "t", &err) == 0);
    tls_end(ctx);
}

/* ---- names and globs --------------------------------------------------------------------------------------------- */

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
    FUZZ_CHECK(!name.is_invalid && name.len == strlen(name.text));
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

#ifdef FUZZ_UNCOUNTED
#pragma clang attribute pop
#endif
