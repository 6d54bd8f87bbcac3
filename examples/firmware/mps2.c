/* A Cortex-M3 board, Arm's MPS2 (QEMU: -M mps2-an385): reset, exit, and UART0 with its two interrupts. */
#include "machine.h"
#include <string.h>

extern unsigned char data_start[], data_end[], bss_start[], bss_end[], stack_top[];
extern const unsigned char data_image[];
void reset(void);
int  main(void);

/* Semihosting's SYS_EXIT_EXTENDED: ends QEMU with this status. */
static void machine_exit(int status)
{
    unsigned block[2] = { 0x20026, 0 };
    block[1] = (unsigned)status;
    __asm__ volatile("mov r0, #0x20\n mov r1, %0\n bkpt 0xab" : : "r"(block) : "r0", "r1", "memory");
    for (;;)
        ;
}

void reset(void)
{
    memcpy(data_start, data_image, (size_t)(data_end - data_start));
    memset(bss_start, 0, (size_t)(bss_end - bss_start));
    machine_exit(main());
}

static void fault(void)
{
    machine_exit(99);
}

/* ---- the UART ---------------------------------------------------------------------------------------------------- */

typedef struct uart_registers {
    volatile uint32_t data, state, control, interrupt, divider;
} uart_registers;

#define UART0      ((uart_registers *)0x40004000)
#define NVIC_ON    (*(volatile uint32_t *)0xe000e100)
#define NVIC_RAISE (*(volatile uint32_t *)0xe000e200)

enum {
    TX_FULL = 1, RX_FULL = 2,                                        /* state */
    TX_ON = 1, RX_ON = 2, TX_INTERRUPT = 4, RX_INTERRUPT = 8,        /* control */
    TX_DONE = 1, RX_DONE = 2,                                        /* interrupt */
    RX_LINE = 1, TX_LINE = 2                                         /* of the interrupt controller */
};

chr_isr_ring         machine_rx, machine_tx;
volatile unsigned    machine_interrupts;
static unsigned char rx_bytes[64], tx_bytes[64];

/* While the ring is full, bytes stay in the UART. */
static void received(void)
{
    unsigned char byte;
    size_t        room;

    UART0->interrupt = RX_DONE;
    while (UART0->state & RX_FULL && (chr_isr_ring_put_span(&machine_rx, &room), room > 0)) {
        byte = (unsigned char)UART0->data;
        chr_isr_ring_put(&machine_rx, &byte, 1);
    }
    machine_interrupts++;
}

static void transmitted(void)
{
    unsigned char byte;

    UART0->interrupt = TX_DONE;
    while (!(UART0->state & TX_FULL) && chr_isr_ring_get(&machine_tx, &byte, 1) == 1)
        UART0->data = byte;
    machine_interrupts++;
}

void machine_start(void)
{
    chr_isr_ring_init(&machine_rx, rx_bytes, sizeof rx_bytes);
    chr_isr_ring_init(&machine_tx, tx_bytes, sizeof tx_bytes);
    UART0->divider = 16;
    UART0->control = TX_ON | RX_ON | TX_INTERRUPT | RX_INTERRUPT;
    NVIC_ON = RX_LINE | TX_LINE;
}

/* Sets the interrupts pending: the handlers check the state of the UART themselves. */
void machine_send(void) { NVIC_RAISE = TX_LINE; }
void machine_receive(void) { NVIC_RAISE = RX_LINE; }

/* wfi returns when an interrupt is pending, even while interrupts are disabled. */
void machine_wait(unsigned seen)
{
    __asm__ volatile("cpsid i" : : : "memory");
    if (machine_interrupts == seen) __asm__ volatile("wfi" : : : "memory");
    __asm__ volatile("cpsie i" : : : "memory");
}

typedef struct vector_table {
    void *stack;
    void (*handlers[17])(void);
} vector_table;

__attribute__((section(".vectors"), used)) static const vector_table vectors = {
    stack_top,
    { reset, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, received,
      transmitted }
};
