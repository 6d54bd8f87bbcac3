/*
 * cpu.c - the hart: an interpreter that decodes each instruction when it executes it.
 *
 * One instruction: fetch, execute() by major opcode, then pc = next_pc. An exception calls trap(), which sets next_pc
 * to the handler; the function that raised it then returns without writing a register.
 */
#include "cpu.h"

#include <string.h>

enum {
    CAUSE_FETCH_MISALIGNED = 0,
    CAUSE_FETCH_FAULT = 1,
    CAUSE_ILLEGAL = 2,
    CAUSE_BREAKPOINT = 3,
    CAUSE_LOAD_MISALIGNED = 4,
    CAUSE_LOAD_FAULT = 5,
    CAUSE_STORE_MISALIGNED = 6,
    CAUSE_STORE_FAULT = 7,
    CAUSE_ECALL_M = 11
};

#define CAUSE_INTERRUPT 0x80000000u
#define MSTATUS_MIE     0x00000008u
#define MSTATUS_MPIE    0x00000080u
#define MSTATUS_MPP     0x00001800u /* always machine mode */
#define MIE_WRITABLE    (CPU_IRQ_SOFTWARE | CPU_IRQ_TIMER | CPU_IRQ_EXTERNAL)
#define MISA            0x40001100u /* RV32, I and M */

/* ---- fields of an instruction ---- */

static uint32_t bits(uint32_t insn, int low, int count) { return (insn >> low) & ((1u << count) - 1); }
static uint32_t rd_of(uint32_t insn) { return bits(insn, 7, 5); }
static uint32_t rs1_of(uint32_t insn) { return bits(insn, 15, 5); }
static uint32_t rs2_of(uint32_t insn) { return bits(insn, 20, 5); }
static uint32_t funct3_of(uint32_t insn) { return bits(insn, 12, 3); }
static uint32_t funct7_of(uint32_t insn) { return bits(insn, 25, 7); }

static uint32_t sign_extend(uint32_t value, int width)
{
    uint32_t sign = 1u << (width - 1);
    return (value ^ sign) - sign;
}

static uint32_t imm_i(uint32_t insn) { return sign_extend(insn >> 20, 12); }
static uint32_t imm_s(uint32_t insn) { return sign_extend(bits(insn, 25, 7) << 5 | bits(insn, 7, 5), 12); }

static uint32_t imm_b(uint32_t insn)
{
    return sign_extend(
        bits(insn, 31, 1) << 12 | bits(insn, 7, 1) << 11 | bits(insn, 25, 6) << 5 | bits(insn, 8, 4) << 1, 13);
}

static uint32_t imm_j(uint32_t insn)
{
    return sign_extend(
        bits(insn, 31, 1) << 20 | bits(insn, 12, 8) << 12 | bits(insn, 20, 1) << 11 | bits(insn, 21, 10) << 1, 21);
}

/* ---- traps and interrupts ---- */

static void enter_handler(struct cpu *cpu, uint32_t cause, uint32_t value, uint32_t return_to)
{
    uint32_t vector = cpu->mtvec & ~3u;
    if ((cpu->mtvec & 1) && (cause & CAUSE_INTERRUPT)) vector += 4 * (cause & ~CAUSE_INTERRUPT);
    cpu->mcause = cause;
    cpu->mtval = value;
    cpu->mepc = return_to;
    cpu->mstatus = MSTATUS_MPP | ((cpu->mstatus & MSTATUS_MIE) ? MSTATUS_MPIE : 0);
    cpu->next_pc = vector;
}

static void trap(struct cpu *cpu, uint32_t cause, uint32_t value)
{
    enter_handler(cpu, cause, value, cpu->pc);
    cpu->not_retired++;
}

static void illegal(struct cpu *cpu, uint32_t insn)
{
    trap(cpu, CAUSE_ILLEGAL, insn);
}

/* Priority of interrupts, by the architecture: external, software, timer. */
static uint32_t first_interrupt(uint32_t pending)
{
    if (pending & CPU_IRQ_EXTERNAL) return 11;
    if (pending & CPU_IRQ_SOFTWARE) return 3;
    return 7;
}

