/*
 * Host names that a socket looks up, with the test's own resolver: which of several addresses are tried, in which
 * order, and what happens while the resolver is slow or fails.
 */
#include "chardev.h"
#include "fault.h"
#include "rig.h"

#include <arpa/inet.h>
#include <pthread.h>

/* ---- the resolver ------------------------------------------------------------------------------------------------ */

static struct {
    const char     *addresses; /* of any name, blanks between; NULL = there are none */
    int             reason;    /* of that */
    int             calls, numeric_calls;
    int             is_slow;   /* names wait until let_go() */
    pthread_mutex_t mutex;
    pthread_cond_t  went;
} resolver = { NULL, 0, 0, 0, 0, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER };

static struct addrinfo *new_address(const char *text, size_t len, const char *port, int family)
{
    char                 copy[80];
    struct addrinfo     *info = (struct addrinfo *)calloc(1, sizeof *info);
    struct sockaddr_in  *four = (struct sockaddr_in *)calloc(1, sizeof *four);
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)calloc(1, sizeof *six);
    snprintf(copy, sizeof copy, "%.*s", (int)len, text);
    if (inet_pton(AF_INET, copy, &four->sin_addr) == 1 && family != AF_INET6) {
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)atoi(port));
        info->ai_addr = (struct sockaddr *)four;
        info->ai_addrlen = sizeof *four;
        free(six);
        return info;
    }
    free(four);
    if (inet_pton(AF_INET6, copy, &six->sin6_addr) == 1 && family != AF_INET) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)atoi(port));
        info->ai_addr = (struct sockaddr *)six;
        info->ai_addrlen = sizeof *six;
        return info;
    }
    free(six);
    free(info);
    return NULL;
}

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list)
{
    struct addrinfo **last = list, *one = host ? new_address(host, strlen(host), port, hints->ai_family) : NULL;
    const char       *at;
    *list = one;
    if (one) return 0;
    if (hints->ai_flags & AI_NUMERICHOST && host) return resolver.numeric_calls++, EAI_NONAME;
    pthread_mutex_lock(&resolver.mutex);
    resolver.calls++;
    while (resolver.is_slow) pthread_cond_wait(&resolver.went, &resolver.mutex);
    for (at = resolver.addresses; at && *at; at += strcspn(at, " "), at += *at == ' ')
        if ((*last = new_address(at, strcspn(at, " "), port, hints->ai_family)) != NULL) last = &(*last)->ai_next;
    pthread_mutex_unlock(&resolver.mutex);
    return *list ? 0 : resolver.reason ? resolver.reason : EAI_NONAME;
}

void freeaddrinfo(struct addrinfo *list)
{
    while (list) {
        struct addrinfo *next = list->ai_next;
        free(list->ai_addr);
        free(list);
        list = next;
    }
}

static void let_go(void)
{
    pthread_mutex_lock(&resolver.mutex);
    resolver.is_slow = 0;
    pthread_cond_broadcast(&resolver.went);
    pthread_mutex_unlock(&resolver.mutex);
}

static int calls(void)
{
    int count;
    pthread_mutex_lock(&resolver.mutex);
    count = resolver.calls;
    pthread_mutex_unlock(&resolver.mutex);
    return count;
}

/* ---- servers ----------------------------------------------------------------------------------------------------- */

