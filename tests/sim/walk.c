#include "tests/sim/walk.h"

#include <event2/thread.h>

#include "common/json.h"
#include "daemon/ops.h"
#include "daemon/tasks.h"
#include "tests/sim/stories.h"

#define ROUNDS_CUT                                                       \
    25 /* of contacts that come to nothing: some of what was begun fails \
        */
#define MAX_PLANS 160
#define TITLE     96

/* What happens to one run of it. */
enum disturbance {
    DEATH,
    CUT,
    CANCEL,
    SECOND,
};

struct plan {
    char title[TITLE];
    const struct story *story;
    enum disturbance what;
    bool on_a; /* whose commits are counted */
    enum fate fate;
};

/* When: at the n-th of the commits that the plan counts, or at the first that stores a
   task at that step. */
struct moment {
    unsigned n;
    const char *step; /* NULL: by number */
};

struct run {
    const struct plan *plan;
    struct world *world;
    char *id;            /* of the task; NULL where it was not stored */
    struct moment when;  /* n: still to come */
    bool came;           /* it happened */
    char met[PAIR_STEP]; /* the step at which it did */
    bool accepted;       /* the wish to cancel was */
    unsigned refused;    /* other operations */
};

/* --- what must hold -------------------------------------------------------------------
 */

static enum place
place_of(struct world *w)
{
    bool a = pair_runs(w, true), b = pair_runs(w, false);

    return a && b ? ON_BOTH : a ? AT_A : b ? AT_B : NOWHERE;
}

static struct world_host *
host_at(struct world *w, enum place place)
{
    return place == AT_A ? &w->source : &w->target;
}

/* The VM's host is a source that replicates, or a target that took it over. */
static void
check_roles(const struct replication *has, const struct replication *other)
{
    assert_int_equal(has->epoch, other->epoch);
    if (has->side == SIDE_SOURCE) {
        assert_true(states_is_protecting(has->phase));
        assert_int_equal(other->side, SIDE_TARGET);
        assert_true(states_is_protecting(other->phase));
    } else {
        assert_true(states_owns_vm(has->phase));
        assert_int_equal(other->side, SIDE_SOURCE);
        assert_int_equal(other->phase, PHASE_SUPERSEDED);
    }
}

static bool
is_the_same(const struct world_model *a, const struct world_model *b)
{
    for (size_t i = 0; i < a->n; i++)
        if (i >= b->n || a->capacity_bytes[i] != b->capacity_bytes[i] ||
            memcmp(a->bytes[i], b->bytes[i], a->capacity_bytes[i]) != 0)
            return false;
    return a->n == b->n;
}

/* lost: as it was when the last writes were lost; NULL: they must not be. */
static void
check_content(struct world_host *h, const struct world_model *m,
              const struct world_model *lost)
{
    struct world_model now;

    world_model_take_at(h, &now);
    if (!is_the_same(&now, m) && (lost == NULL || !is_the_same(&now, lost)))
        fail_msg("the VM's disks are not as they were");
    world_model_free(&now);
}

/* Nor is it suspended. */
static void
check_domain(struct world_host *h)
{
    struct hypervisor *hv = h->d.hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;
    struct error *err = NULL;

    assert_ok(hv->ops->lookup(hv, WORLD_VM, &domain, &err), err);
    assert_int_equal(domain->state, HV_STATE_RUNNING);
}

static void
check_settled(struct world *w, enum place place, const struct world_model *m,
              const struct world_model *lost)
{
    struct world_host *has = host_at(w, place);
    struct world_host *other = host_at(w, place == AT_A ? AT_B : AT_A);
    AUTOPTR(replication) *r = world_replication(has);
    AUTOPTR(replication) *peer = world_replication(other);
    struct error *err = NULL;

    check_domain(has);
    check_roles(r, peer);
    assert_ok(guard_judge(&has->d.guard, WORLD_VM, &err), err);
    assert_fails(guard_judge(&other->d.guard, WORLD_VM, &err), err, ERROR_GUARD);
    check_content(has, m, lost);
    if (r->side == SIDE_SOURCE)
        pair_goes_on(has, other);
}

