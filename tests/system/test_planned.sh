#!/bin/bash
# A VM moves on purpose (TAP): nothing is lost, and what fails before it runs on the other host leaves
# it where it was. The choices of a failover: shutdown, fence agent, define only, networks, addresses.

export LAB_ID=${LAB_ID:-62}
. "$top_srcdir/tests/system/lib.sh" || exit 1

FENCE=/var/lib/virt-dr/fence # one program, that each test replaces

# --- what they need -----------------------------------------------------------

define_network() {
    printf '<network><name>%s</name><bridge name="%s"/><ip address="10.77.%s.1" netmask="255.255.255.0"><dhcp><range start="10.77.%s.100" end="10.77.%s.200"/></dhcp></ip></network>\n' \
        "$2" "$3" "$4" "$4" "$4" >"$WORK/net.xml"
    virsh_on "$1" net-define "$WORK/net.xml"
}

# fence LINE...: what the fence agent of b does from now on.
fence() {
    printf '%s\n' '#!/bin/sh' "$@" >"$(host_file b "$FENCE")"
    chmod 0755 "$(host_file b "$FENCE")"
}

runs() {
    [[ $(virsh_on "$1" domstate "$2" 2>/dev/null) == running ]]
}

result_of() {
    jq -r ".result.$1" "$WORK/out"
}

found() {
    lab console "$1" "$2" | grep '^found run=' | tail -n 1 | tr ' ' '\n' | sed -n "s/^$3=//p"
}

# goes_on NAME VM: it runs at its source, as if nothing had been.
goes_on() {
    comes_true "$1" "$PATIENCE" runs a "$2"
    check "  ... is not on b" not virsh_on b dominfo "$2"
    comes_true "  ... replicates" "$PATIENCE" state_is a "$2" replicating
    is "  ... on both sides" "$(info b "$2" .state)" replicating
    advances "  ... and points come in" "$2" "$PATIENCE"
}

make_guests() {
    define_network a lan vbra 1 && define_network b lan-dr vbrb 2 || bail_out "no networks"
    virsh_on a net-start lan || bail_out "network lan does not start"
    guest a web --rate 100 --autostart
    guest a deaf --rate 20 --deaf
    guest a net --rate 0 --network lan
    for vm in web deaf net; do
        check "$vm is protected" protect "$vm" --rpo 2s || bail_out "nothing to move"
    done
}

# --- planned --------------------------------------------------------------------

test_wrong_host() {
    fails_with INVALID_STATE "a planned failover is asked for at the target" a planned-failover web --wait
    message_has "on host 'b'"
    fails_with INVALID_STATE "what is not prepared cannot be abandoned" a abandon web --wait
}

# The emulator that b would need is not there: libvirt refuses the definition.
test_target_cannot() {
    local emulator=/usr/bin/qemu-system-x86_64 mark

    mark=$(log_mark a)
    on b mount --bind /bin/false "$emulator" || bail_out "the emulator cannot be hidden"
    run_status js b planned-failover web --no-reverse --wait
    on b umount "$emulator"
    check "a target that cannot start the VM gives it back" test "$STATUS" -ne 0
    check "  ... the task says so" grep -qE "start-domain|define-domain" "$WORK/err"
    goes_on "  ... and the source runs it again" web
    logs "  ... which is an event" a started-again "$mark"
    check "  ... the guest goes on" lab wait-guest a web --timeout "$((PATIENCE * 2))"
}

test_deaf() {
    local began=$SECONDS

    fails_with SHUTDOWN "a guest that looks away is not moved" b planned-failover deaf --timeout 2s --wait
    check "  ... which is known in time" test "$((SECONDS - began))" -lt 20
    message_has "deaf" "force"
    goes_on "  ... and it runs as before" deaf
    is "  ... on its epoch" "$(info b deaf .epoch)" 1
    lab acked a deaf >"$WORK/acked"
    exits 0 "by force it is" js b planned-failover deaf --shutdown force --timeout 2s --wait || return 0
    check "  ... and runs on b" runs b deaf
    comes_true "  ... from where it is replicated back" "$PATIENCE" state_is b deaf replicating
    is "  ... to its home" "$(info b deaf .isReversed)" true
    holds_all "  ... with all that was acknowledged" b deaf "$WORK/acked"
}

