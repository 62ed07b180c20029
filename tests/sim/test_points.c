/* The replica as a time machine: any point, exactly, whatever happened meanwhile (I2,
 * I4). */
#include "tests/sim/world.h"

#include <event2/thread.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle.h"
#include "daemon/points.h"
#include "daemon/replica_private.h"
#include "daemon/upkeep.h"
#include "tests/sim/files.h"

#define N_MODELS 8

/* What the disks held at each point; the index is its sequence number. */
struct history {
    struct world *world;
    struct world_model at[N_MODELS + 1];
};

static int
setup(void **state)
{
    struct history *h = NEW(struct history);
    struct world *w = world_new();

    world_open_target(w);
    world_open_source(w);
    fake_capture_set_disk(w->source.capture, "vda", 512u << 10);
    fake_capture_set_disk(w->source.capture, "vdb", 256u << 10);
    world_plug(w);
    world_guest_writes(w, 40);
    world_protect(w);
    h->world = w;
    *state = h;
    return 0;
}

static int
teardown(void **state)
{
    struct history *h = *state;

    world_free(h->world);
    for (size_t i = 0; i <= N_MODELS; i++)
        world_model_free(&h->at[i]);
    free(h);
    return 0;
}

static struct points *
points_of(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct points *points = NULL;
    struct error *err = NULL;

    assert_ok(replica_points(&w->target.d, r, &points, &err), err);
    return points;
}

static struct store *
store_of(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct store *store = NULL;
    struct error *err = NULL;

    assert_ok(replica_store(&w->target.d, r, &store, &err), err);
    return store;
}

/* One cycle, and what the guest's disks hold then. */
static void
make_point(struct history *h)
{
    AUTOPTR(replication) *r = world_replication(&h->world->target);
    struct error *err = NULL;

    world_guest_writes(h->world, 8);
    assert_ok(world_cycle(h->world, &err), err);
    assert_in_range(r->newest.sequence, 1, N_MODELS);
    world_model_take(h->world, &h->at[r->newest.sequence]);
}

static void
make_points(struct history *h, int n)
{
    while (n-- > 0)
        make_point(h);
}

static void
apply_all(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct error *err = NULL;

    assert_ok(replica_apply(&w->target.d, r, NULL, &err), err);
}

static void
seal(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct store *store = store_of(w);
    struct error *err = NULL;

    apply_all(w);
    replica_lock_tip(r);
    assert_ok(store->ops->seal(store, &err), err);
    replica_unlock_tip(r);
}

static void
failover_is_exact(struct history *h, uint64_t sequence)
{
    AUTOFREE(char) *select =
        mem_printf("{\"type\":\"id\",\"value\":\"%llu\"}", (unsigned long long)sequence);
    struct error *err = NULL;

    assert_ok(world_failover_to(h->world, select, &err), err);
    world_check_overlay(h->world, 2, &h->at[sequence]);
}

/* Without a failover, and without a trace. */
static void
point_is_exact(struct history *h, uint64_t sequence)
{
    AUTOPTR(replication) *r = world_replication(&h->world->target);
    struct store *store = store_of(h->world);
    struct store_overlay wanted = { .id = "failover-99", .seq = sequence };
    struct error *err = NULL;
    char **paths = NULL;
    size_t n = 0;

    replica_lock_tip(r);
    assert_ok(store->ops->overlay_create(store, &wanted, &paths, &n, &err), err);
    world_check_overlay(h->world, 99, &h->at[sequence]);
    assert_ok(store->ops->overlay_remove(store, wanted.id, &err), err);
    replica_unlock_tip(r);
    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
}

static bool
is_whole(struct world *w, uint64_t sequence)
{
    char key[24];
    struct point p;
    bool whole;

    snprintf(key, sizeof key, "%llu", (unsigned long long)sequence);
    if (!points_find(points_of(w), key, &p, NULL))
        return false;
    whole = !p.damaged;
    point_clear(&p);
    return whole;
}

