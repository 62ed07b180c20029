# shellcheck shell=bash
# A host: a network namespace on the lab's switch, and a mount namespace with its own folders.
# Part of lab. The mount namespace lives as long as the holder process does.

# What each host has for itself; outside it is $LAB_STATE/HOST/<the same path>.
HOST_FOLDERS=(etc/libvirt var/lib/libvirt var/cache/libvirt var/log/libvirt run/libvirt
    etc/virt-dr var/lib/virt-dr run/virt-dr var/log/virt-dr)

netns_of() {
    echo "vdrlab$LAB_ID-$1"
}

lab_is_ours() {
    [[ -f $LAB_STATE/.lab/marker && $(head -n 1 "$LAB_STATE/.lab/marker") == "virt-dr-lab $LAB_ID" ]]
}

host_names() {
    local folder

    for folder in "$LAB_STATE"/*/.lab; do
        [[ -d $folder ]] && basename "$(dirname "$folder")"
    done
    return 0
}

host_need() {
    lab_is_ours || fail "no lab with LAB_ID=$LAB_ID in $LAB_STATE; 'lab up' makes one"
    [[ ${1:-} =~ ^[a-z]$ && -d $LAB_STATE/$1/.lab ]] ||
        fail "host '${1:-}': no such host; there are: $(host_names | tr '\n' ' ')"
}

host_need_up() {
    host_need "${1:-}"
    host_is_up "$1" || fail "host '$1': it is down; 'lab boot $1' starts it"
}

host_is_up() {
    pid_alive "$LAB_STATE/$1/.lab/holder.pid"
}

host_index() {
    cat "$LAB_STATE/$1/.lab/index"
}

host_address() {
    echo "$LAB_NET.$((10 + $(host_index "$1")))"
}

# A name is ours because we wrote it down before we made it, having seen that nobody else had it.
netns_make() {
    local name=$1

    if ! grep -qx "$name" "$LAB_STATE/.lab/netns" 2>/dev/null; then
        [[ ! -e /run/netns/$name ]] ||
            fail "network namespace '$name' exists and is not this lab's; remove it by 'ip netns del $name'"
        echo "$name" >>"$LAB_STATE/.lab/netns"
    fi
    ip netns add "$name"
    ip -n "$name" link set dev lo up
}

netns_remove() {
    [[ -e /run/netns/$1 ]] || return 0
    netns_kill "$1"
    ip netns del "$1" 2>/dev/null || rm -f "/run/netns/$1"
}

switch_make() {
    local switch

    switch=$(netns_of switch)
    netns_make "$switch"
    ip -n "$switch" link add br0 type bridge stp_state 0 forward_delay 0
    ip -n "$switch" link set dev br0 up
}

host_plug() {
    local host=$1 netns switch index

    netns=$(netns_of "$host")
    switch=$(netns_of switch)
    index=$(host_index "$host")
    ip -n "$switch" link add name "port-$host" type veth peer name eth0 netns "$netns"
    ip -n "$netns" link set dev eth0 address "$(printf '02:76:64:%02x:00:%02x' "$LAB_ID" "$index")"
    ip -n "$netns" address add "$(host_address "$host")/24" dev eth0
    ip -n "$netns" link set dev eth0 up
    ip -n "$switch" link set dev "port-$host" master br0
    if [[ -e $LAB_STATE/$host/.lab/cut ]]; then
        ip -n "$switch" link set dev "port-$host" down
    else
        ip -n "$switch" link set dev "port-$host" up
    fi
}

# The folders that the machine lacks must be there to be mounted over. Those that we made are
# remembered, and removed when no lab uses them any more.
mountpoints_make() {
    local folder

    for folder in "${HOST_FOLDERS[@]}"; do
        [[ -d /$folder ]] && continue
        mkdir -p "/$folder"
        echo "/$folder" >>"$LAB_CACHE/mountpoints"
    done
}

# A process that ends while it is looked at is no reason to take a folder away from another lab.
mountpoint_is_used() {
    { cat /proc/[0-9]*/mountinfo 2>/dev/null || true; } | awk -v path="$1" '$5 == path { found = 1 }
        END { exit !found }'
}

