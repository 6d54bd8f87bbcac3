/*
 * Tens of thousands of chardevs, timers and idles in one context, and the cost of each. A linear algorithm takes about
 * sixteen times the steps for sixteen times the number (a heap a little more), and one that walks over all of them in
 * each call 256 times. Steps are counted, not timed: the result is the same on every machine.
 */
#include "chardev.h"
#include "counted.h"
#include "private.h"
#include "rig.h"

#include <sys/resource.h>

enum { TIMES = 16, MANY = 16000, LESS = MANY / TIMES, MOST_RATIO = 4 * TIMES };

/* ---- the measure ------------------------------------------------------------------------------------------------- */

/* What an allocator copies when a block grows is work, too. */
static uint64_t steps(void)
{
    return counted_steps + rig_copied / COUNTED_BYTES;
}

static unsigned any(unsigned below)
{
    static uint64_t chance = 88172645463325252u;
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (unsigned)(chance >> 16) % below;
}

enum { MOST_PHASES = 8 };

typedef struct phases {
    const char *names[MOST_PHASES];
    uint64_t    steps[MOST_PHASES];
    uint64_t    since;
    int         count;
} phases;

static void phases_begin(phases *p)
{
    p->count = 0;
    p->since = steps();
}

/* What was done since the last one. */
static void phase(phases *p, const char *name)
{
    REQUIRE(p->count < MOST_PHASES);
    p->names[p->count] = name;
    p->steps[p->count] = steps() - p->since;
    p->count++;
    p->since = steps();
}

static void check_linear(void (*measure)(int count, phases *p))
{
    phases few, many;
    int    i;
    measure(LESS, &few);
    measure(MANY, &many);
    if (counted_steps == 0) SKIP("the implementation is not built with counters");
    for (i = 0; i < few.count; i++)
        if (!CHECK(few.steps[i] > 0 && many.steps[i] < few.steps[i] * MOST_RATIO))
            NOTE("%s: %d take %llu steps, %d take %llu", few.names[i], LESS, (unsigned long long)few.steps[i], MANY,
                 (unsigned long long)many.steps[i]);
}

/* ---- chardevs ---------------------------------------------------------------------------------------------------- */

static const char *numbered(int number)
{
    static char id[32];
    snprintf(id, sizeof id, "dev-%d", number);
    return id;
}

static void make_many(rig *r, int count)
{
    char text[64];
    int  i;
    for (i = 0; i < count; i++) {
        snprintf(text, sizeof text, "null,id=%s", numbered(i));
        make(r, text);
    }
}

static void remove_one(rig *r, int number)
{
    CHECK_INT(chr_remove(r->ctx, numbered(number), NULL), 0);
}

/* In some order that has nothing to do with that of creation. */
static int shuffled(int i, int count)
{
    return (int)((int64_t)i * 7919 % count);
}

static void registry(int count, phases *p)
{
    chr_error err;
    rig       r;
    int       i;
    rig_open(&r);
    phases_begin(p);
    make_many(&r, count);
    phase(p, "creation");
    for (i = 0; i < count; i++) REQUIRE(chr_find(r.ctx, numbered(i)) != NULL);
    for (i = 0; i < count; i++) CHECK(chr_find(r.ctx, numbered(i + count)) == NULL);
    phase(p, "chr_find");
    for (i = 0; i < count; i++) {
        char text[64];
        snprintf(text, sizeof text, "null,id=%s", numbered(i));
        CHECK(chr_new(r.ctx, text, &err) == NULL);
    }
    phase(p, "ids that are taken");
    for (i = 0; i < count; i += 2) remove_one(&r, i);
    phase(p, "removal from the front");
    for (i = (count - 1) | 1; i > count / 2; i -= 2)
        if (i < count) remove_one(&r, i);
    phase(p, "removal from the end");
    chr_context_free(r.ctx);
    phase(p, "chr_context_free");
    rig_open(&r);
    make_many(&r, count);
    p->since = steps();
    for (i = 0; i < count; i++) remove_one(&r, shuffled(i, count));
    phase(p, "removal of any");
    CHECK(chr_next(r.ctx, NULL) == NULL);
    rig_close(&r);
}

