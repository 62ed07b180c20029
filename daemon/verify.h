/*
 * When a source verifies its replica by itself: [verify] interval after the last time.
 */
#ifndef DAEMON_VERIFY_H
#define DAEMON_VERIFY_H

#include "daemon/daemon.h"
#include "daemon/replication.h"

/* Starts the task if it is due. A cycle worker's; r is not locked. */
void verify_start_if_due(struct daemon *d, struct replication *r);

/* As the API shows the last one; NULL if there was none. Under r->lock. */
struct json_object *verify_view(const struct replication *r);

#endif
