/*
 * uart16550.h - a 16550A serial port: the frontend end of a chardev, and the best example of one in this program.
 *
 * What the far side sends goes into the receive FIFO as long as it has room, and behind it 4 KiB are read ahead: back-pressure for
 * a guest that doesn't read. What the guest sends is gathered by the chardev and leaves when the machine's slice is over. When that
 * buffer is full it stays in the transmit FIFO: back-pressure for the guest, whose transmitter isn't "empty" meanwhile. With nobody
 * at the far side bytes are lost, as on an unplugged line.
 */
#ifndef TINYVM_UART16550_H
#define TINYVM_UART16550_H

#include <stdint.h>

#include "chardev.h"
#include "irq.h"

#define UART_FIFO   16
#define UART_BUFFER 4096 /* bytes that the chardev reads ahead, and gathers */

struct uart_fifo {
    uint8_t data[UART_FIFO];
    uint8_t error[UART_FIFO]; /* the LSR bits that came with this byte */
    int     first, count;
};

struct uart {
    chr_context     *ctx;
    chr_frontend     fe;
    struct irq       irq;
    int              irq_level;
    struct uart_fifo rx, tx;
    uint8_t          divisor_low, divisor_high, ier, fcr, lcr, mcr, msr_delta, scr;
    uint8_t          far_lines;   /* the far side's, as MSR shows them */
    int              in_break;    /* the far side sees a break */
    uint8_t          line_errors; /* LSR's OE, PE, FE, BI, until it is read */
    uint8_t          next_error;  /* PE or FE, of the byte that comes next */
    int              thr_interrupt; /* "the transmitter has become empty", until IIR tells it or a byte is written */
    int              stale;         /* the receive time-out has expired */
    chr_timer        stale_timer;
};

/* Attaches to a chardev, or to none (NULL: an unplugged line). Set ctx and irq before. */
int  uart_init(struct uart *uart, chr_dev *dev, chr_error *err);
void uart_deinit(struct uart *uart);
void uart_reset(struct uart *uart);
int  uart_flushed(const struct uart *uart); /* whether all output is out */
/* After each few thousand instructions: more input comes to a guest that lives on interrupts. One that polls needs no turns. */
void uart_turn(struct uart *uart);

uint32_t uart_read(void *uart, uint32_t offset, unsigned size);
void     uart_write(void *uart, uint32_t offset, unsigned size, uint32_t value);

#endif