TEST_WITHIN(many_chardevs, 300) { check_linear(registry); }

/* chr_next() goes in the order of creation, whatever was removed and made anew meanwhile. */
TEST(order_of_creation_stays)
{
    enum { COUNT = 1000 };
    chr_dev *dev;
    rig      r;
    int      i, expected;
    rig_open(&r);
    make_many(&r, COUNT);
    for (i = 0; i < COUNT; i += 3) remove_one(&r, i);
    make(&r, "null,id=late");
    for (dev = chr_next(r.ctx, NULL), expected = 0; dev; dev = chr_next(r.ctx, dev)) {
        chr_info info;
        chr_query(dev, &info);
        while (expected < COUNT && expected % 3 == 0) expected++;
        if (!CHECK_STR(info.id, expected < COUNT ? numbered(expected) : "late")) break;
        expected++;
    }
    CHECK_INT(expected, COUNT + 1);
    rig_close(&r);
}

/* The last and the first go, and others come behind them. */
TEST(ends_of_the_list)
{
    rig r;
    int i;
    rig_open(&r);
    make_many(&r, 3);
    remove_one(&r, 2);
    make(&r, "null,id=x");
    remove_one(&r, 0);
    CHECK(chr_next(r.ctx, NULL) == chr_find(r.ctx, numbered(1)));
    CHECK(chr_next(r.ctx, chr_find(r.ctx, numbered(1))) == chr_find(r.ctx, "x"));
    CHECK(chr_next(r.ctx, chr_find(r.ctx, "x")) == NULL);
    remove_one(&r, 1);
    CHECK_INT(chr_remove(r.ctx, "x", NULL), 0);
    CHECK(chr_next(r.ctx, NULL) == NULL);
    for (i = 0; i < 100; i++) {
        make(&r, "null,id=x");
        CHECK(chr_next(r.ctx, NULL) == chr_find(r.ctx, "x"));
        CHECK_INT(chr_remove(r.ctx, "x", NULL), 0);
    }
    rig_close(&r);
}

/* Ids against a set of flags, around the numbers at which the table changes its size. */
TEST(ids_come_and_go)
{
    enum { COUNT = 400 };
    static int there[COUNT];
    char       text[64];
    rig        r;
    int        i, id, count = 0, grow;
    rig_open(&r);
    for (i = 0; i < 20000; i++) {
        grow = i / 2000 % 2 == 0;
        id = (int)any(COUNT);
        CHECK_INT(chr_find(r.ctx, numbered(id)) != NULL, there[id]);
        if (!there[id] && (grow || any(4) == 0)) {
            snprintf(text, sizeof text, "null,id=%s", numbered(id));
            make(&r, text);
            there[id] = 1, count++;
        } else if (there[id] && (!grow || any(4) == 0)) {
            remove_one(&r, id);
            there[id] = 0, count--;
        }
    }
    for (id = 0; id < COUNT; id++) {
        CHECK_INT(chr_find(r.ctx, numbered(id)) != NULL, there[id]);
        if (there[id]) remove_one(&r, id);
    }
    CHECK(chr_find(r.ctx, numbered(0)) == NULL);
    CHECK(chr_find(r.ctx, "") == NULL);
    rig_close(&r);
}

