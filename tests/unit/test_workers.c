#include "tests/unit/unit.h"

#include <event2/thread.h>
#include <pthread.h>
#include <stdatomic.h>

#include "common/units.h"
#include "daemon/workers.h"

struct fixture {
    struct event_base *base;
    struct workers *w;
    pthread_t loop_thread;
};

struct probe {
    struct fixture *f;
    atomic_int runs;
    atomic_int dones;
    atomic_int on_loop;  /* run() was on the loop thread */
    atomic_int off_loop; /* done() was not */
    int expected;
};

static void
probe_run(void *opaque)
{
    struct probe *p = opaque;

    if (pthread_equal(pthread_self(), p->f->loop_thread))
        p->on_loop++;
    p->runs++;
}

static void
probe_done(void *opaque)
{
    struct probe *p = opaque;

    if (!pthread_equal(pthread_self(), p->f->loop_thread))
        p->off_loop++;
    if (++p->dones == p->expected)
        event_base_loopbreak(p->f->base);
}

static void
run_loop(struct fixture *f, int limit_s)
{
    struct timeval limit = { limit_s, 0 };

    event_base_loopexit(f->base, &limit);
    event_base_loop(f->base, EVLOOP_NO_EXIT_ON_EMPTY);
}

static struct fixture *
fixture_new(unsigned n_threads)
{
    struct fixture *f = NEW(struct fixture);

    f->base = event_base_new();
    f->w = workers_new(f->base, "test", n_threads);
    f->loop_thread = pthread_self();
    return f;
}

static void
fixture_free(struct fixture *f)
{
    workers_free(f->w);
    event_base_free(f->base);
    free(f);
}

static void
run_is_on_a_worker_and_done_on_the_loop(void **state UNUSED)
{
    struct fixture *f = fixture_new(4);
    struct probe p = { .f = f, .expected = 500 };

    for (int i = 0; i < p.expected; i++)
        workers_submit(f->w, 0, probe_run, probe_done, &p);
    run_loop(f, 20);
    assert_int_equal(p.runs, 500);
    assert_int_equal(p.dones, 500);
    assert_int_equal(p.on_loop, 0);
    assert_int_equal(p.off_loop, 0);
    assert_int_equal(workers_busy(f->w), 0);
    fixture_free(f);
}

/* --- order ------------------------------------------------------------------- */

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool open;
    unsigned inside;
    unsigned at_once; /* the most that were inside */
};

#define GATE_CLOSED                                                            \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER \
    }

static void
gate_pass(void *opaque)
{
    struct gate *g = opaque;

    pthread_mutex_lock(&g->lock);
    g->inside++;
    g->at_once = MAX(g->at_once, g->inside);
    pthread_cond_broadcast(&g->changed);
    while (!g->open)
        pthread_cond_wait(&g->changed, &g->lock);
    g->inside--;
    pthread_mutex_unlock(&g->lock);
}

