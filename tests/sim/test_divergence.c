/*
 * The delta that goes on from a fork's record: it has what the new source has written
 * since and what the target's own old disks had more, whoever dies at it (I1).
 */
#include "tests/sim/world.h"

#include <event2/thread.h>
#include <stdio.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle.h"
#include "daemon/divergence.h"
#include "daemon/replica.h"

#define APART  (192u << 10) /* what the target alone has written, and how much */
#define LENGTH 8192u

static void
cycle_succeeds(struct world *w)
{
    struct error *err = NULL;

    assert_ok(world_cycle(w, &err), err);
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
    world_guest_writes(w, 40);
    world_protect(w);
    cycle_succeeds(w);
    *state = w;
    return 0;
}

static int
teardown(void **state)
{
    world_free(*state);
    return 0;
}

/* --- as divergence_settle() and divergence_take() leave both sides --------------------
 */

static void
store_it(struct world_host *h, struct replication *r)
{
    struct error *err = NULL;

    pthread_mutex_lock(&r->lock);
    assert_ok(replication_store(h->d.replications, r, NULL, 0, &err), err);
    pthread_mutex_unlock(&r->lock);
}

static void
write_apart(struct world *w, struct replication *target)
{
    static const char text[LENGTH] = "written on the old host, and not shipped";
    struct store *store;
    struct error *err = NULL;

    assert_ok(replica_apply(&w->target.d, target, NULL, &err), err);
    assert_ok(replica_store(&w->target.d, target, &store, &err), err);
    replica_lock_tip(target);
    assert_ok(store->ops->write(store, "vda", APART, text, sizeof text, &err), err);
    assert_ok(store->ops->flush(store, &err), err);
    replica_unlock_tip(target);
}

static void
turn_target(struct world *w, const char *record)
{
    AUTOPTR(replication) *r = world_replication(&w->target);

    write_apart(w, r);
    r->phase = PHASE_RESYNCING;
    snprintf(r->newest.name, sizeof r->newest.name, "unreplicated");
    r->sync = (struct replication_sync){ .started_ms = 1, .complete = true };
    snprintf(r->sync.name, sizeof r->sync.name, "%s", record);
    store_it(&w->target, r);
}

/* The newest point of both becomes the one that the VM forked from. */
static void
turn(struct world *w, bool tells_places)
{
    AUTOPTR(replication) *r = world_replication(&w->source);
    AUTOJSON *places = json_object_new_array();
    AUTOJSON *extents = json_object_new_object();
    AUTOJSON *answer = json_object_new_object();
    AUTOJSON *disks = NULL;

    turn_target(w, r->newest.name);
    json_object_array_add(places, json_object_new_int64(APART));
    json_object_array_add(places, json_object_new_int64(LENGTH));
    json_set(extents, "vda", json_object_get(places));
    json_set_bool(answer, "known", true);
    json_set_string(answer, "record", r->newest.name);
    if (tells_places)
        json_set(answer, "extents", json_object_get(extents));
    r->fork = json_object_new_object();
    json_set_string(r->fork, "record", r->newest.name);
    json_object_deep_copy(r->disks, &disks, NULL);
    r->newest = (struct replication_point){ 0 };
    r->phase = PHASE_INITIAL_SYNC;
    r->agreed = false;
    divergence_take(r, answer, disks);
    assert_true(divergence_is_next(r));
    store_it(&w->source, r);
}

static bool
replica_is_exact(struct world *w)
{
    AUTOPTR(replication) *target = world_replication(&w->target);
    struct world_model m;
    struct error *err = NULL;

    assert_ok(replica_apply(&w->target.d, target, NULL, &err), err);
    world_model_take(w, &m);
    world_check_tip(w, &m);
    world_model_free(&m);
    return true;
}

static void
is_over(struct world *w)
{
    AUTOPTR(replication) *source = world_replication(&w->source);
    AUTOPTR(replication) *target = world_replication(&w->target);

    assert_int_equal(source->phase, PHASE_REPLICATING);
    assert_int_equal(target->phase, PHASE_REPLICATING);
    assert_string_equal(source->newest.name, target->newest.name);
    replica_is_exact(w);
}

