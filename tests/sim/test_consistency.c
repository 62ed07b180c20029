/* Application-consistent points, and guests that are thawed whatever happens (I7). */
#include "tests/sim/world.h"

#include <event2/thread.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/consistency.h"
#include "daemon/cycle.h"
#include "daemon/replica.h"

static int
setup(void **state)
{
    struct world *w = world_new();

    world_open_target(w);
    world_open_source(w);
    fake_capture_set_disk(w->source.capture, "vda", 512u << 10);
    world_plug(w);
    world_guest_writes(w, 50);
    world_protect(w);
    *state = w;
    return 0;
}

static int
teardown(void **state)
{
    world_free(*state);
    return 0;
}

/* --- what the guest is asked to do ------------------------------------------------- */

static void
want_consistent(struct world *w, uint32_t every_cycles, int64_t every_ms)
{
    AUTOPTR(replication) *r = world_replication(&w->source);
    struct error *err = NULL;

    pthread_mutex_lock(&r->lock);
    r->consistency.every_cycles = every_cycles;
    r->consistency.every_ms = every_ms;
    assert_ok(replication_store(w->source.d.replications, r, NULL, 0, &err), err);
    pthread_mutex_unlock(&r->lock);
}

static void
cycle_succeeds(struct world *w)
{
    struct error *err = NULL;

    world_guest_writes(w, 5);
    assert_ok(world_cycle(w, &err), err);
}

/* Has the newest point at the target been captured frozen? */
static bool
newest_is_consistent(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct points *points;
    struct error *err = NULL;
    struct point *list;
    size_t n;
    bool yes;

    assert_ok(replica_points(&w->target.d, r, &points, &err), err);
    list = points_list(points, &n);
    assert_true(n > 0);
    yes = list[n - 1].application;
    points_list_free(list, n);
    return yes;
}

static bool
is_frozen(struct world *w)
{
    return fake_is_frozen(w->source.d.hypervisor, WORLD_VM);
}

static bool
freeze_is_stored(struct world *w)
{
    AUTOJSON *doc = NULL;

    return w->source.d.state->ops->get(w->source.d.state, "freeze", WORLD_VM, &doc, NULL);
}

static void
wait_thawed(struct world *w)
{
    int64_t until_ms = units_monotonic_ms() + WORLD_DEADLINE;

    while (is_frozen(w) || freeze_is_stored(w)) {
        assert_true(units_monotonic_ms() < until_ms);
        usleep(1000);
    }
}

static bool
was_called(struct world *w, const char *slot)
{
    return strstr(fake_calls(w->source.d.hypervisor), slot) != NULL;
}

/* --- the capture, and what the guest is like while it begins --------------------------
 */

static struct {
    const struct capture_ops *real;
    struct capture_ops ops;
    struct world *w;
    bool frozen;
    bool outlasts; /* takes as long as the guest may be frozen, and longer */
} capture;

static bool
watched_begin(struct capture_driver *driver, const struct capture_request *request,
              struct capture **ret, int64_t *ret_time_ms, struct error **err)
{
    capture.frozen = is_frozen(capture.w);
    if (capture.outlasts)
        wait_thawed(capture.w);
    return capture.real->begin(driver, request, ret, ret_time_ms, err);
}

static void
watch_capture(struct world *w)
{
    capture.real = w->source.capture->ops;
    capture.ops = *capture.real;
    capture.ops.begin = watched_begin;
    capture.w = w;
    capture.frozen = false;
    capture.outlasts = false;
    w->source.capture->ops = &capture.ops;
}

/* --- tests
 * ------------------------------------------------------------------------------ */

static void
a_point_that_is_due_is_captured_frozen(void **state)
{
    struct world *w = *state;

    want_consistent(w, 2, 0);
    watch_capture(w);
    for (int i = 0; i < 4; i++) {
        cycle_succeeds(w);
        assert_int_equal(newest_is_consistent(w), i % 2 == 1);
        assert_int_equal(capture.frozen, i % 2 == 1);
        wait_thawed(w);
    }
}

static void
one_in_a_time_is_enough(void **state)
{
    struct world *w = *state;

    want_consistent(w, 0, 3600 * 1000);
    cycle_succeeds(w);
    assert_true(newest_is_consistent(w));
    wait_thawed(w);
    cycle_succeeds(w);
    assert_false(newest_is_consistent(w));
}

/* What it holds in memory is written only when it is frozen. */
static void
a_due_point_is_made_though_nothing_has_changed(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    cycle_succeeds(w);
    want_consistent(w, 1, 0);
    assert_ok(world_cycle(w, &err), err);
    assert_true(newest_is_consistent(w));
    wait_thawed(w);
}

