/*
 * verify: are the replica's disks the same as the source's, at one point in time? The
 * whole disks are read and hashed on both hosts, in slices between the cycles, at
 * [verify] rate. No arguments. A difference is a critical event, and the disks are
 * compared and what differs is sent. After a crash of the daemon it begins again.
 */
#include <poll.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle_verify.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/ops.h"
#include "daemon/scheduler.h"

#define MAX_FAILURES    6 /* slices in a row */
#define RETRY_MS        3000
#define MIN_SLICE_MS    500
#define MAX_SLICE_MS    5000
#define MAX_SLICE_BYTES (4ull << 30)
#define POLL_MS         200

struct verification {
    struct op *op;
    struct replication *r;
    struct cycle_verify v;
    uint64_t total_bytes;
    int64_t started_ms;
};

/* --- slices ------------------------------------------------------------------------ */

/* A slice delays the next point: by a part of the RPO only. */
static void
size_slice(struct verification *w)
{
    uint64_t rate = w->op->daemon->config->verify_rate_bytes;
    int64_t ms = MIN(MAX(w->r->rpo_ms / 4, MIN_SLICE_MS), MAX_SLICE_MS);

    w->v.slice_ms = ms;
    w->v.slice_bytes = MAX_SLICE_BYTES;
    if (rate > 0)
        w->v.slice_bytes = MIN(MAX_SLICE_BYTES, MAX(rate * (uint64_t)ms / 1000, 1));
}

/* Until so much may have been read, since the beginning. */
static bool
wait_until(struct verification *w, int64_t until_ms, struct error **err)
{
    int64_t left_ms;

    while ((left_ms = until_ms - units_monotonic_ms()) > 0) {
        if (!cancel_check(&w->op->cancel, err))
            return false;
        poll(NULL, 0, cancel_remaining_ms(&w->op->cancel, (int)MIN(left_ms, POLL_MS)));
    }
    return cancel_check(&w->op->cancel, err);
}

static bool
run_slice(struct verification *w, struct error **err)
{
    struct cancel cancel = { 0 }; /* who wants the claim ends the slice, not the whole */
    bool ok;

    if (!replication_claim_for(w->r, &cancel, &w->op->cancel, err))
        return false;
    size_slice(w);
    ok = cycle_verify(w->op->daemon, w->r, &cancel, &w->v, err);
    if (!ok) /* the next cycle asks the target what it has */
        w->r->agreed = false;
    replication_release(w->r);
    scheduler_wake(w->op->daemon->scheduler, w->r);
    return ok;
}

static bool
run_slices(struct verification *w, struct error **err)
{
    uint64_t rate = w->op->daemon->config->verify_rate_bytes;
    int64_t begun_ms = units_monotonic_ms();
    unsigned failures = 0;

    while (!w->v.complete) {
        struct error *e = NULL;
        int64_t until_ms;

        if (!cancel_check(&w->op->cancel, err))
            return false;
        if (run_slice(w, &e))
            failures = 0;
        else if (++failures == MAX_FAILURES || error_is(e, ERROR_INVALID_STATE))
            return error_propagate(err, e);
        error_clear(&e);
        op_transfer(w->op, w->v.compared_bytes, w->total_bytes);
        until_ms = rate > 0 ? begun_ms + (int64_t)(w->v.compared_bytes * 1000 / rate) : 0;
        if (failures > 0)
            until_ms = units_monotonic_ms() + RETRY_MS;
        if (!w->v.complete && !wait_until(w, until_ms, err))
            return false;
    }
    return true;
}

/* --- what came of it ------------------------------------------------------------------
 */

static struct json_object *
differences_json(const struct cycle_verify *v)
{
    struct json_object *array = json_object_new_array();

    for (size_t i = 0; i < MIN(v->n_differences, CYCLE_VERIFY_DIFFERENCES); i++) {
        struct json_object *o = json_object_new_object();

        json_set_string(o, "target", v->differences[i].target);
        json_set_u64(o, "offset", v->differences[i].offset);
        json_set_u64(o, "length", v->differences[i].length);
        json_object_array_add(array, o);
    }
    return array;
}

