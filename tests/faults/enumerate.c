/*
 * Lets faults happen at each step of what a store does, and looks each time
 * whether every acknowledged point is there. Prints TAP.
 *
 *     enumerate [--all | --few N] [--at N] [--twice] [--destroy] [--fs xfs|ext4] [--jobs
 * N] FAULT...
 *
 * FAULT is kill, torn, kill-child, kill-all, full or cut (which needs --fs).
 * One step of each sort (phase, process, call) is taken, with --all every step at which
 * the fault makes a difference, with --few some N of them, spread over all sorts. --at N
 * is one step alone, the Nth of what would be taken; what a failed step was is told with
 * it. --twice kills once more while the store is being repaired.
 * --destroy: the steps of the store's removal. How far it is goes to stderr.
 */
#include <getopt.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/units.h"
#include "tests/faults/plan.h"

#define MAX_JOBS     16
#define TOLD_EVERY   50 /* steps */
#define MS_OF_SECOND 1000

struct settings {
    struct plan_settings plan;
    size_t n_jobs;
    char *tools;
    struct arena arenas[MAX_JOBS]; /* one for each job */
    size_t n_arenas;
    unsigned n_tests; /* so far */
};

/* --- the jobs -------------------------------------------------------------------------
 */

static void
tell_progress(const struct settings *settings, const struct plan *plan, int64_t since_ms)
{
    size_t done = atomic_fetch_add(plan->done, 1) + 1;

    if (done % TOLD_EVERY == 0)
        fprintf(stderr, "# %s: %zu of %zu steps, %lld s\n",
                plan_action_name(settings->plan.action), done, plan->n,
                (long long)(units_monotonic_ms() - since_ms) / MS_OF_SECOND);
}

/* Takes targets as long as there are any. */
static bool
try_targets(struct settings *settings, struct arena *a, struct plan *plan)
{
    int64_t since_ms = units_monotonic_ms();

    for (size_t i = atomic_fetch_add(plan->taken, 1); i < plan->n;
         i = atomic_fetch_add(plan->taken, 1)) {
        plan_try(&settings->plan, a, &plan->targets[i]);
        if (plan->targets[i].outcome == PLAN_FAILED)
            fprintf(stderr, "# --at %zu failed: %s\n", plan->targets[i].place,
                    plan->targets[i].text);
        tell_progress(settings, plan, since_ms);
    }
    return true;
}

static bool
prepare(struct settings *settings UNUSED, struct arena *a, struct plan *plan UNUSED)
{
    AUTOPTR(error) *err = NULL;
    bool ok = plan_prepare(a, &err);

    if (!ok)
        fprintf(stderr, "%s\n", error_message(err));
    return ok;
}

typedef bool (*job_fn)(struct settings *settings, struct arena *a, struct plan *plan);

/* Each job in a process of its own, with its arena. */
static bool
run_jobs(struct settings *settings, job_fn job, struct plan *plan)
{
    pid_t pids[MAX_JOBS];
    bool ok = true;

    fflush(stdout);
    for (size_t i = 0; i < settings->n_arenas; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            arena_take_over();
            ok = job(settings, &settings->arenas[i], plan);
            arena_end_helpers();
            _exit(ok ? 0 : 1);
        }
    }
    for (size_t i = 0; i < settings->n_arenas; i++) {
        int status = 1;

        ok = waitpid(pids[i], &status, 0) == pids[i] && status == 0 && ok;
    }
    return ok;
}

/* --- TAP ------------------------------------------------------------------------------
 */

static void
show_text(const char *text)
{
    while (*text != '\0') {
        size_t n = strcspn(text, "\n");

        printf("#   %.*s\n", (int)n, text);
        text += n + (text[n] == '\n');
    }
}

