#!/bin/bash
# Failover when the source is there, when it is lost, and when it comes back (TAP): one side runs
# the VM (I3), the data are right, what is reported can be believed.

export LAB_ID=${LAB_ID:-41}
. "$top_srcdir/tests/system/lib.sh" || exit 1

OVMF=/usr/share/OVMF/OVMF_CODE_4M.fd
OVMF_VARS=/usr/share/OVMF/OVMF_VARS_4M.fd

# --- the guests --------------------------------------------------------------

define_network() {
    printf '<network><name>%s</name><bridge name="%s"/></network>\n' "$2" "$3" >"$WORK/net.xml"
    virsh_on "$1" net-define "$WORK/net.xml" && virsh_on "$1" net-start "$2" &&
        virsh_on "$1" net-autostart "$2"
}

# A medium that only a has, and a network that has another name on b.
add_cdrom() {
    local xml=$WORK/$1.xml iso=/var/lib/libvirt/images/tools.iso

    head -c 1048576 /dev/zero >"$(host_file a "$iso")"
    virsh_on a dumpxml --inactive "$1" |
        sed "s|</devices>|<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='$iso'/><target dev='sda' bus='sata'/><readonly/></disk></devices>|" >"$xml"
    virsh_on a define "$xml"
}

# UEFI without an operating system: the firmware looks for one, and writes its variables.
add_uefi() {
    local xml=$WORK/$1.xml

    virsh_on a dumpxml --inactive "$1" |
        sed -e '/<kernel>/d; /<initrd>/d; /<cmdline>/d' \
            -e "s|</type>|</type><loader readonly='yes' type='pflash'>$OVMF</loader><nvram template='$OVMF_VARS'>/var/lib/libvirt/qemu/nvram/$1.fd</nvram>|" >"$xml"
    virsh_on a define "$xml"
}

make_guests() {
    local vm

    define_network a lan vbra && define_network b lan-dr vbrb || bail_out "no networks"
    guest a web --rate 100 --autostart --network lan --no-start
    add_cdrom web || bail_out "no CD-ROM"
    virsh_on a start web
    guest a held --rate 20 --autostart
    guest a uefi --rate 0 --no-start
    if [[ -f $OVMF ]]; then
        add_uefi uefi && virsh_on a start uefi || bail_out "no UEFI guest"
    else
        virsh_on a start uefi
    fi
    lab wait-guest a web --timeout "$PATIENCE" || bail_out "guest web does not write"
    for vm in web held uefi; do
        check "$vm is protected" protect "$vm" --rpo 2s || bail_out "nothing to fail over"
    done
}

# --- conditions --------------------------------------------------------------

runs() {
    [[ $(virsh_on "$1" domstate "$2" 2>/dev/null) == running ]]
}

# never SECONDS COMMAND...: the command does not succeed once in that time.
never() {
    ! wait_for "$@"
}

is_idle() {
    never 5 newest_above b "$1" "$(newest b "$1")"
}

has_reason() {
    js "$1" info "$2" | jq -e --arg re "$3" 'any(.healthReasons[]; test($re))' >/dev/null
}

# The newest point on b has the same variables that a's QEMU has.
nvram_travelled() {
    local here file

    here=$(host_file a /var/lib/libvirt/qemu/nvram/uefi.fd)
    while read -r file; do
        ! cmp -s "$file" "$here" || return 0
    done < <(find "$(host_file b "$(info b uefi .storeFolder)")" -type f -size "$(stat -c %s "$here")c")
    return 1
}

nvram_on_b() {
    host_file b "$(virsh_on b dumpxml --inactive uefi | sed -n 's|.*<nvram[^>]*>\(.*\)</nvram>.*|\1|p')"
}

# found KEY: what the guest on b found on its disks, by its own account.
found() {
    lab console b web | grep '^found run=' | tail -n 1 | tr ' ' '\n' | sed -n "s/^$1=//p"
}

result_of() {
    jq -r ".result.$1" "$WORK/out"
}

# between NAME LOW VALUE HIGH
between() {
    check "$1 ($2 <= $3 <= $4)" jq -en --argjson low "$2" --argjson x "$3" --argjson high "$4" \
        '$low <= $x and $x <= $high'
}

