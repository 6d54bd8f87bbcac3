/* The fuzz targets as ordinary tests: over their corpora, and over inputs grown from them by a fixed random
 * generator. */
#include "fuzz/wire.h"
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"

#include "test.h"

#include <dirent.h>

#define FUZZ_TARGET fuzz_options
#include "fuzz/fuzz_options.c"
#undef FUZZ_TARGET
#define FUZZ_TARGET fuzz_uri
#include "fuzz/fuzz_uri.c"
#undef FUZZ_TARGET
#define FUZZ_TARGET fuzz_ringbuf
#include "fuzz/fuzz_ringbuf.c"
#undef FUZZ_TARGET
#define FUZZ_TARGET fuzz_mux
#include "fuzz/fuzz_mux.c"
#undef FUZZ_TARGET
#define FUZZ_TARGET fuzz_braille
#include "fuzz/fuzz_braille.c"
#undef FUZZ_TARGET
#define FUZZ_TARGET fuzz_telnet
#include "fuzz/fuzz_telnet.c"
#undef FUZZ_TARGET
#define FUZZ_TARGET fuzz_websocket
#include "fuzz/fuzz_websocket.c"
#undef FUZZ_TARGET
#define FUZZ_TARGET fuzz_record
#include "fuzz/fuzz_record.c"
#undef FUZZ_TARGET
#define FUZZ_TARGET fuzz_script
#include "fuzz/fuzz_script.c"
#undef FUZZ_TARGET
#define FUZZ_TARGET fuzz_emulated
#include "fuzz/fuzz_emulated.c"
#undef FUZZ_TARGET
#define FUZZ_TARGET fuzz_comport
#include "fuzz/fuzz_comport.c"
#undef FUZZ_TARGET
#define FUZZ_TARGET fuzz_socket
#include "fuzz/fuzz_socket.c"
#undef FUZZ_TARGET
#define FUZZ_TARGET fuzz_session
#include "fuzz/fuzz_session.c"
#undef FUZZ_TARGET
#define FUZZ_TARGET fuzz_fault
#include "fuzz/fuzz_fault.c"

enum { MOST = 4096, GROWN = 40 };

static uint32_t random_state = 1;

static uint32_t next_random(uint32_t below)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % below;
}

/* Changes a few bytes, cuts, or repeats a part. */
static size_t mutate(uint8_t *data, size_t size)
{
    uint32_t changes = 1 + next_random(4);
    while (changes-- && size) {
        uint32_t at = next_random((uint32_t)size), len = next_random((uint32_t)(size - at)) + 1;
        switch (next_random(4)) {
        case 0: data[at] = (uint8_t)next_random(256); break;
        case 1: data[at] ^= (uint8_t)(1u << next_random(8)); break;
        case 2: size = at + 1; break;
        default:
            if (size + len > MOST) break;
            memmove(data + at + len, data + at, size - at);
            size += len;
            break;
        }
    }
    return size;
}

static void run_file(const char *path, int (*target)(const uint8_t *, size_t))
{
    uint8_t seed[MOST], data[MOST];
    size_t  size, grown;
    int     i;
    FILE   *file = fopen(path, "rb");
    REQUIRE(file != NULL);
    size = fread(seed, 1, sizeof seed, file);
    fclose(file);
    target(seed, size);
    memcpy(data, seed, size);
    for (i = 0, grown = size; i < GROWN; i++) {
        if (i % 10 == 0) memcpy(data, seed, grown = size);
        grown = mutate(data, grown);
        target(data, grown);
    }
}

static void run_corpus(const char *name, int (*target)(const uint8_t *, size_t))
{
    char           path[400];
    DIR           *dir;
    struct dirent *entry;
    int            count = 0;
    snprintf(path, sizeof path, "tests/fuzz/corpus/%s", name);
    dir = opendir(path);
    if (!dir) SKIP("the corpus is not here: start it where tests/ is");
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "tests/fuzz/corpus/%s/%.200s", name, entry->d_name);
        run_file(path, target);
        count++;
    }
    closedir(dir);
    CHECK(count >= 5);
    target((const uint8_t *)"", 0);
}

TEST(corpus_of_options) { run_corpus("options", fuzz_options); }
TEST(corpus_of_uri) { run_corpus("uri", fuzz_uri); }
TEST(corpus_of_ringbuf) { run_corpus("ringbuf", fuzz_ringbuf); }
TEST(corpus_of_mux) { run_corpus("mux", fuzz_mux); }
TEST(corpus_of_braille) { run_corpus("braille", fuzz_braille); }
TEST(corpus_of_telnet) { run_corpus("telnet", fuzz_telnet); }
TEST(corpus_of_websocket) { run_corpus("websocket", fuzz_websocket); }
TEST(corpus_of_record) { run_corpus("record", fuzz_record); }
TEST(corpus_of_script) { run_corpus("script", fuzz_script); }
TEST(corpus_of_fault) { run_corpus("fault", fuzz_fault); }
TEST(corpus_of_emulated) { run_corpus("emulated", fuzz_emulated); }
TEST(corpus_of_comport) { run_corpus("comport", fuzz_comport); }
TEST(corpus_of_socket) { run_corpus("socket", fuzz_socket); }
TEST(corpus_of_session) { run_corpus("session", fuzz_session); }
