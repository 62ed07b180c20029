#!/bin/bash
# What a VM has beside its disks comes along at a failover (TAP): UEFI variables and the state of
# its TPM, and the secrets that encrypted disks and TPMs need. The guest counts its boots in both, by itself.

export LAB_ID=${LAB_ID:-54}
export PATIENCE=${PATIENCE:-120} # firmware is slow on a busy machine
. "$top_srcdir/tests/system/lib.sh" || exit 1

SWTPM=/var/lib/libvirt/swtpm
TPM_SECRET=5e3f3a52-6d0e-4d0c-8d52-0f6a4f0c0001
DISK_SECRET=5e3f3a52-6d0e-4d0c-8d52-0f6a4f0c0002
KEY_IN_HEX=$(printf 'the key of a TPM' | od -An -v -tx1 | tr -d ' \n')
OLD_STATE='the state of an earlier TPM'

# --- conditions --------------------------------------------------------------

# counted HOST VM N: the guest has booted N times, as its variables and its TPM know.
counted() {
    lab console "$1" "$2" | grep -aqx "firmware uefi=$3 tpm=$3"
}

tpm_folder() {
    echo "$SWTPM/$(virsh_on a domuuid "$1")/tpm2"
}

owner_and_mode() {
    stat -c '%U %a' "$1"
}

# No point is made for some seconds: there is nothing new.
rests() {
    ! wait_for 4 newest_above b "$1" "$(newest b "$1")"
}

# counted_in_tpm HOST VM N
counted_in_tpm() {
    lab console "$1" "$2" | grep -aqx "firmware uefi=0 tpm=$3"
}

# define_secret HOST UUID TYPE ELEMENT NAME VALUE
define_secret() {
    echo "<secret ephemeral='no' private='no'><uuid>$2</uuid><usage type='$3'><$4>$5</$4></usage></secret>" \
        >"$WORK/secret.xml"
    virsh_on "$1" secret-define "$WORK/secret.xml" &&
        virsh_on "$1" secret-set-value "$2" --base64 "$(printf '%s' "$6" | base64)"
}

secret_on() {
    virsh_on "$1" secret-get-value "$2" | base64 -d
}

# --- the tests -----------------------------------------------------------------

make_guest() {
    guest a fw --uefi --tpm --rate 50
    check "a guest has UEFI and a TPM" counted a fw 1 || bail_out "no firmware to replicate"
    virsh_on a destroy fw
    virsh_on a start fw
    comes_true "  ... which both remember its boots" "$PATIENCE" counted a fw 2
    check "it is protected" protect fw --rpo 2s || bail_out "nothing to fail over"
    FOLDER=$(tpm_folder fw)
}

# The first disk becomes one that is encrypted with a secret, before the guest ever wrote.
encrypt_disk() {
    local image

    image=$(disks_of a "$1" | head -n 1)
    # It measures the processor first, which fails now and then on a busy machine.
    wait_for "$PATIENCE" on a qemu-img create -q -f qcow2 --object secret,id=key,data='the key of a disk' \
        -o encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=50 "$image" 64M &&
        virsh_on a dumpxml --inactive "$1" |
        sed "s|<source file='$image'/>|<source file='$image'><encryption format='luks'><secret type='passphrase' uuid='$DISK_SECRET'/></encryption></source>|" >"$WORK/$1.xml" &&
        grep -q "$DISK_SECRET" "$WORK/$1.xml" && virsh_on a define "$WORK/$1.xml"
}

make_sealed_guest() {
    check "a host has secrets" define_secret a $TPM_SECRET vtpm name 'sealed TPM' 'the key of a TPM'
    define_secret a $DISK_SECRET volume volume /the/disk 'the key of a disk'
    guest a sealed --tpm-secret $TPM_SECRET --rate 20 --no-start
    check "a guest has an encrypted disk and an encrypted TPM" encrypt_disk sealed
    check "  ... and starts" virsh_on a start sealed
    comes_true "  ... and counts its boots" "$PATIENCE" counted_in_tpm a sealed 1
    exits 0 "it is protected" dr a protect sealed --to b --wait --rpo 2s
    message_has "encrypted disk" "replica is not encrypted"
}

# swtpm replaces its file: the same content in a new file is a change as the guest would make it.
test_change_alone() {
    local file before

    virsh_on a suspend fw
    file=$(host_file a "$FOLDER/tpm2-00.permall")
    comes_true "a VM that stands still comes to rest" "$PATIENCE" rests fw
    before=$(newest b fw)
    cp -p "$file" "$file.new" && mv "$file.new" "$file"
    comes_true "a change of the TPM's state makes a point, though no disk has changed" "$PATIENCE" \
        newest_above b fw "$before"
    comes_true "  ... and then the VM is at rest again" "$PATIENCE" rests fw
    virsh_on a resume fw
}

