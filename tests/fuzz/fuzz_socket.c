/*
 * Input of a socket outside of any protocol: peers that connect, disconnect, reset and return, bytes with descriptors
 * (SCM_RIGHTS), more than are accepted, and datagrams of udp. Bytes are delivered once and in order, events alternate,
 * and no descriptor is lost or closed twice. First byte: which chardev.
 */
#include "fuzz.h"

enum { SOC_FARS = 4, SOC_STEPS = 80 };

typedef struct soc_state {
    chr_context *ctx;
    chr_frontend fe;
    int          room, open;
    int          fars[SOC_FARS];
    size_t       got;
} soc_state;

static soc_state soc;

static int soc_can_read(void *opaque)
{
    (void)opaque;
    return soc.room;
}

/* Descriptors that came with it are ours. */
static void soc_take_fds(int most)
{
    int fds[16], n = chr_fe_get_msgfds(&soc.fe, fds, most), i;
    FUZZ_CHECK(n <= most);
    for (i = 0; i < n; i++) {
        FUZZ_CHECK(wire_is(fds[i]) && wire_at(fds[i])->kind == WIRE_TOKEN);
        wire_shut(fds[i]);
    }
}

static void soc_read(void *opaque, const void *buf, size_t len)
{
    const uint8_t *bytes = (const uint8_t *)buf;
    (void)opaque;
    FUZZ_CHECK(len > 0 && len <= (size_t)soc.room && soc.open);
    soc.room -= (int)len;
    soc.got += len;
    if (bytes[0] & 1) soc_take_fds(bytes[0] % 17);
}

static void soc_event(void *opaque, int event)
{
    (void)opaque;
    if (event == CHR_EVENT_OPENED) FUZZ_CHECK(!soc.open);
    if (event == CHR_EVENT_CLOSED) FUZZ_CHECK(soc.open);
    if (event == CHR_EVENT_OPENED || event == CHR_EVENT_CLOSED) soc.open = event == CHR_EVENT_OPENED;
}

static void soc_settle(void)
{
    int i;
    for (i = 0; i < 2000 && chr_loop_step(soc.ctx, 0) > 0; i++) {}
    FUZZ_CHECK(i < 2000);
    for (i = 0; i < SOC_FARS && wires.far >= 0; i++) /* the chardev has called somebody */
        if (soc.fars[i] < 0) {
            soc.fars[i] = wires.far;
            wires.far = -1;
        }
    if (wires.far >= 0) wire_shut(wires.far);
    wires.far = -1;
}

static void soc_connect(void)
{
    int i;
    for (i = 0; i < SOC_FARS; i++)
        if (soc.fars[i] < 0) {
            soc.fars[i] = wire_call();
            return;
        }
}

/* As many descriptors as may go beside bytes: none while many are on their way. */
static int soc_count(int count)
{
    int i, used = 0;
    for (i = 0; i < WIRE_MOST; i++) used += wires.ends[i].kind != WIRE_NONE;
    return used > WIRE_MOST / 2 ? 0 : count < WIRE_BESIDE ? count : WIRE_BESIDE;
}

/* Bytes with descriptors beside the first, as many as `count`. */
static void soc_say(int fd, const uint8_t *bytes, size_t len, int count)
{
    int fds[WIRE_BESIDE], i;
    count = soc_count(count);
    for (i = 0; i < count; i++) fds[i] = wire_token();
    wire_put(fd, bytes, len, fds, count);
    for (i = 0; i < count; i++) wire_shut(fds[i]);
}

static void soc_write(const uint8_t *bytes, size_t len, int count)
{
    int fds[WIRE_BESIDE], i, n;
    count = soc_count(count);
    for (i = 0; i < count; i++) fds[i] = wire_token();
    if (count > 0) chr_fe_set_msgfds(&soc.fe, fds, count);
    n = chr_fe_write(&soc.fe, bytes, len);
    FUZZ_CHECK(n <= (int)len);
    for (i = 0; i < count; i++) wire_shut(fds[i]);
}

