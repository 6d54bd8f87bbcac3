/*
 * plic.h - the platform-level interrupt controller of the virt board: one context, machine mode of one hart.
 *
 * Sources are level-triggered: while its line is high, a source is pending until it is claimed, and again after
 * completion.
 */
#ifndef TINYVM_PLIC_H
#define TINYVM_PLIC_H

#include <stdint.h>

#include "irq.h"

#define PLIC_SOURCES 64u /* source 0 is none */

struct plic {
    uint64_t   level, pending, claimed, enabled; /* one bit per source */
    uint32_t   priority[PLIC_SOURCES], threshold;
    struct irq out;
};

void     plic_reset(struct plic *plic);
void     plic_set(void *plic, int source, int level);
uint32_t plic_read(void *plic, uint32_t offset, unsigned size);
void     plic_write(void *plic, uint32_t offset, unsigned size, uint32_t value);

#endif
