#!/bin/sh
# `make bench`: builds and runs all benchmarks (build/tinyvm and build/relay are there already), prints a table with the
# targets beside it, and writes build/bench.json and build/bench.svg, the table as a picture (build/bench-peers.svg: relays and echo servers alone). BENCH_QUICK=1 is shorter and
# rough in its times; BENCH_ONLY="tls idle" measures only those of guest, relay, windows, echo, tls, inproc and idle. What is timed
# only informs; what is counted (system calls, instructions, allocations, bytes of memory) does not wobble, and fails when
# it is worse than its target.
set -eu
cd "$(dirname "$0")/../.."
here=tests/bench out=build/bench results=build/bench/results.txt
CC=${CC:-gcc} CFLAGS="-std=gnu99 -O2 -Wall -Wextra"
if [ -n "${BENCH_QUICK:-}" ]; then
    rounds=5 slice=10 trips=500 rate_rounds=15 idle_rounds=5
    guest_rounds=1 guest_out=200000 guest_in=40000 relay_rounds=5 relay_mib=64 wine_rounds=15 wine_mib=8 wine_trips=100
else
    rounds=61 slice=20 trips=2000 rate_rounds=101 idle_rounds=41
    guest_rounds=3 guest_out=500000 guest_in=100000 relay_rounds=15 relay_mib=256 wine_rounds=31 wine_mib=32 wine_trips=200
fi
idle_counts="10 100 1000 10000 50000" idle_counted="100 10000"
cpu=$(($(nproc) - 1)) # both ends on one: between two, the wake-up cost of a virtual machine hides every difference
servers="" missing="" running="" failed=0
all="guest relay windows echo tls inproc idle"
only=${BENCH_ONLY:-$all}
for name in $only; do
    case " $all " in *" $name "*) ;; *) echo "BENCH_ONLY=$name: none of $all" >&2 && exit 2 ;; esac
done

mkdir -p "$out"
: >"$results"
sockets=$(mktemp -d)
end_servers() {
    for pid in $running; do kill "$pid" 2>/dev/null || true; done
    wait $running 2>/dev/null || true
    running=""
}
end_servers_gently() { # by SIGINT, and after three seconds as ever
    local pid tenths=30
    kill -INT $running 2>/dev/null || true
    for pid in $running; do
        while [ $tenths -gt 0 ] && kill -0 "$pid" 2>/dev/null; do sleep 0.1; tenths=$((tenths - 1)); done
    done
    end_servers
}
end_all() {
    end_servers
    rm -rf "$sockets"
}
trap end_all EXIT

have() { command -v "$1" >/dev/null 2>&1; }
note() { printf '%s %s %s %s\n' "$@" >>"$results"; } # SECTION NAME KEY VALUE: what the table and the JSON are made of
one_word() { echo "$1" | tr -s ' ' _; }
skip() { # WHAT [WHY]
    missing="$missing${missing:+, }$1${2:+ ($2)}"
    note missing "$(one_word "$1")" why "$(one_word "${2:-not installed}")"
}
wanted() { case " $only " in *" $1 "*) ;; *) return 1 ;; esac; }
has_header() { echo "#include <$1>" | $CC -E - >/dev/null 2>&1; }

# ---- build ----------------------------------------------------------------------------------------------------------

build() { # NAME [ARGUMENT...]
    local name=$1
    shift
    $CC $CFLAGS "$here/$name.c" -o "$out/$name" "$@"
}

build_if() { # NAME HEADER LIBRARY...
    local name=$1 header=$2
    shift 2
    if has_header "$header"; then
        build "$name" "$@"
        servers="$servers $name"
    else
        skip "$name"
    fi
}

build_echo() {
    build plain
    build client
    build chardev
    servers="plain chardev chardev-mux chardev-buffers"
    build_if libuv uv.h -luv
    build_if gensio gensio/gensio.h -lgensio -lgensioosh
    if have socat; then servers="$servers socat"; else skip socat; fi
}

tls_servers="plain_tls chardev_tls"
build_tls() {
    local libraries="-lmbedtls -lmbedx509 -lmbedcrypto"
    build plain_tls $libraries
    $CC $CFLAGS -DBENCH_TLS "$here/client.c" -o "$out/client_tls" $libraries
    $CC $CFLAGS -DCHARDEV_MBEDTLS "$here/chardev.c" -o "$out/chardev_tls" $libraries
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -days 2 \
        -keyout "$sockets/server-key.pem" -out "$sockets/server-cert.pem" 2>/dev/null
}