static void soc_far(int what, int *fd, const uint8_t *bytes, size_t len, uint8_t number)
{
    char taken[1024];
    if (*fd < 0) return;
    switch (what) {
    case 1: while (wire_hear(*fd, taken, sizeof taken) > 0) {} break;
    case 2:
    case 3: wire_say(*fd, bytes, len); break;
    case 4: soc_say(*fd, bytes, len, number >> 4); break;
    case 5: wire_shut(*fd); *fd = -1; break;
    case 6: wire_say_no_more(*fd); break;
    default: wire_set_room(*fd, number); break;
    }
}

static void soc_step(fuzz_bytes *in)
{
    static const int errors[] = { 0, ECONNREFUSED, EAGAIN, ENETUNREACH };
    uint8_t          op = fuzz_byte(in), number = fuzz_byte(in);
    int              what = op & 15;
    size_t           len = (what >= 2 && what <= 4) || what == 8 || what == 9 ? number % 48u : 0;
    if (len > in->size) len = in->size;
    switch (what) {
    case 0: soc_connect(); break;
    case 8: soc_write(in->data, len, 0); break;
    case 9: soc_write(in->data, len, op >> 4); break;
    case 10: soc.room = number; chr_fe_accept_input(&soc.fe); break;
    case 11: chr_fe_disconnect(&soc.fe); break;
    case 12: chr_fe_shutdown(&soc.fe); break;
    case 13: wires.now += (int64_t)number * 10000000; break;
    case 14: wires.connect_error = errors[number & 3]; break;
    case 15: soc_take_fds(number % 17); break;
    default: soc_far(what, &soc.fars[op >> 4 & 3], in->data, len, number); break;
    }
    in->data += len;
    in->size -= len;
    soc_settle();
}

int FUZZ_TARGET(const uint8_t *data, size_t size)
{
    static const char *const kinds[] = {
        "socket,id=a,path=a,abstract=on,server=on,wait=off", "socket,id=a,path=a,abstract=on,server=on,wait=off,replace=on",
        "socket,id=a,path=a,abstract=on,server=on,wait=off,clients=3", "socket,id=a,path=a,abstract=on,reconnect-ms=50",
        "udp,id=a,host=127.0.0.1,port=1000", "socket,id=a,path=a,abstract=on,server=on,wait=off,obuf=64,history=32",
        "socket,id=a,path=a,abstract=on,server=on,wait=off,mux=on",
        "socket,id=a,path=a,abstract=on,server=on,wait=off,logfile=/dev/null", "socket,id=a,path=a,abstract=on,server=on,wait=off,idle-timeout=2"
    };
    static const chr_handlers handlers = { soc_can_read, soc_read, soc_event, NULL };
    fuzz_bytes                in = { data, size };
    chr_error                 err;
    chr_dev                  *dev;
    const char               *options = kinds[fuzz_byte(&in) % (sizeof kinds / sizeof kinds[0])];
    int                       i;
    memset(&soc, 0, sizeof soc);
    for (i = 0; i < SOC_FARS; i++) soc.fars[i] = -1;
    soc.ctx = fuzz_context(data, size);
    dev = chr_new(soc.ctx, options, &err);
    if (!dev) fprintf(stderr, "%s: %s\n", options, err.text);
    FUZZ_CHECK(dev != NULL && chr_fe_init(&soc.fe, dev, &err) == 0);
    chr_fe_set_handlers(&soc.fe, &handlers, NULL);
    soc_settle();
    for (i = 0; in.size > 0 && i < SOC_STEPS; i++) soc_step(&in);
    for (i = 0; i < SOC_FARS; i++)
        if (soc.fars[i] >= 0) wire_shut(soc.fars[i]);
    soc_settle();
    chr_fe_deinit(&soc.fe);
    chr_context_free(soc.ctx);
    if (wires.far >= 0) wire_shut(wires.far);
    FUZZ_CHECK(fuzz_live == 0 && wire_open_count() == 0);
    return 0;
}
