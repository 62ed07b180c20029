/*
 * The first sync, and a resync: the whole disks, in slices.
 *
 * Each slice is a capture of its own, so that the scratch space stays bounded
 * and a broken link loses one slice at most. The first slice's capture names a
 * point, and everything the guest changes after it is in the delta that makes
 * the sync whole: what slices read at different times does not matter.
 */
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle_private.h"
#include "daemon/events.h"
#include "daemon/workers.h"

#define LOOKED_PER_SENT 4

/* Read at once; the slice's end is checked between. */
#define FIRST_WINDOW_BYTES (4ull << 20)
#define FIRST_COMPARED     (32ull << 20) /* the same of a compare, which sends little */
#define MIN_WINDOW_BYTES   (1ull << 20)
#define MAX_WINDOW_BYTES   (256ull << 20)
#define WINDOW_MS          500 /* that it is to take */
#define MIN_SLICE_MS       1000

/* --- sending (used for deltas too) ------------------------------------------ */

static bool
sink_data(void *opaque, size_t disk, uint64_t offset, const void *data, size_t length,
          struct error **err)
{
    struct cycle *c = opaque;

    c->n_frames++;
    c->data_bytes += length;
    if (!c->comparing)
        __atomic_add_fetch(&c->r->progress_done, length, __ATOMIC_RELAXED);
    return stream_send_data(c->stream, WIRE_DATA, (uint16_t)disk, offset, data, length,
                            err);
}

static bool
sink_zero(void *opaque, size_t disk, uint64_t offset, uint64_t length, struct error **err)
{
    struct cycle *c = opaque;

    c->n_frames++;
    return stream_send_zero(c->stream, (uint16_t)disk, offset, length, err);
}

void
cycle_fill_sink(struct cycle *c, struct capture_sink *ret)
{
    *ret = (struct capture_sink){ .data = sink_data, .zero = sink_zero, .opaque = c };
    c->n_frames = 0;
    c->data_bytes = 0;
    c->looked_bytes = 0;
    c->comparing = false;
}

void
cycle_fill_request(struct cycle *c, const char *base, const char *name,
                   struct capture_request *ret)
{
    *ret = (struct capture_request){
        .uuid = c->r->vm_uuid,
        .disks = c->disks,
        .n_disks = c->n_disks,
        .base = base[0] != '\0' ? base : NULL,
        .name = name[0] != '\0' ? name : NULL,
        .scratch_folder = c->daemon->config->scratch_folder,
        .scratch_limit_bytes = c->daemon->config->scratch_limit_bytes,
        .cancel = c->cancel,
    };
}

/* --- slices ----------------------------------------------------------------- */

struct position {
    size_t disk;
    uint64_t offset;
};

/* Where the target's record says to go on; a disk that is gone begins the next one. */
static struct position
find_position(struct cycle *c)
{
    const struct replication_sync *s = &c->r->sync;

    for (size_t i = 0; i < c->n_disks; i++)
        if (strcmp(c->disks[i].target, s->target) == 0)
            return (struct position){ i, s->offset - s->offset % BLOCK_HASH_COARSE };
    return (struct position){ 0, 0 };
}

