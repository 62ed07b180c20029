# shellcheck shell=bash
# What came of the demo: as JSON, and for people. Part of quickstart.

file_or() {
    cat "$DEMO_WORK/$1" 2>/dev/null || echo "$2"
}

# The numbers of blocks are those of the recovered disks; the guest's own count must be the same.
make_result() {
    jq -n --argjson rpo_set_s "$DEMO_RPO_S" \
        --slurpfile infos "$DEMO_WORK/info.json" --slurpfile tasks "$DEMO_WORK/task.json" \
        --slurpfile checks "$DEMO_WORK/check.json" \
        --argjson back_ms $(($(<"$DEMO_WORK/guest-back") - $(<"$DEMO_WORK/failover-begun"))) \
        --argjson found "$(found_value highest)" --argjson found_missing "$(found_value missing)" \
        --argjson guest_runs "$(file_or guest-runs false)" \
        --argjson guard_refused "$(file_or guard-refused false)" '
        $infos[0].statistics as $s | $tasks[0].result as $t | $checks[0] as $c |
        {
            rpo_set_s: $rpo_set_s,
            rpo_seen_s: ($s.rpoSeenMax / 1000),
            rto_s: $t.rtoSeconds,
            service_back_s: ($back_ms / 1000),
            blocks_acknowledged: $c.acked,
            blocks_recovered: ($c.highest - $c.missing),
            blocks_lost: ($c.lost_blocks + $c.missing),
            seconds_lost: $c.lost_seconds,
            torn_blocks: $c.torn,
            order_violations: $c.order,
            blocks_found_by_guest: ($found - $found_missing),
            first_sync_bytes: $s.firstSyncBytes,
            first_sync_s: ($s.firstSyncMs / 1000),
            cycles: $s.cycles,
            cycle_ms_p50: $s.cycleMsP50,
            cycle_ms_p99: $s.cycleMsP99,
            changed_bytes: $s.changedBytes,
            wire_bytes: $s.wireBytes,
            guest_runs: $guest_runs,
            guard_refused: $guard_refused
        } | .faults = [
            (select(.torn_blocks > 0) | "\(.torn_blocks) blocks are torn"),
            (select(.order_violations > 0) | "\(.order_violations) blocks are missing below a newer one"),
            (select($c.consistent | not) | "the recovered disks are damaged"),
            (select(.blocks_recovered != .blocks_found_by_guest) |
                "the guest found \(.blocks_found_by_guest) blocks, the disks hold \(.blocks_recovered)"),
            (select(.seconds_lost > .rpo_set_s + 1) |
                "\(.seconds_lost) s are lost, with an RPO of \(.rpo_set_s) s"),
            (select(.guest_runs | not) | "the guest does not run on b"),
            (select(.guard_refused | not) | "the guard on a did not refuse to start the guest")
        ]'
}

result_table() {
    jq -r '
        def mib: . / 104857.6 | round / 10 | "\(.) MiB";
        def s: . * 100 | round / 100 | "\(.) s";
        "RPO              \(.rpo_set_s) s set, \(.rpo_seen_s | s) at worst",
        "RTO              \(.rto_s | s) from the command to QEMU running, \(.service_back_s | s) until the guest wrote",
        "Blocks           \(.blocks_acknowledged) acknowledged, \(.blocks_recovered) recovered, \(.blocks_lost) lost",
        "Time lost        \(.seconds_lost | s)",
        "Damage           \(.torn_blocks) torn blocks, \(.order_violations) order violations over two disks",
        "First sync       \(.first_sync_bytes | mib) in \(.first_sync_s | s)",
        "Cycles           \(.cycles), half of them within \(.cycle_ms_p50) ms, 99 % within \(.cycle_ms_p99) ms",
        "Changed, sent    \(.changed_bytes | mib), \(.wire_bytes | mib) on the wire",
        "Old host         \(if .guard_refused then "refuses to start the guest" else "COULD START THE GUEST" end)"' \
        "$DEMO_WORK/result.json"
}

# False if anything was wrong with the data.
print_result() {
    echo
    "${DEMO_FULL:+full_}result_table"
    echo
    if jq -e '.faults == []' "$DEMO_WORK/result.json" >/dev/null; then
        echo "Passed: the guest runs on ${DEMO_HOST_AT_END}, and its data is right."
        return
    fi
    jq -r '.faults[] | "FAILED: \(.)"' "$DEMO_WORK/result.json"
    return 1
}
