/*
 * arguments.h - the command line in UTF-8, the encoding of chardev.h. On Windows main() gets it in the ANSI code page
 * and with wildcards expanded, so it is taken from GetCommandLineW(). On other systems nothing is done.
 */
#ifndef EXAMPLES_ARGUMENTS_H
#define EXAMPLES_ARGUMENTS_H

#ifdef _WIN32

#include <winsock2.h>
#include <windows.h>

#include <shellapi.h>
#include <stdlib.h>

static inline char *arguments_one(const WCHAR *wide)
{
    int   size = WideCharToMultiByte(CP_UTF8, 0, wide, -1, NULL, 0, NULL, NULL);
    char *text = size > 0 ? (char *)malloc((size_t)size) : NULL;

    if (text) WideCharToMultiByte(CP_UTF8, 0, wide, -1, text, size, NULL, NULL);
    return text;
}

/* Out of memory: they stay unchanged. The new ones are never freed. */
static inline void arguments_to_utf8(int *argc, char ***argv)
{
    int     i, count = 0;
    WCHAR **wide = CommandLineToArgvW(GetCommandLineW(), &count);
    char  **texts = wide ? (char **)calloc((size_t)count + 1, sizeof *texts) : NULL;

    for (i = 0; texts && i < count; i++)
        if (!(texts[i] = arguments_one(wide[i]))) return;
    if (!texts) return;
    *argc = count;
    *argv = texts;
    LocalFree(wide);
}

#else

static inline void arguments_to_utf8(int *argc, char ***argv)
{
    (void)argc, (void)argv;
}

#endif

#endif
