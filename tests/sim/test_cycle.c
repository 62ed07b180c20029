/* Cycles from end to end, and everything that can go wrong in one (I1, I2, I8). */
#include "tests/sim/world.h"

#include <event2/thread.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle.h"
#include "daemon/replica.h"

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
replica_is_exact(struct world *w)
{
    struct world_model m;

    world_model_take(w, &m);
    world_check_tip(w, &m);
    world_model_free(&m);
}

static enum replication_phase
phase_of(struct world_host *h)
{
    AUTOPTR(replication) *r = world_replication(h);

    return r->phase;
}

static uint64_t
sequence_of(struct world_host *h)
{
    AUTOPTR(replication) *r = world_replication(h);

    return r->newest.sequence;
}

static void
both_sides_agree(struct world *w)
{
    AUTOPTR(replication) *a = world_replication(&w->source);
    AUTOPTR(replication) *b = world_replication(&w->target);

    assert_string_equal(a->newest.name, b->newest.name);
    assert_int_equal(a->newest.sequence, b->newest.sequence);
    assert_int_equal(a->newest.time_ms, b->newest.time_ms);
    assert_string_equal(a->pending.name, "");
}

/* The newest point alone is recorded: everything else of ours was forgotten (I6). */
static void
one_point_is_recorded(struct world *w)
{
    assert_false(fake_capture_is_open(w->source.capture));
    assert_int_equal(fake_capture_points(w->source.capture), 1);
}

/* --- the ordinary way -----------------------------------------------------------------
 */

static void
slices_then_a_delta_make_the_first_point(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->source);
    struct cancel cancel = { 0 };
    struct error *err = NULL;
    unsigned slices = 0;
    bool more = true;

    while (more) {
        assert_ok(cycle_run(&w->source.d, r, &cancel, &more, &err), err);
        world_guest_writes(w, 3); /* at any time, before and after what was read */
        slices++;
        assert_int_equal(sequence_of(&w->target), more ? 0 : 1);
    }
    assert_in_range(slices, 3, 12);
    cycle_succeeds(w);
    replica_is_exact(w);
    both_sides_agree(w);
    one_point_is_recorded(w);
}

static void
an_idle_vm_only_moves_the_time_on(void **state)
{
    struct world *w = *state;
    unsigned begins;

    cycle_succeeds(w);
    begins = fake_capture_calls(w->source.capture, FAKE_CAPTURE_BEGIN);
    cycle_succeeds(w);
    assert_int_equal(fake_capture_calls(w->source.capture, FAKE_CAPTURE_BEGIN), begins);
    assert_int_equal(sequence_of(&w->target), 1);
    both_sides_agree(w);
}

static void
writes_during_every_stored_step(struct fated *f, const struct state_write *writes UNUSED,
                                size_t n UNUSED)
{
    world_guest_writes(f->opaque, 2);
}

static void
after_many_cycles_the_overlay_is_the_disk_byte_by_byte(void **state)
{
    struct world *w = *state;
    struct world_model m;
    struct error *err = NULL;

    w->source.state.told = writes_during_every_stored_step;
    w->source.state.opaque = w;
    for (int i = 0; i < 12; i++) {
        world_guest_writes(w, 5);
        cycle_succeeds(w);
    }
    w->source.state.told = NULL;
    cycle_succeeds(w);
    world_model_take(w, &m);
    both_sides_agree(w);
    assert_ok(world_failover(w, &err), err);
    world_check_overlay(w, 2, &m);
    world_model_free(&m);
}

/* --- disks come, grow and go
 * ------------------------------------------------------------ */

static void
a_disk_that_is_plugged_in_travels_whole(void **state)
{
    struct world *w = *state;

    cycle_succeeds(w);
    fake_capture_set_disk(w->source.capture, "vdc", 256u << 10);
    world_plug(w);
    world_guest_writes(w, 5);
    cycle_succeeds(w);
    replica_is_exact(w);
    world_guest_writes(w, 5);
    cycle_succeeds(w);
    replica_is_exact(w);
    one_point_is_recorded(w);
}

static void
a_disk_that_is_plugged_in_during_the_sync_is_not_missed(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->source);
    struct cancel cancel = { 0 };
    struct error *err = NULL;
    bool more;

    assert_ok(cycle_run(&w->source.d, r, &cancel, &more, &err), err);
    assert_true(more);
    fake_capture_set_disk(w->source.capture, "vdc", 256u << 10);
    world_plug(w);
    world_guest_writes(w, 20);
    cycle_succeeds(w);
    replica_is_exact(w);
}

