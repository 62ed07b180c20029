/*
 * What the overlays stand on: the record in each one's folder, and the list of all.
 *
 * An overlay that is being made has a footing already, so that neither a fold nor
 * retain takes away what it is about to need. Plain data; the list of an open
 * store is guarded by its lock (replica.h).
 */
#ifndef DRIVERS_STORE_FOOTING_H
#define DRIVERS_STORE_FOOTING_H

#include "drivers/store/layout.h"

#define FOOTING_FILE   "overlay.json"
#define FOOTING_ID_MAX 64

struct footing_disk {
    char target[STORE_TARGET_MAX];
    char layer[LAYOUT_NAME_MAX]; /* "": it stands alone */
};

struct footing {
    char id[FOOTING_ID_MAX + 1];
    bool ready;   /* the overlay is there, whole */
    bool unknown; /* its record cannot be read: it may stand on anything */
    uint64_t seq; /* the point that it shows */
    uint64_t mark;
    struct footing_disk *disks;
    size_t n_disks;
};

struct footings {
    struct footing *items;
    size_t n;
};

void footing_clear(struct footing *f);
void footing_add_disk(struct footing *f, const char *target, const char *layer);

/* The record of a ready one: durable, or read and checked. at: the overlay's folder. */
bool footing_save(const struct footing *f, int at, struct error **err);
bool footing_load(struct footing *f, int at, struct error **err);

/* NULL if there is none of that id. */
struct footing *footings_find(const struct footings *all, const char *id);

/* Takes over what *f owns. */
void footings_add(struct footings *all, struct footing *f);
void footings_remove(struct footings *all, const char *id);
void footings_clear(struct footings *all);

/* The highest layer of d that one of them stands on; false if there is none. */
bool footings_highest(const struct footings *all, const struct layout_disk *d,
                      size_t *ret_index);

#endif
