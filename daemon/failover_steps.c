#include "daemon/failover_steps.h"

#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/failover_after.h"
#include "daemon/originals.h"
#include "daemon/peers.h"
#include "daemon/readiness.h"
#include "daemon/replica.h"

#define CHECK_HOLDS_MS 60000 /* for so long it is believed what the source said */

/* --- choose-point --------------------------------------------------------------- */

static void
note_point(struct op *op, struct replication *r, const struct point *point)
{
    json_set_string(op->data, "point", point->name);
    json_set_u64(op->data, "sequence", point->sequence);
    json_set_int(op->data, "time", point->time_ms);
    pthread_mutex_lock(&r->lock);
    if (point->sequence == r->newest.sequence)
        json_set_int(op->data, "time",
                     r->newest.time_ms); /* nothing changed until then */
    json_set_int(op->data, "contact", r->contact_ms);
    pthread_mutex_unlock(&r->lock);
}

/* Retention must not let it go before the overlay stands on it. */
static bool
hold_point(struct op *op, struct replication *r, struct error **err)
{
    struct point_select select;
    struct point point;

    if (!point_select_parse(json_object_or_null(op->data, "select"), &select, err) ||
        !replica_hold_point(op->daemon, r, op, &select, &point, err))
        return false;
    note_point(op, r, &point);
    point_clear(&point);
    return true;
}

bool
failover_choose_point(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!replications_find(op->daemon->replications, op->resource_id, &r, err))
        return false;
    if (json_int_or(op->data, "started", 0) == 0)
        json_set_int(op->data, "started", units_now_ms());
    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "failover", err);
    pthread_mutex_unlock(&r->lock);
    if (!ok)
        return false;
    originals_warn(op, r);
    readiness_warn(op, r);
    return hold_point(op, r, err);
}

/* --- check-source ---------------------------------------------------------------- */

/* What it says of the VM, for a person; NULL: nothing that stands against a failover. */
static const char *
objection(enum failover_source does)
{
    switch (does) {
    case SOURCE_RUNS:
        return "runs";
    case SOURCE_DEPARTED:
        return "cannot say on which host now runs";
    case SOURCE_UNCLEAR:
        return "perhaps runs";
    case SOURCE_OFF:
    case SOURCE_SILENT:
        break;
    }
    return NULL;
}

static bool
is_shutdown(struct op *op, const char *policy)
{
    return strcmp(json_string_or(op->data, "shutdown", "refuse"), policy) == 0;
}

bool
failover_check_source(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    enum failover_source does;

    if (!replications_find(op->daemon->replications, op->resource_id, &r, err))
        return false;
    json_set_int(op->data, "checked", units_now_ms());
    does = failover_ask_source(op, r, NULL);
    json_set_bool(op->data, "off", does == SOURCE_OFF);
    if (objection(does) == NULL)
        return true;
    if (does == SOURCE_RUNS &&
        (is_shutdown(op, "graceful") || is_shutdown(op, "force")) &&
        !json_bool_or(op->data, "stopped", false)) {
        json_set_bool(op->data, "stop", true);
        return true;
    }
    if (!is_shutdown(op, "leave"))
        return error_set(err, ERROR_SOURCE_ALIVE,
                         "the source answers and %s VM '%s'; stop it there first, let it "
                         "be shut down (--shutdown graceful), or use --force if it must "
                         "not wait",
                         objection(does), r->vm_name);
    op_warn(op, "the source still %s VM '%s': forced all the same; stop it there at once",
            objection(does), r->vm_name);
    return true;
}

bool
failover_stop_source(struct op *op, struct error **err)
{
    return !json_bool_or(op->data, "stop", false) || failover_prepare_source(op, err);
}

/* --- raise-epoch ------------------------------------------------------------------ */

/* Was the source asked just now? After a restart of this daemon it may be back. */
static bool
is_checked(struct op *op, struct replication *r)
{
    int64_t age_ms = units_now_ms() - json_int_or(op->data, "checked", 0);
    bool begun;

    pthread_mutex_lock(&r->lock);
    begun = r->phase == PHASE_FAILING_OVER;
    pthread_mutex_unlock(&r->lock);
    return begun || (age_ms >= 0 && age_ms < CHECK_HOLDS_MS);
}

/* Nothing is raised that is not stored: peers are told what is in memory. Under r->lock.
 */
static bool
take_over(struct op *op, struct replication *r, struct error **err)
{
    enum replication_phase before = r->phase;

    if (!replication_allows(r, "failover", err))
        return false;
    if (r->phase == PHASE_FAILING_OVER)
        return true;
    r->epoch++;
    r->phase = PHASE_FAILING_OVER;
    if (replication_store(op->daemon->replications, r, NULL, 0, err))
        return true;
    r->epoch--;
    r->phase = before;
    return false;
}

