/*
 * The implementation that the test programs link with, compiled once for each flavour: as it is, with system calls that fail on
 * demand (TEST_FAULTS), with sockets in memory behind these (TEST_WIRES), with TLS, with SPICE, with its steps counted (TEST_COUNTED). And the doors of private.h.
 */
#ifdef TEST_FAULTS
#include "fault.h"
#endif
#ifdef TEST_WIRES
#include "fuzz/wire.h"
#endif
#ifdef TEST_COUNTED
#include "counted.h"
#endif
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"

#include "private.h"

int private_quiet(chr_context *ctx)
{
    return (int)ctx->deferring;
}

int private_depth(chr_context *ctx)
{
    return (int)ctx->depth;
}

int private_waiting(chr_context *ctx)
{
    return (int)ctx->prepare_count;
}

int private_locks(chr_context *ctx)
{
    return chr__lock_depth(ctx);
}

int private_replays(chr_context *ctx)
{
    return ctx->replay != NULL;
}

#if CHARDEV_HAS_SOCKET

size_t private_unsent(chr_dev *dev)
{
    return (size_t)chr__stream_unsent(&((chr__stream_dev *)dev)->stream);
}

void private_sha1(const void *data, size_t len, unsigned char digest[20])
{
    chr__sha1(data, len, digest);
}

void private_ws_proof(const char *key, char *proof)
{
    chr__ws_accept_value(key, proof);
}

#endif

unsigned private_hash(chr_context *ctx, const char *id)
{
    return ctx->devs_by_id.chains ? chr__hash(ctx->devs_by_id.hash_key, id, strlen(id)) : 0;
}

unsigned private_hash_key(chr_context *ctx, int half)
{
    return ctx->devs_by_id.hash_key[half];
}

unsigned private_hash_of(const unsigned key[2], const void *bytes, size_t len)
{
    return chr__hash(key, bytes, len);
}

size_t private_longest_chain(chr_context *ctx)
{
    const chr__table *table = &ctx->devs_by_id;
    const chr__entry *entry;
    size_t            i, length, longest = 0;

    for (i = 0; i < (table->chains ? table->size : 1); i++) {
        length = 0;
        for (entry = table->chains ? table->chains[i] : table->few; entry; entry = entry->next) length++;
        if (length > longest) longest = length;
    }
    return longest;
}

void private_base64(const unsigned char *data, size_t len, char *text)
{
    chr__base64_text(data, len, text);
}

size_t private_utf8_put(unsigned long letter, unsigned char bytes[4])
{
    return chr__utf8_put((uint32_t)letter, bytes);
}

int private_utf8_length(const unsigned char *bytes, size_t count)
{
    return chr__utf8_length(bytes, count);
}

int private_utf8_is_good(const unsigned char *bytes, size_t len, int *left)
{
    chr__utf8 utf8 = { 0, 0, 0 };
    int       good = chr__utf8_is_valid(&utf8, bytes, len) != 0;

    *left = utf8.left;
    return good;
}

void private_put_text(char *to, size_t size, const char *text)
{
    chr__put_text(to, size, text);
}

size_t private_append(char *text, size_t size, size_t len, const char *more)
{
    return chr__append(text, size, len, "%s", more);
}

static int private_fail_with(chr_error *err, const char *format, ...)
{
    va_list args;
    int     code;

    va_start(args, format);
    code = chr__fail_with(err, CHR_ERR_INVALID, format, args);
    va_end(args);
    return code;
}

int private_fail(chr_error *err, const char *format, const char *text, int number)
{
    return private_fail_with(err, format, text, number);
}

void private_put_number(unsigned char *to, uint64_t value, int bytes, int is_big)
{
    if (is_big)
        chr__put_be(to, value, bytes);
    else
        chr__put_le(to, value, bytes);
}

uint64_t private_get_number(const unsigned char *from, int bytes, int is_big)
{
    return is_big ? chr__get_be(from, bytes) : chr__get_le(from, bytes);
}

int private_nabcc_dots(unsigned char character)
{
    return chr__nabcc_dots(character);
}

int private_nabcc_character(unsigned char dots)
{
    return chr__nabcc_character(dots);
}

#ifdef CHARDEV_MBEDTLS

int private_glob(const char *pattern, const char *text)
{
    return chr__glob(pattern, text);
}

const char *private_tls_suite(chr_dev *dev)
{
    chr__layer *top = ((chr__socket *)dev)->stream.top;
    return top ? mbedtls_ssl_get_ciphersuite(&((chr__tls *)top)->ssl) : NULL;
}

#endif