/* A monitor's peer chooses ids. Those that one context would keep in few chains are spread over all in another one. */
TEST(flood_of_chosen_ids)
{
    enum { COUNT = 4000, CHAINS = 1024, LONGEST = 20 };
    char text[64];
    rig  known, r;
    int  i, number;
    rig_open(&known);
    make_many(&known, 100); /* beyond this it has a key */
    rig_open(&r);
    for (i = number = 0; i < COUNT; number++) {
        if (private_hash(known.ctx, numbered(number)) % CHAINS) continue;
        snprintf(text, sizeof text, "null,id=%s", numbered(number));
        make(&r, text);
        i++;
    }
    CHECK(private_longest_chain(r.ctx) <= LONGEST);
    CHECK(private_hash(known.ctx, "a") != private_hash(r.ctx, "a") || private_hash(known.ctx, "b") != private_hash(r.ctx, "b"));
    rig_close(&r);
    rig_close(&known);
}

/* HalfSipHash-1-3, as another implementation has it: the one that gives the published values of HalfSipHash-2-4. */
TEST(hash_is_what_it_is_said_to_be)
{
    static const unsigned long want[] = { 0x5814c896, 0xe7e864ca, 0xbc4b0e30, 0x01539939, 0x7e059ea6, 0x88e3d89b,
                                          0xa0080b65, 0x9d38d9d6, 0x577999b1, 0xc839caed, 0xe4fa32cf, 0x959246ee };
    static const unsigned      key[2] = { 0x03020100, 0x07060504 }, ones[2] = { 0xffffffff, 0xffffffff }, zeros[2] = { 0, 0 };
    unsigned char              bytes[12], high[70];
    size_t                     i;
    for (i = 0; i < sizeof high; i++) high[i] = (unsigned char)(0x80 + i);
    for (i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)i;
    for (i = 0; i < sizeof bytes; i++)
        if (!CHECK_INT(private_hash_of(key, bytes, i), want[i])) NOTE("of %d bytes", (int)i);
    CHECK_INT(private_hash_of(ones, "serial0", 7), 0xa31ecec3);
    CHECK_INT(private_hash_of(zeros, high, sizeof high), 0xf3332148);
}

/* Nobody guesses a table's key, not from another one's and not from the time. */
TEST(hash_keys_are_random)
{
    enum { COUNT = 6 };
    unsigned keys[COUNT][2];
    int      i, k, half, same[2] = { 0, 0 };
    for (i = 0; i < COUNT; i++) {
        rig r;
        rig_open(&r);
        make_many(&r, 17);
        for (half = 0; half < 2; half++) keys[i][half] = private_hash_key(r.ctx, half);
        rig_close(&r);
    }
    for (i = 0; i < COUNT; i++)
        for (k = 0; k < i; k++)
            for (half = 0; half < 2; half++) same[half] += keys[i][half] == keys[k][half];
    CHECK(same[0] <= 1);
    CHECK(same[1] <= 1);
}

/* Without memory for more chains the ids stay where they are. */
TEST(table_that_cannot_grow)
{
    char text[64];
    rig  r;
    long calls, most;
    int  i;
    rig_open(&r);
    make(&r, "null,id=first");
    calls = r.calls;
    make(&r, "null,id=second");
    calls = r.calls - calls; /* of one creation; one more is the table's */
    for (i = 0; i < 500; i++) {
        snprintf(text, sizeof text, "null,id=%s", numbered(i));
        r.failed = 0;
        r.fail_at = r.calls + calls + 1;
        make(&r, text);
        r.fail_at = 0;
    }
    most = (long)private_longest_chain(r.ctx);
    CHECK_INT(most, 502);
    for (i = 0; i < 500; i++) CHECK(chr_find(r.ctx, numbered(i)) != NULL);
    make(&r, "null,id=late"); /* now there is */
    CHECK(private_longest_chain(r.ctx) < 100);
    for (i = 0; i < 500; i++) CHECK(chr_find(r.ctx, numbered(i)) != NULL);
    for (i = 500; i < 550; i++) { /* and none again: those chains stay */
        snprintf(text, sizeof text, "null,id=%s", numbered(i));
        r.failed = 0;
        r.fail_at = r.calls + calls + 1;
        make(&r, text);
        r.fail_at = 0;
        CHECK_INT(r.failed, 1);
    }
    CHECK(private_longest_chain(r.ctx) > 1 && private_longest_chain(r.ctx) < 100);
    for (i = 0; i < 550; i++) CHECK(chr_find(r.ctx, numbered(i)) != NULL);
    for (i = 0; i < 550; i++) remove_one(&r, i);
    rig_close(&r);
}

