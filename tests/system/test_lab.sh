#!/bin/bash
# The lab itself: hosts, guests, cuts, crashes, and that it finds damage.
if [ "$(id -u)" != 0 ] && [ -z "${REQUIRE_REAL:-}" ]; then
    echo "1..0 # SKIP needs root"
    exit 0
fi
exec "$top_srcdir/tests/lab/selftest"
