#!/bin/bash
# The way back (TAP): a is lost, b takes the VM over, a returns, b replicates to it: what a's old disks
# have already does not travel, and what only they had stays as a recovery point.

export LAB_ID=${LAB_ID:-64}
. "$top_srcdir/tests/system/lib.sh" || exit 1

MIB=$((1024 * 1024))

# --- what is there ------------------------------------------------------------

# points HOST VM FILTER: of each recovery point.
points() {
    js "$1" points "$2" 2>/dev/null | jq -r ".items[] | $3"
}

# --- the parts ----------------------------------------------------------------

make_guest() {
    local path

    guest a web --disk-size 160MiB --span 8MiB --rate 200 --autostart --no-start
    for path in $(disks_of a web); do
        on a qemu-io -f qcow2 -c 'write -q -P 0x5a 64M 64M' "$path"
    done
    virsh_on a start web >&2
    lab wait-guest a web --timeout "$PATIENCE" >&2 || bail_out "guest web does not write"
}

# a goes on for a while without being heard, then it is lost.
lose_a() {
    lab cut a
    lab wait-guest a web --blocks 400 --timeout "$PATIENCE" >&2
    lab acked a web >"$WORK/acked-a"
    lab crash a
}

fail_over() {
    exits 0 "what was replicated from a is failed over to b" dr b failover web --wait
    lab wait-guest b web --blocks 200 --timeout "$PATIENCE" >&2 || bail_out "no guest on b"
}

a_returns() {
    lab heal a
    lab boot a >&2
    comes_true "a, which is back, knows that it was superseded" "$PATIENCE" \
        state_is a web superseded
}

same_view() {
    [[ $(info a web .isReversed) == true && $(info b web .isReversed) == true ]] &&
        [[ $(info a web .side) == target && $(info b web .side) == source ]]
}

# Bytes of the 4 KiB blocks that differ between a's old disks and those of b, which stands still.
differing() {
    local old new i sum=0

    mapfile -t old < <(disks_of a web)
    mapfile -t new < <(disks_of b web)
    for i in "${!old[@]}"; do
        on a qemu-img convert -U -O raw "${old[i]}" "$WORK/old"
        on b qemu-img convert -U -O raw "${new[i]}" "$WORK/new"
        sum=$((sum + $(cmp -l "$WORK/old" "$WORK/new" |
            awk '{ b = int(($1 - 1) / 4096) } b != last { n++; last = b } END { print n * 4096 }')))
    done
    rm -f "$WORK/old" "$WORK/new"
    echo "$sum"
}

test_reverse() {
    local sent compared differs

    virsh_on b suspend web >&2
    differs=$(differing)
    exits 0 "b replicates it to a from now on" dr b reverse web --wait
    check "  ... and both sides say so" same_view
    comes_true "  ... and a has points of it" $((PATIENCE * 3)) state_is b web replicating
    sent=$(info b web '.resync.sentBytes // 0')
    compared=$(info b web '.resync.comparedBytes // 0')
    virsh_on b resume web >&2
    check "  ... for which no more was sent than differs: $sent bytes, differing $differs" \
        test "$sent" -gt 0 -a $((sent * 10)) -le $((differs * 11)) -a "$compared" -ge $((128 * MIB))
}

unreplicated() {
    points a web 'select(.id | startswith("unreplicated-")) | .id'
}

test_unreplicated() {
    local point

    point=$(unreplicated)
    is "what a had not shipped is a recovery point there" "$(wc -w <<<"$point")" 1
    is "  ... which is pinned" "$(points a web "select(.id == \"$point\") | .isPinned")" true
}

# What only a's old disks hold can be had from the point.
test_content() {
    local uri disks=() target

    js a export web --point "$(unreplicated)" --name old --wait | jq .result >"$WORK/export"
    while read -r target uri; do
        on a qemu-img convert -f raw -O raw "$uri" "$WORK/old-$target"
        disks+=("$WORK/old-$target")
    done < <(jq -r '.disks[] | "\(.target) \(.uri)"' "$WORK/export")
    dr a unexport old >&2
    check "  ... and holds all that a had acknowledged" "$LAB" check-disk --json \
        --acked "$WORK/acked-a" "${disks[@]}"
}

runs() {
    [[ $(virsh_on "$1" domstate "$2" 2>/dev/null) == running ]]
}

# Only b changes it, and only there.
change_definition() {
    virsh_on b dumpxml --inactive web | sed 's|</domain>|<title>changed on b</title></domain>|' >"$WORK/web.xml"
    virsh_on b define "$WORK/web.xml" >&2
}

is_as_at_home() {
    virsh_on a dumpxml --inactive web >"$WORK/home.xml"
    grep -q 'changed on b' "$WORK/home.xml" && [[ $(virsh_on a dominfo web | awk '/Autostart/ { print $2 }') == enable ]]
}

test_failback() {
    change_definition
    lab acked b web >"$WORK/acked-b"
    fails_with INVALID_STATE "b is not the home" b failback web
    exits 0 "the VM is brought home" dr a failback web --wait || return 0
    check "  ... and runs there" runs a web
    check "  ... and not on b" not runs b web
    is "  ... and the state says so" "$(info a web .state)" failback-complete
    check "  ... as it was defined there, with what was changed on b" is_as_at_home
    lab wait-guest a web --blocks 100 --timeout "$PATIENCE" >&2
    holds_all "  ... with all that it had on b" a web "$WORK/acked-b"
}

test_undo() {
    exits 0 "the failback is undone" dr a undo-failback web --wait || return 0
    comes_true "  ... and the VM runs on b again" "$PATIENCE" runs b web
    check "  ... and not at home, where it is defined as it was" not runs a web
    check "  ... without the change" not virsh_home_changed
    comes_true "  ... and is replicated" "$PATIENCE" state_is b web replicating
    lab wait-guest b web --blocks 50 --timeout "$PATIENCE" >&2
    holds_all "  ... with all that it had there" b web "$WORK/acked-b"
}

virsh_home_changed() {
    virsh_on a dumpxml --inactive web | grep -q 'changed on b'
}

# on_own_disks HOST: it is on these images again, each of them alone.
on_own_disks() {
    [[ $(disks_of "$1" web | tr '\n' ' ') == "$(<"$WORK/disks-$1") " ]] && is_flat "$1"
}

is_flat() {
    local path

    for path in $(disks_of "$1" web); do
        [[ $(backing_of "$1" "$path") == null ]] || return 1
    done
}

# Home for good: on its own disks, and protected as before, with nothing more to be said.
test_home() {
    exits 0 "the VM is brought home again" dr a failback web --wait || return 0
    exits 0 "  ... for good" dr a commit web --wait || return 0
    comes_true "  ... and goes on on its own disks, one image each" $((PATIENCE * 2)) on_own_disks a
    comes_true "  ... and is replicated from there by itself" "$PATIENCE" state_is a web replicating
    is "  ... in the first direction" "$(info a web .isReversed)" false
    is "  ... to b" "$(info b web .side)" target
    check "  ... as it was defined there" is_as_at_home
    lab wait-guest a web --blocks 50 --timeout "$PATIENCE" >&2
    holds_all "  ... with all that it had" a web "$WORK/acked-b"
}

system_up 2
make_guest
disks_of a web | xargs >"$WORK/disks-a"
check "web is protected" protect web --rpo 2s || bail_out "nothing to fail over"
lose_a
fail_over
a_returns
test_reverse
test_unreplicated
test_content
test_failback
test_undo
test_home
tests_done
