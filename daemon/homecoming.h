/*
 * A VM at its home, while that is the target: it has a definition of its own here, from
 * the time when it ran here (replication.formerly, reversal.h).
 *
 * A failover to it defines the VM as it was at home, with what the operator has changed
 * on the other host since; undoing that gives the home's own definition back. Any worker.
 */
#ifndef DAEMON_HOMECOMING_H
#define DAEMON_HOMECOMING_H

#include "daemon/op.h"
#include "daemon/replication.h"

/* Is this host its home, and is its own definition known? */
bool homecoming_is(struct daemon *d, struct replication *r);

/*
 * xml: as the VM's other host has it. *ret: what is to be adapted to the images here,
 * NULL if that is xml itself; the caller frees it.
 */
bool homecoming_definition(struct op *op, struct replication *r, const char *xml,
                           char **ret, struct error **err);

/* In place of removing the domain: it is off, and as it was. */
bool homecoming_restore(struct daemon *d, struct replication *r, struct error **err);

#endif
