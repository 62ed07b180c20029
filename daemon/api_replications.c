#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/api_private.h"
#include "daemon/consistency.h"
#include "daemon/events.h"
#include "daemon/peers.h"
#include "daemon/point_select.h"
#include "daemon/replication_view.h"
#include "daemon/scheduler.h"
#include "daemon/seed.h"
#include "daemon/tasks.h"
#include "drivers/hypervisor.h"

bool
api_replications_list(struct rest_request *request, struct error **err UNUSED)
{
    struct daemon *d = request->opaque;
    struct json_object *items = json_object_new_array();
    AUTOFREE(struct replication *) *all = NULL;
    size_t n = replications_all(d->replications, &all);

    for (size_t i = 0; i < n; i++) {
        json_object_array_add(items, replication_view(d, all[i]));
        replication_unref(all[i]);
    }
    api_reply_items(request, items);
    return true;
}

bool
api_replication_show(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;

    if (!api_find(request, &r, err))
        return false;
    request->reply = replication_view(request->opaque, r);
    return true;
}

/* --- operations ------------------------------------------------------------------- */

bool
api_start_task(struct rest_request *request, struct replication *r, const char *kind,
               struct json_object *data, struct error **err)
{
    struct daemon *d = request->opaque;
    struct tasks_request task = { .kind = kind,
                                  .resource_id = r->id,
                                  .resource_name = r->vm_name,
                                  .user = request->caller.name,
                                  .data = data };
    bool ok;

    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, kind, err);
    pthread_mutex_unlock(&r->lock);
    request->status = 202;
    return ok && tasks_start(d->tasks, &task, &request->reply, err);
}

bool
api_replication_remove(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *data = json_object_new_object();
    const char *force = json_string_or(request->query, "force", "false");

    json_set_bool(data, "force", strcmp(force, "true") == 0 || strcmp(force, "1") == 0);
    return api_find(request, &r, err) &&
           api_start_task(request, r, "unprotect", data, err);
}

bool
api_replication_sync(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;

    return api_find(request, &r, err) && api_start_task(request, r, "sync", NULL, err);
}

bool
api_replication_resync(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;

    return api_find(request, &r, err) && api_start_task(request, r, "resync", NULL, err);
}

#define MIN_HOLD_MS     1000
#define MAX_HOLD_MS     (24 * 3600 * 1000)
#define DEFAULT_HOLD_MS (10 * 60 * 1000)

bool
api_replication_release(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *data = json_object_new_object();
    int64_t hold_ms = DEFAULT_HOLD_MS;

    if (request->body != NULL &&
        (!api_check_members(request->body, "hold", err) ||
         !json_opt_int(request->body, "hold", MIN_HOLD_MS, MAX_HOLD_MS, &hold_ms, err)))
        return false;
    json_set_int(data, "hold", hold_ms);
    return api_find(request, &r, err) &&
           api_start_task(request, r, "release-bitmaps", data, err);
}

bool
api_replication_verify(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;

    return api_find(request, &r, err) && api_start_task(request, r, "verify", NULL, err);
}

/* A time of day means the one that the caller sees now, however long the task waits. */
bool
api_take_point(struct json_object *body, const char *key, struct json_object *data,
               struct error **err)
{
    struct json_object *point = NULL;
    struct point_select select;

    if (!json_object_object_get_ex(body, "point", &point) || point == NULL)
        return true;
    if (!point_select_parse(point, &select, err))
        return false;
    if (!api_check_members(point, "type value length", err))
        return error_prefix(err, "'point'");
    json_set(data, key, point_select_json(&select));
    return true;
}

bool
api_replication_scrub(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;

    return api_find(request, &r, err) && api_start_task(request, r, "scrub", NULL, err);
}

/* --- pause and resume --------------------------------------------------------------- */

static bool
set_paused(struct rest_request *request, const char *operation, bool paused,
           struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;
    struct log_ctx log;
    bool ok;

    if (!api_find(request, &r, err))
        return false;
    log = replication_log(r);
    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, operation, err);
    if (ok) {
        r->paused = paused;
        if (!paused)
            r->resync.held_until_ms = 0;
        if (paused && r->worker != NULL)
            cancel_request(r->worker);
        ok = replication_store(d->replications, r, NULL, 0, err);
    }
    pthread_mutex_unlock(&r->lock);
    if (!ok)
        return false;
    events_emit(d, EVENT_INFO, &log, paused ? "paused" : "resumed",
                "replication of VM '%s' was %s by %s", r->vm_name,
                paused ? "paused" : "resumed", request->caller.name);
    scheduler_wake(d->scheduler, r);
    request->reply = replication_view(d, r);
    return true;
}

bool
api_replication_pause(struct rest_request *request, struct error **err)
{
    return set_paused(request, "pause", true, err);
}

bool
api_replication_resume(struct rest_request *request, struct error **err)
{
    return set_paused(request, "resume", false, err);
}

/* --- protect --------------------------------------------------------------------------
 */

static bool
check_excluded(struct json_object *body, struct json_object **ret, struct error **err)
{
    struct json_object *array = json_array_or_null(body, "excludedDisks");

    if (array == NULL) {
        *ret = json_object_new_array();
        return true;
    }
    for (size_t i = 0; i < json_object_array_length(array); i++)
        if (!json_object_is_type(json_object_array_get_idx(array, i), json_type_string))
            return error_set(err, ERROR_USAGE, "excludedDisks is a list of disk names");
    *ret = json_object_get(array);
    return true;
}