/* Its task says where the VM is; unless its host died before it was stored. */
static void
check_task(struct run *run, enum place place)
{
    const struct story *s = run->plan->story;
    AUTOJSON *task = NULL;
    const char *state;

    if (run->id == NULL)
        return;
    task = pair_task(run->world, s->at_a, run->id);
    state = json_string_or(task, "state", "");
    if (run->plan->what == SECOND)
        assert_string_equal(state, s->fails ? "FAILED" : "SUCCEEDED");
    if (strcmp(state, "SUCCEEDED") == 0 ? place != s->to
                                        : place != s->from && place != s->to)
        fail_msg("it is at %d: %s", (int)place, json_object_to_json_string(task));
}

/* --- disturbances ---------------------------------------------------------------------
 */

/* The id of the task that is under way, and stored by this; NULL: it is something else.
 */
static const char *
stored_task(const struct state_write *writes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(writes[i].kind, "task") == 0 && writes[i].body != NULL &&
            strcmp(json_string_or(writes[i].body, "state", ""), "RUNNING") == 0)
            return writes[i].id;
    return NULL;
}

static struct tasks *
tasks_of(struct run *run, bool a)
{
    return a ? run->world->source.d.tasks : run->world->target.d.tasks;
}

/* Whatever cannot be beside it is refused, and the answer names what is in the way. */
static void
ask_for_others(struct run *run, const char *running)
{
    struct tasks *t = tasks_of(run, run->plan->on_a);
    struct tasks_request request = { .resource_id = WORLD_REPLICA,
                                     .resource_name = "web01",
                                     .user = "test" };

    for (size_t i = 0; ops_all[i] != NULL; i++) {
        AUTOPTR(error) *e = NULL;
        AUTOJSON *task = NULL;

        request.kind = ops_all[i]->name;
        if (ops_all[i]->company == OP_BESIDE)
            continue;
        assert_false(tasks_start(t, &request, &task, &e));
        assert_int_equal(error_code(e), ERROR_IN_PROGRESS);
        assert_non_null(strstr(error_message(e), running));
        run->refused++;
    }
}

/* Of the task itself: while it is stored, it does not end. */
static void
ask_beside(struct run *run, const char *id)
{
    AUTOFREE(char) *running =
        tasks_exclusive(tasks_of(run, run->plan->on_a), WORLD_REPLICA);

    if (running != NULL && strcmp(running, id) == 0)
        ask_for_others(run, running);
}

/* The operator cancels only what was asked for. */
static bool
concerns(const struct run *run, const char *step)
{
    const char *name = run->plan->story->operation->name;
    size_t n = strlen(name);

    return run->plan->what != CANCEL || (strncmp(step, name, n) == 0 && step[n] == ' ');
}

static bool
is_the_moment(struct run *run, const char *step)
{
    if (run->came || !concerns(run, step))
        return false;
    if (run->when.step != NULL ? strcmp(run->when.step, step) != 0 : --run->when.n > 0)
        return false;
    snprintf(run->met, sizeof run->met, "%s", step);
    return run->came = true;
}

static void
disturb(struct fated *f, const struct state_write *writes, size_t n)
{
    struct run *run = f->opaque;
    const char *id = stored_task(writes, n);
    char step[PAIR_STEP];
    AUTOJSON *task = NULL;

    if (id == NULL)
        return;
    if (run->plan->what == SECOND) {
        ask_beside(run, id);
        return;
    }
    pair_step_of(writes, n, step);
    if (!is_the_moment(run, step))
        return;
    if (run->plan->what == CUT)
        pair_cut_for(ROUNDS_CUT);
    else
        run->accepted = tasks_cancel(tasks_of(run, run->plan->on_a), id, &task, NULL);
}

static void
arrange(struct run *run)
{
    switch (run->plan->what) {
    case DEATH:
        if (run->when.step != NULL)
            pair_let_die_at(run->plan->on_a, run->plan->fate, run->when.step);
        else
            pair_let_die(run->plan->on_a, run->plan->fate, run->when.n);
        break;
    case CUT:
    case CANCEL:
    case SECOND:
        pair_tell(run->plan->on_a, disturb, run);
        break;
    }
}

/* --- one run --------------------------------------------------------------------------
 */

