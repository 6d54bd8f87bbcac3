/* tinyvm's 16550: the effect of its registers on its chardev, here a serial line over the network (RFC 2217). */
#include "chardev.h"
#include "fault.h"
#include "telnet_line.h"

#include "../examples/tinyvm/uart16550.c"

#define BREAK_ON  "\xff\xfa\x2c\x05\x05\xff\xf0"
#define BREAK_OFF "\xff\xfa\x2c\x05\x06\xff\xf0"

typedef struct machine {
    line        l;
    struct uart uart;
} machine;

static void write_lcr_break(machine *m, int on)
{
    uart_write(&m->uart, REG_LCR, 1, on ? 3 | LCR_BREAK : 3);
}

static int hears(machine *m, const char *text)
{
    settle(&m->l.r);
    listen_in(&m->l);
    return hear_length >= 7 && memmem(hear_text, (size_t)hear_length, text, 7) != NULL;
}

static void machine_on(machine *m)
{
    char options[100];
    int  fds[2];

    memset(m, 0, sizeof *m);
    rig_open_virtual(&m->l.r);
    socket_pair(fds);
    m->l.peer = fds[0];
    snprintf(options, sizeof options, "socket,id=t,fd=%d,telnet=on,com-port=on", fds[1]);
    m->uart.ctx = m->l.r.ctx;
    REQUIRE(uart_init(&m->uart, make(&m->l.r, options), NULL) == 0);
    settle(&m->l.r);
    say_bytes(&m->l, S("\xff\xfd\x2c")); /* DO COM-PORT */
    settle(&m->l.r);
    listen_in(&m->l);
}

static void machine_off(machine *m)
{
    uart_deinit(&m->uart);
    close(m->l.peer);
    rig_close(&m->l.r);
}

TEST(break_goes_out)
{
    machine m;
    machine_on(&m);
    write_lcr_break(&m, 1);
    CHECK(hears(&m, BREAK_ON));
    write_lcr_break(&m, 0);
    CHECK(hears(&m, BREAK_OFF));
    machine_off(&m);
}

/* In loopback the line is idle, whatever LCR is; the far side must not be left in a break that never ends. */
TEST(loopback_and_reset_end_a_break)
{
    machine m;
    machine_on(&m);
    write_lcr_break(&m, 1);
    CHECK(hears(&m, BREAK_ON));
    uart_write(&m.uart, REG_MCR, 1, MCR_LOOP);
    CHECK(hears(&m, BREAK_OFF));
    write_lcr_break(&m, 0);
    write_lcr_break(&m, 1);
    CHECK(!hears(&m, BREAK_ON));
    uart_write(&m.uart, REG_MCR, 1, 0);
    CHECK(hears(&m, BREAK_ON));
    uart_reset(&m.uart);
    CHECK(hears(&m, BREAK_OFF));
    machine_off(&m);
}

TEST(msr_shows_the_far_lines)
{
    machine m;
    machine_on(&m);
    CHECK_INT(uart_read(&m.uart, REG_MSR, 1) & 0xf0, 0);
    say_bytes(&m.l, S("\xff\xfa\x2c\x6b\xb3\xff\xf0")); /* CTS, DSR and CD */
    settle(&m.l.r);
    CHECK_INT(uart_read(&m.uart, REG_MSR, 1), MSR_CTS | MSR_DSR | MSR_DCD | 0x0b);
    CHECK_INT(uart_read(&m.uart, REG_MSR, 1), MSR_CTS | MSR_DSR | MSR_DCD);
    machine_off(&m);
}

/* Stick parity is mark or space; with 5 data bits the second stop bit is half a one. */
TEST(lcr_sets_the_format)
{
    static const struct {
        uint8_t     lcr;
        const char *heard;
    } rows[] = { { 0x2b, "\xff\xfa\x2c\x03\x04\xff\xf0" }, { 0x3b, "\xff\xfa\x2c\x03\x05\xff\xf0" }, { 0x0b, "\xff\xfa\x2c\x03\x02\xff\xf0" },
                 { 0x1b, "\xff\xfa\x2c\x03\x03\xff\xf0" }, { 0x33, "\xff\xfa\x2c\x03\x01\xff\xf0" }, { 0x07, "\xff\xfa\x2c\x04\x02\xff\xf0" },
                 { 0x04, "\xff\xfa\x2c\x04\x03\xff\xf0" } };
    size_t  i;
    machine m;
    machine_on(&m);
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uart_write(&m.uart, REG_LCR, 1, rows[i].lcr);
        if (!CHECK(hears(&m, rows[i].heard))) NOTE("for an LCR of %d", rows[i].lcr);
    }
    machine_off(&m);
}

