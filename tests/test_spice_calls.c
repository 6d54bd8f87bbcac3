/* spicevmc and spiceport, call by call: the functions of the spice server are the test's own here, so that each callback comes when the
 * test wants it. test_spice.c has a real server. */
#include "chardev.h"
#include "private.h"
#include "rig.h"

#ifndef CHARDEV_SPICE

TEST(spice_calls) { SKIP("built without CHARDEV_SPICE: pkg-config knows no spice-server"); }

#else

#include <spice.h>
#include <spice/protocol.h>

enum { BUFFER = 65536 }; /* of each direction */

/* ---- the server -------------------------------------------------------------------------------------------------------------- */

static struct {
    SpiceCharDeviceInstance *channel; /* the one that is registered */
    int                      added, removed, wakeups;
    int                      add_result, keeps_st; /* how a channel is refused */
    int                      chunk;                /* how much it reads at a time; 0 = nothing */
    const char              *has;                  /* what its client has sent, to be written at a wake-up */
    char                     got[2 * BUFFER];
    size_t                   length;
    char                     order[100]; /* r read, a to z; O C B port events; - removed */
} fake;

static const char *fake_subtypes[] = { "x", "vdagent", "usbredir", NULL };

static const SpiceCharDeviceInterface *calls(void)
{
    return (const SpiceCharDeviceInterface *)(const void *)fake.channel->base.sif;
}

static void note(char letter)
{
    size_t len = strlen(fake.order);
    if (len + 1 < sizeof fake.order) fake.order[len] = letter;
}

int spice_server_add_interface(SpiceServer *server, SpiceBaseInstance *instance)
{
    (void)server;
    fake.added++;
    if (fake.add_result < 0) return fake.add_result;
    fake.channel = (SpiceCharDeviceInstance *)(void *)instance;
    if (!fake.keeps_st) fake.channel->st = (SpiceCharDeviceState *)(void *)&fake;
    return 0;
}

int spice_server_remove_interface(SpiceBaseInstance *instance)
{
    CHECK(instance == &fake.channel->base);
    fake.removed++;
    note('-');
    return 0;
}

static void client_reads(void)
{
    int n;
    if (fake.chunk == 0) return;
    n = calls()->read(fake.channel, (uint8_t *)fake.got + fake.length, fake.chunk);
    CHECK(n >= 0 && n <= fake.chunk);
    if (n > 0) note('r');
    fake.length += (size_t)n;
}

void spice_server_char_device_wakeup(SpiceCharDeviceInstance *instance)
{
    CHECK(instance == fake.channel);
    fake.wakeups++;
    client_reads();
    if (fake.has && *fake.has) fake.has += calls()->write(instance, (const uint8_t *)fake.has, (int)strlen(fake.has));
}

void spice_server_port_event(SpiceCharDeviceInstance *instance, uint8_t event)
{
    CHECK(instance == fake.channel);
    note("OCB"[event % 3]);
}

const char **spice_server_char_device_recognized_subtypes(void) { return fake_subtypes; }

static int client_sends(const char *text) { return calls()->write(fake.channel, (const uint8_t *)text, (int)strlen(text)); }

/* ---- a channel ------------------------------------------------------------------------------------------------------------------ */

static char server_object;

static void open_context(rig *r)
{
    rig_open(r);
    memset(&fake, 0, sizeof fake);
    fake.chunk = 100;
    chr_spice_set_server(r->ctx, &server_object);
}

static void open_port(rig *r, recorder *rec, int room)
{
    open_context(r);
    attach_with_room(rec, make(r, "spiceport,id=p,name=org.example.console"), room);
    settle(r);
    fake.order[0] = 0;
    memset(fake.order, 0, sizeof fake.order);
}

static void connect_port(rig *r, recorder *rec, int room)
{
    open_port(r, rec, room);
    calls()->event(fake.channel, SPICE_PORT_EVENT_OPENED);
    settle(r);
    CHECK_STR(rec->events, "O");
}

static void finish(rig *r, recorder *rec)
{
    detach(rec);
    rig_close(r);
}

