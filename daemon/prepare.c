#include "daemon/prepare.h"

#include <string.h>

#include "common/json.h"
#include "daemon/events.h"
#include "daemon/guard_source.h"
#include "daemon/scheduler.h"
#include "daemon/tasks.h"
#include "drivers/hypervisor.h"

/* --- asked ---------------------------------------------------------------------- */

/* Under r->lock. */
static struct json_object *
view_of(const struct replication *r, const char *id)
{
    struct json_object *o = NULL;

    if (strcmp(json_string_or(r->prepare, "id", ""), id) == 0) {
        json_object_deep_copy(r->prepare, &o, NULL);
        json_object_object_del(o, "task");
        return o;
    }
    o = json_object_new_object();
    json_set_string(o, "id", id);
    json_set_string(o, "state", "none");
    return o;
}

struct json_object *
prepare_view(struct replication *r, const char *id)
{
    struct json_object *o;

    pthread_mutex_lock(&r->lock);
    o = view_of(r, id);
    pthread_mutex_unlock(&r->lock);
    return o;
}

static bool
is_state(struct json_object *view, const char *state)
{
    return strcmp(json_string_or(view, "state", ""), state) == 0;
}

static bool
is_one_of(const char *word, const char *a, const char *b, const char *key,
          struct error **err)
{
    return strcmp(word, a) == 0 || strcmp(word, b) == 0 ||
           error_set(err, ERROR_PROTOCOL, "'%s' is '%s', not %s or %s", key, word, a, b);
}

static bool
check_request(struct json_object *body, struct error **err)
{
    const char *id, *shutdown, *delta;
    int64_t timeout_ms;
    uint64_t epoch;

    return json_get_string(body, "id", &id, err) &&
           json_get_u64(body, "epoch", INT64_MAX, &epoch, err) &&
           json_get_string(body, "shutdown", &shutdown, err) &&
           json_get_string(body, "delta", &delta, err) &&
           json_get_int(body, "timeout", PREPARE_MIN_TIMEOUT_MS, PREPARE_MAX_TIMEOUT_MS,
                        &timeout_ms, err) &&
           is_one_of(shutdown, "graceful", "force", "shutdown", err) &&
           is_one_of(delta, "must", "try", "delta", err) &&
           (id_is_valid(id) ||
            error_set(err, ERROR_PROTOCOL, "'id' is not that of a task"));
}

static bool
start(struct daemon *d, struct replication *r, const char *kind, struct json_object *data,
      struct error **err)
{
    const struct tasks_request request = { .kind = kind,
                                           .resource_id = r->id,
                                           .resource_name = r->vm_name,
                                           .user = "virt-dr",
                                           .data = data };
    struct json_object *task = NULL;

    if (!tasks_start(d->tasks, &request, &task, err))
        return false;
    json_object_put(task);
    return true;
}

bool
prepare_ask(struct daemon *d, struct replication *r, struct json_object *body,
            struct json_object **ret, struct error **err)
{
    AUTOJSON *view = NULL;
    bool ok;

    if (!check_request(body, err))
        return false;
    view = prepare_view(r, json_string_or(body, "id", ""));
    if (is_state(view, "none")) {
        pthread_mutex_lock(&r->lock);
        ok = replication_allows(r, "prepare", err);
        pthread_mutex_unlock(&r->lock);
        if (!ok || !start(d, r, "prepare", body, err))
            return false;
        json_set_string(view, "state", "preparing");
    }
    *ret = TAKE(view);
    return true;
}

/* --- released ---------------------------------------------------------------------- */

static bool
give_up(struct daemon *d, struct replication *r, const char *id, uint64_t epoch,
        bool confirmed, struct error **err)
{
    AUTOJSON *data = json_object_new_object();

    json_set_string(data, "id", id);
    json_set_u64(data, "epoch", epoch);
    json_set_bool(data, "confirmed", confirmed);
    return start(d, r, "abandon", data, err);
}

