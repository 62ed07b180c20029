# shellcheck shell=bash
# The bitmap capture of a raw disk under random writes of 4 KiB that cannot be compressed. Part of
# bench/run.

BITMAP_LITTLE=16
BITMAP_BLOCKS=2048

# write_random N SEED: N different blocks.
write_random() {
    head -c 4096 /dev/urandom >"$STATE/a/var/lib/libvirt/images/bench.block"
    awk -v n="$1" -v seed="$2" -v device="$CYCLE_DEVICE" 'BEGIN {
        srand(seed)
        for (i = 0; i < n; i++) {
            do block = int(rand() * 65536); while (block in seen)
            seen[block]
            printf "qemu-monitor-command rawdisk --hmp '\''qemu-io -d %s \"write -s /var/lib/libvirt/images/bench.block %d 4k\"'\''\n",
                device, block * 4096
        }
    }' | on a virsh -q >"$STATE/a/bench.write" 2>&1
    ! grep -vE '^(virsh # .*)?$' "$STATE/a/bench.write" >&2 || fail "writing into 'rawdisk'"
    rm -f "$STATE/a/bench.write"
}

wire_bytes() {
    on a virt-dr info rawdisk -o json | jq .statistics.wireBytes
}

# One cycle: sets BITMAP_MS, BITMAP_READ and BITMAP_SENT (bytes).
bitmap_round() {
    local before

    write_random "$1" "$2"
    before=$(wire_bytes)
    virt_dr a sync rawdisk --wait >/dev/null
    read -r BITMAP_MS BITMAP_READ < <(on a virt-dr info rawdisk -o json |
        jq -r '.latestInstance | "\(.transferSeconds * 1000 | round) \(.transferBytes)"')
    BITMAP_SENT=$(($(wire_bytes) - before))
}

bench_bitmap() {
    local i ms=() ratios=()

    "$LAB" guest a rawdisk --disks 1 --disk-size 256MiB --rate 0 --format raw --cache writeback --no-start
    on a virsh -q start rawdisk --paused >/dev/null
    virt_dr a protect rawdisk --to b --rpo 1h --wait >/dev/null
    [[ $(on a virt-dr info rawdisk -o json | jq -r .capture.driver) == bitmap ]] || fail "not captured by bitmaps"
    for ((i = 1; i <= ROUNDS; i++)); do
        bitmap_round "$BITMAP_LITTLE" "$i"
        ms+=("$BITMAP_MS")
        bitmap_round "$BITMAP_BLOCKS" "10$i"
        ratios+=("$(awk -v r="$BITMAP_READ" -v s="$BITMAP_SENT" -v c=$((BITMAP_BLOCKS * 4096)) \
            'BEGIN { printf "%.3f", (r > s ? r : s) / c }')")
        note "bitmap: $BITMAP_LITTLE blocks in ${ms[-1]} ms; of $BITMAP_BLOCKS blocks $BITMAP_READ bytes read," \
            "$BITMAP_SENT sent, in $BITMAP_MS ms"
    done
    row bitmap-cycle "$(printf '%s\n' "${ms[@]}" | median)" -
    row bitmap-bytes "$(printf '%s\n' "${ratios[@]}" | median)" -
    virt_dr a unprotect rawdisk --wait >/dev/null
    on a virsh -q destroy rawdisk >/dev/null
    on a virsh -q undefine rawdisk >/dev/null
    rm -f "$STATE"/a/var/lib/libvirt/images/{rawdisk-vda.raw,bench.block}
}
