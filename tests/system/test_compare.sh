#!/bin/bash
# A bitmap that is lost (TAP): QEMU is killed, and by itself the disks are compared with the replica;
# only what differs travels, and afterwards each byte is the same. Also while daemons die amid it, and
# an older point can be failed over to meanwhile. A replica that was changed behind our back is found
# by verifying, and put right.

export LAB_ID=${LAB_ID:-51}
export LAB_CONF_EXTRA
LAB_CONF_EXTRA=$(mktemp /var/tmp/virt-dr-compare.XXXXXX)
. "$top_srcdir/tests/system/lib.sh" || exit 1

cat >"$LAB_CONF_EXTRA" <<END
[verify]
interval = 45s
END

BOOT=$((PATIENCE * 3)) # seconds: an emulated guest on a busy machine takes its time
BLOCKS=${COMPARE_BLOCKS:-3000}
MORE=1500 # blocks, of a compare that is met: 6 MB, for which the slow link needs 24 s
KEPT=0 # exports that were made

resync() {
    info a web ".resync.$1"
}

resync_done_after() {
    js a info web | jq -e --argjson after "$1" \
        '.state == "replicating" and .resync.state == "done" and .resync.started > $after' >/dev/null
}

captured_after() {
    local time

    time=$(info b web '.latestInstance.timestamp // 0')
    [[ -n $time ]] && ((time > $1))
}

guest_is_off() {
    [[ $(virsh_on a domstate web) == 'shut off' ]]
}

is_resyncing() {
    [[ $(info b web .state) == resyncing ]]
}

# same_disk TARGET URI: the disk of the guest, which stands still, and of the export.
same_disk() {
    local path

    path=$(virsh_on a domblklist --details web | awk -v t="$1" '$3 == t { print $4 }')
    on a qemu-img convert -U -O raw "$path" "$WORK/old" &&
        on b qemu-img convert -f raw -O raw "$2" "$WORK/new" && cmp "$WORK/old" "$WORK/new"
}

same_disks() {
    local target uri n=0

    while read -r target uri; do
        same_disk "$target" "$uri" || return 1
        n=$((n + 1))
    done < <(jq -r '.disks[] | "\(.target) \(.uri)"' "$WORK/export")
    ((n == 2))
}

# exact NAME: the newest point has the guest's disks, byte by byte.
exact() {
    local paused_ms

    KEPT=$((KEPT + 1))
    virsh_on a suspend web
    paused_ms=$(date +%s%3N)
    wait_for "$BOOT" captured_after "$paused_ms"
    js b export web --name "kept-$KEPT" --wait | jq .result >"$WORK/export"
    check "$1" same_disks
    dr b unexport "kept-$KEPT" >&2
    virsh_on a resume web
}

kill_guest() {
    lab kill a qemu web
    wait_for "$PATIENCE" guest_is_off
    virsh_on a start web
    lab wait-guest a web --timeout "$BOOT" >&2
}

test_only_differences() {
    local begun_ms sent compared wire

    begun_ms=$(date +%s%3N)
    kill_guest
    comes_true "a VM whose QEMU was killed is compared by itself" "$BOOT" \
        resync_done_after "$begun_ms"
    sent=$(resync sentBytes) compared=$(resync comparedBytes) wire=$(resync wireBytes)
    is "  ... and not copied" "$(resync compare)" true
    check "  ... all that the disks hold was compared ($compared bytes)" \
        test "$compared" -ge $((BLOCKS * 4096))
    check "  ... a part of it travelled ($sent bytes)" test "$sent" -lt $((compared / 4))
    check "  ... with little beside it ($wire bytes)" \
        test "$wire" -lt $((sent * 11 / 10 + 2 * 64 * 1024 * 1024 / 500))
    exact "  ... and the replica is the same, byte by byte"
}

test_by_hand() {
    local before

    before=$(newest b web)
    exits 0 "a healthy VM is compared when asked" js a resync web --wait || return 0
    check "  ... with hardly anything sent" \
        jq -e '.result.compare and .result.sentBytes < .result.comparedBytes / 4' "$WORK/out"
    check "  ... and a point behind it" newest_above b web "$before"
    exact "  ... which is exact"
}

# So much differs, and the link is so slow, that the compare lasts long enough to be met.
begin_long_compare() {
    dr a pause web >&2
    lab wait-guest a web --blocks "$MORE" --timeout "$BOOT" >&2
    lab link b --rate 2mbit
    lab kill a qemu web
    wait_for "$PATIENCE" guest_is_off
    virsh_on a start web
    dr a resume web >&2
    comes_true "a compare is under way$1" "$BOOT" is_resyncing
}

