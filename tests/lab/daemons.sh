# shellcheck shell=bash
# libvirtd and virtdrd of a host: configuration, start, stop, kill. Part of lab.

# Different for each host, else libvirt refuses to migrate.
libvirt_uuid() {
    printf '76697274-6472-4c61-%04d-%012d' "$((8000 + LAB_ID))" "$(host_index "$1")"
}

write_libvirt_conf() {
    local host=$1 folder=$LAB_STATE/$1/etc/libvirt

    mkdir -p "$folder/hooks/qemu.d" "$folder/qemu"
    cat >"$folder/libvirtd.conf" <<END
host_uuid = "$(libvirt_uuid "$host")"
listen_tls = 0
listen_tcp = 1
listen_addr = "$(host_address "$host")"
auth_tcp = "none"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
END
    cat >"$folder/qemu.conf" <<END
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
remember_owner = 0
END
    echo 'uri_default = "qemu:///system"' >"$folder/libvirt.conf"
}

write_virtdr_conf() {
    local host=$1 address
    local file=$LAB_STATE/$1/etc/virt-dr/virtdrd.conf

    address=$(host_address "$host")
    mkdir -p "$LAB_STATE/$host/var/lib/virt-dr/storage"
    cat >"$file" <<END
[host]
name = $host
site = site-$host
[listen]
tls = $address:7780
stream = $address:7781
unix = /run/virt-dr/virtdrd.sock
[storage default]
path = /var/lib/virt-dr/storage
[scratch]
path = /var/lib/virt-dr/scratch
limit = 4GiB
[libvirt]
uri = qemu:///system
END
    [[ -z ${LAB_CONF_EXTRA:-} ]] || cat "$LAB_CONF_EXTRA" >>"$file"
}

install_hook() {
    local hook=$LAB_BUILD/daemon/virt-dr-hook

    [[ ! -f $hook ]] ||
        install -D -m 0755 "$hook" "$LAB_STATE/$1/etc/libvirt/hooks/qemu.d/virt-dr"
}

daemon_log() {
    case $2 in
    libvirtd) echo "$LAB_STATE/$1/var/log/libvirt/libvirtd.out" ;;
    virtdrd) echo "$LAB_STATE/$1/var/log/virt-dr/virtdrd.out" ;;
    esac
}

daemon_answers() {
    case $2 in
    libvirtd) host_exec "$1" timeout 20 virsh -q -c qemu:///system uri >/dev/null 2>&1 ;;
    virtdrd) socat -u OPEN:/dev/null \
        "UNIX-CONNECT:$LAB_STATE/$1/run/virt-dr/virtdrd.sock" 2>/dev/null ;;
    esac
}

daemon_answers_or_dead() {
    ! pid_alive "$LAB_STATE/$1/.lab/$2.pid" || daemon_answers "$1" "$2"
}

daemon_run() {
    local host=$1 daemon=$2 holder

    shift 2
    holder=$(pid_read "$LAB_STATE/$host/.lab/holder.pid") || fail "host '$host': it is down"
    # shellcheck disable=SC2016 # expanded by the inner shell
    start_detached "$LAB_STATE/$host/.lab/$daemon.pid" "$(daemon_log "$host" "$daemon")" \
        nsenter --net="/run/netns/$(netns_of "$host")" --mount="/proc/$holder/ns/mnt" \
        --uts="/proc/$holder/ns/uts" --wd=/ env "VIRT_DR_LAB_HOST=$host" "$@"
}

daemon_start() {
    local host=$1 daemon=$2 log

    if pid_alive "$LAB_STATE/$host/.lab/$daemon.pid"; then
        return 0
    fi
    log=$(daemon_log "$host" "$daemon")
    case $daemon in
    libvirtd)
        install_hook "$host"
        daemon_run "$host" libvirtd libvirtd --listen --pid-file /run/libvirt/libvirtd.pid
        ;;
    virtdrd)
        [[ -f $LAB_BUILD/daemon/virtdrd ]] ||
            fail "host '$host': $LAB_BUILD/daemon/virtdrd is not there; build it or set LAB_BUILD"
        daemon_run "$host" virtdrd "$LAB_BUILD/daemon/virtdrd" --config /etc/virt-dr/virtdrd.conf
        ;;
    esac
    wait_for 60 daemon_answers_or_dead "$host" "$daemon" ||
        fail "host '$host': $daemon runs but does not answer; see $log"
    pid_alive "$LAB_STATE/$host/.lab/$daemon.pid" ||
        fail "host '$host': $daemon ended at its start; $log ends with: $(tail -n 5 "$log")"
}

# As at a real boot: libvirtd first.
host_start_daemons() {
    daemon_start "$1" libvirtd
    if [[ ! -e $LAB_STATE/.lab/no-daemon && -f $LAB_BUILD/daemon/virtdrd ]]; then
        daemon_start "$1" virtdrd
    fi
}

daemon_need() {
    host_need_up "${1:-}"
    [[ ${2:-} == virtdrd || ${2:-} == libvirtd ]] || bad_usage "'${2:-}' is not a daemon of the lab"
}

command_start() {
    daemon_need "$@"
    daemon_start "$1" "$2"
}

command_stop() {
    local pid

    daemon_need "$@"
    pid=$(pid_read "$LAB_STATE/$1/.lab/$2.pid") || return 0
    kill -TERM "$pid"
    wait_for 60 not pid_alive "$LAB_STATE/$1/.lab/$2.pid" ||
        fail "host '$1': $2 (pid $pid) did not end within 60 s of SIGTERM; 'lab kill $1 $2' ends it"
}

# Pids of a host's processes with this name in /proc/PID/comm (15 letters).
host_pids_named() {
    local pid

    for pid in $(netns_processes "$(netns_of "$1")"); do
        [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "${2:0:15}" ]] && echo "$pid"
    done
    return 0
}

guest_pid() {
    local pid file=$LAB_STATE/$1/run/libvirt/qemu/$2.pid

    [[ -s $file ]] || return 1
    read -r pid <"$file" || [[ -n $pid ]]
    netns_processes "$(netns_of "$1")" | grep -x "$pid" >/dev/null || return 1
    echo "$pid"
}

pids_gone() {
    local pid

    for pid in "$@"; do
        ! process_start_time "$pid" >/dev/null || return 1
    done
}

command_kill() {
    local host=${1:-} pids=()

    host_need_up "$host"
    case ${2:-} in
    virtdrd | libvirtd) mapfile -t pids < <(pid_read "$LAB_STATE/$host/.lab/$2.pid") ;;
    qsd) mapfile -t pids < <(host_pids_named "$host" qemu-storage-daemon) ;;
    qemu)
        [[ -n ${3:-} ]] || bad_usage "which guest?"
        mapfile -t pids < <(guest_pid "$host" "$3")
        ;;
    *) bad_usage "'${2:-}' cannot be killed" ;;
    esac
    ((${#pids[@]} > 0)) || fail "host '$host': ${*:2} does not run; nothing was killed"
    kill -KILL "${pids[@]}"
    wait_for 20 pids_gone "${pids[@]}" || fail "host '$host': ${*:2} (pid ${pids[*]}) does not die"
}
