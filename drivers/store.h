/*
 * Store drivers: the replica of one VM on the target.
 *
 * A store has a journal (cycles as they came, each whole or absent), a tip (the newest
 * disks, to which journals are applied in order) and marks below it (sealed moments,
 * never written again). A journal's seq is a recovery point: it is rebuilt from the
 * newest mark at or before it and the journals between. A folder belongs to one store
 * object; only one process may have it open (a lock in the folder: ERROR_EXISTS).
 *
 * Threads: all functions may block, workers only. The tip's functions are called by
 * one thread at a time, which the caller sees to; the upkeep's by one other, beside it.
 * All others by any thread at any time, unless they say else.
 *
 * Durability: what a function says is durable has been fsynced, its name in
 * the folder included. Errors: ERROR_STORE, ERROR_NO_SPACE, ERROR_CHECKSUM
 * (a journal or a layer is damaged), ERROR_PROTOCOL (frames that do not fit the
 * disks), ERROR_EXISTS, ERROR_POINT_NOT_FOUND, ERROR_INVALID_STATE (seal() amid direct
 * writes), ERROR_IN_PROGRESS (that overlay is being made), ERROR_TIMEOUT,
 * ERROR_CANCELLED.
 */
#ifndef DRIVERS_STORE_H
#define DRIVERS_STORE_H

#include <stdint.h>

#include "common/cancel.h"
#include "common/error.h"
#include "common/wire.h"
#include "drivers/store_types.h"

struct store;
struct journal; /* one cycle on its way in; belongs to one thread */

struct store_ops {
    const char *name;

    /* Makes the folder (its parent exists) and disks in it; durable. */
    bool (*create)(const char *folder, const struct store_disk *disks, size_t n_disks,
                   struct error **err);

    /*
     * Opens what create() made and repairs what a crash left: unfinished
     * journals and layers that are in no chain are removed, a helper process
     * that still holds the images is ended.
     */
    bool (*open)(const char *folder, struct store **ret, struct error **err);

    /* Ends helper processes; all that was durable stays so. */
    void (*close)(struct store *s);

    /* Removes everything that the store made in the folder, and the folder if it is
       empty then. True if it does not exist. Not while it is open. */
    bool (*destroy)(const char *folder, struct error **err);

    /* --- journals --------------------------------------------------------------- */

    /*
     * Takes a cycle in: frames are appended as they came (header and payload, checked by
     * the caller with wire_check()), BEGIN first, END last. commit() makes the journal
     * durable under seq, in place of an older one; abort() forgets it. Both free j.
     */
    bool (*journal_begin)(struct store *s, uint64_t seq, struct journal **ret,
                          struct error **err);
    bool (*journal_append)(struct journal *j, const struct wire_frame *frame,
                           const void *payload, struct error **err);
    bool (*journal_commit)(struct journal *j, struct error **err);
    void (*journal_abort)(struct journal *j);

    /* Seqs of the durable journals, ascending; the caller frees *ret. */
    bool (*journal_list)(struct store *s, uint64_t **ret, size_t *ret_n,
                         struct error **err);
    bool (*journal_drop)(struct store *s, uint64_t seq, struct error **err);

    /* --- the tip's functions -------------------------------------------------- */

    /* Makes the tip have these disks: new ones are added, larger ones grown.
       A disk that is not named stays as it is. Smaller is ERROR_PROTOCOL. */
    bool (*match)(struct store *s, const struct store_disk *disks, size_t n_disks,
                  struct error **err);

    /*
     * Writes journal seq into the tip (match() for its disks included), flushes, and
     * makes blobs and applied() durable. Applying again does no harm. After a
     * failure a part of it may be in the tip: seal(), write(), zero() and an overlay of
     * the newest point then apply it once more before anything else, and fail as long
     * as that fails. The first one after direct writes is a mark as soon as it is
     * applied. The journal stays until retain() or journal_drop().
     */
    bool (*apply)(struct store *s, uint64_t seq, struct cancel *cancel,
                  struct error **err);

    /*
     * Direct writes to the tip, for a first sync or a resync. The first one seals what
     * no mark holds, for the points so far; journals that are there count as applied.
     * Asynchronous: data is copied, unless it was put where place(), the call before,
     * says (NULL: nowhere); errors may come later; flush() waits for all and makes them
     * durable. An error puts everything since the last flush() in doubt: write it again.
     */
    void *(*place)(struct store *s, const char *target, uint64_t offset, size_t length);
    bool (*write)(struct store *s, const char *target, uint64_t offset, const void *data,
                  size_t length, struct error **err);
    bool (*zero)(struct store *s, const char *target, uint64_t offset, uint64_t length,
                 struct error **err);
    bool (*flush)(struct store *s, struct error **err);