# dies_amid HOST: virtdrd there, and the compare has not ended when it is back.
dies_amid() {
    lab kill "$1" virtdrd
    lab start "$1" virtdrd
    comes_true "killed on $1 amid it, virtdrd goes on with it" "$BOOT" is_resyncing
}

test_daemons_killed() {
    local begun_ms

    begun_ms=$(date +%s%3N)
    begin_long_compare " for long"
    dies_amid a
    dies_amid b
    lab link b --clear
    comes_true "  ... to its end" "$BOOT" resync_done_after "$begun_ms"
    lab wait-guest a web --timeout "$BOOT" >&2
    is "  ... comparing" "$(resync compare)" true
    exact "  ... and the replica is exact"
}

# found KEY: what the guest on b found on its disks, by its own account.
found() {
    lab console b web | grep '^found run=' | tail -n 1 | tr ' ' '\n' | sed -n "s/^$1=//p"
}

test_failover_amid() {
    begin_long_compare ", and a is lost"
    lab crash a
    lab link b --clear
    exits 0 "the point before it can be failed over to" js b failover web --wait || return 0
    check "  ... the guest goes on" lab wait-guest b web --timeout "$BOOT"
    is "  ... with nothing missing" "$(found missing)" 0
    is "  ... nothing torn" "$(found torn)" 0
    is "  ... and in order" "$(found order)" 0
}

verified() {
    [[ -n $(info a web '.lastVerify.outcome // empty') ]]
}

test_verify() {
    exits 0 "a replica that is the same is verified" js a verify web --wait || return 0
    is "  ... as the same" "$(jq -r .result.outcome "$WORK/out")" same
    is "  ... all of it" "$(jq .result.comparedBytes "$WORK/out")" $((2 * 64 * 1024 * 1024))
    comes_true "it is verified by itself, too" "$BOOT" verified
    is "  ... and is the same" "$(info a web .lastVerify.outcome)" same
}

# Where the replica of vdb keeps the block at 60 MiB now: a layer's file, and the offset in it.
place_of_block() {
    local folder=$1/disks layers depth offset

    mapfile -t layers < <(cd "$(host_file b "$folder")" && printf '%s\n' vdb.*.{raw,qcow2} | sort -r)
    read -r depth offset < <(on b qemu-img map -U --output json "$folder/${layers[0]}" |
        jq -r --argjson at $((60 * 1024 * 1024)) '.[]
            | select(.start <= $at and $at < .start + .length and .offset != null)
            | "\(.depth) \(.offset + $at - .start)"')
    echo "$folder/${layers[depth]} $offset"
}

all_is_applied() {
    captured_after "$2" && [[ $(jq .applied "$(host_file b "$1")/layout.json") == $(newest b web) ]]
}

# The guest stands still, or it might write the block anew.
test_verify_finds() {
    local file offset begun_ms

    virsh_on a suspend web >/dev/null
    comes_true "the guest stands still, and all that it wrote has arrived" "$PATIENCE" \
        all_is_applied "$(info b web .storeFolder)" "$(date +%s%3N)"
    read -r file offset < <(place_of_block "$(info b web .storeFolder)")
    begun_ms=$(date +%s%3N)
    head -c 4096 /dev/urandom |
        dd of="$(host_file b "$file")" bs=4096 seek=$((offset / 4096)) conv=notrunc status=none
    exits 0 "a block of the replica that was changed behind our back" js a verify web --wait || return 0
    is "  ... is found" "$(jq -r .result.outcome "$WORK/out")" different
    is "  ... where it is" "$(jq -r '.result.differences[0] | "\(.target) \(.offset)"' "$WORK/out")" \
        "vdb $((60 * 1024 * 1024))"
    check "  ... as the only one" jq -e '.result.differences | length == 1' "$WORK/out"
    check "  ... which is a critical event" has_event a replica-differs
    comes_true "  ... and is put right by itself" "$BOOT" resync_done_after "$begun_ms"
    exits 0 "  ... so that the replica" js a verify web --wait
    is "  ... is the same again" "$(jq -r .result.outcome "$WORK/out")" same
    exact "  ... byte by byte"
}

system_up
rm -f "$LAB_CONF_EXTRA"
guest a web --rate 400
check "a VM is protected" protect web --rpo 2s || bail_out "nothing to compare"
check "it has written a lot" lab wait-guest a web --blocks "$BLOCKS" --timeout "$BOOT"
advances "  ... which is replicated" web "$PATIENCE"
test_only_differences
test_by_hand
test_verify
test_verify_finds
test_daemons_killed
test_failover_amid
tests_done
