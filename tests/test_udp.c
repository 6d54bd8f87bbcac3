/*
 * udp: datagrams to and from one peer. The far side is a plain socket on the loopback interface, where sent datagrams
 * arrive at once.
 */
#include "chardev.h"
#include "rig.h"

#include <arpa/inet.h>

/* A datagram socket on 127.0.0.1 (or ::1) and its port. */
static int far_socket(int family, int *port)
{
    struct sockaddr_storage address;
    struct sockaddr_in     *v4 = (struct sockaddr_in *)&address;
    struct sockaddr_in6    *v6 = (struct sockaddr_in6 *)&address;
    socklen_t               len = sizeof address;
    int                     fd = socket(family, SOCK_DGRAM, 0);

    memset(&address, 0, sizeof address);
    address.ss_family = (sa_family_t)family;
    if (family == AF_INET) v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else v6->sin6_addr = in6addr_loopback;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, family == AF_INET ? sizeof *v4 : sizeof *v6) < 0) return -1;
    REQUIRE(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    *port = ntohs(family == AF_INET ? v4->sin_port : v6->sin6_port);
    return fd;
}

static int far_at(int port)
{
    struct sockaddr_in address;
    int                fd = socket(AF_INET, SOCK_DGRAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)port);
    REQUIRE(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

/* The port that a chardev sends from. */
static int port_of(const chr_dev *dev)
{
    chr_info info;
    chr_query(dev, &info);
    REQUIRE(strrchr(info.address, ':') != NULL);
    return atoi(strrchr(info.address, ':') + 1);
}

static void far_connect(int far, int port)
{
    struct sockaddr_in address;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)port);
    REQUIRE(connect(far, (struct sockaddr *)&address, sizeof address) == 0);
}

/* A chardev, its recorder with that much room, and the far socket, connected to each other. */
static int udp_pair(rig *r, recorder *rec, int room)
{
    char options[100];
    int  port, far;
    rig_open(r);
    far = far_socket(AF_INET, &port);
    REQUIRE(far >= 0);
    snprintf(options, sizeof options, "udp,id=u,host=127.0.0.1,port=%d", port);
    attach_with_room(rec, make(r, options), room);
    far_connect(far, port_of(rec->fe.dev));
    settle(r);
    return far;
}

static void end_pair(rig *r, recorder *rec, int far)
{
    detach(rec);
    close(far);
    rig_close(r);
}

static char *pattern(size_t len, unsigned seed)
{
    char  *data = (char *)malloc(len + 1);
    size_t i;
    REQUIRE(data != NULL);
    for (i = 0; i < len; i++) data[i] = (char)(seed = seed * 1103515245 + 12345, seed >> 16);
    return data;
}

TEST(udp_open_from_creation)
{
    recorder rec;
    rig      r;
    int      far = udp_pair(&r, &rec, UNLIMITED);
    CHECK_STR(rec.events, "O");
    CHECK_INT(chr_fe_backend_open(&rec.fe), 1);
    close(far);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    settle(&r);
    CHECK_STR(rec.events, "O"); /* no connection, so no CLOSED */
    detach(&rec);
    rig_close(&r);
}

TEST(udp_one_write_is_one_datagram)
{
    char     got[100];
    recorder rec;
    rig      r;
    int      far = udp_pair(&r, &rec, UNLIMITED);
    CHECK_INT(chr_fe_write(&rec.fe, "one", 3), 3);
    CHECK_INT(chr_fe_write(&rec.fe, "three", 5), 5);
    CHECK_INT(chr_fe_write_all(&rec.fe, "all", 3, 1000), 3);
    CHECK_INT(recv(far, got, sizeof got, MSG_DONTWAIT), 3);
    CHECK_INT(recv(far, got, sizeof got, MSG_DONTWAIT), 5);
    CHECK_MEM(got, 5, "three", 5);
    CHECK_INT(recv(far, got, sizeof got, MSG_DONTWAIT), 3);
    CHECK_INT(recv(far, got, sizeof got, MSG_DONTWAIT), -1);
    end_pair(&r, &rec, far);
}

