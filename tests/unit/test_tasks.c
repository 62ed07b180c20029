/* The engine of the operations: order, undoing, cancelling, and kills at every step. */
#include "tests/unit/unit.h"

#include <event2/event.h>
#include <event2/thread.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/json.h"
#include "common/log.h"
#include "common/units.h"
#include "daemon/tasks.h"
#include "drivers/state/sqlite.h"
#include "tests/sim/files.h"

#define DEADLINE_MS 60000
#define RESOURCE    "0b1c2d3e-0000-4000-8000-0000000000ff"

/* What is to be killed, and when; set in a child before its threads start. */
struct kill_at {
    char what[20]; /* "run-before", "undo-after", "commit-before", ... or "" */
    unsigned n;    /* the step's index, or the number of the commit */
};

struct fixture {
    struct state head; /* first: commits are counted */
    struct state *real;
    struct event_base *base;
    struct workers *workers;
    struct tasks *tasks;
    char folder[64];
    struct kill_at kill_at;
    unsigned commits;
};

static struct fixture
    *current;            /* the steps find it here: struct daemon is none of ours */
static atomic_bool gate; /* opens the steps that wait for it */
static atomic_bool at_gate;

/* --- operations of our own ------------------------------------------------------------
 */

static size_t
index_of(struct op *op)
{
    size_t i = 0;

    while (strcmp(op->kind->steps[i].name, op->log.step) != 0)
        i++;
    return i;
}

static void
journal(const char *what, size_t i)
{
    AUTOFREE(char) *path = mem_printf("%s/journal", current->folder);
    AUTOFREE(char) *line = mem_printf("%s %zu\n", what, i);

    file_append(path, line);
}

static void
die_if(const char *what, size_t n)
{
    if (current->kill_at.n == n && strcmp(current->kill_at.what, what) == 0)
        raise(SIGKILL);
}

static bool
do_run(struct op *op, struct error **err UNUSED)
{
    size_t i = index_of(op);

    die_if("run-before", i);
    journal("run", i);
    json_set_int(op->data, op->log.step, (int64_t)i);
    op->result = op->result != NULL ? op->result : json_object_new_object();
    die_if("run-after", i);
    return true;
}

static bool
do_fail(struct op *op, struct error **err)
{
    (void)do_run(op, NULL);
    return error_set(err, ERROR_STORE, "the disk is full");
}

static void
undo_of(size_t i)
{
    die_if("undo-before", i);
    journal("undo", i);
    die_if("undo-after", i);
}

/* An undo is not told which step's it is: one function for each. */
#define UNDO(i)                                                           \
    static bool undo_##i(struct op *op UNUSED, struct error **err UNUSED) \
    {                                                                     \
        undo_of(i);                                                       \
        return true;                                                      \
    }
UNDO(0)
UNDO(1)
UNDO(2)
UNDO(3)

static bool
do_wait(struct op *op, struct error **err)
{
    journal("run", index_of(op));
    atomic_store(&at_gate, true);
    while (!atomic_load(&gate)) {
        if (!cancel_check(&op->cancel, err))
            return false;
        poll(NULL, 0, cancel_remaining_ms(&op->cancel, 5));
    }
    return true;
}

/* Does its work to the end although it is asked to stop, as a commit does. */
static bool
do_commit(struct op *op, struct error **err UNUSED)
{
    journal("run", index_of(op));
    atomic_store(&at_gate, true);
    while (cancel_check(&op->cancel, NULL))
        poll(NULL, 0, 5);
    return true;
}

static bool
do_check(struct op *op, struct error **err)
{
    journal("run", index_of(op));
    return cancel_check(&op->cancel, err);
}

static bool
do_nothing(struct op *op UNUSED, struct error **err UNUSED)
{
    return true;
}

