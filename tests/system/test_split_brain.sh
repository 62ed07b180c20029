#!/bin/bash
# Both hosts run the VM: told within a heartbeat, one stands still, each side kept in turn, and what the
# loser wrote is there to be read. Starts on the wrong side, and an operator's word, with virtdrd down.

export LAB_ID=${LAB_ID:-66}
. "$top_srcdir/tests/system/lib.sh" || exit 1

HEARTBEAT=2 # seconds between contacts

domstate_is() {
    [[ $(virsh_on "$1" domstate "$2") == "$3" ]]
}

is_split() {
    [[ $(info "$1" web .isSplitBrain) == true ]]
}

is_over() {
    ! is_split a && ! is_split b
}

has_reason() {
    info "$1" web '.healthReasons[]' | grep -q "$2"
}

refuses_start() {
    local name=$1 host=$2

    run_status virsh_on "$host" start web
    is "$name" "$STATUS" 1
    message_has "${@:3}"
}

# The link is cut, b takes over, a goes on: when it is healed they meet. Leaves the numbers of the
# blocks that each guest has acknowledged in $WORK/on-a, $WORK/on-b.
split() {
    lab cut a
    exits 0 "$1" dr b failover web --wait
    check "  ... and runs there" lab wait-guest b web --blocks 50 --timeout "$PATIENCE"
    lab acked a web >"$WORK/on-a"
    lab acked b web >"$WORK/on-b"
    lab heal a
}

alarmed() {
    is_split "$1" && has_reason "$1" "SPLIT BRAIN" && has_event "$1" split-brain
}

test_guard() {
    virsh_on a dumpxml --inactive --security-info web >"$WORK/web.xml"
    virsh_on b define "$WORK/web.xml"
    refuses_start "a replica is not started by virsh" b "its replica" "virt-dr failover web"
    is "guard status knows that before" \
        "$(js b guard status web | jq -r '.items[0] | .answer, (.why | test("its replica"))' | xargs)" "refuse true"
    is "  ... and that libvirt asks the hook" "$(js b guard status | jq .hook.effective)" true
    is "the source may start it, and is confirmed" \
        "$(js a guard status web | jq -r '.items[0] | .answer, .confirmed' | xargs)" "start true"
    lab stop b virtdrd
    is "it is known too while virtdrd is down" "$(js b guard status web | jq -r '.items[0].answer')" refuse
    fails_with USAGE "an override wants a reason" b guard override web --allow
    exits 0 "  ... and is taken from root with one" dr b guard override web --allow --reason 'a test' --for 1h
    is "  ... the hook obeys it" "$(js b guard status web | jq -r '.items[0].answer')" start
    exits 0 "  ... until it is ended" dr b guard override web --end
    refuses_start "  ... then it refuses again" b "its replica"
    exits 0 "what is denied" dr b guard override web --deny --reason 'under repair'
    refuses_start "  ... is refused with who and why" b "under repair" "guard override web --end"
    lab start b virtdrd
    comes_true "virtdrd tells of it when it is there again" "$PATIENCE" has_event b guard-override
    check "  ... and shows it in the health" has_reason b "under repair"
    exits 0 "  ... until it is ended" dr b guard override web --end
    virsh_on b undefine web
}

test_keep_source() {
    split "both sides claim the VM: b took over while the link was cut"
    comes_true "a tells it within a heartbeat" $((HEARTBEAT * 2 + 1)) alarmed a
    comes_true "  ... and b as well" $((HEARTBEAT + 1)) alarmed b
    comes_true "  ... the VM stands still on a" $((HEARTBEAT * 2)) domstate_is a web paused
    check "  ... and goes on on b" domstate_is b web running
    is "  ... list shows it on both" \
        "$(for h in a b; do dr "$h" list | grep -c 'SPLIT BRAIN'; done | xargs)" "1 1"
    js b resolve web >"$WORK/sides"
    is "resolve shows both sides first" "$(jq -r '.sides[].host' "$WORK/sides" | sort | xargs)" "a b"
    is "  ... whose the epoch is" "$(jq -r '.sides[] | select(.ownsEpoch) | .host' "$WORK/sides")" b
    is "  ... and since when it runs" "$(jq '[.sides[] | .since > 0] | all' "$WORK/sides")" true
    lab acked b web >"$WORK/on-b"
    exits 0 "a is kept, by a command on a" dr a resolve web --keep a --wait
    comes_true "  ... and its VM goes on" "$PATIENCE" domstate_is a web running
    check "  ... b's is gone" not virsh_on b dominfo web
    comes_true "  ... nobody is alarmed any more" "$PATIENCE" is_over
    advances "  ... replication goes on" web "$PATIENCE"
    test_kept
}

# What b's VM had acknowledged is in the point that was made of its images.
test_kept() {
    local point uris folder=/var/lib/virt-dr/copies uri n=0

    point=$(js b points web | jq -r '.items[] | select(.keptBy == "split brain") | .id')
    check "b's data is a recovery point" test "${point%%-*}" = unreplicated
    exits 0 "  ... that can be exported" js b export web --point "$point" --name lost --wait
    on b mkdir -p "$folder"
    mapfile -t uris < <(js b export-list | jq -r '.items[0].disks[].uri')
    for uri in "${uris[@]}"; do
        on b nbdcopy "$uri" "$folder/$n.raw"
        n=$((n + 1))
    done
    check "  ... and holds all blocks that its guest had acknowledged" lab check-disk --json --host b \
        --acked "$WORK/on-b" "$folder/0.raw" "$folder/1.raw"
    fails_with INVALID_STATE "  ... it stays while it is exported" b unpin web "$point"
    dr b unexport lost
    exits 0 "  ... and goes when it is unpinned" dr b unpin web "$point"
    is "  ... with its images" "$(on b sh -c 'ls -d /var/lib/virt-dr/storage/*/*/overlay/* 2>/dev/null | wc -l')" 0
}

test_keep_target() {
    local disks

    split "it is split once more"
    comes_true "the VM stands still on a" $((HEARTBEAT * 3)) domstate_is a web paused
    comes_true "  ... b is alarmed" $((HEARTBEAT * 3)) alarmed b
    exits 0 "b is kept, by a command on b" dr b resolve web --keep b --wait
    check "  ... its VM went on" domstate_is b web running
    check "  ... a's is off" domstate_is a web "shut off"
    refuses_start "  ... and locked" a "failed over to host 'b'" "virt-dr undo web"
    mapfile -t disks < <(disks_of a web)
    check "  ... what it had written is in its disks" lab check-disk --json --host a \
        --acked "$WORK/on-a" "${disks[@]}"
    comes_true "  ... nobody is alarmed any more" "$PATIENCE" is_over
    fails_with INVALID_STATE "there is nothing more to resolve" b resolve web --keep b
}

need nbdcopy
system_up
guest a web --rate 50
check "the VM is protected" protect web --rpo 2s
test_guard
test_keep_source
test_keep_target
tests_done