TEST(udp_largest_and_larger)
{
    char    *data = pattern(70000, 1), *got = (char *)malloc(70000);
    recorder rec;
    rig      r;
    int      far = udp_pair(&r, &rec, UNLIMITED);
    CHECK_INT(chr_fe_write(&rec.fe, data, 65507), 65507);
    CHECK_MEM(got, recv(far, got, 70000, MSG_DONTWAIT), data, 65507);
    CHECK_INT(chr_fe_write(&rec.fe, data, 65508), 65507); /* what a datagram holds */
    CHECK_INT(recv(far, got, 70000, MSG_DONTWAIT), 65507);
    CHECK_INT(chr_fe_write_all(&rec.fe, data, 70000, 1000), 70000);
    CHECK_INT(recv(far, got, 70000, MSG_DONTWAIT), 65507);
    CHECK_MEM(got, recv(far, got, 70000, MSG_DONTWAIT), data + 65507, 70000 - 65507);
    CHECK_INT(send(far, data, 65507, 0), 65507);
    PUMP(&r, rec.length == 65507);
    CHECK_MEM(rec.input, rec.length, data, 65507);
    end_pair(&r, &rec, far);
    free(data), free(got);
}

/* A frontend that takes one byte, three, or none for a while: every byte is delivered, in order, and never more than
 * it has room for. */
static void takes_pieces(const void *arg)
{
    int      room = *(const int *)arg, i;
    char    *data = pattern(5000, 2);
    size_t   sent = 0;
    recorder rec;
    rig      r;
    int      far = udp_pair(&r, &rec, 0);
    for (i = 0; i < 5; i++) {
        size_t len = (size_t)(i + 1) * 333;
        CHECK_INT(send(far, data + sent, len, 0), (long long)len);
        sent += len;
    }
    settle(&r);
    CHECK_INT(rec.length, 0);
    for (i = 0; i < 10000 && rec.length < sent; i++) {
        give_room(&rec, room);
        settle(&r);
        if (rec.room < 0) break;
    }
    CHECK_MEM(rec.input, rec.length, data, sent);
    CHECK_STR(rec.events, "O");
    end_pair(&r, &rec, far);
    free(data);
}

TEST_FAMILY(takes_pieces)
{
    static const int rooms[] = { 1, 3, 16, 332, 333, 334, 4096 };
    char             name[60];
    size_t           i;
    for (i = 0; i < sizeof rooms / sizeof rooms[0]; i++) {
        snprintf(name, sizeof name, "udp_frontend_takes_%d_bytes_at_a_time", rooms[i]);
        test_add_case(name, takes_pieces, &rooms[i], TEST_SECONDS);
    }
}

/* The rest of a datagram is delivered though poll() reports nothing; without chr_fe_accept_input() too. */
TEST(udp_rest_comes_when_room_comes_silently)
{
    recorder rec;
    rig      r;
    int      far = udp_pair(&r, &rec, 2);
    CHECK_INT(send(far, "abcdef", 6, 0), 6);
    PUMP(&r, rec.length == 2);
    rec.room = 3;
    PUMP(&r, rec.length == 5);
    rec.room = 100;
    PUMP(&r, rec.length == 6);
    CHECK_INPUT(&rec, "abcdef");
    end_pair(&r, &rec, far);
}

static int reads;

static void count_reads(recorder *rec, int what)
{
    (void)rec;
    reads += what == 'r';
}

TEST(udp_datagrams_that_fit_come_whole)
{
    recorder rec;
    rig      r;
    int      far = udp_pair(&r, &rec, UNLIMITED);
    rec.then = count_reads;
    reads = 0;
    send(far, "first", 5, 0), send(far, "second", 6, 0), send(far, "3", 1, 0);
    PUMP(&r, rec.length == 12);
    CHECK_INT(reads, 3);
    end_pair(&r, &rec, far);
}

TEST(udp_empty_datagrams_change_nothing)
{
    int      i;
    recorder rec;
    rig      r;
    int      far = udp_pair(&r, &rec, UNLIMITED);
    for (i = 0; i < 200; i++) CHECK_INT(send(far, "", 0, 0), 0);
    CHECK_INT(send(far, "after", 5, 0), 5);
    PUMP(&r, rec.length == 5);
    CHECK_INT(send(far, "", 0, 0), 0);
    settle(&r);
    CHECK_INT(send(far, "again", 5, 0), 5);
    PUMP(&r, rec.length == 10);
    CHECK_STR(rec.events, "O");
    end_pair(&r, &rec, far);
}

/* Nothing listens at the port: every write is sent nevertheless, the chardev stays open, there is no busy loop, and
 * a later peer is received. */
