#!/bin/bash
# A VM that changes while it is protected (TAP): snapshots, copies and commits of its disks, disks that
# come, go and grow, other names and paths, images that are replaced. After each the replica is the
# disks, byte by byte, with or without a resync as it has to be, and points from before stay readable.
# One guest is captured by checkpoints, the other by bitmaps.

export LAB_ID=${LAB_ID:-58}
. "$top_srcdir/tests/system/lib.sh" || exit 1
. "$top_srcdir/tests/system/changing.sh"

# --- snapshots and copies ----------------------------------------------------------------

# Of a raw disk none is made here: its bitmap ends with it, so that it would be compared.
test_snapshot() {
    local vm=$1 before disk options=(one --disk-only --no-metadata) resyncs=0

    before=$(resyncs_of "$vm")
    # libvirt may miss a bitmap that comes to the disk at this very moment: then it is compared.
    [[ $vm != db ]] || options+=(--diskspec "vdc,snapshot=no") resyncs=any
    comes_true "an external snapshot of $vm is made" "$PATIENCE" \
        virsh_on a snapshot-create-as "$vm" "${options[@]}"
    goes_on "$vm" "on the snapshot" "$before" $resyncs
    for disk in vda vdb; do
        comes_true "  ... and $disk committed" "$PATIENCE" \
            virsh_on a blockcommit "$vm" "$disk" --active --pivot --wait
    done
    goes_on "$vm" "committed" "$before" $resyncs
    comes_true "  ... and no bitmap of ours is left over" "$PATIENCE" one_bitmap_per_disk "$vm"
}

test_copy() {
    local vm=$1 before

    before=$(resyncs_of "$vm")
    comes_true "vda of $vm is copied to another image, and used from there" "$PATIENCE" \
        virsh_on a blockcopy "$vm" vda "$IMAGES/$vm-moved.qcow2" --format qcow2 --transient-job --wait --pivot
    goes_on "$vm" "from the copy" "$before"
}

# --- disks ------------------------------------------------------------------------------------

test_new_disk() {
    local vm=$1 before image=$IMAGES/$1-new.qcow2

    before=$(resyncs_of "$vm")
    on a qemu-img create -q -f qcow2 "$image" 8M
    on a qemu-io -c 'write -P 17 1M 1M' "$image" >&2
    check "$vm gets a disk" \
        virsh_on a attach-disk "$vm" "$image" vdx --subdriver qcow2 --targetbus virtio --live --config
    goes_on "$vm" "with one more disk" "$before"
    WITH_NEW=$(newest b "$vm")
    # libvirtd 9.0 crashes when a disk is resized at the moment at which a backup begins.
    dr a pause "$vm" >&2
    check "$vm grows a disk" virsh_on a blockresize "$vm" vdx 12M
    dr a resume "$vm" >&2
    goes_on "$vm" "grown" "$before"
    check "$vm loses that disk" virsh_on a detach-disk "$vm" vdx --live --config
    comes_true "  ... as the guest has let go of it" "$PATIENCE" not has_disk "$vm" vdx
    goes_on "$vm" "with a disk less" "$before"
    js b export "$vm" --point "$WITH_NEW" --name "with-new" --wait | jq .result >"$WORK/export"
    is "  ... and a point from before still has it" "$(jq '[.disks[] | select(.target == "vdx")] | length' "$WORK/export")" 1
    check "  ... with its content" has_content "$(uri_of vdx)"
    dr b unexport with-new >&2
}

has_content() {
    on b nbdcopy "$1" "$WORK/new" && [[ $(od -An -tu1 -j 1048576 -N 2 "$WORK/new" | tr -d ' \n') == 1717 ]]
}

# --- others at work ----------------------------------------------------------------------------

others_checkpoint() {
    virsh_on a checkpoint-list web --name | grep -q '^theirs$'
}

# A pull backup of somebody else, of one disk.
begin_backup() {
    cat >"$WORK/backup.xml" <<END
<domainbackup mode='pull'><server transport='unix' socket='$WORK/theirs.sock'/><disks>
<disk name='vda' backup='yes' type='file'><scratch file='$WORK/theirs.scratch'/></disk>
<disk name='vdb' backup='no'/></disks></domainbackup>
END
    virsh_on a backup-begin web "$WORK/backup.xml"
}