/* --- any point ------------------------------------------------------------------------
 */

static void
a_failover_to_an_older_point_is_exact(void **state)
{
    struct history *h = *state;

    make_points(h, 3);
    seal(h->world);
    make_points(h, 4);
    failover_is_exact(h, 5);
}

static void
every_point_is_exact_whether_it_is_a_mark_or_replayed(void **state)
{
    struct history *h = *state;

    make_points(h, 3);
    seal(h->world);
    make_points(h, 3);
    apply_all(h->world);
    for (uint64_t i = 1; i <= 6; i++)
        point_is_exact(h, i);
}

static void
a_point_that_is_not_there_costs_the_replication_nothing(void **state)
{
    struct history *h = *state;
    struct error *err = NULL;

    make_points(h, 2);
    assert_fails(
        world_failover_to(h->world, "{\"type\":\"tag\",\"value\":\"none\"}", &err), err,
        ERROR_POINT_NOT_FOUND);
    fake_set_state(h->world->source.d.hypervisor, WORLD_VM, HV_STATE_RUNNING);
    make_point(h);
    point_is_exact(h, 3);
}

/* --- retention --------------------------------------------------------------------- */

static void
keep_nothing(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct error *err = NULL;

    pthread_mutex_lock(&r->lock);
    r->retention = (struct retention){ .window_ms = 0 };
    pthread_mutex_unlock(&r->lock);
    assert_ok(upkeep_retain(&w->target.d, r, &err), err);
}

static void
a_held_point_survives_retention_and_goes_when_it_is_released(void **state)
{
    struct history *h = *state;
    AUTOPTR(replication) *r = world_replication(&h->world->target);
    struct point_select select = { .type = SELECT_ID, .key = "3" };
    struct point held;
    struct error *err = NULL;

    make_points(h, 5);
    seal(h->world);
    assert_ok(replica_hold_point(&h->world->target.d, r, h, &select, &held, &err), err);
    keep_nothing(h->world);
    assert_false(is_whole(h->world, 2));
    assert_true(is_whole(h->world, 3));
    assert_false(is_whole(h->world, 4));
    point_is_exact(h, 3);
    replica_release_point(r, h);
    keep_nothing(h->world);
    assert_false(is_whole(h->world, 3));
    point_is_exact(h, 5);
    point_clear(&held);
}

/* As after a restart between the two steps: nobody holds anything any more. */
static void
whoever_holds_anew_does_not_take_away_what_another_holds(void **state)
{
    struct history *h = *state;
    AUTOPTR(replication) *r = world_replication(&h->world->target);
    struct point_select second = { .type = SELECT_ID, .key = "2" };
    struct point_select third = { .type = SELECT_ID, .key = "3" };
    int one, other;
    struct point p;
    struct error *err = NULL;

    make_points(h, 5);
    seal(h->world);
    assert_ok(replica_hold_point(&h->world->target.d, r, &one, &second, &p, &err), err);
    point_clear(&p);
    assert_ok(replica_hold_point(&h->world->target.d, r, &other, &second, &p, &err), err);
    point_clear(&p);
    assert_ok(replica_hold_point(&h->world->target.d, r, &other, &third, &p, &err), err);
    point_clear(&p);
    keep_nothing(h->world);
    assert_true(is_whole(h->world, 2));
    assert_true(is_whole(h->world, 3));
    replica_release_point(r, &one);
    replica_release_point(r, &one);
    keep_nothing(h->world);
    assert_false(is_whole(h->world, 2));
    assert_true(is_whole(h->world, 3));
    replica_release_point(r, &other);
}

/* What comes between the look at the points and the store's turn. */
static struct history *late;
static const struct store_ops *real_ops;

static void *
make_two_marks(void *opaque)
{
    struct history *h = opaque;

    for (int i = 0; i < 2; i++) {
        make_point(h);
        seal(h->world);
    }
    return NULL;
}

