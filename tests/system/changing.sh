# shellcheck shell=bash
# Guests on host a that change while they are protected, and what is expected of their replicas then.
# Sourced behind lib.sh.

IMAGES=/var/lib/libvirt/images
EXPORTS=0 # that were made

# --- the guests --------------------------------------------------------------------

# One raw disk among the qcow2 ones: the VM is captured by bitmaps.
make_db() {
    guest a db --disks 3 --disk-size 16MiB --rate 50 --no-start
    virsh_on a detach-disk db vdc --config >&2 &&
        on a qemu-img create -q -f raw $IMAGES/db-vdc.raw 16M &&
        virsh_on a attach-disk db $IMAGES/db-vdc.raw vdc --config --subdriver raw --targetbus virtio >&2 &&
        virsh_on a start db >&2
}

make_guests() {
    guest a web --disk-size 16MiB --rate 50
    make_db || bail_out "no guest with a raw disk"
    lab wait-guest a db --timeout "$PATIENCE" >&2 || bail_out "guest db does not write"
    check "web is protected" protect web --rpo 2s || bail_out "nothing to change"
    check "db is protected" protect db --rpo 2s || bail_out "nothing to change"
    is "web is captured by checkpoints" "$(info a web .capture.driver)" checkpoint
    is "db is captured by bitmaps" "$(info a db .capture.driver)" bitmap
}

# --- what is expected ------------------------------------------------------------------

# The disks that are replicated: "TARGET PATH" lines.
disks_with_paths() {
    virsh_on a domblklist --details "$1" | awk '$2 == "disk" { print $3, $4 }'
}

# on_image COMMAND ARGUMENT... PATH...: qemu-img on images of a that a guest may have open.
as_raw() {
    on a qemu-img convert -U -O raw "$1" "$2"
}

# same_disk PATH URI
same_disk() {
    rm -f "$WORK/source" "$WORK/replica"
    as_raw "$1" "$WORK/source" && on b nbdcopy "$2" "$WORK/replica" && cmp "$WORK/source" "$WORK/replica"
}

uri_of() {
    jq -r --arg t "$1" '.disks[] | select(.target == $t) | .uri' "$WORK/export"
}

# same VM: the newest point on b has the VM's disks, and no other, to the byte. It stands still.
same() {
    local target path status=0 n=0

    dr a sync "$1" --wait || return 1
    EXPORTS=$((EXPORTS + 1))
    js b export "$1" --name "same-$EXPORTS" --wait | jq .result >"$WORK/export"
    while read -r target path; do
        same_disk "$path" "$(uri_of "$target")" || { echo "disk $target differs"; status=1; }
        n=$((n + 1))
    done < <(disks_with_paths "$1")
    [[ $(jq '.disks | length' "$WORK/export") == "$n" ]] || { echo "not $n disks"; status=1; }
    dr b unexport "same-$EXPORTS"
    return $status
}

paused_same() {
    local status=0

    virsh_on a suspend "$1"
    same "$1" || status=1
    virsh_on a resume "$1"
    return $status
}

resyncs_of() {
    grep -c " resync .*vm=$1" "$(daemon_log_file a)"
}

# goes_on VM WHAT BEFORE [RESYNCS]: points follow each other, and are exact; so many resyncs since there
# were BEFORE (default none; "any" counts none).
goes_on() {
    local before=$3

    advances "$2: replication of $1 goes on" "$1" "$PATIENCE"
    check "  ... and is exact" paused_same "$1"
    [[ ${4:-} == any ]] || is "  ... with ${4:-0} resyncs" "$(($(resyncs_of "$1") - before))" "${4:-0}"
}

# Our bitmaps in the images of a VM that runs: "NODE NAME" lines.
our_bitmaps() {
    virsh_on a qemu-monitor-command "$1" '{"execute":"query-named-block-nodes","arguments":{"flat":true}}' |
        jq -r '.return[] | ."node-name" as $n | (."dirty-bitmaps" // [])[] | select(.name | startswith("virt-dr-"))
            | "\($n) \(.name)"'
}

one_bitmap_per_disk() {
    local names

    names=$(our_bitmaps "$1")
    [[ $(cut -d ' ' -f 1 <<<"$names" | sort | uniq -d) == '' ]] || { echo "$names"; return 1; }
}

is_off() {
    [[ $(virsh_on a domstate "$1") == "shut off" ]]
}

turn_off() {
    virsh_on a destroy "$1" --graceful && wait_for "$PATIENCE" is_off "$1"
}

# off_and_sent VM: turned off, and what it wrote last has arrived.
off_and_sent() {
    local now

    now=$(date +%s%3N)
    turn_off "$1" || return 1
    wait_for "$PATIENCE" caught_up_after "$1" "$now"
}

caught_up() {
    [[ $(info a "$1" .capture.driver) == offline && $(info a "$1" .state) == replicating ]] &&
        [[ $(info a "$1" .lastError) == null ]]
}

# libvirt refuses jobs on disks while a capture of ours is open: whoever makes them tries again.

has_disk() {
    disks_with_paths "$1" | grep -q "^$2 "
}

caught_up_after() {
    caught_up "$1" && (($(info b "$1" .latestInstance.timestamp) > $2))
}
