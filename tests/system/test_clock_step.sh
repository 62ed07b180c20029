#!/bin/bash
# Clocks are set while a VM is replicated (TAP). The source's: a little back, an hour back, an hour
# ahead; then both, as when a wrong time server is put right. The points stay in their order, their age
# is what it is, nothing is lost, and hosts whose clocks differ say so until they agree.

export LAB_ID=${LAB_ID:-56}
. "$top_srcdir/tests/system/lib.sh" || exit 1

HOUR_MS=3600000
MOST_MS=2000 # the RPO

# set_clock MS HOST...: how far ahead of the true time the clock of virtdrd there is.
set_clock() {
    local size=$((HOUR_MS + $1)) host

    shift
    for host in "$@"; do
        truncate -s "$size" "$WORK/offset-$host"
    done
}

# start_with_clock HOST: from a folder like the build's, whose virtdrd has a clock that can be set.
start_with_clock() {
    local build=$WORK/build-$1

    set_clock 0 "$1"
    mkdir -p "$build/daemon"
    printf '#!/bin/sh\nexec env LD_PRELOAD=%s CLOCK_OFFSET_FILE=%s %s "$@"\n' \
        "$CLOCK" "$WORK/offset-$1" "$LAB_BUILD/daemon/virtdrd" >"$build/daemon/virtdrd"
    chmod +x "$build/daemon/virtdrd"
    lab stop "$1" virtdrd
    LAB_BUILD=$build lab start "$1" virtdrd
}

last_error_is() {
    [[ $(info a vm '.lastError.code') == "$1" ]]
}

in_order() {
    js b points vm | jq -e '.items | sort_by(.sequenceNumber) | map(.timestamp) | . == sort' >/dev/null
}

no_gap() {
    js b points vm | jq -e '.items | map(.sequenceNumber) | sort | . == [range(min; max + 1)]' >/dev/null
}

test_little() {
    local before mark

    mark=$(log_mark a)
    before=$(newest b vm)
    set_clock -1500 a
    comes_true "a clock that steps 1.5 s back stops nothing" "$PATIENCE" \
        newest_above b vm $((before + 2))
    check "  ... nor do the hosts complain" not logged a cycle-failed "$mark"
    check "  ... the points are in order" in_order
    set_clock 0 a
    before=$(newest b vm)
    advances "  ... nor does it when it is set right" vm "$PATIENCE" $((before + 1))
}

# test_much WHAT MS
test_much() {
    local before

    before=$(newest b vm)
    set_clock "$2" a
    comes_true "a clock that steps an hour $1 ends replication, and info says so" "$PATIENCE" \
        last_error_is ClockSkew
    check "  ... it is not called healthy" not test "$(info a vm .overallHealth)" = green
    check "  ... no point is lost" test "$(newest b vm)" -ge "$before"
    before=$(newest b vm)
    set_clock 0 a
    advances "  ... it goes on once the clock is right" vm "$PATIENCE" $((before + 1))
    comes_true "  ... without an error" "$PATIENCE" last_error_is null
    check "  ... the points are in order" in_order
    check "  ... and without a gap" no_gap
}

# Green, without an error, and the newest point is seconds old, not an hour.
is_sane() {
    js "$1" info vm | jq -e --argjson most "$MOST_MS" '.lastError == null and .overallHealth == "green" and
        .currentRpoViolation == 0 and .rpoAge >= 0 and .rpoAge <= $most'
}

# test_both WHAT MS
test_both() {
    local before mark

    mark=$(log_mark a)
    before=$(newest b vm)
    set_clock "$2" a b
    comes_true "both clocks step an hour $1: replication goes on" "$PATIENCE" newest_above b vm $((before + 3))
    comes_true "  ... the source finds its points as old as they are" "$PATIENCE" is_sane a
    comes_true "  ... and so does the target" "$PATIENCE" is_sane b
    check "  ... the points are in order" in_order
    check "  ... and without a gap" no_gap
    check "  ... it was no failure that lasts" not logged a clock-skew "$mark"
}

test_data() {
    virsh_on a suspend vm
    lab acked a vm >"$WORK/acked"
    exits 0 "a last point is made" dr a sync vm --wait
    lab crash a
    exits 0 "the VM is failed over" dr b failover vm --wait
    holds_all "it holds each block that the guest was promised" b vm "$WORK/acked"
}

CLOCK=$BUILD/tests/system/clock_offset.so
[[ -f $CLOCK ]] || skip_all "$CLOCK is not built (make check builds it)"
system_up
for HOST in a b; do
    start_with_clock "$HOST" || bail_out "virtdrd on $HOST does not start with a clock of its own"
done
guest a vm --rate 50
check "a VM is protected" protect vm --rpo 2s || bail_out "no replica"
MARK=$(log_mark a)
advances "  ... and gets points" vm "$PATIENCE" 1
test_little
test_much back "-$HOUR_MS"
test_much ahead "$HOUR_MS"
test_both back "-$HOUR_MS"
test_both ahead 0
check "nothing had to be sent anew" not logged a resync "$MARK"
test_data
tests_done
