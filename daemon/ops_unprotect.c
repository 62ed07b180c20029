/*
 * unprotect: the replication ends, on both sides; the VM itself is untouched.
 *
 * data: {force}: also if the other side does not answer, or points are exported. On
 * the target it
 * removes the replica, unless a domain uses its images (which a committed failover leaves
 * to it); the source finds it
 * gone and says so.
 */
#include <string.h>

#include "common/json.h"
#include "daemon/cycle.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/exports.h"
#include "daemon/flatten.h"
#include "daemon/leftovers.h"
#include "daemon/ops.h"
#include "daemon/peers.h"
#include "daemon/replica.h"
#include "daemon/reversal.h"
#include "daemon/testruns.h"
#include "drivers/hypervisor.h"

/* The replication, or NULL when an earlier run has removed it already. */
static struct replication *
find(struct op *op)
{
    struct replication *r = NULL;

    return replications_find(op->daemon->replications, op->resource_id, &r, NULL) ? r
                                                                                  : NULL;
}

/* A failover that was committed: what is in the folder is the VM's own, and stays. */
static bool
is_final(struct op *op, struct replication *r)
{
    pthread_mutex_lock(&r->lock);
    if (r->phase == PHASE_COMMITTED)
        json_set_bool(op->data, "final", true);
    pthread_mutex_unlock(&r->lock);
    return json_bool_or(op->data, "final", false);
}

static bool
check_flat(struct op *op, struct replication *r, struct error **err)
{
    bool pending = false;

    if (!flatten_is_pending(op->daemon, r->vm_uuid, &pending, err))
        return false;
    return !pending ||
           error_set(err, ERROR_INVALID_STATE,
                     "the disks of VM '%s' are not one image each yet; that is "
                     "done while it runs: virt-dr commit %s",
                     r->vm_name, r->vm_name);
}

/*
 * After a failover the overlays in the replica's folder are the VM's own disks:
 * as long as a domain names them they are not removed under it.
 */
static bool
check_unused(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOPTR(replication) *r = find(op);
    AUTOPTR(hv_domain) *domain = NULL;
    struct error *e = NULL;
    size_t n;

    if (r == NULL || r->side == SIDE_SOURCE)
        return true;
    if (is_final(op, r))
        return check_flat(op, r, err);
    if (!hv->ops->lookup(hv, r->vm_uuid, &domain, &e)) {
        if (!error_is(e, ERROR_DOMAIN_NOT_FOUND))
            return error_propagate(err, e);
        error_free(e);
        return true;
    }
    n = strlen(r->folder);
    for (size_t i = 0; i < domain->n_disks; i++) {
        const char *path = domain->disks[i].path;

        if (path != NULL && strncmp(path, r->folder, n) == 0 && path[n] == '/')
            return error_set(
                err, ERROR_INVALID_STATE,
                "VM '%s' on this host uses '%s', which would be removed; copy "
                "its disks elsewhere first (virsh "
                "blockcopy --transient-job), or undefine it",
                domain->name, path);
    }
    return true;
}

/* Somebody reads from these points: he is asked, unless it is forced. */
static bool
check_exports(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = find(op);
    bool begun;

    if (r == NULL || r->side == SIDE_SOURCE || json_bool_or(op->data, "force", false))
        return true;
    pthread_mutex_lock(&r->lock);
    begun = r->phase == PHASE_REMOVING;
    pthread_mutex_unlock(&r->lock);
    return begun || exports_check_none(op->daemon->exports, r, err);
}

/* From here on nothing starts any more: no cycle, no exchange. */
static bool
stop_work(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = find(op);
    bool ok;

    if (r == NULL)
        return true;
    if (!replication_seize(r, &op->cancel, err))
        return false;
    pthread_mutex_lock(&r->lock);
    r->phase = PHASE_REMOVING;
    ok = replication_store(op->daemon->replications, r, NULL, 0, err);
    pthread_mutex_unlock(&r->lock);
    replication_release(r);
    return ok;
}

/* Only the source has somebody to tell: a replica that goes is its target's business. One
   whose VM was moved is the source no more. */
static bool
tell_target(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = find(op);
    AUTOFREE(char) *path = NULL;
    struct error *e = NULL;

    if (r == NULL || r->side == SIDE_TARGET || r->move.to[0] != '\0')
        return true;
    path = mem_printf("/api/v1/peers/replications/%s", r->id);
    if (peers_call(op->daemon->peers, r->peer_id, "DELETE", path, NULL, NULL, &e))
        return true;
    if (!json_bool_or(op->data, "force", false)) {
        error_propagate(err, e);
        return error_prefix(err, "the replica at the target could not be removed (with "
                                 "--force it is left there)");
    }
    op_warn(op, "the replica at the target stays: %s", error_message(e));
    error_free(e);
    return true;
}

/* A VM that is off keeps its bitmaps until it runs: said, not fatal. */
static bool
forget_records(struct op *op, struct replication *r, struct error **err)
{
    AUTOPTR(error) *e = NULL;

    if (cycle_forget_all(op->daemon, r, &e))
        return true;
    op_warn(op, "%s; they are removed by themselves when it runs next", error_message(e));
    return leftovers_keep(op->daemon, r, err);
}

/* A VM that was failed over goes on recording since when; it stays here. */
static bool
leave_record(struct op *op, struct replication *r, struct error **err)
{
    const char *record = json_string_or(r->fork, "record", "");
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;

    if (record[0] == '\0' || !hv->ops->lookup(hv, r->vm_uuid, &domain, NULL))
        return true;
    json_append_string(r->stale, record);
    return leftovers_keep(op->daemon, r, err);
}

static bool
clean_up(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = find(op);

    if (r == NULL)
        return true;
    if (json_bool_or(op->data, "final", false))
        return guard_remove(&op->daemon->guard, r->vm_uuid, err) &&
               replications_remove(op->daemon->replications, r, err);
    if (r->side == SIDE_TARGET)
        return leave_record(op, r, err) &&
               testruns_remove_all(op->daemon->testruns, r->id, err) &&
               exports_remove_all(op->daemon->exports, r->id, err) &&
               reversal_retire(op->daemon, r, err) && replica_remove(op->daemon, r, err);
    return forget_records(op, r, err) &&
           guard_remove(&op->daemon->guard, r->vm_uuid, err) &&
           replications_remove(op->daemon->replications, r, err);
}

static void
ended(struct op *op, const struct error *failure)
{
    if (failure == NULL)
        events_emit(op->daemon, EVENT_INFO, &op->log, "unprotected",
                    "VM '%s' is not protected any more", op->log.vm);
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name            run           undo  timeout_s  commits */
    { "check-unused", check_unused, NULL, 30,        false },
    { "check-exports", check_exports, NULL, 30,      false },
    { "stop-work",    stop_work,    NULL, 60,        true  },
    { "tell-target",  tell_target,  NULL, 90,        false },
    { "clean-up",     clean_up,     NULL, 120,       false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_unprotect = {
    .name = "unprotect",
    .company = OP_ALONE,
    .result_type = "none",
    .steps = steps,
    .ended = ended,
};
