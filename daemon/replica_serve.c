/*
 * One exchange on the target, from BEGIN to ACK. Reads in the order in which
 * things happen: announce, receive, settle. Whatever fails, the last point
 * stays good: the journal under way is forgotten and the stream closed.
 */
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/auxiliary.h"
#include "daemon/events.h"
#include "daemon/handover.h"
#include "daemon/peers.h"
#include "daemon/replica_private.h"
#include "daemon/replica_serve.h"
#include "daemon/seed.h"

#define FLUSH_BYTES       (512u << 20) /* of a slice: keeps the flush at its end short */
#define CLAIM_MS          10000        /* how long an exchange waits for the one before */
#define CANNOT_KEEP_UP_MS 20000 /* how long a delta waits for the journal to shrink */
#define POINT_AHEAD_MS    (STREAM_MAX_SKEW_MS + 1000) /* as the greeting allows */

/* --- announce ---------------------------------------------------------------- */

/* Is this VM's replica here, of that source, and may it be written? Under r->lock. */
static bool
admit(struct incoming *in, const char *peer_id, struct error **err)
{
    struct replication *r = in->r;

    if (r->side != SIDE_TARGET || strcmp(r->peer_id, peer_id) != 0)
        return handover_refuse(in->daemon, r, peer_id, err);
    if (in->begin.kind == EXCHANGE_QUERY)
        return true; /* changes nothing, and tells a superseded source that it is */
    if (in->begin.epoch != r->epoch)
        return error_set(err, ERROR_EPOCH, "epoch is %llu here, not %llu",
                         (unsigned long long)r->epoch,
                         (unsigned long long)in->begin.epoch);
    return replication_allows(r, "receive", err);
}

/* Does what comes build on what is here? Under r->lock. */
static bool
check_base(struct incoming *in, struct error **err)
{
    struct replication *r = in->r;
    const struct exchange_begin *b = &in->begin;
    /* Once a resync has begun, or must, the tip is not at the newest point any more. */
    bool on_newest = r->newest.name[0] != '\0' && r->sync.name[0] == '\0' &&
                     !r->damaged && strcmp(b->parent, r->newest.name) == 0;
    bool on_sync = r->sync.complete && strcmp(b->parent, r->sync.name) == 0;

    switch (b->kind) {
    case EXCHANGE_QUERY:
        return true;
    case EXCHANGE_SLICE:
        if (!b->compare || replica_comparable(r))
            return seed_check_settled(r, err);
        return error_set(err, ERROR_WRONG_BASE,
                         "the replica has nothing whole to compare with");
    case EXCHANGE_TOUCH:
    case EXCHANGE_VERIFY:
        if (on_newest)
            return true;
        break;
    case EXCHANGE_DELTA:
        if ((on_newest || on_sync) && b->sequence == r->newest.sequence + 1)
            return true;
        break;
    }
    return error_set(err, ERROR_WRONG_BASE,
                     "the newest point here is %llu '%s'; what came is %llu on '%s'",
                     (unsigned long long)r->newest.sequence, r->newest.name,
                     (unsigned long long)b->sequence, b->parent);
}

/* An exchange that still hangs on a dead connection makes way for a new one. */
static bool
claim(struct incoming *in, struct error **err)
{
    cancel_set_timeout(&in->cancel, CLAIM_MS);
    in->claimed = replication_claim(in->r, &in->cancel, true, err);
    cancel_set_timeout(&in->cancel, 0);
    if (in->claimed)
        stream_set_cancel(in->stream, &in->cancel);
    return in->claimed;
}

static bool
judge(struct incoming *in, const char *peer_id, struct error **err)
{
    bool ok;

    pthread_mutex_lock(&in->r->lock);
    ok = admit(in, peer_id, err) && check_base(in, err);
    if (ok)
        in->r->contact_ms = units_now_ms();
    pthread_mutex_unlock(&in->r->lock);
    return ok;
}

/* Before it may stop anybody, and again once nobody else can change what it meets. */
static bool
announce(struct incoming *in, const char *peer_id, struct error **err)
{
    return replications_find(in->daemon->replications, in->begin.replication, &in->r,
                             err) &&
           judge(in, peer_id, err) && claim(in, err) && judge(in, peer_id, err);
}