static chr_info info_of(recorder *rec)
{
    chr_info info;
    chr_query(rec->fe.dev, &info);
    return info;
}

/* ---- registration --------------------------------------------------------------------------------------------------------------- */

TEST(a_channel_that_the_server_refuses)
{
    chr_error err;
    rig       r;
    int       how;
    for (how = 0; how < 2; how++) {
        open_context(&r);
        fake.add_result = how ? -1 : 0;
        fake.keeps_st = !how;
        CHECK(chr_new(r.ctx, "spiceport,id=p,name=a", &err) == NULL);
        CHECK_INT(err.code, CHR_ERR_BUSY);
        CHECK_STR(err.text, "spiceport: the spice server refuses another channel 'port'");
        CHECK_INT(fake.removed, 0); /* it was none */
        CHECK_INT(fake.wakeups, 0);
        fake.add_result = fake.keeps_st = 0;
        make(&r, "spiceport,id=p,name=a");
        CHECK_STR(fake.channel->portname, "a");
        CHECK_STR(fake.channel->subtype, "port");
        CHECK_INT(chr_remove(r.ctx, "p", &err), 0);
        CHECK_INT(fake.removed, 1);
        rig_close(&r);
        CHECK_INT(fake.removed, 1);
    }
}

/* It is registered with its frontend, and once; what the first time has left means nothing for the second. */
TEST(a_vmc_is_registered_with_its_frontend)
{
    recorder rec;
    rig      r;
    open_context(&r);
    attach(&rec, make(&r, "spicevmc,id=v,name=vdagent"));
    CHECK_INT(fake.added, 1);
    CHECK_STR(fake.channel->subtype, "vdagent");
    calls()->state(fake.channel, 1);
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_write(&rec.fe, "last", 4), 4);
    chr_fe_set_open(&rec.fe, 0);
    CHECK_STR(fake.order, "r-"); /* with all that was written */
    settle(&r);
    CHECK_STR(rec.events, "OC");
    chr_fe_set_open(&rec.fe, 0);
    CHECK_INT(fake.removed, 1);
    fake.keeps_st = 1;
    chr_fe_set_open(&rec.fe, 1);
    CHECK_INT(fake.added, 2);
    CHECK_HAS(r.log, "chardev v: the spice server refuses another channel 'vdagent'\n");
    chr_fe_set_open(&rec.fe, 0);
    CHECK_INT(fake.removed, 1);
    fake.keeps_st = 0;
    chr_fe_set_open(&rec.fe, 1);
    CHECK_INT(fake.added, 3);
    finish(&r, &rec);
    CHECK_INT(fake.removed, 2);
}

/* Nothing of the time before is left when it opens again. */
TEST(a_vmc_that_is_closed_forgets)
{
    recorder rec;
    rig      r;
    open_context(&r);
    attach_with_room(&rec, make(&r, "spicevmc,id=v,name=usbredir"), 0);
    calls()->state(fake.channel, 1);
    settle(&r);
    CHECK_INT(client_sends("old"), 3);
    calls()->event(fake.channel, SPICE_PORT_EVENT_BREAK);
    CHECK_INT(client_sends("held back"), 0);
    settle(&r);
    fake.chunk = 0;
    chr_fe_write(&rec.fe, "lost", 4);
    settle(&r);
    chr_fe_set_open(&rec.fe, 0);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    CHECK_INT(info_of(&rec).bytes_dropped, 4);
    chr_fe_set_open(&rec.fe, 1);
    give_room(&rec, UNLIMITED);
    settle(&r);
    CHECK_STR(rec.events, "OC"); /* until its client is there */
    fake.wakeups = 0;
    fake.chunk = 100;
    calls()->state(fake.channel, 1);
    CHECK_INT(client_sends("new"), 3);
    settle(&r);
    CHECK_STR(rec.events, "OCO");
    CHECK_INPUT(&rec, "new");
    CHECK_INT(fake.length, 0);
    finish(&r, &rec);
}

