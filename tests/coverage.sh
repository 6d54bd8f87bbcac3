#!/bin/sh
# How much of chardev.h the tests reach: runs the test programs given as arguments and (unless PEERS=0) the scripts in tests/peers,
# all built with gcov's counters, and adds all flavours of the implementation up.
#   HTML=1           makes build/coverage/html/index.html, too
#   MISSED=SECTION   lists the lines and branches of a section that nothing reaches (MISSED=all: of all)
#   RUN=0            only tells again
# What can't be reached is named where it stands: GCOV_EXCL_LINE, GCOV_EXCL_BR_LINE, or GCOV_EXCL_START and GCOV_EXCL_STOP in a comment
# that says why.
cd "$(dirname "$0")/.." || exit 1
command -v gcovr >/dev/null 2>&1 || { echo 'coverage: gcovr is missing'; exit 1; }
dir=build/coverage
if [ "${RUN:-1}" != 0 ]; then
    find "$dir" -name '*.gcda' -exec rm {} +
    BUILD=$dir sh tests/run.sh "$@" >"$dir/run.log" 2>&1
    grep -E '^[^ ]*: .* [1-9][0-9]* failed' "$dir/run.log"
    tail -n 1 "$dir/run.log"
fi
[ "${HTML:-0}" = 0 ] || mkdir -p "$dir/html" || exit 1
gcovr --root . --filter chardev.h --exclude-unreachable-branches --exclude-throw-branches --merge-mode-functions separate \
    --gcov-ignore-parse-errors --json "$dir/coverage.json" ${HTML:+--html-details "$dir/html/index.html"} "$dir" 2>"$dir/gcovr.log" ||
    { tail -n 5 "$dir/gcovr.log"; exit 1; }
exec /usr/bin/python3 -B tests/coverage.py "$dir/coverage.json"
