/* image.c - an ELF loader for a machine without an operating system: program headers only. */
#include "image.h"

#include <stdio.h>
#include <string.h>

enum { ELF_HEADER = 52, PROGRAM_HEADER = 32, PT_LOAD = 1, EM_RISCV = 243 };

static uint32_t u16_at(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static uint32_t u32_at(const uint8_t *p) { return u16_at(p) | u16_at(p + 2) << 16; }

struct segment {
    uint32_t type, offset, address, file_size, size;
};

static int fail(chr_error *err, const char *what)
{
    err->code = CHR_ERR_INVALID;
    snprintf(err->text, sizeof err->text, "%s", what);
    return err->code;
}

static const char *check_header(const uint8_t *elf, size_t size)
{
    if (size < ELF_HEADER) return "the ELF file is cut off";
    if (elf[4] != 1 || elf[5] != 1 || u16_at(elf + 18) != EM_RISCV)
        return "the ELF file is not for 32-bit little-endian RISC-V";
    uint32_t at = u32_at(elf + 28), count = u16_at(elf + 44);
    if (u16_at(elf + 42) != PROGRAM_HEADER || at > size || (uint64_t)count * PROGRAM_HEADER > size - at)
        return "the ELF file's program headers are broken";
    return NULL;
}

/* Removes the part of a segment before the RAM: linkers put the ELF headers into a page before the program. */
static void clip_front(const struct cpu_bus *bus, struct segment *s)
{
    uint32_t before = bus->ram_base - s->address;
    if (s->address >= bus->ram_base || before > s->file_size) return;
    s->offset += before;
    s->address += before;
    s->file_size -= before;
    s->size -= before;
}

static struct segment segment_at(const struct cpu_bus *bus, const uint8_t *elf, uint32_t i)
{
    const uint8_t *p = elf + u32_at(elf + 28) + i * PROGRAM_HEADER;
    struct segment s = { u32_at(p), u32_at(p + 4), u32_at(p + 12), u32_at(p + 16), u32_at(p + 20) };
    if (s.type == PT_LOAD) clip_front(bus, &s);
    return s;
}

static int fits(const struct cpu_bus *bus, const struct segment *s, size_t size)
{
    uint32_t at = s->address - bus->ram_base;
    return s->address >= bus->ram_base && at <= bus->ram_size && s->size <= bus->ram_size - at &&
           s->file_size <= s->size && s->offset <= size && s->file_size <= size - s->offset;
}

static int load_elf(struct cpu_bus *bus, const uint8_t *elf, size_t size, uint32_t *entry, chr_error *err)
{
    const char *problem = check_header(elf, size);
    if (problem) return fail(err, problem);
    uint32_t count = u16_at(elf + 44);
    for (uint32_t i = 0; i < count; i++) {
        struct segment s = segment_at(bus, elf, i);
        if (s.type == PT_LOAD && s.size && !fits(bus, &s, size))
            return fail(err, "a segment of the ELF file doesn't fit into the RAM");
    }
    for (uint32_t i = 0; i < count; i++) {
        struct segment s = segment_at(bus, elf, i);
        if (s.type != PT_LOAD || !s.size) continue;
        uint8_t *to = bus->ram + (s.address - bus->ram_base);
        memcpy(to, elf + s.offset, s.file_size);
        memset(to + s.file_size, 0, s.size - s.file_size);
    }
    *entry = u32_at(elf + 24);
    return 0;
}

int image_load(struct cpu_bus *bus, const void *image, size_t size, uint32_t *entry, chr_error *err)
{
    if (size >= 4 && !memcmp(image, "\177ELF", 4)) return load_elf(bus, image, size, entry, err);
    if (size > bus->ram_size) return fail(err, "the image doesn't fit into the RAM");
    if (size) memcpy(bus->ram, image, size);
    *entry = bus->ram_base;
    return 0;
}