/* ---- timers ------------------------------------------------------------------------------------------------------ */

static int fired;

static void on_time(void *opaque)
{
    (void)opaque;
    fired++;
}

static void on_time_again(void *opaque)
{
    chr_timer *timer = (chr_timer *)opaque;
    if (fired++ % 4) chr_timer_start(*(chr_context **)(timer + 1), timer, 1 + any(100), on_time_again, timer);
}

typedef struct own_timer {
    chr_timer    timer;
    chr_context *ctx; /* right behind it */
} own_timer;

static void start_any(rig *r, own_timer *timers, int count)
{
    int i;
    for (i = 0; i < count; i++) chr_timer_start(r->ctx, &timers[i].timer, 1000 + any(1000000), on_time, NULL);
}

static void timers(int count, phases *p)
{
    own_timer *list = (own_timer *)calloc((size_t)count, sizeof *list);
    rig        r;
    int        i;
    REQUIRE(list != NULL);
    rig_open_virtual(&r);
    for (i = 0; i < count; i++) list[i].ctx = r.ctx;
    phases_begin(p);
    start_any(&r, list, count);
    phase(p, "start");
    start_any(&r, list, count);
    phase(p, "start again");
    for (i = 0; i < count; i++) chr_timer_stop(&list[shuffled(i, count)].timer);
    phase(p, "stop");
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    for (i = 0; i < count; i++) chr_timer_start(r.ctx, &list[i].timer, 1000, on_time, NULL);
    for (i = 0; i < count; i++) chr_timer_start(r.ctx, &list[i].timer, count - i, on_time, NULL);
    phase(p, "start in order, and backwards");
    fired = 0;
    pass_time(&r, 2000000);
    CHECK_INT(fired, count);
    phase(p, "all run at once");
    for (i = 0; i < count; i++) chr_timer_start(r.ctx, &list[i].timer, any(1000), on_time_again, &list[i].timer);
    for (i = 0; i < 2000; i++) pass_time(&r, 1);
    phase(p, "they start themselves again");
    rig_close(&r);
    free(list);
}

TEST_WITHIN(many_timers, 300) { check_linear(timers); }

/* The heap against a table: which timers run in a step, and in which order. Handlers start and stop any of them,
 * too. */
enum { TIMERS = 200 };

typedef struct model_timer {
    chr_timer timer;
    int       number, is_started;
    int64_t   deadline; /* in milliseconds */
    int64_t   order;
} model_timer;

static struct {
    rig         r;
    model_timer timers[TIMERS];
    int64_t     order, last, now; /* last: order at the begin of the step */
    int         ran, nested;
} model;

static void model_change(void);

static model_timer *model_nearest(void)
{
    model_timer *nearest = NULL, *t;
    for (t = model.timers; t < model.timers + TIMERS; t++)
        if (t->is_started && (!nearest || t->deadline < nearest->deadline ||
                              (t->deadline == nearest->deadline && t->order < nearest->order)))
            nearest = t;
    return nearest;
}

static void model_expired(void *opaque)
{
    model_timer *t = (model_timer *)opaque;
    CHECK(t == model_nearest());
    CHECK(t->is_started);
    CHECK(t->deadline <= model.now);
    if (t->deadline == model.now) CHECK(t->order < model.last); /* what is started now comes in the next step */
    t->is_started = 0;
    model.ran++;
    if (model.nested > 0 && any(2)) {
        model.nested--;
        model_change();
    }
}

