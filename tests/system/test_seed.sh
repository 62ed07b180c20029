#!/bin/bash
# A first sync that begins with what is on the target already (TAP): images that somebody has put
# there, or a folder that export-seed has written. Only what differs travels, the replica is the VM's
# to the byte, and the first point can be failed over to. Daemons die amid it; what is damaged, of another
# VM or out of place is refused, and nothing is left behind.

export LAB_ID=${LAB_ID:-60}
export LAB_CONF_EXTRA
LAB_CONF_EXTRA=$(mktemp /var/tmp/virt-dr-seed.XXXXXX)
. "$top_srcdir/tests/system/lib.sh" || exit 1

SEEDS=/var/lib/virt-dr/seeds # on b, for VMs of a
MEDIA=/var/lib/virt-dr/media # on a
cat >"$LAB_CONF_EXTRA" <<END
[peer a]
seed_folder = $SEEDS
[upkeep]
rate = 64MiB
END

BOOT=$((PATIENCE * 3)) # seconds: an emulated guest on a busy machine takes its time
FILLED=$((128 * 1024 * 1024)) # bytes that the guest leaves alone, on both disks
KEPT=0 # exports that were made

seeds() {
    host_file b "$SEEDS"
}

media() {
    host_file a "$MEDIA"
}

# same_disk TARGET URI: the disk of the guest, which stands still, and of the export.
same_disk() {
    local path

    path=$(virsh_on a domblklist --details web | awk -v t="$1" '$3 == t { print $4 }')
    on a qemu-img convert -U -O raw "$path" "$WORK/old" &&
        on b qemu-img convert -f raw -O raw "$2" "$WORK/new" && cmp "$WORK/old" "$WORK/new"
}

same_disks() {
    local target uri n=0

    while read -r target uri; do
        same_disk "$target" "$uri" || return 1
        n=$((n + 1))
    done < <(jq -r '.disks[] | "\(.target) \(.uri)"' "$WORK/export")
    ((n == 2))
}

# exact NAME: the newest point has the disks of the guest, which stands still, byte by byte.
exact() {
    KEPT=$((KEPT + 1))
    js b export web --name "kept-$KEPT" --wait | jq .result >"$WORK/export"
    check "$1" same_disks
    dr b unexport "kept-$KEPT" >&2
}

# What a's libvirtd and QEMU still record for us.
n_records() {
    virsh_on a checkpoint-list web --name | grep -c virt-dr-
}

nothing_is_left() {
    [[ -z $(info a web .id) && -z $(info b web .id) ]] &&
        [[ -z $(ls "$(host_file b /var/lib/virt-dr/storage)") ]] && (($(n_records) == ${1:-0}))
}

end_protection() {
    dr a unprotect web --wait >&2
    check "  ... and it ends without a trace" nothing_is_left
}

# Most of what its disks hold was there before, and stays.
make_guest() {
    local path

    guest a web --disk-size 160MiB --span 8MiB --rate 400 --no-start
    for path in $(disks_of a web); do
        on a qemu-io -f qcow2 -c 'write -q -P 0x5a 64M 64M' "$path"
    done
    virsh_on a start web >&2
    lab wait-guest a web --timeout "$BOOT" >&2
}

# --- images that are there ----------------------------------------------------------

# As an administrator would copy them some day, while the guest writes: of no one moment.
copy_images() {
    local paths

    mapfile -t paths < <(disks_of a web)
    on a qemu-img convert -U -O qcow2 "${paths[0]}" "$(seeds)/old-vda.qcow2" &&
        on a qemu-img convert -U -O raw "${paths[1]}" "$(seeds)/old-vdb.img"
}

# As long as nothing is captured: QEMU 7.2 may abort when a VM is stopped while an export of it ends.
stand_still() {
    virsh_on a suspend web
}

go_on() {
    virsh_on a resume web
}

write_more() {
    lab wait-guest a web --blocks "$1" --timeout "$BOOT" >&2
}

test_images() {
    local compared sent wire

    check "a VM's images were copied to the target some time ago" copy_images
    sha256sum "$(seeds)"/old-* >"$WORK/sums"
    write_more 300
    stand_still
    exits 0 "it is protected with them as its seed" dr a protect web --to b --rpo 2s \
        --seed "vda=$SEEDS/old-vda.qcow2,vdb=old-vdb.img" --wait || return 0
    grep -q 'compared with the seed' "$WORK/out"
    is "  ... and told what that has spared" $? 0
    compared=$(info a web .resync.comparedBytes) sent=$(info a web .resync.sentBytes)
    wire=$(info a web .resync.wireBytes)
    check "  ... all that the disks hold was compared ($compared bytes)" \
        test "$compared" -ge "$FILLED"
    check "  ... a part of it travelled ($sent bytes)" test "$sent" -lt $((FILLED / 4))
    check "  ... with little beside it ($wire bytes)" \
        test "$wire" -lt $((sent * 11 / 10 + 2 * 160 * 1024 * 1024 / 500))
    check "  ... the seed was only read" sha256sum -c "$WORK/sums"
    is "  ... which the target tells" "$(info b web .seed.state)" "done"
    exact "  ... the replica is the same, byte by byte"
    go_on
    end_protection
}

