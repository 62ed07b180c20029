#include "common/cancel.h"

#include "common/units.h"

void
cancel_request(struct cancel *c)
{
    atomic_store(&c->requested, true);
}

void
cancel_set_timeout(struct cancel *c, int64_t timeout_ms)
{
    int64_t now = units_monotonic_ms();
    int64_t deadline = 0;

    if (timeout_ms > 0)
        deadline = timeout_ms > INT64_MAX - now ? INT64_MAX : now + timeout_ms;
    atomic_store(&c->deadline_ms, deadline);
}

/* What the deadline leaves; INT64_MAX without one. */
static int64_t
left_ms(struct cancel *c)
{
    int64_t deadline = atomic_load(&c->deadline_ms);

    if (deadline == 0)
        return INT64_MAX;
    return MAX(deadline - units_monotonic_ms(), 0);
}

bool
cancel_check(struct cancel *c, struct error **err)
{
    if (c == NULL)
        return true;
    if (atomic_load(&c->requested))
        return error_set(err, ERROR_CANCELLED, "the operation was cancelled");
    if (left_ms(c) == 0)
        return error_set(err, ERROR_TIMEOUT, "the operation's deadline has passed");
    return cancel_check(c->above, err);
}

int
cancel_remaining_ms(struct cancel *c, int max_ms)
{
    int most = MAX(max_ms, 0);

    if (c == NULL)
        return most;
    if (atomic_load(&c->requested))
        return 0;
    return cancel_remaining_ms(c->above, (int)MIN((int64_t)most, left_ms(c)));
}
