/*
 * Both hosts of a world at once, each with its tasks, and a network between them that is
 * a function call. A virtdrd dies at a commit of its own: from there on it changes
 * nothing, neither its state nor its hypervisor, and nobody hears it; then it is opened
 * again from what it has stored, while the other one has gone on.
 */
#ifndef TESTS_SIM_PAIR_H
#define TESTS_SIM_PAIR_H

#include "tests/sim/replicated.h"

enum pair_fate {
    PAIR_DIES_BEFORE, /* the commit is not made */
    PAIR_DIES_BEHIND, /* it is, and nothing that follows it */
};

struct pair_death {
    bool of_source;
    enum pair_fate fate;
    unsigned left; /* commits of that host until then; 0: it lives on */
    bool died;     /* out: it came to that */
};

/* A world with a VM that runs at its source and is replicated; *state is the world. */
int pair_setup(void **state);
int pair_teardown(void **state);

/* From now on one of the two is to die; NULL: none. Borrowed until the next call. */
void pair_let_die(struct pair_death *death);

/* Cuts the network between them, or mends it. */
void pair_cut(bool cut);

/* Starts a task at the target (or the source); data may be NULL. Its id, to be freed;
   NULL if that host died of it, and the task may be there all the same. */
char *
pair_start(struct world *w, bool at_source, const char *kind, struct json_object *data);

/*
 * Both go on, with contacts between them, the dead ones are opened again, until no task
 * runs and none has anything to tell the other.
 */
void pair_settle(struct world *w);

/* The state of a task that has ended, and its error's code; the caller's to put. */
struct json_object *pair_task(struct world *w, bool at_source, const char *id);

bool pair_runs(struct world *w, bool at_source);

/* It ended so; code 0: whatever its error is. */
void
pair_task_is(struct world *w, const char *id, const char *state, enum error_code code);

/* It runs at the target with all that the guest has ever written. */
void pair_has_moved(struct world *w, const struct world_model *m);

/* It runs at the source, is replicated, and the target has nothing left of it. */
void pair_is_back(struct world *w);

/* A target that dies while it takes a delta fails it; id NULL: it died of the asking. */
bool pair_came_back(struct world *w, const char *id);

/*
 * A scenario in a world of its own, again and again: each time that host dies at one more
 * of its commits, until there are no more. They must be more than there are steps.
 */
typedef void (*pair_scenario_fn)(struct world *w);
void pair_at_each_commit(pair_scenario_fn run, bool of_source, enum pair_fate fate,
                         size_t steps);

#endif