static void model_change(void)
{
    model_timer *t = &model.timers[any(TIMERS)];
    int64_t      delay = any(4) ? any(20) : any(1000);
    if (any(3) == 0) {
        chr_timer_stop(&t->timer);
        t->is_started = 0;
        return;
    }
    chr_timer_start(model.r.ctx, &t->timer, delay, model_expired, t);
    t->is_started = 1;
    t->deadline = model.now + delay;
    t->order = model.order++;
}

static void model_step(void)
{
    model_timer *t;
    model.now += any(8);
    model.r.now = model.now * 1000000;
    model.last = model.order;
    model.nested = (int)any(30);
    chr_loop_step(model.r.ctx, 0);
    t = model_nearest();
    CHECK(!t || t->deadline > model.now || t->order >= model.last); /* none was forgotten */
    CHECK(chr_loop_deadline(model.r.ctx) == (t ? t->deadline * 1000000 : INT64_MAX));
}

/* Resident memory of this process in KiB; 0 if the system doesn't report it. */
static long resident(void)
{
    long  pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%*d %ld", &pages) != 1) pages = 0;
    if (file) fclose(file);
    return pages > 0 ? pages * (sysconf(_SC_PAGESIZE) / 1024) : 0;
}

/* Overflow buffers for input are reserved, and take no memory until they are used. */
TEST(idle_muxes_take_no_memory_for_input)
{
    enum { MUXES = 1000 };
    char         options[60];
    long         before;
    int          i;
    chr_context *ctx = chr_context_new(NULL);
    REQUIRE(ctx != NULL);
    before = resident();
    if (!before) SKIP("there is no /proc/self/statm");
    for (i = 0; i < MUXES; i++) {
        snprintf(options, sizeof options, "null,id=m%d,mux=on", i);
        REQUIRE(chr_new(ctx, options, NULL) != NULL);
    }
    CHECK((resident() - before) / MUXES < 32);
    chr_context_free(ctx);
}

static void start_again_in_the_past(void *opaque)
{
    model_timer *t = (model_timer *)opaque;
    if (++t->number > 10) return;
    model.r.now = 1000000;
    chr_timer_start(model.r.ctx, &t->timer, 1, start_again_in_the_past, t);
}

/* A clock that goes backwards while the timers of a step run: timers that they start still run in the next step. */
TEST(clock_that_goes_back_in_a_callback)
{
    model_timer *t = &model.timers[0];
    rig_open_virtual(&model.r);
    chr_timer_start(model.r.ctx, &t->timer, 5, start_again_in_the_past, t);
    model.r.now += INT64_C(3600000) * 1000000;
    CHECK_INT(chr_loop_step(model.r.ctx, 0), 1);
    CHECK_INT(t->number, 1);
    CHECK_INT(chr_loop_step(model.r.ctx, 0), 0);
    model.r.now += 1000000;
    CHECK_INT(chr_loop_step(model.r.ctx, 0), 1);
    CHECK_INT(t->number, 2);
    chr_timer_stop(&t->timer);
    rig_close(&model.r);
}

TEST(timers_run_in_order)
{
    int i, k;
    rig_open_virtual(&model.r);
    model.now = model.r.now / 1000000;
    for (i = 0; i < TIMERS; i++) model.timers[i].number = i;
    for (i = 0; i < 20000; i++) {
        for (k = (int)any(i / 2000 % 2 ? 4 : 12); k > 0; k--) model_change();
        model_step();
    }
    CHECK(model.ran > 20000);
    rig_close(&model.r);
    for (i = 0; i < TIMERS; i++) chr_timer_stop(&model.timers[i].timer); /* after its context: harmless */
}

/* ---- members of a hub -------------------------------------------------------------------------------------------- */

