#!/bin/bash
# Disks of all kinds (TAP): raw files, block devices and encrypted qcow2 are protected and replicated to
# the byte, while the VM runs, is paused, is off and starts again; and they are failed over.

export LAB_ID=${LAB_ID:-57}
. "$top_srcdir/tests/system/lib.sh" || exit 1

IMAGES=/var/lib/libvirt/images
PASSPHRASE=open-sesame

# --- the guests --------------------------------------------------------------------

# Its disks become loop devices over the files that they were.
make_block() {
    local i device xml=$WORK/block.xml

    guest a block --format raw --rate 50 --no-start
    virsh_on a dumpxml --inactive block >"$xml"
    for i in vda vdb; do
        device=$(losetup -f --show "$(host_file a $IMAGES/block-$i.raw)") || return 1
        exec {LOOP}<"$device" && losetup -d "$device" # gone with the last who has it open
        sed -i -e "s|<source file='$IMAGES/block-$i.raw'/>|<source dev='$device'/>|" "$xml"
    done
    sed -i -e "s|<disk type='file' device='disk'>|<disk type='block' device='disk'>|" "$xml"
    virsh_on a define "$xml" && virsh_on a start block
}

# Again until it is done: qemu-img times its key derivation, and gives up on a busy machine.
make_luks_image() {
    on a qemu-img create -q -f qcow2 --object "secret,id=s,data=$PASSPHRASE" \
        -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=50 $IMAGES/luks-vda.qcow2 64M
}

# vda is encrypted with a secret that libvirt keeps, vdb is not.
make_luks() {
    local secret=7f3a0e5e-4a4e-4d0f-9d64-0c1f3d7f5a01 xml=$WORK/luks.xml

    guest a luks --rate 50 --no-start
    printf '<secret ephemeral="no" private="no"><uuid>%s</uuid><usage type="volume"><volume>%s</volume></usage></secret>\n' \
        $secret $IMAGES/luks-vda.qcow2 >"$WORK/secret.xml"
    virsh_on a secret-define "$WORK/secret.xml" &&
        virsh_on a secret-set-value $secret --base64 "$(printf %s $PASSPHRASE | base64)" &&
        wait_for "$PATIENCE" make_luks_image || return 1
    virsh_on a dumpxml --inactive luks |
        sed "s|\(<source file='$IMAGES/luks-vda.qcow2'\)/>|\1><encryption format='luks'><secret type='passphrase' uuid='$secret'/></encryption></source>|" >"$xml"
    virsh_on a define "$xml" && virsh_on a start luks
}

make_guests() {
    guest a raw --format raw --rate 50
    make_block || bail_out "no guest on block devices"
    make_luks || bail_out "no guest on an encrypted disk"
    for vm in raw block luks; do
        lab wait-guest a $vm --timeout "$PATIENCE" >&2 || bail_out "guest $vm does not write"
        check "$vm is protected" protect $vm --rpo 2s || bail_out "nothing to look at"
    done
}

# --- what is expected ------------------------------------------------------------------

captured_by() {
    [[ $(info a "$1" .capture.driver) == "$2" ]]
}

# source_disk VM DISK: what the VM sees, in $WORK/source.
source_disk() {
    case $1-$2 in
    raw2-*) cp --sparse=always "$(host_file a $IMAGES/raw2-"$2".raw)" "$WORK/source" ;;
    block-*) cp --sparse=always "$(host_file a $IMAGES/block-"$2".raw)" "$WORK/source" ;;
    raw-*) cp --sparse=always "$(host_file a $IMAGES/raw-"$2".raw)" "$WORK/source" ;;
    luks-vda)
        on a qemu-img convert -U -O raw --object "secret,id=s,data=$PASSPHRASE" --image-opts \
            driver=qcow2,encrypt.key-secret=s,file.filename=$IMAGES/luks-vda.qcow2 "$WORK/source"
        ;;
    luks-*) on a qemu-img convert -U -O raw "$IMAGES/luks-$2.qcow2" "$WORK/source" ;;
    esac
}

# same VM: the newest point on b is the source's disks to the byte. The VM is suspended or off.
same() {
    local disk uri status=0

    dr a sync "$1" --wait && dr b export "$1" --name "same-$1" --wait >/dev/null || return 1
    for disk in vda vdb; do
        uri=$(js b export-list |
            jq -r ".items[] | select(.name == \"same-$1\") | .disks[] | select(.target == \"$disk\") | .uri")
        rm -f "$WORK/replica"
        source_disk "$1" $disk && on b nbdcopy "$uri" "$WORK/replica" &&
            cmp "$WORK/source" "$WORK/replica" || status=1
    done
    dr b unexport "same-$1"
    return $status
}

