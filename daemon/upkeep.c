#include "daemon/upkeep.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/events.h"
#include "daemon/replica_private.h"
#include "daemon/retention.h"
#include "daemon/space.h"
#include "daemon/tasks.h"
#include "daemon/workers.h"

#define PERIOD_MS        1000
#define RETAIN_PERIOD_MS 5000
#define LOOK_PERIOD_MS   5000
#define FOLD_TIME_MS     5000 /* of one pass: other replicas wait for the thread */
#define MARKS_PER_STEP   64   /* so many marks double the bytes between them */

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

/* The point before seq and seq itself, or the time of its mark; 0: not known. */
static int64_t
time_of(struct points *points, uint64_t seq)
{
    char key[32];
    struct point p;
    int64_t time_ms;

    snprintf(key, sizeof key, "%llu", (unsigned long long)seq);
    if (seq == 0 || !points_find(points, key, &p, NULL))
        return 0;
    time_ms = p.time_ms;
    point_clear(&p);
    return time_ms;
}

/*
 * By bytes, so that a replay is short; the more marks there are, the farther
 * apart: a chain of layers costs time and memory too.
 */
static bool
is_due(const struct config *c, const struct store_status *status, int64_t since_mark_ms)
{
    uint64_t limit = c->mark_bytes << MIN(status->n_marks / MARKS_PER_STEP, 8);

    return status->unsealed_bytes >= limit || since_mark_ms >= c->mark_ms;
}

bool
upkeep_seal_if_due(struct daemon *d, struct replication *r, struct store *store,
                   uint64_t seq, struct error **err)
{
    struct store_status status;
    struct points *points;
    int64_t now_ms, before_ms, mark_ms;
    bool begins_slot;

    if (!replica_points(d, r, &points, err) || !store->ops->status(store, &status, err))
        return false;
    now_ms = time_of(points, seq);
    before_ms = time_of(points, seq - 1);
    mark_ms = time_of(points, status.marked);
    pthread_mutex_lock(&r->lock);
    begins_slot = now_ms > 0 && retention_begins_slot(&r->retention, before_ms, now_ms);
    pthread_mutex_unlock(&r->lock);
    if (!begins_slot && !is_due(d->config, &status, mark_ms > 0 ? now_ms - mark_ms : 0))
        return true;
    return store->ops->seal(store, err);
}

/* --- retention -------------------------------------------------------------------------
 */

struct verdicts {
    uint64_t *keep, *drop;
    size_t n_keep, n_drop;
};

static bool
is_held(const struct replica *replica, uint64_t seq)
{
    for (size_t i = 0; i < replica->n_held; i++)
        if (replica->held[i] == seq)
            return true;
    return false;
}

static void
judge(struct replication *r, const struct point *list, size_t n, uint64_t max_bytes,
      struct verdicts *ret)
{
    AUTOFREE(struct retention_verdict) *verdicts = mem_alloc(n, sizeof *verdicts);
    struct retention retention;

    pthread_mutex_lock(&r->lock);
    retention = r->retention;
    pthread_mutex_unlock(&r->lock);
    if (max_bytes > 0 && (retention.max_bytes == 0 || max_bytes < retention.max_bytes))
        retention.max_bytes = max_bytes;
    retention_judge(&retention, list, n, verdicts);
    ret->keep = mem_alloc(n, sizeof *ret->keep);
    ret->drop = mem_alloc(n, sizeof *ret->drop);
    for (size_t i = 0; i < n; i++)
        if (verdicts[i].reason != RETENTION_DROP || is_held(r->replica, list[i].sequence))
            ret->keep[ret->n_keep++] = list[i].sequence;
        else
            ret->drop[ret->n_drop++] = list[i].sequence;
}

/* The documents first: what a crash leaves behind is let go by the next pass. */
static bool
let_go(struct store *store, struct points *points, const struct verdicts *v,
       struct error **err)
{
    return (v->n_drop == 0 || points_remove(points, v->drop, v->n_drop, err)) &&
           store->ops->retain(store, v->keep, v->n_keep, err);
}

bool
upkeep_retain(struct daemon *d, struct replication *r, uint64_t max_bytes,
              struct error **err)
{
    struct replica *replica = replica_get(r);
    struct verdicts v = { 0 };
    struct points *points;
    struct store *store;
    struct point *list;
    size_t n;
    bool ok;

    if (!replica_store(d, r, &store, err) || !replica_points(d, r, &points, err))
        return false;
    pthread_mutex_lock(&replica->keep);
    list = points_list(points, &n);
    judge(r, list, n, max_bytes, &v);
    points_list_free(list, n);
    ok = let_go(store, points, &v, err);
    pthread_mutex_unlock(&replica->keep);
    free(v.keep);
    free(v.drop);
    return ok || error_prefix(err, "retention of VM '%s'", r->vm_name);
}

/* --- space
 * ------------------------------------------------------------------------------
 */

