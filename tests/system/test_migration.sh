#!/bin/bash
# A protected VM is moved to another host, live, and back (TAP): its replication follows it into the same
# replica, by the bitmaps that came along; whoever may not send is refused; what is needed is said; and
# nothing is lost whichever virtdrd dies in between.

export LAB_ID=${LAB_ID:-59}
. "$top_srcdir/tests/system/lib.sh" || exit 1

IMAGES=/var/lib/libvirt/images

# --- moving ----------------------------------------------------------------------

# prepare_images HOST: of the same size, empty, as virsh's --copy-storage-all wants them.
prepare_images() {
    local disk

    for disk in vda vdb; do
        on "$1" qemu-img create -q -f qcow2 "$IMAGES/g1-$disk.qcow2" 24M || bail_out "no image on $1"
    done
}

# migrate FROM TO [OPTION...]
migrate() {
    virsh_on "$1" migrate --live --persistent --copy-storage-all "${@:3}" g1 "qemu+tcp://$2/system"
}

# The guest's last word, on the console of the host that it is on.
acked_on() {
    lab console "$1" g1 | tr -d '\0' | sed -n 's/^ack \([0-9]*\) [0-9]*\r*$/\1/p' | tail -n 1
}

writes_on() {
    local before=$1

    [[ $(acked_on "$2") -gt ${before:-0} ]]
}

has_reason() {
    js "$1" info g1 | jq -e --arg re "$2" 'any(.healthReasons[]; test($re))' >/dev/null
}

has_error() {
    info "$1" g1 '.lastError.message // ""' | grep -qE "$2"
}

is_source() {
    [[ $(info "$1" g1 '.side + " " + (.epoch | tostring)') == "source $2" ]]
}

peer_of() {
    info "$1" g1 .peer.name
}

# --- what is on b --------------------------------------------------------------------

# export_holds NAME POINT [OPTION...]: that point's disks, read by NBD, are consistent.
export_holds() {
    local name=$1 point=$2 disk images=()

    shift 2
    dr b export g1 --point "$point" --name "$name" --wait || return 1
    for disk in vda vdb; do
        on b nbdcopy "$(js b export-list | jq -r --arg name "$name" --arg disk "$disk" \
            '.items[] | select(.name == $name) | .disks[] | select(.target == $disk) | .uri')" \
            "$WORK/$name-$disk.raw" || return 1
        images+=("$WORK/$name-$disk.raw")
    done
    lab check-disk --json "$@" "${images[@]}" >"$WORK/check" || {
        cat "$WORK/check"
        return 1
    }
}

same_as_replica() {
    dr "$1" verify g1 --wait && [[ $(info "$1" g1 .lastVerify.outcome) == same ]]
}

# --- the tests --------------------------------------------------------------------------

# c is not paired with b yet: said on a and on b, and it goes on by itself once it is.
test_to_a_stranger() {
    local mark

    OLD_ACKED=$(acked_on a)
    dr a sync g1 --wait
    OLD_POINT=$(newest b g1)
    mark=$(log_mark a)
    advances "points come before the VM is moved" g1 "$PATIENCE"
    prepare_images c
    check "the VM is moved to c while it is replicated" migrate a c || bail_out "it cannot be moved"
    check "  ... cycles have waited for that" grep -q 'migration under way' <(log_since a "$mark")
    comes_true "  ... its guest writes on" "$PATIENCE" writes_on "$(acked_on a)" c
    comes_true "a says that c and b are to be paired" "$PATIENCE" has_error a \
        "runs on host 'c' now, which is not paired with 'b'.*peer-invite"
    comes_true "  ... and b says that a says so" "$PATIENCE" has_reason b "the source says: .*'c'.*not paired"
    is "  ... b takes from a yet" "$(peer_of b)" a
    MARK_C=$(log_mark c)
    pair b c || bail_out "b and c cannot be paired"
    comes_true "once they are, c is the source" "$PATIENCE" is_source c 2
    advances "  ... and its points get durable on b" g1 "$PATIENCE"
    is "  ... which takes from c" "$(peer_of b)" c
    check "  ... by the bitmaps that came along, not by a resync" not logged c resync "$MARK_C"
    check "  ... the replica is what the VM has" same_as_replica c
    check "  ... and a point of before is readable, and whole" export_holds old "$OLD_POINT" --acked "$OLD_ACKED"
    is "  ... with all that was acknowledged then" "$(jq .lost_blocks "$WORK/check")" 0
    dr b unexport old
}

