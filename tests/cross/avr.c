/* An 8-bit AVR, whose int has 16 bits: a ring buffer and a frontend in a static block, the ring of an interrupt, and what 16 bits
 * must not be asked for. Says "avr: ok" on UART 0, and sleeps with interrupts off, which ends simavr. */
#define CHARDEV_FREESTANDING
#define CHARDEV_NO_HELP
#define CHARDEV_NO_URI
#define CHARDEV_NO_SCRIPT
#define CHARDEV_NO_FAULT
#define CHARDEV_NO_BRAILLE
#define CHARDEV_NO_WCTABLET
#define CHARDEV_NO_MSMOUSE
#define CHARDEV_ERROR_SIZE  16
#define CHARDEV_BUFFER_SIZE 64
#define CHARDEV_IMPLEMENTATION
#include "../../chardev.h"

#include <avr/io.h>
#include <avr/interrupt.h>
#include <avr/sleep.h>

static uint64_t memory[320];
static int      failed;

static void say(const char *text)
{
    for (; *text; text++) {
        while (!(UCSR0A & (1 << UDRE0)))
            ;
        UDR0 = (uint8_t)*text;
    }
}

static void check(int holds, const char *what)
{
    if (holds) return;
    say(what);
    say(": failed\n");
    failed = 1;
}

static void later(void *opaque) { ++*(int *)opaque; }

static int64_t now;

static int64_t read_clock(void *opaque)
{
    (void)opaque;
    return now;
}

static void chardevs(chr_context *ctx)
{
    chr_frontend fe;
    chr_error    err;
    chr_timer    timer;
    char         text[16];
    int          fired = 0;

    memset(&fe, 0, sizeof fe);
    memset(&timer, 0, sizeof timer);
    check(!chr_new(ctx, "ringbuf,id=r,size=64K", &err) && err.code == CHR_ERR_INVALID, "a size that is too large");
    check(!chr_new(ctx, "ringbuf,id=r,size=16K", &err) && err.code == CHR_ERR_NO_MEMORY, "more than there is");
    check(chr_fe_init(&fe, chr_new(ctx, "ringbuf,id=r,size=128", &err), &err) == 0, "a ring buffer");
    check(chr_fe_set_buffers(&fe, 0, 40000u) == CHR_ERR_INVALID, "buffers that are too large");
    check(chr_fe_printf(&fe, "%lld %x", 5000000000LL, 0xbeefu) == 15, "printf");
    check(chr_ringbuf_read(fe.dev, sizeof text, CHR_UTF8, text, sizeof text, NULL) == 15, "read");
    check(memcmp(text, "5000000000 beef", 15) == 0, "text");
    chr_loop_step(ctx, 0);
    chr_timer_start(ctx, &timer, 100000, later, &fired); /* longer than an int of milliseconds */
    check(chr_loop_timeout(ctx) == 32767, "time-out");
    now = 99999000000;
    chr_loop_step(ctx, 0);
    check(!fired, "early");
    now = 100000000000;
    chr_loop_step(ctx, 0);
    check(fired == 1, "timer");
    chr_fe_deinit(&fe);
}

static void ring(void)
{
    static unsigned char bytes[128], text[100];
    chr_isr_ring         r;
    int                  i;

    check(chr_isr_ring_init(&r, bytes, 256) == CHR_ERR_INVALID, "an index of 8 bits");
    check(chr_isr_ring_init(&r, bytes, 128) == 0, "128 bytes");
    for (i = 0; i < 20; i++) {
        check(chr_isr_ring_put(&r, text, sizeof text) == 100 && chr_isr_ring_put(&r, text, sizeof text) == 28, "put");
        check(chr_isr_ring_count(&r) == 128 && chr_isr_ring_get(&r, text, 100) == 100 && chr_isr_ring_get(&r, text, 100) == 28, "get");
    }
}

int main(void)
{
    chr_config   config;
    chr_context *ctx;

    UBRR0 = 3;
    UCSR0B = 1 << TXEN0;
    memset(&config, 0, sizeof config);
    config.clock = read_clock;
    ctx = chr_context_init_with(&config, memory, sizeof memory);
    check(ctx != NULL, "context");
    if (ctx) {
        chardevs(ctx);
        ring();
        chr_context_free(ctx);
    }
    say(failed ? "avr: failed\n" : "avr: ok\n");
    cli();
    sleep_enable();
    sleep_cpu();
    return 0;
}
