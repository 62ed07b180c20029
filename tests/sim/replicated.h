/* Where a test of failovers begins: two disks, the guest has written, one point is there.
 */
#ifndef TESTS_SIM_REPLICATED_H
#define TESTS_SIM_REPLICATED_H

#include "daemon/op.h"
#include "tests/sim/world.h"

/* For cmocka: *state is the world. */
int replicated_setup(void **state);
int replicated_teardown(void **state);

size_t count_steps(const struct op_kind *kind);

/* Of the replica; the target is open. */
size_t count_overlays(struct world *w);

/*
 * The target's virtdrd dies before, and in another round behind, each of its commits
 * while it does `what` (world_child), and goes on. `check` sees it open after that each
 * time. There must be more than `n_steps` commits.
 */
void killed_at_each_commit(struct world *w, const char *what, size_t n_steps,
                           const struct world_model *m,
                           void (*check)(struct world *w, const struct world_model *m));

/* The same once the VM is failed over; the model is what it had then. */
void replicated_killed_at_each_commit(struct world *w, const char *what, size_t n_steps,
                                      void (*check)(struct world *w,
                                                    const struct world_model *m));

#endif