/* An overrun is seen in LSR at once, a damaged byte when it is the next to be read. */
TEST(lsr_shows_the_lines_errors)
{
    machine m;
    machine_on(&m);
    uart_write(&m.uart, REG_IIR_FCR, 1, FCR_ENABLE);
    say_bytes(&m.l, S("a\xff\xfa\x2c\x6a\x06\xff\xf0" "bc")); /* overrun and parity */
    settle(&m.l.r);
    CHECK_INT(uart_read(&m.uart, REG_LSR, 1) & 0x1f, LSR_READY | LSR_OVERRUN);
    CHECK_INT(uart_read(&m.uart, REG_DATA, 1), 'a');
    CHECK_INT(uart_read(&m.uart, REG_LSR, 1) & 0x1f, LSR_READY | CHR_LINE_PARITY);
    CHECK_INT(uart_read(&m.uart, REG_DATA, 1), 'b');
    CHECK_INT(uart_read(&m.uart, REG_LSR, 1) & 0x1f, LSR_READY);
    CHECK_INT(uart_read(&m.uart, REG_DATA, 1), 'c');
    machine_off(&m);
}

/* ---- on buffers -------------------------------------------------------------------------------------------------- */

/* The same UART on a plain socket, with FIFOs. */
static void plain_on(machine *m, uint8_t fcr)
{
    char options[100];
    int  fds[2];

    memset(m, 0, sizeof *m);
    rig_open_virtual(&m->l.r);
    socket_pair(fds);
    m->l.peer = fds[0];
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[1]);
    m->uart.ctx = m->l.r.ctx;
    REQUIRE(uart_init(&m->uart, make(&m->l.r, options), NULL) == 0);
    settle(&m->l.r);
    uart_write(&m->uart, REG_IIR_FCR, 1, fcr);
}

static uint32_t lsr(machine *m)
{
    return uart_read(&m->uart, REG_LSR, 1);
}

static uint32_t iir(machine *m)
{
    return uart_read(&m->uart, REG_IIR_FCR, 1) & 0x0f;
}

static long calls_made(void)
{
    long sum = 0;
    int  i;
    for (i = 0; i < FAULT_COUNT; i++) sum += fault_plan.counts[i];
    return sum;
}

enum { OUT_BYTES = 1000000, IN_BYTES = 400000, SLICE_BYTES = 1000 };

/* A guest that polls LSR and writes a byte at a time; the loop runs after each slice, as in tinyvm. */
TEST(a_byte_out_costs_no_system_call)
{
    static unsigned char got[65536];
    machine              m;
    long                 i, heard = 0, before, calls = 0;
    ssize_t              n, at;
    NEED_POSIX("there are no faults of system calls on this system"); /* nor counts */
    plain_on(&m, FCR_ENABLE);
    for (i = 0; i < OUT_BYTES; i++) {
        before = calls_made();
        if (!(lsr(&m) & LSR_THR_EMPTY)) break;
        uart_write(&m.uart, REG_DATA, 1, (uint32_t)i % 251);
        if (i % SLICE_BYTES == SLICE_BYTES - 1) chr_loop_step(m.l.r.ctx, 0);
        calls += calls_made() - before;
        if (i % SLICE_BYTES != SLICE_BYTES - 1) continue;
        n = read(m.l.peer, got, sizeof got);
        for (at = 0; at < n; at++) if (got[at] != heard++ % 251) break;
        if (!CHECK_INT(at, n)) break;
    }
    CHECK_INT(heard, OUT_BYTES);
    if (!CHECK(calls > 0 && calls <= OUT_BYTES / 100)) NOTE("%ld calls", calls);
    machine_off(&m);
}

/* And one that reads through its FIFO. */
TEST(a_byte_in_costs_no_system_call)
{
    static unsigned char block[4096];
    machine              m;
    long                 sent = 0, got = 0, before, calls = 0;
    size_t               i;
    NEED_POSIX("there are no faults of system calls on this system"); /* nor counts */
    plain_on(&m, FCR_ENABLE | 0xc0);
    while (got < IN_BYTES) {
        for (i = 0; i < sizeof block; i++) block[i] = (unsigned char)((sent + (long)i) % 251);
        REQUIRE(write(m.l.peer, block, sizeof block) == (ssize_t)sizeof block);
        sent += (long)sizeof block;
        before = calls_made();
        chr_loop_step(m.l.r.ctx, 0);
        while (lsr(&m) & LSR_READY) {
            if (!CHECK_INT(uart_read(&m.uart, REG_DATA, 1), got % 251)) break;
            got++;
        }
        calls += calls_made() - before;
        if (!CHECK_INT(got, sent)) break;
    }
    if (!CHECK(calls > 0 && calls <= IN_BYTES / 100)) NOTE("%ld calls", calls);
    machine_off(&m);
}

/* A peer that doesn't read: the transmitter isn't empty any more, no byte is lost, and the interrupt comes when
 * there is room. */
