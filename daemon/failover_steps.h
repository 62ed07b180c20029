/*
 * The steps that bring a VM up on its replica's host. failover, planned failover and
 * failback put them into their tables, in this order; each works on the replication of
 * op->resource_id, reads op->data and leaves its findings there.
 *
 * Each may run twice: it looks first whether its work is done. Called by the engine, on a
 * step's worker.
 */
#ifndef DAEMON_FAILOVER_STEPS_H
#define DAEMON_FAILOVER_STEPS_H

#include "daemon/op.h"

/*
 * Needs: select (point_select.h; absent: the newest). Leaves: started (wall clock, ms, of
 * the first run), point, sequence, time (of the point, ms), contact (when the source was
 * last heard of). Retention does not let the point go until failover_ended().
 */
bool failover_choose_point(struct op *op, struct error **err);

/*
 * Needs: force. Leaves: checked (when). ERROR_SOURCE_ALIVE if the source answers and runs
 * the VM, or cannot say, unless forced.
 */
bool failover_check_source(struct op *op, struct error **err);

/*
 * Needs: checked, select. Leaves: epoch. The phase is 'failing-over' and the guard lets
 * the VM start here: durable, before anything is started (I3). Whoever works on the
 * replication has been stopped.
 */
bool failover_raise_epoch(struct op *op, struct error **err);

/* Needs: epoch, sequence. Leaves: paths[{target, path}], xml (as the source had it). */
bool failover_make_overlay(struct op *op, struct error **err);

/* Needs: epoch, paths, xml. Leaves: report[], sentences on what was changed. */
bool failover_define_domain(struct op *op, struct error **err);

/* Leaves: running (wall clock, ms). */
bool failover_start_domain(struct op *op, struct error **err);

/* Needs all of these. The phase is 'failed-over', op->result is filled. */
bool failover_record(struct op *op, struct error **err);

/* For the op_kind: lets go of the point. */
void failover_ended(struct op *op, const struct error *failure);

#endif
