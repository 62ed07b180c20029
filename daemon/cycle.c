#include "daemon/cycle.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/consistency.h"
#include "daemon/contact.h"
#include "daemon/cycle_private.h"
#include "daemon/events.h"
#include "daemon/peers.h"

#define MAX_STALE 16 /* points that could not be forgotten yet */

/* --- what is to be captured ------------------------------------------------ */

static bool
is_excluded(struct replication *r, const char *target)
{
    for (size_t i = 0; i < json_object_array_length(r->excluded); i++)
        if (strcmp(json_object_get_string(json_object_array_get_idx(r->excluded, i)),
                   target) == 0)
            return true;
    return false;
}

/* Had the newest point this disk already? A disk that came since has no record. */
static bool
was_there(struct replication *r, const char *target)
{
    for (size_t i = 0; i < json_object_array_length(r->disks); i++) {
        struct json_object *disk = json_object_array_get_idx(r->disks, i);

        if (strcmp(json_string_or(disk, "target", ""), target) == 0)
            return !json_bool_or(disk, "excluded", true);
    }
    return false;
}

static bool
choose_disks(struct cycle *c, struct error **err)
{
    c->disks = mem_alloc(c->domain->n_disks, sizeof *c->disks);
    for (size_t i = 0; i < c->domain->n_disks; i++) {
        const struct hv_disk *disk = &c->domain->disks[i];

        if (disk->removable || is_excluded(c->r, disk->target))
            continue;
        if (disk->excuse != NULL)
            return error_set(err, ERROR_UNSUPPORTED_DISK, "disk '%s' of VM '%s': %s",
                             disk->target, c->domain->name, disk->excuse);
        if (c->n_disks == WIRE_MAX_DISKS)
            return error_set(err, ERROR_UNSUPPORTED_DISK,
                             "VM '%s' has more than %d disks", c->domain->name,
                             WIRE_MAX_DISKS);
        c->disks[c->n_disks].target = disk->target;
        c->capacities[c->n_disks] = disk->capacity_bytes;
        c->n_disks++;
    }
    if (c->n_disks == 0)
        return error_set(err, ERROR_UNSUPPORTED_DISK,
                         "VM '%s' has no disk that can be replicated", c->domain->name);
    return true;
}

void
cycle_remember_disks(struct cycle *c)
{
    struct json_object *array = json_object_new_array();

    for (size_t i = 0; i < c->domain->n_disks; i++) {
        const struct hv_disk *disk = &c->domain->disks[i];
        struct json_object *o = json_object_new_object();
        bool excluded = disk->removable || is_excluded(c->r, disk->target);

        json_set_string(o, "target", disk->target);
        json_set_u64(o, "capacity", disk->capacity_bytes);
        json_set_string(o, "format", disk->format);
        json_set_string(o, "path", disk->path);
        json_set_bool(o, "excluded", excluded);
        if (excluded)
            json_set_string(o, "reason",
                            disk->removable ? "removable medium"
                                            : "excluded by the operator");
        json_object_array_add(array, o);
    }
    json_object_put(c->r->disks);
    c->r->disks = array;
}

static bool
look_at_domain(struct cycle *c, struct error **err)
{
    struct hypervisor *hv = c->daemon->hypervisor;
    bool running;

    if (!hv->ops->lookup(hv, c->r->vm_uuid, &c->domain, err))
        return false;
    running = c->domain->state != HV_STATE_OFF;
    pthread_mutex_lock(&c->r->lock);
    replication_rename(c->r, c->domain->name);
    c->r->source_running = running;
    pthread_mutex_unlock(&c->r->lock);
    if (!running)
        return error_set(
            err, ERROR_INVALID_STATE,
            "VM '%s' is shut off: what it wrote since its newest point is sent "
            "once it runs again",
            c->domain->name);
    return choose_disks(c, err);
}

/* --- the exchange ---------------------------------------------------------- */

