# A unit test: tests/unit/test_NOUN.c, one cmocka program each.
UNIT_TESTS = \
	tests/unit/test_error \
	tests/unit/test_journal \
	tests/unit/test_qsd \
	tests/unit/test_state_sqlite \
	tests/unit/test_store_qcow2

tests_unit_test_error_SOURCES = tests/unit/test_error.c
tests_unit_test_error_LDADD = $(UNIT_LIBS)

tests_unit_test_journal_SOURCES = tests/unit/test_journal.c tests/unit/replica_kit.h
tests_unit_test_journal_LDADD = $(UNIT_LIBS)

tests_unit_test_qsd_SOURCES = tests/unit/test_qsd.c tests/unit/replica_kit.h
tests_unit_test_qsd_LDADD = $(UNIT_LIBS)

tests_unit_test_state_sqlite_SOURCES = tests/unit/test_state_sqlite.c
tests_unit_test_state_sqlite_LDADD = $(UNIT_LIBS)

tests_unit_test_store_qcow2_SOURCES = tests/unit/test_store_qcow2.c tests/unit/replica_kit.h
tests_unit_test_store_qcow2_LDADD = $(UNIT_LIBS)

check_PROGRAMS += $(UNIT_TESTS)
TESTS += $(UNIT_TESTS)
