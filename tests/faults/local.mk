# Faults of the target, at every step of what a store does.
FAULT_SUBJECT = tests/faults/faultline.h tests/faults/model.c tests/faults/model.h \
	tests/faults/record.c tests/faults/record.h tests/faults/subject.c \
	tests/faults/subject.h tests/faults/verify.c tests/faults/verify.h

check_PROGRAMS += tests/faults/store_scenario
tests_faults_store_scenario_SOURCES = tests/faults/store_scenario.c $(FAULT_SUBJECT)
tests_faults_store_scenario_LDADD = $(DRIVERS_LIBS) $(COMMON_LIBS)

# No sanitizer, and 64 bits by name only: it stands for the C library's own functions.
check_DATA += tests/faults/faultline.so
tests/faults/faultline.so: tests/faults/faultline.c tests/faults/faultline.h
	$(AM_V_CC)$(MKDIR_P) tests/faults && $(CC) -std=gnu17 -D_GNU_SOURCE -U_FORTIFY_SOURCE \
		-I$(top_srcdir) $(WARN_CFLAGS) -O2 -g -fPIC -shared -o $@ \
		$(top_srcdir)/tests/faults/faultline.c -ldl
CLEANFILES += tests/faults/faultline.so
EXTRA_DIST += tests/faults/faultline.c

FAULT_ARENA = tests/faults/arena.c tests/faults/arena.h tests/faults/faultline.h \
	tests/faults/plan.c tests/faults/plan.h
check_PROGRAMS += tests/faults/enumerate
tests_faults_enumerate_SOURCES = tests/faults/enumerate.c $(FAULT_ARENA)
tests_faults_enumerate_LDADD = $(DRIVERS_LIBS) $(COMMON_LIBS)

check_PROGRAMS += tests/faults/fill_up
tests_faults_fill_up_SOURCES = tests/faults/fill_up.c tests/faults/arena.c \
	tests/faults/arena.h tests/faults/faultline.h
tests_faults_fill_up_LDADD = $(DRIVERS_LIBS) $(COMMON_LIBS)

FAULT_TESTS = tests/faults/test_kills.sh tests/faults/test_second_kill.sh \
	tests/faults/test_full.sh tests/faults/test_power_cut.sh tests/faults/test_removal.sh \
	tests/faults/test_really_full.sh
TESTS += $(FAULT_TESTS)
EXTRA_DIST += $(FAULT_TESTS)

# Every step instead of a few of them.
check-faults:
	FAULT_STEPS=--all $(MAKE) check TESTS='$(FAULT_TESTS)'
	FAULT_STEPS=--all FAULT_FS=ext4 $(MAKE) check TESTS=tests/faults/test_power_cut.sh

.PHONY: check-faults

check_PROGRAMS += tests/faults/test_damage
tests_faults_test_damage_SOURCES = tests/faults/test_damage.c tests/unit/unit.h $(FAULT_SUBJECT)
tests_faults_test_damage_LDADD = $(DRIVERS_LIBS) $(COMMON_LIBS) $(CMOCKA_LIBS)
TESTS += tests/faults/test_damage
