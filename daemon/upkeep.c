#include "daemon/upkeep.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/events.h"
#include "daemon/failover_after.h"
#include "daemon/mark_pace.h"
#include "daemon/old_folders.h"
#include "daemon/replica_private.h"
#include "daemon/retention.h"
#include "daemon/space.h"
#include "daemon/tasks.h"
#include "daemon/workers.h"

#define PERIOD_MS        1000
#define RETAIN_PERIOD_MS 5000
#define LOOK_PERIOD_MS   5000
#define FOLD_TIME_MS     5000 /* of one pass: other replicas wait for the thread */
#define COMING           64   /* points, between two calls of ours */

struct upkeep {
    struct daemon *daemon;
    struct event *timer;
    struct cancel cancel; /* of all that runs */
};

struct job {
    struct upkeep *upkeep;
    struct replication *r;
};

/* --- seal --------------------------------------------------------------------------- */

/* 0: not known. */
static int64_t
time_of(struct points *points, uint64_t seq)
{
    struct point p;
    int64_t time_ms;

    if (!points_get(points, seq, &p))
        return 0;
    time_ms = p.time_ms;
    point_clear(&p);
    return time_ms;
}

bool
upkeep_seal_if_due(struct daemon *d, struct replication *r, struct store *store,
                   uint64_t seq, struct error **err)
{
    struct store_status status;
    struct mark_pace pace = { .config = d->config, .status = &status };
    struct points *points;
    int64_t now_ms, before_ms, mark_ms;

    if (!replica_points(d, r, &points, err) || !store->ops->status(store, &status, err))
        return false;
    now_ms = time_of(points, seq);
    before_ms = time_of(points, seq - 1);
    mark_ms = time_of(points, status.marked);
    pthread_mutex_lock(&r->lock);
    pace.begins_slot =
        now_ms > 0 && retention_begins_slot(&r->retention, before_ms, now_ms);
    pthread_mutex_unlock(&r->lock);
    pace.since_mark_ms = mark_ms > 0 ? now_ms - mark_ms : 0;
    return !mark_pace_is_due(&pace) || store->ops->seal(store, err);
}

/* --- retention -------------------------------------------------------------------------
 */

static bool
is_held(const struct replica *replica, uint64_t seq)
{
    for (size_t i = 0; i < replica->n_held; i++)
        if (replica->held[i].sequence == seq)
            return true;
    return false;
}

/* The window as it is, less so much. */
static uint64_t
shorten(const struct retention *retention, const struct point *list, size_t n,
        uint64_t excess_bytes)
{
    uint64_t bytes = retention_window_bytes(retention, list, n);

    return bytes > excess_bytes ? bytes - excess_bytes : 1;
}

/* The sequences of those that go; the caller frees them. */
static uint64_t *
judge(struct replication *r, const struct point *list, size_t n, uint64_t excess_bytes,
      size_t *ret_n)
{
    AUTOFREE(struct retention_verdict) *verdicts = mem_alloc(n + 1, sizeof *verdicts);
    uint64_t *drop = mem_alloc(n + 1, sizeof *drop);
    struct retention retention;

    pthread_mutex_lock(&r->lock);
    retention = r->retention;
    pthread_mutex_unlock(&r->lock);
    if (excess_bytes > 0)
        retention.max_bytes = shorten(&retention, list, n, excess_bytes);
    retention_judge(&retention, list, n, verdicts);
    *ret_n = 0;
    for (size_t i = 0; i < n; i++)
        if (verdicts[i].reason == RETENTION_DROP &&
            !is_held(r->replica, list[i].sequence))
            drop[(*ret_n)++] = list[i].sequence;
    return drop;
}

/* All that are known stay, and those that come, are applied and sealed in this instant.
 */
static bool
keep_known(struct store *store, struct points *points, struct error **err)
{
    size_t n;
    struct point *list = points_list(points, &n);
    AUTOFREE(uint64_t) *keep = mem_alloc(n + COMING, sizeof *keep);
    size_t n_keep = 0;

    for (size_t i = 0; i < n; i++)
        keep[n_keep++] = list[i].sequence;
    for (uint64_t next = 1; n > 0 && next <= COMING; next++)
        keep[n_keep++] = list[n - 1].sequence + next;
    points_list_free(list, n);
    return store->ops->retain(store, keep, n_keep, err);
}

