/*
 * image.h - puts a program into the RAM: RV32 executables in ELF, anything else as a raw image for the start of the RAM.
 */
#ifndef TINYVM_IMAGE_H
#define TINYVM_IMAGE_H

#include "chardev.h"
#include "cpu.h"

/* *entry is where to begin. Nothing is written when it fails. */
int image_load(struct cpu_bus *bus, const void *image, size_t size, uint32_t *entry, chr_error *err);

#endif