static void
begin(struct run *run)
{
    const struct story *s = run->plan->story;
    AUTOJSON *data = story_wishes();

    run->id = pair_start(run->world, s->at_a, s->operation->name, data);
}

static void
come_to_an_end(struct run *run)
{
    struct world *w = run->world;

    pair_settle(w);
    pair_tell(run->plan->on_a, NULL, NULL);
    if (place_of(w) != ON_BOTH || run->plan->story->from != ON_BOTH)
        return;
    free(TAKE(run->id)); /* it has not begun, or could not go on: it is asked for anew */
    begin(run);
    pair_settle(w);
}

/* What the VM has to have at each place, if it ends there. */
static void
take_models(const struct story *s, struct world *w, struct world_model ret[2])
{
    enum place where = s->from == ON_BOTH ? s->to : s->from == NOWHERE ? AT_A : s->from;

    if (s->from != NOWHERE)
        world_guest_writes_at(host_at(w, where), 3);
    for (size_t i = 0; i < 2; i++) {
        enum place own = i == 0 ? AT_A : AT_B;

        world_model_take_at(host_at(w, s->throws_away ? own : where), &ret[i]);
    }
}

/* To a source that sends its last changes a target that dies is a link that is cut. */
static bool
may_lose(const struct plan *plan)
{
    return plan->story->cut_means_loss && plan->what == DEATH && !plan->on_a;
}

/* False: nothing came: it has not so many commits, or not this step. */
static bool
run_once(const struct plan *plan, struct world *w, struct moment when,
         char ret_step[PAIR_STEP])
{
    struct run run = { .plan = plan, .world = w, .when = when };
    struct world_model models[2], shipped;
    enum place place;

    pair_restore();
    world_model_take_at(host_at(w, AT_A), &shipped);
    take_models(plan->story, w, models);
    if (plan->story->upset != NULL)
        plan->story->upset(w);
    arrange(&run);
    begin(&run);
    come_to_an_end(&run);
    if (plan->what == DEATH)
        run.came = pair_has_died(run.met);
    pair_let_die(plan->on_a, FATE_NONE, 0);
    place = place_of(w);
    check_task(&run, place);
    if (place != NOWHERE || plan->story->from != NOWHERE)
        check_settled(w, place, &models[place == AT_B], may_lose(plan) ? &shipped : NULL);
    if (plan->what == SECOND)
        assert_true(run.refused > 0);
    free(run.id);
    for (size_t i = 0; i < 2; i++)
        world_model_free(&models[i]);
    world_model_free(&shipped);
    snprintf(ret_step, PAIR_STEP, "%s", run.met);
    return plan->what == CANCEL ? run.came && run.accepted : run.came;
}

/* --- each of them ---------------------------------------------------------------------
 */

/* Behind a step that commits nothing is cancelled. */
static bool
is_asked_of(const struct plan *plan, const struct op_kind *kind, size_t step)
{
    if (plan->what != CANCEL)
        return true;
    for (size_t i = 0; i < step; i++)
        if (kind->steps[i].commits)
            return false;
    return kind == plan->story->operation;
}

static void
meet(const struct plan *plan, struct world *w, const char *step)
{
    struct moment when = { .step = step };
    char met[PAIR_STEP];

    if (!run_once(plan, w, when, met))
        fail_msg("nothing comes at '%s'", step);
}

/*
 * The commits do not come in the same order in each run, since some are of other threads:
 * counted, they may pass over a step. What was not met by number is met by name. Returns
 * how many runs it took.
 */
static unsigned
meet_the_others(const struct plan *plan, struct world *w, struct json_object *seen)
{
    const struct op_kind *const *kinds =
        plan->on_a ? plan->story->on_a : plan->story->on_b;
    unsigned n = 0;

    for (size_t k = 0; k < STORY_OPS && kinds[k] != NULL; k++)
        for (size_t i = 0; kinds[k]->steps[i].name != NULL; i++) {
            AUTOFREE(char) *step =
                mem_printf("%s %s", kinds[k]->name, kinds[k]->steps[i].name);

            if (json_int_or(seen, step, 0) != 0 || !is_asked_of(plan, kinds[k], i))
                continue;
            meet(plan, w, step);
            n++;
        }
    return n;
}

