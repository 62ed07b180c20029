/* A VM that is off: its last writes travel, then its point's time alone moves on. */
#include "tests/sim/world.h"

#include <event2/thread.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle.h"
#include "daemon/leftovers.h"

static void
turn_off(struct world *w)
{
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_OFF);
}

static void
turn_on(struct world *w)
{
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_RUNNING);
}

static int
setup(void **state)
{
    struct world *w = world_new();

    world_open_target(w);
    world_open_source(w);
    fake_capture_set_disk(w->source.capture, "vda", 1u << 20);
    fake_capture_set_disk(w->source.capture, "vdb", 512u << 10);
    world_plug(w);
    world_guest_writes(w, 200);
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

static void
cycle_succeeds(struct world *w)
{
    struct error *err = NULL;

    assert_ok(world_cycle(w, &err), err);
}

static void
is_exact(struct world *w)
{
    AUTOPTR(replication) *a = world_replication(&w->source);
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct world_model m;

    assert_string_equal(a->newest.name, b->newest.name);
    assert_int_equal(a->newest.time_ms, b->newest.time_ms);
    assert_false(fake_capture_is_open(w->source.capture));
    world_model_take(w, &m);
    world_check_tip(w, &m);
    world_model_free(&m);
}

static unsigned
begins(struct world *w)
{
    return fake_capture_calls(w->source.capture, FAKE_CAPTURE_BEGIN);
}

/* What the guest writes, and what the file shows of it. */
static void
guest_writes(struct world *w)
{
    world_guest_writes(w, 5);
    world_image_changes(w, "vda");
}

/* --- what it is there for ----------------------------------------------------------- */

static void
the_last_writes_travel_once_it_is_off_and_then_only_time_moves(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    unsigned before;
    uint64_t sequence;

    cycle_succeeds(w);
    guest_writes(w);
    turn_off(w);
    cycle_succeeds(w);
    is_exact(w);
    before = begins(w);
    sequence = b->newest.sequence;
    for (int i = 0; i < 3; i++) {
        int64_t time_ms = b->newest.time_ms;

        while (units_now_ms() <= time_ms)
            ;
        cycle_succeeds(w);
        assert_true(b->newest.time_ms > time_ms);
    }
    assert_int_equal(begins(w), before);
    assert_int_equal(b->newest.sequence, sequence);
    is_exact(w);
}

static void
the_record_goes_on_over_the_time_that_it_was_off(void **state)
{
    struct world *w = *state;

    cycle_succeeds(w);
    for (int i = 0; i < 3; i++) {
        guest_writes(w);
        turn_off(w);
        cycle_succeeds(w);
        is_exact(w);
        assert_int_equal(fake_capture_points(w->source.capture), 1);
        turn_on(w);
        guest_writes(w);
        cycle_succeeds(w);
        is_exact(w);
        assert_int_equal(fake_capture_points(w->source.capture), 1);
    }
}

/* Starting, writing and ending between two cycles is no reason for a resync. */
static void
a_vm_that_ran_between_two_cycles_goes_on_with_its_record(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);

    cycle_succeeds(w);
    turn_off(w);
    cycle_succeeds(w);
    guest_writes(w);
    atomic_store(&a->has_run, true); /* as the event tells */
    cycle_succeeds(w);
    assert_int_equal(a->phase, PHASE_REPLICATING);
    is_exact(w);
}

/* --- without a record ----------------------------------------------------------------
 */

static void
a_first_sync_of_a_vm_that_is_off_makes_a_point(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);
    struct error *err = NULL;
    unsigned before;

    turn_off(w);
    cycle_succeeds(w);
    is_exact(w);
    assert_int_equal(fake_capture_points(w->source.capture), 0);
    before = begins(w);
    cycle_succeeds(w);
    assert_int_equal(begins(w), before);
    turn_on(w);
    guest_writes(w);
    assert_fails(world_cycle(w, &err), err, ERROR_CHECKPOINT_LOST);
    assert_int_equal(a->phase, PHASE_RESYNCING);
    assert_ok(world_recover(w, 3, &err), err);
    is_exact(w);
    assert_int_equal(fake_capture_points(w->source.capture), 1);
}

static void
a_vm_that_starts_during_its_first_sync_begins_anew(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);
    struct cancel cancel = { 0 };
    struct error *err = NULL;
    bool more = false;

    turn_off(w);
    assert_ok(cycle_run(&w->source.d, a, &cancel, &more, &err), err);
    assert_true(more);
    turn_on(w);
    guest_writes(w);
    assert_ok(world_recover(w, 4, &err), err);
    is_exact(w);
}

static void
a_record_that_is_lost_is_made_up_for_while_it_is_off(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;
    unsigned before;

    cycle_succeeds(w);
    guest_writes(w);
    fake_capture_lose(w->source.capture);
    turn_off(w);
    assert_fails(world_cycle(w, &err), err, ERROR_CHECKPOINT_LOST);
    assert_ok(world_recover(w, 3, &err), err);
    is_exact(w);
    before = begins(w);
    cycle_succeeds(w);
    assert_int_equal(begins(w), before);
}

/* --- trouble ---------------------------------------------------------------------------
 */

