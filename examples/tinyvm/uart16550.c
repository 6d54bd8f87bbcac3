/* uart16550.c - registers, FIFOs, interrupts and the chardev behind them. */
#include "uart16550.h"

#include <stdio.h>
#include <string.h>

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

enum { IER_RX = 0x01, IER_TX = 0x02, IER_LINE = 0x04, IER_MODEM = 0x08 };
enum { IIR_MODEM = 0x00, IIR_NONE = 0x01, IIR_TX = 0x02, IIR_RX = 0x04, IIR_LINE = 0x06, IIR_TIMEOUT = 0x0c, IIR_FIFOS = 0xc0 };
enum { FCR_ENABLE = 0x01, FCR_CLEAR_RX = 0x02, FCR_CLEAR_TX = 0x04 };
enum { LCR_DLAB = 0x80, LCR_BREAK = 0x40 };
enum { MCR_DTR = 0x01, MCR_RTS = 0x02, MCR_OUT1 = 0x04, MCR_OUT2 = 0x08, MCR_LOOP = 0x10 };
enum { LSR_READY = 0x01, LSR_OVERRUN = 0x02, LSR_BREAK = 0x10, LSR_THR_EMPTY = 0x20, LSR_IDLE = 0x40, LSR_FIFO_ERROR = 0x80 };
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

/* Without FIFOs there is one holding register each way. */
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

/* The highest-priority reason to interrupt, as IIR shows it. */
static uint8_t reason(const struct uart *uart)
{
    if (!uart->ier) return IIR_NONE;
    if ((uart->ier & IER_LINE) && uart->line_errors) return IIR_LINE;
    if ((uart->ier & IER_RX) && uart->rx.count >= trigger_level(uart)) return IIR_RX;
    if ((uart->ier & IER_RX) && uart->stale && uart->rx.count) return IIR_TIMEOUT;
    if ((uart->ier & IER_TX) && uart->thr_interrupt) return IIR_TX;
    if ((uart->ier & IER_MODEM) && uart->msr_delta) return IIR_MODEM;
    return IIR_NONE;
}

static void update_irq(struct uart *uart)
{
    int level = reason(uart) != IIR_NONE;
    if (level != uart->irq_level) irq_set(&uart->irq, level);
    uart->irq_level = level;
}

/* ---- receiving ---- */

static void stale_expired(void *opaque)
{
    struct uart *uart = opaque;
    uart->stale = 1;
    update_irq(uart);
}

/* Bytes below the trigger level are announced when nothing has moved for the time of four characters (10 bits at 1.8432 MHz
 * divided by 16 and the divisor); the loop's timers count whole milliseconds. Software that polls needs no timer. */
static void restart_stale_timer(struct uart *uart)
{
    int divisor = uart->divisor_low | uart->divisor_high << 8;
    uart->stale = 0;
    if ((uart->ier & IER_RX) && fifos_on(uart) && uart->rx.count)
        chr_timer_start(uart->ctx, &uart->stale_timer, 1 + 40 * divisor / 115, stale_expired, uart);
    else chr_timer_stop(&uart->stale_timer);
}

/* An error shows in LSR when its byte has come to the front. */
static void show_front_error(struct uart *uart)
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
        fifo_clear(&uart->rx); /* a lone holding register keeps the newer byte */
    }
    fifo_push(&uart->rx, byte, error);
    show_front_error(uart);
}

/* Into the FIFO, as far as it has room, what the chardev has read ahead up to the next event. In loopback the line is cut off. */
static void take_input(struct uart *uart)
{
    uint8_t bytes[UART_FIFO];
    int     room = uart->mcr & MCR_LOOP ? 0 : depth(uart) - uart->rx.count;
    int     count = room > 0 ? chr_fe_read(&uart->fe, bytes, (size_t)room) : 0;
    if (count <= 0) return;
    for (int i = 0; i < count; i++) receive(uart, bytes[i], i == 0 ? uart->next_error : 0);
    uart->next_error = 0;
    restart_stale_timer(uart);
}