bool
replica_send_ready(struct incoming *in, struct error **err)
{
    struct exchange_ready ready;
    AUTOJSON *body = NULL;

    pthread_mutex_lock(&in->r->lock);
    ready = (struct exchange_ready){ .epoch = in->r->epoch,
                                     .newest = in->r->newest,
                                     .sync = in->r->sync,
                                     .secrets = in->daemon->config->replicate_secrets };
    ready.compare = replica_comparable(in->r);
    if (in->r->damaged) /* so that the source sends all of it anew */
        ready.newest.name[0] = '\0';
    pthread_mutex_unlock(&in->r->lock);
    body = exchange_ready_json(&ready);
    return stream_send_json(in->stream, WIRE_READY, body, err);
}

bool
replica_send_ack(struct incoming *in, struct error **err)
{
    AUTOJSON *body = json_object_new_object();

    json_set_u64(body, "sequence", in->begin.sequence);
    json_set_string(body, "point", in->begin.point);
    return stream_send_json(in->stream, WIRE_ACK, body, err);
}

/* --- receive ------------------------------------------------------------------ */

/* What READY has declined is not stored, whatever the source thinks. */
static bool
is_declined(const struct incoming *in, const struct wire_frame *f)
{
    return f->type == WIRE_BLOB && !in->daemon->config->replicate_secrets &&
           strcmp(in->begin.blobs[f->disk], AUXILIARY_SECRETS) == 0;
}

/* A frame must lie on a disk, or in a blob, that BEGIN has named. */
static bool
check_place(const struct incoming *in, const struct wire_frame *f, struct error **err)
{
    size_t n = f->type == WIRE_BLOB ? in->begin.n_blobs : in->begin.n_disks;
    uint64_t size;

    if (f->disk >= n)
        return error_set(err, ERROR_PROTOCOL, "%s frame for disk %u of %zu",
                         wire_type_name(f->type), f->disk, n);
    if (is_declined(in, f))
        return error_set(err, ERROR_PROTOCOL, "secrets, which this host does not take");
    size = f->type == WIRE_BLOB ? WIRE_MAX_BLOB_BYTES
                                : in->begin.disks[f->disk].capacity_bytes;
    if (f->offset > size || f->length > size - f->offset)
        return error_set(err, ERROR_PROTOCOL, "%s frame beyond the end of disk %u",
                         wire_type_name(f->type), f->disk);
    return true;
}

bool
replica_receive(struct incoming *in, replica_take_fn take, struct exchange_end *ret,
                struct error **err)
{
    for (;;) {
        struct wire_frame f;
        const void *payload;
        AUTOJSON *body = NULL;

        if (!stream_recv(in->stream, &f, &payload, err))
            return false;
        in->frames++;
        in->wire_bytes += WIRE_HEADER_BYTES + f.stored;
        if (f.type == WIRE_END)
            return take(in, &f, payload, err) &&
                   json_parse(payload, f.stored, &body, err) &&
                   exchange_end_parse(body, ret, err);
        if (f.type == WIRE_WANT &&
            (in->begin.compare || in->begin.kind == EXCHANGE_VERIFY)) {
            if (!replica_answer(in, &f, payload, err))
                return false;
            continue;
        }
        if (f.type != WIRE_DATA && f.type != WIRE_ZERO && f.type != WIRE_BLOB)
            return error_set(err, ERROR_PROTOCOL, "%s frame between BEGIN and END",
                             wire_type_name(f.type));
        if (!check_place(in, &f, err) || !take(in, &f, payload, err))
            return false;
    }
}

/* A point of the future would look fresh, whatever happens to the source. */
static bool
check_time(int64_t time_ms, struct error **err)
{
    int64_t ahead_ms = time_ms - units_now_ms();

    if (ahead_ms <= POINT_AHEAD_MS)
        return true;
    return error_set(err, ERROR_CLOCK,
                     "the point's time is %lld.%03lld s ahead of the clock of this "
                     "host; synchronise the clocks",
                     (long long)(ahead_ms / 1000), (long long)(ahead_ms % 1000));
}

