/*
 * Which steps a fault shall happen at, and what came of each.
 *
 * The steps are those of a run without a fault, part by part of the scenario. Targets
 * lie in memory that all processes forked later share; each is worked on by one of them.
 */
#ifndef TESTS_FAULTS_PLAN_H
#define TESTS_FAULTS_PLAN_H

#include "tests/faults/arena.h"

#define PLAN_TEXT_MAX 1000

enum plan_outcome {
    PLAN_NOT_TRIED,
    PLAN_OK,
    PLAN_NOT_MET, /* the step did not come; only QEMU's programs may do that */
    PLAN_FAILED,
};

struct plan_step {
    const char *part;
    struct faultline_step step;
};

/* All that there are, in their order. */
struct plan_steps {
    struct plan_step *items;
    size_t n;
};

struct plan_target {
    struct plan_step at;
    enum plan_outcome outcome;
    size_t place;              /* among those that could be taken, from 1 */
    struct faultline_step met; /* where it happened really */
    size_t n_points;           /* that were looked at behind it, and right */
    char text[PLAN_TEXT_MAX];  /* why it failed */
};

/* What is to be done. */
struct plan_settings {
    enum faultline_action action;
    bool all;        /* each step, not one of each sort */
    uint64_t few;    /* so many of them, about; 0: all of them */
    uint64_t at;     /* only the one in this place; 0: all */
    bool twice;      /* kill once more while the store is repaired */
    bool destroying; /* of the store's removal, not of its life */
    const char *fs;  /* as in arena.h */
};

struct plan {
    struct plan_target *targets;
    size_t n;
    size_t n_mapped;       /* for so many there is room */
    size_t n_different;    /* steps at which this fault makes a difference */
    _Atomic size_t *taken; /* how many targets have been taken, and how many are done */
    _Atomic size_t *done;
};

const char *plan_action_name(enum faultline_action action);
bool plan_parse_action(const char *name, enum faultline_action *ret);
const char *plan_process_name(uint32_t process);

/* Runs all parts without a fault, and saves what each leaves, so that targets can be
   tried in this arena. */
bool plan_prepare(struct arena *a, struct error **err);

/* In a prepared arena: what steps there are, and whether all is right without a fault. */
bool plan_count(const struct plan_settings *settings, struct arena *a,
                struct plan_steps *ret, struct error **err);
void plan_steps_clear(struct plan_steps *s);

void plan_make(const struct plan_settings *settings, const struct plan_steps *steps,
               struct plan *ret);
void plan_clear(struct plan *p);

/* Lets it happen at the target, and notes the outcome. */
void
plan_try(const struct plan_settings *settings, struct arena *a, struct plan_target *t);

#endif
