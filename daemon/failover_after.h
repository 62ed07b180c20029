/*
 * What a failover leaves to be done later: r->failover, stored with the replication,
 *
 *     {auto: {action ("commit", "undo"), at (wall clock, ms)},
 *      addresses: [{network, mac, ip, ours}],
 *      reverse: true}
 *
 * each of them may be absent. The automatic end is started once it is due, as a task of
 * its own, and again each minute while that fails; commit and undo take it away. The
 * addresses are reservations of this host's libvirt networks: those that are ours go with
 * the failover. A VM that was committed at its home is replicated from there again by
 * itself ("reverse") when its disks are one image each, or when that has to wait.
 * Workers.
 */
#ifndef DAEMON_FAILOVER_AFTER_H
#define DAEMON_FAILOVER_AFTER_H

#include "daemon/daemon.h"
#include "daemon/op.h"
#include "daemon/replication.h"

#define FAILOVER_AFTER_MIN_MS (60 * 1000)
#define FAILOVER_AFTER_MAX_MS (30ll * 24 * 3600 * 1000)

/* {action, after (ms)}; NULL: the operator decides. Under r->lock; the caller stores. */
void failover_after_begin(struct replication *r, struct json_object *wanted);

/* The same while it is failed over, at once and durable. */
bool failover_after_set(struct daemon *d, struct replication *r,
                        struct json_object *wanted, struct error **err);

/* Starts what is due; called every second. */
void failover_after_look(struct daemon *d, struct replication *r);

/* Made final: there is no automatic end any more. Under r->lock; the caller stores. */
void failover_after_commit(struct replication *r, bool reverse);

/* Is it to be reversed by itself? Under r->lock. */
bool failover_after_reverses(const struct replication *r);

/* The peer was heard of: begins that if it is time. */
void failover_after_hear(struct daemon *d, struct replication *r);

/* Takes back the addresses that are ours: the VM does not run here any more. */
bool failover_after_release(struct daemon *d, struct replication *r, struct error **err);

/* Only them, for a source whose VM has them: it takes them back when the VM leaves. NULL:
   there are none. Under r->lock; the caller's to put. */
struct json_object *failover_after_addresses(const struct replication *r);

#endif
