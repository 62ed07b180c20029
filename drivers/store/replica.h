/*
 * An open replica: its layout, its tip, and what changes them.
 *
 * layout.json is the commit record. It is changed by read, copy and commit between
 * replica_change_begin() and _end(), by one thread at a time, so that nothing that the
 * tip's thread and the upkeep's do beside each other is lost. The tip's storage daemon
 * is started when something is first written, and dropped after any failure: the next
 * write starts a new one. Shared parts of the qcow2 driver; functions are called under
 * the thread rules of drivers/store.h.
 */
#ifndef DRIVERS_STORE_REPLICA_H
#define DRIVERS_STORE_REPLICA_H

#include <pthread.h>
#include <stdatomic.h>

#include "drivers/store.h"
#include "drivers/store/base.h"
#include "drivers/store/footing.h"
#include "drivers/store/journals.h"
#include "drivers/store/layout.h"
#include "drivers/store/mark.h"
#include "drivers/store/tip.h"

#define REPLICA_DISKS    "disks"
#define REPLICA_JOURNAL  "journal"
#define REPLICA_BLOBS    "aux"
#define REPLICA_OVERLAYS "overlay"
#define REPLICA_LOCK     "lock"
#define REPLICA_README   "README.txt"

/* A fold that runs; cancel is NULL while there is none. */
struct replica_fold {
    struct layout_fold what;
    struct cancel *cancel;
};

struct replica {
    struct store head;
    char *folder; /* absolute */
    int fd;
    int journal_fd;
    int blobs_fd;
    int lock_fd;
    struct journals journals; /* has its own lock */

    pthread_mutex_t change; /* held from a layout's copy to its commit; before mutex */
    atomic_bool doubtful; /* set under change: the last save failed, and may be durable */
    pthread_mutex_t mutex; /* guards the next four, for moments */
    struct layout *layout; /* never changed in place: replica_layout() */
    struct footings footings;
    struct replica_fold fold;
    pthread_cond_t fold_ended;

    struct tip *tip;  /* the tip's thread's; NULL: not started, or dropped */
    struct base base; /* the same; open while a first sync writes it */
};

/* The present layout, to be read: nobody changes it any more. layout_free() it. */
struct layout *replica_layout(struct replica *r);

/*
 * A copy of the present layout, which stays the present one until _end(): others wait.
 * _end() takes `next` over and makes it the layout: durable, or nothing changed as far
 * as one can tell. _abort() frees it. Between them nothing may wait for long.
 */
struct layout *replica_change_begin(struct replica *r);
bool replica_change_end(struct replica *r, struct layout *next, struct error **err);
void replica_change_abort(struct replica *r, struct layout *next);

/*
 * Makes sure that layout.json says what the layout in memory does. A save that failed
 * may have become durable all the same; before anything is written to the tip, that
 * must be over. Cheap if there is no doubt.
 */
bool replica_settle(struct replica *r, struct error **err);

/* Starts the tip if it is not. */
bool replica_need_tip(struct replica *r, struct error **err);
void replica_drop_tip(struct replica *r);

/* Waits for all writes and makes them durable; drops the tip when it fails. */
bool replica_flush(struct replica *r, struct error **err);

/* The op match. */
bool replica_match(struct replica *r, const struct store_disk *disks, size_t n_disks,
                   struct error **err);

/* Makes the first layer of a disk and adds it to `next`; not yet committed. */
bool replica_add_disk(int fd, struct layout *next, const struct store_disk *disk,
                      struct error **err);

#endif
