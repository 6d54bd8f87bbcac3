#!/bin/sh
# Runs a command with a Wine of its own: wine.sh COMMAND ARGUMENT... (WINE PROGRAM ..., or a script that starts Wine's programs). The
# prefix is a copy of WINEPREFIX, WINEPREFIX-1 and so on, that no other command uses meanwhile: one server is one process, which is slow
# for several programs and takes all of them with it.
#
# Version 8 of that server crashes now and then when a process ends while it waits for sockets (an assertion of its own, with plain
# WSAPoll() programs too). Its programs have lost then what they wait for. They are ended, and the command runs again: at most twice.
# Whatever fails while the server lives has failed.
# The environment names WINEPREFIX, WINE and WINESERVER.

base=$WINEPREFIX
slot=0
while :; do
    slot=$((slot + 1))
    exec 9>"$base-$slot.lock"
    flock -n 9 && break
done
WINEPREFIX=$base-$slot
export WINEPREFIX

# The registry is not shared, as the server writes into the files.
if [ ! -f "$WINEPREFIX/.complete" ]; then
    rm -rf "$WINEPREFIX"
    cp -al "$base" "$WINEPREFIX"
    cp --remove-destination "$base"/*.reg "$WINEPREFIX"
    : >"$WINEPREFIX/.complete"
fi

processes() { # of this prefix
    grep -lzxF "WINEPREFIX=$WINEPREFIX" /proc/[0-9]*/environ 2>/dev/null | cut -d / -f 3
}

lives() { # PID
    grep -q '^State:[[:space:]]*[^ZX]' "/proc/$1/status" 2>/dev/null
}

server() {
    for pid in $(pgrep wineserver); do
        if grep -qzxF "WINEPREFIX=$WINEPREFIX" "/proc/$pid/environ" 2>/dev/null && lives "$pid"; then echo "$pid" && return; fi
    done
}

end_all() {
    for pid in $(processes); do kill -KILL "$pid" 2>/dev/null; done
}

# Ends the programs when the server has ended; says so by its status.
watch() { # SERVER COMMAND
    while lives "$1" && lives "$2"; do sleep 0.3; done
    if lives "$1"; then return 0; fi
    end_all
    kill -KILL "$2" 2>/dev/null
    return 1
}

trap 'end_all; exit 124' INT TERM
for try in 1 2 3; do
    its=$(server)
    if [ -z "$its" ]; then
        "$WINESERVER" -p 2>>"$WINEPREFIX/server.log" 9>&-
        its=$(server)
        # The first program brings Wine's services, which stay and keep what it has inherited: not the pipe that a script reads to its end.
        timeout 60 "$WINE" cmd /c exit </dev/null >/dev/null 2>&1 9>&-
    fi
    "$@" 9>&- &
    command=$!
    watch "$its" "$command" 9>&- &
    wait "$command"
    status=$?
    kill "$!" 2>/dev/null && wait "$!" 2>/dev/null # the watch
    if [ "$status" = 0 ] || lives "$its"; then exit "$status"; fi
    end_all
    echo "Wine's server has crashed ($(tail -n 1 "$WINEPREFIX/server.log")): $* ran $try times" >&2
done
exit "$status"
