/*
 * Each story (stories.h) again and again, disturbed at every step of its tables: either
 * virtdrd dies before, or behind, each of its commits; the link is cut; the operator
 * cancels; other operations are asked for. In the end what the story says has to hold.
 */
#ifndef TESTS_SIM_WALK_H
#define TESTS_SIM_WALK_H

#include "tests/sim/stories.h"

/* For main(): all stories of the list; only: a pattern of titles ("failback: a dies*"),
   NULL: all. */
int walk(const struct story_list *list, const char *only);

#endif