test_others() {
    local before

    before=$(resyncs_of web)
    cat >"$WORK/theirs.xml" <<END
<domaincheckpoint><name>theirs</name><disks><disk name='vda' checkpoint='bitmap'/>
<disk name='vdb' checkpoint='no'/></disks></domaincheckpoint>
END
    comes_true "somebody else makes a checkpoint of web" "$PATIENCE" \
        virsh_on a checkpoint-create web "$WORK/theirs.xml"
    goes_on web "beside it" "$before"
    check "  ... and it is still there" others_checkpoint
    comes_true "somebody else begins a backup of web" "$PATIENCE" begin_backup
    comes_true "  ... which is told" "$PATIENCE" error_says web "backup under way"
    check "  ... and left alone" virsh_on a domjobinfo web
    check "  ... until he ends it" virsh_on a domjobabort web
    goes_on web "then" "$before"
    check "his checkpoint is removed" virsh_on a checkpoint-delete web theirs
    goes_on web "without it" "$before"
}

# --- while it is off ---------------------------------------------------------------------------

# Redefined with what sed makes of its definition.
edit() {
    local vm=$1

    shift
    virsh_on a dumpxml --inactive --security-info "$vm" | sed "$@" >"$WORK/edited.xml" &&
        virsh_on a define "$WORK/edited.xml"
}

start() {
    virsh_on a start "$1" >&2 && lab wait-guest a "$1" --timeout "$PATIENCE" >&2
}

test_renamed() {
    local before

    before=$(resyncs_of web)
    check "web is off, and its last writes have arrived" off_and_sent web
    check "it is renamed" virsh_on a domrename web www
    comes_true "  ... which is seen on both sides" "$PATIENCE" info b www .vmName
    check "  ... and renamed back" virsh_on a domrename www web
    check "its definition is removed and made anew" redefined web
    check "  ... and it starts" start web
    goes_on web "redefined" "$before"
}

redefined() {
    virsh_on a dumpxml --inactive "$1" >"$WORK/same.xml" &&
        virsh_on a undefine "$1" --checkpoints-metadata && virsh_on a define "$WORK/same.xml"
}

# A disk with another path and one that is gone, in a definition that was edited.
test_edited() {
    local vm=$1 before

    before=$(resyncs_of "$vm")
    on a qemu-img create -q -f qcow2 "$IMAGES/$vm-more.qcow2" 12M
    comes_true "$vm gets one more disk" "$PATIENCE" \
        virsh_on a attach-disk "$vm" "$IMAGES/$vm-more.qcow2" vdx --subdriver qcow2 --targetbus virtio --live --config
    goes_on "$vm" "with it" "$before"
    check "$vm is off" off_and_sent "$vm"
    before=$(resyncs_of "$vm")
    check "the disk is taken out of its definition" virsh_on a detach-disk "$vm" vdx --config
    # A raw disk has no record once the VM is off, and none when it starts.
    comes_true "  ... and the replica is exact" "$PATIENCE" same "$vm"
    [[ $vm == db ]] || is "  ... without a resync" "$(($(resyncs_of "$vm") - before))" 0
    mv "$(host_file a "$IMAGES/$vm-vdb.qcow2")" "$(host_file a "$IMAGES/$vm-else.qcow2")"
    comes_true "a disk whose image is not there is told" "$PATIENCE" error_says "$vm" "$vm-vdb.qcow2"
    check "an image of $vm has another path" edit "$vm" "s/$vm-vdb.qcow2/$vm-else.qcow2/"
    check "  ... and it starts" start "$vm"
    advances "  ... and is replicated" "$vm" "$PATIENCE"
    check "  ... exactly" paused_same "$vm"
}

error_says() {
    info a "$1" .lastError | grep -q -- "$2"
}

# --- images that are put back ----------------------------------------------------------------------

guests_image() {
    host_file a "$(disks_with_paths web | sed -n 's/^vda //p')"
}

put_back() {
    cp "$WORK/kept.qcow2" "$(guests_image)" # into the same file
}

