/*
 * A bare-metal program for the virt board (RV32IM, machine mode) that exercises it and prints what it sees. It takes commands on
 * its first serial port, by interrupts: arith, traps, csr, uart, timeout, plic, clint, pass, fail, reset; other lines come back. The output
 * is the same on every machine that does it right. `break` wants a BREAK from outside, `second` a second port at 0x10000100, `stopwatch` a byte.
 *
 * Built with -march=rv32im_zicsr -mabi=ilp32 -O1 -ffreestanding -nostdlib -static -Wl,-Ttext=0x80000000,--no-relax.
 */
#include <stdint.h>

#define REG8(address)  (*(volatile uint8_t *)(address))
#define REG32(address) (*(volatile uint32_t *)(address))

#define UART     0x10000000u
#define CLINT    0x02000000u
#define PLIC     0x0c000000u
#define FINISHER 0x00100000u
#define NOWHERE  0x00800000u /* nothing answers there */

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };

#define CSR_READ(name)         ({ uint32_t v; asm volatile("csrr %0, " #name : "=r"(v)); v; })
#define CSR_WRITE(name, value) asm volatile("csrw " #name ", %0" : : "r"(value))
#define CSR_SET(name, value)   asm volatile("csrs " #name ", %0" : : "r"(value))
#define CSR_CLEAR(name, value) asm volatile("csrc " #name ", %0" : : "r"(value))

/* The linker puts that section before all other code. */
asm(".section .text.unlikely.start,\"ax\"\n"
    ".globl _start\n"
    "_start: la sp, stack_top\n"
    "        la t0, __bss_start\n"
    "        la t1, _end\n"
    "1:      bgeu t0, t1, 2f\n"
    "        sw zero, 0(t0)\n"
    "        addi t0, t0, 4\n"
    "        j 1b\n"
    "2:      call main\n"
    "        j .\n"
    ".text\n");

uint32_t        stack[4096] __attribute__((section(".stack"), aligned(16)));
asm(".globl stack_top\n.set stack_top, stack + 16384\n");

static uint8_t  uart_read(int reg) { return REG8(UART + reg); }
static void     uart_write(int reg, uint8_t value) { REG8(UART + reg) = value; }

/* ---- output ---- */

static void put(char c)
{
    while (!(uart_read(LSR) & 0x20))
        ;
    uart_write(DATA, c);
}

static void print(const char *text)
{
    while (*text) put(*text++);
}

static void print_hex(uint32_t value)
{
    for (int shift = 28; shift >= 0; shift -= 4) put("0123456789abcdef"[value >> shift & 15]);
}

static void show(const char *what, uint32_t value)
{
    print(what);
    put(' ');
    print_hex(value);
    put('\n');
}

/* ---- traps and interrupts ---- */

static volatile uint32_t trap_cause, trap_value, trap_count, trap_skip;
static volatile uint32_t timer_count, software_count, external_count, last_claim;
static volatile char     input[256];
static volatile uint32_t input_head, input_tail;
static const char *volatile output; /* what goes out by transmitter interrupts */
static volatile uint32_t line_errors, timeouts, rx_interrupts, tx_interrupts;

static void uart_interrupt(void)
{
    uint8_t why;
    while (!((why = uart_read(IIR)) & 1)) {
        switch (why & 0x0f) {
        case 0x06: line_errors |= uart_read(LSR) & 0x1e; break;
        case 0x0c: timeouts++; input[input_head++ % 256] = uart_read(DATA); break;
        case 0x04: rx_interrupts++; input[input_head++ % 256] = uart_read(DATA); break;
        case 0x02:
            tx_interrupts++;
            if (output && *output) uart_write(DATA, *output++);
            break;
        default: uart_read(MSR); break;
        }
    }
}

static volatile uint32_t second_bytes;

static void second_interrupt(void)
{
    while (REG8(UART + 0x105) & 1) {
        REG8(UART + 0x100) = REG8(UART + 0x100) ^ 0x20;
        second_bytes++;
    }
}

