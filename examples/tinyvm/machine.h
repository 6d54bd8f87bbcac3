/*
 * machine.h - the board: one hart, RAM, UARTs, PLIC, CLINT and test finisher, where QEMU's virt board has them.
 *
 *     0x00100000  finisher    0x5555 ends with status 0, (n << 16) | 0x3333 with n, 0x7777 resets
 *     0x02000000  CLINT       10 MHz
 *     0x0c000000  PLIC        context 0 = machine mode of hart 0
 *     0x10000000  UARTs       16550A, 0x100 apart, interrupts 10, 11, 12 ...
 *     0x80000000  RAM         execution starts here with a0 = 0 (hart) and a1 = 0 (there is no device tree)
 *
 * It knows nothing of monitors or of what is behind its serial ports.
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

enum machine_wish { MACHINE_GOES_ON, MACHINE_POWER_OFF, MACHINE_RESET }; /* what the guest has asked of the finisher */

struct machine {
    chr_context      *ctx;
    struct cpu        cpu;
    struct clint      clint;
    struct plic       plic;
    struct uart       uarts[MACHINE_UARTS];
    int               uart_count;
    struct buf        image; /* loaded anew at each reset */
    enum machine_wish wish;
    int               wish_code; /* the exit status that goes with it */
};

/* Zero-initialise it. Gets the RAM; the program is the built-in firmware until machine_load(). */
int machine_init(struct machine *m, chr_context *ctx, uint32_t ram_size, chr_error *err);
/* Takes a program: an RV32 ELF file, or a raw image for the start of the RAM. */
int machine_load(struct machine *m, const char *path, chr_error *err);
/* One more serial port. */
int machine_add_uart(struct machine *m, chr_dev *dev, chr_error *err);
void machine_free(struct machine *m);

void machine_reset(struct machine *m);
void machine_pause(struct machine *m, int paused); /* stops the clock or lets it go on */
/* Runs a slice. Returns how many milliseconds may pass until there is something to do again: 0 = go on, -1 = only an event helps. */
int machine_run(struct machine *m, unsigned most);
/* When there is something to do again, on the context's clock: 0 = now, INT64_MAX = only an event helps. */
int64_t machine_deadline(const struct machine *m);
int machine_flushed(const struct machine *m); /* whether the UARTs have nothing left to send */

#endif
