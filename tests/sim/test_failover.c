/* Who may run the VM: the failover, whatever interrupts it, and what the old source
 * hears (I3, I5). */
#include "tests/sim/replicated.h"

#include <event2/thread.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/contact.h"
#include "daemon/cycle.h"
#include "daemon/ops.h"
#include "daemon/replica.h"
#include "tests/sim/files.h"

/* Slices only: the target is in the middle of a resync. */
static void
half_a_resync(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->source);
    struct cancel cancel = { 0 };
    struct error *err = NULL;
    bool more;

    fake_capture_lose(w->source.capture);
    world_guest_writes(w, 60);
    assert_fails(world_cycle(w, &err), err, ERROR_CHECKPOINT_LOST);
    for (int i = 0; i < 2; i++)
        assert_ok(cycle_run(&w->source.d, r, &cancel, &more, &err), err);
    assert_true(more);
}

/* --- killed after every stored step ---------------------------------------------------
 */

/* What must hold once a failover has come to its end, by whatever way. */
static void
failed_over_exactly_once(struct world *w, const struct world_model *m)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    AUTOPTR(guard_record) *record = NULL;
    struct error *err = NULL;

    assert_int_equal(world_starts(w), 1);
    world_check_overlay(w, 2, m);
    assert_int_equal(r->phase, PHASE_FAILED_OVER);
    assert_int_equal(r->epoch, 2);
    assert_ok(guard_read(&w->target.d.guard, WORLD_VM, &record, &err), err);
    assert_true(record->may_run);
    assert_int_equal(record->epoch, 2);
}

/* Once before each step, once at the end, and what the steps store themselves. */
static void
kill_everywhere(struct world *w, const struct world_model *m)
{
    killed_at_each_commit(w, "failover", count_steps(&op_failover) + 1, m,
                          failed_over_exactly_once);
}

static void
a_failover_killed_at_each_commit_goes_on_and_starts_the_vm_once(void **state)
{
    struct world *w = *state;
    struct world_model m;

    world_model_take(w, &m);
    kill_everywhere(w, &m);
    world_model_free(&m);
}

static void
a_failover_during_a_resync_killed_at_each_commit_gives_the_old_point(void **state)
{
    struct world *w = *state;
    struct world_model m;

    world_model_take(w, &m);
    half_a_resync(w);
    kill_everywhere(w, &m);
    world_model_free(&m);
}

/* --- commits that fail
 * ------------------------------------------------------------------ */

/* note_start() of the world sees to the order; this sees to the end. */
static void
a_failover_of_which_any_commit_fails_can_be_run_again(void **state)
{
    struct world *w = *state;
    struct world_model m;
    struct error *err = NULL;

    world_model_take(w, &m);
    world_close_source(w);
    world_close_target(w);
    world_save_target(w);
    for (unsigned n = 1; n <= count_steps(&op_failover) + 2; n++) {
        world_open_target(w);
        w->target.state.fate = FATE_FAIL;
        w->target.state.left = n;
        if (n > 1 && !world_failover(w, NULL)) {
            w->target.state.left = 0;
            assert_ok(world_failover(w, &err), err);
        }
        if (n > 1)
            failed_over_exactly_once(w, &m);
        world_close_target(w);
        world_restore_target(w);
    }
    world_open_target(w);
    world_open_source(w);
    world_model_free(&m);
}

static void
a_hypervisor_that_fails_at_any_call_is_asked_again(void **state)
{
    static const enum fake_call calls[] = { FAKE_ADAPT, FAKE_DEFINE, FAKE_SET_AUTOSTART,
                                            FAKE_START };
    struct world *w = *state;
    struct error *err = NULL;

    for (size_t i = 0; i < N_ELEMENTS(calls); i++) {
        fake_fail(w->target.d.hypervisor, calls[i], 1, ERROR_HYPERVISOR);
        assert_fails(world_failover(w, &err), err, ERROR_HYPERVISOR);
        assert_int_equal(world_starts(w), 0);
    }
    assert_ok(world_failover(w, &err), err);
    assert_int_equal(world_starts(w), 1);
}

