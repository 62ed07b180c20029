/* What tasks.c and op.c share. */
#ifndef DAEMON_TASKS_PRIVATE_H
#define DAEMON_TASKS_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "daemon/tasks.h"

/*
 * One task. `doc` is what the API shows and what is stored, with the op's data
 * in its member "data"; both are only touched under the registry's lock, but for
 * op.data and op.result, which are the worker's until the next store().
 */
struct task {
    struct tasks *owner;
    struct task *next;
    char *id;
    struct json_object *doc;
    struct op op;
    bool running;
    bool waits;       /* loaded as running, until tasks_resume() */
    uint64_t version; /* goes up with each change, for tasks_wait() */
    int64_t transfer_started_ms;
};

struct tasks {
    struct tasks_settings settings;
    char *site;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct task *all; /* the newest first */
    size_t n_all;
    bool loaded;
    atomic_bool stopping;
};

/* It has changed: whoever waits looks again. Under the registry's lock. */
void tasks_touch(struct task *task);

/* The i-th step as the document has it: {name, state, ms}; borrowed. */
struct json_object *tasks_step(struct task *task, size_t i);
bool tasks_step_is(struct task *task, size_t i, const char *state);

#endif
