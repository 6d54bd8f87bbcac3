#!/bin/sh
# Runs the test programs given as arguments, then (unless PEERS=0) every script in tests/peers/ that isn't Windows' (windows_*), and
# adds them up.
#   BUILD=DIR            where the examples are (default build); scripts find it in the environment
#   TEST_SECONDS=N       time limit of each program and script (default 900)
#   LONG=PROGRAMS        those of them that wait most of their time: they start first, in PARTS parts side by side
#   JOBS=N               twice so many test programs side by side (default: as many as there are processors), as most of them wait;
#                        scripts run one at a time
#   STARTED=SECONDS      when make was started, to tell how long the build took
#   CHARDEV_NO_SKIP=1    what is skipped counts as failed
#   RUNNER=COMMAND       what runs the programs
#   SCRIPT_RUNNER=COMMAND  what runs the scripts
#   SCRIPTS=PATTERNS     the scripts, in place of those above
#   SKIPPED=FILE         what may be skipped in spite of CHARDEV_NO_SKIP=1: a reason a line, `PROGRAM: reason` for one that isn't built,
#                        `PROGRAM TEST: reason` for a test that isn't run. A reason that is of no use counts as failed, if all ran.
# A program ends with the line "N passed, N failed, N skipped". A script does so too, or counts as one test by its exit status;
# 77 means skipped, with the reason in its last line. What failed is said once more right above the last line, with the last lines that
# each failed test has printed.
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
PYTHONDONTWRITEBYTECODE=1
export BUILD PYTHONDONTWRITEBYTECODE
mkdir -p "$BUILD/tests"
passed=0 failed=0 skipped=0
failures=$BUILD/tests/failures

limit() {
    if command -v timeout >/dev/null 2>&1; then timeout -k 5 "${TEST_SECONDS:-900}" "$@"; else "$@"; fi
}

count() { # passed failed skipped
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
}

# Prints "P F S" when the last line of the log is a summary.
summary() {
    tail -n 1 "$1" | sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed, \([0-9][0-9]*\) skipped$/\1 \2 \3/p'
}

# Prints each failed test of a log with its last lines. A program prints them before the verdict (NAME: FAIL), a script behind it.
failed_tests() { # name log
    case $1 in *.py | *.sh) script=1 ;; *) script=0 ;; esac
    awk -v script="$script" -v most=10 '
        /: (ok|skip|FAIL.*)$/ {
            left = 0
            if (/: FAIL/) {
                print "    " $0
                for (i = script ? lines : lines > most ? lines - most : 0; i < lines; i++) print "    " line[i]
                left = script ? most : 0
            }
            lines = 0
            next
        }
        left-- > 0 { print "    " $0 }
        { line[lines++] = $0 }' "$2"
}

# Prints each test of a log that was skipped for a reason that may not be.
skipped_tests() { # log
    awk -v list="${SKIPPED:+$BUILD/tests/skipped.reasons}" '
        BEGIN { while (list != "" && (getline reason <list) > 0) may[reason] = 1 }
        sub(/^ *skipped because: /, "") { reason = $0; next }
        /: skip$/ && !(reason in may) { print "    " $0 "ped because: " reason }' "$1"
}

# Notes what failed for the end.
note() { # name log status failed skipped
    if [ "$4" != 0 ]; then
        tests=$(failed_tests "$1" "$2")
        echo "$1: exit status $3"
        if [ -n "$tests" ]; then echo "$tests"; else tail -n 10 "$2" | sed 's/^/    /'; fi
    fi
    if [ "$5" != 0 ] && [ "${CHARDEV_NO_SKIP:-0}" = 1 ]; then
        tests=$(skipped_tests "$2")
        if [ -n "$tests" ]; then echo "$1:" && echo "$tests"; fi
    fi
}

report() { # name log status seconds
    numbers=$(summary "$2")
    if [ "$3" = 77 ]; then
        count 0 0 1
        echo "$1: skipped: $(tail -n 1 "$2")"
        if [ "${CHARDEV_NO_SKIP:-0}" = 1 ]; then echo "$1: skipped: $(tail -n 1 "$2")" >>"$failures"; fi
        return
    fi
    case $1 in
    *.py | *.sh) if [ -z "$numbers" ] && [ "$3" = 0 ]; then numbers='1 0 0'; fi ;;
    *@[2-9]of*) ;; # a part of few tests may be empty; a program may not
    *) if [ "$numbers" = '0 0 0' ]; then numbers=; fi ;;
    esac
    if [ -z "$numbers" ]; then numbers='0 1 0'; fi
    set -- "$1" "$2" "$3" "$4" $numbers
    if [ "$3" != 0 ] && [ "$6" = 0 ]; then set -- "$1" "$2" "$3" "$4" "$5" 1 "$7"; fi
    count "$5" "$6" "$7"
    note "$1" "$2" "$3" "$6" "$7" >>"$failures"
    echo "$1: $5 passed, $6 failed, $7 skipped ($4 s)"
    if [ "$6" != 0 ]; then
        sed 's/^/    /' "$2"
        echo "    $1: exit status $3"
    elif [ "$7" != 0 ]; then
        grep -i 'skip' "$2" | sed -e '$d' -e 's/^/    /'
    fi
    if [ "$6" = 0 ]; then grep "^Wine's server has crashed" "$2" | sed 's/^/    /'; fi
}