static void
without_a_point_there_is_no_failover(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct error *err = NULL;
    struct points *points;

    assert_ok(replica_points(&w->target.d, r, &points, &err), err);
    assert_ok(points_remove_all(points, &err), err);
    assert_fails(world_failover(w, &err), err, ERROR_POINT_NOT_FOUND);
    assert_int_equal(r->epoch, 1);
    assert_int_equal(world_starts(w), 0);
}

/* --- afterwards nothing travels
 * ------------------------------------------------------------ */

static void
the_old_source_hears_of_it_in_its_next_cycle_and_sends_nothing(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct error *err = NULL;
    char newest[CAPTURE_NAME_MAX + 1];

    memcpy(newest, b->newest.name, sizeof newest);
    assert_ok(world_failover(w, &err), err);
    fake_set_state(w->target.d.hypervisor, WORLD_VM, HV_STATE_OFF);
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_RUNNING);
    a->agreed = false; /* it asks, as after any failure */
    world_guest_writes(w, 5);
    assert_fails(world_cycle(w, &err), err, ERROR_EPOCH);
    assert_int_equal(a->phase, PHASE_SUPERSEDED);
    assert_int_equal(a->epoch, 2);
    assert_fails(guard_judge(&w->source.d.guard, WORLD_VM, &err), err, ERROR_GUARD);
    for (int i = 0; i < 2; i++) /* now it knows the epoch, and still may not */
        assert_fails(world_cycle(w, &err), err, ERROR_INVALID_STATE);
    assert_string_equal(b->newest.name, newest);
}

static void
a_delta_of_the_old_epoch_is_refused(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    uint64_t sequence = b->newest.sequence;
    struct error *err = NULL;

    assert_ok(world_failover(w, &err), err);
    fake_set_state(w->target.d.hypervisor, WORLD_VM, HV_STATE_OFF);
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_RUNNING);
    world_guest_writes(w, 5);
    assert_fails(world_cycle(w, &err), err, ERROR_EPOCH); /* it believed to agree */
    assert_int_equal(b->newest.sequence, sequence);
}

/* --- a failover while an exchange waits for its turn
 * ----------------------------------------- */

struct cycle_thread {
    struct world *world;
    struct error *error;
    bool ok;
};

static void *
run_cycle(void *opaque)
{
    struct cycle_thread *t = opaque;

    t->ok = world_cycle(t->world, &t->error);
    return NULL;
}

/* The exchange was admitted, and is asking whoever holds the claim to stop. */
static void
wait_until_asked_to_stop(struct cancel *cancel)
{
    int64_t deadline_ms = units_monotonic_ms() + WORLD_DEADLINE;

    while (!atomic_load(&cancel->requested)) {
        assert_true(units_monotonic_ms() < deadline_ms);
        sched_yield();
    }
}

static void
raised_while_an_exchange_waits(struct world *w)
{
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct cycle_thread t = { .world = w };
    struct cancel cancel = { 0 };
    struct error *err = NULL;
    pthread_t thread;

    assert_ok(replication_claim(b, &cancel, false, &err), err);
    assert_int_equal(pthread_create(&thread, NULL, run_cycle, &t), 0);
    wait_until_asked_to_stop(&cancel);
    pthread_mutex_lock(&b->lock);
    b->epoch++;
    b->phase = PHASE_FAILING_OVER;
    pthread_mutex_unlock(&b->lock);
    replication_release(b);
    pthread_join(thread, NULL);
    assert_false(t.ok);
    assert_int_equal(error_code(t.error), ERROR_EPOCH);
    error_free(t.error);
    assert_int_equal(b->phase, PHASE_FAILING_OVER);
}

static void
a_slice_that_waited_for_its_turn_is_refused_by_the_new_epoch(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct world_model m;
    struct error *err = NULL;

    world_model_take(w, &m);
    fake_capture_lose(w->source.capture);
    world_guest_writes(w, 60);
    assert_fails(world_cycle(w, &err), err, ERROR_CHECKPOINT_LOST);
    a->agreed = true; /* a slice comes first, not a question */
    raised_while_an_exchange_waits(w);
    assert_string_equal(b->sync.name, "");
    world_check_tip(w, &m);
    world_model_free(&m);
}

