#!/bin/bash
# The first sync on a bad link, and captures that others disturb (TAP): what was sent is not sent
# again, somebody else's job is left alone, a guest never notices that scratch space ran out.

export LAB_ID=${LAB_ID:-42}
. "$top_srcdir/tests/system/lib.sh" || exit 1

MIB=1048576
CONTENT_MIB=384 # random, so that it cannot be compressed: six slices
SCRATCH_MIB=192

# What the host has sent so far, MiB: counted by the kernel, not by those who are tested.
sent_mib() {
    echo $(($(on "$1" cat /sys/class/net/eth0/statistics/tx_bytes) / MIB))
}

has_sent() {
    (($(sent_mib "$1") >= $2))
}

# The third disk is nothing to the guest; it makes the sync long.
make_guest() {
    local image=/var/lib/libvirt/images/bulk.qcow2

    head -c $((CONTENT_MIB * MIB)) /dev/urandom >"$WORK/bulk"
    on a qemu-img convert -O qcow2 "$WORK/bulk" "$image" || bail_out "no third disk"
    rm "$WORK/bulk"
    guest a web --rate 150 --no-start
    virsh_on a attach-disk web "$image" vdc --config --subdriver qcow2 --targetbus virtio >&2 &&
        virsh_on a start web || bail_out "no guest"
    lab wait-guest a web --timeout "$PATIENCE" || bail_out "the guest does not write"
}

error_code_is() {
    [[ $(info "$1" "$2" '.lastError.code // ""') == "$3" ]]
}

well() {
    js "$1" info "$2" | jq -e '.lastError == null and .state == "replicating"' >/dev/null
}

# recovers NAME: without an error, and with a point that was captured after now.
recovers() {
    local before

    before=$(newest b web)
    comes_true "$1" "$PATIENCE" newest_above b web $((before + 1)) &&
        comes_true "  ... without an error" "$PATIENCE" well a web
}

no_guest_error() {
    ! lab console a web | grep -E '^error' && [[ $(virsh_on a domstate web) == running ]]
}

# --- the first sync ------------------------------------------------------------

test_sync_is_cut() {
    local base mark limit

    base=$(sent_mib a)
    mark=$(log_mark a)
    lab link b --rate 300mbit
    dr a protect web --to b --rpo 2s >&2 || bail_out "not protected"
    comes_true "the first sync sends one slice and more" "$PATIENCE" has_sent a $((base + 80))
    lab kill a virtdrd
    lab start a virtdrd
    comes_true "  ... goes on after virtdrd was killed on the source" "$PATIENCE" has_sent a $((base + 180))
    lab kill b virtdrd
    lab start b virtdrd
    comes_true "  ... goes on after virtdrd was killed on the target" "$PATIENCE" has_sent a $((base + 330))
    lab cut b
    comes_true "  ... fails when the link is cut" "$PATIENCE" error_code_is a web Timeout ||
        info a web .lastError | diag
    check "  ... the replica has no point yet" test "$(newest b web)" = 0
    fails_with INVALID_STATE "  ... and cannot be failed over to" b failover web --wait
    lab heal b
    comes_true "after the link has healed it becomes complete by itself" "$PATIENCE" state_is a web replicating
    lab link b --clear
    # Each fault costs a slice of 64 MiB at most; beginning again, even once at the last, costs more.
    limit=$((CONTENT_MIB + 3 * 64 + 16))
    check "  ... having sent no more than a slice again for each fault ($(($(sent_mib a) - base)) MiB)" \
        test "$(($(sent_mib a) - base))" -le "$limit"
    check "  ... without a resync" not logged a resync "$mark"
    check "  ... counting each byte once" jq -en --argjson bytes "$(info a web .statistics.firstSyncBytes)" \
        "\$bytes <= ($CONTENT_MIB + 130) * $MIB and \$bytes > 64 * $MIB"
    recovers "  ... and is replicated from then on"
}

# --- somebody else's job ---------------------------------------------------------

begin_foreign_job() {
    cat >"$WORK/job.xml" <<'END'
<domainbackup mode='pull'>
  <server transport='unix' socket='/var/lib/libvirt/images/foreign.sock'/>
  <disks>
    <disk name='vda' backup='yes' type='file'><scratch file='/var/lib/libvirt/images/foreign'/></disk>
    <disk name='vdb' backup='no'/><disk name='vdc' backup='no'/>
  </disks>
</domainbackup>
END
    virsh_on a backup-begin web "$WORK/job.xml"
}

foreign_job_runs() {
    virsh_on a backup-dumpxml web | grep -q foreign.sock
}

