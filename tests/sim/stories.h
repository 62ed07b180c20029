/*
 * The operations that decide who runs a VM: for each of them, how the two hosts come to
 * where it can begin, and where the VM may be when it has ended. walk.h disturbs them.
 *
 * a is the VM's home, b the host that it was protected to.
 */
#ifndef TESTS_SIM_STORIES_H
#define TESTS_SIM_STORIES_H

#include "daemon/op.h"
#include "tests/sim/pair.h"

enum place {
    NOWHERE,
    AT_A,
    AT_B,
    ON_BOTH, /* a split brain */
};

#define STORY_OPS 4

struct story {
    const char *title;
    const struct op_kind *operation;
    bool at_a;    /* where it is asked for */
    bool is_home; /* it leads back: for the test of those */
    bool fails;   /* undisturbed, too: the VM stays where it was */
    /* What was written where the VM was is given up. */
    bool throws_away;
    /* A source that does not answer counts as lost: so was it asked for. */
    bool cut_means_loss;
    enum place from, to;
    void (*prepare)(struct world *w); /* once, from a pair as pair_setup() makes it */
    void (*upset)(struct world *w);   /* each time before it begins; NULL: nothing */
    /* The tables that are walked by it, on each host. */
    const struct op_kind *on_a[STORY_OPS], *on_b[STORY_OPS];
};

extern const struct story stories[];
extern const size_t n_stories;

/* What an operator says with any of them; the caller's. */
struct json_object *story_wishes(void);

/* Operations without a story, and the test of them; not all of those die at each step. */
struct story_elsewhere {
    const char *operation;
    const char *test;
};

extern const struct story_elsewhere stories_elsewhere[];
extern const size_t n_stories_elsewhere;

#endif