TEST(names)
{
    chr_error err;
    rig       r;
    open_context(&r);
    CHECK_INT(refuse(&r, "spicevmc,id=v,name=nothing", &err), CHR_ERR_INVALID);
    CHECK_STR(err.text, "spicevmc: name=nothing: the spice server recognises x, vdagent, usbredir");
    CHECK_INT(refuse(&r, "spiceport,id=v,name=", &err), CHR_ERR_INVALID);
    CHECK_STR(err.text, "spiceport: name= is empty");
    CHECK_INT(fake.added, 0);
    make(&r, "spicevmc,id=a,name=x");
    make(&r, "spicevmc,id=b,name=usbredir");
    CHECK_INT(fake.added, 0);
    rig_close(&r);
}

/* ---- output -------------------------------------------------------------------------------------------------------------------------- */

/* Each wake-up makes the server read a bufferful, until it has all. */
TEST(output_is_read_in_pieces)
{
    recorder rec;
    rig      r;
    connect_port(&r, &rec, UNLIMITED);
    fake.wakeups = 0;
    fake.chunk = 10;
    CHECK_INT(chr_fe_write(&rec.fe, "0123456789abcdefghijklmnopqrstuvwxy", 35), 35);
    CHECK_INT(fake.length, 0); /* from the loop */
    settle(&r);
    CHECK_INT(fake.wakeups, 4);
    CHECK_MEM(fake.got, fake.length, "0123456789abcdefghijklmnopqrstuvwxy", 35);
    settle(&r);
    CHECK_INT(fake.wakeups, 4);
    fake.chunk = 0; /* one that reads nothing is not asked again and again */
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    settle(&r);
    CHECK_INT(fake.wakeups, 5);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    fake.chunk = 10;
    client_reads();
    CHECK_MEM(fake.got + 35, fake.length - 35, "x", 1);
    finish(&r, &rec);
}

TEST(what_the_server_asks_for)
{
    uint8_t  bytes[20];
    recorder rec;
    rig      r;
    connect_port(&r, &rec, UNLIMITED);
    fake.chunk = 0;
    CHECK_INT(chr_fe_write(&rec.fe, "hello", 5), 5);
    CHECK_INT(calls()->read(fake.channel, bytes, -1), 0);
    CHECK_INT(calls()->read(fake.channel, bytes, 0), 0);
    CHECK_INT(calls()->read(fake.channel, bytes, 2), 2);
    CHECK_MEM(bytes, 2, "he", 2);
    CHECK_INT(calls()->read(fake.channel, bytes, 20), 3);
    CHECK_MEM(bytes, 3, "llo", 3);
    CHECK_INT(calls()->read(fake.channel, bytes, 20), 0);
    CHECK_INT(chr_fe_write(&rec.fe, "lost", 4), 4);
    calls()->event(fake.channel, SPICE_PORT_EVENT_CLOSED);
    CHECK_INT(calls()->read(fake.channel, bytes, 20), 0); /* nobody is there, */
    calls()->event(fake.channel, SPICE_PORT_EVENT_OPENED);
    CHECK_INT(calls()->read(fake.channel, bytes, 20), 0); /* and what follows is for the next one */
    settle(&r);
    CHECK_STR(rec.events, "OCO");
    CHECK_INT(info_of(&rec).bytes_dropped, 4);
    CHECK_INT(calls()->read(fake.channel, bytes, 20), 0);
    CHECK_INT(chr_fe_write(&rec.fe, "next", 4), 4);
    CHECK_INT(calls()->read(fake.channel, bytes, 20), 4);
    finish(&r, &rec);
}

