#!/bin/sh
# Builds and runs all benchmarks, prints a table with the targets beside it and writes build/bench.json.
# BENCH_QUICK=1 is shorter and rough in its times; BENCH_ONLY="tls idle" measures only those of echo, tls, inproc and idle. What
# is timed only informs; what is counted (system calls, instructions, allocations) does not wobble, and fails when it is worse
# than its target.
set -eu
cd "$(dirname "$0")/../.."
here=tests/bench out=build/bench results=build/bench/results.txt
CC=${CC:-gcc} CFLAGS="-std=gnu99 -O2 -Wall -Wextra"
if [ -n "${BENCH_QUICK:-}" ]; then
    rounds=5 slice=10 trips=500 rate_rounds=15 idle_rounds=5 idle_counted="10 1000"
else
    rounds=61 slice=20 trips=2000 rate_rounds=101 idle_rounds=41 idle_counted="10 1000 10000"
fi
cpu=$(($(nproc) - 1)) # both ends on one: between two, the wake-up cost of a virtual machine hides every difference
servers="" missing="" running="" failed=0
only=${BENCH_ONLY:-echo tls inproc idle}
for name in $only; do
    case $name in echo | tls | inproc | idle) ;; *) echo "BENCH_ONLY=$name: none of echo, tls, inproc, idle" >&2 && exit 2 ;; esac
done

mkdir -p "$out"
: >"$results"
sockets=$(mktemp -d)
end_all() {
    for pid in $running; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$sockets"
}
trap end_all EXIT

have() { command -v "$1" >/dev/null 2>&1; }
note() { printf '%s %s %s %s\n' "$@" >>"$results"; } # SECTION NAME KEY VALUE: what the table and the JSON are made of
skip() { missing="$missing${missing:+, }$1"; note missing "$(echo "$1" | tr -d " ")" why not_installed; }
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
    servers="plain chardev chardev-mux"
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
    local count plain mine difference
    for count in 10 1000 10000; do
        if ! pinned "$out/inproc" idle "$count" "$idle_rounds" >"$out/idle.txt"; then
            echo "idle $count: could not be measured" >&2
            continue
        fi
        read -r count plain mine difference <"$out/idle.txt"
        note idle "$count" poll_ns "$plain"
        note idle "$count" chardev_ns "$mine"
        note idle "$count" difference_ns "$difference"
        case " $idle_counted " in *" $count "*) ;; *) continue ;; esac
        if have valgrind && plain=$(wake_instructions plain "$count") && mine=$(wake_instructions chardev "$count"); then
            note idle "$count" poll_instructions "$plain"
            note idle "$count" chardev_instructions "$mine"
        fi
    done
}

# ---- the table, the JSON, the verdict ----------------------------------------------------------------------------------

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
if wanted inproc || wanted idle; then build inproc; fi
if wanted inproc; then in_process; fi
if wanted idle; then idle; fi
awk -f "$here/table.awk" "$results" || failed=1
awk -f "$here/json.awk" "$results" >build/bench.json
if [ -n "$missing" ]; then echo "not installed, and so left out: $missing"; fi
exit $failed