/* On a thread of its own, as it is: who has `keep` does not take the tip. */
static bool
points_come_first(struct store *s, const uint64_t *seqs, size_t n, struct error **err)
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, make_two_marks, late), 0);
    pthread_join(thread, NULL);
    return real_ops->retain(s, seqs, n, err);
}

static void
points_that_come_during_retention_stay(void **state)
{
    struct history *h = *state;
    struct store_ops ops;

    make_points(h, 3);
    seal(h->world);
    late = h;
    real_ops = store_of(h->world)->ops;
    ops = *real_ops;
    ops.retain = points_come_first;
    store_of(h->world)->ops = &ops;
    keep_nothing(h->world);
    store_of(h->world)->ops = real_ops;
    assert_false(is_whole(h->world, 2));
    for (uint64_t i = 3; i <= 5; i++) {
        assert_true(is_whole(h->world, i));
        point_is_exact(h, i);
    }
}

/* --- space ---------------------------------------------------------------------------
 */

static enum replica_room
room_after_a_pass(struct world *w, uint64_t quota)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    static struct config_peer peer;

    peer = (struct config_peer){ .name = (char *)(uintptr_t) "alpha",
                                 .may_replicate = true,
                                 .quota_bytes = quota };
    w->target.config.peers = &peer;
    w->target.config.n_peers = 1;
    replica_get(r)->looked_ms = 0; /* it is time for a look */
    upkeep_pass(w->target.d.upkeep, r);
    return r->replica->room;
}

static uint64_t
used_by(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->target);

    for (int i = 0; i < 3; i++) /* until nothing is folded any more */
        assert_int_equal(room_after_a_pass(w, 0), ROOM_ENOUGH);
    return atomic_load(&r->replica->used_bytes);
}

static void
a_shortened_window_is_not_told_again_and_again(void **state)
{
    struct history *h = *state;
    AUTOPTR(replication) *r = world_replication(&h->world->target);
    uint64_t quota;

    make_points(h, 5);
    seal(h->world);
    quota = used_by(h->world) - 10000;
    assert_int_equal(room_after_a_pass(h->world, quota), ROOM_SHORT);
    assert_false(is_whole(h->world, 1));
    assert_int_equal(room_after_a_pass(h->world, quota), ROOM_SHORT);
    assert_non_null(r->replica->room_text);
    make_point(h);
    assert_int_equal(room_after_a_pass(h->world, UINT64_MAX / 32), ROOM_SHORT);
    r->replica->short_ms = units_monotonic_ms() - UPKEEP_SETTLED_MS;
    assert_int_equal(room_after_a_pass(h->world, UINT64_MAX / 32), ROOM_ENOUGH);
    assert_null(r->replica->room_text);
    point_is_exact(h, 6);
}

static void
a_full_storage_pauses_until_there_is_something_to_spare(void **state)
{
    struct history *h = *state;
    struct error *err = NULL;
    uint64_t used;

    make_points(h, 3);
    apply_all(h->world);
    used = used_by(h->world);
    while (room_after_a_pass(h->world, 4096) != ROOM_NONE)
        ;
    assert_true(is_whole(h->world, 3));
    world_guest_writes(h->world, 2);
    assert_fails(world_cycle(h->world, &err), err, ERROR_NO_SPACE);
    assert_int_equal(room_after_a_pass(h->world, used), ROOM_NONE);
    assert_int_equal(room_after_a_pass(h->world, 2 * used), ROOM_ENOUGH);
    assert_ok(world_recover(h->world, 3, &err), err);
}

