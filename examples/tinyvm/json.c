/* json.c - splitting, parsing, writing. */
#include "json.h"

#include <stdlib.h>
#include <string.h>

/* ---- splitting ----
 * A message is the text from an opening bracket to the one that closes it. Only brackets and strings are tracked here;
 * other syntax errors are found by the parser. */

#define RESET_BYTE '\xff' /* not valid in UTF-8: a client sends it to abandon an incomplete message */

/* Resynchronization after an error: bytes are skipped up to the next opening brace or, where that could be inside of
 * the faulty message, to the end of the line. */
enum { NOISE_TO_BRACE = 1, NOISE_TO_LINE_END };

static enum json_cut cut_error(struct json_cutter *c, int noise, const char *what)
{
    json_cut_reset(c);
    c->noise = noise;
    c->error = what;
    return JSON_CUT_ERROR;
}

void json_cut_reset(struct json_cutter *c)
{
    buf_clear(&c->message);
    c->depth = c->escaped = c->noise = c->done = 0;
    c->quote = 0;
}

static enum json_cut cut_in_string(struct json_cutter *c, char byte)
{
    if ((unsigned char)byte < 0x20)
        return cut_error(c, NOISE_TO_BRACE, "a string isn't closed before the end of the line");
    if (c->escaped) c->escaped = 0;
    else if (byte == '\\') c->escaped = 1;
    else if (byte == c->quote) c->quote = 0;
    return JSON_CUT_MORE;
}

static enum json_cut cut_open(struct json_cutter *c, char closer)
{
    if (c->depth == JSON_DEPTH_MAX) return cut_error(c, NOISE_TO_LINE_END, "nested too deeply");
    c->closers[c->depth++] = closer;
    return JSON_CUT_MORE;
}

static enum json_cut cut_close(struct json_cutter *c, char closer)
{
    if (c->closers[c->depth - 1] != closer)
        return cut_error(c, NOISE_TO_BRACE, "a bracket is closed by one of the other kind");
    c->done = --c->depth == 0;
    return c->done ? JSON_CUT_MESSAGE : JSON_CUT_MORE;
}

static enum json_cut cut_inside(struct json_cutter *c, char byte)
{
    buf_putc(&c->message, byte);
    if (c->message.len > JSON_MESSAGE_MAX) return cut_error(c, NOISE_TO_LINE_END, "the message is too long");
    if (c->quote) return cut_in_string(c, byte);
    switch (byte) {
    case '"': case '\'': c->quote = byte; return JSON_CUT_MORE;
    case '{': return cut_open(c, '}');
    case '[': return cut_open(c, ']');
    case '}': case ']': return cut_close(c, byte);
    default: return JSON_CUT_MORE;
    }
}