static void
images_that_are_changed_behind_its_back_are_synchronised_anew(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);
    struct error *err = NULL;

    cycle_succeeds(w);
    turn_off(w);
    cycle_succeeds(w);
    guest_writes(w); /* an older image, say; nobody has seen the VM run */
    assert_fails(world_cycle(w, &err), err, ERROR_CHECKPOINT_LOST);
    assert_int_equal(a->phase, PHASE_RESYNCING);
    assert_ok(world_recover(w, 3, &err), err);
    is_exact(w);
}

static void
starts_and_writes(void *w)
{
    turn_on(w);
    guest_writes(w);
}

/* Its images change between the look at the VM and the look at them: by nobody but the
 * VM. */
static void
a_vm_that_starts_while_it_is_looked_at_goes_on_with_its_record(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);
    struct error *err = NULL;

    cycle_succeeds(w);
    for (int i = 0; i < 3; i++) {
        turn_off(w);
        cycle_succeeds(w);
        fake_behind_lookup(w->source.d.hypervisor, starts_and_writes, w);
        assert_fails(world_cycle(w, &err), err, ERROR_INVALID_STATE);
        assert_int_equal(a->phase, PHASE_REPLICATING);
        cycle_succeeds(w);
        is_exact(w);
    }
}

static void
a_capture_that_turns_out_void_is_acknowledged_by_nobody(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct error *err = NULL;
    uint64_t sequence;

    cycle_succeeds(w);
    sequence = b->newest.sequence;
    guest_writes(w);
    turn_off(w);
    fake_capture_fail(w->source.capture, FAKE_CAPTURE_END, 1, ERROR_INVALID_STATE);
    assert_fails(world_cycle(w, &err), err, ERROR_INVALID_STATE);
    assert_int_equal(b->newest.sequence, sequence);
    turn_on(w);
    guest_writes(w);
    assert_ok(world_recover(w, 2, &err), err);
    is_exact(w);
    assert_int_equal(fake_capture_points(w->source.capture), 1);
}

/* As when its protection ends: libvirt removes nothing from a VM that is off. */
static void
what_a_vm_that_is_off_keeps_of_us_is_removed_when_it_runs_next(void **state)
{
    struct world *w = *state;
    struct daemon *d = &w->source.d;
    AUTOPTR(replication) *a = world_replication(&w->source);
    AUTOJSON *docs = NULL;
    struct error *err = NULL;

    cycle_succeeds(w);
    turn_off(w);
    fake_capture_fail(w->source.capture, FAKE_CAPTURE_FORGET, 1, ERROR_INVALID_STATE);
    assert_fails(cycle_forget_all(d, a, &err), err, ERROR_HYPERVISOR);
    assert_ok(leftovers_keep(d, a, &err), err);
    leftovers_pass(d);
    assert_int_equal(fake_capture_points(w->source.capture), 1);
    turn_on(w);
    fake_capture_fail(w->source.capture, FAKE_CAPTURE_FORGET, 1, ERROR_JOB_BUSY);
    leftovers_pass(d);
    assert_int_equal(fake_capture_points(w->source.capture), 1);
    assert_ok(leftovers_keep(d, a, &err), err); /* each name once, also so */
    leftovers_pass(d);
    assert_int_equal(fake_capture_points(w->source.capture), 0);
    assert_ok(d->state->ops->list(d->state, "leftover", "", &docs, &err), err);
    assert_int_equal(json_object_array_length(docs), 0);
}

static void
a_source_killed_at_each_commit_while_it_is_off_goes_on_exactly(void **state)
{
    const enum fate fates[] = { FATE_BEFORE, FATE_BEHIND };
    struct world *w = *state;
    struct error *err = NULL;

    cycle_succeeds(w);
    for (size_t i = 0; i < N_ELEMENTS(fates); i++) {
        bool killed = true;

        for (unsigned n = 1; killed; n++) {
            guest_writes(w);
            world_close_source(w);
            killed = world_child(w, "cycle-off", fates[i], n);
            world_open_source(w);
            turn_off(w);
            assert_ok(world_recover(w, 4, &err), err);
            is_exact(w);
            turn_on(w);
            guest_writes(w);
            assert_ok(world_recover(w, 4, &err), err);
            is_exact(w);
            assert_int_equal(fake_capture_points(w->source.capture), 1);
        }
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        TEST(the_last_writes_travel_once_it_is_off_and_then_only_time_moves),
        TEST(the_record_goes_on_over_the_time_that_it_was_off),
        TEST(a_vm_that_ran_between_two_cycles_goes_on_with_its_record),
        TEST(a_first_sync_of_a_vm_that_is_off_makes_a_point),
        TEST(a_vm_that_starts_during_its_first_sync_begins_anew),
        TEST(a_record_that_is_lost_is_made_up_for_while_it_is_off),
        TEST(images_that_are_changed_behind_its_back_are_synchronised_anew),
        TEST(a_vm_that_starts_while_it_is_looked_at_goes_on_with_its_record),
        TEST(a_capture_that_turns_out_void_is_acknowledged_by_nobody),
        TEST(what_a_vm_that_is_off_keeps_of_us_is_removed_when_it_runs_next),
        TEST(a_source_killed_at_each_commit_while_it_is_off_goes_on_exactly),
    };

    evthread_use_pthreads();
    world_be_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
