/* chardev.h without an operating system: a Cortex-M3 whose UART is a backend of our own, shared by two frontends (a shell
 * and a counter) through a mux: Ctrl-A c goes from one to the other. The shell keeps its lines in a ring buffer.
 *     make cross        builds it as build/cross/firmware.elf, and runs it
 *     qemu-system-arm -M mps2-an385 -display none -monitor none -serial stdio -semihosting -kernel build/cross/firmware.elf */
#define CHARDEV_FREESTANDING
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include <string.h>

/* ---- the machine: start, exit, UART ------------------------------------------------------------------------------- */

extern unsigned char data_start[], data_end[], bss_start[], bss_end[], stack_top[];
extern const unsigned char data_image[];
void reset(void);
int main(void);

typedef struct vector_table {
    void *stack;
    void (*reset)(void);
} vector_table;
__attribute__((section(".vectors"), used)) static const vector_table vectors = { stack_top, reset };

/* Semihosting's SYS_EXIT_EXTENDED: ends QEMU with this status. */
static void machine_exit(int status)
{
    unsigned block[2] = { 0x20026, 0 };
    block[1] = (unsigned)status;
    __asm__ volatile("mov r0, #0x20\n mov r1, %0\n bkpt 0xab" : : "r"(block) : "r0", "r1", "memory");
    for (;;)
        ;
}

void reset(void)
{
    memcpy(data_start, data_image, (size_t)(data_end - data_start));
    memset(bss_start, 0, (size_t)(bss_end - bss_start));
    machine_exit(main());
}

typedef struct uart_registers {
    volatile uint32_t data, state, control, interrupt, divider;
} uart_registers;

#define UART0 ((uart_registers *)0x40004000)
enum { UART_TX_FULL = 1, UART_RX_FULL = 2, UART_TX_ON = 1, UART_RX_ON = 2 };

/* ---- the UART as a backend: a state that begins with a chr_dev, a few slots, one table ------------------------------- */

typedef struct uart {
    chr_dev  dev;
    chr_idle poll; /* looks at the registers once a step */
} uart;

static int uart_write(chr_dev *dev, const void *buf, size_t len)
{
    const unsigned char *bytes = (const unsigned char *)buf;
    size_t               n;

    (void)dev;
    for (n = 0; n < len && !(UART0->state & UART_TX_FULL); n++)
        UART0->data = bytes[n];
    return n > 0 || len == 0 ? (int)n : CHR_ERR_WOULD_BLOCK;
}

static void uart_poll(void *opaque)
{
    uart         *u = (uart *)opaque;
    unsigned char byte;

    chr_idle_start(u->dev.ctx, &u->poll, uart_poll, u);
    if (chr_be_wants_writable(&u->dev) && !(UART0->state & UART_TX_FULL)) chr_be_writable(&u->dev);
    if (!u->dev.removed && (UART0->state & UART_RX_FULL) && chr_be_can_write(&u->dev) > 0) {
        byte = (unsigned char)UART0->data;
        chr_be_write(&u->dev, &byte, 1);
    }
}

static void uart_update(chr_dev *dev)
{
    (void)dev; /* uart_poll() looks each time */
}

