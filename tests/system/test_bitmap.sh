#!/bin/sh
# The bitmap and the offline capture over all kinds of disks on one host of the lab (TAP).

lab=$top_srcdir/tests/lab/lab
LAB_ID=${LAB_ID:-50}
export LAB_ID

if [ "$(id -u)" != 0 ]; then
    if [ "$REQUIRE_REAL" = 1 ]; then
        echo "1..1"
        echo "not ok 1 - captures # needs root for namespaces"
        exit 1
    fi
    echo "1..0 # SKIP needs root for namespaces"
    exit 0
fi

trap '"$lab" down >&2' EXIT
"$lab" up 1 --no-daemon >&2 || { echo "Bail out! the lab did not come up"; exit 1; }
CMOCKA_MESSAGE_OUTPUT=TAP
export CMOCKA_MESSAGE_OUTPUT

# One plan over all groups; a group that ends without a result for each case fails.
for group in qcow2 snapshot raw old offline offline-raw; do
    "$lab" exec a "$top_builddir/tests/system/bitmap_check" $group
    echo "group $group $?"
done | awk '
    /^(not )?ok [0-9]+ / { sub(/[0-9]+ - /, ++n " - " ); print; next }
    /^1\.\./ { planned += substr($0, 4); next }
    /^group / && $3 == 0 { next }
    /^group / { print "# " $2 " ended with " $3; next }
    { print }
    END { print "1.." planned }'
