/* What the guard shall know of a VM that this host is the source of. */
#ifndef DAEMON_GUARD_SOURCE_H
#define DAEMON_GUARD_SOURCE_H

#include "daemon/daemon.h"
#include "daemon/replication.h"

/* It may run here under r->epoch, which the other side has confirmed just now. Durable.
 */
bool guard_source(struct daemon *d, const struct replication *r, struct error **err);

/* What the configuration wants of it while that peer has not confirmed the epoch. */
enum guard_policy guard_source_policy(struct daemon *d, const char *peer_id);

/* What the configuration wants has changed: the record follows, if the VM may run here.
 */
bool guard_source_follow(struct daemon *d, struct replication *r, struct error **err);

#endif