TEST(the_transmitter_waits_for_a_slow_peer)
{
    static unsigned char got[1 << 20];
    machine              m;
    long                 sent = 0, heard = 0, i;
    ssize_t              n;
    plain_on(&m, FCR_ENABLE);
    while ((lsr(&m) & LSR_THR_EMPTY) && sent < 10000000) {
        uart_write(&m.uart, REG_DATA, 1, (uint32_t)sent++ % 251);
        if (sent % SLICE_BYTES == 0) chr_loop_step(m.l.r.ctx, 0);
    }
    CHECK(sent > UART_BUFFER && sent < 10000000);
    for (i = 1; i < UART_FIFO; i++) uart_write(&m.uart, REG_DATA, 1, (uint32_t)sent++ % 251); /* one is in it */
    CHECK(!uart_flushed(&m.uart));
    uart_write(&m.uart, REG_IER, 1, IER_TX);
    CHECK_INT(iir(&m), IIR_NONE);
    while (heard < sent) {
        n = read(m.l.peer, got, sizeof got);
        for (i = 0; i < n; i++) if (got[i] != heard++ % 251) break;
        if (!CHECK_INT(i, n) || n <= 0) break;
        settle(&m.l.r);
    }
    CHECK_INT(heard, sent);
    CHECK(lsr(&m) & LSR_THR_EMPTY);
    CHECK_INT(iir(&m), IIR_TX);
    CHECK_INT(iir(&m), IIR_NONE);
    machine_off(&m);
}

/* The interrupt of the trigger level goes on while what was read ahead fills the FIFO again; a rest waits for its
 * time-out. */
TEST(the_trigger_level_counts_what_was_read_ahead)
{
    machine m;
    int     i;
    plain_on(&m, FCR_ENABLE | 0x80); /* eight */
    uart_write(&m.uart, REG_IER, 1, IER_RX);
    say(m.l.peer, "1234567");
    settle(&m.l.r);
    CHECK_INT(iir(&m), IIR_NONE);
    say(m.l.peer, "8");
    settle(&m.l.r);
    CHECK_INT(iir(&m), IIR_RX);
    say(m.l.peer, "901234567890123456789012");
    settle(&m.l.r);
    for (i = 0; i < 25; i++) {
        uart_turn(&m.uart);
        CHECK_INT(iir(&m), IIR_RX);
        CHECK_INT(uart_read(&m.uart, REG_DATA, 1), "12345678901234567890123456789012"[i]);
    }
    CHECK_INT(m.uart.rx.count, 7);
    CHECK_INT(iir(&m), IIR_NONE);
    pass_time(&m.l.r, 100);
    CHECK_INT(iir(&m), IIR_TIMEOUT);
    machine_off(&m);
}

/* An interrupt handler that reads as long as there is input returns after a FIFO: the rest is delivered after the
 * program has run. */
TEST(an_interrupt_handler_comes_to_its_end)
{
    machine m;
    int     i, taken;
    plain_on(&m, FCR_ENABLE);
    uart_write(&m.uart, REG_IER, 1, IER_RX);
    for (i = 0; i < 10; i++) say(m.l.peer, "0123456789abcdef");
    settle(&m.l.r);
    for (i = 0; i < 10; i++) {
        for (taken = 0; iir(&m) == IIR_RX; taken++) CHECK_INT(uart_read(&m.uart, REG_DATA, 1), "0123456789abcdef"[taken % 16]);
        CHECK_INT(taken, 16);
        uart_turn(&m.uart);
    }
    CHECK_INT(iir(&m), IIR_NONE);
    machine_off(&m);
}

/* A guest that doesn't read: what it has not taken is bounded. */
TEST(back_pressure_is_bounded)
{
    static char much[1 << 20];
    machine     m;
    chr_info    info;
    plain_on(&m, FCR_ENABLE);
    CHECK_INT(fcntl(m.l.peer, F_SETFL, O_NONBLOCK), 0);
    CHECK(write(m.l.peer, much, sizeof much) > UART_BUFFER);
    settle(&m.l.r);
    chr_query(m.uart.fe.dev, &info);
    CHECK(info.bytes_in > 0 && info.bytes_in <= UART_BUFFER + UART_FIFO);
    uart_write(&m.uart, REG_MCR, 1, MCR_LOOP); /* the line is cut off */
    uart_write(&m.uart, REG_IIR_FCR, 1, FCR_ENABLE | FCR_CLEAR_RX);
    CHECK(!(lsr(&m) & LSR_READY));
    uart_write(&m.uart, REG_MCR, 1, 0);
    CHECK(lsr(&m) & LSR_READY);
    machine_off(&m);
}

/* Between the bytes that stood before and behind it. */
TEST(a_break_keeps_its_place)
{
    machine m;
    machine_on(&m);
    uart_write(&m.uart, REG_IIR_FCR, 1, FCR_ENABLE);
    say_bytes(&m.l, S("ab\xff\xf3" "c")); /* BREAK */
    settle(&m.l.r);
    CHECK_INT(uart_read(&m.uart, REG_DATA, 1), 'a');
    CHECK_INT(uart_read(&m.uart, REG_DATA, 1), 'b');
    settle(&m.l.r);
    CHECK(lsr(&m) & LSR_BREAK);
    CHECK_INT(uart_read(&m.uart, REG_DATA, 1), 0);
    CHECK_INT(uart_read(&m.uart, REG_DATA, 1), 'c');
    machine_off(&m);
}
