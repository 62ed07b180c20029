#include "tests/sim/stories.h"

#include "common/json.h"
#include "daemon/ops.h"

#define GUEST_PATIENCE_MS 1000

struct json_object *
story_wishes(void)
{
    struct json_object *data = json_object_new_object();

    json_set_string(data, "shutdown", "graceful");
    json_set_int(data, "timeout", GUEST_PATIENCE_MS);
    return data;
}

/* --- how it begins -------------------------------------------------------------------
 */

static void
do_it(struct world *w, bool at_a, const char *operation)
{
    AUTOJSON *data = story_wishes();
    AUTOFREE(char) *id = pair_start(w, at_a, operation, data);
    AUTOJSON *task = NULL;

    pair_settle(w);
    task = pair_task(w, at_a, id);
    if (strcmp(json_string_or(task, "state", ""), "SUCCEEDED") != 0)
        fail_msg("%s: %s", operation, json_object_to_json_string(task));
}

static void
replicated(struct world *w UNUSED)
{
}

static void
home_has_ended(struct world *w)
{
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_OFF);
}

static void
failed_over(struct world *w)
{
    do_it(w, false, "failover");
}

static void
reversed(struct world *w)
{
    failed_over(w);
    world_guest_writes_at(&w->target, 3);
    do_it(w, false, "reverse");
    pair_goes_on(&w->target, &w->source);
}

static void
failed_back(struct world *w)
{
    reversed(w);
    do_it(w, true, "failback");
}

/* The home was cut off, was believed dead, and runs the VM. */
static void
split(struct world *w)
{
    pair_cut(true);
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_OFF);
    do_it(w, false, "failover");
    fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_RUNNING);
    pair_cut(false);
    pair_settle(w);
}

static void
b_cannot_start_it(struct world *w)
{
    fake_fail(w->target.d.hypervisor, FAKE_START, 1, ERROR_HYPERVISOR);
}

static void
a_cannot_start_it(struct world *w)
{
    fake_fail(w->source.d.hypervisor, FAKE_START, 1, ERROR_HYPERVISOR);
}

/* --- the table ------------------------------------------------------------------------
 */

const struct story stories[] = {
    { .title = "failover",
      .operation = &op_failover,
      .prepare = home_has_ended,
      .from = NOWHERE,
      .to = AT_B,
      .on_b = { &op_failover } },
    { .title = "failover, the source shut down",
      .operation = &op_failover,
      .cut_means_loss = true,
      .prepare = replicated,
      .from = AT_A,
      .to = AT_B,
      .on_a = { &op_prepare },
      .on_b = { &op_failover } },
    { .title = "undo",
      .operation = &op_undo,
      .throws_away = true,
      .prepare = failed_over,
      .from = AT_B,
      .to = AT_A,
      .on_a = { &op_abandon },
      .on_b = { &op_undo } },
    { .title = "commit",
      .operation = &op_commit,
      .prepare = failed_over,
      .from = AT_B,
      .to = AT_B,
      .on_b = { &op_commit, &op_flatten } },
    { .title = "planned failover",
      .operation = &op_planned,
      .prepare = replicated,
      .from = AT_A,
      .to = AT_B,
      .on_a = { &op_prepare },
      .on_b = { &op_planned } },
    { .title = "planned failover that b cannot end",
      .operation = &op_planned,
      .fails = true,
      .prepare = replicated,
      .upset = b_cannot_start_it,
      .from = AT_A,
      .to = AT_B,
      .on_a = { &op_prepare, &op_abandon },
      .on_b = { NULL } },
    { .title = "resolve, a's VM stays",
      .operation = &op_resolve,
      .prepare = split,
      .from = ON_BOTH,
      .to = AT_A,
      .on_b = { &op_resolve } },
    { .title = "resolve, b's VM stays",
      .operation = &op_resolve,
      .at_a = true,
      .prepare = split,
      .from = ON_BOTH,
      .to = AT_B,
      .on_a = { &op_resolve } },
    { .title = "resolve there, a's VM stays",
      .operation = &op_resolve_there,
      .at_a = true,
      .prepare = split,
      .from = ON_BOTH,
      .to = AT_A,
      .on_a = { &op_resolve_there },
      .on_b = { &op_resolve } },
    { .title = "resolve there, b's VM stays",
      .operation = &op_resolve_there,
      .prepare = split,
      .from = ON_BOTH,
      .to = AT_B,
      .on_a = { &op_resolve },
      .on_b = { &op_resolve_there } },
    { .title = "reverse",
      .operation = &op_reverse,
      .is_home = true,
      .prepare = failed_over,
      .from = AT_B,
      .to = AT_B,
      .on_b = { &op_reverse } },
    { .title = "failback",
      .operation = &op_failback,
      .at_a = true,
      .is_home = true,
      .prepare = failed_over,
      .from = AT_B,
      .to = AT_A,
      .on_a = { &op_failback },
      .on_b = { &op_reverse, &op_prepare } },
    { .title = "failback that a cannot end",
      .operation = &op_failback,
      .at_a = true,
      .is_home = true,
      .fails = true,
      .prepare = reversed,
      .upset = a_cannot_start_it,
      .from = AT_B,
      .to = AT_A,
      .on_b = { &op_prepare, &op_abandon } },
    { .title = "undo of a failback",
      .operation = &op_undo,
      .throws_away = true,
      .at_a = true,
      .is_home = true,
      .prepare = failed_back,
      .from = AT_A,
      .to = AT_B,
      .on_a = { &op_undo },
      .on_b = { &op_abandon } },
    { .title = "reverse of a failback",
      .operation = &op_reverse,
      .at_a = true,
      .is_home = true,
      .prepare = failed_back,
      .from = AT_A,
      .to = AT_A,
      .on_a = { &op_reverse } },
};
const size_t n_stories = N_ELEMENTS(stories);

/* They start no VM that another host may run. */
const struct story_elsewhere stories_elsewhere[] = {
    { "protect", "tests/system/test_peer_faults.sh" },
    { "unprotect", "tests/system/test_peer_faults.sh" },
    { "sync", "tests/sim/test_cycle.c" },
    { "resync", "tests/sim/test_compare.c" },
    { "release-bitmaps", "tests/sim/test_points.c" },
    { "verify", "tests/sim/test_verify.c" },
    { "scrub", "tests/unit/test_store_scrub.c" },
    { "export", "tests/system/test_export.sh" },
    { "clone", "tests/system/test_export.sh" },
    { "import-seed", "tests/sim/test_seed.c" },
    { "export-seed", "tests/system/test_seed.sh" },
    { "hand-over", "tests/sim/test_handover.c" },
    { "test-failover", "tests/sim/test_testruns.c" },
    { "test-cleanup", "tests/sim/test_testruns.c" },
};
const size_t n_stories_elsewhere = N_ELEMENTS(stories_elsewhere);
