#!/bin/bash
# The target's processes die, again and again, at moments spread over receive, apply, seal, retain and
# fold (TAP). It goes on by itself, no acknowledged point is lost, and each point that is listed as ok
# can be used; points in use stay so while the window moves on and layers are merged below them.

export LAB_ID=${LAB_ID:-46}
. "$top_srcdir/tests/system/lib.sh" || exit 1

KILLS=${KILLS:-9}
POINTS_TO_TRY=5
MOMENTS=(received applied sealed folded let-go)
VICTIMS=(virtdrd storage-daemon both)

# Marks so close, and folds so slow, that there is always one to be met.
system_work
export LAB_CONF_EXTRA=$WORK/conf
cat >"$LAB_CONF_EXTRA" <<END
[marks]
time = 3s
[upkeep]
rate = 16MiB
END

store() {
    host_file b "$(info b vm .storeFolder)"
}

oldest_journal() {
    ls "$STORE/journal" | head -n 1
}

newest_layer() {
    (cd "$STORE/disks" && printf '%s\n' vda.*.qcow2) | tail -n 1
}

fold_runs() {
    [[ -n $(fold_now) ]]
}

fold_now() {
    jq -r '.fold // {} | select(.upper != null) | .target + .upper' "$STORE/layout.json"
}

# --- moments -------------------------------------------------------------------------

# Just now: a cycle comes in; a journal goes into the tip; new tips were made; layers are being
# merged; a journal went.
just() {
    case $1 in
    received) compgen -G "$STORE/journal/*.part" ;;
    applied) grep -q '"applying": *[1-9]' "$STORE/layout.json" ;;
    sealed) [[ $(newest_layer) != "$WAS_LAYER" ]] ;;
    folded) fold_runs ;;
    let-go) [[ $(oldest_journal) != "$WAS_JOURNAL" ]] ;;
    esac >/dev/null
}

# Looks without a pause: some of these last for milliseconds.
await_moment() {
    local end=$((SECONDS + 10))

    WAS_LAYER=$(newest_layer)
    WAS_JOURNAL=$(oldest_journal)
    until just "$1"; do
        ((SECONDS < end)) || return 1
    done
}

# victims NAME: the pids, found before the moment comes.
victims() {
    local daemon

    daemon=$(daemon_pid b)
    [[ $1 == storage-daemon ]] || echo "$daemon"
    [[ $1 == virtdrd ]] || pgrep -P "$daemon" -f qemu-storage-daemon
}

has_tip() {
    [[ -n $(victims storage-daemon) ]]
}

kill_once() {
    local moment=$1 victim=$2 pids seen="as it was $1" acked

    wait_for 10 has_tip
    mapfile -t pids < <(victims "$victim")
    await_moment "$moment" || seen="at some moment"
    acked=$(newest a vm)
    kill -KILL "${pids[@]}" 2>/dev/null
    [[ $victim == storage-daemon ]] || lab start b virtdrd
    check "$victim killed, $seen: acknowledged point $acked is there" \
        test "$(newest b vm)" -ge "$acked"
    comes_true "  ... and it goes on by itself" "$PATIENCE" newest_above b vm $((acked + 1))
}

well() {
    js b info vm | jq -e '.lastError == null and .state == "replicating" and .overallHealth == "green"'
}

test_kills() {
    local i mark

    mark=$(log_mark a)
    for ((i = 0; i < KILLS; i++)); do
        kill_once "${MOMENTS[i % ${#MOMENTS[@]}]}" "${VICTIMS[i % ${#VICTIMS[@]}]}"
    done
    comes_true "after all that it is well" "$PATIENCE" well
    check "  ... nothing had to be sent anew" not logged a resync "$mark"
}

# --- points ---------------------------------------------------------------------------

points() {
    js b points vm | jq -r "[.items[] | select(.state == \"ok\")] | $1"
}

