#!/bin/bash
# The direction is reversed by what both hosts have recorded (TAP): after a planned move, and where the VM was
# ended cleanly on its old host, nothing is compared, and little is sent. What is in doubt is compared.

export LAB_ID=${LAB_ID:-50}
. "$top_srcdir/tests/system/lib.sh" || exit 1

MIB=$((1024 * 1024))
FILLED=$((48 * MIB)) # bytes that a compare would read, at least
LITTLE=$((24 * MIB)) # that a guest writes in the seconds of a move, in clusters of 64 KiB
KEPT=0

# --- what there is ------------------------------------------------------------

make_guest() {
    guest a web --disk-size 512MiB --disks 1 --span 4MiB --rate 50 --no-start
    on a qemu-io -f qcow2 -c "write -q -P 0x5a 256M $((FILLED / MIB))M" "$(disks_of a web)"
    virsh_on a start web >&2
    lab wait-guest a web --timeout "$PATIENCE" >&2 || bail_out "guest web does not write"
}

# bitmap HOST: the name of the record in the image that the VM writes, if it is recording.
bitmap() {
    virsh_on "$1" qemu-monitor-command web '{"execute":"query-named-block-nodes"}' |
        jq -r '[.return[] | .["dirty-bitmaps"] // [] | .[] | select(.recording and .persistent) | .name] | .[]' |
        sort -u
}

one_record() {
    (($(bitmap "$1" | wc -l) == 1))
}

is_off() {
    [[ $(virsh_on "$1" domstate web) == "shut off" ]]
}

stop_cleanly() {
    virsh_on "$1" shutdown web >&2
    wait_for "$PATIENCE" is_off "$1"
}

# sync HOST: one more point, of the VM that stands still.
stand_still() {
    virsh_on "$1" suspend web >&2 && dr "$1" sync web --wait >&2
}

# exact NAME SOURCE TARGET: the newest point is what the VM has, byte by byte.
exact() {
    local uri

    KEPT=$((KEPT + 1))
    stand_still "$2" || { not_ok "$1" "no last point"; return; }
    js "$3" export web --name "kept-$KEPT" --wait | jq .result >"$WORK/export"
    uri=$(jq -r '.disks[0].uri' "$WORK/export")
    on "$2" qemu-img convert -U -O raw "$(disks_of "$2" web)" "$WORK/old"
    on "$3" qemu-img convert -f raw -O raw "$uri" "$WORK/new"
    check "$1" cmp "$WORK/old" "$WORK/new"
    rm -f "$WORK/old" "$WORK/new"
    dr "$3" unexport "kept-$KEPT" >&2
    virsh_on "$2" resume web >&2
}

# by_records NAME HOST REASON: how the sync was made, as info has it.
by_records() {
    comes_true "$1" "$PATIENCE" state_is "$2" web replicating
    is "  ... from what is recorded" "$(info "$2" web .resync.byRecords)" true
    check "  ... for a reason that is told" grep -q "$3" <(info "$2" web .resync.reason)
    is "  ... without a compare" "$(info "$2" web .resync.comparedBytes)" 0
    check "  ... and little is sent: $(info "$2" web .resync.sentBytes)" test \
        "$(info "$2" web .resync.sentBytes)" -le "$LITTLE"
}

# by_compare NAME HOST REASON
by_compare() {
    comes_true "$1" "$PATIENCE" state_is "$2" web replicating
    is "  ... from a compare" "$(info "$2" web .resync.byRecords)" false
    check "  ... for a reason that is told" grep -q "$3" <(info "$2" web .resync.reason)
    check "  ... of all that there is" test "$(info "$2" web .resync.comparedBytes)" -ge "$FILLED"
}

# --- the parts ----------------------------------------------------------------

# one_image HOST: the VM's disk stands on nothing any more.
one_image() {
    [[ $(backing_of "$1" "$(disks_of "$1" web)") == null ]]
}

# become_final NAME HOST: its images become one each, while it runs, and go on recording.
become_final() {
    exits 0 "$1" dr "$2" commit web --wait
    comes_true "  ... and its disk is one image" "$PATIENCE" one_image "$2"
}

