/*
 * Points that are consistent for applications: when one is due, and what becomes of it
 * when the agent in the guest cannot do its part.
 *
 * Settings and the time of the last one are stored with the replication. After a failure
 * the points go on as crash-consistent ones and the next try waits: 1 min, doubling to
 * 4 h, from the third failure in a row on the VM counts as quarantined. Under r->lock,
 * unless said otherwise.
 */
#ifndef DAEMON_CONSISTENCY_H
#define DAEMON_CONSISTENCY_H

#include <json-c/json.h>

#include "daemon/daemon.h"
#include "daemon/freeze.h"
#include "daemon/replication.h"

/* {everyCycles, everyTime}: at most one of them is not 0. ERROR_USAGE. */
bool
consistency_parse(struct json_object *o, struct consistency *ret, struct error **err);

/*
 * Can the VM ever have such points? An agent that does not run now may run later, but a
 * channel for it does not come by itself. ERROR_AGENT. Any thread.
 */
bool consistency_check_domain(const struct hv_domain *domain, struct error **err);

/* The settings; of a source also {lastTime, failures, nextTry, reason}. */
struct json_object *consistency_json(const struct replication *r);

/* As stored. */
struct json_object *consistency_to_doc(const struct consistency *c);
void consistency_from_doc(struct json_object *o, struct consistency *ret);

/* Shall the next point be one? */
bool consistency_is_due(const struct replication *r, int64_t now_ms);

/* A sentence if points that are due cannot be made; NULL: all is well. The caller frees.
 */
char *consistency_complaint(const struct replication *r);

/* A point was acknowledged. */
void consistency_point_made(struct replication *r, int64_t time_ms, bool consistent);

/*
 * Freezes the guest, without r->lock. False: it could not be done, which has been noted
 * and told; the point is made without. After true, consistency_end() thaws it and
 * returns whether what was captured meanwhile is consistent.
 */
bool consistency_begin(struct daemon *d, struct replication *r, struct freeze **ret);
bool consistency_end(struct daemon *d, struct replication *r, struct freeze *z);

#endif
