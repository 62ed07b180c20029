/*
 * What holds of each operation that decides who runs the VM: in the end one side runs it,
 * the other may not, both agree, nothing is lost, and replication goes on (I1, I3, I5).
 */
#ifndef TESTS_SIM_MOVES_H
#define TESTS_SIM_MOVES_H

#include "tests/sim/stories.h"

void move_note(struct course *c);
void move_wish(struct world *w, struct tasks_request *request);
void move_holds(struct course *c);

#endif
