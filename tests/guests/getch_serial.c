/* An emulator as small ones are: its console is kbhit(), getch() and putchar(). The guest toggles the case of what
 * it gets, one byte polled and the next one waited for, and ends at a dot. */
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include <stdio.h>
#include <stdlib.h>

enum { LOAD, OUT, KEY, GET, IF, JUMP, FLIP, HALT };

static const unsigned char rom[] = {
    LOAD, 'o', OUT, LOAD, 'k', OUT, LOAD, '\n', OUT, /*  0: hello */
    KEY, IF, 0, 9, GET, IF, '.', 26, FLIP, OUT,      /*  9: a busy loop until there is a key */
    GET, IF, '.', 26, FLIP, OUT, JUMP, 9, HALT       /* 19: waits for the next one */
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

static int kbhit(void)
{
    if (chr_loop_step_every(con.ctx, 100000) < 0) exit(0);
    return chr_fe_readable(&con) > 0 || chr_fe_eof(&con);
}

static unsigned char getch(void)
{
    unsigned char byte;
    while (chr_fe_read(&con, &byte, 1) < 1)
        if (chr_fe_eof(&con) || chr_loop_step(con.ctx, -1) < 0) exit(0);
    return byte;
}

int main(int argc, char **argv)
{
    unsigned char acc = 0, pc = 0;
    console_on(argc > 2 ? argv[2] : "stdio");
    for (;;) {
        switch (rom[pc++]) {
        case LOAD: acc = rom[pc++]; break;
        case OUT: chr_fe_write_all(&con, &acc, 1, -1); break;
        case KEY: acc = (unsigned char)kbhit(); break;
        case GET: acc = getch(); break;
        case IF: pc = acc == rom[pc] ? rom[pc + 1] : (unsigned char)(pc + 2); break;
        case JUMP: pc = rom[pc]; break;
        case FLIP: acc ^= acc > 64 ? 32 : 0; break;
        default: return 0;
        }
    }
}
