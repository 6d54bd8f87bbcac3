# SECTION NAME KEY VALUE lines -> tables with the targets beside the figures. Ends with status 1 when a count (not a time) is
# worse than its target.
{ value[$1, $2, $3] = $4 }
!(($1, $2) in seen) { seen[$1, $2] = 1; names[$1] = names[$1] " " $2 }

function get(section, name, key) { return (section, name, key) in value ? value[section, name, key] : "-" }

# A figure beside its target, which may be empty. `worse` is "<" where more is better and ">" where less is. A count is a mean: what a
# start or an end had to do more once, on a busy machine, is one percent at most.
function figure(got, target, worse, counted,    verdict) {
    if (target == "" || got == "-") return sprintf("%9s %-13s", got, "")
    verdict = (worse == "<" ? got + 0 < target : got + 0 > target * (counted ? 1.01 : 1)) ? "MISSED" : "ok"
    if (verdict == "MISSED" && counted) failed = 1
    if (verdict == "MISSED") missed++
    return sprintf("%9s %-13s", got, sprintf("(%s %s)", target, verdict))
}

function echo_table(section, title,    count, name, n, s, limit) {
    print title
    printf "%-15s %9s %9s %-13s %9s %9s %-13s %9s %-13s %9s\n", "", "us", "ratio", "(target)", "MiB/s", "ratio", "(target)", "calls", "(target)", "instrs (target)"
    count = split(names[section], name, " ")
    for (n = 1; n <= count; n++) {
        s = name[n]
        limit = s == "chardev" ? 0.97 : s ~ /^chardev/ ? 0.90 : ""
        printf "%-15s %9s %s %9s %s %s %s\n", s, get(section, s, "roundtrip_us"), figure(get(section, s, "roundtrip_ratio"), limit, "<", 0), \
            get(section, s, "stream_mib_s"), figure(get(section, s, "stream_ratio"), limit, "<", 0), \
            figure(get(section, s, "calls"), s ~ /^chardev(_tls|-buffers)?$/ ? 3 : "", ">", 1), \
            figure(get(section, s, "instructions"), s == "chardev" ? 350 : s == "chardev-buffers" ? 450 : "", ">", s ~ /^chardev(-buffers)?$/)
    }
    print ""
}

function rate_table(    count, name, n, s) {
    limits["null"] = 3; limits["ringbuf"] = 1.5; limits["mux_out"] = 2.5; limits["mux_in"] = 2.5
    print "Inside one process, 64-byte messages, against a bare loop that does the same copying:"
    printf "%-12s %9s %12s %9s\n", "", "bare ns", "chardev ns", "ratio"
    count = split(names["inproc"], name, " ")
    for (n = 1; n <= count; n++) {
        s = name[n]
        printf "%-12s %9s %12s %s\n", s, get("inproc", s, "bare_ns"), get("inproc", s, "chardev_ns"), figure(get("inproc", s, "ratio"), limits[s], ">", 0)
    }
    print ""
}

# Against the fewest idle ones of this run.
function to_first(s, first, key) { return get("idle", s, key) == "-" || !(get("idle", first, key) > 0) ? "-" : sprintf("%.2f", get("idle", s, key) / get("idle", first, key)) }

function idle_table(    count, name, n, s, first, counted) {
    print "One wake-up beside idle socket chardevs, and beside as many with poll() and read() alone; the memory of each idle one:"
    printf "%-12s %9s %12s %9s %-13s %12s %9s %-13s %9s\n", "idle", "poll ns", "chardev ns", "ratio", "(target)", "instructions", "ratio", "(target)", "bytes"
    count = split(names["idle"], name, " ")
    first = name[1]
    for (n = count; n > 0; n--) if (get("idle", name[n], "chardev_instructions") != "-") counted = name[n]
    for (n = 1; n <= count; n++) {
        s = name[n]
        printf "%-12s %9s %12s %s %12s %s %s\n", s, get("idle", s, "poll_ns"), get("idle", s, "chardev_ns"), \
            figure(to_first(s, first, "chardev_ns"), s == first ? "" : 2, ">", 0), get("idle", s, "chardev_instructions"), \
            figure(to_first(s, counted, "chardev_instructions"), s == counted ? "" : 2, ">", 1), \
            figure(get("idle", s, "bytes"), 2048, ">", 1)
    }
    print ""
}