void
cycle_fill_begin(struct cycle *c, enum exchange_kind kind, struct exchange_begin *ret)
{
    *ret = (struct exchange_begin){ .kind = kind };
    pthread_mutex_lock(&c->r->lock);
    snprintf(ret->replication, sizeof ret->replication, "%s", c->r->id);
    ret->epoch = c->r->epoch;
    snprintf(ret->parent, sizeof ret->parent, "%s", c->r->newest.name);
    pthread_mutex_unlock(&c->r->lock);
    for (size_t i = 0; i < c->n_disks; i++) {
        snprintf(ret->disks[i].target, sizeof ret->disks[i].target, "%s",
                 c->disks[i].target);
        ret->disks[i].capacity_bytes = c->capacities[i];
    }
    ret->n_disks = c->n_disks;
}

/* Sends BEGIN and takes the answer; a connection that was idle may have died. */
bool
cycle_begin_exchange(struct cycle *c, const struct exchange_begin *begin,
                     enum wire_type answer, struct json_object **ret, struct error **err)
{
    AUTOJSON *body = exchange_begin_json(begin);
    struct error *e = NULL;

    if (c->stream != NULL || peers_stream_take(c->daemon->peers, c->r->peer_id, c->cancel,
                                               false, &c->stream, &e)) {
        if (stream_send_json(c->stream, WIRE_BEGIN, body, &e) &&
            stream_recv_json(c->stream, answer, ret, &e))
            return true;
        stream_free(TAKE(c->stream));
    }
    if (!error_is(e, ERROR_CONNECT))
        return error_propagate(err, e);
    error_clear(&e);
    return peers_stream_take(c->daemon->peers, c->r->peer_id, c->cancel, true, &c->stream,
                             err) &&
           stream_send_json(c->stream, WIRE_BEGIN, body, err) &&
           stream_recv_json(c->stream, answer, ret, err);
}

/* --- agreeing on the newest point ------------------------------------------ */

static void
add_stale(struct replication *r, const char *name)
{
    if (name[0] != '\0')
        json_append_string(r->stale, name);
}

/* Forgets what is stale; what cannot be forgotten now stays on the list. */
static void
forget_stale(struct cycle *c)
{
    struct capture_driver *capture = c->daemon->capture;
    struct json_object *left = json_object_new_array();
    AUTOJSON *names = NULL;

    pthread_mutex_lock(&c->r->lock);
    names = c->r->stale;
    c->r->stale = json_object_new_array();
    pthread_mutex_unlock(&c->r->lock);
    for (size_t i = 0; i < json_object_array_length(names); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(names, i));
        struct error *e = NULL;

        if (capture->ops->forget(capture, c->r->vm_uuid, name, &e))
            continue;
        log_ignore(&c->log, "forget-failed", &e);
        json_append_string(left, name);
    }
    pthread_mutex_lock(&c->r->lock);
    for (size_t i = 0; i < json_object_array_length(c->r->stale); i++)
        json_object_array_add(left,
                              json_object_get(json_object_array_get_idx(c->r->stale, i)));
    json_object_put(c->r->stale);
    c->r->stale = left;
    pthread_mutex_unlock(&c->r->lock);
}

/* Each is a bitmap in the VM's images, which must not fill them up cycle by cycle. */
static bool
check_stale(struct cycle *c, struct error **err)
{
    size_t n;

    pthread_mutex_lock(&c->r->lock);
    n = json_object_array_length(c->r->stale);
    pthread_mutex_unlock(&c->r->lock);
    return n <= MAX_STALE ||
           error_set(
               err, ERROR_HYPERVISOR,
               "%zu old checkpoints of VM '%s' could not be removed, so no more are "
               "made; the log says why",
               n, c->domain->name);
}

/* The bitmaps are of no use any more: begin anew; points at the target stay. */
static void
start_over(struct cycle *c, const char *why)
{
    struct replication *r = c->r;

    add_stale(r, r->newest.name);
    add_stale(r, r->pending.name);
    if (strcmp(r->sync.name, r->newest.name) != 0)
        add_stale(r, r->sync.name);
    r->newest.name[0] = '\0';
    r->pending.name[0] = '\0';
    r->sync = (struct replication_sync){ 0 };
    if (r->phase == PHASE_REPLICATING)
        r->phase = PHASE_RESYNCING;
    events_emit(c->daemon, EVENT_WARNING, &c->log, "resync",
                "the disks are synchronised anew: %s; earlier points stay usable", why);
}

