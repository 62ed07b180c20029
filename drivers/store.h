/*
 * Store drivers: the replica of one VM on the target.
 *
 * A store has a journal (cycles as they came, each whole or absent), a tip (the
 * newest disks, to which journals are applied in order) and layers below it
 * that are never written again. A folder belongs to one store object; only
 * one process may have it open (a lock in the folder: ERROR_EXISTS).
 *
 * Threads: all functions may block, workers only. journal_*() may run on one
 * thread while apply() runs on another. Everything that writes the tip
 * (apply, write, zero, flush, seal, match, overlay_*) is called by one thread
 * at a time; the caller sees to it.
 *
 * Durability: what a function says is durable has been fsynced, its name in
 * the folder included. Errors: ERROR_STORE, ERROR_NO_SPACE, ERROR_CHECKSUM
 * (a journal is damaged), ERROR_PROTOCOL (frames that do not fit the disks),
 * ERROR_EXISTS, ERROR_POINT_NOT_FOUND, ERROR_TIMEOUT, ERROR_CANCELLED.
 */
#ifndef DRIVERS_STORE_H
#define DRIVERS_STORE_H

#include <stdint.h>

#include "common/cancel.h"
#include "common/error.h"
#include "common/wire.h"

#define STORE_TARGET_MAX 32

struct store_disk {
    char target[STORE_TARGET_MAX]; /* "vda" */
    uint64_t capacity_bytes;       /* a multiple of 512 */
};

struct store;
struct journal; /* one cycle on its way in; belongs to one thread */

struct store_ops {
    const char *name;

    /* Makes the folder (its parent exists) and empty disks in it; durable. */
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

    /*
     * Makes the tip have these disks: new ones are added, larger ones grown.
     * A disk that is not named stays as it is. Smaller is ERROR_PROTOCOL.
     */
    bool (*match)(struct store *s, const struct store_disk *disks, size_t n_disks,
                  struct error **err);

    /*
     * Takes a cycle in: frames are appended as they came (header and payload,
     * checked by the caller with wire_check()), BEGIN first, END last.
     * commit() makes the journal durable under seq and visible; abort()
     * forgets it. Both free j. commit() replaces an older journal of that seq.
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

    /*
     * Writes journal seq into the tip (match() for its disks included), flushes, and
     * makes blobs and applied() durable. Applying again does no harm. After a
     * failure a part of it may be in the tip: seal() and overlay_create() then
     * apply it once more before anything else, and fail as long as that fails.
     */
    bool (*apply)(struct store *s, uint64_t seq, struct cancel *cancel,
                  struct error **err);

    /* The newest applied seq; 0: none. */
    uint64_t (*applied)(struct store *s);

    /*
     * Direct writes to the tip, for a first sync, which no point depends on
     * yet. Asynchronous: data is copied, errors may come with a later call;
     * flush() waits for all and makes them durable. An error from any of the
     * three puts everything since the last flush() in doubt: write it again.
     */
    bool (*write)(struct store *s, const char *target, uint64_t offset, const void *data,
                  size_t length, struct error **err);
    bool (*zero)(struct store *s, const char *target, uint64_t offset, uint64_t length,
                 struct error **err);
    bool (*flush)(struct store *s, struct error **err);

    /* The tip becomes a layer that is never written again; a new, empty tip on it. */
    bool (*seal)(struct store *s, struct error **err);

    /* Throws away what was written to the tip since the last seal; durable. */
    bool (*reset)(struct store *s, struct error **err);

    /*
     * Writable images on top of the newest state: seals the tip and lets go
     * of all locks that a VM on them would need. id is [a-z0-9-]. *ret_paths
     * (one for each disk, in the order of disks()) and the strings are the
     * caller's to free. An overlay of that id that exists is returned as it is.
     */
    bool (*overlay_create)(struct store *s, const char *id, char ***ret_paths,
                           size_t *ret_n, struct error **err);
    bool (*overlay_remove)(struct store *s, const char *id, struct error **err);

    /* The tip's disks; the caller frees *ret. */
    bool (*disks)(struct store *s, struct store_disk **ret, size_t *ret_n,
                  struct error **err);

    /*
     * A blob ("domain.xml", "nvram") as of the newest applied point. *ret_data
     * has a NUL behind it and is the caller's to free. ERROR_POINT_NOT_FOUND.
     */
    bool (*blob)(struct store *s, const char *name, char **ret_data, size_t *ret_length,
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