/* Of another disk of that name, say: it could be journalled, and never applied. */
static void
a_disk_that_is_smaller_than_before_is_refused_before_it_is_taken(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = NULL;
    struct error *err = NULL;
    struct world_model m;
    uint64_t sequence;

    cycle_succeeds(w);
    world_model_take(w, &m);
    b = world_replication(&w->target);
    sequence = b->newest.sequence;
    fake_capture_remove_disk(w->source.capture, "vdb");
    fake_capture_set_disk(w->source.capture, "vdb", 256u << 10);
    world_plug(w);
    world_guest_writes(w, 5);
    assert_fails(world_cycle(w, &err), err, ERROR_UNSUPPORTED_DISK);
    assert_int_equal(b->newest.sequence, sequence);
    world_check_tip(w, &m); /* what was acknowledged is there */
    world_model_free(&m);
    fake_capture_set_disk(w->source.capture, "vdb", 512u << 10);
    world_plug(w);
    assert_ok(world_recover(w, 3, &err), err);
    replica_is_exact(w);
}

static void
a_disk_that_goes_during_the_sync_does_not_stop_it(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->source);
    struct cancel cancel = { 0 };
    struct error *err = NULL;
    bool more;

    assert_ok(cycle_run(&w->source.d, r, &cancel, &more, &err), err);
    assert_true(more);
    fake_capture_remove_disk(w->source.capture, "vda");
    world_plug(w);
    world_guest_writes(w, 20);
    cycle_succeeds(w);
    replica_is_exact(w);
}

static void
a_disk_that_grew_is_grown_even_if_nothing_was_written(void **state)
{
    struct world *w = *state;

    cycle_succeeds(w);
    fake_capture_set_disk(w->source.capture, "vda", 2u << 20);
    world_plug(w);
    cycle_succeeds(w);
    replica_is_exact(w);
    world_guest_writes(w, 20);
    cycle_succeeds(w);
    replica_is_exact(w);
}

static void
a_disk_that_was_removed_and_comes_back_is_exact(void **state)
{
    struct world *w = *state;

    cycle_succeeds(w);
    fake_capture_remove_disk(w->source.capture, "vdb");
    world_plug(w);
    world_guest_writes(w, 3);
    cycle_succeeds(w);
    replica_is_exact(w);
    fake_capture_set_disk(w->source.capture, "vdb", 512u << 10);
    world_plug(w);
    world_guest_writes(w, 3);
    cycle_succeeds(w);
    replica_is_exact(w);
}

/* --- failures
 * ------------------------------------------------------------------------------ */

static const enum error_code codes[] = {
    ERROR_CHECKPOINT_LOST, ERROR_JOB_BUSY,         ERROR_SCRATCH_FULL,
    ERROR_INVALID_STATE,   ERROR_DOMAIN_NOT_FOUND, ERROR_CONNECT,
    ERROR_TIMEOUT,         ERROR_CANCELLED,        ERROR_HYPERVISOR,
};

/* The n-th call of a slot fails; afterwards replication works and the data is exact. */
static bool
survives(struct world *w, enum fake_capture_call call, unsigned n, enum error_code code)
{
    struct capture_driver *capture = w->source.capture;
    unsigned before = fake_capture_calls(capture, call);
    struct error *err = NULL;

    world_guest_writes(w, 3);
    fake_capture_fail(capture, call, n, code);
    error_clear(&err);
    (void)world_cycle(w, NULL);
    assert_ok(world_recover(w, 6, &err), err);
    fake_capture_fail(capture, call, 0, ERROR_INTERNAL);
    cycle_succeeds(w);
    both_sides_agree(w);
    one_point_is_recorded(w);
    return fake_capture_calls(capture, call) >= before + n;
}

static void
each_function_of_the_capture_may_fail_with_each_code_at_each_call(void **state)
{
    struct world *w = *state;

    cycle_succeeds(w);
    for (int call = 0; call < FAKE_CAPTURE_N_CALLS; call++)
        for (size_t i = 0; i < N_ELEMENTS(codes); i++) {
            for (unsigned n = 1; n <= 3; n++)
                if (!survives(w, (enum fake_capture_call)call, n, codes[i]))
                    break;
            replica_is_exact(w);
        }
}

static void
each_function_of_the_capture_may_fail_during_a_resync(void **state)
{
    struct world *w = *state;

    cycle_succeeds(w);
    for (int call = 0; call < FAKE_CAPTURE_N_CALLS; call++)
        for (unsigned n = 1; n <= 4; n++) {
            fake_capture_lose(w->source.capture);
            if (!survives(w, (enum fake_capture_call)call, n, ERROR_HYPERVISOR))
                break;
            if (n % 2 == 1)
                replica_is_exact(w);
        }
}

