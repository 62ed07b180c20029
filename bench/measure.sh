# shellcheck shell=bash
# Clocks, CPU time, memory and medians. Part of bench/run.

on() {
    "$LAB" exec "$@"
}

# virt_dr HOST ARGUMENTS...: progress goes nowhere, errors are shown once.
virt_dr() {
    local host=$1 errors

    shift
    errors=$(mktemp)
    if ! on "$host" virt-dr "$@" 2>"$errors"; then
        cat "$errors" >&2
        rm -f "$errors"
        fail "virt-dr $* on host '$host' failed"
    fi
    rm -f "$errors"
}

now_us() {
    echo "${EPOCHREALTIME/./}"
}

# milliseconds COMMAND...: how long it took; its output goes to stderr only if it failed.
milliseconds() {
    local begin output

    begin=$(now_us)
    output=$("$@" 2>&1) || fail "'$*' failed: $output"
    echo $((($(now_us) - begin) / 1000))
}

# until_true SECONDS COMMAND...
until_true() {
    local end=$(($(now_us) + $1 * 1000000))

    shift
    until "$@" >/dev/null 2>&1; do
        (($(now_us) < end)) || fail "'$*' did not come true in time"
        sleep 0.05
    done
}

median() {
    sort -n | awk '{ v[NR] = $1 } END { if (NR) print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'
}

virtdrd_pid() {
    cut -d ' ' -f 1 "$STATE/$1/.lab/virtdrd.pid"
}

qemu_pid() {
    cat "$STATE/$1/run/libvirt/qemu/$2.pid"
}

# Ticks of a process and of its children that run or have been waited for.
cpu_ticks() {
    local pid line fields sum=0

    for pid in "$1" $(cat "/proc/$1"/task/*/children 2>/dev/null); do
        read -r line <"/proc/$pid/stat" || continue
        read -ra fields <<<"${line##*) }"
        sum=$((sum + fields[11] + fields[12] + fields[13] + fields[14]))
    done
    echo "$sum"
}

# Sum of the ticks of several processes.
cpu_ticks_of() {
    local pid sum=0

    for pid in "$@"; do
        sum=$((sum + $(cpu_ticks "$pid")))
    done
    echo "$sum"
}

# Seconds per GiB out of ticks and bytes.
per_gib() {
    awk -v t="$1" -v hz="$(getconf CLK_TCK)" -v b="$2" \
        'BEGIN { printf "%.2f\n", t / hz / (b / 1073741824) }'
}

# mb_per_s BYTES MILLISECONDS
mb_per_s() {
    awk -v b="$1" -v ms="$2" 'BEGIN { printf "%.1f\n", b / 1000 / ms }'
}

# memory_mib FIELD: the larger one of the two daemons.
memory_mib() {
    awk -v f="$1:" '$1 == f && $2 > max { max = $2 } END { printf "%.1f\n", max / 1024 }' \
        "/proc/$(virtdrd_pid a)/status" "/proc/$(virtdrd_pid b)/status"
}

# The kernel's high-water marks begin anew.
memory_forget_peaks() {
    echo 5 >"/proc/$(virtdrd_pid a)/clear_refs"
    echo 5 >"/proc/$(virtdrd_pid b)/clear_refs"
}

# On a virtual machine free memory may be with the hypervisor, and getting it back takes longer than
# the copy that it is for. Ours needs little of it and theirs a page cache: both find it there.
# fetch_memory BYTES
fetch_memory() {
    local file=$STATE/b/var/lib/virt-dr/storage/memory

    head -c "$1" /dev/zero >"$file"
    rm "$file"
}

disk_bytes() {
    numfmt --from=iec-i "${DISK%B}"
}

# fill_disk HOST NAME: random content in the first disk of a guest that is shut off, holes at its end.
fill_disk() {
    local image=$STATE/$1/var/lib/libvirt/images/$2-vda.qcow2 raw=$STATE/$1/bench.raw size

    size=$(qemu-img info --output=json "$image" | jq '."virtual-size"')
    openssl enc -aes-128-ctr -pass pass:"$2" -nosalt -pbkdf2 </dev/zero 2>/dev/null |
        head -c $((size * FILL / 100)) >"$raw" || [[ ${PIPESTATUS[1]} == 0 ]]
    truncate -s "$size" "$raw"
    qemu-img convert -f raw -O qcow2 "$raw" "$image"
    rm -f "$raw"
    # Nothing that was written by us is still on its way to the disk when the clock runs.
    sync "$image"
}

# Both sides read the image from the page cache.
warm() {
    cat "$STATE/$1/var/lib/libvirt/images/$2-vda.qcow2" >/dev/null
}

# An idle machine without an operating system: QEMU is there, the CPU is stopped.
idle_guest() {
    local name=$1 size=$2

    "$LAB" guest a "$name" --disks 1 --disk-size "$size" --rate 0 --cache writeback --no-start
    fill_disk a "$name"
    on a virsh -q start "$name" --paused >/dev/null
}

drop_guest() {
    on "$1" virsh -q destroy "$2" >/dev/null
    on "$1" virsh -q undefine --checkpoints-metadata "$2" >/dev/null
    rm -f "$STATE/$1/var/lib/libvirt/images/$2"-vd?.qcow2
}
