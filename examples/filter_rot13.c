/* A backend of your own that is stacked on another chardev: it rotates letters by 13 places, both ways. Copy it when
 * you write a filter or a protocol.
 *     echo uryyb | build/filter_rot13 stdio,id=tty rot13,chardev=tty
 *     build/filter_rot13 socket,id=s,path=/tmp/s,server=on,wait=off rot13,chardev=s,rot=1,mux=on
 *     build/filter_rot13 rot13,help */
#ifndef CHARDEV_LINKED
#define CHARDEV_IMPLEMENTATION
#endif
#include "chardev.h"
#include <stdio.h>

/* ---- the backend ---- */

typedef struct rot13_options {
    chr_common_options common; /* first: id, mux, logfile, history, obuf, ... */
    const char        *chardev;
    int64_t            rot;
} rot13_options;

static const chr_option rot13_rows[] = {
    /* name      type               where                             default       range  help */
    { "chardev", CHR_OPTION_TEXT,   offsetof(rot13_options, chardev), CHR_REQUIRED, 0, 0,
      "id of the chardev that it is on" },
    { "rot",     CHR_OPTION_NUMBER, offsetof(rot13_options, rot),     "13",         1, 25,
      "letters by which output is rotated, and input back" },
    { NULL,      CHR_OPTION_TEXT,   0,                                NULL,         0, 0, NULL }
};

static int rotate_letter(int c, int by)
{
    return c >= 'a' && c <= 'z' ? 'a' + (c - 'a' + by) % 26 : c >= 'A' && c <= 'Z' ? 'A' + (c - 'A' + by) % 26 : c;
}

/* Fills a piece with the first bytes of buf, rotated. Returns their number. */
static size_t rotate(char piece[512], const void *buf, size_t len, int by)
{
    size_t i, n = len < 512 ? len : 512;
    for (i = 0; i < n; i++) piece[i] = (char)rotate_letter(((const char *)buf)[i], by);
    return n;
}

static int rot13_by(const chr_dev *dev) { return (int)((const rot13_options *)dev->options)->rot; }

/* Output. Returns the number of bytes that the lower chardev accepted (a short write is possible), or its error. */
static int rot13_write(chr_dev *dev, const void *buf, size_t len)
{
    char   piece[512];
    size_t done = 0, size;
    int    n = 1;
    while (done < len && n > 0) {
        size = rotate(piece, (const char *)buf + done, len - done, rot13_by(dev));
        n = chr_stacked_write(dev, piece, size);
        done += n > 0 ? (size_t)n : 0;
        if (n < (int)size) break;
    }
    return done > 0 ? (int)done : n;
}

/* Input, never more than our frontend's can_read allows. Its read handler may remove this chardev (re-entrant). */
static void rot13_on_read(void *opaque, const void *buf, size_t len)
{
    chr_dev *dev = (chr_dev *)opaque;
    char     piece[512];
    size_t   done, size;
    for (done = 0; done < len && !dev->removed; done += size) {
        size = rotate(piece, (const char *)buf + done, len - done, 26 - rot13_by(dev));
        chr_be_write(dev, piece, size);
    }
}

/* For chr_fe_read_all(). */
static int rot13_read(chr_dev *dev, void *buf, size_t len)
{
    int i, n = chr_stacked_read(dev, buf, len);
    for (i = 0; i < n; i++) ((char *)buf)[i] = (char)rotate_letter(((char *)buf)[i], 26 - rot13_by(dev));
    return n;
}

static int rot13_open(chr_dev *dev, chr_error *err)
{
    CHR_TABLE(chr_handlers, handlers, CHR_SET(read, rot13_on_read)); /* unset ones: can_read and events are passed up */
    return chr_stacked_open(dev, ((const rot13_options *)dev->options)->chardev, &handlers, err);
}

CHR_TABLE(chr_io, rot13_io,
    CHR_SET(write,   rot13_write)
    CHR_SET(read,    rot13_read)
    CHR_SET(update,  chr_stacked_update)
    CHR_SET(wait_fd, chr_stacked_wait_fd));

CHR_TABLE(chr_peer_slots, rot13_peer,
    CHR_SET(disconnect,     chr_stacked_disconnect)
    CHR_SET(wait_connected, chr_stacked_wait_connected)
    CHR_SET(add_client,     chr_stacked_add_client)
    CHR_SET(set_msgfds,     chr_stacked_set_msgfds)
    CHR_SET(get_msgfds,     chr_stacked_get_msgfds)
    CHR_SET(shutdown,       chr_stacked_shutdown)
    CHR_SET(queued,         chr_stacked_queued));

CHR_TABLE(chr_backend, rot13_backend,
    CHR_SET(name,         "rot13")
    CHR_SET(help,         "rotates the letters of another chardev")
    CHR_SET(options,      rot13_rows)
    CHR_SET(options_size, sizeof(rot13_options))
    CHR_SET(state_size,   sizeof(chr_stacked)) /* or a struct of yours that begins with it */
    CHR_SET(open,         rot13_open)
    CHR_SET(close,        chr_stacked_close)
    CHR_SET(io,           &rot13_io)
    CHR_SET(describe,     chr_stacked_describe)
    CHR_SET(ioctl,        chr_stacked_ioctl)
    CHR_SET(set_open,     chr_stacked_set_open)
    CHR_SET(peer,         &rot13_peer));

/* ---- a program with it: sends hello to the last chardev and prints the input from there, until that is closed ---- */
#ifndef FILTER_ROT13_ALONE

static chr_context *ctx;
static chr_frontend con;

static void print_line(void *opaque, const char *line) { (void)opaque, puts(line); }
static void print_input(void *opaque, const void *buf, size_t len) { (void)opaque, fwrite(buf, 1, len, stdout); }

static void on_event(void *opaque, int event)
{
    (void)opaque;
    if (event == CHR_EVENT_OPENED) chr_fe_printf(&con, "hello\n");
    if (event == CHR_EVENT_CLOSED) chr_loop_stop(ctx);
}

int main(int argc, char **argv)
{
    const chr_handlers handlers = { NULL, print_input, on_event, NULL };
    chr_error          err = { CHR_ERR_INVALID, "usage: filter_rot13 CHARDEV... (rot13,chardev=ID is an additional backend)" };
    chr_dev           *dev = NULL;
    char               id[20];
    int                i;
    if (!(ctx = chr_context_new(NULL)) || chr_backend_register(ctx, &rot13_backend, &err) < 0) return 2;
    for (i = 1; i < argc && (i == 1 || dev); i++) {
        snprintf(id, sizeof id, "c%d", i);
        dev = chr_new_any(ctx, id, argv[i], &err);
    }
    if (!dev && err.code == CHR_ERR_HELP) return chr_help(ctx, argv[i - 1], print_line, NULL) < 0;
    if (!dev || chr_fe_init(&con, dev, &err) < 0) return fprintf(stderr, "%s\n", err.text), 2;
    chr_fe_set_handlers(&con, &handlers, NULL);
    chr_loop_run(ctx);
    chr_context_free(ctx);
    return 0;
}
#endif