test_planned() {
    local record

    exits 0 "a VM is moved" js b planned-failover web --no-reverse --wait || return 0
    record=$(bitmap b)
    lab wait-guest b web --timeout "$PATIENCE" >&2
    check "its new image records under one name: $record" grep -qx 'virt-dr-[0-9a-f-]*-2' <<<"$record"
    check "it is ended cleanly there" stop_cleanly b
    is "  ... and the record is sound" "$(on b qemu-img info --output json "$(disks_of b web)" |
        jq -r '."format-specific".data.bitmaps[0] | .name, (.flags | index("in-use"))' | tr '\n' ' ')" "$record null "
    virsh_on b start web >&2
    comes_true "  ... and its old host knows that it is not the source" "$PATIENCE" state_is a web superseded
    become_final "it is to stay there" b
    check "  ... with its record" grep -qx "$record" <(bitmap b)
    exits 0 "its direction is reversed" js b reverse web --wait
    is "  ... which tells how" "$(jq -r .result.byRecords "$WORK/out")" true
    by_records "it is replicated back" b "are the point that the VM forked from"
    exact "  ... byte by byte" b a
    is "  ... and the record is gone" "$(bitmap b | grep -cx "$record")" 0
}

test_failback() {
    exits 0 "it comes home" dr a failback web --wait || return 0
    become_final "it is to stay there" a
    is "  ... where it was" "$(disks_of a web)" /var/lib/libvirt/images/web-vda.qcow2
    exits 0 "  ... and is protected from there" dr a reverse web --wait
    by_records "it is replicated as before" a "are the point that the VM forked from"
    comes_true "  ... and its image keeps no record that nobody needs" "$PATIENCE" one_record a
    exact "  ... byte by byte" a b
}

# Where the guest never writes, so that nothing but a's own record knows of it.
write_apart() {
    virsh_on a qemu-monitor-command web --hmp 'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "write -P 0x33 400M 128k"' >&2
}

has_apart() {
    on a qemu-io -r -f qcow2 -c 'read -q -P 0x33 400M 128k' "$(disks_of a web)"
}

# a writes on without being heard, and is shut down.
test_clean_stop() {
    local before

    lab stop a virtdrd
    before=$(lab acked a web | jq .number)
    write_apart
    lab wait-guest a web --blocks $((before + 100)) --timeout "$PATIENCE" >&2
    check "a VM that is not replicated any more is ended cleanly" stop_cleanly a
    check "  ... what it wrote is only there" has_apart
    exits 0 "it is failed over" dr b failover web --wait || return 0
    lab wait-guest b web --blocks 20 --timeout "$PATIENCE" >&2
    lab start a virtdrd
    comes_true "the old host knows" "$PATIENCE" state_is a web superseded
    exits 0 "its direction is reversed" dr b reverse web --wait
    by_records "it is replicated back" b "ended cleanly"
    exact "  ... byte by byte" b a
}

# b's QEMU dies: nobody knows what it had recorded.
test_crash() {
    lab kill b qemu web
    comes_true "the VM's process dies" "$PATIENCE" is_off b
    exits 0 "after a crash it is failed over" dr a failover web --wait || return 0
    exits 0 "  ... and its direction reversed" dr a reverse web --wait
    by_compare "it is replicated back" a "compared"
    exact "  ... byte by byte" a b
}

# Not even its times tell.
change_image() {
    local image

    image=$(disks_of a web)
    on a touch -r "$image" "$WORK/times"
    on a qemu-io -f qcow2 -c 'write -q -P 0x77 450M 64k' "$image" && on a touch -r "$WORK/times" "$image"
}

test_changed() {
    exits 0 "it is moved again" dr b planned-failover web --no-reverse --wait || return 0
    check "somebody writes to its old image" change_image
    exits 0 "its direction is reversed" dr b reverse web --wait
    by_compare "it is replicated back" b "is not as the VM has left it"
    exact "  ... byte by byte" b a
}

system_up 2
make_guest
check "web is protected" protect web --rpo 2s || bail_out "nothing to move"
test_planned
test_failback
test_clean_stop
test_crash
test_changed
tests_done
