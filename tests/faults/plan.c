#include "tests/faults/plan.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/faults/scenario.h"

#define MAX_REPAIR_STEPS 160
#define STRIDE           7919 /* a prime: spreads the second kills over them */

static const char *const action_names[FAULTLINE_N_ACTIONS] = {
    [FAULTLINE_COUNT] = "count",       [FAULTLINE_KILL] = "kill",
    [FAULTLINE_TORN] = "torn",         [FAULTLINE_KILL_CHILD] = "kill-child",
    [FAULTLINE_KILL_ALL] = "kill-all", [FAULTLINE_FULL] = "full",
    [FAULTLINE_CUT] = "cut",
};

const char *
plan_action_name(enum faultline_action action)
{
    return action_names[action];
}

bool
plan_parse_action(const char *name, enum faultline_action *ret)
{
    for (size_t i = FAULTLINE_KILL; i < FAULTLINE_N_ACTIONS; i++)
        if (strcmp(name, action_names[i]) == 0) {
            *ret = (enum faultline_action)i;
            return true;
        }
    return false;
}

const char *
plan_process_name(uint32_t process)
{
    static const char *const names[FAULTLINE_N_PROCESSES] = {
        [FAULTLINE_STORE] = "store",
        [FAULTLINE_IMG] = "qemu-img",
        [FAULTLINE_DAEMON] = "qemu-storage-daemon",
    };

    return names[process];
}

/* --- runs -----------------------------------------------------------------------------
 */

static void
plan_fault(struct arena *a, enum faultline_action action, uint32_t process,
           uint32_t number)
{
    memset(a->state, 0, offsetof(struct faultline_state, steps));
    a->state->action = action;
    a->state->at_process = process;
    a->state->at_number = number;
}

static bool
failed(struct arena *a, const char *what, int status, struct error **err)
{
    AUTOFREE(char) *text = arena_messages(a);

    return error_set(err, ERROR_INTERNAL, "%s (status %x): %s", what, (unsigned)status,
                     text);
}

/* A command that must succeed, no fault in sight. */
static bool
run_undisturbed(struct arena *a, const char *command, struct error **err)
{
    int status = 0;

    if (!arena_run(a, command, ARENA_NO_FAULT, &status, err))
        return false;
    return status == 0 || failed(a, command, status, err);
}

static bool
kills_subject(enum faultline_action action)
{
    return action != FAULTLINE_COUNT && action != FAULTLINE_KILL_CHILD &&
           action != FAULTLINE_FULL;
}

/* A command with its fault: it must end as the fault wants. */
static bool
run_to_fault(struct arena *a, const char *command, bool *ret_fired, struct error **err)
{
    bool killed;
    int status = 0;

    if (!arena_run(a, command, ARENA_PLANNED, &status, err))
        return false;
    *ret_fired = atomic_load(&a->state->fired) != 0;
    killed = *ret_fired && kills_subject(a->state->action);
    if (killed ? !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL : status != 0)
        return failed(a, killed ? "it was not killed" : command, status, err);
    return a->state->action != FAULTLINE_CUT || !*ret_fired || arena_power_on(a, err);
}

/* --- parts --------------------------------------------------------------------------
 */

/* What the part begins with. */
static bool
begin_part(struct arena *a, const char *name, struct error **err)
{
    const struct scenario_part *part = scenario_find(name);

    return arena_clear(a, err) &&
           (part->after == NULL || arena_restore(a, part->after, err));
}

static bool
run_part(struct arena *a, const struct scenario_part *part, struct error **err)
{
    return (begin_part(a, part->name, err) && run_undisturbed(a, part->name, err) &&
            (part->destroys || arena_save(a, part->name, err))) ||
           error_prefix(err, "part '%s' without a fault", part->name);
}

bool
plan_prepare(struct arena *a, struct error **err)
{
    size_t n;
    const struct scenario_part *parts = scenario_parts(&n);

    if (!arena_clear(a, err) || !run_undisturbed(a, "originals", err))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!run_part(a, &parts[i], err))
            return false;
    return true;
}

static void
take_steps(struct arena *a, const char *part, struct plan_steps *ret)
{
    uint32_t n = a->state->n_steps;

    ret->items = mem_realloc(ret->items, ret->n + n, sizeof *ret->items);
    for (uint32_t i = 0; i < n; i++)
        ret->items[ret->n++] = (struct plan_step){ part, a->state->steps[i] };
}

static bool
count_part(struct arena *a, const char *part, struct plan_steps *ret, struct error **err)
{
    bool fired;

    if (!begin_part(a, part, err))
        return false;
    plan_fault(a, FAULTLINE_COUNT, 0, 0);
    if (!run_to_fault(a, part, &fired, err) || !run_undisturbed(a, "verify", err))
        return error_prefix(err, "part '%s' without a fault", part);
    if (a->state->n_steps > FAULTLINE_MAX_STEPS)
        return error_set(err, ERROR_INTERNAL, "%u steps are too many", a->state->n_steps);
    take_steps(a, part, ret);
    return true;
}

