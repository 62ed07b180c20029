/*
 * Overlays that outlive what they were made for: what a VM has written there stays, and
 * other overlays can stand on them.
 */
#ifndef DRIVERS_STORE_OVERLAY_KEPT_H
#define DRIVERS_STORE_OVERLAY_KEPT_H

#include "drivers/store/overlay.h"
#include "drivers/store/replica.h"

/* The op overlay_keep. */
bool overlay_keep(struct replica *r, const char *id, const char *as, struct error **err);

/* f becomes a footing as that of overlay `from`, and is known from then on. Called with
   the id of f claimed. */
bool overlay_stand_on_kept(struct replica *r, const char *from, struct footing *f,
                           struct error **err);

/* Fills the empty folder `part` with images that stand on those of `from`, and with a
   copy of its blobs; durable. */
bool overlay_fill_from_kept(struct replica *r, const char *from, const char *part,
                            const struct footing *f, struct error **err);

#endif