static void refusals(const void *arg)
{
    int      room = *(const int *)arg, i, port, stepped = 0;
    char     got[20];
    recorder rec;
    rig      r;
    int      far = udp_pair(&r, &rec, room);
    struct sockaddr_in address;
    socklen_t          len = sizeof address;
    REQUIRE(getsockname(far, (struct sockaddr *)&address, &len) == 0);
    port = ntohs(address.sin_port);
    close(far);
    for (i = 0; i < 10; i++) {
        CHECK_INT(chr_fe_write(&rec.fe, "lost", 4), 4);
        if (i % 2) settle(&r);
    }
    for (i = 0; i < 20; i++) stepped += chr_loop_step(r.ctx, 5) > 0;
    CHECK(stepped <= 1);
    CHECK_STR(rec.events, "O");
    far = far_at(port);
    far_connect(far, port_of(rec.fe.dev));
    CHECK_INT(chr_fe_write(&rec.fe, "heard", 5), 5);
    CHECK_INT(recv(far, got, sizeof got, MSG_DONTWAIT), 5);
    CHECK_INT(send(far, "back", 4, 0), 4);
    settle(&r);
    give_room(&rec, UNLIMITED);
    PUMP(&r, rec.length == 4);
    CHECK_INPUT(&rec, "back");
    end_pair(&r, &rec, far);
}

TEST_FAMILY(refusals)
{
    static const int rooms[] = { UNLIMITED, 0 };
    test_add_case("udp_refusals_are_survived", refusals, &rooms[0], TEST_SECONDS);
    test_add_case("udp_refusals_are_survived_by_a_full_frontend", refusals, &rooms[1], TEST_SECONDS);
}

/* A refusal while the rest of a datagram waits: neither is lost, and a loop without room does not spin. */
TEST(udp_refusal_with_a_rest_held)
{
    int       i, stepped = 0, port;
    recorder  rec;
    rig       r;
    int       far = udp_pair(&r, &rec, 2);
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    REQUIRE(getsockname(far, (struct sockaddr *)&address, &len) == 0);
    port = ntohs(address.sin_port);
    send(far, "abcdef", 6, 0);
    send(far, "ghi", 3, 0);
    PUMP(&r, rec.length == 2);
    close(far);
    for (i = 0; i < 4; i++) CHECK_INT(chr_fe_write(&rec.fe, "lost", 4), 4);
    for (i = 0; i < 20; i++) stepped += chr_loop_step(r.ctx, 2) > 0;
    CHECK(stepped <= 2);
    give_room(&rec, UNLIMITED);
    PUMP(&r, rec.length == 9);
    CHECK_INPUT(&rec, "abcdefghi");
    far = far_at(port);
    far_connect(far, port_of(rec.fe.dev));
    send(far, "j", 1, 0);
    PUMP(&r, rec.length == 10);
    CHECK_STR(rec.events, "O");
    end_pair(&r, &rec, far);
}

/* A refusal that is noticed while there is no room for what came before it: whoever is at the port then is written to. */
TEST(udp_refusal_is_not_the_end_of_writing)
{
    int       i, port, room;
    recorder  rec;
    rig       r;
    for (room = 0; room < 2; room++) {
        int far = udp_pair(&r, &rec, room);
        struct sockaddr_in address;
        socklen_t len = sizeof address;
        REQUIRE(getsockname(far, (struct sockaddr *)&address, &len) == 0);
        port = ntohs(address.sin_port);
        send(far, "abc", 3, 0);
        PUMP(&r, rec.length == (size_t)room);
        close(far);
        CHECK_INT(chr_fe_write(&rec.fe, "lost", 4), 4);
        for (i = 0; i < 3; i++) chr_loop_step(r.ctx, 2);
        chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
        for (i = 0; i < 3; i++) chr_loop_step(r.ctx, 2);
        far = far_at(port);
        far_connect(far, port_of(rec.fe.dev));
        CHECK_INT(chr_fe_write(&rec.fe, "heard", 5), 5);
        CHECK_STR(hear(far), "heard");
        give_room(&rec, UNLIMITED);
        PUMP(&r, rec.length == 3);
        CHECK_INPUT(&rec, "abc");
        CHECK_STR(rec.events, "O");
        end_pair(&r, &rec, far);
    }
}

