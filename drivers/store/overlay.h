/*
 * Overlays: writable images of points, one folder for each id.
 *
 * They are built aside and renamed, so that an overlay/<id> that is there is
 * whole; overlay.json, their footing, is written last. Arguments and threads as in
 * drivers/store.h.
 */
#ifndef DRIVERS_STORE_OVERLAY_H
#define DRIVERS_STORE_OVERLAY_H

#include "drivers/store/replica.h"

/* The ops overlay_create, overlay_remove, overlay_blob and overlays. */
bool overlay_create(struct replica *r, const struct store_overlay *wanted,
                    char ***ret_paths, size_t *ret_n, struct error **err);
bool overlay_remove(struct replica *r, const char *id, struct error **err);
bool overlay_blob(struct replica *r, const char *id, const char *name, char **ret_data,
                  size_t *ret_length, struct error **err);
/* The op blob. */
bool overlay_newest_blob(struct replica *r, const char *name, char **ret_data,
                         size_t *ret_length, struct error **err);
void overlay_list(struct replica *r, char ***ret, size_t *ret_n);

/* ERROR_PROTOCOL: no id of an overlay. */
bool overlay_check_id(const char *id, struct error **err);

/* Reads what the overlays stand on; when the store is opened. */
bool overlay_load_all(struct replica *r, struct error **err);

/* Removes what was being built or removed when the process died; fd: the store's folder.
 */
bool overlay_remove_parts(int fd, struct error **err);

/* Removes them all. */
bool overlay_remove_all(int fd, struct error **err);

/* --- the fold's side; any thread -------------------------------------------------- */

/* The highest layer of d that an overlay stands on, or is about to; false: none does. */
bool overlay_in_use(struct replica *r, const struct layout_disk *d, size_t *ret_index);

/*
 * A fold begins; false if an overlay stands on the lower layer or above it. From here
 * to _ended() a new overlay that does asks `cancel` to end it and waits. To be called
 * before the fold is put into layout.json, and _ended() behind its last commit.
 */
bool overlay_fold_begins(struct replica *r, const struct layout_fold *what,
                         struct cancel *cancel);
void overlay_fold_ended(struct replica *r);

#endif