static void interrupt(uint32_t number)
{
    if (number == 7) {
        timer_count++;
        REG32(CLINT + 0x4004) = 0xffffffffu;
    } else if (number == 3) {
        software_count++;
        REG32(CLINT) = 0;
    } else if (number == 11) {
        uint32_t source = REG32(PLIC + 0x200004);
        external_count++;
        last_claim = source;
        if (source == 10) uart_interrupt();
        if (source == 11) second_interrupt();
        REG32(PLIC + 0x200004) = source;
    }
}

__attribute__((interrupt("machine"), aligned(4))) static void on_trap(void)
{
    uint32_t cause = CSR_READ(mcause);
    if (cause >> 31) {
        interrupt(cause & 0xff);
        return;
    }
    trap_cause = cause;
    trap_value = CSR_READ(mtval);
    trap_count++;
    CSR_WRITE(mepc, trap_skip ? trap_skip : CSR_READ(mepc) + 4);
    trap_skip = 0;
}

/* Entry 7 and 11 of a vector table: shows that mtvec's vectored mode lands there. */
static volatile uint32_t vector_hits;
void vectored_timer(void);
void vectored_software(void);
__attribute__((interrupt("machine"))) void vectored_timer(void)
{
    vector_hits += 1;
    REG32(CLINT + 0x4004) = 0xffffffffu;
}
__attribute__((interrupt("machine"))) void vectored_software(void)
{
    vector_hits += 0x100;
    REG32(CLINT) = 0;
}
asm(".text\n.balign 256\nvectors: .option push\n.option norvc\n"
    "j . \n j .\n j .\n j vectored_software_entry\n j .\n j .\n j .\n j vectored_timer_entry\n"
    "vectored_software_entry: j vectored_software\nvectored_timer_entry: j vectored_timer\n.option pop\n");
void vectors(void);

static void interrupts_on(void) { CSR_SET(mstatus, 8); }
static void interrupts_off(void) { CSR_CLEAR(mstatus, 8); }

/* Sleeps until the condition holds; no wake-up is lost because wfi returns on a pending interrupt even while they are off. */
#define WAIT_FOR(condition)                   \
    do {                                      \
        interrupts_off();                     \
        while (!(condition)) {                \
            asm volatile("wfi");              \
            interrupts_on();                  \
            asm volatile("nop");              \
            interrupts_off();                 \
        }                                     \
        interrupts_on();                      \
    } while (0)

/* ---- arith ---- */

static const uint32_t numbers[] = { 0, 1, 2, 3, 7, 31, 32, 0x7ffffffe, 0x7fffffff, 0x80000000, 0x80000001, 0xfffffff9, 0xffffffff, 0x12345678 };
#define NUMBERS (sizeof numbers / sizeof numbers[0])

#define OPERATIONS(X) X(add) X(sub) X(sll) X(slt) X(sltu) X(xor) X(srl) X(sra) X(or) X(and) \
                      X(mul) X(mulh) X(mulhsu) X(mulhu) X(div) X(divu) X(rem) X(remu)

static void arith_one(const char *name, uint32_t a, uint32_t b, uint32_t r)
{
    print(name);
    put(' ');
    print_hex(a);
    put(' ');
    print_hex(b);
    put(' ');
    print_hex(r);
    put('\n');
}

static void arith(void)
{
    for (unsigned i = 0; i < NUMBERS; i++)
        for (unsigned k = 0; k < NUMBERS; k++) {
            uint32_t a = numbers[i], b = numbers[k], r;
#define ONE(op) asm volatile(#op " %0, %1, %2" : "=r"(r) : "r"(a), "r"(b)); arith_one(#op, a, b, r);
            OPERATIONS(ONE)
        }
}

/* ---- traps ---- */

static void show_trap(const char *what)
{
    print(what);
    print(" cause ");
    print_hex(trap_cause);
    print(" value ");
    print_hex(trap_value);
    print(" count ");
    print_hex(trap_count);
    put('\n');
}

static void jump_to(uint32_t address)
{
    asm volatile("la t0, 1f\n sw t0, 0(%1)\n jr %0\n 1:" : : "r"(address), "r"(&trap_skip) : "t0", "memory");
}

