#!/bin/bash
# There and back (TAP), by the short ways: home as soon as a is back, reversed without a commit, to a
# chosen point. The VM has one image for each disk in the end, and nothing unused is left anywhere.

export LAB_ID=${LAB_ID:-61}
. "$top_srcdir/tests/system/lib.sh" || exit 1

runs() {
    [[ $(virsh_on "$1" domstate "$2" 2>/dev/null) == running ]]
}

# Each disk of it is an image alone.
is_flat() {
    local path

    for path in $(disks_of "$1" web); do
        [[ $(backing_of "$1" "$path") == null ]] || return 1
    done
}

on_own_disks() {
    [[ $(disks_of "$1" web | xargs) == "$(<"$WORK/disks-$1")" ]] && is_flat "$1"
}

# What is in the replicas' folders of a host.
files_on() {
    on "$1" find /var/lib/virt-dr/storage -type f | sort
}

lose_a() {
    lab acked a web >"$WORK/acked"
    advances "points come in" web "$PATIENCE"
    lab crash a
    exits 0 "a is lost, the VM is failed over" dr b failover web --wait
    lab wait-guest b web --blocks 100 --timeout "$PATIENCE" >&2 || bail_out "no guest on b"
}

# The shortest way: it is superseded still, and not replicated back.
test_home_at_once() {
    lab boot a >&2
    comes_true "a is back, and superseded" "$PATIENCE" state_is a web superseded
    lab acked b web >"$WORK/acked"
    exits 0 "the VM is brought home at once" dr a failback web --wait || return 0
    check "  ... and runs there" runs a web
    lab wait-guest a web --blocks 50 --timeout "$PATIENCE" >&2
    holds_all "  ... with all that it had on b" a web "$WORK/acked"
}

# No commit before.
test_reversed() {
    exits 0 "it is replicated from there, without a commit" dr a reverse web --wait || return 0
    comes_true "  ... and b has points of it" "$PATIENCE" state_is a web replicating
    comes_true "  ... it goes on on its own disks, one image each" $((PATIENCE * 2)) on_own_disks a
    advances "  ... points come in after that" web "$PATIENCE"
    lab acked a web >"$WORK/acked"
    holds_all "  ... nothing is lost" a web "$WORK/acked"
    is "  ... nothing is left on a of its time as a replica" "$(files_on a)" ""
    comes_true "  ... and on b what its images stand on, and says so" "$PATIENCE" has_event b old-images-removed
}

# replica_advances: a has one more point of what runs on b.
replica_advances() {
    local before

    before=$(newest a web)
    comes_true "$1" "$PATIENCE" newest_above a web "${before:-0}"
}

test_moved() {
    lab acked a web >"$WORK/acked"
    exits 0 "it is moved to b" dr b planned-failover web --wait || return 0
    comes_true "  ... and replicated back by itself" "$PATIENCE" state_is b web replicating
    lab wait-guest b web --blocks 50 --timeout "$PATIENCE" >&2
    comes_true "  ... its disks become one image each" $((PATIENCE * 2)) is_flat b
    replica_advances "  ... and points come in after that"
    holds_all "  ... nothing is lost" b web "$WORK/acked"
}

# What b's guest had acknowledged at the point, and what it had long after it.
test_point() {
    local point acked dropped

    replica_advances "a point is there"
    acked=$(lab acked b web | jq .number)
    replica_advances "  ... and one that has what was acknowledged then"
    replica_advances "  ... wholly"
    point=$(js a points web | jq -r '.items | sort_by(.timestamp) | .[-1].id')
    lab wait-guest b web --blocks 100 --timeout "$PATIENCE" >&2
    lab acked b web >"$WORK/acked"
    run_status js a failback web --point "$point" --wait
    is "it is brought home to that point" "$STATUS" 0
    dropped=$(jq .result.droppedSeconds "$WORK/out")
    check "  ... and is told what that drops: $dropped s" jq -ne "$dropped > 0.2 and $dropped < 60"
    lab wait-guest a web --timeout "$PATIENCE" >&2
    virsh_on a suspend web
    check "  ... it has what was acknowledged before the point" consistent a web --acked "$acked"
    virsh_on a resume web
}

test_point_undone() {
    exits 0 "that is undone" dr a undo-failback web --wait || return 0
    comes_true "  ... and the VM runs on b" "$PATIENCE" runs b web
    lab wait-guest b web --blocks 50 --timeout "$PATIENCE" >&2
    holds_all "  ... with all that it had there" b web "$WORK/acked"
    comes_true "  ... and is replicated" "$PATIENCE" state_is b web replicating
}

system_up 2
guest a web --disk-size 96MiB --span 8MiB --rate 150
disks_of a web | xargs >"$WORK/disks-a"
check "web is protected" protect web --rpo 2s || bail_out "nothing to fail over"
lose_a
test_home_at_once
test_reversed
test_moved
test_point
test_point_undone
tests_done