static void
show_target(const struct plan_target *t)
{
    const struct faultline_step *s = t->met.number != 0 ? &t->met : &t->at.step;

    printf("# part %s, step %u of %s: phase %s, %s '%s' (--at %zu)\n", t->at.part,
           s->number, plan_process_name(s->process), s->phase, s->call, s->file,
           t->place);
    show_text(t->text);
}

static bool
is_of_phase(const struct plan *plan, size_t i, const char *phase)
{
    return strcmp(plan->targets[i].at.step.phase, phase) == 0;
}

static bool
is_first_of_phase(const struct plan *plan, size_t which)
{
    for (size_t i = 0; i < which; i++)
        if (is_of_phase(plan, i, plan->targets[which].at.step.phase))
            return false;
    return true;
}

/* One test for all targets of a phase. */
static bool
report_phase(struct settings *settings, const struct plan *plan, size_t first)
{
    const char *phase = plan->targets[first].at.step.phase;
    size_t n = 0, n_failed = 0;

    for (size_t i = first; i < plan->n; i++) {
        const struct plan_target *t = &plan->targets[i];

        if (!is_of_phase(plan, i, phase))
            continue;
        n++;
        if (t->outcome == PLAN_FAILED || t->outcome == PLAN_NOT_TRIED) {
            n_failed++;
            show_target(t);
        }
    }
    printf("%sok %u - %s at %zu steps of %s%s loses no point\n",
           n_failed == 0 ? "" : "not ", ++settings->n_tests,
           plan_action_name(settings->plan.action), n, phase,
           settings->plan.twice ? ", and a kill in the repair," : "");
    return n_failed == 0;
}

static bool
report(struct settings *settings, const struct plan *plan, const struct plan_steps *steps,
       int64_t took_ms)
{
    size_t n_ok = 0, n_not_met = 0, n_points = 0;
    bool ok = true;

    for (size_t i = 0; i < plan->n; i++) {
        if (is_first_of_phase(plan, i))
            ok = report_phase(settings, plan, i) && ok;
        n_ok += plan->targets[i].outcome == PLAN_OK;
        n_not_met += plan->targets[i].outcome == PLAN_NOT_MET;
        n_points += plan->targets[i].n_points;
    }
    printf("# %s: at %zu of %zu steps; it makes a difference at %zu of them",
           plan_action_name(settings->plan.action), n_ok, steps->n, plan->n_different);
    if (n_not_met > 0)
        printf("; %zu more did not come this time", n_not_met);
    printf("; %zu points seen, %lld s\n", n_points, (long long)took_ms / MS_OF_SECOND);
    return ok;
}

/* --- main -----------------------------------------------------------------------------
 */

/* An environment without loop devices is no fault of the store. */
static bool
skip(const char *why)
{
    const char *required = getenv("REQUIRE_REAL");

    if (required != NULL && strcmp(required, "1") == 0) {
        printf("Bail out! %s, and REQUIRE_REAL=1\n", why);
        return false;
    }
    printf("1..0 # SKIP %s\n", why);
    return true;
}

/* Does a cut lose what it shall, and nothing else? All that follows depends on it. */
static bool
check_cut(struct settings *settings, struct arena *a)
{
    AUTOPTR(error) *err = NULL;
    bool ok = arena_check_cut(a, &err);

    if (!ok)
        show_text(error_message(err));
    printf("%sok %u - a power cut of %s loses what was not synced, and only that\n",
           ok ? "" : "not ", ++settings->n_tests, a->fs);
    return ok;
}

static bool
check_name(const struct settings *settings, const char *name,
           enum faultline_action *ret_action)
{
    if (plan_parse_action(name, ret_action) &&
        (*ret_action != FAULTLINE_CUT || settings->plan.fs != NULL))
        return true;
    printf("Bail out! '%s' is no fault, or needs --fs\n", name);
    return false;
}

