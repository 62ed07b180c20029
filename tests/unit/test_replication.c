#include "tests/unit/unit.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/replication.h"
#include "drivers/state/sqlite.h"
#include "tests/sim/files.h"

#define VM          "0b1c2d3e-0000-4000-8000-000000000001"
#define OTHER_VM    "0b1c2d3e-0000-4000-8000-000000000002"
#define ID          "0b1c2d3e-0000-4000-8000-0000000000f1"
#define OTHER_ID    "0b1c2d3e-0000-4000-8000-0000000000f2"
#define PEER        "0b1c2d3e-0000-4000-8000-00000000000b"
#define DEADLINE_MS 60000

struct fixture {
    char folder[64];
    struct state *state;
    struct replications *all;
};

static void
open_all(struct fixture *f)
{
    AUTOFREE(char) *path = mem_printf("%s/state.db", f->folder);
    struct error *err = NULL;

    assert_ok(state_sqlite_open(path, &f->state, &err), err);
    assert_ok(replications_load(f->state, &f->all, &err), err);
}

static void
close_all(struct fixture *f)
{
    replications_free(f->all);
    f->state->ops->close(f->state);
}

static int
setup(void **state)
{
    struct fixture *f = NEW(struct fixture);

    snprintf(f->folder, sizeof f->folder, "/tmp/virt-dr-repl-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    open_all(f);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;

    close_all(f);
    files_remove(f->folder);
    free(f);
    return 0;
}

/* --- documents -----------------------------------------------------------------------
 */

static void
add(struct fixture *f, enum replication_side side, const char *id, const char *vm,
    const char *name)
{
    AUTOPTR(replication) *r = replication_new(side, id, vm, name, PEER);
    struct error *err = NULL;

    assert_ok(replications_add(f->all, r, &err), err);
}

static struct replication *
find(struct fixture *f, const char *key)
{
    struct replication *r = NULL;
    struct error *err = NULL;

    assert_ok(replications_find(f->all, key, &r, &err), err);
    return r;
}

static void
fill(struct replication *r)
{
    struct json_object *disk = json_object_new_object();

    json_set_string(disk, "target", "vda");
    json_object_array_add(r->disks, disk);
    json_append_string(r->excluded, "vdb");
    json_append_string(r->stale, "old-one");
    r->phase = PHASE_RESYNCING;
    r->paused = true;
    r->epoch = 9;
    r->rpo_ms = 1234;
    r->contact_ms = 77;
    mem_setstr(&r->storage, "fast");
    mem_setstr(&r->folder, "/replicas/x");
    r->newest = (struct replication_point){ .name = "p-new",
                                            .sequence = 12,
                                            .time_ms = 1700000000000,
                                            .record = "p-old",
                                            .generation = UINT64_MAX };
    r->pending =
        (struct replication_point){ .name = "p-next", .sequence = 13, .time_ms = 5 };
    r->sync = (struct replication_sync){ .name = "s-1",
                                         .target = "vdc",
                                         .offset = 1ull << 40,
                                         .complete = true,
                                         .compare = true,
                                         .generation = 7,
                                         .done_bytes = 1000,
                                         .total_bytes = 2000,
                                         .started_ms = 3000 };
    r->resync = (struct replication_resync){ 10, 20, true, true, true,
                                             60, 30, 40,   50,   "because" };
    r->verify = (struct replication_verify){ 60, 70, true, 80, 90, 100 };
    r->stats.cycles = 3;
    r->stats.wire_bytes = 1ull << 50;
    r->stats.rpo_seen_ms = 4321;
}

static void
everything_stored_survives_a_restart(void **state)
{
    struct fixture *f = *state;
    AUTOPTR(replication) *r = NULL;
    struct error *err = NULL;
    int64_t created_ms;

    add(f, SIDE_TARGET, ID, VM, "web01");
    r = find(f, ID);
    created_ms = r->created_ms;
    fill(r);
    pthread_mutex_lock(&r->lock);
    assert_ok(replication_store(f->all, r, NULL, 0, &err), err);
    pthread_mutex_unlock(&r->lock);
    replication_unref(TAKE(r));
    close_all(f);
    open_all(f);
    r = find(f, ID);
    assert_int_equal(r->side, SIDE_TARGET);
    assert_string_equal(r->vm_uuid, VM);
    assert_string_equal(r->vm_name, "web01");
    assert_string_equal(r->peer_id, PEER);
    assert_int_equal(r->created_ms, created_ms);
    assert_int_equal(r->phase, PHASE_RESYNCING);
    assert_true(r->paused);
    assert_int_equal(r->epoch, 9);
    assert_int_equal(r->rpo_ms, 1234);
    assert_int_equal(r->contact_ms, 77);
    assert_string_equal(r->storage, "fast");
    assert_string_equal(r->folder, "/replicas/x");
    assert_string_equal(r->newest.name, "p-new");
    assert_int_equal(r->newest.sequence, 12);
    assert_int_equal(r->newest.time_ms, 1700000000000);
    assert_string_equal(r->newest.record, "p-old");
    assert_int_equal(r->newest.generation, UINT64_MAX);
    assert_string_equal(r->pending.name, "p-next");
    assert_string_equal(r->sync.name, "s-1");
    assert_string_equal(r->sync.target, "vdc");
    assert_int_equal(r->sync.offset, 1ull << 40);
    assert_true(r->sync.complete);
    assert_int_equal(r->sync.done_bytes, 1000);
    assert_true(r->sync.compare);
    assert_int_equal(r->resync.started_ms, 10);
    assert_int_equal(r->resync.ended_ms, 20);
    assert_true(r->resync.compare && r->resync.records && r->resync.at_once);
    assert_int_equal(r->resync.held_until_ms, 60);
    assert_int_equal(r->resync.looked_bytes, 30);
    assert_int_equal(r->resync.sent_bytes, 40);
    assert_int_equal(r->resync.wire_bytes, 50);
    assert_string_equal(r->resync.reason, "because");
    assert_int_equal(r->verify.started_ms, 60);
    assert_int_equal(r->verify.ended_ms, 70);
    assert_true(r->verify.complete);
    assert_int_equal(r->verify.compared_bytes, 80);
    assert_int_equal(r->verify.different_bytes, 90);
    assert_int_equal(r->verify.differences, 100);
    assert_int_equal(r->stats.cycles, 3);
    assert_int_equal(r->stats.wire_bytes, 1ull << 50);
    assert_int_equal(r->stats.rpo_seen_ms, 4321);
    assert_string_equal(json_text(r->excluded), "[\"vdb\"]");
    assert_string_equal(json_text(r->stale), "[\"old-one\"]");
    assert_string_equal(json_text(r->disks), "[{\"target\":\"vda\"}]");
}

/* What was not compared is neither the same nor different. */
static void
a_verification_has_three_outcomes(void **state UNUSED)
{
    struct replication_verify v = { .complete = true };

    assert_string_equal(replication_verify_outcome(&v), "same");
    v.complete = false;
    assert_string_equal(replication_verify_outcome(&v), "unfinished");
    v.different_bytes = 1;
    assert_string_equal(replication_verify_outcome(&v), "different");
}

static void
each_phase_survives_a_restart(void **state)
{
    struct fixture *f = *state;

    add(f, SIDE_SOURCE, ID, VM, "web01");
    for (int phase = PHASE_INITIAL_SYNC; phase <= PHASE_REMOVING; phase++) {
        AUTOPTR(replication) *r = find(f, ID);
        struct error *err = NULL;

        r->phase = (enum replication_phase)phase;
        assert_ok(replication_store(f->all, r, NULL, 0, &err), err);
        replication_unref(TAKE(r));
        close_all(f);
        open_all(f);
        r = find(f, ID);
        assert_int_equal(r->phase, phase);
    }
}

static void
it_is_found_by_id_name_and_uuid_and_a_vm_is_there_once(void **state)
{
    struct fixture *f = *state;
    const char *const keys[] = { ID, VM, "web01" };
    AUTOPTR(replication) *twice =
        replication_new(SIDE_TARGET, OTHER_ID, VM, "other", PEER);
    struct replication *none = NULL;
    struct error *err = NULL;

    add(f, SIDE_SOURCE, ID, VM, "web01");
    add(f, SIDE_TARGET, OTHER_ID, OTHER_VM, "web02");
    for (size_t i = 0; i < N_ELEMENTS(keys); i++) {
        AUTOPTR(replication) *r = find(f, keys[i]);

        assert_string_equal(r->id, ID);
    }
    assert_fails(replications_add(f->all, twice, &err), err, ERROR_EXISTS);
    assert_fails(replications_find(f->all, "web03", &none, &err), err,
                 ERROR_REPLICATION_NOT_FOUND);
    assert_fails(replications_find(f->all, "", &none, &err), err,
                 ERROR_REPLICATION_NOT_FOUND);
}

static void
a_removed_one_is_gone_after_a_restart_too(void **state)
{
    struct fixture *f = *state;
    AUTOPTR(replication) *r = NULL;
    struct replication *none = NULL;
    struct error *err = NULL;

    add(f, SIDE_SOURCE, ID, VM, "web01");
    r = find(f, ID);
    assert_ok(replications_remove(f->all, r, &err), err);
    assert_false(replication_try_claim(r, NULL));
    assert_fails(replication_claim(r, NULL, false, &err), err,
                 ERROR_REPLICATION_NOT_FOUND);
    assert_false(replications_find(f->all, ID, &none, NULL));
    close_all(f);
    open_all(f);
    assert_false(replications_find(f->all, ID, &none, NULL));
}

static void
a_new_name_is_found_and_the_old_one_stays_readable(void **state)
{
    struct fixture *f = *state;
    AUTOPTR(replication) *r = NULL;
    AUTOPTR(replication) *again = NULL;
    const char *borrowed;

    add(f, SIDE_SOURCE, ID, VM, "web01");
    r = find(f, ID);
    borrowed = replication_log(r).vm;
    pthread_mutex_lock(&r->lock);
    replication_rename(r, "web01"); /* the same: nothing happens */
    assert_int_equal(r->n_former_names, 0);
    replication_rename(r, "mail");
    replication_rename(r, "web99");
    pthread_mutex_unlock(&r->lock);
    assert_string_equal(borrowed, "web01");
    again = find(f, "web99");
    assert_ptr_equal(again, r);
    assert_false(replications_find(f->all, "web01", &again, NULL));
}

/* --- what is refused -------------------------------------------------------------------
 */

/* The table is tested by test_states. */
static void
what_is_refused_names_the_operation_the_vm_and_what_is_allowed(void **state UNUSED)
{
    AUTOPTR(replication) *r = replication_new(SIDE_TARGET, ID, VM, "web01", PEER);
    struct error *err = NULL;

    r->phase = PHASE_REPLICATING;
    assert_ok(replication_allows(r, "failover", &err), err);
    r->phase = PHASE_FAILED_OVER;
    assert_false(replication_allows(r, "failover", &err));
    assert_non_null(strstr(error_message(err), "'failover'"));
    assert_non_null(strstr(error_message(err), "'web01'"));
    assert_non_null(strstr(error_message(err), "'failed-over'"));
    assert_non_null(strstr(error_message(err), "undo"));
    assert_fails(false, err, ERROR_INVALID_STATE);
    assert_false(replication_allows(r, "resync", &err));
    assert_non_null(strstr(error_message(err), "on the other host"));
    assert_fails(false, err, ERROR_INVALID_STATE);
}

/* --- claims
 * ----------------------------------------------------------------------------------- */

struct worker {
    struct replication *r;
    struct cancel cancel;
    _Atomic bool works;
};

/* Works until somebody asks it to stop. */
static void *
work(void *opaque)
{
    struct worker *w = opaque;

    if (!replication_claim(w->r, &w->cancel, false, NULL))
        return NULL;
    w->works = true;
    while (cancel_check(&w->cancel, NULL))
        sched_yield();
    replication_release(w->r);
    return NULL;
}

static void
a_claim_stops_the_worker_if_it_is_told_to(void **state UNUSED)
{
    AUTOPTR(replication) *r = replication_new(SIDE_SOURCE, ID, VM, "web01", PEER);
    struct worker w = { .r = r };
    struct cancel patience = { 0 };
    struct error *err = NULL;
    pthread_t thread;

    cancel_set_timeout(&w.cancel, DEADLINE_MS); /* a test that fails ends too */
    assert_int_equal(pthread_create(&thread, NULL, work, &w), 0);
    while (!w.works)
        sched_yield();
    assert_false(replication_try_claim(r, NULL));
    cancel_set_timeout(&patience, 50);
    assert_fails(replication_claim(r, &patience, false, &err), err, ERROR_TIMEOUT);
    assert_false(atomic_load(&w.cancel.requested));
    cancel_set_timeout(&patience, DEADLINE_MS / 2);
    assert_ok(replication_claim(r, &patience, true, &err), err);
    assert_true(atomic_load(&w.cancel.requested));
    assert_false(replication_try_claim(r, NULL));
    replication_release(r);
    pthread_join(thread, NULL);
    assert_true(replication_try_claim(r, NULL));
    replication_release(r);
}

static void
errors_count_until_one_try_succeeds(void **state UNUSED)
{
    AUTOPTR(replication) *r = replication_new(SIDE_SOURCE, ID, VM, "web01", PEER);

    for (unsigned i = 1; i <= 3; i++) {
        struct error *e = NULL;

        error_set(&e, ERROR_CONNECT, "nobody there");
        replication_set_error(r, e);
        assert_int_equal(r->failures_in_row, i);
        assert_true(r->error_ms > 0);
    }
    replication_set_error(r, NULL);
    assert_int_equal(r->failures_in_row, 0);
    assert_null(r->error);
    assert_int_equal(r->stats.failures, 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(everything_stored_survives_a_restart),
        TEST(a_verification_has_three_outcomes),
        TEST(each_phase_survives_a_restart),
        TEST(it_is_found_by_id_name_and_uuid_and_a_vm_is_there_once),
        TEST(a_removed_one_is_gone_after_a_restart_too),
        TEST(a_new_name_is_found_and_the_old_one_stays_readable),
        cmocka_unit_test(what_is_refused_names_the_operation_the_vm_and_what_is_allowed),
        cmocka_unit_test(a_claim_stops_the_worker_if_it_is_told_to),
        cmocka_unit_test(errors_count_until_one_try_succeeds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
