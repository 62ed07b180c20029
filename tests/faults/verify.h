/*
 * Is a store what its record promises? And does it go on working?
 */
#ifndef TESTS_FAULTS_VERIFY_H
#define TESTS_FAULTS_VERIFY_H

#include "tests/faults/subject.h"

/*
 * Opens the store, as a daemon does that was started again, and looks at every
 * point that was acknowledged and not given up; then lets it take another cycle.
 */
bool verify_store(struct subject *s, struct error **err);

/* Is the point there, byte for byte, with its blobs? The store is open. */
bool verify_point(struct subject *s, uint64_t seq, struct error **err);

/* All points that the record wants. */
bool verify_points(struct subject *s, struct error **err);

/* Is there nothing but what the layout needs? No overlay, no waiting write. */
bool verify_files(struct subject *s, struct error **err);

#endif
