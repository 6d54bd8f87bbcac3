/* plic.c - priorities, pending and enable bits, threshold, claim and complete. */
#include "plic.h"

#include <string.h>

enum { PRIORITY = 0x0, PENDING = 0x1000, ENABLE = 0x2000, THRESHOLD = 0x200000, CLAIM = 0x200004 };

#define PRIORITY_MASK 7u

static uint64_t bit_of(uint32_t source)
{
    return (uint64_t)1 << source;
}

/* The enabled pending source with the highest priority above the threshold, the lowest one among equals; 0 = none. */
static uint32_t highest_source(const struct plic *plic)
{
    uint32_t winner = 0, highest = plic->threshold;
    uint64_t ready = plic->pending & plic->enabled;
    for (uint32_t i = 1; ready && i < PLIC_SOURCES; i++) {
        if (!(ready & bit_of(i)) || plic->priority[i] <= highest) continue;
        winner = i;
        highest = plic->priority[i];
    }
    return winner;
}

static void update(struct plic *plic)
{
    plic->pending |= plic->level & ~plic->claimed;
    plic->pending &= plic->level;
    irq_set(&plic->out, highest_source(plic) != 0);
}

void plic_reset(struct plic *plic)
{
    memset(plic->priority, 0, sizeof plic->priority);
    plic->claimed = plic->enabled = 0;
    plic->threshold = 0;
    update(plic);
}

void plic_set(void *opaque, int source, int level)
{
    struct plic *plic = opaque;
    if (level) plic->level |= bit_of((uint32_t)source);
    else plic->level &= ~bit_of((uint32_t)source);
    update(plic);
}

static uint32_t claim(struct plic *plic)
{
    uint32_t source = highest_source(plic);
    if (!source) return 0;
    plic->pending &= ~bit_of(source);
    plic->claimed |= bit_of(source);
    update(plic);
    return source;
}

static void complete(struct plic *plic, uint32_t source)
{
    if (source && source < PLIC_SOURCES) plic->claimed &= ~bit_of(source);
    update(plic);
}

static uint32_t word_of(uint64_t set, uint32_t word)
{
    return word < 2 ? (uint32_t)(set >> (32 * word)) : 0;
}

uint32_t plic_read(void *opaque, uint32_t offset, unsigned size)
{
    struct plic *plic = opaque;
    (void)size;
    if (offset < 4 * PLIC_SOURCES) return plic->priority[offset / 4];
    if (offset >= PENDING && offset < PENDING + 8) return word_of(plic->pending, (offset - PENDING) / 4);
    if (offset >= ENABLE && offset < ENABLE + 8) return word_of(plic->enabled, (offset - ENABLE) / 4);
    if (offset == THRESHOLD) return plic->threshold;
    return offset == CLAIM ? claim(plic) : 0;
}

static void write_enable(struct plic *plic, uint32_t word, uint32_t value)
{
    uint64_t mask = (uint64_t)0xffffffffu << (32 * word);
    plic->enabled = (plic->enabled & ~mask) | (uint64_t)value << (32 * word);
    plic->enabled &= ~(uint64_t)1;
}

void plic_write(void *opaque, uint32_t offset, unsigned size, uint32_t value)
{
    struct plic *plic = opaque;
    (void)size;
    if (offset == CLAIM) complete(plic, value);
    else if (offset == THRESHOLD) plic->threshold = value & PRIORITY_MASK;
    else if (offset >= 4 && offset < 4 * PLIC_SOURCES) plic->priority[offset / 4] = value & PRIORITY_MASK;
    else if (offset >= ENABLE && offset < ENABLE + 8) write_enable(plic, (offset - ENABLE) / 4, value);
    update(plic);
}
