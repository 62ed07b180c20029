# A unit test: tests/unit/test_NOUN.c, one cmocka program each.
UNIT_TESTS = \
	tests/unit/test_error

tests_unit_test_error_SOURCES = tests/unit/test_error.c
tests_unit_test_error_LDADD = $(UNIT_LIBS)

check_PROGRAMS += $(UNIT_TESTS)
TESTS += $(UNIT_TESTS)

NET_TESTS = \
	tests/unit/test_tls \
	tests/unit/test_workers

tests_unit_test_tls_SOURCES = tests/unit/test_tls.c
tests_unit_test_tls_LDADD = $(UNIT_LIBS)
tests_unit_test_workers_SOURCES = tests/unit/test_workers.c
tests_unit_test_workers_LDADD = $(UNIT_LIBS)

check_PROGRAMS += $(NET_TESTS)
TESTS += $(NET_TESTS)
