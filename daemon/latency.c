#include "daemon/latency.h"

#include "common/mem.h"

#define SMOOTHING 8 /* the last value counts for one part of so many */

/* ns of one write; 0: too few to tell, or the counters began anew. */
static uint64_t
mean(struct latency_sample from, struct latency_sample to)
{
    if (to.requests < from.requests + LATENCY_MIN_WRITES || to.time_ns < from.time_ns)
        return 0;
    return MAX((to.time_ns - from.time_ns) / (to.requests - from.requests), 1ul);
}

void
latency_between(struct latency *l, struct latency_sample begin)
{
    uint64_t ns = l->last.requests > 0 ? mean(l->last, begin) : 0;

    if (ns == 0)
        return;
    l->between_ns =
        l->between_ns == 0 ? ns : (l->between_ns * (SMOOTHING - 1) + ns) / SMOOTHING;
}

static bool
is_costly(const struct latency *l, const struct latency_rule *rule, uint64_t ns)
{
    return rule->factor > 0 && l->between_ns > 0 && ns >= rule->min_ns &&
           ns >= l->between_ns * rule->factor;
}

static enum latency_change
step(struct latency *l, const struct latency_rule *rule)
{
    bool longer = l->costly >= LATENCY_COSTLY_CYCLES &&
                  (2u << l->doublings) <= rule->most && rule->factor > 0;
    bool shorter = l->doublings > 0 && l->cheap >= LATENCY_CHEAP_CYCLES;

    if (!longer && !shorter)
        return LATENCY_SAME;
    l->costly = 0;
    l->cheap = 0;
    l->doublings = longer ? l->doublings + 1 : l->doublings - 1;
    return longer ? LATENCY_LENGTHENED : LATENCY_SHORTENED;
}

/* Where too little is written to tell, nobody is hurt; it proves nothing either. */
enum latency_change
latency_during(struct latency *l, const struct latency_rule *rule,
               struct latency_sample begin, struct latency_sample end)
{
    uint64_t ns = mean(begin, end);

    l->last = end;
    if (ns > 0)
        l->during_ns = ns;
    if (is_costly(l, rule, ns)) {
        l->costly++;
        l->cheap = 0;
    } else {
        l->cheap++;
        if (ns > 0)
            l->costly = 0;
    }
    return step(l, rule);
}

int64_t
latency_interval_ms(const struct latency *l, int64_t set_ms)
{
    return set_ms << l->doublings;
}
