#!/bin/bash
# Bits of a replica change on the disk (TAP): in an old journal, in a layer, in the base, in a journal
# that is not applied yet. A scrub finds exactly what was changed, exactly the points that need it are
# damaged, and when the newest disks need it, the source sends them anew by itself.

export LAB_ID=${LAB_ID:-46}
. "$top_srcdir/tests/system/lib.sh" || exit 1

RESYNC=$((PATIENCE * 2)) # seconds: it sends the whole disks

system_work
export LAB_CONF_EXTRA=$WORK/conf
cat >"$LAB_CONF_EXTRA" <<END
[marks]
time = 6s
[scrub]
interval = 0
rate = 0
END

# --- the store -----------------------------------------------------------------------

layout() {
    jq -r "$1" "$STORE/layout.json"
}

# flip FILE: one bit, in the middle.
flip() {
    local file=$STORE/$1 offset byte

    offset=$(($(stat -c %s "$file") / 2))
    byte=$(od -An -tu1 -j "$offset" -N 1 "$file")
    printf '%b' "\\x$(printf %x $((byte ^ 1)))" |
        dd of="$file" bs=1 seek="$offset" conv=notrunc status=none
    FLIPPED+=("$1")
}

# Half of it is gone.
cut_off() {
    truncate -s $(($(stat -c %s "$STORE/$1") / 2)) "$STORE/$1"
    FLIPPED+=("$1")
}

# replace FILE OTHER: whole, but not the one it is called.
replace() {
    cp "$STORE/$2" "$STORE/$1"
    FLIPPED+=("$1")
}

journal_of() {
    printf 'journal/%012d' "$1"
}

# Behind the mark MARK there is another, and its layer of vda has its checksums.
has_mark_with_sums() {
    local layer

    layer=$(layout "[.marks[] | select(.seq > $1)][$2].disks[] | select(.target == \"vda\").layer")
    [[ -n $layer && $layer != null && -s $STORE/disks/$layer.sums ]]
}

base_mark() {
    layout '[.marks[] | select(.base)] | last.seq'
}

# --- points ----------------------------------------------------------------------------

# in_state STATE: the numbers of its points, and those of them that FILTER chooses.
in_state() {
    js b points vm | jq -c "[.items[] | select(.state == \"$1\").sequenceNumber] | sort | ${2:-.}"
}

# All that are listed from FIRST to LAST.
listed() {
    js b points vm | jq -c "[.items[].sequenceNumber | select(. >= $1 and . <= $2)] | sort"
}

