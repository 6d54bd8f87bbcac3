/*
 * cpu.h - one RV32IM hart with machine mode: the base integer set, multiply and divide, Zicsr, Zifencei, traps, interrupts, wfi.
 *
 * The hart knows its memory and nothing of what stands around it: loads and stores outside of the RAM go through the bus hooks,
 * and whoever drives an interrupt says so with cpu_set_irq(). Only machine mode exists: mret always returns to it.
 */
#ifndef TINYVM_CPU_H
#define TINYVM_CPU_H

#include <stdint.h>

enum { CPU_IRQ_SOFTWARE = 1 << 3, CPU_IRQ_TIMER = 1 << 7, CPU_IRQ_EXTERNAL = 1 << 11 }; /* bits of mip */

struct cpu_bus {
    uint8_t *ram;
    uint32_t ram_base, ram_size;
    void    *opaque;
    int      (*read)(void *opaque, uint32_t address, unsigned size, uint32_t *value); /* 0 = nothing answers there */
    int      (*write)(void *opaque, uint32_t address, unsigned size, uint32_t value);
    uint64_t (*time)(void *opaque); /* what the `time` CSR reads */
};

struct cpu {
    struct cpu_bus bus;
    uint32_t       x[32];
    uint32_t       pc, next_pc;
    uint32_t       mstatus, mie, mip, mtvec, mscratch, mepc, mcause, mtval, mcounteren;
    uint32_t       pmpcfg[4], pmpaddr[16]; /* kept for software that sets them up; they protect nothing from machine mode */
    uint64_t       steps;       /* instructions begun since power-on: a count that software can't touch */
    uint64_t       cycles_zero; /* what mcycle is less than that, and minstret (traps don't retire) */
    uint64_t       not_retired;
    int            attention;   /* interrupts, wfi or a pause are to be looked at before the next instruction */
    int            waiting;     /* in wfi: nothing to do until an enabled interrupt is pending */
    int            pause;       /* cpu_pause() */
};

/* Power-on state; the RAM is left alone. Starts at `pc` with a0 = the hart's number, 0. */
void cpu_reset(struct cpu *cpu, uint32_t pc);
/* Runs up to `count` instructions, less when the hart waits or is paused. */
void cpu_run(struct cpu *cpu, unsigned count);
/* From a bus hook: leaves cpu_run() after the current instruction. */
void cpu_pause(struct cpu *cpu);
/* Drives one of the interrupt lines (CPU_IRQ_...). */
void cpu_set_irq(struct cpu *cpu, uint32_t line, int level);
/* Whether cpu_run() has something to do. */
int cpu_runnable(const struct cpu *cpu);

#endif
