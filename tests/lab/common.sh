# shellcheck shell=bash
# Messages, waiting, and processes by recorded identity. Part of lab; never kills by name.

LAB_COMMAND=${LAB_COMMAND:-}

fail() {
    printf 'lab%s: %s\n' "${LAB_COMMAND:+ $LAB_COMMAND}" "$*" >&2
    exit 2
}

note() {
    printf 'lab%s: %s\n' "${LAB_COMMAND:+ $LAB_COMMAND}" "$*" >&2
}

bad_usage() {
    fail "$*; usage: lab $LAB_COMMAND ${USAGE[$LAB_COMMAND]}"
}

# wait_for SECONDS COMMAND...: until the command succeeds; false at the deadline.
wait_for() {
    local end=$((${EPOCHREALTIME/./} + $1 * 1000000))

    shift
    until "$@"; do
        ((${EPOCHREALTIME/./} < end)) || return 1
        sleep 0.05
    done
}

not() {
    ! "$@"
}

# The time at which a process was started, in ticks since boot; nothing for one that is dead.
process_start_time() {
    local line fields

    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
    read -ra fields <<<"${line##*) }"
    [[ ${fields[0]} != Z && ${fields[0]} != X ]] || return 1
    echo "${fields[19]}"
}

# A pid file holds "PID START_TIME": a number that was given out again is not taken for ours.
pid_read() {
    local pid start

    [[ -s $1 ]] || return 1
    read -r pid start <"$1"
    [[ $(process_start_time "$pid") == "$start" ]] || return 1
    echo "$pid"
}

pid_alive() {
    pid_read "$1" >/dev/null
}

# start_detached PIDFILE LOG COMMAND...: in the background, with no open file of ours.
start_detached() {
    local pidfile=$1 log=$2

    shift 2
    rm -f "$pidfile"
    # shellcheck disable=SC2016 # expanded by the inner shell
    setsid -f bash -c '
        pidfile=$1; shift
        for fd in /proc/$$/fd/*; do
            fd=${fd##*/}
            ((fd < 3)) || eval "exec $fd>&-" 2>/dev/null
        done
        read -r line <"/proc/$$/stat"
        read -ra fields <<<"${line##*) }"
        echo "$$ ${fields[19]}" >"$pidfile.new"
        mv "$pidfile.new" "$pidfile"
        exec "$@"' start "$pidfile" "$@" </dev/null >>"$log" 2>&1
    wait_for 10 test -s "$pidfile" || fail "start '$1': no process appeared; see $log"
}

# Processes that live in a network namespace, by its pinned file.
netns_processes() {
    local inode

    inode=$(stat -L -c %i "/run/netns/$1" 2>/dev/null) || return 0
    stat -L -c '%i %n' /proc/[0-9]*/ns/net 2>/dev/null |
        awk -F '[ /]' -v inode="$inode" '$1 == inode { print $4 }' || true
}

netns_empty() {
    [[ -z $(netns_processes "$1") ]]
}

# Stops all of them before it kills any, so that none sees another one die.
netns_kill_once() {
    local pids

    mapfile -t pids < <(netns_processes "$1")
    ((${#pids[@]} > 0)) || return 0
    kill -STOP "${pids[@]}" 2>/dev/null || true
    kill -KILL "${pids[@]}" 2>/dev/null || true
    return 1
}

netns_kill() {
    wait_for 20 netns_kill_once "$1" ||
        fail "namespace '$1': processes do not die: $(netns_processes "$1" | tr '\n' ' ')"
}
