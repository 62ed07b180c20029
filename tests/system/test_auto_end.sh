#!/bin/bash
# Failovers and failbacks that end by themselves (TAP): nobody says a word after them, and they are undone,
# or final, after the shortest time that can be given. Some five minutes.

export LAB_ID=${LAB_ID:-61}
. "$top_srcdir/tests/system/lib.sh" || exit 1

AFTER=60 # seconds; --auto-undo 1m

runs() {
    [[ $(virsh_on "$1" domstate "$2" 2>/dev/null) == running ]]
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

# policy NAME HOST ACTION: `info` has what is to come, and when.
policy() {
    local at

    is "$1" "$(info "$2" web .failoverPolicy.action)" "$3"
    at=$(info "$2" web .failoverPolicy.at)
    check "  ... within a minute" test $((at / 1000 - $(date +%s))) -le $AFTER
}

writes_on() {
    lab wait-guest "$1" web --blocks 50 --timeout "$PATIENCE" >&2
}

test_failover_undone() {
    exits 0 "it is failed over, to be undone" dr b failover web --shutdown graceful --auto-undo 1m --wait || return 0
    policy "  ... info says so" b undo
    check "  ... it writes on b" writes_on b
    comes_true "  ... and it is undone" $((AFTER + PATIENCE)) state_is b web replicating
    comes_true "  ... it runs on a again, which had shut it down for that" "$PATIENCE" runs a web
    check "  ... and not on b" not runs b web
    advances "  ... and is replicated" web "$PATIENCE"
}

test_failover_committed() {
    lab wait-guest a web --timeout "$PATIENCE" >&2
    lab acked a web >"$WORK/acked"
    exits 0 "it is failed over, for good if nobody objects" \
        dr b failover web --shutdown graceful --auto-commit 1m --wait || return 0
    exits 0 "  ... an operator wants another minute" dr b failover-policy web --auto-commit 1m
    policy "  ... info says so" b commit
    check "  ... it writes on b" writes_on b
    comes_true "  ... and it is final" $((AFTER + PATIENCE)) state_is b web committed
    comes_true "  ... its disks become one image each" "$PATIENCE" is_flat b
    is "  ... there is nothing more to come" "$(info b web .failoverPolicy)" null
    holds_all "  ... nothing is lost" b web "$WORK/acked"
}

test_failback_undone() {
    local at

    exits 0 "it is replicated to a" dr b reverse web --wait
    comes_true "  ... which has points" "$PATIENCE" state_is b web replicating
    lab wait-guest b web --blocks 200 --timeout "$PATIENCE" >&2
    at=$(date +%H:%M:%S)
    lab wait-guest b web --blocks 400 --timeout "$PATIENCE" >&2
    lab acked b web >"$WORK/acked"
    run_status js a failback web --at "$at" --auto-undo 1m --wait
    is "it is brought home as it was some seconds ago, to be undone" "$STATUS" 0
    check "  ... which drops what came later" jq -e '.result.droppedSeconds > 0.2' "$WORK/out"
    policy "  ... info says so" a undo
    check "  ... it writes on a" writes_on a
    comes_true "  ... and it is undone" $((AFTER + PATIENCE)) runs b web
    check "  ... on a it does not run" not runs a web
    comes_true "  ... and it is replicated" "$PATIENCE" state_is b web replicating
    check "  ... it writes on b" writes_on b
    holds_all "  ... with all that it had there" b web "$WORK/acked"
}

test_failback_committed() {
    lab acked b web >"$WORK/acked"
    exits 0 "it is brought home, for good if nobody objects" dr a failback web --auto-commit 1m --wait || return 0
    policy "  ... info says so" a commit
    check "  ... it writes on a" writes_on a
    comes_true "  ... and it goes on on its own disks, one image each" $((AFTER + PATIENCE * 2)) on_own_disks
    comes_true "  ... and is replicated from there" "$PATIENCE" state_is a web replicating
    is "  ... in the first direction" "$(info a web .isReversed)" false
    holds_all "  ... nothing is lost" a web "$WORK/acked"
}

system_up 2
guest a web --disk-size 64MiB --span 8MiB --rate 100
disks_of a web | xargs >"$WORK/disks"
check "web is protected" protect web --rpo 2s || bail_out "nothing to fail over"
fails_with USAGE "both at once cannot be" b failover web --auto-undo 1m --auto-commit 1m
test_failover_undone
test_failover_committed
test_failback_undone
test_failback_committed
tests_done
