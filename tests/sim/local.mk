# The daemon's logic on hypervisors and disks in memory; stores, streams and
# databases are real. Each program runs itself again to be killed.
SIM_TESTS =
SIM_FATED = tests/sim/fated.c tests/sim/fated.h tests/sim/files.c tests/sim/files.h tests/unit/net.h
SIM_WORLD = tests/sim/world.c tests/sim/world.h tests/sim/world_private.h \
	tests/sim/world_disks.c tests/sim/world_hypervisor.c tests/sim/world_run.c $(SIM_FATED)
SIM_HOSTS = tests/sim/hosts.c tests/sim/hosts.h $(SIM_FATED)
SIM_REPLICATED = tests/sim/replicated.c tests/sim/replicated.h $(SIM_WORLD)
SIM_PAIR = tests/sim/pair.c tests/sim/pair.h tests/sim/pair_private.h tests/sim/pair_world.c $(SIM_REPLICATED)
# Calls between the two hosts are the test's own, and so is waiting.
SIM_WRAPPED = $(AM_LDFLAGS) -Wl,--wrap=peers_call -Wl,--wrap=peers_probe \
	-Wl,--wrap=peers_stream_take -Wl,--wrap=poll

SIM_TESTS += tests/sim/test_auxiliary
tests_sim_test_auxiliary_SOURCES = tests/sim/test_auxiliary.c $(SIM_WORLD)
tests_sim_test_auxiliary_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_consistency
tests_sim_test_consistency_SOURCES = tests/sim/test_consistency.c $(SIM_WORLD)
tests_sim_test_consistency_LDADD = $(UNIT_LIBS)
SIM_TESTS += tests/sim/test_commit
tests_sim_test_commit_SOURCES = tests/sim/test_commit.c $(SIM_REPLICATED)
tests_sim_test_commit_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_seed
tests_sim_test_seed_SOURCES = tests/sim/test_seed.c $(SIM_WORLD)
tests_sim_test_seed_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_compare
tests_sim_test_compare_SOURCES = tests/sim/test_compare.c $(SIM_WORLD)
tests_sim_test_compare_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_cycle
tests_sim_test_cycle_SOURCES = tests/sim/test_cycle.c $(SIM_WORLD)
tests_sim_test_cycle_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_offline
tests_sim_test_offline_SOURCES = tests/sim/test_offline.c $(SIM_WORLD)
tests_sim_test_offline_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_failover
tests_sim_test_failover_SOURCES = tests/sim/test_failover.c $(SIM_REPLICATED)
tests_sim_test_failover_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_planned
tests_sim_test_planned_SOURCES = tests/sim/test_planned.c $(SIM_PAIR)
tests_sim_test_planned_LDADD = $(UNIT_LIBS)
tests_sim_test_planned_LDFLAGS = $(SIM_WRAPPED)

SIM_TESTS += tests/sim/test_protect
tests_sim_test_protect_SOURCES = tests/sim/test_protect.c $(SIM_PAIR)
tests_sim_test_protect_LDADD = $(UNIT_LIBS)
tests_sim_test_protect_LDFLAGS = $(SIM_WRAPPED)

SIM_WALK = tests/sim/walk.c tests/sim/walk.h tests/sim/stories.h tests/sim/stories.c \
	tests/sim/stories_care.c tests/sim/stories_points.c tests/sim/moves.c tests/sim/moves.h \
	tests/sim/care.c tests/sim/care.h $(SIM_PAIR)
SIM_TESTS += tests/sim/test_operations
tests_sim_test_operations_SOURCES = tests/sim/test_operations.c $(SIM_WALK)
tests_sim_test_operations_LDADD = $(UNIT_LIBS)
tests_sim_test_operations_LDFLAGS = $(SIM_WRAPPED)

SIM_TESTS += tests/sim/test_operations_home
tests_sim_test_operations_home_SOURCES = tests/sim/test_operations_home.c $(SIM_WALK)
tests_sim_test_operations_home_LDADD = $(UNIT_LIBS)
tests_sim_test_operations_home_LDFLAGS = $(SIM_WRAPPED)

SIM_TESTS += tests/sim/test_operations_care
tests_sim_test_operations_care_SOURCES = tests/sim/test_operations_care.c $(SIM_WALK)
tests_sim_test_operations_care_LDADD = $(UNIT_LIBS)
tests_sim_test_operations_care_LDFLAGS = $(SIM_WRAPPED)

SIM_TESTS += tests/sim/test_operations_points
tests_sim_test_operations_points_SOURCES = tests/sim/test_operations_points.c $(SIM_WALK)
tests_sim_test_operations_points_LDADD = $(UNIT_LIBS)
tests_sim_test_operations_points_LDFLAGS = $(SIM_WRAPPED)

SIM_TESTS += tests/sim/test_choices
tests_sim_test_choices_SOURCES = tests/sim/test_choices.c $(SIM_PAIR)
tests_sim_test_choices_LDADD = $(UNIT_LIBS)
tests_sim_test_choices_LDFLAGS = $(SIM_WRAPPED)

SIM_TESTS += tests/sim/test_home
tests_sim_test_home_SOURCES = tests/sim/test_home.c $(SIM_HOSTS)
tests_sim_test_home_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_handover
tests_sim_test_handover_SOURCES = tests/sim/test_handover.c $(SIM_HOSTS)
tests_sim_test_handover_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_limits
tests_sim_test_limits_SOURCES = tests/sim/test_limits.c $(SIM_WORLD)
tests_sim_test_limits_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_points
tests_sim_test_points_SOURCES = tests/sim/test_points.c $(SIM_WORLD)
tests_sim_test_points_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_readiness
tests_sim_test_readiness_SOURCES = tests/sim/test_readiness.c $(SIM_REPLICATED)
tests_sim_test_readiness_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_split_brain
tests_sim_test_split_brain_SOURCES = tests/sim/test_split_brain.c $(SIM_REPLICATED)
tests_sim_test_split_brain_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_reverse
tests_sim_test_reverse_SOURCES = tests/sim/test_reverse.c $(SIM_HOSTS)
tests_sim_test_reverse_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_divergence
tests_sim_test_divergence_SOURCES = tests/sim/test_divergence.c $(SIM_WORLD)
tests_sim_test_divergence_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_records
tests_sim_test_records_SOURCES = tests/sim/test_records.c $(SIM_HOSTS)
tests_sim_test_records_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_testruns
tests_sim_test_testruns_SOURCES = tests/sim/test_testruns.c $(SIM_REPLICATED)
tests_sim_test_testruns_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_undo
tests_sim_test_undo_SOURCES = tests/sim/test_undo.c $(SIM_REPLICATED)
tests_sim_test_undo_LDADD = $(UNIT_LIBS)

SIM_TESTS += tests/sim/test_verify
tests_sim_test_verify_SOURCES = tests/sim/test_verify.c $(SIM_WORLD)
tests_sim_test_verify_LDADD = $(UNIT_LIBS)

check_PROGRAMS += $(SIM_TESTS)
TESTS += $(SIM_TESTS)

# The hook as it is built; in a mount namespace, since its folders are fixed.
TESTS += tests/sim/test_hook.sh
EXTRA_DIST += tests/sim/test_hook.sh
