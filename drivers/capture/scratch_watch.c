#include "drivers/capture/scratch_watch.h"

#include <pthread.h>
#include <sys/statvfs.h>
#include <time.h>

#include "common/units.h"

#define PERIOD_NS        100000000
#define MIN_FREE_BYTES   (64ull << 20)
#define MIN_FREE_PERCENT 5

struct scratch_watch {
    struct scratch_watch_job job;
    char *folder;
    uint64_t limit_bytes;
    pthread_t thread;
    bool joined;

    pthread_mutex_t lock; /* what follows */
    pthread_cond_t changed;
    bool stopping;
    char *full;           /* why the job was aborted; NULL: it was not... */
    enum error_code code; /* ...and its kind */
};

/* A sentence if too little is free in the folder; *ret NULL if all is well. */
static bool
look_at_folder(const char *folder, char **ret, struct error **err)
{
    struct statvfs s;
    uint64_t free_bytes, total_bytes;
    char text[UNITS_TEXT_MAX];

    if (statvfs(folder, &s) < 0)
        return error_errno(err, ERROR_STORE, "look for free space in '%s'", folder);
    free_bytes = (uint64_t)s.f_bavail * s.f_frsize;
    total_bytes = (uint64_t)s.f_blocks * s.f_frsize;
    *ret = NULL;
    if (free_bytes < MIN_FREE_BYTES || free_bytes < total_bytes / 100 * MIN_FREE_PERCENT)
        *ret = mem_printf("only %s is free in the scratch folder '%s'; make room there",
                          units_format_size(free_bytes, text), folder);
    return true;
}

bool
scratch_watch_has_room(const char *folder, struct error **err)
{
    AUTOFREE(char) *reason = NULL;

    if (!look_at_folder(folder, &reason, err))
        return false;
    return reason == NULL || error_set(err, ERROR_SCRATCH_FULL, "%s", reason);
}

static char *
look_at_job(const struct scratch_watch *w)
{
    char used[UNITS_TEXT_MAX], limit[UNITS_TEXT_MAX];
    uint64_t bytes = 0;

    if (!w->job.used(w->job.opaque, &bytes) || bytes <= w->limit_bytes)
        return NULL;
    return mem_printf(
        "the scratch space in '%s' grew to %s, over its limit of %s, because "
        "the guest writes faster than its disks are read; raise the limit",
        w->folder, units_format_size(bytes, used),
        units_format_size(w->limit_bytes, limit));
}

static char *
look_for_company(const struct scratch_watch *w)
{
    return w->job.gives_way == NULL ? NULL : w->job.gives_way(w->job.opaque);
}

static char *
look(const struct scratch_watch *w)
{
    char *reason = NULL;

    if (look_at_folder(w->folder, &reason, NULL) && reason != NULL)
        return reason;
    return look_at_job(w);
}

/* True until the watch is stopped; the lock is held before and after. */
static bool
wait_period(struct scratch_watch *w)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += PERIOD_NS;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    if (!w->stopping)
        pthread_cond_timedwait(&w->changed, &w->lock, &until);
    return !w->stopping;
}

/* With the lock held. The reason is known before the abort is asked for, so that
   whoever loses the job finds it. */
static void
abort_job(struct scratch_watch *w, char *reason, enum error_code code)
{
    if (w->stopping || !w->job.is_ours(w->job.opaque)) {
        free(reason);
        return;
    }
    w->full = reason;
    w->code = code;
    w->job.abort(w->job.opaque);
}

/* Ends with the first abort: the domain's next job would not be ours. */
static void *
watch_main(void *opaque)
{
    struct scratch_watch *w = opaque;

    pthread_mutex_lock(&w->lock);
    while (w->full == NULL && wait_period(w)) {
        enum error_code code = ERROR_SCRATCH_FULL;
        char *reason;

        pthread_mutex_unlock(&w->lock);
        reason = look_for_company(w);
        if (reason != NULL)
            code = ERROR_JOB_BUSY;
        else
            reason = look(w);
        pthread_mutex_lock(&w->lock);
        if (reason != NULL)
            abort_job(w, reason, code);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void
release(struct scratch_watch *w)
{
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
    free(w->folder);
    free(w->full);
    free(w);
}

bool
scratch_watch_start(const struct scratch_watch_settings *settings,
                    struct scratch_watch **ret, struct error **err)
{
    struct scratch_watch *w = NEW(struct scratch_watch);
    pthread_condattr_t attr;

    w->job = settings->job;
    w->folder = mem_strdup(settings->folder);
    w->limit_bytes = settings->limit_bytes;
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&w->thread, NULL, watch_main, w) != 0) {
        release(w);
        return error_set(err, ERROR_INTERNAL, "start the thread that watches '%s'",
                         settings->folder);
    }
    *ret = w;
    return true;
}

bool
scratch_watch_check(struct scratch_watch *w, struct error **err)
{
    bool ok;

    pthread_mutex_lock(&w->lock);
    ok = w->full == NULL || error_set(err, w->code, "%s", w->full);
    pthread_mutex_unlock(&w->lock);
    return ok;
}

void
scratch_watch_stop(struct scratch_watch *w)
{
    if (w->joined)
        return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    w->joined = true;
}

void
scratch_watch_free(struct scratch_watch *w)
{
    if (w == NULL)
        return;
    scratch_watch_stop(w);
    release(w);
}
