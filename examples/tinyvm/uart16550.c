/* uart16550.c - registers, FIFOs, interrupts, and the frontend of the chardev. */
#include "uart16550.h"

#include <stdio.h>
#include <string.h>

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

enum { IER_RX = 0x01, IER_TX = 0x02, IER_LINE = 0x04, IER_MODEM = 0x08 };
enum {
    IIR_MODEM = 0x00, IIR_NONE = 0x01, IIR_TX = 0x02, IIR_RX = 0x04, IIR_LINE = 0x06,
    IIR_TIMEOUT = 0x0c, IIR_FIFOS = 0xc0
};
enum { FCR_ENABLE = 0x01, FCR_CLEAR_RX = 0x02, FCR_CLEAR_TX = 0x04 };
enum { LCR_DLAB = 0x80, LCR_BREAK = 0x40 };
enum { MCR_DTR = 0x01, MCR_RTS = 0x02, MCR_OUT1 = 0x04, MCR_OUT2 = 0x08, MCR_LOOP = 0x10 };
enum {
    LSR_READY = 0x01, LSR_OVERRUN = 0x02, LSR_BREAK = 0x10, LSR_THR_EMPTY = 0x20, LSR_IDLE = 0x40, LSR_FIFO_ERROR = 0x80
};
enum { MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };

/* ---- FIFOs ---- */

static void fifo_clear(struct uart_fifo *fifo)
{
    fifo->first = fifo->count = 0;
}

static void fifo_push(struct uart_fifo *fifo, uint8_t byte, uint8_t error)
{
    int at = (fifo->first + fifo->count++) % UART_FIFO;
    fifo->data[at] = byte;
    fifo->error[at] = error;
}

static void fifo_drop(struct uart_fifo *fifo, int count)
{
    fifo->first = (fifo->first + count) % UART_FIFO;
    fifo->count -= count;
}

static int fifos_on(const struct uart *uart)
{
    return uart->fcr & FCR_ENABLE;
}

/* Without FIFOs, there is one holding register in each direction. */
static int depth(const struct uart *uart)
{
    return fifos_on(uart) ? UART_FIFO : 1;
}

static int trigger_level(const struct uart *uart)
{
    static const int levels[4] = { 1, 4, 8, 14 };
    return fifos_on(uart) ? levels[uart->fcr >> 6] : 1;
}

/* ---- interrupts ---- */

/* The pending interrupt of the highest priority, as the value of IIR. */
static uint8_t pending_interrupt(const struct uart *uart)
{
    if (!uart->ier) return IIR_NONE;
    if ((uart->ier & IER_LINE) && uart->line_errors) return IIR_LINE;
    if ((uart->ier & IER_RX) && uart->rx.count >= trigger_level(uart)) return IIR_RX;
    if ((uart->ier & IER_RX) && uart->timed_out && uart->rx.count) return IIR_TIMEOUT;
    if ((uart->ier & IER_TX) && uart->thr_interrupt) return IIR_TX;
    if ((uart->ier & IER_MODEM) && uart->msr_delta) return IIR_MODEM;
    return IIR_NONE;
}

static void update_irq(struct uart *uart)
{
    int level = pending_interrupt(uart) != IIR_NONE;
    if (level != uart->irq_level) irq_set(&uart->irq, level);
    uart->irq_level = level;
}

/* ---- receiving ---- */

static void timeout_expired(void *opaque)
{
    struct uart *uart = opaque;
    uart->timed_out = 1;
    update_irq(uart);
}

/* Receive time-out: bytes below the trigger level interrupt when the FIFO is unchanged for the time of four
 * characters (10 bits at 1.8432 MHz / 16 / divisor), in whole milliseconds. Not needed while receive interrupts are
 * disabled. */