static int is_space(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

static enum json_cut cut_byte(struct json_cutter *c, char byte)
{
    if (c->done) json_cut_reset(c);
    if (byte == RESET_BYTE) {
        int inside = c->depth > 0;
        json_cut_reset(c);
        return inside ? cut_error(c, NOISE_TO_BRACE, "the message was broken off") : JSON_CUT_MORE;
    }
    if (c->depth) return cut_inside(c, byte);
    if (byte == '\n') c->noise = 0;
    if ((byte == '{' && c->noise != NOISE_TO_LINE_END) || (byte == '[' && !c->noise)) {
        c->noise = 0;
        return cut_inside(c, byte);
    }
    return c->noise || is_space(byte) ? JSON_CUT_MORE : cut_error(c, NOISE_TO_BRACE, "expected an object");
}

enum json_cut json_cut(struct json_cutter *c, const char *data, size_t len, size_t *used)
{
    enum json_cut result = JSON_CUT_MORE;
    for (*used = 0; *used < len && result == JSON_CUT_MORE; ++*used) {
        result = cut_byte(c, data[*used]);
        if (result == JSON_CUT_ERROR && data[*used] == '\n') c->noise = 0;
    }
    return result;
}

/* ---- parsing ---- */

struct reader {
    const char *at, *end;
    int         depth;
    const char *error;
};

static struct json *read_value(struct reader *r);

static void *read_fail(struct reader *r, const char *what)
{
    if (!r->error) r->error = what;
    return NULL;
}

static char peek(const struct reader *r)
{
    return r->at < r->end ? *r->at : '\0';
}

static void skip_space(struct reader *r)
{
    while (r->at < r->end && is_space(*r->at)) r->at++;
}

static int accept(struct reader *r, char byte)
{
    skip_space(r);
    if (peek(r) != byte || r->at == r->end) return 0;
    r->at++;
    return 1;
}

static struct json *new_value(enum json_type type)
{
    struct json *value = xcalloc(1, sizeof *value);
    value->type = type;
    return value;
}

static void put_utf8(struct buf *out, uint32_t c)
{
    if (c < 0x80) buf_putc(out, (char)c);
    else if (c < 0x800) {
        buf_putc(out, (char)(0xc0 | c >> 6));
        buf_putc(out, (char)(0x80 | (c & 0x3f)));
    } else if (c < 0x10000) {
        buf_putc(out, (char)(0xe0 | c >> 12));
        buf_putc(out, (char)(0x80 | (c >> 6 & 0x3f)));
        buf_putc(out, (char)(0x80 | (c & 0x3f)));
    } else {
        buf_putc(out, (char)(0xf0 | c >> 18));
        buf_putc(out, (char)(0x80 | (c >> 12 & 0x3f)));
        buf_putc(out, (char)(0x80 | (c >> 6 & 0x3f)));
        buf_putc(out, (char)(0x80 | (c & 0x3f)));
    }
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The value of four hex digits; -1 = something else. */
static int32_t read_hex4(struct reader *r)
{
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(peek(r));
        if (digit < 0) return -1;
        value = value << 4 | digit;
        r->at++;
    }
    return value;
}

/* Parses the digits after \u, and after a high surrogate the low one. Returns the character; -1 = error. */
static int32_t read_code_point(struct reader *r)
{
    int32_t first = read_hex4(r);
    if (first < 0xd800 || first > 0xdfff) return first;
    if (first > 0xdbff || r->end - r->at < 6 || r->at[0] != '\\' || r->at[1] != 'u') return -1;
    r->at += 2;
    int32_t second = read_hex4(r);
    if (second < 0xdc00 || second > 0xdfff) return -1;
    return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
}

static int read_escape(struct reader *r, struct buf *out)
{
    static const char letters[] = "\"'\\/bfnrt", bytes[] = "\"'\\/\b\f\n\r\t";
    char              letter = peek(r);
    r->at++;
    if (letter == 'u') {
        int32_t c = read_code_point(r);
        if (c >= 0) put_utf8(out, (uint32_t)c);
        return c >= 0;
    }
    const char *found = letter ? strchr(letters, letter) : NULL;
    if (found) buf_putc(out, bytes[found - letters]);
    return found != NULL;
}

/* The length of the UTF-8 sequence at p; 0 = invalid: overlong, a surrogate, or above U+10FFFF. */
static size_t utf8_length(const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    if (n > len) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if (n == 3 && ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f))) return 0;
    if (n == 4 && ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))) return 0;
    return n;
}

/* Parses a string whose opening quote was consumed. */
static int read_string(struct reader *r, char quote, struct buf *out)
{
    buf_puts(out, "");
    while (r->at < r->end) {
        char byte = *r->at;
        if (byte == quote) {
            r->at++;
            return 1;
        }
        if (byte == '\\') {
            r->at++;
            if (!read_escape(r, out)) return !!read_fail(r, "an escape in a string is wrong");
            continue;
        }
        size_t n = (unsigned char)byte < 0x20 ? 0 : utf8_length(r->at, (size_t)(r->end - r->at));
        if (!n) return !!read_fail(r, "a byte in a string is neither text nor UTF-8");
        buf_put(out, r->at, n);
        r->at += n;
    }
    return !!read_fail(r, "a string isn't closed");
}

static struct json *read_string_value(struct reader *r)
{
    struct buf text = { NULL, 0, 0 };
    char       quote = *r->at++;
    if (!read_string(r, quote, &text)) {
        buf_free(&text);
        return NULL;
    }
    struct json *value = new_value(JSON_STRING);
    value->text = text.data;
    value->len = text.len;
    return value;
}

