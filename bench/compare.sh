# shellcheck shell=bash
# A compare of a disk of which one block in a hundred differs. Part of bench/run.

COMPARE_DEVICE=/machine/peripheral/virtio-disk0/virtio-backend
COMPARE_PATTERN=/var/lib/libvirt/images/bench.pattern

# change_blocks N BLOCKS SEED: N of the disk's blocks of 4 KiB, at random places, get random content.
change_blocks() {
    head -c 4096 /dev/urandom >"$STATE/a$COMPARE_PATTERN"
    chmod 644 "$STATE/a$COMPARE_PATTERN"
    awk -v n="$1" -v blocks="$2" -v seed="$3" -v device="$COMPARE_DEVICE" -v file="$COMPARE_PATTERN" 'BEGIN {
        srand(seed)
        while (done < n) {
            at = int(rand() * blocks)
            if (at in taken)
                continue
            taken[at] = 1
            done++
            printf "qemu-monitor-command cmp --hmp '\''qemu-io -d %s \"write -s %s %.0f 4k\"'\''\n",
                device, file, at * 4096
        }
    }' | on a virsh -q >"$STATE/a/bench.write" 2>&1
    ! grep -vE '^(virsh # .*)?$' "$STATE/a/bench.write" >&2 || fail "writing into 'cmp'"
    rm -f "$STATE/a/bench.write"
}

# The disk of the guest as its QEMU shows it, to nowhere.
read_source() {
    local ms

    sed 's/bench\.sock/compare.sock/; s/bench\.scratch/compare.scratch/' <(backup_xml) \
        >"$STATE/a/var/lib/libvirt/compare.xml"
    on a virsh -q backup-begin cmp /var/lib/libvirt/compare.xml >/dev/null
    ms=$(milliseconds on a nbdcopy "nbd+unix:///vda?socket=/var/lib/libvirt/compare.sock" null:)
    on a virsh -q domjobabort cmp
    echo "$ms"
}

# The replica's images, as a storage daemon shows them, to nowhere.
read_target() {
    local tip

    tip=$(printf '%s\n' "$1"/disks/vda.*.qcow2 | sort | tail -n 1)
    milliseconds nbdcopy -- [ qemu-nbd -r --image-opts \
        "driver=qcow2,force-share=on,file.driver=file,file.filename=$tip" ] null:
}

# Both disks are read from the page cache, by us and by nbdcopy; what a cycle writes finds its memory.
compare_ready() {
    warm a cmp
    cat "$1"/disks/* >/dev/null
    fetch_memory "$(($(disk_bytes) / 4))"
}

compare_ticks() {
    cpu_ticks_of "$(virtdrd_pid a)" "$(virtdrd_pid b)" "$(qemu_pid a cmp)"
}

compare_round() {
    local blocks=$1 seed=$2 store source target before

    store=$STATE/b$(on b virt-dr info cmp -o json | jq -r .storeFolder)
    change_blocks $((blocks / 100)) "$blocks" "$seed"
    compare_ready "$store"
    before=$(compare_ticks)
    virt_dr a resync cmp --wait >/dev/null
    COMPARE_TICKS=$(($(compare_ticks) - before))
    read -r COMPARE_MS COMPARE_SENT COMPARE_WIRE < <(on a virt-dr info cmp -o json |
        jq -r '.resync | "\(.ended - .started) \(.sentBytes) \(.wireBytes)"')
    ((COMPARE_SENT >= blocks / 100 * 4096)) || fail "a compare sent $COMPARE_SENT bytes only"
    source=$(read_source)
    target=$(read_target "$store")
    COMPARE_THEIRS_MS=$((source > target ? source : target))
    note "compare: $COMPARE_MS ms, $COMPARE_SENT bytes sent, $COMPARE_WIRE on the wire;" \
        "$(per_gib "$COMPARE_TICKS" $((blocks * 4096))) s/GiB of processors;" \
        "nbdcopy of the source $source ms, of the replica $target ms"
}

bench_compare() {
    local i bytes ours=() theirs=() wire=() cpu=()

    bytes=$(disk_bytes)
    idle_guest cmp "$DISK"
    virt_dr a protect cmp --to b --rpo 1h --wait >/dev/null
    for ((i = 1; i <= ROUNDS; i++)); do
        compare_round $((bytes / 4096)) "$i"
        ours+=("$(mb_per_s "$bytes" "$COMPARE_MS")")
        theirs+=("$(mb_per_s "$bytes" "$COMPARE_THEIRS_MS")")
        cpu+=("$(per_gib "$COMPARE_TICKS" "$bytes")")
        wire+=("$(awk -v w="$COMPARE_WIRE" 'BEGIN { printf "%.2f", w / 1e6 }')")
    done
    row compare-bytes "$(printf '%s\n' "${wire[@]}" | median)" \
        "$(awk -v b="$bytes" 'BEGIN { printf "%.2f", (int(b / 4096 / 100) * 4096 * 1.1 + b * 0.002) / 1e6 }')"
    row compare-speed "$(printf '%s\n' "${ours[@]}" | median)" "$(printf '%s\n' "${theirs[@]}" | median)"
    row compare-cpu "$(printf '%s\n' "${cpu[@]}" | median)" -
    virt_dr a unprotect cmp --wait >/dev/null
    drop_guest a cmp
}
