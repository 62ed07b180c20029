/*
 * A replication as the API shows it: settings, state, health with its reasons.
 * Any thread; takes r->lock itself. The JSON is the caller's to put.
 */
#ifndef DAEMON_REPLICATION_VIEW_H
#define DAEMON_REPLICATION_VIEW_H

#include <json-c/json.h>

#include "daemon/daemon.h"
#include "daemon/replication.h"

struct json_object *replication_view(struct daemon *d, struct replication *r);

/* The word shown as "state" on that host: the phase, or "paused", "error", or "reversing"
   for a first sync that brings the VM's home in line. Under r->lock. */
const char *replication_view_state(const struct replication *r, const char *host_id);

#endif
