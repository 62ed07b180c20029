/* REST: a split brain, what each host has, and its end. */
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/api_private.h"
#include "daemon/peers.h"
#include "daemon/split_brain.h"
#include "daemon/tasks.h"
#include "drivers/hypervisor.h"

/* --- this side ---------------------------------------------------------------------- */

static void
show_domain(struct daemon *d, const struct replication *r, struct json_object *o)
{
    AUTOPTR(hv_domain) *domain = NULL;
    AUTOPTR(error) *e = NULL;

    if (!d->hypervisor->ops->lookup(d->hypervisor, r->vm_uuid, &domain, &e)) {
        json_set_bool(o, "running", false);
        json_set_string(o, "problem",
                        error_is(e, ERROR_DOMAIN_NOT_FOUND) ? NULL : error_message(e));
        return;
    }
    json_set_bool(o, "running", domain->state != HV_STATE_OFF);
    json_set_bool(o, "suspended", domain->state == HV_STATE_PAUSED);
    json_set_int(o, "since", domain->since_ms);
}

/* What becomes of this side if the other one is kept. Under r->lock. */
static char *
loss_text(const struct replication *r)
{
    char at[UNITS_TEXT_MAX];

    if (r->side == SIDE_TARGET && states_is_protecting(r->phase))
        return mem_printf(
            "the VM was started here by hand, and is stopped; its disks stay "
            "where they are");
    if (r->side == SIDE_TARGET)
        return mem_printf(
            "what it has written here since the failover leaves the VM, and is "
            "kept as a recovery point of its own; what is only in its memory is "
            "lost");
    return mem_printf("what it has written since %s was not replicated; it stays in its "
                      "disks, which are locked; what is only in its memory is lost",
                      r->newest.time_ms > 0 ? units_format_time_ms(r->newest.time_ms, at)
                                            : "its protection began");
}

static struct json_object *
show_side(struct daemon *d, struct replication *r)
{
    struct json_object *o = json_object_new_object();
    AUTOFREE(char) *loss = NULL;

    show_domain(d, r, o);
    json_set_string(o, "host", d->config->host_name);
    json_set_string(o, "site", d->config->site);
    pthread_mutex_lock(&r->lock);
    loss = loss_text(r);
    json_set_string(o, "side", r->side == SIDE_SOURCE ? "source" : "target");
    json_set_string(o, "state", states_name(r->phase));
    json_set_u64(o, "epoch", r->epoch);
    json_set_bool(o, "ownsEpoch",
                  r->side == SIDE_SOURCE ? states_is_protecting(r->phase)
                                         : !states_is_protecting(r->phase));
    json_set_int(o, "newestPoint", r->newest.time_ms);
    json_set_string(o, "loses", loss);
    pthread_mutex_unlock(&r->lock);
    return o;
}

/* --- between the hosts -----------------------------------------------------------------
 */

static bool
find_shared(struct rest_request *request, struct replication **ret, struct error **err)
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

/* The newest one of that replication, if any. */
static void
show_last_task(struct daemon *d, const struct replication *r, struct json_object *o)
{
    AUTOJSON *all = NULL;

    if (!tasks_list(d->tasks, TASKS_KEPT, &all, NULL))
        return;
    for (size_t i = 0; i < json_object_array_length(all); i++) {
        struct json_object *task = json_object_array_get_idx(all, i);
        struct json_object *info = json_object_or_null(task, "workflowInfo");
        const char *state = json_string_or(task, "state", "");

        if (strcmp(json_string_or(task, "type", ""), "resolve") != 0 ||
            strcmp(json_string_or(info, "resourceId", ""), r->id) != 0)
            continue;
        json_set_bool(o, "isOver", strcmp(state, "SUCCEEDED") == 0);
        json_set(o, "error", json_object_get(json_object_or_null(task, "error")));
        json_set_string(
            o, "kept", json_string_or(json_object_or_null(task, "result"), "kept", NULL));
        return;
    }
}

bool
api_peer_resolve_show(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;

    if (!find_shared(request, &r, err))
        return false;
    request->reply = show_side(request->opaque, r);
    show_last_task(request->opaque, r, request->reply);
    return true;
}

static bool
start(struct rest_request *request, struct replication *r, const char *kind,
      struct error **err)
{
    struct daemon *d = request->opaque;
    struct tasks_request task = { .kind = kind,
                                  .resource_id = r->id,
                                  .resource_name = r->vm_name,
                                  .user = request->caller.name };
    bool ok;

    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "resolve", err);
    pthread_mutex_unlock(&r->lock);
    request->status = 202;
    return ok && tasks_start(d->tasks, &task, &request->reply, err);
}

bool
api_peer_resolve(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;

    return find_shared(request, &r, err) && start(request, r, "resolve", err);
}

/* --- for operators -------------------------------------------------------------------
 */

bool
api_resolve_show(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;
    AUTOFREE(char) *path = NULL;
    AUTOPTR(error) *e = NULL;
    struct json_object *sides, *there = NULL;

    if (!api_find(request, &r, err))
        return false;
    path = mem_printf("/api/v1/peers/replications/%s/resolve", r->id);
    request->reply = json_object_new_object();
    sides = json_object_new_array();
    json_object_array_add(sides, show_side(d, r));
    if (peers_probe(d->peers, r->peer_id, path, &there, &e))
        json_object_array_add(sides, there);
    else
        json_set_string(request->reply, "problem", error_message(e));
    json_set_string(request->reply, "vmName", r->vm_name);
    json_set_bool(request->reply, "isSplitBrain", r->split_brain);
    json_set(request->reply, "sides", sides);
    return true;
}

/* Where nobody has to yield, `undo` is what is meant. */
static bool
check_split(struct replication *r, struct error **err)
{
    AUTOFREE(char) *text = NULL;
    bool ok;

    pthread_mutex_lock(&r->lock);
    text = split_brain_text(r);
    ok = text != NULL || r->phase == PHASE_RESOLVING;
    pthread_mutex_unlock(&r->lock);
    return ok ||
           error_set(err, ERROR_INVALID_STATE,
                     "VM '%s' does not run on both hosts: there is nothing to resolve "
                     "(to throw a failover away: virt-dr undo %s)",
                     r->vm_name, r->vm_name);
}

bool
api_resolve(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;
    struct peer_name peer = { .name = "(unknown)" };
    struct json_object *body;
    const char *keep;

    if (!api_body(request, &body, err) || !api_check_members(body, "keep", err) ||
        !json_get_string(body, "keep", &keep, err) || !api_find(request, &r, err))
        return false;
    peers_find(d->peers, r->peer_id, &peer, NULL);
    if (!check_split(r, err))
        return false;
    if (strcmp(keep, d->config->host_name) == 0)
        return start(request, r, "resolve-there", err);
    if (strcmp(keep, peer.name) == 0)
        return start(request, r, "resolve", err);
    return error_set(err, ERROR_USAGE, "'%.64s' is neither '%s' nor '%s'", keep,
                     d->config->host_name, peer.name);
}
