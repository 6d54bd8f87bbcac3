/* script: a scripted far side. */
#include "chardev.h"
#include "rig.h"
#include "hosted.h"

/* A context on a virtual clock of its own; a script on it, from a text, and a recorder in front. */
typedef struct stage {
    rig      r;
    recorder rec;
    chr_dev *dev;
    chr_error err;
} stage;

static void open_stage(stage *s)
{
    chr_config config = rig_config(&s->r);
    config.virtual_clock = 1;
    rig_init(&s->r);
    s->r.ctx = chr_context_new(&config);
    REQUIRE(s->r.ctx != NULL);
}

static chr_dev *make_script(stage *s, const char *id, const char *text)
{
    chr_script_options options;
    memset(&options, 0, sizeof options);
    options.text = text;
    return chr_open(s->r.ctx, id, chr_backend_find(s->r.ctx, "script"), &options, &s->err);
}

static void play_with_room(stage *s, const char *text, int room)
{
    open_stage(s);
    s->dev = make_script(s, "s", text);
    if (!s->dev) NOTE("%s", s->err.text);
    REQUIRE(s->dev != NULL);
    attach_with_room(&s->rec, s->dev, room);
    settle(&s->r);
}

static void play(stage *s, const char *text)
{
    play_with_room(s, text, UNLIMITED);
}

static int result(stage *s)
{
    memset(&s->err, 0, sizeof s->err);
    return chr_script_result(s->dev, &s->err);
}

static void say_to_it(stage *s, const char *text)
{
    CHECK_INT(chr_fe_write(&s->rec.fe, text, strlen(text)), strlen(text));
    settle(&s->r);
}

static void until_ms(stage *s, int64_t ms)
{
    CHECK(chr_loop_run_until(s->r.ctx, ms * 1000000) >= 0);
}

static void end_stage(stage *s)
{
    detach(&s->rec);
    rig_close(&s->r);
}

/* ---- what it plays ----------------------------------------------------------------------------------------------- */

TEST(a_login)
{
    stage    s;
    chr_info info;
    play(&s, "expect \"login:\"; send \"root\\n\"; wait 100ms; break; close");
    CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
    CHECK_STR(s.err.text, "script: line 1: expect \"login:\": this is not done yet");
    say_to_it(&s, "Welcome\r\nhost login: ");
    CHECK_INPUT(&s.rec, "root\n");
    CHECK_STR(s.rec.events, "O");
    until_ms(&s, 99);
    CHECK_STR(s.rec.events, "O");
    until_ms(&s, 100);
    CHECK_STR(s.rec.events, "OBC");
    CHECK_INT(result(&s), 0);
    CHECK_INT(s.r.exits, 1);
    CHECK_INT(s.r.exit_code, 0);
    CHECK_STR(s.r.log, "");
    chr_query(s.dev, &info);
    CHECK_STR(info.filename, "passed:script");
    CHECK_INT(info.comes_back, 0);
    CHECK_INT(chr_fe_write(&s.rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    end_stage(&s);
}

TEST(fails_with_the_line_and_what_came_instead)
{
    stage    s;
    chr_info info;
    play(&s, "# a comment; expect \"nothing\"\nsend \"x\"\n\nexpect \"log\\151n:\" within 2s # once\n");
    say_to_it(&s, "login\"\\\t\1");
    until_ms(&s, 1999);
    CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
    until_ms(&s, 2000);
    CHECK_INT(result(&s), CHR_ERR_TIMEOUT);
    CHECK_STR(s.err.text, "script: line 4: expect \"log\\151n:\": timed out; what came instead: \"login\\\"\\\\\\t\\x01\"");
    CHECK_STR(s.r.log, "chardev s: script: line 4: expect \"log\\151n:\": timed out; what came instead: \"login\\\"\\\\\\t\\x01\"\n");
    CHECK_INT(s.r.exits, 1);
    CHECK_INT(s.r.exit_code, 1);
    CHECK_STR(s.rec.events, "OC");
    chr_query(s.dev, &info);
    CHECK_STR(info.filename, "failed:script,line=4");
    end_stage(&s);
}

TEST(default_time_out_and_others)
{
    static const struct { const char *text; int64_t ms; } table[] = {
        { "expect \"x\"", 10000 }, { "timeout 3s; expect \"x\"", 3000 }, { "timeout 1min\nexpect \"x\" within 7ms", 7 },
        { "timeout 250ms; wait 1s; expect \"x\"", 1250 }, { "send \"yy\"", 10000 }, { "timeout 1ms; send \"yyy\"", 1 } };
    size_t i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        stage s;
        play_with_room(&s, table[i].text, 1);
        until_ms(&s, table[i].ms - 1);
        CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
        until_ms(&s, table[i].ms);
        if (!CHECK_INT(result(&s), CHR_ERR_TIMEOUT)) NOTE("for %s", table[i].text);
        end_stage(&s);
    }
    {
        stage s;
        play(&s, "timeout 0s; expect \"x\"");
        until_ms(&s, 1000000000);
        CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
        say_to_it(&s, "x");
        CHECK_INT(result(&s), 0);
        end_stage(&s);
    }
}

TEST(expected_over_any_cut)
{
    static const char output[] = "aabaaabaaac--abcabcabd--";
    size_t            cut;
    for (cut = 1; cut < sizeof output - 1; cut++) {
        stage  s;
        size_t at;
        play(&s, "expect \"aabaaac\"; expect \"-\"\nexpect \"-\"; expect \"abcabd\"; expect \"--\"");
        for (at = 0; at < sizeof output - 1; at += cut) {
            size_t len = sizeof output - 1 - at < cut ? sizeof output - 1 - at : cut;
            CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
            CHECK_INT(chr_fe_write(&s.rec.fe, output + at, len), len);
        }
        if (!CHECK_INT(result(&s), 0)) NOTE("in pieces of %zu: %s", cut, s.err.text);
        end_stage(&s);
    }
}

TEST(what_was_written_before_it_is_expected)
{
    stage s;
    play(&s, "wait 1s; expect \"one\"; send \"a\"; expect \"two\"; send \"b\"; expect \"one\" within 1s");
    say_to_it(&s, "one two");
    CHECK_INT(s.rec.length, 0);
    until_ms(&s, 1000);
    CHECK_INPUT(&s.rec, "ab");
    until_ms(&s, 2000); /* the first one is used up */
    CHECK_INT(result(&s), CHR_ERR_TIMEOUT);
    CHECK_HAS(s.err.text, "what came instead: nothing");
    end_stage(&s);
}

TEST(every_byte_and_escape)
{
    static const unsigned char want[] = "\n\r\t\b\a\f\v\033\\\"'\0\1\377\x7f#;A\0B ";
    stage                      s;
    play(&s, "send \"\\n\\r\\t\\b\\a\\f\\v\\e\\\\\\\"\\'\\0\\001\\377\\x7f#;\\101\\0B \"\n expect \"\\0\\0a\\xff\"; send \"ok\"");
    CHECK_MEM(s.rec.input, s.rec.length, want, sizeof want - 1);
    forget_input(&s.rec);
    CHECK_INT(chr_fe_write(&s.rec.fe, "\0\0\0a\377", 5), 5);
    settle(&s.r);
    CHECK_INPUT(&s.rec, "ok");
    CHECK_INT(result(&s), 0);
    end_stage(&s);
}

/* Escapes, each beside what would be one more digit, or one less. */
TEST(escapes_at_their_bounds)
{
    static const struct { const char *text, *sent; size_t len; } table[] = {
        { "\\0", "\0", 1 },         { "\\7", "\7", 1 },        { "\\18", "\1" "8", 2 },   { "\\177", "\177", 1 },   { "\\377", "\377", 1 },
        { "\\1234", "\123" "4", 2 }, { "\\129", "\12" "9", 2 }, { "\\x00", "\0", 1 },     { "\\xff", "\xff", 1 },   { "\\xFf0", "\xff" "0", 2 },
        { "\\x410", "A0", 2 },      { "\\n\\r\\t", "\n\r\t", 3 }, { "\\b\\a\\f\\v", "\b\a\f\v", 4 }, { "\\e\\\\\\\"\\'", "\33\\\"'", 4 },
        { "a\tb", "a\tb", 3 },      { "8\\60", "80", 2 },
    };
    static const char *const none[] = { "\\8", "\\9", "\\400", "\\777", "\\x", "\\x1", "\\xg1", "\\x1g", "\\N", "\\", "\\ ", "\\q" };
    size_t i;
    char   text[100];
    stage  s;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        snprintf(text, sizeof text, "send \"%s\"", table[i].text);
        play(&s, text);
        if (!CHECK_MEM(s.rec.input, s.rec.length, table[i].sent, table[i].len)) NOTE("for %s", text);
        CHECK_INT(result(&s), 0);
        end_stage(&s);
    }
    for (i = 0; i < sizeof none / sizeof *none; i++) {
        snprintf(text, sizeof text, "send \"%s\"", none[i]);
        open_stage(&s);
        if (!CHECK(make_script(&s, "s", text) == NULL)) NOTE("for %s", text);
        rig_close(&s.r);
    }
}

