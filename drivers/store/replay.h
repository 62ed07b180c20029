/*
 * A journal's frames into open images and blob files: the tip's, when it is applied,
 * or those of a point that is recovered. One thread at a time.
 */
#ifndef DRIVERS_STORE_REPLAY_H
#define DRIVERS_STORE_REPLAY_H

#include "drivers/store/journal.h"
#include "drivers/store/tip.h"

struct replay {
    int journals;       /* the folder */
    struct tip *tip;    /* NULL: no frame writes to a disk */
    int blobs;          /* the folder */
    const char *prefix; /* of the blobs' files there; "" is legal */
    struct cancel *cancel;
    void (*read)(size_t bytes, void *opaque); /* after each frame; NULL: not wanted */
    void *opaque;
};

/* Nothing is flushed or synced yet. After a failure a part of it may be written. */
bool replay_journal(const struct replay *r, uint64_t seq, struct error **err);

/* The file of a blob. */
void replay_blob_file(const char *prefix, const char *blob, char ret[LAYOUT_NAME_MAX]);

#endif