copy_out() {
    local target uri images=()

    while read -r target uri; do
        images+=("$WORK/$target.raw")
        on b qemu-img convert -f raw -O raw "$uri" "${images[-1]}" || return 1
    done < <(jq -r '.result.disks[] | "\(.target) \(.uri)"' "$WORK/task")
    ((${#images[@]} == 2)) && lab check-disk --json "${images[@]}"
}

# usable SEQUENCE: it can be exported, and its disks are whole.
usable() {
    local status=0

    js b export vm --point "$1" --name try --wait >"$WORK/task" || return 1
    copy_out || status=1
    dr b unexport try && return "$status"
}

# Some of those that are said to be ok.
ok_points_usable() {
    local seq

    for seq in $(in_state ok '.[]' | shuf -n "$1") "$(in_state ok last)"; do
        usable "$seq" || return 1
    done
}

# --- scrub ------------------------------------------------------------------------------

# scrub_finds NAME: what was flipped so far, and nothing else.
scrub_finds() {
    exits 0 "$1" js b scrub vm --wait
    is "  ... and nothing else" "$(jq -c '[.result.damages[].file] | sort' "$WORK/out")" \
        "$(jq -nc '$ARGS.positional | sort' --args "${FLIPPED[@]}")"
}

healthy() {
    js "$1" info vm | jq -e '.overallHealth == "green" and .state == "replicating" and .lastError == null'
}

# In the test of itself: no resync that nobody needs.
no_resync() {
    not logged a resync "$MARK"
}

is_resynced() {
    [[ $(base_mark) != "$1" ]]
}

# sent_anew BASE: what comes after damage of the newest disks; BASE is the base mark of before.
sent_anew() {
    logs "the source sends the disks anew" a resync "$MARK"
    comes_true "  ... and there is a new base" "$RESYNC" is_resynced "$1"
    comes_true "  ... the target is healthy again" "$PATIENCE" healthy b
    comes_true "  ... and so is the source" "$PATIENCE" healthy a
}

# --- the tests -----------------------------------------------------------------------------

test_journal() {
    local first last

    # The second journal behind a mark, and those up to the next mark stand on it.
    first=$(layout '[.marks[].seq] | [range(length - 1) as $i | select(.[$i + 1] - .[$i] >= 5) | .[$i]][0] + 2')
    last=$(layout "[.marks[].seq | select(. >= $first)][0] - 1")
    MARK=$(log_mark a)
    flip "$(journal_of "$first")"
    scrub_finds "a bit in journal $first is found"
    is "the points up to the next mark are damaged" "$(in_state damaged)" "$(listed "$first" "$last")"
    check "  ... which is an event" has_event b replica-damage-found
    cut_off "$(journal_of $((first + 1)))"
    scrub_finds "half of a journal is missing, and that is found"
    replace "$(journal_of $((first + 2)))" "$(journal_of $((first - 1)))"
    scrub_finds "a journal is another one, and that is found"
    is "  ... no more points are damaged by that" "$(in_state damaged)" "$(listed "$first" "$last")"
    fails_with CHECKSUM "a damaged point is not exported" b export vm --point "$last" --name bad --wait
    fails_with CHECKSUM "  ... nor cloned" b clone vm --point "$first" --name bad --wait
    check "the point before is whole" usable $((first - 1))
    check "the mark behind is whole" usable $((last + 1))
    check "the source has nothing to do with it" no_resync
    check "  ... nor is the replica called damaged" not has_event b replica-damaged
}

test_base() {
    local base

    base=$(base_mark)
    MARK=$(log_mark a)
    flip disks/vda.0000.raw
    scrub_finds "a bit in the base is found"
    sent_anew "$base"
    check "  ... the replica was called damaged" has_event b replica-damaged
    is "all points that stood on it are damaged, and no later one" "$(in_state damaged)" \
        "$(listed 0 $(($(base_mark) - 1)))"
    check "points after it are whole" ok_points_usable 2
}

# With the source paused one sees what is said meanwhile.
test_layer() {
    local base layer first damaged

    base=$(base_mark)
    comes_true "layers in the middle have checksums" "$PATIENCE" has_mark_with_sums "$base" 1
    layer=$(layout "[.marks[] | select(.seq > $base)][1].disks[] | select(.target == \"vda\").layer")
    first=$(layout "[.marks[] | select(.seq > $base)][1].seq")
    damaged=$(in_state damaged)
    dr a pause vm >&2
    MARK=$(log_mark a)
    flip "disks/$layer"
    scrub_finds "a bit in a layer in the middle is found"
    is "  ... the target says that it is damaged" "$(info b vm .overallHealth)" red
    is "the points that show the layer are damaged" "$(in_state damaged ". - $damaged")" \
        "$(listed "$first" 999999)"
    fails_with CHECKSUM "the newest is not failed over to" b failover vm --point "$(newest b vm)" --wait
    check "the point before it is whole" usable $((first - 1))
    dr a resume vm >&2
    sent_anew "$base"
    is "no other point has become damaged" "$(in_state damaged ". - $damaged")" \
        "$(listed "$first" $(($(base_mark) - 1)))"
    check "points before and after it are whole" ok_points_usable 3
    check "the point before it is still whole" usable $((first - 1))
}

# Nothing of what is below the last resync concerns the newest disks.
test_hidden() {
    local damaged

    damaged=$(in_state damaged)
    MARK=$(log_mark a)
    scrub_finds "a scrub finds the same once more"
    is "  ... and the same points" "$(in_state damaged)" "$damaged"
    advances "  ... replication goes on" vm "$PATIENCE" "$(($(newest b vm) + 1))"
    check "  ... nothing is sent anew" no_resync
    comes_true "  ... the target is healthy" "$PATIENCE" healthy b
}

# --- before it is applied -----------------------------------------------------------------

applied() {
    layout .applied
}

behind_by() {
    (($(newest b vm) - $(applied) >= $1))
}

tip_pid() {
    pgrep -P "$(daemon_pid b)" -f qemu-storage-daemon
}

has_tip() {
    [[ -n $(tip_pid) ]]
}

test_unapplied() {
    local base bad daemon tip

    base=$(base_mark)
    daemon=$(daemon_pid b)
    MARK=$(log_mark a)
    comes_true "the tip has a storage daemon" "$PATIENCE" has_tip
    tip=$(tip_pid)
    kill -STOP "$tip"
    comes_true "points are acknowledged while it stands still" "$PATIENCE" behind_by 4
    bad=$(($(applied) + 3))
    flip "$(journal_of "$bad")"
    kill -CONT "$tip"
    sent_anew "$base"
    logs "  ... the target said why" b replica-damaged
    is "virtdrd on the target is the same" "$(daemon_pid b)" "$daemon"
    is "no point that needs the journal is called whole" \
        "$(in_state ok "map(select(. >= $bad and . < $(base_mark)))")" '[]'
    check "the point before it is whole" usable $((bad - 1))
    check "  ... and the newest" usable "$(newest b vm)"
}

need pgrep od dd
system_up
guest a vm --rate 60
FLIPPED=()
check "a VM is protected" protect vm --rpo 2s || bail_out "no replica"
STORE=$(host_file b "$(info b vm .storeFolder)")
comes_true "layers get checksums" "$PATIENCE" has_mark_with_sums 1 1
test_journal
test_base
test_layer
test_hidden
test_unapplied
tests_done
