#!/bin/bash
# virtdrd dies, on either host, while a VM is brought home (TAP): whatever it was at, it goes on or is
# undone by itself when virtdrd is there again (I5), one side runs the VM, and no block is lost (I3).

export LAB_ID=${LAB_ID:-62}
. "$top_srcdir/tests/system/lib.sh" || exit 1
. "$top_srcdir/tests/system/kills.sh"

# The host whose virtdrd dies, and the step that its task is at then. Those of a come one behind the
# other; b's are of the task that a's waits for in prepare-source.
MOMENTS=("a prepare-source" "a choose-point" "a raise-epoch" "a make-overlay" "a define-domain" "a start-domain"
    "a record" "b check" "b catch-up" "b lock" "b shut-down" "b final-delta" "b prepared")

# It is on b, and a has points of it.
is_away() {
    runs b && ! runs a && state_is b web replicating && state_is a web replicating
}

# The blocks of the home, or of b, which goes on where it was.
brought_home_or_not() {
    if [[ $(where) == a ]]; then
        has_moved b a
        exits 0 "  ... it is undone" dr a undo-failback web --wait
    fi
    comes_true "  ... it is on b again, and is replicated home" $((PATIENCE * 2)) is_away
    check "  ... the guest writes" lab wait-guest b web --timeout $((PATIENCE * 3))
}

test_kill_at() {
    local host=${1% *} step=${1#* }

    # The clients of a virtdrd that dies have no answer to show.
    dr a failback web >"$WORK/started" 2>&1
    kill_at "$host" "$step" a
    brought_home_or_not
}

# Before it is replicated home a failback has b do that first: a dies while it waits, or b at it.
test_kill_amid_reverse() {
    comes_true "$1: a knows that b has the VM" "$PATIENCE" state_is a web superseded
    dr a failback web >"$WORK/started" 2>&1
    kill_at "$1" "$2" a
}

system_up
guest a web --rate 50 --memory 80 --disk-size 16MiB
check "web is protected" protect web --rpo 2s || bail_out "nothing to move"
exits 0 "it moves to b" dr b planned-failover web --no-reverse --wait
check "  ... and writes there" lab wait-guest b web --timeout $((PATIENCE * 3))
test_kill_amid_reverse b prepare-target
[[ $(where) == a ]] || { is_away || exits 0 "  ... it is brought home anew" dr a failback web --wait; }
brought_home_or_not
for moment in "${MOMENTS[@]}"; do
    test_kill_at "$moment"
done
tests_done
