/*
 * irq.h - an interrupt line: what a device drives without knowing what listens.
 */
#ifndef TINYVM_IRQ_H
#define TINYVM_IRQ_H

struct irq {
    void (*set)(void *opaque, int number, int level);
    void  *opaque;
    int    number;
};

static inline void irq_set(const struct irq *irq, int level)
{
    if (irq->set) irq->set(irq->opaque, irq->number, level);
}

#endif