static void traps(void)
{
    static uint8_t bytes[16] __attribute__((aligned(4))) = { 1, 2, 3, 0x84, 5, 6, 7, 8 };
    uint32_t       value = 0x5a5a5a5a;
    trap_count = 0;
    asm volatile(".word 0xffffffff");
    show_trap("illegal");
    asm volatile(".word 0x00000000");
    show_trap("zeros");
    asm volatile("csrw mhartid, zero");
    show_trap("read-only");
    asm volatile("ecall");
    show_trap("ecall");
    asm volatile("lw %0, 0(%1)" : "+r"(value) : "r"(NOWHERE));
    show_trap("load");
    show("register kept", value);
    asm volatile("sw %0, 4(%1)" : : "r"(value), "r"(NOWHERE));
    show_trap("store");
    jump_to(NOWHERE);
    show_trap("fetch");
    jump_to(0x80000002u);
    show_trap("misaligned jump");
    show("misaligned word", *(volatile uint32_t *)(bytes + 1));
    show("misaligned half", (uint32_t) * (volatile int16_t *)(bytes + 3));
    *(volatile uint32_t *)(bytes + 5) = 0xcafebabe;
    show("misaligned store", *(volatile uint32_t *)(bytes + 4));
    show("signed byte", (uint32_t) * (volatile int8_t *)(bytes + 3));
    asm volatile("fence\n fence.i");
    show("count", trap_count);
}

static void csr(void)
{
    uint32_t old, old2, again, low, high;
    CSR_WRITE(mscratch, 0x0ff0);
    asm volatile("csrrs %0, mscratch, %1" : "=r"(old) : "r"(0xf000));
    show("csrrs", old);
    asm volatile("csrrc %0, mscratch, %1" : "=r"(old) : "r"(0x00f0));
    show("csrrc", old);
    asm volatile("csrrwi %0, mscratch, 21" : "=r"(old));
    show("csrrwi", old);
    asm volatile("csrrsi %0, mscratch, 10" : "=r"(old));
    show("csrrsi", old);
    asm volatile("csrrci %0, mscratch, 1" : "=r"(old));
    show("csrrci", old);
    show("mscratch", CSR_READ(mscratch));
    show("mhartid", CSR_READ(mhartid));
    show("misa", CSR_READ(misa) & 0xc0001100);
    old = CSR_READ(mcycle);
    old2 = CSR_READ(minstret);
    again = CSR_READ(mcycle);
    show("cycles pass", again != old);
    show("instructions pass", CSR_READ(minstret) != old2);
    low = CSR_READ(time);
    high = REG32(CLINT + 0xbff8);
    show("time is mtime", high - low < 100000000);
    interrupts_off();
    CSR_SET(mstatus, 0x80);
    asm volatile("la t0, 1f\n csrw mepc, t0\n li t0, 0x1800\n csrs mstatus, t0\n mret\n 1:" : : : "t0");
    show("mret enables", CSR_READ(mstatus) & 0x88);
}

/* ---- uart ---- */

static void quiet(void)
{
    interrupts_off();
    uart_write(IER, 0);
}

static void listen(void)
{
    uart_write(LCR, 3);
    uart_write(MCR, 8);
    uart_write(IIR, 0x07);
    uart_write(IER, 1);
    interrupts_on();
}

static void loop_back(void)
{
    uint32_t seen = 0, lsr, iir, first;
    uart_write(MCR, 0x10);
    for (int i = 0; i < 18; i++) uart_write(DATA, (uint8_t)(0x40 + i)); /* two more than fit */
    lsr = uart_read(LSR);
    first = uart_read(DATA);
    for (int i = 1; uart_read(LSR) & 1; i++) seen = seen * 3 + uart_read(DATA);
    uart_write(IIR, 0x81 | 0x02); /* trigger at 8 */
    uart_write(IER, 1);
    for (int i = 0; i < 7; i++) uart_write(DATA, 'x');
    iir = uart_read(IIR) & 0x0f;
    uart_write(DATA, 'y');
    iir = iir << 8 | (uart_read(IIR) & 0x0f);
    uart_read(DATA);
    iir = iir << 8 | (uart_read(IIR) & 0x03);
    uart_write(IIR, 0x07);
    uart_write(IER, 0);
    uart_write(MCR, 0x1a);
    uint32_t msr = uart_read(MSR) & 0xf0;
    uart_write(MCR, 0x08);
    uart_read(MSR);
    show("loop overrun lsr", lsr & 0x03);
    show("loop first", first);
    show("loop bytes", seen);
    show("trigger iir", iir);
    show("loop msr", msr);
}

