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
    size_t n_seen; /* points that were compared byte for byte, and right */
};

/* What the guest has written to the first bytes of its first disk. */
#define SUBJECT_GUEST_BYTES (64u << 10)
#define SUBJECT_GUEST_BYTE  0xab

/* Paths: "SCRATCH/record", the environment's FAULTLINE_STATE, and originals.h. */
bool subject_begin(struct subject *s, const char *folder, const char *scratch,
                   struct error **err);
void subject_end(struct subject *s);

/* seq from MODEL_HOME on: a replica that stands on the original images. */
bool subject_create(struct subject *s, uint64_t seq, struct error **err);
bool subject_open(struct subject *s, uint64_t seq, struct error **err);
bool subject_close(struct subject *s, uint64_t seq, struct error **err);
bool subject_destroy(struct subject *s, uint64_t seq, struct error **err);

/* The direct writes before point seq, from their beginning. */
bool subject_sync(struct subject *s, uint64_t seq, struct error **err);
bool subject_receive(struct subject *s, uint64_t seq, struct error **err);
bool subject_apply(struct subject *s, uint64_t seq, struct error **err);
bool subject_seal(struct subject *s, uint64_t seq, struct error **err);

/* The point that the originals hold. */
bool subject_first(struct subject *s, uint64_t seq, struct error **err);
bool subject_accept(struct subject *s, uint64_t seq, struct error **err);

/* The overlay "drill". */
bool subject_overlay(struct subject *s, uint64_t seq, struct error **err);
bool subject_no_overlay(struct subject *s, uint64_t seq, struct error **err);

/* The overlay "failover", with a record of changes, and what a VM writes to it; its new
   name "kept"; the overlay "clone" on that; both of them go. */
bool subject_failover(struct subject *s, uint64_t seq, struct error **err);
bool subject_guest(struct subject *s, uint64_t seq, struct error **err);
bool subject_keep(struct subject *s, uint64_t seq, struct error **err);
bool subject_keep_again(struct subject *s, struct error **err); /* that was begun */
bool subject_clone(struct subject *s, uint64_t seq, struct error **err);
bool subject_no_clone(struct subject *s, uint64_t seq, struct error **err);
bool subject_no_kept(struct subject *s, uint64_t seq, struct error **err);

/* Gives up what is not in this bit set and below its highest bit; of seqs, from
   MODEL_HOME on if the replica stands on originals. */
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
