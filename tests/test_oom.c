/*
 * Every allocation of every scenario fails in turn, once and permanently: the error is CHR_ERR_NO_MEMORY, and nothing
 * leaks.
 */
#include "chardev.h"
#include "scenarios.h"

/* One life with allocation number `at` failing. Returns whether one did fail. */
static int live_with_failure(const scenario *kind, long at, int for_good)
{
    scene s;
    int   failures = test_failures, complete;
    scene_init(&s, kind);
    s.r.fail_at = at;
    s.r.for_good = for_good;
    complete = scene_live(&s);
    if (!s.r.failed) CHECK(complete);
    if (s.r.ctx && !s.dev && s.r.failed) CHECK_INT(s.err.code, CHR_ERR_NO_MEMORY);
    if (test_failures != failures) NOTE("%s: allocation %ld, %s: %s", kind->name, at, for_good ? "for good" : "once", s.err.text);
    return s.r.failed;
}

static void sweep(const void *arg)
{
    const scenario *kind = (const scenario *)arg;
    int             for_good;
    long            at;
    for (for_good = 0; for_good <= 1; for_good++)
        for (at = 1; live_with_failure(kind, at, for_good); at++) REQUIRE(at < 1000);
}

TEST_FAMILY(oom)
{
    int  i;
    char name[80];
    for (i = 0; i < SCENARIOS; i++) {
        if (scenarios[i].exchange == waiting_exchange) continue; /* a server that loses a peer goes on waiting for the next */
        snprintf(name, sizeof name, "oom_%s", scenarios[i].name);
        test_add_case(name, sweep, &scenarios[i], TEST_SECONDS);
    }
}

/* An allocation fails while the chardev is made, and none after: either it is refused, or it does all that it is
 * for. */
static void allow_all(scene *s)
{
    s->r.fail_at = 0;
    s->is_sound = 1;
}

static int make_with_failure(const scenario *kind, long at, int for_good)
{
    scene s;
    int   failures = test_failures, complete;
    scene_init(&s, kind);
    s.r.fail_at = at;
    s.r.for_good = for_good;
    s.made = allow_all;
    complete = scene_live(&s);
    if (s.r.ctx && !s.dev) CHECK_INT(s.err.code, CHR_ERR_NO_MEMORY);
    if (s.dev) CHECK(complete);
    if (test_failures != failures) NOTE("%s: allocation %ld, %s: %s", kind->name, at, for_good ? "for good" : "once", s.err.text);
    return s.r.failed;
}

static void sweep_making(const void *arg)
{
    const scenario *kind = (const scenario *)arg;
    int             for_good;
    long            at;
    for (for_good = 0; for_good <= 1; for_good++)
        for (at = 1; make_with_failure(kind, at, for_good); at++) REQUIRE(at < 1000);
}

TEST_FAMILY(oom_refused_or_sound)
{
    int  i;
    char name[80];
    for (i = 0; i < SCENARIOS; i++) {
        if (scenarios[i].prepare == prepare_reconnect) continue; /* the far side meets the first connection, which was given up */
        snprintf(name, sizeof name, "oom_refused_or_sound_%s", scenarios[i].name);
        test_add_case(name, sweep_making, &scenarios[i], TEST_SECONDS);
    }
}

/* ---- calls beside creation --------------------------------------------------------------------------------------- */

typedef void (*oom_step)(rig *r, chr_error *err, int *code);

/* Runs a step in a fresh context, with each of the allocations after `setup` failing in turn. */
static void sweep_step(void (*setup)(rig *), oom_step step)
{
    int  for_good;
    long at;
    for (for_good = 0; for_good <= 1; for_good++)
        for (at = 1; at < 1000; at++) {
            chr_error err;
            int       code = 0;
            rig       r;
            rig_open_virtual(&r);
            if (setup) setup(&r);
            memset(&err, 0, sizeof err);
            r.fail_at = r.calls + at;
            r.for_good = for_good;
            step(&r, &err, &code);
            r.fail_at = 0;
            if (r.failed && code < 0) CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
            if (!r.failed) CHECK(code >= 0 || is_left_out(&err));
            rig_close(&r);
            if (!r.failed) break;
        }
}

static void setup_null(rig *r)
{
    make(r, "null,id=c");
}

static void step_change(rig *r, chr_error *err, int *code)
{
    chr_dev *before = chr_find(r->ctx, "c");
    *code = chr_change(r->ctx, "c", "ringbuf,size=64", err);
    CHECK(before != NULL); /* without a frontend the old one may be gone after an error */
}

TEST(oom_change)
{
    sweep_step(setup_null, step_change);
}

static recorder rec;

static void setup_attached(rig *r)
{
    attach(&rec, make(r, "null,id=c"));
}