bool
replica_check_end(const struct incoming *in, const struct exchange_end *end,
                  struct error **err)
{
    if (end->frames == in->frames)
        return true;
    return error_set(err, ERROR_PROTOCOL, "END counts %u frames, %u came", end->frames,
                     in->frames);
}

/* --- a delta: into the journal ------------------------------------------------- */

/*
 * What is acknowledged must be applicable: content that does not unpack would
 * be a point that nobody can ever recover, with a right hash.
 */
static bool
take_into_journal(struct incoming *in, const struct wire_frame *f, const void *payload,
                  struct error **err)
{
    const void *data;

    if (f->flags & WIRE_ZSTD) {
        if (in->unpacked == NULL)
            in->unpacked = mem_alloc(1, WIRE_MAX_DATA);
        if (!wire_unpack(f, payload, in->unpacked, &data, err))
            return false;
    }
    return in->store->ops->journal_append(in->journal, f, payload, err);
}

/* While the space is low the upkeep says whether there is room for more. */
static bool
check_room(struct incoming *in, struct error **err)
{
    struct replica *replica = replica_get(in->r);
    bool ok = true;

    pthread_mutex_lock(&in->r->lock);
    if (replica->room == ROOM_NONE)
        ok = error_set(err, ERROR_NO_SPACE, "%s", replica->room_text);
    pthread_mutex_unlock(&in->r->lock);
    return ok;
}

/* The journal may not grow without end when the tip's disk is slow, or full. */
static bool
wait_for_room(struct incoming *in, struct error **err)
{
    struct cancel patience = { 0 };
    uint64_t waiting;

    if (!check_room(in, err))
        return false;
    pthread_mutex_lock(&in->r->lock);
    waiting = in->r->newest.sequence - in->store->ops->applied(in->store);
    pthread_mutex_unlock(&in->r->lock);
    if (waiting < REPLICA_MAX_WAITING)
        return true;
    cancel_set_timeout(&patience, CANNOT_KEEP_UP_MS);
    return replica_apply(in->daemon, in->r, &patience, err) ||
           error_prefix(err, "%llu journals wait to be applied",
                        (unsigned long long)waiting);
}

static struct point
point_of(const struct incoming *in, const struct exchange_end *end)
{
    struct point p = { .sequence = in->begin.sequence,
                       .time_ms = end->time_ms,
                       .received_ms = units_now_ms(),
                       .transfer_bytes = in->wire_bytes,
                       .application = end->consistent };

    snprintf(p.name, sizeof p.name, "%s", in->begin.point);
    return p;
}

/* The point becomes visible: one commit for all of its disks (I2). Under r->lock. */
static bool
record_point(struct incoming *in, const struct exchange_end *end, struct error **err)
{
    struct replication *r = in->r;
    struct replication_point before = r->newest;
    struct replication_sync sync_before = r->sync;
    enum replication_phase phase_before = r->phase;
    bool damaged_before = r->damaged;
    struct point point = point_of(in, end);
    AUTOFREE(char) *key = NULL;
    AUTOJSON *doc = points_document(in->points, &point, &key);
    struct state_write write = { .kind = "point", .id = key, .body = doc };

    snprintf(r->newest.name, sizeof r->newest.name, "%s", in->begin.point);
    r->newest.sequence = in->begin.sequence;
    r->newest.time_ms = end->time_ms;
    r->sync = (struct replication_sync){ 0 };
    r->phase = PHASE_REPLICATING;
    r->damaged = false;
    r->contact_ms = units_now_ms();
    if (replication_store(in->daemon->replications, r, &write, 1, err)) {
        points_added(in->points, &point);
        replication_set_error(r, NULL);
        r->stats.cycles++;
        r->stats.wire_bytes += in->wire_bytes;
        r->stats.last_bytes = in->wire_bytes;
        return true;
    }
    r->newest = before;
    r->sync = sync_before;
    r->phase = phase_before;
    r->damaged = damaged_before;
    return false;
}

