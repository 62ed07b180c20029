# A unit test: tests/unit/test_NOUN.c, one cmocka program each.
UNIT_TESTS = \
	tests/unit/test_client_commands \
	tests/unit/test_client_docs \
	tests/unit/test_client_parts \
	tests/unit/test_client_wait \
	tests/unit/test_error

tests_unit_test_error_SOURCES = tests/unit/test_error.c
tests_unit_test_error_LDADD = $(UNIT_LIBS)

CLIENT_TEST_LIBS = $(CLIENT_LIBS) $(LIBEVENT_LIBS) $(CMOCKA_LIBS) -lutil
CLIENT_SERVER = tests/unit/client_server.c tests/unit/client_server.h

# These run the real virt-dr.
tests_unit_test_client_commands_SOURCES = tests/unit/test_client_commands.c $(CLIENT_SERVER)
tests_unit_test_client_commands_LDADD = $(CLIENT_TEST_LIBS)
EXTRA_tests_unit_test_client_commands_DEPENDENCIES = client/virt-dr$(EXEEXT)

tests_unit_test_client_wait_SOURCES = tests/unit/test_client_wait.c $(CLIENT_SERVER)
tests_unit_test_client_wait_LDADD = $(CLIENT_TEST_LIBS)
EXTRA_tests_unit_test_client_wait_DEPENDENCIES = client/virt-dr$(EXEEXT)

tests_unit_test_client_docs_SOURCES = tests/unit/test_client_docs.c
tests_unit_test_client_docs_LDADD = $(CLIENT_TEST_LIBS)

tests_unit_test_client_parts_SOURCES = tests/unit/test_client_parts.c
tests_unit_test_client_parts_LDADD = $(CLIENT_TEST_LIBS)

check_PROGRAMS += $(UNIT_TESTS)
TESTS += $(UNIT_TESTS)
