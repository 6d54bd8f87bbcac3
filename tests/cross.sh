#!/bin/sh
# Compiles chardev.h with every compiler and for every target that is installed, with warnings as errors, and runs the result
# wherever it can be run. Then: what it leaves in the program that includes it (symbols, globals, macros).
#   sh tests/cross.sh            all parts, as many side by side as there are processors
#   sh tests/cross.sh PART...    these (see `parts`)
# One line per check, with its seconds. A compiler that is missing is a skip; with CHARDEV_NO_SKIP=1 a skip is a failure. What failed is
# said once more at the end.
#
# The optimizer takes most of the time, so each compilation has the level that it is for:
#   -fsyntax-only, -O0   warnings of the front end, which are all of clang's, and all that C++ adds to gcc's
#   every level          warnings of gcc's optimizer, for the whole header and for CHARDEV_FREESTANDING
#   -O2, -O1             programs that run, once for each compiler and machine; their other variants are compiled with -O0
#   -Os                  what is measured
set -u
cd "$(dirname "$0")/.." || exit 1
part=${1:-}
out=build/cross${part:+/$part}
warnings="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
kinds=$(sed -n 's/.*defined(CHARDEV_NO_\([A-Z0-9]*\)).*/\1/p' chardev.h | sort -u) # all that can be left out
all=$(for kind in $kinds; do printf ' -DCHARDEV_NO_%s' "$kind"; done)
passed=0 failed=0 skipped=0
mkdir -p "$out"

# The longest first.
parts="levels_gcc levels_gxx without levels_clang modes mingw hosted_sizes levels_freestanding c99 cxx spice combinations macos bsd s390x mips
       powerpc64 sparc64 i686_mingw clang_windows aarch64_windows features m32 tls arm rv32 avr static_libc wasi leaves"

# ---- the frame ---------------------------------------------------------------------------------------------------------

now() { date +%s%N | cut -b 1-11; } # in tenths of a second

checked=$(now)

pass() { # NAME
    tenths=$(($(now) - checked)) passed=$((passed + 1))
    echo "ok       $1 ($((tenths / 10)).$((tenths % 10)) s)"
    checked=$(now)
}