refuses_start() {
    local name=$1 host=$2 vm=$3

    run_status virsh_on "$host" start "$vm"
    if ((STATUS != 0)); then
        ok "$name"
    else
        not_ok "$name"
    fi
    message_has "${@:4}"
}

# --- while the source is alive -------------------------------------------------

test_replica_is_guarded() {
    virsh_on a dumpxml --inactive --security-info held >"$WORK/held.xml"
    virsh_on b define "$WORK/held.xml"
    refuses_start "a replica that somebody defines by hand is not started" b held \
        "its replica" "virt-dr failover held"
    virsh_on b undefine held
}

test_refused() {
    fails_with SOURCE_ALIVE "failover is refused while the source runs the VM" b failover web --wait
    message_has "web" "--force"
    check "  ... and the VM is not defined on b" not virsh_on b dominfo web
    is "  ... and the replica is as it was" "$(info b web .state)" replicating
    is "  ... on its epoch" "$(info b web .epoch)" 1
    advances "  ... and goes on being replicated" web "$PATIENCE"
}

# A paused VM on disks that do not change: only the variables do.
test_nvram() {
    if [[ ! -f $OVMF ]]; then
        skip "UEFI variables travel with the point" "package ovmf is not installed"
        return
    fi
    virsh_on a suspend uefi
    printf 'a variable of the test' | dd of="$(host_file a /var/lib/libvirt/qemu/nvram/uefi.fd)" \
        bs=1 seek=400000 conv=notrunc status=none
    comes_true "UEFI variables travel, also when no disk has changed" "$PATIENCE" nvram_travelled
    comes_true "  ... and then nothing is sent for a VM that is idle" "$PATIENCE" is_idle uefi
}

test_forced() {
    exits 0 "a forced failover works all the same" js b failover uefi --force --wait
    is "  ... with a warning that names the source" \
        "$(jq -r 'any(.warnings[]; test("source still runs"))' "$WORK/out")" true
    check "  ... and runs the VM" runs b uefi
    [[ ! -f $OVMF ]] ||
        check "  ... with its UEFI variables" grep -qa 'a variable of the test' "$(nvram_on_b)"
    comes_true "the old source raises the alarm of a split brain" "$PATIENCE" \
        has_reason a uefi "SPLIT BRAIN"
    logs "  ... as an event too" a split-brain
    is "  ... it is superseded" "$(info a uefi .state)" superseded
    virsh_on a destroy uefi
    comes_true "  ... and raises no alarm any more once the VM is stopped there" "$PATIENCE" \
        not has_reason a uefi "SPLIT BRAIN"
    refuses_start "the old source does not start it again" a uefi "failed over" "virt-dr undo uefi"
    virsh_on b destroy uefi
}

# --- the source is lost ----------------------------------------------------------

test_failover() {
    local began took lost_ms rpo rto

    lab crash a
    lab cut b # so that a, when it comes back, has nobody to ask
    lab acked a web >"$WORK/acked"
    began=$EPOCHREALTIME
    exits 0 "failover works when the source is gone" js b failover web --wait || return 0
    took=$(bc <<<"scale=3; $EPOCHREALTIME - $began")
    rpo=$(result_of rpoSeconds)
    rto=$(result_of rtoSeconds)
    check "  ... and runs the VM" runs b web
    is "  ... raises the epoch" "$(result_of epoch)" 2
    between "  ... the RTO that it reports is within what the command took" 0.05 "$rto" "$took"
    between "  ... the RPO that it reports is about the one that was set" 0 "$rpo" 5
    check "  ... says that the medium is not here" \
        jq -e 'any(.result.report[]; test("tools.iso"))' "$WORK/out"
    check "  ... says which network it is on now" \
        jq -e 'any(.result.report[]; test("lan-dr"))' "$WORK/out"
    check "  ... has it on that network" grep -q "network='lan-dr'" <(virsh_on b dumpxml web)
    check "  ... keeps autostart" grep -qE 'Autostart: +enable' <(virsh_on b dominfo web)
    check "the guest goes on" lab wait-guest b web --timeout "$((PATIENCE * 3))"
    is "  ... with nothing missing" "$(found missing)" 0
    is "  ... nothing torn" "$(found torn)" 0
    is "  ... and in order" "$(found order)" 0
    lost_ms=$((($(jq .time_ns "$WORK/acked") - $(found time)) / 1000000))
    between "  ... it lost about the RPO at most" 0 "$lost_ms" 5000
    # What b reports ends with the last word of a, who lives on for up to the 2 s between two contacts.
    between "  ... and about what was reported" 0 "$lost_ms" "$(bc <<<"($rpo * 1000 + 4500) / 1")"
    is "b shows it as failed over" "$(info b web .state)" failed-over
    fails_with INVALID_STATE "it is not failed over twice" b failover web --wait
}