static void
run_all(const struct plan *plan, struct world *w)
{
    AUTOJSON *seen = json_object_new_object();
    struct moment when = { .n = 1 };
    char step[PAIR_STEP] = "";

    print_message("# %s\n", plan->story->title);
    for (; run_once(plan, w, when, step); when.n++)
        json_set_int(seen, step, 1);
    if (plan->what == SECOND)
        return;
    print_message("# %u rounds by number, %u by name\n", when.n,
                  meet_the_others(plan, w, seen));
}

static void
test_plan(void **state)
{
    const struct plan *plan = *state;
    void *world;

    pair_setup(&world);
    plan->story->prepare(world);
    pair_keep();
    run_all(plan, world);
    pair_teardown(&world);
}

static bool
is_told_elsewhere(const struct op_kind *kind)
{
    for (size_t i = 0; i < n_stories_elsewhere; i++)
        if (strcmp(stories_elsewhere[i].operation, kind->name) == 0)
            return true;
    return false;
}

static bool
walks(const struct op_kind *const kinds[STORY_OPS], const struct op_kind *kind)
{
    for (size_t k = 0; k < STORY_OPS; k++)
        if (kinds[k] == kind)
            return true;
    return false;
}

/* One that is new fails this until somebody has told its story. */
static void
each_operation_has_its_story(void **state UNUSED)
{
    for (size_t i = 0; ops_all[i] != NULL; i++) {
        bool told = is_told_elsewhere(ops_all[i]);

        for (size_t s = 0; s < n_stories; s++)
            told = told || walks(stories[s].on_a, ops_all[i]) ||
                   walks(stories[s].on_b, ops_all[i]);
        if (!told)
            fail_msg("nobody lets a virtdrd die during '%s'", ops_all[i]->name);
    }
}

/* --- all of them ----------------------------------------------------------------------
 */

static struct plan plans[MAX_PLANS];

static size_t
add(size_t n, const struct story *story, enum disturbance what, bool on_a, enum fate fate)
{
    static const char *const events[] = { [DEATH] = "dies",
                                          [CUT] = "loses the link",
                                          [CANCEL] = "is told to cancel",
                                          [SECOND] = "refuses others" };
    struct plan *p = &plans[n];

    assert_true(n < MAX_PLANS);
    *p = (struct plan){ .story = story, .what = what, .on_a = on_a, .fate = fate };
    snprintf(p->title, sizeof p->title, "%s: %s %s %s", story->title, on_a ? "a" : "b",
             events[what],
             what == DEATH
                 ? fate == FATE_BEFORE ? "before any commit" : "behind any commit"
                 : "at any step");
    return n + 1;
}

static size_t
plan_story(size_t n, const struct story *s)
{
    for (int a = 0; a < 2; a++) {
        bool works = (a != 0 ? s->on_a : s->on_b)[0] != NULL;

        n = add(n, s, DEATH, a != 0, FATE_BEFORE);
        n = add(n, s, DEATH, a != 0, FATE_BEHIND);
        if (works && !s->cut_means_loss)
            n = add(n, s, CUT, a != 0, FATE_NONE);
        if (works)
            n = add(n, s, SECOND, a != 0, FATE_NONE);
    }
    return add(n, s, CANCEL, s->at_a, FATE_NONE);
}

int
walk(bool home, const char *only)
{
    static struct CMUnitTest tests[MAX_PLANS + 1];
    size_t n = 0;

    log_init(LOG_LEVEL_ERROR);
    evthread_use_pthreads();
    if (only != NULL)
        cmocka_set_test_filter(only);
    for (size_t i = 0; i < n_stories; i++)
        if (stories[i].is_home == home)
            n = plan_story(n, &stories[i]);
    for (size_t i = 0; i < n; i++)
        tests[i] = (struct CMUnitTest){ .name = plans[i].title,
                                        .test_func = test_plan,
                                        .initial_state = &plans[i] };
    tests[n] = (struct CMUnitTest)cmocka_unit_test(each_operation_has_its_story);
    return _cmocka_run_group_tests("tests", tests, n + 1, NULL, NULL);
}
