/*
 * Readiness: could this VM be failed over now? Asked all the time, not at the failover.
 *
 * A job of its own looks each [readiness] interval at each replication, and sooner when
 * it is woken: the target at what it has for the replica (readiness_target.c), the source
 * at what only it can see (readiness_source.c), both at themselves (readiness_host.c). A
 * finding is {check, state, text, fix}; state is ok, warning, failed or not-done; fix is
 * a sentence. What is not ok goes to the other host with each contact, so both know all.
 *
 * The same job tells of operators' overrides of the guard, also of those that were
 * given while virtdrd was down. Nothing is stored: a start looks anew. Any thread, unless
 * said otherwise; no function takes r->lock unless it says so.
 */
#ifndef DAEMON_READINESS_H
#define DAEMON_READINESS_H

#include <json-c/json.h>

#include "daemon/daemon.h"
#include "daemon/op.h"
#include "daemon/replication.h"

enum readiness_level {
    READINESS_UNKNOWN = -1,
    READINESS_READY,
    READINESS_WARNING,
    READINESS_FAILED,
};

struct readiness;

/* Loop thread, these. Without a base in d it has no timer, for tests. */
struct readiness *readiness_new(struct daemon *d);
void readiness_start(struct readiness *rd);
void readiness_stop(struct readiness *rd);
void readiness_free(struct readiness *rd); /* after the workers have ended */

/* Something has changed: all is looked at anew, soon. */
void readiness_wake(struct readiness *rd);

/* Looks at all that is due, or at all; a worker. */
void readiness_pass(struct readiness *rd, bool all);

/* For the contact, NULL: not known yet; and what the other side has said. */
struct json_object *readiness_say(struct daemon *d, const struct replication *r);
void readiness_hear(struct daemon *d, struct replication *r, struct json_object *said);

/* {level, state, time, findings[{..., host: "here"|"peer"}]}; the caller's to put. */
struct json_object *readiness_view(struct daemon *d, const struct replication *r);

/* For the health: the sentences of what is not ready, or NULL; *ret_level. */
char *readiness_text(struct daemon *d, const struct replication *r,
                     enum readiness_level *ret_level);

/* What holds of an operator's word about the VM, for the health; NULL: none. */
char *readiness_override_text(struct daemon *d, const struct replication *r);

/* A task that needs it says what is not ready, and goes on. */
void readiness_warn(struct op *op, const struct replication *r);

/* --- for the groups of checks ------------------------------------------------------ */

void readiness_ok(struct json_object *findings, const char *check, const char *format,
                  ...) PRINTF(3, 4);
/* state: "warning", "failed", "not-done". fix is borrowed. */
void readiness_find(struct json_object *findings, const char *check, const char *state,
                    const char *text, const char *fix);

void readiness_check_host(struct daemon *d, struct replication *r,
                          struct json_object *findings);
void readiness_check_source(struct daemon *d, struct replication *r,
                            struct json_object *findings);
void readiness_check_target(struct daemon *d, struct replication *r,
                            struct json_object *findings);

#endif