paused_same() {
    local status=0

    virsh_on a suspend "$1"
    same "$1" || status=1
    virsh_on a resume "$1"
    return $status
}

# --- the cases --------------------------------------------------------------------------

test_running() {
    local vm

    for vm in raw block; do
        is "$vm is captured by bitmaps" "$(info a $vm .capture.driver)" bitmap
        check "  ... and info says why" grep -q "raw" <(info a $vm .capture.reason)
    done
    is "an encrypted qcow2 is captured by checkpoints" "$(info a luks .capture.driver)" checkpoint
    for vm in raw block luks; do
        advances "points of $vm follow each other" $vm "$PATIENCE"
        check "  ... and are the disks to the byte" paused_same $vm
    done
}

# --- off ---------------------------------------------------------------------------------

is_off() {
    [[ $(virsh_on a domstate "$1") == "shut off" ]]
}

# The guest has no system that would listen to a power button: QEMU is ended, cleanly.
turn_off() {
    virsh_on a destroy "$1" --graceful && wait_for "$PATIENCE" is_off "$1"
}

# The moment that the newest point on b stands for.
time_of() {
    info b "$1" .latestInstance.timestamp
}

time_moves() {
    local now

    now=$(time_of "$1")
    [[ -n $now ]] && ((now > $2))
}

caught_up() {
    captured_by "$1" offline && [[ $(info a "$1" .state) == replicating ]] &&
        [[ $(info a "$1" .lastError) == null ]]
}

resyncs_of() {
    grep -c " resync .*vm=$1" "$(daemon_log_file a)"
}

test_off() {
    local vm before sequence resyncs

    for vm in luks raw block; do
        resyncs=$(resyncs_of $vm)
        turn_off $vm || not_ok "$vm can be turned off"
        comes_true "the last writes of $vm arrive once it is off" "$PATIENCE" caught_up $vm
        check "  ... to the byte" same $vm
        before=$(time_of $vm)
        sequence=$(newest b $vm)
        comes_true "  ... then its point's time moves on" "$PATIENCE" time_moves $vm "$before"
        is "  ... without new points" "$(newest b $vm)" "$sequence"
        if [[ $vm == luks ]]; then
            is "  ... and without a resync" "$(resyncs_of $vm)" "$resyncs"
        fi
        check "  ... and no helper is left" not pgrep -f "offline-$(virsh_on a domuuid $vm)"
    done
}

test_on_again() {
    local vm resyncs

    for vm in luks raw block; do
        resyncs=$(resyncs_of $vm)
        virsh_on a start $vm
        lab wait-guest a $vm --timeout "$PATIENCE" >&2 || not_ok "$vm starts again"
        advances "points of $vm follow each other once it runs again" $vm "$PATIENCE"
        check "  ... and are the disks to the byte" paused_same $vm
        if [[ $vm == luks ]]; then
            is "  ... without a resync" "$(resyncs_of $vm)" "$resyncs"
        fi
    done
}

# Protected while it is off, and started later.
test_cold() {
    guest a raw2 --format raw --rate 50 --no-start
    check "a VM that is off can be protected" protect raw2 --rpo 2s
    is "  ... from its images" "$(info a raw2 .capture.driver)" offline
    virsh_on a start raw2
    lab wait-guest a raw2 --timeout "$PATIENCE" >&2 || not_ok "raw2 starts"
    comes_true "  ... and once it runs it is captured as it runs" "$PATIENCE" captured_by raw2 bitmap
    comes_true "  ... again with points" "$PATIENCE" state_is a raw2 replicating
    advances "  ... that follow each other" raw2 "$PATIENCE"
    check "  ... and are the disks to the byte" paused_same raw2
    check "  ... and its protection ends while it is off" unprotect_off raw2
}

unprotect_off() {
    turn_off "$1" && dr a unprotect "$1" --wait
}

test_failover() {
    local vm

    for vm in raw block luks; do
        lab acked a $vm >"$WORK/acked-$vm"
        virsh_on a suspend $vm
        check "the last blocks of $vm are sent" dr a sync $vm --wait
    done
    lab crash a >&2
    for vm in raw block luks; do
        check "$vm is failed over" dr b failover $vm --wait
        check "  ... and starts" lab wait-guest b $vm --timeout "$PATIENCE"
        holds_all "  ... with consistent disks" b $vm "$WORK/acked-$vm"
    done
}

# --- all -------------------------------------------------------------------------------

need losetup
system_up
make_guests
test_running
test_off
test_on_again
test_cold
test_failover
tests_done
