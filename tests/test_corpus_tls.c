/* The fuzz target of TLS as an ordinary test: over its corpus, and over inputs grown from it by a fixed random generator. A program of
 * its own, as what it has in the place of parts of mbed TLS is there for all that the program does. */
#ifndef CHARDEV_MBEDTLS
#include "chardev.h"
#include "test.h"

TEST(corpus_of_tls) { SKIP("this build has no TLS"); }

#else
#define CHARDEV_IMPLEMENTATION
#include "test.h"

#define FUZZ_TARGET fuzz_tls
#include "fuzz/fuzz_tls.c"

#include <dirent.h>

enum { MOST = 4096, GROWN = 8 };

static uint32_t next_random(uint32_t below)
{
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
}

/* As it is, then with one more byte changed each time, and every fourth time cut. */
static void run_file(const char *path)
{
    uint8_t data[MOST];
    size_t  size;
    int     i;
    FILE   *file = fopen(path, "rb");
    REQUIRE(file != NULL);
    size = fread(data, 1, sizeof data, file);
    fclose(file);
    fuzz_tls(data, size);
    for (i = 1; i <= GROWN && size > 2; i++) {
        data[1 + next_random((uint32_t)size - 1)] ^= (uint8_t)(1u << next_random(8));
        if (i % 4 == 0) size -= next_random((uint32_t)size / 2);
        fuzz_tls(data, size);
    }
}

TEST(corpus_of_tls)
{
    char           path[400];
    DIR           *dir = opendir("tests/fuzz/corpus/tls");
    struct dirent *entry;
    int            count = 0;
    if (!dir) SKIP("the corpus is not here: start it where tests/ is");
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "tests/fuzz/corpus/tls/%.200s", entry->d_name);
        run_file(path);
        count++;
    }
    closedir(dir);
    CHECK(count >= 100);
    fuzz_tls((const uint8_t *)"", 0);
}
#endif