/* Datagrams of anybody but the peer don't reach the guest. */
TEST(udp_strangers_are_not_heard)
{
    int      port, stranger = far_socket(AF_INET, &port);
    recorder rec;
    rig      r;
    int      far = udp_pair(&r, &rec, UNLIMITED);
    far_connect(stranger, port_of(rec.fe.dev));
    (void)send(stranger, "intruder", 8, 0);
    (void)send(stranger, "intruder", 8, 0);
    CHECK_INT(send(far, "peer", 4, 0), 4);
    PUMP(&r, rec.length == 4);
    settle(&r);
    CHECK_INPUT(&rec, "peer");
    close(stranger);
    r.fds--; /* it was open when the rig counted */
    end_pair(&r, &rec, far);
}

TEST(udp_no_handlers_no_reading)
{
    recorder rec;
    rig      r;
    int      far = udp_pair(&r, &rec, UNLIMITED), i;
    chr_fe_set_handlers(&rec.fe, NULL, NULL);
    settle(&r);
    for (i = 0; i < 5; i++) send(far, "kept", 4, 0);
    CHECK_INT(chr_loop_step(r.ctx, 20), 0);
    listen_to(&rec);
    PUMP(&r, rec.length == 20);
    end_pair(&r, &rec, far);
}

TEST(udp_read_all)
{
    char     got[20];
    recorder rec;
    rig      r;
    int      far = udp_pair(&r, &rec, UNLIMITED);
    send(far, "abcde", 5, 0), send(far, "", 0, 0), send(far, "fgh", 3, 0);
    CHECK_INT(chr_fe_read_all(&rec.fe, got, 3, 1000), 3);
    CHECK_INT(chr_fe_read_all(&rec.fe, got + 3, 4, 1000), 4);
    CHECK_MEM(got, 7, "abcdefg", 7);
    CHECK_INT(chr_fe_read_all(&rec.fe, got, 2, 30), 1);
    CHECK_INT(chr_fe_read_all(&rec.fe, got, 1, 30), CHR_ERR_TIMEOUT);
    end_pair(&r, &rec, far);
}

TEST(udp_local_address_and_port)
{
    char                options[200], got[20];
    int                 port, local, placeholder = far_socket(AF_INET, &local), far = far_socket(AF_INET, &port);
    struct sockaddr_in  from;
    socklen_t           len = sizeof from;
    chr_info            info;
    chr_error           err;
    recorder            rec;
    rig                 r;
    rig_open(&r);
    snprintf(options, sizeof options, "udp,id=u,host=127.0.0.1,port=%d,localaddr=127.0.0.1,localport=%d", port, local);
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_EXISTS); /* somebody has it: datagrams are never stolen */
    CHECK_HAS(err.text, "127.0.0.1");
    close(placeholder);
    r.fds--;
    attach(&rec, make(&r, options));
    chr_query(rec.fe.dev, &info);
    snprintf(options, sizeof options, "udp:127.0.0.1:%d@127.0.0.1:%d", port, local);
    CHECK_STR(info.filename, options);
    CHECK_INT(info.comes_back, 0);
    CHECK_INT(chr_fe_write(&rec.fe, "hi", 2), 2);
    CHECK_INT(recvfrom(far, got, sizeof got, MSG_DONTWAIT, (struct sockaddr *)&from, &len), 2);
    CHECK_INT(ntohs(from.sin_port), local);
    close(far);
    r.fds--;
    detach(&rec);
    rig_close(&r);
}

TEST(udp_ipv6)
{
    char     options[100], got[20];
    int      port, far = far_socket(AF_INET6, &port);
    chr_info info;
    recorder rec;
    rig      r;
    if (far < 0) SKIP("no IPv6 loopback address here");
    rig_open(&r);
    snprintf(options, sizeof options, "udp,id=u,host=::1,port=%d,localport=0", port);
    attach(&rec, make(&r, options));
    chr_query(rec.fe.dev, &info);
    snprintf(options, sizeof options, "udp:[::1]:%d@[::1]:", port);
    CHECK_HAS(info.filename, options);
    CHECK_INT(chr_fe_write(&rec.fe, "six", 3), 3);
    CHECK_INT(recv(far, got, sizeof got, MSG_DONTWAIT), 3);
    detach(&rec);
    close(far);
    r.fds--;
    rig_close(&r);
}

