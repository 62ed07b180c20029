/*
 * Lets one kind of fault happen at each step of what a store does, and looks
 * each time whether every acknowledged point is there. Prints TAP.
 *
 *     enumerate [--all] [--twice] [--fs xfs|ext4] [--jobs N] FAULT
 *
 * FAULT is kill, torn, kill-child, kill-all, full or cut. Without --all one step
 * of each sort (phase, process, call) is taken, with it every step. --twice kills
 * once more while the store is being repaired. First the steps are counted in a
 * run without a fault.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/units.h"
#include "tests/faults/arena.h"

#define MAX_JOBS         64
#define MAX_REPAIR_STEPS 160
#define TEXT_MAX         1000

struct settings {
    enum faultline_action action;
    bool all;
    bool twice;
    const char *fs;
    size_t n_jobs;
    char *tools;
};

enum outcome {
    OUTCOME_NONE,
    OUTCOME_OK,
    OUTCOME_NOT_REACHED,
    OUTCOME_FAILED
};

/* One step that a fault happens at. In memory that all jobs share. */
struct target {
    struct faultline_step step;
    enum outcome outcome;
    struct faultline_step met; /* where it happened really */
    char text[TEXT_MAX];
};

struct plan {
    struct target *targets;
    size_t n;
    size_t n_steps;
};

static const char *const action_names[FAULTLINE_N_ACTIONS] = {
    [FAULTLINE_COUNT] = "count",       [FAULTLINE_KILL] = "kill",
    [FAULTLINE_TORN] = "torn",         [FAULTLINE_KILL_CHILD] = "kill-child",
    [FAULTLINE_KILL_ALL] = "kill-all", [FAULTLINE_FULL] = "full",
    [FAULTLINE_CUT] = "cut",
};

static const char *const process_names[FAULTLINE_N_PROCESSES] = {
    [FAULTLINE_STORE] = "store",
    [FAULTLINE_IMG] = "qemu-img",
    [FAULTLINE_DAEMON] = "qemu-storage-daemon",
};

/* --- which steps ----------------------------------------------------------------------
 */

static bool
is_write(const struct faultline_step *step)
{
    return strstr(step->call, "write") != NULL;
}

