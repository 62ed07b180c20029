/* What replica.c and replica_serve.c share. */
#ifndef DAEMON_REPLICA_PRIVATE_H
#define DAEMON_REPLICA_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "common/cancel.h"
#include "daemon/exchange.h"
#include "daemon/replica.h"

/* What low space has led to. */
enum replica_room {
    ROOM_ENOUGH,
    ROOM_SHORT, /* the short-term window is cut */
    ROOM_NONE,  /* nothing is left to cut: deltas are refused */
};

struct replica_hold {
    const void *owner;
    uint64_t sequence;
};

/* Who uses the store has tip, keep, the layers or the replication's claim meanwhile:
   whoever closes it has taken them all. */
struct replica {
    pthread_mutex_t open; /* while store or points are being opened or closed */
    struct store *store;
    struct points *points;
    pthread_mutex_t tip;  /* who writes the tip */
    pthread_mutex_t keep; /* who decides which points stay; held ones do */
    struct replica_hold held[REPLICA_MAX_HOLDS];
    size_t n_held;
    atomic_bool applying;                       /* a job waits to apply */
    atomic_bool upkeeping;                      /* a job of the upkeep waits or runs */
    _Atomic uint64_t used_bytes, journal_bytes; /* as last seen */
    /* Under the replication's lock: */
    bool layers_taken; /* somebody folds, digests or scrubs */
    struct cancel *layers_user;
    pthread_cond_t layers_free;
    enum replica_room room;
    char *room_text; /* a sentence for users; NULL: there is enough */
    /* Of the upkeep's job alone: */
    int64_t retained_ms, looked_ms; /* monotonic */
    int64_t short_ms;               /* when there was too little space last */
};

/* Made when it is first asked for; lives as long as the replication. */
struct replica *replica_get(struct replication *r);

/*
 * A disk does not become smaller: what was acknowledged of it could not be applied. Said
 * before anything of it is taken. ERROR_UNSUPPORTED_DISK.
 */
bool replica_check_disks(struct store *store, const struct exchange_begin *begin,
                         struct error **err);

/* Gone, going, or a VM's own disks now: nobody works on the store beside that. */
bool replica_is_given_up(struct replication *r);

/*
 * For whoever folds, digests or scrubs, one at a time: he works under that cancel, by
 * which replica_close() stops him. try: false if somebody does it already.
 */
bool
replica_lock_layers(struct replication *r, struct cancel *cancel, struct error **err);
bool replica_try_layers(struct replication *r, struct cancel *cancel);
void replica_unlock_layers(struct replication *r);

#endif
