# shellcheck shell=bash
# Which numbered blocks a guest's images hold. Part of lab. Images are only read.

# Sets ACKED_ARGS from a number, from the output of 'lab acked', or from a console's text.
acked_arguments() {
    local text run number time

    if [[ $1 =~ ^[0-9]+$ ]]; then
        ACKED_ARGS=(--acked "$1")
        return
    fi
    [[ -r $1 ]] || fail "--acked '$1': neither a number nor a file that can be read"
    text=$(tr -d '\0' <"$1"; echo .) # keeps the last end of line; may be a pipe, so read once
    if [[ $text =~ \"number\":\ ([0-9]+),.*\"time_ns\":\ ([0-9]+),.*\"run\":\ \"([0-9a-f]+)\" ]]; then
        number=${BASH_REMATCH[1]} time=${BASH_REMATCH[2]} run=${BASH_REMATCH[3]}
    else
        read -r run number time < <(printf %s "${text%.}" | whole_lines | last_ack) ||
            fail "--acked '$1': no acknowledged block in it"
    fi
    ACKED_ARGS=(--acked "$number" --acked-time "$time" --acked-run "$run")
}

# Through qemu-img, so any format and any backing chain will do. Zeros become holes.
image_to_raw() {
    local convert=(qemu-img convert -O raw)

    [[ -z $FORCE_SHARE ]] || convert+=(-U)
    if [[ -n $IMAGE_HOST ]]; then
        host_exec "$IMAGE_HOST" "${convert[@]}" "$1" "$2"
    else
        "${convert[@]}" "$1" "$2"
    fi || fail "image '$1': cannot be read, see above; --force-share reads one that is in use"
}

command_check_disk() {
    local images=() raw=() options=() status=0 image work

    FORCE_SHARE='' IMAGE_HOST='' ACKED_ARGS=()
    while (($# > 0)); do
        case $1 in
        --json) options+=(--json) ;;
        --force-share) FORCE_SHARE=yes ;;
        --acked) acked_arguments "${2:-}" && shift ;;
        --host) host_need_up "${2:-}" && IMAGE_HOST=$2 && shift ;;
        --*) bad_usage "'$1' is not an option" ;;
        *) images+=("$1") ;;
        esac
        shift
    done
    ((${#images[@]} > 0)) || bad_usage "no image given"
    cache_lock && make_check && cache_unlock
    work=$(mktemp -d /var/tmp/virt-dr-lab-check.XXXXXX)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$work'" EXIT
    for image in "${images[@]}"; do
        image_to_raw "$image" "$work/${#raw[@]}"
        raw+=("$work/${#raw[@]}")
    done
    "$(check_program)" "${options[@]}" "${ACKED_ARGS[@]}" "${raw[@]}" || status=$?
    exit "$status"
}