fail() { # NAME [FILE that says why]
    failed=$((failed + 1))
    echo "FAIL     $1"
    if [ $# -gt 1 ]; then head -n 40 "$2" | sed 's/^/         /'; fi
    checked=$(now)
}

skip() { # NAME REASON
    if [ -n "${CHARDEV_NO_SKIP:-}" ]; then
        echo "$2" >"$out/log"
        fail "$1" "$out/log"
    else
        skipped=$((skipped + 1)) && echo "skipped: $1: $2"
    fi
}

# Passes when the command succeeds, and says nothing where it should be silent: a compiler that cannot turn warnings into
# errors must not warn either.
check() { # NAME COMMAND...
    check_name=$1
    shift
    if "$@" >"$out/log" 2>&1; then pass "$check_name"; else fail "$check_name" "$out/log"; fi
}

silent() { # COMMAND...
    "$@" 2>"$out/said" || { cat "$out/said" && return 1; }
    if [ -s "$out/said" ]; then cat "$out/said" && return 1; fi
}

have() { # NAME PROGRAM...: all of them, or NAME is skipped
    have_name=$1
    shift
    for program in "$@"; do
        command -v "$program" >/dev/null 2>&1 || { skip "$have_name" "$program is not installed" && return 1; }
    done
}

says_ok() { # COMMAND...: runs portable.c's program
    timeout 600 "$@" </dev/null >"$out/output" 2>"$out/said"
    says_status=$?
    tr -d '\r' <"$out/output" | grep -qx 'portable: ok' && [ "$says_status" = 0 ] && return 0
    cat "$out/output" "$out/said"
    echo "exit status $says_status"
    return 1
}

build_and_run() { # COMPILE...
    silent "$@" tests/cross/portable.c -o "$out/portable" -lpthread && says_ok "$out/portable"
}

# ---- compilers and language levels -------------------------------------------------------------------------------------

compile_and_run() { # NAME COMPILE...: the program that runs
    name=$1
    shift
    have "$name" "$1" || return 0
    check "$name: portable.c, run" build_and_run "$@"
}

# The example too, which holds the implementation itself.
compile_all() { # NAME COMPILE...
    have "$1" "$2" || return 0
    compile_and_run "$@"
    name=$1
    shift
    check "$name: hello.c" silent "$@" -O0 -I. -c examples/hello.c -o "$out/hello.o"
}

c99() {
    compile_all "gcc -std=c99" gcc -std=c99 -O2 $warnings
    compile_and_run "gcc -std=gnu99" gcc -std=gnu99 -O0 $warnings
    compile_and_run "gcc -O0" gcc -std=c99 -O0 $warnings
    compile_all "clang -std=c99" clang -std=c99 -O2 $warnings
    compile_and_run "clang -std=gnu99" clang -std=gnu99 -O0 $warnings
    compile_all "tcc -std=c99" tcc -std=c99 -Wall -Werror
    compile_all "musl-gcc -std=c99" musl-gcc -std=c99 -O2 $warnings
}

cxx() {
    compile_all "g++ -std=c++17" g++ -x c++ -std=c++17 -O2 $warnings
    compile_all "clang++ -std=c++17" clang++ -x c++ -std=c++17 -O2 $warnings
    compile_all "g++ -std=c++20" g++ -x c++ -std=c++20 -O0 $warnings
    compile_all "clang++ -std=c++20" clang++ -x c++ -std=c++20 -O0 $warnings
}

features() {
    compile_and_run "gcc with CHARDEV_THREADS" gcc -std=c99 -O2 -DCHARDEV_THREADS $warnings
    compile_and_run "g++ with CHARDEV_THREADS" g++ -x c++ -std=c++17 -O0 -DCHARDEV_THREADS $warnings
    compile_all "gcc with CHARDEV_FREESTANDING" gcc -std=c99 -O2 -DCHARDEV_FREESTANDING $warnings
    compile_all "g++ with CHARDEV_FREESTANDING" g++ -x c++ -std=c++17 -O0 -DCHARDEV_FREESTANDING $warnings
}

# What is warned of depends on how much the compiler knows, which every level of gcc's optimization changes. clang's warnings are its
# front end's: it has the two ends.
levels() { # NAME LEVELS COMPILE...
    levels_name=$1 levels=$2
    shift 2
    have "$levels_name, $levels" "$1" || return 0
    check "$levels_name, $levels" every_level "$@"
}

every_level() { # COMPILE...
    # shellcheck disable=SC2086
    printf '%s\n' $levels | xargs -P "$(nproc)" -I '{}' sh -c '
        level=$1 out=$2
        shift 2
        "$@" "$level" -I. -c examples/hello.c -o "$out/$level.o" >"$out/$level.log" 2>&1 && [ ! -s "$out/$level.log" ] && exit
        echo "with $level:"
        cat "$out/$level.log"
        exit 1' sh '{}' "$out" "$@"
}

every="-O0 -O1 -Og -O2 -O3 -Os"

levels_gcc() { levels "gcc" "$every" gcc -std=c99 $warnings -DCHARDEV_THREADS; }
levels_gxx() { levels "g++ -std=c++20" "$every" g++ -x c++ -std=c++20 $warnings -DCHARDEV_THREADS; }

levels_clang() {
    levels "clang" "-O0 -O3" clang -std=c99 $warnings -DCHARDEV_THREADS
    levels "clang++ -std=c++20" "-O0 -O3" clang++ -x c++ -std=c++20 $warnings -DCHARDEV_THREADS
}

levels_freestanding() {
    levels "gcc with CHARDEV_FREESTANDING" "$every" gcc -std=c99 $warnings -DCHARDEV_FREESTANDING
    levels "gcc -ffreestanding" "$every" gcc -std=c99 -ffreestanding $warnings -DCHARDEV_FREESTANDING
    levels "clang with CHARDEV_FREESTANDING" "-O0 -O3" clang -std=c99 $warnings -DCHARDEV_FREESTANDING
    levels "g++ -std=c++20 with CHARDEV_FREESTANDING" "$every" g++ -x c++ -std=c++20 $warnings -DCHARDEV_FREESTANDING
}

# ---- Windows -----------------------------------------------------------------------------------------------------------

# Compilers other than gcc and clang take the windows section too: no extension of GNU's, no name of POSIX's.
windows_section() {
    sed -n '/^\/\* -- >>windows/,/^\/\* -- >>freestanding/p' chardev.h >"$out/windows.txt"
    [ "$(wc -l <"$out/windows.txt")" -gt 50 ] || { echo "where is it?" && return 1; }
    grep -nE '__attribute__|__builtin|__atomic|__sync_|__typeof|typeof *\(|__extension__|__func__ *\[|\bssize_t\b|\boff_t\b|\bmode_t\b|\bpid_t\b|\basm\b' \
        "$out/windows.txt" && return 1
    grep -nE '# *include *<(unistd|sys/|dirent|pthread|poll|strings|netinet|arpa|termios|signal|fcntl|afunix)' "$out/windows.txt" && return 1
    grep -nE '\b(strcasecmp|strncasecmp|strdup|usleep|nanosleep|clock_gettime|gettimeofday|close|read|write|open|lseek|unlink|isatty|fileno|getpid) *\(' \
        "$out/windows.txt" && return 1
    return 0
}

# The implementation and the examples, C and C++. Objects alone: what links is seen by `make windows`.
for_windows() { # NAME LEVEL C-COMPILE CXX-COMPILE
    check "$1: C99" silent $3 "$2" -DCHARDEV_THREADS -I. -c examples/hello.c -o "$out/hello.o"
    check "$1: C99, without CHARDEV_THREADS" silent $3 -O0 -I. -c examples/hello.c -o "$out/hello.o"
    check "$1: C++17" silent $4 -x c++ -std=c++17 -O0 -DCHARDEV_THREADS -I. -c examples/hello.c -o "$out/hello.o"
    check "$1: C++20" silent $4 -x c++ -std=c++20 -O0 -DCHARDEV_THREADS -I. -c examples/hello.c -o "$out/hello.o"
    check "$1: examples" other_examples $3 -DCHARDEV_THREADS
}

other_examples() { # COMPILE...
    case "$*" in *mingw* | *-windows-*) handoff=examples/fd_handoff_windows.c ;; *) handoff='examples/fd_handoff.c examples/manager.c' ;; esac
    # shellcheck disable=SC2046
    printf '%s\n' examples/console_share.c $handoff examples/filter_rot13.c examples/relay.c \
        $(ls examples/tinyvm/*.c | grep -v /firmware.c) | xargs -P "$(nproc)" -I '{}' sh -c '
        source=$1 out=$2
        shift 2
        name=$(basename "$source" .c)
        "$@" -O0 -I. -Iexamples/tinyvm -DCHARDEV_LINKED -c "$source" -o "$out/$name.o" >"$out/$name.log" 2>&1 && [ ! -s "$out/$name.log" ] && exit
        echo "$source:"
        cat "$out/$name.log"
        exit 1' sh '{}' "$out" "$@"
}

mingw() {
    check "the windows section: neither GNU's extensions nor POSIX's names" windows_section
    have "x86_64-w64-mingw32-gcc" x86_64-w64-mingw32-gcc x86_64-w64-mingw32-g++ || return 0
    mingw="x86_64-w64-mingw32-gcc -std=c99 $warnings"
    for_windows "mingw" -O2 "$mingw" "x86_64-w64-mingw32-g++ $warnings"
    check "mingw: all CHARDEV_NO_x" silent $mingw -O0 $all -c tests/cross/portable.c -o "$out/without.o"
    check "mingw: portable.c" silent $mingw -O2 tests/cross/portable.c -o "$out/portable.exe" -lws2_32
    check "mingw with CHARDEV_THREADS: portable.c" silent $mingw -O0 -DCHARDEV_THREADS tests/cross/portable.c -o "$out/threads.exe" -lws2_32
    check "mingw with CHARDEV_STATIC" silent $mingw -O0 -DCHARDEV_STATIC -I. -c examples/hello.c -o "$out/hello.o"
    wine=$(command -v wine64 || ls /usr/lib/wine/wine64 2>/dev/null)
    if [ -z "$wine" ]; then
        skip "wine: portable.exe" "wine64 is not installed"
        return
    fi
    export WINEPREFIX="$PWD/build/wine" WINEDEBUG=-all
    check "wine: portable.exe" says_ok "$wine" "$out/portable.exe"
    check "wine: threads.exe" says_ok "$wine" "$out/threads.exe"
}

i686_mingw() {
    have "i686-w64-mingw32-gcc" i686-w64-mingw32-gcc i686-w64-mingw32-g++ || return 0
    for_windows "i686 mingw" -O0 "i686-w64-mingw32-gcc -std=c99 $warnings" "i686-w64-mingw32-g++ $warnings"
    check "i686 mingw: portable.c" silent i686-w64-mingw32-gcc -std=c99 -O2 $warnings tests/cross/portable.c -o "$out/portable.exe" -lws2_32
}

clang_windows() {
    have "clang for Windows" clang x86_64-w64-mingw32-gcc || return 0
    windows="--target=x86_64-pc-windows-gnu -isystem /usr/x86_64-w64-mingw32/include $warnings -Wmicrosoft -Wgnu -pedantic-errors"
    for_windows "clang for Windows" -O0 "clang -std=c99 $windows" "clang++ $windows"
    check "clang for Windows: each CHARDEV_NO_x" each_without clang -std=c99 $windows
}

each_without() { # COMPILE...
    for kind in $kinds; do
        silent "$@" -fsyntax-only "-DCHARDEV_NO_$kind" tests/cross/portable.c || { echo "without $kind" && return 1; }
    done
}

aarch64_windows() {
    zig=$(sh tests/cross/zig.sh 2>"$out/log") || { skip "aarch64 Windows" "$(tail -n 1 "$out/log")" && return; }
    for_windows "aarch64 Windows" -O0 "$zig cc -target aarch64-windows-gnu -std=c99 $warnings" "$zig c++ -target aarch64-windows-gnu $warnings"
    check "aarch64 Windows: portable.c" silent $zig cc -target aarch64-windows-gnu -std=c99 -O1 $warnings tests/cross/portable.c \
        -o "$out/portable.exe" -lws2_32
}

# ---- other machines ------------------------------------------------------------------------------------------------------

# The system's headers for 64 bits serve for 32 as well.
m32() {
    m32="-m32 -idirafter /usr/include/x86_64-linux-gnu"
    for compiler in "gcc -std=c99 -O2" "g++ -x c++ -std=c++17 -O0"; do
        if echo 'int main(void) { return 0; }' | ${compiler%% *} $m32 -x c - -o "$out/m32" 2>/dev/null; then
            compile_all "$compiler -m32" $compiler $m32 $warnings
        else
            skip "$compiler -m32" "no 32-bit libraries (gcc-12-multilib)"
        fi
    done
}

big_endian() { # MACHINE QEMU
    compiler=$1-linux-gnu-gcc
    have "$1" "$compiler" || return 0
    check "$1: hello.c" silent "$compiler" -std=c99 -O0 $warnings -I. -c examples/hello.c -o "$out/hello.o"
    check "$1: portable.c" silent "$compiler" -std=c99 -O2 $warnings tests/cross/portable.c -o "$out/portable" -lpthread
    have "$1: run" "$2" || return 0
    check "$1: portable, run (big-endian)" says_ok "$2" -L "/usr/$1-linux-gnu" "$out/portable"
}

s390x() { big_endian s390x qemu-s390x-static; }
mips() { big_endian mips qemu-mips-static; }
powerpc64() { big_endian powerpc64 qemu-ppc64-static; }
sparc64() { big_endian sparc64 qemu-sparc64-static; }

# Systems that this machine can't run: what the compiler says is all that is known. The examples too.
other_systems() { # NAME TARGET...
    systems=$1
    shift
    zig=$(sh tests/cross/zig.sh 2>"$out/log") || { skip "$systems" "$(tail -n 1 "$out/log")" && return; }
    for system in "$@"; do
        set -- $zig cc -target "$system" -std=c99 $warnings
        check "$system: hello.c" silent "$@" -O0 -I. -c examples/hello.c -o "$out/hello.o"
        check "$system: C++17" silent "$@" -x c++ -std=c++17 -O0 -I. -c examples/hello.c -o "$out/hello.o"
        check "$system: examples" other_examples "$@" -DCHARDEV_THREADS
    done
}

macos() { other_systems "macOS" x86_64-macos aarch64-macos; }
bsd() { other_systems "FreeBSD, NetBSD, OpenBSD" x86_64-freebsd x86_64-netbsd x86_64-openbsd; }

wasi() {
    zig=$(sh tests/cross/zig.sh 2>"$out/log") || { skip "WASI" "$(tail -n 1 "$out/log")" && return; }
    check "WASI with CHARDEV_FREESTANDING: portable.c" silent $zig cc -target wasm32-wasi -std=c99 -O1 $warnings \
        -DCHARDEV_FREESTANDING tests/cross/portable.c -o "$out/portable.wasm"
    have "WASI: run" node || return 0
    check "WASI with CHARDEV_FREESTANDING: portable, run" says_ok node --no-warnings --experimental-wasi-unstable-preview1 \
        tests/cross/wasi.mjs "$out/portable.wasm"
}

static_libc() {
    compile_and_run "musl-gcc -static" musl-gcc -static -std=c99 -O1 $warnings -DCHARDEV_THREADS
    have "dietlibc with CHARDEV_FREESTANDING" diet || return 0
    check "dietlibc with CHARDEV_FREESTANDING: portable.c" diet gcc -std=c99 -Os $warnings -DCHARDEV_FREESTANDING \
        tests/cross/portable.c -o "$out/portable-diet"
    check "dietlibc with CHARDEV_FREESTANDING: portable, run" says_ok "$out/portable-diet"
}

# The firmware is driven as a person would: a line, the log channel, back, what was logged, the end.
firmware_runs() { # COMMAND...
    printf 'one line\r\001cabc\001chistory\rstatus\rquit\r' | timeout 300 "$@" >"$out/output" 2>&1
    firmware_status=$?
    tr -d '\r' <"$out/output" >"$out/log.firmware"
    [ "$firmware_status" = 0 ] && grep -q 'bare metal' "$out/log.firmware" && [ "$(grep -cx 'log: one line' "$out/log.firmware")" = 2 ] &&
        grep -qx '3 bytes counted' "$out/log.firmware" && return 0
    cat "$out/log.firmware"
    echo "exit status $firmware_status"
    return 1
}

# Object text and the worst chain of calls, with what firmware leaves out left out.
four_nos="-DCHARDEV_FREESTANDING -DCHARDEV_NO_RECORD -DCHARDEV_NO_LOG -DCHARDEV_NO_HELP -DCHARDEV_NO_URI -DCHARDEV_ERROR_SIZE=96"
more_nos="-DCHARDEV_NO_BUFFERS -DCHARDEV_NO_OPTIONS -DCHARDEV_NO_WAIT -DCHARDEV_NO_PRINTF -DCHARDEV_NO_BASE64 -DCHARDEV_NO_STACKED"
portable="RINGBUF TESTDEV SCRIPT MSMOUSE WCTABLET BRAILLE MUX HUB FAULT"

no_kinds() { # KIND...: all portable backends but these
    for kind in $portable; do
        case " $* " in *" $kind "*) ;; *) echo "-DCHARDEV_NO_$kind" ;; esac
    done
}

within() { # NAME TEXT_TARGET TEXT_LIMIT STACK_LIMIT COMPILE...: bytes. The limit is today's figure where the target is missed
    within_name=$1 within_target=$2 within_limit=$3 within_stack=$4
    shift 4
    "$@" -fcallgraph-info=su -DCHARDEV_IMPLEMENTATION -x c -c chardev.h -o "$out/sized.o" || return 1
    /usr/bin/python3 tests/cross/stack.py "$out/sized.ci" --object "$out/sized.o" --most "$within_stack" >"$out/stack" || { cat "$out/stack" && return 1; }
    object_text "$within_name" "$within_target" "$within_limit" "$out/sized.o" || return 1
    tail -n 1 "$out/stack" | sed "s/^/         /; s/\$/; $within_stack allowed/" >>"$out/table"
}

object_text() { # NAME TARGET LIMIT OBJECT
    text=$(size "$4" | awk 'NR == 2 { print $1 }')
    if [ "$text" -le "$2" ]; then verdict=met; else verdict="missed, today's limit $3"; fi
    printf '         %6d bytes of text: %s (target %d: %s)\n' "$text" "$1" "$2" "$verdict" >>"$out/table"
    [ "$text" -le "$3" ]
}

# What a program has that calls what it needs and no more: chr_open() of a mux on a ring buffer, two frontends, the loop; and libc's
# part of it.
linked() { # NAME TARGET LIMIT COMPILE...
    linked_name=$1 linked_target=$2 linked_limit=$3
    shift 3
    "$@" -nostartfiles --specs=nano.specs --specs=nosys.specs -Wl,--gc-sections,--no-warn-rwx-segments,-e,main tests/cross/linked.c \
        -o "$out/linked.elf" || return 1
    object_text "$linked_name" "$linked_target" "$linked_limit" "$out/linked.elf"
}

sizes() { # COMPILE...
    few=$(no_kinds RINGBUF MUX) most=$(no_kinds RINGBUF TESTDEV MSMOUSE WCTABLET BRAILLE MUX HUB)
    : >"$out/table"
    check "size and stack: null, ringbuf, mux" within "null, ringbuf, mux: the four NOs" 12288 29100 768 "$@" $four_nos $few
    check "size and stack: null, ringbuf, mux, NO_BUFFERS" within "null, ringbuf, mux: and NO_BUFFERS" 12288 23700 768 \
        "$@" $four_nos $few -DCHARDEV_NO_BUFFERS
    check "size and stack: null, ringbuf, mux, all NOs" within "null, ringbuf, mux: and NO_OPTIONS NO_WAIT NO_PRINTF NO_BASE64 NO_STACKED" 12288 16350 768 \
        "$@" $four_nos $few $more_nos
    check "size and stack: portable backends" within "all but script and fault: the four NOs" 16384 34400 768 "$@" $four_nos $most
    check "size and stack: portable backends, NO_BUFFERS" within "all but script and fault: and NO_BUFFERS" 16384 28950 768 \
        "$@" $four_nos $most -DCHARDEV_NO_BUFFERS
    check "size and stack: portable backends, all NOs" within "all but script and fault: and NO_OPTIONS NO_WAIT NO_PRINTF NO_BASE64 NO_STACKED" 16384 21600 768 \
        "$@" $four_nos $most $more_nos
    check "size and stack: all" within "all: the four NOs" 16384 41200 1152 "$@" $four_nos
    check "size: linked" linked "a mux on a ringbuf, linked with --gc-sections: all NOs" 12288 14700 "$@" $four_nos $few $more_nos
    cat "$out/table"
}

# Of what is left out nothing is in the object: neither texts nor names.
absent() { # COMPILE...
    "$@" $four_nos -DCHARDEV_IMPLEMENTATION -x c -c chardev.h -o "$out/absent.o" || return 1
    strings "$out/absent.o" | grep -iE 'built without|out of memory|must be|power of two|(the|a) chardev |recording|log file|URI' && return 1
    arm-none-eabi-nm "$out/absent.o" | grep -E ' chr_(record|replay|help|new_uri|log_reopen)' && return 1
    return 0
}

arm() {
    have "arm-none-eabi-gcc" arm-none-eabi-gcc || return 0
    thumb="arm-none-eabi-gcc -std=c99 -Os -mcpu=cortex-m3 -mthumb -ffunction-sections -fdata-sections $warnings"
    check "arm-none-eabi: portable.c" silent $thumb -DCHARDEV_FREESTANDING -c tests/cross/portable.c -o "$out/portable-arm.o"
    check "arm-none-eabi: chardev.h alone" silent $thumb -DCHARDEV_FREESTANDING -DCHARDEV_IMPLEMENTATION -x c -c chardev.h -o "$out/chardev-arm.o"
    [ -f "$out/chardev-arm.o" ] && arm-none-eabi-size "$out/chardev-arm.o" |
        awk 'NR == 2 { print "         " $1 " bytes of text, " $2 " of data, " $3 " of bss: all portable backends" }'
    check "arm-none-eabi: CHARDEV_THREADS" silent $thumb -DCHARDEV_FREESTANDING -DCHARDEV_THREADS -DCHARDEV_IMPLEMENTATION -x c \
        -c chardev.h -o "$out/threads-arm.o"
    check "arm-none-eabi: what is left out is absent" absent $thumb
    sizes $thumb
    check "arm-none-eabi: firmware.elf" silent $thumb -I. -nostartfiles --specs=nano.specs --specs=nosys.specs \
        -Wl,--gc-sections,--no-warn-rwx-segments -T examples/firmware/mps2.ld examples/firmware/firmware.c examples/firmware/mps2.c \
        -o "$out/firmware.elf"
    have "firmware: run" qemu-system-arm || return 0
    check "firmware: run on mps2-an385" firmware_runs qemu-system-arm -M mps2-an385 -display none -monitor none -serial stdio \
        -semihosting -kernel "$out/firmware.elf"
}

# The same inside of tinyvm, whose UART is a chardev outside.
rv32() {
    have "rv32" riscv64-unknown-elf-gcc || return 0
    check "rv32: firmware-rv32.elf" silent riscv64-unknown-elf-gcc -std=c99 -Os -march=rv32im -misa-spec=2.2 -mabi=ilp32 -ffreestanding \
        -fno-tree-loop-distribute-patterns -ffunction-sections -fdata-sections $warnings -Iexamples/firmware/bare -I. -nostdlib -static \
        -Wl,--gc-sections,--no-warn-rwx-segments -T examples/firmware/tinyvm.ld examples/firmware/firmware.c \
        examples/firmware/tinyvm.c examples/firmware/bare/string.c -lgcc -o "$out/firmware-rv32.elf"
    make -s build/tinyvm >"$out/log" 2>&1 || { fail "rv32: tinyvm" "$out/log" && return; }
    check "rv32: firmware, run on tinyvm" firmware_runs build/tinyvm -serial stdio,signal=off -bios "$out/firmware-rv32.elf"
}

avr() {
    have "avr" avr-gcc || return 0
    avr="avr-gcc -mmcu=atmega2560 -std=c99 -Os $warnings"
    check "avr: portable.c (int has 16 bits)" silent $avr -DCHARDEV_FREESTANDING -c tests/cross/portable.c -o "$out/portable-avr.o"
    check "avr: portable.c, without help" silent $avr $four_nos -c tests/cross/portable.c -o "$out/portable-avr.o"
    check "avr: avr.c" silent $avr tests/cross/avr.c -o "$out/avr.elf"
    have "avr: run" simavr || return 0
    check "avr: run on simavr" avr_runs
}

avr_runs() {
    timeout 60 simavr -m atmega2560 -f 8000000 "$out/avr.elf" >"$out/output" 2>&1
    grep -q 'avr: ok' "$out/output" || { cat "$out/output" && return 1; }
}

# ---- build macros ------------------------------------------------------------------------------------------------------------

# What leaves with a macro leaves alone: nothing is unused, and the rest runs.
without() {
    [ -n "$kinds" ] || fail "chardev.h names no CHARDEV_NO_x"
    # shellcheck disable=SC2086
    printf '%s\n' $kinds | xargs -P "$(nproc)" -I '{}' sh -c '
        { gcc -std=c99 -O0 $3 "-DCHARDEV_NO_$1" tests/cross/portable.c -o "$2/$1" -lpthread && timeout 600 "$2/$1"; } >"$2/$1.log" 2>&1
        echo "exit status $?" >>"$2/$1.log"' sh '{}' "$out" "$warnings"
    for kind in $kinds; do check "CHARDEV_NO_$kind: portable.c, run" ran_ok "$out/$kind.log"; done
    check "all CHARDEV_NO_x: portable.c, run" build_and_run gcc -std=c99 -O2 $warnings $all
}

ran_ok() { # LOG
    [ "$(cat "$1")" = "$(printf 'portable: ok\nexit status 0')" ] || { cat "$1" && return 1; }
}

# What leaves with its last user must leave in any company: nothing is unused, in C, in C++ and for Windows.
combinations() {
    check "combinations of CHARDEV_NO_x: gcc" each_combination gcc -std=c99 -O0 $warnings -c -o "$out/combination.o"
    have "combinations of CHARDEV_NO_x: clang" clang || return 0
    check "combinations of CHARDEV_NO_x: clang" each_combination clang -std=c99 $warnings -fsyntax-only
    check "combinations of CHARDEV_NO_x: clang++" each_combination clang++ -x c++ -std=c++17 $warnings -fsyntax-only
    have "combinations of CHARDEV_NO_x: clang for Windows" x86_64-w64-mingw32-gcc || return 0
    check "combinations of CHARDEV_NO_x: clang for Windows" each_combination clang --target=x86_64-pc-windows-gnu \
        -isystem /usr/x86_64-w64-mingw32/include -std=c99 $warnings -fsyntax-only
}

each_combination() { # COMPILE...
    while read -r combination; do
        flags=$(for kind in $combination; do printf ' -DCHARDEV_NO_%s' "$kind"; done)
        silent "$@" $flags tests/cross/portable.c || { echo "without $combination" && return 1; }
    done <<END
TELNET WEBSOCKET RECORD LOG
SOCKET LOG URI SET
PTY STDIO SERIAL HELP DESCRIPTORS
BUFFERS WAIT MUX RINGBUF TRACE
OPTIONS TELNET HUB STACKED
HELP WEBSOCKET RINGBUF BRLAPI SET
UDP SOCKET FD FILE PIPE BUFFERS
CHANGE PRINTF STACKED BRAILLE DESCRIPTORS
TRACE RECORD STDIO PARALLEL TELNET BASE64
MUX HUB FAULT SCRIPT HELP OPTIONS
SET DESCRIPTORS WAIT LOG URI TESTDEV
WEBSOCKET SPICE WIN CONSOLE CHANGE BUFFERS MSMOUSE WCTABLET
END
}

# Object text on x86-64, the tables for unwinding included: what is kept, the rest left out.
hosted() { # NAME TARGET LIMIT KEPT...
    hosted_name=$1 hosted_target=$2 hosted_limit=$3
    shift 3
    gcc -std=gnu99 -Os $(for kind in $kinds; do case " $* " in *" $kind "*) ;; *) echo "-DCHARDEV_NO_$kind" ;; esac; done) \
        -DCHARDEV_IMPLEMENTATION -x c -c chardev.h -o "$out/hosted.o" || return 1
    object_text "$hosted_name" "$hosted_target" "$hosted_limit" "$out/hosted.o"
}

hosted_sizes() {
    [ "$(uname -m)" = x86_64 ] || { skip "size: hosted" "the figures are those of x86-64" && return; }
    : >"$out/table"
    check "size: hosted, null" hosted "x86-64: null alone" 24576 26500
    check "size: hosted, a console" hosted "x86-64, a console: stdio, pty, socket" 61440 73000 OPTIONS STDIO PTY SOCKET
    check "size: hosted, a monitor" hosted "x86-64, a monitor: socket, mux, ringbuf" 61440 70000 OPTIONS SOCKET MUX RINGBUF
    cat "$out/table"
}

modes() {
    compile_all "CHARDEV_STATIC" gcc -std=c99 -O2 $warnings -DCHARDEV_STATIC
    if have "CHARDEV_STATIC with clang" clang; then
        check "CHARDEV_STATIC with clang" silent clang -std=c99 $warnings -fsyntax-only -DCHARDEV_STATIC -I. examples/hello.c
    fi
    check "CHARDEV_STATIC with g++" silent g++ -x c++ -std=c++17 -O0 $warnings -DCHARDEV_STATIC -I. -c examples/hello.c -o "$out/hello.o"
    check "CHARDEV_API" silent gcc -std=c99 -O0 $warnings '-DCHARDEV_API=extern __attribute__((visibility("hidden")))' -I. \
        -c examples/hello.c -o "$out/hello.o"
    check "two files" two_files gcc -std=c99 -O2 $warnings
    check "two files, each with a copy (CHARDEV_STATIC)" two_files gcc -std=c99 -O0 $warnings -DCHARDEV_STATIC
    check "two files, C++ beside C" two_languages
}

two_files() { # COMPILE...
    silent "$@" -DCROSS_TWO_FILES -c tests/cross/portable.c -o "$out/first.o" &&
        silent "$@" -c tests/cross/second.c -o "$out/second.o" &&
        silent gcc "$out/first.o" "$out/second.o" -o "$out/two" -lpthread && says_ok "$out/two"
}

two_languages() {
    silent g++ -x c++ -std=c++17 -O0 $warnings -DCROSS_TWO_FILES -c tests/cross/portable.c -o "$out/first.o" &&
        silent gcc -std=c99 -O0 $warnings -c tests/cross/second.c -o "$out/second.o" &&
        silent g++ "$out/first.o" "$out/second.o" -o "$out/two" -lpthread && says_ok "$out/two"
}

tls() { # mbed TLS's own headers may not be clean: they come as system headers
    if ! echo '#include <mbedtls/ssl.h>' | gcc -E - >/dev/null 2>&1; then
        skip "CHARDEV_MBEDTLS" "libmbedtls-dev is not installed"
        return
    fi
    check "CHARDEV_MBEDTLS: gcc" silent gcc -std=c99 -O2 $warnings -DCHARDEV_MBEDTLS -I. -c examples/hello.c -o "$out/hello.o"
    check "CHARDEV_MBEDTLS: g++" silent g++ -x c++ -std=c++17 -O0 $warnings -DCHARDEV_MBEDTLS -I. -c examples/hello.c -o "$out/hello.o"
    check "CHARDEV_MBEDTLS: symbols" public_symbols -DCHARDEV_MBEDTLS
    check "CHARDEV_MBEDTLS: globals" writable_globals -DCHARDEV_MBEDTLS
    check "CHARDEV_MBEDTLS: macros" macros gcc -DCHARDEV_IMPLEMENTATION -DCHARDEV_MBEDTLS
}

spice() { # likewise
    if ! pkg-config --exists spice-server 2>/dev/null; then
        skip "CHARDEV_SPICE" "libspice-server-dev is not installed"
        return
    fi
    spice="-DCHARDEV_SPICE $(pkg-config --cflags spice-server | sed 's/-I/-isystem /g')"
    for compiler in "gcc -std=c99 -O2" "clang -std=c99 -fsyntax-only" "g++ -x c++ -std=c++17 -O0" "clang++ -x c++ -std=c++17 -fsyntax-only"; do
        have "CHARDEV_SPICE: ${compiler%% *}" "${compiler%% *}" || continue
        check "CHARDEV_SPICE: ${compiler%% *}" silent $compiler $warnings $spice -I. -c examples/hello.c -o "$out/hello.o"
    done
    for more in CHARDEV_THREADS CHARDEV_NO_SPICE CHARDEV_FREESTANDING; do
        check "CHARDEV_SPICE: with $more" silent gcc -std=c99 -O0 $warnings $spice "-D$more" -I. -c examples/hello.c -o "$out/hello.o"
    done
    check "CHARDEV_SPICE: symbols" public_symbols $spice
    check "CHARDEV_SPICE: globals" writable_globals $spice
    check "CHARDEV_SPICE: macros" macros gcc -DCHARDEV_IMPLEMENTATION $spice
}

# ---- what it leaves behind -----------------------------------------------------------------------------------------------------

public_symbols() { # FLAG...: every symbol that other files see begins with chr_
    echo '#include "chardev.h"' | gcc -O0 -I. -DCHARDEV_IMPLEMENTATION "$@" -x c -c - -o "$out/symbols.o" || return 1
    nm -g --defined-only "$out/symbols.o" | awk '$2 ~ /[A-Z]/ && $3 !~ /^chr_/ { print "a foreign name: " $3; bad = 1 } { n++ }
        END { if (!n) print "no symbols at all"; exit bad || !n }'
}

static_symbols() {
    echo '#include "chardev.h"' | gcc -O0 -I. -DCHARDEV_IMPLEMENTATION -DCHARDEV_STATIC -x c -c - -o "$out/symbols.o" || return 1
    nm -g --defined-only "$out/symbols.o" | awk '{ print "visible with CHARDEV_STATIC: " $3; bad = 1 } END { exit bad }'
}

# The process has one terminal, so its saved settings (and the lock around them) may be global. Nothing else may.
writable_globals() { # FLAG...
    echo '#include "chardev.h"' | gcc -O0 -fno-pic -I. -DCHARDEV_IMPLEMENTATION "$@" -x c -c - -o "$out/symbols.o" || return 1
    nm "$out/symbols.o" | awk '$2 ~ /^[BbCDdGgSs]$/ && $3 !~ /^chr__terminal(_mutex)?$/ { print "a writable global: " $3; bad = 1 } END { exit bad }'
}

# What is defined at the end of a file that includes chardev.h, less what its system headers define by themselves: the macros
# that stand in chardev.h, as the preprocessor's own line marks tell.
macros() { # COMPILER FLAG...
    macro_cc=$1
    shift
    echo '#include "chardev.h"' | $macro_cc -E -dD -I. "$@" -x c - >"$out/macros.i" || return 1
    awk '/^# [0-9]+ "/ { ours = $3 ~ /chardev\.h"$/; next }
        /^#define / { name = $2; sub(/\(.*/, "", name); if (ours) kept[name] = 1; next }
        /^#undef / { delete kept[$2] }
        END { for (name in kept) {
                  n++
                  if (name == "_DEFAULT_SOURCE") continue # the feature macro that the manual tells of
                  if (name !~ /^(CHR_|CHARDEV_)/ || name ~ /^CHR__/) { print "left behind: " name; bad = 1 }
              }
              if (!n) print "no macros at all"
              exit bad || !n }' "$out/macros.i"
}

