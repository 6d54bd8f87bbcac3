/* chardev.h without an operating system and without malloc. An interrupt-driven UART is a backend of its own. A mux
 * on it has a shell and a log channel (Ctrl-A c switches between them). The log goes to a hub: to that channel, and
 * to a ring buffer that the shell prints. It runs on a Cortex-M3 (mps2.c) and on tinyvm (tinyvm.c):
 *     make cross        builds both into build/cross, and runs them
 *     qemu-system-arm -M mps2-an385 -display none -monitor none -serial stdio -semihosting \
 *         -kernel build/cross/firmware.elf
 *     build/tinyvm -serial stdio -bios build/cross/firmware-rv32.elf */
#define CHARDEV_FREESTANDING
#define CHARDEV_NO_URI
#define CHARDEV_ERROR_SIZE  96
#define CHARDEV_BUFFER_SIZE 256
#define CHARDEV_IMPLEMENTATION
#include "machine.h"
#include <string.h>

/* ---- the UART as a backend: a state that begins with a chr_dev, a few slots, one table --------------------------- */

typedef struct uart {
    chr_dev dev;
} uart;

static int uart_write(chr_dev *dev, const void *buf, size_t len)
{
    size_t n = chr_isr_ring_put(&machine_tx, buf, len);

    (void)dev;
    if (n > 0) machine_send();
    return n > 0 || len == 0 ? (int)n : CHR_ERR_WOULD_BLOCK;
}

/* Called in the main loop after each interrupt: passes input to the frontend, as can_read allows (back-pressure). */
static void uart_poll(chr_dev *dev)
{
    const void *bytes;
    size_t      count, room;
    int         taken;

    (void)chr_isr_ring_put_span(&machine_tx, &room);
    if (room > 0 && chr_be_wants_writable(dev)) chr_be_writable(dev);
    while ((bytes = chr_isr_ring_get_span(&machine_rx, &count), count > 0) && (taken = chr_be_can_write(dev)) > 0) {
        count = (size_t)taken < count ? (size_t)taken : count;
        chr_be_write(dev, bytes, count);
        chr_isr_ring_get_commit(&machine_rx, count);
        machine_receive();
    }
}

static void uart_update(chr_dev *dev)
{
    (void)dev; /* the main loop calls uart_poll() */
}

static int uart_open(chr_dev *dev, chr_error *err)
{
    (void)err;
    machine_start();
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

CHR_TABLE(chr_io, uart_io,
    CHR_SET(write,  uart_write)
    CHR_SET(update, uart_update));

CHR_TABLE(chr_backend, uart_kind,
    CHR_SET(name,         "uart")
    CHR_SET(help,         "the board's first UART")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(uart))
    CHR_SET(open,         uart_open)
    CHR_SET(io,           &uart_io));

/* ---- the log channel as a backend: its output goes to the mux ---------------------------------------------------- */

static chr_frontend shell, channel, logger;

static int channel_write(chr_dev *dev, const void *buf, size_t len)
{
    (void)dev;
    return chr_fe_write(&channel, buf, len);
}

static int channel_open(chr_dev *dev, chr_error *err)
{
    (void)err;
    chr_be_event(dev, CHR_EVENT_OPENED);
    return 0;
}

CHR_TABLE(chr_io, channel_io,
    CHR_SET(write, channel_write));

CHR_TABLE(chr_backend, channel_kind,
    CHR_SET(name,         "channel")
    CHR_SET(help,         "the log channel of the console")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(chr_dev))
    CHR_SET(open,         channel_open)
    CHR_SET(io,           &channel_io));

/* ---- the application --------------------------------------------------------------------------------------------- */

static uint64_t     memory[1200]; /* the library's heap: 9600 bytes */
static chr_context *ctx;
static chr_dev     *history;
static int          counted, status = 1;

enum { SHELL_OUT = 512, SHELL_LINE = 80 };

static void shell_print(const char *text) { chr_fe_write(&shell, text, strlen(text)); }