command_of() { # NAME PATH: the command line of an echo server
    case $1 in
    chardev) echo "$out/chardev socket,id=e,path=$2,server=on,wait=off" ;;
    plain_tls) echo "$out/plain_tls $2 $sockets" ;;
    chardev_tls) echo "$out/chardev_tls socket,id=e,path=$2,server=on,wait=off,tls-creds=t,tls-hostname=localhost" \
        "tls-creds-x509,id=t,endpoint=server,dir=$sockets,verify-peer=off" ;;
    chardev-buffers) echo "$out/chardev -b socket,id=e,path=$2,server=on,wait=off" ;;
    chardev-mux) echo "$out/chardev socket,id=e,path=$2,server=on,wait=off,mux=on" ;;
    socat) echo "socat -b 65536 UNIX-LISTEN:$2 PIPE" ;;
    *) echo "$out/$1 $2" ;;
    esac
}

pinned() { if have taskset; then taskset -c "$cpu" "$@"; else "$@"; fi; }

# ---- round trip and stream -------------------------------------------------------------------------------------------

compare() { # SECTION CLIENT SERVER...
    local name arguments="" section=$1 client=$2
    shift 2
    for name in "$@"; do
        pinned $(command_of "$name" "$sockets/$name") &
        running="$running $!"
        arguments="$arguments $name=$sockets/$name"
    done
    pinned "$out/$client" compare "$rounds" "$slice" $arguments >"$out/$section.txt"
    wait $running
    running=""
    while read -r name trip stream trip_ratio stream_ratio; do
        note "$section" "$name" roundtrip_us "$trip"
        note "$section" "$name" roundtrip_ratio "$trip_ratio"
        note "$section" "$name" stream_mib_s "$stream"
        note "$section" "$name" stream_ratio "$stream_ratio"
    done <"$out/$section.txt"
}

# ---- counted, not timed: what a round trip costs beyond the start and the end of a server ------------------------------

calls_of() { # CLIENT NAME ROUNDTRIPS: all system calls that a server made
    strace -f -c -o "$out/strace.txt" $(command_of "$2" "$sockets/c") &
    running=$!
    "$out/$1" roundtrips "$3" "$sockets/c"
    wait "$running" && running=""
    awk '$NF == "total" { print $4 }' "$out/strace.txt"
}

instructions_of() { # CLIENT NAME ROUNDTRIPS
    valgrind --tool=callgrind --callgrind-out-file=/dev/null --log-file="$out/callgrind.txt" $(command_of "$2" "$sockets/c") &
    running=$!
    "$out/$1" roundtrips "$3" "$sockets/c"
    wait "$running" && running=""
    awk '/Collected :/ { print $NF }' "$out/callgrind.txt"
}

per_roundtrip() { # SECTION KEY COUNTER CLIENT NAME
    local once twice
    once=$("$3" "$4" "$5" "$trips")
    twice=$("$3" "$4" "$5" $((2 * trips)))
    note "$1" "$5" "$2" "$(awk -v a="$once" -v b="$twice" -v n="$trips" 'BEGIN { printf "%.2f", (b - a) / n }')"
}

counted() { # SECTION CLIENT SERVER...
    local name section=$1 client=$2
    shift 2
    for name in "$@"; do
        if have strace; then per_roundtrip "$section" calls calls_of "$client" "$name"; fi
        if [ "$name" != socat ] && have valgrind; then per_roundtrip "$section" instructions instructions_of "$client" "$name"; fi
    done
}

# ---- a machine's serial port: the same program on QEMU and on tinyvm -------------------------------------------------------

riscv="riscv64-unknown-elf-gcc -march=rv32im_zicsr -mabi=ilp32 -O2 -ffreestanding -nostdlib -static -Wl,-Ttext=0x80000000,--no-relax"
machine_of() { # NAME PATH: the command line of a machine
    local port="-chardev socket,id=s,path=$2,server=on,wait=on -serial chardev:s"
    case $1 in
    qemu) echo "qemu-system-riscv32 -M virt -cpu rv32,c=false -bios none -kernel $out/guest.elf -display none -monitor none $port" ;;
    tinyvm) echo "build/tinyvm -bios $out/guest.elf $port" ;;
    esac
}

guest_calls() { # w|r BYTES: all system calls of tinyvm
    strace -f -c -o "$out/strace.txt" $(machine_of tinyvm "$sockets/g") &
    running=$!
    "$out/guest_peer" "$1" "$2" "$sockets/g"
    wait "$running" && running=""
    awk '$NF == "total" { print $4 }' "$out/strace.txt"
}

