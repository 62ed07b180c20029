/*
 * Original images: what the first layers of some disks stand on, somebody else's.
 *
 * They are read, without QEMU's locks as sealed layers are, and never written to. The
 * layout remembers what each was like when the replica began with it. Threads as in
 * drivers/store.h.
 */
#ifndef DRIVERS_STORE_ORIGINAL_H
#define DRIVERS_STORE_ORIGINAL_H

#include <json-c/json.h>

#include "drivers/store/replica.h"

/* Makes the first layer of d, an empty image on the original, and adds it to d; not yet
   committed. fd: the store's folder. ERROR_NOT_FOUND, ERROR_PROTOCOL. */
bool original_put_below(int fd, struct layout_disk *d,
                        const struct store_original *original, struct error **err);

/* What QEMU is to open, read-only, backing files as it finds them; the caller's. */
struct json_object *original_node(const struct layout_original *original);

/* Is it what it was? An error says that nobody can tell. */
bool original_look(const struct layout_original *original, enum store_original_state *ret,
                   struct error **err);

/* The ops mark_originals and accept_originals. */
bool
original_mark(struct replica *r, const struct store_first *first, struct error **err);
bool original_accept(struct replica *r, struct error **err);

#endif
