/*
 * planned-failover: the VM moves to the host of its replica, and nothing is lost.
 *
 * On the target. data: {shutdown (graceful, force), timeout, networks, addresses, reverse
 * (false: the VM stays unprotected then)}; delta
 * is always 'must'; the rest as failover_steps.h has it. Until the VM runs here, whatever
 * fails or is cancelled is undone: this host gives it back as an undo does, under another
 * epoch, and the source starts it again.
 */
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/daemon.h"
#include "daemon/failover_steps.h"
#include "daemon/ops.h"
#include "daemon/homecoming.h"
#include "daemon/kept.h"
#include "daemon/peers.h"
#include "daemon/planned_steps.h"
#include "daemon/replica.h"
#include "daemon/reversal.h"
#include "daemon/undo_steps.h"
#include "drivers/hypervisor.h"
#include "drivers/store/qcow2.h"

static bool
find(struct op *op, struct replication **ret, struct error **err)
{
    return replications_find(op->daemon->replications, op->resource_id, ret, err);
}

/* --- check -------------------------------------------------------------------------- */

/* Before the source shuts anything down: could it be defined here? */
static bool
check_free(struct op *op, struct replication *r, struct error **err)
{
    const char *const keys[] = { r->vm_uuid, r->vm_name };
    struct hypervisor *hv = op->daemon->hypervisor;

    for (size_t i = 0; i < N_ELEMENTS(keys); i++) {
        AUTOPTR(hv_domain) *domain = NULL;
        struct error *e = NULL;

        if (hv->ops->lookup(hv, keys[i], &domain, &e)) {
            if (strcmp(domain->uuid, r->vm_uuid) == 0 && homecoming_is(r))
                continue; /* it has run here before */
            return error_set(err, ERROR_EXISTS,
                             "this host has a domain '%s' (UUID %s) already; undefine or "
                             "rename it first",
                             domain->name, domain->uuid);
        }
        if (!error_is(e, ERROR_DOMAIN_NOT_FOUND))
            return error_propagate(err, e);
        error_free(e);
    }
    return true;
}

static bool
check_space(struct op *op, struct replication *r, struct error **err)
{
    const struct config_storage *storage = config_storage(op->daemon->config, r->storage);
    uint64_t used, free_bytes;
    char have[UNITS_TEXT_MAX];

    if (storage == NULL)
        return error_set(err, ERROR_STORAGE_NOT_FOUND, "this host has no storage '%s'",
                         r->storage);
    if (!store_qcow2_ops.space(storage->path, &used, &free_bytes, err))
        return false;
    return free_bytes >= storage->reserve_bytes ||
           error_set(err, ERROR_NO_SPACE, "storage '%s' has only %s free", storage->name,
                     units_format_size(free_bytes, have));
}

static bool
check_source(struct op *op, struct replication *r, struct error **err)
{
    AUTOJSON *answer = NULL;
    enum failover_source does = failover_ask_source(op, r, &answer);
    const char *phase = json_string_or(answer, "phase", "?");

    if (does == SOURCE_SILENT || does == SOURCE_UNCLEAR)
        return error_set(err, ERROR_CONNECT,
                         "the source of VM '%s' does not answer; if it is lost: virt-dr "
                         "failover %s",
                         r->vm_name, r->vm_name);
    if (does == SOURCE_DEPARTED)
        return error_set(err, ERROR_INVALID_STATE,
                         "VM '%s' has left its source, which cannot shut it down",
                         r->vm_name);
    return strcmp(phase, states_name(PHASE_REPLICATING)) == 0 ||
           strcmp(phase, states_name(PHASE_PREPARED)) == 0 ||
           error_set(err, ERROR_INVALID_STATE,
                     "VM '%s' is '%s' at its source: wait until it replicates",
                     r->vm_name, phase);
}

bool
planned_check(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!find(op, &r, err))
        return false;
    if (json_int_or(op->data, "started", 0) == 0)
        json_set_int(op->data, "started", units_now_ms());
    json_set_string(op->data, "delta", "must");
    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "planned-failover", err);
    pthread_mutex_unlock(&r->lock);
    return ok && check_free(op, r, err) && check_space(op, r, err) &&
           check_source(op, r, err);
}

/* Also before anything is shut down: what the reversal at the end would refuse. */
static bool
check(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;

    return planned_check(op, err) && find(op, &r, err) &&
           (!json_bool_or(op->data, "reverse", true) || kept_check_none(r, err) ||
            error_prefix(err, "it could not be replicated back (see --no-reverse)"));
}

/* --- choose-point, raise-epoch -------------------------------------------------------
 */

/* The newest one here, and it has to be the source's last. */
bool
planned_choose_final(struct op *op, struct error **err)
{
    const char *final = json_string_or(op->data, "finalPoint", "");

    return failover_choose_point(op, err) &&
           (strcmp(final, json_string_or(op->data, "point", "?")) == 0 ||
            error_set(err, ERROR_INVALID_STATE,
                      "the newest point here is not the last one of the source"));
}

/* An earlier run of this step may have raised it already. */
bool
planned_raise_epoch(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool begun;

    if (!find(op, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    begun = r->phase == PHASE_FAILING_OVER;
    pthread_mutex_unlock(&r->lock);
    return (begun || failover_check_prepared(op, err)) && failover_raise_epoch(op, err);
}

/* All of the steps behind it too: each waits for the one before, so that the source
   hears of nothing that may be untrue (I3). */
bool
planned_give_back(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ours;

    if (!find(op, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ours = r->phase == PHASE_FAILING_OVER || r->phase == PHASE_UNDOING;
    if (ours) /* the step may have been cut between the epoch and its finding */
        json_set_u64(op->data, "epoch", r->epoch);
    pthread_mutex_unlock(&r->lock);
    return !ours ||
           (undo_forbid_start(op, err) && undo_remove_domain(op, err) &&
            undo_remove_images(op, err) && undo_give_back(op, err)) ||
           error_prefix(err, "give VM '%s' back to its source (run: virt-dr undo %s)",
                        r->vm_name, r->vm_name);
}

/* The VM runs here and is protected again, unless that is not wanted. */
static bool
reverse_direction(struct op *op, struct error **err)
{
    return !json_bool_or(op->data, "reverse", true) || reversal_follow(op, err);
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name              run                      undo                     timeout_s  commits */
    { "check",           check,                   NULL,                    30,        false },
    { "prepare-source",  failover_prepare_source, failover_release_source, 0,         false },
    { "choose-point",    planned_choose_final,    NULL,                    10,        false },
    { "raise-epoch",     planned_raise_epoch,     planned_give_back,       300,       false },
    { "make-overlay",    failover_make_overlay,   NULL,                    600,       false },
    { "define-domain",   failover_define_domain,  NULL,                    60,        false },
    { "set-addresses",   failover_set_addresses,  NULL,                    60,        false },
    { "start-domain",    failover_start_domain,   NULL,                    120,       true  },
    { "record",          failover_record,         NULL,                    30,        false },
    { "reverse-direction", reverse_direction,     NULL,                    300,       false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_planned = { .name = "planned-failover",
                                    .result_type = "failover",
                                    .steps = steps,
                                    .ended = failover_ended };
