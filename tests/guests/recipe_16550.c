/* The manual's recipe 16550 (recipe.h, taken out of chardev.h), with a guest that toggles the case of what it gets,
 * as its driver does it: by interrupts. With CHARDEV_THREADS the CPU has a thread of its own. It ends at a dot. */
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef CHARDEV_THREADS
#include <pthread.h>
#include <unistd.h>
#endif

#include "recipe.h"

enum { RBR, THR = 0, IER, IIR, LSR = 5, IER_RX = 1, IER_TX = 2, IIR_TX = 2, IIR_RX = 4, READY = 0x01, EMPTY = 0x20, RING = 1 << 16 };

static struct uart   uart;
static chr_context  *ctx;
static int           line, ended;
static unsigned      interrupts;
static unsigned char ring[RING];
static unsigned      first, last; /* of what waits to be sent */

void interrupt(struct uart *u, int level)
{
    (void)u;
    interrupts += level && !line;
    line = level;
}

/* What the CPU's thread does, or a step of the CPU: the guest's interrupt handler while the line is high. */
static int is_pending(void)
{
    int pending;
    chr_loop_lock(ctx);
    pending = line;
    chr_loop_unlock(ctx);
    return pending;
}

static unsigned char load(unsigned at)
{
    unsigned char value;
    chr_loop_lock(ctx);
    value = uart_load(&uart, at);
    chr_loop_unlock(ctx);
    return value;
}

static void store(unsigned at, unsigned char value)
{
    chr_loop_lock(ctx);
    uart_store(&uart, at, value);
    chr_loop_unlock(ctx);
}

static void transmit(unsigned char c)
{
    ring[last++ % RING] = c;
    store(IER, IER_RX | IER_TX);
}

static void received(unsigned char c)
{
    if (c == '.') ended = 1;
    else transmit(c > 64 ? c ^ 32 : c);
}

static void service(void)
{
    switch (load(IIR)) {
    case IIR_RX:
        if (last - first < RING) received(load(RBR));
        else store(IER, IER_TX); /* its interrupt comes before the one for THR */
        break;
    case IIR_TX:
        if (first != last) store(THR, ring[first++ % RING]);
        store(IER, first != last ? IER_RX | IER_TX : IER_RX);
        break;
    default: break;
    }
}

/* No more comes, its output is with the chardev, and the driver has no more. */
static int is_over(void)
{
    return (ended || chr_fe_eof(&uart.fe)) && first == last && (load(LSR) & EMPTY);
}

static void hello(void)
{
    const char *text = "ok\n";
    while (*text) transmit((unsigned char)*text++);
}

#ifdef CHARDEV_THREADS
static void *cpu(void *unused)
{
    hello();
    while (!is_over())
        if (is_pending()) service();
        else usleep(20); /* the guest computes */
    chr_loop_stop(ctx);
    return unused;
}
#endif

int main(int argc, char **argv)
{
    chr_error err;
    chr_dev  *dev;
#ifdef CHARDEV_THREADS
    pthread_t thread;
#endif
    ctx = chr_context_new(NULL);
    dev = ctx ? chr_new_any(ctx, "serial0", argc > 2 ? argv[2] : "stdio", &err) : NULL;
    if (!dev || uart_init(&uart, dev, &err) < 0) return fprintf(stderr, "%s\n", err.text), 2;
#ifdef CHARDEV_THREADS
    pthread_create(&thread, NULL, cpu, NULL);
    chr_loop_run(ctx);
    ended = 1;
    pthread_join(thread, NULL);
#else
    hello();
    while (!is_over() && chr_loop_step(ctx, is_pending() || ended ? 0 : -1) >= 0)
        while (is_pending()) service();
#endif
    chr_drain(ctx, 2000);
    chr_context_free(ctx);
    return 0;
}
