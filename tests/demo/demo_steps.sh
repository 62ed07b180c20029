# shellcheck shell=bash
# The steps of the demo. Part of quickstart. Each leaves what it found out in a file of $DEMO_WORK.

fill_cache() {
    lab cache
}

make_hosts() {
    lab up 2
}

pair_hosts() {
    local token

    token=$(on b virt-dr -q peer-invite)
    on a virt-dr peer-join "$token"
}

# Data that no block of the guest overwrites: the first sync has something to do.
fill_disk() {
    local folder=/var/lib/libvirt/images data

    data=$folder/fill-$1
    on a dd if=/dev/urandom of="$data" bs=1M count=64 status=none
    on a qemu-io -c "write -q -s $data 128M 64M" "$folder/$DEMO_VM-$1.qcow2"
    on a rm "$data"
}

start_guest() {
    lab guest a "$DEMO_VM" --no-start --autostart --disk-size 256MiB --span 32MiB --rate 100
    fill_disk vda
    fill_disk vdb
    on a virsh start "$DEMO_VM"
    lab wait-guest a "$DEMO_VM" --blocks 20 --timeout 120
}

protect_guest() {
    on a virt-dr protect "$DEMO_VM" --to b --rpo "${DEMO_RPO_S}s" --wait
    say "$(on a virt-dr -o json info "$DEMO_VM" | jq -r --arg vm "$DEMO_VM" '.statistics |
        "First sync of '\''\($vm)'\'' to b: \(.firstSyncBytes / 1048576 | round) MiB in \(
        .firstSyncMs / 100 | round / 10) s, while the guest went on writing."')"
}

percent_synced() {
    tr '\r' '\n' <"$STEP_LOG" | sed -n 's/.*first sync *\([0-9]*\)\.[0-9]*%.*/\1/p' | tail -n 1
}

run_guest() {
    sleep "$DEMO_RUN_S"
    lab wait-guest a "$DEMO_VM"
    on a virt-dr -o json info "$DEMO_VM" >"$DEMO_WORK/info.json"
    say "$(jq -r --arg s "$DEMO_RUN_S" '.statistics |
        "Ran for \($s) s: \(.cycles) recovery points, the newest at most \(
        .rpoSeenMax / 100 | round / 10) s old."' "$DEMO_WORK/info.json")"
}

percent_run() {
    local tenths

    tenths=$(($(date +%s%N) / 100000000 - $(stat -c %Y "$DEMO_WORK/protect_guest.log.said") * 10))
    ((tenths > DEMO_RUN_S * 10)) && echo 99 || echo $((tenths * 10 / DEMO_RUN_S))
}

lose_site() {
    lab crash a
    lab acked a "$DEMO_VM" >"$DEMO_WORK/acked.json"
    say "$(jq -r '"Site a is lost: no power, no network. Its guest had acknowledged \(
        .number) blocks."' "$DEMO_WORK/acked.json")"
}

fail_over() {
    date +%s%3N >"$DEMO_WORK/failover-begun"
    on b virt-dr -o json failover "$DEMO_VM" --wait >"$DEMO_WORK/task.json"
    say "$(jq -r --arg vm "$DEMO_VM" '.result |
        "Failed '\''\($vm)'\'' over to b: \(.rtoSeconds | . * 10 | round / 10) s until it was started."' \
        "$DEMO_WORK/task.json")"
}

guest_line() {
    lab console b "$DEMO_VM" 2>/dev/null | grep "^$1 "
}

# The last word is the guest's own: it reads its disks before it writes.
wait_for_guest() {
    local highest

    wait_until 180 guest_line found >/dev/null
    wait_until 60 guest_line ack >/dev/null
    date +%s%3N >"$DEMO_WORK/guest-back"
    guest_line found | head -n 1 >"$DEMO_WORK/found"
    highest=$(found_value highest)
    lab wait-guest b "$DEMO_VM" --blocks 20 --timeout 120
    say "The guest found blocks 1 to $highest on b, and goes on with block $((highest + 1))."
}

found_value() {
    sed -n "s/.* $1=\([0-9]*\).*/\1/p" "$DEMO_WORK/found"
}

# The layer below what the guest writes now: sealed, exactly what the failover recovered.
sealed_layer() {
    local overlay

    overlay=$(on b virsh domblklist "$DEMO_VM" | awk -v disk="$1" '$1 == disk { print $2 }')
    on b qemu-img info -U --output json "$overlay" | jq -er '."full-backing-filename"'
}

check_blocks() {
    local status=0 vda vdb

    vda=$(sealed_layer vda)
    vdb=$(sealed_layer vdb)
    lab check-disk --json --acked "$DEMO_WORK/acked.json" --host b --force-share "$vda" "$vdb" \
        >"$DEMO_WORK/check.json" || status=$?
    ((status <= 1)) || return "$status"
    say "$(jq -r '"Read the recovered disks block by block: \(.highest - .missing) of \(
        .acked) blocks are there, \(.torn) torn, \(.order) out of order."' "$DEMO_WORK/check.json")"
}

is_superseded() {
    [[ $(on a virt-dr -o json info "$DEMO_VM" | jq -r .state) == superseded ]]
}

bring_back() {
    lab boot a
    wait_until 60 is_superseded
}

guest_state() {
    on "$1" virsh domstate "$DEMO_VM" | head -n 1
}

# Autostart was on, and a person tries too.
try_guard() {
    local refused=false

    if ! on a virsh start "$DEMO_VM" 2>"$DEMO_WORK/guard" &&
        grep 'virt-dr refuses' "$DEMO_WORK/guard" && [[ $(guest_state a) == "shut off" ]]; then
        refused=true
        say "The guard on a refuses 'virsh start $DEMO_VM', and refused autostart at boot."
    else
        say "The guard on a did NOT refuse 'virsh start $DEMO_VM'."
    fi
    echo "$refused" >"$DEMO_WORK/guard-refused"
    [[ $(guest_state b) == running ]] && echo true >"$DEMO_WORK/guest-runs"
    lab wait-guest b "$DEMO_VM" --timeout 60
}
