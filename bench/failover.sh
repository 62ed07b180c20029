# shellcheck shell=bash
# Failover, beside define and start of the same definition on an equal overlay. Part of bench/run.

FAILOVER_IMAGES=/var/lib/libvirt/images

source_is_away() {
    on b virt-dr peer-list -o json | jq -e '.items[0].state | . != "connected"'
}

failover_ours() {
    virt_dr b failover "$1" --wait
}

define_and_start() {
    on b virsh -q define "$FAILOVER_IMAGES/$1.xml" && on b virsh -q start "$1"
}

# The twin of a guest: its own name, its own base with the same content, an overlay on that.
make_twin() {
    local guest=$1 twin=$1-twin folder=$STATE/b$FAILOVER_IMAGES

    cp "$STATE/a$FAILOVER_IMAGES/$guest-vda.qcow2" "$folder/$twin-base.qcow2"
    on b qemu-img create -q -f qcow2 -F qcow2 -b "$FAILOVER_IMAGES/$twin-base.qcow2" \
        "$FAILOVER_IMAGES/$twin-vda.qcow2"
    sed "s|<name>$guest</name>|<name>$twin</name>|; s|/$guest-vda|/$twin-vda|; s|/$guest\.log|/$twin.log|" \
        "$STATE/a/.lab/$guest.xml" >"$folder/$twin.xml"
}

bench_failover() {
    local i ours=() theirs=()

    for ((i = 1; i <= ROUNDS; i++)); do
        idle_guest "fo$i" 64MiB
        virt_dr a protect "fo$i" --to b --rpo 1h --wait >/dev/null
        make_twin "fo$i"
    done
    "$LAB" crash a
    until_true 120 source_is_away
    for ((i = 1; i <= ROUNDS; i++)); do
        ours+=("$(milliseconds failover_ours "fo$i")")
        on b virsh -q domstate "fo$i" | grep -q running || fail "'fo$i' does not run after its failover"
        on b virsh -q destroy "fo$i" >/dev/null
        theirs+=("$(milliseconds define_and_start "fo$i-twin")")
        on b virsh -q destroy "fo$i-twin" >/dev/null
    done
    note "failovers: ${ours[*]} ms, virsh ${theirs[*]} ms"
    row failover-virsh "$(printf '%s\n' "${ours[@]}" | median)" \
        "$(printf '%s\n' "${theirs[@]}" | median)"
}