mountpoints_drop() {
    local folder left=()

    [[ -s $LAB_CACHE/mountpoints ]] || return 0
    while read -r folder; do
        mountpoint_is_used "$folder" && left+=("$folder") && continue
        rmdir "$folder" 2>/dev/null || true
    done < <(sort -u "$LAB_CACHE/mountpoints")
    rm -f "$LAB_CACHE/mountpoints"
    ((${#left[@]} == 0)) || printf '%s\n' "${left[@]}" >"$LAB_CACHE/mountpoints"
}

# Runs as the holder, in fresh mount and uts namespaces: mounts, says so, and then only waits.
host_hold() {
    local host=$1 root=$LAB_STATE/$1 folder

    hostname "lab$LAB_ID-$host"
    umount -l /sys && mount -t sysfs sysfs /sys
    for folder in "${HOST_FOLDERS[@]}"; do
        mount --bind "$root/$folder" "/$folder"
    done
    mount --bind "$LAB_STATE/.lab/hosts" /etc/hosts
    # The machine's own services are not to be found from a lab host.
    [[ ! -d /run/dbus ]] || mount --bind "$LAB_STATE/.lab/empty" /run/dbus
    mount --bind "$LAB_CACHE" "$LAB_CACHE"
    mount -o remount,ro,bind "$LAB_CACHE"
    touch "$root/.lab/mounted"
    exec sleep infinity
}

host_mounted_or_dead() {
    [[ -e $LAB_STATE/$1/.lab/mounted ]] || ! pid_alive "$LAB_STATE/$1/.lab/holder.pid"
}

# Network and mounts, nothing that runs. The files were made by host_create.
host_attach() {
    local host=$1 own=$LAB_STATE/$1/.lab

    netns_make "$(netns_of "$host")"
    host_plug "$host"
    rm -f "$own/mounted"
    cache_lock
    mountpoints_make
    start_detached "$own/holder.pid" "$own/holder.log" nsenter --net="/run/netns/$(netns_of "$host")" \
        unshare --mount --uts --propagation private "$LAB_SELF" _hold "$host"
    wait_for 20 host_mounted_or_dead "$host" || fail "host '$host': mounts take too long"
    [[ -e $own/mounted ]] || fail "host '$host': mounts failed: $(tail -n 3 "$own/holder.log")"
    cache_unlock
}

# The cable first: a host without power sends no goodbye. The namespace goes too, with its sockets.
host_detach() {
    local host=$1 netns switch

    netns=$(netns_of "$host")
    switch=$(netns_of switch)
    ip -n "$switch" link set dev "port-$host" down 2>/dev/null || true
    [[ ! -e /run/netns/$netns ]] || netns_kill "$netns"
    ip -n "$switch" link del dev "port-$host" 2>/dev/null || true
    netns_remove "$netns"
}

# host_exec HOST COMMAND...: replaces nothing, returns the command's status.
host_exec() {
    local host=$1 holder

    shift
    holder=$(pid_read "$LAB_STATE/$host/.lab/holder.pid") || fail "host '$host': it is down"
    # shellcheck disable=SC2016 # expanded by the inner shell
    nsenter --net="/run/netns/$(netns_of "$host")" --mount="/proc/$holder/ns/mnt" \
        --uts="/proc/$holder/ns/uts" /bin/sh -c '
        cd "$1" 2>/dev/null || cd /
        PATH=$2/client:$2/daemon:$PATH
        VIRT_DR_LAB_HOST=$3
        export PATH VIRT_DR_LAB_HOST
        shift 3
        exec "$@"' lab "$PWD" "$LAB_BUILD" "$host" "$@"
}

command_exec() {
    host_need_up "${1:-}"
    (($# > 1)) || bad_usage "no command given"
    host_exec "$@"
}

command_cut() {
    host_need "${1:-}"
    touch "$LAB_STATE/$1/.lab/cut"
    ! host_is_up "$1" || ip -n "$(netns_of switch)" link set dev "port-$1" down
}

link_is_up() {
    ip -n "$(netns_of "$1")" link show eth0 | grep LOWER_UP >/dev/null
}

command_heal() {
    host_need "${1:-}"
    rm -f "$LAB_STATE/$1/.lab/cut"
    host_is_up "$1" || return 0
    ip -n "$(netns_of switch)" link set dev "port-$1" up
    wait_for 10 link_is_up "$1" || fail "host '$1': the link does not come up"
}

command_link() {
    local host=${1:-} netns switch

    host_need_up "$host"
    netns=$(netns_of "$host")
    switch=$(netns_of switch)
    case ${2:-} in
    --rate)
        [[ -n ${3:-} ]] || bad_usage "--rate needs a value"
        ip netns exec "$netns" tc qdisc replace dev eth0 root tbf rate "$3" burst 64k latency 100ms
        ip netns exec "$switch" tc qdisc replace dev "port-$host" root tbf rate "$3" burst 64k latency 100ms
        ;;
    --clear)
        ip netns exec "$netns" tc qdisc del dev eth0 root 2>/dev/null || true
        ip netns exec "$switch" tc qdisc del dev "port-$host" root 2>/dev/null || true
        ;;
    *) bad_usage "give --rate or --clear" ;;
    esac
}
