#!/bin/bash
# Any point in time (TAP): a guest writes numbered blocks on two disks at an RPO of 2 s, while marks
# are made, points let go and layers merged; points chosen at random hold exactly the blocks up to
# their time, none torn, the order over the two disks kept. TIME_MACHINE_SECONDS is how long it
# writes, TIME_MACHINE_POINTS how many points are tried; with LONG=yes ten minutes and fifty.

export LAB_ID=${LAB_ID:-44}
export LAB_CONF_EXTRA
LAB_CONF_EXTRA=$(mktemp /var/tmp/virt-dr-time-machine.XXXXXX)
. "$top_srcdir/tests/system/lib.sh" || exit 1

SECONDS_OF_WRITING=${TIME_MACHINE_SECONDS:-$([[ -n ${LONG:-} ]] && echo 600 || echo 60)}
POINTS_TO_TRY=${TIME_MACHINE_POINTS:-$([[ -n ${LONG:-} ]] && echo 50 || echo 15)}
WINDOW=$((SECONDS_OF_WRITING * 2 / 3))
SLACK_MS=1500 # less than what is between two points: a busy host takes its time to begin a capture
TRIED=0

# Marks so close that some are merged before the end; the window is shorter than the run.
cat >"$LAB_CONF_EXTRA" <<END
[marks]
time = 7s
END

points() {
    js b points vm | jq -r "[.items[] | select(.state == \"ok\")] | $1"
}

n_points_reach() {
    (($(points length) >= $1))
}

# Copies the disks out of an export and looks at the blocks; the result is in $WORK/check.
look_at_point() {
    local name=$1 uri target images=()

    while read -r target uri; do
        images+=("$WORK/$name-$target.raw")
        on b qemu-img convert -f raw -O raw "$uri" "$WORK/$name-$target.raw" || return 1
    done < <(jq -r '.disks[] | "\(.target) \(.uri)"' "$WORK/export")
    ((${#images[@]} == 2)) || return 1
    lab check-disk --json "${images[@]}" >"$WORK/check"
    local status=$?

    rm -f "${images[@]}"
    return "$status"
}

# try_point ID TIME_MS: one line of what is wrong, nothing if all is well.
try_point() {
    local id=$1 time_ms=$2 name=try-$TRIED

    js b export vm --point "$id" --name "$name" --wait >"$WORK/task" 2>"$WORK/err" || {
        echo "point $id: no export: $(cat "$WORK/err")"
        return
    }
    jq .result "$WORK/task" >"$WORK/export"
    if ! look_at_point "$name"; then
        echo "point $id: damaged: $(cat "$WORK/check")"
    else
        echo $((time_ms - $(jq '.newest_time_ns / 1000000 | floor' "$WORK/check"))) >>"$WORK/offsets"
    fi
    dr b unexport "$name" >/dev/null 2>&1 || echo "point $id: the export stays"
}

# One at random of those that are kept now; retention may be faster than we are.
try_one() {
    local chosen wrong

    chosen=$(points "map(\"\(.id) \(.timestamp)\") | .[]" | shuf -n 1)
    # shellcheck disable=SC2086
    wrong=$(try_point $chosen)
    if [[ $wrong == *PointNotFound* ]]; then
        return
    fi
    TRIED=$((TRIED + 1))
    [[ -z $wrong ]] || echo "$wrong" >>"$WORK/wrong"
}

layers() {
    ls "$(host_file b /var/lib/virt-dr/storage)"/*/disks/vda.*.qcow2 | wc -l
}

system_up
guest a vm --rate 100
check "a guest with two disks is protected with a window" \
    protect vm --rpo 2s --window "${WINDOW}s" --rules "1m:3" || bail_out "no replica"
: >"$WORK/wrong"
: >"$WORK/offsets"
END_MS=$((${EPOCHREALTIME/./} / 1000 + SECONDS_OF_WRITING * 1000))

# While it writes: every other point is tried.
while ((${EPOCHREALTIME/./} / 1000 < END_MS)); do
    ((TRIED * 2 >= POINTS_TO_TRY)) || try_one
    wait_for 5 n_points_reach $((WINDOW / 5))
    sleep 0.2 # it is the guest's writing that takes the time
done
while ((TRIED < POINTS_TO_TRY)); do
    try_one
done

is "each of $TRIED points is whole, in order over both disks" "$(cat "$WORK/wrong")" ""
SPREAD=$(sort -n "$WORK/offsets" | sed -n '1p;$p' | xargs | awk '{ print $2 - $1 }')
diag "the newest block of a point is $(sort -n "$WORK/offsets" | xargs) ms older than it"
check "  ... and ends with the block of its time" [ "$SPREAD" -le "$SLACK_MS" ]
OLDEST=$(points 'map(.timestamp) | min')
NEWEST=$(points 'map(.timestamp) | max')
check "points older than the window went, but for the rule's" \
    [ "$(points "map(select(.timestamp < $NEWEST - $WINDOW * 1000 - 8000)) | length")" -le 3 ]
diag "points kept: $(points length), over $(((NEWEST - OLDEST) / 1000)) s"
MADE=$(ls "$(host_file b /var/lib/virt-dr/storage)"/*/disks/ | sed -n 's/^vda\.0*\([0-9]*\)\.qcow2$/\1/p' | sort -n | tail -1)
diag "layers made: $MADE, there now: $(layers)"
check "layers were merged meanwhile" [ "$(layers)" -lt "$MADE" ]
check "a scrub finds nothing" [ "$(js b scrub vm --wait | jq '.result.damages | length')" = 0 ]

# Choosing: by time, before a time, by tag; pinned points stay.
MIDDLE=$(points 'sort_by(.timestamp) | .[length / 2 | floor].timestamp')
ID=$(points "map(select(.timestamp == $MIDDLE)) | .[0].id")
check "a point is tagged and pinned" dr b pin vm "$ID" --tag before-update
check "it is exported by its tag" dr b export vm --point before-update --name tagged --wait
is "  ... and it is that one" "$(js b export-list | jq -r '.items[0].point.id')" "$ID"
js b export-list | jq '.items[0]' >"$WORK/export"
check "  ... with its blocks" look_at_point tagged
HIGHEST=$(jq .highest "$WORK/check")
check "  ... and taken away" dr b unexport tagged
is "the newest point not after a time" \
    "$(js b export vm --at "$MIDDLE" --name at --wait | jq -r .result.point.id)" "$ID"
not_before() {
    js b export vm --before "$MIDDLE" --name before --wait | jq -r .result.point.timestamp
}
check "the newest point before a time is older" [ "$(not_before)" -lt "$MIDDLE" ]
dr b unexport at >/dev/null
dr b unexport before >/dev/null
fails_with POINT_NOT_FOUND "a time before all points" b export vm --at 2001-01-01T00:00:00Z --name no --wait
fails_with POINT_NOT_FOUND "a tag that nobody has" b export vm --point nosuch --name no --wait

# The site is lost: failover to that point, not to the newest.
lab crash a
check "the VM is failed over to the tagged point" dr b failover vm --point before-update --wait
check "  ... and writes there" lab wait-guest b vm --timeout "$PATIENCE"
found() {
    lab console b vm | grep '^found run=' | tail -n 1 | tr ' ' '\n' | sed -n "s/^$1=//p"
}
is "its disks hold exactly the blocks of that point" "$(found highest)" "$HIGHEST"
is "  ... with nothing missing" "$(found missing)" 0
is "  ... nothing torn" "$(found torn)" 0
is "  ... and in order" "$(found order)" 0
rm -f "$LAB_CONF_EXTRA"
tests_done