leaves() {
    check "symbols: only chr_*" public_symbols
    check "symbols: only chr_*, CHARDEV_THREADS" public_symbols -DCHARDEV_THREADS
    check "symbols: none with CHARDEV_STATIC" static_symbols
    check "globals: none but the terminal" writable_globals
    check "globals: none but the terminal, CHARDEV_THREADS" writable_globals -DCHARDEV_THREADS
    check "globals: none, CHARDEV_FREESTANDING" writable_globals -DCHARDEV_FREESTANDING
    check "macros: declarations" macros gcc
    check "macros: implementation" macros gcc -DCHARDEV_IMPLEMENTATION
    check "macros: implementation, CHARDEV_THREADS" macros gcc -DCHARDEV_IMPLEMENTATION -DCHARDEV_THREADS
    check "macros: CHARDEV_FREESTANDING" macros gcc -DCHARDEV_IMPLEMENTATION -DCHARDEV_FREESTANDING
    have "macros: windows" x86_64-w64-mingw32-gcc || return 0
    check "macros: windows" macros x86_64-w64-mingw32-gcc -DCHARDEV_IMPLEMENTATION
}

# ---- all parts ---------------------------------------------------------------------------------------------------------

# A part that didn't come to its count has failed.
failures() { # PART...
    for name in "$@"; do
        awk -v part="$name" '
            /^FAIL / { on = 1 }
            /^ok / || /^skipped: / || /^cross: / { on = 0 }
            on { print part ": " $0 }
            /^cross: [0-9]+ passed/ { ended = 1 }
            END { if (!ended) print part ": FAIL     did not end" }' "$out/$name.log"
    done
}