/* The largest times, the least, and one more than what can be. */
TEST(times_at_their_bounds)
{
    static const struct { const char *time; int64_t ms; } table[] = {
        { "0ms", 0 }, { "1ms", 1 }, { "999ms", 999 }, { "1s", 1000 }, { "1min", 60000 }, { "0001ms", 1 },
        { "1000000s", 1000000000 }, { "1000000000ms", 1000000000 }, { "16666min", 999960000 },
        { "1000001s", -1 }, { "1000000001ms", -1 }, { "16667min", -1 }, { "99999999999999999999ms", -1 }, { "1 ms", -1 }, { "1", -1 },
        { "ms", -1 }, { "-1s", -1 }, { "1h", -1 }, { "1S", -1 }, { "1mss", -1 }, { "1.5s", -1 },
    };
    size_t i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        char    text[100];
        chr_dev *dev;
        stage   s;
        open_stage(&s);
        snprintf(text, sizeof text, "wait %s", table[i].time);
        dev = make_script(&s, "s", text);
        if (!CHECK_INT(dev != NULL, table[i].ms >= 0)) NOTE("for %s", text);
        if (!dev) CHECK_HAS(s.err.text, strlen(table[i].time) < 15 && atof(table[i].time) > 16666 ? "longer than 1000000 s" : "script: text: line 1: ");
        if (dev) {
            s.dev = dev;
            attach(&s.rec, dev);
            settle(&s.r);
            if (table[i].ms > 0) {
                until_ms(&s, table[i].ms - 1);
                CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
            }
            until_ms(&s, table[i].ms);
            if (!CHECK_INT(result(&s), 0)) NOTE("for %s", text);
            detach(&s.rec);
        }
        rig_close(&s.r);
    }
}

/* What a message shows is text, whatever is in it. */
TEST(per_cents_in_a_verdict)
{
    stage s;
    play(&s, "fail \"100%s sure %d\"");
    CHECK_INT(result(&s), CHR_ERR_IO);
    CHECK_STR(s.err.text, "script: line 1: fail \"100%s sure %d\": reached; what came: nothing");
    CHECK_STR(s.r.log, "chardev s: script: line 1: fail \"100%s sure %d\": reached; what came: nothing\n");
    end_stage(&s);
}

/* Between two statements: what is written has met what was expected, and the rest is the loop's. */
TEST(looked_at_between_two_statements)
{
    stage s;
    play(&s, "wait 1ms\nexpect \"x\"\nsend \"y\"");
    until_ms(&s, 1);
    CHECK_INT(chr_fe_write(&s.rec.fe, "x", 1), 1);
    CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
    CHECK_STR(s.err.text, "script: line 2: it is behind this");
    settle(&s.r);
    CHECK_INPUT(&s.rec, "y");
    CHECK_INT(result(&s), 0);
    end_stage(&s);
}

/* A statement's own control characters don't get into the message. */
TEST(a_verdict_is_one_line)
{
    stage s;
    play(&s, "fail \"a\tb\33c\"");
    CHECK_INT(result(&s), CHR_ERR_IO);
    CHECK_STR(s.err.text, "script: line 1: fail \"a?b?c\": reached; what came: nothing");
    end_stage(&s);
}

