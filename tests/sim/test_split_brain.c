/* Both hosts run the VM: each says so when they meet, one stands still, an operator
 * chooses, and nothing that either has written is lost (I3, I5). */
#include "tests/sim/replicated.h"

#include <event2/thread.h>
#include <sys/stat.h>

#include "common/json.h"
#include "daemon/contact.h"
#include "daemon/guard_override.h"
#include "daemon/kept.h"
#include "daemon/ops.h"
#include "daemon/replica.h"
#include "daemon/replication_view.h"
#include "daemon/tasks.h"
#include "tests/sim/files.h"

/* What each says goes to the other, as in one contact. */
static void
meet(struct world *w)
{
    AUTOJSON *a = contact_say(&w->source.d, WORLD_TARGET);
    AUTOJSON *b;

    contact_hear(&w->target.d, WORLD_SOURCE, a);
    b = contact_say(&w->target.d, WORLD_SOURCE);
    contact_hear(&w->source.d, WORLD_TARGET, b);
}

static enum hv_state
state_at(struct world_host *h)
{
    AUTOPTR(hv_domain) *domain = NULL;
    struct hypervisor *hv = h->d.hypervisor;

    return hv->ops->lookup(hv, WORLD_VM, &domain, NULL) ? domain->state : HV_STATE_OFF;
}

/* The VM was failed over, and its source is back and runs it, too. */
static void
split(struct world *w)
{
    struct error *err = NULL;

    assert_ok(world_failover(w, &err), err);
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_RUNNING);
}

static const char *
health_of(struct world_host *h, struct json_object **keep)
{
    AUTOPTR(replication) *r = world_replication(h);
    struct json_object *reasons;

    *keep = replication_view(&h->d, r);
    reasons = json_array_or_null(*keep, "healthReasons");
    assert_string_equal(json_string_or(*keep, "overallHealth", ""), "red");
    return json_object_get_string(json_object_array_get_idx(reasons, 0));
}

/* --- the alarm ------------------------------------------------------------------------
 */

static void
both_sides_know_at_their_first_meeting(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);
    AUTOPTR(replication) *b = world_replication(&w->target);
    AUTOJSON *view_a = NULL;
    AUTOJSON *view_b = NULL;

    split(w);
    meet(w);
    meet(w); /* the source was superseded in the first; the target heard before that */
    assert_true(a->split_brain);
    assert_true(b->split_brain);
    assert_non_null(strstr(health_of(&w->source, &view_a), "SPLIT BRAIN"));
    assert_non_null(strstr(health_of(&w->target, &view_b), "SPLIT BRAIN"));
    assert_true(json_bool_or(view_a, "isSplitBrain", false));
}

static void
the_side_without_the_epoch_is_suspended(void **state)
{
    struct world *w = *state;

    split(w);
    meet(w);
    assert_int_equal(state_at(&w->source), HV_STATE_PAUSED);
    assert_int_equal(state_at(&w->target), HV_STATE_RUNNING);
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_RUNNING); /* somebody did */
    meet(w);
    assert_int_equal(state_at(&w->source), HV_STATE_PAUSED);
}

static void
with_policy_alarm_both_go_on(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);

    w->source.config.split_brain = SPLIT_BRAIN_ALARM;
    split(w);
    meet(w);
    assert_true(a->split_brain);
    assert_int_equal(state_at(&w->source), HV_STATE_RUNNING);
    assert_int_equal(state_at(&w->target), HV_STATE_RUNNING);
}

static void
an_override_that_allows_does_not_save_it_from_being_suspended(void **state)
{
    struct world *w = *state;
    struct guard_override o = { .allow = true,
                                .by = (char[]){ "ann" },
                                .reason = (char[]){ "the link is cut" } };
    struct error *err = NULL;

    assert_ok(guard_override_set(&w->source.d.guard, WORLD_VM, &o, &err), err);
    split(w);
    meet(w);
    assert_int_equal(state_at(&w->source), HV_STATE_PAUSED);
    assert_fails(guard_judge(&w->source.d.guard, WORLD_VM, &err), err, ERROR_GUARD);
}

static void
a_replica_that_was_started_by_hand_is_the_one_that_stands_still(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);
    AUTOPTR(replication) *b = world_replication(&w->target);
    AUTOPTR(hv_domain) *domain = NULL;
    struct error *err = NULL;

    assert_ok(w->source.d.hypervisor->ops->lookup(w->source.d.hypervisor, WORLD_VM,
                                                  &domain, &err),
              err);
    assert_ok(fake_add(w->target.d.hypervisor, domain->xml, &err), err);
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_RUNNING);
    fake_set_state(w->target.d.hypervisor, WORLD_VM, HV_STATE_RUNNING);
    atomic_store(&b->has_run, true); /* as libvirt's event says */
    assert_ok(world_cycle(w, &err), err);
    meet(w);
    assert_true(a->split_brain);
    assert_true(b->split_brain);
    assert_int_equal(state_at(&w->source), HV_STATE_RUNNING);
    assert_int_equal(state_at(&w->target), HV_STATE_PAUSED);
    assert_int_equal(a->epoch, 1);
}

