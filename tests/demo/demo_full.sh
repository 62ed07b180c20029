# shellcheck shell=bash
# The whole failover family, in one story: demo --full. Part of quickstart. After every move the guest
# says which of its numbered blocks its disks hold; what it had acknowledged before and does not find
# is lost. Each move adds a line to $DEMO_WORK/moves: {move, lost, missing, torn}.

# What the guest on HOST found each time that it was started there: "HIGHEST MISSING TORN" lines.
found_on() {
    { lab console "$1" "$DEMO_VM" 2>/dev/null || true; } |
        sed -n 's/^found .*highest=\([0-9]*\).* missing=\([0-9]*\) torn=\([0-9]*\).*/\1 \2 \3/p'
}

# The host's console goes on where it ended: what was found there before is of another start.
before_move() {
    DEMO_MOVED_TO=$1
    DEMO_STARTS=$(found_on "$1" | wc -l)
}

guest_found() {
    found_on "$DEMO_MOVED_TO" | sed -n "$((DEMO_STARTS + 1))p" | grep . >"$DEMO_WORK/found-now"
}

acked_number() {
    lab acked "$1" "$DEMO_VM" | jq -r .number
}

# moved MOVE ACKED: the guest runs on the host of before_move, and had acknowledged so many blocks.
moved() {
    local highest missing torn

    wait_until 180 guest_found || return 1
    read -r highest missing torn <"$DEMO_WORK/found-now"
    lab wait-guest "$DEMO_MOVED_TO" "$DEMO_VM" --blocks 20 --timeout 120
    jq -nc --arg move "$1" --argjson acked "$2" --argjson highest "$highest" --argjson missing "$missing" \
        --argjson torn "$torn" \
        '{move: $move, lost: ([$acked - $highest, 0] | max), missing: $missing, torn: $torn}' >>"$DEMO_WORK/moves"
    jq -sr '.[-1] | "\(.lost) blocks lost, \(.missing) missing, \(.torn) torn"' "$DEMO_WORK/moves"
}

state_on() {
    [[ $(on "$1" virt-dr -o json info "$DEMO_VM" | jq -r .state) == "$2" ]]
}

# The newest point of the replica on HOST is younger than this moment.
point_since() {
    (($(on "$1" virt-dr -o json info "$DEMO_VM" | jq -r .latestInstance.timestamp) > $2))
}

protected_on() {
    wait_until 240 state_on "$1" replicating && wait_until 60 point_since "$1" "$(date +%s%3N)"
}

drill() {
    on b virt-dr -o json test-failover "$DEMO_VM" --check running --clean-up --wait >"$DEMO_WORK/drill.json"
    say "Drill on b: $(jq -r '.result | "\(.result), started in \(.rtoSeconds * 10 | round / 10) s"' \
        "$DEMO_WORK/drill.json"); replication went on meanwhile."
}

# A point some seconds before the site was lost.
fail_over_to_point() {
    local point

    point=$(on b virt-dr -o json points "$DEMO_VM" | jq -r '.items | sort_by(.timestamp) | .[-4].id')
    before_move b
    on b virt-dr failover "$DEMO_VM" --point "$point" --wait
    wait_until 180 guest_found
    say "Failed over to an older point: the guest found blocks 1 to $(cut -d ' ' -f 1 "$DEMO_WORK/found-now")."
}

undo_failover() {
    on b virt-dr undo "$DEMO_VM" --wait
}

fail_over_to_newest() {
    before_move b
    on b virt-dr failover "$DEMO_VM" --wait
    say "Failed over again, to the newest point: $(moved failover "$(jq -r .number "$DEMO_WORK/acked.json")")."
}

commit_failover() {
    on b virt-dr commit "$DEMO_VM" --wait
}

reverse_direction() {
    on b virt-dr reverse "$DEMO_VM" --wait
    protected_on b
    say "Replicating from b to a: $(on b virt-dr -o json info "$DEMO_VM" | jq -r '.resync |
        "\(.comparedBytes / 1048576 | round) MiB compared, \(.sentBytes / 104857.6 | round / 10) MiB sent"')."
}

paths_of() {
    on a virsh domblklist "$DEMO_VM" | awk '/vd/ { print $2 }'
}

on_original_paths() {
    cmp -s "$DEMO_WORK/paths-before" <(paths_of)
}

# move_home MOVE: the guest goes from b back to a, onto its own disks, and is protected by b as before.
move_home() {
    local found

    before_move a
    on a virt-dr failback "$DEMO_VM" --wait
    found=$(moved "$1" "$(acked_number b)")
    on a virt-dr commit "$DEMO_VM" --wait
    wait_until 180 on_original_paths
    protected_on a
    say "Failed back to a: $found; on its original disks, protected by b again."
}

fail_back() {
    move_home failback
}

move_as_planned() {
    local acked

    before_move b
    on b virt-dr planned-failover "$DEMO_VM" --wait
    acked=$(acked_number a)
    protected_on b
    say "Planned failover to b: $(moved planned "$acked"); replicated from there to a."
}

move_back() {
    move_home planned-back
}

note_paths() {
    paths_of >"$DEMO_WORK/paths-before"
}

story_full() {
    story_step "Noted the paths of its disks." note_paths
    story_step "Drill on b." drill
    story_step "Site a is lost: its power and its network are gone at once." lose_site
    story_step "Failed '$DEMO_VM' over to an older point." fail_over_to_point
    story_step "Undid that." undo_failover
    story_step "Failed over again, to the newest point." fail_over_to_newest
    story_step "Host a is back and learnt that b has taken '$DEMO_VM' over." bring_back
    story_step "The guard on a refuses 'virsh start $DEMO_VM'." try_guard
    story_step "Committed: there is no way back to a's old disks." commit_failover
    story_step "Reversed: replicating from b to a." reverse_direction
    story_step "Failed back to a." fail_back
    story_step "Planned failover to b." move_as_planned
    story_step "And back to a." move_back
}

make_full_result() {
    jq -s --slurpfile drills "$DEMO_WORK/drill.json" --argjson guard_refused "$(file_or guard-refused false)" '
        {moves: ., drill: $drills[0].result, guard_refused: $guard_refused} | .faults = [
            (.moves[] | select(.torn > 0 or .missing > 0) | "\(.move): \(.torn) blocks torn, \(.missing) missing"),
            (.moves[] | select(.lost > 0 and .move != "failover") | "\(.move): \(.lost) blocks lost"),
            (select(.drill.result != "passed") | "the drill did not pass"),
            (select(.guard_refused | not) | "the guard on a did not refuse to start the guest")
        ]' "$DEMO_WORK/moves"
}

full_result_table() {
    jq -r '.moves[] | "\(.move)                 "[0:17] + "\(.lost) blocks lost, \(.missing) missing, \(.torn) torn"' \
        "$DEMO_WORK/result.json"
}
