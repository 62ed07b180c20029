/* What is chosen with a failover: what becomes of the source, the fence agent, the VM's
 * networks and addresses here, and how it ends. */
#include <event2/thread.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "common/json.h"
#include "daemon/failover_after.h"
#include "daemon/ops.h"
#include "tests/sim/files.h"
#include "tests/sim/pair.h"

#define MAC "52:54:00:00:00:01"
#define IP  "10.77.0.50"

static struct json_object *
wishes(const char *shutdown)
{
    struct json_object *data = json_object_new_object();

    json_set_string(data, "shutdown", shutdown);
    json_set_int(data, "timeout", 1000);
    return data;
}

/* A failover to its end; takes data over. */
static char *
fail_over(struct world *w, struct json_object *data)
{
    char *id = pair_start(w, false, "failover", data);

    json_object_put(data);
    pair_settle(w);
    return id;
}

static void
undo(struct world *w)
{
    AUTOFREE(char) *id = pair_start(w, false, "undo", NULL);

    pair_settle(w);
    pair_task_is(w, id, "SUCCEEDED", 0);
}

/* --- the source -------------------------------------------------------------------- */

static void
a_source_that_runs_it_refuses_by_default(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *id = fail_over(w, wishes("refuse"));

    pair_task_is(w, id, "FAILED", ERROR_SOURCE_ALIVE);
    assert_null(strstr(fake_calls(w->source.d.hypervisor), "shutdown"));
    pair_is_back(w);
}

static void
a_source_that_shuts_it_down_loses_nothing(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *id = NULL;
    AUTOJSON *task = NULL;
    struct world_model m;

    world_guest_writes(w, 20);
    world_model_take(w, &m);
    id = fail_over(w, wishes("graceful"));
    pair_task_is(w, id, "SUCCEEDED", 0);
    pair_has_moved(w, &m);
    task = pair_task(w, false, id);
    assert_true(json_double_or(json_object_or_null(task, "result"), "rpoSeconds", 1) ==
                0);
    world_model_free(&m);
}

static void
a_guest_that_looks_away_keeps_the_failover_from_happening(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *id = NULL;

    fake_ignore_shutdown(w->source.d.hypervisor, true);
    id = fail_over(w, wishes("graceful"));
    pair_task_is(w, id, "FAILED", ERROR_SHUTDOWN);
    pair_is_back(w);
}

static void
a_vm_that_crashes_meanwhile_is_started_again_where_it_is(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *id = NULL;

    fake_crash_at_shutdown(w->source.d.hypervisor, true);
    id = fail_over(w, wishes("graceful"));
    pair_task_is(w, id, "FAILED", ERROR_SHUTDOWN);
    pair_is_back(w);
    assert_true(pair_runs(w, true));
}

static void
by_force_a_vm_that_crashes_meanwhile_is_moved(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *id = NULL;
    struct world_model m;

    fake_crash_at_shutdown(w->source.d.hypervisor, true);
    world_model_take(w, &m);
    id = fail_over(w, wishes("force"));
    pair_task_is(w, id, "SUCCEEDED", 0);
    pair_has_moved(w, &m);
    world_model_free(&m);
}

/* --- the fence agent --------------------------------------------------------------- */

static void
make_agent(struct world *w, const char *text)
{
    AUTOFREE(char) *path = mem_printf("%s/fence", w->folder);
    AUTOFREE(char) *script = mem_printf("#!/bin/sh\n%s\n", text);

    file_write(path, script);
    assert_int_equal(chmod(path, 0755), 0);
    mem_setstr(&w->target.config.fence_command, path);
    w->target.config.fence_timeout_ms = 1000;
}

static void
forget_agent(struct world *w)
{
    free(TAKE(w->target.config.fence_command));
}

