#include "daemon/scheduler.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "common/units.h"
#include "daemon/cycle.h"
#include "daemon/events.h"
#include "daemon/resync.h"
#include "daemon/traffic.h"
#include "daemon/verify.h"
#include "daemon/workers.h"

#define LONGEST_NAP_MS  1000
#define FIRST_GUESS_MS  500 /* of a cycle, before one was measured */
#define BACK_OFF_MAX_MS 30000
#define MIN_MARGIN_MS   200

/* A slice of a sync goes behind the cycles that have to be durable within so long. */
#define SYNC_PATIENCE_MS 60000

struct scheduler {
    struct daemon *daemon;
    struct event *timer;
    atomic_bool stopping;
};

/* One cycle under way. */
struct job {
    struct scheduler *scheduler;
    struct replication *r;
    struct cancel cancel;
};

/* --- when ------------------------------------------------------------------- */

static int
by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

void
scheduler_percentiles(const struct replication *r, uint32_t *ret_p50_ms,
                      uint32_t *ret_p99_ms)
{
    uint32_t sorted[REPLICATION_SAMPLES];
    size_t n = MIN(r->stats.n_samples, REPLICATION_SAMPLES);

    *ret_p50_ms = 0;
    *ret_p99_ms = 0;
    if (n == 0)
        return;
    memcpy(sorted, r->stats.samples_ms, n * sizeof sorted[0]);
    qsort(sorted, n, sizeof sorted[0], by_value);
    *ret_p50_ms = sorted[n / 2];
    *ret_p99_ms = sorted[n * 99 / 100];
}

int64_t
scheduler_next_start_ms(int64_t newest_ms, int64_t rpo_ms, int64_t p99_ms)
{
    int64_t margin_ms = MAX(rpo_ms / 10, MIN_MARGIN_MS);

    /* A VM whose cycles take longer than its RPO gets air between them all the same. */
    return newest_ms + MAX(rpo_ms - 2 * p99_ms - margin_ms, rpo_ms / 4);
}

/* Nobody waits longer than that, unless the clock stepped back since: then it is due. */
static int64_t
next_try(const struct replication *r)
{
    return r->next_try_ms <= units_now_ms() + BACK_OFF_MAX_MS ? r->next_try_ms : 0;
}

/* A sync is under way, which can wait. Under r->lock. */
static bool
is_syncing(const struct replication *r)
{
    return r->side == SIDE_SOURCE && !r->sync.complete &&
           (r->phase == PHASE_INITIAL_SYNC || r->phase == PHASE_RESYNCING);
}

/* Does the bandwidth belong to cycles at this time of day, and this is none? */
static bool
is_held(struct scheduler *s, struct replication *r)
{
    bool syncing;

    pthread_mutex_lock(&r->lock);
    syncing = is_syncing(r);
    pthread_mutex_unlock(&r->lock);
    return syncing && traffic_limit_of(s->daemon, r).cycles_only;
}

/* Wall clock; 0: now; INT64_MAX: not at all. Under r->lock. */
static int64_t
start_of(const struct replication *r)
{
    uint32_t p50_ms, p99_ms;

    if (r->side != SIDE_SOURCE || r->paused || r->queued || r->removed)
        return INT64_MAX;
    if (r->claimed) /* somebody works on it: a job would only end at once, again and again
                     */
        return INT64_MAX;
    if (r->phase != PHASE_INITIAL_SYNC && r->phase != PHASE_REPLICATING &&
        r->phase != PHASE_RESYNCING)
        return INT64_MAX;
    if (r->error != NULL || r->move.from[0] != '\0') /* offered: see handover.h */
        return next_try(r);
    if (r->phase != PHASE_REPLICATING)
        return 0;
    if (r->newest.time_ms >
        units_now_ms()) /* the clock stepped back: its next time is true */
        return 0;
    scheduler_percentiles(r, &p50_ms, &p99_ms);
    return scheduler_next_start_ms(r->newest.time_ms,
                                   latency_interval_ms(&r->latency, r->rpo_ms),
                                   p99_ms > 0 ? p99_ms : FIRST_GUESS_MS);
}

/* Monotonic: by when the next point must be durable. A slice of a sync has time, but
 * comes to its turn. */
static int64_t
deadline_of(const struct replication *r, int64_t now_ms)
{
    if (is_syncing(r))
        return units_monotonic_ms() + SYNC_PATIENCE_MS;
    return units_monotonic_ms() + (r->newest.time_ms + r->rpo_ms - now_ms);
}

/* --- what came of it --------------------------------------------------------- */

static int64_t
back_off_ms(unsigned failures)
{
    return MIN(INT64_C(1000) << MIN(failures, 5u), BACK_OFF_MAX_MS);
}

static struct error *
copy_of(const struct error *e)
{
    struct error *copy = NULL;

    if (e != NULL)
        error_set(&copy, error_code(e), "%s", error_message(e));
    return copy;
}

void
scheduler_note(struct scheduler *s, struct replication *r, const struct error *e)
{
    struct log_ctx log = replication_log(r);
    bool same, had;

    if (error_is(e, ERROR_CANCELLED))
        return;
    pthread_mutex_lock(&r->lock);
    had = r->error != NULL;
    same = had && e != NULL && error_code(r->error) == error_code(e);
    replication_set_error(r, copy_of(e));
    if (error_is(e, ERROR_INVALID_STATE) && !r->source_running)
        r->failures_in_row = 1; /* a VM that is off is no fault that grows */
    if (e != NULL) {
        r->agreed = false; /* ask the target what it has */
        r->next_try_ms = units_now_ms() + back_off_ms(r->failures_in_row - 1);
    }
    pthread_mutex_unlock(&r->lock);
    if (e != NULL && !same)
        events_emit(s->daemon, EVENT_WARNING, &log, "cycle-failed", "%s",
                    error_message(e));
    else if (e == NULL && had)
        events_emit(s->daemon, EVENT_INFO, &log, "cycle-recovered",
                    "replication of VM '%s' works again", r->vm_name);
}

