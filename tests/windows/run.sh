#!/bin/sh
# Runs the tests that `make test-windows` has built, given as arguments, and then the scripts tests/peers/windows_*.py, under Wine.
# Scripts find in the environment: BUILD (build/win, where the .exe are), WINE (the program that runs them), WINEPREFIX, WINEDEBUG.
# Each runs by wine.sh. Wine's servers stay between the programs, which makes each start quick, and end with the last.
cd "$(dirname "$0")/../.." || exit 1

skip() { # REASON
    echo "test-windows: skipped: $1"
    if [ "${CHARDEV_NO_SKIP:-0}" = 1 ]; then echo '0 passed, 1 failed, 0 skipped' && exit 1; fi
    echo '0 passed, 0 failed, 1 skipped'
    exit 0
}

[ $# -gt 0 ] || skip "there is no compiler for Windows (gcc-mingw-w64-x86-64)"
for WINE in "$(command -v wine64)" /usr/lib/wine/wine64 "$(command -v wine)" ''; do if [ -x "$WINE" ]; then break; fi; done
[ -n "$WINE" ] || skip "there is no Wine (wine64)"
server=$(command -v wineserver || echo /usr/lib/wine/wineserver)

WINEPREFIX=$PWD/build/wine WINEDEBUG=-all
SCRIPTS='tests/peers/windows_*.py' SKIPPED=tests/windows/skipped
TEST_EXCEPT=$SKIPPED TEST_TIME_SCALE=3 WINESERVER=$server
RUNNER="sh tests/windows/wine.sh $WINE" SCRIPT_RUNNER='sh tests/windows/wine.sh'
export TEST_EXCEPT TEST_TIME_SCALE WINE WINEPREFIX WINESERVER WINEDEBUG RUNNER SCRIPT_RUNNER SCRIPTS SKIPPED
mkdir -p build

end_servers() {
    for prefix in "$WINEPREFIX" "$WINEPREFIX"-[0-9]*; do
        if [ -d "$prefix" ]; then WINEPREFIX=$prefix "$server" -k 2>/dev/null; fi
    done
}

end_servers # that an interrupted run has left
if [ ! -f "$WINEPREFIX/system.reg" ]; then timeout 300 "$WINE" wineboot -i >/dev/null 2>&1 && "$server" -k; fi
trap end_servers EXIT
trap 'exit 1' INT TERM
sh tests/run.sh "$@"
