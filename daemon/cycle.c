#include "daemon/cycle.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/consistency.h"
#include "daemon/contact.h"
#include "daemon/cycle_private.h"
#include "daemon/divergence.h"
#include "daemon/events.h"
#include "daemon/handover.h"
#include "daemon/peers.h"

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
static bool
open_exchange(struct cycle *c, const struct exchange_begin *begin, enum wire_type answer,
              struct json_object **ret, struct error **err)
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

/* What is sent keeps to the limits, and a sync gives way to cycles. */
bool
cycle_begin_exchange(struct cycle *c, const struct exchange_begin *begin,
                     enum wire_type answer, struct json_object **ret, struct error **err)
{
    traffic_end(&c->flow);
    traffic_begin(c->daemon, c->r, begin->kind != EXCHANGE_DELTA, c->cancel, &c->flow);
    if (!open_exchange(c, begin, answer, ret, err))
        return false;
    stream_set_limit(c->stream, traffic_wait, &c->flow);
    return true;
}

/* --- agreeing on the newest point ------------------------------------------ */

/* Step 1 to 4 may have been cut by a crash: which of the two does the target have? */
static void
settle_pending(struct cycle *c, const struct exchange_ready *has)
{
    struct replication *r = c->r;

    if (r->pending.name[0] == '\0')
        return;
    if (strcmp(has->newest.name, r->pending.name) == 0) {
        cycle_retire(r, &r->newest, &r->pending);
        r->pending.sequence = has->newest.sequence;
        r->pending.time_ms = has->newest.time_ms;
        r->newest = r->pending;
        r->pending = (struct replication_point){ 0 };
        r->phase = PHASE_REPLICATING;
    } else {
        cycle_drop(r, &r->pending);
    }
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
    r->comparable = has.compare;
    if (r->newest.name[0] != '\0' && strcmp(r->newest.name, has.newest.name) != 0 &&
        !(r->sync.complete && strcmp(r->newest.name, r->sync.name) == 0))
        cycle_start_over(c->daemon, r, "the target does not have the newest point");
    else if (r->newest.name[0] != '\0' && has.sync.name[0] != '\0' &&
             strcmp(has.sync.name, r->sync.name) != 0)
        cycle_start_over(c->daemon, r,
                         "the target is in a resync that is not known here");
    else if (r->newest.name[0] == '\0' && r->sync.compare && !has.compare)
        cycle_start_over(c->daemon, r,
                         "the target has nothing whole any more to compare with");
    else if (divergence_is_next(r) && !r->sync.complete)
        cycle_start_over(c->daemon, r,
                         "the old disks at the target are not what they were any more");
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
    cycle_latency_idle(c);
    pthread_mutex_lock(&r->lock);
    r->stats.rpo_seen_ms = MAX(r->stats.rpo_seen_ms, units_now_ms() - r->newest.time_ms);
    r->newest.time_ms = time_ms;
    if (r->newest.generation != c->generation) /* of each disk, too */
        cycle_remember_disks(c);
    r->newest.generation = c->generation;
    if (c->kind == CAPTURE_OFFLINE)
        atomic_store(&r->has_run, false);
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
    r->pending = (struct replication_point){ .sequence = r->newest.sequence + 1,
                                             .generation = c->generation };
    snprintf(r->pending.name, sizeof r->pending.name, "virt-dr-%s", id);
    if (c->kind == CAPTURE_OFFLINE)
        snprintf(r->pending.record, sizeof r->pending.record, "%s",
                 replication_record(&r->newest));
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
    struct capture_driver *capture = c->driver;
    struct capture_request request;
    struct error *e = NULL;

    for (size_t i = 0; i < c->n_disks; i++)
        c->disks[i].whole = !cycle_had_disk(c->r, c->disks[i].target);
    cycle_fill_request(c, replication_record(&c->r->newest), c->r->pending.name,
                       &request);
    request.unchanged = cycle_is_unchanged(c);
    if (capture->ops->begin(capture, &request, &c->capture, &c->time_ms, &e))
        return true;
    if (error_is(e, ERROR_CHECKPOINT_LOST)) {
        pthread_mutex_lock(&c->r->lock);
        cycle_start_over(c->daemon, c->r, error_message(e));
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
    const struct capture_ops *ops = c->driver->ops;
    struct capture_sink sink;

    cycle_fill_sink(c, &sink);
    for (size_t i = 0; i < c->n_disks; i++)
        if (!ops->read(c->capture, i, 0, c->capacities[i], &sink, err) ||
            !divergence_read(c, i, &sink, err))
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
    if (r->stats.cycles == 0 &&
        r->sync.done_bytes == 0) /* it went on from a seed's point */
        r->stats.first_sync_bytes = c->data_bytes;
    if (divergence_is_next(r))
        r->resync.sent_bytes = c->data_bytes;
    divergence_drop(r);
    cycle_retire(r, &r->newest, &r->pending);
    r->newest = r->pending;
    r->newest.time_ms = c->time_ms;
    r->pending = (struct replication_point){ 0 };
    if (c->kind == CAPTURE_OFFLINE)
        atomic_store(&r->has_run, false);
    consistency_point_made(r, c->time_ms, c->consistent);
    r->blobs_hash = c->blobs_hash;
    r->sync = (struct replication_sync){ 0 };
    if (r->resync.started_ms > r->resync.ended_ms)
        r->resync.ended_ms = now_ms;
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
    const struct capture_ops *ops = c->driver->ops;
    struct exchange_end end = { .time_ms = c->time_ms, .consistent = c->consistent };
    AUTOJSON *body = NULL;
    AUTOJSON *ack = NULL;

    if (!send_changes(c, err) || !cycle_send_blobs(c, err) ||
        (c->verify != NULL && !cycle_verify_read(c, err)))
        return false;
    /* Before END: if the job broke meanwhile, what was read is void. */
    if (!ops->end(TAKE(c->capture), err))
        return false;
    cycle_latency_end(c);
    traffic_end(&c->flow); /* all is sent: who has given way goes on while we wait */
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
    cycle_latency_begin(c);
    if (!begin_frozen(c, err) || !cycle_check_sizes(c, err) ||
        !cycle_read_blobs(c, err) || !ship(c, err))
        return error_prefix(err, "point %llu", (unsigned long long)begin.sequence);
    return take_acked(c, begun_ms, wire_before, err);
}

/* --- the whole ------------------------------------------------------------- */

static bool
count_changed(struct cycle *c, uint64_t *ret_bytes, struct error **err)
{
    const struct replication *r = c->r;

    if (cycle_is_unchanged(c)) {
        *ret_bytes = 0;
        return true;
    }
    return c->driver->ops->changed(c->driver, r->vm_uuid, replication_record(&r->newest),
                                   c->disks, c->n_disks, ret_bytes, err);
}

/* A bitmap in an image says nothing of another image that was put in its place. */
static bool
check_replaced(struct cycle *c, struct error **err)
{
    struct replication *r = c->r;
    bool ok;

    if (cycle_replaced(c) == NULL)
        return true;
    pthread_mutex_lock(&r->lock);
    cycle_start_over(c->daemon, r,
                     "its images were changed while it was off, and not by the VM");
    ok = replication_store(c->daemon->replications, r, NULL, 0, err);
    pthread_mutex_unlock(&r->lock);
    if (!ok)
        return false;
    cycle_accept_replaced(c);
    return error_set(
        err, ERROR_CHECKPOINT_LOST,
        "the image of disk '%s' of VM '%s' was changed while it was off, and "
        "not by the VM: its disks are compared with the replica",
        c->replaced, c->domain->name);
}

static bool
delta_or_touch(struct cycle *c, struct error **err)
{
    struct replication *r = c->r;
    int64_t now_ms = c->kind == CAPTURE_OFFLINE ? c->looked_ms : units_now_ms();
    uint64_t changed = 1;
    struct error *e = NULL;

    c->blobs_hash = cycle_hash_blobs(c);
    /* The first point after a sync is always made: it is what makes it whole. What a
       guest has not written yet is seen only once it is frozen. */
    if (c->verify == NULL && r->phase == PHASE_REPLICATING && !is_consistent_due(c) &&
        cycle_has_same_disks(c) && r->blobs_hash == c->blobs_hash &&
        !count_changed(c, &changed, &e)) {
        if (!error_is(e, ERROR_CHECKPOINT_LOST))
            return error_propagate(err, e);
        error_clear(&e); /* begin_capture() meets it too and starts over */
    }
    return changed == 0 ? touch(c, now_ms, err) : delta(c, err);
}

static bool
send_next(struct cycle *c, bool *ret_more, struct error **err)
{
    return divergence_begin(c, err) &&
           (c->r->newest.name[0] != '\0' || cycle_slice(c, ret_more, err)) &&
           (*ret_more || delta_or_touch(c, err));
}

static bool
check_verify(struct cycle *c, struct error **err)
{
    if (c->r->phase != PHASE_REPLICATING || c->r->newest.name[0] == '\0')
        return error_set(err, ERROR_INVALID_STATE,
                         "VM '%s' is '%s': there is no point that could be verified",
                         c->r->vm_name, states_name(c->r->phase));
    if (c->r->paused) /* each slice ships changes */
        return error_set(err, ERROR_INVALID_STATE, "replication of VM '%s' is paused",
                         c->r->vm_name);
    if (c->driver->ops->content == NULL)
        return error_set(err, ERROR_INVALID_STATE, "captures by '%s' cannot be verified",
                         c->driver->ops->name);
    return true;
}

static bool
run(struct cycle *c, bool *ret_more, struct error **err)
{
    struct replication *r = c->r;
    bool ok, ended;

    /* It may have been superseded since this cycle was asked for (I3). */
    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "sync", err);
    pthread_mutex_unlock(&r->lock);
    ok = ok && cycle_look_at_domain(c, err) &&
         (agree(c, err) || handover_explain(c->daemon, r, err)) &&
         cycle_take_over(c, err) && (c->verify == NULL || check_verify(c, err));
    if (ok && c->kind != CAPTURE_OFFLINE) {
        cycle_forget_stale(c);
        ok = cycle_check_stale(c, err);
    }
    ok = ok && check_replaced(c, err);
    if (ok && !cycle_waits(c))
        ok = send_next(c, ret_more, err);
    if (ok && c->kind != CAPTURE_OFFLINE) /* bitmaps in images stay until it runs */
        cycle_forget_stale(c);            /* step 5 */
    if (ok && c->verify != NULL)
        ok = cycle_verify_ask(c, err);
    ended = c->capture == NULL || c->capture->driver->ops->end(c->capture, NULL);
    traffic_end(&c->flow);
    if (c->stream != NULL)
        stream_set_limit(c->stream, NULL, NULL);
    if (ok && c->stream != NULL)
        peers_stream_put(c->daemon->peers, r->peer_id, TAKE(c->stream));
    stream_free(c->stream);
    cycle_drop_blobs(c);
    hv_domain_free(c->domain);
    free(c->disks);
    r->progress_since_ms = 0;
    r->unsettled = !ok || !ended; /* libvirtd was killed, for example */
    return ok;
}