bool
plan_count(const struct plan_settings *settings, struct arena *a, struct plan_steps *ret,
           struct error **err)
{
    size_t n;
    const struct scenario_part *parts = scenario_parts(&n);

    for (size_t i = 0; i < n; i++)
        if (parts[i].destroys == settings->destroying &&
            !count_part(a, parts[i].name, ret, err))
            return false;
    return true;
}

void
plan_steps_clear(struct plan_steps *s)
{
    free(s->items);
    *s = (struct plan_steps){ NULL, 0 };
}

/* --- which steps ----------------------------------------------------------------------
 */

static bool
is_write(const struct faultline_step *step)
{
    return strstr(step->call, "write") != NULL;
}

static bool
is_sync(const struct faultline_step *step)
{
    return strcmp(step->call, "fsync") == 0 || strcmp(step->call, "fdatasync") == 0;
}

static bool
takes_space(const struct faultline_step *step)
{
    static const char *const calls[] = { "open", "ftruncate", "fallocate", "mkdir",
                                         "bind" };

    for (size_t i = 0; i < N_ELEMENTS(calls); i++)
        if (strcmp(step->call, calls[i]) == 0)
            return true;
    return is_write(step);
}

/* A process that is killed before it syncs leaves the same as one that is killed then. */
static bool
leaves_the_same(const struct faultline_step *step, const struct faultline_step *next)
{
    return is_sync(step) && next->process == step->process &&
           next->promises == step->promises && next->helped == step->helped;
}

/* A helper goes on when the store's process dies: how far it was then is of no matter. */
static bool
goes_on_the_same(const struct faultline_step *step, const struct faultline_step *next)
{
    return step->process != FAULTLINE_STORE && next->process == step->process;
}

/* A helper's death is noticed when something is asked of it, which is a step of its own
   or follows its start. */
static bool
is_missed_the_same(const struct faultline_step *step, const struct faultline_step *next)
{
    return step->process == FAULTLINE_STORE && next->process == FAULTLINE_STORE &&
           next->helped != 0 && strcmp(step->phase, next->phase) == 0 &&
           strcmp(step->call, "spawn") != 0 && strcmp(next->call, "spawn") != 0;
}

/*
 * What was not synced is lost at a cut: as much before the next sync as here, unless
 * more was promised meanwhile. The store's own pwrite() may go past the page cache.
 */
static bool
loses_the_same(const struct faultline_step *step, const struct faultline_step *next)
{
    bool direct = step->process == FAULTLINE_STORE && strcmp(step->call, "pwrite") == 0;

    return !is_sync(step) && !direct && next->promises == step->promises;
}

/* qemu-img gives up at the first thing that does not fit; what it has made by then is
   what it leaves when it is killed. */
static bool
gives_up_the_same(const struct faultline_step *before, const struct faultline_step *step,
                  const struct faultline_step *next)
{
    return step->process == FAULTLINE_IMG && before->process == FAULTLINE_IMG &&
           next->process == FAULTLINE_IMG;
}

/* Is the fault here the same as at the step behind it? All three are of one part. */
static bool
is_the_same(enum faultline_action action, const struct faultline_step *before,
            const struct faultline_step *step, const struct faultline_step *next)
{
    switch (action) {
    case FAULTLINE_KILL:
        return leaves_the_same(step, next) || goes_on_the_same(step, next);
    case FAULTLINE_KILL_CHILD:
        return leaves_the_same(step, next) || is_missed_the_same(step, next);
    case FAULTLINE_KILL_ALL:
        return leaves_the_same(step, next);
    case FAULTLINE_CUT:
        return loses_the_same(step, next);
    case FAULTLINE_FULL:
        return gives_up_the_same(before, step, next);
    case FAULTLINE_TORN:
    case FAULTLINE_COUNT:
    case FAULTLINE_N_ACTIONS:
        break;
    }
    return false;
}

/* Can it happen there, and is it not the same as a kill of the store's process? */
static bool
applies(enum faultline_action action, const struct faultline_step *step)
{
    switch (action) {
    case FAULTLINE_KILL:
    case FAULTLINE_CUT:
        return true;
    case FAULTLINE_KILL_CHILD:
    case FAULTLINE_KILL_ALL:
        return step->helped != 0;
    case FAULTLINE_TORN:
        return is_write(step) && step->bytes > FAULTLINE_SECTOR;
    case FAULTLINE_FULL:
        return takes_space(step);
    case FAULTLINE_COUNT:
    case FAULTLINE_N_ACTIONS:
        break;
    }
    return false;
}

/* At other steps the fault would be the same as at the next one, or as another fault. */
static bool
makes_a_difference(enum faultline_action action, const struct plan_step *steps, size_t n,
                   size_t which)
{
    const struct plan_step *s = &steps[which];
    bool inside =
        which > 0 && which + 1 < n && s[-1].part == s->part && s[1].part == s->part;

    return applies(action, &s->step) &&
           (!inside || !is_the_same(action, &s[-1].step, &s->step, &s[1].step));
}

static bool
is_same_sort(const struct plan_step *a, const struct plan_step *b)
{
    return a->step.process == b->step.process &&
           strcmp(a->step.phase, b->step.phase) == 0 &&
           strcmp(a->step.call, b->step.call) == 0;
}

