/*
 * Overlays: writable images on sealed layers, one folder for each id.
 *
 * They are built aside and renamed, so that an overlay/<id> that is there is
 * whole. Runs on the tip's thread; arguments as in drivers/store.h.
 */
#ifndef DRIVERS_STORE_OVERLAY_H
#define DRIVERS_STORE_OVERLAY_H

#include "drivers/store/replica.h"

bool overlay_create(struct replica *r, const char *id, char ***ret_paths, size_t *ret_n,
                    struct error **err);
bool overlay_remove(struct replica *r, const char *id, struct error **err);

/* Removes what was being built or removed when the process died; fd: the store's folder.
 */
bool overlay_remove_parts(int fd, struct error **err);

/* Removes them all. */
bool overlay_remove_all(int fd, struct error **err);

#endif