/*
 * Under `keep`. The documents first: what a crash leaves behind is let go by the next
 * pass.
 */
static bool
retain(struct daemon *d, struct replication *r, uint64_t excess_bytes,
       size_t *ret_dropped, struct error **err)
{
    AUTOFREE(uint64_t) *drop = NULL;
    struct points *points;
    struct store *store;
    struct point *list;
    size_t n;

    if (!replica_store(d, r, &store, err) || !replica_points(d, r, &points, err))
        return false;
    list = points_list(points, &n);
    drop = judge(r, list, n, excess_bytes, ret_dropped);
    points_list_free(list, n);
    return (*ret_dropped == 0 || points_remove(points, drop, *ret_dropped, err)) &&
           keep_known(store, points, err);
}

static bool
retain_less(struct daemon *d, struct replication *r, uint64_t excess_bytes,
            size_t *ret_dropped, struct error **err)
{
    struct replica *replica = replica_get(r);
    bool ok;

    *ret_dropped = 0;
    pthread_mutex_lock(&replica->keep);
    ok = replica_is_given_up(r) || retain(d, r, excess_bytes, ret_dropped, err);
    pthread_mutex_unlock(&replica->keep);
    return ok || error_prefix(err, "retention of VM '%s'", r->vm_name);
}

bool
upkeep_retain(struct daemon *d, struct replication *r, struct error **err)
{
    size_t dropped;

    return retain_less(d, r, 0, &dropped, err);
}

/* --- space ---------------------------------------------------------------------------
 */

static char *
describe(const struct replication *r, const struct space *s, enum replica_room room)
{
    char have[UNITS_TEXT_MAX], want[UNITS_TEXT_MAX], end[UNITS_TEXT_MAX];
    const char *does = room == ROOM_NONE
                           ? "replication is paused"
                           : "the oldest short-term points go before their time";

    if (s->reserve_bytes > 0 && s->free_bytes < s->reserve_bytes + s->spare_bytes)
        return mem_printf("storage '%s' has %s free, and %s shall stay free: %s until %s "
                          "are free",
                          r->storage, units_format_size(s->free_bytes, have),
                          units_format_size(s->reserve_bytes, want), does,
                          units_format_size(s->reserve_bytes + s->spare_bytes, end));
    return mem_printf("the replicas of the source's host take %s, its quota is %s: %s "
                      "until they take %s",
                      units_format_size(s->peer_bytes, have),
                      units_format_size(s->quota_bytes, want), does,
                      units_format_size(s->quota_bytes - s->spare_bytes, end));
}

/* Told when it gets worse or is over; while it lasts only the text is kept up. */
static void
set_room(struct daemon *d, struct replication *r, enum replica_room room,
         const struct space *s)
{
    struct replica *replica = replica_get(r);
    struct log_ctx log = replication_log(r);
    AUTOFREE(char) *text = room != ROOM_ENOUGH ? describe(r, s, room) : NULL;
    enum replica_room before;

    pthread_mutex_lock(&r->lock);
    before = replica->room;
    replica->room = room;
    mem_setstr(&replica->room_text, text);
    pthread_mutex_unlock(&r->lock);
    if (room == before)
        return;
    if (room == ROOM_NONE)
        events_emit(d, EVENT_CRITICAL, &log, "storage-full", "VM '%s': %s", r->vm_name,
                    text);
    else if (room == ROOM_SHORT)
        events_emit(d, EVENT_WARNING, &log, "window-shortened", "VM '%s': %s", r->vm_name,
                    text);
    else
        events_emit(d, EVENT_INFO, &log, "storage-recovered",
                    "VM '%s': there is enough space again", r->vm_name);
}

/*
 * Beyond the limit is not enough: at the limit it would begin and end with each cycle. A
 * pause ends when there is something to spare; cut windows are told to be whole again
 * when they had time to grow.
 */
static void
settle(struct daemon *d, struct replication *r, enum replica_room room,
       const struct space *s)
{
    struct replica *replica = replica_get(r);
    bool over = room == ROOM_NONE ||
                units_monotonic_ms() - replica->short_ms >= UPKEEP_SETTLED_MS;

    set_room(d, r, over ? ROOM_ENOUGH : room, s);
}

