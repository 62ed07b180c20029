/*
 * resolve: a split brain ends, on the host whose VM is given up. What that has written
 * is kept: a target's images as a recovery point (kept.h), a source's where they are.
 *
 * data: epoch, as it was at first; kept, the point's name; time, when its VM was stopped.
 * Before forbid-start nothing has happened. From there on the way is forward: a target is
 * 'resolving' until it has given the VM back, a source is superseded as before. The
 * source hears of the end by contact and goes on.
 *
 * resolve-there: the same for the host whose VM stays. It asks the other one for that,
 * and waits until it has ended. data: task, of the other host.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/guard_override.h"
#include "daemon/guard_sentence.h"
#include "daemon/kept.h"
#include "daemon/ops.h"
#include "daemon/ops_failover.h"
#include "daemon/peers.h"
#include "daemon/replica.h"
#include "daemon/split_brain.h"
#include "drivers/hypervisor.h"

#define WAIT_S  300
#define POLL_MS 500

static bool
find(struct op *op, struct replication **ret, struct error **err)
{
    return replications_find(op->daemon->replications, op->resource_id, ret, err);
}

static uint64_t
epoch_of(struct op *op)
{
    return (uint64_t)json_int_or(op->data, "epoch", 0);
}

/* Did the VM come here by a failover? Else somebody defined it by hand. Under r->lock. */
static bool
was_failed_over(const struct replication *r)
{
    return r->side == SIDE_TARGET &&
           (r->phase == PHASE_FAILING_OVER || r->phase == PHASE_FAILED_OVER ||
            r->phase == PHASE_RESOLVING);
}

/* --- check
 * ------------------------------------------------------------------------------
 */

/* A source that nobody has superseded has nobody to yield to. Under r->lock. */
static bool
check_claims(const struct replication *r, struct error **err)
{
    if (r->side == SIDE_TARGET || r->phase == PHASE_SUPERSEDED)
        return true;
    return error_set(
        err, ERROR_INVALID_STATE,
        "the other host did not fail VM '%s' over, somebody started it there "
        "by hand: only this host's VM can be kept",
        r->vm_name);
}

