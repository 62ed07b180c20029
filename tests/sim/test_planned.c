/* A VM moves to the host of its replica: nothing is lost, and whichever virtdrd dies at
 * whichever of its commits, one side runs the VM in the end (I3, I5). */
#include "tests/sim/pair.h"

#include <event2/thread.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/contact.h"
#include "daemon/ops.h"
#include "daemon/tasks.h"

static struct json_object *
wishes(const char *shutdown)
{
    struct json_object *data = json_object_new_object();

    json_set_string(data, "shutdown", shutdown);
    json_set_int(data, "timeout", 1000);
    json_set_bool(data, "reverse", false); /* so that it can be undone */
    return data;
}

static char *
begin(struct world *w, const char *shutdown)
{
    AUTOJSON *data = wishes(shutdown);

    return pair_start(w, false, "planned-failover", data);
}

/* --- the two ends
 * ----------------------------------------------------------------------- */

/* --- one after the other
 * ------------------------------------------------------------------- */

static void
a_planned_failover_loses_nothing(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *id = NULL;
    AUTOJSON *task = NULL;
    struct json_object *result;
    struct world_model m;

    world_guest_writes(w, 30);
    world_model_take(w, &m);
    id = begin(w, "graceful");
    pair_settle(w);
    pair_task_is(w, id, "SUCCEEDED", 0);
    pair_has_moved(w, &m);
    task = pair_task(w, false, id);
    result = json_object_or_null(task, "result");
    assert_true(json_double_or(result, "rpoSeconds", 1) == 0);
    assert_int_equal(json_object_array_length(json_array_or_null(result, "steps")),
                     count_steps(&op_planned) - 2);
    world_model_free(&m);
}

static void
undone_it_runs_at_the_source_again(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *id = begin(w, "graceful");
    AUTOFREE(char) *undo = NULL;

    pair_settle(w);
    undo = pair_start(w, false, "undo", NULL);
    pair_settle(w);
    pair_task_is(w, undo, "SUCCEEDED", 0);
    pair_is_back(w);
}

static void
a_guest_that_looks_away_stays_where_it_is(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    AUTOFREE(char) *id = NULL;

    fake_ignore_shutdown(w->source.d.hypervisor, true);
    id = begin(w, "graceful");
    pair_settle(w);
    pair_task_is(w, id, "FAILED", ERROR_SHUTDOWN);
    assert_int_equal(b->epoch, 1);
    assert_int_equal(fake_starts(w->source.d.hypervisor, WORLD_VM), 0);
    pair_is_back(w);
}

static void
a_guest_that_looks_away_is_stopped_by_force(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *id = NULL;
    struct world_model m;

    world_guest_writes(w, 5);
    world_model_take(w, &m);
    fake_ignore_shutdown(w->source.d.hypervisor, true);
    id = begin(w, "force");
    pair_settle(w);
    pair_task_is(w, id, "SUCCEEDED", 0);
    pair_has_moved(w, &m);
    world_model_free(&m);
}

static void
a_vm_that_was_off_moves_too_and_is_left_off_if_that_fails(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *id = NULL;

    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_OFF);
    fake_fail(w->target.d.hypervisor, FAKE_START, 1, ERROR_HYPERVISOR);
    id = begin(w, "graceful");
    pair_settle(w);
    pair_task_is(w, id, "FAILED", ERROR_HYPERVISOR);
    assert_false(pair_runs(w, true));
    assert_false(pair_runs(w, false));
}

/* --- what fails at the target
 * ----------------------------------------------------------------- */

static void
a_target_whose_hypervisor_fails_gives_it_back(void **state)
{
    static const enum fake_call calls[] = { FAKE_ADAPT, FAKE_DEFINE, FAKE_SET_AUTOSTART,
                                            FAKE_START };
    struct world *w = *state;

    for (size_t i = 0; i < N_ELEMENTS(calls); i++) {
        AUTOFREE(char) *id = NULL;

        fake_fail(w->target.d.hypervisor, calls[i], 1, ERROR_HYPERVISOR);
        id = begin(w, "graceful");
        pair_settle(w);
        pair_task_is(w, id, "FAILED", ERROR_HYPERVISOR);
        pair_is_back(w);
    }
}

/* As long as it cannot be seen that it does not run there, the source may not start it.
 */