static void take_interrupt(struct cpu *cpu)
{
    uint32_t pending = cpu->mip & cpu->mie;
    if (!pending || !(cpu->mstatus & MSTATUS_MIE)) return;
    enter_handler(cpu, CAUSE_INTERRUPT | first_interrupt(pending), 0, cpu->pc);
    cpu->pc = cpu->next_pc;
}

void cpu_set_irq(struct cpu *cpu, uint32_t line, int level)
{
    if (level) cpu->mip |= line;
    else cpu->mip &= ~line;
    cpu->attention = 1;
}

int cpu_runnable(const struct cpu *cpu)
{
    return !cpu->waiting || (cpu->mip & cpu->mie);
}

/* ---- memory ---- */

/* Addresses below the RAM wrap to large offsets, which are outside too. */
static int in_ram(const struct cpu_bus *bus, uint32_t address, unsigned size)
{
    return address - bus->ram_base <= bus->ram_size - size;
}

static uint32_t ram_read(const struct cpu_bus *bus, uint32_t address, unsigned size)
{
    const uint8_t *p = bus->ram + (address - bus->ram_base);
    if (size == 1) return p[0];
    if (size == 2) return (uint32_t)p[0] | (uint32_t)p[1] << 8;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void ram_write(const struct cpu_bus *bus, uint32_t address, unsigned size, uint32_t value)
{
    uint8_t *p = bus->ram + (address - bus->ram_base);
    p[0] = (uint8_t)value;
    if (size >= 2) p[1] = (uint8_t)(value >> 8);
    if (size == 4) p[2] = (uint8_t)(value >> 16), p[3] = (uint8_t)(value >> 24);
}

/* Misaligned accesses are allowed in RAM, as on the virt board; devices raise an exception. */
static int load(struct cpu *cpu, uint32_t address, unsigned size, uint32_t *value)
{
    if (in_ram(&cpu->bus, address, size)) {
        *value = ram_read(&cpu->bus, address, size);
        return 1;
    }
    if (address & (size - 1)) trap(cpu, CAUSE_LOAD_MISALIGNED, address);
    else if (cpu->bus.read(cpu->bus.opaque, address, size, value)) return 1;
    else trap(cpu, CAUSE_LOAD_FAULT, address);
    return 0;
}

static void store(struct cpu *cpu, uint32_t address, unsigned size, uint32_t value)
{
    if (in_ram(&cpu->bus, address, size)) ram_write(&cpu->bus, address, size, value);
    else if (address & (size - 1)) trap(cpu, CAUSE_STORE_MISALIGNED, address);
    else if (!cpu->bus.write(cpu->bus.opaque, address, size, value)) trap(cpu, CAUSE_STORE_FAULT, address);
}

static void do_load(struct cpu *cpu, uint32_t insn)
{
    static const unsigned char size[8] = { 1, 2, 4, 0, 1, 2, 0, 0 };
    uint32_t               kind = funct3_of(insn), value = 0;
    if (!size[kind]) {
        illegal(cpu, insn);
        return;
    }
    if (!load(cpu, cpu->x[rs1_of(insn)] + imm_i(insn), size[kind], &value)) return;
    if (kind == 0) value = sign_extend(value & 0xff, 8);
    if (kind == 1) value = sign_extend(value & 0xffff, 16);
    if (kind == 4) value &= 0xff; /* the device may have returned more bits */
    if (kind == 5) value &= 0xffff;
    cpu->x[rd_of(insn)] = value;
}

static void do_store(struct cpu *cpu, uint32_t insn)
{
    uint32_t kind = funct3_of(insn);
    if (kind > 2) illegal(cpu, insn);
    else store(cpu, cpu->x[rs1_of(insn)] + imm_s(insn), 1u << kind, cpu->x[rs2_of(insn)]);
}

/* ---- arithmetic ---- */

static uint32_t shift_right_arithmetic(uint32_t value, uint32_t by)
{
    uint32_t shifted = value >> by;
    return (value >> 31) && by ? shifted | ~(0xffffffffu >> by) : shifted;
}

/* Signed comparison by unsigned comparison, with inverted sign bits. */
static int less_signed(uint32_t a, uint32_t b)
{
    return (a ^ 0x80000000u) < (b ^ 0x80000000u);
}

static inline uint32_t alu(uint32_t operation, int alternative, uint32_t a, uint32_t b)
{
    switch (operation) {
    case 0: return alternative ? a - b : a + b;
    case 1: return a << (b & 31);
    case 2: return (uint32_t)less_signed(a, b);
    case 3: return a < b;
    case 4: return a ^ b;
    case 5: return alternative ? shift_right_arithmetic(a, b & 31) : a >> (b & 31);
    case 6: return a | b;
    default: return a & b;
    }
}

static uint32_t negate_if(int condition, uint32_t value)
{
    return condition ? 0u - value : value;
}

/* The architecture defines the two divisions that C leaves undefined: x/0 = -1 and x%0 = x; MIN/-1 = MIN and
 * MIN%-1 = 0, which is the result of dividing the magnitudes as unsigned. */
static uint32_t divide(uint32_t a, uint32_t b, int is_signed)
{
    int a_negative = is_signed && a >> 31, b_negative = is_signed && b >> 31;
    if (!b) return 0xffffffffu;
    return negate_if(a_negative != b_negative, negate_if(a_negative, a) / negate_if(b_negative, b));
}

static uint32_t remainder_of(uint32_t a, uint32_t b, int is_signed)
{
    int a_negative = is_signed && a >> 31, b_negative = is_signed && b >> 31;
    if (!b) return a;
    return negate_if(a_negative, negate_if(a_negative, a) % negate_if(b_negative, b));
}

/* The upper half of a product: the unsigned product, corrected for each negative operand. */
static uint32_t multiply_high(uint32_t a, uint32_t b, int a_signed, int b_signed)
{
    uint32_t high = (uint32_t)(((uint64_t)a * b) >> 32);
    if (a_signed && a >> 31) high -= b;
    if (b_signed && b >> 31) high -= a;
    return high;
}

static uint32_t multiply_divide(uint32_t operation, uint32_t a, uint32_t b)
{
    switch (operation) {
    case 0: return a * b;
    case 1: return multiply_high(a, b, 1, 1);
    case 2: return multiply_high(a, b, 1, 0);
    case 3: return multiply_high(a, b, 0, 0);
    case 4: return divide(a, b, 1);
    case 5: return divide(a, b, 0);
    case 6: return remainder_of(a, b, 1);
    default: return remainder_of(a, b, 0);
    }
}

static void do_register_immediate(struct cpu *cpu, uint32_t insn)
{
    uint32_t operation = funct3_of(insn), upper = funct7_of(insn);
    int      arithmetic_shift = operation == 5 && upper == 0x20;
    if ((operation == 1 && upper) || (operation == 5 && upper && !arithmetic_shift)) {
        illegal(cpu, insn);
        return;
    }
    cpu->x[rd_of(insn)] = alu(operation, arithmetic_shift, cpu->x[rs1_of(insn)], imm_i(insn));
}

static void do_register_register(struct cpu *cpu, uint32_t insn)
{
    uint32_t operation = funct3_of(insn), upper = funct7_of(insn);
    uint32_t a = cpu->x[rs1_of(insn)], b = cpu->x[rs2_of(insn)];
    if (upper == 1) cpu->x[rd_of(insn)] = multiply_divide(operation, a, b);
    else if (upper == 0 || (upper == 0x20 && (operation == 0 || operation == 5)))
        cpu->x[rd_of(insn)] = alu(operation, upper == 0x20, a, b);
    else illegal(cpu, insn);
}

/* ---- control flow ---- */

static int jump(struct cpu *cpu, uint32_t target)
{
    if (target & 3) {
        trap(cpu, CAUSE_FETCH_MISALIGNED, target);
        return 0;
    }
    cpu->next_pc = target;
    return 1;
}

static void jump_and_link(struct cpu *cpu, uint32_t insn, uint32_t target)
{
    if (jump(cpu, target)) cpu->x[rd_of(insn)] = cpu->pc + 4;
}

static void do_branch(struct cpu *cpu, uint32_t insn)
{
    uint32_t a = cpu->x[rs1_of(insn)], b = cpu->x[rs2_of(insn)];
    int      taken;
    switch (funct3_of(insn)) {
    case 0: taken = a == b; break;
    case 1: taken = a != b; break;
    case 4: taken = less_signed(a, b); break;
    case 5: taken = !less_signed(a, b); break;
    case 6: taken = a < b; break;
    case 7: taken = a >= b; break;
    default: illegal(cpu, insn); return;
    }
    if (taken) jump(cpu, cpu->pc + imm_b(insn));
}

/* ---- control and status registers ---- */

static uint32_t half(uint64_t value, uint32_t number)
{
    return (uint32_t)(number & 0x80 ? value >> 32 : value);
}

/* Counters: machine ones from 0xb00 and user ones from 0xc00, upper halves 0x80 further; only the first three count. */
static int counter_read(struct cpu *cpu, uint32_t number, uint32_t *value)
{
    uint32_t which = number & ~0x80u;
    if (which == 0xb00 || which == 0xc00) *value = half(cpu->steps - cpu->cycles_zero, number);
    else if (which == 0xb02 || which == 0xc02) *value = half(cpu->steps - cpu->not_retired, number);
    else if (which == 0xc01) *value = half(cpu->bus.time(cpu->bus.opaque), number);
    else if ((which >= 0xb03 && which <= 0xb1f) || (which >= 0xc03 && which <= 0xc1f)) *value = 0;
    else return 0;
    return 1;
}

static uint32_t *csr_storage(struct cpu *cpu, uint32_t number)
{
    if (number >= 0x3a0 && number <= 0x3a3) return &cpu->pmpcfg[number - 0x3a0];
    if (number >= 0x3b0 && number <= 0x3bf) return &cpu->pmpaddr[number - 0x3b0];
    switch (number) {
    case 0x300: return &cpu->mstatus;
    case 0x304: return &cpu->mie;
    case 0x305: return &cpu->mtvec;
    case 0x306: return &cpu->mcounteren;
    case 0x340: return &cpu->mscratch;
    case 0x341: return &cpu->mepc;
    case 0x342: return &cpu->mcause;
    case 0x343: return &cpu->mtval;
    case 0x344: return &cpu->mip;
    default: return NULL;
    }
}

/* Registers with a constant value: misa, mstatush, mcountinhibit, event selectors, mvendorid ... mconfigptr. */
static int csr_constant(uint32_t number, uint32_t *value)
{
    *value = number == 0x301 ? MISA : 0;
    return number == 0x301 || number == 0x310 ||
           (number >= 0x320 && number <= 0x33f && number != 0x321 && number != 0x322) ||
           (number >= 0xf11 && number <= 0xf15);
}

static int csr_read(struct cpu *cpu, uint32_t number, uint32_t *value)
{
    const uint32_t *storage = csr_storage(cpu, number);
    if (!storage) return csr_constant(number, value) || counter_read(cpu, number, value);
    *value = *storage;
    return 1;
}

static uint64_t with_half(uint64_t old, uint32_t number, uint32_t value)
{
    return number & 0x80 ? (old & 0xffffffffu) | (uint64_t)value << 32 : (old & ~0xffffffffull) | value;
}

static void csr_write(struct cpu *cpu, uint32_t number, uint32_t value)
{
    uint32_t *storage = csr_storage(cpu, number);
    cpu->attention = 1;
    switch (number) {
    case 0x300: cpu->mstatus = MSTATUS_MPP | (value & (MSTATUS_MIE | MSTATUS_MPIE)); return;
    case 0x304: cpu->mie = value & MIE_WRITABLE; return;
    case 0x305: cpu->mtvec = value & ~2u; return;
    case 0x341: cpu->mepc = value & ~3u; return;
    case 0x344: return; /* mip: its three bits are the interrupt lines */
    case 0xb00: case 0xb80:
        cpu->cycles_zero = cpu->steps - with_half(cpu->steps - cpu->cycles_zero, number, value);
        return;
    case 0xb02: case 0xb82:
        cpu->not_retired = cpu->steps - with_half(cpu->steps - cpu->not_retired, number, value);
        return;
    default: if (storage) *storage = value; return;
    }
}

static void do_csr(struct cpu *cpu, uint32_t insn)
{
    uint32_t number = insn >> 20, operation = funct3_of(insn) & 3, source = rs1_of(insn), old;
    uint32_t operand = funct3_of(insn) & 4 ? source : cpu->x[source];
    int      writes = operation == 1 || source != 0;
    if (!operation || (writes && number >> 10 == 3) || !csr_read(cpu, number, &old)) {
        illegal(cpu, insn);
        return;
    }
    if (operation == 2) operand = old | operand;
    if (operation == 3) operand = old & ~operand;
    if (writes) csr_write(cpu, number, operand);
    cpu->x[rd_of(insn)] = old;
}

static void do_mret(struct cpu *cpu)
{
    cpu->next_pc = cpu->mepc;
    cpu->attention = 1;
    cpu->mstatus = MSTATUS_MPP | MSTATUS_MPIE | ((cpu->mstatus & MSTATUS_MPIE) ? MSTATUS_MIE : 0);
}

static void do_system(struct cpu *cpu, uint32_t insn)
{
    if (funct3_of(insn)) {
        do_csr(cpu, insn);
        return;
    }
    switch (insn) {
    case 0x00000073: trap(cpu, CAUSE_ECALL_M, 0); return;
    case 0x00100073: trap(cpu, CAUSE_BREAKPOINT, cpu->pc); return;
    case 0x30200073: do_mret(cpu); return;
    case 0x10500073: cpu->waiting = cpu->attention = 1; return; /* wfi */
    default: illegal(cpu, insn); return;
    }
}

/* ---- the loop ---- */

/* By the major opcode without its two lowest bits, which are set in all 32-bit instructions. */
static void execute(struct cpu *cpu, uint32_t insn)
{
    if ((insn & 3) != 3) {
        illegal(cpu, insn);
        return;
    }
    switch (bits(insn, 2, 5)) {
    case 0x03 >> 2: do_load(cpu, insn); return;
    case 0x0f >> 2:
        if (funct3_of(insn) > 1) illegal(cpu, insn);
        return; /* fence, fence.i: no effect, all accesses are in order */
    case 0x13 >> 2: do_register_immediate(cpu, insn); return;
    case 0x17 >> 2: cpu->x[rd_of(insn)] = cpu->pc + (insn & 0xfffff000u); return; /* auipc */
    case 0x23 >> 2: do_store(cpu, insn); return;
    case 0x33 >> 2: do_register_register(cpu, insn); return;
    case 0x37 >> 2: cpu->x[rd_of(insn)] = insn & 0xfffff000u; return; /* lui */
    case 0x63 >> 2: do_branch(cpu, insn); return;
    case 0x67 >> 2:
        if (funct3_of(insn)) illegal(cpu, insn);
        else jump_and_link(cpu, insn, (cpu->x[rs1_of(insn)] + imm_i(insn)) & ~1u);
        return;
    case 0x6f >> 2: jump_and_link(cpu, insn, cpu->pc + imm_j(insn)); return;
    case 0x73 >> 2: do_system(cpu, insn); return;
    default: illegal(cpu, insn); return;
    }
}

static void step(struct cpu *cpu)
{
    cpu->steps++;
    cpu->next_pc = cpu->pc + 4;
    if (in_ram(&cpu->bus, cpu->pc, 4)) execute(cpu, ram_read(&cpu->bus, cpu->pc, 4));
    else trap(cpu, CAUSE_FETCH_FAULT, cpu->pc);
    cpu->x[0] = 0;
    cpu->pc = cpu->next_pc;
}

/* Runs before an instruction when `attention` is set. Returns 0 when the hart waits in wfi or is paused. */
static int handle_attention(struct cpu *cpu)
{
    if (cpu->pause || !cpu_runnable(cpu)) return 0;
    cpu->waiting = cpu->attention = 0;
    take_interrupt(cpu);
    return 1;
}

void cpu_run(struct cpu *cpu, unsigned count)
{
    cpu->pause = 0;
    for (; count > 0; count--) {
        if (cpu->attention && !handle_attention(cpu)) return;
        step(cpu);
    }
}

void cpu_pause(struct cpu *cpu)
{
    cpu->pause = cpu->attention = 1;
}

void cpu_reset(struct cpu *cpu, uint32_t pc)
{
    struct cpu_bus bus = cpu->bus;
    uint32_t       lines = cpu->mip;
    uint64_t       steps = cpu->steps;
    memset(cpu, 0, sizeof *cpu);
    cpu->bus = bus;
    cpu->mip = lines;
    cpu->steps = steps;
    cpu->cycles_zero = cpu->not_retired = steps;
    cpu->mstatus = MSTATUS_MPP;
    cpu->attention = 1;
    cpu->pc = pc;
}
