/* file: output to a file, input from another. */
#define RIG_WITH_HANDLES /* what it waits for are no sockets */
#include "chardev.h"
#include "rig.h"

static chr_dev *make_file(rig *r, const char *more)
{
    char options[400];
    snprintf(options, sizeof options, "file,id=f,path=%s%s", scratch("out"), more);
    return make(r, options);
}

TEST(file_is_written_and_open)
{
    recorder rec;
    rig      r;
    rig_open(&r);
    attach(&rec, make_file(&r, ""));
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_write(&rec.fe, "hello ", 6), 6);
    CHECK_INT(chr_fe_write_all(&rec.fe, "file", 4, -1), 4);
    CHECK_STR(read_file(scratch("out")), "hello file");
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_loop_step(r.ctx, 5), 0);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(file_is_truncated_or_appended)
{
    recorder rec;
    rig      r;
    rig_open(&r);
    write_file(scratch("out"), "old ");
    attach(&rec, make_file(&r, ",append=on"));
    chr_fe_write(&rec.fe, "new", 3);
    detach(&rec);
    chr_remove(r.ctx, "f", NULL);
    CHECK_STR(read_file(scratch("out")), "old new");
    make_file(&r, "");
    CHECK_STR(read_file(scratch("out")), "");
    rig_close(&r);
    scratch_clean();
}

/* By another program, while we write: what comes then is at the start, without a hole before it. */
TEST(file_truncated_meanwhile)
{
    recorder rec;
    rig      r;
    rig_open(&r);
    attach(&rec, make_file(&r, ""));
    CHECK_INT(chr_fe_write(&rec.fe, "one", 3), 3);
    REQUIRE(truncate(scratch("out"), 0) == 0);
    CHECK_INT(chr_fe_write(&rec.fe, "two", 3), 3);
    CHECK_STR(read_file(scratch("out")), "two");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(file_mode_follows_umask)
{
    struct stat st;
    rig         r;
    rig_open(&r);
    umask(0);
    make_file(&r, "");
    REQUIRE(stat(scratch("out"), &st) == 0);
    CHECK_INT(st.st_mode & 0777, 0666);
    rig_close(&r);
    scratch_clean();
}

/* At the end of the input: CLOSED, and writing goes on. */
TEST(file_with_input)
{
    char     more[200];
    recorder rec;
    rig      r;
    rig_open(&r);
    write_file(scratch("in"), "from a file");
    snprintf(more, sizeof more, ",input-path=%s", scratch("in"));
    attach(&rec, make_file(&r, more));
    settle(&r);
    CHECK_INPUT(&rec, "from a file");
    CHECK_STR(rec.events, "OC");
    CHECK_INT(chr_fe_write(&rec.fe, "goes on", 7), 7);
    CHECK_STR(read_file(scratch("out")), "goes on");
    CHECK_INT(chr_loop_step(r.ctx, 5), 0); /* an end of file is not polled on */
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(file_input_is_gated)
{
    char     more[200];
    recorder rec;
    rig      r;
    rig_open(&r);
    write_file(scratch("in"), "0123456789");
    snprintf(more, sizeof more, ",input-path=%s", scratch("in"));
    attach_with_room(&rec, make_file(&r, more), 4);
    settle(&r);
    CHECK_INPUT(&rec, "0123");
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_loop_step(r.ctx, 10), 0);
    give_room(&rec, 100);
    settle(&r);
    CHECK_INPUT(&rec, "0123456789");
    CHECK_STR(rec.events, "OC");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(file_with_empty_input)
{
    char     more[200];
    recorder rec;
    rig      r;
    rig_open(&r);
    write_file(scratch("in"), "");
    snprintf(more, sizeof more, ",input-path=%s", scratch("in"));
    attach(&rec, make_file(&r, more));
    settle(&r);
    CHECK_STR(rec.events, "OC");
    CHECK_INT(rec.length, 0);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(file_that_cannot_be_opened)
{
    chr_error err;
    char      options[300];
    rig       r;
    rig_open(&r);
    CHECK(refuse(&r, "file,id=f,path=/nonexistent/dir/x", &err) < 0);
    CHECK_HAS(err.text, "/nonexistent/dir/x");
    CHECK(refuse(&r, "file,id=f,path=/", &err) < 0);
    snprintf(options, sizeof options, "file,id=f,path=%s,input-path=/nonexistent/in", scratch("out"));
    CHECK(refuse(&r, options, &err) < 0);
    CHECK_HAS(err.text, "/nonexistent/in");
    rig_close(&r);
    scratch_clean();
}

/* A failed creation leaves no file behind: the input is tried before the output is made or truncated. */
TEST(file_failure_leaves_the_old_file_alone)
{
    chr_error err;
    char      options[300];
    rig       r;
    rig_open(&r);
    write_file(scratch("out"), "precious");
    snprintf(options, sizeof options, "file,id=f,path=%s,input-path=/nonexistent/in", scratch("out"));
    CHECK(refuse(&r, options, &err) < 0);
    CHECK_STR(read_file(scratch("out")), "precious");
    make(&r, "null,id=f");
    snprintf(options, sizeof options, "file,id=f,path=%s", scratch("out"));
    CHECK(chr_new(r.ctx, options, &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_EXISTS);
    CHECK_STR(read_file(scratch("out")), "precious");
    rig_close(&r);
    scratch_clean();
}

TEST(file_on_a_full_disk)
{
    recorder rec;
    rig      r;
    rig_open(&r);
    attach(&rec, make(&r, "file,id=f,path=/dev/full"));
    CHECK(chr_fe_write(&rec.fe, "x", 1) < 0);
    CHECK(chr_fe_write(&rec.fe, "x", 1) != CHR_ERR_WOULD_BLOCK);
    CHECK(chr_fe_write_all(&rec.fe, "x", 1, -1) < 0);
    detach(&rec);
    rig_close(&r);
}

TEST(file_typed)
{
    chr_file_options options;
    chr_error        err;
    rig              r;
    rig_open(&r);
    memset(&options, 0, sizeof options);
    options.path = scratch("out");
    CHECK(chr_open(r.ctx, "f", chr_backend_find(r.ctx, "file"), &options, &err) != NULL);
    CHECK(exists(scratch("out")));
    rig_close(&r);
    scratch_clean();
}
