/* pipe: named pipes, PATH.in and PATH.out or PATH both ways. */
#define RIG_WITH_HANDLES /* what it waits for are no sockets */
#include "chardev.h"
#include "rig.h"

static chr_dev *make_pipe(rig *r)
{
    char options[200];
    snprintf(options, sizeof options, "pipe,id=p,path=%s", scratch("p"));
    return make(r, options);
}

static void make_fifos(void)
{
    REQUIRE(mkfifo(scratch("p.in"), 0600) == 0);
    REQUIRE(mkfifo(scratch("p.out"), 0600) == 0);
}

/* Opening doesn't block although no process has the other ends open. */
TEST(pipe_in_and_out)
{
    int      to, from;
    recorder rec;
    rig      r;
    chr_info info;
    rig_open(&r);
    make_fifos();
    attach(&rec, make_pipe(&r));
    CHECK_STR(rec.events, "O");
    chr_query(rec.fe.dev, &info);
    CHECK_STR(info.filename, "pipe");
    to = open(scratch("p.in"), O_WRONLY | O_NONBLOCK);
    from = open(scratch("p.out"), O_RDONLY | O_NONBLOCK);
    REQUIRE(to >= 0 && from >= 0);
    say(to, "in");
    settle(&r);
    CHECK_INPUT(&rec, "in");
    CHECK_INT(chr_fe_write(&rec.fe, "out", 3), 3);
    CHECK_STR(hear(from), "out");
    detach(&rec);
    close(to), close(from);
    rig_close(&r);
    CHECK(exists(scratch("p.in")) && exists(scratch("p.out")));
    scratch_clean();
}

/* A writer that leaves is no end of file: the next one is served. */
TEST(pipe_writers_come_and_go)
{
    int      i;
    recorder rec;
    rig      r;
    rig_open(&r);
    make_fifos();
    attach(&rec, make_pipe(&r));
    for (i = 0; i < 3; i++) {
        int to = open(scratch("p.in"), O_WRONLY | O_NONBLOCK);
        REQUIRE(to >= 0);
        say(to, "x");
        close(to);
        settle(&r);
        CHECK_INT(rec.length, i + 1);
    }
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_loop_step(r.ctx, 5), 0);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(pipe_one_path_both_ways)
{
    static const char *const there[] = { "", "p.in", "p.out" }; /* one of the two alone doesn't count */
    size_t                   i;
    for (i = 0; i < 3; i++) {
        int      from;
        recorder rec;
        rig      r;
        rig_open(&r);
        REQUIRE(mkfifo(scratch("p"), 0600) == 0);
        if (there[i][0]) REQUIRE(mkfifo(scratch(there[i]), 0600) == 0);
        attach_with_room(&rec, make_pipe(&r), 0);
        CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
        from = open(scratch("p"), O_RDONLY | O_NONBLOCK);
        CHECK_STR(hear(from), "x");
        close(from);
        detach(&rec);
        rig_close(&r);
        unlink(scratch("p"));
        if (there[i][0]) unlink(scratch(there[i]));
    }
    scratch_clean();
}

TEST(pipe_is_never_created)
{
    chr_error err;
    char      options[200];
    rig       r;
#ifdef _WIN32
    SKIP("a pipe is made by its server on this system");
#endif
    rig_open(&r);
    snprintf(options, sizeof options, "pipe,id=p,path=%s", scratch("p"));
    CHECK(refuse(&r, options, &err) < 0);
    CHECK_HAS(err.text, scratch("p"));
    CHECK(!exists(scratch("p")) && !exists(scratch("p.in")) && !exists(scratch("p.out")));
    rig_close(&r);
    scratch_clean();
}

/* Of the typed options those that another system has are refused, each by itself. */
TEST(pipe_options_of_another_system)
{
    static const struct { chr_bool server; int64_t reconnect_ms; } table[] = { { CHR_ON, 0 }, { CHR_OFF, 0 }, { CHR_DEFAULT, 1 }, { CHR_ON, 5 } };
    size_t i;
    rig    r;
#ifdef _WIN32
    SKIP("a pipe has a server on this system");
#endif
    rig_open(&r);
    make_fifos();
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        chr_pipe_options options;
        chr_error        err;
        memset(&options, 0, sizeof options);
        options.path = scratch("p");
        options.server = table[i].server;
        options.reconnect_ms = table[i].reconnect_ms;
        err.text[0] = 0;
        if (!CHECK(chr_open(r.ctx, "p", chr_backend_find(r.ctx, "pipe"), &options, &err) == NULL)) NOTE("row %d", (int)i);
        CHECK_INT(err.code, CHR_ERR_NOT_SUPPORTED);
        CHECK_HAS(err.text, "server");
    }
    CHECK(chr_next(r.ctx, NULL) == NULL);
    rig_close(&r);
    scratch_clean();
}

TEST(pipe_back_pressure)
{
    int      from;
    size_t   sent;
    recorder rec;
    rig      r;
    rig_open(&r);
    make_fifos();
    attach(&rec, make_pipe(&r));
    sent = fill_up(&rec.fe);
    from = open(scratch("p.out"), O_RDONLY | O_NONBLOCK);
    CHECK_INT(drain(&r, from, sent), sent);
    CHECK_INT(chr_fe_write(&rec.fe, "y", 1), 1);
    CHECK_STR(hear(from), "y");
    close(from);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}
