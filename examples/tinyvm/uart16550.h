/*
 * uart16550.h - a 16550A serial port: the frontend end of a chardev, and the best example of one in this program.
 *
 * The frontend has buffers (chr_fe_set_buffers): guests move a byte at a time, and a system call for each would be most of what
 * they do. What the far side sends is read ahead and goes into the receive FIFO as long as that has room: a guest that doesn't read
 * pushes back (back-pressure). What the guest sends is gathered, and leaves with the next step of the loop; when the far side doesn't
 * read, the buffer is full, bytes stay in the transmit FIFO, and the transmitter isn't "empty" meanwhile. With nobody at the far side bytes are lost, as on an unplugged line.
 */
#ifndef TINYVM_UART16550_H
#define TINYVM_UART16550_H

#include <stdint.h>

#include "chardev.h"
#include "irq.h"

#define UART_FIFO   16
#define UART_BUFFER 8192 /* more than a guest moves between two steps of the loop */

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
void uart_turn(struct uart *uart);           /* after each few thousand instructions: more input comes to a guest that lives on interrupts */
int  uart_flushed(const struct uart *uart); /* whether all output is out */

uint32_t uart_read(void *uart, uint32_t offset, unsigned size);
void     uart_write(void *uart, uint32_t offset, unsigned size, uint32_t value);

#endif
