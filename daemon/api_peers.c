#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/api_private.h"
#include "daemon/contact.h"
#include "daemon/exchange.h"
#include "daemon/exports.h"
#include "daemon/peers.h"
#include "daemon/replica.h"
#include "daemon/reversal.h"
#include "daemon/testruns.h"
#include "daemon/seed.h"
#include "daemon/tasks.h"
#include "drivers/hypervisor.h"

bool
api_invite(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    int64_t life_ms = PEERS_INVITE_MS;

    if (request->body != NULL && !json_opt_int(request->body, "expiresIn", 1000,
                                               PEERS_INVITE_MAX_MS, &life_ms, err))
        return false;
    return peers_invite(d->peers, life_ms, &request->reply, err);
}

bool
api_peers_list(struct rest_request *request, struct error **err UNUSED)
{
    struct daemon *d = request->opaque;

    api_reply_items(request, peers_list(d->peers));
    return true;
}

bool
api_peers_join(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    struct json_object *body;
    const char *token;

    return api_body(request, &body, err) && json_get_string(body, "token", &token, err) &&
           peers_join(d->peers, token, &request->reply, err);
}

bool
api_peer_remove(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;

    return peers_remove(d->peers, request->params[0], err);
}

bool
api_peers_accept(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    struct json_object *body;

    return api_body(request, &body, err) &&
           peers_accept(d->peers, request->caller.fingerprint, body, &request->reply,
                        err);
}

bool
api_peers_contact(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    struct json_object *body;

    if (!api_body(request, &body, err))
        return false;
    peers_heard(d->peers, request->caller.peer_id);
    contact_hear(d, request->caller.peer_id, body);
    request->reply = contact_say(d, request->caller.peer_id);
    return true;
}

/* --- replicas that a peer asks for ------------------------------------------------- */

static bool
parse_disks(struct json_object *body, struct replica_request *ret, struct error **err)
{
    struct json_object *array;
    size_t n;

    if (!json_get_array(body, "disks", &array, err))
        return false;
    n = json_object_array_length(array);
    if (n == 0 || n > WIRE_MAX_DISKS)
        return error_set(err, ERROR_PROTOCOL, "%zu disks: 1 to %d are possible", n,
                         WIRE_MAX_DISKS);
    ret->disks = mem_alloc(n, sizeof *ret->disks);
    ret->n_disks = n;
    for (size_t i = 0; i < n; i++) {
        struct json_object *o = json_object_array_get_idx(array, i);
        const char *target;

        if (!json_get_string(o, "target", &target, err) ||
            !json_get_u64(o, "capacity", WIRE_MAX_DISK_BYTES,
                          &ret->disks[i].capacity_bytes, err))
            return error_prefix(err, "disk %zu", i);
        if (!exchange_target_is_valid(target) || ret->disks[i].capacity_bytes % 512 != 0)
            return error_set(err, ERROR_PROTOCOL, "disk %zu has no valid name or size",
                             i);
        snprintf(ret->disks[i].target, sizeof ret->disks[i].target, "%s", target);
    }
    return true;
}

/* What the source gave, and this host's defaults for the rest. */
static bool
parse_retention(struct json_object *body, struct retention *ret, struct error **err)
{
    struct json_object *o = json_object_or_null(body, "retention");

    return o == NULL || retention_parse(o, ret, err) || error_prefix(err, "'retention'");
}

bool
api_parse_replica(struct rest_request *request, struct replica_request *ret,
                  struct retention *retention, struct error **err)
{
    struct daemon *d = request->opaque;
    struct json_object *body;

    *retention = d->config->retention;
    *ret = (struct replica_request){ .peer_id = request->caller.peer_id,
                                     .retention = retention,
                                     .user = request->caller.name };
    if (!api_body(request, &body, err) ||
        !json_get_string(body, "replication", &ret->replication, err) ||
        !json_get_string(body, "vmId", &ret->vm_uuid, err) ||
        !json_get_string(body, "vmName", &ret->vm_name, err) ||
        !json_get_string(body, "storage", &ret->storage, err) ||
        !json_get_int(body, "rpo", REPLICATION_MIN_RPO_MS, REPLICATION_MAX_RPO_MS,
                      &ret->rpo_ms, err) ||
        !json_get_u64(body, "needed", WIRE_MAX_DISK_BYTES, &ret->needed_bytes, err))
        return false;
    /* Both become names of files here. */
    if (!id_is_valid(ret->replication) || !id_is_valid(ret->vm_uuid))
        return error_set(err, ERROR_PROTOCOL, "'replication' and 'vmId' must be UUIDs");
    return parse_retention(body, retention, err) && parse_disks(body, ret, err);
}

