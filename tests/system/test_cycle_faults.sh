#!/bin/bash
# A VM that is replicated while everything around it breaks (TAP). After each fault the last point is
# still there, replication recovers by itself, and nothing of ours is left behind on the source.

export LAB_ID=${LAB_ID:-40}
. "$top_srcdir/tests/system/lib.sh" || exit 1

KILLS=${KILLS:-$([[ -n ${LONG:-} ]] && echo 8 || echo 2)}
BOOT=$((PATIENCE * 3)) # seconds: an emulated guest on a busy machine takes its time

well() {
    js a info web | jq -e '.lastError == null and .state == "replicating"' >/dev/null
}

# recovers NAME: two points newer than FROM, the second of which was begun after the fault.
recovers() {
    local name=$1 from=$2

    comes_true "$name" "$PATIENCE" newest_above b web $((from + 1)) &&
        comes_true "  ... without an error" "$PATIENCE" well
}

point_stays() {
    check "  ... the last point stays good meanwhile" test "$(newest b web)" -ge "$1"
}

age_below() {
    local age

    age=$(info b web .rpoAge)
    [[ -n $age ]] && ((age >= 0 && age < $1))
}

captured_after() {
    local time

    time=$(info b web '.latestInstance.timestamp // 0')
    [[ -n $time ]] && ((time > $1))
}

guest_state() {
    [[ $(virsh_on a domstate web) == "$1" ]]
}

# --- daemons die -------------------------------------------------------------------

# A moment of a cycle of about RPO length: another one each time.
random_moment() {
    sleep "$(printf '%d.%03d' $((RANDOM % 2)) $((RANDOM % 1000)))"
}

test_kills() {
    local host=$1 i before

    for ((i = 1; i <= KILLS; i++)); do
        before=$(newest b web)
        random_moment
        lab kill "$host" virtdrd
        lab start "$host" virtdrd
        point_stays "$before"
        recovers "killed on $host at a random moment ($i), virtdrd goes on replicating" "$before"
    done
}

# Just when a capture is open on the source.
capture_is_open() {
    [[ -n $(ls -A "$(host_file a /var/lib/virt-dr/scratch)") ]]
}

# The same one for a second: long enough to be met.
capture_lasts() {
    local first

    first=$(ls -Ai "$(host_file a /var/lib/virt-dr/scratch)")
    [[ -n $first ]] && ! wait_for 1 false &&
        [[ $(ls -Ai "$(host_file a /var/lib/virt-dr/scratch)") == "$first" ]]
}

test_kill_in_capture() {
    local before pid

    before=$(newest b web)
    pid=$(daemon_pid a)
    lab link b --rate 2mbit
    comes_true "a capture is open, on a slow link" "$PATIENCE" capture_lasts
    kill -KILL "$pid"
    wait_for "$PATIENCE" not kill -0 "$pid"
    check "  ... its job outlives virtdrd" capture_is_open
    lab link b --clear
    lab start a virtdrd
    recovers "  ... is cleaned up, and replication goes on" "$before"
}

test_storage_daemon() {
    local before

    before=$(newest b web)
    lab kill b qsd
    recovers "the death of the storage daemon on b is repaired" "$before"
}

test_libvirtd() {
    local host=$1 before

    before=$(newest b web)
    random_moment
    lab kill "$host" libvirtd
    random_moment
    lab start "$host" libvirtd
    recovers "the death of libvirtd on $host is got over" "$before"
}

guest_runs() {
    guest_state running && lab acked a web >/dev/null
}

# In the middle of a job of ours, which is QEMU's and goes on.
test_libvirtd_in_capture() {
    local how=$1 before mark

    mark=$(log_mark a)
    before=$(newest b web)
    lab link b --rate 2mbit
    comes_true "a capture is open, on a slow link" "$PATIENCE" capture_lasts
    lab "$how" a libvirtd
    lab link b --clear
    lab start a libvirtd
    check "  ... libvirtd ends meanwhile ($how), and the guest does not" guest_runs
    point_stays "$before"
    recovers "  ... replication goes on" "$before"
    check "  ... by its bitmaps, not anew" not logged a resync "$mark"
}

# A checkpoint of somebody else; ours come and go beside it.
test_foreign_checkpoint() {
    local before mark

    mark=$(log_mark a)
    before=$(newest b web)
    wait_for "$PATIENCE" virsh_on a checkpoint-create-as web foreign
    check "somebody else has a checkpoint" virsh_on a checkpoint-info web foreign
    recovers "  ... replication goes on beside it" "$before"
    check "  ... leaves it there" virsh_on a checkpoint-info web foreign
    before=$(newest b web)
    comes_true "  ... until whoever made it deletes it" "$PATIENCE" virsh_on a checkpoint-delete web foreign
    recovers "  ... and then goes on too" "$before"
    check "  ... all of it by its bitmaps" not logged a resync "$mark"
}

# The status of the VM as libvirtd leaves it when it is killed after QEMU has begun a backup and
# before that is noted: there is a job, and nobody knows which.
lose_backup() {
    lab exec a sed -i -e "/<blockjobs active='yes'>/,/<\/blockjobs>/c\  <blockjobs active='no'/>" \
        -e '/<backups>/,/<\/backups>/d' /run/libvirt/qemu/web.xml
}

captured_by() {
    [[ $(info a web .capture.driver) == "$1" ]]
}

