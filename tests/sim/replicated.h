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

#endif