/* Step 1 to 4 may have been cut by a crash: which of the two does the target have? */
static void
settle_pending(struct cycle *c, const struct exchange_ready *has)
{
    struct replication *r = c->r;

    if (r->pending.name[0] == '\0')
        return;
    if (strcmp(has->newest.name, r->pending.name) == 0) {
        add_stale(r, r->newest.name);
        r->newest = has->newest;
        r->phase = PHASE_REPLICATING;
    } else {
        add_stale(r, r->pending.name);
    }
    r->pending.name[0] = '\0';
}

static void
settle_sync(struct cycle *c, const struct exchange_ready *has)
{
    struct replication *r = c->r;

    if (r->sync.name[0] == '\0')
        return;
    if (strcmp(has->sync.name, r->sync.name) != 0) {
        r->sync.target[0] = '\0'; /* the target has nothing of it yet */
        r->sync.offset = 0;
        r->sync.done_bytes = 0;
        r->sync.complete = false;
        return;
    }
    snprintf(r->sync.target, sizeof r->sync.target, "%s", has->sync.target);
    r->sync.offset = has->sync.offset;
    r->sync.complete = has->sync.complete;
}

static bool
check_epoch(struct cycle *c, const struct exchange_ready *has, struct error **err)
{
    if (has->epoch == c->r->epoch)
        return true;
    if (has->epoch > c->r->epoch)
        contact_superseded(c->daemon, c->r, has->epoch);
    return error_set(err, ERROR_EPOCH, "epoch here is %llu, at the target %llu",
                     (unsigned long long)c->r->epoch, (unsigned long long)has->epoch);
}

