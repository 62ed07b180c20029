/*
 * Following what virtdrd does: tasks by long polls, a first sync by looking.
 *
 * virtdrd may be restarted meanwhile; tasks survive that, so that a broken
 * connection is tried again for WAIT_AWAY_MS before it is an error. SIGINT ends
 * the command, not the task.
 */
#ifndef CLIENT_WAIT_H
#define CLIENT_WAIT_H

#include "client/session.h"

#define WAIT_AWAY_MS 30000 /* how long virtdrd may be gone */

/*
 * Follows the task of that id until it has ended; *ret_task is how it ended,
 * whatever that was (see wait_verdict()).
 */
bool wait_task(struct session *s, const char *id, struct json_object **ret_task,
               struct error **err);

/* True for a task that succeeded; else its error. Prints its warnings. */
bool wait_verdict(struct json_object *task, struct error **err);

/* Follows a replication until it has left "initial-sync"; *ret is what it is then. */
bool wait_first_sync(struct session *s, const char *replication, struct json_object **ret,
                     struct error **err);

#endif
