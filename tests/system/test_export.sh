#!/bin/bash
# Points are used without a failover (TAP): disks are read by NBD, on a unix socket and over TLS, while
# replication goes on; servers come back after their own death and virtdrd's; a VM is cloned.

export LAB_ID=${LAB_ID:-49}
. "$top_srcdir/tests/system/lib.sh" || exit 1

PORT=10809
B=10.99.$LAB_ID.12

# --- what is asked -------------------------------------------------------------

# export_field NAME FILTER: of an export as the API shows it; empty if there is none.
export_field() {
    js b export-list | jq -r --arg name "$1" ".items[] | select(.name == \$name) | $2"
}

serves() {
    [[ $(export_field "$1" .state) == serving ]]
}

# serves_anew NAME PID: by another process than that.
serves_anew() {
    serves "$1" && [[ $(export_field "$1" .serverPid) != "$2" ]]
}

# What nobody has waited for yet has ended all the same.
has_ended() {
    ! grep -qs '^State:[[:space:]]*[A-WY]' "/proc/$1/status"
}

uri_of() {
    export_field "$1" ".disks[] | select(.target == \"$2\") | .uri"
}

# copy_out HOST FOLDER URI...: each disk by nbdcopy into FOLDER/N.raw
copy_out() {
    local host=$1 folder=$2 n=0 uri

    shift 2
    mkdir -p "$folder"
    for uri in "$@"; do
        rm -f "$folder/$n.raw"
        on "$host" nbdcopy "$uri" "$folder/$n.raw" || return 1
        n=$((n + 1))
    done
}

# holds HOST NAME FOLDER [OPTION...]: what an export serves is consistent, see `lab check-disk`.
holds() {
    local host=$1 name=$2 folder=$3

    shift 3
    copy_out "$host" "$folder" "$(uri_of "$name" vda)" "$(uri_of "$name" vdb)" &&
        lab check-disk --json "$@" "$folder/0.raw" "$folder/1.raw" >"$WORK/check" || {
        cat "$WORK/check"
        return 1
    }
}

same_copy() {
    cmp "$WORK/$1/0.raw" "$WORK/$2/0.raw" && cmp "$WORK/$1/1.raw" "$WORK/$2/1.raw"
}

no_overlays() {
    [[ -z $(ls "$(host_file b "$(info b web .storeFolder)")/overlay" 2>/dev/null) ]]
}

# --- unix socket ------------------------------------------------------------------

test_newest() {
    lab acked a web >"$WORK/acked"
    sync_now
    exits 0 "the newest point is exported" js b export web --name first --wait || bail_out "no export"
    is "  ... by its name" "$(jq -r .result.name "$WORK/out")" first
    check "  ... it is served" serves first
    check "  ... has what was acknowledged before, none torn, in order" \
        holds b first "$WORK/first" --acked "$WORK/acked"
    is "  ... its socket is for its group alone" \
        "$(stat -c %a "$(host_file b /run/virt-dr/exports/first.sock)")" 660
    check "  ... it cannot be written" not on b nbdcopy "$WORK/first/0.raw" "$(uri_of first vda)"
    check "  ... it tells what is allocated" grep -q base:allocation \
        <(on b nbdinfo "$(uri_of first vda)")
    advances "replication goes on beside it" web "$PATIENCE"
    check "  ... and the point stays what it was" holds b first "$WORK/again"
    check "  ... to the byte" same_copy first again
}

sync_now() {
    dr a sync web --wait >/dev/null
}

test_names() {
    fails_with EXISTS "a name is given once" b export web --name first --wait
    fails_with USAGE "a name that is a path is refused" b export web --name ../x
    fails_with USAGE "credentials without TLS are refused" b export web --credentials "$WORK/x" --wait
    fails_with POINT_NOT_FOUND "a point that is not there is refused" b export web --point nosuch --wait
    fails_with INVALID_STATE "the source exports nothing" a export web --wait
    fails_with NOT_FOUND "an export that is not there cannot end" b unexport nosuch
}

# --- servers that die ----------------------------------------------------------------

