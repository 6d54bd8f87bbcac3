/* What chardev.h and the compiler want of a C library, where there is none. */
#include <stdint.h>
#include <string.h>

void *memcpy(void *to, const void *from, size_t len)
{
    char       *t = (char *)to;
    const char *f = (const char *)from;
    for (; len > 0; len--) *t++ = *f++;
    return to;
}

void *memmove(void *to, const void *from, size_t len)
{
    char       *t = (char *)to;
    const char *f = (const char *)from;
    if (t < f) return memcpy(to, from, len);
    while (len-- > 0) t[len] = f[len];
    return to;
}

void *memset(void *to, int byte, size_t len)
{
    char *t = (char *)to;
    for (; len > 0; len--) *t++ = (char)byte;
    return to;
}

int memcmp(const void *a, const void *b, size_t len)
{
    const unsigned char *x = (const unsigned char *)a, *y = (const unsigned char *)b;
    for (; len > 0; len--, x++, y++)
        if (*x != *y) return *x < *y ? -1 : 1;
    return 0;
}

void *memchr(const void *text, int byte, size_t len)
{
    const char *t = (const char *)text;
    for (; len > 0; len--, t++)
        if (*t == (char)byte) return (void *)(uintptr_t)t;
    return NULL;
}

size_t strlen(const char *text)
{
    size_t len = 0;
    while (text[len]) len++;
    return len;
}

int strncmp(const char *a, const char *b, size_t len)
{
    for (; len > 0; len--, a++, b++)
        if (*a != *b || !*a) return (unsigned char)*a - (unsigned char)*b;
    return 0;
}

int strcmp(const char *a, const char *b) { return strncmp(a, b, (size_t)-1); }

char *strchr(const char *text, int letter)
{
    for (; *text != (char)letter; text++)
        if (!*text) return NULL;
    return (char *)(uintptr_t)text;
}

size_t strcspn(const char *text, const char *letters)
{
    size_t len = 0;
    while (text[len] && !strchr(letters, text[len])) len++;
    return len;
}

char *strstr(const char *text, const char *word)
{
    for (; strncmp(text, word, strlen(word)) != 0; text++)
        if (!*text) return NULL;
    return (char *)(uintptr_t)text;
}