static char *optionsf(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *optionsf(const char *format, ...)
{
    static char text[600];
    va_list     args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return text;
}

static const char *address_of(const chr_dev *dev)
{
    static chr_info info;
    chr_query(dev, &info);
    return info.address;
}

static int port_of(const chr_dev *dev) { return atoi(strrchr(address_of(dev), ':') + 1); }

/* Where a server listens, without its port. */
static const char *listens_at(rig *r, const char *host, const char *addresses)
{
    static char text[100];
    chr_dev    *dev;
    resolver.addresses = addresses;
    dev = make(r, optionsf("socket,id=s,host=%s,port=0,server=on,wait=off", host));
    snprintf(text, sizeof text, "%s", address_of(dev));
    REQUIRE(strrchr(text, ':') != NULL);
    *strrchr(text, ':') = 0;
    CHECK_INT(chr_remove(r->ctx, "s", NULL), 0);
    return text;
}

/* Of all interfaces those of IPv6 come first, for they are those of IPv4 too, whatever the order of the resolver is. */
TEST(all_interfaces_are_those_of_ipv6)
{
    rig r;
    if (!has_ipv6_loopback()) SKIP("this machine has no IPv6");
    rig_open(&r);
    CHECK_STR(listens_at(&r, "", "0.0.0.0"), "0.0.0.0");
    CHECK_STR(listens_at(&r, "", "0.0.0.0 ::"), "[::]");
    CHECK_STR(listens_at(&r, "", ":: 0.0.0.0"), "[::]");
    CHECK_STR(listens_at(&r, "", "0.0.0.0 127.0.0.1 ::"), "[::]");
    CHECK_STR(listens_at(&r, "", "127.0.0.1 ::1 ::"), "[::1]");
    CHECK_STR(listens_at(&r, "", "::1 :: 0.0.0.0"), "[::1]");
    CHECK_STR(listens_at(&r, "", "127.0.0.1 0.0.0.0"), "127.0.0.1");
    CHECK_STR(listens_at(&r, "name", "127.0.0.1 ::1"), "127.0.0.1"); /* those of a name stay as they are */
    CHECK_STR(listens_at(&r, "name", "::1 127.0.0.1"), "[::1]");
    rig_close(&r);
}

TEST(a_server_takes_the_first_address_that_it_can_have)
{
    chr_error err;
    int       port, taken, i;
    rig       r;
    rig_open(&r);
    CHECK_STR(listens_at(&r, "name", "203.0.113.1 127.0.0.1"), "127.0.0.1");
    CHECK_STR(listens_at(&r, "name", "127.0.0.1 203.0.113.1"), "127.0.0.1");
    CHECK_STR(listens_at(&r, "name", "203.0.113.1 203.0.113.2 127.0.0.3 127.0.0.1"), "127.0.0.3");
    resolver.addresses = "203.0.113.1 203.0.113.2";
    CHECK(refuse(&r, "socket,id=s,host=name,port=0,server=on,wait=off", &err) < 0);
    CHECK_HAS(err.text, "cannot listen on name:0");
    resolver.addresses = NULL;
    CHECK_INT(refuse(&r, "socket,id=s,host=name,port=0,server=on,wait=off", &err), CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, "cannot look up name:0");
    resolver.reason = EAI_MEMORY;
    CHECK_INT(refuse(&r, "socket,id=s,host=name,port=0,server=on,wait=off", &err), CHR_ERR_NO_MEMORY);
    resolver.reason = 0;
    taken = tcp_listen(&port);
    resolver.addresses = "127.0.0.1 127.0.0.2"; /* the port is taken at the first one */
    make(&r, optionsf("socket,id=s,host=name,port=%d,server=on,wait=off", port));
    CHECK_STR(address_of(chr_find(r.ctx, "s")), optionsf("127.0.0.2:%d", port));
    for (i = 1; i < 3; i++) { /* with to= the ports of the first one come first */
        chr_dev *dev = make(&r, optionsf("socket,id=t%d,host=name,port=%d,to=%d,server=on,wait=off", i, port, port + 30 < 65536 ? port + 30 : 65535));
        CHECK_HAS(address_of(dev), "127.0.0.1:");
        CHECK(port_of(dev) > port);
    }
    close(taken);
    rig_close(&r);
}

/* Only a port that is taken makes it try the next one. */
TEST(ports_are_tried_while_they_are_taken)
{
    chr_error err;
    int       port, taken = tcp_listen(&port), last = port + 30 < 65536 ? port + 30 : 65535;
    rig       r;
    rig_open(&r);
    fault_arm(FAULT_bind, EACCES, 1, 1);
    CHECK(!chr_new(r.ctx, optionsf("socket,id=s,host=127.0.0.1,port=%d,to=%d,server=on,wait=off", port, last), &err));
    CHECK_INT(fault_plan.counts[FAULT_bind], 1);
    CHECK_INT(err.code, CHR_ERR_PERMISSION);
    resolver.addresses = "127.0.0.1 127.0.0.2";
    fault_arm(FAULT_bind, EACCES, 1, 1);
    CHECK(!chr_new(r.ctx, optionsf("socket,id=s,host=name,port=%d,to=%d,server=on,wait=off", port, last), &err));
    CHECK_INT(fault_plan.counts[FAULT_bind], 2);
    fault_arm(FAULT_bind, EADDRINUSE, 1, 1);
    CHECK(!chr_new(r.ctx, optionsf("socket,id=s,host=name,port=%d,to=%d,server=on,wait=off", port, port + 2), &err));
    CHECK_INT(fault_plan.counts[FAULT_bind], 6);
    CHECK_INT(err.code, CHR_ERR_EXISTS);
    fault_arm(FAULT_bind, EADDRINUSE, 1, 1);
    CHECK(!chr_new(r.ctx, optionsf("socket,id=s,host=name,port=%d,server=on,wait=off", port), &err));
    CHECK_INT(fault_plan.counts[FAULT_bind], 2);
    fault_disarm();
    close(taken);
    r.fds--;
    rig_close(&r);
}

/* ---- clients ----------------------------------------------------------------------------------------------------- */

TEST(a_client_tries_one_address_after_the_other)
{
    static const struct { const char *addresses; int reaches; } cases[] = {
        { "127.0.0.1", 1 }, { "127.0.0.2 127.0.0.1", 1 }, { "127.0.0.2 127.0.0.3 127.0.0.1", 1 }, { "127.0.0.1 127.0.0.2", 1 }, { "127.0.0.2 127.0.0.3", 0 },
        { "127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 "
          "127.0.0.2 127.0.0.2 127.0.0.1", 1 }, /* the sixteenth, */
        { "127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.2 "
          "127.0.0.2 127.0.0.2 127.0.0.2 127.0.0.1", 0 }, /* and no more */
    };
    size_t i;
    int    port, listener = tcp_listen(&port), blocks;
    for (i = 0; i < sizeof cases / sizeof *cases; i++)
        for (blocks = 0; blocks < 2; blocks++) {
            chr_error err;
            recorder  rec;
            chr_dev  *dev;
            rig       r;
            rig_open(&r);
            resolver.addresses = cases[i].addresses;
            dev = chr_new(r.ctx, optionsf("socket,id=c,host=name,port=%d%s", port, blocks ? "" : ",reconnect-ms=1000000"), &err);
            if (!CHECK_INT(dev != NULL, !blocks || cases[i].reaches)) NOTE("for %s", cases[i].addresses);
            if (!dev) CHECK_HAS(err.text, optionsf("name:%d", port));
            if (dev) attach(&rec, dev);
            if (dev) PUMP(&r, cases[i].reaches ? rec.open : r.logs > 0);
            if (dev && !cases[i].reaches) CHECK_HAS(r.log, optionsf("name:%d", port));
            if (dev) detach(&rec);
            if (cases[i].reaches) close(accept(listener, NULL, NULL));
            chr_context_free(r.ctx);
            CHECK_INT(r.live, 0);
        }
    close(listener);
}

/* Each attempt asks anew: a host may have moved meanwhile. */
TEST(each_attempt_looks_the_name_up)
{
    int      port, listener = tcp_listen(&port), before;
    recorder rec;
    rig      r;
    rig_open(&r);
    resolver.addresses = "127.0.0.2";
    attach(&rec, make(&r, optionsf("socket,id=c,host=name,port=%d,reconnect-ms=5", port)));
    PUMP(&r, calls() >= 3);
    CHECK_STR(rec.events, "");
    CHECK_INT(r.logs, 1);
    resolver.addresses = "127.0.0.1";
    PUMP(&r, rec.open);
    before = calls();
    settle(&r);
    CHECK_INT(calls(), before); /* and then no more */
    detach(&rec);
    chr_context_free(r.ctx);
    CHECK_INT(r.live, 0);
    close(listener);
}

/* Neither creation nor the loop waits for a resolver that takes its time; removal and disconnect do without its
 * answer. */
TEST(a_slow_resolver_stops_nobody)
{
    int      port, listener = tcp_listen(&port), i;
    recorder rec;
    rig      r;
    rig_open_virtual(&r);
    resolver.addresses = "127.0.0.1";
    resolver.is_slow = 1;
    attach(&rec, make(&r, optionsf("socket,id=c,host=name,port=%d,reconnect-ms=100", port)));
    PUMP(&r, calls() == 1);
    for (i = 0; i < 10; i++) pass_time(&r, 100);
    CHECK_INT(calls(), 1); /* there is one attempt at a time */
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    CHECK_INT(chr_fe_disconnect(&rec.fe), 0); /* another one, after the time */
    settle(&r);
    CHECK_INT(calls(), 1);
    pass_time(&r, 99);
    CHECK_INT(calls(), 1);
    pass_time(&r, 1);
    PUMP(&r, calls() == 2);
    CHECK_STR(rec.events, "");
    let_go();
    PUMP(&r, rec.open);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    i = accept(listener, NULL, NULL);
    CHECK_INT(drain(&r, i, 1), 1);
    close(i);
    fcntl(listener, F_SETFL, O_NONBLOCK);
    CHECK(accept(listener, NULL, NULL) < 0); /* the first answer came too late */
    resolver.is_slow = 1;
    PUMP(&r, !rec.open);
    pass_time(&r, 100);
    PUMP(&r, calls() == 3);
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "c", NULL), 0);
    let_go();
    for (i = 0; i < 1000 && count_fds() > r.fds + 2; i++) usleep(10000); /* the thread closes what is its own */
    close(listener);
    r.fds--;
    chr_context_free(r.ctx);
    CHECK_INT(r.live, 0);
}