static bool
run_fault(struct settings *settings, const char *name, const struct plan_steps *steps)
{
    int64_t since_ms = units_monotonic_ms();
    struct plan plan;
    bool ok;

    if (!check_name(settings, name, &settings->plan.action))
        return false;
    plan_make(&settings->plan, steps, &plan);
    ok = run_jobs(settings, try_targets, &plan);
    ok = report(settings, &plan, steps, units_monotonic_ms() - since_ms) && ok;
    plan_clear(&plan);
    return ok;
}

/* Finds out which steps there are. */
static bool
run_faults(struct settings *settings, char *const *names, int n)
{
    struct plan_steps steps = { NULL, 0 };
    AUTOPTR(error) *err = NULL;
    bool ok;

    if (settings->plan.fs != NULL && !check_cut(settings, &settings->arenas[0]))
        return false;
    ok = run_jobs(settings, prepare, NULL) &&
         plan_count(&settings->plan, &settings->arenas[0], &steps, &err);
    if (!ok) {
        show_text(err != NULL ? error_message(err) : "see above");
        printf("not ok %u - the store works without a fault\n", ++settings->n_tests);
    }
    for (int i = 0; i < n && steps.n > 0; i++)
        ok = run_fault(settings, names[i], &steps) && ok;
    plan_steps_clear(&steps);
    return ok;
}

static bool
open_arenas(struct settings *settings, struct error **err)
{
    while (settings->n_arenas < settings->n_jobs) {
        if (!arena_open(settings->tools, settings->plan.fs,
                        &settings->arenas[settings->n_arenas], err))
            return false;
        settings->n_arenas++;
    }
    return true;
}

static void
close_arenas(struct settings *settings)
{
    while (settings->n_arenas > 0)
        arena_close(&settings->arenas[--settings->n_arenas]);
}

static bool
parse_options(int argc, char **argv, struct settings *ret)
{
    static const struct option options[] = {
        { "all", no_argument, NULL, 'a' },        { "destroy", no_argument, NULL, 'd' },
        { "few", required_argument, NULL, 'n' },  { "at", required_argument, NULL, 's' },
        { "twice", no_argument, NULL, 't' },      { "fs", required_argument, NULL, 'f' },
        { "jobs", required_argument, NULL, 'j' }, { NULL, 0, NULL, 0 },
    };
    uint64_t n = MIN((uint64_t)get_nprocs(), MAX_JOBS);
    bool ok = true;
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        if (c == 'a')
            ret->plan.all = true;
        else if (c == 'd')
            ret->plan.destroying = true;
        else if (c == 't')
            ret->plan.twice = true;
        else if (c == 'f')
            ret->plan.fs = optarg;
        else if (c == 'n')
            ok = ok && units_parse_u64(optarg, 1, UINT32_MAX, &ret->plan.few, NULL);
        else if (c == 's')
            ok = ok && units_parse_u64(optarg, 1, UINT32_MAX, &ret->plan.at, NULL);
        else
            ok = ok && c == 'j' && units_parse_u64(optarg, 1, MAX_JOBS, &n, NULL);
    }
    ret->n_jobs = n;
    return ok && optind < argc;
}

int
main(int argc, char **argv)
{
    AUTOFREE(char) *path = realpath(argv[0], NULL);
    struct settings settings = { .n_tests = 0 };
    AUTOPTR(error) *err = NULL;
    bool ok;

    if (path == NULL || !parse_options(argc, argv, &settings)) {
        fprintf(stderr,
                "usage: %s [--all | --few N] [--at N] [--twice] [--destroy] "
                "[--fs xfs|ext4] [--jobs N] FAULT...\n",
                argv[0]);
        return 2;
    }
    settings.tools = dirname(path);
    if (!open_arenas(&settings, &err)) {
        close_arenas(&settings);
        return skip(error_message(err)) ? 0 : 1;
    }
    ok = run_faults(&settings, argv + optind, argc - optind);
    close_arenas(&settings);
    printf("1..%u\n", settings.n_tests);
    return ok ? 0 : 1;
}
