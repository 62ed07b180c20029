/*
 * What holds of operations that leave the VM where it is: at a, protected to b or not.
 */
#ifndef TESTS_SIM_CARE_H
#define TESTS_SIM_CARE_H

#include "tests/sim/stories.h"

/* The guest writes, and what it has then is noted; what it had when it was last shipped,
   too. */
void care_note(struct course *c);

/* Nothing is written: what was shipped is what there is. */
void care_note_idle(struct course *c);

/* What was noted, now and then; borrowed. */
const struct world_model *care_now(const struct course *c);
const struct world_model *care_shipped(const struct course *c);
void care_forget(struct course *c);

/* An operation that comes before the story, or behind it: it must succeed. */
void care_do_plain(struct world *w, bool at_a, const char *kind);

/* It runs at a, b has its replica, both agree, and each point that b has can be used. */
void care_is_protected(struct world *w);

/* The same, and replication goes on. */
void care_goes_on(struct world *w);

/* It runs at a, and nothing of a replication is left on either host. */
void care_is_unprotected(struct world *w);

/* The point with this number has this content. */
void care_check_point(struct world *w, uint64_t sequence, const struct world_model *m);

/* That b has. */
uint64_t care_oldest_point(struct world *w);

#endif
