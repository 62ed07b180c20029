/*
 * Both hosts of a world at once, each a whole virtdrd: source and target, with all
 * operations, and with a network between them that is a function call. A virtdrd dies at
 * a commit of its own: from there on it changes nothing, neither its state nor its
 * hypervisor, and nobody hears it; then it is opened again from what it has stored, while
 * the other one has gone on.
 *
 * A VM that starts from images that it has not run on before has their content
 * (world_host.capture). Where a virtdrd only waits, time is short.
 */
#ifndef TESTS_SIM_PAIR_H
#define TESTS_SIM_PAIR_H

#include "daemon/tasks.h"
#include "tests/sim/replicated.h"

/* A world with a VM that runs at its source and is replicated; *state is the world. */
int pair_setup(void **state);
int pair_teardown(void **state);

/* What is there now, to come back to as often as wanted; both were settled. */
void pair_keep(void);
void pair_restore(void);

/* A step of an operation: "failback start-domain". */
#define PAIR_STEP 96

/* The one of the task that this commit stores; "" if it stores none. */
void pair_step_of(const struct state_write *writes, size_t n, char ret_step[PAIR_STEP]);

/* From now on one of the two is to die at its n-th commit; or, whatever else is committed
   in between, at the first one that stores a task at that step (borrowed). */
void pair_let_die(bool source, enum fate fate, unsigned n);
void pair_let_die_at(bool source, enum fate fate, const char *step);

/* Has one died? What its task was at then. */
bool pair_has_died(char ret_step[PAIR_STEP]);

/* Cuts the network between them, or mends it; or cuts it for so many rounds. */
void pair_cut(bool cut);
void pair_cut_for(unsigned rounds);

/* Behind each commit of that host from now on, until it is opened again; NULL: no more.
 */
void pair_tell(bool source,
               void (*told)(struct fated *f, const struct state_write *writes, size_t n),
               void *opaque);

/* Starts a task at the target (or the source). Its id, to be freed; NULL if that host
   died of it, and the task may be there all the same. */
char *pair_ask(bool at_source, const struct tasks_request *request);

/* One of the replication; data may be NULL. */
char *
pair_start(struct world *w, bool at_source, const char *kind, struct json_object *data);

/*
 * Both go on, with contacts between them, and cycles while nothing was replicated yet;
 * the dead ones are opened again, until no task runs and none has anything to tell the
 * other.
 */
void pair_settle(struct world *w);

/* The state of a task that has ended, and its error's code; the caller's to put. */
struct json_object *pair_task(struct world *w, bool at_source, const char *id);

/* Asks for it, and settles; it must succeed. */
void pair_do(struct world *w, bool at_source, const struct tasks_request *request);

bool pair_runs(struct world *w, bool at_source);

/* It ended so; code 0: whatever its error is. */
void
pair_task_is(struct world *w, const char *id, const char *state, enum error_code code);

/* It runs at the target with all that the guest has ever written. */
void pair_has_moved(struct world *w, const struct world_model *m);

/* It runs at the source, is replicated, and the target has nothing left of it. */
void pair_is_back(struct world *w);

/* Cycles from that host, which is the source, until one succeeds; then the other one's
   tip is what the guest has. */
void pair_goes_on(struct world_host *from, struct world_host *to);

#endif
