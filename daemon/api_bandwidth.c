/* REST: how much of the link a replication may take, and when. */
#include "common/json.h"
#include "daemon/api_private.h"
#include "daemon/events.h"
#include "daemon/scheduler.h"
#include "daemon/traffic.h"

static struct json_object *
bandwidth_of(struct daemon *d, struct replication *r)
{
    struct bandwidth own, peer;

    traffic_peer_limit(d, r, &peer);
    pthread_mutex_lock(&r->lock);
    own = r->bandwidth;
    pthread_mutex_unlock(&r->lock);
    return traffic_json(&own, &peer);
}

bool
api_bandwidth_show(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;

    if (!api_find_for(request, "bandwidth", &r, err))
        return false;
    request->reply = bandwidth_of(request->opaque, r);
    return true;
}

static bool
store_bandwidth(struct daemon *d, struct replication *r, const struct bandwidth *wanted,
                struct error **err)
{
    struct bandwidth before;
    bool ok;

    pthread_mutex_lock(&r->lock);
    before = r->bandwidth;
    r->bandwidth = *wanted;
    ok = replication_store(d->replications, r, NULL, 0, err);
    if (!ok)
        r->bandwidth = before;
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* Counts from the next cycle on, or the next slice of a sync. */
bool
api_bandwidth_set(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;
    struct bandwidth wanted;
    struct json_object *body;
    struct log_ctx log;
    const char *text;

    if (!api_body(request, &body, err) || !json_get_string(body, "limit", &text, err) ||
        !bandwidth_parse(text, &wanted, err) ||
        !api_find_for(request, "bandwidth", &r, err) ||
        !store_bandwidth(d, r, &wanted, err))
        return false;
    log = replication_log(r);
    events_emit(d, EVENT_INFO, &log, "bandwidth-changed",
                "the bandwidth of VM '%s' is %s; set by %s", r->vm_name,
                wanted.text[0] != '\0' ? wanted.text : "unlimited", request->caller.name);
    scheduler_wake(d->scheduler, r);
    request->reply = bandwidth_of(d, r);
    return true;
}
