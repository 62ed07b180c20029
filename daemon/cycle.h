/*
 * The source's side of a cycle: capture a point in time, ship what changed,
 * have it acknowledged as durable, and only then forget the point before (I1).
 *
 * Blocks; on a cycle worker (or a step's worker for a cycle that somebody asked
 * for). The caller has claimed the replication. One call does one exchange: a
 * slice of the first sync, or a delta, or the news that nothing changed.
 *
 * Order of writes, so that a crash after any instruction loses nothing:
 *   1. the new point's name is stored as pending
 *   2. the capture begins under that name
 *   3. the target acknowledges it as durable
 *   4. it is stored as the newest; the one before becomes stale
 *   5. the capture forgets the stale one
 * After a crash between 1 and 4 the next cycle asks the target which of the two
 * it has (the exchange "query") and goes on from there.
 */
#ifndef DAEMON_CYCLE_H
#define DAEMON_CYCLE_H

#include "daemon/daemon.h"
#include "daemon/replication.h"

/* *ret_more: there is another slice to do at once. r->error is not touched. */
bool cycle_run(struct daemon *d, struct replication *r, struct cancel *cancel,
               bool *ret_more, struct error **err);

/*
 * What the source has recorded is of no use, or not trusted: the next cycles bring the
 * target in line, by comparing if they can; points there stay. Under r->lock, claimed;
 * the caller stores it.
 */
void cycle_start_over(struct daemon *d, struct replication *r, const char *why);

/*
 * Ends a capture of ours that is open yet, because virtdrd or libvirtd was killed. Nobody
 * else works on r: at start, or claimed.
 */
void cycle_recover(struct daemon *d, struct replication *r);

/*
 * Ends what is open and forgets all points of the VM that captures know by our names;
 * what could not be forgotten is in r->stale.
 */
bool cycle_forget_all(struct daemon *d, struct replication *r, struct error **err);

/* One of them. A VM that changed over from one driver to the other has some of both. */
bool cycle_forget_name(struct daemon *d, const char *vm_uuid, bool used_bitmaps,
                       const char *name, struct error **err);

/*
 * A definition that stays behind must be removable: libvirt refuses while it believes
 * that it has checkpoints. It forgets these names; what is in the images stays.
 */
void cycle_disown(struct daemon *d, struct replication *r, struct json_object *names);

/*
 * Drops all that is recorded for the VM under names of ours, also by captures that
 * nobody remembers, and begins anew, but not before held_until_ms. Claimed. *ret_n: how
 * many records there were.
 */
bool cycle_release(struct daemon *d, struct replication *r, int64_t held_until_ms,
                   size_t *ret_n, struct error **err);

#endif