static void step_change_attached(rig *r, chr_error *err, int *code)
{
    chr_dev *before = rec.fe.dev;
    *code = chr_change(r->ctx, "c", "ringbuf,size=64", err);
    if (*code < 0) CHECK(chr_find(r->ctx, "c") == before && rec.fe.dev == before); /* untouched */
    detach(&rec);
}

TEST(oom_change_under_a_frontend)
{
    sweep_step(setup_attached, step_change_attached);
}

static void step_fd_put(rig *r, chr_error *err, int *code)
{
    int fd = dup(2);
    *code = chr_fd_put(r->ctx, "name", fd, err);
    if (*code < 0) close(fd); /* still ours */
}

TEST(oom_fd_put)
{
    sweep_step(NULL, step_fd_put);
}

static void step_uri(rig *r, chr_error *err, int *code)
{
    if (!chr_new_uri(r->ctx, "u", "mon:null", err)) *code = err->code;
    if (*code < 0) CHECK(chr_next(r->ctx, NULL) == NULL);
}

TEST(oom_uri_with_mux)
{
    sweep_step(NULL, step_uri);
}

static void step_any(rig *r, chr_error *err, int *code)
{
    if (!chr_new_any(r->ctx, "a", "mon:ringbuf,size=16", err) || !chr_new_any(r->ctx, "b", "null,id=c", err)) *code = err->code;
    if (*code < 0 && chr_find(r->ctx, "a")) chr_remove(r->ctx, "a", NULL);
    if (*code < 0) CHECK(chr_next(r->ctx, NULL) == NULL);
}

TEST(oom_any)
{
    sweep_step(NULL, step_any);
}

static void ignore_line(void *opaque, const char *line)
{
    (void)opaque;
    (void)line;
}

static void step_any_help(rig *r, chr_error *err, int *code)
{
    *code = err->code = chr_help(r->ctx, "id=x,ringbuf,help", ignore_line, NULL);
    snprintf(err->text, sizeof err->text, "help"); /* it has no error to fill */
}

TEST(oom_help_of_any)
{
    sweep_step(NULL, step_any_help);
}

static void step_register(rig *r, chr_error *err, int *code)
{
    static chr_backend mine;
    mine = *chr_backend_find(r->ctx, "null");
    mine.name = "mine";
    mine.alias = NULL;
    *code = chr_backend_register(r->ctx, &mine, err);
    if (*code == 0) CHECK(chr_backend_find(r->ctx, "mine") == &mine);
}

TEST(oom_register)
{
    sweep_step(NULL, step_register);
}

static void step_help(rig *r, chr_error *err, int *code)
{
    *code = chr_help(r->ctx, "socket", ignore_line, NULL);
    if (*code < 0) err->code = *code;
}

TEST(oom_help)
{
    sweep_step(NULL, step_help);
}

static void setup_mux(rig *r)
{
    make(r, "ringbuf,id=m,mux=on");
}

/* Frontends on a mux: some attach fails, the others work on. */
static void step_attach(rig *r, chr_error *err, int *code)
{
    static recorder many[20];
    int             i, attached = 0;
    memset(many, 0, sizeof many);
    for (i = 0; i < 20; i++) {
        int one = chr_fe_init(&many[i].fe, chr_find(r->ctx, "m"), err);
        if (one < 0) *code = one;
        else attached++;
    }
    for (i = 0; i < 20; i++) chr_fe_deinit(&many[i].fe);
    CHECK(attached > 0 || r->failed);
}

TEST(oom_attach_to_a_mux)
{
    sweep_step(setup_mux, step_attach);
}

static void step_printf(rig *r, chr_error *err, int *code)
{
    static char text[5000];
    chr_dev    *ring = chr_new(r->ctx, "ringbuf,id=r", err);
    if (!ring) {
        *code = err->code;
        return;
    }
    memset(&rec, 0, sizeof rec);
    *code = chr_fe_init(&rec.fe, ring, err);
    if (*code < 0) return;
    memset(text, 'x', sizeof text - 1);
    *code = chr_fe_printf(&rec.fe, "%s", text);
    if (*code < 0) err->code = *code;
    CHECK(*code < 0 || *code == (int)sizeof text - 1);
    chr_fe_deinit(&rec.fe);
}

TEST(oom_printf)
{
    sweep_step(NULL, step_printf);
}

static void step_watch(rig *r, chr_error *err, int *code)
{
    static chr_watch watches[100];
    int              i;
    memset(watches, 0, sizeof watches);
    for (i = 0; i < 100; i++) {
        int one = chr_watch_start(r->ctx, &watches[i], 2, 0, NULL, NULL);
        if (one < 0) *code = err->code = one;
    }
    for (i = 0; i < 100; i++) chr_watch_stop(&watches[i]);
}

TEST(oom_watches)
{
    sweep_step(NULL, step_watch);
}