/* On stable storage, state first, then the guard, before anything is started (I3). */
bool
failover_raise_epoch(struct op *op, struct error **err)
{
    struct daemon *d = op->daemon;
    AUTOPTR(replication) *r = NULL;
    struct guard_record record = { .may_run = true, .unconfirmed = GUARD_START };
    bool ok;

    if (!replications_find(d->replications, op->resource_id, &r, err) ||
        (!is_checked(op, r) && !failover_check_source(op, err)) ||
        !replication_seize(r, &op->cancel, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = take_over(op, r, err);
    json_set_u64(op->data, "epoch", r->epoch);
    record.epoch = r->epoch;
    record.vm = r->vm_name;
    pthread_mutex_unlock(&r->lock);
    /* An exchange may have ended since the point was chosen. */
    ok = ok && hold_point(op, r, err) &&
         guard_write(&d->guard, r->vm_uuid, &record, err) &&
         guard_confirm(&d->guard, r->vm_uuid, record.epoch, err);
    replication_release(r);
    return ok;
}
/* --- record ---------------------------------------------------------------------------
 */

static void
fill_result(struct op *op, struct replication *r)
{
    struct json_object *point = json_object_new_object();
    int64_t time_ms = json_int_or(op->data, "time", 0);
    bool all = strcmp(json_string_or(op->data, "finalPoint", ""),
                      json_string_or(op->data, "point", "?")) == 0;
    int64_t lost_ms = all ? 0 : MAX(json_int_or(op->data, "contact", 0) - time_ms, 0);
    int64_t running_ms = json_int_or(op->data, "running", 0);
    int64_t took_ms = (running_ms > 0 ? running_ms : units_now_ms()) -
                      json_int_or(op->data, "started", 0);

    json_set_string(point, "key", json_string_or(op->data, "point", ""));
    json_set_int(point, "timestamp", time_ms);
    json_set_int(point, "sequenceNumber", json_int_or(op->data, "sequence", 0));
    op->result = json_object_new_object();
    json_set_string(op->result, "replication", r->id);
    json_set_string(op->result, "vmName", r->vm_name);
    json_set(op->result, "point", point);
    json_set_double(op->result, "rpoSeconds", (double)lost_ms / 1000);
    json_set_double(op->result, "rtoSeconds", (double)took_ms / 1000);
    json_set_int(op->result, "epoch", json_int_or(op->data, "epoch", 0));
    json_set_bool(op->result, "running", running_ms > 0);
    json_set_bool(op->result, "fenced", json_bool_or(op->data, "fenced", false));
    json_set(op->result, "steps", op_steps(op));
    json_set(op->result, "report",
             json_object_get(json_array_or_null(op->data, "report")));
}

/* Where the VM here has come from. */
static struct json_object *
fork_of(struct op *op)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "point", json_string_or(op->data, "point", ""));
    json_set_int(o, "sequence", json_int_or(op->data, "sequence", 0));
    json_set_int(o, "time", json_int_or(op->data, "time", 0));
    json_set_string(o, "record", json_string_or(op->data, "record", NULL));
    json_set_string(o, "defined", json_string_or(op->data, "defined", NULL));
    return o;
}

bool
failover_record(struct op *op, struct error **err)
{
    struct daemon *d = op->daemon;
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!replications_find(d->replications, op->resource_id, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    r->phase = PHASE_FAILED_OVER;
    json_object_put(r->fork);
    r->fork = fork_of(op);
    failover_after_begin(r, json_object_or_null(op->data, "auto"));
    ok = replication_store(d->replications, r, NULL, 0, err);
    if (!ok)
        r->phase = PHASE_FAILING_OVER; /* so that it can be run again */
    pthread_mutex_unlock(&r->lock);
    if (!ok)
        return false;
    replica_close(
        r); /* the images are the VM's now; from here on nobody opens it again */
    fill_result(op, r);
    events_emit(d, EVENT_WARNING, &op->log, "failed-over",
                "VM '%s' %s on this host now (epoch %lld)", r->vm_name,
                json_int_or(op->data, "running", 0) > 0 ? "runs" : "is defined",
                (long long)json_int_or(op->data, "epoch", 0));
    return true;
}

void
failover_ended(struct op *op, const struct error *failure UNUSED)
{
    AUTOPTR(replication) *r = NULL;

    if (replications_find(op->daemon->replications, op->resource_id, &r, NULL))
        replica_release_point(r, op);
}
