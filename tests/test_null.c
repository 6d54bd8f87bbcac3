/* null: drops all output, is never open, has no input. */
#include "chardev.h"
#include "rig.h"

TEST(null_takes_everything)
{
    static char big[1 << 20];
    chr_info    info;
    recorder    rec;
    rig         r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "null,id=n"));
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    CHECK_INT(chr_fe_write(&rec.fe, big, sizeof big), sizeof big);
    CHECK_INT(chr_fe_write_all(&rec.fe, big, sizeof big, -1), sizeof big);
    chr_query(rec.fe.dev, &info);
    CHECK_INT(info.bytes_out, 2 * sizeof big + 1);
    CHECK_INT(info.bytes_in, 0);
    CHECK_INT(info.bytes_dropped, 0);
    detach(&rec);
    rig_close(&r);
}

TEST(null_is_never_open)
{
    chr_info info;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "null,id=n"));
    pass_time(&r, 10000);
    CHECK_STR(rec.events, "");
    CHECK_INT(rec.length, 0);
    CHECK_INT(chr_fe_backend_open(&rec.fe), 0);
    chr_query(rec.fe.dev, &info);
    CHECK_INT(info.be_open, 0);
    CHECK_STR(info.filename, "null");
    CHECK_INT(info.comes_back, 0);
    CHECK_INT(chr_loop_timeout(r.ctx), -1); /* it has nothing to do, ever */
    detach(&rec);
    rig_close(&r);
}

TEST(null_is_always_writable)
{
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    attach(&rec, make(&r, "null,id=n"));
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    CHECK_INT(rec.writable, 0);
    settle(&r);
    CHECK_INT(rec.writable, 1);
    detach(&rec);
    rig_close(&r);
}

TEST(null_by_its_kind)
{
    chr_error err;
    rig       r;
    rig_open_virtual(&r);
    CHECK(chr_open(r.ctx, "n", chr_backend_find(r.ctx, "null"), NULL, &err) != NULL);
    rig_close(&r);
}
