/* testdev: [spaces][decimal]q ends the emulator, from the loop. */
#include "chardev.h"
#include "rig.h"

static void write_text(recorder *rec, const char *text)
{
    CHECK_INT(chr_fe_write(&rec->fe, text, strlen(text)), strlen(text));
}

TEST(exit_codes)
{
    static const struct { const char *text; int exits, code; } table[] = {
        { "q", 1, 1 },           { "0q", 1, 1 },         { "3q", 1, 7 },        { "  12q", 1, 25 },   { "\r\n\t 127q", 1, 255 },
        { "5 q", 1, 11 },        { "x9q", 1, 19 },       { "9xq", 1, 1 },       { "1 2q", 1, 1 },     { "-4q", 1, 9 },
        { "Q", 0, 0 },           { "1234", 0, 0 },       { "", 0, 0 },          { "3q4q", 1, 7 },     { "1073741823q", 1, 0x7fffffff },
        { "99999999999999999999999999999q", 1, 0x7fffffff },
    };
    size_t i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        recorder rec;
        rig      r;
        rig_open_virtual(&r);
        attach(&rec, make(&r, "testdev,id=t"));
        if (table[i].text[0]) write_text(&rec, table[i].text);
        CHECK_INT(r.exits, 0); /* not before the loop */
        settle(&r);
        if (!CHECK_INT(r.exits, table[i].exits) || !CHECK_INT(r.exit_code, table[i].code)) NOTE("for \"%s\"", table[i].text);
        detach(&rec);
        rig_close(&r);
    }
}

/* What stands between a number and the next: white space ends it, a digit continues it, anything else begins anew. */
TEST(every_character_between)
{
    int c;
    for (c = 0; c < 256; c++) {
        int      is_space = c == ' ' || (c >= '\t' && c <= '\r'), is_digit = c >= '0' && c <= '9';
        int      number = is_digit ? 504 + 10 * (c - '0') : is_space ? 0 : c == 'q' ? 5 : 4;
        char     text[5] = { '5', (char)c, '4', 'q', 0 }, after[5] = { '6', ' ', (char)c, '7', 'q' };
        recorder rec;
        rig      r;
        rig_open_virtual(&r);
        attach(&rec, make(&r, "testdev,id=t"));
        CHECK_INT(chr_fe_write(&rec.fe, text, 4), 4);
        settle(&r);
        if (!CHECK_INT(r.exits, 1) || !CHECK_INT(r.exit_code, number << 1 | 1)) NOTE("character %d", c);
        CHECK_INT(chr_fe_write(&rec.fe, after, 5), 5);
        settle(&r);
        number = is_space ? 0 : is_digit ? 7 : c == 'q' ? 6 : 7;
        if (!CHECK_INT(r.exits, 2) || !CHECK_INT(r.exit_code, number << 1 | 1)) NOTE("character %d behind a number and a space", c);
        detach(&rec);
        rig_close(&r);
    }
}

TEST(any_split_of_the_bytes)
{
    recorder    rec;
    rig         r;
    const char *text = "  junk 21q", *at;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "testdev,id=t"));
    for (at = text; *at; at++) {
        CHECK_INT(chr_fe_write(&rec.fe, at, 1), 1);
        settle(&r);
    }
    CHECK_INT(r.exits, 1);
    CHECK_INT(r.exit_code, 43);
    write_text(&rec, "q"); /* the handler has not ended us: the next wish counts again */
    settle(&r);
    CHECK_INT(r.exits, 2);
    CHECK_INT(r.exit_code, 1);
    detach(&rec);
    rig_close(&r);
}

TEST(without_handler_the_loop_stops)
{
    chr_error    err;
    chr_frontend fe;
    chr_context *ctx = chr_context_new(NULL);
    REQUIRE(chr_fe_init(&fe, chr_new_uri(ctx, "t", "testdev", &err), &err) == 0);
    CHECK_INT(chr_fe_write(&fe, "q", 1), 1);
    CHECK_INT(chr_loop_run(ctx), 0);
    chr_context_free(ctx);
}

TEST(open_from_creation_and_gone_before_the_loop)
{
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "testdev,id=t"));
    settle(&r);
    CHECK_STR(rec.events, "O");
    write_text(&rec, "3q");
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "t", NULL), 0);
    settle(&r);
    CHECK_INT(r.exits, 0);
    rig_close(&r);
}
