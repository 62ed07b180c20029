# Faults of the target, at every step of what a store does.
FAULT_SUBJECT = tests/faults/faultline.h tests/faults/model.c tests/faults/model.h \
	tests/faults/originals.c tests/faults/originals.h tests/faults/record.c \
	tests/faults/record.h tests/faults/scenario.c tests/faults/scenario.h \
	tests/faults/subject.c tests/faults/subject.h tests/faults/subject_overlays.c \
	tests/faults/verify.c tests/faults/verify.h tests/faults/views.c tests/faults/views.h

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

FAULT_ARENA = tests/faults/arena.c tests/faults/arena.h tests/faults/plan.c \
	tests/faults/plan.h
check_PROGRAMS += tests/faults/enumerate
tests_faults_enumerate_SOURCES = tests/faults/enumerate.c $(FAULT_ARENA) $(FAULT_SUBJECT)
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

# Every step instead of a few of them; not by the harness, which would show nothing of
# it until the end.
check-faults: all $(check_PROGRAMS) tests/faults/faultline.so
	@failed=0; for test in $(FAULT_TESTS); do \
		echo "# $$test"; FAULT_STEPS=--all bash $(srcdir)/$$test || failed=1; done; \
	echo "# tests/faults/test_power_cut.sh on ext4"; \
	FAULT_STEPS=--all FAULT_FS=ext4 bash $(srcdir)/tests/faults/test_power_cut.sh || failed=1; \
	exit $$failed

.PHONY: check-faults

check_PROGRAMS += tests/faults/test_damage
tests_faults_test_damage_SOURCES = tests/faults/test_damage.c tests/unit/unit.h $(FAULT_SUBJECT)
tests_faults_test_damage_LDADD = $(DRIVERS_LIBS) $(COMMON_LIBS) $(CMOCKA_LIBS)
TESTS += tests/faults/test_damage