bool
api_replica_create(struct rest_request *request, struct error **err)
{
    struct replica_request replica = { 0 };
    struct retention retention;
    bool ok;

    ok = api_parse_replica(request, &replica, &retention, err);
    replica.seed = json_object_or_null(request->body, "seed");
    ok = ok && replica_create(request->opaque, &replica, err);
    free(replica.disks);
    return ok;
}

bool
api_find_shared(struct rest_request *request, struct replication **ret,
                struct error **err)
{
    AUTOPTR(replication) *r = NULL;

    if (!api_find(request, &r, err))
        return false;
    if (strcmp(r->peer_id, request->caller.peer_id) != 0)
        return error_set(err, ERROR_REPLICATION_NOT_FOUND,
                         "this host shares no replication '%s' with the caller",
                         request->params[0]);
    *ret = TAKE(r);
    return true;
}

/* Asked by a target that is about to fail over: what libvirt says now, not what we
 * recall. */
bool
api_replica_show(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;
    AUTOPTR(hv_domain) *domain = NULL;
    AUTOFREE(char) *task = NULL;
    struct error *e = NULL;
    bool running;

    if (!api_find_shared(request, &r, err))
        return false;
    task = d->tasks != NULL ? tasks_exclusive(d->tasks, r->id) : NULL;
    running = !d->hypervisor->ops->lookup(d->hypervisor, r->vm_uuid, &domain, &e)
                  ? !error_is(e, ERROR_DOMAIN_NOT_FOUND)
                  : domain->state != HV_STATE_OFF || domain->migrated;
    error_free(e);
    request->reply = json_object_new_object();
    pthread_mutex_lock(&r->lock);
    json_set_u64(request->reply, "epoch", r->epoch);
    json_set_string(request->reply, "phase", states_name(r->phase));
    json_set_string(request->reply, "task", task);
    /* It may run somewhere, if not here: the caller wants to know that. */
    json_set_bool(request->reply, "departed", atomic_load(&r->departed));
    json_set_bool(request->reply, "running", running || atomic_load(&r->departed));
    json_set(request->reply, "seed", seed_view(r));
    pthread_mutex_unlock(&r->lock);
    return true;
}

/* Under r->lock. */
static bool
check_removable(const struct replication *r, struct error **err)
{
    if (r->side == SIDE_TARGET && !states_owns_vm(r->phase) &&
        r->phase != PHASE_FAILING_OVER && r->phase != PHASE_UNDOING &&
        r->phase != PHASE_RESOLVING)
        return true;
    return error_set(err, ERROR_INVALID_STATE,
                     "the replica of VM '%s' was failed over and is in use here; end its "
                     "replication on that host",
                     r->vm_name);
}

/* *ret_begun: by an earlier try of the same peer, which this one goes on with. */
static bool
look_before_removal(struct replication *r, bool *ret_begun, struct error **err)
{
    bool ok;

    pthread_mutex_lock(&r->lock);
    ok = check_removable(r, err);
    *ret_begun = r->phase == PHASE_REMOVING;
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* Stored: whoever is asked again after a crash has no whole replica to look at. */
static bool
begin_removal(struct daemon *d, struct replication *r, struct error **err)
{
    enum replication_phase before;
    bool ok;

    pthread_mutex_lock(&r->lock);
    before = r->phase;
    ok = check_removable(r, err);
    if (ok) {
        r->phase = PHASE_REMOVING;
        ok = replication_store(d->replications, r, NULL, 0, err);
    }
    if (!ok)
        r->phase = before;
    pthread_mutex_unlock(&r->lock);
    return ok;
}

bool
api_replica_remove(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;
    struct cancel patience = { 0 };
    struct error *e = NULL;
    bool ok, begun;

    if (!api_find_shared(request, &r, &e)) {
        if (!error_is(e, ERROR_REPLICATION_NOT_FOUND))
            return error_propagate(err, e);
        error_free(e); /* gone already: the source asks twice after a lost answer */
        return true;
    }
    if (!look_before_removal(r, &begun, err) ||
        (!begun && !exports_check_none(d->exports, r, err)) || !begin_removal(d, r, err))
        return false;
    cancel_set_timeout(&patience, 60000);
    if (!testruns_remove_all(d->testruns, r->id, err) ||
        !replication_claim(r, &patience, true, err))
        return false;
    ok = reversal_retire(d, r, err) && replica_remove(d, r, err);
    replication_release(r);
    return ok;
}
