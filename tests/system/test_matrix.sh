#!/bin/bash
# Every kind of disk, in every state of its VM, through every end that it can come to (TAP):
# {qcow2, raw file, block device, LUKS} x {running, paused, off} x {clean restarts, QEMU killed, host crashed}.
# After each the replica is the source to the byte, holds the numbered blocks, and its older points are
# what they were; what was lost is compared by itself, never copied, and after clean ends nothing is.
# With LONG=yes all of them, else a choice.

export LAB_ID=${LAB_ID:-61}
export LAB_CONF_EXTRA
LAB_CONF_EXTRA=$(mktemp /var/tmp/virt-dr-matrix.XXXXXX)
. "$top_srcdir/tests/system/lib.sh" || exit 1

# An export waits for the slice that is under way. The machine that runs this may be busy: that shall not
# lengthen the interval.
cat >"$LAB_CONF_EXTRA" <<END
[sync]
slice_time = 2s
[latency]
min = 10s
END

VMS=(qcow2 raw block luks)
IMAGES=/var/lib/libvirt/images
BOOT=$((PATIENCE * 3)) # seconds: four emulated guests on a busy machine take their time
PASSPHRASE=open-sesame
SECRET=7f3a0e5e-4a4e-4d0f-9d64-0c1f3d7f6101
MIB=1048576
DISK_MIB=32
WRITTEN_MIB=8   # of each disk, by the guest; behind it is what would be sent if all were
FILLED_MIB=16   # random: of each disk
COMPARED_MAX=$((FILLED_MIB * MIB)) # what a compare sends at most; a copy would be more than twice that

# Each kind of disk, each state, each end, in one cell at least; "make check-long" does all of them.
CELLS="running_clean paused_killed off_crashed off_unprotected"
[[ -z ${LONG:-} ]] || CELLS="running_clean running_killed running_crashed paused_clean paused_killed
    paused_crashed off_killed off_clean off_crashed off_unprotected"

declare -A RESYNCS

# --- the guests --------------------------------------------------------------------

# Again until it is done: qemu-img times its key derivation, and gives up on a busy machine.
luks_image() {
    on a qemu-img create -q -f qcow2 --object "secret,id=s,data=$PASSPHRASE" \
        -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=50 "$1" ${DISK_MIB}M
}

luks_options() {
    echo "driver=qcow2,encrypt.key-secret=s,file.filename=$IMAGES/luks-$1.qcow2"
}

# fill VM DISK: what the guest will not touch is random.
fill() {
    local image=$IMAGES/$1-$2

    case $1 in
    qcow2) on a qemu-img convert -O qcow2 "$WORK/content" "$image.qcow2" ;;
    luks)
        wait_for "$PATIENCE" luks_image "$image.qcow2" &&
            on a qemu-img convert -n --object "secret,id=s,data=$PASSPHRASE" --target-image-opts \
                "$WORK/content" "$(luks_options "$2")"
        ;;
    *) cp --sparse=always "$WORK/content" "$(host_file a "$image.raw")" ;;
    esac
}

define_secret() {
    printf '<secret ephemeral="no" private="no"><uuid>%s</uuid><usage type="volume"><volume>luks</volume></usage></secret>\n' \
        $SECRET >"$WORK/secret.xml"
    virsh_on a secret-define "$WORK/secret.xml" &&
        virsh_on a secret-set-value $SECRET --base64 "$(printf %s $PASSPHRASE | base64)"
}

# Loop devices over the files that its disks were.
use_block_devices() {
    local i device

    for i in vda vdb; do
        device=$(losetup -f --show "$(host_file a "$IMAGES/block-$i.raw")") || return 1
        exec {LOOP}<"$device" && losetup -d "$device" # gone with the last who has it open
        sed -i "s|<source file='$IMAGES/block-$i.raw'/>|<source dev='$device'/>|" "$1"
    done
    sed -i "s|<disk type='file' device='disk'>|<disk type='block' device='disk'>|" "$1"
}

