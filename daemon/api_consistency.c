/* REST: which points the agent in the guest is asked to prepare. */
#include "common/json.h"
#include "common/units.h"
#include "daemon/api_private.h"
#include "daemon/consistency.h"
#include "daemon/events.h"

static struct json_object *
consistency_of(struct replication *r)
{
    struct json_object *o;

    pthread_mutex_lock(&r->lock);
    o = consistency_json(r);
    pthread_mutex_unlock(&r->lock);
    return o;
}

bool
api_consistency_show(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;

    if (!api_find_for(request, "consistency", &r, err))
        return false;
    request->reply = consistency_of(r);
    return true;
}

static bool
check_channel(struct daemon *d, const struct replication *r, struct error **err)
{
    AUTOPTR(hv_domain) *domain = NULL;

    if (!d->hypervisor->ops->lookup(d->hypervisor, r->vm_uuid, &domain, err))
        return false;
    return consistency_check_domain(domain, err);
}

static bool
store_consistency(struct daemon *d, struct replication *r,
                  const struct consistency *wanted, struct error **err)
{
    struct consistency before;
    bool ok;

    pthread_mutex_lock(&r->lock);
    before = r->consistency;
    r->consistency = (struct consistency){ .every_cycles = wanted->every_cycles,
                                           .every_ms = wanted->every_ms,
                                           .last_ms = before.last_ms };
    ok = replication_store(d->replications, r, NULL, 0, err);
    if (!ok)
        r->consistency = before;
    pthread_mutex_unlock(&r->lock);
    return ok;
}

static void
tell(struct rest_request *request, struct replication *r, const struct consistency *c)
{
    struct log_ctx log = replication_log(r);
    char time[UNITS_TEXT_MAX];
    AUTOFREE(char) *how =
        c->every_cycles > 0 ? mem_printf("one of %u cycles makes", c->every_cycles)
        : c->every_ms > 0
            ? mem_printf("every %s there is", units_format_duration_ms(c->every_ms, time))
            : mem_strdup("no cycle makes");

    events_emit(request->opaque, EVENT_INFO, &log, "consistency-changed",
                "VM '%s': %s an application-consistent point; set by %s", r->vm_name, how,
                request->caller.name);
}

bool
api_consistency_set(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;
    struct consistency wanted = { 0 };
    struct json_object *body;

    if (!api_body(request, &body, err) || !consistency_parse(body, &wanted, err) ||
        !api_find_for(request, "consistency", &r, err))
        return false;
    if ((wanted.every_cycles > 0 || wanted.every_ms > 0) && !check_channel(d, r, err))
        return false;
    if (!store_consistency(d, r, &wanted, err))
        return false;
    tell(request, r, &wanted);
    request->reply = consistency_of(r);
    return true;
}
