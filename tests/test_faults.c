/*
 * System calls that fail: for every scenario, every call and every kind of failure, call number 1, 2, 3, ... fails,
 * once and permanently, until a run passes without reaching the fault. EINTR, EAGAIN and a short count must change
 * nothing: every byte arrives, once. A hard error may end the connection, but then it is reported, and nothing leaks or
 * is invented.
 */
#include "chardev.h"
#include "fault.h"
#include "scenarios.h"

typedef struct kind_of_fault {
    const char *name;
    int         error;
    int         for_good;
    int         harmless; /* nothing may be lost by it */
} kind_of_fault;

static const kind_of_fault kinds[] = {
    { "eintr", EINTR, 0, 1 },
    { "eagain", EAGAIN, 0, 1 },
    { "short", FAULT_SHORT, 0, 1 },
    { "always_short", FAULT_SHORT, 1, 1 },
    { "eio", EIO, 0, 0 },
    { "always_eio", EIO, 1, 0 },
    { "emfile", EMFILE, 0, 0 },
    { "always_emfile", EMFILE, 1, 0 },
};

/* Which failures a call can have in this world. */
static int possible(fault_call call, const kind_of_fault *kind)
{
    int moves_bytes = call == FAULT_read || call == FAULT_write || call == FAULT_send || call == FAULT_recv || call == FAULT_recvmsg ||
                      call == FAULT_sendmsg || call == FAULT_preadv2 || call == FAULT_pwritev2;
    int makes_descriptors = call == FAULT_open || call == FAULT_socket || call == FAULT_accept || call == FAULT_pipe || call == FAULT_fcntl;
    switch (kind->error) {
    case EINTR: return moves_bytes || call == FAULT_open || call == FAULT_accept || call == FAULT_connect || call == FAULT_poll ||
                       call == FAULT_close || call == FAULT_tcsetattr;
    case EAGAIN: return moves_bytes || call == FAULT_accept;
    case FAULT_SHORT: return moves_bytes;
    case EMFILE: return makes_descriptors;
    default: return call != FAULT_clock_gettime && call != FAULT_getaddrinfo && call != FAULT_fork;
    }
}

typedef struct combination {
    const scenario      *scenario;
    const kind_of_fault *kind;
} combination;

/* A log file that would block is switched off, with one message, as at any other failure. */
static int is_harmless(const combination *c)
{
    return c->kind->harmless && !(c->kind->error == EAGAIN && c->scenario->prepare == prepare_log);
}

/* One life with that fault at call number `at`. Returns whether it came. */
static int live_with_fault(const combination *c, fault_call call, long at)
{
    scene s;
    int   failures = test_failures, complete;
    long  fired;
    scene_init(&s, c->scenario);
    s.strict = is_harmless(c);
    s.fired = &fault_plan.fired;
    fault_arm(call, c->kind->error, at, c->kind->for_good);
    complete = scene_live(&s);
    fired = fault_plan.fired;
    fault_disarm();
    if (is_harmless(c) || !fired) CHECK(complete);
    if (test_failures != failures)
        NOTE("%s: %s number %ld: events %s, %zu in, %zu taken, %zu heard; %s", c->scenario->name, fault_names[call], at, s.rec.events,
             s.rec.length, s.written, s.heard, s.err.text);
    return fired > 0;
}

static void sweep(const void *arg)
{
    const combination *c = (const combination *)arg;
    long               at, fired = 0;
    int                call;
    for (call = 0; call < FAULT_COUNT; call++) {
        if (!possible((fault_call)call, c->kind)) continue;
        for (at = 1; live_with_fault(c, (fault_call)call, at); at++, fired++) {
            REQUIRE(at < 5000);
            if (test_failures > 20) exit(EXIT_FAILURE);
        }
    }
    CHECK(fired > 0 || !c->scenario->has_input); /* else nothing was tested */
}

/* A call fails while the chardev is made, and none after: either it is refused, or it does all that it is for. */
static void no_more_faults(scene *s)
{
    fault_plan.error = 0;
    s->is_sound = 1;
}

static int make_with_fault(const combination *c, fault_call call, long at)
{
    scene s;
    int   failures = test_failures, complete;
    scene_init(&s, c->scenario);
    s.fired = &fault_plan.fired;
    s.made = no_more_faults;
    fault_arm(call, c->kind->error, at, c->kind->for_good);
    complete = scene_live(&s);
    fault_disarm();
    if (s.dev) CHECK(complete);
    if (test_failures != failures)
        NOTE("%s: %s number %ld: events %s, %zu in, %zu taken, %zu heard; %s", c->scenario->name, fault_names[call], at, s.rec.events,
             s.rec.length, s.written, s.heard, s.err.text);
    return fault_plan.fired > 0;
}

static void sweep_making(const void *arg)
{
    const combination *c = (const combination *)arg;
    long               at;
    int                call;
    for (call = 0; call < FAULT_COUNT; call++) {
        if (!possible((fault_call)call, c->kind)) continue;
        if (call == FAULT_fcntl && c->scenario->prepare == prepare_stdio) continue; /* F_GETFL can't fail: a closed one has ended */
        for (at = 1; make_with_fault(c, (fault_call)call, at); at++) {
            REQUIRE(at < 5000);
            if (test_failures > 20) exit(EXIT_FAILURE);
        }
    }
}

TEST_FAMILY(refused_or_sound)
{
    static combination all[SCENARIOS][sizeof kinds / sizeof *kinds];
    size_t             k;
    int                i;
    char               name[120];
    for (i = 0; i < SCENARIOS; i++)
        for (k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            if (kinds[k].harmless) continue; /* the whole life has it, above */
            all[i][k].scenario = &scenarios[i];
            all[i][k].kind = &kinds[k];
            snprintf(name, sizeof name, "refused_or_sound_%s_%s", scenarios[i].name, kinds[k].name);
            test_add_case(name, sweep_making, &all[i][k], TEST_SECONDS);
        }
}

TEST_FAMILY(faults)
{
    static combination all[SCENARIOS][sizeof kinds / sizeof *kinds];
    size_t             k;
    int                i;
    char               name[120];
    for (i = 0; i < SCENARIOS; i++)
        for (k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            if (kinds[k].error == FAULT_SHORT && scenarios[i].prepare == prepare_udp) continue; /* a datagram is never short */
            all[i][k].scenario = &scenarios[i];
            all[i][k].kind = &kinds[k];
            snprintf(name, sizeof name, "%s_%s", scenarios[i].name, kinds[k].name);
            test_add_case(name, sweep, &all[i][k], TEST_SECONDS);
        }
}

/* A write has found the connection closed; a following read that would block once is not the end of the peer's
 * input. */
TEST(read_would_block_once_behind_a_broken_write)
{
    static const fault_call calls[] = { FAULT_read, FAULT_recv, FAULT_recvmsg };
    size_t                  i;
    long                    fired = 0;
    for (i = 0; i < sizeof calls / sizeof *calls; i++) {
        char     options[60];
        int      fds[2];
        rig      r;
        recorder rec;
        rig_open_virtual(&r);
        socket_pair(fds);
        snprintf(options, sizeof options, "socket,id=d,fd=%d", fds[0]);
        attach(&rec, make(&r, options));
        say(fds[1], "last words");
        close(fds[1]);
        CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
        fault_arm(calls[i], EAGAIN, 1, 0);
        settle(&r);
        fired += fault_plan.fired;
        fault_disarm();
        CHECK_INPUT(&rec, "last words");
        CHECK_STR(rec.events, "OC");
        detach(&rec);
        rig_close(&r);
    }
    CHECK(fired > 0);
}
