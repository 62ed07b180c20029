/*
 * A VM that comes back to a host where it has run: at its home, or where it was failed
 * over to before. It has a definition of its own here (replication.formerly, reversal.h).
 *
 * A failover to it defines the VM as it was here, with what the operator has changed on
 * the other host since; undoing that gives this host's own definition back. Any worker.
 */
#ifndef DAEMON_HOMECOMING_H
#define DAEMON_HOMECOMING_H

#include "daemon/op.h"
#include "daemon/replication.h"

/* Has it run here, and is it known how it was defined? */
bool homecoming_is(struct replication *r);

/*
 * xml: as the VM's other host has it. *ret: what is to be adapted to the images here,
 * NULL if that is xml itself; the caller frees it.
 */
bool homecoming_definition(struct op *op, struct replication *r, const char *xml,
                           char **ret, struct error **err);

/* In place of removing the domain: it is off, and as it was. */
bool homecoming_restore(struct daemon *d, struct replication *r, struct error **err);

#endif
