/*
 * machine.h - the board: one hart, RAM, UARTs, PLIC, CLINT and test finisher, where QEMU's virt board has them.
 *
 *     0x00100000  finisher    0x5555 ends with status 0, (n << 16) | 0x3333 with n, 0x7777 resets
 *     0x02000000  CLINT       10 MHz
 *     0x0c000000  PLIC        context 0 = machine mode of hart 0
 *     0x10000000  UARTs       16550A, 0x100 apart, interrupts 10, 11, 12 ...
 *     0x80000000  RAM         execution starts here with a0 = 0 (hart) and a1 = 0 (there is no device tree)
 *
 * It is independent of monitors and of the kinds of its chardevs.
 */
#ifndef TINYVM_MACHINE_H
#define TINYVM_MACHINE_H

#include "buf.h"
#include "chardev.h"
#include "clint.h"
#include "cpu.h"
#include "plic.h"
#include "uart16550.h"

#define MACHINE_RAM_BASE 0x80000000u
#define MACHINE_UARTS    8

/* Requests of the guest through the finisher. */
enum machine_request { MACHINE_NO_REQUEST, MACHINE_POWER_OFF, MACHINE_RESET };

struct machine {
    chr_context      *ctx;
    struct cpu        cpu;
    struct clint      clint;
    struct plic       plic;
    struct uart       uarts[MACHINE_UARTS];
    int               uart_count;
    struct buf        image; /* loaded again at each reset */
    enum machine_request request;
    int               request_code; /* exit status of MACHINE_POWER_OFF */
};

/* Allocates the RAM of a zero-initialised machine. The program is the built-in firmware until machine_load(). */
int machine_init(struct machine *m, chr_context *ctx, uint32_t ram_size, chr_error *err);
/* Loads a program from a file: an RV32 ELF executable, or a raw image for the start of the RAM. */
int machine_load(struct machine *m, const char *path, chr_error *err);
/* Adds a serial port. */
int machine_add_uart(struct machine *m, chr_dev *dev, chr_error *err);
void machine_free(struct machine *m);

void machine_reset(struct machine *m);
void machine_pause(struct machine *m, int paused); /* stops or starts mtime */
/* Runs up to `most` instructions. Returns the milliseconds that the hart stays idle: 0 = it isn't, -1 = until an
 * event. */
int machine_run(struct machine *m, unsigned most);
/* The time on the context's clock, in ns, until which the hart stays idle: 0 = it isn't, INT64_MAX = until an event. */
int64_t machine_deadline(const struct machine *m);
int machine_flushed(const struct machine *m); /* whether the transmit FIFOs of all UARTs are empty */

#endif