# --- the source comes back ---------------------------------------------------------

test_boot_alone() {
    local mark

    mark=$(log_mark a)
    lab boot a
    check "a VM that was failed over does not run when the source comes back" never 8 runs a web
    check "  ... nor one of which a cannot know" not runs a held
    refuses_start "  ... it is held, and told why" a held "is held" "confirmed"
    lab heal b
    comes_true "once the peer answers, the one that was failed over is superseded" "$PATIENCE" \
        state_is a web superseded
    comes_true "  ... and the other one is started by itself" "$PATIENCE" runs a held
    logs "  ... which is an event" a autostarted "$mark"
    check "  ... the superseded one never runs" never 7 runs a web
    advances "  ... the other one is replicated again" held "$PATIENCE"
    check "virt-dr list shows which is superseded" jq -e \
        'any(.items[]; .vmName == "web" and .state == "superseded")' <(js a list)
    refuses_start "the superseded one is refused, with the reason" a web "failed over" "virt-dr undo web"
    lab stop a virtdrd
    refuses_start "  ... also when virtdrd does not run" a web "failed over"
    lab start a virtdrd
    is "  ... and is superseded still after a restart" "$(info a web .state)" superseded
    check "the VM runs on b all the time" runs b web
}

test_plain_reboot() {
    local mark

    lab acked a held >"$WORK/acked"
    lab crash a
    mark=$(log_mark a)
    lab boot a
    comes_true "after a reboot without failover the VM is started by itself" "$PATIENCE" runs a held
    logs "  ... by virtdrd, once the peer had confirmed it" a autostarted "$mark"
    check "  ... libvirt's autostart was refused before" grep -q "is held" \
        "$(host_file a /var/log/libvirt/libvirtd.log)"
    check "  ... it writes again" lab wait-guest a held --timeout "$((PATIENCE * 3))"
    advances "  ... and is replicated again, its bitmaps being lost" held "$PATIENCE"
    is "  ... on the same epoch" "$(info a held .epoch)" 1
}

# --- and it is thrown away -----------------------------------------------------------

# The VM has run on b since test_failover(); its source has been off.
test_undo() {
    local before mark

    before=$(newest b web)
    mark=$(log_mark a)
    fails_with INVALID_STATE "a failover is not undone on the source" a undo web --wait
    exits 0 "a failover is undone" js b undo web --wait
    is "  ... which raises the epoch" "$(result_of epoch)" 3
    check "  ... the VM is not on b any more" not virsh_on b dominfo web
    is "  ... nor are its images" "$(ls "$(host_file b "$(info b web .storeFolder)")/overlay")" ""
    comes_true "the source learns of it" "$PATIENCE" state_is a web replicating
    logs "  ... which is an event" a failover-undone "$mark"
    comes_true "  ... and may run the VM again" "$PATIENCE" virsh_on a start web
    check "  ... which goes on" lab wait-guest a web --timeout "$((PATIENCE * 3))"
    advances "  ... and is replicated" web "$PATIENCE" "$((before + 1))"
    is "  ... the points of before are still there" \
        "$(js b points web | jq "any(.items[]; .sequenceNumber == $before and .state == \"ok\")")" true
    virsh_on a destroy web
    exits 0 "another point can be tried" js b failover web --point "$before" --wait
    check "  ... and runs" runs b web
    exits 0 "  ... and is undone too" js b undo web --wait
}

printf '[networks]\nlan = lan-dr\n' >"${TMPDIR:-/tmp}/virt-dr-test-$LAB_ID.conf"
export LAB_CONF_EXTRA=${TMPDIR:-/tmp}/virt-dr-test-$LAB_ID.conf
system_up
rm -f "$LAB_CONF_EXTRA"
make_guests
test_replica_is_guarded
test_refused
test_nvram
test_forced
test_failover
test_boot_alone
test_plain_reboot
test_undo
tests_done