static void
it_is_over_when_one_of_them_has_ended(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);
    AUTOPTR(replication) *b = world_replication(&w->target);

    split(w);
    meet(w);
    meet(w);
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_OFF);
    meet(w);
    assert_false(a->split_brain);
    assert_false(b->split_brain);
}

/* --- the target gives up
 * -----------------------------------------------------------------
 */

static char *
overlay_path(struct world *w, const char *id, const char *name)
{
    AUTOPTR(replication) *r = world_replication(&w->target);

    return mem_printf("%s/overlay/%s/%s", r->folder, id, name);
}

static bool
exists(struct world *w, const char *id, const char *name)
{
    AUTOFREE(char) *path = overlay_path(w, id, name);
    struct stat st;

    return stat(path, &st) == 0;
}

static struct json_object *
kept_of(struct replication *r)
{
    struct json_object *items = json_object_new_array();

    kept_list(r, items);
    return items;
}

/* It is a replica again, and has one more thing: what it gave up. */
static void
gave_up(struct world *w, const struct world_model *m)
{
    AUTOPTR(replication) *b = world_replication(&w->target);
    AUTOJSON *kept = kept_of(b);
    struct error *err = NULL;

    assert_int_equal(b->phase, PHASE_REPLICATING);
    assert_int_equal(b->epoch, 3);
    assert_int_equal(state_at(&w->target), HV_STATE_OFF);
    assert_fails(guard_judge(&w->target.d.guard, WORLD_VM, &err), err, ERROR_GUARD);
    assert_int_equal(json_object_array_length(kept), 1);
    assert_true(exists(w, "unreplicated-2", "vda.qcow2"));
    assert_false(exists(w, "failover-2", "vda.qcow2"));
    world_check_tip(w, m);
}

static void
a_resolve_killed_at_each_commit_goes_on_and_keeps_the_data(void **state)
{
    replicated_killed_at_each_commit(*state, "resolve", count_steps(&op_resolve) + 1,
                                     gave_up);
}

static void
the_source_that_is_kept_goes_on_where_it_stood_still(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *a = world_replication(&w->source);
    struct error *err = NULL;
    struct world_model m;

    split(w);
    meet(w);
    assert_int_equal(state_at(&w->source), HV_STATE_PAUSED);
    assert_ok(world_resolve(w, &err), err);
    meet(w);
    assert_int_equal(a->phase, PHASE_REPLICATING);
    assert_int_equal(a->epoch, 3);
    assert_int_equal(state_at(&w->source), HV_STATE_RUNNING);
    assert_false(a->split_brain);
    assert_ok(guard_judge(&w->source.d.guard, WORLD_VM, &err), err);
    world_guest_writes(w, 5);
    assert_ok(world_cycle(w, &err), err);
    world_model_take(w, &m);
    world_check_tip(w, &m);
    world_model_free(&m);
}

/* Somebody has suspended it for a reason of his own: that is not ours to end. */
static void
a_vm_that_others_have_suspended_stays_so(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    w->source.config.split_brain = SPLIT_BRAIN_ALARM;
    split(w);
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_PAUSED);
    meet(w);
    assert_ok(world_resolve(w, &err), err);
    meet(w);
    assert_int_equal(state_at(&w->source), HV_STATE_PAUSED);
}

static void
write_to(const char *image)
{
    AUTOFREE(char) *command =
        mem_printf("qemu-io -f qcow2 -c 'write -P 0x5a 64k 4k' '%s' >/dev/null", image);

    run_program((const char *const[]){ "sh", "-c", command, NULL });
}

static void
reads_back(const char *image)
{
    AUTOFREE(char) *command = mem_printf(
        "! qemu-io -r -f qcow2 -c 'read -P 0x5a 64k 4k' '%s' 2>&1 | grep -q 'failed'",
        image);

    run_program((const char *const[]){ "sh", "-c", command, NULL });
}

static void
what_the_loser_has_written_can_be_used(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct store_overlay wanted = { .id = "export-1", .from = "unreplicated-2" };
    AUTOFREE(char) *failover = overlay_path(w, "failover-2", "vda.qcow2");
    AUTOFREE(char) *kept = overlay_path(w, "unreplicated-2", "vda.qcow2");
    struct error *err = NULL;
    struct store *store;
    char **paths = NULL;
    size_t n = 0;

    split(w);
    write_to(failover);
    assert_ok(world_resolve(w, &err), err);
    assert_ok(replica_store(&w->target.d, b, &store, &err), err);
    assert_ok(store->ops->overlay_create(store, &wanted, &paths, &n, &err), err);
    assert_int_equal(n, 2);
    reads_back(paths[0]);
    write_to(paths[1]);
    reads_back(kept);
    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
    assert_true(exists(w, "export-1", "domain.xml"));
    wanted.from = "unreplicated-9";
    wanted.id = "export-2";
    assert_fails(store->ops->overlay_create(store, &wanted, &paths, &n, &err), err,
                 ERROR_POINT_NOT_FOUND);
}