static void
stops_at_the_agent(struct world *w, const char *text)
{
    AUTOPTR(replication) *b = world_replication(&w->target);
    AUTOFREE(char) *id = NULL;

    make_agent(w, text);
    id = fail_over(w, wishes("refuse"));
    pair_task_is(w, id, "FAILED", ERROR_FENCE);
    assert_int_equal(b->epoch, 1);
    assert_int_equal(b->phase, PHASE_REPLICATING);
    assert_false(pair_runs(w, false));
}

/* The site is lost: nobody answers, and nothing runs there. */
static void
lose_the_source(struct world *w)
{
    pair_cut(true);
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_OFF);
}

static void
an_agent_that_fails_or_hangs_stops_the_failover(void **state)
{
    struct world *w = *state;

    lose_the_source(w);
    stops_at_the_agent(w, "exit 1");
    stops_at_the_agent(w, "exit 2");
    stops_at_the_agent(w, "kill -9 $$");
    stops_at_the_agent(w, "sleep 60; exit 0");
    forget_agent(w);
}

static void
an_agent_that_fences_lets_it_go_on(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *told = mem_printf("%s/told", w->folder);
    AUTOFREE(char) *script = mem_printf("env >%s", told);
    AUTOFREE(char) *text = NULL;
    AUTOFREE(char) *id = NULL;

    lose_the_source(w);
    make_agent(w, script);
    id = fail_over(w, wishes("refuse"));
    pair_task_is(w, id, "SUCCEEDED", 0);
    assert_true(pair_runs(w, false));
    text = file_read(told);
    assert_non_null(strstr(text, "VIRT_DR_VM=web01\n"));
    assert_non_null(strstr(text, "VIRT_DR_UUID=" WORLD_VM "\n"));
    assert_non_null(strstr(text, "VIRT_DR_SOURCE_HOST=alpha\n"));
    assert_non_null(strstr(text, "VIRT_DR_SOURCE_ADDRESS=127.0.0.1:1\n"));
    assert_non_null(strstr(text, "VIRT_DR_EPOCH=2\n"));
    forget_agent(w);
}

static void
without_the_agent_it_goes_on_with_a_warning(void **state)
{
    struct world *w = *state;
    struct json_object *data = wishes("refuse");
    AUTOFREE(char) *id = NULL;
    AUTOJSON *task = NULL;

    lose_the_source(w);
    make_agent(w, "exit 1");
    json_set_bool(data, "fence", false);
    id = fail_over(w, data);
    pair_task_is(w, id, "SUCCEEDED", 0);
    task = pair_task(w, false, id);
    assert_int_equal(json_object_array_length(json_array_or_null(task, "warnings")), 1);
    forget_agent(w);
}

static void
a_source_that_shut_it_down_is_not_fenced(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *id = NULL;

    make_agent(w, "exit 1");
    id = fail_over(w, wishes("graceful"));
    pair_task_is(w, id, "SUCCEEDED", 0);
    forget_agent(w);
}

/* --- what is different here ----------------------------------------------------------
 */

static void
defined_only_it_is_off_and_can_be_undone(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct json_object *data = wishes("graceful");
    AUTOFREE(char) *id = NULL;

    json_set_bool(data, "start", false);
    id = fail_over(w, data);
    pair_task_is(w, id, "SUCCEEDED", 0);
    assert_int_equal(b->phase, PHASE_FAILED_OVER);
    assert_false(pair_runs(w, false));
    assert_int_equal(fake_starts(w->target.d.hypervisor, WORLD_VM), 0);
    undo(w);
    pair_is_back(w);
}

static struct json_object *
with_address(void)
{
    struct json_object *data = wishes("graceful");

    json_set(data, "networks", json_tokener_parse("{\"lan\": \"lan-dr\"}"));
    json_set(data, "addresses",
             json_tokener_parse("[{\"mac\": \"" MAC "\", \"ip\": \"" IP "\"}]"));
    return data;
}

static void
plug_interface(struct world *w)
{
    struct error *err = NULL;

    w->devices = "<interface type='network'><mac address='" MAC "'/>"
                 "<source network='lan'/></interface>";
    world_plug(w);
    assert_ok(world_cycle(w, &err), err);
}

