# chardev.h is one header: nothing has to be built to use it. This builds the examples and runs the tests.
#
#   make            the examples, into build/          make test        everything; SAN=1 with sanitizers
#   make demo       the story, end to end              make test-peers  against real programs alone
#   make bench      speed, beside others               make cross       every compiler and target that is here
#   make fuzz       FUZZ_SECONDS=20 each               make coverage    lines of chardev.h that the tests reach
#   make install    PREFIX=/usr/local DESTDIR=

ifeq ($(origin CC),default)
CC        = gcc
endif
CFLAGS   ?= -O2 -g
WARNINGS  = -Wall -Wextra -Wpedantic -Wshadow -Wconversion
DEFINES   = -D_GNU_SOURCE -DCHARDEV_THREADS
PREFIX   ?= /usr/local
FUZZ_SECONDS ?= 20

ifdef SAN
B        = build/san
SANITIZE = -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else
B        = build
SANITIZE =
endif

# Where mbed TLS is there, what speaks over sockets speaks TLS too; TLS= builds without it.
TLS := $(shell echo '\#include <mbedtls/ssl.h>' | $(CC) -E -xc - >/dev/null 2>&1 && echo yes)
ifeq ($(TLS),yes)
TLS_FLAGS = -DCHARDEV_MBEDTLS
TLS_LIBS  = -lmbedtls -lmbedx509 -lmbedcrypto
endif

# Where spice-server is there, test_spice runs one; SPICE= builds without it.
SPICE := $(shell pkg-config --exists spice-server libcrypto 2>/dev/null && echo yes)
ifeq ($(SPICE),yes)
SPICE_FLAGS = -DCHARDEV_SPICE $(patsubst -I%,-isystem %,$(shell pkg-config --cflags spice-server))
SPICE_LIBS  = $(shell pkg-config --libs spice-server libcrypto)
endif

EXAMPLE_FLAGS = -I. -std=c99 $(DEFINES) $(WARNINGS) $(CFLAGS) $(SANITIZE) -pthread
TEST_FLAGS    = -I. -Itests -std=gnu99 $(DEFINES) $(WARNINGS) -g -O1 $(SANITIZE) -pthread

EXAMPLES = $(B)/hello $(B)/console_share $(B)/relay $(B)/fd_handoff $(B)/tinyvm
TESTS    = $(patsubst tests/%.c,$(B)/tests/%,$(sort $(wildcard tests/test_*.c)))
FUZZERS  = $(patsubst tests/fuzz/%.c,build/fuzz/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))

all: $(EXAMPLES)

$(B)/tinyvm: $(wildcard examples/tinyvm/*.c examples/tinyvm/*.h) chardev.h Makefile
	@mkdir -p $(@D)
	$(CC) $(EXAMPLE_FLAGS) $(TLS_FLAGS) -Iexamples/tinyvm -o $@ $(filter %.c,$^) $(LDFLAGS) $(TLS_LIBS)

$(B)/fd_handoff $(B)/hello $(B)/console_share $(B)/relay: $(B)/%: examples/%.c chardev.h Makefile
	@mkdir -p $(@D)
	$(CC) $(EXAMPLE_FLAGS) $(TLS_FLAGS) -o $@ $< $(LDFLAGS) $(TLS_LIBS)

$(B)/tests/%: tests/%.c $(wildcard tests/*.h) chardev.h Makefile
	@mkdir -p $(@D)
	$(CC) $(TEST_FLAGS) -o $@ $< $(LDFLAGS)

$(B)/tests/test_tls: TEST_FLAGS += $(TLS_FLAGS)
$(B)/tests/test_tls: LDFLAGS += $(TLS_LIBS)
$(B)/tests/test_spice: TEST_FLAGS += $(SPICE_FLAGS)
$(B)/tests/test_spice: LDFLAGS += $(SPICE_LIBS)
$(B)/tests/test_uart: examples/tinyvm/uart16550.c examples/tinyvm/uart16550.h

demo: $(B)/tinyvm $(B)/fd_handoff
	$(B)/fd_handoff
	@echo
	@echo 'demo: ok'

test: all $(TESTS)
	@BUILD=$(B) sh tests/run.sh $(TESTS)

test-peers: all
	@BUILD=$(B) sh tests/run.sh

bench:
	@sh tests/bench/run.sh

cross:
	@sh tests/cross.sh

build/fuzz/%: tests/fuzz/%.c $(wildcard tests/*.h tests/fuzz/*.h) chardev.h Makefile
	@mkdir -p $(@D)
	clang -I. -Itests -std=gnu99 $(DEFINES) $(WARNINGS) -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
	    -pthread $(FUZZ_FLAGS) -o $@ $< $(LDFLAGS)

build/fuzz/fuzz_tls: FUZZ_FLAGS = $(TLS_FLAGS)
build/fuzz/fuzz_tls: LDFLAGS += $(TLS_LIBS)
ifneq ($(TLS),yes)
FUZZERS := $(filter-out build/fuzz/fuzz_tls,$(FUZZERS))
NOT_FUZZED = fuzz_tls: skipped: mbedtls/ssl.h is missing
endif

fuzz: $(FUZZERS)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) SKIPPED='$(NOT_FUZZED)' sh tests/fuzz/run.sh $(FUZZERS)

coverage:
	@CC='$(CC)' FLAGS='-I. -Itests -std=gnu99 $(DEFINES) -g -O0 --coverage -pthread' sh tests/coverage.sh

install:
	mkdir -p '$(DESTDIR)$(PREFIX)/include' '$(DESTDIR)$(PREFIX)/lib/pkgconfig'
	mkdir -p '$(DESTDIR)$(PREFIX)/share/man/man1' '$(DESTDIR)$(PREFIX)/share/man/man3'
	cp chardev.h '$(DESTDIR)$(PREFIX)/include/chardev.h'
	version=$$(sed -n 's/^#define CHARDEV_VERSION "\(.*\)"/\1/p' chardev.h); \
	sed -e 's|@PREFIX@|$(PREFIX)|' -e "s|@VERSION@|$$version|" chardev.pc.in >'$(DESTDIR)$(PREFIX)/lib/pkgconfig/chardev.pc'
	cp man/*.1 '$(DESTDIR)$(PREFIX)/share/man/man1/'
	cp man/*.3 '$(DESTDIR)$(PREFIX)/share/man/man3/'

clean:
	rm -rf build

.PHONY: all demo test test-peers bench fuzz cross coverage install clean
