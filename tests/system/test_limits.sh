#!/bin/bash
# Bandwidth limits (TAP): what a host sends keeps to them, counted by the kernel, and while a first sync
# takes what it may, the cycles of another VM keep their RPO.

export LAB_ID=${LAB_ID:-53}
export LAB_CONF_EXTRA
LAB_CONF_EXTRA=$(mktemp /var/tmp/virt-dr-limits.XXXXXX)
. "$top_srcdir/tests/system/lib.sh" || exit 1

MIB=1048576
CONTENT_MIB=240 # random, so that it cannot be compressed
PEER_MIB=8      # per second
OWN_MIB=4

# The machine that runs this may be busy: that shall not lengthen the interval of those who keep an RPO.
cat >"$LAB_CONF_EXTRA" <<END
[peer b]
bandwidth = ${PEER_MIB}MiB/s
[latency]
min = 10s
END

sent_bytes() {
    on a cat /sys/class/net/eth0/statistics/tx_bytes
}

has_sent() {
    (($(sent_bytes) >= $1))
}

# keeps_to NAME RATE_MIB MIBS: the next so many MiB go at this rate, a fifth more or less.
keeps_to() {
    local begin_bytes begin_us took_us percent

    begin_bytes=$(sent_bytes)
    begin_us=${EPOCHREALTIME/./}
    wait_for 60 has_sent $((begin_bytes + $3 * MIB)) || not_ok "$1" "the transfer stands still"
    took_us=$((${EPOCHREALTIME/./} - begin_us))
    percent=$((($(sent_bytes) - begin_bytes) * 100 / MIB * 1000000 / took_us / $2))
    check "$1 ($percent % of it)" test "$percent" -ge 80 -a "$percent" -le 120
}

# The third disk is nothing to the guest; it makes the sync long.
make_bulk() {
    local image=/var/lib/libvirt/images/bulk.qcow2

    head -c $((CONTENT_MIB * MIB)) /dev/urandom >"$WORK/bulk"
    on a qemu-img convert -O qcow2 "$WORK/bulk" "$image" || bail_out "no third disk"
    rm "$WORK/bulk"
    guest a bulk --rate 10 --no-start
    virsh_on a attach-disk bulk "$image" vdc --config --subdriver qcow2 --targetbus virtio >&2 &&
        virsh_on a start bulk || bail_out "no guest"
    lab wait-guest a bulk --timeout "$PATIENCE" || bail_out "the guest does not write"
}

says() {
    js a info "$1" | jq -e --arg text "$2" 'any(.healthReasons[]; startswith($text))' >/dev/null
}


# No slice is under way; the scheduler starts none.
rests() {
    [[ $(info a "$1" .sourceState.state) == idle ]]
}

done_bytes() {
    info a bulk .sourceState.progress.bytesTransferred
}

violations() {
    log_since a "$1" | grep -E ' rpo-violated ' | grep -c "'web'"
}

limits_of_a_peer() {
    local mark

    mark=$(log_mark a)
    dr a protect bulk --to b --rpo 10s >&2 || bail_out "not protected"
    wait_for 60 has_sent $(($(sent_bytes) + 8 * MIB)) || bail_out "no first sync"
    keeps_to "a first sync keeps to the limit of its peer" "$PEER_MIB" 64
    advances "the other VM has new points meanwhile" web 10
    is "and its RPO is kept" "$(violations "$mark")" 0
}

limits_of_a_vm() {
    local before

    check "the VM gets a limit of its own" dr a bandwidth bulk --limit "else ${OWN_MIB}MiB/s"
    is "it is shown" "$(info a bulk .settings.bandwidth.limit)" "else ${OWN_MIB}MiB/s"
    is "with the peer's" "$(info a bulk .settings.bandwidth.peerLimit)" "${PEER_MIB}MiB/s"
    # A slice that is under way has the limit that it began with.
    wait_for 60 has_sent $(($(sent_bytes) + 11 * PEER_MIB * MIB)) || bail_out "no first sync"
    keeps_to "it keeps to that" "$OWN_MIB" 24
    check "it is left to cycles" dr a bandwidth bulk --limit cycles
    comes_true "so the sync waits, and that is said" "$PATIENCE" says bulk "the sync waits"
    comes_true "and its last slice ends" "$PATIENCE" rests bulk
    advances "the other VM has new points all the same" web 10
    advances "and more of them" web 10
    before=$(done_bytes)
    advances "and more" web 10
    is "while nothing of the sync is sent" "$(done_bytes)" "$before"
    check "it may be sent again" dr a bandwidth bulk --limit unlimited
    comes_true "and the sync comes to its end" 120 state_is a bulk replicating
}

writes_are_measured() {
    info a busy .statistics | jq -e '.writeMs > 0 and .writeMsInCycles > 0' >/dev/null
}

# A guest that writes often enough for a cycle to meet some of its writes.
latency_is_known() {
    guest a busy --rate 200
    check "a VM that writes much is protected" protect busy --rpo 3s
    comes_true "how long the guest's writes take is known, in cycles and between" "$PATIENCE" \
        writes_are_measured
    diag "$(js a info busy | jq -c .statistics)"
}

refusals() {
    fails_with USAGE "nonsense is refused" a bandwidth bulk --limit "at night"
    fails_with INVALID_STATE "the target is the wrong place" b bandwidth bulk --limit 5MiB/s
}

need jq
system_up
guest a web --rate 40 || bail_out "no guest"
check "a VM is protected with a limit" protect web --rpo 3s --bandwidth 100MiB/s
is "which it has" "$(info a web .settings.bandwidth.limit)" 100MiB/s
make_bulk
limits_of_a_peer
limits_of_a_vm
refusals
latency_is_known
rm -f "$LAB_CONF_EXTRA"
tests_done