/* One that receives from IPv6 leaves its port free for one of IPv4. */
TEST(udp_of_both_families_on_one_port)
{
    chr_error err;
    char      options[200];
    int       port, fd = socket(AF_INET6, SOCK_DGRAM, 0);
    struct sockaddr_in6 address;
    socklen_t length = sizeof address;
    rig       r;
    memset(&address, 0, sizeof address);
    address.sin6_family = AF_INET6;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0) SKIP("this machine has no IPv6");
    REQUIRE(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    port = ntohs(address.sin6_port);
    close(fd);
    rig_open(&r);
    snprintf(options, sizeof options, "udp,id=six,host=::1,port=9,localport=%d", port);
    make(&r, options);
    snprintf(options, sizeof options, "udp,id=four,host=127.0.0.1,port=9,localport=%d", port);
    if (!CHECK(chr_new(r.ctx, options, &err) != NULL)) NOTE("%s", err.text);
    rig_close(&r);
}

/* localhost has an address of each family: ipv4 and ipv6 choose. */
TEST(udp_family_is_chosen)
{
    static const struct {
        const char *options, *filename;
        int         family;
    } rows[] = {
        { "ipv4=on", "udp:127.0.0.1:", AF_INET },      { "ipv6=off", "udp:127.0.0.1:", AF_INET },
        { "ipv6=on", "udp:[::1]:", AF_INET6 },         { "ipv4=off", "udp:[::1]:", AF_INET6 },
        { "localaddr=127.0.0.1", "udp:127.0.0.1:", AF_INET }, /* of our own address only one family goes */
    };
    char     options[100];
    chr_info info;
    chr_dev *dev;
    size_t   i;
    int      port, probe = far_socket(AF_INET6, &port);
    rig      r;
    if (probe < 0) SKIP("no IPv6 loopback address here");
    close(probe);
    NEED_LOCALHOST();
    rig_open(&r);
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        chr_error err;
        snprintf(options, sizeof options, "udp,id=u,port=9,%s", rows[i].options);
        dev = chr_new(r.ctx, options, &err);
        if (!dev && rows[i].family == AF_INET6) continue; /* /etc/hosts may name IPv4 only */
        if (!CHECK(dev != NULL)) NOTE("%s: %s", options, err.text);
        if (!dev) continue;
        chr_query(dev, &info);
        CHECK_HAS(info.filename, rows[i].filename);
        CHECK_INT(chr_remove(r.ctx, "u", &err), 0);
    }
    rig_close(&r);
}

TEST(udp_uri)
{
    static const struct {
        const char *uri, *filename;
    } rows[] = {
        { "udp:127.0.0.1:9", "udp:127.0.0.1:9@127.0.0.1:" },
        { "udp:127.0.0.1:9,ipv4=on", "udp:127.0.0.1:9@127.0.0.1:" },
        { "udp:127.0.0.1:discard", "udp:127.0.0.1:9@" },
        { "udp::9,ipv4=on", "udp:127.0.0.1:9@" },
        { "udp:127.0.0.1:9@127.0.0.1:%d", "udp:127.0.0.1:9@127.0.0.1:%d" },
        { "udp:127.0.0.1:9@:%d", "udp:127.0.0.1:9@127.0.0.1:%d" },
        { "udp:127.0.0.1:9@:", "udp:127.0.0.1:9@127.0.0.1:" },
        { "udp:[::1]:9@[::1]:%d", "udp:[::1]:9@[::1]:%d" },
    };
    char      uri[100], filename[100];
    chr_error err;
    chr_info  info;
    chr_dev  *dev;
    size_t    i;
    int       port;
    rig       r;
    close(far_socket(AF_INET, &port)); /* a number that is free */
    rig_open(&r);
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (i == 3 && !localhost_resolves()) continue;
        if (i == 7 && !has_ipv6_loopback()) continue;
        snprintf(uri, sizeof uri, rows[i].uri, port);
        snprintf(filename, sizeof filename, rows[i].filename, port);
        dev = chr_new_uri(r.ctx, "u", uri, &err);
        if (!dev && i == 2) continue; /* no /etc/services */
        if (!CHECK(dev != NULL)) NOTE("%s: %s", uri, err.text);
        if (!dev) continue;
        chr_query(dev, &info);
        if (!CHECK(strncmp(info.filename, filename, strlen(filename)) == 0)) NOTE("%s: %s", uri, info.filename);
        CHECK_INT(chr_remove(r.ctx, "u", &err), 0);
    }
    CHECK(chr_new_uri(r.ctx, "u", "udp:nowhere", &err) == NULL);
    CHECK_HAS(err.text, "port");
    CHECK(chr_new_uri(r.ctx, "u", "udp:127.0.0.1,ipv4=on", &err) == NULL);
    CHECK_HAS(err.text, "port");
    CHECK(chr_new_uri(r.ctx, "u", "udp:127.0.0.1:9,ipv4=off,ipv6=off", &err) == NULL); /* what stands behind it counts */
    CHECK_HAS(err.text, "family");
    CHECK(chr_new_uri(r.ctx, "u", "udp:127.0.0.1:9@:0,ipv4=off,ipv6=off", &err) == NULL);
    CHECK_HAS(err.text, "family");
    CHECK(chr_new_uri(r.ctx, "u", "udp:127.0.0.1:9,nothing=on", &err) == NULL);
    CHECK_HAS(err.text, "nothing");
    rig_close(&r);
}

