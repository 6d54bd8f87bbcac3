# chardev.h is one header: nothing has to be built to use it. This builds the examples and runs the tests.
#
#   make            the examples, into build/          make test        everything; SAN=1 with sanitizers
#   make demo       the story, end to end              make test-peers  against real programs alone
#   make bench      speed, beside others               make cross       every compiler and target that is here
#   make fuzz       FUZZ_SECONDS=20 each               make coverage    lines of chardev.h that the tests reach
#   make soak       MINUTES=60 of random tests, with sanitizers, on all processors
#   make mutate     whether the tests notice faults      SECTION= N= SEED= MIN= MUTANT=, see tests/mutate.py
#   make windows    the examples, into build/win/*.exe make test-windows  the tests, under Wine
#   make docs       the reference: man pages and build/docs/reference.html, from chardev.h
#   make install    PREFIX=/usr/local DESTDIR=          make uninstall  removes what that has put there
#
# V=1 shows the compiler's command lines. CC, CFLAGS, LDFLAGS as ever; TLS= and SPICE= build without mbed TLS, without spice-server.
# SAN=1: address and undefined behaviour sanitizers; SAN=thread: the tests with threads under the thread sanitizer; PEERS=0: no peers.

MAKEFLAGS += --no-builtin-rules
STARTED := $(shell date +%s)

ifeq ($(origin CC),default)
CC        = gcc
endif
TEST_CFLAGS := $(CFLAGS)
CFLAGS   ?= -O2 -g
WARNINGS  = -Wall -Wextra -Wpedantic -Wshadow -Wconversion
DEFINES   = -D_GNU_SOURCE -DCHARDEV_THREADS
PREFIX   ?= /usr/local
FUZZ_SECONDS ?= 20

# As many jobs side by side as there are processors, unless -j says how many (here or in the make that calls this one).
ifeq ($(filter -j% --jobserver%,$(shell echo "$$MAKEFLAGS")),)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif
JOBS = $(patsubst -j%,%,$(filter -j%,$(MAKEFLAGS)))

# A line for each program; the compiler's command lines with V=1.
SAY = $(if $(filter 1,$(V)),,@echo 'CC $@';)

ifeq ($(SAN),)
B        = build
SANITIZE =
else ifeq ($(SAN),1)
B        = build/san
SANITIZE = -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else ifeq ($(SAN),thread)
B        = build/tsan
SANITIZE = -fsanitize=thread -fno-omit-frame-pointer
else ifeq ($(SAN),coverage)
B        = build/coverage
SANITIZE = -O0 --coverage
else
$(error SAN=$(SAN): it is 1 (address, undefined) or thread)
endif

# Where mbed TLS is there, what speaks over sockets speaks TLS too; TLS= builds without it. There is no number sign in the question:
# some versions of make would keep the backslash before it.
TLS := $(shell $(CC) -E -include mbedtls/ssl.h -x c /dev/null >/dev/null 2>&1 && echo yes)
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
# The implementation is optimized a little, for the tests' sake; the test programs are not: compiling them is most of the build.
TEST_LEVEL    = -O1
TEST_FLAGS    = -I. -Itests -std=gnu99 $(DEFINES) $(WARNINGS) -g $(TEST_LEVEL) $(TEST_CFLAGS) $(SANITIZE) -pthread
FLAGS_USED    = $(CC) $(EXAMPLE_FLAGS) $(TEST_FLAGS) $(TLS_FLAGS) $(TLS_LIBS) $(SPICE_FLAGS) $(SPICE_LIBS) $(LDFLAGS)

# A chardev on other loops, where their libraries are there.
libuv    = libuv
glib     = glib-2.0
LOOPS   := $(if $(filter Linux,$(shell uname -s)),epoll) \
           $(foreach loop,libuv glib,$(if $(shell pkg-config --exists $($(loop)) 2>/dev/null && echo yes),$(loop)))

