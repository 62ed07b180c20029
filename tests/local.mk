# Tests print TAP. Programs in tests/unit and tests/sim are cmocka programs with
# their TAP output on; scripts in tests/system need root and the lab.

TEST_EXTENSIONS = .sh
LOG_DRIVER = env AM_TAP_AWK='$(AWK)' $(SHELL) $(top_srcdir)/build-aux/tap-driver.sh
SH_LOG_DRIVER = $(LOG_DRIVER)
SH_LOG_COMPILER = bash
AM_TESTS_ENVIRONMENT = \
	CMOCKA_MESSAGE_OUTPUT=TAP; export CMOCKA_MESSAGE_OUTPUT; \
	LSAN_OPTIONS='suppressions=$(abs_top_srcdir)/tests/lsan.supp:print_suppressions=0'; \
	export LSAN_OPTIONS; \
	TSAN_OPTIONS='suppressions=$(abs_top_srcdir)/tests/tsan.supp'; \
	export TSAN_OPTIONS; \
	top_srcdir='$(abs_top_srcdir)'; export top_srcdir; \
	top_builddir='$(abs_top_builddir)'; export top_builddir; \
	VDR_LOCALSTATEDIR='$(localstatedir)'; export VDR_LOCALSTATEDIR;

UNIT_LIBS = $(DAEMON_LIBS) $(CMOCKA_LIBS)

include tests/unit/local.mk
include tests/sim/local.mk
include tests/system/local.mk
include tests/demo/local.mk
include tests/faults/local.mk
include tests/fuzz/local.mk

# --- style, valgrind -------------------------------------------------------------

TESTS += tests/style/test_style.sh tests/style/test_config_keys.sh
EXTRA_DIST += tests/style/check-style tests/style/test_style.sh \
	tests/style/test_config_keys.sh \
	tests/check-valgrind tests/valgrind.supp tests/lsan.supp tests/tsan.supp tests/lab .clang-format

check-style:
	@$(top_srcdir)/tests/style/check-style

check-valgrind: $(check_PROGRAMS)
	@$(top_srcdir)/tests/check-valgrind \
		$(UNIT_TESTS) $(SIM_TESTS)

.PHONY: check-style check-valgrind
