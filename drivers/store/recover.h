/*
 * A point's disks and blobs in a folder of their own: overlays on a mark's layers, with
 * the journals between the mark and the point replayed into them.
 *
 * It uses a storage daemon of its own and nothing of the tip. Nobody may change
 * the layers and journals meanwhile: the caller holds a footing (footing.h).
 */
#ifndef DRIVERS_STORE_RECOVER_H
#define DRIVERS_STORE_RECOVER_H

#include "drivers/store/replica.h"

/*
 * Fills the empty folder `part` (relative to the store's) with TARGET.qcow2 of each
 * disk and the blobs, all of it durable; f->disks becomes what they stand on. f says
 * which point, l which layout; progress and cancel are those of `wanted`.
 */
bool
recover_point(struct replica *r, const struct layout *l, const char *part,
              const struct store_overlay *wanted, struct footing *f, struct error **err);

#endif