static uint8_t read_data(struct uart *uart)
{
    if (!uart->rx.count) return 0;
    uint8_t byte = uart->rx.data[uart->rx.first];
    fifo_drop(&uart->rx, 1);
    show_front_error(uart);
    restart_stale_timer(uart);
    if (!(uart->ier & IER_RX) && !uart->rx.count) take_input(uart);
    return byte;
}

/* An interrupt handler takes all that is there: on a line without end it would never return. It gets a FIFO at a time. */
void uart_turn(struct uart *uart)
{
    if (!(uart->ier & IER_RX) || uart->rx.count >= trigger_level(uart) || !chr_fe_readable(&uart->fe)) return;
    take_input(uart);
    update_irq(uart);
}

static void clear_rx(struct uart *uart)
{
    fifo_clear(&uart->rx);
    uart->line_errors = 0;
    restart_stale_timer(uart);
    take_input(uart);
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
        int run = UART_FIFO - uart->tx.first; /* what lies in one piece */
        if (run > uart->tx.count) run = uart->tx.count;
        int taken = chr_fe_write(&uart->fe, uart->tx.data + uart->tx.first, (size_t)run);
        if (taken == CHR_ERR_WOULD_BLOCK || taken == 0) {
            chr_fe_add_watch(&uart->fe, flush, uart);
            return;
        }
        fifo_drop(&uart->tx, taken > 0 ? taken : run); /* any error: nobody is there, the bytes are lost */
    }
    transmitter_empty(uart);
}

static void write_data(struct uart *uart, uint8_t byte)
{
    uart->thr_interrupt = 0;
    if (uart->mcr & MCR_LOOP) {
        receive(uart, byte, 0);
        restart_stale_timer(uart);
        transmitter_empty(uart);
        return;
    }
    if (!uart->tx.count && chr_fe_write(&uart->fe, &byte, 1) == 1) { /* gathered */
        uart->thr_interrupt = 1;
        return;
    }
    if (uart->tx.count >= depth(uart)) return; /* software that doesn't ask LSR first loses this byte */
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

/* Which lines changed; for RI only its trailing edge counts. */
static uint8_t modem_delta(uint8_t before, uint8_t after)
{
    uint8_t changed = (before ^ after) & (MSR_CTS | MSR_DSR | MSR_DCD);
    uint8_t ring_over = before & ~after & MSR_RI;
    return (uint8_t)((changed | ring_over) >> 4);
}

/* Real lines where the chardev has some; else a plain three-wire line, ready at all times. */
static uint8_t far_lines(struct uart *uart)
{
    int lines = 0;
    int rc = chr_fe_ioctl(&uart->fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines);
    if (rc < 0 && rc != CHR_ERR_DISCONNECTED) return MSR_CTS | MSR_DSR | MSR_DCD;
    return (uint8_t)((lines & CHR_TIOCM_CTS ? MSR_CTS : 0) | (lines & CHR_TIOCM_DSR ? MSR_DSR : 0) |
                     (lines & CHR_TIOCM_RI ? MSR_RI : 0) | (lines & CHR_TIOCM_CAR ? MSR_DCD : 0));
}

static void look_at_far_lines(struct uart *uart)
{
    uint8_t before = modem_lines(uart);
    uart->far_lines = far_lines(uart);
    uart->msr_delta |= modem_delta(before, modem_lines(uart));
}

/* DTR and RTS are real lines where the chardev has some; a mouse takes its power from them. */
static void drive_lines(struct uart *uart)
{
    int lines = uart->mcr & MCR_LOOP ? 0 : (uart->mcr & MCR_DTR ? CHR_TIOCM_DTR : 0) | (uart->mcr & MCR_RTS ? CHR_TIOCM_RTS : 0);
    chr_fe_ioctl(&uart->fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines);
}

/* In loopback nothing goes out, and a break that goes on is over. */
static void drive_break(struct uart *uart)
{
    int in_break = (uart->lcr & LCR_BREAK) && !(uart->mcr & MCR_LOOP);
    if (in_break != uart->in_break) chr_fe_ioctl(&uart->fe, CHR_IOCTL_SERIAL_SET_BREAK, &in_break);
    uart->in_break = in_break;
}

/* Speed and format of the line, where the chardev has one. */
static void drive_params(struct uart *uart)
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
    drive_lines(uart);
    drive_break(uart);
    uart->msr_delta |= modem_delta(before, modem_lines(uart));
    take_input(uart); /* leaving loopback connects the line again */
}