    /* Hashes of what the tip shows, as store_types.h says. */
    bool (*hashes)(struct store *s, const struct store_hashing *what, uint8_t *ret,
                   struct error **err);

    /* The originals' point, and when they have changed: store_types.h. */
    bool (*mark_originals)(struct store *s, const struct store_first *first,
                           struct error **err);
    bool (*accept_originals)(struct store *s, struct error **err);

    /* The disk begins with an image, as store_types.h says. */
    bool (*adopt)(struct store *s, const char *target, const struct seed_image *image,
                  const struct store_effort *effort, struct error **err);

    /*
     * Makes a mark of what was applied last: the tip becomes a layer that is never
     * written again; a new one on it. Nothing is done if nothing came since the newest
     * mark. ERROR_INVALID_STATE: direct writes came, and no journal after them.
     */
    bool (*seal)(struct store *s, struct error **err);

    /* Throws away what came to the tip since the last seal, journals too. Durable. */
    bool (*reset)(struct store *s, struct error **err);

    /* Writable images of a point, as store_types.h says. *ret_paths, one for each of its
       disks, and the strings are the caller's to free. */
    bool (*overlay_create)(struct store *s, const struct store_overlay *wanted,
                           char ***ret_paths, size_t *ret_n, struct error **err);
    bool (*overlay_remove)(struct store *s, const char *id, struct error **err);

    /* Its id is `as` from now on, durable; nobody has its images open. Twice is fine. */
    bool (*overlay_keep)(struct store *s, const char *id, const char *as,
                         struct error **err);

    /* --- upkeep ----------------------------------------------------------------- */

    /*
     * The points that stay, ascending; of journals and marks what none of them
     * needs goes, except the newest mark and all behind it, and the marks that overlays
     * stand on. Durable before anything is removed. Layers stay until they are folded.
     */
    bool (*retain)(struct store *s, const uint64_t *seqs, size_t n, struct error **err);

    /*
     * Merges one layer that no mark shows any more with the one above it, beside
     * everything else; *ret_folded is false if there was nothing to do. It ends
     * with ERROR_CANCELLED when an overlay is made that needs one of the two.
     */
    bool (*fold)(struct store *s, const struct store_effort *effort, bool *ret_folded,
                 struct error **err);

    /* Makes the checksums of sealed layers that have none yet. */
    bool (*digest)(struct store *s, const struct store_effort *effort,
                   struct error **err);

    /* Compares all with its checksums, as store_types.h says. */
    bool (*scrub)(struct store *s, const struct store_effort *effort,
                  store_damage_fn damaged, void *opaque, uint64_t *ret_bytes,
                  struct error **err);

    /* --- looking ---------------------------------------------------------------- */

    /* The newest applied seq; 0: none. */
    uint64_t (*applied)(struct store *s);

    bool (*status)(struct store *s, struct store_status *ret, struct error **err);

    /* What has become of the original that a disk stands on. */
    bool (*original)(struct store *s, const char *target, enum store_original_state *ret,
                     struct error **err);

    /* Seqs of the marks, ascending; the caller frees *ret. */
    bool (*marks)(struct store *s, uint64_t **ret, size_t *ret_n, struct error **err);

    /* A blob of an overlay's point, a NUL behind it; freed by the caller. */
    bool (*overlay_blob)(struct store *s, const char *id, const char *name,
                         char **ret_data, size_t *ret_length, struct error **err);
    bool (*blob)(struct store *s, const char *name, char **ret_data, size_t *ret_length,
                 struct error **err); /* the same of the newest applied point */

    /* Ids of the overlays; the caller frees each and *ret. The tip's disks; likewise. */
    bool (*overlays)(struct store *s, char ***ret, size_t *ret_n, struct error **err);
    bool (*disks)(struct store *s, struct store_disk **ret, size_t *ret_n,
                  struct error **err);

    /* What the folder takes on its file system, and what is free there. */
    bool (*space)(const char *folder, uint64_t *ret_used_bytes, uint64_t *ret_free_bytes,
                  struct error **err);
};

/* The head of each driver's own struct. */
struct store {
    const struct store_ops *ops;
};

#endif