/* What came is shown from its end, and a long statement from its begin. */
TEST(long_texts_in_a_verdict)
{
    static char text[800], want[600], sent[400];
    size_t      len, i;
    for (len = 78; len <= 82; len++) {
        stage s;
        memset(want, 'p', len);
        want[len] = 0;
        snprintf(text, sizeof text, "expect \"%s\" within 1ms", want);
        play(&s, text);
        until_ms(&s, 1);
        CHECK_INT(result(&s), CHR_ERR_TIMEOUT);
        snprintf(text, sizeof text, "script: line 1: expect \"%.80s\": timed out; what came instead: nothing", want);
        CHECK_STR(s.err.text, text);
        end_stage(&s);
    }
    for (len = 1; len < 300; len += len < 60 || len > 210 ? 9 : 1) {
        const char *shown;
        stage       s;
        for (i = 0; i < len; i++) sent[i] = (char)('a' + i % 26);
        sent[len] = 0;
        play(&s, "expect \"#\" within 1ms");
        say_to_it(&s, sent);
        until_ms(&s, 1);
        CHECK_INT(result(&s), CHR_ERR_TIMEOUT);
        shown = strstr(s.err.text, "instead: ");
        REQUIRE(shown != NULL);
        shown += 9;
        if (strncmp(shown, "...\"", 4) == 0) CHECK(len > strlen(shown) - 5);
        else CHECK_INT(len, strlen(shown) - 2);
        shown = strchr(shown, '"') + 1;
        CHECK_INT(shown[strlen(shown) - 1], '"');
        if (!CHECK(strncmp(shown, sent + len - (strlen(shown) - 1), strlen(shown) - 1) == 0)) NOTE("%s", s.err.text);
        end_stage(&s);
    }
}

/* Between two statements, of many: a look at it from a handler. */
static int         looked;
static chr_error   look_error;

static void look_at_it(recorder *rec, int what)
{
    if (what != 'e' || rec->last_event != CHR_EVENT_BREAK || looked) return;
    looked = chr_script_result(rec->fe.dev, &look_error);
}

TEST(looked_at_while_it_plays)
{
    stage s;
    memset(&look_error, 0, sizeof look_error);
    looked = 0;
    open_stage(&s);
    s.dev = make_script(&s, "s", "break\nwait 1s\npass");
    REQUIRE(s.dev != NULL);
    CHECK_INT(chr_script_result(s.dev, &s.err), CHR_ERR_WOULD_BLOCK);
    CHECK_STR(s.err.text, "script: line 1: no frontend has come yet");
    attach(&s.rec, s.dev);
    s.rec.then = look_at_it;
    settle(&s.r);
    CHECK_INT(looked, CHR_ERR_WOULD_BLOCK);
    CHECK_HAS(look_error.text, "script: line 1: ");
    CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
    CHECK_STR(s.err.text, "script: line 2: wait: this is not done yet");
    until_ms(&s, 1000);
    CHECK_INT(result(&s), 0);
    CHECK_INT(chr_script_result(s.dev, NULL), 0);
    end_stage(&s);
}