guest_calls_per_byte() { # KEY w|r
    local once twice bytes=50000
    once=$(guest_calls "$2" $bytes)
    twice=$(guest_calls "$2" $((5 * bytes)))
    note guest tinyvm "$1" "$(awk -v a="$once" -v b="$twice" -v n="$bytes" 'BEGIN { printf "%.4f", (b - a) / n / 4 }')"
}

guest() {
    local name arguments="" machines="tinyvm"
    if have qemu-system-riscv32; then machines="qemu tinyvm"; else skip qemu-system-riscv32; fi
    for name in $machines; do
        $(machine_of "$name" "$sockets/$name") 2>"$out/$name.txt" &
        running="$running $!"
        arguments="$arguments $name=$sockets/$name=$!"
    done
    timeout 300 "$out/guest_peer" compare $guest_rounds $guest_out $guest_in $arguments >"$out/guest.txt"
    wait $running
    running=""
    while read -r name out_speed in_speed out_cpu in_cpu out_ratio in_ratio; do
        note guest "$name" out_mb_s "$out_speed"
        note guest "$name" in_mb_s "$in_speed"
        note guest "$name" out_cpu_ns "$out_cpu"
        note guest "$name" in_cpu_ns "$in_cpu"
        [ "$machines" = tinyvm ] && continue
        note guest "$name" out_ratio "$out_ratio"
        note guest "$name" in_ratio "$in_ratio"
    done <"$out/guest.txt"
    if have strace; then
        guest_calls_per_byte out_calls w
        guest_calls_per_byte in_calls r
    fi
}

# ---- relay beside socat ----------------------------------------------------------------------------------------------

relay_of() { # NAME unix|tcp FROM TO: the command line of a relay from one socket to the other
    case $1-$2 in
    socat-unix) echo "socat -b 65536 UNIX-LISTEN:$3 UNIX-LISTEN:$4" ;;
    socat-tcp) echo "socat -b 65536 TCP-LISTEN:$3,bind=127.0.0.1,reuseaddr TCP-LISTEN:$4,bind=127.0.0.1,reuseaddr" ;;
    relay-unix) echo "build/relay socket,path=$3,server=on,wait=off socket,path=$4,server=on,wait=off" ;;
    relay-tcp) echo "build/relay socket,host=127.0.0.1,port=$3,server=on,wait=off socket,host=127.0.0.1,port=$4,server=on,wait=off" ;;
    esac
}

relays() { # unix|tcp
    local name arguments="" from to prefix=""
    if [ "$1" = tcp ]; then prefix=tcp:; fi
    for name in socat relay; do
        if ! have $name && [ $name = socat ]; then continue; fi
        from=$sockets/$name-from to=$sockets/$name-to
        if [ "$1" = tcp ]; then from=$("$out/relay_peer" port) to=$("$out/relay_peer" port); fi
        $(relay_of $name "$1" "$from" "$to") &
        running="$running $!"
        arguments="$arguments $name=$prefix$from=$prefix$to=$!"
    done
    timeout 300 "$out/relay_peer" compare $relay_rounds $relay_mib $arguments >"$out/relay.txt"
    end_servers
    while read -r name seconds speed ratio; do
        note "relay_$1" "$name" cpu_s_gib "$seconds"
        note "relay_$1" "$name" mib_s "$speed"
        if have socat; then note "relay_$1" "$name" cpu_ratio "$ratio"; fi
    done <"$out/relay.txt"
}

# ---- relay.exe under Wine beside a loop over WSAPoll() --------------------------------------------------------------------

find_wine() { # prints where it is, or nothing
    local name
    for name in "${WINE:-}" wine64 /usr/lib/wine/wine64 wine; do
        if [ -n "$name" ] && have "$name"; then command -v "$name" && return; fi
    done
}

windows() {
    local wine name ports arguments="" pid
    wine=$(find_wine)
    WINEPREFIX=${WINEPREFIX:-$PWD/build/wine} WINEDEBUG=-all
    export WINEPREFIX WINEDEBUG
    [ -f "$WINEPREFIX/system.reg" ] || timeout 300 "$wine" wineboot -i >/dev/null 2>&1
    x86_64-w64-mingw32-gcc -std=c99 -O2 -Wall -Wextra "$here/plain_winsock.c" -o "$out/plain_winsock.exe" -lws2_32
    make -s build/win/relay.exe
    for name in plain relay; do
        ports="$("$out/relay_peer" port) $("$out/relay_peer" port)"
        set -- $ports
        case $name in
        plain) "$wine" "$out/plain_winsock.exe" "$1" "$2" & ;;
        relay) "$wine" build/win/relay.exe "tcp:127.0.0.1:$1,server=on,wait=off,nodelay=on" "tcp:127.0.0.1:$2,server=on,wait=off,nodelay=on" & ;;
        esac
        pid=$!
        running="$running $pid"
        arguments="$arguments $name=tcp:$1=tcp:$2=$pid"
    done
    timeout 300 "$out/relay_peer" both $wine_rounds $wine_mib $wine_trips $arguments >"$out/windows.txt"
    end_servers_gently # with their sockets closed: wineserver 8 may crash when a process dies that waits for some
    while read -r name trip speed trip_ratio speed_ratio; do
        note windows "$name" roundtrip_us "$trip"
        note windows "$name" mib_s "$speed"
        note windows "$name" roundtrip_ratio "$trip_ratio"
        note windows "$name" speed_ratio "$speed_ratio"
    done <"$out/windows.txt"
}