use_secret() {
    sed -i "s|\(<source file='$IMAGES/luks-vd[ab].qcow2'\)/>|\1><encryption format='luks'><secret type='passphrase' uuid='$SECRET'/></encryption></source>|" "$1"
}

make_guest() {
    local vm=$1 format=raw xml=$WORK/$1.xml

    [[ $vm == raw || $vm == block ]] || format=qcow2
    guest a "$vm" --format $format --disk-size ${DISK_MIB}MiB --span ${WRITTEN_MIB}MiB --rate 50 --no-start
    fill "$vm" vda && fill "$vm" vdb && virsh_on a dumpxml --inactive "$vm" >"$xml" || return 1
    case $vm in
    block) use_block_devices "$xml" ;;
    luks) define_secret && use_secret "$xml" ;;
    esac && virsh_on a define "$xml" && virsh_on a start "$vm"
}

make_guests() {
    local vm

    head -c $((FILLED_MIB * MIB)) /dev/urandom |
        dd of="$WORK/content" bs=$MIB seek=$WRITTEN_MIB iflag=fullblock status=none
    truncate -s ${DISK_MIB}M "$WORK/content"
    for vm in "${VMS[@]}"; do
        make_guest "$vm" >&2 || bail_out "no guest on $vm"
    done
    for vm in "${VMS[@]}"; do
        lab wait-guest a "$vm" --timeout "$BOOT" >&2 || bail_out "guest $vm does not write"
        check "$vm is protected" protect "$vm" --rpo 2s || bail_out "nothing to look at"
    done
}

# --- conditions ----------------------------------------------------------------------

now_ms() {
    date +%s%3N
}

each() {
    local vm

    for vm in "${VMS[@]}"; do
        "$@" "$vm"
    done
}

# caught_up SINCE_MS VM: its newest point is of later than that, and nothing is wrong.
caught_up() {
    js a info "$2" | jq -e --argjson since "$1" \
        '.state == "replicating" and .lastError == null and .latestInstance.timestamp > $since' >/dev/null
}

# With the driver that is for VMs without a process.
captured_off() {
    [[ $(info a "$1" .capture.driver) == offline ]]
}

is_off() {
    [[ $(virsh_on a domstate "$1") == 'shut off' ]]
}

resyncing() {
    [[ $(info b "$1" .state) == resyncing ]]
}

resyncs_of() {
    grep -cE " WARN +resync .*vm=$1( |$)" "$(daemon_log_file a)"
}

resync() {
    info a "$1" ".resync.$2"
}

# --- what is done to them ---------------------------------------------------------------

pause_replication() {
    dr a pause "$1" >&2
}

resume_replication() {
    dr a resume "$1" >&2
}

writes() {
    lab wait-guest a "$1" --blocks "${2:-1}" --timeout "$BOOT" >&2 || not_ok "$1 writes"
}

start() {
    # After a crash of the host the peer has to confirm first that it may run here.
    wait_for "$PATIENCE" virsh_on a start "$1" "${@:2}" || not_ok "$1 can be started"
}

start_paused() {
    start "$1" --paused
}

pause_guest() {
    virsh_on a suspend "$1"
}

resume_guest() {
    virsh_on a resume "$1"
}

is_idle() {
    [[ $(info a "$1" .sourceState.state) == idle ]]
}

# Not amid a capture: QEMU 7.2 may abort then instead of ending, and that is the case below.
end_guest() {
    pause_replication "$1"
    wait_for "$PATIENCE" is_idle "$1"
    virsh_on a destroy --graceful "$1" && wait_for "$PATIENCE" is_off "$1" || not_ok "$1 can be ended"
    resume_replication "$1"
}

kill_guest() {
    lab kill a qemu "$1" && wait_for "$PATIENCE" is_off "$1" || not_ok "$1's QEMU can be killed"
}

restart_daemons() {
    lab stop a virtdrd && lab start a virtdrd && lab stop a libvirtd && lab start a libvirtd ||
        not_ok "the daemons can be restarted"
}

crash_host() {
    lab crash a && lab boot a || not_ok "the host can be crashed"
}

