/*
 * image.h - loads a program into the RAM: an RV32 ELF executable, or else a raw image for the start of the RAM.
 */
#ifndef TINYVM_IMAGE_H
#define TINYVM_IMAGE_H

#include "chardev.h"
#include "cpu.h"

/* Returns 0, or an error with nothing written. *entry: the address of the first instruction. */
int image_load(struct cpu_bus *bus, const void *image, size_t size, uint32_t *entry, chr_error *err);

#endif