static void members(int count, phases *p)
{
    char        *options = (char *)malloc((size_t)count * 30 + 20), *end = options, one[40];
    chr_frontend fe;
    chr_dev     *hub;
    rig          r;
    int          i;
    REQUIRE(options != NULL);
    rig_open(&r);
    for (i = 0; i < count; i++) {
        snprintf(one, sizeof one, "ringbuf,id=x%d,size=16", i);
        make(&r, one);
    }
    end += sprintf(end, "hub,id=h");
    for (i = 0; i < count; i++) end += sprintf(end, ",chardevs.%d=x%d", i, (int)shuffled(i, count));
    phases_begin(p);
    hub = make(&r, options);
    phase(p, "a hub of them");
    memset(&fe, 0, sizeof fe);
    REQUIRE(chr_fe_init(&fe, hub, NULL) == 0);
    settle(&r);
    phase(p, "they open");
    CHECK_INT(chr_fe_write(&fe, "x", 1), 1);
    settle(&r);
    phase(p, "output");
    chr_fe_deinit(&fe);
    CHECK_INT(chr_remove(r.ctx, "h", NULL), 0);
    settle(&r);
    phase(p, "removal");
    make(&r, options);
    settle(&r);
    phase(p, "another hub");
    rig_close(&r);
    phase(p, "the end of all");
    free(options);
}

TEST_WITHIN(many_members_of_a_hub, 300) { check_linear(members); }

/* ---- frontends of a mux ------------------------------------------------------------------------------------------ */

static int nobody_asked(void *opaque) { return opaque ? 1 : 0; }

static void sharers(int count, phases *p)
{
    static const chr_handlers handlers = { nobody_asked, NULL, NULL, NULL };
    chr_frontend *list = (chr_frontend *)calloc((size_t)count, sizeof *list);
    chr_dev      *mux;
    rig           r;
    int           i;
    REQUIRE(list != NULL);
    rig_open(&r);
    mux = make(&r, "null,id=m,mux=on");
    phases_begin(p);
    for (i = 0; i < count; i++) REQUIRE(chr_fe_init(&list[i], mux, NULL) == 0);
    phase(p, "attach");
    for (i = 0; i < count; i++) chr_fe_set_handlers(&list[shuffled(i, count)], &handlers, NULL);
    phase(p, "the focus goes round");
    for (i = 0; i < count; i++) chr_fe_deinit(&list[shuffled(i, count)]);
    settle(&r);
    phase(p, "detach");
    rig_close(&r);
    free(list);
}

static void few_sharers(int count, phases *p) { sharers(count / 5, p); }

TEST_WITHIN(many_frontends_of_a_mux, 300) { check_linear(few_sharers); }

/* ---- idles ------------------------------------------------------------------------------------------------------- */

static void idles(int count, phases *p)
{
    chr_idle *list = (chr_idle *)calloc((size_t)count, sizeof *list);
    rig       r;
    int       i;
    REQUIRE(list != NULL);
    rig_open(&r);
    phases_begin(p);
    for (i = 0; i < count; i++) chr_idle_start(r.ctx, &list[i], on_time, NULL);
    for (i = 0; i < count; i++) chr_idle_stop(&list[shuffled(i, count)]);
    phase(p, "start and stop");
    for (i = 0; i < count; i++) chr_idle_start(r.ctx, &list[i], on_time, NULL);
    fired = 0;
    settle(&r);
    CHECK_INT(fired, count);
    phase(p, "run");
    rig_close(&r);
    free(list);
}

TEST_WITHIN(many_idles, 300) { check_linear(idles); }

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* docs/options.md and the manual promise it, beside the options: for a listener, a connection, a client that waits. */
enum { AT_REST = 2048, WEBSOCKET_AT_REST = 2304, SAMPLE = 32 };

static struct {
    rig r, far;
} rest;

/* Makes one and lets it come to rest. */
static void rest_make(const char *format, const char *far_format, int number)
{
    char options[200];
    if (strstr(format, "path=")) snprintf(options, sizeof options, format, number, scratch("at-rest"), number);
    else snprintf(options, sizeof options, format, number);
    make(&rest.r, options);
    if (!far_format) {
        settle(&rest.r);
        return;
    }
    snprintf(options, sizeof options, far_format, number, scratch("at-rest"), number);
    make(&rest.far, options);
}

