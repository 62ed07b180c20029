# shellcheck shell=bash
# Does an acknowledgement wait for the apply; a thousand points, listed. Part of bench/run.

POINTS_DISK=100GiB # sparse; only what is written in its first 256 MiB takes space
POINTS_N=1000
POINTS_BLOCKS=64 # of 4 KiB, in a cycle whose acknowledgement is measured
POINTS_CYCLES=4  # of these in each round, with the apply held and with it running

points_layout() {
    echo "$STATE"/b/var/lib/virt-dr/storage/*/layout.json
}

# The target's storage daemon, which the apply writes through: a child of its virtdrd.
storage_daemon() {
    local pid children

    read -ra children < <(cat "/proc/$(virtdrd_pid b)"/task/*/children | xargs)
    for pid in "${children[@]}"; do
        if [[ $(cat "/proc/$pid/comm") == qemu-storage-da ]]; then
            echo "$pid"
            return
        fi
    done
    return 1
}

points_applied() {
    jq .applied "$(points_layout)"
}

points_newest() {
    on b virt-dr points many --limit 1 -o json | jq '[.items[].sequenceNumber] | max'
}

all_is_applied() {
    [[ $(points_applied) == "$(points_newest)" ]]
}

# Its acknowledgement in ms.
points_cycle() {
    POINTS_SEED=$((POINTS_SEED + 1))
    write_blocks many "$1" "$POINTS_SEED"
    virt_dr a sync many --wait >/dev/null
    POINTS_MS=$(on a virt-dr info many -o json | jq '.latestInstance.transferSeconds * 1000 | round')
}

# With the storage daemon stopped nothing can be applied; that nothing was is looked at.
points_held() {
    local pid applied i

    until pid=$(storage_daemon); do
        points_cycle "$POINTS_BLOCKS"
        until_true 60 all_is_applied
    done
    applied=$(points_applied)
    kill -STOP "$pid"
    for ((i = 0; i < POINTS_CYCLES; i++)); do
        points_cycle "$POINTS_BLOCKS"
        POINTS_HELD+=("$POINTS_MS")
    done
    [[ $(points_applied) == "$applied" ]] || fail "cycles were applied though the storage daemon is stopped"
    kill -CONT "$pid"
    until_true 60 all_is_applied
}

points_running() {
    local i

    for ((i = 0; i < POINTS_CYCLES; i++)); do
        points_cycle "$POINTS_BLOCKS"
        POINTS_RUNNING+=("$POINTS_MS")
    done
    until_true 60 all_is_applied
}

points_acks() {
    local i

    POINTS_HELD=()
    POINTS_RUNNING=()
    for ((i = 0; i < ROUNDS; i++)); do
        points_held
        points_running
    done
    note "acknowledgements with the apply held: ${POINTS_HELD[*]} ms, running: ${POINTS_RUNNING[*]} ms"
    row ack-apply-held "$(printf '%s\n' "${POINTS_HELD[@]}" | median)" \
        "$(printf '%s\n' "${POINTS_RUNNING[@]}" | median)"
}

# points_grow N: so many cycles of one block each, by programs that stay there: to start virsh for each
# takes as long as a cycle. A write that comes too late for its cycle is in the next one.
points_grow() {
    # shellcheck disable=SC2016 # expanded there
    on a bash -c 'exec 3> >(exec virsh -q >/dev/null)
        for ((i = 0; i < $1; i++)); do
            write="write -P $((1 + RANDOM % 250)) $((RANDOM * 4096)) 4k"
            echo "qemu-monitor-command many --hmp \"qemu-io -d $2 \\\"$write\\\"\"" >&3
            virt-dr sync many --wait || exit 1
        done' bash "$1" "$CYCLE_DEVICE"
}

points_count() {
    on b virt-dr points many -o json | jq '.items | length'
}

# The whole command, but not what it takes to get onto the host.
list_points() {
    # shellcheck disable=SC2016 # expanded there
    on b bash -c 'begin=${EPOCHREALTIME/./}
        virt-dr points many >/dev/null && echo $(((${EPOCHREALTIME/./} - begin) / 1000))' ||
        fail "'virt-dr points' failed"
}

points_list() {
    local i n before=0 times=()

    until_true 60 all_is_applied
    while n=$(points_count) && ((n < POINTS_N)); do
        ((n > before)) || fail "no more than $n points are made"
        before=$n
        note "$((POINTS_N - n)) more points in $(milliseconds points_grow $((POINTS_N - n))) ms"
    done
    for ((i = 0; i < ROUNDS; i++)); do
        times+=("$(list_points)")
    done
    note "virt-dr points of $n points: ${times[*]} ms"
    row points-1000 "$(printf '%s\n' "${times[@]}" | median)" -
}

bench_points() {
    POINTS_SEED=0
    # Raw, so that it is captured by bitmaps: a thousand of those take half of the time.
    "$LAB" guest a many --disks 1 --disk-size "$POINTS_DISK" --rate 0 --format raw --cache writeback --no-start
    on a virsh -q start many --paused >/dev/null
    virt_dr a protect many --to b --rpo 1h --wait >/dev/null
    ! wanted ack-apply-held || points_acks
    ! wanted points-1000 || points_list
    virt_dr a unprotect many --wait >/dev/null
    drop_guest a many
}
