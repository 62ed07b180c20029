#include "daemon/replication.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/consistency.h"
#include "daemon/replica.h"

struct replications {
    struct state *state;
    pthread_mutex_t lock;
    struct replication **all;
    size_t n;
};

bool
replication_allows(struct replication *r, const char *operation, struct error **err)
{
    enum states_answer answer = states_allow(r->side, r->phase, operation);
    const char *side = r->side == SIDE_SOURCE ? "source" : "target";
    AUTOFREE(char) *list = NULL;

    if (r->removed)
        return error_set(err, ERROR_REPLICATION_NOT_FOUND,
                         "the replication of VM '%s' was removed meanwhile, or has "
                         "changed its direction",
                         r->vm_name);
    if (answer == STATES_ALLOWED)
        return true;
    list = states_list(r->side, r->phase);
    if (answer == STATES_OTHER_SIDE)
        return error_set(err, ERROR_INVALID_STATE,
                         "'%s' of VM '%s' is done on the other host; this one is its %s "
                         "(allowed here now: %s)",
                         operation, r->vm_name, side, list);
    return error_set(err, ERROR_INVALID_STATE,
                     "'%s' is not possible while VM '%s' is '%s' (allowed now: %s)",
                     operation, r->vm_name, states_name(r->phase),
                     *list != '\0' ? list : "nothing");
}

struct log_ctx
replication_log(const struct replication *r)
{
    return (struct log_ctx){ .vm = r->vm_name, .replication = r->id };
}

/* --- documents ------------------------------------------------------------- */

/* All 64 bits; a JSON number has room for 63. */
static void
set_generation(struct json_object *o, uint64_t generation)
{
    json_set_int(o, "generation", (int64_t)generation);
}

static uint64_t
get_generation(struct json_object *o)
{
    return (uint64_t)json_int_or(o, "generation", 0);
}

const char *
replication_record(const struct replication_point *p)
{
    return p->record[0] != '\0' ? p->record : p->name;
}

static struct json_object *
point_to_doc(const struct replication_point *p)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "name", p->name);
    json_set_u64(o, "sequence", p->sequence);
    json_set_int(o, "time", p->time_ms);
    json_set_string(o, "record", p->record);
    set_generation(o, p->generation);
    return o;
}

static void
point_from_doc(struct json_object *o, struct replication_point *ret)
{
    if (o == NULL)
        return;
    snprintf(ret->name, sizeof ret->name, "%s", json_string_or(o, "name", ""));
    ret->sequence = (uint64_t)json_int_or(o, "sequence", 0);
    ret->time_ms = json_int_or(o, "time", 0);
    snprintf(ret->record, sizeof ret->record, "%s", json_string_or(o, "record", ""));
    ret->generation = get_generation(o);
}

static struct json_object *
sync_to_doc(const struct replication_sync *s)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "name", s->name);
    json_set_string(o, "target", s->target);
    json_set_u64(o, "offset", s->offset);
    json_set_bool(o, "complete", s->complete);
    json_set_bool(o, "compare", s->compare);
    json_set_u64(o, "done", s->done_bytes);
    json_set_u64(o, "total", s->total_bytes);
    json_set_int(o, "started", s->started_ms);
    set_generation(o, s->generation);
    return o;
}

static void
sync_from_doc(struct json_object *o, struct replication_sync *ret)
{
    if (o == NULL)
        return;
    snprintf(ret->name, sizeof ret->name, "%s", json_string_or(o, "name", ""));
    snprintf(ret->target, sizeof ret->target, "%s", json_string_or(o, "target", ""));
    ret->offset = (uint64_t)json_int_or(o, "offset", 0);
    ret->complete = json_bool_or(o, "complete", false);
    ret->done_bytes = (uint64_t)json_int_or(o, "done", 0);
    ret->compare = json_bool_or(o, "compare", false);
    ret->total_bytes = (uint64_t)json_int_or(o, "total", 0);
    ret->started_ms = json_int_or(o, "started", 0);
    ret->generation = get_generation(o);
}

static struct json_object *
stats_to_doc(const struct replication_stats *s)
{
    struct json_object *o = json_object_new_object();

    json_set_u64(o, "cycles", s->cycles);
    json_set_u64(o, "failures", s->failures);
    json_set_u64(o, "changedBytes", s->changed_bytes);
    json_set_u64(o, "wireBytes", s->wire_bytes);
    json_set_u64(o, "firstSyncBytes", s->first_sync_bytes);
    json_set_int(o, "firstSyncMs", s->first_sync_ms);
    json_set_int(o, "rpoSeen", s->rpo_seen_ms);
    json_set_u64(o, "lastBytes", s->last_bytes);
    json_set_int(o, "lastMs", s->last_ms);
    return o;
}