static void
a_first_sync_beyond_the_quota_is_paused(void **state)
{
    struct history *h = *state;
    AUTOPTR(replication) *a = world_replication(&h->world->source);
    struct cancel cancel = { 0 };
    struct error *err = NULL;
    bool more = false;

    assert_ok(cycle_run(&h->world->source.d, a, &cancel, &more, &err), err);
    assert_true(more);
    assert_int_equal(room_after_a_pass(h->world, 4096), ROOM_NONE);
    assert_fails(cycle_run(&h->world->source.d, a, &cancel, &more, &err), err,
                 ERROR_NO_SPACE);
    assert_int_equal(room_after_a_pass(h->world, 0), ROOM_ENOUGH);
    a->agreed = false;
    make_point(h);
    apply_all(h->world);
    point_is_exact(h, 1);
}

/* --- damage ------------------------------------------------------------------------ */

static void
damage_journal(struct world *w, uint64_t sequence)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    AUTOFREE(char) *path =
        mem_printf("%s/journal/%012llu", r->folder, (unsigned long long)sequence);
    AUTOFD(fd) = open(path, O_RDWR | O_CLOEXEC);
    off_t at = lseek(fd, 0, SEEK_END) / 2;
    char byte;

    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte = (char)~byte;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

static void
converges(struct history *h)
{
    AUTOPTR(replication) *a = world_replication(&h->world->source);
    AUTOPTR(replication) *b = world_replication(&h->world->target);
    struct error *err = NULL;

    world_guest_writes(h->world, 8);
    assert_ok(world_recover(h->world, 4, &err), err);
    assert_int_equal(a->phase, PHASE_REPLICATING);
    assert_int_equal(b->phase, PHASE_REPLICATING);
    assert_string_equal(a->newest.name, b->newest.name);
    assert_false(replica_tip_is_broken(b));
    world_model_take(h->world, &h->at[b->newest.sequence]);
    apply_all(h->world);
    world_check_tip(h->world, &h->at[b->newest.sequence]);
    make_point(h);
    apply_all(h->world);
    world_check_tip(h->world, &h->at[b->newest.sequence]);
}

/* The apply's worker waits for the tip meanwhile. */
static void
make_points_unapplied(struct history *h, int n, uint64_t damaged)
{
    AUTOPTR(replication) *r = world_replication(&h->world->target);

    replica_lock_tip(r);
    make_points(h, n);
    damage_journal(h->world, damaged);
    replica_unlock_tip(r);
}

static void
a_journal_damaged_before_it_is_applied_costs_only_the_points_that_need_it(void **state)
{
    struct history *h = *state;
    AUTOPTR(replication) *r = world_replication(&h->world->target);
    struct error *err = NULL;

    make_points(h, 3);
    apply_all(h->world);
    make_points_unapplied(h, 2, 5);
    assert_fails(replica_apply(&h->world->target.d, r, NULL, &err), err, ERROR_CHECKSUM);
    assert_true(replica_tip_is_broken(r));
    assert_false(is_whole(h->world, 5));
    for (uint64_t i = 1; i <= 4; i++)
        point_is_exact(h, i);
    converges(h);
    assert_false(is_whole(h->world, 5));
    for (uint64_t i = 1; i <= 4; i++) {
        assert_true(is_whole(h->world, i));
        point_is_exact(h, i);
    }
    failover_is_exact(h, r->newest.sequence);
}

static void
damaged_newest_disks_are_sent_anew_and_no_whole_point_is_lost(void **state)
{
    struct history *h = *state;
    AUTOPTR(replication) *r = world_replication(&h->world->target);

    make_points(h, 4);
    apply_all(h->world);
    replica_set_damaged(&h->world->target.d, r, "a test says so");
    converges(h);
    for (uint64_t i = 1; i <= 4; i++) {
        assert_true(is_whole(h->world, i));
        point_is_exact(h, i);
    }
    failover_is_exact(h, 2);
}