# --- what is refused -----------------------------------------------------------------

# refused CODE NAME SEED PATTERN
refused() {
    fails_with "$1" "$2" a protect web --to b --seed "$3" --wait && message_has "$4"
}

test_refused() {
    local records

    records=$(n_records)
    ln -s /etc/shadow "$(seeds)/link.raw"
    on b qemu-img create -q -u -f qcow2 -F raw -b /etc/shadow "$(seeds)/evil.qcow2" 64M
    cp "$(seeds)/old-vda.qcow2" "$(seeds)/guess.img"
    refused FORBIDDEN "an image outside of the seed folder is refused" vda=/etc/shadow "not in the folder"
    refused FORBIDDEN "... a symbolic link" vda=link.raw "symbolic link"
    refused FORBIDDEN "... a backing file elsewhere" vda=evil.qcow2 "/etc/shadow"
    refused USAGE "... a header that a guest may have written" vda=guess.img "qcow2:"
    refused USAGE "... a disk that there is not" vdz=old-vdb.img "no disk 'vdz'"
    refused NOT_FOUND "... an image that there is not" vda=nothing.raw "nothing.raw"
    check "  ... and nothing is left of it" nothing_is_left "$records"
}

test_no_folder() {
    guest b other --no-start
    fails_with FORBIDDEN "who takes seeds has to say from where" b protect other --to a --seed /tmp --wait
    message_has "seed_folder" "\[peer b\]"
    exits 0 "a VM that is off can be exported, too" \
        dr b export-seed other /var/lib/virt-dr/exported --wait
    is "  ... without a record, as nothing is written to its images" \
        "$(jq -r .record "$(host_file b /var/lib/virt-dr/exported)/manifest.json")" ""
}

# --- media ---------------------------------------------------------------------------

# carry NAME: to the other host, as NAME.
carry() {
    rm -rf "$(seeds):?/$1"
    cp -r "$(media)/web" "$(seeds)/$1"
}

test_export() {
    exits 0 "a VM's disks are exported to media" js a export-seed web "$MEDIA/web" --wait || return 0
    check "  ... with a manifest" jq -e '.vmName == "web" and (.disks | length) == 2' "$(media)/web/manifest.json"
    is "  ... and what changes is recorded, once" "$(n_records)" 1
    on a qemu-img convert -O raw "$(media)/web/vda.qcow2" "$WORK/a.raw"
    on a qemu-img convert -O raw "$(media)/web/vdb.qcow2" "$WORK/b.raw"
    check "  ... of one moment" lab check-disk --host a "$WORK/a.raw" "$WORK/b.raw"
    fails_with EXISTS "a folder with something else in it takes no export" \
        a export-seed web /var/lib/virt-dr --wait
}

test_import() {
    carry web
    write_more 200
    stand_still
    exits 0 "it is protected from what was carried over" dr a protect web --to b --rpo 2s --seed web --wait ||
        return 0
    is "  ... without a compare: what has changed is known" "$(info a web .resync.comparedBytes)" 0
    check "  ... and little was sent" test "$(info a web .statistics.changedBytes)" -lt $((FILLED / 4))
    exact "  ... the replica is the same, byte by byte"
    go_on
    end_protection
}

spoil() {
    printf '\377' | dd of="$1" bs=1 seek=700000 conv=notrunc status=none
}

test_bad_media() {
    local records

    exits 0 "it is exported again, over the first one" js a export-seed web "$MEDIA/web" --wait || return 0
    records=$(n_records)
    is "  ... and one record is kept" "$records" 1
    carry damaged
    spoil "$(seeds)/damaged/vdb.qcow2"
    carry half
    rm "$(seeds)/half/manifest.json"
    carry other
    sed -i 's/"vmName":"web"/"vmName":"wet"/' "$(seeds)/other/manifest.json"
    refused CHECKSUM "a bit that flipped on the way is found" damaged "vdb"
    refused NOT_FOUND "half an export is none" half "manifest"
    refused STORE "a manifest that was changed is none" other "damaged"
    check "  ... and nothing is left of it" nothing_is_left "$records"
}

qemu_is_off() {
    [[ $(virsh_on a domstate web) == 'shut off' ]]
}

