# shellcheck shell=bash
# What a guest says on its console. Part of lab. The lines are described in guest/writer.c.

console_path() {
    echo "/var/log/libvirt/console/$1.log"
}

console_file() {
    local file

    host_need "${1:-}"
    file=$LAB_STATE/$1$(console_path "${2:-}")
    [[ -n ${2:-} ]] || bad_usage "which guest?"
    [[ -f $file ]] || fail "guest '$2' on host '$1': it has no console file $(console_path "$2")"
    echo "$file"
}

# Whole lines only: what comes after the last end of line is still being written.
whole_lines() {
    {
        cat
        echo torn
    } | sed '$d' | tr -d '\r'
}

command_console() {
    local file

    file=$(console_file "$@")
    tr -d '\r' <"$file"
}

# "RUN NUMBER TIME_NS" of the last acknowledged block in a console's text.
last_ack() {
    awk '/^(new|found) run=[0-9a-f]+/ { run = substr($2, 5) }
        /^ack [0-9]+ [0-9]+$/ && length($3) == 19 { number = $2; time = $3 }
        END { if (number == "") exit 1; print run, number, time }'
}

command_acked() {
    local file run number time

    file=$(console_file "$@")
    read -r run number time < <(whole_lines <"$file" | last_ack) ||
        fail "guest '$2' on host '$1': it has not acknowledged a block yet"
    printf '{"number": %s, "time": %s.%s, "time_ns": %s, "run": "%s"}\n' \
        "$number" "${time:0:10}" "${time:10}" "$time" "$run"
}

# How far the guest has come: "BASE LAST", from a base or from where it started anew since.
ack_progress() {
    awk -v base="$1" '/^start number=[0-9]+/ { base = substr($2, 8) - 1; last = base }
        /^ack [0-9]+ [0-9]+$/ { if (base == "") base = $2 - 1; last = $2 }
        END { print base "", last "" }'
}

# Looks only at a file that has grown since the last call.
acked_since() {
    local file=$1 offset=$2 want=$3 base=$4 last size

    size=$(stat -c %s "$file" 2>/dev/null) || return 1
    [[ $size != "${SEEN_SIZE:-}" ]] || return 1
    SEEN_SIZE=$size
    read -r base last < <(tail -c "+$((offset + 1))" "$file" | whole_lines | ack_progress "$base") ||
        return 1
    [[ -n $base && -n $last ]] && ((last - base >= want))
}

command_wait_guest() {
    local host=${1:-} name=${2:-} blocks=1 timeout=60 file offset=0 base=''

    host_need "$host"
    [[ -n $name ]] || bad_usage "which guest?"
    shift 2
    while (($# > 0)); do
        case $1 in
        --blocks) blocks=${2:?} ;;
        --timeout) timeout=${2:?} ;;
        *) bad_usage "'$1' is not an option" ;;
        esac
        shift 2
    done
    file=$LAB_STATE/$host$(console_path "$name")
    if [[ -f $file ]]; then
        offset=$(stat -c %s "$file")
        base=$(head -c "$offset" "$file" | whole_lines | ack_progress '' | awk '{ print $NF }')
    fi
    wait_for "$timeout" acked_since "$file" "$offset" "$blocks" "$base" ||
        fail "guest '$name' on host '$host': did not acknowledge $blocks more blocks in $timeout s; its console ends with: $(tail -n 3 "$file" 2>/dev/null)"
}