static bool
check_rpo(struct json_object *body, int64_t *ret, struct error **err)
{
    int64_t rpo_ms = 5000;

    if (!json_opt_int(body, "rpo", INT64_MIN, INT64_MAX, &rpo_ms, err))
        return false;
    if (rpo_ms < REPLICATION_MIN_RPO_MS || rpo_ms > REPLICATION_MAX_RPO_MS)
        return error_set(err, ERROR_USAGE,
                         "an RPO of %lld ms is not possible; it is from 1s to 24h",
                         (long long)rpo_ms);
    *ret = rpo_ms;
    return true;
}

/* Refused here already, so that nobody has to wait for a task to hear it. */
static bool
check_unprotected(struct daemon *d, const struct hv_domain *domain, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct error *e = NULL;
    struct peer_name peer = { .name = "?" };

    if (!replications_find(d->replications, domain->uuid, &r, &e)) {
        error_free(e);
        return true;
    }
    peers_find(d->peers, r->peer_id, &peer, NULL);
    return error_set(err, ERROR_EXISTS, "VM '%s' is %s '%s' already", domain->name,
                     r->side == SIDE_SOURCE ? "replicated to" : "the replica of one on",
                     peer.name);
}

/* Passed on as it is: what is absent is the target's to say. */
static bool
check_retention(struct json_object *body, struct json_object *data, struct error **err)
{
    struct retention checked = retention_default();
    struct json_object *o = NULL;

    if (!json_object_object_get_ex(body, "retention", &o) || o == NULL)
        return true;
    if (!json_object_is_type(o, json_type_object))
        return error_set(err, ERROR_USAGE, "'retention' is {window, maxBytes, rules}");
    if (!retention_parse(o, &checked, err))
        return error_prefix(err, "'retention'");
    json_set(data, "retention", json_object_get(o));
    return true;
}

static bool
check_consistency(struct json_object *body, struct json_object *data, struct error **err)
{
    struct json_object *o = json_object_or_null(body, "consistency");
    struct consistency checked = { 0 };

    if (o == NULL)
        return true;
    if (!consistency_parse(o, &checked, err))
        return error_prefix(err, "'consistency'");
    json_set(data, "consistency", consistency_to_doc(&checked));
    return true;
}

static bool
check_bandwidth(struct json_object *body, struct json_object *data, struct error **err)
{
    const char *text = "";
    struct bandwidth checked;

    if (!json_opt_string(body, "bandwidth", &text, err) ||
        !bandwidth_parse(text, &checked, err))
        return false;
    json_set_string(data, "bandwidth", checked.text);
    return true;
}

/* What is said is the target's to judge; here only whether it is said well. */
static bool
check_seed(struct json_object *body, struct json_object *data, struct error **err)
{
    struct json_object *o = NULL;

    if (!json_object_object_get_ex(body, "seed", &o) || o == NULL)
        return true;
    if (!json_object_is_type(o, json_type_object))
        return error_set(err, ERROR_USAGE, "'seed' is {folder} or {disks}");
    if (!api_check_members(o, "folder disks", err) || !seed_check_request(o, err))
        return error_prefix(err, "'seed'");
    json_set(data, "seed", json_object_get(o));
    return true;
}

static bool
protect_data(struct daemon *d, struct json_object *body, struct hv_domain **ret_domain,
             struct json_object *data, struct error **err)
{
    const char *domain, *peer, *storage = "default";
    struct json_object *excluded = NULL;
    struct peer_name name;
    int64_t rpo_ms = 0;

    if (!json_get_string(body, "domain", &domain, err) ||
        !json_get_string(body, "peer", &peer, err) ||
        !json_opt_string(body, "storage", &storage, err) ||
        !check_rpo(body, &rpo_ms, err) || !check_retention(body, data, err) ||
        !check_consistency(body, data, err) || !check_bandwidth(body, data, err) ||
        !check_seed(body, data, err) ||
        !d->hypervisor->ops->lookup(d->hypervisor, domain, ret_domain, err) ||
        !check_unprotected(d, *ret_domain, err) ||
        !peers_find(d->peers, peer, &name, err) || !check_excluded(body, &excluded, err))
        return false;
    json_set_string(data, "domain", (*ret_domain)->uuid);
    json_set_string(data, "peer", name.id);
    json_set_int(data, "rpo", rpo_ms);
    json_set_string(data, "storage", storage);
    json_set(data, "excluded", excluded);
    return true;
}

bool
api_replications_create(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    struct json_object *body;
    AUTOJSON *data = json_object_new_object();
    AUTOPTR(hv_domain) *domain = NULL;
    char id[ID_TEXT];
    struct tasks_request task = { .kind = "protect", .user = request->caller.name };

    if (!api_body(request, &body, err) || !protect_data(d, body, &domain, data, err))
        return false;
    id_new(id);
    task.resource_id = id;
    task.resource_name = domain->name;
    task.data = data;
    request->status = 202;
    return tasks_start(d->tasks, &task, &request->reply, err);
}
