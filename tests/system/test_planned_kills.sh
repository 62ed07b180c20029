#!/bin/bash
# virtdrd dies, on either host, while a VM moves on purpose (TAP): whatever it was at, it goes on or is
# undone by itself when virtdrd is there again (I5), one side runs the VM, and no block is lost (I3).

export LAB_ID=${LAB_ID:-63}
. "$top_srcdir/tests/system/lib.sh" || exit 1
. "$top_srcdir/tests/system/kills.sh"

# The host whose virtdrd dies, and the step that its task is at then.
MOMENTS=("a shut-down" "a final-delta" "b prepare-source" "b start-domain")

test_kill_at() {
    local host=${1% *} step=${1#* }

    # The clients of a virtdrd that dies have no answer to show.
    dr b planned-failover web --no-reverse >"$WORK/started" 2>&1
    kill_at "$host" "$step" b
    if [[ $(where) == b ]]; then
        has_moved a b
        exits 0 "  ... it is undone" dr b undo web --wait
    fi
    comes_true "  ... it is back where it was" $((PATIENCE * 2)) runs a
    comes_true "  ... and replicates" $((PATIENCE * 2)) state_is b web replicating
    check "  ... the guest writes" lab wait-guest a web --timeout $((PATIENCE * 3))
}

system_up
guest a web --rate 50 --memory 80 --disk-size 16MiB
check "web is protected" protect web --rpo 2s || bail_out "nothing to move"
for moment in "${MOMENTS[@]}"; do
    test_kill_at "$moment"
done
tests_done
