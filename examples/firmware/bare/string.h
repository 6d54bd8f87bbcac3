/* <string.h> for a compiler that comes without a C library; string.c has the functions. */
#ifndef BARE_STRING_H
#define BARE_STRING_H

#include <stddef.h>

void  *memchr(const void *text, int byte, size_t len);
int    memcmp(const void *a, const void *b, size_t len);
void  *memcpy(void *to, const void *from, size_t len);
void  *memmove(void *to, const void *from, size_t len);
void  *memset(void *to, int byte, size_t len);
char  *strchr(const char *text, int letter);
int    strcmp(const char *a, const char *b);
size_t strcspn(const char *text, const char *letters);
size_t strlen(const char *text);
int    strncmp(const char *a, const char *b, size_t len);
char  *strstr(const char *text, const char *word);

#endif
