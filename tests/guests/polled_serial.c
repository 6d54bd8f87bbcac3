/* An emulator as small ones are: a 16550's LSR, RBR and THR, which the guest polls, and behind them the process's
 * terminal. The guest toggles the case of what it gets, and ends at a dot. */
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include <stdio.h>
#include <stdlib.h>

enum { LOAD, STORE, SET, AND, IF, JUMP, FLIP, HALT };
enum { RBR = 0x80, THR = RBR, LSR = RBR + 5, READY = 0x01, THR_EMPTY = 0x20 };

static unsigned char memory[256] = {
    SET, 'o', STORE, THR, SET, 'k', STORE, THR, SET, '\n', STORE, THR,                     /*  0: hello */
    LOAD, LSR, AND, READY, IF, 0, 12, LOAD, RBR, IF, '.', 36, FLIP, STORE, 0x70,           /* 12: a byte comes in */
    LOAD, LSR, AND, THR_EMPTY, IF, 0, 27, JUMP, 37, HALT, LOAD, 0x70, STORE, THR, JUMP, 12 /* 27: and goes out */
};

static chr_frontend con;

static void console_off(void)
{
    chr_context_free(con.ctx);
}

static void console_on(const char *serial)
{
    chr_error err = { CHR_ERR_NO_MEMORY, "out of memory" };
    chr_fe_init(&con, chr_new_any(chr_context_new(NULL), "serial0", serial, &err), &err);
    if (atexit(console_off) || !con.dev || chr_fe_set_buffers(&con, 4096, 4096) < 0) fprintf(stderr, "%s\n", err.text), exit(1);
}

static int is_ready(void)
{
    if (chr_loop_step_every(con.ctx, 100000) < 0) exit(0);
    return chr_fe_readable(&con) > 0 || chr_fe_eof(&con);
}

static unsigned char load(unsigned char address)
{
    if (address == LSR) memory[LSR] = (unsigned char)((chr_fe_writable(&con) != 0 ? THR_EMPTY : 0) | (is_ready() ? READY : 0));
    if (address == RBR && chr_fe_read(&con, &memory[RBR], 1) < 1) exit(0);
    return memory[address];
}

static void store(unsigned char address, unsigned char value)
{
    memory[address] = value;
    if (address == THR) chr_fe_write(&con, &value, 1);
}

int main(int argc, char **argv)
{
    unsigned char acc = 0, pc = 0;
    console_on(argc > 2 ? argv[2] : "stdio");
    for (;;) {
        switch (memory[pc++]) {
        case LOAD: acc = load(memory[pc++]); break;
        case STORE: store(memory[pc++], acc); break;
        case SET: acc = memory[pc++]; break;
        case AND: acc &= memory[pc++]; break;
        case IF: pc = acc == memory[pc] ? memory[pc + 1] : (unsigned char)(pc + 2); break;
        case JUMP: pc = memory[pc]; break;
        case FLIP: acc ^= acc > 64 ? 32 : 0; break;
        default: return 0;
        }
    }
}