static void
a_delta_that_waited_for_its_turn_is_refused_by_the_new_epoch(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    uint64_t sequence = b->newest.sequence;

    world_guest_writes(w, 5);
    raised_while_an_exchange_waits(w);
    assert_int_equal(b->newest.sequence, sequence);
}

/* --- contacts
 * ------------------------------------------------------------------------------- */

/* Runs fn with standard error in a file; what was logged, the caller's to free. */
static char *
logged_by(struct world *w, void (*fn)(struct world *w))
{
    AUTOFREE(char) *path = mem_printf("%s/log", w->folder);
    int saved = dup(STDERR_FILENO);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(saved >= 0 && fd >= 0);
    dup2(fd, STDERR_FILENO);
    fn(w);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(fd);
    return file_read(path);
}

static struct json_object *
saying(uint64_t epoch)
{
    struct json_object *o = json_object_new_object();
    struct json_object *list = json_object_new_array();
    struct json_object *r = json_object_new_object();

    json_set_string(r, "id", WORLD_REPLICA);
    json_set_string(r, "side", "target");
    json_set_u64(r, "epoch", epoch);
    json_object_array_add(list, r);
    json_set(o, "replications", list);
    return o;
}

static void
hear_of_epoch_two(struct world *w)
{
    AUTOJSON *said = saying(2);

    contact_hear(&w->source.d, WORLD_TARGET, said);
}

static void
a_superseded_source_forbids_the_start_and_cries_if_the_vm_runs(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);
    AUTOFREE(char) *first = logged_by(w, hear_of_epoch_two);
    AUTOFREE(char) *again = NULL;
    AUTOFREE(char) *stopped = NULL;

    assert_int_equal(a->phase, PHASE_SUPERSEDED);
    assert_int_equal(a->epoch, 2);
    assert_false(guard_judge(&w->source.d.guard, WORLD_VM, NULL));
    assert_non_null(strstr(first, "superseded"));
    assert_non_null(strstr(first, "split-brain"));
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_OFF);
    stopped = logged_by(w, hear_of_epoch_two);
    assert_null(strstr(stopped, "split-brain"));
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_RUNNING);
    again = logged_by(w, hear_of_epoch_two); /* each time it begins */
    assert_non_null(strstr(again, "split-brain"));
}

/* The guard refuses whatever of the two writes was cut off. */
static void
a_superseded_source_refuses_the_start_also_if_its_state_cannot_be_stored(void **state)
{
    struct world *w = *state;
    AUTOJSON *said = saying(2);

    w->source.state.fate = FATE_FAIL;
    w->source.state.left = 1;
    contact_hear(&w->source.d, WORLD_TARGET, said);
    assert_false(guard_judge(&w->source.d.guard, WORLD_VM, NULL));
    world_close_source(w);
    world_open_source(w);
    assert_false(guard_judge(&w->source.d.guard, WORLD_VM, NULL));
    contact_hear(&w->source.d, WORLD_TARGET, said);
    AUTOPTR(replication) *a = world_replication(&w->source);
    assert_int_equal(a->phase, PHASE_SUPERSEDED);
}

static void
after_a_boot_the_same_epoch_starts_a_vm_with_autostart_once(void **state)
{
    struct world *w = *state;
    struct hypervisor *hv = w->source.d.hypervisor;
    AUTOFREE(char) *confirmation =
        mem_printf("%s/%s", w->source.d.guard.confirmations, WORLD_VM);
    unsigned starts = fake_starts(hv, WORLD_VM);
    AUTOJSON *said = saying(1);
    struct error *err = NULL;

    fake_set_state(hv, WORLD_VM, HV_STATE_OFF);
    assert_ok(hv->ops->set_autostart(hv, WORLD_VM, true, &err), err);
    assert_int_equal(unlink(confirmation), 0); /* a boot empties /run */
    assert_false(guard_judge(&w->source.d.guard, WORLD_VM, NULL));
    contact_hear(&w->source.d, WORLD_TARGET, said);
    assert_int_equal(fake_starts(hv, WORLD_VM), starts + 1);
    assert_true(guard_judge(&w->source.d.guard, WORLD_VM, NULL));
    fake_set_state(hv, WORLD_VM, HV_STATE_OFF); /* somebody shut it down */
    contact_hear(&w->source.d, WORLD_TARGET, said);
    assert_int_equal(fake_starts(hv, WORLD_VM), starts + 1);
}