# all_caught_up WHAT: a point of each that is younger than now.
all_caught_up() {
    local vm since

    since=$(now_ms)
    for vm in "${VMS[@]}"; do
        wait_for "$BOOT" caught_up "$since" "$vm" || not_ok "$vm has a new point, $1" \
            "$(js a info "$vm" | jq -c '{state, lastError, resync, latestInstance}')"
    done
}

note_resyncs() {
    RESYNCS[$1]=$(resyncs_of "$1")
}

# --- what is expected of each --------------------------------------------------------------

source_disk() {
    case $1 in
    qcow2) on a qemu-img convert -U -O raw "$IMAGES/$1-$2.qcow2" "$WORK/source" ;;
    luks)
        on a qemu-img convert -U -O raw --object "secret,id=s,data=$PASSPHRASE" --image-opts \
            "$(luks_options "$2")" "$WORK/source"
        ;;
    *) cp --sparse=always "$(host_file a "$IMAGES/$1-$2.raw")" "$WORK/source" ;;
    esac
}

# read_point VM [OPTION...]: a point's disks as $WORK/vda and $WORK/vdb.
read_point() {
    local target uri

    js b export "$1" --name reading --wait "${@:2}" >"$WORK/export" || return 1
    rm -f "$WORK/vda" "$WORK/vdb"
    while read -r target uri; do
        on b nbdcopy "$uri" "$WORK/$target" || return 1
    done < <(jq -r '.result.disks[] | "\(.target) \(.uri)"' "$WORK/export")
    dr b unexport reading
}

sums_read() {
    sha256sum <"$WORK/vda" && sha256sum <"$WORK/vdb"
}

same_disks() {
    local disk

    for disk in vda vdb; do
        source_disk "$1" $disk && cmp "$WORK/source" "$WORK/$disk" || return 1
    done
}

holds_blocks() {
    lab check-disk --json --acked "$WORK/acked" "$WORK/vda" "$WORK/vdb" >"$WORK/check" ||
        { cat "$WORK/check"; return 1; }
    [[ $(jq '.lost_blocks' "$WORK/check") == 0 ]]
}

# exact VM: the newest point is the source, which stands still, to the byte.
exact() {
    lab acked a "$1" >"$WORK/acked"
    dr a sync "$1" --wait >/dev/null && read_point "$1" && same_disks "$1" && holds_blocks &&
        jq -r .result.point.id "$WORK/export" >"$WORK/point-$1" && sums_read >"$WORK/sums-$1"
}

# keeps_older VM: the point that was last found exact reads as it did.
keeps_older() {
    read_point "$1" --point "$(cat "$WORK/point-$1")" && sums_read | cmp - "$WORK/sums-$1"
}

was_not_synchronised() {
    is "  ... $1 is not synchronised anew" "$(resyncs_of "$1")" "${RESYNCS[$1]}"
}

was_compared() {
    local sent

    sent=$(resync "$1" sentBytes)
    check "  ... $1 was compared by itself" test "$(resyncs_of "$1")" -gt "${RESYNCS[$1]}"
    is "  ... and not copied" "$(resync "$1" compare)" true
    check "  ... little was sent ($sent bytes)" test "${sent:-$COMPARED_MAX}" -lt "$COMPARED_MAX"
    check "  ... the point before it is what it was" keeps_older "$1"
}

# Those that keep bitmaps in their images do not notice that QEMU ended and began again.
was_compared_without_bitmaps() {
    case $1 in
    raw | block) was_compared "$1" ;;
    *) was_not_synchronised "$1" ;;
    esac
}

is_exact() {
    check "  ... $1's replica is exact" exact "$1"
}

# --- the cells of the matrix ----------------------------------------------------------------

# came_through WHAT EXPECTATION: all have points again, and what happened to them is what had to.
came_through() {
    all_caught_up "after $1"
    each "$2"
}

# Guests that run stand still meanwhile.
prove_running() {
    each pause_guest
    all_caught_up "standing still"
    each is_exact
    each resume_guest
}

