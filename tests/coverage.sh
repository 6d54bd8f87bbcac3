#!/bin/sh
# How much of chardev.h the tests reach: runs the test programs given as arguments and (unless PEERS=0) the scripts in tests/peers,
# all built with gcov's counters, and adds all flavours of the implementation up.
#   MIN_LINES=98 MIN_BRANCHES=95   ends with a status other than 0 where fewer per cent are reached, or when a test fails
#   HTML=1           makes build/coverage/html/index.html, too (with gcovr)
#   MISSED=SECTION   lists the lines and branches of a section that nothing reaches (MISSED=all: of all)
#   RUN=0            only tells again
# What can't be reached is named where it stands: GCOV_EXCL_LINE, GCOV_EXCL_BR_LINE (branches alone), or GCOV_EXCL_START and
# GCOV_EXCL_STOP in a comment that says why.
cd "$(dirname "$0")/.." || exit 1
command -v gcov >/dev/null 2>&1 || { echo 'coverage: gcov is missing'; exit 1; }
dir=build/coverage
failed=0
if [ "${RUN:-1}" != 0 ]; then
    find "$dir" -name '*.gcda' -exec rm {} +
    BUILD=$dir sh tests/run.sh "$@" >"$dir/run.log" 2>&1 || failed=1
    tail -n 2 "$dir/run.log"
fi
# Those named twice are linked with the implementation and hold nothing of it.
# shellcheck disable=SC2046
/usr/bin/python3 -B tests/coverage.py $(find "$dir" -name '*.gcda' ! -name 'test_*-test_*') || failed=1
if [ "${HTML:-0}" != 0 ]; then
    mkdir -p "$dir/html"
    gcovr --root . -a "$dir/merged.json" --html-details "$dir/html/index.html" && echo "$dir/html/index.html"
fi
if [ "${RUN:-1}" != 0 ]; then sed -n '/^What failed:/,/^built in/p' "$dir/run.log"; fi
[ -z "${MIN_LINES:-}${MIN_BRANCHES:-}" ] || exit "$failed"
