/*
 * The images of one disk, lowest first: what a storage daemon is to show as it.
 *
 * The last one is written, under QEMU's lock. Those below are sealed: they are
 * opened read-only and without locks, since a fold may write to one of them what
 * the layer above it hides. Nodes are put on each other by name. One image alone that
 * has a backing file is opened with all that its header names, locks included, as a
 * VM does it: a fifth of the cost when there are many, and for an overlay, which no
 * fold comes near, all that is needed. An original image (original.h) may be below the
 * first. Plain data with one owner.
 */
#ifndef DRIVERS_STORE_CHAIN_H
#define DRIVERS_STORE_CHAIN_H

#include "drivers/store/layout.h"
#include "drivers/store/qsd.h"

struct chain {
    char target[STORE_TARGET_MAX];
    uint64_t capacity_bytes;
    struct json_object *original; /* that the first one stands on, as original_node() */
    char **paths;                 /* relative to the store's folder */
    size_t n_paths;
};

/* Zeroed memory with a target and a capacity is an empty one. */
void chain_add(struct chain *c, const char *path);

/*
 * Does this layer stand alone? Nothing below is needed to read it then. False as well
 * if its header cannot be read. disks: the layers' folder.
 */
bool chain_is_bottom(int disks, const char *layer);

/* The bottom that this layer of d stands on, or is. */
size_t chain_find_bottom(int disks, const struct layout_disk *d, size_t layer);

/* An array that the caller frees with chains_free(): all disks, tips included. */
struct chain *chains_of_tips(const struct layout *l, int disks);
void chains_free(struct chain *chains, size_t n);

/* What a storage daemon is to have so that it opens the images and exports them under
   the target's name. index: unique in the list. */
void chain_list(const struct chain *c, size_t index, struct qsd_list *list);

#endif
