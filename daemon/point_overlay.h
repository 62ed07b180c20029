/*
 * A recovery point's images, for operations that use it without a failover.
 *
 * Steps that several operations share (op.h). Their task is of a resource of
 * its own, so that it holds up nothing that is done with the replication; that
 * one is named in op->data: {replication, point: the choice, overlay: its id in
 * the store}. Findings: {chosen: the point as the API shows it, disks: [{target,
 * path}], xml}. The overlay keeps what it stands on, whatever retention says.
 */
#ifndef DAEMON_POINT_OVERLAY_H
#define DAEMON_POINT_OVERLAY_H

#include "daemon/op.h"
#include "daemon/replication.h"

/* The point must be there, and the replication allow op->kind->name. It is held until
   point_overlay_release(), which the operation's ended() calls. */
bool point_overlay_choose(struct op *op, struct error **err);
void point_overlay_release(struct op *op);

bool point_overlay_make(struct op *op, struct error **err);

/* Also as undo; true if there is none, or the replica itself is gone. */
bool point_overlay_remove(struct op *op, struct error **err);

/* A blob of the point ("nvram"); *ret_data is the caller's. ERROR_POINT_NOT_FOUND. */
bool point_overlay_blob(struct op *op, const char *name, char **ret_data,
                        size_t *ret_length, struct error **err);

/* As point_overlay_remove(), outside of an operation. */
bool point_overlay_drop(struct daemon *d, const char *replication, const char *overlay,
                        struct error **err);

/*
 * ERROR_INVALID_STATE if the store has overlays that these operations make, and
 * that `is_known` does not know: an operation is at work on them.
 */
bool point_overlay_check_unused(struct daemon *d, struct replication *r,
                                bool (*is_known)(const char *overlay, void *opaque),
                                void *opaque, struct error **err);

#endif
