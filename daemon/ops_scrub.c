/*
 * scrub: reads a replica's journals and sealed layers and compares them with
 * their checksums, in the background.
 *
 * No arguments. What is found is marked at the points that need it, told as a
 * critical event, and sent anew by the source if the newest disks are hit.
 * After a crash of the daemon it begins again.
 */
#include "common/json.h"
#include "common/units.h"
#include "daemon/events.h"
#include "daemon/ops.h"
#include "daemon/replica_private.h"

struct scrub {
    struct op *op;
    struct replication *r;
    struct points *points;
    struct json_object *found;
    bool resync;
};

static struct json_object *
damage_json(const struct store_damage *damage)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "file", damage->file);
    json_set_u64(o, "firstSequence", damage->first);
    if (damage->last < UINT64_MAX)
        json_set_u64(o, "lastSequence", damage->last);
    json_set_bool(o, "newestDisks", damage->tip);
    json_set_string(o, "text", damage->text);
    return o;
}

static void
take_damage(const struct store_damage *damage, void *opaque)
{
    struct scrub *s = opaque;
    struct error *e = NULL;

    json_object_array_add(s->found, damage_json(damage));
    /* First, so that no point is taken in which the next line does not see. */
    if (damage->tip)
        replica_set_damaged(s->op->daemon, s->r, damage->text);
    if (!points_set_damaged(s->points, damage->first, damage->last, damage->text, &e))
        log_ignore(&s->op->log, "damage-not-stored", &e);
    events_emit(s->op->daemon, EVENT_CRITICAL, &s->op->log, "replica-damage-found",
                "replica of VM '%s': %s", s->r->vm_name, damage->text);
    s->resync = s->resync || damage->tip;
}

static void
take_progress(uint64_t done, uint64_t total, void *opaque)
{
    struct scrub *s = opaque;

    op_transfer(s->op, done, total);
}

static bool
record(struct scrub *s, int64_t started_ms, uint64_t bytes, struct error **err)
{
    struct replication *r = s->r;
    bool ok;

    pthread_mutex_lock(&r->lock);
    r->scrub = (struct replication_scrub){
        .started_ms = started_ms,
        .ended_ms = units_now_ms(),
        .checked_bytes = bytes,
        .damages = json_object_array_length(s->found),
    };
    ok = replication_store(s->op->daemon->replications, r, NULL, 0, err);
    pthread_mutex_unlock(&r->lock);
    s->op->result = json_object_new_object();
    json_set_u64(s->op->result, "checkedBytes", bytes);
    json_set(s->op->result, "damages", json_object_get(s->found));
    json_set_bool(s->op->result, "resyncNeeded", s->resync);
    return ok;
}

static bool
read_all(struct scrub *s, struct cancel *cancel, struct error **err)
{
    struct store_effort effort = {
        .rate_bytes_s = s->op->daemon->config->scrub_rate_bytes,
        .cancel = cancel,
        .progress = take_progress,
        .opaque = s,
    };
    int64_t started_ms = units_now_ms();
    struct store *store;
    uint64_t bytes = 0;

    return !replica_is_given_up(s->r) &&
           replica_store(s->op->daemon, s->r, &store, err) &&
           store->ops->scrub(store, &effort, take_damage, s, &bytes, err) &&
           record(s, started_ms, bytes, err);
}

/* Not the operator, nor the daemon's end: the replica was taken away. */
static bool
is_stopped(struct scrub *s, struct cancel *cancel)
{
    return cancel_check(&s->op->cancel, NULL) &&
           (!cancel_check(cancel, NULL) || replica_is_given_up(s->r));
}

static bool
scrub(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *found = json_object_new_array();
    struct scrub s = { .op = op, .found = found };
    struct cancel cancel = { .above = &op->cancel };
    struct error *e = NULL;
    bool ok;

    if (!replications_find(op->daemon->replications, op->resource_id, &r, err) ||
        !replica_points(op->daemon, r, &s.points, err) ||
        !replica_lock_layers(r, &cancel, err))
        return false;
    s.r = r;
    ok = read_all(&s, &cancel, &e);
    replica_unlock_layers(r);
    if (ok)
        return true;
    if (!is_stopped(&s, &cancel))
        return error_propagate(err, e);
    error_free(e);
    return error_set(err, ERROR_INVALID_STATE,
                     "VM '%s' was failed over or unprotected meanwhile", r->vm_name);
}

static const struct op_step steps[] = {
    { "scrub", scrub, NULL, 0, false },
    { 0 },
};

const struct op_kind op_scrub = {
    .name = "scrub", .company = OP_BESIDE, .result_type = "scrub", .steps = steps
};