# An older copy of web's image, in the same file, with the very bitmap that would be used.
test_put_back() {
    local before

    check "web is off" off_and_sent web
    before=$(date +%s%3N)
    cp "$(guests_image)" "$WORK/kept.qcow2"
    lab stop a virtdrd >&2
    start web
    turn_off web
    lab start a virtdrd >&2
    comes_true "it has run unseen, and what it wrote arrives" "$PATIENCE" caught_up_after web "$(date +%s%3N)"
    check "  ... without a resync" not resynced_since web "$before"
    before=$(date +%s%3N)
    put_back
    comes_true "an image that is put back while it is off is seen" "$PATIENCE" resynced_since web "$before"
    comes_true "  ... and compared" "$PATIENCE" caught_up web
    check "  ... so that the replica is exact" same web
}

# The same, but it runs already when virtdrd looks.
test_put_back_unseen() {
    local before

    start web
    advances "web runs" web "$PATIENCE"
    check "web is off" off_and_sent web
    before=$(date +%s%3N)
    cp "$(guests_image)" "$WORK/kept.qcow2"
    lab stop a virtdrd >&2
    start web
    turn_off web
    lab start a virtdrd >&2
    comes_true "it has run unseen, and what it wrote arrives" "$PATIENCE" caught_up_after web "$(date +%s%3N)"
    check "  ... without a resync" not resynced_since web "$before"
    before=$(date +%s%3N)
    lab stop a virtdrd >&2
    put_back
    start web
    lab start a virtdrd >&2
    comes_true "an image that was put back before the VM was started unseen is seen" "$PATIENCE" \
        resynced_since web "$before"
    advances "  ... and compared" web "$PATIENCE"
    check "  ... so that the replica is exact" paused_same web
}

resynced_since() {
    (($(info a "$1" '.resync.started // 0') > $2))
}

# --- internal snapshots ------------------------------------------------------------------------------

no_bitmap() {
    local path

    for path in $(disks_with_paths "$1" | cut -d ' ' -f 2); do
        ! on a qemu-img info -U --output json "$path" | grep -q '"virt-dr-' || return 1
    done
}

held() {
    [[ $(info a "$1" .resync.state) == waiting ]]
}

test_internal_snapshot() {
    local before

    comes_true "an internal snapshot of web is made" "$PATIENCE" virsh_on a snapshot-create-as web inside
    advances "web goes on" web "$PATIENCE"
    before=$(resyncs_of web)
    exits 0 "its bitmaps are released for a revert" dr a release-bitmaps web || return 0
    is "  ... none is left" "$(our_bitmaps web)" ""
    is "  ... and no checkpoint" "$(virsh_on a checkpoint-list web --name | grep virt-dr-)" ""
    check "  ... nothing is captured" held web
    fails_with INVALID_STATE "  ... also when asked" a sync web --wait
    check "  ... and the revert succeeds" virsh_on a snapshot-revert web inside
    comes_true "then the disks are compared, by itself" "$PATIENCE" not held web
    comes_true "  ... and web is replicated" "$PATIENCE" state_is a web replicating
    goes_on web "reverted" "$before" 1
    check "web is off" off_and_sent web
    exits 0 "the bitmaps in its images are released, too" dr a release-bitmaps web --hold 1h
    check "  ... none is left" no_bitmap web
    check "  ... and the revert succeeds" virsh_on a snapshot-revert web inside
    comes_true "  ... and web is replicated again" "$PATIENCE" state_is a web replicating
    check "  ... exactly" paused_same web
    check "the snapshot is deleted" virsh_on a snapshot-delete web inside
}

# --- all -------------------------------------------------------------------------------

need nbdcopy
system_up
make_guests
# ONLY="a b" in the environment runs these alone; LONG=yes all of them, else a choice.
[[ -n ${LONG:-}${ONLY:-} ]] || ONLY="snapshot renamed internal_snapshot put_back"
run() {
    local name=$1

    shift
    [[ -n ${ONLY:-} && " $ONLY " != *" $name "* ]] || "test_$name" "$@"
}

for vm in web db; do
    run snapshot $vm
    run copy $vm
    run new_disk $vm
done
run others
run renamed
run edited web
run edited db
run internal_snapshot
run put_back
run put_back_unseen
tests_done
