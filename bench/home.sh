# shellcheck shell=bash
# A VM that moves on purpose, and one that is replicated back after a crash. Part of bench/run.

HOME_DISK=1GiB
HOME_RATE=50           # blocks per second: a light load
HOME_ALLOWED_MS=1000   # for the move, beside the guest's own end and start
HOME_CRASH_BLOCKS=1000 # that each side writes alone

home_console() {
    echo "$STATE/$1/var/log/libvirt/console/$2.log"
}

# home_watch FILE PID: when this machine's clock sees acknowledged blocks come to a console, in us, as long as
# that process lives.
home_watch() {
    local line

    tail -q -n 0 -F -s 0.02 --pid="$2" "$1" 2>/dev/null | while IFS= read -r line; do
        [[ $line != *ack\ * ]] || now_us
    done
}

home_has_acks() {
    (($(wc -l <"$1") >= $2))
}

# The longest time without one, in ms.
home_gap() {
    sort -n "$@" | awk 'NR > 1 && $1 - last > gap { gap = $1 - last } { last = $1 } END { printf "%d\n", gap / 1000 }'
}

# home_pause OLD NEW COMMAND...: from the last block that is acknowledged on one console to the first one on the
# other (or the same), over a command that ends when the guest is started. Sets PAUSE_MS.
home_pause() {
    local folder old=$1 new=$2 clock watchers=()

    shift 2
    folder=$(mktemp -d)
    sleep 600 &
    clock=$!
    home_watch "$old" "$clock" >"$folder/1" &
    watchers+=($!)
    until_true 60 home_has_acks "$folder/1" 20
    home_watch "$new" "$clock" >"$folder/2" &
    watchers+=($!)
    "$@" >"$folder/out" 2>&1 || fail "'$*' failed: $(cat "$folder/out")"
    until_true 120 home_has_acks "$folder/2" $(($(wc -l <"$folder/2") + 20))
    kill "$clock"
    wait "${watchers[@]}" || true
    PAUSE_MS=$(home_gap "$folder/1" "$folder/2")
    rm -rf "$folder"
}

home_is_off() {
    [[ $(on a virsh -q domstate "$1") == "shut off" ]]
}

# What is typed without us: for the same guest on the same host.
home_stop_and_start() {
    on a virsh -q shutdown "$1" && until_true 60 home_is_off "$1" && on a virsh -q define "$STATE/$1.xml" &&
        on a virsh -q start "$1"
}

home_move() {
    on b virt-dr planned-failover "$1" --wait
}

home_guest() {
    "$LAB" guest a "$1" --disks 1 --disk-size "$2" --rate "$HOME_RATE" --span 16MiB
    on a virsh -q dumpxml --inactive "$1" >"$STATE/$1.xml"
    "$LAB" wait-guest a "$1" --timeout 120
}

home_replicates() {
    [[ $(on "$1" virt-dr info "$2" -o json | jq -r .state) == replicating ]]
}

bench_downtime() {
    local i ours=() theirs=()

    wanted planned-downtime || return 0
    for ((i = 1; i <= ROUNDS; i++)); do
        home_guest "pd$i" "$HOME_DISK"
        home_pause "$(home_console a "pd$i")" "$(home_console a "pd$i")" home_stop_and_start "pd$i"
        theirs+=("$PAUSE_MS")
        virt_dr a protect "pd$i" --to b --rpo 2s --wait >/dev/null
        home_pause "$(home_console a "pd$i")" "$(home_console b "pd$i")" home_move "pd$i"
        ours+=("$PAUSE_MS")
        on b virsh -q destroy "pd$i" >/dev/null
        virt_dr b unprotect "pd$i" --wait >/dev/null
    done
    note "planned failovers ${ours[*]} ms without an acknowledged block, shutdown and start ${theirs[*]} ms"
    row planned-downtime "$(printf '%s\n' "${ours[@]}" | median)" \
        "$(printf '%s\n' "${theirs[@]}" | median | awk -v ms="$HOME_ALLOWED_MS" '{ print $1 + ms }')"
}

# Bytes of the 4 KiB blocks in which a's old disk differs from that of b, where the guest stands still.
home_differing() {
    local new

    new=$(on b virsh -q domblklist --details "$1" | awk '$2 == "disk" { print $4 }')
    on a qemu-img convert -U -O raw "/var/lib/libvirt/images/$1-vda.qcow2" "$STATE/old.raw"
    on b qemu-img convert -U -O raw "$new" "$STATE/new.raw"
    { cmp -l "$STATE/old.raw" "$STATE/new.raw" || true; } |
        awk '{ b = int(($1 - 1) / 4096) } b != last { n++; last = b } END { print n * 4096 }'
    rm -f "$STATE/old.raw" "$STATE/new.raw"
}

bench_failback() {
    local differs sent number

    wanted failback-bytes || return 0
    home_guest fb "$HOME_DISK"
    virt_dr a protect fb --to b --rpo 2s --wait >/dev/null
    "$LAB" cut a
    number=$("$LAB" acked a fb | jq .number)
    "$LAB" wait-guest a fb --blocks $((number + HOME_CRASH_BLOCKS)) --timeout 300
    "$LAB" crash a
    until_true 120 source_is_away
    virt_dr b failover fb --wait >/dev/null
    "$LAB" wait-guest b fb --blocks "$HOME_CRASH_BLOCKS" --timeout 300
    on b virsh -q suspend fb
    "$LAB" heal a
    "$LAB" boot a
    until_true 120 eval '! source_is_away'
    differs=$(home_differing fb)
    virt_dr b reverse fb --wait >/dev/null
    until_true 300 home_replicates b fb
    sent=$(on b virt-dr info fb -o json | jq '.resync | [.sentBytes, .wireBytes] | max')
    on b virt-dr info fb -o json | jq -c .resync | sed 's/^/# failback: /' >&2
    row failback-bytes "$(awk -v b="$sent" 'BEGIN { printf "%.2f", b / 1e6 }')" \
        "$(awk -v b="$differs" 'BEGIN { printf "%.2f", b / 1e6 }')"
    on b virsh -q destroy fb >/dev/null
    virt_dr b unprotect fb --wait >/dev/null
}

bench_home() {
    bench_downtime
    bench_failback
}
