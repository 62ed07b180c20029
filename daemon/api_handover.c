/* Between hosts: a VM that was moved, and its replication with it (handover.h). */
#include <string.h>

#include "common/json.h"
#include "daemon/api_private.h"
#include "daemon/handover.h"
#include "daemon/peers.h"
#include "drivers/hypervisor.h"

#define CLAIM_MS 30000

/* Asked by a source whose VM has left: is it here, and do we know the target? */
bool
api_peer_domain(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    const char *target = json_string_or(request->query, "target", "");
    AUTOPTR(hv_domain) *domain = NULL;
    struct peer_name name;
    struct error *e = NULL;

    if (!id_is_valid(request->params[0]))
        return error_set(err, ERROR_USAGE, "'%.40s' is no UUID", request->params[0]);
    if (!d->hypervisor->ops->lookup(d->hypervisor, request->params[0], &domain, &e) &&
        !error_is(e, ERROR_DOMAIN_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    request->reply = json_object_new_object();
    json_set_bool(request->reply, "running",
                  domain != NULL && domain->state != HV_STATE_OFF);
    json_set_bool(request->reply, "knowsTarget",
                  strcmp(target, d->host_id) == 0 ||
                      peers_find(d->peers, target, &name, NULL));
    return true;
}

bool
api_peer_offer(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    struct json_object *body;

    return api_body(request, &body, err) &&
           handover_accept(d, request->caller.peer_id, body, err);
}

/* An exchange that is under way is stopped: it is of the source that leaves. */
bool
api_replica_source(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;
    struct cancel patience = { 0 };
    struct json_object *body;
    const char *host;
    uint64_t epoch;
    bool ok, is_source;

    if (!api_body(request, &body, err) || !json_get_string(body, "host", &host, err) ||
        !json_get_u64(body, "epoch", INT64_MAX, &epoch, err))
        return false;
    if (!id_is_valid(host))
        return error_set(err, ERROR_PROTOCOL, "'host' must be the id of a host");
    if (!api_find(request, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    is_source = strcmp(r->peer_id, request->caller.peer_id) == 0;
    pthread_mutex_unlock(&r->lock);
    cancel_set_timeout(&patience, CLAIM_MS);
    /* Nobody else may stop anything. */
    if (!replication_claim(r, &patience, is_source, err))
        return false;
    ok = handover_set_source(d, r, request->caller.peer_id, host, epoch, err);
    replication_release(r);
    return ok;
}
