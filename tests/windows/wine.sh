#!/bin/sh
# Runs a program under Wine, WINE PROGRAM ARGUMENT...; once more when it failed and Wine's server has crashed meanwhile, which version 8 does
# now and then when a process ends while it waits for sockets (an assertion of its own, with plain WSAPoll() programs too).
servers() { pgrep wineserver | sort; }

before=$(servers)
"$@" && exit
status=$?
for server in $before; do
    kill -0 "$server" 2>/dev/null && continue
    echo "Wine's server has crashed: $2 runs once more" >&2
    exec "$@"
done
exit $status
