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
#include "daemon/replication.h"

enum failover_source {
    SOURCE_OFF, /* it answers, and does not run the VM */
    SOURCE_RUNS,
    SOURCE_DEPARTED, /* it cannot say which host does */
    SOURCE_UNCLEAR,  /* it answers nonsense, or does not know the replication any more */
    SOURCE_SILENT,
};

/* What the source does with the VM; *ret (or NULL): its answer, NULL if it gave none. */
enum failover_source
failover_ask_source(struct op *op, struct replication *r, struct json_object **ret);

/*
 * Needs: select (point_select.h; absent: the newest). Leaves: started (wall clock, ms, of
 * the first run), point, sequence, time (of the point, ms), contact (when the source was
 * last heard of). Retention does not let the point go until failover_ended().
 */
bool failover_choose_point(struct op *op, struct error **err);

/*
 * Needs: shutdown ("refuse", "leave", "graceful", "force"). Leaves: checked (when), off
 * (it answers and does not run the VM), stop (the next step shall shut it down).
 * ERROR_SOURCE_ALIVE if the source runs the VM, or cannot say, unless that is allowed.
 */
bool failover_check_source(struct op *op, struct error **err);

/* Needs: stop, and then what failover_prepare_source() needs. Its undo is
   failover_release_source(). */
bool failover_stop_source(struct op *op, struct error **err);

/*
 * The source shuts the VM down and locks it (prepare.h). Needs: shutdown ("graceful",
 * "force"), timeout (ms), delta ("must", "try"). Leaves: stopped, finalPoint (the name of
 * its newest point, which is here). ERROR_SHUTDOWN: the guest did not.
 */
bool failover_prepare_source(struct op *op, struct error **err);

/* Is it prepared for this task still? Leaves: checked. */
bool failover_check_prepared(struct op *op, struct error **err);

/* Undo: the source takes the VM back, and starts it if it ran. */
bool failover_release_source(struct op *op, struct error **err);

/*
 * Needs: off, stopped; fence (false: the operator does without). Leaves: fenced, checked.
 * Runs [fence] command unless the source itself says that the VM does not run there.
 * ERROR_FENCE.
 */
bool failover_fence(struct op *op, struct error **err);

/*
 * Needs: checked, select. Leaves: epoch. The phase is 'failing-over' and the guard lets
 * the VM start here: durable, before anything is started (I3). Whoever works on the
 * replication has been stopped.
 */
bool failover_raise_epoch(struct op *op, struct error **err);

/* Needs: epoch, sequence. Leaves: paths[{target, path}], xml (as the source had it),
   record (what the images record by from now on; divergence.h). */
bool failover_make_overlay(struct op *op, struct error **err);

/* Needs: epoch, paths, xml; networks ({there: here}, over the configured ones). Leaves:
   report[], sentences on what was changed; defined, the XML as it is here then. */
bool failover_define_domain(struct op *op, struct error **err);

/* Needs: addresses[{mac, ip}], that the libvirt networks here are to give the VM. What is
   reserved is noted in the replication first, and undone with the failover. */
bool failover_set_addresses(struct op *op, struct error **err);

/* Needs: start (false: it stays off). Leaves: running (wall clock, ms). */
bool failover_start_domain(struct op *op, struct error **err);

/* Needs all of these, and auto ({action, after}: failover_after.h). The phase is
 * 'failed-over', op->result is filled. */
bool failover_record(struct op *op, struct error **err);

/* For the op_kind: lets go of the point. */
void failover_ended(struct op *op, const struct error *failure);

#endif