static void restart_timeout(struct uart *uart)
{
    int divisor = uart->divisor_low | uart->divisor_high << 8;
    uart->timed_out = 0;
    if ((uart->ier & IER_RX) && fifos_on(uart) && uart->rx.count)
        chr_timer_start(uart->ctx, &uart->timeout_timer, 1 + 40 * divisor / 115, timeout_expired, uart);
    else chr_timer_stop(&uart->timeout_timer);
}

/* LSR has the errors of the byte at the front of the FIFO. */
static void load_front_error(struct uart *uart)
{
    if (!uart->rx.count) return;
    uart->line_errors |= uart->rx.error[uart->rx.first];
    uart->rx.error[uart->rx.first] = 0;
}

static void receive(struct uart *uart, uint8_t byte, uint8_t error)
{
    if (uart->rx.count >= depth(uart)) {
        uart->line_errors |= LSR_OVERRUN;
        if (fifos_on(uart)) return;
        fifo_clear(&uart->rx); /* the holding register is overwritten */
    }
    fifo_push(&uart->rx, byte, error);
    load_front_error(uart);
}

/* Moves bytes that were read ahead, up to the next event, to the FIFO. In loopback mode the line is disconnected. */
static void fill_rx(struct uart *uart)
{
    uint8_t bytes[UART_FIFO];
    int     room = uart->mcr & MCR_LOOP ? 0 : depth(uart) - uart->rx.count;
    int     count = room > 0 ? chr_fe_read(&uart->fe, bytes, (size_t)room) : 0;
    if (count <= 0) return;
    for (int i = 0; i < count; i++) receive(uart, bytes[i], i == 0 ? uart->next_error : 0);
    uart->next_error = 0;
    restart_timeout(uart);
}

static uint8_t read_data(struct uart *uart)
{
    if (!uart->rx.count) return 0;
    uint8_t byte = uart->rx.data[uart->rx.first];
    fifo_drop(&uart->rx, 1);
    load_front_error(uart);
    restart_timeout(uart);
    if (!(uart->ier & IER_RX) && !uart->rx.count) fill_rx(uart);
    return byte;
}

/* Refills the FIFO between slices only, when receive interrupts are enabled: an interrupt handler reads until the
 * FIFO is empty, and on a line with continuous input it would never return. */
void uart_turn(struct uart *uart)
{
    if (!(uart->ier & IER_RX) || uart->rx.count >= trigger_level(uart) || !chr_fe_readable(&uart->fe)) return;
    fill_rx(uart);
    update_irq(uart);
}

static void clear_rx(struct uart *uart)
{
    fifo_clear(&uart->rx);
    uart->line_errors = 0;
    restart_timeout(uart);
    fill_rx(uart);
}

/* ---- transmitting ---- */

static void transmitter_empty(struct uart *uart)
{
    uart->thr_interrupt = 1;
    update_irq(uart);
}

static void flush(void *opaque)
{
    struct uart *uart = opaque;
    while (uart->tx.count) {
        int run = UART_FIFO - uart->tx.first; /* contiguous bytes */
        if (run > uart->tx.count) run = uart->tx.count;
        int taken = chr_fe_write(&uart->fe, uart->tx.data + uart->tx.first, (size_t)run);
        if (taken == CHR_ERR_WOULD_BLOCK || taken == 0) {
            chr_fe_add_watch(&uart->fe, flush, uart);
            return;
        }
        fifo_drop(&uart->tx, taken > 0 ? taken : run); /* any error: disconnected, the bytes are dropped */
    }
    transmitter_empty(uart);
}

static void write_data(struct uart *uart, uint8_t byte)
{
    uart->thr_interrupt = 0;
    if (uart->mcr & MCR_LOOP) {
        receive(uart, byte, 0);
        restart_timeout(uart);
        transmitter_empty(uart);
        return;
    }
    if (!uart->tx.count && chr_fe_write(&uart->fe, &byte, 1) == 1) { /* in the frontend's buffer */
        uart->thr_interrupt = 1;
        return;
    }
    if (uart->tx.count >= depth(uart)) return; /* transmit overrun: software has not checked LSR */
    fifo_push(&uart->tx, byte, 0);
    if (uart->tx.count == 1) flush(uart);
}

