/*
 * hand-over: a VM that runs on another host now is replicated from there (handover.h).
 *
 * On the old source; data: {host (id of the new one), epoch (its)}. Started by a cycle
 * that has found the VM there, and again when one of them has failed.
 */
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "daemon/daemon.h"
#include "daemon/handover.h"
#include "daemon/ops.h"
#include "daemon/peers.h"
#include "daemon/scheduler.h"

static uint64_t
epoch_of(struct op *op)
{
    return (uint64_t)json_int_or(op->data, "epoch", 0);
}

static const char *
host_of(struct op *op)
{
    return json_string_or(op->data, "host", "");
}

/* NULL when an earlier run has left already, with nothing to keep. */
static struct replication *
find(struct op *op)
{
    struct replication *r = NULL;

    return replications_find(op->daemon->replications, op->resource_id, &r, NULL) ? r
                                                                                  : NULL;
}

/* --- offer ------------------------------------------------------------------------ */

/* A cycle may have run between, if the VM was back for a while. Under r->lock. */
static bool
check_source(struct op *op, struct replication *r, struct error **err)
{
    if (!replication_allows(r, "sync", err))
        return false;
    return r->epoch + 1 == epoch_of(op) ||
           error_set(err, ERROR_EPOCH, "the epoch is %llu now, %llu cannot follow it",
                     (unsigned long long)r->epoch, (unsigned long long)epoch_of(op));
}

/* The cycle that started us ends; none that ships comes between this and the end. */
static bool
offer(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = find(op);
    AUTOJSON *body = NULL;
    bool ok;

    if (r == NULL)
        return error_set(err, ERROR_REPLICATION_NOT_FOUND, "it has ended meanwhile");
    if (!replication_claim(r, &op->cancel, true, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = check_source(op, r, err);
    body = ok ? handover_offer(r) : NULL;
    pthread_mutex_unlock(&r->lock);
    ok = ok && peers_call(op->daemon->peers, host_of(op), "POST", "/api/v1/peers/sources",
                          body, NULL, err);
    replication_release(r);
    return ok;
}

/* --- tell-target ------------------------------------------------------------------- */

/* After a crash much may have happened: does the VM run here again? */
static bool
check_away(struct op *op, const struct replication *r, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;
    struct error *e = NULL;

    if (hv->ops->lookup(hv, r->vm_uuid, &domain, &e))
        return domain->state == HV_STATE_OFF ||
               error_set(err, ERROR_INVALID_STATE, "VM '%s' runs on this host again",
                         r->vm_name);
    if (!error_is(e, ERROR_DOMAIN_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    return true;
}

/* It would find out by itself, some seconds later. */
static void
wake_new_source(struct op *op, struct replication *r)
{
    AUTOJSON *body = NULL;
    struct error *e = NULL;

    pthread_mutex_lock(&r->lock);
    body = handover_offer(r);
    pthread_mutex_unlock(&r->lock);
    if (!peers_call(op->daemon->peers, host_of(op), "POST", "/api/v1/peers/sources", body,
                    NULL, &e))
        log_ignore(&op->log, "new-source-not-woken", &e);
}

static bool
tell_target(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = find(op);
    AUTOJSON *body = json_object_new_object();
    AUTOFREE(char) *path = NULL;

    if (r == NULL || r->phase == PHASE_MOVED)
        return true;
    if (!check_away(op, r, err))
        return false;
    path = mem_printf("/api/v1/peers/replications/%s/source", r->id);
    json_set_string(body, "host", host_of(op));
    json_set_u64(body, "epoch", epoch_of(op));
    if (!peers_call(op->daemon->peers, r->peer_id, "PUT", path, body, NULL, err))
        return false;
    wake_new_source(op, r);
    return true;
}

/* --- leave ----------------------------------------------------------------------------
 */

static bool
leave(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = find(op);

    op->result = json_object_new_object();
    json_set_string(op->result, "host", host_of(op));
    json_set_u64(op->result, "epoch", epoch_of(op));
    return r == NULL || handover_leave(op->daemon, r, host_of(op), epoch_of(op), err);
}

/* The next cycle's error tells it, and tries again. */
static void
ended(struct op *op, const struct error *failure)
{
    AUTOPTR(replication) *r = find(op);

    if (r == NULL)
        return;
    pthread_mutex_lock(&r->lock);
    snprintf(r->move_why, sizeof r->move_why, "%s",
             failure != NULL ? error_message(failure) : "");
    pthread_mutex_unlock(&r->lock);
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name           run          undo  timeout_s  commits */
    { "offer",        offer,       NULL, 60,        false },
    { "tell-target",  tell_target, NULL, 60,        true  },
    { "leave",        leave,       NULL, 30,        false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_handover = {
    .name = "hand-over",
    .result_type = "handOver",
    .steps = steps,
    .ended = ended,
};
