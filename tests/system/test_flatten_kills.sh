#!/bin/bash
# Disks become one image while libvirtd, QEMU and virtdrd die (TAP): where the VM was failed over to, by
# pulls, and back at its home, where its old images take in what lies on them. Some three minutes.

export LAB_ID=${LAB_ID:-61}
. "$top_srcdir/tests/system/lib.sh" || exit 1

runs() {
    [[ $(virsh_on "$1" domstate web 2>/dev/null) == running ]]
}

is_flat() {
    local path

    for path in $(disks_of "$1" web); do
        [[ $(backing_of "$1" "$path") == null ]] || return 1
    done
}

on_own_disks() {
    [[ $(disks_of a web | xargs) == "$(<"$WORK/disks")" ]] && is_flat a
}

has_job() {
    [[ -n $(virsh_on "$1" blockjob web vda --info 2>/dev/null) || -n $(virsh_on "$1" blockjob web vdb --info 2>/dev/null) ]]
}

# What the guest found when it was started last: "highest=N missing=0 torn=0 order=0".
last_found() {
    lab console "$1" web | grep '^found run=' | tail -n 1 | grep -oE '(highest|missing|torn|order)=[0-9]+' | xargs
}

libvirtd_dies() {
    comes_true "on $1 a job is under way" "$PATIENCE" has_job "$1" || return 0
    lab kill "$1" libvirtd
    lab start "$1" libvirtd
    check "  ... libvirtd dies, the VM runs on" runs "$1"
}

qemu_dies() {
    local before

    comes_true "  ... a job is under way again" "$PATIENCE" has_job "$1" || return 0
    before=$(lab acked "$1" web | jq .number)
    lab kill "$1" qemu web
    comes_true "  ... QEMU dies" "$PATIENCE" not runs "$1"
    check "  ... it starts again" virsh_on "$1" start web
    check "  ... and writes" lab wait-guest "$1" web --timeout "$PATIENCE"
    is "  ... with nothing missing, torn or out of order" "$(last_found "$1" | cut -d ' ' -f 2-)" \
        "missing=0 torn=0 order=0"
    check "  ... and all that it had" test "$(last_found "$1" | sed 's/highest=\([0-9]*\).*/\1/')" -ge "$before"
}

virtdrd_dies() {
    local pid

    comes_true "  ... a job goes on, or is begun again" "$PATIENCE" has_job "$1" || return 0
    pid=$(daemon_pid "$1")
    lab kill "$1" virtdrd
    wait_for "$PATIENCE" not kill -0 "$pid"
    lab start "$1" virtdrd
    check "  ... virtdrd dies, the VM runs on" runs "$1"
}

# QEMU last: a VM that is off is replicated at once, and that sync comes before the next job.
all_die_on() {
    libvirtd_dies "$1"
    virtdrd_dies "$1"
    qemu_dies "$1"
}

# much HOST: so much that a job with the limit takes its time.
much() {
    lab wait-guest "$1" web --blocks 4000 --timeout $((PATIENCE * 2)) >&2
}

test_pull() {
    much a
    exits 0 "it is failed over" dr b failover web --shutdown graceful --wait || bail_out "no VM on b"
    lab wait-guest b web --timeout "$PATIENCE" >&2
    exits 0 "  ... for good" dr b commit web --wait
    all_die_on b
    comes_true "  ... and each of its disks is one image" 180 is_flat b
    comes_true "  ... and all else is removed" "$PATIENCE" not test -e "$(host_file b "$(info b web .storeFolder)")/disks"
}

test_merge() {
    exits 0 "it is replicated to a" dr b reverse web --wait
    comes_true "  ... which has points" $((PATIENCE * 2)) state_is b web replicating
    much b
    exits 0 "it is brought home" dr a failback web --wait || bail_out "no VM on a"
    lab wait-guest a web --timeout "$PATIENCE" >&2
    exits 0 "  ... for good" dr a commit web --wait
    all_die_on a
    comes_true "  ... and it goes on on its own disks, one image each" 180 on_own_disks
    comes_true "  ... and is replicated from there" $((PATIENCE * 2)) state_is a web replicating
    advances "  ... with points" web "$PATIENCE"
    lab acked a web >"$WORK/acked"
    holds_all "  ... nothing is lost" a web "$WORK/acked"
}

printf '[upkeep]\nrate = 1MiB\n' >"${TMPDIR:-/tmp}/virt-dr-test-$LAB_ID.conf"
export LAB_CONF_EXTRA=${TMPDIR:-/tmp}/virt-dr-test-$LAB_ID.conf
system_up 2
rm -f "$LAB_CONF_EXTRA"
guest a web --disk-size 64MiB --rate 300
disks_of a web | xargs >"$WORK/disks"
check "web is protected" protect web --rpo 2s || bail_out "nothing to fail over"
test_pull
test_merge
tests_done
