/*
 * Each story (stories.h) again and again, disturbed at every step of its tables: either
 * virtdrd dies before, or behind, each of its commits; the link is cut; the operator
 * cancels; other operations are asked for. In the end one side runs the VM, the other may
 * not, both agree, nothing is lost, and replication goes on (I1, I3, I5).
 */
#ifndef TESTS_SIM_WALK_H
#define TESTS_SIM_WALK_H

#include <stdbool.h>

/* For main(): all stories, those that lead home or the others; only: a pattern of titles
   ("failback: a dies*"), NULL: all. */
int walk(bool home, const char *only);

#endif