/* A sync that begins: its point's name is stored before the capture knows it. */
static bool
name_sync(struct cycle *c, struct error **err)
{
    struct replication *r = c->r;
    char id[ID_TEXT];
    bool ok;

    id_new(id);
    pthread_mutex_lock(&r->lock);
    r->sync = (struct replication_sync){ .started_ms = units_now_ms(),
                                         .compare = r->comparable };
    snprintf(r->sync.name, sizeof r->sync.name, "virt-dr-%s", id);
    r->resync.compare = r->sync.compare;
    if (r->sync.compare && r->resync.started_ms == 0) /* told as what it is */
        r->resync =
            (struct replication_resync){ .started_ms = r->sync.started_ms,
                                         .compare = true,
                                         .reason = "the replica began with a seed" };
    cycle_remember_disks(c); /* what comes later has no record since this point */
    ok = replication_store(c->daemon->replications, r, NULL, 0, err);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/*
 * The first slice makes the sync's point. Whether an earlier try that failed
 * made it already cannot be known after a crash: forget it and make it anew,
 * as nothing that it recorded is needed before the first slice is durable.
 */
static bool
begin_slice(struct cycle *c, bool first, struct error **err)
{
    struct capture_driver *capture = c->driver;
    struct capture_request request;

    if (first && c->kind != CAPTURE_OFFLINE &&
        !cycle_forget(c->daemon, c->r, c->r->sync.name, err))
        return false;
    cycle_fill_request(c, "", first ? c->r->sync.name : "", &request);
    return capture->ops->begin(capture, &request, &c->capture, &c->time_ms, err);
}

/* How much there is to do in all; once, in the first slice. */
static bool
measure(struct cycle *c, struct error **err)
{
    const struct capture_ops *ops = c->driver->ops;
    uint64_t total = 0;

    if (c->r->sync.total_bytes > 0)
        return true;
    for (size_t i = 0; i < c->n_disks; i++) {
        uint64_t bytes;

        if (!ops->measure(c->capture, i, 0, c->capacities[i], &bytes, err))
            return error_prefix(err, "disk '%s'", c->disks[i].target);
        total += bytes;
    }
    pthread_mutex_lock(&c->r->lock);
    c->r->sync.total_bytes = total;
    c->r->progress_total = total;
    pthread_mutex_unlock(&c->r->lock);
    return true;
}

static bool
read_part(struct cycle *c, size_t disk, uint64_t from, uint64_t to,
          const struct capture_sink *sink, struct error **err)
{
    if (c->comparing ? cycle_compare(c, disk, from, to, sink, err)
                     : c->driver->ops->read(c->capture, disk, from, to, sink, err))
        return true;
    return error_prefix(err, "disk '%s'", c->disks[disk].target);
}

/* What is only compared makes less work than what is sent. */
static uint64_t
slice_done(const struct cycle *c)
{
    return c->data_bytes + c->looked_bytes / LOOKED_PER_SENT;
}

/* How long a slice is to be, in time; it ends sooner when others need what it uses. */
struct slice {
    int64_t begun_ms, until_ms;
    uint64_t window; /* bytes to be read next */
    bool was_held;   /* the operator wants it all the same */
};

static struct slice
plan_slice(struct cycle *c)
{
    struct bandwidth_limit limit = traffic_limit(&c->flow);
    int64_t now_ms = units_monotonic_ms();

    return (struct slice){ .begun_ms = now_ms,
                           .until_ms = now_ms + c->daemon->config->slice_ms,
                           .window =
                               c->r->sync.compare ? FIRST_COMPARED : FIRST_WINDOW_BYTES,
                           .was_held = limit.cycles_only };
}

/* The longest window that the limit lets through in its time. */
static uint64_t
next_window(struct cycle *c, const struct slice *s)
{
    uint64_t rate = traffic_limit(&c->flow).rate;
    uint64_t most =
        rate > 0 && !c->comparing ? rate * WINDOW_MS / 1000 : MAX_WINDOW_BYTES;

    return MAX(MIN(s->window, most), MIN_WINDOW_BYTES);
}

/* What was fast makes the next one longer, up to twice as long. */
static void
pace_window(struct slice *s, int64_t took_ms)
{
    uint64_t fits = s->window * WINDOW_MS / (uint64_t)MAX(took_ms, 1);

    s->window = MAX(MIN(MIN(fits, 2 * s->window), MAX_WINDOW_BYTES), MIN_WINDOW_BYTES);
}

static bool
is_slice_over(struct cycle *c, const struct slice *s)
{
    int64_t now_ms = units_monotonic_ms();

    if (now_ms >= s->until_ms || slice_done(c) >= c->daemon->config->slice_bytes)
        return true;
    if (!s->was_held && traffic_limit(&c->flow).cycles_only)
        return true;
    return now_ms - s->begun_ms >= MIN_SLICE_MS &&
           workers_keep_waiting(c->daemon->cycles, s->until_ms);
}

/* Reads from *at on until the slice is long enough; moves *at behind it. */
static bool
read_slice(struct cycle *c, struct position *at, struct error **err)
{
    struct slice slice = plan_slice(c);
    struct capture_sink sink;

    cycle_fill_sink(c, &sink);
    c->comparing = c->r->sync.compare;
    while (at->disk < c->n_disks && !is_slice_over(c, &slice)) {
        uint64_t capacity = c->capacities[at->disk];
        int64_t begun_ms = units_monotonic_ms();
        uint64_t step =
            MIN(next_window(c, &slice), c->daemon->config->slice_bytes - slice_done(c));
        uint64_t to = MIN(capacity, at->offset + (step + 0xffff) / 0x10000 * 0x10000);

        if (at->offset < capacity && !read_part(c, at->disk, at->offset, to, &sink, err))
            return false;
        pace_window(&slice, units_monotonic_ms() - begun_ms);
        at->offset = to;
        if (at->offset >= capacity)
            *at = (struct position){ at->disk + 1, 0 };
    }
    return true;
}

static bool
end_slice(struct cycle *c, const struct position *at, struct error **err)
{
    struct exchange_end end = { .time_ms = c->time_ms };
    AUTOJSON *body = NULL;
    AUTOJSON *ack = NULL;

    if (!c->capture->driver->ops->end(TAKE(c->capture), err))
        return false;
    end.frames = c->n_frames + 2;
    end.complete = at->disk == c->n_disks;
    if (!end.complete)
        snprintf(end.target, sizeof end.target, "%s", c->disks[at->disk].target);
    end.offset = at->offset;
    body = exchange_end_json(&end);
    return stream_send_json(c->stream, WIRE_END, body, err) &&
           stream_recv_json(c->stream, WIRE_ACK, &ack, err);
}

/*
 * A disk that this slice did not see: should it come back, with its old bitmap even,
 * then it has missed slices, so that the delta must take all of it. Under c->r->lock.
 */
static void
forget_absent_disks(struct cycle *c)
{
    struct json_object *disks = c->r->disks;

    for (size_t i = 0; i < json_object_array_length(disks); i++) {
        struct json_object *disk = json_object_array_get_idx(disks, i);
        size_t k = 0;

        while (k < c->n_disks &&
               strcmp(c->disks[k].target, json_string_or(disk, "target", "")) != 0)
            k++;
        if (k == c->n_disks)
            json_set_bool(disk, "excluded", true);
    }
}

static bool
take_slice(struct cycle *c, const struct position *at, uint64_t wire_bytes,
           struct error **err)
{
    struct replication *r = c->r;
    bool complete = at->disk == c->n_disks;
    bool ok;

    pthread_mutex_lock(&r->lock);
    forget_absent_disks(c);
    r->sync.complete = complete;
    r->latency.last = (struct latency_sample){ 0 }; /* a slice is not between cycles */
    snprintf(r->sync.target, sizeof r->sync.target, "%s",
             complete ? "" : c->disks[at->disk].target);
    r->sync.offset = at->offset;
    r->sync.done_bytes += c->comparing ? c->looked_bytes : c->data_bytes;
    r->resync.looked_bytes += c->comparing ? c->looked_bytes : c->data_bytes;
    r->resync.sent_bytes += c->data_bytes;
    r->resync.wire_bytes += wire_bytes;
    if (r->stats.cycles == 0)
        r->stats.first_sync_bytes = r->sync.done_bytes;
    ok = replication_store(c->daemon->replications, r, NULL, 0, err);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* All slices are there: the delta of what changed since the sync's point makes the first
 * point. */
static void
finish_sync(struct cycle *c)
{
    struct replication *r = c->r;

    pthread_mutex_lock(&r->lock);
    r->newest.record[0] = '\0';
    snprintf(r->newest.name, sizeof r->newest.name, "%s", r->sync.name);
    r->newest.generation = r->sync.generation;
    pthread_mutex_unlock(&r->lock);
}

static bool
send_slice(struct cycle *c, struct error **err)
{
    struct exchange_begin begin;
    AUTOJSON *answer = NULL;
    struct position at = find_position(c);
    bool first = at.disk == 0 && at.offset == 0;
    uint64_t before = 0;

    if (first)
        c->r->sync.generation = c->generation;
    cycle_fill_begin(c, EXCHANGE_SLICE, &begin);
    snprintf(begin.point, sizeof begin.point, "%s", c->r->sync.name);
    begin.compare = c->r->sync.compare;
    if (!cycle_begin_exchange(c, &begin, WIRE_READY, &answer, err))
        return error_prefix(err, "announce a slice of the sync");
    before = stream_counts(c->stream)->wire_bytes;
    return begin_slice(c, first, err) && cycle_check_sizes(c, err) && measure(c, err) &&
           read_slice(c, &at, err) && end_slice(c, &at, err) &&
           take_slice(c, &at, stream_counts(c->stream)->wire_bytes - before, err);
}

bool
cycle_slice(struct cycle *c, bool *ret_more, struct error **err)
{
    struct replication *r = c->r;

    if (r->sync.name[0] == '\0' && !name_sync(c, err))
        return false;
    if (!r->sync.complete) {
        r->progress_done = r->sync.done_bytes;
        r->progress_total = r->sync.total_bytes;
        r->progress_since_ms = units_monotonic_ms();
        r->agreed = false; /* until this slice is taken */
        if (!send_slice(c, err))
            return error_prefix(err, "sync");
        r->agreed = true;
    }
    *ret_more = !r->sync.complete;
    if (r->sync.complete)
        finish_sync(c);
    return true;
}