static const char *digits(const char *p, const char *end)
{
    while (p < end && *p >= '0' && *p <= '9') p++;
    return p;
}

/* The end of the number at p; NULL = not a number: -? (0 | 1-9 digits) (. digits)? ([eE] [+-]? digits)? */
static const char *number_end(const char *p, const char *end)
{
    const char *from;
    if (p < end && *p == '-') p++;
    from = p;
    p = digits(p, end);
    if (p == from || (*from == '0' && p > from + 1)) return NULL;
    if (p < end && *p == '.') {
        from = ++p;
        p = digits(p, end);
        if (p == from) return NULL;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-')) p++;
        from = p;
        p = digits(p, end);
        if (p == from) return NULL;
    }
    return p;
}

static struct json *read_number(struct reader *r)
{
    const char *end = number_end(r->at, r->end);
    if (!end) return read_fail(r, "a number is malformed");
    struct buf text = { NULL, 0, 0 };
    buf_put(&text, r->at, (size_t)(end - r->at));
    r->at = end;
    struct json *value = new_value(JSON_NUMBER);
    value->text = text.data;
    value->len = text.len;
    return value;
}

static struct json *read_word(struct reader *r)
{
    static const struct { const char *word; enum json_type type; int truth; } words[] = {
        { "true", JSON_BOOL, 1 }, { "false", JSON_BOOL, 0 }, { "null", JSON_NULL, 0 }
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t len = strlen(words[i].word);
        if ((size_t)(r->end - r->at) < len || memcmp(r->at, words[i].word, len) != 0) continue;
        r->at += len;
        struct json *value = new_value(words[i].type);
        value->truth = words[i].truth;
        return value;
    }
    return read_fail(r, "expected a value");
}

static struct json *read_member(struct reader *r)
{
    struct buf key = { NULL, 0, 0 };
    skip_space(r);
    char quote = peek(r);
    if (quote != '"' && quote != '\'') return read_fail(r, "expected a member's name in quotes");
    r->at++;
    struct json *value = NULL;
    if (!read_string(r, quote, &key)) value = NULL;
    else if (strlen(key.data) != key.len) read_fail(r, "a member's name contains a zero");
    else if (!accept(r, ':')) read_fail(r, "expected ':' after a member's name");
    else value = read_value(r);
    if (value) value->key = key.data;
    else buf_free(&key);
    return value;
}

/* Parses elements of an array or members of an object, including the closing bracket. */
static struct json *read_list(struct reader *r, enum json_type type, char closer)
{
    struct json  *list = new_value(type);
    struct json **tail = &list->child;
    r->at++;
    if (accept(r, closer)) return list;
    do {
        struct json *value = type == JSON_OBJECT ? read_member(r) : read_value(r);
        if (!value) break;
        int is_twice = type == JSON_OBJECT && json_member(list, value->key) != NULL;
        *tail = value;
        tail = &value->next;
        if (is_twice && !read_fail(r, "duplicate key")) break;
    } while (accept(r, ','));
    if (!r->error && accept(r, closer)) return list;
    read_fail(r, "expected ',' or a closing bracket");
    json_free(list);
    return NULL;
}

static struct json *read_value(struct reader *r)
{
    struct json *value;
    if (r->depth == JSON_DEPTH_MAX) return read_fail(r, "nested too deeply");
    r->depth++;
    skip_space(r);
    switch (peek(r)) {
    case '{': value = read_list(r, JSON_OBJECT, '}'); break;
    case '[': value = read_list(r, JSON_ARRAY, ']'); break;
    case '"': case '\'': value = read_string_value(r); break;
    case '-': case '0': case '1': case '2': case '3': case '4':
    case '5': case '6': case '7': case '8': case '9': value = read_number(r); break;
    default: value = read_word(r); break;
    }
    r->depth--;
    return value;
}

