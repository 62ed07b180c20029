# Tests with real libvirtd, QEMU and guests, in the lab; they need root.
SYSTEM_TESTS =

check_PROGRAMS += tests/system/capture_check
tests_system_capture_check_SOURCES = tests/system/capture_check.c tests/system/world.c tests/system/world.h tests/unit/unit.h
tests_system_capture_check_LDADD = $(DRIVERS_LIBS) $(COMMON_LIBS) $(CMOCKA_LIBS) -lvirt-qemu

check_PROGRAMS += tests/system/capture_speed
tests_system_capture_speed_SOURCES = tests/system/capture_speed.c
tests_system_capture_speed_LDADD = $(DRIVERS_LIBS) $(COMMON_LIBS)

SYSTEM_TESTS += tests/system/test_capture.sh

TESTS += $(SYSTEM_TESTS)
EXTRA_DIST += $(SYSTEM_TESTS) tests/system/lib.sh