static int uart_open(chr_dev *dev, chr_error *err)
{
    uart *u = (uart *)dev;

    (void)err;
    UART0->divider = 16;
    UART0->control = UART_TX_ON | UART_RX_ON;
    chr_idle_start(dev->ctx, &u->poll, uart_poll, u);
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

static void uart_close(chr_dev *dev)
{
    chr_idle_stop(&((uart *)dev)->poll);
}

static const chr_io      uart_io = { uart_write, NULL, uart_update, NULL };
static const chr_backend uart_kind = {
    "uart",                     /* name         */
    NULL,                       /* alias        */
    "the board's first UART",   /* help         */
    NULL,                       /* options      */
    sizeof(chr_common_options), /* options_size */
    sizeof(uart),               /* state_size   */
    NULL,                       /* uri          */
    uart_open,                  /* open         */
    uart_close,                 /* close        */
    &uart_io,                   /* io           */
    NULL,                       /* describe     */
    NULL,                       /* ioctl        */
    NULL,                       /* set_open     */
    NULL,                       /* peer         */
    NULL,                       /* sharing      */
    0,                          /* fixed        */
    NULL,                       /* input        */
};

/* ---- memory: blocks cut from an array; freed ones are used again when they are large enough --------------------------- */

typedef union block {
    struct {
        union block *next;
        size_t       size;
    } free;
    uint64_t align;
} block;

static block  pool[4096];
static size_t pool_used;
static block *freed;

static block *block_take(size_t size)
{
    block **at, *b;
    size_t  units = 1 + (size + sizeof(block) - 1) / sizeof(block);

    for (at = &freed; *at; at = &(*at)->free.next) {
        b = *at;
        if (b->free.size >= size) return *at = b->free.next, b;
    }
    if (units > sizeof pool / sizeof *pool - pool_used) return NULL;
    b = &pool[pool_used];
    pool_used += units;
    b->free.size = (units - 1) * sizeof(block);
    return b;
}

static void *pool_allocate(void *opaque, void *ptr, size_t size)
{
    block *old = ptr ? (block *)ptr - 1 : NULL, *b = NULL;

    (void)opaque;
    if (old && size > 0 && size <= old->free.size) return ptr;
    if (size > 0 && !(b = block_take(size))) return NULL;
    if (old) {
        if (b) memcpy(b + 1, old + 1, old->free.size);
        old->free.next = freed;
        freed = old;
    }
    return b ? b + 1 : NULL;
}

/* ---- what runs on it -------------------------------------------------------------------------------------------------- */

static chr_context *ctx;
static chr_frontend shell, counter, history;
static int          status = 1, counted;

/* The UART takes a byte or two at a time: the rest waits here. */
static char   out[1024];
static size_t out_first, out_last;

static void shell_drain(void *opaque)
{
    int n = chr_fe_write(&shell, out + out_first, out_last - out_first);

    (void)opaque;
    if (n > 0) out_first += (size_t)n;
    if (out_first == out_last) {
        out_first = out_last = 0;
        chr_fe_accept_input(&shell);
    } else {
        chr_fe_add_watch(&shell, shell_drain, NULL);
    }
}

static void shell_put(const char *text, size_t len)
{
    if (len > sizeof out - out_last) len = sizeof out - out_last;
    memcpy(out + out_last, text, len);
    out_last += len;
    chr_fe_add_watch(&shell, shell_drain, NULL);
}

static void shell_say(const char *text) { shell_put(text, strlen(text)); }

static void shell_line(const char *line, size_t len)
{
    char text[256];
    int  n;

    if (len == 4 && memcmp(line, "quit", 4) == 0) {
        status = 0;
        chr_loop_stop(ctx);
    } else if (len == 7 && memcmp(line, "history", 7) == 0) {
        n = chr_ringbuf_read(history.dev, sizeof text, CHR_UTF8, text, sizeof text, NULL);
        if (n > 0) shell_put(text, (size_t)n);
    } else {
        chr_fe_write(&history, line, len);
        chr_fe_write(&history, "\r\n", 2);
    }
}

static int shell_room(void *opaque)
{
    (void)opaque;
    return out_last == 0; /* what is typed waits in the UART while output is under way */
}

static void shell_read(void *opaque, const void *buf, size_t len)
{
    static char   line[80];
    static size_t used;
    const char   *bytes = (const char *)buf;
    size_t        i;

    (void)opaque;
    for (i = 0; i < len; i++) {
        if (bytes[i] == '\r' || bytes[i] == '\n') {
            shell_say("\r\n");
            shell_line(line, used);
            used = 0;
            shell_say("> ");
        } else if (used < sizeof line) {
            line[used++] = bytes[i];
            shell_put(&bytes[i], 1);
        }
    }
}

static void shell_event(void *opaque, int event)
{
    (void)opaque;
    if (event == CHR_EVENT_OPENED) shell_say("chardev.h on bare metal: history, quit, Ctrl-A h\r\n> ");
    if (event == CHR_EVENT_MUX_IN && shell.told_open) shell_say("\r\nshell> ");
}

static void counter_read(void *opaque, const void *buf, size_t len)
{
    (void)opaque, (void)buf;
    counted += (int)len;
}

static void counter_event(void *opaque, int event)
{
    (void)opaque;
    if (event == CHR_EVENT_MUX_OUT && counted > 0) chr_fe_printf(&history, "%d bytes counted\r\n", counted);
}

static int attach(chr_frontend *fe, chr_dev *dev, const chr_handlers *handlers)
{
    if (!dev || chr_fe_init(fe, dev, NULL) < 0) return 0;
    chr_fe_set_handlers(fe, handlers, NULL);
    return 1;
}

int main(void)
{
    static const chr_handlers shell_handlers = { shell_room, shell_read, shell_event, NULL };
    static const chr_handlers counter_handlers = { NULL, counter_read, counter_event, NULL };
    static chr_config         config;
    chr_dev                  *console;

    config.allocate = pool_allocate;
    ctx = chr_context_new(&config);
    if (!ctx || chr_backend_register(ctx, &uart_kind, NULL) < 0) return 2;
    console = chr_new(ctx, "uart,id=console,mux=on", NULL);
    if (!attach(&history, chr_new(ctx, "ringbuf,id=history,size=1K", NULL), NULL)) return 3;
    if (!attach(&counter, console, &counter_handlers) || !attach(&shell, console, &shell_handlers)) return 4;
    chr_loop_run(ctx);
    chr_context_free(ctx);
    return status;
}
