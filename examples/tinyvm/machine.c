/* machine.c - the address map of the bus, reset, and time slices of the hart. */
#include "machine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "firmware.h"
#include "image.h"

#define TURN            2000u /* instructions between two uart_turn() */
#define UART_BASE       0x10000000u
#define UART_STRIDE     0x100u
#define UART_FIRST_IRQ  10

enum { FINISH_PASS = 0x5555, FINISH_FAIL = 0x3333, FINISH_RESET = 0x7777 };

/* ---- the finisher ---- */

static uint32_t finisher_read(void *opaque, uint32_t offset, unsigned size)
{
    (void)opaque, (void)offset, (void)size;
    return 0;
}

static void finisher_write(void *opaque, uint32_t offset, unsigned size, uint32_t value)
{
    struct machine *m = opaque;
    uint32_t        word = value & 0xffff;
    (void)size;
    if (offset || (word != FINISH_PASS && word != FINISH_FAIL && word != FINISH_RESET)) return;
    m->request = word == FINISH_RESET ? MACHINE_RESET : MACHINE_POWER_OFF;
    m->request_code = word == FINISH_FAIL ? (int)(value >> 16) : 0;
    cpu_pause(&m->cpu);
}

/* ---- the bus ---- */

struct region {
    uint32_t base, size;
    uint32_t (*read)(void *opaque, uint32_t offset, unsigned size);
    void     (*write)(void *opaque, uint32_t offset, unsigned size, uint32_t value);
    void    *opaque;
};

/* Finds the device at an address. Returns 0 when there is none. */
static int find_region(struct machine *m, uint32_t address, struct region *out)
{
    uint32_t      uart = (address - UART_BASE) / UART_STRIDE;
    struct region finisher = { 0x00100000, 0x1000, finisher_read, finisher_write, m };
    struct region clint = { 0x02000000, 0x10000, clint_read, clint_write, &m->clint };
    struct region plic = { 0x0c000000, 0x600000, plic_read, plic_write, &m->plic };
    if (address >= UART_BASE && uart < (uint32_t)m->uart_count) {
        struct region found = { UART_BASE + uart * UART_STRIDE, UART_STRIDE, uart_read, uart_write, &m->uarts[uart] };
        *out = found;
        return 1;
    }
    *out = address >= plic.base ? plic : address >= clint.base ? clint : finisher;
    return address >= out->base && address - out->base < out->size;
}

static int bus_read(void *opaque, uint32_t address, unsigned size, uint32_t *value)
{
    struct region r;
    if (!find_region(opaque, address, &r)) return 0;
    *value = r.read(r.opaque, address - r.base, size);
    return 1;
}

static int bus_write(void *opaque, uint32_t address, unsigned size, uint32_t value)
{
    struct region r;
    if (!find_region(opaque, address, &r)) return 0;
    r.write(r.opaque, address - r.base, size, value);
    return 1;
}

static uint64_t bus_time(void *opaque)
{
    struct machine *m = opaque;
    return clint_time(&m->clint);
}

static void external_interrupt(void *opaque, int number, int level)
{
    struct machine *m = opaque;
    (void)number;
    cpu_set_irq(&m->cpu, CPU_IRQ_EXTERNAL, level);
}

/* ---- assembling the machine ---- */

int machine_init(struct machine *m, chr_context *ctx, uint32_t ram_size, chr_error *err)
{
    struct cpu_bus bus = { calloc(ram_size, 1), MACHINE_RAM_BASE, ram_size, m, bus_read, bus_write, bus_time };
    if (!bus.ram) {
        err->code = CHR_ERR_NO_MEMORY;
        snprintf(err->text, sizeof err->text, "no %u MiB of memory for the guest", ram_size >> 20);
        return err->code;
    }
    m->ctx = m->clint.ctx = ctx;
    m->cpu.bus = bus;
    m->clint.cpu = &m->cpu;
    m->plic.out.set = external_interrupt;
    m->plic.out.opaque = m;
    buf_put(&m->image, firmware, firmware_size);
    return 0;
}

int machine_load(struct machine *m, const char *path, chr_error *err)
{
    uint32_t entry;
    buf_clear(&m->image);
    if (buf_read_file(&m->image, path) < 0) {
        err->code = CHR_ERR_IO;
        snprintf(err->text, sizeof err->text, "%s", strerror(errno));
        return err->code;
    }
    return image_load(&m->cpu.bus, m->image.data, m->image.len, &entry, err);
}

int machine_add_uart(struct machine *m, chr_dev *dev, chr_error *err)
{
    struct uart *uart = &m->uarts[m->uart_count];
    uart->ctx = m->ctx;
    uart->irq.set = plic_set;
    uart->irq.opaque = &m->plic;
    uart->irq.number = UART_FIRST_IRQ + m->uart_count;
    int rc = uart_init(uart, dev, err);
    if (rc == 0) m->uart_count++;
    return rc;
}

void machine_free(struct machine *m)
{
    for (int i = 0; i < m->uart_count; i++) uart_deinit(&m->uarts[i]);
    free(m->cpu.bus.ram);
    buf_free(&m->image);
}

void machine_reset(struct machine *m)
{
    uint32_t  entry = MACHINE_RAM_BASE;
    chr_error err;
    image_load(&m->cpu.bus, m->image.data, m->image.len, &entry, &err); /* can't fail: machine_load() has checked it */
    cpu_reset(&m->cpu, entry);
    clint_reset(&m->clint);
    for (int i = 0; i < m->uart_count; i++) uart_reset(&m->uarts[i]);
    plic_reset(&m->plic);
    m->request = MACHINE_NO_REQUEST;
}

void machine_pause(struct machine *m, int paused)
{
    clint_run(&m->clint, !paused);
}

static void serve_uarts(struct machine *m)
{
    for (int i = 0; i < m->uart_count; i++) uart_turn(&m->uarts[i]);
}

/* The UARTs are served after the last slice too: their input may end the hart's wfi. */
int machine_run(struct machine *m, unsigned most)
{
    clint_update(&m->clint);
    for (unsigned done = 0;; done += TURN) {
        serve_uarts(m);
        if (done >= most || m->request != MACHINE_NO_REQUEST || !cpu_runnable(&m->cpu)) break;
        cpu_run(&m->cpu, most - done < TURN ? most - done : TURN);
    }
    if (cpu_runnable(&m->cpu)) return 0;
    return m->cpu.mie & CPU_IRQ_TIMER ? clint_wait_ms(&m->clint) : -1;
}

int64_t machine_deadline(const struct machine *m)
{
    if (cpu_runnable(&m->cpu)) return 0;
    return m->cpu.mie & CPU_IRQ_TIMER ? clint_deadline(&m->clint) : INT64_MAX;
}

int machine_flushed(const struct machine *m)
{
    for (int i = 0; i < m->uart_count; i++)
        if (!uart_flushed(&m->uarts[i])) return 0;
    return 1;
}
