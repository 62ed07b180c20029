/* What each cycle costs the guest is measured, judged, and told. */
#include "common/units.h"
#include "daemon/cycle_private.h"
#include "daemon/events.h"

#define NS_PER_MS 1e6

static bool
sample(struct cycle *c, struct latency_sample *ret)
{
    struct hypervisor *hv = c->daemon->hypervisor;
    const char *targets[WIRE_MAX_DISKS];
    struct hv_writes writes;
    struct error *e = NULL;

    for (size_t i = 0; i < c->n_disks; i++)
        targets[i] = c->disks[i].target;
    if (!hv->ops->writes(hv, c->r->vm_uuid, targets, c->n_disks, &writes, &e)) {
        error_free(e); /* a VM that has just ended; the cycle tells what is wrong */
        return false;
    }
    *ret = (struct latency_sample){ writes.requests, writes.time_ns };
    return true;
}

void
cycle_latency_begin(struct cycle *c)
{
    c->is_measured = c->daemon->config->latency_factor > 0 && sample(c, &c->writes);
    if (!c->is_measured)
        return;
    pthread_mutex_lock(&c->r->lock);
    latency_between(&c->r->latency, c->writes);
    pthread_mutex_unlock(&c->r->lock);
}

static void
tell(struct cycle *c, const struct latency *l, enum latency_change change)
{
    char set[UNITS_TEXT_MAX], now[UNITS_TEXT_MAX];

    units_format_duration_ms(c->r->rpo_ms, set);
    units_format_duration_ms(latency_interval_ms(l, c->r->rpo_ms), now);
    if (change == LATENCY_LENGTHENED)
        events_emit(c->daemon, EVENT_WARNING, &c->log, "cycles-lengthened",
                    "writes of VM '%s' take %.1f ms while a cycle is captured, %.1f ms "
                    "between: there is a point every %s now, though the RPO is %s",
                    c->r->vm_name, (double)l->during_ns / NS_PER_MS,
                    (double)l->between_ns / NS_PER_MS, now, set);
    else if (change == LATENCY_SHORTENED)
        events_emit(c->daemon, EVENT_INFO, &c->log, "cycles-shortened",
                    "cycles do not cost VM '%s' much any more: there is a point every %s "
                    "again, the RPO is %s",
                    c->r->vm_name, now, set);
}

void
cycle_latency_end(struct cycle *c)
{
    const struct config *config = c->daemon->config;
    const struct latency_rule rule = { .factor = config->latency_factor,
                                       .min_ns = (uint64_t)config->latency_min_ms *
                                                 (uint64_t)NS_PER_MS,
                                       .most = config->latency_longest };
    struct latency_sample end = c->writes;
    enum latency_change change;
    struct latency l;

    if (!c->is_measured || !sample(c, &end))
        return;
    pthread_mutex_lock(&c->r->lock);
    change = latency_during(&c->r->latency, &rule, c->writes, end);
    l = c->r->latency;
    pthread_mutex_unlock(&c->r->lock);
    tell(c, &l, change);
}

void
cycle_latency_idle(struct cycle *c)
{
    bool lengthened;

    pthread_mutex_lock(&c->r->lock);
    lengthened = c->r->latency.doublings > 0;
    pthread_mutex_unlock(&c->r->lock);
    if (!lengthened)
        return;
    cycle_latency_begin(c);
    cycle_latency_end(c);
}