/* Asks the target what it has, unless both sides know already. */
static bool
agree(struct cycle *c, struct error **err)
{
    struct exchange_begin begin;
    struct exchange_ready has;
    AUTOJSON *answer = NULL;
    struct replication *r = c->r;
    bool ok;

    if (r->agreed)
        return true;
    cycle_fill_begin(c, EXCHANGE_QUERY, &begin);
    if (!cycle_begin_exchange(c, &begin, WIRE_READY, &answer, err) ||
        !exchange_ready_parse(answer, &has, err) || !check_epoch(c, &has, err))
        return error_prefix(err, "ask the target what it has");
    pthread_mutex_lock(&r->lock);
    if (!replication_allows(r, "sync", err)) {
        pthread_mutex_unlock(&r->lock);
        return false;
    }
    settle_pending(c, &has);
    settle_sync(c, &has);
    if (r->newest.name[0] != '\0' && strcmp(r->newest.name, has.newest.name) != 0 &&
        !(r->sync.complete && strcmp(r->newest.name, r->sync.name) == 0))
        start_over(c, "the target does not have the newest point");
    else if (r->newest.name[0] != '\0' && has.sync.name[0] != '\0' &&
             strcmp(has.sync.name, r->sync.name) != 0)
        start_over(c, "the target is in a resync that is not known here");
    if (r->newest.name[0] == '\0')
        r->newest.sequence = has.newest.sequence; /* numbers go on where the target is */
    ok = replication_store(c->daemon->replications, r, NULL, 0, err);
    r->agreed = ok;
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* --- nothing changed ------------------------------------------------------- */

static bool
touch(struct cycle *c, int64_t time_ms, struct error **err)
{
    struct exchange_begin begin;
    AUTOJSON *answer = NULL;
    struct replication *r = c->r;
    bool ok;

    cycle_fill_begin(c, EXCHANGE_TOUCH, &begin);
    begin.time_ms = time_ms;
    if (!cycle_begin_exchange(c, &begin, WIRE_ACK, &answer, err))
        return error_prefix(err, "move the newest point's time on");
    pthread_mutex_lock(&r->lock);
    r->stats.rpo_seen_ms = MAX(r->stats.rpo_seen_ms, units_now_ms() - r->newest.time_ms);
    r->newest.time_ms = time_ms;
    consistency_point_made(r, time_ms, false);
    ok = replication_store(c->daemon->replications, r, NULL, 0, err);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* --- a delta --------------------------------------------------------------- */

/* Step 1. */
static bool
name_pending(struct cycle *c, struct error **err)
{
    struct replication *r = c->r;
    char id[ID_TEXT];
    bool ok;

    id_new(id);
    pthread_mutex_lock(&r->lock);
    snprintf(r->pending.name, sizeof r->pending.name, "virt-dr-%s", id);
    r->pending.sequence = r->newest.sequence + 1;
    r->agreed = false;
    ok = replication_store(c->daemon->replications, r, NULL, 0, err);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/*
 * A disk that grew between the look at the domain and this point: what was written
 * behind its old end until then is in no record after this one (I1).
 */
bool
cycle_check_sizes(struct cycle *c, struct error **err)
{
    for (size_t i = 0; i < c->n_disks; i++) {
        uint64_t bytes;

        if (!c->capture->driver->ops->capacity(c->capture, i, &bytes, err))
            return error_prefix(err, "disk '%s'", c->disks[i].target);
        if (bytes != c->capacities[i])
            return error_set(err, ERROR_JOB_BUSY,
                             "disk '%s' is being resized; it is captured anew",
                             c->disks[i].target);
    }
    return true;
}

/* Step 2, and what begin() says when the record since the newest point is lost. */
static bool
begin_capture(struct cycle *c, struct error **err)
{
    struct capture_driver *capture = c->daemon->capture;
    struct capture_request request;
    struct error *e = NULL;

    for (size_t i = 0; i < c->n_disks; i++)
        c->disks[i].whole = !was_there(c->r, c->disks[i].target);
    cycle_fill_request(c, c->r->newest.name, c->r->pending.name, &request);
    if (capture->ops->begin(capture, &request, &c->capture, &c->time_ms, &e))
        return true;
    if (error_is(e, ERROR_CHECKPOINT_LOST)) {
        pthread_mutex_lock(&c->r->lock);
        start_over(c, error_message(e));
        replication_store(c->daemon->replications, c->r, NULL, 0, NULL);
        pthread_mutex_unlock(&c->r->lock);
    }
    return error_propagate(err, e);
}

/* A guest that is paused has no agent that could answer. */
static bool
is_consistent_due(struct cycle *c)
{
    bool due;

    pthread_mutex_lock(&c->r->lock);
    due =
        c->domain->state == HV_STATE_RUNNING && consistency_is_due(c->r, units_now_ms());
    pthread_mutex_unlock(&c->r->lock);
    return due;
}

/* Freeze, capture, thaw: what comes to the disks after the thaw is not in the point. */
static bool
begin_frozen(struct cycle *c, struct error **err)
{
    struct freeze *z;
    bool ok;

    if (!is_consistent_due(c) || !consistency_begin(c->daemon, c->r, &z))
        return begin_capture(c, err);
    ok = begin_capture(c, err);
    c->consistent = consistency_end(c->daemon, c->r, z) && ok;
    return ok;
}

static bool
send_changes(struct cycle *c, struct error **err)
{
    const struct capture_ops *ops = c->daemon->capture->ops;
    struct capture_sink sink;

    cycle_fill_sink(c, &sink);
    for (size_t i = 0; i < c->n_disks; i++)
        if (!ops->read(c->capture, i, 0, c->capacities[i], &sink, err))
            return error_prefix(err, "disk '%s'", c->disks[i].target);
    return true;
}

/* Step 4, in memory. Under r->lock. */
static void
move_newest(struct cycle *c, int64_t took_ms, uint64_t wire_before)
{
    struct replication *r = c->r;
    int64_t now_ms = units_now_ms();

    if (r->stats.cycles > 0)
        r->stats.rpo_seen_ms = MAX(r->stats.rpo_seen_ms, now_ms - r->newest.time_ms);
    else
        r->stats.first_sync_ms = now_ms - r->sync.started_ms;
    add_stale(r, r->newest.name);
    r->newest = r->pending;
    r->newest.time_ms = c->time_ms;
    r->pending.name[0] = '\0';
    consistency_point_made(r, c->time_ms, c->consistent);
    r->blobs_hash = c->blobs_hash;
    r->sync = (struct replication_sync){ 0 };
    r->phase = PHASE_REPLICATING;
    r->stats.cycles++;
    r->stats.changed_bytes += c->data_bytes;
    r->stats.wire_bytes += stream_counts(c->stream)->wire_bytes - wire_before;
    r->stats.last_bytes = c->data_bytes;
    r->stats.last_ms = took_ms;
    r->stats.samples_ms[r->stats.n_samples++ % REPLICATION_SAMPLES] = (uint32_t)took_ms;
    cycle_remember_disks(c);
}

/* Step 4. A failover that was heard of while we waited for ACK must stay (I3). */
static bool
take_acked(struct cycle *c, int64_t begun_ms, uint64_t wire_before, struct error **err)
{
    struct replication *r = c->r;
    int64_t took_ms = units_monotonic_ms() - begun_ms;
    bool ok;

    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "sync", err);
    if (ok) {
        move_newest(c, took_ms, wire_before);
        ok = replication_store(c->daemon->replications, r, NULL, 0, err);
    }
    r->agreed = ok;
    pthread_mutex_unlock(&r->lock);
    if (ok)
        log_debug(&c->log, "cycle-durable", "point %llu: %llu bytes in %lld ms",
                  (unsigned long long)r->newest.sequence,
                  (unsigned long long)c->data_bytes, (long long)took_ms);
    return ok;
}

static bool
ship(struct cycle *c, struct error **err)
{
    const struct capture_ops *ops = c->daemon->capture->ops;
    struct exchange_end end = { .time_ms = c->time_ms, .consistent = c->consistent };
    AUTOJSON *body = NULL;
    AUTOJSON *ack = NULL;

    if (!send_changes(c, err) || !cycle_send_blobs(c, err))
        return false;
    /* Before END: if the job broke meanwhile, what was read is void. */
    if (!ops->end(TAKE(c->capture), err))
        return false;
    end.frames = c->n_frames + 2;
    body = exchange_end_json(&end);
    return stream_send_json(c->stream, WIRE_END, body, err) &&
           stream_recv_json(c->stream, WIRE_ACK, &ack, err);
}

static bool
delta(struct cycle *c, struct error **err)
{
    struct exchange_begin begin;
    AUTOJSON *answer = NULL;
    int64_t begun_ms = units_monotonic_ms();
    uint64_t wire_before = 0;

    if (!name_pending(c, err))
        return false;
    cycle_fill_begin(c, EXCHANGE_DELTA, &begin);
    begin.sequence = c->r->pending.sequence;
    snprintf(begin.point, sizeof begin.point, "%s", c->r->pending.name);
    cycle_name_blobs(c, &begin);
    if (!cycle_begin_exchange(c, &begin, WIRE_READY, &answer, err))
        return error_prefix(err, "announce point %llu",
                            (unsigned long long)begin.sequence);
    c->takes_secrets = json_bool_or(answer, "secrets", false);
    wire_before = stream_counts(c->stream)->wire_bytes;
    if (!begin_frozen(c, err) || !cycle_check_sizes(c, err) ||
        !cycle_read_blobs(c, err) || !ship(c, err))
        return error_prefix(err, "point %llu", (unsigned long long)begin.sequence);
    return take_acked(c, begun_ms, wire_before, err);
}

/* --- the whole ------------------------------------------------------------- */

static bool
has_grown(const struct cycle *c, struct json_object *disk)
{
    for (size_t i = 0; i < c->n_disks; i++)
        if (strcmp(c->disks[i].target, json_string_or(disk, "target", "")) == 0)
            return (int64_t)c->capacities[i] != json_int_or(disk, "capacity", 0);
    return false;
}

/* A disk that came, went or grew is a change too. */
static bool
has_same_disks(struct cycle *c)
{
    size_t n = 0;

    for (size_t i = 0; i < json_object_array_length(c->r->disks); i++) {
        struct json_object *disk = json_object_array_get_idx(c->r->disks, i);

        if (json_bool_or(disk, "excluded", true))
            continue;
        if (has_grown(c, disk))
            return false;
        n++;
    }
    for (size_t i = 0; i < c->n_disks; i++)
        if (!was_there(c->r, c->disks[i].target))
            return false;
    return n == c->n_disks;
}

static bool
delta_or_touch(struct cycle *c, struct error **err)
{
    struct capture_driver *capture = c->daemon->capture;
    struct replication *r = c->r;
    int64_t now_ms = units_now_ms();
    uint64_t changed = 1;
    struct error *e = NULL;

    c->blobs_hash = cycle_hash_blobs(c);
    /* The first point after a sync is always made: it is what makes it whole. What a
       guest has not written yet is seen only once it is frozen. */
    if (r->phase == PHASE_REPLICATING && !is_consistent_due(c) && has_same_disks(c) &&
        r->blobs_hash == c->blobs_hash &&
        !capture->ops->changed(capture, r->vm_uuid, r->newest.name, c->disks, c->n_disks,
                               &changed, &e)) {
        if (!error_is(e, ERROR_CHECKPOINT_LOST))
            return error_propagate(err, e);
        error_clear(&e); /* begin_capture() meets it too and starts over */
    }
    return changed == 0 ? touch(c, now_ms, err) : delta(c, err);
}

bool
cycle_run(struct daemon *d, struct replication *r, struct cancel *cancel, bool *ret_more,
          struct error **err)
{
    struct cycle c = { .daemon = d, .r = r, .cancel = cancel, .log = replication_log(r) };
    bool more = false;
    bool ok;

    /* It may have been superseded since this cycle was asked for (I3). */
    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "sync", err);
    pthread_mutex_unlock(&r->lock);
    ok = ok && look_at_domain(&c, err) && agree(&c, err);
    if (ok) {
        forget_stale(&c);
        ok = check_stale(&c, err);
    }
    if (ok && r->newest.name[0] == '\0')
        ok = cycle_slice(&c, &more, err);
    if (ok && !more)
        ok = delta_or_touch(&c, err);
    if (ok)
        forget_stale(&c); /* step 5 */
    if (c.capture != NULL)
        c.capture->driver->ops->end(c.capture, NULL);
    if (ok && c.stream != NULL)
        peers_stream_put(d->peers, r->peer_id, TAKE(c.stream));
    stream_free(c.stream);
    cycle_drop_blobs(&c);
    hv_domain_free(c.domain);
    free(c.disks);
    r->progress_since_ms = 0;
    if (ok)
        *ret_more = more;
    return ok;
}

void
cycle_recover(struct daemon *d, struct replication *r)
{
    struct log_ctx log = replication_log(r);
    struct error *e = NULL;

    if (!d->capture->ops->recover(d->capture, r->vm_uuid, d->config->scratch_folder, &e))
        log_ignore(&log, "recover-failed", &e);
}

bool
cycle_forget_all(struct daemon *d, struct replication *r, struct error **err)
{
    struct cycle c = { .daemon = d, .r = r, .log = replication_log(r) };

    pthread_mutex_lock(&r->lock);
    add_stale(r, r->newest.name);
    add_stale(r, r->pending.name);
    add_stale(r, r->sync.name);
    pthread_mutex_unlock(&r->lock);
    forget_stale(&c);
    if (json_object_array_length(r->stale) > 0)
        return error_set(err, ERROR_HYPERVISOR,
                         "%zu checkpoints of VM '%s' could not be removed; see the log",
                         json_object_array_length(r->stale), r->vm_name);
    return true;
}