static void
whole_points_that_wait_are_not_dropped_with_damaged_disks(void **state)
{
    struct history *h = *state;
    AUTOPTR(replication) *r = world_replication(&h->world->target);

    make_points(h, 2);
    apply_all(h->world);
    replica_lock_tip(r);
    make_points(h, 2);
    replica_set_damaged(&h->world->target.d, r, "a test says so");
    replica_unlock_tip(r);
    converges(h);
    for (uint64_t i = 1; i <= 4; i++) {
        assert_true(is_whole(h->world, i));
        point_is_exact(h, i);
    }
}

static void
a_target_that_starts_again_while_it_is_damaged_converges(void **state)
{
    struct history *h = *state;
    AUTOPTR(replication) *r = world_replication(&h->world->target);

    make_points(h, 3);
    apply_all(h->world);
    make_points_unapplied(h, 1, 4);
    (void)replica_apply(&h->world->target.d, r, NULL, NULL);
    replication_unref(TAKE(r));
    world_close_target(h->world);
    world_open_target(h->world);
    (void)world_cycle(h->world, NULL); /* its connection is gone */
    converges(h);
    for (uint64_t i = 1; i <= 3; i++)
        point_is_exact(h, i);
}

static void
a_failover_while_it_is_damaged_gives_the_newest_whole_point(void **state)
{
    struct history *h = *state;
    AUTOPTR(replication) *r = world_replication(&h->world->target);
    struct error *err = NULL;

    make_points(h, 3);
    apply_all(h->world);
    make_points_unapplied(h, 2, 4);
    assert_fails(replica_apply(&h->world->target.d, r, NULL, &err), err, ERROR_CHECKSUM);
    assert_ok(world_failover(h->world, &err), err);
    world_check_overlay(h->world, 2, &h->at[3]);
}

/* --- clocks ------------------------------------------------------------------------ */

static void
after_the_sources_clock_stepped_back_points_stay_selectable(void **state)
{
    struct history *h = *state;
    AUTOPTR(replication) *r = world_replication(&h->world->target);
    struct point *list;
    struct error *err = NULL;
    int64_t time_ms;
    size_t n;
    AUTOFREE(char) *before = NULL;

    make_points(h, 2);
    fake_capture_set_ahead(h->world->source.capture, -3600 * 1000);
    make_points(h, 2);
    list = points_list(points_of(h->world), &n);
    assert_int_equal(n, 4);
    for (size_t i = 1; i < n; i++)
        assert_true(list[i].time_ms >= list[i - 1].time_ms);
    time_ms = list[1].time_ms;
    points_list_free(list, n);
    assert_ok(upkeep_retain(&h->world->target.d, r, &err), err);
    fake_capture_set_ahead(h->world->source.capture, 0);
    make_point(h);
    for (uint64_t i = 1; i <= 5; i++)
        assert_true(is_whole(h->world, i));
    before = mem_printf("{\"type\":\"at\",\"value\":%lld}", (long long)time_ms);
    assert_ok(world_failover_to(h->world, before, &err), err);
    world_check_overlay(h->world, 2, &h->at[4]); /* the newest of those of that time */
}

/* --- who else is at work -------------------------------------------------------------
 */

struct upkeep_thread {
    struct world *world;
    atomic_bool stop;
    unsigned passes;
};

static void *
keep_up(void *opaque)
{
    struct upkeep_thread *t = opaque;
    AUTOPTR(replication) *r = world_replication(&t->world->target);

    while (!atomic_load(&t->stop)) {
        upkeep_pass(t->world->target.d.upkeep, r);
        t->passes++;
        sched_yield();
    }
    return NULL;
}

static void
a_failover_takes_the_store_away_from_the_upkeep(void **state)
{
    struct history *h = *state;
    struct upkeep_thread t = { .world = h->world };
    AUTOPTR(replication) *r = world_replication(&h->world->target);
    pthread_t thread;

    make_points(h, 3);
    assert_int_equal(pthread_create(&thread, NULL, keep_up, &t), 0);
    make_points(h, 3);
    failover_is_exact(h, 4);
    atomic_store(&t.stop, true);
    pthread_join(thread, NULL);
    assert_true(t.passes > 0);
    assert_int_equal(r->phase, PHASE_FAILED_OVER);
    assert_null(r->replica->store);
}

