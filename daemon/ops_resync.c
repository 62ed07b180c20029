/*
 * resync: compares the disks with the replica and sends what differs, now. One that
 * waits for its window begins; one that is under way goes on. data: begun.
 */
#include "common/json.h"
#include "daemon/cycle.h"
#include "daemon/daemon.h"
#include "daemon/ops.h"
#include "daemon/scheduler.h"

static bool
begin(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!replications_find(op->daemon->replications, op->resource_id, &r, err) ||
        !replication_claim(r, &op->cancel, true, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "resync", err);
    if (ok) {
        if (r->phase == PHASE_REPLICATING)
            cycle_start_over(op->daemon, r, "the operator asked for it");
        r->resync.at_once = true;
        r->resync.held_until_ms = 0;
        r->agreed = false;
        ok = replication_store(op->daemon->replications, r, NULL, 0, err);
    }
    pthread_mutex_unlock(&r->lock);
    replication_release(r);
    return ok;
}

static bool
run_cycles(struct op *op, struct replication *r, struct error **err)
{
    bool more = true;

    while (more) {
        if (!cancel_check(&op->cancel, err) ||
            !cycle_run(op->daemon, r, &op->cancel, &more, err))
            return false;
        op_transfer(op, r->progress_done, r->progress_total);
    }
    return true;
}

static bool
compare(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct error *e = NULL;
    bool ok;

    if (!replications_find(op->daemon->replications, op->resource_id, &r, err) ||
        !replication_claim(r, &op->cancel, false, err))
        return false;
    ok = run_cycles(op, r, &e);
    scheduler_note(op->daemon->scheduler, r, e);
    replication_release(r);
    if (!ok)
        return error_propagate(err, e);
    op->result = json_object_new_object();
    pthread_mutex_lock(&r->lock);
    json_set_bool(op->result, "compare", r->resync.compare);
    json_set_u64(op->result, "comparedBytes", r->resync.looked_bytes);
    json_set_u64(op->result, "sentBytes", r->resync.sent_bytes);
    json_set_u64(op->result, "wireBytes", r->resync.wire_bytes);
    pthread_mutex_unlock(&r->lock);
    return true;
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name       run      undo  timeout_s  commits */
    { "begin",    begin,   NULL, 0,         true },
    { "compare",  compare, NULL, 0,         false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_resync = { .name = "resync",
                                   .result_type = "resync",
                                   .steps = steps };