# copy_out NAME: the disks of the export, into $WORK/NAME-*.raw, and what blocks they hold.
copy_out() {
    local target uri images=()

    while read -r target uri; do
        images+=("$WORK/$1-$target.raw")
        on b qemu-img convert -f raw -O raw "$uri" "${images[-1]}" || return 1
    done < <(js b export-list | jq -r --arg name "$2" \
        '.items[] | select(.name == $name) | .disks[] | "\(.target) \(.uri)"')
    ((${#images[@]} == 2)) && lab check-disk --json "${images[@]}" >"$WORK/check"
}

# One line of what is wrong, nothing if all is well.
try_point() {
    js b export vm --point "$1" --name try --wait >"$WORK/task" 2>"$WORK/err" || {
        grep -q PointNotFound "$WORK/err" || echo "point $1: $(cat "$WORK/err")"
        return
    }
    copy_out try try || echo "point $1: $(cat "$WORK/check")"
    dr b unexport try >/dev/null 2>&1 || echo "point $1: its export stays"
}

test_points() {
    local id

    dr a pause vm >/dev/null
    is "no point is damaged" "$(js b points vm | jq '[.items[] | select(.state != "ok")] | length')" 0
    is "the points have no gap" "$(points 'map(.sequenceNumber) | sort | . == [range(min; max + 1)]')" true
    for id in $(points 'map(.id) | .[]' | shuf -n "$POINTS_TO_TRY"); do
        try_point "$id"
    done >"$WORK/wrong"
    is "points tried at random are whole" "$(cat "$WORK/wrong")" ""
    is "a scrub finds nothing" "$(js b scrub vm --wait | jq -c '.result.damages')" '[]'
    dr a resume vm >/dev/null
}

# --- a fold ------------------------------------------------------------------------------

# The points are listed while one and the same fold runs.
answers_beside_a_fold() {
    local before

    before=$(fold_now)
    [[ -n $before ]] && js b points vm >"$WORK/out" && [[ $(fold_now) == "$before" ]]
}

other_fold() {
    [[ $(fold_now) != "$1" ]]
}

# One that ends by itself before virtdrd does is followed by another.
stop_in_fold() {
    FOLD=$(fold_now)
    [[ -n $FOLD ]] || return 1
    lab stop b virtdrd
    [[ $(fold_now) != "$FOLD" ]] || return 0
    lab start b virtdrd
    return 1
}

test_restart_in_fold() {
    local before

    comes_true "points are listed while a fold runs" "$PATIENCE" answers_beside_a_fold
    before=$(newest b vm)
    comes_true "virtdrd is stopped while a fold is half done" "$((PATIENCE * 2))" stop_in_fold
    lab start b virtdrd
    comes_true "  ... it is done after the restart" "$PATIENCE" other_fold "$FOLD"
    advances "  ... and replication goes on" vm "$PATIENCE" "$before"
}

# --- points in use --------------------------------------------------------------------------

point_is_gone() {
    [[ $(points "map(select(.id == \"$1\")) | length") == 0 ]]
}

# The oldest of the window; one that goes at this very moment is followed by another.
use_oldest() {
    OLDEST=$(points 'min_by(.sequenceNumber).id')
    "$@" --point "$OLDEST" --wait >"$WORK/task" 2>"$WORK/err" || {
        grep -q PointNotFound "$WORK/err" && return 1
        cat "$WORK/err"
    }
}

test_use() {
    local before

    comes_true "the oldest point of the window is exported" "$PATIENCE" \
        use_oldest js b export vm --name leaving
    check "  ... it is whole" copy_out first leaving
    comes_true "  ... the window leaves it" "$PATIENCE" point_is_gone "$OLDEST"
    before=$(newest_layer)
    comes_true "  ... layers come and go" "$PATIENCE" other_layers "$before"
    check "  ... it is still served" copy_out second leaving
    check "  ... to the byte" cmp "$WORK/first-vda.raw" "$WORK/second-vda.raw"
    check "  ... on each disk" cmp "$WORK/first-vdb.raw" "$WORK/second-vdb.raw"
    check "  ... until it ends" dr b unexport leaving
}

other_layers() {
    [[ $(newest_layer) != "$1" ]] && fold_runs
}

found() {
    lab console b vm | grep '^found run=' | tail -n 1 | tr ' ' '\n' | sed -n "s/^$1=//p"
}

test_failover() {
    lab crash a
    comes_true "a failover takes the oldest point" "$PATIENCE" use_oldest js b failover vm
    check "  ... the guest goes on" lab wait-guest b vm --timeout "$((PATIENCE * 3))"
    is "  ... with nothing missing" "$(found missing)" 0
    is "  ... nothing torn" "$(found torn)" 0
    is "  ... and in order" "$(found order)" 0
}

need pgrep
system_up
guest a vm --rate 100
check "a VM is protected with a short window" protect vm --rpo 2s --window 20s || bail_out "no replica"
STORE=$(store)
test_kills
test_restart_in_fold
test_points
test_use
test_failover
tests_done
