#!/bin/bash
# virtdrd on the target dies while it fails a VM over (TAP): the failover goes on by itself when
# virtdrd is there again, at whatever moment it was (I5), the VM runs once, and its data are right.

export LAB_ID=${LAB_ID:-45}
. "$top_srcdir/tests/system/lib.sh" || exit 1

# Milliseconds after the command, which asks the dead source first, or after that was given up.
MOMENTS=(command+50 command+900 asked+0 asked+50 asked+110 asked+180 asked+300 asked+500)

running_tasks() {
    js b task-list | jq -r '.items[] | select(.state == "RUNNING") | .id'
}

no_task_runs() {
    [[ -z $(running_tasks) ]]
}

# The state and the step of the newest task of this VM.
task_of() {
    js b task-list | jq -r --arg vm "$1" "[.items[] | select(.workflowInfo.resourceName == \$vm)][0] | $2"
}

resumed_at() {
    grep 'task-resumed' "$(daemon_log_file b)" | grep "vm=$1 " | grep -o "step '.*'" | tail -n 1 |
        grep . || echo "its beginning"
}

# QEMU processes of that VM, anywhere: a namespace hides none from ps.
copies_of() {
    ps -eo args | grep -c "^[^ ]*qemu-system[^ ]* -name guest=$1,"
}

found() {
    lab console b "$1" | grep '^found run=' | tail -n 1 | grep -oE '(missing|torn|order)=[0-9]+' | tr '\n' ' '
}

# The source has not answered: what follows takes some hundred milliseconds, so this asks often.
is_asked() {
    local end=$((SECONDS + PATIENCE))

    until [[ $(task_of "$1" .step) == @(raise-epoch|make-overlay|define-domain|start-domain|record) ]]; do
        ((SECONDS < end)) || return 1
    done
}

test_kill_at() {
    local vm=$1 moment=$2 pid ms client

    pid=$(daemon_pid b)
    ms=${moment#*+}
    dr b failover "$vm" >"$WORK/started" 2>&1 &
    client=$!
    [[ $moment == command+* ]] || is_asked "$vm"
    sleep "$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))"
    kill -KILL "$pid"
    wait "$client"
    wait_for "$PATIENCE" not kill -0 "$pid"
    lab start b virtdrd
    wait_for "$PATIENCE" no_task_runs
    if [[ $(task_of "$vm" '.state // "none"') == none ]]; then
        # Killed before the task was stored: the client was told so, and nothing has happened.
        is "$moment ms: a failover that had not begun left no trace" "$(info b "$vm" .epoch)" 1
        exits 0 "  ... and is run again" dr b failover "$vm" --wait
    fi
    is "$moment ms: the failover goes on by itself (from $(resumed_at "$vm"))" "$(task_of "$vm" .state)" SUCCEEDED
    is "  ... the VM is this host's" "$(info b "$vm" .state)" failed-over
    is "  ... the epoch was raised once" "$(info b "$vm" .epoch)" 2
    is "  ... it runs" "$(virsh_on b domstate "$vm")" running
    is "  ... once" "$(copies_of "$vm")" 1
    check "  ... and goes on writing" lab wait-guest b "$vm" --timeout $((PATIENCE * 3))
    is "  ... with nothing missing, torn or out of order" "$(found "$vm")" "missing=0 torn=0 order=0 "
    virsh_on b destroy "$vm"
}

system_up
for i in "${!MOMENTS[@]}"; do
    # Few blocks: eight emulated guests share the machine.
    lab guest a "k$LAB_ID-$i" --rate 5 --disk-size 16MiB --memory 80 >&2 || bail_out "no guest $i"
done
for i in "${!MOMENTS[@]}"; do
    lab wait-guest a "k$LAB_ID-$i" --timeout $((PATIENCE * 3)) || bail_out "guest $i does not write"
    protect "k$LAB_ID-$i" --rpo 5s >&2 || bail_out "guest $i is not protected"
done
ok "${#MOMENTS[@]} VMs are protected"
lab crash a
for i in "${!MOMENTS[@]}"; do
    test_kill_at "k$LAB_ID-$i" "${MOMENTS[i]}"
done
tests_done