int uart_flushed(const struct uart *uart)
{
    return uart->tx.count == 0;
}

/* ---- the other registers ---- */

static uint8_t modem_lines(const struct uart *uart)
{
    if (!(uart->mcr & MCR_LOOP)) return uart->far_lines;
    return (uint8_t)((uart->mcr & MCR_RTS ? MSR_CTS : 0) | (uart->mcr & MCR_DTR ? MSR_DSR : 0) |
                     (uart->mcr & MCR_OUT1 ? MSR_RI : 0) | (uart->mcr & MCR_OUT2 ? MSR_DCD : 0));
}

/* The delta bits of MSR; for RI, of the trailing edge only. */
static uint8_t modem_delta(uint8_t before, uint8_t after)
{
    uint8_t on_change = (before ^ after) & (MSR_CTS | MSR_DSR | MSR_DCD);
    uint8_t ring_over = before & ~after & MSR_RI;
    return (uint8_t)((on_change | ring_over) >> 4);
}

/* The chardev's modem lines; without any, those of a three-wire line: always ready. */
static uint8_t far_lines(struct uart *uart)
{
    int lines = 0;
    int rc = chr_fe_ioctl(&uart->fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines);
    if (rc < 0 && rc != CHR_ERR_DISCONNECTED) return MSR_CTS | MSR_DSR | MSR_DCD;
    return (uint8_t)((lines & CHR_TIOCM_CTS ? MSR_CTS : 0) | (lines & CHR_TIOCM_DSR ? MSR_DSR : 0) |
                     (lines & CHR_TIOCM_RI ? MSR_RI : 0) | (lines & CHR_TIOCM_CAR ? MSR_DCD : 0));
}

static void update_far_lines(struct uart *uart)
{
    uint8_t before = modem_lines(uart);
    uart->far_lines = far_lines(uart);
    uart->msr_delta |= modem_delta(before, modem_lines(uart));
}

/* Sets DTR and RTS of the chardev, where it has them; a serial mouse is powered by them. */
static void set_lines(struct uart *uart)
{
    int lines = uart->mcr & MCR_LOOP
                    ? 0
                    : (uart->mcr & MCR_DTR ? CHR_TIOCM_DTR : 0) | (uart->mcr & MCR_RTS ? CHR_TIOCM_RTS : 0);
    chr_fe_ioctl(&uart->fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines);
}

/* Starts or ends a break; in loopback mode none is sent. */
static void set_break(struct uart *uart)
{
    int in_break = (uart->lcr & LCR_BREAK) && !(uart->mcr & MCR_LOOP);
    if (in_break != uart->in_break) chr_fe_ioctl(&uart->fe, CHR_IOCTL_SERIAL_SET_BREAK, &in_break);
    uart->in_break = in_break;
}

/* Sets speed and format of the chardev's line, where it has one. */
static void set_params(struct uart *uart)
{
    static const int  parities[8] = { 'N', 'O', 'N', 'E', 'N', 'M', 'N', 'S' };
    int               divisor = uart->divisor_low | uart->divisor_high << 8;
    chr_serial_params params = { 0, parities[uart->lcr >> 3 & 7], 5 + (uart->lcr & 3), uart->lcr & 4 ? 2 : 1 };
    if (params.data_bits == 5 && params.stop_bits == 2) params.stop_bits = CHR_STOP_BITS_1_5;
    params.speed = divisor ? 115200 / divisor : 0;
    if (params.speed > 0) chr_fe_ioctl(&uart->fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params);
}

static void write_mcr(struct uart *uart, uint8_t value)
{
    uint8_t before = modem_lines(uart);
    uart->mcr = value & 0x1f;
    set_lines(uart);
    set_break(uart);
    uart->msr_delta |= modem_delta(before, modem_lines(uart));
    fill_rx(uart); /* after loopback mode the line is connected again */
}