/* Around the end of the buffer; and the frontend is told when there is room. */
TEST(output_goes_round)
{
    static char block[30000], expected[2 * BUFFER];
    size_t      i, sent = 0;
    int         n;
    recorder    rec;
    rig         r;
    connect_port(&r, &rec, UNLIMITED);
    fake.chunk = 0;
    for (i = 0; i < sizeof block; i++) block[i] = (char)(i * 7 % 251);
    for (n = 1; n > 0 && sent < sizeof expected;) {
        n = chr_fe_write(&rec.fe, block + sent % 1000, 25000);
        if (n > 0) memcpy(expected + sent, block + sent % 1000, (size_t)n);
        if (n > 0) sent += (size_t)n;
    }
    CHECK_INT(n, CHR_ERR_WOULD_BLOCK);
    CHECK_INT(sent, BUFFER);
    CHECK_INT(info_of(&rec).bytes_queued, 0);
    settle(&r);
    fake.chunk = 1500;
    client_reads();
    fake.chunk = 0;
    CHECK_INT(chr_fe_write(&rec.fe, block, 2000), 1500);
    memcpy(expected + sent, block, 1500);
    fake.chunk = BUFFER - 1500 + 700; /* a part of what is behind the buffer's end */
    client_reads();
    CHECK_INT(fake.length, BUFFER + 700);
    fake.chunk = BUFFER;
    settle(&r);
    CHECK_MEM(fake.got, fake.length, expected, sent + 1500);
    finish(&r, &rec);
}

TEST(room_is_told)
{
    static char block[BUFFER + 1000];
    recorder    rec;
    rig         r;
    connect_port(&r, &rec, UNLIMITED);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    fake.chunk = 0;
    CHECK_INT(chr_fe_write(&rec.fe, block, sizeof block), BUFFER);
    CHECK_INT(chr_fe_write(&rec.fe, block, 1), CHR_ERR_WOULD_BLOCK);
    settle(&r);
    CHECK_INT(rec.writable, 0);
    fake.chunk = 1;
    client_reads();
    CHECK_INT(rec.writable, 0); /* not from inside the server */
    fake.chunk = 0;
    settle(&r);
    CHECK_INT(rec.writable, 1);
    finish(&r, &rec);
}

/* ---- input --------------------------------------------------------------------------------------------------------------------------- */

TEST(input_from_nobody)
{
    recorder rec;
    rig      r;
    open_port(&r, &rec, UNLIMITED);
    CHECK_INT(client_sends("x"), 0); /* it is not there */
    calls()->event(fake.channel, SPICE_PORT_EVENT_BREAK);
    calls()->event(fake.channel, 77);
    settle(&r);
    CHECK_STR(rec.events, "");
    calls()->event(fake.channel, SPICE_PORT_EVENT_OPENED);
    CHECK_INT(calls()->write(fake.channel, (const uint8_t *)"x", -1), 0);
    CHECK_INT(calls()->write(fake.channel, (const uint8_t *)"x", 0), 0);
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INT(rec.length, 0);
    calls()->event(fake.channel, 77);
    calls()->event(fake.channel, SPICE_PORT_EVENT_OPENED); /* again */
    settle(&r);
    CHECK_STR(rec.events, "O");
    finish(&r, &rec);
}

static void event_to_nobody(void *opaque, int event)
{
    (void)opaque;
    (void)event;
}

/* A frontend without a read handler: its input is no work for the loop, and waits for another. */
TEST(input_for_a_frontend_that_does_not_read)
{
    static const chr_handlers deaf = { NULL, NULL, event_to_nobody, NULL };
    recorder     rec;
    chr_frontend fe;
    int          steps = 0;
    rig          r;
    open_context(&r);
    REQUIRE(chr_fe_init(&fe, make(&r, "spiceport,id=p,name=a"), NULL) == 0);
    chr_fe_set_handlers(&fe, &deaf, NULL);
    settle(&r);
    calls()->event(fake.channel, SPICE_PORT_EVENT_OPENED);
    CHECK_INT(client_sends("abc"), 3);
    while (steps < 100 && chr_loop_step(r.ctx, 0) > 0) steps++;
    CHECK(steps < 100);
    chr_fe_deinit(&fe);
    attach(&rec, chr_find(r.ctx, "p"));
    settle(&r);
    CHECK_INPUT(&rec, "abc");
    finish(&r, &rec);
}

/* Who waits for room is told when the client goes that has read nothing. */
TEST(room_when_the_client_goes)
{
    static char block[BUFFER];
    recorder    rec;
    rig         r;
    connect_port(&r, &rec, UNLIMITED);
    fake.chunk = 0;
    CHECK_INT(chr_fe_write(&rec.fe, block, BUFFER), BUFFER);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_WOULD_BLOCK);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    settle(&r);
    CHECK_INT(rec.writable, 0);
    calls()->event(fake.channel, SPICE_PORT_EVENT_CLOSED);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    CHECK_INT(rec.writable, 1);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    finish(&r, &rec);
}

