/*
 * A journal into the tip, as one step.
 *
 * The journal is read to its end and checked before the first byte is written.
 * Then layout.json says that this seq is being applied, and says that it is
 * applied in the same write that names its blobs. A tip between these two is
 * at no recovery point; nothing is built on it before the journal was applied
 * again, which does no harm (I2). Runs on the tip's thread.
 */
#ifndef DRIVERS_STORE_APPLY_H
#define DRIVERS_STORE_APPLY_H

#include "drivers/store/replica.h"

/* The op apply of drivers/store.h. */
bool
apply_journal(struct replica *r, uint64_t seq, struct cancel *cancel, struct error **err);

/* Applies the journal that a crash or a failure left half applied, if any. */
bool apply_unfinished(struct replica *r, struct cancel *cancel, struct error **err);

#endif
