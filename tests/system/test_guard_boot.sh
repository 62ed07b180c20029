#!/bin/bash
# A host that boots alone, told to start its VMs all the same; and starts by other ways than `virsh start`
# on a host that has lost the VM to the other one (TAP).

export LAB_ID=${LAB_ID:-67}
. "$top_srcdir/tests/system/lib.sh" || exit 1

SAVED=/var/lib/libvirt/qemu/save/web.save

runs() {
    [[ $(virsh_on "$1" domstate "$2") == running ]]
}

status_is() {
    [[ $(js a guard status web | jq -r ".items[0].$1") == "$2" ]]
}

refused() {
    local name=$1

    shift
    run_status virsh_on "$@"
    is "$name" "$STATUS" 1
    message_has "failed over to host 'b'" "virt-dr reverse web"
}

system_up
guest a web --rate 50 --autostart
check "the VM is protected" protect web --rpo 2s
printf '[readiness]\ninterval = 3s\n[peer b]\nunconfirmed = start\n' >>"$(host_file a /etc/virt-dr/virtdrd.conf)"
is "before the reload it is held without an answer" "$(js a guard status web | jq -r '.items[0].unconfirmed')" hold
kill -HUP "$(daemon_pid a)"
comes_true "the policy to start is taken over by a reload" "$PATIENCE" status_is unconfirmed start

lab cut b
lab crash a
lab boot a >&2
comes_true "a host that boots alone starts the VM, as it was told" "$PATIENCE" runs a web
check "  ... though nobody has confirmed it" status_is confirmed false
lab heal b
comes_true "  ... until the peer answers" "$PATIENCE" status_is confirmed true
advances "  ... and it is replicated again" web $((PATIENCE * 2))

virsh_on a autostart --disable web >&2
virsh_on a managedsave web >&2
check "the VM is saved on a" on a test -f "$SAVED"
exits 0 "b takes over" dr b failover web --wait
comes_true "  ... which a hears" "$PATIENCE" state_is a web superseded
refused "the saved VM is not restored by virsh start" a start web
refused "  ... nor by virsh restore" a restore "$SAVED"
check "  ... what was saved is still there" on a test -f "$SAVED"
check "b's goes on" runs b web
tests_done