/* --- the tests ------------------------------------------------------------------------
 */

static void
both_records_make_the_first_point(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->source);
    unsigned contents = fake_capture_calls(w->source.capture, FAKE_CAPTURE_CONTENT);

    turn(w, true);
    world_guest_writes(w, 3);
    cycle_succeeds(w);
    is_over(w);
    assert_int_equal(fake_capture_calls(w->source.capture, FAKE_CAPTURE_CONTENT),
                     contents + 1);
    assert_int_equal(r->resync.looked_bytes, 0);
    assert_true(r->resync.sent_bytes > 0);
    assert_int_equal(fake_capture_points(w->source.capture), 1);
    assert_string_equal(json_string_or(r->fork, "record", ""), "");
    assert_null(json_object_or_null(r->fork, "extents"));
}

/* The record is lost after all: QEMU was killed since. */
static void
a_record_that_is_lost_starts_over(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->source);

    turn(w, true);
    world_guest_writes(w, 3);
    fake_capture_lose(w->source.capture);
    cycle_succeeds(w);
    is_over(w);
    assert_false(r->resync.records);
    assert_true(r->resync.looked_bytes > 0);
}

static void
a_record_too_large_for_one_exchange_starts_over(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->source);

    turn(w, true);
    world_guest_writes(w, 60);
    w->source.config.slice_bytes = 64u << 10;
    cycle_succeeds(w);
    is_over(w);
    assert_false(r->resync.records);
    assert_non_null(strstr(r->resync.reason, "since the failover"));
}

/* Its old image was written to: it has dropped what it stood for. */
static void
a_target_that_takes_it_back_is_compared(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->source);
    AUTOPTR(replication) *target = world_replication(&w->target);

    turn(w, false);
    write_apart(w, target);
    target->sync = (struct replication_sync){ 0 };
    target->newest.name[0] = '\0';
    store_it(&w->target, target);
    cycle_succeeds(w);
    is_over(w);
    assert_false(r->resync.records);
    assert_non_null(strstr(r->resync.reason, "not what they were"));
}

static bool
survives_a_kill(enum fate fate, unsigned n)
{
    struct error *err = NULL;
    void *state;
    struct world *w;
    bool killed;

    setup(&state);
    w = state;
    turn(w, true);
    world_guest_writes(w, 4);
    world_close_source(w);
    killed = world_child(w, "cycle", fate, n);
    world_open_source(w);
    {
        AUTOPTR(replication) *r = world_replication(&w->source);

        cycle_recover(&w->source.d, r);
    }
    assert_ok(world_recover(w, 3, &err), err);
    is_over(w);
    teardown(&state);
    return killed;
}

static void
outlives_the_sources_death_at_any_commit(void **state UNUSED)
{
    for (enum fate fate = FATE_BEFORE; fate <= FATE_BEHIND; fate++) {
        unsigned n = 1;

        while (survives_a_kill(fate, n))
            n++;
        assert_true(n > 3);
    }
}

int
main(int argc, char **argv)
{
#define IN_WORLD(name, f)              \
    {                                  \
        name, f, setup, teardown, NULL \
    }
    const struct CMUnitTest tests[] = {
        IN_WORLD("what both sides have recorded makes the first point",
                 both_records_make_the_first_point),
        IN_WORLD("a record that is lost makes the sync start over",
                 a_record_that_is_lost_starts_over),
        IN_WORLD("so does one that is too large for one exchange",
                 a_record_too_large_for_one_exchange_starts_over),
        IN_WORLD("a target that does not stand for it any more is compared",
                 a_target_that_takes_it_back_is_compared),
        { "a death of the source at any commit of it is outlived",
          outlives_the_sources_death_at_any_commit, NULL, NULL, NULL },
    };

    evthread_use_pthreads();
    world_be_child(argc, argv);
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
