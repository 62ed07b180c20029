#!/bin/bash
# What cannot be done is refused: with its own exit status, in words that say why, and without a trace (TAP).

export LAB_ID=${LAB_ID:-52}
# shellcheck source=tests/system/lib.sh disable=SC2317,SC2119 # functions that check() and its kind call
. "$(dirname "$0")/lib.sh"

REPLICAS=/var/lib/virt-dr/storage

# --- the configuration -------------------------------------------------------------

# refused_config NAME LINE PATTERN: reads the file from standard input.
refused_config() {
    cat >"$WORK/virtdrd.conf"
    exits "$(code_exit CONFIG)" "a configuration with $1 is refused" \
        "$BUILD/daemon/virtdrd" --config "$WORK/virtdrd.conf" --check-config
    message_has "virtdrd.conf:$2:" "$3"
}

test_configuration() {
    printf '[host]\nname = a\n[storage s]\npath = /var/tmp\n' >"$WORK/virtdrd.conf"
    exits 0 "a configuration that is right" \
        "$BUILD/daemon/virtdrd" --config "$WORK/virtdrd.conf" --check-config
    refused_config "an unknown key" 3 colour <<<$'[host]\nname = a\ncolour = red'
    refused_config "an unknown section" 1 hots <<<$'[hots]\nname = a'
    refused_config "a size that is none" 3 lots <<<$'[scratch]\npath = /var/tmp\nlimit = lots'
    refused_config "a path that is not absolute" 2 storage <<<$'[storage s]\npath = storage'
    refused_config "an address without a port" 2 10.0.0.1 <<<$'[listen]\nstream = 10.0.0.1'
    refused_config "a port that is none" 2 77810 <<<$'[listen]\ntls = 10.0.0.1:77810'
    refused_config "a yes that is no yes" 2 perhaps <<<$'[peer b]\nmay_replicate = perhaps'
    exits "$(code_exit CONFIG)" "a configuration file that is not there" \
        "$BUILD/daemon/virtdrd" --config "$WORK/nothing.conf" --check-config
    message_has nothing.conf
}

# --- protect -------------------------------------------------------------------------

extra_storages() {
    cat >"$WORK/extra.conf" <<END
[storage missing]
path = /var/lib/virt-dr/missing
[storage file]
path = /var/lib/virt-dr/file
reserve = 0
[storage readonly]
path = /var/lib/virt-dr/readonly
reserve = 0
[storage tiny]
path = /var/lib/virt-dr/tiny
reserve = 0
END
    export LAB_CONF_EXTRA=$WORK/extra.conf
}

make_storages() {
    on b sh -c 'cd /var/lib/virt-dr && touch file && mkdir readonly tiny &&
        mount --bind readonly readonly && mount -o remount,bind,ro readonly &&
        mount -t tmpfs -o size=1m tmpfs tiny' || bail_out "the storages cannot be made"
}

nothing_protected() {
    [[ $(js a list | jq '.items | length') == 0 && $(js b list | jq '.items | length') == 0 ]]
}

# No word of a replica on the target: folder, record, nothing.
no_trace_on_target() {
    local left

    left=$(on b find "$REPLICAS" /var/lib/virt-dr/guard /var/lib/virt-dr/tiny \
        /var/lib/virt-dr/readonly -mindepth 1)
    [[ -z $left ]] || { echo "$left"; return 1; }
}

test_names() {
    fails_with DOMAIN_NOT_FOUND "a domain that is not there" a protect nobody --to b --wait
    message_has "'nobody'"
    fails_with PEER_NOT_FOUND "a peer that is not there" a protect g1 --to nowhere --wait
    message_has "nowhere"
    fails_with REPLICATION_NOT_FOUND "info of a VM that is not protected" a info g1
    fails_with REPLICATION_NOT_FOUND "sync of a VM that is not protected" a sync g1 --wait
    fails_with REPLICATION_NOT_FOUND "failover of a VM that is no replica" b failover g1 --wait
    fails_with TASK_NOT_FOUND "a task that is not there" a task-info 0ddba11e-0000-4000-8000-000000000000
    fails_with USAGE "a command that is not there" a protekt g1
    fails_with USAGE "protect without a peer" a protect g1
    message_has "--to"
}

