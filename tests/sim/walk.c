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
    struct course course;
    struct moment when;  /* n: still to come */
    bool came;           /* it happened */
    char met[PAIR_STEP]; /* the step at which it did */
    bool accepted;       /* the wish to cancel was */
    unsigned refused;    /* other operations */
};

/* --- disturbances ---------------------------------------------------------------------
 */

/* The task that is under way, and stored by this; NULL: it is something else. */
static struct json_object *
stored_task(const struct state_write *writes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(writes[i].kind, "task") == 0 && writes[i].body != NULL &&
            strcmp(json_string_or(writes[i].body, "state", ""), "RUNNING") == 0)
            return writes[i].body;
    return NULL;
}

static const struct op_kind *
kind_of(struct json_object *task)
{
    size_t i = 0;

    while (strcmp(ops_all[i]->name, json_string_or(task, "type", "")) != 0)
        i++;
    return ops_all[i];
}

static struct tasks *
tasks_of(struct run *run, bool a)
{
    return a ? run->course.world->source.d.tasks : run->course.world->target.d.tasks;
}

/* Those that may not go on at the same time (op.h). */
static bool
excludes(const struct op_kind *a, const struct op_kind *b)
{
    return a->company == OP_ALONE || b->company == OP_ALONE ||
           (a->company == OP_EXCLUSIVE && b->company == OP_EXCLUSIVE);
}

/* A task that runs for this resource is named. */
static void
names_what_runs(struct tasks *t, const char *resource_id, const char *said)
{
    AUTOJSON *all = NULL;

    assert_true(tasks_list(t, TASKS_KEPT, &all, NULL));
    for (size_t i = 0; i < json_object_array_length(all); i++) {
        struct json_object *task = json_object_array_get_idx(all, i);
        struct json_object *info = json_object_or_null(task, "workflowInfo");

        if (strcmp(json_string_or(task, "state", ""), "RUNNING") == 0 &&
            strcmp(json_string_or(info, "resourceId", ""), resource_id) == 0 &&
            strstr(said, json_string_or(task, "id", "")) != NULL)
            return;
    }
    fail_msg("it names no task that runs: %s", said);
}

/* Whatever cannot be beside it is refused, and the answer names what is in the way. Of
   the task itself: while it is stored, it does not end. */
