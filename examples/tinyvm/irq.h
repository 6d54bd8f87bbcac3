/*
 * irq.h - an interrupt line, from a device to an interrupt controller that the device doesn't know.
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
