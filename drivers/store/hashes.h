/*
 * Hashes of what the tip's disks show, for comparing them with the source's.
 *
 * Before the first point everything is in the base, a plain file that is being
 * written: it is read directly, holes by the file system's word. Later the storage
 * daemon reads through the layers. On the tip's thread.
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

/* `disk` is the index in the tip, which is open; it is dropped after a failure. */
bool hashes_of_tip(struct replica *r, size_t disk, const struct store_hashing *what,
                   uint8_t *ret, struct error **err);

#endif