static void
a_target_that_cannot_remove_it_keeps_it_from_the_source(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    AUTOFREE(char) *id = NULL;
    AUTOFREE(char) *undo = NULL;

    fake_fail(w->target.d.hypervisor, FAKE_START, 1, ERROR_HYPERVISOR);
    fake_fail(w->target.d.hypervisor, FAKE_DESTROY, 1, ERROR_CONNECT);
    id = begin(w, "graceful");
    pair_settle(w);
    pair_task_is(w, id, "FAILED", ERROR_HYPERVISOR);
    assert_int_equal(b->phase, PHASE_UNDOING);
    assert_false(pair_runs(w, true));
    assert_false(pair_runs(w, false));
    undo = pair_start(w, false, "undo", NULL);
    pair_settle(w);
    pair_task_is(w, undo, "SUCCEEDED", 0);
    pair_is_back(w);
}

/* --- the network
 * ---------------------------------------------------------------------------- */

static void
await_phase(struct replication *r, enum replication_phase phase)
{
    int64_t deadline_ms = units_monotonic_ms() + WORLD_DEADLINE;
    bool yes = false;

    while (!yes) {
        assert_true(units_monotonic_ms() < deadline_ms);
        pthread_mutex_lock(&r->lock);
        yes = r->phase == phase;
        pthread_mutex_unlock(&r->lock);
        sched_yield();
    }
}

/* The target's task ends without having been heard; later a contact tells the source. */
static void
a_source_that_was_left_prepared_takes_it_back_by_contact(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);
    AUTOJSON *data = json_object_new_object();
    AUTOFREE(char) *id = NULL;

    json_set_string(data, "id", "0b1c2d3e-0000-4000-8000-000000000077");
    json_set_u64(data, "epoch", 1);
    json_set_string(data, "shutdown", "graceful");
    json_set_string(data, "delta", "must");
    json_set_int(data, "timeout", 1000);
    id = pair_start(w, true, "prepare", data);
    await_phase(a, PHASE_PREPARED);
    pair_settle(w);
    pair_is_back(w);
}

/* Nobody answers: only the operator can say that it does not run there. */
static void
a_prepared_source_without_a_target_waits_for_the_operator(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);
    AUTOJSON *data = json_object_new_object();
    AUTOJSON *force = json_object_new_object();
    AUTOFREE(char) *id = NULL;
    AUTOFREE(char) *polite = NULL;
    AUTOFREE(char) *rude = NULL;
    AUTOJSON *task = NULL;
    struct error *err = NULL;

    json_set_string(data, "id", "0b1c2d3e-0000-4000-8000-000000000077");
    json_set_u64(data, "epoch", 1);
    json_set_string(data, "shutdown", "graceful");
    json_set_string(data, "delta", "must");
    json_set_int(data, "timeout", 1000);
    id = pair_start(w, true, "prepare", data);
    await_phase(a, PHASE_PREPARED);
    pair_cut(true);
    pair_settle(w);
    assert_fails(guard_judge(&w->source.d.guard, WORLD_VM, &err), err, ERROR_GUARD);
    polite = pair_start(w, true, "abandon", NULL);
    pair_settle(w);
    task = pair_task(w, true, polite);
    assert_string_equal(json_string_or(task, "state", ""), "FAILED");
    assert_int_equal(a->phase, PHASE_PREPARED);
    assert_false(pair_runs(w, true));
    json_set_bool(force, "force", true);
    rude = pair_start(w, true, "abandon", force);
    pair_settle(w);
    pair_cut(false);
    pair_settle(w);
    pair_is_back(w);
}

/* --- deaths
 * ------------------------------------------------------------------------------------ */

static void
move(struct world *w)
{
    AUTOFREE(char) *id = NULL;
    struct world_model m;

    world_guest_writes(w, 5);
    world_model_take(w, &m);
    id = begin(w, "graceful");
    pair_settle(w);
    if (!pair_came_back(w, id)) {
        if (id != NULL)
            pair_task_is(w, id, "SUCCEEDED", 0);
        pair_has_moved(w, &m);
    }
    world_model_free(&m);
}

static void
fail_to_move(struct world *w)
{
    AUTOFREE(char) *id = NULL;

    fake_fail(w->target.d.hypervisor, FAKE_START, 1, ERROR_HYPERVISOR);
    id = begin(w, "graceful");
    pair_settle(w);
    if (id != NULL)
        pair_task_is(w, id, "FAILED", 0);
    pair_is_back(w);
}

