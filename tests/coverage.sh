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
# One object at a time: gcovr stumbles over functions that flavours have in different places, and coverage.py adds them up.
rm -rf "$dir/each" && mkdir -p "$dir/each"
find "$dir" -name '*.gcda' ! -name 'test_*-test_*' | while read -r counts; do
    name=$(basename "$counts" .gcda)
    mkdir "$dir/each/$name" && cp "$counts" "${counts%.gcda}.gcno" "$dir/each/$name/" || exit 1
    gcovr --root . --filter chardev.h --exclude-unreachable-branches --exclude-throw-branches --gcov-ignore-parse-errors \
        --object-directory "$(dirname "$counts")" --json "$dir/each/$name.json" "$dir/each/$name" >"$dir/gcovr.log" 2>&1 ||
        { tail -n 5 "$dir/gcovr.log"; exit 1; }
done || exit 1
/usr/bin/python3 -B tests/coverage.py "$dir"/each/*.json || exit 1
if [ "${HTML:-0}" != 0 ]; then
    mkdir -p "$dir/html"
    # shellcheck disable=SC2046
    gcovr --root . $(printf ' -a %s' "$dir"/each/*.json) --html-details "$dir/html/index.html" && echo "$dir/html/index.html"
fi