static void interrupts_of_uart(void)
{
    uint32_t first, second, third;
    uart_write(IIR, 0x07);
    uart_write(IER, 2); /* an idle transmitter says so at once */
    first = uart_read(IIR);
    second = uart_read(IIR); /* reading it took it away */
    uart_write(IER, 0);
    uart_write(IER, 2);
    third = uart_read(IIR);
    uart_write(IER, 0);
    show("thre iir", first << 16 | second << 8 | third);
    tx_interrupts = 0;
    output = "sent by interrupts\n";
    interrupts_on();
    uart_write(IER, 2);
    WAIT_FOR(!*output);
    quiet();
    show("tx interrupts", tx_interrupts > 18);
}

static void set_divisor(uint32_t divisor)
{
    uart_write(LCR, 0x83);
    uart_write(DATA, (uint8_t)divisor);
    uart_write(IER, (uint8_t)(divisor >> 8));
    uart_write(LCR, 0x03);
}

static void uart(void)
{
    quiet();
    uart_write(LCR, 0x83);
    uart_write(DATA, 0x34);
    uart_write(IER, 0x12);
    uint32_t divisor = (uint32_t)uart_read(IER) << 8 | uart_read(DATA);
    set_divisor(1200); /* so slow that no receive time-out comes between */
    show("divisor", divisor);
    uart_write(SCR, 0xa5);
    show("scratch", uart_read(SCR));
    show("lcr", uart_read(LCR));
    show("idle lsr", uart_read(LSR));
    show("idle iir", uart_read(IIR));
    show("msr", uart_read(MSR) & 0xf0);
    uart_write(IIR, 0);
    show("iir without fifos", uart_read(IIR));
    uart_write(IIR, 0x01);
    loop_back();
    interrupts_of_uart();
    set_divisor(1);
    listen();
}

/* Seven bytes with the trigger at 14: they can only come by the time-out interrupt. */
static void timeout(void)
{
    uint32_t from;
    quiet();
    uart_write(IIR, 0xc7);
    timeouts = rx_interrupts = 0;
    from = input_head;
    print("send seven\n");
    uart_write(IER, 1);
    WAIT_FOR(input_head - from >= 7);
    quiet();
    show("timeouts", timeouts != 0);
    show("below the trigger", rx_interrupts == 0);
    show("source", last_claim);
    input_tail = input_head;
    listen();
}

/* A BREAK is a line status interrupt and a zero byte; the byte behind it is an ordinary one. */
static void line_break(void)
{
    line_errors = 0;
    uart_write(IER, 5);
    print("send break\n");
    WAIT_FOR(line_errors && input_tail != input_head);
    show("line errors", line_errors);
    show("its byte", (uint8_t)input[input_tail++ % 256]);
    show("lsr after it", uart_read(LSR));
    uart_write(IER, 1);
}

/* How much time passes on the machine's clock until a byte comes. */
static void stopwatch(void)
{
    uint32_t from = REG32(CLINT + 0xbff8);
    print("stop me\n");
    WAIT_FOR(input_tail != input_head);
    input_tail++;
    show("ticks", REG32(CLINT + 0xbff8) - from);
}

static void second_port(void)
{
    REG32(PLIC + 4 * 11) = 1;
    REG32(PLIC + 0x2000) = 3 << 10;
    REG8(UART + 0x101) = 1;
    print("send five\n");
    WAIT_FOR(second_bytes >= 5);
    show("source", last_claim);
}

/* ---- plic ---- */