/* Forgets the confirmation, hears, and says whether the VM may start then. */
static bool
confirms(struct world *w, const char *peer, const char *text)
{
    AUTOFREE(char) *confirmation =
        mem_printf("%s/%s", w->source.d.guard.confirmations, WORLD_VM);
    AUTOJSON *said = json_tokener_parse(text);

    assert_non_null(said);
    unlink(confirmation);
    contact_hear(&w->source.d, peer, said);
    return guard_judge(&w->source.d.guard, WORLD_VM, NULL);
}

static void
only_the_target_itself_confirms_and_only_in_so_many_words(void **state)
{
    struct world *w = *state;

    assert_true(confirms(w, WORLD_TARGET,
                         "{\"replications\":[{\"id\":\"" WORLD_REPLICA
                         "\",\"epoch\":1}]}"));
    assert_false(confirms(w, WORLD_SOURCE,
                          "{\"replications\":[{\"id\":\"" WORLD_REPLICA
                          "\",\"epoch\":1}]}"));
    assert_false(confirms(w, WORLD_TARGET,
                          "{\"replications\":[{\"id\":\"" WORLD_REPLICA
                          "\",\"epoch\":0}]}"));
    assert_false(confirms(w, WORLD_TARGET, "{}"));
    assert_false(confirms(w, WORLD_TARGET, "{\"replications\":\"none\"}"));
    /* It may have failed the VM over and ended the replication since. */
    assert_false(confirms(w, WORLD_TARGET, "{\"replications\":[]}"));
}

static void
what_is_said_of_each_replication_goes_to_its_own_peer_only(void **state)
{
    struct world *w = *state;
    AUTOJSON *mine = contact_say(&w->source.d, WORLD_TARGET);
    AUTOJSON *other = contact_say(&w->source.d, WORLD_SOURCE);
    struct json_object *list = json_array_or_null(mine, "replications");
    struct json_object *r;

    assert_int_equal(json_object_array_length(list), 1);
    r = json_object_array_get_idx(list, 0);
    assert_string_equal(json_string_or(r, "id", ""), WORLD_REPLICA);
    assert_string_equal(json_string_or(r, "side", ""), "source");
    assert_int_equal(json_int_or(r, "epoch", 0), 1);
    assert_true(json_bool_or(r, "running", false));
    assert_int_equal(json_object_array_length(json_array_or_null(other, "replications")),
                     0);
}

#define TEST(name) \
    cmocka_unit_test_setup_teardown(name, replicated_setup, replicated_teardown)

int
main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_failover_killed_at_each_commit_goes_on_and_starts_the_vm_once),
        TEST(a_failover_during_a_resync_killed_at_each_commit_gives_the_old_point),
        TEST(a_failover_of_which_any_commit_fails_can_be_run_again),
        TEST(a_hypervisor_that_fails_at_any_call_is_asked_again),
        TEST(without_a_point_there_is_no_failover),
        TEST(the_old_source_hears_of_it_in_its_next_cycle_and_sends_nothing),
        TEST(a_delta_of_the_old_epoch_is_refused),
        TEST(a_slice_that_waited_for_its_turn_is_refused_by_the_new_epoch),
        TEST(a_delta_that_waited_for_its_turn_is_refused_by_the_new_epoch),
        TEST(a_superseded_source_forbids_the_start_and_cries_if_the_vm_runs),
        TEST(a_superseded_source_refuses_the_start_also_if_its_state_cannot_be_stored),
        TEST(after_a_boot_the_same_epoch_starts_a_vm_with_autostart_once),
        TEST(only_the_target_itself_confirms_and_only_in_so_many_words),
        TEST(what_is_said_of_each_replication_goes_to_its_own_peer_only),
    };

    evthread_use_pthreads();
    world_be_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