/* --- what is kept, later --------------------------------------------------------------
 */

/* It has given the VM up, and takes it over again. */
static void
keep_and_fail_over(struct world *w)
{
    AUTOFREE(char) *failover = overlay_path(w, "failover-2", "vda.qcow2");
    struct error *err = NULL;

    split(w);
    write_to(failover);
    assert_ok(world_resolve(w, &err), err);
    meet(w);
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_OFF);
    assert_ok(world_failover(w, &err), err);
}

static void
what_is_kept_outlives_a_failover_that_is_undone(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    AUTOFREE(char) *image = overlay_path(w, "unreplicated-2", "vda.qcow2");
    AUTOJSON *kept = NULL;
    struct error *err = NULL;

    keep_and_fail_over(w);
    assert_ok(world_undo(w, &err), err);
    kept = kept_of(b);
    assert_int_equal(json_object_array_length(kept), 1);
    reads_back(image);
}

/* What the commit's task has said. */
static size_t
count_warnings(struct world *w)
{
    AUTOJSON *list = NULL;
    size_t n = 0;

    assert_true(tasks_list(w->target.d.tasks, TASKS_KEPT, &list, NULL));
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *task = json_object_array_get_idx(list, i);
        struct json_object *said = json_array_or_null(task, "warnings");

        if (strcmp(json_string_or(task, "type", ""), "commit") == 0 && said != NULL)
            n += json_object_array_length(said);
    }
    return n;
}

static void
what_is_kept_goes_with_a_commit_which_says_so(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    AUTOJSON *kept = NULL;
    struct error *err = NULL;

    keep_and_fail_over(w);
    assert_ok(world_commit(w, &err), err);
    assert_int_equal(count_warnings(w), 1);
    assert_ok(world_await_flatten(w, &err), err);
    kept = kept_of(b);
    assert_int_equal(json_object_array_length(kept), 0);
    assert_false(exists(w, "unreplicated-2", "vda.qcow2"));
}

/* --- the source gives up
 * -----------------------------------------------------------------
 */

/* Each step twice, with a restart of the daemon behind each. */
static void
a_source_that_gives_up_is_off_and_locked_whatever_restarts(void **state)
{
    struct world *w = *state;
    AUTOJSON *data = json_object_new_object();
    struct error *err = NULL;

    split(w);
    meet(w);
    for (size_t i = 0; op_resolve.steps[i].name != NULL; i++) {
        for (unsigned time = 0; time < 2; time++) {
            struct op op = { .daemon = &w->source.d,
                             .kind = &op_resolve,
                             .data = data,
                             .resource_id = WORLD_REPLICA };

            if (!op_resolve.steps[i].run(&op, &err))
                fail_msg("%s: %s", op_resolve.steps[i].name, error_message(err));
            json_object_put(op.result);
        }
    }
    {
        AUTOPTR(replication) *a = world_replication(&w->source);
        AUTOPTR(replication) *b = world_replication(&w->target);

        assert_int_equal(a->phase, PHASE_SUPERSEDED);
        assert_int_equal(state_at(&w->source), HV_STATE_OFF);
        assert_fails(guard_judge(&w->source.d.guard, WORLD_VM, &err), err, ERROR_GUARD);
        meet(w);
        assert_int_equal(b->phase, PHASE_FAILED_OVER);
        assert_int_equal(state_at(&w->target), HV_STATE_RUNNING);
        assert_false(b->split_brain);
    }
}

static void
a_source_that_nobody_superseded_does_not_give_up(void **state)
{
    struct world *w = *state;
    AUTOJSON *data = json_object_new_object();
    struct op op = { .daemon = &w->source.d,
                     .kind = &op_resolve,
                     .data = data,
                     .resource_id = WORLD_REPLICA };
    struct error *err = NULL;

    assert_fails(op_resolve.steps[0].run(&op, &err), err, ERROR_INVALID_STATE);
}

#define TEST(name) \
    cmocka_unit_test_setup_teardown(name, replicated_setup, replicated_teardown)

int
main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        TEST(both_sides_know_at_their_first_meeting),
        TEST(the_side_without_the_epoch_is_suspended),
        TEST(with_policy_alarm_both_go_on),
        TEST(an_override_that_allows_does_not_save_it_from_being_suspended),
        TEST(a_replica_that_was_started_by_hand_is_the_one_that_stands_still),
        TEST(it_is_over_when_one_of_them_has_ended),
        TEST(a_resolve_killed_at_each_commit_goes_on_and_keeps_the_data),
        TEST(the_source_that_is_kept_goes_on_where_it_stood_still),
        TEST(a_vm_that_others_have_suspended_stays_so),
        TEST(what_the_loser_has_written_can_be_used),
        TEST(what_is_kept_outlives_a_failover_that_is_undone),
        TEST(what_is_kept_goes_with_a_commit_which_says_so),
        TEST(a_source_that_gives_up_is_off_and_locked_whatever_restarts),
        TEST(a_source_that_nobody_superseded_does_not_give_up),
    };

    evthread_use_pthreads();
    world_be_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
