#!/bin/sh
# The libvirt hypervisor and the checkpoint capture on one host of the lab (TAP).

lab=$top_srcdir/tests/lab/lab
LAB_ID=${LAB_ID:-7}
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
"$lab" exec a "$top_builddir/tests/system/capture_check"
