/*
 * middle.h - a backend that is stacked on another chardev (chardev=ID) and consists of the library's default slots only.
 */
#ifndef CHARDEV_MIDDLE_H
#define CHARDEV_MIDDLE_H

typedef struct middle_options {
    chr_common_options common;
    const char        *chardev;
} middle_options;

static const chr_option middle_rows[] = {
    { "chardev", CHR_OPTION_TEXT, offsetof(middle_options, chardev), NULL, 0, 0, "id of the chardev that it is on" },
    { NULL,      CHR_OPTION_TEXT, 0,                                 NULL, 0, 0, NULL }
};

static const chr_handlers *middle_handlers; /* what chr_stacked_open() gets */

static int middle_open(chr_dev *dev, chr_error *err)
{
    const char *id = ((const middle_options *)dev->options)->chardev;
    return id ? chr_stacked_open(dev, id, middle_handlers, err) : 0;
}

CHR_TABLE(chr_io, middle_io,
    CHR_SET(write,   chr_stacked_write)
    CHR_SET(read,    chr_stacked_read)
    CHR_SET(update,  chr_stacked_update)
    CHR_SET(wait_fd, chr_stacked_wait_fd));
CHR_TABLE(chr_peer_slots, middle_peer,
    CHR_SET(disconnect,     chr_stacked_disconnect)
    CHR_SET(wait_connected, chr_stacked_wait_connected)
    CHR_SET(add_client,     chr_stacked_add_client)
    CHR_SET(set_msgfds,     chr_stacked_set_msgfds)
    CHR_SET(get_msgfds,     chr_stacked_get_msgfds)
    CHR_SET(shutdown,       chr_stacked_shutdown)
    CHR_SET(queued,         chr_stacked_queued));
CHR_TABLE(chr_backend, middle_backend,
    CHR_SET(name,         "middle")
    CHR_SET(help,         "passes all on")
    CHR_SET(options,      middle_rows)
    CHR_SET(options_size, sizeof(middle_options))
    CHR_SET(state_size,   sizeof(chr_stacked))
    CHR_SET(open,         middle_open)
    CHR_SET(close,        chr_stacked_close)
    CHR_SET(io,           &middle_io)
    CHR_SET(describe,     chr_stacked_describe)
    CHR_SET(ioctl,        chr_stacked_ioctl)
    CHR_SET(set_open,     chr_stacked_set_open)
    CHR_SET(peer,         &middle_peer));

#endif
