/*
 * A guest whose output depends on the very instruction at which anything comes: it never stops counting, and each timer tick and
 * each byte of input is reported with the count, the time and the cycles it came at. Between ticks it computes for a while, then
 * sleeps in wfi. 'q' powers off. Built for RV32 without a library.
 */
#define UART     ((volatile unsigned char *)0x10000000)
#define PLIC(at) (*(volatile unsigned *)(0x0c000000 + (at)))
#define MTIME    (*(volatile unsigned *)0x0200bff8)
#define COMPARE  ((volatile unsigned *)0x02004000)
#define FINISHER (*(volatile unsigned *)0x00100000)

static volatile unsigned count, ticks, mixed = 1;

__asm__(".globl _start\n_start: la sp, stack_top\n call run\n"
        ".bss\n .align 4\n .space 4096\nstack_top:\n .text\n");

static void put(char c)
{
    while (!(UART[5] & 0x20)) {}
    UART[0] = (unsigned char)c;
}

static void put_hex(unsigned value)
{
    int i;
    for (i = 28; i >= 0; i -= 4) put("0123456789abcdef"[value >> i & 15]);
}

static void report(char what)
{
    unsigned cycles;
    __asm__ volatile("csrr %0, mcycle" : "=r"(cycles));
    put(what);
    put_hex(count), put('.'), put_hex(MTIME), put('.'), put_hex(cycles), put('.'), put_hex(mixed);
    put('\n');
}

static void set_timer(unsigned after)
{
    unsigned now = MTIME;
    COMPARE[1] = 0xffffffff;
    COMPARE[0] = now + after;
    COMPARE[1] = 0;
}

static void got(char c)
{
    report(c);
    mixed = mixed * 31 + (unsigned char)c;
    if (c == 'q') {
        FINISHER = 0x5555;
        for (;;) {}
    }
}

__attribute__((interrupt, aligned(4))) static void on_interrupt(void)
{
    unsigned cause;
    __asm__ volatile("csrr %0, mcause" : "=r"(cause));
    if (cause == 0x80000007u) {
        ticks++;
        set_timer(7001); /* 0.7 ms */
        if (ticks % 16 == 0) report('.');
    } else {
        unsigned source = PLIC(0x200004);
        while (UART[5] & 1) got((char)UART[0]);
        PLIC(0x200004) = source;
    }
}

static void work(unsigned rounds)
{
    while (rounds--) {
        count++;
        mixed = mixed * 1664525u + 1013904223u + (mixed >> 7);
    }
}

void run(void)
{
    unsigned seen;
    UART[2] = 0xc7; /* FIFOs, trigger at 14: below that the time-out tells */
    UART[3] = 3;
    UART[1] = 1;
    PLIC(4 * 10) = 1;
    PLIC(0x2000) = 1 << 10;
    PLIC(0x200000) = 0;
    __asm__ volatile("csrw mtvec, %0" ::"r"(on_interrupt));
    set_timer(7001);
    __asm__ volatile("csrw mie, %0" ::"r"(0x880));
    __asm__ volatile("csrsi mstatus, 8");
    report('!');
    for (seen = 0;;) {
        work(3000 + (mixed & 4095));
        if (ticks & 32) __asm__ volatile("wfi");
        seen++;
    }
}
