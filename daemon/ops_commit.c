/*
 * commit: a failover is made final. The recovery points go, there is no undo any more;
 * then the disks become one image each in the background (flatten.h).
 *
 * data: {reverse}: at the VM's home, false: it is not replicated from here again by
 * itself (failover_after.h). Again it only sees to that, and to the background's work.
 * make-final is the one step from which there is no way back, and one commit: a crash
 * leaves either a failover that can be undone, or none of its points.
 */
#include "common/json.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/exports.h"
#include "daemon/failover_after.h"
#include "daemon/flatten.h"
#include "daemon/kept.h"
#include "daemon/ops.h"
#include "daemon/replica.h"
#include "daemon/reversal.h"

static bool
find(struct op *op, struct replication **ret, struct error **err)
{
    return replications_find(op->daemon->replications, op->resource_id, ret, err);
}

static bool
check(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok, again;

    if (!find(op, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "commit", err);
    again = r->phase == PHASE_COMMITTED;
    pthread_mutex_unlock(&r->lock);
    return ok && (again || exports_check_unused(op->daemon->exports, r, err));
}

/* --- make-final -----------------------------------------------------------------------
 */

/* The removal of each point's document, behind `n` writes that are there. */
static void
add_removals(struct points *points, struct state_write **writes, size_t *n)
{
    size_t n_points = 0;
    struct point *list = points_list(points, &n_points);

    *writes = mem_realloc(*writes, *n + n_points, sizeof **writes);
    for (size_t i = 0; i < n_points; i++) {
        char *key = NULL;

        json_object_put(points_document(points, &list[i], &key));
        (*writes)[(*n)++] = (struct state_write){ .kind = "point", .id = key };
    }
    points_list_free(list, n_points);
}

/* Only where it came from is the VM's place for good. Under r->lock. */
static bool
is_to_be_reversed(struct op *op, const struct replication *r)
{
    return reversal_is_reversed(r, op->daemon->host_id) &&
           json_bool_or(op->data, "reverse", true);
}

static void
tell_dropped(struct op *op, struct json_object *names)
{
    for (size_t i = 0; i < json_object_array_length(names); i++)
        op_warn(op, "recovery point '%s', of the end of a split brain, goes too",
                json_object_get_string(json_object_array_get_idx(names, i)));
}

/* Under r->lock. */
static bool
store_final(struct op *op, struct replication *r, struct points *points,
            struct error **err)
{
    enum replication_phase before = r->phase;
    AUTOJSON *doc = flatten_document(r);
    AUTOJSON *dropped = NULL;
    struct json_object *kept = json_object_get(r->kept);
    struct state_write *writes = mem_alloc(1, sizeof *writes);
    size_t n = 1;
    bool ok;

    writes[0] =
        (struct state_write){ .kind = FLATTEN_KIND, .id = r->vm_uuid, .body = doc };
    add_removals(points, &writes, &n);
    r->phase = PHASE_COMMITTED;
    r->newest = (struct replication_point){ .name = "" };
    failover_after_commit(r, is_to_be_reversed(op, r));
    dropped = kept_drop_all(r);
    ok = replication_store(op->daemon->replications, r, writes, n, err);
    if (ok) {
        tell_dropped(op, dropped);
    } else {
        r->phase = before;
        json_object_put(r->kept);
        r->kept = json_object_get(kept);
    }
    json_object_put(kept);
    for (size_t i = 1; i < n; i++)
        free((char *)(uintptr_t)writes[i].id);
    free(writes);
    return ok;
}

/* Asked for again, with another wish perhaps. Under r->lock. */
static bool
store_wish(struct op *op, struct replication *r, struct error **err)
{
    failover_after_commit(r, is_to_be_reversed(op, r));
    return replication_store(op->daemon->replications, r, NULL, 0, err);
}

static bool
make_final(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct points *points = NULL;
    bool ok;

    if (!find(op, &r, err) || !replica_points(op->daemon, r, &points, err) ||
        !replication_seize(r, &op->cancel, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "commit", err) &&
         (r->phase == PHASE_COMMITTED ? store_wish(op, r, err)
                                      : store_final(op, r, points, err));
    pthread_mutex_unlock(&r->lock);
    replication_release(r);
    return ok && points_remove_all(points, err); /* from memory too */
}

/* --- its end --------------------------------------------------------------------------
 */

/* What cannot begin now is tried again by itself. */
static bool
begin_flatten(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct error *e = NULL;

    if (!find(op, &r, err))
        return false;
    replica_close(r);
    if (!flatten_begin(op->daemon, r->vm_uuid, "virtdrd", &e)) {
        op_warn(op, "the disks are made one image later: %s", error_message(e));
        error_free(e);
    }
    op->result = json_object_new_object();
    json_set_string(op->result, "replication", r->id);
    json_set_string(op->result, "vmName", r->vm_name);
    json_set_u64(op->result, "epoch", r->epoch);
    pthread_mutex_lock(&r->lock);
    json_set_bool(op->result, "reverses", failover_after_reverses(r));
    pthread_mutex_unlock(&r->lock);
    events_emit(op->daemon, EVENT_INFO, &op->log, "failover-committed",
                "the failover of VM '%s' is final: its recovery points are gone",
                r->vm_name);
    return true;
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name              run            undo  timeout_s  commits */
    { "check",           check,         NULL, 10,        false },
    { "make-final",      make_final,    NULL, 60,        true  },
    { "begin-flatten",   begin_flatten, NULL, 60,        false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_commit = { .name = "commit",
                                   .result_type = "commit",
                                   .steps = steps };