test_server_killed() {
    local pid mark

    mark=$(log_mark b)
    pid=$(export_field first .serverPid)
    kill -9 "$pid"
    comes_true "a server that was killed is followed by another" "$PATIENCE" serves_anew first "$pid"
    logs "  ... which is an event" b export-server-ended "$mark"
    check "  ... with the same disks" holds b first "$WORK/again"
    check "  ... to the byte" same_copy first again
}

test_restart() {
    local pid uri

    uri=$(uri_of first vda)
    pid=$(export_field first .serverPid)
    lab stop b virtdrd
    check "the servers end with virtdrd" has_ended "$pid"
    lab start b virtdrd
    comes_true "  ... and come back with it" "$PATIENCE" serves first
    is "  ... at the same address" "$(uri_of first vda)" "$uri"
    pid=$(export_field first .serverPid)
    lab kill b virtdrd
    lab start b virtdrd
    comes_true "also when it was killed" "$PATIENCE" serves_anew first "$pid"
    check "  ... the server of before has ended" has_ended "$pid"
    check "  ... the disks are the same" holds b first "$WORK/again"
    check "  ... to the byte" same_copy first again
}

# --- TLS ------------------------------------------------------------------------------

test_tls() {
    local uri=nbds://$B:$PORT/vda

    exits 0 "a point is exported over TLS" dr b export web --name remote --listen "$B:$PORT" \
        --credentials "$WORK/credentials" --wait || return 0
    is "  ... the key is nobody else's to read" "$(stat -c %a "$WORK/credentials/client-key.pem")" 600
    check "  ... the key is in no task" not grep -q 'PRIVATE KEY' <(js b task-list)
    check "the other host reads it with the certificate" \
        copy_out a "$WORK/remote" "$uri?tls-certificates=$WORK/credentials" \
        "nbds://$B:$PORT/vdb?tls-certificates=$WORK/credentials"
    check "  ... it is consistent" lab check-disk --json --acked "$WORK/acked" \
        "$WORK/remote/0.raw" "$WORK/remote/1.raw"
    check "qemu-img reads it too" on a qemu-img convert -O raw --object \
        "tls-creds-x509,id=t,endpoint=client,dir=$WORK/credentials" --image-opts \
        "driver=nbd,host=$B,port=$PORT,export=vda,tls-creds=t" "$WORK/remote/qemu.raw"
    check "  ... the same bytes" cmp "$WORK/remote/0.raw" "$WORK/remote/qemu.raw"
    check "without TLS nothing is served" not on a nbdinfo "nbd://$B:$PORT/vda"
    mkdir -p "$WORK/anonymous" && cp "$WORK/credentials/ca-cert.pem" "$WORK/anonymous"
    check "  ... nor without a certificate" not on a nbdinfo --size \
        "$uri?tls-certificates=$WORK/anonymous"
    fails_with EXISTS "an address is used once" b export web --name other --listen "$B:$PORT" --wait
    check "  ... which leaves nothing" not test -n "$(export_field other .name)"
    exits 0 "exports are listed" js b export-list web
    is "  ... both of them" "$(jq '.items | length' "$WORK/out")" 2
}

# --- an older point ----------------------------------------------------------------------

test_older() {
    local point

    js b points web >"$WORK/points"
    point=$(jq -r '.items | sort_by(.sequenceNumber) | .[(length / 2 | floor)] | .id // .name' "$WORK/points")
    is "there are many points" "$(jq '.items | length > 3' "$WORK/points")" true || return 0
    exits 0 "an older point is exported" js b export web --name older --point "$point" --wait || return 0
    is "  ... and no other" "$(jq -r .result.point.id "$WORK/out")" "$point"
    check "  ... it is consistent" holds b older "$WORK/older"
    check "  ... it is not the newest" not cmp "$WORK/older/0.raw" "$WORK/remote/0.raw"
    check "it ends" dr b unexport older
}

# --- clone ---------------------------------------------------------------------------------

clone_folder() {
    host_file b "/var/lib/virt-dr/storage/clones/$1"
}

