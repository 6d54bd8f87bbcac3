/*
 * json.h - the JSON of a QMP monitor: a splitter of a byte stream into messages, a parser into a tree, a writer.
 *
 * Memory is bounded: a message has at most JSON_MESSAGE_MAX bytes and JSON_DEPTH_MAX levels of nesting. As an
 * extension that users of QMP rely on, strings may be in single quotes too.
 */
#ifndef TINYVM_JSON_H
#define TINYVM_JSON_H

#include <stddef.h>
#include <stdint.h>

#include "buf.h"

#define JSON_MESSAGE_MAX (1024 * 1024)
#define JSON_DEPTH_MAX   64

/* ---- splitting: a stream of bytes, in pieces of any size, into messages ---- */

enum json_cut { JSON_CUT_MORE, JSON_CUT_MESSAGE, JSON_CUT_ERROR };

struct json_cutter {
    struct buf  message; /* received so far; complete after JSON_CUT_MESSAGE */
    const char *error;   /* text, after JSON_CUT_ERROR */
    char        closers[JSON_DEPTH_MAX];
    int         depth;
    char        quote;   /* the quote that ends the string; 0 = outside of strings */
    int         escaped; /* after a backslash */
    int         noise;   /* after an error: resynchronizing, bytes are skipped */
    int         done;    /* `message` was returned: the next byte starts another */
};

/* Consumes bytes, *used of them, up to the end of a message or to an error. */
enum json_cut json_cut(struct json_cutter *cutter, const char *data, size_t len, size_t *used);
void          json_cut_reset(struct json_cutter *cutter);

/* ---- parsing into a tree ---- */

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
    enum json_type type;
    int            truth; /* of a BOOL */
    char          *text;  /* of a STRING, decoded to UTF-8; of a NUMBER, unchanged; zero-terminated */
    size_t         len;   /* of text */
    char          *key;   /* inside an object */
    struct json   *child, *next;
};

/* Parses exactly one JSON value. Returns it, to be freed with json_free(); or NULL and *error. */
struct json *json_read(const char *text, size_t len, const char **error);
void         json_free(struct json *value);

const struct json *json_member(const struct json *object, const char *key); /* NULL = there is none */
/* Whether it is a string without zero bytes; whether it is an integer of 64 bits (*out). */
int         json_is_text(const struct json *value);
int         json_integer(const struct json *value, int64_t *out);
const char *json_type_name(enum json_type type);

/* ---- writing: appends to a buffer, with commas between elements and members ---- */

void json_open(struct buf *out, char bracket); /* '{' or '[' */
void json_close(struct buf *out, char bracket);
void json_key(struct buf *out, const char *key);
void json_string(struct buf *out, const char *text, size_t len); /* invalid UTF-8 becomes U+FFFD */
void json_text(struct buf *out, const char *text);
void json_number(struct buf *out, int64_t value);
void json_bool(struct buf *out, int value);
void json_value(struct buf *out, const struct json *value); /* a parsed tree */
void json_raw(struct buf *out, const char *text);           /* a value in JSON */

#endif