/* Once more under the lock: a failover during the transfer must win (I3). */
static bool
make_durable(struct incoming *in, const struct exchange_end *end, struct error **err)
{
    bool ok;

    pthread_mutex_lock(&in->r->lock);
    ok = admit(in, in->r->peer_id, err) && check_base(in, err) &&
         in->store->ops->journal_commit(TAKE(in->journal), err) &&
         record_point(in, end, err);
    pthread_mutex_unlock(&in->r->lock);
    return ok;
}

static bool
take_delta(struct incoming *in, struct error **err)
{
    struct exchange_end end;

    if (!replica_store(in->daemon, in->r, &in->store, err) ||
        !replica_points(in->daemon, in->r, &in->points, err) || !wait_for_room(in, err) ||
        !replica_check_disks(in->store, &in->begin, err) ||
        !in->store->ops->journal_begin(in->store, in->begin.sequence, &in->journal,
                                       err) ||
        !in->store->ops->journal_append(in->journal, &in->begin_frame, in->begin_payload,
                                        err) ||
        !replica_send_ready(in, err) ||
        !replica_receive(in, take_into_journal, &end, err) ||
        !replica_check_end(in, &end, err) || !check_time(end.time_ms, err) ||
        !make_durable(in, &end, err) || !replica_send_ack(in, err))
        return false;
    replica_apply_later(in->daemon, in->r);
    return true;
}

/* --- a slice: straight into the tip --------------------------------------------- */

static bool
flush_tip(struct incoming *in, struct error **err)
{
    in->in_doubt = !in->store->ops->flush(in->store, err);
    return !in->in_doubt;
}

/* The source waits for ACK no longer than a stalled link: a flush must not take that
 * long. */
static bool
write_tip(struct incoming *in, const char *target, const struct wire_frame *f,
          const void *data, struct error **err)
{
    in->in_doubt =
        !in->store->ops->write(in->store, target, f->offset, data, f->length, err);
    in->unflushed_bytes += f->length;
    if (in->in_doubt || in->unflushed_bytes < FLUSH_BYTES)
        return !in->in_doubt;
    in->unflushed_bytes = 0;
    return flush_tip(in, err);
}

/* The store's own memory spares a copy; write() judges what the frame says. */
static void *
place_for_tip(void *opaque, const struct wire_frame *f)
{
    struct incoming *in = opaque;

    if (f->disk >= in->begin.n_disks)
        return NULL;
    return in->store->ops->place(in->store, in->begin.disks[f->disk].target, f->offset,
                                 f->length);
}

static bool
take_into_tip(struct incoming *in, const struct wire_frame *f, const void *payload,
              struct error **err)
{
    AUTOFREE(char) *buffer = NULL;
    const char *target;
    const void *data;

    if (f->type != WIRE_DATA && f->type != WIRE_ZERO)
        return true; /* END's disk was not checked, and means none */
    target = in->begin.disks[f->disk].target;
    if (f->type == WIRE_ZERO) {
        in->in_doubt =
            !in->store->ops->zero(in->store, target, f->offset, f->length, err);
        return !in->in_doubt;
    }
    if (f->flags & WIRE_ZSTD)
        buffer = mem_alloc(1, WIRE_MAX_DATA);
    return wire_unpack(f, payload, buffer, &data, err) &&
           write_tip(in, target, f, data, err);
}

static bool
is_damaged(struct points *points, uint64_t seq)
{
    struct point p;
    bool damaged;

    if (!points_get(points, seq, &p))
        return false;
    damaged = p.damaged;
    point_clear(&p);
    return damaged;
}

/*
 * Points that wait to be applied, were acknowledged, and need what is damaged: nothing
 * can bring them back. True if there were some.
 */
static bool
drop_lost(struct incoming *in)
{
    uint64_t applied = in->store->ops->applied(in->store), seq;
    struct points *points;
    bool dropped = false;

    if (!replica_points(in->daemon, in->r, &points, NULL) ||
        !points_next(points, applied, &seq) || !is_damaged(points, seq))
        return false;
    while (points_next(points, applied, &seq)) {
        if (!points_remove(points, &seq, 1, NULL) ||
            !in->store->ops->journal_drop(in->store, seq, NULL))
            return false;
        dropped = true;
    }
    return dropped;
}

