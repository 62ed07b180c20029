# tests/demo/: the parts of quickstart, and the test of its options.
TESTS += tests/demo/test_quickstart.sh
EXTRA_DIST += quickstart .ci/run \
	tests/demo/build.sh tests/demo/check.sh \
	tests/demo/demo.sh tests/demo/demo_full.sh tests/demo/demo_result.sh tests/demo/demo_steps.sh \
	tests/demo/packages.sh tests/demo/test_quickstart.sh tests/demo/ui.sh
