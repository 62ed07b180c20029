# A fuzzer: tests/fuzz/fuzz_NOUN.c with LLVMFuzzerTestOneInput(), its corpus in
# tests/fuzz/corpus/NOUN. An ordinary build replays the corpus in `make check`;
# with --enable-fuzzing CC=clang, `make fuzz` looks for new inputs, FUZZ_SECONDS each.
FUZZERS =
FUZZ_SECONDS = 60

if FUZZING
FUZZ_DRIVER =
LINK_FUZZERS = $(AM_LDFLAGS) -fsanitize=fuzzer
else
FUZZ_DRIVER = tests/fuzz/replay.c
LINK_FUZZERS = $(AM_LDFLAGS)
endif

FUZZERS += tests/fuzz/fuzz_exchange
tests_fuzz_fuzz_exchange_SOURCES = tests/fuzz/fuzz_exchange.c $(FUZZ_DRIVER)
tests_fuzz_fuzz_exchange_LDFLAGS = $(LINK_FUZZERS)
tests_fuzz_fuzz_exchange_LDADD = $(DAEMON_LIBS)

FUZZERS += tests/fuzz/fuzz_footing
tests_fuzz_fuzz_footing_SOURCES = tests/fuzz/fuzz_footing.c tests/fuzz/file.h $(FUZZ_DRIVER)
tests_fuzz_fuzz_footing_LDFLAGS = $(LINK_FUZZERS)
tests_fuzz_fuzz_footing_LDADD = $(DRIVERS_LIBS) $(COMMON_LIBS)

FUZZERS += tests/fuzz/fuzz_journal
tests_fuzz_fuzz_journal_SOURCES = tests/fuzz/fuzz_journal.c tests/fuzz/file.h $(FUZZ_DRIVER)
tests_fuzz_fuzz_journal_LDFLAGS = $(LINK_FUZZERS)
tests_fuzz_fuzz_journal_LDADD = $(DRIVERS_LIBS) $(COMMON_LIBS)

FUZZERS += tests/fuzz/fuzz_layout
tests_fuzz_fuzz_layout_SOURCES = tests/fuzz/fuzz_layout.c tests/fuzz/file.h $(FUZZ_DRIVER)
tests_fuzz_fuzz_layout_LDFLAGS = $(LINK_FUZZERS)
tests_fuzz_fuzz_layout_LDADD = $(DRIVERS_LIBS) $(COMMON_LIBS)

FUZZERS += tests/fuzz/fuzz_sums
tests_fuzz_fuzz_sums_SOURCES = tests/fuzz/fuzz_sums.c tests/fuzz/file.h $(FUZZ_DRIVER)
tests_fuzz_fuzz_sums_LDFLAGS = $(LINK_FUZZERS)
tests_fuzz_fuzz_sums_LDADD = $(DRIVERS_LIBS) $(COMMON_LIBS)

FUZZERS += tests/fuzz/fuzz_wire
tests_fuzz_fuzz_wire_SOURCES = tests/fuzz/fuzz_wire.c $(FUZZ_DRIVER)
tests_fuzz_fuzz_wire_LDFLAGS = $(LINK_FUZZERS)
tests_fuzz_fuzz_wire_LDADD = $(COMMON_LIBS)

EXTRA_DIST += tests/fuzz/replay.c tests/fuzz/corpus

if FUZZING
noinst_PROGRAMS += $(FUZZERS)

fuzz: $(FUZZERS)
	@for f in $(FUZZERS); do \
		noun=$${f##*/fuzz_}; \
		mkdir -p tests/fuzz/found/$$noun && \
		$$f -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 \
			-artifact_prefix=tests/fuzz/found/$$noun- \
			tests/fuzz/found/$$noun $(top_srcdir)/tests/fuzz/corpus/$$noun || exit 1; \
	done
else
check_PROGRAMS += $(FUZZERS)
TESTS += $(FUZZERS)

fuzz:
	@echo "configure with CC=clang --enable-fuzzing --enable-sanitizers first" >&2; exit 1
endif

.PHONY: fuzz