/* Which limit is it: what the storage shall have free, or else the peer's quota? */
static bool
is_storage(const struct space *s)
{
    if (s->free_bytes < s->reserve_bytes)
        return true;
    return s->free_bytes < s->reserve_bytes + space_margin(s->reserve_bytes) &&
           (s->quota_bytes == 0 || s->peer_bytes <= s->quota_bytes);
}

static char *
describe(const struct replication *r, const struct space *s, enum replica_room room)
{
    char have[UNITS_TEXT_MAX], want[UNITS_TEXT_MAX];
    const char *does =
        room == ROOM_NONE
            ? "replication is paused until there is space"
            : "the oldest short-term points go before their time until there is space";

    if (is_storage(s))
        return mem_printf("storage '%s' has %s free of the %s that shall stay free: %s",
                          r->storage, units_format_size(s->free_bytes, have),
                          units_format_size(s->reserve_bytes, want), does);
    return mem_printf("the replicas of the source's host take %s, its quota is %s: %s",
                      units_format_size(s->peer_bytes, have),
                      units_format_size(s->quota_bytes, want), does);
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

static enum replica_room
room_of(struct replication *r)
{
    enum replica_room room;

    pthread_mutex_lock(&r->lock);
    room = r->replica->room;
    pthread_mutex_unlock(&r->lock);
    return room;
}

/* What was cut is just enough, and soon it is not again: that is one alarm, not many. */
static void
settle_room(struct daemon *d, struct replication *r, const struct space *s)
{
    if (s->is_ample || room_of(r) == ROOM_ENOUGH)
        set_room(d, r, ROOM_ENOUGH, s);
    else
        set_room(d, r, ROOM_SHORT, s);
}

/*
 * What is too much goes from the oldest end of the window. When that brings
 * nothing any more, the rest is for applying what was acknowledged: no more comes.
 */
static bool
make_room(struct daemon *d, struct replication *r, struct error **err)
{
    struct space before, after;
    uint64_t rest;
    bool ok;

    if (!space_look(d, r, &before, err))
        return false;
    if (before.excess_bytes == 0) {
        settle_room(d, r, &before);
        return true;
    }
    rest = before.journal_bytes > before.excess_bytes
               ? before.journal_bytes - before.excess_bytes
               : 1;
    ok = upkeep_retain(d, r, rest, err) && space_look(d, r, &after, err);
    set_room(d, r,
             ok && after.journal_bytes < before.journal_bytes ? ROOM_SHORT : ROOM_NONE,
             &before);
    return ok;
}

/* --- layers
 * -----------------------------------------------------------------------------
 */

static bool
tend_layers(struct upkeep *u, struct replication *r, struct error **err)
{
    struct replica *replica = replica_get(r);
    struct store_effort effort = { .rate_bytes_s = u->daemon->config->upkeep_rate_bytes,
                                   .cancel = &u->cancel };
    int64_t end_ms = units_monotonic_ms() + FOLD_TIME_MS;
    bool ok, folded = true;
    struct store *store;

    if (pthread_mutex_trylock(&replica->layers) != 0) /* a scrub reads them */
        return true;
    ok = replica_store(u->daemon, r, &store, err);
    while (ok && folded && units_monotonic_ms() < end_ms)
        ok = store->ops->fold(store, &effort, &folded, err);
    ok = ok && store->ops->digest(store, &effort, err);
    pthread_mutex_unlock(&replica->layers);
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

static bool
is_wanted(struct replication *r)
{
    bool wanted;

    pthread_mutex_lock(&r->lock);
    wanted = r->side == SIDE_TARGET && !r->removed && r->newest.name[0] != '\0' &&
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
    bool low = room_of(r) != ROOM_ENOUGH;

    /* While space is low, at once: each cycle makes it worse. */
    if ((low || is_time(&replica->looked_ms, LOOK_PERIOD_MS)) &&
        !make_room(u->daemon, r, err))
        return false;
    if (is_time(&replica->retained_ms, RETAIN_PERIOD_MS) &&
        !upkeep_retain(u->daemon, r, 0, err))
        return false;
    if (is_scrub_due(u->daemon->config, r))
        start_scrub(u->daemon, r);
    return tend_layers(u, r, err);
}

/* That the disk is full was said, once. */
static bool
is_news(struct replication *r, const struct error *e)
{
    return !error_is(e, ERROR_CANCELLED) &&
           !(error_is(e, ERROR_NO_SPACE) && room_of(r) == ROOM_NONE);
}

static void
run_job(void *opaque)
{
    struct job *job = opaque;
    struct log_ctx log = replication_log(job->r);
    AUTOPTR(error) *e = NULL;

    if (!cancel_check(&job->upkeep->cancel, NULL) || !is_wanted(job->r))
        return;
    if (!pass(job->upkeep, job->r, &e) && is_news(job->r, e))
        log_failure(&log, "upkeep-failed", e);
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