/* What came and went before the loop has had a look is told in its order. */
TEST(a_client_that_comes_and_goes_at_once)
{
    recorder rec;
    rig      r;
    open_port(&r, &rec, UNLIMITED);
    calls()->event(fake.channel, SPICE_PORT_EVENT_OPENED);
    calls()->event(fake.channel, SPICE_PORT_EVENT_CLOSED);
    settle(&r);
    CHECK_STR(rec.events, ""); /* it has said nothing */
    calls()->event(fake.channel, SPICE_PORT_EVENT_OPENED);
    CHECK_INT(client_sends("abc"), 3);
    calls()->event(fake.channel, SPICE_PORT_EVENT_CLOSED);
    CHECK_INT(client_sends("d"), 1); /* what is under way still comes */
    calls()->event(fake.channel, SPICE_PORT_EVENT_CLOSED);
    calls()->event(fake.channel, SPICE_PORT_EVENT_OPENED); /* the next one */
    CHECK_INT(client_sends("e"), 0);
    settle(&r);
    CHECK_STR(rec.events, "OCO");
    CHECK_INPUT(&rec, "abcd");
    CHECK_INT(client_sends("e"), 1);
    settle(&r);
    CHECK_INPUT(&rec, "abcde");
    calls()->event(fake.channel, SPICE_PORT_EVENT_CLOSED);
    settle(&r);
    CHECK_STR(rec.events, "OCOC");
    calls()->event(fake.channel, SPICE_PORT_EVENT_OPENED);
    calls()->event(fake.channel, SPICE_PORT_EVENT_BREAK);
    calls()->event(fake.channel, SPICE_PORT_EVENT_CLOSED);
    settle(&r);
    CHECK_STR(rec.events, "OCOCOBC");
    finish(&r, &rec);
}

/* A break of a client that sends nothing else is told on its own, each one. */
TEST(a_break_alone)
{
    recorder rec;
    rig      r;
    connect_port(&r, &rec, UNLIMITED);
    calls()->event(fake.channel, SPICE_PORT_EVENT_BREAK);
    CHECK_STR(rec.events, "O"); /* by the loop */
    settle(&r);
    CHECK_STR(rec.events, "OB");
    calls()->event(fake.channel, SPICE_PORT_EVENT_BREAK);
    settle(&r);
    CHECK_STR(rec.events, "OBB");
    CHECK_INT(rec.length, 0);
    finish(&r, &rec);
}

/* Behind a break nothing comes before it is told; then the server is asked for the rest. */
TEST(a_break_holds_what_is_behind_it)
{
    recorder rec;
    rig      r;
    connect_port(&r, &rec, 2);
    CHECK_INT(client_sends("abcd"), 4);
    calls()->event(fake.channel, SPICE_PORT_EVENT_BREAK);
    CHECK_INT(client_sends("ef"), 0);
    fake.has = "ef";
    fake.wakeups = 0;
    settle(&r);
    CHECK_INPUT(&rec, "ab");
    CHECK_STR(rec.events, "O");
    give_room(&rec, 1);
    settle(&r);
    CHECK_STR(rec.events, "O");
    CHECK_INT(fake.wakeups, 0);
    give_room(&rec, 1);
    settle(&r);
    CHECK_INPUT(&rec, "abcd");
    CHECK_STR(rec.events, "OB"); /* needs no room */
    give_room(&rec, UNLIMITED);
    settle(&r);
    CHECK_INPUT(&rec, "abcdef");
    CHECK_STR(rec.events, "OB");
    finish(&r, &rec);
}

