/*
 * A bare-metal program for the virt board (RV32IM, machine mode) that uses its 16550 as a boot loader does: it asks
 * LSR, then moves one byte. A command is a letter and a count (four bytes, the lowest first):
 *     w  writes as many bytes
 *     r  reads as many, and answers with their sum
 *     q  ends the machine
 * It says '!' when it is ready for them: switching on the FIFOs empties them.
 */
#include <stdint.h>

enum { DATA, FCR = 2, LSR = 5, LSR_READY = 0x01, LSR_THR_EMPTY = 0x20, FIFO_ON = 0x07 };

static volatile uint8_t *const  uart = (volatile uint8_t *)0x10000000;
static volatile uint32_t *const finisher = (volatile uint32_t *)0x00100000;

/* The linker puts that section before all other code: QEMU starts at the beginning of RAM. */
asm(".section .text.unlikely.start,\"ax\"\n"
    ".globl _start\n"
    "_start: li sp, 0x80100000\n"
    "        j run\n"
    ".text\n");

static uint8_t get(void)
{
    while (!(uart[LSR] & LSR_READY)) {}
    return uart[DATA];
}

static void put(uint32_t byte)
{
    while (!(uart[LSR] & LSR_THR_EMPTY)) {}
    uart[DATA] = (uint8_t)byte;
}

static uint32_t get_word(void)
{
    uint32_t value = 0;
    for (int shift = 0; shift < 32; shift += 8) value |= (uint32_t)get() << shift;
    return value;
}

static void put_word(uint32_t value)
{
    for (int shift = 0; shift < 32; shift += 8) put(value >> shift);
}

static uint32_t sum_of(uint32_t count)
{
    uint32_t sum = 0;
    while (count--) sum += get();
    return sum;
}

__attribute__((used)) static void run(void)
{
    uart[FCR] = FIFO_ON;
    put('!');
    for (;;) {
        uint8_t  command = get();
        uint32_t count = get_word();
        if (command == 'w')
            for (uint32_t i = 0; i < count; i++) put(i * 7);
        if (command == 'r') put_word(sum_of(count));
        if (command == 'q') *finisher = 0x5555;
    }
}