/*
 * What is too much goes from the oldest end of the window. When that brings nothing any
 * more, or comes too late, the rest is for applying what was acknowledged: no more comes.
 */
static bool
make_room(struct daemon *d, struct replication *r, struct error **err)
{
    struct replica *replica = replica_get(r);
    enum replica_room room = replica->room; /* only we change it */
    struct space before, after;
    uint64_t excess;
    size_t dropped;

    if (!space_look(d, r, &before, err))
        return false;
    excess = room == ROOM_NONE ? before.lacking_bytes : before.excess_bytes;
    if (excess == 0) {
        settle(d, r, room, &before);
        return true;
    }
    replica->short_ms = units_monotonic_ms();
    if (!retain_less(d, r, excess, &dropped, err) || !space_look(d, r, &after, err)) {
        set_room(d, r, ROOM_NONE, &before); /* a disk without a free byte, for one */
        return false;
    }
    if (room != ROOM_NONE && !space_is_out(&after) &&
        (dropped > 0 || after.journal_bytes < before.journal_bytes))
        room = ROOM_SHORT;
    else
        room = ROOM_NONE;
    set_room(d, r, room, &after);
    return true;
}

/* --- layers
 * -----------------------------------------------------------------------------
 */

/* Layers that are gone take their space as long as the tip's storage daemon has them
 * open. */
static bool
let_go(struct daemon *d, struct replication *r, struct error **err)
{
    struct store *store;
    struct error *e = NULL;
    bool ok;

    replica_lock_tip(r);
    ok = replica_is_given_up(r) ||
         (replica_store(d, r, &store, &e) && store->ops->seal(store, &e));
    replica_unlock_tip(r);
    if (ok || error_is(e, ERROR_INVALID_STATE)) { /* a sync is under way */
        error_free(e);
        return true;
    }
    return error_propagate(err, e);
}

static bool
fold_and_digest(struct daemon *d, struct replication *r, struct cancel *cancel,
                unsigned *ret_folded, struct error **err)
{
    struct store_effort effort = { .rate_bytes_s = d->config->upkeep_rate_bytes,
                                   .cancel = cancel };
    int64_t end_ms = units_monotonic_ms() + FOLD_TIME_MS;
    bool ok, folded = true;
    struct store *store;

    ok = replica_store(d, r, &store, err);
    while (ok && folded && units_monotonic_ms() < end_ms) {
        ok = store->ops->fold(store, &effort, &folded, err);
        *ret_folded += ok && folded;
    }
    return ok && store->ops->digest(store, &effort, err);
}

static bool
tend_layers(struct upkeep *u, struct replication *r, struct error **err)
{
    struct cancel cancel = { .above = &u->cancel };
    unsigned folded = 0;
    bool ok;

    if (!replica_try_layers(r, &cancel)) /* a scrub reads them */
        return true;
    ok = replica_is_given_up(r) || fold_and_digest(u->daemon, r, &cancel, &folded, err);
    replica_unlock_layers(r);
    if (ok && folded > 0 && replica_get(r)->room != ROOM_ENOUGH)
        ok = let_go(u->daemon, r, err);
    return ok;
}

/* --- scrub
 * ------------------------------------------------------------------------------
 */

/* A replica that was never scrubbed counts from when it was made. */
static bool
is_scrub_due(const struct config *c, struct replication *r)
{
    int64_t last_ms;

    pthread_mutex_lock(&r->lock);
    last_ms = MAX(r->scrub.started_ms, r->created_ms);
    pthread_mutex_unlock(&r->lock);
    return c->scrub_interval_ms > 0 && units_now_ms() - last_ms >= c->scrub_interval_ms;
}

static void
start_scrub(struct daemon *d, struct replication *r)
{
    struct tasks_request request = { .kind = "scrub",
                                     .resource_id = r->id,
                                     .resource_name = r->vm_name,
                                     .user = "schedule" };
    AUTOJSON *task = NULL;
    struct log_ctx log = replication_log(r);
    struct error *e = NULL;

    pthread_mutex_lock(&r->lock);
    r->scrub.started_ms = units_now_ms();
    pthread_mutex_unlock(&r->lock);
    if (!tasks_start(d->tasks, &request, &task, &e))
        log_ignore(&log, "scrub-not-started", &e);
}