struct reader {
    struct replication *r;
    struct cancel cancel;
    atomic_bool reads;
    struct error *error;
};

/* As a scrub of a large replica: it goes on until it is asked to stop. */
static void *
read_for_long(void *opaque)
{
    struct reader *reader = opaque;

    if (!replica_lock_layers(reader->r, &reader->cancel, &reader->error))
        return NULL;
    atomic_store(&reader->reads, true);
    while (cancel_check(&reader->cancel, NULL))
        sched_yield();
    replica_unlock_layers(reader->r);
    return NULL;
}

static void
a_failover_does_not_wait_for_whoever_reads_the_layers(void **state)
{
    struct history *h = *state;
    struct reader reader = { .r = world_replication(&h->world->target) };
    pthread_t thread;
    int64_t deadline_ms = units_monotonic_ms() + WORLD_DEADLINE;

    make_points(h, 2);
    assert_int_equal(pthread_create(&thread, NULL, read_for_long, &reader), 0);
    while (!atomic_load(&reader.reads)) {
        assert_true(units_monotonic_ms() < deadline_ms);
        sched_yield();
    }
    failover_is_exact(h, 1);
    pthread_join(thread, NULL);
    assert_null(reader.error);
    replication_unref(reader.r);
}

/* A crash came between the document and the folder; the source asks once more. */
static void
a_replica_that_was_not_finished_is_made_when_it_is_asked_for_again(void **state)
{
    struct history *h = *state;
    AUTOPTR(replication) *r = world_replication(&h->world->target);
    struct store_disk disks[] = { { "vda", 512u << 10, NULL },
                                  { "vdb", 256u << 10, NULL } };
    struct replica_request request = { .replication = WORLD_REPLICA,
                                       .vm_uuid = WORLD_VM,
                                       .vm_name = "web01",
                                       .peer_id = WORLD_SOURCE,
                                       .storage = "default",
                                       .rpo_ms = 5000,
                                       .disks = disks,
                                       .n_disks = N_ELEMENTS(disks) };
    struct error *err = NULL;

    files_remove(r->folder);
    replica_get(r); /* as the upkeep does, whatever it finds */
    assert_ok(replica_create(&h->world->target.d, &request, &err), err);
    make_points(h, 2);
    apply_all(h->world);
    point_is_exact(h, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_failover_to_an_older_point_is_exact),
        TEST(every_point_is_exact_whether_it_is_a_mark_or_replayed),
        TEST(a_point_that_is_not_there_costs_the_replication_nothing),
        TEST(a_held_point_survives_retention_and_goes_when_it_is_released),
        TEST(whoever_holds_anew_does_not_take_away_what_another_holds),
        TEST(points_that_come_during_retention_stay),
        TEST(a_shortened_window_is_not_told_again_and_again),
        TEST(a_full_storage_pauses_until_there_is_something_to_spare),
        TEST(a_first_sync_beyond_the_quota_is_paused),
        TEST(a_journal_damaged_before_it_is_applied_costs_only_the_points_that_need_it),
        TEST(damaged_newest_disks_are_sent_anew_and_no_whole_point_is_lost),
        TEST(whole_points_that_wait_are_not_dropped_with_damaged_disks),
        TEST(a_target_that_starts_again_while_it_is_damaged_converges),
        TEST(a_failover_while_it_is_damaged_gives_the_newest_whole_point),
        TEST(after_the_sources_clock_stepped_back_points_stay_selectable),
        TEST(a_failover_takes_the_store_away_from_the_upkeep),
        TEST(a_failover_does_not_wait_for_whoever_reads_the_layers),
        TEST(a_replica_that_was_not_finished_is_made_when_it_is_asked_for_again),
    };

    evthread_use_pthreads();
    world_be_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