static void write_lcr(struct uart *uart, uint8_t value)
{
    int break_begins = value & ~uart->lcr & LCR_BREAK;
    int on_change = (value ^ uart->lcr) & ~LCR_BREAK; /* the divisor takes effect when DLAB is cleared */
    uart->lcr = value;
    if (on_change && !(value & LCR_DLAB)) set_params(uart);
    set_break(uart);
    if (break_begins && (uart->mcr & MCR_LOOP)) receive(uart, 0, LSR_BREAK);
}

static void write_ier(struct uart *uart, uint8_t value)
{
    int tx_enabled = value & ~uart->ier & IER_TX, rx_enabled = value & ~uart->ier & IER_RX;
    uart->ier = value & 0x0f;
    if (rx_enabled) restart_timeout(uart);
    if (tx_enabled && !uart->tx.count)
        uart->thr_interrupt = 1; /* enabling it interrupts when idle: drivers rely on it */
}

static void clear_tx(struct uart *uart)
{
    fifo_clear(&uart->tx);
    chr_fe_add_watch(&uart->fe, NULL, NULL);
    uart->thr_interrupt = 1;
}

static void write_fcr(struct uart *uart, uint8_t value)
{
    int switched = (value ^ uart->fcr) & FCR_ENABLE;
    uart->fcr = value & FCR_ENABLE ? value & 0xc9 : 0;
    if (switched || (value & FCR_CLEAR_RX)) clear_rx(uart);
    if (switched || (value & FCR_CLEAR_TX)) clear_tx(uart);
}

static uint8_t read_iir(struct uart *uart)
{
    uint8_t why = pending_interrupt(uart);
    if (why == IIR_TX) uart->thr_interrupt = 0;
    return (uint8_t)(why | (fifos_on(uart) ? IIR_FIFOS : 0));
}

static int error_in_fifo(const struct uart *uart)
{
    for (int i = 0; i < uart->rx.count; i++)
        if (uart->rx.error[(uart->rx.first + i) % UART_FIFO]) return 1;
    return 0;
}

static uint8_t read_lsr(struct uart *uart)
{
    uint8_t value = uart->line_errors;
    if (uart->rx.count) value |= LSR_READY;
    if (!uart->tx.count) value |= LSR_THR_EMPTY | LSR_IDLE;
    if (fifos_on(uart) && ((uart->line_errors & ~LSR_OVERRUN) || error_in_fifo(uart))) value |= LSR_FIFO_ERROR;
    uart->line_errors = 0;
    return value;
}

static uint8_t read_msr(struct uart *uart)
{
    update_far_lines(uart);
    uint8_t value = modem_lines(uart) | uart->msr_delta;
    uart->msr_delta = 0;
    return value;
}

static uint8_t read_register(struct uart *uart, uint32_t number)
{
    int divisor = uart->lcr & LCR_DLAB;
    switch (number) {
    case REG_DATA: return divisor ? uart->divisor_low : read_data(uart);
    case REG_IER: return divisor ? uart->divisor_high : uart->ier;
    case REG_IIR_FCR: return read_iir(uart);
    case REG_LCR: return uart->lcr;
    case REG_MCR: return uart->mcr;
    case REG_LSR: return read_lsr(uart);
    case REG_MSR: return read_msr(uart);
    default: return uart->scr;
    }
}

static void write_register(struct uart *uart, uint32_t number, uint8_t value)
{
    int divisor = uart->lcr & LCR_DLAB;
    switch (number) {
    case REG_DATA:
        if (divisor) uart->divisor_low = value;
        else write_data(uart, value);
        break;
    case REG_IER:
        if (divisor) uart->divisor_high = value;
        else write_ier(uart, value);
        break;
    case REG_IIR_FCR: write_fcr(uart, value); break;
    case REG_LCR: write_lcr(uart, value); break;
    case REG_MCR: write_mcr(uart, value); break;
    case REG_SCR: uart->scr = value; break;
    default: break; /* LSR and MSR are read-only */
    }
}

