# shellcheck shell=bash
# Messages, and steps with a sentence and a progress bar. Part of quickstart.
#
# A step is a function that runs in the background, in a process group of its own, with its output in
# a log. What it finds out it leaves in files; a sentence in the file $STEP_SAID replaces the one that
# was announced.

STEP_PID=
BAR=##############################
GAP=..............................

fail() {
    printf 'quickstart: %s\n' "$*" >&2
    exit 1
}

bad_usage() {
    printf "quickstart: %s; see './quickstart --help'\n" "$*" >&2
    exit 2
}

# Tenths of a second since a time in microseconds.
tenths_since() {
    echo $(((${EPOCHREALTIME/./} - $1) / 100000))
}

# Fills one line of the terminal and stays on it. An empty percentage draws a spinner.
draw() {
    local percent=$1 tenths=$2 text=$3 mark columns

    if [[ -n $percent ]]; then
        mark="[${BAR:0:percent * 20 / 100}${GAP:0:20 - percent * 20 / 100}] $(printf '%3d%%' "$percent")"
    else
        mark="[$(printf '%*s' $((tenths % 18 + 1)) '' | tr ' ' .)"
        mark="$(printf '%-20s' "$mark=")]     "
    fi
    columns=$(tput cols 2>/dev/null || echo 80)
    text="$mark $((tenths / 10)) s  $text"
    printf '\r\e[K%s' "${text:0:columns - 1}"
}

# done_line TENTHS SENTENCE
done_line() {
    [[ ! -t 1 ]] || printf '\r\e[K'
    printf '%4d.%d s  %s\n' $(($1 / 10)) $(($1 % 10)) "$2"
}

follow_step() {
    local begun=$1 text=$2 percent=$3

    while kill -0 "$STEP_PID" 2>/dev/null; do
        draw "$("$percent" 2>/dev/null || true)" "$(tenths_since "$begun")" "$text"
        sleep 0.2
    done
}

# Also what the step has started: it has a process group of its own.
stop_step() {
    [[ -n $STEP_PID ]] || return 0
    kill -TERM -- "-$STEP_PID" 2>/dev/null || true
    wait "$STEP_PID" 2>/dev/null || true
    STEP_PID=
}

unknown_percent() {
    :
}

# step SENTENCE LOG PERCENT COMMAND...: PERCENT is a function that prints how far it is, or nothing.
step() {
    local text=$1 log=$2 percent=$3 begun=${EPOCHREALTIME/./} status=0

    shift 3
    STEP_SAID=$log.said
    # shellcheck disable=SC2034 # used by the functions that tell percentages
    STEP_LOG=$log
    rm -f "$STEP_SAID"
    set -m
    "$@" >"$log" 2>&1 </dev/null &
    STEP_PID=$!
    set +m
    [[ ! -t 1 ]] || follow_step "$begun" "$text" "$percent"
    wait "$STEP_PID" || status=$?
    STEP_PID=
    if ((status != 0)); then
        done_line "$(tenths_since "$begun")" "FAILED: $text"
        tail -n 30 "$log" >&2
        fail "this step failed, see above: $text"
    fi
    [[ ! -s $STEP_SAID ]] || text=$(<"$STEP_SAID")
    done_line "$(tenths_since "$begun")" "$text"
}

say() {
    echo "$*" >"$STEP_SAID"
}

# wait_until SECONDS COMMAND...: until the command succeeds; false at the deadline.
wait_until() {
    local end=$((${EPOCHREALTIME/./} + $1 * 1000000))

    shift
    until "$@"; do
        ((${EPOCHREALTIME/./} < end)) || return 1
        sleep 0.1
    done
}