# clone_goes_on VM COMMAND...: a clone of its newest point starts and counts on, by itself; the command says so.
# Its console is the file that the VM would have here.
clone_goes_on() {
    local vm=$1 uuid

    shift
    advances "the latest state of $vm is replicated" "$vm" "$PATIENCE"
    exits 0 "$vm is cloned" js b clone "$vm" --name "$vm-twin" --wait || return 0
    uuid=$(jq -r .result.uuid "$WORK/out")
    check "  ... with the state of its TPM" test -s "$(host_file b "$SWTPM/$uuid/tpm2/tpm2-00.permall")"
    check "  ... and starts" virsh_on b start "$vm-twin"
    comes_true "  ... and goes on with what the VM had" "$PATIENCE" "$@"
    virsh_on b destroy "$vm-twin"
    virsh_on b undefine --nvram "$vm-twin"
    rm "$(host_file b "/var/log/libvirt/console/$vm.log")"
    check "the VM's own TPM has not come to this host with it" not test -e "$(host_file b "$(tpm_folder "$vm")")"
}

test_clones() {
    local secret

    clone_goes_on fw counted b fw 3
    clone_goes_on sealed counted_in_tpm b sealed 2
    is "the secret that the clone needs came along" "$(secret_on b $TPM_SECRET)" 'the key of a TPM'
    for secret in $TPM_SECRET $DISK_SECRET; do
        virsh_on b secret-undefine $secret
    done
}

# Of a VM of this UUID that b had earlier: an operator may still want it.
leave_old_state() {
    local folder

    folder=$(host_file b "$FOLDER")
    mkdir -p "$folder"
    printf '%s' "$OLD_STATE" >"$folder/tpm2-00.permall"
}

test_failover() {
    local here there

    leave_old_state
    # The newest state is on its way for one cycle.
    advances "the guest's latest state is replicated" fw "$PATIENCE"
    here=$(owner_and_mode "$(host_file a "$FOLDER/tpm2-00.permall")")
    lab crash a
    exits 0 "its host is lost; it fails over" js b failover fw --wait
    comes_true "the replica boots with the UEFI variables and the TPM that it had" "$PATIENCE" counted b fw 3
    there=$(host_file b "$FOLDER")
    is "  ... whose state belongs to whom it belonged" "$(owner_and_mode "$there/tpm2-00.permall")" "$here"
    is "  ... and an earlier state of this UUID is kept beside it" \
        "$(cat "$there.before-2/tpm2-00.permall")" "$OLD_STATE"
    check "  ... and nothing else is left there" not test -e "$there.new"
    virsh_on b destroy fw
    virsh_on b start fw
    comes_true "  ... and on from there they are its own" "$PATIENCE" counted b fw 4
}

test_sealed() {
    # One of them is there already, with a value that somebody else needs.
    define_secret b $DISK_SECRET volume volume /the/disk "another's key"
    exits 0 "a guest with an encrypted TPM fails over" js b failover sealed --wait
    is "  ... whose report says that a secret has another value" \
        "$(jq -r --arg s $DISK_SECRET 'any(.result.report[]; test($s) and test("another value"))' "$WORK/out")" true
    is "  ... which was left as it is" "$(secret_on b $DISK_SECRET)" "another's key"
    is "  ... while the one that was not there came along" "$(secret_on b $TPM_SECRET)" 'the key of a TPM'
    comes_true "  ... and the guest finds its TPM" "$PATIENCE" counted_in_tpm b sealed 2
    virsh_on b suspend sealed
    check "  ... and the blocks that it wrote" consistent b sealed
    check "its keys are in no log and in no database" not grep -rqaE --exclude-dir=storage "the key of a|$KEY_IN_HEX" \
        "$LAB_STATE"/[ab]/var/log/virt-dr "$LAB_STATE"/[ab]/var/lib/virt-dr
    check "  ... and in no file of the store that others can read" \
        is_private "$(host_file b "$(info b sealed .storeFolder)")"
}

# No file with a key in it, in this folder, can be read by anybody but its owner.
is_private() {
    local found

    grep -rlq "$KEY_IN_HEX" "$1" || return 1
    found=$(grep -rl "$KEY_IN_HEX" "$1" | xargs -r stat -c '%a %n' | grep -v '^600 ')
    [[ -z $found ]] || { echo "$found"; return 1; }
}

need swtpm swtpm_setup
[[ -r /usr/share/OVMF/OVMF_CODE.fd ]] || skip_all "package ovmf is not installed"
system_up
make_guest
make_sealed_guest
test_change_alone
test_clones
test_failover
test_sealed
tests_done
