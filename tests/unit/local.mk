# A unit test: tests/unit/test_NOUN.c, one cmocka program each.
UNIT_TESTS = \
	tests/unit/test_error \
	tests/unit/test_state_sqlite

tests_unit_test_error_SOURCES = tests/unit/test_error.c
tests_unit_test_error_LDADD = $(UNIT_LIBS)

tests_unit_test_state_sqlite_SOURCES = tests/unit/test_state_sqlite.c
tests_unit_test_state_sqlite_LDADD = $(UNIT_LIBS)

check_PROGRAMS += $(UNIT_TESTS)
TESTS += $(UNIT_TESTS)
