#!/bin/bash
# What a VM has beside its disks comes along at a failover (TAP): UEFI variables and the state of
# its TPM. The guest counts its boots in both, by itself.

export LAB_ID=${LAB_ID:-54}
export PATIENCE=${PATIENCE:-120} # firmware is slow on a busy machine
. "$top_srcdir/tests/system/lib.sh" || exit 1

SWTPM=/var/lib/libvirt/swtpm
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

need swtpm swtpm_setup
[[ -r /usr/share/OVMF/OVMF_CODE.fd ]] || skip_all "package ovmf is not installed"
system_up
make_guest
test_change_alone
test_failover
tests_done