test_foreign_job() {
    wait_for 30 begin_foreign_job
    check "a backup of somebody else runs" foreign_job_runs
    comes_true "it is shown as the reason why nothing is replicated" "$PATIENCE" error_code_is a web JobInProgress
    lab kill a virtdrd
    lab start a virtdrd
    comes_true "  ... also after a restart" "$PATIENCE" error_code_is a web JobInProgress
    check "  ... and is left alone" foreign_job_runs
    check "the last point stays" test "$(newest b web)" -gt 0
    virsh_on a domjobabort web
    recovers "when it has ended, replication goes on"
}

# --- scratch space ------------------------------------------------------------------

test_scratch_limit() {
    local mark

    mark=$(log_mark a)
    lab link b --rate 1mbit
    comes_true "when the scratch limit is reached, the capture is given up" "$((PATIENCE * 3))" \
        error_code_is a web ScratchLimit
    logs "  ... which is an event" a cycle-failed "$mark"
    check "  ... and the guest does not notice" no_guest_error
    check "  ... it goes on writing" lab wait-guest a web --blocks 20 --timeout "$PATIENCE"
    lab link b --clear
    recovers "with a link that is good again, replication goes on"
    check "  ... without a resync" not logged a resync "$mark"
    check "the guest has seen no error" no_guest_error
}

# Its scratch folder is on a small file system of its own.
make_scratch_small() {
    lab stop a virtdrd &&
        on a mount -t tmpfs -o size=${SCRATCH_MIB}m tmpfs /var/lib/virt-dr/scratch && lab start a virtdrd
}

# Somebody else takes all of it at once.
fill_scratch() {
    on a dd if=/dev/zero of=/var/lib/virt-dr/scratch/full bs=1M status=none 2>"$WORK/dd"
    grep -q 'No space' "$WORK/dd"
}

capture_is_open() {
    [[ -n $(on a find /var/lib/virt-dr/scratch -type f ! -name full) ]]
}

test_scratch_full() {
    local mark

    mark=$(log_mark a)
    check "the scratch folder is on a small file system" make_scratch_small
    recovers "  ... where captures find room"
    lab link b --rate 1mbit
    comes_true "a capture is under way" "$PATIENCE" capture_is_open
    check "  ... when not a byte is left in the scratch folder" fill_scratch
    comes_true "  ... it is given up" "$PATIENCE" error_code_is a web ScratchLimit
    check "  ... the guest goes on writing" lab wait-guest a web --blocks 300 --timeout "$PATIENCE"
    check "  ... and has not noticed" no_guest_error
    lab link b --clear
    check "no capture is begun as long as that lasts" not capture_is_open
    check "  ... and the reason is told" error_code_is a web ScratchLimit
    on a rm /var/lib/virt-dr/scratch/full
    recovers "with room again, replication goes on"
    check "  ... without a resync" not logged a resync "$mark"
    check "the guest has seen no error" no_guest_error
    lab stop a virtdrd && on a umount /var/lib/virt-dr/scratch && lab start a virtdrd ||
        not_ok "the scratch folder is where it was"
}

at_rest() {
    [[ -z $(ls -A "$(host_file a /var/lib/virt-dr/scratch)") ]] &&
        ! virsh_on a backup-dumpxml web 2>/dev/null
}

test_nothing_left() {
    dr a pause web >&2
    comes_true "at rest no scratch file and no job is left on the source" 20 at_rest
    check "  ... and two checkpoints at most" test "$(virsh_on a checkpoint-list web --name | grep -c .)" -le 2
    dr a resume web >&2
    recovers "resumed, it is replicated again"
}

test_data() {
    lab crash a
    lab acked a web >"$WORK/acked"
    exits 0 "failover" js b failover web --wait
    check "the guest goes on" lab wait-guest b web --timeout "$((PATIENCE * 3))"
    is "  ... with nothing missing, torn or out of order" "$(lab console b web |
        grep '^found run=' | tail -n 1 | grep -oE '(missing|torn|order)=[0-9]+' | tr '\n' ' ')" \
        "missing=0 torn=0 order=0 "
}

export LAB_CONF_EXTRA=${TMPDIR:-/tmp}/virt-dr-test-$LAB_ID.conf
printf '[sync]\nslice = 64MiB\n' >"$LAB_CONF_EXTRA"
system_up
rm -f "$LAB_CONF_EXTRA"
sed -i 's/^limit = .*/limit = 64MiB/' "$(host_file a /etc/virt-dr/virtdrd.conf)"
lab stop a virtdrd && lab start a virtdrd || bail_out "a's virtdrd does not start again"
make_guest
test_sync_is_cut
test_foreign_job
test_scratch_limit
test_scratch_full
test_nothing_left
test_data
tests_done