static void
gate_wait_inside(struct gate *g, unsigned n)
{
    pthread_mutex_lock(&g->lock);
    while (g->inside < n)
        pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

static void
gate_open(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    g->open = true;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

struct entry {
    struct fixture *f;
    char *trace; /* of the order in which jobs ran; one worker, so no lock */
    char name;
};

static void
entry_run(void *opaque)
{
    struct entry *e = opaque;

    e->trace[strlen(e->trace)] = e->name;
}

static void
last_entry_done(void *opaque)
{
    struct entry *e = opaque;

    event_base_loopbreak(e->f->base);
}

static void
jobs_start_by_deadline_then_by_submission(void **state UNUSED)
{
    struct fixture *f = fixture_new(1);
    struct gate g = GATE_CLOSED;
    char trace[8] = "";
    int64_t now = units_monotonic_ms();
    struct entry a = { f, trace, 'a' }, b = { f, trace, 'b' }, c = { f, trace, 'c' },
                 d = { f, trace, 'd' };

    workers_submit(f->w, 0, gate_pass, NULL, &g);
    gate_wait_inside(&g, 1);
    workers_submit(f->w, now + 90000, entry_run, last_entry_done, &d);
    workers_submit(f->w, now + 50000, entry_run, NULL, &b);
    workers_submit(f->w, now + 50000, entry_run, NULL, &c);
    workers_submit(f->w, now + 1000, entry_run, NULL, &a);
    assert_int_equal(workers_busy(f->w), 5);
    gate_open(&g);
    run_loop(f, 20);
    assert_string_equal(trace, "abcd");
    fixture_free(f);
}

static void
a_job_that_waits_for_a_thread_is_seen_by_those_that_can_end(void **state UNUSED)
{
    struct fixture *f = fixture_new(1);
    struct gate g = GATE_CLOSED;
    char trace[8] = "";
    int64_t now = units_monotonic_ms();
    struct entry a = { f, trace, 'a' };

    assert_false(workers_keep_waiting(f->w, INT64_MAX));
    workers_submit(f->w, 0, gate_pass, NULL, &g);
    gate_wait_inside(&g, 1);
    assert_false(workers_keep_waiting(f->w, INT64_MAX));
    workers_submit(f->w, now + 50000, entry_run, last_entry_done, &a);
    assert_false(workers_keep_waiting(f->w, now + 10000));
    assert_true(workers_keep_waiting(f->w, now + 60000));
    gate_open(&g);
    run_loop(f, 20);
    assert_false(workers_keep_waiting(f->w, INT64_MAX));
    fixture_free(f);
}

static void
a_pool_uses_all_its_threads_and_no_more(void **state UNUSED)
{
    struct fixture *f = fixture_new(3);
    struct gate g = GATE_CLOSED;

    for (int i = 0; i < 6; i++)
        workers_submit(f->w, 0, gate_pass, NULL, &g);
    gate_wait_inside(&g, 3);
    gate_open(&g);
    workers_free(f->w);
    f->w = NULL;
    assert_int_equal(g.at_once, 3);
    fixture_free(f);
}

static void
a_waiting_pool_does_not_hold_up_another(void **state UNUSED)
{
    struct fixture *f = fixture_new(1);
    struct workers *other = workers_new(f->base, "other", 1);
    struct gate g = GATE_CLOSED;
    struct probe p = { .f = f, .expected = 1 };

    workers_submit(f->w, 0, gate_pass, NULL, &g);
    workers_submit(other, 0, probe_run, probe_done, &p);
    run_loop(f, 20);
    assert_int_equal(p.dones, 1);
    gate_open(&g);
    workers_free(other);
    fixture_free(f);
}

/* --- the end ------------------------------------------------------------------ */

static void *
open_when_freeing(void *opaque)
{
    struct gate *g = opaque;

    gate_wait_inside(g, 1);
    gate_open(g);
    return NULL;
}

static void
free_waits_for_what_runs_and_tells_it(void **state UNUSED)
{
    struct fixture *f = fixture_new(1);
    struct gate g = GATE_CLOSED;
    struct probe p = { .f = f, .expected = 1 };
    pthread_t opener;

    workers_submit(f->w, 0, probe_run, probe_done, &p);
    workers_submit(f->w, 0, gate_pass, NULL, &g);
    assert_int_equal(pthread_create(&opener, NULL, open_when_freeing, &g), 0);
    pthread_join(opener, NULL);
    workers_free(f->w);
    f->w = NULL;
    assert_int_equal(p.runs, 1);
    assert_int_equal(p.dones, 1);
    fixture_free(f);
}

static void
free_drops_what_waits_and_tells_it(void **state UNUSED)
{
    struct fixture *f = fixture_new(1);
    struct gate g = GATE_CLOSED;
    struct probe p = { .f = f, .expected = 1 };
    pthread_t opener;

    workers_submit(f->w, 0, gate_pass, NULL, &g);
    gate_wait_inside(&g, 1);
    workers_submit(f->w, 0, probe_run, probe_done, &p);
    assert_int_equal(workers_busy(f->w), 2);
    assert_int_equal(pthread_create(&opener, NULL, open_when_freeing, &g), 0);
    workers_free(f->w);
    pthread_join(opener, NULL);
    f->w = NULL;
    /* It may have been started before the stop was seen; it is told either way. */
    assert_in_range(p.runs, 0, 1);
    assert_int_equal(p.dones, 1);
    fixture_free(f);
}

struct chain {
    struct fixture *f;
    int left;
};

static void
chain_nothing(void *opaque UNUSED)
{
}

static void
chain_next(void *opaque)
{
    struct chain *c = opaque;

    if (--c->left == 0)
        event_base_loopbreak(c->f->base);
    else
        workers_submit(c->f->w, 0, chain_nothing, chain_next, c);
}

static void
a_done_may_submit_the_next_job(void **state UNUSED)
{
    struct fixture *f = fixture_new(2);
    struct chain c = { f, 200 };

    workers_submit(f->w, 0, chain_nothing, chain_next, &c);
    run_loop(f, 20);
    assert_int_equal(c.left, 0);
    fixture_free(f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_is_on_a_worker_and_done_on_the_loop),
        cmocka_unit_test(jobs_start_by_deadline_then_by_submission),
        cmocka_unit_test(a_job_that_waits_for_a_thread_is_seen_by_those_that_can_end),
        cmocka_unit_test(a_pool_uses_all_its_threads_and_no_more),
        cmocka_unit_test(a_waiting_pool_does_not_hold_up_another),
        cmocka_unit_test(free_waits_for_what_runs_and_tells_it),
        cmocka_unit_test(free_drops_what_waits_and_tells_it),
        cmocka_unit_test(a_done_may_submit_the_next_job),
    };

    evthread_use_pthreads();
    return cmocka_run_group_tests_name("workers", tests, NULL, NULL);
}