/* A call that blocks joins a lookup that is under way, and begins one where there is none. */
TEST(who_waits_joins_the_lookup)
{
    chr_error err;
    chr_dev  *dev;
    pthread_t other;
    int       port, listener = tcp_listen(&port);
    rig       r;
    rig_open_virtual(&r);
    resolver.addresses = "127.0.0.1";
    resolver.is_slow = 1;
    dev = make(&r, optionsf("socket,id=c,host=name,port=%d,reconnect-ms=100000", port));
    PUMP(&r, calls() == 1);
    pthread_create(&other, NULL, (void *(*)(void *))(void (*)(void))let_go, NULL);
    CHECK_INT(chr_wait_connected(dev, &err), 0);
    pthread_join(other, NULL);
    CHECK_INT(calls(), 1);
    close(accept(listener, NULL, NULL));
    close(listener);
    PUMP(&r, chr_loop_step(r.ctx, 1) == 0 && chr_loop_timeout(r.ctx) > 0); /* it is closed, and waits */
    resolver.addresses = NULL;
    r.now += INT64_C(100000) * 1000000;
    CHECK_INT(chr_remove(r.ctx, "c", NULL), 0);
    chr_context_free(r.ctx);
    CHECK_INT(r.live, 0);
}

/* What finds no memory fails this attempt; the next one does better. */
TEST(a_lookup_without_memory_is_one_that_failed)
{
    int port, listener = tcp_listen(&port), n, failures = 0, how, fd;
    fcntl(listener, F_SETFL, O_NONBLOCK); /* no connection stays in its backlog */
    for (how = 0; how < 2; how++)
        for (n = 1; n < 300; n++) {
            chr_error err;
            recorder  rec;
            chr_dev  *dev;
            rig       r;
            rig_open_virtual(&r);
            resolver.addresses = "127.0.0.1";
            r.fail_at = r.calls + n;
            dev = chr_new(r.ctx, optionsf("socket,id=c,host=%s,port=%d,reconnect-ms=100", how ? "name" : "127.0.0.1", port), &err);
            if (!dev) CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
            if (dev) attach(&rec, dev);
            if (dev) PUMP(&r, rec.open || r.logs);
            r.fail_at = 0;
            if (dev && r.logs) {
                failures++;
                CHECK_HAS(r.log, "memory");
                pass_time(&r, 100);
                PUMP(&r, rec.open);
            }
            while ((fd = accept(listener, NULL, NULL)) >= 0) close(fd);
            if (dev) detach(&rec);
            if (!r.failed) n = 1000;
            chr_context_free(r.ctx);
            CHECK_INT(r.live, 0);
        }
    CHECK(n >= 1000);
    CHECK(failures > 0);
    close(listener);
}