/* clang-format off */
static const struct op_step forward_steps[] = {
    { "one", do_run, undo_0, 30, false }, { "two", do_run, undo_1, 30, false },
    { "three", do_run, undo_2, 30, true }, { "four", do_run, undo_3, 30, false },
    { 0 },
};
static const struct op_step backward_steps[] = {
    { "one", do_run, undo_0, 30, false }, { "two", do_run, undo_1, 30, false },
    { "three", do_run, undo_2, 30, false }, { "four", do_fail, undo_3, 30, true },
    { 0 },
};
static const struct op_step committed_steps[] = {
    { "one", do_run, undo_0, 30, false }, { "two", do_run, undo_1, 30, true },
    { "three", do_run, undo_2, 30, false }, { "four", do_fail, undo_3, 30, false },
    { 0 },
};
static const struct op_step gate_steps[] = {
    { "one", do_run, undo_0, 30, false }, { "two", do_wait, undo_1, 60, false },
    { 0 },
};
static const struct op_step late_steps[] = {
    { "one", do_run, undo_0, 30, true }, { "two", do_wait, undo_1, 60, false },
    { "three", do_run, undo_2, 30, false },
    { 0 },
};
static const struct op_step deaf_steps[] = {
    { "one", do_commit, undo_0, 60, true }, { "two", do_check, undo_1, 30, false },
    { 0 },
};
static const struct op_step slow_steps[] = {
    { "one", do_run, undo_0, 30, false }, { "two", do_wait, undo_1, 1, false },
    { 0 },
};
static const struct op_step quick_steps[] = {
    { "one", do_nothing, NULL, 30, false },
    { 0 },
};
/* clang-format on */

static const struct op_kind forward = { .name = "forward", .steps = forward_steps };
static const struct op_kind backward = { .name = "backward", .steps = backward_steps };
static const struct op_kind committed = { .name = "committed", .steps = committed_steps };
static const struct op_kind gated = { .name = "gated", .steps = gate_steps };
static const struct op_kind late = { .name = "late", .steps = late_steps };
static const struct op_kind deaf = { .name = "deaf", .steps = deaf_steps };
static const struct op_kind slow = { .name = "slow", .steps = slow_steps };
static const struct op_kind quick = { .name = "quick", .steps = quick_steps };
static const struct op_kind *const kinds[] = { &forward, &backward, &committed,
                                               &gated,   &late,     &slow,
                                               &quick,   &deaf,     NULL };

/* --- the state: counts commits
 * ------------------------------------------------------------ */

static bool
counted_list(struct state *s, const char *kind, const char *prefix,
             struct json_object **ret, struct error **err)
{
    struct state *real = ((struct fixture *)s)->real;

    return real->ops->list(real, kind, prefix, ret, err);
}

static bool
counted_commit(struct state *s, const struct state_write *writes, size_t n,
               struct error **err)
{
    struct fixture *f = (struct fixture *)s;
    bool ok;

    f->commits++;
    die_if("commit-before", f->commits);
    ok = f->real->ops->commit(f->real, writes, n, err);
    die_if("commit-after", f->commits);
    return ok;
}

static const struct state_ops counted_ops = { .name = "counted",
                                              .list = counted_list,
                                              .commit = counted_commit };

/* --- the engine
 * ------------------------------------------------------------------------------ */

static void
engine_open(struct fixture *f)
{
    AUTOFREE(char) *path = mem_printf("%s/state.db", f->folder);
    struct tasks_settings settings = { .state = &f->head, .kinds = kinds, .site = "sim" };
    struct error *err = NULL;

    f->head.ops = &counted_ops;
    assert_ok(state_sqlite_open(path, &f->real, &err), err);
    f->base = event_base_new();
    f->workers = settings.workers = workers_new(f->base, "step", 2);
    assert_ok(tasks_new(&settings, &f->tasks, &err), err);
    current = f;
}

static void
engine_close(struct fixture *f)
{
    tasks_stop(f->tasks);
    workers_free(TAKE(f->workers));
    tasks_free(TAKE(f->tasks));
    event_base_free(TAKE(f->base));
    f->real->ops->close(f->real);
}