# What each cell begins with. Guests that were started paused boot only now.
run() {
    case $(virsh_on a domstate "$1") in
    'shut off') start "$1" ;;
    paused) resume_guest "$1" ;;
    esac
}

come_to_run() {
    each run
    each writes
    all_caught_up "running"
}

come_to_pause() {
    come_to_run
    each pause_guest
    all_caught_up "paused"
}

come_to_end() {
    if is_off "${VMS[0]}"; then
        return
    fi
    come_to_run
    each end_guest
    all_caught_up "off"
}

begin() {
    diag "$1"
    each note_resyncs
}

running_clean() {
    come_to_run
    begin "running, daemons restarted"
    restart_daemons
    came_through "the daemons' restart" was_not_synchronised
    begin "running, guests restarted"
    each end_guest
    each start
    each writes
    came_through "the guests' restart" was_compared_without_bitmaps
    prove_running
}

writes_a_lot() {
    writes "$1" 800
}

# What the guest has written meanwhile, and a limit, make a compare that can be met.
older_amid_compare() {
    dr a bandwidth "$1" --limit 256KiB/s >&2
    resume_replication "$1"
    comes_true "  ... $1 is being compared" "$BOOT" resyncing "$1"
    check "  ... and its older point is what it was" keeps_older "$1"
    check "  ... meanwhile" resyncing "$1"
    dr a bandwidth "$1" --limit unlimited >&2
}

running_killed() {
    come_to_run
    begin "running, QEMU killed"
    each pause_replication
    each writes_a_lot
    each kill_guest
    each older_amid_compare
    each start
    each writes
    came_through "QEMU was killed" was_compared
    prove_running
}

running_crashed() {
    come_to_run
    begin "running, host crashed"
    crash_host
    each start
    each writes
    came_through "the host crashed" was_compared
    prove_running
}

paused_clean() {
    come_to_pause
    begin "paused, daemons restarted"
    restart_daemons
    came_through "the daemons' restart" was_not_synchronised
    each is_exact
}

paused_killed() {
    come_to_pause
    begin "paused, QEMU killed"
    each kill_guest
    each start_paused
    came_through "QEMU was killed" was_compared
    each is_exact
}

paused_crashed() {
    come_to_pause
    begin "paused, host crashed"
    crash_host
    each start_paused
    came_through "the host crashed" was_compared
    each is_exact
}

# Its images stay as a QEMU left them that had no time to end.
off_killed() {
    come_to_run
    begin "off, since QEMU was killed"
    each kill_guest
    came_through "QEMU was killed" was_compared
    each is_exact
}

off_clean() {
    come_to_run
    begin "off"
    each end_guest
    came_through "the guests ended" was_compared_without_bitmaps
    each is_exact
    begin "off, daemons restarted"
    restart_daemons
    came_through "the daemons' restart" was_not_synchronised
    each is_exact
}

off_crashed() {
    come_to_end
    begin "off, host crashed"
    crash_host
    came_through "the host crashed" was_not_synchronised
    each check_offline
    each is_exact
}

check_offline() {
    check "  ... $1 is captured as one that is off" captured_off "$1"
}

# Those whose images hold what we recorded; nothing can be removed from a VM that is off.
off_unprotected() {
    local vm

    come_to_end
    diag "off, and not protected any more"
    for vm in qcow2 luks; do
        check "$vm's protection ends while it is off" dr a unprotect $vm --wait
        start $vm
        comes_true "  ... and what was recorded in it is removed once it runs" "$PATIENCE" \
            has_nothing_of_ours $vm
    done
}

has_nothing_of_ours() {
    [[ -z $(virsh_on a checkpoint-list "$1" --name) ]] &&
        ! virsh_on a qemu-monitor-command "$1" '{"execute": "query-block"}' | grep -q virt-dr-
}

need losetup nbdcopy sha256sum
system_up
make_guests
prove_running
for cell in $CELLS; do
    began=$SECONDS
    $cell
    diag "$cell took $((SECONDS - began)) s"
done
rm -f "$LAB_CONF_EXTRA"
tests_done
