/* The manual's recipe getch (recipe.h, taken out of chardev.h), with a guest that toggles the case of what it gets:
 * one byte polled and the next one waited for. It ends at a dot. */
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include <stdio.h>
#include <stdlib.h>

#include "recipe.h"

static void flip(int c)
{
    if (c == '.') exit(0);
    putch((char)(c > 64 ? c ^ 32 : c));
}

int main(int argc, char **argv)
{
    console_on(argc > 2 ? argv[2] : "stdio");
    putch('o');
    putch('k');
    putch('\n');
    for (;;) {
        while (!kbhit()) {}
        flip(getch());
        flip(getch());
    }
}