static void
an_address_is_reserved_here_and_freed_by_undo(void **state)
{
    struct world *w = *state;
    struct hypervisor *hv = w->target.d.hypervisor;
    AUTOFREE(char) *id = NULL;

    plug_interface(w);
    id = fail_over(w, with_address());
    pair_task_is(w, id, "SUCCEEDED", 0);
    assert_string_equal(fake_reserved(hv, "lan-dr", MAC), IP);
    undo(w);
    assert_string_equal(fake_reserved(hv, "lan-dr", MAC), "");
}

static void
an_address_that_somebody_else_has_reserved_stays(void **state)
{
    struct world *w = *state;
    struct hypervisor *hv = w->target.d.hypervisor;
    const struct hv_reservation his = { .network = "lan-dr", .mac = MAC, .ip = IP };
    struct error *err = NULL;
    AUTOFREE(char) *id = NULL;

    plug_interface(w);
    assert_ok(hv->ops->reserve(hv, &his, &err), err);
    id = fail_over(w, with_address());
    pair_task_is(w, id, "SUCCEEDED", 0);
    undo(w);
    assert_string_equal(fake_reserved(hv, "lan-dr", MAC), IP);
}

/* --- how it ends ---------------------------------------------------------------------
 */

static struct json_object *
ending_now(void)
{
    struct json_object *data = wishes("graceful");

    json_set(data, "auto", json_tokener_parse("{\"action\": \"undo\", \"after\": 0}"));
    return data;
}

static void
it_is_undone_by_itself_when_that_is_due(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    AUTOFREE(char) *id = fail_over(w, ending_now());

    pair_task_is(w, id, "SUCCEEDED", 0);
    failover_after_look(&w->target.d, b);
    pair_settle(w);
    pair_is_back(w);
    failover_after_look(&w->target.d, b); /* of the next one it knows nothing */
    pair_settle(w);
    pair_is_back(w);
}

static void
its_end_is_stored_and_can_be_called_off(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct state *db = w->target.d.state;
    AUTOFREE(char) *id = fail_over(w, ending_now());
    AUTOJSON *doc = NULL;
    struct error *err = NULL;

    assert_ok(db->ops->get(db, "replication", WORLD_REPLICA, &doc, &err), err);
    assert_string_equal(
        json_string_or(json_object_or_null(json_object_or_null(doc, "failover"), "auto"),
                       "action", ""),
        "undo");
    assert_ok(failover_after_set(&w->target.d, b, NULL, &err), err);
    failover_after_look(&w->target.d, b);
    pair_settle(w);
    assert_int_equal(b->phase, PHASE_FAILED_OVER);
    assert_true(pair_runs(w, false));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pair_setup, pair_teardown)

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_source_that_runs_it_refuses_by_default),
        TEST(a_source_that_shuts_it_down_loses_nothing),
        TEST(a_guest_that_looks_away_keeps_the_failover_from_happening),
        TEST(a_vm_that_crashes_meanwhile_is_started_again_where_it_is),
        TEST(by_force_a_vm_that_crashes_meanwhile_is_moved),
        TEST(an_agent_that_fails_or_hangs_stops_the_failover),
        TEST(an_agent_that_fences_lets_it_go_on),
        TEST(without_the_agent_it_goes_on_with_a_warning),
        TEST(a_source_that_shut_it_down_is_not_fenced),
        TEST(defined_only_it_is_off_and_can_be_undone),
        TEST(an_address_is_reserved_here_and_freed_by_undo),
        TEST(an_address_that_somebody_else_has_reserved_stays),
        TEST(it_is_undone_by_itself_when_that_is_due),
        TEST(its_end_is_stored_and_can_be_called_off),
    };

    log_init(LOG_LEVEL_ERROR);
    evthread_use_pthreads();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