static void rest_settle(int count, int is_open)
{
    int64_t end = real_ms() + RIG_PATIENCE_MS;
    int     open = -1;
    while (open != count && real_ms() < end) {
        chr_dev *dev;
        chr_info info;
        settle(&rest.r);
        settle(&rest.far);
        for (open = 0, dev = chr_next(rest.r.ctx, NULL); dev; dev = chr_next(rest.r.ctx, dev)) {
            chr_query(dev, &info);
            open += info.be_open == is_open;
        }
    }
    CHECK_INT(open, count);
    settle(&rest.r);
}

/* Of one more chardev: what SAMPLE of them take, beside what the first has brought for all. SIZES=1 prints it. */
static void check_memory(const char *format, const char *far_format, int is_open)
{
    size_t before;
    int    i;
    rig_open(&rest.r);
    rig_open(&rest.far);
    rest_make(format, far_format, 0);
    rest_settle(1, is_open);
    before = rest.r.bytes;
    for (i = 1; i <= SAMPLE; i++) rest_make(format, far_format, i);
    rest_settle(1 + SAMPLE, is_open);
    before = (rest.r.bytes - before) / SAMPLE - sizeof(chr_socket_options);
    if (!CHECK(before <= (strstr(format, "websocket") ? WEBSOCKET_AT_REST : AT_REST)) || getenv("SIZES")) NOTE("%s: %zu bytes", format, before);
    chr_context_free(rest.far.ctx);
    CHECK_INT(rest.far.live, 0);
    rig_close(&rest.r);
    scratch_clean();
}

#define LISTENER "socket,id=a%d,path=%s%d,server=on,wait=off"
#define CLIENT   "socket,id=a%d,path=%s%d,reconnect=60"

TEST(memory_of_a_listener) { check_memory(LISTENER, NULL, 0); }
TEST(memory_of_a_telnet_listener) { check_memory(LISTENER ",telnet=on", NULL, 0); }
TEST(memory_of_a_connection) { check_memory(LISTENER, CLIENT, 1); }
TEST(memory_of_a_telnet_connection) { check_memory(LISTENER ",telnet=on", CLIENT ",telnet=on", 1); }
TEST(memory_of_a_websocket_connection) { check_memory(LISTENER ",websocket=on", CLIENT ",websocket=on", 1); }

TEST(memory_of_a_com_port_connection)
{
    check_memory(LISTENER ",telnet=on,com-port=on", CLIENT ",telnet=on,com-port=on", 1);
}

TEST(memory_of_a_waiting_client) { check_memory(CLIENT, NULL, 0); }
TEST(memory_of_a_waiting_telnet_client) { check_memory(CLIENT ",telnet=on", NULL, 0); }
TEST(memory_of_a_tcp_client) { check_memory("socket,id=a%d,host=127.0.0.1,port=1,reconnect=60", NULL, 0); }
TEST(memory_of_a_tcp_server) { check_memory("socket,id=a%d,host=127.0.0.1,port=0,server=on,wait=off", NULL, 0); }

/* ---- what a monitor passes, and what is watched ------------------------------------------------------------------ */

/* Every name and every number is checked against all others. */
static void named_descriptors(int count, phases *p)
{
    static int    fds[MANY];
    struct rlimit limit;
    char          name[32];
    rig           r;
    int           i, null;
    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max < MANY + 100 ? limit.rlim_max : MANY + 100;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    if (limit.rlim_cur < MANY + 100) count = (int)(count * (double)(limit.rlim_cur - 100) / MANY); /* as many as it may */
    rig_open(&r);
    REQUIRE((null = open("/dev/null", O_RDWR)) >= 0);
    for (i = 0; i < count; i++) REQUIRE((fds[i] = dup(null)) >= 0);
    phases_begin(p);
    for (i = 0; i < count; i++) {
        snprintf(name, sizeof name, "fd-%d", i);
        CHECK_INT(chr_fd_put(r.ctx, name, fds[i], NULL), 0);
    }
    phase(p, "chr_fd_put");
    CHECK_INT(chr_fd_put(r.ctx, "other", fds[count / 2], NULL), CHR_ERR_EXISTS); /* it has a name */
    for (i = 0; i < count / 2; i++) {
        snprintf(name, sizeof name, "fd-%d", shuffled(i, count));
        CHECK_INT(chr_fd_close(r.ctx, name, NULL), 0);
        CHECK_INT(chr_fd_close(r.ctx, name, NULL), CHR_ERR_NOT_FOUND);
    }
    phase(p, "chr_fd_close");
    close(null);
    rig_close(&r);
}

