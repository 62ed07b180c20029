/*
 * The pace of work in the background: no faster than its rate, and stopped soon.
 *
 * Belongs to the one thread that works; who stops it may be any.
 */
#ifndef DRIVERS_STORE_PACE_H
#define DRIVERS_STORE_PACE_H

#include "drivers/store_types.h"

struct pace {
    const struct store_effort *effort;
    struct cancel *also; /* stops it as effort->cancel does; NULL: nothing else does */
    int64_t free_at_ms;  /* what was spent so far is paid for then */
    uint64_t done;       /* bytes, of all that is told to effort->progress */
    uint64_t total;
};

/* ERROR_CANCELLED or ERROR_TIMEOUT once it is to stop. */
bool pace_check(struct pace *p, struct error **err);

/* Waits until this many bytes more may be read or written. */
bool pace_spend(struct pace *p, uint64_t bytes, struct error **err);

#endif
