/* firmware.h - what the machine runs when it is given nothing else: a raw image for the start of the RAM. */
#ifndef TINYVM_FIRMWARE_H
#define TINYVM_FIRMWARE_H

#include <stddef.h>

extern const unsigned char firmware[];
extern const size_t        firmware_size;

#endif