TEST_WITHIN(many_named_descriptors, 300) { check_linear(named_descriptors); }

/* A name may be given another descriptor, and a descriptor another name when the first is closed. */
TEST(names_and_descriptors_change)
{
    chr_error err;
    rig       r;
    int       a, b;
    rig_open(&r);
    REQUIRE((a = open("/dev/null", O_RDWR)) >= 0 && (b = open("/dev/null", O_RDWR)) >= 0);
    CHECK_INT(chr_fd_put(r.ctx, "x", a, &err), 0);
    CHECK_INT(chr_fd_put(r.ctx, "x", a, &err), 0); /* once more, the same */
    CHECK_INT(chr_fd_put(r.ctx, "y", a, &err), CHR_ERR_EXISTS);
    CHECK_INT(chr_fd_put(r.ctx, "x", b, &err), 0);
    CHECK(fcntl(a, F_GETFD) < 0);
    CHECK_INT(chr_fd_put(r.ctx, "y", b, &err), CHR_ERR_EXISTS);
    CHECK_INT(chr_fd_close(r.ctx, "x", &err), 0);
    REQUIRE((a = open("/dev/null", O_RDWR)) >= 0);
    CHECK_INT(chr_fd_put(r.ctx, "y", a, &err), 0);
    CHECK(chr_new_from(r.ctx, CHR_REMOTE, "fd,id=f,out=y", &err) != NULL); /* consumes it */
    CHECK_INT(chr_fd_close(r.ctx, "y", &err), CHR_ERR_NOT_FOUND);
    rig_close(&r);
}

/* News of a slave reach its own pty, and no other. */
static int opened;

static void on_opened(void *opaque, int event)
{
    (void)opaque;
    opened += event == CHR_EVENT_OPENED;
}

TEST(each_of_many_ptys_hears_of_its_own_slave)
{
    enum { PTYS = 100 };
    static const chr_handlers handlers = { NULL, NULL, on_opened, NULL };
    static chr_frontend       fes[PTYS];
    static int                slaves[PTYS];
    char                      text[64];
    rig                       r;
    int                       i, each;
    rig_open(&r);
    for (i = 0; i < PTYS; i++) {
        snprintf(text, sizeof text, "pty,id=%s", numbered(i));
        REQUIRE(chr_fe_init(&fes[i], make(&r, text), NULL) == 0);
        chr_fe_set_handlers(&fes[i], &handlers, NULL);
    }
    settle(&r);
    for (i = 0; i < PTYS; i++) {
        chr_info info;
        each = shuffled(i, PTYS);
        chr_query(chr_find(r.ctx, numbered(each)), &info);
        CHECK(!info.be_open);
        slaves[i] = open(info.filename + strlen("pty:"), O_RDWR | O_NOCTTY);
        REQUIRE(slaves[i] >= 0);
        PUMP(&r, opened == i + 1);
        chr_query(chr_find(r.ctx, numbered(each)), &info);
        CHECK(info.be_open);
    }
    for (i = 0; i < PTYS; i++) close(slaves[i]);
    for (i = 0; i < PTYS; i++) {
        chr_fe_deinit(&fes[i]);
        remove_one(&r, i);
    }
    rig_close(&r);
}
