/*
 * reverse: the VM that was failed over to this host is replicated from here, back to
 * where it came from or to another host (reversal.h).
 *
 * data: {to, storage}: the target to be (id of a peer) and the storage there, absent: as
 * before. Findings: {peer, name, disks, needed, epoch, settings}. From change-side on
 * there is no way back to the recovery points, nor an undo: a step that fails then leaves
 * the phase 'reversing', and reverse can be run again; it is by itself when the other
 * host answers.
 */
#include <string.h>

#include "common/json.h"
#include "daemon/daemon.h"
#include "daemon/divergence.h"
#include "daemon/events.h"
#include "daemon/exports.h"
#include "daemon/flatten.h"
#include "daemon/guard_source.h"
#include "daemon/handover.h"
#include "daemon/kept.h"
#include "daemon/ops.h"
#include "daemon/peers.h"
#include "daemon/protect_disks.h"
#include "daemon/reversal.h"
#include "daemon/scheduler.h"
#include "drivers/hypervisor.h"

static bool
find(struct op *op, struct replication **ret, struct error **err)
{
    return replications_find(op->daemon->replications, op->resource_id, ret, err);
}

static const char *
peer_of(struct op *op)
{
    return json_string_or(op->data, "peer", "");
}

/* --- what is told to the target to be --------------------------------------------- */

/* Under r->lock. */
static struct json_object *
retention_of(const struct replication *r)
{
    struct json_object *kept = json_object_or_null(r->formerly, "retention"),
                       *copy = NULL;

    if (r->side == SIDE_TARGET)
        return retention_json(&r->retention);
    if (kept != NULL)
        json_object_deep_copy(kept, &copy, NULL);
    return copy;
}

/* Where it is to be if nobody says so. Under r->lock. */
static const char *
storage_of(const struct replication *r)
{
    return r->side == SIDE_SOURCE
               ? r->storage
               : json_string_or(r->formerly, "targetStorage", "default");
}

static struct json_object *
request_body(struct op *op, struct replication *r, bool check)
{
    struct json_object *o = json_object_new_object();

    pthread_mutex_lock(&r->lock);
    json_set_string(o, "replication", r->id);
    json_set_string(o, "vmId", r->vm_uuid);
    json_set_int(o, "rpo", r->rpo_ms);
    json_set(o, "retention", retention_of(r));
    json_set_string(o, "home", r->home != NULL ? r->home : r->peer_id);
    json_set_string(o, "defined", json_string_or(r->fork, "defined", NULL));
    json_set(o, "fork", divergence_ask(r));
    json_set_string(o, "storage", json_string_or(op->data, "storage", storage_of(r)));
    pthread_mutex_unlock(&r->lock);
    json_set_string(o, "vmName", json_string_or(op->data, "name", ""));
    json_set_int(o, "epoch", json_int_or(op->data, "epoch", 0));
    json_set_int(o, "needed", json_int_or(op->data, "needed", 0));
    json_set(o, "disks", json_object_get(json_array_or_null(op->data, "disks")));
    json_set_bool(o, "check", check);
    return o;
}

static bool
ask_target(struct op *op, struct replication *r, bool check, struct json_object **ret,
           struct error **err)
{
    AUTOFREE(char) *path = mem_printf("/api/v1/peers/replications/%s/target", r->id);
    AUTOJSON *body = request_body(op, r, check);
    struct peer_name peer = { .name = "(unknown)" };

    peers_find(op->daemon->peers, peer_of(op), &peer, NULL);
    return peers_call(op->daemon->peers, peer_of(op), "POST", path, body, ret, err) ||
           error_prefix(err, "host '%s' is to be the target", peer.name);
}

/* --- check ---------------------------------------------------------------------------
 */

/* Under r->lock. */
static bool
look_at_role(struct op *op, struct replication *r, struct error **err)
{
    bool begun = r->side == SIDE_SOURCE;

    if (!replication_allows(r, "reverse", err))
        return false;
    json_set_string(op->data, "peer", json_string_or(op->data, "to", r->peer_id));
    json_set_u64(op->data, "epoch", r->epoch + (begun ? 0 : 1));
    return true;
}