/* --- the pass
 * ---------------------------------------------------------------------------
 */

/* Before a first byte has come, its folder may be in the making. */
static bool
is_wanted(struct replication *r)
{
    bool wanted;

    pthread_mutex_lock(&r->lock);
    wanted = r->side == SIDE_TARGET && !r->removed &&
             (r->newest.name[0] != '\0' || r->sync.name[0] != '\0') &&
             replication_allows(r, "receive", NULL);
    pthread_mutex_unlock(&r->lock);
    return wanted;
}

static bool
is_time(int64_t *last_ms, int64_t period_ms)
{
    int64_t now_ms = units_monotonic_ms();

    if (*last_ms != 0 && now_ms - *last_ms < period_ms)
        return false;
    *last_ms = now_ms;
    return true;
}

static bool
pass(struct upkeep *u, struct replication *r, struct error **err)
{
    struct replica *replica = replica_get(r);
    bool low;

    pthread_mutex_lock(&r->lock);
    low = replica->room != ROOM_ENOUGH;
    pthread_mutex_unlock(&r->lock);

    /* While space is low, at once: each cycle makes it worse. */
    if ((low || is_time(&replica->looked_ms, LOOK_PERIOD_MS)) &&
        !make_room(u->daemon, r, err))
        return false;
    if (is_time(&replica->retained_ms, RETAIN_PERIOD_MS) &&
        !upkeep_retain(u->daemon, r, err))
        return false;
    if (is_scrub_due(u->daemon->config, r))
        start_scrub(u->daemon, r);
    return tend_layers(u, r, err);
}

/* That the disk is full was said, once. Whoever takes the replica away meanwhile stops
   us, which is no failure. */
static bool
is_news(struct replication *r, const struct error *e)
{
    return !error_is(e, ERROR_CANCELLED) && !replica_is_given_up(r) &&
           !(error_is(e, ERROR_NO_SPACE) && replica_get(r)->room == ROOM_NONE);
}

void
upkeep_pass(struct upkeep *u, struct replication *r)
{
    struct log_ctx log = replication_log(r);
    AUTOPTR(error) *e = NULL;

    if (!cancel_check(&u->cancel, NULL) || !is_wanted(r))
        return;
    if (!pass(u, r, &e) && is_news(r, e))
        log_failure(&log, "upkeep-failed", e);
}

static void
run_job(void *opaque)
{
    struct job *job = opaque;

    failover_after_look(job->upkeep->daemon, job->r);
    old_folders_look(job->upkeep->daemon, job->r);
    upkeep_pass(job->upkeep, job->r);
}

static void
end_job(void *opaque)
{
    struct job *job = opaque;

    atomic_store(&replica_get(job->r)->upkeeping, false);
    replication_unref(job->r);
    free(job);
}

/* Takes over the reference. */
static void
look_at(struct upkeep *u, struct replication *r)
{
    struct job *job;

    if (r->side != SIDE_TARGET || atomic_exchange(&replica_get(r)->upkeeping, true)) {
        replication_unref(r);
        return;
    }
    job = NEW(struct job);
    job->upkeep = u;
    job->r = r;
    workers_submit(u->daemon->upkeeps, units_monotonic_ms(), run_job, end_job, job);
}

static void
tick(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque)
{
    struct upkeep *u = opaque;
    AUTOFREE(struct replication *) *all = NULL;
    size_t n = replications_all(u->daemon->replications, &all);

    for (size_t i = 0; i < n; i++)
        look_at(u, all[i]);
}

struct upkeep *
upkeep_new(struct daemon *d)
{
    struct upkeep *u = NEW(struct upkeep);

    u->daemon = d;
    u->timer = event_new(d->base, -1, EV_PERSIST, tick, u);
    if (u->timer == NULL)
        abort(); /* out of memory */
    return u;
}

void
upkeep_start(struct upkeep *u)
{
    const struct timeval period = { .tv_sec = PERIOD_MS / 1000 };

    event_add(u->timer, &period);
}

void
upkeep_stop(struct upkeep *u)
{
    event_del(u->timer);
    cancel_request(&u->cancel);
}

void
upkeep_free(struct upkeep *u)
{
    if (u == NULL)
        return;
    event_free(u->timer);
    free(u);
}
