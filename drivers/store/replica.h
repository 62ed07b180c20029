/*
 * An open replica: its layout, its tip, and what changes them.
 *
 * layout.json is the commit record; replica_commit() is the only way to change
 * it. The tip's storage daemon is started when something is first written, and
 * dropped after any failure: the next write starts a new one. Shared parts of
 * the qcow2 driver; functions are called under the thread rules of
 * drivers/store.h.
 */
#ifndef DRIVERS_STORE_REPLICA_H
#define DRIVERS_STORE_REPLICA_H

#include <pthread.h>

#include "drivers/store.h"
#include "drivers/store/base.h"
#include "drivers/store/layout.h"
#include "drivers/store/tip.h"

#define REPLICA_DISKS    "disks"
#define REPLICA_JOURNAL  "journal"
#define REPLICA_BLOBS    "aux"
#define REPLICA_OVERLAYS "overlay"
#define REPLICA_LOCK     "lock"
#define REPLICA_README   "README.txt"

struct replica {
    struct store head;
    char *folder; /* absolute */
    int fd;
    int journal_fd;
    int blobs_fd;
    int lock_fd;
    pthread_mutex_t mutex; /* readers of layout on other threads */
    struct layout *layout; /* changed only by the tip's thread, under mutex */
    struct tip *tip;       /* NULL: not started, or dropped */
    struct base base;      /* open while a first sync writes it */
};

/* Makes `next`, which it takes over, the layout: durable, or nothing changed. */
bool replica_commit(struct replica *r, struct layout *next, struct error **err);

/* Starts the tip if it is not. */
bool replica_need_tip(struct replica *r, struct error **err);
void replica_drop_tip(struct replica *r);

/* Waits for all writes and makes them durable; drops the tip when it fails. */
bool replica_flush(struct replica *r, struct error **err);

/* The ops match, seal and reset; seal must not be called with a journal half applied. */
bool replica_match(struct replica *r, const struct store_disk *disks, size_t n_disks,
                   struct error **err);
bool replica_seal(struct replica *r, struct error **err);
bool replica_reset(struct replica *r, struct error **err);

/* Makes the first layer of a disk and adds it to `next`; not yet committed. */
bool replica_add_disk(int fd, struct layout *next, const struct store_disk *disk,
                      struct error **err);

#endif
