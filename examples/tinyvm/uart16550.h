/*
 * uart16550.h - a 16550A serial port: a frontend of a chardev, and the best example of one in this program.
 *
 * Input fills the receive FIFO; beyond that, the frontend's buffer reads 4 KiB ahead. While the guest doesn't read,
 * both are full and the far side is stopped (back-pressure). Output is collected in the frontend's buffer and written
 * at the end of the machine's slice. When that buffer is full, output stays in the transmit FIFO, and the guest sees
 * a transmitter that isn't empty (back-pressure). While the chardev is disconnected, output is dropped, as on an
 * unplugged line.
 */
#ifndef TINYVM_UART16550_H
#define TINYVM_UART16550_H

#include <stdint.h>

#include "chardev.h"
#include "irq.h"

#define UART_FIFO   16
#define UART_BUFFER 4096 /* bytes read ahead, and bytes of output collected */

struct uart_fifo {
    uint8_t data[UART_FIFO];
    uint8_t error[UART_FIFO]; /* LSR error bits of this byte */
    int     first, count;
};

struct uart {
    chr_context     *ctx;
    chr_frontend     fe;
    struct irq       irq;
    int              irq_level;
    struct uart_fifo rx, tx;
    uint8_t          divisor_low, divisor_high, ier, fcr, lcr, mcr, msr_delta, scr;
    uint8_t          far_lines;   /* lines of the far side, as bits of MSR */
    int              in_break;    /* a break is being sent */
    uint8_t          line_errors; /* LSR's OE, PE, FE, BI; cleared when LSR is read */
    uint8_t          next_error;  /* PE or FE of the next byte received */
    int              thr_interrupt; /* transmitter empty: pending until IIR is read or a byte is written */
    int              timed_out;         /* the receive time-out (IIR_TIMEOUT) has expired */
    chr_timer        timeout_timer;
};

/* Attaches to a chardev; NULL = none, an unplugged line. ctx and irq are set by the caller before. */
int  uart_init(struct uart *uart, chr_dev *dev, chr_error *err);
void uart_deinit(struct uart *uart);
void uart_reset(struct uart *uart);
int  uart_flushed(const struct uart *uart); /* whether the transmit FIFO is empty */
/* Called every few thousand instructions: moves input to the FIFO for a guest that uses interrupts. A guest that
 * polls gets it when it reads. */
void uart_turn(struct uart *uart);

uint32_t uart_read(void *uart, uint32_t offset, unsigned size);
void     uart_write(void *uart, uint32_t offset, unsigned size, uint32_t value);

#endif