/* Told once, until the newest point is young enough again. A longer interval for the
 * guest's sake was told already. */
static void
watch_rpo(struct scheduler *s, struct replication *r)
{
    struct log_ctx log = replication_log(r);
    char age[UNITS_TEXT_MAX], set[UNITS_TEXT_MAX];
    int64_t age_ms;
    bool over, told;

    pthread_mutex_lock(&r->lock);
    age_ms = units_now_ms() - r->newest.time_ms;
    over = r->stats.cycles > 0 && !r->paused &&
           age_ms > latency_interval_ms(&r->latency, r->rpo_ms) &&
           r->side == SIDE_SOURCE && states_is_protecting(r->phase);
    told = r->rpo_violated;
    r->rpo_violated = over;
    pthread_mutex_unlock(&r->lock);
    if (over && !told)
        events_emit(s->daemon, EVENT_WARNING, &log, "rpo-violated",
                    "the newest recovery point of VM '%s' is %s old; the RPO is %s",
                    r->vm_name, units_format_duration_ms(age_ms, age),
                    units_format_duration_ms(r->rpo_ms, set));
}

/* --- cycles ------------------------------------------------------------------ */

static void
run_job(void *opaque)
{
    struct job *job = opaque;
    struct replication *r = job->r;
    AUTOPTR(error) *e = NULL;
    bool more;

    if (atomic_load(&job->scheduler->stopping) || !replication_try_claim(r, &job->cancel))
        return;
    cycle_run(job->scheduler->daemon, r, &job->cancel, &more, &e);
    scheduler_note(job->scheduler, r, e);
    replication_release(r);
    if (e == NULL)
        verify_start_if_due(job->scheduler->daemon, r);
}

static void
end_job(void *opaque)
{
    struct job *job = opaque;

    pthread_mutex_lock(&job->r->lock);
    job->r->queued = false;
    pthread_mutex_unlock(&job->r->lock);
    event_active(job->scheduler->timer, EV_TIMEOUT, 0);
    replication_unref(job->r);
    free(job);
}

static void
submit(struct scheduler *s, struct replication *r, int64_t deadline_ms)
{
    struct job *job = NEW(struct job);

    job->scheduler = s;
    job->r = r;
    replication_ref(r);
    workers_submit(s->daemon->cycles, deadline_ms, run_job, end_job, job);
}

/* Starts what is due; how long until the next one is. */
static int64_t
look_at(struct scheduler *s, struct replication *r)
{
    int64_t now_ms = units_now_ms();
    int64_t start_ms, deadline_ms;
    bool held = is_held(s, r);

    watch_rpo(s, r);
    pthread_mutex_lock(&r->lock);
    start_ms =
        held ? INT64_MAX
             : MAX(start_of(r), resync_waits_until_ms(s->daemon->config, r, now_ms));
    deadline_ms = deadline_of(r, now_ms);
    if (start_ms <= now_ms)
        r->queued = true;
    pthread_mutex_unlock(&r->lock);
    if (start_ms > now_ms)
        return MIN(start_ms - now_ms, LONGEST_NAP_MS);
    submit(s, r, deadline_ms);
    return LONGEST_NAP_MS;
}

static void
tick(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque)
{
    struct scheduler *s = opaque;
    AUTOFREE(struct replication *) *all = NULL;
    size_t n = replications_all(s->daemon->replications, &all);
    int64_t nap_ms = LONGEST_NAP_MS;
    struct timeval tv;

    for (size_t i = 0; i < n; i++) {
        if (!atomic_load(&s->stopping))
            nap_ms = MIN(nap_ms, look_at(s, all[i]));
        replication_unref(all[i]);
    }
    tv = (struct timeval){ .tv_sec = nap_ms / 1000, .tv_usec = (nap_ms % 1000) * 1000 };
    event_add(s->timer, &tv);
}

struct scheduler *
scheduler_new(struct daemon *d)
{
    struct scheduler *s = NEW(struct scheduler);

    s->daemon = d;
    s->timer = evtimer_new(d->base, tick, s);
    if (s->timer == NULL)
        abort();                     /* out of memory */
    atomic_init(&s->stopping, true); /* until scheduler_start() */
    return s;
}

void
scheduler_start(struct scheduler *s)
{
    atomic_store(&s->stopping, false);
    event_active(s->timer, EV_TIMEOUT, 0);
}

void
scheduler_wake(struct scheduler *s, struct replication *r)
{
    pthread_mutex_lock(&r->lock);
    r->next_try_ms = 0;
    pthread_mutex_unlock(&r->lock);
    event_active(s->timer, EV_TIMEOUT, 0);
}

void
scheduler_stop(struct scheduler *s)
{
    AUTOFREE(struct replication *) *all = NULL;
    size_t n = replications_all(s->daemon->replications, &all);

    atomic_store(&s->stopping, true);
    for (size_t i = 0; i < n; i++) {
        pthread_mutex_lock(&all[i]->lock);
        if (all[i]->worker != NULL)
            cancel_request(all[i]->worker);
        pthread_mutex_unlock(&all[i]->lock);
        replication_unref(all[i]);
    }
}

void
scheduler_free(struct scheduler *s)
{
    if (s == NULL)
        return;
    event_free(s->timer);
    free(s);
}
