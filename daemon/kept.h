/*
 * What a target keeps of a VM that ran here and lost a split brain: the images of its
 * failover, as a recovery point of its own that can be exported and cloned.
 *
 * Such a point is no cycle's: it has a name, `unreplicated-TIME`, and no sequence; no
 * rule looks at it, and it goes when it is unpinned, or with the replica. It is in the
 * replication's document (`kept`), and its images are an overlay of the store. A worker.
 */
#ifndef DAEMON_KEPT_H
#define DAEMON_KEPT_H

#include <json-c/json.h>

#include "daemon/daemon.h"
#include "daemon/replication.h"

#define KEPT_PREFIX "unreplicated-"

/* What the point of a failover that ended at time_ms is called; the caller frees. */
char *kept_name(int64_t time_ms);

/* The overlay that its images become; the caller frees. */
char *kept_overlay(uint64_t epoch);

/* Adds it; the caller stores the replication. Under r->lock. */
void
kept_add(struct replication *r, const char *name, const char *overlay, int64_t time_ms);

/* As the API shows points, and with `overlay`; the caller puts it. NULL: none of that
   name. Takes r->lock. */
struct json_object *kept_find(struct replication *r, const char *name);

/* The same of all, into items. Takes r->lock. */
void kept_list(struct replication *r, struct json_object *items);

/* ERROR_INVALID_STATE, and what to do with them: a change of direction would lose them,
   and only a commit may. Takes r->lock. */
bool kept_check_none(struct replication *r, struct error **err);

/* A commit drops them: their names, the caller's to put; the caller stores r, and its
   store goes with them. Under r->lock. */
struct json_object *kept_drop_all(struct replication *r);

/* Removes it with its images. ERROR_INVALID_STATE: an export or a clone stands on it. */
bool kept_remove(struct daemon *d, struct replication *r, const char *name,
                 struct error **err);

#endif
