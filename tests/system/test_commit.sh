#!/bin/bash
# A failover is made final (TAP): the points go at once, and while the VM runs each of its disks becomes one
# image, whatever dies meanwhile. The guest's numbered blocks are looked at after each.

export LAB_ID=${LAB_ID:-63}
. "$top_srcdir/tests/system/lib.sh" || exit 1

runs() {
    [[ $(virsh_on "$1" domstate "$2" 2>/dev/null) == running ]]
}

# The state of the newest task of that type.
task_state() {
    js b task-list | jq -r --arg type "$1" '[.items[] | select(.type == $type)][0].state // "none"'
}

task_is() {
    [[ $(task_state "$1") == "$2" ]]
}

has_job() {
    [[ -n $(virsh_on b blockjob "$1" "$2" --info) ]]
}

has_any_job() {
    has_job "$1" vda || has_job "$1" vdb
}

last_found() {
    lab console b "$1" | grep '^found run=' | tail -n 1 | grep -oE '(missing|torn|order)=[0-9]+' | tr '\n' ' '
}

# restarts NAME VM: from what it has on its disks now.
restarts() {
    virsh_on b destroy "$2"
    check "$1" virsh_on b start "$2"
    check "  ... and goes on writing" lab wait-guest b "$2" --timeout $((PATIENCE * 2))
    is "  ... with nothing missing, torn or out of order" "$(last_found "$2")" "missing=0 torn=0 order=0 "
}

bring_over() {
    guest a web --rate 100 --disk-size 48MiB
    exits 0 "the VM is protected" protect web --rpo 1s
    advances "  ... and points come in" web "$PATIENCE" 3
    lab acked a web >"$WORK/acked"
    advances "  ... also of what is acknowledged" web "$PATIENCE"
    lab crash a
    exits 0 "its site is lost, it is failed over" dr b failover web --wait
    check "  ... and writes" lab wait-guest b web --timeout $((PATIENCE * 2))
}

test_final() {
    exits 0 "the failover is committed" dr b commit web --wait
    is "  ... the state says so" "$(info b web .state)" committed
    is "  ... no point is left" "$(js b points web | jq '.items | length')" 0
    fails_with INVALID_STATE "  ... and there is no way back" b undo web --wait
    check "  ... the VM runs all the time" runs b web
    comes_true "its disks are being made one image" "$PATIENCE" has_any_job web
}

test_killed() {
    local pid

    pid=$(daemon_pid b)
    kill -KILL "$pid"
    wait_for "$PATIENCE" not kill -0 "$pid"
    check "virtdrd dies amid that; the VM runs on" runs b web
    virsh_on b suspend web # from now on no guest has QEMU write down where it has put what it copies
    lab start b virtdrd
    comes_true "  ... which goes on by itself to its end" 90 task_is flatten SUCCEEDED
    lab kill b qemu web
    check "  ... and nothing of that is lost with a QEMU that dies" consistent b web
    check "  ... the VM starts" virsh_on b start web
    check "  ... and writes" lab wait-guest b web --timeout $((PATIENCE * 2))
}

test_flat() {
    local folder disk

    folder=$(host_file b "$(info b web .storeFolder)")
    for disk in $(disks_of b web); do
        is "disk '$(basename "$disk")' stands alone" "$(backing_of b "$disk")" null
    done
    is "nothing else is left in the replica's folder" "$(cd "$folder" && find . -type f | sort | tr '\n' ' ')" \
        "./overlay/failover-2/vda.qcow2 ./overlay/failover-2/vdb.qcow2 "
    check "the guest has written all the while" lab wait-guest b web --blocks 100 --timeout "$PATIENCE"
    virsh_on b suspend web
    check "  ... and no block is missing, torn or out of order" consistent b web
    virsh_on b resume web
    restarts "it starts from its single images" web
}

test_unprotect() {
    exits 0 "its replication can be ended" dr b unprotect web --wait
    check "  ... and the VM runs on" runs b web
    check "  ... on its disks" test -s "$(host_file b "$(disks_of b web | head -n 1)")"
}

