#!/bin/bash
# Test failovers of a real guest (TAP): it runs apart from everything while its replication goes on,
# is looked at, and goes again, whoever ends it: the operator, its time, a crash, the end of protection.

export LAB_ID=${LAB_ID:-65}
export LAB_CONF_EXTRA
LAB_CONF_EXTRA=$(mktemp /var/tmp/virt-dr-drill.XXXXXX)
. "$top_srcdir/tests/system/lib.sh" || exit 1

cat >"$LAB_CONF_EXTRA" <<END
[test]
number = 2
timeout = 60s
scripts = /etc/virt-dr/test.d
END

# --- what there is ---------------------------------------------------------------

tests_that_go_on() {
    js b test-list | jq '[.items[] | select(.state != "ended")] | length'
}

# test_field KEY FILTER: of a test, by its id or its domain's name.
test_field() {
    js b test-report "$1" | jq -r "$2"
}

domains_on_b() {
    virsh_on b list --all --name | grep -c .
}

# But that of the VM itself.
networks_on_b() {
    virsh_on b net-list --all --name | grep -v '^lan$' | grep -c .
}

bridges_on_b() {
    on b ip -o link | grep -c ': vdrt'
}

overlays() {
    find "$LAB_STATE"/b/var/lib/virt-dr/storage/*/overlay -mindepth 1 -maxdepth 1 2>/dev/null | wc -l
}

nothing_left() {
    [[ $(domains_on_b) == 0 && $(networks_on_b) == 0 && $(bridges_on_b) == 0 && $(overlays) == 0 ]]
}

tell_left() {
    nothing_left || {
        virsh_on b list --all
        virsh_on b net-list --all
        ls "$LAB_STATE"/b/var/lib/virt-dr/storage/*/overlay
        return 1
    }
}

domain_runs() {
    [[ $(virsh_on b domstate "$1") == running ]]
}

# --- the guest --------------------------------------------------------------------

script() {
    local file

    file=$(host_file b "/etc/virt-dr/test.d/$1")
    mkdir -p "$(dirname "$file")"
    printf '#!/bin/sh\n%s\n' "$2" >"$file"
    chmod 0700 "$file"
}

# With a network that both hosts have, an agent and a screen.
make_guest() {
    local host

    for host in a b; do
        on $host virsh -q net-create /dev/stdin >/dev/null <<END
<network><name>lan</name><bridge name='vlan0' stp='off' delay='0'/>
<ip address='10.77.0.1' prefix='24'><dhcp><range start='10.77.0.10' end='10.77.0.99'/></dhcp></ip></network>
END
    done
    guest a web --rate 50 --agent --network lan --no-start
    virsh_on a dumpxml web | sed "s|</devices>|<video><model type='vga'/></video></devices>|" >"$WORK/web.xml"
    virsh_on a define "$WORK/web.xml" >/dev/null && virsh_on a start web >/dev/null &&
        lab wait-guest a web --timeout "$PATIENCE" >&2
}

# --- the tests --------------------------------------------------------------------

test_passes() {
    dr a sync web --wait >/dev/null
    lab acked a web >"$WORK/acked"
    dr a sync web --wait >/dev/null
    exits 0 "a test failover passes" js b test-failover web --name drill --check running:1s --check agent \
        --check tcp:80 --check script:/etc/virt-dr/test.d/good --keep 1h --note 'first one' --wait ||
        bail_out "no test failover"
    jq .result "$WORK/out" >"$WORK/test"
    is "  ... each check of it" "$(jq -r '[.checks[].result] | unique | join(" ")' "$WORK/test")" passed
    check "  ... its time to run is told ($(jq .rtoSeconds "$WORK/test") s)" \
        jq -e '.rtoSeconds > 0 and .rtoCheckedSeconds > .rtoSeconds' "$WORK/test"
    is "  ... its domain is transient" "$(virsh_on b dominfo drill | awk '$1 == "Persistent:" { print $2 }')" no
    is "  ... and has another UUID" "$(virsh_on b domuuid drill)" "$(jq -r .domain.uuid "$WORK/test")"
    is "  ... the guest's MAC address is the same" \
        "$(virsh_on b domiflist drill | awk 'NR == 1 { print $5 }')" \
        "$(virsh_on a domiflist web | awk 'NR == 1 { print $5 }')"
    is "  ... its network leads nowhere" \
        "$(virsh_on b net-dumpxml "$(jq -r .network.name "$WORK/test")" | grep -c '<forward')" 0
    check "  ... its address is in that network" test \
        "$(jq -r '.address | split(".")[:3] | join(".")' "$WORK/test")" = \
        "$(jq -r '.network.subnet | split(".")[:3] | join(".")' "$WORK/test")"
    holds_all "  ... its disks hold what was acknowledged before" b drill "$WORK/acked"
}

