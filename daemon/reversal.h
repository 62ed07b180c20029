/*
 * A replication changes its direction: the host that a VM was failed over to becomes its
 * source, and the one that it came from, or another one, the target.
 *
 * Same id, both documents change side. The new source goes first (ops_reverse.c): its
 * epoch rises, and it is 'reversing' until the other side has become the target; that is
 * asked for again whenever it answers, so a crash at any place comes to the same end. The
 * old source is superseded all the while and never starts the VM; a target that has no
 * point yet cannot take it over. So at each moment one host may run it (I3).
 *
 * What a host had set on the side that it leaves is kept in replication.formerly
 * {excluded, consistency, bandwidth, targetStorage; retention, storage; xml, autostart,
 * defined; folders} for the time when it comes back to it. replication.fork says of a VM
 * that was failed over from which point it came, and how it was defined then (XML). Any
 * worker thread.
 */
#ifndef DAEMON_REVERSAL_H
#define DAEMON_REVERSAL_H

#include <json-c/json.h>

#include "daemon/daemon.h"
#include "daemon/op.h"
#include "daemon/replica.h"
#include "daemon/replication.h"

/* Is the target the host that the VM was protected on at first? Under r->lock. */
bool reversal_is_reversed(const struct replication *r, const char *host_id);

/* --- the new source ---------------------------------------------------------- */

struct reversal_plan {
    const char *peer;             /* id of the target to be */
    const char *vm_name;          /* as the VM is called now */
    const char *storage;          /* there; NULL: as before, or "default" */
    struct json_object *settings; /* of the old source, as its answer has them */
};

/*
 * What takes the place of this target, whose VM is here, under the next epoch. The
 * caller's reference. Under r->lock.
 */
bool reversal_new_source(const struct replication *r, const struct reversal_plan *plan,
                         struct replication **ret, struct error **err);

/*
 * All of "reverse" at the end of another operation, which has succeeded anyway: what
 * fails is a warning.
 */
bool reversal_follow(struct op *op, struct error **err);

/* The peer was heard of: one that has yet to become our target is asked again. */
void reversal_hear(struct daemon *d, struct replication *r);

/* --- the new target ------------------------------------------------------------ */

struct reversal_request {
    const struct replica_request *replica; /* peer_id: of the caller */
    const char *defined; /* the VM's XML there when it was failed over; NULL: unknown */
    struct json_object *fork; /* what is recorded there (divergence.h); NULL: nothing */
    bool check;               /* whether it could be, and change nothing */
};

/*
 * The caller is the source of this replication from now on, this host its target: true as
 * well if it was asked before. *ret: {excluded, consistency, bandwidth} of this host as
 * the source, and divergence (divergence_settle()); the caller's to put. ERROR_EPOCH,
 * ERROR_SOURCE_ALIVE (the VM runs here), ERROR_INVALID_STATE, and those of a new replica.
 */
bool reversal_accept(struct daemon *d, const struct reversal_request *request,
                     struct json_object **ret, struct error **err);

/* A replica is about to be removed: what its host has of the VM beside it is put into a
   state in which nobody starts it by mistake. */
bool reversal_retire(struct daemon *d, struct replication *r, struct error **err);

#endif
