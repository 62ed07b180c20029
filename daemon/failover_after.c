#include "daemon/failover_after.h"

#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/failover_steps.h"
#include "daemon/flatten.h"
#include "daemon/tasks.h"
#include "drivers/hypervisor.h"

#define RETRY_MS (60 * 1000)

/* --- the automatic end ------------------------------------------------------------ */

/* Under r->lock. Readers of the old one hold the lock, too. */
static void
replace(struct replication *r, const char *member, struct json_object *value)
{
    struct json_object *o = NULL;

    if (r->failover != NULL)
        json_object_deep_copy(r->failover, &o, NULL);
    else
        o = json_object_new_object();
    json_object_object_del(o, member);
    if (value != NULL)
        json_set(o, member, value);
    json_object_put(r->failover);
    r->failover = o;
}

void
failover_after_begin(struct replication *r, struct json_object *wanted)
{
    struct json_object *o = NULL;

    if (wanted != NULL) {
        o = json_object_new_object();
        json_set_string(o, "action", json_string_or(wanted, "action", ""));
        json_set_int(o, "at", units_now_ms() + json_int_or(wanted, "after", 0));
    }
    replace(r, "auto", o);
}

bool
failover_after_set(struct daemon *d, struct replication *r, struct json_object *wanted,
                   struct error **err)
{
    bool ok;

    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "failover-policy", err);
    if (ok) {
        failover_after_begin(r, wanted);
        ok = replication_store(d->replications, r, NULL, 0, err);
    }
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* *ret_action: the caller's. It is put off first, so that a crash starts it once. */
static bool
is_due(struct daemon *d, struct replication *r, char **ret_action, struct error **err)
{
    struct json_object *o;
    int64_t now_ms = units_now_ms();
    bool ok = true;

    pthread_mutex_lock(&r->lock);
    o = r->phase == PHASE_FAILED_OVER ? json_object_or_null(r->failover, "auto") : NULL;
    if (o != NULL && json_int_or(o, "at", INT64_MAX) <= now_ms) {
        struct json_object *later = json_object_new_object();

        *ret_action = mem_strdup(json_string_or(o, "action", ""));
        json_set_string(later, "action", *ret_action);
        json_set_int(later, "at", now_ms + RETRY_MS);
        replace(r, "auto", later);
        ok = replication_store(d->replications, r, NULL, 0, err);
    }
    pthread_mutex_unlock(&r->lock);
    return ok && *ret_action != NULL;
}

void
failover_after_look(struct daemon *d, struct replication *r)
{
    struct log_ctx log = replication_log(r);
    AUTOFREE(char) *action = NULL;
    struct tasks_request request = { .resource_id = r->id,
                                     .resource_name = r->vm_name,
                                     .user = "virt-dr" };
    struct error *e = NULL;
    struct json_object *task = NULL;

    if (is_due(d, r, &action, &e)) {
        request.kind = action;
        if (!tasks_knows(d->tasks, action))
            error_set(&e, ERROR_INVALID_STATE, "there is no operation '%s'", action);
        else if (tasks_start(d->tasks, &request, &task, &e))
            log_info(&log, "failover-ends", "'%s' of the failover of VM '%s' is due",
                     action, r->vm_name);
    }
    if (e != NULL)
        log_failure(&log, "failover-end-failed", e);
    error_free(e);
    json_object_put(task);
}

/* --- home for good ------------------------------------------------------------------ */

void
failover_after_commit(struct replication *r, bool reverse)
{
    replace(r, "auto", NULL);
    replace(r, "reverse", reverse ? json_object_new_boolean(true) : NULL);
}

bool
failover_after_reverses(const struct replication *r)
{
    return r->side == SIDE_TARGET && r->phase == PHASE_COMMITTED && !r->removed &&
           json_bool_or(r->failover, "reverse", false);
}

/* Whoever fails is not asked at each contact. */
static bool
reversal_is_due(struct replication *r)
{
    int64_t now_ms = units_monotonic_ms();
    bool due;

    pthread_mutex_lock(&r->lock);
    due = failover_after_reverses(r) &&
          (r->looked_for_ms == 0 || now_ms - r->looked_for_ms >= RETRY_MS);
    pthread_mutex_unlock(&r->lock);
    return due;
}

/* While the disks are made one image nothing could be captured; but a VM does not stay
   unprotected because that cannot go on. */
