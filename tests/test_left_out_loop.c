/* A build whose loop has only poll(), without named descriptors and stacked backends. */
#define CHARDEV_NO_SET
#define CHARDEV_NO_STACKED
#define CHARDEV_NO_DESCRIPTORS
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include "rig.h"

TEST(no_descriptor_for_another_loop)
{
    rig r;
    rig_open(&r);
    CHECK_INT(chr_loop_fd(r.ctx), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_loop_fd(r.ctx), CHR_ERR_NOT_SUPPORTED);
    rig_close(&r);
}

typedef struct ear {
    chr_watch watch;
    int       fds[2], heard;
} ear;

static void hears(void *opaque, int events)
{
    ear *e = (ear *)opaque;
    char byte;
    CHECK_INT(events & CHR_IN, CHR_IN);
    CHECK_INT(read(e->fds[0], &byte, 1), 1);
    e->heard++;
}

/* More watches than the set would start with: each is called once, even after others were stopped and started. */
TEST(many_watches_by_poll_alone)
{
    enum { COUNT = 200 };
    static ear ears[COUNT];
    int        i, round;
    rig        r;
    rig_open(&r);
    for (i = 0; i < COUNT; i++) {
        socket_pair(ears[i].fds);
        CHECK_INT(chr_watch_start(r.ctx, &ears[i].watch, ears[i].fds[0], CHR_IN, hears, &ears[i]), 0);
    }
    for (round = 1; round <= 3; round++) {
        for (i = 0; i < COUNT; i++) say(ears[i].fds[1], "x");
        settle(&r);
        for (i = 0; i < COUNT; i++) CHECK_INT(ears[i].heard, round);
        for (i = round; i < COUNT; i += 3) chr_watch_stop(&ears[i].watch);
        for (i = round; i < COUNT; i += 3) CHECK_INT(chr_watch_start(r.ctx, &ears[i].watch, ears[i].fds[0], CHR_IN, hears, &ears[i]), 0);
    }
    for (i = 0; i < COUNT; i++) {
        chr_watch_stop(&ears[i].watch);
        close(ears[i].fds[0]);
        close(ears[i].fds[1]);
    }
    rig_close(&r);
}

TEST(a_peer_can_name_no_descriptor)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    CHECK(chr_new_from(r.ctx, CHR_REMOTE, "socket,id=s,fd=passed", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_NOT_SUPPORTED);
    CHECK_HAS(err.text, "fd=passed: built without");
    CHECK(chr_new_from(r.ctx, CHR_REMOTE, "socket,id=s,fd=0", &err) == NULL); /* nor a number, as ever */
    CHECK_INT(err.code, CHR_ERR_INVALID);
    rig_close(&r);
}

TEST(fault_goes_with_stacked_backends)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    make(&r, "null,id=n");
    CHECK(chr_new(r.ctx, "fault,id=f,chardev=n", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "fault: built without fault");
    rig_close(&r);
}
