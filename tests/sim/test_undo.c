/* A failover is thrown away: whatever interrupts it, one side runs the VM, the points
 * stay, and replication goes on (I3, I4, I5). */
#include "tests/sim/replicated.h"

#include <event2/thread.h>

#include "common/json.h"
#include "daemon/contact.h"
#include "daemon/ops.h"
#include "daemon/replica.h"

/* What the target says goes to the source, as in a contact. */
static void
meet(struct world *w)
{
    AUTOJSON *said = contact_say(&w->target.d, WORLD_SOURCE);

    contact_hear(&w->source.d, WORLD_TARGET, said);
}

/* The target is open. */
static void
is_undone(struct world *w, const struct world_model *m)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct hypervisor *hv = w->target.d.hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;
    struct error *err = NULL;

    assert_int_equal(r->phase, PHASE_REPLICATING);
    assert_int_equal(r->epoch, 3);
    assert_fails(hv->ops->lookup(hv, WORLD_VM, &domain, &err), err,
                 ERROR_DOMAIN_NOT_FOUND);
    assert_fails(guard_judge(&w->target.d.guard, WORLD_VM, &err), err, ERROR_GUARD);
    assert_int_equal(count_overlays(w), 0);
    world_check_tip(w, m);
}

/* --- killed after every stored step ---------------------------------------------------
 */

static void
an_undo_killed_at_each_commit_goes_on_and_leaves_a_replica(void **state)
{
    replicated_killed_at_each_commit(*state, "undo", count_steps(&op_undo) + 1,
                                     is_undone);
}

static void
an_undo_of_which_any_commit_fails_can_be_run_again(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;
    struct world_model m;

    world_model_take(w, &m);
    assert_ok(world_failover(w, &err), err);
    world_close_source(w);
    world_close_target(w);
    world_save_target(w);
    for (unsigned n = 2; n <= count_steps(&op_undo) + 2; n++) {
        world_open_target(w);
        w->target.state.fate = FATE_FAIL;
        w->target.state.left = n;
        if (!world_undo(w, NULL)) {
            w->target.state.left = 0;
            assert_ok(world_undo(w, &err), err);
        }
        is_undone(w, &m);
        world_close_target(w);
        world_restore_target(w);
    }
    world_open_target(w);
    world_open_source(w);
    world_model_free(&m);
}

static void
a_hypervisor_that_fails_keeps_the_vm_from_the_source(void **state)
{
    static const enum fake_call calls[] = { FAKE_DESTROY, FAKE_UNDEFINE };
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct error *err = NULL;
    struct world_model m;

    world_model_take(w, &m);
    assert_ok(world_failover(w, &err), err);
    for (size_t i = 0; i < N_ELEMENTS(calls); i++) {
        fake_fail(w->target.d.hypervisor, calls[i], 1, ERROR_HYPERVISOR);
        assert_fails(world_undo(w, &err), err, ERROR_HYPERVISOR);
        assert_int_equal(b->phase, PHASE_UNDOING);
        assert_fails(guard_judge(&w->target.d.guard, WORLD_VM, &err), err, ERROR_GUARD);
        meet(w);
        assert_fails(guard_judge(&w->source.d.guard, WORLD_VM, &err), err, ERROR_GUARD);
    }
    assert_ok(world_undo(w, &err), err);
    is_undone(w, &m);
    world_model_free(&m);
}

/* --- the source
 * ------------------------------------------------------------------------- */

/* Nothing was lost of what the source had recorded, so that nothing is sent twice. */
static void
goes_on(struct world *w)
{
    AUTOPTR(replication) *a = world_replication(&w->source);
    struct error *err = NULL;
    struct world_model m;

    assert_int_equal(a->phase, PHASE_REPLICATING);
    assert_int_equal(a->epoch, 3);
    meet(w);
    assert_ok(guard_judge(&w->source.d.guard, WORLD_VM, &err), err);
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_RUNNING);
    world_guest_writes(w, 5);
    assert_ok(world_cycle(w, &err), err);
    world_model_take(w, &m);
    world_check_tip(w, &m);
    world_model_free(&m);
}

