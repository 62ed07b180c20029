#!/bin/bash
# libvirt's hook as libvirtd would call it, in a mount namespace of its own, so
# that its folders, which are fixed when it is built, are the test's.
set -u

hook=$top_builddir/daemon/virt-dr-hook
uuid=11111111-2222-3333-4444-555555555555
records=/var/lib/virt-dr/guard
confirmations=/run/virt-dr/guard

if [ "$(id -u)" != 0 ] || ! unshare -m true 2>/dev/null; then
    [ -z "${REQUIRE_REAL:-}" ] || { echo "Bail out! needs root and mount namespaces"; exit 1; }
    echo "1..0 # SKIP needs root and mount namespaces"
    exit 0
fi
if ! strings "$hook" | grep -qx "$records"; then
    echo "1..0 # SKIP built for other folders than /var/lib/virt-dr"
    exit 0
fi
if [ "${1:-}" != inside ]; then
    # The folders that tmpfs is mounted on; left empty where they were not there before.
    made=$(for d in /var/lib/virt-dr /run/virt-dr; do [ -d $d ] || echo $d; done)
    mkdir -p /var/lib/virt-dr /run/virt-dr
    unshare -m --propagation private "$BASH" "$0" inside
    status=$?
    [ -z "$made" ] || rmdir $made 2>/dev/null
    exit $status
fi

mount -t tmpfs none /var/lib/virt-dr || exit 1
mount -t tmpfs none /run/virt-dr || exit 1
mkdir $records $confirmations
message=$(mktemp)
trap 'rm -f "$message"' EXIT
n=0
failed=0

xml() { echo "<domain type='kvm'><metadata><x:y xmlns:x='urn:x'><uuid>0</uuid></x:y></metadata><name>web01</name><uuid>$uuid</uuid></domain>"; }
# call OPERATION SUBOPERATION: the hook with the domain's XML; its words in $message.
call() { xml | "$hook" web01 "$1" "$2" - >/dev/null 2>"$message"; }
record() { printf 'version=1\nvm=web01\nmay_run=%s\nepoch=%s\nunconfirmed=%s\nmessage=%s\n' "$@" >$records/$uuid; }
# is NAME EXPECTED-STATUS COMMAND...
is() {
    local name=$1 expected=$2 status=0
    shift 2
    n=$((n + 1))
    "$@" || status=$?
    if [ "$status" = "$expected" ]; then
        echo "ok $n - $name"
    else
        failed=1
        echo "not ok $n - $name"
        echo "# status $status, expected $expected: $(cat "$message")"
    fi
}

is "a VM that is not protected may start" 0 call prepare begin
is "and the hook says nothing" 1 test -s "$message"
record no 2 hold "VM 'web01' was failed over to host b"
is "a VM that runs elsewhere is refused" 1 call prepare begin
is "the refusal is one line" 0 test "$(wc -l <"$message")" = 1
is "the refusal says why" 0 grep -q "was failed over to host b" "$message"
is "stopping it is not refused" 0 call stopped end
is "releasing it is not refused" 0 call release end
is "reconnecting to it after a restart of libvirtd is not refused" 0 call reconnect begin
record yes 3 hold ""
is "without a confirmation since the boot it is held" 1 call prepare begin
is "the reason names the confirmation" 0 grep -qi "confirm" "$message"
record yes 3 start ""
is "the policy start lets it go" 0 call prepare begin
echo nonsense >$records/$uuid
is "a record that cannot be understood refuses" 1 call prepare begin
: >$records/$uuid
is "an empty record refuses" 1 call prepare begin
record no 2 hold ""
no_xml() { "$hook" web01 prepare begin - </dev/null >/dev/null 2>"$message"; }
is "without XML, when something is guarded, it refuses" 1 no_xml
too_long() { { xml; head -c 5000000 /dev/zero | tr '\0' ' '; } |
    "$hook" web01 prepare begin - >/dev/null 2>"$message"; }
is "XML without end is refused" 1 too_long
other() { echo "<domain><uuid>99999999-2222-3333-4444-555555555555</uuid></domain>" |
    "$hook" other prepare begin - >/dev/null 2>"$message"; }
is "other VMs are not concerned" 0 other
environment() { xml | VIRT_DR_STATE=/nonexistent HOME=/nonexistent \
    "$hook" web01 prepare begin - 2>"$message"; }
is "the environment cannot talk it round" 1 environment
echo "1..$n"
exit $failed