test_screenshot() {
    is "a screenshot was taken" "$(jq -r .screenshot.result "$WORK/test")" "done"
    check "  ... which the client can fetch" dr b test-report drill --screenshot "$WORK/screen"
    check "  ... whole" cmp "$WORK/screen" "$(host_file b "$(jq -r .screenshot.path "$WORK/test")")"
    check "  ... and it is a picture" grep -qaE '^(P6|.PNG)' "$WORK/screen"
}

test_beside() {
    advances "replication goes on beside it" web "$PATIENCE"
    is "the replication's state is what it was" "$(info b web .state)" replicating
    is "  ... and its health is green" "$(info b web .overallHealth)" green
    is "  ... the last test is shown" "$(info b web '.lastTest.result')" passed
    is "  ... the source's too, and it runs the VM" "$(info a web .state) $(virsh_on a domstate web)" \
        "replicating running"
    fails_with INVALID_STATE "the domain of a test is not protected by accident" b protect drill --to a --wait
}

test_failing() {
    fails_with TEST_FAILED "a second test at once, whose script fails, fails" b test-failover web \
        --name second --check script:/etc/virt-dr/test.d/bad --wait
    is "  ... for its reason" "$(test_field second '.checks[] | select(.type == "script") | .message')" \
        "it ended with 3: no web page"
    is "  ... both have networks" "$(networks_on_b) $(bridges_on_b)" "2 2"
    is "  ... of their own" "$(js b test-list web | jq '[.items[].network.subnet] | unique | length')" 2
    is "  ... and the VM's health says so" "$(info b web .overallHealth)" yellow
    fails_with INVALID_STATE "a third one is one too many" b test-failover web --wait
    message_has "number allows 2"
    check "the operator ends one, and says that it passed" dr b test-cleanup second --pass --note 'was my fault' --wait
    is "  ... which counts" "$(info b web '.lastTest.result')" passed
    fails_with PERMISSION "a script from elsewhere is refused" b test-failover web --check script:/bin/true
}

test_cleanup() {
    check "the tests of a VM are ended together" dr b test-cleanup web --wait
    check "nothing of them is left" tell_left
    is "  ... but their results" "$(js b test-list web | jq '[.items[].state] | unique | join(" ")' -r)" ended
    fails_with REPLICATION_NOT_FOUND "what never was cannot be ended" b test-cleanup nosuch
}

test_killed() {
    check "a test begins" dr b test-failover web --name killed --check running:3s
    comes_true "its domain runs" "$PATIENCE" domain_runs killed
    lab kill b virtdrd
    check "the domain outlives virtdrd" domain_runs killed
    lab start b virtdrd || bail_out "virtdrd does not come up again"
    comes_true "the test goes on" "$PATIENCE" test_is killed running
    is "  ... to its result" "$(test_field killed .result)" passed
    dr b test-cleanup killed >/dev/null
    lab kill b virtdrd
    lab start b virtdrd || bail_out "virtdrd does not come up again"
    comes_true "one whose end was cut off ends" "$PATIENCE" nothing_left
}

test_is() {
    [[ $(test_field "$1" .state) == "$2" ]]
}

test_by_itself() {
    exits 0 "a test may run for a second" js b test-failover web --name brief --check running:0s --keep 1s --wait
    comes_true "  ... and ends by itself" "$PATIENCE" nothing_left
    on b virsh -q net-create /dev/stdin >/dev/null <<<"<network><name>given</name><bridge name='vgiven'/></network>"
    fails_with NOT_FOUND "a network that is not there is refused" b test-failover web --network nosuch --wait
    exits 0 "another one ends as soon as it was checked" js b test-failover web --name lent --network given \
        --clean-up --check running:0s --wait
    is "  ... it was in the network that was given" "$(test_field lent .network.name)" given
    is "  ... which is still there" "$(virsh_on b net-list --name | grep -c given)" 1
    virsh_on b net-destroy given >/dev/null
    check "  ... and leaves nothing" tell_left
}

test_guest_ends() {
    check "a test begins once more" dr b test-failover web --name off --check running:0s --keep 1h --wait
    virsh_on b destroy off >/dev/null
    comes_true "  ... and ends with its guest" "$PATIENCE" nothing_left
}

test_unprotect() {
    check "a test runs" dr b test-failover web --check running:0s --wait
    check "the VM is unprotected all the same" dr a unprotect web --wait
    check "  ... which leaves nothing of the test" tell_left
    is "  ... nor its results" "$(js b test-list | jq '.items | length')" 0
}

need dnsmasq iptables
system_up
rm -f "$LAB_CONF_EXTRA"
script good 'test -n "$VIRT_DR_ADDRESS" && test "$VIRT_DR_VM" = web'
script bad 'echo "no web page"; exit 3'
make_guest || bail_out "no guest"
check "a VM is protected" protect web --rpo 2s || bail_out "no replication"
test_passes
test_screenshot
test_beside
test_failing
test_cleanup
test_killed
test_by_itself
test_guest_ends
test_unprotect
tests_done
