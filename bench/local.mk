# bench/: measured by hand, as it needs root, the lab and the programs it compares with.
EXTRA_DIST += bench/README.md bench/run bench/measure.sh bench/sync.sh bench/cycle.sh \
	bench/bitmap.sh bench/compare.sh bench/drill.sh bench/failover.sh bench/guest.sh bench/home.sh bench/points.sh bench/store.sh

# Built with all the rest, so that it goes on fitting the driver.
noinst_PROGRAMS += bench/store_bench
bench_store_bench_SOURCES = bench/store_bench.c
bench_store_bench_LDADD = $(DRIVERS_LIBS) $(COMMON_LIBS)
