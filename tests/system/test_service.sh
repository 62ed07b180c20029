#!/bin/bash
# virtdrd as a service (TAP): reload, a clean stop, what it tells systemd, one instance only, its
# socket, events and metrics.

export LAB_ID=${LAB_ID:-43}
. "$top_srcdir/tests/system/lib.sh" || exit 1

CONF=/etc/virt-dr/virtdrd.conf
SOCKET=/run/virt-dr/virtdrd.sock

# One whose exit status can be waited for, unlike that of the lab's; its pid is in OWN.
own_virtdrd() {
    rm -f "$(host_file a /run/virt-dr/own.pid)"
    # shellcheck disable=SC2016 # expanded by the inner shell
    "$LAB" exec a sh -c 'echo $$ >/run/virt-dr/own.pid; exec env "$@"' sh "$@" \
        "$BUILD/daemon/virtdrd" --config $CONF >>"$(daemon_log_file a)" 2>&1 &
    OWN_JOB=$!
    wait_for 20 test -s "$(host_file a /run/virt-dr/own.pid)"
    OWN=$(cat "$(host_file a /run/virt-dr/own.pid)")
}

answers() {
    dr a host-info
}

api() {
    on a curl -sS --fail --max-time 20 --unix-socket $SOCKET "http://virtdrd$1"
}

# --- configuration ---------------------------------------------------------------

test_reload() {
    local mark pid

    pid=$(daemon_pid a)
    mark=$(log_mark a)
    sed -i 's/^site = .*/site = moved/' "$(host_file a $CONF)"
    kill -HUP "$pid"
    logs "a good configuration is read again at SIGHUP" a reloaded "$mark"
    comes_true "  ... and used" 20 jq -e '.site == "moved"' <(js a host-info)
    cp "$(host_file a $CONF)" "$WORK/good.conf"
    echo 'nonsense = yes' >>"$(host_file a $CONF)"
    mark=$(log_mark a)
    kill -HUP "$pid"
    logs "a broken one is refused" a reload-failed "$mark"
    check "  ... with file and line" grep -qE "virtdrd.conf:[0-9]+: .*nonsense" \
        <(log_since a "$mark")
    is "  ... and the old one goes on" "$(js a host-info | jq -r .site)" moved
    is "  ... in the same process" "$(daemon_pid a)" "$pid"
    exits 3 "  ... and a new virtdrd does not start with it" \
        on a "$BUILD/daemon/virtdrd" --config $CONF --check-config
    cp "$WORK/good.conf" "$(host_file a $CONF)"
    exits 0 "the good one passes --check-config" on a "$BUILD/daemon/virtdrd" --config $CONF --check-config
}

# --- one instance, its socket ---------------------------------------------------------

# The same state folder, but no socket or port in common with the first.
test_second_instance() {
    sed -e 's|^unix = .*|unix = /run/virt-dr/second.sock|' -e 's/:7780/:7790/; s/:7781/:7791/' \
        "$(host_file a $CONF)" >"$(host_file a /etc/virt-dr/second.conf)"
    run_status timeout 20 "$LAB" exec a "$BUILD/daemon/virtdrd" --config /etc/virt-dr/second.conf
    check "a second virtdrd on the same state is refused" test "$STATUS" -ne 0 -a "$STATUS" -ne 124
    message_has "another virtdrd|is in use|running already"
    run_status timeout 20 "$LAB" exec a "$BUILD/daemon/virtdrd" --config $CONF
    check "  ... and one with the same configuration" test "$STATUS" -ne 0 -a "$STATUS" -ne 124
    check "  ... the first one goes on" answers
}

test_stale_socket() {
    lab kill a virtdrd
    check "a virtdrd that was killed leaves its socket" test -S "$(host_file a $SOCKET)"
    fails_with CONNECT "  ... where nobody answers" a list
    check "  ... the next one replaces it" lab start a virtdrd
    check "  ... and answers" answers
    is "  ... only root and the group may use it" "$(stat -c %a "$(host_file a $SOCKET)")" 660
}

# --- metrics, events -------------------------------------------------------------------

test_metrics() {
    check "metrics are served on the socket" api /metrics >"$WORK/metrics.tap"
    cat "$WORK/metrics.tap"
    api /metrics >"$WORK/metrics"
    check "  ... in the text format" test "$(grep -c '^# TYPE virt' "$WORK/metrics")" -gt 3
    check "  ... with the VM" grep -qE '^virt_?dr_.*web' "$WORK/metrics"
}

followed() {
    grep -q "$1" "$WORK/events"
}

test_events() {
    local pid

    dr a events --follow >"$WORK/events" 2>&1 &
    pid=$!
    wait_for 5 false # it does not say when it has begun to listen
    dr a pause web >&2
    comes_true "who follows the events is told at once" 20 followed "was paused"
    dr a resume web >&2
    comes_true "  ... of each" 20 followed "was resumed"
    check "  ... for as long as he likes" kill -0 "$pid"
    kill "$pid"
    wait "$pid" 2>/dev/null
    check "and who asks later is told what was kept" has_event a resumed
}

# --- systemd -----------------------------------------------------------------------------

notified() {
    tr '\0' '\n' <"$WORK/notify" | grep -q "$1"
}

test_notify() {
    local listener folder

    lab stop a virtdrd
    folder=$(host_file a /run/virt-dr)
    : >"$WORK/notify"
    socat -u "UNIX-RECV:$folder/notify" "OPEN:$WORK/notify,append" &
    listener=$!
    wait_for 10 test -S "$folder/notify"
    own_virtdrd NOTIFY_SOCKET=/run/virt-dr/notify WATCHDOG_USEC=2000000
    comes_true "systemd is told that it is ready" 30 notified READY=1
    check "  ... when it answers" answers
    comes_true "  ... that it is alive" 30 notified WATCHDOG=1
    kill -HUP "$OWN"
    comes_true "  ... that it reloads" 30 notified RELOADING=1
    test_stop_in_sync
    check "  ... systemd is told that it stops" notified STOPPING=1
    kill "$listener"
    wait "$listener" 2>/dev/null
}

sync_is_under_way() {
    (($(info a bulk .sourceState.progress.bytesTransferred) > 1048576))
}

test_stop_in_sync() {
    local began status=0

    lab link b --rate 40mbit
    dr a protect bulk --to b >&2
    comes_true "a first sync is under way" "$PATIENCE" sync_is_under_way
    began=$SECONDS
    kill -TERM "$OWN"
    wait "$OWN_JOB" || status=$?
    is "SIGTERM ends virtdrd cleanly" "$status" 0
    check "  ... within 10 s ($((SECONDS - began)) s)" test $((SECONDS - began)) -le 10
    check "  ... and leaves no capture open" \
        test -z "$(ls -A "$(host_file a /var/lib/virt-dr/scratch)")"
    lab link b --clear
    lab start a virtdrd
    comes_true "  ... the next one finishes the sync" "$PATIENCE" state_is a bulk replicating
}

make_guests() {
    local image=/var/lib/libvirt/images/bulk-vdb.qcow2

    guest a web --rate 20 --disk-size 64MiB
    guest a bulk --rate 0 --disks 2 --no-start
    head -c 62914560 /dev/urandom >"$WORK/bulk"
    on a qemu-img convert -O qcow2 "$WORK/bulk" "$image" && virsh_on a start bulk ||
        bail_out "no guest with a large disk"
    check "a VM is protected" protect web --rpo 2s || bail_out "nothing to serve"
}

need socat curl
system_up
make_guests
test_reload
test_second_instance
test_stale_socket
test_metrics
test_events
test_notify
tests_done
