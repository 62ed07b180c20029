#!/bin/bash
# libvirt's hook as it is built and installed: what it lets start, and what not.
#
# Its folders are fixed when it is built, because whoever could point it elsewhere
# could start any VM. So it is not told of other folders here either: the test runs
# in a mount namespace of its own where those folders are on a fresh tmpfs.
set -u

hook=$top_builddir/daemon/virt-dr-hook
web=0f8c1a52-6a3e-4c11-9d55-7f0e8b1d2c3a
other=11111111-2222-3333-4444-555555555555

if [ "${1-}" != inside ]; then
    if [ "$(id -u)" -eq 0 ]; then
        new=(unshare --mount --propagation private)
    else
        new=(unshare --user --map-root-user --mount --propagation private)
    fi
    if ! "${new[@]}" mount -t tmpfs none /run 2>/dev/null; then
        if [ "${REQUIRE_REAL-0}" = 1 ]; then
            echo "Bail out! no mount namespace, and REQUIRE_REAL=1"
            exit 1
        fi
        echo "1..0 # SKIP no mount namespace of our own (run as root)"
        exit 0
    fi
    exec "${new[@]}" bash "$0" inside
fi

# --- the world ------------------------------------------------------------------------

# A copy, for the tmpfs may hide where it was built.
exec 9<"$hook" || exit 1
mount -t tmpfs none /run && mkdir -p /run/virt-dr/guard /run/bin || exit 1
cat <&9 >/run/bin/hook && chmod 0755 /run/bin/hook || exit 1
hook=/run/bin/hook

# The deepest folder that exists on the way; what is below it is made on the tmpfs.
folder=$VDR_LOCALSTATEDIR/lib
while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
if [ "$folder" = / ] || ! mount -t tmpfs none "$folder"; then
    echo "1..0 # SKIP '$VDR_LOCALSTATEDIR' cannot be covered"
    exit 0
fi
records=$VDR_LOCALSTATEDIR/lib/virt-dr/guard
confirmations=/run/virt-dr/guard
mkdir -p "$records"

record() { # MAY_RUN EPOCH UNCONFIRMED MESSAGE
    printf 'version=1\nvm=web\nmay_run=%s\nepoch=%s\nunconfirmed=%s\nmessage=%s\n' \
        "$1" "$2" "$3" "$4" >"$records/$web"
}

confirm() { # EPOCH
    printf 'version=1\nepoch=%s\nboot=%s\n' "$1" "$(cat /proc/sys/kernel/random/boot_id)" \
        >"$confirmations/$web"
}

forget() { rm -rf "${records:?}/$web" "${confirmations:?}/$web"; }

# As libvirt writes it; the uuid of something else comes before the domain's.
domain() { # UUID
    cat <<XML
<domain type='kvm' id='1'>
  <name>web</name>
  <metadata><app:x xmlns:app='urn:x'><uuid>$other</uuid></app:x></metadata>
  <uuid>$1</uuid>
  <sysinfo type='smbios'><system><entry name='uuid'>$other</entry></system></sysinfo>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices>
</domain>
XML
}

# --- the checks -----------------------------------------------------------------------

n=0
status=0
answer=

ask() { # INPUT... : runs the hook on stdin
    answer=$("$hook" "$@" 2>&1)
    status=$?
}

start() { ask web prepare begin - < <(domain "$1"); }

ok() { # NAME CONDITION...
    local name=$1

    n=$((n + 1))
    shift
    if "$@"; then
        echo "ok $n - $name"
    else
        echo "not ok $n - $name"
        echo "# failed: $*"
        echo "# status $status, answer: $answer"
    fi
}

silent() { [ "$status" -eq 0 ] && [ -z "$answer" ]; }
refused() { [ "$status" -eq 1 ] && [ "$(wc -l <<<"$answer")" -eq 1 ] && [ -n "$answer" ]; }
refused_with() { refused && [[ "$answer" == *"$1"* ]]; }

start $web
ok "a VM without a record starts, silently" silent

record no 3 hold "failed over to 'b'; there it is 'virt-dr reverse web'"
start $web
ok "a VM that must not run here is refused" refused
ok "the refusal says why, in the record's words" refused_with "failed over to 'b'"
ok "the refusal names the VM" refused_with "'web'"
start $other
ok "another VM starts, silently" silent
start ${web^^}
ok "capitals make no other UUID" refused

for operation in "start begin" "started begin" "stopped end" "release end" \
    "restore begin" "reconnect begin" "attach begin" "prepare end"; do
    # shellcheck disable=SC2086
    ask web $operation - < <(domain $web)
    ok "nothing is refused at '$operation'" silent
done
ask web prepare </dev/null
ok "a call with too few words passes" silent

comes() { ask web migrate begin - < <(domain "$1"); }
comes $web
ok "nor may it come by a live migration" refused_with "failed over to 'b'"
comes $other
ok "another VM may, silently" silent

