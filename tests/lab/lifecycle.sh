# shellcheck shell=bash
# up, down, crash, boot. Part of lab.

host_create() {
    local host=$1 root=$LAB_STATE/$1 folder

    mkdir -p "$root/.lab"
    echo "$2" >"$root/.lab/index"
    for folder in "${HOST_FOLDERS[@]}"; do
        mkdir -p "$root/$folder"
    done
    mkdir -p "$root/var/lib/libvirt/images" "$root/var/log/libvirt/console" \
        "$root/var/lib/virt-dr/storage" "$root/var/lib/virt-dr/scratch"
    write_libvirt_conf "$host"
    write_virtdr_conf "$host"
}

# The folder is also the lock: of two that start the same lab, one fails here.
state_create() {
    mkdir -p "$(dirname "$LAB_STATE")"
    mkdir "$LAB_STATE" 2>/dev/null ||
        fail "$LAB_STATE exists; 'lab down' removes an old lab, or set another LAB_ID"
    mkdir "$LAB_STATE/.lab" "$LAB_STATE/.lab/empty"
    printf 'virt-dr-lab %s\nboot %s\n' "$LAB_ID" "$(cat /proc/sys/kernel/random/boot_id)" \
        >"$LAB_STATE/.lab/marker"
    : >"$LAB_STATE/.lab/netns"
}

write_hosts_file() {
    local host

    echo "127.0.0.1 localhost" >"$LAB_STATE/.lab/hosts"
    for host in "$@"; do
        echo "$(host_address "$host") $host lab$LAB_ID-$host" >>"$LAB_STATE/.lab/hosts"
    done
}

# The hosts start at the same time, as those of two sites would.
start_hosts() {
    local host failed=0 jobs=()

    for host in "$@"; do
        host_attach "$host"
        host_start_daemons "$host" &
        jobs+=("$!")
    done
    for job in "${jobs[@]}"; do
        wait "$job" || failed=1
    done
    ((failed == 0)) || fail "not all hosts came up; 'lab down' cleans up"
}

command_up() {
    local count=2 daemon=1 hosts=() i

    while (($# > 0)); do
        case $1 in
        --no-daemon) daemon=0 ;;
        [1-9]) count=$1 ;;
        *) bad_usage "'$1' is not a number of hosts from 1 to 9" ;;
        esac
        shift
    done
    cache_fill
    state_create
    ((daemon)) || touch "$LAB_STATE/.lab/no-daemon"
    for ((i = 1; i <= count; i++)); do
        hosts+=("$(printf '%b' "\\x$(printf '%x' $((96 + i)))")")
        host_create "${hosts[-1]}" "$i"
    done
    write_hosts_file "${hosts[@]}"
    switch_make
    start_hosts "${hosts[@]}"
    if ((daemon)) && [[ ! -f $LAB_BUILD/daemon/virtdrd ]]; then
        note "no $LAB_BUILD/daemon/virtdrd: hosts run libvirtd only"
    fi
}

command_crash() {
    local host=${1:-}

    host_need_up "$host"
    host_detach "$host"
    # What a power cut takes with it because it is on tmpfs.
    find "$LAB_STATE/$host/run/libvirt" "$LAB_STATE/$host/run/virt-dr" -mindepth 1 -delete
    rm -f "$LAB_STATE/$host/.lab/"*.pid
}

command_boot() {
    local host=${1:-}

    host_need "$host"
    ! host_is_up "$host" || fail "host '$host': it is up already"
    host_detach "$host"
    host_attach "$host"
    host_start_daemons "$host"
}

# Recorded processes that left their namespace; only if the machine has not been rebooted since.
kill_recorded() {
    local file pid

    grep -qx "boot $(cat /proc/sys/kernel/random/boot_id)" "$LAB_STATE/.lab/marker" || return 0
    for file in "$LAB_STATE"/*/.lab/*.pid; do
        if pid=$(pid_read "$file" 2>/dev/null); then
            kill -KILL "$pid" 2>/dev/null || true
        fi
    done
}

# Loop devices are found by the inode behind them: their path may be one of a namespace that is gone.
detach_loops() {
    local name inode

    losetup -l -n -O NAME,BACK-INO 2>/dev/null | while read -r name inode; do
        [[ -n $(find "$LAB_STATE" -inum "$inode" -print -quit) ]] || continue
        umount -l "$name" 2>/dev/null || true
        losetup -d "$name"
    done
}

unmount_all() {
    awk -v prefix="$LAB_STATE/" 'index($5, prefix) == 1 { print $5 }' /proc/self/mountinfo |
        sort -r | while read -r path; do
        umount -l "$path"
    done
}

command_down() {
    local name

    [[ -e $LAB_STATE ]] || return 0
    lab_is_ours || fail "$LAB_STATE has no marker of lab $LAB_ID; it is not the lab's and is left alone"
    while read -r name; do
        [[ $name == "vdrlab$LAB_ID-"* ]] && netns_remove "$name"
    done <"$LAB_STATE/.lab/netns"
    kill_recorded
    detach_loops
    unmount_all
    rm -rf --one-file-system "$LAB_STATE"
    [[ ! -d $LAB_CACHE ]] || { cache_lock && mountpoints_drop && cache_unlock; }
}
