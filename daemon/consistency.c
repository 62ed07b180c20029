#include "daemon/consistency.h"

#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/events.h"

#define MAX_EVERY_CYCLES  1000000
#define MIN_EVERY_MS      1000
#define MAX_EVERY_MS      (INT64_C(31) * 24 * 3600 * 1000)
#define FIRST_PAUSE_MS    60000
#define LONGEST_PAUSE_MS  (INT64_C(4) * 3600 * 1000)
#define QUARANTINED_AFTER 3 /* failures in a row */

bool
consistency_parse(struct json_object *o, struct consistency *ret, struct error **err)
{
    int64_t cycles = 0, time_ms = 0;

    if (!json_opt_int(o, "everyCycles", 0, MAX_EVERY_CYCLES, &cycles, err) ||
        !json_opt_int(o, "everyTime", 0, MAX_EVERY_MS, &time_ms, err))
        return false;
    if (cycles > 0 && time_ms > 0)
        return error_set(err, ERROR_USAGE,
                         "give everyCycles or everyTime, not both of them");
    if (time_ms > 0 && time_ms < MIN_EVERY_MS)
        return error_set(err, ERROR_USAGE, "everyTime is at least %d ms", MIN_EVERY_MS);
    ret->every_cycles = (uint32_t)cycles;
    ret->every_ms = time_ms;
    return true;
}

bool
consistency_check_domain(const struct hv_domain *domain, struct error **err)
{
    if (domain->agent != HV_AGENT_NONE)
        return true;
    return error_set(err, ERROR_AGENT,
                     "VM '%s' has no channel for a guest agent, so its points cannot be "
                     "application-consistent; add a channel 'org.qemu.guest_agent.0' to "
                     "its definition and install qemu-guest-agent in the guest",
                     domain->name);
}

struct json_object *
consistency_to_doc(const struct consistency *c)
{
    struct json_object *o = json_object_new_object();

    json_set_u64(o, "everyCycles", c->every_cycles);
    json_set_int(o, "everyTime", c->every_ms);
    json_set_int(o, "lastTime", c->last_ms);
    return o;
}

void
consistency_from_doc(struct json_object *o, struct consistency *ret)
{
    if (o == NULL)
        return;
    ret->every_cycles = (uint32_t)json_int_or(o, "everyCycles", 0);
    ret->every_ms = json_int_or(o, "everyTime", 0);
    ret->last_ms = json_int_or(o, "lastTime", 0);
}

struct json_object *
consistency_json(const struct replication *r)
{
    const struct consistency *c = &r->consistency;
    struct json_object *o = consistency_to_doc(c);

    json_set_u64(o, "failures", c->failures);
    json_set(o, "nextTry",
             c->next_try_ms > 0 ? json_object_new_int64(c->next_try_ms) : NULL);
    json_set_string(o, "reason", c->why[0] != '\0' ? c->why : NULL);
    return o;
}

static bool
is_wanted(const struct consistency *c)
{
    return c->every_cycles > 0 || c->every_ms > 0;
}

bool
consistency_is_due(const struct replication *r, int64_t now_ms)
{
    const struct consistency *c = &r->consistency;

    if (!is_wanted(c) || now_ms < c->next_try_ms)
        return false;
    if (c->every_cycles > 0)
        return c->cycles + 1 >= c->every_cycles;
    /* A clock that stepped back makes it due, too. */
    return now_ms - c->last_ms >= c->every_ms || now_ms < c->last_ms;
}

char *
consistency_complaint(const struct replication *r)
{
    const struct consistency *c = &r->consistency;
    char next[UNITS_TEXT_MAX];

    if (!is_wanted(c) || c->failures == 0)
        return NULL;
    return mem_printf("no application-consistent points%s: %s; tried again at %s",
                      c->failures >= QUARANTINED_AFTER ? " (quarantined)" : "", c->why,
                      units_format_time_ms(c->next_try_ms, next));
}

void
consistency_point_made(struct replication *r, int64_t time_ms, bool consistent)
{
    struct consistency *c = &r->consistency;

    c->cycles = consistent ? 0 : c->cycles + 1;
    if (consistent)
        c->last_ms = time_ms;
}

static void
note_failure(struct daemon *d, struct replication *r, const char *why)
{
    struct consistency *c = &r->consistency;
    struct log_ctx log = replication_log(r);
    unsigned failures;
    int64_t pause_ms;

    pthread_mutex_lock(&r->lock);
    failures = ++c->failures;
    pause_ms = MIN((int64_t)FIRST_PAUSE_MS << MIN(failures - 1, 16u), LONGEST_PAUSE_MS);
    c->next_try_ms = units_now_ms() + pause_ms;
    snprintf(c->why, sizeof c->why, "%s", why);
    pthread_mutex_unlock(&r->lock);
    if (failures == 1)
        events_emit(d, EVENT_WARNING, &log, "not-consistent",
                    "VM '%s' cannot be frozen: %s; its points go on as "
                    "crash-consistent ones",
                    r->vm_name, why);
    else if (failures == QUARANTINED_AFTER)
        events_emit(d, EVENT_WARNING, &log, "freeze-quarantined",
                    "VM '%s' could not be frozen %u times in a row: %s; it is tried "
                    "again ever more seldom, at least every 4 h",
                    r->vm_name, failures, why);
}

static void
note_success(struct daemon *d, struct replication *r)
{
    struct consistency *c = &r->consistency;
    struct log_ctx log = replication_log(r);
    unsigned failures;

    pthread_mutex_lock(&r->lock);
    failures = c->failures;
    c->failures = 0;
    c->next_try_ms = 0;
    c->why[0] = '\0';
    pthread_mutex_unlock(&r->lock);
    if (failures > 0)
        events_emit(d, EVENT_INFO, &log, "consistent-again",
                    "VM '%s' has application-consistent points again", r->vm_name);
}

bool
consistency_begin(struct daemon *d, struct replication *r, struct freeze **ret)
{
    AUTOPTR(error) *e = NULL;

    if (freeze_begin(d->freezes, r, d->config->freeze_max_ms, ret, &e))
        return true;
    note_failure(d, r, error_message(e));
    return false;
}

bool
consistency_end(struct daemon *d, struct replication *r, struct freeze *z)
{
    if (freeze_end(z)) {
        note_success(d, r);
        return true;
    }
    note_failure(d, r, "the capture took longer than the guest may be frozen");
    return false;
}
