/*
 * The steps that throw a failover away: undo puts them into its table, in this order, and
 * a planned failover that fails goes through them. Each may run twice, and works on the
 * replication of op->resource_id; called by the engine, on a step's worker.
 */
#ifndef DAEMON_UNDO_STEPS_H
#define DAEMON_UNDO_STEPS_H

#include "daemon/op.h"

/* Leaves: epoch, of the failover, which all others need. */
bool undo_check(struct op *op, struct error **err);

/* The VM does not start here any more, and the phase is 'undoing': both durable. */
bool undo_forbid_start(struct op *op, struct error **err);

/* It is stopped at once, and not defined here any more; at its home as it was there. */
bool undo_remove_domain(struct op *op, struct error **err);

/* What the failover has put into the replica's folder goes. */
bool undo_remove_images(struct op *op, struct error **err);

/* A replica again, with the next epoch: from here on the VM is the source's (I3). */
bool undo_give_back(struct op *op, struct error **err);

#endif
