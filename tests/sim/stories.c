#include "tests/sim/stories.h"

#include "common/json.h"
#include "daemon/ops.h"
#include "tests/sim/moves.h"

/* --- how it begins -------------------------------------------------------------------
 */

static void
do_it(struct world *w, bool at_a, const char *operation)
{
    AUTOJSON *data = json_object_new_object();
    struct tasks_request request = { .kind = operation,
                                     .resource_id = WORLD_REPLICA,
                                     .resource_name = "web01",
                                     .user = "test",
                                     .data = data };

    move_wish(w, &request);
    pair_do(w, at_a, &request);
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

/* clang-format off */
#define MOVES .note = move_note, .wish = move_wish, .holds = move_holds
/* clang-format on */

static const struct story away[] = {
    { .title = "failover",
      .operation = &op_failover,
      .prepare = home_has_ended,
      .move = { .from = NOWHERE, .to = AT_B },
      MOVES,
      .on_b = { &op_failover } },
    { .title = "failover, the source shut down",
      .operation = &op_failover,
      .move = { .from = AT_A, .to = AT_B, .cut_means_loss = true },
      MOVES,
      .on_a = { &op_prepare },
      .on_b = { &op_failover } },
    { .title = "undo",
      .operation = &op_undo,
      .prepare = failed_over,
      .move = { .from = AT_B, .to = AT_A, .throws_away = true },
      MOVES,
      .on_a = { &op_abandon },
      .on_b = { &op_undo } },
    { .title = "commit",
      .operation = &op_commit,
      .prepare = failed_over,
      .move = { .from = AT_B, .to = AT_B },
      MOVES,
      .on_b = { &op_commit, &op_flatten } },
    { .title = "planned failover",
      .operation = &op_planned,
      .move = { .from = AT_A, .to = AT_B },
      MOVES,
      .on_a = { &op_prepare },
      .on_b = { &op_planned } },
    { .title = "planned failover that b cannot end",
      .operation = &op_planned,
      .move = { .from = AT_A, .to = AT_B, .fails = true, .upset = b_cannot_start_it },
      MOVES,
      .on_a = { &op_prepare, &op_abandon },
      .on_b = { NULL } },
    { .title = "resolve, a's VM stays",
      .operation = &op_resolve,
      .prepare = split,
      .move = { .from = ON_BOTH, .to = AT_A },
      MOVES,
      .on_b = { &op_resolve } },
    { .title = "resolve, b's VM stays",
      .operation = &op_resolve,
      .at_a = true,
      .prepare = split,
      .move = { .from = ON_BOTH, .to = AT_B },
      MOVES,
      .on_a = { &op_resolve } },
    { .title = "resolve there, a's VM stays",
      .operation = &op_resolve_there,
      .at_a = true,
      .prepare = split,
      .move = { .from = ON_BOTH, .to = AT_A },
      MOVES,
      .on_a = { &op_resolve_there },
      .on_b = { &op_resolve } },
    { .title = "resolve there, b's VM stays",
      .operation = &op_resolve_there,
      .prepare = split,
      .move = { .from = ON_BOTH, .to = AT_B },
      MOVES,
      .on_a = { &op_resolve },
      .on_b = { &op_resolve_there } },
};
const struct story_list stories_away = { away, N_ELEMENTS(away) };

static const struct story home[] = {
    { .title = "reverse",
      .operation = &op_reverse,
      .prepare = failed_over,
      .move = { .from = AT_B, .to = AT_B },
      MOVES,
      .on_b = { &op_reverse } },
    { .title = "failback",
      .operation = &op_failback,
      .at_a = true,
      .prepare = failed_over,
      .move = { .from = AT_B, .to = AT_A },
      MOVES,
      .on_a = { &op_failback },
      .on_b = { &op_reverse, &op_prepare } },
    { .title = "failback that a cannot end",
      .operation = &op_failback,
      .at_a = true,
      .prepare = reversed,
      .move = { .from = AT_B, .to = AT_A, .fails = true, .upset = a_cannot_start_it },
      MOVES,
      .on_b = { &op_prepare, &op_abandon } },
    { .title = "undo of a failback",
      .operation = &op_undo,
      .at_a = true,
      .prepare = failed_back,
      .move = { .from = AT_A, .to = AT_B, .throws_away = true },
      MOVES,
      .on_a = { &op_undo },
      .on_b = { &op_abandon } },
    { .title = "reverse of a failback",
      .operation = &op_reverse,
      .at_a = true,
      .prepare = failed_back,
      .move = { .from = AT_A, .to = AT_A },
      MOVES,
      .on_a = { &op_reverse } },
};
const struct story_list stories_home = { home, N_ELEMENTS(home) };

/* A VM goes to another source, so it takes three hosts. */
const struct story_elsewhere stories_elsewhere[] = {
    { "hand-over", "tests/sim/test_handover.c" },
};
const size_t n_stories_elsewhere = N_ELEMENTS(stories_elsewhere);