/* Faults that do the same at this step as at the next one are left out. */
static bool
is_of_use(const struct settings *settings, const struct faultline_step *step)
{
    static const char *const calls[] = { "open", "ftruncate", "fallocate", "mkdir",
                                         "bind" };

    if (settings->action == FAULTLINE_TORN)
        return is_write(step);
    if (settings->action != FAULTLINE_FULL)
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

/* Of each sort the one in the middle, which one differs with the fault. */
static bool
is_chosen(const struct settings *settings, const struct faultline_step *steps, size_t n,
          size_t which)
{
    size_t before = 0, count = 0;

    for (size_t i = 0; i < n; i++)
        if (is_same_sort(&steps[i], &steps[which])) {
            count++;
            before += i < which;
        }
    return settings->all || before == (count / 2 + settings->action) % count;
}

static void
choose_targets(const struct settings *settings, const struct arena *a, struct plan *ret)
{
    size_t n = MIN(a->state->n_steps, FAULTLINE_MAX_STEPS);
    size_t size = (n + 1) * sizeof *ret->targets;

    ret->targets =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (ret->targets == MAP_FAILED)
        abort();
    for (size_t i = 0; i < n; i++)
        if (is_of_use(settings, &a->state->steps[i])) {
            ret->n_steps++;
            if (is_chosen(settings, a->state->steps, n, i))
                ret->targets[ret->n++].step = a->state->steps[i];
        }
}

/* A run without a fault, and a look at what it has made. */
static bool
count_steps(struct arena *a, struct error **err)
{
    int status = 0;

    if (!arena_clear(a, err) || !arena_run(a, "run", true, &status, err))
        return false;
    if (status == 0 && !arena_run(a, "verify", false, &status, err))
        return false;
    if (status != 0) {
        AUTOFREE(char) *text = arena_messages(a);

        return error_set(err, ERROR_INTERNAL, "a run without a fault: %s", text);
    }
    if (a->state->n_steps > FAULTLINE_MAX_STEPS)
        return error_set(err, ERROR_INTERNAL, "there are %u steps", a->state->n_steps);
    return true;
}

/* --- one fault ------------------------------------------------------------------------
 */

static bool
failed_text(struct arena *a, const char *what, int status, struct error **err)
{
    AUTOFREE(char) *text = arena_messages(a);

    return error_set(err, ERROR_INTERNAL, "%s (status %x): %s", what, (unsigned)status,
                     text);
}

static bool
kills_subject(enum faultline_action action)
{
    return action != FAULTLINE_KILL_CHILD && action != FAULTLINE_FULL;
}

static void
plan_fault(struct arena *a, enum faultline_action action, uint32_t process,
           uint32_t number)
{
    memset(a->state, 0, offsetof(struct faultline_state, steps));
    a->state->action = action;
    a->state->at_process = process;
    a->state->at_number = number;
}

/* Runs a command with its fault; the subject must end as the fault wants. */
static bool
run_to_fault(struct arena *a, const char *command, bool *ret_fired, struct error **err)
{
    bool killed;
    int status = 0;

    if (!arena_run(a, command, true, &status, err))
        return false;
    *ret_fired = atomic_load(&a->state->fired) != 0;
    killed = *ret_fired && kills_subject(a->state->action);
    if (killed ? !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL : status != 0)
        return failed_text(a, killed ? "it was not killed" : command, status, err);
    return a->state->action != FAULTLINE_CUT || !*ret_fired || arena_power_on(a, err);
}

static bool
verify(struct arena *a, struct error **err)
{
    int status = 0;

    if (!arena_run(a, "verify", false, &status, err))
        return false;
    return status == 0 || failed_text(a, "verify", status, err);
}

/* A second kill, somewhere in the repair. */
static bool
disturb_repair(struct arena *a, size_t index, struct error **err)
{
    uint32_t number = (uint32_t)(1 + index * 7919 % MAX_REPAIR_STEPS);
    bool fired;

    plan_fault(a, FAULTLINE_KILL, FAULTLINE_STORE, number);
    return run_to_fault(a, "verify", &fired, err) ||
           error_prefix(err, "killed again at %u", number);
}

static bool
try_target(const struct settings *settings, struct arena *a, struct target *t,
           size_t index, struct error **err)
{
    bool fired = false, ok;

    if (!arena_clear(a, err))
        return false;
    plan_fault(a, settings->action, t->step.process, t->step.number);
    ok = run_to_fault(a, "run", &fired, err);
    t->met = a->state->fired_at;
    if (!ok)
        return false;
    if (!fired) {
        /* The storage daemon joins writes as it likes. */
        t->outcome = OUTCOME_NOT_REACHED;
        return t->step.process == FAULTLINE_DAEMON ||
               error_set(err, ERROR_INTERNAL, "the step was not reached");
    }
    if (settings->twice && !disturb_repair(a, index, err))
        return false;
    return verify(a, err);
}

static void
run_target(const struct settings *settings, struct arena *a, struct target *t,
           size_t index)
{
    AUTOPTR(error) *err = NULL;

    if (try_target(settings, a, t, index, &err)) {
        if (t->outcome == OUTCOME_NONE)
            t->outcome = OUTCOME_OK;
        return;
    }
    t->outcome = OUTCOME_FAILED;
    snprintf(t->text, sizeof t->text, "%s", error_message(err));
}

/* --- all of them ----------------------------------------------------------------------
 */

/* Takes every n_jobs-th target. */
static bool
run_job(const struct settings *settings, struct plan *plan, size_t job)
{
    AUTOPTR(error) *err = NULL;
    struct arena a;

    if (!arena_open(settings->tools, settings->fs, &a, &err)) {
        fprintf(stderr, "%s\n", error_message(err));
        return false;
    }
    for (size_t i = job; i < plan->n; i += settings->n_jobs)
        run_target(settings, &a, &plan->targets[i], i);
    arena_close(&a);
    return true;
}

static bool
run_jobs(const struct settings *settings, struct plan *plan)
{
    pid_t pids[MAX_JOBS];
    bool ok = true;

    for (size_t i = 0; i < settings->n_jobs; i++) {
        pids[i] = fork();
        if (pids[i] == 0)
            _exit(run_job(settings, plan, i) ? 0 : 1);
    }
    for (size_t i = 0; i < settings->n_jobs; i++) {
        int status = 1;

        ok = waitpid(pids[i], &status, 0) == pids[i] && status == 0 && ok;
    }
    return ok;
}

/* --- TAP ------------------------------------------------------------------------------
 */

static bool
is_first_of_phase(const struct plan *plan, size_t which)
{
    for (size_t i = 0; i < which; i++)
        if (strcmp(plan->targets[i].step.phase, plan->targets[which].step.phase) == 0)
            return false;
    return true;
}

static void
show_target(const struct target *t)
{
    const struct faultline_step *s = t->met.number != 0 ? &t->met : &t->step;

    printf("# step %u of %s: phase %s, %s '%s'\n", s->number, process_names[s->process],
           s->phase, s->call, s->file);
    for (const char *line = t->text; *line != '\0';) {
        size_t n = strcspn(line, "\n");

        printf("#   %.*s\n", (int)n, line);
        line += n + (line[n] == '\n');
    }
}

/* One test for all targets of a phase. */
static bool
report_phase(const struct settings *settings, const struct plan *plan, size_t first,
             unsigned number)
{
    const char *phase = plan->targets[first].step.phase;
    size_t n = 0, failed = 0;

    for (size_t i = first; i < plan->n; i++)
        if (strcmp(plan->targets[i].step.phase, phase) == 0) {
            const struct target *t = &plan->targets[i];

            n += t->outcome == OUTCOME_OK;
            if (t->outcome == OUTCOME_FAILED || t->outcome == OUTCOME_NONE) {
                failed++;
                show_target(t);
            }
        }
    printf("%s %u - %s: %s at %zu steps loses no point\n", failed == 0 ? "ok" : "not ok",
           number, phase, action_names[settings->action], n + failed);
    return failed == 0;
}

static bool
report(const struct settings *settings, const struct plan *plan)
{
    size_t done = 0, n_not_reached = 0;
    unsigned number = 0;
    bool ok = true;

    for (size_t i = 0; i < plan->n; i++) {
        if (is_first_of_phase(plan, i))
            ok = report_phase(settings, plan, i, ++number) && ok;
        done += plan->targets[i].outcome == OUTCOME_OK;
        n_not_reached += plan->targets[i].outcome == OUTCOME_NOT_REACHED;
    }
    printf("# %s: %zu of %zu steps", action_names[settings->action], done, plan->n_steps);
    if (n_not_reached > 0)
        printf(", %zu not met by the storage daemon", n_not_reached);
    printf("\n1..%u\n", number);
    return ok;
}

/* --- main -----------------------------------------------------------------------------
 */

static bool
parse_action(const char *name, enum faultline_action *ret)
{
    for (size_t i = FAULTLINE_KILL; i < FAULTLINE_N_ACTIONS; i++)
        if (strcmp(name, action_names[i]) == 0) {
            *ret = (enum faultline_action)i;
            return true;
        }
    return false;
}

static bool
parse_options(int argc, char **argv, struct settings *ret)
{
    static const struct option options[] = {
        { "all", no_argument, NULL, 'a' },
        { "twice", no_argument, NULL, 't' },
        { "fs", required_argument, NULL, 'f' },
        { "jobs", required_argument, NULL, 'j' },
        { NULL, 0, NULL, 0 },
    };
    uint64_t n = 2;
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        if (c == 'a')
            ret->all = true;
        else if (c == 't')
            ret->twice = true;
        else if (c == 'f')
            ret->fs = optarg;
        else if (c != 'j' || !units_parse_u64(optarg, 1, MAX_JOBS, &n, NULL))
            return false;
    }
    ret->n_jobs = n;
    return optind == argc - 1 && parse_action(argv[optind], &ret->action);
}

static bool
prepare(const struct settings *settings, struct plan *plan, struct error **err)
{
    struct arena a;
    bool ok;

    if (!arena_open(settings->tools, settings->fs, &a, err))
        return false;
    ok = count_steps(&a, err);
    if (ok)
        choose_targets(settings, &a, plan);
    arena_close(&a);
    return ok;
}

int
main(int argc, char **argv)
{
    AUTOFREE(char) *path = realpath(argv[0], NULL);
    struct settings settings = { .action = FAULTLINE_KILL };
    struct plan plan = { .n = 0 };
    AUTOPTR(error) *err = NULL;

    if (path == NULL || !parse_options(argc, argv, &settings)) {
        fprintf(stderr, "usage: %s [--all] [--twice] [--fs xfs|ext4] [--jobs N] FAULT\n",
                argv[0]);
        return 2;
    }
    settings.tools = dirname(path);
    if (!prepare(&settings, &plan, &err)) {
        printf("Bail out! %s\n", error_message(err));
        return 1;
    }
    if (!run_jobs(&settings, &plan))
        printf("# a job failed\n");
    return report(&settings, &plan) ? 0 : 1;
}