static bool
check(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!find(op, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "resolve", err) && check_claims(r, err);
    if (epoch_of(op) == 0)
        json_set_u64(op->data, "epoch", r->epoch);
    json_set_bool(op->data, "ours", was_failed_over(r));
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* --- forbid-start
 * ------------------------------------------------------------------------
 */

/* Under r->lock. */
static bool
forbid(struct op *op, struct replication *r, struct error **err)
{
    struct daemon *d = op->daemon;
    enum replication_phase before = r->phase;

    if (!replication_allows(r, "resolve", err))
        return false;
    if (r->side == SIDE_SOURCE)
        return guard_refuse(d, r, PHASE_SUPERSEDED, err);
    if (!was_failed_over(r))
        return guard_refuse(d, r, r->phase, err);
    if (!guard_refuse(d, r, PHASE_RESOLVING, err))
        return false;
    r->phase = PHASE_RESOLVING;
    if (replication_store(d->replications, r, NULL, 0, err))
        return true;
    r->phase = before;
    return false;
}

/* The guard first: whatever is cut off after it, the VM does not start here again. */
static bool
forbid_start(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!find(op, &r, err) || !replication_seize(r, &op->cancel, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = forbid(op, r, err);
    pthread_mutex_unlock(&r->lock);
    replication_release(r);
    return ok && guard_override_end(&op->daemon->guard, r->vm_uuid, err);
}

/* --- stop
 * ------------------------------------------------------------------------------- */

/* What was in its memory is lost as with its power; what it has written is not. */
static bool
stop_domain(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOPTR(replication) *r = NULL;
    struct error *e = NULL;

    if (!find(op, &r, err))
        return false;
    if (json_int_or(op->data, "time", 0) == 0)
        json_set_int(op->data, "time", units_now_ms());
    if (split_brain_suspend(op->daemon, r, &e) && hv->ops->destroy(hv, r->vm_uuid, &e))
        return true;
    if (!error_is(e, ERROR_DOMAIN_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    return true;
}

/* --- keep-data
 * ----------------------------------------------------------------------------
 */

static bool
remove_file(const char *folder, const char *name, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("%s/%s", folder, name);

    return unlink(path) == 0 || errno == ENOENT ||
           error_errno(err, ERROR_STORE, "remove '%s'", path);
}

/* The VM's own variables take the place of the point's. True if there are none. */
static bool
keep_nvram(const struct replication *r, uint64_t epoch, const char *overlay,
           struct error **err)
{
    AUTOFREE(char) *name = failover_nvram(epoch);
    AUTOFREE(char) *from = mem_printf("%s/%s", r->folder, name);
    AUTOFREE(char) *to = mem_printf("%s/overlay/%s/nvram", r->folder, overlay);

    return rename(from, to) == 0 || errno == ENOENT ||
           error_errno(err, ERROR_STORE, "rename '%s'", from);
}

static bool
keep_overlay(struct op *op, struct replication *r, const char *as, struct error **err)
{
    AUTOFREE(char) *overlay = failover_overlay(epoch_of(op));
    AUTOFREE(char) *tpm = failover_tpm_mark(epoch_of(op));
    struct store *store;
    bool ok;

    replica_lock_tip(r);
    ok = keep_nvram(r, epoch_of(op), overlay, err) &&
         replica_store(op->daemon, r, &store, err) &&
         store->ops->overlay_keep(store, overlay, as, err);
    replica_unlock_tip(r);
    return ok && remove_file(r->folder, tpm, err);
}

static bool
note_kept(struct op *op, struct replication *r, const char *overlay, struct error **err)
{
    int64_t time_ms = json_int_or(op->data, "time", 0);
    AUTOFREE(char) *name = kept_name(time_ms);
    bool ok;

    pthread_mutex_lock(&r->lock);
    kept_add(r, name, overlay, time_ms);
    ok = replication_store(op->daemon->replications, r, NULL, 0, err);
    pthread_mutex_unlock(&r->lock);
    json_set_string(op->data, "kept", name);
    return ok;
}

/* A source's images stay as they are, and what somebody defined by hand is not ours. A
   failover that had no images yet has nothing to keep. */
static bool
keep_data(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOFREE(char) *kept = kept_overlay(epoch_of(op));
    AUTOPTR(replication) *r = NULL;

    if (!find(op, &r, err))
        return false;
    if (r->side == SIDE_SOURCE || !json_bool_or(op->data, "ours", false))
        return true;
    if (!hv->ops->undefine(hv, r->vm_uuid, err))
        return false;
    if (!keep_overlay(op, r, kept, err))
        return false;
    return note_kept(op, r, kept, err);
}

/* --- give-back
 * -----------------------------------------------------------------------------
 */

/* Nothing is raised that is not stored. Under r->lock. */
static bool
raise_epoch(struct op *op, struct replication *r, struct error **err)
{
    if (r->phase != PHASE_RESOLVING)
        return true; /* an earlier run did, or there is nothing to give */
    r->epoch++;
    r->phase = r->sync.name[0] != '\0' ? PHASE_RESYNCING : PHASE_REPLICATING;
    if (replication_store(op->daemon->replications, r, NULL, 0, err))
        return true;
    r->epoch--;
    r->phase = PHASE_RESOLVING;
    return false;
}

static void
fill_result(struct op *op, struct replication *r)
{
    const char *kept = json_string_or(op->data, "kept", NULL);

    op->result = json_object_new_object();
    json_set_string(op->result, "replication", r->id);
    json_set_string(op->result, "vmName", r->vm_name);
    json_set_u64(op->result, "epoch", r->epoch);
    json_set_string(op->result, "kept", kept);
    if (kept != NULL)
        events_emit(op->daemon, EVENT_WARNING, &op->log, "split-brain-resolved",
                    "VM '%s' is the other host's; what it has written here is kept as "
                    "recovery point '%s'",
                    r->vm_name, kept);
    else
        events_emit(op->daemon, EVENT_WARNING, &op->log, "split-brain-resolved",
                    "VM '%s' is the other host's; it was stopped here, its disks stay as "
                    "they are and are locked",
                    r->vm_name);
}

/* From the moment that this is durable on, a target's VM is the source's (I3). */
static bool
give_back(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!find(op, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = raise_epoch(op, r, err) && guard_refuse(op->daemon, r, r->phase, err);
    pthread_mutex_unlock(&r->lock);
    if (ok)
        fill_result(op, r);
    return ok;
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name              run            undo  timeout_s  commits */
    { "check",           check,         NULL, 10,        false },
    { "forbid-start",    forbid_start,  NULL, 30,        true  },
    { "stop-domain",     stop_domain,   NULL, 120,       false },
    { "keep-data",       keep_data,     NULL, 120,       false },
    { "give-back",       give_back,     NULL, 30,        false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_resolve = { .name = "resolve",
                                    .result_type = "resolve",
                                    .steps = steps };

/* --- on the host whose VM stays
 * ---------------------------------------------------------
 */

/* What is not ours by a failover cannot be kept: there is nothing that it grew from. */
static bool
check_winner(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!find(op, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "resolve", err);
    if (ok && r->side == SIDE_TARGET && !was_failed_over(r))
        ok = error_set(
            err, ERROR_INVALID_STATE,
            "VM '%s' was not failed over to this host, somebody started it here "
            "by hand: only the other host's VM can be kept",
            r->vm_name);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

static bool
ask_loser(struct op *op, struct error **err)
{
    AUTOFREE(char) *path =
        mem_printf("/api/v1/peers/replications/%s/resolve", op->resource_id);
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *task = NULL;
    struct error *e = NULL;

    if (!find(op, &r, err))
        return false;
    if (peers_call(op->daemon->peers, r->peer_id, "POST", path, body, &task, &e)) {
        json_set_string(op->data, "task", json_string_or(task, "id", ""));
        return true;
    }
    /* An earlier run has asked, or the operator did there: what becomes of it counts. */
    if (!error_is(e, ERROR_IN_PROGRESS))
        return error_propagate(err, e);
    error_free(e);
    return true;
}

/* Has it ended there? *ret_ended; false: it failed. */
static bool
ask_how_far(struct op *op, struct replication *r, bool *ret_ended, struct error **err)
{
    AUTOFREE(char) *path =
        mem_printf("/api/v1/peers/replications/%s/resolve", op->resource_id);
    AUTOJSON *answer = NULL;
    AUTOJSON *said = json_object_new_object();
    struct json_object *error;

    *ret_ended = false;
    if (!peers_call(op->daemon->peers, r->peer_id, "GET", path, said, &answer, err))
        return false;
    error = json_object_or_null(answer, "error");
    if (error != NULL) {
        json_to_error(error, err);
        return error_prefix(err, "on the other host");
    }
    *ret_ended = json_bool_or(answer, "isOver", false);
    if (*ret_ended)
        json_set_string(op->data, "kept", json_string_or(answer, "kept", NULL));
    return true;
}

static bool
wait_for_loser(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ended = false;

    if (!find(op, &r, err))
        return false;
    while (!ended) {
        if (!ask_how_far(op, r, &ended, err))
            return false;
        if (!ended && !cancel_check(&op->cancel, err))
            return false;
        if (!ended)
            poll(NULL, 0, cancel_remaining_ms(&op->cancel, POLL_MS));
    }
    return true;
}

/* A source learns by contact that the VM is its own again. */
static bool
go_on(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ours = false;

    if (!find(op, &r, err))
        return false;
    while (!ours) {
        pthread_mutex_lock(&r->lock);
        ours = r->phase != PHASE_SUPERSEDED;
        pthread_mutex_unlock(&r->lock);
        if (!ours && !cancel_check(&op->cancel, err))
            return false;
        if (!ours)
            poll(NULL, 0, cancel_remaining_ms(&op->cancel, POLL_MS));
    }
    split_brain_release(op->daemon, r);
    op->result = json_object_new_object();
    json_set_string(op->result, "replication", r->id);
    json_set_string(op->result, "vmName", r->vm_name);
    json_set_u64(op->result, "epoch", r->epoch);
    json_set_string(op->result, "kept", json_string_or(op->data, "kept", NULL));
    return true;
}

/* clang-format off */
static const struct op_step steps_there[] = {
    /* name              run             undo  timeout_s  commits */
    { "check",           check_winner,   NULL, 10,        false },
    { "ask-loser",       ask_loser,      NULL, 60,        true  },
    { "wait-for-loser",  wait_for_loser, NULL, WAIT_S,    false },
    { "go-on",           go_on,          NULL, 60,        false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_resolve_there = { .name = "resolve-there",
                                          .result_type = "resolve",
                                          .steps = steps_there };