qemu_has_no_job() {
    [[ $(virsh_on a qemu-monitor-command web '{"execute":"query-jobs"}' |
        jq '[.return[] | select(.id | startswith("backup-"))] | length') == 0 ]]
}

test_lost_backup() {
    local before

    before=$(newest b web)
    lab link b --rate 2mbit
    comes_true "a capture is open, on a slow link, once more" "$PATIENCE" capture_lasts
    lab kill a libvirtd
    lose_backup
    lab link b --clear
    lab start a libvirtd
    check "  ... libvirt does not know its backup any more" \
        not virsh_on a domjobinfo web
    recovers "a backup that libvirt has lost is got over" "$before"
    check "  ... by QEMU's bitmaps" captured_by bitmap
    check "  ... with nothing left of it in QEMU" qemu_has_no_job
    virsh_on a destroy web
    lab stop a libvirtd
    lab start a libvirtd
    virsh_on a start web
    before=$(newest b web)
    check "  ... the VM comes back" lab wait-guest a web --timeout "$BOOT"
    recovers "  ... and is replicated" "$before"
    comes_true "  ... by checkpoints again" "$PATIENCE" captured_by checkpoint
}

# --- the link ------------------------------------------------------------------------

link_is_noticed() {
    js a info web | jq -e '.lastError != null' >/dev/null
}

# Long enough to be taken for broken: connections must not just hang on.
test_link() {
    local before

    before=$(newest b web)
    lab cut b
    comes_true "a link that is cut is noticed" "$PATIENCE" link_is_noticed
    point_stays "$before"
    check "  ... the peer is said to be away" jq -e 'any(.healthReasons[]; test("peer"))' \
        <(js b info web)
    lab heal b
    recovers "  ... and once it has healed, replication goes on" "$before"
}

# --- the guest -------------------------------------------------------------------------

test_paused_guest() {
    local before paused_ms

    virsh_on a suspend web
    paused_ms=$(date +%s%3N)
    comes_true "a guest that is paused gets points of the time since" "$PATIENCE" \
        captured_after "$paused_ms"
    comes_true "the points of a guest that is paused stay young" "$PATIENCE" age_below 3000
    before=$(newest b web)
    virsh_on a resume web
    recovers "resumed, it goes on being replicated" "$before"
}

test_reset_guest() {
    local before

    before=$(newest b web)
    virsh_on a reset web
    check "a guest that is reset comes back" lab wait-guest a web --timeout "$BOOT"
    recovers "  ... and goes on being replicated" "$before"
}

test_stopped_guest() {
    local before mark

    mark=$(log_mark a)
    before=$(newest b web)
    virsh_on a shutdown web
    comes_true "a guest shuts down during its cycles" "$PATIENCE" guest_state 'shut off'
    point_stays "$before"
    before=$(newest b web)
    virsh_on a start web
    check "  ... comes back" lab wait-guest a web --timeout "$BOOT"
    recovers "  ... and goes on being replicated" "$before"
    check "  ... by its bitmaps, not anew" not logged a resync "$mark"
}

test_killed_guest() {
    local before mark

    mark=$(log_mark a)
    before=$(newest b web)
    lab kill a qemu web
    comes_true "a guest's QEMU is killed" "$PATIENCE" guest_state 'shut off'
    point_stays "$before"
    virsh_on a start web
    check "  ... comes back" lab wait-guest a web --timeout "$BOOT"
    recovers "  ... is replicated, although its bitmaps are lost" "$before"
    logs "  ... by a resync" a resync "$mark"
}

# --- the end ---------------------------------------------------------------------------

at_rest() {
    ! capture_is_open && ! virsh_on a backup-dumpxml web 2>/dev/null
}

test_nothing_left() {
    local checkpoints before

    dr a pause web >&2
    comes_true "at rest no scratch file and no job is left on the source" 20 at_rest
    checkpoints=$(virsh_on a checkpoint-list web --name | grep .)
    check "  ... and two checkpoints at most" test "$(grep -c . <<<"$checkpoints")" -le 2
    check "  ... of ours" not grep -vq '^virt-dr-' <<<"$checkpoints"
    before=$(newest b web)
    dr a resume web >&2
    recovers "resumed, it is replicated again" "$before"
}

# found KEY: what the guest on b found on its disks, by its own account.
found() {
    lab console b web | grep '^found run=' | tail -n 1 | tr ' ' '\n' | sed -n "s/^$1=//p"
}

test_data() {
    local lost_ms

    lab crash a
    lab acked a web >"$WORK/acked"
    exits 0 "failover after all that" js b failover web --wait || return 0
    check "the guest goes on" lab wait-guest b web --timeout "$BOOT"
    is "  ... with nothing missing" "$(found missing)" 0
    is "  ... nothing torn" "$(found torn)" 0
    is "  ... and in order" "$(found order)" 0
    lost_ms=$((($(jq .time_ns "$WORK/acked") - $(found time)) / 1000000))
    check "  ... it lost about the RPO at most ($lost_ms ms)" test "$lost_ms" -le 5000
}

system_up
guest a web --rate 150
check "a VM is protected" protect web --rpo 2s || bail_out "nothing to break"
test_kills a
test_kill_in_capture
test_kills b
test_storage_daemon
test_libvirtd a
test_libvirtd b
test_libvirtd_in_capture stop
test_libvirtd_in_capture kill
test_foreign_checkpoint
test_lost_backup
test_link
test_paused_guest
test_reset_guest
test_stopped_guest
test_killed_guest
test_nothing_left
test_data
tests_done