static void
the_source_that_was_superseded_hears_of_it_and_goes_on(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);
    struct error *err = NULL;

    assert_ok(world_failover(w, &err), err);
    meet(w);
    assert_int_equal(a->phase, PHASE_SUPERSEDED);
    assert_ok(world_undo(w, &err), err);
    assert_fails(guard_judge(&w->source.d.guard, WORLD_VM, &err), err, ERROR_GUARD);
    meet(w);
    goes_on(w);
}

static void
the_source_that_missed_both_goes_on(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    assert_ok(world_failover(w, &err), err);
    assert_ok(world_undo(w, &err), err);
    meet(w);
    goes_on(w);
}

/* Its cycle meets the newer epoch before a contact says what it means. */
static void
the_source_that_learns_the_epoch_from_a_cycle_goes_on_after_a_contact(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);
    struct error *err = NULL;

    assert_ok(world_failover(w, &err), err);
    assert_ok(world_undo(w, &err), err);
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_RUNNING);
    a->agreed = false;
    world_guest_writes(w, 5);
    assert_fails(world_cycle(w, &err), err, ERROR_EPOCH);
    assert_int_equal(a->phase, PHASE_SUPERSEDED);
    meet(w);
    goes_on(w);
}

static void
a_return_that_cannot_be_stored_allows_nothing(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);
    struct error *err = NULL;

    assert_ok(world_failover(w, &err), err);
    meet(w);
    assert_ok(world_undo(w, &err), err);
    w->source.state.fate = FATE_FAIL;
    w->source.state.left = 1;
    meet(w);
    assert_int_equal(a->phase, PHASE_SUPERSEDED);
    assert_fails(guard_judge(&w->source.d.guard, WORLD_VM, &err), err, ERROR_GUARD);
    meet(w);
    goes_on(w);
}

/* Before the target says so, nobody runs it. */
static void
while_it_is_undone_the_source_stays_superseded(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct error *err = NULL;

    assert_ok(world_failover(w, &err), err);
    fake_fail(w->target.d.hypervisor, FAKE_DESTROY, 1, ERROR_HYPERVISOR);
    assert_fails(world_undo(w, &err), err, ERROR_HYPERVISOR);
    assert_int_equal(b->phase, PHASE_UNDOING);
    meet(w);
    meet(w);
    assert_int_equal(a->phase, PHASE_SUPERSEDED);
    assert_int_equal(a->epoch, 2);
}

/* --- another point
 * ------------------------------------------------------------------------ */

static void
after_an_undo_another_point_can_be_tried(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;
    struct world_model first;

    world_model_take(w, &first);
    world_guest_writes(w, 20);
    assert_ok(world_cycle(w, &err), err);
    assert_ok(world_failover(w, &err), err);
    assert_ok(world_undo(w, &err), err);
    assert_ok(world_failover_to(w, "{\"type\": \"id\", \"value\": \"1\"}", &err), err);
    world_check_overlay(w, 4, &first);
    assert_int_equal(world_starts(w), 2);
    world_model_free(&first);
}

static void
what_was_not_failed_over_is_not_undone(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct error *err = NULL;

    assert_fails(world_undo(w, &err), err, ERROR_INVALID_STATE);
    assert_int_equal(b->epoch, 1);
    assert_int_equal(b->phase, PHASE_REPLICATING);
}

#define TEST(name) \
    cmocka_unit_test_setup_teardown(name, replicated_setup, replicated_teardown)

int
main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        TEST(an_undo_killed_at_each_commit_goes_on_and_leaves_a_replica),
        TEST(an_undo_of_which_any_commit_fails_can_be_run_again),
        TEST(a_hypervisor_that_fails_keeps_the_vm_from_the_source),
        TEST(the_source_that_was_superseded_hears_of_it_and_goes_on),
        TEST(the_source_that_missed_both_goes_on),
        TEST(the_source_that_learns_the_epoch_from_a_cycle_goes_on_after_a_contact),
        TEST(a_return_that_cannot_be_stored_allows_nothing),
        TEST(while_it_is_undone_the_source_stays_superseded),
        TEST(after_an_undo_another_point_can_be_tried),
        TEST(what_was_not_failed_over_is_not_undone),
    };

    evthread_use_pthreads();
    world_be_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