bool
cycle_run(struct daemon *d, struct replication *r, struct cancel *cancel, bool *ret_more,
          struct error **err)
{
    struct cycle c = { .daemon = d, .r = r, .cancel = cancel, .log = replication_log(r) };
    bool more = false;

    if (!run(&c, &more, err))
        return false;
    *ret_more = more;
    return true;
}

bool
cycle_verify(struct daemon *d, struct replication *r, struct cancel *cancel,
             struct cycle_verify *v, struct error **err)
{
    struct cycle c = {
        .daemon = d, .r = r, .cancel = cancel, .log = replication_log(r), .verify = v
    };
    bool more = false, ok = run(&c, &more, err);

    free(TAKE(v->windows));
    v->n_windows = 0;
    return ok;
}

/* QEMU's monitor is left alone where we have never used it. */
static bool
may_be_open(const struct replication *r, enum capture_kind kind)
{
    if (kind == CAPTURE_CHECKPOINT)
        return !atomic_load(&r->lost_job);
    return kind != CAPTURE_BITMAP || json_bool_or(r->capture, "usedBitmaps", false);
}

void
cycle_recover(struct daemon *d, struct replication *r)
{
    struct log_ctx log = replication_log(r);

    r->unsettled = false;
    for (size_t i = 0; i < CAPTURE_N_KINDS; i++) {
        struct capture_driver *capture = d->captures[i];
        struct error *e = NULL;

        if (!may_be_open(r, i) ||
            capture->ops->recover(capture, r->vm_uuid, d->config->scratch_folder, &e))
            continue;
        if (error_is(e, ERROR_JOB_LOST))
            atomic_store(&r->lost_job, true);
        else
            r->unsettled = true;
        log_ignore(&log, "recover-failed", &e);
    }
}

bool
cycle_forget_all(struct daemon *d, struct replication *r, struct error **err)
{
    struct cycle c = { .daemon = d, .r = r, .log = replication_log(r) };

    cycle_recover(d, r);
    pthread_mutex_lock(&r->lock);
    cycle_add_stale(r, replication_record(&r->newest));
    cycle_drop(r, &r->pending);
    cycle_add_stale(r, r->sync.name);
    pthread_mutex_unlock(&r->lock);
    cycle_forget_stale(&c);
    if (json_object_array_length(r->stale) > 0)
        return error_set(err, ERROR_HYPERVISOR,
                         "%zu checkpoints of VM '%s' could not be removed; see the log",
                         json_object_array_length(r->stale), r->vm_name);
    return true;
}
