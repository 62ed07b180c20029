#!/bin/bash
# virtdrd dies, on either host, while a VM moves on purpose (TAP): whatever it was at, it goes on or is
# undone by itself when virtdrd is there again (I5), one side runs the VM, and no block is lost (I3).

export LAB_ID=${LAB_ID:-63}
. "$top_srcdir/tests/system/lib.sh" || exit 1

# The host whose virtdrd dies, and the step that its task is at then.
MOMENTS=("a shut-down" "a final-delta" "b prepare-source" "b start-domain")

runs() {
    [[ $(virsh_on "$1" domstate web 2>/dev/null) == running ]]
}

# step HOST: of the newest task there.
step() {
    js "$1" task-list | jq -r '.items[0] | select(.state == "RUNNING") | .step'
}

# What it wants may be over in no time, so this asks often; what follows it will do as well.
is_at() {
    local end=$((SECONDS + PATIENCE)) now

    until now=$(step "$1") && [[ $now == "$2" ]]; do
        ((SECONDS < end)) || return 1
        [[ $(js b task-list | jq -r '.items[0].state') == RUNNING ]] || return 1
    done
}

no_task_runs() {
    [[ -z $(step a) && -z $(step b) ]]
}

# Somebody runs it, and no task of any host has anything left to do.
is_settled() {
    no_task_runs && { runs a || runs b; }
}

found() {
    lab console "$1" web | grep '^found run=' | tail -n 1 | tr ' ' '\n' | sed -n "s/^$2=//p"
}

last_ack() {
    lab console "$1" web | grep '^ack ' | tail -n 1 | cut -d ' ' -f 2
}

# where: the host that runs it.
where() {
    if runs b; then echo b; else echo a; fi
}

test_kill_at() {
    local host=${1% *} step=${1#* } began last at

    # The clients of a virtdrd that dies have no answer to show.
    dr b planned-failover web >"$WORK/started" 2>&1
    is_at "$host" "$step" || diag "it was not seen at $step"
    began=$SECONDS
    kill -KILL "$(daemon_pid "$host")"
    lab start "$host" virtdrd
    comes_true "$host dies at $step: it settles by itself" $((PATIENCE * 2)) is_settled
    diag "settled after $((SECONDS - began)) s on host $(where)"
    check "  ... on one side" not both_run
    at=$(where)
    if [[ $at == b ]]; then
        last=$(last_ack a)
        check "  ... it writes there" lab wait-guest b web --timeout $((PATIENCE * 3))
        check "  ... no block is lost" test "$(found b highest)" -ge "$last"
        is "  ... none is missing, torn or out of order" \
            "$(found b missing) $(found b torn) $(found b order)" "0 0 0"
        exits 0 "  ... it is undone" dr b undo web --wait
    fi
    comes_true "  ... it is back where it was" $((PATIENCE * 2)) runs a
    comes_true "  ... and replicates" $((PATIENCE * 2)) state_is b web replicating
    check "  ... the guest writes" lab wait-guest a web --timeout $((PATIENCE * 3))
}

both_run() {
    runs a && runs b
}

system_up
guest a web --rate 50 --memory 80 --disk-size 16MiB
check "web is protected" protect web --rpo 2s || bail_out "nothing to move"
for moment in "${MOMENTS[@]}"; do
    test_kill_at "$moment"
done
tests_done
