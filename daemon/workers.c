#include "daemon/workers.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>

#include "common/units.h"

#define MAX_THREADS 999u

struct job {
    TAILQ_ENTRY(job) link;
    int64_t deadline_ms;
    workers_fn run;
    workers_fn done;
    void *opaque;
};

TAILQ_HEAD(job_list, job);

struct workers {
    char name[13];
    struct event *finished_event; /* made active when `finished` gets a job */
    pthread_t *threads;
    unsigned max_threads;

    pthread_mutex_t lock; /* of everything below */
    pthread_cond_t wake;
    struct job_list waiting;  /* in the order in which they start */
    struct job_list finished; /* their done() is due */
    unsigned n_threads;
    unsigned n_idle;
    unsigned n_waiting;
    unsigned n_running;
    bool stopping;
};

static struct job *
take_first(struct job_list *list)
{
    struct job *j = TAILQ_FIRST(list);

    if (j != NULL)
        TAILQ_REMOVE(list, j, link);
    return j;
}

/* Deadlines mostly come in rising order, so the place is near the end. */
static void
insert_in_order(struct job_list *list, struct job *j)
{
    struct job *before = TAILQ_LAST(list, job_list);

    while (before != NULL && before->deadline_ms > j->deadline_ms)
        before = TAILQ_PREV(before, job_list, link);
    if (before != NULL)
        TAILQ_INSERT_AFTER(list, before, j, link);
    else
        TAILQ_INSERT_HEAD(list, j, link);
}

/* On the loop thread, or in workers_free() when no thread is left. */
static void
call_done(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque)
{
    struct workers *w = opaque;
    struct job_list ready = TAILQ_HEAD_INITIALIZER(ready);
    struct job *j;

    pthread_mutex_lock(&w->lock);
    TAILQ_CONCAT(&ready, &w->finished, link);
    pthread_mutex_unlock(&w->lock);

    while ((j = take_first(&ready)) != NULL) {
        if (j->done != NULL)
            j->done(j->opaque);
        free(j);
    }
}

/* The lock is held on entry and on return. */
static void
run_one(struct workers *w, struct job *j)
{
    w->n_waiting--;
    w->n_running++;
    pthread_mutex_unlock(&w->lock);

    j->run(j->opaque);

    pthread_mutex_lock(&w->lock);
    w->n_running--;
    if (j->done == NULL) {
        free(j);
        return;
    }
    TAILQ_INSERT_TAIL(&w->finished, j, link);
    event_active(w->finished_event, 0, 0);
}

static void *
thread_main(void *opaque)
{
    struct workers *w = opaque;
    struct job *j;

    pthread_mutex_lock(&w->lock);
    while (!w->stopping) {
        if ((j = take_first(&w->waiting)) != NULL) {
            run_one(w, j);
            continue;
        }
        w->n_idle++;
        pthread_cond_wait(&w->wake, &w->lock);
        w->n_idle--;
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* The lock is held. Signals are the loop thread's business. */
static void
start_thread(struct workers *w)
{
    char name[24];
    sigset_t all, old;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&w->threads[w->n_threads], NULL, thread_main, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        /* With others at work the job is only late; with none it would never run. */
        if (w->n_threads == 0)
            abort();
        return;
    }
    snprintf(name, sizeof name, "%s-%u", w->name, w->n_threads);
    pthread_setname_np(w->threads[w->n_threads], name);
    w->n_threads++;
}

struct workers *
workers_new(struct event_base *base, const char *name, unsigned n_threads)
{
    struct workers *w = NEW(struct workers);

    assert(strlen(name) < sizeof w->name);
    assert(n_threads > 0 && n_threads <= MAX_THREADS);
    snprintf(w->name, sizeof w->name, "%s", name);
    w->max_threads = n_threads;
    w->threads = mem_alloc(n_threads, sizeof *w->threads);
    w->finished_event = event_new(base, -1, EV_PERSIST, call_done, w);
    if (w->finished_event == NULL)
        abort();
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    TAILQ_INIT(&w->waiting);
    TAILQ_INIT(&w->finished);
    return w;
}

void
workers_free(struct workers *w)
{
    if (w == NULL)
        return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->lock);
    for (unsigned i = 0; i < w->n_threads; i++)
        pthread_join(w->threads[i], NULL);

    event_free(w->finished_event);
    TAILQ_CONCAT(&w->finished, &w->waiting, link);
    call_done(-1, 0, w);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w->threads);
    free(w);
}

void
workers_submit(struct workers *w, int64_t deadline_ms, workers_fn run, workers_fn done,
               void *opaque)
{
    struct job *j = NEW(struct job);

    j->deadline_ms = deadline_ms != 0 ? deadline_ms : units_monotonic_ms();
    j->run = run;
    j->done = done;
    j->opaque = opaque;

    pthread_mutex_lock(&w->lock);
    insert_in_order(&w->waiting, j);
    w->n_waiting++;
    if (w->n_idle >= w->n_waiting)
        pthread_cond_signal(&w->wake);
    else if (w->n_threads < w->max_threads && !w->stopping)
        start_thread(w);
    else if (w->n_idle > 0)
        pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

bool
workers_keep_waiting(struct workers *w, int64_t deadline_ms)
{
    const struct job *first;
    bool waits;

    pthread_mutex_lock(&w->lock);
    first = TAILQ_FIRST(&w->waiting);
    waits = first != NULL && w->n_idle == 0 && first->deadline_ms < deadline_ms;
    pthread_mutex_unlock(&w->lock);
    return waits;
}

unsigned
workers_busy(struct workers *w)
{
    unsigned n;

    pthread_mutex_lock(&w->lock);
    n = w->n_waiting + w->n_running;
    pthread_mutex_unlock(&w->lock);
    return n;
}