/* Too late to cancel is no error: it is asked again, and is prepared then. */
static void
cancel_preparing(struct daemon *d, struct replication *r)
{
    AUTOFREE(char) *task = tasks_exclusive(d->tasks, r->id);
    struct json_object *shown = NULL;

    if (task != NULL && tasks_cancel(d->tasks, task, &shown, NULL))
        json_object_put(shown);
}

/* Under r->lock. */
static bool
is_locked(const struct replication *r)
{
    return r->side == SIDE_SOURCE && r->prepare != NULL &&
           (r->phase == PHASE_PREPARED || r->phase == PHASE_SUPERSEDED);
}

bool
prepare_release(struct daemon *d, struct replication *r, const char *id, uint64_t epoch,
                struct json_object **ret, struct error **err)
{
    AUTOJSON *view = prepare_view(r, id);
    struct error *e = NULL;
    bool locked;

    pthread_mutex_lock(&r->lock);
    locked = is_locked(r);
    pthread_mutex_unlock(&r->lock);
    if (is_state(view, "preparing"))
        cancel_preparing(d, r);
    if (!is_state(view, "none") && locked && !give_up(d, r, id, epoch, true, &e) &&
        !error_is(e, ERROR_IN_PROGRESS))
        return error_propagate(err, e);
    error_free(e);
    *ret = TAKE(view);
    return true;
}

bool
prepare_hear(struct daemon *d, struct replication *r, struct json_object *said)
{
    const char *task = json_string_or(said, "task", "");
    uint64_t epoch = (uint64_t)json_int_or(said, "epoch", 0);
    struct log_ctx log = replication_log(r);
    AUTOFREE(char) *id = NULL;
    enum replication_phase phase;
    struct error *e = NULL;

    if (!states_from_name(json_string_or(said, "phase", ""), &phase) ||
        !states_is_protecting(phase))
        return false;
    pthread_mutex_lock(&r->lock);
    if (is_locked(r) && epoch >= r->epoch)
        id = mem_strdup(json_string_or(r->prepare, "id", ""));
    pthread_mutex_unlock(&r->lock);
    if (id == NULL)
        return false;
    if (strcmp(id, task) != 0 && !give_up(d, r, id, epoch, false, &e) &&
        !error_is(e, ERROR_IN_PROGRESS))
        log_failure(&log, "abandon-failed", e);
    error_free(e);
    return true;
}

/* --- taken back ------------------------------------------------------------------- */

/* Under r->lock. The guard may allow before it is stored: nobody else may run it. */
bool
prepare_take_back(struct daemon *d, struct replication *r, uint64_t epoch,
                  struct error **err)
{
    struct json_object *prepare_before = r->prepare;
    enum replication_phase phase_before = r->phase;
    uint64_t epoch_before = r->epoch;

    r->epoch = MAX(epoch, r->epoch);
    if (!states_is_protecting(r->phase))
        r->phase = r->newest.name[0] != '\0' ? PHASE_REPLICATING
                   : r->stats.cycles > 0     ? PHASE_RESYNCING
                                             : PHASE_INITIAL_SYNC;
    r->agreed = false;
    r->prepare = NULL;
    if (guard_source(d, r, err) && replication_store(d->replications, r, NULL, 0, err)) {
        json_object_put(prepare_before);
        return true;
    }
    r->prepare = prepare_before;
    r->phase = phase_before;
    r->epoch = epoch_before;
    return false;
}

bool
prepare_start_again(struct op *op, struct replication *r, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;

    if (!json_bool_or(op->data, "ran", false))
        return true;
    if (!hv->ops->start(hv, r->vm_uuid, err)) {
        events_emit(op->daemon, EVENT_CRITICAL, &op->log, "start-again-failed",
                    "VM '%s' could not be started again here, where it belongs; start "
                    "it: virsh start %s",
                    r->vm_name, r->vm_name);
        return error_prefix(err, "start VM '%s' again", r->vm_name);
    }
    events_emit(op->daemon, EVENT_WARNING, &op->log, "started-again",
                "VM '%s' runs here again: the failover that it was shut down for came to "
                "nothing",
                r->vm_name);
    scheduler_wake(op->daemon->scheduler, r);
    return true;
}