static void
an_agent_that_refuses_costs_no_point(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->source);
    AUTOFREE(char) *complaint = NULL;

    want_consistent(w, 1, 0);
    fake_fail(w->source.d.hypervisor, FAKE_FREEZE, 1, ERROR_AGENT);
    cycle_succeeds(w);
    assert_false(newest_is_consistent(w));
    wait_thawed(w);
    assert_false(was_called(w, "thaw"));
    complaint = consistency_complaint(r);
    assert_non_null(strstr(complaint, "no application-consistent points:"));
    assert_false(consistency_is_due(r, units_now_ms()));
    assert_true(consistency_is_due(r, units_now_ms() + 60000));
}

static void
a_guest_that_may_be_frozen_is_thawed(void **state)
{
    struct world *w = *state;

    want_consistent(w, 1, 0);
    fake_fail(w->source.d.hypervisor, FAKE_FREEZE, 1, ERROR_TIMEOUT);
    cycle_succeeds(w);
    assert_false(newest_is_consistent(w));
    wait_thawed(w);
    assert_true(was_called(w, "thaw"));
}

static void
a_thaw_that_fails_is_tried_again(void **state)
{
    struct world *w = *state;

    want_consistent(w, 1, 0);
    fake_fail(w->source.d.hypervisor, FAKE_THAW, 1, ERROR_AGENT);
    cycle_succeeds(w);
    assert_true(newest_is_consistent(w));
    assert_true(freeze_is_stored(w));
    wait_thawed(w);
}

static void
a_capture_that_fails_leaves_no_guest_frozen(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    cycle_succeeds(w);
    want_consistent(w, 1, 0);
    world_guest_writes(w, 5);
    fake_capture_fail(w->source.capture, FAKE_CAPTURE_BEGIN, 1, ERROR_JOB_BUSY);
    assert_fails(world_cycle(w, &err), err, ERROR_JOB_BUSY);
    wait_thawed(w);
    cycle_succeeds(w);
    assert_true(newest_is_consistent(w));
}

static void
a_capture_that_takes_too_long_is_not_waited_for(void **state)
{
    struct world *w = *state;

    want_consistent(w, 1, 0);
    w->source.config.freeze_max_ms = 300;
    watch_capture(w);
    capture.outlasts = true;
    cycle_succeeds(w);
    assert_true(capture.frozen);
    assert_false(newest_is_consistent(w));
}

static void
a_paused_guest_is_not_asked(void **state)
{
    struct world *w = *state;

    want_consistent(w, 1, 0);
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_PAUSED);
    cycle_succeeds(w);
    assert_false(was_called(w, "freeze"));
}

static void
one_that_fails_again_and_again_is_left_alone_for_longer(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->source);
    AUTOFREE(char) *complaint = NULL;

    want_consistent(w, 1, 0);
    for (int i = 0; i < 3; i++) {
        r->consistency.next_try_ms = 0;
        fake_fail(w->source.d.hypervisor, FAKE_FREEZE, 1, ERROR_AGENT);
        cycle_succeeds(w);
        wait_thawed(w);
    }
    complaint = consistency_complaint(r);
    assert_non_null(strstr(complaint, "(quarantined)"));
    assert_false(consistency_is_due(r, units_now_ms() + 200000));
    assert_true(consistency_is_due(r, units_now_ms() + 240000));
    r->consistency.next_try_ms = 0;
    cycle_succeeds(w);
    assert_true(newest_is_consistent(w));
    assert_null(consistency_complaint(r));
    wait_thawed(w);
}

static void
a_guest_that_a_killed_daemon_left_frozen_is_thawed(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;
    unsigned found = 0;

    cycle_succeeds(w);
    want_consistent(w, 1, 0);
    for (unsigned n = 1;; n++) {
        bool killed, stored;

        world_guest_writes(w, 5);
        world_close_source(w);
        killed = world_child(w, "cycle", FATE_BEHIND, n);
        world_open_source(w);
        stored = freeze_is_stored(w);
        found += stored;
        freezes_start(w->source.d.freezes);
        wait_thawed(w);
        assert_int_equal(was_called(w, "thaw"), stored);
        /* The target may have to notice first that the other one is gone. */
        assert_ok(world_recover(w, 4, &err), err);
        wait_thawed(w);
        if (!killed)
            break;
    }
    assert_true(found > 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(a_point_that_is_due_is_captured_frozen),
        TEST(one_in_a_time_is_enough),
        TEST(a_due_point_is_made_though_nothing_has_changed),
        TEST(an_agent_that_refuses_costs_no_point),
        TEST(a_guest_that_may_be_frozen_is_thawed),
        TEST(a_thaw_that_fails_is_tried_again),
        TEST(a_capture_that_fails_leaves_no_guest_frozen),
        TEST(a_capture_that_takes_too_long_is_not_waited_for),
        TEST(a_paused_guest_is_not_asked),
        TEST(one_that_fails_again_and_again_is_left_alone_for_longer),
        TEST(a_guest_that_a_killed_daemon_left_frozen_is_thawed),
    };

    evthread_use_pthreads();
    world_be_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