static void
stats_from_doc(struct json_object *o, struct replication_stats *ret)
{
    if (o == NULL)
        return;
    ret->cycles = (uint64_t)json_int_or(o, "cycles", 0);
    ret->failures = (uint64_t)json_int_or(o, "failures", 0);
    ret->changed_bytes = (uint64_t)json_int_or(o, "changedBytes", 0);
    ret->wire_bytes = (uint64_t)json_int_or(o, "wireBytes", 0);
    ret->first_sync_bytes = (uint64_t)json_int_or(o, "firstSyncBytes", 0);
    ret->first_sync_ms = json_int_or(o, "firstSyncMs", 0);
    ret->rpo_seen_ms = json_int_or(o, "rpoSeen", 0);
    ret->last_bytes = (uint64_t)json_int_or(o, "lastBytes", 0);
    ret->last_ms = json_int_or(o, "lastMs", 0);
}

struct json_object *
replication_to_doc(const struct replication *r)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "id", r->id);
    json_set_string(o, "side", r->side == SIDE_SOURCE ? "source" : "target");
    json_set_string(o, "vmId", r->vm_uuid);
    json_set_string(o, "vmName", r->vm_name);
    json_set_string(o, "peer", r->peer_id);
    json_set_int(o, "created", r->created_ms);
    json_set_string(o, "phase", states_name(r->phase));
    json_set_bool(o, "paused", r->paused);
    json_set_u64(o, "epoch", r->epoch);
    json_set_int(o, "rpo", r->rpo_ms);
    json_set_string(o, "storage", r->storage);
    json_set_string(o, "folder", r->folder);
    json_set_int(o, "contact", r->contact_ms);
    json_set_bool(o, "damaged", r->damaged);
    json_set(o, "scrub", replication_scrub_doc(&r->scrub));
    json_set(o, "consistency", consistency_to_doc(&r->consistency));
    json_set_string(o, "bandwidth", r->bandwidth.text);
    json_set(o, "seed", json_object_get(r->seed));
    json_set(o, "retention",
             r->side == SIDE_TARGET ? retention_json(&r->retention) : NULL);
    json_set(o, "excluded", json_object_get(r->excluded));
    json_set(o, "disks", json_object_get(r->disks));
    json_set(o, "stale", json_object_get(r->stale));
    json_set(o, "capture", json_object_get(r->capture));
    json_set(o, "newest", point_to_doc(&r->newest));
    json_set(o, "pending", point_to_doc(&r->pending));
    json_set(o, "sync", sync_to_doc(&r->sync));
    json_set(o, "resync", replication_resync_doc(&r->resync));
    json_set(o, "verify", replication_verify_doc(&r->verify));
    json_set(o, "move", replication_move_doc(&r->move));
    json_set(o, "former", json_object_get(r->former));
    json_set(o, "kept", json_object_get(r->kept));
    json_set_string(o, "home", r->home);
    json_set(o, "formerly", json_object_get(r->formerly));
    json_set(o, "fork", json_object_get(r->fork));
    json_set(o, "prepare", json_object_get(r->prepare));
    json_set(o, "failover", json_object_get(r->failover));
    json_set(o, "statistics", stats_to_doc(&r->stats));
    return o;
}

static struct json_object *
array_of(struct json_object *o, const char *key)
{
    struct json_object *a = json_array_or_null(o, key);

    return a != NULL ? json_object_get(a) : json_object_new_array();
}