# Runs a program or script. What it says goes into its log; its status and seconds, when it has ended, into NAME.end.
run() { # name command...
    log=$BUILD/tests/$1.log end=$BUILD/tests/$1.end
    shift
    started=$(date +%s)
    limit "$@" >"$log" 2>&1 </dev/null
    echo "$? $(($(date +%s) - started))" >"$end.new" && mv "$end.new" "$end"
}

report_end() { # name
    read -r status seconds <"$BUILD/tests/$1.end"
    report "$1" "$BUILD/tests/$1.log" "$status" "$seconds"
}

run_script() {
    name=${1##*/}
    case $name in
    *.py)
        if [ ! -x /usr/bin/python3 ]; then
            count 0 0 1
            echo "$name: skipped: there is no /usr/bin/python3" | tee -a "$failures"
            return
        fi
        set -- /usr/bin/python3 "$1" ;;
    *) set -- sh "$1" ;;
    esac
    # shellcheck disable=SC2086
    run "$name" ${SCRIPT_RUNNER:-} "$@"
    report_end "$name"
}

if [ "$1" = one ]; then
    program=${2%@*} part=${2#"${2%@*}"}
    TEST_PART=${part#@}
    export TEST_PART
    # shellcheck disable=SC2086
    run "${2##*/}" ${RUNNER:-} "$program"
    exit
fi

if [ -n "${SKIPPED:-}" ]; then
    sed -n 's/^test_[a-z0-9_]*: //p' "$SKIPPED" >"$BUILD/tests/skipped.programs"
    sed -e '/^#/d' -e '/^$/d' -e '/^test_[a-z0-9_]*: /d' -e 's/^test_[a-z0-9_]* [^:]*: //' "$SKIPPED" | sort -u >"$BUILD/tests/skipped.reasons"
fi

PARTS=4
parts() { # PROGRAM...
    for program in "$@"; do
        part=1
        while [ "$part" -le "$PARTS" ]; do echo "$program@${part}of$PARTS" && part=$((part + 1)); done
    done
}

tested=$(date +%s)
: >"$failures"

# How each went is said in their order.
if [ $# -gt 0 ]; then
    # shellcheck disable=SC2086
    long=$(parts ${LONG:-})
    others=$(for program in "$@"; do case " ${LONG:-} " in *" $program "*) ;; *) echo "$program" ;; esac; done)
    # shellcheck disable=SC2086
    set -- $long $others
    for program in "$@"; do rm -f "$BUILD/tests/${program##*/}.end"; done
    printf '%s\n' "$@" | xargs -P $((2 * ${JOBS:-$(nproc 2>/dev/null || echo 2)})) -n 1 sh tests/run.sh one &
    for program in "$@"; do
        until [ -f "$BUILD/tests/${program##*/}.end" ]; do
            kill -0 $! 2>/dev/null || [ -f "$BUILD/tests/${program##*/}.end" ] || break
            sleep 0.1
        done
        report_end "${program##*/}"
    done
    wait
fi
if [ "${PEERS:-1}" != 0 ]; then
    for script in ${SCRIPTS:-tests/peers/*.py tests/peers/*.sh}; do
        case $script in tests/peers/windows_*) if [ -z "${SCRIPTS:-}" ]; then continue; fi ;; esac
        if [ -f "$script" ]; then run_script "$script"; fi
    done
fi

# What is skipped for a reason that SKIPPED lists is to be skipped.
expected=0
if [ -n "${SKIPPED:-}" ]; then
    for program in "$@"; do cat "$BUILD/tests/${program##*/}.log"; done | sed -n 's/^ *skipped because: //p' >"$BUILD/tests/skipped.now"
    expected=$(grep -cxFf "$BUILD/tests/skipped.reasons" "$BUILD/tests/skipped.now")
    grep -E '^test_[a-z0-9_]*: ' "$SKIPPED" | sed 's/: /: skipped: /'
    count 0 0 "$(grep -c . "$BUILD/tests/skipped.programs")"
    expected=$((expected + $(grep -c . "$BUILD/tests/skipped.programs")))
    if [ "${PEERS:-1}" != 0 ] && grep -vxFf "$BUILD/tests/skipped.now" "$BUILD/tests/skipped.reasons" >"$BUILD/tests/skipped.idle"; then
        count 0 1 0
        sed 's/^/of no use in the list of what may be skipped: /' "$BUILD/tests/skipped.idle" | tee -a "$failures"
    fi
fi

now=$(date +%s)
if [ -s "$failures" ]; then echo 'What failed:' && cat "$failures"; fi
echo "built in $((tested - ${STARTED:-$tested})) s, tested in $((now - tested)) s"
if [ "${CHARDEV_NO_SKIP:-0}" = 1 ]; then failed=$((failed + skipped - expected)) skipped=$expected; fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