static void
ask_beside(struct run *run, struct json_object *task)
{
    struct tasks *t = tasks_of(run, run->plan->on_a);
    struct tasks_request request = { .resource_id = json_string_or(
                                         json_object_or_null(task, "workflowInfo"),
                                         "resourceId", ""),
                                     .resource_name = "web01",
                                     .user = "test" };
    const struct op_kind *kind = kind_of(task);

    for (size_t i = 0; ops_all[i] != NULL; i++) {
        AUTOPTR(error) *e = NULL;
        AUTOJSON *other = NULL;

        request.kind = ops_all[i]->name;
        if (!excludes(kind, ops_all[i]))
            continue;
        assert_false(tasks_start(t, &request, &other, &e));
        assert_int_equal(error_code(e), ERROR_IN_PROGRESS);
        names_what_runs(t, request.resource_id, error_message(e));
        run->refused++;
    }
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
    struct json_object *task = stored_task(writes, n);
    AUTOJSON *answer = NULL;
    char step[PAIR_STEP];

    if (task == NULL)
        return;
    if (run->plan->what == SECOND) {
        ask_beside(run, task);
        return;
    }
    pair_step_of(writes, n, step);
    if (!is_the_moment(run, step))
        return;
    if (run->plan->what == CUT)
        pair_cut_for(ROUNDS_CUT);
    else
        run->accepted = tasks_cancel(tasks_of(run, run->plan->on_a),
                                     json_string_or(task, "id", ""), &answer, NULL);
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

char *
story_ask(const struct story *s, struct world *w)
{
    AUTOJSON *data = json_object_new_object();
    struct tasks_request request = { .kind = s->operation->name,
                                     .resource_id = WORLD_REPLICA,
                                     .resource_name = "web01",
                                     .user = "test",
                                     .data = data };

    if (s->wish != NULL)
        s->wish(w, &request);
    return pair_ask(s->at_a, &request);
}

/* The newest one of that kind; the caller's; NULL: none. */
static char *
newest_task(const struct story *s, struct world *w)
{
    struct tasks *t = s->at_a ? w->source.d.tasks : w->target.d.tasks;
    AUTOJSON *all = NULL;

    assert_true(tasks_list(t, TASKS_KEPT, &all, NULL));
    for (size_t i = 0; i < json_object_array_length(all); i++) {
        struct json_object *task = json_object_array_get_idx(all, i);

        if (strcmp(json_string_or(task, "type", ""), s->operation->name) == 0)
            return mem_strdup(json_string_or(task, "id", ""));
    }
    return NULL;
}

/* Who asked for it may not have been told, since the host died of it. */
static char *
find_task(const struct story *s, struct world *w, const char *before)
{
    AUTOFREE(char) *newest = newest_task(s, w);

    return newest != NULL && (before == NULL || strcmp(newest, before) != 0)
               ? TAKE(newest)
               : NULL;
}

void
course_state(const struct course *c, char ret_state[16])
{
    AUTOJSON *task = NULL;

    ret_state[0] = '\0';
    if (c->id == NULL)
        return;
    task = pair_task(c->world, c->story->at_a, c->id);
    snprintf(ret_state, 16, "%s", json_string_or(task, "state", ""));
}

bool
course_succeeded(const struct course *c)
{
    char state[16];

    course_state(c, state);
    return strcmp(state, "SUCCEEDED") == 0;
}

void
course_succeeds_in_the_end(struct course *c)
{
    AUTOJSON *task = NULL;

    if (course_succeeded(c))
        return;
    free(TAKE(c->id));
    c->id = story_ask(c->story, c->world);
    pair_settle(c->world);
    task = pair_task(c->world, c->story->at_a, c->id);
    if (strcmp(json_string_or(task, "state", ""), "SUCCEEDED") != 0)
        fail_msg("asked for again: %s", json_object_to_json_string(task));
}

/* Who died lives again, and nothing happens any more. */
static void
come_to_an_end(struct run *run)
{
    pair_settle(run->course.world);
    pair_tell(run->plan->on_a, NULL, NULL);
    if (run->plan->what == DEATH)
        run->came = pair_has_died(run->met);
    pair_let_die(run->plan->on_a, FATE_NONE, 0);
}

/* False: nothing came: it has not so many commits, or not this step. */
static bool
run_once(const struct plan *plan, struct world *w, struct moment when,
         char ret_step[PAIR_STEP])
{
    struct run run = { .plan = plan, .when = when };
    AUTOFREE(char) *before = NULL;

    run.course = (struct course){ .story = plan->story,
                                  .world = w,
                                  .undisturbed = plan->what == SECOND,
                                  .target_failed = plan->what == DEATH && !plan->on_a };
    pair_restore();
    plan->story->note(&run.course);
    before = newest_task(plan->story, w);
    arrange(&run);
    run.course.id = story_ask(plan->story, w);
    come_to_an_end(&run);
    if (run.course.id == NULL)
        run.course.id = find_task(plan->story, w, before);
    plan->story->holds(&run.course);
    if (plan->what == SECOND)
        assert_true(run.refused > 0);
    free(run.course.id);
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
    if (plan->story->prepare != NULL)
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

static bool
is_told_in(const struct story_list *list, const struct op_kind *kind)
{
    for (size_t s = 0; s < list->n; s++)
        if (walks(list->stories[s].on_a, kind) || walks(list->stories[s].on_b, kind))
            return true;
    return false;
}

/* One that is new fails this until somebody has told its story. */
static void
each_operation_has_its_story(void **state UNUSED)
{
    for (size_t i = 0; ops_all[i] != NULL; i++)
        if (!is_told_in(&stories_away, ops_all[i]) &&
            !is_told_in(&stories_home, ops_all[i]) &&
            !is_told_in(&stories_care, ops_all[i]) &&
            !is_told_in(&stories_points, ops_all[i]) && !is_told_elsewhere(ops_all[i]))
            fail_msg("nobody lets a virtdrd die during '%s'", ops_all[i]->name);
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
        if (works && !s->move.cut_means_loss)
            n = add(n, s, CUT, a != 0, FATE_NONE);
        if (works)
            n = add(n, s, SECOND, a != 0, FATE_NONE);
    }
    return add(n, s, CANCEL, s->at_a, FATE_NONE);
}

int
walk(const struct story_list *list, const char *only)
{
    static struct CMUnitTest tests[MAX_PLANS + 1];
    size_t n = 0;

    log_init(LOG_LEVEL_ERROR);
    evthread_use_pthreads();
    if (only != NULL)
        cmocka_set_test_filter(only);
    for (size_t i = 0; i < list->n; i++)
        n = plan_story(n, &list->stories[i]);
    for (size_t i = 0; i < n; i++)
        tests[i] = (struct CMUnitTest){ .name = plans[i].title,
                                        .test_func = test_plan,
                                        .initial_state = &plans[i] };
    tests[n] = (struct CMUnitTest)cmocka_unit_test(each_operation_has_its_story);
    return _cmocka_run_group_tests("tests", tests, n + 1, NULL, NULL);
}