bool
replication_from_doc(struct json_object *o, struct replication **ret, struct error **err)
{
    const char *id, *uuid, *name, *peer, *side, *phase;
    AUTOPTR(replication) *r = NULL;
    struct json_object *retention;

    if (!json_get_string(o, "id", &id, err) || !json_get_string(o, "vmId", &uuid, err) ||
        !json_get_string(o, "vmName", &name, err) ||
        !json_get_string(o, "peer", &peer, err) ||
        !json_get_string(o, "side", &side, err) ||
        !json_get_string(o, "phase", &phase, err))
        return error_prefix(err, "stored replication");
    r = replication_new(strcmp(side, "source") == 0 ? SIDE_SOURCE : SIDE_TARGET, id, uuid,
                        name, peer);
    r->retention = retention_default();
    r->created_ms = json_int_or(o, "created", 0);
    if (!states_from_name(phase, &r->phase))
        return error_set(err, ERROR_STATE,
                         "replication of VM '%s': its phase '%s' is unknown; was it "
                         "stored by a newer virtdrd?",
                         name, phase);
    r->paused = json_bool_or(o, "paused", false);
    r->epoch = (uint64_t)json_int_or(o, "epoch", 1);
    r->rpo_ms = json_int_or(o, "rpo", 5000);
    mem_setstr(&r->storage, json_string_or(o, "storage", NULL));
    mem_setstr(&r->folder, json_string_or(o, "folder", NULL));
    r->contact_ms = json_int_or(o, "contact", 0);
    r->damaged = json_bool_or(o, "damaged", false);
    replication_scrub_parse(json_object_or_null(o, "scrub"), &r->scrub);
    consistency_from_doc(json_object_or_null(o, "consistency"), &r->consistency);
    if (!bandwidth_parse(json_string_or(o, "bandwidth", ""), &r->bandwidth, err))
        return error_prefix(err, "stored replication '%s'", id);
    retention = json_object_or_null(o, "retention");
    if (retention != NULL && !retention_parse(retention, &r->retention, err))
        return error_prefix(err, "stored replication '%s': 'retention'", id);
    json_object_put(r->excluded);
    json_object_put(r->disks);
    json_object_put(r->stale);
    json_object_put(r->capture);
    json_object_put(r->former);
    json_object_put(r->kept);
    r->former = array_of(o, "former");
    r->kept = array_of(o, "kept");
    mem_setstr(&r->home, json_string_or(o, "home", NULL));
    r->formerly = json_object_get(json_object_or_null(o, "formerly"));
    r->fork = json_object_get(json_object_or_null(o, "fork"));
    replication_move_parse(json_object_or_null(o, "move"), &r->move);
    r->excluded = array_of(o, "excluded");
    r->disks = array_of(o, "disks");
    r->stale = array_of(o, "stale");
    r->capture = json_object_get(json_object_or_null(o, "capture"));
    r->seed = json_object_get(json_object_or_null(o, "seed"));
    r->prepare = json_object_get(json_object_or_null(o, "prepare"));
    r->failover = json_object_get(json_object_or_null(o, "failover"));
    point_from_doc(json_object_or_null(o, "newest"), &r->newest);
    point_from_doc(json_object_or_null(o, "pending"), &r->pending);
    sync_from_doc(json_object_or_null(o, "sync"), &r->sync);
    replication_resync_parse(json_object_or_null(o, "resync"), &r->resync);
    replication_verify_parse(json_object_or_null(o, "verify"), &r->verify);
    stats_from_doc(json_object_or_null(o, "statistics"), &r->stats);
    *ret = TAKE(r);
    return true;
}

/* --- objects --------------------------------------------------------------- */

struct replication *
replication_new(enum replication_side side, const char *id, const char *vm_uuid,
                const char *vm_name, const char *peer_id)
{
    struct replication *r = NEW(struct replication);

    r->side = side;
    snprintf(r->id, sizeof r->id, "%s", id);
    snprintf(r->vm_uuid, sizeof r->vm_uuid, "%s", vm_uuid);
    replication_set_peer(r, peer_id);
    r->vm_name = mem_strdup(vm_name);
    r->created_ms = units_now_ms();
    r->epoch = 1;
    r->rpo_ms = 5000;
    r->retention = retention_default();
    r->excluded = json_object_new_array();
    r->disks = json_object_new_array();
    r->stale = json_object_new_array();
    r->former = json_object_new_array();
    r->refs = 1;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->released, NULL);
    return r;
}

void
replication_ref(struct replication *r)
{
    __atomic_add_fetch(&r->refs, 1, __ATOMIC_RELAXED);
}

