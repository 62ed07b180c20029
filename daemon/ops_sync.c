/*
 * sync: a cycle now, instead of when the RPO asks for it. During a first sync
 * it stays until the first recovery point is there. data: none.
 */
#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle.h"
#include "daemon/daemon.h"
#include "daemon/ops.h"
#include "daemon/resync.h"
#include "daemon/scheduler.h"

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

/* No point can be made before the disks are in line again. */
static bool
check_resync(struct op *op, struct replication *r, struct error **err)
{
    AUTOFREE(char) *text = NULL;
    int64_t until_ms;

    pthread_mutex_lock(&r->lock);
    until_ms = resync_waits_until_ms(op->daemon->config, r, units_now_ms());
    text = until_ms > 0 ? resync_wait_text(r, until_ms) : NULL;
    pthread_mutex_unlock(&r->lock);
    return text == NULL || error_set(err, ERROR_INVALID_STATE, "%s", text);
}

static bool
cycle(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct error *e = NULL;
    bool ok;

    if (!replications_find(op->daemon->replications, op->resource_id, &r, err) ||
        !replication_claim(r, &op->cancel, false, err))
        return false;
    ok = run_cycles(op, r, &e) && check_resync(op, r, &e);
    scheduler_note(op->daemon->scheduler, r, e);
    replication_release(r);
    if (!ok)
        return error_propagate(err, e);
    op->result = json_object_new_object();
    json_set_string(op->result, "point", r->newest.name);
    json_set_u64(op->result, "sequenceNumber", r->newest.sequence);
    json_set_int(op->result, "timestamp", r->newest.time_ms);
    return true;
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name     run    undo  timeout_s  commits */
    { "cycle",  cycle, NULL, 0,         false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_sync = { .name = "sync", .result_type = "point", .steps = steps };