/* Registers are bytes; a wider access is one of the register at its address. */
uint32_t uart_read(void *opaque, uint32_t offset, unsigned size)
{
    struct uart *uart = opaque;
    (void)size;
    if (offset > REG_SCR) return 0;
    uint8_t value = read_register(uart, offset);
    update_irq(uart);
    return value;
}

void uart_write(void *opaque, uint32_t offset, unsigned size, uint32_t value)
{
    struct uart *uart = opaque;
    (void)size;
    if (offset > REG_SCR) return;
    write_register(uart, offset, (uint8_t)value);
    update_irq(uart);
}

/* ---- the frontend ---- */

/* Receive errors have the bits of LSR. An overrun is set at once, the others with the next byte. */
static void read_line_errors(struct uart *uart)
{
    int errors = 0;
    if (chr_fe_ioctl(&uart->fe, CHR_IOCTL_SERIAL_GET_ERRORS, &errors) < 0) return;
    uart->line_errors |= (uint8_t)(errors & LSR_OVERRUN);
    uart->next_error |= (uint8_t)(errors & ~LSR_OVERRUN);
}

static void on_event(void *opaque, int event)
{
    struct uart *uart = opaque;
    if (event == CHR_EVENT_BREAK && !(uart->mcr & MCR_LOOP)) {
        receive(uart, 0, LSR_BREAK);
        restart_timeout(uart);
    } else if (event == CHR_EVENT_LINE_ERROR) {
        read_line_errors(uart);
    } else if (event == CHR_EVENT_SERIAL || event == CHR_EVENT_OPENED || event == CHR_EVENT_CLOSED) {
        update_far_lines(uart);
    }
    fill_rx(uart); /* READABLE, or input after the event */
    update_irq(uart);
}

/* Hot swap: every new backend is accepted, and gets the bytes of the FIFO and the settings of the line. */
static int on_change(void *opaque)
{
    struct uart *uart = opaque;
    if (uart->tx.count) chr_fe_add_watch(&uart->fe, flush, uart);
    set_lines(uart);
    set_params(uart);
    if (uart->in_break) chr_fe_ioctl(&uart->fe, CHR_IOCTL_SERIAL_SET_BREAK, &uart->in_break);
    update_far_lines(uart);
    return 0;
}

int uart_init(struct uart *uart, chr_dev *dev, chr_error *err)
{
    static const chr_handlers handlers = { .event = on_event, .change = on_change };
    uart_reset(uart);
    int rc = chr_fe_init(&uart->fe, dev, err);
    if (rc == 0 && chr_fe_set_buffers(&uart->fe, UART_BUFFER, UART_BUFFER) < 0) {
        chr_fe_deinit(&uart->fe);
        if (err) snprintf(err->text, sizeof err->text, "no memory for the buffers of a UART");
        rc = CHR_ERR_NO_MEMORY;
    }
    if (rc < 0) return rc;
    uart->far_lines = far_lines(uart);
    chr_fe_set_handlers(&uart->fe, &handlers, uart);
    return 0;
}

void uart_deinit(struct uart *uart)
{
    chr_timer_stop(&uart->timeout_timer);
    chr_fe_deinit(&uart->fe);
}

/* The transmit FIFO is kept: output before a reset of the machine is still sent. */
void uart_reset(struct uart *uart)
{
    uart->ier = uart->fcr = uart->lcr = uart->scr = uart->msr_delta = uart->line_errors = uart->next_error = 0;
    uart->mcr = MCR_OUT2;
    uart->divisor_low = 12; /* 9600 baud */
    uart->divisor_high = 0;
    uart->thr_interrupt = uart->timed_out = 0;
    fifo_clear(&uart->rx);
    chr_timer_stop(&uart->timeout_timer);
    if (uart->fe.dev) set_lines(uart);
    if (uart->fe.dev) set_break(uart);
    if (uart->fe.dev) fill_rx(uart);
    update_irq(uart);
}
