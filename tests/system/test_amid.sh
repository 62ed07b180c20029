#!/bin/bash
# A VM that changes in the middle of a capture (TAP): disks that come and go, grow, get a snapshot, are
# committed or copied while libvirt's or QEMU's job of a cycle is open. What is refused then can be done
# when the cycle is over; whatever happens to the cycle, replication goes on by itself, and is exact.
# One guest is captured by checkpoints, the other by bitmaps.

export LAB_ID=${LAB_ID:-47}
. "$top_srcdir/tests/system/lib.sh" || exit 1
. "$top_srcdir/tests/system/changing.sh"

# By libvirt's job, or QEMU's own.
capture_is_open() {
    virsh_on a domjobinfo "$1" | grep -q Backup ||
        virsh_on a qemu-monitor-command "$1" '{"execute":"query-block-jobs"}' | grep -q '"virtdr-'
}

# The link is slow, so that a capture is open for long: its disks are read as they are sent.
with_open_capture() {
    lab link b --rate 512kbit >&2
    comes_true "a capture of $1 is open" "$PATIENCE" capture_is_open "$1"
}

# amid VM WHAT COMMAND...: tried once while a capture is open; what is refused is done behind it.
amid() {
    local vm=$1 what=$2

    shift 2
    with_open_capture "$vm" || return 0
    if "$@" >"$WORK/amid.out" 2>&1; then
        lab link b --clear >&2
        ok "  ... in which $what"
    else
        lab link b --clear >&2
        diag "refused: $(cat "$WORK/amid.out")"
        comes_true "  ... behind which $what" "$PATIENCE" "$@"
    fi
}

# QEMU refuses it amid a capture. Behind it replication is paused, as OPERATIONS.md says: libvirtd 9.0
# crashes when a disk is resized at the moment at which a backup begins.
grow() {
    with_open_capture "$1" || return 0
    check "  ... in which a disk cannot grow" not virsh_on a blockresize "$1" vdx 12M
    lab link b --clear >&2
    dr a pause "$1" >&2
    comes_true "  ... behind which it can" "$PATIENCE" virsh_on a blockresize "$1" vdx 12M
    dr a resume "$1" >&2
}

detached() {
    ! has_disk "$1" "$2" || { virsh_on a detach-disk "$1" "$2" --live --config; return 1; }
}

test_disk() {
    local vm=$1 before image=$IMAGES/$1-amid.qcow2

    before=$(resyncs_of "$vm")
    on a qemu-img create -q -f qcow2 "$image" 8M
    amid "$vm" "a disk is added" \
        virsh_on a attach-disk "$vm" "$image" vdx --subdriver qcow2 --targetbus virtio --live --config
    goes_on "$vm" "with that disk" "$before"
    grow "$vm"
    goes_on "$vm" "grown" "$before"
    # QEMU has the disk in use as long as it is captured: it goes when that has ended.
    amid "$vm" "it is taken out" detached "$vm" vdx
    goes_on "$vm" "without it" "$before"
}

# A bitmap that comes to a disk at the very moment of its snapshot may be missed: then it is compared.
test_snapshot() {
    local vm=$1 options=(amid --disk-only --no-metadata)

    [[ $vm != db ]] || options+=(--diskspec "vdc,snapshot=no")
    amid "$vm" "an external snapshot is made" virsh_on a snapshot-create-as "$vm" "${options[@]}"
    goes_on "$vm" "on the snapshot" 0 any
    amid "$vm" "it is committed" virsh_on a blockcommit "$vm" vda --active --pivot --wait
    amid "$vm" "the other disk's, too" virsh_on a blockcommit "$vm" vdb --active --pivot --wait
    goes_on "$vm" "committed" 0 any
    comes_true "  ... and no bitmap of ours is left over" "$PATIENCE" one_bitmap_per_disk "$vm"
}

test_copy() {
    local vm=$1

    amid "$vm" "vda is copied, and used from there" \
        virsh_on a blockcopy "$vm" vda "$IMAGES/$vm-moved.qcow2" --format qcow2 --transient-job --wait --pivot
    goes_on "$vm" "from the copy" 0 any
}

need nbdcopy
system_up
make_guests
for vm in web db; do
    test_disk $vm
    test_snapshot $vm
    test_copy $vm
done
tests_done