# --- on the VM's own old image ----------------------------------------------------------

# As if it had come home: layers in a replica's folder, on images that are elsewhere.
bring_home() {
    local folder=/var/lib/virt-dr/storage/home disk uuid doc

    guest b own --rate 100 --disk-size 48MiB
    virsh_on b destroy own
    uuid=$(virsh_on b domuuid own | tr -d '\n')
    on b mkdir -p "$folder/disks" "$folder/overlay/failover-5"
    on b chmod 711 /var/lib/virt-dr/storage "$folder" "$folder/disks" "$folder/overlay" "$folder/overlay/failover-5"
    virsh_on b dumpxml own >"$WORK/own.xml"
    for disk in vda vdb; do
        on b qemu-img create -q -f qcow2 -F qcow2 -b "/var/lib/libvirt/images/own-$disk.qcow2" \
            "$folder/disks/$disk.0000.qcow2"
        on b qemu-img create -q -f qcow2 -F qcow2 -b "$folder/disks/$disk.0000.qcow2" \
            "$folder/overlay/failover-5/$disk.qcow2"
        on b qemu-img bitmap --add -g 65536 "$folder/overlay/failover-5/$disk.qcow2" fork
        sed -i "s#/var/lib/libvirt/images/own-$disk.qcow2#$folder/overlay/failover-5/$disk.qcow2#" "$WORK/own.xml"
    done
    virsh_on b define "$WORK/own.xml"
    check "a VM that stands on its own old images starts" virsh_on b start own
    check "  ... and writes" lab wait-guest b own --timeout $((PATIENCE * 2))
    cat >"$WORK/fork.xml" <<XML
<domaincheckpoint><name>fork</name><creationTime>1700000000</creationTime><disks>
<disk name='vda' checkpoint='bitmap' bitmap='fork'/><disk name='vdb' checkpoint='bitmap' bitmap='fork'/>
</disks></domaincheckpoint>
XML
    check "  ... under a record that libvirt takes for a checkpoint" \
        virsh_on b checkpoint-create own "$WORK/fork.xml" --redefine --redefine-validate
    lab stop b virtdrd
    doc="{\"vmId\": \"$uuid\", \"vmName\": \"own\", \"folder\": \"$folder\", \"replication\": \"home\", \"time\": 1}"
    sqlite3 "$(host_file b /var/lib/virt-dr/state.db)" "INSERT INTO document VALUES ('flatten', '$uuid', '$doc')"
    lab start b virtdrd
}

is_home() {
    [[ $(disks_of b own | tr '\n' ' ') == "/var/lib/libvirt/images/own-vda.qcow2 /var/lib/libvirt/images/own-vdb.qcow2 " ]]
}

test_merged() {
    comes_true "it goes on on them when all is written into them" 90 is_home
    comes_true "  ... and what was above them is gone" "$PATIENCE" not test -e \
        "$(host_file b /var/lib/virt-dr/storage/home)"
    is "  ... also in its definition" "$(virsh_on b dumpxml own --inactive | grep -c "failover-5")" 0
    is "  ... the record is there still" "$(virsh_on b checkpoint-list own --name | tr -d '\n')" fork
    virsh_on b suspend own
    check "  ... and no block is missing, torn or out of order" consistent b own
    virsh_on b resume own
    virsh_on b checkpoint-delete own fork
    restarts "it starts from its old images" own
}

printf '[upkeep]\nrate = 2MiB\n' >"${TMPDIR:-/tmp}/virt-dr-test-$LAB_ID.conf"
export LAB_CONF_EXTRA=${TMPDIR:-/tmp}/virt-dr-test-$LAB_ID.conf
need sqlite3
system_up
rm -f "$LAB_CONF_EXTRA"
bring_over
test_final
test_killed
test_flat
test_unprotect
virsh_on b destroy web
bring_home
test_merged
tests_done
