/* A failover is made final: whatever interrupts it, the VM has its disks whole, and in
 * the end nothing but them is left of the replica (I4, I5, I6). */
#include "tests/sim/replicated.h"

#include <dirent.h>
#include <event2/thread.h>
#include <sys/stat.h>

#include "common/json.h"
#include "daemon/flatten.h"
#include "daemon/ops.h"
#include "daemon/replica.h"
#include "drivers/store/backing.h"
#include "tests/sim/files.h"

/* Relative to the replica's folder. */
static bool
there(struct world *w, const char *name)
{
    AUTOFREE(char) *path =
        mem_printf("%s/b/storage/%s/%s", w->folder, WORLD_REPLICA, name);

    return access(path, F_OK) == 0;
}

static size_t
count_points(struct world *w)
{
    AUTOJSON *docs = NULL;

    assert_true(
        w->target.d.state->ops->list(w->target.d.state, "point", "", &docs, NULL));
    return json_object_array_length(docs);
}

static size_t
length_of_chain(struct world *w, const char *target)
{
    AUTOFREE(char) *path = mem_printf("%s/b/storage/%s/overlay/failover-2/%s.qcow2",
                                      w->folder, WORLD_REPLICA, target);
    struct error *err = NULL;
    char **chain = NULL;
    size_t n = 0;

    assert_ok(backing_chain(path, &chain, &n, &err), err);
    backing_chain_free(chain, n);
    return n;
}

static bool
is_pending(struct world *w)
{
    struct error *err = NULL;
    bool pending = false;

    assert_ok(flatten_is_pending(&w->target.d, WORLD_VM, &pending, &err), err);
    return pending;
}

/* The target is open. */
static void
is_the_vms_own(struct world *w, const struct world_model *m)
{
    static const char *const gone[] = { "layout.json",
                                        "disks",
                                        "journal",
                                        "aux",
                                        "README.txt",
                                        "lock",
                                        "overlay/failover-2/overlay.json" };
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct error *err = NULL;

    assert_int_equal(r->phase, PHASE_COMMITTED);
    assert_int_equal(count_points(w), 0);
    assert_false(is_pending(w));
    for (size_t i = 0; i < N_ELEMENTS(gone); i++)
        if (there(w, gone[i]))
            fail_msg("'%s' is left", gone[i]);
    for (size_t i = 0; i < m->n; i++)
        assert_int_equal(length_of_chain(w, m->target[i]), 1);
    world_check_overlay(w, 2, m);
    assert_fails(world_undo(w, &err), err, ERROR_INVALID_STATE);
    assert_ok(guard_judge(&w->target.d.guard, WORLD_VM, &err), err);
    assert_int_equal(world_starts(w), 1);
}

/* --- killed after every stored step --------------------------------------------------
 */

static void
a_commit_killed_at_each_commit_goes_on_and_leaves_the_vms_disks(void **state)
{
    replicated_killed_at_each_commit(
        *state, "commit", count_steps(&op_commit) + count_steps(&op_flatten) + 1,
        is_the_vms_own);
}

/* Before it is stored nothing has changed: it can be undone, all points are there. */
static void
a_commit_that_cannot_be_stored_changes_nothing(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct error *err = NULL;

    assert_ok(world_failover(w, &err), err);
    w->target.state.fate = FATE_FAIL;
    w->target.state.left = 4; /* the task itself, check twice, and make-final's begin */
    if (world_commit(w, &err))
        fail_msg("it was to fail");
    error_clear(&err);
    assert_int_equal(r->phase, PHASE_FAILED_OVER);
    assert_true(count_points(w) > 0);
    assert_false(is_pending(w));
    w->target.state.left = 0;
    assert_ok(world_undo(w, &err), err);
}

/* --- the background -------------------------------------------------------------------
 */

static void
the_points_go_at_once_and_the_disks_are_whole_in_the_end(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;
    struct world_model m;

    world_model_take(w, &m);
    assert_ok(world_failover(w, &err), err);
    assert_true(length_of_chain(w, "vda") > 1);
    assert_ok(world_commit(w, &err), err);
    assert_int_equal(count_points(w), 0);
    assert_ok(world_await_flatten(w, &err), err);
    is_the_vms_own(w, &m);
    assert_ok(world_commit(w, &err), err); /* again, there is nothing to do */
    is_the_vms_own(w, &m);
    world_model_free(&m);
}

