# shellcheck shell=bash
# What there is. Part of lab; changes nothing.

host_state() {
    host_is_up "$1" && echo up || echo crashed
}

host_link() {
    [[ -e $LAB_STATE/$1/.lab/cut ]] && echo cut || echo up
}

# "NAME|STATE" lines; nothing if libvirtd does not answer.
host_guests() {
    pid_alive "$LAB_STATE/$1/.lab/libvirtd.pid" || return 0
    host_exec "$1" timeout 10 virsh -q -c qemu:///system list --all 2>/dev/null |
        sed -E 's/^ *[^ ]+ +([^ ]+) +(.*[^ ]) *$/\1|\2/' || true
}

daemon_pid() {
    pid_read "$LAB_STATE/$1/.lab/$2.pid" || true
}

status_text() {
    local host name state

    printf '%-5s %-12s %-8s %-5s %-9s %s\n' host address state link libvirtd virtdrd
    for host in "$@"; do
        printf '%-5s %-12s %-8s %-5s %-9s %s\n' "$host" "$(host_address "$host")" \
            "$(host_state "$host")" "$(host_link "$host")" "$(daemon_pid "$host" libvirtd | grep . || echo -)" \
            "$(daemon_pid "$host" virtdrd | grep . || echo -)"
    done
    printf '\n%-5s %-20s %-12s %s\n' host guest state pid
    for host in "$@"; do
        host_guests "$host" | while IFS='|' read -r name state; do
            printf '%-5s %-20s %-12s %s\n' "$host" "$name" "$state" \
                "$(guest_pid "$host" "$name" || echo -)"
        done
    done
}

json_string() {
    local text=${1//\\/\\\\}

    printf '"%s"' "${text//\"/\\\"}"
}

json_guests() {
    local name state comma='' pid

    while IFS='|' read -r name state; do
        pid=$(guest_pid "$1" "$name" || echo null)
        printf '%s{"name": %s, "state": "%s", "pid": %s}' "$comma" "$(json_string "$name")" "$state" "$pid"
        comma=', '
    done < <(host_guests "$1")
}

status_json() {
    local host comma=''

    printf '{"id": %s, "folder": %s, "hosts": [' "$LAB_ID" "$(json_string "$LAB_STATE")"
    for host in "$@"; do
        printf '%s\n  {"name": "%s", "address": "%s", "state": "%s", "link": "%s",' "$comma" "$host" \
            "$(host_address "$host")" "$(host_state "$host")" "$(host_link "$host")"
        printf ' "libvirtd": %s, "virtdrd": %s, "guests": [%s]}' \
            "$(daemon_pid "$host" libvirtd | grep . || echo null)" \
            "$(daemon_pid "$host" virtdrd | grep . || echo null)" "$(json_guests "$host")"
        comma=,
    done
    printf '\n]}\n'
}

command_status() {
    local hosts

    lab_is_ours || fail "no lab with LAB_ID=$LAB_ID in $LAB_STATE; 'lab up' makes one"
    mapfile -t hosts < <(host_names)
    case ${1:-} in
    --json) status_json "${hosts[@]}" ;;
    '') status_text "${hosts[@]}" ;;
    *) bad_usage "'$1' is not an option" ;;
    esac
}
