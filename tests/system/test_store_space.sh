#!/bin/bash
# The target's storage, a file system of its own, gets full (TAP): the oldest short-term points go first,
# then replication pauses, and both are over by themselves once there is room. No point is broken, also
# not when the last byte is taken; what is kept can be used and failed over to meanwhile. The same by a
# peer's quota.

export LAB_ID=${LAB_ID:-46}
. "$top_srcdir/tests/system/lib.sh" || exit 1

MIB=$((1024 * 1024))
STORAGE=/var/lib/virt-dr/small # as host b sees it
CAPACITY=512MiB
RESERVE_BYTES=$((96 * MIB))
SOME_BYTES=$((40 * MIB))     # of the reserve: a failover needs it
JOURNALS_BYTES=$((24 * MIB)) # several times what comes between two marks
QUOTA_SIGN='#quota'          # the line of b's configuration that is changed

# Marks so close that most journals are there for the short-term window alone.
system_work
export LAB_CONF_EXTRA=$WORK/conf
cat >"$LAB_CONF_EXTRA" <<END
[marks]
time = 3s
[scrub]
interval = 0
rate = 0
[storage small]
path = $STORAGE
reserve = $RESERVE_BYTES
[peer a]
$QUOTA_SIGN
END

# --- the file system ----------------------------------------------------------------------

# The lab's end takes mount and loop device away, because the file is the lab's.
make_storage() {
    local image=$LAB_STATE/b/small.img

    truncate -s "${CAPACITY%iB}" "$image"
    mkfs.ext4 -q -m 0 "$image" || return 1
    on b mkdir -p "$STORAGE"
    on b mount -o loop "$image" "$STORAGE"
}

free_bytes() {
    on b stat -f -c '%a * %S' "$STORAGE" | awk '{ print $1 * $3 }'
}

# Others write to it, until no more than so many bytes are free.
fill_up_to() {
    local more=$(($(free_bytes) - $1))

    FILLERS=$((FILLERS + 1))
    ((more <= 0)) || on b fallocate -l "$more" "$STORAGE/filler-$FILLERS"
}

# What the replica lets go is taken as well, until nothing more can come in.
fill_until_full() {
    fill_up_to "$SOME_BYTES"
    logged b storage-full "$MARK"
}

# The last byte too.
fill_all() {
    FILLERS=$((FILLERS + 1))
    on b dd if=/dev/zero of="$STORAGE/filler-$FILLERS" bs=64K status=none 2>/dev/null
    (($(free_bytes) < 64 * 1024))
}

make_room() {
    on b sh -c "rm -f $STORAGE/filler-*"
}

# --- points ------------------------------------------------------------------------------

points() {
    js b points vm | jq -c "[.items[].sequenceNumber] | sort | $1"
}

all_ok() {
    js b points vm | jq -e 'all(.items[]; .state == "ok")'
}

