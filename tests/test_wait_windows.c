/*
 * Calls that block on Windows, while the owner thread closes the handle that they wait for: its number is reused at
 * once, and the wait must not use the new object. CreateEventW() is called where such a wait begins; here it lets the
 * owner run.
 */
#ifndef _WIN32
#include "test.h"

TEST(windows_only)
{
    SKIP("this is no Windows");
}
#else
#include <winsock2.h>
#include <windows.h>

static HANDLE gate_create_event(LPSECURITY_ATTRIBUTES attributes, BOOL is_manual, BOOL is_set, LPCWSTR name);

#define CreateEventW gate_create_event
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#undef CreateEventW

#include "rig.h"

#include <pthread.h>

/* `armed`: the thread that stands in it gives the owner this time to do its part. */
static volatile LONG gate_armed, gate_reached, gate_passed;

static HANDLE gate_create_event(LPSECURITY_ATTRIBUTES attributes, BOOL is_manual, BOOL is_set, LPCWSTR name)
{
    int i;
    if (InterlockedExchange(&gate_armed, 0)) {
        InterlockedExchange(&gate_reached, 1);
        for (i = 0; i < 300 && !gate_passed; i++) Sleep(1);
    }
    return CreateEventW(attributes, is_manual, is_set, name);
}

typedef struct blocked {
    chr_frontend *fe;
    int           result;
} blocked;

static void *read_one(void *opaque)
{
    blocked *b = (blocked *)opaque;
    char     byte;
    b->result = chr_fe_read_all(b->fe, &byte, 1, 400);
    return NULL;
}

static int on_change(void *opaque)
{
    (void)opaque;
    return 0;
}

static const chr_handlers swappable = { NULL, NULL, NULL, on_change };

/* What the owner makes next: auto-reset events that are signaled. A wait that finds one under the socket's number
 * takes the signal. */
enum { EVENTS = 32 };

static int closes_while_a_call_begins_to_wait(int is_swapped)
{
    HANDLE       events[EVENTS];
    chr_frontend fe;
    chr_error    err;
    pthread_t    thread;
    blocked      b;
    char         options[60];
    int          fds[2], i, taken = 0;
    rig          r;
    rig_open(&r);
    socket_pair(fds);
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    REQUIRE(chr_fe_init(&fe, make(&r, options), &err) == 0);
    chr_fe_set_handlers(&fe, &swappable, NULL);
    settle(&r);
    b.fe = &fe;
    b.result = 1;
    gate_reached = gate_passed = 0;
    gate_armed = 1;
    REQUIRE(pthread_create(&thread, NULL, read_one, &b) == 0);
    for (i = 0; i < 2000 && !gate_reached; i++) Sleep(1);
    CHECK(gate_reached);
    if (is_swapped) CHECK_INT(chr_change(r.ctx, "s", "ringbuf,size=64", &err), 0);
    else CHECK_INT(chr_fe_disconnect(&fe), 0);
    for (i = 0; i < EVENTS; i++) events[i] = CreateEventW(NULL, FALSE, TRUE, NULL);
    InterlockedExchange(&gate_passed, 1);
    pthread_join(thread, NULL);
    for (i = 0; i < EVENTS; i++) {
        taken += WaitForSingleObject(events[i], 0) != WAIT_OBJECT_0;
        CloseHandle(events[i]);
    }
    CHECK(b.result <= 0);
    close(fds[1]);
    chr_fe_deinit(&fe);
    chr_remove(r.ctx, "s", NULL);
    rig_close(&r);
    return taken;
}

TEST(a_blocked_call_takes_nothing_from_what_has_its_sockets_number_after_a_swap)
{
    CHECK_INT(closes_while_a_call_begins_to_wait(1), 0);
}

TEST(a_blocked_call_takes_nothing_from_what_has_its_sockets_number_after_a_disconnect)
{
    CHECK_INT(closes_while_a_call_begins_to_wait(0), 0);
}
#endif