struct json *json_read(const char *text, size_t len, const char **error)
{
    struct reader r = { text, text + len, 0, NULL };
    struct json  *value = read_value(&r);
    skip_space(&r);
    if (value && r.at < r.end) {
        json_free(value);
        value = read_fail(&r, "something follows the value");
    }
    *error = r.error;
    return value;
}

void json_free(struct json *value)
{
    while (value) {
        struct json *next = value->next;
        json_free(value->child);
        free(value->text);
        free(value->key);
        free(value);
        value = next;
    }
}

const struct json *json_member(const struct json *object, const char *key)
{
    const struct json *found = NULL;
    for (const struct json *m = object->child; m; m = m->next)
        if (!strcmp(m->key, key)) found = m;
    return found;
}

int json_is_text(const struct json *value)
{
    return value->type == JSON_STRING && strlen(value->text) == value->len;
}

int json_integer(const struct json *value, int64_t *out)
{
    if (value->type != JSON_NUMBER || strpbrk(value->text, ".eE")) return 0;
    int         negative = value->text[0] == '-';
    const char *p = value->text + negative;
    int64_t     n = 0;
    for (; *p; p++) {
        int digit = *p - '0';
        if (n < (INT64_MIN + digit) / 10) return 0; /* n is negative: -INT64_MIN would overflow */
        n = n * 10 - digit;
    }
    if (!negative && n == INT64_MIN) return 0;
    *out = negative ? n : -n;
    return 1;
}

const char *json_type_name(enum json_type type)
{
    static const char *const names[] = { "null", "boolean", "number", "string", "array", "object" };
    return names[type];
}

/* ---- writing ---- */

static void comma(struct buf *out)
{
    char last = out->len ? out->data[out->len - 1] : '\0';
    if (!last || strchr("{[ ", last)) return; /* a key ends with ": " */
    buf_puts(out, ", ");
}

void json_open(struct buf *out, char bracket)
{
    comma(out);
    buf_putc(out, bracket);
}

void json_close(struct buf *out, char bracket)
{
    buf_putc(out, bracket);
}

void json_key(struct buf *out, const char *key)
{
    json_text(out, key);
    buf_puts(out, ": ");
}

static void put_character(struct buf *out, const char *p, size_t n)
{
    static const char bytes[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char       *special = n == 1 && *p ? strchr(bytes, *p) : NULL;
    if (special) {
        buf_putc(out, '\\');
        buf_putc(out, letters[special - bytes]);
    } else if (n == 1 && ((unsigned char)*p < 0x20 || *p == 0x7f)) buf_printf(out, "\\u%04x", (unsigned)*p);
    else buf_put(out, p, n);
}

void json_string(struct buf *out, const char *text, size_t len)
{
    comma(out);
    buf_putc(out, '"');
    while (len) {
        size_t n = utf8_length(text, len);
        if (n) put_character(out, text, n);
        else buf_puts(out, "\\ufffd");
        text += n ? n : 1;
        len -= n ? n : 1;
    }
    buf_putc(out, '"');
}

void json_text(struct buf *out, const char *text)
{
    json_string(out, text, strlen(text));
}

void json_number(struct buf *out, int64_t value)
{
    comma(out);
    buf_printf(out, "%lld", (long long)value);
}

void json_raw(struct buf *out, const char *text)
{
    comma(out);
    buf_puts(out, text);
}

void json_bool(struct buf *out, int value)
{
    json_raw(out, value ? "true" : "false");
}

static void write_list(struct buf *out, const struct json *list, char opener, char closer)
{
    json_open(out, opener);
    for (const struct json *m = list->child; m; m = m->next) {
        if (m->key) json_key(out, m->key);
        json_value(out, m);
    }
    json_close(out, closer);
}

void json_value(struct buf *out, const struct json *value)
{
    switch (value->type) {
    case JSON_NULL: json_raw(out, "null"); break;
    case JSON_BOOL: json_bool(out, value->truth); break;
    case JSON_NUMBER: json_raw(out, value->text); break;
    case JSON_STRING: json_string(out, value->text, value->len); break;
    case JSON_ARRAY: write_list(out, value, '[', ']'); break;
    case JSON_OBJECT: write_list(out, value, '{', '}'); break;
    }
}