EXAMPLES = $(LOOPS:%=$(B)/loops/%) $(B)/hello $(B)/console_share $(B)/filter_rot13 $(B)/relay $(B)/fd_handoff $(B)/manager $(B)/tinyvm
SOURCES := $(sort $(wildcard tests/test_*.c))
FUZZERS  = $(patsubst tests/fuzz/%.c,$(F)/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
ifeq ($(SAN),thread)
EXAMPLES =
SOURCES := $(filter tests/test_threads% tests/test_isr_ring%,$(SOURCES))
endif
TESTS    = $(patsubst tests/%.c,$(B)/tests/%,$(filter-out tests/test_socket_windows.c tests/test_wait_windows.c,$(SOURCES)))
LONG     = $(filter $(patsubst %,$(B)/tests/test_%,connections threads_matrix shutdown faults tls),$(TESTS)) # they start first

all: $(EXAMPLES)

# Changes when the compiler or a flag does. What was built with others is built anew.
$(B)/flags: export FLAGS_NOW = $(FLAGS_USED)
$(B)/flags: always
	@mkdir -p $(@D) && printf '%s\n' "$$FLAGS_NOW" | cmp -s - $@ || printf '%s\n' "$$FLAGS_NOW" >$@

# The implementation, once for several programs. hello holds it itself: it is all that a program needs.
$(B)/chardev.o: examples/tinyvm/chardev.c chardev.h Makefile $(B)/flags
	@mkdir -p $(@D)
	$(SAY)$(CC) $(EXAMPLE_FLAGS) $(TLS_FLAGS) -c -o $@ $<

$(B)/tinyvm: $(wildcard examples/*.h examples/tinyvm/*.c examples/tinyvm/*.h) $(B)/chardev.o Makefile $(B)/flags
	@mkdir -p $(@D)
	$(SAY)$(CC) $(EXAMPLE_FLAGS) $(TLS_FLAGS) -Iexamples/tinyvm -o $@ $(filter-out %/chardev.c,$(filter %.c %.o,$^)) $(LDFLAGS) $(TLS_LIBS)

$(B)/console_share $(B)/filter_rot13 $(B)/relay: $(B)/%: examples/%.c $(wildcard examples/*.h) $(B)/chardev.o Makefile $(B)/flags
	@mkdir -p $(@D)
	$(SAY)$(CC) $(EXAMPLE_FLAGS) $(TLS_FLAGS) -DCHARDEV_LINKED -o $@ $< $(B)/chardev.o $(LDFLAGS) $(TLS_LIBS)

$(LOOPS:%=$(B)/loops/%): $(B)/loops/%: examples/loops/%.c $(B)/chardev.o Makefile $(B)/flags
	@mkdir -p $(@D)
	$(SAY)$(CC) $(EXAMPLE_FLAGS) $(if $($*),$(patsubst -I%,-isystem %,$(shell pkg-config --cflags $($*)))) -o $@ $< $(B)/chardev.o \
	    $(LDFLAGS) $(TLS_LIBS) $(if $($*),$(shell pkg-config --libs $($*)))

$(B)/fd_handoff $(B)/hello $(B)/manager: $(B)/%: examples/%.c chardev.h Makefile $(B)/flags
	@mkdir -p $(@D)
	$(SAY)$(CC) $(EXAMPLE_FLAGS) $(TLS_FLAGS) -o $@ $< $(LDFLAGS) $(TLS_LIBS)

# The implementation is compiled once for each flavour and linked with the test programs that ask for it: by including fault.h, by
# including counted.h, by naming CHARDEV_MBEDTLS or CHARDEV_SPICE. Few hold it themselves, to put other system calls in its way or to
# look inside.
OWN    := $(shell grep -l 'define CHARDEV_IMPLEMENTATION' $(SOURCES))
FAULTY := $(shell grep -l 'include "fault.h"' $(SOURCES))
SECURE := $(if $(TLS_FLAGS),$(shell grep -l CHARDEV_MBEDTLS $(SOURCES)))
SPICY  := $(if $(SPICE_FLAGS),$(shell grep -l CHARDEV_SPICE $(SOURCES)))
COUNTED := $(shell grep -l 'include "counted.h"' $(SOURCES))
flavour = $(if $(filter $1,$(COUNTED)),-counted)$(if $(filter $1,$(FAULTY)),-faults)$(if $(filter $1,$(SECURE)),-tls)$(if $(filter $1,$(SPICY)),-spice)
object  = $(if $(filter $1,$(OWN)),,$(B)/tests/impl$(call flavour,$1).o)

flavour_flags = $(if $(findstring -faults,$1),-DTEST_FAULTS) $(if $(findstring -tls,$1),$(TLS_FLAGS)) \
                $(if $(findstring -spice,$1),$(SPICE_FLAGS))
object_flags  = $(if $(findstring -counted,$1),-DTEST_COUNTED -fsanitize-coverage=trace-pc) $(flavour_flags)
flavour_libs  = $(if $(findstring -tls,$1),$(TLS_LIBS)) $(if $(findstring -spice,$1),$(SPICE_LIBS))

OBJECTS = $(sort $(foreach source,$(SOURCES),$(call object,$(source))))

$(OBJECTS): $(B)/tests/impl%.o: tests/impl.c tests/counted.h tests/fault.h tests/private.h chardev.h Makefile $(B)/flags
	@mkdir -p $(@D)
	$(SAY)$(CC) $(TEST_FLAGS) $(call object_flags,$*) -c -o $@ $<

.SECONDEXPANSION:
$(TESTS): private TEST_LEVEL = -O0
$(TESTS): $(B)/tests/%: tests/%.c $(wildcard tests/*.h) chardev.h Makefile $(B)/flags $$(call object,tests/$$*.c)
	@mkdir -p $(@D)
	$(SAY)$(CC) $(TEST_FLAGS) $(if $(filter %.o,$^),-DCHARDEV_LINKED) $(call flavour_flags,$(call flavour,$<)) -o $@ $< \
	    $(filter %.o,$^) $(LDFLAGS) $(call flavour_libs,$(call flavour,$<))

$(filter $(B)/tests/test_uart,$(TESTS)): examples/tinyvm/uart16550.c examples/tinyvm/uart16550.h
$(filter $(B)/tests/test_corpus,$(TESTS)): $(wildcard tests/fuzz/*.c tests/fuzz/*.h)
$(filter $(B)/tests/test_corpus_tls,$(TESTS)): $(wildcard tests/fuzz/*.c tests/fuzz/*.h)

# The same for Windows, built here by MinGW; the tests run under Wine. tests/windows holds the POSIX names that they use, and the list
# of the programs and single tests that can't be there. WIN_CC= is another compiler for Windows. tests/windows/mbedtls.sh runs those
# with TLS.
WIN_CC       = x86_64-w64-mingw32-gcc
WIN_EXAMPLES = $(patsubst %,build/win/%.exe,hello console_share filter_rot13 relay fd_handoff tinyvm)
WIN_FLAGS    = -I. -std=c99 -DCHARDEV_THREADS $(WARNINGS) $(CFLAGS)
WIN_LIBS     = -lws2_32
WIN_TEST     = $(WIN_CC) -I. -Itests -Itests/windows -std=gnu99 -D__USE_MINGW_ANSI_STDIO=1 -DCHARDEV_THREADS $(WARNINGS) -g $(TEST_CFLAGS)
WIN_PROGRAMS = $(SOURCES:tests/%.c=build/win/tests/%.exe)
WIN_SKIPPED := $(shell sed -n 's|^\(test_[a-z0-9_]*\): .*|build/win/tests/\1.exe|p' tests/windows/skipped)
WIN_TESTS    = $(if $(shell command -v $(WIN_CC)),$(filter-out $(WIN_SKIPPED),$(WIN_PROGRAMS)))
WIN_LONG     = $(patsubst %,build/win/tests/test_%.exe,connections threads_matrix shutdown websocket comport buffers telnet core)
win_flavour  = $(if $(filter $1,$(COUNTED)),-counted)$(if $(filter $1,$(FAULTY)),-faults)$(if $(WIN_TLS),$(if $(filter $1,$(SECURE)),-tls))
win_object   = $(if $(filter $1,$(OWN)),,build/win/tests/impl$(call win_flavour,$1).o)
WIN_OBJECTS  = $(sort $(foreach source,$(SOURCES),$(call win_object,$(source))))

windows: $(WIN_EXAMPLES)

build/win/flags: export FLAGS_NOW = $(WIN_CC) $(WIN_FLAGS) $(WIN_TEST)
build/win/flags: always
	@mkdir -p $(@D) && printf '%s\n' "$$FLAGS_NOW" | cmp -s - $@ || printf '%s\n' "$$FLAGS_NOW" >$@

build/win/chardev.o: examples/tinyvm/chardev.c chardev.h Makefile build/win/flags
	$(SAY)$(WIN_CC) $(WIN_FLAGS) -c -o $@ $<

build/win/tinyvm.exe: $(wildcard examples/*.h examples/tinyvm/*.c examples/tinyvm/*.h) build/win/chardev.o Makefile build/win/flags
	$(SAY)$(WIN_CC) $(WIN_FLAGS) -Iexamples/tinyvm -o $@ $(filter-out %/chardev.c,$(filter %.c %.o,$^)) $(WIN_LIBS)

$(patsubst %,build/win/%.exe,console_share filter_rot13 relay): build/win/%.exe: examples/%.c $(wildcard examples/*.h) build/win/chardev.o Makefile build/win/flags
	$(SAY)$(WIN_CC) $(WIN_FLAGS) -DCHARDEV_LINKED -o $@ $< build/win/chardev.o $(WIN_LIBS)

build/win/hello.exe: build/win/%.exe: examples/%.c chardev.h Makefile build/win/flags
	$(SAY)$(WIN_CC) $(WIN_FLAGS) -o $@ $< $(WIN_LIBS)

build/win/fd_handoff.exe: examples/fd_handoff_windows.c Makefile build/win/flags
	$(SAY)$(WIN_CC) $(WIN_FLAGS) -o $@ $< $(WIN_LIBS)

$(WIN_OBJECTS): build/win/tests/impl%.o: tests/impl.c tests/counted.h tests/fault.h tests/private.h chardev.h Makefile build/win/flags
	@mkdir -p $(@D)
	$(SAY)$(WIN_TEST) -O1 $(call object_flags,$*) -c -o $@ $<

$(WIN_PROGRAMS): build/win/tests/%.exe: tests/%.c $(wildcard tests/*.h tests/windows/*.h) chardev.h Makefile build/win/flags \
    $$(call win_object,tests/$$*.c)
	@mkdir -p $(@D)
	$(SAY)$(WIN_TEST) -O0 $(if $(filter %.o,$^),-DCHARDEV_LINKED) $(call flavour_flags,$(call win_flavour,$<)) -o $@ $< \
	    $(filter %.o,$^) -static -lpthread $(call flavour_libs,$(call win_flavour,$<)) $(WIN_LIBS)

test-windows: $(if $(WIN_TESTS),windows) $(WIN_TESTS)
	@BUILD=build/win STARTED=$(STARTED) JOBS=$(JOBS) LONG='$(filter $(WIN_LONG),$(WIN_TESTS))' sh tests/windows/run.sh $(WIN_TESTS)

demo: $(B)/tinyvm $(B)/fd_handoff
	$(B)/fd_handoff
	@echo
	@echo 'demo: ok'

test: all $(TESTS)
	@BUILD=$(B) STARTED=$(STARTED) JOBS=$(JOBS) $(if $(filter thread,$(SAN)),PEERS=0) LONG='$(LONG)' sh tests/run.sh $(TESTS)

test-peers: all
	@BUILD=$(B) sh tests/run.sh

bench: $(B)/tinyvm $(B)/relay
	@sh tests/bench/run.sh

cross:
	@sh tests/cross.sh

# Likewise: those that look inside hold the implementation themselves. FUZZ_PLAIN=1: without the sanitizers, in build/fuzz-plain. What
# all inputs do is not counted, nor are comparisons looked at, but for the targets that need it: that takes most of the time.
F        = build/fuzz$(if $(FUZZ_PLAIN),-plain)
FUZZ_SAN = $(if $(FUZZ_PLAIN),-O2 -fsanitize=fuzzer,-O1 -fsanitize=fuzzer -fsanitize=address -fsanitize=undefined -fno-sanitize-recover=undefined)
FUZZ_CMP = -fno-sanitize-coverage=trace-cmp
FUZZ_CC  = clang -I. -Itests -std=gnu99 $(DEFINES) $(WARNINGS) -g $(FUZZ_SAN) -fsanitize-coverage-ignorelist=tests/fuzz/uncounted $(FUZZ_CMP) -pthread
OWN_FUZZ = $(shell grep -l 'chr__\|define CHARDEV_IMPLEMENTATION' tests/fuzz/*.c)

$(F)/impl.o: tests/impl.c tests/fault.h tests/private.h tests/fuzz/wire.h tests/fuzz/uncounted chardev.h Makefile
	@mkdir -p $(@D)
	$(SAY)$(FUZZ_CC) -DTEST_FAULTS -DTEST_WIRES -c -o $@ $<

$(FUZZERS): $(F)/%: tests/fuzz/%.c $(wildcard tests/*.h tests/fuzz/*.h) chardev.h Makefile \
    $$(if $$(filter tests/fuzz/$$*.c,$$(OWN_FUZZ)),,$(F)/impl.o)
	@mkdir -p $(@D)
	$(SAY)$(FUZZ_CC) $(FUZZ_FLAGS) $(if $(filter %.o,$^),-DCHARDEV_LINKED) -o $@ $(filter %.c %.o,$^) $(LDFLAGS)

$(F)/fuzz_websocket: FUZZ_CMP =
$(F)/fuzz_tls: FUZZ_FLAGS = $(TLS_FLAGS)
$(F)/fuzz_tls: LDFLAGS += $(TLS_LIBS)
ifneq ($(TLS),yes)
FUZZERS := $(filter-out $(F)/fuzz_tls,$(FUZZERS))
NOT_FUZZED = fuzz_tls: skipped: mbedtls/ssl.h is missing
endif

fuzz: $(FUZZERS)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_PLAIN=$(FUZZ_PLAIN) SKIPPED='$(NOT_FUZZED)' sh tests/fuzz/run.sh $(FUZZERS)

# Whether the tests notice faults in chardev.h: tests/mutate.py says what SECTION=, N=, EACH=, SEED=, MIN= and MUTANT= are for.
mutate: export TEST_PROGRAMS := $(foreach source,$(filter-out %_windows.c tests/test_win.c,$(SOURCES)),$(basename $(notdir $(source))):$(subst -counted,,$(call flavour,$(source))):$(if $(filter $(source),$(OWN)),own))
mutate:
	@TLS_FLAGS='$(TLS_FLAGS)' TLS_LIBS='$(TLS_LIBS)' SPICE_FLAGS='$(SPICE_FLAGS)' SPICE_LIBS='$(SPICE_LIBS)' JOBS='$(JOBS)' /usr/bin/python3 -B tests/mutate.py

# The seeds of test_random and test_model, from FROM on (a number of its own for each minute, unless given), until the time is over
# or SCHEDULES of test_model have run.
MINUTES ?= 60
ifneq ($(SAN),1)
soak:
	@$(MAKE) SAN=1 soak
else
soak: $(B)/tests/test_random $(B)/tests/test_model
	@BUILD=$(B) MINUTES=$(MINUTES) SCHEDULES=$(SCHEDULES) FROM=$(FROM) JOBS=$(JOBS) sh tests/soak.sh
endif

ifneq ($(SAN),coverage)
coverage:
	@$(MAKE) SAN=coverage coverage
else
coverage: all $(TESTS)
	@STARTED=$(STARTED) JOBS=$(JOBS) LONG='$(LONG)' sh tests/coverage.sh $(TESTS)
endif

# The reference, from the public part of chardev.h: man pages (a page a section, and a link to it for each name) and one page of HTML.
VERSION   = $(shell sed -n 's/^.define CHARDEV_VERSION "\(.*\)"/\1/p' chardev.h)
DATE      = $(shell sed -n 's/^## [0-9.]* (\(.*\))/\1/p' CHANGELOG.md | head -n 1)
REFERENCE = awk -v version='$(VERSION)' -v date='$(DATE)' -v out=build/docs/man3 -v style=man/reference.css -f man/reference.awk

docs: build/docs/reference.html

build/docs/reference.html: man/reference.awk man/reference.css chardev.h CHANGELOG.md
	@rm -rf build/docs && mkdir -p build/docs/man3
	$(REFERENCE) -v format=man chardev.h chardev.h
	$(REFERENCE) -v format=html chardev.h chardev.h >$@.new
	@mv $@.new $@

# What is installed, and where: uninstall removes the same.
ROOT      = $(DESTDIR)$(PREFIX)
CMAKE_DIR = lib/cmake/chardev
FILL_IN   = sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|'
INSTALLED = include/chardev.h lib/pkgconfig/chardev.pc $(CMAKE_DIR)/chardevConfig.cmake $(CMAKE_DIR)/chardevConfigVersion.cmake

install: docs
	mkdir -p '$(ROOT)/include' '$(ROOT)/lib/pkgconfig' '$(ROOT)/$(CMAKE_DIR)' '$(ROOT)/share/man/man1' '$(ROOT)/share/man/man3'
	cp chardev.h '$(ROOT)/include/chardev.h'
	$(FILL_IN) chardev.pc.in >'$(ROOT)/lib/pkgconfig/chardev.pc'
	$(FILL_IN) chardevConfig.cmake.in >'$(ROOT)/$(CMAKE_DIR)/chardevConfig.cmake'
	$(FILL_IN) chardevConfigVersion.cmake.in >'$(ROOT)/$(CMAKE_DIR)/chardevConfigVersion.cmake'
	cp man/*.1 '$(ROOT)/share/man/man1/'
	cp build/docs/man3/*.3 '$(ROOT)/share/man/man3/'

uninstall: docs
	for file in $(INSTALLED); do rm -f '$(ROOT)'/"$$file"; done
	for page in man/*.1; do rm -f '$(ROOT)'/share/man/man1/"$${page##*/}"; done
	for page in build/docs/man3/*.3; do rm -f '$(ROOT)'/share/man/man3/"$${page##*/}"; done
	if [ -d '$(ROOT)/$(CMAKE_DIR)' ]; then rmdir '$(ROOT)/$(CMAKE_DIR)'; fi

clean:
	rm -rf build

always:

.PHONY: all always demo docs windows test test-windows test-peers bench fuzz soak cross coverage mutate install uninstall clean