static bool
look_at_vm(struct op *op, struct replication *r, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;
    struct json_object *excluded = r->side == SIDE_SOURCE
                                       ? r->excluded
                                       : json_array_or_null(r->formerly, "excluded");
    struct json_object *disks = NULL;
    uint64_t needed;

    if (!hv->ops->lookup(hv, r->vm_uuid, &domain, err) ||
        !protect_disks_check(domain, excluded, &disks, &needed, err))
        return false;
    json_set_string(op->data, "name", domain->name);
    json_set(op->data, "disks", disks);
    json_set_u64(op->data, "needed", needed);
    return true;
}

/* All that can be refused is refused here: nothing has been changed yet. */
static bool
check(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *answer = NULL;
    bool ok;

    if (!find(op, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = look_at_role(op, r, err);
    pthread_mutex_unlock(&r->lock);
    if (!ok || !look_at_vm(op, r, err) ||
        (r->side == SIDE_TARGET && (!exports_check_unused(op->daemon->exports, r, err) ||
                                    !kept_check_none(r, err))) ||
        !ask_target(op, r, true, &answer, err))
        return false;
    json_set(op->data, "settings", TAKE(answer));
    return true;
}

/* --- change-side ------------------------------------------------------------------- */

/* A reversal that goes on, to another host perhaps. */
static bool
change_peer(struct op *op, struct replication *r, struct error **err)
{
    bool ok = true;

    pthread_mutex_lock(&r->lock);
    if (r->phase == PHASE_REVERSING && strcmp(r->peer_id, peer_of(op)) != 0) {
        json_object_put(TAKE(r->former));
        r->former = handover_with_former(r, r->peer_id);
        replication_set_peer(r, peer_of(op));
        ok = replication_store(op->daemon->replications, r, NULL, 0, err);
    }
    pthread_mutex_unlock(&r->lock);
    return ok;
}

static bool
change_claimed(struct op *op, struct replication *r, struct error **err)
{
    const struct reversal_plan plan = {
        .peer = peer_of(op),
        .vm_name = json_string_or(op->data, "name", ""),
        .storage = json_string_or(op->data, "storage", NULL),
        .settings = json_object_or_null(op->data, "settings"),
    };
    AUTOJSON *flat = NULL;
    struct state_write also = { .kind = FLATTEN_KIND, .id = r->vm_uuid };
    AUTOPTR(replication) *n = NULL;
    bool ok;

    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "reverse", err) && reversal_new_source(r, &plan, &n, err);
    if (r->phase == PHASE_FAILED_OVER) /* else a commit has stored it already */
        also.body = flat = flatten_document(r);
    pthread_mutex_unlock(&r->lock);
    if (!ok)
        return false;
    replica_close(r);
    return replications_replace(op->daemon->replications, r, n,
                                flat != NULL ? &also : NULL, err);
}

/*
 * Until the other host is the target it cannot take the VM over: so nobody has to confirm
 * that it did not. State first, then the guard: it allowed the start before.
 */
static bool
keep_allowed(struct op *op, struct error **err)
{
    struct guard_record record = { .may_run = true, .unconfirmed = GUARD_START };
    struct daemon *d = op->daemon;
    AUTOPTR(replication) *r = NULL;

    if (!find(op, &r, err))
        return false;
    if (r->phase != PHASE_REVERSING)
        return true;
    record.vm = r->vm_name;
    record.epoch = r->epoch;
    return guard_write(&d->guard, r->vm_uuid, &record, err) &&
           guard_confirm(&d->guard, r->vm_uuid, r->epoch, err);
}

static bool
change_side(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!find(op, &r, err))
        return false;
    if (r->side == SIDE_SOURCE)
        return change_peer(op, r, err) && keep_allowed(op, err);
    if (!replication_seize(r, &op->cancel, err))
        return false;
    ok = change_claimed(op, r, err);
    replication_release(r);
    return ok && keep_allowed(op, err);
}

/* --- drop-points -------------------------------------------------------------------- */

/* Somebody wanted these, or they are what this host had not shipped. */
static void
tell_pinned(struct op *op, struct points *points)
{
    size_t n = 0;
    struct point *list = points_list(points, &n);

    for (size_t i = 0; i < n; i++)
        if (list[i].pinned)
            op_warn(op, "recovery point '%s' goes, although it was pinned", list[i].name);
    points_list_free(list, n);
}

/* They are of a replica that this host is not any more; the VM's disks stand on what is
   below them, which stays. */
