/* Many descriptors on one loop: what an event costs, and that nothing is lost. */
#include "chardev.h"
#include "rig.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

/* As many descriptors as can be had; fewer than needed skip the test. */
static void need_descriptors(int count)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < (rlim_t)count + 100) SKIP("the limit of descriptors is too low");
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* ---- frontends without room ---------------------------------------------------------------------------------------------- */

enum { STARVED = 2000 };

typedef struct mouth {
    chr_frontend fe;
    int          fd, room, got;
} mouth;

static mouth mouths[STARVED];
static int   asked;

static int mouth_can_read(void *opaque)
{
    asked++;
    return ((mouth *)opaque)->room;
}

static void mouth_read(void *opaque, const void *buf, size_t len)
{
    (void)buf;
    ((mouth *)opaque)->got += (int)len;
}

static void open_mouths(rig *r)
{
    static const chr_handlers handlers = { mouth_can_read, mouth_read, NULL, NULL };
    char                      options[80];
    int                       i;
    need_descriptors(STARVED);
    rig_open(r);
    for (i = 0; i < STARVED; i++) {
        memset(&mouths[i], 0, sizeof mouths[i]);
        REQUIRE((mouths[i].fd = eventfd(1, EFD_NONBLOCK)) >= 0); /* 8 bytes wait there */
        snprintf(options, sizeof options, "fd,id=m%d,in=%d", i, mouths[i].fd);
        REQUIRE(chr_fe_init(&mouths[i].fe, make(r, options), NULL) == 0);
        chr_fe_set_handlers(&mouths[i].fe, &handlers, &mouths[i]);
    }
    chr_loop_step(r->ctx, 0);
}

static void close_mouths(rig *r)
{
    int  i;
    char id[20];
    for (i = 0; i < STARVED; i++) {
        chr_fe_deinit(&mouths[i].fe);
        snprintf(id, sizeof id, "m%d", i);
        CHECK_INT(chr_remove(r->ctx, id, NULL), 0);
    }
    rig_close(r);
}

TEST(starved_frontends_cost_nothing_until_they_ask)
{
    int i;
    rig r;
    open_mouths(&r);
    CHECK(asked >= STARVED);
    asked = 0;
    for (i = 0; i < 50; i++) chr_loop_step(r.ctx, 0);
    CHECK(asked <= 50 * 20 + 2 * STARVED); /* a few a step, and all once in a while */
    mouths[STARVED / 2].room = 100;
    chr_fe_accept_input(&mouths[STARVED / 2].fe);
    chr_loop_step(r.ctx, 0);
    CHECK_INT(mouths[STARVED / 2].got, 8);
    close_mouths(&r);
}

TEST(starved_frontend_that_does_not_ask_is_late_not_deaf)
{
    int64_t start = real_ms();
    rig     r;
    open_mouths(&r);
    chr_loop_step(r.ctx, 0);
    mouths[0].room = mouths[STARVED / 2].room = mouths[STARVED - 1].room = 100;
    while (mouths[0].got + mouths[STARVED / 2].got + mouths[STARVED - 1].got < 24 && real_ms() - start < RIG_PATIENCE_MS)
        chr_loop_step(r.ctx, 10);
    CHECK_INT(mouths[0].got + mouths[STARVED / 2].got + mouths[STARVED - 1].got, 24);
    close_mouths(&r);
}

/* They go from any place in the queue. */
TEST(starved_chardevs_are_removed_in_any_order)
{
    static int order[STARVED];
    char       id[20];
    int        i, other, swap;
    rig        r;
    open_mouths(&r);
    for (i = 0; i < STARVED; i++) order[i] = i;
    for (i = STARVED - 1; i > 0; i--) other = (i * 7919) % (i + 1), swap = order[i], order[i] = order[other], order[other] = swap;
    for (i = 0; i < STARVED; i++) {
        chr_fe_deinit(&mouths[order[i]].fe);
        snprintf(id, sizeof id, "m%d", order[i]);
        CHECK_INT(chr_remove(r.ctx, id, NULL), 0);
        if (i % 3 == 0) chr_loop_step(r.ctx, 0);
        if (i % 5 == 0 && i + 7 < STARVED) chr_fe_accept_input(&mouths[order[i + 7]].fe);
    }
    rig_close(&r);
}