/* Told, and put right: the cycles that follow compare. Under r->lock, claimed. */
static void
repair(struct verification *w)
{
    const struct cycle_verify *v = &w->v;
    char size[UNITS_TEXT_MAX];

    events_emit(w->op->daemon, EVENT_CRITICAL, &w->op->log, "replica-differs",
                "the replica of VM '%s' is not the same as its disks: %s in %zu places, "
                "the first on disk '%s' at %llu; what differs is sent anew, and earlier "
                "points may have the difference too",
                w->r->vm_name, units_format_size(v->different_bytes, size),
                v->n_differences, v->differences[0].target,
                (unsigned long long)v->differences[0].offset);
    if (w->r->phase != PHASE_REPLICATING)
        return;
    cycle_start_over(w->op->daemon, w->r,
                     "a verification found that the replica differs");
    w->r->resync.at_once = true;
    w->r->agreed = false;
}

static bool
record(struct verification *w, struct error **err)
{
    struct replication *r = w->r;
    bool differs = w->v.different_bytes > 0, ok;

    if (differs && !replication_claim(r, NULL, true, err))
        return false;
    pthread_mutex_lock(&r->lock);
    r->verify = (struct replication_verify){ .started_ms = w->started_ms,
                                             .ended_ms = units_now_ms(),
                                             .complete = w->v.complete,
                                             .compared_bytes = w->v.compared_bytes,
                                             .different_bytes = w->v.different_bytes,
                                             .differences = w->v.n_differences };
    if (differs)
        repair(w);
    ok = replication_store(w->op->daemon->replications, r, NULL, 0, err);
    w->op->result = json_object_new_object();
    json_set_string(w->op->result, "outcome", replication_verify_outcome(&r->verify));
    pthread_mutex_unlock(&r->lock);
    if (differs)
        replication_release(r);
    json_set_u64(w->op->result, "comparedBytes", w->v.compared_bytes);
    json_set_u64(w->op->result, "differentBytes", w->v.different_bytes);
    json_set(w->op->result, "differences", differences_json(&w->v));
    scheduler_wake(w->op->daemon->scheduler, r);
    return ok;
}

/* One at a time. */
static bool
enter(struct verification *w, struct error **err)
{
    struct replication *r = w->r;
    bool ok;

    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "verify", err) &&
         (!r->verifying || error_set(err, ERROR_IN_PROGRESS,
                                     "VM '%s' is being verified already", r->vm_name));
    if (ok)
        r->verifying = true;
    for (size_t i = 0; i < json_object_array_length(r->disks); i++) {
        struct json_object *disk = json_object_array_get_idx(r->disks, i);

        if (!json_bool_or(disk, "excluded", false))
            w->total_bytes += (uint64_t)json_int_or(disk, "capacity", 0);
    }
    pthread_mutex_unlock(&r->lock);
    return ok;
}

static void
leave(struct replication *r)
{
    pthread_mutex_lock(&r->lock);
    r->verifying = false;
    pthread_mutex_unlock(&r->lock);
}

static bool
verify(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct verification w = { .op = op, .started_ms = units_now_ms() };
    struct error *e = NULL;
    bool ok;

    if (!replications_find(op->daemon->replications, op->resource_id, &r, err))
        return false;
    w.r = r;
    if (!enter(&w, err))
        return false;
    ok = run_slices(&w, &e);
    ok = record(&w, ok ? &e : NULL) && ok; /* what was found counts, whatever came then */
    leave(r);
    return ok || error_propagate(err, e);
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name      run     undo  timeout_s  commits */
    { "verify",  verify, NULL, 0,         false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_verify = {
    .name = "verify", .company = OP_BESIDE, .result_type = "verify", .steps = steps
};
