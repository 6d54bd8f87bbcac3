/* The RISC-V board of examples/tinyvm (and QEMU's virt): reset, exit, and the first UART with its interrupt. */
#include "machine.h"
#include <string.h>

extern unsigned char bss_start[], bss_end[];
void reset(void);
int  main(void);

#define FINISHER      (*(volatile uint32_t *)0x00100000)
#define PLIC_PRIORITY (*(volatile uint32_t *)(0x0c000000 + 4 * UART_LINE))
#define PLIC_ON       (*(volatile uint32_t *)0x0c002000)
#define PLIC_LIMIT    (*(volatile uint32_t *)0x0c200000)
#define PLIC_CLAIM    (*(volatile uint32_t *)0x0c200004)
#define UART          ((volatile unsigned char *)0x10000000)

enum {
    UART_LINE = 10,
    DATA = 0, ENABLE = 1, FORMAT = 3, STATE = 5, /* registers */
    RX_INTERRUPT = 1, TX_INTERRUPT = 2, RX_FULL = 1, TX_EMPTY = 0x20
};

__asm__(".section .start\n"
        ".globl _start\n"
        "_start: la sp, stack_top\n"
        ".option push\n"
        ".option norelax\n"
        "la gp, __global_pointer$\n"
        ".option pop\n"
        "j reset\n"
        ".text\n");

void reset(void)
{
    int status;

    memset(bss_start, 0, (size_t)(bss_end - bss_start));
    status = main();
    FINISHER = status ? (uint32_t)status << 16 | 0x3333 : 0x5555;
    for (;;)
        ;
}

chr_isr_ring         machine_rx, machine_tx;
volatile unsigned    machine_interrupts;
static unsigned char rx_bytes[64], tx_bytes[64];

static void uart_interrupt(void)
{
    unsigned char enable = RX_INTERRUPT | TX_INTERRUPT, byte;
    size_t        room, count;

    while (UART[STATE] & RX_FULL && (chr_isr_ring_put_span(&machine_rx, &room), room > 0)) {
        byte = UART[DATA];
        chr_isr_ring_put(&machine_rx, &byte, 1);
    }
    while (UART[STATE] & TX_EMPTY && chr_isr_ring_get(&machine_tx, &byte, 1) == 1)
        UART[DATA] = byte;
    (void)chr_isr_ring_put_span(&machine_rx, &room);
    (void)chr_isr_ring_get_span(&machine_tx, &count);
    if (room == 0) enable &= (unsigned char)~RX_INTERRUPT; /* until machine_receive() */
    if (count == 0) enable &= (unsigned char)~TX_INTERRUPT; /* until machine_send() */
    UART[ENABLE] = enable;
}

__attribute__((interrupt, aligned(4))) static void trap(void)
{
    uint32_t line = PLIC_CLAIM;

    if (line == UART_LINE) uart_interrupt();
    PLIC_CLAIM = line;
    machine_interrupts++;
}

void machine_start(void)
{
    chr_isr_ring_init(&machine_rx, rx_bytes, sizeof rx_bytes);
    chr_isr_ring_init(&machine_tx, tx_bytes, sizeof tx_bytes);
    PLIC_PRIORITY = 1;
    PLIC_ON = 1u << UART_LINE;
    PLIC_LIMIT = 0;
    UART[FORMAT] = 3; /* 8N1 */
    UART[ENABLE] = RX_INTERRUPT;
    __asm__ volatile("csrw mtvec, %0\n csrw mie, %1\n csrsi mstatus, 8" : : "r"(trap), "r"(0x800) : "memory");
}

/* Enables the interrupts; one is pending already, and is raised at once. */
void machine_send(void) { UART[ENABLE] = RX_INTERRUPT | TX_INTERRUPT; }
void machine_receive(void) { UART[ENABLE] = RX_INTERRUPT | TX_INTERRUPT; }

/* wfi returns when an interrupt is pending, even while interrupts are disabled. */
void machine_wait(unsigned seen)
{
    __asm__ volatile("csrci mstatus, 8" : : : "memory");
    if (machine_interrupts == seen) __asm__ volatile("wfi" : : : "memory");
    __asm__ volatile("csrsi mstatus, 8" : : : "memory");
}