test_rpo() {
    local rpo

    for rpo in 999ms 0s 25h; do
        fails_with USAGE "an RPO of $rpo" a protect g1 --to b --rpo "$rpo" --wait
    done
    message_has "1 ?s.*24 ?h"
    for rpo in soon -5s 5 5parsecs 99999999999999999999s; do
        fails_with USAGE "an RPO of '$rpo'" a protect g1 --to b "--rpo=$rpo" --wait
    done
    message_has rpo
}

test_storages() {
    fails_with STORAGE_NOT_FOUND "a storage that the target does not have" \
        a protect g1 --to b --storage gold --wait
    message_has "gold" "host 'b'"
    fails_with STORE "a storage whose folder is missing" a protect g1 --to b --storage missing --wait
    message_has "'missing'" "/var/lib/virt-dr/missing"
    fails_with STORE "a storage whose folder is a file" a protect g1 --to b --storage file --wait
    message_has "/var/lib/virt-dr/file"
    fails_with PERMISSION "a storage that cannot be written" a protect g1 --to b --storage readonly --wait
    message_has "'readonly'" "[Rr]ead-only"
    fails_with NO_SPACE "a storage that is too small" a protect g1 --to b --storage tiny --wait
    message_has "'tiny'" "MiB"
}

test_disks() {
    local xml=$WORK/mixed.xml

    guest a mixed --rate 0 --no-start --disk-size 16MiB
    on a qemu-img create -q -f raw /var/lib/libvirt/images/mixed-vdb.raw 16M
    virsh_on a dumpxml mixed |
        sed '/mixed-vda/,$ { s/mixed-vdb.qcow2/mixed-vdb.raw/; }' >"$xml"
    awk '/<disk / { disk = "" ; inside = 1 } inside { disk = disk $0 "\n" } !inside { print }
        /<\/disk>/ { inside = 0; if (disk ~ /vdb.raw/) { gsub("type=.qcow2.", "type=\"raw\"", disk)
            sub("</disk>", "<shareable/></disk>", disk) }; printf "%s", disk }' \
        "$xml" >"$xml.new"
    { virsh_on a define "$xml.new" && virsh_on a start mixed; } >&2 || bail_out "guest mixed"
    fails_with UNSUPPORTED_DISK "a VM with a disk that others write to" a protect mixed --to b --wait
    message_has "vdb" "shareable"
    fails_with USAGE "an excluded disk that the VM does not have" \
        a protect mixed --to b --exclude-disk vdz --wait
    message_has "vdz" "mixed"
    fails_with UNSUPPORTED_DISK "a VM of which nothing is left to replicate" \
        a protect mixed --to b --exclude-disk vda --exclude-disk vdb --wait
    check "nothing of all that is left on the target" no_trace_on_target
    check "that disk can be left out" protect mixed --exclude-disk vdb
    is "  ... and only the other is replicated" "$(js b points mixed | jq '.items | length > 0')" true
    exits 0 "  ... and given up again" dr a unprotect mixed --wait
    virsh_on a destroy mixed
}

test_transient() {


    lab guest a passing --print-xml --disks 1 --rate 0 >"$WORK/passing.xml"
    on a qemu-img create -q -f qcow2 /var/lib/libvirt/images/passing-vda.qcow2 16M
    virsh_on a create "$WORK/passing.xml" >&2 || bail_out "guest passing"
    fails_with INVALID_STATE "a transient VM" a protect passing --to b --wait
    message_has "transient" "virsh define"
    virsh_on a destroy passing
}

# define_on_b NAME UUID
define_on_b() {
    cat >"$WORK/other.xml" <<END
<domain type='qemu'><name>$1</name><uuid>$2</uuid><memory unit='MiB'>16</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>
END
    virsh_on b define "$WORK/other.xml" >&2
}

test_conflicts() {
    define_on_b other "$(virsh_on a domuuid g1)"
    fails_with EXISTS "a domain with the same UUID on the target" a protect g1 --to b --wait
    message_has "'other'" "host 'b'"
    virsh_on b undefine other
    define_on_b g1 0ddba11e-0000-4000-8000-000000000001
    fails_with EXISTS "a domain with the same name on the target" a protect g1 --to b --wait
    message_has "'g1'" "host 'b'"
    virsh_on b undefine g1
    check "  ... and both are told from ours: nothing is left" no_trace_on_target
}

# --- a replication -----------------------------------------------------------------------

task_id() {
    jq -r .id "$WORK/out"
}

