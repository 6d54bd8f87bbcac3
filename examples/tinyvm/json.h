/*
 * json.h - as much JSON as a QMP monitor needs: cut a stream of bytes into messages, read one into a tree, write text.
 *
 * All is bounded: a message by JSON_MESSAGE_MAX bytes, nesting by JSON_DEPTH_MAX. As an extension that QMP's users rely on,
 * strings may stand in single quotes too.
 */
#ifndef TINYVM_JSON_H
#define TINYVM_JSON_H

#include <stddef.h>
#include <stdint.h>

#include "buf.h"

#define JSON_MESSAGE_MAX (1024 * 1024)
#define JSON_DEPTH_MAX   64

/* ---- cutting: bytes come in as they please, messages come out ---- */

enum json_cut { JSON_CUT_MORE, JSON_CUT_MESSAGE, JSON_CUT_ERROR };

struct json_cutter {
    struct buf  message; /* what has been collected; the message, after JSON_CUT_MESSAGE */
    const char *error;   /* what was wrong, after JSON_CUT_ERROR */
    char        closers[JSON_DEPTH_MAX];
    int         depth;
    char        quote;   /* inside a string: what ends it */
    int         escaped; /* after a backslash */
    int         noise;   /* after an error: skip what belongs to it */
    int         done;    /* `message` has been handed out */
};

/* Reads from data, says in *used how far it came, and stops at each message and each error. */
enum json_cut json_cut(struct json_cutter *cutter, const char *data, size_t len, size_t *used);
void          json_cut_reset(struct json_cutter *cutter);

/* ---- reading: a tree ---- */

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
    enum json_type type;
    int            truth; /* of a BOOL */
    char          *text;  /* of a STRING, decoded to UTF-8; of a NUMBER, as it was written; zero-terminated */
    size_t         len;   /* of text */
    char          *key;   /* inside an object */
    struct json   *child, *next;
};

/* NULL and *error when it isn't one whole JSON value. Give it back to json_free(). */
struct json *json_read(const char *text, size_t len, const char **error);
void         json_free(struct json *value);

const struct json *json_member(const struct json *object, const char *key); /* NULL if there is none */
/* A string without zeros in it, a whole number; 0 if it is something else. */
int         json_is_text(const struct json *value);
int         json_integer(const struct json *value, int64_t *out);
const char *json_type_name(enum json_type type);

/* ---- writing: appends to a buffer; a comma comes by itself where one is due ---- */

void json_open(struct buf *out, char bracket); /* '{' or '[' */
void json_close(struct buf *out, char bracket);
void json_key(struct buf *out, const char *key);
void json_string(struct buf *out, const char *text, size_t len); /* what isn't UTF-8 becomes U+FFFD */
void json_text(struct buf *out, const char *text);
void json_number(struct buf *out, int64_t value);
void json_bool(struct buf *out, int value);
void json_value(struct buf *out, const struct json *value); /* a tree that was read */
void json_raw(struct buf *out, const char *text);           /* a value that is JSON already */

#endif
