/*
 * Scrub: reads all that is sealed in a store and tells what its checksums do not fit.
 *
 * Checked are the journals (each frame has its hash), the sealed layers (sums.h)
 * and the tables of sealed qcow2 layers (qemu-img check). A layer without sums
 * gets them. Parts of struct replica; the upkeep's thread.
 */
#ifndef DRIVERS_STORE_SCRUB_H
#define DRIVERS_STORE_SCRUB_H

#include "drivers/store/replica.h"

/* Whom to tell. */
struct scrub_listener {
    store_damage_fn damaged;
    void *opaque;
};

/* The ops digest and scrub of drivers/store.h. */
bool
scrub_digest(struct replica *r, const struct store_effort *effort, struct error **err);
bool
scrub_run(struct replica *r, const struct store_effort *effort,
          const struct scrub_listener *listener, uint64_t *ret_bytes, struct error **err);

/* How many layers of d are sealed: those that a mark shows, and all below them. */
size_t scrub_n_sealed(const struct layout *l, const struct layout_disk *d);

/*
 * The points that a layer's damage reaches: first, last and tip of *ret; first is
 * above last if there is none. disks: the layers' folder, where it looks which layer
 * above hides all of this one.
 */
void scrub_layer_reach(const struct layout *l, int disks, const struct layout_disk *d,
                       size_t layer, struct store_damage *ret);

#endif
