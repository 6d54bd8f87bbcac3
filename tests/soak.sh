#!/bin/sh
# Random tests for a long time: seeds of test_model and of test_random, one range after the other, until the time is over.
#   MINUTES=N   how long (default 60)        JOBS=N   so many side by side (default: as many as there are processors)
#   SCHEDULES=N so many schedules of test_model alone, however long they take
#   BUILD=build without sanitizers, more than twice as fast (make build/tests/test_model build/tests/test_random first)
#   FROM=N      the first seed (default: another one each minute)
# Prints how many seeds were run and what failed, with how to repeat it; the exit status is 1 when any has. Logs: BUILD/soak/.
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build/san}
MINUTES=${MINUTES:-60}
JOBS=${JOBS:-$(nproc 2>/dev/null || echo 2)}
FROM=${FROM:-$(($(date +%s) / 60 % 40000 * 50000 + 1))}
MODEL=2000 RANDOM_ONES=100 # seeds in one range
SCHEDULES=${SCHEDULES:-0}
LOGS=$BUILD/soak
end=$(($(date +%s) + MINUTES * 60))

goes_on() { # RANGE
    if [ "$SCHEDULES" != 0 ]; then [ $(($1 * MODEL)) -lt "$SCHEDULES" ]; else [ "$(date +%s)" -lt "$end" ]; fi
}

# Ranges number JOB, JOB + JOBS, ... Each third one is of test_random.
work() { # JOB
    range=$1 model=0 random=0
    while goes_on "$range"; do
        if [ "$SCHEDULES" = 0 ] && [ $((range / JOBS % 3)) = 2 ]; then
            first=$((FROM + range * RANDOM_ONES)) last=$((FROM + range * RANDOM_ONES + RANDOM_ONES - 1))
            RANDOM_SEEDS=$first-$last "$BUILD/tests/test_random" >"$LOGS/$1.now" 2>&1 </dev/null
            failed=$? random=$((random + RANDOM_ONES))
        else
            first=$((FROM + range * MODEL)) last=$((FROM + range * MODEL + MODEL - 1))
            MODEL_SEEDS=$first-$last "$BUILD/tests/test_model" >"$LOGS/$1.now" 2>&1 </dev/null
            failed=$? model=$((model + MODEL))
        fi
        if [ "$failed" != 0 ]; then cat "$LOGS/$1.now" >>"$LOGS/failures"; fi
        echo "$model $random" >"$LOGS/$1.count"
        range=$((range + JOBS))
    done
}

rm -rf "$LOGS"
mkdir -p "$LOGS"
: >"$LOGS/failures"
job=0
while [ "$job" -lt "$JOBS" ]; do
    work "$job" &
    job=$((job + 1))
done
wait
cat "$LOGS"/*.count | awk -v from="$FROM" -v minutes="$((($(date +%s) - end) / 60 + MINUTES))" '{ model += $1; random += $2 }
    END { printf "soak: %d schedules of test_model, %d lives of test_random, from seed %d on, %d min\n", model, random, from, minutes }'
if [ -s "$LOGS/failures" ]; then
    cat "$LOGS/failures"
    grep -ho 'MODEL_SEEDS=.*\|RANDOM_SEED=.*' "$LOGS/failures" | sort -u
    exit 1
fi
