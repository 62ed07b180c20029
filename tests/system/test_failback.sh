#!/bin/bash
# The way back (TAP): a is lost, b takes the VM over, a returns, b replicates to it: what a's old disks
# have already does not travel, and what only they had stays as a recovery point.

export LAB_ID=${LAB_ID:-64}
. "$top_srcdir/tests/system/lib.sh" || exit 1

MIB=$((1024 * 1024))

# --- what is there ------------------------------------------------------------

# points HOST VM FILTER: of each recovery point.
points() {
    js "$1" points "$2" 2>/dev/null | jq -r ".items[] | $3"
}

# --- the parts ----------------------------------------------------------------

make_guest() {
    local path

    guest a web --disk-size 160MiB --span 8MiB --rate 200 --autostart --no-start
    for path in $(disks_of a web); do
        on a qemu-io -f qcow2 -c 'write -q -P 0x5a 64M 64M' "$path"
    done
    virsh_on a start web >&2
    lab wait-guest a web --timeout "$PATIENCE" >&2 || bail_out "guest web does not write"
}

# a goes on for a while without being heard, then it is lost.
lose_a() {
    lab cut a
    lab wait-guest a web --blocks 400 --timeout "$PATIENCE" >&2
    lab acked a web >"$WORK/acked-a"
    lab crash a
}

fail_over() {
    exits 0 "what was replicated from a is failed over to b" dr b failover web --wait
    lab wait-guest b web --blocks 200 --timeout "$PATIENCE" >&2 || bail_out "no guest on b"
}

a_returns() {
    lab heal a
    lab boot a >&2
    comes_true "a, which is back, knows that it was superseded" "$PATIENCE" \
        state_is a web superseded
}

same_view() {
    [[ $(info a web .isReversed) == true && $(info b web .isReversed) == true ]] &&
        [[ $(info a web .side) == target && $(info b web .side) == source ]]
}

test_reverse() {
    local sent compared

    exits 0 "b replicates it to a from now on" dr b reverse web --wait
    check "  ... and both sides say so" same_view
    comes_true "  ... and a has points of it" $((PATIENCE * 3)) state_is b web replicating
    sent=$(info b web '.resync.sentBytes // 0')
    compared=$(info b web '.resync.comparedBytes // 0')
    diag "sent $sent of $compared"
    check "  ... for which little was sent: $sent bytes of $compared" \
        test "$sent" -gt 0 -a "$sent" -lt $((24 * MIB)) -a "$compared" -ge $((128 * MIB))
}

unreplicated() {
    points a web 'select(.id | startswith("unreplicated-")) | .id'
}

test_unreplicated() {
    local point

    point=$(unreplicated)
    is "what a had not shipped is a recovery point there" "$(wc -w <<<"$point")" 1
    is "  ... which is pinned" "$(points a web "select(.id == \"$point\") | .isPinned")" true
}

system_up 2
make_guest
check "web is protected" protect web --rpo 2s || bail_out "nothing to fail over"
lose_a
fail_over
a_returns
test_reverse
test_unreplicated
tests_done
