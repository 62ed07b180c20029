/*
 * A state database that counts its commits, and on which one of them ends in a way that
 * the test has chosen: its host dies before it, or behind it, or it fails.
 *
 * What dying is, the test says; whoever is dead commits nothing more. Any thread.
 */
#ifndef TESTS_SIM_FATED_H
#define TESTS_SIM_FATED_H

#include <pthread.h>

#include "drivers/state.h"

enum fate {
    FATE_NONE,
    FATE_BEFORE, /* the host dies without it */
    FATE_BEHIND, /* the host dies once it is durable */
    FATE_FAIL,   /* it returns an error, nothing is stored */
};

struct fated {
    struct state head;
    struct state *real;
    pthread_mutex_t lock; /* of fate, left, counts */
    enum fate fate;
    unsigned left; /* commits until that (1: the next); 0: never */
    /* Which of them count; NULL: all. Under the lock. */
    bool (*counts)(struct fated *f, const struct state_write *writes, size_t n);
    _Atomic bool dead;
    _Atomic unsigned commits;
    /* At the moment of death, with what is, or would have been, committed. */
    void (*dies)(struct fated *f, const struct state_write *writes, size_t n);
    /* Behind each commit; may be NULL. */
    void (*told)(struct fated *f, const struct state_write *writes, size_t n);
    void *opaque; /* the test's */
};

/* Opens the database at path; dies: as above; NULL: to be dead is enough. */
void
fated_open(struct fated *f, const char *path,
           void (*dies)(struct fated *f, const struct state_write *writes, size_t n));

void fated_close(struct fated *f);

/* From now on: at the n-th commit; or at the first one of those that count. */
void fated_let(struct fated *f, enum fate fate, unsigned n);
void
fated_let_at(struct fated *f, enum fate fate,
             bool (*counts)(struct fated *f, const struct state_write *writes, size_t n));

#endif