static void
begin_reversal(struct daemon *d, struct replication *r)
{
    struct tasks_request request = { .kind = "reverse",
                                     .resource_id = r->id,
                                     .resource_name = r->vm_name,
                                     .user = "virtdrd" };
    struct log_ctx log = replication_log(r);
    AUTOJSON *task = NULL;
    struct error *e = NULL;

    if (flatten_goes_on(d, r->vm_uuid) || tasks_busy(d->tasks, r->id))
        return;
    pthread_mutex_lock(&r->lock);
    r->looked_for_ms = units_monotonic_ms();
    pthread_mutex_unlock(&r->lock);
    if (!tasks_start(d->tasks, &request, &task, &e))
        log_ignore(&log, "reverse-not-started", &e);
}

void
failover_after_hear(struct daemon *d, struct replication *r)
{
    if (reversal_is_due(r))
        begin_reversal(d, r);
}

/* --- addresses ---------------------------------------------------------------------- */

static bool
note_addresses(struct daemon *d, struct replication *r, struct json_object *list,
               struct error **err)
{
    bool ok;

    pthread_mutex_lock(&r->lock);
    replace(r, "addresses", json_object_get(list));
    ok = replication_store(d->replications, r, NULL, 0, err);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

static void
fill(struct json_object *o, struct hv_reservation *ret)
{
    *ret = (struct hv_reservation){ .network = json_string_or(o, "network", NULL),
                                    .mac = json_string_or(o, "mac", ""),
                                    .ip = json_string_or(o, "ip", "") };
}

/* Which network an interface is in here, and whether it has that address already. */
static bool
look(struct op *op, struct replication *r, struct json_object *wanted,
     struct json_object *list, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    struct json_object *o = json_object_new_object();
    struct hv_reservation reservation;
    AUTOFREE(char) *network = NULL;
    bool there = false;

    json_object_array_add(list, o);
    fill(wanted, &reservation);
    if (!hv->ops->network_of(hv, r->vm_uuid, reservation.mac, &network, err))
        return false;
    reservation.network = network;
    if (!hv->ops->is_reserved(hv, &reservation, &there, err))
        return false;
    json_set_string(o, "network", network);
    json_set_string(o, "mac", reservation.mac);
    json_set_string(o, "ip", reservation.ip);
    json_set_bool(o, "ours", !there);
    return true;
}

/* Noted before they are made (I6); what an earlier run has noted holds. */
static bool
plan(struct op *op, struct replication *r, struct json_object **ret, struct error **err)
{
    struct json_object *wanted = json_array_or_null(op->data, "addresses");
    struct json_object *noted;
    AUTOJSON *list = NULL;

    pthread_mutex_lock(&r->lock);
    noted = json_object_get(json_array_or_null(r->failover, "addresses"));
    pthread_mutex_unlock(&r->lock);
    if (noted != NULL) {
        *ret = noted;
        return true;
    }
    list = json_object_new_array();
    for (size_t i = 0; wanted != NULL && i < json_object_array_length(wanted); i++)
        if (!look(op, r, json_object_array_get_idx(wanted, i), list, err))
            return false;
    if (json_object_array_length(list) > 0 && !note_addresses(op->daemon, r, list, err))
        return false;
    *ret = TAKE(list);
    return true;
}

static bool
change(struct daemon *d, struct json_object *list, bool reserve, struct error **err)
{
    struct hypervisor *hv = d->hypervisor;

    for (size_t i = 0; list != NULL && i < json_object_array_length(list); i++) {
        struct json_object *o = json_object_array_get_idx(list, i);
        struct hv_reservation reservation;

        fill(o, &reservation);
        if (json_bool_or(o, "ours", false) &&
            !(reserve ? hv->ops->reserve : hv->ops->unreserve)(hv, &reservation, err))
            return error_prefix(err, "address %s of interface %s", reservation.ip,
                                reservation.mac);
    }
    return true;
}

bool
failover_set_addresses(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *list = NULL;

    return replications_find(op->daemon->replications, op->resource_id, &r, err) &&
           plan(op, r, &list, err) && change(op->daemon, list, true, err);
}

bool
failover_after_release(struct daemon *d, struct replication *r, struct error **err)
{
    AUTOJSON *list = NULL;

    pthread_mutex_lock(&r->lock);
    list = json_object_get(json_array_or_null(r->failover, "addresses"));
    pthread_mutex_unlock(&r->lock);
    return change(d, list, false, err);
}

struct json_object *
failover_after_addresses(const struct replication *r)
{
    struct json_object *list = json_array_or_null(r->failover, "addresses");
    struct json_object *o, *copy = NULL;

    if (list == NULL)
        return NULL;
    o = json_object_new_object();
    json_object_deep_copy(list, &copy, NULL);
    json_set(o, "addresses", copy);
    return o;
}
