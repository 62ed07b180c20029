/*
 * Hashes of what the tip's disks show, for comparing them with the source's.
 *
 * Before the first point everything is in the base, a plain file that is being
 * written: it is read directly, holes by the file system's word. Later the layers'
 * files are read directly too (layer_map.h), which costs half of what the storage daemon
 * takes; that one is asked for what was written since the last flush. On the tip's
 * thread.
 */
#ifndef DRIVERS_STORE_HASHES_H
#define DRIVERS_STORE_HASHES_H

#include "drivers/store/replica.h"

/* Are the ranges whole blocks of the disk? ERROR_PROTOCOL. */
bool hashes_check(const struct layout_disk *d, const struct store_hashing *what,
                  struct error **err);

/* As the op hashes, for ranges that were checked. */
bool hashes_of_base(struct replica *r, const struct layout_disk *d,
                    const struct store_hashing *what, uint8_t *ret, struct error **err);

/* The same through all layers; the tip is opened if it has to be, and dropped if it
   fails. */
bool hashes_of_tip(struct replica *r, const struct layout *l, const struct layout_disk *d,
                   const struct store_hashing *what, uint8_t *ret, struct error **err);

#endif