test_planned() {
    local last

    exits 0 "a VM is moved to the host of its replica" js b planned-failover web --no-reverse --wait || return 0
    is "  ... nothing is lost" "$(result_of rpoSeconds)" 0
    check "  ... it tells how long each step took" jq -e \
        '[.result.steps[].name] | index("prepare-source") and index("start-domain")' "$WORK/out"
    check "  ... it runs on b" runs b web
    check "  ... and not on a" not runs a web
    last=$(lab console a web | grep '^ack ' | tail -n 1 | cut -d ' ' -f 2)
    check "  ... its guest was shut down" grep -q '^bye' <(lab console a web)
    check "the guest goes on" lab wait-guest b web --timeout "$((PATIENCE * 3))"
    is "  ... with nothing missing" "$(found b web missing)" 0
    is "  ... nothing torn" "$(found b web torn)" 0
    is "  ... and in order" "$(found b web order)" 0
    check "  ... no block is lost ($last were acknowledged)" test "$(found b web highest)" -ge "$last"
    comes_true "the source is superseded" "$PATIENCE" state_is a web superseded
    run_status virsh_on a start web
    check "  ... and refuses to start it" test "$STATUS" -ne 0
    message_has "failed over"
}

test_undone() {
    exits 0 "it is undone" js b undo web --wait
    goes_on "  ... and its source starts it again by itself" web
    check "  ... the guest goes on" lab wait-guest a web --timeout "$((PATIENCE * 2))"
}

# --- a failover's choices ------------------------------------------------------------------

test_graceful() {
    exits 0 "a failover can have the source shut the VM down" js b failover net --shutdown graceful \
        --define-only --network lan=lan-dr --address "$MAC=10.77.2.50" --auto-undo 1h --wait || return 0
    check "  ... which it is" not runs a net
    is "  ... nothing is lost then" "$(result_of rpoSeconds)" 0
    is "  ... it can be defined only" "$(result_of running)" false
    is "  ... and is off" "$(virsh_on b domstate net)" "shut off"
    check "  ... in the network that was given" grep -q "network='lan-dr'" <(virsh_on b dumpxml net)
    check "  ... which has its address" grep -q "ip='10.77.2.50'" <(virsh_on b net-dumpxml lan-dr)
    is "  ... and an end by itself" "$(info b net .failoverPolicy.action)" undo
    exits 0 "  ... that is called off" dr b failover-policy net --manual
    is "  ... and shown no more" "$(info b net '.failoverPolicy // "none"')" none
    exits 0 "it is undone" dr b undo net --wait
    check "  ... the address is free again" not grep -q "10.77.2.50" <(virsh_on b net-dumpxml lan-dr)
    comes_true "  ... the source starts the VM again" "$PATIENCE" runs a net
}

# By its own number: other programs of this machine may sleep as well.
agent_is_gone() {
    local pid

    pid=$(<"$(host_file b "$FENCE.pid")") && [[ $pid =~ ^[0-9]+$ ]] && not kill -0 "$pid"
}

test_fence() {
    comes_true "the VM replicates" "$PATIENCE" state_is b net replicating
    lab stop a virtdrd
    fence 'echo "no power switch"; exit 1'
    fails_with FENCE "a fence agent that fails stops the failover" b failover net --define-only --wait
    message_has "no power switch" "no-fence"
    is "  ... before anything is changed" "$(info b net .epoch)" "$EPOCH"
    fence 'echo $$ >/var/lib/virt-dr/fence.pid; exec sleep 600'
    fails_with FENCE "so does one that hangs" b failover net --define-only --wait
    message_has "did not end"
    check "  ... which is ended" agent_is_gone
    is "  ... and nothing is changed" "$(info b net .state)" replicating
    fence 'env >/var/lib/virt-dr/fence.env; exit 0'
    exits 0 "one that says that the source is off lets it go on" js b failover net --define-only --wait
    is "  ... which the result tells" "$(result_of fenced)" true
    check "  ... it knew what to fence" grep -qx 'VIRT_DR_SOURCE_HOST=a' "$(host_file b "$FENCE.env")"
    check "  ... and for which VM" grep -qx 'VIRT_DR_VM=net' "$(host_file b "$FENCE.env")"
    exits 0 "it is undone" dr b undo net --wait
    fence 'exit 2'
    exits 0 "without the fence agent it goes on, too" js b failover net --define-only --no-fence --wait
    is "  ... with a warning" "$(jq -r 'any(.warnings[]; test("was not fenced"))' "$WORK/out")" true
}

printf '[fence]\ncommand = %s\ntimeout = 2s\n' "$FENCE" >"/var/tmp/virt-dr-fence-$LAB_ID.conf"
LAB_CONF_EXTRA=/var/tmp/virt-dr-fence-$LAB_ID.conf system_up
rm -f "/var/tmp/virt-dr-fence-$LAB_ID.conf"
make_guests
MAC=$(virsh_on a domiflist net | awk '$3 == "lan" { print $5 }')
test_wrong_host
test_target_cannot
test_deaf
test_planned
test_undone
test_graceful
EPOCH=$(info b net .epoch)
test_fence
tests_done