/* All that can be applied is in the tip then. */
static bool
catch_up(struct incoming *in, struct error **err)
{
    for (;;) {
        struct error *e = NULL;

        if (replica_apply(in->daemon, in->r, NULL, &e))
            return true;
        if (!drop_lost(in))
            return error_propagate(err, e);
        error_free(e);
    }
}

typedef bool (*tip_fn)(struct store *s, struct error **err);

static bool
with_tip(struct incoming *in, tip_fn fn, struct error **err)
{
    bool ok;

    replica_lock_tip(in->r);
    ok = fn(in->store, err);
    replica_unlock_tip(in->r);
    return ok;
}

/*
 * The points that are whole stay so: sealed below the sync. A tip that cannot be sealed,
 * since a part of a damaged journal is in it, is made anew from the newest mark.
 */
static bool
leave_points(struct incoming *in, struct error **err)
{
    const struct store_ops *ops = in->store->ops;
    struct error *e = NULL;

    if (!catch_up(in, err))
        return false;
    if (with_tip(in, ops->seal, &e))
        return true;
    if (!error_is(e, ERROR_CHECKSUM) && !error_is(e, ERROR_POINT_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    return with_tip(in, ops->reset, err) && catch_up(in, err) &&
           with_tip(in, ops->seal, err);
}

/* A sync that begins anew throws away what an earlier one wrote, unless it compares: what
   is there then need not come again. */
static bool
make_way(struct incoming *in, struct error **err)
{
    if (in->r->phase == PHASE_REPLICATING)
        return leave_points(in, err);
    if (in->r->phase != PHASE_RESYNCING ||
        (in->begin.compare && in->r->sync.name[0] != '\0'))
        return true;
    return with_tip(in, in->store->ops->reset, err);
}

static bool
begin_sync(struct incoming *in, struct error **err)
{
    struct replication *r = in->r;
    bool ok;

    if (strcmp(r->sync.name, in->begin.point) == 0)
        return true;
    if (!make_way(in, err))
        return false;
    pthread_mutex_lock(&r->lock);
    r->sync = (struct replication_sync){ .started_ms = units_now_ms() };
    snprintf(r->sync.name, sizeof r->sync.name, "%s", in->begin.point);
    if (r->phase == PHASE_REPLICATING)
        r->phase = PHASE_RESYNCING;
    ok = replication_store(in->daemon->replications, r, NULL, 0, err);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

static bool
record_slice(struct incoming *in, const struct exchange_end *end, struct error **err)
{
    struct replication *r = in->r;
    bool ok;

    pthread_mutex_lock(&r->lock);
    ok = admit(in, r->peer_id, err);
    if (ok) {
        snprintf(r->sync.target, sizeof r->sync.target, "%s", end->target);
        r->sync.offset = end->offset;
        r->sync.complete = end->complete;
        r->sync.done_bytes += in->wire_bytes;
        r->contact_ms = units_now_ms();
        ok = replication_store(in->daemon->replications, r, NULL, 0, err);
    }
    pthread_mutex_unlock(&r->lock);
    return ok;
}

static bool
match_disks(struct incoming *in, struct error **err)
{
    struct store_disk disks[WIRE_MAX_DISKS];

    for (size_t i = 0; i < in->begin.n_disks; i++) {
        snprintf(disks[i].target, sizeof disks[i].target, "%s",
                 in->begin.disks[i].target);
        disks[i].capacity_bytes = in->begin.disks[i].capacity_bytes;
    }
    return in->store->ops->match(in->store, disks, in->begin.n_disks, err);
}

/* After a write that failed the page cache may show what the disk does not have, and a
   compare would find it equal: so the sync begins anew, on a new layer. */
static void
distrust(struct incoming *in)
{
    struct replication *r = in->r;
    struct log_ctx log = replication_log(r);
    struct error *e = NULL;

    pthread_mutex_lock(&r->lock);
    r->sync.name[0] = '\0';
    seed_set(r, "void");
    if (!replication_store(in->daemon->replications, r, NULL, 0, &e))
        log_ignore(&log, "sync-not-stored", &e);
    pthread_mutex_unlock(&r->lock);
}

static bool
take_slice(struct incoming *in, struct error **err)
{
    struct exchange_end end;
    bool ok;

    if (!replica_store(in->daemon, in->r, &in->store, err) || !check_room(in, err) ||
        !replica_check_disks(in->store, &in->begin, err) || !begin_sync(in, err))
        return false;
    replica_lock_tip(in->r);
    stream_set_place(in->stream, place_for_tip, in);
    ok = match_disks(in, err) && replica_send_ready(in, err) &&
         replica_receive(in, take_into_tip, &end, err) &&
         replica_check_end(in, &end, err) && flush_tip(in, err);
    stream_set_place(in->stream, NULL, NULL);
    replica_unlock_tip(in->r);
    if (in->in_doubt && in->begin.compare)
        distrust(in);
    return ok && record_slice(in, &end, err) && replica_send_ack(in, err);
}

/* --- nothing changed -------------------------------------------------------------- */

static bool
take_touch(struct incoming *in, struct error **err)
{
    struct replication *r = in->r;
    bool ok, retry;

    if (!check_time(in->begin.time_ms, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = admit(in, r->peer_id, err) && check_base(in, err);
    if (ok) {
        r->newest.time_ms = in->begin.time_ms;
        ok = replication_store(in->daemon->replications, r, NULL, 0, err);
    }
    retry = ok && r->error != NULL;
    pthread_mutex_unlock(&r->lock);
    if (retry) /* no delta comes that would try it again */
        replica_apply_later(in->daemon, r);
    return ok && replica_send_ack(in, err);
}

/* --- the whole --------------------------------------------------------------------- */

static bool
take_begin(struct incoming *in, struct error **err)
{
    AUTOJSON *body = NULL;
    const void *payload;

    if (!stream_recv(in->stream, &in->begin_frame, &payload, err))
        return false;
    if (in->begin_frame.type != WIRE_BEGIN)
        return error_set(err, ERROR_PROTOCOL, "%s frame where BEGIN should be",
                         wire_type_name(in->begin_frame.type));
    in->begin_payload = mem_memdup(payload, in->begin_frame.stored);
    in->frames = 1;
    in->wire_bytes = WIRE_HEADER_BYTES + in->begin_frame.stored;
    return json_parse(in->begin_payload, in->begin_frame.stored, &body, err) &&
           exchange_begin_parse(body, &in->begin, err);
}

static bool
take_exchange(struct incoming *in, struct error **err)
{
    switch (in->begin.kind) {
    case EXCHANGE_QUERY:
        return replica_send_ready(in, err);
    case EXCHANGE_SLICE:
        return take_slice(in, err);
    case EXCHANGE_DELTA:
        return take_delta(in, err);
    case EXCHANGE_TOUCH:
        return take_touch(in, err);
    case EXCHANGE_VERIFY:
        return replica_verify(in, err);
    }
    return error_set(err, ERROR_PROTOCOL, "unknown kind of exchange");
}

bool
replica_serve(struct stream *s, const char *peer_id, void *opaque)
{
    struct incoming in = { .daemon = opaque, .stream = s };
    AUTOPTR(error) *e = NULL;
    bool ok;

    peers_heard(in.daemon->peers, peer_id);
    ok = take_begin(&in, &e) && announce(&in, peer_id, &e) &&
         replica_check_ground(&in, &e) && take_exchange(&in, &e);
    if (in.journal != NULL)
        in.store->ops->journal_abort(in.journal);
    stream_set_cancel(s, NULL);
    if (in.claimed)
        replication_release(in.r);
    if (!ok) {
        struct log_ctx log = in.r != NULL ? replication_log(in.r) : (struct log_ctx){ 0 };

        log.peer = peer_id;
        log_failure(&log, "receive-failed", e);
        stream_send_error(s, e);
    }
    replication_unref(in.r);
    free(in.unpacked);
    free(in.begin_payload);
    return ok;
}