TEST(udp_options_that_are_none)
{
    static const struct {
        const char *options, *word;
    } rows[] = {
        { "udp,id=u", "port" },
        { "udp,id=u,host=127.0.0.1,port=0", "port=0" },
        { "udp,id=u,host=127.0.0.1,port=65536", "65536" },
        { "udp,id=u,host=127.0.0.1,port=9,localport=-1", "localport=-1" },
        { "udp,id=u,host=127.0.0.1,port=1x", "1x" },
        { "udp,id=u,port=9,ipv4=off,ipv6=off", "family" },
        { "udp,id=u,host=127.0.0.1,port=9,ipv6=on", "127.0.0.1" },
        { "udp,id=u,host=127.0.0.1,port=9,localaddr=::1", "IPv" },
        { "udp,id=u,host=127.0.0.1,port=9,ipv4=on,localaddr=::1", "::1" },
#ifndef _WIN32 /* Wine takes a local address that there is not */
        { "udp,id=u,host=127.0.0.1,port=9,localaddr=192.0.2.77", "192.0.2.77" },
#endif
        { "udp,id=u,host=127.0.0.1,port=9,server=on", "server" },
    };
    chr_error err;
    size_t    i;
    rig       r;
    rig_open(&r);
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        refuse(&r, rows[i].options, &err);
        CHECK_HAS(err.text, rows[i].word);
        CHECK_HAS(err.text, "udp");
    }
    rig_close(&r);
}

/* Each allocation fails in turn: an error, and nothing stays behind. */
TEST(udp_out_of_memory)
{
    chr_error err;
    long      at;
    rig       r;
    rig_open(&r);
#ifdef _WIN32
    make(&r, "udp,id=u,host=127.0.0.1,port=9"); /* there the loop has nothing to watch before, and its tables stay */
    CHECK_INT(chr_remove(r.ctx, "u", NULL), 0);
#endif
    for (at = 1; at < 50; at++) {
        long live = r.live;
        int  fds = count_fds();
        chr_dev *dev;
        r.fail_at = r.calls + at;
        r.failed = 0;
        dev = chr_new(r.ctx, "udp,id=u,host=127.0.0.1,port=9,localport=0", &err);
        r.fail_at = 0;
        if (dev) break;
        CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
        CHECK_INT(r.live, live);
        CHECK_INT(count_fds(), fds);
    }
    CHECK(at > 3 && at < 50);
    rig_close(&r);
}

static void remove_itself(recorder *rec, int what)
{
    chr_error    err;
    chr_context *ctx = rec->fe.dev ? rec->fe.dev->ctx : NULL;
    if (what != 'r' || !ctx) return;
    chr_fe_deinit(&rec->fe);
    CHECK_INT(chr_remove(ctx, "u", &err), 0);
}

TEST(udp_removed_inside_its_handler)
{
    recorder rec;
    rig      r;
    int      far = udp_pair(&r, &rec, 3);
    rec.then = remove_itself;
    send(far, "abcdef", 6, 0), send(far, "ghi", 3, 0);
    PUMP(&r, rec.length == 3);
    settle(&r);
    CHECK_INT(rec.length, 3);
    CHECK(chr_find(r.ctx, "u") == NULL);
    end_pair(&r, &rec, far);
}

TEST(uri_with_junk_around_the_brackets)
{
    static const char *const bad[] = { "udp:[::1]junk:5000", "udp:[::1]:5000@[::1]junk:0", "udp:[::1:5000", "tcp:[::1]x:1", "telnet:[::1:1" };
    chr_error                err;
    size_t                   i;
    rig                      r;
    rig_open(&r);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(chr_new_uri(r.ctx, "u", bad[i], &err) == NULL);
        if (!CHECK_INT(err.code, CHR_ERR_INVALID) || !CHECK_HAS(err.text, bad[i])) NOTE("%s", err.text);
    }
    rig_close(&r);
}
