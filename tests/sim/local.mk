# tests/sim/
TESTS += tests/sim/test_hook.sh
EXTRA_DIST += tests/sim/test_hook.sh