static void write_lcr(struct uart *uart, uint8_t value)
{
    int break_begins = value & ~uart->lcr & LCR_BREAK;
    int changed = (value ^ uart->lcr) & ~LCR_BREAK; /* the divisor counts when DLAB is gone again */
    uart->lcr = value;
    if (changed && !(value & LCR_DLAB)) drive_params(uart);
    drive_break(uart);
    if (break_begins && (uart->mcr & MCR_LOOP)) receive(uart, 0, LSR_BREAK);
}

static void write_ier(struct uart *uart, uint8_t value)
{
    int tx_enabled = value & ~uart->ier & IER_TX, rx_enabled = value & ~uart->ier & IER_RX;
    uart->ier = value & 0x0f;
    if (rx_enabled) restart_stale_timer(uart);
    if (tx_enabled && !uart->tx.count) uart->thr_interrupt = 1; /* drivers count on being told about an idle transmitter */
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
    uint8_t why = reason(uart);
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
    look_at_far_lines(uart);
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
    default: break; /* LSR and MSR are for reading */
    }
}

/* The registers are bytes; a wider access reaches the one at its address. */
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

/* ---- the chardev's side ---- */

/* The line's errors are LSR's bits: an overrun counts at once, the others belong to the byte that comes next. */
static void note_errors(struct uart *uart)
{
    int errors = 0;
    if (chr_fe_ioctl(&uart->fe, CHR_IOCTL_SERIAL_GET_ERRORS, &errors) < 0) return;
    uart->line_errors |= (uint8_t)(errors & LSR_OVERRUN);
    uart->next_error |= (uint8_t)(errors & ~LSR_OVERRUN);
}

static void got_event(void *opaque, int event)
{
    struct uart *uart = opaque;
    if (event == CHR_EVENT_BREAK && !(uart->mcr & MCR_LOOP)) {
        receive(uart, 0, LSR_BREAK);
        restart_stale_timer(uart);
    } else if (event == CHR_EVENT_LINE_ERROR) {
        note_errors(uart);
    } else if (event == CHR_EVENT_SERIAL || event == CHR_EVENT_OPENED || event == CHR_EVENT_CLOSED) {
        look_at_far_lines(uart);
    }
    take_input(uart); /* READABLE, or what was held back by the event */
    update_irq(uart);
}

/* Another backend is welcome at any time: what waits in the FIFO goes there. */
static int changed(void *opaque)
{
    struct uart *uart = opaque;
    if (uart->tx.count) chr_fe_add_watch(&uart->fe, flush, uart);
    drive_lines(uart);
    drive_params(uart);
    if (uart->in_break) chr_fe_ioctl(&uart->fe, CHR_IOCTL_SERIAL_SET_BREAK, &uart->in_break);
    look_at_far_lines(uart);
    return 0;
}

int uart_init(struct uart *uart, chr_dev *dev, chr_error *err)
{
    static const chr_handlers handlers = { .event = got_event, .change = changed };
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
    chr_timer_stop(&uart->stale_timer);
    chr_fe_deinit(&uart->fe);
}

/* Bytes on their way out still go: the wire doesn't notice a reset of the machine. */
void uart_reset(struct uart *uart)
{
    uart->ier = uart->fcr = uart->lcr = uart->scr = uart->msr_delta = uart->line_errors = uart->next_error = 0;
    uart->mcr = MCR_OUT2;
    uart->divisor_low = 12; /* 9600 baud */
    uart->divisor_high = 0;
    uart->thr_interrupt = uart->stale = 0;
    fifo_clear(&uart->rx);
    chr_timer_stop(&uart->stale_timer);
    if (uart->fe.dev) drive_lines(uart);
    if (uart->fe.dev) drive_break(uart);
    if (uart->fe.dev) take_input(uart);
    update_irq(uart);
}