import_runs() {
    js b task-list | jq -e '.items[]? | select(.type == "import-seed" and .state == "RUNNING")' >/dev/null
}

# The record is lost with QEMU, too: then all is compared, by itself.
test_killed_on_target() {
    carry web
    lab kill a qemu web
    wait_for "$PATIENCE" qemu_is_off
    virsh_on a start web
    lab wait-guest a web --timeout "$BOOT" >&2
    stand_still
    dr a protect web --to b --rpo 2s --seed web --wait >"$WORK/protect" 2>&1 &
    comes_true "a seed is being imported" "$PATIENCE" import_runs
    lab kill b virtdrd
    lab start b virtdrd
    wait $!
    is "killed amid it, the target's virtdrd begins it again" $? 0 || diag <"$WORK/protect"
    is "  ... and the VM is protected" "$(info a web .state)" replicating
    check "  ... by comparing, as QEMU had been killed" test "$(info a web .resync.comparedBytes)" -gt 0
    check "  ... with little sent" test "$(info a web .resync.sentBytes)" -lt $((FILLED / 4))
    exact "  ... the replica is the same, byte by byte"
    go_on
    end_protection
}

images_grow() {
    (($(stat -c %s "$1/vda.qcow2" 2>/dev/null || echo 0) > 2000000))
}

export_ended() {
    js a task-list | jq -e --arg state "$1" \
        '[.items[]? | select(.type == "export-seed")] | max_by(.startTime).state == $state' >/dev/null
}

test_killed_on_source() {
    rm -rf "$(media)/web"
    dr a export-seed web "$MEDIA/web" >&2
    comes_true "an export is under way" "$PATIENCE" images_grow "$(media)/web"
    check "  ... without a manifest" test ! -e "$(media)/web/manifest.json"
    lab kill a virtdrd
    lab start a virtdrd
    comes_true "killed amid it, the source's virtdrd begins it again" "$PATIENCE" export_ended SUCCEEDED
    check "  ... to its end" test -e "$(media)/web/manifest.json"
    is "  ... and leaves one record" "$(n_records)" 1
}

test_cancelled() {
    local id

    id=$(js a export-seed web "$MEDIA/cancelled" | jq -r .id)
    comes_true "another export is under way" "$PATIENCE" images_grow "$(media)/cancelled"
    dr a task-cancel "$id" >&2
    comes_true "  ... and is cancelled" "$PATIENCE" export_ended CANCELLED
    check "  ... which leaves nothing of it" test ! -e "$(media)/cancelled"
    is "  ... nor records but what was before" "$(n_records)" 1
}

test_media_full() {
    on a mkdir -p "$MEDIA/small"
    on a mount -t tmpfs -o size=200m none "$MEDIA/small"
    dr a export-seed web "$MEDIA/small/web" --no-record --wait >"$WORK/full" 2>&1 &
    comes_true "an export to a small medium is under way" "$PATIENCE" on a test -e "$MEDIA/small/web/vda.qcow2"
    on a dd if=/dev/zero of="$MEDIA/small/filler" bs=1M status=none 2>/dev/null
    wait $!
    is "  ... which gets full" $? "$(code_exit NO_SPACE)" || diag <"$WORK/full"
    is "  ... nothing of it is left there" "$(on a ls "$MEDIA/small")" filler
    is "  ... nor recorded but what was before" "$(n_records)" 1
    is "  ... nor open" "$(virsh_on a domjobinfo web | awk '/Job type/ { print $3 }')" None
    fails_with NO_SPACE "one that is too small is refused before it is written to" \
        a export-seed web "$MEDIA/small/web" --wait
    on a umount "$MEDIA/small"
}

# found KEY: what the guest on b found on its disks, by its own account.
found() {
    lab console b web | grep '^found run=' | tail -n 1 | tr ' ' '\n' | sed -n "s/^$1=//p"
}

test_first_point() {
    carry web
    check "it is protected from media once more" protect web --rpo 5s --seed web
    lab crash a
    exits 0 "the first point, made of a seed, can be failed over to" js b failover web --point 1 --wait || return 0
    check "  ... the guest goes on" lab wait-guest b web --timeout "$BOOT"
    is "  ... with nothing missing" "$(found missing)" 0
    is "  ... nothing torn" "$(found torn)" 0
    is "  ... and in order" "$(found order)" 0
}

system_up
rm -f "$LAB_CONF_EXTRA"
mkdir -p "$(seeds)" "$(media)"
make_guest
check "a guest writes to a small part of its disks" write_more 300
test_images
test_refused
test_no_folder
test_export
test_import
test_bad_media
test_killed_on_target
test_killed_on_source
test_cancelled
test_media_full
test_first_point
tests_done
