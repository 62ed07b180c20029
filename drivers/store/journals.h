/*
 * The durable journals of an open store, in memory: what the folder holds, without
 * looking.
 *
 * Loaded when the store is opened; whoever commits or removes a journal file
 * tells it. It has a lock of its own: any thread.
 */
#ifndef DRIVERS_STORE_JOURNALS_H
#define DRIVERS_STORE_JOURNALS_H

#include <pthread.h>
#include <stdint.h>

#include "common/error.h"

struct journals_item {
    uint64_t seq;
    uint64_t bytes; /* of the file */
};

struct journals {
    pthread_mutex_t lock;
    struct journals_item *items; /* seq ascending */
    size_t n;
    size_t size; /* room in items */
};

void journals_init(struct journals *j);
void journals_clear(struct journals *j);

/* Looks into the folder at. */
bool journals_load(struct journals *j, int at, struct error **err);

/* One that is there already gets the new size. */
void journals_add(struct journals *j, uint64_t seq, uint64_t bytes);
void journals_remove(struct journals *j, uint64_t seq);

/* The seqs, ascending; the caller frees *ret. */
void journals_list(struct journals *j, uint64_t **ret, size_t *ret_n);

/* The highest seq; 0: there are none. */
uint64_t journals_newest(struct journals *j);

/* How many there are with after < seq <= last, and their bytes. */
struct journals_sum {
    size_t n;
    uint64_t bytes;
};
struct journals_sum journals_between(struct journals *j, uint64_t after, uint64_t last);

/*
 * Forgets those that `stays` does not want, and gives them; the caller frees *ret.
 * Called under the lock, seqs ascending.
 */
typedef bool (*journals_fn)(uint64_t seq, void *opaque);
void journals_sweep(struct journals *j, journals_fn stays, void *opaque,
                    struct journals_item **ret, size_t *ret_n);

#endif
