/* fuzz_uart.c - tinyvm's 16550: random guest accesses, a line with injected faults. For libFuzzer or afl-clang-fast:
 *     clang -g -O2 -fsanitize=fuzzer,address,undefined -I. -Iexamples/tinyvm examples/fuzz_uart.c \
 *           examples/tinyvm/uart16550.c */
#pragma clang attribute push(__attribute__((no_sanitize("coverage"))), apply_to = function) /* the UART is under test */
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#pragma clang attribute pop
#include "uart16550.h"

static void irq(void *opaque, int number, int level) { (void)opaque, (void)number, (void)level; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static chr_context *ctx;
    const chr_config    config = { .virtual_clock = 1 };
    struct uart         uart = { .irq.set = irq };
    size_t              i, faults = size / 2; /* first half: faults of the line; second half: accesses of the guest */
    if (!ctx) ctx = chr_context_new(&config);
    chr_dev *far = chr_new(ctx, "ringbuf,id=far,size=1K", NULL);
    chr_dev *line = chr_new(ctx, "fault,id=line,chardev=far", NULL);
    uart.ctx = ctx;
    if (uart_init(&uart, line, NULL) < 0 || chr_fault_feed(line, data, faults) < 0) return -1;
    for (i = faults; i + 1 < size; i += 2)
        if (data[i] < 64) uart_read(&uart, data[i] & 7, 1);
        else if (data[i] < 128) uart_write(&uart, data[i] & 7, 1, data[i + 1]);
        else if (data[i] < 192) chr_inject(far, data + i, 2);
        else chr_loop_run_until(ctx, chr_loop_now(ctx) + data[i + 1] * 100000);
    uart_deinit(&uart);
    return chr_context_reset(ctx);
}
