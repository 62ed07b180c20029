# shellcheck shell=bash
# The replica store without the daemons around it, by bench/store_bench. Part of bench/run.

STORE_DISK=100GiB
STORE_CONTENT=256MiB
STORE_POINTS=999 # and the one that a replica begins with
STORE_MARK_EVERY=20
STORE_CYCLE=4MiB
STORE_REPLAYED=14 # journals, and how large; by default 256 MiB make a mark
STORE_REPLAYED_SIZE=16MiB
STORE_THIN_CYCLES=60
STORE_THIN_MARK_EVERY=4
STORE_THIN_WINDOW=20

store_bench() {
    local command=$1 name=$2

    shift 2
    "${LAB_BUILD:-$BENCH_SOURCE/..}/bench/store_bench" "$command" "$STORE_FOLDER/$name" "$@" ||
        fail "store_bench $command '$name' failed"
}

bytes_of() {
    numfmt --from=iec-i "${1%B}"
}

store_tip() {
    jq -r --arg folder "$STORE_FOLDER/$1" '"\($folder)/disks/\(.disks[0].layers[-1])"' \
        "$STORE_FOLDER/$1/layout.json"
}

bare_overlay() {
    qemu-img create -q -f qcow2 -F qcow2 -b "$(store_tip "$1")" "$STORE_FOLDER/theirs.qcow2"
}

# What is there: a disk of 100 GiB, a thousand points, a mark at each twentieth.
store_recover() {
    local i latest=() theirs=() window=() opens=() seq opened cycled

    store_bench make many "$STORE_DISK" "$STORE_CONTENT"
    store_bench grow many "$STORE_POINTS" 64KiB "$STORE_MARK_EVERY" >/dev/null
    for ((i = 0; i < ROUNDS; i++)); do
        read -r opened cycled < <(store_bench open many)
        opens+=("$cycled")
        latest+=("$(store_bench latest many "$STORE_CYCLE")")
        theirs+=("$(milliseconds bare_overlay many)")
        seq=$((1 + RANDOM % STORE_POINTS))
        window+=("$(store_bench overlay many "$seq")")
        note "store of $((STORE_POINTS + 1)) points, round $((i + 1)): open $opened ms, with a cycle" \
            "applied ${opens[-1]}; overlay of the latest ${latest[-1]} ms, qemu-img create" \
            "${theirs[-1]}, of point $seq ${window[-1]} ms"
    done
    row recover-latest "$(printf '%s\n' "${latest[@]}" | median)" \
        "$(printf '%s\n' "${theirs[@]}" | median)"
    row recover-window "$(printf '%s\n' "${window[@]}" | median)" -
    row open-1000 "$(printf '%s\n' "${opens[@]}" | median)" -
}

# Each byte of the chain below the tip, into a file of its own.
full_copy() {
    qemu-img convert -f qcow2 -O qcow2 "$(store_tip "$1")" "$STORE_FOLDER/theirs.qcow2" &&
        sync "$STORE_FOLDER/theirs.qcow2"
}

# The difference between a point that is one journal behind a mark and one that is many more behind
# it: what a replay costs before its first byte belongs to the second of recover-window. The newest
# point would be none: the tip is sealed for it.
store_replay() {
    local i bytes last near far copied ours=() theirs=()

    store_bench make replay 4GiB "$STORE_CONTENT"
    last=$(store_bench grow replay $((STORE_REPLAYED + 2)) "$STORE_REPLAYED_SIZE" 0)
    bytes=$((STORE_REPLAYED * $(bytes_of "$STORE_REPLAYED_SIZE")))
    for ((i = 0; i < ROUNDS; i++)); do
        near=$(store_bench overlay replay 2)
        far=$(store_bench overlay replay $((last - 1)))
        ours+=("$(mb_per_s "$bytes" "$(awk "BEGIN { print $far - $near }")")")
        rm -f "$STORE_FOLDER/theirs.qcow2"
        copied=$(milliseconds full_copy replay)
        theirs+=("$(mb_per_s "$(stat -c %s "$STORE_FOLDER/theirs.qcow2")" "$copied")")
        note "replay, round $((i + 1)): overlay of a point $near ms, of one $((bytes >> 20)) MiB later" \
            "$far ms: ${ours[-1]} MB/s, qemu-img convert ${theirs[-1]} MB/s in $copied ms"
    done
    row replay-rate "$(printf '%s\n' "${ours[@]}" | median)" \
        "$(printf '%s\n' "${theirs[@]}" | median)"
}

store_thin() {
    local i ms layers marks journals times=() most=()

    for ((i = 0; i < ROUNDS; i++)); do
        store_bench make "thin$i" "$STORE_CONTENT" "$STORE_CONTENT"
        read -r ms layers marks journals < <(store_bench thin "thin$i" "$STORE_THIN_CYCLES" \
            "$STORE_CYCLE" "$STORE_THIN_MARK_EVERY" "$STORE_THIN_WINDOW")
        note "thinning, round $((i + 1)): $ms ms for each of $STORE_THIN_CYCLES cycles; never more than" \
            "$layers layers, $marks marks, $journals journals"
        times+=("$ms")
        most+=("$layers")
        rm -rf "$STORE_FOLDER/thin$i"
    done
    row thin-keeps-up "$(printf '%s\n' "${times[@]}" | median)" -
    row thin-layers "$(printf '%s\n' "${most[@]}" | sort -n | tail -n 1)" -
}

# hash_replica NAME: without the checksums' own files, which a scrub does not count.
hash_replica() {
    find "$STORE_FOLDER/$1/disks" "$STORE_FOLDER/$1/journal" -type f ! -name '*.sums' -print0 |
        xargs -0 xxhsum -q -H3
}

# The disk is full, so that both read all of each file; from the page cache.
store_scrub() {
    local i ms bytes ours=() theirs=()

    store_bench make scrub "$DISK" "$DISK"
    store_bench grow scrub 16 "$STORE_CYCLE" 4 >/dev/null
    for ((i = 0; i < ROUNDS; i++)); do
        read -r ms bytes < <(store_bench scrub scrub)
        ours+=("$(mb_per_s "$bytes" "$ms")")
        theirs+=("$(mb_per_s "$bytes" "$(milliseconds hash_replica scrub)")")
        note "scrub of $((bytes >> 20)) MiB, round $((i + 1)): ${ours[-1]} MB/s, xxhsum ${theirs[-1]} MB/s"
    done
    row scrub-xxhsum "$(printf '%s\n' "${ours[@]}" | median)" \
        "$(printf '%s\n' "${theirs[@]}" | median)"
}

bench_store() {
    STORE_FOLDER=$STATE/b/var/lib/virt-dr/storage/bench-store
    mkdir -p "$STORE_FOLDER"
    if wanted recover-latest || wanted recover-window || wanted open-1000; then
        store_recover
    fi
    ! wanted replay-rate || store_replay
    if wanted thin-keeps-up || wanted thin-layers; then
        store_thin
    fi
    ! wanted scrub-xxhsum || store_scrub
    rm -rf "$STORE_FOLDER"
}