static void
a_block_job_that_fails_leaves_the_vm_as_it_is_and_is_begun_again(void **state)
{
    static const enum fake_call calls[] = { FAKE_BEGIN_FLATTEN, FAKE_BLOCK_JOB };
    struct world *w = *state;
    struct error *err = NULL;
    struct world_model m;

    world_model_take(w, &m);
    assert_ok(world_failover(w, &err), err);
    for (size_t i = 0; i < N_ELEMENTS(calls); i++) {
        fake_fail(w->target.d.hypervisor, calls[i], 1, ERROR_HYPERVISOR);
        assert_ok(world_commit(w, &err), err);
        assert_fails(world_await_flatten(w, &err), err, ERROR_HYPERVISOR);
        assert_true(is_pending(w));
        assert_true(there(w, "layout.json"));
        world_check_overlay(w, 2, &m);
    }
    flatten_pass(&w->target.d); /* too soon */
    assert_true(is_pending(w));
    assert_ok(world_commit(w, &err), err); /* the operator need not wait */
    assert_ok(world_await_flatten(w, &err), err);
    is_the_vms_own(w, &m);
    world_model_free(&m);
}

static void
without_enough_space_nothing_is_begun(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;
    struct world_model m;

    world_model_take(w, &m);
    assert_ok(world_failover(w, &err), err);
    w->target.storage.reserve_bytes = UINT64_MAX / 4;
    assert_ok(world_commit(w, &err), err);
    assert_fails(world_await_flatten(w, &err), err, ERROR_NO_SPACE);
    assert_null(strstr(fake_calls(w->target.d.hypervisor), "begin_flatten"));
    assert_true(there(w, "layout.json"));
    w->target.storage.reserve_bytes = 0;
    assert_ok(world_commit(w, &err), err);
    assert_ok(world_await_flatten(w, &err), err);
    is_the_vms_own(w, &m);
    world_model_free(&m);
}

static void
a_vm_that_is_off_is_waited_for(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;
    struct world_model m;

    world_model_take(w, &m);
    assert_ok(world_failover(w, &err), err);
    fake_set_state(w->target.d.hypervisor, WORLD_VM, HV_STATE_OFF);
    assert_ok(world_commit(w, &err), err);
    assert_fails(world_await_flatten(w, &err), err, ERROR_INVALID_STATE);
    flatten_pass(&w->target.d);
    assert_true(length_of_chain(w, "vda") > 1);
    world_check_overlay(w, 2, &m);
    fake_set_state(w->target.d.hypervisor, WORLD_VM, HV_STATE_RUNNING);
    flatten_pass(&w->target.d);
    assert_ok(world_await_flatten(w, &err), err);
    assert_false(is_pending(w));
    assert_int_equal(length_of_chain(w, "vda"), 1);
    world_check_overlay(w, 2, &m);
    world_model_free(&m);
}

static void
what_was_not_failed_over_is_not_committed(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct error *err = NULL;

    assert_fails(world_commit(w, &err), err, ERROR_INVALID_STATE);
    assert_int_equal(r->phase, PHASE_REPLICATING);
    assert_true(count_points(w) > 0);
}

#define TEST(name) \
    cmocka_unit_test_setup_teardown(name, replicated_setup, replicated_teardown)

int
main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_commit_that_cannot_be_stored_changes_nothing),
        TEST(the_points_go_at_once_and_the_disks_are_whole_in_the_end),
        TEST(a_block_job_that_fails_leaves_the_vm_as_it_is_and_is_begun_again),
        TEST(without_enough_space_nothing_is_begun),
        TEST(a_vm_that_is_off_is_waited_for),
        TEST(what_was_not_failed_over_is_not_committed),
        TEST(a_commit_killed_at_each_commit_goes_on_and_leaves_the_vms_disks),
    };

    evthread_use_pthreads();
    world_be_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
