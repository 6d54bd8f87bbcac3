/* An emulator as small ones are: a 16550's LSR, RBR and THR, which the guest polls, and behind them the process's
 * terminal. The guest toggles the case of what it gets, and ends at a dot. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

enum { LOAD, STORE, SET, AND, IF, JUMP, FLIP, HALT };
enum { RBR = 0x80, THR = RBR, LSR = RBR + 5, READY = 0x01, THR_EMPTY = 0x20 };

static unsigned char memory[256] = {
    SET, 'o', STORE, THR, SET, 'k', STORE, THR, SET, '\n', STORE, THR,                     /*  0: hello */
    LOAD, LSR, AND, READY, IF, 0, 12, LOAD, RBR, IF, '.', 36, FLIP, STORE, 0x70,           /* 12: a byte comes in */
    LOAD, LSR, AND, THR_EMPTY, IF, 0, 27, JUMP, 37, HALT, LOAD, 0x70, STORE, THR, JUMP, 12 /* 27: and goes out */
};

static struct termios before;

static void console_off(void)
{
    tcsetattr(0, TCSANOW, &before);
}

static void console_on(void)
{
    struct termios raw;
    if (tcgetattr(0, &before) == 0) atexit(console_off);
    raw = before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    tcsetattr(0, TCSANOW, &raw);
}

static int is_ready(void)
{
    struct pollfd in = { 0, POLLIN, 0 };
    return poll(&in, 1, 0) == 1;
}

static unsigned char load(unsigned char address)
{
    if (address == LSR) memory[LSR] = (unsigned char)(THR_EMPTY | (is_ready() ? READY : 0));
    if (address == RBR && read(0, &memory[RBR], 1) != 1) exit(0);
    return memory[address];
}

static void store(unsigned char address, unsigned char value)
{
    memory[address] = value;
    if (address == THR) putchar(value), fflush(stdout);
}

int main(void)
{
    unsigned char acc = 0, pc = 0;
    console_on();
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
