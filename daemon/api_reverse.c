/* A replication changes its direction (reversal.h): asked for, and between the hosts. */
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "daemon/api_private.h"
#include "daemon/peers.h"
#include "daemon/prepare.h"
#include "daemon/reversal.h"
#include "daemon/tasks.h"

static bool
take_peer(struct daemon *d, struct json_object *body, struct json_object *data,
          struct error **err)
{
    const char *to = "", *storage = "";
    struct peer_name peer;

    if (body == NULL)
        return true;
    if (!api_check_members(body, "to storage", err) ||
        !json_opt_string(body, "to", &to, err) ||
        !json_opt_string(body, "storage", &storage, err))
        return false;
    if (to[0] != '\0' && !peers_find(d->peers, to, &peer, err))
        return false;
    if (to[0] != '\0')
        json_set_string(data, "to", peer.id);
    if (storage[0] != '\0')
        json_set_string(data, "storage", storage);
    return true;
}

bool
api_replication_reverse(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *data = json_object_new_object();
    struct tasks_request task = { .kind = "reverse",
                                  .user = request->caller.name,
                                  .data = data };

    if (!take_peer(d, request->body, data, err) ||
        !api_find_for(request, "reverse", &r, err))
        return false;
    task.resource_id = r->id;
    task.resource_name = r->vm_name;
    request->status = 202;
    return tasks_start(d->tasks, &task, &request->reply, err);
}

/* Asked by the VM's home, for a failback. True as well if it was done before. */
bool
api_replica_reverse(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;
    AUTOPTR(replication) *allowed = NULL;
    AUTOJSON *data = json_object_new_object();
    AUTOJSON *task = NULL;
    struct tasks_request wanted = { .kind = "reverse",
                                    .user = request->caller.name,
                                    .data = data };
    bool begun;

    if (!api_find(request, &r, err))
        return false;
    if (strcmp(r->peer_id, request->caller.peer_id) != 0)
        return error_set(err, ERROR_REPLICATION_NOT_FOUND,
                         "this host shares no such replication with the caller");
    pthread_mutex_lock(&r->lock);
    begun = r->side == SIDE_SOURCE;
    pthread_mutex_unlock(&r->lock);
    if (begun)
        return true;
    if (!api_find_for(request, "reverse", &allowed, err))
        return false;
    wanted.resource_id = r->id;
    wanted.resource_name = r->vm_name;
    return tasks_start(d->tasks, &wanted, &task, err);
}

/* --- failback ------------------------------------------------------------------ */

static bool
take_shutdown(struct json_object *body, struct json_object *data, struct error **err)
{
    int64_t timeout_ms = PREPARE_DEFAULT_TIMEOUT_MS;
    const char *policy = "graceful";

    if (body != NULL && (!json_opt_string(body, "shutdown", &policy, err) ||
                         !json_opt_int(body, "shutdownTimeout", PREPARE_MIN_TIMEOUT_MS,
                                       PREPARE_MAX_TIMEOUT_MS, &timeout_ms, err)))
        return false;
    if (strcmp(policy, "graceful") != 0 && strcmp(policy, "force") != 0)
        return error_set(err, ERROR_USAGE,
                         "'shutdown' is '%s': a failback shuts the VM down, graceful or "
                         "force",
                         policy);
    json_set_string(data, "shutdown", policy);
    json_set_int(data, "timeout", timeout_ms);
    return true;
}

/* Where it cannot be, the host where it can is named. */
static bool
check_home(struct daemon *d, struct replication *r, struct error **err)
{
    struct peer_name peer = { .name = "(unknown)" };
    bool elsewhere;

    pthread_mutex_lock(&r->lock);
    elsewhere = r->side == SIDE_SOURCE ? r->phase != PHASE_SUPERSEDED
                                       : !reversal_is_reversed(r, d->host_id);
    pthread_mutex_unlock(&r->lock);
    if (!elsewhere)
        return true;
    peers_find(d->peers, r->peer_id, &peer, NULL);
    return error_set(err, ERROR_INVALID_STATE,
                     "VM '%s' is brought home by its home: this host is not that, or has "
                     "it; if it is host '%s', run it there",
                     r->vm_name, peer.name);
}

bool
api_replication_failback(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *data = json_object_new_object();
    struct json_object *end = NULL;

    if (!api_check_members(request->body,
                           "point shutdown shutdownTimeout autoCommit autoUndo", err) ||
        !take_shutdown(request->body, data, err) ||
        (request->body != NULL && (!api_take_point(request->body, "select", data, err) ||
                                   !api_take_end(d, request->body, &end, err))))
        return false;
    if (end != NULL)
        json_set(data, "auto", end);
    return api_find(request, &r, err) && check_home(d, r, err) &&
           api_start_task(request, r, "failback", data, err);
}

/* Asked by the host that has the VM now. */
bool
api_replica_target(struct rest_request *request, struct error **err)
{
    struct replica_request replica = { 0 };
    struct reversal_request wanted = { .replica = &replica };
    struct retention retention;
    bool ok;

    ok = api_parse_replica(request, &replica, &retention, err) &&
         json_get_u64(request->body, "epoch", INT64_MAX, &replica.epoch, err) &&
         json_get_string(request->body, "home", &replica.home, err) &&
         json_opt_string(request->body, "defined", &wanted.defined, err) &&
         json_opt_bool(request->body, "check", &wanted.check, err);
    if (ok && (strcmp(replica.replication, request->params[0]) != 0 ||
               !id_is_valid(replica.home) || replica.epoch < 2))
        ok = error_set(err, ERROR_PROTOCOL, "this is no reversal of that replication");
    wanted.fork = json_object_or_null(request->body, "fork");
    ok = ok && reversal_accept(request->opaque, &wanted, &request->reply, err);
    free(replica.disks);
    return ok;
}