static bool
drop_points(struct op *op, struct error **err)
{
    AUTOPTR(points) *points = NULL;

    if (!points_open(op->daemon->state, op->resource_id, &points, err))
        return false;
    tell_pinned(op, points);
    return points_remove_all(points, err);
}

/* --- prepare-target -------------------------------------------------------------------
 */

static bool
go_on(struct op *op, struct replication *r, struct json_object *answer,
      struct error **err)
{
    bool ok;

    pthread_mutex_lock(&r->lock);
    divergence_take(r, json_object_or_null(answer, "divergence"),
                    json_array_or_null(op->data, "disks"));
    r->phase = PHASE_INITIAL_SYNC;
    ok = replication_store(op->daemon->replications, r, NULL, 0, err);
    if (!ok)
        r->phase = PHASE_REVERSING;
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* From here on the other side has to confirm, as for any source. */
static bool
prepare_target(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *answer = NULL;

    if (!find(op, &r, err))
        return false;
    if (r->phase != PHASE_REVERSING)
        return true;
    return ask_target(op, r, false, &answer, err) && guard_source(op->daemon, r, err) &&
           go_on(op, r, answer, err);
}

/* --- schedule --------------------------------------------------------------------------
 */

/* Without a commit before, that is from here on; what cannot begin now is tried again. */
static void
begin_flatten(struct op *op, struct replication *r)
{
    struct error *e = NULL;

    if (!flatten_begin(op->daemon, r->vm_uuid, "virtdrd", &e))
        log_ignore(&op->log, "flatten-not-begun", &e);
}

static bool
schedule(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct peer_name peer = { .name = "(unknown)" };

    if (!find(op, &r, err))
        return false;
    peers_find(op->daemon->peers, r->peer_id, &peer, NULL);
    op->result = json_object_new_object();
    json_set_string(op->result, "replication", r->id);
    json_set_string(op->result, "vmName", r->vm_name);
    json_set_string(op->result, "target", peer.name);
    json_set_u64(op->result, "epoch", r->epoch);
    pthread_mutex_lock(&r->lock);
    json_set_bool(op->result, "byRecords", r->resync.records);
    json_set_string(op->result, "reason", r->resync.reason);
    pthread_mutex_unlock(&r->lock);
    events_emit(op->daemon, EVENT_INFO, &op->log, "reversed",
                "VM '%s' is replicated from this host to '%s' (epoch %llu); %s",
                r->vm_name, peer.name, (unsigned long long)r->epoch,
                json_string_or(op->result, "reason", ""));
    scheduler_wake(op->daemon->scheduler, r);
    begin_flatten(op, r);
    return true;
}

/* --- as a step of another operation
 * ------------------------------------------------------ */

static bool
all_steps(struct op *op, struct error **err)
{
    return check(op, err) && change_side(op, err) && drop_points(op, err) &&
           prepare_target(op, err) && schedule(op, err);
}

/* With findings of its own, which are not to be mistaken for those of the other one. */
bool
reversal_follow(struct op *op, struct error **err)
{
    struct op own = { .daemon = op->daemon,
                      .kind = op->kind,
                      .data = json_object_new_object(),
                      .resource_id = op->resource_id,
                      .log = op->log,
                      .task = op->task };
    AUTOPTR(replication) *r = NULL;
    struct error *e = NULL;

    if (!find(op, &r, err)) {
        json_object_put(own.data);
        return false;
    }
    if (!(r->side == SIDE_SOURCE && states_is_protecting(r->phase)) &&
        !all_steps(&own, &e))
        op_warn(op, "it is not protected yet: %s; see: virt-dr reverse %s",
                error_message(e), r->vm_name);
    if (op->result != NULL)
        json_set(op->result, "reversal", json_object_get(own.result));
    error_free(e);
    json_object_put(own.data);
    json_object_put(own.result);
    return true;
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name               run             undo  timeout_s  commits */
    { "check",            check,          NULL, 60,        false },
    { "change-side",      change_side,    NULL, 60,        true  },
    { "drop-points",      drop_points,    NULL, 60,        false },
    { "prepare-target",   prepare_target, NULL, 90,        false },
    { "schedule",         schedule,       NULL, 10,        false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_reverse = { .name = "reverse",
                                    .result_type = "reverse",
                                    .steps = steps };
