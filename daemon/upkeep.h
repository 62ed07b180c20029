/*
 * Upkeep of replicas: what is done on the target beside receiving.
 *
 * Seals marks when they are due, lets points go that retention does not keep,
 * merges layers that nobody needs, makes checksums, watches the space, starts
 * scrubs on their schedule. Low space first shortens the short-term windows,
 * then stops what comes in, each with an event; it never breaks a point.
 *
 * One timer on the loop; the work runs on d->upkeeps, one job for a replica at
 * a time.
 */
#ifndef DAEMON_UPKEEP_H
#define DAEMON_UPKEEP_H

#include "daemon/daemon.h"
#include "daemon/replication.h"
#include "drivers/store.h"

/* So long there was enough space when windows that were cut count as whole again. */
#define UPKEEP_SETTLED_MS (10 * 60 * 1000)

struct upkeep;

/* Loop thread. Nothing begins before upkeep_start(). */
struct upkeep *upkeep_new(struct daemon *d);
void upkeep_start(struct upkeep *u);

/* Asks what runs to stop. upkeep_free() after the workers have ended. */
void upkeep_stop(struct upkeep *u);
void upkeep_free(struct upkeep *u);

/* What is due for a replica now, of all of the above; a worker, one at a time for each.
 */
void upkeep_pass(struct upkeep *u, struct replication *r);

/*
 * After seq was applied: makes a mark of it if it is time for one, or if it
 * is the first point of a slot of a retention rule. Under replica_lock_tip().
 */
bool upkeep_seal_if_due(struct daemon *d, struct replication *r, struct store *store,
                        uint64_t seq, struct error **err);

/* One pass of retention, now: after settings or pins were changed. */
bool upkeep_retain(struct daemon *d, struct replication *r, struct error **err);

#endif
