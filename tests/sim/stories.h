/*
 * The operations, as stories: how the two hosts come to where one can begin, what is
 * asked for, and what has to hold when it has ended, however it was disturbed (walk.h).
 *
 * a is the VM's home, b the host that it was protected to.
 */
#ifndef TESTS_SIM_STORIES_H
#define TESTS_SIM_STORIES_H

#include "daemon/op.h"
#include "daemon/tasks.h"
#include "tests/sim/pair.h"

#define STORY_OPS 4

struct story;

/* One run of it. */
struct course {
    const struct story *story;
    struct world *world;
    char *id;           /* of the task; NULL where it was not stored */
    bool undisturbed;   /* it ends as it does alone */
    bool target_failed; /* b has died, or was to */
    void *noted;        /* note()'s */
};

enum place {
    NOWHERE,
    AT_A,
    AT_B,
    ON_BOTH, /* a split brain */
};

/* Of operations that decide who runs the VM (moves.h). */
struct story_move {
    enum place from, to;
    bool fails; /* undisturbed, too: the VM stays where it was */
    /* What was written where the VM was is given up. */
    bool throws_away;
    /* A source that does not answer counts as lost: so was it asked for. */
    bool cut_means_loss;
    void (*upset)(struct world *w); /* each time before it begins; NULL: nothing */
};

struct story {
    const char *title;
    const struct op_kind *operation;
    bool at_a; /* where it is asked for */
    struct story_move move;
    void (*prepare)(struct world *w); /* once, behind pair_setup(); NULL: nothing */
    void (*note)(struct course *c);   /* each time before it begins */
    /* What is asked for: resource and data; NULL: the replication, nothing. */
    void (*wish)(struct world *w, struct tasks_request *request);
    /* Settled, nothing disturbs any more. Frees what was noted. */
    void (*holds)(struct course *c);
    /* The tables that are walked by it, on each host. */
    const struct op_kind *on_a[STORY_OPS], *on_b[STORY_OPS];
};

struct story_list {
    const struct story *stories;
    size_t n;
};

extern const struct story_list stories_away, stories_home; /* stories.c */
extern const struct story_list stories_care;               /* stories_care.c */
extern const struct story_list stories_points;             /* stories_points.c */

/* An operation that no pair of hosts can do, and the test of it. */
struct story_elsewhere {
    const char *operation;
    const char *test;
};

extern const struct story_elsewhere stories_elsewhere[];
extern const size_t n_stories_elsewhere;

/* Asks for it; the task's id, NULL if its host died of that. */
char *story_ask(const struct story *s, struct world *w);

/* How the task of this run has ended: "SUCCEEDED"; "": there is none. */
void course_state(const struct course *c, char ret_state[16]);
bool course_succeeded(const struct course *c);

/* Unless it has succeeded it is asked for once more, now without any disturbance, and
   succeeds. */
void course_succeeds_in_the_end(struct course *c);

#endif
