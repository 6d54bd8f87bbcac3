/*
 * private.h - what a few tests look at that is private to the implementation: impl.c hands it out. Everything else that a test
 * needs is public.
 */
#ifndef CHARDEV_PRIVATE_H
#define CHARDEV_PRIVATE_H

#include <stddef.h>

int    private_quiet(chr_context *ctx);                                      /* chr__defer_begin() calls without their end */
int    private_depth(chr_context *ctx);                                      /* how many handlers are under way */
int    private_waiting(chr_context *ctx);                                    /* prepares and updates queued before the wait */
int    private_locks(chr_context *ctx);                                      /* how often its owner has the lock */
int    private_replays(chr_context *ctx);                                    /* whether a recording is being played */
size_t private_unsent(chr_dev *dev);                                         /* of a stream's layers: bytes that wait for the descriptor */
unsigned private_hash(chr_context *ctx, const char *id);                     /* of the table of ids; 0 while that is a list */
unsigned private_hash_key(chr_context *ctx, int half);                       /* of that table: 0 or 1 */
unsigned private_hash_of(const unsigned key[2], const void *bytes, size_t len);
size_t private_longest_chain(chr_context *ctx);                              /* in it */
void   private_sha1(const void *data, size_t len, unsigned char digest[20]);
void   private_base64(const unsigned char *data, size_t len, char *text);
void   private_ws_proof(const char *key, char *proof);                       /* what a server answers to a websocket client's key */
size_t private_utf8_put(unsigned long letter, unsigned char bytes[4]);
int    private_utf8_length(const unsigned char *bytes, size_t count);
int    private_utf8_is_good(const unsigned char *bytes, size_t len, int *left); /* left: bytes that the last sequence still wants */
void   private_put_text(char *to, size_t size, const char *text);
size_t private_append(char *text, size_t size, size_t len, const char *more);
int    private_fail(chr_error *err, const char *format, const char *text, int number);
void   private_put_number(unsigned char *to, uint64_t value, int bytes, int is_big);
uint64_t private_get_number(const unsigned char *from, int bytes, int is_big);
int    private_nabcc_dots(unsigned char character);
int    private_nabcc_character(unsigned char dots);
int    private_glob(const char *pattern, const char *text);                  /* with TLS */
const char *private_tls_suite(chr_dev *dev);                                 /* with TLS: the cipher suite of a socket */

#endif