static void
each_commit_of_a_cycle_may_fail_on_either_side(void **state)
{
    struct world *w = *state;
    struct world_host *const hosts[] = { &w->source, &w->target };
    struct error *err = NULL;

    cycle_succeeds(w);
    for (size_t i = 0; i < N_ELEMENTS(hosts); i++)
        for (unsigned n = 1; n <= 6; n++) {
            hosts[i]->state.fate = FATE_FAIL;
            hosts[i]->state.left = n;
            world_guest_writes(w, 3);
            (void)world_cycle(w, NULL);
            assert_ok(world_recover(w, 4, &err), err);
            hosts[i]->state.left = 0;
            cycle_succeeds(w);
            both_sides_agree(w);
            one_point_is_recorded(w);
            replica_is_exact(w);
        }
}

/* --- the source is killed
 * -------------------------------------------------------------------- */

static void
recover_source(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->source);

    cycle_recover(&w->source.d, r);
}

/* Killed at the n-th commit, gone on by the next virtdrd; false: there is no n-th. */
static bool
survives_a_kill(struct world *w, enum fate fate, unsigned n)
{
    bool killed;

    world_guest_writes(w, 4);
    world_close_source(w);
    killed = world_child(w, "cycle", fate, n);
    world_open_source(w);
    recover_source(w);
    return killed;
}

static void
killed_at_each_commit(struct world *w, void (*before)(struct world *w))
{
    const enum fate fates[] = { FATE_BEFORE, FATE_BEHIND };
    struct error *err = NULL;

    for (size_t i = 0; i < N_ELEMENTS(fates); i++) {
        bool killed = true;
        unsigned n;

        for (n = 1; killed; n++) {
            before(w);
            killed = survives_a_kill(w, fates[i], n);
            assert_ok(world_recover(w, 3, &err), err);
            both_sides_agree(w);
            one_point_is_recorded(w);
            replica_is_exact(w);
        }
        assert_true(n > 2); /* a cycle stores at least its pending point and its ack */
    }
}

static void
nothing_before(struct world *w UNUSED)
{
}

static void
the_record_is_lost(struct world *w)
{
    fake_capture_lose(w->source.capture);
}

static void
a_source_killed_at_each_commit_of_a_delta_goes_on_exactly(void **state)
{
    cycle_succeeds(*state);
    killed_at_each_commit(*state, nothing_before);
}

static void
a_source_killed_at_each_commit_of_a_resync_goes_on_exactly(void **state)
{
    cycle_succeeds(*state);
    killed_at_each_commit(*state, the_record_is_lost);
}

static void
a_source_killed_at_each_commit_of_the_first_sync_goes_on_exactly(void **state)
{
    struct world *w = *state;
    bool killed = true;

    for (unsigned n = 1; killed; n++)
        killed = survives_a_kill(w, FATE_BEHIND, n);
    cycle_succeeds(w);
    both_sides_agree(w);
    one_point_is_recorded(w);
    replica_is_exact(w);
}

static void
a_lost_ack_is_settled_by_asking(void **state)
{
    struct world *w = *state;

    cycle_succeeds(w);
    world_guest_writes(w, 5);
    w->source.state.fate = FATE_FAIL;
    w->source.state.left = 2; /* the first names the point, the second takes the ack */
    assert_false(world_cycle(w, NULL));
    world_close_source(w); /* what it believed in memory is gone */
    assert_int_equal(sequence_of(&w->target), 2);
    world_open_source(w);
    recover_source(w);
    assert_int_equal(sequence_of(&w->source), 1);
    cycle_succeeds(w);
    /* A third may follow for the definition, which was remembered with the ack only. */
    assert_in_range(sequence_of(&w->source), 2, 3);
    assert_int_equal(phase_of(&w->source), PHASE_REPLICATING);
    both_sides_agree(w);
    one_point_is_recorded(w);
    replica_is_exact(w);
}

static void
a_target_that_starts_again_has_all_that_it_acknowledged(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    for (int i = 0; i < 3; i++) {
        world_guest_writes(w, 5);
        cycle_succeeds(w);
        world_close_target(w);
        world_guest_writes(w, 5);
        assert_false(world_cycle(w, NULL));
        world_open_target(w);
        assert_ok(world_recover(w, 3, &err), err);
        replica_is_exact(w);
    }
}

#define HOUR_MS 3600000

/* --- a resync
 * --------------------------------------------------------------------------------- */

/* Slices only, so that the resync is half done. */
static void
half_a_resync(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->source);
    struct cancel cancel = { 0 };
    struct error *err = NULL;
    bool more = false;

    w->source.config.slice_bytes = 64 << 10;
    fake_capture_lose(w->source.capture);
    world_guest_writes(w, 30);
    assert_fails(world_cycle(w, &err), err, ERROR_CHECKPOINT_LOST);
    for (int i = 0; i < 3; i++) {
        assert_ok(cycle_run(&w->source.d, r, &cancel, &more, &err), err);
        assert_true(more);
        world_guest_writes(w, 10);
    }
    assert_int_equal(phase_of(&w->target), PHASE_RESYNCING);
}

