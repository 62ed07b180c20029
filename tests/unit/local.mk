# A unit test: tests/unit/test_NOUN.c, one cmocka program each. Those of common/ are
# linked to it alone: it knows neither drivers nor daemon.
UNIT_TESTS = \
	tests/unit/test_cancel \
	tests/unit/test_error \
	tests/unit/test_http \
	tests/unit/test_json \
	tests/unit/test_log \
	tests/unit/test_mem \
	tests/unit/test_sse \
	tests/unit/test_text \
	tests/unit/test_units \
	tests/unit/test_wire

COMMON_TEST_LIBS = $(COMMON_LIBS) $(CMOCKA_LIBS)

tests_unit_test_cancel_SOURCES = tests/unit/test_cancel.c tests/unit/unit.h
tests_unit_test_cancel_LDADD = $(COMMON_TEST_LIBS)

tests_unit_test_error_SOURCES = tests/unit/test_error.c tests/unit/unit.h
tests_unit_test_error_LDADD = $(COMMON_TEST_LIBS)

tests_unit_test_http_SOURCES = tests/unit/test_http.c tests/unit/unit.h
tests_unit_test_http_LDADD = $(COMMON_TEST_LIBS)

tests_unit_test_json_SOURCES = tests/unit/test_json.c tests/unit/unit.h
tests_unit_test_json_LDADD = $(COMMON_TEST_LIBS)

tests_unit_test_log_SOURCES = tests/unit/test_log.c tests/unit/unit.h
tests_unit_test_log_LDADD = $(COMMON_TEST_LIBS)

tests_unit_test_mem_SOURCES = tests/unit/test_mem.c tests/unit/unit.h
tests_unit_test_mem_LDADD = $(COMMON_TEST_LIBS)

tests_unit_test_sse_SOURCES = tests/unit/test_sse.c tests/unit/unit.h
tests_unit_test_sse_LDADD = $(COMMON_TEST_LIBS)

tests_unit_test_text_SOURCES = tests/unit/test_text.c tests/unit/unit.h
tests_unit_test_text_LDADD = $(COMMON_TEST_LIBS)

tests_unit_test_units_SOURCES = tests/unit/test_units.c tests/unit/unit.h
tests_unit_test_units_LDADD = $(COMMON_TEST_LIBS)

tests_unit_test_wire_SOURCES = tests/unit/test_wire.c tests/unit/unit.h
tests_unit_test_wire_LDADD = $(COMMON_TEST_LIBS)

check_PROGRAMS += $(UNIT_TESTS)
TESTS += $(UNIT_TESTS)

NET_TESTS = \
	tests/unit/test_event_libvirt \
	tests/unit/test_rest \
	tests/unit/test_stream \
	tests/unit/test_stream_hostile \
	tests/unit/test_tls \
	tests/unit/test_workers

tests_unit_test_event_libvirt_SOURCES = tests/unit/test_event_libvirt.c tests/unit/net.h
tests_unit_test_event_libvirt_LDADD = $(UNIT_LIBS)
tests_unit_test_rest_SOURCES = tests/unit/test_rest.c tests/unit/net.h
tests_unit_test_rest_LDADD = $(UNIT_LIBS)
tests_unit_test_stream_SOURCES = tests/unit/test_stream.c tests/unit/stream_target.h \
	tests/unit/net.h
tests_unit_test_stream_LDADD = $(UNIT_LIBS)
tests_unit_test_stream_hostile_SOURCES = tests/unit/test_stream_hostile.c \
	tests/unit/stream_target.h tests/unit/net.h
tests_unit_test_stream_hostile_LDADD = $(UNIT_LIBS)
tests_unit_test_tls_SOURCES = tests/unit/test_tls.c
tests_unit_test_tls_LDADD = $(UNIT_LIBS)
tests_unit_test_workers_SOURCES = tests/unit/test_workers.c
tests_unit_test_workers_LDADD = $(UNIT_LIBS)

check_PROGRAMS += $(NET_TESTS)
TESTS += $(NET_TESTS)
