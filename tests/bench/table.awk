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
    printf "%-12s %9s %9s %-13s %9s %9s %-13s %9s %-13s %9s\n", "", "us", "ratio", "(target)", "MiB/s", "ratio", "(target)", "calls", "(target)", "instrs (target)"
    count = split(names[section], name, " ")
    for (n = 1; n <= count; n++) {
        s = name[n]
        limit = s == "chardev" ? 0.97 : s ~ /^chardev/ ? 0.90 : ""
        printf "%-12s %9s %s %9s %s %s %s\n", s, get(section, s, "roundtrip_us"), figure(get(section, s, "roundtrip_ratio"), limit, "<", 0), \
            get(section, s, "stream_mib_s"), figure(get(section, s, "stream_ratio"), limit, "<", 0), \
            figure(get(section, s, "calls"), s == "chardev" || s == "chardev_tls" ? 3 : "", ">", 1), \
            figure(get(section, s, "instructions"), s == "chardev" ? 350 : "", ">", 1)
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

function idle_table(    count, name, n, s, own) {
    print "One wake-up beside idle chardevs, against poll() and read() on the same descriptors (the loop's own work is the difference):"
    printf "%-12s %9s %12s %13s %23s\n", "idle", "poll ns", "chardev ns", "difference ns", "own user instructions"
    count = split(names["idle"], name, " ")
    for (n = 1; n <= count; n++) {
        s = name[n]
        own = get("idle", s, "poll_instructions") == "-" ? "-" : get("idle", s, "chardev_instructions") - get("idle", s, "poll_instructions")
        printf "%-12s %9s %12s %13s %23s\n", s, get("idle", s, "poll_ns"), get("idle", s, "chardev_ns"), get("idle", s, "difference_ns"), own
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
    if ("echo" in names) echo_table("echo", "Echo over a unix socket, both ends on one CPU, against the plain poll+read+write server; per round trip of 64 bytes:")
    if ("tls" in names) echo_table("tls", "The same through TLS, against the plain poll loop over mbed TLS, with one certificate and cipher:")
    if ("inproc" in names) rate_table()
    if ("idle" in names) idle_table()
    if ("allocations" in names) allocation_table()
    printf "%s\n", missed ? missed " target(s) missed" : "all targets met"
    exit failed
}
