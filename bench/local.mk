# bench/: measured by hand, as it needs root, the lab and the programs it compares with.
EXTRA_DIST += bench/README.md bench/run bench/measure.sh bench/sync.sh bench/cycle.sh bench/bitmap.sh \
	bench/failover.sh bench/guest.sh
