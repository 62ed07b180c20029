/*
 * Folds: layers that no mark shows any more are merged with those above them.
 *
 * One fold puts what the upper layer holds into the lower one, the layer above both
 * onto the lower, and the layout without the upper. Until that last step the upper one
 * stays whole and hides all that is written below it: who reads the chain meanwhile (the
 * tip's storage daemon, opened without locks) sees no change, a crash harms nothing, and
 * beginning again ends the same. Nobody but the tip stands on the two: see
 * overlay_fold_begins(). The upkeep's thread.
 */
#ifndef DRIVERS_STORE_FOLD_H
#define DRIVERS_STORE_FOLD_H

#include "drivers/store/replica.h"

/* The op fold of drivers/store.h. */
bool fold_once(struct replica *r, const struct store_effort *effort, bool *ret_folded,
               struct error **err);

#endif