/* The frontend ends its output, once; without a script that runs there is nothing to end. */
TEST(the_end_of_output_is_said_once)
{
    stage s;
    play(&s, "send \"x\"; wait 1s; close; wait 1s; open; wait 1s");
    CHECK_INT(chr_fe_shutdown(&s.rec.fe), 0);
    CHECK_INT(chr_fe_shutdown(&s.rec.fe), 0);
    CHECK_INT(chr_fe_write(&s.rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    until_ms(&s, 1000);
    CHECK_STR(s.rec.events, "OC");
    CHECK_INT(chr_fe_shutdown(&s.rec.fe), CHR_ERR_DISCONNECTED);
    until_ms(&s, 2000);
    CHECK_STR(s.rec.events, "OCO");
    CHECK_INT(chr_fe_write(&s.rec.fe, "x", 1), 1);
    CHECK_INT(chr_fe_shutdown(&s.rec.fe), 0);
    end_stage(&s);
}

TEST(rejected_at_any_time)
{
    stage s;
    play(&s, "expect \"boot\"; reject \"panic\"; reject \"oops\"\nsend \"x\"; wait 1min; expect \"done\"");
    say_to_it(&s, "panic"); /* too early to count */
    CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
    say_to_it(&s, "boot pa");
    CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
    say_to_it(&s, "pan");
    say_to_it(&s, "ic!");
    CHECK_INT(result(&s), CHR_ERR_IO);
    CHECK_STR(s.err.text, "script: line 1: reject \"panic\": it came: \" papanic!\"");
    CHECK_INT(s.r.exit_code, 1);
    end_stage(&s);
    play(&s, "expect \"a\"; wait 1ms; reject \"late\"; expect \"b\"");
    say_to_it(&s, "a late"); /* since the last expect: it counts */
    until_ms(&s, 1);
    CHECK_INT(result(&s), CHR_ERR_IO);
    end_stage(&s);
}

TEST(closes_and_opens)
{
    stage    s;
    chr_info info;
    play(&s, "wait 1ms; close; wait 5ms; open; send \"again\"; eof; expect \"bye\"; pass; fail \"never\"");
    CHECK_STR(s.rec.events, "O");
    until_ms(&s, 1);
    CHECK_STR(s.rec.events, "OC");
    chr_query(s.dev, &info);
    CHECK_INT(info.comes_back, 1);
    CHECK_INT(chr_fe_write(&s.rec.fe, "bye", 3), CHR_ERR_DISCONNECTED);
    until_ms(&s, 6);
    CHECK_STR(s.rec.events, "OCOE");
    CHECK_INPUT(&s.rec, "again");
    CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
    say_to_it(&s, "bye");
    CHECK_STR(s.rec.events, "OCOEC");
    CHECK_INT(result(&s), 0);
    end_stage(&s);
    play(&s, "expect \"x\"\nfail \"not\\x20today\"");
    say_to_it(&s, "abcxyz");
    CHECK_INT(result(&s), CHR_ERR_IO);
    CHECK_STR(s.err.text, "script: line 2: fail \"not\\x20today\": reached; what came: \"yz\"");
    end_stage(&s);
}

TEST(the_frontend_says_no_more)
{
    stage s;
    play(&s, "expect \"x\"; wait 1s; expect \"y\"; send \"never\"");
    say_to_it(&s, "ax");
    CHECK_INT(chr_fe_shutdown(&s.rec.fe), 0);
    CHECK_INT(chr_fe_write(&s.rec.fe, "y", 1), CHR_ERR_DISCONNECTED);
    CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
    until_ms(&s, 1000);
    CHECK_INT(result(&s), CHR_ERR_DISCONNECTED);
    CHECK_STR(s.err.text, "script: line 1: expect \"y\": the output has ended; what came instead: nothing");
    end_stage(&s);
    play(&s, "expect \"x\"");
    CHECK_INT(chr_fe_shutdown(&s.rec.fe), 0);
    CHECK_INT(result(&s), CHR_ERR_DISCONNECTED);
    end_stage(&s);
}

TEST(sent_as_there_is_room)
{
    stage s;
    int   i;
    play_with_room(&s, "send \"0123456789\"; send \"ab\"; close", 0);
    CHECK_INT(s.rec.length, 0);
    for (i = 0; i < 12; i++) {
        CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
        give_room(&s.rec, 1);
        settle(&s.r);
        CHECK_INT(s.rec.length, i + 1);
    }
    CHECK_INPUT(&s.rec, "0123456789ab");
    CHECK_INT(result(&s), 0);
    CHECK_STR(s.rec.events, "OC");
    end_stage(&s);
}

/* The script's clock begins with the frontend. */
TEST(nobody_is_there_yet)
{
    stage s;
    open_stage(&s);
    s.dev = make_script(&s, "s", "wait 10ms; send \"x\"");
    until_ms(&s, 100000);
    CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
    CHECK_STR(s.err.text, "script: line 1: no frontend has come yet");
    attach(&s.rec, s.dev);
    until_ms(&s, 100009);
    CHECK_INT(s.rec.length, 0);
    until_ms(&s, 100010);
    CHECK_INPUT(&s.rec, "x");
    end_stage(&s);
}

TEST(the_window)
{
    static char output[1000];
    stage       s;
    chr_dev    *dev;
    open_stage(&s);
    dev = make(&s.r, "script,id=s,window=16,text=wait 1ms; expect \"b\"; expect \"b\" within 1ms");
    s.dev = dev;
    attach(&s.rec, dev);
    settle(&s.r);
    memset(output, 'x', sizeof output);
    output[500] = 'a';
    output[983] = 'b'; /* pushed out */
    output[985] = 'b';
    CHECK_INT(chr_fe_write(&s.rec.fe, output, sizeof output), sizeof output);
    until_ms(&s, 2);
    CHECK_INT(result(&s), CHR_ERR_TIMEOUT);
    CHECK_HAS(s.err.text, "instead: \"xxxxxxxxxxxxxx\"");
    end_stage(&s);
    /* what is expected is found in any amount of output, however small the window */
    open_stage(&s);
    s.dev = make(&s.r, "script,id=s,window=1,text=expect \"xxab\"");
    attach(&s.rec, s.dev);
    settle(&s.r);
    output[501] = 'b';
    CHECK_INT(chr_fe_write(&s.rec.fe, output, sizeof output), sizeof output);
    CHECK_INT(result(&s), 0);
    end_stage(&s);
}

/* A time belongs to its statement: none of 0 and none of an earlier statement ends a later one. */
TEST(times_that_do_not_run)
{
    stage s;
    play(&s, "expect \"x\" within 0ms");
    until_ms(&s, 1000000);
    CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
    say_to_it(&s, "x");
    CHECK_INT(result(&s), 0);
    end_stage(&s);
    play(&s, "timeout 0s; expect \"x\" within 5ms; expect \"y\"");
    until_ms(&s, 4);
    say_to_it(&s, "x");
    until_ms(&s, 1000000);
    CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
    say_to_it(&s, "y");
    CHECK_INT(result(&s), 0);
    end_stage(&s);
    play_with_room(&s, "expect \"x\" within 5ms; timeout 0s; send \"ab\"", 1);
    say_to_it(&s, "x");
    until_ms(&s, 1000000);
    CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
    give_room(&s.rec, 1);
    settle(&s.r);
    CHECK_INT(result(&s), 0);
    end_stage(&s);
}

/* What is expected is found behind output that has been pushed out of the window, and not across what is missing. */
TEST(a_window_that_moves_while_it_is_searched)
{
    stage s;
    open_stage(&s);
    s.dev = make(&s.r, "script,id=s,window=4,text=expect \"abcdef\"; expect \"gh\"; expect \"end\"");
    attach(&s.rec, s.dev);
    settle(&s.r);
    say_to_it(&s, "abc");
    say_to_it(&s, "abcd");
    say_to_it(&s, "e");
    CHECK_INT(result(&s), CHR_ERR_WOULD_BLOCK);
    CHECK_HAS(s.err.text, "abcdef");
    say_to_it(&s, "f");
    result(&s);
    CHECK_HAS(s.err.text, "gh");
    say_to_it(&s, "ghend");
    CHECK_INT(result(&s), 0);
    end_stage(&s);
}

/* ---- several of them, and what is around ------------------------------------------------------------------------- */

TEST(the_last_to_pass_or_the_first_to_fail_exits)
{
    stage    s;
    recorder other;
    chr_dev *dev;
    play(&s, "expect \"x\"");
    dev = make_script(&s, "t", "expect \"y\"");
    REQUIRE(dev != NULL);
    attach(&other, dev);
    say_to_it(&s, "x");
    CHECK_INT(s.r.exits, 0);
    CHECK_INT(chr_fe_write(&other.fe, "y", 1), 1);
    settle(&s.r);
    CHECK_INT(s.r.exits, 1);
    CHECK_INT(s.r.exit_code, 0);
    detach(&other);
    end_stage(&s);
    play(&s, "expect \"x\"");
    dev = make_script(&s, "t", "fail \"at once\"");
    attach(&other, dev);
    settle(&s.r);
    CHECK_INT(s.r.exits, 1);
    CHECK_INT(s.r.exit_code, 1);
    detach(&other);
    end_stage(&s);
    open_stage(&s);
    s.dev = make(&s.r, "script,id=s,exit=off,text=pass");
    attach(&s.rec, s.dev);
    settle(&s.r);
    CHECK_INT(result(&s), 0);
    CHECK_INT(s.r.exits, 0);
    end_stage(&s);
}

/* One with exit=off does not matter to the others, nor does another kind of chardev; one that has not begun does. */
TEST(whose_end_counts)
{
    stage    s;
    recorder other;
    chr_dev *dev;
    open_stage(&s);
    make(&s.r, "null,id=n");
    dev = make(&s.r, "script,id=t,exit=off,text=expect \"y\"");
    attach(&other, dev);
    s.dev = make_script(&s, "s", "expect \"x\"");
    make_script(&s, "u", "pass");
    attach(&s.rec, s.dev);
    settle(&s.r);
    say_to_it(&s, "x");
    CHECK_INT(result(&s), 0);
    CHECK_INT(s.r.exits, 0); /* u is still to come */
    CHECK_INT(chr_remove(s.r.ctx, "u", NULL), 0);
    detach(&s.rec);
    CHECK_INT(chr_remove(s.r.ctx, "s", NULL), 0);
    s.dev = make_script(&s, "s", "expect \"x\"");
    attach(&s.rec, s.dev);
    settle(&s.r);
    say_to_it(&s, "x");
    CHECK_INT(s.r.exits, 1);
    CHECK_INT(s.r.exit_code, 0);
    detach(&other);
    end_stage(&s);
}

static void wait_at_the_end(recorder *rec, int what)
{
    if (what == 'e' && rec->last_event == CHR_EVENT_CLOSED) chr_fe_add_watch(&rec->fe, recorder_writable, rec);
}

static void remove_at_the_end(recorder *rec, int what)
{
    stage *s = (stage *)rec->user;
    if (what != 'w' && !(what == 'e' && rec->last_event == CHR_EVENT_CLOSED && rec->changes == 0)) return;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(s->r.ctx, "s", NULL), 0);
}

static void wait_and_remove(recorder *rec, int what)
{
    wait_at_the_end(rec, what);
    if (what == 'w') remove_at_the_end(rec, what);
}

/* When it has sent all there is nothing to ask the frontend for, not even by another loop. */
TEST(a_script_that_has_ended_rests)
{
    stage s;
    int   room;
    for (room = 0; room < 2; room++) {
        rig_open_hosted(&s.r);
        s.dev = make(&s.r, "script,id=s,exit=off,text=send \"x\"");
        attach_with_room(&s.rec, s.dev, room);
        host_turns(&s.r, 10);
        CHECK_INT(s.rec.length, room);
        CHECK(room ? chr_loop_timeout(s.r.ctx) == -1 : chr_loop_timeout(s.r.ctx) > 0);
        give_room(&s.rec, 1);
        host_turns(&s.r, 10);
        CHECK_INPUT(&s.rec, "x");
        CHECK_INT(result(&s), 0);
        give_room(&s.rec, 0);
        host_turns(&s.r, 10);
        CHECK_INT(chr_loop_timeout(s.r.ctx), -1);
        end_stage(&s);
    }
    rig_open_hosted(&s.r); /* nor while it waits for output */
    s.dev = make(&s.r, "script,id=s,exit=off,text=timeout 0s; expect \"x\"");
    attach_with_room(&s.rec, s.dev, 0);
    host_turns(&s.r, 10);
    give_room(&s.rec, 0);
    host_turns(&s.r, 10);
    CHECK_INT(chr_loop_timeout(s.r.ctx), -1);
    end_stage(&s);
}

/* Who waits to write when it ends is told, and then the emulator ends; unless the script is removed meanwhile. */
TEST(handlers_at_the_end)
{
    stage s;
    open_stage(&s);
    s.dev = make_script(&s, "s", "send \"x\"");
    attach(&s.rec, s.dev);
    s.rec.then = wait_at_the_end;
    settle(&s.r);
    CHECK_INT(s.rec.writable, 1);
    CHECK_INT(s.r.exits, 1);
    CHECK_INT(chr_fe_write(&s.rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    end_stage(&s);
    open_stage(&s);
    s.dev = make_script(&s, "s", "send \"x\"");
    attach(&s.rec, s.dev);
    s.rec.then = remove_at_the_end;
    s.rec.user = &s;
    settle(&s.r);
    CHECK_STR(s.rec.events, "OC");
    CHECK_INT(s.r.exits, 0);
    CHECK(chr_find(s.r.ctx, "s") == NULL);
    end_stage(&s);
    open_stage(&s);
    s.dev = make_script(&s, "s", "send \"x\"");
    attach(&s.rec, s.dev);
    s.rec.then = wait_and_remove;
    s.rec.user = &s;
    settle(&s.r);
    CHECK_INT(s.rec.writable, 1);
    CHECK_INT(s.r.exits, 0);
    CHECK(chr_find(s.r.ctx, "s") == NULL);
    end_stage(&s);
}

/* A script accepts output at any time: who waits to write is told at once. */
TEST(who_waits_to_write_is_told)
{
    stage s;
    play(&s, "wait 1s");
    chr_fe_add_watch(&s.rec.fe, recorder_writable, &s.rec);
    settle(&s.r);
    CHECK_INT(s.rec.writable, 1);
    CHECK_INT(chr_fe_write(&s.rec.fe, "x", 1), 1);
    CHECK_INT(chr_fe_shutdown(&s.rec.fe), 0);
    CHECK_INT(chr_drain(s.r.ctx, 0), 0); /* nothing is left to be done for it */
    end_stage(&s);
}

static int removing_can_read(void *opaque)
{
    recorder *rec = (recorder *)opaque;
    stage    *s = (stage *)rec->user;
    if (!rec->room || !rec->fe.dev) return 0;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(s->r.ctx, "s", NULL), 0);
    return rec->room;
}

/* It is removed when the frontend is asked for room: at the first byte, and later. */
TEST(removed_when_room_is_asked_for)
{
    static const chr_handlers handlers = { removing_can_read, recorder_read, recorder_event, NULL };
    int                       room;
    for (room = 0; room < 2; room++) {
        stage s;
        open_stage(&s);
        s.dev = make_script(&s, "s", "send \"abc\"");
        attach_with_room(&s.rec, s.dev, room);
        s.rec.user = &s;
        s.rec.open = 0;
        chr_fe_set_handlers(&s.rec.fe, &handlers, &s.rec);
        settle(&s.r);
        if (room == 0) give_room(&s.rec, 1);
        settle(&s.r);
        CHECK(chr_find(s.r.ctx, "s") == NULL);
        CHECK_INT(s.rec.length, 0);
        CHECK_INT(s.r.exits, 0);
        end_stage(&s);
    }
}

/* What a query says names the file, and the line of a failure. */
TEST(query_of_a_file)
{
    static const struct { const char *text, *before, *after; } table[] = {
        { "wait 1s", "", ",line=1" }, { "pass", "passed:", "" }, { "\n\nfail \"x\"", "failed:", ",line=3" } };
    char     options[500], want[500];
    size_t   i;
    chr_info info;
    for (i = 0; i < 3; i++) {
        stage s;
        open_stage(&s);
        write_file(scratch("play"), table[i].text);
        snprintf(options, sizeof options, "script,id=s,file=%s", scratch("play"));
        s.dev = make(&s.r, options);
        attach(&s.rec, s.dev);
        settle(&s.r);
        chr_query(s.dev, &info);
        snprintf(want, sizeof want, "%sscript:%s%s", table[i].before, scratch("play"), table[i].after);
        CHECK_STR(info.filename, want);
        end_stage(&s);
        scratch_clean();
    }
}

static void remove_it(recorder *rec, int what)
{
    stage *s = (stage *)rec->user;
    if (what != 'r' && rec->last_event != CHR_EVENT_BREAK) return;
    rec->then = NULL;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(s->r.ctx, "s", NULL), 0);
}

static void echo_it(recorder *rec, int what)
{
    if (what == 'r') CHECK_INT(chr_fe_write(&rec->fe, rec->input, rec->length), rec->length);
}

TEST(handlers_that_remove_it_or_answer)
{
    static const char *const scripts[] = { "send \"x\"; send \"y\"; expect \"z\"", "break; send \"x\"", "send \"xx\"" };
    size_t                   i;
    stage                    s;
    for (i = 0; i < 3; i++) {
        open_stage(&s);
        s.dev = make_script(&s, "s", scripts[i]);
        attach(&s.rec, s.dev);
        s.rec.then = remove_it;
        s.rec.user = &s;
        settle(&s.r);
        CHECK(chr_find(s.r.ctx, "s") == NULL);
        CHECK_INT(s.r.exits, 0);
        end_stage(&s);
    }
    open_stage(&s);
    s.dev = make_script(&s, "s", "send \"abc\"; expect \"abc\"; send \"d\"; expect \"abcd\"");
    attach(&s.rec, s.dev);
    s.rec.then = echo_it;
    settle(&s.r);
    CHECK_INT(result(&s), 0);
    end_stage(&s);
}

TEST(on_a_mux_and_in_a_hub)
{
    stage    s;
    recorder b;
    open_stage(&s);
    s.dev = make(&s.r, "script,id=s,mux=on,text=expect \"hello\"; send \"\\x01cyou\"");
    attach(&s.rec, s.dev);
    attach(&b, s.dev);
    settle(&s.r);
    CHECK_INT(chr_fe_write(&s.rec.fe, "hello", 5), 5);
    settle(&s.r);
    CHECK_INPUT(&s.rec, "you");
    s.dev = chr_find(s.r.ctx, "s-base");
    CHECK_INT(result(&s), 0);
    CHECK_STR(b.events, "IOUC");
    detach(&b);
    end_stage(&s);
    open_stage(&s);
    s.dev = make(&s.r, "script,id=s,text=wait 1s; send \"x\"; expect \"y\"");
    make(&s.r, "ringbuf,id=r");
    make(&s.r, "hub,id=h,chardevs.0=s,chardevs.1=r");
    until_ms(&s, 5000); /* the hub has no frontend */
    attach(&s.rec, chr_find(s.r.ctx, "h"));
    until_ms(&s, 5999);
    CHECK_INT(s.rec.length, 0);
    until_ms(&s, 6000);
    CHECK_INPUT(&s.rec, "x");
    say_to_it(&s, "y");
    CHECK_INT(result(&s), 0);
    end_stage(&s);
}

TEST(swapped_in_and_away)
{
    stage    s;
    open_stage(&s);
    attach(&s.rec, make(&s.r, "ringbuf,id=s"));
    until_ms(&s, 1000);
    CHECK_INT(chr_change(s.r.ctx, "s", "script,text=wait 1s; send \"x\"; wait 1h", &s.err), CHR_ERR_INVALID);
    CHECK_INT(chr_change(s.r.ctx, "s", "script,text=wait 1s; send \"x\"; wait 60min", &s.err), 0);
    until_ms(&s, 2000);
    CHECK_INPUT(&s.rec, "x");
    CHECK_INT(chr_change(s.r.ctx, "s", "null", &s.err), 0);
    until_ms(&s, 4000000);
    CHECK_INT(s.r.exits, 0);
    CHECK_STR(s.rec.events, "OC");
    end_stage(&s);
}

TEST(results_of_what_is_none)
{
    stage s;
    open_stage(&s);
    CHECK_INT(chr_script_result(make(&s.r, "null,id=n"), &s.err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(s.err.text, "chardev 'n' is a null, not a script");
    CHECK_INT(chr_script_result(chr_find(s.r.ctx, "n"), NULL), CHR_ERR_NOT_SUPPORTED);
    rig_close(&s.r);
}

TEST(uris)
{
    stage s;
    open_stage(&s);
    write_file(scratch("play"), "send \"x\"");
    CHECK(chr_new_uri(s.r.ctx, "a", "script,text=pass,exit=off", &s.err) != NULL);
    CHECK(chr_new_any(s.r.ctx, "b", "script,text=wait 1ms,window=1K", &s.err) != NULL);
    CHECK(chr_new_uri(s.r.ctx, "c", "script:", &s.err) == NULL);
    CHECK(chr_new_uri(s.r.ctx, "c", "script", &s.err) == NULL);
    CHECK_STR(s.err.text, "script: needs either file= or text=");
    scratch_clean();
    rig_close(&s.r);
}

/* A frontend that is pulled from, and gathers what it writes. */
TEST(with_a_buffered_frontend)
{
    stage s;
    char  bytes[32];
    int   i;
    open_stage(&s);
    s.dev = make_script(&s, "s", "send \"0123456789abcdefghij\"; expect \"ok\"; send \"!\"");
    memset(&s.rec, 0, sizeof s.rec);
    CHECK_INT(chr_fe_init(&s.rec.fe, s.dev, NULL), 0);
    CHECK_INT(chr_fe_set_buffers(&s.rec.fe, 8, 8), 0);
    for (i = 0; i < 4; i++) {
        settle(&s.r);
        CHECK_INT(chr_fe_read(&s.rec.fe, bytes, 5), 5);
        CHECK_MEM(bytes, 5, "0123456789abcdefghij" + 5 * i, 5);
    }
    CHECK_INT(chr_fe_write(&s.rec.fe, "o", 1), 1);
    CHECK_INT(chr_fe_write(&s.rec.fe, "k", 1), 1);
    settle(&s.r);
    CHECK_INT(result(&s), 0);
    CHECK_INT(chr_fe_read(&s.rec.fe, bytes, 5), 1);
    CHECK_INT(bytes[0], '!');
    settle(&s.r);
    CHECK_INT(chr_fe_read(&s.rec.fe, bytes, 5), CHR_ERR_DISCONNECTED);
    end_stage(&s);
}

/* Without an exit hook the loop ends. */
TEST(ends_the_loop)
{
    chr_context *ctx = chr_context_new(NULL);
    chr_frontend fe;
    chr_dev     *dev = chr_new(ctx, "script,id=s,text=wait 10ms", NULL);
    memset(&fe, 0, sizeof fe);
    REQUIRE(dev != NULL);
    CHECK_INT(chr_fe_init(&fe, dev, NULL), 0);
    CHECK_INT(chr_script_result(dev, NULL), CHR_ERR_WOULD_BLOCK);
    chr_fe_set_open(&fe, 1);
    chr_loop_run(ctx);
    CHECK_INT(chr_script_result(dev, NULL), 0);
    chr_fe_deinit(&fe);
    chr_context_free(ctx);
}

/* ---- the text ---------------------------------------------------------------------------------------------------- */

TEST(texts_that_are_wrong)
{
    static const struct { const char *text, *error; } table[] = {
        { "expct \"x\"", "script: text: line 1: none of expect, reject, send, wait, timeout, break, eof, close, open, pass, fail: 'expct'" },
        { "\n\n\"x\"", "script: text: line 3: none of expect, reject, send, wait, timeout, break, eof, close, open, pass, fail: '\"'" },
        { "expect", "script: text: line 1: expect needs a \"text\"" },
        { "send;", "script: text: line 1: send needs a \"text\"" },
        { "send 'x'", "script: text: line 1: send needs a \"text\"" },
        { "expect \"\"", "script: text: line 1: expect: an empty text" },
        { "wait 1ms\nsend \"abc\nwait 1s", "script: text: line 2: a text without its closing quote" },
        { "send \"abc\\", "script: text: line 1: no such escape: '\\'" },
        { "send \"\\q\"", "script: text: line 1: no such escape: '\\q'" },
        { "send \"\\x4\"", "script: text: line 1: no such escape: '\\x'" },
        { "send \"\\400\"", "script: text: line 1: no such escape: '\\400'" },
        { "wait", "script: text: line 1: not a time such as 100ms, 5s or 2min: ''" },
        { "wait 5", "script: text: line 1: not a time such as 100ms, 5s or 2min: '5'" },
        { "wait ms", "script: text: line 1: not a time such as 100ms, 5s or 2min: 'ms'" },
        { "wait -1ms", "script: text: line 1: not a time such as 100ms, 5s or 2min: '-1ms'" },
        { "wait 1000001s", "script: text: line 1: longer than 1000000 s: '1000001s'" },
        { "wait 99999999999999999999s", "script: text: line 1: not a time such as 100ms, 5s or 2min: '99999999999999999999s'" },
        { "expect \"x\" within", "script: text: line 1: not a time such as 100ms, 5s or 2min: ''" },
        { "expect \"x\" soon", "script: text: line 1: a ';' or the end of the line is missing before 'soon'" },
        { "send \"x\" within 1s", "script: text: line 1: a ';' or the end of the line is missing before 'within'" },
        { "break break", "script: text: line 1: a ';' or the end of the line is missing before 'break'" },
        { "close\nsend \"x\"", "script: text: line 2: send while it is closed: open comes first" },
        { "close; close", "script: text: line 1: close while it is closed: open comes first" },
        { "eof; break", "script: text: line 1: break while its input has ended: open comes first" },
        { "eof; close; open; eof; eof", "script: text: line 1: eof while its input has ended: open comes first" },
    };
    size_t i;
    stage  s;
    open_stage(&s);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        CHECK(make_script(&s, "s", table[i].text) == NULL);
        CHECK_INT(s.err.code, CHR_ERR_INVALID);
        CHECK_STR(s.err.text, table[i].error);
    }
    CHECK_INT(refuse(&s.r, "script,id=s", &s.err), CHR_ERR_INVALID);
    CHECK_STR(s.err.text, "script: needs either file= or text=");
    CHECK_INT(refuse(&s.r, "script,id=s,file=/dev/null,text=pass", &s.err), CHR_ERR_INVALID);
#ifndef _WIN32
    CHECK_INT(refuse(&s.r, "script,id=s,file=/dev/null", &s.err), CHR_ERR_INVALID);
    CHECK_STR(s.err.text, "script: file=/dev/null: is not a regular file");
#endif
    CHECK_INT(refuse(&s.r, "script,id=s,file=/nonexistent/x", &s.err), CHR_ERR_NOT_FOUND);
    CHECK_HAS(s.err.text, "/nonexistent/x");
    CHECK(chr_open(s.r.ctx, "s", chr_backend_find(s.r.ctx, "script"), NULL, NULL) == NULL); /* nowhere to say why */
    rig_close(&s.r);
}

TEST(texts_at_their_limits)
{
    static char text[8300];
    stage       s;
    int         i;
    for (i = 0; i < 2; i++) { /* 4096 bytes, and one more */
        snprintf(text, sizeof text, "expect \"%0*d\"", 4096 + i, 7);
        open_stage(&s);
        s.dev = make_script(&s, "s", text);
        CHECK((s.dev != NULL) == (i == 0));
        if (i == 1) CHECK_STR(s.err.text, "script: text: line 1: expect: a text of more than 4096 bytes");
        if (s.dev) {
            attach(&s.rec, s.dev);
            settle(&s.r);
            snprintf(text, sizeof text, "%0*d%0*d", 4000, 0, 4096, 7);
            say_to_it(&s, text);
            CHECK_INT(result(&s), 0);
            detach(&s.rec);
        }
        rig_close(&s.r);
    }
    open_stage(&s);
    for (text[0] = 0, i = 0; i < 17; i++) strcat(text, "reject \"x\"\n");
    CHECK(make_script(&s, "s", text) == NULL);
    CHECK_STR(s.err.text, "script: text: line 17: more than 16 times reject");
    rig_close(&s.r);
}

/* A text of a mebibyte is one, and one byte more is too many; a file that ends before its size says so is an error. */
TEST(texts_of_a_mebibyte)
{
    static char text[(1 << 20) + 2];
    stage       s;
    open_stage(&s);
    memset(text, '\n', 1 << 20);
    CHECK(make_script(&s, "s", text) != NULL);
    text[1 << 20] = '\n';
    CHECK(make_script(&s, "t", text) == NULL);
    CHECK_STR(s.err.text, "script: text=: larger than 1 MiB");
    if (exists("/sys/devices/system/cpu/online")) {
        CHECK_INT(refuse(&s.r, "script,id=t,file=/sys/devices/system/cpu/online", &s.err), CHR_ERR_IO);
        CHECK_HAS(s.err.text, "file=/sys/devices/system/cpu/online: ");
    }
    rig_close(&s.r);
}

TEST(a_file_of_a_mebibyte)
{
    static char  text[(1 << 20) + 2];
    stage        s;
    size_t       at = 0;
    int          statements = 0;
    char         options[500];
    const char  *path = scratch("big");
    FILE        *file;
    while (at < (1 << 20) - 20) at += (size_t)sprintf(text + at, "send \"\\%o\"\r\n", (unsigned)statements++ % 8);
    while (at < 1 << 20) text[at++] = '#';
    file = fopen(path, "wb");
    REQUIRE(file != NULL);
    fwrite(text, 1, 1 << 20, file);
    fclose(file);
    open_stage(&s);
    snprintf(options, sizeof options, "script:%s", path);
    s.dev = chr_new_uri(s.r.ctx, "s", options, &s.err);
    if (!CHECK(s.dev != NULL)) NOTE("%s", s.err.text);
    attach(&s.rec, s.dev);
    settle(&s.r);
    CHECK_INT(s.rec.length, statements);
    CHECK_MEM(s.rec.input, 9, "\0\1\2\3\4\5\6\7\0", 9);
    CHECK_INT(result(&s), 0);
    detach(&s.rec);
    file = fopen(path, "ab");
    fputc('\n', file);
    fclose(file);
    snprintf(options, sizeof options, "script,id=t,file=%s", path);
    CHECK(chr_new(s.r.ctx, options, &s.err) == NULL);
    CHECK_HAS(s.err.text, "larger than 1 MiB");
    file = fopen(path, "wb");
    fwrite("send \"a\0b\"\0", 1, 11, file); /* a zero in a text is one; elsewhere it is nothing */
    fclose(file);
    CHECK(chr_new(s.r.ctx, options, &s.err) == NULL);
    CHECK_HAS(s.err.text, "line 1: a ';' or the end of the line is missing");
    file = fopen(path, "wb");
    fwrite("send \"a\0b\"", 1, 10, file);
    fclose(file);
    attach(&s.rec, make(&s.r, options));
    settle(&s.r);
    CHECK_MEM(s.rec.input, s.rec.length, "a\0b", 3);
    detach(&s.rec);
    rig_close(&s.r);
    scratch_clean();
}

/* An error is filled by what fails only; an empty file is a script that passes at once. */
TEST(an_empty_file)
{
    stage s;
    char  options[500];
    write_file(scratch("empty"), "");
    open_stage(&s);
    memset(&s.err, 0, sizeof s.err);
    snprintf(options, sizeof options, "script:%s", scratch("empty"));
    s.dev = chr_new_uri(s.r.ctx, "s", options, &s.err);
    REQUIRE(s.dev != NULL);
    CHECK_STR(s.err.text, "");
    CHECK_INT(s.err.code, 0);
    attach(&s.rec, s.dev);
    settle(&s.r);
    CHECK_INT(result(&s), 0);
    CHECK_STR(s.rec.events, "OC");
    CHECK(chr_new_uri(s.r.ctx, "t", "script:", &s.err) == NULL);
    CHECK_INT(s.err.code, CHR_ERR_INVALID);
    CHECK_STR(s.err.text, "script:: is not a valid URI of script");
    CHECK(chr_find(s.r.ctx, "t") == NULL);
    end_stage(&s);
    scratch_clean();
}

/* In the text of an error all that is no printable ASCII has its code, from the first to the last of both kinds. */
TEST(what_came_is_shown_in_ascii)
{
    stage s;
    play(&s, "expect \"no\" within 1s");
    say_to_it(&s, "\x01\x1f ~\x7f\x80\xc3\xa9\xff!");
    until_ms(&s, 1000);
    CHECK_INT(result(&s), CHR_ERR_TIMEOUT);
    CHECK_HAS(s.err.text, "came instead: \"\\x01\\x1f ~\\x7f\\x80\\xc3\\xa9\\xff!\"");
    end_stage(&s);
}

TEST(each_allocation_fails)
{
    stage s;
    int   at, failures = 0;
    char  options[500];
    write_file(scratch("play"), "expect \"a\"; reject \"b\"; expect \"c\"");
    snprintf(options, sizeof options, "script:%s", scratch("play"));
    for (at = 1; at < 40; at++) {
        open_stage(&s);
        s.r.fail_at = s.r.calls + at;
        s.dev = chr_new_uri(s.r.ctx, "s", options, &s.err);
        if (!s.dev) {
            CHECK_INT(s.err.code, CHR_ERR_NO_MEMORY);
            failures++;
            rig_close(&s.r);
            continue;
        }
        attach(&s.rec, s.dev);
        settle(&s.r);
        say_to_it(&s, "ac");
        if (s.r.failed) CHECK_INT(result(&s), CHR_ERR_NO_MEMORY);
        else CHECK_INT(result(&s), 0);
        failures += s.r.failed;
        end_stage(&s);
        if (!s.r.failed) break;
    }
    CHECK(failures >= 6);
    CHECK(at < 40);
    scratch_clean();
}
