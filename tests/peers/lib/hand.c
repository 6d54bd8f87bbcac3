/*
 * hand.c - the user's hand on an emulated mouse or tablet, whose serial line ends in a pty: for real drivers as judges.
 *
 *     hand msmouse|wctablet PTY_LINK       then on standard input, a line each: rel DX DY, abs X Y, button N DOWN, sync, quit
 *
 * Each line is answered by the number that the call returned.
 */
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct end {
    chr_frontend fe;
    struct end  *other;
    const char  *name;
} end;

static chr_context *ctx;

static void got(void *opaque, const void *buf, size_t len)
{
    end *e = (end *)opaque;
    int  n = chr_fe_write(&e->other->fe, buf, len);
    if (n != (int)len && n != CHR_ERR_DISCONNECTED) fprintf(stderr, "%s: bytes are lost\n", e->name);
}

static void command(const char *line, chr_dev *device)
{
    int  a = 0, b = 0, rc = CHR_ERR_INVALID;
    char word[16] = "";
    sscanf(line, "%15s %d %d", word, &a, &b);
    if (!strcmp(word, "quit")) chr_loop_stop(ctx);
    if (!strcmp(word, "rel")) rc = chr_input_rel(device, a, b);
    if (!strcmp(word, "abs")) rc = chr_input_abs(device, a, b);
    if (!strcmp(word, "button")) rc = chr_input_button(device, a, b);
    if (!strcmp(word, "sync")) rc = chr_input_sync(device);
    printf("%d\n", rc);
    fflush(stdout);
}

static void line_ready(void *opaque, int events)
{
    char line[100];
    (void)events;
    if (fgets(line, sizeof line, stdin)) command(line, (chr_dev *)opaque);
    else chr_loop_stop(ctx);
}

static void attach(end *e, const char *options, const char *name, end *other)
{
    static const chr_handlers handlers = { NULL, got, NULL, NULL };
    chr_error                 err;
    chr_dev                  *dev = chr_new(ctx, options, &err);
    e->other = other;
    e->name = name;
    if (!dev || chr_fe_init(&e->fe, dev, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(2);
    }
    chr_fe_set_handlers(&e->fe, &handlers, e);
}

int main(int argc, char **argv)
{
    static end device, line;
    chr_watch  input = { NULL, NULL, NULL, 0, 0, 0 };
    char       options[300];
    int        lines = CHR_TIOCM_DTR | CHR_TIOCM_RTS;
    if (argc != 3) return 2;
    setvbuf(stdin, NULL, _IONBF, 0); /* so that the descriptor says whether there is another line */
    ctx = chr_context_new(NULL);
    snprintf(options, sizeof options, "pty,id=line,path=%s", argv[2]);
    attach(&line, options, "line", &device);
    snprintf(options, sizeof options, "%s,id=device", argv[1]);
    attach(&device, options, "device", &line);
    chr_fe_ioctl(&device.fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines);
    chr_watch_start(ctx, &input, 0, CHR_IN, line_ready, device.fe.dev);
    puts("ready");
    fflush(stdout);
    chr_loop_run(ctx);
    chr_watch_stop(&input);
    chr_context_free(ctx);
    return 0;
}
