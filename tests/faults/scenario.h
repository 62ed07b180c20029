/*
 * What a target does with a store, from its beginning to its end, in parts: each
 * begins where another one ended, with the store closed, or with nothing.
 */
#ifndef TESTS_FAULTS_SCENARIO_H
#define TESTS_FAULTS_SCENARIO_H

#include "tests/faults/subject.h"

struct scenario_part {
    const char *name;
    const char *after; /* the part before it; NULL: there is none */
    bool destroys;     /* it ends with the store's removal */
    const struct subject_step *steps;
    size_t n_steps;
};

/* A part comes behind the one that it begins after. */
const struct scenario_part *scenario_parts(size_t *ret_n);
const struct scenario_part *scenario_find(const char *name); /* or NULL */

bool
scenario_run(const struct scenario_part *part, struct subject *s, struct error **err);

/* With all parts that come before it. */
bool
scenario_run_to(const struct scenario_part *part, struct subject *s, struct error **err);

#endif
