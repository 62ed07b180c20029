#include "tests/faults/plan.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

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

static const char *
prepare(const struct plan_settings *settings, struct arena *a, struct error **err)
{
    if (!arena_clear(a, err))
        return NULL;
    if (!settings->destroying)
        return "run";
    return run_undisturbed(a, "run", err) ? "destroy" : NULL;
}

/* --- which steps ----------------------------------------------------------------------
 */

static bool
is_write(const struct faultline_step *step)
{
    return strstr(step->call, "write") != NULL;
}

/* At other steps the fault would be the same as at the next one. */
static bool
makes_a_difference(enum faultline_action action, const struct faultline_step *step)
{
    static const char *const calls[] = { "open", "ftruncate", "fallocate", "mkdir",
                                         "bind" };

    if (action == FAULTLINE_TORN)
        return is_write(step);
    if (action != FAULTLINE_FULL)
        return true;
    for (size_t i = 0; i < N_ELEMENTS(calls); i++)
        if (strcmp(step->call, calls[i]) == 0)
            return true;
    return is_write(step);
}

static bool
is_same_sort(const struct faultline_step *a, const struct faultline_step *b)
{
    return a->process == b->process && strcmp(a->phase, b->phase) == 0 &&
           strcmp(a->call, b->call) == 0;
}

/* What ends the helpers is looked at in the helpers. */
static bool
is_of_helpers(enum faultline_action action)
{
    return action == FAULTLINE_KILL_CHILD || action == FAULTLINE_KILL_ALL;
}

/* Of each sort one near the middle; another one for each kind of fault. */
static bool
is_chosen(enum faultline_action action, const struct faultline_step *steps, size_t n,
          size_t which)
{
    size_t before = 0, count = 0;

    if (is_of_helpers(action) && steps[which].process == FAULTLINE_STORE)
        return false;

    for (size_t i = 0; i < n; i++)
        if (is_same_sort(&steps[i], &steps[which])) {
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

static void
choose(const struct plan_settings *settings, const struct faultline_step *steps, size_t n,
       struct plan *ret)
{
    size_t size = (n + 1) * sizeof *ret->targets;

    ret->targets =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (ret->targets == MAP_FAILED)
        abort();
    for (size_t i = 0; i < n; i++)
        if (makes_a_difference(settings->action, &steps[i])) {
            ret->n_steps++;
            if (settings->all || is_chosen(settings->action, steps, n, i))
                ret->targets[ret->n++].step = steps[i];
        }
    keep_wanted(settings, ret);
}

bool
plan_make(const struct plan_settings *settings, struct arena *a, struct plan *ret,
          struct error **err)
{
    const char *command = prepare(settings, a, err);
    struct plan p = { .n = 0 };
    bool fired;

    if (command == NULL)
        return false;
    plan_fault(a, FAULTLINE_COUNT, 0, 0);
    if (!run_to_fault(a, command, &fired, err) || !run_undisturbed(a, "verify", err))
        return error_prefix(err, "without a fault");
    if (a->state->n_steps > FAULTLINE_MAX_STEPS)
        return error_set(err, ERROR_INTERNAL, "%u steps are too many", a->state->n_steps);
    choose(settings, a->state->steps, a->state->n_steps, &p);
    *ret = p;
    return true;
}

void
plan_clear(struct plan *p)
{
    if (p->targets != NULL)
        munmap(p->targets, (p->n + 1) * sizeof *p->targets);
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

static bool
try_target(const struct plan_settings *settings, struct arena *a, struct plan_target *t,
           struct error **err)
{
    const char *command = prepare(settings, a, err);
    bool fired = false, ok;

    if (command == NULL)
        return false;
    plan_fault(a, settings->action, t->step.process, t->step.number);
    ok = run_to_fault(a, command, &fired, err);
    t->met = a->state->fired_at;
    if (!ok)
        return false;
    if (!fired) {
        t->outcome = PLAN_NOT_MET; /* QEMU's programs join writes as they like */
        return t->step.process != FAULTLINE_STORE ||
               error_set(err, ERROR_INTERNAL, "the step did not come");
    }
    t->outcome = PLAN_OK;
    return (!settings->twice || disturb_repair(a, t->place, err)) &&
           run_undisturbed(a, "verify", err);
}

void
plan_try(const struct plan_settings *settings, struct arena *a, struct plan *p,
         size_t index)
{
    struct plan_target *t = &p->targets[index];
    AUTOPTR(error) *err = NULL;

    if (try_target(settings, a, t, &err))
        return;
    t->outcome = PLAN_FAILED;
    snprintf(t->text, sizeof t->text, "%s", error_message(err));
}
