/*
 * fault, on a mux, with another fault below that: given bytes select the faults, others the output, the input, and the
 * time. Events alternate, no byte comes twice, out of order or without room, and accepted output arrives.
 */
#include "fuzz.h"

enum { FF_LONG = 1 << 15, FF_RING = 1 << 15 };

static chr_context *ff_ctx;
static chr_frontend ff_fe;
static chr_dev     *ff_ring, *ff_dev;
static int          ff_room, ff_open;
static uint8_t      ff_next_in, ff_next_got; /* input counts up, but for the escape */
static size_t       ff_taken;

static uint8_t ff_after(uint8_t byte)
{
    return (uint8_t)(byte == 0 ? 2 : byte + 1); /* 1 is the mux's */
}

static int ff_can_read(void *opaque)
{
    (void)opaque;
    return ff_room;
}

static void ff_read(void *opaque, const void *buf, size_t len)
{
    size_t i;
    (void)opaque;
    FUZZ_CHECK(len > 0 && len <= (size_t)ff_room); /* maybe behind CLOSED: the mux has held it */
    for (i = 0; i < len; i++) {
        FUZZ_CHECK(((const uint8_t *)buf)[i] == ff_next_got);
        ff_next_got = ff_after(ff_next_got);
    }
    ff_room -= (int)len;
}

static void ff_event(void *opaque, int event)
{
    (void)opaque;
    if (event == CHR_EVENT_OPENED || event == CHR_EVENT_CLOSED) {
        FUZZ_CHECK(ff_open == (event == CHR_EVENT_CLOSED));
        ff_open = event == CHR_EVENT_OPENED;
    }
}

static const chr_handlers ff_handlers = { ff_can_read, ff_read, ff_event, NULL };

static void ff_input(size_t len)
{
    uint8_t bytes[256];
    size_t  i;
    uint8_t next = ff_next_in;
    int     n;
    for (i = 0; i < len; i++, next = ff_after(next)) bytes[i] = next;
    n = chr_inject(ff_ring, bytes, len);
    FUZZ_CHECK(n == CHR_ERR_WOULD_BLOCK || (n >= 0 && n <= (int)len));
    for (; n > 0; n--) ff_next_in = ff_after(ff_next_in);
}

static void ff_output(const uint8_t *data, size_t len)
{
    int n = chr_fe_write(&ff_fe, data, len);
    FUZZ_CHECK((n >= 0 && n <= (int)len) || n == CHR_ERR_WOULD_BLOCK || n == CHR_ERR_DISCONNECTED || n == CHR_ERR_IO);
    ff_taken += n > 0 ? (size_t)n : 0;
    FUZZ_CHECK(chr_ringbuf_count(ff_ring) == (int)(ff_taken < FF_RING ? ff_taken : FF_RING));
}

static void ff_one(fuzz_bytes *in)
{
    uint8_t op = fuzz_byte(in);
    size_t  len = fuzz_byte(in);
    if (len > in->size) len = in->size;
    switch (op & 7) {
    case 0:
        ff_room = (int)len;
        chr_fe_accept_input(&ff_fe);
        break;
    case 1: chr_loop_run_until(ff_ctx, chr_loop_now(ff_ctx) + (int64_t)len * 1000000); break;
    case 2: ff_input(len); break;
    case 3: chr_send_break(ff_ctx, op & 8 ? "r" : "f", NULL); break;
    case 4:
    case 5:
        FUZZ_CHECK(chr_fault_feed(op & 8 ? ff_dev : chr_find(ff_ctx, "g"), in->data, len) == (int)len);
        in->data += len;
        in->size -= len;
        break;
    default:
        ff_output(in->data, len);
        in->data += len;
        in->size -= len;
        break;
    }
    FUZZ_CHECK(chr_loop_run_until(ff_ctx, 0) >= 0);
}

/* Faults end: then all that is on its way arrives. */
static void ff_arrive(void)
{
    int i;
    for (i = 0; i < 1000 && (ff_next_got != ff_next_in || !ff_open); i++) { /* given bytes may be left */
        ff_room = FF_LONG;
        chr_fe_accept_input(&ff_fe);
        chr_loop_run_until(ff_ctx, chr_loop_now(ff_ctx) + 50000000);
    }
    FUZZ_CHECK(ff_next_got == ff_next_in && ff_open);
}

int FUZZ_TARGET(const uint8_t *data, size_t size)
{
    chr_config config;
    fuzz_bytes in;
    in.data = data;
    in.size = size;
    memset(&config, 0, sizeof config);
    config.allocate = fuzz_allocate;
    config.virtual_clock = 1;
    fuzz_live = 0;
    ff_room = ff_open = 0;
    ff_next_in = ff_next_got = 2;
    ff_taken = 0;
    ff_ctx = chr_context_new(&config);
    ff_ring = chr_new(ff_ctx, "ringbuf,id=r,size=32K", NULL);
    FUZZ_CHECK(chr_new(ff_ctx, "fault,id=g,chardev=r", NULL) && chr_new(ff_ctx, "mux,id=m,chardev=g", NULL));
    ff_dev = chr_new(ff_ctx, "fault,id=f,chardev=m", NULL);
    FUZZ_CHECK(ff_ring && ff_dev);
    FUZZ_CHECK(chr_fe_init(&ff_fe, ff_dev, NULL) == 0);
    chr_fe_set_handlers(&ff_fe, &ff_handlers, NULL);
    while (in.size) ff_one(&in);
    chr_loop_run_until(ff_ctx, chr_loop_now(ff_ctx) + 1000000000);
    ff_arrive();
    fuzz_end(ff_ctx);
    return 0;
}
