#!/bin/bash
# Could it be failed over? What the target lacks is known on both hosts before anybody needs it, with
# what helps, and so is when it is mended (TAP).

export LAB_ID=${LAB_ID:-68}
. "$top_srcdir/tests/system/lib.sh" || exit 1

SOON=20 # seconds

# found HOST CHECK STATE [TEXT]: a finding of that check, state and text is in `virt-dr info`.
found() {
    js "$1" info web | jq -e --arg check "$2" --arg state "$3" --arg text "${4:-}" \
        'any(.readiness.findings[]; .check == $check and .state == $state and (.text | test($text)))' >/dev/null
}

# all_ok HOST CHECK...
all_ok() {
    local check

    for check in "${@:2}"; do
        found "$1" "$check" ok || return 1
    done
}

state_of() {
    info "$1" web .readiness.state
}

is_state() {
    [[ $(state_of "$1") == "$2" ]]
}

net() {
    printf '<network><name>%s</name><bridge name="%s"/><ip address="192.168.%d.1" netmask="255.255.255.0"/></network>' \
        "$2" "$2" "$3" >"$WORK/net.xml"
    virsh_on "$1" net-define "$WORK/net.xml" && virsh_on "$1" net-start "$2"
}

# More often than each minute.
look_often() {
    local host

    for host in a b; do
        printf '[readiness]\ninterval = 3s\n' >>"$(host_file "$host" /etc/virt-dr/virtdrd.conf)"
        kill -HUP "$(daemon_pid "$host")"
    done
}

system_up
look_often
net a lan 77 >&2 || bail_out "host a cannot have a network"
guest a web --rate 20 --network lan
check "the VM is protected" protect web --rpo 2s
comes_true "the target says that it lacks the VM's network" "$SOON" found b networks failed "'lan' does not exist"
comes_true "  ... and the source knows it, too" 10 found a networks failed "'lan' does not exist"
is "  ... it is not ready" "$(state_of a)" not-ready
is "  ... which the health says" "$(info a web .overallHealth)" red
check "  ... and the list, on both" grep -q ' NO ' <(dr a list && dr b list)
check "  ... info has what helps" grep -q "net-define" <(dr a info web)
check "  ... metrics have it" grep -q 'virt_dr_readiness{vm="web",side="source"} 2' \
    <(on a curl -s --unix-socket /run/virt-dr/virtdrd.sock http://localhost/metrics)
check "  ... it was an event" has_event a readiness-changed
check "the machine, processor and memory were looked at, and fit" \
    all_ok b machine cpu memory conflicts
check "so were the certificate and the clock" all_ok b certificate clock space
check "the source looked at what it can see" all_ok a agent certificate

# Mended, and the next thing breaks: another domain takes the VM's name.
net b lan 78 >&2 || bail_out "host b cannot have a network"
virsh_on a dumpxml --inactive web | sed -e '/<uuid>/d' -e '/<mac /d' >"$WORK/other.xml"
virsh_on b define "$WORK/other.xml" >&2
comes_true "what was mended is known, and what broke: a domain of the same name" "$SOON" \
    found a conflicts failed "another domain 'web'"
check "  ... the network is well" found b networks ok
virsh_on b undefine web >&2
comes_true "then it is ready" "$SOON" not is_state a not-ready

# A failover is not kept back, and says what was amiss: a medium that is not there is ejected.
touch "$(host_file a /var/lib/libvirt/images/cd.iso)"
virsh_on a attach-disk web /var/lib/libvirt/images/cd.iso sda --type cdrom --config >&2
virsh_on a destroy web >&2
virsh_on a start web >&2
comes_true "a medium that is missing is a warning" $((SOON * 2)) found a media warning "cd.iso"
exits 0 "a failover goes on all the same" js b failover web --force --wait
is "  ... and says what was not ready" \
    "$(jq '[.warnings[]? | select(test("for a failover.*cd.iso"))] | length' "$WORK/out")" 1
tests_done