test_clone() {
    local uuid

    exits 0 "a VM is cloned" js b clone web --name twin --wait || return 0
    uuid=$(jq -r .result.uuid "$WORK/out")
    is "  ... defined, not started" "$(virsh_on b domstate twin)" "shut off"
    is "  ... with a UUID of its own" "$(virsh_on b domuuid twin)" "$uuid"
    check "  ... which is not the other VM's" not test "$uuid" = "$(virsh_on a domuuid web)"
    check "  ... on disks without a backing file" not grep -q backing \
        <(on b qemu-img info --output json "$(disks_of b twin | head -n 1)")
    check "  ... they are consistent" consistent b twin --acked "$WORK/acked"
    check "  ... does not start with its host" grep -qE 'Autostart: +disable' <(virsh_on b dominfo twin)
    check "  ... and the overlay is gone" not grep -q clone- \
        <(ls "$(host_file b "$(info b web .storeFolder)")/overlay")
    fails_with EXISTS "a domain's name is not given again" b clone web --name twin --wait
    fails_with EXISTS "nor a replica's" b clone web --name web --wait
    fails_with USAGE "nor one that is a path" b clone web --name ../x
    fails_with STORAGE_NOT_FOUND "a storage must be there" b clone web --name x --storage nosuch
    check "it runs" virsh_on b start twin
    # Its console is a file, of the name that it had.
    check "  ... and goes on where the point was" lab wait-guest b web --timeout "$((PATIENCE * 3))"
    virsh_on b destroy twin
}

# Whatever it had come to, nothing of it is left.
leaves_nothing() {
    check "  ... is not defined" not virsh_on b dominfo "$1"
    comes_true "  ... leaves no folder" "$PATIENCE" test -z "$(find "$(clone_folder '')" -mindepth 1 -maxdepth 1 ! -name twin)"
    check "  ... and no overlay" not grep -q clone- \
        <(ls "$(host_file b "$(info b web .storeFolder)")/overlay")
}

test_clone_cancelled() {
    local task

    task=$(js b clone web --name halted | jq -r .id)
    comes_true "a clone copies its disks" "$PATIENCE" step_is "$task" copy-disks
    check "  ... is cancelled in the middle" dr b task-cancel "$task"
    fails_with CANCELLED "  ... and says so" b task-wait "$task"
    leaves_nothing halted
}

step_is() {
    [[ $(js b task-info "$1" | jq -r .step) == "$2" ]]
}

test_clone_killed() {
    local task

    task=$(js b clone web --name survivor | jq -r .id)
    comes_true "a clone copies its disks once more" "$PATIENCE" step_is "$task" copy-disks
    lab kill b virtdrd
    lab start b virtdrd
    exits 0 "  ... and goes on after virtdrd was killed" dr b task-wait "$task"
    check "  ... is defined" virsh_on b dominfo survivor
    check "  ... on consistent disks" consistent b survivor --acked "$WORK/acked"
    virsh_on b undefine survivor
    rm -rf "$(clone_folder survivor)"
}

# --- the end ------------------------------------------------------------------------------------

test_unexport() {
    check "an export ends" dr b unexport remote
    check "  ... its port is closed" not on a nbdinfo "nbd://$B:$PORT/vda"
    check "  ... its certificates are gone" test -z \
        "$(find "$(host_file b /var/lib/virt-dr/exports)" -name '*-key.pem')"
}

test_unprotect() {
    fails_with INVALID_STATE "a VM with exports is not unprotected" b unprotect web --wait
    message_has "'first'" "unexport"
    fails_with INVALID_STATE "  ... nor by its source" a unprotect web --wait
    check "  ... the export goes on" serves first
    check "  ... with force it is" dr b unprotect web --force --wait
    is "  ... and the export has ended" "$(js b export-list | jq '.items | length')" 0
    check "  ... its socket is gone" not test -e "$(host_file b /run/virt-dr/exports/first.sock)"
    check "the clone stays" consistent b twin --acked "$WORK/acked"
}

need nbdcopy nbdinfo
system_up
guest a web --rate 100
check "a VM is protected" protect web --rpo 2s || bail_out "nothing to export"
test_newest
test_names
test_server_killed
test_restart
test_tls
test_older
test_clone
test_clone_cancelled
test_clone_killed
test_unexport
test_unprotect
tests_done