static void shell_history(void)
{
    char text[128];
    int  n;

    while ((n = chr_ringbuf_read(history, sizeof text, CHR_UTF8, text, sizeof text, NULL)) > 0)
        chr_fe_write(&shell, text, (size_t)n);
}

static void shell_status(void)
{
    chr_memory use;

    if (chr_context_memory(ctx, &use) < 0) return;
    chr_fe_printf(&shell, "%d bytes counted\r\n%u of %u bytes used\r\n", counted, (unsigned)use.most,
                  (unsigned)use.size);
}

static void shell_line(const char *line)
{
    if (strcmp(line, "quit") == 0) {
        status = 0;
        chr_loop_stop(ctx);
    } else if (strcmp(line, "history") == 0) {
        shell_history();
    } else if (strcmp(line, "status") == 0) {
        shell_status();
    } else {
        chr_fe_printf(&logger, "log: %s\r\n", line);
    }
}

/* Back-pressure: no input while the shell's output buffer is more than half full. It waits in the UART. */
static int shell_room(void *opaque)
{
    (void)opaque;
    return chr_fe_writable(&shell) >= SHELL_OUT / 2;
}

static void shell_read(void *opaque, const void *buf, size_t len)
{
    static char line[SHELL_LINE + 1];
    static int  used;
    const char *bytes = (const char *)buf;
    size_t      i;

    (void)opaque;
    for (i = 0; i < len; i++) {
        if (bytes[i] == '\r' || bytes[i] == '\n') {
            line[used] = 0;
            used = 0;
            shell_print("\r\n");
            shell_line(line);
            shell_print("> ");
        } else if (used < SHELL_LINE) {
            line[used++] = bytes[i];
            chr_fe_write(&shell, &bytes[i], 1);
        }
    }
}

static void shell_event(void *opaque, int event)
{
    (void)opaque;
    if (event == CHR_EVENT_OPENED) shell_print("chardev.h on bare metal: history, status, quit, Ctrl-A h\r\n> ");
}

static void channel_read(void *opaque, const void *buf, size_t len)
{
    (void)opaque, (void)buf;
    counted += (int)len;
}

static int attach(chr_frontend *fe, chr_dev *dev, const chr_handlers *handlers)
{
    if (!dev || chr_fe_init(fe, dev, NULL) < 0) return 0;
    chr_fe_set_handlers(fe, handlers, NULL);
    return 1;
}

int main(void)
{
    static const chr_handlers shell_handlers = { .can_read = shell_room, .read = shell_read, .event = shell_event };
    static const chr_handlers channel_handlers = { .read = channel_read };
    chr_dev                  *console;
    unsigned                  seen;

    ctx = chr_context_init(memory, sizeof memory);
    if (!ctx || chr_backend_register(ctx, &uart_kind, NULL) < 0 || chr_backend_register(ctx, &channel_kind, NULL) < 0)
        return 2;
    console = chr_new(ctx, "uart,id=console,mux=on", NULL);
    if (!attach(&channel, console, &channel_handlers) || !attach(&shell, console, &shell_handlers)) return 3;
    if (chr_fe_set_buffers(&channel, 0, SHELL_LINE + 16) < 0 || chr_fe_set_buffers(&shell, 0, SHELL_OUT) < 0) return 4;
    history = chr_new(ctx, "ringbuf,id=history,size=1K", NULL);
    if (!history || !chr_new(ctx, "channel,id=channel", NULL)) return 5;
    if (!attach(&logger, chr_new(ctx, "hub,id=log,chardevs.0=history,chardevs.1=channel", NULL), NULL)) return 6;
    do {
        seen = machine_interrupts;
        uart_poll(chr_find(ctx, "console-base"));
        if (chr_loop_timeout(ctx) != 0) machine_wait(seen);
    } while (chr_loop_step(ctx, 0) >= 0);
    while (chr_isr_ring_count(&machine_tx) > 0)
        ;
    chr_context_free(ctx);
    return status;
}