static int
setup(void **state)
{
    struct fixture *f = NEW(struct fixture);

    snprintf(f->folder, sizeof f->folder, "/tmp/virt-dr-tasks-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    atomic_store(&gate, false);
    atomic_store(&at_gate, false);
    engine_open(f);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;

    engine_close(f);
    files_remove(f->folder);
    free(f);
    return 0;
}

static bool
start(struct fixture *f, const char *kind, const char *resource, char ret_id[40],
      struct error **err)
{
    struct tasks_request request = {
        .kind = kind, .resource_id = resource, .resource_name = "web01", .user = "root"
    };
    AUTOJSON *o = NULL;

    if (!tasks_start(f->tasks, &request, &o, err))
        return false;
    snprintf(ret_id, 40, "%s", json_string_or(o, "id", ""));
    return true;
}

/* The task once it has ended; the caller's to put. */
static struct json_object *
ended(struct fixture *f, const char *id)
{
    int64_t deadline_ms = units_monotonic_ms() + DEADLINE_MS;
    struct json_object *o = NULL;
    struct error *err = NULL;

    for (;;) {
        assert_ok(tasks_wait(f->tasks, id, 1000, &o, &err), err);
        if (strcmp(json_string_or(o, "state", ""), "RUNNING") != 0)
            return o;
        json_object_put(o);
        assert_true(units_monotonic_ms() < deadline_ms);
    }
}

static struct json_object *
run(struct fixture *f, const char *kind)
{
    struct error *err = NULL;
    char id[40];

    assert_ok(start(f, kind, RESOURCE, id, &err), err);
    return ended(f, id);
}

static void
wait_at_gate(void)
{
    int64_t deadline_ms = units_monotonic_ms() + DEADLINE_MS;

    while (!atomic_load(&at_gate)) {
        assert_true(units_monotonic_ms() < deadline_ms);
        poll(NULL, 0, 2);
    }
}

static void
journal_is(struct fixture *f, const char *wanted)
{
    AUTOFREE(char) *path = mem_printf("%s/journal", f->folder);
    AUTOFREE(char) *text = file_read(path);

    assert_string_equal(text != NULL ? text : "", wanted);
}

static const char *
step_state(struct json_object *task, size_t i)
{
    struct json_object *steps = json_array_or_null(task, "steps");

    return json_string_or(json_object_array_get_idx(steps, i), "state", "");
}

/* --- order
 * ------------------------------------------------------------------------------------ */

static void
steps_run_in_the_tables_order(void **state)
{
    AUTOJSON *o = run(*state, "forward");

    journal_is(*state, "run 0\nrun 1\nrun 2\nrun 3\n");
    assert_string_equal(json_string_or(o, "state", ""), "SUCCEEDED");
    assert_int_equal(json_int_or(o, "progress", 0), 100);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(step_state(o, i), "done");
    assert_null(json_object_object_get(o, "data")); /* private */
}

static void
undoing_begins_with_the_step_that_failed(void **state)
{
    AUTOJSON *o = run(*state, "backward");

    journal_is(*state, "run 0\nrun 1\nrun 2\nrun 3\nundo 3\nundo 2\nundo 1\nundo 0\n");
    assert_string_equal(json_string_or(o, "state", ""), "FAILED");
    assert_string_equal(json_string_or(json_object_or_null(o, "error"), "code", ""),
                        error_code_string(ERROR_STORE));
}

static void
after_a_step_that_commits_nothing_is_undone(void **state)
{
    AUTOJSON *o = run(*state, "committed");

    journal_is(*state, "run 0\nrun 1\nrun 2\nrun 3\n");
    assert_string_equal(json_string_or(o, "state", ""), "FAILED");
    assert_string_equal(step_state(o, 3), "failed");
}

/* --- cancelling, deadlines
 * --------------------------------------------------------------------- */

static void
a_cancelled_task_is_undone(void **state)
{
    struct fixture *f = *state;
    AUTOJSON *shown = NULL, *o = NULL;
    struct error *err = NULL;
    char id[40];

    assert_ok(start(f, "gated", RESOURCE, id, &err), err);
    wait_at_gate();
    assert_ok(tasks_cancel(f->tasks, id, &shown, &err), err);
    o = ended(f, id);
    assert_string_equal(json_string_or(o, "state", ""), "CANCELLED");
    journal_is(f, "run 0\nrun 1\nundo 1\nundo 0\n");
    assert_fails(tasks_cancel(f->tasks, id, NULL, &err), err, ERROR_INVALID_STATE);
}

static void
a_committed_task_cannot_be_cancelled(void **state)
{
    struct fixture *f = *state;
    AUTOJSON *shown = NULL, *o = NULL;
    struct error *err = NULL;
    char id[40];

    assert_ok(start(f, "late", RESOURCE, id, &err), err);
    wait_at_gate();
    assert_fails(tasks_cancel(f->tasks, id, &shown, &err), err, ERROR_INVALID_STATE);
    atomic_store(&gate, true);
    o = ended(f, id);
    assert_string_equal(json_string_or(o, "state", ""), "SUCCEEDED");
    assert_fails(tasks_cancel(f->tasks, "nobody", NULL, &err), err, ERROR_TASK_NOT_FOUND);
}

static void
a_cancel_during_the_step_that_commits_stops_nothing_behind_it(void **state)
{
    struct fixture *f = *state;
    AUTOJSON *shown = NULL, *o = NULL;
    struct error *err = NULL;
    char id[40];

    assert_ok(start(f, "deaf", RESOURCE, id, &err), err);
    wait_at_gate();
    assert_ok(tasks_cancel(f->tasks, id, &shown, &err), err);
    o = ended(f, id);
    assert_string_equal(json_string_or(o, "state", ""), "SUCCEEDED");
    journal_is(f, "run 0\nrun 1\n");
}

static void
the_deadline_of_a_step_ends_its_waits(void **state)
{
    int64_t before_ms = units_monotonic_ms();
    AUTOJSON *o = run(*state, "slow");

    assert_true(units_monotonic_ms() - before_ms >= 1000);
    assert_string_equal(json_string_or(o, "state", ""), "FAILED");
    assert_string_equal(json_string_or(json_object_or_null(o, "error"), "code", ""),
                        error_code_string(ERROR_TIMEOUT));
    journal_is(*state, "run 0\nrun 1\nundo 1\nundo 0\n");
}

static void
one_task_at_a_time_for_each_vm_and_the_refusal_names_the_other(void **state)
{
    struct fixture *f = *state;
    AUTOJSON *o = NULL, *other = NULL;
    struct error *err = NULL;
    char id[40], second[40];

    assert_ok(start(f, "gated", RESOURCE, id, &err), err);
    assert_true(tasks_busy(f->tasks, RESOURCE));
    assert_false(start(f, "quick", RESOURCE, second, &err));
    assert_int_equal(error_code(err), ERROR_IN_PROGRESS);
    assert_non_null(strstr(error_message(err), id));
    error_clear(&err);
    assert_ok(start(f, "quick", "another", second, &err), err);
    other = ended(f, second);
    atomic_store(&gate, true);
    o = ended(f, id);
    assert_false(tasks_busy(f->tasks, RESOURCE));
    assert_ok(start(f, "quick", RESOURCE, second, &err), err);
    json_object_put(ended(f, second));
}

static void
waiting_returns_when_something_changes_or_time_is_up(void **state)
{
    struct fixture *f = *state;
    AUTOJSON *still = NULL, *done = NULL;
    struct error *err = NULL;
    int64_t before_ms;
    char id[40];

    assert_ok(start(f, "gated", RESOURCE, id, &err), err);
    wait_at_gate();
    before_ms = units_monotonic_ms();
    assert_ok(tasks_wait(f->tasks, id, 300, &still, &err), err);
    assert_true(units_monotonic_ms() - before_ms >= 299);
    assert_string_equal(json_string_or(still, "state", ""), "RUNNING");
    atomic_store(&gate, true);
    assert_ok(tasks_wait(f->tasks, id, DEADLINE_MS, &done, &err), err);
    assert_true(units_monotonic_ms() - before_ms < DEADLINE_MS);
    json_object_put(ended(f, id));
    assert_fails(tasks_wait(f->tasks, "nobody", 10, &still, &err), err,
                 ERROR_TASK_NOT_FOUND);
}

/* --- pruning
 * ---------------------------------------------------------------------------------------
 */

static void
store_ended_task(struct fixture *f, unsigned i)
{
    AUTOFREE(char) *id = mem_printf("%08x-0000-4000-8000-000000000000", i * 2654435761u);
    AUTOFREE(char) *text = mem_printf(
        "{\"id\":\"%s\",\"type\":\"quick\",\"state\":\"SUCCEEDED\",\"startTime\":%u,"
        "\"steps\":[],\"workflowInfo\":{\"resourceId\":\"r\"},\"data\":{}}",
        id, 1000 + i);
    AUTOJSON *body = json_tokener_parse(text);
    struct state_write write = { .kind = "task", .id = id, .body = body };
    struct error *err = NULL;

    assert_ok(f->real->ops->commit(f->real, &write, 1, &err), err);
}

static void
the_oldest_ended_tasks_are_forgotten_also_after_a_restart(void **state)
{
    struct fixture *f = *state;
    AUTOJSON *list = NULL, *stored = NULL;
    struct error *err = NULL;
    size_t n;

    for (unsigned i = 0; i < TASKS_KEPT + 5; i++)
        store_ended_task(f, i);
    assert_ok(tasks_resume(f->tasks, &err), err);
    json_object_put(run(f, "quick"));
    assert_ok(tasks_list(f->tasks, 2 * TASKS_KEPT, &list, &err), err);
    n = json_object_array_length(list);
    assert_int_equal(n, TASKS_KEPT + 1);
    /* The newest first; of the stored ones the five oldest are gone. */
    assert_int_equal(json_int_or(json_object_array_get_idx(list, n - 1), "startTime", 0),
                     1005);
    assert_ok(f->real->ops->list(f->real, "task", "", &stored, &err), err);
    assert_int_equal(json_object_array_length(stored), TASKS_KEPT + 1);
}

/* --- kills
 * --------------------------------------------------------------------------------------------
 */

extern char **environ;

/* True if it was killed. */
static bool
child(struct fixture *f, const char *kind, const char *what, unsigned n)
{
    AUTOFREE(char) *program = file_of_this_program();
    char number[12];
    char *const argv[] = {
        (char *)(uintptr_t) "child", f->folder, (char *)(uintptr_t)kind,
        (char *)(uintptr_t)what,     number,    NULL
    };
    pid_t pid;
    int status;

    snprintf(number, sizeof number, "%u", n);
    assert_int_equal(posix_spawn(&pid, program, NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return true;
    assert_int_equal(status, 0);
    return false;
}

/* Goes on with what is stored, or starts it; returns when it has ended. */
static void
be_child(int argc, char **argv)
{
    struct fixture f = { 0 };
    AUTOJSON *list = NULL;
    struct error *err = NULL;
    uint64_t n = 0;
    char id[40];

    log_init(LOG_LEVEL_ERROR);
    if (argc != 5 || strcmp(argv[0], "child") != 0)
        return;
    snprintf(f.folder, sizeof f.folder, "%s", argv[1]);
    snprintf(f.kill_at.what, sizeof f.kill_at.what, "%s", argv[3]);
    if (!units_parse_u64(argv[4], 0, 1000, &n, NULL))
        exit(2);
    f.kill_at.n = (unsigned)n;
    engine_open(&f);
    assert_ok(tasks_resume(f.tasks, &err), err);
    assert_ok(tasks_list(f.tasks, 1, &list, &err), err);
    if (json_object_array_length(list) > 0)
        snprintf(id, sizeof id, "%s",
                 json_string_or(json_object_array_get_idx(list, 0), "id", ""));
    else
        assert_ok(start(&f, argv[2], RESOURCE, id, &err), err);
    json_object_put(ended(&f, id));
    engine_close(&f);
    exit(0);
}

/*
 * What the journal of an operation must be like, however often it was killed: no
 * step before its turn, none left out, none again once the next one ran; undoing
 * goes from the step that failed to the first, whole at least once, at the end.
 */
static void
check_journal(const char *text, int last, bool undone)
{
    int at = -1, undoing = -1;

    for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1) {
        int i = line[strcspn(line, " ")] == ' ' ? line[strcspn(line, " ") + 1] - '0' : -1;

        if (strncmp(line, "run ", 4) == 0) {
            assert_int_equal(undoing, -1);
            assert_true(i == at || i == at + 1);
            at = i;
        } else {
            assert_true(undone);
            assert_int_equal(at, last);
            assert_true(i == last || i == undoing - 1 || i == undoing);
            undoing = i;
        }
    }
    assert_int_equal(at, last);
    assert_int_equal(undoing, undone ? 0 : -1);
}

static void
check_end(struct fixture *f, const char *wanted)
{
    AUTOJSON *list = NULL;
    struct error *err = NULL;

    engine_open(f);
    assert_ok(f->real->ops->list(f->real, "task", "", &list, &err), err);
    assert_int_equal(json_object_array_length(list), 1);
    assert_string_equal(json_string_or(json_object_array_get_idx(list, 0), "state", ""),
                        wanted);
    engine_close(f);
}

static bool
survives(const struct op_kind *kind, const char *what, unsigned n)
{
    bool undone = kind == &backward;
    struct fixture f = { .folder = "/tmp/virt-dr-tasks-XXXXXX" };
    AUTOFREE(char) *path = NULL;
    AUTOFREE(char) *text = NULL;
    bool killed;

    assert_non_null(mkdtemp(f.folder));
    path = mem_printf("%s/journal", f.folder);
    killed = child(&f, kind->name, what, n);
    if (killed)
        assert_false(child(&f, kind->name, "none", 0));
    text = file_read(path);
    assert_non_null(text);
    check_journal(text, 3, undone);
    check_end(&f, kind == &forward ? "SUCCEEDED" : "FAILED");
    files_remove(f.folder);
    return killed;
}

static void
survives_all(const struct op_kind *kind)
{
    static const char *const steps[] = { "run-before", "run-after", "undo-before",
                                         "undo-after" };
    static const char *const commits[] = { "commit-before", "commit-after" };

    for (unsigned i = 0; kind->steps[i].name != NULL; i++)
        for (size_t k = 0; k < N_ELEMENTS(steps); k++)
            assert_int_equal(survives(kind, steps[k], i),
                             strncmp(steps[k], "run", 3) == 0 || kind == &backward);
    for (size_t k = 0; k < N_ELEMENTS(commits); k++) {
        unsigned n = 1;

        while (survives(kind, commits[k], n))
            n++;
        assert_true(n > 5); /* one for each step at least, and one for the end */
    }
}

static void
an_operation_killed_anywhere_goes_on(void **state UNUSED)
{
    survives_all(&forward);
}

static void
an_operation_killed_anywhere_is_undone_if_it_fails(void **state UNUSED)
{
    survives_all(&backward);
}

static void
a_committed_operation_killed_anywhere_only_goes_forward(void **state UNUSED)
{
    survives_all(&committed);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        TEST(steps_run_in_the_tables_order),
        TEST(undoing_begins_with_the_step_that_failed),
        TEST(after_a_step_that_commits_nothing_is_undone),
        TEST(a_cancelled_task_is_undone),
        TEST(a_committed_task_cannot_be_cancelled),
        TEST(a_cancel_during_the_step_that_commits_stops_nothing_behind_it),
        TEST(the_deadline_of_a_step_ends_its_waits),
        TEST(one_task_at_a_time_for_each_vm_and_the_refusal_names_the_other),
        TEST(waiting_returns_when_something_changes_or_time_is_up),
        TEST(the_oldest_ended_tasks_are_forgotten_also_after_a_restart),
        cmocka_unit_test(an_operation_killed_anywhere_goes_on),
        cmocka_unit_test(an_operation_killed_anywhere_is_undone_if_it_fails),
        cmocka_unit_test(a_committed_operation_killed_anywhere_only_goes_forward),
    };

    evthread_use_pthreads();
    be_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