static void
a_target_that_dies_before_any_commit_goes_on(void **state UNUSED)
{
    pair_at_each_commit(move, false, PAIR_DIES_BEFORE, count_steps(&op_planned));
}

static void
a_target_that_dies_behind_any_commit_goes_on(void **state UNUSED)
{
    pair_at_each_commit(move, false, PAIR_DIES_BEHIND, count_steps(&op_planned));
}

static void
a_source_that_dies_before_any_commit_goes_on(void **state UNUSED)
{
    pair_at_each_commit(move, true, PAIR_DIES_BEFORE, count_steps(&op_prepare));
}

static void
a_source_that_dies_behind_any_commit_goes_on(void **state UNUSED)
{
    pair_at_each_commit(move, true, PAIR_DIES_BEHIND, count_steps(&op_prepare));
}

static void
a_target_that_dies_at_any_commit_while_it_gives_back_goes_on(void **state UNUSED)
{
    pair_at_each_commit(fail_to_move, false, PAIR_DIES_BEHIND, count_steps(&op_planned));
}

static void
a_source_that_dies_at_any_commit_while_it_takes_back_goes_on(void **state UNUSED)
{
    pair_at_each_commit(fail_to_move, true, PAIR_DIES_BEHIND,
                        count_steps(&op_prepare) + count_steps(&op_abandon));
}

/* --- cancelled
 * ---------------------------------------------------------------------------------- */

static struct {
    _Atomic unsigned left; /* commits of the target until the operator cancels */
    const char *_Atomic id;
    bool accepted;
} whim;

static void
cancel_now(void *opaque)
{
    struct world *w = opaque;
    struct json_object *task = NULL;

    if (whim.id == NULL || whim.left == 0 || --whim.left > 0)
        return;
    whim.accepted = tasks_cancel(w->target.d.tasks, whim.id, &task, NULL);
    json_object_put(task);
}

/* Until the VM runs at the target it may be cancelled, and is the source's then. */
static void
cancelled_at_any_step_it_ends_on_one_side(void **state UNUSED)
{
    bool accepted = true;
    unsigned n;

    for (n = 1; accepted; n++) {
        AUTOFREE(char) *id = NULL;
        AUTOJSON *task = NULL;
        struct world *w;
        void *made;

        pair_setup(&made);
        w = made;
        whim.left = 0;
        id = begin(w, "graceful");
        w->target.state.opaque = w;
        whim.id = id;
        whim.accepted = false;
        w->target.state.told = cancel_now;
        whim.left = n;
        pair_settle(w);
        w->target.state.told = NULL;
        accepted = whim.accepted;
        task = pair_task(w, false, id);
        if (strcmp(json_string_or(task, "state", ""), "CANCELLED") == 0) {
            pair_is_back(w);
        } else {
            assert_true(pair_runs(w, false));
            assert_false(pair_runs(w, true));
        }
        whim.id = NULL;
        pair_teardown(&made);
    }
    assert_true(n > count_steps(&op_planned) - 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pair_setup, pair_teardown)

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_planned_failover_loses_nothing),
        TEST(undone_it_runs_at_the_source_again),
        TEST(a_guest_that_looks_away_stays_where_it_is),
        TEST(a_guest_that_looks_away_is_stopped_by_force),
        TEST(a_vm_that_was_off_moves_too_and_is_left_off_if_that_fails),
        TEST(a_target_whose_hypervisor_fails_gives_it_back),
        TEST(a_target_that_cannot_remove_it_keeps_it_from_the_source),
        TEST(a_source_that_was_left_prepared_takes_it_back_by_contact),
        TEST(a_prepared_source_without_a_target_waits_for_the_operator),
        cmocka_unit_test(a_target_that_dies_before_any_commit_goes_on),
        cmocka_unit_test(a_target_that_dies_behind_any_commit_goes_on),
        cmocka_unit_test(a_source_that_dies_before_any_commit_goes_on),
        cmocka_unit_test(a_source_that_dies_behind_any_commit_goes_on),
        cmocka_unit_test(a_target_that_dies_at_any_commit_while_it_gives_back_goes_on),
        cmocka_unit_test(a_source_that_dies_at_any_commit_while_it_takes_back_goes_on),
        cmocka_unit_test(cancelled_at_any_step_it_ends_on_one_side),
    };

    log_init(LOG_LEVEL_ERROR);
    evthread_use_pthreads();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
