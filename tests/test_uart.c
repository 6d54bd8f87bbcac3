/* tinyvm's 16550: what its registers do to the chardev behind it, here a serial line over the network. */
#include "chardev.h"
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

/* In loopback the line is idle, whatever LCR says; the far side must not be left in a break that nobody ends. */
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
