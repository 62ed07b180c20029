/*
 * The subject of the fault tests: a store, its record, and one function for each
 * thing that a target does with it. A step can be run again after it failed.
 */
#ifndef TESTS_FAULTS_SUBJECT_H
#define TESTS_FAULTS_SUBJECT_H

#include "drivers/store.h"
#include "tests/faults/faultline.h"
#include "tests/faults/record.h"

struct subject {
    char *folder;  /* the store's */
    char *scratch; /* a folder that no fault reaches */
    struct record record;
    struct store *store;
    struct faultline_state *faults; /* NULL: none is planned */
};

/* Paths: "SCRATCH/record", the environment's FAULTLINE_STATE. */
bool subject_begin(struct subject *s, const char *folder, const char *scratch,
                   struct error **err);
void subject_end(struct subject *s);

bool subject_create(struct subject *s, uint64_t seq, struct error **err);
bool subject_open(struct subject *s, uint64_t seq, struct error **err);
bool subject_close(struct subject *s, uint64_t seq, struct error **err);
bool subject_destroy(struct subject *s, uint64_t seq, struct error **err);

/* The direct writes before point seq, from their beginning. */
bool subject_sync(struct subject *s, uint64_t seq, struct error **err);
bool subject_receive(struct subject *s, uint64_t seq, struct error **err);
bool subject_apply(struct subject *s, uint64_t seq, struct error **err);
bool subject_seal(struct subject *s, uint64_t seq, struct error **err);

/* The overlay RECORD_OVERLAY. */
bool subject_overlay(struct subject *s, uint64_t seq, struct error **err);
bool subject_no_overlay(struct subject *s, uint64_t seq, struct error **err);

/* Gives up what is not in this bit set of seqs and below its highest bit. */
bool subject_retain(struct subject *s, uint64_t kept, struct error **err);
bool subject_fold(struct subject *s, uint64_t seq, struct error **err);
bool subject_digest(struct subject *s, uint64_t seq, struct error **err);

/* Fails if anything is damaged. */
bool subject_scrub(struct subject *s, uint64_t seq, struct error **err);

/* One thing to do, and what it is called. */
struct subject_step {
    const char *phase;
    bool (*run)(struct subject *s, uint64_t seq, struct error **err);
    uint64_t seq;
};

/* Runs a step, and again if a planned fault made it fail in a way that may be. */
bool subject_run(struct subject *s, const struct subject_step *step, struct error **err);

#endif
