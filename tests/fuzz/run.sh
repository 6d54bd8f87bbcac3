#!/bin/sh
# Runs the fuzz targets given as arguments, as many side by side as there are processors, FUZZ_SECONDS (default 20) each, and prints a
# table. What one has said stands in NAME.log beside the program; when there is a finding its end is shown, and how to reproduce it,
# and this fails. New inputs go to NAME.new, findings to NAME-*; the corpus in tests/ is only read.
#   SKIPPED=TEXT         a target that can't be built here, and why; with CHARDEV_NO_SKIP=1 that is a failure
#   FUZZ_FLAGS=TEXT      more flags for libFuzzer
cd "$(dirname "$0")/../.." || exit 1
row='%-16s %10s %8s %10s %10s %8s  %s\n'

# Scheduling by entropy (-entropic) costs more than half of the time of targets that are fast: it is off.
fuzz() { # PROGRAM
    name=${1##*/} kind=${1##*/fuzz_} status=0 began=$(date +%s)
    set -- "$1" "$1.new"
    [ -d "tests/fuzz/corpus/$kind" ] && set -- "$@" "tests/fuzz/corpus/$kind"
    [ -f "tests/fuzz/dict/$kind" ] && set -- "$@" "-dict=tests/fuzz/dict/$kind"
    mkdir -p "$1.new"
    "$@" -max_total_time="${FUZZ_SECONDS:-20}" -max_len=1024 -timeout=10 -entropic=0 -print_final_stats=1 -artifact_prefix="$1-" $FUZZ_FLAGS \
        >"$1.log" 2>&1 || status=$?
    awk -v row="$row" -v name="$name" -v status="$status" -v seconds=$(($(date +%s) - began)) '
        function coverage(i) { for (i = 1; i < NF; i++) if ($i == "cov:") return $(i + 1); return 0 }
        $2 == "INITED" { first = coverage() }
        /^#[0-9]+/ { last = coverage() > last ? coverage() : last }
        /number_of_executed_units/ { runs = $NF }
        /new_units_added/ { fresh = $NF }
        END { printf row, name, runs, int(runs / (seconds > 0 ? seconds : 1)), last, "+" (last - first), fresh, status == 0 ? "ok" : "FINDING" }
    ' "$1.log" >"$1.row"
    cat "$1.row"
    [ "$status" = 0 ] || : >"$1.failed"
}

# The input that failed is in the log's last lines, or the log is all that there is (it did not start).
show() { # PROGRAM
    input=$(sed -n 's/.*Test unit written to //p' "$1.log" | tail -n 1)
    echo "==== the end of $1.log"
    tail -n 60 "$1.log"
    echo "==== to reproduce: make $1${FUZZ_PLAIN:+ FUZZ_PLAIN=1} && $1 ${input:-tests/fuzz/corpus/${1##*/fuzz_}/*}"
    [ -z "$input" ] || [ "$(wc -c <"$input")" -gt 2000 ] || echo "     in base64: $(base64 <"$input" | tr -d '\n')"
    echo "     a shorter input: $1 -minimize_crash=1 -runs=100000 ${input:-INPUT}"
}

if [ "$1" = one ]; then
    fuzz "$2"
    exit
fi

for program in "$@"; do rm -f "$program.failed" "$program.row"; done
printf '%s\n' "$@" | xargs -P "$(nproc 2>/dev/null || echo 1)" -n 1 sh tests/fuzz/run.sh one >/dev/null
failed=0
for program in "$@"; do
    [ -e "$program.failed" ] || continue
    failed=1
    show "$program"
done
printf "$row" target executions '/s' coverage new 'inputs' result
for program in "$@"; do cat "$program.row" || failed=1; done
if [ -n "${SKIPPED:-}" ]; then
    echo "$SKIPPED"
    [ "${CHARDEV_NO_SKIP:-0}" = 1 ] && failed=1
fi
if [ "$failed" = 0 ]; then echo 'fuzz: ok'; else echo 'fuzz: FAILED'; fi
exit "$failed"