/* More than fits stays in the server, which is woken up when there is room. */
TEST(input_that_does_not_fit)
{
    static char text[2 * BUFFER + 1001];
    recorder    rec;
    rig         r;
    size_t      i;
    connect_port(&r, &rec, 0);
    for (i = 0; i < sizeof text - 1; i++) text[i] = (char)('a' + i % 23);
    fake.has = text + client_sends(text);
    CHECK_INT(fake.has - text, BUFFER);
    CHECK_INT(client_sends("x"), 0);
    fake.wakeups = 0;
    settle(&r);
    CHECK_INT(fake.wakeups, 0);
    CHECK_INT(chr_loop_timeout(r.ctx) == 0, 0); /* it rests */
    give_room(&rec, 1000);
    settle(&r);
    CHECK_INT(rec.length, 1000);
    CHECK_INT(fake.wakeups, 0); /* not before all of it is gone */
    give_room(&rec, UNLIMITED);
    settle(&r);
    CHECK_MEM(rec.input, rec.length, text, sizeof text - 1);
    i = (size_t)fake.wakeups;
    settle(&r);
    CHECK_INT(fake.wakeups, i);
    calls()->event(fake.channel, SPICE_PORT_EVENT_CLOSED);
    settle(&r);
    CHECK_STR(rec.events, "OC");
    finish(&r, &rec);
}

/* The last input of a client that has gone is fetched before its end is told. */
TEST(the_end_waits_for_what_the_server_has)
{
    static char text[BUFFER + 2001];
    recorder    rec;
    rig         r;
    connect_port(&r, &rec, UNLIMITED);
    memset(text, 'x', sizeof text - 1);
    fake.has = text + client_sends(text);
    calls()->event(fake.channel, SPICE_PORT_EVENT_CLOSED);
    settle(&r);
    CHECK_INT(rec.length, BUFFER + 2000);
    CHECK_STR(rec.events, "OC");
    finish(&r, &rec);
}

/* ---- port events ------------------------------------------------------------------------------------------------------------------- */

TEST(events_for_the_client)
{
    int      on = 1, off = 0, size[2] = { 0, 0 };
    recorder rec;
    rig      r;
    open_context(&r);
    attach(&rec, make(&r, "spiceport,id=p,name=a"));
    settle(&r);
    CHECK_STR(fake.order, "O");
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on), CHR_ERR_DISCONNECTED);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, size), CHR_ERR_NOT_SUPPORTED);
    calls()->event(fake.channel, SPICE_PORT_EVENT_OPENED);
    settle(&r);
    CHECK_INT(chr_fe_write(&rec.fe, "before", 6), 6);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on), 0);
    CHECK_STR(fake.order, "OrB"); /* behind the bytes before it */
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &off), 0);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, size), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    chr_fe_set_open(&rec.fe, 0);
    CHECK_STR(fake.order, "OrBrC");
    chr_fe_set_open(&rec.fe, 1);
    CHECK_STR(fake.order, "OrBrCO");
    CHECK_STR(rec.events, "O");
    CHECK_STR(info_of(&rec).filename, "spiceport");
    CHECK_INT(info_of(&rec).comes_back, 1);
    finish(&r, &rec);
}

/* The callbacks hold the context's lock: other threads may write. */
#ifndef CHARDEV_NO_TRACE
static int unlocked, traced;

static void check_lock(void *opaque, const chr_trace *event)
{
    (void)opaque;
    if (strncmp(event->name, "spice_vmc_", 10) != 0) return;
    traced++;
    unlocked += private_locks(event->ctx) == 0;
}

TEST(callbacks_hold_the_lock)
{
    recorder rec;
    rig      r;
    uint8_t  bytes[10];
    rig_traced = check_lock;
    connect_port(&r, &rec, UNLIMITED);
    traced = unlocked = 0;
    CHECK_INT(client_sends("x"), 1);
    fake.chunk = 0;
    CHECK_INT(chr_fe_write(&rec.fe, "y", 1), 1);
    CHECK_INT(calls()->read(fake.channel, bytes, 10), 1);
    calls()->state(fake.channel, 0);
    calls()->event(fake.channel, SPICE_PORT_EVENT_OPENED);
    CHECK(traced >= 4);
    CHECK_INT(unlocked, 0);
    CHECK_INT(private_locks(r.ctx), 0);
    settle(&r);
    finish(&r, &rec);
}
#endif

#endif
