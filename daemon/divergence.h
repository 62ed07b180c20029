/*
 * In what the disks of two hosts differ when a replication changes its direction, as far
 * as both have recorded it: then only that is read and sent, and nothing is compared.
 *
 * The images of a failed-over VM record what differs from the point that it forked from
 * (replication.fork {point, sequence, time, record, defined}; store_overlay.record). The
 * host that becomes the target knows what its old images are, measured by that point. It
 * is the last one that it has shipped, and
 * - the images have not changed since it was captured, with the VM off (a planned
 *   failover): they are that point; or
 * - the VM went on and was ended cleanly: its own record says where they differ from it.
 * Then the sync counts as complete under the fork's record, and the delta since that,
 * with those places, makes the first point. In any doubt the disks are compared (I1), and
 * why is told: resync.reason at the source.
 *
 * Any worker thread; functions of one replication need what they say.
 */
#ifndef DAEMON_DIVERGENCE_H
#define DAEMON_DIVERGENCE_H

#include <json-c/json.h>

#include "daemon/cycle_private.h"

/* --- the host of the failed-over VM, which becomes the source ----------------------- */

/* What the images of the failover under this epoch record by; unique for ever. */
void divergence_name_record(const struct replication *r, uint64_t epoch,
                            char ret[CAPTURE_NAME_MAX + 1]);

/* What the target to be is told: {point, record}; NULL: nothing is recorded. Under
   r->lock; the caller's. */
struct json_object *divergence_ask(const struct replication *r);

/*
 * Its answer (divergence_settle(), or NULL): n goes on from the record, or compares. The
 * disks are those that were told. Under n->lock; the caller stores it.
 */
void divergence_take(struct replication *n, struct json_object *answer,
                     struct json_object *disks);

/* Is the delta to come that goes on from the record? Under r->lock, or claimed. */
bool divergence_is_next(const struct replication *r);

/* It shall not, or did. Under r->lock. */
void divergence_drop(struct replication *r);

/*
 * Before that delta: is the record sound, and is what it holds for one exchange? If not
 * the sync starts over, stored. Errors: those that pass.
 */
bool divergence_begin(struct cycle *c, struct error **err);

/* In that delta: what the target's own images may have changed on this disk. */
bool divergence_read(struct cycle *c, size_t disk, const struct capture_sink *sink,
                     struct error **err);

/* --- the host that becomes the target -------------------------------------------------
 */

/*
 * What this host knows of its images when it leaves the source's side: formerly.left
 * {point, pending, record, captured, disks[{target, capacity, generation}], fork}. `fork`
 * is what it was told, or NULL. Under r->lock; the caller's.
 */
struct json_object *
divergence_leave(const struct replication *r, struct json_object *fork);

/*
 * The replica r stands on the old images, and nothing has come to it: judges them. If
 * they can be told from the fork's point by records alone its sync is complete under the
 * fork's record, durable. The answer is the caller's: {known, reason[, record, changed,
 * extents{TARGET: [offset, length, ...]}]}; again the same if it was asked before.
 */
struct json_object *divergence_settle(struct daemon *d, struct replication *r);

#endif
