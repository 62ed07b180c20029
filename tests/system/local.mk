# tests/system/
check_PROGRAMS += tests/system/capture_check tests/system/capture_speed

tests_system_capture_check_SOURCES = tests/system/capture_check.c \
	tests/system/world.c tests/system/world.h tests/unit/unit.h
tests_system_capture_check_LDADD = $(DRIVERS_LIBS) $(COMMON_LIBS) $(CMOCKA_LIBS) -lvirt-qemu

tests_system_capture_speed_SOURCES = tests/system/capture_speed.c
tests_system_capture_speed_LDADD = $(DRIVERS_LIBS) $(COMMON_LIBS)

TESTS += tests/system/test_capture.sh
EXTRA_DIST += tests/system/test_capture.sh