# Over a slow link the first sync takes long enough to be met half way.
test_busy() {
    local first

    lab link b --rate 1mbit
    exits 0 "over a slow link" dr a protect g1 --to b --rpo 5s
    comes_true "the first sync is under way" "$PATIENCE" state_is b g1 initial-sync
    fails_with INVALID_STATE "failover before there is a recovery point" b failover g1 --wait
    message_has "initial|first sync"
    exits 0 "an operation takes its time" js a sync g1
    first=$(task_id)
    fails_with IN_PROGRESS "a second one meanwhile" a sync g1 --wait
    message_has "$first" sync
    fails_with IN_PROGRESS "unprotect meanwhile" a unprotect g1 --wait
    message_has "$first"
    exits 0 "the first can be cancelled" dr a task-cancel "$first"
    fails_with CANCELLED "  ... and says so" a task-wait "$first"
    fails_with INVALID_STATE "cancelling it once more" a task-cancel "$first"
    message_has "ended"
    lab link b --clear
    comes_true "without the slow link the first sync ends" "$PATIENCE" state_is a g1 replicating
}

test_states() {
    fails_with EXISTS "the same VM once more" a protect g1 --to b --wait
    message_has "'g1'" "'b'"
    fails_with EXISTS "the same VM by its UUID" a protect "$(virsh_on a domuuid g1)" --to b --wait
    fails_with INVALID_STATE "sync on the target" b sync g1 --wait
    message_has "allowed.*failover"
    fails_with INVALID_STATE "pause on the target" b pause g1
    fails_with INVALID_STATE "failover on the source" a failover g1 --wait
    message_has "allowed.*sync"
    fails_with INVALID_STATE "pinning a recovery point on the source" a pin g1 1
    fails_with SOURCE_ALIVE "failover while the source runs the VM" b failover g1 --wait
    message_has "--force"
    fails_with INVALID_STATE "forgetting a peer that is in use" a peer-remove b
    message_has "g1"
    advances "none of that stops the replication" g1 "$PATIENCE"
}

bitmaps_of() {
    virsh_on a qemu-monitor-command "$1" '{"execute": "query-named-block-nodes"}' |
        jq -r '.return[]."dirty-bitmaps"[]?.name' | sort -u
}

qsd_runs_on_b() {
    local pid

    for pid in $(ip netns pids "vdrlab$LAB_ID-b"); do
        [[ $(cat "/proc/$pid/comm" 2>/dev/null) != qemu-storage-da* ]] || return 0
    done
    return 1
}

test_unprotect() {
    check "a protected VM has a bitmap and a checkpoint" test -n "$(bitmaps_of g1)$(virsh_on a checkpoint-list --name g1)"
    check "  ... and its replica a storage daemon" qsd_runs_on_b
    exits 0 "unprotect" dr a unprotect g1 --wait
    is "no checkpoint is left" "$(virsh_on a checkpoint-list --name g1)" ""
    is "no bitmap is left" "$(bitmaps_of g1)" ""
    is "no job is left" "$(virsh_on a domjobinfo g1 | awk '/Job type/ { print $3 }')" None
    is "no scratch file is left" "$(find "$(host_file a /var/lib/virt-dr/scratch)" -mindepth 1)" ""
    is "no guard record is left on the source" "$(ls "$(host_file a /var/lib/virt-dr/guard)")" ""
    check "nothing is left on the target" no_trace_on_target
    check "nothing is listed on either" nothing_protected
    comes_true "no storage daemon is left" 20 not qsd_runs_on_b
    check "the VM still runs" lab wait-guest a g1 --timeout "$PATIENCE"
    fails_with REPLICATION_NOT_FOUND "unprotect once more" a unprotect g1 --wait
}

test_again() {
    check "it can be protected again" protect g1 --rpo 2s
    virsh_on a suspend g1
    lab acked a g1 >"$WORK/acked"
    exits 0 "  ... with a point of now" dr a sync g1 --wait
    lab crash a
    fails_with INVALID_STATE "unknown states are named: resume on the target" b resume g1
    exits 0 "  ... from which it comes up" dr b failover g1 --wait
    lab boot a
    check "  ... with each byte" same_bytes g1
    holds_all "  ... and each block" b g1 "$WORK/acked"
    fails_with INVALID_STATE "failover of what was failed over" b failover g1 --wait
    message_has "failed-over" "allowed"
}

system_work
test_configuration
extra_storages
system_up
make_storages
guest a g1 --rate 20
test_names
test_rpo
test_storages
check "what was refused is not listed" nothing_protected
test_disks
test_transient
test_conflicts
test_busy
test_states
test_unprotect
test_again
tests_done