void
replication_unref(struct replication *r)
{
    if (r == NULL || __atomic_sub_fetch(&r->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    replica_free(r);
    json_object_put(r->excluded);
    json_object_put(r->disks);
    json_object_put(r->stale);
    json_object_put(r->capture);
    json_object_put(r->seed);
    json_object_put(r->prepare);
    json_object_put(r->failover);
    json_object_put(r->kept);
    json_object_put(r->former);
    json_object_put(r->formerly);
    json_object_put(r->fork);
    free(r->home);
    error_free(r->error);
    for (size_t i = 0; i < r->n_former_names; i++)
        free(r->former_names[i]);
    free(r->former_names);
    free(r->peer_id);
    free(r->vm_name);
    free(r->storage);
    free(r->folder);
    free(r->source_says);
    pthread_cond_destroy(&r->released);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

/* Freed with the replication. */
static void
keep_name(struct replication *r, char *name)
{
    r->former_names =
        mem_realloc(r->former_names, r->n_former_names + 1, sizeof *r->former_names);
    r->former_names[r->n_former_names++] = name;
}

void
replication_rename(struct replication *r, const char *name)
{
    if (strcmp(r->vm_name, name) == 0)
        return;
    keep_name(r, r->vm_name);
    r->vm_name = mem_strdup(name);
}

void
replication_set_peer(struct replication *r, const char *peer_id)
{
    char *before = r->peer_id;

    r->peer_id = mem_strdup(peer_id);
    if (before != NULL)
        keep_name(r, before);
}

bool
replication_try_claim(struct replication *r, struct cancel *cancel)
{
    bool mine;

    pthread_mutex_lock(&r->lock);
    mine = !r->claimed && !r->removed;
    if (mine) {
        r->claimed = true;
        r->worker = cancel;
    }
    pthread_mutex_unlock(&r->lock);
    return mine;
}

/* Waits a moment for a release. Under r->lock. */
static void
wait_released(struct replication *r)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += 100 * 1000 * 1000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_clockwait(&r->released, &r->lock, CLOCK_MONOTONIC, &until);
}

static bool
claim_as(struct replication *r, struct cancel *worker, struct cancel *cancel,
         bool stop_worker, struct error **err)
{
    bool ok = true;

    pthread_mutex_lock(&r->lock);
    while (ok && r->claimed) {
        if (stop_worker && r->worker != NULL)
            cancel_request(r->worker);
        wait_released(r);
        ok = cancel_check(cancel, err);
    }
    if (ok && r->removed)
        ok = error_set(err, ERROR_REPLICATION_NOT_FOUND,
                       "the replication of VM '%s' was removed meanwhile", r->vm_name);
    if (ok) {
        r->claimed = true;
        r->worker = worker;
    }
    pthread_mutex_unlock(&r->lock);
    return ok;
}

bool
replication_claim_for(struct replication *r, struct cancel *worker, struct cancel *cancel,
                      struct error **err)
{
    return claim_as(r, worker, cancel, false, err);
}

bool
replication_claim(struct replication *r, struct cancel *cancel, bool stop_worker,
                  struct error **err)
{
    return claim_as(r, cancel, cancel, stop_worker, err);
}

bool
replication_seize(struct replication *r, struct cancel *cancel, struct error **err)
{
    return claim_as(r, NULL, cancel, true, err);
}

void
replication_release(struct replication *r)
{
    pthread_mutex_lock(&r->lock);
    assert(r->claimed);
    r->claimed = false;
    r->worker = NULL;
    pthread_cond_broadcast(&r->released);
    pthread_mutex_unlock(&r->lock);
}

void
replication_set_error(struct replication *r, struct error *e)
{
    error_free(r->error);
    r->error = e;
    if (e != NULL) {
        r->error_ms = units_now_ms();
        r->failures_in_row++;
        r->stats.failures++;
    } else {
        r->failures_in_row = 0;
        r->next_try_ms = 0;
    }
}

/* --- registry -------------------------------------------------------------- */

bool
replication_store(struct replications *rs, struct replication *r,
                  const struct state_write *more, size_t n_more, struct error **err)
{
    AUTOFREE(struct state_write) *writes = mem_alloc(n_more + 1, sizeof *writes);
    AUTOJSON *doc = NULL;

    if (r->removed)
        return error_set(err, ERROR_REPLICATION_NOT_FOUND,
                         "the replication of VM '%s' was removed meanwhile", r->vm_name);
    doc = replication_to_doc(r);
    writes[0] = (struct state_write){ .kind = "replication", .id = r->id, .body = doc };
    for (size_t i = 0; i < n_more; i++)
        writes[i + 1] = more[i];
    if (!rs->state->ops->commit(rs->state, writes, n_more + 1, err))
        return error_prefix(err, "store replication of VM '%s'", r->vm_name);
    return true;
}

static void
append(struct replications *rs, struct replication *r)
{
    rs->all = mem_realloc(rs->all, rs->n + 1, sizeof(struct replication *));
    rs->all[rs->n++] = r;
}

bool
replications_load(struct state *state, struct replications **ret, struct error **err)
{
    AUTOPTR(replications) *rs = NEW(struct replications);
    AUTOJSON *docs = NULL;

    rs->state = state;
    pthread_mutex_init(&rs->lock, NULL);
    if (!state->ops->list(state, "replication", "", &docs, err))
        return false;
    for (size_t i = 0; i < json_object_array_length(docs); i++) {
        struct replication *r = NULL;

        if (!replication_from_doc(json_object_array_get_idx(docs, i), &r, err))
            return false;
        append(rs, r);
    }
    *ret = TAKE(rs);
    return true;
}

void
replications_free(struct replications *rs)
{
    if (rs == NULL)
        return;
    for (size_t i = 0; i < rs->n; i++)
        replication_unref(rs->all[i]);
    free(rs->all);
    pthread_mutex_destroy(&rs->lock);
    free(rs);
}

static bool
is_called(struct replication *r, const char *key)
{
    bool yes;

    if (strcmp(r->id, key) == 0 || strcmp(r->vm_uuid, key) == 0)
        return true;
    pthread_mutex_lock(&r->lock);
    yes = strcmp(r->vm_name, key) == 0;
    pthread_mutex_unlock(&r->lock);
    return yes;
}

bool
replications_find(struct replications *rs, const char *key, struct replication **ret,
                  struct error **err)
{
    struct replication *found = NULL;

    pthread_mutex_lock(&rs->lock);
    for (size_t i = 0; i < rs->n && found == NULL; i++)
        if (is_called(rs->all[i], key))
            found = rs->all[i];
    if (found != NULL)
        replication_ref(found);
    pthread_mutex_unlock(&rs->lock);
    if (found == NULL)
        return error_set(err, ERROR_REPLICATION_NOT_FOUND,
                         "no VM '%s' is protected on this host or replicated to it", key);
    *ret = found;
    return true;
}

size_t
replications_all(struct replications *rs, struct replication ***ret)
{
    size_t n;

    pthread_mutex_lock(&rs->lock);
    n = rs->n;
    *ret = mem_alloc(n, sizeof(struct replication *));
    for (size_t i = 0; i < n; i++) {
        (*ret)[i] = rs->all[i];
        replication_ref(rs->all[i]);
    }
    pthread_mutex_unlock(&rs->lock);
    return n;
}

bool
replications_add(struct replications *rs, struct replication *r, struct error **err)
{
    bool ok = true;

    pthread_mutex_lock(&rs->lock);
    for (size_t i = 0; i < rs->n && ok; i++)
        if (strcmp(rs->all[i]->vm_uuid, r->vm_uuid) == 0)
            ok =
                error_set(err, ERROR_EXISTS,
                          "VM '%s' has a replication on this host already (id %s, as %s)",
                          r->vm_name, rs->all[i]->id,
                          rs->all[i]->side == SIDE_SOURCE ? "source" : "target");
    ok = ok && replication_store(rs, r, NULL, 0, err);
    if (ok) {
        replication_ref(r);
        append(rs, r);
    }
    pthread_mutex_unlock(&rs->lock);
    return ok;
}

bool
replications_replace(struct replications *rs, struct replication *old,
                     struct replication *with, const struct state_write *also,
                     struct error **err)
{
    size_t i = 0;
    bool ok;

    pthread_mutex_lock(&rs->lock);
    pthread_mutex_lock(&old->lock);
    while (i < rs->n && rs->all[i] != old)
        i++;
    ok = (!old->removed && i < rs->n) ||
         error_set(err, ERROR_REPLICATION_NOT_FOUND,
                   "the replication of VM '%s' was removed meanwhile", old->vm_name);
    ok = ok && replication_store(rs, with, also, also != NULL, err);
    if (ok) {
        old->removed = true;
        replication_ref(with);
        rs->all[i] = with;
    }
    pthread_mutex_unlock(&old->lock);
    pthread_mutex_unlock(&rs->lock);
    if (ok)
        replication_unref(old);
    return ok;
}

bool
replications_remove(struct replications *rs, struct replication *r, struct error **err)
{
    struct state_write gone = { .kind = "replication", .id = r->id };
    bool mine = false;

    /* Under the lock: whoever stores it next must find it removed. */
    pthread_mutex_lock(&r->lock);
    r->removed = r->removed || rs->state->ops->commit(rs->state, &gone, 1, err);
    if (!r->removed) {
        pthread_mutex_unlock(&r->lock);
        return error_prefix(err, "remove replication of VM '%s'", r->vm_name);
    }
    pthread_mutex_unlock(&r->lock);
    pthread_mutex_lock(&rs->lock);
    for (size_t i = 0; i < rs->n && !mine; i++)
        if (rs->all[i] == r) {
            rs->all[i] = rs->all[--rs->n];
            mine = true;
        }
    pthread_mutex_unlock(&rs->lock);
    if (mine)
        replication_unref(r);
    return true;
}
