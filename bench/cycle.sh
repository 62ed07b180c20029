# shellcheck shell=bash
# One cycle of few changes, beside virtnbdbackup's incremental backup; going back to one of them.
# Part of bench/run.

CYCLE_DISK=256MiB
CYCLE_LITTLE=16 # blocks of 4 KiB
CYCLE_MORE=512
CYCLE_DEVICE=/machine/peripheral/virtio-disk0/virtio-backend

# write_blocks NAME N SEED: N blocks of 4 KiB at random places; the same for the same seed. QEMU says
# nothing of a write that went well.
write_blocks() {
    awk -v name="$1" -v n="$2" -v seed="$3" -v device="$CYCLE_DEVICE" 'BEGIN {
        srand(seed)
        for (i = 0; i < n; i++)
            printf "qemu-monitor-command %s --hmp '\''qemu-io -d %s \"write -P %d %d 4k\"'\''\n",
                name, device, 1 + seed % 250, int(rand() * 65536) * 4096
    }' | on a virsh -q >"$STATE/a/bench.write" 2>&1
    ! grep -vE '^(virsh # .*)?$' "$STATE/a/bench.write" >&2 || fail "writing into '$1'"
    rm -f "$STATE/a/bench.write"
}

cycle_ours() {
    local bytes ms

    write_blocks mine "$1" "$2"
    virt_dr a sync mine --wait >/dev/null
    read -r ms bytes < <(on a virt-dr info mine -o json |
        jq -r '.latestInstance | "\(.transferSeconds * 1000 | round) \(.transferBytes)"')
    ((bytes >= $1 * 2048)) || fail "a cycle after $1 blocks shipped $bytes bytes only"
    echo "$ms"
}

incremental() {
    on a virtnbdbackup -n -l "$1" -d theirs -o "$CYCLE_FOLDER" -S /var/lib/libvirt &&
        sync "$CYCLE_FOLDER"/*.data
}

cycle_theirs() {
    write_blocks theirs "$1" "$2"
    milliseconds incremental inc
}

# cycle_rounds BLOCKS: medians of ours and theirs.
cycle_rounds() {
    local i ours=() theirs=()

    for ((i = 0; i < ROUNDS; i++)); do
        CYCLE_SEED=$((CYCLE_SEED + 1))
        ours+=("$(cycle_ours "$1" "$CYCLE_SEED")")
        theirs+=("$(cycle_theirs "$1" "$CYCLE_SEED")")
    done
    note "cycles of $1 blocks: ${ours[*]} ms, virtnbdbackup ${theirs[*]} ms"
    CYCLE_OURS=$(printf '%s\n' "${ours[@]}" | median)
    CYCLE_THEIRS=$(printf '%s\n' "${theirs[@]}" | median)
}

# The point after so many cycles; the first sync's is 0.
point_id() {
    on b virt-dr points mine -o json |
        jq -r --argjson n "$1" '.items | sort_by(.sequenceNumber) | .[$n].id'
}

# recover_ours ID EXPORT
recover_ours() {
    virt_dr b export mine --point "$1" --name "$2" --wait
}

recover_theirs() {
    on a virtnbdrestore -n -a restore -i "$CYCLE_FOLDER" -o "$CYCLE_FOLDER-back" -u "virtnbdbackup.$1" \
        -L "$CYCLE_FOLDER/restore.log" && sync "$CYCLE_FOLDER-back"/*
}

# None is the newest, of which ours would not have to replay anything.
recover_rounds() {
    local i n id ours=() theirs=()

    for ((i = 0; i < ROUNDS; i++)); do
        n=$((ROUNDS + i))
        id=$(point_id "$n")
        ours+=("$(milliseconds recover_ours "$id" "bench-$n")")
        virt_dr b unexport "bench-$n" >/dev/null
        theirs+=("$(milliseconds recover_theirs "$n")")
        rm -rf "$CYCLE_FOLDER-back"
    done
    note "back to a point: ${ours[*]} ms, virtnbdrestore ${theirs[*]} ms"
    row recover-virtnbdrestore "$(printf '%s\n' "${ours[@]}" | median)" \
        "$(printf '%s\n' "${theirs[@]}" | median)"
}

bench_cycle() {
    CYCLE_SEED=0
    CYCLE_FOLDER=$STATE/b/var/lib/virt-dr/storage/bench-theirs
    idle_guest mine "$CYCLE_DISK"
    idle_guest theirs "$CYCLE_DISK"
    # No cycle but the ones that are asked for.
    virt_dr a protect mine --to b --rpo 1h --wait >/dev/null
    milliseconds incremental full >/dev/null
    cycle_rounds "$CYCLE_LITTLE"
    row cycle-little "$CYCLE_OURS" "$CYCLE_THEIRS"
    cycle_rounds "$CYCLE_MORE"
    row cycle-virtnbdbackup "$CYCLE_OURS" "$CYCLE_THEIRS"
    ! wanted recover-virtnbdrestore || recover_rounds
    virt_dr a unprotect mine --wait >/dev/null
    rm -rf "$CYCLE_FOLDER"
    drop_guest a mine
    drop_guest a theirs
}
