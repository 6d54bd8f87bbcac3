/*
 * cpu.h - one RV32IM hart with machine mode: base integer set, multiply and divide, Zicsr, Zifencei, traps,
 * interrupts, wfi.
 *
 * The hart accesses the RAM directly. Loads and stores elsewhere go through the bus hooks, and interrupt lines are
 * driven with cpu_set_irq(). Only machine mode exists: mret always returns to it.
 */
#ifndef TINYVM_CPU_H
#define TINYVM_CPU_H

#include <stdint.h>

enum { CPU_IRQ_SOFTWARE = 1 << 3, CPU_IRQ_TIMER = 1 << 7, CPU_IRQ_EXTERNAL = 1 << 11 }; /* bits of mip */

struct cpu_bus {
    uint8_t *ram;
    uint32_t ram_base, ram_size;
    void    *opaque;
    int (*read)(void *opaque, uint32_t address, unsigned size, uint32_t *value); /* 0 = access fault: no device there */
    int      (*write)(void *opaque, uint32_t address, unsigned size, uint32_t value);
    uint64_t (*time)(void *opaque); /* the value of the `time` CSR */
};

struct cpu {
    struct cpu_bus bus;
    uint32_t       x[32];
    uint32_t       pc, next_pc;
    uint32_t       mstatus, mie, mip, mtvec, mscratch, mepc, mcause, mtval, mcounteren;
    uint32_t       pmpcfg[4], pmpaddr[16]; /* stored only: they don't restrict machine mode */
    uint64_t       steps;       /* instructions started since power-on; software can't write it */
    uint64_t       cycles_zero; /* steps - mcycle */
    uint64_t       not_retired; /* steps - minstret: instructions that trapped don't retire */
    int            attention;   /* check for interrupts, wfi and pause before the next instruction */
    int            waiting;     /* in wfi: idle until an enabled interrupt is pending */
    int            pause;       /* cpu_pause() was called */
};

/* Sets the power-on state: execution starts at `pc` with a0 = 0, the hart's number. The RAM is unchanged. */
void cpu_reset(struct cpu *cpu, uint32_t pc);
/* Runs up to `count` instructions; fewer when the hart waits in wfi or is paused. */
void cpu_run(struct cpu *cpu, unsigned count);
/* Called in a bus hook: cpu_run() returns after the current instruction. */
void cpu_pause(struct cpu *cpu);
/* Sets the level of one of the interrupt lines (CPU_IRQ_...). */
void cpu_set_irq(struct cpu *cpu, uint32_t line, int level);
/* Whether cpu_run() would run an instruction. */
int cpu_runnable(const struct cpu *cpu);

#endif
