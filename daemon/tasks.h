/*
 * Tasks: operations under way and done, stored before and after each step (I5).
 *
 * Owns the task documents (kind "task") and runs them on the task workers. The
 * registry may be used from any thread. One exclusive task at a time for each
 * resource (op.h).
 * After a restart tasks_resume() goes on with what was under way.
 */
#ifndef DAEMON_TASKS_H
#define DAEMON_TASKS_H

#include <json-c/json.h>
#include <stdint.h>

#include "common/error.h"
#include "daemon/op.h"
#include "daemon/workers.h"
#include "drivers/state.h"

#define TASKS_KEPT 1000 /* ended ones; older ones are forgotten */

struct tasks;

struct tasks_settings {
    struct daemon *daemon; /* handed to the steps */
    struct state *state;
    struct workers *workers; /* for exclusive operations */
    struct workers
        *background; /* for those beside them, which take long; NULL: the same */
    const struct op_kind *const *kinds; /* ends with NULL */
    const char *site;                   /* shown in each task */
    /* Told of every start and end; any thread; may be NULL. */
    void (*changed)(struct json_object *task, void *opaque);
    void *opaque;
};

struct tasks_request {
    const char *kind;          /* an op_kind's name */
    const char *resource_id;   /* of the replication */
    const char *resource_name; /* the VM's name */
    const char *resource_type; /* NULL: "replication" */
    const char *user;
    struct json_object *data; /* arguments; a reference is taken */
};

bool
tasks_new(const struct tasks_settings *settings, struct tasks **ret, struct error **err);

/* Asks what runs to stop where it stands, without an end: it goes on at the next start.
 */
void tasks_stop(struct tasks *t);

/* After tasks_stop() and the end of the workers. */
void tasks_free(struct tasks *t);
DEFINE_AUTOPTR(tasks);

/*
 * What is stored is known from now on, and what was under way when the daemon
 * stopped holds its resource. Once, before anybody can ask for a task.
 */
bool tasks_load(struct tasks *t, struct error **err);

/* Runs again what was under way. Once, at start; loads if that was not done. */
bool tasks_resume(struct tasks *t, struct error **err);

/*
 * Stores the task and submits it; *ret is its JSON, the caller's to put.
 * ERROR_IN_PROGRESS (naming the other task) if one is in the way.
 */
bool tasks_start(struct tasks *t, const struct tasks_request *request,
                 struct json_object **ret, struct error **err);

/* As the API shows it; the caller's to put. ERROR_TASK_NOT_FOUND. */
bool
tasks_get(struct tasks *t, const char *id, struct json_object **ret, struct error **err);

/* As tasks_get(), once it changed or has ended, or after timeout_ms. */
bool tasks_wait(struct tasks *t, const char *id, int timeout_ms, struct json_object **ret,
                struct error **err);

/* An array, the newest first, at most `limit`. */
bool
tasks_list(struct tasks *t, size_t limit, struct json_object **ret, struct error **err);

/* ERROR_INVALID_STATE if it has ended or has committed. */
bool tasks_cancel(struct tasks *t, const char *id, struct json_object **ret,
                  struct error **err);

/* The exclusive task that runs for it: its id, the caller's to free; NULL if none does.
 */
char *tasks_exclusive(struct tasks *t, const char *resource_id);

/* Is there an operation of this name? */
bool tasks_knows(struct tasks *t, const char *kind);

/* Is a task running that an exclusive one would have to wait for? */
bool tasks_busy(struct tasks *t, const char *resource_id);

#endif
