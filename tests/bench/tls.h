/*
 * tls.h - TLS for the client and for the plain server, by mbed TLS alone: read() and write() over it.
 */
#ifndef BENCH_TLS_H
#define BENCH_TLS_H

#include "bench.h"

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/ssl.h>
#include <mbedtls/version.h>
#if MBEDTLS_VERSION_MAJOR >= 3
#include <psa/crypto.h>
#endif

enum { BENCH_RECORD = 16384 }; /* the longest */

typedef struct bench_tls {
    int                      fd;
    mbedtls_entropy_context  entropy;
    mbedtls_ctr_drbg_context random;
    mbedtls_x509_crt         cert;
    mbedtls_pk_context       key;
    mbedtls_ssl_config       config;
    mbedtls_ssl_context      ssl;
} bench_tls;

static int bench_tls_pull(void *opaque, unsigned char *buf, size_t len)
{
    ssize_t n = read(((bench_tls *)opaque)->fd, buf, len);
    return n < 0 && errno == EAGAIN ? MBEDTLS_ERR_SSL_WANT_READ : (int)n;
}

static int bench_tls_push(void *opaque, const unsigned char *buf, size_t len)
{
    ssize_t n = write(((bench_tls *)opaque)->fd, buf, len);
    return n < 0 && errno == EAGAIN ? MBEDTLS_ERR_SSL_WANT_WRITE : (int)n;
}

static void bench_tls_show(bench_tls *tls, const char *dir)
{
    char cert[300], key[300];
    snprintf(cert, sizeof cert, "%s/server-cert.pem", dir);
    snprintf(key, sizeof key, "%s/server-key.pem", dir);
    if (mbedtls_x509_crt_parse_file(&tls->cert, cert) != 0) bench_die(cert);
#if MBEDTLS_VERSION_MAJOR >= 3
    if (mbedtls_pk_parse_keyfile(&tls->key, key, NULL, mbedtls_ctr_drbg_random, &tls->random) != 0) bench_die(key);
#else
    if (mbedtls_pk_parse_keyfile(&tls->key, key, NULL) != 0) bench_die(key);
#endif
    if (mbedtls_ssl_conf_own_cert(&tls->config, &tls->cert, &tls->key) != 0) bench_die("mbedtls_ssl_conf_own_cert");
}

/* A server shows what is in `dir`; a client (NULL) trusts everybody, and chooses the fastest cipher: there the rest counts most. */
static bench_tls *bench_tls_new(int fd, const char *dir)
{
    static const int suites[] = { MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, 0 };
    bench_tls       *tls = (bench_tls *)calloc(1, sizeof *tls);
    if (!tls) bench_die("calloc");
#if MBEDTLS_VERSION_MAJOR >= 3
    if (psa_crypto_init() != PSA_SUCCESS) bench_die("psa_crypto_init");
#endif
    tls->fd = fd;
    mbedtls_entropy_init(&tls->entropy);
    mbedtls_ctr_drbg_init(&tls->random);
    mbedtls_x509_crt_init(&tls->cert);
    mbedtls_pk_init(&tls->key);
    mbedtls_ssl_config_init(&tls->config);
    mbedtls_ssl_init(&tls->ssl);
    if (mbedtls_ctr_drbg_seed(&tls->random, mbedtls_entropy_func, &tls->entropy, NULL, 0) != 0) bench_die("mbedtls_ctr_drbg_seed");
    if (mbedtls_ssl_config_defaults(&tls->config, dir ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM,
                                    MBEDTLS_SSL_PRESET_DEFAULT) != 0) bench_die("mbedtls_ssl_config_defaults");
    mbedtls_ssl_conf_rng(&tls->config, mbedtls_ctr_drbg_random, &tls->random);
    mbedtls_ssl_conf_authmode(&tls->config, MBEDTLS_SSL_VERIFY_NONE);
    if (dir) bench_tls_show(tls, dir);
    else mbedtls_ssl_conf_ciphersuites(&tls->config, suites);
    if (mbedtls_ssl_setup(&tls->ssl, &tls->config) != 0) bench_die("mbedtls_ssl_setup");
    mbedtls_ssl_set_bio(&tls->ssl, tls, bench_tls_push, bench_tls_pull, NULL);
    fcntl(fd, F_SETFL, 0);
    if (mbedtls_ssl_handshake(&tls->ssl) != 0) bench_die("mbedtls_ssl_handshake");
    return tls;
}

/* As read() and write() answer; a retry of what would block must come with the same bytes. */
static ssize_t bench_tls_answer(int n)
{
    errno = n == MBEDTLS_ERR_SSL_WANT_READ || n == MBEDTLS_ERR_SSL_WANT_WRITE ? EAGAIN : ECONNRESET;
    return n == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY || n == MBEDTLS_ERR_SSL_CONN_EOF ? 0 : n < 0 ? -1 : n;
}

/* Record after record, as long as there is room for a whole one: so nothing is left where poll() can't see it. */
__attribute__((unused)) static ssize_t bench_tls_read(bench_tls *tls, void *buf, size_t len)
{
    size_t done = 0;
    int    n;
    do {
        n = mbedtls_ssl_read(&tls->ssl, (unsigned char *)buf + done, len - done);
        done += n > 0 ? (size_t)n : 0;
    } while (n == BENCH_RECORD && len - done >= BENCH_RECORD);
    return done > 0 ? (ssize_t)done : bench_tls_answer(n);
}

static ssize_t bench_tls_write(bench_tls *tls, const void *buf, size_t len)
{
    return bench_tls_answer(mbedtls_ssl_write(&tls->ssl, (const unsigned char *)buf, len));
}

#endif
