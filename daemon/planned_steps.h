/*
 * The steps of a planned failover that are its own (ops_planned.c), for failback too.
 * Beside those of failover_steps.h, in this order; called by the engine.
 */
#ifndef DAEMON_PLANNED_STEPS_H
#define DAEMON_PLANNED_STEPS_H

#include "daemon/op.h"

/* Leaves: started, delta. Could the VM come here now? Nothing has been changed yet. */
bool planned_check(struct op *op, struct error **err);

/* Needs: finalPoint. The newest one here, which has to be the source's last. */
bool planned_choose_final(struct op *op, struct error **err);

/* Leaves: epoch. Its undo gives the VM back, with all that the steps behind it did. */
bool planned_raise_epoch(struct op *op, struct error **err);
bool planned_give_back(struct op *op, struct error **err);

#endif
