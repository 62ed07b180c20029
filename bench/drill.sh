# shellcheck shell=bash
# Test failover, beside what one would type for it, and the RPO meanwhile. Part of bench/run.

DRILL_IMAGES=/var/lib/libvirt/images
DRILL_RPO_S=60

# Until the domain runs: nothing is asked of the guest but that.
drill_ours() {
    virt_dr b test-failover "$1" --name "$1-drill" --check running:0s --wait
}

drill_define_and_start() {
    on b virsh -q define "$DRILL_IMAGES/$1.xml" && on b virsh -q start "$1"
}

drill_network_define_and_start() {
    on b virsh -q net-create "$DRILL_IMAGES/$1-net.xml" && drill_define_and_start "$1"
}

drill_end() {
    virt_dr b test-cleanup "$1" --wait >/dev/null
    on b virsh -q destroy "$1-twin" >/dev/null
    on b virsh -q undefine "$1-twin" >/dev/null
}

# A guest whose processors stand still: QEMU is there.
drill_guest() {
    "$LAB" guest a "$1" --disks 1 --disk-size 64MiB --rate 0 --cache writeback --no-start "${@:2}"
    fill_disk a "$1"
    on a virsh -q start "$1" --paused >/dev/null
    virt_dr a protect "$1" --to b --rpo 1h --wait >/dev/null
    make_twin "$1"
}

# drill_row NAME GUEST COMMAND: ours and theirs take turns.
drill_row() {
    local i ours=() theirs=()

    wanted "$1" || return 0
    for ((i = 1; i <= ROUNDS; i++)); do
        ours+=("$(milliseconds drill_ours "$2")")
        theirs+=("$(milliseconds "$3" "$2-twin")")
        drill_end "$2"
        on b virsh -q net-destroy "$2-twin-net" >/dev/null 2>&1 || true
    done
    note "$1: test failovers ${ours[*]} ms, virsh ${theirs[*]} ms"
    row "$1" "$(printf '%s\n' "${ours[@]}" | median)" "$(printf '%s\n' "${theirs[@]}" | median)"
}

drill_networks() {
    on a virsh -q net-create /dev/stdin >/dev/null <<<"<network><name>lan</name><bridge name='vlan0'/></network>"
    cat >"$STATE/b$DRILL_IMAGES/dn-twin-net.xml" <<END
<network><name>dn-twin-net</name><bridge name='vtwin0' stp='off' delay='0'/><dns enable='no'/>
<ip address='10.78.0.1' prefix='24'><dhcp><range start='10.78.0.10' end='10.78.0.99'/></dhcp></ip></network>
END
}

# Tests of a guest that writes, one after the other, as long as its points are watched.
drill_again_and_again() {
    while [[ -e $STATE/.lab/drilling ]]; do
        virt_dr b test-failover busy --clean-up --check running:1s --wait >/dev/null
    done
}

bench_drill_rpo() {
    local oldest n seen tests

    wanted test-rpo-held || return 0
    "$LAB" guest a busy --disks 2 --rate 50
    "$LAB" wait-guest a busy --blocks 100 --timeout 120
    virt_dr a protect busy --to b --rpo 5s --wait >/dev/null
    touch "$STATE/.lab/drilling"
    drill_again_and_again &
    tests=$!
    GUEST_RPO_S=$DRILL_RPO_S
    read -r oldest n < <(oldest_age "$GUEST_RPO_S")
    rm -f "$STATE/.lab/drilling"
    wait "$tests"
    seen=$(on a virt-dr info busy -o json | jq .statistics.rpoSeenMax)
    tests=$(on b virt-dr test-list busy -o json | jq '[.items[] | select(.result == "passed")] | length')
    ((tests > 0)) || fail "no test failover passed while the RPO was watched"
    note "with $tests test failovers: oldest age at the target $oldest ms in $n looks, at acknowledgements $seen ms"
    row test-rpo-held "$(awk -v a="$oldest" -v b="$seen" 'BEGIN { printf "%.2f", (a > b ? a : b) / 1000 }')" -
    virt_dr a unprotect busy --wait >/dev/null
    drop_guest a busy
}

bench_drill() {
    if wanted test-virsh; then
        drill_guest dr
        drill_row test-virsh dr drill_define_and_start
    fi
    if wanted test-network; then
        drill_networks
        drill_guest dn --network lan
        sed -i "s|network='lan'|network='dn-twin-net'|" "$STATE/b$DRILL_IMAGES/dn-twin.xml"
        drill_row test-network dn drill_network_define_and_start
    fi
    bench_drill_rpo
}
