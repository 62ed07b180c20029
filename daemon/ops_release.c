/*
 * release-bitmaps: takes all that we record out of the VM's images, since QEMU reverts to
 * no internal snapshot with bitmaps there. Nothing is captured until the revert was seen,
 * `hold` has passed, or the operator resumes; then the disks are compared with the
 * replica.
 *
 * data: {hold: ms}; findings: heldUntil.
 */
#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/ops.h"
#include "daemon/replication.h"

/* From here on no cycle makes another bitmap, also after a crash. */
static bool
hold(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    int64_t until_ms = units_now_ms() + json_int_or(op->data, "hold", 0);
    bool ok;

    if (!replications_find(op->daemon->replications, op->resource_id, &r, err) ||
        !replication_claim(r, &op->cancel, true, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "release-bitmaps", err);
    if (ok) {
        r->resync.held_until_ms = until_ms;
        ok = replication_store(op->daemon->replications, r, NULL, 0, err);
    }
    pthread_mutex_unlock(&r->lock);
    replication_release(r);
    json_set_int(op->data, "heldUntil", until_ms);
    return ok;
}

static bool
let_go(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!replications_find(op->daemon->replications, op->resource_id, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    r->resync.held_until_ms = 0;
    ok = replication_store(op->daemon->replications, r, NULL, 0, err);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

static bool
release(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    int64_t until_ms = json_int_or(op->data, "heldUntil", 0);
    size_t n = 0;
    bool ok;

    if (!replications_find(op->daemon->replications, op->resource_id, &r, err) ||
        !replication_claim(r, &op->cancel, true, err))
        return false;
    ok = cycle_release(op->daemon, r, until_ms, &n, err);
    replication_release(r);
    if (!ok)
        return false;
    op->result = json_object_new_object();
    json_set_u64(op->result, "released", n);
    json_set_int(op->result, "heldUntil", until_ms);
    events_emit(op->daemon, EVENT_INFO, &op->log, "bitmaps-released",
                "the bitmaps of VM '%s' are removed, so that it can be reverted to a "
                "snapshot",
                r->vm_name);
    return true;
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name       run      undo    timeout_s  commits */
    { "hold",     hold,    let_go, 60,        false },
    { "release",  release, NULL,   120,       true },
    { 0 },
};
/* clang-format on */

const struct op_kind op_release = { .name = "release-bitmaps",
                                    .result_type = "release",
                                    .steps = steps };
