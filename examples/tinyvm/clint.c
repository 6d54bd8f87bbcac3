/* clint.c - mtime, mtimecmp, msip. */
#include "clint.h"

enum { MSIP = 0x0, COMPARE = 0x4000, COMPARE_HIGH = 0x4004, TIME = 0xbff8, TIME_HIGH = 0xbffc };

#define NS_PER_TICK  100
#define TICKS_PER_MS 10000u

uint64_t clint_time(const struct clint *clint)
{
    if (!clint->running) return clint->ticks;
    return clint->ticks + (uint64_t)(chr_loop_now(clint->ctx) - clint->started_at) / NS_PER_TICK;
}

static void set_time(struct clint *clint, uint64_t ticks)
{
    clint->ticks = ticks;
    clint->started_at = chr_loop_now(clint->ctx);
}

void clint_run(struct clint *clint, int running)
{
    set_time(clint, clint_time(clint));
    clint->running = running;
}

void clint_update(struct clint *clint)
{
    cpu_set_irq(clint->cpu, CPU_IRQ_TIMER, clint_time(clint) >= clint->compare);
}

int clint_wait_ms(const struct clint *clint)
{
    uint64_t now = clint_time(clint);
    if (clint->compare <= now) return 0;
    uint64_t ms = (clint->compare - now) / TICKS_PER_MS + 1;
    return clint->compare == UINT64_MAX ? -1 : ms > 1000000 ? 1000000 : (int)ms;
}

int64_t clint_deadline(const struct clint *clint)
{
    uint64_t ticks = clint->compare <= clint->ticks ? 0 : clint->compare - clint->ticks;
    if (!clint->running || ticks > (uint64_t)(INT64_MAX - clint->started_at) / NS_PER_TICK) return INT64_MAX;
    return clint->started_at + (int64_t)(ticks * NS_PER_TICK);
}

void clint_reset(struct clint *clint)
{
    set_time(clint, 0);
    clint->compare = UINT64_MAX; /* no interrupt until software sets it */
    clint->software = 0;
    cpu_set_irq(clint->cpu, CPU_IRQ_SOFTWARE, 0);
    clint_update(clint);
}

uint32_t clint_read(void *opaque, uint32_t offset, unsigned size)
{
    const struct clint *clint = opaque;
    (void)size;
    switch (offset) {
    case MSIP: return clint->software;
    case COMPARE: return (uint32_t)clint->compare;
    case COMPARE_HIGH: return (uint32_t)(clint->compare >> 32);
    case TIME: return (uint32_t)clint_time(clint);
    case TIME_HIGH: return (uint32_t)(clint_time(clint) >> 32);
    default: return 0;
    }
}

static uint64_t with_low(uint64_t old, uint32_t value) { return (old & ~(uint64_t)0xffffffffu) | value; }
static uint64_t with_high(uint64_t old, uint32_t value) { return (old & 0xffffffffu) | (uint64_t)value << 32; }

void clint_write(void *opaque, uint32_t offset, unsigned size, uint32_t value)
{
    struct clint *clint = opaque;
    (void)size;
    switch (offset) {
    case MSIP:
        clint->software = value & 1;
        cpu_set_irq(clint->cpu, CPU_IRQ_SOFTWARE, (int)clint->software);
        break;
    case COMPARE: clint->compare = with_low(clint->compare, value); break;
    case COMPARE_HIGH: clint->compare = with_high(clint->compare, value); break;
    case TIME: set_time(clint, with_low(clint_time(clint), value)); break;
    case TIME_HIGH: set_time(clint, with_high(clint_time(clint), value)); break;
    default: break;
    }
    clint_update(clint);
}
