#!/bin/sh
# Runs the fuzz targets given as arguments, as many side by side as there are processors, FUZZ_SECONDS (default 20) each. A line
# for each tells how it went; what one has said stands in build/fuzz/NAME.log, and is shown when there is a finding, which makes
# this fail. New inputs go to build/fuzz/NAME.new, findings to build/fuzz/NAME-*; the corpus in tests/ is only read.
#   SKIPPED=TEXT         a target that can't be built here, and why; with CHARDEV_NO_SKIP=1 that is a failure
cd "$(dirname "$0")/../.." || exit 1

fuzz() { # PROGRAM
    name=${1##*/} seeds=tests/fuzz/corpus/${1##*/fuzz_} status=0
    [ -d "$seeds" ] || seeds=
    mkdir -p "$1.new"
    "$1" -max_total_time="${FUZZ_SECONDS:-20}" -timeout=10 -print_final_stats=1 -verbosity=0 -artifact_prefix="$1-" "$1.new" $seeds >"$1.log" 2>&1 || status=$?
    awk -v name="$name" -v status="$status" '
        /number_of_executed_units/ { runs = $NF }
        /new_units_added/ { fresh = $NF }
        END { printf "%s: %s (%d inputs, %d new)\n", name, status == 0 ? "ok" : "FINDING, exit status " status, runs, fresh }' "$1.log"
    [ "$status" = 0 ] || : >"$1.failed"
}

if [ "$1" = one ]; then
    fuzz "$2"
    exit
fi

for program in "$@"; do rm -f "$program.failed"; done
printf '%s\n' "$@" | xargs -P "$(nproc 2>/dev/null || echo 1)" -n 1 sh tests/fuzz/run.sh one
failed=0
for program in "$@"; do
    [ -e "$program.failed" ] || continue
    failed=1
    echo "==== $program.log"
    cat "$program.log"
done
if [ -n "${SKIPPED:-}" ]; then
    echo "$SKIPPED"
    [ "${CHARDEV_NO_SKIP:-0}" = 1 ] && failed=1
fi
if [ "$failed" = 0 ]; then echo 'fuzz: ok'; else echo 'fuzz: FAILED'; fi
exit "$failed"
