/*
 * The source's part in a failover that it can still take part in.
 *
 * The target asks this host to prepare: the guard refuses the VM a start here, the guest
 * is shut down, what it wrote last is sent, and the phase becomes 'prepared'
 * (ops_prepare.c). It goes back from there only if the target says that its task is over
 * and did not take the VM (ops_abandon.c), or if the operator overrides that; a VM that
 * ran before is started again then. r->prepare:
 *
 *     {id, state, ran, point, sequence, host, error}
 *
 * id is that of the target's task; state is preparing, prepared or failed. Workers.
 */
#ifndef DAEMON_PREPARE_H
#define DAEMON_PREPARE_H

#include "daemon/daemon.h"
#include "daemon/op.h"
#include "daemon/replication.h"

#define PREPARE_MIN_TIMEOUT_MS     1000
#define PREPARE_MAX_TIMEOUT_MS     (3600 * 1000)
#define PREPARE_DEFAULT_TIMEOUT_MS (120 * 1000)

/*
 * The target asks, and asks again until it has an answer: {id, epoch, shutdown (graceful,
 * force), timeout (ms, for the guest), delta (must, try)}. *ret: prepare_view().
 */
bool prepare_ask(struct daemon *d, struct replication *r, struct json_object *body,
                 struct json_object **ret, struct error **err);

/* As above; its state is "none" if nothing was prepared for that id. */
struct json_object *prepare_view(struct replication *r, const char *id);

/*
 * The target says that its task `id` has come to nothing, and which epoch holds now. What
 * runs is cancelled, what is prepared is given up; *ret: prepare_view().
 */
bool prepare_release(struct daemon *d, struct replication *r, const char *id,
                     uint64_t epoch, struct json_object **ret, struct error **err);

/*
 * What the target said in a contact: is this source prepared, or was it taken over, for a
 * task that is over there, with a replica that is one again? Then it is given up, after
 * the target was asked once more.
 */
bool prepare_hear(struct daemon *d, struct replication *r, struct json_object *said);

/* The VM may run here again, under this epoch or a newer one of ours. Under r->lock. */
bool prepare_take_back(struct daemon *d, struct replication *r, uint64_t epoch,
                       struct error **err);

/* Starts the VM if data.ran says that it ran. */
bool prepare_start_again(struct op *op, struct replication *r, struct error **err);

#endif