function guest_table(    count, name, n, s, mine) {
    print "A machine's 16550, polled by the same program on each, over a unix socket:"
    printf "%-12s %9s %9s %-13s %9s %9s %9s %-13s %9s %10s %-13s %10s\n", "", "out MB/s", "ratio", "(target)", "cpu ns/B", "in MB/s", "ratio", "(target)", "cpu ns/B", \
        "calls/B", "out (target)", "in (target)"
    count = split(names["guest"], name, " ")
    for (n = 1; n <= count; n++) {
        s = name[n]
        mine = s == "tinyvm"
        printf "%-12s %9s %s %9s %9s %s %9s %s %s\n", s, get("guest", s, "out_mb_s"), figure(get("guest", s, "out_ratio"), mine ? 25 : "", "<", 0), \
            get("guest", s, "out_cpu_ns"), get("guest", s, "in_mb_s"), figure(get("guest", s, "in_ratio"), mine ? 50 : "", "<", 0), get("guest", s, "in_cpu_ns"), \
            figure(get("guest", s, "out_calls"), mine ? 0.01 : "", ">", 1), figure(get("guest", s, "in_calls"), mine ? 0.01 : "", ">", 1)
    }
    print ""
}

function relay_table(section, what,    count, name, n, s) {
    print "From one " what " to the other:"
    printf "%-12s %9s %9s %-13s %9s\n", "", "cpu s/GiB", "ratio", "(target)", "MiB/s"
    count = split(names[section], name, " ")
    for (n = 1; n <= count; n++) {
        s = name[n]
        printf "%-12s %9s %s %9s\n", s, get(section, s, "cpu_s_gib"), figure(get(section, s, "cpu_ratio"), s == "relay" ? 1 : "", ">", 0), get(section, s, "mib_s")
    }
    print ""
}

function windows_table(    count, name, n, s, limit) {
    print "relay.exe under Wine, from one TCP connection to the other, against a loop over WSAPoll(), recv() and send(); round trips of 64 bytes:"
    printf "%-12s %9s %9s %-13s %9s %9s %-13s\n", "", "us", "ratio", "(target)", "MiB/s", "ratio", "(target)"
    count = split(names["windows"], name, " ")
    for (n = 1; n <= count; n++) {
        s = name[n]
        limit = s == "relay" ? 0.9 : ""
        printf "%-12s %9s %s %9s %s\n", s, get("windows", s, "roundtrip_us"), figure(get("windows", s, "roundtrip_ratio"), limit, "<", 0), \
            get("windows", s, "mib_s"), figure(get("windows", s, "speed_ratio"), limit, "<", 0)
    }
    print ""
}

function allocation_table(    count, name, n) {
    print "Calls of the allocator while messages flow:"
    count = split(names["allocations"], name, " ")
    for (n = 1; n <= count; n++) printf "%-12s %s\n", name[n], figure(get("allocations", name[n], "calls"), 0, ">", 1)
    print ""
}

END {
    if ("guest" in names) guest_table()
    if ("relay_unix" in names) relay_table("relay_unix", "unix socket")
    if ("relay_tcp" in names) relay_table("relay_tcp", "TCP connection")
    if ("windows" in names) windows_table()
    if ("echo" in names) echo_table("echo", "Echo over a unix socket, both ends on one CPU, against the plain poll+read+write server; per round trip of 64 bytes:")
    if ("tls" in names) echo_table("tls", "The same through TLS, against the plain poll loop over mbed TLS, with one certificate and cipher:")
    if ("inproc" in names) rate_table()
    if ("idle" in names) idle_table()
    if ("allocations" in names) allocation_table()
    printf "%s\n", missed ? missed " target(s) missed" : "all targets met"
    exit failed
}
