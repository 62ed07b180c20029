/*
 * Retention in the store: of marks and journals, what no kept point needs goes.
 *
 * A point needs the newest mark at or before it and the journals between. The newest
 * mark and all journals behind it stay, and the marks on which overlays stand. May run
 * beside the tip's functions; layers are left to the fold.
 */
#ifndef DRIVERS_STORE_RETAIN_H
#define DRIVERS_STORE_RETAIN_H

#include "drivers/store/replica.h"

/* The op retain. */
bool retain_points(struct replica *r, const uint64_t *seqs, size_t n, struct error **err);

#endif