# ---- inside one process ----------------------------------------------------------------------------------------------

in_process() {
    pinned "$out/inproc" rates "$rate_rounds" >"$out/rates.txt"
    while read -r name bare mine ratio; do
        note inproc "$name" bare_ns "$bare"
        note inproc "$name" chardev_ns "$mine"
        note inproc "$name" ratio "$ratio"
    done <"$out/rates.txt"
    "$out/inproc" allocations >"$out/allocations.txt"
    while read -r name calls; do note allocations "$name" calls "$calls"; done <"$out/allocations.txt"
}

wake_instructions() { # plain|chardev COUNT: user instructions a wake-up
    local wakes once twice
    for wakes in 100 200; do
        valgrind --tool=callgrind --callgrind-out-file=/dev/null --log-file="$out/callgrind.txt" \
            "$out/inproc" wakes "$1" "$2" "$wakes" || return 1
        once=${twice:-} twice=$(awk '/Collected :/ { print $NF }' "$out/callgrind.txt")
    done
    echo $(((twice - once) / 100))
}

idle() {
    local count plain mine bytes most
    most=$("$out/inproc" limit)
    for count in $idle_counts; do
        if [ "$count" -gt "$most" ]; then
            skip "$count idle chardevs" "RLIMIT_NOFILE leaves $most"
            count=$((most / 1000 * 1000))
        fi
        pinned "$out/inproc" idle "$count" "$idle_rounds" >"$out/idle.txt"
        read -r count plain mine bytes <"$out/idle.txt"
        note idle "$count" poll_ns "$plain"
        note idle "$count" chardev_ns "$mine"
        note idle "$count" bytes "$bytes"
        case " $idle_counted " in *" $count "*) ;; *) continue ;; esac
        if have valgrind && plain=$(wake_instructions plain "$count") && mine=$(wake_instructions chardev "$count"); then
            note idle "$count" poll_instructions "$plain"
            note idle "$count" chardev_instructions "$mine"
        fi
    done
}

# ---- the table, the JSON, the verdict ----------------------------------------------------------------------------------

note machine cpu model "$(one_word "$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)")"
note machine cpu count "$(nproc)"
note machine cpu date "$(date +%Y-%m-%d)"
have strace || skip strace
have valgrind || skip valgrind
if wanted echo; then
    build_echo
    compare echo client $servers
    counted echo client $servers
fi
if wanted tls && ! has_header mbedtls/ssl.h; then
    skip "mbed TLS"
elif wanted tls && ! have openssl; then
    skip openssl
elif wanted tls; then
    build_tls
    compare tls client_tls $tls_servers
    counted tls client_tls $tls_servers
fi
if wanted guest && ! have riscv64-unknown-elf-gcc; then
    skip riscv64-unknown-elf-gcc
elif wanted guest; then
    build guest_peer
    $riscv "$here/guest.c" -o "$out/guest.elf"
    guest
fi
if wanted relay; then
    have socat || skip socat
    build relay_peer
    relays unix
    relays tcp
fi
if wanted windows && ! have x86_64-w64-mingw32-gcc; then
    skip x86_64-w64-mingw32-gcc
elif wanted windows && [ -z "$(find_wine)" ]; then
    skip Wine
elif wanted windows; then
    build relay_peer
    windows
fi
if wanted inproc || wanted idle; then build inproc; fi
if wanted inproc; then in_process; fi
if wanted idle; then idle; fi
awk -f "$here/table.awk" "$results" || failed=1
awk -f "$here/json.awk" "$results" >build/bench.json
if have python3; then
    python3 "$here/picture.py" "$results" >build/bench.svg
    python3 "$here/picture.py" "$results" relays echo >build/bench-peers.svg
else
    skip python3
fi
if [ -n "$missing" ]; then echo "left out, because they are not installed or for the reason beside them: $missing"; fi
exit $failed