test_former_host() {
    is "a knows that the VM was moved" "$(info a g1 .state)" moved
    run_status virsh_on a start g1
    is "  ... and does not start its old copy" "$((STATUS != 0))" 1
    message_has "must not run on this host" "moved to host 'c'" "virt-dr unprotect g1"
    fails_with INVALID_STATE "  ... or replicate it" a sync g1
}

test_to_the_target() {
    run_status migrate c b
    is "a migration to the host of the replica is refused" "$((STATUS != 0))" 1
    message_has "'g1'" "the VM of host 'c'" "what is here is its replica"
    is "  ... the VM runs on" "$(virsh_on c domstate g1)" running
    advances "  ... and is replicated" g1 "$PATIENCE"
}

test_way_back() {
    local mark

    mark=$(log_mark a)
    check "the VM is moved back" migrate c a --undefinesource
    comes_true "  ... a is the source again" "$PATIENCE" is_source a 3
    advances "  ... and its points get durable on b" g1 "$PATIENCE"
    check "  ... by bitmaps" not logged a resync "$mark"
    comes_true "  ... nothing of it stays on c, where it is not defined any more" "$PATIENCE" \
        not dr c info g1
    check "  ... the replica is what the VM has" same_as_replica a
}

# all_die_at FROM EVENT: kills each virtdrd as soon as that event is in the log of host FROM.
all_die_at() {
    local pids=() host

    for host in a b c; do
        pids+=("$(daemon_pid "$host")")
    done
    timeout "$PATIENCE" tail -n 0 -F "$(daemon_log_file "$1")" | grep -qm 1 "$2"
    kill -KILL "${pids[@]}"
    for host in "${pids[@]}"; do
        wait_for "$PATIENCE" not kill -0 "$host"
    done
}

# killed_at EPOCH FROM TO EVENT: whatever the three have done by then, it comes to its end.
killed_at() {
    local epoch=$1 from=$2 to=$3 event=$4 mark killer host

    mark=$(log_mark "$to")
    all_die_at "$from" "$event" &
    killer=$!
    check "the VM is moved from $from to $to" migrate "$from" "$to" || bail_out "it cannot be moved"
    wait "$killer"
    for host in b "$to" "$from"; do
        lab start "$host" virtdrd
    done
    comes_true "after the death of all three virtdrd at '$event' $to becomes the source" "$PATIENCE" is_source "$to" "$epoch"
    advances "  ... and its points get durable on b" g1 "$PATIENCE"
    comes_true "  ... $from knows that it is not any more" "$PATIENCE" state_is "$from" g1 moved
    check "  ... it went by bitmaps" not logged "$to" resync "$mark"
}

test_killed() {
    killed_at 4 a c 'task-started.*hand-over'
    killed_at 5 c a ' moved '
    check "the replica is what the VM has" same_as_replica a
}

test_without_virtdrd() {
    lab stop c virtdrd
    check "the VM is moved to a host on which virtdrd does not run" migrate a c
    comes_true "a says what is needed" "$PATIENCE" has_error a \
        "has left this host, and no paired host says that it runs there.*no answer from: .*'c'.*start virtdrd"
    comes_true "  ... and b says that a says so" "$PATIENCE" has_reason b "the source says: .*start virtdrd"
    fails_with SOURCE_ALIVE "  ... a failover is refused: the VM runs somewhere" b failover g1 --wait
    lab start c virtdrd
    comes_true "once virtdrd runs there, c is the source" "$PATIENCE" is_source c 6
    advances "  ... and its points get durable on b" g1 "$PATIENCE"
}

test_failover() {
    local acked

    virsh_on c suspend g1
    acked=$(acked_on c)
    check "the last point is made" dr c sync g1 --wait
    lab crash c
    exits 0 "the VM is failed over" dr b failover g1 --wait
    holds_all "  ... with all that was acknowledged, on whichever host" b g1 "$acked"
    check "  ... and a, where it was, does not start it" not virsh_on a start g1
}

system_up 3
dr b peer-remove c && dr c peer-remove b || bail_out "b and c stay paired"
guest a g1 --rate 50 --disk-size 24MiB
check "the VM is protected" protect g1 --rpo 2s || bail_out "nothing to move"
test_to_a_stranger
test_former_host
test_to_the_target
test_way_back
test_killed
test_without_virtdrd
test_failover
tests_done
