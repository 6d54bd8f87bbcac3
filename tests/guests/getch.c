/* An emulator as small ones are: its console is kbhit(), getch() and putchar(). The guest toggles the case of what
 * it gets, one byte polled and the next one waited for, and ends at a dot. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

enum { LOAD, OUT, KEY, GET, IF, JUMP, FLIP, HALT };

static const unsigned char rom[] = {
    LOAD, 'o', OUT, LOAD, 'k', OUT, LOAD, '\n', OUT, /*  0: hello */
    KEY, IF, 0, 9, GET, IF, '.', 26, FLIP, OUT,      /*  9: a busy loop until there is a key */
    GET, IF, '.', 26, FLIP, OUT, JUMP, 9, HALT       /* 19: waits for the next one */
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

static int kbhit(void)
{
    struct pollfd in = { 0, POLLIN, 0 };
    return poll(&in, 1, 0) == 1;
}

static unsigned char getch(void)
{
    unsigned char byte;
    if (read(0, &byte, 1) != 1) exit(0);
    return byte;
}

int main(void)
{
    unsigned char acc = 0, pc = 0;
    console_on();
    for (;;) {
        switch (rom[pc++]) {
        case LOAD: acc = rom[pc++]; break;
        case OUT: putchar(acc), fflush(stdout); break;
        case KEY: acc = (unsigned char)kbhit(); break;
        case GET: acc = getch(); break;
        case IF: pc = acc == rom[pc] ? rom[pc + 1] : (unsigned char)(pc + 2); break;
        case JUMP: pc = rom[pc]; break;
        case FLIP: acc ^= acc > 64 ? 32 : 0; break;
        default: return 0;
        }
    }
}
