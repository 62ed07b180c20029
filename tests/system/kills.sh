#!/bin/bash
# Killing a virtdrd in the midst of a move of VM web, and what must hold then. Sourced behind lib.sh.

runs() {
    [[ $(virsh_on "$1" domstate web 2>/dev/null) == running ]]
}

both_run() {
    runs a && runs b
}

# where: the host that runs it.
where() {
    if runs b; then echo b; else echo a; fi
}

# step HOST: of the newest task there; nothing if it has ended.
step() {
    local tasks

    if tasks=$(js "$1" task-list 2>/dev/null); then
        jq -r '.items[0] | select(.state == "RUNNING") | .step' <<<"$tasks"
    else
        echo "not known"
    fi
}

# is_at HOST STEP MOVER: the task on HOST is at that step; false once that of MOVER, whose it all is,
# has ended. A step may be over in no time, so this asks often.
is_at() {
    local end=$((SECONDS + PATIENCE)) now

    until now=$(step "$1") && [[ $now == "$2" ]]; do
        ((SECONDS < end)) || return 1
        [[ $(js "$3" task-list | jq -r '.items[0].state') == RUNNING ]] || return 1
    done
}

# Somebody runs it, and no task of any host has anything left to do.
is_settled() {
    [[ -z $(step a) && -z $(step b) ]] && { runs a || runs b; }
}

found() {
    lab console "$1" web | grep '^found run=' | tail -n 1 | tr ' ' '\n' | sed -n "s/^$2=//p"
}

last_ack() {
    lab console "$1" web | grep '^ack ' | tail -n 1 | cut -d ' ' -f 2
}

# kill_at HOST STEP MOVER: the virtdrd on HOST, at that step, and starts it again.
kill_at() {
    local began=$SECONDS

    is_at "$1" "$2" "$3" || diag "it was not seen at $2"
    kill -KILL "$(daemon_pid "$1")"
    lab start "$1" virtdrd
    comes_true "$1 dies at $2: it settles by itself" $((PATIENCE * 2)) is_settled
    diag "settled after $((SECONDS - began)) s on host $(where)"
    check "  ... on one side" not both_run
}

# has_moved FROM TO: it writes there, on all that it had acknowledged where it was.
has_moved() {
    local last

    last=$(last_ack "$1")
    check "  ... it writes there" lab wait-guest "$2" web --timeout $((PATIENCE * 3))
    check "  ... no block is lost" test "$(found "$2" highest)" -ge "$last"
    is "  ... none is missing, torn or out of order" \
        "$(found "$2" missing) $(found "$2" torn) $(found "$2" order)" "0 0 0"
}