/* What ends the helpers is looked at in the helpers. */
static bool
is_of_helpers(enum faultline_action action)
{
    return action == FAULTLINE_KILL_CHILD || action == FAULTLINE_KILL_ALL;
}

/* Of each sort one near the middle; another one for each kind of fault. */
static bool
is_chosen(enum faultline_action action, const struct plan_target *targets, size_t n,
          size_t which)
{
    const struct plan_step *step = &targets[which].at;
    size_t before = 0, count = 0;

    if (is_of_helpers(action) && step->step.process == FAULTLINE_STORE)
        return false;
    for (size_t i = 0; i < n; i++)
        if (is_same_sort(&targets[i].at, step)) {
            count++;
            before += i < which;
        }
    return before == (count / 2 + action) % count;
}

/* Is the one in this place among the few that are wanted, or the one? */
static bool
is_wanted(const struct plan_settings *settings, size_t place, size_t n)
{
    if (settings->at > 0)
        return place == settings->at;
    return settings->few == 0 ||
           place * settings->few / n > (place - 1) * settings->few / n;
}

/* One of each sort stays. */
static void
keep_chosen(const struct plan_settings *settings, struct plan *p)
{
    AUTOFREE(bool) *chosen = mem_alloc(p->n + 1, sizeof *chosen);
    size_t n = p->n;

    for (size_t i = 0; i < n; i++)
        chosen[i] = settings->all || is_chosen(settings->action, p->targets, n, i);
    p->n = 0;
    for (size_t i = 0; i < n; i++)
        if (chosen[i])
            p->targets[p->n++] = p->targets[i];
}

/* Most of them are left out if only few are wanted. */
static void
keep_wanted(const struct plan_settings *settings, struct plan *p)
{
    size_t n = p->n;

    p->n = 0;
    for (size_t i = 0; i < n; i++)
        if (is_wanted(settings, i + 1, n)) {
            p->targets[p->n] = p->targets[i];
            p->targets[p->n++].place = i + 1;
        }
}

static size_t
map_bytes(size_t n_targets)
{
    return 2 * sizeof(_Atomic size_t) + n_targets * sizeof(struct plan_target);
}

static void
map_targets(struct plan *p, size_t n)
{
    void *map = mmap(NULL, map_bytes(n), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (map == MAP_FAILED)
        abort();
    p->n_mapped = n;
    p->taken = map;
    p->done = p->taken + 1;
    p->targets = (struct plan_target *)(void *)(p->taken + 2);
}

void
plan_make(const struct plan_settings *settings, const struct plan_steps *steps,
          struct plan *ret)
{
    *ret = (struct plan){ .n = 0 };
    map_targets(ret, steps->n);
    for (size_t i = 0; i < steps->n; i++)
        if (makes_a_difference(settings->action, steps->items, steps->n, i))
            ret->targets[ret->n++].at = steps->items[i];
    ret->n_different = ret->n;
    keep_chosen(settings, ret);
    keep_wanted(settings, ret);
}

void
plan_clear(struct plan *p)
{
    munmap(p->taken, map_bytes(p->n_mapped));
    *p = (struct plan){ .n = 0 };
}

/* --- one fault ------------------------------------------------------------------------
 */

static bool
disturb_repair(struct arena *a, size_t place, struct error **err)
{
    uint32_t number = (uint32_t)(1 + place * STRIDE % MAX_REPAIR_STEPS);
    bool fired;

    plan_fault(a, FAULTLINE_KILL, FAULTLINE_STORE, number);
    return run_to_fault(a, "verify", &fired, err) ||
           error_prefix(err, "killed again at %u", number);
}

static size_t
points_seen(struct arena *a)
{
    AUTOFREE(char) *text = arena_messages(a);
    size_t n = 0;

    return sscanf(text, "%zu points", &n) == 1 ? n : 0;
}

static bool
try_target(const struct plan_settings *settings, struct arena *a, struct plan_target *t,
           struct error **err)
{
    bool fired = false, ok;

    if (!begin_part(a, t->at.part, err))
        return false;
    plan_fault(a, settings->action, t->at.step.process, t->at.step.number);
    ok = run_to_fault(a, t->at.part, &fired, err);
    t->met = a->state->fired_at;
    if (!ok)
        return false;
    if (!fired) {
        t->outcome = PLAN_NOT_MET; /* QEMU's programs join writes as they like */
        return t->at.step.process != FAULTLINE_STORE ||
               error_set(err, ERROR_INTERNAL, "the step did not come");
    }
    t->outcome = PLAN_OK;
    if ((settings->twice && !disturb_repair(a, t->place, err)) ||
        !run_undisturbed(a, "verify", err))
        return false;
    t->n_points = points_seen(a);
    return true;
}

void
plan_try(const struct plan_settings *settings, struct arena *a, struct plan_target *t)
{
    AUTOPTR(error) *err = NULL;

    if (try_target(settings, a, t, &err))
        return;
    t->outcome = PLAN_FAILED;
    snprintf(t->text, sizeof t->text, "%s", error_message(err));
}