all_parts() { # PART...
    sh tests/cross/zig.sh >/dev/null 2>&1 # once, before several ask for it
    for name in "$@"; do rm -rf "${out:?}/$name" "$out/$name.log" "$out/$name.end" && mkdir -p "$out/$name"; done
    printf '%s\n' "$@" | xargs -P "$(nproc)" -I '{}' sh -c 'sh tests/cross.sh "$1" >"$2/$1.log" 2>&1; echo $? >"$2/$1.end"' sh '{}' "$out" &
    for name in "$@"; do
        until [ -f "$out/$name.end" ] || ! kill -0 $! 2>/dev/null; do sleep 0.2; done
        grep -v '^cross: ' "$out/$name.log"
    done
    wait
    failures "$@" >"$out/failures"
    if [ -s "$out/failures" ]; then echo "What failed:" && cat "$out/failures"; fi
    lost=$(grep -c ': FAIL     did not end' "$out/failures")
    for name in "$@"; do tail -n 1 "$out/$name.log"; done | awk -v lost="$lost" '
        /^cross: [0-9]+ passed/ { passed += $2; failed += $4; skipped += $6 }
        END {
            printf "cross: %d passed, %d failed, %d skipped\n", passed, failed + lost, skipped
            exit failed + lost > 0
        }'
}

# shellcheck disable=SC2086
if [ $# = 0 ]; then all_parts $parts; exit; fi
for name in "$@"; do "$name"; done
[ $((passed + failed + skipped)) != 0 ] || fail "$*: this checks nothing"
echo "cross: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
