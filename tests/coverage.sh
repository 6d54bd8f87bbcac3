#!/bin/sh
# Runs the test programs given as arguments, which were built with gcov's counters, and says how much of chardev.h they reach. gcovr
# adds the flavours of the implementation up; without it the best that gcov alone can say is one figure for each of them.
cd "$(dirname "$0")/.." || exit 1
dir=build/coverage/tests
find "$dir" -name '*.gcda' -exec rm {} +
for program in "$@"; do
    name=${program##*/}
    "$program" >"$dir/$name.log" 2>&1 || echo "$name: $(tail -n 1 "$dir/$name.log")"
done
if command -v gcovr >/dev/null 2>&1; then
    gcovr --root . --filter chardev.h --branches --txt-metric branch "$dir" 2>/dev/null || gcovr --root . --filter chardev.h "$dir"
else
    for notes in "$dir"/impl*.gcda; do
        echo "$(basename "$notes" .gcda): $(gcov -n "$notes" 2>/dev/null | grep -A 1 "chardev.h'" | tail -n 1)"
    done
    echo 'install gcovr for the sum'
fi