moved() {
    printf 'version=1\nvm=web\nmay_run=no\nepoch=4\nunconfirmed=hold\nincoming=allow\nmessage=%s\n' \
        "moved to host 'c'" >"$records/$web"
}
moved
start $web
ok "a VM that was moved away is not started" refused_with "moved to host 'c'"
comes $web
ok "but it may come back, silently" silent
start $web
ok "and the start of that is let through, silently" silent
start $web
ok "which is good for one start" refused_with "moved to host 'c'"
comes $web
sed -i "s/^epoch=.*/epoch=1/" "$confirmations/$web.incoming"
start $web
ok "and for a short while only" refused_with "moved to host 'c'"
comes $web
record no 5 hold "failed over to 'b'"
start $web
ok "and not once the record says otherwise" refused_with "failed over to 'b'"
rm -f "$confirmations/$web.incoming"

# A disk whose image has the header of one that keeps bitmaps.
image=/run/bin/image
with_disk() {
    domain "$web" | sed "s|</devices>|<disk type='file' device='disk'><source file='$image'/>\
<target dev='vda'/></disk></devices>|"
}
record yes 3 start ""
printf 'QFI\373 one' >$image
ask web release end - < <(with_disk)
ok "what a VM's images are when it ends is written down" grep -q "^vda " "$records/$web.images"
ask web prepare begin - < <(with_disk)
ok "it starts with the same" silent
ok "  ... of which nothing is said" [ ! -e "$records/$web.changed" ]
ask web release end - < <(with_disk)
printf 'QFI\373 another' >$image
ask web prepare begin - < <(with_disk)
ok "with another image it starts, too" silent
ok "  ... and that is noted" grep -q "^vda " "$records/$web.changed"
rm -f "${records:?}/$web.changed"

record yes 3 hold ""
comes $web
ok "a VM that is protected here may come" silent
start $web
ok "an unconfirmed VM is held" refused_with "held"
confirm 2
start $web
ok "the confirmation of another epoch does not count" refused_with "held"
confirm 3
start $web
ok "a confirmed VM starts, silently" silent
printf 'version=1\nepoch=3\nboot=of another boot\n' >"$confirmations/$web"
start $web
ok "the confirmation of another boot does not count" refused_with "held"
record yes 3 start ""
start $web
ok "the policy 'start' needs no confirmation" silent

record yes 3 start ""
truncate -s -3 "$records/$web"
start $web
ok "a record that was cut off refuses" refused_with "cannot be understood"
: >"$records/$web"
start $web
ok "an empty record refuses" refused_with "cannot be understood"
rm "$records/$web" && mkdir "$records/$web"
start $web
ok "a record that cannot be read refuses" refused
forget

record yes 3 start ""
ask web prepare begin - </dev/null
ok "without XML nothing starts while any VM is protected" refused
ask web prepare begin - <<<"<domain><uuid>$web"
ok "nor with broken XML" refused
ask web prepare begin - <<<"<network><uuid>$web</uuid></network>"
ok "nor with the XML of something else" refused
ask web prepare begin - <<<"<domain><name>web</name></domain>"
ok "nor without a uuid" refused
ask web prepare begin - <<<"<domain><uuid>../../etc/passwd</uuid></domain>"
ok "nor with a uuid that is none" refused
ask web prepare begin - < <(echo '<domain><description>' && head -c 5000000 /dev/zero |
    tr '\0' x && echo "</description><uuid>$web</uuid></domain>")
ok "nor with XML above 4 MiB" refused_with "above"
ask web prepare begin - < <(echo '<domain><description>' && head -c 4000000 /dev/zero |
    tr '\0' x && echo "</description><uuid>$web</uuid></domain>")
ok "but with XML of 4 MB" silent
forget
ask web prepare begin - </dev/null
ok "where nothing is protected, nothing is asked" silent

record no 3 hold "no"
mkdir -p /run/empty/lib/virt-dr/guard
ask_with_environment() {
    answer=$(env VDR_LOCALSTATEDIR=/run/empty STATE_DIRECTORY=/run/empty HOME=/run/empty \
        RUNTIME_DIRECTORY=/run/empty XDG_STATE_HOME=/run/empty \
        "$hook" web prepare begin /run/empty < <(domain $web) 2>&1)
    status=$?
}
ask_with_environment
ok "the environment does not lead it elsewhere" refused

rmdir "$confirmations"
mv "$records" /run/away && ln -s /run/away "$records"
start $web
ok "its folder may be a link" refused_with "must not run"
mv /run/away /run/unmounted
start $web
ok "a folder that leads nowhere refuses: what it would hold is unknown" refused
rm "$records"
start $web
ok "without its folders nothing is refused" silent

needed=$(readelf -d "$hook" 2>/dev/null | grep NEEDED)
not_linked() { [ -n "$needed" ] && ! grep -qE 'libvirt|libcurl|libevent' <<<"$needed"; }
if command -v readelf >/dev/null; then
    ok "it links neither libvirt nor a network library" not_linked
else
    n=$((n + 1))
    echo "ok $n - it links neither libvirt nor a network library # SKIP no readelf"
fi
echo "1..$n"
