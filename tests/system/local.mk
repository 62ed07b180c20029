# Tests with real libvirtd, QEMU and guests, in the lab; they need root.
SYSTEM_TESTS =

check_PROGRAMS += tests/system/capture_check
tests_system_capture_check_SOURCES = tests/system/capture_check.c tests/system/captures.c tests/system/captures.h tests/system/world.c tests/system/world.h tests/unit/unit.h
tests_system_capture_check_LDADD = $(DRIVERS_LIBS) $(COMMON_LIBS) $(CMOCKA_LIBS)

check_PROGRAMS += tests/system/bitmap_check
tests_system_bitmap_check_SOURCES = tests/system/bitmap_check.c tests/system/bitmap_kills.c tests/system/bitmap_kills.h tests/system/captures.c tests/system/captures.h tests/system/world.c tests/system/world.h tests/unit/unit.h
tests_system_bitmap_check_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=virDomainQemuMonitorCommand,--wrap=virDomainQemuMonitorCommandWithFiles
tests_system_bitmap_check_LDADD = $(DRIVERS_LIBS) $(COMMON_LIBS) $(CMOCKA_LIBS)

check_PROGRAMS += tests/system/capture_speed
tests_system_capture_speed_SOURCES = tests/system/capture_speed.c
tests_system_capture_speed_LDADD = $(DRIVERS_LIBS) $(COMMON_LIBS)

check_PROGRAMS += tests/system/hostile_peer
tests_system_hostile_peer_SOURCES = tests/system/hostile_peer.c
tests_system_hostile_peer_LDADD = $(DAEMON_LIBS)

check_DATA += tests/system/clock_offset.so
tests/system/clock_offset.so: tests/system/clock_offset.c
	$(AM_V_CC)$(MKDIR_P) tests/system && \
		$(CC) -std=gnu17 -O2 -Wall -Wextra -shared -fPIC -o $@ $(srcdir)/tests/system/clock_offset.c
CLEANFILES += tests/system/clock_offset.so

SYSTEM_TESTS += tests/system/test_bad_input.sh
SYSTEM_TESTS += tests/system/test_bitmap.sh
SYSTEM_TESTS += tests/system/test_capture.sh
SYSTEM_TESTS += tests/system/test_changes.sh
SYSTEM_TESTS += tests/system/test_clock_step.sh
SYSTEM_TESTS += tests/system/test_commit.sh
SYSTEM_TESTS += tests/system/test_consistency.sh
SYSTEM_TESTS += tests/system/test_compare.sh
SYSTEM_TESTS += tests/system/test_cycle_faults.sh
SYSTEM_TESTS += tests/system/test_disks.sh
SYSTEM_TESTS += tests/system/test_drill.sh
SYSTEM_TESTS += tests/system/test_export.sh
SYSTEM_TESTS += tests/system/test_failback.sh
SYSTEM_TESTS += tests/system/test_failover.sh
SYSTEM_TESTS += tests/system/test_planned.sh
SYSTEM_TESTS += tests/system/test_failover_kills.sh
SYSTEM_TESTS += tests/system/test_guard_boot.sh
SYSTEM_TESTS += tests/system/test_firmware.sh
SYSTEM_TESTS += tests/system/test_home.sh
SYSTEM_TESTS += tests/system/test_lab.sh
SYSTEM_TESTS += tests/system/test_limits.sh
SYSTEM_TESTS += tests/system/test_matrix.sh
SYSTEM_TESTS += tests/system/test_migration.sh
SYSTEM_TESTS += tests/system/test_peer_faults.sh
SYSTEM_TESTS += tests/system/test_records.sh
SYSTEM_TESTS += tests/system/test_seed.sh
SYSTEM_TESTS += tests/system/test_service.sh
SYSTEM_TESTS += tests/system/test_readiness.sh
SYSTEM_TESTS += tests/system/test_split_brain.sh
SYSTEM_TESTS += tests/system/test_store_damage.sh
SYSTEM_TESTS += tests/system/test_sync_faults.sh
SYSTEM_TESTS += tests/system/test_time_machine.sh

if SYSTEM_TESTS_WANTED
TESTS += $(SYSTEM_TESTS)
endif
EXTRA_DIST += $(SYSTEM_TESTS) tests/system/lib.sh tests/system/changing.sh tests/system/kills.sh tests/system/clock_offset.c

# Three to six minutes each, the time machine twelve: by "make check-long"; of the matrix and some others
# "make check" does a part.
LONG_TESTS = tests/system/test_amid.sh tests/system/test_auto_end.sh tests/system/test_failback_kills.sh \
	tests/system/test_flatten_kills.sh tests/system/test_planned_kills.sh \
	tests/system/test_store_space.sh tests/system/test_target_faults.sh
EXTRA_DIST += $(LONG_TESTS)

check-long:
	LONG=yes $(MAKE) $(AM_MAKEFLAGS) check \
		TESTS='$(LONG_TESTS) tests/system/test_matrix.sh tests/system/test_changes.sh \
			tests/system/test_consistency.sh tests/system/test_cycle_faults.sh \
			tests/system/test_time_machine.sh'
.PHONY: check-long