# usable SEQUENCE: it can be exported, and its disks are whole.
usable() {
    local target uri images=() status=0

    js b export vm --point "$1" --name try --wait >"$WORK/task" || return 1
    while read -r target uri; do
        images+=("$WORK/$target.raw")
        on b qemu-img convert -f raw -O raw "$uri" "${images[-1]}" || status=1
    done < <(jq -r '.result.disks[] | "\(.target) \(.uri)"' "$WORK/task")
    ((${#images[@]} == 2)) && lab check-disk --json "${images[@]}" || status=1
    dr b unexport try && return "$status"
}

# The window is cut further meanwhile: a point that goes at this very moment is followed by another.
oldest_usable() {
    local seq

    until seq=$(points '.[2]') && usable "$seq" 2>"$WORK/err"; do
        cat "$WORK/err"
        [[ $(points "index($seq) == null") == true ]] || return 1
    done
}

scrub_is_clean() {
    [[ $(js b scrub vm --wait | jq -c .result.damages) == '[]' ]]
}

window_is_cut() {
    (($(points first) > $1))
}

# --- what is said ---------------------------------------------------------------------------

journal_bytes() {
    info b vm .space.journalBytes
}

has_journals() {
    (($(journal_bytes) > $1))
}

source_is_refused() {
    [[ $(info a vm .lastError.code) == "$(code_string NO_SPACE)" ]]
}

failures_above() {
    (($(info a vm .statistics.failures) > $1))
}

source_is_well() {
    [[ $(info a vm .lastError.code) == null ]]
}

says() {
    info "$1" vm '.healthReasons[]' | grep -qE "$2"
}

# paused NAME PATTERN: b refuses what comes, says why, and has no point more however often a tries.
paused() {
    local newest

    logs "$1" b storage-full "$MARK"
    comes_true "  ... the source is told" "$PATIENCE" source_is_refused
    newest=$(newest b vm)
    comes_true "  ... and tries again" "$PATIENCE" failures_above "$(info a vm .statistics.failures)"
    is "  ... in vain" "$(newest b vm)" "$newest"
    check "  ... health says why" says b "$2"
    is "  ... and is bad" "$(info b vm .overallHealth)" red
    check "  ... the points that are left are ok" all_ok
}

# recovered: after that, without anybody's help.
recovered() {
    logs "  ... it recovers by itself" b storage-recovered "$MARK"
    advances "  ... replication goes on" vm "$PATIENCE"
    comes_true "  ... without an error" "$PATIENCE" source_is_well
    check "  ... nothing was sent anew" not logged a resync
}

# --- the tests ---------------------------------------------------------------------------------

test_short() {
    local first

    comes_true "journals come in" "$PATIENCE" has_journals $JOURNALS_BYTES
    first=$(points first)
    MARK=$(log_mark b)
    fill_up_to $((RESERVE_BYTES - JOURNALS_BYTES / 3))
    logs "less is free than shall be: the window is cut" b window-shortened "$MARK"
    comes_true "  ... from its old end" "$PATIENCE" window_is_cut "$first"
    comes_true "  ... replication goes on" "$PATIENCE" newest_above b vm "$(($(newest b vm) + 5))"
    check "  ... nothing was refused" not logged b storage-full "$MARK"
    check "  ... and as long as it is scarce, it is not called over" not logged b storage-recovered "$MARK"
    is "  ... no gap is among the points" "$(points '. == [range(min; max + 1)]')" true
    check "  ... they are all ok" all_ok
    check "  ... the oldest that is left is whole" oldest_usable
}

test_none() {
    comes_true "others write, and go on writing" "$((PATIENCE * 2))" fill_until_full
    paused "  ... replication pauses" "shall stay free"
    check "  ... a point can be used all the same" usable "$(points last)"
    MARK=$(log_mark b)
    make_room
    recovered
}

test_last_byte() {
    MARK=$(log_mark b)
    comes_true "the last byte is taken" "$PATIENCE" fill_all
    paused "  ... replication pauses" "shall stay free"
    MARK=$(log_mark b)
    make_room
    recovered
    check "  ... a scrub finds nothing" scrub_is_clean
    check "  ... the oldest point is whole" usable "$(points '.[1]')"
    check "  ... and the newest" usable "$(points last)"
}

# set_quota BYTES: 0 is none.
set_quota() {
    sed -i "s/^#\?quota.*/quota = $1/" "$(host_file b /etc/virt-dr/virtdrd.conf)"
    MARK=$(log_mark b)
    kill -HUP "$(daemon_pid b)"
    wait_for "$PATIENCE" logged b reloaded "$MARK"
}

test_quota() {
    local first

    comes_true "journals come in again" "$PATIENCE" has_journals $JOURNALS_BYTES
    first=$(points first)
    set_quota $(($(info b vm .space.usedBytes) - JOURNALS_BYTES / 3))
    logs "the peer takes more than its quota: the window is cut" b window-shortened "$MARK"
    comes_true "  ... from its old end" "$PATIENCE" window_is_cut "$first"
    set_quota $((8 * MIB))
    paused "a quota that the disks alone exceed pauses replication" "its quota is"
    fails_with NO_SPACE "  ... nor is another VM protected" a protect more --to b --storage small --wait
    message_has quota
    set_quota 0
    recovered
}

found() {
    lab console b vm | grep '^found run=' | tail -n 1 | tr ' ' '\n' | sed -n "s/^$1=//p"
}

test_failover() {
    MARK=$(log_mark b)
    comes_true "the storage gets full" "$((PATIENCE * 2))" fill_until_full
    lab crash a
    exits 0 "  ... the source is lost, and the VM is failed over all the same" dr b failover vm --wait
    check "  ... and goes on" lab wait-guest b vm --timeout "$((PATIENCE * 2))"
    is "  ... with nothing missing" "$(found missing)" 0
    is "  ... nothing torn" "$(found torn)" 0
    is "  ... and in order" "$(found order)" 0
}

need mkfs.ext4 losetup fallocate
FILLERS=0
system_up
make_storage >"$WORK/mount" 2>&1 || skip_all "no file system in a file: $(tail -n 1 "$WORK/mount")"
guest a vm --disk-size 32MiB --span 4MiB --rate 50
guest a more --disk-size 32MiB --rate 0 --no-start
check "a VM is protected in a small storage" protect vm --rpo 1s --storage small || bail_out "no replica"
test_short
test_none
test_last_byte
test_quota
test_failover
tests_done
