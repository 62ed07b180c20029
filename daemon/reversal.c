/* Both sides' memory, and the new source. */
#include "daemon/reversal.h"

#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/consistency.h"
#include "daemon/failover_after.h"
#include "daemon/handover.h"
#include "daemon/tasks.h"

#define AGAIN_MS 10000 /* between two tries to make the other side the target */

bool
reversal_is_reversed(const struct replication *r, const char *host_id)
{
    const char *target = r->side == SIDE_TARGET ? host_id : r->peer_id;

    return r->home != NULL && strcmp(r->home, target) == 0;
}

/* --- the new source ----------------------------------------------------------- */

static struct json_object *
copy_of(struct json_object *o)
{
    struct json_object *copy = NULL;

    if (o != NULL)
        json_object_deep_copy(o, &copy, NULL);
    return copy;
}

static struct json_object *
remember_target(const struct replication *r)
{
    struct json_object *o =
        r->formerly != NULL ? copy_of(r->formerly) : json_object_new_object();

    json_set_string(o, "storage", r->storage);
    json_set(o, "retention", retention_json(&r->retention));
    return o;
}

/* What this host has set itself comes before what the other one had. */
static struct json_object *
setting(const struct replication *r, const struct reversal_plan *plan, const char *key)
{
    struct json_object *o = NULL;

    if (!json_object_object_get_ex(r->formerly, key, &o))
        json_object_object_get_ex(plan->settings, key, &o);
    return o;
}

/* Disks are named by the host that has the VM. */
static void
take_settings(struct replication *n, const struct replication *r,
              const struct reversal_plan *plan)
{
    struct json_object *excluded = json_array_or_null(r->formerly, "excluded");
    const char *known = json_string_or(r->formerly, "targetStorage", "default");

    if (excluded != NULL) {
        json_object_put(n->excluded);
        n->excluded = copy_of(excluded);
    }
    mem_setstr(&n->storage, plan->storage != NULL ? plan->storage : known);
    consistency_from_doc(setting(r, plan, "consistency"), &n->consistency);
    n->consistency.last_ms = 0;
    n->rpo_ms = r->rpo_ms;
}

static void
take_identity(struct replication *n, const struct replication *r)
{
    n->created_ms = r->created_ms;
    n->epoch = r->epoch + 1;
    n->phase = PHASE_REVERSING;
    mem_setstr(&n->home, r->home != NULL ? r->home : r->peer_id);
    mem_setstr(&n->folder, r->folder); /* the VM's disks are in it */
    json_object_put(n->stale);
    n->stale = copy_of(r->stale);
    n->capture = copy_of(r->capture);
    n->fork = copy_of(r->fork);
    n->failover = failover_after_addresses(r);
}

bool
reversal_new_source(const struct replication *r, const struct reversal_plan *plan,
                    struct replication **ret, struct error **err)
{
    AUTOPTR(replication) *n =
        replication_new(SIDE_SOURCE, r->id, r->vm_uuid, plan->vm_name, plan->peer);
    struct json_object *bandwidth = setting(r, plan, "bandwidth");

    take_identity(n, r);
    take_settings(n, r, plan);
    n->formerly = remember_target(r);
    if (bandwidth != NULL &&
        !bandwidth_parse(json_object_get_string(bandwidth), &n->bandwidth, err))
        return false;
    json_object_put(n->former);
    n->former = strcmp(r->peer_id, plan->peer) == 0 ? json_object_get(r->former)
                                                    : handover_with_former(r, r->peer_id);
    *ret = TAKE(n);
    return true;
}

/* --- the other side answers ----------------------------------------------------- */

static bool
is_due(struct replication *r)
{
    int64_t now_ms = units_monotonic_ms();
    bool due;

    pthread_mutex_lock(&r->lock);
    due = r->side == SIDE_SOURCE && r->phase == PHASE_REVERSING && !r->removed &&
          (r->looked_for_ms == 0 || now_ms - r->looked_for_ms >= AGAIN_MS);
    if (due)
        r->looked_for_ms = now_ms;
    pthread_mutex_unlock(&r->lock);
    return due;
}

void
reversal_hear(struct daemon *d, struct replication *r)
{
    struct tasks_request request = { .kind = "reverse",
                                     .resource_id = r->id,
                                     .resource_name = r->vm_name,
                                     .user = "virtdrd" };
    struct log_ctx log = replication_log(r);
    AUTOJSON *task = NULL;
    struct error *e = NULL;

    if (!is_due(r) || tasks_busy(d->tasks, r->id))
        return;
    if (!tasks_start(d->tasks, &request, &task, &e))
        log_ignore(&log, "reverse-not-started", &e);
}