static void
a_failover_during_a_resync_gives_exactly_the_old_point(void **state)
{
    struct world *w = *state;
    struct world_model old;
    struct error *err = NULL;

    cycle_succeeds(w);
    world_guest_writes(w, 10);
    cycle_succeeds(w);
    world_model_take(w, &old);
    half_a_resync(w);
    assert_ok(world_failover(w, &err), err);
    world_check_overlay(w, 2, &old);
    world_model_free(&old);
}

static void
a_resync_that_begins_anew_is_exact(void **state)
{
    struct world *w = *state;

    cycle_succeeds(w);
    half_a_resync(w);
    fake_capture_lose(w->source.capture);
    world_guest_writes(w, 10);
    (void)world_cycle(w, NULL);
    (void)world_cycle(w, NULL);
    cycle_succeeds(w);
    assert_int_equal(phase_of(&w->target), PHASE_REPLICATING);
    replica_is_exact(w);
    one_point_is_recorded(w);
}

/* Damage in what was not sealed yet: marks and journals still have every point. */
static void
damage_tip(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct error *err = NULL;

    assert_ok(replica_apply(&w->target.d, r, NULL, &err), err);
    replica_set_damaged(&w->target.d, r, "a test says so");
}

static void
a_damaged_tip_is_sent_anew_and_costs_no_point(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    cycle_succeeds(w);
    for (int i = 0; i < 3; i++) {
        world_guest_writes(w, 10);
        cycle_succeeds(w);
    }
    damage_tip(w);
    world_guest_writes(w, 100);
    assert_ok(world_recover(w, 4, &err), err);
    assert_int_equal(phase_of(&w->target), PHASE_REPLICATING);
    both_sides_agree(w);
    replica_is_exact(w);
    world_guest_writes(w, 10);
    cycle_succeeds(w);
    replica_is_exact(w);
    one_point_is_recorded(w);
}

/* Its points behind the newest mark are kept, but must not come on top of the sync. */
static void
a_damaged_replica_that_is_sent_anew_is_exact(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct error *err = NULL;

    w->target.config.mark_ms = HOUR_MS; /* none but the base */
    w->target.config.mark_bytes = UINT64_MAX >> 9;
    for (int i = 0; i < 4; i++) {
        world_guest_writes(w, 20);
        cycle_succeeds(w);
    }
    assert_ok(replica_apply(&w->target.d, b, NULL, &err), err);
    replica_set_damaged(&w->target.d, b, "the test says so");
    world_guest_writes(w, 20);
    assert_ok(world_recover(w, 4, &err), err);
    assert_int_equal(phase_of(&w->target), PHASE_REPLICATING);
    replica_is_exact(w);
    world_guest_writes(w, 5);
    cycle_succeeds(w);
    replica_is_exact(w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        TEST(slices_then_a_delta_make_the_first_point),
        TEST(an_idle_vm_only_moves_the_time_on),
        TEST(after_many_cycles_the_overlay_is_the_disk_byte_by_byte),
        TEST(a_disk_that_is_plugged_in_travels_whole),
        TEST(a_disk_that_is_plugged_in_during_the_sync_is_not_missed),
        TEST(a_disk_that_is_smaller_than_before_is_refused_before_it_is_taken),
        TEST(a_disk_that_goes_during_the_sync_does_not_stop_it),
        TEST(a_disk_that_grew_is_grown_even_if_nothing_was_written),
        TEST(a_disk_that_was_removed_and_comes_back_is_exact),
        TEST(each_function_of_the_capture_may_fail_with_each_code_at_each_call),
        TEST(each_function_of_the_capture_may_fail_during_a_resync),
        TEST(each_commit_of_a_cycle_may_fail_on_either_side),
        TEST(a_source_killed_at_each_commit_of_a_delta_goes_on_exactly),
        TEST(a_source_killed_at_each_commit_of_a_resync_goes_on_exactly),
        TEST(a_source_killed_at_each_commit_of_the_first_sync_goes_on_exactly),
        TEST(a_lost_ack_is_settled_by_asking),
        TEST(a_target_that_starts_again_has_all_that_it_acknowledged),
        TEST(a_failover_during_a_resync_gives_exactly_the_old_point),
        TEST(a_resync_that_begins_anew_is_exact),
        TEST(a_damaged_tip_is_sent_anew_and_costs_no_point),
        TEST(a_damaged_replica_that_is_sent_anew_is_exact),
    };

    evthread_use_pthreads();
    world_be_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
