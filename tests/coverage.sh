#!/bin/sh
# Builds every test with gcov's counters, runs them, and says how much of chardev.h they reach. gcovr adds the programs up; without
# it the best that gcov alone can say is one figure per program. CC and FLAGS come from the Makefile.
cd "$(dirname "$0")/.." || exit 1
root=$PWD dir=build/coverage
rm -rf "$dir"
mkdir -p "$dir"
for source in tests/test_*.c; do
    name=$(basename "$source" .c)
    # shellcheck disable=SC2086
    (cd "$dir" && ${CC:-gcc} $(echo "$FLAGS" | sed "s|-I|-I$root/|g") -o "$name" "$root/$source") || exit 1
    if ! "$dir/$name" >"$dir/$name.log" 2>&1; then
        echo "$name: $(tail -n 1 "$dir/$name.log")"
    fi
done
if command -v gcovr >/dev/null 2>&1; then
    gcovr --root . --filter chardev.h --branches --txt-metric branch "$dir" 2>/dev/null || gcovr --root . --filter chardev.h "$dir"
else
    cd "$dir" || exit 1
    for notes in *.gcda; do
        echo "${notes%.gcda}: $(gcov -n "$notes" 2>/dev/null | grep -A 1 "chardev.h'" | tail -n 1)"
    done
    echo 'install gcovr for the sum'
fi
