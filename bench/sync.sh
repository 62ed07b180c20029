# shellcheck shell=bash
# The first sync: ours over TLS to the other host, nbdcopy and virtnbdbackup to a file. Part of bench/run.

SYNC_THEIRS=/bench-theirs

sync_ours() {
    local before

    warm a big
    fetch_memory "$(disk_bytes)"
    memory_forget_peaks
    before=$(cpu_ticks_of "$(virtdrd_pid a)" "$(virtdrd_pid b)" "$(qemu_pid a big)")
    virt_dr a protect big --to b --rpo 1h --wait >/dev/null
    SYNC_TICKS=$(($(cpu_ticks_of "$(virtdrd_pid a)" "$(virtdrd_pid b)" "$(qemu_pid a big)") - before))
    SYNC_PEAK=$(memory_mib VmHWM)
    read -r SYNC_BYTES SYNC_MS < <(on a virt-dr info big -o json |
        jq -r '.statistics | "\(.firstSyncBytes) \(.firstSyncMs)"')
}

backup_xml() {
    cat <<END
<domainbackup mode='pull'>
  <server transport='unix' socket='/var/lib/libvirt/bench.sock'/>
  <disks>
    <disk name='vda' backup='yes' type='file'>
      <scratch file='/var/lib/libvirt/bench.scratch'/>
    </disk>
  </disks>
</domainbackup>
END
}

# What is timed is the copy alone, not the job's beginning and end.
sync_nbdcopy() {
    local file=$SYNC_FOLDER/vda.raw before qemu output

    warm a big
    backup_xml >"$STATE/a/var/lib/libvirt/bench.xml"
    on a virsh -q backup-begin big /var/lib/libvirt/bench.xml >/dev/null
    rm -f "$file"
    fetch_memory "$(disk_bytes)"
    qemu=$(cpu_ticks "$(qemu_pid a big)")
    output=$({
        TIMEFORMAT='%R %U %S'
        time on a nbdcopy --flush "nbd+unix:///vda?socket=/var/lib/libvirt/bench.sock" "$file"
    } 2>&1) || fail "nbdcopy: $output"
    before=$qemu
    qemu=$(cpu_ticks "$(qemu_pid a big)")
    on a virsh -q domjobabort big
    rm -f "$file"
    read -r NBDCOPY_MS NBDCOPY_TICKS < <(awk -v q="$((qemu - before))" -v hz="$(getconf CLK_TCK)" \
        '{ printf "%d %d\n", $1 * 1000, ($2 + $3) * hz + q }' <<<"$output")
}

# It does not flush what it wrote; ours does, so this is added.
virtnbdbackup_full() {
    on a virtnbdbackup -n -l full -d big -o "$SYNC_FOLDER/full" -S /var/lib/libvirt &&
        sync "$SYNC_FOLDER"/full/*.data
}

sync_virtnbdbackup() {
    warm a big
    fetch_memory "$(disk_bytes)"
    VIRTNBDBACKUP_MS=$(milliseconds virtnbdbackup_full)
    on a virsh -q checkpoint-delete big virtnbdbackup.0 >/dev/null
    rm -rf "$SYNC_FOLDER/full"
}

bench_first_sync() {
    local i ours=() nbdcopy=() virtnbdbackup=() cpu=() cpu_theirs=() peaks=()

    SYNC_FOLDER=$STATE/b/var/lib/virt-dr/storage$SYNC_THEIRS
    mkdir -p "$SYNC_FOLDER"
    idle_guest big "$DISK"
    for ((i = 0; i < ROUNDS; i++)); do
        sync_ours
        ours+=("$(mb_per_s "$SYNC_BYTES" "$SYNC_MS")")
        cpu+=("$(per_gib "$SYNC_TICKS" "$SYNC_BYTES")")
        peaks+=("$SYNC_PEAK")
        virt_dr a unprotect big --wait >/dev/null
        sync_nbdcopy
        nbdcopy+=("$(mb_per_s "$SYNC_BYTES" "$NBDCOPY_MS")")
        cpu_theirs+=("$(per_gib "$NBDCOPY_TICKS" "$SYNC_BYTES")")
        if wanted first-sync-virtnbdbackup; then
            sync_virtnbdbackup
            virtnbdbackup+=("$(mb_per_s "$SYNC_BYTES" "$VIRTNBDBACKUP_MS")")
        fi
        note "first sync, round $((i + 1)): ${ours[-1]} MB/s, nbdcopy ${nbdcopy[-1]}," \
            "virtnbdbackup ${virtnbdbackup[*]: -1}; CPU ${cpu[-1]} s/GiB, nbdcopy ${cpu_theirs[-1]}"
    done
    row first-sync-nbdcopy "$(printf '%s\n' "${ours[@]}" | median)" \
        "$(printf '%s\n' "${nbdcopy[@]}" | median)"
    ! wanted first-sync-virtnbdbackup ||
        row first-sync-virtnbdbackup "$(printf '%s\n' "${ours[@]}" | median)" \
            "$(printf '%s\n' "${virtnbdbackup[@]}" | median)"
    row first-sync-cpu "$(printf '%s\n' "${cpu[@]}" | median)" \
        "$(printf '%s\n' "${cpu_theirs[@]}" | median)"
    row memory-rest "$(memory_mib VmRSS)" -
    row memory-first-sync "$(printf '%s\n' "${peaks[@]}" | sort -n | tail -n 1)" -
    rm -rf "$SYNC_FOLDER"
    drop_guest a big
}
