/*
 * New tips: what is sealed, thrown away, or begun to be written directly.
 *
 * All run on the tip's thread, with no journal half applied unless they say so.
 */
#ifndef DRIVERS_STORE_SEAL_H
#define DRIVERS_STORE_SEAL_H

#include "drivers/store/replica.h"

/* The disks that get a new tip, as in the layout. */
struct seal_tips {
    bool made[WIRE_MAX_DISKS];
};

/*
 * Makes what is in the tip durable, stops the storage daemon and makes the files of
 * new, empty tips on it; a disk to which nothing came since the newest mark keeps its
 * own. Then seal_add_tips() puts them into a layout that is about to be committed.
 * Files that no layout names are removed when the store is opened.
 */
bool seal_make_tips(struct replica *r, struct seal_tips *ret, struct error **err);
void seal_add_tips(const struct seal_tips *tips, struct layout *next);

/*
 * Tips that let nothing show through stand alone from now on, as after a resync:
 * what becomes of the layers below is no matter to them. Stops the storage daemon.
 */
bool seal_cut(struct replica *r, struct error **err);

/* The op seal, behind apply_unfinished(). */
bool seal_tip(struct replica *r, struct error **err);

/* The op reset. */
bool seal_reset(struct replica *r, struct error **err);

/*
 * Before a direct write: seals what no mark has yet, and says in layout.json
 * that the tip holds from now on what no journal can rebuild, and that the journals
 * that are there have had their turn. Cheap if that is said.
 */
bool seal_for_direct(struct replica *r, struct error **err);

#endif
