/*
 * The target's side: exchanges come in, points become durable, journals go
 * into the tip.
 *
 * A replica is the open store of a replication and who works on it. The way of
 * a delta: checked frames go into the journal; at END, under the replication's
 * lock, the epoch is compared once more, the journal made durable, the point
 * stored (I2), and only then ACK is sent. Applying happens afterwards on a
 * worker of its own. Whoever writes the tip holds replica_lock_tip().
 */
#ifndef DAEMON_REPLICA_H
#define DAEMON_REPLICA_H

#include "daemon/daemon.h"
#include "daemon/point_select.h"
#include "daemon/points.h"
#include "daemon/replication.h"
#include "daemon/stream.h"
#include "drivers/store.h"

#define REPLICA_MAX_WAITING 64 /* journals not yet applied; more are refused */
#define REPLICA_MAX_HOLDS   64 /* points in the hands of operations */

/* stream_serve_fn; opaque is the struct daemon. */
bool replica_serve(struct stream *s, const char *peer_id, void *opaque);

/*
 * Opens the store if it is not open, and reconciles it with what is stored:
 * journals that no point belongs to are dropped. *ret is borrowed, for as long as
 * replica_private.h says. ERROR_INVALID_STATE: it is being removed.
 */
bool replica_store(struct daemon *d, struct replication *r, struct store **ret,
                   struct error **err);

/* Applies all durable journals and seals marks; blocks. Needs no lock of the caller's. */
bool replica_apply(struct daemon *d, struct replication *r, struct cancel *cancel,
                   struct error **err);

/* Submits replica_apply() to its workers unless that is under way. */
void replica_apply_later(struct daemon *d, struct replication *r);

/* Makes the replica of a VM that a peer wants to protect: folder, disks, documents. */
struct replica_request {
    const char *replication;
    const char *vm_uuid;
    const char *vm_name;
    const char *peer_id;
    const char *storage;
    int64_t rpo_ms;
    const struct retention *retention; /* NULL: the default */
    struct store_disk *disks;
    size_t n_disks;
    uint64_t needed_bytes;    /* that the source's images take now */
    struct json_object *seed; /* what it is to begin with (seed.h); NULL: nothing */
    const char *user;         /* that the import's task names */
    uint64_t epoch;           /* of one that changes its direction; 0: it is new */
    const char *home;         /* the same: host that the VM is at home on; NULL */
};
bool replica_create(struct daemon *d, const struct replica_request *request,
                    struct error **err);

/* Its parts. May this peer have so much in that storage, and which is it? */
bool replica_check_room(struct daemon *d, const struct replica_request *request,
                        const struct config_storage **ret, struct error **err);
/* r is stored; what an earlier try has left in its folder goes. */
bool replica_make_store(struct daemon *d, struct replication *r,
                        const struct replica_request *request, struct error **err);
/* Nothing has come yet, so that it can be made again. */
bool replica_is_untouched(struct replication *r);

/* May this peer send to replicas in that storage? ERROR_FORBIDDEN, ERROR_PEER_NOT_FOUND.
 */
bool replica_check_source(struct daemon *d, const char *peer_id, const char *storage,
                          struct error **err);

/* Removes the replica's images, journals, documents. */
bool replica_remove(struct daemon *d, struct replication *r, struct error **err);

/* The guard's record of a replica: its VM does not start here. Under r->lock. */
bool
replica_forbid_start(struct daemon *d, const struct replication *r, struct error **err);

/*
 * Lets go of the store: at the daemon's end, at failover. Nobody receives any
 * more: the phase forbids it and the last claim has ended. A scrub or fold that
 * is under way is stopped.
 */
void replica_close(struct replication *r);

/* The same, and frees r->replica: with the last reference. */
void replica_free(struct replication *r);

/* Its recovery points; *ret is borrowed and lives as long as the replication. */
bool replica_points(struct daemon *d, struct replication *r, struct points **ret,
                    struct error **err);

/*
 * Chooses a point and keeps retention from letting it go, until the owner (any address
 * of his) releases it or holds another one, or the daemon ends. *ret is a copy,
 * point_clear() takes it back.
 */
bool replica_hold_point(struct daemon *d, struct replication *r, const void *owner,
                        const struct point_select *select, struct point *ret,
                        struct error **err);
void replica_release_point(struct replication *r, const void *owner);

/* Does the tip show no point, because of a resync or damage? Marks and journals do. */
bool replica_tip_is_broken(struct replication *r);

/* The newest disks are damaged: the source has to send them anew. Durable. */
void replica_set_damaged(struct daemon *d, struct replication *r, const char *why);

/* Held by whoever writes the tip or needs it to stand still. */
void replica_lock_tip(struct replication *r);
void replica_unlock_tip(struct replication *r);

#endif
