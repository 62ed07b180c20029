#include "drivers/store/pace.h"

#include <poll.h>

#include "common/units.h"

#define LOOK_MS 50 /* how soon it is seen that it is to stop */

bool
pace_check(struct pace *p, struct error **err)
{
    return cancel_check(p->effort->cancel, err) && cancel_check(p->also, err);
}

static bool
await_turn(struct pace *p, struct error **err)
{
    int64_t left;

    do {
        if (!pace_check(p, err))
            return false;
        left = p->free_at_ms - units_monotonic_ms();
        if (left > 0)
            poll(NULL, 0, (int)MIN(left, LOOK_MS));
    } while (left > 0);
    return true;
}

bool
pace_spend(struct pace *p, uint64_t bytes, struct error **err)
{
    const struct store_effort *e = p->effort;

    if (!await_turn(p, err))
        return false;
    if (e->rate_bytes_s > 0)
        p->free_at_ms = MAX(p->free_at_ms, units_monotonic_ms()) +
                        (int64_t)((double)bytes * 1000 / (double)e->rate_bytes_s);
    p->done += bytes;
    if (e->progress != NULL)
        e->progress(MIN(p->done, p->total), p->total, e->opaque);
    return true;
}