/* Claim and complete by hand, with a byte in the UART that nobody takes. */
static void plic(void)
{
    uint32_t seen[7];
    quiet();
    uart_write(MCR, 0x10);
    uart_write(IER, 1);
    uart_write(DATA, 'x');
    seen[0] = REG32(PLIC + 0x1000) & 1 << 10;
    REG32(PLIC + 0x200000) = 1;
    seen[1] = CSR_READ(mip) & 0x800; /* not above the threshold */
    REG32(PLIC + 0x200000) = 0;
    seen[2] = CSR_READ(mip) & 0x800;
    seen[3] = REG32(PLIC + 0x200004);
    seen[4] = REG32(PLIC + 0x200004) | (CSR_READ(mip) & 0x800); /* claimed already */
    REG32(PLIC + 0x200004) = 10;
    seen[5] = REG32(PLIC + 0x200004); /* the line is still up: pending again */
    uart_read(DATA);
    REG32(PLIC + 0x200004) = 10;
    seen[6] = REG32(PLIC + 0x200004) | (CSR_READ(mip) & 0x800);
    listen();
    for (int i = 0; i < 7; i++) show(i == 5 ? "again" : "plic", seen[i]);
}

/* ---- clint ---- */

static void timer_in(uint32_t ticks)
{
    uint32_t low = REG32(CLINT + 0xbff8), high = REG32(CLINT + 0xbffc);
    uint32_t at = low + ticks;
    REG32(CLINT + 0x4004) = 0xffffffffu;
    REG32(CLINT + 0x4000) = at;
    REG32(CLINT + 0x4004) = high + (at < low);
}

static void clint(void)
{
    uint32_t before = REG32(CLINT + 0xbff8);
    timer_count = software_count = 0;
    REG32(CLINT + 0x4004) = 0xffffffffu; /* some machines start with a compare value of 0 */
    CSR_SET(mie, 0x88);
    for (uint32_t i = 1; i <= 3; i++) {
        timer_in(100000); /* 10 ms */
        WAIT_FOR(timer_count >= i);
    }
    show("timer", timer_count);
    show("30 ms passed", REG32(CLINT + 0xbff8) - before >= 300000);
    REG32(CLINT) = 1;
    WAIT_FOR(software_count);
    show("software", software_count);
    CSR_WRITE(mtvec, (uint32_t)vectors | 1);
    vector_hits = 0;
    REG32(CLINT) = 1;
    WAIT_FOR(vector_hits & 0xff00);
    timer_in(1000);
    WAIT_FOR(vector_hits & 0xff);
    CSR_WRITE(mtvec, (uint32_t)on_trap);
    show("vectored", vector_hits);
    CSR_CLEAR(mie, 0x88);
}

/* ---- commands ---- */

static char line[128];

static char get(void)
{
    WAIT_FOR(input_tail != input_head);
    return input[input_tail++ % 256];
}

static void read_line(void)
{
    unsigned len = 0;
    char     c;
    while ((c = get()) != '\n')
        if (len < sizeof line - 1) line[len++] = c;
    line[len] = 0;
}

static int is(const char *name)
{
    unsigned i = 0;
    while (name[i] && name[i] == line[i]) i++;
    return !name[i] && !line[i];
}

static void finish(uint32_t value)
{
    REG32(FINISHER) = value;
    for (;;) asm volatile("wfi");
}

void main(void);
void main(void)
{
    CSR_WRITE(mtvec, (uint32_t)on_trap);
    REG32(PLIC + 4 * 10) = 1;
    REG32(PLIC + 0x2000) = 1 << 10;
    REG32(PLIC + 0x200000) = 0;
    CSR_WRITE(mie, 0x800);
    listen();
    print("ready\n");
    for (;;) {
        read_line();
        if (is("arith")) arith();
        else if (is("traps")) traps();
        else if (is("csr")) csr();
        else if (is("uart")) uart();
        else if (is("timeout")) timeout();
        else if (is("plic")) plic();
        else if (is("clint")) clint();
        else if (is("break")) line_break();
        else if (is("second")) second_port();
        else if (is("stopwatch")) stopwatch();
        else if (is("pass")) finish(0x5555);
        else if (is("fail")) finish(7 << 16 | 0x3333);
        else if (is("reset")) finish(0x7777);
        else print(line), put('\n');
        print("done\n");
    }
}
